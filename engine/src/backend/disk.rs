//! What [`super::Local`] changes in a file system, one call each, so that tests can write down their order and work
//! out what a loss of power could leave of them.

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Something that was done to the file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A new file got these bytes.
    Write(PathBuf, Vec<u8>),
    /// A file's bytes were synced.
    SyncFile(PathBuf),
    /// A file got a second name.
    Link(PathBuf, PathBuf),
    /// A name was removed.
    Unlink(PathBuf),
    /// A file got another name, in place of what had it.
    Rename(PathBuf, PathBuf),
    /// A directory was made.
    MakeDir(PathBuf),
    /// A directory's names were synced.
    SyncDir(PathBuf),
    /// Everything was synced.
    SyncAll,
}

/// Steps in their order.
pub type Journal = Arc<Mutex<Vec<Step>>>;

/// The file system.
#[derive(Default)]
pub(super) struct Disk {
    /// Only in tests.
    pub(super) journal: Option<Journal>,
}

impl Disk {
    /// With a journal one step at a time, so that its order is the true one.
    fn step<T>(&self, step: impl FnOnce() -> Step, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let Some(journal) = &self.journal else { return call() };
        let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
        let done = call()?;
        journal.push(step());
        Ok(done)
    }

    /// A new file, 0400, written and synced.
    pub(super) fn create(&self, path: &Path, parts: &[&[u8]]) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(CWD, path, flags, Mode::RUSR)?);
        let written = self
            .step(|| Step::Write(path.to_owned(), parts.concat()), || write_begun(&mut file, parts))
            .and_then(|()| self.step(|| Step::SyncFile(path.to_owned()), || file.sync_all()));
        if written.is_err() {
            let _ = self.unlink(path);
        }
        written
    }

    pub(super) fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let step = || Step::Link(from.to_owned(), to.to_owned());
        self.step(step, || Ok(rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?))
    }

    pub(super) fn unlink(&self, path: &Path) -> io::Result<()> {
        self.step(|| Step::Unlink(path.to_owned()), || std::fs::remove_file(path))
    }

    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let step = || Step::Rename(from.to_owned(), to.to_owned());
        self.step(step, || std::fs::rename(from, to))
    }

    /// A directory, 0700, unless it is there.
    pub(super) fn make_dir(&self, path: &Path) -> io::Result<()> {
        let step = || Step::MakeDir(path.to_owned());
        self.step(step, || match rustix::fs::mkdir(path, Mode::RWXU) {
            Err(rustix::io::Errno::EXIST) => Ok(()),
            other => Ok(other?),
        })
    }

    pub(super) fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.step(|| Step::SyncDir(path.to_owned()), || open(path)?.sync_all())
    }

    /// Everything of the file system `root` lies in.
    pub(super) fn sync_all(&self, root: &Path) -> io::Result<()> {
        self.step(|| Step::SyncAll, || Ok(rustix::fs::syncfs(open(root)?)?))
    }
}

/// Bytes with which the disk begins while the next are copied.
const PIECE: usize = 1 << 20;

/// Writes `parts`. The disk begins with each piece at once, so the sync that follows finds most of it done: packs of 8 MiB at 1.9
/// instead of 0.4 to 1.4 GB/s. Asked for as advice that the pages are not needed: those that are being written stay cached, and are
/// the first to go when memory is short, which suits a backup.
fn write_begun(file: &mut File, parts: &[&[u8]]) -> io::Result<()> {
    let (mut begun, mut at) = (0, 0);
    for piece in parts.iter().flat_map(|part| part.chunks(PIECE)) {
        file.write_all(piece)?;
        at += piece.len() as u64;
        // Whole pages only: the next piece goes on in the last one.
        let len = (at - begun) & !4095;
        if let Some(len) = NonZeroU64::new(len).filter(|len| len.get() >= PIECE as u64) {
            let _ = rustix::fs::fadvise(&*file, begun, Some(len), rustix::fs::Advice::DontNeed);
            begun += len.get();
        }
    }
    Ok(())
}

/// Opens for reading; a link is followed. What was put there instead of an object has no length, so nothing is read of it,
/// and a pipe that nobody writes to is not waited for.
pub(super) fn open(path: &Path) -> io::Result<File> {
    Ok(File::from(rustix::fs::openat(
        CWD,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?))
}
