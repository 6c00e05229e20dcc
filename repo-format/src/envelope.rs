//! The envelope of small objects (SPEC 6): header, nonce, sealed and padded body; signed bodies.
//!
//! ```text
//! magic[6] type u8 suite u8 epoch u16 stanza-type u16 stanza-length u16 stanza… nonce[24] sealed… tag[16]
//! ```
//! The plaintext is `length u32 ‖ body ‖ zeros`; the AAD is everything before the nonce, and the repository id.

use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::RepoId;
use crate::keys::{ClientKey, SIGNATURE_LEN, Secret};
use crate::limits::{INDEX_MAX, OBJECT_MAX};
use crate::{MAGIC, SUITE, padding};
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// The type byte of each object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectType {
    /// A config generation.
    Config = 1,
    /// A key slot.
    Slot = 2,
    /// A pack.
    Pack = 3,
    /// An index run.
    Index = 4,
    /// An announcement.
    Announcement = 5,
    /// A verdict.
    Verdict = 6,
    /// A death.
    Death = 7,
    /// A mark.
    Mark = 8,
    /// A hold.
    Hold = 9,
    /// A client certificate.
    Client = 10,
    /// A ledger record.
    Record = 11,
    /// A parity sidecar.
    Parity = 12,
    /// A forget.
    Forget = 13,
}

impl ObjectType {
    /// What errors and signatures call it.
    pub const fn context(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Slot => "key slot",
            Self::Pack => "pack directory",
            Self::Index => "index run",
            Self::Announcement => "announcement",
            Self::Verdict => "snapshot",
            Self::Death => "death",
            Self::Mark => "mark",
            Self::Hold => "hold",
            Self::Client => "client certificate",
            Self::Record => "record",
            Self::Parity => "parity",
            Self::Forget => "forget",
        }
    }
}

/// The key is derived from a root secret by epoch and type; no stanza bytes.
pub const STANZA_DERIVED: u16 = 0;
/// Reserved: X-Wing to the repository read key.
pub const STANZA_XWING: u16 = 1;
/// The key is the ring key; the stanza is repository id ‖ ring id. Only in configs.
pub const STANZA_RING: u16 = 2;

const FIXED: usize = 14;
const NONCE: usize = 24;
const TAG: usize = 16;

/// The plain part of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The object's type.
    pub object_type: ObjectType,
    /// The epoch of the sealing key; 0 in configs.
    pub epoch: u16,
    /// The stanza type.
    pub stanza_type: u16,
    /// The stanza bytes.
    pub stanza: Vec<u8>,
}

impl Header {
    /// A header with a derived key.
    pub fn derived(object_type: ObjectType, epoch: u16) -> Self {
        Self { object_type, epoch, stanza_type: STANZA_DERIVED, stanza: Vec::new() }
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.stanza.len());
        out.put(&MAGIC);
        out.put_u8(self.object_type as u8);
        out.put_u8(SUITE);
        out.put_u16(self.epoch);
        out.put_u16(self.stanza_type);
        out.put_u16(u16::try_from(self.stanza.len()).unwrap_or(u16::MAX));
        out.put(&self.stanza);
        out
    }

    /// Reads the header of an object that must have the type `expected`.
    pub fn decode(expected: ObjectType, bytes: &[u8]) -> Result<(Self, usize)> {
        let what = expected.context();
        let mut r = Reader::new(what, bytes);
        let foreign = FormatError::Foreign { what };
        if r.array::<6>()? != MAGIC {
            return Err(foreign);
        }
        ensure(r.u8()? == expected as u8, what, "an object of another type lies under this name")?;
        if r.u8()? != SUITE {
            return Err(foreign);
        }
        let (epoch, stanza_type, stanza_len) = (r.u16()?, r.u16()?, r.u16()?);
        let stanza = r.bytes(usize::from(stanza_len))?.to_vec();
        let known = match stanza_type {
            STANZA_DERIVED => expected != ObjectType::Config && stanza.is_empty(),
            STANZA_RING => expected == ObjectType::Config && stanza.len() == 48 && epoch == 0,
            _ => false,
        };
        ensure(known, what, "unknown key stanza")?;
        Ok((Self { object_type: expected, epoch, stanza_type, stanza }, bytes.len() - r.remaining()))
    }
}

/// Seals `body`. `entropy` is 32 fresh bytes from the operating system; the nonce also depends on the
/// body, so a repeated entropy value alone does not repeat a nonce.
pub fn seal(header: &Header, repo: &RepoId, key: &Secret, entropy: &[u8; 32], body: &[u8]) -> Vec<u8> {
    let mut out = header.encode();
    let mut aad = out.clone();
    aad.put(repo.as_bytes());
    let nonce = hedged_nonce(entropy, header.object_type, body);
    out.put(&nonce);
    let start = out.len();
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put(body);
    let full = (out.len() + TAG) as u64;
    let padded = match header.object_type {
        ObjectType::Index => padding::index_size(full),
        _ => padding::envelope_size(full),
    };
    out.resize(usize::try_from(padded).unwrap_or(out.len()).saturating_sub(TAG).max(out.len()), 0);
    seal_tail(key, &nonce, &aad, &mut out, start);
    out
}

/// `BLAKE3_keyed(entropy; type ‖ body)[..24]`.
pub(crate) fn hedged_nonce(entropy: &[u8; 32], ty: ObjectType, body: &[u8]) -> [u8; NONCE] {
    let mut h = blake3::Hasher::new_keyed(entropy);
    h.update(&[ty as u8]).update(body);
    let mut nonce = [0; NONCE];
    h.finalize_xof().fill(&mut nonce);
    nonce
}

/// Encrypts `out[start..]` in place and appends the tag.
pub(crate) fn seal_tail(key: &Secret, nonce: &[u8; NONCE], aad: &[u8], out: &mut Vec<u8>, start: usize) {
    let cipher = XChaCha20Poly1305::new(key.expose().into());
    let tail = out.get_mut(start..).unwrap_or_default();
    // The only error is a message of 256 GiB; every caller is bounded by limits far below.
    let Ok(tag) = cipher.encrypt_inout_detached(&XNonce::from(*nonce), aad, tail.into()) else {
        out.clear();
        return;
    };
    out.put(&tag);
}

/// Decrypts `sealed` (ciphertext ‖ tag) with XChaCha20-Poly1305.
pub(crate) fn open_sealed(
    what: &'static str,
    key: &Secret,
    nonce: &[u8; NONCE],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Vec<u8>> {
    let (text, tag) = sealed.split_last_chunk::<TAG>().ok_or(FormatError::Truncated { what })?;
    let mut text = text.to_vec();
    XChaCha20Poly1305::new(key.expose().into())
        .decrypt_inout_detached(&XNonce::from(*nonce), aad, text.as_mut_slice().into(), &(*tag).into())
        .map_err(|_| FormatError::Unauthentic { what })?;
    Ok(text)
}

/// Opens an object of the type `expected` and returns its header and body.
pub fn open(
    expected: ObjectType,
    repo: &RepoId,
    key: impl FnOnce(&Header) -> Result<Secret>,
    bytes: &[u8],
) -> Result<(Header, Vec<u8>)> {
    let what = expected.context();
    let limit = if expected == ObjectType::Index { INDEX_MAX } else { OBJECT_MAX };
    within(what, bytes.len() as u64, limit)?;
    let (header, len) = Header::decode(expected, bytes)?;
    let (plain, rest) = bytes.split_at_checked(len).ok_or(FormatError::Truncated { what })?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(FormatError::Truncated { what })?;
    let mut aad = plain.to_vec();
    aad.put(repo.as_bytes());
    let mut text = open_sealed(what, &key(&header)?, nonce, &aad, sealed)?;
    unpad(what, &mut text)?;
    Ok((header, text))
}

/// Strips `length u32` in front and the zeros behind.
pub(crate) fn unpad(what: &'static str, text: &mut Vec<u8>) -> Result<()> {
    let mut r = Reader::new(what, text);
    let len = usize::try_from(r.u32()?).unwrap_or(usize::MAX);
    r.bytes(len)?;
    ensure(r.bytes(r.remaining())?.iter().all(|b| *b == 0), what, "padding is not zero")?;
    text.truncate(len.saturating_add(4));
    text.drain(..4);
    Ok(())
}

/// `body ‖ signature`.
pub fn signed(body: Vec<u8>, ty: ObjectType, repo: &RepoId, key: &ClientKey) -> Vec<u8> {
    let signature = key.sign(ty.context(), repo, &body);
    let mut out = body;
    out.put(&signature);
    out
}

/// Splits `body ‖ signature`; the caller verifies once it knows the signer.
pub fn split_signature(ty: ObjectType, bytes: &[u8]) -> Result<(&[u8], &[u8; SIGNATURE_LEN])> {
    bytes.split_last_chunk().ok_or(FormatError::Truncated { what: ty.context() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn seals_open_and_every_flipped_bit_is_found(body in proptest::collection::vec(any::<u8>(), 0..300), bit in 0usize..4096 * 8) {
            let (repo, key) = (RepoId::new([7; 32]), Secret::new([8; 32]));
            let header = Header::derived(ObjectType::Mark, 3);
            let mut sealed = seal(&header, &repo, &key, &[9; 32], &body);
            prop_assert_eq!(sealed.len(), 4096);
            let opened = open(ObjectType::Mark, &repo, |h| { assert_eq!(h.epoch, 3); Ok(key.duplicate()) }, &sealed).unwrap();
            prop_assert_eq!(&opened.1, &body);
            prop_assert!(open(ObjectType::Hold, &repo, |_| Ok(key.duplicate()), &sealed).is_err());
            prop_assert!(open(ObjectType::Mark, &RepoId::new([1; 32]), |_| Ok(key.duplicate()), &sealed).is_err());
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(ObjectType::Mark, &repo, |_| Ok(key.duplicate()), &sealed).is_err());
        }
    }
}
