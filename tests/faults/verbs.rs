//! Every verb, each with a world and with what its success promises.

use super::world::*;
use crate::support::forget;
use crate::support::{
    self, contents, copy_of, interrupted, mark, noise, on_disk, options, secret, small, source,
};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::{protect, undelete, unprotect};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::{Repository, keys};
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::{Error, Result, parity};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Verb = Box<dyn Fn(&World, Arc<dyn Backend>, u64) -> Result<()> + Send + Sync>;
type Look = Box<dyn Fn(&World, &Arc<Memory>, &str) + Send + Sync>;

/// A verb in a world.
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) world: World,
    /// What a process of this seed does.
    pub(super) verb: Verb,
    /// What its success promises.
    pub(super) done: Look,
    /// What holds of this verb whatever happened, beyond what holds of all.
    pub(super) always: Look,
    /// It works on what is listed, and nothing is lost if that is not all.
    pub(super) believes: bool,
    /// It writes nothing.
    pub(super) reads: bool,
    /// Of so many sweeps with a second fault CI does one.
    pub(super) share: u64,
}

impl Scenario {
    pub(super) fn new(
        name: &'static str,
        world: World,
        verb: impl Fn(&World, Arc<dyn Backend>, u64) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let nothing = || Box::new(|_: &World, _: &Arc<Memory>, _: &str| {});
        let verb = Box::new(verb);
        Self {
            name,
            world,
            verb,
            done: nothing(),
            always: nothing(),
            believes: false,
            reads: false,
            share: 25,
        }
    }

    pub(super) fn done(mut self, look: impl Fn(&World, &Arc<Memory>, &str) + Send + Sync + 'static) -> Self {
        self.done = Box::new(look);
        self
    }

    pub(super) fn always(
        mut self,
        look: impl Fn(&World, &Arc<Memory>, &str) + Send + Sync + 'static,
    ) -> Self {
        self.always = Box::new(look);
        self
    }

    fn share(mut self, share: u64) -> Self {
        self.share = share;
        self
    }

    fn reads(mut self) -> Self {
        self.reads = true;
        self
    }
}

fn look(memory: &Arc<Memory>) -> Repository {
    open(memory.clone(), 500).unwrap()
}

/// There is a snapshot of the source as it is; what it restores to is judged for all.
pub(super) fn committed(world: &World, memory: &Arc<Memory>, context: &str) {
    let known = |s: &Snapshot| world.alive.iter().chain(&world.other).any(|(k, _)| k.id == s.id);
    let snapshots = look(memory).snapshots().unwrap();
    assert!(snapshots.iter().any(|s| !known(s)), "I2 I4: {context}: success without a snapshot");
}

/// All of them.
pub(super) fn all() -> Vec<Scenario> {
    let mut all = vec![init().share(2)];
    all.extend(backups());
    // Few calls each.
    all.extend(small_objects().into_iter().chain(key_slots()).map(|s| s.share(4)));
    all.extend(prunes());
    all.extend(parities());
    all.extend(super::repairs::all());
    all.extend(readers());
    all
}

fn init() -> Scenario {
    Scenario::new("init", World::empty(), |_, backend, seed| {
        Repository::init(backend, &small(), &secret(), env_of(seed)).map(drop)
    })
    .done(|_, memory, context| {
        let opened = open(memory.clone(), 500);
        let opened = opened.unwrap_or_else(|e| panic!("I4: {context}: {e}"));
        let slots = keys::list(&opened).unwrap().len();
        assert!(slots >= 2, "I4: {context}: {slots} key slots");
    })
}

fn backups() -> Vec<Scenario> {
    let run = |w: &World, backend, seed| backup(&open(backend, seed)?, w.path()).map(drop);
    let mut incremental = World::history(None);
    incremental.write("new", &noise("new", 20_000));
    incremental.write("d/changing", &noise("later", 9_000));
    let mut copies = World::history(None);
    copies.write("copy", &noise("2", 9_000));
    let mut elsewhere = World::history(None);
    elsewhere.write("new", &noise("new", 20_000));
    let away = |w: &World, backend, seed| backup(&open_elsewhere(backend, seed)?, w.path()).map(drop);
    let mut stopped = World::history(None);
    stopped.write("new", &noise("new", 20_000));
    let path = stopped.path().to_path_buf();
    let base = stopped.base.clone();
    stopped.change(|r| assert!(interrupted(r, &base, &path) > 0));
    let mut condemned = World::history(None);
    condemned.write("copy", &noise("2", 9_000));
    let victims = packs(&condemned.base);
    condemned.change(|r| mark(r, &victims, false));
    let mut guarded = World::history(Some(20));
    guarded.write("new", &noise("new", 20_000));
    let all = vec![
        Scenario::new("backup, first", World::fresh(None), run),
        Scenario::new("backup, incremental", incremental, run),
        Scenario::new("backup, nothing changed", World::history(None), run),
        Scenario::new("backup, only copies of what is there", copies, run),
        Scenario::new("backup, another machine", elsewhere, away),
        Scenario::new("backup, after an interrupted one", stopped, run),
        Scenario::new("backup, every pack condemned", condemned, run),
        Scenario::new("backup, with parity", guarded, run),
        Scenario::new("backup, resumed", checkpointed(), eager).share(60),
    ];
    all.into_iter().map(|s| s.done(committed)).collect()
}

/// With checkpoints as often as can be.
fn eager(world: &World, backend: Arc<dyn Backend>, seed: u64) -> Result<()> {
    let options = BackupOptions { checkpoint: Duration::ZERO, ..options() };
    backup::run(&open(backend, seed)?, source(world.path()), &options, &Silent).map(drop)
}

/// A first backup that was killed after it had announced a checkpoint.
fn checkpointed() -> World {
    let mut world = World::fresh(None);
    // More directories than a batch takes.
    for n in 0..70 {
        world.write(&format!("many/{n}/file"), &noise(&n.to_string(), 600));
    }
    let killed = |at| {
        let memory = copy_of(&world.base);
        let faulty = Arc::new(Faulty::new(memory.clone(), at, Fault::Forever));
        let outcome = eager(&world, faulty, 90);
        outcome.is_err().then_some(memory)
    };
    let open = |m: &Arc<Memory>| m.list(Area::Verdicts).unwrap().is_empty();
    let announced = |m: &Arc<Memory>| m.list(Area::Announcements).unwrap().len();
    let base = (0..).map_while(killed).filter(open).max_by_key(announced).unwrap();
    assert!(announced(&base) > 1, "there is a checkpoint");
    world.base = base;
    world
}

fn small_objects() -> Vec<Scenario> {
    let mut forgetful = World::history(None);
    let victim = forgetful.alive.remove(0);
    let id = victim.0.id;
    forgetful.other.insert(0, victim);
    let forgets = Scenario::new("forget", forgetful, move |w, backend, seed| {
        forget(&open(backend, seed)?, &w.forgotten(), true, "test").map(drop)
    })
    .done(move |_, memory, context| {
        let listed = look(memory).snapshots().unwrap();
        assert!(listed.iter().all(|s| s.id != id), "I4: {context}: still listed");
    });
    let undeletes = Scenario::new("undelete", World::history(None), |w, backend, seed| {
        undelete(&open(backend, seed)?, &w.forgotten()).map(drop)
    })
    .done(|w, memory, context| {
        let listed = look(memory).snapshots().unwrap();
        assert!(listed.iter().any(|s| s.origin == Some(w.forgotten())), "I4: {context}: not back");
    });
    let held = |w: &World, memory: &Arc<Memory>| look(memory).held().unwrap().contains(&w.alive[0].0.id);
    let protects = Scenario::new("protect", World::history(None), |w, backend, seed| {
        protect(&open(backend, seed)?, &w.alive[0].0.id, "test")
    })
    .done(move |w, memory, context| assert!(held(w, memory), "I4: {context}: not held"));
    let mut kept = World::history(None);
    let first = kept.alive[0].0.id;
    kept.change(|r| protect(r, &first, "test").unwrap());
    let unprotects = Scenario::new("unprotect", kept, |w, backend, seed| {
        unprotect(&open(backend, seed)?, &w.alive[0].0.id).map(drop)
    })
    .done(move |w, memory, context| assert!(!held(w, memory), "I4: {context}: still held"));
    let setting = Scenario::new("set parity", World::history(None), |_, backend, seed| {
        open(backend, seed)?.set_parity(Some(20))
    })
    .done(|_, memory, context| assert_eq!(look(memory).config().parity, Some(20), "I4: {context}"));
    vec![forgets, undeletes, protects, unprotects, setting]
}

fn opens(memory: &Arc<Memory>, key: u8) -> bool {
    Repository::open(memory.clone(), &spare(key), env_of(600)).is_ok()
}

fn add_key(repository: &Repository, key: u8) -> Result<bulla_engine::format::SlotId> {
    let cost = small().argon2;
    keys::add(repository, keys::kind_of(&spare(key)), &spare(key), "spare", cost)
}

fn key_slots() -> Vec<Scenario> {
    let adds = Scenario::new("key add", World::history(None), |_, backend, seed| {
        add_key(&open(backend, seed)?, 8).map(drop)
    })
    .done(|_, memory, context| assert!(opens(memory, 8), "I4: {context}: the new key does not open"));
    let mut two = World::history(None);
    let mut slot = None;
    two.change(|r| slot = Some(add_key(r, 8).unwrap()));
    let slot = slot.unwrap();
    let removes =
        Scenario::new("key remove", two, move |_, backend, seed| keys::remove(&open(backend, seed)?, &slot))
            .done(|_, memory, context| assert!(!opens(memory, 8), "I4: {context}: the old key still opens"));
    let mut two = World::history(None);
    two.change(|r| _ = add_key(r, 8).unwrap());
    let replaces = Scenario::new("key replace", two, |_, backend, seed| {
        let repository = Repository::open(backend, &spare(8), env_of(seed))?;
        keys::replace(&repository, &spare(9), "new", small().argon2).map(drop)
    })
    .always(|_, memory, context| {
        assert!(opens(memory, 8) || opens(memory, 9), "I1: {context}: neither the old nor the new key opens");
    })
    .done(|_, memory, context| assert!(!opens(memory, 8) && opens(memory, 9), "I4: {context}"));
    vec![adds, removes, replaces]
}

fn prunes() -> Vec<Scenario> {
    let prune = |_: &World, backend, seed| pruned(&open(backend, seed)?);
    let mut clean = World::history(None);
    clean.change(|r| (0..3).for_each(|_| pruned(r).unwrap()));
    clean.other.clear();
    let mut lonely = World::history(None);
    lonely.add_lonely();
    let deletes = |_: &World, backend, seed| {
        let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
        prune::run(&open(backend, seed)?, &unlimited, &Silent).map(drop)
    };
    // The death is written already: nothing is left but to copy.
    let mut copies = World::history(None);
    copies.change(|r| {
        let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
        prune::run(r, &unlimited, &Silent).unwrap();
    });
    copies.other.clear();
    let mut mixed = World::history(None);
    mixed.add_lonely();
    let mut condemned = World::history(None);
    let victims = packs(&condemned.base);
    condemned.change(|r| mark(r, &victims, false));
    let mut stopped = World::history(None);
    stopped.write("new", &noise("new", 20_000));
    let (path, base) = (stopped.path().to_path_buf(), stopped.base.clone());
    stopped.change(|r| assert!(interrupted(r, &base, &path) > 0));
    let mut many = World::fresh(None);
    for n in 0..10 {
        many.write("d/changing", &noise(&n.to_string(), 3_000));
        many.keep();
    }
    assert!(many.base.list(Area::Index).unwrap().len() >= 8, "enough to merge");
    let mut unlisted = World::history(None);
    for (name, _) in unlisted.base.list(Area::Index).unwrap() {
        unlisted.base.overwrite(name, None);
    }
    unlisted.change(|_| {});
    unlisted.mend = Some(Box::new(|_, memory| listed_again(memory)));
    let guarded = World::history(Some(20));
    let merge = |_: &World, backend, seed| {
        let repository = open(backend, seed)?;
        repository.open_index()?.merge(&repository).map(drop)
    };
    let mut runs = World::fresh(None);
    for n in 0..10 {
        runs.write("d/changing", &noise(&n.to_string(), 3_000));
        runs.keep();
    }
    vec![
        Scenario::new("prune, nothing to do", clean, prune),
        Scenario::new("prune, only deletes", lonely, deletes),
        Scenario::new("prune, only copies", copies, prune),
        Scenario::new("prune, mixed", mixed, prune),
        Scenario::new("prune, every pack condemned", condemned, prune),
        Scenario::new("prune, an interrupted backup", stopped, prune),
        Scenario::new("prune, no index", unlisted, prune),
        Scenario::new("prune, with parity", guarded, prune),
        Scenario::new("prune, index runs to merge", many, prune).share(40),
        Scenario::new("merge of the index", runs, merge),
    ]
}

/// As `history`, with one bit of the largest pack wrong.
fn damaged(parity: Option<u8>) -> World {
    let mut world = World::history(parity);
    let pack = |n: &ObjectName| matches!(n, ObjectName::Pack(_));
    let all = world.base.snapshot();
    let (name, mut bytes) = all.into_iter().filter(|(n, _)| pack(n)).max_by_key(|(_, b)| b.len()).unwrap();
    bytes[1000] ^= 1;
    world.base.overwrite(name, Some(bytes));
    world.mend = parity.map(|_| -> Mend { Box::new(|_, memory| healed(memory)) });
    world
}

fn parities() -> Vec<Scenario> {
    let add = |_: &World, backend: Arc<dyn Backend>, _| {
        let report = parity::protect(&*backend, 20, 1, &Silent)?;
        if report.damaged.is_empty() { Ok(()) } else { Err(Error::Refused("some are damaged".into())) }
    };
    let everywhere = |_: &World, memory: &Arc<Memory>, context: &str| {
        let sidecars = memory.list(Area::Parity).unwrap().len();
        assert_eq!(sidecars, packs(memory).len(), "I4: {context}: packs without parity");
    };
    let whole = |_: &World, memory: &Arc<Memory>, context: &str| {
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        let findings = check::run(&look(memory), &options, &Silent).unwrap().findings;
        assert_eq!(findings, [], "I4: {context}: healed, and damaged");
    };
    let heal = |_: &World, backend: Arc<dyn Backend>, _| {
        let options = parity::HealOptions { width: 1, ..parity::HealOptions::default() };
        let report = parity::heal(&*backend, &options, &Silent)?;
        let left = report.unrepairable.is_empty() && report.unprotected == 0;
        if left { Ok(()) } else { Err(Error::Refused("some stay damaged".into())) }
    };
    let drop_all = |_: &World, backend: Arc<dyn Backend>, _| parity::drop_all(&*backend, &Silent).map(drop);
    let mut half = World::history(Some(20));
    let (name, _) = half.base.list(Area::Parity).unwrap()[0];
    half.base.overwrite(name, None);
    half.change(|_| {});
    let mut all = vec![
        Scenario::new("repair parity, packs without", World::history(None), add).done(everywhere),
        Scenario::new("repair parity, some packs without", half, add).done(everywhere),
        Scenario::new("repair parity, a damaged pack", damaged(Some(20)), heal).done(whole).share(1),
        Scenario::new("repair parity, all dropped", World::history(Some(20)), drop_all)
            .done(|_, memory, context| assert_eq!(memory.list(Area::Parity).unwrap(), [], "I4: {context}")),
    ];
    all.iter_mut().for_each(|s| (s.believes, s.share) = (true, s.share.min(8)));
    all
}

fn readers() -> Vec<Scenario> {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let on_record = CheckOptions { record: true, ..options.clone() };
    let on_damage = options.clone();
    let checks =
        move |_: &World, backend, seed| check::run(&open(backend, seed)?, &options, &Silent).map(drop);
    let records =
        move |_: &World, backend, seed| check::run(&open(backend, seed)?, &on_record, &Silent).map(drop);
    // Damage is never clean, and a fault beside it is no excuse.
    let finds = move |_: &World, backend: Arc<dyn Backend>, seed| {
        let report = check::run(&open(backend, seed)?, &on_damage, &Silent)?;
        assert!(!report.findings.is_empty(), "I2: a damaged repository is said to be sound");
        Ok(())
    };
    let browse = |w: &World, backend, seed| {
        let repository = open(backend, seed)?;
        for (snapshot, expected) in &w.alive {
            assert_eq!(&contents(&repository, snapshot)?, expected, "I2");
        }
        Ok(())
    };
    let rehearse = |_: &World, backend, seed| {
        let dry = PruneOptions { dry_run: true, ..at_once() };
        prune::run(&open(backend, seed)?, &dry, &Silent).map(drop)
    };
    let dry_backup = |w: &World, backend, seed| {
        let dry = BackupOptions { dry_run: true, ..support::options() };
        backup::run(&open(backend, seed)?, source(w.path()), &dry, &Silent).map(drop)
    };
    let mut lonely = World::history(None);
    lonely.add_lonely();
    vec![
        Scenario::new("check", World::history(None), checks).reads(),
        Scenario::new("check, on record", World::history(None), records),
        Scenario::new("check, a damaged pack", damaged(None), finds).reads(),
        Scenario::new("read back", World::history(None), browse).reads(),
        Scenario::new("restore", World::history(None), restores).reads(),
        Scenario::new("restore over what is there", World::history(None), restores_over).reads(),
        Scenario::new("prune, rehearsed", lonely, rehearse).reads(),
        Scenario::new("backup, rehearsed", World::history(None), dry_backup).reads(),
    ]
}

fn restores(world: &World, backend: Arc<dyn Backend>, seed: u64) -> Result<()> {
    restore_to(world, tempfile::tempdir().unwrap().path(), backend, seed)
}

/// Over what an older snapshot has left there.
fn restores_over(world: &World, backend: Arc<dyn Backend>, seed: u64) -> Result<()> {
    let target = tempfile::tempdir().unwrap();
    let (older, _) = &world.alive[0];
    restored(&open(world.base.clone(), 700)?, older, target.path())?;
    restore_to(world, target.path(), backend, seed)
}

/// Restores the newest snapshot. If that fails, doing it again where it stopped must succeed.
fn restore_to(world: &World, target: &Path, backend: Arc<dyn Backend>, seed: u64) -> Result<()> {
    let (snapshot, expected) = world.alive.last().unwrap();
    let outcome = open(backend, seed).and_then(|r| restored(&r, snapshot, target));
    if outcome.is_err() {
        restored(&open(world.base.clone(), 800)?, snapshot, target).unwrap();
    }
    let below = format!("{}/", target.to_str().unwrap().trim_start_matches('/'));
    let mut there = on_disk(target);
    there = there.into_iter().filter_map(|(n, d)| Some((n.strip_prefix(&below)?.to_owned(), d))).collect();
    assert_eq!(&there, expected, "I2 I5: restored: {outcome:?}");
    outcome
}

fn restored(repository: &Repository, snapshot: &Snapshot, target: &Path) -> Result<()> {
    let options = RestoreOptions { delete: true, verify: true, ..RestoreOptions::default() };
    let report = restore::run(repository, snapshot, b"", target, &options, &Silent)?;
    if report.complete() { Ok(()) } else { Err(Error::Refused("incomplete".into())) }
}
