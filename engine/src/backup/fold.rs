//! Folds finished work, in order, into the tree: the in-order end of the pipeline.
//!
//! Kept true: entries reach the tree builder in walk order whatever order workers finish in; a file's lengths add
//! up; metadata blocks and lists are stored before the node that names them.

use super::known::Known;
use super::store::{Shared, Storer};
use super::work::{Item, Work};
use crate::error::{Error, Result, SourceError};
use crate::observer::{EntryOutcome, Event, Observer};
use crate::repository::index::Place;
use crate::repository::pack::{PackStream, Packer};
use crate::repository::tree::display_path;
use crate::source::Found;
use bulla_repo_format::ChunkId;
use bulla_repo_format::limits::{BLOCK_INLINE_MAX, BLOCK_MAX};
use bulla_repo_format::snapshot::Statistics;
use bulla_repo_format::tree::{
    Block, BuiltTree, ChunkRef, Content, Entry, EntryKind, Hole, ListBuilder, Node, TreeBuilder,
    encode_block, encode_holes,
};
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A file's bytes as a worker left them.
pub enum Filled {
    /// Nothing to fill in: not a file, or taken from the parent.
    Complete,
    /// Chunks that were read.
    Refs {
        /// In order.
        refs: Vec<ChunkRef>,
        /// Holes between them.
        holes: Vec<Hole>,
    },
    /// The chunks of the segments before this entry.
    Segments {
        /// Holes between them.
        holes: Vec<Hole>,
    },
    /// The content of an earlier member of the same hard-link group; without one it is read after all.
    Linked(Option<Box<Found>>),
    /// It could not be read.
    Unreadable(SourceError),
}

/// An entry that is done but for the tree.
pub struct Finished {
    /// The entry.
    pub entry: Entry,
    /// Encoded extended attributes, when they were captured anew.
    pub xattrs: Option<Vec<u8>>,
    /// Its bytes.
    pub filled: Filled,
    /// New, changed or not.
    pub outcome: EntryOutcome,
}

/// A unit of work that comes back, in the order it was given out.
pub enum Done {
    /// Entries.
    Entries(Vec<Finished>),
    /// Chunks of a large file whose entry follows.
    Segment(Vec<ChunkRef>),
    /// A path that gives no entry.
    Error(SourceError),
}

/// When a checkpoint is due.
struct Pace {
    every: Option<Duration>,
    last: Instant,
    stored: u64,
}

impl Pace {
    fn new(every: Option<Duration>) -> Self {
        Self { every, last: Instant::now(), stored: 0 }
    }
    fn is_due(&mut self) -> bool {
        let due = self.every.is_some_and(|every| self.last.elapsed() >= every);
        if due {
            self.last = Instant::now();
        }
        due
    }
    /// True if anything was stored since it was last asked.
    fn has_news(&mut self, stored: u64) -> bool {
        std::mem::replace(&mut self.stored, stored) != stored
    }
}

type LinkKey = (u32, u64);

/// A member of a hard-link group that others may follow.
struct Linked {
    size: u64,
    holes: Block,
    content: Content,
    /// It changed while it was read.
    changed: bool,
    left: u64,
}

/// The fold.
pub struct Fold<'a, 'r> {
    shared: &'a Shared<'r>,
    meta: &'a PackStream<'r>,
    packer: Packer,
    observer: &'a dyn Observer,
    builder: TreeBuilder,
    /// The content of a large file, as far as its segments came.
    list: ListBuilder,
    /// Its bytes.
    list_bytes: u64,
    links: HashMap<LinkKey, Linked>,
    places: Vec<Place>,
    pace: Pace,
    /// Counts so far.
    pub statistics: Statistics,
    /// The first paths that could not be read whole.
    pub errors: Vec<(Vec<u8>, String)>,
    /// Owners met.
    pub uids: BTreeSet<u32>,
    /// Groups met.
    pub gids: BTreeSet<u32>,
}

const ERRORS_KEPT: usize = 100;

impl<'a, 'r> Fold<'a, 'r> {
    /// An empty tree.
    pub fn new(
        shared: &'a Shared<'r>,
        meta: &'a PackStream<'r>,
        builder: TreeBuilder,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        Ok(Self {
            shared,
            meta,
            packer: meta.packer()?,
            observer,
            builder,
            list: ListBuilder::default(),
            list_bytes: 0,
            links: HashMap::new(),
            places: Vec::new(),
            pace: Pace::new(shared.checkpoint),
            statistics: Statistics::default(),
            errors: Vec::new(),
            uids: BTreeSet::new(),
            gids: BTreeSet::new(),
        })
    }

    /// Takes the next unit.
    pub fn take(&mut self, done: Done) -> Result<()> {
        match done {
            Done::Segment(refs) => {
                let mut list = std::mem::take(&mut self.list);
                self.append(&mut list, &refs)?;
                self.list = list;
                self.list_bytes += refs.iter().map(|r| u64::from(r.len)).sum::<u64>();
            }
            Done::Error(e) => self.source_error(&e),
            Done::Entries(list) => {
                for mut finished in list {
                    self.entry(&mut finished)?;
                }
            }
        }
        if self.pace.is_due() && self.list.is_empty() {
            self.checkpoint()?;
        }
        let s = &self.statistics;
        let files = s.files_new + s.files_changed + s.files_unmodified + s.others;
        self.shared.totals.report(files, s.total_bytes.saturating_add(self.list_bytes), self.observer);
        Ok(())
    }

    /// Closes the packs, and lets the sink know the tree of what is done.
    fn checkpoint(&mut self) -> Result<()> {
        let stored = self.shared.counters.bytes_new.load(std::sync::atomic::Ordering::Relaxed);
        if !self.pace.has_news(stored) {
            return self.meta.checkpoint(None);
        }
        let (known, meta) = (&self.shared.known, self.meta);
        let (packer, places, counter) =
            (&mut self.packer, &mut self.places, &mut self.statistics.meta_bytes_new);
        let built = self
            .builder
            .so_far(&mut |id, node| store_node(known, meta, packer, places, counter, id, &node))?;
        self.shared.data.finish(&mut self.shared.data.packer()?)?;
        meta.finish(&mut self.packer)?;
        meta.checkpoint(Some(built.root))
    }

    /// Ends the tree and its pack stream.
    pub fn finish(mut self) -> Result<(BuiltTree, Folded)> {
        let (known, meta) = (&self.shared.known, self.meta);
        let (packer, places, counter) =
            (&mut self.packer, &mut self.places, &mut self.statistics.meta_bytes_new);
        let built = self
            .builder
            .finish(&mut |id, node| store_node(known, meta, packer, places, counter, id, &node))?;
        meta.finish(&mut self.packer)?;
        let folded =
            Folded { statistics: self.statistics, errors: self.errors, uids: self.uids, gids: self.gids };
        Ok((built, folded))
    }

    fn source_error(&mut self, e: &SourceError) {
        self.statistics.errors += 1;
        self.observer.event(&Event::SourceError(e));
        if self.errors.len() < ERRORS_KEPT {
            self.errors.push((e.path.clone(), format!("cannot {}: {}", e.verb, e.reason)));
        }
    }

    /// Taken where it lies, because an entry is some hundred bytes and most need nothing.
    fn entry(&mut self, finished: &mut Finished) -> Result<()> {
        let Finished { entry, xattrs, filled, outcome } = finished;
        if let Filled::Linked(found) = filled
            && !self.follow(entry)
        {
            return self.alone(entry, found.take(), *outcome);
        }
        if let Some(encoded) = xattrs.take() {
            entry.xattrs = match self.block(encoded)? {
                Some(block) => block,
                None => {
                    let path = display_path(&entry.parent, &entry.name);
                    self.source_error(&SourceError::new(
                        "store",
                        path,
                        "its extended attributes are above 1 MiB",
                    ));
                    Block::None
                }
            };
        }
        match filled {
            Filled::Complete | Filled::Linked(_) => {}
            Filled::Refs { refs, holes } => {
                let mut list = ListBuilder::default();
                self.append(&mut list, refs)?;
                self.fill(entry, list, refs.iter().map(|r| u64::from(r.len)).sum(), holes)?;
            }
            Filled::Segments { holes } => {
                let (list, bytes) = (std::mem::take(&mut self.list), std::mem::take(&mut self.list_bytes));
                self.fill(entry, list, bytes, holes)?;
            }
            Filled::Unreadable(e) => {
                (self.list, self.list_bytes) = Default::default();
                self.source_error(e);
                if !unread(entry) {
                    return Ok(());
                }
            }
        }
        if entry.flags.changed_during_read {
            let path = display_path(&entry.parent, &entry.name);
            self.source_error(&SourceError::new(
                "read a steady version of",
                path,
                "it changed while it was read",
            ));
        }
        self.remember(entry);
        self.count(entry, *outcome);
        let (known, meta) = (&self.shared.known, self.meta);
        let (packer, places, counter) =
            (&mut self.packer, &mut self.places, &mut self.statistics.meta_bytes_new);
        self.builder.push(entry, &mut |id, node| store_node(known, meta, packer, places, counter, id, &node))
    }

    /// Stores a metadata block, outside the entry if it is large; `None` when it is above all limits.
    fn block(&mut self, encoded: Vec<u8>) -> Result<Option<Block>> {
        if encoded.is_empty() {
            return Ok(Some(Block::None));
        }
        if encoded.len() <= BLOCK_INLINE_MAX {
            return Ok(Some(Block::Inline(encoded)));
        }
        let plain = encode_block(&encoded);
        let Some(len) = u32::try_from(plain.len()).ok().filter(|l| *l <= BLOCK_MAX) else { return Ok(None) };
        let id = self.builder.id_key().identify(&plain);
        self.node(id, &plain)?;
        Ok(Some(Block::Chunk(ChunkRef { id, len })))
    }

    fn node(&mut self, id: ChunkId, plain: &[u8]) -> Result<()> {
        let counter = &mut self.statistics.meta_bytes_new;
        store_meta(&self.shared.known, self.meta, &mut self.packer, &mut self.places, counter, id, plain)
    }

    /// Appends to a list of chunks; its nodes are stored as they become complete, so a long one does not lie in memory.
    fn append(&mut self, list: &mut ListBuilder, refs: &[ChunkRef]) -> Result<()> {
        refs.iter().for_each(|r| list.push(self.builder.id_key(), *r));
        list.take_nodes().into_iter().try_for_each(|(id, plain)| self.node(id, &plain))
    }

    /// Puts a content of `bytes` bytes beside its holes into the entry.
    fn fill(&mut self, entry: &mut Entry, list: ListBuilder, bytes: u64, found: &[Hole]) -> Result<()> {
        let (content, nodes) = list.finish(self.builder.id_key());
        for (id, plain) in nodes {
            self.node(id, &plain)?;
        }
        let block =
            if found.is_empty() { Block::None } else { self.block(encode_holes(found))?.unwrap_or_default() };
        if let EntryKind::File { size, holes, content: c } = &mut entry.kind {
            (*size, *holes, *c) = (bytes + found.iter().map(|h| h.len).sum::<u64>(), block, content);
        }
        Ok(())
    }

    /// Takes the content of the group's earlier member; false if there is none that was read.
    fn follow(&mut self, entry: &mut Entry) -> bool {
        let first = self.links.get(&(entry.mount, entry.inode));
        let (Some(l), EntryKind::File { size, holes, content }) = (first, &mut entry.kind) else {
            return false;
        };
        (*size, *holes, *content) = (l.size, l.holes.clone(), l.content.clone());
        entry.flags.changed_during_read = l.changed;
        true
    }

    /// Reads a member whose group has nothing to follow: the earlier one vanished, was replaced or failed.
    fn alone(&mut self, entry: &Entry, found: Option<Box<Found>>, outcome: EntryOutcome) -> Result<()> {
        let finished = Finished { entry: entry.clone(), xattrs: None, filled: Filled::Complete, outcome };
        let work = Work::Batch(vec![Item { finished, found }]);
        let done = work.execute(&mut Storer::new(self.shared)?)?;
        if let Done::Entries(list) = done {
            for mut finished in list {
                self.entry(&mut finished)?;
            }
        }
        Ok(())
    }

    /// Keeps the content of a hard-link group until all its links have come by.
    fn remember(&mut self, entry: &Entry) {
        let EntryKind::File { size, holes, content } = &entry.kind else { return };
        if entry.links < 2 || entry.flags.read_error {
            return;
        }
        let key = (entry.mount, entry.inode);
        let known = self.links.get(&key).filter(|l| l.content == *content);
        let left = known.map_or(entry.links, |l| l.left).saturating_sub(1);
        if left == 0 {
            self.links.remove(&key);
            return;
        }
        let changed = entry.flags.changed_during_read;
        let linked = Linked { size: *size, holes: holes.clone(), content: content.clone(), changed, left };
        self.links.insert(key, linked);
    }

    fn count(&mut self, entry: &Entry, outcome: EntryOutcome) {
        let s = &mut self.statistics;
        let counter = match (&entry.kind, outcome) {
            (EntryKind::File { .. }, EntryOutcome::New) => &mut s.files_new,
            (EntryKind::File { .. }, EntryOutcome::Changed) => &mut s.files_changed,
            (EntryKind::File { .. }, EntryOutcome::Unmodified) => &mut s.files_unmodified,
            (EntryKind::Directory, EntryOutcome::New) => &mut s.dirs_new,
            (EntryKind::Directory, EntryOutcome::Changed) => &mut s.dirs_changed,
            (EntryKind::Directory, EntryOutcome::Unmodified) => &mut s.dirs_unmodified,
            _ => &mut s.others,
        };
        *counter += 1;
        s.total_bytes = s.total_bytes.saturating_add(entry.size());
        self.uids.insert(entry.uid);
        self.gids.insert(entry.gid);
        let path = display_path(&entry.parent, &entry.name);
        let (bytes, directory) = (entry.size(), entry.is_dir());
        self.observer.event(&Event::Entry { path: &path, outcome, bytes, directory });
    }
}

/// What a fold knows at its end beside the tree.
pub struct Folded {
    /// Counts.
    pub statistics: Statistics,
    /// The first paths that could not be read whole.
    pub errors: Vec<(Vec<u8>, String)>,
    /// Owners met.
    pub uids: BTreeSet<u32>,
    /// Groups met.
    pub gids: BTreeSet<u32>,
}

/// Makes the entry say that it was not read, where the format has words for it (SPEC 9.2); false if there is nothing
/// to keep of it.
fn unread(entry: &mut Entry) -> bool {
    match &mut entry.kind {
        EntryKind::File { holes, content, .. } => (*holes, *content) = (Block::None, Content::default()),
        EntryKind::Directory => {}
        EntryKind::Symlink { target } => return !target.is_empty(),
        _ => return true,
    }
    entry.flags.read_error = true;
    true
}

fn store_meta(
    known: &Known<'_>,
    meta: &PackStream<'_>,
    packer: &mut Packer,
    places: &mut Vec<Place>,
    counter: &mut u64,
    id: ChunkId,
    plain: &[u8],
) -> Result<()> {
    let len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
    if known.claim_node(&id, len, places)? {
        *counter += u64::from(len);
        meta.append(packer, [(id, plain)])?;
    }
    Ok(())
}

/// As [`store_meta`], for nodes of the tree: one that cannot be read again must not be committed.
fn store_node(
    known: &Known<'_>,
    meta: &PackStream<'_>,
    packer: &mut Packer,
    places: &mut Vec<Place>,
    counter: &mut u64,
    id: ChunkId,
    plain: &[u8],
) -> Result<()> {
    if let Err(e) = Node::decode(plain) {
        return Err(Error::Refused(format!("a tree node would not read back ({e}); nothing was committed")));
    }
    store_meta(known, meta, packer, places, counter, id, plain)
}
