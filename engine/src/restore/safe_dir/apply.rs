//! Metadata by descriptor, in the one order that keeps it: owner, extended attributes (ACLs and capabilities among
//! them), mode, times. A change of owner clears setuid bits and capabilities, and a mode set earlier could lock us out.
//!
//! Kept true: what could not be applied is told, never passed over. Links and special nodes, which cannot be opened,
//! are held by an `O_PATH` descriptor; where the kernel takes no such descriptor, its `/proc/self/fd` entry stands for
//! it: the very inode, whatever lies under the name by now.

use super::SafeDir;
use crate::error::Result;
use bulla_repo_format::tree::{Timestamp, Xattr};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::{self, Errno};

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";
const CAPABILITY: &[u8] = b"security.capability";
/// The kernel's limits for a list of names and for one value.
const XATTR_BYTES: usize = 64 << 10;
/// `utimensat`: leave this time as it is (a value no recorded time can have).
const UTIME_OMIT: i64 = (1 << 30) - 2;

/// What an inode shall have. `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// Owner and group.
    pub owner: Option<(u32, u32)>,
    /// Extended attributes. An inode that was there before also loses those not listed.
    pub xattrs: Option<Vec<Xattr>>,
    /// Permission bits.
    pub mode: u32,
    /// Modification time.
    pub mtime: Option<Timestamp>,
    /// Access time.
    pub atime: Option<Timestamp>,
}

/// What could not be applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aspect {
    /// Owner or group.
    Owner,
    /// An extended attribute.
    Xattr(Vec<u8>),
    /// Permission bits.
    Mode,
    /// Times.
    Times,
}

/// What came of an attempt to apply metadata.
#[derive(Debug, Default)]
pub struct Applied {
    /// Something was changed.
    pub changed: bool,
    /// What could not be applied, and why.
    pub failed: Vec<(Aspect, std::io::Error)>,
}

impl Applied {
    fn note(&mut self, aspect: impl FnOnce() -> Aspect, result: io::Result<()>) {
        match result {
            Ok(()) => self.changed = true,
            Err(e) => self.failed.push((aspect(), e.into())),
        }
    }
}

/// An inode by an open descriptor, or by one that only names it.
enum Inode<'a> {
    Open(BorrowedFd<'a>),
    Named(BorrowedFd<'a>, String),
}

/// Applies metadata to an open file or directory. `before` is what it had if it was there before this restore: what
/// is right already is left alone.
pub fn apply(fd: &OwnedFd, metadata: &Metadata, before: Option<&Stat>) -> Applied {
    Inode::Open(fd.as_fd()).apply(metadata, before, false)
}

/// Removes access rules that a new file or directory took over from an older parent.
pub fn strip_inherited(fd: &OwnedFd) {
    for name in [ACL_ACCESS, ACL_DEFAULT] {
        // Absent, or not supported here: both are what is wanted.
        let _ = fs::fremovexattr(fd, name);
    }
}

/// Changes the mode of an inode held by an `O_PATH` descriptor.
pub(super) fn chmod_node(node: &OwnedFd, mode: Mode) -> io::Result<()> {
    fs::chmodat(CWD, proc_path(node), mode, AtFlags::empty())
}

fn proc_path(node: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", node.as_raw_fd())
}

impl SafeDir {
    /// Applies metadata to a link or special node.
    pub fn apply_node(
        &mut self,
        parent: &[u8],
        name: &[u8],
        metadata: &Metadata,
        before: Option<&Stat>,
    ) -> Result<Applied> {
        let node = self.node(parent, name)?;
        let stat = self.attempt("examine", parent, name, fs::fstat(&node))?;
        let link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        Ok(Inode::Named(node.as_fd(), proc_path(&node)).apply(metadata, before, link))
    }
}

impl Inode<'_> {
    fn apply(&self, metadata: &Metadata, before: Option<&Stat>, link: bool) -> Applied {
        let mut applied = Applied::default();
        let mut owner_changed = false;
        if let Some((uid, gid)) = metadata.owner
            && before.is_none_or(|s| (s.st_uid, s.st_gid) != (uid, gid))
        {
            applied.note(|| Aspect::Owner, self.chown(uid, gid));
            owner_changed = true;
        }
        if let Some(xattrs) = &metadata.xattrs {
            if before.is_some() {
                self.remove_others(xattrs, &mut applied);
            }
            for x in xattrs {
                if before.is_none() || self.get_xattr(&x.name).as_deref() != Some(&x.value) {
                    applied.note(|| Aspect::Xattr(x.name.clone()), self.set_xattr(x));
                }
            }
        }
        // Setting an ACL rewrites the group bits, a new owner clears setuid: what was right before may not be now.
        let mode_kept = before.is_some_and(|s| s.st_mode & 0o7777 == metadata.mode) && !applied.changed;
        if !link && (!mode_kept || owner_changed) {
            applied.note(|| Aspect::Mode, self.chmod(metadata.mode));
        }
        #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
        let times_kept = match (metadata.mtime, before) {
            (None, _) => metadata.atime.is_none(),
            (Some(t), Some(s)) => (s.st_mtime as i64, s.st_mtime_nsec as u64) == (t.seconds, t.nanos.into()),
            (Some(_), None) => false,
        };
        if !times_kept {
            applied.note(|| Aspect::Times, self.set_times(metadata));
        }
        applied
    }

    fn chown(&self, uid: u32, gid: u32) -> io::Result<()> {
        // All ones means "leave it" to the kernel: not an owner.
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        match self {
            Self::Open(fd) => fs::fchown(fd, uid, gid),
            Self::Named(fd, _) => fs::chownat(fd, "", uid, gid, AtFlags::EMPTY_PATH),
        }
    }

    fn chmod(&self, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Self::Open(fd) => fs::fchmod(fd, mode),
            Self::Named(_, path) => fs::chmodat(CWD, path, mode, AtFlags::empty()),
        }
    }

    fn set_times(&self, metadata: &Metadata) -> io::Result<()> {
        let spec = |t: Timestamp| Timespec { tv_sec: t.seconds, tv_nsec: t.nanos.into() };
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps {
            last_access: metadata.atime.map_or(omit, spec),
            last_modification: metadata.mtime.map_or(omit, spec),
        };
        match self {
            Self::Open(fd) => fs::futimens(fd, &times),
            Self::Named(fd, path) => match fs::utimensat(fd, "", &times, AtFlags::EMPTY_PATH) {
                Err(Errno::INVAL | Errno::NOENT) => fs::utimensat(CWD, path, &times, AtFlags::empty()),
                other => other,
            },
        }
    }

    fn set_xattr(&self, x: &Xattr) -> io::Result<()> {
        match self {
            Self::Open(fd) => fs::fsetxattr(fd, &x.name[..], &x.value, XattrFlags::empty()),
            Self::Named(_, path) => fs::setxattr(path, &x.name[..], &x.value, XattrFlags::empty()),
        }
    }

    fn get_xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut value = vec![0; XATTR_BYTES];
        let len = match self {
            Self::Open(fd) => fs::fgetxattr(fd, name, &mut value[..]),
            Self::Named(_, path) => fs::getxattr(path, name, &mut value[..]),
        };
        value.truncate(len.ok()?);
        Some(value)
    }

    /// Removes attributes that are not `wanted`, of the kinds a user sets: never a security label.
    fn remove_others(&self, wanted: &[Xattr], applied: &mut Applied) {
        let mut list = vec![0; XATTR_BYTES];
        let len = match self {
            Self::Open(fd) => fs::flistxattr(fd, &mut list[..]),
            Self::Named(_, path) => fs::listxattr(path, &mut list[..]),
        };
        let Ok(len) = len else { return };
        for name in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let ours = name.starts_with(b"user.") || [ACL_ACCESS, ACL_DEFAULT, CAPABILITY].contains(&name);
            if ours && wanted.iter().all(|x| x.name != name) {
                let removed = match self {
                    Self::Open(fd) => fs::fremovexattr(fd, name),
                    Self::Named(_, path) => fs::removexattr(path, name),
                };
                applied.note(|| Aspect::Xattr(name.to_vec()), removed);
            }
        }
    }
}
