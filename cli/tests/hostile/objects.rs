//! Small objects, whole areas and the store itself: what lies under a name it should not, what belongs to another
//! repository, what says more than a machine can hold, and what is no object at all.

use crate::forge::{Forge, open};
use crate::home::Home;
use crate::oracle::{Case, Codes, damaged, harmless};
use bulla_engine::format::cbor::Value;
use bulla_engine::format::codec::Write;
use bulla_engine::format::config::Config;
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::keys::{Keyring, Secret};
use bulla_engine::format::slot::{Slot, SlotSecret, parse_key};
use bulla_engine::format::{Area, ClientId, IndexName, ObjectName, PackName, RunId, SlotId};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

/// A sound snapshot of the file `f`.
fn sound(f: &mut Forge) {
    let entry = f.file(b"content");
    f.one(entry);
}

fn restored(home: &Home) {
    assert_eq!(home.read("out/f"), b"content");
}

/// The good snapshot restores; a check reports the rest.
const fn beside(name: &'static str, build: fn(&mut Forge)) -> Case {
    harmless(name, build).checks(&[4]).after(restored)
}

/// Nothing can be read, and every command says so.
const fn closed(name: &'static str, build: fn(&mut Forge)) -> Case {
    const NO: &[i32] = &[1, 4, 10, 12];
    Case { codes: Codes { check: NO, read: NO, list: NO, restore: NO }, ..damaged(name, build) }
}

pub fn cases() -> Vec<Case> {
    [swapped(), foreign(), slots(), configs(), snapshots(), verdicts(), floods(), stores()]
        .into_iter()
        .flatten()
        .collect()
}

const AREAS: [Area; 14] = [
    Area::Config,
    Area::Keys,
    Area::Packs,
    Area::Meta,
    Area::Index,
    Area::Announcements,
    Area::Verdicts,
    Area::Deaths,
    Area::Marks,
    Area::Holds,
    Area::Forgets,
    Area::Clients,
    Area::Records,
    Area::Parity,
];

/// Every object there is, once more under a name of this area.
fn everything_as(f: &mut Forge, name: impl Fn(u8, &[u8]) -> ObjectName) {
    sound(f);
    let store = f.repository.backend().clone();
    let mut all = Vec::new();
    for area in AREAS {
        all.extend(store.list(area).unwrap().into_iter().map(|(name, _)| store.get(&name, 1 << 30).unwrap()));
    }
    assert!(all.len() >= 6, "{} objects", all.len());
    for (n, bytes) in (1u8..).zip(&all) {
        f.put(&name(n, bytes), bytes);
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    *blake3::hash(bytes).as_bytes()
}

/// The name alone binds packs and index runs, so an object of another type has to be refused by its own bytes.
fn swapped() -> Vec<Case> {
    vec![
        // The newest generation decides; which is older cannot be known when it does not open.
        closed("every object as a config", |f| {
            everything_as(f, |n, _| ObjectName::Config(n.into()));
        }),
        beside("every object as a key slot", |f| {
            everything_as(f, |n, _| ObjectName::Slot(SlotId::new([n; 16])))
        })
        .checks(&[0, 4]),
        // In no index run: a pack of another kind, or none, is met when all is read.
        beside("every object as a data pack", |f| {
            everything_as(f, |_, b| ObjectName::Pack(PackName::new(hash(b))));
        })
        .checks(&[0])
        .reads(&[4]),
        beside("every object as a metadata pack", |f| {
            everything_as(f, |_, b| ObjectName::Meta(PackName::new(hash(b))));
        })
        .checks(&[0])
        .reads(&[4]),
        beside("every object as an index run", |f| {
            everything_as(f, |_, b| ObjectName::Index(IndexName { generation: 3, hash: hash(b) }));
        }),
        beside("every object as an announcement", |f| {
            everything_as(f, |n, _| ObjectName::Announcement(RunId::new([n; 16]), 0));
        }),
        beside("every object as a snapshot", |f| {
            everything_as(f, |n, _| ObjectName::Verdict(RunId::new([n; 16])));
        }),
        beside("every object as a death", |f| {
            everything_as(f, |n, _| ObjectName::Death(RunId::new([n; 16])))
        }),
        beside("every object as a mark", |f| everything_as(f, |n, _| ObjectName::Mark(RunId::new([n; 16])))),
        beside("every object as a hold", |f| everything_as(f, |n, _| ObjectName::Hold(RunId::new([n; 16])))),
        beside("every object as a forget", |f| {
            everything_as(f, |n, _| ObjectName::Forget(RunId::new([n; 16])))
        }),
        beside("every object as a certificate", |f| {
            everything_as(f, |n, _| ObjectName::Client(ClientId::new([n; 16])));
        }),
        beside("every object as a record", |f| {
            everything_as(f, |n, _| ObjectName::Record(ClientId::new([n; 16]), 0));
        }),
        beside("every object as a parity sidecar", |f| {
            everything_as(f, |_, b| ObjectName::Parity(PackName::new(hash(b))));
        })
        .checks(&[0, 4]),
        beside("a death of another under a living snapshot's name", |f| {
            sound(f);
            let death = f.repository.backend().get(&ObjectName::Verdict(f.run), 1 << 20).unwrap();
            f.put(&ObjectName::Death(f.run), &death);
        }),
        beside("an empty death of a living snapshot", |f| {
            sound(f);
            f.put(&ObjectName::Death(f.run), b"");
        }),
        beside("an empty forget of a living snapshot", |f| {
            sound(f);
            f.put(&ObjectName::Forget(f.run), b"");
        }),
    ]
}

/// Another repository of the same owner, with a snapshot, and its objects of one area copied into ours.
fn from_another(f: &mut Forge, areas: &[&str]) {
    sound(f);
    f.home.bulla("init -r other --key-file-out other.key").ok();
    f.home.write("src/f", b"content of another");
    f.home.bulla("backup -r other --key-file other.key src").ok();
    for area in areas {
        let from = f.home.path("other").join(area);
        let status = std::process::Command::new("cp").arg("-rn").arg(from).arg(f.home.path("repo")).status();
        assert!(status.unwrap().success());
    }
}

fn foreign() -> Vec<Case> {
    vec![
        beside("snapshots of another repository", |f| from_another(f, &["snap"])),
        beside("index runs of another repository", |f| from_another(f, &["index"])),
        beside("packs of another repository", |f| from_another(f, &["packs", "meta"]))
            .checks(&[0])
            .reads(&[4]),
        beside("key slots of another repository", |f| from_another(f, &["keys"])).checks(&[0, 4]),
        beside("all of another repository but its config", |f| {
            from_another(f, &["snap", "index", "packs", "meta", "pend", "keys"]);
        }),
        closed("the config of another repository", |f| {
            from_another(f, &[]);
            let other = open(&f.home, "other").backend().get(&ObjectName::Config(0), 1 << 20).unwrap();
            f.put(&ObjectName::Config(1), &other);
        }),
    ]
}

/// A passphrase slot with these parameters, its checksum right.
fn slot(f: &mut Forge, memory: u32, passes: u32, lanes: u32) {
    sound(f);
    let mut bytes = b"bulla\x01\x02\x01\x01\x00".to_vec();
    for n in [memory, passes, lanes] {
        bytes.put_u32(n);
    }
    bytes.extend([7; 382 - 22]);
    let checksum = *blake3::hash(&bytes).as_bytes();
    bytes.extend(checksum);
    f.put(&ObjectName::Slot(SlotId::new([1; 16])), &bytes);
    f.home.unset("BULLA_KEY_FILE");
    f.home.set("BULLA_PASSWORD", "guess");
}

fn slots() -> Vec<Case> {
    vec![
        closed("Argon2 memory of 2^32 - 1 KiB", |f| slot(f, u32::MAX, 3, 4)),
        closed("Argon2 passes of 2^32 - 1", |f| slot(f, 64 << 10, u32::MAX, 4)),
        closed("Argon2 lanes of 2^32 - 1", |f| slot(f, 64 << 10, 3, u32::MAX)),
        closed("Argon2 parameters of 2^32 - 1", |f| slot(f, u32::MAX, u32::MAX, u32::MAX)),
        closed("Argon2 parameters of zero", |f| slot(f, 0, 0, 0)),
        closed("Argon2 memory just above the cap", |f| slot(f, (1 << 20) + 1, 1, 1)),
        closed("Argon2 memory at the cap", |f| slot(f, 1 << 20, 1, 16)).argon2(1 << 30),
        beside("a thousand key slots", |f| {
            sound(f);
            for n in 0..1000u32 {
                let mut id = [0xff; 16];
                id[8..12].copy_from_slice(&n.to_le_bytes());
                f.put(&ObjectName::Slot(SlotId::new(id)), &[7; 414]);
            }
        }),
        beside("a key slot of 1 MiB", |f| {
            sound(f);
            f.put(&ObjectName::Slot(SlotId::new([0xff; 16])), &vec![7; 1 << 20]);
        }),
    ]
}

/// The config in force, as the next generation or in place of the first, as `twist` leaves it.
fn config(f: &mut Forge, twist: impl FnOnce(&mut Config)) {
    sound(f);
    let (store, repo) = (f.repository.backend().clone(), f.repository.id());
    let text = String::from_utf8(f.home.read("repo.key")).unwrap();
    let key = SlotSecret::Key(parse_key(text.lines().find(|l| !l.starts_with('#')).unwrap()).unwrap());
    let slots = store.list(Area::Keys).unwrap();
    let opened = slots.iter().find_map(|(name, _)| {
        Slot::decode(&store.get(name, 1000).unwrap(), 1 << 20).unwrap().open(&repo, &key).unwrap()
    });
    let ring_key = opened.unwrap().key;
    let first = store.get(&ObjectName::Config(0), 1 << 20).unwrap();
    let mut config = Config::open(&first, 0, &ring_key).unwrap();
    (config.generation, config.previous) = (1, Some(hash(&first)));
    twist(&mut config);
    f.put(&ObjectName::Config(1), &config.seal(&ring_key, &[9; 32]));
}

fn keyring(roots: usize, domains: usize) -> Keyring {
    let some = |n| (0..n).map(|_| Secret::new([3; 32])).collect();
    Keyring::new(some(roots), some(domains)).unwrap()
}

/// SPEC 5. A generation that is refused leaves the one before it in force, but never silently.
fn configs() -> Vec<Case> {
    vec![
        harmless("a next config as it should be", |f| config(f, |_| {})).after(restored),
        beside("a config that says it is another generation", |f| config(f, |c| c.generation = 7)),
        beside("a config without its predecessor", |f| config(f, |c| c.previous = None)),
        closed("a config with an unknown feature", |f| config(f, |c| c.incompat = 1 << 63)),
        harmless("a config that only newer programs may write to", |f| config(f, |c| c.ro_compat = 1))
            .after(restored),
        beside("a config of frames of 2^32 - 1 bytes", |f| config(f, |c| c.data_frame = u32::MAX)),
        beside("a config of frames of no bytes", |f| config(f, |c| c.meta_frame = 0)),
        beside("a config of packs of 2^64 - 1 bytes", |f| config(f, |c| c.data_pack = u64::MAX)),
        beside("a config of chunks of no bytes", |f| {
            config(f, |c| (c.chunker.min, c.chunker.avg, c.chunker.max) = (0, 0, 0))
        }),
        beside("a config of chunks of 2^32 - 1 bytes", |f| config(f, |c| c.chunker.max = u32::MAX)),
        // Other secrets: nothing there is opens any more.
        closed("a config of other secrets", |f| config(f, |c| c.keyring = keyring(1, 1))).codes_any(),
        closed("a config of 65,535 secrets", |f| config(f, |c| c.keyring = keyring(65_535, 65_535)))
            .codes_any(),
    ]
}

fn snapshots() -> Vec<Case> {
    vec![
        harmless("a snapshot with terminal escapes in every text", |f| {
            let entry = f.file(b"content");
            let root = f.meta(&crate::spell::leaf(&[(b"", b"f", entry)]));
            f.flush();
            f.index(|_| {});
            f.snapshot(root, |s| {
                let evil = || "\x1b[2J\x1b]0;owned\x07\r\u{9b}31m".to_owned();
                (s.host, s.user, s.os, s.program) = (evil(), evil(), evil(), evil());
                (s.tags, s.excludes) = (vec![evil()], vec![evil()]);
                s.paths = vec![evil().into_bytes()];
                s.errors = vec![(evil().into_bytes(), evil())];
                s.users = vec![(0, evil().into_bytes())];
            });
        })
        .after(restored),
        harmless("a snapshot at the ends of time", |f| {
            described(f, |s| {
                (s.start.seconds, s.end.seconds) = (i64::MIN, i64::MAX);
            })
        })
        .after(restored),
        harmless("a snapshot of all numbers at their ends", |f| {
            described(f, |s| {
                s.seq = u64::MAX;
                s.config_generation = u32::MAX;
                s.statistics.total_bytes = u64::MAX;
                s.statistics.files_new = u64::MAX;
                s.statistics.files_changed = u64::MAX;
            })
        })
        .after(restored),
        beside("a snapshot that has seen ten thousand that are gone", |f| {
            described(f, |s| {
                s.seen = (0..10_000u32)
                    .map(|n| {
                        let mut id = [0; 16];
                        id[..4].copy_from_slice(&n.to_le_bytes());
                        RunId::new(id)
                    })
                    .collect();
            })
        })
        // An alarm: either this store was set back, or it lies.
        .checks(&[9]),
        harmless("a snapshot that follows itself", |f| {
            described(f, |s| {
                s.seen = vec![s.id];
                s.parent = Some(s.id);
                s.origin = Some(s.id);
            })
        })
        .after(restored),
    ]
}

fn verdicts() -> Vec<Case> {
    vec![
        damaged("a snapshot under another run's name", |f| described(f, |s| s.id = RunId::new([8; 16])))
            .lists(&[1, 4])
            .restores(&[1, 4]),
        damaged("a snapshot signed by another than it names", |f| {
            described(f, |s| s.client = ClientId::new([8; 16]));
        })
        .lists(&[1, 4])
        .restores(&[1, 4]),
        damaged("a verdict that is neither", |f| verdict(f, Value::Map(vec![(1, Value::Uint(2))]).encode()))
            .lists(&[1, 4])
            .restores(&[1, 4]),
        damaged("a verdict of 2^64 - 1 entries", |f| verdict(f, [&[0xbb][..], &[0xff; 8]].concat()))
            .lists(&[1, 4])
            .restores(&[1, 4]),
        damaged("a verdict of a million nested lists", |f| verdict(f, vec![0x81; 1 << 20]))
            .lists(&[1, 4])
            .restores(&[1, 4]),
        damaged("a verdict of nothing", |f| verdict(f, Vec::new())).lists(&[1, 4]).restores(&[1, 4]),
        harmless("a million tags of no letters", |f| described(f, |s| s.tags = vec![String::new(); 1 << 20]))
            .restores(&[0, 1, 4])
            .lists(&[0, 1, 4])
            .checks(&[0, 4]),
        damaged("a verdict of forty million empty lists", |f| {
            let lists = [&[0x9a][..], &(40u32 << 20).to_be_bytes(), &vec![0x80; 40 << 20]].concat();
            verdict(f, [&[0xa1, 0x01][..], &lists].concat());
        })
        .lists(&[1, 4])
        .restores(&[1, 4]),
    ]
}

/// A sound tree below a snapshot that `twist` describes.
fn described(f: &mut Forge, twist: impl FnOnce(&mut bulla_engine::format::snapshot::Snapshot)) {
    let entry = f.file(b"content");
    let root = f.meta(&crate::spell::leaf(&[(b"", b"f", entry)]));
    f.flush();
    f.index(|_| {});
    f.snapshot(root, twist);
}

/// A verdict of any body, and nothing else.
fn verdict(f: &mut Forge, body: Vec<u8>) {
    f.object(&ObjectName::Verdict(f.run), ObjectType::Verdict, body);
}

fn floods() -> Vec<Case> {
    vec![
        beside("a thousand announcements that are none", |f| {
            flood(f, |id| ObjectName::Announcement(id, u32::MAX));
        }),
        beside("a thousand holds that are none", |f| flood(f, ObjectName::Hold)),
        beside("a thousand marks that are none", |f| flood(f, ObjectName::Mark)),
        beside("a thousand snapshots that are none", |f| flood(f, ObjectName::Verdict)),
        beside("a thousand index runs that are none", |f| {
            flood(f, |id| {
                let mut hash = [0; 32];
                hash[..16].copy_from_slice(id.as_bytes());
                ObjectName::Index(IndexName { generation: 0, hash })
            });
        }),
    ]
}

fn flood(f: &mut Forge, name: impl Fn(RunId) -> ObjectName) {
    sound(f);
    for n in 0..1000u32 {
        let mut id = [0x99; 16];
        id[..4].copy_from_slice(&n.to_le_bytes());
        f.put(&name(RunId::new(id)), &[7; 500]);
    }
}

/// One path in every area that is made of `<id>` or `<hash>` only.
fn everywhere(f: &mut Forge, make: impl Fn(&Path)) {
    sound(f);
    let (id, hash) = ("ab".repeat(16), "ab".repeat(32));
    for name in [
        format!("keys/{id}"),
        format!("packs/ab/{hash}"),
        format!("meta/ab/{hash}"),
        format!("index/00000001-{hash}"),
        format!("pend/{id}.00000001"),
        format!("snap/{id}"),
        format!("gone/{id}"),
        format!("marks/{id}"),
        format!("locks/{id}"),
        format!("forget/{id}"),
        format!("clients/{id}"),
        format!("parity/ab/{hash}"),
    ] {
        let path = f.home.path("repo").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        make(&path);
    }
}

fn mkfifo(path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
}

/// A store is a directory that somebody else writes to.
fn stores() -> Vec<Case> {
    const ODD: &[i32] = &[0, 1, 4];
    vec![
        // Opening one would wait for ever.
        harmless("pipes in place of objects", |f| {
            everywhere(f, mkfifo);
        })
        .checks(ODD)
        .after(restored),
        harmless("links to a device without end in place of objects", |f| {
            everywhere(f, |p| symlink("/dev/zero", p).unwrap());
        })
        .checks(ODD)
        .after(restored),
        harmless("links to nothing in place of objects", |f| {
            everywhere(f, |p| symlink("nowhere", p).unwrap())
        })
        .checks(ODD)
        .after(restored),
        harmless("directories in place of objects", |f| everywhere(f, |p| fs::create_dir(p).unwrap()))
            .checks(ODD)
            .after(restored),
        harmless("empty files in place of objects", |f| everywhere(f, |p| fs::write(p, b"").unwrap()))
            .checks(&[4])
            .after(restored),
        harmless("names that are no objects", |f| {
            sound(f);
            for name in ["snap/..ABCDEF", "snap/\x1b[2J", "packs/x", "index/new", "config/1", "keys/key.txt"]
            {
                f.home.write(&format!("repo/{name}"), b"x");
            }
        })
        .checks(ODD)
        .after(restored),
        harmless("a file without content of 2^40 bytes as a snapshot", |f| {
            everywhere(f, |_| {});
            let path = f.home.path("repo").join(format!("snap/{}", "cd".repeat(16)));
            fs::File::create(path).unwrap().set_len(1 << 40).unwrap();
        })
        .checks(ODD)
        .after(restored),
    ]
}
