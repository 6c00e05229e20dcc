//! Patterns with restic's meaning, on raw bytes: what `--exclude` and `--include` take.
//!
//! A pattern is split at `/`. With a leading slash it is anchored at the top, without it may begin at any component;
//! in both cases whatever lies below a match matches too. `**` stands for any number of components; within one, `*`
//! stands for any run, `?` for one character, `[a-z]` and `[^a-z]` for a choice, `\` takes the next one literally.
//! A leading `!` takes back what earlier patterns matched. Matching takes time proportional to pattern times path,
//! whatever they are.

use crate::error::{Error, Result};

/// One piece of a component pattern. Characters above the Unicode range are bytes that are not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(u32),
    One,
    Run,
    Class { negated: bool, ranges: Vec<(u32, u32)> },
}

/// One component of a pattern, by what it costs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`
    AnyDepth,
    Literal(Vec<u8>),
    /// `*.o`
    EndsWith(Vec<u8>),
    Glob(Vec<Token>),
}

#[derive(Debug, Clone)]
struct Pattern {
    parts: Vec<Part>,
    anchored: bool,
    negated: bool,
    fold_case: bool,
}

/// Patterns in order; the last one that matches decides.
#[derive(Debug, Clone, Default)]
pub struct PatternSet {
    patterns: Vec<Pattern>,
}

impl PatternSet {
    /// Compiles patterns; the first that is not valid is named.
    pub fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>, fold_case: bool) -> Result<Self> {
        let mut set = Self::default();
        for p in patterns {
            set.add(p.as_ref(), fold_case)?;
        }
        Ok(set)
    }

    /// Adds a pattern behind the others; `fold_case` ignores case. An empty pattern adds nothing.
    pub fn add(&mut self, pattern: impl AsRef<[u8]>, fold_case: bool) -> Result<()> {
        let text = pattern.as_ref();
        if text.is_empty() {
            return Ok(());
        }
        let bad = |why: &str| {
            Error::Refused(format!("the pattern \"{}\" is not valid: {why}", crate::observer::escape(text)))
        };
        let (negated, body) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
        if body.is_empty() {
            return Err(bad("it is empty"));
        }
        let folded = fold_case.then(|| lowercase(body));
        let mut parts: Vec<Part> = Vec::new();
        for part in folded.as_deref().unwrap_or(body).split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                b"**" => parts.push(Part::AnyDepth),
                part => parts.push(Part::parse(part).map_err(bad)?),
            }
        }
        self.patterns.push(Pattern { parts, anchored: body.starts_with(b"/"), negated, fold_case });
        Ok(())
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// True when the last pattern that matches `path`, or a directory above it, is not negated. A leading slash of
    /// the path is of no account. As in restic, patterns do not tell directories from files.
    pub fn matches(&self, path: &[u8], _is_dir: bool) -> bool {
        self.decide(path, |pattern, names| pattern.covers(names))
    }

    /// Like [`PatternSet::matches`] for a path whose parent is known not to match.
    pub(super) fn matches_new(&self, path: &[u8]) -> bool {
        if self.patterns.iter().any(|p| p.negated) {
            return self.matches(path, false);
        }
        self.decide(path, Pattern::covers_last)
    }

    /// True when a pattern matches `path` itself, whatever lies above it: for who looks for entries.
    pub fn matches_itself(&self, path: &[u8]) -> bool {
        self.decide(path, Pattern::covers_last)
    }

    /// True when something below the directory `path` may match.
    pub fn could_match_below(&self, path: &[u8]) -> bool {
        self.fold(
            path,
            |may, p, names| if p.negated { may && !p.covers(names) } else { may || p.leads(names) },
        )
    }

    fn decide(&self, path: &[u8], covers: impl Fn(&Pattern, &[&[u8]]) -> bool) -> bool {
        self.fold(path, |hit, p, names| if p.negated == hit && covers(p, names) { !hit } else { hit })
    }

    /// Goes through the patterns in order, each with the path's components as it wants them.
    fn fold(&self, path: &[u8], step: impl Fn(bool, &Pattern, &[&[u8]]) -> bool) -> bool {
        if self.patterns.is_empty() {
            return false;
        }
        let folded = self.patterns.iter().any(|p| p.fold_case).then(|| lowercase(path));
        let names = components(path);
        let folded = folded.as_deref().map(components);
        self.patterns.iter().fold(false, |state, p| {
            step(state, p, folded.as_deref().filter(|_| p.fold_case).unwrap_or(&names))
        })
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    path.split(|b| *b == b'/').filter(|n| !n.is_empty()).collect()
}

/// Lower case as far as it is UTF-8.
fn lowercase(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        out.extend_from_slice(chunk.valid().to_lowercase().as_bytes());
        out.extend_from_slice(chunk.invalid());
    }
    out
}

impl Pattern {
    /// The pattern matches the path or a directory above it.
    fn covers(&self, names: &[&[u8]]) -> bool {
        // As with a glob: only the latest `**` ever needs another try. Unanchored is a `**` in front.
        let (mut part, mut at) = (0, 0);
        let mut retry = (!self.anchored).then_some((0, 0));
        loop {
            match (self.parts.get(part), names.get(at)) {
                (None, _) => return true,
                (Some(Part::AnyDepth), _) => {
                    part += 1;
                    retry = Some((part, at));
                    continue;
                }
                (Some(p), Some(name)) if p.matches(name) => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                // The pattern is longer than what is left, wherever it begins.
                (Some(_), None) => return false,
                (Some(_), Some(_)) => {}
            }
            let Some((p, a)) = retry else { return false };
            retry = Some((p, a + 1));
            (part, at) = (p, a + 1);
        }
    }

    /// Like [`Pattern::covers`], when it is known that no directory above matches.
    fn covers_last(&self, names: &[&[u8]]) -> bool {
        if self.parts.contains(&Part::AnyDepth) || self.parts.is_empty() {
            return self.covers(names);
        }
        let Some(from) = names.len().checked_sub(self.parts.len()) else { return false };
        let tail = names.get(from..).unwrap_or_default();
        (from == 0 || !self.anchored) && self.parts.iter().zip(tail).all(|(p, n)| p.matches(n))
    }

    /// The pattern matches the path, or may match something below it.
    fn leads(&self, names: &[&[u8]]) -> bool {
        if !self.anchored {
            return true;
        }
        for (part, name) in self.parts.iter().zip(names) {
            match part {
                Part::AnyDepth => return true,
                part if !part.matches(name) => return false,
                _ => {}
            }
        }
        true
    }
}

impl Part {
    fn parse(part: &[u8]) -> Result<Self, &'static str> {
        let special = |b: &u8| matches!(b, b'*' | b'?' | b'[' | b'\\');
        if !part.iter().any(special) {
            return Ok(Self::Literal(part.to_vec()));
        }
        match part.strip_prefix(b"*") {
            // Text begins where a character does, also in what ends with it; other bytes may be the end of one.
            Some(rest) if !rest.iter().any(special) && std::str::from_utf8(rest).is_ok() => {
                Ok(Self::EndsWith(rest.to_vec()))
            }
            _ => Ok(Self::Glob(parse_tokens(part)?)),
        }
    }

    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Literal(l) => l == name,
            Self::EndsWith(end) => name.ends_with(end),
            Self::Glob(tokens) => glob(tokens, name),
        }
    }
}

/// True when the one component `name` matches the component pattern.
pub(super) fn component_matches(pattern: &[u8], name: &[u8]) -> Result<bool, &'static str> {
    Part::parse(pattern).map(|p| p.matches(name))
}

/// The first character of `bytes` and its length; a byte that begins none stands for itself, above Unicode.
fn next_char(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    let len = match first {
        0..=0x7f => return Some((first.into(), 1)),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    };
    let text = bytes.get(..len).and_then(|b| std::str::from_utf8(b).ok());
    Some(match text.and_then(|t| t.chars().next()) {
        Some(c) => (c.into(), len),
        None => (0x11_0000 + u32::from(first), 1),
    })
}

fn parse_tokens(part: &[u8]) -> Result<Vec<Token>, &'static str> {
    let (mut out, mut rest) = (Vec::new(), part);
    while let Some(c) = take(&mut rest) {
        out.push(match u8::try_from(c) {
            Ok(b'*') => Token::Run,
            Ok(b'?') => Token::One,
            Ok(b'[') => class(&mut rest)?,
            Ok(b'\\') => Token::Char(take(&mut rest).ok_or("it ends in a backslash")?),
            _ => Token::Char(c),
        });
    }
    out.dedup_by(|a, b| *a == Token::Run && *b == Token::Run);
    Ok(out)
}

fn take(rest: &mut &[u8]) -> Option<u32> {
    let (c, len) = next_char(rest)?;
    *rest = rest.get(len..).unwrap_or_default();
    Some(c)
}

/// A class, its `[` taken already.
fn class(rest: &mut &[u8]) -> Result<Token, &'static str> {
    let negated = matches!(rest.first(), Some(b'^' | b'!'));
    if negated {
        take(rest);
    }
    let mut ranges = Vec::new();
    while ranges.is_empty() || rest.first() != Some(&b']') {
        let low = bound(rest)?;
        let high = if rest.first() == Some(&b'-') {
            take(rest);
            bound(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
    take(rest);
    Ok(Token::Class { negated, ranges })
}

fn bound(rest: &mut &[u8]) -> Result<u32, &'static str> {
    match rest.first() {
        Some(b'-' | b']') => Err("a choice in [ ] is empty or lacks the end of a range"),
        Some(b'\\') => {
            take(rest);
            take(rest).ok_or("it ends in a backslash")
        }
        _ => take(rest).ok_or("a [ is not closed"),
    }
}

/// Only the latest `*` ever needs another try.
fn glob(tokens: &[Token], name: &[u8]) -> bool {
    let (mut token, mut at, mut retry) = (0, 0, None);
    loop {
        let next = next_char(name.get(at..).unwrap_or_default());
        match (tokens.get(token), next) {
            (None, None) => return true,
            (Some(Token::Run), _) => {
                token += 1;
                retry = Some((token, at));
                continue;
            }
            (Some(t), Some((c, len))) if t.matches(c) => {
                (token, at) = (token + 1, at + len);
                continue;
            }
            _ => {}
        }
        let Some((t, a)) = retry else { return false };
        let Some((_, len)) = next_char(name.get(a..).unwrap_or_default()) else { return false };
        retry = Some((t, a + len));
        (token, at) = (t, a + len);
    }
}

impl Token {
    fn matches(&self, c: u32) -> bool {
        match self {
            Self::Char(t) => *t == c,
            Self::One | Self::Run => true,
            Self::Class { negated, ranges } => ranges.iter().any(|(l, h)| (*l..=*h).contains(&c)) != *negated,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn set(patterns: &[&str]) -> PatternSet {
        PatternSet::new(patterns, false).unwrap()
    }

    #[test]
    fn patterns_mean_what_restic_users_expect() {
        for (pattern, path, want) in [
            ("*.o", "a/b/c.o", true),
            ("*.o", "/c.o/inside", true),
            ("*.o", "a/c.oo", false),
            ("b/c", "a/b/c/d", true),
            ("b/c", "a/b/x/c", false),
            ("b/c/", "a/b/c", true),
            ("./b//c", "a/b/c", true),
            ("/b/c", "a/b/c", false),
            ("/a/b", "a/b", true),
            ("/a/b", "a/bc", false),
            ("/a/*/c", "a/x/c", true),
            ("/a/*/c", "a/x/y/c", false),
            ("/a/**/c", "a/x/y/c", true),
            ("/a/**/c", "a/c", true),
            ("/a/**/c", "b/a/c", false),
            ("foo/**/bar", "x/foo/1/2/bar/z", true),
            ("user/**/hidden*/**/c", "home/user/s/hidden/x/y/c", true),
            ("user/**/important*", "home/user/project/x/y/hidden/x", false),
            ("/**/*", "home/file", true),
            ("/a/**", "a", true),
            ("/", "anything", true),
            ("a?c", "x/abc", true),
            ("a?c", "x/a\u{e9}c", true),
            ("a?c", "x/ac", false),
            ("[ab].txt", "x/b.txt", true),
            ("[^ab].txt", "x/b.txt", false),
            ("[!ab].txt", "x/c.txt", true),
            ("[a-c\\]]", "]", true),
            ("[a-c]", "d", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "a-b-b-c", true),
            ("a**c", "abc", true),
            ("{a,b}", "a", false),
            ("{a,b}", "x/{a,b}", true),
            ("name", "surname", false),
        ] {
            assert_eq!(set(&[pattern]).matches(path.as_bytes(), false), want, "{pattern} on {path}");
        }
    }

    #[test]
    fn later_patterns_take_back() {
        let s = set(&["*.log", "!keep.log", "/a/keep.log"]);
        let hit = |p: &[u8]| s.matches(p, false);
        assert!(hit(b"x/a.log") && !hit(b"x/keep.log") && hit(b"a/keep.log"));
        assert!(s.matches_new(b"x/a.log") && !s.matches_new(b"x/keep.log"));
    }

    #[test]
    fn bytes_may_be_anything_and_case_may_be_ignored() {
        let mut s = PatternSet::new(["*.JPG", "\u{c4}*"], true).unwrap();
        s.add(b"a?\xfe*", false).unwrap();
        s.add(b"q?[\xf0-\xff]", false).unwrap();
        assert!(s.matches(b"x/y.jpg", false) && s.matches("\u{e4}b".as_bytes(), false));
        assert!(
            s.matches(b"a\xff\xfe.", false) && s.matches(b"q\xfa\xfb", false) && !s.matches(b"qqq", false)
        );
    }

    #[test]
    fn what_is_not_valid_is_named() {
        for bad in ["[a", "[]", "[a-]", "a\\", "!", "x/[^]", "[", "[a-"] {
            let e = PatternSet::new([bad], false).unwrap_err().to_string();
            assert!(e.contains(&crate::observer::escape(bad.as_bytes())), "{bad}: {e}");
        }
        assert!(PatternSet::new([""], false).unwrap().is_empty());
    }

    #[test]
    fn includes_know_where_to_descend() {
        let s = set(&["/a/b/*.txt"]);
        assert!(s.could_match_below(b"") && s.could_match_below(b"a") && s.could_match_below(b"/a/b"));
        assert!(!s.could_match_below(b"c") && !s.could_match_below(b"a/c"));
        assert!(s.could_match_below(b"a/b/c.txt/d"));
        assert!(set(&["x"]).could_match_below(b"q/r") && set(&["/a/**/x"]).could_match_below(b"a/q/r"));
        assert!(!set(&["/a", "!/a/b"]).could_match_below(b"a/b"));
        assert!(!PatternSet::default().could_match_below(b"a"));
    }

    /// The definition, without cleverness.
    fn naive(p: &Pattern, names: &[&[u8]]) -> bool {
        fn from(parts: &[Part], names: &[&[u8]]) -> bool {
            match parts.split_first() {
                None => true,
                Some((Part::AnyDepth, rest)) => (0..=names.len()).any(|n| from(rest, &names[n..])),
                Some((p, rest)) => {
                    names.split_first().is_some_and(|(n, tail)| p.matches(n) && from(rest, tail))
                }
            }
        }
        let last = if p.anchored { 0 } else { names.len() };
        (0..=last).any(|n| from(&p.parts, &names[n..]))
    }

    fn glob_naive(t: &[Token], n: &[u8]) -> bool {
        match t.split_first() {
            None => n.is_empty(),
            Some((Token::Run, rest)) => (0..=n.len()).any(|i| glob_naive(rest, &n[i..])),
            Some((t, rest)) => {
                n.split_first().is_some_and(|(c, tail)| t.matches((*c).into()) && glob_naive(rest, tail))
            }
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(
            pattern in "/?([ab*]{1,3}/|\\*\\*/){0,4}[ab*]{1,3}",
            path in "[ab]{1,2}(/[ab]{1,2}){0,6}",
        ) {
            let s = set(&[&pattern]);
            let names = components(path.as_bytes());
            let want = naive(&s.patterns[0], &names);
            prop_assert_eq!(s.matches(path.as_bytes(), false), want);
            // Without the directory above matching, the shortcut says the same.
            let parent = names.split_last().map_or(&[][..], |(_, p)| p);
            if !naive(&s.patterns[0], parent) {
                prop_assert_eq!(s.matches_new(path.as_bytes()), want);
            }
            prop_assert!(!want || s.could_match_below(path.as_bytes()));
        }

        #[test]
        fn globs_agree_with_the_definition(pattern in "[ab*?]{1,8}", name in "[ab]{0,10}") {
            let tokens = parse_tokens(pattern.as_bytes()).unwrap();
            prop_assert_eq!(glob(&tokens, name.as_bytes()), glob_naive(&tokens, name.as_bytes()));
        }

        #[test]
        fn no_pattern_panics(
            pattern in prop::collection::vec(any::<u8>(), 0..12),
            path in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            for fold_case in [false, true] {
                if let Ok(s) = PatternSet::new([&pattern], fold_case) {
                    s.matches(&path, true);
                    s.could_match_below(&path);
                }
            }
        }
    }
}
