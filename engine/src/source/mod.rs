//! What is backed up: an ordered walk over directories ([`Walk`]), or one stream ([`StreamSource`]).
//!
//! Kept true: every access goes through directory descriptors, symbolic links below a source path are never followed,
//! nothing is read that is not a regular file, and an error about one entry costs only that entry.

mod details;
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

pub use filter::{
    FilesFrom, Filter, FilterSpec, Marker, expand_pattern, parse_exclude_file, parse_files_from,
};
pub use found::{Found, Walked};
pub use names::Names;
pub use pattern::PatternSet;
pub use read::OpenFile;
<<<<<<< HEAD
pub use stream::{Commit, StreamSource};
pub use walk::Walk;
=======
pub use walk::{Found, Walk, Walked};

use crate::error::{Error, Result};
use crate::observer::escape;
use crate::repository::snapshots::clean_path;
use bulla_repo_format::limits::{NAME_MAX, PATH_MAX};
use std::io::Read;
>>>>>>> attack

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
<<<<<<< HEAD
        let mut all: Vec<Vec<u8>> = self.paths.iter().map(|p| roots::tidy(&self.base, p)).collect();
        all.sort_unstable_by(|a, b| bulla_repo_format::tree::compare_paths(a, b));
        // In this order whatever lies below a path follows it at once.
        all.dedup_by(|later, kept| bulla_repo_format::tree::is_within(later, kept));
        all.iter().map(|p| details::absolute(p)).collect()
=======
        let mut out: Vec<Vec<u8>> = self.paths.iter().map(|p| tidy(&self.base, p)).collect();
        out.sort_by(|a, b| bulla_repo_format::tree::compare_paths(a, b));
        let mut kept: Vec<Vec<u8>> = Vec::new();
        for path in out {
            let inside = |k: &Vec<u8>| bulla_repo_format::tree::is_within(&path[1..], &k[1..]);
            if !kept.iter().any(inside) {
                kept.push(path);
            }
        }
        kept
    }
}

/// Makes a path absolute without looking at the disk; `..` takes back one component.
fn tidy(base: &[u8], path: &[u8]) -> Vec<u8> {
    let whole = if path.starts_with(b"/") { path.to_vec() } else { [base, b"/", path].concat() };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in whole.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    [b"/", parts.join(&b'/').as_slice()].concat()
}

/// Decides at the end of a stream whether it was whole.
pub type Commit = Box<dyn FnOnce() -> std::result::Result<(), String> + Send>;

/// A stream, for instance what a dump command writes.
pub struct StreamSource {
    /// Its path in the snapshot.
    pub name: Vec<u8>,
    /// The bytes.
    pub reader: Box<dyn Read + Send>,
    /// Asked once the stream has ended: an error means that there is no snapshot.
    pub commit: Option<Commit>,
}

impl StreamSource {
    /// Refuses a name that no tree can hold, before a byte is read.
    pub(crate) fn check_name(&self) -> Result<()> {
        let path = clean_path(&self.name);
        let good =
            |name: &[u8]| !name.is_empty() && name != b".." && name.len() <= NAME_MAX && !name.contains(&0);
        if path.len() <= PATH_MAX && path.split(|b| *b == b'/').all(good) {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "a stream cannot be stored as \"{}\": it is no path of a file",
            escape(&self.name)
        )))
    }

    /// Asks whether the stream was whole.
    pub(crate) fn commit(&mut self) -> std::result::Result<(), String> {
        self.commit.take().map_or(Ok(()), |commit| commit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_tidied_sorted_and_nested_ones_merged() {
        let sources = |paths: &[&str]| PathSources {
            paths: paths.iter().map(|p| p.as_bytes().to_vec()).collect(),
            base: b"/home/x".to_vec(),
            filter: Filter::default(),
            one_file_system: false,
            with_atime: false,
            skip: Vec::new(),
        };
        let tidy = |paths: &[&str]| {
            let all = sources(paths).absolute();
            all.into_iter().map(|p| String::from_utf8(p).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(tidy(&["b/./c//", "../y", "/a/b/../c"]), ["/a/c", "/home/x/b/c", "/home/y"]);
        assert_eq!(tidy(&["/a", "/a/b", "/ab", "/a"]), ["/a", "/ab"]);
        assert_eq!(tidy(&["/", "x"]), ["/"]);
>>>>>>> attack
    }
}
