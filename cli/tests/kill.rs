//! `kill -9` at any moment of a backup: the next command needs no help, and what was acknowledged restores.

use crate::home::Home;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Every file below `dir` with a digest of its bytes.
fn digest(dir: &Path, out: &mut Vec<(String, u64)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            digest(&path, out);
        } else {
            let bytes = fs::read(&path).unwrap();
            // FNV-1a: enough to tell trees apart in a test.
            let hash = bytes
                .iter()
                .fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3));
            out.push((path.file_name().unwrap().to_string_lossy().into_owned(), hash));
        }
    }
    out.sort();
}

fn state(dir: &Path) -> Vec<(String, u64)> {
    let mut out = Vec::new();
    digest(dir, &mut out);
    out
}

fn bytes(seed: usize, len: usize) -> Vec<u8> {
    let mut x = seed as u64 * 2 + 1;
    std::iter::repeat_with(|| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (x >> 56) as u8
    })
    .take(len)
    .collect()
}

#[test]
fn a_backup_killed_at_any_moment_harms_nothing() {
    let kills: usize = std::env::var("BULLA_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(25);
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let first = state(&home.path("src"));
    let first_id = home.bulla("-q --json snapshots").ok();
    let first_id = first_id.split("\"id\":\"").nth(1).unwrap()[..32].to_owned();
    for kill in 0..kills {
        home.write(&format!("src/new-{}", kill % 4), &bytes(kill, 3_000_000));
        let mut child = home.command(&["-q", "backup", "src"]).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(kill as u64 * 13 % 400));
        let _ = child.kill();
        let _ = child.wait();
        home.bulla("-q snapshots").ok();
    }
    home.bulla(&format!("-q restore {first_id} --target first")).ok();
    assert_eq!(state(&home.path(&format!("first{}", home.shown("src")))), first);
    home.bulla("-q backup src").ok();
    home.bulla("-q restore latest --target last").ok();
    assert_eq!(state(&home.path(&format!("last{}", home.shown("src")))), state(&home.path("src")));
    home.bulla("check --read-data").ok();
    for snapshot in home.bulla("-q --json snapshots").ok().split("\"short_id\":\"").skip(1) {
        let target = format!("each/{}", &snapshot[..8]);
        home.bulla(&format!("-q restore {} --target {target} --verify", &snapshot[..8])).ok();
    }
}
