//! What trees contain, and seeded randomness to change them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Every path below a directory with its mode and what it holds.
pub type Tree = BTreeMap<String, (u32, u64, u64)>;

/// What is below `dir`.
pub fn tree(dir: &Path) -> Tree {
    let (mut out, mut stack) = (Tree::new(), vec![dir.to_path_buf()]);
    while let Some(path) = stack.pop() {
        let meta = path.symlink_metadata().unwrap();
        let bytes = if meta.is_dir() {
            stack.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            Vec::new()
        } else {
            fs::read(&path).unwrap()
        };
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        out.insert(name, (meta.mode(), bytes.len() as u64, digest(&bytes)));
    }
    out
}

/// FNV-1a, a word at a time: enough to tell trees apart in a test.
fn digest(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |h: u64, part| {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        (h ^ u64::from_le_bytes(word)).wrapping_mul(0x100_0000_01b3).rotate_left(29)
    })
}

/// Random numbers that a seed repeats (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.roll() % n as u64).unwrap()
    }
}

/// Bytes that nothing compresses.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed.wrapping_mul(0x1234_5678_9abc_def1));
    let mut out: Vec<u8> =
        std::iter::repeat_with(|| dice.roll().to_le_bytes()).take(len / 8 + 1).flatten().collect();
    out.truncate(len);
    out
}
