//! What one statx does not tell: extended attributes, link targets, content. Asked only of new or changed entries.

use crate::error::SourceError;
use bulla_repo_format::limits::LINK_TARGET_MAX;
use bulla_repo_format::tree::{Xattr, encode_xattrs};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// Why something failed, for people.
pub(super) fn reason(e: Errno) -> String {
    match e {
        Errno::NOENT | Errno::STALE => "it vanished".to_owned(),
        Errno::LOOP => "a symbolic link took its place".to_owned(),
        Errno::NOTDIR => "it is not a directory".to_owned(),
        e => std::io::Error::from(e).to_string(),
    }
}

/// Opens `name` for reading without side effects: no waiting for FIFOs, no controlling terminal, no link followed,
/// and no access time touched where that is allowed. The caller looks at what it got.
pub(super) fn open_regular(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = || match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    };
    // A lease of another process (a file server's) is being taken back: it answers within moments or never.
    for _ in 0..20 {
        match open() {
            Err(Errno::AGAIN) => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    open()
}

/// Opens a directory for listing.
pub(super) fn open_directory(dir: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::openat(dir, name, flags, Mode::empty()),
        other => other,
    }
}

/// Opens a directory only to go on from there: no right to list it is needed.
pub(super) fn open_passage(dir: BorrowedFd<'_>, name: &[u8], follow: bool) -> rustix::io::Result<OwnedFd> {
    let link = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | link;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// False if this process may not list the directory `name`: asked here, because its entry is out before it is listed.
/// Where everybody may, nobody has to ask.
pub(super) fn may_list(mode: u16, dir: &impl AsFd, name: &[u8]) -> bool {
    use rustix::fs::{Access, AtFlags, accessat};
    let wanted = Access::READ_OK | Access::EXEC_OK;
    mode & 0o555 == 0o555 || accessat(dir, name, wanted, AtFlags::EACCESS) != Err(Errno::ACCESS)
}

/// The target of the link `name` in `dir`.
pub(super) fn link_target(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, String> {
    let target = match rustix::fs::readlinkat(dir, name, Vec::new()) {
        Err(Errno::INVAL) => return Err("it is not a symbolic link any more".to_owned()),
        other => other.map_err(reason)?.into_bytes(),
    };
    if target.len() > LINK_TARGET_MAX {
        Err("its target is longer than 16 KiB".to_owned())
    } else {
        Ok(target)
    }
}

/// Encoded extended attributes of `name` in `dir`; `None` when it has none. Links are followed only where asked.
///
/// The calls want a path; `/proc/self/fd/N/name` names the entry through the directory's descriptor, so no component
/// of the real path is resolved again and its length does not matter.
pub(super) fn xattrs(dir: BorrowedFd<'_>, name: &[u8], follow: bool) -> Result<Option<Vec<u8>>, String> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let path = CString::new(path).map_err(|e| e.to_string())?;
    let list = |b: &mut [u8]| {
        if follow { rustix::fs::listxattr(&path, b) } else { rustix::fs::llistxattr(&path, b) }
    };
    let get = |name: &CStr, b: &mut [u8]| {
        if follow { rustix::fs::getxattr(&path, name, b) } else { rustix::fs::lgetxattr(&path, name, b) }
    };
    match collect(list, get) {
        Err(Errno::NOENT) => without_proc(dir, name),
        other => other.map_err(reason),
    }
}

/// Those of an open file: no path is resolved at all.
pub(super) fn xattrs_of(fd: BorrowedFd<'_>) -> rustix::io::Result<Option<Vec<u8>>> {
    collect(|b| rustix::fs::flistxattr(fd, b), |name, b| rustix::fs::fgetxattr(fd, name, b))
}

/// The same through an open descriptor, where there is no /proc. Links and special files cannot be opened.
fn without_proc(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Vec<u8>>, String> {
    let c = CString::new(name).map_err(|e| e.to_string())?;
    let s = super::stat::stat(dir, &c, false).map_err(reason)?;
    if !super::stat::is_regular(&s) && !super::stat::is_directory(&s) {
        return Err("/proc is needed for that, and it is not mounted".to_owned());
    }
    let fd = open_regular(dir, name).map_err(reason)?;
    xattrs_of(fd.as_fd()).map_err(reason)
}

fn collect(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&CStr, &mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<Vec<u8>>> {
    let names = match sized(list) {
        Err(Errno::OPNOTSUPP) => return Ok(None),
        other => other?,
    };
    let mut out = Vec::new();
    for name in names.split_inclusive(|b| *b == 0) {
        let Ok(c) = CStr::from_bytes_with_nul(name) else { continue };
        match sized(|b| get(c, b)) {
            // A name above 255 bytes is one that the kernel itself does not take.
            Ok(value) if (1..256).contains(&c.count_bytes()) => {
                out.push(Xattr { name: c.to_bytes().to_vec(), value });
            }
            // Removed since it was listed, or listed without being there for this user.
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e),
        }
    }
    out.sort();
    out.dedup_by(|a, b| a.name == b.name);
    Ok(if out.is_empty() { None } else { Some(encode_xattrs(&mut out)) })
}

/// Calls with a growing buffer until the answer fits. Most answers are empty, so the first buffer is not allocated.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let (mut first, mut larger) = ([0; 256], Vec::new());
    loop {
        let buffer = if larger.is_empty() { &mut first[..] } else { &mut larger[..] };
        match call(buffer) {
            Ok(n) => return Ok(buffer.get(..n).unwrap_or_default().to_vec()),
            // 64 KiB is the kernel's bound for a value, and for a list of names.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => larger = vec![0; buffer.len() * 8],
            Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// An absolute path for messages and errors, from one without a leading slash.
pub(super) fn absolute(path: &[u8]) -> Vec<u8> {
    [b"/", path].concat()
}

/// An error about a path without a leading slash.
pub(super) fn error(verb: &'static str, path: &[u8], why: impl ToString) -> SourceError {
    SourceError::new(verb, absolute(path), why)
}
