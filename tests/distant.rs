//! A store at a distance: several uploads at once, and what they must keep all the same.

use crate::support::{contents, copy_of, env, noise, on_disk, open, options, secret, small, source};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Capabilities, Memory, Put, Result, Stat};
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// A store that says it is far away; data packs take longer than everything else, each another time.
struct Far {
    memory: Arc<Memory>,
    puts: AtomicUsize,
    under_way: AtomicUsize,
    most: AtomicUsize,
    /// How long uploads wait for a second one beside them, all together, from when the first began.
    patience: Duration,
    began: OnceLock<Instant>,
}

impl Far {
    fn new(memory: Arc<Memory>) -> Self {
        let zero = || AtomicUsize::new(0);
        Self {
            memory,
            puts: zero(),
            under_way: zero(),
            most: zero(),
            patience: Duration::ZERO,
            began: OnceLock::new(),
        }
    }

    /// Waits for company, until it has been seen once or patience is at its end: on a busy machine a short sleep may be over
    /// before the next uploader gets a turn.
    fn meet(&self) {
        let began = self.began.get_or_init(Instant::now);
        while self.most.load(Ordering::SeqCst) < 2 && began.elapsed() < self.patience {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Backend for Far {
    fn describe(&self) -> Capabilities {
        Capabilities { place: "far away".into(), local: false, connections: 4 }
    }
    fn conditional_put(&self) -> Result<bool> {
        self.memory.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        if name.area() == Area::Packs {
            let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            self.meet();
            let nth = self.puts.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200 * (nth as u64 * 7 % 11)));
            self.under_way.fetch_sub(1, Ordering::SeqCst);
        }
        self.memory.put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.memory.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.memory.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.memory.get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.memory.list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.memory.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.memory.delete(name)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.memory.heal(name, parts)
    }
}

fn sound(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// A repository in memory, and a directory of twenty packs' worth.
fn begun() -> (Arc<Memory>, tempfile::TempDir) {
    let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
    Repository::init(memory.clone(), &small(), &secret(), env(1)).unwrap();
    for n in 0..30 {
        std::fs::write(dir.path().join(n.to_string()), noise(&n.to_string(), 40_000)).unwrap();
    }
    (memory, dir)
}

/// With a checkpoint at every opportunity.
fn often() -> BackupOptions {
    BackupOptions { checkpoint: Duration::ZERO, ..options() }
}

#[test]
fn packs_are_put_beside_each_other() {
    let (memory, dir) = begun();
    let far = Arc::new(Far { patience: Duration::from_secs(20), ..Far::new(memory.clone()) });
    let repository = open(far.clone(), 2).unwrap();
    let report = backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap();
    assert!(far.most.load(Ordering::SeqCst) > 1, "one after another");
    assert!(far.most.load(Ordering::SeqCst) <= 4, "more than there are connections");
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
    sound(&repository);
}

/// Cut off anywhere, with uploads under way: what is committed is whole, what is not is gone on with or stored again, and
/// nobody waits for ever.
#[test]
fn a_backup_with_uploads_under_way_is_cut_off_anywhere() {
    let (memory, dir) = begun();
    let mut struck = 0;
    for fault in [Fault::Once, Fault::Forever, Fault::AfterEffect, Fault::Ambiguous, Fault::NoSpace] {
        for at in (0..).step_by(3) {
            let there = copy_of(&memory);
            let faulty = Arc::new(Faulty::new(Arc::new(Far::new(there.clone())), at, fault));
            if let Ok(repository) = open(faulty.clone(), 60 + at) {
                let _ = backup::run(&repository, source(dir.path()), &often(), &Silent);
            }
            let repository = open(there, 5000 + at).unwrap();
            let before = repository.snapshots().unwrap();
            for snapshot in &before {
                assert_eq!(
                    contents(&repository, snapshot).unwrap(),
                    on_disk(dir.path()),
                    "{fault:?} at {at}"
                );
            }
            let report = backup::run(&repository, source(dir.path()), &often(), &Silent).unwrap();
            let last = report.snapshot.unwrap();
            assert_eq!(contents(&repository, &last).unwrap(), on_disk(dir.path()), "{fault:?} at {at}");
            sound(&repository);
            if !faulty.struck() {
                break;
            }
            struck += 1;
        }
    }
    assert!(struck > 40, "{struck}");
}
