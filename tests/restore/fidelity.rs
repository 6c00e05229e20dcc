//! What was backed up comes back: every kind of entry, every attribute, at the right place.

use super::place::{Place, assert_same, describe};
use crate::support::{noise, populate};
use bulla_engine::format::tree::join_path;
use bulla_engine::observer::Silent;
use bulla_engine::restore::safe_dir::SafeDir;
use bulla_engine::restore::{self, Action, Patterns, RestoreOptions};
use bulla_engine::source::PatternSet;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

fn root() -> bool {
    rustix::process::geteuid().is_root()
}

fn set_time(path: &Path, seconds: i64, nanos: i64) {
    let t = Timespec { tv_sec: seconds, tv_nsec: nanos };
    let times = Timestamps { last_access: t, last_modification: t };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn every_kind(src: &Path) {
    populate(src);
    fs::write(src.join("setuid"), "x").unwrap();
    let node = |name: &str, kind, dev| {
        rustix::fs::mknodat(CWD, src.join(name), kind, Mode::from_raw_mode(0o640), dev).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    fs::create_dir(src.join("closed")).unwrap();
    fs::write(src.join("closed/in"), "in").unwrap();
    fs::write(src.join("attributes"), "x").unwrap();
    let set = |name: &str, attr: &str, value: &[u8]| {
        rustix::fs::setxattr(src.join(name), attr, value, XattrFlags::empty()).unwrap();
    };
    set("attributes", "user.small", b"value");
    // Larger than what stands inside an entry, where the file system takes it.
    let large = noise("x", 30_000);
    let _ = rustix::fs::setxattr(src.join("attributes"), "user.large", &large, XattrFlags::empty());
    set("closed", "user.dir", b"on a directory");
    if root() {
        node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("loop", FileType::BlockDevice, rustix::fs::makedev(7, 300));
        rustix::fs::chown(src.join("setuid"), Some(Uid::from_raw(12)), Some(Gid::from_raw(34))).unwrap();
        rustix::fs::chown(src.join("d2"), Some(Uid::from_raw(12)), None).unwrap();
        let link = src.join("link");
        rustix::fs::chownat(CWD, &link, Some(Uid::from_raw(5)), None, AtFlags::SYMLINK_NOFOLLOW).unwrap();
        // cap_net_raw+ep, version 2
        let mut cap = vec![1, 0, 0, 2];
        cap.extend([0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        set("attributes", "security.capability", &cap);
        fs::set_permissions(src.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
        fs::set_permissions(src.join("closed"), fs::Permissions::from_mode(0o0)).unwrap();
    }
    fs::set_permissions(src.join("d3"), fs::Permissions::from_mode(0o1777)).unwrap();
    let sparse = fs::File::create(src.join("sparse")).unwrap();
    sparse.write_all_at(&noise("s", 5000), 1 << 20).unwrap();
    sparse.write_all_at(b"end", 9 << 20).unwrap();
    sparse.set_len(16 << 20).unwrap();
    fs::File::create(src.join("all hole")).unwrap().set_len(3 << 20).unwrap();
    fs::write(src.join(std::ffi::OsStr::from_bytes(b"odd \xff\n\x1b")), "odd").unwrap();
    set_time(&src.join("link"), 1_000_000_000, 123_456_789);
    set_time(&src.join("fifo"), -5, 1);
    set_time(&src.join("d1/deep"), 4_000_000_000, 0);
    set_time(src, 77, 7);
}

#[test]
fn every_kind_of_entry_comes_back() {
    let p = Place::new();
    every_kind(&p.src());
    let snapshot = p.backup();
    let report = p.restore(&snapshot, &RestoreOptions { verify: true, ..RestoreOptions::default() });
    assert!(report.complete(), "{report:?}");
    assert_same(&p.src(), &p.out());
    assert_eq!((report.metadata_failed, report.skipped, report.hard_links), (0, 0, 1), "{report:?}");
    assert!(report.files_verified >= 40);
    let blocks = |name: &str| p.out().join(name).metadata().unwrap().blocks();
    assert!(blocks("sparse") < 100 && blocks("all hole") == 0, "holes stay holes");
}

#[test]
fn the_whole_snapshot_goes_below_the_target_with_its_ancestors() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let run = |sub: &[u8], out: &Path| {
        restore::run(&p.repository, &snapshot, sub, out, &RestoreOptions::default(), &Silent).unwrap()
    };
    let out = p.out();
    assert!(run(b"", &out).complete());
    let below = out.join(p.src().strip_prefix("/").unwrap());
    assert_same(&p.src(), &below);
    // A single file goes straight into the target.
    let single = p.all.path().join("single");
    run(&[&p.sub()[..], b"/d1/noise"].concat(), &single);
    assert_eq!(fs::read(single.join("noise")).unwrap(), noise("1", 30_000));
    assert_eq!(fs::read_dir(&single).unwrap().count(), 1);
    // A sub-directory gives its contents.
    let deep = p.all.path().join("deep");
    run(&[&p.sub()[..], b"/d2"].concat(), &deep);
    assert_same(&p.src().join("d2"), &deep);
    let missing =
        restore::run(&p.repository, &snapshot, b"nowhere", &out, &RestoreOptions::default(), &Silent);
    assert!(matches!(missing, Err(bulla_engine::Error::UnknownPath { .. })));
}

#[test]
fn each_frame_is_decoded_once() {
    let p = Place::new();
    populate(&p.src());
    // The same content many times, and spread over packs.
    for i in 0..50 {
        fs::write(p.src().join(format!("again{i}")), noise("1", 30_000)).unwrap();
    }
    let snapshot = p.backup();
    let report = p.restore(&snapshot, &RestoreOptions::default());
    assert_same(&p.src(), &p.out());
    let index = p.repository.open_index().unwrap();
    let data = |f: &bulla_engine::format::index::IndexPack| {
        f.header.kind == bulla_engine::format::pack::PackKind::Data
    };
    let frames: usize = index
        .packs()
        .map(Result::unwrap)
        .filter(|f| data(f))
        .map(|f| f.frames.iter().filter(|f| f.raw > 0).count())
        .sum();
    assert!(frames > 20);
    assert_eq!(report.frames_decoded, frames as u64);
}

#[test]
fn include_and_exclude() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let mut patterns = Patterns { include: PatternSet::default(), exclude: PatternSet::default() };
    patterns.include.add("deep", false).unwrap();
    patterns.exclude.add("f3.txt", false).unwrap();
    let options = RestoreOptions { select: Some(Arc::new(patterns)), ..RestoreOptions::default() };
    let report = p.restore(&snapshot, &options);
    assert!(report.complete());
    let (src, out) = (describe(&p.src()), describe(&p.out()));
    let expected: Vec<&String> =
        src.keys().filter(|n| (n.contains("/deep") && !n.ends_with("f3.txt")) || n.len() < 3).collect();
    assert_eq!(out.keys().collect::<Vec<_>>(), expected);
    for name in expected {
        assert_eq!(src[name], out[name], "ancestors have their recorded metadata too: {name}");
    }
}

#[test]
fn a_dry_run_writes_nothing_and_says_what_it_would_do() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let dry = RestoreOptions { dry_run: true, delete: true, ..RestoreOptions::default() };
    let planned = p.plan(&snapshot, &dry);
    assert!(!p.out().exists());
    assert_eq!(planned.len(), describe(&p.src()).len() - 1);
    assert!(planned.iter().all(|l| matches!(l.action, Action::Create | Action::Link)));
    p.restore(&snapshot, &RestoreOptions::default());
    fs::write(p.out().join("extra"), "x").unwrap();
    fs::write(p.out().join("d1/noise"), noise("other", 30_000)).unwrap();
    let before = describe(&p.out());
    let planned = p.plan(&snapshot, &dry);
    assert_eq!(describe(&p.out()), before);
    let lines = |a: Action| -> Vec<String> {
        planned.iter().filter(|l| l.action == a).map(ToString::to_string).collect()
    };
    assert_eq!(lines(Action::Delete), ["delete extra"]);
    assert_eq!(lines(Action::Rewrite), ["rewrite d1/noise"]);
}

#[test]
fn zeros_become_holes_if_asked() {
    let p = Place::new();
    let mut bytes = vec![0; 1 << 20];
    bytes[300_000..300_100].fill(7);
    fs::write(p.src().join("zeros"), &bytes).unwrap();
    fs::write(p.src().join("small"), vec![0; 10_000]).unwrap();
    let snapshot = p.backup();
    let report =
        p.restore(&snapshot, &RestoreOptions { sparse: true, verify: true, ..RestoreOptions::default() });
    assert!(report.complete());
    assert_same(&p.src(), &p.out());
    assert!(p.out().join("zeros").metadata().unwrap().blocks() <= 16);
    assert_eq!(p.out().join("small").metadata().unwrap().blocks(), 0);
}

/// More entries than fit into one wave: directories are finished, and links made, across waves.
#[test]
fn wide() {
    let p = Place::new();
    for dir in ["a", "a/before", "z"] {
        fs::create_dir(p.src().join(dir)).unwrap();
    }
    fs::write(p.src().join("a/before/x"), "x").unwrap();
    fs::write(p.src().join("a/00000 first"), "linked").unwrap();
    for i in 0..70_000 {
        fs::write(p.src().join(format!("a/{i:05}")), "").unwrap();
    }
    fs::hard_link(p.src().join("a/00000 first"), p.src().join("z/last")).unwrap();
    fs::write(p.src().join("z/noise"), noise("z", 50_000)).unwrap();
    for dir in ["a", "a/before", "z"] {
        set_time(&p.src().join(dir), 12_345, 678);
    }
    let snapshot = p.backup();
    let report = p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert!(report.complete() && report.hard_links == 1);
    assert_same(&p.src(), &p.out());
    fs::write(p.out().join("a/extra"), "x").unwrap();
    let report = p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert_eq!((report.deleted, report.files_restored, report.hard_links), (1, 0, 0));
    assert_same(&p.src(), &p.out());
}

#[test]
fn deeper_than_path_max() {
    let p = Place::new();
    let mut dir = SafeDir::open(&p.src()).unwrap();
    let mut path = Vec::new();
    for _ in 0..3000 {
        dir.make_dir(&path, b"dd").unwrap();
        path = join_path(&path, b"dd");
    }
    drop(dir.create_file(&path, b"bottom").unwrap());
    let snapshot = p.backup();
    let report = p.restore(&snapshot, &RestoreOptions::default());
    assert!(report.complete());
    assert_eq!(report.directories_created, 3000);
    let mut out = SafeDir::open(&p.out()).unwrap();
    let stat = out.stat(&path, b"").unwrap().unwrap();
    assert_eq!(stat.st_mtime, dir.stat(&path, b"").unwrap().unwrap().st_mtime);
    assert!(out.stat(&path, b"bottom").unwrap().is_some());
    for mut tree in [dir, out] {
        assert_eq!(tree.remove_all(b"", b"dd", &|_, _| true).unwrap(), 3001);
    }
}
