//! Which chunks need not be stored: those of the index, and those this run has stored already.
//!
//! Kept true: a chunk is claimed by exactly one worker; a chunk taken from the index puts its pack on the list that
//! is announced and verified before the commit (SPEC 14), unless the pinned parent vouches for it.

use crate::error::{Error, Result};
use crate::repository::index::{Index, PackRef, Place};
use bulla_repo_format::index::record_key;
use bulla_repo_format::{ChunkId, PackName};
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SHARDS: usize = 64;
type Key = [u8; bulla_repo_format::index::KEY_LEN];

/// The dedup set of one run.
pub struct Known<'r> {
    index: &'r Index,
    /// Packs nothing may be taken from: condemned, or found missing.
    excluded: HashSet<PackName>,
    fresh: Vec<Mutex<HashSet<Key>>>,
    foreign: Mutex<HashSet<PackRef>>,
    /// Nodes of the pinned parent's tree that were read: they are safe without a pack check.
    vouched: Mutex<HashSet<ChunkId>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'r> Known<'r> {
    /// What the index knows, packs in `excluded` left out.
    pub fn new(index: &'r Index, excluded: HashSet<PackName>) -> Self {
        let fresh = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { index, excluded, fresh, foreign: Mutex::default(), vouched: Mutex::default() }
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
        let [first, ..] = key;
        let shard = self.fresh.get(usize::from(first) % SHARDS).ok_or(Error::Interrupted)?;
        if !lock(shard).insert(key) {
            return Ok(false);
        }
        self.index.places(id, scratch)?;
        for place in scratch.iter().filter(|p| p.len == len) {
            if self.excluded.is_empty() || !self.excluded.contains(&self.index.pack_name(place.pack)?) {
                lock(&self.foreign).insert(place.pack);
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As [`Known::claim`], for tree nodes, which the parent's tree may vouch for.
    pub fn claim_node(&self, id: &ChunkId, len: u32, scratch: &mut Vec<Place>) -> Result<bool> {
        if lock(&self.vouched).contains(id) {
            return Ok(false);
        }
        self.claim(id, len, scratch)
    }

    /// Packs of others this run relies on: name, and whether it is a metadata pack.
    pub fn foreign_packs(&self) -> Result<Vec<(PackName, bool)>> {
        use bulla_repo_format::pack::PackKind;
        let mut out = Vec::new();
        for pack in lock(&self.foreign).iter() {
            let pack = self.index.pack(*pack)?;
            out.push((pack.name, pack.header.kind == PackKind::Meta));
        }
        out.sort_unstable();
        out.dedup();
        Ok(out)
    }
}
