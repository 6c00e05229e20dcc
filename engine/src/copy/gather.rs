//! Finds what a tree needs and the target lacks, and moves it: metadata as the tree is walked, content by pack and offset,
//! so that each frame is fetched once, with those that follow it.
//!
//! Kept true: what a dry run says is fetched is fetched, request by request: both make the same plan ([`spans`]).

use crate::backup::known::Known;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::chunks::{ChunkReader, Fetched};
use crate::repository::index::{Index, PackRef, Place};
use crate::repository::pack::{PackStream, Packer, SPAN};
use bulla_repo_format::ChunkId;
use bulla_repo_format::index::IndexPack;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::{Block, ChunkRef, Content, Entry, EntryKind, ListNode, Node};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Chunks of content that are wanted before they are fetched: 3 MiB of places, 8 GiB of usual chunks.
const BATCH: usize = 64 << 10;
/// Plain bytes appended at once.
const APPENDED: usize = 1 << 20;

/// What was moved.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) chunks: u64,
    pub(super) bytes: u64,
    pub(super) fetched: Fetched,
    /// In a dry run: the content among them, plain, and as it is sealed where it lies.
    pub(super) content: (u64, u64),
}

/// How trees are gathered.
#[derive(Clone, Copy)]
pub(super) struct How {
    /// Plan only: metadata is read, content is not.
    pub(super) dry_run: bool,
    /// How often packs are closed and listed, so that a run that dies has not moved them in vain.
    pub(super) checkpoint: Duration,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
    how: How,
    /// When packs were listed last.
    listed: Mutex<Instant>,
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
        how: How,
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
            how,
            listed: Mutex::new(Instant::now()),
            observer,
            done: &self.done,
            entered: HashSet::new(),
            wanted: Vec::new(),
            moved: Moved::default(),
            places: Vec::new(),
        };
        walk.node(&tree, u8::MAX)?;
        walk.fetch()?;
        meta.finish(&mut walk.packer)?;
        data.finish(&mut data.packer()?)?;
        let mut moved = walk.moved;
        moved.fetched += walk.chunks.fetched();
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
            self.meta.append(&mut self.packer, [(*chunk, plain.as_slice())])?;
        }
        self.checkpoint()?;
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

    /// Moves what is noted, in the order in which it lies; the work of one worker is what is wanted of one pack.
    fn fetch(&mut self) -> Result<()> {
        self.wanted.sort_unstable_by_key(|w| (w.pack, w.offset));
        let wanted = std::mem::take(&mut self.wanted);
        let packs: Vec<&[Wanted]> = wanted.chunk_by(|a, b| a.pack == b.pack).collect();
        if self.how.dry_run {
            return packs.iter().try_for_each(|wanted| self.plan(wanted));
        }
        let (next, failure, fetched) =
            (AtomicUsize::new(0), Mutex::new(None), Mutex::new(Fetched::default()));
        let work = || {
            let mut reader = ChunkReader::new(self.from, self.index);
            let done = self.worker(&packs, &next, &mut reader);
            *lock(&fetched) += reader.fetched();
            if let Err(e) = done {
                // Nobody takes another pack.
                next.store(packs.len(), Ordering::Relaxed);
                lock(&failure).get_or_insert(e);
            }
        };
        let width = self.from.env().width.max(self.from.backend().describe().connections);
        std::thread::scope(|scope| {
            for _ in 1..width.min(packs.len()) {
                scope.spawn(work);
            }
            work();
        });
        self.moved.fetched += fetched.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Reads what is wanted of pack after pack, each chunk identified, and appends it.
    fn worker(&self, packs: &[&[Wanted]], next: &AtomicUsize, reader: &mut ChunkReader<'_>) -> Result<()> {
        let mut packer = self.data.packer()?;
        let mut batch: Vec<(ChunkId, Vec<u8>)> = Vec::new();
        while let Some(wanted) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let Some(first) = wanted.first() else { continue };
            let pack = self.index.pack(first.pack)?;
            let spans = spans(&pack, wanted, self.limit());
            reader.read_ahead(pack, spans);
            let mut bytes = 0;
            for wanted in *wanted {
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
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Counts what [`Walk::worker`] will do.
    fn plan(&mut self, wanted: &[Wanted]) -> Result<()> {
        let Some(first) = wanted.first() else { return Ok(()) };
        let pack = self.index.pack(first.pack)?;
        let (mut raw, mut sealed) = (0, 0);
        for span in spans(&pack, wanted, self.limit()) {
            let frames = pack.frames.get(span).unwrap_or_default();
            let bytes = frames.iter().map(|f| u64::from(f.sealed)).sum();
            self.moved.fetched.add(bytes);
            (raw, sealed) = (raw + frames.iter().map(|f| u64::from(f.raw)).sum::<u64>(), sealed + bytes);
        }
        let bytes: u64 = wanted.iter().map(|w| u64::from(w.chunk.len)).sum();
        self.moved.content.0 += bytes;
        self.moved.content.1 += bytes.saturating_mul(sealed).checked_div(raw).unwrap_or(0);
        Ok(())
    }

    /// Bytes that a request carries: nearby each frame is one of its own.
    fn limit(&self) -> u64 {
        if self.from.backend().describe().local { 0 } else { SPAN }
    }

    /// Closes the packs and lists them, when that is due: what they hold need not be moved again by whoever goes on, and others
    /// see that this run lives.
    fn checkpoint(&self) -> Result<()> {
        {
            let mut listed = lock(&self.listed);
            if self.how.dry_run || listed.elapsed() < self.how.checkpoint {
                return Ok(());
            }
            *listed = Instant::now();
        }
        self.data.finish(&mut self.data.packer()?)?;
        self.meta.finish(&mut self.meta.packer()?)?;
        self.data.checkpoint(None)
    }

    fn append(&self, packer: &mut Packer, batch: &mut Vec<(ChunkId, Vec<u8>)>) -> Result<()> {
        if self.observer.interrupted() {
            return Err(Error::Interrupted);
        }
        self.data.append(packer, batch.iter().map(|(id, plain)| (*id, plain.as_slice())))?;
        batch.clear();
        Ok(())
    }
}

/// The requests that fetch the frames that sorted chunks of one pack lie in: frames that follow each other, of `limit` bytes in
/// all, or one.
fn spans(pack: &IndexPack, wanted: &[Wanted], limit: u64) -> Vec<Range<usize>> {
    let (mut out, mut at, mut bytes): (Vec<Range<usize>>, u64, u64) = (Vec::new(), 0, 0);
    let ends = |w: &Wanted| (u64::from(w.offset), u64::from(w.offset) + u64::from(w.chunk.len));
    let mut chunks = wanted.iter().map(ends).peekable();
    for (number, frame) in pack.frames.iter().enumerate() {
        let (start, sealed) = (at, u64::from(frame.sealed));
        at += u64::from(frame.raw);
        while chunks.next_if(|(_, end)| *end <= start).is_some() {}
        if chunks.peek().is_none_or(|(first, _)| *first >= at) {
            continue;
        }
        match out.last_mut() {
            Some(span) if span.end == number && bytes + sealed <= limit => {
                (span.end, bytes) = (number + 1, bytes + sealed);
            }
            _ => {
                out.push(number..number + 1);
                bytes = sealed;
            }
        }
    }
    out
}

fn circular(what: &str, id: &ChunkId) -> Error {
    Error::Damaged { what: format!("{what} {id}"), reason: "a child is not below its parent".into() }
}
