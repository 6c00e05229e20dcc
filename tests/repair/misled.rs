//! Repair on stores that mislead: reads that lie once, listings that omit, packs and snapshots that cannot be read.

use super::*;
use crate::passing::passes_on;
use crate::support::interrupted;
use bulla_engine::backend::BackendError;
use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};

/// A store that misleads those who read it.
#[derive(Default)]
struct Strange {
    inner: Arc<Memory>,
    reads: AtomicU64,
    /// This read, and no other, gives a wrong bit.
    lies: Option<u64>,
    /// Not listed, though there.
    omitted: HashSet<ObjectName>,
    /// Every read of them is an input/output error.
    unreadable: HashSet<ObjectName>,
}

impl Strange {
    fn read(
        &self,
        name: &ObjectName,
        bytes: bulla_engine::backend::Result<Vec<u8>>,
    ) -> bulla_engine::backend::Result<Vec<u8>> {
        if self.unreadable.contains(name) {
            let source = std::io::Error::from_raw_os_error(5);
            return Err(BackendError::Io {
                verb: "read",
                object: name.to_string(),
                place: String::new(),
                source,
            });
        }
        let mut bytes = bytes?;
        if self.lies == Some(self.reads.fetch_add(1, Ordering::SeqCst)) {
            let at = bytes.len() / 2;
            bytes[at] ^= 4;
        }
        Ok(bytes)
    }
}

impl Backend for Strange {
    passes_on!(describe conditional_put put flush stat delete heal);
    fn get(&self, name: &ObjectName, limit: u64) -> bulla_engine::backend::Result<Vec<u8>> {
        self.read(name, self.inner.get(name, limit))
    }
    fn get_range(
        &self,
        name: &ObjectName,
        offset: u64,
        len: usize,
    ) -> bulla_engine::backend::Result<Vec<u8>> {
        self.read(name, self.inner.get_range(name, offset, len))
    }
    fn list(&self, area: Area) -> bulla_engine::backend::Result<Vec<(ObjectName, u64)>> {
        let mut all = self.inner.list(area)?;
        all.retain(|(name, _)| !self.omitted.contains(name));
        Ok(all)
    }
}

/// A cable or a worn-out memory must not have the last word on what is lost.
#[test]
fn a_read_that_lies_once_costs_nothing() {
    let world = World::history(None);
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    // A snapshot is damaged in truth, so that there is an edition to be made wrong.
    base.overwrite(newest_pack(&world), None);
    let before = unforgotten(&open(base.clone(), 6).unwrap());
    for (name, verb) in verbs(&copy) {
        for at in 0.. {
            let memory = copy_of(&base);
            let store = Arc::new(Strange { inner: memory.clone(), lies: Some(at), ..Strange::default() });
            let _ = open(store.clone(), 70).and_then(|r| verb(&r));
            judge(&memory, &before, &format!("read {at} of repair {name} is wrong"));
            if store.reads.load(Ordering::SeqCst) <= at {
                break;
            }
        }
    }
}

/// Catalogue: restic #3317 and #3273: a listing that omits packs; no step is destructive on the word of one.
#[test]
fn packs_that_a_listing_omits_are_not_lost() {
    let (repository, base, _dir, _) = histories();
    let mut copy = copy_of(&base);
    prune::run(&open(copy.clone(), 7).unwrap(), &at_once(), &Silent).unwrap();
    let before = unforgotten(&repository);
    for omitted in names(&base, &[Area::Packs, Area::Meta]) {
        copy = copy_of(&copy);
        let by_name = PacksOptions { packs: vec![pack_of(&omitted)], ..PacksOptions::default() };
        let mut all = verbs(&copy);
        all.push(("packs NAME", Arc::new(move |r: &Repository| packs::run(r, &by_name, &Silent).map(drop))));
        for (name, verb) in all {
            let memory = copy_of(&base);
            let store = Strange { inner: memory.clone(), omitted: [omitted].into(), ..Strange::default() };
            let _ = open(Arc::new(store), 70).and_then(|r| verb(&r));
            judge(&memory, &before, &format!("repair {name} while {omitted} is not listed"));
        }
    }
}

/// A pack that cannot be read goes only when it was asked for and all that is needed of it is elsewhere.
#[test]
fn packs_that_cannot_be_read_stay_while_they_are_needed() {
    let (repository, base, _dir, _) = histories();
    let before = unforgotten(&repository);
    let copy = Arc::new(Memory::new());
    let all = names(&base, &[Area::Packs, Area::Meta]);
    for unreadable in all.iter().map(|n| HashSet::from([*n])).chain([all.iter().copied().collect()]) {
        for (name, verb) in verbs(&copy) {
            let memory = copy_of(&base);
            let store =
                Strange { inner: memory.clone(), unreadable: unreadable.clone(), ..Strange::default() };
            let _ = open(Arc::new(store), 70).and_then(|r| verb(&r));
            judge(&memory, &before, &format!("repair {name} while {} cannot be read", unreadable.len()));
        }
    }
}

#[test]
fn a_pack_that_cannot_be_read_and_is_in_no_index_stays() {
    let (repository, memory, dir, _) = histories();
    std::fs::write(dir.path().join("orphan"), noise("orphan", 20_000)).unwrap();
    let kept: HashSet<ObjectName> =
        names(&memory, &[Area::Packs, Area::Meta, Area::Index]).into_iter().collect();
    interrupted(&repository, &memory, dir.path());
    for name in names(&memory, &[Area::Index]).into_iter().filter(|n| !kept.contains(n)) {
        memory.overwrite(name, None);
    }
    let orphans: HashSet<ObjectName> =
        names(&memory, &[Area::Packs, Area::Meta]).into_iter().filter(|n| !kept.contains(n)).collect();
    assert!(!orphans.is_empty());
    let store = Strange { inner: memory.clone(), unreadable: orphans.clone(), ..Strange::default() };
    let report = packs::run(&open(Arc::new(store), 70).unwrap(), &read_all(), &Silent).unwrap();
    assert_eq!(report.left.len(), orphans.len(), "nobody knows what they hold: {report:?}");
    assert!(orphans.iter().all(|name| memory.snapshot().contains_key(name)));
}

/// What lies below a node that cannot be read is unknown: a pack whose directory is lost may hold it.
#[test]
fn a_pack_without_a_directory_stays_while_a_tree_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise("file", 60_000)).unwrap();
    let (repository, memory) = crate::support::in_memory();
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let (data, meta) = (names(&memory, &[Area::Packs]), names(&memory, &[Area::Meta]));
    let whole = memory.snapshot();
    for name in &data {
        change(&memory, name, |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        });
    }
    // The index has lost one chunk of each pack, and the tree that would tell is gone for now.
    let first: Vec<_> = data.iter().map(pack_of).collect();
    rewrite_index(&repository, &memory, |run| {
        for name in &first {
            let of = |r: &bulla_engine::format::index::IndexRecord| run.packs[r.pack as usize].name == *name;
            if let Some(at) = run.records.iter().position(of) {
                run.records.remove(at);
            }
        }
    });
    for name in &meta {
        memory.overwrite(*name, None);
    }
    let report = packs::run(&repository, &read_all(), &Silent).unwrap();
    assert!(report.deleted.is_empty() && report.left.len() == data.len(), "{report:?}");
    // The tree comes back, and so do the bytes.
    for name in data.iter().chain(&meta) {
        memory.overwrite(*name, Some(whole[name].clone()));
    }
    let all = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    let _ = index::run(&repository, &all, &Silent).unwrap();
    prunes(&memory);
    let again = open(memory.clone(), 8).unwrap();
    assert_eq!(contents(&again, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_snapshot_that_cannot_be_read_may_need_anything() {
    let (repository, memory, _dir, history) = histories();
    let whole = memory.snapshot();
    let newest = ObjectName::Verdict(history.alive[1].0.id);
    flip(&memory, &newest, 40);
    for name in names(&memory, &[Area::Packs]) {
        change(&memory, &name, |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        });
    }
    let report = packs::run(&repository, &read_all(), &Silent).unwrap();
    assert!(report.deleted.is_empty() && !report.left.is_empty(), "{report:?}");
    memory.overwrite(newest, Some(whole[&newest].clone()));
    history.verify(&open(memory, 8).unwrap(), "after the snapshot was healed");
}
