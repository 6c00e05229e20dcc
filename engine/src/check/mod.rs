//! Check: proves that what snapshots refer to is there, and with `read_data` that it is what it says.
//!
//! First the objects (listing, small objects, packs), which gives the set of what is bad; then the trees, which
//! gives the snapshots and paths that hurts. Nothing is changed; what was read whole is put on record if that is asked
//! for.

mod gathered;
mod objects;
pub(crate) mod packs;
mod rotation;
mod trees;

pub use objects::object;

use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use bulla_repo_format::ledger::{Fact, Verified};
use bulla_repo_format::{Area, ChunkId, IndexName, ObjectName, PackName, RunId};
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// Which packs to read whole.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// None: structure only.
    #[default]
    No,
    /// All.
    All,
    /// Part `n` of `of`, the same packs every time: `of` runs read everything.
    Part {
        /// 1 to `of`.
        n: u64,
        /// How many parts.
        of: u64,
    },
    /// A random share of the packs, in per cent.
    Percent(f64),
    /// Random packs of about this many bytes.
    Bytes(u64),
    /// Those whose turn it is, so that each pack is read within so many days; the ledger knows when each was.
    Within {
        /// Days.
        days: u32,
    },
    /// The same of all packs, also of those that the snapshots asked about do not need; and of these every pack that is not
    /// on record as read and good within so many days: what is found sound by this is proven.
    Proven {
        /// Days.
        days: u32,
    },
}

impl ReadData {
    /// Within how many days every pack was read when it has been done; `None` if that cannot be said.
    fn within(self) -> Option<u32> {
        match self {
            Self::All => Some(1),
            Self::Proven { days } => Some(days),
            _ => None,
        }
    }
}

/// What to check.
#[derive(Debug, Clone, Default)]
pub struct CheckOptions {
    /// Packs to read whole.
    pub read_data: ReadData,
    /// Put what was read on record in the ledger: the only thing a check ever writes.
    pub record: bool,
    /// No pack is begun after this long; what was read is on record, and the next check goes on.
    pub max_duration: Option<Duration>,
    /// Walk only the trees of these snapshots, and look only at packs that they need; `None` is all. Small objects are
    /// checked all the same, whoever made them.
    pub snapshots: Option<HashSet<RunId>>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object, chunk or node.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
    /// Short ids of the snapshots it hurts, and a path in each; the first thousand.
    pub hurts: Vec<(String, Vec<u8>)>,
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct CheckReport {
    /// Damage. Empty means clean.
    pub findings: Vec<Finding>,
    /// Things that are odd but hurt nothing: packs no index lists, runs without verdict.
    pub notices: Vec<String>,
    /// Snapshots that were walked.
    pub snapshots: u64,
    /// Tree nodes that were read.
    pub nodes: u64,
    /// Packs that are there, of those asked about.
    pub packs: u64,
    /// Packs that were read whole.
    pub packs_read: u64,
    /// Bytes of those.
    pub bytes_read: u64,
    /// Packs that were to be read and were not, for want of time.
    pub packs_left: u64,
    /// Snapshots that are on record as proven now: walked whole, every pack read.
    pub proven: u64,
}

const HURTS_MAX: usize = 1000;
/// Passes that may end with findings while a prune moves what they look at.
const PASSES: usize = 3;

/// What the object phases found to be bad: the tree phase looks references up here.
#[derive(Default)]
struct Bad {
    /// Packs that are gone, cut short or unreadable as a whole.
    packs: HashSet<PackName>,
    /// Chunks that are bad in one pack.
    chunks: HashMap<ChunkId, HashSet<PackName>>,
}

/// Checks a repository.
pub fn run(repository: &Repository, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    if let ReadData::Part { n, of } = options.read_data
        && (n == 0 || n > of)
    {
        return Err(Error::Refused(format!("part {n} of {of} does not exist; parts count from 1")));
    }
    for _ in 0..PASSES {
        let before = moved(repository)?;
        let report = pass(repository, options, observer)?;
        if report.findings.is_empty() || before == moved(repository)? {
            return Ok(report);
        }
        observer
            .event(&Event::Notice("a prune moved data meanwhile; looking again before calling it damage"));
    }
    pass(repository, options, observer)
}

/// What changes when a prune condemns, moves or buries packs.
fn moved(repository: &Repository) -> Result<(HashSet<RunId>, Vec<IndexName>, HashSet<RunId>)> {
    let of = |area| Ok::<_, Error>(repository.list_runs(area)?.into_iter().collect());
    Ok((of(Area::Marks)?, repository.index_names()?, of(Area::Deaths)?))
}

fn pass(repository: &Repository, options: &CheckOptions, observer: &dyn Observer) -> Result<CheckReport> {
    let (mut report, mut bad) = (CheckReport::default(), Bad::default());
    objects::check(repository, &mut report)?;
    let index = repository.open_index()?;
    for (_, e) in index.failed() {
        report.add("an index run", e);
    }
    let only = options.snapshots.as_ref();
    let needed = only.map(|only| trees::packs_needed(repository, &index, only, observer)).transpose()?;
    let until = options.max_duration.and_then(|d| Instant::now().checked_add(d));
    let scope = packs::Scope { read_data: options.read_data, needed, until };
    let read = packs::check(repository, &index, &scope, observer, &mut report, &mut bad)?;
    let walked = match read.interrupted {
        true => Err(Error::Interrupted),
        false => trees::check(repository, &index, &bad, only, observer, &mut report),
    };
    // What was read counts, also of a check that is stopped: the next one goes on behind it.
    let elsewhere = |f: &Finding| match ObjectName::parse(&f.object) {
        Some(ObjectName::Pack(name) | ObjectName::Meta(name)) => !scope.has(&name),
        _ => false,
    };
    let whole = report.findings.iter().all(elsewhere) && report.packs_left == 0;
    let days = options.read_data.within().filter(|_| whole);
    let proven = walked.as_ref().ok().cloned().filter(|_| days.is_some()).unwrap_or_default();
    if options.record && !(read.packs.is_empty() && read.gone.is_empty() && proven.is_empty()) {
        report.proven = proven.len() as u64;
        let is_bad = |name: &PackName| read.bad.contains(name) || bad.holds(name);
        let (mut bad, good): (Vec<_>, Vec<_>) = read.packs.into_iter().partition(is_bad);
        bad.extend(read.gone);
        bad.sort_unstable();
        bad.dedup();
        let within_days = if proven.is_empty() { 0 } else { days.unwrap_or_default().into() };
        put_on_record(repository, Verified { good, bad, proven, within_days }, &mut report)?;
    }
    walked?;
    report.merge();
    remedy(repository, &mut report)?;
    Ok(report)
}

/// Only this much of a check is written. A repository that may only be read can be checked all the same.
fn put_on_record(repository: &Repository, read: Verified, report: &mut CheckReport) -> Result<()> {
    match repository.record(&Fact::Verified(read)) {
        Err(Error::Backend(BackendError::Denied { .. } | BackendError::NoSpace { .. })) => {
            let text = "what was read could not be put on record: the repository takes no writes";
            report.notices.push(text.into());
            report.proven = 0;
            Ok(())
        }
        other => other,
    }
}

/// Says so if damaged packs that are there have parity.
fn remedy(repository: &Repository, report: &mut CheckReport) -> Result<()> {
    let backend = repository.backend();
    let mut protected = 0;
    for finding in &report.findings {
        let object = ObjectName::parse(&finding.object);
        if let Some(object @ (ObjectName::Pack(name) | ObjectName::Meta(name))) = object {
            let both = backend.stat(&object)?.is_some() && backend.stat(&ObjectName::Parity(name))?.is_some();
            protected += usize::from(both);
        }
    }
    if protected > 0 {
        let text = format!(
            "{protected} of the damaged packs have parity: try `bulla repair parity`, it needs no key"
        );
        report.notices.push(text);
    }
    Ok(())
}

impl Bad {
    /// True if anything of the pack was found bad.
    fn holds(&self, pack: &PackName) -> bool {
        self.packs.contains(pack) || self.chunks.values().any(|packs| packs.contains(pack))
    }
}

impl CheckReport {
    /// One finding per object: what the packs phase found wrong and what the tree phase found hurt.
    fn merge(&mut self) {
        self.findings.sort_by(|a, b| a.object.cmp(&b.object));
        let mut merged: Vec<Finding> = Vec::new();
        for finding in self.findings.drain(..) {
            match merged.last_mut().filter(|last| last.object == finding.object) {
                Some(last) => last.hurts.extend(finding.hurts),
                None => merged.push(finding),
            }
        }
        self.findings = merged;
    }

    fn add(&mut self, object: impl Into<String>, reason: impl ToString) -> &mut Finding {
        let finding = Finding { object: object.into(), reason: reason.to_string(), hurts: Vec::new() };
        self.findings.push(finding);
        let last = self.findings.len() - 1;
        &mut self.findings[last]
    }
}
