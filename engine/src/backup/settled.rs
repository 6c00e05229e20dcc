//! Chunks of this run whose index run is stored: looked up in its cache file, behind a filter, instead of being kept in
//! memory, so that a first backup does not grow with its source.
//!
//! Kept true: what the filter says is absent is absent; what it lets through is looked up, so a chunk is never taken for
//! stored that is not.

use crate::error::Result;
use crate::repository::index::segment::Segment;
use bulla_repo_format::index::KEY_LEN;
use std::sync::{PoisonError, RwLock};

/// Records per word of the filter: two bytes each, and less than one key in a hundred that is not there is looked up.
const PER_WORD: usize = 4;

/// A blocked Bloom filter (Putze, Sanders, Singler: Cache-, Hash- and Space-Efficient Bloom Filters, 2007): all four bits of a
/// key lie in one word. Keys are pseudo-random, so their own bytes say which.
struct Filter(Vec<u64>);

impl Filter {
    fn new(records: usize) -> Self {
        Self(vec![0; records.div_ceil(PER_WORD).max(1)])
    }

    /// The word of a key, and its bits.
    fn place(&self, key: &[u8; KEY_LEN]) -> (usize, u64) {
        let [.., a, b, c, d, e, f, g, h] = *key;
        let word = (u64::from(u32::from_le_bytes([a, b, c, d])) * self.0.len() as u64) >> 32;
        let bits = [e, f, g, h].iter().fold(0, |bits, n| bits | 1 << (n & 63));
        (usize::try_from(word).unwrap_or(0), bits)
    }

    fn insert(&mut self, key: &[u8; KEY_LEN]) {
        let (word, bits) = self.place(key);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bits;
        }
    }

    fn may_have(&self, key: &[u8; KEY_LEN]) -> bool {
        let (word, bits) = self.place(key);
        self.0.get(word).is_some_and(|word| word & bits == bits)
    }
}

/// Index runs that this run has put.
#[derive(Default)]
pub struct Settled {
    runs: RwLock<Vec<(Filter, Segment)>>,
}

impl Settled {
    /// Takes a run in, and calls `each` with every key of it once it can be found here. A run that does not read back is left
    /// out: its keys are still where they were.
    pub fn add(&self, run: Segment, mut each: impl FnMut(&[u8; KEY_LEN])) {
        let mut filter = Filter::new(run.records() as usize);
        let mut keys = Vec::with_capacity(run.records() as usize);
        if run.each_record(|record| keys.push(record.key)).is_err() {
            return;
        }
        keys.iter().for_each(|key| filter.insert(key));
        self.runs.write().unwrap_or_else(PoisonError::into_inner).push((filter, run));
        keys.iter().for_each(&mut each);
    }

    /// True if a run has the key.
    pub fn has(&self, key: &[u8; KEY_LEN]) -> Result<bool> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        for (_, run) in runs.iter().filter(|(filter, _)| filter.may_have(key)) {
            let mut found = false;
            run.find(key, |_| found = true)?;
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u32) -> [u8; KEY_LEN] {
        let mut key = [0; KEY_LEN];
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(&mut key);
        key
    }

    #[test]
    fn a_filter_forgets_nothing_and_invents_little() {
        for records in [0, 1, 3, 1000, 100_000] {
            let mut filter = Filter::new(records as usize);
            (0..records).for_each(|n| filter.insert(&key(n)));
            assert!((0..records).all(|n| filter.may_have(&key(n))));
            let invented = (records..records + 100_000).filter(|n| filter.may_have(&key(*n))).count();
            assert!(invented < 1000, "{invented} of 100,000 with {records}");
        }
    }
}
