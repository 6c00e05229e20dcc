//! What can be wrong with bytes. Every variant names the object kind; callers add the object's name.

use thiserror::Error;

/// The result of every decoder.
pub type Result<T> = std::result::Result<T, FormatError>;

/// Why bytes are not a valid object of format 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The bytes end before the value does.
    #[error("{what} is truncated")]
    Truncated {
        /// The structure being read.
        what: &'static str,
    },
    /// A rule of SPEC.md is broken.
    #[error("{what} is invalid: {reason}")]
    Invalid {
        /// The structure being read.
        what: &'static str,
        /// The rule.
        reason: &'static str,
    },
    /// Not an object of bulla, or of a format version this reader does not know.
    #[error("{what} is not an object of bulla format 1 (wrong magic, version or suite)")]
    Foreign {
        /// The structure being read.
        what: &'static str,
    },
    /// Decryption, commitment or signature check failed: altered, swapped, or sealed with another key.
    #[error("{what} does not authenticate: it was altered, or belongs to another key or repository")]
    Unauthentic {
        /// The structure being read.
        what: &'static str,
    },
    /// A number is above the bound of [`crate::limits`].
    #[error("{what} is {value}, the limit is {limit}")]
    Limit {
        /// What was counted.
        what: &'static str,
        /// The value found.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// More of a pack is damaged than its parity can put right (SPEC 18).
    #[error("{damaged} shards of it are damaged and parity is left for {left}")]
    BeyondParity {
        /// Data shards that have none of their hashes.
        damaged: u32,
        /// Recovery shards that are good.
        left: u32,
    },
    /// The config carries an incompatible feature flag this reader does not know (SPEC 5).
    #[error(
        "the repository uses features this version does not know (flags {flags:#x}); a newer bulla is needed"
    )]
    UnknownFeature {
        /// The unknown bits.
        flags: u64,
    },
}

impl FormatError {
    pub(crate) fn invalid(what: &'static str, reason: &'static str) -> Self {
        Self::Invalid { what, reason }
    }
}

/// `Err(Invalid)` unless `holds`.
pub(crate) fn ensure(holds: bool, what: &'static str, reason: &'static str) -> Result<()> {
    if holds { Ok(()) } else { Err(FormatError::Invalid { what, reason }) }
}

/// `Err(Limit)` when `value` is above `limit`.
pub(crate) fn within(what: &'static str, value: u64, limit: u64) -> Result<()> {
    if value <= limit { Ok(()) } else { Err(FormatError::Limit { what, value, limit }) }
}
