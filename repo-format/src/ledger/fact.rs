//! What a ledger record says, one kind after the other. A kind this version does not know is kept as its number; within a
//! kind every field is required unless its key says otherwise.

use super::{WHAT, time};
use crate::cbor::{Fields, Value, map};
use crate::error::{FormatError, Result};
use crate::id::{PackName, RunId};
use crate::snapshot::read_timestamp;
use crate::tree::Timestamp;

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "there are few, and none is moved in a loop")]
pub enum Fact {
    /// What was read back from the store.
    Verified(Verified),
    /// A job ran.
    Run(JobRun),
    /// Snapshots were let go.
    Forgotten(Forgotten),
    /// A restore was tried.
    Drill(Drill),
    /// A rule is lifted for a while.
    Waiver(Waiver),
    /// What nobody needs was deleted.
    Pruned(Pruned),
    /// What should have gone after a run stayed.
    Refused(Refused),
    /// A job's snapshots are kept for so long, whatever its policy says later.
    Lock(Lock),
    /// A kind this version does not know.
    Other(u64),
}

/// How much is proved of a snapshot. Each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It was committed.
    Committed,
    /// All that it refers to is there.
    Structure,
    /// Every pack that it needs was read back whole.
    Data,
    /// It was restored, in part or whole, and compared.
    Restored,
    /// What was restored does its work: an application said so.
    Application,
}

impl Level {
    /// All, the least first: the number of each in the format is its place.
    pub const ALL: [Self; 5] =
        [Self::Committed, Self::Structure, Self::Data, Self::Restored, Self::Application];

    fn read(number: u64) -> Result<Self> {
        let level = usize::try_from(number).ok().and_then(|n| Self::ALL.get(n).copied());
        level.ok_or(FormatError::invalid(WHAT, "a level that there is not"))
    }
}

/// Packs that were read whole from the store: every frame opened, every chunk identified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Those that were as they must be.
    pub good: Vec<PackName>,
    /// Those that were not.
    pub bad: Vec<PackName>,
    /// Snapshots whose trees were walked whole, of which every pack was read and good within so many days.
    pub proven: Vec<RunId>,
    /// Those days; 0 when no snapshot is named.
    pub within_days: u64,
}

/// A run of a job: the same in every repository that it could reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// Tells it from all others.
    pub run: RunId,
    /// The job.
    pub job: String,
    /// The host it is about.
    pub host: String,
    /// When it began; the record's own time is when it ended.
    pub start: Timestamp,
    /// How it ended: an exit code.
    pub outcome: u64,
    /// When the next one has to have begun, in seconds since 1970; none without a schedule.
    pub next_due: Option<i64>,
    /// BLAKE3 of the configuration of the job.
    pub config: [u8; 32],
    /// Files in the source.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// What became of it in each destination.
    pub copies: Vec<JobCopy>,
    /// What is wrong with the source or with the run, in words.
    pub findings: Vec<String>,
}

/// What became of a run in one destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobCopy {
    /// The destination's name.
    pub destination: String,
    /// An exit code.
    pub outcome: u64,
    /// The snapshot that was made; none if there is none.
    pub snapshot: Option<RunId>,
    /// How far it is proved.
    pub level: Level,
    /// Why it is not as it should be; empty if it is.
    pub reason: String,
}

/// Snapshots that were let go: an absence that is explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Which.
    pub snapshots: Vec<RunId>,
    /// Why.
    pub reason: String,
    /// Proven snapshots that allowed it; none where none were asked for.
    pub evidence: Vec<RunId>,
}

/// What a drill restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DrillKind {
    /// Files drawn by lot.
    Sample,
    /// All of a snapshot.
    Full,
    /// And a command of the user's judged it.
    Application,
}

impl DrillKind {
    const ALL: [Self; 3] = [Self::Sample, Self::Full, Self::Application];
}

/// A restore was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drill {
    /// The job.
    pub job: String,
    /// The host it is about.
    pub host: String,
    /// The destination it was restored from.
    pub destination: String,
    /// The snapshot.
    pub snapshot: RunId,
    /// What was restored of it.
    pub kind: DrillKind,
    /// What the lot was drawn with.
    pub seed: [u8; 32],
    /// When it began.
    pub start: Timestamp,
    /// An exit code.
    pub outcome: u64,
    /// Files that were compared,
    pub files: u64,
    /// of so many that there are,
    pub files_all: u64,
    /// and their bytes,
    pub bytes: u64,
    /// of so many.
    pub bytes_all: u64,
    /// What was wrong, in words; not all if there is very much of it.
    pub wrong: Vec<String>,
    /// Milliseconds until the repository was open and the lot was drawn, until all was restored, until all was compared,
    /// until the command was done.
    pub phases: [u64; 4],
    /// Seconds that a restore of everything takes: measured by a drill of everything, else reckoned from this one.
    pub rto: u64,
    /// Seconds from the start of the snapshot to the start of the drill.
    pub rpo: u64,
    /// BLAKE3 of the configuration of the job.
    pub config: [u8; 32],
    /// The label of the key that opened the repository, where that was not the destination's own.
    pub key: Option<String>,
    /// Files of the source that nothing was done to since the snapshot and that hold something else, in words.
    pub diverged: Vec<String>,
    /// What came too late for what was promised, in words: that says nothing of what was restored.
    pub late: Vec<String>,
    /// Numbers that the command gave, each with its name, in decimal.
    pub numbers: Vec<(String, String)>,
}

/// A rule is lifted for a while, by name and with a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiver {
    /// The job.
    pub job: String,
    /// The host it is about.
    pub host: String,
    /// Why.
    pub reason: String,
    /// Until when, in seconds since 1970.
    pub until: i64,
}

/// A prune.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pruned {
    /// Snapshots whose grace was over.
    pub ended: Vec<RunId>,
    /// Packs that were deleted.
    pub packs: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// After a run old snapshots should have gone, or what nobody needs, and did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The job.
    pub job: String,
    /// The host it is about.
    pub host: String,
    /// After which run.
    pub run: RunId,
    /// An exit code.
    pub outcome: u64,
    /// Why, in words.
    pub reason: String,
}

/// A promise about a job that a later configuration does not take back: as long as a backup of it is younger than `min`,
/// it stays, or one that was made at most `unit` later does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lock {
    /// The job.
    pub job: String,
    /// The host it is about.
    pub host: String,
    /// What asks for it.
    pub term: String,
    /// How long, in seconds.
    pub min: u64,
    /// How much later, in seconds.
    pub unit: u64,
    /// Only backups that began then or later, in seconds since 1970: those before were let go by other rules.
    pub since: i64,
}

fn ids<const N: usize>(list: impl IntoIterator<Item = [u8; N]>) -> Option<Value> {
    Some(Value::Array(list.into_iter().map(Value::bytes).collect()))
}

fn texts(list: &[String]) -> Option<Value> {
    Some(Value::Array(list.iter().map(Value::text).collect()))
}

fn pair((name, number): &(String, String)) -> Value {
    Value::Array(vec![Value::text(name), Value::text(number)])
}

fn read_pair(value: Value) -> Result<(String, String)> {
    let Value::Array(items) = value else { return Err(FormatError::invalid(WHAT, "a number has no name")) };
    match <[Value; 2]>::try_from(items) {
        Ok([Value::Text(name), Value::Text(number)]) => Ok((name, number)),
        _ => Err(FormatError::invalid(WHAT, "a number has no name")),
    }
}

fn text(s: &str) -> Option<Value> {
    Some(Value::text(s))
}

fn uint(n: u64) -> Option<Value> {
    Some(Value::Uint(n))
}

fn read_texts(f: &mut Fields, key: u64) -> Result<Vec<String>> {
    let text = |value| match value {
        Value::Text(s) => Ok(s),
        _ => Err(FormatError::invalid(WHAT, "a list of texts holds something else")),
    };
    f.list(key)?.into_iter().map(text).collect()
}

fn read_runs(f: &mut Fields, key: u64) -> Result<Vec<RunId>> {
    f.bytes_list(key)?.iter().map(|b| RunId::from_slice(b)).collect()
}

impl Fact {
    pub(super) fn encode(&self) -> (u64, Value) {
        let (kind, fields) = match self {
            Self::Verified(f) => (1, f.fields()),
            Self::Run(f) => (2, f.fields()),
            Self::Forgotten(f) => (3, f.fields()),
            Self::Drill(f) => (4, f.fields()),
            Self::Waiver(f) => (5, f.fields()),
            Self::Pruned(f) => (6, f.fields()),
            Self::Refused(f) => (7, f.fields()),
            Self::Lock(f) => (8, f.fields()),
            Self::Other(kind) => (*kind, Vec::new()),
        };
        (kind, map(fields, &[]))
    }

    pub(super) fn decode(kind: u64, mut f: Fields) -> Result<Self> {
        Ok(match kind {
            1 => Self::Verified(Verified::read(&mut f)?),
            2 => Self::Run(JobRun::read(&mut f)?),
            3 => Self::Forgotten(Forgotten::read(&mut f)?),
            4 => Self::Drill(Drill::read(&mut f)?),
            5 => Self::Waiver(Waiver::read(&mut f)?),
            6 => Self::Pruned(Pruned::read(&mut f)?),
            7 => Self::Refused(Refused::read(&mut f)?),
            8 => Self::Lock(Lock::read(&mut f)?),
            other => Self::Other(other),
        })
    }
}

type Pairs = Vec<(u64, Option<Value>)>;

impl Verified {
    fn fields(&self) -> Pairs {
        let proven = (!self.proven.is_empty()).then(|| ids(self.proven.iter().map(|id| *id.as_bytes())));
        let days = (!self.proven.is_empty()).then_some(Value::Uint(self.within_days));
        vec![
            (1, ids(self.good.iter().map(|id| *id.as_bytes()))),
            (2, ids(self.bad.iter().map(|id| *id.as_bytes()))),
            (3, proven.flatten()),
            (4, days),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        let mut packs = |key| -> Result<Vec<PackName>> {
            f.bytes_list(key)?.iter().map(|b| PackName::from_slice(b)).collect()
        };
        let (good, bad) = (packs(1)?, packs(2)?);
        let proven = f.optional(3, |f, key| Ok((read_runs(f, key)?, f.uint(4)?)))?;
        let (proven, within_days) = proven.unwrap_or_default();
        Ok(Self { good, bad, proven, within_days })
    }
}

impl JobRun {
    fn fields(&self) -> Pairs {
        let copies = self.copies.iter().map(|copy| map(copy.fields(), &[])).collect();
        vec![
            (1, Some(Value::bytes(self.run.as_bytes()))),
            (2, text(&self.job)),
            (3, text(&self.host)),
            (4, Some(time(self.start))),
            (5, uint(self.outcome)),
            (6, self.next_due.map(Value::int)),
            (7, Some(Value::bytes(self.config))),
            (8, uint(self.files)),
            (9, uint(self.bytes)),
            (10, Some(Value::Array(copies))),
            (11, texts(&self.findings)),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        let copy = |value| JobCopy::read(&mut Fields::from_value(WHAT, value)?);
        Ok(Self {
            run: RunId::new(f.array(1)?),
            job: f.text(2)?,
            host: f.text(3)?,
            start: read_timestamp(f, 4)?,
            outcome: f.uint(5)?,
            next_due: f.optional(6, Fields::int)?,
            config: f.array(7)?,
            files: f.uint(8)?,
            bytes: f.uint(9)?,
            copies: f.list(10)?.into_iter().map(copy).collect::<Result<_>>()?,
            findings: read_texts(f, 11)?,
        })
    }
}

impl JobCopy {
    fn fields(&self) -> Pairs {
        vec![
            (1, text(&self.destination)),
            (2, uint(self.outcome)),
            (3, self.snapshot.map(|id| Value::bytes(id.as_bytes()))),
            (4, uint(self.level as u64)),
            (5, text(&self.reason)),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        Ok(Self {
            destination: f.text(1)?,
            outcome: f.uint(2)?,
            snapshot: f.optional(3, |f, key| Ok(RunId::new(f.array(key)?)))?,
            level: Level::read(f.uint(4)?)?,
            reason: f.text(5)?,
        })
    }
}

impl Forgotten {
    fn fields(&self) -> Pairs {
        vec![
            (1, ids(self.snapshots.iter().map(|id| *id.as_bytes()))),
            (2, text(&self.reason)),
            (3, ids(self.evidence.iter().map(|id| *id.as_bytes()))),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        Ok(Self { snapshots: read_runs(f, 1)?, reason: f.text(2)?, evidence: read_runs(f, 3)? })
    }
}

impl Drill {
    fn fields(&self) -> Pairs {
        vec![
            (1, text(&self.job)),
            (2, text(&self.host)),
            (3, text(&self.destination)),
            (4, Some(Value::bytes(self.snapshot.as_bytes()))),
            (5, uint(self.kind as u64)),
            (6, Some(Value::bytes(self.seed))),
            (7, Some(time(self.start))),
            (8, uint(self.outcome)),
            (9, uint(self.files)),
            (10, uint(self.files_all)),
            (11, uint(self.bytes)),
            (12, uint(self.bytes_all)),
            (13, texts(&self.wrong)),
            (14, Some(Value::Array(self.phases.iter().map(|n| Value::Uint(*n)).collect()))),
            (15, uint(self.rto)),
            (16, uint(self.rpo)),
            (17, Some(Value::bytes(self.config))),
            (18, self.key.as_deref().map(Value::text)),
            (19, texts(&self.diverged)),
            (21, texts(&self.late)),
            (20, Some(Value::Array(self.numbers.iter().map(pair).collect()))),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        let kind = usize::try_from(f.uint(5)?).ok().and_then(|n| DrillKind::ALL.get(n).copied());
        let phase = |value| match value {
            Value::Uint(n) => Ok(n),
            _ => Err(FormatError::invalid(WHAT, "a length of time is no number")),
        };
        let phases: Vec<u64> = f.list(14)?.into_iter().map(phase).collect::<Result<_>>()?;
        Ok(Self {
            job: f.text(1)?,
            host: f.text(2)?,
            destination: f.text(3)?,
            snapshot: RunId::new(f.array(4)?),
            kind: kind.ok_or(FormatError::invalid(WHAT, "a kind of drill that there is not"))?,
            seed: f.array(6)?,
            start: read_timestamp(f, 7)?,
            outcome: f.uint(8)?,
            files: f.uint(9)?,
            files_all: f.uint(10)?,
            bytes: f.uint(11)?,
            bytes_all: f.uint(12)?,
            wrong: read_texts(f, 13)?,
            phases: phases.try_into().map_err(|_| FormatError::invalid(WHAT, "a drill has four phases"))?,
            rto: f.uint(15)?,
            rpo: f.uint(16)?,
            config: f.array(17)?,
            key: f.optional(18, Fields::text)?,
            diverged: read_texts(f, 19)?,
            late: read_texts(f, 21)?,
            numbers: f.list(20)?.into_iter().map(read_pair).collect::<Result<_>>()?,
        })
    }
}

impl Waiver {
    fn fields(&self) -> Pairs {
        vec![
            (1, text(&self.job)),
            (2, text(&self.reason)),
            (3, Some(Value::int(self.until))),
            (4, text(&self.host)),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        Ok(Self { job: f.text(1)?, reason: f.text(2)?, until: f.int(3)?, host: f.text(4)? })
    }
}

impl Pruned {
    fn fields(&self) -> Pairs {
        vec![
            (1, ids(self.ended.iter().map(|id| *id.as_bytes()))),
            (2, uint(self.packs)),
            (3, uint(self.bytes)),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        Ok(Self { ended: read_runs(f, 1)?, packs: f.uint(2)?, bytes: f.uint(3)? })
    }
}

impl Refused {
    fn fields(&self) -> Pairs {
        vec![
            (1, text(&self.job)),
            (2, text(&self.host)),
            (3, Some(Value::bytes(self.run.as_bytes()))),
            (4, uint(self.outcome)),
            (5, text(&self.reason)),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        let (job, host, run) = (f.text(1)?, f.text(2)?, RunId::new(f.array(3)?));
        Ok(Self { job, host, run, outcome: f.uint(4)?, reason: f.text(5)? })
    }
}

impl Lock {
    fn fields(&self) -> Pairs {
        vec![
            (1, text(&self.job)),
            (2, text(&self.host)),
            (3, text(&self.term)),
            (4, uint(self.min)),
            (5, uint(self.unit)),
            (6, Some(Value::int(self.since))),
        ]
    }

    fn read(f: &mut Fields) -> Result<Self> {
        let (job, host, term) = (f.text(1)?, f.text(2)?, f.text(3)?);
        Ok(Self { job, host, term, min: f.uint(4)?, unit: f.uint(5)?, since: f.int(6)? })
    }
}
