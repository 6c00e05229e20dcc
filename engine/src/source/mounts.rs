//! The mount table entries refer to: devices met, with what `/proc/self/mountinfo` knows of them.

use bulla_repo_format::snapshot::Mount;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Numbers devices in the order they are met.
#[derive(Default)]
pub(super) struct Mounts {
    numbers: HashMap<u64, u32>,
    table: Vec<Mount>,
    known: Option<HashMap<u64, (String, Vec<u8>)>>,
}

impl Mounts {
    /// The number of a device.
    pub(super) fn number(&mut self, device: u64) -> u32 {
        if let Some(n) = self.numbers.get(&device) {
            return *n;
        }
        let known = self.known.get_or_insert_with(read_mountinfo);
        let (fs_type, path) = known.get(&device).cloned().unwrap_or_default();
        let n = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
        self.table.push(Mount { device, fs_type, path });
        self.numbers.insert(device, n);
        n
    }

    pub(super) fn table(&self) -> &[Mount] {
        &self.table
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn read_mountinfo() -> HashMap<u64, (String, Vec<u8>)> {
    let bytes = std::fs::read(Path::new(OsStr::from_bytes(b"/proc/self/mountinfo"))).unwrap_or_default();
    let mut out = HashMap::new();
    for line in bytes.split(|b| *b == b'\n') {
        let mut fields = line.split(|b| *b == b' ');
        let (Some(device), Some(path)) = (fields.nth(2), fields.nth(1)) else { continue };
        let numbers = std::str::from_utf8(device).ok().and_then(|d| d.split_once(':'));
        let parsed = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((major, minor)) = parsed else { continue };
        let fs = fields.skip_while(|f| *f != b"-").nth(1).unwrap_or_default();
        let fs = String::from_utf8_lossy(fs).into_owned();
        out.entry(rustix::fs::makedev(major, minor)).or_insert_with(|| (fs, unescape(path)));
    }
    out
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
