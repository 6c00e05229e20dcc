//! The pieces of repo-format that every byte passes, each against the bare primitive below it.

use crate::Case;
use crate::data::{CLIENT, REPO, keyring, text};
use bulla_engine::backend::Memory;
use bulla_engine::chunker::Chunker;
use bulla_engine::env::Env;
use bulla_engine::repository::index::IndexWriter;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_repo_format::chunker::{ChunkerParams, Gear};
use bulla_repo_format::frame::{Compression, Compressor, Expander, FrameKey, TAG_LEN};
use bulla_repo_format::id::ChunkId;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun, KEY_LEN, record_key};
use bulla_repo_format::keys::{ChunkKind, Secret};
use bulla_repo_format::pack::{FrameEntry, HEADER_LEN, PackHeader, PackKind};
use bulla_repo_format::tree::*;
use bulla_repo_format::{FormatError, PackName, RunId};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use std::hint::black_box;
use std::sync::Arc;

/// All cases.
pub(crate) const CASES: &[fn() -> Case] =
    &[split, identify, compress, expand, seal, open, tree_build, tree_read, index_read, index_look_up];

const FRAME: usize = 4 << 20;

/// Cutting skips what no cut may lie in and scans two bytes at a time; the reference rolls the hash over every byte.
fn split() -> Case {
    let data: Arc<[u8]> = text(1, 16 << 20).into();
    let other = data.clone();
    let chunker = Chunker::new(ChunkerParams::DEFAULT, &keyring()).unwrap();
    let gear = Gear::derive(&keyring().chunker_key(0).unwrap(), &ChunkerParams::DEFAULT);
    let ours = move || {
        let mut rest = &data[..];
        while !rest.is_empty() {
            rest = &rest[black_box(chunker.cut(rest))..];
        }
    };
    let plain = move || {
        let roll = |h: u64, b: &u8| (h << 1).wrapping_add(gear.table[usize::from(*b)]);
        black_box(other.iter().fold(0, roll));
    };
    Case {
        name: "split",
        reference: "gear hash of every byte",
        at_most: 1.24,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn identify() -> Case {
    let data: Arc<[u8]> = text(2, 8 << 20).into();
    let other = data.clone();
    let key = keyring().id_key(0, ChunkKind::Data).unwrap();
    let ours = move || data.chunks(128 << 10).for_each(|c| _ = black_box(key.identify(c)));
    let plain = move || other.chunks(128 << 10).for_each(|c| _ = black_box(blake3::keyed_hash(&[9; 32], c)));
    Case {
        name: "identify",
        reference: "blake3 keyed",
        at_most: 1.05,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn compress() -> Case {
    let data: Arc<[u8]> = text(3, FRAME).into();
    let other = data.clone();
    let mut compressor = Compressor::new(Compression::Auto, u32::try_from(FRAME).unwrap()).unwrap();
    let mut bulk = zstd::bulk::Compressor::new(2).unwrap();
    let mut plain_out = vec![0; zstd::zstd_safe::compress_bound(FRAME)];
    let ours = move || _ = black_box(compressor.compress(&data));
    let plain = move || _ = black_box(bulk.compress_to_buffer(&other, &mut plain_out[..]).unwrap());
    Case {
        name: "compress a frame",
        reference: "zstd 2",
        at_most: 1.13,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn compressed(seed: u64) -> Vec<u8> {
    let mut compressor = Compressor::new(Compression::Auto, u32::try_from(FRAME).unwrap()).unwrap();
    let mut out = Vec::new();
    compressor.compress(&text(seed, FRAME)).write(&mut out);
    out.truncate(out.len() - TAG_LEN);
    out
}

fn expand() -> Case {
    let frame: Arc<[u8]> = compressed(4).into();
    let other = frame.clone();
    let mut expander = Expander::new();
    let mut bulk = zstd::bulk::Decompressor::new().unwrap();
    let (mut out, mut plain_out) = (Vec::new(), vec![0; FRAME]);
    let raw = u32::try_from(FRAME).unwrap();
    let ours = move || expander.expand(&frame, raw, black_box(&mut out)).unwrap();
    let plain = move || _ = black_box(bulk.decompress_to_buffer(&other[1..], &mut plain_out[..]).unwrap());
    Case {
        name: "expand a frame",
        reference: "zstd decode",
        at_most: 1.05,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn frame_key() -> FrameKey {
    PackHeader::create(PackKind::Data, &keyring(), &REPO, [5; 32]).unwrap().1
}

fn bare_key() -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &[6; 32]).unwrap())
}

fn seal() -> Case {
    let (mut ours, mut plain) = (text(5, FRAME), text(5, FRAME));
    let (key, bare) = (frame_key(), bare_key());
    let ours = move || {
        ours.resize(FRAME + TAG_LEN, 0);
        key.seal(0, &mut ours).unwrap();
    };
    let plain = move || {
        plain.truncate(FRAME);
        bare.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut plain)
            .unwrap();
    };
    Case {
        name: "seal a frame",
        reference: "ring",
        at_most: 1.05,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn open() -> Case {
    let (key, bare) = (frame_key(), bare_key());
    let (mut sealed, mut other) = (text(6, FRAME), text(6, FRAME));
    sealed.resize(FRAME + TAG_LEN, 0);
    key.seal(0, &mut sealed).unwrap();
    bare.seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut other).unwrap();
    let (mut buffer, mut plain_buffer) = (Vec::new(), Vec::new());
    let ours = move || {
        buffer.clone_from(&sealed);
        black_box(key.open(0, &mut buffer).unwrap());
    };
    let plain = move || {
        plain_buffer.clone_from(&other);
        black_box(
            bare.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut plain_buffer)
                .unwrap(),
        );
    };
    Case {
        name: "open a frame",
        reference: "ring",
        at_most: 1.05,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

const ENTRIES: u64 = 20_000;

/// Files as a source tree has them: sixteen to a directory, one chunk each.
fn entries() -> Vec<Entry> {
    let time = |n: u64| Timestamp { seconds: 1_700_000_000 + n.cast_signed(), nanos: 123_456_789 };
    let mut parent: Arc<[u8]> = Arc::from([]);
    (0..ENTRIES)
        .map(|n| {
            if n % 16 == 0 {
                parent = format!("home/project/folder-{n:08}").into_bytes().into();
            }
            let chunk = ChunkRef { id: ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()), len: 9000 };
            Entry {
                parent: parent.clone(),
                name: format!("file-{n:08}.txt").into_bytes(),
                kind: EntryKind::File {
                    size: 9000,
                    holes: Block::None,
                    content: Content::Inline(vec![chunk]),
                },
                mode: 0o644,
                uid: 1000,
                gid: 1000,
                mtime: time(n),
                ctime: time(n + 1),
                btime: Some(time(n)),
                atime: None,
                mount: 0,
                inode: 1_000_000 + n,
                links: 1,
                xattrs: Block::None,
                flags: EntryFlags::default(),
            }
        })
        .collect()
}

fn nodes(entries: &[Entry]) -> Vec<Vec<u8>> {
    let ring = keyring();
    let (split, id) = (ring.split_key(0).unwrap(), ring.id_key(0, ChunkKind::Meta).unwrap());
    let (mut builder, mut nodes) = (TreeBuilder::new(split, id), Vec::new());
    let mut sink = |_: ChunkId, node: Vec<u8>| -> Result<(), FormatError> {
        nodes.push(node);
        Ok(())
    };
    entries.iter().for_each(|e| builder.push(e, &mut sink).unwrap());
    builder.finish(&mut sink).unwrap();
    nodes
}

/// What cannot be avoided is one keyed hash of each key for the split rule, and the ids of the nodes.
fn tree_build() -> Case {
    let entries = entries();
    let bytes: usize = nodes(&entries).iter().map(Vec::len).sum();
    let ours = move || drop(black_box(nodes(&entries)));
    let plain = move || {
        let key = [7u8; 45];
        (0..ENTRIES).for_each(|_| _ = black_box(blake3::keyed_hash(&[8; 32], black_box(&key))));
        black_box(blake3::keyed_hash(&[8; 32], &vec![0; bytes]));
    };
    Case {
        name: "build a tree",
        reference: "one short blake3 an entry",
        at_most: 1.86,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// Reading is mostly two allocations an entry: name and chunk list.
fn tree_read() -> Case {
    let nodes: Vec<Vec<u8>> = nodes(&entries());
    let ours = move || nodes.iter().for_each(|n| drop(black_box(Node::decode(n).unwrap())));
    let plain = || {
        let pair = |n: u64| (vec![n.to_le_bytes()[0]; 17], vec![[0u8; 36]; 1]);
        drop(black_box((0..ENTRIES).map(pair).collect::<Vec<_>>()));
    };
    Case {
        name: "read a tree",
        reference: "two allocations an entry",
        at_most: 5.7,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// Records of an index run that is read, and of one that is looked into: few enough for the cache, where time is steady.
const READ: u32 = 100_000;
const LOOKED_INTO: u32 = 8_000;

fn key(n: u32) -> [u8; KEY_LEN] {
    *blake3::hash(&n.to_le_bytes()).as_bytes().first_chunk().unwrap()
}

/// A run of 32 packs.
fn index_run(records: u32) -> IndexRun {
    let (header, _) = PackHeader::create(PackKind::Data, &keyring(), &REPO, [5; 32]).unwrap();
    let mut run = IndexRun::new(CLIENT);
    let frame = FrameEntry { sealed: 1 << 20, raw: 4 << 20 };
    let size = HEADER_LEN as u64 + 16 * u64::from(frame.sealed) + 8192;
    let pack = |n: u8| IndexPack {
        name: PackName::new([n; 32]),
        size,
        run: RunId::new([n; 16]),
        signer: CLIENT,
        header,
        frames: vec![frame; 16],
    };
    run.packs = (0..32).map(pack).collect();
    run.records = (0..records)
        .map(|n| IndexRecord { key: key(n), pack: n % 32, offset: n % 512 * (128 << 10), len: 128 << 10 })
        .collect();
    run
}

/// Decoding checks order and bounds of every record; the reference hashes a copy, so both need fresh memory.
fn index_read() -> Case {
    let body = index_run(READ).encode();
    let other = body.clone();
    let ours = move || drop(black_box(IndexRun::decode(&body).unwrap()));
    let plain = move || _ = black_box(blake3::hash(&black_box(other.clone())));
    Case {
        name: "read an index run",
        reference: "blake3 of a copy",
        at_most: 2.45,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// Every second chunk asked for is there; the reference is a binary search in a sorted list.
fn index_look_up() -> Case {
    let env = Env::system("guard", "guard");
    let secret = SlotSecret::Key(Secret::new([6; 32]));
    let made = Repository::init(Arc::new(Memory::default()), &InitOptions::default(), &secret, env).unwrap();
    let IndexRun { packs, records, .. } = index_run(LOOKED_INTO);
    let mut writer = IndexWriter::new(&made.repository);
    for (number, pack) in (0u32..).zip(packs) {
        let of_pack = records.iter().filter(|r| r.pack == number).map(|r| (r.key, r.offset, r.len));
        writer.add(pack, of_pack.collect()).unwrap();
    }
    writer.flush().unwrap();
    let index = made.repository.open_index().unwrap();
    let mut keys: Vec<_> = (0..LOOKED_INTO).map(key).collect();
    keys.sort_unstable();
    let asked: Vec<ChunkId> = (LOOKED_INTO / 2..LOOKED_INTO * 3 / 2)
        .map(|n| ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes()))
        .collect();
    let other = asked.clone();
    let mut places = Vec::new();
    let ours = move || {
        let mut found = 0;
        for id in &asked {
            index.places(id, &mut places).unwrap();
            found += places.len();
        }
        assert_eq!(found, LOOKED_INTO as usize / 2);
    };
    let plain = move || {
        let known = other.iter().filter(|id| keys.binary_search(&record_key(id)).is_ok()).count();
        assert_eq!(known, LOOKED_INTO as usize / 2);
    };
    Case {
        name: "look up chunks",
        reference: "binary search",
        at_most: 1.03,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}
