//! Names of files can be any bytes; none of them reaches a terminal as it is, none is lost to a program.

use crate::home::Home;
use serde_json::Value;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

#[test]
fn control_bytes_are_escaped_for_people_and_kept_for_programs() {
    let home = Home::with_repository();
    let name: &[u8] = b"evil\x1b[2J\n\xff";
    std::fs::write(home.path("src").join(OsStr::from_bytes(name)), b"x").unwrap();
    let ran = home.bulla("backup -v src").ends(0).says("evil\\x1b[2J\\x0a\\xff");
    let ls = home.bulla("ls -l latest").ends(0).prints("evil\\x1b[2J\\x0a\\xff");
    for text in [ran.out, ran.err, ls.out] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
    }
    let json = home.bulla("ls --json latest").ok();
    let node: Value = json
        .lines()
        .map(|l| serde_json::from_str::<Value>(l).unwrap())
        .find(|n| n["name"].as_str().is_some_and(|n| n.starts_with("evil")))
        .unwrap();
    let hex = node["path_bytes"].as_str().unwrap();
    assert!(hex.ends_with("6576696c1b5b324a0aff"), "{hex}");
}
