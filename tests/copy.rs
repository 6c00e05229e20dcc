//! Copies between repositories with different keys and the same chunk ids.

use crate::beside::Interposed;
use crate::support::{
    backup, contents, copy_of, env, in_memory, noise, on_disk, open, populate, secret, small,
};
use bulla_engine::backend::testing::{Fault, Faulty, Recorder};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::copy::{self, CopyOptions, share_chunks};
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::{Collector, Silent};
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::{Error, prune};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How a target identifies chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ids {
    Same,
    Other,
}

const BOTH: [Ids; 2] = [Ids::Same, Ids::Other];

/// A repository with keys of its own.
fn target(from: &Repository, ids: Ids, store: Arc<dyn Backend>) -> Repository {
    match ids {
        Ids::Same => like(from, store),
        Ids::Other => {
            let chunker = ChunkerParams { min: 1 << 9, avg: 1 << 11, max: 1 << 13 };
            let options = InitOptions { chunker, ..small() };
            Repository::init(store, &options, &secret(), env(70)).unwrap().repository
        }
    }
}

/// A repository like `from`, with keys of its own.
fn like(from: &Repository, store: Arc<dyn Backend>) -> Repository {
    like_of(from, store, 50)
}

/// The same with entropy of its own.
fn like_of(from: &Repository, store: Arc<dyn Backend>, seed: u64) -> Repository {
    let small = small();
    let options = InitOptions {
        data_frame: small.data_frame,
        meta_frame: small.meta_frame,
        data_pack: small.data_pack,
        meta_pack: small.meta_pack,
        ..InitOptions::like(from)
    };
    Repository::init(store, &options, &secret(), env(seed)).unwrap().repository
}

/// Two snapshots of `dir` that share most, with what each holds.
fn two(from: &Repository, dir: &Path) -> Vec<(Snapshot, BTreeMap<String, String>)> {
    populate(dir);
    let first = backup(from, dir).unwrap().snapshot.unwrap();
    let held = on_disk(dir);
    std::fs::write(dir.join("changing"), noise("second", 90_000)).unwrap();
    let second = backup(from, dir).unwrap().snapshot.unwrap();
    vec![(first, held), (second, on_disk(dir))]
}

fn all(from: &Repository) -> Vec<Snapshot> {
    from.snapshots().unwrap()
}

/// A checkpoint whenever there may be one.
fn eager() -> CopyOptions {
    CopyOptions { checkpoint: Duration::ZERO, ..CopyOptions::default() }
}

fn sound(repository: &Repository) {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check::run(repository, &options, &Silent).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

fn packs(memory: &Memory) -> usize {
    memory.list(Area::Packs).unwrap().len() + memory.list(Area::Meta).unwrap().len()
}

#[test]
fn snapshots_are_the_same_trees_under_other_keys_and_a_second_copy_moves_nothing() {
    let ((from, _), dir, there) = (in_memory(), tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    let taken = two(&from, dir.path());
    let to = like(&from, there.clone());
    assert!(
        share_chunks(&from, &to) && from.keyring().roots()[0].expose() != to.keyring().roots()[0].expose()
    );
    let dry =
        copy::run(&from, &to, &all(&from), &CopyOptions { dry_run: true, ..CopyOptions::default() }, &Silent);
    let dry = dry.unwrap();
    assert_eq!((packs(&there), dry.copied.len()), (0, 2), "a dry run writes nothing");
    let report = copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
    assert_eq!((report.copied.len(), report.present.len()), (2, 0));
    assert!((dry.bytes, dry.fetched) == (report.bytes, report.fetched) && report.bytes > 0);
    for (snapshot, held) in &taken {
        let id = report.copied.iter().find(|(s, _)| s.id == snapshot.id).unwrap().1.unwrap();
        let copy = to.snapshots().unwrap().into_iter().find(|s| s.id == id).unwrap();
        assert_eq!((copy.tree, copy.origin, copy.start), (snapshot.tree, Some(snapshot.id), snapshot.start));
        assert_eq!(&contents(&to, &copy).unwrap(), held);
    }
    sound(&to);
    let before = packs(&there);
    let again = copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
    assert_eq!((again.copied.len(), again.present.len(), again.chunks), (0, 2, 0));
    assert_eq!(packs(&there), before);
    // A backup into the target finds the chunks it has already.
    let own = backup(&to, dir.path()).unwrap();
    assert_eq!(own.statistics.data_chunks_new, 0);
}

#[test]
fn only_what_is_new_is_fetched() {
    let ((from, memory), dir, there) = (in_memory(), tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    let taken = two(&from, dir.path());
    let recorder = Arc::new(Recorder::new(memory));
    let from = open(recorder.clone(), 3).unwrap();
    let to = like(&from, there);
    copy::run(&from, &to, &[taken[0].0.clone()], &CopyOptions::default(), &Silent).unwrap();
    recorder.take();
    let second = copy::run(&from, &to, &[taken[1].0.clone()], &CopyOptions::default(), &Silent).unwrap();
    let fetched = recorder.take();
    assert!(second.bytes < 140_000, "{} bytes for a change of 90,000", second.bytes);
    // 90,000 bytes lie in seven frames of 16 KiB at most.
    assert!(fetched.get("get_range packs").copied().unwrap_or(0) <= 8, "{fetched:?}");
}

#[test]
fn the_same_repository_is_refused_in_words() {
    let ((from, memory), dir) = (in_memory(), tempfile::tempdir().unwrap());
    two(&from, dir.path());
    match copy::run(&from, &open(memory, 4).unwrap(), &all(&from), &CopyOptions::default(), &Silent) {
        Err(Error::Refused(text)) => assert!(text.contains("same repository"), "{text}"),
        other => panic!("{:?}", other.map(|r| r.copied.len())),
    }
}

/// A sparse file, attributes too large for a node, a list of chunks: what is not among the usual.
fn odd(dir: &Path) {
    let file = std::fs::File::create(dir.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &noise("a", 5_000), 1 << 20).unwrap();
    file.set_len(3 << 20).unwrap();
    std::fs::write(dir.join("long"), noise("long", 2 << 20)).unwrap();
    std::fs::write(dir.join("again"), noise("long", 2 << 20)).unwrap();
    let _ = rustix::fs::setxattr(
        dir.join("long"),
        "user.large",
        &noise("x", 3_000),
        rustix::fs::XattrFlags::empty(),
    );
}

#[test]
fn other_chunk_ids_are_cut_again_and_hold_the_same() {
    let ((from, memory), dir, there) = (in_memory(), tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    odd(dir.path());
    let taken = two(&from, dir.path());
    let recorder = Arc::new(Recorder::new(memory));
    let from = open(recorder.clone(), 3).unwrap();
    let to = target(&from, Ids::Other, there.clone());
    assert!(!share_chunks(&from, &to));
    copy::run(&from, &to, &[taken[0].0.clone()], &CopyOptions::default(), &Silent).unwrap();
    let report = copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
    assert_eq!((report.copied.len(), report.present.len()), (1, 1));
    for copy in to.snapshots().unwrap() {
        let (snapshot, held) = taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap();
        assert_ne!(copy.tree, snapshot.tree);
        assert_eq!(&contents(&to, &copy).unwrap(), held);
    }
    sound(&to);
    // Chunks are the target's own: its next backup of the same files adds none.
    assert_eq!(backup(&to, dir.path()).unwrap().statistics.data_chunks_new, 0);
}

/// In one go, what did not change is read once.
#[test]
fn what_was_cut_again_for_one_snapshot_is_not_read_for_the_next() {
    let ((from, memory), dir) = (in_memory(), tempfile::tempdir().unwrap());
    let taken = two(&from, dir.path());
    let recorder = Arc::new(Recorder::new(memory));
    let from = open(recorder.clone(), 3).unwrap();
    let fetched = |snapshots: &[Snapshot]| {
        let to = target(&from, Ids::Other, Arc::new(Memory::new()));
        recorder.take();
        copy::run(&from, &to, snapshots, &CopyOptions::default(), &Silent).unwrap();
        recorder.take().get("get_range packs").copied().unwrap_or(0)
    };
    let (one, both) = (fetched(&[taken[0].0.clone()]), fetched(&all(&from)));
    // The change is 90,000 bytes, and the one file that is too long to be remembered 400,000 of 580,000.
    assert!(both < one * 2 - 8, "{one} frames for one, {both} for both");
}

/// More snapshots than are pinned, some of which come back to what was before.
#[test]
fn many_snapshots_are_copied_in_one_go() {
    let ((from, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    populate(dir.path());
    let mut taken = Vec::new();
    for round in 0..25 {
        std::fs::write(dir.path().join("d2/back-and-forth"), noise(&(round % 3).to_string(), 20_000))
            .unwrap();
        taken.push((backup(&from, dir.path()).unwrap().snapshot.unwrap(), on_disk(dir.path())));
    }
    for ids in BOTH {
        let there = Arc::new(Memory::new());
        let recorder = Arc::new(Recorder::new(there.clone()));
        target(&from, ids, there);
        let to = open(recorder.clone(), 90).unwrap();
        recorder.take();
        copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
        let gets = recorder.take().get("get snap").copied().unwrap_or(0);
        // Those that are alive are read for the lineage of each, which a cache spares; the pins add a few.
        assert!(gets < 25 * 25 + 25 * 10, "{ids:?}: {gets} snapshots read");
        for copy in to.snapshots().unwrap() {
            let held = &taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap().1;
            assert_eq!(&contents(&to, &copy).unwrap(), held);
        }
        sound(&to);
    }
}

/// Damage of the source is found on the way: what it hurts is not committed.
#[test]
fn nothing_damaged_is_passed_on() {
    let ((from, memory), dir) = (in_memory(), tempfile::tempdir().unwrap());
    two(&from, dir.path());
    let names: Vec<ObjectName> = memory.list(Area::Packs).unwrap().into_iter().map(|(n, _)| n).collect();
    for name in names {
        let source = copy_of(&memory);
        let mut bytes = source.snapshot()[&name].clone();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        source.overwrite(name, Some(bytes));
        let from = open(source, 6).unwrap();
        for ids in BOTH {
            let to = target(&from, ids, Arc::new(Memory::new()));
            if copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).is_err() {
                for copy in to.snapshots().unwrap() {
                    contents(&to, &copy).unwrap();
                }
            }
            sound(&to);
        }
    }
}

/// Cut off at every operation of the target, as dead processes and lost answers are: whatever is committed is whole, and
/// the next copy finishes.
#[test]
fn a_copy_that_was_cut_off_goes_on() {
    let ((from, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    let taken = two(&from, dir.path());
    let mut struck = 0;
    for ids in BOTH {
        let begun = Arc::new(Memory::new());
        target(&from, ids, begun.clone());
        for fault in [Fault::Forever, Fault::AfterEffect, Fault::Ambiguous, Fault::Twice] {
            for at in (0..).step_by(3) {
                let there = copy_of(&begun);
                let faulty = Arc::new(Faulty::new(there.clone(), at, fault));
                if let Ok(to) = open(faulty.clone(), 60 + at) {
                    let options = if fault == Fault::Forever { eager() } else { CopyOptions::default() };
                    let _ = copy::run(&from, &to, &all(&from), &options, &Silent);
                }
                let to = open(there, 5000 + at).unwrap();
                for copy in to.snapshots().unwrap() {
                    let held = &taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap().1;
                    assert_eq!(&contents(&to, &copy).unwrap(), held, "{ids:?}, {fault:?} at {at}");
                }
                copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
                assert_eq!(to.snapshots().unwrap().len(), 2, "{ids:?}, {fault:?} at {at}");
                sound(&to);
                if !faulty.struck() {
                    break;
                }
                struck += 1;
            }
        }
    }
    assert!(struck > 80, "{struck}");
}

/// What was copied and then forgotten and pruned in the target is copied again, whole.
#[test]
fn a_copy_after_a_prune_of_the_target_is_whole() {
    let ((from, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    let taken = two(&from, dir.path());
    for ids in BOTH {
        let to = target(&from, ids, Arc::new(Memory::new()));
        copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
        for copy in to.snapshots().unwrap() {
            crate::support::forget(&to, &copy.id, true, "test").unwrap();
        }
        let options =
            prune::PruneOptions { max_unused: prune::MaxUnused::Bytes(0), ..prune::PruneOptions::default() };
        for _ in 0..3 {
            prune::run(&to, &options, &Silent).unwrap();
        }
        let report = copy::run(&from, &to, &all(&from), &CopyOptions::default(), &Silent).unwrap();
        assert_eq!(report.copied.len(), 2);
        for copy in to.snapshots().unwrap() {
            let held = &taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap().1;
            assert_eq!(&contents(&to, &copy).unwrap(), held);
        }
        sound(&to);
    }
}

/// A whole prune of the target, or one after all its snapshots were let go, happens between two requests of a copy that
/// relies on what lies there unneeded: what is committed is whole.
#[test]
fn a_prune_of_the_target_inside_a_copy_at_any_request() {
    let ((from, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    let taken = two(&from, dir.path());
    let options = || prune::PruneOptions {
        grace: 0,
        run_expiry: i64::MAX,
        max_unused: prune::MaxUnused::Bytes(0),
        ..prune::PruneOptions::default()
    };
    let let_go = |memory: &Arc<Memory>, seed: u64| {
        let to = open(memory.clone(), seed).unwrap();
        for copy in to.snapshots().unwrap() {
            crate::support::forget(&to, &copy.id, true, "test").unwrap();
        }
        to
    };
    let (mut committed, mut refused) = (0, 0);
    for (ids, all_go) in BOTH.into_iter().flat_map(|ids| [(ids, false), (ids, true)]) {
        let begun = Arc::new(Memory::new());
        let to = target(&from, ids, begun.clone());
        copy::run(&from, &to, &[taken[0].0.clone()], &CopyOptions::default(), &Silent).unwrap();
        let_go(&begun, 400);
        let how = if all_go { eager() } else { CopyOptions::default() };
        for at in 0.. {
            let there = copy_of(&begun);
            let memory = there.clone();
            let hook = move || {
                let to = if all_go { let_go(&memory, 401) } else { open(memory.clone(), 401).unwrap() };
                for _ in 0..2 {
                    prune::run(&to, &options(), &Silent).unwrap();
                }
            };
            let store = Interposed::new(there.clone(), at, hook);
            let context = format!("{ids:?}, all let go: {all_go}, before request {at}");
            let done = open(store.clone(), 402 + at)
                .and_then(|to| copy::run(&from, &to, &all(&from), &how, &Silent));
            match done {
                Ok(_) => committed += 1,
                Err(Error::Voided { .. } | Error::Refused(_)) => refused += 1,
                Err(e) => panic!("{context}: {e}"),
            }
            let to = open(there, 9000 + at).unwrap();
            for copy in to.snapshots().unwrap() {
                let held = &taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap().1;
                assert_eq!(&contents(&to, &copy).unwrap(), held, "{context}");
            }
            sound(&to);
            if !store.struck() {
                break;
            }
        }
    }
    println!("{committed} copies committed, {refused} refused");
    assert!(committed > 100, "{committed}");
}

/// A prune that takes every run for dead at once comes between two requests of a copy: the copy begins again as another run.
#[test]
fn a_copy_that_a_prune_took_for_dead_begins_again() {
    let ((from, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    let taken = two(&from, dir.path());
    let mut again = 0;
    for ids in BOTH {
        let begun = Arc::new(Memory::new());
        target(&from, ids, begun.clone());
        for at in 0.. {
            let there = copy_of(&begun);
            let memory = there.clone();
            let hook = move || {
                let options = prune::PruneOptions { run_expiry: 0, ..prune::PruneOptions::default() };
                let to = open(memory.clone(), 401).unwrap();
                for _ in 0..2 {
                    prune::run(&to, &options, &Silent).unwrap();
                }
            };
            let store = Interposed::new(there.clone(), at, hook);
            let (context, told) = (format!("{ids:?}, before request {at}"), Collector::default());
            open(store.clone(), 402 + at)
                .and_then(|to| copy::run(&from, &to, &all(&from), &eager(), &told))
                .unwrap_or_else(|e| panic!("{context}: {e}"));
            again += told.messages().iter().filter(|text| text.contains("took this copy for dead")).count();
            let to = open(there, 9000 + at).unwrap();
            let copies = to.snapshots().unwrap();
            assert_eq!(copies.len(), taken.len(), "{context}");
            for copy in copies {
                let held = &taken.iter().find(|(s, _)| Some(s.id) == copy.origin).unwrap().1;
                assert_eq!(&contents(&to, &copy).unwrap(), held, "{context}");
            }
            sound(&to);
            if !store.struck() {
                break;
            }
        }
    }
    println!("{again} copies began again");
    assert!(again > 20, "{again}");
}

/// Calls of a recorder whose names begin with one of `words`.
fn count(calls: &BTreeMap<String, u64>, words: &[&str]) -> u64 {
    calls.iter().filter(|(name, _)| words.iter().any(|word| name.starts_with(word))).map(|(_, n)| n).sum()
}

/// 12 MB in small files: many packs.
fn much(dir: &Path) {
    for n in 0..120 {
        std::fs::create_dir_all(dir.join(format!("d{}", n % 6))).unwrap();
        std::fs::write(dir.join(format!("d{}/f{n}", n % 6)), noise(&n.to_string(), 100_000)).unwrap();
    }
}

fn pack_bytes(store: &dyn Backend) -> u64 {
    store.list(Area::Packs).unwrap().iter().map(|(_, size)| size).sum()
}

/// The target dies for ever in the middle of a copy, without a last word. With checkpoints what was moved is listed, without
/// it is found by its packs' own tails: either way the next copy fetches the rest. Where contents are cut again a checkpoint is
/// what spares it reading them again.
#[test]
fn a_copy_that_was_killed_fetches_the_rest_and_little_more() {
    let ((from, memory), dir) = (in_memory(), tempfile::tempdir().unwrap());
    much(dir.path());
    let snapshot = backup(&from, dir.path()).unwrap().snapshot.unwrap();
    let recorder = Arc::new(Recorder::new(memory));
    let from = open(recorder.clone(), 3).unwrap();
    let (always, never) = (Duration::ZERO, Duration::from_secs(9_000));
    for (ids, checkpoint) in [(Ids::Same, always), (Ids::Same, never), (Ids::Other, always)] {
        let context = format!("{ids:?}, a checkpoint after {checkpoint:?}");
        let options = CopyOptions { checkpoint, ..CopyOptions::default() };
        let begun = Arc::new(Memory::new());
        target(&from, ids, begun.clone());
        let fetch = |to: &Repository| {
            recorder.take();
            let done = copy::run(&from, to, &all(&from), &options, &Silent);
            (done.map(|r| r.fetched.requests), count(&recorder.take(), &["get_range packs"]))
        };
        let whole = Arc::new(Faulty::new(copy_of(&begun), u64::MAX, Fault::Forever));
        let to = open(whole.clone(), 60).unwrap();
        let before = whole.operations();
        let (_, all_of_it) = fetch(&to);
        let stored = pack_bytes(&**to.backend());

        // How many operations there are depends on how many checkpoints fit in; a copy of fewer than expected is not killed.
        let (mut operations, mut tries) = (whole.operations() - before, 0);
        let there = loop {
            let there = copy_of(&begun);
            let mortal = Arc::new(Faulty::new(there.clone(), before + operations * 3 / 4, Fault::Forever));
            let killed = open(mortal.clone(), 60).unwrap();
            if fetch(&killed).0.is_err() {
                break there;
            }
            (operations, tries) = (mortal.operations() - before, tries + 1);
            assert!(tries < 5, "{context}: it outlives three quarters of its operations");
        };
        let listed = there.list(Area::Index).unwrap().len();
        let announced = there.list(Area::Announcements).unwrap().len();
        assert!(if checkpoint == always { listed > 5 && announced > 5 } else { listed == 0 }, "{context}");
        assert!(there.list(Area::Verdicts).unwrap().is_empty());

        let done = pack_bytes(&*there);
        let to = open(there.clone(), 61).unwrap();
        let (told, rest) = fetch(&to);
        assert!(told.unwrap() >= rest);
        println!("{context}: {stored} bytes, {done} when it was killed; {all_of_it} fetches, then {rest}");
        let left = all_of_it * stored.saturating_sub(done) / stored;
        // Frames on the border of what was done, and what was under way.
        assert!(rest <= left + all_of_it / 8, "{context}: {rest} fetches, where {left} are left");
        assert!(done > stored / 2, "{context}");
        let copy = to.snapshots().unwrap().remove(0);
        assert_eq!((copy.origin, contents(&to, &copy).unwrap()), (Some(snapshot.id), on_disk(dir.path())));
        sound(&to);
    }
}

/// A dry run says what a copy then does. Fetches are exact in number and bytes, nearby and at a distance, where one carries
/// several frames; what is put is told to a tenth and a pack for each snapshot. Where contents are cut again, fetches
/// are told to a tenth, too, and what is put for a target that has nothing of it yet.
#[test]
fn a_dry_run_says_what_a_copy_will_cost_at_both_ends() {
    let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
    let options = InitOptions { data_pack: 512 << 10, ..small() };
    let from = Repository::init(memory.clone(), &options, &secret(), env(1)).unwrap().repository;
    much(dir.path());
    std::fs::write(dir.path().join("text"), "compressible \n".repeat(90_000)).unwrap();
    two(&from, dir.path());
    for (ids, far) in BOTH.into_iter().flat_map(|ids| [(ids, false), (ids, true)]) {
        let source = if far { Recorder::far(memory.clone()) } else { Recorder::new(memory.clone()) };
        let (source, there) = (Arc::new(source), Arc::new(Memory::new()));
        let from = open(source.clone(), 5).unwrap();
        let ids_of = match ids {
            Ids::Same => InitOptions::like(&from),
            Ids::Other => small(),
        };
        let InitOptions { data_frame, meta_frame, meta_pack, .. } = small();
        let (data_pack, parity) = (512 << 10, Some(10));
        let made = InitOptions { data_frame, meta_frame, meta_pack, data_pack, parity, ..ids_of };
        Repository::init(there.clone(), &made, &secret(), env(70)).unwrap();
        let target = Arc::new(Recorder::new(there));
        let to = open(target.clone(), 71).unwrap();
        let run = |dry_run| {
            source.take();
            target.take();
            let options = CopyOptions { dry_run, ..CopyOptions::default() };
            let report = copy::run(&from, &to, &all(&from), &options, &Silent).unwrap();
            let fetches = count(&source.take(), &["get_range packs", "get_range meta"]);
            let puts = count(&target.take(), &["put packs", "put meta", "put parity", "put index"]);
            (report, fetches, puts)
        };
        let ((dry, _, none), (real, fetches, puts)) = (run(true), run(false));
        let context = format!("{ids:?}, far: {far}");
        println!("{context}: told {:?} and {:?}", dry.fetched, dry.stored);
        println!("{context}: done {:?} and {:?}", real.fetched, real.stored);
        assert_eq!((none, real.fetched.requests, real.stored.objects), (0, fetches, puts), "{context}");
        let near = |told: u64, done: u64, more: u64| told.abs_diff(done) <= done / 10 + more;
        if ids == Ids::Same {
            assert_eq!(
                (dry.fetched, dry.chunks, dry.bytes),
                (real.fetched, real.chunks, real.bytes),
                "{context}"
            );
            assert!(!far || fetches < 80, "{context}: {fetches} fetches of 12 MB and two trees");
        } else {
            assert!(near(dry.fetched.requests, fetches, 0), "{context}");
            assert!(near(dry.fetched.bytes, real.fetched.bytes, 0), "{context}");
        }
        assert!(near(dry.stored.objects, puts, 4), "{context}");
        assert!(near(dry.stored.bytes, real.stored.bytes, 2 * (64 << 10)), "{context}");
    }
}

/// Three repositories copy from each other in all directions: each snapshot is in each of them once.
#[test]
fn what_was_copied_is_not_copied_back_nor_on_by_another_way() {
    let copied = |from: &Repository, to: &Repository| {
        copy::run(from, to, &all(from), &CopyOptions::default(), &Silent).unwrap().copied.len()
    };
    for ids in BOTH {
        let ((a, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
        two(&a, dir.path());
        let b = target(&a, ids, Arc::new(Memory::new()));
        assert_eq!([copied(&a, &b), copied(&b, &a)], [2, 0], "{ids:?}");
        std::fs::write(dir.path().join("of b"), b"b").unwrap();
        backup(&b, dir.path()).unwrap();
        assert_eq!([copied(&b, &a), copied(&a, &b)], [1, 0], "{ids:?}");
        if ids == Ids::Same {
            // By trees, which are the same everywhere.
            let c = like_of(&a, Arc::new(Memory::new()), 99);
            assert_eq!([copied(&a, &c), copied(&b, &c), copied(&c, &a), copied(&c, &b)], [3, 0, 0, 0]);
        }
    }
}
