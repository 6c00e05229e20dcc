//! Where sealed packs go: as many threads as the store has connections put them, make their parity if there is to be some,
//! and index them, so that fsync and network overlap with the work. Kept true: a pack is in an index run only after it was
//! put, and a checkpoint comes after the index of every pack that was closed before it.

use super::Repository;
use super::index::IndexWriter;
use super::pack::{PackSink, SealedPack};
use crate::backend::{Backend, BackendError, Put};
use crate::error::{Error, Result};
use crate::parity;
use bulla_repo_format::{ChunkId, IndexName, ObjectName};
use crossbeam_channel::{Receiver, Sender, bounded, select_biased};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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

/// What to do when an index run is stored.
pub type OnRun<'r> = &'r (dyn Fn(&IndexName) + Sync);

impl Uploads {
    /// No more packs will come.
    pub fn hang_up(&self) {
        lock(&self.sender).take();
    }

    /// Hangs up when it is dropped, also by a panic: nobody waits for packs that will not come.
    pub fn until_dropped(&self) -> HangUp<'_> {
        HangUp(self)
    }
}

/// See [`Uploads::until_dropped`].
pub struct HangUp<'a>(&'a Uploads);

impl Drop for HangUp<'_> {
    fn drop(&mut self) {
        self.0.hang_up();
    }
}

/// What was stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stored {
    /// Bytes of packs, parity and index runs.
    pub bytes: u64,
    /// Objects of these.
    pub objects: u64,
}

/// The uploader's end.
pub struct Uploader<'r> {
    repository: &'r Repository,
    receiver: Mutex<Receiver<Upload>>,
    under_way: UnderWay,
    index: Mutex<IndexWriter<'r>>,
    on_checkpoint: Mutex<OnCheckpoint<'r>>,
    stored: AtomicU64,
    objects: AtomicU64,
}

/// Numbers of uploads.
#[derive(Default)]
struct Taken {
    last: u64,
    open: BTreeSet<u64>,
    failed: bool,
}

/// Uploads that were taken and are not done, by the order in which they were taken.
#[derive(Default)]
struct UnderWay {
    taken: Mutex<Taken>,
    done: Condvar,
}

/// One of them. Counts as failed unless something else is said, so that nobody waits for one that panicked.
struct Number<'a> {
    of: &'a UnderWay,
    number: u64,
    failed: bool,
}

impl Drop for Number<'_> {
    fn drop(&mut self) {
        let mut taken = lock(&self.of.taken);
        taken.open.remove(&self.number);
        taken.failed |= self.failed;
        self.of.done.notify_all();
    }
}

impl UnderWay {
    fn take(&self) -> Number<'_> {
        let mut taken = lock(&self.taken);
        taken.last += 1;
        let number = taken.last;
        taken.open.insert(number);
        Number { of: self, number, failed: true }
    }

    /// Waits until everything taken before is done. False if any of it failed.
    fn wait_for_those_before(&self, number: u64) -> bool {
        let earlier = |taken: &mut Taken| taken.open.first().is_some_and(|n| *n < number);
        let taken = self.done.wait_while(lock(&self.taken), earlier);
        !taken.unwrap_or_else(PoisonError::into_inner).failed
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A channel without room: a pack is either with a worker or with an uploader.
pub fn channel<'r>(repository: &'r Repository, on_checkpoint: OnCheckpoint<'r>) -> (Uploads, Uploader<'r>) {
    let (sender, receiver) = bounded(0);
    let index = IndexWriter::new(repository);
    (
        Uploads { sender: Mutex::new(Some(sender)) },
        Uploader {
            repository,
            receiver: Mutex::new(receiver),
            under_way: UnderWay::default(),
            index: Mutex::new(index),
            on_checkpoint: Mutex::new(on_checkpoint),
            stored: AtomicU64::new(0),
            objects: AtomicU64::new(0),
        },
    )
}

impl Uploads {
    /// The uploader hangs up only when it failed; its error is the one that counts.
    fn send(&self, upload: Upload) -> Result<()> {
        let sender = lock(&self.sender).clone();
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
    /// Puts packs until the workers hang up, then the last index run. Returns what was stored; `on_run` hears of every index
    /// run but the last once it is stored.
    pub fn run(self, on_run: OnRun<'_>) -> Result<Stored> {
        let (failure, stop) = (Mutex::new(None), bounded::<()>(0));
        let stopper = Mutex::new(Some(stop.0));
        let work = || {
            if let Err(e) = self.work(&stop.1, on_run) {
                lock(&failure).get_or_insert(e);
                lock(&stopper).take();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..self.repository.backend().describe().connections {
                scope.spawn(work);
            }
            work();
        });
        let Self { index, stored, objects, .. } = self;
        let mut index = index.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What was put need not be put again, also by a run that failed: an index run may fit where a pack did not.
        let flushed = index.flush();
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(e) => Err(e),
            None => flushed.map(|()| {
                let runs = index.stored();
                let (bytes, objects) =
                    (stored.into_inner() + runs.bytes, objects.into_inner() + runs.objects);
                Stored { bytes, objects }
            }),
        }
    }

    /// Until the workers hang up, or another uploader failed.
    fn work(&self, stop: &Receiver<()>, on_run: OnRun<'_>) -> Result<()> {
        loop {
            // Taken and numbered at once, so that numbers follow the order in which packs were closed.
            let (mut number, upload) = {
                let receiver = lock(&self.receiver);
                let upload = select_biased! {
                    recv(stop) -> _ => return Ok(()),
                    recv(receiver) -> upload => upload,
                };
                let Ok(upload) = upload else { return Ok(()) };
                (self.under_way.take(), upload)
            };
            let done = match upload {
                Upload::Pack(pack) => self.store(*pack),
                Upload::Checkpoint(tree) => self.checkpoint(number.number, tree),
            };
            number.failed = done.is_err();
            drop(number);
            done?;
            let put = lock(&self.index).take_put();
            put.iter().for_each(on_run);
        }
    }

    fn checkpoint(&self, number: u64, tree: Option<ChunkId>) -> Result<()> {
        if !self.under_way.wait_for_those_before(number) {
            // The uploader that failed says why.
            return Ok(());
        }
        lock(&self.index).flush()?;
        (lock(&self.on_checkpoint))(tree)
    }

    fn store(&self, pack: SealedPack) -> Result<()> {
        let parts = pack.parts();
        let backend = self.repository.backend();
        if backend.put(&pack.object, &parts)? == Put::Exists {
            whole(&**backend, &pack.object, pack.len())?;
        }
        self.stored.fetch_add(pack.len(), Ordering::Relaxed);
        self.objects.fetch_add(1, Ordering::Relaxed);
        if let Some(percent) = self.repository.config().parity {
            let put = parity::put(&**self.repository.backend(), percent, pack.pack.name, &parts)?;
            self.stored.fetch_add(put, Ordering::Relaxed);
            self.objects.fetch_add(1, Ordering::Relaxed);
        }
        lock(&self.index).add(pack.pack, pack.records)
    }
}

/// Of an object whose bytes nobody else can have, as salts and nonces are fresh: what exists under its name comes of an
/// earlier attempt of this very put. It is the object if it is as long, and otherwise what is left of a put that broke off.
pub(super) fn whole(backend: &dyn Backend, object: &ObjectName, len: u64) -> Result<()> {
    let there = backend.stat(object)?.map(|s| s.size);
    if there == Some(len) {
        return Ok(());
    }
    let there = there.map_or_else(|| "nothing".into(), |size| format!("{size} bytes"));
    let text = format!("of {len} bytes {there} are there; run the command again");
    let (object, place) = (object.to_string(), backend.describe().place);
    Err(BackendError::Io { verb: "write", object, place, source: std::io::Error::other(text) }.into())
}

/// Counts instead of storing: for a dry run.
pub struct Discard {
    bytes: AtomicU64,
    objects: AtomicU64,
    parity: Option<u8>,
}

impl Discard {
    /// Nothing yet, of `parity` per cent.
    pub fn new(parity: Option<u8>) -> Self {
        Self { bytes: AtomicU64::new(0), objects: AtomicU64::new(0), parity }
    }
    /// What would have been stored.
    pub fn stored(&self) -> Stored {
        Stored { bytes: self.bytes.load(Ordering::Relaxed), objects: self.objects.load(Ordering::Relaxed) }
    }
    /// Counts a pack of `len` bytes, and the parity it would get.
    pub fn pack(&self, len: u64) {
        let parity = self.parity.map_or(0, |percent| parity::len_for(percent, len));
        self.bytes.fetch_add(len + parity, Ordering::Relaxed);
        self.objects.fetch_add(1 + u64::from(self.parity.is_some()), Ordering::Relaxed);
    }
}

impl PackSink for Discard {
    fn store(&self, pack: SealedPack) -> Result<()> {
        self.pack(pack.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Memory;
    use crate::env::Env;
    use crate::repository::pack::PackStream;
    use crate::repository::{InitOptions, SlotSecret};
    use bulla_repo_format::frame::Compression;
    use bulla_repo_format::keys::Secret;
    use bulla_repo_format::pack::PackKind;
    use bulla_repo_format::{Area, RunId};
    use std::sync::Arc;

    /// A store that has the first bytes of a pack before the pack is put.
    struct Before<'a> {
        memory: &'a Memory,
        uploader: Uploader<'a>,
        part: usize,
    }

    impl PackSink for Before<'_> {
        fn store(&self, pack: SealedPack) -> Result<()> {
            let bytes = pack.parts().concat();
            self.memory.put(&pack.object, &[&bytes[..bytes.len().min(self.part)]])?;
            self.uploader.store(pack)
        }
    }

    #[test]
    fn a_part_of_a_pack_under_its_name_is_not_the_pack() {
        let memory = Arc::new(Memory::new());
        let secret = SlotSecret::Key(Secret::new([1; 32]));
        let env = Env::system("host", "user");
        let made = Repository::init(memory.clone(), &InitOptions::default(), &secret, env).unwrap();
        for (part, good) in [(100, false), (usize::MAX, true)] {
            let (_, uploader) = channel(&made.repository, Box::new(|_| Ok(())));
            let sink = Before { memory: &memory, uploader, part };
            let run = RunId::new([3; 16]);
            let stream =
                PackStream::new(&made.repository, PackKind::Data, run, Compression::Off, true, &sink);
            let mut packer = stream.packer().unwrap();
            stream.append(&mut packer, [(ChunkId::new([4; 32]), &b"content"[..])]).unwrap();
            let stored = stream.finish(&mut packer);
            assert_eq!(stored.is_ok(), good, "{stored:?}");
            drop(stream);
            let ended = sink.uploader.run(&|_| {});
            assert_eq!(memory.list(Area::Index).unwrap().len(), usize::from(good), "{ended:?}");
        }
    }
}
