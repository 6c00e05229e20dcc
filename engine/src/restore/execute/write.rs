//! Writes entries: one worker's hands. Whole files in one go, large ones piece by piece.
//!
//! Kept true: a file that cannot be completed is removed again; what was there before is opened for writing only if it
//! is the very inode that was examined and has no other name.

use super::super::Context;
use super::super::plan::{Action, Fact};
use super::super::report::add;
use super::super::safe_dir::{self, Identity, SafeDir, Special, strip_inherited};
use super::super::wave::Item;
use crate::error::{Error, Result};
use bulla_repo_format::tree::{EntryKind, Hole};
use rustix::fd::OwnedFd;
use rustix::fs::{self, Stat};
use rustix::io::Errno;
use std::ops::Range;
use std::sync::PoisonError;

/// Zeros are looked for in blocks of this size, the smallest hole a file system makes.
const BLOCK: usize = 4096;

/// Where `len` bytes of data at data offset `at` (holes left out) lie in a file: file offset and part of the data.
pub(in super::super) fn extents(
    holes: &[Hole],
    at: u64,
    len: usize,
) -> impl Iterator<Item = (u64, Range<usize>)> + '_ {
    // `shift`: bytes of holes before the position reached.
    let (mut next, mut shift, mut done) = (0usize, 0u64, 0usize);
    std::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let position = at + done as u64;
        while let Some(hole) = holes.get(next)
            && hole.offset <= position + shift
        {
            shift += hole.len;
            next += 1;
        }
        let left = len - done;
        let room = holes.get(next).map_or(u64::MAX, |h| h.offset - (position + shift));
        let take = usize::try_from(room).unwrap_or(usize::MAX).min(left);
        let range = done..done + take;
        done += take;
        Some((position + shift, range))
    })
}

/// One worker's handle on the target.
pub(super) struct Writer<'c, 'r> {
    pub(super) context: &'c Context<'r>,
    pub(super) root: SafeDir,
}

impl<'c, 'r> Writer<'c, 'r> {
    pub(super) fn new(context: &'c Context<'r>, root: SafeDir) -> Self {
        Self { context, root }
    }

    pub(super) fn io(&self, verb: &'static str, item: &Item, e: Errno) -> Error {
        Error::io(verb, self.root.display(&item.parent, &item.entry.name), e.into())
    }

    /// An item without content to fetch.
    pub(super) fn plain(&mut self, item: &Item) -> Result<()> {
        match self.try_plain(item) {
            Err(e) => self.context.tally.target_error(e),
            Ok(()) => Ok(()),
        }
    }

    fn try_plain(&mut self, item: &Item) -> Result<()> {
        let counts = &self.context.tally.counts;
        let (parent, name) = (&item.parent[..], &item.entry.name[..]);
        match item.action {
            Action::Create => {}
            Action::Replace => self.clear(item)?,
            Action::Update => return self.update(item),
            Action::Unchanged => return self.unchanged(item),
            Action::Unreadable => {
                add(&counts.unreadable, 1);
                let path = crate::observer::escape(&item.entry.path());
                self.context.tally.warn(&format!("/{path} could not be read when it was backed up: skipped"));
                return Ok(());
            }
            Action::Forbidden => {
                add(&counts.privileges_left_out, 1);
                return Ok(());
            }
            Action::Keep | Action::Link | Action::Rewrite | Action::Delete => {
                add(&counts.skipped, 1);
                return Ok(());
            }
        }
        let special = match &item.entry.kind {
            EntryKind::File { .. } => {
                return self.whole(item, &mut |_, _| Ok(true));
            }
            EntryKind::Directory => return Ok(()),
            EntryKind::Symlink { target } => {
                self.root.symlink(parent, name, target)?;
                add(&counts.symlinks, 1);
                return self.node_metadata(item, None);
            }
            EntryKind::Fifo => Special::Fifo,
            EntryKind::Socket => Special::Socket,
            EntryKind::CharDevice { major, minor } => Special::Char(*major, *minor),
            EntryKind::BlockDevice { major, minor } => Special::Block(*major, *minor),
        };
        self.root.make_special(parent, name, special)?;
        add(&counts.specials, 1);
        self.node_metadata(item, None)
    }

    /// Removes what is in an item's way.
    fn clear(&mut self, item: &Item) -> Result<()> {
        self.root.remove_all(&item.parent, &item.entry.name, &|_, _| true).map(drop)
    }

    fn node_metadata(&mut self, item: &Item, before: Option<&Stat>) -> Result<()> {
        let metadata = self.context.policy.metadata(&item.entry, item.xattrs.as_deref(), &self.context.tally);
        let applied = self.root.apply_node(&item.parent, &item.entry.name, &metadata, before)?;
        self.context.tally.applied(&item.parent, &item.entry.name, &applied);
        Ok(())
    }

    /// The content is right; metadata may not be.
    fn update(&mut self, item: &Item) -> Result<()> {
        let Fact::Present(found) = &item.fact else { return Ok(()) };
        if !matches!(item.entry.kind, EntryKind::File { .. }) {
            return self.node_metadata(item, Some(&found.stat));
        }
        let (fd, stat) = self.root.open_file(&item.parent, &item.entry.name, false)?;
        if !same_and_alone(&stat, &found.stat) {
            return Err(self.io("update", item, Errno::STALE));
        }
        self.metadata(item, &fd, Some(&stat))?;
        self.unchanged(item)
    }

    fn unchanged(&mut self, item: &Item) -> Result<()> {
        if let (EntryKind::File { .. }, Fact::Present(found)) = (&item.entry.kind, &item.fact) {
            add(&self.context.tally.counts.files_unchanged, 1);
            add(&self.context.tally.counts.bytes_unchanged, item.entry.size());
            self.lead(item, Identity::of(&found.stat));
        }
        Ok(())
    }

    /// Makes a file in one go. `write` puts its content and answers whether all of it was there; if not, or on an
    /// error, the file is removed again.
    pub(super) fn whole(
        &mut self,
        item: &Item,
        write: &mut dyn FnMut(&OwnedFd, &Self) -> Result<bool>,
    ) -> Result<()> {
        let fd = self.root.create_file(&item.parent, &item.entry.name)?;
        let done = write(&fd, self).and_then(|complete| {
            if complete { self.complete(item, &fd, true).map(|()| true) } else { Ok(false) }
        });
        if !matches!(done, Ok(true)) {
            self.root.remove_node(&item.parent, &item.entry.name)?;
        }
        done.map(drop)
    }

    /// Starts a file that is written in pieces: a new one, or the one that is there.
    pub(super) fn begin(&mut self, item: &Item) -> Result<(OwnedFd, Identity)> {
        if let (Action::Rewrite, Fact::Present(found)) = (item.action, &item.fact) {
            let (fd, stat) = self.root.open_file(&item.parent, &item.entry.name, true)?;
            if !same_and_alone(&stat, &found.stat) {
                return Err(self.io("rewrite", item, Errno::STALE));
            }
            return Ok((fd, Identity::of(&stat)));
        }
        if item.action == Action::Replace {
            self.clear(item)?;
        }
        let fd = self.root.create_file(&item.parent, &item.entry.name)?;
        let stat = fs::fstat(&fd).map_err(|e| self.io("examine", item, e))?;
        Ok((fd, Identity::of(&stat)))
    }

    /// Opens such a file again, if it still is the same.
    pub(super) fn resume(&mut self, item: &Item, identity: Identity) -> Result<OwnedFd> {
        let (fd, stat) = self.root.open_file(&item.parent, &item.entry.name, true)?;
        if Identity::of(&stat) == identity { Ok(fd) } else { Err(self.io("write", item, Errno::STALE)) }
    }

    /// Removes what `clear` is to make room for.
    pub(super) fn make_room(&mut self, item: &Item) -> Result<()> {
        if item.action == Action::Replace { self.clear(item) } else { Ok(()) }
    }

    /// Removes a file that cannot be completed.
    pub(super) fn discard(&mut self, item: &Item) -> Result<()> {
        self.root.remove_node(&item.parent, &item.entry.name)
    }

    /// Writes data at data offset `at`.
    pub(super) fn put(&self, item: &Item, fd: &OwnedFd, at: u64, data: &[u8]) -> Result<()> {
        let sparse = self.context.options.sparse && item.action != Action::Rewrite;
        for (offset, range) in extents(&item.holes, at, data.len()) {
            let part = data.get(range).unwrap_or_default();
            let done = if sparse { write_sparse(fd, part, offset) } else { write_all(fd, part, offset) };
            done.map_err(|e| self.io("write", item, e))?;
        }
        add(&self.context.tally.counts.bytes_written, data.len() as u64);
        Ok(())
    }

    /// All bytes are there: length, metadata, counts. `alone`: a single worker wrote it just now.
    pub(super) fn complete(&self, item: &Item, fd: &OwnedFd, alone: bool) -> Result<()> {
        if self.context.options.sparse || !item.holes.is_empty() || !alone {
            fs::ftruncate(fd, item.entry.size()).map_err(|e| self.io("extend", item, e))?;
        }
        if item.entry.links > 1 {
            let stat = fs::fstat(fd).map_err(|e| self.io("examine", item, e))?;
            self.lead(item, Identity::of(&stat));
        }
        let before = match (&item.fact, item.action) {
            (Fact::Present(_), Action::Rewrite) => {
                Some(fs::fstat(fd).map_err(|e| self.io("examine", item, e))?)
            }
            _ => None,
        };
        self.metadata(item, fd, before.as_ref())?;
        add(&self.context.tally.counts.files_restored, 1);
        Ok(())
    }

    fn metadata(&self, item: &Item, fd: &OwnedFd, before: Option<&Stat>) -> Result<()> {
        if before.is_none() && !item.fresh_parent {
            strip_inherited(fd);
        }
        let metadata = self.context.policy.metadata(&item.entry, item.xattrs.as_deref(), &self.context.tally);
        let applied = safe_dir::apply(fd, &metadata, before);
        self.context.tally.applied(&item.parent, &item.entry.name, &applied);
        Ok(())
    }

    /// Later members of its hard-link group may be linked to this inode.
    fn lead(&self, item: &Item, identity: Identity) {
        if item.entry.links < 2 {
            return;
        }
        let mut leaders = self.context.leaders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(leader) = leaders.get_mut(&(item.entry.mount, item.entry.inode))
            && leader.parent == item.parent
            && leader.name == item.entry.name
        {
            leader.identity = Some(identity);
        }
    }
}

/// The inode examined before, with no other name than this.
fn same_and_alone(now: &Stat, before: &Stat) -> bool {
    Identity::of(now) == Identity::of(before) && now.st_nlink == 1
}

fn write_all(fd: &OwnedFd, mut data: &[u8], mut offset: u64) -> rustix::io::Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(fd, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(n) => {
                data = data.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// As [`write_all`], without the blocks that are all zeros.
fn write_sparse(fd: &OwnedFd, data: &[u8], offset: u64) -> rustix::io::Result<()> {
    let misaligned = usize::try_from(offset % BLOCK as u64).unwrap_or(0);
    let mut start = 0;
    let mut from: Option<usize> = None;
    while start < data.len() {
        let step = if start == 0 { BLOCK - misaligned } else { BLOCK };
        let end = data.len().min(start + step);
        let zeros = data[start..end].iter().all(|b| *b == 0);
        match (zeros, from) {
            (true, Some(begin)) => {
                write_all(fd, &data[begin..start], offset + begin as u64)?;
                from = None;
            }
            (false, None) => from = Some(start),
            _ => {}
        }
        start = end;
    }
    from.map_or(Ok(()), |begin| write_all(fd, &data[begin..], offset + begin as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_goes_around_holes() {
        let holes = [Hole { offset: 0, len: 10 }, Hole { offset: 15, len: 5 }, Hole { offset: 30, len: 70 }];
        let all: Vec<_> = extents(&holes, 0, 15).collect();
        assert_eq!(all, [(10, 0..5), (20, 5..15)]);
        let split: Vec<_> = extents(&holes, 3, 4).collect();
        assert_eq!(split, [(13, 0..2), (20, 2..4)]);
        assert_eq!(extents(&holes, 15, 1).collect::<Vec<_>>(), [(100, 0..1)]);
        assert_eq!(extents(&[], 7, 3).collect::<Vec<_>>(), [(7, 0..3)]);
        assert_eq!(extents(&holes, 5, 0).count(), 0);
    }
}
