//! Seal at close (SPEC 7.2): compressed frames and a chunk table become one sealed, padded, named object.

use super::super::Repository;
use super::room::Ticket;
use super::{Buffer, object_name};
use crate::error::{Error, Result};
use bulla_repo_format::frame::{CODEC_PADDING, CODEC_RAW, Expander, FrameKey, TAG_LEN};
use bulla_repo_format::index::{IndexPack, KEY_LEN, record_key};
use bulla_repo_format::pack::{
    ChunkEntry, Directory, FrameEntry, HEADER_LEN, PackHeader, PackKind, TRAILER_LEN,
};
use bulla_repo_format::{ObjectName, PackName, RunId, padding};
use std::ops::Range;
use twox_hash::XxHash3_64;

/// A frame that is compressed but not sealed: `codec ‖ payload`, and room for the tag, in its pack's buffer.
pub(super) struct Payload {
    /// Where it begins.
    pub(super) start: usize,
    /// Bytes, the tag's included.
    pub(super) len: usize,
    /// Plain bytes.
    pub(super) raw: u32,
    /// Their [`checksum`], before they were compressed.
    pub(super) check: u64,
}

/// XXH3 with 64 bits of a frame's plain bytes. It is compared within one process, with what the sealed frame gives back, so
/// it guards against faults, not against people.
pub(super) fn checksum(plain: &[u8]) -> u64 {
    XxHash3_64::oneshot(plain)
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
    /// Open and expand each frame again before it may be put.
    pub(super) verify: bool,
}

/// What verification borrows from a worker that is between two frames.
pub(super) struct Scratch<'p> {
    /// Expands frames.
    pub(super) expander: &'p mut Expander,
    /// Takes a sealed frame.
    pub(super) sealed: &'p mut Vec<u8>,
    /// Takes a plain frame.
    pub(super) plain: Buffer,
}

impl Sealer<'_> {
    /// Seals a pack whose frames lie in `body`. `tail` is true for a run's last pack, whose size is blurred.
    pub(super) fn seal(
        &self,
        mut body: Buffer,
        mut frames: Vec<Payload>,
        chunks: Vec<ChunkEntry>,
        tail: bool,
        ticket: Ticket,
        mut scratch: Scratch<'_>,
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
        hasher.update(&header.encode());
        for (number, payload) in (0u32..).zip(&frames) {
            let frame = body.get_mut(payload.range()).unwrap_or_default();
            key.seal(number, frame)?;
            if self.verify {
                scratch.verify(&key, number, frame, payload)?;
            }
            hasher.update(frame);
        }
        // Before the pack is put, which may wait.
        drop(scratch);
        let frames = frames.iter().map(Payload::range).collect();
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
        Payload { start, len: sealed, raw: 0, check: checksum(&[]) }
    }
}

impl Payload {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

impl Scratch<'_> {
    /// Opens and expands a copy of a sealed frame as a restore would, so that a fault of memory, processor or compressor
    /// is met here and not there.
    fn verify(&mut self, key: &FrameKey, number: u32, frame: &[u8], payload: &Payload) -> Result<()> {
        self.sealed.clear();
        // Without room to spare: vectors that double would double what frames take.
        self.sealed.reserve_exact(frame.len());
        self.sealed.extend_from_slice(frame);
        let found = key.open(number, self.sealed).and_then(|opened| match opened {
            [CODEC_RAW, plain @ ..] => Ok(checksum(plain)),
            opened => {
                self.expander.expand(opened, payload.raw, &mut self.plain)?;
                Ok(checksum(&self.plain))
            }
        });
        if found.ok() == Some(payload.check) {
            return Ok(());
        }
        let reason =
            "a frame does not give back what was put into it: this machine's memory or processor fails";
        Err(Error::Damaged { what: "a new pack".into(), reason: reason.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Pool;
    use super::*;
    use bulla_repo_format::RepoId;
    use bulla_repo_format::frame::{Compression, Compressor};
    use bulla_repo_format::keys::{Keyring, Secret};

    /// A sealed frame of `plain`, as [`Sealer::seal`] makes it, and what it was made of.
    fn sealed(key: &FrameKey, plain: &[u8], compression: Compression) -> (Vec<u8>, Payload) {
        let mut frame = Vec::new();
        Compressor::new(compression, 1 << 20).unwrap().compress(plain).write(&mut frame);
        key.seal(7, &mut frame).unwrap();
        let payload = Payload { start: 0, len: frame.len(), raw: plain.len() as u32, check: checksum(plain) };
        (frame, payload)
    }

    #[test]
    fn a_frame_that_gives_back_something_else_is_damage() {
        let ring = Keyring::new(vec![Secret::new([1; 32])], vec![Secret::new([2; 32])]).unwrap();
        let (_, key) = PackHeader::create(PackKind::Data, &ring, &RepoId::new([3; 32]), [4; 32]).unwrap();
        let (mut expander, mut buffer) = (Expander::new(), Vec::new());
        let mut scratch =
            Scratch { expander: &mut expander, sealed: &mut buffer, plain: Pool::new(1 << 20).take_empty() };
        let plain = b"what was read from the source, ".repeat(1000);
        for compression in [Compression::Off, Compression::Auto] {
            let (frame, payload) = sealed(&key, &plain, compression);
            scratch.verify(&key, 7, &frame, &payload).unwrap();
            let damaged = |result: Result<()>| matches!(result, Err(Error::Damaged { .. }));
            // A flip before the compressor: what it was given is not what was read.
            let mut flipped = plain.clone();
            flipped[20_000] ^= 4;
            let (other, _) = sealed(&key, &flipped, compression);
            assert!(damaged(scratch.verify(&key, 7, &other, &payload)));
            // A flip behind the seal, the seal of another place, and a length that is none of it.
            let mut torn = frame.clone();
            torn[frame.len() / 2] ^= 1;
            assert!(damaged(scratch.verify(&key, 7, &torn, &payload)));
            assert!(damaged(scratch.verify(&key, 8, &frame, &payload)));
            let wrong = Payload { check: checksum(&plain[1..]), raw: payload.raw - 1, ..payload };
            assert!(damaged(scratch.verify(&key, 7, &frame, &wrong)));
        }
    }
}
