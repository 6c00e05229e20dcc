//! Nodes: leaves of entries, inner nodes of children, blocks of metadata. The first byte tells them apart.

use super::entry::{Entry, compare_key, read_key};
use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::ChunkId;
use crate::limits::{BLOCK_MAX, NODE_MAX, NODE_PATHS_MAX, TREE_LEVELS_MAX};
use std::cmp::Ordering;
use std::sync::Arc;

const WHAT: &str = "tree node";
pub(super) const LEAF: u8 = 1;
pub(super) const INNER: u8 = 2;
pub(super) const LIST_LEAF: u8 = 3;
pub(super) const LIST_INNER: u8 = 4;
const BLOCK: u8 = 5;
/// Bytes of the shortest entry: a directory of one letter, every number below 128.
const ENTRY_MIN: usize = 15;

/// What entries and nodes are ordered by: parent path and name.
pub type Key = (Arc<[u8]>, Vec<u8>);

/// What a node is, as far as its parent speaks of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// 0 for leaves.
    pub level: u8,
    /// The first key in it, if there is any.
    pub first: Option<Key>,
    /// The last key in it; of an inner node, the first of its last child.
    pub last: Option<Key>,
    /// Entries below it.
    pub entries: u64,
    /// Bytes of the files below it.
    pub bytes: u64,
}

impl Summary {
    /// Checks that the node is what its parent says of it, and that it ends before `end`, where the next one begins
    /// (SPEC 9.2). With it no node can stand in two places of one tree: a tree has as many entries as its bytes spell.
    pub fn check(&self, child: &Child, end: Option<&Key>) -> Result<()> {
        let own = |k: &Key| k.0 == child.parent && k.1 == child.name;
        ensure(self.first.as_ref().is_some_and(own), WHAT, "a child begins elsewhere than its parent says")?;
        let sums = (self.entries, self.bytes) == (child.entries, child.bytes);
        ensure(sums, WHAT, "a child has other sums than its parent says")?;
        let before = |end: &Key| {
            let order = |last: &Key| compare_key((&last.0, &last.1), (&end.0, &end.1));
            self.last.as_ref().map(order) == Some(Ordering::Less)
        };
        ensure(end.is_none_or(before), WHAT, "a child reaches into the next")
    }
}

/// A child of an inner node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Child {
    /// Parent path of its first entry.
    pub parent: Arc<[u8]>,
    /// Name of its first entry.
    pub name: Vec<u8>,
    /// The node.
    pub id: ChunkId,
    /// Entries below it.
    pub entries: u64,
    /// Bytes of the files below it.
    pub bytes: u64,
}

/// A decoded node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Entries in order.
    Leaf(Vec<Entry>),
    /// Children in order, one level further down.
    Inner {
        /// 1 above leaves, 2 above those, and so on.
        level: u8,
        /// The children.
        children: Vec<Child>,
    },
}

impl Child {
    /// Its first key.
    pub fn key(&self) -> Key {
        (self.parent.clone(), self.name.clone())
    }
}

impl Node {
    /// What its parent must have said.
    pub fn summary(&self) -> Summary {
        match self {
            Self::Leaf(entries) => {
                let key = |e: &Entry| (e.parent.clone(), e.name.clone());
                Summary {
                    level: 0,
                    first: entries.first().map(key),
                    last: entries.last().map(key),
                    entries: entries.len() as u64,
                    bytes: entries.iter().fold(0, |sum, e| sum.saturating_add(e.size())),
                }
            }
            Self::Inner { level, children } => Summary {
                level: *level,
                first: children.first().map(Child::key),
                last: children.last().map(Child::key),
                entries: children.iter().fold(0, |sum, c| sum.saturating_add(c.entries)),
                bytes: children.iter().fold(0, |sum, c| sum.saturating_add(c.bytes)),
            },
        }
    }

    /// Decodes a node and checks that its keys ascend strictly.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        within("tree node", bytes.len() as u64, NODE_MAX.into())?;
        let mut r = Reader::new(WHAT, bytes);
        match r.u8()? {
            LEAF => decode_leaf(r),
            INNER => decode_inner(r),
            _ => Err(FormatError::invalid(WHAT, "not a leaf or inner node")),
        }
    }
}

/// Adds a path that is not the one before it; each is whole in memory.
fn bound_paths(paths: &mut usize, before: &Arc<[u8]>, path: &Arc<[u8]>) -> Result<()> {
    if !Arc::ptr_eq(before, path) {
        *paths += path.len();
    }
    within("paths in a tree node", *paths as u64, NODE_PATHS_MAX as u64)
}

fn decode_leaf(mut r: Reader<'_>) -> Result<Node> {
    let n = r.varint()?;
    ensure(n <= r.remaining() as u64, WHAT, "counts do not fit its length")?;
    // What a node says of itself asks for no more memory than its bytes can fill.
    let mut entries: Vec<Entry> =
        Vec::with_capacity(usize::try_from(n).unwrap_or(0).min(r.remaining() / ENTRY_MIN));
    let (mut parent, mut paths): (Arc<[u8]>, usize) = (Arc::from([]), 0);
    for _ in 0..n {
        let (p, name) = read_key(&mut r, &parent)?;
        bound_paths(&mut paths, &parent, &p)?;
        parent = p.clone();
        let entry = Entry::read_body(&mut r, p, name)?;
        let ascending = entries.last().is_none_or(|last| last.compare(&entry) == Ordering::Less);
        ensure(ascending, WHAT, "entries are not in order")?;
        entries.push(entry);
    }
    r.finish()?;
    Ok(Node::Leaf(entries))
}

fn decode_inner(mut r: Reader<'_>) -> Result<Node> {
    let level = r.u8()?;
    ensure(level > 0 && level <= TREE_LEVELS_MAX, WHAT, "level out of range")?;
    let n = r.varint()?;
    ensure(n > 1 && n <= r.remaining() as u64 / 32, WHAT, "counts do not fit its length")?;
    let mut children: Vec<Child> = Vec::new();
    let (mut parent, mut paths): (Arc<[u8]>, usize) = (Arc::from([]), 0);
    for _ in 0..n {
        let (p, name) = read_key(&mut r, &parent)?;
        bound_paths(&mut paths, &parent, &p)?;
        parent = p.clone();
        let child =
            Child { parent: p, name, id: ChunkId::new(r.array()?), entries: r.varint()?, bytes: r.varint()? };
        let ascending = children.last().is_none_or(|last| {
            compare_key((&last.parent, &last.name), (&child.parent, &child.name)) == Ordering::Less
        });
        ensure(ascending && child.entries > 0, WHAT, "children are not in order, or empty")?;
        children.push(child);
    }
    r.finish()?;
    Ok(Node::Inner { level, children })
}

/// The plaintext of a metadata block's chunk.
pub fn encode_block(block: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 1);
    out.put_u8(BLOCK);
    out.put(block);
    out
}

/// The block in such a chunk.
pub fn decode_block(bytes: &[u8]) -> Result<&[u8]> {
    within("metadata block", bytes.len() as u64, BLOCK_MAX.into())?;
    match bytes.split_first() {
        Some((&BLOCK, block)) => Ok(block),
        _ => Err(FormatError::invalid("metadata block", "is something else")),
    }
}
