//! The repositories that faults meet: each small enough for thousands of runs, with what must hold of it afterwards.

use crate::support::forget;
use crate::support::{self, Counted, Manual, copy_of, noise, on_disk, secret, small};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::env::Env;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName, PackName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::parity::{self, HealOptions};
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, LazyLock};

/// What a snapshot must restore to.
pub(crate) type Tree = BTreeMap<String, String>;

/// What puts a repository right, and looks whether it did.
pub(crate) type Mend = Box<dyn Fn(&World, &Arc<Memory>) -> Result<()> + Send + Sync>;

/// A repository, and the source it is of.
pub(crate) struct World {
    pub(crate) base: Arc<Memory>,
    pub(crate) dir: tempfile::TempDir,
    /// What the source holds now.
    pub(crate) now: Tree,
    /// Must be alive, with what each must restore to.
    pub(crate) alive: Vec<(Snapshot, Tree)>,
    /// May be there or not; if so, this is what they are.
    pub(crate) other: Vec<(Snapshot, Tree)>,
    /// There is no repository yet.
    pub(crate) unmade: bool,
    /// Something is damaged; what puts it right.
    pub(crate) mend: Option<Mend>,
}

/// The environment of a process. All of one test run begin at the same moment, so that equal runs store equal bytes.
pub(crate) fn env_of(seed: u64) -> Env {
    static BEGIN: LazyLock<i64> = LazyLock::new(|| support::env(0).clock.now().seconds + 1000);
    let mut env = support::env(seed);
    env.clock = Arc::new(Manual(AtomicI64::new(*BEGIN + i64::try_from(seed).unwrap())));
    env.entropy = Arc::new(Counted::new(seed));
    env.width = 1;
    env
}

/// Opens what a world has.
pub(crate) fn open(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository> {
    Repository::open(backend, &secret(), env_of(seed))
}

/// As [`open`], from another machine.
pub(crate) fn open_elsewhere(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository> {
    let mut env = env_of(seed);
    env.machine = "another-machine".into();
    Repository::open(backend, &secret(), env)
}

/// A second key, and a third.
pub(crate) fn spare(n: u8) -> SlotSecret {
    SlotSecret::Key(Secret::new([n; 32]))
}

pub(crate) fn backup(repository: &Repository, path: &Path) -> Result<Snapshot> {
    let report = support::backup(repository, path)?;
    Ok(report.snapshot.unwrap())
}

pub(crate) fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

pub(crate) fn pruned(repository: &Repository) -> Result<()> {
    prune::run(repository, &at_once(), &Silent).map(drop)
}

/// Puts right what parity can.
pub(crate) fn healed(memory: &Memory) -> Result<()> {
    parity::heal(memory, &HealOptions { width: 1, ..HealOptions::default() }, &Silent).map(drop)
}

/// Lists again what no index run lists.
pub(crate) fn listed_again(memory: &Arc<Memory>) -> Result<()> {
    pruned(&open(memory.clone(), 900)?)
}

pub(crate) fn packs(memory: &Memory) -> Vec<PackName> {
    let name = |(n, _)| match n {
        ObjectName::Pack(p) | ObjectName::Meta(p) => Some(p),
        _ => None,
    };
    [Area::Packs, Area::Meta].into_iter().flat_map(|a| memory.list(a).unwrap()).filter_map(name).collect()
}

impl World {
    /// Nothing at all, and something to back up.
    pub(crate) fn empty() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/noise"), noise("noise", 9_000)).unwrap();
        std::fs::write(dir.path().join("text"), "words ".repeat(500)).unwrap();
        let now = on_disk(dir.path());
        let (alive, other) = (Vec::new(), Vec::new());
        Self { base: Arc::new(Memory::new()), dir, now, alive, other, unmade: true, mend: None }
    }

    /// A repository in which nothing is yet.
    pub(crate) fn fresh(parity: Option<u8>) -> Self {
        let mut world = Self::empty();
        let options = InitOptions { parity, ..small() };
        Repository::init(world.base.clone(), &options, &secret(), env_of(1)).unwrap();
        world.unmade = false;
        world
    }

    /// Three snapshots, the middle one forgotten: rich enough for every kind of pack.
    pub(crate) fn history(parity: Option<u8>) -> Self {
        let mut world = Self::fresh(parity);
        for round in 0..3 {
            world.write("d/changing", &noise(&format!("{round}"), 9_000));
            world.write(&format!("text{round}"), "words ".repeat(500 * round).as_bytes());
            world.keep();
        }
        let middle = world.alive.remove(1);
        world.change(|r| assert!(forget(r, &middle.0.id, true, "test").unwrap()));
        world.other.push(middle);
        world
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The first of those that may go.
    pub(crate) fn forgotten(&self) -> RunId {
        self.other[0].0.id
    }

    /// Writes a file of the source.
    pub(crate) fn write(&mut self, name: &str, bytes: &[u8]) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
        self.now = on_disk(self.path());
    }

    /// Backs up the source as it is; the snapshot must stay.
    pub(crate) fn keep(&mut self) {
        let seed = 10 + self.base.snapshot().len() as u64;
        let snapshot = backup(&open(self.base.clone(), seed).unwrap(), self.path()).unwrap();
        self.alive.push((snapshot, self.now.clone()));
    }

    /// Does something to the repository, as a process of its own.
    pub(crate) fn change(&mut self, work: impl FnOnce(&Repository)) {
        let seed = 100 + self.base.snapshot().len() as u64;
        work(&open(self.base.clone(), seed).unwrap());
        self.base = copy_of(&self.base);
    }

    /// A backup of something else that was forgotten: packs nobody needs, and no copies to be made.
    pub(crate) fn add_lonely(&mut self) {
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("only here"), noise("only here", 30_000)).unwrap();
        let tree = on_disk(other.path());
        let mut lonely = None;
        self.change(|r| {
            let snapshot = backup(r, other.path()).unwrap();
            forget(r, &snapshot.id, true, "test").unwrap();
            lonely = Some(snapshot);
        });
        self.other.push((lonely.unwrap(), tree));
    }

    /// The repository in `memory`; where there was none before and is none now, a new one.
    pub(crate) fn opened(&self, memory: &Arc<Memory>, seed: u64, context: &str) -> Repository {
        match open(memory.clone(), seed) {
            Ok(repository) => repository,
            Err(Error::NoRepository { .. }) if self.unmade => {
                let made = Repository::init(memory.clone(), &small(), &secret(), env_of(seed));
                made.unwrap_or_else(|e| panic!("I5: init again: {context}: {e}")).repository
            }
            Err(e) => panic!("I5: {context}: {e}"),
        }
    }

    /// What this snapshot must restore to. One that nobody knows of is a backup of the source as it is.
    pub(crate) fn expected(&self, snapshot: &Snapshot) -> &Tree {
        let known = self.alive.iter().chain(&self.other);
        let id = snapshot.origin.unwrap_or(snapshot.id);
        known.into_iter().find(|(s, _)| s.id == id).map_or(&self.now, |(_, tree)| tree)
    }
}
