//! Processes that stand still for as long as it takes others to do their whole work: at every call that changes
//! storage, and by a real SIGSTOP. What goes on afterwards commits what restores identical, or says why not.

use crate::content::{Tree, noise, tree};
use crate::home::{Home, Ran};
use crate::tracer::{Strike, run};
use crate::upkeep::{backup, cleaned, identical, json, sound};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::time::{Duration, Instant};

const AT_ONCE: &str = "-q prune --grace 0 --run-expiry 0 --max-unused 0";

/// A living snapshot, and a forgotten one with content that the tree has again: what a backup relies on is condemned
/// by the first prune.
fn world() -> (Home, String, Tree) {
    let home = Home::fast();
    home.forgets();
    home.write("src/stays", &noise(1, 60_000));
    let kept = (backup(&home, "src"), tree(&home.path("src")));
    home.write("src/comes-back", &noise(2, 90_000));
    let gone = backup(&home, "src");
    home.bulla(&format!("-q forget --now --yes {gone}")).ok();
    home.write("src/new", &noise(3, 70_000));
    (home, kept.0, kept.1)
}

/// Points at which to stop: all, or every few.
fn step(few: u64) -> usize {
    if std::env::var("BULLA_INJECT").is_ok_and(|v| v == "full") { 1 } else { usize::try_from(few).unwrap() }
}

/// Holds `line` at each call while `meanwhile` runs; `after` gets how it ended.
fn hold_at_every_call(
    line: &str,
    few: u64,
    meanwhile: impl Fn(&Home) + Sync,
    after: impl Fn(&Home, Ran, &str),
) {
    let mut held = 0;
    for at in (1..).step_by(step(few)) {
        let (home, kept, expected) = world();
        let traced = run(&home, line, at, Strike::Hold, &|| meanwhile(&home));
        let Some(hit) = traced.hit else { break };
        let context = format!("{line}, held at {at}, {hit}");
        after(&home, traced.ran, &context);
        identical(&home, &kept, "src", &expected, &context);
        sound(&home, &context);
        cleaned(&home, &context);
        identical(&home, &kept, "src", &expected, &context);
        held += 1;
    }
    println!("{line}: held at {held} calls");
}

fn committed(home: &Home, ran: Ran, context: &str) {
    assert_eq!(ran.code, 0, "{context}: {}", ran.err);
    let id = json(&ran.out)["snapshot_id"].as_str().unwrap().to_owned();
    identical(home, &id, "src", &tree(&home.path("src")), context);
}

#[test]
fn a_backup_held_across_two_prunes() {
    let twice = |home: &Home| (0..2).for_each(|_| drop(home.bulla(AT_ONCE).ok()));
    hold_at_every_call("-q --json backup src", 7, twice, committed);
}

#[test]
fn a_backup_held_across_a_patient_prune() {
    let patient = |home: &Home| drop(home.bulla("-q prune --grace 0 --max-unused 0").ok());
    hold_at_every_call("-q --json backup src", 11, patient, committed);
}

#[test]
fn a_prune_held_across_a_backup_and_a_prune() {
    let others = |home: &Home| {
        backup(home, "src");
        home.bulla(AT_ONCE).ok();
    };
    let ended = |home: &Home, ran: Ran, context: &str| {
        assert_eq!(ran.code, 0, "{context}: {}", ran.err);
        identical(home, "latest", "src", &tree(&home.path("src")), context);
    };
    hold_at_every_call(AT_ONCE, 7, others, ended);
}

/// Where the process is, by what the repository shows.
fn reached(home: &Home, point: &str, packs: usize) -> bool {
    match point {
        "announced" => !home.objects("pend").is_empty(),
        "stored a pack" => home.objects("packs").len() > packs,
        _ => home.objects("pend").len() > 1,
    }
}

#[test]
fn a_backup_stopped_by_a_signal_across_two_prunes() {
    let mut stopped = 0;
    for point in ["announced", "stored a pack", "announced what it relies on"] {
        let (home, kept, expected) = world();
        for n in 0..6 {
            home.write(&format!("src/large-{n}"), &noise(50 + n, 5_000_000));
        }
        let packs = home.objects("packs").len();
        let child = home.command(&["-q", "--json", "backup", "src"]).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let begun = Instant::now();
        while !reached(&home, point, packs) && begun.elapsed() < Duration::from_secs(5) {
            std::hint::spin_loop();
        }
        kill(pid, Signal::SIGSTOP).unwrap();
        let open = !home.objects("pend").is_empty();
        for _ in 0..2 {
            home.bulla(AT_ONCE).ok();
        }
        kill(pid, Signal::SIGCONT).unwrap();
        let ran = Ran::of(child.wait_with_output().unwrap());
        committed(&home, ran, point);
        stopped += usize::from(open);
        identical(&home, &kept, "src", &expected, point);
        cleaned(&home, point);
        sound(&home, point);
    }
    println!("stopped by a signal before its commit: {stopped} of 3");
    assert!(stopped > 0, "no backup was stopped in its middle");
}

#[test]
fn a_stream_stopped_across_a_prune_says_that_nothing_was_committed() {
    let (home, kept, expected) = world();
    let child = home.command(&["-q", "backup", "--stdin"]).stdin(std::process::Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    while home.objects("pend").is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    kill(pid, Signal::SIGSTOP).unwrap();
    for _ in 0..2 {
        home.bulla(AT_ONCE).ok();
    }
    kill(pid, Signal::SIGCONT).unwrap();
    // Dropping its input ends the stream.
    drop(child.stdin.take());
    let ran = Ran::of(child.wait_with_output().unwrap());
    // A stream cannot be read again.
    ran.ends(1).says("nothing was committed, run it again");
    identical(&home, &kept, "src", &expected, "stream");
    cleaned(&home, "stream");
}
