//! Seal at close (SPEC 7.2): compressed frames and a chunk table become one sealed, padded, named object.

use super::super::Repository;
use super::room::Ticket;
use super::{Buffer, object_name};
use crate::error::{Error, Result};
use bulla_repo_format::frame::{CODEC_PADDING, FrameKey, TAG_LEN};
use bulla_repo_format::index::{IndexPack, KEY_LEN, record_key};
use bulla_repo_format::pack::{
    ChunkEntry, Directory, FrameEntry, HEADER_LEN, PackHeader, PackKind, TRAILER_LEN,
};
use bulla_repo_format::{ObjectName, PackName, RunId, padding};
use std::ops::Range;

/// A frame that is compressed but not sealed: `codec ‖ payload`, and room for the tag, in its pack's buffer.
pub(super) struct Payload {
    /// Where it begins.
    pub(super) start: usize,
    /// Bytes, the tag's included.
    pub(super) len: usize,
    /// Plain bytes.
    pub(super) raw: u32,
}

/// A pack ready to be put.
pub struct SealedPack {
    /// Under which name.
    pub object: ObjectName,
    header: Vec<u8>,
    /// The sealed frames, in the order in which they were compressed.
    body: Buffer,
    /// Where each lies in `body`, in their order.
    frames: Vec<Range<usize>>,
    /// Directory and trailer.
    tail: Vec<u8>,
    /// How the index lists it.
    pub pack: IndexPack,
    /// The index records of its chunks: key, offset, length.
    pub records: Vec<([u8; KEY_LEN], u32, u32)>,
    /// Given back when the pack is dropped, stored or not.
    _ticket: Ticket,
}

impl SealedPack {
    /// Header, frames, directory and trailer; their concatenation is the object.
    pub fn parts(&self) -> Vec<&[u8]> {
        let frames = self.frames.iter().map(|at| self.body.get(at.clone()).unwrap_or_default());
        std::iter::once(&self.header[..]).chain(frames).chain([&self.tail[..]]).collect()
    }
    /// Bytes of the object.
    pub fn len(&self) -> u64 {
        self.pack.size
    }
    /// True for no pack at all; packs have bytes.
    pub fn is_empty(&self) -> bool {
        self.pack.size == 0
    }
}

/// What sealing a pack needs beside its content.
pub(super) struct Sealer<'r> {
    pub(super) repository: &'r Repository,
    pub(super) kind: PackKind,
    pub(super) run: RunId,
    /// Open each frame again and compare before it may be put.
    pub(super) verify: bool,
}

impl Sealer<'_> {
    /// Seals a pack whose frames lie in `body`. `tail` is true for a run's last pack, whose size is blurred; `scratch`
    /// is lent for verification.
    pub(super) fn seal(
        &self,
        mut body: Buffer,
        mut frames: Vec<Payload>,
        chunks: Vec<ChunkEntry>,
        tail: bool,
        ticket: Ticket,
        scratch: (&mut Vec<u8>, &mut Vec<u8>),
    ) -> Result<SealedPack> {
        let (repository, env) = (self.repository, self.repository.env());
        let signer = repository.client();
        let entry = |p: &Payload| FrameEntry { sealed: u32::try_from(p.len).unwrap_or(u32::MAX), raw: p.raw };
        let table = frames.iter().map(entry).collect();
        let mut directory = Directory { run: self.run, signer: signer.id(), frames: table, chunks };
        frames.push(self.pad(&mut body, &mut directory, tail, u16::from_le_bytes(env.random())));

        let salt = directory.salt(&env.random());
        let (header, key) = PackHeader::create(self.kind, repository.keyring(), &repository.id(), salt)?;
        let mut hasher = blake3::Hasher::new();
        let (before, again) = scratch;
        hasher.update(&header.encode());
        let frames: Vec<_> = frames.into_iter().map(|p| p.start..p.start + p.len).collect();
        for (number, at) in (0u32..).zip(&frames) {
            let frame = body.get_mut(at.clone()).unwrap_or_default();
            self.seal_frame(&key, number, frame, before, again)?;
            hasher.update(frame);
        }
        let offset = hasher.count();
        let content = *hasher.finalize().as_bytes();
        let tail = directory.seal(
            &header,
            &content,
            offset,
            repository.keyring(),
            &repository.id(),
            signer,
            &env.random(),
        )?;
        hasher.update(&tail);
        let name = PackName::new(*hasher.finalize().as_bytes());
        let pack = IndexPack {
            name,
            size: hasher.count(),
            run: self.run,
            signer: signer.id(),
            header,
            frames: directory.frames,
        };
        let mut at = 0u32;
        let records = directory.chunks.iter().map(|c| {
            let start = at;
            at = at.saturating_add(c.len);
            (record_key(&c.id), start, c.len)
        });
        let records = records.collect();
        let (object, header) = (object_name(self.kind, name), pack.header.encode().to_vec());
        Ok(SealedPack { object, header, body, frames, tail, pack, records, _ticket: ticket })
    }

    /// Adds the padding frame that brings the object to its padded size.
    fn pad(&self, body: &mut Buffer, directory: &mut Directory, tail: bool, noise: u16) -> Payload {
        directory.frames.push(FrameEntry { sealed: 0, raw: 0 });
        let frames: u64 = directory.frames.iter().map(|f| u64::from(f.sealed)).sum();
        // A padding frame has a codec byte and a tag at least.
        let least = (TAG_LEN + 1) as u64;
        let bare = HEADER_LEN as u64 + frames + directory.sealed_len() + TRAILER_LEN as u64;
        let size = match tail {
            true => padding::tail_pack_size(bare + least, noise),
            false => padding::full_pack_size(bare + least),
        };
        let sealed = usize::try_from(size.saturating_sub(bare)).unwrap_or(TAG_LEN + 1);
        if let Some(last) = directory.frames.last_mut() {
            last.sealed = u32::try_from(sealed).unwrap_or(u32::MAX);
        }
        let start = body.len();
        body.resize(start + sealed, 0);
        if let Some(codec) = body.get_mut(start) {
            *codec = CODEC_PADDING;
        }
        Payload { start, len: sealed, raw: 0 }
    }

    /// Seals one frame; with `verify`, opens a copy and compares it with what went in, so that a fault of memory or
    /// processor is met here and not at a restore.
    fn seal_frame(
        &self,
        key: &FrameKey,
        number: u32,
        frame: &mut [u8],
        before: &mut Vec<u8>,
        again: &mut Vec<u8>,
    ) -> Result<()> {
        if !self.verify {
            return Ok(key.seal(number, frame)?);
        }
        copy(before, frame.split_last_chunk::<TAG_LEN>().map_or(&[], |(text, _)| text));
        key.seal(number, frame)?;
        copy(again, frame);
        if key.open(number, again).ok() != Some(before.as_slice()) {
            let reason = "a frame does not open to what was sealed: this machine's memory or processor fails";
            return Err(Error::Damaged { what: "a new pack".into(), reason: reason.into() });
        }
        Ok(())
    }
}

/// Replaces `out` without room to spare: vectors that double would double what frames take.
fn copy(out: &mut Vec<u8>, bytes: &[u8]) {
    out.clear();
    out.reserve_exact(bytes.len());
    out.extend_from_slice(bytes);
}
