//! List trees (SPEC 9.4): the chunk references of a large file, cut by the ids themselves, so that an edit in
//! the middle rewrites one list node and its ancestors.

use super::entry::{ChunkRef, Content, put_ref, read_ref};
use super::node::{LIST_INNER, LIST_LEAF};
use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::ChunkId;
use crate::keys::IdKey;
use crate::limits::{CHUNK_MAX, INLINE_REFS_MAX, LIST_LEVELS_MAX, LIST_REFS_MAX, LIST_REFS_MIN, NODE_MAX};

const WHAT: &str = "list node";

/// A child of an inner list node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListChild {
    /// The node.
    pub id: ChunkId,
    /// Bytes of content below it.
    pub bytes: u64,
    /// Chunk references below it.
    pub refs: u64,
}

/// A decoded list node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListNode {
    /// Chunk references in order.
    Leaf(Vec<ChunkRef>),
    /// Children in order.
    Inner {
        /// 1 above leaves, and so on.
        level: u8,
        /// The children.
        children: Vec<ListChild>,
    },
}

impl ListNode {
    /// Bytes and references below it.
    pub fn sums(&self) -> (u64, u64) {
        match self {
            Self::Leaf(refs) => (refs.iter().map(|r| u64::from(r.len)).sum(), refs.len() as u64),
            Self::Inner { children, .. } => children.iter().fold((0, 0), |(bytes, refs): (u64, u64), c| {
                (bytes.saturating_add(c.bytes), refs.saturating_add(c.refs))
            }),
        }
    }

    /// Decodes a list node.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        within(WHAT, bytes.len() as u64, NODE_MAX.into())?;
        let mut r = Reader::new(WHAT, bytes);
        let node = match r.u8()? {
            LIST_LEAF => {
                let n = count(&mut r, 1)?;
                Self::Leaf((0..n).map(|_| read_ref(&mut r, CHUNK_MAX)).collect::<Result<_>>()?)
            }
            LIST_INNER => {
                let level = r.u8()?;
                ensure(level > 0 && level <= LIST_LEVELS_MAX, WHAT, "level out of range")?;
                let n = count(&mut r, 2)?;
                let child = |r: &mut Reader<'_>| {
                    let c = ListChild { id: ChunkId::new(r.array()?), bytes: r.varint()?, refs: r.varint()? };
                    ensure(c.refs > 0 && c.bytes >= c.refs, WHAT, "an empty child")?;
                    Ok(c)
                };
                Self::Inner { level, children: (0..n).map(|_| child(&mut r)).collect::<Result<_>>()? }
            }
            _ => return Err(FormatError::invalid(WHAT, "is something else")),
        };
        r.finish()?;
        Ok(node)
    }
}

fn count(r: &mut Reader<'_>, least: u64) -> Result<u64> {
    let n = r.varint()?;
    within("list references", n, LIST_REFS_MAX as u64)?;
    ensure(n >= least && n <= r.remaining() as u64 / 33, WHAT, "counts do not fit its length")?;
    Ok(n)
}

/// A level ends behind a reference whose id begins with a small number, from 64 references on; at 1024 anyway.
fn ends(refs: usize, id: &ChunkId) -> bool {
    let [a, b, ..] = id.as_bytes();
    refs >= LIST_REFS_MIN && (u16::from_le_bytes([*a, *b]) < 256 || refs >= LIST_REFS_MAX)
}

/// Takes chunk references in order and gives a [`Content`]. Holds no more than a node of each level, if what is complete is
/// taken.
#[derive(Default)]
pub struct ListBuilder {
    leaf: Vec<ChunkRef>,
    levels: Vec<Vec<ListChild>>,
    nodes: Vec<(ChunkId, Vec<u8>)>,
}

impl ListBuilder {
    /// Appends one reference; `key`, the same for the whole list, identifies its nodes.
    pub fn push(&mut self, key: &IdKey, chunk: ChunkRef) {
        self.leaf.push(chunk);
        if ends(self.leaf.len(), &chunk.id) {
            self.flush_leaf(key);
        }
    }

    /// True if nothing was appended.
    pub fn is_empty(&self) -> bool {
        self.leaf.is_empty() && self.levels.is_empty()
    }

    /// Nodes that are complete and must be stored; the caller takes them as often as it likes.
    pub fn take_nodes(&mut self) -> Vec<(ChunkId, Vec<u8>)> {
        std::mem::take(&mut self.nodes)
    }

    /// The content, and the last nodes to store.
    pub fn finish(mut self, key: &IdKey) -> (Content, Vec<(ChunkId, Vec<u8>)>) {
        if self.levels.is_empty() && self.leaf.len() <= INLINE_REFS_MAX {
            return (Content::Inline(self.leaf), self.nodes);
        }
        if !self.leaf.is_empty() {
            self.flush_leaf(key);
        }
        let mut level = 0;
        loop {
            let above = level + 1 < self.levels.len();
            match self.levels.get(level).map(Vec::as_slice) {
                Some([only]) if !above => return (Content::List(only.id), self.nodes),
                Some([]) | None if !above => return (Content::default(), self.nodes),
                Some([]) | None => {}
                Some(_) => self.flush_level(key, level),
            }
            level += 1;
        }
    }

    fn flush_leaf(&mut self, key: &IdKey) {
        let refs = std::mem::take(&mut self.leaf);
        let mut out = vec![LIST_LEAF];
        out.put_varint(refs.len() as u64);
        refs.iter().for_each(|c| put_ref(&mut out, c));
        let bytes = refs.iter().map(|c| u64::from(c.len)).sum();
        self.add(key, 0, ListChild { id: key.identify(&out), bytes, refs: refs.len() as u64 }, out);
    }

    fn flush_level(&mut self, key: &IdKey, level: usize) {
        let Some(children) = self.levels.get_mut(level).map(std::mem::take) else { return };
        if let [only] = children.as_slice() {
            // A node with one child says nothing: pass the child up.
            return self.raise(key, level + 1, *only);
        }
        let mut out = vec![LIST_INNER];
        out.put_u8(u8::try_from(level + 1).unwrap_or(u8::MAX));
        out.put_varint(children.len() as u64);
        for c in &children {
            out.put(c.id.as_bytes());
            out.put_varint(c.bytes);
            out.put_varint(c.refs);
        }
        let sum = |f: fn(&ListChild) -> u64| children.iter().map(f).sum();
        let child = ListChild { id: key.identify(&out), bytes: sum(|c| c.bytes), refs: sum(|c| c.refs) };
        self.add(key, level + 1, child, out);
    }

    fn add(&mut self, key: &IdKey, level: usize, child: ListChild, node: Vec<u8>) {
        self.nodes.push((child.id, node));
        self.raise(key, level, child);
    }

    fn raise(&mut self, key: &IdKey, level: usize, child: ListChild) {
        if self.levels.len() <= level {
            self.levels.resize_with(level + 1, Vec::new);
        }
        let Some(row) = self.levels.get_mut(level) else { return };
        row.push(child);
        if ends(row.len(), &child.id) {
            self.flush_level(key, level);
        }
    }
}
