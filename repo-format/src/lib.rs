//! bulla repository format 1: bytes to values and back, exactly what SPEC.md says.
//!
//! This crate and SPEC.md are enough to write a third-party reader. It knows no files, clock,
//! randomness (entropy comes in as an argument), threads or logging, and it parses hostile bytes:
//! no panic, no indexing, output bounded by authenticated lengths before anything is allocated.
//!
//! The modules follow SPEC.md: [`id`] and [`layout`] name things, [`codec`] and [`cbor`] spell
//! them, [`keys`] and [`slot`] unlock, [`envelope`] seals small objects, [`pack`] and [`frame`]
//! seal content, [`index`] finds it, [`tree`] orders it, [`snapshot`] and [`record`] commit it,
//! [`parity`] repairs it.
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::cast_possible_truncation))]

pub mod cbor;
pub mod chunker;
pub mod codec;
pub mod config;
pub mod envelope;
mod error;
pub mod frame;
pub mod id;
pub mod index;
pub mod keys;
pub mod layout;
pub mod ledger;
pub mod limits;
pub mod pack;
pub mod padding;
pub mod parity;
pub mod record;
pub mod slot;
pub mod snapshot;
pub mod tree;

pub use error::{FormatError, Result};
pub use id::{BodyHash, ChunkId, ClientId, IndexName, PackName, RepoId, RingId, RunId, SlotId};
pub use layout::{Area, ObjectName};

/// The five bytes `bulla` and the format version 1: the first bytes of every object.
pub const MAGIC: [u8; 6] = *b"bulla\x01";

/// The only cipher suite of format 1 (SPEC 2): BLAKE3, (X)ChaCha20-Poly1305, Argon2id, zstd, Ed25519.
pub const SUITE: u8 = 1;
