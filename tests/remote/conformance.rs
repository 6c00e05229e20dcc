//! What every backend keeps, whatever it is made of: the contract in words at `engine/src/backend/mod.rs`, and whole verbs.

use super::servers::{RestServer, S3, find, shows_a_secret, store, store_with};
use crate::support::{backup, contents, init, noise, on_disk, open, populate};
use bulla_engine::backend::{Backend, BackendError, Local, Memory, Put};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ClientId, IndexName, ObjectName, PackName, RunId, SlotId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, PruneOptions};
use std::collections::BTreeSet;
use std::sync::Arc;

/// More than a page of any listing.
const MANY: usize = 2100;

fn pack(n: u32) -> ObjectName {
    ObjectName::Pack(PackName::new(*blake3::hash(&n.to_le_bytes()).as_bytes()))
}

/// One name of each area.
fn names() -> Vec<ObjectName> {
    let (p, r, c) = (PackName::new([0xab; 32]), RunId::new([1; 16]), ClientId::new([2; 16]));
    let all = vec![
        ObjectName::Config(7),
        ObjectName::Slot(SlotId::new([9; 16])),
        ObjectName::Pack(p),
        ObjectName::Meta(p),
        ObjectName::Parity(p),
        ObjectName::Index(IndexName { generation: 3, hash: [4; 32] }),
        ObjectName::Announcement(r, 17),
        ObjectName::Verdict(r),
        ObjectName::Death(r),
        ObjectName::Mark(r),
        ObjectName::Hold(r),
        ObjectName::Forget(r),
        ObjectName::Client(c),
        ObjectName::Record(c, u64::MAX),
    ];
    assert_eq!(all.len(), Area::ALL.len());
    all
}

fn objects(store: &dyn Backend) {
    for name in names() {
        assert!(store.list(name.area()).unwrap().is_empty(), "{name}");
        assert_eq!(store.stat(&name).unwrap(), None);
        assert!(matches!(store.get(&name, 9), Err(BackendError::NotFound { .. })), "{name}");
        let error = store.get_range(&name, 0, 1).unwrap_err();
        assert!(matches!(error, BackendError::NotFound { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&name.to_string()) && text.contains(&store.describe().place), "{text}");
        assert!(!shows_a_secret(&text), "{text}");
        assert_eq!(store.put(&name, &[b"one", b"", b"two"]).unwrap(), Put::Created, "{name}");
        assert_eq!(store.get(&name, 6).unwrap(), b"onetwo");
        assert_eq!(store.list(name.area()).unwrap(), [(name, 6)]);
        assert_eq!(store.stat(&name).unwrap().unwrap().size, 6);
    }
    store.flush().unwrap();
    for name in names() {
        store.delete(&name).unwrap();
        store.delete(&name).unwrap();
        assert_eq!(store.stat(&name).unwrap(), None);
        assert!(store.list(name.area()).unwrap().is_empty(), "{name}");
    }
    store.settle().unwrap();
}

fn bytes(store: &dyn Backend) {
    let (name, data) = (pack(0), noise("a large object", (20 << 20) + 12_345));
    let parts: Vec<&[u8]> = data.chunks(3 << 20).collect();
    assert_eq!(store.put(&name, &parts).unwrap(), Put::Created);
    assert!(store.get(&name, 1 << 40).unwrap() == data);
    assert!(store.get_stored(&name, data.len() as u64).unwrap() == data);
    for (offset, len) in [(0, 1), (0, data.len()), (12_345_678, 1), (5_000_000, 7 << 20), (data.len() - 1, 1)]
    {
        let read = store.get_range(&name, offset as u64, len).unwrap();
        assert!(read == data[offset..offset + len], "{len} bytes at {offset}");
    }
    assert!(store.get_range(&name, 5, 0).unwrap().is_empty());
    let size = data.len() as u64;
    for (offset, len) in [(size - 1, 2), (size, 1), (size + 9, 1), (0, data.len() + 1)] {
        match store.get_range(&name, offset, len) {
            Err(BackendError::Short { size: s, wanted, .. }) => {
                assert_eq!((s, wanted), (size, offset + len as u64))
            }
            other => panic!("{len} bytes at {offset}: {:?}", other.map(|b| b.len())),
        }
    }
    match store.get(&name, size - 1) {
        Err(BackendError::TooLong { size: s, limit, .. }) => assert_eq!((s, limit), (size, size - 1)),
        other => panic!("{:?}", other.map(|b| b.len())),
    }
    store.heal(&name, &[b"hea", b"led"]).unwrap();
    assert_eq!(store.get(&name, 100).unwrap(), b"healed");
    assert_eq!(store.stat(&name).unwrap().unwrap().size, 6);
    store.put(&pack(1), &[]).unwrap();
    assert!(store.get(&pack(1), 0).unwrap().is_empty());
    store.delete(&name).unwrap();
    store.delete(&pack(1)).unwrap();
}

/// Put-if-absent, and of several writers exactly one.
fn once(store: &dyn Backend) {
    let exact = store.conditional_put().unwrap();
    let name = ObjectName::Config(3);
    assert_eq!(store.put(&name, &[b"first"]).unwrap(), Put::Created);
    assert_eq!(store.put(&name, &[b"second"]).unwrap(), Put::Exists);
    assert_eq!(store.get(&name, 99).unwrap(), b"first");
    store.delete(&name).unwrap();
    for round in 0..if exact { 5u8 } else { 0 } {
        let name = ObjectName::Verdict(RunId::new([round; 16]));
        let created: usize = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8)
                .map(|n| scope.spawn(move || store.put(&name, &[&[n; 1000]]).unwrap() == Put::Created))
                .collect();
            writers.into_iter().map(|w| usize::from(w.join().unwrap())).sum()
        });
        assert_eq!(created, 1, "round {round}");
        let there = store.get(&name, 1000).unwrap();
        assert!(there.len() == 1000 && there.iter().all(|b| *b == there[0]));
        store.delete(&name).unwrap();
    }
}

fn many(store: &dyn Backend) {
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || {
                for n in (part..MANY).step_by(4) {
                    store.put(&pack(n as u32), &[&n.to_le_bytes()[..n % 8]]).unwrap();
                }
            });
        }
    });
    store.put(&ObjectName::Meta(PackName::new([1; 32])), &[b"of another area"]).unwrap();
    let expected: BTreeSet<_> = (0..MANY).map(|n| (pack(n as u32), (n % 8) as u64)).collect();
    let listed = store.list(Area::Packs).unwrap();
    assert_eq!(listed.len(), MANY, "each once");
    assert!(listed.into_iter().collect::<BTreeSet<_>>() == expected);
    store.delete(&ObjectName::Meta(PackName::new([1; 32]))).unwrap();
    std::thread::scope(|scope| {
        for part in 0..4 {
            scope.spawn(move || (part..MANY).step_by(4).for_each(|n| store.delete(&pack(n as u32)).unwrap()));
        }
    });
    assert!(store.list(Area::Packs).unwrap().is_empty());
}

/// Backup, backup again, forget, prune, check of all data, contents.
fn verbs(store: Arc<dyn Backend>) {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let repository = init(store.clone());
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    std::fs::write(dir.path().join("d1/noise"), noise("changed", 200_000)).unwrap();
    let repository = open(store.clone(), 2).unwrap();
    let second = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let expected = on_disk(dir.path());
    assert_eq!(contents(&repository, &second).unwrap(), expected);
    crate::support::forget(&repository, &first.id, true, "test").unwrap();
    let options = PruneOptions { max_unused: prune::MaxUnused::Bytes(0), ..PruneOptions::default() };
    for _ in 0..2 {
        prune::run(&repository, &options, &Silent).unwrap();
    }
    let fresh = open(store, 3).unwrap();
    assert_eq!(fresh.snapshots().unwrap().len(), 1);
    assert_eq!(contents(&fresh, &second).unwrap(), expected);
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check::run(&fresh, &options, &Silent).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

/// All of it, in stores that `new` makes.
fn conforms(new: impl Fn() -> Arc<dyn Backend>) {
    let store = new();
    objects(&*store);
    bytes(&*store);
    once(&*store);
    many(&*store);
    verbs(new());
}

fn prepared(url: &str) -> Arc<dyn Backend> {
    let opened = store(url);
    opened.prepare().unwrap();
    opened.prepare().unwrap();
    opened.backend()
}

#[test]
fn memory_conforms() {
    conforms(|| Arc::new(Memory::new()));
}

#[test]
fn local_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let n = std::sync::atomic::AtomicU32::new(0);
    conforms(|| {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let local = Local::new(dir.path().join(n.to_string()));
        local.create_layout().unwrap();
        Arc::new(local)
    });
}

#[test]
fn s3_conforms() {
    let Some(server) = S3::seaweed() else { return };
    conforms(|| prepared(&server.url()));
    assert!(store(&server.url()).backend().conditional_put().unwrap());
}

/// A store that replaces: it is told apart, and everything but the race of two writers holds all the same.
#[test]
fn s3_without_conditional_puts_conforms_and_is_told_apart() {
    let Some(server) = S3::rclone() else { return };
    conforms(|| prepared(&server.url()));
    assert!(!store(&server.url()).backend().conditional_put().unwrap());
}

#[test]
fn rest_conforms() {
    let servers = std::cell::RefCell::new(Vec::new());
    let Some(_) = find("rclone") else { return };
    conforms(|| {
        let server = RestServer::start(false).unwrap();
        let store = prepared(&server.url());
        servers.borrow_mut().push(server);
        store
    });
}

#[test]
fn rclone_conforms() {
    let Some(_) = find("rclone") else { return };
    let dir = tempfile::tempdir().unwrap();
    let n = std::sync::atomic::AtomicU32::new(0);
    conforms(|| {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        prepared(&format!("rclone::local:{}/{n}", dir.path().display()))
    });
}

#[test]
fn sftp_conforms() {
    let Some(server) = find("sftp-server") else { return };
    let dir = tempfile::tempdir().unwrap();
    let n = std::sync::atomic::AtomicU32::new(0);
    let command = format!("sftp.command={}", server.display());
    conforms(|| {
        let n = n.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let opened = store_with(&format!("sftp:host:{}/{n}", dir.path().display()), &[&command]);
        opened.prepare().unwrap();
        opened.prepare().unwrap();
        opened.backend()
    });
}
