//! Die at every operation: a backup fails, is killed, or loses an acknowledgement at each backend call in turn. What
//! was acknowledged restores, the next backup needs no help, and `check` is clean (I1, I3, I5 of the fault matrix).

use crate::passing::passes_on;
use crate::support::{
    backup, contents, copy_of, env, in_memory, noise, on_disk, open, populate, secret, small,
};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory, Put};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use std::sync::Arc;

fn clean(memory: &Arc<Memory>, context: &str) {
    let repository = open(memory.clone(), 77).unwrap();
    let report = check::run(
        &repository,
        &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
        &Silent,
    )
    .unwrap();
    assert_eq!(report.findings, [], "{context}");
}

#[test]
fn a_backup_that_dies_anywhere_harms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, base) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let before = contents(&repository, &first).unwrap();
    std::fs::write(dir.path().join("new"), noise("new", 150_000)).unwrap();
    std::fs::write(dir.path().join("d0/noise"), b"changed").unwrap();
    let after = on_disk(dir.path());
    let mut states = 0;
    for fault in [Fault::Once, Fault::Forever, Fault::AfterEffect, Fault::NoSpace] {
        for at in 0.. {
            let memory = copy_of(&base);
            let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
            let outcome = open(faulty.clone(), 3).and_then(|r| backup(&r, dir.path()));
            if !faulty.struck() {
                assert!(outcome.is_ok());
                break;
            }
            states += 1;
            let context = format!("{fault:?} at {at}");
            clean(&memory, &context);
            let again = open(memory.clone(), 4).unwrap();
            let snapshots = again.snapshots().unwrap();
            let (old, new): (Vec<_>, Vec<_>) = snapshots.into_iter().partition(|s| s.id == first.id);
            assert_eq!(contents(&again, &old[0]).unwrap(), before, "{context}");
            assert!(outcome.is_err() || new.len() == 1, "{context}");
            for snapshot in &new {
                assert_eq!(contents(&again, snapshot).unwrap(), after, "{context}");
            }
            let next = backup(&again, dir.path()).unwrap().snapshot.unwrap();
            assert_eq!(contents(&again, &next).unwrap(), after, "{context}");
        }
    }
    assert!(states > 60, "{states}");
}

#[test]
fn an_init_that_no_reader_would_open_writes_nothing() {
    let memory = Arc::new(Memory::new());
    let options = bulla_engine::repository::InitOptions { data_pack: 8 << 10, ..crate::support::small() };
    let (secret, env) = (crate::support::secret(), crate::support::env(1));
    assert!(bulla_engine::repository::Repository::init(memory.clone(), &options, &secret, env).is_err());
    assert!(memory.snapshot().is_empty());
}

#[test]
fn an_init_over_a_repository_that_has_lost_its_config_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), "content").unwrap();
    let (repository, memory) = in_memory();
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let whole = memory.snapshot();
    for (name, _) in memory.list(Area::Config).unwrap() {
        memory.overwrite(name, None);
    }
    let lost = memory.snapshot();
    let again = Repository::init(memory.clone(), &small(), &secret(), env(9)).map(drop);
    let error = again.unwrap_err();
    assert!(error.to_string().contains("config"), "{error}");
    assert!(memory.snapshot() == lost, "something was changed");
    // Whoever has a copy of the config has the repository.
    for (name, bytes) in whole {
        memory.overwrite(name, Some(bytes));
    }
    assert_eq!(contents(&open(memory, 10).unwrap(), &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_repository_keeps_no_key_of_an_init_that_was_cut_off() {
    let init = |backend, seed| {
        let (options, secret) = (crate::support::small(), crate::support::secret());
        Repository::init(backend, &options, &secret, crate::support::env(seed)).map(drop)
    };
    let memory = Arc::new(Memory::new());
    let slots = || memory.list(Area::Keys).unwrap().len();
    for seed in 0..12 {
        // Killed where it was about to put the config.
        let at = (0..).find(|at| {
            let trial = Faulty::new(copy_of(&memory), *at, Fault::Forever);
            let trial = Arc::new(trial);
            init(trial.clone(), seed).unwrap_err();
            trial.hit() == "put config/00000000"
        });
        init(Arc::new(Faulty::new(memory.clone(), at.unwrap(), Fault::Forever)), seed).unwrap_err();
    }
    assert_eq!(slots(), 24);
    init(memory.clone(), 50).unwrap();
    assert_eq!(slots(), 2);
    open(memory.clone(), 51).unwrap();
}

/// A store that keeps `part` bytes of an index run and says that it was there: what a put that broke off has left, met by
/// the next attempt.
struct Leaves {
    inner: Arc<Memory>,
    part: usize,
}

impl Backend for Leaves {
    passes_on!(describe conditional_put flush get get_range list stat delete heal);
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> bulla_engine::backend::Result<Put> {
        if name.area() != Area::Index {
            return self.inner.put(name, parts);
        }
        let bytes = parts.concat();
        self.inner.put(name, &[&bytes[..bytes.len().min(self.part)]])?;
        Ok(Put::Exists)
    }
}

#[test]
fn a_part_of_an_index_run_is_not_the_run() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    for (part, whole) in [(100, false), (usize::MAX, true)] {
        let (_, memory) = in_memory();
        let repository = open(Arc::new(Leaves { inner: memory.clone(), part }), 2).unwrap();
        let outcome = backup(&repository, dir.path());
        assert_eq!(outcome.is_ok(), whole, "{outcome:?}");
        assert_eq!(open(memory, 3).unwrap().snapshots().unwrap().len(), usize::from(whole));
    }
}
