//! Reads a file's data extents; notices when it changes under the reader.
//!
//! Kept true: what was read plus the holes is exactly the size that goes into the entry, and the times that go into
//! it were taken before the first byte, so that a later change is seen by the next run.

use super::details::{self, error, reason};
use super::holes;
use super::stat::{self, Identity};
use crate::error::SourceError;
use bulla_repo_format::tree::{Entry, EntryKind, Hole};
use rustix::fs::Statx;
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// A regular file that is being read.
pub struct OpenFile {
    fd: OwnedFd,
    /// For messages, no leading slash.
    path: Vec<u8>,
    before: Statx,
    /// Another file than the one the walk saw.
    replaced: bool,
    holes: Vec<Hole>,
    /// The first hole not passed yet.
    next_hole: usize,
    position: u64,
    ended: bool,
}

impl OpenFile {
    /// Takes over a descriptor; refuses anything but a regular file. `seen` is what the walk saw.
    pub(super) fn new(fd: OwnedFd, path: Vec<u8>, seen: Identity) -> Result<Self, SourceError> {
        let before = stat::stat_fd(&fd).map_err(|e| error("stat", &path, reason(e)))?;
        if !stat::is_regular(&before) {
            return Err(error("read", &path, "it is not a regular file any more"));
        }
        let size = before.stx_size;
        let sparse = size > 0 && before.stx_blocks.saturating_mul(512) < size;
        let holes = if sparse { holes::find(&fd, size) } else { Vec::new() };
        let replaced = stat::identity(&before) != seen;
        Ok(Self { fd, path, before, replaced, holes, next_hole: 0, position: 0, ended: false })
    }

    /// Fills `buffer` with data, holes left out; less than its length means the end, and so does 0.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while filled < buffer.len() && !self.ended {
            let room = self.before_hole(buffer.len() - filled);
            let part = buffer.get_mut(filled..filled + room).unwrap_or_default();
            let asked = part.len();
            match rustix::io::pread(&self.fd, part, self.position) {
                Ok(0) => self.end(),
                Ok(n) => {
                    let short = n < asked;
                    filled += n;
                    self.position += n as u64;
                    // All that it was said to have and no more than that: asking again would only be told the same. What
                    // says it has nothing (/proc) is asked until it ends.
                    if short && self.before.stx_size > 0 && self.position >= self.before.stx_size {
                        self.end();
                    }
                }
                Err(Errno::INTR) => {}
                Err(e) => return Err(error("read", &self.path, reason(e))),
            }
        }
        Ok(filled)
    }

    /// Passes a hole at the position, and gives how much of `room` lies before the next one.
    fn before_hole(&mut self, room: usize) -> usize {
        while let Some(hole) = self.holes.get(self.next_hole) {
            if hole.offset > self.position {
                return usize::try_from(hole.offset - self.position).unwrap_or(usize::MAX).min(room);
            }
            self.position = hole.offset.saturating_add(hole.len);
            self.next_hole += 1;
        }
        room
    }

    /// The file ends at the position, maybe earlier than it did: holes behind it are not there any more.
    fn end(&mut self) {
        self.ended = true;
        self.holes.truncate(self.next_hole);
    }

    /// Its extended attributes, encoded; `None` when it has none.
    pub fn xattrs(&self) -> Result<Option<Vec<u8>>, SourceError> {
        let read = details::xattrs_of(self.fd.as_fd());
        read.map_err(|e| error("read the attributes of", &self.path, reason(e)))
    }

    /// Holes between the data; final once `read` has met the end.
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Puts size and metadata of what was read into `entry`, and says whether the file changed meanwhile: then its
    /// content is a mixture of moments, which the entry is told too.
    pub fn finish(self, entry: &mut Entry) -> bool {
        let read = self.position;
        stat::refresh(entry, &self.before);
        if entry.atime.is_some() {
            entry.atime = Some(stat::atime(&self.before));
        }
        if let EntryKind::File { size, .. } = &mut entry.kind {
            *size = read;
        }
        let same = stat::stat_fd(&self.fd).is_ok_and(|after| stat::same_moment(&self.before, &after));
        // What /proc and the like say about sizes is no size, so no change of it either.
        let lied = self.before.stx_blocks == 0 && self.holes.is_empty();
        let changed = self.replaced || !same || (read != self.before.stx_size && !lied);
        entry.flags.changed_during_read = changed;
        changed
    }
}
