//! Permission to let snapshots go. Those of jobs (tag `job:NAME`) go only on evidence: something newer of the same job and
//! host is proven to read back, and enough stays. What is not of a job goes when its owner says so.
//!
//! Kept true: a [`Permit`] comes from [`Permit::ask`] alone, so no caller forgets to ask; [`judge`] is pure. Whoever may
//! delete in the store is not held by this; an append-only store is.

use crate::error::{Error, Result};
use crate::evidence::Evidence;
use crate::observer::escape;
use crate::repository::Repository;
use bulla_repo_format::ledger::Record;
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::{ObjectName, RunId};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the tag of a job's snapshots begins with.
pub const JOB_TAG: &str = "job:";

/// How many whole snapshots of a job stay, whatever any policy says.
pub const STAY: usize = 3;

/// How far the clocks of this machine and of the store may be apart, in seconds.
const CLOCKS: u64 = 600;

/// The job that a snapshot is of.
pub fn job_of(snapshot: &Snapshot) -> Option<&str> {
    snapshot.tags.iter().find_map(|tag| tag.strip_prefix(JOB_TAG))
}

/// Allows to let certain snapshots go.
#[derive(Debug)]
pub struct Permit {
    drop: Vec<RunId>,
    evidence: Vec<RunId>,
    reason: String,
    managed: bool,
}

impl Permit {
    /// Asks whether these may go. Where one is of a job, all snapshots and the ledger are read. One that cannot be read is
    /// of no job: nothing can be restored from it.
    ///
    /// # Errors
    /// [`Error::Refused`] with what is missing.
    pub fn ask(repository: &Repository, drop: &[RunId], reason: &str) -> Result<Self> {
        let (ids, mut managed, mut evidence) = (drop.to_vec(), false, Vec::new());
        for id in drop {
            managed |= match repository.read_verdict(id) {
                Ok(read) => matches!(read.verdict, Verdict::Snapshot(s) if job_of(&s).is_some()),
                Err(e) if e.is_damage() => false,
                Err(e) => return Err(e),
            };
        }
        if managed {
            // A store that was set back, or has lost something, is no place to delete from.
            repository.verify_history()?;
            let snapshots: Vec<Facts> = repository.snapshots()?.iter().map(Facts::of).collect();
            let ledger = repository.ledger()?;
            let found = Evidence::of(&ledger.records);
            let set: HashSet<RunId> = ids.iter().copied().collect();
            let case = Case {
                snapshots: &snapshots,
                drop: &set,
                evidence: &found,
                damaged: repository.unrepaired(&found)?.len(),
                now: repository.env().clock.now().seconds,
                clocks: clocks(repository, &ledger.records)?,
            };
            evidence = judge(&case).map_err(|refusal| Error::Refused(refusal.to_string()))?;
        }
        Ok(Self { drop: ids, evidence, reason: reason.to_owned(), managed })
    }

    /// A damaged snapshot goes when what is left of it is in another edition.
    pub(crate) fn replaced(old: &Snapshot, edition: RunId, reason: &str) -> Self {
        let managed = job_of(old).is_some();
        Self { drop: vec![old.id], evidence: vec![edition], reason: reason.to_owned(), managed }
    }

    /// What may go.
    pub fn drop(&self) -> &[RunId] {
        &self.drop
    }

    /// The proven snapshots that allow it; none where none are of a job.
    pub fn evidence(&self) -> &[RunId] {
        &self.evidence
    }

    /// Why they go.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// True if something of a job is among them: that goes on record.
    pub fn is_managed(&self) -> bool {
        self.managed
    }
}

/// How far the store's clock is from this machine's, or was from that of who wrote the newest record, in seconds; the more of
/// both. What this machine has put on record just now, as a run has, says both.
fn clocks(repository: &Repository, records: &[Record]) -> Result<u64> {
    let (own, now) = (repository.client().id(), repository.env().clock.now().seconds);
    let last = records.iter().max_by_key(|r| (r.time, r.sequence));
    let stat = |r: &Record| repository.backend().stat(&ObjectName::Record(r.client, r.sequence));
    let written = match last {
        Some(last) => stat(last)?.map(|stat| stat.modified.abs_diff(last.time.seconds)),
        None => None,
    };
    let lately = |r: &Record| r.client == own && now.abs_diff(r.time.seconds) <= CLOCKS;
    match written.filter(|_| last.is_some_and(lately)) {
        Some(apart) => Ok(apart),
        None => Ok(repository.clocks_apart()?.max(written.unwrap_or(0))),
    }
}

/// What the judgement has to know of a snapshot.
#[derive(Debug, Clone)]
struct Facts {
    id: RunId,
    /// Host and job; `None` if it is of no job.
    group: Option<(String, String)>,
    /// When it began.
    start: Timestamp,
    /// Nothing of its source could not be read.
    whole: bool,
}

impl Facts {
    fn of(s: &Snapshot) -> Self {
        let group = job_of(s).map(|job| (s.host.clone(), job.to_owned()));
        Self { id: s.id, group, start: s.start, whole: s.statistics.errors == 0 }
    }
}

struct Case<'a> {
    /// Alive and not forgotten.
    snapshots: &'a [Facts],
    drop: &'a HashSet<RunId>,
    evidence: &'a Evidence,
    /// Packs that were bad when last read and are still needed.
    damaged: usize,
    now: i64,
    /// How far clocks are apart, in seconds.
    clocks: u64,
}

/// Why nothing may go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error(
        "nothing of job {job} on host {host} goes: no newer whole snapshot of it is proven to read back within {} days; prove \
         it with: bulla run {job}, or bulla check --read-data",
        crate::evidence::EVIDENCE_DAYS
    )]
    Unproven { host: String, job: String },
    #[error("of job {job} on host {host} only {left} whole snapshots would stay, and {STAY} always do")]
    TooFew { host: String, job: String, left: usize },
    #[error(
        "nothing of job {job} on host {host} goes: its newest backup looks wrong; look at the source, and if it is right: \
         bulla waive {job}, bulla run {job}"
    )]
    Held { host: String, job: String },
    #[error(
        "job {job} on host {host} is locked ({term}): what was backed up on {day} has to stay, or something that was \
         soon after it"
    )]
    Locked { host: String, job: String, term: String, day: String },
    #[error(
        "packs that were bad when they were last read: {0}; nothing of a job goes until they are repaired, see bulla check"
    )]
    Damaged(usize),
    #[error(
        "the clocks of this machine and of the store are {0} seconds apart: which snapshot is old cannot be said; set them right, and if they are right now: bulla waive JOB"
    )]
    Clocks(u64),
    #[error(
        "by the clock of this machine the ledger was written {0} seconds in the future; set it right, and if it is: bulla waive JOB"
    )]
    Past(u64),
}

/// The proven snapshots on which these may go.
fn judge(case: &Case<'_>) -> std::result::Result<Vec<RunId>, Refusal> {
    let mut groups: BTreeMap<&(String, String), Vec<&Facts>> = BTreeMap::new();
    for s in case.snapshots {
        if let Some(group) = &s.group {
            groups.entry(group).or_default().push(s);
        }
    }
    groups.retain(|_, list| list.iter().any(|s| case.drop.contains(&s.id)));
    // A rule that is lifted is lifted whole: what is asked for goes.
    groups.retain(|(host, job), _| case.evidence.waived(host, job, case.now).is_none());
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    if case.damaged > 0 {
        return Err(Refusal::Damaged(case.damaged));
    }
    if case.clocks > CLOCKS {
        return Err(Refusal::Clocks(case.clocks));
    }
    if let Some(last) = case.evidence.last().filter(|last| *last > case.now) {
        return Err(Refusal::Past(last.abs_diff(case.now)));
    }
    let mut evidence = Vec::new();
    for ((host, job), list) in groups {
        if case.evidence.is_held(host, job) {
            return Err(Refusal::Held { host: host.clone(), job: job.clone() });
        }
        let stays = |s: &&&Facts| !case.drop.contains(&s.id) && s.whole && s.start.seconds <= case.now;
        let sound = |s: &&&Facts| {
            stays(s) && case.evidence.is_sound(&s.id) && case.evidence.is_proven(&s.id, case.now)
        };
        let proven = list.iter().filter(sound).max_by_key(|s| (s.start, s.id));
        let newest_to_go = list.iter().filter(|s| case.drop.contains(&s.id)).map(|s| s.start).max();
        match proven {
            Some(proven) if Some(proven.start) > newest_to_go => evidence.push(proven.id),
            _ => return Err(Refusal::Unproven { host: host.clone(), job: job.clone() }),
        }
        let left = list.iter().filter(stays).count();
        if left < STAY {
            return Err(Refusal::TooFew { host: host.clone(), job: job.clone(), left });
        }
        let good = |s: &&&Facts| s.whole && case.evidence.is_sound(&s.id);
        let had: BTreeSet<i64> = list.iter().filter(good).map(|s| s.start.seconds).collect();
        let left = list.iter().filter(|s| stays(s) && good(s));
        let stay: BTreeSet<i64> = left.map(|s| s.start.seconds).collect();
        locked(case, (host, job), (&had, &stay))?;
    }
    Ok(evidence)
}

/// What is locked has something that stands for it among what stays.
fn locked(
    case: &Case<'_>,
    (host, job): (&str, &str),
    of: (&BTreeSet<i64>, &BTreeSet<i64>),
) -> std::result::Result<(), Refusal> {
    for lock in case.evidence.locks(host, job) {
        if let Some(start) = case.evidence.unlocked(lock, case.now, of) {
            let day = jiff::Timestamp::from_second(start).map(|t| t.strftime("%Y-%m-%d").to_string());
            let (host, job, day) = (host.to_owned(), job.to_owned(), day.unwrap_or_default());
            return Err(Refusal::Locked { host, job, term: escape(lock.term.as_bytes()), day });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
