//! Which entries to restore: the seam to include and exclude patterns.

use crate::source::PatternSet;

/// What is to happen with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection {
    /// Restore it. What is in a directory is asked for one by one.
    Take,
    /// Not this one; something below it perhaps.
    Pass,
    /// Neither it nor anything below it.
    Prune,
}

/// Decides which entries to restore.
pub trait Select {
    /// About the entry at `path` in the snapshot (no leading slash). A directory is asked about before what is in it,
    /// and what is in it not at all after [`Selection::Prune`].
    fn select(&self, path: &[u8], is_dir: bool) -> Selection;
}

impl<F: Fn(&[u8], bool) -> Selection> Select for F {
    fn select(&self, path: &[u8], is_dir: bool) -> Selection {
        self(path, is_dir)
    }
}

/// Include and exclude patterns, as `backup` understands them. Without an include pattern everything is included.
#[derive(Default)]
pub struct Patterns {
    /// Only what matches, and what lies in it.
    pub include: PatternSet,
    /// Not what matches, nor what lies in it.
    pub exclude: PatternSet,
}

impl Select for Patterns {
    fn select(&self, path: &[u8], is_dir: bool) -> Selection {
        if self.exclude.matches(path, is_dir) {
            // A later `!` pattern may take back something below.
            return Selection::Pass;
        }
        if self.include.is_empty() || self.include.matches(path, is_dir) {
            Selection::Take
        } else if is_dir && !self.include.could_match_below(path) {
            Selection::Prune
        } else {
            Selection::Pass
        }
    }
}
