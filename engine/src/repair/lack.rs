//! Whether a tree is here as that of a living snapshot has to be.
//!
//! Kept true: a tree that passes is all in packs that nobody has condemned. Backups take that for granted of a living
//! parent, and a prune stops at a root it cannot read.

use crate::error::Result;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::tree::TreeReader;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::{Block, ChunkRef, Entry, EntryKind};
use bulla_repo_format::{ChunkId, PackName};
use std::collections::HashSet;

/// Looks through one tree.
pub(super) struct Lack<'r> {
    index: &'r Index,
    reader: TreeReader<'r>,
    /// Content must not lie in these alone. In one that is missing it may: everybody notices that.
    condemned: HashSet<PackName>,
    /// Nor nodes and blocks in these: condemned, missing or cut.
    doubtful: HashSet<PackName>,
    seen: HashSet<ChunkId>,
    places: Vec<Place>,
}

impl<'r> Lack<'r> {
    /// Marks and packs as they are now.
    pub(super) fn new(repository: &'r Repository, index: &'r Index, tree: ChunkId) -> Result<Self> {
        index.refresh(repository)?;
        let condemned = repository.marked_packs()?;
        let mut doubtful = condemned.clone();
        let present = repository.present_packs()?;
        for pack in index.packs() {
            let pack = pack?;
            if present.get(&(pack.name, pack.header.kind)) != Some(&pack.size) {
                doubtful.insert(pack.name);
            }
        }
        let reader = TreeReader::new(repository, index, tree).record_visited();
        Ok(Self { index, reader, condemned, doubtful, seen: HashSet::new(), places: Vec::new() })
    }

    /// The first thing that is not here, if there is one.
    pub(super) fn find(mut self, observer: &dyn Observer) -> Result<Option<String>> {
        loop {
            super::check_interrupt(observer)?;
            match self.step() {
                Ok(Some(lack)) => return Ok(lack),
                Ok(None) => {}
                Err(e) if e.is_damage() => return Ok(Some(e.to_string())),
                Err(e) => return Err(e),
            }
        }
    }

    /// One entry; `Some` at the end of the tree, or with what is not here.
    fn step(&mut self) -> Result<Option<Option<String>>> {
        let entry = self.reader.next()?;
        let mut content = Vec::new();
        let mut nodes = match &entry {
            Some(entry) => self.read(entry, &mut content)?,
            None => Vec::new(),
        };
        nodes.extend(self.reader.take_visited());
        for id in nodes {
            if !self.is_here(&id, PackKind::Meta, None)? {
                return Ok(Some(Some(format!("its node {id} is in a condemned pack"))));
            }
        }
        for chunk in content {
            if !self.is_here(&chunk.id, PackKind::Data, Some(chunk.len))? {
                let text =
                    format!("chunk {} of its content was deleted, or is in a condemned pack", chunk.id);
                return Ok(Some(Some(text)));
            }
        }
        Ok(entry.is_none().then_some(None))
    }

    /// Reads all metadata of an entry: ids of its blocks, and what its content is made of.
    fn read(&mut self, entry: &Entry, content: &mut Vec<ChunkRef>) -> Result<Vec<ChunkId>> {
        let mut blocks = vec![&entry.xattrs];
        if let EntryKind::File { holes, content: of, .. } = &entry.kind {
            blocks.push(holes);
            content.extend(self.reader.content(of)?);
        }
        let mut ids = Vec::new();
        for block in blocks {
            self.reader.block(block)?;
            if let Block::Chunk(chunk) = block {
                ids.push(chunk.id);
            }
        }
        Ok(ids)
    }

    fn is_here(&mut self, id: &ChunkId, kind: PackKind, len: Option<u32>) -> Result<bool> {
        if self.seen.contains(id) {
            return Ok(true);
        }
        let not = if kind == PackKind::Data { &self.condemned } else { &self.doubtful };
        self.index.places(id, &mut self.places)?;
        for place in self.places.iter().filter(|p| len.is_none_or(|len| p.len == len)) {
            let pack = self.index.pack(place.pack)?;
            if pack.header.kind == kind && !not.contains(&pack.name) {
                self.seen.insert(*id);
                return Ok(true);
            }
        }
        Ok(false)
    }
}
