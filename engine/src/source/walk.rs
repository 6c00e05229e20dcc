//! The ordered walk: for each directory all its entries by name, then its sub-directories in the same order. That is
//! tree order (SPEC 9.1), so the walk and a stored tree can be merged without sorting anything but one directory.
//!
//! A directory costs open, statx, getdents and close; an entry one statx. Depth is bounded by the format's longest
//! path, not by descriptors or the kernel's PATH_MAX: only the deepest directories stay open, the others are opened
//! again through `..` or from the top, and recognised by device and inode.

use super::details::{self, absolute, error, reason};
use super::found::{Found, Walked};
use super::listing::Listing;
use super::mounts::Mounts;
use super::roots::{Lead, Roots};
use super::stat::{self, Identity};
use super::{Filter, PathSources};
use crate::error::{Error, Result, SourceError};
use crate::observer::{Event, Observer, escape};
use bulla_repo_format::limits::{NAME_MAX, PATH_MAX};
use bulla_repo_format::snapshot::Mount;
use bulla_repo_format::tree::EntryKind;
use rustix::fs::{CWD, Statx};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// Directories on the way down that stay open.
const OPEN_MAX: usize = 32;

/// A sub-directory to descend into.
struct Child {
    name: Box<[u8]>,
    /// A source path itself.
    is_root: bool,
    /// Only what leads to source paths is wanted of it.
    passage: bool,
    /// Reached through a link: an ancestor of a source path.
    follow: bool,
    /// Source paths strictly below it.
    below: Range<usize>,
}

/// A directory on the way down.
struct Frame {
    fd: Option<Arc<OwnedFd>>,
    identity: Identity,
    mount: u32,
    /// How much of the walk's path is its path.
    depth: usize,
    passage: bool,
    follow: bool,
    below: Range<usize>,
    children: VecDeque<Child>,
}

/// An ordered walk over path sources.
pub struct Walk<'a> {
    sources: &'a PathSources,
    observer: &'a dyn Observer,
    roots: Roots,
    stack: Vec<Frame>,
    /// The deepest directory's path, without leading slash.
    path: Vec<u8>,
    /// The same, shared by its entries.
    parent: Arc<[u8]>,
    listing: Listing,
    errors: VecDeque<SourceError>,
    mounts: Mounts,
}

impl<'a> Walk<'a> {
    /// Starts at the top. Refuses if nothing at all can be backed up; of several source paths, missing ones are errors
    /// that the walk meets.
    pub fn new(sources: &'a PathSources, observer: &'a dyn Observer) -> Result<Self> {
        let roots = Roots::new(&sources.paths, &sources.base)?;
        check_any(&roots, &sources.filter)?;
        let top = |e: Errno| Error::io("open", "/", e.into());
        let whole = roots.whole();
        let open =
            if whole { details::open_directory(CWD, b"/") } else { details::open_passage(CWD, b"/", false) };
        let fd = open.map_err(top)?;
        let identity = stat::identity(&stat::stat_fd(&fd).map_err(top)?);
        let below = roots.below_top();
        let mut walk = Self {
            sources,
            observer,
            roots,
            stack: Vec::new(),
            path: Vec::new(),
            parent: Arc::from([]),
            listing: Listing::default(),
            errors: VecDeque::new(),
            mounts: Mounts::default(),
        };
        let child = Child { name: Box::default(), is_root: whole, passage: !whole, follow: false, below };
        walk.enter(fd, identity, child);
        Ok(walk)
    }

    /// Devices met so far; entries refer to it by position.
    pub fn mounts(&self) -> &[Mount] {
        self.mounts.table()
    }

    /// The next entry or error; `None` at the end.
    #[allow(clippy::should_implement_trait, reason = "an iterator would not lend the mount table meanwhile")]
    pub fn next(&mut self) -> Option<Walked> {
        loop {
            if let Some(e) = self.errors.pop_front() {
                return Some(Walked::Error(e));
            }
            if !self.listing.is_done() {
                if let Some(found) = self.visit() {
                    return Some(Walked::Entry(found));
                }
                continue;
            }
            match self.stack.last_mut()?.children.pop_front() {
                Some(child) => self.descend(child),
                None => self.leave(),
            }
        }
    }

    /// Looks at the next name of the deepest directory.
    fn visit(&mut self) -> Option<Found> {
        let mut listing = std::mem::take(&mut self.listing);
        let found = listing.advance().and_then(|name| self.look(name));
        self.listing = listing;
        found
    }

    fn look(&mut self, name: &CStr) -> Option<Found> {
        let bytes = name.to_bytes();
        let frame = self.stack.last()?;
        let (depth, dir) = (frame.depth, frame.fd.clone()?);
        let lead = if frame.below.is_empty() { None } else { self.roots.child(&frame.below, depth, bytes) };
        let implied = frame.passage && lead.as_ref().is_some_and(|l| !l.is_root);
        // The path of the entry for as long as this takes.
        let len = self.path.len();
        self.path.extend_from_slice(if depth > 0 { b"/" } else { b"" });
        self.path.extend_from_slice(bytes);
        let found = if self.is_acceptable(bytes, lead.as_ref(), implied) {
            match stat::stat(&dir, name, implied) {
                Ok(s) => self.looked(&s, bytes, dir, lead, implied),
                Err(e) => {
                    self.unseen(e, lead);
                    None
                }
            }
        } else {
            None
        };
        self.path.truncate(len);
        found
    }

    /// What the name alone decides: whether the format can hold it, and whether a pattern leaves it out.
    fn is_acceptable(&mut self, name: &[u8], lead: Option<&Lead>, implied: bool) -> bool {
        if name.is_empty() || name.contains(&b'/') || name.len() > NAME_MAX || self.path.len() > PATH_MAX {
            let why = if self.path.len() > PATH_MAX {
                "its path is longer than 128 KiB"
            } else {
                "the file system gave a name that is none"
            };
            self.errors.push_back(error("store", &self.path, why));
            return false;
        }
        let filter = &self.sources.filter;
        if implied || !filter.has_patterns() {
            return true;
        }
        let asked = lead.is_some_and(|l| l.is_root);
        // Above a source path nobody has asked the patterns yet.
        let excluded =
            if asked { filter.excludes(&self.path, false) } else { filter.excludes_new(&self.path) };
        if excluded && let Some(lead) = lead {
            self.notice_excluded(lead);
        }
        !excluded
    }

    fn notice_excluded(&self, lead: &Lead) {
        let range = lead.below.start - usize::from(lead.is_root)..lead.below.end;
        for root in self.roots.within(&range) {
            let text = format!("the source path {} is excluded by a pattern", escape(&absolute(root)));
            self.observer.event(&Event::Notice(&text));
        }
    }

    /// The entry could not be looked at; nor can what it leads to.
    fn unseen(&mut self, e: Errno, lead: Option<Lead>) {
        let Some(lead) = lead else {
            return self.errors.push_back(error("stat", &self.path, reason(e)));
        };
        let why = if e == Errno::NOENT { "it does not exist".to_owned() } else { reason(e) };
        let range = lead.below.start - usize::from(lead.is_root)..lead.below.end;
        self.fail_roots(range, why);
    }

    fn fail_roots(&mut self, range: Range<usize>, why: impl ToString) {
        let why = why.to_string();
        self.errors.extend(self.roots.within(&range).iter().map(|root| error("back up", root, &why)));
    }

    /// From what statx says to an entry, and to a descent if it is a directory.
    fn looked(
        &mut self,
        s: &Statx,
        name: &[u8],
        dir: Arc<OwnedFd>,
        lead: Option<Lead>,
        implied: bool,
    ) -> Option<Found> {
        let (device, inode) = stat::identity(s);
        let Some(kind) = stat::kind(s) else {
            self.errors.push_back(error("store", &self.path, "it is of no known type"));
            return None;
        };
        let directory = kind == EntryKind::Directory;
        if directory && !implied && self.sources.skip.contains(&(device, inode)) {
            let shown = escape(&absolute(&self.path));
            self.observer.event(&Event::Notice(&format!(
                "skipping {shown}: it belongs to bulla (repository or cache)"
            )));
            return None;
        }
        let below = lead.as_ref().map_or(0..0, |l| l.below.clone());
        if !directory && !below.is_empty() {
            let what =
                if matches!(kind, EntryKind::Symlink { .. }) { "a symbolic link" } else { "not a directory" };
            let other = if implied { "" } else { " and is backed up as such" };
            self.fail_roots(below.clone(), format!("{} is {what}{other}", escape(&absolute(&self.path))));
        }
        if implied && !directory {
            return None;
        }
        if matches!(kind, EntryKind::File { size, .. } if self.sources.filter.too_large(size)) {
            return None;
        }
        let frame = self.stack.last_mut()?;
        let is_root = lead.is_some_and(|l| l.is_root);
        if directory {
            let crosses = self.sources.one_file_system && !is_root && device != frame.identity.0;
            let passage = implied || crosses;
            // Of a mount that is not wanted, source paths inside are.
            if !passage || !below.is_empty() {
                frame.children.push_back(Child {
                    name: name.into(),
                    is_root,
                    passage,
                    follow: implied,
                    below,
                });
            }
        }
        let path = &self.path;
        let same = device == frame.identity.0;
        let mount = if same { frame.mount } else { self.mounts.number(device, || path.clone()) };
        let mut entry = stat::entry(s, kind, self.parent.clone(), name, mount);
        entry.flags.implied = implied;
        entry.flags.read_error = directory && !implied && !details::may_list(s.stx_mode, &dir, name);
        entry.atime = self.sources.with_atime.then(|| stat::atime(s));
        if implied {
            // Whatever else goes on in an ancestor must not make an unchanged backup look changed (SPEC 9.2).
            (entry.mtime, entry.ctime, entry.btime, entry.atime) = Default::default();
        }
        Some(Found { entry, allocated: s.stx_blocks.saturating_mul(512), dev: device, inode, dir })
    }

    /// Opens a sub-directory of the deepest one and enters it.
    fn descend(&mut self, child: Child) {
        let opened = self.ensure_open().and_then(|dir| {
            let dir = dir.as_fd();
            let fd = if child.passage {
                details::open_passage(dir, &child.name, child.follow)?
            } else {
                details::open_directory(dir, &child.name)?
            };
            let identity = stat::identity(&stat::stat_fd(&fd)?);
            Ok((fd, identity))
        });
        match opened {
            Ok((fd, identity)) => {
                // Something else may lie here by now: a file system mounted by opening it, or bulla's own directory.
                let crossed = self.stack.last().is_some_and(|f| f.identity.0 != identity.0);
                let unwanted = crossed && self.sources.one_file_system && !child.is_root && !child.passage;
                if !unwanted && (child.passage || !self.sources.skip.contains(&identity)) {
                    self.enter(fd, identity, child);
                }
            }
            Err(e) => {
                let path = join(&self.path, &child.name);
                let why =
                    if e == Errno::NOTDIR { "something else took its place".to_owned() } else { reason(e) };
                self.errors.push_back(error("list the directory", &path, &why));
                self.fail_roots(child.below, format!("{}: {why}", escape(&absolute(&path))));
            }
        }
    }

    /// Makes a directory the deepest one and lists it.
    fn enter(&mut self, fd: OwnedFd, identity: Identity, child: Child) {
        if !child.name.is_empty() {
            self.path = join(&std::mem::take(&mut self.path), &child.name);
        }
        let same = self.stack.last().filter(|f| f.identity.0 == identity.0).map(|f| f.mount);
        let path = &self.path;
        let mount = same.unwrap_or_else(|| self.mounts.number(identity.0, || path.clone()));
        let (depth, fd) = (self.path.len(), Arc::new(fd));
        let Child { passage, follow, below, .. } = child;
        if passage {
            self.listing.clear();
            self.roots.children(&below, depth).for_each(|(name, _)| self.listing.push(name));
        } else {
            self.list(&fd, &below);
        }
        if !self.listing.is_done() {
            self.parent = Arc::from(self.path.as_slice());
        }
        let children = VecDeque::new();
        self.stack.push(Frame { fd: Some(fd), identity, mount, depth, passage, follow, below, children });
        // The top stays open: from there everything is found again.
        let deep = self.stack.len().checked_sub(OPEN_MAX + 1).filter(|i| *i > 0);
        if let Some(frame) = deep.and_then(|i| self.stack.get_mut(i)) {
            frame.fd = None;
        }
    }

    /// Reads the names of a directory that is wanted as a whole.
    fn list(&mut self, fd: &OwnedFd, below: &Range<usize>) {
        if let Err(e) = self.listing.fill(fd) {
            self.errors.push_back(error("list the directory", &self.path, reason(e)));
        }
        let listing = &mut self.listing;
        if let Some(marker) = self.sources.filter.marker(fd.as_fd(), |name| listing.contains(name)) {
            listing.keep_only(marker);
        }
        let mut missing = Vec::new();
        for (name, lead) in self.roots.children(below, self.path.len()) {
            if !self.listing.contains(name) {
                missing.push(lead.below.start - usize::from(lead.is_root)..lead.below.end);
            }
        }
        missing
            .into_iter()
            .for_each(|range| self.fail_roots(range, "it does not exist, or a marker leaves it out"));
    }

    /// Goes back to the directory above.
    fn leave(&mut self) {
        let Some(done) = self.stack.pop() else { return };
        let Some(top) = self.stack.last_mut() else { return };
        self.path.truncate(top.depth);
        if top.fd.is_none() {
            let up = done.fd.and_then(|fd| details::open_passage(fd.as_fd(), b"..", false).ok());
            top.fd = up.filter(|fd| is_same(fd, top.identity)).map(Arc::new);
        }
    }

    /// The deepest directory's descriptor; where `..` did not lead back to it, found again from the top, every step
    /// recognised by device and inode.
    fn ensure_open(&mut self) -> rustix::io::Result<Arc<OwnedFd>> {
        let start = self.stack.iter().rposition(|f| f.fd.is_some()).ok_or(Errno::STALE)?;
        let mut fd = self.stack.get(start).and_then(|f| f.fd.clone()).ok_or(Errno::STALE)?;
        let mut depth = self.stack.get(start).map_or(0, |f| f.depth);
        for frame in self.stack.get_mut(start + 1..).unwrap_or_default() {
            let name = self.path.get(depth + usize::from(depth > 0)..frame.depth).unwrap_or_default();
            let next = details::open_passage(fd.as_fd(), name, frame.follow)?;
            if !is_same(&next, frame.identity) {
                return Err(Errno::STALE);
            }
            (fd, depth) = (Arc::new(next), frame.depth);
        }
        if let Some(frame) = self.stack.last_mut() {
            frame.fd = Some(fd.clone());
        }
        Ok(fd)
    }
}

fn is_same(fd: &OwnedFd, identity: Identity) -> bool {
    stat::stat_fd(fd).is_ok_and(|s| stat::identity(&s) == identity)
}

fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    bulla_repo_format::tree::join_path(parent, name)
}

/// Refuses when no source path can be backed up. Looks no further than the first that can.
fn check_any(roots: &Roots, filter: &Filter) -> Result<()> {
    const SHOWN: usize = 8;
    let mut why = Vec::new();
    for root in roots.all() {
        let path = absolute(root);
        let seen = CString::new(path.as_slice()).map_err(|_| Errno::INVAL);
        let problem = match seen.and_then(|c| stat::stat(CWD, &c, false)) {
            // A path that is too long for one call is found step by step.
            Ok(_) | Err(Errno::NAMETOOLONG) if !filter.excludes(root, false) => return Ok(()),
            Ok(_) | Err(Errno::NAMETOOLONG) => "it is excluded by a pattern".to_owned(),
            Err(Errno::NOENT) => "it does not exist".to_owned(),
            Err(e) => reason(e),
        };
        why.push(format!("{}: {problem}", escape(&path)));
    }
    let more = why.len().saturating_sub(SHOWN);
    why.truncate(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    Err(Error::Refused(format!("nothing to back up: {}{more}", why.join("; "))))
}
