//! The fault harness, tier 1 (`backend::testing::Faulty`): every verb, with every backend operation going wrong in
//! every way, once or for good, until the verb runs clean. After each state the invariants are checked by name.
//!
//! I1 what was acknowledged restores identical · I2 no success on loss · I3 nothing older is harmed · I4 success means
//! durable · I5 the next command needs no help · I6 two quiet prunes leave no garbage.

use crate::support::{backup, contents, copy_of, mark, noise, on_disk, open};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::{forget, protect, undelete, unprotect};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName, PackName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::{Error, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A repository with a history, and the source it is of.
pub(crate) struct World {
    pub(crate) base: Arc<Memory>,
    dir: tempfile::TempDir,
    /// Alive, with what each must restore to.
    pub(crate) alive: Vec<(Snapshot, BTreeMap<String, String>)>,
    forgotten: RunId,
}

impl World {
    /// Small enough for a thousand restores a second; rich enough for every kind of pack.
    pub(crate) fn new() -> Self {
        let (repository, base) = crate::support::in_memory();
        let dir = tempfile::tempdir().unwrap();
        let mut taken = Vec::new();
        for round in 0..3 {
            std::fs::create_dir_all(dir.path().join("d")).unwrap();
            std::fs::write(dir.path().join("d/changing"), noise(&format!("{round}"), 9_000)).unwrap();
            std::fs::write(dir.path().join(format!("text{round}")), "words ".repeat(500 * round)).unwrap();
            let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
            taken.push((snapshot, on_disk(dir.path())));
        }
        let forgotten = taken.remove(1).0.id;
        Self { base, dir, alive: taken, forgotten }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

pub(crate) fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn pruned(repository: &Repository) -> Result<()> {
    prune::run(repository, &at_once(), &Silent).map(drop)
}

fn packs(memory: &Memory) -> Vec<PackName> {
    let name = |(n, _)| match n {
        ObjectName::Pack(p) | ObjectName::Meta(p) => Some(p),
        _ => None,
    };
    [Area::Packs, Area::Meta].into_iter().flat_map(|a| memory.list(a).unwrap()).filter_map(name).collect()
}

/// What must hold whatever happened.
pub(crate) fn invariants(world: &World, memory: &Arc<Memory>, context: &str) {
    let repository = open(memory.clone(), 1000).unwrap();
    for (snapshot, expected) in &world.alive {
        let restored = contents(&repository, snapshot).unwrap_or_else(|e| panic!("I1 I3: {context}: {e}"));
        assert_eq!(&restored, expected, "I1 I3: {context}");
    }
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, [], "I3: {context}");
}

/// The next commands work without help, and two prunes leave what one clean history would.
pub(crate) fn recovery(world: &World, memory: &Arc<Memory>, context: &str) {
    let repository = open(memory.clone(), 2000).unwrap();
    let next = backup(&repository, world.path()).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
    let snapshot = next.snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(world.path()), "I5: {context}");
    pruned(&repository).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
    pruned(&repository).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
    let third = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!((third.deleted, third.plan.unused()), (0, 0), "I6: {context}");
    assert!(third.left.is_empty(), "I6: {context}: {:?}", third.left);
    assert!(memory.list(Area::Announcements).unwrap().is_empty(), "I6: {context}");
    invariants(world, memory, context);
}

/// Lets `verb` meet every fault at every operation. `done` looks at what a success promised.
fn every_fault(
    name: &str,
    world: &World,
    verb: impl Fn(&Repository) -> Result<()> + Sync,
    done: impl Fn(&Repository, &str) + Sync,
) {
    let now = |memory: &Arc<Memory>, context: &str| invariants(world, memory, context);
    let later = |memory: &Arc<Memory>, context: &str| recovery(world, memory, context);
    every_state(name, &world.base, verb, now, done, later);
}

/// The same for any store: `now` looks at what a fault left, `done` at what a success promised, `later` at what the next
/// commands make of it.
pub(crate) fn every_state(
    name: &str,
    base: &Memory,
    verb: impl Fn(&Repository) -> Result<()> + Sync,
    now: impl Fn(&Arc<Memory>, &str) + Sync,
    done: impl Fn(&Repository, &str) + Sync,
    later: impl Fn(&Arc<Memory>, &str) + Sync,
) {
    let (states, next) = (AtomicU64::new(0), AtomicU64::new(0));
    for fault in Fault::ALL {
        next.store(0, Ordering::SeqCst);
        let clean = AtomicU64::new(u64::MAX);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::SeqCst);
                if at > clean.load(Ordering::SeqCst) {
                    return;
                }
                let memory = copy_of(base);
                let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
                let outcome = open(faulty.clone(), 3).and_then(|r| verb(&r));
                let context = format!("{name}: {fault:?} at {at}, {}", faulty.hit());
                if !faulty.struck() {
                    outcome.unwrap_or_else(|e| panic!("{context}, clean: {e}"));
                    clean.fetch_min(at, Ordering::SeqCst);
                    return;
                }
                states.fetch_add(1, Ordering::SeqCst);
                now(&memory, &context);
                match outcome {
                    Ok(()) => done(&open(memory.clone(), 500).unwrap(), &context),
                    Err(Error::Format(e)) => panic!("{context}: a fault is no format error: {e}"),
                    Err(_) => {}
                }
                later(&memory, &context);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(work);
            }
        });
    }
    println!("{name}: {} states", states.into_inner());
}

fn nothing(_: &Repository, _: &str) {}

fn newest_is(path: PathBuf) -> impl Fn(&Repository, &str) + Sync {
    move |repository, context| {
        let snapshots = repository.snapshots().unwrap();
        let newest = snapshots.iter().max_by_key(|s| s.seq).unwrap();
        let restored = contents(repository, newest).unwrap();
        assert_eq!(restored, on_disk(&path), "I2 I4: {context}");
    }
}

#[test]
fn backup_incremental() {
    let world = World::new();
    std::fs::write(world.path().join("new"), noise("new", 20_000)).unwrap();
    std::fs::write(world.path().join("d/changing"), noise("later", 9_000)).unwrap();
    let path = world.path().to_path_buf();
    every_fault("incremental backup", &world, |r| backup(r, &path).map(drop), newest_is(path.clone()));
}

#[test]
fn backup_unchanged() {
    let world = World::new();
    let path = world.path().to_path_buf();
    every_fault("unchanged backup", &world, |r| backup(r, &path).map(drop), newest_is(path.clone()));
}

#[test]
fn backup_after_an_interrupted_one() {
    let mut world = World::new();
    std::fs::write(world.path().join("new"), noise("new", 20_000)).unwrap();
    let repository = open(world.base.clone(), 7).unwrap();
    let path = world.path().to_path_buf();
    assert!(crate::support::interrupted(&repository, &world.base, &path) > 0);
    world.base = copy_of(&world.base);
    every_fault(
        "backup after an interrupted one",
        &world,
        |r| backup(r, &path).map(drop),
        newest_is(path.clone()),
    );
}

#[test]
fn forget_one() {
    let mut world = World::new();
    let (victim, _) = world.alive.remove(0);
    let gone = |r: &Repository, context: &str| {
        assert!(r.snapshots().unwrap().iter().all(|s| s.id != victim.id), "I4: {context}");
    };
    every_fault("forget", &world, |r| forget(r, &victim.id, true, "test").map(drop), gone);
}

#[test]
fn undelete_one() {
    let world = World::new();
    let id = world.forgotten;
    let back = |r: &Repository, context: &str| {
        assert!(r.snapshots().unwrap().iter().any(|s| s.origin == Some(id)), "I4: {context}");
    };
    every_fault("undelete", &world, |r| undelete(r, &id).map(drop), back);
}

#[test]
fn protect_and_unprotect() {
    let world = World::new();
    let id = world.alive[0].0.id;
    every_fault("protect", &world, |r| protect(r, &id, "test"), nothing);
    let mut held = World::new();
    let id = held.alive[0].0.id;
    protect(&open(held.base.clone(), 8).unwrap(), &id, "test").unwrap();
    held.base = copy_of(&held.base);
    every_fault("unprotect", &held, |r| unprotect(r, &id).map(drop), nothing);
}

#[test]
fn prune_with_a_death_and_copies() {
    let mut world = World::new();
    forget(&open(world.base.clone(), 8).unwrap(), &world.forgotten, true, "test").unwrap();
    world.base = copy_of(&world.base);
    let dead = |r: &Repository, context: &str| {
        let report = prune::run(r, &at_once(), &Silent).unwrap();
        assert!(report.died.is_empty() && report.deleted == 0, "I4: {context}: {report:?}");
    };
    every_fault("prune, mixed", &world, pruned, dead);
}

#[test]
fn prune_without_work() {
    let mut world = World::new();
    let repository = open(world.base.clone(), 8).unwrap();
    pruned(&repository).unwrap();
    pruned(&repository).unwrap();
    world.base = copy_of(&world.base);
    every_fault("prune, nothing to do", &world, pruned, nothing);
}

#[test]
fn prune_that_only_deletes() {
    let mut world = World::new();
    let repository = open(world.base.clone(), 8).unwrap();
    let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
    let other = tempfile::tempdir().unwrap();
    std::fs::write(other.path().join("only here"), noise("only here", 30_000)).unwrap();
    let lonely = backup(&repository, other.path()).unwrap().snapshot.unwrap();
    forget(&repository, &lonely.id, true, "test").unwrap();
    world.base = copy_of(&world.base);
    let verb = |r: &Repository| prune::run(r, &unlimited, &Silent).map(drop);
    every_fault("prune, only deletes", &world, verb, nothing);
}

#[test]
fn prune_that_finishes_the_work_of_others() {
    let mut world = World::new();
    let repository = open(world.base.clone(), 8).unwrap();
    mark(&repository, &packs(&world.base), false);
    world.base = copy_of(&world.base);
    every_fault("prune, every pack condemned", &world, pruned, nothing);
}

#[test]
fn check_and_restore() {
    let world = World::new();
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    // A fault of the store is an error or a finding, never a clean report.
    every_fault("check", &world, |r| check::run(r, &options, &Silent).map(drop), nothing);
    let (snapshot, expected) = &world.alive[0];
    let restored = |r: &Repository| {
        assert_eq!(&contents(r, snapshot)?, expected, "I2");
        Ok(())
    };
    every_fault("read back", &world, restored, nothing);
}

#[test]
fn a_backup_on_a_store_that_cannot_keep_its_reserve_puts_nothing() {
    let world = World::new();
    let memory = copy_of(&world.base);
    let before = memory.snapshot();
    let full = Arc::new(Faulty::new(memory.clone(), 0, Fault::NoSpace));
    let error = open(full.clone(), 3).and_then(|r| backup(&r, world.path())).unwrap_err();
    assert!(matches!(error, Error::Backend(bulla_engine::backend::BackendError::NoSpace { .. })), "{error}");
    assert_eq!(full.hit(), "reserve the reserve");
    assert_eq!(memory.snapshot(), before);
}
