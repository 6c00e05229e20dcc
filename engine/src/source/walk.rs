//! The ordered walk: for each directory all its entries by name, then its sub-directories in the same order. That is
//! tree order (SPEC 9.1), so the walk and a stored tree can be merged without sorting anything but one directory.
//!
//! A directory costs open, getdents and close; an entry one statx. Depth is bounded by memory, not by descriptors or
//! PATH_MAX: only the deepest directories stay open, the others are opened again through `..` and recognised by
//! device and inode.

use super::mounts::Mounts;
use super::stat::{self, device, is_directory};
use super::{PathSources, details, read::OpenFile};
use crate::error::{Error, Result, SourceError};
use crate::observer::{Event, Observer, escape};
use crate::repository::tree::display_path;
use bulla_repo_format::limits::{NAME_MAX, PATH_MAX};
use bulla_repo_format::snapshot::Mount;
use bulla_repo_format::tree::{Entry, EntryKind, join_path};
use rustix::fs::{CWD, Mode, OFlags, RawDir, Statx};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Directories on the way down that stay open.
const OPEN_MAX: usize = 64;
/// Entries stated ahead of the consumer, in one directory.
const AHEAD: usize = 64;

/// What the walk meets.
pub enum Walked {
    /// An entry.
    Entry(Box<Found>),
    /// Something that cannot be captured.
    Error(SourceError),
}

/// An entry with the directory it lies in.
pub struct Found {
    /// Without content, attributes and link target.
    pub entry: Entry,
    /// Bytes the file system has allocated.
    pub allocated: u64,
    /// The device it lies on.
    pub dev: u64,
    dir: Arc<OwnedFd>,
}

impl Found {
    /// Reads extended attributes (encoded) and, into the entry, a link's target.
    pub fn capture_details(&mut self) -> Result<Option<Vec<u8>>, SourceError> {
        let name = &self.entry.name;
        if let EntryKind::Symlink { target } = &mut self.entry.kind {
            *target = details::link_target(self.dir.as_fd(), name)
                .map_err(|e| SourceError::new("read the link", display_path(&self.entry.parent, name), e))?;
        }
        details::xattrs(self.dir.as_fd(), name).map_err(|e| self.error("read the attributes of", e))
    }

    /// Opens the file for reading.
    pub fn open(&self) -> Result<OpenFile, SourceError> {
        let flags = details::open_flags();
        let name = self.entry.name.as_slice();
        // Not touching access times is a privilege of the owner.
        let fd = match rustix::fs::openat(&*self.dir, name, flags | OFlags::NOATIME, Mode::empty()) {
            Err(Errno::PERM) => rustix::fs::openat(&*self.dir, name, flags, Mode::empty()),
            other => other,
        };
        let fd = fd.map_err(|e| self.error("open", e))?;
        OpenFile::new(fd, display_path(&self.entry.parent, &self.entry.name))
    }

    fn error(&self, verb: &'static str, reason: impl ToString) -> SourceError {
        SourceError::new(verb, display_path(&self.entry.parent, &self.entry.name), reason)
    }
}

/// Which children of a directory are wanted: all, or those that lead to source paths.
enum Wanted {
    All,
    Some(BTreeMap<Vec<u8>, Wanted>),
}

impl Wanted {
    fn add(&mut self, path: &[u8]) {
        let (first, rest) = match path.iter().position(|b| *b == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..)),
            None => (path, None),
        };
        let Self::Some(children) = self else { return };
        if first.is_empty() {
            *self = Self::All;
            return;
        }
        let child = children.entry(first.to_vec()).or_insert_with(|| Self::Some(BTreeMap::new()));
        match rest {
            Some(rest) => child.add(rest),
            None => *child = Self::All,
        }
    }
}

/// A directory on the way down.
struct Level {
    path: Arc<[u8]>,
    fd: Option<Arc<OwnedFd>>,
    identity: (u64, u64),
    /// Names still to be stated, in order.
    names: VecDeque<Vec<u8>>,
    /// Sub-directories to descend into afterwards, in order.
    below: VecDeque<(Vec<u8>, Wanted, (u64, u64))>,
    wanted: Wanted,
}

/// An ordered walk over path sources.
pub struct Walk<'a> {
    sources: &'a PathSources,
    observer: &'a dyn Observer,
    levels: Vec<Level>,
    ready: VecDeque<Walked>,
    mounts: Mounts,
    skip: HashSet<(u64, u64)>,
    /// Devices of the source paths, for `one_file_system`.
    devices: HashSet<u64>,
    buffer: Vec<MaybeUninit<u8>>,
}

impl<'a> Walk<'a> {
    /// Starts at the common root. Fails only if no source path exists at all.
    pub fn new(sources: &'a PathSources, observer: &'a dyn Observer) -> Result<Self> {
        let paths = sources.absolute();
        let mut ready = VecDeque::new();
        let (mut wanted, mut devices, mut found) = (Wanted::Some(BTreeMap::new()), HashSet::new(), 0);
        for path in &paths {
            match rustix::fs::lstat(path.as_slice()) {
                Ok(s) => {
                    devices.insert(s.st_dev);
                    wanted.add(path.get(1..).unwrap_or_default());
                    found += 1;
                }
                Err(e) => ready.push_back(Walked::Error(SourceError::new("back up", path.clone(), e))),
            }
        }
        if found == 0 {
            let names: Vec<String> = paths.iter().map(|p| escape(p)).collect();
            return Err(Error::Refused(format!(
                "nothing to back up: none of these exists: {}",
                names.join(", ")
            )));
        }
        let mut walk = Self {
            sources,
            observer,
            levels: Vec::new(),
            ready,
            mounts: Mounts::default(),
            skip: sources.skip.iter().copied().collect(),
            devices,
            buffer: vec![MaybeUninit::uninit(); 64 << 10],
        };
        let root = rustix::fs::openat(CWD, "/", directory_flags(), Mode::empty())
            .map_err(|e| Error::io("open", "/", e.into()))?;
        let s = stat::stat_fd(root.as_fd()).map_err(|e| Error::io("stat", "/", e.into()))?;
        walk.enter(Arc::from([]), Arc::new(root), (device(&s), s.stx_ino), wanted);
        Ok(walk)
    }

    /// Devices met so far; entries refer to it by position.
    pub fn mounts(&self) -> &[Mount] {
        self.mounts.table()
    }

    /// The next entry or error.
    #[allow(clippy::should_implement_trait, reason = "it lends its observer")]
    pub fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let level = self.levels.last_mut()?;
            if !level.names.is_empty() {
                self.state_some();
            } else if let Some((name, wanted, identity)) = level.below.pop_front() {
                self.descend(name, wanted, identity);
            } else {
                self.levels.pop();
            }
        }
    }

    /// States the next few names of the deepest level.
    fn state_some(&mut self) {
        let Ok(dir) = self.ensure_open() else { return };
        for _ in 0..AHEAD {
            let Some(level) = self.levels.last_mut() else { return };
            let Some(name) = level.names.pop_front() else { return };
            let parent = level.path.clone();
            match stat::stat(dir.as_fd(), &name) {
                Ok(s) => self.stated(&dir, parent, name, &s),
                Err(e) => {
                    let reason = if e == Errno::NOENT { "it vanished".to_owned() } else { e.to_string() };
                    let error = SourceError::new("stat", display_path(&parent, &name), reason);
                    self.ready.push_back(Walked::Error(error));
                }
            }
        }
    }

    fn stated(&mut self, dir: &Arc<OwnedFd>, parent: Arc<[u8]>, name: Vec<u8>, s: &Statx) {
        let path = join_path(&parent, &name);
        if name.len() > NAME_MAX || path.len() > PATH_MAX {
            let reason = "its path is longer than 128 KiB";
            return self.ready.push_back(Walked::Error(SourceError::new("store", path, reason)));
        }
        let Some(level) = self.levels.last_mut() else { return };
        let (directory, identity) = (is_directory(s), (device(s), s.stx_ino));
        let child = match &mut level.wanted {
            Wanted::All => Wanted::All,
            Wanted::Some(children) => children.remove(&name).unwrap_or(Wanted::Some(BTreeMap::new())),
        };
        let implied = matches!(child, Wanted::Some(_));
        // Source paths themselves are never excluded: they were asked for by name.
        let asked = matches!(level.wanted, Wanted::Some(_));
        if !asked && self.sources.filter.excludes(&path, directory, s.stx_size, dir, &name) {
            return;
        }
        if directory && self.skip.contains(&identity) {
            let text = format!("skipping {}: it belongs to bulla (repository or cache)", escape(&path));
            return self.observer.event(&Event::Notice(&text));
        }
        let mount = self.mounts.number(identity.0);
        let mut entry = stat::entry(s, parent, name.clone(), mount, self.sources.with_atime);
        entry.flags.implied = implied;
        if implied {
            // Whatever else goes on in an ancestor must not make an unchanged backup look changed (SPEC 9.2).
            (entry.mtime, entry.ctime, entry.btime, entry.atime) = Default::default();
        }
        let follow = implied && matches!(entry.kind, EntryKind::Symlink { .. });
        let crossing = self.sources.one_file_system && !implied && !self.devices.contains(&identity.0);
        if follow {
            // A link among the ancestors of a source path: the user means what it leads to.
            entry.kind = EntryKind::Directory;
        }
        if (directory || follow) && !crossing {
            level.below.push_back((name, child, if follow { (0, 0) } else { identity }));
        }
        let allocated = s.stx_blocks.saturating_mul(512);
        let found = Found { entry, allocated, dev: identity.0, dir: dir.clone() };
        self.ready.push_back(Walked::Entry(Box::new(found)));
    }

    fn descend(&mut self, name: Vec<u8>, wanted: Wanted, identity: (u64, u64)) {
        let Some(level) = self.levels.last() else { return };
        let path: Arc<[u8]> = join_path(&level.path, &name).into();
        let follow = identity == (0, 0);
        let opened = self.ensure_open().and_then(|dir| {
            let flags = if follow { directory_flags() - OFlags::NOFOLLOW } else { directory_flags() };
            rustix::fs::openat(&*dir, name.as_slice(), flags, Mode::empty())
        });
        let checked = opened.and_then(|fd| stat::stat_fd(fd.as_fd()).map(|s| (fd, s)));
        match checked {
            Ok((fd, s)) if follow || (device(&s), s.stx_ino) == identity => {
                self.enter(path, Arc::new(fd), (device(&s), s.stx_ino), wanted);
            }
            Ok(_) => self.fail("read the directory", &path, "it was replaced while it was read"),
            Err(e) => self.fail("read the directory", &path, e),
        }
    }

    fn fail(&mut self, verb: &'static str, path: &[u8], reason: impl ToString) {
        let path = [b"/", path].concat();
        self.ready.push_back(Walked::Error(SourceError::new(verb, path, reason)));
    }

    /// Lists a directory and makes it the deepest level.
    fn enter(&mut self, path: Arc<[u8]>, fd: Arc<OwnedFd>, identity: (u64, u64), wanted: Wanted) {
        let names = match &wanted {
            Wanted::Some(children) => children.keys().cloned().collect(),
            Wanted::All if !path.is_empty() && self.sources.filter.marked(&fd) => VecDeque::new(),
            Wanted::All => match self.list(&fd) {
                Ok(names) => names,
                Err(e) => {
                    self.fail("read the directory", &path, e);
                    return;
                }
            },
        };
        self.levels.push(Level { path, fd: Some(fd), identity, names, below: VecDeque::new(), wanted });
        if let Some(at) = self.levels.len().checked_sub(OPEN_MAX)
            && at > 0
            && let Some(level) = self.levels.get_mut(at)
        {
            level.fd = None;
        }
    }

    fn list(&mut self, fd: &OwnedFd) -> rustix::io::Result<VecDeque<Vec<u8>>> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        let mut dir = RawDir::new(fd, &mut self.buffer);
        while let Some(entry) = dir.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        names.sort_unstable();
        // A directory that changes while it is listed may show a name twice.
        names.dedup();
        Ok(names.into())
    }

    /// The deepest level's descriptor; opened again through its child's `..`, or from the top, when it was closed.
    fn ensure_open(&mut self) -> rustix::io::Result<Arc<OwnedFd>> {
        let Some(level) = self.levels.last() else { return Err(Errno::NOENT) };
        if let Some(fd) = &level.fd {
            return Ok(fd.clone());
        }
        // From the nearest open ancestor down; every step is recognised by device and inode.
        let from = self.levels.iter().rposition(|l| l.fd.is_some()).unwrap_or(0);
        let mut fd = self.levels.get(from).and_then(|l| l.fd.clone()).ok_or(Errno::NOENT)?;
        let mut failed = None;
        for level in self.levels.get(from + 1..).unwrap_or_default() {
            let name = level.path.rsplit(|b| *b == b'/').next().unwrap_or_default();
            let next = rustix::fs::openat(&*fd, name, directory_flags(), Mode::empty());
            match next.and_then(|n| stat::stat_fd(n.as_fd()).map(|s| (n, (device(&s), s.stx_ino)))) {
                Ok((n, identity)) if identity == level.identity => fd = Arc::new(n),
                Ok(_) => failed = Some(Errno::STALE),
                Err(e) => failed = Some(e),
            }
            if failed.is_some() {
                break;
            }
        }
        if let Some(e) = failed {
            return Err(self.abandon(e));
        }
        if let Some(level) = self.levels.last_mut() {
            level.fd = Some(fd.clone());
        }
        Ok(fd)
    }

    /// Gives up the rest of a directory that cannot be found again; its parents go on.
    fn abandon(&mut self, e: Errno) -> Errno {
        if let Some(level) = self.levels.pop() {
            let path = level.path.clone();
            self.fail("return to the directory", &path, e);
        }
        e
    }
}

fn directory_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK
}
