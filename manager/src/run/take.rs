//! How a backup comes into its destinations: the source is read once, into the first that takes it (those on this machine
//! before others), and copied from there into the others at once. What may pass by itself (a store out of reach, or busy) is tried again.
//!
//! Kept true: hooks surround the reading, and not the copying; a failure that will not pass is not tried twice.

use super::hooks::{Hooks, Over};
use super::source::{self, Opened};
use super::{Place, Run, Troubles, told};
use crate::outcome::Outcome;
use crate::world::Trouble;
use bulla_engine::Error;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::copy::{self, CopyOptions, several};
use bulla_engine::forget::JOB_TAG;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::repository::Repository;
use bulla_engine::source::Running;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often is looked whether somebody stops a run that waits for a command.
const TICK: Duration = Duration::from_millis(50);

/// A backup that failed: whether the source is to blame, and why.
type Failed = (bool, Trouble);

/// A backup, how its source was read, and an alarm about the store.
type Made = (Snapshot, Outcome, Option<String>);

impl Run<'_> {
    /// Stores the source in all destinations that take it, with the hooks around its reading; how that ended, apart from
    /// what became of single destinations.
    pub(super) fn store(&self, places: &mut [Place], troubles: &mut Troubles) -> Outcome {
        let hooks = Hooks { world: self.world, name: self.name, job: self.job };
        let mut own = Vec::new();
        let (mut outcome, made) = match self.first(places, &hooks, &mut own) {
            Ok((n, outcome)) => (outcome, Some(n)),
            Err(trouble) => {
                let outcome = trouble.outcome;
                own.push(trouble);
                (outcome, None)
            }
        };
        let snapshot = made.and_then(|n| places.get(n)?.made.as_ref()).map(|s| s.id);
        for trouble in hooks.over(Over { outcome, snapshot }) {
            outcome = outcome.and(trouble.outcome);
            own.push(trouble);
        }
        if let Some(n) = made {
            self.spread(n, places, troubles);
        }
        for place in places.iter_mut() {
            if let Some(trouble) = place.failed.take() {
                place.fail(trouble, troubles);
            }
        }
        note(&own, outcome, places);
        troubles.extend(own.into_iter().map(|trouble| (None, trouble)));
        outcome
    }

    /// Reads the source into the first destination that takes it; which that was.
    fn first(
        &self,
        places: &mut [Place],
        hooks: &Hooks<'_>,
        own: &mut Vec<Trouble>,
    ) -> Result<(usize, Outcome), Trouble> {
        let mut ready = false;
        for attempt in 1.. {
            places.iter_mut().for_each(|place| self.open(place));
            if self.world.observer().interrupted() {
                break;
            }
            for n in several::nearest_first(places, near) {
                let Some(place) = places.get_mut(n).filter(|place| place.failed.is_none()) else { continue };
                let Some(repository) = &place.repository else { continue };
                if !std::mem::replace(&mut ready, true) {
                    hooks.before(own)?;
                }
                let opened = source::open(self.world, self.job)?;
                let warning = opened.warning.clone().map(|why| Trouble::new(Outcome::Done, why));
                own.extend(warning.filter(|warning| !own.contains(warning)));
                match self.back_up(repository, opened) {
                    Ok((made, outcome, alarm)) => {
                        self.world.step("backup", &told(&made, &place.name));
                        place.made = Some(made);
                        place.failed = alarm.map(|why| Trouble::new(Outcome::Held, why));
                        return Ok((n, outcome));
                    }
                    // The source's own fault: no other destination would take it.
                    Err((true, trouble)) => return Err(trouble),
                    Err((false, trouble)) => place.failed = Some(trouble),
                }
            }
            if !self.again(attempt, places) {
                break;
            }
        }
        if self.world.observer().interrupted() {
            return Err(Trouble::new(Outcome::Interrupted, "interrupted"));
        }
        Err(Trouble::new(Outcome::Failed, "no destination took the backup"))
    }

    /// Copies from one destination into all others that have not failed for good, at once: none waits for another.
    fn spread(&self, n: usize, places: &mut [Place], troubles: &mut Troubles) {
        let told = Mutex::new(Vec::new());
        for attempt in 1.. {
            places.iter_mut().for_each(|place| self.open(place));
            several::to_others(places, n, |from, to| {
                if to.made.is_none() {
                    let mut own = Vec::new();
                    self.copy(from, to, &mut own);
                    told.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
                }
            });
            if !self.again(attempt, places) {
                break;
            }
        }
        let mut told: Troubles = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        told.sort_by_key(|(place, _)| self.job.to.iter().position(|to| place.as_ref() == Some(&to.value)));
        troubles.extend(told);
    }

    /// Opens a destination that is not open, or has failed, unless that was for good.
    fn open(&self, place: &mut Place) {
        let wanted = match &place.failed {
            Some(trouble) => trouble.passing,
            None => place.repository.is_none(),
        };
        if wanted {
            (place.repository, place.failed) = match self.world.open(&place.name, false) {
                Ok(repository) => (Some(repository), None),
                Err(trouble) => (None, Some(trouble)),
            };
        }
    }

    /// Waits, if there is something that may pass and it has not been tried often enough.
    fn again(&self, attempt: u32, places: &[Place]) -> bool {
        let waits = |place: &&Place| place.failed.as_ref().is_some_and(|trouble| trouble.passing);
        let Some(place) = places.iter().find(waits) else { return false };
        if attempt >= self.job.retry.attempts || self.world.observer().interrupted() {
            return false;
        }
        let chance = u64::from_le_bytes(self.world.env().random());
        let wait = self.job.retry.backoff.seconds(attempt, chance);
        let why = place.failed.as_ref().map_or("", |trouble| &trouble.why);
        self.world.step("retry", &format!("in {wait} s: {}: {why}", place.name));
        self.world.wait(Duration::from_secs(wait));
        !self.world.observer().interrupted()
    }

    /// The snapshot, whether the source was whole, and what is wrong with the store although it took it.
    fn back_up(&self, repository: &Repository, opened: Opened) -> Result<Made, Failed> {
        let options = BackupOptions {
            host: self.world.host(),
            tags: vec![format!("{JOB_TAG}{}", self.name)],
            excludes: opened.excludes,
            ..BackupOptions::default()
        };
        let work = || backup::run(repository, opened.sources, &options, self.world.observer());
        let done = match &opened.running {
            Some(running) => self.unless_stopped(running, work),
            None => work(),
        };
        if self.world.observer().interrupted() && done.is_err() {
            return Err((true, self.judge(Error::Interrupted)));
        }
        if let Some(why) = opened.running.and_then(|r| r.failure()) {
            let why = format!("{why}; nothing was committed");
            return Err((true, Trouble::new(Outcome::Failed, why)));
        }
        let report = done.map_err(|e| {
            // A stream that was not whole is refused by the engine.
            let source = matches!(e, Error::Refused(_)) && opened.device;
            (source, self.judge(e))
        })?;
        let partial = report.statistics.errors > 0 || opened.missing > 0;
        let outcome = if partial { Outcome::Partial } else { Outcome::Done };
        match report.snapshot {
            Some(made) => Ok((made, outcome, report.alarm)),
            None => Err((true, Trouble::new(Outcome::Failed, "no snapshot was made"))),
        }
    }

    /// Does the work, and ends the commands that it reads from as soon as somebody stops the run: one that hangs would be
    /// waited for for ever.
    fn unless_stopped<T>(&self, running: &Running, work: impl FnOnce() -> T) -> T {
        let (done, ended) = channel::<()>();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                    if self.world.observer().interrupted() {
                        return running.stop();
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    fn copy(&self, from: &Place, to: &mut Place, troubles: &mut Troubles) {
        let (Some(source), Some(target), Some(made)) = (&from.repository, &to.repository, &from.made) else {
            return;
        };
        if to.failed.is_some() {
            return;
        }
        // Somebody set it back, or deleted something: that is told, and adding to it makes nothing worse.
        let alarm = target.verify_history().err().filter(|e| !e.may_pass());
        let alarm = alarm.filter(|_| to.outcome == Outcome::Done).map(|e| self.judge(e));
        let copied = || -> bulla_engine::Result<Option<Snapshot>> {
            let newest = self.own(target)?.iter().map(|s| s.start).max();
            // What it missed, oldest first; what it let go by itself does not come back.
            let mut wanted = self.own(source)?;
            wanted.retain(|s| s.id == made.id || newest.is_some_and(|newest| s.start > newest));
            let report = copy::run(source, target, &wanted, &CopyOptions::default(), self.world.observer())?;
            let id = report.copied.iter().find(|(s, _)| s.id == made.id).and_then(|(_, id)| *id);
            Ok(target.snapshots()?.into_iter().find(|s| Some(s.id) == id || s.origin == Some(made.id)))
        };
        let copied = copied();
        if let Some(alarm) = alarm {
            to.fail(alarm, troubles);
        }
        match copied {
            Ok(Some(copy)) => {
                self.world.step("copy", &format!("snapshot {} in {}", copy.id.short(), to.name));
                to.made = Some(copy);
            }
            Ok(None) => to.failed = Some(Trouble::new(Outcome::Failed, "the copy is not there")),
            Err(e) => to.failed = Some(self.judge(e)),
        }
    }
}

/// What lies on this machine takes a backup first: nothing has to be fetched from afar to be copied.
fn near(place: &Place) -> bool {
    place.repository.as_ref().is_some_and(|r| r.backend().describe().local)
}

/// So much of what went wrong with a run is on record beside each copy, in characters.
const NOTED: usize = 1000;

/// What went wrong with the run itself stands beside every copy that has nothing else to say: there is no other place for it
/// on record.
fn note(own: &[Trouble], outcome: Outcome, places: &mut [Place]) {
    let all: Vec<&str> = own.iter().map(|trouble| trouble.why.as_str()).collect();
    let text: String = all.join("; ").chars().take(NOTED).collect();
    for place in places.iter_mut().filter(|place| place.reason.is_empty()) {
        place.reason.clone_from(&text);
        if place.made.is_none() {
            place.outcome = place.outcome.and(outcome);
        }
    }
}
