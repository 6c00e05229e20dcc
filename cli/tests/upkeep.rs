//! What must hold of a repository after any misfortune, asked of the real binary.

use crate::content::{Tree, tree};
use crate::home::Home;
use serde_json::Value;

/// The document a command printed.
pub fn json(text: &str) -> Value {
    serde_json::from_str(text.lines().last().unwrap_or_default())
        .unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

/// Backs up `dir`; the snapshot's id.
pub fn backup(home: &Home, dir: &str) -> String {
    json(&home.bulla(&format!("-q --json backup {dir}")).ok())["snapshot_id"].as_str().unwrap().to_owned()
}

/// Ids of all snapshots that are listed.
pub fn listed(home: &Home) -> Vec<String> {
    let list = json(&home.bulla("-q --json snapshots").ok());
    list.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

/// What `dir` of a snapshot restores to.
pub fn restored(home: &Home, id: &str, dir: &str) -> Result<Tree, String> {
    let target = home.path("restored");
    let _ = std::fs::remove_dir_all(&target);
    let ran = home.bulla(&format!("-q restore {id} --target restored"));
    if ran.code != 0 {
        return Err(format!("restore of {id} ended with {}: {}", ran.code, ran.err));
    }
    let out = tree(&home.path(&format!("restored{}", home.shown(dir))));
    std::fs::remove_dir_all(&target).unwrap();
    Ok(out)
}

/// Panics unless the snapshot restores to exactly `expected`.
#[track_caller]
pub fn identical(home: &Home, id: &str, dir: &str, expected: &Tree, context: &str) {
    let got = restored(home, id, dir).unwrap_or_else(|e| panic!("{context}: {e}"));
    assert!(&got == expected, "{context}: {id} restores to\n{got:?}\nand not to\n{expected:?}");
}

/// Nothing is damaged, every byte read.
#[track_caller]
pub fn sound(home: &Home, context: &str) {
    let ran = home.bulla("-q check --read-data");
    assert_eq!(ran.code, 0, "{context}: check:\n{}{}", ran.out, ran.err);
}

/// Two quiet prunes leave nothing that nobody needs, and a third finds nothing to do.
#[track_caller]
pub fn cleaned(home: &Home, context: &str) {
    let prune = "-q --json prune --grace 0 --run-expiry 0 --max-unused 0";
    for _ in 0..2 {
        let ran = home.bulla(prune);
        assert_eq!(ran.code, 0, "{context}: prune: {}{}", ran.out, ran.err);
    }
    let third = json(&home.bulla(prune).ok());
    for field in ["packs_deleted", "bytes_unused", "chunks_copied", "lost_chunks"] {
        assert_eq!(third[field], 0, "{context}: {third:#}");
    }
    assert_eq!(third["packs_left"].as_array().unwrap().len(), 0, "{context}: {third:#}");
    assert!(home.objects("pend").is_empty(), "{context}: announcements stay");
}
