//! Deterministic CBOR (RFC 8949 section 4.2.1, restricted): definite lengths, shortest heads, maps with
//! ascending unsigned keys, no tags, floats or simple values but `false`, `true`, `null`, depth at most 8.
//!
//! One value has one spelling, so a signed body can be decoded and encoded to the same bytes; a
//! general-purpose crate would accept the other spellings, which is why the 200 lines stand here.

use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::limits::{CBOR_DEPTH_MAX, CBOR_VALUES_MAX};

/// A decoded value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A non-negative integer.
    Uint(u64),
    /// A negative integer `-1 - n`.
    Nint(u64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A text string.
    Text(String),
    /// An array.
    Array(Vec<Value>),
    /// A map with ascending unsigned keys.
    Map(Vec<(u64, Value)>),
    /// A boolean.
    Bool(bool),
    /// Absence.
    Null,
}

impl Value {
    /// Bytes from anything that has them.
    pub fn bytes(b: impl AsRef<[u8]>) -> Self {
        Self::Bytes(b.as_ref().to_vec())
    }
    /// Text.
    pub fn text(s: impl Into<String>) -> Self {
        Self::Text(s.into())
    }
    /// A signed integer.
    pub fn int(v: i64) -> Self {
        if v >= 0 { Self::Uint(v.cast_unsigned()) } else { Self::Nint((-1 - v).cast_unsigned()) }
    }

    /// The one spelling of this value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Uint(v) => head(out, 0, *v),
            Self::Nint(v) => head(out, 1, *v),
            Self::Bytes(b) => {
                head(out, 2, b.len() as u64);
                out.put(b);
            }
            Self::Text(s) => {
                head(out, 3, s.len() as u64);
                out.put(s.as_bytes());
            }
            Self::Array(items) => {
                head(out, 4, items.len() as u64);
                items.iter().for_each(|v| v.write(out));
            }
            Self::Map(pairs) => {
                head(out, 5, pairs.len() as u64);
                for (k, v) in pairs {
                    head(out, 0, *k);
                    v.write(out);
                }
            }
            Self::Bool(b) => out.put_u8(if *b { 0xf5 } else { 0xf4 }),
            Self::Null => out.put_u8(0xf6),
        }
    }

    /// Decodes `bytes`, all of them.
    pub fn decode(what: &'static str, bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(what, bytes);
        let v = read(what, &mut r, 0, &mut 0)?;
        r.finish()?;
        Ok(v)
    }
}

fn head(out: &mut Vec<u8>, major: u8, v: u64) {
    let m = major << 5;
    #[allow(clippy::cast_possible_truncation, reason = "each arm's range fits the narrower type")]
    match v {
        0..24 => out.put_u8(m | v as u8),
        24..0x100 => out.put(&[m | 24, v as u8]),
        0x100..0x1_0000 => {
            out.put_u8(m | 25);
            out.put(&(v as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            out.put_u8(m | 26);
            out.put(&(v as u32).to_be_bytes());
        }
        _ => {
            out.put_u8(m | 27);
            out.put(&v.to_be_bytes());
        }
    }
}

fn argument(what: &'static str, r: &mut Reader<'_>, info: u8) -> Result<u64> {
    let (v, least) = match info {
        0..24 => (u64::from(info), 0),
        24 => (u64::from(r.u8()?), 24),
        25 => (u64::from(u16::from_be_bytes(r.array()?)), 0x100),
        26 => (u64::from(u32::from_be_bytes(r.array()?)), 0x1_0000),
        27 => (u64::from_be_bytes(r.array()?), 0x1_0000_0000),
        _ => return Err(FormatError::invalid(what, "CBOR of indefinite length")),
    };
    ensure(v >= least, what, "CBOR number not in its shortest form")?;
    Ok(v)
}

/// `met` counts values: one takes a byte in the object and dozens in memory.
fn read(what: &'static str, r: &mut Reader<'_>, depth: u32, met: &mut u64) -> Result<Value> {
    within("CBOR depth", u64::from(depth), u64::from(CBOR_DEPTH_MAX))?;
    *met += 1;
    within("CBOR values", *met, CBOR_VALUES_MAX)?;
    let first = r.u8()?;
    let (major, info) = (first >> 5, first & 31);
    if major == 7 {
        return match info {
            20 => Ok(Value::Bool(false)),
            21 => Ok(Value::Bool(true)),
            22 => Ok(Value::Null),
            _ => Err(FormatError::invalid(what, "CBOR float or simple value")),
        };
    }
    let n = argument(what, r, info)?;
    // Every element takes a byte at least: a count above what is left is a lie, found before allocating.
    let len = || usize::try_from(n).map_err(|_| FormatError::Truncated { what });
    match major {
        0 => Ok(Value::Uint(n)),
        1 => Ok(Value::Nint(n)),
        2 => Ok(Value::Bytes(r.bytes(len()?)?.to_vec())),
        3 => {
            let s = std::str::from_utf8(r.bytes(len()?)?);
            Ok(Value::Text(s.map_err(|_| FormatError::invalid(what, "CBOR text is not UTF-8"))?.to_owned()))
        }
        4 => {
            ensure(len()? <= r.remaining(), what, "CBOR array longer than its object")?;
            (0..n).map(|_| read(what, r, depth + 1, met)).collect::<Result<_>>().map(Value::Array)
        }
        5 => {
            ensure(len()? <= r.remaining() / 2, what, "CBOR map longer than its object")?;
            let mut pairs: Vec<(u64, Value)> = Vec::new();
            for _ in 0..n {
                let Value::Uint(k) = read(what, r, depth + 1, met)? else {
                    return Err(FormatError::invalid(what, "CBOR map key is not an unsigned integer"));
                };
                ensure(pairs.last().is_none_or(|(p, _)| *p < k), what, "CBOR map keys are not ascending")?;
                pairs.push((k, read(what, r, depth + 1, met)?));
            }
            Ok(Value::Map(pairs))
        }
        _ => Err(FormatError::invalid(what, "CBOR tag")),
    }
}

/// Takes fields out of a map by key; what is left over are keys this reader does not know.
pub struct Fields {
    what: &'static str,
    pairs: Vec<(u64, Value)>,
}

impl Fields {
    /// Decodes `bytes` as one map.
    pub fn decode(what: &'static str, bytes: &[u8]) -> Result<Self> {
        Self::from_value(what, Value::decode(what, bytes)?)
    }
    /// A nested map.
    pub fn from_value(what: &'static str, value: Value) -> Result<Self> {
        match value {
            Value::Map(pairs) => Ok(Self { what, pairs }),
            _ => Err(FormatError::invalid(what, "not a CBOR map")),
        }
    }
    /// The value under `key`, if any.
    pub fn take(&mut self, key: u64) -> Option<Value> {
        let at = self.pairs.iter().position(|(k, _)| *k == key)?;
        Some(self.pairs.remove(at).1)
    }
    fn need(&mut self, key: u64) -> Result<Value> {
        self.take(key).ok_or(FormatError::invalid(self.what, "a required field is missing"))
    }
    fn wrong<T>(&self) -> Result<T> {
        Err(FormatError::invalid(self.what, "a field has the wrong type"))
    }
    /// A required unsigned integer.
    pub fn uint(&mut self, key: u64) -> Result<u64> {
        match self.need(key)? {
            Value::Uint(v) => Ok(v),
            _ => self.wrong(),
        }
    }
    /// A required unsigned integer of 32 bits.
    pub fn uint32(&mut self, key: u64) -> Result<u32> {
        u32::try_from(self.uint(key)?).map_err(|_| FormatError::invalid(self.what, "a number is above 2^32"))
    }
    /// A required signed integer.
    pub fn int(&mut self, key: u64) -> Result<i64> {
        match self.need(key)? {
            Value::Uint(v) => i64::try_from(v).or_else(|_| self.wrong()),
            Value::Nint(v) => i64::try_from(v).map(|v| -1 - v).or_else(|_| self.wrong()),
            _ => self.wrong(),
        }
    }
    /// A required byte string.
    pub fn bytes(&mut self, key: u64) -> Result<Vec<u8>> {
        match self.need(key)? {
            Value::Bytes(b) => Ok(b),
            _ => self.wrong(),
        }
    }
    /// A required byte string of `N` bytes.
    pub fn array<const N: usize>(&mut self, key: u64) -> Result<[u8; N]> {
        let b = self.bytes(key)?;
        b.try_into().or_else(|_| self.wrong())
    }
    /// A required truth value.
    pub fn bool(&mut self, key: u64) -> Result<bool> {
        match self.need(key)? {
            Value::Bool(b) => Ok(b),
            _ => self.wrong(),
        }
    }
    /// A required text.
    pub fn text(&mut self, key: u64) -> Result<String> {
        match self.need(key)? {
            Value::Text(s) => Ok(s),
            _ => self.wrong(),
        }
    }
    /// A required array.
    pub fn list(&mut self, key: u64) -> Result<Vec<Value>> {
        match self.need(key)? {
            Value::Array(v) => Ok(v),
            _ => self.wrong(),
        }
    }
    /// A required array of byte strings.
    pub fn bytes_list(&mut self, key: u64) -> Result<Vec<Vec<u8>>> {
        let what = self.what;
        self.list(key)?
            .into_iter()
            .map(|v| match v {
                Value::Bytes(b) => Ok(b),
                _ => Err(FormatError::invalid(what, "a list holds a wrong type")),
            })
            .collect()
    }
    /// Optional fields: absent, or present with their type. `null` is not absence.
    pub fn optional<T>(
        &mut self,
        key: u64,
        get: impl FnOnce(&mut Self, u64) -> Result<T>,
    ) -> Result<Option<T>> {
        if self.pairs.iter().any(|(k, _)| *k == key) { get(self, key).map(Some) } else { Ok(None) }
    }
    /// The keys this reader does not know, kept so that a rewriter can preserve them.
    pub fn unknown(self) -> Vec<(u64, Value)> {
        self.pairs
    }
}

/// A map of the fields that are present, ascending, with the unknown ones merged in.
pub fn map(fields: impl IntoIterator<Item = (u64, Option<Value>)>, unknown: &[(u64, Value)]) -> Value {
    let mut pairs: Vec<_> = fields.into_iter().filter_map(|(k, v)| v.map(|v| (k, v))).collect();
    pairs.extend(unknown.iter().cloned());
    pairs.sort_by_key(|(k, _)| *k);
    pairs.dedup_by_key(|(k, _)| *k);
    Value::Map(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<u64>().prop_map(Value::Uint),
            any::<u64>().prop_map(Value::Nint),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            "[a-zé]{0,9}".prop_map(Value::Text),
            any::<bool>().prop_map(Value::Bool),
            Just(Value::Null),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::Array),
                proptest::collection::btree_map(any::<u64>(), inner, 0..6)
                    .prop_map(|m| Value::Map(m.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn values_are_counted_before_they_fill_the_memory() {
        let nulls = |n: u32| [&[0x9a][..], &n.to_be_bytes(), &vec![0xf6; n as usize]].concat();
        let most = u32::try_from(CBOR_VALUES_MAX).unwrap();
        assert!(Value::decode("test", &nulls(most - 1)).is_ok());
        let over = Value::decode("test", &nulls(most));
        assert!(matches!(over, Err(FormatError::Limit { what: "CBOR values", .. })), "{over:?}");
    }

    proptest! {
        #[test]
        fn encode_then_decode_is_the_identity(v in value()) {
            prop_assert_eq!(Value::decode("t", &v.encode()).unwrap(), v);
        }
        #[test]
        fn decode_then_encode_is_the_identity(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(v) = Value::decode("t", &bytes) {
                prop_assert_eq!(v.encode(), bytes);
            }
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for bad in [
            &[0x18, 0x17][..],                                             // 23 in two bytes
            &[0x9f, 0xff],                                                 // indefinite array
            &[0xa2, 0x01, 0x00, 0x01, 0x00],                               // key twice
            &[0xa2, 0x02, 0x00, 0x01, 0x00],                               // keys descending
            &[0xc0, 0x00],                                                 // tag
            &[0xf9, 0x00, 0x00],                                           // float
            &[0x00, 0x00],                                                 // trailing byte
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],       // 2^64 elements
            &[0x61, 0xff],                                                 // not UTF-8
            &[0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x81, 0x00], // depth 9
        ] {
            assert!(Value::decode("t", bad).is_err(), "{bad:x?}");
        }
    }
}
