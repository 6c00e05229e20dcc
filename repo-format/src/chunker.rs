//! The content-defined chunker's parameters and its secret tables (SPEC 8). The scan itself is
//! `fastcdc::v2020::cut_gear`, driven by the engine; [`cut_reference`] is the rule in its slowest form.

use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result, ensure, within};
use crate::keys::Secret;
use crate::limits::CHUNK_MAX;
use zeroize::ZeroizeOnDrop;

const WHAT: &str = "chunker";

/// Sizes of the gear chunker (FastCDC 2020) in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerParams {
    /// No chunk but the last of a file is smaller.
    pub min: u32,
    /// The size cut points are normalised around; a power of two.
    pub avg: u32,
    /// No chunk is larger.
    pub max: u32,
}

impl ChunkerParams {
    /// 32 KiB, 128 KiB, 512 KiB (SPEC 8, rationale).
    pub const DEFAULT: Self = Self { min: 32 << 10, avg: 128 << 10, max: 512 << 10 };

    /// Checks the relations the scan relies on.
    pub fn validate(&self) -> Result<()> {
        within("chunk size", self.max.into(), CHUNK_MAX.into())?;
        let ordered = self.min >= 64 && self.min < self.avg && self.avg < self.max;
        ensure(ordered, WHAT, "sizes must be 64 <= min < avg < max")?;
        let shape = self.avg.is_power_of_two() && self.min.is_multiple_of(2) && self.max.is_multiple_of(2);
        ensure(shape, WHAT, "avg must be a power of two, min and max even")?;
        ensure((256..=4 << 20).contains(&self.avg), WHAT, "avg must be 256 B to 4 MiB")
    }

    pub(crate) fn to_value(self) -> Value {
        let uint = |v: u32| Some(Value::Uint(v.into()));
        map([(1, uint(1)), (2, uint(self.min)), (3, uint(self.avg)), (4, uint(self.max))], &[])
    }

    pub(crate) fn from_value(value: Option<Value>) -> Result<Self> {
        let value = value.ok_or(FormatError::invalid(WHAT, "missing"))?;
        let mut f = Fields::from_value(WHAT, value)?;
        ensure(f.uint(1)? == 1, WHAT, "unknown chunker")?;
        let params = Self { min: f.uint32(2)?, avg: f.uint32(3)?, max: f.uint32(4)? };
        params.validate()?;
        Ok(params)
    }
}

/// The secret table and masks of one domain. `shifted` and the `_shifted` masks are one bit to the left, as
/// the two-bytes-at-a-time scan wants them.
#[derive(ZeroizeOnDrop)]
pub struct Gear {
    /// The gear table.
    pub table: Box<[u64; 256]>,
    /// The gear table, each value shifted left by one.
    pub shifted: Box<[u64; 256]>,
    /// The mask before `avg` (more bits: cuts are rarer).
    pub mask_small: u64,
    /// The mask from `avg` on (fewer bits).
    pub mask_large: u64,
}

impl Gear {
    /// Table and masks from the chunker key: the XOF gives 256 little-endian u64, then a shuffle of the bit
    /// positions 16 to 62 (Fisher-Yates, one u64 each, modulo); `mask_small` takes the first log2(avg) + 2 of
    /// them, `mask_large` the first log2(avg) - 2.
    pub fn derive(key: &Secret, params: &ChunkerParams) -> Self {
        let mut xof = blake3::Hasher::new_keyed(key.expose()).update(b"gear").finalize_xof();
        let mut next = || {
            let mut b = [0; 8];
            xof.fill(&mut b);
            u64::from_le_bytes(b)
        };
        let mut table = Box::new([0u64; 256]);
        table.iter_mut().for_each(|v| *v = next());
        let mut shifted = Box::new([0u64; 256]);
        shifted.iter_mut().zip(table.iter()).for_each(|(s, v)| *s = v << 1);
        let mut bits: Vec<u32> = (16..=62).collect();
        for i in (1..bits.len()).rev() {
            let j = usize::try_from(next() % (i as u64 + 1)).unwrap_or(0);
            bits.swap(i, j);
        }
        let mask = |n: u32| bits.iter().take(n as usize).fold(0u64, |m, b| m | 1 << b);
        let log2 = params.avg.ilog2();
        Self { table, shifted, mask_small: mask(log2 + 2), mask_large: mask(log2.saturating_sub(2)) }
    }
}

/// The length of the first chunk of `data`, byte by byte as SPEC 8.2 words it. For tests and other readers.
pub fn cut_reference(data: &[u8], p: &ChunkerParams, gear: &Gear) -> usize {
    let (min, avg, max) = (p.min as usize, p.avg as usize, p.max as usize);
    if data.len() <= min {
        return data.len();
    }
    let end = data.len().min(max) & !1;
    let mut hash = 0u64;
    for (i, byte) in data.iter().enumerate().take(end).skip(min) {
        let value = gear.table.get(usize::from(*byte)).copied().unwrap_or(0);
        hash = (hash << 1).wrapping_add(value);
        let mask = if i < avg { gear.mask_small } else { gear.mask_large };
        if hash & mask == 0 {
            return i;
        }
    }
    data.len().min(max)
}
