//! What roots reach: one bit per index record, whatever the repository's size.
//!
//! A chunk is live if the bit of any record of its id is set; exactly one is, that of the place it is kept at, so the
//! bits are at once the mark of the traversal, the answer to "is it needed", and the account of what each pack holds
//! for good. Trees are read, file content never. A node is entered once as what it is, whatever else a forger's tree
//! calls it (`entered`, not the bits, knows that) and whatever its parents say of it (R-TREE-7): what lies can only keep
//! more than it should.

use crate::error::{Error, Result};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{Index, Place};
use bulla_repo_format::index::{KEY_LEN, record_key};
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::{Block, Content, Entry, EntryKind, ListNode, Node};
use bulla_repo_format::{ChunkId, PackName};
use std::collections::{HashMap, HashSet};

/// A traversal in progress.
pub(super) struct Reach<'r> {
    repository: &'r Repository,
    index: &'r Index,
    chunks: ChunkReader<'r>,
    live: Live<'r>,
    /// Nodes that were entered, as a tree's and as a list's (true): a few for thousands of chunks.
    entered: HashSet<([u8; KEY_LEN], bool)>,
    /// Packs nothing is kept in if it also lies elsewhere: condemned or absent.
    avoid: HashSet<PackName>,
    /// Damage of roots is noted instead of an error.
    lenient: bool,
    /// Some of what roots need is unknown.
    blind: bool,
    /// A look-up failed.
    unsure: bool,
    /// Data chunks that were met and are not marked yet.
    met: Vec<[u8; KEY_LEN]>,
    /// So many are marked together.
    together: usize,
    places: Vec<Place>,
    buffer: Vec<u8>,
}

/// Data chunks that are marked together: a tree has them in the order of files, the index in that of keys, and a look-up of each
/// by itself touches a page of each run for it.
const TOGETHER: usize = 256 << 10;
/// And at least this part of all records, so that a larger index is not passed over more often.
const PASSES: u64 = 40;

/// What is needed; readable from several threads.
pub(super) struct Live<'r> {
    index: &'r Index,
    bits: Vec<Vec<u64>>,
    /// Data chunks that are referred to and that no index run lists.
    lost: HashSet<[u8; KEY_LEN]>,
}

impl<'r> Reach<'r> {
    /// Nothing reached yet.
    pub(super) fn new(repository: &'r Repository, index: &'r Index, avoid: HashSet<PackName>) -> Self {
        Self {
            repository,
            index,
            chunks: ChunkReader::new(repository, index),
            live: Live { index, bits: Vec::new(), lost: HashSet::new() },
            entered: HashSet::new(),
            avoid,
            lenient: false,
            blind: false,
            unsure: false,
            met: Vec::new(),
            together: usize::try_from(index.records() / PASSES).unwrap_or(usize::MAX).max(TOGETHER),
            places: Vec::new(),
            buffer: Vec::new(),
        }
    }

    /// The same for who deletes nothing that can be read without a copy of it: a node that cannot be read then stops
    /// nothing.
    pub(super) fn lenient(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// True if some of what roots need is unknown.
    pub(super) fn is_blind(&self) -> bool {
        self.blind
    }

    /// What was reached so far, all of it marked; an error for good once a look-up has failed.
    pub(super) fn live(&mut self) -> Result<&Live<'r>> {
        if self.unsure {
            let reason = "a look-up in the index has failed, so what is needed is not known; run this again";
            return Err(Error::Refused(reason.into()));
        }
        let marked = self.mark_met();
        self.certain(marked)?;
        Ok(&self.live)
    }

    /// Marks all that a living snapshot's tree needs. A node that cannot be read is an error: what lies below it is
    /// unknown, so nothing may be deleted.
    pub(super) fn root(&mut self, tree: &ChunkId) -> Result<()> {
        match self.node(tree, u8::MAX) {
            Err(e) if self.lenient && !self.unsure && e.is_damage() => {
                self.blind = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Marks all that a pinned tree still has. If its snapshot died, parts may be gone, and nobody can rely on them.
    /// Where packs are damaged that may be another reason.
    pub(super) fn pin(&mut self, tree: &ChunkId) -> Result<()> {
        match self.node(tree, u8::MAX) {
            Err(e) if !self.unsure && e.is_damage() => {
                self.blind |= self.lenient;
                Ok(())
            }
            other => other,
        }
    }

    /// Gaps of a tree can be excused, but not those of a look-up: what it did not find may be there, and needed.
    fn certain<T>(&mut self, looked_up: Result<T>) -> Result<T> {
        self.unsure |= looked_up.is_err();
        looked_up
    }

    /// Sets the bit of the place where the chunk is kept; false if it has none.
    fn mark(&mut self, key: &[u8; KEY_LEN]) -> Result<bool> {
        self.index.all_places(key, &mut self.places)?;
        if self.keep()? {
            return Ok(true);
        }
        // What others have put meanwhile.
        if !self.index.refresh(self.repository)? {
            return Ok(false);
        }
        self.index.all_places(key, &mut self.places)?;
        self.keep()
    }

    /// The same of all data chunks that were met.
    fn mark_met(&mut self) -> Result<()> {
        let mut keys = std::mem::take(&mut self.met);
        keys.sort_unstable();
        keys.dedup();
        self.mark_all(&keys)?;
        keys.clear();
        self.met = keys;
        Ok(())
    }

    /// The same of some, in ascending order.
    fn mark_all(&mut self, keys: &[[u8; KEY_LEN]]) -> Result<()> {
        let found = self.index.all_places_of(keys)?;
        let (mut found, mut missing) = (found.iter().peekable(), Vec::new());
        for (number, key) in keys.iter().enumerate() {
            self.places.clear();
            while let Some((_, place)) = found.next_if(|(of, _)| *of == number) {
                self.places.push(*place);
            }
            if !self.keep()? {
                missing.push(*key);
            }
        }
        if !missing.is_empty() && self.index.refresh(self.repository)? {
            let mut lost = Vec::new();
            for key in missing {
                self.index.all_places(&key, &mut self.places)?;
                if !self.keep()? {
                    lost.push(key);
                }
            }
            missing = lost;
        }
        self.live.lost.extend(missing);
        Ok(())
    }

    /// As [`Reach::mark`], of a chunk whose places, as far as they are known, are in `places`.
    fn keep(&mut self) -> Result<bool> {
        if self.places.iter().any(|p| self.live.bit(p)) {
            return Ok(true);
        }
        self.index.drop_deleted(&mut self.places);
        if self.live.bits.len() < self.index.segments() {
            let records = self.index.segment_records();
            let empty = |records: &u32| vec![0; (*records as usize).div_ceil(64)];
            self.live.bits.extend(records.iter().skip(self.live.bits.len()).map(empty));
        }
        let Some(mut kept) = self.places.first().copied() else { return Ok(false) };
        if self.places.len() > 1 {
            let mut best = 0;
            for place in &self.places {
                let here = u8::from(!self.avoid.contains(&self.index.pack_name(place.pack)?)) * 2
                    + u8::from(self.index.is_listed(place.record)?);
                if here > best {
                    (best, kept) = (here, *place);
                }
            }
        }
        let (segment, record) = (kept.record.segment as usize, kept.record.record);
        if let Some(word) = self.live.bits.get_mut(segment).and_then(|b| b.get_mut(record as usize / 64)) {
            *word |= 1 << (record % 64);
        }
        Ok(true)
    }

    /// Marks a metadata chunk.
    fn meta(&mut self, id: &ChunkId, what: &str) -> Result<()> {
        let marked = self.mark(&record_key(id));
        if self.certain(marked)? {
            return Ok(());
        }
        Err(Error::Damaged {
            what: format!("{what} {id}"),
            reason: "no index run lists it; nothing was deleted. Run `bulla check`".into(),
        })
    }

    fn data(&mut self, id: &ChunkId) -> Result<()> {
        self.met.push(record_key(id));
        if self.met.len() < self.together {
            return Ok(());
        }
        let marked = self.mark_met();
        self.certain(marked)
    }

    fn node(&mut self, id: &ChunkId, above: u8) -> Result<()> {
        self.meta(id, "tree node")?;
        if !self.entered.insert((record_key(id), false)) {
            return Ok(());
        }
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        let not_understood = |source| Error::Object { object: format!("tree node {id}"), source };
        match Node::decode(&self.buffer).map_err(not_understood)? {
            Node::Inner { level, .. } if level >= above => Err(Error::Damaged {
                what: format!("tree node {id}"),
                reason: "a child is not below its parent".into(),
            }),
            Node::Inner { level, children } => children.iter().try_for_each(|c| self.node(&c.id, level)),
            Node::Leaf(entries) => entries.iter().try_for_each(|e| self.entry(e)),
        }
    }

    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.block(&entry.xattrs)?;
        let EntryKind::File { holes, content, .. } = &entry.kind else { return Ok(()) };
        self.block(holes)?;
        match content {
            Content::Inline(refs) => refs.iter().try_for_each(|r| self.data(&r.id)),
            Content::List(id) => self.list(id, u8::MAX),
        }
    }

    fn block(&mut self, block: &Block) -> Result<()> {
        let Block::Chunk(chunk) = block else { return Ok(()) };
        self.meta(&chunk.id, "metadata block")
    }

    fn list(&mut self, id: &ChunkId, above: u8) -> Result<()> {
        self.meta(id, "list node")?;
        if !self.entered.insert((record_key(id), true)) {
            return Ok(());
        }
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        let not_understood = |source| Error::Object { object: format!("list node {id}"), source };
        match ListNode::decode(&self.buffer).map_err(not_understood)? {
            ListNode::Inner { level, .. } if level >= above => Err(Error::Damaged {
                what: format!("list node {id}"),
                reason: "a child is not below its parent".into(),
            }),
            ListNode::Inner { level, children } => children.iter().try_for_each(|c| self.list(&c.id, level)),
            ListNode::Leaf(refs) => refs.iter().try_for_each(|r| self.data(&r.id)),
        }
    }
}

impl Live<'_> {
    /// Data chunks that are referred to and that no index run lists.
    pub(super) fn lost(&self) -> usize {
        self.lost.len()
    }

    fn bit(&self, place: &Place) -> bool {
        let (word, bit) = (place.record.record as usize / 64, place.record.record % 64);
        let words = self.bits.get(place.record.segment as usize);
        words.and_then(|b| b.get(word)).is_some_and(|w| w >> bit & 1 != 0)
    }

    /// True if a root needs the chunk; `places` is left with all its places.
    ///
    /// What is needed does not change because another collector has buried the place where it was kept: that one may have
    /// counted a place here as the copy. So the bits of buried places count (`tests/collectors.rs`).
    pub(super) fn needs(&self, key: &[u8; KEY_LEN], places: &mut Vec<Place>) -> Result<bool> {
        self.index.all_places(key, places)?;
        let live = places.iter().any(|p| self.bit(p)) || self.lost.contains(key);
        self.index.places_of(key, places)?;
        Ok(live)
    }

    /// Plain bytes each pack keeps for the roots.
    pub(super) fn live_bytes(&self) -> Result<HashMap<PackName, u64>> {
        let mut by_ref = HashMap::new();
        self.index.each_record(|at, pack, r| {
            let word = self.bits.get(at.segment as usize).and_then(|b| b.get(at.record as usize / 64));
            if word.is_some_and(|w| w >> (at.record % 64) & 1 != 0) {
                *by_ref.entry(pack).or_insert(0u64) += u64::from(r.len);
            }
        })?;
        let mut out = HashMap::new();
        for (pack, bytes) in by_ref {
            *out.entry(self.index.pack_name(pack)?).or_insert(0) += bytes;
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::Recorder;
    use crate::backend::{Backend, Memory};
    use crate::env::Env;
    use crate::fixture;
    use crate::repository::InitOptions;
    use crate::repository::index::put_run;
    use bulla_repo_format::chunker::ChunkerParams;
    use bulla_repo_format::index::IndexRun;
    use bulla_repo_format::pack::PackKind;
    use bulla_repo_format::{Area, ObjectName};
    use std::io::Write;
    use std::sync::Arc;

    /// Chunks are looked up together, and so is whether others have put meanwhile what cannot be found.
    #[test]
    fn lost_chunks_are_all_known_and_ask_the_store_once() {
        let store = Arc::new(Recorder::new(Arc::new(Memory::new())));
        let repository =
            fixture::repository(store.clone(), &InitOptions::default(), Env::system("host", "user"));
        let done = fixture::back_up(&repository, fixture::noise(4 << 20));
        let (tree, chunks) = (done.snapshot.unwrap().tree, done.statistics.data_chunks_new);
        assert!(chunks > 10);
        let reached = |repository: &Repository| {
            let index = repository.open_index().unwrap();
            let mut reach = Reach::new(repository, &index, HashSet::new());
            store.take();
            reach.root(&tree).unwrap();
            assert!(!reach.met.is_empty(), "what other roots name is looked up together with it");
            let listings = store.take().get("list index").copied().unwrap_or(0);
            let live: u64 = reach.live().unwrap().live_bytes().unwrap().into_values().sum();
            (reach.live().unwrap().lost() as u64, listings, live >= 4 << 20)
        };
        assert_eq!(reached(&repository), (0, 0, true));
        // A run that lists the metadata alone, in place of the one that lists all.
        let [name] = repository.index_names().unwrap()[..] else { panic!() };
        let all = repository.fetch_index_run(&name).unwrap();
        let mut some = IndexRun::new(all.signer);
        for (number, pack) in (0..).zip(&all.packs).filter(|(_, p)| p.header.kind == PackKind::Meta) {
            let own = all.records.iter().filter(|r| r.pack == number).cloned();
            let pack_number = some.packs.len() as u32;
            some.records
                .extend(own.map(|r| bulla_repo_format::index::IndexRecord { pack: pack_number, ..r }));
            some.packs.push(pack.clone());
        }
        store.delete(&ObjectName::Index(name)).unwrap();
        put_run(&repository, &mut some).unwrap();
        assert_eq!(store.list(Area::Index).unwrap().len(), 1);
        let (lost, listings, whole) = reached(&repository);
        assert_eq!((lost, whole), (chunks, false));
        assert!(listings <= 2, "{listings} listings for {chunks} chunks");
    }

    /// A page of the index that is damaged on this machine is none of the gaps that a pinned tree, or one of damaged packs, may have.
    #[test]
    fn a_look_up_that_fails_is_never_excused() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env { cache: Some(dir.path().to_path_buf()), ..Env::system("host", "user") };
        let options =
            InitOptions { chunker: ChunkerParams { min: 64, avg: 256, max: 1024 }, ..InitOptions::default() };
        let repository = fixture::repository(Arc::new(Memory::new()), &options, env);
        let tree = fixture::back_up(&repository, fixture::noise(4 << 20)).snapshot.unwrap().tree;
        let [name] = repository.index_names().unwrap()[..] else { panic!() };
        let reached = |lenient: bool, harm: bool| {
            let index = repository.open_index().unwrap();
            let mut reach = Reach::new(&repository, &index, HashSet::new());
            if lenient {
                reach = reach.lenient();
            }
            if harm {
                let file = segment_file(dir.path(), &name.to_string());
                let mut bytes = std::fs::read(&file).unwrap();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                // In place, where it is mapped.
                std::fs::OpenOptions::new().write(true).open(&file).unwrap().write_all(&bytes).unwrap();
            }
            let walked = if lenient { reach.root(&tree) } else { reach.pin(&tree) };
            let marked = walked.and_then(|()| reach.live().map(|_| ()));
            // Nobody sees what is only half marked.
            assert_eq!(reach.live().is_err(), marked.is_err());
            marked.map_err(|e| e.to_string())
        };
        for lenient in [false, true] {
            assert_eq!(reached(lenient, false), Ok(()));
            let said = reached(lenient, true).unwrap_err();
            assert!(said.contains("run this again"), "{said}");
            assert_eq!(reached(lenient, false), Ok(()), "again");
        }
    }

    fn segment_file(below: &std::path::Path, name: &str) -> std::path::PathBuf {
        let inside = |dir: &std::path::Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
        let mut to_see = vec![below.to_path_buf()];
        while let Some(path) = to_see.pop() {
            if path.ends_with(name) {
                return path;
            }
            if path.is_dir() {
                to_see.extend(inside(&path));
            }
        }
        panic!("{name} is not cached")
    }
}
