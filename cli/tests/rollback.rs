//! A repository that was set back, or has lost a snapshot: said loudly, with a code of its own, and accepted knowingly.

use crate::home::Home;
use std::process::Command;

fn copy(home: &Home, from: &str, to: &str) {
    let _ = std::fs::remove_dir_all(home.path(to));
    let done = Command::new("cp").arg("-a").arg(home.path(from)).arg(home.path(to)).status().unwrap();
    assert!(done.success());
}

#[test]
fn yesterdays_copy_is_noticed_and_a_backup_is_made_all_the_same() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    copy(&home, "repo", "yesterday");
    home.write("src/more", b"newer");
    home.bulla("backup src").ok();
    copy(&home, "yesterday", "repo");

    home.bulla("snapshots").says("was set back").ok();
    home.bulla("check").ends(9).says("missing without a record of its death").says("--accept-rollback");
    home.bulla("prune").ends(9);
    home.bulla("forget --keep-last 1").ends(9);
    home.bulla("restore latest -t out").says("was set back").ok();
    home.bulla("backup src").ends(9).says("was set back").prints("saved");
    home.bulla("check --accept-rollback").ok();
    home.bulla("check").ok();
    home.bulla("backup src").ok();
    home.bulla("prune").ok();
}

#[test]
fn a_snapshot_that_vanishes_is_noticed_also_on_a_new_machine() {
    let mut home = Home::with_repository();
    home.bulla("backup src").ok();
    let first = home.objects("snap");
    home.write("src/more", b"newer");
    home.bulla("backup src").ok();
    std::fs::remove_file(&first[0]).unwrap();
    // Nothing is remembered there; the second snapshot has seen the first.
    let other = home.shown("another-home");
    home.set("XDG_STATE_HOME", &other);
    home.bulla("snapshots").says("saw it").ok();
    home.bulla("prune").ends(9);
    home.bulla("check").ends(9).prints("missing without a record of its death");
    home.bulla("backup src").ends(9);
    home.bulla("check --accept-rollback").ok();
    home.bulla("backup src").ok();
    home.bulla("prune").ok();
}

#[test]
fn what_was_forgotten_and_pruned_is_no_rollback_and_neither_is_the_first_look() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    home.write("src/more", b"newer");
    home.bulla("backup src").ok();
    home.bulla("forget --keep-last 1 --prune --grace 0").ok();
    home.bulla("prune").ok();
    home.bulla("check").ok();
    home.bulla("backup src").ok();
    // A state that somebody wrote into says so.
    let state = std::fs::read_dir(home.path(".local/state/bulla")).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&state).unwrap().replace("config 0", "config 7");
    std::fs::write(&state, text).unwrap();
    home.bulla("check").ends(9).says("is not what this program wrote");
    home.bulla("check --accept-rollback").ok();
}
