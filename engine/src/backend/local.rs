//! A repository in a local directory.
//!
//! One commit form for every object: write a temporary file in `tmp/`, fsync it, `link` it to its name (which fails
//! when the name exists: exact put-if-absent, also on NFS), unlink the temporary. The directory is fsynced by the
//! next [`Backend::flush`], once however many objects went into it. All directories are made at `init` and synced
//! then, so no object ever depends on a directory entry that was not durable. Files are 0400, directories 0700,
//! whatever the umask.

use super::disk::{Disk, open};
use super::{Backend, BackendError, Capabilities, Put, Result, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

const TMP: &str = "tmp";
const EIO: i32 = rustix::io::Errno::IO.raw_os_error();
/// What forgets and a prune on a full disk live on: forgets, its announcement, deaths, mark and graves.
const RESERVE: &str = "reserve";
/// Temporary files older than this belong to nobody: no put takes a day. If one did, its writer would get an error at
/// `link` and fail cleanly.
const TMP_AGE: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

/// A directory that holds a repository.
#[derive(Default)]
pub struct Local {
    root: PathBuf,
    disk: Disk,
    dirty: Mutex<BTreeSet<PathBuf>>,
    counter: AtomicU64,
    /// The error number of a sync that failed. The kernel reports each loss once: to ask again is to be told that
    /// all is well.
    failed: AtomicI32,
}

impl Local {
    /// The store at `root`, whether or not a repository is there.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), ..Self::default() }
    }

    /// As [`Local::new`], with all that is done to the file system written down.
    #[cfg(any(test, feature = "testing"))]
    pub fn recorded(root: impl Into<PathBuf>, journal: super::testing::Journal) -> Self {
        Self { disk: Disk { journal: Some(journal) }, ..Self::new(root) }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The directories that a put into `area` writes to: all that a caller needs who gives up its other rights.
    pub fn written_for(&self, area: Area) -> [PathBuf; 2] {
        [self.root.join(area.dir()), self.root.join(TMP)]
    }

    /// Makes the directories of a new repository, durably. The directory may be there if it is empty, or if it holds no
    /// more than an `init` that was cut off can have left: directories, and keys of a repository that never was.
    pub fn create_layout(&self) -> Result<()> {
        let fail = |e| self.error("create", "the repository directory", e);
        match self.is_free() {
            Ok(true) => {}
            Ok(false) => {
                let e = io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the directory is not empty");
                return Err(fail(e));
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => self.make_dirs(&self.root).map_err(fail)?,
            Err(e) => return Err(fail(e)),
        }
        for area in Area::ALL {
            self.disk.make_dir(&self.root.join(area.dir())).map_err(fail)?;
        }
        self.disk.make_dir(&self.root.join(TMP)).map_err(fail)?;
        self.disk.sync_dir(&self.root).map_err(fail)?;
        self.disk.sync_dir(above(&self.root)).map_err(fail)
    }

    /// True if nothing is in the way of a new repository.
    fn is_free(&self) -> io::Result<bool> {
        for entry in std::fs::read_dir(&self.root)? {
            let entry = entry?;
            let name = entry.file_name();
            let area = Area::ALL.into_iter().find(|a| name == a.dir());
            let free = match area {
                Some(Area::Keys) => true,
                Some(_) => !holds_files(&entry.path())?,
                None => name == TMP || name == RESERVE || name == "lost+found",
            };
            if !free {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes a directory and those above it. The entry of each new one above is synced, that of the last by the caller.
    fn make_dirs(&self, path: &Path) -> io::Result<()> {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
            self.make_dirs(parent)?;
            self.disk.sync_dir(above(parent))?;
        }
        self.disk.make_dir(path)
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.to_string())
    }

    /// The next flush syncs the directory of this name.
    fn touched(&self, path: &Path) {
        if let Some(dir) = path.parent() {
            self.dirty.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_owned());
        }
    }

    fn place(&self) -> String {
        self.root.display().to_string()
    }

    fn error(&self, verb: &'static str, object: impl ToString, e: io::Error) -> BackendError {
        BackendError::from_io(verb, object.to_string(), self.place(), e)
    }

    /// Syncs, if every sync before this one succeeded.
    fn unless_failed(&self, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let failed = self.failed.load(Ordering::SeqCst);
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        sync().inspect_err(|e| self.failed.store(e.raw_os_error().unwrap_or(EIO), Ordering::SeqCst))
    }

    fn write_temporary(&self, parts: &[&[u8]]) -> io::Result<PathBuf> {
        let n = self.counter.fetch_add(1, Ordering::Relaxed);
        if n == 0 {
            self.sweep_temporaries();
        }
        let mut tag = [0u8; 8];
        getrandom::fill(&mut tag).map_err(|e| io::Error::other(e.to_string()))?;
        let path =
            self.root.join(TMP).join(format!("{}-{n}-{:016x}", std::process::id(), u64::from_ne_bytes(tag)));
        let created = self.disk.create(&path, parts);
        if created.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) && self.lacks(TMP) {
            self.disk.make_dir(&self.root.join(TMP))?;
            self.disk.create(&path, parts)?;
            return Ok(path);
        }
        created.map(|()| path)
    }

    /// Removes what interrupted writers left behind, once per process. Failing costs space, nothing else.
    fn sweep_temporaries(&self) {
        let Ok(entries) = std::fs::read_dir(self.root.join(TMP)) else { return };
        for entry in entries.flatten() {
            let age = entry.metadata().and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
            if age.is_some_and(|age| age > TMP_AGE) {
                let _ = self.disk.unlink(&entry.path());
            }
        }
    }

    /// True if there is nothing of that name, not even a link that leads nowhere (to a disk that is not mounted).
    fn lacks(&self, dir: &str) -> bool {
        let there = std::fs::symlink_metadata(self.root.join(dir));
        there.is_err_and(|e| e.kind() == io::ErrorKind::NotFound) && self.root.is_dir()
    }

    fn list_dir(&self, area: Area) -> io::Result<Vec<(ObjectName, u64)>> {
        let mut out = Vec::new();
        let entries = match std::fs::read_dir(self.root.join(area.dir())) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.lacks(area.dir()) => return Ok(out),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(file) = entry.file_name().into_string() else { continue };
            let Some(name) = ObjectName::parse(&format!("{}/{file}", area.dir())) else { continue };
            match entry.metadata() {
                // No put made that: an object is a file, and no link to one.
                Ok(m) if !m.is_file() => {}
                Ok(m) => out.push((name, m.len())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        Ok(out)
    }
}

impl Backend for Local {
    fn describe(&self) -> Capabilities {
        Capabilities { place: self.place(), local: true, connections: 1 }
    }
    fn conditional_put(&self) -> Result<bool> {
        Ok(true)
    }

    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        let fail = |e| self.error("write", name, e);
        let path = self.path(name);
        let temporary = self.write_temporary(parts).map_err(fail)?;
        let mut linked = self.disk.link(&temporary, &path);
        if linked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::NotFound) && self.lacks(area(name)) {
            // A copy that was made object by object has no directories of areas in which nothing was.
            self.disk
                .make_dir(&self.root.join(area(name)))
                .and_then(|()| self.disk.sync_dir(&self.root))
                .map_err(fail)?;
            linked = self.disk.link(&temporary, &path);
        }
        // After an error of a network file system the link may exist nevertheless: two links prove it.
        let ours = linked.is_err() && std::fs::metadata(&temporary).is_ok_and(|m| links(&m) == 2);
        let _ = self.disk.unlink(&temporary);
        if linked.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::AlreadyExists) && !ours {
            return Ok(Put::Exists);
        }
        if !ours {
            linked.map_err(fail)?;
        }
        self.touched(&path);
        Ok(Put::Created)
    }

    fn flush(&self) -> Result<()> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let synced = self.unless_failed(|| dirty.iter().try_for_each(|dir| self.disk.sync_dir(dir)));
        synced.map_err(|e| self.error("sync", "directories", e))
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        let fail = |e| self.error("read", name, e);
        let file = open(&self.path(name)).map_err(fail)?;
        let size = file.metadata().map_err(fail)?.len();
        if size > limit {
            return Err(BackendError::TooLong { object: name.to_string(), place: self.place(), size, limit });
        }
        let len = usize::try_from(size).unwrap_or(usize::MAX);
        read_at(&file, 0, len).map_err(fail)
    }

    /// Drops the object's pages first; what was written is clean, so the kernel lets go of them.
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        if let Ok(file) = open(&self.path(name)) {
            let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        }
        self.get(name, limit)
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        let fail = |e| self.error("read", name, e);
        let file = open(&self.path(name)).map_err(fail)?;
        let (size, wanted) = (file.metadata().map_err(fail)?.len(), offset.saturating_add(len as u64));
        if wanted > size {
            return Err(BackendError::Short { object: name.to_string(), place: self.place(), wanted, size });
        }
        read_at(&file, offset, len).map_err(fail)
    }

    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.list_dir(area).map_err(|e| self.error("list", area.dir(), e))
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        use std::os::unix::fs::MetadataExt;
        match std::fs::metadata(self.path(name)) {
            Ok(m) => Ok(Some(Stat { size: m.len(), modified: m.mtime() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.error("stat", name, e)),
        }
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let path = self.path(name);
        match self.disk.unlink(&path) {
            Ok(()) => self.touched(&path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(self.error("delete", name, e)),
        }
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        self.flush()?;
        let synced = self.unless_failed(|| self.disk.sync_all(&self.root));
        synced.map_err(|e| self.error("sync", "the file system", e))
    }

    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        let fail = |e| self.error("write", name, e);
        let (path, temporary) = (self.path(name), self.write_temporary(parts).map_err(fail)?);
        let renamed = keep_owner(&path, &temporary)
            .and_then(|()| self.disk.rename(&temporary, &path))
            .and_then(|()| path.parent().map_or(Ok(()), |dir| self.disk.sync_dir(dir)));
        if renamed.is_err() {
            let _ = self.disk.unlink(&temporary);
        }
        renamed.map_err(fail)
    }

    /// A file of random bytes, because a file system that compresses would keep nothing of zeros.
    fn reserve(&self, bytes: u64) -> Result<()> {
        let path = self.root.join(RESERVE);
        let fail = |e| self.error("write", RESERVE, e);
        let kept = std::fs::metadata(&path).map_or(0, |m| m.len());
        if kept == bytes {
            return Ok(());
        }
        if kept > bytes {
            // First, as there may be no room for another one. Somebody else may have done so.
            match self.disk.unlink(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(fail(e)),
                _ => {}
            }
        }
        if bytes == 0 {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
        getrandom::fill(&mut bytes).map_err(|e| fail(io::Error::other(e.to_string())))?;
        let temporary = self.write_temporary(&[&bytes]).map_err(fail)?;
        let renamed =
            self.disk.rename(&temporary, &path).and_then(|()| self.disk.sync_dir(&self.root)).map_err(fail);
        if renamed.is_err() {
            let _ = self.disk.unlink(&temporary);
        }
        renamed
    }
}

/// Gives `new` the owner of `old`: root may heal what others must be able to read afterwards.
fn keep_owner(old: &Path, new: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    let was = match std::fs::symlink_metadata(old) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let is = std::fs::symlink_metadata(new)?;
    if (was.uid(), was.gid()) == (is.uid(), is.gid()) {
        return Ok(());
    }
    std::os::unix::fs::chown(new, Some(was.uid()), Some(was.gid()))
}

fn area(name: &ObjectName) -> &'static str {
    name.area().dir()
}

/// True if anything but directories is in `path`, or in one of those.
fn holds_files(path: &Path) -> io::Result<bool> {
    if !std::fs::symlink_metadata(path)?.is_dir() {
        return Ok(true);
    }
    for entry in std::fs::read_dir(path)? {
        if holds_files(&entry?.path())? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn links(m: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(m)
}

fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out = vec![0; len];
    file.read_exact_at(&mut out, offset)?;
    Ok(out)
}

/// The directory in which a path is a name.
fn above(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::{PackName, RunId, SlotId};
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    #[test]
    fn old_temporaries_go_with_the_first_put_and_young_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        Local::new(&root).create_layout().unwrap();
        for (name, hours) in [("old", 25), ("young", 1)] {
            let file = File::create(root.join(TMP).join(name)).unwrap();
            let then = SystemTime::now() - std::time::Duration::from_secs(hours * 3600);
            file.set_times(FileTimes::new().set_modified(then)).unwrap();
        }
        let store = Local::new(&root);
        store.put(&ObjectName::Verdict(RunId::new([1; 16])), &[b"x"]).unwrap();
        assert!(!root.join(TMP).join("old").exists() && root.join(TMP).join("young").exists());
    }

    #[test]
    fn a_name_is_written_once_whole_private_and_listed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Local::new(dir.path().join("new/repository"));
        store.create_layout().unwrap();
        let name = ObjectName::Pack(PackName::new([0xab; 32]));
        assert_eq!(store.put(&name, &[b"one", b"two"]).unwrap(), Put::Created);
        assert_eq!(store.put(&name, &[b"other"]).unwrap(), Put::Exists);
        store.flush().unwrap();
        assert_eq!(store.get(&name, 100).unwrap(), b"onetwo");
        assert_eq!(store.get_range(&name, 3, 3).unwrap(), b"two");
        assert!(matches!(store.get_range(&name, 3, 4), Err(BackendError::Short { size: 6, .. })));
        assert!(store.get(&name, 5).is_err(), "larger than allowed");
        assert_eq!(store.list(Area::Packs).unwrap(), [(name, 6)]);
        store.heal(&name, &[b"healed"]).unwrap();
        assert_eq!(store.get(&name, 100).unwrap(), b"healed");
        assert_eq!(store.stat(&name).unwrap().unwrap().size, 6);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(store.path(&name), Some(1234), Some(1235)).unwrap();
            store.heal(&name, &[b"healed"]).unwrap();
            let m = std::fs::metadata(store.path(&name)).unwrap();
            assert_eq!(std::os::unix::fs::MetadataExt::uid(&m), 1234, "root heals what belongs to others");
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(store.path(&name)).unwrap().permissions(),
        );
        assert_eq!(mode & 0o777, 0o400);
        assert!(store.create_layout().is_err(), "not empty any more");
        store.delete(&name).unwrap();
        store.delete(&name).unwrap();
        assert_eq!(store.stat(&name).unwrap(), None);
    }

    #[test]
    fn a_reserve_is_as_large_as_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let store = Local::new(dir.path().join("repository"));
        store.create_layout().unwrap();
        let len = || std::fs::metadata(store.root().join(RESERVE)).map(|m| m.len()).ok();
        for asked in [0, 10, 10, 5, 20, 0, 0] {
            store.reserve(asked).unwrap();
            assert_eq!(len().unwrap_or(0), asked);
        }
        assert_eq!(std::fs::read_dir(store.root().join(TMP)).unwrap().count(), 0);
    }

    #[test]
    fn a_layout_is_made_over_what_an_init_that_was_cut_off_has_left_and_over_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        let store = Local::new(&root);
        store.create_layout().unwrap();
        store.reserve(1).unwrap();
        store.put(&ObjectName::Slot(SlotId::new([1; 16])), &[b"x"]).unwrap();
        std::fs::remove_dir(root.join("config")).unwrap();
        std::fs::remove_dir(root.join("packs")).unwrap();
        std::fs::write(root.join("tmp/left"), b"x").unwrap();
        store.create_layout().unwrap();
        for name in ["notes", "config/00000000", "packs/notes"] {
            std::fs::write(root.join(name), b"x").unwrap();
            let text = store.create_layout().unwrap_err().to_string();
            assert!(text.contains("not empty"), "{text}");
            std::fs::remove_file(root.join(name)).unwrap();
        }
        store.create_layout().unwrap();
    }

    #[test]
    fn a_copy_without_the_directories_of_empty_areas_is_a_repository_and_a_disk_that_is_not_mounted_is_none()
    {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        std::fs::create_dir(&root).unwrap();
        let (store, name) = (Local::new(&root), ObjectName::Hold(RunId::new([1; 16])));
        assert!(store.list(Area::Holds).unwrap().is_empty());
        assert_eq!(store.put(&name, &[b"x"]).unwrap(), Put::Created);
        assert_eq!(store.list(Area::Holds).unwrap(), [(name, 1)]);
        std::os::unix::fs::symlink("/nowhere", root.join("packs")).unwrap();
        assert!(store.list(Area::Packs).is_err());
        assert!(store.put(&ObjectName::Pack(PackName::new([1; 32])), &[b"x"]).is_err());
        assert!(Local::new(dir.path().join("absent")).list(Area::Holds).is_err());
    }

    #[test]
    fn a_delete_is_durable_after_the_next_flush() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        Local::new(&root).create_layout().unwrap();
        let name = ObjectName::Hold(RunId::new([1; 16]));
        Local::new(&root).put(&name, &[b"x"]).unwrap();
        let store = Local::new(&root);
        store.delete(&name).unwrap();
        // A flush that syncs the directory of the name meets that it is gone; one that does not is content.
        std::fs::rename(root.join("locks"), root.join("away")).unwrap();
        assert!(store.flush().is_err());
        let absent = Local::new(&root);
        absent.delete(&name).unwrap();
        assert!(absent.flush().is_ok(), "nothing was changed");
    }

    #[test]
    fn a_sync_that_failed_fails_for_good() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        let store = Local::new(&root);
        store.create_layout().unwrap();
        let name = ObjectName::Verdict(RunId::new([1; 16]));
        store.put(&name, &[b"x"]).unwrap();
        std::fs::rename(root.join("snap"), root.join("away")).unwrap();
        assert!(store.flush().is_err());
        std::fs::rename(root.join("away"), root.join("snap")).unwrap();
        assert!(store.flush().is_err() && store.settle().is_err(), "the kernel would say that all is well");
        assert!(Local::new(&root).settle().is_ok(), "another process may look again");
    }

    #[test]
    fn of_many_writers_of_one_name_exactly_one_creates_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repository");
        Local::new(&root).create_layout().unwrap();
        let name = ObjectName::Verdict(RunId::new([3; 16]));
        let won: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|n| {
                    let store = Local::new(&root);
                    scope.spawn(move || store.put(&name, &[&[n; 1000]]).unwrap() == Put::Created)
                })
                .collect();
            writers.into_iter().map(|w| usize::from(w.join().unwrap())).sum()
        });
        assert_eq!(won, 1);
    }
}
