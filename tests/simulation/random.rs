//! Numbers from a seed (splitmix64), the same on every machine.

use bulla_engine::env::Entropy;
use std::sync::atomic::{AtomicU64, Ordering};

/// A stream of numbers.
#[derive(Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The stream of `seed` called `name`.
    pub(crate) fn new(seed: u64, name: u64) -> Self {
        Self(mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix(name)))
    }
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
    /// Below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize].clone()
    }
}

fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// A host's entropy: its seed and a counter through BLAKE3.
pub(crate) struct Seeded(pub(crate) u64, pub(crate) AtomicU64);

impl Entropy for Seeded {
    fn fill(&self, out: &mut [u8]) {
        let n = self.1.fetch_add(1, Ordering::Relaxed);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0.to_le_bytes()).update(&n.to_le_bytes()).finalize_xof().fill(out);
    }
}
