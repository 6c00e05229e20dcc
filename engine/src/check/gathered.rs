//! Data chunks that trees refer to, looked up many at once: in the order of files each look-up would touch a page of each index run.
//!
//! Kept true: where [`Gathered::all_placed`] says so, every chunk that was added has a place in a data pack, of the length that
//! its reference says. Otherwise it is not said which has none.

use crate::error::Result;
use crate::repository::index::{Index, PackRef};
use bulla_repo_format::index::{KEY_LEN, record_key};
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::ChunkRef;
use std::collections::HashMap;

/// Chunks that are looked up together, of 24 bytes each.
const TOGETHER: usize = 256 << 10;

pub(super) struct Gathered<'r> {
    index: &'r Index,
    /// What was met since the last look-up: keys and lengths.
    chunks: Vec<([u8; KEY_LEN], u32)>,
    /// Of packs met: whose details are read once.
    kinds: HashMap<PackRef, PackKind>,
    /// Some chunk has no place.
    doubt: bool,
}

impl<'r> Gathered<'r> {
    pub(super) fn new(index: &'r Index) -> Self {
        Self { index, chunks: Vec::new(), kinds: HashMap::new(), doubt: false }
    }

    pub(super) fn add(&mut self, chunk: &ChunkRef) -> Result<()> {
        if self.doubt {
            return Ok(());
        }
        self.chunks.push((record_key(&chunk.id), chunk.len));
        if self.chunks.len() < TOGETHER { Ok(()) } else { self.look_up() }
    }

    /// True if something that was added has no place: nothing more can be shown then.
    pub(super) fn in_doubt(&self) -> bool {
        self.doubt
    }

    /// True if all that was added has a place; once it is false it stays so.
    pub(super) fn all_placed(&mut self) -> Result<bool> {
        self.look_up()?;
        Ok(!self.doubt)
    }

    fn look_up(&mut self) -> Result<()> {
        self.chunks.sort_unstable();
        self.chunks.dedup();
        // One that is said to have two lengths has one of them at most.
        if self.chunks.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            self.doubt = true;
        }
        if self.doubt {
            self.chunks.clear();
            return Ok(());
        }
        let (index, kinds) = (self.index, &mut self.kinds);
        index.take_placed(&mut self.chunks, |len, place| {
            let kind = match kinds.get(&place.pack) {
                Some(kind) => *kind,
                None => *kinds.entry(place.pack).or_insert(index.pack(place.pack)?.header.kind),
            };
            Ok(place.len == *len && kind == PackKind::Data)
        })?;
        self.doubt = !self.chunks.is_empty();
        self.chunks.clear();
        Ok(())
    }
}
