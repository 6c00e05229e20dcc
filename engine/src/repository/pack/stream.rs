//! The shared pack stream: chunks of all workers go, one after another, into one plain stream that is cut into
//! frames and packs (SPEC 7).
//!
//! Copying a chunk into the frame under the lock costs a fraction of a microsecond per kilobyte; whoever fills a
//! frame takes it away and compresses it outside. So sixteen workers fill the same few packs one worker would, and
//! neighbours in the source stay neighbours for the compressor. Kept true: a chunk never straddles packs, a pack is
//! sealed only when all its frames are compressed, and every sealed pack goes to the sink exactly once.

use super::super::Repository;
use super::seal::{Payload, SealedPack, Sealer};
use crate::error::{Error, Result};
use bulla_repo_format::ChunkId;
use bulla_repo_format::RunId;
use bulla_repo_format::frame::{Compression, Compressor, Expander, TAG_LEN};
use bulla_repo_format::limits::PACK_CHUNKS_MAX;
use bulla_repo_format::pack::{ChunkEntry, PackKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plain bytes after which a pack closes whatever it compressed to.
const RAW_FULL: u64 = 1 << 30;
/// Chunks after which a pack closes: its directory stays below half a megabyte, so a tail read stays cheap.
const CHUNKS_FULL: usize = (PACK_CHUNKS_MAX as usize) >> 8;

/// Takes sealed packs, in any order, from any worker.
pub trait PackSink: Sync {
    /// Stores a pack. An error ends the run.
    fn store(&self, pack: SealedPack) -> Result<()>;
    /// Everything stored before makes up this tree; without one, the run only shows that it lives.
    fn checkpoint(&self, _tree: Option<ChunkId>) -> Result<()> {
        Ok(())
    }
}

/// One worker's contexts and buffers.
pub struct Packer {
    compressor: Compressor,
    expander: Expander,
    compressed: Vec<u8>,
    expanded: Vec<u8>,
}

/// A pack that is being filled.
struct OpenPack {
    /// Compressed bytes so far, read without the lock to decide when to close.
    sealed: AtomicU64,
    inner: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    payloads: Vec<Option<Payload>>,
    missing: usize,
    /// Set when the pack is closed: its chunks, and whether it is a run's last.
    closed: Option<(Vec<ChunkEntry>, bool)>,
}

/// A frame that is full and waits for its worker to compress it.
struct Job {
    pack: Arc<OpenPack>,
    number: usize,
    raw: Vec<u8>,
}

struct Filling {
    frame: Vec<u8>,
    frames: usize,
    raw: u64,
    chunks: Vec<ChunkEntry>,
    pack: Arc<OpenPack>,
}

/// The stream of one kind of pack in one run.
pub struct PackStream<'r> {
    sealer: Sealer<'r>,
    compression: Compression,
    frame_size: usize,
    pack_size: u64,
    filling: Mutex<Filling>,
    /// Empty frame buffers.
    spare: Mutex<Vec<Vec<u8>>>,
    sink: &'r dyn PackSink,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenPack {
    fn new() -> Arc<Self> {
        Arc::new(Self { sealed: AtomicU64::new(0), inner: Mutex::default() })
    }
}

impl<'r> PackStream<'r> {
    /// An empty stream that gives its packs to `sink`.
    pub fn new(
        repository: &'r Repository,
        kind: PackKind,
        run: RunId,
        compression: Compression,
        verify: bool,
        sink: &'r dyn PackSink,
    ) -> Self {
        let config = repository.config();
        let (frame_size, pack_size) = match kind {
            PackKind::Data => (config.data_frame, config.data_pack),
            PackKind::Meta => (config.meta_frame, config.meta_pack),
        };
        let filling =
            Filling { frame: Vec::new(), frames: 0, raw: 0, chunks: Vec::new(), pack: OpenPack::new() };
        Self {
            sealer: Sealer { repository, kind, run, verify },
            compression,
            frame_size: frame_size as usize,
            pack_size,
            filling: Mutex::new(filling),
            spare: Mutex::default(),
            sink,
        }
    }

    /// Contexts for one worker.
    pub fn packer(&self) -> Result<Packer> {
        let frame = u32::try_from(self.frame_size).unwrap_or(u32::MAX);
        Ok(Packer {
            compressor: Compressor::new(self.compression, frame)?,
            expander: Expander::new(),
            compressed: Vec::new(),
            expanded: Vec::new(),
        })
    }

    /// Appends chunks in order, then compresses the frames that this filled.
    pub fn append<'c>(
        &self,
        packer: &mut Packer,
        chunks: impl IntoIterator<Item = (ChunkId, &'c [u8])>,
    ) -> Result<()> {
        let (mut jobs, mut closed) = (Vec::new(), Vec::new());
        {
            let mut f = lock(&self.filling);
            for (id, bytes) in chunks {
                if self.is_full(&f) {
                    closed.push(self.close(&mut f, false, &mut jobs));
                }
                let len =
                    u32::try_from(bytes.len()).map_err(|_| Error::Refused("a chunk above 4 GiB".into()))?;
                f.chunks.push(ChunkEntry { id, len });
                f.raw += u64::from(len);
                self.copy(&mut f, bytes, &mut jobs);
            }
        }
        self.finish_jobs(packer, jobs, closed)
    }

    /// Ends the stream: the last frame and pack are closed whatever their size.
    pub fn finish(&self, packer: &mut Packer) -> Result<()> {
        let (mut jobs, mut closed) = (Vec::new(), Vec::new());
        let mut f = lock(&self.filling);
        if !f.chunks.is_empty() {
            closed.push(self.close(&mut f, true, &mut jobs));
        }
        drop(f);
        self.finish_jobs(packer, jobs, closed)
    }

    /// Tells the sink, behind all packs that were closed.
    pub fn checkpoint(&self, tree: Option<ChunkId>) -> Result<()> {
        self.sink.checkpoint(tree)
    }

    fn is_full(&self, f: &Filling) -> bool {
        f.pack.sealed.load(Ordering::Relaxed) >= self.pack_size
            || f.raw >= RAW_FULL
            || f.chunks.len() >= CHUNKS_FULL
    }

    /// Copies bytes into frames; each frame that fills becomes a job.
    fn copy(&self, f: &mut Filling, mut bytes: &[u8], jobs: &mut Vec<Job>) {
        while !bytes.is_empty() {
            if f.frame.capacity() == 0 {
                f.frame = lock(&self.spare).pop().unwrap_or_else(|| Vec::with_capacity(self.frame_size));
            }
            let room = self.frame_size - f.frame.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            f.frame.extend_from_slice(now);
            bytes = later;
            if f.frame.len() == self.frame_size {
                self.take_frame(f, jobs);
            }
        }
    }

    fn take_frame(&self, f: &mut Filling, jobs: &mut Vec<Job>) {
        let raw = std::mem::take(&mut f.frame);
        lock(&f.pack.inner).missing += 1;
        jobs.push(Job { pack: f.pack.clone(), number: f.frames, raw });
        f.frames += 1;
    }

    /// Ends the current pack at this chunk boundary and starts the next.
    fn close(&self, f: &mut Filling, tail: bool, jobs: &mut Vec<Job>) -> Arc<OpenPack> {
        if !f.frame.is_empty() {
            self.take_frame(f, jobs);
        }
        (f.frames, f.raw) = (0, 0);
        let pack = std::mem::replace(&mut f.pack, OpenPack::new());
        lock(&pack.inner).closed = Some((std::mem::take(&mut f.chunks), tail));
        pack
    }

    fn finish_jobs(&self, packer: &mut Packer, jobs: Vec<Job>, closed: Vec<Arc<OpenPack>>) -> Result<()> {
        for job in jobs {
            self.compress(packer, job)?;
        }
        // A pack whose last frame was compressed before it closed has nobody else to seal it.
        closed.iter().try_for_each(|pack| self.seal_if_complete(packer, pack))
    }

    fn compress(&self, packer: &mut Packer, mut job: Job) -> Result<()> {
        packer.compressor.compress(&job.raw, &mut packer.compressed);
        let raw = u32::try_from(job.raw.len()).map_err(|_| Error::Refused("a frame above 4 GiB".into()))?;
        if self.sealer.verify {
            packer.expander.expand(&packer.compressed, raw, &mut packer.expanded)?;
            if packer.expanded != job.raw {
                let reason = "a frame does not expand to what was compressed: this machine or its zstd fails";
                return Err(Error::Damaged { what: "a new pack".into(), reason: reason.into() });
            }
        }
        let mut bytes = Vec::with_capacity(packer.compressed.len() + TAG_LEN);
        bytes.extend_from_slice(&packer.compressed);
        job.raw.clear();
        lock(&self.spare).push(job.raw);
        {
            let mut inner = lock(&job.pack.inner);
            job.pack.sealed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            if inner.payloads.len() <= job.number {
                inner.payloads.resize_with(job.number + 1, || None);
            }
            if let Some(slot) = inner.payloads.get_mut(job.number) {
                *slot = Some(Payload { bytes, raw });
            }
            inner.missing -= 1;
        }
        self.seal_if_complete(packer, &job.pack)
    }

    fn seal_if_complete(&self, packer: &mut Packer, pack: &OpenPack) -> Result<()> {
        let (frames, chunks, tail) = {
            let mut inner = lock(&pack.inner);
            if inner.missing > 0 {
                return Ok(());
            }
            let Some((chunks, tail)) = inner.closed.take() else { return Ok(()) };
            (std::mem::take(&mut inner.payloads), chunks, tail)
        };
        let frames = frames.into_iter().flatten().collect();
        // The packer's buffers are idle now: a worker seals between two frames.
        let scratch = (&mut packer.compressed, &mut packer.expanded);
        self.sink.store(self.sealer.seal(frames, chunks, tail, scratch)?)
    }
}
