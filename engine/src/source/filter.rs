//! What to leave out: patterns, marker files, sizes; and the lists of patterns and paths that users keep in files.

use super::pattern::{PatternSet, component_matches};
use super::{details, stat};
use crate::error::{Error, Result};
use bulla_repo_format::tree::validate_name;
use rustix::fs::{Mode, OFlags};
use std::os::fd::BorrowedFd;

/// The signature of the Cache Directory Tagging Specification.
const CACHEDIR_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// A marker file: of a directory that holds it, only the directory itself and the marker are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Its name.
    pub name: Vec<u8>,
    /// What it must begin with, if anything.
    pub header: Option<Vec<u8>>,
}

impl Marker {
    /// From `NAME` or `NAME:HEADER`.
    pub fn parse(text: &[u8]) -> Self {
        match text.iter().position(|b| *b == b':') {
            Some(at) => Self {
                name: text.get(..at).unwrap_or_default().to_vec(),
                header: Some(text.get(at + 1..).unwrap_or_default().to_vec()).filter(|h| !h.is_empty()),
            },
            None => Self { name: text.to_vec(), header: None },
        }
    }

    /// True when the directory holds a marker with the right beginning. A marker that cannot be read marks nothing:
    /// better a directory too many.
    fn marks(&self, dir: BorrowedFd<'_>) -> bool {
        let Some(header) = &self.header else { return true };
        let Ok(file) = details::open_regular(dir, &self.name) else { return false };
        let mut head = vec![0; header.len()];
        stat::stat_fd(&file).is_ok_and(|s| stat::is_regular(&s))
            && rustix::io::pread(&file, &mut head, 0) == Ok(header.len())
            && head == *header
    }
}

/// What a user asked to leave out.
#[derive(Debug, Clone, Default)]
pub struct FilterSpec {
    /// Patterns ([`PatternSet`]), those of exclude files among them.
    pub excludes: Vec<Vec<u8>>,
    /// Patterns that ignore case.
    pub iexcludes: Vec<Vec<u8>>,
    /// Marker files.
    pub if_present: Vec<Marker>,
    /// Regular files larger than this.
    pub larger_than: Option<u64>,
    /// The content of directories with a valid CACHEDIR.TAG.
    pub caches: bool,
}

/// A compiled [`FilterSpec`]; the default leaves out nothing.
#[derive(Debug, Default)]
pub struct Filter {
    patterns: PatternSet,
    folded: PatternSet,
    markers: Vec<Marker>,
    larger_than: Option<u64>,
}

impl Filter {
    /// Compiles; refuses with the name of the pattern that is not valid.
    pub fn new(spec: &FilterSpec) -> Result<Self> {
        let patterns = PatternSet::new(&spec.excludes, false)?;
        let folded = PatternSet::new(&spec.iexcludes, true)?;
        let mut markers = spec.if_present.clone();
        if spec.caches {
            let header = Some(CACHEDIR_SIGNATURE.to_vec());
            markers.push(Marker { name: b"CACHEDIR.TAG".to_vec(), header });
        }
        if let Some(bad) = markers.iter().find(|m| validate_name(&m.name).is_err()) {
            let shown = crate::observer::escape(&bad.name);
            return Err(Error::Refused(format!("the marker \"{shown}\" is not a file name")));
        }
        Ok(Self { patterns, folded, markers, larger_than: spec.larger_than })
    }

    /// True when a pattern leaves `path` out, or a directory above it.
    pub fn excludes(&self, path: &[u8], is_dir: bool) -> bool {
        self.patterns.matches(path, is_dir) || self.folded.matches(path, is_dir)
    }

    /// The same for a path whose parent is known not to be left out.
    pub(super) fn excludes_new(&self, path: &[u8]) -> bool {
        self.patterns.matches_new(path) || self.folded.matches_new(path)
    }

    /// True when there are patterns at all.
    pub(super) fn has_patterns(&self) -> bool {
        !self.patterns.is_empty() || !self.folded.is_empty()
    }

    /// True when a regular file of this size is left out.
    pub fn too_large(&self, size: u64) -> bool {
        self.larger_than.is_some_and(|max| size > max)
    }

    /// The name of the marker a directory holds, if any. `holds` says whether a name is in it.
    pub(super) fn marker(&self, dir: BorrowedFd<'_>, holds: impl Fn(&[u8]) -> bool) -> Option<&[u8]> {
        let found = self.markers.iter().find(|m| holds(&m.name) && m.marks(dir));
        found.map(|m| m.name.as_slice())
    }
}

/// Lines without the blanks around them; empty ones and `#` comments are left out.
fn meaningful_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let lines = bytes.split(|b| *b == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|l| !l.is_empty() && !l.starts_with(b"#"))
}

/// Patterns of an exclude file: one a line, `#` comments and empty lines skipped, blanks around them dropped. The
/// environment is not looked at: a `$` is a `$`.
pub fn parse_exclude_file(bytes: &[u8]) -> Vec<Vec<u8>> {
    meaningful_lines(bytes).map(<[u8]>::to_vec).collect()
}

/// How a file that names source paths is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesFrom {
    /// One path a line, taken as it stands.
    Verbatim,
    /// Paths each ended by a NUL.
    Raw,
    /// One pattern a line, for [`expand_pattern`]; comments and blanks as in an exclude file.
    Patterns,
}

/// The paths or patterns of a file.
pub fn parse_files_from(bytes: &[u8], how: FilesFrom) -> Result<Vec<Vec<u8>>> {
    let refuse = |why: &str| Error::Refused(format!("the list of source paths is not valid: {why}"));
    let list: Vec<Vec<u8>> = match how {
        FilesFrom::Patterns => parse_exclude_file(bytes),
        FilesFrom::Verbatim => {
            let lines = bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty());
            lines.map(<[u8]>::to_vec).collect()
        }
        FilesFrom::Raw if bytes.is_empty() => Vec::new(),
        FilesFrom::Raw => {
            let body =
                bytes.strip_suffix(b"\0").ok_or_else(|| refuse("the last path is not ended by a NUL"))?;
            let paths: Vec<Vec<u8>> = body.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
            if paths.iter().any(Vec::is_empty) {
                return Err(refuse("it holds an empty path"));
            }
            paths
        }
    };
    if list.iter().any(|p| p.contains(&0)) { Err(refuse("a path holds a NUL")) } else { Ok(list) }
}

/// The existing paths a shell pattern stands for, sorted; relative ones below `base`. None is no error.
pub fn expand_pattern(base: &[u8], pattern: &[u8]) -> Result<Vec<Vec<u8>>> {
    let bad = |why: &str| {
        let shown = crate::observer::escape(pattern);
        Error::Refused(format!("the pattern \"{shown}\" is not valid: {why}"))
    };
    let special = |p: &[u8]| p.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'));
    let base = if pattern.starts_with(b"/") { b"".as_slice() } else { base };
    let mut found: Vec<Vec<u8>> = vec![[b"/".as_slice(), &super::roots::tidy(b"", base)].concat()];
    for part in pattern.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        component_matches(part, b"").map_err(bad)?;
        let mut next = Vec::new();
        for parent in &found {
            let join = |name: &[u8]| [parent.strip_suffix(b"/").unwrap_or(parent), b"/", name].concat();
            if !special(part) {
                next.push(join(part));
                continue;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let Ok(dir) = rustix::fs::open(parent.as_slice(), flags, Mode::empty()) else { continue };
            let mut names = super::listing::Listing::default();
            // What cannot be listed matches nothing, as in a shell.
            let _ = names.fill(&dir);
            let wanted = |n: &&[u8]| component_matches(part, n) == Ok(true);
            next.extend(names.iter().filter(wanted).map(join));
        }
        found = next;
    }
    found.retain(|p| rustix::fs::lstat(p.as_slice()).is_ok());
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_pattern_or_marker_is_named() {
        let spec = FilterSpec { excludes: vec![b"ok".to_vec(), b"[a".to_vec()], ..FilterSpec::default() };
        assert!(Filter::new(&spec).unwrap_err().to_string().contains("[a"));
        let spec = FilterSpec { if_present: vec![Marker::parse(b"a/b:c")], ..FilterSpec::default() };
        assert!(Filter::new(&spec).unwrap_err().to_string().contains("a/b"));
    }

    #[test]
    fn exclude_files_have_comments_and_blanks() {
        let text = b"\xef\xbb\xbf# head\n\n  *.o \r\n!keep.o\n\xff\xfe\n#x\n a b\t\n";
        assert_eq!(parse_exclude_file(text), [b"*.o".as_slice(), b"!keep.o", b"\xff\xfe", b"a b"]);
    }

    #[test]
    fn path_lists_in_three_kinds() {
        let got = |bytes: &[u8], how| parse_files_from(bytes, how).ok();
        assert_eq!(got(b" a #\n\n#b", FilesFrom::Verbatim).unwrap(), [b" a #".as_slice(), b"#b"]);
        assert_eq!(got(b" a #\n\n#b", FilesFrom::Patterns).unwrap(), [b"a #".as_slice()]);
        assert_eq!(got(b"a\nb\0c\0", FilesFrom::Raw).unwrap(), [b"a\nb".as_slice(), b"c"]);
        assert_eq!(got(b"", FilesFrom::Raw).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(got(b"a\0b", FilesFrom::Raw), None);
        assert_eq!(got(b"a\0\0b\0", FilesFrom::Raw), None);
        assert_eq!(got(b"a\0b", FilesFrom::Verbatim), None);
    }

    #[test]
    fn shell_patterns_expand_to_what_exists() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a/x.c", "a/y.h", "b/x.c"] {
            std::fs::create_dir_all(dir.path().join(name).parent().unwrap()).unwrap();
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let base = dir.path().as_os_str().as_encoded_bytes();
        let expand = |p: &str| -> Vec<String> {
            let all = expand_pattern(base, p.as_bytes()).unwrap();
            all.iter().map(|p| String::from_utf8_lossy(&p[base.len()..]).into_owned()).collect()
        };
        assert_eq!(expand("*/*.c"), ["/a/x.c", "/b/x.c"]);
        assert_eq!(expand("a/[!x].?"), ["/a/y.h"]);
        assert_eq!(expand("b/x.c"), ["/b/x.c"]);
        assert!(expand("c/*").is_empty() && expand("b/none").is_empty());
        assert!(expand_pattern(base, b"[").is_err());
    }

    #[test]
    fn patterns_expand_like_a_shells() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a1/x.txt", "a2/x.txt", "a2/y.log", ".hidden/x.txt", "b/x.txt"] {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let all = |pattern: &str| -> Vec<String> {
            let whole = format!("{}/{pattern}", dir.path().display());
            let strip = |p: Vec<u8>| {
                String::from_utf8(p).unwrap()[dir.path().to_str().unwrap().len() + 1..].to_owned()
            };
            expand_pattern(b"/", whole.as_bytes()).unwrap().into_iter().map(strip).collect()
        };
        assert_eq!(all("a*/x.txt"), ["a1/x.txt", "a2/x.txt"]);
        assert_eq!(all("*/?.log"), ["a2/y.log"]);
        assert_eq!(all("[ab]?"), ["a1", "a2"]);
        assert_eq!(all("b"), ["b"]);
        assert!(all("none/*").is_empty() && all("none").is_empty());
    }
}
