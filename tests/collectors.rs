//! Two collectors at once, in the one order in which each could take the other's victim for the copy that stays.

use crate::passing::passes_on;
use crate::support::{backup, contents, copy_of, in_memory, mark, noise, on_disk, open};
use bulla_engine::backend::{Backend, Memory, Put, Result};
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::{Area, ObjectName, PackName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

/// Calls back around the mark that is put, and before each listing of announcements.
struct Watched {
    inner: Arc<Memory>,
    before_mark: Box<dyn Fn() + Send + Sync>,
    after_mark: Box<dyn Fn() + Send + Sync>,
    before_pend: Box<dyn Fn() + Send + Sync>,
}

impl Watched {
    fn new(inner: Arc<Memory>) -> Self {
        let nothing = || Box::new(|| {});
        Self { inner, before_mark: nothing(), after_mark: nothing(), before_pend: nothing() }
    }
}

impl Backend for Watched {
    passes_on!(describe conditional_put flush get get_range stat delete heal);
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        let marks = name.area() == Area::Marks;
        if marks {
            (self.before_mark)();
        }
        let put = self.inner.put(name, parts);
        if marks {
            (self.after_mark)();
        }
        put
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        if area == Area::Announcements {
            (self.before_pend)();
        }
        self.inner.list(area)
    }
}

fn options() -> PruneOptions {
    PruneOptions {
        grace: 0,
        run_expiry: i64::MAX,
        max_unused: MaxUnused::Bytes(0),
        ..PruneOptions::default()
    }
}

/// Two backups of one tree that knew nothing of each other: every chunk lies in two packs. The packs a prune would
/// keep, and those it would delete as copies.
fn doubled(dir: &std::path::Path) -> (Arc<Memory>, Vec<PackName>, Vec<PackName>) {
    std::fs::write(dir.join("file"), noise("file", 40_000)).unwrap();
    let (_, empty) = in_memory();
    let memory = copy_of(&empty);
    for seed in [11, 12] {
        let alone = copy_of(&empty);
        backup(&open(alone.clone(), seed).unwrap(), dir).unwrap();
        for (name, bytes) in alone.snapshot() {
            memory.overwrite(name, Some(bytes));
        }
    }
    let rehearsal = PruneOptions { dry_run: true, ..options() };
    let plan = prune::run(&open(memory.clone(), 13).unwrap(), &rehearsal, &Silent).unwrap().plan;
    let data = |uses: &[prune::PackUse]| -> Vec<PackName> {
        uses.iter().filter(|p| p.kind == PackKind::Data).map(|p| p.name).collect()
    };
    (memory, data(&plan.keep), data(&plan.delete))
}

/// The second collector: it has listed marks and packs of its second look, says so, and waits before it lists
/// announcements.
fn second(memory: &Arc<Memory>, reached: Sender<()>, go: Receiver<()>) -> std::thread::JoinHandle<()> {
    let (calls, go) = (Mutex::new(0), Mutex::new(go));
    let mut store = Watched::new(memory.clone());
    store.before_pend = Box::new(move || {
        let mut calls = calls.lock().unwrap();
        *calls += 1;
        // Expiry, plan, second look.
        if *calls == 3 {
            reached.send(()).unwrap();
            go.lock().unwrap().recv().unwrap();
        }
    });
    let store = Arc::new(store);
    std::thread::spawn(move || drop(prune::run(&open(store, 22).unwrap(), &options(), &Silent).unwrap()))
}

#[test]
fn each_knows_what_is_needed_though_the_other_has_buried_the_place_where_it_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (memory, kept, copies) = doubled(dir.path());
    assert!(!kept.is_empty() && !copies.is_empty(), "{kept:?} {copies:?}");
    let expected = on_disk(dir.path());

    let (reached, has_reached) = channel();
    let (let_go, go) = channel();
    let ends = Mutex::new(Some((reached, go)));
    let running = Arc::new(Mutex::new(None));
    let mut store = Watched::new(memory.clone());
    // The first has planned to delete the copies. Before it says so the packs it counts on are condemned, and a second
    // collector takes the copies for what stays.
    store.before_mark = Box::new({
        let (memory, running) = (memory.clone(), running.clone());
        let has_reached = Mutex::new(has_reached);
        move || {
            let Some((reached, go)) = ends.lock().unwrap().take() else { return };
            mark(&open(memory.clone(), 21).unwrap(), &kept, false);
            *running.lock().unwrap() = Some(second(&memory, reached, go));
            has_reached.lock().unwrap().recv().unwrap();
        }
    });
    // Then the second deletes those packs, and only then the first looks again.
    store.after_mark = Box::new(move || {
        if let Some(second) = running.lock().unwrap().take() {
            let_go.send(()).unwrap();
            second.join().unwrap();
        }
    });
    prune::run(&open(Arc::new(store), 23).unwrap(), &options(), &Silent).unwrap();

    let repository = open(memory, 24).unwrap();
    for snapshot in repository.snapshots().unwrap() {
        assert_eq!(contents(&repository, &snapshot).unwrap(), expected);
    }
}
