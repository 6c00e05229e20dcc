//! Repair among others, and against stores and copies that mislead: whatever could be restored can be restored after.
//! Beside running verbs, with reads that lie once, listings that omit, packs that cannot be read, copies that went
//! their own way.

use crate::beside::Interposed;
use crate::faults::{World, at_once};
use crate::repair::{
    alive, all_restorable, assert_no_less, change, commit_pack, findings, flip, forge, heal, histories,
    names, newest_pack, pack_of, read_all, rewrite_index,
};
use crate::support::{
    backup, contents, copy_of, env, interrupted, mark, noise, on_disk, open, options, populate, secret,
    small, source,
};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, BackendError, Capabilities, Memory, Put, Stat};
use bulla_engine::backup::{self, BackupOptions, Parent};
use bulla_engine::forget::forget;
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repair::index::{self, IndexOptions};
use bulla_engine::repair::packs::{self, PacksOptions};
use bulla_engine::repair::replica::{self, ReplicaOptions};
use bulla_engine::repair::snapshots::{self, Fate, SnapshotsOptions};
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::{Error, Result};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

type Verb = (&'static str, Arc<dyn Fn(&Repository) -> Result<()> + Send + Sync>);

/// Every verb of repair, at its most drastic.
fn verbs(copy: &Arc<Memory>) -> Vec<Verb> {
    let copy = copy.clone();
    let by_index = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    let editions = SnapshotsOptions { forget: true, read_data: true, ..SnapshotsOptions::default() };
    let whole = ReplicaOptions { read_data: true, dry_run: false };
    vec![
        ("index", Arc::new(move |r: &Repository| index::run(r, &by_index, &Silent).map(drop))),
        ("packs", Arc::new(|r: &Repository| packs::run(r, &read_all(), &Silent).map(drop))),
        ("snapshots", Arc::new(move |r: &Repository| snapshots::run(r, &editions, &Silent).map(drop))),
        ("packs --from", Arc::new(move |r: &Repository| replica::run(r, &*copy, &whole, &Silent).map(drop))),
    ]
}

/// Damage of each kind that repair is for; the source still has what was lost.
fn damaged(world: &World) -> Arc<Memory> {
    let base = copy_of(&world.base);
    let victim = newest_pack(world);
    flip(&base, &victim, 1000);
    let other = names(&base, &[Area::Packs]).into_iter().find(|n| *n != victim).unwrap();
    change(&base, &other, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
    forge(&base);
    base
}

fn prunes(memory: &Arc<Memory>) {
    for _ in 0..2 {
        let _ = prune::run(&open(memory.clone(), 50).unwrap(), &at_once(), &Silent);
    }
}

/// What can be restored of snapshots that nobody has forgotten.
fn unforgotten(repository: &Repository) -> BTreeMap<RunId, BTreeMap<Vec<u8>, String>> {
    let (mut all, forgotten) = (all_restorable(repository), repository.forgotten().unwrap());
    all.retain(|id, _| !forgotten.contains_key(id));
    all
}

/// Nothing less than `before`, now and after two prunes.
fn judge(memory: &Arc<Memory>, before: &BTreeMap<RunId, BTreeMap<Vec<u8>, String>>, context: &str) {
    assert_no_less(before, &all_restorable(&open(memory.clone(), 600).unwrap()), context);
    prunes(memory);
    assert_no_less(
        before,
        &all_restorable(&open(memory.clone(), 601).unwrap()),
        &format!("{context}, pruned"),
    );
}

/// `other` happens before each request of each verb in turn.
fn beside(what: &str, other: fn(&Arc<Memory>, &World), must_succeed: bool) {
    let world = Arc::new(World::new());
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let mut states = 0;
    for (name, verb) in verbs(&copy) {
        for at in 0.. {
            let memory = copy_of(&base);
            let (store, world) = (memory.clone(), world.clone());
            let store = Interposed::new(memory.clone(), at, move || other(&store, &world));
            let context = format!("{what} before request {at} of repair {name}");
            match open(store.clone(), 70).and_then(|r| verb(&r)) {
                Err(e) if must_succeed => panic!("{context}: {e}"),
                _ => {}
            }
            judge(&memory, &before, &context);
            states += 1;
            if !store.struck() {
                break;
            }
        }
    }
    println!("{what}: {states} states");
}

#[test]
fn a_prune_that_expires_the_repair_it_meets() {
    beside("a prune", |memory, _| prunes(memory), true);
}

#[test]
fn a_backup_inside_a_repair() {
    let other = |memory: &Arc<Memory>, world: &World| {
        backup(&open(memory.clone(), 51).unwrap(), world.path()).unwrap();
    };
    beside("a backup", other, true);
}

#[test]
fn a_repair_inside_a_repair() {
    let other = |memory: &Arc<Memory>, _: &World| {
        let empty = Arc::new(Memory::new());
        for (_, verb) in verbs(&empty) {
            let _ = verb(&open(memory.clone(), 52).unwrap());
        }
    };
    beside("all repairs", other, true);
}

/// A whole repair happens before each request of `outer`; what a backup acknowledged then restores.
fn inside(what: &str, outer: impl Fn(&Repository, &World) -> Result<Option<Snapshot>>) {
    let world = World::new();
    // Both packs are marked or found in the middle; what the outer verb meets first is a store that looks sound.
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    for (name, verb) in verbs(&copy) {
        for at in 0.. {
            let memory = copy_of(&base);
            let done = Arc::new(Mutex::new(None));
            let hook = {
                let (memory, verb, done) = (memory.clone(), verb.clone(), done.clone());
                move || *done.lock().unwrap() = Some(verb(&open(memory.clone(), 71).unwrap()))
            };
            let store = Interposed::new(memory.clone(), at, hook);
            let context = format!("repair {name} before request {at} of {what}");
            let outcome = open(store.clone(), 72).and_then(|r| outer(&r, &world));
            if let Some(Err(e)) = done.lock().unwrap().take() {
                panic!("{context}: {e}");
            }
            let mut before = before.clone();
            match outcome {
                Ok(Some(snapshot)) => {
                    // What it shares with a pack that was damaged before is not its fault; the rest is promised.
                    let now = all_restorable(&open(memory.clone(), 73).unwrap());
                    before.insert(snapshot.id, now.get(&snapshot.id).cloned().unwrap_or_default());
                    if name == "packs --from" && store.struck() {
                        let restored = contents(&open(memory.clone(), 74).unwrap(), &snapshot);
                        assert_eq!(restored.unwrap(), on_disk(world.path()), "{context}");
                    }
                }
                Ok(None) => {}
                Err(e) => assert!(e.is_damage() || matches!(e, Error::Refused(_)), "{context}: {e}"),
            }
            judge(&memory, &before, &context);
            if !store.struck() {
                break;
            }
        }
    }
}

#[test]
fn a_repair_inside_a_prune() {
    inside("a prune", |r, _| prune::run(r, &at_once(), &Silent).map(|_| None));
}

#[test]
fn a_repair_inside_a_backup() {
    inside("a backup", |r, world| backup(r, world.path()).map(|report| report.snapshot));
}

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
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> bulla_engine::backend::Result<Put> {
        self.inner.put(name, parts)
    }
    fn flush(&self) -> bulla_engine::backend::Result<()> {
        self.inner.flush()
    }
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
    fn stat(&self, name: &ObjectName) -> bulla_engine::backend::Result<Option<Stat>> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> bulla_engine::backend::Result<()> {
        self.inner.delete(name)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> bulla_engine::backend::Result<()> {
        self.inner.heal(name, parts)
    }
}

/// A cable or a worn-out memory must not have the last word on what is lost.
#[test]
fn a_read_that_lies_once_costs_nothing() {
    let world = World::new();
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    // A snapshot is damaged in truth, so that there is an edition to be made wrong.
    base.overwrite(newest_pack(&world), None);
    let before = all_restorable(&open(base.clone(), 6).unwrap());
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

/// Both the snapshot and its edition would die.
#[test]
fn an_edition_that_was_forgotten_is_no_edition() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = crate::support::in_memory();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    memory.overwrite(names(&memory, &[Area::Packs])[0], None);
    let before = all_restorable(&repository);
    let report = snapshots::run(&repository, &SnapshotsOptions::default(), &Silent).unwrap();
    let Fate::Edition(edition) = report.damaged[0].fate else { panic!("{report:?}") };
    forget(&repository, &edition, true, "test").unwrap();
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    let report = snapshots::run(&repository, &options, &Silent).unwrap();
    assert!(matches!(report.damaged[0].fate, Fate::Edition(_)), "{report:?}");
    prunes(&memory);
    assert!(alive(&repository).iter().all(|s| s.id != old.id && s.id != edition));
    assert_no_less(&before, &all_restorable(&repository), "after a new edition");
}

/// The name proves that the bytes are those that were put, not that those were right.
#[test]
fn what_a_copy_has_is_verified_by_the_ids_of_its_chunks() {
    let (repository, memory, _dir, history) = histories();
    let wrong = repository.keyring();
    let wrong = wrong.id_key(wrong.domain(), ChunkKind::Data).unwrap().identify(b"what it should be");
    let packs = commit_pack(&repository, PackKind::Data, wrong, b"what it is");
    let name = ObjectName::Pack(packs[0]);
    let copy = copy_of(&memory);
    for damage in [None, Some(90)] {
        let memory = copy_of(&memory);
        if let Some(at) = damage {
            flip(&memory, &name, at);
        }
        let repository = open(memory.clone(), 9).unwrap();
        let report = heal(&repository, &copy);
        assert!(report.healed.is_empty() && report.put_back.is_empty(), "{report:?}");
        assert!(report.left.iter().any(|(object, _)| *object == name.to_string()), "{report:?}");
    }
    memory.overwrite(name, None);
    let report = heal(&repository, &copy);
    assert!(report.put_back.is_empty() && !memory.snapshot().contains_key(&name), "{report:?}");
    drop(history);
}

/// Every object of the copy is damaged in turn, and once all of them: nothing of that comes here.
#[test]
fn a_damaged_copy_brings_no_damage() {
    let world = World::new();
    let base = copy_of(&world.base);
    for (n, name) in names(&base, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 3 {
            0 => base.overwrite(*name, None),
            1 => flip(&base, name, 500),
            _ => {}
        }
    }
    base.overwrite(ObjectName::Verdict(world.alive[1].0.id), None);
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let objects: Vec<ObjectName> = names(&world.base, &Area::ALL);
    let truth = world.base.snapshot();
    assert!(objects.len() > 12);
    for bad in objects.iter().map(|n| vec![*n]).chain([objects.clone()]) {
        for kind in 0..3 {
            let (memory, copy) = (copy_of(&base), copy_of(&world.base));
            for name in &bad {
                // Authentic bytes under another name of the same kind, after borg's CVE-2016-10099 and CVE-2023-36811.
                let like = |n: &&ObjectName| n.area() == name.area() && *n != name;
                let other = objects.iter().find(like).map(|n| truth[n].clone());
                change(&copy, name, |bytes| match kind {
                    0 => {
                        let at = bytes.len() / 2;
                        bytes[at] ^= 1;
                    }
                    1 => bytes.truncate(bytes.len() / 2),
                    _ => *bytes = other.unwrap_or_default(),
                });
            }
            let context = format!("{} of the copy damaged, {}", bad.len(), bad[0]);
            let options = ReplicaOptions { read_data: true, dry_run: false };
            let _ = replica::run(&open(memory.clone(), 9).unwrap(), &*copy, &options, &Silent);
            assert_no_less(&before, &all_restorable(&open(memory.clone(), 6).unwrap()), &context);
            for (name, bytes) in memory.snapshot() {
                let old = base.snapshot().get(&name) == Some(&bytes);
                assert!(
                    old || truth.get(&name) == Some(&bytes),
                    "{context}: {name} is neither old nor right"
                );
            }
        }
    }
}

/// A copy that finished what was condemned here, for itself: its graves are none of this one.
#[test]
fn graves_of_a_copy_bury_nothing_here() {
    let (repository, memory, _dir, history) = histories();
    let packs: Vec<_> = names(&memory, &[Area::Packs, Area::Meta]).iter().map(pack_of).collect();
    for condemned in [false, true] {
        let memory = copy_of(&memory);
        let repository = open(memory.clone(), 30).unwrap();
        if condemned {
            mark(&repository, &packs, false);
        }
        let copy = copy_of(&memory);
        let before = names(&copy, &[Area::Packs, Area::Meta]);
        for _ in 0..2 {
            prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
        }
        // Its next merge puts graves and packs into one run. What it moved its chunks to is lost there.
        let graves = packs.clone();
        rewrite_index(&open(copy.clone(), 41).unwrap(), &copy, |run| run.graves.clone_from(&graves));
        for name in names(&copy, &[Area::Packs, Area::Meta]).into_iter().filter(|n| !before.contains(n)) {
            copy.overwrite(name, None);
        }
        let restorable = all_restorable(&repository);
        let report = heal(&repository, &copy);
        let context = format!("condemned: {condemned}, {report:?}");
        assert_no_less(&restorable, &all_restorable(&open(memory.clone(), 31).unwrap()), &context);
        history.verify(&open(memory.clone(), 32).unwrap(), &context);
    }
    drop(repository);
}

/// An older copy with a pack that was lost both here and there: what the index says of it must outlive the healing.
#[test]
fn a_pack_that_is_missing_here_is_not_buried_by_a_copy() {
    let (repository, memory, _dir, history) = histories();
    let older = copy_of(&memory);
    let copy = copy_of(&memory);
    for _ in 0..2 {
        prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    }
    for name in names(&memory, &[Area::Packs]) {
        memory.overwrite(name, None);
        copy.overwrite(name, None);
    }
    for name in names(&copy, &[Area::Packs]) {
        copy.overwrite(name, None);
    }
    heal(&repository, &copy);
    let report = heal(&repository, &older);
    history.verify(&open(memory, 33).unwrap(), &format!("after an older copy healed: {report:?}"));
}

/// A VOID ends a run, and whose run is alive only its own store's collectors may say.
#[test]
fn a_copy_does_not_end_runs_here() {
    let (repository, memory, dir, _) = histories();
    std::fs::write(dir.path().join("more"), noise("more", 20_000)).unwrap();
    interrupted(&repository, &memory, dir.path());
    let open_runs = names(&memory, &[Area::Announcements]);
    let copy = copy_of(&memory);
    prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    let voids = names(&copy, &[Area::Verdicts]);
    heal(&repository, &copy);
    for name in &open_runs {
        let ObjectName::Announcement(run, _) = name else { continue };
        assert!(voids.contains(&ObjectName::Verdict(*run)), "the copy expired it");
        assert!(!memory.snapshot().contains_key(&ObjectName::Verdict(*run)), "{run} may still commit here");
    }
    // A VOID that was here and is lost comes back: a run that slept through it must not commit.
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let copy = copy_of(&memory);
    for name in &open_runs {
        let ObjectName::Announcement(run, _) = name else { continue };
        memory.overwrite(ObjectName::Verdict(*run), None);
        heal(&repository, &copy);
        assert!(memory.snapshot().contains_key(&ObjectName::Verdict(*run)));
    }
}

/// Later backups take for granted that a living snapshot has what it refers to.
#[test]
fn a_snapshot_whose_content_was_deleted_is_not_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let name = |d: usize| format!("directory number {d:04}");
    for d in 0..1500 {
        let sub = dir.path().join(name(d));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join("x".repeat(200)), b"").unwrap();
    }
    std::fs::create_dir_all(dir.path().join("zz")).unwrap();
    std::fs::write(dir.path().join("zz/only"), noise("only", 200_000)).unwrap();
    // One pack for all nodes, so that those of the lost snapshot outlive it.
    let memory = Arc::new(Memory::new());
    let large = InitOptions { meta_pack: 4 << 20, ..small() };
    let repository = Repository::init(memory.clone(), &large, &secret(), env(1)).unwrap().repository;
    let lost = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let copy = copy_of(&memory);
    let verdict = ObjectName::Verdict(lost.id);
    memory.overwrite(verdict, None);
    // Shares nodes with the one that is lost, but not its content.
    let mut without = source(dir.path());
    let bulla_engine::source::Sources::Paths(paths) = &mut without else { panic!() };
    paths.paths = (0..1500).map(|d| dir.path().join(name(d)).to_str().unwrap().as_bytes().to_vec()).collect();
    backup::run(&repository, without, &options(), &Silent).unwrap();
    let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
    prune::run(&repository, &unlimited, &Silent).unwrap();
    let report = heal(&repository, &copy);
    println!("{report:?} {:?}", memory.snapshot().keys().map(ToString::to_string).collect::<Vec<_>>());
    let parent = if memory.snapshot().contains_key(&verdict) { Parent::Id(lost.id) } else { Parent::Auto };
    let with_parent = BackupOptions { parent, ..options() };
    let next = backup::run(&repository, source(dir.path()), &with_parent, &Silent).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &next).unwrap(), on_disk(dir.path()), "{report:?}");
    assert_eq!(findings(&repository), [], "{report:?}");
}

/// Catalogue: borg #5325 (an interrupted repair lost data): a crash in the repair of a crash.
#[test]
fn a_repair_that_was_stopped_and_stopped_again() {
    let world = World::new();
    let base = damaged(&world);
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let empty = Arc::new(Memory::new());
    for (name, verb) in verbs(&empty).into_iter().filter(|(name, _)| *name != "packs --from") {
        let mut first = 0;
        loop {
            let memory = copy_of(&base);
            let faulty = Arc::new(Faulty::new(memory.clone(), first, Fault::Forever));
            let _ = open(faulty.clone(), 3).and_then(|r| verb(&r));
            if !faulty.struck() {
                break;
            }
            for second in (first % 5..).step_by(5) {
                let memory = copy_of(&memory);
                let again = Arc::new(Faulty::new(memory.clone(), second, Fault::AfterEffect));
                let _ = open(again.clone(), 4).and_then(|r| verb(&r));
                let context = format!("repair {name} stopped at {first} and again at {second}");
                assert_no_less(&before, &all_restorable(&open(memory.clone(), 5).unwrap()), &context);
                if !again.struck() {
                    verb(&open(memory.clone(), 8).unwrap()).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
                    judge(&memory, &before, &context);
                    break;
                }
            }
            first += 4;
        }
    }
}

/// A snapshot that a copy brings back is not the run's that keeps it meanwhile: a prune that takes the run for dead must
/// not leave a root without its data.
#[test]
fn a_prune_beside_a_snapshot_that_comes_back() {
    let world = World::new();
    let (newest, expected) = world.alive[1].clone();
    let base = copy_of(&world.base);
    let verdict = ObjectName::Verdict(newest.id);
    base.overwrite(verdict, None);
    let whole = ReplicaOptions::default();
    let (mut back, mut left) = (0, 0);
    for at in 0.. {
        let (memory, copy) = (copy_of(&base), copy_of(&world.base));
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || prunes(&other));
        let context = format!("prunes before request {at} of healing a snapshot");
        let report = open(store.clone(), 70).and_then(|r| replica::run(&r, &*copy, &whole, &Silent));
        let report = report.unwrap_or_else(|e| panic!("{context}: {e}"));
        let repository = open(memory.clone(), 71).unwrap();
        if memory.snapshot().contains_key(&verdict) {
            assert_eq!(contents(&repository, &newest).unwrap(), expected, "{context}: {report:?}");
            back += 1;
        } else {
            assert!(!report.left.is_empty(), "{context}: {report:?}");
            left += 1;
        }
        prune::run(&repository, &at_once(), &Silent).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        let next = backup(&repository, world.path()).unwrap().snapshot.unwrap();
        assert_eq!(contents(&repository, &next).unwrap(), on_disk(world.path()), "{context}");
        if !store.struck() {
            break;
        }
    }
    println!("{back} came back, {left} did not");
    assert!(back > 2 && left > 2);
}
