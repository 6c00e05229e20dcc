//! What people write: patterns, lists of files, policies; and the chunker. Each against a slow and plain reading of its
//! description, written for this.

use bulla_engine::chunker::Chunker;
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::retention::{Keep, Period};
use bulla_engine::source::{FilesFrom, PatternSet, parse_exclude_file, parse_files_from};
use bulla_manager::config::{Config, File, entries};

/// SPEC 8: sizes of the first byte's choosing, cut where the rule says.
pub fn chunker(b: &[u8]) -> bool {
    let (Some((size, data)), Some(ring)) = (b.split_first(), crate::targets::keyring()) else { return false };
    let avg = 256 << (size % 4);
    let params = ChunkerParams { min: avg / 4, avg, max: avg * 4 };
    // Enough for several chunks of each size, and no more of the same than a mutation changes.
    let data: Vec<u8> = data.iter().copied().cycle().take(data.len() * 24).collect();
    let fast = Chunker::new(params, &ring).expect("the sizes are allowed");
    let key = ring.chunker_key(ring.domain()).expect("the domain is there");
    let rule = Rule::new(key.expose(), params);
    let mut at = 0;
    while at < data.len() {
        let n = fast.cut(&data[at..]);
        assert_eq!(n, rule.cut(&data[at..]), "cut at {at}");
        at += n;
    }
    true
}

/// SPEC 8.1 and 8.2, word for word.
struct Rule {
    table: Vec<u64>,
    small: u64,
    large: u64,
    params: ChunkerParams,
}

impl Rule {
    fn new(key: &[u8; 32], params: ChunkerParams) -> Self {
        let mut stream = blake3::Hasher::new_keyed(key).update(b"gear").finalize_xof();
        let mut next = || {
            let mut word = [0; 8];
            stream.fill(&mut word);
            u64::from_le_bytes(word)
        };
        let table = (0..256).map(|_| next()).collect();
        let mut bits: Vec<u32> = (16..=62).collect();
        for i in (1..=46).rev() {
            bits.swap(i, (next() % (i as u64 + 1)) as usize);
        }
        let mask = |n: u32| bits.iter().take(n as usize).fold(0u64, |mask, bit| mask | 1 << bit);
        let log = params.avg.ilog2();
        Self { table, small: mask(log + 2), large: mask(log - 2), params }
    }

    fn cut(&self, b: &[u8]) -> usize {
        let [min, avg, max] = [self.params.min, self.params.avg, self.params.max].map(|n| n as usize);
        if b.len() <= min {
            return b.len();
        }
        let end = b.len().min(max) & !1;
        let mut h = 0u64;
        for (i, byte) in b.iter().enumerate().take(end).skip(min) {
            h = (h << 1).wrapping_add(self.table[usize::from(*byte)]);
            if h & (if i < avg { self.small } else { self.large }) == 0 {
                return i;
            }
        }
        b.len().min(max)
    }
}

/// Lines are patterns, the last is a path.
pub fn patterns(b: &[u8]) -> bool {
    let mut lines: Vec<&[u8]> = b.split(|c| *c == b'\n').take(5).collect();
    let path = lines.pop().unwrap_or_default();
    let Ok(set) = PatternSet::new(&lines, false) else { return false };
    // The plain reading takes exponential time.
    let short = |text: &[u8], parts: usize| {
        text.split(|c| *c == b'/').count() <= parts && text.split(|c| *c == b'/').all(|p| p.len() <= 20)
    };
    let all: Option<Vec<Plain>> = lines.iter().filter(|l| !l.is_empty()).map(|l| Plain::parse(l)).collect();
    let all = all.expect("a set that compiles can be read plainly");
    if !short(path, 8) || !lines.iter().all(|l| short(l, 6)) {
        return true;
    }
    let names: Vec<&[u8]> = path.split(|c| *c == b'/').filter(|n| !n.is_empty()).collect();
    let mut hit = false;
    for p in &all {
        if p.covers(&names) {
            hit = !p.negated;
        }
    }
    assert_eq!(set.matches(path, false), hit, "matches");
    if hit {
        // A walk must not turn round above a match.
        for depth in 0..names.len() {
            let above = names[..depth].join(&b'/');
            assert!(
                set.could_match_below(&above) || set.matches(&above, true),
                "a match below {depth} is not met"
            );
        }
    }
    true
}

/// A pattern as its description reads.
struct Plain {
    parts: Vec<Vec<Piece>>,
    anchored: bool,
    negated: bool,
}

#[derive(PartialEq)]
enum Piece {
    /// A whole component of `**`.
    Any,
    Run,
    One,
    Exactly(u32),
    Choice(bool, Vec<(u32, u32)>),
}

/// Characters; bytes that are none stand for themselves.
fn characters(bytes: &[u8]) -> Vec<u32> {
    let mut out = Vec::new();
    for chunk in bytes.utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(chunk.invalid().iter().map(|b| 0x11_0000 + u32::from(*b)));
    }
    out
}

impl Plain {
    fn parse(text: &[u8]) -> Option<Self> {
        let (negated, body) = text.strip_prefix(b"!").map_or((false, text), |rest| (true, rest));
        let mut parts = Vec::new();
        for part in body.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                b"**" => parts.push(vec![Piece::Any]),
                part => parts.push(pieces(&characters(part))?),
            }
        }
        Some(Self { parts, anchored: body.starts_with(b"/"), negated })
    }

    fn covers(&self, names: &[&[u8]]) -> bool {
        let starts = if self.anchored { 0..=0 } else { 0..=names.len() };
        starts.into_iter().any(|from| leads_to(&self.parts, &names[from..]))
    }
}

/// A prefix of `names` is what `parts` describe.
fn leads_to(parts: &[Vec<Piece>], names: &[&[u8]]) -> bool {
    let Some((part, rest)) = parts.split_first() else { return true };
    let below = names.split_first();
    if part[..] == [Piece::Any] {
        return leads_to(rest, names) || below.is_some_and(|(_, names)| leads_to(parts, names));
    }
    below.is_some_and(|(name, names)| same(part, &characters(name)) && leads_to(rest, names))
}

fn same(pieces: &[Piece], name: &[u32]) -> bool {
    let Some((piece, rest)) = pieces.split_first() else { return name.is_empty() };
    let tail = name.split_first();
    let takes = |c: u32| match piece {
        Piece::One => true,
        Piece::Exactly(x) => *x == c,
        Piece::Choice(negated, ranges) => ranges.iter().any(|(l, h)| *l <= c && c <= *h) != *negated,
        Piece::Run | Piece::Any => false,
    };
    match (piece, tail) {
        (Piece::Run, None) => same(rest, name),
        (Piece::Run, Some((_, tail))) => same(rest, name) || same(pieces, tail),
        (_, Some((c, tail))) => takes(*c) && same(rest, tail),
        (_, None) => false,
    }
}

fn pieces(text: &[u32]) -> Option<Vec<Piece>> {
    let (mut out, mut at) = (Vec::new(), 0);
    while let Some(c) = text.get(at) {
        at += 1;
        out.push(match u8::try_from(*c) {
            Ok(b'*') => Piece::Run,
            Ok(b'?') => Piece::One,
            Ok(b'\\') => {
                at += 1;
                Piece::Exactly(*text.get(at - 1)?)
            }
            Ok(b'[') => {
                let (piece, len) = choice(&text[at..])?;
                at += len;
                piece
            }
            _ => Piece::Exactly(*c),
        });
    }
    // Many runs in a row are one, and cost the plain reading dearly.
    out.dedup_by(|a, b| *a == Piece::Run && *b == Piece::Run);
    Some(out)
}

/// What stands behind `[`, and how much of it.
fn choice(text: &[u32]) -> Option<(Piece, usize)> {
    let is = |at: usize, c: u8| text.get(at) == Some(&u32::from(c));
    let negated = is(0, b'^') || is(0, b'!');
    let (mut at, mut ranges) = (usize::from(negated), Vec::new());
    while ranges.is_empty() || !is(at, b']') {
        let bound = |at: &mut usize| {
            if is(*at, b'-') || is(*at, b']') {
                return None;
            }
            *at += 1 + usize::from(is(*at, b'\\'));
            text.get(*at - 1).copied()
        };
        let low = bound(&mut at)?;
        let high = match is(at, b'-') {
            true => {
                at += 1;
                bound(&mut at)?
            }
            false => low,
        };
        ranges.push((low, high));
    }
    Some((Piece::Choice(negated, ranges), at + 1))
}

/// Lists of patterns and of files.
pub fn lists(b: &[u8]) -> bool {
    for pattern in parse_exclude_file(b) {
        assert!(!pattern.is_empty());
    }
    [FilesFrom::Patterns, FilesFrom::Verbatim, FilesFrom::Raw].map(|how| parse_files_from(b, how).is_ok())[2]
}

/// What `--keep-…` takes says the same when it is printed and read again.
pub fn policy(b: &[u8]) -> bool {
    let text = String::from_utf8_lossy(b);
    let period = text.parse::<Period>();
    if let Ok(p) = &period {
        assert_eq!(p.to_string().parse::<Period>().as_ref(), Ok(p));
    }
    let keep = text.parse::<Keep>();
    if let Ok(k) = &keep {
        assert_eq!(k.to_string().parse::<Keep>().as_ref(), Ok(k));
    }
    period.is_ok() || keep.is_ok()
}

/// A configuration: whatever is in it, what is wrong stands on one of its lines; a sound one says something.
pub fn jobs(b: &[u8]) -> bool {
    let file = [File { path: "fuzz".into(), text: String::from_utf8_lossy(b).into_owned() }];
    let read = Config::read(&file);
    let lines = 1 + file[0].text.matches('\n').count();
    assert!(read.mistakes.iter().all(|m| (1..=lines).contains(&m.place.line)));
    let named = read.config.jobs.len() + read.config.destinations.len();
    assert!(entries(&file).len() >= named);
    read.is_sound()
}
