//! Which files a drill restores: half of them drawn with equal chances, half with chances in proportion to their bytes. The
//! same seed draws the same files of the same snapshot, in one pass and in memory for the sample alone.
//!
//! The first half is what a bound on the share of bad files rests on (each file as likely as any other), the second on what
//! one on bytes does. Weighted sampling with exponential keys is that of Efraimidis and Spirakis (2006).

use std::collections::{BTreeSet, BinaryHeap};

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
    /// Files that went by,
    pub files: u64,
    /// and their bytes.
    pub bytes: u64,
}

impl Lot {
    /// Draws up to `n` files; with 0 it only counts.
    pub fn new(seed: [u8; 32], n: usize) -> Self {
        let (by_file, by_bytes) = (BinaryHeap::new(), BinaryHeap::new());
        Self { seed, each: n.div_ceil(2), by_file, by_bytes, files: 0, bytes: 0 }
    }

    /// A file goes by.
    pub fn pass(&mut self, path: &[u8], size: u64) {
        self.files += 1;
        self.bytes += size;
        let (first, second) = (self.chance(b"file", path), self.chance(b"byte", path));
        push(&mut self.by_file, self.each, first, path, size);
        if size > 0 {
            push(&mut self.by_bytes, self.each, -second.ln() / size as f64, path, size);
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
        for drawn in self.by_file.into_iter().chain(self.by_bytes) {
            if paths.insert(drawn.path) {
                bytes += drawn.size;
            }
        }
        (paths, equal, bytes)
    }
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

    fn draw(seed: u8, n: usize, files: &[(String, u64)]) -> BTreeSet<Vec<u8>> {
        let mut lot = Lot::new([seed; 32], n);
        files.iter().for_each(|(path, size)| lot.pass(path.as_bytes(), *size));
        lot.drawn().0
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
