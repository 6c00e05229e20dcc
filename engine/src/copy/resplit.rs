//! Copies a tree into a repository whose chunks have other ids: every file is read out of the one, cut and identified anew
//! for the other, and folded into a tree of its own, by the stages of a backup.
//!
//! Kept true: a file whose content was cut anew for an earlier snapshot is not read again, but its chunks are claimed again,
//! so that the packs they lie in are verified before this commit, too.

use super::gather::Moved;
use crate::backup::decide::Comparison;
use crate::backup::fold::{Done, Filled, Finished};
use crate::backup::known::Known;
use crate::backup::pipeline::{self, Feed};
use crate::backup::resume::Resumed;
use crate::backup::scan::Totals;
use crate::backup::store::{Counters, Shared, Storer};
use crate::backup::work::Unit;
use crate::chunker::Chunker;
use crate::error::{Error, Result, SourceError};
use crate::observer::{EntryOutcome, Observer};
use crate::repository::Repository;
use crate::repository::chunks::{ChunkReader, Fetched};
use crate::repository::index::{Index, Place};
use crate::repository::pack::PackStream;
use crate::repository::tree::TreeReader;
use crate::repository::upload::OnRun;
use bulla_repo_format::ChunkId;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::record::Checkpoint;
use bulla_repo_format::tree::{ChunkRef, Content, Entry, EntryKind, TreeBuilder, decode_holes};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Files whose new chunks are remembered: 128 bytes each and 40 for each chunk.
const REMEMBERED: usize = 1 << 18;
/// Of files of more chunks than this nothing is remembered.
const CHUNKS_REMEMBERED: usize = 64;

/// What files became, by their content in the source.
#[derive(Default)]
pub(super) struct Cut {
    files: HashMap<[u8; 32], Vec<ChunkRef>>,
}

/// Where a tree goes.
pub(super) struct Target<'t> {
    pub(super) repository: &'t Repository,
    pub(super) data: PackStream<'t>,
    pub(super) meta: PackStream<'t>,
    /// How far a copy of the same snapshot came that died.
    pub(super) before: Option<Checkpoint>,
    /// How often to announce how far this one has come.
    pub(super) checkpoint: Duration,
}

/// What reads one tree.
struct Reading<'w, 't> {
    tree: TreeReader<'w>,
    chunks: ChunkReader<'w>,
    storer: Storer<'w, 't>,
    known: &'w Known<'t>,
    before: Option<Resumed<'w>>,
    cut: &'w mut Cut,
    places: Vec<Place>,
}

impl Cut {
    /// Copies the tree `root` of `from`. Gives the root of the new tree, what was moved, and the packs relied on.
    pub(super) fn tree<'t, U: Send>(
        &mut self,
        (from, index): (&Repository, &Index),
        root: ChunkId,
        known: Known<'t>,
        target: Target<'t>,
        observer: &dyn Observer,
        (hang_up, upload): (impl FnOnce() + Send, impl FnOnce(OnRun<'_>) -> Result<U> + Send),
    ) -> Result<(ChunkId, Moved, Known<'t>, U)> {
        let (ring, to) = (target.repository.keyring(), target.repository);
        let shared = Shared {
            chunker: Chunker::new(to.config().chunker, ring)?,
            id_key: ring.id_key(ring.domain(), ChunkKind::Data)?,
            known,
            data: target.data,
            checkpoint: Some(target.checkpoint),
            counters: Counters::default(),
            totals: Totals::default(),
        };
        let builder =
            TreeBuilder::new(ring.split_key(ring.domain())?, ring.id_key(ring.domain(), ChunkKind::Meta)?);
        let mut fetched = Fetched::default();
        let before = target.before.clone();
        let produce = |feed: &mut Feed<'_>| {
            let resumed = |c| Resumed::new(to, shared.known.index(), c, Comparison::default());
            let mut reading = Reading {
                tree: TreeReader::new(from, index, root),
                chunks: ChunkReader::new(from, index),
                storer: Storer::new(&shared)?,
                known: &shared.known,
                before: before.map(resumed).transpose()?,
                cut: self,
                places: Vec::new(),
            };
            while let Some(entry) = reading.tree.next()? {
                let finished = reading.entry(entry)?;
                feed.give(Unit::Done(Done::Entries(vec![finished])))?;
            }
            fetched += reading.chunks.fetched();
            fetched += reading.tree.fetched();
            Ok(())
        };
        let settle = |name: &_| shared.known.settle(to, name);
        let upload = || upload(&settle);
        let (tree, folded, stored) =
            pipeline::run(&shared, &target.meta, builder, 1, observer, produce, hang_up, upload)?;
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        let moved = Moved {
            chunks: count(&shared.counters.chunks_new),
            bytes: count(&shared.counters.bytes_new) + folded.statistics.meta_bytes_new,
            fetched,
            content: (0, 0),
        };
        Ok((tree.root, moved, shared.known, stored))
    }
}

impl Reading<'_, '_> {
    /// The entry as the target will have it.
    fn entry(&mut self, mut entry: Entry) -> Result<Finished> {
        let xattrs = self.tree.block(&std::mem::take(&mut entry.xattrs))?;
        let mut filled = Filled::Complete;
        let done = match &mut self.before {
            Some(before) => before.content(&entry, self.known)?,
            None => None,
        };
        if let EntryKind::File { size, holes, content } = &mut entry.kind {
            let (holes, content) = (std::mem::take(holes), std::mem::take(content));
            if let Some((refs, holes)) = done {
                filled = Filled::Refs { refs, holes };
            } else if !entry.flags.read_error {
                let holes = match self.tree.block(&holes)? {
                    Some(block) => decode_holes(&block, *size)?,
                    None => Vec::new(),
                };
                let data = size.saturating_sub(holes.iter().map(|h| h.len).sum());
                filled = Filled::Refs { refs: self.content(&content, data)?, holes };
            }
        }
        Ok(Finished { entry, xattrs: Some(xattrs.unwrap_or_default()), filled, outcome: EntryOutcome::New })
    }

    /// The chunks of a file in the target.
    fn content(&mut self, content: &Content, size: u64) -> Result<Vec<ChunkRef>> {
        let key = name(content);
        if let Some(refs) = self.cut.files.get(&key)
            && self.known.rely(refs, &mut self.places)?
        {
            return Ok(refs.clone());
        }
        let mut references = self.tree.references(content)?;
        let (mut plain, mut at, mut failure) = (Vec::new(), 0, None);
        let (tree, chunks) = (&mut self.tree, &mut self.chunks);
        let mut read = |buffer: &mut [u8]| -> Result<usize> {
            let mut filled = 0;
            while let Some(room) = buffer.get_mut(filled..).filter(|room| !room.is_empty()) {
                if at == plain.len() {
                    let Some(chunk) = references.next(tree)? else { break };
                    chunks.read_exactly(ChunkKind::Data, &chunk, &mut plain)?;
                    at = 0;
                }
                let rest = plain.get(at..).unwrap_or_default();
                let n = rest.len().min(room.len());
                room.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
                (at, filled) = (at + n, filled + n);
            }
            Ok(filled)
        };
        let mut refs = [Vec::new()];
        let done = self.storer.file(0, &mut refs, size, |buffer| {
            read(buffer).map_err(|e| {
                let text = e.to_string();
                failure = Some(e);
                SourceError::new("read", b"the repository to copy from".to_vec(), text)
            })
        })?;
        if let Err(e) = done {
            return Err(failure.unwrap_or(Error::Refused(e.reason)));
        }
        self.storer.flush(&mut refs)?;
        let [refs] = refs;
        if refs.len() <= CHUNKS_REMEMBERED && self.cut.files.len() < REMEMBERED {
            self.cut.files.insert(key, refs.clone());
        }
        Ok(refs)
    }
}

/// Contents that were counted, and whether they will be remembered.
pub(super) type Seen = HashMap<[u8; 32], bool>;

/// Counts what [`Cut::tree`] will fetch, without reading any content, and the sealed bytes of the metadata.
pub(super) fn plan(
    (from, index): (&Repository, &Index),
    root: ChunkId,
    seen: &mut Seen,
    observer: &dyn Observer,
) -> Result<(Moved, u64)> {
    let (mut tree, mut chunks) = (TreeReader::new(from, index, root), ChunkReader::new(from, index));
    let mut moved = Moved::default();
    while let Some(entry) = tree.next()? {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        tree.block(&entry.xattrs)?;
        let EntryKind::File { holes, content, .. } = &entry.kind else { continue };
        let before = seen.get(&name(content)).copied();
        if entry.flags.read_error || before == Some(true) {
            continue;
        }
        tree.block(holes)?;
        let (mut references, mut number) = (tree.references(content)?, 0);
        while let Some(chunk) = references.next(&mut tree)? {
            number += 1;
            let sealed = chunks.pretend(ChunkKind::Data, &chunk)?;
            if before.is_none() {
                moved.chunks += 1;
                moved.content.0 += u64::from(chunk.len);
                moved.content.1 += sealed;
            }
        }
        seen.insert(name(content), number <= CHUNKS_REMEMBERED && seen.len() < REMEMBERED);
    }
    moved.bytes = moved.content.0;
    let meta = tree.fetched();
    moved.fetched = chunks.fetched();
    moved.fetched += meta;
    Ok((moved, meta.bytes))
}

/// What names a content: two files of one name have the same bytes.
fn name(content: &Content) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    match content {
        Content::Inline(refs) => refs.iter().for_each(|r| _ = hash.update(r.id.as_bytes())),
        Content::List(id) => _ = hash.update(b"list").update(id.as_bytes()),
    }
    *hash.finalize().as_bytes()
}
