//! One run of a job: read the source once, store it in every destination, read back what was stored, look whether it makes
//! sense, put that on record, and only then let go of what is old.
//!
//! Kept true: what goes wrong with one destination keeps none of the others from its copy; nothing is let go that this
//! run's record, durable before, does not account for; whatever happens, what happened is on record where it can be.

pub mod guard;
mod hooks;
pub mod keep;
pub(crate) mod lock;
mod source;
mod take;

use crate::config::{At, Config, Job, Retention, Verify};
use crate::outcome::Outcome;
use crate::world::{Trouble, World, now};
use bulla_engine::Error;
use bulla_engine::backend::BackendError;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::evidence::EVIDENCE_DAYS;
use bulla_engine::forget::{Permit, forget, job_of};
use bulla_engine::format::ledger::{Fact, JobCopy, JobRun, Level, Lock, Pruned, Refused};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{ObjectName, RunId};
use bulla_engine::prune::{self, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::retain;
use bulla_engine::retention::Candidate;
use jiff::tz::TimeZone;
use keep::Judged;

/// A prune is due after so many seconds.
const PRUNE_EVERY: i64 = 7 * 24 * 3600;

/// How a run ended.
#[derive(Debug, Clone)]
pub struct Report {
    /// The record, as it is in every destination that could be reached.
    pub run: JobRun,
    /// How it ended: also with what came after the record.
    pub outcome: Outcome,
    /// What went wrong, each in a sentence, with the destination it is about if it is about one.
    pub troubles: Vec<(Option<String>, Trouble)>,
}

/// A destination in a run.
struct Place {
    name: String,
    repository: Option<Repository>,
    made: Option<Snapshot>,
    /// Why it has no copy as yet.
    failed: Option<Trouble>,
    level: Level,
    outcome: Outcome,
    reason: String,
}

/// Runs a job. Nothing stops half-way without a word: what cannot be done is in the report.
pub fn run(world: &dyn World, config: &Config, name: &str, job: &Job) -> Report {
    let run = Run { world, config, name, job, start: world.env().clock.now() };
    let mut troubles = Vec::new();
    let mut places = run.places();
    let source = run.store(&mut places, &mut troubles);
    let findings = run.look(&places);
    for finding in &findings {
        troubles.push((None, Trouble::new(Outcome::Held, finding.clone())));
    }
    run.prove(&mut places, &mut troubles);
    let mut outcome = source;
    if !findings.is_empty() {
        outcome = outcome.and(Outcome::Held);
    }
    for place in &places {
        outcome = outcome.and(place.outcome.of_one());
    }
    let record = run.record(&places, outcome, findings);
    run.write(&mut places, &record, &mut troubles);
    // What came of the record is in none.
    let mut outcome = Outcome::of(record.outcome);
    outcome = places.iter().fold(outcome, |all, place| all.and(place.outcome.of_one()));
    for place in places.iter().filter(|p| p.made.is_some()) {
        // Where something was lost or is bad nothing goes; what is there is locked all the more.
        let sound = !matches!(place.outcome, Outcome::Held | Outcome::Damage);
        let let_go = || run.promise(place).and_then(|()| run.let_go(place, &record));
        let done = [if sound { let_go() } else { Ok(()) }, run.retain(place)];
        for trouble in done.into_iter().filter_map(Result::err) {
            outcome = outcome.and(trouble.outcome);
            run.remain(place, &record, &trouble);
            troubles.push((Some(place.name.clone()), trouble));
        }
    }
    Report { run: record, outcome, troubles }
}

struct Run<'a> {
    world: &'a dyn World,
    config: &'a Config,
    name: &'a str,
    job: &'a Job,
    start: Timestamp,
}

type Troubles = Vec<(Option<String>, Trouble)>;

impl Run<'_> {
    fn judge(&self, e: bulla_engine::Error) -> Trouble {
        self.world.judge(&e)
    }

    fn places(&self) -> Vec<Place> {
        let place = |to: &At<String>| Place {
            name: to.value.clone(),
            repository: None,
            made: None,
            failed: None,
            level: Level::Committed,
            outcome: Outcome::Done,
            reason: String::new(),
        };
        self.job.to.iter().map(place).collect()
    }

    /// Extends the retention of all that snapshots need, where that is wanted: last, so that what a prune has moved and what
    /// went on record is locked, too.
    fn retain(&self, place: &Place) -> Result<(), Trouble> {
        let worm = self.config.destinations.get(&place.name).and_then(|d| d.value.worm.as_ref());
        let (Some(worm), Some(repository)) = (worm, &place.repository) else { return Ok(()) };
        let until = now(self.world).saturating_add(worm.value.keep.seconds());
        let retention = retain::Retention { mode: worm.value.mode, until };
        let report = retain::run(repository, retention, false, self.world.observer());
        let report = report.map_err(|e| self.judge(e))?;
        let what = format!("{} objects in {} for {}", report.objects, place.name, worm.value.keep);
        self.world.step("lock", &what);
        match report.damage() {
            Some(why) => Err(Trouble::new(Outcome::Damage, why)),
            None => Ok(()),
        }
    }

    /// The snapshots of this job and host.
    fn own(&self, repository: &Repository) -> bulla_engine::Result<Vec<Snapshot>> {
        let host = self.world.host();
        let own = |s: &Snapshot| s.host == host && job_of(s) == Some(self.name);
        Ok(repository.snapshots()?.into_iter().filter(own).collect())
    }

    /// What looks wrong with the new backup beside the one before it.
    fn look(&self, places: &[Place]) -> Vec<String> {
        let Some(made) = places.iter().find_map(|p| p.made.as_ref()) else { return Vec::new() };
        let findings = || -> bulla_engine::Result<Vec<String>> {
            // One destination may be new and remember nothing: what any of them has is the measure.
            let mut before: Option<Snapshot> = None;
            for place in places.iter().filter(|p| p.made.is_some()) {
                let Some(repository) = &place.repository else { continue };
                let evidence = repository.evidence()?;
                // Somebody has looked, and says that the source is as it should be: this backup is the measure of the next.
                if evidence.waived(&self.world.host(), self.name, now(self.world)).is_some() {
                    return Ok(Vec::new());
                }
                let older = |s: &Snapshot| s.start < made.start && evidence.is_sound(&s.id);
                let newest = self.own(repository)?.into_iter().filter(older).max_by_key(|s| (s.start, s.id));
                before = before.into_iter().chain(newest).max_by_key(|s| s.start);
            }
            Ok(guard::findings(made, before.as_ref()))
        };
        match findings() {
            Ok(findings) => findings,
            Err(e) => vec![format!("what was backed up before cannot be read: {}", self.judge(e).why)],
        }
    }

    /// Reads back what was stored, from the store itself.
    fn prove(&self, places: &mut [Place], troubles: &mut Troubles) {
        let read_data = match self.job.verify {
            Verify::Off => return,
            Verify::Structure => ReadData::No,
            Verify::New => ReadData::Proven { days: EVIDENCE_DAYS as u32 },
        };
        for place in places {
            let Some(made) = &place.made else { continue };
            let options = CheckOptions {
                read_data,
                record: true,
                snapshots: Some([made.id].into()),
                ..CheckOptions::default()
            };
            let fresh = self.world.open(&place.name, true);
            let checked = fresh.and_then(|repository| {
                check::run(&repository, &options, self.world.observer()).map_err(|e| self.judge(e))
            });
            match checked {
                Ok(report) if report.findings.is_empty() => {
                    place.level = if report.proven > 0 { Level::Data } else { Level::Structure };
                    let packs = report.packs_read;
                    let what = format!("{packs} packs read back from {}, none bad", place.name);
                    self.world.step("verify", &what);
                    if report.proven == 0 && self.job.verify == Verify::New {
                        let why = "what was read back could not be put on record".to_owned();
                        place.fail(Trouble::new(Outcome::Unproven, why), troubles);
                    }
                }
                Ok(report) => {
                    // What is wrong may be elsewhere than in this snapshot.
                    place.level = if report.proven > 0 { Level::Data } else { Level::Committed };
                    let of = |f: &check::Finding| format!("{}: {}", f.object, f.reason);
                    let some: Vec<String> = report.findings.iter().take(3).map(of).collect();
                    let more = report.findings.len().saturating_sub(some.len());
                    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
                    let why = format!("damage found: {}{more}", some.join("; "));
                    place.fail(Trouble::new(Outcome::Damage, why), troubles);
                }
                Err(trouble) => place.fail(trouble, troubles),
            }
        }
    }

    fn zone(&self) -> TimeZone {
        self.config.host.zone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.clone())
    }

    fn record(&self, places: &[Place], outcome: Outcome, findings: Vec<String>) -> JobRun {
        let made = places.iter().find_map(|p| p.made.as_ref());
        let started = jiff::Timestamp::from_second(self.start.seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let next = self.job.schedule.as_ref();
        let next = next.and_then(|s| s.value.next(&started.to_zoned(self.zone())));
        let copies = places.iter().map(|place| JobCopy {
            destination: place.name.clone(),
            outcome: place.outcome.code().into(),
            snapshot: place.made.as_ref().map(|s| s.id),
            level: place.level,
            reason: place.reason.clone(),
        });
        JobRun {
            run: RunId::new(self.world.env().random()),
            job: self.name.to_owned(),
            host: self.world.host(),
            start: self.start,
            outcome: outcome.code().into(),
            next_due: next.map(|next| next.timestamp().as_second()),
            config: self.config.digest(self.name),
            files: made.map_or(0, guard::files),
            bytes: made.map_or(0, |s| s.statistics.total_bytes),
            copies: copies.collect(),
            findings,
        }
    }

    /// Puts the run on record wherever that is possible; where it is not, that destination is behind.
    fn write(&self, places: &mut [Place], record: &JobRun, troubles: &mut Troubles) {
        for place in places {
            let Some(repository) = &place.repository else { continue };
            if let Err(e) = repository.record(&Fact::Run(record.clone())) {
                let trouble = self.judge(e);
                let why = format!("the run could not be put on record: {}", trouble.why);
                place.fail(Trouble { why, ..trouble }, troubles);
                place.made = None;
            }
        }
    }

    /// Puts on record what the job's terms ask for: from then on no configuration takes it back.
    fn promise(&self, place: &Place) -> Result<(), Trouble> {
        let Some(repository) = &place.repository else { return Ok(()) };
        let promised = || -> bulla_engine::Result<()> {
            let locks = lock::wanted(self.config, self.name, self.job, &self.world.host());
            if locks.is_empty() {
                return Ok(());
            }
            let evidence = repository.evidence()?;
            let oldest = self.own(repository)?.iter().map(|s| s.start.seconds).min();
            for lock in locks {
                if lock::is_new(&lock, evidence.locks(&lock.host, &lock.job)) {
                    let since = oldest.unwrap_or(self.start.seconds);
                    repository.record(&Fact::Lock(Lock { since, ..lock }))?;
                }
            }
            Ok(())
        };
        promised().map_err(|e| self.judge(e))
    }

    /// Puts on record that something stayed which should have gone: a status is made from records alone.
    fn remain(&self, place: &Place, record: &JobRun, trouble: &Trouble) {
        let Some(repository) = &place.repository else { return };
        let fact = Fact::Refused(Refused {
            job: self.name.to_owned(),
            host: self.world.host(),
            run: record.run,
            outcome: trouble.outcome.code().into(),
            reason: trouble.why.clone(),
        });
        if let Err(e) = repository.record(&fact) {
            self.world.step("record", &format!("not put on record in {}: {}", place.name, self.judge(e).why));
        }
    }

    /// Lets go what the policy does not keep, if the evidence allows, and prunes when that is due.
    fn let_go(&self, place: &Place, record: &JobRun) -> Result<(), Trouble> {
        let Some(repository) = &place.repository else { return Ok(()) };
        if !record.findings.is_empty() {
            return Ok(());
        }
        let Some((_, retention)) = self.config.retention_of(self.job) else { return Ok(()) };
        let destination = self.config.destinations.get(&place.name);
        if destination.is_some_and(|d| d.value.append_only) {
            return Ok(());
        }
        let dropped = match self.forget(repository, &retention) {
            // As many as there was room for: a prune makes room for the others.
            Err(Error::Backend(BackendError::NoSpace { .. })) => {
                let text = format!(
                    "no room in {} for all that may go: as many as there was, then a prune",
                    place.name
                );
                self.world.step("forget", &text);
                self.prune_now(repository, &place.name).map_err(|e| self.judge(e))?;
                self.forget(repository, &retention)
            }
            other => other,
        };
        let dropped = dropped.map_err(|e| self.judge(e))?;
        if let Some((gone, evidence)) = dropped {
            let proof = evidence.map_or_else(String::new, |id| format!(", on evidence of {}", id.short()));
            self.world.step("forget", &format!("{gone} of {}{proof}", place.name));
        }
        self.prune(repository, &place.name).map_err(|e| self.judge(e))
    }

    fn forget(
        &self,
        repository: &Repository,
        retention: &Retention,
    ) -> bulla_engine::Result<Option<(usize, Option<RunId>)>> {
        let mut judged = Vec::new();
        for s in self.own(repository)? {
            let received = repository.backend().stat(&ObjectName::Verdict(s.id))?.map(|stat| stat.modified);
            judged.push(Judged { candidate: Candidate::new(&s, received), whole: s.statistics.errors == 0 });
        }
        let (evidence, held) = (repository.evidence()?, repository.held()?);
        let now = self.world.env().clock.now();
        let drop = keep::to_drop(&judged, &evidence, &held, &retention.policy, now, &self.zone())?;
        if drop.is_empty() {
            return Ok(None);
        }
        let permit = Permit::ask(repository, &drop, &format!("retention of job {}", self.name))?;
        Ok(Some((forget(repository, &permit, false)?, permit.evidence().first().copied())))
    }

    fn prune(&self, repository: &Repository, place: &str) -> bulla_engine::Result<()> {
        let pruned = |r: &bulla_engine::format::ledger::Record| matches!(r.fact, Fact::Pruned(_));
        let ledger = repository.ledger()?;
        let last = ledger.records.iter().filter(|r| pruned(r)).map(|r| r.time.seconds).max();
        let first = ledger.records.iter().map(|r| r.time.seconds).min().unwrap_or(i64::MAX);
        if now(self.world).saturating_sub(last.unwrap_or(first)) < PRUNE_EVERY {
            return Ok(());
        }
        self.prune_now(repository, place)
    }

    fn prune_now(&self, repository: &Repository, place: &str) -> bulla_engine::Result<()> {
        let report = prune::run(repository, &PruneOptions::default(), self.world.observer())?;
        let freed = Pruned {
            ended: report.died,
            packs: report.deleted,
            // What object lock keeps is not freed.
            bytes: if report.hidden { 0 } else { report.deleted_bytes },
        };
        self.world.step("prune", &format!("{} packs, {} bytes of {place} freed", freed.packs, freed.bytes));
        repository.record(&Fact::Pruned(freed))
    }
}

impl Place {
    fn fail(&mut self, trouble: Trouble, troubles: &mut Troubles) {
        // A warning that was there before is not the reason.
        if self.reason.is_empty() || self.outcome == Outcome::Done {
            self.reason.clone_from(&trouble.why);
        }
        self.outcome = self.outcome.and(trouble.outcome);
        troubles.push((Some(self.name.clone()), trouble));
    }
}

fn told(made: &Snapshot, place: &str) -> String {
    let (s, id) = (&made.statistics, made.id.short());
    let new = s.data_bytes_new + s.meta_bytes_new;
    let files = guard::files(made);
    format!(
        "snapshot {id} in {place}: {files} files of {} bytes, {new} new, {} stored",
        s.total_bytes, s.stored_bytes
    )
}
