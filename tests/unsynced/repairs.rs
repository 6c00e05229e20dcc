//! Repairs and the loss of power: what could be restored before can be restored after, whatever was not synced, also
//! where a repair goes on behind another one that died.

use super::{Count, EXHAUSTIVE, PAIRS, Watched, at_once, directory, losses, memory_of, report};
use crate::faults::world::World;
use crate::repair::{all_restorable, assert_no_less, damaged, flip, names, newest_pack, unforgotten};
use crate::support::{contents, copy_of, on_disk, open};
use bulla_engine::Result;
use bulla_engine::backend::testing::{Fault, Faulty, Journal};
use bulla_engine::backend::{Local, Memory};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune;
use bulla_engine::repair::index::{self, IndexOptions};
use bulla_engine::repair::packs::{self, PacksOptions};
use bulla_engine::repair::replica::{self, ReplicaOptions};
use bulla_engine::repair::snapshots::{self, SnapshotsOptions};
use bulla_engine::repository::Repository;
use std::sync::Arc;

type Verb<'v> = &'v dyn Fn(&Repository) -> Result<()>;

/// `first` dies at each of its requests in turn, `second` goes on behind it, then the power goes. Without `first`, the
/// power goes inside `second`.
fn behind(
    name: &str,
    base: &Arc<Memory>,
    first: Option<Verb<'_>>,
    second: impl Fn(&Repository) -> Result<()>,
    done: impl Fn(&Arc<Memory>, &str) + Sync,
) {
    let before = unforgotten(&open(base.clone(), 6).unwrap());
    let objects = base.snapshot();
    let mut count = Count::default();
    for at in 0.. {
        let (_dir, root) = directory(&objects);
        let journal = Journal::default();
        let mut struck = false;
        if let Some(first) = first {
            let local = Arc::new(Local::recorded(&root, journal.clone()));
            let faulty = Arc::new(Faulty::new(local, at, Fault::AfterEffect));
            let _ = open(faulty.clone(), 3).and_then(|r| first(&r));
            struck = faulty.struck();
        }
        let from = journal.lock().unwrap().len();
        let local = Arc::new(Local::recorded(&root, journal.clone()));
        let context = format!("{name}, the first dies at request {at}");
        second(&open(local, 4).unwrap()).unwrap_or_else(|e| panic!("{context}: {e}"));
        let steps = std::mem::take(&mut *journal.lock().unwrap());
        let look = |left: &super::Left, returned: bool, recover: bool, context: &str| {
            let memory = memory_of(left);
            assert_no_less(&before, &all_restorable(&open(memory.clone(), 9).unwrap()), context);
            if returned {
                done(&memory, context);
            }
            if returned || recover {
                let repository = open(memory.clone(), 10).unwrap();
                for _ in 0..2 {
                    let _ = prune::run(&repository, &at_once(), &Silent);
                }
                assert_no_less(
                    &before,
                    &all_restorable(&repository),
                    &format!("two prunes later, {context}"),
                );
            }
        };
        let exhaustive = if first.is_some() { PAIRS } else { EXHAUSTIVE };
        let (root, base) = (root.as_path(), &objects);
        losses(&Watched { name: &context, root, base, steps: &steps, from, exhaustive }, &mut count, &look);
        if !struck {
            break;
        }
    }
    report(name, &count);
}

fn nothing(_: &Arc<Memory>, _: &str) {}

fn packs(repository: &Repository) -> Result<()> {
    let options = PacksOptions { read_data: true, ..PacksOptions::default() };
    packs::run(repository, &options, &Silent).map(drop)
}

fn editions(repository: &Repository) -> Result<()> {
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    snapshots::run(repository, &options, &Silent).map(drop)
}

#[test]
fn index_and_packs() {
    let world = World::history(None);
    let base = damaged(&world);
    let by_packs = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    let index = |r: &Repository| index::run(r, &by_packs, &Silent).map(drop);
    behind("repair index", &base, None, index, nothing);
    behind("repair packs", &base, None, packs, nothing);
    behind("repair packs behind a dead one", &base, Some(&packs), packs, nothing);
    for name in names(&base, &[Area::Index]) {
        base.overwrite(name, None);
    }
    behind("repair index behind a dead one", &base, Some(&index), index, nothing);
}

/// The edition that a dead repair has committed may not be durable: the old snapshot must not be forgotten for it.
#[test]
fn editions_behind_a_repair_that_died() {
    let world = World::history(None);
    let base = copy_of(&world.base);
    base.overwrite(newest_pack(&world), None);
    behind("repair snapshots", &base, None, editions, nothing);
    behind("repair snapshots behind a dead one", &base, Some(&editions), editions, nothing);
}

/// Packs that a dead repair has put back may not be durable: no snapshot comes back for them.
#[test]
fn healing_behind_a_repair_that_died() {
    let world = World::history(None);
    let (base, copy) = (copy_of(&world.base), copy_of(&world.base));
    let (newest, expected) = world.alive[1].clone();
    base.overwrite(ObjectName::Verdict(newest.id), None);
    for (n, name) in names(&base, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 2 {
            0 => base.overwrite(*name, None),
            _ => flip(&base, name, 500),
        }
    }
    let options = ReplicaOptions { read_data: true, dry_run: false };
    let heal = |r: &Repository| replica::run(r, &*copy, &options, &Silent).map(drop);
    let back = |memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 11).unwrap();
        assert_eq!(contents(&repository, &newest).unwrap(), expected, "{context}");
        assert_eq!(expected, on_disk(world.path()), "{context}");
    };
    behind("repair packs --from", &base, None, heal, back);
    behind("repair packs --from behind a dead one", &base, Some(&heal), heal, back);
}
