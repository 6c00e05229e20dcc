//! Backup: the verb in one screen. Open a run, feed the pipeline, verify what was relied on, commit.
//!
//! Order is safety here: packs and index runs are durable before the announcement that names foreign packs, that
//! before the look whether they are still there, and that before the snapshot, which is last and is the commit
//! (SPEC 14). A crash anywhere leaves older snapshots as they were and at worst some packs nobody refers to.

mod ahead;
pub mod decide;
pub(crate) mod fold;
mod gaps;
pub(crate) mod known;
mod lineage;
pub(crate) mod look;
pub(crate) mod pipeline;
mod produce;
pub(crate) mod resume;
pub(crate) mod scan;
mod settled;
pub(crate) mod store;
pub(crate) mod work;

pub use lineage::Parent;

use crate::chunker::Chunker;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::pack::{PackSink, PackStream};
use crate::repository::run::{ForeignPack, Run};
use crate::repository::tree::TreeReader;
use crate::repository::upload::OnCheckpoint;
use crate::repository::{Repository, upload};
use crate::source::Sources;
use bulla_repo_format::frame::Compression;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Checkpoint, Pin, RunKind};
use bulla_repo_format::snapshot::{Mount, Snapshot, Statistics};
use bulla_repo_format::tree::{BuiltTree, Timestamp, TreeBuilder};
use bulla_repo_format::{PackName, RunId};
use decide::Comparison;
use fold::Folded;
use known::Known;
use lineage::Lineage;
use look::Looked;
use produce::{Previous, Producer};
use resume::Resumed;
use scan::Totals;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{Counters, Shared};

/// How to back up.
#[derive(Debug, Clone)]
pub struct BackupOptions {
    /// The host the snapshot is about.
    pub host: String,
    /// Tags.
    pub tags: Vec<String>,
    /// The time the snapshot shows, instead of now.
    pub time: Option<Timestamp>,
    /// What to compare with.
    pub parent: Parent,
    /// What the comparison may leave out.
    pub comparison: Comparison,
    /// Count, store nothing.
    pub dry_run: bool,
    /// No snapshot when nothing changed.
    pub skip_if_unchanged: bool,
    /// How hard to compress.
    pub compression: Compression,
    /// Expand and open every frame again before its pack is put.
    pub verify_packs: bool,
    /// How often to announce how far it has come, for the run that goes on if this one dies.
    pub checkpoint: Duration,
    /// The program, for the snapshot.
    pub program: String,
    /// Exclusions as given, for the snapshot.
    pub excludes: Vec<String>,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self {
            host: String::new(),
            tags: Vec::new(),
            time: None,
            parent: Parent::Auto,
            comparison: Comparison::default(),
            dry_run: false,
            skip_if_unchanged: false,
            compression: Compression::Auto,
            verify_packs: true,
            checkpoint: Duration::from_secs(300),
            program: concat!("bulla ", env!("CARGO_PKG_VERSION")).to_owned(),
            excludes: Vec::new(),
        }
    }
}

/// What a backup did.
#[derive(Debug, Clone)]
pub struct BackupReport {
    /// The snapshot; `None` for a dry run, or when nothing changed and that was to be skipped.
    pub snapshot: Option<Snapshot>,
    /// Counts. `errors` above 0 means that something of the source is missing from the snapshot.
    pub statistics: Statistics,
    /// What it was compared with.
    pub parent: Option<RunId>,
    /// True when it was skipped because nothing changed.
    pub unchanged: bool,
    /// Set when the store shows an older state than this machine saw, or lacks what is on record.
    pub alarm: Option<String>,
}

/// Attempts before a backup gives up against collectors that condemn what it relies on.
const ATTEMPTS: usize = 3;

/// Backs up `sources` and commits a snapshot.
pub fn run(
    repository: &Repository,
    mut sources: Sources,
    options: &BackupOptions,
    observer: &dyn Observer,
) -> Result<BackupReport> {
    repository.require_writable()?;
    if let Sources::Stream(stream) = &sources {
        stream.check_name()?;
    }
    if !options.dry_run {
        // A store that cannot keep its reserve is full: a backup would eat what a prune has just freed.
        repository.keep_reserve()?;
    }
    let start = repository.env().clock.now();
    let mut excluded = HashSet::new();
    for attempt in 1..=ATTEMPTS {
        let mut job = Job { repository, options, observer, start, excluded: &excluded };
        let outcome = match job.attempt(&mut sources) {
            // What it stored is there, and found again by the next attempt, as packs of another run.
            Err(Error::Voided { .. }) if attempt < ATTEMPTS && matches!(sources, Sources::Paths(_)) => {
                let text =
                    "a prune took this run for dead and expired it; beginning again with what it has stored";
                observer.event(&Event::Notice(text));
                continue;
            }
            other => other?,
        };
        match outcome {
            Attempt::Done(report) => return Ok(*report),
            Attempt::Condemned(packs) if attempt < ATTEMPTS && matches!(sources, Sources::Paths(_)) => {
                let n = packs.len();
                observer.event(&Event::Notice(&format!(
                    "{n} packs this backup relied on were condemned by a prune meanwhile; storing their chunks again"
                )));
                excluded.extend(packs);
            }
            Attempt::Condemned(_) => break,
        }
    }
    let text = "packs this backup relied on were condemned by a prune while it ran; nothing was committed, run it again";
    Err(Error::Refused(text.into()))
}

struct Job<'a> {
    repository: &'a Repository,
    options: &'a BackupOptions,
    observer: &'a dyn Observer,
    start: Timestamp,
    excluded: &'a HashSet<PackName>,
}

enum Attempt {
    Done(Box<BackupReport>),
    Condemned(Vec<PackName>),
}

/// What the pipeline gave.
struct Outcome {
    tree: BuiltTree,
    folded: Folded,
    stored: u64,
    mounts: Vec<Mount>,
    foreign: Vec<ForeignPack>,
}

impl Job<'_> {
    fn attempt(&mut self, sources: &mut Sources) -> Result<Attempt> {
        let (repository, options) = (self.repository, self.options);
        let lineage = Lineage::gather(repository, options, &paths_of(sources), self.observer)?;
        let pins: Vec<Pin> = lineage.parent.iter().map(|s| Pin { snapshot: s.id, tree: s.tree }).collect();
        let mut run = None;
        let mut parent = lineage.parent.clone();
        if !options.dry_run {
            let (opened, dead) = Run::open(repository, RunKind::Writer, &pins)?;
            if !dead.is_empty() {
                parent = None;
            }
            run = Some(opened);
        }
        let own = run.as_ref().map(Run::id);
        let mut looked = Looked::around(repository, own, self.excluded, Some(&lineage.index), self.observer)?;
        let mut checkpoint = None;
        if run.is_some() && options.parent != Parent::None {
            let (host, paths) = (&options.host, paths_of(sources));
            let announced = std::mem::take(&mut looked.announced);
            let found = resume::find(repository, &looked.index, announced, host, &paths, self.observer)?;
            // What the parent has of the same files is older than it, or was committed after all.
            checkpoint = found.filter(|c| parent.as_ref().is_none_or(|p| scan_of(p) < c.start));
            if checkpoint.is_some() {
                let text = "an interrupted backup of the same paths is continued";
                self.observer.event(&Event::Notice(text));
            }
        }
        let known = looked.known(repository, self.observer)?;
        let mut outcome = self.pipeline(sources, known, parent.as_ref(), run.as_mut(), checkpoint)?;
        if let Sources::Stream(s) = sources {
            s.commit().map_err(|e| Error::Refused(format!("{e}; nothing was committed")))?;
        }
        outcome.folded.statistics.stored_bytes = outcome.stored;
        let statistics = outcome.folded.statistics;
        let unchanged = parent.as_ref().is_some_and(|p| p.tree == outcome.tree.root);
        let report = |snapshot, unchanged| {
            let parent = parent.as_ref().map(|p| p.id);
            let alarm = lineage.alarm.clone();
            Ok(Attempt::Done(Box::new(BackupReport { snapshot, statistics, parent, unchanged, alarm })))
        };
        let Some(mut run) = run else { return report(None, false) };
        if options.skip_if_unchanged && unchanged {
            return report(None, true);
        }
        if !outcome.foreign.is_empty() {
            // What others put and this run has seen may not be durable yet, the index runs that list it neither.
            repository.backend().settle()?;
            let names: Vec<PackName> = outcome.foreign.iter().map(|p| p.name).collect();
            run.announce(&pins, true, &names)?;
            let bad = run.unreliable(&outcome.foreign)?;
            if !bad.is_empty() {
                return Ok(Attempt::Condemned(bad));
            }
        }
        if self.observer.interrupted() {
            return Err(Error::Interrupted);
        }
        // A snapshot of ours that is alive came after our certificate.
        if lineage.position.heads.is_empty() {
            repository.certify()?;
        }
        let snapshot = self.snapshot(run.id(), &lineage, parent.as_ref(), sources, outcome);
        report(Some(run.commit(snapshot)?), false)
    }

    /// What to do at a checkpoint: announce it, with the pins, which stay as they are.
    fn announcer<'s>(
        &'s self,
        run: Option<&'s mut Run<'_>>,
        sources: &Sources,
        parent: Option<&Snapshot>,
    ) -> OnCheckpoint<'s> {
        let (host, paths) = (self.options.host.clone(), paths_of(sources));
        let pins: Vec<Pin> = parent.iter().map(|s| Pin { snapshot: s.id, tree: s.tree }).collect();
        let (start, mut run) = (self.start, run);
        Box::new(move |tree| {
            let checkpoint =
                tree.map(|tree| Checkpoint { start, host: host.clone(), paths: paths.clone(), tree });
            run.as_mut().map_or(Ok(()), |run| run.checkpoint(&pins, checkpoint))
        })
    }

    fn pipeline(
        &self,
        sources: &mut Sources,
        known: Known<'_>,
        parent: Option<&Snapshot>,
        run: Option<&mut Run<'_>>,
        checkpoint: Option<Checkpoint>,
    ) -> Result<Outcome> {
        let discard = upload::Discard::new(self.repository.config().parity);
        let id = run.as_ref().map_or(RunId::new([0; 16]), |r| r.id());
        let announcer = self.announcer(run, sources, parent);
        let (uploads, uploader) = upload::channel(self.repository, announcer);
        let sink: &dyn PackSink = if self.options.dry_run { &discard } else { &uploads };
        let (repository, options) = (self.repository, self.options);
        let (ring, domain) = (repository.keyring(), repository.keyring().domain());
        let stream =
            |kind| PackStream::new(repository, kind, id, options.compression, options.verify_packs, sink);
        let shared = Shared {
            chunker: Chunker::new(repository.config().chunker, ring)?,
            id_key: ring.id_key(domain, ChunkKind::Data)?,
            known,
            data: stream(PackKind::Data),
            checkpoint: matches!(sources, Sources::Paths(_)).then_some(options.checkpoint),
            counters: Counters::default(),
            totals: Totals::default(),
        };
        let meta = stream(PackKind::Meta);
        let builder = TreeBuilder::new(ring.split_key(domain)?, ring.id_key(domain, ChunkKind::Meta)?);
        let previous = match parent {
            Some(p) => {
                let reader = TreeReader::new(repository, shared.known.index(), p.tree).record_visited();
                Some(Previous::new(reader, scan_of(p), options.comparison, &shared.known)?)
            }
            None => None,
        };
        let resumed = checkpoint
            .map(|c| Resumed::new(repository, shared.known.index(), c, options.comparison))
            .transpose()?;
        let width = repository.env().width;
        let mut producer = Producer::new(&shared, previous, resumed, width);
        let mut mounts = Vec::new();
        let (paths, stream) = match sources {
            Sources::Paths(paths) => (Some(&*paths), None),
            Sources::Stream(stream) => (None, Some(stream)),
        };
        let produce = |feed: &mut pipeline::Feed<'_>| {
            if let Some(paths) = paths {
                mounts = ahead::walk(paths, self.observer, |walked| producer.take(walked, feed))?;
                producer.flush(feed)?;
            }
            stream.map_or(Ok(()), |s| producer.stream(s, self.start, feed))
        };
        let (tree, mut folded, stored) = std::thread::scope(|scope| {
            if let Some(paths) = paths.filter(|_| self.observer.wants_totals()) {
                scope.spawn(|| shared.totals.scan(paths));
            }
            let settle = |name: &_| shared.known.settle(repository, name);
            let (hang_up, upload) = (|| uploads.hang_up(), || uploader.run(&settle));
            let done = pipeline::run(&shared, &meta, builder, width, self.observer, produce, hang_up, upload);
            shared.totals.stop();
            done
        })?;
        let c = &shared.counters;
        folded.statistics.read_bytes = c.read_bytes.load(Ordering::Relaxed);
        folded.statistics.data_chunks_new = c.chunks_new.load(Ordering::Relaxed);
        folded.statistics.data_bytes_new = c.bytes_new.load(Ordering::Relaxed);
        folded.statistics.data_chunks_known = c.chunks_known.load(Ordering::Relaxed);
        let foreign = shared.known.foreign_packs()?;
        let stored = stored.bytes + discard.stored().bytes;
        Ok(Outcome { tree, folded, stored, mounts, foreign })
    }

    fn snapshot(
        &self,
        id: RunId,
        lineage: &Lineage,
        parent: Option<&Snapshot>,
        sources: &Sources,
        outcome: Outcome,
    ) -> Snapshot {
        let (env, options) = (self.repository.env(), self.options);
        let mut names = crate::source::Names::default();
        let folded = outcome.folded;
        let users = folded.uids.iter().filter_map(|u| names.user(*u).map(|n| (*u, n))).collect();
        let groups = folded.gids.iter().filter_map(|g| names.group(*g).map(|n| (*g, n))).collect();
        Snapshot {
            id,
            client: self.repository.client().id(),
            seq: lineage.position.seq,
            prev: lineage.position.heads.clone(),
            seen: lineage.position.seen.clone(),
            config_generation: self.repository.config().generation,
            start: options.time.unwrap_or(self.start),
            end: env.clock.now(),
            tree: outcome.tree.root,
            host: options.host.clone(),
            user: env.user.clone(),
            os: std::env::consts::OS.to_owned(),
            program: options.program.clone(),
            paths: paths_of(sources),
            tags: options.tags.clone(),
            excludes: options.excludes.clone(),
            mounts: outcome.mounts,
            users,
            groups,
            parent: parent.map(|p| p.id),
            origin: None,
            statistics: folded.statistics,
            errors: folded.errors,
        }
    }
}

/// When a snapshot's scan began, for the comparison. A start after the end was chosen, or a clock was set back: then
/// nothing is known, and nothing counts as settled.
pub(crate) fn scan_of(parent: &Snapshot) -> Timestamp {
    let unknown = Timestamp { seconds: i64::MIN, nanos: 0 };
    if parent.start > parent.end { unknown } else { parent.start }
}

fn paths_of(sources: &Sources) -> Vec<Vec<u8>> {
    match sources {
        Sources::Paths(p) => p.absolute(),
        Sources::Stream(s) => {
            vec![[b"/", crate::repository::snapshots::clean_path(&s.name).as_slice()].concat()]
        }
    }
}
