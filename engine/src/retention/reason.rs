//! Why a snapshot is kept, in words.

use super::{Period, Unit};
use crate::observer::escape;
use std::fmt;

/// Where in a window a snapshot stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// In it.
    Inside,
    /// Before it: the newest slot from which all of the window is covered.
    Covers,
    /// In it, and kept because nothing older is there.
    Oldest,
}

/// A reason to keep a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Held by hand.
    Held,
    /// Dated or received after now: something is wrong with a clock, or with the snapshot.
    Future,
    /// The storage times contradict its lineage, so its age is not known.
    Contradiction,
    /// It has all these tags.
    Tags(Vec<String>),
    /// It stands for a slot that is counted.
    Slot {
        /// What a slot is.
        unit: Unit,
        /// Which, the newest being 1.
        nth: u64,
        /// Of how many; `None` is all.
        of: Option<u64>,
        /// There are fewer slots than that, and this is the oldest snapshot.
        oldest: bool,
    },
    /// It stands for a slot of a window.
    Window {
        /// What a slot is.
        unit: Unit,
        /// How long the window is.
        period: Period,
        /// Where in it.
        edge: Edge,
    },
    /// The newest that arrived on one of the last storage days: what `keep_last` keeps of each, whatever came later.
    Arrival {
        /// Which day, the newest being 1.
        nth: u64,
        /// Of how many.
        of: u64,
    },
}

impl Reason {
    /// True if `other` is due to the same rule and says nothing new: views may number the slots differently.
    pub(super) fn says(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Slot { unit: a, .. }, Self::Slot { unit: b, .. }) => a == b,
            (Self::Window { unit: a, period: p, .. }, Self::Window { unit: b, period: q, .. }) => {
                (a, p) == (b, q)
            }
            (Self::Slot { unit: Unit::Last, .. }, Self::Arrival { .. }) => true,
            _ => self == other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("held"),
            Self::Future => f.write_str("in the future"),
            Self::Contradiction => f.write_str("storage times contradict its lineage"),
            Self::Tags(tags) => {
                let word = if tags.len() == 1 { "tag" } else { "tags" };
                write!(f, "{word} {}", escape(tags.join(",").as_bytes()))
            }
            Self::Slot { unit, nth, of: n, oldest } => {
                let oldest = if *oldest { "oldest, " } else { "" };
                match n {
                    Some(n) => write!(f, "{oldest}{unit} {nth} of {n}"),
                    None => write!(f, "{oldest}{unit}, unlimited"),
                }
            }
            Self::Window { unit, period, edge } => {
                let unit = if *unit == Unit::Last { String::new() } else { format!("{unit} ") };
                match edge {
                    Edge::Inside => write!(f, "{unit}within {period}"),
                    Edge::Covers => write!(f, "{unit}covering {period}"),
                    Edge::Oldest => write!(f, "oldest, {unit}within {period}"),
                }
            }
            Self::Arrival { nth, of: n } => write!(f, "newest of arrival day {nth} of {n}"),
        }
    }
}
