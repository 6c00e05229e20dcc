//! How sizes are hidden (SPEC 6.2, 7.5): Padmé for small objects and tail packs, steps for full packs.

/// The Padmé size of `len` (Nikitin et al., "Reducing Metadata Leakage from Encrypted Files and
/// Communication with PURBs", PETS 2019): at most 12 % more, O(log log) bits leaked.
pub fn padme(len: u64) -> u64 {
    if len < 2 {
        return len;
    }
    let exponent = len.ilog2();
    let kept = exponent.ilog2() + 1;
    let Some(last) = exponent.checked_sub(kept) else { return len };
    let mask = (1u64 << last) - 1;
    len.saturating_add(mask) & !mask
}

/// The padded size of a small sealed object of `len` bytes.
pub fn envelope_size(len: u64) -> u64 {
    padme(len).max(4 << 10)
}

/// The padded size of an index run of `len` bytes: the next multiple of 32 KiB.
pub fn index_size(len: u64) -> u64 {
    len.div_ceil(32 << 10).saturating_mul(32 << 10)
}

/// The size of a pack that was closed because it was full: the next multiple of 64 KiB.
pub fn full_pack_size(len: u64) -> u64 {
    len.div_ceil(64 << 10).saturating_mul(64 << 10)
}

/// The size of a run's last pack: Padmé over `len` plus a uniform `noise` below 64 KiB, at least 64 KiB.
pub fn tail_pack_size(len: u64, noise: u16) -> u64 {
    padme(len.saturating_add(u64::from(noise))).max(64 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padme_never_shrinks_and_costs_at_most_twelve_per_cent() {
        for len in (0..100_000).chain((1..60).map(|e| (1u64 << e) + 1)) {
            let p = padme(len);
            assert!(p >= len && (p - len) as f64 <= 0.12 * len as f64 + 1.0, "{len} -> {p}");
        }
    }
}
