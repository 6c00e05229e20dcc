//! Trees of nodes that lie about each other, repeat each other, or are something else.

use crate::forge::Forge;
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::{self, Child, child, dir, file, inner, leaf};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::tree::{self, TreeBuilder};
use bulla_engine::format::{ChunkId, FormatError};

/// A leaf of the one empty file `name`.
fn empty(f: &mut Forge, name: &[u8]) -> ChunkId {
    f.meta(&leaf(&[(b"", name, file(0, &[]))]))
}

/// A leaf of one file of seven bytes.
fn seven(f: &mut Forge, name: &[u8]) -> ChunkId {
    let entry = f.file(b"content");
    f.meta(&leaf(&[(b"", name, entry)]))
}

/// An inner node over two sound leaves `a` and `m`, as `twist` leaves its children.
fn two(f: &mut Forge, level: u8, twist: impl FnOnce(&mut Vec<Child>)) {
    let (a, m) = (seven(f, b"a"), seven(f, b"m"));
    let mut children = vec![child("a", a, 1, 7), child("m", m, 1, 7)];
    twist(&mut children);
    f.root(&inner(level, &children));
}

fn sound(home: &Home) {
    assert_eq!((home.read("out/a"), home.read("out/m")), (b"content".to_vec(), b"content".to_vec()));
}

pub fn cases() -> Vec<Case> {
    [lies(), repeats(), kinds(), counts(), deep()].into_iter().flatten().collect()
}

/// SPEC 9.2, R-TREE-7.
fn lies() -> Vec<Case> {
    vec![
        harmless("two leaves as they should be", |f| two(f, 1, |_| {})).after(sound),
        harmless("a level too high", |f| two(f, 16, |_| {})).after(sound),
        damaged("a child with fewer entries than it has", |f| two(f, 1, |c| c[0].entries = 2)),
        damaged("a child with 2^64 - 1 entries", |f| two(f, 1, |c| c[0].entries = u64::MAX)),
        damaged("a child with more bytes than it has", |f| two(f, 1, |c| c[1].bytes = 8)),
        damaged("a child with 2^64 - 1 bytes", |f| two(f, 1, |c| c[1].bytes = u64::MAX)),
        damaged("a child that begins elsewhere", |f| two(f, 1, |c| c[1].name = b"b".to_vec())),
        damaged("a child that reaches into the next", |f| {
            let entry = f.file(b"content");
            let wide = f.meta(&leaf(&[(b"", b"a", entry.clone()), (b"", b"z", entry)]));
            let m = seven(f, b"m");
            f.root(&inner(1, &[child("a", wide, 2, 14), child("m", m, 1, 7)]));
        }),
        damaged("children that are one leaf", |f| two(f, 1, |c| c[1].id = c[0].id)),
        damaged("a child that is no node", |f| two(f, 1, |c| c[1].id = ChunkId::new([3; 32]))),
        damaged("a child of the level of its parent", |f| {
            let (a, m) = (seven(f, b"a"), seven(f, b"m"));
            let below = f.meta(&inner(1, &[child("a", a, 1, 7), child("m", m, 1, 7)]));
            let z = seven(f, b"z");
            f.root(&inner(1, &[child("a", below, 2, 14), child("z", z, 1, 7)]));
        }),
        damaged("a child without entries", |f| two(f, 1, |c| c[1].entries = 0)),
        damaged("an only child", |f| two(f, 1, |c| c.truncate(1))),
        damaged("an inner node of level 0", |f| two(f, 0, |_| {})),
        damaged("an inner node of level 17", |f| two(f, 17, |_| {})),
        damaged("children in the wrong order", |f| two(f, 1, |c| c.reverse())),
        damaged("a child called by two dots", |f| two(f, 1, |c| c[0].name = b"..".to_vec())),
    ]
}

/// Nodes that stand in many places: few bytes that would be a tree of 2^64 entries.
fn tower(f: &mut Forge, bottom: ChunkId, width: usize, levels: u8) {
    let (mut id, mut entries) = (bottom, 1u64);
    for level in 1..=levels {
        let names: Vec<String> = (0..width).map(|n| format!("a{n:05}")).collect();
        let children: Vec<Child> = names.iter().map(|n| child(n, id, entries, 0)).collect();
        entries = entries.saturating_mul(width as u64);
        id = f.meta(&inner(level, &children));
    }
    f.commit(id);
}

fn repeats() -> Vec<Case> {
    vec![
        damaged("a node in 2^16 places", |f| {
            let bottom = empty(f, b"a00000");
            tower(f, bottom, 2, 16);
        }),
        damaged("a node in 10^48 places", |f| {
            let bottom = empty(f, b"a00000");
            tower(f, bottom, 1000, 16);
        }),
        damaged("a damaged node in 10^48 places", |f| {
            let nothing = f.nothing();
            tower(f, nothing, 1000, 16);
        }),
        damaged("a damaged file in 10^48 places", |f| {
            let gone = file(3, &[(f.nothing(), 3)]);
            let bottom = f.meta(&leaf(&[(b"", b"a00000", gone)]));
            tower(f, bottom, 1000, 16);
        }),
        damaged("a tree whose index says that its child is itself", |f| {
            let (a, m) = (empty(f, b"a"), empty(f, b"m"));
            let other = f.nothing();
            let root = inner(1, &[child("a", a, 1, 0), child("m", m, 1, 0), child("z", other, 1, 0)]);
            let id = f.meta(&root);
            f.flush();
            // The record of the root, once more under the child's id.
            let mut own = f.records[2];
            own.key = bulla_engine::format::index::record_key(&other);
            f.records.push(own);
            f.index(|_| {});
            f.snapshot(id, |_| {});
        }),
    ]
}

/// Something else in a node's place.
fn kinds() -> Vec<Case> {
    vec![
        damaged("a root that is no chunk", |f| {
            empty(f, b"a");
            let nothing = f.nothing();
            f.commit(nothing);
        }),
        damaged("a root that is the content of a file", |f| {
            let (id, _) = f.data(&leaf(&[(b"", b"f", dir())]));
            f.commit(id);
        }),
        damaged("a root that is a list", |f| f.root(&spell::list(&[(ChunkId::new([1; 32]), 1)]))),
        damaged("a root that is a block", |f| f.root(&[5, 1, 1, b'a', 0])),
        damaged("a root of an unknown kind", |f| f.root(&[6, 0])),
        damaged("a root of one byte", |f| f.root(&[1])),
        damaged("a leaf with bytes behind it", |f| {
            let bytes = [leaf(&[(b"", b"f", dir())]), vec![0]].concat();
            f.root(&bytes);
        }),
        harmless("an empty tree", |f| f.root(&[1, 0])),
        damaged("a node above 1 MiB", |f| {
            let big = dir().xattrs(&spell::attributes(&[(b"user.a", &[0; 4000])]));
            let names: Vec<String> = (0..300).map(|n| format!("{n:03}")).collect();
            let items: Vec<_> = names.iter().map(|n| (&b""[..], n.as_bytes(), big.clone())).collect();
            f.leaf(&items);
        }),
        damaged("an entry above 32 KiB", |f| {
            let target = dir().xattrs(&[0; 33 << 10]);
            f.one(target);
        }),
    ]
}

fn counts() -> Vec<Case> {
    vec![
        damaged("a leaf of 2^32 entries", |f| f.root(&[&[1][..], &spell::varint(1 << 32)].concat())),
        damaged("a leaf of 2^64 - 1 entries", |f| f.root(&[&[1][..], &spell::varint(u64::MAX)].concat())),
        damaged("an inner node of 2^32 children", |f| {
            f.root(&[&[2, 1][..], &spell::varint(1 << 32)].concat());
        }),
        damaged("an inner node of 2^64 - 1 children", |f| {
            f.root(&[&[2, 1][..], &spell::varint(u64::MAX)].concat());
        }),
        damaged("a varint of eleven bytes", |f| f.root(&[&[1][..], &[0xff; 11]].concat())),
    ]
}

/// A directory in a directory, `levels` deep, as a writer would store it.
fn chain(f: &mut Forge, levels: usize) {
    let path = b"d/".repeat(levels);
    let keyring = f.repository.keyring();
    let (split, id) = (keyring.split_key(0).unwrap(), keyring.id_key(0, ChunkKind::Meta).unwrap());
    let mut builder = TreeBuilder::new(split, id);
    let mut nodes = Vec::new();
    let mut keep = |_, node| {
        nodes.push(node);
        Ok::<_, FormatError>(())
    };
    for level in 0..levels {
        let entry = directory(&path[..(2 * level).saturating_sub(1)]);
        builder.push(&entry, &mut keep).unwrap();
    }
    let built = builder.finish(&mut keep).unwrap();
    for node in nodes {
        f.meta(&node);
    }
    f.commit(built.root);
}

fn directory(parent: &[u8]) -> tree::Entry {
    let time = tree::Timestamp { seconds: 5, nanos: 0 };
    tree::Entry {
        parent: parent.into(),
        name: b"d".to_vec(),
        kind: tree::EntryKind::Directory,
        mode: 0o755,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        mtime: time,
        ctime: time,
        btime: None,
        atime: None,
        mount: 0,
        inode: 9,
        links: 1,
        xattrs: tree::Block::None,
        flags: tree::EntryFlags::default(),
    }
}

fn deep() -> Vec<Case> {
    vec![
        harmless("a directory 3,000 deep", |f| chain(f, 3_000)),
        harmless("a directory 10^4 deep", |f| chain(f, 10_000)).long(),
        // Deeper than a restore goes at once; it says so.
        harmless("a directory 20,000 deep", |f| chain(f, 20_000)).restores(&[3]).long(),
        // Each entry a few bytes, thanks to the prefix it shares; each path 128 KiB.
        damaged("a leaf of 40,000 paths of 128 KiB", |f| {
            let long = [b"d/".repeat(65_530), b"d/".to_vec()].concat();
            let mut node = [vec![1], spell::varint(40_000)].concat();
            for n in 0..40_000u32 {
                // Hexadecimal digits in front, which differ from one path to the next.
                let name = format!("{:05x}", n);
                let before = n.checked_sub(1).map(|n| format!("{n:05x}")).unwrap_or_default();
                let same = before.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count();
                let shared = if n == 0 { 0 } else { long.len() + same };
                let rest = if n == 0 {
                    [&long[..], name.as_bytes()].concat()
                } else {
                    name.as_bytes()[same..].to_vec()
                };
                node.extend(
                    [spell::varint(shared as u64), spell::prefixed(&rest), spell::prefixed(b"d")].concat(),
                );
                node.extend(dir().bytes());
            }
            f.root(&node);
        }),
    ]
}
