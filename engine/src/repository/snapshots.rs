//! Snapshots: which are alive, and which one a user means.

use super::Repository;
use super::index::index_names_in;
use crate::error::{Error, Result};
use crate::observer::escape;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::limits::OBJECT_MAX;
use bulla_repo_format::record::{Death, Forget};
use bulla_repo_format::snapshot::{Head, Snapshot, Verdict};
use bulla_repo_format::tree::is_within;
use bulla_repo_format::{Area, IndexName, ObjectName, RunId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// Which snapshots are meant. Empty fields match everything.
#[derive(Debug, Clone, Default)]
pub struct SnapshotFilter {
    /// Any of these hosts.
    pub hosts: Vec<String>,
    /// Any of these sets of tags, all tags of a set.
    pub tags: Vec<Vec<String>>,
    /// All of these paths were asked for, or lie below one that was.
    pub paths: Vec<Vec<u8>>,
}

impl SnapshotFilter {
    /// True when a snapshot fits.
    pub fn matches(&self, s: &Snapshot) -> bool {
        let host = self.hosts.is_empty() || self.hosts.contains(&s.host);
        let tags = self.tags.is_empty() || self.tags.iter().any(|set| set.iter().all(|t| s.tags.contains(t)));
        let trim = |p: &[u8]| p.strip_prefix(b"/").unwrap_or(p).to_vec();
        let covers = |p: &Vec<u8>| s.paths.iter().any(|have| is_within(&trim(p), &trim(have)));
        host && tags && self.paths.iter().all(covers)
    }
}

/// What the store shows of snapshots.
pub(crate) struct Listed {
    /// Alive, with their heads, oldest first.
    pub(crate) alive: Vec<(Snapshot, Head)>,
    /// Verdicts and deaths that could not be read.
    pub(crate) failed: Vec<Error>,
    /// Names of verdicts.
    pub(crate) verdicts: BTreeSet<RunId>,
    /// Names of deaths.
    pub(crate) gone: HashSet<RunId>,
    /// Names of forgets.
    forgets: Vec<RunId>,
}

/// Where a client's next snapshot stands in its lineage (SPEC 11).
pub(crate) struct Position {
    /// This client's snapshots that no other of its snapshots follows.
    pub(crate) heads: Vec<Head>,
    /// The next sequence number.
    pub(crate) seq: u64,
    /// All snapshots seen.
    pub(crate) seen: Vec<RunId>,
}

impl Position {
    /// After the snapshots that are alive.
    pub(crate) fn of(repository: &Repository, alive: &[(Snapshot, Head)]) -> Self {
        let own: Vec<_> = alive.iter().filter(|(s, _)| s.client == repository.client().id()).collect();
        let followed: HashSet<RunId> = own.iter().flat_map(|(s, _)| s.prev.iter().map(|h| h.id)).collect();
        Self {
            heads: own.iter().filter(|(s, _)| !followed.contains(&s.id)).map(|(_, h)| *h).collect(),
            seq: own.iter().map(|(s, _)| s.seq).max().unwrap_or(0).saturating_add(1),
            seen: alive.iter().map(|(s, _)| s.id).collect(),
        }
    }
}

/// The runs that names of one area are about.
pub(crate) fn runs_in(listed: Vec<(ObjectName, u64)>) -> Vec<RunId> {
    let run = |(name, _)| match name {
        ObjectName::Verdict(r)
        | ObjectName::Death(r)
        | ObjectName::Mark(r)
        | ObjectName::Hold(r)
        | ObjectName::Forget(r) => Some(r),
        ObjectName::Announcement(r, _) => Some(r),
        _ => None,
    };
    listed.into_iter().filter_map(run).collect()
}

/// A verdict as it was read, with the hash lineages name it by.
pub(crate) struct ReadVerdict {
    pub(crate) verdict: Verdict,
    pub(crate) head: Head,
}

impl Repository {
    /// Reads `snap/<run>`, signature checked.
    pub(crate) fn read_verdict(&self, run: &RunId) -> Result<ReadVerdict> {
        let name = ObjectName::Verdict(*run);
        self.open_verdict(run, &self.backend().get(&name, OBJECT_MAX)?)
    }

    /// Opens the bytes of a verdict, signature checked.
    pub(crate) fn open_verdict(&self, run: &RunId, bytes: &[u8]) -> Result<ReadVerdict> {
        let name = ObjectName::Verdict(*run);
        let (body, signature) =
            self.open_object(ObjectType::Verdict, bytes).map_err(|e| Error::object(&name, e))?;
        let verdict = Verdict::decode(&body, run).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Verdict, &verdict.client(), &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(ReadVerdict { verdict, head: Head { id: *run, hash: self.keyring().body_hash(&body) } })
    }

    /// `gone/<snapshot>` is there, authentic and about this snapshot. Under that name alone anything may lie: the store
    /// could hide a snapshot, or have its data swept, with an empty file (SPEC 13, R-TRUST-3).
    pub(crate) fn is_dead(&self, snapshot: &RunId) -> Result<bool> {
        Ok(self.read_death(snapshot)?.is_some())
    }

    /// Reads `gone/<snapshot>`, signature and hash checked; `None` if there is none.
    pub(crate) fn read_death(&self, snapshot: &RunId) -> Result<Option<Death>> {
        let name = ObjectName::Death(*snapshot);
        let (body, signature) = match self.get_object(&name, ObjectType::Death) {
            Err(Error::Backend(crate::backend::BackendError::NotFound { .. })) => return Ok(None),
            other => other?,
        };
        let death = Death::decode(&body, snapshot).map_err(|e| Error::object(&name, e))?;
        death.check_hash(self.keyring()).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Death, &death.client, &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(Some(death))
    }

    /// Snapshots that are alive, with their heads, oldest first; and the verdicts that could not be read.
    pub(crate) fn read_snapshots(&self) -> Result<Listed> {
        let areas = [Area::Forgets, Area::Deaths, Area::Verdicts];
        self.snapshots_in(self.backend().list_many(&areas)?)
    }

    /// The same, and the index runs that were there meanwhile: where listings are one request they cost nothing more.
    pub(crate) fn read_snapshots_and_index_names(&self) -> Result<(Listed, HashSet<IndexName>)> {
        let areas = [Area::Forgets, Area::Deaths, Area::Index, Area::Verdicts];
        let mut listed = self.backend().list_many(&areas)?;
        let index = if listed.len() > 2 { listed.remove(2) } else { Vec::new() };
        Ok((self.snapshots_in(listed)?, index_names_in(index).into_iter().collect()))
    }

    /// Of the listings of forgets, deaths and verdicts.
    fn snapshots_in(&self, listed: Vec<Vec<(ObjectName, u64)>>) -> Result<Listed> {
        let mut listed = listed.into_iter().map(runs_in);
        let mut next = || listed.next().unwrap_or_default();
        let forgets = next();
        let gone: HashSet<RunId> = next().into_iter().collect();
        let verdicts: BTreeSet<RunId> = next().into_iter().collect();
        let (mut alive, mut failed) = (Vec::new(), Vec::new());
        for &run in &verdicts {
            if gone.contains(&run) {
                match self.is_dead(&run) {
                    Ok(true) => continue,
                    Ok(false) => {}
                    Err(e) => failed.push(e),
                }
            }
            let bytes = self.backend().get_listed(&ObjectName::Verdict(run), OBJECT_MAX);
            match bytes.map_err(Error::from).and_then(|bytes| self.open_verdict(&run, &bytes)) {
                Ok(ReadVerdict { verdict: Verdict::Snapshot(s), head }) => alive.push((*s, head)),
                Ok(_) => {}
                // A collector removes a dead snapshot; this one died after the first listing.
                Err(e) if e.is_missing() && self.is_dead(&run).is_ok_and(|dead| dead) => {}
                Err(e) => failed.push(e),
            }
        }
        alive.sort_by_key(|(s, _)| (s.start, s.id));
        Ok(Listed { alive, failed, verdicts, gone, forgets })
    }

    /// Snapshots that are alive and not forgotten, oldest first. One that cannot be read is an error: see
    /// [`crate::check`] for which.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        let listed = self.read_snapshots()?;
        let forgotten = self.forgotten_among(&listed)?;
        if let Some(e) = listed.failed.into_iter().next() {
            return Err(e);
        }
        Ok(listed.alive.into_iter().map(|(s, _)| s).filter(|s| !forgotten.contains_key(&s.id)).collect())
    }

    /// Forgets that are authentic, by snapshot. Others are ignored, as `check` reports: a store must not hide a
    /// snapshot with an empty file.
    pub fn forgotten(&self) -> Result<HashMap<RunId, Forget>> {
        self.read_forgets(&self.list_runs(Area::Forgets)?)
    }

    /// The same of a listing at hand.
    pub(crate) fn forgotten_among(&self, listed: &Listed) -> Result<HashMap<RunId, Forget>> {
        self.read_forgets(&listed.forgets)
    }

    fn read_forgets(&self, ids: &[RunId]) -> Result<HashMap<RunId, Forget>> {
        let mut out = HashMap::new();
        for &id in ids {
            match self.read_forget(&id) {
                Ok(Some(forget)) => drop(out.insert(id, forget)),
                Ok(None) => {}
                Err(e) if e.is_damage() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }

    /// A new edition of a snapshot: the same tree, described as it was, in this client's lineage.
    pub(crate) fn new_edition(&self, old: &Snapshot, id: RunId) -> Result<Snapshot> {
        let alive = self.read_snapshots()?.alive;
        let position = Position::of(self, &alive);
        Ok(Snapshot {
            id,
            client: self.client().id(),
            seq: position.seq,
            prev: position.heads,
            seen: position.seen,
            config_generation: self.config().generation,
            origin: Some(old.id),
            ..old.clone()
        })
    }

    /// All readable snapshots that are alive, forgotten ones included, and the errors of the others.
    pub fn readable_snapshots(&self) -> Result<(Vec<Snapshot>, Vec<Error>)> {
        let Listed { alive, failed, .. } = self.read_snapshots()?;
        Ok((alive.into_iter().map(|(s, _)| s).collect(), failed))
    }

    pub(crate) fn list_runs(&self, area: Area) -> Result<Vec<RunId>> {
        Ok(runs_in(self.backend().list(area)?))
    }

    /// The snapshot, and the path below it, that `selector` names: `ID[:/path]`, where ID is a full id, a unique
    /// prefix, `latest`, or `latest~N` for the N-th before it. A snapshot that cannot be read is in the way of
    /// none but itself.
    pub fn resolve(&self, selector: &str, filter: &SnapshotFilter) -> Result<(Snapshot, Vec<u8>)> {
        let (word, path) = selector.split_once(':').map_or((selector, ""), |(w, p)| (w, p));
        let path = crate::repository::snapshots::clean_path(path.as_bytes());
        let unknown = || Error::UnknownSnapshot { selector: word.to_owned() };
        let Listed { alive: all, mut failed, .. } = self.read_snapshots()?;
        let mut fitting: Vec<_> = all.into_iter().map(|(s, _)| s).filter(|s| filter.matches(s)).collect();
        if let Some(rest) = word.strip_prefix("latest") {
            let forgotten = self.forgotten()?;
            fitting.retain(|s| !forgotten.contains_key(&s.id));
            let back = match rest.strip_prefix('~') {
                Some(n) => n.parse::<usize>().map_err(|_| unknown())?,
                None if rest.is_empty() => 0,
                None => return Err(unknown()),
            };
            let at = fitting.len().checked_sub(back + 1).ok_or_else(unknown)?;
            return Ok((fitting.swap_remove(at), path));
        }
        if word.len() < 4 || !word.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(unknown());
        }
        let wanted = word.to_lowercase();
        fitting.retain(|s| s.id.to_string().starts_with(&wanted));
        match fitting.len() {
            0 => Err(failed
                .drain(..)
                .find(|e| matches!(e, Error::Object { object, .. } if object.contains(&wanted)))
                .unwrap_or_else(unknown)),
            1 => Ok((fitting.swap_remove(0), path)),
            _ => Err(Error::AmbiguousSnapshot {
                selector: escape(word.as_bytes()),
                candidates: fitting.iter().map(|s| s.id.short()).collect(),
            }),
        }
    }
}

/// A path as users type it, as the tree spells it: no leading, trailing or double slash, no `.`.
pub fn clean_path(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    parts.join(&b'/')
}
