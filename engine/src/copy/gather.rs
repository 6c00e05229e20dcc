//! Finds what a tree needs and the target lacks, and moves it: metadata as the tree is walked, content by pack and offset,
//! so that each frame is fetched once.

use crate::backup::known::Known;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{Index, PackRef, Place};
use crate::repository::pack::{PackStream, Packer};
use bulla_repo_format::ChunkId;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::{Block, ChunkRef, Content, Entry, EntryKind, ListNode, Node};
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Chunks of content that are wanted before they are fetched: 3 MiB of places, 8 GiB of usual chunks.
const BATCH: usize = 64 << 10;
/// Chunks that a worker takes at once, so that it stays within a few frames.
const RUN: usize = 64;
/// Plain bytes appended at once.
const APPENDED: usize = 1 << 20;

/// What was moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    pub(super) requests: u64,
}

/// A chunk that is wanted, and where it lies.
#[derive(Clone, Copy)]
struct Wanted {
    pack: PackRef,
    offset: u32,
    chunk: ChunkRef,
}

/// Reads one repository for another.
pub(super) struct Gather<'a> {
    from: &'a Repository,
    index: Index,
    /// Nodes of trees that the target's pinned snapshots have whole.
    done: HashSet<ChunkId>,
    /// Their roots.
    roots: HashSet<ChunkId>,
}

/// One tree.
struct Walk<'w, 'a> {
    from: &'a Repository,
    index: &'w Index,
    chunks: ChunkReader<'w>,
    known: &'w Known<'w>,
    data: &'w PackStream<'w>,
    meta: &'w PackStream<'w>,
    packer: Packer,
    dry_run: bool,
    observer: &'w dyn Observer,
    done: &'w HashSet<ChunkId>,
    entered: HashSet<ChunkId>,
    wanted: Vec<Wanted>,
    moved: Moved,
    places: Vec<Place>,
}

impl<'a> Gather<'a> {
    /// A reader of `from`, whose index is `index`.
    pub(super) fn new(from: &'a Repository, index: Index) -> Self {
        Self { from, index, done: HashSet::new(), roots: HashSet::new() }
    }

    /// What is read from.
    pub(super) fn source(&self) -> (&Repository, &Index) {
        (self.from, &self.index)
    }

    /// The trees below `pinned` are whole in the target while the run is announced. If one of those that were copied before
    /// is not among them, its snapshot died: nobody knows what it alone had.
    pub(super) fn keep_only(&mut self, pinned: &[ChunkId]) {
        if !self.roots.iter().all(|root| pinned.contains(root)) {
            (self.done, self.roots) = (HashSet::new(), HashSet::new());
        }
    }

    /// A tree is whole in the target, and its snapshot is committed there.
    pub(super) fn committed(&mut self, tree: ChunkId, entered: HashSet<ChunkId>) {
        self.done.extend(entered);
        self.roots.insert(tree);
    }

    /// Moves what `tree` needs and `known` lacks, and says which nodes that were.
    pub(super) fn tree(
        &mut self,
        tree: ChunkId,
        known: &Known<'_>,
        (data, meta): (&PackStream<'_>, &PackStream<'_>),
        dry_run: bool,
        observer: &dyn Observer,
    ) -> Result<(Moved, HashSet<ChunkId>)> {
        let mut walk = Walk {
            from: self.from,
            index: &self.index,
            chunks: ChunkReader::new(self.from, &self.index),
            known,
            data,
            meta,
            packer: meta.packer()?,
            dry_run,
            observer,
            done: &self.done,
            entered: HashSet::new(),
            wanted: Vec::new(),
            moved: Moved::default(),
            places: Vec::new(),
        };
        walk.node(&tree, u8::MAX)?;
        walk.fetch()?;
        if !dry_run {
            walk.meta.finish(&mut walk.packer)?;
            let mut packer = data.packer()?;
            data.finish(&mut packer)?;
        }
        let mut moved = walk.moved;
        moved.requests += walk.chunks.frames_decoded();
        Ok((moved, walk.entered))
    }
}

impl Walk<'_, '_> {
    /// Reads a metadata chunk and moves it if the target lacks it.
    fn read(&mut self, chunk: &ChunkId) -> Result<Vec<u8>> {
        if self.observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let mut plain = Vec::new();
        self.chunks.read(ChunkKind::Meta, chunk, &mut plain)?;
        let len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        if self.known.claim(chunk, len, &mut self.places)? {
            self.moved.chunks += 1;
            self.moved.bytes += u64::from(len);
            if !self.dry_run {
                self.meta.append(&mut self.packer, [(*chunk, plain.as_slice())])?;
            }
        }
        Ok(plain)
    }

    fn node(&mut self, id: &ChunkId, above: u8) -> Result<()> {
        if self.done.contains(id) || !self.entered.insert(*id) {
            return Ok(());
        }
        let plain = self.read(id)?;
        let not_understood = |source| Error::Object { object: format!("tree node {id}"), source };
        match Node::decode(&plain).map_err(not_understood)? {
            Node::Inner { level, .. } if level >= above => Err(circular("tree node", id)),
            Node::Inner { level, children } => children.iter().try_for_each(|c| self.node(&c.id, level)),
            Node::Leaf(entries) => entries.iter().try_for_each(|e| self.entry(e)),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.block(&entry.xattrs)?;
        let EntryKind::File { holes, content, .. } = &entry.kind else { return Ok(()) };
        self.block(holes)?;
        match content {
            Content::Inline(refs) => refs.iter().try_for_each(|r| self.want(r)),
            Content::List(id) => self.list(id, u8::MAX),
        }
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        match block {
            Block::Chunk(chunk) => self.read(&chunk.id).map(drop),
            _ => Ok(()),
        }
    }

    fn list(&mut self, id: &ChunkId, above: u8) -> Result<()> {
        if self.done.contains(id) || !self.entered.insert(*id) {
            return Ok(());
        }
        let plain = self.read(id)?;
        let not_understood = |source| Error::Object { object: format!("list node {id}"), source };
        match ListNode::decode(&plain).map_err(not_understood)? {
            ListNode::Inner { level, .. } if level >= above => Err(circular("list node", id)),
            ListNode::Inner { level, children } => children.iter().try_for_each(|c| self.list(&c.id, level)),
            ListNode::Leaf(refs) => refs.iter().try_for_each(|r| self.want(r)),
        }
    }

    /// A chunk of content: noted if the target lacks it.
    fn want(&mut self, chunk: &ChunkRef) -> Result<()> {
        if !self.known.claim(&chunk.id, chunk.len, &mut self.places)? {
            return Ok(());
        }
        self.index.places(&chunk.id, &mut self.places)?;
        let Some(place) = self.places.iter().find(|p| p.len == chunk.len) else {
            let reason =
                "no index run of the source lists it; nothing was committed. Run `bulla check` there".into();
            return Err(Error::Damaged { what: format!("chunk {}", chunk.id), reason });
        };
        self.wanted.push(Wanted { pack: place.pack, offset: place.offset, chunk: *chunk });
        self.moved.chunks += 1;
        self.moved.bytes += u64::from(chunk.len);
        if self.wanted.len() >= BATCH { self.fetch() } else { Ok(()) }
    }

    /// Moves what is noted, in the order in which it lies.
    fn fetch(&mut self) -> Result<()> {
        self.wanted.sort_unstable_by_key(|w| (w.pack, w.offset));
        let wanted = std::mem::take(&mut self.wanted);
        if self.dry_run {
            self.moved.requests += self.frames(&wanted)?;
            return Ok(());
        }
        let runs: Vec<&[Wanted]> = wanted.chunks(RUN).collect();
        let (next, failure, frames) = (AtomicUsize::new(0), Mutex::new(None), AtomicUsize::new(0));
        let work = || {
            let mut reader = ChunkReader::new(self.from, self.index);
            let done = self.worker(&runs, &next, &mut reader);
            frames.fetch_add(usize::try_from(reader.frames_decoded()).unwrap_or(0), Ordering::Relaxed);
            if let Err(e) = done {
                // Nobody takes another run.
                next.store(runs.len(), Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        };
        let width = self.from.env().width.max(self.from.backend().describe().connections);
        std::thread::scope(|scope| {
            for _ in 1..width.min(runs.len()) {
                scope.spawn(work);
            }
            work();
        });
        self.moved.requests += frames.into_inner() as u64;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Reads runs of chunks, each identified, and appends them.
    fn worker(&self, runs: &[&[Wanted]], next: &AtomicUsize, reader: &mut ChunkReader<'_>) -> Result<()> {
        let mut packer = self.data.packer()?;
        let mut batch: Vec<(ChunkId, Vec<u8>)> = Vec::new();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let mut bytes = 0;
            for wanted in *run {
                let mut plain = Vec::new();
                reader.read_exactly(ChunkKind::Data, &wanted.chunk, &mut plain)?;
                bytes += plain.len();
                batch.push((wanted.chunk.id, plain));
                if bytes >= APPENDED {
                    self.append(&mut packer, &mut batch)?;
                    bytes = 0;
                }
            }
            self.append(&mut packer, &mut batch)?;
        }
        Ok(())
    }

    fn append(&self, packer: &mut Packer, batch: &mut Vec<(ChunkId, Vec<u8>)>) -> Result<()> {
        self.data.append(packer, batch.iter().map(|(id, plain)| (*id, plain.as_slice())))?;
        batch.clear();
        Ok(())
    }

    /// Frames that sorted chunks lie in.
    fn frames(&self, wanted: &[Wanted]) -> Result<u64> {
        let (mut count, mut last) = (0, None);
        for w in wanted {
            let pack = self.index.pack(w.pack)?;
            let (mut at, end) = (0u64, u64::from(w.offset) + u64::from(w.chunk.len));
            for (number, frame) in pack.frames.iter().enumerate() {
                let next = at + u64::from(frame.raw);
                if next > u64::from(w.offset) && at < end && last.is_none_or(|l| l < (w.pack, number)) {
                    last = Some((w.pack, number));
                    count += 1;
                }
                at = next;
            }
        }
        Ok(count)
    }
}

fn circular(what: &str, id: &ChunkId) -> Error {
    Error::Damaged { what: format!("{what} {id}"), reason: "a child is not below its parent".into() }
}
