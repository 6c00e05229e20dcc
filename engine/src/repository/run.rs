//! Runs: announce, verify, commit (SPEC 14). A backup is safe beside any prune because it says what it relies on
//! before it looks whether that is still there, and because its verdict is one put-if-absent.

use super::Repository;
use super::pack::object_name;
use crate::backend::{BackendError, Put};
use crate::error::{Error, Result};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Announcement, Checkpoint, Mark, Pin, RunKind};
use bulla_repo_format::snapshot::{Head, Snapshot, Verdict};
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use std::collections::{BTreeMap, HashSet};

/// A pack another run wrote and this one relies on, as the index lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignPack {
    /// The pack.
    pub name: PackName,
    /// Data or metadata.
    pub kind: PackKind,
    /// The size it must have: a cut object is as good as none.
    pub size: u64,
}

/// Announcements of one run.
#[derive(Default)]
pub(crate) struct Announced {
    pub(crate) numbers: Vec<u32>,
    /// Those that could be read.
    pub(crate) read: Vec<Announcement>,
    /// Why one could not be read: then nobody knows what the run relies on.
    pub(crate) unreadable: Option<String>,
    /// The newest, by the store's clock.
    pub(crate) newest: i64,
}

impl Announced {
    /// True if no announcement of the run can commit anything.
    pub(crate) fn is_reader(&self) -> bool {
        !self.read.is_empty() && self.read.iter().all(|a| a.kind == RunKind::Reader)
    }
}

/// A run without verdict.
pub struct Run<'r> {
    repository: &'r Repository,
    id: RunId,
    kind: RunKind,
    next: u32,
    /// False once a put of the verdict was tried: then only a collector may remove the announcements.
    removable: bool,
}

impl<'r> Run<'r> {
    /// Opens a run by announcing it with its pins, durably, then looks whether each pin is alive: the pins that
    /// are not are returned and must not be used (w0). That they are snapshots the caller has read: a verdict never
    /// changes and stays until a death is durable, so that there is no death now says that it is alive now.
    pub fn open(repository: &'r Repository, kind: RunKind, pins: &[Pin]) -> Result<(Self, Vec<Pin>)> {
        let id = RunId::new(repository.env().random());
        let mut run = Self { repository, id, kind, next: 0, removable: true };
        run.announce(pins, false, &[])?;
        let mut dead = Vec::new();
        for pin in pins {
            if !repository.lives_on(&pin.snapshot)? {
                dead.push(*pin);
            }
        }
        Ok((run, dead))
    }

    /// The run's id, which becomes the snapshot's.
    pub fn id(&self) -> RunId {
        self.id
    }

    /// Puts the next announcement, durably.
    pub fn announce(&mut self, pins: &[Pin], verified: bool, packs: &[PackName]) -> Result<()> {
        self.put(pins, verified, packs, None)
    }

    /// Announces how far the run has come, or, without a checkpoint, that it lives.
    pub fn checkpoint(&mut self, pins: &[Pin], checkpoint: Option<Checkpoint>) -> Result<()> {
        self.put(pins, true, &[], checkpoint)
    }

    fn put(
        &mut self,
        pins: &[Pin],
        verified: bool,
        packs: &[PackName],
        checkpoint: Option<Checkpoint>,
    ) -> Result<()> {
        let announcement = Announcement {
            run: self.id,
            number: self.next,
            client: self.repository.client().id(),
            kind: self.kind,
            pins: pins.to_vec(),
            verified,
            packs: packs.to_vec(),
            checkpoint,
        };
        let name = ObjectName::Announcement(self.id, self.next);
        let put = self.repository.put_object(&name, ObjectType::Announcement, announcement.encode())?;
        if put == Put::Exists {
            // Only a clone of this very process can have written it: two histories under one run are one too many.
            return Err(Error::Voided { run: self.id.to_string() });
        }
        self.repository.backend().flush()?;
        self.next += 1;
        Ok(())
    }

    /// Those of `packs` that are marked, missing or of another size now; call it after announcing them (w3).
    pub fn unreliable(&self, packs: &[ForeignPack]) -> Result<Vec<PackName>> {
        if packs.is_empty() {
            return Ok(Vec::new());
        }
        let marked = self.repository.marked_packs()?;
        let mut bad = Vec::new();
        for pack in packs {
            let object = object_name(pack.kind, pack.name);
            let there = self.repository.backend().stat(&object)?.is_some_and(|s| s.size == pack.size);
            if marked.contains(&pack.name) || !there {
                bad.push(pack.name);
            }
        }
        Ok(bad)
    }

    /// Commits: the one put-if-absent that makes the snapshot exist. Everything it needs must be durable (w4, w5).
    pub fn commit(mut self, snapshot: Snapshot) -> Result<Snapshot> {
        let name = ObjectName::Verdict(self.id);
        let verdict = Verdict::Snapshot(Box::new(snapshot));
        self.removable = false;
        let put = self.repository.put_object(&name, ObjectType::Verdict, verdict.encode());
        if !matches!(put, Ok(Put::Created)) {
            // Undecided or taken: what stands there decides.
            match self.repository.read_verdict(&self.id) {
                Ok(read) if read.verdict == verdict => {}
                Ok(_) => return Err(Error::Voided { run: self.id.to_string() }),
                Err(e) => return Err(put.err().unwrap_or(e)),
            }
        }
        self.repository.backend().flush()?;
        // A clone of this machine may have used this very id before: what was committed under it then is dead by now,
        // or this put would not have been the first.
        match self.repository.is_dead(&self.id) {
            Ok(true) => return Err(Error::Voided { run: self.id.to_string() }),
            Err(e) if !e.is_damage() => return Err(e),
            _ => {}
        }
        self.remove_announcements();
        match verdict {
            Verdict::Snapshot(s) => {
                let hash = self.repository.keyring().body_hash(&Verdict::Snapshot(s.clone()).encode());
                // The snapshot stands; a state that cannot be written must not make its caller think otherwise.
                let _ = self.repository.remember(Head { id: s.id, hash });
                Ok(*s)
            }
            Verdict::Void { .. } => Err(Error::Voided { run: self.id.to_string() }),
        }
    }

    /// Announcements of a run with a verdict say nothing any more; leaving one behind is harmless.
    fn remove_announcements(&mut self) {
        for k in 0..std::mem::take(&mut self.next) {
            let _ = self.repository.backend().delete(&ObjectName::Announcement(self.id, k));
        }
    }
}

impl Drop for Run<'_> {
    /// A run that failed before it tried to commit takes its announcements back.
    fn drop(&mut self) {
        if self.removable {
            self.remove_announcements();
        }
    }
}

impl Repository {
    /// When a run was announced, by the store's clock.
    pub(crate) fn announced_at(&self, run: &RunId) -> Result<Option<i64>> {
        let stat = self.backend().stat(&ObjectName::Announcement(*run, 0))?;
        Ok(stat.map(|stat| stat.modified))
    }

    /// How far the store's clock is from this machine's now, in seconds: a reader is announced and withdrawn, which says
    /// nothing to anybody.
    pub(crate) fn clocks_apart(&self) -> Result<u64> {
        let clock = &self.env().clock;
        let before = clock.now().seconds;
        let (run, _) = Run::open(self, RunKind::Reader, &[])?;
        let after = clock.now().seconds;
        let Some(there) = self.announced_at(&run.id())? else {
            let reason = "the store does not show what was just put there".to_owned();
            return Err(Error::Damaged { what: ObjectName::Announcement(run.id(), 0).to_string(), reason });
        };
        // A put may take long.
        let between = (before.min(after)..=before.max(after)).contains(&there);
        Ok(if between { 0 } else { there.abs_diff(before).min(there.abs_diff(after)) })
    }

    /// `snap/S` is a snapshot and there is no authentic `gone/S`; `check` reports a forged one. The order of the two
    /// requests matters (SPEC 14).
    pub fn alive(&self, snapshot: &RunId) -> Result<bool> {
        match self.read_verdict(snapshot) {
            Ok(read) if matches!(read.verdict, Verdict::Snapshot(_)) => {}
            Ok(_) => return Ok(false),
            Err(Error::Backend(BackendError::NotFound { .. })) => return Ok(false),
            Err(e) => return Err(e),
        }
        self.lives_on(snapshot)
    }

    /// The same of what was read as a snapshot before.
    fn lives_on(&self, snapshot: &RunId) -> Result<bool> {
        match self.is_dead(snapshot) {
            Ok(dead) => Ok(!dead),
            Err(Error::Object { .. }) => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// All announcements by run. One that vanishes between listing and reading was withdrawn.
    pub(crate) fn announcements(&self) -> Result<BTreeMap<RunId, Announced>> {
        let listed =
            self.backend().list(Area::Announcements)?.into_iter().filter_map(|(name, _)| match name {
                ObjectName::Announcement(run, number) => Some((run, number)),
                _ => None,
            });
        self.read_announcements(listed)
    }

    /// The same of a listing at hand.
    pub(crate) fn read_announcements(
        &self,
        listed: impl IntoIterator<Item = (RunId, u32)>,
    ) -> Result<BTreeMap<RunId, Announced>> {
        let mut out: BTreeMap<RunId, Announced> = BTreeMap::new();
        for (run, number) in listed {
            let name = ObjectName::Announcement(run, number);
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

    /// Reads `pend/<run>.<number>`, signature checked.
    pub(crate) fn read_announcement(&self, run: &RunId, number: u32) -> Result<Announcement> {
        let name = ObjectName::Announcement(*run, number);
        let (body, signature) = self.get_object(&name, ObjectType::Announcement)?;
        let read = Announcement::decode(&body, run, number).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Announcement, &read.client, &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(read)
    }

    /// Packs condemned by any collector. A mark that cannot be read stops the caller: it may condemn anything.
    pub fn marked_packs(&self) -> Result<HashSet<PackName>> {
        Ok(self.marks()?.into_iter().flat_map(|m| m.victims).collect())
    }

    /// Packs condemned because they were found damaged: as good as lost to whoever looks for a chunk (SPEC 12.3).
    pub fn damaged_packs(&self) -> Result<HashSet<PackName>> {
        Ok(self.marks()?.into_iter().filter(|m| m.damaged).flat_map(|m| m.victims).collect())
    }

    /// All marks, in no order.
    pub(crate) fn marks(&self) -> Result<Vec<Mark>> {
        self.read_marks(&self.list_runs(Area::Marks)?)
    }

    /// The same of a listing at hand.
    pub(crate) fn read_marks(&self, runs: &[RunId]) -> Result<Vec<Mark>> {
        runs.iter().filter_map(|run| self.read_mark(run).transpose()).collect()
    }

    /// Reads `marks/<run>`, signature checked; `None` if there is none.
    pub(crate) fn read_mark(&self, run: &RunId) -> Result<Option<Mark>> {
        let name = ObjectName::Mark(*run);
        let (body, signature) = match self.get_object(&name, ObjectType::Mark) {
            Err(e) if e.is_missing() => return Ok(None),
            other => other?,
        };
        let mark = Mark::decode(&body, run).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Mark, &mark.client, &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(Some(mark))
    }
}
