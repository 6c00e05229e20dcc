//! How much there is: a second walk beside the first, only for callers that show a total.

use crate::observer::{Event, Observer, Silent};
use crate::source::{PathSources, Walk, Walked};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Files and bytes of the source; 0 until the scan is done, so that no estimate shrinks.
#[derive(Default)]
pub struct Totals {
    files: AtomicU64,
    bytes: AtomicU64,
    stop: AtomicBool,
}

impl Totals {
    /// Counts everything the walk will meet. Errors are the walk's to report.
    pub fn scan(&self, sources: &PathSources) {
        let Ok(mut walk) = Walk::new(sources, &Silent) else { return };
        let (mut files, mut bytes) = (0u64, 0u64);
        while let Some(walked) = walk.next() {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Walked::Entry(found) = walked {
                files += u64::from(!found.entry.is_dir());
                bytes = bytes.saturating_add(found.entry.size());
            }
        }
        self.bytes.store(bytes, Ordering::Relaxed);
        self.files.store(files, Ordering::Relaxed);
    }

    /// The backup is over.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Reports progress against the totals, as far as they are known.
    pub fn report(&self, files: u64, bytes: u64, observer: &dyn Observer) {
        let (total_files, total_bytes) =
            (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        observer.event(&Event::Progress { files, bytes, total_files, total_bytes });
    }
}
