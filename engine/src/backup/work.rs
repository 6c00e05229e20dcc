//! Units of work: what the producer gives out and a worker does.

use super::fold::{Done, Filled, Finished};
use super::store::Storer;
use crate::error::Result;
use crate::repository::pack::Buffer;
use crate::source::Found;
use bulla_repo_format::tree::{ChunkRef, EntryKind, Hole};

/// What the producer gives out.
pub enum Unit {
    /// For a worker.
    Work(Work),
    /// For the fold, done already.
    Done(Done),
}

/// What a worker does.
pub enum Work {
    /// Small files among entries that are complete.
    Batch(Vec<Item>),
    /// A part of a large file that was read and cut.
    Segment {
        /// The bytes.
        data: Buffer,
        /// Lengths of its chunks.
        cuts: Vec<usize>,
    },
}

/// An entry of a batch.
pub struct Item {
    /// As far as it is known.
    pub finished: Finished,
    /// Set when its details, and content, are to be read.
    pub found: Option<Box<Found>>,
}

impl Work {
    /// Does the work.
    pub fn execute(self, storer: &mut Storer<'_, '_>) -> Result<Done> {
        match self {
            Self::Segment { data, cuts } => Ok(Done::Segment(storer.segment(data, &cuts)?)),
            Self::Batch(items) => batch(items, storer),
        }
    }
}

/// Reads all files of a batch, then identifies and stores their chunks together.
fn batch(items: Vec<Item>, storer: &mut Storer<'_, '_>) -> Result<Done> {
    let mut refs: Vec<Vec<ChunkRef>> = vec![Vec::new(); items.len()];
    let mut holes: Vec<Option<Vec<Hole>>> = vec![None; items.len()];
    let mut out = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let (mut finished, found) = (item.finished, item.found);
        if let Some(mut found) = found {
            match found.capture_details() {
                Ok(xattrs) => finished.xattrs = xattrs,
                Err(e) => finished.filled = Filled::Unreadable(e),
            }
            finished.entry.kind = found.entry.kind.clone();
            let given = matches!(finished.filled, Filled::Linked(_) | Filled::Refs { .. });
            let readable = !given && !matches!(finished.filled, Filled::Unreadable(_));
            if readable && matches!(finished.entry.kind, EntryKind::File { .. }) {
                match read(at, &found, &mut finished, &mut refs, storer)? {
                    Ok(found_holes) => {
                        if let Some(slot) = holes.get_mut(at) {
                            *slot = Some(found_holes);
                        }
                    }
                    Err(e) => finished.filled = Filled::Unreadable(e),
                }
            }
            if let Filled::Linked(kept) = &mut finished.filled {
                *kept = Some(found);
            }
        }
        out.push(finished);
        if storer.is_full() {
            storer.flush(&mut refs)?;
        }
    }
    storer.flush(&mut refs)?;
    for ((finished, refs), holes) in out.iter_mut().zip(refs).zip(holes) {
        if let Some(holes) = holes {
            finished.filled = Filled::Refs { refs, holes };
        }
    }
    Ok(Done::Entries(out))
}

/// Reads one small file; its holes, or why it cannot be read.
fn read(
    at: usize,
    found: &Found,
    finished: &mut Finished,
    refs: &mut [Vec<ChunkRef>],
    storer: &mut Storer<'_, '_>,
) -> Result<std::result::Result<Vec<Hole>, crate::error::SourceError>> {
    let mut file = match found.open() {
        Ok(file) => file,
        Err(e) => return Ok(Err(e)),
    };
    let expected = finished.entry.size();
    if let Err(e) = storer.file(at, refs, expected, |buffer| file.read(buffer))? {
        return Ok(Err(e));
    }
    let holes = file.holes().to_vec();
    file.finish(&mut finished.entry);
    Ok(Ok(holes))
}
