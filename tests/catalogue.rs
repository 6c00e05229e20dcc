//! Bugs that other backup programs had, and that no other test here would show: `CATALOGUE.md` says which test stands for
//! which.

use crate::support::forget;
use crate::support::{backup, contents, copy_of, in_memory, mark, noise, on_disk, open};
use bulla_engine::Error;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::backup;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::undelete;
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::frame::Compression;
use bulla_engine::format::index::{IndexRecord, IndexRun};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::{Area, IndexName, ObjectName, PackName, RunId};
use bulla_engine::observer::{Event, Observer, Silent};
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::repository::chunks::ChunkReader;
use bulla_engine::repository::index::IndexWriter;
use bulla_engine::repository::pack::{PackSink, PackStream, SealedPack, tail};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

#[test]
fn each_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut named = 0;
    for quoted in include_str!("CATALOGUE.md").split('`').skip(1).step_by(2) {
        let Some((file, test)) = quoted.split_once(".rs::") else { continue };
        let text = std::fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
        assert!(text.contains(&format!("fn {test}(")), "{quoted} is not there");
        named += 1;
    }
    assert!(named > 30, "{named}");
}

fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn sound(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(repository, &options, &Silent).unwrap().findings, []);
}

fn data_packs(memory: &Memory) -> Vec<PackName> {
    let name = |(n, _)| if let ObjectName::Pack(p) = n { Some(p) } else { None };
    memory.list(Area::Packs).unwrap().into_iter().filter_map(name).collect()
}

/// Puts packs and lists them at once.
struct Listed<'r>(&'r Repository, Mutex<IndexWriter<'r>>);

impl PackSink for Listed<'_> {
    fn store(&self, pack: SealedPack) -> bulla_engine::Result<()> {
        self.0.backend().put(&pack.object, &pack.parts())?;
        self.1.lock().unwrap().add(pack.pack, pack.records)
    }
}

/// Stores packs that hold every chunk of `packs` twice.
fn store_doubled(repository: &Repository, packs: &[PackName]) {
    let index = repository.open_index().unwrap();
    let listed = Listed(repository, Mutex::new(IndexWriter::new(repository)));
    let run = RunId::new(repository.env().random());
    let stream = PackStream::new(repository, PackKind::Data, run, Compression::Auto, true, &listed);
    let (mut packer, mut chunks) = (stream.packer().unwrap(), ChunkReader::new(repository, &index));
    for pack in packs {
        let size = repository.backend().stat(&ObjectName::Pack(*pack)).unwrap().unwrap().size;
        let tail = tail::read(repository, PackKind::Data, *pack, size).unwrap();
        for chunk in &tail.directory.chunks {
            let mut bytes = Vec::new();
            chunks.read(ChunkKind::Data, &chunk.id, &mut bytes).unwrap();
            stream.append(&mut packer, [(chunk.id, &bytes[..]), (chunk.id, &bytes[..])]).unwrap();
        }
    }
    stream.finish(&mut packer).unwrap();
    drop(stream);
    listed.1.into_inner().unwrap().flush().unwrap();
}

#[test]
fn a_pack_that_holds_what_is_needed_twice_is_counted_right() {
    let dir = tempfile::tempdir().unwrap();
    // Zeros: one chunk again and again.
    std::fs::write(dir.path().join("zeros"), vec![0; 200_000]).unwrap();
    std::fs::write(dir.path().join("noise"), [noise("a", 20_000), vec![0; 9_000]].concat()).unwrap();
    let expected = on_disk(dir.path());
    for condemn in [false, true] {
        let (repository, memory) = in_memory();
        let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
        let first = data_packs(&memory);
        store_doubled(&repository, &first);
        if condemn {
            mark(&repository, &first, false);
        }
        for round in 0..3 {
            let report = prune::run(&open(memory.clone(), 30 + round).unwrap(), &at_once(), &Silent).unwrap();
            assert!(round < 2 || (report.deleted, report.plan.unused()) == (0, 0), "{report:?}");
            assert_eq!(contents(&repository, &snapshot).unwrap(), expected, "condemned: {condemn}");
        }
        sound(&open(memory, 40).unwrap());
    }
}

fn put_run(repository: &Repository, memory: &Memory, mut run: IndexRun) {
    let strange = ObjectName::Index(IndexName { generation: 0, hash: [1; 32] });
    repository.put_object(&strange, ObjectType::Index, run.encode()).unwrap();
    let bytes = memory.snapshot().remove(&strange).unwrap();
    memory.overwrite(strange, None);
    let hash = *blake3::hash(&bytes).as_bytes();
    memory.overwrite(ObjectName::Index(IndexName { generation: 0, hash }), Some(bytes));
}

#[test]
fn a_pack_whose_records_are_split_over_many_index_runs_keeps_them_all_in_a_merge() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..6 {
        std::fs::write(dir.path().join(format!("f{n}")), noise(&n.to_string(), 30_000)).unwrap();
    }
    let (repository, memory) = in_memory();
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let expected = on_disk(dir.path());
    for (name, _) in memory.list(Area::Index).unwrap() {
        let (body, _) = repository.get_object(&name, ObjectType::Index).unwrap();
        let whole = IndexRun::decode(&body).unwrap();
        memory.overwrite(name, None);
        for part in 0..9 {
            let mine = |r: &&IndexRecord| r.offset / 64 % 9 == part || part == 0 && r.offset == 0;
            let records = whole.records.iter().filter(mine).copied().collect();
            let run = IndexRun { records, ..IndexRun::decode(&body).unwrap() };
            put_run(&repository, &memory, run);
        }
    }
    let runs = memory.list(Area::Index).unwrap().len();
    let again = open(memory.clone(), 30).unwrap();
    let merged = again.open_index().unwrap().merge(&again).unwrap();
    assert!(merged.inputs > 7 && memory.list(Area::Index).unwrap().len() < runs, "{merged:?} of {runs}");
    assert_eq!(contents(&again, &snapshot).unwrap(), expected);
    sound(&again);
    prune::run(&again, &at_once(), &Silent).unwrap();
    assert_eq!(contents(&again, &snapshot).unwrap(), expected);
    sound(&again);
}

#[test]
fn forget_undelete_and_forget_again_within_one_tick_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise("file", 20_000)).unwrap();
    // The store's clock stands still for ever.
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &first.id, true, "test").unwrap();
    let second = undelete(&repository, &first.id).unwrap();
    prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!(repository.snapshots().unwrap(), std::slice::from_ref(&second));
    assert_eq!(contents(&repository, &second).unwrap(), on_disk(dir.path()));
    forget(&repository, &second.id, true, "test").unwrap();
    let third = undelete(&repository, &second.id).unwrap();
    forget(&repository, &third.id, true, "test").unwrap();
    assert_eq!(repository.snapshots().unwrap(), []);
    (0..2).for_each(|_| drop(prune::run(&repository, &at_once(), &Silent).unwrap()));
    assert_eq!(data_packs(&memory), []);
    sound(&repository);
}

#[test]
fn a_small_object_cut_at_any_length_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), b"words").unwrap();
    let (repository, memory) = in_memory();
    let id = backup(&repository, dir.path()).unwrap().snapshot.unwrap().id;
    forget(&repository, &id, false, "test").unwrap();
    let mut cuts = 0;
    for (name, bytes) in memory.snapshot() {
        if matches!(name, ObjectName::Pack(_) | ObjectName::Meta(_)) {
            continue;
        }
        cuts += bytes.len();
        for len in 0..bytes.len() {
            memory.overwrite(name, Some(bytes[..len].to_vec()));
            let ty = match name {
                ObjectName::Verdict(_) => ObjectType::Verdict,
                ObjectName::Forget(_) => ObjectType::Forget,
                ObjectName::Index(_) => ObjectType::Index,
                _ => {
                    assert!(check::object(&repository, &name).is_err(), "{name} cut to {len}");
                    continue;
                }
            };
            assert!(repository.get_object(&name, ty).is_err(), "{name} cut to {len}");
        }
        memory.overwrite(name, Some(bytes));
    }
    println!("{cuts} cuts");
}

/// Wants to stop from the `n`-th time it is asked.
struct StopsAt {
    n: u64,
    asked: AtomicU64,
}

impl Observer for StopsAt {
    fn event(&self, _: &Event<'_>) {}
    fn interrupted(&self) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst) >= self.n
    }
}

/// Interrupts `verb` at each place where it asks; the places.
fn interrupted_everywhere(
    base: &Memory,
    verb: impl Fn(&Repository, &dyn Observer) -> bulla_engine::Result<()>,
    after: impl Fn(&Arc<Memory>, bool, &str),
) -> u64 {
    for n in 0.. {
        let (memory, stop) = (copy_of(base), StopsAt { n, asked: AtomicU64::new(0) });
        let outcome = verb(&open(memory.clone(), 50).unwrap(), &stop);
        let context = format!("interrupted when asked for time {n}: {outcome:?}");
        assert!(matches!(outcome, Ok(()) | Err(Error::Interrupted)), "{context}");
        after(&memory, outcome.is_ok(), &context);
        if stop.asked.load(Ordering::SeqCst) <= n {
            assert!(outcome.is_ok(), "{context}");
            return n;
        }
    }
    unreachable!()
}

#[test]
fn a_verb_interrupted_wherever_it_asks_commits_nothing_half() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, seed: &str| std::fs::write(dir.path().join(name), noise(seed, 60_000)).unwrap();
    let (repository, memory) = in_memory();
    write("stays", "stays");
    write("changes", "1");
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let before = on_disk(dir.path());
    write("changes", "2");
    let gone = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &gone.id, true, "test").unwrap();
    write("new", "3");
    let now = on_disk(dir.path());
    let whole = |memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 60).unwrap();
        assert_eq!(contents(&repository, &old).unwrap(), before, "{context}");
        sound(&repository);
        repository
    };
    let run = |r: &Repository, path: &Path, stop: &dyn Observer| {
        backup::run(r, crate::support::source(path), &crate::support::options(), stop).map(drop)
    };
    let backups = interrupted_everywhere(
        &memory,
        |r, stop| run(r, dir.path(), stop),
        |memory, done, context| {
            let snapshots = whole(memory, context).snapshots().unwrap();
            let new: Vec<_> = snapshots.iter().filter(|s| s.id != old.id).collect();
            assert_eq!(new.len(), usize::from(done), "{context}");
            for snapshot in new {
                assert_eq!(contents(&open(memory.clone(), 61).unwrap(), snapshot).unwrap(), now, "{context}");
            }
        },
    );
    let prunes = interrupted_everywhere(
        &memory,
        |r, stop| prune::run(r, &at_once(), stop).map(drop),
        |memory, _, context| {
            let repository = whole(memory, context);
            (0..2).for_each(|_| drop(prune::run(&repository, &at_once(), &Silent).unwrap()));
            let third = prune::run(&repository, &at_once(), &Silent).unwrap();
            assert_eq!((third.deleted, third.plan.unused()), (0, 0), "{context}");
            whole(memory, context);
        },
    );
    println!("interrupted: a backup in {backups} places, a prune in {prunes}");
    assert!(backups > 1 && prunes > 1, "{backups} {prunes}");
}
