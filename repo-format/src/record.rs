//! The small signed objects of the protocol (SPEC 12): announcements, deaths, marks, holds, certificates.

use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result, ensure};
use crate::id::{BodyHash, ChunkId, ClientId, PackName, RunId};
use crate::keys::Keyring;
use crate::tree::Timestamp;

/// Why a run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// May commit a snapshot.
    Writer,
    /// Restores, mounts, checks: never commits; expired by DELETE.
    Reader,
    /// Prunes and repairs.
    Collector,
}

/// A root a run relies on while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin {
    /// The snapshot.
    pub snapshot: RunId,
    /// Its tree.
    pub tree: ChunkId,
}

/// `pend/<run>.<k>`: what a run relies on. Number 0 opens the run; none is removed before the verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The run.
    pub run: RunId,
    /// The number within the run.
    pub number: u32,
    /// Who runs.
    pub client: ClientId,
    /// What kind of run.
    pub kind: RunKind,
    /// Roots relied on.
    pub pins: Vec<Pin>,
    /// True when the pins were seen alive after an earlier announcement of this run named them.
    pub verified: bool,
    /// Packs of others relied on.
    pub packs: Vec<PackName>,
    /// How far a backup has come.
    pub checkpoint: Option<Checkpoint>,
}

/// The tree of all that a backup has done so far, for the run that goes on if this one dies. A hint: nothing of it is
/// taken before the chunks it refers to were found and verified like any other pack of another run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// When its scan began, by the client's clock.
    pub start: Timestamp,
    /// The host the snapshot would be about.
    pub host: String,
    /// Its source paths.
    pub paths: Vec<Vec<u8>>,
    /// The tree's root.
    pub tree: ChunkId,
}

/// `gone/<snapshot>`: the snapshot is dead; its body is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The snapshot.
    pub snapshot: RunId,
    /// The collector's client.
    pub client: ClientId,
    /// The keyed hash of the body.
    pub hash: BodyHash,
    /// The verdict's body as it stood, without its signature.
    pub body: Vec<u8>,
}

/// `marks/<gc>`: packs condemned by a collector. Never cancelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The collector's run.
    pub run: RunId,
    /// Its client.
    pub client: ClientId,
    /// The packs.
    pub victims: Vec<PackName>,
    /// True when they were found damaged: then they are as good as lost to everyone who looks for a chunk.
    pub damaged: bool,
}

/// `forget/<snapshot>`: the snapshot is to die once its grace is over. Until then it is a root like any other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forget {
    /// The snapshot.
    pub snapshot: RunId,
    /// Who forgot it.
    pub client: ClientId,
    /// No grace: the next collector may let it die.
    pub now: bool,
    /// Why, for the journal of deletions.
    pub reason: String,
}

/// `locks/<id>`: a pin that never expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The snapshot held.
    pub snapshot: RunId,
    /// Who holds it.
    pub client: ClientId,
    /// Why, in the words of whoever did it.
    pub reason: String,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Add packs and snapshots.
    pub write: bool,
    /// Forget and prune.
    pub maintain: bool,
    /// Vouch for packs.
    pub attest: bool,
    /// Change config and certificates.
    pub admin: bool,
}

/// `clients/<id>`: signed by the admin key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The client.
    pub client: ClientId,
    /// Its Ed25519 public key.
    pub public: [u8; 32],
    /// What it may do.
    pub capabilities: Capabilities,
    /// Clients of one group take each other's packs as dedup targets.
    pub group: u64,
    /// The machine's name.
    pub name: String,
}

fn packs(list: Vec<Vec<u8>>) -> Result<Vec<PackName>> {
    list.iter().map(|b| PackName::from_slice(b)).collect()
}

fn pack_values(list: &[PackName]) -> Option<Value> {
    Some(Value::Array(list.iter().map(|p| Value::bytes(p.as_bytes())).collect()))
}

impl Announcement {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let kind = match self.kind {
            RunKind::Writer => 1,
            RunKind::Reader => 2,
            RunKind::Collector => 3,
        };
        let pin = |p: &Pin| {
            Value::Array(vec![Value::bytes(p.snapshot.as_bytes()), Value::bytes(p.tree.as_bytes())])
        };
        let fields = [
            (1, Some(Value::bytes(self.run.as_bytes()))),
            (2, Some(Value::Uint(self.number.into()))),
            (3, Some(Value::bytes(self.client.as_bytes()))),
            (4, Some(Value::Uint(kind))),
            (5, Some(Value::Array(self.pins.iter().map(pin).collect()))),
            (6, Some(Value::Bool(self.verified))),
            (7, pack_values(&self.packs)),
            (8, self.checkpoint.as_ref().map(Checkpoint::value)),
        ];
        map(fields, &[]).encode()
    }

    /// Decodes a body that must be announcement `number` of `run`.
    pub fn decode(body: &[u8], run: &RunId, number: u32) -> Result<Self> {
        const WHAT: &str = "announcement";
        let mut f = Fields::decode(WHAT, body)?;
        let pins = f.list(5)?.into_iter().map(|v| match v {
            Value::Array(a) => match a.as_slice() {
                [Value::Bytes(s), Value::Bytes(t)] => {
                    Ok(Pin { snapshot: RunId::from_slice(s)?, tree: ChunkId::from_slice(t)? })
                }
                _ => Err(FormatError::invalid(WHAT, "a pin has the wrong shape")),
            },
            _ => Err(FormatError::invalid(WHAT, "a pin has the wrong shape")),
        });
        let pins = pins.collect::<Result<_>>()?;
        let a = Self {
            run: RunId::new(f.array(1)?),
            number: f.uint32(2)?,
            client: ClientId::new(f.array(3)?),
            kind: match f.uint(4)? {
                1 => RunKind::Writer,
                2 => RunKind::Reader,
                3 => RunKind::Collector,
                _ => return Err(FormatError::invalid(WHAT, "unknown kind of run")),
            },
            pins,
            verified: f.bool(6)?,
            packs: packs(f.bytes_list(7)?)?,
            checkpoint: f.take(8).map(Checkpoint::from_value).transpose()?,
        };
        ensure(a.run == *run && a.number == number, WHAT, "lies under another run's name")?;
        Ok(a)
    }
}

impl Checkpoint {
    fn value(&self) -> Value {
        let start = vec![Value::int(self.start.seconds), Value::Uint(self.start.nanos.into())];
        let fields = [
            (1, Some(Value::Array(start))),
            (2, Some(Value::text(&self.host))),
            (3, Some(Value::Array(self.paths.iter().map(Value::bytes).collect()))),
            (4, Some(Value::bytes(self.tree.as_bytes()))),
        ];
        map(fields, &[])
    }

    fn from_value(value: Value) -> Result<Self> {
        let mut f = Fields::from_value("checkpoint", value)?;
        Ok(Self {
            start: crate::snapshot::read_timestamp(&mut f, 1)?,
            host: f.text(2)?,
            paths: f.bytes_list(3)?,
            tree: ChunkId::new(f.array(4)?),
        })
    }
}

impl Death {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            (1, Some(Value::bytes(self.snapshot.as_bytes()))),
            (2, Some(Value::bytes(self.client.as_bytes()))),
            (3, Some(Value::bytes(self.hash.as_bytes()))),
            (4, Some(Value::bytes(&self.body))),
        ];
        map(fields, &[]).encode()
    }
    /// Decodes a body that must be about `snapshot`.
    pub fn decode(body: &[u8], snapshot: &RunId) -> Result<Self> {
        let mut f = Fields::decode("death", body)?;
        let d = Self {
            snapshot: RunId::new(f.array(1)?),
            client: ClientId::new(f.array(2)?),
            hash: BodyHash::new(f.array(3)?),
            body: f.bytes(4)?,
        };
        ensure(d.snapshot == *snapshot, "death", "lies under another snapshot's name")?;
        Ok(d)
    }
    /// The body it keeps is the one its hash names. Callers check this before they trust either.
    pub fn check_hash(&self, keyring: &Keyring) -> Result<()> {
        ensure(keyring.body_hash(&self.body) == self.hash, "death", "keeps another body than its hash names")
    }
}

impl Mark {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            (1, Some(Value::bytes(self.run.as_bytes()))),
            (2, Some(Value::bytes(self.client.as_bytes()))),
            (3, pack_values(&self.victims)),
            (4, Some(Value::Bool(self.damaged))),
        ];
        map(fields, &[]).encode()
    }
    /// Decodes a body that must be the mark of `run`.
    pub fn decode(body: &[u8], run: &RunId) -> Result<Self> {
        let mut f = Fields::decode("mark", body)?;
        let m = Self {
            run: RunId::new(f.array(1)?),
            client: ClientId::new(f.array(2)?),
            victims: packs(f.bytes_list(3)?)?,
            damaged: f.bool(4)?,
        };
        ensure(m.run == *run, "mark", "lies under another run's name")?;
        Ok(m)
    }
}

impl Forget {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            (1, Some(Value::bytes(self.snapshot.as_bytes()))),
            (2, Some(Value::bytes(self.client.as_bytes()))),
            (3, Some(Value::Bool(self.now))),
            (4, Some(Value::text(&self.reason))),
        ];
        map(fields, &[]).encode()
    }
    /// Decodes a body that must forget `snapshot`.
    pub fn decode(body: &[u8], snapshot: &RunId) -> Result<Self> {
        let mut f = Fields::decode("forget", body)?;
        let forget = Self {
            snapshot: RunId::new(f.array(1)?),
            client: ClientId::new(f.array(2)?),
            now: f.bool(3)?,
            reason: f.text(4)?,
        };
        ensure(forget.snapshot == *snapshot, "forget", "lies under another snapshot's name")?;
        Ok(forget)
    }
}

impl Hold {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let fields = [
            (1, Some(Value::bytes(self.snapshot.as_bytes()))),
            (2, Some(Value::bytes(self.client.as_bytes()))),
            (3, Some(Value::text(&self.reason))),
        ];
        map(fields, &[]).encode()
    }
    /// Decodes a body that must hold `snapshot`.
    pub fn decode(body: &[u8], snapshot: &RunId) -> Result<Self> {
        let mut f = Fields::decode("hold", body)?;
        let h = Self {
            snapshot: RunId::new(f.array(1)?),
            client: ClientId::new(f.array(2)?),
            reason: f.text(3)?,
        };
        ensure(h.snapshot == *snapshot, "hold", "lies under another snapshot's name")?;
        Ok(h)
    }
}

impl Certificate {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        let c = self.capabilities;
        let bits = u64::from(c.write)
            | u64::from(c.maintain) << 1
            | u64::from(c.attest) << 2
            | u64::from(c.admin) << 3;
        let fields = [
            (1, Some(Value::bytes(self.client.as_bytes()))),
            (2, Some(Value::bytes(self.public))),
            (3, Some(Value::Uint(bits))),
            (4, Some(Value::Uint(self.group))),
            (5, Some(Value::text(&self.name))),
        ];
        map(fields, &[]).encode()
    }
    /// Decodes a body that must certify `client`.
    pub fn decode(body: &[u8], client: &ClientId) -> Result<Self> {
        const WHAT: &str = "client certificate";
        let mut f = Fields::decode(WHAT, body)?;
        let (id, public, bits) = (ClientId::new(f.array(1)?), f.array(2)?, f.uint(3)?);
        ensure(bits < 16, WHAT, "unknown capability")?;
        let capabilities = Capabilities {
            write: bits & 1 != 0,
            maintain: bits & 2 != 0,
            attest: bits & 4 != 0,
            admin: bits & 8 != 0,
        };
        let c = Self { client: id, public, capabilities, group: f.uint(4)?, name: f.text(5)? };
        ensure(c.client == *client, WHAT, "lies under another client's name")?;
        Ok(c)
    }
}
