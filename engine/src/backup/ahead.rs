//! The walk in a thread of its own, a little ahead of who merges it with the parent's tree: asking the kernel about files
//! and reading what the parent has of them go on side by side.
//!
//! Kept true: order and content are the walk's; what waits is bounded, descriptors of directories too; a walk that stops
//! on a bug is an error and never a source that ends early.

use super::pipeline::panicked;
use crate::error::Result;
use crate::observer::Observer;
use crate::source::{PathSources, Walk, Walked};
use bulla_repo_format::snapshot::Mount;
use crossbeam_channel::bounded;

/// Entries handed over at once: a wake-up for each would cost more than the entry.
const BATCH: usize = 256;
/// Directories they may lie in: each keeps a descriptor.
const DIRECTORIES: usize = 32;
/// Batches that wait.
const WAITING: usize = 2;

/// Walks `sources` and gives everything met to `take`, in order, until it fails. Returns the devices met.
pub fn walk(
    sources: &PathSources,
    observer: &dyn Observer,
    mut take: impl FnMut(Walked) -> Result<()>,
) -> Result<Vec<Mount>> {
    let mut walk = Walk::new(sources, observer)?;
    let (give, batches) = bounded(WAITING);
    std::thread::scope(|scope| {
        let walker = scope.spawn(move || {
            while let Some(batch) = next_batch(&mut walk) {
                if give.send(batch).is_err() {
                    break;
                }
            }
            walk.mounts().to_vec()
        });
        let taken = batches.iter().flatten().try_for_each(&mut take);
        // A walker that waits for room would wait for ever.
        drop(batches);
        let mounts = walker.join().map_err(|_| panicked("the walk"));
        taken.and(mounts)
    })
}

/// The next entries and errors; `None` at the end.
fn next_batch(walk: &mut Walk<'_>) -> Option<Vec<Walked>> {
    let mut batch = Vec::with_capacity(BATCH);
    let (mut directories, mut last) = (0, None);
    while batch.len() < BATCH && directories < DIRECTORIES {
        let Some(walked) = walk.next() else { break };
        if let Walked::Entry(found) = &walked {
            let directory = found.directory();
            directories += usize::from(last.replace(directory) != Some(directory));
        }
        batch.push(walked);
    }
    (!batch.is_empty()).then_some(batch)
}
