//! Seeds: the bytes of every vector, by the kind of object its header names; sealed objects also opened, as
//! `<kind>-body`, so that the parsers behind the seal are met as well.

use bulla_repo_format::config;
use bulla_repo_format::envelope::{self, ObjectType};
use bulla_repo_format::keys::Secret;
use std::collections::HashMap;
use std::path::Path;

/// Reads `repo-format/vectors`.
pub fn load() -> HashMap<String, Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../repo-format/vectors");
    let mut out: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let Some((header, body)) = text.split_once("\n\n") else { continue };
        let Some(kind) = header.lines().find_map(|l| l.strip_prefix("object: ")) else { continue };
        let digits: Vec<u8> = body.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(byte).collect();
        if let Some(text) = header.lines().find_map(|l| l.strip_prefix("with-text: ")) {
            out.entry(kind.to_owned()).or_default().push(text.as_bytes().to_vec());
        }
        if let Some(body) = open(kind, &bytes) {
            out.entry(format!("{kind}-body")).or_default().push(body);
        }
        out.entry(kind.to_owned()).or_default().push(bytes);
    }
    for (kind, seeds) in written() {
        out.insert(kind.to_owned(), seeds);
    }
    out
}

/// What is no object: bytes to cut, patterns before a path, policies, commands.
fn written() -> [(&'static str, Vec<Vec<u8>>); 5] {
    let mut noise = vec![0; 700];
    blake3::Hasher::new().update(b"seed").finalize_xof().fill(&mut noise);
    let patterns: [&[u8]; 6] = [
        b"*.o\n!keep.o\n/home/u/keep.o",
        b"/home/**/cache\nhome/a/b/cache/x",
        b"[a-f]?[!x-z]*\nsrc/b1y.c",
        b"a\\*b\n**\n/a*b/c",
        "f\u{fc}r/\u{e4}?\nf\u{fc}r/\u{e4}b".as_bytes(),
        b"x/../y\n./y/\xff*\n/y/\xff\xfe",
    ];
    let policies: [&[u8]; 6] = [b"12", b"unlimited", b"1y5m7d2h", b"99999h", b"12m", b"3w1d"];
    let commands: [&[u8]; 4] = [
        b"\x00\x04\x11\x09\x05\x00\x12\x30\x05\x00\x07\x00\x09\x00\x0a\x00",
        b"\x20\x13\x31\x0e\x41\x18\x05\x01\x24\x05\x06\x00\x07\x01\x08\x00\x09\x01",
        b"\x01\x0e\x05\x00\x03\x00\x05\x00\x07\x00\x07\x00\x09\x00\x05\x00\x0a\x00",
        b"\x00\x13\x10\x14\x20\x18\x06\x00\x02\x07\x06\x00\x07\x02\x09\x00\x01\x13\x05\x00\x09\x02",
    ];
    let own = |seeds: &[&[u8]]| seeds.iter().map(|s| s.to_vec()).collect();
    [
        ("chunker", vec![noise.clone(), vec![0; 600], noise.iter().map(|b| b & 3).collect()]),
        ("patterns", own(&patterns)),
        ("policy", own(&policies)),
        ("commands", own(&commands)),
        ("jobs", own(&[bulla_manager::config::STARTER.as_bytes(), JOBS])),
    ]
}

/// Jobs with schedules of all kinds.
const JOBS: &[u8] =
    b"[job.a]\nschedule = \"OnCalendar=Mon..Fri,Sun *-1/3~7..9/2 0/6:5,10..40/15:30 Europe/Berlin\"\n\
    [job.b]\nschedule = \"OnCalendar=quarterly\"\n[job.c]\nschedule = \"*/5 1-3 1,15 * 1-5\"\n";

/// The body of a sealed object, its signature cut off.
fn open(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    if kind == "config" {
        let (repo, _) = config::identify(bytes).ok()?;
        let key = |_: &envelope::Header| Ok(Secret::new([0x31; 32]));
        let (_, body) = envelope::open(ObjectType::Config, &repo, key, bytes).ok()?;
        return Some(envelope::split_signature(ObjectType::Config, &body).ok()?.0.to_vec());
    }
    let ty = match kind {
        "index" => ObjectType::Index,
        "verdict" => ObjectType::Verdict,
        "announcement" => ObjectType::Announcement,
        "mark" => ObjectType::Mark,
        "forget" => ObjectType::Forget,
        "record" => ObjectType::Record,
        "death" => ObjectType::Death,
        "hold" => ObjectType::Hold,
        "certificate" => ObjectType::Client,
        _ => return None,
    };
    let ring = crate::targets::keyring()?;
    let key = |h: &envelope::Header| ring.envelope_key(h.epoch, ty);
    let (_, body) = envelope::open(ty, &crate::targets::REPO, key, bytes).ok()?;
    Some(envelope::split_signature(ty, &body).ok()?.0.to_vec())
}
