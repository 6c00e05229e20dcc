//! What of an entry's content a wave holds: references, holes and attributes, each held to what the entry says of it.

use super::Context;
use super::wave::{HELD_REFS, Wave};
use crate::error::{Error, Result};
use crate::repository::tree::TreeReader;
use bulla_repo_format::tree::{Entry, EntryKind, Hole, decode_holes, decode_xattrs};
use std::ops::Range;

/// A file's content as a wave has it.
pub(super) struct Held {
    pub(super) refs: Range<usize>,
    pub(super) holes: Vec<Hole>,
    /// It is too long for that: `refs` is empty, its list stays in the entry.
    pub(super) long: bool,
}

/// A file's references, appended to the wave's, and its holes; together they make its size.
pub(super) fn content(tree: &mut TreeReader<'_>, wave: &mut Wave, entry: &Entry) -> Result<Held> {
    let start = wave.refs.len();
    let none = Held { refs: start..start, holes: Vec::new(), long: false };
    let EntryKind::File { size, holes, content } = &entry.kind else { return Ok(none) };
    if entry.flags.read_error {
        return Ok(none);
    }
    let damaged = |reason: &str| Error::Damaged { what: "its description".into(), reason: reason.to_owned() };
    let holes = match tree.block(holes)? {
        None => Vec::new(),
        Some(block) => decode_holes(&block, *size).map_err(|e| damaged(&e.to_string()))?,
    };
    let mut references = tree.references(content)?;
    let (bytes, count) = references.sums;
    // Before its lists are read: what they say is all that it costs to claim 2^60 references.
    if holes.iter().map(|h| h.len).try_fold(bytes, u64::checked_add) != Some(*size) {
        return Err(damaged("its chunks and holes do not add up to its size"));
    }
    if count > HELD_REFS {
        return Ok(Held { holes, long: true, ..none });
    }
    loop {
        match references.next(tree) {
            Ok(Some(chunk)) => wave.refs.push(chunk),
            Ok(None) => return Ok(Held { refs: start..wave.refs.len(), holes, long: false }),
            Err(e) => {
                wave.refs.truncate(start);
                return Err(e);
            }
        }
    }
}

/// An entry's block of attributes; one that cannot be had, or breaks the rules, is damage.
pub(super) fn attributes(
    context: &Context<'_>,
    tree: &mut TreeReader<'_>,
    entry: &Entry,
) -> Result<Option<Vec<u8>>> {
    let sound = |block: Option<Vec<u8>>| match block.as_deref().map(decode_xattrs) {
        Some(Err(e)) => Err(Error::Damaged { what: "its extended attributes".into(), reason: e.to_string() }),
        _ => Ok(block),
    };
    match tree.block(&entry.xattrs).and_then(sound) {
        Err(e) if e.is_damage() => {
            context.tally.damage(entry.path(), e.to_string());
            Ok(None)
        }
        other => other,
    }
}
