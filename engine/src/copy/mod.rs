//! Copies snapshots into another repository. Where that one shares this one's chunk ids (`InitOptions::like`) chunks are
//! moved (`gather`): they keep their ids, so the trees are the same trees. Elsewhere contents are cut again (`resplit`).
//!
//! Kept true: every chunk is identified on the way; a snapshot is committed only when all it needs is there (SPEC 14), so a
//! copy that is cut off leaves packs and no snapshot, and the next one goes on with what they hold; what is there already,
//! under any snapshot, is not fetched.

mod gather;
mod resplit;
pub mod several;

use crate::backup::known::Known;
use crate::backup::look::Looked;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::pack::{PackSink, PackStream};
use crate::repository::run::Run;
use crate::repository::upload::{self, Discard};
use bulla_repo_format::frame::Compression;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Pin, RunKind};
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::{ChunkId, PackName, RunId};
use gather::{Gather, Moved};
use resplit::{Cut, Target};
use std::collections::{HashMap, HashSet};

/// How to copy.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Say what would be moved; write nothing.
    pub dry_run: bool,
    /// How the copies are compressed.
    pub compression: Compression,
}

/// What was copied, or would be.
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
    /// Requests to the source for them.
    pub requests: u64,
    /// Bytes of packs and index runs in the target.
    pub stored: u64,
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
    let there: HashMap<RunId, ChunkId> =
        to.snapshots()?.into_iter().filter_map(|s| Some((s.origin?, s.tree))).collect();
    let mut job = Copy {
        to,
        options,
        observer,
        gather: Gather::new(from, from.open_index()?),
        cut: (!shared).then(Cut::default),
        pins: Vec::new(),
        report: CopyReport::default(),
    };
    let mut order: Vec<&Snapshot> = snapshots.iter().collect();
    order.sort_by_key(|s| (s.start, s.id));
    for snapshot in order {
        // An edition of a repaired snapshot names its origin, too, and has another tree.
        match there.get(&snapshot.id).filter(|tree| !shared || **tree == snapshot.tree) {
            Some(_) => job.report.present.push(snapshot.id),
            None => job.snapshot(snapshot)?,
        }
    }
    Ok(job.report)
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

enum Attempt {
    Done(Option<Pin>, Moved, u64),
    Condemned(Vec<PackName>),
}

impl Copy<'_> {
    fn snapshot(&mut self, snapshot: &Snapshot) -> Result<()> {
        let mut excluded = HashSet::new();
        for _ in 0..ATTEMPTS {
            match self.attempt(snapshot, &excluded)? {
                Attempt::Done(pin, moved, stored) => {
                    self.report.chunks += moved.chunks;
                    self.report.bytes += moved.bytes;
                    self.report.requests += moved.requests;
                    self.report.stored += stored;
                    self.report.copied.push((snapshot.clone(), pin.map(|p| p.snapshot)));
                    self.pins.extend(pin);
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
        let (to, options) = (self.to, self.options);
        if self.pins.len() > PINS {
            self.pins.clear();
        }
        let mut run = None;
        if !options.dry_run {
            let (opened, dead) = Run::open(to, RunKind::Writer, &self.pins)?;
            self.pins.retain(|pin| !dead.contains(pin));
            run = Some(opened);
        }
        let mut looked = Looked::around(to, run.as_ref().map(Run::id), excluded, self.observer)?;
        let known = looked.known(to, self.observer)?;
        let discard = Discard::new(to.config().parity);
        let (uploads, uploader) = upload::channel(to, Box::new(|_| Ok(())));
        let sink: &dyn PackSink = if options.dry_run { &discard } else { &uploads };
        let id = run.as_ref().map_or(RunId::new([0; 16]), Run::id);
        let stream = |kind| PackStream::new(to, kind, id, options.compression, true, sink);
        let (data, meta) = (stream(PackKind::Data), stream(PackKind::Meta));
        if !options.dry_run {
            self.gather.keep_only(&self.pins.iter().map(|p| p.tree).collect::<Vec<_>>());
        }
        let observer = self.observer;
        let (tree, moved, entered, known, stored) = match &mut self.cut {
            None => {
                let ((moved, entered), stored) = std::thread::scope(|scope| {
                    let upload = scope.spawn(|| uploader.run());
                    let moved =
                        self.gather.tree(snapshot.tree, &known, (&data, &meta), options.dry_run, observer);
                    uploads.hang_up();
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
                let target = Target { repository: to, data, meta };
                let ends = (|| uploads.hang_up(), || uploader.run());
                let source = self.gather.source();
                let (tree, moved, known, stored) =
                    cut.tree(source, snapshot.tree, known, target, observer, ends)?;
                (tree, moved, HashSet::new(), known, stored)
            }
        };
        let Some(mut run) = run else {
            // The next tree would not move it again.
            self.gather.committed(snapshot.tree, entered);
            return Ok(Attempt::Done(None, moved, discard.bytes()));
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
        Ok(Attempt::Done(Some(pin), moved, stored))
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
