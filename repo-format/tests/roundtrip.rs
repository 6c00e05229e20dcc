//! Property tests of the hot objects: whatever is written reads back, and nothing else reads.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says why it fails by panicking")]

use bulla_repo_format::chunker::{ChunkerParams, Gear, cut_reference};
use bulla_repo_format::frame::{Compression, Compressor, Expander};
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun, record_key};
use bulla_repo_format::keys::{ChunkKind, IdKey, Keyring, Secret};
use bulla_repo_format::pack::{
    ChunkEntry, Directory, FrameEntry, HEADER_LEN, PackHeader, PackKind, TRAILER_LEN, Trailer,
};
use bulla_repo_format::tree::*;
use bulla_repo_format::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

fn keyring() -> Keyring {
    Keyring::new(vec![Secret::new([1; 32])], vec![Secret::new([2; 32])]).unwrap()
}

fn id_key() -> IdKey {
    keyring().id_key(0, ChunkKind::Meta).unwrap()
}

fn entry(path: &str, size: u64) -> Entry {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let refs = (size > 0).then(|| ChunkRef { id: ChunkId::new([size as u8; 32]), len: size as u32 });
    let content = Content::Inline(refs.into_iter().collect());
    Entry {
        parent: Arc::from(parent.as_bytes()),
        name: name.as_bytes().to_vec(),
        kind: EntryKind::File { size, holes: Block::None, content },
        mode: 0o644,
        uid: 1000,
        gid: 100,
        mtime: Timestamp { seconds: -5, nanos: 999_999_999 },
        ctime: Timestamp { seconds: 1_700_000_000, nanos: 1 },
        btime: Some(Timestamp { seconds: i64::MIN, nanos: 0 }),
        atime: None,
        mount: 0,
        inode: size + 7,
        links: 1,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    }
}

fn build(entries: &[Entry]) -> (BuiltTree, HashMap<ChunkId, Vec<u8>>) {
    let mut nodes = HashMap::new();
    let mut b = TreeBuilder::new(keyring().split_key(0).unwrap(), id_key());
    let mut sink = |id, node| -> Result<()> {
        nodes.insert(id, node);
        Ok(())
    };
    entries.iter().for_each(|e| b.push(e, &mut sink).unwrap());
    let built = b.finish(&mut sink).unwrap();
    (built, nodes)
}

fn walk(id: ChunkId, above: u8, nodes: &HashMap<ChunkId, Vec<u8>>, out: &mut Vec<Entry>) -> (u64, u64) {
    match Node::decode(&nodes[&id]).unwrap() {
        Node::Leaf(entries) => {
            let sums = (entries.len() as u64, entries.iter().map(Entry::size).sum());
            out.extend(entries);
            sums
        }
        Node::Inner { level, children } => {
            assert!(level < above);
            children.iter().fold((0, 0), |(n, b), c| {
                let at = out.len();
                let (cn, cb) = walk(c.id, level, nodes, out);
                assert_eq!((c.entries, c.bytes), (cn, cb));
                assert_eq!((&out[at].parent, &out[at].name), (&c.parent, &c.name));
                (n + cn, b + cb)
            })
        }
    }
}

fn tree_of(n: usize) -> Vec<Entry> {
    let mut all: Vec<_> =
        (0..n).map(|i| entry(&format!("dir{:03}/sub{}/file{i:07}", i / 500, i % 3), i as u64 % 9)).collect();
    all.sort_by(Entry::compare);
    all
}

#[test]
fn a_tree_gives_back_its_entries_and_one_insert_rewrites_one_path() {
    for n in [0, 1, 2, 300, 40_000] {
        let entries = tree_of(n);
        let (built, nodes) = build(&entries);
        let mut back = Vec::new();
        let sums = walk(built.root, u8::MAX, &nodes, &mut back);
        assert_eq!(back, entries);
        assert_eq!(sums, (built.entries, built.bytes));
    }
    let mut entries = tree_of(40_000);
    let (_, before) = build(&entries);
    entries.insert(20_000, {
        let mut e = entries[19_999].clone();
        e.name.push(b'x');
        e
    });
    let (_, after) = build(&entries);
    let fresh = after.keys().filter(|k| !before.contains_key(*k)).count();
    assert!(before.len() > 40 && fresh <= 5, "{} nodes, {fresh} new", before.len());
}

#[test]
fn entries_out_of_order_or_twice_are_refused() {
    let mut b = TreeBuilder::new(keyring().split_key(0).unwrap(), id_key());
    let mut sink = |_, _| -> Result<()> { Ok(()) };
    b.push(&entry("a/b", 1), &mut sink).unwrap();
    assert!(b.push(&entry("a/b", 1), &mut sink).is_err());
    assert!(b.push(&entry("z", 1), &mut sink).is_err());
    b.push(&entry("a-b/a", 1), &mut sink).unwrap();
}

#[test]
fn lists_seek_and_an_edit_in_the_middle_rewrites_few_nodes() {
    let key = id_key();
    let list = |refs: &[ChunkRef]| {
        let (mut b, mut nodes) = (ListBuilder::default(), HashMap::new());
        assert!(b.is_empty());
        for r in refs {
            b.push(&key, *r);
            assert!(!b.is_empty());
            // What is complete is taken at once: a list of any length lies nowhere whole.
            nodes.extend(b.take_nodes());
        }
        let (content, last) = b.finish(&key);
        nodes.extend(last);
        (content, nodes)
    };
    fn flatten(id: ChunkId, nodes: &HashMap<ChunkId, Vec<u8>>, out: &mut Vec<ChunkRef>) -> u64 {
        match ListNode::decode(&nodes[&id]).unwrap() {
            ListNode::Leaf(refs) => {
                out.extend(&refs);
                refs.iter().map(|r| r.len as u64).sum()
            }
            ListNode::Inner { children, .. } => children
                .iter()
                .map(|c| {
                    let bytes = flatten(c.id, nodes, out);
                    assert_eq!(bytes, c.bytes);
                    bytes
                })
                .sum(),
        }
    }
    for n in [0usize, 1, 16, 17, 65, 1024, 1025, 100_000] {
        let mut refs: Vec<_> = (0..n)
            .map(|i| ChunkRef {
                id: ChunkId::new(*blake3::hash(&i.to_le_bytes()).as_bytes()),
                len: 1 + i as u32,
            })
            .collect();
        let (content, nodes) = list(&refs);
        let mut back = Vec::new();
        match content {
            Content::Inline(r) => {
                assert!(n <= 16);
                back = r;
            }
            Content::List(id) => {
                flatten(id, &nodes, &mut back);
            }
        }
        assert_eq!(back, refs);
        if n == 100_000 {
            refs[50_000].id = ChunkId::new([7; 32]);
            let (_, after) = list(&refs);
            assert!(after.keys().filter(|k| !nodes.contains_key(*k)).count() <= 5);
        }
    }
}

/// A pack as a writer makes it, in one function: also the shape a third-party writer would take.
fn pack(chunks: &[Vec<u8>], frame: usize) -> (Vec<u8>, Directory) {
    let (ring, repo) = (keyring(), RepoId::new([3; 32]));
    let id = ring.id_key(0, ChunkKind::Data).unwrap();
    let stream = chunks.concat();
    let mut compressor = Compressor::new(Compression::Auto, frame as u32).unwrap();
    let mut payloads: Vec<Vec<u8>> = stream
        .chunks(frame)
        .map(|raw| {
            let mut out = Vec::new();
            compressor.compress(raw).write(&mut out);
            out
        })
        .collect();
    let mut frames: Vec<_> = stream
        .chunks(frame)
        .zip(&payloads)
        .map(|(r, p)| FrameEntry { sealed: p.len() as u32, raw: r.len() as u32 })
        .collect();
    payloads.push([&[0xff][..], &[0; 99 + 16]].concat());
    frames.push(FrameEntry { sealed: 116, raw: 0 });
    let chunks = chunks.iter().map(|c| ChunkEntry { id: id.identify(c), len: c.len() as u32 }).collect();
    let client = ring.client_key(&ring.client_id("test"));
    let directory = Directory { run: RunId::new([5; 16]), signer: client.id(), frames, chunks };
    let (header, key) = PackHeader::create(PackKind::Data, &ring, &repo, directory.salt(&[6; 32])).unwrap();
    let mut out = header.encode().to_vec();
    for (i, mut p) in payloads.into_iter().enumerate() {
        key.seal(i as u32, &mut p).unwrap();
        out.extend(p);
    }
    let hash = *blake3::hash(&out).as_bytes();
    let tail = directory.seal(&header, &hash, out.len() as u64, &ring, &repo, &client, &[8; 64]).unwrap();
    assert_eq!(tail.len() as u64, directory.sealed_len() + TRAILER_LEN as u64);
    out.extend(tail);
    (out, directory)
}

fn read_pack(bytes: &[u8]) -> Result<(Directory, Vec<u8>)> {
    let (ring, repo) = (keyring(), RepoId::new([3; 32]));
    let at = bytes.len().checked_sub(TRAILER_LEN).ok_or(FormatError::Truncated { what: "pack" })?;
    let trailer = Trailer::open(&bytes[at..], bytes.len() as u64, &ring, &repo)?;
    let header = PackHeader::decode(bytes)?;
    assert!(header == trailer.header || bytes[..HEADER_LEN] != bytes[at..at + HEADER_LEN]);
    if header != trailer.header {
        return Err(FormatError::Unauthentic { what: "pack" });
    }
    let sealed = &bytes[trailer.offset as usize..at];
    let verify = |id: &ClientId, body: &[u8], sig: &[u8; 64]| {
        ring.client_key(id).verify("pack directory", &repo, body, sig)
    };
    let (directory, hash) = Directory::open(&header, sealed, trailer.offset, &ring, &repo, verify)?;
    if blake3::hash(&bytes[..trailer.offset as usize]) != hash {
        return Err(FormatError::Unauthentic { what: "pack" });
    }
    let key = header.open(&ring, &repo)?;
    let (mut at, mut stream, mut raw) = (HEADER_LEN, Vec::new(), Vec::new());
    for (i, f) in directory.frames.iter().enumerate() {
        let mut sealed = bytes[at..at + f.sealed as usize].to_vec();
        Expander::new().expand(key.open(i as u32, &mut sealed)?, f.raw, &mut raw)?;
        stream.extend(&raw);
        at += f.sealed as usize;
    }
    Ok((directory, stream))
}

#[test]
fn every_flipped_bit_of_a_pack_is_found() {
    let (mut bytes, directory) = pack(&[vec![1; 300], b"hello".repeat(40), vec![9; 1]], 200);
    let (back, stream) = read_pack(&bytes).unwrap();
    assert_eq!(back, directory);
    assert_eq!(stream.len(), 501);
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(read_pack(&bytes).is_err(), "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..bytes.len() {
        assert!(read_pack(&bytes[..len]).is_err(), "length {len}");
    }
}

#[test]
fn index_runs_round_trip_and_refuse_records_outside_their_pack() {
    let header = PackHeader::create(PackKind::Data, &keyring(), &RepoId::new([3; 32]), [4; 32]).unwrap().0;
    let packs = vec![IndexPack {
        name: PackName::new([1; 32]),
        size: 9000,
        run: RunId::new([2; 16]),
        signer: ClientId::new([3; 16]),
        header,
        frames: vec![FrameEntry { sealed: 100, raw: 1000 }],
    }];
    let record =
        |b: u8, offset, len| IndexRecord { key: record_key(&ChunkId::new([b; 32])), pack: 0, offset, len };
    let mut run = IndexRun {
        packs,
        records: vec![record(9, 0, 400), record(3, 400, 600)],
        ..IndexRun::new(ClientId::new([3; 16]))
    };
    let body = run.encode();
    assert_eq!(IndexRun::decode(&body).unwrap(), run);
    for len in 0..body.len() {
        assert!(IndexRun::decode(&body[..len]).is_err());
    }
    run.records.push(record(1, 400, 601));
    assert!(IndexRun::decode(&run.encode()).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nodes_never_panic_and_decode_then_encode_is_the_identity(flips in proptest::collection::vec((0usize..3000, any::<u8>()), 0..6)) {
        let (built, nodes) = build(&tree_of(20));
        let mut bytes = nodes[&built.root].clone();
        for (at, b) in flips {
            let at = at % bytes.len();
            bytes[at] = b;
        }
        if let Ok(Node::Leaf(entries)) = Node::decode(&bytes) {
            let (again, nodes) = build(&entries);
            prop_assert_eq!(&nodes[&again.root], &bytes);
        }
    }

    #[test]
    fn paths_compare_by_component(a in "[a/!-]{0,6}", b in "[a/!-]{0,6}") {
        let parts = |s: &str| s.split('/').map(str::to_owned).collect::<Vec<_>>();
        let valid = |s: &str| !s.is_empty() && !s.starts_with('/') && !s.ends_with('/') && !s.contains("//");
        if valid(&a) && valid(&b) {
            prop_assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), parts(&a).cmp(&parts(&b)));
        }
    }

    #[test]
    fn chunks_keep_their_bounds(data in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let p = ChunkerParams { min: 64, avg: 256, max: 1024 };
        let gear = Gear::derive(&Secret::new([1; 32]), &p);
        let mut at = 0;
        while at < data.len() {
            let n = cut_reference(&data[at..], &p, &gear);
            prop_assert!(n > 0 && n <= 1024 && (n >= 64 || at + n == data.len()));
            at += n;
        }
    }
}
