//! Index runs (SPEC 10): sorted records that say in which pack, and where in its stream, a chunk lies.
//!
//! A run is a hint: whatever it says is checked against pack commitment, frame tags and chunk id, and every run
//! can be rebuilt from pack tails. `body = signer ‖ counts ‖ inputs ‖ graves ‖ packs ‖ records`, signed, in an
//! envelope. It names its signer, because graves count only from clients that may maintain (SPEC 13).

use crate::codec::{Reader, Write};
use crate::error::{Result, ensure, within};
use crate::id::{ChunkId, ClientId, IndexName, PackName, RunId};
use crate::limits::{CHUNK_MAX, INDEX_PACKS_MAX, INDEX_RECORDS_MAX, PACK_FRAMES_MAX, PACK_SIZE_MAX};
use crate::pack::{FrameEntry, HEADER_LEN, PackHeader, check_frames};

const WHAT: &str = "index run";
/// Bytes of the chunk id kept in a record.
pub const KEY_LEN: usize = 20;
/// Bytes of one record.
pub const RECORD_LEN: usize = KEY_LEN + 12;

/// The first 20 bytes of a chunk id: what records are sorted by.
pub fn record_key(id: &ChunkId) -> [u8; KEY_LEN] {
    let mut key = [0; KEY_LEN];
    key.iter_mut().zip(id.as_bytes()).for_each(|(k, b)| *k = *b);
    key
}

/// Where one chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexRecord {
    /// The truncated chunk id.
    pub key: [u8; KEY_LEN],
    /// Position in the pack table.
    pub pack: u32,
    /// Offset in the pack's plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
}

/// What a reader must know of a pack to fetch a chunk with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPack {
    /// The pack.
    pub name: PackName,
    /// Its object's size.
    pub size: u64,
    /// The run that wrote it.
    pub run: RunId,
    /// The client that signed it.
    pub signer: ClientId,
    /// Its header.
    pub header: PackHeader,
    /// Its frames.
    pub frames: Vec<FrameEntry>,
}

impl IndexPack {
    /// Where the frames end and the directory starts.
    pub fn directory_offset(&self) -> u64 {
        HEADER_LEN as u64 + self.frames.iter().map(|f| u64::from(f.sealed)).sum::<u64>()
    }
    /// Plain bytes of the stream.
    pub fn raw_len(&self) -> u64 {
        self.frames.iter().map(|f| u64::from(f.raw)).sum()
    }
}

/// One immutable run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRun {
    /// The client that signed the run.
    pub signer: ClientId,
    /// The runs this one was merged from and replaces.
    pub inputs: Vec<IndexName>,
    /// Packs known to be deleted: their records elsewhere count no more.
    pub graves: Vec<PackName>,
    /// The packs.
    pub packs: Vec<IndexPack>,
    /// The records, ascending; several may name one chunk.
    pub records: Vec<IndexRecord>,
}

impl IndexRun {
    /// A run that `signer` will sign.
    pub fn new(signer: ClientId) -> Self {
        Self { signer, inputs: vec![], graves: vec![], packs: vec![], records: vec![] }
    }

    /// The unsigned body. Records are sorted here; order of packs is kept.
    pub fn encode(&mut self) -> Vec<u8> {
        self.records.sort_unstable();
        self.records.dedup();
        let frames: usize = self.packs.iter().map(|p| p.frames.len() * 8 + 160).sum();
        let mut out = Vec::with_capacity(64 + frames + self.records.len() * RECORD_LEN);
        out.put(self.signer.as_bytes());
        for n in [self.inputs.len(), self.graves.len(), self.packs.len(), self.records.len()] {
            out.put_u32(u32::try_from(n).unwrap_or(u32::MAX));
        }
        for input in &self.inputs {
            out.put_u32(input.generation);
            out.put(&input.hash);
        }
        self.graves.iter().for_each(|g| out.put(g.as_bytes()));
        for p in &self.packs {
            out.put(p.name.as_bytes());
            out.put_u64(p.size);
            out.put(p.run.as_bytes());
            out.put(p.signer.as_bytes());
            out.put(&p.header.encode());
            out.put_u32(u32::try_from(p.frames.len()).unwrap_or(u32::MAX));
            for f in &p.frames {
                out.put_u32(f.sealed);
                out.put_u32(f.raw);
            }
        }
        for r in &self.records {
            out.put(&r.key);
            out.put_u32(r.pack);
            out.put_u32(r.offset);
            out.put_u32(r.len);
        }
        out
    }

    /// Decodes a body and checks order, references and bounds.
    pub fn decode(body: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, body);
        let mut run = Self::new(ClientId::new(r.array()?));
        let (inputs, graves, packs, records) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?);
        within("index inputs", inputs.into(), INDEX_PACKS_MAX.into())?;
        within("index graves", graves.into(), INDEX_PACKS_MAX.into())?;
        within("index packs", packs.into(), INDEX_PACKS_MAX.into())?;
        within("index records", records.into(), INDEX_RECORDS_MAX.into())?;
        for _ in 0..inputs {
            run.inputs.push(IndexName { generation: r.u32()?, hash: r.array()? });
        }
        for _ in 0..graves {
            run.graves.push(PackName::new(r.array()?));
        }
        for _ in 0..packs {
            run.packs.push(decode_pack(&mut r)?);
        }
        ensure(r.remaining() == records as usize * RECORD_LEN, WHAT, "counts do not fit its length")?;
        run.records.reserve_exact(records as usize);
        // Summed once: adding up a pack's frames per record would let a small run take minutes.
        let raw: Vec<u64> = run.packs.iter().map(IndexPack::raw_len).collect();
        for _ in 0..records {
            let record = IndexRecord { key: r.array()?, pack: r.u32()?, offset: r.u32()?, len: r.u32()? };
            let raw = raw.get(record.pack as usize).copied().unwrap_or(0);
            let end = u64::from(record.offset) + u64::from(record.len);
            ensure(
                record.len > 0 && record.len <= CHUNK_MAX && end <= raw,
                WHAT,
                "a record points outside its pack",
            )?;
            ensure(run.records.last().is_none_or(|p| *p < record), WHAT, "records are not ascending")?;
            run.records.push(record);
        }
        r.finish()?;
        Ok(run)
    }
}

fn decode_pack(r: &mut Reader<'_>) -> Result<IndexPack> {
    let (name, size) = (PackName::new(r.array()?), r.u64()?);
    within("pack", size, PACK_SIZE_MAX)?;
    let (run, signer) = (RunId::new(r.array()?), ClientId::new(r.array()?));
    let header = PackHeader::decode(r.bytes(HEADER_LEN)?)?;
    let count = r.u32()?;
    within("frames in a pack", count.into(), PACK_FRAMES_MAX.into())?;
    ensure(r.remaining() / 8 >= count as usize, WHAT, "counts do not fit its length")?;
    let mut frames = Vec::with_capacity(count as usize);
    for _ in 0..count {
        frames.push(FrameEntry { sealed: r.u32()?, raw: r.u32()? });
    }
    let pack = IndexPack { name, size, run, signer, header, frames };
    check_frames(WHAT, &pack.frames, pack.directory_offset())?;
    ensure(pack.directory_offset() < size, WHAT, "frames reach beyond their pack")?;
    Ok(pack)
}
