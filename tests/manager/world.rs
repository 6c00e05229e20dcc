//! A machine with a clock that is set by hand, and stores that can be full, out of reach, or lose things.

use crate::support::{Counted, secret, small};
use bulla_engine::backend::{Backend, BackendError, Capabilities, Put, Result, Stat};
use bulla_engine::env::{Clock, Env};
use bulla_engine::format::ledger::{Fact, Waiver};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::{Event, Observer};
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::{Error, backend};
use bulla_manager::config::{Config, File};
use bulla_manager::outcome::Outcome;
use bulla_manager::world::{Trouble, World};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The clock: stands still until it is set.
#[derive(Default)]
pub(crate) struct Hands(AtomicI64);

impl Hands {
    pub(crate) fn set(&self, to: i64) {
        self.0.store(to, Ordering::SeqCst);
    }
    pub(crate) fn read(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Clock for Hands {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.read(), nanos: 0 }
    }
}

/// A store whose clock is ours, and which can be full or out of reach.
pub(crate) struct Store {
    inner: Arc<dyn Backend>,
    clock: Arc<Hands>,
    /// What its clock is wrong by.
    pub(crate) wrong: AtomicI64,
    pub(crate) full: AtomicBool,
    pub(crate) gone: AtomicBool,
    /// What lies in packs cannot be reached.
    pub(crate) torn: AtomicBool,
    times: Mutex<HashMap<ObjectName, i64>>,
}

impl Store {
    pub(crate) fn new(inner: Arc<dyn Backend>, clock: &Arc<Hands>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            clock: clock.clone(),
            wrong: AtomicI64::new(0),
            full: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            torn: AtomicBool::new(false),
            times: Mutex::default(),
        })
    }

    /// What really holds the objects.
    pub(crate) fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    fn reach(&self) -> Result<&dyn Backend> {
        self.reach_unless(&self.gone)
    }

    fn reach_unless(&self, cut: &AtomicBool) -> Result<&dyn Backend> {
        if cut.load(Ordering::SeqCst) {
            let source = std::io::Error::other("no route to host");
            return Err(BackendError::from_io("reach", "the store".into(), "afar".into(), source));
        }
        Ok(&*self.inner)
    }
}

impl Backend for Store {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.reach()?.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        let inner = self.reach()?;
        if self.full.load(Ordering::SeqCst) {
            return Err(BackendError::NoSpace { object: name.to_string(), place: "the disk".into() });
        }
        let put = inner.put(name, parts)?;
        if put == Put::Created {
            let now = self.clock.read() + self.wrong.load(Ordering::SeqCst);
            self.times.lock().unwrap().insert(*name, now);
        }
        Ok(put)
    }
    fn flush(&self) -> Result<()> {
        self.reach()?.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.reach()?.get(name, limit)
    }
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.reach()?.get_stored(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.reach()?;
        self.reach_unless(&self.torn)?.get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.reach()?.list(area)
    }
    fn list_many(&self, areas: &[Area]) -> Result<Vec<Vec<(ObjectName, u64)>>> {
        self.reach()?.list_many(areas)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        let stat = self.reach()?.stat(name)?;
        let at = self.times.lock().unwrap().get(name).copied();
        Ok(stat.map(|stat| Stat { modified: at.unwrap_or(stat.modified), ..stat }))
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.reach()?.delete(name)
    }
    fn settle(&self) -> Result<()> {
        self.reach()?.settle()
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.reach()?.heal(name, parts)
    }
}

/// The machine.
pub(crate) struct Machine {
    pub(crate) config: Config,
    pub(crate) clock: Arc<Hands>,
    pub(crate) stores: BTreeMap<String, Arc<Store>>,
    env: Env,
    opened: AtomicU64,
    _cache: tempfile::TempDir,
    /// Every step that was told.
    pub(crate) steps: Mutex<Vec<String>>,
    /// How long was waited, and what happens meanwhile.
    pub(crate) waits: Mutex<Vec<u64>>,
    pub(crate) meanwhile: Mutex<Option<Meanwhile>>,
    /// Somebody asks to stop.
    pub(crate) stop: Stop,
}

/// Told how often was waited by then.
pub(crate) type Meanwhile = Box<dyn FnMut(&BTreeMap<String, Arc<Store>>, usize) + Send>;

/// Observes nothing but whether to stop; if there is a number, from so many questions after that on.
#[derive(Default)]
pub(crate) struct Stop(pub(crate) AtomicBool, pub(crate) AtomicU64);

impl Observer for Stop {
    fn event(&self, _: &Event<'_>) {}
    fn interrupted(&self) -> bool {
        let left = self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if left == Ok(1) {
            self.0.store(true, Ordering::SeqCst);
        }
        self.0.load(Ordering::SeqCst)
    }
}

impl Machine {
    /// With repositories of its own in these stores, all of the same chunk ids.
    pub(crate) fn new(text: &str, now: i64, stores: Vec<(&str, Arc<dyn Backend>)>) -> Self {
        let clock = Arc::new(Hands::default());
        clock.set(now);
        let mut env = Env::system("db01", "root");
        env.clock = clock.clone();
        env.entropy = Arc::new(Counted::new(1));
        env.width = 2;
        let cache = tempfile::tempdir().unwrap();
        env.cache = Some(cache.path().join("cache"));
        env.state = Some(cache.path().join("state"));
        let made = stores.into_iter().map(|(name, inner)| (name.to_owned(), Store::new(inner, &clock)));
        let stores: BTreeMap<String, Arc<Store>> = made.collect();
        let mut first: Option<Repository> = None;
        for store in stores.values() {
            let like = first.as_ref().map_or_else(small, |first| InitOptions {
                data_frame: small().data_frame,
                meta_frame: small().meta_frame,
                data_pack: small().data_pack,
                meta_pack: small().meta_pack,
                ..InitOptions::like(first)
            });
            let made = Repository::init(store.clone(), &like, &secret(), env.clone()).unwrap();
            first.get_or_insert(made.repository);
        }
        let mut machine = Self {
            config: Config::default(),
            clock,
            stores,
            env,
            opened: AtomicU64::new(0),
            steps: Mutex::default(),
            waits: Mutex::default(),
            meanwhile: Mutex::default(),
            stop: Stop::default(),
            _cache: cache,
        };
        machine.configure(text);
        machine
    }

    /// Takes another configuration, which has to be sound.
    pub(crate) fn configure(&mut self, text: &str) {
        let read = Config::read(&[File { path: "config.toml".into(), text: text.to_owned() }]);
        assert!(read.is_sound(), "{:#?}", read.mistakes);
        self.config = read.config;
    }

    pub(crate) fn job(&self, name: &str) -> &bulla_manager::config::Job {
        &self.config.jobs[name].value
    }

    pub(crate) fn run(&self, name: &str) -> bulla_manager::run::Report {
        bulla_manager::run::run(self, &self.config, name, self.job(name))
    }

    /// Loses all that this machine remembers.
    pub(crate) fn forget_everything(&self) {
        for dir in [&self.env.cache, &self.env.state].into_iter().flatten() {
            if dir.exists() {
                std::fs::remove_dir_all(dir).unwrap();
            }
        }
    }

    /// Lifts the rules for a job, everywhere.
    pub(crate) fn waive(&self, job: &str, seconds: i64) {
        let until = self.clock.read() + seconds;
        let waiver = Waiver { job: job.into(), host: "db01".into(), reason: "test".into(), until };
        self.stores
            .keys()
            .for_each(|name| self.repository(name).record(&Fact::Waiver(waiver.clone())).unwrap());
    }

    pub(crate) fn repository(&self, name: &str) -> Repository {
        self.open(name, true).map_err(|t| t.why).unwrap()
    }
}

impl World for Machine {
    fn open(&self, destination: &str, fresh: bool) -> std::result::Result<Repository, Trouble> {
        let store = self.stores[destination].clone();
        let mut env = self.env.clone();
        // Another process, with entropy of its own.
        env.entropy = Arc::new(Counted::new(1000 + self.opened.fetch_add(1, Ordering::Relaxed)));
        env.fresh = fresh;
        let opened = store.list(Area::Config).map_err(Error::from);
        opened.and_then(|_| Repository::open(store, &secret(), env)).map_err(|e| self.judge(&e))
    }

    fn open_with(&self, destination: &str, _: &std::path::Path) -> std::result::Result<Repository, Trouble> {
        self.open(destination, true)
    }

    fn judge(&self, error: &Error) -> Trouble {
        let outcome = match error {
            Error::Backend(backend::BackendError::NoSpace { .. }) => Outcome::Capacity,
            Error::Refused(_) => Outcome::Refused,
            Error::RolledBack { .. } => Outcome::Held,
            e if e.is_damage() => Outcome::Damage,
            _ => Outcome::Failed,
        };
        Trouble { passing: error.may_pass(), ..Trouble::new(outcome, error.to_string()) }
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn host(&self) -> String {
        "db01".into()
    }

    fn own_directories(&self) -> Vec<(u64, u64)> {
        Vec::new()
    }

    fn secret_variables(&self) -> Vec<&'static str> {
        Vec::new()
    }

    fn observer(&self) -> &dyn Observer {
        &self.stop
    }

    fn wait(&self, time: Duration) {
        let mut waits = self.waits.lock().unwrap();
        waits.push(time.as_secs());
        if let Some(meanwhile) = self.meanwhile.lock().unwrap().as_mut() {
            meanwhile(&self.stores, waits.len());
        }
    }

    fn step(&self, name: &str, what: &str) {
        self.steps.lock().unwrap().push(format!("{name}: {what}"));
    }
}
