//! What a collector sees, in the protocol's order (SPEC 14): g0 and g1 before the mark, g3 after it.
//!
//! Kept true: deaths are read before announcements, announcements before verdicts, verdicts before deaths; nothing is
//! decided on an object that does not open and verify; a listing that does not show this collector's own objects, or
//! does not explain a snapshot some lineage names, stops everything.

use super::unlisted::Present;
use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::protocol::{Outcome, Sighting, announcement_counts, is_root};
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::pack::tail;
use bulla_repo_format::index::{KEY_LEN, record_key};
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use std::collections::{BTreeMap, HashSet};

/// The listings before the mark.
pub(super) struct Before {
    /// What each run's verdict was; absent means open.
    outcomes: BTreeMap<RunId, Outcome>,
    /// Snapshots that were there, the dead ones among them included.
    pub(super) snapshots: BTreeMap<RunId, Snapshot>,
    /// Deaths that were read and verified.
    pub(super) dead: HashSet<RunId>,
    /// Names of all deaths.
    gone: HashSet<RunId>,
}

impl Before {
    /// What the run's verdict was.
    pub(super) fn outcome(&self, run: &RunId) -> Outcome {
        self.outcomes.get(run).copied().unwrap_or(Outcome::Open)
    }

    /// Snapshots that are roots whatever happens after.
    pub(super) fn roots(&self) -> impl Iterator<Item = &Snapshot> + Clone {
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
    /// Packs those runs named, or wrote, that were there when the announcements had been listed and the verdicts had
    /// not. Later would be too late: a run that commits in between and is seen by another collector may have let that
    /// one delete a pack this one needs to know (`tests/model`, `shielded_read_late`).
    pub(super) shielded: HashSet<PackName>,
    /// What those of them hold that are condemned and that no index run lists.
    pub(super) shielded_chunks: HashSet<[u8; KEY_LEN]>,
    /// Trees they pin.
    pub(super) pins: Vec<bulla_repo_format::record::Pin>,
    /// Snapshots that are roots and were not there before the mark.
    pub(super) roots: Vec<Snapshot>,
}

impl Repository {
    /// What `snap/<run>` says now.
    pub(crate) fn outcome(&self, run: &RunId) -> Result<Outcome> {
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
    let mut before = Before {
        outcomes: BTreeMap::new(),
        snapshots: BTreeMap::new(),
        dead: HashSet::new(),
        gone: gone.clone(),
    };
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
    let (mut checked, accepted) = (HashSet::new(), repository.accepted_losses()?);
    for snapshot in before.roots() {
        for id in snapshot.prev.iter().map(|h| h.id).chain(snapshot.seen.iter().copied()) {
            if before.outcomes.contains_key(&id) || accepted.contains(&id) || !checked.insert(id) {
                continue;
            }
            if gone.contains(&id) && is_dead(repository, &id)? {
                continue;
            }
            let reason = format!(
                "snapshot {id} is missing without a record of its death, though snapshot {} saw it; nothing was deleted",
                snapshot.id.short()
            );
            let e = Error::RolledBack { reason };
            return Err(removed(repository, &id, e)?);
        }
    }
    Ok(())
}

/// g3: marks and packs, then announcements, then verdicts. `own` is this collector's run, `marked` whether it has put
/// a mark.
pub(super) fn after(
    repository: &Repository,
    index: &Index,
    before: &Before,
    own: &RunId,
    marked: bool,
) -> Result<After> {
    let marks = repository.list_runs(Area::Marks)?;
    if marked && !marks.contains(own) {
        return Err(unseen(repository, own, "marks"));
    }
    let marked = repository.marked_packs()?;
    let packs = repository.present_packs()?;
    let announced = repository.announcements()?;
    if !announced.contains_key(own) {
        return Err(unseen(repository, own, "announcements"));
    }
    let mut after = After {
        marked,
        present: packs.keys().map(|(name, _)| *name).collect(),
        open: HashSet::new(),
        shielded: HashSet::new(),
        shielded_chunks: HashSet::new(),
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
            after.shielded.extend(&announcement.packs);
            after.pins.extend(&announcement.pins);
        }
    }
    after.shield(repository, index, &packs)?;
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
    after.late_deaths(repository, before)?;
    Ok(after)
}

impl After {
    /// Snapshots that were committed and died since the first look: seen only as deaths, and roots until the next cycle.
    fn late_deaths(&mut self, repository: &Repository, before: &Before) -> Result<()> {
        for run in repository.list_runs(Area::Deaths)? {
            if before.gone.contains(&run) || before.outcomes.contains_key(&run) {
                continue;
            }
            let death = match repository.read_death(&run) {
                Err(e) if e.is_damage() => continue,
                other => other?,
            };
            let verdict = death.map(|d| Verdict::decode(&d.body, &run)).transpose();
            if let Some(Verdict::Snapshot(s)) =
                verdict.map_err(|e| Error::object(&ObjectName::Death(run), e))?
            {
                self.roots.push(*s);
            }
        }
        Ok(())
    }

    /// Completes what is known of shielded packs: between announcements and verdicts.
    fn shield(&mut self, repository: &Repository, index: &Index, packs: &Present) -> Result<()> {
        index.refresh(repository)?;
        if self.open.is_empty() {
            return Ok(());
        }
        let mut listed = HashSet::new();
        for pack in index.packs() {
            let pack = pack?;
            if self.open.contains(&pack.run) {
                self.shielded.insert(pack.name);
            }
            listed.insert(pack.name);
        }
        let buried = index.graves();
        self.shielded.retain(|name| !buried.contains(name));
        for (&(name, kind), &size) in packs.iter().filter(|((name, _), _)| self.marked.contains(name)) {
            if listed.contains(&name) {
                continue;
            }
            match tail::read_again(repository, kind, name, size) {
                Ok(tail) if self.shielded.contains(&name) || self.open.contains(&tail.directory.run) => {
                    self.shielded.insert(name);
                    self.shielded_chunks.extend(tail.directory.chunks.iter().map(|c| record_key(&c.id)));
                }
                Ok(_) => {}
                // Gone at this moment is fine; what cannot be read is left alone by the sweep.
                Err(e) if e.is_damage() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Why a listing lacks what this collector has put: another one ended its run, or the listing is not to be trusted.
pub(super) fn unseen(repository: &Repository, own: &RunId, what: &str) -> Error {
    let reason = "it does not show what this process has just put there; nothing was deleted".to_owned();
    ended_or(repository, own, Error::Damaged { what: format!("the listing of {what}"), reason })
}

/// What explains that something of a collector's own run is not there: another has declared the run void, or has used
/// its name (a clone of this machine). If neither, `otherwise`.
pub(super) fn ended_or(repository: &Repository, own: &RunId, otherwise: Error) -> Error {
    match repository.outcome(own) {
        Ok(Outcome::Void | Outcome::Committed) => Error::Voided { run: own.to_string() },
        Err(e) if !e.is_damage() => e,
        _ => otherwise,
    }
}
