//! What to leave out: patterns with restic's meaning, marker files, sizes.
//!
//! A pattern without a leading slash matches at any depth, with one it is anchored at the root. It matches a path if
//! it covers its first components up to a directory or the path itself; `**` spans any number of components, `*`,
//! `?` and `[…]` stay within one. A pattern that begins with `!` takes back what earlier ones excluded.

use crate::error::{Error, Result};
use globset::{GlobBuilder, GlobMatcher};
use rustix::fs::{AtFlags, Mode, StatxFlags};
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

/// One component of a pattern.
enum Part {
    /// `**`
    Any,
    Literal(Vec<u8>),
    Glob(GlobMatcher),
}

struct Pattern {
    parts: Vec<Part>,
    negated: bool,
    fold_case: bool,
}

/// Patterns in order; the last one that matches decides.
#[derive(Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
}

impl PatternSet {
    /// Adds a pattern; `fold_case` ignores ASCII and Unicode case.
    pub fn add(&mut self, text: &str, fold_case: bool) -> Result<()> {
        let (negated, body) = text.strip_prefix('!').map_or((false, text), |rest| (true, rest));
        let bad = |why: &str| Error::Refused(format!("the pattern {text:?} is not valid: {why}"));
        let anchored = body.starts_with('/');
        let mut parts = if anchored { Vec::new() } else { vec![Part::Any] };
        for part in body.split('/').filter(|p| !p.is_empty() && *p != ".") {
            parts.push(match part {
                "**" => Part::Any,
                p if !fold_case && !p.contains(['*', '?', '[', '\\', '{']) => {
                    Part::Literal(p.as_bytes().to_vec())
                }
                p => {
                    // Braces are no alternatives in restic; a class is closed or an error.
                    let p = p.replace('{', "\\{").replace('}', "\\}");
                    let mut builder = GlobBuilder::new(&p);
                    builder.literal_separator(true).case_insensitive(fold_case).backslash_escape(true);
                    Part::Glob(builder.build().map_err(|e| bad(&e.to_string()))?.compile_matcher())
                }
            });
        }
        if parts.iter().all(|p| matches!(p, Part::Any)) && body.trim_matches('/').is_empty() {
            return Err(bad("it is empty"));
        }
        self.patterns.push(Pattern { parts, negated, fold_case });
        Ok(())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// True when the last pattern that matches `path`, or a directory above it, is not negated.
    pub fn matches(&self, path: &[u8]) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        let mut hit = false;
        for p in &self.patterns {
            if p.negated == hit && covers(&p.parts, &names) {
                hit = !p.negated;
            }
        }
        hit
    }

    /// True when something below the directory `path` may match.
    pub fn may_match_below(&self, path: &[u8]) -> bool {
        let names: Vec<&[u8]> = path.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect();
        self.patterns.iter().any(|p| !p.negated && leads(&p.parts, &names))
    }

    /// True when any pattern folds case (for messages).
    pub fn folds_case(&self) -> bool {
        self.patterns.iter().any(|p| p.fold_case)
    }
}

fn part_matches(part: &Part, name: &[u8]) -> bool {
    match part {
        Part::Any => true,
        Part::Literal(l) => l == name,
        Part::Glob(g) => g.is_match(OsStr::from_bytes(name)),
    }
}

/// All of the pattern is used up by the first components of the path.
fn covers(parts: &[Part], names: &[&[u8]]) -> bool {
    match parts.split_first() {
        None => true,
        Some((Part::Any, rest)) => {
            // A final `**` needs something below.
            let least = usize::from(rest.is_empty());
            (least..=names.len()).any(|skip| covers(rest, names.get(skip..).unwrap_or_default()))
        }
        Some((part, rest)) => {
            names.split_first().is_some_and(|(name, tail)| part_matches(part, name) && covers(rest, tail))
        }
    }
}

/// The path is used up before the pattern, or covered by it.
fn leads(parts: &[Part], names: &[&[u8]]) -> bool {
    match (parts.split_first(), names.split_first()) {
        (None, _) | (_, None) | (Some((Part::Any, _)), _) => true,
        (Some((part, rest)), Some((name, tail))) => part_matches(part, name) && leads(rest, tail),
    }
}

/// A marker file: directories that hold it are left empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its name.
    pub name: Vec<u8>,
    /// What it must begin with, if anything.
    pub header: Option<Vec<u8>>,
}

/// What a user asked to leave out.
#[derive(Debug, Clone, Default)]
pub struct FilterSpec {
    /// Patterns.
    pub excludes: Vec<String>,
    /// Patterns that ignore case.
    pub iexcludes: Vec<String>,
    /// Marker files.
    pub if_present: Vec<Marker>,
    /// Files larger than this.
    pub larger_than: Option<u64>,
    /// Directories with a valid CACHEDIR.TAG.
    pub caches: bool,
}

/// A compiled [`FilterSpec`].
#[derive(Default)]
pub struct Filter {
    patterns: PatternSet,
    markers: Vec<Marker>,
    larger_than: Option<u64>,
}

/// The Cache Directory Tagging Specification's signature.
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

impl Filter {
    /// Compiles; names the pattern that is not valid.
    pub fn new(spec: &FilterSpec) -> Result<Self> {
        let mut patterns = PatternSet::default();
        spec.excludes.iter().try_for_each(|p| patterns.add(p, false))?;
        spec.iexcludes.iter().try_for_each(|p| patterns.add(p, true))?;
        let mut markers = spec.if_present.clone();
        if spec.caches {
            markers
                .push(Marker { name: b"CACHEDIR.TAG".to_vec(), header: Some(CACHEDIR_SIGNATURE.to_vec()) });
        }
        if let Some(bad) = markers.iter().find(|m| bulla_repo_format::tree::validate_name(&m.name).is_err()) {
            return Err(Error::Refused(format!(
                "{:?} is not a file name",
                crate::observer::escape(&bad.name)
            )));
        }
        Ok(Self { patterns, markers, larger_than: spec.larger_than })
    }

    /// True when `path` is to be left out; `name` in `dir` is the same entry.
    pub(super) fn excludes(
        &self,
        path: &[u8],
        directory: bool,
        size: u64,
        _dir: &OwnedFd,
        _name: &[u8],
    ) -> bool {
        self.patterns.matches(path) || (!directory && self.larger_than.is_some_and(|max| size > max))
    }

    /// True when the directory holds a marker: it is kept, what is in it is not.
    pub(super) fn marked(&self, dir: &OwnedFd) -> bool {
        self.markers.iter().any(|m| holds(dir, m).unwrap_or(false))
    }
}

fn holds(dir: &OwnedFd, marker: &Marker) -> rustix::io::Result<bool> {
    let name = marker.name.as_slice();
    let s = rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::TYPE)?;
    let Some(header) = &marker.header else { return Ok(true) };
    if !super::stat::is_regular(&s) {
        return Ok(false);
    }
    let file = rustix::fs::openat(dir, name, super::details::open_flags(), Mode::empty())?;
    let mut head = vec![0; header.len()];
    let n = rustix::io::pread(&file, &mut head, 0)?;
    Ok(n == header.len() && head == *header)
}

/// Patterns of an exclude file: one a line, `#` comments and empty lines skipped, blanks around them dropped.
pub fn parse_exclude_file(bytes: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    lines.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(patterns: &[&str], path: &str) -> bool {
        let mut set = PatternSet::default();
        patterns.iter().for_each(|p| set.add(p, false).unwrap());
        set.matches(path.as_bytes())
    }

    #[test]
    fn patterns_mean_what_restic_users_expect() {
        for (pattern, path, want) in [
            ("*.o", "a/b/c.o", true),
            ("*.o", "c.o/inside", true),
            ("*.o", "a/c.oo", false),
            ("b/c", "a/b/c/d", true),
            ("b/c", "a/b/x/c", false),
            ("/b/c", "a/b/c", false),
            ("/a/b", "a/b", true),
            ("/a/*/c", "a/x/c", true),
            ("/a/*/c", "a/x/y/c", false),
            ("/a/**/c", "a/x/y/c", true),
            ("/a/**/c", "a/c", true),
            ("foo/**/bar", "x/foo/1/2/bar/z", true),
            ("/a/**", "a", false),
            ("/a/**", "a/b", true),
            ("[ab].txt", "x/b.txt", true),
            ("{a,b}", "a", false),
            ("{a,b}", "x/{a,b}", true),
            ("name", "surname", false),
        ] {
            assert_eq!(matches(&[pattern], path), want, "{pattern} on {path}");
        }
        assert!(
            matches(&["*.log", "!keep.log"], "a/x.log") && !matches(&["*.log", "!keep.log"], "a/keep.log")
        );
    }

    #[test]
    fn case_may_be_ignored_bytes_may_be_anything_and_bad_patterns_are_named() {
        let mut set = PatternSet::default();
        set.add("*.JPG", true).unwrap();
        set.add("a*", false).unwrap();
        assert!(set.matches(b"x/y.jpg") && set.matches(b"x/a\xff\xfe"));
        assert!(set.add("[a", false).unwrap_err().to_string().contains("[a"));
        assert!(set.add("", false).is_err());
    }

    #[test]
    fn includes_know_where_to_descend() {
        let mut set = PatternSet::default();
        set.add("/a/b/*.txt", false).unwrap();
        assert!(set.may_match_below(b"a") && set.may_match_below(b"a/b") && !set.may_match_below(b"c"));
    }
}
