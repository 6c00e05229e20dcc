//! What can go wrong, in two families that never mix: [`Error`] is about the repository (exit 1 and friends),
//! [`SourceError`] about something that was to be backed up (exit 3). There is no conversion between them.

use crate::backend::BackendError;
use bulla_repo_format::{FormatError, ObjectName};
use std::path::PathBuf;
use thiserror::Error as ThisError;

/// The result of every verb.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a verb on a repository failed.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// There is no repository at the place named.
    #[error("there is no repository at {place}")]
    NoRepository {
        /// Where it was looked for.
        place: String,
    },
    /// `init` where one exists already.
    #[error("there is a repository at {place} already")]
    RepositoryExists {
        /// Where.
        place: String,
    },
    /// No slot opens with the secret given.
    #[error("wrong password or key: none of the {slots} key slots opens with it")]
    WrongSecret {
        /// Slots of a fitting kind that were tried.
        slots: usize,
    },
    /// The store failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// An object's bytes are not what they must be.
    #[error("{object}: {source}")]
    Object {
        /// The object.
        object: String,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A format rule was broken outside any object, which is a bug of a writer.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Content that snapshots refer to is missing or altered.
    #[error("{what} is damaged: {reason}")]
    Damaged {
        /// The chunk, node or object.
        what: String,
        /// Why.
        reason: String,
    },
    /// No snapshot fits a selector.
    #[error("no snapshot matches {selector:?}")]
    UnknownSnapshot {
        /// As typed.
        selector: String,
    },
    /// An id prefix fits several snapshots.
    #[error("{selector:?} is ambiguous: it matches {}", candidates.join(", "))]
    AmbiguousSnapshot {
        /// As typed.
        selector: String,
        /// What it matches.
        candidates: Vec<String>,
    },
    /// A path is not in a snapshot.
    #[error("{path} is not in snapshot {snapshot}")]
    UnknownPath {
        /// The path, escaped.
        path: String,
        /// The snapshot's short id.
        snapshot: String,
    },
    /// The repository needs a newer writer.
    #[error(
        "this repository may only be read by this version: it uses features (ro_compat {flags:#x}) that it does not know"
    )]
    ReadOnlyFeature {
        /// The flags.
        flags: u64,
    },
    /// Another run voided this one, or wrote under its name.
    #[error("run {run} was expired by another client while it ran; nothing was committed, run it again")]
    Voided {
        /// The run.
        run: String,
    },
    /// The store shows an older state than was seen before, or lacks what is on record.
    #[error("the repository was set back, or has lost something: {reason}")]
    RolledBack {
        /// What gave it away.
        reason: String,
    },
    /// What this run had looked at is not so any more; nothing was harmed.
    #[error("{what} while this ran; run it again")]
    Overtaken {
        /// What happened.
        what: String,
    },
    /// A local file operation failed (cache, target, key file).
    #[error("cannot {verb} {}: {source}", path.display())]
    Io {
        /// What was tried, as in `create`.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// What the caller asked for contradicts itself or is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The caller asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// Attributes a format error to an object.
    pub fn object(name: &ObjectName, source: FormatError) -> Self {
        Self::Object { object: name.to_string(), source }
    }
    /// An `io::Error` with what was tried and where; the only way to make one.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { verb, path: path.into(), source }
    }
    /// True when an object is not there.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Backend(BackendError::NotFound { .. }))
    }
    /// True when the store said that it cannot read or write, which a bad sector and a bad cable both do.
    pub fn is_io(&self) -> bool {
        matches!(self, Self::Backend(BackendError::Io { .. }))
    }
    /// True for what another attempt may get past, somewhat later: a store that could not be reached, or somebody else's
    /// work that this ran into. Not damage, a wrong secret, a full store, or what is not allowed.
    pub fn may_pass(&self) -> bool {
        self.is_io() || matches!(self, Self::Voided { .. } | Self::Overtaken { .. })
    }
    /// True when content or objects are damaged, as opposed to unreachable.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged { .. } | Self::Object { .. })
            || matches!(
                self,
                Self::Backend(
                    BackendError::NotFound { .. } | BackendError::Short { .. } | BackendError::TooLong { .. }
                )
            )
    }
}

/// Why an entry of the source could not be captured whole. Its siblings are.
#[derive(Debug, ThisError)]
#[error("cannot {verb} {}: {reason}", crate::observer::escape(path))]
pub struct SourceError {
    /// The path, raw bytes, as the user named it (absolute).
    pub path: Vec<u8>,
    /// What was tried.
    pub verb: &'static str,
    /// Why it failed.
    pub reason: String,
}

impl SourceError {
    /// From an OS error.
    pub fn new(verb: &'static str, path: impl Into<Vec<u8>>, reason: impl ToString) -> Self {
        Self { path: path.into(), verb, reason: reason.to_string() }
    }
}
