//! Links: a name that leads elsewhere is made and never followed, and nothing is linked but what this restore wrote.

use crate::forge::Forge;
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::{self, CHARACTER, Entry, FIFO, SOCKET, dir, file, node, symlink};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;

/// A symbolic link `s` to the canary's directory.
fn out_of_here(f: &Forge) -> Entry {
    symlink(f.outside().as_os_str().as_bytes())
}

fn inode(home: &Home, name: &str) -> u64 {
    home.path("out").join(name).symlink_metadata().unwrap().ino()
}

fn is_link(home: &Home, name: &str) {
    assert!(home.path("out").join(name).is_symlink(), "{name}");
}

pub fn cases() -> Vec<Case> {
    [symbolic(), hard(), special()].into_iter().flatten().collect()
}

fn symbolic() -> Vec<Case> {
    vec![
        harmless("a file below a symbolic link", |f| {
            let (link, evil) = (out_of_here(f), f.file(b"evil"));
            f.leaf(&[(b"", b"s", link), (b"s", b"canary", evil)]);
        })
        .restores(&[3]),
        harmless("a directory below a symbolic link", |f| {
            let link = out_of_here(f);
            f.leaf(&[(b"", b"s", link), (b"s", b"deep", dir().mode(0o777)), (b"s/deep", b"new", dir())]);
        })
        .restores(&[3]),
        harmless("a symbolic link below a symbolic link", |f| {
            let link = out_of_here(f);
            f.leaf(&[(b"", b"s", link.clone()), (b"s", b"link", link)]);
        })
        .restores(&[3]),
        harmless("a file below a link to a directory of the snapshot", |f| {
            let evil = f.file(b"evil");
            f.leaf(&[(b"", b"d", dir()), (b"", b"s", symlink(b"d")), (b"s", b"x", evil)]);
        })
        .restores(&[3]),
        harmless("a file below a file", |f| {
            let entry = f.file(b"content");
            f.leaf(&[(b"", b"a", entry.clone()), (b"a", b"x", entry)]);
        })
        .restores(&[3]),
        damaged("a symbolic link and a directory of one name", |f| {
            let (link, evil) = (out_of_here(f), f.file(b"evil"));
            f.leaf(&[(b"", b"s", link), (b"", b"s", dir()), (b"s", b"canary", evil)]);
        }),
        harmless("a symbolic link whose metadata is not its target's", |f| {
            let canary = f.outside().join("canary");
            let link = symlink(canary.as_os_str().as_bytes()).mode(0o4777).times(vec![20, 7, 0, 8]);
            f.one(link.xattrs(&spell::attributes(&[(b"user.evil", b"1")])));
        })
        .restores(&[0, 3])
        .after(|h| is_link(h, "f")),
        harmless("symbolic links in a circle", |f| {
            f.leaf(&[(b"", b"a", symlink(b"b")), (b"", b"b", symlink(b"a")), (b"", b"c", symlink(b"c"))]);
        })
        .after(|h| is_link(h, "c")),
        harmless("a symbolic link to nothing", |f| f.one(symlink(b""))).restores(&[3]),
        damaged("a symbolic link with NUL", |f| f.one(symlink(b"/etc\0"))),
        damaged("a symbolic link of 16 KiB and 1", |f| f.one(symlink(&[b't'; (16 << 10) + 1]))),
        // The kernel takes less than the format.
        harmless("a symbolic link of 16 KiB", |f| f.one(symlink(&[b't'; 16 << 10]))).restores(&[3]),
    ]
}

fn hard() -> Vec<Case> {
    vec![
        harmless("a hard link to a symbolic link", |f| {
            let (link, other) = (out_of_here(f).linked(7, 2), f.file(b"content").linked(7, 2));
            f.leaf(&[(b"", b"a", link), (b"", b"b", other)]);
        })
        .after(|h| assert_ne!(inode(h, "a"), inode(h, "b"))),
        harmless("two symbolic links of one inode", |f| {
            let link = symlink(b"x").linked(7, 2);
            f.leaf(&[(b"", b"a", link.clone()), (b"", b"b", link)]);
        }),
        harmless("a hard link to a directory", |f| {
            let other = f.file(b"content").linked(7, 2);
            f.leaf(&[(b"", b"a", dir().linked(7, 2)), (b"", b"b", other)]);
        }),
        harmless("directories of one inode", |f| {
            let two = dir().linked(7, 2);
            f.leaf(&[(b"", b"a", two.clone()), (b"", b"b", two), (b"a", b"x", dir()), (b"b", b"y", dir())]);
        })
        .after(|h| assert!(!h.path("out/a/y").exists())),
        harmless("hard links of other content", |f| {
            let (a, b) = (f.file(b"one").linked(7, 3), f.file(b"two").linked(7, 3));
            f.leaf(&[(b"", b"a", a.clone()), (b"", b"b", b), (b"", b"c", a)]);
        })
        .after(|h| {
            assert_eq!((h.read("out/a"), h.read("out/b")), (b"one".to_vec(), b"two".to_vec()));
            assert!(inode(h, "a") == inode(h, "c") && inode(h, "a") != inode(h, "b"));
        }),
        harmless("hard links of other size", |f| {
            let (a, b) = (f.file(b"one").linked(7, 2), f.file(b"three").linked(7, 2));
            f.leaf(&[(b"", b"a", a), (b"", b"b", b)]);
        })
        .after(|h| assert_ne!(inode(h, "a"), inode(h, "b"))),
        harmless("a hard link whose first member was not readable", |f| {
            let (a, b) = (file(3, &[]).flags(2).linked(7, 2), f.file(b"two").linked(7, 2));
            f.leaf(&[(b"", b"a", a), (b"", b"b", b)]);
        })
        .restores(&[3])
        .after(|h| assert!(!h.path("out/a").exists() && h.read("out/b") == b"two")),
        damaged("a hard link whose first member is damaged", |f| {
            let gone = (f.nothing(), 3);
            let (a, b) = (file(3, &[gone]).linked(7, 2), file(3, &[gone]).linked(7, 2));
            f.leaf(&[(b"", b"a", a), (b"", b"b", b)]);
        })
        .lists(&[0])
        .after(|h| assert!(!h.path("out/a").exists() && !h.path("out/b").exists())),
        harmless("a group of 2^64 - 1 links", |f| {
            let a = f.file(b"one").linked(u64::MAX, u64::MAX);
            f.leaf(&[(b"", b"a", a.clone()), (b"", b"b", a)]);
        })
        .after(|h| assert_eq!(inode(h, "a"), inode(h, "b"))),
        damaged("a link count of one, spelled out", |f| {
            let a = f.file(b"one").linked(7, 1);
            f.one(a);
        }),
    ]
}

fn special() -> Vec<Case> {
    let kinds: fn(&Home) = |h| {
        assert!(h.path("out/p").symlink_metadata().unwrap().mode() & 0o170_000 == 0o010_000);
        let device = fs::symlink_metadata(h.path("out/c"));
        assert_eq!(device.is_ok(), rustix::process::geteuid().is_root());
    };
    vec![
        harmless("pipes, sockets and devices", |f| {
            f.leaf(&[(b"", b"c", node(CHARACTER)), (b"", b"p", node(FIFO)), (b"", b"s", node(SOCKET))]);
        })
        .after(kinds),
        harmless("a setuid file for another owner", |f| {
            let shell = f.file(b"#!/bin/sh\n").mode(0o6755).owner(0, 0);
            f.one(shell);
        }),
        // All ones mean "leave it" to the kernel: no owner.
        harmless("an owner of 2^32 - 1", |f| {
            let e = f.file(b"x").owner(u64::from(u32::MAX), u64::from(u32::MAX));
            f.one(e);
        })
        .restores(&[0, 3]),
        damaged("an owner of 2^32", |f| {
            let e = f.file(b"x").owner(1 << 32, 0);
            f.one(e);
        }),
        damaged("a mode above 07777", |f| {
            let e = f.file(b"x").mode(0o10_000);
            f.one(e);
        }),
        harmless("times at the ends of 64 bits", |f| {
            let most = [spell::varint(u64::MAX), spell::varint(999_999_999), vec![0, 8]].concat();
            let least = [spell::varint(u64::MAX - 1), spell::varint(0), vec![2, 8]].concat();
            let (a, b) = (f.file(b"x").times(most), f.file(b"y").times(least));
            f.leaf(&[(b"", b"a", a), (b"", b"b", b)]);
        })
        .restores(&[0, 3]),
        damaged("nanoseconds of 10^9", |f| {
            let e = f.file(b"x").times([&[10][..], &spell::varint(1_000_000_000), &[0, 8]].concat());
            f.one(e);
        }),
        damaged("an unknown type", |f| f.one(node(8))),
        damaged("an unknown flag", |f| f.one(dir().flags(2048))),
        damaged("a directory with holes", |f| f.one(dir().flags(256))),
        damaged("a file without content that has some", |f| {
            let e = f.file(b"x").flags(2);
            f.one(e);
        }),
        harmless("a mount that is in no table", |f| {
            let mut e = f.file(b"x");
            e.mount = u32::MAX.into();
            f.one(e);
        }),
    ]
}
