//! Writes index runs: packs come in, runs go out, each within the bounds of one run.

use super::super::Repository;
use super::merge::put;
use crate::error::Result;
use crate::repository::upload::Stored;
use bulla_repo_format::IndexName;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun, KEY_LEN};
use bulla_repo_format::limits::INDEX_RECORDS_MAX;

/// Records per run at which a run is put even though the backup goes on: what is indexed need not be stored again
/// if the backup is interrupted. Later runs take an eighth of what was put before, within bounds: a look-up costs one search
/// per run, so there must not be too many of them, and what is gathered lies in memory.
const FULL: std::ops::RangeInclusive<usize> = 64 << 10..=256 << 10;

/// Gathers packs that were put, and puts index runs.
pub struct IndexWriter<'r> {
    repository: &'r Repository,
    run: IndexRun,
    /// Records put so far.
    put: usize,
    /// Runs put since [`IndexWriter::take_put`].
    names: Vec<IndexName>,
    stored: Stored,
}

impl<'r> IndexWriter<'r> {
    /// Nothing yet.
    pub fn new(repository: &'r Repository) -> Self {
        let run = IndexRun::new(repository.client().id());
        Self { repository, run, put: 0, names: Vec::new(), stored: Stored::default() }
    }

    /// Adds a pack and its chunks. The pack must have been put; it is made durable before the run that names it.
    pub fn add(&mut self, pack: IndexPack, chunks: Vec<([u8; KEY_LEN], u32, u32)>) -> Result<()> {
        if self.run.records.len() + chunks.len() > INDEX_RECORDS_MAX as usize {
            self.flush()?;
        }
        // A pack of tiny chunks may hold more than one run takes.
        for part in chunks.chunks(INDEX_RECORDS_MAX as usize) {
            let number = u32::try_from(self.run.packs.len()).unwrap_or(u32::MAX);
            self.run.packs.push(pack.clone());
            let record = |&(key, offset, len): &_| IndexRecord { key, pack: number, offset, len };
            self.run.records.extend(part.iter().map(record));
            if self.run.records.len() >= (self.put / 8).clamp(*FULL.start(), *FULL.end()) {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Puts what was gathered, durably.
    pub fn flush(&mut self) -> Result<()> {
        if self.run.packs.is_empty() {
            return Ok(());
        }
        let mut run = std::mem::replace(&mut self.run, IndexRun::new(self.repository.client().id()));
        self.put += run.records.len();
        self.repository.backend().flush()?;
        let (name, size) = put(self.repository, &mut run)?;
        self.names.push(name);
        self.stored.bytes += size;
        self.stored.objects += 1;
        Ok(())
    }

    /// Names of the runs put since this was last asked.
    pub fn take_put(&mut self) -> Vec<IndexName> {
        std::mem::take(&mut self.names)
    }

    /// The runs put so far.
    pub fn stored(&self) -> Stored {
        self.stored
    }
}
