//! Cuts bytes into chunks at secret, content-defined places (SPEC 8).

use crate::error::Result;
use bulla_repo_format::chunker::{ChunkerParams, Gear};
use bulla_repo_format::keys::Keyring;
use fastcdc::v2020::cut_gear;

/// The chunker of one repository and domain.
pub struct Chunker {
    params: ChunkerParams,
    gear: Gear,
}

impl Chunker {
    /// Derives the tables of the current domain.
    pub fn new(params: ChunkerParams, keyring: &Keyring) -> Result<Self> {
        // The scan only debug-asserts what it needs of the sizes.
        params.validate()?;
        Ok(Self { params, gear: Gear::derive(&keyring.chunker_key(keyring.domain())?, &params) })
    }

    /// No chunk is longer.
    pub fn max(&self) -> usize {
        self.params.max as usize
    }

    /// The length of the first chunk of `window`, which must be at least [`Chunker::max`] bytes long unless the
    /// file ends with it.
    pub fn cut(&self, window: &[u8]) -> usize {
        let (p, g) = (&self.params, &self.gear);
        cut_gear(
            window,
            p.min as usize,
            p.avg as usize,
            p.max as usize,
            g.mask_small,
            g.mask_large,
            g.mask_small << 1,
            g.mask_large << 1,
            &*g.table,
            &*g.shifted,
        )
        .1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::chunker::cut_reference;
    use bulla_repo_format::keys::Secret;
    use proptest::prelude::*;

    fn keyring(seed: u8) -> Keyring {
        Keyring::new(vec![Secret::new([seed; 32])], vec![Secret::new([seed; 32])]).unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// The fast scan and the rule of SPEC 8.2, byte by byte, cut at the same places.
        #[test]
        fn the_fast_scan_follows_the_rule(seed: u8, len in 0usize..20_000, zeros in 0usize..5000, avg in 8u32..12) {
            let params = ChunkerParams { min: 1 << (avg - 2), avg: 1 << avg, max: 1 << (avg + 2) };
            let chunker = Chunker::new(params, &keyring(seed)).unwrap();
            let mut data = vec![0; len + zeros];
            blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut data[..len]);
            let mut at = 0;
            while at < data.len() {
                let n = chunker.cut(&data[at..]);
                prop_assert_eq!(n, cut_reference(&data[at..], &params, &chunker.gear));
                at += n;
            }
        }
    }

    #[test]
    fn another_key_cuts_elsewhere() {
        let mut data = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        let cuts = |seed| {
            let c = Chunker::new(ChunkerParams { min: 1024, avg: 4096, max: 16384 }, &keyring(seed)).unwrap();
            let (mut at, mut out) = (0, std::collections::BTreeSet::new());
            while at < data.len() {
                at += c.cut(&data[at..]);
                out.insert(at);
            }
            out
        };
        let (a, b) = (cuts(1), cuts(2));
        assert!(a.intersection(&b).count() < a.len() / 20, "{} of {}", a.intersection(&b).count(), a.len());
    }
}
