//! Targets that are not empty: every overwrite mode, wrong types in the way, extras.

use super::place::{Place, assert_same_below, describe};
use crate::support::{noise, populate};
use bulla_engine::restore::{Overwrite, Patterns, RestoreOptions};
use bulla_engine::source::PatternSet;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

fn with(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions { overwrite, verify: true, ..RestoreOptions::default() }
}

/// A source restored once.
fn restored() -> (Place, bulla_engine::format::snapshot::Snapshot) {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    p.restore(&snapshot, &RestoreOptions::default());
    (p, snapshot)
}

#[test]
fn what_is_right_is_not_written_again() {
    let (p, snapshot) = restored();
    let inode = p.out().join("d1/noise").metadata().unwrap().ino();
    let ctime = |n: &str| p.out().join(n).metadata().unwrap().ctime_nsec();
    let before = (ctime("d1/noise"), ctime("large"), ctime("d1"));
    for overwrite in [Overwrite::Always, Overwrite::IfChanged] {
        let report = p.restore(&snapshot, &with(overwrite));
        assert_eq!((report.files_restored, report.bytes_written, report.frames_decoded), (0, 0, 0));
        assert_eq!(report.files_unchanged, 39);
        assert_same_below(&p.src(), &p.out());
    }
    assert_eq!(p.out().join("d1/noise").metadata().unwrap().ino(), inode);
    assert_eq!((ctime("d1/noise"), ctime("large"), ctime("d1")), before, "not touched at all");
}

#[test]
fn only_chunks_that_differ_are_written() {
    let (p, snapshot) = restored();
    let file = p.out().join("d3/noise");
    let f = fs::OpenOptions::new().write(true).open(&file).unwrap();
    f.write_all_at(b"changed", 40_000).unwrap();
    drop(f);
    let inode = file.metadata().unwrap().ino();
    let report = p.restore(&snapshot, &with(Overwrite::Always));
    assert_same_below(&p.src(), &p.out());
    assert_eq!(report.files_restored, 1);
    assert!(report.bytes_written > 0 && report.bytes_written <= 2 << 14, "{}", report.bytes_written);
    assert_eq!(file.metadata().unwrap().ino(), inode, "in place");
}

#[test]
fn lengths_types_and_metadata_in_the_way_are_put_right() {
    let (p, snapshot) = restored();
    let out = p.out();
    fs::write(out.join("d0/deep/f1.txt"), "longer or shorter").unwrap();
    fs::remove_file(out.join("d0/deep/f2.txt")).unwrap();
    fs::create_dir_all(out.join("d0/deep/f2.txt/full/of")).unwrap();
    fs::write(out.join("d0/deep/f2.txt/full/of/things"), "x").unwrap();
    fs::remove_file(out.join("link")).unwrap();
    fs::write(out.join("link"), "a file").unwrap();
    fs::remove_dir_all(out.join("d2")).unwrap();
    fs::write(out.join("d2"), "a file where a directory was").unwrap();
    fs::remove_dir_all(out.join("d3")).unwrap();
    symlink(p.all.path(), out.join("d3")).unwrap();
    fs::set_permissions(out.join("empty"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(out.join("d1"), fs::Permissions::from_mode(0o500)).unwrap();
    rustix::fs::setxattr(out.join("empty"), "user.extra", b"x", rustix::fs::XattrFlags::empty()).unwrap();
    let report = p.restore(&snapshot, &with(Overwrite::Always));
    assert!(report.complete(), "{report:?}");
    assert_same_below(&p.src(), &out);
}

#[test]
fn if_changed_believes_size_and_time_and_always_does_not() {
    let (p, snapshot) = restored();
    let file = p.out().join("d3/noise");
    let time = file.metadata().unwrap().modified().unwrap();
    fs::write(&file, noise("same length", 90_000)).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
    p.restore(&snapshot, &with(Overwrite::IfChanged));
    assert_eq!(fs::read(&file).unwrap(), noise("same length", 90_000));
    p.restore(&snapshot, &with(Overwrite::Always));
    assert_same_below(&p.src(), &p.out());
}

#[test]
fn if_newer_and_never() {
    let (p, snapshot) = restored();
    let out = p.out();
    let set = |name: &str, time: SystemTime| {
        fs::write(out.join(name), "mine").unwrap();
        fs::File::options().write(true).open(out.join(name)).unwrap().set_modified(time).unwrap();
    };
    let hour = Duration::from_secs(3600);
    set("d1/noise", SystemTime::now() + hour);
    set("d2/noise", SystemTime::now() - hour);
    fs::remove_file(out.join("empty")).unwrap();
    let report = p.restore(&snapshot, &with(Overwrite::Never));
    assert_eq!(report.files_restored, 1, "only what was not there");
    assert!(out.join("empty").exists());
    assert_eq!(fs::read(out.join("d2/noise")).unwrap(), b"mine");
    p.restore(&snapshot, &with(Overwrite::IfNewer));
    assert_eq!(fs::read(out.join("d1/noise")).unwrap(), b"mine");
    assert_eq!(fs::read(out.join("d2/noise")).unwrap(), noise("2", 60_000));
}

#[test]
fn delete_removes_extras_and_only_those() {
    let (p, snapshot) = restored();
    let out = p.out();
    let outside = p.all.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    fs::create_dir_all(out.join("d1/new/deep")).unwrap();
    fs::write(out.join("d1/new/deep/x"), "x").unwrap();
    fs::write(out.join("d2/extra.keep"), "x").unwrap();
    symlink(&outside, out.join("d2/away")).unwrap();
    let mut patterns = Patterns::default();
    patterns.exclude.add("*.keep", false).unwrap();
    let options =
        RestoreOptions { delete: true, select: Some(Arc::new(patterns)), ..RestoreOptions::default() };
    let report = p.restore(&snapshot, &options);
    assert_eq!(report.deleted, 4);
    assert!(out.join("d2/extra.keep").exists(), "excluded");
    assert!(outside.join("canary").exists());
    let report = p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert_eq!(report.deleted, 1);
    assert_same_below(&p.src(), &out);
    // Only within what was selected.
    fs::write(out.join("d1/extra"), "x").unwrap();
    fs::write(out.join("d2/extra"), "x").unwrap();
    let mut include = PatternSet::default();
    include.add("d1", false).unwrap();
    let select: Option<Arc<dyn bulla_engine::restore::Select + Send + Sync>> =
        Some(Arc::new(Patterns { include, exclude: PatternSet::default() }));
    p.restore(&snapshot, &RestoreOptions { delete: true, select, ..RestoreOptions::default() });
    assert!(!out.join("d1/extra").exists() && out.join("d2/extra").exists());
}

#[test]
fn an_emptied_directory_is_emptied() {
    let p = Place::new();
    fs::create_dir(p.src().join("hollow")).unwrap();
    let snapshot = p.backup();
    fs::create_dir_all(p.out().join("hollow/full")).unwrap();
    p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert_eq!(describe(&p.out().join("hollow")).len(), 1);
}

#[test]
fn hard_links_are_made_whole_again() {
    let (p, snapshot) = restored();
    let out = p.out();
    fs::remove_file(out.join("large")).unwrap();
    fs::copy(p.src().join("large"), out.join("large")).unwrap();
    p.restore(&snapshot, &with(Overwrite::Always));
    assert_same_below(&p.src(), &out);
}

#[test]
fn a_link_whose_leader_was_left_alone_becomes_a_file() {
    let (p, snapshot) = restored();
    let out = p.out();
    for name in ["large", "d1/other-name"] {
        fs::remove_file(out.join(name)).unwrap();
    }
    // The top comes first in the tree, so this one leads.
    fs::write(out.join("large"), "mine").unwrap();
    let report = p.restore(&snapshot, &with(Overwrite::Never));
    assert!(report.complete());
    assert_eq!((report.hard_links, fs::read(out.join("large")).unwrap()), (0, b"mine".to_vec()));
    assert_eq!(fs::read(out.join("d1/other-name")).unwrap(), noise("large", 400_000));
}
