//! The one place that writes to a restore's target.
//!
//! Kept true, whatever the repository says and whoever changes the target meanwhile:
//! - everything happens relative to a directory descriptor that was reached from the target's root without following
//!   a symbolic link, leaving the root or passing a magic link (`openat2`, or component by component without it);
//! - the last component is always a single validated name and never followed;
//! - files are created exclusively, opened only after their type was checked, and linked only if they are the
//!   very inode that this restore wrote or verified.

mod apply;
mod remove;

pub use apply::{Applied, Aspect, Metadata, apply, strip_inherited};

use crate::error::{Error, Result};
use bulla_repo_format::tree::{join_path, validate_name};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directory descriptors one handle keeps open.
const KEPT: usize = 32;
/// Bytes of path given to the kernel in one call; PATH_MAX is 4096 with the final NUL.
const PATH_STEP: usize = 4000;
/// Attempts when renames disturb a lookup (`openat2` answers EAGAIN).
const LOOKUPS: usize = 64;

/// An inode, to recognise a file again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

impl Identity {
    /// Of a stat result.
    #[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
    pub fn of(stat: &Stat) -> Self {
        Self { dev: stat.st_dev as u64, ino: stat.st_ino as u64 }
    }
}

/// A node that is neither file, directory nor symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
}

impl Special {
    fn parts(self) -> (FileType, fs::Dev) {
        match self {
            Self::Fifo => (FileType::Fifo, 0),
            Self::Socket => (FileType::Socket, 0),
            Self::Char(major, minor) => (FileType::CharacterDevice, fs::makedev(major, minor)),
            Self::Block(major, minor) => (FileType::BlockDevice, fs::makedev(major, minor)),
        }
    }
}

/// A directory tree that nothing is written outside of. Paths are relative to its root, as in a snapshot: names joined
/// by `/`, empty for the root itself. Each thread has its own handle.
pub struct SafeDir {
    root: Arc<OwnedFd>,
    place: Arc<Path>,
    /// `openat2` works here.
    resolves: bool,
    /// Most recently used first.
    kept: Vec<(Vec<u8>, Arc<OwnedFd>)>,
}

impl SafeDir {
    /// Opens an existing directory. How it is reached is the user's business: links on the way are followed.
    pub fn open(place: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root =
            fs::openat(CWD, place, flags, Mode::empty()).map_err(|e| Error::io("open", place, e.into()))?;
        let resolves = resolve(&root, b".", flags).is_ok();
        Ok(Self { root: Arc::new(root), place: place.into(), resolves, kept: Vec::new() })
    }

    /// Another handle on the same root, for another thread.
    pub fn handle(&self) -> Self {
        Self { root: self.root.clone(), place: self.place.clone(), resolves: self.resolves, kept: Vec::new() }
    }

    /// Goes component by component, as on a kernel without `openat2`.
    #[cfg(test)]
    fn without_openat2(mut self) -> Self {
        self.resolves = false;
        self
    }

    /// The full path of something, for messages only.
    pub fn display(&self, parent: &[u8], name: &[u8]) -> PathBuf {
        self.place.join(OsStr::from_bytes(&join_path(parent, name)))
    }

    fn fail(&self, verb: &'static str, parent: &[u8], name: &[u8], e: Errno) -> Error {
        let path = if name.is_empty() && parent.is_empty() {
            self.place.to_path_buf()
        } else if name.is_empty() {
            self.place.join(OsStr::from_bytes(parent))
        } else {
            self.display(parent, name)
        };
        Error::io(verb, path, e.into())
    }

    fn attempt<T>(
        &self,
        verb: &'static str,
        parent: &[u8],
        name: &[u8],
        result: rustix::io::Result<T>,
    ) -> Result<T> {
        result.map_err(|e| self.fail(verb, parent, name, e))
    }

    /// The descriptor of a directory below the root, to look things up in.
    fn dir(&mut self, path: &[u8]) -> Result<Arc<OwnedFd>> {
        if path.is_empty() {
            return Ok(self.root.clone());
        }
        if let Some(at) = self.kept.iter().position(|(p, _)| p == path) {
            if at > 0 {
                self.kept[..=at].rotate_right(1);
            }
            return Ok(self.kept[0].1.clone());
        }
        let fd = self.lookup(path).map_err(|e| self.fail("enter", path, b"", e))?;
        let fd = Arc::new(fd);
        self.kept.truncate(KEPT - 1);
        self.kept.insert(0, (path.to_vec(), fd.clone()));
        Ok(fd)
    }

    /// Forgets descriptors of `path` and below, after it was removed.
    fn forget(&mut self, path: &[u8]) {
        self.kept.retain(|(p, _)| !bulla_repo_format::tree::is_within(p, path));
    }

    fn lookup(&self, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        if path.split(|b| *b == b'/').any(|name| validate_name(name).is_err()) {
            return Err(Errno::INVAL);
        }
        let split = path.iter().rposition(|b| *b == b'/');
        let above = split.and_then(|at| self.kept.iter().find(|(p, _)| p[..] == path[..at]));
        match (above, split) {
            (Some((_, fd)), Some(at)) => self.descend(fd, &path[at + 1..]),
            _ => self.descend(&self.root, path),
        }
    }

    /// From `start` down `path`, in steps that fit into PATH_MAX.
    fn descend(&self, start: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut at: Option<OwnedFd> = None;
        let mut rest = path;
        while !rest.is_empty() {
            let end = if self.resolves && rest.len() <= PATH_STEP {
                rest.len()
            } else if self.resolves {
                // Names are at most 255 bytes for any Linux file system, so a slash is there, or the kernel refuses.
                rest[..PATH_STEP].iter().rposition(|b| *b == b'/').unwrap_or(PATH_STEP)
            } else {
                rest.iter().position(|b| *b == b'/').unwrap_or(rest.len())
            };
            let from = at.as_ref().unwrap_or(start);
            let next = if self.resolves {
                resolve(from, &rest[..end], flags)?
            } else {
                fs::openat(from, &rest[..end], flags, Mode::empty())?
            };
            at = Some(next);
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        at.ok_or(Errno::INVAL)
    }

    fn checked(&self, verb: &'static str, parent: &[u8], name: &[u8]) -> Result<()> {
        let valid = validate_name(name).is_ok();
        if valid { Ok(()) } else { Err(self.fail(verb, parent, name, Errno::INVAL)) }
    }

    /// A directory opened to read, and to set its metadata by.
    pub fn open_dir(&mut self, path: &[u8]) -> Result<OwnedFd> {
        let dir = self.dir(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(dir.as_fd(), ".", flags, Mode::empty());
        self.attempt("open", path, b"", opened)
    }

    /// Makes a directory for the owner alone; its recorded mode comes last.
    pub fn make_dir(&mut self, parent: &[u8], name: &[u8]) -> Result<()> {
        self.checked("create", parent, name)?;
        let dir = self.dir(parent)?;
        let made = fs::mkdirat(dir.as_fd(), name, Mode::RWXU);
        self.attempt("create", parent, name, made)
    }

    /// Creates a file for the owner alone; fails if anything is there.
    pub fn create_file(&mut self, parent: &[u8], name: &[u8]) -> Result<OwnedFd> {
        self.checked("create", parent, name)?;
        let dir = self.dir(parent)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = fs::openat(dir.as_fd(), name, flags, Mode::RUSR | Mode::WUSR);
        self.attempt("create", parent, name, made)
    }

    /// Opens a regular file that is there; anything else is refused without touching it.
    pub fn open_file(&mut self, parent: &[u8], name: &[u8], write: bool) -> Result<(OwnedFd, Stat)> {
        self.checked("open", parent, name)?;
        let dir = self.dir(parent)?;
        let access = if write { OFlags::WRONLY } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = fs::openat(dir.as_fd(), name, flags, Mode::empty()).and_then(|fd| {
            let stat = fs::fstat(&fd)?;
            let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if regular { Ok((fd, stat)) } else { Err(Errno::INVAL) }
        });
        self.attempt("open", parent, name, opened)
    }

    /// A descriptor of whatever lies under a name, followed nowhere, good for metadata only.
    fn node(&mut self, parent: &[u8], name: &[u8]) -> Result<OwnedFd> {
        self.checked("open", parent, name)?;
        let dir = self.dir(parent)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = fs::openat(dir.as_fd(), name, flags, Mode::empty());
        self.attempt("open", parent, name, opened)
    }

    /// Makes a symbolic link; its target is bytes and nothing more.
    pub fn symlink(&mut self, parent: &[u8], name: &[u8], target: &[u8]) -> Result<()> {
        self.checked("create", parent, name)?;
        let dir = self.dir(parent)?;
        let made = fs::symlinkat(target, dir.as_fd(), name);
        self.attempt("create", parent, name, made)
    }

    /// The target of a symbolic link.
    pub fn read_link(&mut self, parent: &[u8], name: &[u8]) -> Result<Vec<u8>> {
        self.checked("read", parent, name)?;
        let dir = self.dir(parent)?;
        let target = fs::readlinkat(dir.as_fd(), name, Vec::new());
        Ok(self.attempt("read", parent, name, target)?.into_bytes())
    }

    /// Makes a pipe, socket or device, for the owner alone.
    pub fn make_special(&mut self, parent: &[u8], name: &[u8], special: Special) -> Result<()> {
        self.checked("create", parent, name)?;
        let dir = self.dir(parent)?;
        let (kind, dev) = special.parts();
        let made = fs::mknodat(dir.as_fd(), name, kind, Mode::RUSR | Mode::WUSR, dev);
        self.attempt("create", parent, name, made)
    }

    /// Links `name` to a regular file which must be exactly the inode `identity`.
    pub fn hard_link(
        &mut self,
        from: (&[u8], &[u8]),
        identity: Identity,
        parent: &[u8],
        name: &[u8],
    ) -> Result<()> {
        self.checked("link", parent, name)?;
        let source = self.node(from.0, from.1)?;
        let stat = self.attempt("link", from.0, from.1, fs::fstat(&source))?;
        let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
        if !regular || Identity::of(&stat) != identity {
            return Err(self.fail("link", from.0, from.1, Errno::STALE));
        }
        let (here, there) = (self.dir(parent)?, self.dir(from.0)?);
        // By descriptor needs a capability; by name the result is compared with what was meant.
        match fs::linkat(&source, "", here.as_fd(), name, AtFlags::EMPTY_PATH) {
            Ok(()) => return Ok(()),
            Err(Errno::NOENT | Errno::PERM | Errno::INVAL | Errno::NOSYS) => {}
            Err(e) => return Err(self.fail("link", parent, name, e)),
        }
        let linked = fs::linkat(there.as_fd(), from.1, here.as_fd(), name, AtFlags::empty());
        self.attempt("link", parent, name, linked)?;
        let made = fs::statat(here.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW);
        let made = self.attempt("link", parent, name, made)?;
        if Identity::of(&made) == identity {
            return Ok(());
        }
        let _ = fs::unlinkat(here.as_fd(), name, AtFlags::empty());
        Err(self.fail("link", parent, name, Errno::STALE))
    }

    /// What lies under a name, or `None`. An empty name means the directory itself.
    pub fn stat(&mut self, parent: &[u8], name: &[u8]) -> Result<Option<Stat>> {
        let dir = self.dir(parent)?;
        if name.is_empty() {
            return self.attempt("examine", parent, name, fs::fstat(&dir)).map(Some);
        }
        self.checked("examine", parent, name)?;
        match fs::statat(dir.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(self.fail("examine", parent, name, e)),
        }
    }

    /// The names in a directory, unordered.
    pub fn list(&mut self, path: &[u8]) -> Result<Vec<Vec<u8>>> {
        let fd = self.open_dir(path)?;
        let read = || -> rustix::io::Result<Vec<Vec<u8>>> {
            let mut names = Vec::new();
            for entry in fs::Dir::new(fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    names.push(name.to_vec());
                }
            }
            Ok(names)
        };
        self.attempt("list", path, b"", read())
    }
}

/// `openat2` that stays beneath `dir` and follows nothing.
fn resolve(dir: &OwnedFd, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut last = Errno::AGAIN;
    for _ in 0..LOOKUPS {
        match fs::openat2(dir, path, flags, Mode::empty(), how) {
            Err(e @ (Errno::AGAIN | Errno::INTR)) => last = e,
            other => return other,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests;
