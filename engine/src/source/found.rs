//! What the walk meets, and how more is asked of it.

use super::details::{self, absolute};
use super::read::OpenFile;
use crate::error::SourceError;
use bulla_repo_format::tree::{Entry, EntryKind};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// What the walk meets.
#[allow(
    clippy::large_enum_variant,
    reason = "nearly all are entries, and a box for each would cost more than it saves"
)]
pub enum Walked {
    /// An entry.
    Entry(Found),
    /// Something that cannot be captured.
    Error(SourceError),
}

/// An entry with the directory it lies in. Holding it holds a descriptor, shared by all entries of one directory.
pub struct Found {
    /// Without content, attributes and link target: they are captured only of new or changed entries.
    pub entry: Entry,
    /// Bytes the file system has allocated.
    pub allocated: u64,
    /// The device it lies on.
    pub dev: u64,
    /// Its number there.
    pub(super) inode: u64,
    pub(super) dir: Arc<OwnedFd>,
}

impl Found {
    /// Reads extended attributes (encoded, of any size) and, into the entry, a link's target.
    pub fn capture_details(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        if let EntryKind::Symlink { target } = &mut self.entry.kind {
            match details::link_target(self.dir.as_fd(), &self.entry.name) {
                Ok(t) => *target = t,
                Err(e) => return Err(self.error("read the link", e)),
            }
        }
        // An ancestor of a source path may be a link, and stands for what it leads to.
        let follow = self.entry.flags.implied;
        details::xattrs(self.dir.as_fd(), &self.entry.name, follow)
            .map_err(|e| self.error("read the attributes of", e))
    }

    /// Opens the file for reading. What took its place since the walk is refused unless it is a regular file.
    pub fn open(&self) -> Result<OpenFile, SourceError> {
        let fd = details::open_regular(self.dir.as_fd(), &self.entry.name)
            .map_err(|e| self.error("open", details::reason(e)))?;
        OpenFile::new(fd, self.entry.path(), (self.dev, self.inode))
    }

    /// Tells the directories apart whose descriptors are held.
    pub(crate) fn directory(&self) -> *const OwnedFd {
        Arc::as_ptr(&self.dir)
    }

    /// Its absolute path, for messages.
    pub fn path(&self) -> Vec<u8> {
        absolute(&self.entry.path())
    }

    fn error(&self, verb: &'static str, reason: impl ToString) -> SourceError {
        SourceError::new(verb, self.path(), reason)
    }
}
