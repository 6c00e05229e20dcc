//! A directory for what a drill restores: new, empty, for nobody else, outside of what is backed up, and gone at the end.

use crate::outcome::Outcome;
use crate::world::{Trouble, World};
use bulla_engine::format::tree::{Entry, EntryKind, Timestamp};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The directory.
pub(super) struct Scratch {
    path: PathBuf,
    keep: bool,
}

/// Removed whatever happens.
impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

impl Scratch {
    /// Makes one below `base`.
    pub(super) fn make(
        base: &Path,
        sources: &[PathBuf],
        world: &dyn World,
        keep: bool,
    ) -> Result<Self, Trouble> {
        let refused = |why: String| Trouble::new(Outcome::Refused, why);
        let failed = |e: io::Error| {
            let why = format!("no directory to restore into below {}: {e}", base.display());
            Trouble::new(Outcome::Failed, why)
        };
        fs::create_dir_all(base).map_err(failed)?;
        let base = base.canonicalize().map_err(failed)?;
        for source in sources.iter().filter_map(|s| s.canonicalize().ok()) {
            if base.starts_with(&source) {
                let why = format!(
                    "{} lies in what is backed up ({}); name another directory: drill = {{ target = \"…\" }}",
                    base.display(),
                    source.display()
                );
                return Err(refused(why));
            }
        }
        let name = bulla_engine::format::id::to_hex(&world.env().random::<8>());
        let path = base.join(format!("bulla-drill-{name}"));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Self { path, keep })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what was restored is, if it stays.
    pub(super) fn end(self) -> Option<PathBuf> {
        self.keep.then(|| self.path.clone())
    }

    /// Makes files durable and asks the system to drop them from memory, so that what is compared comes from the disk.
    pub(super) fn forget_cached(&self) {
        let mut left = vec![self.path.clone()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => left.push(entry.path()),
                    Ok(kind) if kind.is_file() => {
                        if let Ok(file) = File::open(entry.path()) {
                            let _ = file.sync_data();
                            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    /// What is different about an entry, apart from its content; nothing if it is as it was backed up. The owner counts for
    /// the superuser alone, and what is implied has no times.
    pub(super) fn differs(&self, path: &[u8], entry: &Entry) -> Option<String> {
        let place = self.path.join(std::ffi::OsStr::from_bytes(path));
        let m = match place.symlink_metadata() {
            Ok(m) => m,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let device =
                    matches!(entry.kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. });
                return (!device).then(|| "it was not restored".to_owned());
            }
            Err(e) => return Some(e.to_string()),
        };
        let is_link = matches!(entry.kind, EntryKind::Symlink { .. });
        match &entry.kind {
            EntryKind::File { size, .. } if !m.is_file() || m.len() != *size => {
                return Some("it is no file of this size".to_owned());
            }
            EntryKind::Directory if !m.is_dir() => return Some("it is no directory".to_owned()),
            EntryKind::Symlink { target } => {
                let found = fs::read_link(&place).unwrap_or_default();
                if found.as_os_str().as_bytes() != target {
                    return Some("the link leads elsewhere".to_owned());
                }
            }
            _ => {}
        }
        if entry.flags.implied {
            return None;
        }
        if !is_link && m.mode() & 0o7777 != u32::from(entry.mode) {
            return Some(format!("its mode is {:04o} instead of {:04o}", m.mode() & 0o7777, entry.mode));
        }
        if time(m.mtime(), m.mtime_nsec()) != entry.mtime {
            return Some("it has another modification time".to_owned());
        }
        let owner = (m.uid(), m.gid()) != (entry.uid, entry.gid);
        (owner && rustix::process::geteuid().is_root()).then(|| "it has another owner".to_owned())
    }

    /// True if the source's file at this path of the snapshot holds what was restored from it.
    pub(super) fn is_same(&self, path: &[u8]) -> bool {
        let relative = Path::new(std::ffi::OsStr::from_bytes(path));
        let open = |root: &Path| File::open(root.join(relative));
        let (Ok(mut live), Ok(mut restored)) = (open(Path::new("/")), open(&self.path)) else { return false };
        let (mut a, mut b) = (vec![0; 128 << 10], vec![0; 128 << 10]);
        loop {
            let (Ok(n), Ok(m)) = (fill(&mut live, &mut a), fill(&mut restored, &mut b)) else { return false };
            if n != m || a.get(..n) != b.get(..m) {
                return false;
            }
            if n == 0 {
                return true;
            }
        }
    }
}

fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut at = 0;
    while let Some(rest) = buffer.get_mut(at..).filter(|r| !r.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => at += n,
        }
    }
    Ok(at)
}

fn time(seconds: i64, nanos: i64) -> Timestamp {
    Timestamp { seconds, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// True if this is a file, and nothing about the source's has changed since it was backed up.
pub(super) fn is_as_it_was(path: &[u8], entry: &Entry) -> bool {
    let EntryKind::File { size, .. } = entry.kind else { return false };
    let live = Path::new("/").join(std::ffi::OsStr::from_bytes(path));
    let Ok(m) = live.symlink_metadata() else { return false };
    m.is_file()
        && m.len() == size
        && m.ino() == entry.inode
        && time(m.mtime(), m.mtime_nsec()) == entry.mtime
        && time(m.ctime(), m.ctime_nsec()) == entry.ctime
}
