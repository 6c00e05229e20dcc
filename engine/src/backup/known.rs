//! Which chunks need not be stored: those of the index, and those this run has stored already.
//!
//! Kept true: a chunk is claimed by exactly one worker; a chunk taken from the index puts its pack on the list that
//! is announced and verified before the commit (SPEC 14), unless the pinned parent vouches for it. Memory holds chunks of
//! this run only until their index run is stored ([`Known::settle`]).

use super::gaps::Gaps;
use super::settled::Settled;
use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::index::{Index, PackRef, Place};
use crate::repository::run::ForeignPack;
use bulla_repo_format::index::record_key;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::ChunkRef;
use bulla_repo_format::{ChunkId, IndexName, PackName};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
type Key = [u8; bulla_repo_format::index::KEY_LEN];

/// The dedup set of one run.
pub struct Known<'r> {
    index: &'r Index,
    /// Packs nothing may be taken from: condemned, or found missing.
    excluded: HashSet<PackName>,
    gaps: Gaps,
    /// Set when metadata of the parent was found damaged: then nodes are taken from nowhere but what was read.
    distrusted: AtomicBool,
    /// Chunks of this run, until they are settled.
    fresh: Vec<Mutex<HashSet<Key>>>,
    settled: Settled,
    foreign: Mutex<HashSet<PackRef>>,
    /// Nodes of the pinned parent's tree that were read: they are safe without a pack check.
    vouched: Mutex<HashSet<ChunkId>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'r> Known<'r> {
    /// What the index knows, packs in `excluded` and lost ones left out.
    pub fn new(index: &'r Index, mut excluded: HashSet<PackName>, gaps: Gaps) -> Self {
        excluded.extend(&gaps.lost);
        let fresh = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            index,
            excluded,
            gaps,
            distrusted: AtomicBool::new(false),
            fresh,
            settled: Settled::default(),
            foreign: Mutex::default(),
            vouched: Mutex::default(),
        }
    }

    /// The index it looks into.
    pub fn index(&self) -> &'r Index {
        self.index
    }

    /// Metadata that should be readable is not: what is not vouched for is stored again.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    /// True when the store may have lost chunks of the parent.
    pub fn doubtful(&self) -> bool {
        self.gaps.any || self.distrusted.load(Ordering::Relaxed)
    }

    /// True if a data chunk of the pinned parent can be found in a pack that is there.
    pub fn has(&self, chunk: &ChunkRef, scratch: &mut Vec<Place>) -> Result<bool> {
        self.index.places(&chunk.id, scratch)?;
        for place in scratch.iter().filter(|p| p.len == chunk.len) {
            let pack = self.index.pack(place.pack)?;
            if pack.header.kind == PackKind::Data && !self.gaps.lost.contains(&pack.name) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes chunks of a run that never committed, all or none: their packs are verified before the commit.
    pub fn rely(&self, chunks: &[ChunkRef], scratch: &mut Vec<Place>) -> Result<bool> {
        for chunk in chunks {
            self.index.places(&chunk.id, scratch)?;
            let mut usable = false;
            for place in scratch.iter().filter(|p| p.len == chunk.len) {
                let pack = self.index.pack(place.pack)?;
                usable |= pack.header.kind == PackKind::Data && !self.excluded.contains(&pack.name);
            }
            if !usable {
                return Ok(false);
            }
        }
        for chunk in chunks {
            // What is claimed counts as there for everybody; were it lost meanwhile, the commit would not happen.
            if self.claim(&chunk.id, chunk.len, scratch)? {
                let key = record_key(&chunk.id);
                lock(self.shard(&key)?).remove(&key);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Nodes of the parent's tree the walk has passed.
    pub fn vouch(&self, nodes: Vec<ChunkId>) {
        if !nodes.is_empty() {
            lock(&self.vouched).extend(nodes);
        }
    }

    /// True when the caller must store the chunk; nobody else will be told so.
    pub fn claim(&self, id: &ChunkId, len: u32, scratch: &mut Vec<Place>) -> Result<bool> {
        let key = record_key(id);
        let shard = self.shard(&key)?;
        if !lock(shard).insert(key) {
            return Ok(false);
        }
        let found = match self.settled.has(&key) {
            Ok(false) => self.is_elsewhere(id, len, scratch),
            other => other,
        };
        if !matches!(found, Ok(false)) {
            // It will be found there again, and who asks meanwhile is told the same. Or it was not to be seen, and is not
            // claimed: whoever reads its file again must be told to store it.
            lock(shard).remove(&key);
        }
        found.map(|found| !found)
    }

    /// True if the index has the chunk; its pack is relied on then.
    fn is_elsewhere(&self, id: &ChunkId, len: u32, scratch: &mut Vec<Place>) -> Result<bool> {
        self.index.places(id, scratch)?;
        for place in scratch.iter().filter(|p| p.len == len) {
            if self.excluded.is_empty() || !self.excluded.contains(&self.index.pack_name(place.pack)?) {
                lock(&self.foreign).insert(place.pack);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn shard(&self, key: &Key) -> Result<&Mutex<HashSet<Key>>> {
        let [first, ..] = *key;
        self.fresh.get(usize::from(first) % SHARDS).ok_or(Error::Interrupted)
    }

    /// An index run of this run is stored: its chunks need not be kept in memory, if they can be looked up on this machine.
    pub fn settle(&self, repository: &Repository, name: &IndexName) {
        let Some(run) = self.index.own(repository, name) else { return };
        // Found there first, forgotten here then: between the two, nobody is told to store it again.
        self.settled.add(run, |key| {
            if let Ok(shard) = self.shard(key) {
                lock(shard).remove(key);
            }
        });
    }

    /// As [`Known::claim`], for tree nodes, which the parent's tree may vouch for.
    pub fn claim_node(&self, id: &ChunkId, len: u32, scratch: &mut Vec<Place>) -> Result<bool> {
        if lock(&self.vouched).contains(id) && self.is_safe(id, scratch)? {
            return Ok(false);
        }
        if self.distrusted.load(Ordering::Relaxed) {
            lock(&self.vouched).insert(*id);
            return Ok(true);
        }
        self.claim(id, len, scratch)
    }

    /// True if some place of a node that was read is in a pack that counts: one read by luck is stored again.
    pub fn is_safe(&self, id: &ChunkId, scratch: &mut Vec<Place>) -> Result<bool> {
        if self.gaps.lost.is_empty() {
            return Ok(true);
        }
        self.index.places(id, scratch)?;
        for place in scratch.iter() {
            if !self.gaps.lost.contains(&self.index.pack_name(place.pack)?) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Packs of others this run relies on.
    pub fn foreign_packs(&self) -> Result<Vec<ForeignPack>> {
        let mut out = Vec::new();
        for pack in lock(&self.foreign).iter() {
            let pack = self.index.pack(*pack)?;
            out.push(ForeignPack { name: pack.name, kind: pack.header.kind, size: pack.size });
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use crate::env::Env;
    use crate::repository::index::IndexWriter;
    use crate::repository::{InitOptions, SlotSecret};
    use bulla_repo_format::RunId;
    use bulla_repo_format::index::IndexPack;
    use bulla_repo_format::keys::Secret;
    use bulla_repo_format::pack::{FrameEntry, PackHeader};
    use std::path::Path;
    use std::sync::Arc;

    fn id(n: u32) -> ChunkId {
        ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    fn repository(cache: Option<&Path>) -> Repository {
        let secret = SlotSecret::Key(Secret::new([7; 32]));
        let mut env = Env::system("test", "test");
        env.cache = cache.map(Path::to_path_buf);
        Repository::init(Arc::new(Memory::new()), &InitOptions::default(), &secret, env).unwrap().repository
    }

    /// Puts an index run that lists some chunks of 7 bytes in one pack.
    fn put(repository: &Repository, chunks: std::ops::Range<u32>) -> IndexName {
        let (header, _) =
            PackHeader::create(PackKind::Data, repository.keyring(), &repository.id(), [1; 32]).unwrap();
        let (name, run) = (PackName::new(*id(chunks.start).as_bytes()), RunId::new([1; 16]));
        let frames = vec![FrameEntry { sealed: 300, raw: 1 << 20 }];
        let pack = IndexPack { name, size: 4096, run, signer: repository.client().id(), header, frames };
        let mut writer = IndexWriter::new(repository);
        writer.add(pack, chunks.map(|n| (record_key(&id(n)), n * 7, 7)).collect()).unwrap();
        writer.flush().unwrap();
        writer.take_put()[0]
    }

    fn claimed(known: &Known<'_>, chunks: std::ops::Range<u32>) -> usize {
        let mut places = Vec::new();
        chunks.filter(|n| known.claim(&id(*n), 7, &mut places).unwrap()).count()
    }

    fn in_memory(known: &Known<'_>) -> usize {
        known.fresh.iter().map(|shard| lock(shard).len()).sum()
    }

    #[test]
    fn what_is_settled_is_known_and_not_in_memory() {
        let cache = tempfile::tempdir().unwrap();
        for (cached, left) in [(true, 100), (false, 1100)] {
            let repository = repository(cached.then_some(cache.path()));
            let index = repository.open_index().unwrap();
            let known = Known::new(&index, HashSet::new(), Gaps::default());
            assert_eq!(claimed(&known, 0..1100), 1100);
            known.settle(&repository, &put(&repository, 0..1000));
            assert_eq!(in_memory(&known), left, "without a cache there is no other place");
            assert_eq!(claimed(&known, 0..1200), 100, "those that were never claimed");
            assert_eq!(in_memory(&known), left + 100);
            assert_eq!(known.foreign_packs().unwrap(), [], "its own packs need no announcement");
        }
    }

    #[test]
    fn what_is_found_elsewhere_is_relied_on_and_not_kept() {
        let repository = repository(None);
        put(&repository, 0..1000);
        let index = repository.open_index().unwrap();
        let known = Known::new(&index, HashSet::new(), Gaps::default());
        assert_eq!((claimed(&known, 500..1500), claimed(&known, 0..1500)), (500, 0));
        assert_eq!((in_memory(&known), known.foreign_packs().unwrap().len()), (500, 1));
    }

    /// Claims beside a run being settled: each chunk is claimed once.
    #[test]
    fn a_chunk_that_is_being_settled_is_claimed_by_nobody() {
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(Some(cache.path()));
        let index = repository.open_index().unwrap();
        let known = Known::new(&index, HashSet::new(), Gaps::default());
        assert_eq!(claimed(&known, 0..20_000), 20_000);
        let names: Vec<_> = (0..20).map(|n| put(&repository, n * 1000..(n + 1) * 1000)).collect();
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..2).map(|_| scope.spawn(|| claimed(&known, 0..20_000))).collect();
            names.iter().for_each(|name| known.settle(&repository, name));
            others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), 0));
        });
        assert_eq!((in_memory(&known), claimed(&known, 0..20_000)), (0, 0));
    }
    /// Of a chunk that could not be looked up nobody knows whether it is stored.
    #[test]
    fn a_chunk_whose_look_up_failed_is_not_claimed() {
        use std::os::unix::fs::FileExt as _;
        let cache = tempfile::tempdir().unwrap();
        let repository = repository(Some(cache.path()));
        let name = put(&repository, 0..20_000);
        let index = repository.open_index().unwrap();
        let known = Known::new(&index, HashSet::new(), Gaps::default());
        // Records begin after the pack's details: what has been looked at by now is the first page.
        let file = cache.path().join(repository.id().to_string()).join("index").join(name.to_string());
        let file = std::fs::File::options().write(true).open(file).unwrap();
        (64 << 10..600 << 10).step_by(4096).for_each(|at| file.write_all_at(&[0x55; 4096], at).unwrap());
        let mut places = Vec::new();
        let last = (0..20_000).map(id).max_by_key(record_key).unwrap();
        assert!(known.claim(&last, 7, &mut places).unwrap_err().is_damage());
        assert!(known.claim(&last, 7, &mut places).unwrap_err().is_damage(), "not: another has claimed it");
        assert_eq!(in_memory(&known), 0);
    }
}
