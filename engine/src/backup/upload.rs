//! Where sealed packs go: one thread puts them, makes their parity if there is to be some, and indexes them, so that
//! fsync and network overlap with the work.

use crate::error::{Error, Result};
use crate::parity;
use crate::repository::Repository;
use crate::repository::index::IndexWriter;
use crate::repository::pack::{PackSink, SealedPack};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The workers' end: blocks until the uploader takes the pack, which bounds the memory in packs.
pub struct Uploads {
    sender: Mutex<Option<Sender<SealedPack>>>,
}

impl Uploads {
    /// No more packs will come.
    pub fn hang_up(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The uploader's end.
pub struct Uploader<'r> {
    repository: &'r Repository,
    receiver: Receiver<SealedPack>,
    index: IndexWriter<'r>,
    stored: AtomicU64,
}

/// A channel without room: a pack is either with a worker or with the uploader.
pub fn channel(repository: &Repository) -> (Uploads, Uploader<'_>) {
    let (sender, receiver) = bounded(0);
    let index = IndexWriter::new(repository);
    (
        Uploads { sender: Mutex::new(Some(sender)) },
        Uploader { repository, receiver, index, stored: AtomicU64::new(0) },
    )
}

impl PackSink for Uploads {
    fn store(&self, pack: SealedPack) -> Result<()> {
        // The uploader hangs up only when it failed; its error is the one that counts.
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.and_then(|s| s.send(pack).ok()).ok_or(Error::Interrupted)
    }
}

impl Uploader<'_> {
    /// Puts packs until the workers hang up, then the last index run. Returns the bytes stored.
    pub fn run(mut self) -> Result<u64> {
        while let Ok(pack) = self.receiver.recv() {
            let parts: Vec<&[u8]> = pack.parts.iter().map(Vec::as_slice).collect();
            // `Exists` under a content name cannot be: the salt is fresh. Were it so, the bytes would be the same.
            self.repository.backend().put(&pack.object, &parts)?;
            self.stored.fetch_add(pack.len(), Ordering::Relaxed);
            if let Some(percent) = self.repository.config().parity {
                let put = parity::put(&**self.repository.backend(), percent, pack.pack.name, &parts)?;
                self.stored.fetch_add(put, Ordering::Relaxed);
            }
            self.index.add(pack.pack, pack.records)?;
        }
        self.index.flush()?;
        Ok(self.stored.into_inner() + self.index.stored_bytes())
    }
}

/// Counts instead of storing: for a dry run.
pub struct Discard {
    bytes: AtomicU64,
    parity: Option<u8>,
}

impl Discard {
    /// Nothing yet, of `parity` per cent.
    pub fn new(parity: Option<u8>) -> Self {
        Self { bytes: AtomicU64::new(0), parity }
    }
    /// Bytes that would have been stored.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl PackSink for Discard {
    fn store(&self, pack: SealedPack) -> Result<()> {
        let parity = self.parity.map_or(0, |percent| parity::len_for(percent, pack.len()));
        self.bytes.fetch_add(pack.len() + parity, Ordering::Relaxed);
        Ok(())
    }
}
