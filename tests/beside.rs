//! Verbs beside each other: backups, prunes, checks and restores against one store, stopped and resumed between any
//! two requests of each other.

use crate::passing::passes_on;
use crate::support::forget;
use crate::support::{Histories, backup, contents, in_memory, noise, on_disk, open};
use bulla_engine::Error;
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory, Put, Result, Stat};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::undelete;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls `hook` before operation `at`: somebody else acts between two requests.
pub(crate) struct Interposed<F> {
    inner: Arc<Memory>,
    at: u64,
    count: AtomicU64,
    hook: F,
}

impl<F: Fn() + Send + Sync> Interposed<F> {
    pub(crate) fn new(inner: Arc<Memory>, at: u64, hook: F) -> Arc<Self> {
        Arc::new(Self { inner, at, count: AtomicU64::new(0), hook })
    }
    fn step(&self) -> &Memory {
        if self.count.fetch_add(1, Ordering::SeqCst) == self.at {
            (self.hook)();
        }
        &self.inner
    }
    pub(crate) fn struck(&self) -> bool {
        self.count.load(Ordering::SeqCst) > self.at
    }
}

impl<F: Fn() + Send + Sync> Backend for Interposed<F> {
    passes_on!(describe conditional_put flush);
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.step().put(name, parts)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.step().get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.step().get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.step().list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.step().stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.step().delete(name)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.step().heal(name, parts)
    }
}

fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn prune_of(memory: &Arc<Memory>, options: &PruneOptions) {
    let repository = open(memory.clone(), 50).unwrap();
    prune::run(&repository, options, &Silent).unwrap();
    prune::run(&repository, options, &Silent).unwrap();
}

fn clean(memory: &Arc<Memory>, context: &str) {
    let repository = open(memory.clone(), 60).unwrap();
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, [], "{context}");
}

/// Everything of a whole prune, or two, happens between two requests of a backup that relies on what the prune moves.
fn backup_with_prunes_inside(options: &PruneOptions) -> (u64, u64) {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    // Dedup hits outside the parent, an unchanged subtree, and new data.
    std::fs::copy(dir.path().join("changing"), dir.path().join("copy")).unwrap();
    std::fs::write(dir.path().join("fresh"), noise("fresh", 90_000)).unwrap();
    let expected = on_disk(dir.path());
    let (mut committed, mut refused) = (0, 0);
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let hook = {
            let (memory, options) = (memory.clone(), options.clone());
            move || prune_of(&memory, &options)
        };
        let store = Interposed::new(memory.clone(), at, hook);
        let outcome = open(store.clone(), 70).and_then(|r| backup(&r, dir.path()));
        let context = format!("prune before request {at}");
        match &outcome {
            Ok(report) => {
                committed += 1;
                let repository = open(memory.clone(), 80).unwrap();
                let snapshot = report.snapshot.as_ref().unwrap();
                assert_eq!(contents(&repository, snapshot).unwrap(), expected, "{context}");
            }
            Err(Error::Voided { .. } | Error::Refused(_)) => refused += 1,
            Err(e) => panic!("{context}: {e}"),
        }
        history.verify(&open(memory.clone(), 81).unwrap(), &context);
        clean(&memory, &context);
        if !store.struck() {
            break;
        }
    }
    (committed, refused)
}

#[test]
fn a_prune_inside_a_backup_at_any_request() {
    let patient = PruneOptions { run_expiry: i64::MAX, ..at_once() };
    let (committed, refused) = backup_with_prunes_inside(&patient);
    println!("{committed} committed, {refused} refused");
    assert!(committed > 30 && refused == 0, "{committed} committed, {refused} refused");
}

#[test]
fn a_prune_that_expires_the_backup_it_meets() {
    let (committed, refused) = backup_with_prunes_inside(&at_once());
    println!("{committed} committed, {refused} refused");
    assert!(committed > 30 && refused == 0, "{committed} committed, {refused} refused");
}

#[test]
fn a_backup_inside_a_prune_at_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    std::fs::copy(dir.path().join("changing"), dir.path().join("copy")).unwrap();
    let expected = on_disk(dir.path());
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let (other, path) = (memory.clone(), dir.path().to_path_buf());
        let store = Interposed::new(memory.clone(), at, move || {
            backup(&open(other.clone(), 90).unwrap(), &path).unwrap();
        });
        let context = format!("backup before request {at}");
        let outcome = open(store.clone(), 91).and_then(|r| prune::run(&r, &at_once(), &Silent));
        outcome.unwrap_or_else(|e| panic!("{context}: {e}"));
        let repository = open(memory.clone(), 92).unwrap();
        history.verify(&repository, &context);
        let newest = repository.snapshots().unwrap().into_iter().max_by_key(|s| s.seq).unwrap();
        if store.struck() {
            assert_eq!(contents(&repository, &newest).unwrap(), expected, "{context}");
        }
        clean(&memory, &context);
        if !store.struck() {
            break;
        }
    }
}

#[test]
fn a_prune_inside_a_prune_at_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || prune_of(&other, &at_once()));
        let context = format!("prune before request {at} of a prune");
        // Expired by the inner one, the outer one begins again.
        let outcome = open(store.clone(), 91).and_then(|r| prune::run(&r, &at_once(), &Silent));
        outcome.unwrap_or_else(|e| panic!("{context}: {e}"));
        history.verify(&open(memory.clone(), 92).unwrap(), &context);
        prune_of(&memory, &at_once());
        history.verify(&open(memory.clone(), 93).unwrap(), &context);
        clean(&memory, &context);
        if !store.struck() {
            break;
        }
    }
}

#[test]
fn a_snapshot_that_dies_inside_a_prune_at_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    // Unlimited: the outer one condemns nothing, but walks all trees. The newer one needs what the outer one copies.
    let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
    for (options, which) in [(at_once(), 0), (at_once(), 1), (unlimited, 0)] {
        let mut history = Histories { alive: history.alive.clone() };
        let doomed = history.alive.remove(which).0.id;
        for at in 0.. {
            let memory = crate::support::copy_of(&base);
            let other = memory.clone();
            let store = Interposed::new(memory.clone(), at, move || {
                forget(&open(other.clone(), 55).unwrap(), &doomed, true, "test").unwrap();
                prune_of(&other, &at_once());
            });
            let context = format!("a death before request {at} of a prune");
            let outcome = open(store.clone(), 91).and_then(|r| prune::run(&r, &options, &Silent));
            let report = outcome.unwrap_or_else(|e| panic!("{context}: {e}"));
            assert_eq!(report.lost_chunks, 0, "{context}");
            history.verify(&open(memory.clone(), 92).unwrap(), &context);
            if !store.struck() {
                break;
            }
        }
    }
}

#[test]
fn a_forget_that_is_taken_back_inside_a_check_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    Histories::make(&repository, dir.path());
    let (name, _) = base.list(Area::Forgets).unwrap()[0];
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || other.overwrite(name, None));
        let repository = open(store.clone(), 91).unwrap();
        let report = check::run(&repository, &CheckOptions::default(), &Silent).unwrap();
        assert_eq!(report.findings, [], "before request {at}");
        if !store.struck() {
            break;
        }
    }
}

#[test]
fn readers_beside_a_prune_at_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || prune_of(&other, &at_once()));
        let context = format!("prune before request {at} of a check and a read");
        let repository = open(store.clone(), 91).unwrap();
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let report = check::run(&repository, &options, &Silent).unwrap();
        assert_eq!(report.findings, [], "{context}");
        history.verify(&repository, &context);
        if !store.struck() {
            break;
        }
    }
}

#[test]
fn a_restore_beside_a_prune_at_any_request() {
    use bulla_engine::restore::{self, RestoreOptions};
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let history = Histories::make(&repository, dir.path());
    let (snapshot, _) = history.alive.last().unwrap();
    let sub = dir.path().to_str().unwrap().trim_start_matches('/').as_bytes().to_vec();
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || prune_of(&other, &at_once()));
        let context = format!("prune before request {at} of a restore");
        let repository = open(store.clone(), 91).unwrap();
        let out = tempfile::tempdir().unwrap();
        let target = out.path().join("t");
        let options = RestoreOptions::default();
        let report = restore::run(&repository, snapshot, &sub, &target, &options, &Silent).unwrap();
        assert!(report.complete(), "{context}: {report:?}");
        for name in ["changing", "large", "d0/deep/f7.txt", "d2/noise"] {
            let (there, here) = (target.join(name), dir.path().join(name));
            assert!(std::fs::read(there).unwrap() == std::fs::read(here).unwrap(), "{context}: {name}");
        }
        if !store.struck() {
            break;
        }
    }
}

#[test]
fn a_prune_that_expires_the_undelete_it_meets() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    std::fs::write(dir.path().join("file"), noise("file", 9_000)).unwrap();
    let id = backup(&repository, dir.path()).unwrap().snapshot.unwrap().id;
    forget(&repository, &id, false, "test").unwrap();
    let expected = on_disk(dir.path());
    let patient = PruneOptions { grace: 1_000_000, ..at_once() };
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let other = memory.clone();
        let patient = patient.clone();
        let store = Interposed::new(memory.clone(), at, move || prune_of(&other, &patient));
        let context = format!("prune before request {at} of an undelete");
        let back = open(store.clone(), 91).and_then(|r| undelete(&r, &id));
        let back = back.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(contents(&open(memory.clone(), 92).unwrap(), &back).unwrap(), expected, "{context}");
        clean(&memory, &context);
        if !store.struck() {
            break;
        }
    }
}

/// A store where a prune has dug its graves and deleted nothing yet; the names of what it will delete.
fn buried(base: &Memory) -> (Arc<Memory>, Vec<ObjectName>) {
    for at in 0.. {
        let memory = crate::support::copy_of(base);
        let faulty = Arc::new(Faulty::new(memory.clone(), at, Fault::Forever));
        let _ = open(faulty.clone(), 95).and_then(|r| prune::run(&r, &at_once(), &Silent));
        assert!(faulty.struck(), "no prune deletes a pack");
        if faulty.hit().starts_with("delete packs") || faulty.hit().starts_with("delete meta") {
            let index = open(memory.clone(), 96).unwrap().open_index().unwrap();
            let listed = [Area::Packs, Area::Meta].map(|area| memory.list(area).unwrap()).concat();
            let is_buried = |n: &ObjectName| matches!(n, ObjectName::Pack(p) | ObjectName::Meta(p) if index.is_deleted(p));
            let names: Vec<_> = listed.into_iter().map(|(n, _)| n).filter(is_buried).collect();
            // Before any grave a prune asks with a name that nobody has whether it may delete.
            if !names.is_empty() {
                return (memory, names);
            }
        }
    }
    unreachable!()
}

#[test]
fn a_check_beside_the_deletes_of_a_prune() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, base) = in_memory();
    let file = |content: &str| std::fs::write(dir.path().join("file"), noise(content, 20_000)).unwrap();
    file("one");
    let gone = backup(&repository, dir.path()).unwrap().snapshot.unwrap().id;
    file("two");
    backup(&repository, dir.path()).unwrap();
    forget(&repository, &gone, true, "test").unwrap();
    let (base, names) = buried(&base);
    assert!(!names.is_empty());
    for at in 0.. {
        let memory = crate::support::copy_of(&base);
        let (other, names) = (memory.clone(), names.clone());
        let store = Interposed::new(memory.clone(), at, move || {
            names.iter().for_each(|n| other.delete(n).unwrap());
        });
        let context = format!("deletes before request {at} of a check");
        let repository = open(store.clone(), 91).unwrap();
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, [], "{context}");
        if !store.struck() {
            break;
        }
    }
}
