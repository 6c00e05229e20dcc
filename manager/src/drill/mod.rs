//! Drills: a restore that is tried, compared, timed, and put on record.
//!
//! Kept true: what is compared was read back from the target after it was let go from memory; the target is empty, private,
//! outside of what is backed up, and gone afterwards; a drill that did not compare a thing is not one that went well, and one
//! that broke off is on record as one that failed.

mod command;
mod sample;
mod scratch;
mod trial;

pub use sample::{Lot, Passing, bound95};
pub use scratch::marker;

use crate::config::{Config, Job};
use crate::outcome::Outcome;
use crate::world::{Trouble, World, now};
use bulla_engine::evidence::Evidence;
use bulla_engine::forget::job_of;
use bulla_engine::format::ledger::{Drill, DrillKind, Fact};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::repository::Repository;
use scratch::Scratch;
use std::path::{Path, PathBuf};
use std::time::Instant;
use trial::{Measured, Trial};

/// So many things that were wrong are named on record.
const NAMED: usize = 100;

/// What to try.
#[derive(Debug, Clone)]
pub struct Options {
    /// So many files; all of them if `None`.
    pub sample: Option<usize>,
    /// Run the job's command on what was restored.
    pub application: bool,
    /// From this destination; without it from the one that was longest not tried.
    pub from: Option<String>,
    /// Draw with this; without it nobody knows before.
    pub seed: Option<[u8; 32]>,
    /// Below which directory it is restored, unless the job says another.
    pub scratch: PathBuf,
    /// Leave what was restored where it is.
    pub keep: bool,
    /// Open the repository with the key in this file instead of the destination's own: does the one in the safe work?
    pub key: Option<PathBuf>,
}

impl Options {
    fn kind(&self) -> DrillKind {
        match (self.application, self.sample) {
            (true, _) => DrillKind::Application,
            (false, None) => DrillKind::Full,
            (false, Some(_)) => DrillKind::Sample,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// As it is on record.
    pub drill: Drill,
    /// How it ended.
    pub outcome: Outcome,
    /// How many of the files were drawn with equal chances.
    pub equal: u64,
    /// Files of the source that are as they were backed up, and hold what was restored; those that do not are in the record.
    pub live: u64,
    /// Where what was restored still is, if it was to be kept.
    pub kept: Option<PathBuf>,
}

/// Tries a restore of a job.
///
/// # Errors
/// Why nothing could be tried. That is no record.
pub fn drill(
    world: &dyn World,
    config: &Config,
    name: &str,
    job: &Job,
    options: &Options,
) -> Result<Report, Trouble> {
    let attempt = Attempt { world, config, name, job, options, start: world.env().clock.now() };
    let destination = attempt.destination()?;
    let begun = Instant::now();
    let repository = match &options.key {
        None => world.open(&destination, true)?,
        Some(key) => match world.open_with(&destination, key) {
            Ok(repository) => repository,
            Err(trouble) => return attempt.locked_out(&destination, key, &trouble),
        },
    };
    let key = options.key.as_ref().map(|_| match repository.opened_by_label() {
        "" => "a key without a label".to_owned(),
        label => label.to_owned(),
    });
    let (snapshot, seed) = attempt.chosen(&repository, &destination)?;
    let base = job.drill.target.as_ref().map_or(options.scratch.as_path(), |at| Path::new(&at.value));
    let scratch = Scratch::make(base, job, world, options.keep)?;
    let trial = Trial { world, name, job, options, repository: &repository, snapshot: &snapshot };
    let mut blank = attempt.blank(&destination, &snapshot, seed, key);
    let (measured, equal, live) = match trial.run(&scratch, seed, begun, &attempt.before(&repository)) {
        Ok(tried) => tried,
        Err(bulla_engine::Error::Interrupted) => return Err(world.judge(&bulla_engine::Error::Interrupted)),
        Err(e) => {
            let why = format!("the restore broke off: {}", world.judge(&e).why);
            // A store out of reach, or a full disk here, says nothing of the snapshot.
            if e.is_damage() {
                blank.wrong.push(why)
            } else {
                blank.late.push(why)
            }
            let drill = attempt.record(blank)?;
            let kept = scratch.end();
            return Ok(Report { drill, outcome: Outcome::Drill, equal: 0, live: 0, kept });
        }
    };
    let (drill, outcome) = attempt.judge(blank, measured);
    let drill = attempt.record(drill)?;
    let kept = scratch.end();
    Ok(Report { drill, outcome, equal, live, kept })
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds that a restore of everything takes: what this one took, in proportion to files or bytes, whichever is more.
fn reckon(m: &Measured) -> u64 {
    let [open, restore, _, command] = m.phases;
    let by = |part: u64, all: u64| (u128::from(restore) * u128::from(all)).div_ceil(u128::from(part.max(1)));
    let whole = by(m.files, m.files_all.max(m.files)).max(by(m.bytes, m.bytes_all.max(m.bytes)));
    let millis = u128::from(open) + whole + u128::from(command);
    u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX)
}

struct Attempt<'a> {
    world: &'a dyn World,
    config: &'a Config,
    name: &'a str,
    job: &'a Job,
    options: &'a Options,
    start: Timestamp,
}

impl Attempt<'_> {
    /// The destination that was asked for, or the one whose last drill is longest ago.
    fn destination(&self) -> Result<String, Trouble> {
        if let Some(from) = &self.options.from {
            if self.job.to.iter().any(|to| to.value == *from) {
                return Ok(from.clone());
            }
            let why = format!("job {} does not go to {from}", self.name);
            return Err(Trouble::new(Outcome::Failed, why));
        }
        let (mut best, mut last): (Option<(i64, String)>, Option<Trouble>) = (None, None);
        for to in &self.job.to {
            let tried = self.world.open(&to.value, false).and_then(|repository| {
                let ledger = repository.ledger().map_err(|e| self.world.judge(&e))?;
                let times = ledger.records.iter().filter_map(|r| match &r.fact {
                    Fact::Drill(d) if d.job == self.name && d.destination == to.value => Some(r.time.seconds),
                    _ => None,
                });
                Ok(times.max().unwrap_or(i64::MIN))
            });
            match tried {
                Ok(at) if best.as_ref().is_none_or(|(b, _)| at < *b) => best = Some((at, to.value.clone())),
                Ok(_) => {}
                Err(trouble) => last = Some(trouble),
            }
        }
        best.map(|(_, name)| name).ok_or_else(|| {
            let why = "no destination can be read".to_owned();
            last.unwrap_or(Trouble::new(Outcome::Failed, why))
        })
    }

    /// The newest snapshot that is whole and accounted for, else the newest; and what is drawn with.
    fn snapshot(&self, repository: &Repository) -> bulla_engine::Result<Option<(Snapshot, [u8; 32])>> {
        let ledger = repository.ledger()?;
        let evidence = Evidence::of(&ledger.records);
        let (host, at) = (self.world.host(), now(self.world));
        let own = |s: &Snapshot| s.host == host && job_of(s) == Some(self.name);
        let good = |s: &Snapshot| {
            s.statistics.errors == 0 && evidence.is_sound(&s.id) && evidence.is_proven(&s.id, at)
        };
        let newest = repository.snapshots()?.into_iter().filter(own).max_by_key(|s| (good(s), s.start, s.id));
        let Some(snapshot) = newest else { return Ok(None) };
        // Nobody can know the ledger of then before; whoever has it can draw again.
        let mut hash = blake3::Hasher::new_derive_key("bulla 1 drill");
        hash.update(snapshot.id.as_bytes());
        for r in &ledger.records {
            hash.update(r.client.as_bytes()).update(&r.sequence.to_le_bytes());
            hash.update(r.previous.as_ref().map_or(&[0; 32], |p| p.as_bytes()));
        }
        let seed = self.options.seed.unwrap_or(*hash.finalize().as_bytes());
        Ok(Some((snapshot, seed)))
    }

    fn chosen(&self, repository: &Repository, from: &str) -> Result<(Snapshot, [u8; 32]), Trouble> {
        let found = self.snapshot(repository).map_err(|e| self.world.judge(&e))?;
        found.ok_or_else(|| {
            let why = format!("{from} has no snapshot of job {}", self.name);
            Trouble::new(Outcome::Unproven, why)
        })
    }

    /// The numbers that the job's command gave when it was last content, for what is expected of those of now.
    fn before(&self, repository: &Repository) -> Vec<(String, String)> {
        let records = repository.ledger().map(|ledger| ledger.records).unwrap_or_default();
        let good = records.into_iter().filter_map(|r| match r.fact {
            Fact::Drill(d) if d.job == self.name && d.outcome == 0 && !d.numbers.is_empty() => Some(d),
            _ => None,
        });
        good.max_by_key(|d| d.start).map(|d| d.numbers).unwrap_or_default()
    }

    /// What is on record of a drill of which nothing is known yet: one that failed.
    fn blank(&self, from: &str, snapshot: &Snapshot, seed: [u8; 32], key: Option<String>) -> Drill {
        Drill {
            job: self.name.to_owned(),
            host: self.world.host(),
            destination: from.to_owned(),
            snapshot: snapshot.id,
            kind: self.options.kind(),
            seed,
            start: self.start,
            outcome: Outcome::Drill.code().into(),
            files: 0,
            files_all: 0,
            bytes: 0,
            bytes_all: 0,
            wrong: Vec::new(),
            phases: [0; 4],
            rto: 0,
            rpo: self.start.seconds.saturating_sub(snapshot.start.seconds).max(0).unsigned_abs(),
            config: self.config.digest(self.name),
            key,
            diverged: Vec::new(),
            late: Vec::new(),
            numbers: Vec::new(),
        }
    }

    /// The key that was to be tried does not open the repository: that is what such a drill is to find, so it is on record.
    fn locked_out(&self, from: &str, key: &Path, trouble: &Trouble) -> Result<Report, Trouble> {
        if trouble.outcome != Outcome::NoSecret {
            return Err(trouble.clone());
        }
        let repository = self.world.open(from, false)?;
        let (snapshot, seed) = self.chosen(&repository, from)?;
        let label = key.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let mut drill = self.blank(from, &snapshot, seed, Some(label));
        drill.wrong = vec![trouble.why.clone()];
        let (drill, outcome) = (self.record(drill)?, Outcome::Drill);
        Ok(Report { drill, outcome, equal: 0, live: 0, kept: None })
    }

    /// How it ended. What differs between source and snapshot is wrong with one of the two, and nobody knows which: it is held.
    fn judge(&self, blank: Drill, m: Measured) -> (Drill, Outcome) {
        let rto = reckon(&m);
        let late = self.late(rto, blank.rpo, self.options.sample.is_none());
        let outcome = match (m.wrong.is_empty() && late.is_empty(), m.diverged.is_empty()) {
            (true, true) => Outcome::Done,
            (true, false) => Outcome::Held,
            (false, _) => Outcome::Drill,
        };
        let (mut wrong, mut diverged) = (m.wrong, m.diverged);
        wrong.truncate(NAMED);
        diverged.truncate(NAMED);
        let drill = Drill {
            outcome: outcome.code().into(),
            files: m.files,
            files_all: m.files_all,
            bytes: m.bytes,
            bytes_all: m.bytes_all,
            wrong,
            phases: m.phases,
            rto,
            diverged,
            late,
            numbers: m.numbers,
            ..blank
        };
        (drill, outcome)
    }

    /// Puts the drill on record in every destination that takes it: one is enough, since any tells of all.
    fn record(&self, drill: Drill) -> Result<Drill, Trouble> {
        let (mut last, mut recorded) = (None, false);
        for to in &self.job.to {
            let done = self.world.open(&to.value, false).and_then(|repository| {
                repository.record(&Fact::Drill(drill.clone())).map_err(|e| self.world.judge(&e))
            });
            match done {
                Ok(()) => recorded = true,
                Err(trouble) => last = Some(trouble),
            }
        }
        match last {
            Some(trouble) if !recorded => {
                let why = format!("the drill is on record nowhere: {}", trouble.why);
                Err(Trouble { why, ..trouble })
            }
            _ => Ok(drill),
        }
    }

    /// What came later than was promised. What a sample makes one expect is told, and no failure.
    fn late(&self, rto: u64, rpo: u64, measured: bool) -> Vec<String> {
        let over = |what: &str, is: u64, objective: Option<i64>| {
            let most = objective?.max(0).unsigned_abs();
            let length = |s: u64| crate::config::Length::of_seconds(i64::try_from(s).unwrap_or(i64::MAX));
            (is > most).then(|| format!("{what} is {}, and may be {}", length(is), length(most)))
        };
        let rto = over("the time to restore", rto, self.job.rto.as_ref().map(|at| at.value.seconds()));
        let rpo =
            over("the age of what was restored", rpo, self.job.rpo.as_ref().map(|at| at.value.seconds()));
        rto.filter(|_| measured).into_iter().chain(rpo).collect()
    }
}

/// A seed as it is printed.
pub fn seed_text(seed: &[u8; 32]) -> String {
    bulla_engine::format::id::to_hex(seed)
}
