//! What lies in the target where entries are to go: types, and for files whether their content is right already.

use super::Context;
use super::plan::{self, Action, Comparison, Fact, Found};
use super::safe_dir::SafeDir;
use super::wave::{Item, Wave};
use crate::error::{Error, Result};
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::tree::{ChunkRef, EntryKind, Hole};
use rustix::fd::OwnedFd;
use rustix::fs::{self, SeekFrom, Stat};
use rustix::io::Errno;

/// Looks at the place of every item whose directory is not new, and decides about each.
pub(super) fn examine(context: &Context<'_>, root: Option<&SafeDir>, wave: &mut Wave) -> Result<()> {
    let keys = id_keys(context)?;
    let refs = &wave.refs;
    let start = || (root.map(SafeDir::handle), Vec::new());
    super::execute::each_mut(context, &mut wave.items, start, |(root, buffer), item: &mut Item| {
        if item.entry.is_dir() {
            return Ok(());
        }
        if !item.fresh_parent
            && let Some(root) = root
        {
            let refs = refs.get(item.refs.clone()).unwrap_or_default();
            match look(context, root, item, refs, &keys, buffer) {
                Ok(fact) => item.fact = fact,
                Err(e) => {
                    context.tally.target_error(e)?;
                    item.action = Action::Keep;
                    return Ok(());
                }
            }
        }
        if item.action != Action::Link {
            let intended = context.policy.intended(&item.entry);
            item.action = plan::decide(&item.entry, &item.fact, intended, context.options);
        } else if let Fact::Present(found) = &item.fact
            && plan::keeps(&item.entry, &found.stat, context.options.overwrite)
        {
            item.action = Action::Keep;
        }
        Ok(())
    })
}

/// A key per domain, the current one first.
pub(super) fn id_keys(context: &Context<'_>) -> Result<Vec<IdKey>> {
    let keyring = context.repository.keyring();
    let key = |domain: u16| keyring.id_key(domain, ChunkKind::Data).map_err(Error::from);
    (0..=keyring.domain()).rev().map(key).collect()
}

fn look(
    context: &Context<'_>,
    root: &mut SafeDir,
    item: &Item,
    refs: &[ChunkRef],
    keys: &[IdKey],
    buffer: &mut Vec<u8>,
) -> Result<Fact> {
    let (parent, name) = (&item.parent[..], &item.entry.name[..]);
    let Some(stat) = root.stat(parent, name)? else { return Ok(Fact::Missing) };
    let same = |yes: bool| if yes { Comparison::Same } else { Comparison::Unknown };
    let content = match &item.entry.kind {
        EntryKind::File { .. } if item.action == Action::Link => Comparison::Unknown,
        EntryKind::File { size, .. } if plan::needs_comparison(&item.entry, &stat, context.options) => {
            match root.open_file(parent, name, false) {
                Ok((fd, _)) => compare_item(context, root, item, &fd, (*size, refs), keys, buffer)?,
                // Not readable by us: then it is replaced.
                Err(_) => Comparison::Unknown,
            }
        }
        EntryKind::Symlink { target } if fs::FileType::from_raw_mode(stat.st_mode).is_symlink() => {
            same(root.read_link(parent, name)? == *target)
        }
        EntryKind::Fifo | EntryKind::Socket => same(true),
        EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
            same(stat.st_rdev == fs::makedev(*major, *minor))
        }
        _ => Comparison::Unknown,
    };
    Ok(Fact::Present(Box::new(Found { stat, content })))
}

/// [`compare`], or its form for files too long for that.
pub(super) fn compare_item(
    context: &Context<'_>,
    root: &SafeDir,
    item: &Item,
    fd: &OwnedFd,
    (size, refs): (u64, &[ChunkRef]),
    keys: &[IdKey],
    buffer: &mut Vec<u8>,
) -> Result<Comparison> {
    if let Some(content) = item.long() {
        return match super::execute::long::compare(context, root, item, fd, content, keys) {
            Ok(true) => Ok(Comparison::Same),
            Ok(false) => Ok(Comparison::Unknown),
            // Whoever fetches it says so.
            Err(e) if e.is_damage() => Ok(Comparison::Unknown),
            Err(e) => Err(e),
        };
    }
    let io = |e: Errno| Error::io("read", root.display(&item.parent, &item.entry.name), e.into());
    compare(fd, size, refs, &item.holes, keys, buffer).map_err(io)
}

/// Reads a file and identifies each chunk in its place. Holes must read as zeros.
pub(super) fn compare(
    fd: &OwnedFd,
    size: u64,
    refs: &[ChunkRef],
    holes: &[Hole],
    keys: &[IdKey],
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<Comparison> {
    let stat: Stat = fs::fstat(fd)?;
    if u64::try_from(stat.st_size).ok() != Some(size) || !holes_are_empty(fd, holes)? {
        return Ok(Comparison::Unknown);
    }
    let (mut differs, mut at) = (Vec::new(), 0u64);
    for (number, chunk) in (0u32..).zip(refs) {
        if !holds(fd, at, chunk, holes, keys, buffer)? {
            differs.push(number);
        }
        at += u64::from(chunk.len);
    }
    Ok(if differs.is_empty() { Comparison::Same } else { Comparison::Differs(differs) })
}

/// True if a file has a chunk at data offset `at`.
pub(super) fn holds(
    fd: &OwnedFd,
    at: u64,
    chunk: &ChunkRef,
    holes: &[Hole],
    keys: &[IdKey],
    buffer: &mut Vec<u8>,
) -> rustix::io::Result<bool> {
    buffer.resize(chunk.len as usize, 0);
    super::execute::extents(holes, at, chunk.len as usize)
        .try_for_each(|(offset, range)| read_exact(fd, &mut buffer[range], offset))?;
    Ok(keys.iter().any(|k| k.identify(buffer) == chunk.id))
}

/// A file cut short meanwhile reads as zeros, which no chunk is mistaken for.
fn read_exact(fd: &OwnedFd, mut out: &mut [u8], mut offset: u64) -> rustix::io::Result<()> {
    while !out.is_empty() {
        match rustix::io::pread(fd, &mut *out, offset) {
            Ok(0) => {
                out.fill(0);
                return Ok(());
            }
            Ok(n) => {
                out = &mut out[n..];
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

pub(super) fn holes_are_empty(fd: &OwnedFd, holes: &[Hole]) -> rustix::io::Result<bool> {
    let mut block = vec![0; if holes.is_empty() { 0 } else { 64 << 10 }];
    for hole in holes {
        let (mut at, end) = (hole.offset, hole.offset.saturating_add(hole.len));
        while at < end {
            match fs::seek(fd, SeekFrom::Data(at)) {
                Ok(data) => at = data.max(at),
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => {}
                Err(e) => return Err(e),
            }
            if at < end {
                let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(block.len());
                read_exact(fd, &mut block[..len], at)?;
                if block[..len].iter().any(|b| *b != 0) {
                    return Ok(false);
                }
                at += len as u64;
            }
        }
    }
    Ok(true)
}
