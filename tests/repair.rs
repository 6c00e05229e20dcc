//! Repair: what can be put right is, nothing that could be restored is ever lost on the way, whatever fails when.

use crate::faults::{World, at_once, every_state, invariants, recovery};
use crate::support::{Histories, backup, contents, copy_of, in_memory, mark, noise, on_disk, open, populate};
use bulla_engine::Result;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::browse;
use bulla_engine::check::{self, CheckOptions, Finding, ReadData};
use bulla_engine::format::keys::ChunkKind;
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
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) type Contents = BTreeMap<Vec<u8>, String>;

/// What of a tree can be restored, each entry for itself.
fn restorable(repository: &Repository, snapshot: &Snapshot) -> Contents {
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

fn repair_index(repository: &Repository) -> IndexReport {
    index::run(repository, &IndexOptions::default(), &Silent).unwrap()
}

pub(crate) fn read_all() -> PacksOptions {
    PacksOptions { read_data: true, ..PacksOptions::default() }
}

fn repair_packs(repository: &Repository) -> PacksReport {
    packs::run(repository, &read_all(), &Silent).unwrap()
}

fn repair_snapshots(repository: &Repository) -> SnapshotsReport {
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

#[test]
fn lost_and_forged_index_runs_are_made_good_from_the_packs() {
    let (repository, memory, _dir, history) = histories();
    let forged = forge(&memory);
    for name in names(&memory, &[Area::Index]) {
        if name != forged {
            memory.overwrite(name, None);
        }
    }
    let before = memory.snapshot();
    let dry = index::run(&repository, &IndexOptions { dry_run: true, ..IndexOptions::default() }, &Silent);
    assert_eq!(memory.snapshot(), before, "a dry run writes nothing");
    let report = repair_index(&repository);
    assert_eq!(report.listed.len() as u64, report.packs);
    assert_eq!(report.listed, dry.unwrap().listed);
    assert_eq!(report.removed, [forged.to_string()]);
    assert!(report.left.is_empty(), "{report:?}");
    history.verify(&repository, "after the index was made again");
    assert_eq!(findings(&repository), []);
    let again = repair_index(&repository);
    assert!(again.listed.is_empty() && again.removed.is_empty(), "{again:?}");
}

#[test]
fn condemned_packs_are_not_listed_again_and_a_run_stays_while_a_pack_cannot_be_listed() {
    let (repository, memory, _dir, _) = histories();
    let all = names(&memory, &[Area::Packs, Area::Meta]);
    mark(&repository, &[pack_of(&all[0])], false);
    change(&memory, &all[1], |bytes| bytes.truncate(bytes.len() - 1));
    let forged = forge(&memory);
    for name in names(&memory, &[Area::Index]).into_iter().filter(|n| *n != forged) {
        memory.overwrite(name, None);
    }
    let report = repair_index(&repository);
    assert!(!report.listed.contains(&all[0].to_string()), "{report:?}");
    assert!(report.left.iter().any(|(object, _)| *object == all[1].to_string()), "{report:?}");
    assert!(report.left.iter().any(|(object, _)| *object == forged.to_string()), "{report:?}");
    assert!(report.removed.is_empty() && memory.snapshot().contains_key(&forged), "{report:?}");
    memory.overwrite(all[1], None);
    assert_eq!(repair_index(&repository).removed, [forged.to_string()], "now all packs are listed");
}

#[test]
fn a_run_of_a_newer_format_is_not_removed() {
    let (repository, memory, _dir, _) = histories();
    // Whole by its name, with a magic of a version that is to come.
    let mut bytes = noise("newer", 32 << 10);
    let real = names(&memory, &[Area::Index])[0];
    bytes[..16].copy_from_slice(&memory.snapshot()[&real][..16]);
    bytes[5] += 1;
    let hash = *blake3::hash(&bytes).as_bytes();
    let newer = ObjectName::Index(IndexName { generation: 0, hash });
    memory.overwrite(newer, Some(bytes));
    let report = repair_index(&repository);
    assert!(report.removed.is_empty() && memory.snapshot().contains_key(&newer), "{report:?}");
    assert!(report.left.iter().any(|(object, why)| *object == newer.to_string() && why.contains("newer")));
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
        let parts: Vec<&[u8]> = pack.parts.iter().map(Vec::as_slice).collect();
        repository.backend().put(&pack.object, &parts).unwrap();
        names.push(pack.pack.name);
        index.add(pack.pack, pack.records).unwrap();
    }
    index.flush().unwrap();
    names
}

/// Commits a snapshot with a chunk for its tree, whatever that is.
fn commit_tree(repository: &Repository, like: &Snapshot, plain: &[u8]) -> Snapshot {
    let ring = repository.keyring();
    let tree = ring.id_key(ring.domain(), ChunkKind::Meta).unwrap().identify(plain);
    commit_pack(repository, PackKind::Meta, tree, plain);
    let (run, _) = Run::open(repository, RunKind::Writer, &[]).unwrap();
    let id = run.id();
    run.commit(Snapshot { id, tree, ..like.clone() }).unwrap()
}

/// After borg #3444 and #1837: a repair threw away what its validator did not know.
#[test]
fn what_cannot_be_understood_is_not_taken_for_lost() {
    let (repository, memory, _dir, history) = histories();
    // A leaf with an entry of a kind that is to come.
    let strange = commit_tree(&repository, &history.alive[0].0, &[1, 1, 0, 0, 1, b'a', 99]);
    let before = names(&memory, &[Area::Verdicts]).len();
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    let report = snapshots::run(&repository, &options, &Silent).unwrap();
    let [damaged] = &report.damaged[..] else { panic!("{report:?}") };
    assert_eq!(damaged.id, strange.id);
    let Fate::Left(reason) = &damaged.fate else { panic!("{damaged:?}") };
    assert!(reason.contains("does not understand"), "{reason}");
    assert_eq!(names(&memory, &[Area::Verdicts]).len(), before);
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

#[test]
fn a_pack_that_only_its_lost_directory_could_explain_stays() {
    let (repository, memory, _dir, _) = histories();
    let victim = names(&memory, &[Area::Packs])[0];
    change(&memory, &victim, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
    let name = pack_of(&victim);
    // The index lost a chunk of it: nobody can say that nothing else is in it.
    rewrite_index(&repository, &memory, |run| {
        let of = |r: &bulla_engine::format::index::IndexRecord| run.packs[r.pack as usize].name == name;
        if let Some(at) = run.records.iter().position(of) {
            run.records.remove(at);
        }
    });
    let report = repair_packs(&repository);
    assert!(report.deleted.is_empty(), "{report:?}");
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(memory.snapshot().contains_key(&victim));
}

/// After restic #21820: an index made anew lost entries of a pack that two index files listed in part.
#[test]
fn a_pack_that_two_runs_list_in_part_keeps_all_its_chunks() {
    let (repository, memory, _dir, history) = histories();
    let whole = memory.snapshot();
    rewrite_index(&repository, &memory, |run| {
        let mut at = 0;
        run.records.retain(|_| {
            at += 1;
            at % 2 == 0
        });
    });
    let half = memory.snapshot();
    // Both halves, in two runs: what the first has and what the other has.
    for (name, bytes) in &whole {
        memory.overwrite(*name, Some(bytes.clone()));
    }
    rewrite_index(&repository, &memory, |run| {
        let mut at = 0;
        run.records.retain(|_| {
            at += 1;
            at % 2 == 1
        });
    });
    let other = names(&memory, &[Area::Index]);
    for (name, bytes) in half.iter().filter(|(n, _)| n.area() == Area::Index) {
        memory.overwrite(*name, Some(bytes.clone()));
    }
    history.verify(&open(memory.clone(), 11).unwrap(), "two halves");
    let pruned = copy_of(&memory);
    prune::run(&open(pruned.clone(), 12).unwrap(), &at_once(), &Silent).unwrap();
    history.verify(&open(pruned, 13).unwrap(), "two halves, pruned and merged");
    // One half is lost: every pack is listed still, and not with all it has.
    for name in other {
        memory.overwrite(name, None);
    }
    let repository = open(memory.clone(), 14).unwrap();
    assert!(!findings(&repository).is_empty());
    let options = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    index::run(&repository, &options, &Silent).unwrap();
    history.verify(&open(memory, 15).unwrap(), "one half, repaired");
    assert_eq!(findings(&repository), []);
}

/// After borg's CVE-2016-10100: of two things with one name a rebuild kept the first it met.
#[test]
fn a_chunk_that_lies_in_two_packs_is_listed_at_both() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise("file", 40_000)).unwrap();
    let (_, empty) = in_memory();
    let memory = copy_of(&empty);
    // Two backups that knew nothing of each other: every chunk lies in two packs.
    let mut taken = Vec::new();
    for seed in [11, 12] {
        let alone = copy_of(&empty);
        let snapshot = backup(&open(alone.clone(), seed).unwrap(), dir.path()).unwrap().snapshot.unwrap();
        taken.push((snapshot, names(&alone, &[Area::Packs, Area::Meta])));
        for (name, bytes) in alone.snapshot() {
            memory.overwrite(name, Some(bytes));
        }
    }
    for name in names(&memory, &[Area::Index]) {
        memory.overwrite(name, None);
    }
    repair_index(&open(memory.clone(), 13).unwrap());
    for (_, packs) in &taken {
        let memory = copy_of(&memory);
        for name in packs {
            memory.overwrite(*name, None);
        }
        let repository = open(memory, 14).unwrap();
        for (snapshot, _) in &taken {
            assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()), "from the other packs");
        }
    }
}

#[test]
fn an_index_that_points_elsewhere_is_corrected() {
    let (repository, memory, _dir, history) = histories();
    rewrite_index(&repository, &memory, |run| {
        for record in run.records.iter_mut().filter(|r| r.len > 1) {
            record.len -= 1;
        }
    });
    assert!(!findings(&repository).is_empty());
    assert!(repair_index(&repository).listed.is_empty(), "every pack is listed");
    let options = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    let report = index::run(&repository, &options, &Silent).unwrap();
    assert_eq!(report.listed.len() as u64, report.packs);
    history.verify(&repository, "after the index was corrected");
    assert_eq!(findings(&repository), []);
}

/// Damage to packs, found, condemned; a backup of the unchanged source; then all is as it was, and a prune tidies up.
fn story(area: Area, harm: impl Fn(&Memory, &ObjectName)) {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let victims = names(&memory, &[area]);
    let victim = victims[victims.len() / 2];
    harm(&memory, &victim);
    assert!(findings(&repository).iter().any(|f| f.object == victim.to_string()));
    let report = repair_packs(&repository);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    let second = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(findings(&repository), [], "{report:?}");
    for snapshot in [&first, &second] {
        assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()));
    }
    let pruned = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert!(pruned.left.is_empty(), "{pruned:?}");
    assert!(!names(&memory, &[area]).contains(&victim), "{pruned:?}");
    assert_eq!(findings(&repository), []);
    for snapshot in [&first, &second] {
        assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()));
    }
    let again = repair_packs(&repository);
    assert!(again.damaged.is_empty() && again.left.is_empty() && again.missing.is_empty(), "{again:?}");
}

#[test]
fn the_next_backup_heals_flipped_and_cut_packs() {
    for area in [Area::Packs, Area::Meta] {
        story(area, |memory, name| flip(memory, name, 1000));
        story(area, |memory, name| change(memory, name, |bytes| bytes.truncate(bytes.len() / 2)));
        // The header: nothing in it opens.
        story(area, |memory, name| flip(memory, name, 20));
    }
}

#[test]
fn nothing_new_relies_on_a_pack_marked_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    std::fs::File::options().append(true).open(dir.path().join("d1/noise")).unwrap().set_len(90_000).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let all = names(&memory, &[Area::Packs, Area::Meta]);
    // The repair was stopped right after the mark; all packs can be read still.
    mark(&repository, &all.iter().map(pack_of).collect::<Vec<_>>(), true);
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    for name in all {
        memory.overwrite(name, None);
    }
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_pack_without_a_directory_gives_what_it_has_by_the_index_and_goes() {
    let (repository, memory, _dir, history) = histories();
    for victim in names(&memory, &[Area::Packs, Area::Meta]) {
        change(&memory, &victim, |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        });
    }
    let report = repair_packs(&repository);
    assert_eq!(report.damaged.len() as u64, report.packs);
    assert_eq!(report.deleted.len() as u64, report.packs, "{report:?}");
    assert!(report.copied > 0 && report.left.is_empty(), "{report:?}");
    history.verify(&repository, "after all directories were lost");
    assert_eq!(findings(&repository), []);
}

#[test]
fn a_missing_pack_is_reported_and_given_up_only_by_name() {
    let (repository, memory, dir, history) = histories();
    let victim = names(&memory, &[Area::Packs])[0];
    memory.overwrite(victim, None);
    let before = names(&memory, &[Area::Marks]).len();
    let report = repair_packs(&repository);
    assert_eq!((report.missing, report.damaged), (vec![victim.to_string()], Vec::new()));
    assert_eq!(names(&memory, &[Area::Marks]).len(), before, "nothing was condemned");
    let options = PacksOptions { packs: vec![pack_of(&victim)], ..PacksOptions::default() };
    let report = packs::run(&repository, &options, &Silent).unwrap();
    assert_eq!(report.left.len(), 1, "its chunks are needed and nowhere else: {report:?}");
    assert!(findings(&repository).iter().all(|f| !f.hurts.is_empty()));
    // What the source still has comes back; the rest is named in editions of what lost it.
    backup(&repository, dir.path()).unwrap();
    let report = snapshots::run(
        &repository,
        &SnapshotsOptions { forget: true, ..SnapshotsOptions::default() },
        &Silent,
    );
    assert!(report.unwrap().damaged.iter().all(|d| d.forgotten));
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let last = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert!(last.left.is_empty(), "{last:?}");
    assert_eq!(findings(&repository), [], "a grave ends the search for it");
    assert!(packs::run(&repository, &options, &Silent).is_err(), "and nobody knows it any more");
    drop(history);
}

#[test]
fn a_whole_pack_is_not_condemned() {
    let (repository, memory, _dir, _) = histories();
    let name = names(&memory, &[Area::Packs])[0];
    let options = PacksOptions { packs: vec![pack_of(&name)], ..PacksOptions::default() };
    let report = packs::run(&repository, &options, &Silent).unwrap();
    assert_eq!((report.whole, report.damaged), (vec![name.to_string()], Vec::new()));
    assert!(names(&memory, &[Area::Marks]).is_empty());
}

/// After borg #1920: files rewritten empty, and every check passed; here what was restorable is compared byte by byte.
#[test]
fn an_edition_names_what_is_lost_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lost"), noise("lost", 60_000)).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let victims = names(&memory, &[Area::Packs]);
    std::fs::write(dir.path().join("kept"), noise("kept", 60_000)).unwrap();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    for victim in victims {
        memory.overwrite(victim, None);
    }
    let before = restorable(&repository, &old);
    let dry = SnapshotsOptions { dry_run: true, ..SnapshotsOptions::default() };
    let objects = memory.snapshot();
    let report = snapshots::run(&repository, &dry, &Silent).unwrap();
    assert!(report.damaged.iter().all(|d| d.fate == Fate::Found) && memory.snapshot() == objects);
    let report = repair_snapshots(&repository);
    assert_eq!((report.checked, report.damaged.len()), (2, 2), "{report:?}");
    let fate = &report.damaged.iter().find(|d| d.id == old.id).unwrap().fate;
    let Fate::Edition(id) = fate else { panic!("{report:?}") };
    let all = alive(&repository);
    let edition = all.iter().find(|s| s.id == *id).unwrap();
    assert!(all.iter().any(|s| s.id == old.id), "the old one stays");
    assert_eq!((edition.origin, edition.start), (Some(old.id), old.start));
    assert_eq!((edition.host.clone(), edition.paths.clone()), (old.host.clone(), old.paths.clone()));
    let [(path, why)] = &edition.errors[..] else { panic!("{:?}", edition.errors) };
    assert!(path.ends_with(b"/lost") && why.contains("its content is lost"), "{why}");
    assert_eq!(restorable(&repository, edition), before);
    let lost = bulla_engine::repository::tree::TreeReader::find(
        &repository,
        &repository.open_index().unwrap(),
        edition.tree,
        &path[1..],
    );
    let lost = lost.unwrap().unwrap();
    assert!(lost.flags.read_error && lost.size() == 60_000, "path, size and metadata stay: {lost:?}");
    let again = repair_snapshots(&repository);
    assert!(again.damaged.iter().all(|d| matches!(d.fate, Fate::HadEdition(_))), "{again:?}");
    // The next backup reads the file again, whatever it compares with.
    let next = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &next).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_lost_node_is_a_gap_and_what_lies_behind_it_has_directories_again() {
    let dir = tempfile::tempdir().unwrap();
    for d in 0..300 {
        let sub = dir.path().join(format!("directory number {d:03}/below"));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join("file"), format!("{d}")).unwrap();
        std::fs::write(sub.join("x".repeat(200)), b"").unwrap();
    }
    let (repository, memory) = in_memory();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let metas = names(&memory, &[Area::Meta]);
    let mut hit = 0;
    for meta in &metas {
        for at in (200..20_000).step_by(400) {
            let memory = copy_of(&memory);
            flip(&memory, meta, at);
            let repository = open(memory.clone(), 77).unwrap();
            let before = restorable(&repository, &old);
            let report = repair_snapshots(&repository);
            let Some(damaged) = report.damaged.first() else { continue };
            if before.is_empty() {
                assert!(matches!(damaged.fate, Fate::Left(_)), "{damaged:?}");
                continue;
            }
            let Fate::Edition(id) = damaged.fate else { panic!("{damaged:?}") };
            assert!(damaged.gaps > 0);
            let edition = alive(&repository).into_iter().find(|s| s.id == id).unwrap();
            let after = restorable(&repository, &edition);
            assert!(before.iter().all(|(path, c)| after.get(path) == Some(c)));
            for path in after.keys() {
                let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
                assert!(parent.is_empty() || after.contains_key(parent), "{}", String::from_utf8_lossy(path));
            }
            assert!(edition.errors.iter().any(|(p, _)| p.ends_with(b" and following")), "{damaged:?}");
            hit += 1;
            if hit == 5 {
                return;
            }
        }
    }
    assert!(hit > 0, "some node was hit");
}

#[test]
fn a_copy_heals_packs_index_runs_and_snapshots() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    let last = history.alive.last().unwrap().0.id;
    for (n, name) in names(&memory, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 3 {
            0 => memory.overwrite(*name, None),
            1 => flip(&memory, name, 500),
            _ => {}
        }
    }
    memory.overwrite(ObjectName::Verdict(last), None);
    let report = heal(&repository, &copy);
    assert!(report.left.is_empty(), "{report:?}");
    assert!(report.put_back.contains(&ObjectName::Verdict(last).to_string()), "{report:?}");
    history.verify(&repository, "after healing from a copy");
    assert_eq!(findings(&repository), []);
    assert!(names(&memory, &[Area::Announcements]).is_empty());
    let again = heal(&repository, &copy);
    assert!(again.healed.is_empty() && again.put_back.is_empty(), "{again:?}");
}

#[test]
fn a_copy_brings_back_nothing_that_was_deleted_or_condemned() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    prune::run(&repository, &at_once(), &Silent).unwrap();
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let pruned = memory.snapshot();
    let report = heal(&repository, &copy);
    assert_eq!(memory.snapshot(), pruned, "an older copy has nothing for a healthy repository: {report:?}");
    let victim = names(&memory, &[Area::Packs])[0];
    let copy = copy_of(&memory);
    memory.overwrite(victim, None);
    mark(&repository, &[pack_of(&victim)], true);
    let report = heal(&repository, &copy);
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(!memory.snapshot().contains_key(&victim));
    drop(history);
}

#[test]
fn a_copy_that_was_pruned_for_itself_buries_nothing_here() {
    let (repository, memory, dir, history) = histories();
    let copy = copy_of(&memory);
    prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    let copied = backup(&open(copy.clone(), 41).unwrap(), dir.path()).unwrap().snapshot.unwrap();
    let report = heal(&repository, &copy);
    assert_eq!(findings(&repository), [], "{report:?}");
    history.verify(&repository, "after a copy with a history of its own");
    let came = alive(&repository).iter().any(|s| s.id == copied.id);
    assert!(!came || contents(&repository, &copied).is_ok(), "{report:?}");
}

#[test]
fn a_snapshot_whose_nodes_are_not_here_is_not_put_back() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    // The newest is lost, and a prune that does not know of it deletes what only it needed.
    let lost = history.alive[1].0.id;
    memory.overwrite(ObjectName::Verdict(lost), None);
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let report = heal(&repository, &copy);
    let object = ObjectName::Verdict(lost);
    assert!(report.left.iter().any(|(o, _)| *o == object.to_string()), "{report:?}");
    assert!(!memory.snapshot().contains_key(&object));
    prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!(contents(&repository, &history.alive[0].0).unwrap(), history.alive[0].1);
}

#[test]
fn only_a_copy_of_the_same_repository_heals() {
    let (repository, _memory, _dir, _) = histories();
    let other = Memory::new();
    let options = ReplicaOptions::default();
    assert!(replica::run(&repository, &other, &options, &Silent).is_err());
    let stranger = Arc::new(Memory::new());
    let made = Repository::init(
        stranger.clone(),
        &crate::support::small(),
        &crate::support::secret(),
        crate::support::env(4242),
    );
    made.unwrap();
    let error = replica::run(&repository, &*stranger, &options, &Silent).unwrap_err().to_string();
    assert!(error.contains("another repository") && error.contains("bulla copy"), "{error}");
}

#[derive(Debug, Clone)]
enum Harm {
    Lose,
    Cut(prop::sample::Index),
    Flip(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = (prop::sample::Index, Harm)> {
    let how = prop_oneof![
        Just(Harm::Lose),
        any::<prop::sample::Index>().prop_map(Harm::Cut),
        any::<prop::sample::Index>().prop_map(Harm::Flip),
        any::<prop::sample::Index>().prop_map(Harm::Flip),
    ];
    (any::<prop::sample::Index>(), how)
}

fn apply(memory: &Memory, harms: &[(prop::sample::Index, Harm)]) {
    let objects = names(memory, &[Area::Packs, Area::Meta, Area::Index]);
    for (which, how) in harms {
        let name = objects[which.index(objects.len())];
        let Some(len) = memory.snapshot().get(&name).map(Vec::len).filter(|len| *len > 0) else { continue };
        match how {
            Harm::Lose => memory.overwrite(name, None),
            Harm::Cut(at) => change(memory, &name, |bytes| bytes.truncate(at.index(len))),
            Harm::Flip(at) => flip(memory, &name, at.index(len)),
        }
    }
}

/// After borg #3444, #1837: a repair discarded files that were there.
#[test]
fn no_repair_shrinks_what_can_be_restored() {
    let (_, base, _dir, _) = histories();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = runner.run(&prop::collection::vec(harm(), 1..6), |harms| {
        let memory = copy_of(&base);
        apply(&memory, &harms);
        let repository = open(memory.clone(), 99).unwrap();
        let mut before = all_restorable(&repository);
        repair_index(&repository);
        let after = all_restorable(&repository);
        assert_no_less(&before, &after, "index");
        before = after;
        repair_packs(&repository);
        assert_no_less(&before, &all_restorable(&repository), "packs");
        let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
        let report = snapshots::run(&repository, &options, &Silent).unwrap();
        for damaged in &report.damaged {
            let Fate::Edition(id) = damaged.fate else { continue };
            let edition = alive(&repository).into_iter().find(|s| s.id == id).unwrap();
            let (old, new) = (&before[&damaged.id], restorable(&repository, &edition));
            prop_assert!(old.iter().all(|(path, c)| new.get(path) == Some(c)), "{:?}", damaged);
        }
        assert_no_less(&before, &all_restorable(&repository), "snapshots");
        let again = repair_snapshots(&repository);
        prop_assert!(again.damaged.iter().all(|d| matches!(d.fate, Fate::Left(_))), "{:?}", again);
        // The old ones die; what is left of them lives in their editions. Trees that are lost whole stop a prune.
        let forgotten = repository.forgotten().unwrap();
        before.retain(|id, _| {
            !forgotten.contains_key(id) || alive(&repository).iter().any(|s| s.origin == Some(*id))
        });
        match prune::run(&repository, &at_once(), &Silent) {
            Ok(_) => {}
            Err(e) => prop_assert!(e.is_damage(), "{}", e),
        }
        assert_no_less(&before, &all_restorable(&repository), "prune");
        Ok(())
    });
    run.unwrap();
}

fn nothing(_: &Repository, _: &str) {}

// After borg #5325 (an interrupted repair lost data) and rustic #1731 (a full disk left files that broke the
// repository): every fault at every request of each repair.

#[test]
fn faults_of_repair_index() {
    let world = World::new();
    let base = copy_of(&world.base);
    let forged = forge(&base);
    for name in names(&base, &[Area::Index]) {
        if name != forged {
            base.overwrite(name, None);
        }
    }
    let verb = |r: &Repository| index::run(r, &IndexOptions::default(), &Silent).map(drop);
    let done = |r: &Repository, context: &str| {
        let again = repair_index(r);
        assert!(again.listed.is_empty() && again.removed.is_empty(), "I4: {context}: {again:?}");
    };
    let later = |memory: &Arc<Memory>, context: &str| {
        repair_index(&open(memory.clone(), 700).unwrap());
        invariants(&world, memory, context);
        recovery(&world, memory, context);
    };
    every_state("repair index", &base, verb, |_, _| (), done, later);
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

#[test]
fn faults_of_repair_packs() {
    let world = World::new();
    let base = copy_of(&world.base);
    let victim = newest_pack(&world);
    flip(&base, &victim, 1000);
    // One that loses nothing but its directory.
    let other = names(&base, &[Area::Packs]).into_iter().find(|n| *n != victim).unwrap();
    change(&base, &other, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let verb = |r: &Repository| packs::run(r, &read_all(), &Silent).map(drop);
    let now = |memory: &Arc<Memory>, context: &str| {
        assert_no_less(&before, &all_restorable(&open(memory.clone(), 600).unwrap()), context);
    };
    let later = |memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 700).unwrap();
        repair_packs(&repository);
        assert_no_less(&before, &all_restorable(&repository), context);
        let healed = backup(&repository, world.path()).unwrap().snapshot.unwrap();
        assert_eq!(contents(&repository, &healed).unwrap(), on_disk(world.path()), "{context}");
        recovery(&world, memory, context);
        let left = names(memory, &[Area::Packs]);
        assert!(!left.contains(&victim) && !left.contains(&other), "{context}");
    };
    every_state("repair packs", &base, verb, now, nothing, later);
}

#[test]
fn faults_of_repair_snapshots() {
    let world = World::new();
    let base = copy_of(&world.base);
    base.overwrite(newest_pack(&world), None);
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let id = world.alive[1].0.id;
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    let verb = |r: &Repository| snapshots::run(r, &options, &Silent).map(drop);
    let now = |memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 600).unwrap();
        assert_no_less(&before, &all_restorable(&repository), context);
        let edition = alive(&repository).iter().any(|s| s.origin == Some(id));
        assert!(edition || !repository.forgotten().unwrap().contains_key(&id), "{context}");
    };
    let done = |r: &Repository, context: &str| {
        let report = repair_snapshots(r);
        assert!(report.damaged.is_empty(), "I4: {context}: {report:?}");
    };
    let later = |memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 700).unwrap();
        verb(&repository).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        let editions = alive(&repository).iter().filter(|s| s.origin == Some(id)).count();
        assert_eq!(editions, 1, "{context}: an edition that was made is found again");
        let again = snapshots::run(&repository, &options, &Silent).unwrap();
        assert!(again.damaged.is_empty(), "{context}: {again:?}");
        prune::run(&repository, &at_once(), &Silent).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        assert_no_less(&before, &all_restorable(&repository), context);
        let next = backup(&repository, world.path()).unwrap().snapshot.unwrap();
        assert_eq!(contents(&repository, &next).unwrap(), on_disk(world.path()), "{context}");
    };
    every_state("repair snapshots", &base, verb, now, done, later);
}

#[test]
fn faults_of_healing_from_a_copy() {
    let world = World::new();
    let base = copy_of(&world.base);
    let copy = copy_of(&world.base);
    let all = names(&base, &[Area::Packs, Area::Meta, Area::Index]);
    for (n, name) in all.iter().enumerate() {
        match n % 3 {
            0 => base.overwrite(*name, None),
            1 => flip(&base, name, 500),
            _ => {}
        }
    }
    base.overwrite(ObjectName::Verdict(world.alive[1].0.id), None);
    let options = ReplicaOptions { read_data: true, dry_run: false };
    let verb = |r: &Repository| -> Result<()> { replica::run(r, &*copy, &options, &Silent).map(drop) };
    let done = |r: &Repository, context: &str| {
        let again = heal(r, &copy);
        assert!(again.healed.is_empty() && again.put_back.is_empty(), "I4: {context}: {again:?}");
    };
    let later = |memory: &Arc<Memory>, context: &str| {
        let report = heal(&open(memory.clone(), 700).unwrap(), &copy);
        assert!(report.left.is_empty(), "I5: {context}: {report:?}");
        invariants(&world, memory, context);
        recovery(&world, memory, context);
    };
    every_state("repair packs --from", &base, verb, |_, _| (), done, later);
}
