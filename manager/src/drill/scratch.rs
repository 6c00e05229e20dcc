//! A directory for what a drill restores: new, empty, for nobody else, outside of what is backed up, and gone at the end.
//!
//! Kept true: whatever is restored here is removed, or somebody is told that it was not; what a drill that was killed has
//! left, the next one removes.

use crate::config::{Job, JobSource};
use crate::outcome::Outcome;
use crate::world::{Trouble, World};
use bulla_engine::format::tree::{Entry, EntryKind, Timestamp, Xattr};
use bulla_engine::observer::{Event, Observer, escape};
use bulla_engine::source::{Filter, FilterSpec, Marker};
use rustix::fs::{Mode, OFlags, XattrFlags};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file that says what such a directory is, and how it begins.
const MARK: (&str, &str) = ("BULLA-DRILL.TAG", "bulla drill: restored on trial, not to be backed up\n");

/// How it goes on while a drill lives, and after one that was killed; not where what was restored is to stay.
const PASSING: &str = "it goes at the end of the drill, or with the next one\n";

/// How names of such directories begin.
const NAME: &str = "bulla-drill-";

/// What marks a directory that runs of jobs on all of `/` leave out: there a drill has nowhere else to go.
pub fn marker() -> Marker {
    Marker { name: MARK.0.into(), header: Some(MARK.1.into()) }
}

/// The directory.
pub(super) struct Scratch<'a> {
    /// What is removed.
    whole: PathBuf,
    /// In it, where files are restored.
    path: PathBuf,
    /// The file that says what it is, locked as long as the drill lives.
    mark: File,
    keep: bool,
    observer: &'a dyn Observer,
}

/// Removed whatever happens.
impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        if let Err(e) = remove(&self.whole) {
            warn(self.observer, "the drill", &self.whole, &e);
        }
    }
}

fn remove(whole: &Path) -> io::Result<()> {
    open_up(whole);
    fs::remove_dir_all(whole)
}

fn warn(observer: &dyn Observer, whose: &str, whole: &Path, e: &io::Error) {
    let place = escape(whole.as_os_str().as_bytes());
    let text = format!("what {whose} restored is still in {place}, unencrypted: {e}; remove it");
    observer.event(&Event::Warning(&text));
}

/// The mark of a directory of ours that a drill has left which lives no more, locked.
fn left_behind(whole: &Path) -> Option<File> {
    let name = whole.file_name()?.to_str()?;
    let m = whole.symlink_metadata().ok()?;
    if !name.starts_with(NAME) || !m.is_dir() || m.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    // Whatever lies there instead of a file, it is neither followed nor waited for.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mark = File::from(rustix::fs::open(whole.join(MARK.0), flags, Mode::empty()).ok()?);
    let mut text = String::new();
    (&mark).take(4096).read_to_string(&mut text).ok()?;
    (text == [MARK.1, PASSING].concat() && mark.try_lock().is_ok()).then_some(mark)
}

/// Removes what drills below `base` have left that were killed.
fn sweep(base: &Path, observer: &dyn Observer) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let whole = entry.path();
        let Some(_mark) = left_behind(&whole) else { continue };
        match remove(&whole) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                warn(observer, "a drill that was killed", &whole, &e)
            }
            _ => {}
        }
    }
}

/// Lets the owner of directories list them and delete in them, which what was restored may forbid.
fn open_up(dir: &Path) {
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        if let Ok(m) = dir.symlink_metadata()
            && m.mode() & 0o700 != 0o700
        {
            let _ = fs::set_permissions(&dir, fs::Permissions::from_mode(0o700));
        }
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                left.push(entry.path());
            }
        }
    }
}

/// Why a drill may not restore below `base`: because it would be backed up.
fn backed_up(base: &Path, job: &Job) -> Option<String> {
    let JobSource::Paths { paths, exclude, one_file_system, .. } = &job.source.value else { return None };
    let excludes = exclude.iter().map(|at| at.value.clone().into_bytes()).collect();
    let filter = Filter::new(&FilterSpec { excludes, ..FilterSpec::default() }).unwrap_or_default();
    let device = |path: &Path| fs::metadata(path).map(|m| m.dev()).ok();
    for source in paths.iter().filter_map(|at| Path::new(&at.value).canonicalize().ok()) {
        let elsewhere = *one_file_system && device(base) != device(&source);
        // Of all of `/` runs leave out what is marked.
        let inside = base.starts_with(&source) && source != Path::new("/");
        if inside && !elsewhere && !filter.excludes(base.as_os_str().as_bytes(), true) {
            return Some(escape(source.as_os_str().as_bytes()));
        }
    }
    None
}

impl<'a> Scratch<'a> {
    /// Makes one below `base`.
    pub(super) fn make(base: &Path, job: &Job, world: &'a dyn World, keep: bool) -> Result<Self, Trouble> {
        let failed = |e: io::Error| {
            let why = format!("no directory to restore into below {}: {e}", base.display());
            Trouble::new(Outcome::Failed, why)
        };
        fs::create_dir_all(base).map_err(failed)?;
        let base = base.canonicalize().map_err(failed)?;
        if let Some(source) = backed_up(&base, job) {
            let why = format!(
                "{} lies in what is backed up ({source}); name another directory: drill = {{ target = \"…\" }}",
                base.display(),
            );
            return Err(Trouble::new(Outcome::Refused, why));
        }
        sweep(&base, world.observer());
        let name = bulla_engine::format::id::to_hex(&world.env().random::<8>());
        let whole = base.join(format!("{NAME}{name}"));
        let private = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path).map_err(failed);
        private(&whole)?;
        let path = whole.join("restored");
        // It is locked before it says that it may be removed.
        let mark = File::create_new(whole.join(MARK.0)).map_err(failed)?;
        let made = Self { whole, path, mark, keep, observer: world.observer() };
        made.mark.lock().map_err(failed)?;
        (&made.mark).write_all([MARK.1, PASSING].concat().as_bytes()).map_err(failed)?;
        private(&made.path)?;
        Ok(made)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where what was restored is, if it stays.
    pub(super) fn end(self) -> Option<PathBuf> {
        if self.keep
            && let Err(e) = self.mark.set_len(MARK.1.len() as u64)
        {
            let text = format!("what was restored will be removed by the next drill: {e}; move it elsewhere");
            self.observer.event(&Event::Warning(&text));
        }
        self.keep.then(|| self.path.clone())
    }

    /// Makes files durable and asks the system to drop them from memory, so that what is compared comes from the disk.
    pub(super) fn forget_cached(
        &self,
        goes_on: &dyn Fn() -> bulla_engine::Result<()>,
    ) -> bulla_engine::Result<()> {
        let mut left = vec![self.path.clone()];
        while let Some(dir) = left.pop() {
            for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
                goes_on()?;
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
        Ok(())
    }

    /// What is different about an entry, apart from its content; nothing if it is as it was backed up. The owner counts for
    /// the superuser alone, what is implied has no times, and what the file system cannot hold is not missed.
    pub(super) fn differs(&self, path: &[u8], entry: &Entry, xattrs: &[Xattr]) -> Option<String> {
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
        let root = rustix::process::geteuid().is_root();
        if root && (m.uid(), m.gid()) != (entry.uid, entry.gid) {
            return Some("it has another owner".to_owned());
        }
        let differs = |x: &&Xattr| {
            let ours = x.name.starts_with(b"user.")
                || x.name.starts_with(b"system.posix_acl_")
                || root && x.name == b"security.capability";
            ours && attribute(&place, &x.name).as_deref() != Some(&x.value[..]) && self.holds(entry, x)
        };
        let x = xattrs.iter().find(differs)?;
        Some(format!("its attribute {} is not what it was", escape(&x.name)))
    }

    /// True if the file system of the directory takes an attribute: asked by giving it to something new of the same kind.
    fn holds(&self, entry: &Entry, x: &Xattr) -> bool {
        let probe = self.whole.join("probe");
        let made = if entry.is_dir() { fs::create_dir(&probe) } else { File::create_new(&probe).map(drop) };
        let held =
            made.is_ok() && rustix::fs::lsetxattr(&probe, &x.name[..], &x.value, XattrFlags::empty()).is_ok();
        let _ = if entry.is_dir() { fs::remove_dir(&probe) } else { fs::remove_file(&probe) };
        held
    }

    /// How the source's file at this path differs from what was restored; nothing if it does not.
    pub(super) fn unlike(&self, path: &[u8]) -> Option<String> {
        let relative = Path::new(std::ffi::OsStr::from_bytes(path));
        let hash = |root: &Path| -> io::Result<blake3::Hash> {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(root.join(relative))?)?;
            Ok(hasher.finalize())
        };
        let restored = match hash(&self.path) {
            Ok(restored) => restored,
            Err(e) => return Some(format!("what was restored cannot be read: {e}")),
        };
        match hash(Path::new("/")) {
            Ok(live) if live == restored => None,
            Ok(live) => {
                Some(format!("BLAKE3 {live} in the source, {restored} in the snapshot, under the same times"))
            }
            Err(e) => Some(format!("the source cannot be read any more: {e}")),
        }
    }
}

fn attribute(place: &Path, name: &[u8]) -> Option<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let len = rustix::fs::lgetxattr(place, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
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

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_engine::format::tree::{Block, Content};
    use bulla_engine::observer::Collector;

    fn scratch<'a>(dir: &Path, observer: &'a dyn Observer) -> Scratch<'a> {
        let (whole, path) = (dir.join("whole"), dir.join("whole/restored"));
        fs::create_dir_all(&path).unwrap();
        let mark = File::create(whole.join(MARK.0)).unwrap();
        Scratch { whole, path, mark, keep: false, observer }
    }

    #[test]
    fn what_a_drill_that_was_killed_has_left_is_removed_and_nothing_else_is() {
        let (dir, told) = (tempfile::tempdir().unwrap(), Collector::default());
        let passing = [MARK.1, PASSING].concat();
        let make = |name: &str, text: Option<&str>| {
            let whole = dir.path().join(name);
            fs::create_dir_all(whole.join("restored/shut")).unwrap();
            fs::write(whole.join("restored/shut/secret"), b"x").unwrap();
            fs::set_permissions(whole.join("restored/shut"), fs::Permissions::from_mode(0o000)).unwrap();
            text.iter().for_each(|text| fs::write(whole.join(MARK.0), text).unwrap());
            whole
        };
        let stale = make("bulla-drill-1", Some(&passing));
        let lives = make("bulla-drill-2", Some(&passing));
        let lock = File::open(lives.join(MARK.0)).unwrap();
        lock.lock().unwrap();
        let others = [
            lives,
            make("bulla-drill-3", None),
            make("bulla-drill-4", Some(MARK.1)),
            make("mine", Some(&passing)),
        ];
        // A link leads nowhere, and a pipe is not waited for.
        std::os::unix::fs::symlink(dir.path().join("mine"), dir.path().join("bulla-drill-5")).unwrap();
        let piped = make("bulla-drill-6", None);
        rustix::fs::mkfifoat(rustix::fs::CWD, piped.join(MARK.0), rustix::fs::Mode::RWXU).unwrap();
        sweep(dir.path(), &told);
        assert!(!stale.exists());
        assert!(others.iter().chain([&piped]).all(|whole| whole.join("restored/shut").exists()));
        // Its drill is killed: no lock is left.
        drop(lock);
        sweep(dir.path(), &told);
        assert!(!others[0].exists() && others[1].exists() && told.messages().is_empty());
        for whole in others[1..].iter().chain([&piped]) {
            open_up(whole);
        }
    }

    /// An entry as a backup of this file would have it.
    fn entry(path: &Path) -> Entry {
        let m = path.symlink_metadata().unwrap();
        let kind = match m.is_dir() {
            true => EntryKind::Directory,
            false => EntryKind::File { size: m.len(), holes: Block::None, content: Content::default() },
        };
        Entry {
            parent: Vec::new().into(),
            name: b"f".to_vec(),
            kind,
            mode: (m.mode() & 0o7777) as u16,
            uid: m.uid(),
            gid: m.gid(),
            mtime: time(m.mtime(), m.mtime_nsec()),
            ctime: time(m.ctime(), m.ctime_nsec()),
            btime: None,
            atime: None,
            mount: 0,
            inode: m.ino(),
            links: 1,
            xattrs: Block::None,
            flags: Default::default(),
        }
    }

    #[test]
    fn metadata_is_compared_as_far_as_the_file_system_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = scratch(dir.path(), &bulla_engine::observer::Silent);
        let place = scratch.path().join("f");
        fs::write(&place, b"x").unwrap();
        let is = entry(&place);
        let x = |name: &[u8], value: &[u8]| Xattr { name: name.to_vec(), value: value.to_vec() };
        assert_eq!(scratch.differs(b"f", &is, &[]), None);
        assert!(scratch.differs(b"f", &Entry { mode: 0o123, ..is.clone() }, &[]).unwrap().contains("0123"));
        assert!(scratch.differs(b"g", &is, &[]).unwrap().contains("was not restored"));
        let held = rustix::fs::setxattr(&place, "user.color", b"red", XattrFlags::empty()).is_ok();
        let differs = |value: &[u8]| scratch.differs(b"f", &entry(&place), &[x(b"user.color", value)]);
        if held {
            assert_eq!(differs(b"red"), None);
            assert!(differs(b"blue").unwrap().contains("user.color"));
        } else {
            assert_eq!(differs(b"blue"), None, "nowhere to put it");
        }
        // No file system takes a name of this length, so none is blamed.
        let long = [&b"user."[..], &[b'n'; 300]].concat();
        assert_eq!(scratch.differs(b"f", &entry(&place), &[x(&long, b"1")]), None);
        assert!(!scratch.whole.join("probe").exists());
    }

    #[test]
    fn what_differs_from_the_source_is_told_with_both_hashes() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = scratch(dir.path(), &bulla_engine::observer::Silent);
        let live = dir.path().join("live");
        fs::write(&live, b"one").unwrap();
        let path = live.strip_prefix("/").unwrap().as_os_str().as_bytes();
        let restored = scratch.path().join(live.strip_prefix("/").unwrap());
        fs::create_dir_all(restored.parent().unwrap()).unwrap();
        fs::write(&restored, b"one").unwrap();
        assert_eq!(scratch.unlike(path), None);
        assert!(is_as_it_was(path, &entry(&live)));
        fs::write(&restored, b"two").unwrap();
        let why = scratch.unlike(path).unwrap();
        for content in [&b"one"[..], b"two"] {
            assert!(why.contains(&blake3::hash(content).to_string()), "{why}");
        }
        let older = Timestamp { seconds: 1, nanos: 0 };
        assert!(!is_as_it_was(path, &Entry { ctime: older, ..entry(&live) }));
    }

    #[test]
    fn what_cannot_be_removed_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let told = Collector::default();
        let one = scratch(dir.path(), &told);
        fs::create_dir(one.path().join("shut")).unwrap();
        fs::write(one.path().join("shut/f"), b"x").unwrap();
        fs::set_permissions(one.path().join("shut"), fs::Permissions::from_mode(0o000)).unwrap();
        drop(one);
        assert!(!dir.path().join("whole").exists() && told.messages().is_empty());
        // Gone already: that nothing can be removed is as strange as that something stays.
        let two = scratch(dir.path(), &told);
        fs::remove_dir_all(&two.whole).unwrap();
        drop(two);
        assert!(told.messages().concat().contains("unencrypted"), "{:?}", told.messages());
    }
}
