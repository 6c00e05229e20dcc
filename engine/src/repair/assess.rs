//! What of a tree can be restored: its entries, each with what is lost of it, and where entries are missing.
//!
//! Kept true: a chunk counts as lost only if no place of it can be read; bytes that are authentic and mean nothing to
//! this version are an error, never a loss.

use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{Index, Place};
use crate::repository::tree::TreeReader;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::{Block, ChunkRef, Content, Entry, EntryKind};
use bulla_repo_format::{ChunkId, PackName};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What a walk meets.
pub(super) enum Step {
    /// An entry as far as it can be restored, and what is lost of it.
    Entry(Box<Entry>, Vec<String>),
    /// Entries are missing: the key of the first, and why.
    Gap(Arc<[u8]>, Vec<u8>, String),
}

/// Judges trees.
pub(super) struct Assess<'r> {
    repository: &'r Repository,
    index: &'r Index,
    /// Packs of which nothing is believed unread.
    suspects: &'r HashSet<PackName>,
    chunks: ChunkReader<'r>,
    read: HashMap<ChunkId, bool>,
    places: Vec<Place>,
    buffer: Vec<u8>,
}

impl<'r> Assess<'r> {
    pub(super) fn new(repository: &'r Repository, index: &'r Index, suspects: &'r HashSet<PackName>) -> Self {
        Self {
            repository,
            index,
            suspects,
            chunks: ChunkReader::new(repository, index),
            read: HashMap::new(),
            places: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// Lets what could not be read be read again.
    pub(super) fn doubt_failures(&mut self) {
        self.read.retain(|_, good| *good);
    }

    /// Walks a tree in order; `visited` gets every node that was read.
    pub(super) fn walk(
        &mut self,
        tree: ChunkId,
        visited: &mut HashSet<ChunkId>,
        observer: &dyn Observer,
        each: &mut dyn FnMut(Step, &HashSet<ChunkId>) -> Result<()>,
    ) -> Result<()> {
        let mut reader = TreeReader::new(self.repository, self.index, tree).record_visited();
        loop {
            super::check_interrupt(observer)?;
            let step = match reader.next() {
                Ok(None) => {
                    visited.extend(reader.take_visited());
                    return Ok(());
                }
                Ok(Some(mut entry)) => {
                    let lost = self.entry(&mut reader, &mut entry)?;
                    Step::Entry(Box::new(entry), lost)
                }
                Err(e) => {
                    let reason = lost(e)?;
                    let (parent, name) = reader.entered();
                    Step::Gap(parent.clone(), name.clone(), reason)
                }
            };
            visited.extend(reader.take_visited());
            each(step, visited)?;
        }
    }

    /// Leaves of the entry what can be restored; what cannot.
    fn entry(&mut self, reader: &mut TreeReader<'_>, entry: &mut Entry) -> Result<Vec<String>> {
        let mut out = Vec::new();
        if let Err(e) = reader.block(&entry.xattrs) {
            out.push(format!("its extended attributes are lost: {}", lost(e)?));
            entry.xattrs = Block::None;
        }
        let EntryKind::File { holes, content, .. } = &mut entry.kind else { return Ok(out) };
        if entry.flags.read_error {
            return Ok(out);
        }
        if let Some(reason) = self.content(reader, holes, content)? {
            out.push(format!("its content is lost: {reason}"));
            (*holes, *content) = (Block::None, Content::default());
            entry.flags.read_error = true;
        }
        Ok(out)
    }

    /// Why a file cannot be restored whole, if it cannot.
    fn content(
        &mut self,
        reader: &mut TreeReader<'_>,
        holes: &Block,
        content: &Content,
    ) -> Result<Option<String>> {
        if let Err(e) = reader.block(holes) {
            return lost(e).map(Some);
        }
        let refs = match reader.content(content) {
            Ok(refs) => refs,
            Err(e) => return lost(e).map(Some),
        };
        for chunk in &refs {
            if !self.has(chunk)? {
                return Ok(Some(format!("chunk {} cannot be read", chunk.id)));
            }
        }
        Ok(None)
    }

    /// True if the chunk lies in a pack that is believed, or can be read.
    fn has(&mut self, chunk: &ChunkRef) -> Result<bool> {
        self.index.places(&chunk.id, &mut self.places)?;
        for place in self.places.iter().filter(|p| p.len == chunk.len) {
            let pack = self.index.pack(place.pack)?;
            if pack.header.kind == PackKind::Data && !self.suspects.contains(&pack.name) {
                return Ok(true);
            }
        }
        if let Some(known) = self.read.get(&chunk.id) {
            return Ok(*known);
        }
        let good = match self.chunks.read(ChunkKind::Data, &chunk.id, &mut self.buffer) {
            Ok(()) => self.buffer.len() as u64 == u64::from(chunk.len),
            Err(e) if e.is_damage() => false,
            Err(e) => return Err(e),
        };
        self.read.insert(chunk.id, good);
        Ok(good)
    }
}

/// The words of a loss; any other error is one.
fn lost(e: Error) -> Result<String> {
    match e {
        Error::Object { object, source } => Err(Error::Refused(format!(
            "{object} is whole, but this version does not understand it ({source}); a newer bulla may"
        ))),
        e if e.is_damage() => Ok(e.to_string()),
        e => Err(e),
    }
}
