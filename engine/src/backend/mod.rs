//! Where objects lie: the storage seam. Synchronous; a backend that is asynchronous inside hides it.
//!
//! # Contract
//! - A name is written once. [`Backend::put`] never replaces: it answers [`Put::Created`] or [`Put::Exists`], and
//!   of several writers of one name exactly one is told `Created`.
//! - What `put` wrote and `delete` removed is durably so after the next [`Backend::flush`] that succeeds, and visible
//!   to `get` and `list` at once. A failed flush is final for this process: nothing is retried, the run fails.
//! - A reader never sees a part of an object.
//! - `list` gives every object that existed before the call and was not deleted meanwhile, in any order, and
//!   nothing that is not an object (temporary files, strangers).
//! - `delete` of an absent object succeeds. A delete is durable after the next flush, too.
//! - `stat` tells when the *store* says that the object was put. Such times are compared with each other only, never
//!   with a clock of this machine, and only to be patient: no value of them makes live data deletable (SPEC 14).
//! - Every error names the object.

mod disk;
mod local;
mod memory;
mod nearby;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod throttle;

pub use local::Local;
pub use memory::Memory;
pub use nearby::Nearby;
pub use throttle::Throttle;

use bulla_repo_format::{Area, ObjectName};
use thiserror::Error;

/// What a put found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is there now, and this call made it.
    Created,
    /// An object of that name was there already; nothing was written.
    Exists,
}

/// What a store can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Where it is, for messages; never contains a credential.
    pub place: String,
    /// Reading is local and cheap: small ranges are as good as large ones, and a copy nearer by is of no use.
    pub local: bool,
    /// Operations that are worth having under way at once, at least 1: what one waits for is a disk or a distance.
    pub connections: usize,
}

/// Who is bound by an object's retention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// All but those who may bypass it.
    Governance,
    /// Everybody, the owner of the account as well.
    Compliance,
}

/// Until when an object can neither be deleted nor replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Who is bound.
    pub mode: LockMode,
    /// Its end: seconds since 1970, by the store's clock.
    pub until: i64,
}

/// What a store says about an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Bytes.
    pub size: u64,
    /// When it was put, by the store's clock: seconds since 1970.
    pub modified: i64,
}

/// Why a store failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The object is not there.
    #[error("{object} is missing from {place}")]
    NotFound {
        /// The object.
        object: String,
        /// The store.
        place: String,
    },
    /// The object is shorter than the range asked for.
    #[error("{object} in {place} is too short: wanted bytes up to {wanted}, it has {size}")]
    Short {
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// End of the range.
        wanted: u64,
        /// Its size.
        size: u64,
    },
    /// The object is longer than anything of its kind can be; nothing of it was read.
    #[error("{object} in {place} has {size} bytes, more than the {limit} it can have")]
    TooLong {
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// Its size.
        size: u64,
        /// The most it can have.
        limit: u64,
    },
    /// No space is left.
    #[error("no space left in {place} (while writing {object})")]
    NoSpace {
        /// The object.
        object: String,
        /// The store.
        place: String,
    },
    /// The store may only be read, or the user may not do this.
    #[error("cannot {verb} {object} in {place}: {source}")]
    Denied {
        /// What was tried.
        verb: &'static str,
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// The OS's words.
        source: std::io::Error,
    },
    /// Anything else.
    #[error("cannot {verb} {object} in {place}: {source}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The object.
        object: String,
        /// The store.
        place: String,
        /// The OS's words.
        source: std::io::Error,
    },
}

impl BackendError {
    /// Sorts an OS error into the kinds callers act on.
    pub fn from_io(verb: &'static str, object: String, place: String, source: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match source.kind() {
            ErrorKind::NotFound => Self::NotFound { object, place },
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace { object, place },
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                Self::Denied { verb, object, place, source }
            }
            _ => Self::Io { verb, object, place, source },
        }
    }
}

/// The result of a backend call.
pub type Result<T> = std::result::Result<T, BackendError>;

/// A store of write-once objects. See the module for the contract.
pub trait Backend: Send + Sync {
    /// What this store is and can do.
    fn describe(&self) -> Capabilities;
    /// True if put-if-absent is exact (SPEC 15). Without it runs never expire by themselves. May ask the store, once.
    fn conditional_put(&self) -> Result<bool>;
    /// Writes the concatenation of `parts` under `name` unless it exists.
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put>;
    /// Makes everything put so far durable.
    fn flush(&self) -> Result<()>;
    /// Reads a whole object of at most `limit` bytes.
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>>;
    /// As [`Backend::get`], from where the object is stored and not from a cache on the way, as far as that can be
    /// asked for: what a check reads to prove that it is there.
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.get(name, limit)
    }
    /// As [`Backend::get`], of an object that a listing has just shown: since a name is written once, a copy nearby is as
    /// good. Not for asking whether the object is still there.
    fn get_listed(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.get(name, limit)
    }
    /// Reads exactly `len` bytes at `offset`.
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>>;
    /// All objects of an area with their sizes.
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>>;
    /// The listings of several areas, each begun after the one before it or all at one moment: in as few requests as the
    /// store can, if the areas are in the order of their names.
    fn list_many(&self, areas: &[Area]) -> Result<Vec<Vec<(ObjectName, u64)>>> {
        areas.iter().map(|area| self.list(*area)).collect()
    }
    /// An object's size and time, or `None`.
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>>;
    /// Removes an object.
    fn delete(&self, name: &ObjectName) -> Result<()>;
    /// Makes durable what *others* put and this process has seen, and waits as long as this store may show old
    /// states. Called before the first step that destroys or relies on what another process made.
    fn settle(&self) -> Result<()> {
        self.flush()
    }
    /// Replaces the bytes of an object whose name is the hash of its content (pack, parity sidecar, index run), which the caller
    /// has checked: the only write that replaces, and it can only put right what is wrong. Who reads meanwhile, and
    /// who reads after a crash, gets the old bytes or the new ones: never to delete and put, since damaged bytes may be
    /// the only ones, and a pack that is missing for a moment looks lost to others. Durable when it returns.
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()>;
    /// True if the store keeps what is deleted until its retention ends, so that a delete hides and frees nothing. May ask
    /// the store, which may not let everybody know: then it is false.
    fn locks_objects(&self) -> Result<bool> {
        Ok(false)
    }
    /// Extends an object's retention. One that lasts longer stays as it is.
    fn retain(&self, name: &ObjectName, _: Retention) -> Result<()> {
        let source = std::io::Error::new(std::io::ErrorKind::Unsupported, "this store has no object lock");
        Err(BackendError::Io {
            verb: "retain",
            object: name.to_string(),
            place: self.describe().place,
            source,
        })
    }
    /// Keeps this many bytes aside, no more and no fewer, so that a prune can run on a full store. A store without such a limit
    /// keeps none.
    fn reserve(&self, _bytes: u64) -> Result<()> {
        Ok(())
    }
}
