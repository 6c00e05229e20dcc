//! Seal at close (SPEC 7.2): compressed frames and a chunk table become one sealed, padded, named object.

use super::super::Repository;
use super::room::Ticket;
use super::{Buffer, object_name};
use crate::error::{Error, Result};
use bulla_repo_format::frame::{
    CODEC_PADDING, CODEC_RAW, Compressed, Compressor, Expander, FrameKey, TAG_LEN,
};
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
    /// What [`prove`] gave.
    pub(super) check: u64,
}

/// XXH3 with 64 bits of plain bytes. It is compared within one process, so it guards against faults, not against people.
pub(super) fn checksum(plain: &[u8]) -> u64 {
    XxHash3_64::oneshot(plain)
}

/// The same of a frame: what it was compressed to, how, and from how many bytes.
fn checksum_of(frame: Compressed<'_>, raw: u32) -> u64 {
    XxHash3_64::oneshot_with_seed(u64::from(raw) << 8 | u64::from(frame.codec), frame.payload)
}

/// Expands the frame that was compressed last, as a restore would, over its own plain bytes, while both are in the processor's
/// cache: a fault of memory, processor or compressor is met here and not there. `was` is the checksum of the plain bytes before
/// they were compressed. Gives the checksum of the frame, which [`Sealer::seal`] compares with what the sealed one opens to.
pub(super) fn prove(
    (compressor, expander): (&Compressor, &mut Expander),
    (codec, raw, was): (u8, u32, u64),
    plain: &mut Vec<u8>,
) -> Result<u64> {
    let expands = codec == CODEC_RAW || expander.decode(compressor.frame(codec, &[]), raw, plain).is_ok();
    if !expands || checksum(plain) != was {
        return Err(faulty());
    }
    Ok(checksum_of(compressor.frame(codec, plain), raw))
}

/// Opens a copy of a sealed frame, made in `scratch`, as a restore would.
fn prove_sealed(
    key: &FrameKey,
    (number, payload): (u32, &Payload),
    frame: &[u8],
    scratch: &mut Vec<u8>,
) -> Result<()> {
    scratch.clear();
    // Without room to spare: vectors that double would double what frames take.
    scratch.reserve_exact(frame.len());
    scratch.extend_from_slice(frame);
    let Ok([codec, opened @ ..]) = key.open(number, scratch) else { return Err(faulty()) };
    let found = checksum_of(Compressed { codec: *codec, payload: opened }, payload.raw);
    if found == payload.check { Ok(()) } else { Err(faulty()) }
}

fn faulty() -> Error {
    let reason = "a frame does not give back what was put into it: this machine's memory or processor fails";
    Error::Damaged { what: "a new pack".into(), reason: reason.into() }
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
    /// Expand each frame again when it was compressed, and open it again when it was sealed, before it may be put.
    pub(super) verify: bool,
}

impl Sealer<'_> {
    /// Seals a pack whose frames lie in `body`. `tail` is true for a run's last pack, whose size is blurred; `scratch` is a
    /// buffer that nobody needs meanwhile.
    pub(super) fn seal(
        &self,
        mut body: Buffer,
        mut frames: Vec<Payload>,
        chunks: Vec<ChunkEntry>,
        tail: bool,
        ticket: Ticket,
        scratch: &mut Vec<u8>,
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
                prove_sealed(&key, (number, payload), frame, scratch)?;
            }
            hasher.update(frame);
        }
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
        let payload = body.get(start + 1..start + sealed - TAG_LEN).unwrap_or_default();
        let check = checksum_of(Compressed { codec: CODEC_PADDING, payload }, 0);
        Payload { start, len: sealed, raw: 0, check }
    }
}

impl Payload {
    fn range(&self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::RepoId;
    use bulla_repo_format::frame::Compression;
    use bulla_repo_format::keys::{Keyring, Secret};

    const ALL: [Compression; 2] = [Compression::Off, Compression::Auto];

    fn plain() -> Vec<u8> {
        b"what was read from the source, ".repeat(1000)
    }

    fn damaged<T>(result: Result<T>) -> bool {
        matches!(result, Err(Error::Damaged { .. }))
    }

    #[test]
    fn what_a_sealed_frame_does_not_give_back_is_damage() {
        let ring = Keyring::new(vec![Secret::new([1; 32])], vec![Secret::new([2; 32])]).unwrap();
        let (_, key) = PackHeader::create(PackKind::Data, &ring, &RepoId::new([3; 32]), [4; 32]).unwrap();
        for compression in ALL {
            let mut compressor = Compressor::new(compression, 1 << 20).unwrap();
            let (mut scratch, mut place) = (Vec::new(), plain());
            let (raw, was) = (place.len() as u32, checksum(&place));
            let codec = compressor.compress_inside(&place);
            let proved = prove((&compressor, &mut Expander::new()), (codec, raw, was), &mut place);
            let check = proved.unwrap();
            assert_eq!(place, plain(), "the plain bytes are in their place");
            let mut written = Vec::new();
            compressor.frame(codec, &place).write(&mut written);
            let payload = Payload { start: 0, len: written.len(), raw, check };
            let shorter = Payload { raw: raw - 1, ..payload };
            let sealed = |mut frame: Vec<u8>| {
                key.seal(7, &mut frame).unwrap();
                frame
            };
            let mut opens =
                |number, frame: &[u8], payload| prove_sealed(&key, (number, payload), frame, &mut scratch);
            let frame = sealed(written.clone());
            opens(7, &frame, &payload).unwrap();
            // A flip behind the seal, the seal of another place, and another length in the table.
            let mut torn = frame.clone();
            torn[frame.len() / 2] ^= 1;
            assert!(damaged(opens(7, &torn, &payload)));
            assert!(damaged(opens(8, &frame, &payload)));
            assert!(damaged(opens(7, &frame, &shorter)));
            // A flip between compressing and sealing: of the codec, or of what it made.
            for at in [0, written.len() / 2] {
                let mut flipped = written.clone();
                flipped[at] ^= 4;
                assert!(damaged(opens(7, &sealed(flipped), &payload)));
            }
        }
    }

    #[test]
    fn what_a_compressor_was_not_given_or_did_not_make_is_damage() {
        for compression in ALL {
            let mut compressor = Compressor::new(compression, 1 << 20).unwrap();
            let (read, mut expander) = (plain(), Expander::new());
            let (raw, was) = (read.len() as u32, checksum(&read));
            // A flip between reading and compressing.
            let mut given = read.clone();
            given[20_000] ^= 4;
            let codec = compressor.compress_inside(&given);
            assert!(damaged(prove((&compressor, &mut expander), (codec, raw, was), &mut given)));
            let codec = compressor.compress_inside(&read);
            prove((&compressor, &mut expander), (codec, raw, was), &mut read.clone()).unwrap();
            if compression == Compression::Off {
                continue;
            }
            let mut proves = |compressor: &Compressor, raw| {
                prove((compressor, &mut expander), (codec, raw, was), &mut read.clone())
            };
            assert!(damaged(proves(&compressor, raw - 1)));
            let at = compressor.scratch().len() / 2;
            compressor.scratch()[at] ^= 1;
            assert!(damaged(proves(&compressor, raw)));
        }
    }
}
