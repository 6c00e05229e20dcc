//! Retention: what snapshots need is kept until a time, against everybody, by a store with object lock (SPEC says nothing of
//! it: to the format such an object is one like any other).
//!
//! An object is locked from its put for as long as its bucket says; what an old pack holds of today's snapshots outlives
//! that. So whoever counts on the lock extends it from time to time, for all that snapshots need and nothing else:
//! what only forgotten ones need must be let go some day.

use crate::backend::BackendError;
pub use crate::backend::{LockMode, Retention};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::prune::{self, Needed};
use crate::repository::Repository;
use crate::repository::pack::object_name;
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What was retained, or would be.
#[derive(Debug, Clone, Default)]
pub struct RetainReport {
    /// Snapshots whose needs were met: the living ones that are not forgotten, or held.
    pub snapshots: u64,
    /// Objects of all kinds; each is one request, and one more if its retention lasts longer already.
    pub objects: u64,
    /// Packs among them.
    pub packs: u64,
    /// Bytes of all.
    pub bytes: u64,
    /// Chunks that snapshots refer to and no pack is known to hold: damage that was there before.
    pub lost_chunks: u64,
    /// Packs that hold what snapshots need, and nothing else is known to, and that are not there.
    pub missing_packs: u64,
    /// Some trees cannot be read: all packs were taken for needed.
    pub blind: bool,
}

impl RetainReport {
    /// What snapshots lack, in words; `None` if nothing is known to be lost.
    pub fn damage(&self) -> Option<String> {
        let mut out = Vec::new();
        let mut count = |n: u64, what: &str| out.extend((n > 0).then(|| format!("{what}: {n}")));
        count(self.missing_packs, "packs that snapshots need and that are missing");
        count(self.lost_chunks, "chunks that snapshots refer to and that cannot be found");
        if self.blind {
            out.push("trees cannot be read, so all packs were taken for needed".into());
        }
        (!out.is_empty()).then(|| out.join("; "))
    }
}

/// Attempts before it gives up against prunes that move what it has just listed.
const ATTEMPTS: usize = 3;

/// Areas of which everything is needed: to open the repository, to find chunks, and to say who wrote what and what became of
/// it.
const WHOLE: [Area; 6] = [Area::Clients, Area::Config, Area::Deaths, Area::Index, Area::Keys, Area::Records];

/// Extends the retention of all that snapshots need. With `dry_run` it is only counted.
///
/// # Errors
/// [`Error::Refused`] if the store has no object lock or does not say so; a snapshot that cannot be read; whatever the store
/// fails with, and then some objects are retained and others not. What is missing or unreadable otherwise is in the report,
/// and the rest is retained.
pub fn run(
    repository: &Repository,
    retention: Retention,
    dry_run: bool,
    observer: &dyn Observer,
) -> Result<RetainReport> {
    if !repository.backend().locks_objects()? {
        let place = repository.backend().describe().place;
        return Err(Error::Refused(format!(
            "{place} has no object lock, or does not let us ask (s3:GetBucketObjectLockConfiguration); nothing was retained"
        )));
    }
    for _ in 1..ATTEMPTS {
        match pass(repository, retention, dry_run, false, observer) {
            Err(e) if e.is_damage() => {
                let text = format!("{e}: perhaps a prune is at work; looking again");
                observer.event(&Event::Notice(&text));
            }
            other => return other,
        }
    }
    pass(repository, retention, dry_run, true, observer)
}

/// `lenient` retains what is there and reports what is not.
fn pass(
    repository: &Repository,
    retention: Retention,
    dry_run: bool,
    lenient: bool,
    observer: &dyn Observer,
) -> Result<RetainReport> {
    let mut report = RetainReport::default();
    let objects = needed(repository, lenient, observer, &mut report)?;
    report.objects = objects.len() as u64;
    report.bytes = objects.iter().map(|(_, size)| size).sum();
    report.packs =
        objects.iter().filter(|(n, _)| matches!(n.area(), Area::Packs | Area::Meta)).count() as u64;
    if !dry_run {
        all(repository, &objects, retention, observer)?;
    }
    Ok(report)
}

/// What the snapshots need, with sizes.
fn needed(
    repository: &Repository,
    lenient: bool,
    observer: &dyn Observer,
    report: &mut RetainReport,
) -> Result<Vec<(ObjectName, u64)>> {
    let forgotten = repository.forgotten()?;
    let held: HashSet<RunId> = repository.list_runs(Area::Holds)?.into_iter().collect();
    let listed = repository.read_snapshots()?;
    if let Some(e) = listed.failed.into_iter().next() {
        return Err(e);
    }
    let mut snapshots: Vec<_> = listed.alive.into_iter().map(|(s, _)| s).collect();
    snapshots.retain(|s| !forgotten.contains_key(&s.id) || held.contains(&s.id));
    report.snapshots = snapshots.len() as u64;
    let Needed { mut packs, lost, blind } = prune::packs_needed(repository, &snapshots, lenient, observer)?;
    (report.lost_chunks, report.blind) = (lost, blind);
    let present = repository.present_packs()?;
    let there: HashSet<PackName> = present.keys().map(|(name, _)| *name).collect();
    let gone = packs.difference(&there).map(|name| ObjectName::Pack(*name).to_string());
    let gone: BTreeSet<String> = gone.collect();
    if let Some(object) = gone.first().filter(|_| !lenient) {
        let (object, place) = (object.clone(), repository.backend().describe().place);
        return Err(BackendError::NotFound { object, place }.into());
    }
    report.missing_packs = gone.len() as u64;
    for object in gone {
        observer.event(&Event::Warning(&format!("{object} is missing; the rest is retained")));
    }
    if blind {
        packs.extend(&there);
    }
    let mut out: Vec<(ObjectName, u64)> = present
        .iter()
        .filter(|((name, _), _)| packs.contains(name))
        .map(|((name, kind), size)| (object_name(*kind, *name), *size))
        .collect();
    let alive: HashSet<RunId> = snapshots.iter().map(|s| s.id).collect();
    let mut areas = WHOLE.to_vec();
    areas.extend([Area::Holds, Area::Parity, Area::Verdicts]);
    areas.sort_by_key(|area| area.dir());
    let of_these = |name: &ObjectName| match name {
        ObjectName::Verdict(run) | ObjectName::Hold(run) => alive.contains(run),
        ObjectName::Parity(pack) => packs.contains(pack),
        _ => true,
    };
    let others = repository.backend().list_many(&areas)?.into_iter().flatten();
    out.extend(others.filter(|(name, _)| of_these(name)));
    Ok(out)
}

/// One request each, as many at once as are worth it. The first failure ends it.
fn all(
    repository: &Repository,
    objects: &[(ObjectName, u64)],
    retention: Retention,
    observer: &dyn Observer,
) -> Result<()> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let total_files = objects.len() as u64;
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some((name, _)) = objects.get(at) else { return };
            let stop = if observer.interrupted() { Err(Error::Interrupted) } else { Ok(()) };
            let done = stop.and_then(|()| Ok(repository.backend().retain(name, retention)?));
            if let Err(e) = done {
                next.store(objects.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e);
                return;
            }
            observer.event(&Event::Progress { files: at as u64 + 1, bytes: 0, total_files, total_bytes: 0 });
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..repository.backend().describe().connections.max(1) {
            scope.spawn(work);
        }
    });
    failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}
