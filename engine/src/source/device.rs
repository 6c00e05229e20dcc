//! A block device as a source, or an image of one: its bytes from the first to the last, as one file.
//!
//! Kept true: nothing else is opened as one, and one that ends before its size is no backup; what an image says it has
//! no data at is neither read nor stored.

use super::{Commit, StreamSource, holes, mounts, stat};
use crate::observer::escape;
use bulla_repo_format::tree::Hole;
use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Statx};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Opens what is at `path`, as the file `name` of the snapshot. Also where the device is mounted and written to, if it is:
/// what is read then is a mixture of moments.
///
/// # Errors
/// In words, if it is neither a block device nor a regular file, or cannot be opened.
pub fn block(path: &Path, name: Vec<u8>) -> Result<(StreamSource, Option<String>), String> {
    let shown = escape(path.as_os_str().as_bytes());
    let wrong = |e: io::Error| format!("cannot open {shown}: {e}");
    // Without waiting: a pipe has to be refused, too.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(|e| wrong(e.into()))?;
    let found = stat::stat_fd(&fd).map_err(|e| wrong(e.into()))?;
    let (size, holes) = match stat::file_type(&found) {
        FileType::RegularFile => (found.stx_size, holes::find(&fd, found.stx_size)),
        // Devices do not tell where they have nothing.
        FileType::BlockDevice => {
            (rustix::fs::seek(&fd, SeekFrom::End(0)).map_err(|e| wrong(e.into()))?, Vec::new())
        }
        _ => return Err(format!("{shown} is neither a block device nor a regular file")),
    };
    let mounted = written_at(&found).map(|at| format!("{shown} is mounted at {at} and may be written to"));
    let position = Arc::new(AtomicU64::new(0));
    let commit: Commit = {
        let position = position.clone();
        Box::new(move || match position.load(Ordering::Relaxed) {
            at if at == size => Ok(()),
            at => Err(format!("{shown} ended after {at} of {size} bytes")),
        })
    };
    let reader = Box::new(Device::new(fd, size, holes.clone(), position));
    Ok((StreamSource { name, reader, commit: Some(commit), holes }, mounted))
}

/// Where a device, or a device in a file, is mounted for writing.
fn written_at(found: &Statx) -> Option<String> {
    if stat::file_type(found) != FileType::BlockDevice {
        return None;
    }
    let device = rustix::fs::makedev(found.stx_rdev_major, found.stx_rdev_minor);
    let table = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    mounts::written(&table, device).map(|path| escape(&path))
}

/// Reads data and passes holes.
struct Device {
    file: File,
    size: u64,
    holes: Vec<Hole>,
    next_hole: usize,
    position: Arc<AtomicU64>,
}

impl Device {
    fn new(fd: OwnedFd, size: u64, holes: Vec<Hole>, position: Arc<AtomicU64>) -> Self {
        Self { file: File::from(fd), size, holes, next_hole: 0, position }
    }
}

impl Read for Device {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut at = self.position.load(Ordering::Relaxed);
        let mut end = self.size;
        while let Some(hole) = self.holes.get(self.next_hole) {
            if hole.offset > at {
                end = hole.offset;
                break;
            }
            at = hole.offset.saturating_add(hole.len);
            self.next_hole += 1;
        }
        let room = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(buffer.len());
        let n = match buffer.get_mut(..room) {
            Some(part) if room > 0 => self.file.read_at(part, at)?,
            _ => 0,
        };
        self.position.store(at + n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn image(size: u64) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.write_all_at(&[2; 4096], size - 4096).unwrap();
        (dir, path)
    }

    fn read(source: &mut StreamSource) -> Vec<u8> {
        let mut out = Vec::new();
        source.reader.read_to_end(&mut out).unwrap();
        out
    }

    #[test]
    fn an_image_is_read_without_its_holes() {
        let (_dir, path) = image(64 << 20);
        let (mut source, mounted) = block(&path, b"image".to_vec()).unwrap();
        let data = read(&mut source);
        assert_eq!((mounted, source.commit()), (None, Ok(())));
        let empty: u64 = source.holes.iter().map(|h| h.len).sum();
        assert_eq!(data.len() as u64 + empty, 64 << 20);
        assert!(empty > 60 << 20 || source.holes.is_empty(), "{:?}", source.holes);
        assert_eq!(data.iter().filter(|b| **b == 1).count(), 4096);
        assert!(data.ends_with(&[2; 4096]));
    }

    #[test]
    fn what_is_no_device_is_refused_and_one_that_ends_early_is_no_backup() {
        let (dir, path) = image(4 << 20);
        let refused = |path: &Path| block(path, b"x".to_vec()).err().unwrap();
        assert!(refused(dir.path()).contains("neither a block device nor a regular file"));
        assert!(refused(Path::new("/dev/null")).contains("neither"));
        let pipe = dir.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert!(refused(&pipe).contains("neither"), "and nobody waits for a writer");
        assert!(refused(Path::new("/no/such/device")).contains("cannot open"));
        let (mut source, _) = block(&path, b"image".to_vec()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
        read(&mut source);
        assert!(source.commit().unwrap_err().contains("ended after"));
    }
}
