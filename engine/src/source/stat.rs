//! From `statx` to an entry. One call per entry; nothing else is asked of an unchanged one.

use bulla_repo_format::tree::{Block, Content, Entry, EntryFlags, EntryKind, Timestamp};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, StatxTimestamp};
use std::ffi::CStr;
use std::os::fd::AsFd;
use std::sync::Arc;

/// For simulations that must repeat exactly: entries hold nothing that the file system of this moment chose (owner,
/// change and birth times, inode). Off unless a test turns it on.
#[cfg(any(test, feature = "testing"))]
pub static REPEATABLE: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

/// Device and inode: which file it is, whatever its name.
pub(super) type Identity = (u64, u64);

/// One statx of `name` in `dir`. Links are followed only where asked; nothing is mounted by looking.
pub(super) fn stat(dir: impl AsFd, name: &CStr, follow: bool) -> rustix::io::Result<Statx> {
    let link = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    rustix::fs::statx(dir, name, link | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// One statx of an open descriptor.
pub(super) fn stat_fd(fd: impl AsFd) -> rustix::io::Result<Statx> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

pub(super) fn device(s: &Statx) -> u64 {
    rustix::fs::makedev(s.stx_dev_major, s.stx_dev_minor)
}

pub(super) fn identity(s: &Statx) -> Identity {
    (device(s), s.stx_ino)
}

fn time(t: StatxTimestamp) -> Timestamp {
    // A user-space file system may say anything; the format keeps nanoseconds below 10^9.
    Timestamp { seconds: t.tv_sec, nanos: t.tv_nsec.min(999_999_999) }
}

pub(super) fn file_type(s: &Statx) -> FileType {
    FileType::from_raw_mode(s.stx_mode.into())
}

pub(super) fn is_regular(s: &Statx) -> bool {
    file_type(s) == FileType::RegularFile
}

pub(super) fn is_directory(s: &Statx) -> bool {
    file_type(s) == FileType::Directory
}

/// What kind of thing it is, if known; content and link target are captured later.
pub(super) fn kind(s: &Statx) -> Option<EntryKind> {
    let (major, minor) = (s.stx_rdev_major, s.stx_rdev_minor);
    Some(match file_type(s) {
        FileType::RegularFile => {
            EntryKind::File { size: s.stx_size, holes: Block::None, content: Content::default() }
        }
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink { target: Vec::new() },
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket => EntryKind::Socket,
        FileType::CharacterDevice => EntryKind::CharDevice { major, minor },
        FileType::BlockDevice => EntryKind::BlockDevice { major, minor },
        _ => return None,
    })
}

/// An entry without content, attributes and link target.
pub(super) fn entry(s: &Statx, kind: EntryKind, parent: Arc<[u8]>, name: &[u8], mount: u32) -> Entry {
    let mut entry = Entry {
        parent,
        name: name.to_vec(),
        kind,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        atime: None,
        mount,
        inode: 0,
        links: 1,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    };
    refresh(&mut entry, s);
    entry
}

/// Puts everything but kind, size and access time into `entry`.
pub(super) fn refresh(entry: &mut Entry, s: &Statx) {
    let known = StatxFlags::from_bits_retain(s.stx_mask);
    (entry.mode, entry.uid, entry.gid) = (s.stx_mode & 0o7777, s.stx_uid, s.stx_gid);
    (entry.mtime, entry.ctime) = (time(s.stx_mtime), time(s.stx_ctime));
    entry.btime = known.contains(StatxFlags::BTIME).then(|| time(s.stx_btime));
    entry.inode = s.stx_ino;
    entry.links = if is_directory(s) { 1 } else { u64::from(s.stx_nlink).max(1) };
    #[cfg(any(test, feature = "testing"))]
    if REPEATABLE.load(std::sync::atomic::Ordering::Relaxed) {
        (entry.uid, entry.gid, entry.inode) = (0, 0, 0);
        (entry.ctime, entry.btime) = (entry.mtime, None);
    }
}

pub(super) fn atime(s: &Statx) -> Timestamp {
    time(s.stx_atime)
}

/// True when nothing says that the file changed between two looks at it.
pub(super) fn same_moment(a: &Statx, b: &Statx) -> bool {
    let key = |s: &Statx| (s.stx_size, time(s.stx_mtime), time(s.stx_ctime));
    key(a) == key(b)
}
