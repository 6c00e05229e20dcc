//! What one statx does not tell: extended attributes and link targets. Captured only for new or changed entries.

use bulla_repo_format::tree::{Xattr, encode_xattrs};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Encoded extended attributes of `name` in `dir`, links not followed; `None` when it has none.
///
/// The l*xattr calls want a path; `/proc/self/fd/N/name` names the entry through the directory descriptor, so no
/// component of the real path is resolved again and its length does not matter.
pub(super) fn xattrs(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let path = [format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes(), name].concat();
    let path = CString::new(path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let names = match sized(|buffer| rustix::fs::llistxattr(&path, buffer)) {
        Ok(names) => names,
        Err(Errno::OPNOTSUPP) => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let mut out = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let wanted = CString::new(name).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        match sized(|buffer| rustix::fs::lgetxattr(&path, &wanted, buffer)) {
            Ok(value) => out.push(Xattr { name: name.to_vec(), value }),
            // Removed since it was listed, or of a namespace this user may list but not read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => {}
            Err(e) => return Err(e.into()),
        }
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out.dedup_by(|a, b| a.name == b.name);
    Ok(if out.is_empty() { None } else { Some(encode_xattrs(&mut out)) })
}

/// Calls with a growing buffer until the answer fits.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(n) => {
                buffer.truncate(n);
                return Ok(buffer);
            }
            // 64 KiB is the kernel's bound for a value, and for a list of names.
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 8, 0),
            Err(e) => return Err(e),
        }
    }
}

/// The target of the link `name` in `dir`.
pub(super) fn link_target(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes())
}

/// Flags that open a file without side effects: no waiting for FIFOs, no controlling terminals, no links.
pub(super) fn open_flags() -> OFlags {
    OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}
