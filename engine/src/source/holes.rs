//! Where a sparse file has data and where it has none.
//!
//! Kept true: the holes given are ascending, apart, inside the file, and fit one metadata block. What is not a hole is
//! read, so a hole left out costs time and never content.

use bulla_repo_format::limits::BLOCK_MAX;
use bulla_repo_format::tree::{Hole, encode_holes};
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// Holes held while looking for more; a hostile file has as many as it likes.
const CANDIDATES_MAX: usize = 1 << 20;

/// The holes of a file of `size` bytes. Moves the descriptor's offset. Any trouble means: none known from there on.
pub(super) fn find(fd: impl AsFd, size: u64) -> Vec<Hole> {
    let (mut holes, mut at) = (Vec::new(), 0);
    while at < size {
        let data = match rustix::fs::seek(&fd, SeekFrom::Data(at)) {
            Ok(data) => data.min(size),
            Err(Errno::NXIO) => size,
            Err(_) => break,
        };
        if data > at {
            holes.push(Hole { offset: at, len: data - at });
            if holes.len() > CANDIDATES_MAX {
                keep_largest(&mut holes, CANDIDATES_MAX / 2);
            }
        }
        if data >= size {
            break;
        }
        match rustix::fs::seek(&fd, SeekFrom::Hole(data)) {
            Ok(end) if end > data => at = end,
            _ => break,
        }
    }
    fit(&mut holes, BLOCK_MAX as usize);
    holes
}

/// Leaves out the smallest holes until the rest fits `max` encoded bytes.
fn fit(holes: &mut Vec<Hole>, max: usize) {
    loop {
        let len = encode_holes(holes).len();
        if len <= max {
            return;
        }
        // In proportion, a little less, and always fewer.
        let keep = (holes.len() as u128 * max as u128 / len as u128 * 31 / 32) as usize;
        keep_largest(holes, keep.min(holes.len().saturating_sub(1)));
    }
}

fn keep_largest(holes: &mut Vec<Hole>, keep: usize) {
    holes.sort_unstable_by_key(|h| (std::cmp::Reverse(h.len), h.offset));
    holes.truncate(keep);
    holes.sort_unstable_by_key(|h| h.offset);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_holes_go_first() {
        let mut holes: Vec<Hole> =
            (0..1000).map(|i| Hole { offset: i * 100_000, len: 1 + (i * 7919) % 90_000 }).collect();
        let before = holes.clone();
        fit(&mut holes, 2000);
        assert!(encode_holes(&holes).len() <= 2000 && holes.len() > 200);
        assert!(holes.is_sorted_by_key(|h| h.offset));
        let least = holes.iter().map(|h| h.len).min().unwrap();
        assert!(before.iter().filter(|h| !holes.contains(h)).all(|h| h.len <= least));
        fit(&mut holes, 1);
        assert!(holes.is_empty());
    }
}
