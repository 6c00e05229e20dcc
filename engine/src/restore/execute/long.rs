//! Files of so many chunks that their references alone would fill the memory: one worker writes one chunk after
//! another, reading the lists as it comes to them. A file that is there already is compared the same way, and kept or
//! written anew as a whole.

use super::super::Context;
use super::super::examine::{holds, holes_are_empty};
use super::super::plan::Action;
use super::super::safe_dir::SafeDir;
use super::super::wave::Item;
use super::write::Writer;
use crate::error::{Error, Result};
use crate::repository::chunks::ChunkReader;
use crate::repository::tree::{References, TreeReader};
use bulla_repo_format::ChunkId;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::tree::{ChunkRef, Content};
use rustix::fd::OwnedFd;
use rustix::fs;
use rustix::io::Errno;

/// The references of one file, through a reader of its own.
struct Walk<'r> {
    tree: TreeReader<'r>,
    references: References,
}

impl<'r> Walk<'r> {
    fn new(context: &Context<'r>, content: &Content) -> Result<Self> {
        // Only lists are read: any root does.
        let mut tree = TreeReader::new(context.repository, context.index, ChunkId::new([0; 32]));
        let references = tree.references(content)?;
        Ok(Self { tree, references })
    }

    fn next(&mut self) -> Result<Option<ChunkRef>> {
        self.references.next(&mut self.tree)
    }
}

/// Restores the content of a wave's long files.
pub(super) fn content(context: &Context<'_>, root: &SafeDir, items: &[Item]) -> Result<()> {
    for item in items.iter().filter(|i| matches!(i.action, Action::Create | Action::Replace)) {
        let Some(content) = item.long() else { continue };
        let mut writer = Writer::new(context, root.handle());
        let done = writer
            .make_room(item)
            .and_then(|()| writer.whole(item, &mut |fd, writer| write(context, writer, item, fd, content)));
        done.or_else(|e| context.tally.target_error(e))?;
        context.tally.progress(1, item.entry.size());
    }
    Ok(())
}

/// True if all of it was there.
fn write(
    context: &Context<'_>,
    writer: &Writer<'_, '_>,
    item: &Item,
    fd: &OwnedFd,
    content: &Content,
) -> Result<bool> {
    // A length that the file system does not have is refused before anything is fetched.
    fs::ftruncate(fd, item.entry.size()).map_err(|e| writer.io("extend", item, e))?;
    let written = pieces(context, writer, item, fd, content);
    match written {
        Err(e) if e.is_damage() => {
            context.tally.damage(item.entry.path(), e.to_string());
            Ok(false)
        }
        other => other.map(|()| true),
    }
}

fn pieces(
    context: &Context<'_>,
    writer: &Writer<'_, '_>,
    item: &Item,
    fd: &OwnedFd,
    content: &Content,
) -> Result<()> {
    let mut walk = Walk::new(context, content)?;
    let mut chunks = ChunkReader::new(context.repository, context.index);
    let (mut at, mut bytes) = (0, Vec::new());
    while let Some(chunk) = walk.next()? {
        context.tally.check_interrupt()?;
        chunks.read_exactly(ChunkKind::Data, &chunk, &mut bytes)?;
        writer.put(item, fd, at, &bytes)?;
        at += u64::from(chunk.len);
    }
    Ok(())
}

/// True if a file holds all that it should.
pub(in super::super) fn compare(
    context: &Context<'_>,
    root: &SafeDir,
    item: &Item,
    fd: &OwnedFd,
    content: &Content,
    keys: &[IdKey],
) -> Result<bool> {
    let io = |e: Errno| Error::io("read", root.display(&item.parent, &item.entry.name), e.into());
    let stat = fs::fstat(fd).map_err(io)?;
    if u64::try_from(stat.st_size).ok() != Some(item.entry.size())
        || !holes_are_empty(fd, &item.holes).map_err(io)?
    {
        return Ok(false);
    }
    let mut walk = Walk::new(context, content)?;
    let (mut at, mut buffer) = (0, Vec::new());
    while let Some(chunk) = walk.next()? {
        context.tally.check_interrupt()?;
        if !holds(fd, at, &chunk, &item.holes, keys, &mut buffer).map_err(io)? {
            return Ok(false);
        }
        at += u64::from(chunk.len);
    }
    Ok(true)
}
