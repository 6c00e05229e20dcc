//! Parity sidecars, each with what is left of its pack: what comes back, and what spoils a repair.

use crate::decode::Facts;
use crate::file::Vector;
use bulla_repo_format::id::to_hex;
use bulla_repo_format::parity::*;
use bulla_repo_format::*;

pub(crate) fn decode(v: &Vector) -> Result<Facts> {
    let Some(ObjectName::Parity(name)) = ObjectName::parse(v.given("name")) else { panic!("{}", v.name) };
    let given = v.given("pack").as_bytes().chunks(2).map(|p| std::str::from_utf8(p).unwrap());
    let pack: Vec<u8> = given.map(|p| u8::from_str_radix(p, 16).unwrap()).collect();
    let sidecar = Sidecar::parse(&v.bytes, &name)?;
    let (head, intact, repaired) = (*sidecar.head(), sidecar.intact(), sidecar.repair(&pack)?);
    let facts = [
        ("shard-size", head.shard.to_string()),
        ("shards", format!("{} {}", head.data(), head.recovery)),
        ("intact", intact.to_string()),
        ("repaired", repaired.shards.to_string()),
        ("pack", to_hex(&repaired.bytes)),
    ];
    Ok(facts.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
}

const SHARD: usize = 64;
/// Where the recovery shards begin: five data shards and three of recovery.
const FIRST: usize = HEAD_LEN + 8 * 32;

fn pack() -> Vec<u8> {
    let mut out = vec![0; 4 * SHARD + 44];
    blake3::Hasher::new().update(b"parity").finalize_xof().fill(&mut out);
    out
}

fn head() -> Head {
    let name = PackName::new(*blake3::hash(&pack()).as_bytes());
    Head { name, size: pack().len() as u64, shard: SHARD as u32, recovery: 3 }
}

fn sidecar() -> Vec<u8> {
    create_as(&head(), &[&pack()]).unwrap().parts().concat()
}

/// Both heads replaced.
fn headed(head: &[u8]) -> Vec<u8> {
    let all = sidecar();
    [head, &all[HEAD_LEN..all.len() - HEAD_LEN], head].concat()
}

/// A head of any content with the right checksum.
fn any_head(change: impl FnOnce(&mut Head)) -> Vec<u8> {
    let mut h = head();
    change(&mut h);
    h.encode()
}

/// A head with one byte changed and the checksum made again.
fn byte(at: usize, value: u8) -> Vec<u8> {
    let mut out = head().encode()[..HEAD_LEN - 32].to_vec();
    out[at] = value;
    let checksum = *blake3::hash(&out).as_bytes();
    [&out[..], &checksum].concat()
}

/// The pack with these shards turned over.
fn without(shards: &[usize]) -> Vec<u8> {
    let mut out = pack();
    for (i, b) in out.iter_mut().enumerate() {
        *b ^= if shards.contains(&(i / SHARD)) { 0xff } else { 0 };
    }
    out
}

fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = sidecar();
    change(&mut out);
    out
}

fn good() -> Vec<Vector> {
    let ok = |case: &str, note: &str, bytes: Vec<u8>, pack: Vec<u8>| {
        Vector::ok("parity", case, note, bytes)
            .with("name", ObjectName::Parity(head().name))
            .with("pack", to_hex(&pack))
    };
    let whole = sidecar();
    let ends = whole.len() - FIRST;
    vec![
        ok(
            "first-and-last",
            "three of five shards damaged, start and end among them",
            sidecar(),
            without(&[0, 2, 4]),
        ),
        ok("nothing", "nothing is damaged", sidecar(), pack()),
        ok("cut", "the pack ends in its third shard", sidecar(), pack()[..150].to_vec()),
        ok("longer", "bytes behind the pack", sidecar(), [pack(), vec![1; 100]].concat()),
        ok("one", "one shard damaged: any of the three would do", sidecar(), without(&[1])),
        ok(
            "front",
            "the sidecar's front is lost, and its first recovery shard",
            changed(|s| s[..FIRST + SHARD].fill(0)),
            without(&[0, 4]),
        ),
        ok(
            "back",
            "the sidecar is cut behind its recovery shards",
            whole[..ends].to_vec(),
            without(&[0, 1, 2]),
        ),
        ok(
            "lists",
            "one list begins, the other ends with zeros: each hash stands once",
            changed(|s| {
                s[HEAD_LEN..HEAD_LEN + 128].fill(0);
                s[ends + 128..ends + 256].fill(0);
            }),
            without(&[0, 1, 2]),
        ),
        ok(
            "entry",
            "a hash that is wrong in both lists: its shard counts as damaged, and is not",
            changed(|s| {
                s[HEAD_LEN] ^= 1;
                s[ends] ^= 1;
            }),
            without(&[1, 2]),
        ),
        ok(
            "one-head",
            "the front head is that of another pack",
            {
                let strange = any_head(|h| h.name = PackName::new([9; 32]));
                changed(|s| s[..HEAD_LEN].copy_from_slice(&strange))
            },
            without(&[3]),
        ),
        single(),
    ]
}

/// The smallest: one data shard of a few bytes, all of them lost.
fn single() -> Vector {
    let pack = b"a pack";
    let name = PackName::new(*blake3::hash(pack).as_bytes());
    let shape = Head { name, size: 6, shard: 64, recovery: 1 };
    let bytes = create_as(&shape, &[pack]).unwrap().parts().concat();
    Vector::ok("parity", "single", "one data shard, all of it lost", bytes)
        .with("name", ObjectName::Parity(name))
        .with("pack", "")
}

fn bad() -> Vec<Vector> {
    let no = |rule: &str, case: &str, note: &str, bytes: Vec<u8>, pack: Vec<u8>| {
        Vector::reject("parity", rule, case, note, bytes)
            .with("name", ObjectName::Parity(head().name))
            .with("pack", to_hex(&pack))
    };
    let bad_head = |rule: &str, case: &str, note: &str, head: Vec<u8>| {
        no(rule, case, note, headed(&head), without(&[1]))
    };
    let lie = create_as(&head(), &[&without(&[3])]).unwrap().parts().concat();
    let ends = sidecar().len() - FIRST;
    vec![
        bad_head("R-PARITY-1", "magic", "another magic", byte(0, b'B')),
        bad_head("R-PARITY-1", "version", "format version 2", byte(5, 2)),
        bad_head("R-PARITY-1", "type", "the type of a pack", byte(6, 3)),
        bad_head("R-PARITY-1", "suite", "suite 2", byte(7, 2)),
        bad_head("R-PARITY-1", "checksum", "both checksums are wrong", {
            let mut h = head().encode();
            h[HEAD_LEN - 1] ^= 1;
            h
        }),
        no("R-PARITY-1", "short", "shorter than a head", sidecar()[..HEAD_LEN - 1].to_vec(), without(&[1])),
        bad_head("R-PARITY-2", "odd", "shards of 96 bytes", any_head(|h| h.shard = 96)),
        bad_head("R-PARITY-2", "no-shard", "shards of no bytes", any_head(|h| h.shard = 0)),
        bad_head("R-PARITY-2", "large", "shards of 2 MiB", any_head(|h| h.shard = 2 << 20)),
        bad_head("R-PARITY-2", "empty", "an empty pack", any_head(|h| h.size = 0)),
        bad_head(
            "R-PARITY-2",
            "pack",
            "a pack of 3 GiB",
            any_head(|h| (h.size, h.shard) = (3 << 30, 1 << 20)),
        ),
        bad_head("R-PARITY-2", "none", "no recovery shards", any_head(|h| h.recovery = 0)),
        bad_head("R-PARITY-2", "more", "more recovery shards than data shards", any_head(|h| h.recovery = 6)),
        bad_head(
            "R-PARITY-2",
            "many",
            "33,000 data shards and 32,769 of recovery, which count as 65,536",
            any_head(|h| (h.size, h.recovery) = (33_000 * 64, 32_769)),
        ),
        bad_head("R-PARITY-3", "name", "another pack's", any_head(|h| h.name = PackName::new([9; 32]))),
        no("R-PARITY-4", "shards", "four of five shards damaged", sidecar(), without(&[0, 1, 2, 3])),
        no(
            "R-PARITY-4",
            "recovery",
            "three shards damaged, and one of recovery",
            changed(|s| s[FIRST] ^= 1),
            without(&[0, 1, 2]),
        ),
        no(
            "R-PARITY-4",
            "hash",
            "three shards damaged, and a fourth one's hash in both lists",
            changed(|s| {
                s[HEAD_LEN + 96] ^= 1;
                s[ends + 96] ^= 1;
            }),
            without(&[0, 1, 2]),
        ),
        no(
            "R-PARITY-4",
            "cut",
            "the sidecar ends in its second recovery shard",
            sidecar()[..FIRST + 100].to_vec(),
            without(&[0, 4]),
        ),
        no("R-PARITY-4", "gone", "nothing of the pack is left", sidecar(), Vec::new()),
        no("R-PARITY-5", "lie", "all hashes are those of other bytes", lie, without(&[0])),
    ]
}

pub(crate) fn cases() -> Vec<Vector> {
    [good(), bad()].concat()
}
