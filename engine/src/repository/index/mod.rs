//! The index as a reader and a writer see it: where a chunk lies, and whether it is stored.
//!
//! Runs are looked up, never loaded: each is a memory-mapped cache file ([`segment`]) searched by interpolation.
//! An unreadable run is skipped with its error kept; its packs can be found again from their tails.

pub mod segment;
mod write;

pub use write::IndexWriter;

use super::Repository;
use crate::error::{Error, Result};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::index::{IndexPack, IndexRun, KEY_LEN, record_key};
use bulla_repo_format::{Area, ChunkId, IndexName, ObjectName, PackName};
use segment::Segment;
use std::collections::HashSet;
use std::sync::Arc;

/// Where a chunk lies.
#[derive(Debug, Clone)]
pub struct Location {
    /// The pack.
    pub pack: Arc<IndexPack>,
    /// Offset in the pack's plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
}

/// Names a pack within one opened index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRef {
    segment: u32,
    pack: u32,
}

/// A record without its pack's details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The pack.
    pub pack: PackRef,
    /// Offset in its plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
}

/// All index runs of a repository, as they were when it was opened.
pub struct Index {
    segments: Vec<Segment>,
    graves: HashSet<PackName>,
    failed: Vec<Error>,
}

impl Repository {
    /// Opens the index: fetches runs that are not cached, maps the rest.
    pub fn open_index(&self) -> Result<Index> {
        let mut names: Vec<IndexName> = self
            .backend()
            .list(Area::Index)?
            .into_iter()
            .filter_map(|(name, _)| if let ObjectName::Index(n) = name { Some(n) } else { None })
            .collect();
        names.sort_unstable();
        let mut index = Index { segments: Vec::new(), graves: HashSet::new(), failed: Vec::new() };
        for name in &names {
            match segment::open(self, name) {
                Ok(segment) => {
                    index.graves.extend(segment.graves().iter().copied());
                    index.segments.push(segment);
                }
                Err(e) if e.is_damage() => index.failed.push(e),
                Err(e) => return Err(e),
            }
        }
        segment::remove_stale(self, &names);
        Ok(index)
    }

    /// Fetches one run from the store and checks everything about it.
    pub(crate) fn fetch_index_run(&self, name: &IndexName) -> Result<IndexRun> {
        let object = ObjectName::Index(*name);
        let bytes = self.backend().get(&object, bulla_repo_format::limits::INDEX_MAX)?;
        if *blake3::hash(&bytes).as_bytes() != name.hash {
            let reason = "its bytes do not hash to its name".to_owned();
            return Err(Error::Damaged { what: object.to_string(), reason });
        }
        let fail = |e| Error::object(&object, e);
        let (body, signature) = self.open_object(ObjectType::Index, &bytes).map_err(fail)?;
        let run = IndexRun::decode(&body).map_err(fail)?;
        self.verify(ObjectType::Index, &run.signer, &body, &signature).map_err(fail)?;
        Ok(run)
    }
}

impl Index {
    /// Runs that could not be read; their packs are found by `check`.
    pub fn failed(&self) -> &[Error] {
        &self.failed
    }

    /// Records in all runs, several of one chunk counted each.
    pub fn records(&self) -> u64 {
        self.segments.iter().map(|s| u64::from(s.records())).sum()
    }

    /// Every place of a chunk, cheapest form. Places in packs known to be deleted are left out.
    pub fn places(&self, id: &ChunkId, out: &mut Vec<Place>) -> Result<()> {
        out.clear();
        let key: [u8; KEY_LEN] = record_key(id);
        for (number, segment) in (0u32..).zip(&self.segments) {
            segment.find(&key, |pack, offset, len| {
                out.push(Place { pack: PackRef { segment: number, pack }, offset, len });
            })?;
        }
        if !self.graves.is_empty() {
            out.retain(|p| self.pack_name(p.pack).is_ok_and(|n| !self.graves.contains(&n)));
        }
        Ok(())
    }

    /// Every place of a chunk, with its pack.
    pub fn locate(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut places = Vec::new();
        self.places(id, &mut places)?;
        places
            .into_iter()
            .map(|p| Ok(Location { pack: self.pack(p.pack)?, offset: p.offset, len: p.len }))
            .collect()
    }

    /// The details of a pack.
    pub fn pack(&self, pack: PackRef) -> Result<Arc<IndexPack>> {
        let segment = self.segments.get(pack.segment as usize);
        segment.ok_or_else(|| Error::Refused("a pack of another index".into()))?.pack(pack.pack).map(Arc::new)
    }

    /// The name of a pack.
    pub fn pack_name(&self, pack: PackRef) -> Result<PackName> {
        let segment = self.segments.get(pack.segment as usize);
        segment.ok_or_else(|| Error::Refused("a pack of another index".into()))?.pack_name(pack.pack)
    }

    /// True if a run says that the pack was deleted.
    pub fn is_deleted(&self, pack: &PackName) -> bool {
        self.graves.contains(pack)
    }

    /// All packs; one named by several runs comes several times.
    pub fn packs(&self) -> impl Iterator<Item = Result<Arc<IndexPack>>> + '_ {
        self.segments.iter().flat_map(|s| (0..s.packs()).map(|p| s.pack(p).map(Arc::new)))
    }
}
