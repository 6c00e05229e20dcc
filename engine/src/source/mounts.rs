//! The mount table entries refer to: devices in the order they are met, with what `/proc/self/mountinfo` says of them.
//!
//! A device is one row whatever number of places it is mounted at: with the inode it tells hard links apart.

use bulla_repo_format::snapshot::Mount;
use bulla_repo_format::tree::is_within;
use std::collections::HashMap;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

/// Numbers devices.
#[derive(Default)]
pub(super) struct Mounts {
    numbers: HashMap<u64, u32>,
    table: Vec<Mount>,
    known: Option<Vec<Mount>>,
}

impl Mounts {
    /// The number of a device, first met at `path` (no leading slash).
    pub(super) fn number(&mut self, device: u64, path: impl FnOnce() -> Vec<u8>) -> u32 {
        if let Some(n) = self.numbers.get(&device) {
            return *n;
        }
        // Read again for every new device: it may have been mounted since, by looking at it.
        let known = match self.known.take().filter(|k| k.iter().any(|m| m.device == device)) {
            Some(known) => known,
            None => parse(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()),
        };
        let n = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        self.table.push(describe(&known, device, &super::details::absolute(&path())));
        self.known = Some(known);
        self.numbers.insert(device, n);
        n
    }

    pub(super) fn table(&self) -> &[Mount] {
        &self.table
    }
}

/// The mount of `device` that `path` lies in; else any of that device; else (a subvolume has a device of its own that
/// no mount tells) the file system `path` lies in.
fn describe(known: &[Mount], device: u64, path: &[u8]) -> Mount {
    let around =
        |m: &&Mount| is_within(path.get(1..).unwrap_or_default(), m.path.get(1..).unwrap_or_default());
    let deepest = |own: bool| {
        let candidates = known.iter().filter(around).filter(|m| !own || m.device == device);
        // Of two mounts at one place the later one is on top, and the later of equals is what this gives.
        candidates.max_by_key(|m| m.path.len())
    };
    let own = deepest(true).or_else(|| known.iter().find(|m| m.device == device));
    match own {
        Some(m) => m.clone(),
        None => {
            let fs_type = deepest(false).map(|m| m.fs_type.clone()).unwrap_or_default();
            Mount { device, fs_type, path: path.to_vec() }
        }
    }
}

/// Where a block device is mounted for writing, by its number or (some file systems have numbers of their own) by its name.
pub(super) fn written(table: &[u8], device: u64) -> Option<Vec<u8>> {
    table.split(|b| *b == b'\n').find_map(|line| {
        let mount = parse_line(line)?;
        let mut rest = line.split(|b| *b == b' ').skip_while(|f| *f != b"-").skip(2);
        let (source, options) = (unescape(rest.next()?), rest.next()?);
        let options_here = line.split(|b| *b == b' ').nth(5)?;
        let writes = |options: &[u8]| options.split(|b| *b == b',').any(|option| option == b"rw");
        let named = || {
            let path = std::path::PathBuf::from(std::ffi::OsString::from_vec(source));
            std::fs::metadata(path).is_ok_and(|m| m.file_type().is_block_device() && m.rdev() == device)
        };
        (writes(options) && writes(options_here) && (mount.device == device || named())).then_some(mount.path)
    })
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|b| *b == b'\n').filter_map(parse_line).collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let (device, path) = (fields.nth(2)?, fields.nth(1)?);
    let (major, minor) = std::str::from_utf8(device).ok()?.split_once(':')?;
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let fs_type = fields.skip_while(|f| *f != b"-").nth(1)?;
    Some(Mount { device, fs_type: String::from_utf8_lossy(fs_type).into_owned(), path: unescape(path) })
}

/// Octal escapes of mountinfo (`\040` is a space).
fn unescape(path: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), path);
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, octal) {
            (b'\\', Some(byte)) => {
                out.push(byte);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_that_is_written_to_is_found_by_its_device() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /read\\040only ro - ext4 /dev/b rw\n\
            3 1 8:3 / /frozen rw - ext4 /dev/c ro\n4 1 8:4 / /a\\040b rw,noatime shared:1 - ext4 /dev/d rw,x\n";
        let at = |minor| written(text, rustix::fs::makedev(8, minor));
        assert_eq!((at(1), at(2), at(3), at(5)), (Some(b"/".to_vec()), None, None, None));
        assert_eq!(at(4), Some(b"/a b".to_vec()));
    }

    #[test]
    fn mountinfo_is_understood() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
            2 1 0:5 / /a\\040b rw,noatime shared:1 master:2 - tmpfs t rw\n\
            3 1 8:1 /x /bind rw - ext4 /dev/a rw\nnonsense\n";
        let known = parse(text);
        assert_eq!(known.len(), 3);
        let d = |device, path: &[u8]| {
            let m = describe(&known, device, path);
            (m.fs_type, m.path)
        };
        let (ext, tmp) = (rustix::fs::makedev(8, 1), rustix::fs::makedev(0, 5));
        assert_eq!(d(ext, b"/q"), ("ext4".to_owned(), b"/".to_vec()));
        assert_eq!(d(ext, b"/bind/q"), ("ext4".to_owned(), b"/bind".to_vec()));
        assert_eq!(d(tmp, b"/elsewhere"), ("tmpfs".to_owned(), b"/a b".to_vec()));
        assert_eq!(d(99, b"/a b/sub"), ("tmpfs".to_owned(), b"/a b/sub".to_vec()));
    }
}
