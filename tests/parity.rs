//! Parity: a store without keys heals its packs, within the share and never beyond, and nothing else changes.

use crate::passing::passes_on;
use crate::support::{backup, contents, env, in_memory, noise, on_disk, open, populate, secret, small};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, BackendError, Memory, Result};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName, PackName};
use bulla_engine::observer::{Collector, Silent};
use bulla_engine::parity::{self, HealOptions, HealReport, Mended};
use bulla_engine::repository::{InitOptions, Repository};
use std::sync::Arc;

const SHARD: usize = 64 << 10;

/// A repository with parity and packs of some shards, and what it holds.
fn protected() -> (tempfile::TempDir, Repository, Arc<Memory>) {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    std::fs::write(dir.path().join("more"), noise("more", 3_000_000)).unwrap();
    let memory = Arc::new(Memory::new());
    let options = InitOptions { parity: Some(10), data_pack: 1 << 20, ..small() };
    let repository = Repository::init(memory.clone(), &options, &secret(), env(1)).unwrap().repository;
    backup(&repository, dir.path()).unwrap();
    // Packs of one shard.
    std::fs::write(dir.path().join("little"), "little").unwrap();
    backup(&repository, dir.path()).unwrap();
    (dir, repository, memory)
}

/// What is done to a pack that can lose so many shards.
type Change = fn(&mut Vec<u8>, usize);

fn heal(backend: &dyn Backend) -> HealReport {
    parity::heal(backend, &HealOptions { width: 2, ..HealOptions::default() }, &Silent).unwrap()
}

fn packs(memory: &Memory) -> Vec<(ObjectName, PackName, Vec<u8>)> {
    let pack = |(object, bytes)| match object {
        ObjectName::Pack(name) | ObjectName::Meta(name) => Some((object, name, bytes)),
        _ => None,
    };
    memory.snapshot().into_iter().filter_map(pack).collect()
}

fn sidecars(memory: &Memory) -> usize {
    memory.list(Area::Parity).unwrap().len()
}

/// Damages every pack by `change`, which is given its bytes and how many shards it can lose.
fn damage(memory: &Memory, change: impl Fn(&mut Vec<u8>, usize)) -> usize {
    let all = packs(memory);
    for (object, _, mut bytes) in all.clone() {
        let share = bytes.len().div_ceil(SHARD).div_ceil(10);
        change(&mut bytes, share);
        memory.overwrite(object, Some(bytes));
    }
    all.len()
}

#[test]
fn each_pack_has_a_sidecar_and_what_was_stored_counts_it() {
    let (dir, repository, memory) = protected();
    let all = packs(&memory);
    assert!(all.len() > 2 && all.iter().any(|(_, _, b)| b.len() > 10 * SHARD), "{}", all.len());
    assert_eq!(sidecars(&memory), all.len());
    let report = backup(&repository, dir.path()).unwrap();
    assert_eq!(report.statistics.data_chunks_new, 0);
    std::fs::write(dir.path().join("new"), noise("new", 200_000)).unwrap();
    let before: usize = memory.snapshot().values().map(Vec::len).sum();
    let stored = backup(&repository, dir.path()).unwrap().statistics.stored_bytes;
    let grown = memory.snapshot().values().map(Vec::len).sum::<usize>() - before;
    // Beside packs, sidecars and index run there are the snapshot and the announcements.
    assert!((grown as u64 - 64_000..=grown as u64).contains(&stored), "{stored} {grown}");
    assert_eq!(heal(&*memory).healthy, packs(&memory).len() as u64);
}

#[test]
fn damage_within_the_share_is_healed_without_a_key_and_the_repository_is_as_before() {
    let (dir, repository, memory) = protected();
    let before = memory.snapshot();
    let cases: [Change; 6] = [
        |b, share| {
            let end = b.len().min(share * SHARD);
            b[..end].fill(0);
        },
        |b, share| {
            let from = b.len() - (share - 1) * SHARD - 136;
            b[from..].fill(0xff);
        },
        |b, share| (0..share).for_each(|i| b[i * 2 * SHARD + 4097] ^= 1),
        |b, _| b.truncate(b.len() - 1000),
        |b, _| b.extend([1; 5000]),
        |b, _| {
            let small = b.len() <= SHARD;
            b.rotate_left(usize::from(small));
        },
    ];
    for (number, change) in cases.iter().enumerate() {
        damage(&memory, change);
        let changed = packs(&memory).iter().filter(|(o, _, b)| before[o] != *b).count();
        assert!(changed > 0, "{number}");
        let report = heal(&*memory);
        assert_eq!((report.repaired.len(), report.unrepairable.len()), (changed, 0), "{number}: {report:?}");
        assert!(memory.snapshot() == before, "{number}");
        assert_eq!(report.packs, report.healthy + changed as u64);
    }
    let clean = check::run(
        &repository,
        &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
        &Silent,
    )
    .unwrap();
    assert_eq!(clean.findings, []);
    let snapshot = repository.snapshots().unwrap().pop().unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn damage_beyond_the_share_is_named_and_nothing_is_written() {
    let (_dir, repository, memory) = protected();
    let n = damage(&memory, |b, share| {
        let last = b.len() - 1;
        (0..=share).for_each(|i| b[(i * SHARD).min(last)] ^= 1);
    });
    // A pack of one shard has a whole copy of it.
    let small = packs(&memory).iter().filter(|(_, _, b)| b.len() <= SHARD).count();
    let before = memory.snapshot();
    let report = heal(&*memory);
    assert_eq!((report.repaired.len(), report.unrepairable.len()), (small, n - small), "{report:?}");
    assert!(report.unrepairable.iter().all(|f| f.reason.contains("shards of it are damaged")), "{report:?}");
    let repaired: Vec<String> = report.repaired.iter().map(|m| m.object.clone()).collect();
    for (object, bytes) in memory.snapshot() {
        assert!(before[&object] == bytes || repaired.contains(&object.to_string()), "{object}");
    }
    let checked = check::run(
        &repository,
        &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
        &Silent,
    )
    .unwrap();
    assert!(checked.notices.iter().any(|n| n.contains("bulla repair parity")), "{:?}", checked.notices);
}

#[test]
fn sidecars_are_remade_and_orphans_kept_until_told() {
    let (_dir, _repository, memory) = protected();
    let before = memory.snapshot();
    let all = packs(&memory);
    for (number, (_, name, _)) in all.iter().enumerate() {
        let object = ObjectName::Parity(*name);
        let mut bytes = before[&object].clone();
        let at = bytes.len() * number / all.len();
        bytes[at] ^= 1;
        memory.overwrite(object, Some(bytes));
    }
    let dry = HealOptions { dry_run: true, drop_orphans: true, width: 1 };
    let damaged = memory.snapshot();
    assert_eq!(parity::heal(&*memory, &dry, &Silent).unwrap().remade.len(), all.len());
    assert!(memory.snapshot() == damaged, "a dry run writes nothing");
    assert_eq!(heal(&*memory).remade.len(), all.len());
    assert!(memory.snapshot() == before);

    let (object, name, _) = all[0];
    memory.overwrite(object, None);
    let report = heal(&*memory);
    assert_eq!(report.orphans, [ObjectName::Parity(name).to_string()]);
    assert!(!report.orphans_dropped && memory.stat(&object).unwrap().is_none(), "no pack is made");
    assert_eq!(sidecars(&memory), all.len());
    let told = HealOptions { drop_orphans: true, width: 1, dry_run: false };
    assert!(parity::heal(&*memory, &told, &Silent).unwrap().orphans_dropped);
    assert_eq!(sidecars(&memory), all.len() - 1);
    assert_eq!(heal(&*memory).orphans, [""; 0]);
}

#[test]
fn parity_comes_and_goes_at_any_time() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (mut repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    assert_eq!((sidecars(&memory), heal(&*memory).unprotected), (0, packs(&memory).len() as u64));
    let before = memory.snapshot();

    // Anybody who can reach the store can protect it; damaged packs are not.
    let (object, name, mut bytes) = packs(&memory).remove(0);
    bytes[100] ^= 1;
    memory.overwrite(object, Some(bytes));
    let report = parity::protect(&*memory, 3, 2, &Silent).unwrap();
    assert_eq!((report.made as usize, report.damaged.len()), (packs(&memory).len() - 1, 1));
    assert!(memory.stat(&ObjectName::Parity(name)).unwrap().is_none());
    let unrepairable = heal(&*memory).unrepairable;
    assert!(unrepairable[0].reason.contains("no parity"), "{unrepairable:?}");
    memory.overwrite(object, Some(before[&object].clone()));
    let again = parity::protect(&*memory, 3, 1, &Silent).unwrap();
    assert_eq!((again.made, again.had as usize), (1, packs(&memory).len() - 1));
    assert!(parity::protect(&*memory, 0, 1, &Silent).is_err());

    // Later backups follow the setting, which is a new generation of the config.
    std::fs::write(dir.path().join("off"), noise("off", 100_000)).unwrap();
    backup(&repository, dir.path()).unwrap();
    assert!(sidecars(&memory) < packs(&memory).len());
    let mut other = open(memory.clone(), 9).unwrap();
    repository.set_parity(Some(5)).unwrap();
    repository.set_parity(Some(5)).unwrap();
    assert_eq!((repository.config().generation, repository.config().parity), (1, Some(5)));
    assert!(other.set_parity(Some(7)).is_err(), "another was faster");
    assert!(repository.set_parity(Some(101)).is_err());
    parity::protect(&*memory, 5, 2, &Silent).unwrap();
    let repository = open(memory.clone(), 10).unwrap();
    assert_eq!(repository.config().parity, Some(5));
    std::fs::write(dir.path().join("on"), noise("on", 100_000)).unwrap();
    backup(&repository, dir.path()).unwrap();
    assert_eq!(sidecars(&memory), packs(&memory).len());
    let clean = check::run(
        &repository,
        &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
        &Silent,
    )
    .unwrap();
    assert_eq!(clean.findings, []);

    let dropped = parity::drop_all(&*memory, &Silent).unwrap();
    assert_eq!((dropped.sidecars as usize, sidecars(&memory)), (packs(&memory).len(), 0));
    parity::drop_of(&*memory, &name).unwrap();
    assert!(before.iter().all(|(object, bytes)| memory.snapshot()[object] == *bytes), "only sidecars went");
    let stop = Collector::default();
    stop.stop();
    assert!(parity::protect(&*memory, 3, 2, &stop).is_err() && sidecars(&memory) == 0);
}

#[test]
fn whatever_fails_meanwhile_a_second_heal_finishes() {
    let (_dir, _repository, memory) = protected();
    let before = memory.snapshot();
    let harm = || {
        damage(&memory, |b, _| b[10] ^= 1);
        let (_, name, _) = packs(&memory).remove(1);
        let sidecar = ObjectName::Parity(name);
        let mut bytes = before[&sidecar].clone();
        bytes[..100].fill(0);
        memory.overwrite(sidecar, Some(bytes));
    };
    for fault in [Fault::Once, Fault::Forever, Fault::AfterEffect, Fault::NoSpace] {
        for at in 0.. {
            harm();
            let faulty = Faulty::new(memory.clone(), at, fault);
            let _ = parity::heal(&faulty, &HealOptions { width: 1, ..HealOptions::default() }, &Silent);
            for (object, bytes) in memory.snapshot() {
                let ours = matches!(object.area(), Area::Packs | Area::Meta | Area::Parity);
                assert!(ours || before[&object] == bytes, "{object}");
            }
            heal(&*memory);
            assert!(memory.snapshot() == before, "{fault:?} {at}");
            if !faulty.struck() {
                break;
            }
        }
    }
}

/// A medium with unreadable places: whole reads and ranges that meet one give an error.
struct Scratched {
    inner: Arc<Memory>,
    object: ObjectName,
    places: Vec<u64>,
}

impl Scratched {
    fn check(&self, name: &ObjectName, from: u64, len: u64) -> Result<()> {
        let hit =
            *name == self.object && self.places.iter().any(|p| (from..from.saturating_add(len)).contains(p));
        let source = std::io::Error::other("medium error");
        let (object, place) = (name.to_string(), "a scratched disk".into());
        if hit { Err(BackendError::Io { verb: "read", object, place, source }) } else { Ok(()) }
    }
}

impl Backend for Scratched {
    passes_on!(describe conditional_put put flush list stat delete heal);
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.check(name, 0, u64::MAX)?;
        self.inner.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.check(name, offset, len as u64)?;
        self.inner.get_range(name, offset, len)
    }
}

#[test]
fn places_that_cannot_be_read_are_damage_like_any_other() {
    let (_dir, _repository, memory) = protected();
    let before = memory.snapshot();
    let (object, name, bytes) = packs(&memory).into_iter().max_by_key(|(_, _, b)| b.len()).unwrap();
    let share = bytes.len().div_ceil(SHARD).div_ceil(10);
    assert!(share > 1);
    let places = |n: usize| (0..n as u64).map(|i| i * 3 * SHARD as u64 + 7).collect::<Vec<_>>();
    for object in [object, ObjectName::Parity(name)] {
        // Zeros where it cannot be read: nothing is right there by accident.
        let disk = Scratched { inner: memory.clone(), object, places: places(share) };
        let report = heal(&disk);
        assert_eq!(report.unrepairable, [], "{object}");
        let pack = matches!(object, ObjectName::Pack(_));
        let mended = Mended { object: object.to_string(), shards: share as u32 };
        assert_eq!(report.repaired, if pack { vec![mended] } else { vec![] });
        assert_eq!(report.remade.len(), usize::from(!pack));
        assert!(memory.snapshot() == before);
    }
    let report = heal(&Scratched { inner: memory.clone(), object, places: places(share + 1) });
    assert!(report.unrepairable[0].reason.contains("medium error"), "{report:?}");
    assert!(memory.snapshot() == before);
}
