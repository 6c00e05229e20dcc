//! Which chunks need not be stored: those of the index, and those this run has stored already.
//!
//! Kept true: a chunk is claimed by exactly one worker; a chunk taken from the index puts its pack on the list that
//! is announced and verified before the commit (SPEC 14), unless the pinned parent vouches for it.

use super::gaps::Gaps;
use crate::error::{Error, Result};
use crate::repository::index::{Index, PackRef, Place};
use crate::repository::run::ForeignPack;
use bulla_repo_format::index::record_key;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::ChunkRef;
use bulla_repo_format::{ChunkId, PackName};
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
    fresh: Vec<Mutex<HashSet<Key>>>,
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
            self.claim(&chunk.id, chunk.len, scratch)?;
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
