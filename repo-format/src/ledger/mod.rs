//! Ledger records (SPEC 12.7): what a client did and found, each chained to the one before it by the hash of its body.

mod fact;

pub use fact::{
    Drill, DrillKind, Fact, Forgotten, JobCopy, JobRun, Level, Lock, Pruned, Refused, Verified, Waiver,
};

use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result, ensure};
use crate::id::{BodyHash, ClientId};
use crate::tree::Timestamp;

const WHAT: &str = "record";

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
        let (kind, fact) = self.fact.encode();
        let fields = [
            (1, Some(Value::bytes(self.client.as_bytes()))),
            (2, Some(Value::Uint(self.sequence))),
            (3, self.previous.map(|h| Value::bytes(h.as_bytes()))),
            (4, Some(time(self.time))),
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
        let fact = Fact::decode(kind, Fields::from_value(WHAT, fact)?)?;
        Ok(Self { client: id, sequence: number, previous, time, fact })
    }
}

fn time(t: Timestamp) -> Value {
    Value::Array(vec![Value::int(t.seconds), Value::Uint(t.nanos.into())])
}
