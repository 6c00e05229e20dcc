//! Cache files in memory: mapped, and given back to the kernel once too much of them was touched, so that a large index
//! does not become resident by being looked into.
//!
//! Kept true: of all files of one [`Window`], little more than [`PAGES`] pages are resident at a time, however many are
//! looked at; what was given back is read again by touching it, so no reader notices. (It is not authenticated again, as what
//! the kernel takes out of memory by itself is not: a file that decays meanwhile can give a wrong place.)

use memmap2::{Mmap, UncheckedAdvice};
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Bytes that are touched as one: the kernel maps neighbours of a touched page along with it, in such steps.
pub(super) const PAGE: usize = 64 << 10;
/// Pages of all files that may be touched before they are given back: 48 MiB.
const PAGES: usize = 768;

/// What the files of one index share.
#[derive(Default)]
pub(super) struct Window {
    /// Pages touched since the last time they were given back.
    touched: AtomicUsize,
    maps: Mutex<Vec<Weak<Mapped>>>,
}

impl Window {
    /// Counts a page; all are given back when it is one too many.
    fn touch(&self) {
        if self.touched.fetch_add(1, Ordering::Relaxed) + 1 < PAGES {
            return;
        }
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        self.touched.store(0, Ordering::Relaxed);
        maps.retain(|map| map.upgrade().inspect(|map| map.give_back()).is_some());
    }
}

/// Writes a file to be mapped, in pages: of one that is written at once the kernel may keep 2 MiB together, and map all of
/// them for each byte that is looked at (seen with Linux 6.18).
pub(super) fn write(file: &mut File, bytes: &[u8]) -> std::io::Result<()> {
    bytes.chunks(PAGE).try_for_each(|page| file.write_all(page))
}

enum Bytes {
    Mapped(Mmap),
    /// Where no cache can be written.
    Owned(Vec<u8>),
}

/// The bytes of one file.
pub(super) struct Mapped {
    bytes: Bytes,
    window: Option<Arc<Window>>,
    /// A bit per page: it is in order, and counts as touched.
    ready: Vec<AtomicU64>,
}

impl Mapped {
    /// Maps a file that nobody changes.
    #[allow(unsafe_code, reason = "mapping a private cache file")]
    pub(super) fn map(file: &File, window: &Arc<Window>) -> Option<Arc<Self>> {
        // SAFETY: the file lies in a directory of mode 0700, is written once under a temporary name and renamed, and
        // bulla never truncates or rewrites it. Whoever can break that can already read and replace this process's
        // cache. Contents are authenticated page by page before use, so a change between check and use can give a
        // wrong location, which the chunk's id then refutes.
        let map = unsafe { Mmap::map(file) }.ok()?;
        let mapped = Arc::new(Self::new(Bytes::Mapped(map), Some(window.clone())));
        window.maps.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&mapped));
        Some(mapped)
    }

    /// Bytes that lie in this process's own memory.
    pub(super) fn owned(bytes: Vec<u8>) -> Arc<Self> {
        Arc::new(Self::new(Bytes::Owned(bytes), None))
    }

    fn new(bytes: Bytes, window: Option<Arc<Window>>) -> Self {
        let mut new = Self { bytes, window, ready: Vec::new() };
        let pages = new.get().len().div_ceil(PAGE);
        new.ready.resize_with(pages.div_ceil(64), AtomicU64::default);
        new
    }

    /// All bytes; looking at a page of them makes it resident.
    pub(super) fn get(&self) -> &[u8] {
        match &self.bytes {
            Bytes::Mapped(map) => map,
            Bytes::Owned(bytes) => bytes,
        }
    }

    /// True if [`Mapped::touched`] was said of the page, and nothing was given back since.
    pub(super) fn is_ready(&self, page: usize) -> bool {
        self.ready.get(page / 64).is_some_and(|word| word.load(Ordering::Relaxed) & (1 << (page % 64)) != 0)
    }

    /// To be said of a page that is not ready, when it is looked at and nothing is wrong with it.
    pub(super) fn touched(&self, page: usize) {
        if let Some(window) = &self.window {
            window.touch();
        }
        if let Some(word) = self.ready.get(page / 64) {
            word.fetch_or(1 << (page % 64), Ordering::Relaxed);
        }
    }

    #[allow(unsafe_code, reason = "giving back pages of a private cache file")]
    fn give_back(&self) {
        self.ready.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        if let Bytes::Mapped(map) = &self.bytes {
            // SAFETY: of a shared mapping of a file the kernel reads again what is touched again, so the bytes that
            // references from `get` lead to stay the same. If it refuses, they stay resident.
            let _ = unsafe { map.unchecked_advise(UncheckedAdvice::DontNeed) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Resident bytes of files that this process has mapped.
    fn resident(path: &std::path::Path) -> u64 {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let end = format!("{}\n", path.display());
        let rss = maps.split(&end).skip(1).filter_map(|m| m.lines().find_map(|l| l.strip_prefix("Rss:")));
        rss.map(|r| r.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10).sum()
    }

    #[test]
    fn what_is_looked_at_once_does_not_stay_in_memory() {
        const EACH: usize = 2 * PAGES;
        let dir = tempfile::tempdir().unwrap();
        let window = Arc::new(Window::default());
        let files: Vec<_> = (0..2u8)
            .map(|n| {
                let path = dir.path().join(n.to_string());
                let bytes: Vec<u8> = (0..EACH).flat_map(|page| [n ^ page as u8; PAGE]).collect();
                write(&mut File::create(&path).unwrap(), &bytes).unwrap();
                (n, Mapped::map(&File::open(&path).unwrap(), &window).unwrap(), path)
            })
            .collect();
        let mut most = 0;
        for _ in 0..2 {
            for (n, map, _) in &files {
                // Far apart, as look-ups are.
                for page in (0..EACH).map(|n| n * 37 % EACH) {
                    assert_eq!(map.get()[page * PAGE], n ^ page as u8);
                    map.touched(page);
                    if page % 100 == 99 {
                        most = most.max(files.iter().map(|(_, _, path)| resident(path)).sum());
                    }
                }
            }
        }
        // The kernel may map a little more than what is touched.
        assert!(
            most > 0 && most <= (PAGES * PAGE) as u64 * 3 / 2,
            "{most} bytes of {} are resident",
            2 * EACH * PAGE
        );
        drop(files);
        assert!(window.maps.lock().unwrap().iter().all(|m| m.upgrade().is_none()));
    }
}
