//! Entries by name, over many snapshots. A leaf of a tree in which nothing was found is not read again for the next snapshot
//! that has it, so that ten snapshots cost hardly more than one.

use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::tree::TreeReader;
use bulla_repo_format::ChunkId;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::Entry;
use std::collections::HashSet;

/// Leaves that are remembered: of a hundred entries each and 50 bytes, a hundred million entries in 50 MiB.
const REMEMBERED: usize = 1 << 20;

/// A search that goes through snapshots one by one.
pub struct Search<'r> {
    repository: &'r Repository,
    index: Index,
    fruitless: HashSet<ChunkId>,
    nodes: u64,
}

impl<'r> Search<'r> {
    /// Nothing searched yet.
    pub fn new(repository: &'r Repository) -> Result<Self> {
        Ok(Self { repository, index: repository.open_index()?, fruitless: HashSet::new(), nodes: 0 })
    }

    /// Calls `found` with each entry of the snapshot that `wanted` wants, in tree order. `wanted` must want the same in every
    /// snapshot.
    pub fn search(
        &mut self,
        snapshot: &Snapshot,
        wanted: &dyn Fn(&Entry) -> bool,
        observer: &dyn Observer,
        found: &mut dyn FnMut(&Entry) -> Result<()>,
    ) -> Result<()> {
        let fruitless = std::mem::take(&mut self.fruitless);
        let mut reader = TreeReader::new(self.repository, &self.index, snapshot.tree).skipping(fruitless);
        let (mut empty, mut leaf, mut fruit) = (Vec::new(), None, false);
        let searched = loop {
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => break Ok(()),
                Err(e) => break Err(e),
            };
            if observer.interrupted() {
                break Err(Error::Interrupted);
            }
            if reader.leaf() != leaf {
                empty.extend(leaf.filter(|_| !fruit));
                (leaf, fruit) = (reader.leaf(), false);
            }
            if wanted(&entry) {
                fruit = true;
                if let Err(e) = found(&entry) {
                    break Err(e);
                }
            }
        };
        if searched.is_ok() {
            empty.extend(leaf.filter(|_| !fruit));
        }
        self.nodes += reader.nodes_read();
        self.fruitless = reader.skipped();
        let room = REMEMBERED.saturating_sub(self.fruitless.len());
        self.fruitless.extend(empty.into_iter().take(room));
        searched
    }

    /// Nodes read so far.
    pub fn nodes_read(&self) -> u64 {
        self.nodes
    }
}
