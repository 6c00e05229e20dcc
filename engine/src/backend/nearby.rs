//! A store at a distance with copies of its metadata on this machine, so that trees are walked and snapshots are listed
//! without a request for each.
//!
//! Kept true: what is asked whether it is there is asked of the store. A copy is used only of an object that a listing has
//! shown, or of a tree pack, whose bytes are its name; each is checked against a hash before its first use, and one that is
//! damaged goes and is fetched again. A copy holds what the store holds, sealed. A cache that cannot be written costs
//! time, never correctness.

use super::{Backend, BackendError, Capabilities, Put, Result, Retention, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Copies open at once.
const OPEN: usize = 128;
/// No copy is made of a tree pack above this: it lies in memory when it is fetched, and a store may lie about its size.
const COPIED: u64 = 64 << 20;
/// The hash behind the bytes of a copy.
const HASH: usize = 32;

/// A store, and copies of what it holds.
pub struct Nearby {
    inner: Arc<dyn Backend>,
    dir: PathBuf,
    /// Of these areas copies are kept.
    areas: &'static [Area],
    /// Tree packs whose copies were found whole.
    whole: Mutex<HashMap<ObjectName, Arc<File>>>,
    /// Areas whose copies were compared with a listing.
    swept: Mutex<HashSet<Area>>,
    counter: AtomicU64,
}

/// What is worth a copy: read again by every verb, and small. Marks, announcements and deaths come and go.
const KEPT: [Area; 6] = [Area::Meta, Area::Verdicts, Area::Forgets, Area::Keys, Area::Clients, Area::Records];

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Nearby {
    /// `inner`, with copies below `dir`.
    pub fn new(inner: Arc<dyn Backend>, dir: impl Into<PathBuf>) -> Self {
        let (whole, swept) = (Mutex::default(), Mutex::default());
        Self { inner, dir: dir.into(), areas: &KEPT, whole, swept, counter: AtomicU64::new(0) }
    }

    /// The same of the ledger alone: all else is asked of the store.
    pub fn of_ledger(inner: Arc<dyn Backend>, dir: impl Into<PathBuf>) -> Self {
        Self { areas: &[Area::Records], ..Self::new(inner, dir) }
    }

    fn keeps(&self, area: Area) -> bool {
        self.areas.contains(&area)
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.dir.join(name.to_string())
    }

    /// Writes a copy, whole or not at all.
    fn keep(&self, name: &ObjectName, parts: &[&[u8]]) -> io::Result<()> {
        let path = self.path(name);
        let Some(dir) = path.parent() else { return Ok(()) };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let temporary = dir.join(format!(".{}-{number}", std::process::id()));
        let file = File::options().write(true).create_new(true).mode(0o600).open(&temporary)?;
        let mut hash = blake3::Hasher::new();
        let mut at = 0;
        let written = parts.iter().try_for_each(|part| {
            hash.update(part);
            file.write_all_at(part, at)?;
            at += part.len() as u64;
            Ok(())
        });
        written
            .and_then(|()| file.write_all_at(hash.finalize().as_bytes(), at))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .inspect_err(|_| drop(std::fs::remove_file(&temporary)))
    }

    /// The bytes of a copy that is whole.
    fn copy(&self, name: &ObjectName) -> Option<Vec<u8>> {
        let path = self.path(name);
        let mut bytes = std::fs::read(&path).ok()?;
        let whole = bytes
            .split_last_chunk::<HASH>()
            .is_some_and(|(bytes, hash)| blake3::hash(bytes).as_bytes() == hash);
        if !whole {
            let _ = std::fs::remove_file(&path);
            return None;
        }
        bytes.truncate(bytes.len() - HASH);
        Some(bytes)
    }

    /// The copy of a tree pack, made if there is none; `None` if it cannot be made.
    fn pack(&self, name: &ObjectName) -> Result<Option<Arc<File>>> {
        if let Some(file) = lock(&self.whole).get(name) {
            return Ok(Some(file.clone()));
        }
        if self.copy(name).is_none() {
            let bytes = match self.inner.get(name, COPIED) {
                Err(BackendError::TooLong { .. }) => return Ok(None),
                other => other?,
            };
            if self.keep(name, &[&bytes]).is_err() {
                return Ok(None);
            }
        }
        let Ok(file) = File::open(self.path(name)) else { return Ok(None) };
        let file = Arc::new(file);
        let mut whole = lock(&self.whole);
        if whole.len() >= OPEN {
            whole.clear();
        }
        whole.insert(*name, file.clone());
        Ok(Some(file))
    }

    fn forget(&self, name: &ObjectName) {
        if self.keeps(name.area()) {
            lock(&self.whole).remove(name);
            let _ = std::fs::remove_file(self.path(name));
        }
    }

    /// Removes copies of what the store has no more, once.
    pub(crate) fn sweep(&self, area: Area, listed: &[(ObjectName, u64)]) {
        if !self.keeps(area) || !lock(&self.swept).insert(area) {
            return;
        }
        let Ok(entries) = std::fs::read_dir(self.dir.join(area.dir())) else { return };
        let there: HashSet<ObjectName> = listed.iter().map(|(name, _)| *name).collect();
        for entry in entries.flatten() {
            let name = entry.file_name().to_str().map(|n| format!("{}/{n}", area.dir()));
            let known = name.and_then(|n| ObjectName::parse(&n)).is_some_and(|n| there.contains(&n));
            // A temporary file of another process goes with it, which then keeps no copy.
            if !known {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// `len` bytes of a copy, whose last bytes are its hash.
fn range(file: &File, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let size = file.metadata()?.len().saturating_sub(HASH as u64);
    if offset.saturating_add(len as u64) > size {
        let text = format!("{} has {size} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    let mut out = vec![0; len];
    file.read_exact_at(&mut out, offset)?;
    Ok(out)
}

impl Backend for Nearby {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.inner.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        let put = self.inner.put(name, parts)?;
        if put == Put::Created && self.keeps(name.area()) {
            let _ = self.keep(name, parts);
        }
        Ok(put)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.inner.get(name, limit)
    }
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.inner.get_stored(name, limit)
    }
    fn get_listed(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        if !self.keeps(name.area()) {
            return self.inner.get_listed(name, limit);
        }
        if let Some(bytes) = self.copy(name).filter(|b| b.len() as u64 <= limit) {
            return Ok(bytes);
        }
        let bytes = self.inner.get(name, limit)?;
        let _ = self.keep(name, &[&bytes]);
        Ok(bytes)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        if name.area() == Area::Meta
            && self.keeps(Area::Meta)
            && let Some(file) = self.pack(name)?
            && let Ok(bytes) = range(&file, &self.path(name), offset, len)
        {
            return Ok(bytes);
        }
        self.inner.get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        let listed = self.inner.list(area)?;
        self.sweep(area, &listed);
        Ok(listed)
    }
    fn list_many(&self, areas: &[Area]) -> Result<Vec<Vec<(ObjectName, u64)>>> {
        let all = self.inner.list_many(areas)?;
        areas.iter().zip(&all).for_each(|(area, listed)| self.sweep(*area, listed));
        Ok(all)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)?;
        self.forget(name);
        Ok(())
    }
    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.forget(name);
        self.inner.heal(name, parts)
    }
    fn locks_objects(&self) -> Result<bool> {
        self.inner.locks_objects()
    }
    fn retain(&self, name: &ObjectName, retention: Retention) -> Result<()> {
        self.inner.retain(name, retention)
    }
    fn reserve(&self, bytes: u64) -> Result<()> {
        self.inner.reserve(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use bulla_repo_format::{PackName, RunId};

    fn new(memory: &Arc<Memory>, dir: &Path) -> Nearby {
        Nearby::new(memory.clone(), dir)
    }

    #[test]
    fn copies_answer_for_what_a_listing_showed_and_never_for_what_is_gone() {
        let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
        let name = ObjectName::Verdict(RunId::new([1; 16]));
        new(&memory, dir.path()).put(&name, &[b"ver", b"dict"]).unwrap();
        let store = new(&memory, dir.path());
        memory.overwrite(name, Some(b"another".to_vec()));
        assert_eq!(store.get_listed(&name, 99).unwrap(), b"verdict", "from the copy");
        assert_eq!(store.get(&name, 99).unwrap(), b"another", "from the store");
        assert_eq!(store.get_stored(&name, 99).unwrap(), b"another");
        memory.overwrite(name, None);
        assert!(matches!(store.get(&name, 99), Err(BackendError::NotFound { .. })));
        assert!(store.list(Area::Verdicts).unwrap().is_empty());
        assert!(!store.path(&name).exists(), "a listing without it removes the copy");
        assert!(matches!(store.get_listed(&name, 99), Err(BackendError::NotFound { .. })));
    }

    #[test]
    fn a_tree_pack_is_fetched_once_and_a_damaged_copy_again() {
        let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
        let name = ObjectName::Meta(PackName::new([1; 32]));
        memory.put(&name, &[b"0123456789"]).unwrap();
        assert_eq!(new(&memory, dir.path()).get_range(&name, 2, 3).unwrap(), b"234");
        memory.overwrite(name, None);
        let store = new(&memory, dir.path());
        assert_eq!(store.get_range(&name, 4, 6).unwrap(), b"456789", "without the store");
        assert!(store.get_range(&name, 4, 7).is_err(), "the hash behind the bytes is none of them");
        let mut copy = std::fs::read(store.path(&name)).unwrap();
        copy[3] ^= 1;
        std::fs::write(store.path(&name), copy).unwrap();
        memory.put(&name, &[b"0123456789"]).unwrap();
        assert_eq!(new(&memory, dir.path()).get_range(&name, 2, 3).unwrap(), b"234", "fetched again");
        store.delete(&name).unwrap();
        assert!(!store.path(&name).exists());
    }

    #[test]
    fn of_a_pack_that_is_too_large_parts_are_read_and_no_copy_is_made() {
        let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
        let name = ObjectName::Meta(PackName::new([1; 32]));
        memory.put(&name, &[&vec![7; usize::try_from(COPIED).unwrap() + 1]]).unwrap();
        let store = new(&memory, dir.path());
        assert_eq!(store.get_range(&name, COPIED - 1, 2).unwrap(), [7, 7]);
        assert!(!store.path(&name).exists());
    }

    #[test]
    fn content_is_not_kept_and_a_cache_that_cannot_be_written_costs_nothing_but_time() {
        let (memory, dir) = (Arc::new(Memory::new()), tempfile::tempdir().unwrap());
        let (data, meta) =
            (ObjectName::Pack(PackName::new([1; 32])), ObjectName::Meta(PackName::new([1; 32])));
        let store = new(&memory, dir.path());
        store.put(&data, &[b"data"]).unwrap();
        assert_eq!(store.get_range(&data, 1, 2).unwrap(), b"at");
        assert!(std::fs::read_dir(dir.path()).unwrap().next().is_none());
        let file = dir.path().join("a file");
        std::fs::write(&file, b"").unwrap();
        let store = new(&memory, &file);
        store.put(&meta, &[b"meta"]).unwrap();
        assert_eq!(store.get_range(&meta, 1, 2).unwrap(), b"et");
        assert_eq!(store.get_listed(&meta, 9).unwrap(), b"meta");
    }
}
