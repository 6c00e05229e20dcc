//! Builds the tree from entries in order: a pure function, so equal entries give equal nodes (SPEC 9.3).

use super::entry::{Entry, compare_key, put_key};
use super::node::{INNER, LEAF};
use crate::codec::Write;
use crate::error::{FormatError, ensure};
use crate::id::ChunkId;
use crate::keys::{IdKey, Secret};
use crate::limits::{NODE_PATHS_SPLIT, NODE_SPLIT_MAX, NODE_SPLIT_MEAN, NODE_SPLIT_MIN};
use std::cmp::Ordering;
use std::sync::Arc;

#[derive(Clone)]
struct Key {
    parent: Arc<[u8]>,
    name: Vec<u8>,
}

/// A key where it lies.
#[derive(Clone, Copy)]
struct KeyRef<'k> {
    parent: &'k Arc<[u8]>,
    name: &'k [u8],
}

impl Key {
    fn view(&self) -> KeyRef<'_> {
        KeyRef { parent: &self.parent, name: &self.name }
    }
}

impl KeyRef<'_> {
    fn to_key(self) -> Key {
        Key { parent: self.parent.clone(), name: self.name.to_vec() }
    }

    /// Overwrites `key` where it lies: a key per entry would be an allocation per entry.
    fn store(self, key: &mut Key) {
        if !Arc::ptr_eq(&key.parent, self.parent) {
            key.parent = self.parent.clone();
        }
        key.name.clear();
        key.name.extend_from_slice(self.name);
    }
}

/// Keys of a node under construction.
#[derive(Clone)]
struct Keys {
    /// Of the first and the last entry below it.
    first: Key,
    last: Key,
    /// The key written last, for prefix compression.
    written: Key,
}

/// A finished node, as its parent will list it. `last` is the key of the last entry below it.
#[derive(Clone)]
struct Done {
    id: ChunkId,
    first: Key,
    last: Key,
    entries: u64,
    bytes: u64,
}

/// A node under construction: a leaf at level 0, an inner node above.
#[derive(Default, Clone)]
struct Level {
    body: Vec<u8>,
    count: u64,
    entries: u64,
    bytes: u64,
    /// Bytes of the parent paths written, each where it is not that of the key before.
    paths: usize,
    /// None while it is empty.
    keys: Option<Keys>,
    /// The only child so far, which is passed up as it is if no second one comes.
    only: Option<Done>,
}

/// Receives each finished node: its id and plaintext.
type NodeSink<'s, E> = &'s mut dyn FnMut(ChunkId, Vec<u8>) -> Result<(), E>;

/// The result of a build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuiltTree {
    /// The root node.
    pub root: ChunkId,
    /// Entries in the tree.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Takes entries in order, gives nodes.
pub struct TreeBuilder {
    split: Secret,
    id: IdKey,
    levels: Vec<Level>,
    last: Option<Key>,
    scratch: Vec<u8>,
}

impl TreeBuilder {
    /// A builder with the domain's split key and metadata id key.
    pub fn new(split: Secret, id: IdKey) -> Self {
        Self { split, id, levels: vec![Level::default()], last: None, scratch: Vec::new() }
    }

    /// The key by which nodes are identified; list nodes and blocks use the same.
    pub fn id_key(&self) -> &IdKey {
        &self.id
    }

    /// Appends an entry, which must sort after the last one.
    pub fn push<E: From<FormatError>>(&mut self, entry: &Entry, sink: NodeSink<'_, E>) -> Result<(), E> {
        let key = KeyRef { parent: &entry.parent, name: &entry.name };
        match &mut self.last {
            Some(last) => {
                let order = compare_key((&last.parent, &last.name), (key.parent, key.name));
                ensure(order == Ordering::Less, "tree", "entries are not in order")?;
                key.store(last);
            }
            None => self.last = Some(key.to_key()),
        }
        let mut full = self.append(0, key, key, (1, entry.size()), |body| entry.put_body(body));
        let mut level = 0;
        while full {
            let Some(child) = self.close(level, sink)? else { break };
            level += 1;
            full = self.add_child(level, child);
        }
        Ok(())
    }

    /// The tree of the entries so far; the build goes on.
    pub fn so_far<E: From<FormatError>>(&mut self, sink: NodeSink<'_, E>) -> Result<BuiltTree, E> {
        let levels = self.levels.clone();
        let built = self.end(sink);
        self.levels = levels;
        built
    }

    /// Ends the build. An empty tree is one empty leaf.
    pub fn finish<E: From<FormatError>>(mut self, sink: NodeSink<'_, E>) -> Result<BuiltTree, E> {
        self.end(sink)
    }

    fn end<E: From<FormatError>>(&mut self, sink: NodeSink<'_, E>) -> Result<BuiltTree, E> {
        if self.last.is_none() {
            let node = vec![LEAF, 0];
            let root = self.id.identify(&node);
            sink(root, node)?;
            return Ok(BuiltTree { root, entries: 0, bytes: 0 });
        }
        let mut level = 0;
        let mut carry: Option<Done> = None;
        loop {
            if let Some(child) = carry.take() {
                if self.levels.iter().skip(level).all(|l| l.count == 0) {
                    return Ok(BuiltTree { root: child.id, entries: child.entries, bytes: child.bytes });
                }
                self.add_child(level, child);
            }
            carry = self.close(level, sink)?;
            level += 1;
        }
    }

    /// Adds what `put` writes under `key` and whose last entry is `last`, with its sums of entries and bytes; true when the
    /// node ends there. State resets at each boundary: the first key of a node is written whole.
    fn append(
        &mut self,
        level: usize,
        key: KeyRef<'_>,
        last: KeyRef<'_>,
        (entries, bytes): (u64, u64),
        put: impl FnOnce(&mut Vec<u8>),
    ) -> bool {
        let hash = self.split_hash(level, last);
        let Some(l) = self.levels.get_mut(level) else { return false };
        let before = l.body.len();
        let written: &[u8] = l.keys.as_ref().map_or(&[], |k| &k.written.parent);
        let same = l.keys.is_some() && *written == **key.parent;
        put_key(&mut l.body, written, key.parent, key.name);
        put(&mut l.body);
        l.count += 1;
        l.entries += entries;
        l.bytes = l.bytes.saturating_add(bytes);
        l.paths += if same { 0 } else { key.parent.len() };
        match &mut l.keys {
            Some(keys) => {
                last.store(&mut keys.last);
                key.store(&mut keys.written);
            }
            None => l.keys = Some(Keys { first: key.to_key(), last: last.to_key(), written: key.to_key() }),
        }
        let size = l.body.len();
        // hash < len * 2^64 / mean, without the division
        let drawn = u128::from(hash) * u128::from(NODE_SPLIT_MEAN) < ((size - before) as u128) << 64;
        (size >= NODE_SPLIT_MIN && drawn) || size >= NODE_SPLIT_MAX || l.paths >= NODE_PATHS_SPLIT
    }

    /// In one piece, because the parts of most keys together are one block of the hash.
    fn split_hash(&mut self, level: usize, key: KeyRef<'_>) -> u64 {
        self.scratch.clear();
        self.scratch.put_u8(u8::try_from(level).unwrap_or(u8::MAX));
        self.scratch.put(key.parent);
        self.scratch.put_u8(b'/');
        self.scratch.put(key.name);
        let [a, b, c, d, e, f, g, i, ..] = *blake3::keyed_hash(self.split.expose(), &self.scratch).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, i])
    }

    fn add_child(&mut self, level: usize, child: Done) -> bool {
        while self.levels.len() <= level {
            self.levels.push(Level::default());
        }
        let (first, last, sums) = (child.first.view(), child.last.view(), (child.entries, child.bytes));
        let full = self.append(level, first, last, sums, |body| {
            body.put(child.id.as_bytes());
            body.put_varint(child.entries);
            body.put_varint(child.bytes);
        });
        if let Some(l) = self.levels.get_mut(level) {
            l.only = if l.count == 1 { Some(child) } else { None };
        }
        full
    }

    /// Ends the node of a level and emits it; an only child is passed up as it is.
    fn close<E: From<FormatError>>(
        &mut self,
        level: usize,
        sink: NodeSink<'_, E>,
    ) -> Result<Option<Done>, E> {
        let Some(l) = self.levels.get_mut(level).map(std::mem::take) else { return Ok(None) };
        if l.only.is_some() {
            return Ok(l.only);
        }
        let Some(Keys { first, last, .. }) = l.keys else { return Ok(None) };
        let mut node = Vec::with_capacity(l.body.len() + 12);
        if level == 0 {
            node.put_u8(LEAF);
        } else {
            node.put(&[INNER, u8::try_from(level).unwrap_or(u8::MAX)]);
        }
        node.put_varint(l.count);
        node.put(&l.body);
        let id = self.id.identify(&node);
        sink(id, node)?;
        Ok(Some(Done { id, first, last, entries: l.entries, bytes: l.bytes }))
    }
}
