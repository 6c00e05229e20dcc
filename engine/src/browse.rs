//! Looking into a snapshot: list entries, read one file. Mount and web views sit on this.

use crate::error::{Error, Result};
use crate::observer::escape;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::tree::TreeReader;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::{Entry, EntryKind, decode_holes};
use std::io::Write;

/// Calls `found` with the entry at `path` and those in it, or with `recursive` all below it, in tree order.
pub fn list(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
    found: &mut dyn FnMut(&Entry) -> Result<()>,
) -> Result<()> {
    let index = repository.open_index()?;
    let mut reader = TreeReader::within(repository, &index, snapshot.tree, path);
    let mut any = path.is_empty();
    while let Some(entry) = reader.next()? {
        any = true;
        let direct = *entry.parent == *path || entry.path() == path;
        if recursive || direct {
            found(&entry)?;
        }
    }
    if any { Ok(()) } else { Err(unknown(snapshot, path)) }
}

/// Writes a file's bytes, holes as zeros. Every chunk is verified before it is written.
pub fn write_file(
    repository: &Repository,
    snapshot: &Snapshot,
    path: &[u8],
    out: &mut dyn Write,
) -> Result<u64> {
    let index = repository.open_index()?;
    let entry =
        TreeReader::find(repository, &index, snapshot.tree, path)?.ok_or_else(|| unknown(snapshot, path))?;
    let EntryKind::File { size, holes, content } = &entry.kind else {
        return Err(Error::Refused(format!("{} is not a file", escape(path))));
    };
    if entry.flags.read_error {
        let text = format!(
            "{} could not be read when it was backed up: the snapshot has no content of it",
            escape(path)
        );
        return Err(Error::Refused(text));
    }
    let mut tree = TreeReader::new(repository, &index, snapshot.tree);
    let holes = match tree.block(holes)? {
        Some(block) => decode_holes(&block, *size)?,
        None => Vec::new(),
    };
    let mut chunks = ChunkReader::new(repository, &index);
    let mut references = tree.references(content)?;
    // Before a byte is written: what is cut short has not been given in part.
    if holes.iter().fold(references.sums.0, |sum, h| sum.saturating_add(h.len)) != *size {
        return Err(unsound(path, "its chunks and holes do not add up to its size".to_owned()));
    }
    let (mut at, mut holes, mut buffer) = (0u64, holes.into_iter().peekable(), Vec::new());
    let fail = |e| Error::io("write", "the output", e);
    while let Some(chunk) = references.next(&mut tree)? {
        chunks.read_exactly(ChunkKind::Data, &chunk, &mut buffer)?;
        let mut rest = buffer.as_slice();
        while !rest.is_empty() {
            while let Some(hole) = holes.next_if(|h| h.offset == at) {
                zeros(out, hole.len).map_err(fail)?;
                at += hole.len;
            }
            let room = holes.peek().map_or(u64::MAX, |h| h.offset - at);
            let now = usize::try_from(room).unwrap_or(usize::MAX).min(rest.len());
            let (head, tail) = rest.split_at(now);
            out.write_all(head).map_err(fail)?;
            at += now as u64;
            rest = tail;
        }
    }
    for hole in holes {
        zeros(out, hole.len).map_err(fail)?;
        at += hole.len;
    }
    if at != *size {
        return Err(unsound(path, format!("its content has {at} bytes, its entry says {size}")));
    }
    Ok(at)
}

fn unsound(path: &[u8], reason: String) -> Error {
    Error::Damaged { what: escape(path), reason }
}

fn zeros(out: &mut dyn Write, mut len: u64) -> std::io::Result<()> {
    let block = [0u8; 64 << 10];
    while len > 0 {
        let n = usize::try_from(len).unwrap_or(usize::MAX).min(block.len());
        out.write_all(block.get(..n).unwrap_or_default())?;
        len -= n as u64;
    }
    Ok(())
}

fn unknown(snapshot: &Snapshot, path: &[u8]) -> Error {
    Error::UnknownPath { path: escape(path), snapshot: snapshot.id.short() }
}
