//! Packs (SPEC 7): `header ‖ sealed frames ‖ sealed directory ‖ trailer`, one key per pack.
//!
//! The directory lists frames (sealed and plain length) and chunks (id and length, in stream order: chunks tile
//! the plain stream, so offsets are implied). The trailer finds the directory from the end of the object.

use crate::codec::{Reader, Write};
use crate::envelope::{self, ObjectType};
use crate::error::{FormatError, Result, ensure, within};
use crate::frame::{FrameKey, TAG_LEN};
use crate::id::{ChunkId, ClientId, RepoId, RunId};
use crate::keys::{ClientKey, Keyring, SIGNATURE_LEN, Secret};
use crate::limits::{
    CHUNK_MAX, DIRECTORY_MAX, FRAME_RAW_MAX, FRAME_SEALED_MAX, PACK_CHUNKS_MAX, PACK_FRAMES_MAX,
    PACK_RAW_MAX, PACK_SIZE_MAX,
};
use crate::{MAGIC, SUITE};
use subtle::ConstantTimeEq;

const WHAT: &str = "pack";
/// Bytes of a pack header.
pub const HEADER_LEN: usize = 84;
/// Bytes of a pack trailer: header copy, nonce, sealed {offset u64, length u32}, tag.
pub const TRAILER_LEN: usize = HEADER_LEN + 24 + 12 + TAG_LEN;
const COMMITMENT_AT: usize = 48;

/// What a pack holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PackKind {
    /// Pieces of files.
    Data,
    /// Tree nodes, list nodes, metadata blocks.
    Meta,
}

impl PackKind {
    /// The byte in the header.
    pub const fn byte(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Meta => 2,
        }
    }
}

/// The plain start of a pack.
///
/// ```text
/// magic[6] type u8 suite u8 kind u8 0 u8 epoch u16 domain u16 0 u16 salt[32] commitment[32] stanza-type u16 stanza-length u16
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackHeader {
    /// Data or metadata.
    pub kind: PackKind,
    /// The epoch of the key.
    pub epoch: u16,
    /// The domain of the chunk ids.
    pub domain: u16,
    /// The salt of the key.
    pub salt: [u8; 32],
    /// Commits to key, header and repository.
    pub commitment: [u8; 32],
}

impl PackHeader {
    /// The 84 bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.put(&MAGIC);
        out.put(&[ObjectType::Pack as u8, SUITE, self.kind.byte(), 0]);
        out.put_u16(self.epoch);
        out.put_u16(self.domain);
        out.put_u16(0);
        out.put(&self.salt);
        out.put(&self.commitment);
        out.put_u16(envelope::STANZA_DERIVED);
        out.put_u16(0);
        out.try_into().unwrap_or([0; HEADER_LEN])
    }

    /// Parses a header; nothing is authenticated yet.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        if r.array::<6>()? != MAGIC {
            return Err(FormatError::Foreign { what: WHAT });
        }
        ensure(r.u8()? == ObjectType::Pack as u8, WHAT, "an object of another type lies under this name")?;
        if r.u8()? != SUITE {
            return Err(FormatError::Foreign { what: WHAT });
        }
        let kind = match r.u8()? {
            1 => PackKind::Data,
            2 => PackKind::Meta,
            _ => return Err(FormatError::invalid(WHAT, "unknown kind of pack")),
        };
        ensure(r.u8()? == 0, WHAT, "reserved byte is not zero")?;
        let (epoch, domain) = (r.u16()?, r.u16()?);
        ensure(r.u16()? == 0, WHAT, "reserved bytes are not zero")?;
        let (salt, commitment) = (r.array()?, r.array()?);
        let derived = r.u16()? == envelope::STANZA_DERIVED && r.u16()? == 0;
        ensure(derived, WHAT, "unknown key stanza")?;
        Ok(Self { kind, epoch, domain, salt, commitment })
    }

    /// The frame key, after the commitment was checked: header, kind, repository and epoch are bound to it.
    pub fn open(&self, keyring: &Keyring, repo: &RepoId) -> Result<FrameKey> {
        let (key, commitment) = self.derive(keyring, repo)?;
        if bool::from(commitment.ct_eq(&self.commitment)) {
            FrameKey::new(key.expose())
        } else {
            Err(FormatError::Unauthentic { what: WHAT })
        }
    }

    /// A header for a fresh salt, and its frame key.
    pub fn create(
        kind: PackKind,
        keyring: &Keyring,
        repo: &RepoId,
        salt: [u8; 32],
    ) -> Result<(Self, FrameKey)> {
        let (epoch, domain) = (keyring.epoch(), keyring.domain());
        let mut header = Self { kind, epoch, domain, salt, commitment: [0; 32] };
        let (key, commitment) = header.derive(keyring, repo)?;
        header.commitment = commitment;
        Ok((header, FrameKey::new(key.expose())?))
    }

    /// `key ‖ commitment = XOF(keyed(S; "frames" ‖ repo ‖ header with the commitment zeroed))`.
    fn derive(&self, keyring: &Keyring, repo: &RepoId) -> Result<(Secret, [u8; 32])> {
        let secret = keyring.pack_secret(self.epoch, self.kind, &self.salt)?;
        let mut plain = self.encode();
        if let Some(c) = plain.get_mut(COMMITMENT_AT..COMMITMENT_AT + 32) {
            c.fill(0);
        }
        let mut h = blake3::Hasher::new_keyed(secret.expose());
        h.update(b"frames").update(repo.as_bytes()).update(&plain);
        let (mut key, mut commitment) = ([0; 32], [0; 32]);
        let mut xof = h.finalize_xof();
        xof.fill(&mut key);
        xof.fill(&mut commitment);
        Ok((Secret::new(key), commitment))
    }
}

/// One frame's lengths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameEntry {
    /// Bytes in the object, tag included.
    pub sealed: u32,
    /// Plain bytes; 0 only for padding.
    pub raw: u32,
}

/// One chunk's id and length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The chunk.
    pub id: ChunkId,
    /// Its plain length.
    pub len: u32,
}

/// The table of contents of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory {
    /// The run that wrote the pack.
    pub run: RunId,
    /// The client that signed it.
    pub signer: ClientId,
    /// The frames in order.
    pub frames: Vec<FrameEntry>,
    /// The chunks in stream order.
    pub chunks: Vec<ChunkEntry>,
}

impl Directory {
    /// `run ‖ signer ‖ counts ‖ frame table ‖ chunk table`: what the salt is drawn over.
    pub fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(40 + self.frames.len() * 8 + self.chunks.len() * 36);
        out.put(self.run.as_bytes());
        out.put(self.signer.as_bytes());
        out.put_u32(u32::try_from(self.frames.len()).unwrap_or(u32::MAX));
        out.put_u32(u32::try_from(self.chunks.len()).unwrap_or(u32::MAX));
        for f in &self.frames {
            out.put_u32(f.sealed);
            out.put_u32(f.raw);
        }
        for c in &self.chunks {
            out.put(c.id.as_bytes());
            out.put_u32(c.len);
        }
        out
    }

    /// The salt of the pack: hedged over its whole content, so that no two packs share a key (SPEC 7.2).
    pub fn salt(&self, entropy: &[u8; 32]) -> [u8; 32] {
        *blake3::keyed_hash(entropy, &self.body()).as_bytes()
    }

    /// Bytes the sealed directory takes: plaintext padded to 4 KiB, nonce and tag.
    pub fn sealed_len(&self) -> u64 {
        let plain = 4 + 40 + self.frames.len() * 8 + self.chunks.len() * 36 + 32 + SIGNATURE_LEN;
        (plain as u64).div_ceil(4096) * 4096 + 24 + TAG_LEN as u64
    }

    /// Seals directory and trailer. `content_hash` is BLAKE3 of everything before (header and sealed frames),
    /// `offset` its length; `entropy` 64 fresh bytes.
    #[allow(clippy::too_many_arguments, reason = "what a pack's end depends on, each from another owner")]
    pub fn seal(
        &self,
        header: &PackHeader,
        content_hash: &[u8; 32],
        offset: u64,
        keyring: &Keyring,
        repo: &RepoId,
        signer: &ClientKey,
        entropy: &[u8; 64],
    ) -> Result<Vec<u8>> {
        let key = keyring.directory_key(header.epoch)?;
        let plain_header = header.encode();
        let aad = [&plain_header[..], repo.as_bytes()].concat();
        let mut body = self.body();
        body.put(content_hash);
        let body = envelope::signed(body, ObjectType::Pack, repo, signer);
        let (first, second) = entropy.split_at(32);
        let seed = |s: &[u8]| <[u8; 32]>::try_from(s).map_err(|_| FormatError::Truncated { what: WHAT });
        let mut out = Vec::with_capacity(body.len() + 8192 + TRAILER_LEN);
        let nonce = envelope::hedged_nonce(&seed(first)?, ObjectType::Pack, &body);
        out.put(&nonce);
        out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
        out.put(&body);
        let plain = (out.len() - 24).div_ceil(4096) * 4096;
        out.resize(24 + plain, 0);
        envelope::seal_tail(&key, &nonce, &aad, &mut out, 24);
        let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
        within("pack directory", length.into(), DIRECTORY_MAX.into())?;

        let mut locator = Vec::with_capacity(12);
        locator.put_u64(offset);
        locator.put_u32(length);
        let nonce = envelope::hedged_nonce(&seed(second)?, ObjectType::Pack, &locator);
        out.put(&plain_header);
        out.put(&nonce);
        let start = out.len();
        out.put(&locator);
        envelope::seal_tail(&key, &nonce, &[&aad[..], b"trailer"].concat(), &mut out, start);
        Ok(out)
    }

    /// Opens a sealed directory that starts at `offset` of its pack; checks every relation a reader relies on.
    /// Returns it with the hash of the bytes before it. The signature is checked by `verify(signer, body, sig)`.
    pub fn open(
        header: &PackHeader,
        sealed: &[u8],
        offset: u64,
        keyring: &Keyring,
        repo: &RepoId,
        verify: impl FnOnce(&ClientId, &[u8], &[u8; SIGNATURE_LEN]) -> Result<()>,
    ) -> Result<(Self, [u8; 32])> {
        let what = ObjectType::Pack.context();
        let aad = [&header.encode()[..], repo.as_bytes()].concat();
        let (nonce, sealed) = sealed.split_first_chunk().ok_or(FormatError::Truncated { what })?;
        let key = keyring.directory_key(header.epoch)?;
        let mut plain = envelope::open_sealed(what, &key, nonce, &aad, sealed)?;
        ensure(plain.len() % 4096 == 0, what, "not padded to 4 KiB")?;
        envelope::unpad(what, &mut plain)?;
        let (body, signature) = envelope::split_signature(ObjectType::Pack, &plain)?;
        let (directory, hash) = Self::decode(what, body)?;
        verify(&directory.signer, body, signature)?;
        directory.check(what, offset)?;
        Ok((directory, hash))
    }

    fn decode(what: &'static str, body: &[u8]) -> Result<(Self, [u8; 32])> {
        let mut r = Reader::new(what, body);
        let (run, signer) = (RunId::new(r.array()?), ClientId::new(r.array()?));
        let (frame_count, chunk_count) = (r.u32()?, r.u32()?);
        within("frames in a pack", frame_count.into(), PACK_FRAMES_MAX.into())?;
        within("chunks in a pack", chunk_count.into(), PACK_CHUNKS_MAX.into())?;
        let need = u64::from(frame_count) * 8 + u64::from(chunk_count) * 36 + 32;
        ensure(r.remaining() as u64 == need, what, "counts do not fit its length")?;
        let mut frames = Vec::with_capacity(frame_count as usize);
        for _ in 0..frame_count {
            frames.push(FrameEntry { sealed: r.u32()?, raw: r.u32()? });
        }
        let mut chunks = Vec::with_capacity(chunk_count as usize);
        for _ in 0..chunk_count {
            chunks.push(ChunkEntry { id: ChunkId::new(r.array()?), len: r.u32()? });
        }
        let hash = r.array()?;
        r.finish()?;
        Ok((Self { run, signer, frames, chunks }, hash))
    }

    /// Frames tile the object from header to directory; chunks tile the plain stream.
    fn check(&self, what: &'static str, offset: u64) -> Result<()> {
        let raw = check_frames(what, &self.frames, offset)?;
        let mut sum = 0u64;
        for c in &self.chunks {
            ensure(c.len > 0 && c.len <= CHUNK_MAX, what, "a chunk is empty or too long")?;
            sum = sum.saturating_add(c.len.into());
        }
        ensure(sum == raw, what, "chunks do not tile the frames")
    }
}

/// Checks a frame table whose frames must end at `end`; returns the plain length of the stream.
pub(crate) fn check_frames(what: &'static str, frames: &[FrameEntry], end: u64) -> Result<u64> {
    let (mut sealed, mut raw) = (HEADER_LEN as u64, 0u64);
    for (i, f) in frames.iter().enumerate() {
        within("frame", f.sealed.into(), FRAME_SEALED_MAX.into())?;
        within("frame", f.raw.into(), FRAME_RAW_MAX.into())?;
        ensure(f.sealed as usize > TAG_LEN, what, "a frame is empty")?;
        ensure(f.raw > 0 || i + 1 == frames.len(), what, "padding is not the last frame")?;
        sealed = sealed.saturating_add(f.sealed.into());
        raw = raw.saturating_add(f.raw.into());
    }
    within("pack", raw, PACK_RAW_MAX)?;
    within("pack", sealed, PACK_SIZE_MAX)?;
    ensure(sealed == end, what, "frames do not end where the directory starts")?;
    Ok(raw)
}

/// Where the directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The header, repeated.
    pub header: PackHeader,
    /// Offset of the sealed directory.
    pub offset: u64,
    /// Its length.
    pub length: u32,
}

impl Trailer {
    /// Opens the last [`TRAILER_LEN`] bytes of a pack of `size` bytes.
    pub fn open(bytes: &[u8], size: u64, keyring: &Keyring, repo: &RepoId) -> Result<Self> {
        let what = "pack trailer";
        ensure(bytes.len() == TRAILER_LEN, what, "wrong length")?;
        let header = PackHeader::decode(bytes)?;
        let mut r = Reader::new(what, bytes);
        let plain = r.bytes(HEADER_LEN)?;
        let nonce = r.array()?;
        let aad = [plain, repo.as_bytes(), b"trailer"].concat();
        let key = keyring.directory_key(header.epoch)?;
        let locator = envelope::open_sealed(what, &key, &nonce, &aad, r.bytes(r.remaining())?)?;
        let mut r = Reader::new(what, &locator);
        let (offset, length) = (r.u64()?, r.u32()?);
        r.finish()?;
        within("pack directory", length.into(), DIRECTORY_MAX.into())?;
        let end = offset.checked_add(length.into()).and_then(|e| e.checked_add(TRAILER_LEN as u64));
        ensure(
            end == Some(size) && offset >= HEADER_LEN as u64,
            what,
            "does not point at the directory before it",
        )?;
        Ok(Self { header, offset, length })
    }
}
