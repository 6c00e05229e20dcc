//! Source paths: made absolute, tidied, sorted, each once.
//!
//! Kept true: they stand in tree order, so what lies below one directory is one range, and the children that lead to
//! source paths are met by a single pass over it. Nothing here looks at the disk.

use crate::error::{Error, Result};
use bulla_repo_format::tree::compare_paths;
use std::ops::Range;

/// Source paths without leading slash, in tree order; the empty one is `/`.
#[derive(Debug, Default)]
pub(super) struct Roots {
    paths: Vec<Vec<u8>>,
}

/// A child of a directory that is or leads to source paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lead {
    /// True when it is a source path itself.
    pub(super) is_root: bool,
    /// Source paths strictly below it.
    pub(super) below: Range<usize>,
}

impl Roots {
    /// Tidies what the user named; relative paths are below `base`.
    pub(super) fn new(paths: &[Vec<u8>], base: &[u8]) -> Result<Self> {
        if paths.is_empty() {
            return Err(Error::Refused("nothing to back up: no source path was given".to_owned()));
        }
        if let Some(bad) = paths.iter().find(|p| p.is_empty() || p.contains(&0)) {
            let shown = crate::observer::escape(bad);
            return Err(Error::Refused(format!("the source path \"{shown}\" is empty or holds a NUL")));
        }
        let mut paths: Vec<Vec<u8>> = paths.iter().map(|p| tidy(base, p)).collect();
        paths.sort_unstable_by(|a, b| compare_paths(a, b));
        paths.dedup();
        Ok(Self { paths })
    }

    pub(super) fn all(&self) -> &[Vec<u8>] {
        &self.paths
    }

    /// True when `/` itself is a source path.
    pub(super) fn whole(&self) -> bool {
        self.paths.first().is_some_and(Vec::is_empty)
    }

    /// Source paths strictly below `/`.
    pub(super) fn below_top(&self) -> Range<usize> {
        usize::from(self.whole())..self.paths.len()
    }

    /// The paths of a range.
    pub(super) fn within(&self, range: &Range<usize>) -> &[Vec<u8>] {
        self.paths.get(range.clone()).unwrap_or_default()
    }

    /// The children, in order, that lead to the paths of `range`, all of which lie below a directory whose path has
    /// `depth` bytes.
    pub(super) fn children<'r>(
        &'r self,
        range: &Range<usize>,
        depth: usize,
    ) -> impl Iterator<Item = (&'r [u8], Lead)> {
        let mut rest = range.clone();
        std::iter::from_fn(move || {
            let name = component(self.paths.get(rest.start).filter(|_| !rest.is_empty())?, depth);
            let run = self.within(&rest).partition_point(|p| component(p, depth) == name);
            let lead = self.lead(rest.start..rest.start + run, depth + usize::from(depth > 0) + name.len());
            rest.start += run.max(1);
            Some((name, lead))
        })
    }

    /// How the child `name` leads to source paths; `None` when it does not.
    pub(super) fn child(&self, range: &Range<usize>, depth: usize, name: &[u8]) -> Option<Lead> {
        let paths = self.within(range);
        let from = paths.partition_point(|p| component(p, depth) < name);
        let run = paths.get(from..).unwrap_or_default().partition_point(|p| component(p, depth) == name);
        let start = range.start + from;
        (run > 0).then(|| self.lead(start..start + run, depth + usize::from(depth > 0) + name.len()))
    }

    fn lead(&self, run: Range<usize>, len: usize) -> Lead {
        let is_root = self.paths.get(run.start).is_some_and(|p| p.len() == len);
        Lead { is_root, below: run.start + usize::from(is_root)..run.end }
    }
}

/// The component of `path` behind its first `depth` bytes.
fn component(path: &[u8], depth: usize) -> &[u8] {
    let rest = path.get(depth + usize::from(depth > 0)..).unwrap_or_default();
    rest.split(|b| *b == b'/').next().unwrap_or_default()
}

/// Makes a path absolute (the slash left out) without looking at the disk; `..` takes back one component.
pub(super) fn tidy(base: &[u8], path: &[u8]) -> Vec<u8> {
    let base = if path.starts_with(b"/") { b"".as_slice() } else { base };
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in base.split(|b| *b == b'/').chain(path.split(|b| *b == b'/')) {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    parts.join(&b'/')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(paths: &[&str]) -> Roots {
        let paths: Vec<Vec<u8>> = paths.iter().map(|p| p.as_bytes().to_vec()).collect();
        Roots::new(&paths, b"/home/x").unwrap()
    }

    #[test]
    fn paths_are_absolute_tidy_sorted_and_single() {
        let tidy = |paths: &[&str]| -> Vec<String> {
            let r = roots(paths);
            r.all().iter().map(|p| String::from_utf8(p.clone()).unwrap()).collect()
        };
        assert_eq!(tidy(&["b/./c//", "../y", "/a/b/../c"]), ["a/c", "home/x/b/c", "home/y"]);
        assert_eq!(tidy(&["/a", "/ab", "/a/b", "/a-b", "/a"]), ["a", "a/b", "a-b", "ab"]);
        assert_eq!(tidy(&["/", "x", "../../../.."]), ["", "home/x/x"]);
    }

    #[test]
    fn nothing_and_impossible_paths_are_refused() {
        assert!(Roots::new(&[], b"/").is_err());
        assert!(Roots::new(&[b"a".to_vec(), Vec::new()], b"/").is_err());
        assert!(Roots::new(&[b"a\0b".to_vec()], b"/").is_err());
    }

    #[test]
    fn children_lead_to_the_paths_below() {
        let r = roots(&["/a", "/a/b/c", "/a/d", "/a-b/x", "/q"]);
        let top: Vec<_> = r.children(&r.below_top(), 0).collect();
        assert_eq!(
            top,
            [
                (b"a".as_slice(), Lead { is_root: true, below: 1..3 }),
                (b"a-b".as_slice(), Lead { is_root: false, below: 3..4 }),
                (b"q".as_slice(), Lead { is_root: true, below: 5..5 }),
            ]
        );
        for (name, lead) in &top {
            assert_eq!(r.child(&r.below_top(), 0, name).as_ref(), Some(lead));
        }
        assert_eq!(r.child(&(1..3), 1, b"b"), Some(Lead { is_root: false, below: 1..2 }));
        assert_eq!(r.child(&(1..3), 1, b"c"), None);
        assert!(roots(&["/"]).whole() && roots(&["/"]).below_top().is_empty());
    }
}
