//! Repair: what can be put right is, nothing that could be restored is ever lost on the way, whatever fails when.

mod beside;
mod copies;
mod damaged_packs;
mod editions;
mod harms;
mod index_runs;
mod misled;

use crate::faults::world::{World, at_once};
use crate::support::{Histories, backup, contents, copy_of, in_memory, mark, noise, on_disk, open, populate};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::browse;
use bulla_engine::check::{self, CheckOptions, Finding, ReadData};
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::record::RunKind;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::EntryKind;
use bulla_engine::format::{Area, ChunkId, IndexName, ObjectName, PackName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune;
use bulla_engine::repair::index::{self, IndexOptions, IndexReport};
use bulla_engine::repair::packs::{self, PacksOptions, PacksReport};
use bulla_engine::repair::replica::{self, ReplicaOptions, ReplicaReport};
use bulla_engine::repair::snapshots::{self, Fate, SnapshotsOptions, SnapshotsReport};
use bulla_engine::repository::Repository;
use bulla_engine::repository::run::Run;
use bulla_engine::repository::tree::TreeReader;
use bulla_engine::{Error, Result};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Contents = BTreeMap<Vec<u8>, String>;

/// What of a tree can be restored, each entry for itself.
pub(crate) fn restorable(repository: &Repository, snapshot: &Snapshot) -> Contents {
    let index = repository.open_index().unwrap();
    let (mut reader, mut out) = (TreeReader::new(repository, &index, snapshot.tree), Contents::new());
    loop {
        let entry = match reader.next() {
            Ok(None) => return out,
            Ok(Some(entry)) => entry,
            Err(e) => {
                assert!(e.is_damage(), "{e}");
                continue;
            }
        };
        let mut bytes = Vec::new();
        if let EntryKind::File { .. } = entry.kind {
            if browse::write_file(repository, snapshot, &entry.path(), &mut bytes).is_ok() {
                out.insert(entry.path(), blake3::hash(&bytes).to_string());
            }
        } else {
            out.insert(entry.path(), format!("{:?}", entry.kind));
        }
    }
}

pub(crate) fn alive(repository: &Repository) -> Vec<Snapshot> {
    repository.readable_snapshots().unwrap().0
}

/// What can be restored of each snapshot, by itself or by an edition of it.
pub(crate) fn all_restorable(repository: &Repository) -> BTreeMap<RunId, Contents> {
    let mut out: BTreeMap<RunId, Contents> = BTreeMap::new();
    for s in alive(repository) {
        out.entry(s.origin.unwrap_or(s.id)).or_default().extend(restorable(repository, &s));
    }
    out
}

/// What can be restored of snapshots that nobody has forgotten.
pub(crate) fn unforgotten(repository: &Repository) -> BTreeMap<RunId, BTreeMap<Vec<u8>, String>> {
    let (mut all, forgotten) = (all_restorable(repository), repository.forgotten().unwrap());
    all.retain(|id, _| !forgotten.contains_key(id));
    all
}

pub(crate) fn assert_no_less(
    before: &BTreeMap<RunId, Contents>,
    after: &BTreeMap<RunId, Contents>,
    context: &str,
) {
    for (id, contents) in before {
        for (path, content) in contents {
            let now = after.get(id).and_then(|c| c.get(path));
            assert_eq!(now, Some(content), "{context}: {} of {id}", String::from_utf8_lossy(path));
        }
    }
}

pub(crate) fn findings(repository: &Repository) -> Vec<Finding> {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    check::run(repository, &options, &Silent).unwrap().findings
}

pub(crate) fn names(memory: &Memory, areas: &[Area]) -> Vec<ObjectName> {
    areas.iter().flat_map(|a| memory.list(*a).unwrap()).map(|(name, _)| name).collect()
}

pub(crate) fn change(memory: &Memory, name: &ObjectName, how: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = memory.snapshot().remove(name).unwrap();
    how(&mut bytes);
    memory.overwrite(*name, Some(bytes));
}

pub(crate) fn flip(memory: &Memory, name: &ObjectName, at: usize) {
    change(memory, name, |bytes| bytes[at] ^= 1);
}

pub(crate) fn pack_of(name: &ObjectName) -> PackName {
    match name {
        ObjectName::Pack(p) | ObjectName::Meta(p) => *p,
        other => panic!("{other} is no pack"),
    }
}

pub(crate) fn repair_index(repository: &Repository) -> IndexReport {
    index::run(repository, &IndexOptions::default(), &Silent).unwrap()
}

pub(crate) fn read_all() -> PacksOptions {
    PacksOptions { read_data: true, ..PacksOptions::default() }
}

pub(crate) fn repair_packs(repository: &Repository) -> PacksReport {
    packs::run(repository, &read_all(), &Silent).unwrap()
}

pub(crate) fn repair_snapshots(repository: &Repository) -> SnapshotsReport {
    snapshots::run(repository, &SnapshotsOptions::default(), &Silent).unwrap()
}

pub(crate) fn heal(repository: &Repository, other: &Memory) -> ReplicaReport {
    let options = ReplicaOptions { read_data: true, dry_run: false };
    replica::run(repository, other, &options, &Silent).unwrap()
}

pub(crate) fn histories() -> (Repository, Arc<Memory>, tempfile::TempDir, Histories) {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    let history = Histories::make(&repository, dir.path());
    (repository, memory, dir, history)
}

/// An object under the name of an index run that opens with no key.
pub(crate) fn forge(memory: &Memory) -> ObjectName {
    let bytes = noise("forged", 32 << 10);
    let name = ObjectName::Index(IndexName { generation: 0, hash: *blake3::hash(&bytes).as_bytes() });
    let mut bytes = bytes;
    let real = names(memory, &[Area::Index]).first().and_then(|n| memory.snapshot().remove(n));
    if let Some(real) = real {
        // With the magic of a real one, so that it is no object of another version.
        bytes[..16].copy_from_slice(&real[..16]);
    }
    let name = match name {
        ObjectName::Index(n) => ObjectName::Index(IndexName { hash: *blake3::hash(&bytes).as_bytes(), ..n }),
        other => other,
    };
    memory.overwrite(name, Some(bytes));
    name
}

/// Puts packs with one chunk, listed, of a run that is over; `id` is taken as it is said.
pub(crate) fn commit_pack(
    repository: &Repository,
    kind: PackKind,
    id: ChunkId,
    plain: &[u8],
) -> Vec<PackName> {
    use bulla_engine::format::frame::Compression;
    use bulla_engine::repository::index::IndexWriter;
    use bulla_engine::repository::pack::{PackSink, PackStream, SealedPack};
    #[derive(Default)]
    struct Keep(std::sync::Mutex<Vec<SealedPack>>);
    impl PackSink for Keep {
        fn store(&self, pack: SealedPack) -> Result<()> {
            self.0.lock().unwrap().push(pack);
            Ok(())
        }
    }
    let (run, _) = Run::open(repository, RunKind::Writer, &[]).unwrap();
    let keep = Keep::default();
    {
        let stream = PackStream::new(repository, kind, run.id(), Compression::Auto, true, &keep);
        let mut packer = stream.packer().unwrap();
        stream.append(&mut packer, [(id, plain)]).unwrap();
        stream.finish(&mut packer).unwrap();
    }
    let (mut index, mut names) = (IndexWriter::new(repository), Vec::new());
    for pack in keep.0.into_inner().unwrap() {
        repository.backend().put(&pack.object, &pack.parts()).unwrap();
        names.push(pack.pack.name);
        index.add(pack.pack, pack.records).unwrap();
    }
    index.flush().unwrap();
    names
}

/// Rewrites all index runs.
pub(crate) fn rewrite_index(
    repository: &Repository,
    memory: &Memory,
    how: impl Fn(&mut bulla_engine::format::index::IndexRun),
) {
    use bulla_engine::format::envelope::ObjectType;
    use bulla_engine::format::index::IndexRun;
    for name in names(memory, &[Area::Index]) {
        let mut run = IndexRun::decode(&repository.get_object(&name, ObjectType::Index).unwrap().0).unwrap();
        how(&mut run);
        memory.overwrite(name, None);
        let scratch = ObjectName::Index(IndexName { generation: 0, hash: [1; 32] });
        repository.put_object(&scratch, ObjectType::Index, run.encode()).unwrap();
        let bytes = memory.snapshot().remove(&scratch).unwrap();
        memory.overwrite(scratch, None);
        let hash = *blake3::hash(&bytes).as_bytes();
        memory.overwrite(ObjectName::Index(IndexName { generation: 0, hash }), Some(bytes));
    }
}

/// The data pack that only the newest snapshot of the world needs: what was in it is in the source still.
pub(crate) fn newest_pack(world: &World) -> ObjectName {
    let hurt_only_newest = |name: &ObjectName| {
        let memory = copy_of(&world.base);
        flip(&memory, name, 1000);
        let repository = open(memory, 5).unwrap();
        contents(&repository, &world.alive[0].0).is_ok() && contents(&repository, &world.alive[1].0).is_err()
    };
    names(&world.base, &[Area::Packs]).into_iter().find(hurt_only_newest).unwrap()
}

/// Damage of each kind that repair is for; the source still has what was lost.
pub(crate) fn damaged(world: &World) -> Arc<Memory> {
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

pub(crate) fn prunes(memory: &Arc<Memory>) {
    for _ in 0..2 {
        let _ = prune::run(&open(memory.clone(), 50).unwrap(), &at_once(), &Silent);
    }
}

pub(crate) type Verb = (&'static str, Arc<dyn Fn(&Repository) -> Result<()> + Send + Sync>);

/// Every verb of repair, at its most drastic.
pub(crate) fn verbs(copy: &Arc<Memory>) -> Vec<Verb> {
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

/// Nothing less than `before`, now and after two prunes.
pub(crate) fn judge(
    memory: &Arc<Memory>,
    before: &BTreeMap<RunId, BTreeMap<Vec<u8>, String>>,
    context: &str,
) {
    assert_no_less(before, &all_restorable(&open(memory.clone(), 600).unwrap()), context);
    prunes(memory);
    assert_no_less(
        before,
        &all_restorable(&open(memory.clone(), 601).unwrap()),
        &format!("{context}, pruned"),
    );
}
