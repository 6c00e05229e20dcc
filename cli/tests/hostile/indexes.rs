//! Index runs that point where nothing is, or at something else. They are hints: a chunk is identified wherever it was
//! found, and a run that breaks a rule is skipped.

use crate::forge::{Forge, Pack, stored};
use crate::home::Home;
use crate::oracle::{Case, damaged, harmless};
use crate::spell::file;
use bulla_engine::format::envelope::{self, Header, ObjectType};
use bulla_engine::format::index::{IndexRecord, IndexRun, RECORD_LEN};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::{ChunkEntry, PackKind};
use bulla_engine::format::{ChunkId, ClientId, IndexName, ObjectName, PackName};

/// A snapshot of the file `f` with the content `four`, and `g` with `five`; the index run is what `twist` leaves.
/// Records 0 and 1 are theirs, record 2 is the root's; packs 0 and 1 hold data and metadata.
fn listed(f: &mut Forge, twist: impl FnOnce(&mut IndexRun)) {
    let root = content(f);
    f.index(twist);
    f.snapshot(root, |_| {});
}

fn content(f: &mut Forge) -> ChunkId {
    let (four, five) = (f.data(b"four"), f.data(b"five"));
    let node = crate::spell::leaf(&[(b"", b"f", file(4, &[four])), (b"", b"g", file(4, &[five]))]);
    let root = f.meta(&node);
    f.flush();
    root
}

/// The same, the body of the run as bytes.
fn spelled(f: &mut Forge, twist: impl FnOnce(&mut Vec<u8>)) {
    let root = content(f);
    let mut run = IndexRun::new(f.repository.client().id());
    (run.packs, run.records) = (f.packs.clone(), f.records.clone());
    let mut body = run.encode();
    twist(&mut body);
    f.index_body(0, body);
    f.snapshot(root, |_| {});
}

fn absent(home: &Home) {
    assert!(!home.path("out/f").exists(), "a file with wrong content was left");
}

fn restored(home: &Home) {
    assert_eq!((home.read("out/f"), home.read("out/g")), (b"four".to_vec(), b"five".to_vec()));
}

/// The run is skipped, and with it all that the snapshot has.
const fn refused(name: &'static str, build: fn(&mut Forge)) -> Case {
    damaged(name, build).after(absent)
}

/// One file is not where the run says; the other one is.
const fn misled(name: &'static str, build: fn(&mut Forge)) -> Case {
    damaged(name, build).lists(&[0]).checks(&[0, 4]).after(absent)
}

pub fn cases() -> Vec<Case> {
    [rules(), places(), packs(), many()].into_iter().flatten().collect()
}

/// SPEC 10.
fn rules() -> Vec<Case> {
    vec![
        refused("a record beyond its pack", |f| listed(f, |run| run.records[0].offset = 8)),
        refused("a record at 2^32 - 1", |f| listed(f, |run| run.records[0].offset = u32::MAX)),
        refused("a record of an unknown pack", |f| listed(f, |run| run.records[0].pack = 2)),
        refused("a record of pack 2^32 - 1", |f| listed(f, |run| run.records[0].pack = u32::MAX)),
        refused("a record of length 0", |f| listed(f, |run| run.records[0].len = 0)),
        refused("a record of 2^32 - 1 bytes", |f| listed(f, |run| run.records[0].len = u32::MAX)),
        refused("2^32 - 1 inputs", |f| spelled(f, |b| b[16..20].fill(0xff))),
        refused("2^32 - 1 graves", |f| spelled(f, |b| b[20..24].fill(0xff))),
        refused("2^32 - 1 packs", |f| spelled(f, |b| b[24..28].fill(0xff))),
        refused("2^32 - 1 records", |f| spelled(f, |b| b[28..32].fill(0xff))),
        refused("a pack of 2^32 - 1 frames", |f| spelled(f, |b| b[32 + 156..32 + 160].fill(0xff))),
        refused("a record twice", |f| {
            spelled(f, |b| {
                let last = b[b.len() - RECORD_LEN..].to_vec();
                b.extend(last);
                b[28] += 1;
            });
        }),
        refused("records that descend", |f| {
            spelled(f, |b| {
                let at = b.len() - RECORD_LEN;
                let last: Vec<u8> = b.drain(at..).collect();
                let first = at - 2 * RECORD_LEN;
                b.splice(first..first, last);
            });
        }),
        refused("a run with bytes behind it", |f| spelled(f, |b| b.push(0))),
        refused("a run cut in the middle", |f| spelled(f, |b| b.truncate(100))),
        refused("a run of nothing", |f| spelled(f, Vec::clear)),
        refused("a run signed by another than it names", |f| {
            spelled(f, |b| b[..16].copy_from_slice(&[7; 16]));
        }),
        refused("a run that names nobody", |f| listed(f, |run| run.signer = ClientId::new([0; 16]))),
    ]
}

fn places() -> Vec<Case> {
    vec![
        harmless("a run as it should be", |f| listed(f, |_| {})).after(restored),
        misled("a record that points at another chunk", |f| {
            listed(f, |run| run.records[0].offset = 4);
        }),
        misled("records that overlap", |f| listed(f, |run| run.records[0].offset = 2)),
        misled("a record longer than its chunk", |f| listed(f, |run| run.records[0].len = 8)),
        misled("a record shorter than its chunk", |f| listed(f, |run| run.records[0].len = 3)),
        misled("a data chunk in a metadata pack", |f| listed(f, |run| run.records[0].pack = 1)),
        refused("a node in a data pack", |f| {
            listed(f, |run| {
                (run.records[2].pack, run.records[2].len) = (0, 4);
                run.records[2].offset = 0;
            });
        }),
        // The first place is wrong, the second right.
        harmless("a wrong place besides the right one", |f| {
            listed(f, |run| {
                let mut other = run.records[0];
                other.offset = 4;
                run.records.push(other);
            });
        })
        .after(restored),
        misled("20 bytes of an id that are those of another", |f| {
            listed(f, |run| run.records[0].key = run.records[1].key);
        }),
    ]
}

fn packs() -> Vec<Case> {
    vec![
        misled("a pack that is not there", |f| listed(f, |run| run.packs[0].name = PackName::new([7; 32])))
            .checks(&[4]),
        harmless("a pack of another size", |f| listed(f, |run| run.packs[0].size += 1)).checks(&[4]),
        refused("a pack of 2^64 - 1 bytes", |f| listed(f, |run| run.packs[0].size = u64::MAX)),
        refused("frames that reach beyond their pack", |f| listed(f, |run| run.packs[0].size = 100)),
        misled("frames of other sealed lengths", |f| {
            listed(f, |run| {
                run.packs[0].frames[0].sealed += 1;
                run.packs[0].frames[1].sealed -= 1;
            });
        }),
        misled("frames of other plain lengths", |f| {
            listed(f, |run| {
                run.packs[0].frames[0].raw += 2;
                run.packs[0].frames[1].raw -= 2;
            });
        }),
        misled("a pack with the header of another", |f| {
            listed(f, |run| run.packs[0].header.salt = [7; 32]);
        }),
        misled("a pack of an epoch there is not", |f| listed(f, |run| run.packs[0].header.epoch = 9)),
        misled("a pack of a domain there is not", |f| listed(f, |run| run.packs[0].header.domain = 9)),
        misled("a data pack that says it is metadata", |f| {
            listed(f, |run| run.packs[0].header.kind = PackKind::Meta);
        })
        .checks(&[4]),
        misled("a grave for a pack that is needed", |f| {
            listed(f, |run| run.graves.push(run.packs[0].name));
        })
        .checks(&[4]),
        harmless("a grave for a pack that never was", |f| {
            listed(f, |run| run.graves.push(PackName::new([7; 32])));
        })
        .after(restored),
        harmless("a run that says it was merged from itself and from others", |f| {
            listed(f, |run| {
                run.inputs = vec![IndexName { generation: u32::MAX, hash: [7; 32] }; 3];
            });
        })
        .after(restored),
        harmless("a run under the name of another generation", |f| {
            let root = content(f);
            let mut run = IndexRun::new(f.repository.client().id());
            (run.packs, run.records) = (f.packs.clone(), f.records.clone());
            let body = run.encode();
            f.index_body(u32::MAX - 1, body);
            f.snapshot(root, |_| {});
        })
        .after(restored),
        refused("a run sealed for another type", |f| {
            let root = content(f);
            let mut run = IndexRun::new(f.repository.client().id());
            (run.packs, run.records) = (f.packs.clone(), f.records.clone());
            let (repo, ring) = (f.repository.id(), f.repository.keyring());
            let body = envelope::signed(run.encode(), ObjectType::Mark, &repo, f.repository.client());
            let key = ring.envelope_key(0, ObjectType::Mark).unwrap();
            let bytes = envelope::seal(&Header::derived(ObjectType::Mark, 0), &repo, &key, &[1; 32], &body);
            let name = IndexName { generation: 0, hash: *blake3::hash(&bytes).as_bytes() };
            f.put(&ObjectName::Index(name), &bytes);
            f.snapshot(root, |_| {});
        }),
    ]
}

fn many() -> Vec<Case> {
    vec![
        // All that a run can hold for one chunk; the right place is the last.
        harmless("a chunk with half a million places", |f| {
            let plain = [0; 2048];
            let id = f.repository.keyring().id_key(0, ChunkKind::Data).unwrap().identify(&[1; 8]);
            let frames = vec![stored(&plain), stored(&[1; 8])];
            let chunks = vec![ChunkEntry { id, len: 8 }];
            f.pack(Pack { kind: PackKind::Data, frames, chunks, area: None, trailing: Vec::new() }, |_| {});
            let first = f.records[0];
            f.records[0].offset = 2048;
            // Every length at every offset: half a million pieces that are not it.
            for offset in 0..1800 {
                for len in 1..250 {
                    f.records.push(IndexRecord { offset, len, ..first });
                }
            }
            f.one(file(128, &[(id, 8); 16]));
        })
        .checks(&[0, 4]),
        harmless("2^18 packs", |f| {
            let root = content(f);
            f.index(|_| {});
            let mut run = IndexRun::new(f.repository.client().id());
            let pack = f.sealed(
                &Pack {
                    kind: PackKind::Data,
                    frames: Vec::new(),
                    chunks: Vec::new(),
                    area: None,
                    trailing: Vec::new(),
                },
                |_| {},
            );
            run.packs = vec![pack.0; 1 << 18];
            let body = run.encode();
            drop(run);
            f.index_body(0, body);
            f.snapshot(root, |_| {});
        })
        .checks(&[4])
        .after(restored),
        harmless("2^20 graves", |f| {
            let root = content(f);
            f.index(|_| {});
            let mut run = IndexRun::new(f.repository.client().id());
            run.graves = (0..1u32 << 20)
                .map(|n| {
                    let mut name = [0; 32];
                    name[..4].copy_from_slice(&n.to_le_bytes());
                    PackName::new(name)
                })
                .collect();
            let body = run.encode();
            drop(run);
            f.index_body(0, body);
            f.snapshot(root, |_| {});
        })
        .after(restored),
    ]
}
