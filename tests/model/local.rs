//! Local crash states: every point of a sequence of file operations × every subset of directory operations that were
//! not synced × torn content (SPEC 14, crash order).
//!
//! After a crash every link and unlink since its directory's last sync may or may not have happened, each by itself;
//! content that was not synced is torn.

use std::collections::BTreeSet;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Op {
    Write,
    SyncFile(&'static str),
    Link(&'static str, &'static str),
    Unlink(&'static str, &'static str),
    SyncDir(&'static str),
    Success,
    /// Waits until a name is visible.
    See(&'static str, &'static str),
    /// The process dies, the machine does not.
    Kill,
}
use Op::*;

type Disk = BTreeSet<(&'static str, &'static str)>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    at: Vec<usize>,
    durable: Disk,
    pending: Vec<Op>,
    synced: BTreeSet<&'static str>,
    success: bool,
}

fn apply<'a>(disk: &Disk, ops: impl IntoIterator<Item = &'a Op>) -> Disk {
    let mut out = disk.clone();
    for op in ops {
        match op {
            Link(dir, name) => out.insert((dir, name)),
            Unlink(dir, name) => out.remove(&(*dir, *name)),
            _ => false,
        };
    }
    out
}

/// One operation of program `k`, if it can run.
fn step(s: &State, k: usize, program: &[Op]) -> Option<State> {
    let op = *program.get(s.at[k])?;
    let mut t = s.clone();
    t.at[k] += 1;
    match op {
        See(dir, name) if !apply(&s.durable, &s.pending).contains(&(dir, name)) => return None,
        See(..) | Write => {}
        SyncFile(name) => _ = t.synced.insert(name),
        Link(..) | Unlink(..) => t.pending.push(op),
        SyncDir(dir) => {
            let of_dir = |o: &Op| matches!(o, Link(d, _) | Unlink(d, _) if *d == dir);
            let (done, left): (Vec<Op>, Vec<Op>) = s.pending.iter().partition(|o| of_dir(o));
            t.durable = apply(&s.durable, &done);
            t.pending = left;
        }
        Success => t.success = true,
        Kill => t.at[k] = program.len(),
    }
    Some(t)
}

/// States, crash images, and the first image that breaks a promise.
fn crashes(programs: &[Vec<Op>], bad: Bad) -> (usize, usize, Option<String>) {
    let start = State {
        at: vec![0; programs.len()],
        durable: Disk::new(),
        pending: Vec::new(),
        synced: BTreeSet::new(),
        success: false,
    };
    let (mut seen, mut stack) = (BTreeSet::new(), vec![start]);
    let (mut images, mut first) = (0, None);
    while let Some(s) = stack.pop() {
        if !seen.insert(s.clone()) {
            continue;
        }
        for kept in 0..1_u32 << s.pending.len() {
            images += 1;
            let ops = s.pending.iter().enumerate().filter(|(j, _)| kept >> j & 1 == 1).map(|(_, o)| o);
            let disk = apply(&s.durable, ops);
            if let Some(why) = bad(&disk, &s.synced, s.success) {
                first.get_or_insert_with(|| format!("{why} at {:?}, on disk: {disk:?}", s.at));
            }
        }
        stack.extend(programs.iter().enumerate().filter_map(|(k, p)| step(&s, k, p)));
    }
    (seen.len(), images, first)
}

type Bad = fn(&Disk, &BTreeSet<&'static str>, bool) -> Option<&'static str>;

fn backup_breaks(disk: &Disk, synced: &BTreeSet<&'static str>, success: bool) -> Option<&'static str> {
    let whole = |dir, name| disk.contains(&(dir, name)) && synced.contains(name);
    if success && !whole("snap", "s") {
        return Some("success lost");
    }
    let dangles = whole("snap", "s") && !(whole("packs", "X") && whole("index", "I"));
    dangles.then_some("snapshot dangles")
}

fn forget_breaks(disk: &Disk, _: &BTreeSet<&'static str>, success: bool) -> Option<&'static str> {
    let neither = !disk.contains(&("snap", "S")) && !disk.contains(&("gone", "S"));
    (success && neither).then_some("snapshot neither there nor recorded as forgotten")
}

fn last_breaks(disk: &Disk, _: &BTreeSet<&'static str>, success: bool) -> Option<&'static str> {
    let lost = disk.contains(&("gone", "S")) && !disk.contains(&("snap", "n"));
    (success && lost).then_some("old snapshot forgotten, new one lost")
}

fn sweep_breaks(disk: &Disk, synced: &BTreeSet<&'static str>, success: bool) -> Option<&'static str> {
    let there = ["V", "R"].iter().any(|n| disk.contains(&("packs", n)) && synced.contains(n));
    (success && !there).then_some("both copies lost")
}

fn visible(dir: &'static str, name: &'static str) -> Vec<Op> {
    vec![Write, SyncFile(name), Link(dir, name)]
}

fn publish(dir: &'static str, name: &'static str) -> Vec<Op> {
    [visible(dir, name), vec![SyncDir(dir)]].concat()
}

fn without(ops: &[Op], drop: Op) -> Vec<Op> {
    let at = ops.iter().position(|o| *o == drop).expect("what is left out was there");
    [&ops[..at], &ops[at + 1..]].concat()
}

/// Checks one sequence: states and images as the Python model of the design counts them.
fn case(name: &str, programs: &[Vec<Op>], bad: Bad, holds: bool, counts: (usize, usize)) {
    let (states, images, first) = crashes(programs, bad);
    println!("{name}: {states} states, {images} crash images: {}", first.as_deref().unwrap_or("holds"));
    assert_eq!(first.is_none(), holds, "{name}: {first:?}");
    assert_eq!((states, images), counts, "{name}");
}

#[test]
fn backup() {
    let before = [publish("packs", "X"), publish("index", "I"), publish("pend", "r")].concat();
    let after = vec![Success, Unlink("pend", "r"), SyncDir("pend")];
    let all = [before, publish("snap", "s"), after].concat();
    let bad: Bad = backup_breaks;
    case("backup", std::slice::from_ref(&all), bad, true, (20, 25));
    case("pack content not synced", &[without(&all, SyncFile("X"))], bad, false, (19, 24));
    case("packs/ not synced before commit", &[without(&all, SyncDir("packs"))], bad, false, (19, 43));
    case("index/ not synced before commit", &[without(&all, SyncDir("index"))], bad, false, (19, 38));
    case("success before sync of snap/", &[without(&all, SyncDir("snap"))], bad, false, (19, 28));
}

#[test]
fn resume() {
    let dead = [visible("packs", "X"), vec![Kill]].concat();
    let see = vec![See("packs", "X")];
    let rest = [publish("index", "I"), publish("pend", "r"), publish("snap", "s"), vec![Success]].concat();
    let trusting = [see.clone(), rest.clone()].concat();
    let syncing = [see, vec![SyncDir("packs")], rest].concat();
    case("resume adopts a visible pack", &[dead.clone(), trusting], backup_breaks, false, (33, 75));
    case("resume syncs packs/ first", &[dead, syncing], backup_breaks, true, (35, 45));
}

#[test]
fn forget() {
    let old = [publish("snap", "S"), vec![Success]].concat();
    let remove = vec![Unlink("snap", "S"), SyncDir("snap")];
    let right = [old.clone(), publish("gone", "S"), remove.clone()].concat();
    let wrong = [old.clone(), vec![Link("gone", "S")], remove].concat();
    case("forget: death durable, then unlink", &[right], forget_breaks, true, (12, 15));
    case("forget: death not synced", &[wrong], forget_breaks, false, (9, 15));

    let see = vec![See("snap", "S")];
    let other = [see.clone(), visible("snap", "n")].concat();
    let act = [publish("gone", "S"), vec![Unlink("snap", "S")]].concat();
    let new = vec![See("snap", "n")];
    let trusting = [old.clone(), see, new.clone(), act.clone()].concat();
    let syncing = [old, new, vec![SyncDir("snap")], act].concat();
    case("forget trusts a visible snapshot", &[trusting, other.clone()], last_breaks, false, (38, 60));
    case("forget syncs snap/ first", &[syncing, other], last_breaks, true, (28, 40));
}

#[test]
fn sweep() {
    let old = [publish("packs", "V"), vec![Success]].concat();
    let remove = vec![Unlink("packs", "V"), SyncDir("packs")];
    let right = [old.clone(), publish("packs", "R"), publish("index", "J"), remove.clone()].concat();
    let wrong = [old, visible("packs", "R"), remove].concat();
    case("sweep: copy durable, then unlink", &[right], sweep_breaks, true, (16, 20));
    case("sweep: copy not durable", &[wrong], sweep_breaks, false, (11, 16));
}
