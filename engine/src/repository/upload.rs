//! Where sealed packs go: one thread puts them, makes their parity if there is to be some, and indexes them, so that
//! fsync and network overlap with the work.

use super::Repository;
use super::index::IndexWriter;
use super::pack::{PackSink, SealedPack};
use crate::error::{Error, Result};
use crate::parity;
use bulla_repo_format::ChunkId;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The workers' end: blocks until the uploader takes the pack, which bounds the memory in packs.
pub struct Uploads {
    sender: Mutex<Option<Sender<Upload>>>,
}

enum Upload {
    Pack(Box<SealedPack>),
    Checkpoint(Option<ChunkId>),
}

/// What to do at a checkpoint, after the index of everything before it is durable.
pub type OnCheckpoint<'r> = Box<dyn FnMut(Option<ChunkId>) -> Result<()> + Send + 'r>;

impl Uploads {
    /// No more packs will come.
    pub fn hang_up(&self) {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The uploader's end.
pub struct Uploader<'r> {
    repository: &'r Repository,
    receiver: Receiver<Upload>,
    index: IndexWriter<'r>,
    on_checkpoint: OnCheckpoint<'r>,
    stored: AtomicU64,
}

/// A channel without room: a pack is either with a worker or with the uploader.
pub fn channel<'r>(repository: &'r Repository, on_checkpoint: OnCheckpoint<'r>) -> (Uploads, Uploader<'r>) {
    let (sender, receiver) = bounded(0);
    let index = IndexWriter::new(repository);
    (
        Uploads { sender: Mutex::new(Some(sender)) },
        Uploader { repository, receiver, index, on_checkpoint, stored: AtomicU64::new(0) },
    )
}

impl Uploads {
    /// The uploader hangs up only when it failed; its error is the one that counts.
    fn send(&self, upload: Upload) -> Result<()> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        sender.and_then(|s| s.send(upload).ok()).ok_or(Error::Interrupted)
    }
}

impl PackSink for Uploads {
    fn store(&self, pack: SealedPack) -> Result<()> {
        self.send(Upload::Pack(Box::new(pack)))
    }
    fn checkpoint(&self, tree: Option<ChunkId>) -> Result<()> {
        self.send(Upload::Checkpoint(tree))
    }
}

impl Uploader<'_> {
    /// Puts packs until the workers hang up, then the last index run. Returns the bytes stored.
    pub fn run(mut self) -> Result<u64> {
        while let Ok(upload) = self.receiver.recv() {
            let done = match upload {
                Upload::Pack(pack) => self.store(*pack),
                Upload::Checkpoint(tree) => self.index.flush().and_then(|()| (self.on_checkpoint)(tree)),
            };
            if let Err(e) = done {
                // What was put need not be put again: an index run may fit where a pack did not.
                let _ = self.index.flush();
                return Err(e);
            }
        }
        self.index.flush()?;
        Ok(self.stored.into_inner() + self.index.stored_bytes())
    }

    fn store(&mut self, pack: SealedPack) -> Result<()> {
        let parts = pack.parts();
        // `Exists` under a content name cannot be: the salt is fresh. Were it so, the bytes would be the same.
        self.repository.backend().put(&pack.object, &parts)?;
        self.stored.fetch_add(pack.len(), Ordering::Relaxed);
        if let Some(percent) = self.repository.config().parity {
            let put = parity::put(&**self.repository.backend(), percent, pack.pack.name, &parts)?;
            self.stored.fetch_add(put, Ordering::Relaxed);
        }
        self.index.add(pack.pack, pack.records)
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
