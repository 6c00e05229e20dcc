//! Parity sidecars (SPEC 18): a pack's shards, hashed, and as many Reed–Solomon recovery shards as were asked for.
//!
//! `head ‖ hashes ‖ recovery shards ‖ hashes ‖ head`. Nothing in it is secret or authenticated, so that a server
//! without keys can make it and use it; the pack's name, the hash of all its bytes, is the judge of every repair.

use crate::codec::{Reader, Write};
use crate::envelope::ObjectType;
use crate::error::{FormatError, Result, ensure, within};
use crate::id::PackName;
use crate::limits::{PACK_SIZE_MAX, PARITY_SHARD_MAX, PARITY_SHARDS_MAX};
use crate::{MAGIC, SUITE};
use reed_solomon_simd::engine::DefaultEngine;
use reed_solomon_simd::rate::{HighRateDecoder, HighRateEncoder, RateDecoder, RateEncoder};

const WHAT: &str = "parity sidecar";
/// Bytes of a head.
pub const HEAD_LEN: usize = 88;
/// Bytes of a shard as writers make them.
pub const SHARD_LEN: u32 = 64 << 10;
/// Per cent of recovery shards that local repositories are advised to have.
pub const PERCENT: u8 = 3;
const HASH_LEN: usize = 32;
/// Bytes of work memory: shards are coded in stripes of this much in all.
const STRIPES: usize = 1 << 20;

/// The shape of a sidecar; it stands at both ends of it.
///
/// ```text
/// magic[6] type u8 suite u8 shard-size u32 recovery-shards u32 pack-size u64 pack-name[32] checksum[32]
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The pack it belongs to.
    pub name: PackName,
    /// Bytes of that pack.
    pub size: u64,
    /// Bytes of a shard.
    pub shard: u32,
    /// Recovery shards.
    pub recovery: u32,
}

impl Head {
    /// The shape a writer gives the sidecar of a pack: shards of 64 KiB, `percent` of them again, at least one.
    pub fn new(name: PackName, size: u64, percent: u8) -> Result<Self> {
        ensure((1..=100).contains(&percent), WHAT, "its share is not 1 to 100 per cent")?;
        let data = size.div_ceil(SHARD_LEN.into());
        let recovery = data.saturating_mul(percent.into()).div_ceil(100);
        let recovery = u32::try_from(recovery).unwrap_or(u32::MAX);
        let head = Self { name, size, shard: SHARD_LEN, recovery };
        head.check()?;
        Ok(head)
    }

    /// The shape of a sidecar of `len` bytes whose heads are lost, if it has shards of 64 KiB and nothing was cut off.
    pub fn of_length(name: PackName, size: u64, len: u64) -> Option<Self> {
        let plain = Self { name, size, shard: SHARD_LEN, recovery: 0 };
        let each = u64::from(SHARD_LEN) + 2 * HASH_LEN as u64;
        let recovery = len.checked_sub(plain.object_len())?.checked_div(each)?;
        let head = Self { recovery: u32::try_from(recovery).ok()?, ..plain };
        (head.check().is_ok() && head.object_len() == len).then_some(head)
    }

    /// Data shards: pieces of the pack, the last one filled up with zeros.
    pub fn data(&self) -> u32 {
        u32::try_from(self.size.div_ceil(u64::from(self.shard).max(1))).unwrap_or(u32::MAX)
    }

    /// Bytes of one list of hashes.
    fn list_len(&self) -> usize {
        (self.data() as usize).saturating_add(self.recovery as usize).saturating_mul(HASH_LEN)
    }

    /// Bytes of the whole sidecar.
    pub fn object_len(&self) -> u64 {
        let ends = (HEAD_LEN as u64).saturating_add(self.list_len() as u64).saturating_mul(2);
        u64::from(self.recovery).saturating_mul(self.shard.into()).saturating_add(ends)
    }

    /// The bytes of the head.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_LEN);
        out.put(&MAGIC);
        out.put_u8(ObjectType::Parity as u8);
        out.put_u8(SUITE);
        out.put_u32(self.shard);
        out.put_u32(self.recovery);
        out.put_u64(self.size);
        out.put(self.name.as_bytes());
        let checksum = blake3::hash(&out);
        out.put(checksum.as_bytes());
        out
    }

    /// Reads a head from the start of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (text, _) = bytes.split_at_checked(HEAD_LEN).ok_or(FormatError::Truncated { what: WHAT })?;
        let mut r = Reader::new(WHAT, text);
        let foreign = FormatError::Foreign { what: WHAT };
        let magic = r.array::<6>()?;
        let (ty, suite) = (r.u8()?, r.u8()?);
        if magic != MAGIC || ty != ObjectType::Parity as u8 || suite != SUITE {
            return Err(foreign);
        }
        let (shard, recovery, size, name) = (r.u32()?, r.u32()?, r.u64()?, PackName::new(r.array()?));
        let covered = text.len().saturating_sub(HASH_LEN);
        let sum = blake3::hash(text.get(..covered).unwrap_or_default());
        ensure(r.array::<HASH_LEN>()? == *sum.as_bytes(), WHAT, "its checksum does not fit")?;
        let head = Self { name, size, shard, recovery };
        head.check()?;
        Ok(head)
    }

    fn check(&self) -> Result<()> {
        within("parity shard", self.shard.into(), PARITY_SHARD_MAX.into())?;
        ensure(self.shard > 0 && self.shard.is_multiple_of(64), WHAT, "its shard size is no multiple of 64")?;
        within("pack", self.size, PACK_SIZE_MAX)?;
        ensure(self.size > 0, WHAT, "it is for an empty pack")?;
        let (data, recovery) = (u64::from(self.data()), u64::from(self.recovery));
        ensure(
            recovery > 0 && recovery <= data,
            WHAT,
            "it has no recovery shards, or more than data shards",
        )?;
        within("parity shards", data + recovery.next_power_of_two(), PARITY_SHARDS_MAX.into())
    }
}

/// A new sidecar, in the pieces it is put in.
pub struct Made {
    head: Vec<u8>,
    list: Vec<u8>,
    recovery: Vec<u8>,
}

impl Made {
    /// Its bytes are the concatenation of these.
    pub fn parts(&self) -> [&[u8]; 5] {
        [&self.head, &self.list, &self.recovery, &self.list, &self.head]
    }
}

/// Makes the sidecar of a pack whose bytes are the concatenation of `parts`. It depends on nothing else.
pub fn create(name: PackName, parts: &[&[u8]], percent: u8) -> Result<Made> {
    let size = parts.iter().map(|p| p.len() as u64).sum();
    create_as(&Head::new(name, size, percent)?, parts)
}

/// Makes a sidecar of the shape `head`.
pub fn create_as(head: &Head, parts: &[&[u8]]) -> Result<Made> {
    head.check()?;
    let shard = head.shard as usize;
    let recovery = encode(head, parts)?;
    let mut list = Vec::with_capacity(head.list_len());
    let (mut at, mut zeros) = (0, Vec::new());
    for _ in 0..head.data() {
        let mut hasher = blake3::Hasher::new();
        let missing = shard - for_each(parts, at, shard, |piece| _ = hasher.update(piece));
        zeros.resize(missing, 0);
        hasher.update(&zeros);
        list.put(hasher.finalize().as_bytes());
        at = at.saturating_add(shard);
    }
    for piece in recovery.chunks(shard) {
        list.put(blake3::hash(piece).as_bytes());
    }
    Ok(Made { head: head.encode(), list, recovery })
}

/// The recovery shards.
fn encode(head: &Head, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let (shard, data) = (head.shard as usize, head.data() as usize);
    let mut out = vec![0; shard.saturating_mul(head.recovery as usize)];
    if head.recovery == 1 {
        // The one equation is the sum; the coder's tables would cost more than small packs take.
        let mut scratch = Vec::new();
        for number in 0..data {
            let piece = slice(parts, number.saturating_mul(shard), shard, &mut scratch);
            out.iter_mut().zip(piece).for_each(|(sum, byte)| *sum ^= byte);
        }
        return Ok(out);
    }
    let width = stripe(data, shard);
    let (mut work, mut scratch) = (None, Vec::new());
    let mut from = 0;
    while from < shard {
        let len = width.min(shard - from);
        let engine = DefaultEngine::new();
        let mut encoder =
            HighRateEncoder::new(data, head.recovery as usize, len, engine, work).map_err(code)?;
        for number in 0..data {
            let start = number.saturating_mul(shard).saturating_add(from);
            encoder.add_original_shard(slice(parts, start, len, &mut scratch)).map_err(code)?;
        }
        for (piece, row) in encoder.encode().map_err(code)?.recovery_iter().zip(out.chunks_mut(shard)) {
            if let Some(place) = row.get_mut(from..from + len) {
                place.copy_from_slice(piece);
            }
        }
        work = Some(encoder.into_parts().1);
        from += len;
    }
    Ok(out)
}

/// Bytes of each of `shards` shards that are coded at once.
fn stripe(shards: usize, shard: usize) -> usize {
    (STRIPES / shards.max(1) / 64 * 64).clamp(64, shard.max(64))
}

/// The coder refuses nothing that [`Head::check`] allows.
fn code(_: reed_solomon_simd::Error) -> FormatError {
    FormatError::invalid(WHAT, "its shards cannot be coded")
}

/// Calls `each` with the pieces of `parts` that hold the `len` bytes from `from`; gives how many there were.
fn for_each<'a>(parts: &[&'a [u8]], from: usize, len: usize, mut each: impl FnMut(&'a [u8])) -> usize {
    let (mut skip, mut left) = (from, len);
    for part in parts {
        let rest = part.get(skip..).unwrap_or_default();
        skip = skip.saturating_sub(part.len());
        let piece = rest.get(..left.min(rest.len())).unwrap_or_default();
        if !piece.is_empty() {
            each(piece);
            left -= piece.len();
        }
    }
    len - left
}

/// `len` bytes from `from`, filled up with zeros; in place if one part has them all.
fn slice<'a>(parts: &[&'a [u8]], from: usize, len: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
    let mut whole = None;
    scratch.clear();
    for_each(parts, from, len, |piece| {
        if piece.len() == len {
            whole = Some(piece);
        } else {
            scratch.extend_from_slice(piece);
        }
    });
    whole.unwrap_or_else(|| {
        scratch.resize(len, 0);
        scratch
    })
}

/// A sidecar that was read: as much of it as is there.
pub struct Sidecar<'a> {
    head: Head,
    lists: [&'a [u8]; 2],
    recovery: &'a [u8],
    bytes: &'a [u8],
}

/// A pack as it was, and how much of it had to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repaired {
    /// All bytes of the pack.
    pub bytes: Vec<u8>,
    /// Data shards that were damaged.
    pub shards: u32,
}

impl<'a> Sidecar<'a> {
    /// Reads the sidecar of the pack `name`. One good head is enough; which of the rest is good shows when it is used.
    pub fn parse(bytes: &'a [u8], name: &PackName) -> Result<Self> {
        let read = |at: Option<usize>| {
            let head = Head::decode(at.and_then(|at| bytes.get(at..)).unwrap_or_default())?;
            ensure(head.name == *name, WHAT, "it belongs to another pack")?;
            Ok(head)
        };
        let last = bytes.len().checked_sub(HEAD_LEN);
        let head = read(Some(0)).or_else(|e| read(last).map_err(|_| e))?;
        let list = head.list_len();
        let (_, rest) = bytes.split_at_checked(HEAD_LEN).unwrap_or_default();
        let (front, recovery) = rest.split_at_checked(list).unwrap_or((rest, &[]));
        let back = last.and_then(|end| bytes.get(end.checked_sub(list)?..end)).unwrap_or_default();
        Ok(Self { head, lists: [front, back], recovery, bytes })
    }

    /// Its shape.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// True if every byte of the sidecar is as it was made, as far as it can tell by itself.
    pub fn intact(&self) -> bool {
        let (text, [front, back]) = (self.head.encode(), self.lists);
        self.bytes.len() as u64 == self.head.object_len()
            && self.bytes.starts_with(&text)
            && self.bytes.ends_with(&text)
            && front == back
            && (0..self.head.recovery).all(|i| self.recovery(i).is_some())
    }

    /// True if a shard's hash stands at its place in either list.
    fn is_listed(&self, number: u32, hash: &blake3::Hash) -> bool {
        let at = (number as usize).saturating_mul(HASH_LEN);
        let place = at..at.saturating_add(HASH_LEN);
        self.lists.iter().any(|list| list.get(place.clone()) == Some(hash.as_bytes()))
    }

    /// A recovery shard, if it is good.
    fn recovery(&self, number: u32) -> Option<&'a [u8]> {
        let shard = self.head.shard as usize;
        let at = (number as usize).saturating_mul(shard);
        let bytes = self.recovery.get(at..at.saturating_add(shard))?;
        let listed = self.is_listed(self.head.data().saturating_add(number), &blake3::hash(bytes));
        listed.then_some(bytes)
    }

    /// The numbers of the data shards of `pack` that are damaged or missing.
    pub fn damaged(&self, pack: &[u8]) -> Vec<u32> {
        let shard = self.head.shard as usize;
        let zeros = vec![0; shard];
        let absent = blake3::hash(&zeros);
        let mut out = Vec::new();
        for number in 0..self.head.data() {
            let at = (number as usize).saturating_mul(shard);
            let end = at.saturating_add(shard).min(usize::try_from(self.head.size).unwrap_or(usize::MAX));
            let rest = pack.get(at..).unwrap_or_default();
            let bytes = rest.get(..end.saturating_sub(at)).unwrap_or(rest);
            let hash = match bytes.len() {
                // Hashed once: what the head claims costs nothing.
                0 => absent,
                n => {
                    blake3::Hasher::new().update(bytes).update(zeros.get(n..).unwrap_or_default()).finalize()
                }
            };
            if !self.is_listed(number, &hash) {
                out.push(number);
            }
        }
        out
    }

    /// The pack as it was, from what is left of it in `pack`: damaged, cut short, or with bytes behind its end. The
    /// result hashes to the pack's name, or there is none.
    pub fn repair(&self, pack: &[u8]) -> Result<Repaired> {
        let damaged = self.damaged(pack);
        let good: Vec<(usize, &[u8])> =
            (0..self.head.recovery).filter_map(|i| Some((i as usize, self.recovery(i)?))).collect();
        if damaged.len() > good.len() {
            let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            return Err(FormatError::BeyondParity { damaged: count(damaged.len()), left: count(good.len()) });
        }
        // From here on memory is bounded by the bytes given: all shards but as many as there are good ones of parity.
        let (shard, size) = (self.head.shard as usize, usize::try_from(self.head.size).unwrap_or(usize::MAX));
        let mut bytes = Vec::with_capacity(shard.saturating_mul(self.head.data() as usize));
        bytes.extend_from_slice(pack.get(..size).unwrap_or(pack));
        bytes.resize(shard.saturating_mul(self.head.data() as usize), 0);
        if !damaged.is_empty() {
            self.decode(&mut bytes, &damaged, &good)?;
        }
        bytes.truncate(size);
        let right = blake3::hash(&bytes).as_bytes() == self.head.name.as_bytes();
        ensure(right, WHAT, "the bytes it gives do not hash to the pack's name")?;
        Ok(Repaired { bytes, shards: u32::try_from(damaged.len()).unwrap_or(u32::MAX) })
    }

    /// Puts the damaged shards of `bytes` right, stripe by stripe.
    fn decode(&self, bytes: &mut [u8], damaged: &[u32], good: &[(usize, &[u8])]) -> Result<()> {
        let (shard, data) = (self.head.shard as usize, self.head.data() as usize);
        // Each stripe costs the same again, whatever its width: four times those of the encoder.
        let width = stripe(data.next_power_of_two().div_ceil(4), shard);
        let (mut work, mut from) = (None, 0);
        while from < shard {
            let len = width.min(shard - from);
            let (engine, m) = (DefaultEngine::new(), self.head.recovery as usize);
            let mut decoder = HighRateDecoder::new(data, m, len, engine, work).map_err(code)?;
            for (number, row) in (0u32..).zip(bytes.chunks(shard)) {
                if let (Err(_), Some(piece)) = (damaged.binary_search(&number), row.get(from..from + len)) {
                    decoder.add_original_shard(number as usize, piece).map_err(code)?;
                }
            }
            for (number, row) in good.iter().take(damaged.len()) {
                let piece = row.get(from..from + len).unwrap_or_default();
                decoder.add_recovery_shard(*number, piece).map_err(code)?;
            }
            for (number, piece) in decoder.decode().map_err(code)?.restored_original_iter() {
                let at = number.saturating_mul(shard).saturating_add(from);
                if let Some(place) = bytes.get_mut(at..at.saturating_add(len)) {
                    place.copy_from_slice(piece);
                }
            }
            work = Some(decoder.into_parts().1);
            from += len;
        }
        Ok(())
    }
}
