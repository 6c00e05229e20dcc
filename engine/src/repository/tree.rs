//! Streams the entries of a snapshot's tree in order, or one subtree of it, without loading the tree.

use super::Repository;
use super::chunks::ChunkReader;
use super::index::Index;
use crate::error::{Error, Result};
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::{
    Block, Child, ChunkRef, Content, Entry, ListNode, Node, compare_paths, decode_block, is_within, join_path,
};
use bulla_repo_format::{ChunkId, FormatError};
use std::cmp::Ordering;
use std::sync::Arc;

/// Entries in tree order.
pub struct TreeReader<'r> {
    chunks: ChunkReader<'r>,
    /// Inner nodes from the root down: children not visited yet, last first, and the level.
    stack: Vec<(u8, Vec<Child>)>,
    leaf: std::vec::IntoIter<Entry>,
    root: Option<ChunkId>,
    /// The first key of the node entered last.
    entered: (Arc<[u8]>, Vec<u8>),
    /// Only this path and what is below it.
    scope: Vec<u8>,
    buffer: Vec<u8>,
    visited: Option<Vec<ChunkId>>,
    nodes: u64,
}

impl<'r> TreeReader<'r> {
    /// All entries below `root`.
    pub fn new(repository: &'r Repository, index: &'r Index, root: ChunkId) -> Self {
        Self::within(repository, index, root, b"")
    }

    /// The entry at `path` and all below it; only the nodes that can hold them are read.
    pub fn within(repository: &'r Repository, index: &'r Index, root: ChunkId, path: &[u8]) -> Self {
        Self {
            chunks: ChunkReader::new(repository, index),
            stack: Vec::new(),
            leaf: Vec::new().into_iter(),
            root: Some(root),
            entered: (Arc::from([]), Vec::new()),
            scope: path.to_vec(),
            buffer: Vec::new(),
            visited: None,
            nodes: 0,
        }
    }

    /// Keeps the ids of all nodes read; [`TreeReader::take_visited`] gives them.
    pub fn record_visited(mut self) -> Self {
        self.visited = Some(Vec::new());
        self
    }

    /// Ids of the nodes read since the last call.
    pub fn take_visited(&mut self) -> Vec<ChunkId> {
        self.visited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Where the node begins that was entered last: when it cannot be read, that is where the entries are missing.
    pub fn entered(&self) -> &(Arc<[u8]>, Vec<u8>) {
        &self.entered
    }

    /// Nodes read so far.
    pub fn nodes_read(&self) -> u64 {
        self.nodes
    }

    /// The next entry.
    #[allow(clippy::should_implement_trait, reason = "it can fail, and borrows")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            while let Some(entry) = self.leaf.next() {
                if self.in_scope(&entry) {
                    return Ok(Some(entry));
                }
            }
            if !self.next_leaf()? {
                return Ok(None);
            }
        }
    }

    /// The entry at exactly `path`.
    pub fn find(
        repository: &'r Repository,
        index: &'r Index,
        root: ChunkId,
        path: &[u8],
    ) -> Result<Option<Entry>> {
        let mut reader = Self::within(repository, index, root, path);
        while let Some(entry) = reader.next()? {
            if entry.path() == path {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }

    fn in_scope(&self, entry: &Entry) -> bool {
        self.scope.is_empty() || is_within(&entry.parent, &self.scope) || entry.path() == self.scope
    }

    /// Descends to the next leaf that can hold entries in scope.
    fn next_leaf(&mut self) -> Result<bool> {
        if let Some(root) = self.root.take() {
            return self.enter(root, u8::MAX);
        }
        while let Some((level, children)) = self.stack.last_mut() {
            let level = *level;
            match children.pop() {
                None => {
                    self.stack.pop();
                }
                // The range of a child ends where its next sibling begins.
                Some(child) => {
                    let next = children.last();
                    if may_hold(&self.scope, &child, next) {
                        self.entered = (child.parent, child.name);
                        return self.enter(child.id, level);
                    }
                }
            }
        }
        Ok(false)
    }

    fn enter(&mut self, id: ChunkId, above: u8) -> Result<bool> {
        match self.node(&id)? {
            Node::Leaf(entries) => {
                self.leaf = entries.into_iter();
                Ok(true)
            }
            Node::Inner { level, mut children } => {
                if level >= above {
                    // Levels fall on the way down: a node cannot contain itself.
                    let reason = "a child is not below its parent".to_owned();
                    return Err(Error::Damaged { what: format!("tree node {id}"), reason });
                }
                children.reverse();
                self.stack.push((level, children));
                Ok(true)
            }
        }
    }

    fn node(&mut self, id: &ChunkId) -> Result<Node> {
        self.nodes += 1;
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        if let Some(visited) = &mut self.visited {
            visited.push(*id);
        }
        Node::decode(&self.buffer).map_err(|e| not_understood("tree node", id, e))
    }

    /// All chunk references of a file's content, in order.
    pub fn content(&mut self, content: &Content) -> Result<Vec<ChunkRef>> {
        let mut out = Vec::new();
        match content {
            Content::Inline(refs) => out.extend(refs),
            Content::List(root) => self.list(root, u8::MAX, &mut out)?,
        }
        Ok(out)
    }

    fn list(&mut self, id: &ChunkId, above: u8, out: &mut Vec<ChunkRef>) -> Result<()> {
        let damaged = |reason: String| Error::Damaged { what: format!("list node {id}"), reason };
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        if let Some(visited) = &mut self.visited {
            visited.push(*id);
        }
        match ListNode::decode(&self.buffer).map_err(|e| not_understood("list node", id, e))? {
            ListNode::Leaf(refs) => out.extend(refs),
            ListNode::Inner { level, .. } if level >= above => {
                return Err(damaged("a child is not below its parent".to_owned()));
            }
            ListNode::Inner { level, children } => {
                for child in children {
                    let before = out.len();
                    self.list(&child.id, level, out)?;
                    if (out.len() - before) as u64 != child.refs {
                        return Err(damaged(
                            "a child holds another number of references than it says".to_owned(),
                        ));
                    }
                }
            }
        }
        Ok(())
    }

    /// A metadata block's bytes.
    pub fn block(&mut self, block: &Block) -> Result<Option<Vec<u8>>> {
        match block {
            Block::None => Ok(None),
            Block::Inline(b) => Ok(Some(b.clone())),
            Block::Chunk(c) => {
                self.chunks.read(ChunkKind::Meta, &c.id, &mut self.buffer)?;
                let fail = |e| not_understood("metadata block", &c.id, e);
                decode_block(&self.buffer).map(|b| Some(b.to_vec())).map_err(fail)
            }
        }
    }
}

/// The bytes are those that were stored, and say nothing this version knows: another kind of error than damage, so that
/// nobody takes a newer writer's nodes for lost.
fn not_understood(what: &str, id: &ChunkId, source: FormatError) -> Error {
    Error::Object { object: format!("{what} {id}"), source }
}

/// False only if no entry in the half-open key range of `child` is at or below `scope`.
fn may_hold(scope: &[u8], child: &Child, next: Option<&Child>) -> bool {
    if scope.is_empty() {
        return true;
    }
    // Below the scope: parents at or after it, contiguous. The entry itself: in its own parent, earlier.
    let (own_parent, own_name) = match scope.iter().rposition(|b| *b == b'/') {
        Some(at) => (scope.get(..at).unwrap_or_default(), scope.get(at + 1..).unwrap_or_default()),
        None => (&b""[..], scope),
    };
    let key = |parent: &[u8], name: &[u8], c: &Child| {
        compare_paths(parent, &c.parent).then_with(|| name.cmp(&c.name))
    };
    let entry = key(own_parent, own_name, child) != Ordering::Less
        && next.is_none_or(|n| key(own_parent, own_name, n) == Ordering::Less);
    let starts_before_end =
        is_within(&child.parent, scope) || compare_paths(&child.parent, scope) == Ordering::Less;
    let ends_after_start = next.is_none_or(|n| compare_paths(&n.parent, scope) != Ordering::Less);
    entry || (starts_before_end && ends_after_start)
}

/// A path as people read it: with a leading slash.
pub fn display_path(parent: &[u8], name: &[u8]) -> Vec<u8> {
    [b"/", join_path(parent, name).as_slice()].concat()
}
