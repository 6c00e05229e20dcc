//! Little-endian integers, canonical varints and bounded slices: the alphabet of hand-specified objects.

use crate::error::{FormatError, Result, ensure};

/// Reads from a byte slice and never past its end.
#[derive(Clone)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader over `bytes`; `what` names the structure in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }
    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
    /// True when everything was read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
    /// The next `n` bytes.
    pub fn bytes(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(head)
    }
    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(FormatError::Truncated { what: self.what })?;
        self.rest = tail;
        Ok(*head)
    }
    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }
    /// Two bytes, little-endian.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }
    /// Four bytes, little-endian.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }
    /// Eight bytes, little-endian.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }
    /// A canonical LEB128 number: at most ten bytes, no superfluous zero byte at the end.
    pub fn varint(&mut self) -> Result<u64> {
        let mut value: u64 = 0;
        for (byte, shift) in self.rest.iter().zip((0..70).step_by(7)) {
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return Err(FormatError::invalid(self.what, "varint above 2^64"));
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                ensure(*byte != 0 || shift == 0, self.what, "varint not in its shortest form")?;
                self.rest = self.rest.get(shift / 7 + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        if self.rest.len() < 10 {
            return Err(FormatError::Truncated { what: self.what });
        }
        Err(FormatError::invalid(self.what, "varint longer than ten bytes"))
    }
    /// A varint that fits 32 bits.
    pub fn varint32(&mut self) -> Result<u32> {
        u32::try_from(self.varint()?).map_err(|_| FormatError::invalid(self.what, "number above 2^32"))
    }
    /// A zigzag varint.
    pub fn zigzag(&mut self) -> Result<i64> {
        let v = self.varint()?;
        Ok((v >> 1).cast_signed() ^ (v & 1).cast_signed().wrapping_neg())
    }
    /// A varint length, at most `max`, and that many bytes.
    pub fn prefixed(&mut self, max: usize) -> Result<&'a [u8]> {
        let len = self.varint()?;
        let len = usize::try_from(len).ok().filter(|l| *l <= max).ok_or(FormatError::Limit {
            what: self.what,
            value: len,
            limit: max as u64,
        })?;
        self.bytes(len)
    }
    /// Nothing may be left.
    pub fn finish(self) -> Result<()> {
        ensure(self.rest.is_empty(), self.what, "trailing bytes")
    }
}

/// Appends values; the mirror of [`Reader`].
pub trait Write {
    /// Raw bytes.
    fn put(&mut self, bytes: &[u8]);
    /// One byte.
    fn put_u8(&mut self, v: u8) {
        self.put(&[v]);
    }
    /// Two bytes, little-endian.
    fn put_u16(&mut self, v: u16) {
        self.put(&v.to_le_bytes());
    }
    /// Four bytes, little-endian.
    fn put_u32(&mut self, v: u32) {
        self.put(&v.to_le_bytes());
    }
    /// Eight bytes, little-endian.
    fn put_u64(&mut self, v: u64) {
        self.put(&v.to_le_bytes());
    }
    /// A canonical varint.
    fn put_varint(&mut self, mut v: u64) {
        while v >= 0x80 {
            self.put_u8((v & 0x7f) as u8 | 0x80);
            v >>= 7;
        }
        self.put_u8((v & 0x7f) as u8);
    }
    /// A zigzag varint.
    fn put_zigzag(&mut self, v: i64) {
        self.put_varint(((v << 1) ^ (v >> 63)).cast_unsigned());
    }
    /// A varint length and the bytes.
    fn put_prefixed(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.put(bytes);
    }
}

impl Write for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_are_canonical(v: u64, s: i64, tail: Vec<u8>) {
            let mut out = Vec::new();
            out.put_varint(v);
            out.put_zigzag(s);
            out.put(&tail);
            let mut r = Reader::new("t", &out);
            prop_assert_eq!(r.varint().unwrap(), v);
            prop_assert_eq!(r.zigzag().unwrap(), s);
            prop_assert_eq!(r.bytes(tail.len()).unwrap(), &tail[..]);
            prop_assert!(r.finish().is_ok());
        }

        #[test]
        fn any_accepted_varint_is_the_one_we_write(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut r = Reader::new("t", &bytes);
            if let Ok(v) = r.varint() {
                let mut again = Vec::new();
                again.put_varint(v);
                prop_assert_eq!(&bytes[..bytes.len() - r.remaining()], &again[..]);
            }
        }
    }

    #[test]
    fn long_forms_are_refused() {
        assert!(Reader::new("t", &[0x80, 0x00]).varint().is_err());
        assert!(Reader::new("t", &[0xff; 9]).varint().is_err());
        assert!(
            Reader::new("t", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint().is_err()
        );
        assert!(
            Reader::new("t", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]).varint().is_ok()
        );
    }
}
