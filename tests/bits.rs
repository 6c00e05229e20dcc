//! Every bit of every object of a small repository, flipped one at a time: each flip is reported, none panics.
//!
//! A repository of one small file has 1.4 million bits, nearly all of them padding; a whole `check --read-data` costs a
//! millisecond. So every bit is judged where check decides, and a part of them by the whole check as well:
//!
//! - **Config, key slots, certificates**: `check::object`, which check calls for each. **Snapshots**: `get_object`, with
//!   which it begins to read each.
//! - **Index runs**: `open_index`, with which it begins. A run that does not hash to its name is a finding.
//! - **Packs**: `tail::read_whole`, which it calls for each pack it reads. A refusal is a finding; what follows only asks
//!   which chunks are hurt. That second look parses what may be hostile, so every bit of headers, frames and
//!   trailers, and one in seven of directories, also gets a whole `check --read-data`.
//! - The first bytes of the other objects, and samples everywhere else, get the whole check too: it reports what those
//!   functions refuse.
//!
//! The same on larger repositories by samples: `damage.rs`.

use crate::support::forget;
use crate::support::{backup, env, in_memory, interrupted, mark, secret};
use bulla_engine::backend::Memory;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::protect;
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::pack::{HEADER_LEN, PackKind, TRAILER_LEN};
use bulla_engine::format::parity::Sidecar;
use bulla_engine::format::{Area, ObjectName, PackName};
use bulla_engine::observer::Silent;
use bulla_engine::parity;
use bulla_engine::prune::{self, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::repository::pack::tail;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One bit in so many gets the whole check wherever it lies; prime, so that all offsets and bits are met.
const SAMPLE: usize = 499;
/// A directory is one sealed piece of 4 KiB, most of it padding too.
const DIRECTORY_SAMPLE: usize = 7;
/// Bytes at the beginning of small objects and index runs where every bit does: header, stanza, nonce.
const HEAD: usize = 96;
/// Bits a worker takes at once.
const PORTION: usize = 2048;

/// How a flip is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Judge {
    /// `check --read-data`.
    Check,
    /// The function by which check decides.
    Decisive,
}

/// Some bits of one object.
struct Portion {
    name: ObjectName,
    bits: Range<usize>,
    step: usize,
    judge: Judge,
}

fn mini() -> (tempfile::TempDir, BTreeMap<ObjectName, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"hello hello hello").unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    (dir, memory.snapshot())
}

/// A forgotten snapshot, one that is held, one that died, a mark, a run that died, a record of a check, parity.
fn used() -> (tempfile::TempDir, BTreeMap<ObjectName, Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    let mut taken = Vec::new();
    for round in 0..4 {
        std::fs::write(dir.path().join("a"), format!("hello {round}")).unwrap();
        taken.push(backup(&repository, dir.path()).unwrap().snapshot.unwrap().id);
    }
    protect(&repository, &taken[0], "test").unwrap();
    forget(&repository, &taken[1], true, "test").unwrap();
    prune::run(&repository, &PruneOptions::default(), &Silent).unwrap();
    forget(&repository, &taken[2], false, "test").unwrap();
    let record = CheckOptions { read_data: ReadData::All, record: true, ..CheckOptions::default() };
    check::run(&repository, &record, &Silent).unwrap();
    std::fs::write(dir.path().join("a"), "more").unwrap();
    interrupted(&repository, &memory, dir.path());
    mark(&repository, &[PackName::new([9; 32])], false);
    parity::protect(&*memory, 20, 1, &Silent).unwrap();
    (dir, memory.snapshot())
}

/// A copy of its own for each worker.
fn opened(objects: &BTreeMap<ObjectName, Vec<u8>>) -> (Repository, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    objects.iter().for_each(|(name, bytes)| memory.overwrite(*name, Some(bytes.clone())));
    let mut env = env(9);
    env.width = 1;
    (Repository::open(memory.clone(), &secret(), env).unwrap(), memory)
}

/// The bytes of a pack that are its padding frame.
fn padding(repository: &Repository, name: &ObjectName, size: usize) -> Range<usize> {
    let (kind, pack) = match name {
        ObjectName::Pack(p) => (PackKind::Data, *p),
        ObjectName::Meta(p) => (PackKind::Meta, *p),
        _ => panic!("{name} is no pack"),
    };
    let tail = tail::read(repository, kind, pack, size as u64).unwrap();
    let last = tail.directory.frames.last().unwrap();
    assert_eq!(last.raw, 0, "the last frame is padding");
    let sealed: usize = tail.directory.frames.iter().map(|f| f.sealed as usize).sum();
    let end = HEADER_LEN + sealed;
    end - last.sealed as usize..end
}

/// All that is to be flipped.
fn portions(repository: &Repository, objects: &BTreeMap<ObjectName, Vec<u8>>) -> Vec<Portion> {
    let mut all = Vec::new();
    let mut add = |name: ObjectName, bits: Range<usize>, step: usize, judge: Judge| {
        let mut at = bits.start;
        while at < bits.end {
            let end = bits.end.min(at + PORTION * step);
            all.push(Portion { name, bits: at..end, step, judge });
            at = end;
        }
    };
    for (name, bytes) in objects {
        let whole = 0..bytes.len() * 8;
        add(*name, whole.clone(), 1, Judge::Decisive);
        match name {
            ObjectName::Pack(_) | ObjectName::Meta(_) => {
                let padding = padding(repository, name, bytes.len());
                let (from, to) = (padding.start * 8, padding.end * 8);
                add(*name, 0..from, 1, Judge::Check);
                add(*name, from..to, SAMPLE, Judge::Check);
                let trailer = whole.end - TRAILER_LEN * 8;
                add(*name, to..trailer, DIRECTORY_SAMPLE, Judge::Check);
                add(*name, trailer..whole.end, 1, Judge::Check);
            }
            _ => {
                add(*name, 0..HEAD * 8, 1, Judge::Check);
                add(*name, HEAD * 8..whole.end, SAMPLE, Judge::Check);
            }
        }
    }
    all
}

/// True if this repository, one bit of `name` changed to `bad`, is said to be damaged.
fn noticed(repository: &Repository, memory: &Memory, name: &ObjectName, bad: &[u8], judge: Judge) -> bool {
    let whole = |kind, pack| tail::read_whole(repository, kind, pack, bad).is_err();
    match (judge, name) {
        (Judge::Decisive, ObjectName::Pack(pack)) => return whole(PackKind::Data, *pack),
        (Judge::Decisive, ObjectName::Meta(pack)) => return whole(PackKind::Meta, *pack),
        _ => memory.overwrite(*name, Some(bad.to_vec())),
    }
    match (judge, name) {
        (Judge::Decisive, ObjectName::Index(_)) => !repository.open_index().unwrap().failed().is_empty(),
        (Judge::Decisive, ObjectName::Verdict(_)) => {
            repository.get_object(name, ObjectType::Verdict).is_err()
        }
        // Nothing is signed there; what uses a sidecar asks this first, and proves what it made of it by the pack's name.
        (_, ObjectName::Parity(pack)) => Sidecar::parse(bad, pack).map_or(true, |s| !s.intact()),
        (Judge::Decisive, _) => check::object(repository, name).is_err(),
        (Judge::Check, _) => {
            let report = check::run(
                repository,
                &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
                &Silent,
            );
            report.map_or(true, |r| !r.findings.is_empty())
        }
    }
}

#[test]
fn every_bit_of_a_small_repository_matters() {
    let (_dir, objects) = mini();
    flip_all(&objects, &objects);
}

/// One object of each kind that a repository only has after forgets, prunes, checks, and deaths of processes.
#[test]
fn every_bit_of_what_a_used_repository_has_besides_matters() {
    let (_dir, objects) = used();
    let mut chosen: BTreeMap<Area, (ObjectName, Vec<u8>)> = BTreeMap::new();
    let first = mini().1.into_keys().map(|n| n.area()).collect::<Vec<_>>();
    for (name, bytes) in objects.iter().filter(|(name, _)| !first.contains(&name.area())) {
        chosen.entry(name.area()).or_insert_with(|| (*name, bytes.clone()));
    }
    let areas: Vec<Area> = chosen.keys().copied().collect();
    let missing = |a: &&Area| !areas.contains(a) && !first.contains(a);
    assert_eq!(Area::ALL.iter().find(missing), None, "of every area there is an object");
    flip_all(&objects, &chosen.into_values().collect());
}

/// Flips every bit of `chosen` in a repository of `objects`.
fn flip_all(objects: &BTreeMap<ObjectName, Vec<u8>>, chosen: &BTreeMap<ObjectName, Vec<u8>>) {
    let begun = Instant::now();
    let (repository, _) = opened(objects);
    let portions = portions(&repository, chosen);
    let next = AtomicUsize::new(0);
    // By area and judge: flips, and the seconds they took.
    let counts: Mutex<BTreeMap<(String, Judge), (usize, f64)>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let (repository, memory) = opened(objects);
                while let Some(p) = portions.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let (good, started, mut flips) = (&objects[&p.name], Instant::now(), 0);
                    let mut bad = good.clone();
                    for bit in p.bits.clone().step_by(p.step) {
                        bad[bit / 8] ^= 1 << (bit % 8);
                        assert!(
                            noticed(&repository, &memory, &p.name, &bad, p.judge),
                            "{} bit {bit} may be anything",
                            p.name
                        );
                        bad[bit / 8] = good[bit / 8];
                        flips += 1;
                    }
                    memory.overwrite(p.name, Some(good.clone()));
                    let area = p.name.to_string().split('/').next().unwrap().to_owned();
                    let mut counts = counts.lock().unwrap();
                    let count = counts.entry((area, p.judge)).or_default();
                    (count.0, count.1) = (count.0 + flips, count.1 + started.elapsed().as_secs_f64());
                }
                let clean = check::run(
                    &repository,
                    &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
                    &Silent,
                );
                assert_eq!(clean.unwrap().findings, [], "what was flipped was put back");
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    for ((area, judge), (flips, seconds)) in &counts {
        println!("{area:<8} {judge:?}: {flips} bits flipped, all noticed ({seconds:.1} s)");
    }
    let bits: usize = chosen.values().map(|b| b.len() * 8).sum();
    let decided = counts.iter().filter(|((_, judge), _)| *judge == Judge::Decisive);
    let covered: usize = decided.map(|(_, (flips, _))| flips).sum();
    assert_eq!(covered, bits, "every bit once");
    println!("all {bits} bits of {} objects in {:.1} s", chosen.len(), begun.elapsed().as_secs_f64());
}
