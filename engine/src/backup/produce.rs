//! The producer: takes the walk, in tree order, beside the parent's tree, decides what is unchanged, and gives out the
//! rest in batches and segments.

use super::decide::{Comparison, is_unchanged};
use super::fold::{Done, Filled, Finished};
use super::known::Known;
use super::pipeline::{Feed, waiting};
use super::resume::Resumed;
use super::store::{GATHER, Shared};
use super::work::{Item, Unit, Work};
use crate::error::{Error, Result, SourceError};
use crate::observer::EntryOutcome;
use crate::repository::index::Place;
use crate::repository::pack::Pool;
use crate::repository::tree::TreeReader;
use crate::source::{Found, StreamSource, Walked};
use bulla_repo_format::tree::{Block, Entry, EntryFlags, EntryKind, Hole, Timestamp};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

/// Files up to this size are read whole by a worker; larger ones are cut here and shared out.
const SMALL: u64 = 1 << 20;
/// Entries per batch.
const BATCH: usize = 512;
/// Directories whose files wait to be read or are read: each keeps a descriptor, and a process usually has 1,024.
const DIRECTORIES: usize = 512;
/// At most so many in one batch, and at least.
const PER_BATCH: std::ops::RangeInclusive<usize> = 4..=64;

/// Of the batches that are worked on, of those that wait and of the one being made, the directories are bounded together.
fn directories_per_batch(width: usize) -> usize {
    (DIRECTORIES / (width + waiting(width) + 1)).clamp(*PER_BATCH.start(), *PER_BATCH.end())
}

/// The parent's tree beside the walk.
pub struct Previous<'r> {
    reader: TreeReader<'r>,
    next: Option<Entry>,
    /// When the parent's scan began.
    scan: Timestamp,
    comparison: Comparison,
    /// The first part of it that could not be read, until it is reported.
    damage: Option<Error>,
    told: bool,
    places: Vec<Place>,
}

impl<'r> Previous<'r> {
    /// Starts at the parent's first entry. `reader` must record the nodes it visits.
    pub fn new(
        reader: TreeReader<'r>,
        scan: Timestamp,
        comparison: Comparison,
        known: &Known<'_>,
    ) -> Result<Self> {
        let mut new =
            Self { reader, next: None, scan, comparison, damage: None, told: false, places: Vec::new() };
        new.advance(known)?;
        Ok(new)
    }

    /// Goes to the next entry that can be read. What cannot is as if the parent did not have it.
    fn advance(&mut self, known: &Known<'_>) -> Result<()> {
        loop {
            let next = self.reader.next();
            known.vouch(self.reader.take_visited());
            match next {
                Err(e) if e.is_damage() => self.spoiled(e, known),
                next => {
                    self.next = next?;
                    return Ok(());
                }
            }
        }
    }

    fn spoiled(&mut self, e: Error, known: &Known<'_>) {
        known.distrust();
        self.damage.get_or_insert(e);
    }

    /// Takes the parent's entry of the same path. Paths come in order, so each tree is read once.
    fn find(&mut self, entry: &Entry, known: &Known<'_>) -> Result<Option<Entry>> {
        loop {
            match self.next.as_ref().map(|p| p.compare(entry)) {
                Some(Ordering::Less) => self.advance(known)?,
                Some(Ordering::Equal) => {
                    let found = self.next.take();
                    self.advance(known)?;
                    return Ok(found);
                }
                _ => return Ok(None),
            }
        }
    }

    /// True if all an entry of the parent refers to can be had. Asked only when the store has gaps.
    fn intact(&mut self, entry: &Entry, known: &Known<'_>) -> Result<bool> {
        match self.complete(entry, known) {
            Err(e) if e.is_damage() => {
                self.spoiled(e, known);
                Ok(false)
            }
            other => other,
        }
    }

    fn complete(&mut self, entry: &Entry, known: &Known<'_>) -> Result<bool> {
        self.reader.block(&entry.xattrs)?;
        if !self.is_safe(&entry.xattrs, known)? {
            return Ok(false);
        }
        let EntryKind::File { holes, content, .. } = &entry.kind else { return Ok(true) };
        self.reader.block(holes)?;
        let refs = self.reader.content(content)?;
        let nodes = self.reader.take_visited();
        for node in &nodes {
            if !known.is_safe(node, &mut self.places)? {
                return Ok(false);
            }
        }
        known.vouch(nodes);
        if !self.is_safe(holes, known)? {
            return Ok(false);
        }
        for chunk in &refs {
            if !known.has(chunk, &mut self.places)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Previous<'_> {
    /// A block that was read may have been read by luck.
    fn is_safe(&mut self, block: &Block, known: &Known<'_>) -> Result<bool> {
        match block {
            Block::Chunk(chunk) => known.is_safe(&chunk.id, &mut self.places),
            Block::None | Block::Inline(_) => Ok(true),
        }
    }
}

/// What the parent has under a path.
enum Before {
    /// Nothing.
    Nothing,
    /// Something that must be read again.
    Other,
    /// The same: what a look at the file does not tell.
    Same { kind: EntryKind, xattrs: Block },
}

/// Walks and feeds.
pub struct Producer<'a, 'r> {
    shared: &'a Shared<'r>,
    previous: Option<Previous<'r>>,
    resumed: Option<Resumed<'r>>,
    batch: Vec<Item>,
    /// Bytes the batch's files announce.
    bytes: u64,
    /// True when some entry of the batch needs a worker.
    reads: bool,
    /// Directories those lie in, and how many they may be.
    directories: usize,
    most: usize,
    /// Members of hard-link groups that were read: size and times they had.
    links: HashMap<(u64, u64), (u64, Timestamp, Timestamp)>,
    /// Buffers of parts of large files.
    segments: Arc<Pool>,
}

impl<'a, 'r> Producer<'a, 'r> {
    /// A producer; without `previous` everything is new, without `resumed` it is read.
    /// `width` is that of the pipeline.
    pub fn new(
        shared: &'a Shared<'r>,
        previous: Option<Previous<'r>>,
        resumed: Option<Resumed<'r>>,
        width: usize,
    ) -> Self {
        Self {
            most: directories_per_batch(width),
            shared,
            previous,
            resumed,
            batch: Vec::new(),
            bytes: 0,
            reads: false,
            directories: 0,
            links: HashMap::new(),
            segments: Pool::new(GATHER + shared.chunker.max()),
        }
    }

    /// Takes what a walk meets, in its order; [`Producer::flush`] comes after the last.
    pub fn take(&mut self, walked: Walked, feed: &mut Feed<'_>) -> Result<()> {
        match walked {
            Walked::Entry(found) => self.entry(found, feed),
            Walked::Error(e) => {
                self.flush(feed)?;
                feed.give(Unit::Done(Done::Error(e)))
            }
        }
    }

    fn entry(&mut self, found: Found, feed: &mut Feed<'_>) -> Result<()> {
        let outcome = match self.before(&found.entry, feed)? {
            // Most entries of most runs: nothing of them is copied.
            Before::Same { kind, xattrs } => {
                let entry = Entry { kind, xattrs, ..found.entry };
                let outcome = EntryOutcome::Unmodified;
                let finished = Finished { entry, xattrs: None, filled: Filled::Complete, outcome };
                return self.push(Item { finished, found: None }, 0, feed);
            }
            Before::Other if found.entry.flags.implied => EntryOutcome::Unmodified,
            Before::Other => EntryOutcome::Changed,
            Before::Nothing => EntryOutcome::New,
        };
        let found = Box::new(found);
        let mut finished =
            Finished { entry: found.entry.clone(), xattrs: None, filled: Filled::Complete, outcome };
        let EntryKind::File { size, .. } = found.entry.kind else {
            return self.push(Item { finished, found: Some(found) }, 0, feed);
        };
        // The first member of a hard-link group is read, the others follow it.
        if found.entry.links > 1 && self.linked(&found) {
            finished.filled = Filled::Linked(None);
            return self.push(Item { finished, found: Some(found) }, 0, feed);
        }
        if let Some(resumed) = &mut self.resumed
            && let Some((refs, holes)) = resumed.content(&found.entry, &self.shared.known)?
        {
            finished.filled = Filled::Refs { refs, holes };
            return self.push(Item { finished, found: Some(found) }, 0, feed);
        }
        let data = size.min(found.allocated.max(512));
        if data <= SMALL {
            return self.push(Item { finished, found: Some(found) }, data, feed);
        }
        self.flush(feed)?;
        self.large(found, finished, feed)
    }

    /// True if a member that looks the same was given out before: a number that was used again, or a file that
    /// changed meanwhile, is another file.
    fn linked(&mut self, found: &Found) -> bool {
        let e = &found.entry;
        let looks = (e.size(), e.mtime, e.ctime);
        self.links.insert((found.dev, e.inode), looks) == Some(looks)
    }

    /// What the parent has under the entry's path, and whether it can stand for it.
    fn before(&mut self, entry: &Entry, feed: &Feed<'_>) -> Result<Before> {
        let (Some(p), known) = (&mut self.previous, &self.shared.known) else { return Ok(Before::Nothing) };
        let before = match p.find(entry, known)? {
            None => Before::Nothing,
            Some(b)
                if is_unchanged(entry, &b, p.scan, p.comparison)
                    && (!known.doubtful() || p.intact(&b, known)?) =>
            {
                Before::Same { kind: b.kind, xattrs: b.xattrs }
            }
            Some(_) => Before::Other,
        };
        if let Some(e) = p.damage.take().filter(|_| !std::mem::replace(&mut p.told, true)) {
            feed.warn(&format!(
                "the snapshot to compare with is damaged, what is missing is read again: {e}"
            ));
        }
        Ok(before)
    }

    fn push(&mut self, item: Item, bytes: u64, feed: &mut Feed<'_>) -> Result<()> {
        self.reads |= item.found.is_some();
        self.bytes += bytes;
        let parent = |i: &Item| i.found.is_some().then(|| i.finished.entry.parent.clone());
        if let Some(new) = parent(&item).filter(|p| self.batch.last().and_then(parent).as_ref() != Some(p)) {
            self.directories += usize::from(!new.is_empty());
        }
        self.batch.push(item);
        let full = self.batch.len() >= BATCH || self.directories >= self.most;
        if full || self.bytes >= GATHER as u64 { self.flush(feed) } else { Ok(()) }
    }

    /// Gives out the batch: to a worker if it has something to read.
    pub fn flush(&mut self, feed: &mut Feed<'_>) -> Result<()> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let batch = std::mem::take(&mut self.batch);
        let reads = std::mem::take(&mut self.reads);
        (self.bytes, self.directories) = (0, 0);
        feed.give(if reads {
            Unit::Work(Work::Batch(batch))
        } else {
            Unit::Done(Done::Entries(batch.into_iter().map(|i| i.finished).collect()))
        })
    }

    /// Reads and cuts a large file here, and shares out what was cut.
    fn large(&mut self, mut found: Box<Found>, mut finished: Finished, feed: &mut Feed<'_>) -> Result<()> {
        finished.filled = match found.capture_details().and_then(|xattrs| found.open().map(|f| (xattrs, f))) {
            Err(e) => Filled::Unreadable(e),
            Ok((xattrs, mut file)) => {
                finished.xattrs = xattrs;
                match self.segments(|buffer| file.read(buffer), feed)? {
                    Err(e) => Filled::Unreadable(e),
                    Ok(()) => {
                        let holes: Vec<Hole> = file.holes().to_vec();
                        file.finish(&mut finished.entry);
                        Filled::Segments { holes }
                    }
                }
            }
        };
        feed.give(Unit::Done(Done::Entries(vec![finished])))
    }

    fn segments(
        &mut self,
        mut read: impl FnMut(&mut [u8]) -> std::result::Result<usize, SourceError>,
        feed: &mut Feed<'_>,
    ) -> Result<std::result::Result<(), SourceError>> {
        let max = self.shared.chunker.max();
        let mut carry: Vec<u8> = Vec::new();
        loop {
            let mut data = self.segments.take();
            let room = carry.len()..carry.len() + GATHER;
            if data.len() < room.end {
                data.resize(room.end, 0);
            }
            if let Some(start) = data.get_mut(..carry.len()) {
                start.copy_from_slice(&carry);
            }
            let n = match read(data.get_mut(room).unwrap_or_default()) {
                Ok(n) => n,
                Err(e) => return Ok(Err(e)),
            };
            self.shared.counters.read_bytes.fetch_add(n as u64, std::sync::atomic::Ordering::Relaxed);
            let bytes = data.get(..carry.len() + n).unwrap_or_default();
            let (end, mut start, mut cuts) = (n < GATHER, 0, Vec::new());
            while start < bytes.len() && (end || bytes.len() - start >= max) {
                let len = self.shared.chunker.cut(bytes.get(start..).unwrap_or_default());
                cuts.push(len);
                start += len;
            }
            carry.clear();
            carry.extend_from_slice(bytes.get(start..).unwrap_or_default());
            if !cuts.is_empty() {
                feed.give(Unit::Work(Work::Segment { data, cuts }))?;
            }
            if end {
                return Ok(Ok(()));
            }
        }
    }

    /// Backs up one stream as one file. Directories of its name are made up.
    pub fn stream(&mut self, source: &mut StreamSource, now: Timestamp, feed: &mut Feed<'_>) -> Result<()> {
        let name = crate::repository::snapshots::clean_path(&source.name);
        let parts: Vec<&[u8]> = name.split(|b| *b == b'/').collect();
        let Some((file, directories)) = parts.split_last() else { return Ok(()) };
        let mut parent: Vec<u8> = Vec::new();
        for directory in directories {
            let entry = invented(&parent, directory, EntryKind::Directory, 0o755, now);
            let finished =
                Finished { entry, xattrs: None, filled: Filled::Complete, outcome: EntryOutcome::New };
            feed.give(Unit::Done(Done::Entries(vec![finished])))?;
            parent = bulla_repo_format::tree::join_path(&parent, directory);
        }
        let reader = &mut source.reader;
        let path = name.clone();
        let read = self.segments(
            |buffer| {
                let mut filled = 0;
                while let Some(rest) = buffer.get_mut(filled..).filter(|r| !r.is_empty()) {
                    match reader.read(rest) {
                        Ok(0) => break,
                        Ok(n) => filled += n,
                        Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(SourceError::new("read", path.clone(), e)),
                    }
                }
                Ok(filled)
            },
            feed,
        )?;
        // Half a stream is no backup: unlike a file among others, it has no siblings to save.
        read.map_err(|e| Error::Refused(format!("{e}; nothing was committed")))?;
        let kind = EntryKind::File { size: 0, holes: Default::default(), content: Default::default() };
        let entry = invented(&parent, file, kind, 0o600, now);
        let filled = Filled::Segments { holes: std::mem::take(&mut source.holes) };
        let finished = Finished { entry, xattrs: None, filled, outcome: EntryOutcome::New };
        feed.give(Unit::Done(Done::Entries(vec![finished])))
    }
}

fn invented(parent: &[u8], name: &[u8], kind: EntryKind, mode: u16, now: Timestamp) -> Entry {
    Entry {
        parent: Arc::from(parent),
        name: name.to_vec(),
        kind,
        mode,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: now,
        ctime: now,
        btime: None,
        atime: None,
        mount: 0,
        inode: 0,
        links: 1,
        xattrs: Default::default(),
        flags: EntryFlags::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_of_all_batches_leave_room_among_a_thousand() {
        for width in 1..=80 {
            let batches = width + waiting(width) + 1;
            assert!(batches * directories_per_batch(width) <= 520, "{width}");
        }
        assert_eq!(directories_per_batch(2), 64, "few workers need not be thrifty");
    }
}
