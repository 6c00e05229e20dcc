//! Packs that are sealed and signed as they should be, and hold or say what they should not.

use crate::forge::{Forge, Pack, stored};
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::{Ref, file};
use bulla_engine::format::index::{IndexRecord, record_key};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::{ChunkEntry, Directory, FrameEntry, PackKind};
use bulla_engine::format::{ChunkId, ObjectName, PackName};

const MIB: usize = 1 << 20;

fn id(f: &Forge, bytes: &[u8]) -> ChunkId {
    f.repository.keyring().id_key(0, ChunkKind::Data).unwrap().identify(bytes)
}

fn data(frames: Vec<(Vec<u8>, u32)>, chunks: Vec<ChunkEntry>) -> Pack {
    Pack { kind: PackKind::Data, frames, chunks, area: None, trailing: Vec::new() }
}

/// A snapshot of the file `f`, whose one chunk `plain` lies in a pack of this frame.
fn framed(f: &mut Forge, plain: &[u8], payload: Vec<u8>, raw: u32) {
    let (id, len) = (id(f, plain), plain.len() as u32);
    f.pack(data(vec![(payload, raw)], vec![ChunkEntry { id, len }]), |_| {});
    f.one(file(len.into(), &[(id, len.into())]));
}

/// A snapshot of the file `f` of one chunk, whose pack says of itself what `twist` leaves.
fn twisted(f: &mut Forge, twist: impl FnOnce(&mut Directory)) {
    let id = id(f, b"four");
    f.pack(data(vec![stored(b"four")], vec![ChunkEntry { id, len: 4 }]), twist);
    f.one(file(4, &[(id, 4)]));
}

/// A zstd frame (RFC 8878) of one run-length block after another: 4 bytes stand for 128 KiB.
fn bomb(claimed: u64, blocks: usize) -> Vec<u8> {
    let mut out = vec![1, 0x28, 0xb5, 0x2f, 0xfd, 0b1110_0000];
    out.extend(claimed.to_le_bytes());
    for n in 0..blocks {
        let size: u32 = 128 << 10;
        let header = size << 3 | 1 << 1 | u32::from(n + 1 == blocks);
        out.extend(&header.to_le_bytes()[..3]);
        out.push(b'A');
    }
    out
}

fn absent(home: &Home) {
    assert!(!home.path("out/f").exists(), "a file with wrong content was left");
}

/// Only who reads the content can know.
const fn in_content(name: &'static str, build: fn(&mut Forge)) -> Case {
    damaged(name, build).lists(&[0, 4]).checks(&[0, 4]).reads(&[4]).after(absent)
}

pub fn cases() -> Vec<Case> {
    [frames(), directories(), whole()].into_iter().flatten().collect()
}

fn frames() -> Vec<Case> {
    vec![
        in_content("a frame that expands beyond its table", |f| framed(f, b"four", bomb(4, 8), 4)),
        in_content("a frame that claims 2^64 - 1 bytes", |f| framed(f, b"four", bomb(u64::MAX, 8), 4)),
        in_content("a frame that expands 31,000 : 1 to what it does not say", |f| {
            framed(f, b"four", bomb(8 << 20, 64), 4);
        }),
        in_content("a frame shorter than its table", |f| framed(f, &[b'A'; MIB], bomb(8 << 20, 8), 8 << 20)),
        harmless("two GiB in frames that expand 31,000 : 1", |f| {
            // A file of 64 MiB, each chunk of it anew the only one of its pack.
            let plain = vec![b'A'; 8 * MIB];
            let id = id(f, &plain);
            let chunk = ChunkEntry { id, len: 8 << 20 };
            f.pack(data(vec![(bomb(8 << 20, 64), 8 << 20); 255], vec![chunk; 255]), |_| {});
            f.one(file(64 << 20, &[(id, 8 << 20); 8]));
        })
        .after(|h| assert_eq!(h.path("out/f").metadata().unwrap().len(), 64 << 20)),
        in_content("a frame with a window of 2^41", |f| {
            let frame =
                vec![1, 0x28, 0xb5, 0x2f, 0xfd, 0b1100_0000, 0xff, 4, 0, 0, 0, 0, 0, 0, 0, 0x23, 0, 0, b'A'];
            framed(f, b"AAAA", frame, 4);
        }),
        in_content("a frame with a dictionary", |f| {
            framed(f, b"AAAA", vec![1, 0x28, 0xb5, 0x2f, 0xfd, 0b0010_0001, 7, 4, 0x23, 0, 0, b'A'], 4);
        }),
        in_content("two zstd frames in one", |f| {
            let one = [0x28, 0xb5, 0x2f, 0xfd, 0b0010_0000, 4, 0x23, 0, 0, b'A'];
            framed(f, b"AAAA", [&[1][..], &one, &one].concat(), 4);
        }),
        in_content("a frame that is no zstd", |f| framed(f, b"four", vec![1, 1, 2, 3, 4, 5, 6, 7, 8], 4)),
        in_content("a frame of an unknown codec", |f| framed(f, b"four", b"\x03four".to_vec(), 4)),
        in_content("a frame with a reserved codec", |f| framed(f, b"four", b"\x02four".to_vec(), 4)),
        in_content("a frame that is padding", |f| framed(f, b"four", vec![0xff; 5], 4)),
        in_content("a stored frame longer than its table", |f| framed(f, b"four", b"\0fourfour".to_vec(), 4)),
        in_content("a frame of other bytes than its chunk", |f| framed(f, b"four", b"\0five".to_vec(), 4)),
        in_content("a frame of nothing", |f| framed(f, b"four", Vec::new(), 4)),
    ]
}

/// What the directory says: the index repeats the frames, and is refused where they break the rules.
fn directories() -> Vec<Case> {
    vec![
        damaged("a frame of 2^32 - 1 plain bytes", |f| twisted(f, |d| d.frames[0].raw = u32::MAX)),
        damaged("a frame of 2^32 - 1 sealed bytes", |f| twisted(f, |d| d.frames[0].sealed = u32::MAX)),
        damaged("frames that do not reach their directory", |f| twisted(f, |d| d.frames[0].sealed -= 1))
            .lists(&[0, 4])
            .checks(&[0, 4])
            .reads(&[4]),
        damaged("padding before a frame", |f| {
            twisted(f, |d| d.frames.insert(0, FrameEntry { sealed: 17, raw: 0 }));
        }),
        // The index says where the chunk is, and it is there: only who reads the directory sees the lie.
        harmless("a chunk of length 0 in a directory", |f| {
            twisted(f, |d| d.chunks.push(ChunkEntry { id: ChunkId::new([9; 32]), len: 0 }));
        })
        .checks(&[0, 4]),
        harmless("a chunk of 2^32 - 1 bytes in a directory", |f| {
            twisted(f, |d| d.chunks[0].len = u32::MAX);
        })
        .checks(&[0, 4]),
        harmless("a directory that names other chunks", |f| {
            twisted(f, |d| d.chunks[0].id = ChunkId::new([9; 32]));
        })
        .checks(&[0, 4]),
        harmless("a directory of 65,537 frames", |f| {
            let id = id(f, b"four");
            let pack = data(vec![stored(b"four")], vec![ChunkEntry { id, len: 4 }]);
            let kept = f.sealed(&pack, |_| {});
            f.put(&ObjectName::Pack(kept.0.name), &kept.1);
            f.pack(pack, |d| d.frames = vec![d.frames[0]; 65_537]);
            // Listed with the frames it has, so that only its tail lies.
            f.packs[0].frames.truncate(1);
            f.one(file(4, &[(id, 4)]));
        })
        .checks(&[0, 4])
        .restores(&[0, 4]),
    ]
}

/// A pack whose bytes are put as `twist` leaves them, under the name they then have.
fn altered(f: &mut Forge, twist: impl FnOnce(&mut Vec<u8>)) {
    let id = id(f, b"four");
    let pack = data(vec![stored(b"four")], vec![ChunkEntry { id, len: 4 }]);
    let (mut listed, mut bytes) = f.sealed(&pack, |_| {});
    twist(&mut bytes);
    listed.name = PackName::new(*blake3::hash(&bytes).as_bytes());
    listed.size = bytes.len() as u64;
    f.put(&ObjectName::Pack(listed.name), &bytes);
    let key = record_key(&id);
    f.records.push(IndexRecord { key, pack: 0, offset: 0, len: 4 });
    f.packs.push(listed);
    let chunk: Ref = (id, 4);
    f.one(file(4, &[chunk]));
}

fn whole() -> Vec<Case> {
    vec![
        in_content("a pack of which a frame was changed", |f| altered(f, |b| b[90] ^= 1)),
        harmless("a pack with another header in front than behind", |f| altered(f, |b| b[20] ^= 1))
            .checks(&[0, 4]),
        harmless("a pack with bytes behind its trailer", |f| altered(f, |b| b.extend([0; 100])))
            .checks(&[0, 4]),
        harmless("a pack without a trailer", |f| altered(f, |b| b.truncate(b.len() - 136))).checks(&[0, 4]),
        in_content("a pack cut before its frames", |f| altered(f, |b| b.truncate(84))),
        in_content("a pack of nothing", |f| altered(f, Vec::clear)),
        harmless("a data pack among the metadata", |f| {
            let id = id(f, b"four");
            let frames = vec![stored(b"four")];
            let chunks = vec![ChunkEntry { id, len: 4 }];
            f.pack(Pack { area: Some(PackKind::Meta), ..data(frames, chunks) }, |_| {});
            f.one(file(4, &[(id, 4)]));
        })
        .checks(&[4])
        .restores(&[4]),
        harmless("a pack that no index lists", |f| {
            let id = id(f, b"four");
            f.pack(data(vec![stored(b"four")], vec![ChunkEntry { id, len: 4 }]), |_| {});
            (f.packs, f.records) = Default::default();
            let other = f.file(b"content");
            f.one(other);
        }),
        in_content("a pack under a name that is not its hash", |f| {
            let id = id(f, b"four");
            let (mut listed, bytes) =
                f.sealed(&data(vec![stored(b"five")], vec![ChunkEntry { id, len: 4 }]), |_| {});
            listed.name = PackName::new([7; 32]);
            f.put(&ObjectName::Pack(listed.name), &bytes);
            let key = record_key(&id);
            f.records.push(IndexRecord { key, pack: 0, offset: 0, len: 4 });
            f.packs.push(listed);
            f.one(file(4, &[(id, 4)]));
        }),
    ]
}
