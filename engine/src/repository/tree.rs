//! Streams the entries of a snapshot's tree in order, or one subtree of it, without loading the tree.

use super::Repository;
use super::chunks::{ChunkReader, Fetched};
use super::index::Index;
use crate::error::{Error, Result};
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::{
    Block, Child, ChunkRef, Content, Entry, Key, ListChild, ListNode, Node, compare_paths, decode_block,
    is_within, join_path,
};
use bulla_repo_format::{ChunkId, FormatError};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

/// An inner node on the way down.
struct Inner {
    level: u8,
    /// Children not visited yet, last first.
    children: Vec<Child>,
    /// All below it lies before this key.
    end: Option<Key>,
}

/// Entries in tree order. Every node is what its parent says, so no tree has more entries than its bytes spell.
pub struct TreeReader<'r> {
    chunks: ChunkReader<'r>,
    /// Inner nodes from the root down.
    stack: Vec<Inner>,
    leaf: std::vec::IntoIter<Entry>,
    root: Option<ChunkId>,
    /// The first key of the node entered last.
    entered: (Arc<[u8]>, Vec<u8>),
    /// Only this path and what is below it.
    scope: Vec<u8>,
    buffer: Vec<u8>,
    visited: Option<Vec<ChunkId>>,
    /// Leaves that need not be read again.
    skip: Option<HashSet<ChunkId>>,
    /// The node entered last.
    current: Option<ChunkId>,
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
            skip: None,
            current: None,
            nodes: 0,
        }
    }

    /// Keeps the ids of all nodes read; [`TreeReader::take_visited`] gives them.
    pub fn record_visited(mut self) -> Self {
        self.visited = Some(Vec::new());
        self
    }

    /// Leaves out what lies in these leaves; [`TreeReader::skipped`] gives the set back.
    pub(crate) fn skipping(mut self, leaves: HashSet<ChunkId>) -> Self {
        self.skip = Some(leaves);
        self
    }

    /// The leaves left out.
    pub(crate) fn skipped(self) -> HashSet<ChunkId> {
        self.skip.unwrap_or_default()
    }

    /// The leaf that the entries given now lie in.
    pub(crate) fn leaf(&self) -> Option<ChunkId> {
        self.current
    }

    /// Ids of the nodes read since the last call.
    pub fn take_visited(&mut self) -> Vec<ChunkId> {
        self.visited.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Where the node begins that was entered last: when it cannot be read, that is where the entries are missing.
    pub fn entered(&self) -> &(Arc<[u8]>, Vec<u8>) {
        &self.entered
    }

    /// What was asked of the store so far.
    pub fn fetched(&self) -> Fetched {
        self.chunks.fetched()
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
            let node = self.node(&root)?;
            self.enter(node, None);
            return Ok(true);
        }
        while let Some(inner) = self.stack.last_mut() {
            let Some(child) = inner.children.pop() else {
                self.stack.pop();
                continue;
            };
            if self.skip.as_ref().is_some_and(|skip| skip.contains(&child.id)) {
                continue;
            }
            // The range of a child ends where its next sibling begins.
            let next = inner.children.last();
            if may_hold(&self.scope, &child, next) {
                let end = next.map(Child::key).or_else(|| inner.end.clone());
                let level = inner.level;
                self.entered = (child.parent.clone(), child.name.clone());
                let node = self.node(&child.id)?;
                check_child(&node, level, &child, end.as_ref())?;
                self.enter(node, end);
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn enter(&mut self, node: Node, end: Option<Key>) {
        match node {
            Node::Leaf(entries) => self.leaf = entries.into_iter(),
            Node::Inner { level, mut children } => {
                children.reverse();
                self.stack.push(Inner { level, children, end });
            }
        }
    }

    fn node(&mut self, id: &ChunkId) -> Result<Node> {
        self.nodes += 1;
        self.current = Some(*id);
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        if let Some(visited) = &mut self.visited {
            visited.push(*id);
        }
        Node::decode(&self.buffer).map_err(|e| not_understood("tree node", id, e))
    }

    /// All chunk references of a file's content, in order.
    pub fn content(&mut self, content: &Content) -> Result<Vec<ChunkRef>> {
        let mut references = self.references(content)?;
        let mut out = Vec::new();
        while let Some(chunk) = references.next(self)? {
            out.push(chunk);
        }
        Ok(out)
    }

    /// A file's chunk references one after another. Its lists are read as it comes to them: few bytes of them can
    /// stand for more references than any memory holds.
    pub fn references(&mut self, content: &Content) -> Result<References> {
        match content {
            Content::Inline(refs) => {
                let sums = (refs.iter().map(|r| u64::from(r.len)).sum(), refs.len() as u64);
                Ok(References { sums, stack: Vec::new(), leaf: refs.clone().into_iter() })
            }
            Content::List(root) => {
                let node = self.list(root)?;
                let mut out =
                    References { sums: node.sums(), stack: Vec::new(), leaf: Vec::new().into_iter() };
                out.enter(node);
                Ok(out)
            }
        }
    }

    fn list(&mut self, id: &ChunkId) -> Result<ListNode> {
        self.chunks.read(ChunkKind::Meta, id, &mut self.buffer)?;
        if let Some(visited) = &mut self.visited {
            visited.push(*id);
        }
        ListNode::decode(&self.buffer).map_err(|e| not_understood("list node", id, e))
    }

    /// A metadata block's bytes.
    pub fn block(&mut self, block: &Block) -> Result<Option<Vec<u8>>> {
        match block {
            Block::None => Ok(None),
            Block::Inline(b) => Ok(Some(b.clone())),
            Block::Chunk(c) => {
                self.chunks.read_exactly(ChunkKind::Meta, c, &mut self.buffer)?;
                let fail = |e| not_understood("metadata block", &c.id, e);
                decode_block(&self.buffer).map(|b| Some(b.to_vec())).map_err(fail)
            }
        }
    }
}

/// The chunk references of one file.
pub struct References {
    /// Bytes and references in all, as the topmost list says; every list below is held to what is said of it.
    pub sums: (u64, u64),
    /// Inner lists from the root down: level, and children not visited yet, last first.
    stack: Vec<(u8, Vec<ListChild>)>,
    leaf: std::vec::IntoIter<ChunkRef>,
}

impl References {
    /// The next one; `tree` is the reader that gave this.
    pub fn next(&mut self, tree: &mut TreeReader<'_>) -> Result<Option<ChunkRef>> {
        loop {
            if let Some(chunk) = self.leaf.next() {
                return Ok(Some(chunk));
            }
            let Some((level, children)) = self.stack.last_mut() else { return Ok(None) };
            let level = *level;
            let Some(child) = children.pop() else {
                self.stack.pop();
                continue;
            };
            let node = tree.list(&child.id)?;
            check_list(&node, level, &child)?;
            self.enter(node);
        }
    }

    fn enter(&mut self, node: ListNode) {
        match node {
            ListNode::Leaf(refs) => self.leaf = refs.into_iter(),
            ListNode::Inner { level, mut children } => {
                children.reverse();
                self.stack.push((level, children));
            }
        }
    }
}

fn damaged(what: &str, id: &ChunkId, reason: String) -> Error {
    Error::Damaged { what: format!("{what} {id}"), reason }
}

/// Checks a node against what its parent, an inner node of `level`, says of it.
pub(crate) fn check_child(node: &Node, level: u8, child: &Child, end: Option<&Key>) -> Result<()> {
    let summary = node.summary();
    if summary.level >= level {
        // Levels fall on the way down: a node cannot contain itself.
        return Err(damaged("tree node", &child.id, "a child is not below its parent".to_owned()));
    }
    summary.check(child, end).map_err(|e| damaged("tree node", &child.id, e.to_string()))
}

/// The same for lists.
pub(crate) fn check_list(node: &ListNode, level: u8, child: &ListChild) -> Result<()> {
    if matches!(node, ListNode::Inner { level: own, .. } if *own >= level) {
        return Err(damaged("list node", &child.id, "a child is not below its parent".to_owned()));
    }
    if node.sums() == (child.bytes, child.refs) {
        return Ok(());
    }
    Err(damaged("list node", &child.id, "a child has other sums than its parent says".to_owned()))
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
