//! What comes back, what is left alone, and what is refused.

use crate::home::Home;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_part_goes_straight_into_the_target() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let src = home.shown("src");
    home.bulla(&format!("restore latest:{src} -t out --verify")).ends(0).prints("restored 2 files");
    assert_eq!(home.read("out/hello"), b"hello\n");
    home.bulla(&format!("restore latest:{src}/sub/more.log -t one")).ok();
    assert_eq!(home.read("one/more.log").len(), 100_000);
    home.bulla("restore latest:/nothing -t x").ends(1).says("is not in snapshot");
    home.bulla("restore latest").ends(2).says("--target");
}

#[test]
fn patterns_choose_and_existing_files_are_treated_as_told() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let part = format!("latest:{}", home.shown("src"));
    home.bulla(&format!("restore {part} -t a --include *.log")).ok();
    assert!(home.path("a/sub/more.log").exists() && !home.path("a/hello").exists());
    home.bulla(&format!("restore {part} -t b --iexclude *.LOG")).ok();
    assert!(!home.path("b/sub/more.log").exists() && home.path("b/hello").exists());

    home.write("b/hello", b"other\n");
    home.write("b/stranger", b"x");
    home.bulla(&format!("restore {part} -t b --overwrite never")).ends(0).prints("left alone");
    assert_eq!(home.read("b/hello"), b"other\n");
    let plan = home
        .bulla(&format!("restore {part} -t b --delete -n"))
        .ends(0)
        .prints("dry run: nothing was written, ")
        .prints(" would be fetched from 1 pack in 1 request\n");
    assert!(
        plan.out.contains("rewrite    b/hello") && plan.out.contains("delete     b/stranger"),
        "{}",
        plan.out
    );
    assert_eq!(home.read("b/hello"), b"other\n");
    home.bulla(&format!("restore {part} -t b --delete")).ends(0).prints("1 item removed");
    assert_eq!(home.read("b/hello"), b"hello\n");
    assert!(!home.path("b/stranger").exists());
}

#[test]
fn the_repository_is_out_of_reach() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    home.bulla("restore latest -t repo/inside").ends(2).says("lies in the repository");
    home.bulla("restore latest -t repo/../repo").ends(2).says("lies in the repository");
    std::os::unix::fs::symlink("repo", home.path("innocent")).unwrap();
    home.bulla("restore latest -t innocent/x").ends(2).says("lies in the repository");
    home.bulla("restore latest -t . --delete").ends(2).says("--delete could remove it");
    home.bulla("check").ok();
}

#[test]
fn damage_is_told_and_the_rest_restored() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    home.write("src/later", b"written later\n");
    home.bulla("backup src").ok();
    let later = home.bulla("cat index").ok();
    let later: Vec<Value> = later.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let smallest =
        later.iter().filter(|p| p["kind"] == "data").min_by_key(|p| p["plain_size"].as_u64()).unwrap();
    let name = smallest["name"].as_str().unwrap();
    let pack = home.objects("packs").into_iter().find(|p| p.ends_with(name)).unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[90] ^= 1;
    std::fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let part = format!("latest:{}", home.shown("src"));
    home.bulla(&format!("restore {part} -t out")).ends(4).prints("damaged, not restored: /");
    assert_eq!(home.read("out/hello"), b"hello\n");
    assert!(!home.path("out/later").exists(), "never present with wrong content");
    let ran = home.bulla(&format!("restore {part} -t out2 --json")).ends(4);
    let summary: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!((&summary["message_type"], &summary["damaged_count"]), (&"summary".into(), &1.into()));
    assert_eq!(summary["files_restored"], 2);
}

/// The cache of the repository is led out of the cache directory: who reads bytes of others must not follow.
#[test]
fn restore_and_check_are_confined_to_what_they_need() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    home.bulla("ls latest").ok();
    let outside = home.path("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::create_dir(home.path("new")).unwrap();
    let mut cached = std::fs::read_dir(home.path(".cache/bulla")).unwrap();
    let cached = cached.next().unwrap().unwrap().path();
    std::fs::remove_dir_all(&cached).unwrap();
    std::os::unix::fs::symlink(&outside, &cached).unwrap();
    let led = || std::fs::read_dir(&outside).unwrap().count();
    for line in [
        "restore latest --target new/out",
        "restore latest --target new/out -n",
        "check",
        "check --read-data",
    ] {
        let ran = home.bulla(line).ends(0);
        if ran.err.contains("does not confine") {
            assert!(std::env::var_os("CI").is_none(), "this kernel has no Landlock");
            return;
        }
        assert_eq!(led(), 0, "{line}");
    }
    // That the way leads out at all.
    home.bulla("ls latest").ok();
    assert_ne!(led(), 0, "the test leads nowhere");
    assert_eq!(home.read(&format!("new/out{}", home.shown("src/hello"))), b"hello\n");
}
