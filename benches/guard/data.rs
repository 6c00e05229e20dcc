//! What is worked on: text that compresses about as source code does, drawn from a fixed seed.

use bulla_repo_format::keys::{Keyring, Secret};
use bulla_repo_format::{ClientId, RepoId};
use std::path::Path;
use tempfile::TempDir;

/// Xorshift64*.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// `len` bytes of words, common ones more often, in lines that sometimes repeat.
pub(crate) fn text(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice::new(0x9e37_79b9_7f4a_7c15 ^ (seed << 20));
    let mut words = Dice::new(7);
    let words: Vec<Vec<u8>> = (0..4096)
        .map(|_| (0..3 + words.below(9)).map(|_| b'a' + u8::try_from(words.below(26)).unwrap()).collect())
        .collect();
    let mut out = Vec::with_capacity(len + 4096);
    while out.len() < len {
        if out.len() > 4096 && dice.below(3) == 0 {
            let from = out.len() - 1 - usize::try_from(dice.below(4000)).unwrap();
            let to = (from + 40).min(out.len());
            out.extend_from_within(from..to);
        }
        for _ in 0..8 {
            let rank = dice.below(4096) * dice.below(4096) / 4096;
            out.extend_from_slice(&words[usize::try_from(rank).unwrap()]);
            out.push(b' ');
        }
        out.push(b'\n');
    }
    out.truncate(len);
    out
}

/// A tree of `count` files of `size` bytes each on average, sixteen to a directory.
pub(crate) fn files(root: &Path, count: u64, size: u64) {
    let mut dice = Dice::new(11);
    for n in 0..count {
        let folder = root.join(format!("folder-{}", n / 16));
        if n % 16 == 0 {
            std::fs::create_dir_all(&folder).unwrap();
        }
        let len = usize::try_from(dice.below(size * 2)).unwrap();
        std::fs::write(folder.join(format!("file-{n}.txt")), text(n, len)).unwrap();
    }
}

/// A directory in memory where there is one: ext4 makes new files slow for minutes after many were deleted.
pub(crate) fn directory() -> TempDir {
    TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap()
}

/// A keyring that is no secret.
pub(crate) fn keyring() -> Keyring {
    Keyring::new(vec![Secret::new([1; 32])], vec![Secret::new([2; 32])]).unwrap()
}

pub(crate) const REPO: RepoId = RepoId::new([3; 32]);
pub(crate) const CLIENT: ClientId = ClientId::new([4; 16]);
