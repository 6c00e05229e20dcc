//! Parity with the real binary: bytes of pack files are spoiled with `dd`, and come back without a password.

use crate::home::Home;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SHARD: usize = 64 << 10;

/// A repository with parity and a backup of about 26 MB that does not compress.
fn protected(init: &str) -> Home {
    let mut home = Home::empty();
    home.set("BULLA_REPOSITORY", "repo");
    home.write("password", b"a password\n");
    home.bulla(&format!("init --key-file-out key --label x {init}")).ok();
    home.set("BULLA_KEY_FILE", "key");
    let mut x = 1u64;
    let mut noise = |len: usize| {
        let next = || {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (x >> 56) as u8
        };
        std::iter::repeat_with(next).take(len).collect::<Vec<u8>>()
    };
    home.write("src/large", &noise(24_000_000));
    home.write("src/sub/small", &noise(2_000_000));
    home.bulla("backup src").ok();
    home
}

/// Without password, key file or cache.
fn keyless(home: &mut Home) {
    home.unset("BULLA_KEY_FILE");
}

fn packs(home: &Home) -> Vec<PathBuf> {
    [home.objects("packs"), home.objects("meta")].concat()
}

fn size(path: &Path) -> usize {
    usize::try_from(path.metadata().unwrap().len()).unwrap()
}

/// Writes `count` random bytes at `at`, as a failing disk would: nobody asks for permission.
fn dd(path: &Path, at: usize, count: usize) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600)).unwrap();
    let args = [
        "if=/dev/urandom".to_owned(),
        format!("of={}", path.display()),
        format!("seek={at}"),
        format!("count={count}"),
        "oflag=seek_bytes".to_owned(),
        "iflag=count_bytes,fullblock".to_owned(),
        "bs=64K".to_owned(),
        "conv=notrunc".to_owned(),
        "status=none".to_owned(),
    ];
    assert!(Command::new("dd").args(args).status().unwrap().success());
}

fn state(home: &Home) -> Vec<(PathBuf, Vec<u8>)> {
    let all = ["packs", "meta", "parity", "index", "snap", "config"];
    all.iter().flat_map(|a| home.objects(a)).map(|p| (p.clone(), std::fs::read(&p).unwrap())).collect()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn spoiled_packs_come_back_bit_for_bit_without_a_password() {
    let mut home = protected("--parity 3%");
    let (before, packs) = (state(&home), packs(&home));
    assert_eq!(home.objects("parity").len(), packs.len());
    let full = packs.iter().filter(|p| size(p) > 8_000_000).count();
    assert!(full > 0, "packs of the usual size");
    for (number, pack) in packs.iter().enumerate() {
        let len = size(pack);
        let share = (len.div_ceil(SHARD) * 3).div_ceil(100);
        // Header and more, scattered places, trailer and more: as much as the share allows.
        match number % 3 {
            0 => dd(pack, 0, share * SHARD),
            1 => (0..share).for_each(|i| dd(pack, i * (len / share) + 17, 512.min(len - 17))),
            _ => dd(pack, len - (share - 1) * SHARD - 1, (share - 1) * SHARD + 1),
        }
    }
    let first = packs.iter().find(|p| p.starts_with(home.path("repo/packs"))).unwrap();
    let parity = home.path("repo/parity").join(first.strip_prefix(home.path("repo/packs")).unwrap());
    dd(&parity, 0, 1000);
    let ran = home.bulla("check --read-data").ends(4);
    assert!(ran.err.contains("have parity: try `bulla repair parity`"), "{}", ran.err);

    keyless(&mut home);
    home.set("BULLA_KEY_FILE", "no such file");
    let spoiled = state(&home);
    home.bulla("repair parity -n")
        .ends(4)
        .prints("can be repaired: packs/")
        .prints("0 damaged beyond parity");
    assert!(state(&home) == spoiled, "a dry run writes nothing");
    let ran =
        home.bulla("repair parity").ends(0).prints("repaired: packs/").prints("0 damaged beyond parity");
    assert!(ran.out.contains("made its parity again: parity/"), "{}", ran.out);
    assert!(state(&home) == before, "bit for bit");
    let summary = json(&home.bulla("repair parity --json").ok());
    assert_eq!((&summary["healthy"], &summary["repaired"]), (&packs.len().into(), &0.into()));
    assert_eq!(summary["message_type"], "summary");

    home.set("BULLA_KEY_FILE", "key");
    home.bulla("check --read-data").ends(0).prints("no damage found");
    home.bulla("restore latest --target out --verify").ok();
    for file in ["src/large", "src/sub/small"] {
        assert!(home.read(&format!("out{}", home.shown(file))) == home.read(file), "{file}");
    }
}

#[test]
fn damage_beyond_parity_is_four_and_writes_nothing() {
    let mut home = protected("--parity 1");
    let pack = packs(&home).into_iter().max_by_key(|p| size(p)).unwrap();
    dd(&pack, 1000, 4 * SHARD);
    keyless(&mut home);
    let before = state(&home);
    let ran = home.bulla("repair parity").ends(4).prints("1 damaged beyond parity").prints("bulla check");
    let line = ran.out.lines().find(|l| l.starts_with("damaged, not repaired: packs/")).unwrap();
    assert!(line.contains("5 shards of it are damaged and parity is left for "), "{line}");
    let ran = home.bulla("repair parity --json").ends(4);
    assert_eq!(json(&ran.out)["damaged"], 1);
    assert!(ran.out.contains("\"message_type\":\"damaged\""), "{}", ran.out);
    assert!(state(&home) == before);
}

#[test]
fn parity_is_added_and_dropped_at_any_time() {
    let mut home = protected("");
    assert_eq!(home.objects("parity").len(), 0);
    home.bulla("repair parity").ends(0).says("there is no parity; bulla repair parity --add");
    let packs_before = packs(&home).len();
    let out = home.bulla("repair parity --add").ok();
    assert!(out.contains(&format!("made parity of 3% for {packs_before} packs")), "{out}");
    assert_eq!(home.objects("parity").len(), packs_before);
    home.write("src/new", b"something new");
    home.bulla("backup src").ok();
    assert_eq!(home.objects("parity").len(), packs(&home).len());
    home.bulla("repair parity --add 5%").ends(0).prints("for 0 packs");

    let lost = packs(&home).remove(0);
    std::fs::remove_file(&lost).unwrap();
    home.bulla("repair parity").ends(0).says("parity of 1 pack that are not there").says("--drop-orphans");
    home.bulla("repair parity --drop-orphans").ends(0).says("deleted the parity of 1 pack");
    assert!(!lost.exists());

    let out = home.bulla("repair parity --drop --json").ok();
    assert_eq!(json(&out)["parity_deleted"], packs(&home).len());
    assert_eq!(home.objects("parity").len(), 0);
    home.write("src/newer", b"something newer");
    home.bulla("backup src --force").ok();
    assert_eq!(home.objects("parity").len(), 0, "and none comes with later backups");

    home.bulla("repair parity --add 0").ends(2).says("not a share");
    home.bulla("repair parity --add --drop").ends(2);
    home.bulla("repair parity -r src").ends(10);
    home.bulla("repair").ends(2).says("parity");
    keyless(&mut home);
    home.bulla("repair parity --add").ends(12);
    home.bulla("repair parity --drop").ends(12);
    home.bulla("repair parity").ok();
}
