//! What a protocol has to do: one attempt at one operation, on paths below the repository. Everything that is the same
//! for all of them — trying again, answers that were lost, names, errors in words — is [`crate::remote`]'s.

use std::time::Duration;

pub use bulla_engine::backend::{LockMode, Put, Retention, Stat};

/// Whether a put may replace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It answers [`Put::Exists`] where something is.
    New,
    /// Readers see the old bytes or the new ones, never a part.
    Replace,
}

/// What is wanted of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it, if it has at most this many bytes.
    Whole {
        /// The most that is read.
        limit: u64,
    },
    /// Exactly these bytes.
    Range {
        /// The first.
        offset: u64,
        /// How many; not 0.
        len: usize,
    },
}

/// A piece of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Names without the directory, and sizes.
    pub entries: Vec<(String, u64)>,
    /// Where the next piece begins, if there is one.
    pub next: Option<String>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Another attempt may succeed; not before this, if the store said so. Whether a put or delete took effect is unknown.
    Passing {
        /// The store's `Retry-After`.
        after: Option<Duration>,
    },
    /// There is no such object.
    Missing,
    /// The credentials do not allow it.
    Denied,
    /// No space, or no quota.
    Full,
    /// The object ends before the range does.
    Short {
        /// Its size, if the store said it.
        size: Option<u64>,
    },
    /// The object is larger than the limit.
    TooLong {
        /// Its size.
        size: u64,
    },
    /// Nothing of the kind; trying again is of no use.
    Final,
}

/// A failed attempt. The text is for people and never holds a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub kind: Kind,
    /// What happened.
    pub text: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// One that may pass.
    pub fn passing(text: impl Into<String>) -> Self {
        Self::new(Kind::Passing { after: None }, text)
    }

    /// One that will not.
    pub fn last(text: impl Into<String>) -> Self {
        Self::new(Kind::Final, text)
    }
}

/// The result of an attempt.
pub type Attempt<T> = Result<T, Failure>;

/// A protocol. Paths are `area/name`; a directory is an area's. Called by several threads at once.
pub trait Store: Send + Sync {
    /// Where it is, for messages: never with a credential.
    fn place(&self) -> String;
    /// Makes what an empty repository needs before its first put: directories, where the store has such.
    fn prepare(&self) -> Attempt<()>;
    /// Puts the concatenation of `parts`, durably: what is acknowledged stays, whatever an earlier attempt that broke off
    /// may yet do at the server.
    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put>;
    /// Reads.
    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>>;
    /// Lists a directory, from the place where the page before ended. An absent directory is empty.
    fn list(&self, dir: &str, from: Option<&str>) -> Attempt<Page>;
    /// A piece of the listing of everything, with paths for names, that begins behind `path`; `None` from a store that takes
    /// a request for each directory.
    fn list_behind(&self, _path: &str) -> Option<Attempt<Page>> {
        None
    }
    /// Size and time, or `None`.
    fn stat(&self, path: &str) -> Attempt<Option<Stat>>;
    /// Removes; what is absent is removed already.
    fn delete(&self, path: &str) -> Attempt<()>;
    /// True if deletes hide and free nothing.
    fn locks_objects(&self) -> Attempt<bool> {
        Ok(false)
    }
    /// Extends an object's retention; one that lasts longer stays.
    fn retain(&self, _path: &str, _: Retention) -> Attempt<()> {
        Err(Failure::last("this kind of store has no object lock"))
    }
    /// True if [`Mode::New`] is exact: of several writers at once one is told [`Put::Created`]. May ask the store.
    fn exact(&self) -> Attempt<bool>;
    /// Operations that are worth having under way at once.
    fn connections(&self) -> usize;
}

/// True in areas in which two writers may come to the same name with different bytes. Everywhere else a name belongs to one.
pub(crate) fn contested(path: &str) -> bool {
    ["config/", "records/", "snap/"].iter().any(|area| path.starts_with(area))
}
