//! Forget, undelete, protect: what happens to snapshots before a prune ends them. Each is one small object.
//!
//! A forgotten snapshot stays a root until a collector writes its death, so bringing it back copies nothing: it is a
//! backup without changes, pinned to the snapshot (SPEC 14). Kept true: a hold that stands was put before its snapshot
//! was forgotten, and collectors read forgets before holds, so a held snapshot never dies.

mod permit;

pub use permit::{JOB_TAG, Permit, STAY, job_of};

use crate::backend::{BackendError, Put};
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::run::Run;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::ledger::{Fact, Forgotten};
use bulla_repo_format::record::{Forget, Hold, Pin, RunKind};
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::{Area, ObjectName, RunId};
use std::collections::HashSet;

/// Marks snapshots to die once their grace is over; with `now`, at the next prune. Those of a job go on record first. Gives
/// how many were not forgotten before.
///
/// # Errors
/// [`Error::Refused`] if one is held; those before it are forgotten.
pub fn forget(repository: &Repository, permit: &Permit, now: bool) -> Result<usize> {
    repository.require_writable()?;
    // Else forgets could take the last space, and no prune could follow.
    repository.keep_some_reserve()?;
    if permit.is_managed() {
        let (snapshots, evidence) = (permit.drop().to_vec(), permit.evidence().to_vec());
        let fact = Fact::Forgotten(Forgotten { snapshots, reason: permit.reason().to_owned(), evidence });
        with_reserve(repository, || repository.record(&fact))?;
    }
    let mut forgotten = 0;
    for id in permit.drop() {
        forgotten += usize::from(one(repository, id, now, permit.reason())?);
    }
    Ok(forgotten)
}

fn one(repository: &Repository, id: &RunId, now: bool, reason: &str) -> Result<bool> {
    let name = ObjectName::Forget(*id);
    let forget = Forget { snapshot: *id, client: repository.client().id(), now, reason: reason.to_owned() };
    let put = with_reserve(repository, || {
        let put = repository.put_object(&name, ObjectType::Forget, forget.encode())?;
        repository.backend().flush()?;
        Ok(put)
    })?;
    if repository.is_held(id)? {
        // The hold came first, or will not stand: either way it has the last word.
        if put == Put::Created {
            repository.backend().delete(&name)?;
            repository.backend().flush()?;
        }
        return Err(Error::Refused(format!(
            "snapshot {} is protected; `bulla unprotect` it first",
            id.short()
        )));
    }
    Ok(put == Put::Created)
}

/// On a full store letting go comes first, as long as a prune can still free the space. The next one takes the reserve again; no
/// backup starts before.
fn with_reserve<T>(repository: &Repository, write: impl Fn() -> Result<T>) -> Result<T> {
    match write() {
        Err(Error::Backend(BackendError::NoSpace { .. })) => {
            repository.halve_reserve()?;
            write()
        }
        other => other,
    }
}

/// Brings a forgotten snapshot back as a new edition of it, under a new id.
pub fn undelete(repository: &Repository, id: &RunId) -> Result<Snapshot> {
    repository.require_writable()?;
    let old = match repository.read_verdict(id) {
        Ok(read) => match read.verdict {
            Verdict::Snapshot(s) => *s,
            Verdict::Void { .. } => return Err(Error::UnknownSnapshot { selector: id.short() }),
        },
        Err(Error::Backend(BackendError::NotFound { .. })) => return Err(swept(id)),
        Err(e) => return Err(e),
    };
    let pin = Pin { snapshot: *id, tree: old.tree };
    let attempt = || {
        let (run, dead) = Run::open(repository, RunKind::Writer, &[pin])?;
        if !dead.is_empty() {
            return Err(swept(id));
        }
        repository.certify()?;
        let edition = repository.new_edition(&old, run.id())?;
        run.commit(edition)
    };
    for _ in 1..ATTEMPTS {
        match attempt() {
            // A prune took this run for dead.
            Err(Error::Voided { .. }) => {}
            other => return other,
        }
    }
    attempt()
}

/// Attempts before an undelete gives up against prunes that expire it.
const ATTEMPTS: usize = 3;

fn swept(id: &RunId) -> Error {
    let text =
        format!("snapshot {} is gone: a prune has ended it, and what it held may be deleted", id.short());
    Error::Refused(text)
}

/// Keeps a snapshot whatever any policy says, until [`unprotect`].
pub fn protect(repository: &Repository, id: &RunId, reason: &str) -> Result<()> {
    repository.require_writable()?;
    let name = ObjectName::Hold(*id);
    let hold = Hold { snapshot: *id, client: repository.client().id(), reason: reason.to_owned() };
    let put = repository.put_object(&name, ObjectType::Hold, hold.encode())?;
    repository.backend().flush()?;
    let forgotten = repository.backend().stat(&ObjectName::Forget(*id))?.is_some();
    if forgotten || !repository.alive(id)? {
        if put == Put::Created {
            repository.backend().delete(&name)?;
            repository.backend().flush()?;
        }
        let text =
            format!("snapshot {} is forgotten; `bulla undelete` it and protect the new one", id.short());
        return Err(Error::Refused(text));
    }
    Ok(())
}

/// Ends a hold. False if there was none.
pub fn unprotect(repository: &Repository, id: &RunId) -> Result<bool> {
    repository.require_writable()?;
    let name = ObjectName::Hold(*id);
    let held = repository.backend().stat(&name)?.is_some();
    repository.backend().delete(&name)?;
    repository.backend().flush()?;
    Ok(held)
}

impl Repository {
    /// Reads `forget/<id>`, signature checked; `None` if there is none.
    pub fn read_forget(&self, id: &RunId) -> Result<Option<Forget>> {
        let name = ObjectName::Forget(*id);
        let (body, signature) = match self.get_object(&name, ObjectType::Forget) {
            Err(Error::Backend(BackendError::NotFound { .. })) => return Ok(None),
            other => other?,
        };
        let forget = Forget::decode(&body, id).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Forget, &forget.client, &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(Some(forget))
    }

    /// Reads `locks/<id>`, signature checked; `None` if there is none.
    pub fn read_hold(&self, id: &RunId) -> Result<Option<Hold>> {
        let name = ObjectName::Hold(*id);
        let (body, signature) = match self.get_object(&name, ObjectType::Hold) {
            Err(Error::Backend(BackendError::NotFound { .. })) => return Ok(None),
            other => other?,
        };
        let hold = Hold::decode(&body, id).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Hold, &hold.client, &body, &signature)
            .map_err(|e| Error::object(&name, e))?;
        Ok(Some(hold))
    }

    fn is_held(&self, id: &RunId) -> Result<bool> {
        Ok(self.backend().stat(&ObjectName::Hold(*id))?.is_some())
    }

    /// Snapshots that are held, by name alone: a hold nobody can read keeps a snapshot all the same, and `check`
    /// reports it.
    pub fn held(&self) -> Result<HashSet<RunId>> {
        Ok(self.list_runs(Area::Holds)?.into_iter().collect())
    }

    /// The tree a hold keeps. A hold that stands was put before its snapshot was forgotten, so that never dies; one of a
    /// dead snapshot was left by a `protect` that came too late and was cut off, and keeps nothing.
    pub(crate) fn held_tree(&self, id: &RunId) -> Result<Option<Pin>> {
        if !self.alive(id)? {
            return Ok(None);
        }
        match self.read_verdict(id) {
            Ok(read) => Ok(match read.verdict {
                Verdict::Snapshot(s) => Some(Pin { snapshot: *id, tree: s.tree }),
                Verdict::Void { .. } => None,
            }),
            Err(e) if e.is_missing() => Ok(None),
            Err(e) => Err(e),
        }
    }
}
