//! Trees: every snapshot is readable, every node is there, every chunk a file refers to lies in a good pack.
//!
//! Nodes shared between snapshots are read once; a node that holds damage is remembered with what it holds, so that
//! each snapshot that has it is named.

use super::{Bad, CheckReport, Finding, HURTS_MAX};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{Index, PackRef, Place};
use crate::repository::pack::object_name;
use crate::repository::tree::display_path;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::{
    Block, ChunkRef, Content, Entry, EntryKind, ListNode, Node, decode_block, decode_holes, decode_xattrs,
};
use bulla_repo_format::{Area, ChunkId, PackName, RunId};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Walks the trees of all snapshots, or `only` of these.
pub(super) fn check(
    repository: &Repository,
    index: &Index,
    bad: &Bad,
    only: Option<&HashSet<RunId>>,
    observer: &dyn Observer,
    report: &mut CheckReport,
) -> Result<()> {
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
    for (done, snapshot) in snapshots.iter().enumerate() {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let damage = walk.node(&snapshot.tree, u8::MAX)?;
        for (object, path) in damage {
            let finding = walk.findings.get_mut(&object);
            if let Some(f) = finding.filter(|f| f.hurts.len() < HURTS_MAX) {
                f.hurts.push((snapshot.id.short(), path));
            }
        }
        let (files, total_files) = (done as u64 + 1, snapshots.len() as u64);
        observer.event(&Event::Progress { files, bytes: 0, total_files, total_bytes: 0 });
    }
    report.snapshots = snapshots.len() as u64;
    report.nodes = walk.nodes.len() as u64;
    report.findings.extend(walk.findings.into_values());
    Ok(())
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
        walk.node(&snapshot.tree, u8::MAX)?;
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

struct Walk<'r> {
    index: &'r Index,
    bad: &'r Bad,
    chunks: ChunkReader<'r>,
    buffer: Vec<u8>,
    places: Vec<Place>,
    /// Nodes that were read, with the damage below them.
    nodes: HashMap<ChunkId, Damage>,
    /// List nodes without damage.
    good: HashSet<ChunkId>,
    findings: BTreeMap<String, Finding>,
    /// Packs of all chunks met, if they are asked for.
    met: Option<HashSet<PackRef>>,
}

impl<'r> Walk<'r> {
    fn new(repository: &'r Repository, index: &'r Index, bad: &'r Bad) -> Self {
        Self {
            index,
            bad,
            chunks: ChunkReader::new(repository, index),
            buffer: Vec::new(),
            places: Vec::new(),
            nodes: HashMap::new(),
            good: HashSet::new(),
            findings: BTreeMap::new(),
            met: None,
        }
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

    fn node(&mut self, id: &ChunkId, above: u8) -> Result<Damage> {
        if let Some(known) = self.nodes.get(id) {
            return Ok(known.clone());
        }
        let mut damage = Vec::new();
        match self.read_node(id, above)? {
            Err(reason) => {
                let object = format!("tree node {id}");
                self.finding(object.clone(), reason);
                damage.push((object, Vec::new()));
            }
            Ok(Node::Leaf(entries)) => {
                for entry in &entries {
                    self.entry(entry, &mut damage)?;
                }
            }
            Ok(Node::Inner { level, children }) => {
                for child in children {
                    let before = damage.len();
                    damage.extend(self.node(&child.id, level)?);
                    // A lost node has no paths of its own: say where it would have begun.
                    for (_, path) in damage.iter_mut().skip(before).filter(|(_, p)| p.is_empty()) {
                        *path = [&display_path(&child.parent, &child.name)[..], b" and following"].concat();
                    }
                }
            }
        }
        self.nodes.insert(*id, damage.clone());
        Ok(damage)
    }

    /// A node, or why it cannot be had.
    fn read_node(&mut self, id: &ChunkId, above: u8) -> Result<std::result::Result<Node, String>> {
        match self.read_meta(id) {
            Err(e) if e.is_damage() => return Ok(Err(e.to_string())),
            other => other?,
        }
        Ok(match Node::decode(&self.buffer) {
            Ok(Node::Inner { level, .. }) if level >= above => {
                Err("a child is not below its parent".to_owned())
            }
            Ok(node) => Ok(node),
            Err(e) => Err(e.to_string()),
        })
    }

    fn entry(&mut self, entry: &Entry, damage: &mut Damage) -> Result<()> {
        let mut hurt = |found: Option<String>| {
            if let Some(object) = found {
                damage.push((object, display_path(&entry.parent, &entry.name)));
            }
        };
        hurt(self.block(&entry.xattrs, |b| decode_xattrs(b).map(drop))?);
        if let EntryKind::File { size, holes, content } = &entry.kind {
            hurt(self.block(holes, |b| decode_holes(b, *size).map(drop))?);
            match content {
                Content::Inline(refs) => {
                    for chunk in refs {
                        hurt(self.chunk(chunk)?);
                    }
                }
                Content::List(id) => hurt(self.list(id, u8::MAX)?),
            }
        }
        Ok(())
    }

    /// A metadata block that is a chunk of its own; its object if it is damaged.
    fn block(
        &mut self,
        block: &Block,
        decode: impl FnOnce(&[u8]) -> std::result::Result<(), bulla_repo_format::FormatError>,
    ) -> Result<Option<String>> {
        let Block::Chunk(chunk) = block else { return Ok(None) };
        let reason = match self.read_meta(&chunk.id) {
            Err(e) if e.is_damage() => e.to_string(),
            Err(e) => return Err(e),
            Ok(()) => match decode_block(&self.buffer).and_then(decode) {
                Ok(()) => return Ok(None),
                Err(e) => e.to_string(),
            },
        };
        let object = format!("metadata block {}", chunk.id);
        self.finding(object.clone(), reason);
        Ok(Some(object))
    }

    /// A content list; the first damaged object below it.
    fn list(&mut self, id: &ChunkId, above: u8) -> Result<Option<String>> {
        if self.good.contains(id) {
            return Ok(None);
        }
        let reason = match self.read_meta(id) {
            Err(e) if e.is_damage() => e.to_string(),
            Err(e) => return Err(e),
            Ok(()) => match ListNode::decode(&self.buffer) {
                Ok(ListNode::Inner { level, .. }) if level >= above => {
                    "a child is not below its parent".to_owned()
                }
                Ok(ListNode::Inner { level, children }) => {
                    for child in children {
                        if let Some(object) = self.list(&child.id, level)? {
                            return Ok(Some(object));
                        }
                    }
                    self.good.insert(*id);
                    return Ok(None);
                }
                Ok(ListNode::Leaf(refs)) => {
                    for chunk in refs {
                        if let Some(object) = self.chunk(&chunk)? {
                            return Ok(Some(object));
                        }
                    }
                    self.good.insert(*id);
                    return Ok(None);
                }
                Err(e) => e.to_string(),
            },
        };
        let object = format!("list node {id}");
        self.finding(object.clone(), reason);
        Ok(Some(object))
    }

    /// A data chunk: some place of it must be in a pack that is good.
    fn chunk(&mut self, chunk: &ChunkRef) -> Result<Option<String>> {
        self.locate(&chunk.id)?;
        let mut found = None;
        for place in &self.places {
            if self.bad.packs.is_empty() && self.bad.chunks.is_empty() && place.len == chunk.len {
                return Ok(None);
            }
            let pack = self.index.pack(place.pack)?;
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
