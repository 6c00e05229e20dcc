//! What is backed up: an ordered walk over directories ([`Walk`]), or one stream ([`StreamSource`]), of a command or a device.
//!
//! Kept true: every access goes through directory descriptors, symbolic links below a source path are never followed,
//! nothing is read that is not a regular file, and an error about one entry costs only that entry.

mod command;
mod details;
mod device;
mod filter;
mod found;
mod holes;
mod listing;
mod mounts;
mod names;
mod pattern;
mod read;
mod roots;
mod stat;
mod stream;
mod walk;

pub use command::{Pipeline, Running, end_group, reap};
pub use device::block;
pub use filter::{
    FilesFrom, Filter, FilterSpec, Marker, expand_pattern, parse_exclude_file, parse_files_from,
};
pub use found::{Found, Walked};
pub use names::Names;
pub use pattern::PatternSet;
pub use read::OpenFile;
#[cfg(any(test, feature = "testing"))]
pub use stat::REPEATABLE;
pub use stream::{Commit, StreamSource};
pub use walk::Walk;

/// Something to back up.
pub enum Sources {
    /// Files and directories.
    Paths(PathSources),
    /// One stream, stored as one file.
    Stream(StreamSource),
}

/// Paths and what to leave out below them.
#[derive(Debug, Default)]
pub struct PathSources {
    /// As the user named them, raw bytes; relative ones are below `base`.
    pub paths: Vec<Vec<u8>>,
    /// An absolute directory.
    pub base: Vec<u8>,
    /// What to leave out.
    pub filter: Filter,
    /// Do not descend into other file systems than those the source paths lie in.
    pub one_file_system: bool,
    /// Record access times.
    pub with_atime: bool,
    /// Directories (device, inode) that are skipped with a notice: the repository itself, caches.
    pub skip: Vec<(u64, u64)>,
}

impl PathSources {
    /// The source paths, absolute and tidy: no `.`, `..` or double slash, sorted, none below another.
    pub fn absolute(&self) -> Vec<Vec<u8>> {
        let mut all: Vec<Vec<u8>> = self.paths.iter().map(|p| roots::tidy(&self.base, p)).collect();
        all.sort_unstable_by(|a, b| bulla_repo_format::tree::compare_paths(a, b));
        // In this order whatever lies below a path follows it at once.
        all.dedup_by(|later, kept| bulla_repo_format::tree::is_within(later, kept));
        all.iter().map(|p| details::absolute(p)).collect()
    }
}
