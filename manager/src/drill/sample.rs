//! Which files a drill restores: half of them drawn with equal chances, half with chances in proportion to their bytes, and
//! besides one of each kind that lots may pass over. The same seed draws the same files of the same snapshot, in one pass and
//! in memory for the sample alone.
//!
//! The first half is what a bound on the share of bad files rests on (each file as likely as any other), the second what
//! one on bytes does; what is taken besides counts for neither. Weighted sampling with exponential keys is that of Efraimidis and Spirakis (2006).

use bulla_engine::format::tree::Timestamp;
use std::collections::{BTreeSet, BinaryHeap};

/// The largest file that is taken for being large, in bytes.
const LARGE: u64 = 256 << 20;

/// A file that goes by.
#[derive(Debug, Clone, Copy)]
pub struct Passing<'a> {
    /// Its path.
    pub path: &'a [u8],
    /// Its length.
    pub size: u64,
    /// When it was last changed.
    pub mtime: Timestamp,
    /// How many names it has.
    pub links: u64,
    /// When the pack that it begins in was last read, if that is known.
    pub read: Option<i64>,
}

/// Kinds of files of which one is taken in any case: the newest, the largest that is not too large, an empty one, one with
/// several names, one with an odd name (else the longest), and one in the pack that was longest not read.
const KINDS: usize = 6;

/// A file that may be drawn.
#[derive(Debug, Clone)]
struct Drawn {
    /// The larger, the sooner it is crowded out.
    key: f64,
    path: Vec<u8>,
    size: u64,
}

impl PartialEq for Drawn {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Drawn {}

impl PartialOrd for Drawn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Drawn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.total_cmp(&other.key).then_with(|| self.path.cmp(&other.path))
    }
}

/// Draws while files go by.
pub struct Lot {
    seed: [u8; 32],
    each: usize,
    by_file: BinaryHeap<Drawn>,
    by_bytes: BinaryHeap<Drawn>,
    /// Of each kind the best so far, with what makes it so.
    forced: [Option<((i128, f64), Drawn)>; KINDS],
    /// Files that went by,
    pub files: u64,
    /// and their bytes.
    pub bytes: u64,
}

impl Lot {
    /// Draws up to `n` files; with 0 it only counts.
    pub fn new(seed: [u8; 32], n: usize) -> Self {
        let (by_file, by_bytes) = (BinaryHeap::new(), BinaryHeap::new());
        Self {
            seed,
            each: n.div_ceil(2),
            by_file,
            by_bytes,
            forced: [const { None }; KINDS],
            files: 0,
            bytes: 0,
        }
    }

    /// A file goes by.
    pub fn pass(&mut self, file: &Passing<'_>) {
        let Passing { path, size, .. } = *file;
        self.files += 1;
        self.bytes += size;
        if self.each == 0 {
            return;
        }
        let (first, second) = (self.chance(b"file", path), self.chance(b"byte", path));
        push(&mut self.by_file, self.each, first, path, size);
        if size > 0 {
            push(&mut self.by_bytes, self.each, -second.ln() / size as f64, path, size);
        }
        for (best, rank) in self.forced.iter_mut().zip(ranks(file)) {
            let Some(rank) = rank.map(|rank| (rank, first)) else { continue };
            if best.as_ref().is_none_or(|(known, _)| rank > *known) {
                *best = Some((rank, Drawn { key: first, path: path.to_vec(), size }));
            }
        }
    }

    /// A number above 0 and at most 1 that only seed and path decide.
    fn chance(&self, what: &[u8], path: &[u8]) -> f64 {
        let mut hash = blake3::Hasher::new_keyed(&self.seed);
        hash.update(what).update(path);
        let [a, b, c, d, e, f, g, ..] = *hash.finalize().as_bytes();
        let bits = u64::from_le_bytes([a, b, c, d, e, f, g & 0x1f, 0]);
        (bits + 1) as f64 / (1u64 << 53) as f64
    }

    /// The paths that were drawn, how many with equal chances, and the bytes of all.
    pub fn drawn(self) -> (BTreeSet<Vec<u8>>, u64, u64) {
        let equal = self.by_file.len() as u64;
        let (mut paths, mut bytes) = (BTreeSet::new(), 0);
        let forced = self.forced.into_iter().flatten().map(|(_, drawn)| drawn);
        for drawn in self.by_file.into_iter().chain(self.by_bytes).chain(forced) {
            if paths.insert(drawn.path) {
                bytes += drawn.size;
            }
        }
        (paths, equal, bytes)
    }
}

/// How much a file is of each kind; nothing where it is not of that kind.
fn ranks(file: &Passing<'_>) -> [Option<i128>; KINDS] {
    let Passing { path, size, mtime, links, read } = *file;
    let odd = std::str::from_utf8(path).map_or(true, |name| name.contains(|c: char| c.is_control()));
    [
        Some((i128::from(mtime.seconds) << 32) + i128::from(mtime.nanos)),
        (size <= LARGE).then_some(size.into()),
        (size == 0).then_some(0),
        (links > 1).then_some(0),
        Some((i128::from(odd) << 64) + path.len() as i128),
        read.map(|at| -i128::from(at)),
    ]
}

fn push(heap: &mut BinaryHeap<Drawn>, most: usize, key: f64, path: &[u8], size: u64) {
    let full = heap.len() >= most;
    if full && heap.peek().is_none_or(|worst| worst.key <= key) {
        return;
    }
    heap.push(Drawn { key, path: path.to_vec(), size });
    if full {
        heap.pop();
    }
}

/// If `n` of `of` files, drawn with equal chances, are all good: the share of bad files there can be, with 95 % confidence.
/// 0 if all were looked at.
pub fn bound95(n: u64, of: u64) -> f64 {
    match n {
        0 => 1.0,
        n if n >= of => 0.0,
        n => 1.0 - 0.05f64.powf(1.0 / n as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, size: u64) -> Passing<'_> {
        let mtime = Timestamp { seconds: 5, nanos: 0 };
        Passing { path: path.as_bytes(), size, mtime, links: 1, read: None }
    }

    fn draw(seed: u8, n: usize, files: &[(String, u64)]) -> BTreeSet<Vec<u8>> {
        let mut lot = Lot::new([seed; 32], n);
        files.iter().for_each(|(path, size)| lot.pass(&file(path, *size)));
        lot.drawn().0
    }

    #[test]
    fn one_of_each_kind_is_taken_whatever_the_lot() {
        let names: Vec<String> = (0..1000).map(|n| format!("f{n:03}")).collect();
        for seed in 0..20 {
            let mut lot = Lot::new([seed; 32], 10);
            names.iter().for_each(|name| lot.pass(&file(name, 100)));
            let newest = Timestamp { seconds: 5, nanos: 1 };
            lot.pass(&Passing { mtime: newest, ..file("newest", 100) });
            lot.pass(&file("huge", LARGE + 1));
            lot.pass(&file("large", LARGE));
            lot.pass(&file("empty", 0));
            lot.pass(&Passing { links: 2, ..file("link", 100) });
            lot.pass(&Passing { path: b"\xff", ..file("", 100) });
            lot.pass(&Passing { read: Some(-7), ..file("old pack", 100) });
            lot.pass(&Passing { read: Some(7), ..file("new pack", 100) });
            let (paths, equal, _) = lot.drawn();
            let kinds: [&[u8]; 6] = [b"newest", b"large", b"empty", b"link", b"\xff", b"old pack"];
            for name in kinds {
                assert!(paths.contains(name), "{}", String::from_utf8_lossy(name));
            }
            assert_eq!(equal, 5, "the bound rests on the lot alone");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_chances_are_what_they_should_be() {
        let files: Vec<_> =
            (0..1000u64).map(|n| (format!("f{n}"), if n == 7 { 1 << 30 } else { 100 })).collect();
        assert_eq!(draw(1, 20, &files), draw(1, 20, &files));
        assert_ne!(draw(1, 20, &files), draw(2, 20, &files));
        let mut reversed = files.clone();
        reversed.reverse();
        assert_eq!(draw(1, 20, &files), draw(1, 20, &reversed), "not the order, the seed decides");
        // The large file holds nearly all bytes and is drawn by them every time; any other about 20 times in 1000.
        let times =
            |name: &str| (0..200).filter(|seed| draw(*seed, 20, &files).contains(name.as_bytes())).count();
        assert_eq!(times("f7"), 200);
        assert!((1..15).contains(&times("f500")), "{}", times("f500"));
        assert_eq!(draw(1, 5000, &files).len(), 1000);
    }

    #[test]
    fn bounds_are_those_of_the_books() {
        for (n, percent) in [(59, 4.95), (150, 1.98), (299, 1.0), (300, 0.99)] {
            assert!((bound95(n, 1 << 20) * 100.0 - percent).abs() < 0.006, "{n}: {}", bound95(n, 1 << 20));
        }
        assert!((bound95(0, 5) - 1.0).abs() < 1e-9 && bound95(5, 5).abs() < 1e-9);
    }
}
