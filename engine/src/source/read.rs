//! Reads a file's data extents; notices when it changes under the reader.

use super::stat::{is_regular, stat_fd, time};
use crate::error::SourceError;
use bulla_repo_format::limits::BLOCK_MAX;
use bulla_repo_format::tree::{Entry, EntryKind, Hole};
use rustix::fs::{SeekFrom, Statx};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Holes one file can keep: what fits a metadata block whatever the numbers are. Smaller ones are read as zeros.
const HOLES_MAX: usize = BLOCK_MAX as usize / 20 - 1;

/// A regular file that is being read.
pub struct OpenFile {
    fd: OwnedFd,
    path: Vec<u8>,
    before: Statx,
    /// Data extents not read yet, first last; `None` when the file is read to its end as it is.
    extents: Option<Vec<(u64, u64)>>,
    holes: Vec<Hole>,
    position: u64,
    bytes: u64,
}

impl OpenFile {
    /// Takes over a descriptor; refuses anything but a regular file.
    pub(super) fn new(fd: OwnedFd, path: Vec<u8>) -> Result<Self, SourceError> {
        let before = stat_fd(fd.as_fd()).map_err(|e| SourceError::new("stat", path.clone(), e))?;
        if !is_regular(&before) {
            return Err(SourceError::new("read", path, "it is not a regular file any more"));
        }
        let mut file = Self { fd, path, before, extents: None, holes: Vec::new(), position: 0, bytes: 0 };
        if file.before.stx_blocks.saturating_mul(512) < file.before.stx_size {
            file.map();
        }
        Ok(file)
    }

    /// Finds data and holes. Any trouble means that the file is read as if it had none.
    fn map(&mut self) {
        let size = self.before.stx_size;
        let (mut data, mut at) = (Vec::new(), 0u64);
        while at < size {
            let start = match rustix::fs::seek(&self.fd, SeekFrom::Data(at)) {
                Ok(start) => start.min(size),
                Err(Errno::NXIO) => break,
                Err(_) => return,
            };
            let Ok(end) = rustix::fs::seek(&self.fd, SeekFrom::Hole(start)) else { return };
            if end <= start {
                break;
            }
            data.push((start, end.min(size)));
            at = end;
        }
        let mut holes = Vec::new();
        let mut end = 0;
        for (start, stop) in data.iter().copied().chain([(size, size)]) {
            if start > end {
                holes.push(Hole { offset: end, len: start - end });
            }
            end = stop;
        }
        if holes.len() > HOLES_MAX {
            holes.sort_by_key(|h| std::cmp::Reverse(h.len));
            holes.truncate(HOLES_MAX);
            holes.sort_by_key(|h| h.offset);
        }
        // What is not a hole is data: also the holes that were too many.
        let (mut extents, mut end) = (Vec::new(), 0);
        for hole in holes.iter().copied().chain([Hole { offset: size, len: 0 }]) {
            if hole.offset > end {
                extents.push((end, hole.offset));
            }
            end = hole.offset + hole.len;
        }
        extents.reverse();
        (self.extents, self.holes) = (Some(extents), holes);
    }

    /// Fills `buffer` with data, holes left out; less than its length means the end.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, SourceError> {
        let mut filled = 0;
        while let Some(room) = buffer.get_mut(filled..).filter(|b| !b.is_empty()) {
            let window = match &mut self.extents {
                None => room.len() as u64,
                Some(extents) => {
                    let Some((start, end)) = extents.last().copied() else { break };
                    self.position = self.position.max(start);
                    if self.position >= end {
                        extents.pop();
                        continue;
                    }
                    end - self.position
                }
            };
            let len = usize::try_from(window).unwrap_or(usize::MAX).min(room.len());
            let room = room.get_mut(..len).unwrap_or_default();
            let n = match rustix::io::pread(&self.fd, room, self.position) {
                Ok(0) => {
                    self.shrunk();
                    break;
                }
                Ok(n) => n,
                Err(Errno::INTR) => continue,
                Err(e) => return Err(SourceError::new("read", self.path.clone(), e)),
            };
            filled += n;
            self.position += n as u64;
            self.bytes += n as u64;
            // A short read of a regular file is its end: the next call would only say so.
            if n < len && self.extents.is_none() && self.position >= self.before.stx_size {
                break;
            }
        }
        Ok(filled)
    }

    /// The file ended inside an extent: what lies behind is not there any more.
    fn shrunk(&mut self) {
        if let Some(extents) = &mut self.extents {
            extents.clear();
            let end = self.position;
            self.holes.retain(|h| h.offset < end);
        }
    }

    /// Holes between the data.
    pub fn holes(&self) -> &[Hole] {
        &self.holes
    }

    /// Compares with what was seen when it was opened. Puts the fresh metadata into `entry`, flags a change, and
    /// says whether there was one.
    pub fn finish(self, entry: &mut Entry) -> bool {
        let after = stat_fd(self.fd.as_fd());
        let size = self.bytes + self.holes.iter().map(|h| h.len).sum::<u64>();
        let b = &self.before;
        let changed = after.as_ref().map_or(true, |a| {
            let same_time =
                a.stx_mtime.tv_sec == b.stx_mtime.tv_sec && a.stx_mtime.tv_nsec == b.stx_mtime.tv_nsec;
            !same_time || a.stx_size != b.stx_size
        });
        // /proc and friends tell sizes of 0: no change, just no size.
        let lied = b.stx_size == 0 && !changed;
        entry.flags.changed_during_read = changed || (size != b.stx_size && !lied);
        entry.mtime = time(b.stx_mtime);
        entry.ctime = time(b.stx_ctime);
        (entry.mode, entry.uid, entry.gid, entry.inode) =
            (b.stx_mode & 0o7777, b.stx_uid, b.stx_gid, b.stx_ino);
        if let EntryKind::File { size: s, .. } = &mut entry.kind {
            *s = size;
        }
        entry.flags.changed_during_read
    }
}
