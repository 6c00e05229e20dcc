//! Tree nodes as SPEC 9 spells them, with nothing checked: what no writer would write can be written here.

use bulla_engine::format::ChunkId;
use bulla_engine::format::codec::Write;

/// What an entry type is in bytes.
pub const FILE: u8 = 1;
pub const DIRECTORY: u8 = 2;
pub const SYMLINK: u8 = 3;
pub const FIFO: u8 = 4;
pub const SOCKET: u8 = 5;
pub const CHARACTER: u8 = 6;
pub const BLOCK: u8 = 7;

/// A reference to a chunk: its id and the length it claims.
pub type Ref = (ChunkId, u64);

/// An entry without its key.
#[derive(Clone)]
pub struct Entry {
    pub ty: u8,
    pub flags: u64,
    pub mode: u64,
    pub owner: (u64, u64),
    /// mtime and ctime as they stand in the node.
    pub times: Vec<u8>,
    pub mount: u64,
    pub inode: u64,
    pub links: u64,
    pub xattrs: Vec<u8>,
    pub rest: Vec<u8>,
}

pub fn prefixed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_prefixed(bytes);
    out
}

pub fn varint(n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(n);
    out
}

pub fn reference((id, len): &Ref) -> Vec<u8> {
    [id.as_bytes(), &varint(*len)[..]].concat()
}

fn entry(ty: u8, mode: u64, rest: Vec<u8>) -> Entry {
    let me = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry {
        ty,
        flags: 0,
        mode,
        owner: (me.0.into(), me.1.into()),
        // mtime 5 s 7 ns, ctime the same second
        times: vec![10, 7, 0, 8],
        mount: 0,
        inode: 9,
        links: 1,
        xattrs: Vec::new(),
        rest,
    }
}

/// A file of these chunks that says it has `size` bytes.
pub fn file(size: u64, refs: &[Ref]) -> Entry {
    let each = refs.iter().flat_map(reference).collect();
    entry(FILE, 0o644, [varint(size), varint(refs.len() as u64), each].concat())
}

/// A file whose content is a list tree.
pub fn listed(size: u64, root: ChunkId) -> Entry {
    let mut e = entry(FILE, 0o644, [&varint(size)[..], root.as_bytes()].concat());
    e.flags = 1024;
    e
}

/// A file with a holes block inside, as spelled.
pub fn holed(size: u64, holes: &[u8], refs: &[Ref]) -> Entry {
    let rest: Vec<u8> = refs.iter().flat_map(reference).collect();
    let mut e = entry(FILE, 0o644, [varint(size), prefixed(holes), varint(refs.len() as u64), rest].concat());
    e.flags = 256;
    e
}

pub fn dir() -> Entry {
    entry(DIRECTORY, 0o755, Vec::new())
}

pub fn symlink(target: &[u8]) -> Entry {
    entry(SYMLINK, 0o777, prefixed(target))
}

/// A FIFO, socket or device.
pub fn node(ty: u8) -> Entry {
    let device = ty == CHARACTER || ty == BLOCK;
    entry(ty, 0o666, if device { vec![1, 3] } else { Vec::new() })
}

impl Entry {
    pub fn mode(mut self, mode: u64) -> Self {
        self.mode = mode;
        self
    }
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }
    pub fn times(mut self, times: Vec<u8>) -> Self {
        self.times = times;
        self
    }
    pub fn flags(mut self, flags: u64) -> Self {
        self.flags |= flags;
        self
    }
    /// A member of the hard-link group of this inode.
    pub fn linked(mut self, inode: u64, links: u64) -> Self {
        (self.inode, self.links) = (inode, links);
        self.flags |= 8;
        self
    }
    /// Extended attributes inside the entry, as spelled.
    pub fn xattrs(mut self, block: &[u8]) -> Self {
        self.flags |= 64;
        self.xattrs = prefixed(block);
        self
    }
    /// Extended attributes in a block of their own.
    pub fn xattr_block(mut self, block: &Ref) -> Self {
        self.flags |= 128;
        self.xattrs = reference(block);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = vec![self.ty];
        for n in [self.flags, self.mode, self.owner.0, self.owner.1] {
            out.put_varint(n);
        }
        out.put(&self.times);
        out.put_varint(self.mount);
        out.put_varint(self.inode);
        if self.flags & 8 != 0 {
            out.put_varint(self.links);
        }
        out.put(&self.xattrs);
        out.put(&self.rest);
        out
    }
}

/// One extended attribute after another, spelled without looking.
pub fn attributes(list: &[(&[u8], &[u8])]) -> Vec<u8> {
    let each = list.iter().flat_map(|(name, value)| [prefixed(name), prefixed(value)].concat());
    varint(list.len() as u64).into_iter().chain(each).collect()
}

/// A key, its parent path compressed against `before`.
pub fn key(before: &[u8], parent: &[u8], name: &[u8]) -> Vec<u8> {
    let shared = before.iter().zip(parent).take_while(|(a, b)| a == b).count();
    [varint(shared as u64), prefixed(&parent[shared..]), prefixed(name)].concat()
}

/// An item of a leaf: parent path, name, entry.
pub type Item<'a> = (&'a [u8], &'a [u8], Entry);

/// A leaf of these entries in the order given.
pub fn leaf(items: &[Item<'_>]) -> Vec<u8> {
    let mut out = vec![1];
    out.put_varint(items.len() as u64);
    let mut before: &[u8] = b"";
    for (parent, name, entry) in items {
        out.put(&key(before, parent, name));
        out.put(&entry.bytes());
        before = parent;
    }
    out
}

/// A child of an inner node: first key, id, entries and bytes it claims.
#[derive(Clone)]
pub struct Child {
    pub parent: Vec<u8>,
    pub name: Vec<u8>,
    pub id: ChunkId,
    pub entries: u64,
    pub bytes: u64,
}

pub fn child(name: &str, id: ChunkId, entries: u64, bytes: u64) -> Child {
    Child { parent: Vec::new(), name: name.as_bytes().to_vec(), id, entries, bytes }
}

/// An inner node of these children in the order given.
pub fn inner(level: u8, children: &[Child]) -> Vec<u8> {
    let mut out = vec![2, level];
    out.put_varint(children.len() as u64);
    let mut before: &[u8] = b"";
    for c in children {
        out.put(&key(before, &c.parent, &c.name));
        out.put(c.id.as_bytes());
        out.put_varint(c.entries);
        out.put_varint(c.bytes);
        before = &c.parent;
    }
    out
}

/// A list leaf.
pub fn list(refs: &[Ref]) -> Vec<u8> {
    let mut out = vec![3];
    out.put_varint(refs.len() as u64);
    refs.iter().for_each(|r| out.put(&reference(r)));
    out
}

/// An inner list node: id, bytes and references of each child.
pub fn lists(level: u8, children: &[(ChunkId, u64, u64)]) -> Vec<u8> {
    let mut out = vec![4, level];
    out.put_varint(children.len() as u64);
    for (id, bytes, refs) in children {
        out.put(id.as_bytes());
        out.put_varint(*bytes);
        out.put_varint(*refs);
    }
    out
}
