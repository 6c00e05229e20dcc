//! Copies snapshots into another repository. Where that one shares this one's chunk ids (`InitOptions::like`) chunks are
//! moved (`gather`): they keep their ids, so the trees are the same trees. Elsewhere contents are cut again (`resplit`).
//! `plan` says what a copy would cost; `several` fills many repositories from one reading of a source.
//!
//! Kept true: every chunk is identified on the way; a snapshot is committed only when all it needs is there (SPEC 14), so a
//! copy that is cut off leaves packs and no snapshot, and the next one goes on with what they hold; what is there already,
//! under any snapshot, is not fetched.

mod gather;
mod plan;
mod resplit;
pub mod several;

use crate::backup::known::Known;
use crate::backup::look::Looked;
use crate::backup::{resume, scan_of};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::chunks::Fetched;
use crate::repository::pack::{PackSink, PackStream};
use crate::repository::run::Run;
use crate::repository::upload::OnRun;
use crate::repository::upload::{self, OnCheckpoint, Stored};
use bulla_repo_format::frame::Compression;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Checkpoint, Pin, RunKind};
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::{PackName, RunId};
use gather::{Gather, How, Moved};
use resplit::{Cut, Target};
use std::collections::HashSet;
use std::time::Duration;

/// How to copy.
#[derive(Debug, Clone, Copy)]
pub struct CopyOptions {
    /// Say what would be moved; write nothing.
    pub dry_run: bool,
    /// How the copies are compressed.
    pub compression: Compression,
    /// How often to list what was moved and to announce how far it has come, for the copy that goes on if this one dies.
    pub checkpoint: Duration,
}

impl Default for CopyOptions {
    fn default() -> Self {
        let checkpoint = Duration::from_secs(300);
        Self { dry_run: false, compression: Compression::Auto, checkpoint }
    }
}

/// What was copied, or would be. What listings, announcements and the snapshots themselves cost is not counted: some twenty
/// small requests to the target and three to the source, and a dozen for each snapshot.
#[derive(Debug, Clone, Default)]
pub struct CopyReport {
    /// Snapshots of the source, and what they are in the target (nothing in a dry run).
    pub copied: Vec<(Snapshot, Option<RunId>)>,
    /// Snapshots that are in the target already.
    pub present: Vec<RunId>,
    /// Chunks moved.
    pub chunks: u64,
    /// Their plain bytes.
    pub bytes: u64,
    /// Requests to the source for frames of packs, metadata and content, and the bytes that came. Metadata of which there is
    /// a copy on this machine is counted, too.
    pub fetched: Fetched,
    /// Packs, parity and index runs put to the target. A dry run says it of content from the frames that it lies in at the
    /// source; where contents are cut again it cannot know what the target has, so all of it is counted.
    pub stored: Stored,
}

impl CopyReport {
    fn add(&mut self, moved: Moved, stored: Stored) {
        self.chunks += moved.chunks;
        self.bytes += moved.bytes;
        self.fetched += moved.fetched;
        self.stored.bytes += stored.bytes;
        self.stored.objects += stored.objects;
    }
}

/// Snapshots of the target that are pinned because their trees need not be walked again. Each costs two requests when a run
/// begins; when there are more, all are let go and one tree is walked whole.
const PINS: usize = 8;

/// Attempts before a snapshot is left to the next copy.
const ATTEMPTS: usize = 3;

/// True if chunks of `from` have the same ids in `to`.
pub fn share_chunks(from: &Repository, to: &Repository) -> bool {
    let (a, b) = (from.keyring().domains(), to.keyring().domains());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| a.expose() == b.expose())
        && from.config().chunker == to.config().chunker
}

/// Copies `snapshots` of `from`, oldest first, into `to`.
pub fn run(
    from: &Repository,
    to: &Repository,
    snapshots: &[Snapshot],
    options: &CopyOptions,
    observer: &dyn Observer,
) -> Result<CopyReport> {
    to.require_writable()?;
    if from.id() == to.id() {
        let text = "it is the same repository; to heal it from a copy: bulla repair packs --from";
        return Err(Error::Refused(text.into()));
    }
    let shared = share_chunks(from, to);
    if !shared {
        let text = "the repositories have different chunk ids: contents are read whole, cut again and stored anew; a target \
                    made with `bulla init --copy-chunker-from` gets chunks as they are";
        observer.event(&Event::Notice(text));
    }
    let there = There { snapshots: to.snapshots()?, shared };
    let (mut missing, mut report): (Vec<&Snapshot>, _) = (Vec::new(), CopyReport::default());
    for snapshot in snapshots {
        if there.has(snapshot) { report.present.push(snapshot.id) } else { missing.push(snapshot) }
    }
    missing.sort_by_key(|s| (s.start, s.id));
    let gather = Gather::new(from, from.open_index()?);
    if options.dry_run {
        return plan::plan(gather, to, &missing, options, report, observer);
    }
    let cut = (!shared).then(Cut::default);
    let mut job = Copy { to, options, observer, gather, cut, pins: Vec::new(), report };
    missing.into_iter().try_for_each(|snapshot| job.snapshot(snapshot))?;
    Ok(job.report)
}

/// What the target has.
struct There {
    snapshots: Vec<Snapshot>,
    shared: bool,
}

impl There {
    /// True if the target has the snapshot: a copy of it, what it is a copy of, or by whatever way the same tree of the same
    /// moment.
    fn has(&self, wanted: &Snapshot) -> bool {
        self.snapshots.iter().any(|s| {
            let copy = s.origin == Some(wanted.id) || wanted.origin == Some(s.id);
            if !self.shared {
                return copy;
            }
            let copies = s.origin.is_some() || wanted.origin.is_some();
            let same = (s.start, &s.host, &s.paths) == (wanted.start, &wanted.host, &wanted.paths);
            // An edition of a repaired snapshot names its origin, too, and has another tree.
            s.tree == wanted.tree && (copy || (copies && same))
        })
    }
}

struct Copy<'a> {
    to: &'a Repository,
    options: &'a CopyOptions,
    observer: &'a dyn Observer,
    gather: Gather<'a>,
    /// What files were cut into, where they must be cut again.
    cut: Option<Cut>,
    /// Snapshots of the target that hold what was copied before.
    pins: Vec<Pin>,
    report: CopyReport,
}

/// What a copy announces at its checkpoints: that it lives, and where contents are cut again the tree of what it has done,
/// which is that of a backup that began when the snapshot did.
fn announcer<'s>(run: &'s mut Run<'_>, pins: &'s [Pin], snapshot: &'s Snapshot) -> OnCheckpoint<'s> {
    Box::new(move |tree| {
        let (host, paths) = (snapshot.host.clone(), snapshot.paths.clone());
        let checkpoint = tree.map(|tree| Checkpoint { start: scan_of(snapshot), host, paths, tree });
        run.checkpoint(pins, checkpoint)
    })
}

enum Attempt {
    Done(Pin, Moved, Stored),
    Condemned(Vec<PackName>),
}

impl Copy<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut excluded = HashSet::new();
        for attempt in 1..=ATTEMPTS {
            let outcome = match self.attempt(snapshot, &excluded) {
                // What it stored is there, and found again by the next attempt, as packs of another run.
                Err(Error::Voided { .. }) if attempt < ATTEMPTS => {
                    let text = "a prune took this copy for dead and expired it; beginning again with what it has stored";
                    self.observer.event(&Event::Notice(text));
                    continue;
                }
                other => other?,
            };
            match outcome {
                Attempt::Done(pin, moved, stored) => {
                    self.report.add(moved, stored);
                    self.report.copied.push((snapshot.clone(), Some(pin.snapshot)));
                    self.pins.push(pin);
                    return Ok(());
                }
                Attempt::Condemned(packs) => {
                    let n = packs.len();
                    let text = format!(
                        "{n} packs this copy relied on were condemned by a prune meanwhile; copying again"
                    );
                    self.observer.event(&Event::Notice(&text));
                    excluded.extend(packs);
                }
            }
        }
        let text = "packs this copy relied on were condemned by a prune while it ran; nothing was committed, run it again";
        Err(Error::Refused(text.into()))
    }

    fn attempt(&mut self, snapshot: &Snapshot, excluded: &HashSet<PackName>) -> Result<Attempt> {
        let (to, options, observer) = (self.to, self.options, self.observer);
        if self.pins.len() > PINS {
            self.pins.clear();
        }
        let (mut run, dead) = Run::open(to, RunKind::Writer, &self.pins)?;
        self.pins.retain(|pin| !dead.contains(pin));
        let mut looked = Looked::around(to, Some(run.id()), excluded, None, observer)?;
        let before = self.before(snapshot, &mut looked)?;
        let known = looked.known(to, observer)?;
        let id = run.id();
        let (uploads, uploader) = upload::channel(to, announcer(&mut run, &self.pins, snapshot));
        let sink: &dyn PackSink = &uploads;
        let stream = |kind| PackStream::new(to, kind, id, options.compression, true, sink);
        let (data, meta) = (stream(PackKind::Data), stream(PackKind::Meta));
        self.gather.keep_only(&self.pins.iter().map(|p| p.tree).collect::<Vec<_>>());
        let (tree, moved, entered, known, stored) = match &mut self.cut {
            None => {
                let how = How { dry_run: false, checkpoint: options.checkpoint };
                let settle = |name: &_| known.settle(to, name);
                let ((moved, entered), stored) = std::thread::scope(|scope| {
                    let upload = scope.spawn(|| uploader.run(&settle));
                    let end = uploads.until_dropped();
                    let moved = self.gather.tree(snapshot.tree, &known, (&data, &meta), how, observer);
                    drop(end);
                    let bug = || {
                        Error::Refused("an uploader stopped on a bug in bulla; nothing was committed".into())
                    };
                    // The uploader's error is the one that counts; the gatherer then only knows that it hung up.
                    let stored = upload.join().unwrap_or_else(|_| Err(bug()))?;
                    Ok::<_, Error>((moved?, stored))
                })?;
                (snapshot.tree, moved, entered, known, stored)
            }
            Some(cut) => {
                let target = Target { repository: to, data, meta, before, checkpoint: options.checkpoint };
                let ends = (|| uploads.hang_up(), |on_run: OnRun<'_>| uploader.run(on_run));
                let source = self.gather.source();
                let (tree, moved, known, stored) =
                    cut.tree(source, snapshot.tree, known, target, observer, ends)?;
                (tree, moved, HashSet::new(), known, stored)
            }
        };
        let bad = self.verify(&mut run, &known)?;
        if !bad.is_empty() {
            return Ok(Attempt::Condemned(bad));
        }
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        to.certify()?;
        let copy = Snapshot { parent: None, tree, ..to.new_edition(snapshot, run.id())? };
        let pin = Pin { snapshot: run.commit(copy)?.id, tree };
        self.gather.committed(tree, entered);
        Ok(Attempt::Done(pin, moved, stored))
    }

    /// What a copy of the same snapshot has left that died: its packs are listed, and where contents are cut again, the tree
    /// of what it had done.
    fn before(&self, snapshot: &Snapshot, looked: &mut Looked) -> Result<Option<Checkpoint>> {
        let announced = std::mem::take(&mut looked.announced);
        let (host, paths) = (&snapshot.host, &snapshot.paths);
        let found = resume::find(self.to, &looked.index, announced, host, paths, self.observer)?;
        let before = found.filter(|c| self.cut.is_some() && c.start == scan_of(snapshot));
        if before.is_some() {
            self.observer.event(&Event::Notice("an interrupted copy of the same snapshot is continued"));
        }
        Ok(before)
    }

    /// Announces the packs of others that this run relies on, and gives those that nobody may rely on (SPEC 14, w3).
    fn verify(&self, run: &mut Run<'_>, known: &Known<'_>) -> Result<Vec<PackName>> {
        let foreign = known.foreign_packs()?;
        if foreign.is_empty() {
            return Ok(Vec::new());
        }
        // What others put and this run has seen may not be durable yet, the index runs that list it neither.
        self.to.backend().settle()?;
        let names: Vec<PackName> = foreign.iter().map(|p| p.name).collect();
        run.announce(&self.pins, true, &names)?;
        run.unreliable(&foreign)
    }
}
