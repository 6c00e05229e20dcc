//! Cases of tree nodes, lists and blocks, spelled byte by byte from SPEC 9.

use crate::file::Vector;
use crate::keys::keyring;
use bulla_repo_format::codec::Write;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::tree::*;
use bulla_repo_format::{ChunkId, Result};
use std::sync::Arc;

pub(crate) fn cases() -> Vec<Vector> {
    [leaves(), keys(), entries(), files(), inner(), lists(), blocks()].concat()
}

fn no(object: &str, rule: &str, case: &str, note: &str, bytes: Vec<u8>) -> Vector {
    Vector::reject(object, rule, case, note, bytes)
}

/// An entry without its key: type, flags, and what follows the fields all entries have.
fn body(ty: u8, flags: u64, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![ty];
    out.put_varint(flags);
    out.put_varint(0o644);
    out.put_varint(1000);
    out.put_varint(100);
    // mtime 5 s 7 ns, ctime the same second, mount 0, inode 9
    out.put(&[10, 7, 0, 8, 0, 9]);
    out.put(rest);
    out
}

fn key(shared: u64, rest: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(shared);
    out.put_prefixed(rest);
    out.put_prefixed(name);
    out
}

fn leaf(items: &[Vec<u8>]) -> Vec<u8> {
    let mut out = vec![1];
    out.put_varint(items.len() as u64);
    items.iter().for_each(|i| out.put(i));
    out
}

/// A leaf of one entry at the top called `a`.
fn one(body: Vec<u8>) -> Vec<u8> {
    leaf(&[[key(0, b"", b"a"), body].concat()])
}

fn dir() -> Vec<u8> {
    body(2, 0, &[])
}

fn reference(len: u64) -> Vec<u8> {
    let mut out = vec![0xf1; 32];
    out.put_varint(len);
    out
}

fn entry(path: &str, kind: EntryKind) -> Entry {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    Entry {
        parent: Arc::from(parent.as_bytes()),
        name: name.as_bytes().to_vec(),
        kind,
        mode: 0o7755,
        uid: u32::MAX,
        gid: 100,
        mtime: Timestamp { seconds: -5, nanos: 999_999_999 },
        ctime: Timestamp { seconds: i64::MAX, nanos: 1 },
        btime: Some(Timestamp { seconds: i64::MIN, nanos: 0 }),
        atime: Some(Timestamp { seconds: 1, nanos: 2 }),
        mount: 3,
        inode: u64::MAX,
        links: 2,
        xattrs: Block::Inline(encode_xattrs(&mut [Xattr { name: b"user.a".to_vec(), value: vec![0, 255] }])),
        flags: EntryFlags { changed_during_read: false, read_error: false, implied: true },
    }
}

fn every_type() -> Vec<u8> {
    let chunk = |len| ChunkRef { id: ChunkId::new([0xf2; 32]), len };
    let holes = Block::Inline(encode_holes(&[Hole { offset: 0, len: 50 }, Hole { offset: 60, len: 1 }]));
    let file = |size, holes, content| EntryKind::File { size, holes, content };
    let kinds = [
        ("a", EntryKind::Directory),
        ("b", EntryKind::Fifo),
        ("c", EntryKind::Socket),
        ("d", EntryKind::CharDevice { major: 1, minor: 3 }),
        ("e", EntryKind::BlockDevice { major: 8, minor: u32::MAX }),
        ("f", EntryKind::Symlink { target: b"../\xff".to_vec() }),
        ("a/g", file(161, holes, Content::Inline(vec![chunk(90), chunk(20)]))),
        ("a/h", file(1 << 40, Block::Chunk(chunk(9)), Content::List(ChunkId::new([0xf3; 32])))),
        ("a/ü", file(0, Block::None, Content::Inline(vec![]))),
        ("a-b/i", file(0, Block::None, Content::Inline(vec![]))),
    ];
    let ring = keyring();
    let mut builder = TreeBuilder::new(ring.split_key(0).unwrap(), ring.id_key(0, ChunkKind::Meta).unwrap());
    let mut nodes = Vec::new();
    let mut sink = |_, node| -> Result<()> {
        nodes.push(node);
        Ok(())
    };
    kinds.into_iter().for_each(|(path, kind)| builder.push(&entry(path, kind), &mut sink).unwrap());
    builder.finish(&mut sink).unwrap();
    nodes.remove(0)
}

fn leaves() -> Vec<Vector> {
    let mut trailing = one(dir());
    trailing.push(0);
    vec![
        Vector::ok("tree-node", "empty", "the empty tree", [1, 0]),
        Vector::ok("tree-node", "types", "an entry of each type", every_type()),
        Vector::ok("tree-node", "plain", "a directory with few fields", one(dir())),
        no("tree-node", "R-TREE-1", "list", "a list node", vec![3, 0]),
        no("tree-node", "R-TREE-1", "long", "more than 1 MiB", vec![1; (1 << 20) + 1]).shortened(),
        no("tree-node", "R-TREE-6", "count", "two entries, one there", {
            let mut b = one(dir());
            b[1] = 2;
            b
        }),
        no("tree-node", "R-INT-4", "trailing", "a byte behind the last entry", trailing),
    ]
}

trait Shorten {
    fn shortened(self) -> Self;
}

impl Shorten for Vector {
    /// A megabyte of text proves nothing a header could not say: the decoder repeats the one byte.
    fn shortened(mut self) -> Self {
        self.with.push(("repeat".into(), self.bytes.len().to_string()));
        self.bytes.truncate(1);
        self
    }
}

/// Directories in one of 21 KiB: a few bytes each, thanks to the prefix.
fn long_paths() -> Vec<u8> {
    let deep = [b"d/".repeat(10_600), b"e".to_vec()].concat();
    // One byte each behind the prefix, so that every path shares exactly it.
    let bytes = (b'0'..=255).filter(|b| *b != b'/');
    let items = bytes.enumerate().map(|(n, byte)| {
        let shared = if n == 0 { 0 } else { deep.len() };
        let path = [&deep[..], &[byte]].concat();
        [key(shared as u64, &path[shared..], b"x"), dir()].concat()
    });
    leaf(&items.collect::<Vec<_>>())
}

fn keys() -> Vec<Vector> {
    let pair = |second: Vec<u8>| leaf(&[[key(0, b"dir", b"b"), dir()].concat(), [second, dir()].concat()]);
    let lone = |rest: &[u8], name: &[u8]| leaf(&[[key(0, rest, name), dir()].concat()]);
    let case = |rule: &str, case: &str, note: &str, bytes| no("tree-node", rule, case, note, bytes);
    vec![
        Vector::ok("tree-node", "order", "dir before dir/sub before dir-a", {
            let third = [key(3, b"-a", b"x"), dir()].concat();
            leaf(&[[key(0, b"dir", b"z"), dir()].concat(), [key(3, b"/sub", b"a"), dir()].concat(), third])
        }),
        case("R-TREE-2", "twice", "a key twice", pair(key(3, b"", b"b"))),
        case("R-TREE-2", "names", "names descending", pair(key(3, b"", b"a"))),
        case("R-TREE-2", "parents", "dir-a before dir/sub", {
            let second = [key(3, b"/sub", b"a"), dir()].concat();
            leaf(&[[key(0, b"dir-a", b"x"), dir()].concat(), second])
        }),
        case("R-TREE-8", "paths", "paths of more than 4 MiB and 128 KiB", long_paths()),
        case("R-TREE-3", "more", "shares 4 of 3 bytes", pair(key(4, b"", b"c"))),
        case("R-TREE-3", "fewer", "shares 2 of 3 equal bytes", pair(key(2, b"r", b"c"))),
        case("R-TREE-4", "empty", "an empty name", lone(b"", b"")),
        case("R-TREE-4", "dot", "the name .", lone(b"", b".")),
        case("R-TREE-4", "dotdot", "the name ..", lone(b"", b"..")),
        case("R-TREE-4", "slash", "a name with a slash", lone(b"", b"a/b")),
        case("R-TREE-4", "nul", "a name with a NUL", lone(b"", b"a\0")),
        case("R-TREE-4", "long", "a name of 4097 bytes", lone(b"", &[b'n'; 4097])),
        case("R-TREE-4", "parent-dotdot", "a parent with ..", lone(b"a/../b", b"c")),
        case("R-TREE-4", "parent-slash", "a parent with a leading slash", lone(b"/a", b"c")),
        case("R-TREE-4", "parent-double", "a parent with two slashes", lone(b"a//b", b"c")),
    ]
}

fn entries() -> Vec<Vector> {
    let case = |rule: &str, case: &str, note: &str, bytes| no("tree-node", rule, case, note, one(bytes));
    let link = |target: &[u8]| {
        let mut rest = Vec::new();
        rest.put_prefixed(target);
        body(3, 0, &rest)
    };
    let mut mode = dir();
    mode.splice(2..4, [0x80, 0x20]);
    let mut nanos = dir();
    nanos.splice(8..9, [0x80, 0x94, 0xeb, 0xdc, 0x03]);
    let block = |len: usize| {
        let mut rest = Vec::new();
        rest.put_prefixed(&vec![1; len]);
        rest
    };
    vec![
        case("R-ENTRY-1", "zero", "type 0", body(0, 0, &[])),
        case("R-ENTRY-1", "eight", "type 8", body(8, 0, &[])),
        case("R-ENTRY-2", "unknown", "flag 2048", body(2, 2048, &[])),
        case("R-ENTRY-2", "fifo-changed", "a FIFO that changed while it was read", body(4, 1, &[])),
        case("R-ENTRY-2", "directory-list", "a directory with a list", body(2, 1024, &[])),
        case("R-ENTRY-2", "directory-holes", "a directory with holes", body(2, 256, &[])),
        case("R-ENTRY-2", "both", "attributes both inside and outside", body(2, 64 | 128, &[])),
        case("R-ENTRY-3", "mode", "mode 10000", mode),
        case("R-ENTRY-4", "nanos", "10^9 nanoseconds", nanos),
        case("R-ENTRY-5", "one", "a link count of 1 spelled out", body(2, 8, &[1])),
        case("R-ENTRY-6", "block", "an inner block of 4097 bytes", body(2, 64, &block(4097))),
        case("R-ENTRY-7", "nul", "a NUL in a target", link(b"a\0b")),
        case("R-ENTRY-7", "long", "a target of 16 KiB and 1", link(&[b't'; (16 << 10) + 1])),
        case("R-XATTR-1", "inner", "an inner block of no attributes", body(2, 64, &[1, 0])),
    ]
}

/// A file: size, holes block, number of references and the references.
fn file(flags: u64, size: u64, holes: &[u8], lens: &[u64]) -> Vec<u8> {
    let mut rest = Vec::new();
    rest.put_varint(size);
    rest.put(holes);
    rest.put_varint(lens.len() as u64);
    lens.iter().for_each(|l| rest.put(&reference(*l)));
    one(body(1, flags, &rest))
}

fn files() -> Vec<Vector> {
    let case = |rule: &str, case: &str, note: &str, bytes| no("tree-node", rule, case, note, bytes);
    // One hole of 5 bytes at 0, as an inner block.
    let hole = [3, 1, 0, 5];
    vec![
        Vector::ok("tree-node", "holes", "5 bytes of hole, 7 of content", file(256, 12, &hole, &[3, 4])),
        Vector::ok("tree-node", "read-error", "a file that could not be read", file(2, 12, &[], &[])),
        case("R-ENTRY-6", "references", "17 references", file(0, 17, &[], &[1; 17])),
        case("R-ENTRY-8", "sum", "one byte missing", file(0, 12, &[], &[11])),
        case("R-ENTRY-8", "holes", "holes not counted", file(256, 12, &hole, &[12])),
        case("R-ENTRY-9", "content", "content in spite of a read error", file(2, 12, &[], &[12])),
        case("R-ENTRY-10", "empty", "a reference of length 0", file(0, 0, &[], &[0])),
        case("R-ENTRY-10", "long", "a reference above 8 MiB", file(0, (8 << 20) + 1, &[], &[(8 << 20) + 1])),
        case("R-HOLE-1", "beyond", "a hole beyond the file", file(256, 4, &hole, &[])),
        case("R-HOLE-1", "unread", "the same in a file that could not be read", file(256 | 2, 4, &hole, &[])),
    ]
}

fn inner() -> Vec<Vector> {
    let child = |shared: u64, rest: &[u8], name: &[u8], entries: u64| {
        let mut out = key(shared, rest, name);
        out.put(&[0xf4; 32]);
        out.put_varint(entries);
        out.put_varint(99);
        out
    };
    let node = |level: u8, children: &[Vec<u8>]| {
        let mut out = vec![2, level];
        out.put_varint(children.len() as u64);
        children.iter().for_each(|c| out.put(c));
        out
    };
    let good = [child(0, b"", b"a", 3), child(0, b"a", b"b", 1)];
    let case = |rule: &str, case: &str, note: &str, bytes| no("tree-node", rule, case, note, bytes);
    vec![
        Vector::ok("tree-node", "inner", "two children", node(1, &good)),
        case(
            "R-TREE-2",
            "inner",
            "children descending",
            node(1, &[child(0, b"", b"b", 1), child(0, b"", b"a", 1)]),
        ),
        case("R-TREE-5", "level-0", "level 0", node(0, &good)),
        case("R-TREE-5", "level-17", "level 17", node(17, &good)),
        case("R-TREE-5", "only", "one child", node(1, &good[..1])),
        case(
            "R-TREE-5",
            "empty",
            "a child of no entries",
            node(1, &[child(0, b"", b"a", 0), good[1].clone()]),
        ),
        case("R-TREE-6", "inner", "three children, two there", {
            let mut b = node(1, &good);
            b[2] = 3;
            b
        }),
    ]
}

fn lists() -> Vec<Vector> {
    let list = |head: &[u8], count: u64, items: &[Vec<u8>]| {
        let mut out = head.to_vec();
        out.put_varint(count);
        items.iter().for_each(|i| out.put(i));
        out
    };
    let child = |bytes: u64, refs: u64| {
        let mut out = vec![0xf5; 32];
        out.put_varint(bytes);
        out.put_varint(refs);
        out
    };
    let case = |rule: &str, case: &str, note: &str, bytes| no("list-node", rule, case, note, bytes);
    let two = [child(9, 2), child(5, 5)];
    vec![
        Vector::ok("list-node", "leaf", "two references", list(&[3], 2, &[reference(1), reference(8 << 20)])),
        Vector::ok("list-node", "inner", "two children", list(&[4, 1], 2, &two)),
        case("R-LIST-1", "leaf", "a tree leaf", vec![1, 0]),
        case("R-LIST-1", "level-0", "level 0", list(&[4, 0], 2, &two)),
        case("R-LIST-1", "level-9", "level 9", list(&[4, 9], 2, &two)),
        case("R-LIST-2", "none", "no reference", list(&[3], 0, &[])),
        case("R-LIST-2", "many", "1025 references", list(&[3], 1025, &vec![reference(1); 1025])),
        case("R-LIST-2", "only", "one child", list(&[4, 1], 1, &two[..1])),
        case(
            "R-LIST-2",
            "missing",
            "three references, two there",
            list(&[3], 3, &[reference(1), reference(1)]),
        ),
        case("R-LIST-3", "empty", "a child of no references", list(&[4, 1], 2, &[child(0, 0), child(1, 1)])),
        case(
            "R-LIST-3",
            "thin",
            "fewer bytes than references",
            list(&[4, 1], 2, &[child(1, 2), child(1, 1)]),
        ),
        case("R-ENTRY-10", "list", "a reference of length 0", list(&[3], 1, &[reference(0)])),
    ]
}

fn blocks() -> Vec<Vector> {
    let xattr =
        |rule: &str, case: &str, note: &str, bytes: &[u8]| no("xattrs", rule, case, note, bytes.to_vec());
    let holes = |bytes: &[u8], case: &str, note: &str| {
        Vector::reject("holes", "R-HOLE-1", case, note, bytes).with("size", 100)
    };
    vec![
        Vector::ok("block", "one", "a block's chunk", [5, 1, 2]),
        no("block", "R-BLOCK-1", "leaf", "a leaf", vec![1, 0]),
        no("block", "R-BLOCK-1", "long", "more than 1 MiB", vec![5; (1 << 20) + 1]).shortened(),
        Vector::ok("xattrs", "two", "two attributes", b"\x02\x06user.a\x01x\x06user.b\x00"),
        xattr("R-XATTR-1", "none", "no attribute", &[0]),
        xattr("R-XATTR-1", "order", "names descending", b"\x02\x01b\x00\x01a\x00"),
        xattr("R-XATTR-1", "empty", "an empty name", b"\x01\x00\x00"),
        xattr("R-XATTR-1", "nul", "a NUL in a name", b"\x01\x02a\x00\x00"),
        xattr("R-XATTR-1", "long", "a name of 256 bytes", &[&[1, 0x80, 2][..], &[b'n'; 256], &[0]].concat()),
        Vector::ok("holes", "two", "at 0 and at 10, up to the end", [2, 0, 5, 5, 90]).with("size", 100),
        holes(&[0], "none", "no hole"),
        holes(&[1, 0, 0], "empty", "an empty hole"),
        holes(&[2, 0, 5, 0, 5], "touch", "two that touch"),
        holes(&[1, 50, 51], "past-end", "beyond the file"),
    ]
}
