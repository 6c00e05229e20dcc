//! Every verb of repair in a damaged world. What could be restored before can be restored in every state; doing it again
//! puts right what it can, and then everything is as ever.
//!
//! After borg #5325 (an interrupted repair lost data) and rustic #1731 (a full disk left files that broke the repository).

use super::verbs::Scenario;
use super::world::{World, at_once, backup, open};
use crate::repair::{
    Contents, alive, all_restorable, assert_no_less, change, flip, forge, names, newest_pack, pack_of,
    read_all,
};
use crate::support::copy_of;
use crate::support::forget;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::format::{Area, ObjectName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::repair::index::{self, IndexOptions};
use bulla_engine::repair::packs::{self, PacksOptions};
use bulla_engine::repair::replica::{self, ReplicaOptions};
use bulla_engine::repair::snapshots::{self, SnapshotsOptions};
use bulla_engine::{Error, Result, prune};
use std::collections::BTreeMap;
use std::sync::Arc;

/// An engine's report says what it had to leave; here that is no success.
fn whole(left: bool) -> Result<()> {
    if left { Err(Error::Refused("some of it stays".into())) } else { Ok(()) }
}

/// What can be restored of `world` as it is.
fn restorable(world: &World) -> BTreeMap<RunId, Contents> {
    all_restorable(&open(world.base.clone(), 600).unwrap())
}

/// That nothing less than that can be restored.
fn no_less(world: &World) -> impl Fn(&World, &Arc<Memory>, &str) + Send + Sync + use<> {
    let before = restorable(world);
    move |_, memory, context| {
        let now = all_restorable(&open(memory.clone(), 601).unwrap());
        assert_no_less(&before, &now, &format!("I3: {context}"));
    }
}

fn again(memory: &Arc<Memory>) -> Arc<dyn Backend> {
    memory.clone()
}

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    let mut all = vec![runs(), condemned(), editions(), from_a_copy()];
    all.iter_mut().for_each(|s| (s.believes, s.share) = (true, 12));
    all
}

/// All index runs are lost, and one that no key opens is there.
fn runs() -> Scenario {
    let verb = |_: &World, backend: Arc<dyn Backend>, seed| {
        let report = index::run(&open(backend, seed)?, &IndexOptions::default(), &Silent)?;
        whole(!report.left.is_empty())
    };
    let mut world = World::history(None);
    let forged = forge(&world.base);
    for name in names(&world.base, &[Area::Index]).into_iter().filter(|n| *n != forged) {
        world.base.overwrite(name, None);
    }
    world.mend = Some(Box::new(move |w, memory| verb(w, again(memory), 700)));
    let always = no_less(&world);
    Scenario::new("repair index", world, verb).always(always).done(|_, memory, context| {
        let report =
            index::run(&open(memory.clone(), 500).unwrap(), &IndexOptions::default(), &Silent).unwrap();
        assert!(report.listed.is_empty() && report.removed.is_empty(), "I4: {context}: {report:?}");
    })
}

/// A pack with a bad frame, and one that has lost nothing but its directory. The next backup stores again what was lost.
fn condemned() -> Scenario {
    let verb = |_: &World, backend: Arc<dyn Backend>, seed| {
        packs::run(&open(backend, seed)?, &read_all(), &Silent).map(drop)
    };
    let mut world = World::history(None);
    let victim = newest_pack(&world);
    flip(&world.base, &victim, 1000);
    let other = names(&world.base, &[Area::Packs]).into_iter().find(|n| *n != victim).unwrap();
    change(&world.base, &other, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
    world.mend = Some(Box::new(move |w, memory| {
        verb(w, again(memory), 700)?;
        backup(&open(memory.clone(), 701)?, w.path())?;
        prune::run(&open(memory.clone(), 702)?, &at_once(), &Silent)?;
        let left = names(memory, &[Area::Packs]);
        assert!(!left.contains(&victim) && !left.contains(&other), "they were emptied, and stay");
        Ok(())
    }));
    let always = no_less(&world);
    Scenario::new("repair packs", world, verb).always(always)
}

/// A pack is lost that only the newest snapshot needs, which has to make room for an edition of it.
fn editions() -> Scenario {
    let verb = |_: &World, backend: Arc<dyn Backend>, seed| {
        let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
        whole(!snapshots::run(&open(backend, seed)?, &options, &Silent)?.unreadable.is_empty())
    };
    let mut world = World::history(None);
    let lost = newest_pack(&world);
    world.base.overwrite(lost, None);
    let before = restorable(&world);
    let damaged = world.alive.pop().unwrap();
    let id = damaged.0.id;
    world.other.push(damaged);
    let mut expected = before.clone();
    expected.remove(&world.forgotten());
    world.mend = Some(Box::new(move |w, memory| {
        verb(w, again(memory), 700)?;
        let repository = open(memory.clone(), 701)?;
        let listed = repository.snapshots()?;
        let editions: Vec<RunId> = listed.iter().filter(|s| s.origin == Some(id)).map(|s| s.id).collect();
        let [edition] = editions[..] else {
            return Err(Error::Refused(format!("{} editions", editions.len())));
        };
        prune::run(&repository, &at_once(), &Silent)?;
        assert_no_less(&expected, &all_restorable(&repository), "the damaged one was pruned");
        // The source still has what was lost; the edition goes on lacking it.
        backup(&repository, w.path())?;
        assert_no_less(&expected, &all_restorable(&repository), "a backup later");
        let gone = PacksOptions { packs: vec![pack_of(&lost)], ..PacksOptions::default() };
        packs::run(&repository, &gone, &Silent)?;
        forget(&repository, &edition, true, "test").map(drop)
    }));
    let always = move |_: &World, memory: &Arc<Memory>, context: &str| {
        let repository = open(memory.clone(), 601).unwrap();
        assert_no_less(&before, &all_restorable(&repository), &format!("I3: {context}"));
        let edition = alive(&repository).iter().any(|s| s.origin == Some(id));
        assert!(
            edition || !repository.forgotten().unwrap().contains_key(&id),
            "I3: {context}: forgotten for nothing"
        );
    };
    Scenario::new("repair snapshots", world, verb).always(always).done(move |_, memory, context| {
        let repository = open(memory.clone(), 500).unwrap();
        let report = snapshots::run(&repository, &SnapshotsOptions::default(), &Silent).unwrap();
        assert!(report.damaged.is_empty(), "I4: {context}: {report:?}");
    })
}

/// Packs and index runs are lost or damaged, and a snapshot is lost; a copy of the repository has them all.
fn from_a_copy() -> Scenario {
    let mut world = World::history(None);
    let copy = copy_of(&world.base);
    for (n, name) in names(&copy, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 3 {
            0 => world.base.overwrite(*name, None),
            1 => flip(&world.base, name, 500),
            _ => {}
        }
    }
    world.base.overwrite(ObjectName::Verdict(world.alive[1].0.id), None);
    let other = copy.clone();
    let verb = move |_: &World, backend: Arc<dyn Backend>, seed| {
        let options = ReplicaOptions { read_data: true, dry_run: false };
        let report = replica::run(&open(backend, seed)?, &*copy, &options, &Silent)?;
        whole(!report.left.is_empty())
    };
    let mend = verb.clone();
    world.mend = Some(Box::new(move |w, memory| mend(w, again(memory), 700)));
    let always = no_less(&world);
    Scenario::new("repair packs --from", world, verb).always(always).done(move |_, memory, context| {
        let options = ReplicaOptions { read_data: true, dry_run: true };
        let repository = open(memory.clone(), 500).unwrap();
        let report = replica::run(&repository, &*other, &options, &Silent).unwrap();
        assert!(report.healed.is_empty() && report.put_back.is_empty(), "I4: {context}: {report:?}");
    })
}
