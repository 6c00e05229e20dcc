//! Names of things: fixed-size byte strings with a hexadecimal form. One macro, so all behave alike.

use crate::error::{FormatError, Result};
use std::fmt;
use std::str::FromStr;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Lower-case hexadecimal of `bytes`.
pub fn to_hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        for nibble in [b >> 4, b & 15] {
            out.push(HEX.get(usize::from(nibble)).copied().map_or('?', char::from));
        }
    }
    out
}

/// Exactly `N` bytes from lower-case hexadecimal; anything else (upper case, other lengths) is refused.
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N.checked_mul(2)? {
        return None;
    }
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut out = [0; N];
    for (o, pair) in out.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [hi, lo] = pair else { return None };
        *o = digit(*hi)? << 4 | digit(*lo)?;
    }
    Some(out)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident [$n:literal] $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $n]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $n;
            /// From raw bytes.
            pub const fn new(bytes: [u8; $n]) -> Self { Self(bytes) }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; $n] { &self.0 }
            /// From a slice of exactly the right length.
            pub fn from_slice(bytes: &[u8]) -> Result<Self> {
                bytes.try_into().map(Self).map_err(|_| FormatError::invalid($what, "wrong length"))
            }
            /// The first eight hexadecimal digits, for people.
            pub fn short(&self) -> String { to_hex(self.0.get(..4).unwrap_or_default()) }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&to_hex(&self.0)) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), to_hex(&self.0))
            }
        }
        impl FromStr for $name {
            type Err = FormatError;
            fn from_str(s: &str) -> Result<Self> {
                from_hex(s).map(Self).ok_or(FormatError::invalid($what, "not lower-case hexadecimal of the right length"))
            }
        }
    )*};
}

ids! {
    /// A repository: 32 random bytes chosen at `init`, authenticated by everything sealed in it.
    RepoId[32] "repository id";
    /// A chunk: keyed BLAKE3 of its plaintext under its domain and kind (SPEC 4.3).
    ChunkId[32] "chunk id";
    /// A pack: BLAKE3 of all its bytes.
    PackName[32] "pack name";
    /// The keyed hash of a snapshot's signed body, by which lineages refer to it.
    BodyHash[32] "body hash";
    /// One execution of a verb; a committed backup's run id is its snapshot id.
    RunId[16] "run id";
    /// A client: who signs (SPEC 13).
    ClientId[16] "client id";
    /// A key slot.
    SlotId[16] "slot id";
    /// A generation of the ring key.
    RingId[16] "ring id";
}

/// The name of an index run: generation (1 + the highest generation it merged, 0 for none) and the
/// BLAKE3 of its bytes. A merged run sorts after its inputs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexName {
    /// The merge generation.
    pub generation: u32,
    /// BLAKE3 of the object's bytes.
    pub hash: [u8; 32],
}

impl fmt::Display for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}-{}", self.generation, to_hex(&self.hash))
    }
}
impl fmt::Debug for IndexName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IndexName({self})")
    }
}
impl FromStr for IndexName {
    type Err = FormatError;
    fn from_str(s: &str) -> Result<Self> {
        let bad = FormatError::invalid("index run name", "not <8 hex>-<64 hex>");
        let (generation, hash) = s.split_once('-').ok_or(bad.clone())?;
        let generation = u32::from_be_bytes(from_hex(generation).ok_or(bad.clone())?);
        Ok(Self { generation, hash: from_hex(hash).ok_or(bad)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_round_trips_and_refuses_other_spellings() {
        let id = RunId::new(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse::<RunId>().unwrap(), id);
        assert!(id.to_string().to_uppercase().parse::<RunId>().is_ok(), "digits only: no case");
        assert!("AB".repeat(16).parse::<RunId>().is_err());
        assert!("ab".repeat(15).parse::<RunId>().is_err());
        let name = IndexName { generation: 7, hash: [9; 32] };
        assert_eq!(name.to_string().parse::<IndexName>().unwrap(), name);
    }
}
