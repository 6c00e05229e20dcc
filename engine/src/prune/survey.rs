//! What a collector sees, in the protocol's order (SPEC 14): g0 and g1 before the mark, g3 after it.
//!
//! Kept true: deaths are read before announcements, announcements before verdicts, verdicts before deaths; nothing is
//! decided on an object that does not open and verify; a listing that does not show this collector's own objects, or
//! does not explain a snapshot some lineage names, stops everything.

use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::protocol::{Outcome, Sighting, announcement_counts, is_root};
use crate::repository::Repository;
use bulla_repo_format::record::{Announcement, RunKind};
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Announcements of one run.
#[derive(Default)]
pub(super) struct Announced {
    pub(super) numbers: Vec<u32>,
    /// Those that could be read.
    pub(super) read: Vec<Announcement>,
    /// Why one could not be read: then nobody knows what the run relies on.
    pub(super) unreadable: Option<String>,
    /// The newest, by the store's clock.
    pub(super) newest: i64,
}

impl Announced {
    /// True if no announcement of the run can commit anything.
    pub(super) fn is_reader(&self) -> bool {
        !self.read.is_empty() && self.read.iter().all(|a| a.kind == RunKind::Reader)
    }
}

/// The listings before the mark.
pub(super) struct Before {
    /// What each run's verdict was; absent means open.
    outcomes: HashMap<RunId, Outcome>,
    /// Snapshots that were there, the dead ones among them included.
    pub(super) snapshots: HashMap<RunId, Snapshot>,
    /// Deaths that were read and verified.
    pub(super) dead: HashSet<RunId>,
}

impl Before {
    /// What the run's verdict was.
    pub(super) fn outcome(&self, run: &RunId) -> Outcome {
        self.outcomes.get(run).copied().unwrap_or(Outcome::Open)
    }

    /// Snapshots that are roots whatever happens after.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Snapshot> {
        let root = |id: &RunId| {
            let seen =
                Sighting { before_mark: true, after_pend: false, dead_before_mark: self.dead.contains(id) };
            is_root(seen)
        };
        self.snapshots.values().filter(move |s| root(&s.id))
    }
}

/// The listings after the mark.
pub(super) struct After {
    /// Packs any collector has condemned.
    pub(super) marked: HashSet<PackName>,
    /// Packs that were there after that.
    pub(super) present: HashSet<PackName>,
    /// Runs whose announcements count.
    pub(super) open: HashSet<RunId>,
    /// Packs those runs named.
    pub(super) named: HashSet<PackName>,
    /// Trees they pin.
    pub(super) pins: Vec<bulla_repo_format::record::Pin>,
    /// Snapshots that are roots and were not there before the mark.
    pub(super) roots: Vec<Snapshot>,
}

impl Repository {
    /// All announcements by run. One that vanishes between listing and reading was withdrawn.
    pub(super) fn announcements(&self) -> Result<BTreeMap<RunId, Announced>> {
        let mut out: BTreeMap<RunId, Announced> = BTreeMap::new();
        for (name, _) in self.backend().list(Area::Announcements)? {
            let ObjectName::Announcement(run, number) = name else { continue };
            let Some(stat) = self.backend().stat(&name)? else { continue };
            let read = self.read_announcement(&run, number);
            if matches!(read, Err(Error::Backend(BackendError::NotFound { .. }))) {
                continue;
            }
            let entry = out.entry(run).or_default();
            entry.numbers.push(number);
            entry.newest = entry.newest.max(stat.modified);
            match read {
                Ok(a) => entry.read.push(a),
                Err(e) if e.is_damage() => entry.unreadable = Some(e.to_string()),
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// What `snap/<run>` says now.
    pub(super) fn outcome(&self, run: &RunId) -> Result<Outcome> {
        match self.read_verdict(run) {
            Ok(read) => Ok(match read.verdict {
                Verdict::Snapshot(_) => Outcome::Committed,
                Verdict::Void { .. } => Outcome::Void,
            }),
            Err(Error::Backend(BackendError::NotFound { .. })) => Ok(Outcome::Open),
            Err(e) => Err(e),
        }
    }
}

/// True if the death is authentic. One that does not open kills nobody; `check` reports it.
pub(super) fn is_dead(repository: &Repository, run: &RunId) -> Result<bool> {
    match repository.is_dead(run) {
        Err(e) if e.is_damage() => Ok(false),
        other => other,
    }
}

/// g1: deaths, then verdicts; from the start again when another collector removes a dead snapshot between the two.
pub(super) fn before(repository: &Repository) -> Result<Before> {
    for _ in 1..ATTEMPTS {
        match listed(repository) {
            Err(Unread::Removed(_)) => {}
            Err(Unread::Failed(e)) => return Err(e),
            Ok(before) => return Ok(before),
        }
    }
    listed(repository).map_err(|e| match e {
        Unread::Removed(e) | Unread::Failed(e) => e,
    })
}

/// More dead snapshots than collectors remove during one listing each.
const ATTEMPTS: usize = 8;

/// Why the listings are no answer.
enum Unread {
    /// A snapshot went after the deaths were listed, and its death is on record now.
    Removed(Error),
    Failed(Error),
}

impl From<Error> for Unread {
    fn from(e: Error) -> Self {
        Self::Failed(e)
    }
}

fn listed(repository: &Repository) -> Result<Before, Unread> {
    let gone: HashSet<RunId> = repository.list_runs(Area::Deaths)?.into_iter().collect();
    let mut before = Before { outcomes: HashMap::new(), snapshots: HashMap::new(), dead: HashSet::new() };
    for run in repository.list_runs(Area::Verdicts)? {
        let verdict = match repository.read_verdict(&run) {
            Ok(read) => read.verdict,
            // A collector removes the snapshot after the death.
            Err(Error::Backend(BackendError::NotFound { .. })) if gone.contains(&run) => continue,
            Err(e) if e.is_missing() => return Err(removed(repository, &run, e)?),
            Err(e) => return Err(e.into()),
        };
        if gone.contains(&run) && is_dead(repository, &run)? {
            before.dead.insert(run);
        }
        match verdict {
            Verdict::Void { .. } => drop(before.outcomes.insert(run, Outcome::Void)),
            Verdict::Snapshot(s) => {
                before.outcomes.insert(run, Outcome::Committed);
                before.snapshots.insert(run, *s);
            }
        }
    }
    explain(repository, &before, &gone)?;
    Ok(before)
}

fn removed(repository: &Repository, run: &RunId, e: Error) -> Result<Unread> {
    Ok(if is_dead(repository, run)? { Unread::Removed(e) } else { Unread::Failed(e) })
}

/// Every snapshot that a living one has seen is there, or void, or verifiably dead: a listing that omits some looks
/// exactly like a repository without them.
fn explain(repository: &Repository, before: &Before, gone: &HashSet<RunId>) -> Result<(), Unread> {
    let mut checked = HashSet::new();
    for snapshot in before.roots() {
        for id in snapshot.prev.iter().map(|h| h.id).chain(snapshot.seen.iter().copied()) {
            if before.outcomes.contains_key(&id) || !checked.insert(id) {
                continue;
            }
            if gone.contains(&id) && is_dead(repository, &id)? {
                continue;
            }
            let reason = format!(
                "snapshot {} saw it, and it is neither there nor dead on record; nothing was deleted",
                snapshot.id.short()
            );
            let e = Error::Damaged { what: format!("snapshot {id}"), reason };
            return Err(removed(repository, &id, e)?);
        }
    }
    Ok(())
}

/// g3: marks and packs, then announcements, then verdicts. `own` is this collector's run, `marked` whether it has put
/// a mark.
pub(super) fn after(repository: &Repository, before: &Before, own: &RunId, marked: bool) -> Result<After> {
    let marks = repository.list_runs(Area::Marks)?;
    if marked && !marks.contains(own) {
        return Err(unseen(repository, own, "marks"));
    }
    let marked = repository.marked_packs()?;
    let present = repository.present_packs()?.into_keys().map(|(name, _)| name).collect();
    let announced = repository.announcements()?;
    if !announced.contains_key(own) {
        return Err(unseen(repository, own, "announcements"));
    }
    let mut after = After {
        marked,
        present,
        open: HashSet::new(),
        named: HashSet::new(),
        pins: Vec::new(),
        roots: Vec::new(),
    };
    for (run, a) in &announced {
        if run == own || !announcement_counts(before.outcome(run)) {
            continue;
        }
        if let Some(reason) = &a.unreadable {
            let what = format!("an announcement of run {run}");
            return Err(Error::Damaged { what, reason: format!("{reason}; nothing was deleted") });
        }
        after.open.insert(*run);
        for announcement in &a.read {
            after.named.extend(&announcement.packs);
            after.pins.extend(&announcement.pins);
        }
    }
    for hold in repository.list_runs(Area::Holds)? {
        if let Some(tree) = repository.held_tree(&hold)? {
            after.pins.push(tree);
        }
    }
    for run in repository.list_runs(Area::Verdicts)? {
        if before.outcomes.contains_key(&run) {
            continue;
        }
        match repository.read_verdict(&run) {
            Ok(read) => {
                let seen = Sighting {
                    before_mark: false,
                    after_pend: true,
                    dead_before_mark: before.dead.contains(&run),
                };
                if let Verdict::Snapshot(s) = read.verdict
                    && is_root(seen)
                {
                    after.roots.push(*s);
                }
            }
            Err(Error::Backend(BackendError::NotFound { .. })) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(after)
}

/// Why a listing lacks what this collector has put: another one expired it, or the listing is not to be trusted.
pub(super) fn unseen(repository: &Repository, own: &RunId, what: &str) -> Error {
    match repository.outcome(own) {
        Ok(Outcome::Void) => Error::Voided { run: own.to_string() },
        Err(e) if !e.is_damage() => e,
        _ => {
            let reason =
                "it does not show what this process has just put there; nothing was deleted".to_owned();
            Error::Damaged { what: format!("the listing of {what}"), reason }
        }
    }
}
