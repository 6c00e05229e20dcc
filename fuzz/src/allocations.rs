//! Counts what is allocated, so that a length that lies is found out before it kills the machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

fn grew(by: usize) {
    let live = LIVE.fetch_add(by, Ordering::Relaxed) + by;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grew(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both at once, as when the bytes move.
        grew(size);
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(ptr, layout, size) }
    }
}

/// What `work` gives, and the most bytes that were allocated at once meanwhile.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = LIVE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let out = work();
    (out, PEAK.load(Ordering::Relaxed).saturating_sub(before))
}

/// The most that may be allocated at once for an input of so many bytes.
pub fn bound(kind: &str, len: usize) -> usize {
    match kind {
        // A frame of 64 KiB; what zstd takes for itself is not counted.
        "frame" => (256 << 10) + 64 * len,
        // A few bytes of prefixes stand for the paths of a node: R-TREE-8 bounds them.
        "tree-node" => (5 << 20) + 64 * len,
        // Shards of 64 KiB, and the codec's tables.
        "parity" => (16 << 20) + 64 * len,
        // A small repository in memory, with two workers.
        "commands" => 64 << 20,
        _ => (64 << 10) + 64 * len,
    }
}
