//! A host: a clock nobody can trust, a source that changes, and a hand that types verbs.

use crate::baton::{Reach, Stage};
use crate::model::{Model, Source, read};
use crate::random::{Random, Seeded};
use crate::support;
use crate::support::forget;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::env::{Clock, Env};
use bulla_engine::forget::{protect, undelete, unprotect};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::{Error, Result};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A clock that is years off, and stands still, runs, or jumps.
pub(crate) struct Skewed(Mutex<(i64, u64, Random)>);

impl Skewed {
    pub(crate) fn new(mut random: Random) -> Self {
        let years = random.below(20) as i64 - 10;
        let kind = random.below(3);
        Self(Mutex::new((1_800_000_000 + years * 31_557_600, kind, random)))
    }
}

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        let mut clock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, kind, random) = &mut *clock;
        *now += match *kind {
            0 => 0,
            1 => 5,
            _ => random.below(4_000_000) as i64 - 2_000_000,
        };
        Timestamp { seconds: *now, nanos: 0 }
    }
}

/// One host.
pub(crate) struct Host {
    pub(crate) number: usize,
    pub(crate) stage: Arc<Stage>,
    pub(crate) model: Arc<Mutex<Model>>,
    random: Random,
    entropy: Arc<Seeded>,
    env: Env,
    source: Source,
    /// Of a process that goes on with further verbs, as a service does.
    open: Option<Repository>,
}

const DAY: i64 = 24 * 3600;

impl Host {
    /// Host `number`; `entropy` is another's where a virtual machine was cloned.
    pub(crate) fn new(
        number: usize,
        seed: u64,
        machine: usize,
        entropy: usize,
        stage: Arc<Stage>,
        model: Arc<Mutex<Model>>,
        directory: &Path,
    ) -> Self {
        let mut env = Env::system(format!("machine-{machine}"), "tester");
        env.clock = Arc::new(Skewed::new(Random::new(seed, 100 + number as u64)));
        let entropy = Arc::new(Seeded(seed << 8 | entropy as u64, AtomicU64::new(0)));
        env.entropy = entropy.clone();
        env.width = 1;
        let random = Random::new(seed, 200 + number as u64);
        let source = Source::new(directory.join(format!("host-{number}")));
        Self { number, stage, model, random, entropy, env, source, open: None }
    }

    /// Types `verbs` verbs; a crash ends one, and maybe the host.
    pub(crate) fn run(mut self, verbs: u64) {
        self.stage.begin(self.number);
        for verb in 1..=verbs {
            // How much the threads of a verb that fails still draw is not repeatable; what the next one draws is.
            self.entropy.1.store(verb << 32, Ordering::Relaxed);
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.verb()));
            if done.is_err() {
                self.fail("a panic".into());
            }
            if self.stage.failed() {
                break;
            }
            if self.stage.crashed(self.number) {
                self.open = None;
                if self.random.one_in(2) {
                    break;
                }
                self.stage.restart(self.number);
            }
        }
        drop(self.open.take());
        self.stage.finish(self.number);
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, text: String) {
        self.stage.fail(self.number, text);
    }

    fn note(&self, text: String) {
        self.stage.note(self.number, text);
    }

    fn repository(&mut self) -> Result<Repository> {
        if let Some(open) = self.open.take() {
            return Ok(open);
        }
        let reach = Arc::new(Reach { stage: self.stage.clone(), host: self.number });
        Repository::open(reach, &support::secret(), self.env.clone())
    }

    fn verb(&mut self) {
        let before = self.stage.faults(self.number);
        let number = self.random.below(20);
        let (name, verb): (_, fn(&mut Self, &Repository) -> Result<()>) = match number {
            0..=6 => ("backup", Self::backup),
            7..=10 => ("prune", Self::prune),
            11..=13 => ("forget", Self::forget),
            14 => ("undelete", Self::undelete),
            15 => ("protect", Self::protect),
            16 => ("unprotect", Self::unprotect),
            17 => ("check", Self::check),
            _ => ("read", Self::read),
        };
        self.note(format!("begins {name}"));
        let outcome = self.repository().and_then(|repository| {
            let outcome = verb(self, &repository);
            if self.random.one_in(2) {
                self.open = Some(repository);
            }
            outcome
        });
        let clean = self.stage.faults(self.number) == before && !self.stage.failed();
        let word = match &outcome {
            Ok(()) => "ok".to_owned(),
            Err(_) if !clean => "failed by a fault".to_owned(),
            Err(e) => self.judge(name, e),
        };
        self.note(format!("ends {name}: {}", outcome.map_or_else(|e| e.to_string(), |()| "ok".into())));
        self.model().count(format!("{name}: {word}"));
    }

    /// An error of a verb that met no fault: what others do may refuse it, never more.
    fn judge(&self, verb: &str, e: &Error) -> String {
        let allowed = match (verb, e) {
            (_, Error::Voided { .. }) => "expired by a prune",
            ("prune", Error::Overtaken { .. }) => "overtaken",
            ("backup", Error::Refused(text)) if text.contains("condemned") => "condemned meanwhile",
            ("undelete" | "forget" | "protect", Error::Refused(_)) => "refused",
            _ => {
                self.fail(format!("{verb} failed though nothing went wrong: {e}"));
                "failed"
            }
        };
        allowed.to_owned()
    }

    fn backup(&mut self, repository: &Repository) -> Result<()> {
        self.source.change(&mut self.random);
        let contents = self.source.contents();
        let options = BackupOptions { host: repository.env().machine.clone(), ..BackupOptions::default() };
        let sources = support::source(&self.source.path());
        let report = backup::run(repository, sources, &options, &Silent)?;
        if report.statistics.errors > 0 {
            self.fail(format!("the source could not be read: {report:?}"));
        }
        match report.snapshot {
            Some(snapshot) => {
                self.note(format!("is told of {}", snapshot.id.short()));
                self.model().acknowledge(&snapshot, contents);
            }
            None => self.fail("a backup without a snapshot".into()),
        }
        Ok(())
    }

    fn prune(&mut self, repository: &Repository) -> Result<()> {
        let random = &mut self.random;
        let options = PruneOptions {
            grace: random.pick(&[0, 0, DAY, 7 * DAY]),
            run_expiry: random.pick(&[0, 3600, DAY, i64::MAX]),
            max_unused: random.pick(&[
                MaxUnused::Bytes(0),
                MaxUnused::Bytes(0),
                MaxUnused::Percent(5.0),
                MaxUnused::Unlimited,
            ]),
            max_repack: random.pick(&[None, None, Some(5000)]),
            dry_run: random.one_in(12),
            ..PruneOptions::default()
        };
        self.note(format!("prunes with grace {}, expiry {}", options.grace, options.run_expiry));
        let report = prune::run(repository, &options, &Silent)?;
        for id in &report.died {
            let bound = self.model().promises.get(id).is_some_and(|p| p.binds());
            if bound {
                self.fail(format!("a prune let {} die, which nobody forgot", id.short()));
            }
        }
        if report.lost_chunks > 0 {
            self.fail(format!("a prune finds {} chunks lost", report.lost_chunks));
        }
        self.verify_one();
        Ok(())
    }

    /// After a prune, one promise is looked at past all faults; the others at the end.
    fn verify_one(&mut self) {
        let model = self.model.clone();
        let model = model.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(id) = model.any(&mut self.random, |p| p.binds()) else { return };
        let promise = &model.promises[&id];
        let repository = support::open(self.stage.memory.clone(), 7).unwrap();
        let index = repository.open_index().unwrap();
        match read(&repository, &index, promise.tree) {
            Ok(contents) if contents == promise.contents => {}
            Ok(_) => self.fail(format!("{} restores other bytes than were backed up", id.short())),
            Err(e) => self.fail(format!("{} does not restore: {e}", id.short())),
        }
    }

    fn forget(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.model.clone().lock().unwrap().any(&mut self.random, |p| !p.forgotten) else {
            return Ok(());
        };
        let held = {
            let mut model = self.model();
            let promise = model.promises.get_mut(&id).unwrap();
            promise.doomed = true;
            promise.held
        };
        let now = self.random.one_in(2);
        self.note(format!("forgets {}", id.short()));
        // False: somebody else forgot it, and may still be refused and take it back.
        let own = forget(repository, &id, now, "simulated")?;
        let mut model = self.model();
        let promise = model.promises.get_mut(&id).unwrap();
        promise.forgotten |= own;
        if held && promise.held {
            self.fail(format!("{} was forgotten in spite of its hold", id.short()));
        }
        Ok(())
    }

    fn undelete(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.model.clone().lock().unwrap().any(&mut self.random, |p| p.doomed) else {
            return Ok(());
        };
        self.note(format!("brings back {}", id.short()));
        let back = undelete(repository, &id)?;
        self.note(format!("is told of {}", back.id.short()));
        let mut model = self.model();
        let contents = model.promises[&id].contents.clone();
        model.acknowledge(&back, contents);
        Ok(())
    }

    fn protect(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.model.clone().lock().unwrap().any(&mut self.random, |_| true) else {
            return Ok(());
        };
        self.note(format!("protects {}", id.short()));
        let forgotten = self.model().promises[&id].forgotten;
        protect(repository, &id, "simulated")?;
        if forgotten {
            self.fail(format!("{} was protected though it had been forgotten", id.short()));
        }
        self.model().promises.get_mut(&id).unwrap().held = true;
        Ok(())
    }

    fn unprotect(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.model.clone().lock().unwrap().any(&mut self.random, |p| p.held) else {
            return Ok(());
        };
        self.note(format!("ends the hold of {}", id.short()));
        self.model().promises.get_mut(&id).unwrap().held = false;
        unprotect(repository, &id).map(drop)
    }

    fn check(&mut self, repository: &Repository) -> Result<()> {
        let before = self.stage.faults(self.number);
        let report = check::run(
            repository,
            &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
            &Silent,
        )?;
        if !report.findings.is_empty() && self.stage.faults(self.number) == before && !self.stage.failed() {
            self.fail(format!("a check calls it damage: {:?}", report.findings));
        }
        Ok(())
    }

    fn read(&mut self, repository: &Repository) -> Result<()> {
        let Some(id) = self.model.clone().lock().unwrap().any(&mut self.random, |_| true) else {
            return Ok(());
        };
        self.note(format!("reads {}", id.short()));
        let tree = self.model().promises[&id].tree;
        let outcome = repository.open_index().and_then(|index| read(repository, &index, tree));
        let model = self.model();
        let promise = &model.promises[&id];
        match outcome {
            Ok(contents) if contents == promise.contents => Ok(()),
            Ok(_) => {
                self.fail(format!("{} is read with other bytes than were backed up", id.short()));
                Ok(())
            }
            // It may be gone by now, and what it held with it.
            Err(_) if !promise.binds() => Ok(()),
            Err(e) => Err(e),
        }
    }
}
