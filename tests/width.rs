//! More workers: faster, and nothing else. The same few packs are filled, and one large file keeps all of them busy.

use crate::support::{Counted, backup, contents, env, noise, on_disk, secret};
use bulla_engine::backend::Memory;
use bulla_engine::env::Entropy;
use bulla_engine::repository::{InitOptions, Repository};
use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

/// Entropy that remembers who asked for the noise of a pack's padding, which is two bytes: the threads that sealed packs.
struct Sealers {
    inner: Counted,
    seen: Mutex<HashSet<ThreadId>>,
}

impl Entropy for Sealers {
    fn fill(&self, out: &mut [u8]) {
        if out.len() == 2 {
            self.seen.lock().unwrap().insert(std::thread::current().id());
        }
        self.inner.fill(out);
    }
}

/// A repository whose backups are `width` wide, and who sealed its packs.
fn repository(options: &InitOptions, width: usize) -> (Repository, Arc<Sealers>) {
    let sealers = Arc::new(Sealers { inner: Counted::new(1), seen: Mutex::default() });
    let mut env = env(1);
    (env.width, env.entropy) = (width, sealers.clone());
    let made = Repository::init(Arc::new(Memory::new()), options, &secret(), env).unwrap();
    (made.repository, sealers)
}

/// Lines of words that repeat as words do, so that who shares a frame with whom decides what it compresses to.
fn text(seed: usize) -> Vec<u8> {
    let numbers = noise(&format!("words {seed}"), 16 << 10);
    let word = |n: &u8| format!("{} of topic {} ", usize::from(*n) * 7919, seed / 40 * usize::from(n % 16));
    numbers.iter().map(word).collect::<String>().into_bytes()
}

/// Bytes of frames, without padding.
fn sealed(repository: &Repository) -> u64 {
    let packs = repository.open_index().unwrap().packs().map(Result::unwrap);
    packs.flat_map(|p| p.frames.clone()).filter(|f| f.raw > 0).map(|f| u64::from(f.sealed)).sum()
}

fn files(dir: &Path) {
    for n in 0..160 {
        std::fs::write(dir.join(format!("file {n:03}")), text(n)).unwrap();
    }
}

#[test]
fn sixteen_workers_store_at_most_a_hundredth_more_than_one() {
    let dir = tempfile::tempdir().unwrap();
    files(dir.path());
    let stored = [1, 16].map(|width| {
        let (repository, _) = repository(&InitOptions::default(), width);
        let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
        assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
        sealed(&repository)
    });
    let [one, sixteen] = stored;
    assert!(one > 1 << 20 && sixteen * 100 <= one * 101, "{one} and {sixteen}");
}

#[test]
fn one_large_file_is_compressed_and_sealed_by_several_workers() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("large"), noise("large", 24 << 20)).unwrap();
    let options = InitOptions { data_frame: 64 << 10, data_pack: 256 << 10, ..InitOptions::default() };
    let (repository, sealers) = repository(&options, 4);
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
    let seen = sealers.seen.lock().unwrap().len();
    assert!(seen >= 4, "two workers at least, beside who ends the data and who writes metadata: {seen}");
}
