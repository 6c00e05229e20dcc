//! Content that is not what its entry says: sizes that lie both ways, lists, holes and attributes.

use crate::forge::Forge;
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::{self, Ref, attributes, dir, file, holed, leaf, listed, varint};
use bulla_engine::format::ChunkId;
use std::os::unix::fs::MetadataExt;

/// A file of one chunk of four bytes that says it has `size`.
fn sized(f: &mut Forge, size: u64) {
    let chunk = f.data(b"four");
    f.one(file(size, &[chunk]));
}

/// A file `f` whose content is the list below `root`.
fn of_list(f: &mut Forge, size: u64, root: ChunkId) {
    f.one(listed(size, root));
}

/// Holes as spelled around one chunk of four bytes.
fn holes(f: &mut Forge, size: u64, block: &[u8]) {
    let chunk = f.data(b"four");
    f.one(holed(size, block, &[chunk]));
}

fn absent(home: &Home) {
    assert!(!home.path("out/f").exists(), "a file with wrong content was left");
}

/// A file whose content cannot be right is not there afterwards.
const fn bad(name: &'static str, build: fn(&mut Forge)) -> Case {
    damaged(name, build).after(absent)
}

pub fn cases() -> Vec<Case> {
    [sizes(), references(), lists(), towers(), spaces(), extended()].into_iter().flatten().collect()
}

fn sizes() -> Vec<Case> {
    vec![
        bad("a file that says it is longer", |f| sized(f, 5)),
        bad("a file that says it is shorter", |f| sized(f, 3)),
        bad("a file that says it is empty", |f| sized(f, 0)),
        bad("a file of 2^63 bytes in four", |f| sized(f, 1 << 63)),
        bad("a file of 2^64 - 1 bytes in four", |f| sized(f, u64::MAX)),
        bad("a file of 2^64 - 1 bytes in none", |f| f.one(file(u64::MAX, &[]))),
    ]
}

fn references() -> Vec<Case> {
    vec![
        bad("a reference longer than its chunk", |f| {
            let (id, _) = f.data(b"four");
            f.one(file(9, &[(id, 9)]));
        })
        .lists(&[0]),
        bad("a reference shorter than its chunk", |f| {
            let (id, _) = f.data(b"four");
            f.one(file(2, &[(id, 2)]));
        })
        .lists(&[0]),
        bad("a reference of length 0", |f| {
            let (id, _) = f.data(b"four");
            f.one(file(0, &[(id, 0)]));
        }),
        bad("a reference of 2^32 bytes", |f| {
            let (id, _) = f.data(b"four");
            f.one(file(1 << 32, &[(id, 1 << 32)]));
        }),
        bad("a reference above 8 MiB", |f| {
            let (id, _) = f.data(b"four");
            f.one(file((8 << 20) + 1, &[(id, (8 << 20) + 1)]));
        }),
        bad("references inside beyond 16", |f| {
            let chunk = f.data(b"four");
            f.one(file(68, &[chunk; 17]));
        }),
        bad("a reference to a chunk that is not there", |f| {
            let gone = (f.nothing(), 4);
            let other = f.file(b"content");
            f.leaf(&[(b"", b"f", file(4, &[gone])), (b"", b"good", other)]);
        })
        .lists(&[0])
        .after(|h| {
            absent(h);
            assert_eq!(h.read("out/good"), b"content");
        }),
        bad("a file whose second chunk is not there", |f| {
            let (four, gone) = (f.data(b"four"), (f.nothing(), 4));
            f.one(file(8, &[four, gone]));
        })
        .lists(&[0]),
        bad("a file made of a tree node", |f| {
            let node = leaf(&[(b"", b"x", dir())]);
            let id = f.meta(&node);
            f.one(file(node.len() as u64, &[(id, node.len() as u64)]));
        })
        .lists(&[0]),
    ]
}

/// SPEC 9.4.
fn lists() -> Vec<Case> {
    vec![
        harmless("a list of forty chunks", |f| {
            let chunk = f.data(b"four");
            let root = f.meta(&spell::list(&[chunk; 40]));
            of_list(f, 160, root);
        })
        .after(|h| assert_eq!(h.read("out/f"), b"four".repeat(40))),
        bad("a list longer than its file", |f| {
            let chunk = f.data(b"four");
            let root = f.meta(&spell::list(&[chunk; 41]));
            of_list(f, 160, root);
        })
        .lists(&[0]),
        bad("a list shorter than its file", |f| {
            let chunk = f.data(b"four");
            let root = f.meta(&spell::list(&[chunk; 40]));
            of_list(f, 164, root);
        })
        .lists(&[0]),
        bad("a list of no references", |f| {
            let root = f.meta(&spell::list(&[]));
            of_list(f, 0, root);
        })
        .lists(&[0]),
        bad("a list of 1025 references", |f| {
            let chunk = f.data(b"four");
            let root = f.meta(&spell::list(&[chunk; 1025]));
            of_list(f, 4100, root);
        })
        .lists(&[0]),
        bad("a list of 2^32 references", |f| {
            let root = f.meta(&[&[3][..], &varint(1 << 32)].concat());
            of_list(f, 4, root);
        })
        .lists(&[0]),
        bad("a list that is a leaf of the tree", |f| {
            let root = f.meta(&leaf(&[(b"", b"x", dir())]));
            of_list(f, 4, root);
        })
        .lists(&[0]),
        bad("a list that is not there", |f| {
            let nothing = f.nothing();
            of_list(f, 4, nothing);
        })
        .lists(&[0]),
        bad("a child list with other bytes than it says", |f| two_lists(f, |c| c[1].1 += 1)).lists(&[0]),
        bad("a child list with other references than it says", |f| two_lists(f, |c| c[0].2 += 1)).lists(&[0]),
        bad("a child list of no references", |f| two_lists(f, |c| c[0].2 = 0)).lists(&[0]),
        bad("a child list of more references than bytes", |f| two_lists(f, |c| c[0].1 = 1)).lists(&[0]),
        bad("a child list that is as high as its parent", |f| {
            let chunk = f.data(b"four");
            let low = f.meta(&spell::list(&[chunk; 20]));
            let middle = f.meta(&spell::lists(1, &[(low, 80, 20), (low, 80, 20)]));
            let root = f.meta(&spell::lists(1, &[(middle, 160, 40), (low, 80, 20)]));
            of_list(f, 240, root);
        })
        .lists(&[0]),
        bad("a list of level 9", |f| {
            let chunk = f.data(b"four");
            let low = f.meta(&spell::list(&[chunk; 20]));
            let root = f.meta(&spell::lists(9, &[(low, 80, 20), (low, 80, 20)]));
            of_list(f, 160, root);
        })
        .lists(&[0]),
    ]
}

/// Two sound lists below one, as `twist` leaves what it says of them.
fn two_lists(f: &mut Forge, twist: impl FnOnce(&mut [(ChunkId, u64, u64); 2])) {
    let chunk = f.data(b"four");
    let low = f.meta(&spell::list(&[chunk; 20]));
    let mut children = [(low, 80, 20), (low, 80, 20)];
    twist(&mut children);
    let root = f.meta(&spell::lists(1, &children));
    of_list(f, 160, root);
}

/// Lists whose children are one list, `width` at each of `levels`; the root with its bytes and references.
fn tower(f: &mut Forge, chunk: Ref, width: usize, levels: u8) -> (ChunkId, u64, u64) {
    let refs = vec![chunk; 1024];
    let mut top = (f.meta(&spell::list(&refs)), 1024 * chunk.1, 1024);
    for level in 1..=levels {
        let (id, bytes, count) = (f.meta(&spell::lists(level, &vec![top; width])), top.1, top.2);
        top = (id, bytes.saturating_mul(width as u64), count.saturating_mul(width as u64));
    }
    top
}

fn towers() -> Vec<Case> {
    vec![
        // A few KiB of lists that stand for 2^63 bytes and say so. No file is that long.
        harmless("a list of 2^61 references", |f| {
            let chunk = f.data(b"four");
            let top = tower(f, chunk, 256, 6);
            let root = f.meta(&spell::lists(7, &[top; 8]));
            f.leaf(&[(b"", b"g", listed(top.1 * 8, root))]);
        })
        .restores(&[3])
        .after(|h| assert!(!h.path("out/g").exists())),
        harmless("a list of two million references", |f| {
            let chunk = f.data(b"four");
            let (id, bytes, refs) = tower(f, chunk, 1024, 1);
            assert_eq!((bytes, refs), (4 << 20, 1 << 20));
            let root = f.meta(&spell::lists(2, &[(id, bytes, refs); 2]));
            f.one(listed(bytes * 2, root));
        })
        .after(|h| assert_eq!(h.read("out/f"), b"four".repeat(2 << 20))),
        bad("a list of 2^58 references of a file that says it is small", |f| {
            let chunk = f.data(b"four");
            let (id, ..) = tower(f, chunk, 256, 6);
            of_list(f, 4096, id);
        })
        .lists(&[0]),
        bad("a list of 2^58 references to nothing", |f| {
            let gone = (f.nothing(), 4);
            let (id, bytes, _) = tower(f, gone, 256, 6);
            of_list(f, bytes, id);
        })
        .lists(&[0]),
    ]
}

fn spaces() -> Vec<Case> {
    vec![
        harmless("a file with a hole", |f| holes(f, 8, &[1, 2, 4])).after(|h| {
            assert_eq!(h.read("out/f"), b"fo\0\0\0\0ur");
        }),
        bad("a hole beyond the file", |f| holes(f, 8, &[1, 2, 7])),
        bad("a hole of 2^64 - 1 bytes", |f| holes(f, 8, &[&[1, 2][..], &varint(u64::MAX)].concat())),
        bad("a hole 2^64 - 1 bytes away", |f| {
            holes(f, 8, &[&[1][..], &varint(u64::MAX), &[4]].concat());
        }),
        bad("holes that touch", |f| holes(f, 8, &[2, 0, 2, 0, 2])),
        bad("an empty hole", |f| holes(f, 4, &[1, 2, 0])),
        bad("no holes in a block of holes", |f| holes(f, 4, &[0])),
        bad("2^32 holes", |f| holes(f, 8, &[&varint(1 << 32)[..], &[2, 4]].concat())),
        bad("a file of holes that says it is longer", |f| holes(f, 9, &[1, 2, 4])),
        // Sparse: no block is written for it. What the file system cannot hold is not created.
        harmless("a hole of 2^62 bytes", |f| {
            let empty = holed(1 << 62, &[&[1, 0][..], &varint(1 << 62)].concat(), &[]);
            f.leaf(&[(b"", b"g", empty)]);
        })
        .lists(&[0])
        .restores(&[0, 3])
        .after(|h| {
            let made = h.path("out/g").metadata();
            assert!(made.is_err() || made.unwrap().blocks() == 0);
        }),
    ]
}

/// Attributes in a block of their own.
fn in_block(f: &mut Forge, list: &[(&[u8], &[u8])]) {
    let bytes = [vec![5], attributes(list)].concat();
    let id = f.meta(&bytes);
    f.one(dir().xattr_block(&(id, bytes.len() as u64)));
}

fn extended() -> Vec<Case> {
    vec![
        harmless("ten thousand attributes", |f| {
            let names: Vec<String> = (0..10_000).map(|n| format!("user.{n:05}")).collect();
            let list: Vec<_> = names.iter().map(|n| (n.as_bytes(), &b"v"[..])).collect();
            in_block(f, &list);
        })
        .restores(&[0, 3]),
        harmless("an attribute of 1 MiB", |f| in_block(f, &[(b"user.big", &[7; 1_000_000])])).restores(&[3]),
        harmless("attributes of every namespace", |f| {
            let list: [(&[u8], &[u8]); 5] = [
                (b"nonsense", b"x"),
                (
                    b"security.capability",
                    &[1, 0, 0, 2, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                ),
                (b"system.posix_acl_access", b"not an ACL"),
                (b"trusted.overlay.opaque", b"y"),
                (b"user.\x1b[2J", b"x"),
            ];
            let e = f.file(b"x").xattrs(&attributes(&list));
            f.one(e);
        })
        .restores(&[0, 3]),
        damaged("attributes in the wrong order", |f| {
            f.one(dir().xattrs(&attributes(&[(b"user.b", b""), (b"user.a", b"")])));
        }),
        damaged("an attribute without a name", |f| f.one(dir().xattrs(&attributes(&[(b"", b"x")])))),
        damaged("an attribute with NUL in its name", |f| {
            f.one(dir().xattrs(&attributes(&[(b"user.\0", b"")])))
        }),
        damaged("2^32 attributes", |f| f.one(dir().xattrs(&varint(1 << 32)))),
        damaged("a block of attributes that is a leaf", |f| {
            let bytes = leaf(&[(b"", b"x", dir())]);
            let id = f.meta(&bytes);
            f.one(dir().xattr_block(&(id, bytes.len() as u64)));
        })
        .lists(&[0]),
        damaged("a block of attributes that breaks the rules", |f| {
            in_block(f, &[(b"user.b", b""), (b"user.a", b"")])
        })
        .lists(&[0]),
        damaged("a block of attributes inside and outside", |f| {
            let mut e = dir().xattrs(&attributes(&[(b"user.a", b"")]));
            e.flags |= 128;
            f.one(e);
        }),
    ]
}
