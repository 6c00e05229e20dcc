//! Units of work: what the producer gives out and a worker does.

use super::fold::{Done, Filled, Finished};
use super::store::Storer;
use crate::error::{Result, SourceError};
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
    let mut holes: Vec<Option<Vec<Hole>>> = Vec::with_capacity(items.len());
    let mut out = Vec::with_capacity(items.len());
    for (at, item) in items.into_iter().enumerate() {
        let (mut finished, found, mut of_file) = (item.finished, item.found, None);
        if let Some(mut found) = found {
            let given = matches!(finished.filled, Filled::Linked(_) | Filled::Refs { .. });
            let is_file = matches!(found.entry.kind, EntryKind::File { .. });
            let captured = if is_file && !given {
                read(at, &mut found, &mut finished, &mut refs, storer)?.map(|holes| of_file = Some(holes))
            } else {
                let details = found.capture_details();
                finished.entry.kind = found.entry.kind.clone();
                details.map(|xattrs| finished.xattrs = xattrs)
            };
            if let Err(e) = captured {
                finished.filled = Filled::Unreadable(e);
            }
            if let Filled::Linked(kept) = &mut finished.filled {
                *kept = Some(found);
            }
        }
        out.push(finished);
        holes.push(of_file);
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

/// Reads one small file, attributes and all; its holes, or why it cannot be read.
fn read(
    at: usize,
    found: &mut Found,
    finished: &mut Finished,
    refs: &mut [Vec<ChunkRef>],
    storer: &mut Storer<'_, '_>,
) -> Result<std::result::Result<Vec<Hole>, SourceError>> {
    let opened = found.open().and_then(|file| file.xattrs().map(|xattrs| (file, xattrs)));
    let mut file = match opened {
        Ok((file, xattrs)) => {
            finished.xattrs = xattrs;
            file
        }
        Err(e) => {
            // What cannot be opened has attributes all the same.
            finished.xattrs = found.capture_details().ok().flatten();
            return Ok(Err(e));
        }
    };
    let expected = finished.entry.size();
    if let Err(e) = storer.file(at, refs, expected, |buffer| file.read(buffer))? {
        return Ok(Err(e));
    }
    let holes = file.holes().to_vec();
    file.finish(&mut finished.entry);
    Ok(Ok(holes))
}
