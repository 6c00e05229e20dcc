//! Names and their order: what is no single component never gets near a target; what merely looks bad stays a name.

use crate::forge::Forge;
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::{self, Item, dir, file};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// A file of this name at the top.
fn named(f: &mut Forge, name: &[u8]) {
    let entry = f.file(b"content");
    f.leaf(&[(b"", name, entry)]);
}

/// A directory `d`, and a file `x` that says it lies in `parent`.
fn below(f: &mut Forge, parent: &[u8]) {
    let entry = f.file(b"content");
    f.leaf(&[(b"", b"d", dir()), (parent, b"x", entry)]);
}

/// Files of these names at the top; each is there afterwards.
fn all_of(f: &mut Forge, names: &[&[u8]]) {
    let entry = f.file(b"content");
    let mut sorted = names.to_vec();
    sorted.sort();
    let items: Vec<Item<'_>> = sorted.iter().map(|n| (&b""[..], *n, entry.clone())).collect();
    f.leaf(&items);
}

const ODD: [&[u8]; 12] = [
    b"..\\x",
    b"C:",
    b"NUL",
    b"CON.txt",
    b"trailing.",
    b"trailing ",
    b"\xff\xfe",
    b"-rf",
    b"a\nb",
    b"...",
    b"~",
    "\u{202e}gpj.exe".as_bytes(),
];
const TWINS: [&[u8]; 5] = ["\u{fc}".as_bytes(), "u\u{308}".as_bytes(), b"Twin", b"twin", b"TWIN"];
const TERMINAL: [&[u8]; 4] = [b"\x1b[2J\x1b]0;title\x07", b"\x9b31m", b"\r\x08\x08", b"\x7f"];

fn there(home: &Home, names: &[&[u8]]) {
    for name in names {
        let path = home.path("out").join(OsStr::from_bytes(name));
        assert_eq!(std::fs::read(&path).unwrap(), b"content", "{path:?}");
    }
}

pub fn cases() -> Vec<Case> {
    [single(), parents(), order()].into_iter().flatten().collect()
}

fn single() -> Vec<Case> {
    vec![
        damaged("a name of two dots", |f| named(f, b"..")),
        damaged("a name of one dot", |f| named(f, b".")),
        damaged("an empty name", |f| named(f, b"")),
        damaged("a slash as a name", |f| named(f, b"/")),
        damaged("an absolute name", |f| named(f, b"/etc/bulla-was-here")),
        damaged("a name with a slash", |f| named(f, b"outside/canary")),
        damaged("a name that climbs", |f| named(f, b"../outside/canary")),
        damaged("a name with NUL", |f| named(f, b"f\0.txt")),
        damaged("a name of 4097 bytes", |f| named(f, &[b'n'; 4097])),
        damaged("a name of 64 KiB", |f| named(f, &[b'n'; 64 << 10])),
        // The format allows what no file system here does.
        harmless("a name of 4096 bytes", |f| named(f, &[b'n'; 4096])).restores(&[3]),
        harmless("names that mean something elsewhere", |f| all_of(f, &ODD)).after(|h| there(h, &ODD)),
        harmless("names that are one on other systems", |f| all_of(f, &TWINS)).after(|h| there(h, &TWINS)),
        harmless("names with terminal escapes", |f| all_of(f, &TERMINAL)).after(|h| there(h, &TERMINAL)),
    ]
}

fn parents() -> Vec<Case> {
    vec![
        damaged("a parent of two dots", |f| below(f, b"..")),
        damaged("a parent that climbs", |f| below(f, b"d/../../outside")),
        damaged("an absolute parent", |f| below(f, b"/etc")),
        damaged("a parent with two slashes", |f| below(f, b"d//e")),
        damaged("a parent with a slash at its end", |f| below(f, b"d/")),
        damaged("a parent with NUL", |f| below(f, b"d\0")),
        damaged("a parent above 128 KiB", |f| below(f, &b"d/".repeat(65_537)[..131_073])),
        damaged("a key that shares more than there is", |f| {
            let entry = f.file(b"content").bytes();
            let key = [spell::varint(9), spell::prefixed(b""), spell::prefixed(b"f")].concat();
            f.root(&[&[1, 1], &key[..], &entry].concat());
        }),
        damaged("a key that shares less than it could", |f| {
            let entry = dir().bytes();
            let first = [spell::varint(0), spell::prefixed(b"d"), spell::prefixed(b"a")].concat();
            let second = [spell::varint(0), spell::prefixed(b"d"), spell::prefixed(b"b")].concat();
            f.root(&[&[1, 2], &first[..], &entry, &second, &entry].concat());
        }),
        harmless("a file in no directory", |f| below(f, b"e")).restores(&[3]),
        harmless("a file deep in no directory", |f| below(f, b"d/e/f/g")).restores(&[3]),
    ]
}

fn order() -> Vec<Case> {
    vec![
        damaged("one name twice", |f| {
            let (a, b) = (f.file(b"first"), f.file(b"second"));
            f.leaf(&[(b"", b"f", a), (b"", b"f", b)]);
        }),
        damaged("a file and a directory of one name", |f| {
            let entry = f.file(b"content");
            f.leaf(&[(b"", b"d", entry.clone()), (b"", b"d", dir()), (b"d", b"x", entry)]);
        }),
        damaged("names that descend", |f| {
            let entry = f.file(b"content");
            f.leaf(&[(b"", b"b", entry.clone()), (b"", b"a", entry)]);
        }),
        damaged("a listing before its directory", |f| {
            let entry = f.file(b"content");
            f.leaf(&[(b"d", b"x", entry), (b"", b"d", dir())]);
        }),
        damaged("a listing in two parts", |f| {
            let entry = f.file(b"content");
            let two: [Item<'_>; 4] =
                [(b"", b"d", dir()), (b"d", b"a", entry.clone()), (b"", b"e", dir()), (b"d", b"b", entry)];
            f.leaf(&two);
        }),
        damaged("leaves in the wrong order", |f| {
            let (a, b) = (leaf_of(f, b"a"), leaf_of(f, b"b"));
            f.root(&spell::inner(1, &[spell::child("a", b, 1, 0), spell::child("b", a, 1, 0)]));
        }),
        damaged("one name in two leaves", |f| {
            let (a, b) = (leaf_of(f, b"m"), leaf_of(f, b"m"));
            f.root(&spell::inner(1, &[spell::child("a", a, 1, 0), spell::child("m", b, 1, 0)]));
        }),
    ]
}

/// A leaf of one empty file.
fn leaf_of(f: &mut Forge, name: &[u8]) -> bulla_engine::format::ChunkId {
    f.meta(&spell::leaf(&[(b"", name, file(0, &[]))]))
}
