//! One worker's hot path: cut, identify, claim, append. Bytes are hashed and compressed on the core that read them.

use super::known::Known;
use super::scan::Totals;
use crate::chunker::Chunker;
use crate::error::{Error, Result, SourceError};
use crate::repository::index::Place;
use crate::repository::pack::{Buffer, PackStream, Packer};
use bulla_repo_format::ChunkId;
use bulla_repo_format::keys::IdKey;
use bulla_repo_format::tree::ChunkRef;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes gathered before chunks are appended, and of a large file read at once: enough for neighbours to share frames, little
/// enough for the memory target (two of these per worker are in flight, and of a large file five at two workers).
pub const GATHER: usize = 640 << 10;

/// Counters all workers share.
#[derive(Default)]
pub struct Counters {
    /// Bytes read from the source.
    pub read_bytes: AtomicU64,
    /// Chunks stored.
    pub chunks_new: AtomicU64,
    /// Their plain bytes.
    pub bytes_new: AtomicU64,
    /// Chunks that were there.
    pub chunks_known: AtomicU64,
}

/// What all workers share.
pub struct Shared<'r> {
    /// Cuts.
    pub chunker: Chunker,
    /// Names data chunks.
    pub id_key: IdKey,
    /// Dedup.
    pub known: Known<'r>,
    /// Takes new chunks.
    pub data: PackStream<'r>,
    /// How often a backup says how far it has come; `None`: never.
    pub checkpoint: Option<std::time::Duration>,
    /// Counts.
    pub counters: Counters,
    /// How much there is in all, for callers that show it.
    pub totals: Totals,
}

/// A chunk in the gathered bytes: where, and of which file.
struct Piece {
    file: usize,
    start: usize,
    len: usize,
}

/// A worker's buffers.
pub struct Storer<'a, 'r> {
    shared: &'a Shared<'r>,
    packer: Packer,
    /// What is gathered comes first; behind it lie bytes that the next reads overwrite.
    bytes: Vec<u8>,
    gathered: usize,
    pieces: Vec<Piece>,
    places: Vec<Place>,
    new: Vec<(ChunkId, usize, usize)>,
}

impl<'a, 'r> Storer<'a, 'r> {
    /// A worker with empty buffers.
    pub fn new(shared: &'a Shared<'r>) -> Result<Self> {
        let packer = shared.data.packer()?;
        // What one gathering can hold: it never grows, so it never doubles.
        let bytes = Vec::with_capacity(2 * GATHER + 1);
        Ok(Self {
            shared,
            packer,
            bytes,
            gathered: 0,
            pieces: Vec::new(),
            places: Vec::new(),
            new: Vec::new(),
        })
    }

    /// Reads one file through `read` until it gives 0 and cuts it; its chunks go to `refs[file]`, at the latest with
    /// the next [`Storer::flush`].
    pub fn file(
        &mut self,
        file: usize,
        refs: &mut [Vec<ChunkRef>],
        expected: u64,
        mut read: impl FnMut(&mut [u8]) -> std::result::Result<usize, SourceError>,
    ) -> Result<std::result::Result<(), SourceError>> {
        let (mut start, max) = (self.gathered, self.shared.chunker.max());
        // One byte more than expected: a short read then says "end" without another system call.
        let mut step = usize::try_from(expected).unwrap_or(GATHER).saturating_add(1).min(GATHER);
        loop {
            let room = self.gathered..self.gathered + step;
            if self.bytes.len() < room.end {
                self.bytes.resize(room.end, 0);
            }
            let n = match read(self.bytes.get_mut(room).unwrap_or_default()) {
                Ok(n) => n,
                Err(e) => {
                    self.gathered = start;
                    self.pieces.retain(|p| p.file != file);
                    return Ok(Err(e));
                }
            };
            self.gathered += n;
            self.shared.counters.read_bytes.fetch_add(n as u64, Ordering::Relaxed);
            let end = n < step;
            let bytes = self.bytes.get(..self.gathered).unwrap_or_default();
            while start < bytes.len() && (end || bytes.len() - start >= max) {
                let len = self.shared.chunker.cut(bytes.get(start..).unwrap_or_default());
                self.pieces.push(Piece { file, start, len });
                start += len;
            }
            if end {
                break;
            }
            step = GATHER;
            if self.gathered >= GATHER {
                start -= self.flush_keeping(start, refs)?;
            }
        }
        Ok(Ok(()))
    }

    /// True when enough is gathered.
    pub fn is_full(&self) -> bool {
        self.gathered >= GATHER
    }

    /// Identifies and stores everything gathered.
    pub fn flush(&mut self, refs: &mut [Vec<ChunkRef>]) -> Result<()> {
        self.flush_keeping(self.gathered, refs).map(|_| ())
    }

    /// Stores the pieces before `keep`, keeps the bytes behind, and says by how much they moved.
    fn flush_keeping(&mut self, keep: usize, refs: &mut [Vec<ChunkRef>]) -> Result<usize> {
        self.store_pieces(refs)?;
        self.bytes.copy_within(keep..self.gathered, 0);
        self.gathered -= keep;
        Ok(keep)
    }

    fn store_pieces(&mut self, refs: &mut [Vec<ChunkRef>]) -> Result<()> {
        self.new.clear();
        let (mut known, mut new_bytes) = (0u64, 0u64);
        for piece in self.pieces.drain(..) {
            let bytes = self.bytes.get(piece.start..piece.start + piece.len).unwrap_or_default();
            let id = self.shared.id_key.identify(bytes);
            let len = u32::try_from(piece.len).map_err(|_| Error::Refused("a chunk above 4 GiB".into()))?;
            if self.shared.known.claim(&id, len, &mut self.places)? {
                self.new.push((id, piece.start, piece.len));
                new_bytes += u64::from(len);
            } else {
                known += 1;
            }
            if let Some(list) = refs.get_mut(piece.file) {
                list.push(ChunkRef { id, len });
            }
        }
        let c = &self.shared.counters;
        c.chunks_known.fetch_add(known, Ordering::Relaxed);
        c.chunks_new.fetch_add(self.new.len() as u64, Ordering::Relaxed);
        c.bytes_new.fetch_add(new_bytes, Ordering::Relaxed);
        if !self.new.is_empty() {
            let bytes = &self.bytes;
            let chunk = |&(id, start, len): &(ChunkId, usize, usize)| {
                (id, bytes.get(start..start + len).unwrap_or_default())
            };
            self.shared.data.append(&mut self.packer, self.new.iter().map(chunk))?;
        }
        Ok(())
    }

    /// Stores the chunks of a segment that was cut already.
    pub fn segment(&mut self, mut data: Buffer, cuts: &[usize]) -> Result<Vec<ChunkRef>> {
        let own = std::mem::replace(&mut self.bytes, std::mem::take(&mut data));
        let mut start = 0;
        self.pieces.extend(cuts.iter().map(|&len| {
            start += len;
            Piece { file: 0, start: start - len, len }
        }));
        let mut refs = [Vec::new()];
        let stored = self.store_pieces(&mut refs);
        *data = std::mem::replace(&mut self.bytes, own);
        stored?;
        let [refs] = refs;
        Ok(refs)
    }

    /// Ends the shared stream; only the last worker calls it.
    pub fn finish(&mut self) -> Result<()> {
        self.shared.data.finish(&mut self.packer)
    }
}
