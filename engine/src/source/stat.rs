//! From `statx` to an entry.

use bulla_repo_format::tree::{Block, Content, Entry, EntryFlags, EntryKind, Timestamp};
use rustix::fs::{AtFlags, Statx, StatxFlags};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// One statx of `name` in `dir`, never following a link.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// One statx of an open descriptor.
pub(super) fn stat_fd(fd: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

pub(super) fn device(s: &Statx) -> u64 {
    rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor)
}

pub(super) fn time(t: rustix::fs::StatxTimestamp) -> Timestamp {
    // What user space file systems say is not checked by the kernel; the format has no word for more (R-ENTRY-4).
    Timestamp { seconds: t.tv_sec, nanos: t.tv_nsec.min(999_999_999) }
}

const TYPE_MASK: u16 = 0o170_000;

pub(super) fn is_regular(s: &Statx) -> bool {
    s.stx_mode & TYPE_MASK == 0o100_000
}

pub(super) fn is_directory(s: &Statx) -> bool {
    s.stx_mode & TYPE_MASK == 0o040_000
}

/// What kind of thing it is; content and link target are captured later.
fn kind(s: &Statx) -> EntryKind {
    let (major, minor) = (s.stx_rdev_major, s.stx_rdev_minor);
    match s.stx_mode & TYPE_MASK {
        0o040_000 => EntryKind::Directory,
        0o120_000 => EntryKind::Symlink { target: Vec::new() },
        0o010_000 => EntryKind::Fifo,
        0o140_000 => EntryKind::Socket,
        0o020_000 => EntryKind::CharDevice { major, minor },
        0o060_000 => EntryKind::BlockDevice { major, minor },
        _ => EntryKind::File { size: s.stx_size, holes: Block::None, content: Content::default() },
    }
}

/// An entry without content, attributes and link target.
pub(super) fn entry(s: &Statx, parent: Arc<[u8]>, name: Vec<u8>, mount: u32, with_atime: bool) -> Entry {
    let kind = kind(s);
    let links = if kind == EntryKind::Directory { 1 } else { u64::from(s.stx_nlink).max(1) };
    let btime = StatxFlags::from_bits_retain(s.stx_mask).contains(StatxFlags::BTIME);
    Entry {
        parent,
        name,
        kind,
        mode: s.stx_mode & 0o7777,
        uid: s.stx_uid,
        gid: s.stx_gid,
        mtime: time(s.stx_mtime),
        ctime: time(s.stx_ctime),
        btime: btime.then(|| time(s.stx_btime)),
        atime: with_atime.then(|| time(s.stx_atime)),
        mount,
        inode: s.stx_ino,
        links,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    }
}
