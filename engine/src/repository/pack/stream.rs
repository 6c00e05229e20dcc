//! The shared pack stream: chunks of all workers go, one after another, into one plain stream that is cut into
//! frames and packs (SPEC 7).
//!
//! Copying a chunk into the frame under the lock costs a fraction of a microsecond per kilobyte; whoever fills a
//! frame takes it away and compresses it outside. So sixteen workers fill the same few packs one worker would, and
//! neighbours in the source stay neighbours for the compressor. Kept true: a chunk never straddles packs, a pack is
//! sealed only when all its frames are compressed, and every sealed pack goes to the sink exactly once.

use super::super::Repository;
use super::room::{Room, Ticket};
use super::seal::{Payload, SealedPack, Sealer, checksum, prove};
use super::{Buffer, Pool};
use crate::error::{Error, Result};
use bulla_repo_format::ChunkId;
use bulla_repo_format::RunId;
use bulla_repo_format::frame::{Compressed, Compression, Compressor, Expander};
use bulla_repo_format::limits::PACK_CHUNKS_MAX;
use bulla_repo_format::pack::{ChunkEntry, PackKind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Plain bytes after which a pack closes whatever it compressed to.
const RAW_FULL: u64 = 1 << 30;
/// Chunks after which a pack closes: its directory stays below half a megabyte, so a tail read stays cheap.
const CHUNKS_FULL: usize = (PACK_CHUNKS_MAX as usize) >> 8;

/// Closed packs of a kind in memory, beside the one that is being filled, before appending waits, where the store takes one
/// at a time; each more that it takes is one more. Of data, one is stored while the other is compressed and sealed;
/// metadata is too little for its packs to follow each other that fast.
const CLOSED: (usize, usize) = (2, 1);

/// Takes sealed packs, in any order, from any worker.
pub trait PackSink: Sync {
    /// Stores a pack. An error ends the run. Its buffer is on loan until it is dropped: appending waits for packs that are
    /// kept.
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
}

/// A pack that is being filled.
struct OpenPack {
    /// Compressed bytes so far, read without the lock to decide when to close.
    sealed: AtomicU64,
    /// Frames that are being compressed. Falls only under the lock, and does not rise once the pack is closed.
    missing: AtomicU64,
    inner: Mutex<Frames>,
}

#[derive(Default)]
struct Frames {
    /// Where compressed frames lie, from the first on.
    body: Option<Buffer>,
    payloads: Vec<Option<Payload>>,
    /// Set when the pack is closed: its chunks, whether it is a run's last, and its place among the closed ones.
    closed: Option<(Vec<ChunkEntry>, bool, Ticket)>,
}

/// A frame that is full and waits for its worker to compress it.
struct Job {
    pack: Arc<OpenPack>,
    number: usize,
    raw: Buffer,
}

struct Filling {
    frame: Option<Buffer>,
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
    /// Buffers of frames, and of packs.
    frames: Arc<Pool>,
    bodies: Arc<Pool>,
    /// How many packs are closed and not yet stored.
    room: Arc<Room>,
    /// What all frames so far compressed to, and how many they were: what to expect of those on their way.
    compressed: AtomicU64,
    counted: AtomicU64,
    sink: &'r dyn PackSink,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl OpenPack {
    fn new() -> Arc<Self> {
        Arc::new(Self { sealed: AtomicU64::new(0), missing: AtomicU64::new(0), inner: Mutex::default() })
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
        let (frame_size, pack_size, closed) = match kind {
            PackKind::Data => (config.data_frame, config.data_pack, CLOSED.0),
            PackKind::Meta => (config.meta_frame, config.meta_pack, CLOSED.1),
        };
        let filling = Filling { frame: None, frames: 0, raw: 0, chunks: Vec::new(), pack: OpenPack::new() };
        Self {
            sealer: Sealer { repository, kind, run, verify },
            compression,
            frame_size: frame_size as usize,
            pack_size,
            filling: Mutex::new(filling),
            frames: Pool::new(frame_size as usize),
            bodies: Pool::new(pack_size as usize + 2 * frame_size as usize),
            room: Room::new(closed + repository.backend().describe().connections.saturating_sub(1)),
            compressed: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            sink,
        }
    }

    /// Contexts for one worker.
    pub fn packer(&self) -> Result<Packer> {
        let frame = u32::try_from(self.frame_size).unwrap_or(u32::MAX);
        Ok(Packer { compressor: Compressor::new(self.compression, frame)?, expander: Expander::new() })
    }

    /// Appends chunks in order, then compresses the frames that this filled.
    pub fn append<'c>(
        &self,
        packer: &mut Packer,
        chunks: impl IntoIterator<Item = (ChunkId, &'c [u8])>,
    ) -> Result<()> {
        // Here a worker holds no frame of any pack, so whoever waits keeps nobody else from finishing one.
        self.room.wait();
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

    /// Frames on their way count with what frames came to on average: else a pack would grow by one for each worker.
    fn is_full(&self, f: &Filling) -> bool {
        let load = |n: &AtomicU64| n.load(Ordering::Relaxed);
        let mean = load(&self.compressed).checked_div(load(&self.counted)).unwrap_or(0);
        load(&f.pack.sealed) + load(&f.pack.missing) * mean >= self.pack_size
            || f.raw >= RAW_FULL
            || f.chunks.len() >= CHUNKS_FULL
    }

    /// Copies bytes into frames; each frame that fills becomes a job.
    fn copy(&self, f: &mut Filling, mut bytes: &[u8], jobs: &mut Vec<Job>) {
        while !bytes.is_empty() {
            let frame = f.frame.get_or_insert_with(|| self.frames.take_empty());
            let room = self.frame_size - frame.len();
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            frame.extend_from_slice(now);
            bytes = later;
            if frame.len() == self.frame_size {
                self.take_frame(f, jobs);
            }
        }
    }

    fn take_frame(&self, f: &mut Filling, jobs: &mut Vec<Job>) {
        let Some(raw) = f.frame.take() else { return };
        f.pack.missing.fetch_add(1, Ordering::Relaxed);
        jobs.push(Job { pack: f.pack.clone(), number: f.frames, raw });
        f.frames += 1;
    }

    /// Ends the current pack at this chunk boundary and starts the next.
    fn close(&self, f: &mut Filling, tail: bool, jobs: &mut Vec<Job>) -> Arc<OpenPack> {
        self.take_frame(f, jobs);
        (f.frames, f.raw) = (0, 0);
        let pack = std::mem::replace(&mut f.pack, OpenPack::new());
        lock(&pack.inner).closed = Some((std::mem::take(&mut f.chunks), tail, self.room.enter()));
        pack
    }

    fn finish_jobs(&self, packer: &mut Packer, jobs: Vec<Job>, closed: Vec<Arc<OpenPack>>) -> Result<()> {
        // In this order no frame waits in memory while a pack is sealed.
        jobs.into_iter().try_for_each(|job| self.compress(packer, job))?;
        // A pack whose last frame was compressed before it closed has nobody else to seal it.
        closed.iter().try_for_each(|pack| self.seal_if_complete(packer, pack))
    }

    fn compress(&self, packer: &mut Packer, mut job: Job) -> Result<()> {
        let raw = u32::try_from(job.raw.len()).map_err(|_| Error::Refused("a frame above 4 GiB".into()))?;
        let Packer { compressor, expander } = packer;
        let was = self.sealer.verify.then(|| checksum(&job.raw));
        let codec = compressor.compress_inside(&job.raw);
        let check = match was {
            Some(was) => prove((compressor, expander), (codec, raw, was), &mut job.raw)?,
            None => 0,
        };
        let frame = compressor.frame(codec, &job.raw);
        {
            let mut inner = lock(&job.pack.inner);
            inner.add(job.number, frame, (raw, check), &self.bodies);
            job.pack.sealed.fetch_add(frame.sealed_len() as u64, Ordering::Relaxed);
            job.pack.missing.fetch_sub(1, Ordering::Relaxed);
        }
        self.compressed.fetch_add(frame.sealed_len() as u64, Ordering::Relaxed);
        self.counted.fetch_add(1, Ordering::Relaxed);
        drop(job.raw);
        self.seal_if_complete(packer, &job.pack)
    }

    fn seal_if_complete(&self, packer: &mut Packer, pack: &OpenPack) -> Result<()> {
        let (body, frames, chunks, tail, ticket) = {
            let mut inner = lock(&pack.inner);
            if pack.missing.load(Ordering::Relaxed) > 0 {
                return Ok(());
            }
            let Some((chunks, tail, ticket)) = inner.closed.take() else { return Ok(()) };
            (inner.body.take(), std::mem::take(&mut inner.payloads), chunks, tail, ticket)
        };
        let (body, frames) =
            (body.unwrap_or_else(|| self.bodies.take_empty()), frames.into_iter().flatten().collect());
        // The packer's buffer is idle now: a worker seals between two frames.
        let scratch = packer.compressor.scratch();
        self.sink.store(self.sealer.seal(body, frames, chunks, tail, ticket, scratch)?)
    }
}

impl Frames {
    /// Takes in a compressed frame. The copy runs at memory speed, some per cent of what compressing it took.
    fn add(&mut self, number: usize, frame: Compressed<'_>, (raw, check): (u32, u64), bodies: &Arc<Pool>) {
        let body = self.body.get_or_insert_with(|| bodies.take_empty());
        let (start, len) = (body.len(), frame.sealed_len());
        frame.write(body);
        if self.payloads.len() <= number {
            self.payloads.resize_with(number + 1, || None);
        }
        if let Some(slot) = self.payloads.get_mut(number) {
            *slot = Some(Payload { start, len, raw, check });
        }
    }
}
