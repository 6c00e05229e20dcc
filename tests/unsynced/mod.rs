//! Loss of power (tier T2): verbs on a real directory, every step they make on the file system written down. After
//! each step, under each model of what a file system may lose (`power::Model`), every state that could be left is
//! worked out: all subsets of what was not synced up to twelve changes, a sample above. Of each different one the
//! invariants are checked as in `faults`: acknowledged snapshots restore, `check` is clean, the next backup and prune
//! need no help. `BULLA_STATES=all` checks every state, otherwise one in [`STRIDE`] and all extremes.

mod power;
mod repairs;

use crate::support::forget;
use crate::support::{contents, contents_through, noise, on_disk, open};
use bulla_engine::backend::testing::{Fault, Faulty, Journal, Step};
use bulla_engine::backend::{Local, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::{protect, undelete, unprotect};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{ObjectName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::{Error, Result};
use power::{Disk, Left, Model};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Without `BULLA_STATES`, one state in so many is checked.
const STRIDE: u128 = 32;
/// Of those that are checked, one in so many must also bear a backup and two prunes.
const RECOVER: u128 = 16;
/// Changes up to which all subsets are tried.
const EXHAUSTIVE: usize = 12;

/// Bytes of a file: little, because there are many states; each backup fills packs of its own.
const FILE: usize = 9_000;

/// The same after two verbs, of which the first dies anywhere.
const PAIRS: usize = 6;

/// Without `BULLA_STATES`, the first of two verbs dies at one in so many of its requests only.
const SKIP: usize = 7;

/// A repository with a history, and the source it is of.
struct World {
    base: BTreeMap<ObjectName, Vec<u8>>,
    dir: tempfile::TempDir,
    /// Alive, with what each must restore to.
    alive: Vec<(Snapshot, BTreeMap<String, String>)>,
    forgotten: RunId,
}

impl World {
    fn new() -> Self {
        let memory = Arc::new(Memory::new());
        let env = crate::support::env(1);
        let repository =
            Repository::init(memory.clone(), &crate::support::small(), &crate::support::secret(), env)
                .unwrap()
                .repository;
        let dir = tempfile::tempdir().unwrap();
        let (mut alive, mut forgotten) = (Vec::new(), Vec::new());
        for round in 0..8 {
            for file in 0..4 {
                let text = noise(&format!("{file} {}", if file < 2 { round } else { 0 }), FILE);
                std::fs::write(dir.path().join(format!("f{file}")), text).unwrap();
            }
            let snapshot = crate::support::backup(&repository, dir.path()).unwrap().snapshot.unwrap();
            if [0, 4, 7].contains(&round) {
                alive.push((snapshot, on_disk(dir.path())));
            } else {
                forget(&repository, &snapshot.id, false, "test").unwrap();
                forgotten.push(snapshot.id);
            }
        }
        Self { base: memory.snapshot(), dir, alive, forgotten: forgotten[0] }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().to_path_buf()
    }

    /// Something new to store, of which a part is known.
    fn change(&self) {
        for file in 1..6 {
            std::fs::write(self.dir.path().join(format!("f{file}")), noise(&format!("late {file}"), FILE))
                .unwrap();
        }
        std::fs::copy(self.dir.path().join("f0"), self.dir.path().join("copy")).unwrap();
    }
}

fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn pruned(repository: &Repository) -> Result<()> {
    prune::run(repository, &at_once(), &Silent).map(drop)
}

/// A directory that holds `base`.
fn directory(base: &BTreeMap<ObjectName, Vec<u8>>) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = dir.path().join("repository");
    Local::new(&root).create_layout().unwrap();
    for (name, bytes) in base {
        std::fs::write(root.join(name.to_string()), bytes).unwrap();
    }
    (dir, root)
}

/// True for the long run.
fn all_states() -> bool {
    std::env::var("BULLA_STATES").is_ok_and(|v| v == "all")
}

/// States one scenario went through.
#[derive(Default)]
struct Count {
    enumerated: u64,
    distinct: HashSet<(bool, u128)>,
    checked: u64,
}

/// Looks at a state: the objects left, whether the verb had returned, and what to call it.
type Look<'a> = &'a (dyn Fn(&Left, bool, bool, &str) + Sync);

/// What was written down.
struct Watched<'a> {
    name: &'a str,
    root: &'a Path,
    base: &'a BTreeMap<ObjectName, Vec<u8>>,
    steps: &'a [Step],
    /// The first step that counts.
    from: usize,
    /// Changes up to which all subsets are tried.
    exhaustive: usize,
}

/// Every state from step `from` on, in each model; the different ones are looked at.
fn losses(watched: &Watched<'_>, count: &mut Count, look: Look<'_>) {
    let Watched { name, root, base, steps, from, exhaustive } = *watched;
    let stride = if all_states() { 1 } else { STRIDE };
    let mut queue: Vec<(Left, bool, bool, String)> = Vec::new();
    for model in Model::ALL {
        let mut disk = Disk::new(model, root, base);
        for (at, step) in steps.iter().enumerate() {
            let last = at + 1 == steps.len();
            if (!disk.step(step) && !last) || at < from {
                continue;
            }
            let mut seed = 0u128;
            let sample = || {
                seed += 1;
                let hash = blake3::hash(&[seed.to_le_bytes(), (at as u128).to_le_bytes()].concat());
                u128::from_le_bytes(hash.as_bytes()[..16].try_into().unwrap())
            };
            let masks = disk.subsets(exhaustive, sample);
            let changes = disk.pending() as u32;
            for mask in masks {
                count.enumerated += 1;
                let key = disk.key(mask);
                let extreme = mask == 0 || mask.count_ones() == changes;
                let wanted = extreme || key.is_multiple_of(stride);
                if count.distinct.insert((last, key)) && wanted {
                    let context = format!("{name}: {model:?}, after step {at} {step:?}, {mask:b}");
                    let context = context.chars().take(300).collect();
                    queue.push((disk.left(mask), last, (key / stride).is_multiple_of(RECOVER), context));
                }
            }
        }
    }
    count.checked += queue.len() as u64;
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((left, last, recover, context)) = queue.get(next.fetch_add(1, Ordering::SeqCst)) {
            look(left, *last, *recover, context);
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
}

fn memory_of(left: &Left) -> Arc<Memory> {
    let memory = Memory::new();
    left.iter().for_each(|(name, bytes)| memory.overwrite(*name, Some(bytes.to_vec())));
    Arc::new(memory)
}

fn findings(repository: &Repository) -> Vec<check::Finding> {
    check::run(repository, &CheckOptions { read_data: ReadData::No, ..CheckOptions::default() }, &Silent)
        .unwrap()
        .findings
}

/// What must hold of a state, and what it must bear.
fn invariants(world: &World, left: &Left, recover: bool, context: &str) {
    let memory = memory_of(left);
    let repository = open(memory.clone(), 1000).unwrap_or_else(|e| panic!("{context}: {e}"));
    let restores = |when: &str| {
        let index = repository.open_index().unwrap();
        for (snapshot, expected) in &world.alive {
            let restored = contents_through(&repository, &index, snapshot)
                .unwrap_or_else(|e| panic!("{when}{context}: {e}"));
            assert_eq!(&restored, expected, "{when}{context}");
        }
        assert_eq!(findings(&repository), [], "{when}{context}");
    };
    restores("");
    if recover {
        let next = crate::support::backup(&repository, world.dir.path());
        let next = next.unwrap_or_else(|e| panic!("the next backup, {context}: {e}")).snapshot.unwrap();
        pruned(&repository).unwrap_or_else(|e| panic!("the next prune, {context}: {e}"));
        pruned(&repository).unwrap_or_else(|e| panic!("the second prune, {context}: {e}"));
        assert_eq!(contents(&repository, &next).unwrap(), on_disk(world.dir.path()), "{context}");
        restores("after two prunes, ");
    }
}

/// A verb, and the loss of power after each of its steps.
fn verb(
    name: &str,
    world: &World,
    verb: impl Fn(&Repository) -> Result<()>,
    done: impl Fn(&Repository, &str) + Sync,
) {
    let (_dir, root) = directory(&world.base);
    let journal = Journal::default();
    let store = Arc::new(Local::recorded(&root, journal.clone()));
    verb(&open(store, 3).unwrap()).unwrap();
    let steps = std::mem::take(&mut *journal.lock().unwrap());
    let mut count = Count::default();
    let look = |left: &Left, returned: bool, recover: bool, context: &str| {
        invariants(world, left, recover, context);
        if returned {
            done(&open(memory_of(left), 500).unwrap(), context);
        }
    };
    let (root, base) = (root.as_path(), &world.base);
    let watched = Watched { name, root, base, steps: &steps, from: 0, exhaustive: EXHAUSTIVE };
    losses(&watched, &mut count, &look);
    report(name, &count);
}

fn report(name: &str, count: &Count) {
    static TOTAL: Mutex<(u64, usize, u64)> = Mutex::new((0, 0, 0));
    let mut total = TOTAL.lock().unwrap();
    *total = (total.0 + count.enumerated, total.1 + count.distinct.len(), total.2 + count.checked);
    let (enumerated, distinct) = (count.enumerated, count.distinct.len());
    println!(
        "{name}: {enumerated} states, {distinct} different, {} checked; so far {total:?}",
        count.checked
    );
}

/// A first verb whose process dies at each of its requests, then a second one of another process, then the loss of
/// power: what the second saw of the first was not durable.
fn two(
    name: &str,
    world: &World,
    first: impl Fn(&Repository) -> Result<()>,
    second: impl Fn(&Repository) -> Result<()>,
    done: impl Fn(&Repository, &str) + Sync,
) {
    let mut count = Count::default();
    let skip = if all_states() { 1 } else { SKIP };
    for at in (0..).step_by(skip) {
        let (_dir, root) = directory(&world.base);
        let journal = Journal::default();
        let local = Arc::new(Local::recorded(&root, journal.clone()));
        let faulty = Arc::new(Faulty::new(local, at, Fault::Forever));
        let outcome = open(faulty.clone(), 3).and_then(|r| first(&r));
        let from = journal.lock().unwrap().len();
        if !faulty.struck() {
            outcome.unwrap();
            break;
        }
        let local = Arc::new(Local::recorded(&root, journal.clone()));
        let context = format!("{name}, the first dies at request {at}, {}", faulty.hit());
        second(&open(local, 4).unwrap()).unwrap_or_else(|e| panic!("{context}: {e}"));
        let steps = std::mem::take(&mut *journal.lock().unwrap());
        let look = |left: &Left, returned: bool, recover: bool, context: &str| {
            invariants(world, left, recover, context);
            if returned {
                done(&open(memory_of(left), 500).unwrap(), context);
            }
        };
        let (root, base) = (root.as_path(), &world.base);
        let watched = Watched { name: &context, root, base, steps: &steps, from, exhaustive: PAIRS };
        losses(&watched, &mut count, &look);
    }
    report(name, &count);
}

fn nothing(_: &Repository, _: &str) {}

fn newest_is(path: PathBuf) -> impl Fn(&Repository, &str) + Sync {
    move |repository, context| {
        let snapshots = repository.snapshots().unwrap();
        let newest = snapshots.iter().max_by_key(|s| s.seq).unwrap();
        assert_eq!(contents(repository, newest).unwrap(), on_disk(&path), "not durable: {context}");
    }
}

#[test]
fn init_then_a_first_backup() {
    let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let root = dir.path().join("new/deep/repository");
    let journal = Journal::default();
    let store = Arc::new(Local::recorded(&root, journal.clone()));
    store.create_layout().unwrap();
    Repository::init(
        store.clone(),
        &crate::support::small(),
        &crate::support::secret(),
        crate::support::env(1),
    )
    .unwrap();
    let steps = std::mem::take(&mut *journal.lock().unwrap());
    let (mut count, none) = (Count::default(), BTreeMap::new());
    let look = |left: &Left, returned: bool, _: bool, context: &str| match open(memory_of(left), 2) {
        Ok(repository) => assert!(repository.snapshots().unwrap().is_empty(), "{context}"),
        Err(Error::NoRepository { .. }) if !returned => {}
        Err(e) => panic!("{context}: {e}"),
    };
    // Before the first object there is nothing to lose.
    let from = steps.iter().position(|s| matches!(s, Step::Link(..))).unwrap();
    let (name, root, exhaustive) = ("init", root.as_path(), EXHAUSTIVE);
    losses(&Watched { name, root, base: &none, steps: &steps, from, exhaustive }, &mut count, &look);
    report("init", &count);
    let mut disk = Disk::new(Model::Weakest, root, &none);
    for step in &steps {
        disk.step(step);
    }
    assert_eq!(disk.loose_directories(), Vec::<&Path>::new(), "every directory must be durable after init");

    let mut world = World::new();
    let keep = |n: &ObjectName| matches!(n, ObjectName::Config(_) | ObjectName::Slot(_));
    world.base.retain(|n, _| keep(n));
    world.alive.clear();
    let path = world.path();
    verb("first backup", &world, |r| crate::support::backup(r, &path).map(drop), newest_is(path.clone()));
}

/// The harness can fail: a store that leaves out one kind of sync is found out.
#[test]
fn a_store_that_does_not_sync_is_found_out() {
    let world = World::new();
    world.change();
    let (_dir, root) = directory(&world.base);
    let journal = Journal::default();
    let store = Arc::new(Local::recorded(&root, journal.clone()));
    crate::support::backup(&open(store, 3).unwrap(), &world.path()).unwrap();
    let steps = std::mem::take(&mut *journal.lock().unwrap());
    let expected = on_disk(&world.path());
    let lossy = |keep: fn(&Step) -> bool| {
        let lost = AtomicUsize::new(0);
        let look = |left: &Left, returned: bool, _: bool, _: &str| {
            let restores = || {
                let repository = open(memory_of(left), 9)?;
                let newest = repository.snapshots()?.into_iter().max_by_key(|s| s.seq).unwrap();
                contents(&repository, &newest)
            };
            if returned && restores().ok().as_ref() != Some(&expected) {
                lost.fetch_add(1, Ordering::SeqCst);
            }
        };
        let steps: Vec<Step> = steps.iter().filter(|s| keep(s)).cloned().collect();
        let (name, root, base) = ("lossy", root.as_path(), &world.base);
        let watched = Watched { name, root, base, steps: &steps, from: 0, exhaustive: EXHAUSTIVE };
        losses(&watched, &mut Count::default(), &look);
        lost.into_inner() > 0
    };
    assert!(!lossy(|_| true));
    assert!(lossy(|s| !matches!(s, Step::SyncFile(_))), "files that are not synced");
    assert!(lossy(|s| !matches!(s, Step::SyncDir(_))), "directories that are not synced");
}

#[test]
fn an_incremental_backup() {
    let world = World::new();
    world.change();
    let path = world.path();
    verb(
        "incremental backup",
        &world,
        |r| crate::support::backup(r, &path).map(drop),
        newest_is(path.clone()),
    );
}

#[test]
fn forget_protect_and_what_ends_them() {
    let mut world = World::new();
    let (victim, _) = world.alive.remove(0);
    let gone = |r: &Repository, context: &str| {
        assert!(r.snapshots().unwrap().iter().all(|s| s.id != victim.id), "{context}");
    };
    verb("forget", &world, |r| forget(r, &victim.id, true, "test").map(drop), gone);

    let mut world = World::new();
    let id = world.alive[0].0.id;
    let held = |r: &Repository, context: &str| assert!(r.held().unwrap().contains(&id), "{context}");
    verb("protect", &world, |r| protect(r, &id, "test"), held);

    let memory = in_memory(&world);
    protect(&open(memory.clone(), 8).unwrap(), &id, "test").unwrap();
    world.base = memory.snapshot();
    let free = |r: &Repository, context: &str| assert!(r.held().unwrap().is_empty(), "{context}");
    verb("unprotect", &world, |r| unprotect(r, &id).map(drop), free);
    let refused = |r: &Repository| {
        assert!(forget(r, &id, true, "test").is_err());
        Ok(())
    };
    let unforgotten = |r: &Repository, context: &str| {
        assert!(!r.forgotten().unwrap().contains_key(&id), "{context}");
    };
    verb("forget, refused", &world, refused, unforgotten);
}

/// The world's objects in memory.
fn in_memory(world: &World) -> Arc<Memory> {
    let memory = Memory::new();
    world.base.iter().for_each(|(name, bytes)| memory.overwrite(*name, Some(bytes.clone())));
    Arc::new(memory)
}

#[test]
fn undelete_one() {
    let world = World::new();
    let id = world.forgotten;
    let back = |r: &Repository, context: &str| {
        assert!(r.snapshots().unwrap().iter().any(|s| s.origin == Some(id)), "{context}");
    };
    verb("undelete", &world, |r| undelete(r, &id).map(drop), back);
}

#[test]
fn a_prune_with_a_death_and_copies() {
    verb("prune, mixed", &World::new(), pruned, nothing);
}

#[test]
fn a_prune_after_a_dead_prune() {
    two("prune after a dead prune", &World::new(), pruned, pruned, nothing);
}

#[test]
fn a_backup_after_a_dead_backup() {
    let world = World::new();
    world.change();
    let path = world.path();
    let backup = |r: &Repository| crate::support::backup(r, &path).map(drop);
    two("backup after a dead backup", &world, backup, backup, newest_is(path.clone()));
    two("prune after a dead backup", &world, backup, pruned, nothing);
}

#[test]
fn a_backup_after_a_dead_prune() {
    let world = World::new();
    world.change();
    let path = world.path();
    let backup = |r: &Repository| crate::support::backup(r, &path).map(drop);
    two("backup after a dead prune", &world, pruned, backup, newest_is(path.clone()));
}
