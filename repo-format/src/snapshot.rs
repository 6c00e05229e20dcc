//! Verdicts (SPEC 11): `snap/<run>` is a snapshot (the commit) or VOID (the run has expired). Exactly one wins.

use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::{BodyHash, ChunkId, ClientId, RunId};
use crate::tree::Timestamp;

const WHAT: &str = "snapshot";

/// A predecessor in a client's lineage: the id and the keyed hash of the body under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Head {
    /// The snapshot.
    pub id: RunId,
    /// Its body's keyed hash: a key holder cannot put another body under an id others have seen.
    pub hash: BodyHash,
}

/// One entry of the mount table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Device number at backup time.
    pub device: u64,
    /// File system type, e.g. `ext4`.
    pub fs_type: String,
    /// Where it was mounted.
    pub path: Vec<u8>,
}

/// Counts that add up: what a run found and what it stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Statistics {
    /// Files not in the parent.
    pub files_new: u64,
    /// Files whose content was read because they differ from the parent.
    pub files_changed: u64,
    /// Files taken from the parent unread.
    pub files_unmodified: u64,
    /// Directories not in the parent.
    pub dirs_new: u64,
    /// Directories with other metadata than in the parent.
    pub dirs_changed: u64,
    /// Directories as in the parent.
    pub dirs_unmodified: u64,
    /// Other entries: links, FIFOs, sockets, devices.
    pub others: u64,
    /// Bytes of all files of the snapshot, holes included.
    pub total_bytes: u64,
    /// Bytes read from files.
    pub read_bytes: u64,
    /// Chunks stored by this run.
    pub data_chunks_new: u64,
    /// Plain bytes of those chunks.
    pub data_bytes_new: u64,
    /// Chunks that were stored already.
    pub data_chunks_known: u64,
    /// Plain bytes of new tree nodes.
    pub meta_bytes_new: u64,
    /// Bytes of all objects this run put, the snapshot itself excepted.
    pub stored_bytes: u64,
    /// Entries that could not be read whole.
    pub errors: u64,
}

impl Statistics {
    fn fields(&mut self) -> [&mut u64; 15] {
        [
            &mut self.files_new,
            &mut self.files_changed,
            &mut self.files_unmodified,
            &mut self.dirs_new,
            &mut self.dirs_changed,
            &mut self.dirs_unmodified,
            &mut self.others,
            &mut self.total_bytes,
            &mut self.read_bytes,
            &mut self.data_chunks_new,
            &mut self.data_bytes_new,
            &mut self.data_chunks_known,
            &mut self.meta_bytes_new,
            &mut self.stored_bytes,
            &mut self.errors,
        ]
    }
}

/// A snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// The run that made it: its id.
    pub id: RunId,
    /// Who made and signed it.
    pub client: ClientId,
    /// 1 + the highest sequence number among `prev`.
    pub seq: u64,
    /// The heads of this client's lineage it follows.
    pub prev: Vec<Head>,
    /// Snapshots of any client seen at the start, so that a missing one is noticed.
    pub seen: Vec<RunId>,
    /// The config generation in force.
    pub config_generation: u32,
    /// When the run started and ended, by the client's clock (for display).
    pub start: Timestamp,
    /// End.
    pub end: Timestamp,
    /// The tree's root node.
    pub tree: ChunkId,
    /// The host it is about.
    pub host: String,
    /// The user who ran it.
    pub user: String,
    /// The operating system.
    pub os: String,
    /// The program and version.
    pub program: String,
    /// The paths that were asked for.
    pub paths: Vec<Vec<u8>>,
    /// Tags.
    pub tags: Vec<String>,
    /// Exclusions in force, as given.
    pub excludes: Vec<String>,
    /// The mount table entries refer to.
    pub mounts: Vec<Mount>,
    /// Names of the uids met.
    pub users: Vec<(u32, Vec<u8>)>,
    /// Names of the gids met.
    pub groups: Vec<(u32, Vec<u8>)>,
    /// The parent it was compared with.
    pub parent: Option<RunId>,
    /// The snapshot this one is a new edition of (undelete, tag, rewrite).
    pub origin: Option<RunId>,
    /// Counts.
    pub statistics: Statistics,
    /// The first paths that could not be read whole, with the reason.
    pub errors: Vec<(Vec<u8>, String)>,
}

/// What stands under `snap/<run>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The run committed.
    Snapshot(Box<Snapshot>),
    /// The run has expired and can never commit.
    Void {
        /// The run.
        run: RunId,
        /// Who voided it.
        client: ClientId,
    },
}

fn timestamp(t: Timestamp) -> Option<Value> {
    Some(Value::Array(vec![Value::int(t.seconds), Value::Uint(t.nanos.into())]))
}

pub(crate) fn read_timestamp(f: &mut Fields, key: u64) -> Result<Timestamp> {
    let list = f.list(key)?;
    match list.as_slice() {
        [seconds @ (Value::Uint(_) | Value::Nint(_)), Value::Uint(nanos)] if *nanos < 1_000_000_000 => {
            let seconds = match seconds {
                Value::Uint(v) => i64::try_from(*v).ok(),
                Value::Nint(v) => i64::try_from(*v).ok().map(|v| -1 - v),
                _ => None,
            };
            let seconds = seconds.ok_or(FormatError::invalid(WHAT, "a time is out of range"))?;
            Ok(Timestamp { seconds, nanos: u32::try_from(*nanos).unwrap_or(0) })
        }
        _ => Err(FormatError::invalid(WHAT, "a time is not [seconds, nanoseconds]")),
    }
}

fn pairs<A, B>(list: Vec<Value>, get: impl Fn(Value, Value) -> Option<(A, B)>) -> Result<Vec<(A, B)>> {
    let bad = || FormatError::invalid(WHAT, "a pair has the wrong shape");
    list.into_iter()
        .map(|v| match v {
            Value::Array(a) => {
                let [x, y] = <[Value; 2]>::try_from(a).map_err(|_| bad())?;
                get(x, y).ok_or_else(bad)
            }
            _ => Err(bad()),
        })
        .collect()
}

impl Snapshot {
    fn encode(&self) -> Vec<u8> {
        let pair = |a, b| Value::Array(vec![a, b]);
        let ids = |v: &[(u32, Vec<u8>)]| {
            Some(Value::Array(
                v.iter().map(|(id, n)| pair(Value::Uint((*id).into()), Value::bytes(n))).collect(),
            ))
        };
        let texts = |v: &[String]| Some(Value::Array(v.iter().map(Value::text).collect()));
        let mount = |m: &Mount| {
            Value::Array(vec![Value::Uint(m.device), Value::text(&m.fs_type), Value::bytes(&m.path)])
        };
        let head = |h: &Head| pair(Value::bytes(h.id.as_bytes()), Value::bytes(h.hash.as_bytes()));
        let mut statistics = self.statistics;
        let counts = statistics.fields().map(|v| Value::Uint(*v)).to_vec();
        let fields = [
            (1, Some(Value::Uint(1))),
            (2, Some(Value::bytes(self.id.as_bytes()))),
            (3, Some(Value::bytes(self.client.as_bytes()))),
            (4, Some(Value::Uint(self.seq))),
            (5, Some(Value::Array(self.prev.iter().map(head).collect()))),
            (6, Some(Value::Array(self.seen.iter().map(|r| Value::bytes(r.as_bytes())).collect()))),
            (7, Some(Value::Uint(self.config_generation.into()))),
            (8, timestamp(self.start)),
            (9, timestamp(self.end)),
            (10, Some(Value::bytes(self.tree.as_bytes()))),
            (11, Some(Value::text(&self.host))),
            (12, Some(Value::text(&self.user))),
            (13, Some(Value::text(&self.os))),
            (14, Some(Value::text(&self.program))),
            (15, Some(Value::Array(self.paths.iter().map(Value::bytes).collect()))),
            (16, texts(&self.tags)),
            (17, texts(&self.excludes)),
            (18, Some(Value::Array(self.mounts.iter().map(mount).collect()))),
            (19, ids(&self.users)),
            (20, ids(&self.groups)),
            (21, self.parent.map(|r| Value::bytes(r.as_bytes()))),
            (22, self.origin.map(|r| Value::bytes(r.as_bytes()))),
            (23, Some(Value::Array(counts))),
            (
                24,
                Some(Value::Array(
                    self.errors.iter().map(|(p, e)| pair(Value::bytes(p), Value::text(e))).collect(),
                )),
            ),
        ];
        map(fields, &[]).encode()
    }

    fn decode(f: &mut Fields) -> Result<Self> {
        let bad = || FormatError::invalid(WHAT, "a list holds a wrong type");
        let run = |b: Vec<u8>| RunId::from_slice(&b);
        let id_name = |list| {
            pairs(list, |a, b| match (a, b) {
                (Value::Uint(id), Value::Bytes(n)) => Some((u32::try_from(id).ok()?, n)),
                _ => None,
            })
        };
        let texts = |list: Vec<Value>| -> Result<Vec<String>> {
            list.into_iter().map(|v| if let Value::Text(s) = v { Ok(s) } else { Err(bad()) }).collect()
        };
        let mut statistics = Statistics::default();
        let counts = f.list(23)?;
        for (to, from) in statistics.fields().into_iter().zip(&counts) {
            *to = if let Value::Uint(v) = from { *v } else { return Err(bad()) };
        }
        let mounts = f.list(18)?.into_iter().map(|v| match v {
            Value::Array(a) => match <[Value; 3]>::try_from(a) {
                Ok([Value::Uint(device), Value::Text(fs_type), Value::Bytes(path)]) => {
                    Ok(Mount { device, fs_type, path })
                }
                _ => Err(bad()),
            },
            _ => Err(bad()),
        });
        Ok(Self {
            id: RunId::new(f.array(2)?),
            client: ClientId::new(f.array(3)?),
            seq: f.uint(4)?,
            prev: pairs(f.list(5)?, |a, b| match (a, b) {
                (Value::Bytes(id), Value::Bytes(hash)) => {
                    Some((RunId::from_slice(&id).ok()?, BodyHash::from_slice(&hash).ok()?))
                }
                _ => None,
            })?
            .into_iter()
            .map(|(id, hash)| Head { id, hash })
            .collect(),
            seen: f.bytes_list(6)?.into_iter().map(run).collect::<Result<_>>()?,
            config_generation: f.uint32(7)?,
            start: read_timestamp(f, 8)?,
            end: read_timestamp(f, 9)?,
            tree: ChunkId::new(f.array(10)?),
            host: f.text(11)?,
            user: f.text(12)?,
            os: f.text(13)?,
            program: f.text(14)?,
            paths: f.bytes_list(15)?,
            tags: texts(f.list(16)?)?,
            excludes: texts(f.list(17)?)?,
            mounts: mounts.collect::<Result<_>>()?,
            users: id_name(f.list(19)?)?,
            groups: id_name(f.list(20)?)?,
            parent: f.optional(21, Fields::array)?.map(RunId::new),
            origin: f.optional(22, Fields::array)?.map(RunId::new),
            statistics,
            errors: pairs(f.list(24)?, |a, b| match (a, b) {
                (Value::Bytes(p), Value::Text(e)) => Some((p, e)),
                _ => None,
            })?,
        })
    }
}

impl Verdict {
    /// The unsigned body.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Snapshot(s) => s.encode(),
            Self::Void { run, client } => map(
                [
                    (1, Some(Value::Uint(0))),
                    (2, Some(Value::bytes(run.as_bytes()))),
                    (3, Some(Value::bytes(client.as_bytes()))),
                ],
                &[],
            )
            .encode(),
        }
    }

    /// Decodes a body that must speak of `run`.
    pub fn decode(body: &[u8], run: &RunId) -> Result<Self> {
        within("snapshot", body.len() as u64, crate::limits::OBJECT_MAX)?;
        let mut f = Fields::decode(WHAT, body)?;
        let verdict = match f.uint(1)? {
            0 => Self::Void { run: RunId::new(f.array(2)?), client: ClientId::new(f.array(3)?) },
            1 => Self::Snapshot(Box::new(Snapshot::decode(&mut f)?)),
            _ => return Err(FormatError::invalid(WHAT, "unknown verdict")),
        };
        ensure(verdict.run() == *run, WHAT, "lies under another run's name")?;
        Ok(verdict)
    }

    /// The run it is about.
    pub fn run(&self) -> RunId {
        match self {
            Self::Snapshot(s) => s.id,
            Self::Void { run, .. } => *run,
        }
    }

    /// Who signed it.
    pub fn client(&self) -> ClientId {
        match self {
            Self::Snapshot(s) => s.client,
            Self::Void { client, .. } => *client,
        }
    }
}
