//! Ledger records (SPEC 12.7): what a client did and found, each chained to the one before it by the hash of its body.

use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result, ensure};
use crate::id::{BodyHash, ClientId, PackName};
use crate::tree::Timestamp;

const WHAT: &str = "record";

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// Packs that were read whole from the store: every frame opened, every chunk identified.
    Verified {
        /// Those that were as they must be.
        good: Vec<PackName>,
        /// Those that were not.
        bad: Vec<PackName>,
    },
    /// A kind this version does not know.
    Other(u64),
}

/// `records/<client>.<sequence>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Who speaks.
    pub client: ClientId,
    /// The how manyth record of this client, from 0.
    pub sequence: u64,
    /// The hash of the body of the record before; none for the first.
    pub previous: Option<BodyHash>,
    /// When, by the client's clock.
    pub time: Timestamp,
    /// What.
    pub fact: Fact,
}

impl Record {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let names =
            |list: &[PackName]| Some(Value::Array(list.iter().map(|p| Value::bytes(p.as_bytes())).collect()));
        let (kind, fact) = match &self.fact {
            Fact::Verified { good, bad } => (1, map([(1, names(good)), (2, names(bad))], &[])),
            Fact::Other(kind) => (*kind, map([], &[])),
        };
        let time = vec![Value::int(self.time.seconds), Value::Uint(self.time.nanos.into())];
        let fields = [
            (1, Some(Value::bytes(self.client.as_bytes()))),
            (2, Some(Value::Uint(self.sequence))),
            (3, self.previous.map(|h| Value::bytes(h.as_bytes()))),
            (4, Some(Value::Array(time))),
            (5, Some(Value::Uint(kind))),
            (6, Some(fact)),
        ];
        map(fields, &[]).encode()
    }

    /// Decodes a body that must be record `sequence` of `client`.
    pub fn decode(body: &[u8], client: &ClientId, sequence: u64) -> Result<Self> {
        let mut f = Fields::decode(WHAT, body)?;
        let (id, number) = (ClientId::new(f.array(1)?), f.uint(2)?);
        ensure(id == *client && number == sequence, WHAT, "lies under another record's name")?;
        let previous = match f.take(3) {
            None => None,
            Some(Value::Bytes(b)) => Some(BodyHash::from_slice(&b)?),
            Some(_) => return Err(FormatError::invalid(WHAT, "its predecessor is no hash")),
        };
        ensure(previous.is_none() == (sequence == 0), WHAT, "the first has no predecessor, every other has")?;
        let time = crate::snapshot::read_timestamp(&mut f, 4)?;
        let kind = f.uint(5)?;
        let fact = f.take(6).ok_or(FormatError::invalid(WHAT, "says nothing"))?;
        let mut fact = Fields::from_value(WHAT, fact)?;
        let mut packs = |key| -> Result<Vec<PackName>> {
            fact.bytes_list(key)?.iter().map(|b| PackName::from_slice(b)).collect()
        };
        let fact = match kind {
            1 => Fact::Verified { good: packs(1)?, bad: packs(2)? },
            other => Fact::Other(other),
        };
        Ok(Self { client: id, sequence: number, previous, time, fact })
    }
}
