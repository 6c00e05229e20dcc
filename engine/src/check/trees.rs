//! Trees: every snapshot is readable, every node is there, every chunk a file refers to lies in a good pack.
//!
//! Nodes shared between snapshots are read once; a node that holds damage is remembered with what it holds, so that
//! each snapshot that has it is named. A node stands only where it is what the parent there says (SPEC 9.2), so that
//! what is remembered does not multiply in a forged tree.

use super::gathered::Gathered;
use super::{Bad, CheckReport, Finding, HURTS_MAX};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, escape};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{self, Index, PackRef};
use crate::repository::pack::object_name;
use crate::repository::tree::display_path;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::{
    Block, Child, ChunkRef, Content, Entry, EntryKind, Key, ListChild, ListNode, Node, Summary,
    compare_paths, decode_block, decode_holes, decode_xattrs,
};
use bulla_repo_format::{Area, ChunkId, PackName, RunId};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Walks the trees of all snapshots, or `only` of these.
pub(super) fn check(
    repository: &Repository,
    index: &Index,
    bad: &Bad,
    only: Option<&HashSet<RunId>>,
    observer: &dyn Observer,
    report: &mut CheckReport,
) -> Result<Vec<RunId>> {
    let (mut snapshots, failed) = repository.readable_snapshots()?;
    for e in failed {
        if !e.is_damage() {
            return Err(e);
        }
        report.add("a snapshot", e);
    }
    snapshots.retain(|s| only.is_none_or(|only| only.contains(&s.id)));
    lineages(repository, &snapshots, report)?;
    let mut walk = Walk::new(repository, index, bad);
    if bad.packs.is_empty() && bad.chunks.is_empty() {
        walk.gathered = Some(Gathered::new(index));
    }
    walk.all(&snapshots, observer)?;
    if !walk.gathered.as_mut().map_or(Ok(true), Gathered::all_placed)? {
        // Which chunk has no place, and whose it is, is told by a walk that looks up each by itself.
        walk = Walk::new(repository, index, bad);
        walk.all(&snapshots, observer)?;
    }
    report.snapshots = snapshots.len() as u64;
    report.nodes = walk.nodes.len() as u64;
    report.findings.extend(walk.findings.into_values());
    Ok(snapshots.into_iter().map(|s| s.id).collect())
}

/// The packs with some chunk of these snapshots, also those that have it besides others.
pub(super) fn packs_needed(
    repository: &Repository,
    index: &Index,
    only: &HashSet<RunId>,
    observer: &dyn Observer,
) -> Result<HashSet<PackName>> {
    let bad = Bad::default();
    let mut walk = Walk::new(repository, index, &bad);
    walk.met = Some(HashSet::new());
    for snapshot in repository.readable_snapshots()?.0.iter().filter(|s| only.contains(&s.id)) {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        walk.node(&snapshot.tree, None)?;
    }
    walk.met.into_iter().flatten().map(|pack| index.pack_name(pack)).collect()
}

/// A snapshot that a lineage names must be there, or have died on record.
fn lineages(repository: &Repository, snapshots: &[Snapshot], report: &mut CheckReport) -> Result<()> {
    let mut explained: HashSet<_> = repository.list_runs(Area::Verdicts)?.into_iter().collect();
    explained.extend(repository.list_runs(Area::Deaths)?);
    explained.extend(repository.accepted_losses().unwrap_or_default());
    let mut missing = BTreeMap::new();
    for snapshot in snapshots {
        for id in snapshot.prev.iter().map(|h| h.id).chain(snapshot.seen.iter().copied()) {
            if !explained.contains(&id) {
                missing.entry(id).or_insert_with(|| snapshot.id.short());
            }
        }
    }
    for (id, by) in missing {
        let reason = format!("it is missing without a record of its death, though snapshot {by} saw it");
        report.add(format!("snapshot {id}"), reason);
    }
    Ok(())
}

/// Damaged objects below a node, each with a path.
type Damage = Vec<(String, Vec<u8>)>;
/// Bytes and references of a list, or the object that is damaged.
type Listed = std::result::Result<(u64, u64), String>;

/// What a parent says of a child: an inner node of `level`, whose next child begins at `end`.
struct Place<'c> {
    level: u8,
    child: &'c Child,
    end: Option<Key>,
}

impl Place<'_> {
    fn check(&self, summary: &Summary) -> std::result::Result<(), String> {
        if summary.level >= self.level {
            return Err("a child is not below its parent".to_owned());
        }
        summary.check(self.child, self.end.as_ref()).map_err(|e| e.to_string())
    }

    /// True if the last entry anywhere below lies in the next child's range.
    fn overrun(&self, last: Option<&Key>) -> bool {
        let (Some(last), Some(end)) = (last, &self.end) else { return false };
        compare_paths(&last.0, &end.0).then_with(|| last.1.cmp(&end.1)) != Ordering::Less
    }
}

/// What was found below a node.
struct Below {
    damage: Damage,
    /// The last key of all.
    last: Option<Key>,
}

struct Walk<'r> {
    index: &'r Index,
    bad: &'r Bad,
    chunks: ChunkReader<'r>,
    buffer: Vec<u8>,
    places: Vec<index::Place>,
    /// Of packs met: whose details are read once.
    kinds: HashMap<PackRef, PackKind>,
    /// What the nodes that were read are.
    summaries: HashMap<ChunkId, Summary>,
    /// Those that were entered.
    nodes: HashMap<ChunkId, Below>,
    /// List nodes without damage: level, bytes and references.
    good: HashMap<ChunkId, (u8, (u64, u64))>,
    findings: BTreeMap<String, Finding>,
    /// Packs of all chunks met, if they are asked for.
    met: Option<HashSet<PackRef>>,
    /// The segment of the index that the last chunk was in.
    near: u32,
    /// Data chunks are looked up together, and it is not told which of them has no place.
    gathered: Option<Gathered<'r>>,
}

impl<'r> Walk<'r> {
    fn new(repository: &'r Repository, index: &'r Index, bad: &'r Bad) -> Self {
        Self {
            index,
            bad,
            chunks: ChunkReader::new(repository, index),
            buffer: Vec::new(),
            places: Vec::new(),
            kinds: HashMap::new(),
            summaries: HashMap::new(),
            nodes: HashMap::new(),
            good: HashMap::new(),
            findings: BTreeMap::new(),
            met: None,
            near: 0,
            gathered: None,
        }
    }

    /// Enters the trees of snapshots, and notes what damage hurts which.
    fn all(&mut self, snapshots: &[Snapshot], observer: &dyn Observer) -> Result<()> {
        for (done, snapshot) in snapshots.iter().enumerate() {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let damage = self.node(&snapshot.tree, None)?;
            if self.in_doubt() {
                break;
            }
            for (object, path) in damage {
                let finding = self.findings.get_mut(&object);
                if let Some(f) = finding.filter(|f| f.hurts.len() < HURTS_MAX) {
                    f.hurts.push((snapshot.id.short(), path));
                }
            }
            let (files, total_files) = (done as u64 + 1, snapshots.len() as u64);
            observer.event(&Event::Progress { files, bytes: 0, total_files, total_bytes: 0 });
        }
        Ok(())
    }

    /// Where a chunk lies; noted if that is asked for.
    fn locate(&mut self, id: &ChunkId) -> Result<()> {
        self.index.places(id, &mut self.places)?;
        if let Some(met) = &mut self.met {
            met.extend(self.places.iter().map(|p| p.pack));
        }
        Ok(())
    }

    /// Reads a metadata chunk.
    fn read_meta(&mut self, id: &ChunkId) -> Result<()> {
        if self.met.is_some() {
            self.locate(id)?;
        }
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)
    }

    fn finding(&mut self, object: String, reason: impl ToString) {
        let make = || Finding { object: object.clone(), reason: reason.to_string(), hurts: Vec::new() };
        self.findings.entry(object.clone()).or_insert_with(make);
    }

    /// True if another walk will look up each chunk by itself, and what this one finds counts no more.
    fn in_doubt(&self) -> bool {
        self.gathered.as_ref().is_some_and(Gathered::in_doubt)
    }

    /// The damage at and below a node. `place` is what its parent says of it.
    fn node(&mut self, id: &ChunkId, place: Option<&Place<'_>>) -> Result<Damage> {
        if self.in_doubt() {
            return Ok(Vec::new());
        }
        let object = format!("tree node {id}");
        // Before it is entered: what does not fit here could lead round in a circle.
        let misplaced = match (place, self.summaries.get(id)) {
            (Some(place), Some(summary)) => place.check(summary).err(),
            _ => None,
        };
        if let Some(reason) = misplaced {
            self.finding(object.clone(), reason);
            return Ok(vec![(object, Vec::new())]);
        }
        if !self.nodes.contains_key(id) {
            let known = match self.read_node(id, place)? {
                Ok(node) => self.below(&node)?,
                Err(reason) => {
                    self.finding(object.clone(), reason);
                    let damage = vec![(object.clone(), Vec::new())];
                    if self.summaries.contains_key(id) {
                        // It is sound, and only not here.
                        return Ok(damage);
                    }
                    Below { damage, last: None }
                }
            };
            self.nodes.insert(*id, known);
        }
        let Some(below) = self.nodes.get(id) else { return Ok(Vec::new()) };
        let mut damage = below.damage.clone();
        if place.is_some_and(|p| p.overrun(below.last.as_ref())) {
            self.finding(object.clone(), "it reaches into the next node");
            damage.push((object, Vec::new()));
        }
        Ok(damage)
    }

    /// What lies in or below a node that fits.
    fn below(&mut self, node: &Node) -> Result<Below> {
        let mut damage = Vec::new();
        let mut last = node.summary().last;
        match node {
            Node::Leaf(entries) => {
                for entry in entries {
                    self.entry(entry, &mut damage)?;
                }
            }
            Node::Inner { level, children } => {
                let ends = children.iter().skip(1).map(|c| Some(c.key())).chain([None]);
                for (child, end) in children.iter().zip(ends) {
                    let before = damage.len();
                    damage.extend(self.node(&child.id, Some(&Place { level: *level, child, end }))?);
                    // A lost node has no paths of its own: say where it would have begun.
                    for (_, path) in damage.iter_mut().skip(before).filter(|(_, p)| p.is_empty()) {
                        *path = [&display_path(&child.parent, &child.name)[..], b" and following"].concat();
                    }
                }
                let deepest = children.last().and_then(|c| self.nodes.get(&c.id));
                last = deepest.and_then(|b| b.last.clone()).or(last);
            }
        }
        Ok(Below { damage, last })
    }

    /// A node, or why it cannot be had.
    fn read_node(
        &mut self,
        id: &ChunkId,
        place: Option<&Place<'_>>,
    ) -> Result<std::result::Result<Node, String>> {
        match self.read_meta(id) {
            Err(e) if e.is_damage() => return Ok(Err(e.to_string())),
            other => other?,
        }
        let node = match Node::decode(&self.buffer) {
            Ok(node) => node,
            Err(e) => return Ok(Err(e.to_string())),
        };
        let summary = node.summary();
        let fits = place.map_or(Ok(()), |p| p.check(&summary));
        self.summaries.insert(*id, summary);
        Ok(fits.map(|()| node))
    }

    fn entry(&mut self, entry: &Entry, damage: &mut Damage) -> Result<()> {
        let mut hurt = |object: String| damage.push((object, display_path(&entry.parent, &entry.name)));
        let xattrs = self.block(&entry.xattrs, |b| decode_xattrs(b).map(|_| 0))?;
        let EntryKind::File { size, holes, content } = &entry.kind else {
            xattrs.err().into_iter().for_each(hurt);
            return Ok(());
        };
        let sum = |b: &[u8]| decode_holes(b, *size).map(|h| h.iter().map(|h| h.len).sum());
        let empty = self.block(holes, sum)?;
        let full = match content {
            Content::Inline(refs) => {
                for chunk in refs {
                    self.chunk(chunk)?.into_iter().for_each(&mut hurt);
                }
                Ok((refs.iter().map(|r| u64::from(r.len)).sum(), 0))
            }
            Content::List(id) => self.list(id, None)?,
        };
        if let (Ok(empty), Ok((full, _))) = (&empty, &full)
            && full.saturating_add(*empty) != *size
            && !entry.flags.read_error
        {
            let path = display_path(&entry.parent, &entry.name);
            let object = format!("file {}", escape(&path));
            self.finding(object.clone(), "its chunks and holes do not add up to its size");
            hurt(object);
        }
        [xattrs.err(), empty.err(), full.err()].into_iter().flatten().for_each(hurt);
        Ok(())
    }

    /// What `decode` makes of a metadata block, or the object that is damaged.
    fn block(
        &mut self,
        block: &Block,
        decode: impl FnOnce(&[u8]) -> std::result::Result<u64, bulla_repo_format::FormatError>,
    ) -> Result<std::result::Result<u64, String>> {
        let chunk = match block {
            Block::None => return Ok(Ok(0)),
            // The decoder of the tree has checked it.
            Block::Inline(b) => return Ok(Ok(decode(b).unwrap_or(0))),
            Block::Chunk(chunk) => chunk,
        };
        let reason = match self.read_meta(&chunk.id) {
            Err(e) if e.is_damage() => e.to_string(),
            Err(e) => return Err(e),
            Ok(()) => match decode_block(&self.buffer).and_then(decode) {
                Ok(found) => return Ok(Ok(found)),
                Err(e) => e.to_string(),
            },
        };
        let object = format!("metadata block {}", chunk.id);
        self.finding(object.clone(), reason);
        Ok(Err(object))
    }

    /// Bytes and references of a content list, or the first damaged object below it. `place`: the level of the list it
    /// stands in, and what that says of it.
    fn list(&mut self, id: &ChunkId, place: Option<(u8, &ListChild)>) -> Result<Listed> {
        if self.in_doubt() {
            return Ok(Ok((0, 0)));
        }
        let object = format!("list node {id}");
        let fits = |level: u8, sums: (u64, u64)| {
            place.is_none_or(|(above, said)| level < above && sums == (said.bytes, said.refs))
        };
        let lie = |walk: &mut Self| {
            walk.finding(object.clone(), "it is not what its parent says: level, bytes or references");
            Ok(Err(object.clone()))
        };
        if let Some((level, sums)) = self.good.get(id).copied() {
            return if fits(level, sums) { Ok(Ok(sums)) } else { lie(self) };
        }
        let reason = match self.read_meta(id) {
            Err(e) if e.is_damage() => e.to_string(),
            Err(e) => return Err(e),
            Ok(()) => match ListNode::decode(&self.buffer) {
                Err(e) => e.to_string(),
                Ok(node) => {
                    let level = if let ListNode::Inner { level, .. } = &node { *level } else { 0 };
                    if !fits(level, node.sums()) {
                        return lie(self);
                    }
                    if let Some(bad) = self.below_list(&node)? {
                        return Ok(Err(bad));
                    }
                    self.good.insert(*id, (level, node.sums()));
                    return Ok(Ok(node.sums()));
                }
            },
        };
        self.finding(object.clone(), reason);
        Ok(Err(object))
    }

    /// The first damaged object in or below a list that fits.
    fn below_list(&mut self, node: &ListNode) -> Result<Option<String>> {
        match node {
            ListNode::Inner { level, children } => {
                for child in children {
                    if let Err(object) = self.list(&child.id, Some((*level, child)))? {
                        return Ok(Some(object));
                    }
                }
            }
            ListNode::Leaf(refs) => {
                for chunk in refs {
                    if let Some(object) = self.chunk(chunk)? {
                        return Ok(Some(object));
                    }
                }
            }
        }
        Ok(None)
    }

    /// A data chunk: some place of it must be in a pack that is good.
    fn chunk(&mut self, chunk: &ChunkRef) -> Result<Option<String>> {
        if let Some(gathered) = &mut self.gathered {
            return gathered.add(chunk).map(|()| None);
        }
        let sound = self.bad.packs.is_empty() && self.bad.chunks.is_empty();
        let kinds = &self.kinds;
        let good =
            |p: &index::Place| sound && p.len == chunk.len && kinds.get(&p.pack) == Some(&PackKind::Data);
        // Nearly every chunk of a sound repository needs no more.
        if sound
            && self.met.is_none()
            && self.index.place_near(&chunk.id, &mut self.near)?.is_some_and(|p| good(&p))
        {
            return Ok(None);
        }
        self.locate(&chunk.id)?;
        let mut found = None;
        for place in &self.places {
            if sound && place.len == chunk.len && self.kinds.get(&place.pack) == Some(&PackKind::Data) {
                return Ok(None);
            }
            let pack = self.index.pack(place.pack)?;
            self.kinds.insert(place.pack, pack.header.kind);
            let spoiled = self.bad.chunks.get(&chunk.id).is_some_and(|p| p.contains(&pack.name));
            let right = place.len == chunk.len && pack.header.kind == PackKind::Data;
            if right && !spoiled && !self.bad.packs.contains(&pack.name) {
                return Ok(None);
            }
            found = Some(pack.name);
        }
        let (object, reason) = match found {
            Some(pack) => (
                object_name(PackKind::Data, pack).to_string(),
                format!("it is damaged or missing and holds chunk {}", chunk.id),
            ),
            None => (format!("chunk {}", chunk.id), "no index run lists it".to_owned()),
        };
        self.finding(object.clone(), reason);
        Ok(Some(object))
    }
}
