//! Key slots (SPEC 5.1): each seals the ring key under one secret, and commits to that secret.
//!
//! ```text
//! magic[6] type u8 suite u8 kind u8 0 u8 m u32 t u32 p u32 salt[32] commitment[32] nonce[24] sealed[256] tag[16] checksum[32]
//! ```
//! The checksum is plain BLAKE3 of everything before it: it tells a damaged slot from a wrong secret, and lets `check`
//! find damage in slots it cannot open. It is no protection against anyone: the commitment and the tag are.

use crate::cbor::{Fields, Value, map};
use crate::codec::{Reader, Write};
use crate::envelope::{self, ObjectType};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::{RepoId, RingId};
use crate::keys::Secret;
use crate::limits::{ARGON2_LANES_MAX, ARGON2_MEMORY_MIN_KIB, ARGON2_PASSES_MAX};
use crate::{MAGIC, SUITE};
use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use unicode_normalization::UnicodeNormalization;
use zeroize::{Zeroize, Zeroizing};

const WHAT: &str = "key slot";
const PLAIN: usize = 256;
const FIXED: usize = 6 + 4 + 12 + 32 + 32;
/// Every slot object has this size.
pub const SLOT_LEN: usize = FIXED + 24 + PLAIN + 16 + CHECKSUM;
const CHECKSUM: usize = 32;

/// What kind of secret opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotKind {
    /// A passphrase, stretched by Argon2id.
    Passphrase,
    /// The recovery key printed at `init`.
    Recovery,
    /// A key file.
    KeyFile,
}

impl SlotKind {
    const fn byte(self) -> u8 {
        match self {
            Self::Passphrase => 1,
            Self::Recovery => 2,
            Self::KeyFile => 3,
        }
    }
    /// The word users see.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Passphrase => "passphrase",
            Self::Recovery => "recovery",
            Self::KeyFile => "key-file",
        }
    }
}

/// Argon2id cost parameters; all zero in slots without Argon2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Argon2Params {
    /// 128 MiB, 3 passes, 4 lanes: 0.30 to 0.36 s on two cores (SPEC 5.1, rationale).
    pub const DEFAULT: Self = Self { memory_kib: 128 << 10, passes: 3, lanes: 4 };
    const NONE: Self = Self { memory_kib: 0, passes: 0, lanes: 0 };
}

/// A secret as a user gives it.
pub enum SlotSecret {
    /// A passphrase as typed.
    Passphrase(Zeroizing<Vec<u8>>),
    /// The 32 bytes of a recovery key or key file.
    Key(Secret),
}

impl SlotSecret {
    /// A passphrase.
    pub fn passphrase(text: &[u8]) -> Self {
        Self::Passphrase(Zeroizing::new(text.to_vec()))
    }
}

/// What a slot gives: the ring key, which ring it is, and the words its owner gave it.
pub struct Opened {
    /// The generation of the ring key.
    pub ring: RingId,
    /// The ring key.
    pub key: Secret,
    /// The label.
    pub label: String,
    /// Seconds since 1970 when the slot was made.
    pub created: i64,
}

/// A parsed slot that was not opened yet.
pub struct Slot {
    /// The kind of secret it wants.
    pub kind: SlotKind,
    /// Its cost.
    pub params: Argon2Params,
    salt: [u8; 32],
    commitment: [u8; 32],
    nonce: [u8; 24],
    sealed: Vec<u8>,
    fixed: Vec<u8>,
}

/// Makes a slot. `entropy` gives 64 fresh bytes: salt and nonce.
pub fn seal(
    repo: &RepoId,
    kind: SlotKind,
    params: Argon2Params,
    secret: &SlotSecret,
    content: &Opened,
    entropy: &[u8; 64],
) -> Result<Vec<u8>> {
    let params = if kind == SlotKind::Passphrase { params } else { Argon2Params::NONE };
    if kind == SlotKind::Passphrase {
        let low = params.memory_kib < ARGON2_MEMORY_MIN_KIB && !cfg!(feature = "weak-kdf");
        ensure(!low, WHAT, "Argon2 memory below 64 MiB")?;
    }
    let (salt, nonce_seed) = entropy.split_at(32);
    let salt: [u8; 32] = salt.try_into().map_err(|_| FormatError::Truncated { what: WHAT })?;
    let seed: [u8; 32] = nonce_seed.try_into().map_err(|_| FormatError::Truncated { what: WHAT })?;
    let (kek, commitment) = stretch(kind, params, secret, &salt)?;
    let mut out = Vec::with_capacity(SLOT_LEN);
    out.put(&MAGIC);
    out.put(&[ObjectType::Slot as u8, SUITE, kind.byte(), 0]);
    out.put_u32(params.memory_kib);
    out.put_u32(params.passes);
    out.put_u32(params.lanes);
    out.put(&salt);
    out.put(&commitment);
    let mut aad = out.clone();
    aad.put(repo.as_bytes());
    let mut label = content.label.clone();
    while label.len() > 128 {
        label.pop();
    }
    let mut body = map(
        [
            (1, Some(Value::bytes(content.ring.as_bytes()))),
            (2, Some(Value::bytes(content.key.expose()))),
            (3, Some(Value::text(label))),
            (4, Some(Value::int(content.created))),
        ],
        &[],
    )
    .encode();
    let nonce = envelope::hedged_nonce(&seed, ObjectType::Slot, &body);
    out.put(&nonce);
    let start = out.len();
    out.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    out.put(&body);
    body.zeroize();
    out.resize(start + PLAIN, 0);
    envelope::seal_tail(&kek, &nonce, &aad, &mut out, start);
    let checksum = *blake3::hash(&out).as_bytes();
    out.put(&checksum);
    Ok(out)
}

impl Slot {
    /// Parses a slot; Argon2 parameters above the reader's caps are refused before any memory is taken.
    pub fn decode(bytes: &[u8], memory_cap_kib: u32) -> Result<Self> {
        ensure(bytes.len() == SLOT_LEN, WHAT, "wrong length")?;
        let (bytes, checksum) =
            bytes.split_last_chunk::<CHECKSUM>().ok_or(FormatError::Truncated { what: WHAT })?;
        let mut r = Reader::new(WHAT, bytes);
        if r.array::<6>()? != MAGIC {
            return Err(FormatError::Foreign { what: WHAT });
        }
        ensure(r.u8()? == ObjectType::Slot as u8, WHAT, "an object of another type lies under this name")?;
        if r.u8()? != SUITE {
            return Err(FormatError::Foreign { what: WHAT });
        }
        let kind = match r.u8()? {
            1 => SlotKind::Passphrase,
            2 => SlotKind::Recovery,
            3 => SlotKind::KeyFile,
            _ => return Err(FormatError::invalid(WHAT, "unknown kind of slot")),
        };
        ensure(r.u8()? == 0, WHAT, "reserved byte is not zero")?;
        let params = Argon2Params { memory_kib: r.u32()?, passes: r.u32()?, lanes: r.u32()? };
        if kind == SlotKind::Passphrase {
            within("Argon2 memory (KiB)", params.memory_kib.into(), memory_cap_kib.into())?;
            within("Argon2 passes", params.passes.into(), ARGON2_PASSES_MAX.into())?;
            within("Argon2 lanes", params.lanes.into(), ARGON2_LANES_MAX.into())?;
            ensure(params.passes > 0 && params.lanes > 0, WHAT, "Argon2 parameters are zero")?;
        } else {
            ensure(params == Argon2Params::NONE, WHAT, "Argon2 parameters in a slot without Argon2")?;
        }
        let fixed = bytes.get(..FIXED).unwrap_or_default().to_vec();
        // After magic and type, so that something else entirely is called that, and not damaged.
        ensure(blake3::hash(bytes) == *checksum, WHAT, "its checksum does not fit: it is damaged")?;
        let (salt, commitment, nonce) = (r.array()?, r.array()?, r.array()?);
        let sealed = r.bytes(r.remaining())?.to_vec();
        Ok(Self { kind, params, salt, commitment, nonce, sealed, fixed })
    }

    /// Opens the slot, or `Ok(None)` when the secret is not the one it commits to.
    pub fn open(&self, repo: &RepoId, secret: &SlotSecret) -> Result<Option<Opened>> {
        let fits = matches!(
            (self.kind, secret),
            (SlotKind::Passphrase, SlotSecret::Passphrase(_))
                | (SlotKind::Recovery | SlotKind::KeyFile, SlotSecret::Key(_))
        );
        if !fits {
            return Ok(None);
        }
        let (kek, commitment) = stretch(self.kind, self.params, secret, &self.salt)?;
        if !bool::from(commitment.ct_eq(&self.commitment)) {
            return Ok(None);
        }
        let mut aad = self.fixed.clone();
        aad.put(repo.as_bytes());
        let mut body = Zeroizing::new(envelope::open_sealed(WHAT, &kek, &self.nonce, &aad, &self.sealed)?);
        envelope::unpad(WHAT, &mut body)?;
        let mut f = Fields::decode(WHAT, &body)?;
        Ok(Some(Opened {
            ring: RingId::new(f.array(1)?),
            key: Secret::new(f.array(2)?),
            label: f.text(3)?,
            created: f.int(4)?,
        }))
    }
}

/// The key-encryption key and the commitment of a secret.
fn stretch(
    kind: SlotKind,
    params: Argon2Params,
    secret: &SlotSecret,
    salt: &[u8; 32],
) -> Result<(Secret, [u8; 32])> {
    let mut out = Zeroizing::new([0u8; 64]);
    match secret {
        SlotSecret::Passphrase(text) => {
            let text = normalise(text);
            let bad = FormatError::invalid(WHAT, "Argon2 refused its parameters or found no memory");
            let p = Params::new(params.memory_kib, params.passes, params.lanes, Some(64))
                .map_err(|_| bad.clone())?;
            Argon2::new(Algorithm::Argon2id, Version::V0x13, p)
                .hash_password_into(&text, salt, out.as_mut())
                .map_err(|_| bad)?;
        }
        SlotSecret::Key(key) => {
            let mut h = blake3::Hasher::new_derive_key("bulla 1 slot key");
            h.update(&[kind.byte()]).update(salt).update(key.expose());
            h.finalize_xof().fill(out.as_mut());
        }
    }
    let (kek, commitment) = out.split_at(32);
    let take = |s: &[u8]| <[u8; 32]>::try_from(s).map_err(|_| FormatError::Truncated { what: WHAT });
    Ok((Secret::new(take(kek)?), take(commitment)?))
}

/// Unicode NFC, so that one passphrase typed on two systems is one passphrase. Bytes that are not UTF-8
/// are taken as they are.
fn normalise(text: &[u8]) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(match std::str::from_utf8(text) {
        Ok(s) => s.nfc().collect::<String>().into_bytes(),
        Err(_) => text.to_vec(),
    })
}

const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The printed form of 32 key bytes: `BULLA1-` and eight groups of seven Crockford base-32 digits; the last
/// three bytes are a checksum, so a slip of the pen is noticed (SPEC 5.2).
pub fn print_key(key: &Secret) -> Zeroizing<String> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(35));
    bytes.put(key.expose());
    bytes.put(&checksum(key.expose()));
    // As long as it will be: no shorter copy stays behind.
    let mut out = Zeroizing::new(String::with_capacity(6 + 8 * 8));
    out.push_str("BULLA1");
    let (mut acc, mut bits, mut digits) = (0u32, 0u32, 0usize);
    for b in bytes.iter() {
        acc = acc << 8 | u32::from(*b);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            if digits % 7 == 0 {
                out.push('-');
            }
            digits += 1;
            let digit = BASE32.get((acc >> bits & 31) as usize).copied().unwrap_or(b'0');
            out.push(char::from(digit));
        }
        acc &= (1 << bits) - 1;
    }
    out
}

/// Reads the printed form back; case, spaces and hyphens do not matter, `O` is 0, `I` and `L` are 1.
pub fn parse_key(text: &str) -> Result<Secret> {
    let bad = |reason| FormatError::Invalid { what: "key", reason };
    // One allocation, wiped after use: what is typed is the key itself.
    let mut clean = Zeroizing::new(String::with_capacity(text.len()));
    let marks = |c: &char| !c.is_whitespace() && *c != '-';
    text.chars().filter(marks).for_each(|c| clean.push(c.to_ascii_uppercase()));
    let digits = clean.strip_prefix("BULLA1").ok_or(bad("a printed key starts with BULLA1"))?;
    ensure(digits.len() == 56, "key", "a printed key has 8 groups of 7 characters")?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(36));
    let (mut acc, mut bits) = (0u32, 0u32);
    for c in digits.bytes() {
        let c = match c {
            b'O' => b'0',
            b'I' | b'L' => b'1',
            c => c,
        };
        let v = BASE32.iter().position(|b| *b == c).ok_or(bad("a character that no key has"))?;
        acc = acc << 5 | u32::try_from(v).unwrap_or(0);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.put_u8((acc >> bits & 0xff) as u8);
            acc &= (1 << bits) - 1;
        }
    }
    let key: [u8; 32] = bytes.first_chunk().copied().ok_or(bad("too short"))?;
    let matches = bytes.get(32..).is_some_and(|sum| bool::from(sum.ct_eq(&checksum(&key))));
    ensure(matches, "key", "its checksum does not fit: a character is mistyped or missing")?;
    Ok(Secret::new(key))
}

fn checksum(key: &[u8; 32]) -> [u8; 3] {
    let h = blake3::derive_key("bulla 1 printed key checksum", key);
    let [a, b, c, ..] = h;
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_keys_read_back_and_a_slip_is_noticed() {
        for seed in 0..50u8 {
            let key = Secret::new(*blake3::hash(&[seed]).as_bytes());
            let text = print_key(&key);
            assert_eq!(text.len(), 6 + 8 * 8);
            assert_eq!(parse_key(&text.to_lowercase().replace('-', " ")).unwrap().expose(), key.expose());
            assert!(parse_key(&format!("{}0", *text)).is_err(), "one character too many");
            for at in 7..text.len() {
                let mut bad = text.as_bytes().to_vec();
                if bad[at] == b'-' {
                    continue;
                }
                bad[at] = if bad[at] == b'7' { b'8' } else { b'7' };
                assert!(parse_key(std::str::from_utf8(&bad).unwrap()).is_err(), "{at}");
            }
        }
    }
}
