//! Nodes: leaves of entries, inner nodes of children, blocks of metadata. The first byte tells them apart.

use super::entry::{Entry, compare_key, read_key};
use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::ChunkId;
use crate::limits::{BLOCK_MAX, NODE_MAX, TREE_LEVELS_MAX};
use std::cmp::Ordering;
use std::sync::Arc;

const WHAT: &str = "tree node";
pub(super) const LEAF: u8 = 1;
pub(super) const INNER: u8 = 2;
pub(super) const LIST_LEAF: u8 = 3;
pub(super) const LIST_INNER: u8 = 4;
const BLOCK: u8 = 5;

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

impl Node {
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

fn decode_leaf(mut r: Reader<'_>) -> Result<Node> {
    let n = r.varint()?;
    ensure(n <= r.remaining() as u64, WHAT, "counts do not fit its length")?;
    let mut entries: Vec<Entry> = Vec::new();
    let mut parent: Arc<[u8]> = Arc::from([]);
    for _ in 0..n {
        let (p, name) = read_key(&mut r, &parent)?;
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
    let mut parent: Arc<[u8]> = Arc::from([]);
    for _ in 0..n {
        let (p, name) = read_key(&mut r, &parent)?;
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
