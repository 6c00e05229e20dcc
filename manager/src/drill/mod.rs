//! Drills: a restore that is tried, compared, timed, and put on record.
//!
//! Kept true: what is compared was read back from the target after it was let go from memory; the target is empty, private,
//! outside of what is backed up, and gone afterwards; a drill that did not compare a thing is not one that went well.

mod sample;
mod scratch;

pub use sample::{Lot, bound95};

use crate::config::{Job, JobSource};
use crate::outcome::Outcome;
use crate::world::{Trouble, World, now};
use bulla_engine::browse;
use bulla_engine::evidence::Evidence;
use bulla_engine::forget::job_of;
use bulla_engine::format::ledger::{Drill, DrillKind, Fact};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::EntryKind;
use bulla_engine::observer::{Event, Observer, escape};
use bulla_engine::repository::Repository;
use bulla_engine::restore::{self, Action, RestoreOptions, Selection};
use scratch::Scratch;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

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
    /// Files of the source that are as they were backed up, and hold what was restored; and those that hold something else.
    pub live: Live,
    /// What came too late, in a sentence each.
    pub late: Vec<String>,
    /// Where what was restored still is, if it was to be kept.
    pub kept: Option<PathBuf>,
}

/// How many files hold the same as the source, and which hold something else.
pub type Live = (u64, Vec<String>);

/// Tries a restore of a job.
///
/// # Errors
/// Why nothing could be tried. That is no record.
pub fn drill(world: &dyn World, name: &str, job: &Job, options: &Options) -> Result<Report, Trouble> {
    let attempt = Attempt { world, name, job, options };
    let destination = attempt.destination()?;
    let begun = Instant::now();
    let repository = world.open(&destination, true)?;
    let start = world.env().clock.now();
    let judged = |e: bulla_engine::Error| world.judge(&e);
    let (snapshot, seed) = attempt.snapshot(&repository).map_err(judged)?.ok_or_else(|| {
        let why = format!("{destination} has no snapshot of job {name}");
        Trouble::new(Outcome::Unproven, why)
    })?;
    let lot = attempt.draw(&repository, &snapshot, seed).map_err(judged)?;
    let (files_all, bytes_all) = (lot.files, lot.bytes);
    let opened = millis(begun);
    let all = options.sample.is_none();
    let (paths, equal, bytes) = lot.drawn();
    let expected = if all { files_all } else { paths.len() as u64 };
    let (equal, bytes) = if all { (files_all, bytes_all) } else { (equal, bytes) };
    let wanted = (!all).then(|| Arc::new(paths));
    let base = job.drill.target.as_ref().map_or(options.scratch.as_path(), |at| Path::new(&at.value));
    let scratch = Scratch::make(base, &sources(job), world, options.keep)?;
    let begun = Instant::now();
    let mut wrong = attempt.restore(&repository, &snapshot, &scratch, wanted.clone()).map_err(judged)?;
    let restored = millis(begun);
    let begun = Instant::now();
    let compared = attempt.compare(&repository, &snapshot, &scratch, wanted.clone());
    let (right, differ) = compared.map_err(judged)?;
    wrong.extend(differ);
    if right < expected && wrong.is_empty() {
        wrong.push(format!("of {expected} files only {right} could be compared"));
    }
    let (metadata, live) =
        attempt.look(&repository, &snapshot, &scratch, wanted.as_deref()).map_err(judged)?;
    wrong.extend(metadata);
    let compared = millis(begun);
    let begun = Instant::now();
    if options.application {
        wrong.extend(attempt.command(&scratch, &snapshot).err());
    }
    let phases = [opened, restored, compared, if options.application { millis(begun) } else { 0 }];
    let rto = reckon(phases, expected, files_all, bytes, bytes_all);
    let rpo = start.seconds.saturating_sub(snapshot.start.seconds).max(0).unsigned_abs();
    let late = attempt.late(rto, rpo, all);
    let outcome = if wrong.is_empty() && late.is_empty() { Outcome::Done } else { Outcome::Drill };
    let mut named = wrong;
    named.extend(late.iter().cloned());
    named.truncate(NAMED);
    let drill = Drill {
        job: name.to_owned(),
        host: world.host(),
        destination: destination.clone(),
        snapshot: snapshot.id,
        kind: options.kind(),
        seed,
        start,
        outcome: outcome.code().into(),
        files: expected,
        files_all,
        bytes,
        bytes_all,
        wrong: named,
        phases,
        rto,
        rpo,
    };
    attempt.record(&drill)?;
    let kept = scratch.end();
    Ok(Report { drill, outcome, equal, live, late, kept })
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Seconds that a restore of everything takes: what this one took, in proportion to files or bytes, whichever is more.
fn reckon(phases: [u64; 4], files: u64, files_all: u64, bytes: u64, bytes_all: u64) -> u64 {
    let [open, restore, _, command] = phases;
    let by = |part: u64, all: u64| (u128::from(restore) * u128::from(all)).div_ceil(u128::from(part.max(1)));
    let whole = by(files, files_all.max(files)).max(by(bytes, bytes_all.max(bytes)));
    let millis = u128::from(open) + whole + u128::from(command);
    u64::try_from(millis.div_ceil(1000)).unwrap_or(u64::MAX)
}

fn sources(job: &Job) -> Vec<PathBuf> {
    match &job.source.value {
        JobSource::Paths { paths, .. } => paths.iter().map(|at| PathBuf::from(&at.value)).collect(),
        JobSource::Command { .. } | JobSource::Block { .. } => Vec::new(),
    }
}

/// Takes the paths that are wanted and the directories that lead there.
fn select(wanted: Arc<BTreeSet<Vec<u8>>>) -> impl Fn(&[u8], bool) -> Selection {
    move |path: &[u8], is_dir: bool| {
        if wanted.contains(path) {
            return Selection::Take;
        }
        let mut below = path.to_vec();
        below.push(b'/');
        let leads = is_dir && wanted.range(below.clone()..).next().is_some_and(|p| p.starts_with(&below));
        if leads || !is_dir { Selection::Pass } else { Selection::Prune }
    }
}

/// Counts what a plan would change.
struct Differences<'a> {
    inner: &'a dyn Observer,
    wanted: Option<Arc<BTreeSet<Vec<u8>>>>,
    right: Mutex<(u64, Vec<String>)>,
}

impl Observer for Differences<'_> {
    fn event(&self, event: &Event<'_>) {
        let Event::Planned(planned) = event else { return self.inner.event(event) };
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        match planned.action {
            // The content is right; metadata is looked at apart.
            Action::Unchanged | Action::Update | Action::Link => {
                right.0 += u64::from(self.wanted.as_ref().is_none_or(|w| w.contains(&planned.path)));
            }
            // Directories, and what nobody can restore.
            Action::Keep | Action::Unreadable | Action::Forbidden => {}
            other => right.1.push(format!("/{}: a restore would {other} it", escape(&planned.path))),
        }
    }
    fn interrupted(&self) -> bool {
        self.inner.interrupted()
    }
}

struct Attempt<'a> {
    world: &'a dyn World,
    name: &'a str,
    job: &'a Job,
    options: &'a Options,
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

    fn draw(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        seed: [u8; 32],
    ) -> bulla_engine::Result<Lot> {
        let mut lot = Lot::new(seed, self.options.sample.map_or(0, |n| n.max(1)));
        browse::list(repository, snapshot, b"", true, &mut |entry| {
            if let EntryKind::File { size, .. } = entry.kind
                && !entry.flags.read_error
            {
                lot.pass(&entry.path(), size);
            }
            Ok(())
        })?;
        Ok(lot)
    }

    /// Restores; what could not be.
    fn restore(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        scratch: &Scratch,
        wanted: Option<Arc<BTreeSet<Vec<u8>>>>,
    ) -> bulla_engine::Result<Vec<String>> {
        let options = options(wanted, false);
        let report =
            restore::run(repository, snapshot, b"", scratch.path(), &options, self.world.observer())?;
        scratch.forget_cached();
        let mut wrong: Vec<String> =
            report.damaged.iter().map(|d| format!("/{}: {}", escape(&d.path), d.reason)).collect();
        if report.failed > 0 {
            wrong.push(format!("{} entries could not be written", report.failed));
        }
        Ok(wrong)
    }

    /// Reads what was restored and compares it with the snapshot, by the identity of every chunk and by metadata: how many
    /// files are right, and what is not.
    fn compare(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        scratch: &Scratch,
        wanted: Option<Arc<BTreeSet<Vec<u8>>>>,
    ) -> bulla_engine::Result<(u64, Vec<String>)> {
        let differences =
            Differences { inner: self.world.observer(), wanted: wanted.clone(), right: Mutex::default() };
        restore::run(repository, snapshot, b"", scratch.path(), &options(wanted, true), &differences)?;
        Ok(differences.right.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compares metadata with the snapshot, and files with the source where that is as it was backed up. What is wrong; how
    /// many files hold the same as the source, and which hold something else.
    fn look(
        &self,
        repository: &Repository,
        snapshot: &Snapshot,
        scratch: &Scratch,
        wanted: Option<&BTreeSet<Vec<u8>>>,
    ) -> bulla_engine::Result<(Vec<String>, Live)> {
        let (mut wrong, mut same, mut diverged) = (Vec::new(), 0, Vec::new());
        let paths = matches!(self.job.source.value, JobSource::Paths { .. });
        let here = paths && snapshot.host == self.world.host();
        browse::list(repository, snapshot, b"", true, &mut |entry| {
            let path = entry.path();
            if entry.flags.read_error || !wanted.is_none_or(|w| w.contains(&path)) {
                return Ok(());
            }
            if let Some(why) = scratch.differs(&path, entry).filter(|_| wrong.len() < NAMED) {
                wrong.push(format!("/{}: {why}", escape(&path)));
            }
            if here && scratch::is_as_it_was(&path, entry) {
                match scratch.is_same(&path) {
                    true => same += 1,
                    false => diverged.push(format!("/{}", escape(&path))),
                }
            }
            Ok(())
        })?;
        Ok((wrong, (same, diverged)))
    }

    /// Runs the job's command where it was restored.
    fn command(&self, scratch: &Scratch, snapshot: &Snapshot) -> Result<(), String> {
        let words = self.job.drill.command.as_ref().ok_or("the job has no drill command")?;
        let Some((program, args)) = words.split_first() else { return Ok(()) };
        let mut command = Command::new(&program.value);
        command.args(args.iter().map(|at| &at.value)).current_dir(scratch.path());
        command.stdin(Stdio::null()).env("BULLA_DRILL_DIR", scratch.path());
        command.env("BULLA_JOB", self.name).env("BULLA_SNAPSHOT", snapshot.id.to_string());
        self.world.secret_variables().iter().for_each(|v| _ = command.env_remove(v));
        // Its words are for people, results are ours.
        command.stdout(std::io::stderr());
        let status = command.status().map_err(|e| format!("cannot run {}: {e}", program.value))?;
        if status.success() { Ok(()) } else { Err(format!("{} says no: {status}", program.value)) }
    }

    /// Puts the drill on record in every destination that takes it: one is enough, since any tells of all.
    fn record(&self, drill: &Drill) -> Result<(), Trouble> {
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
            _ => Ok(()),
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

fn options(wanted: Option<Arc<BTreeSet<Vec<u8>>>>, dry_run: bool) -> RestoreOptions {
    let select = wanted.map(|wanted| Arc::new(select(wanted)) as Arc<dyn restore::Select + Send + Sync>);
    RestoreOptions { select, dry_run, ..RestoreOptions::default() }
}

/// A seed as it is printed.
pub fn seed_text(seed: &[u8; 32]) -> String {
    bulla_engine::format::id::to_hex(seed)
}
