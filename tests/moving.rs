//! Sources that change between being listed and being read, at a moment the test chooses.

use crate::support::{backup, in_memory, noise, options, source};
use bulla_engine::backup::{self, BackupReport};
use bulla_engine::browse;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::observer::{Event, Observer, Silent};
use bulla_engine::repository::Repository;
use std::path::Path;
use std::sync::Mutex;

/// Does something once, when the first entries are listed and none is read.
struct Between<F>(Mutex<Option<F>>);

impl<F: FnOnce() + Send> Observer for Between<F> {
    fn event(&self, _: &Event<'_>) {}
    fn interrupted(&self) -> bool {
        let act = self.0.lock().unwrap().take();
        act.into_iter().for_each(|act| act());
        false
    }
}

fn backup_while(repository: &Repository, path: &Path, act: impl FnOnce() + Send) -> BackupReport {
    let observer = Between(Mutex::new(Some(act)));
    backup::run(repository, source(path), &options(), &observer).unwrap()
}

fn read(repository: &Repository, report: &BackupReport, path: &Path) -> bulla_engine::Result<Vec<u8>> {
    let mut out = Vec::new();
    let path = path.to_str().unwrap().as_bytes();
    browse::write_file(repository, report.snapshot.as_ref().unwrap(), &path[1..], &mut out)?;
    Ok(out)
}

fn clean(repository: &Repository) {
    let all = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(repository, &all, &Silent).unwrap().findings, []);
}

#[test]
fn a_link_that_vanishes_before_it_is_read_costs_only_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (link, file) = (dir.path().join("link"), dir.path().join("file"));
    std::os::unix::fs::symlink("file", &link).unwrap();
    std::fs::write(&file, b"content").unwrap();
    let (repository, _) = in_memory();
    let report = backup_while(&repository, dir.path(), || std::fs::remove_file(&link).unwrap());
    assert_eq!(report.statistics.errors, 1);
    assert_eq!(read(&repository, &report, &file).unwrap(), b"content");
    clean(&repository);
    assert_eq!(backup(&repository, dir.path()).unwrap().statistics.errors, 0);
}

#[test]
fn a_hard_link_whose_first_name_vanishes_or_is_replaced_is_read_by_its_second() {
    for replaced in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        let other = tempfile::NamedTempFile::new_in(dir.path().parent().unwrap()).unwrap();
        std::fs::write(&first, b"shared content").unwrap();
        std::fs::hard_link(&first, &second).unwrap();
        std::fs::write(other.path(), b"another file").unwrap();
        let (repository, _) = in_memory();
        let report = backup_while(&repository, dir.path(), || match replaced {
            true => std::fs::rename(other.path(), &first).unwrap(),
            false => std::fs::remove_file(&first).unwrap(),
        });
        assert_eq!(read(&repository, &report, &second).unwrap(), b"shared content", "{replaced}");
        // Vanished or replaced between walk and reading: both are reported, neither costs the second name.
        assert_eq!(report.statistics.errors, 1);
        if replaced {
            assert_eq!(read(&repository, &report, &first).unwrap(), b"another file");
        }
        clean(&repository);
    }
}

#[test]
fn a_third_name_made_during_the_walk_has_its_content() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("z/c"));
    std::fs::write(&a, b"shared content").unwrap();
    std::fs::hard_link(&a, &b).unwrap();
    std::fs::create_dir(dir.path().join("z")).unwrap();
    std::fs::write(dir.path().join("large"), noise("large", 2 << 20)).unwrap();
    // More than the walk is ahead of who reads, so that it has not come to the third name's directory.
    std::fs::create_dir(dir.path().join("many")).unwrap();
    (0..3000).for_each(|n| std::fs::write(dir.path().join(format!("many/{n}")), b"").unwrap());
    let (repository, _) = in_memory();
    let report = backup_while(&repository, dir.path(), || std::fs::hard_link(&a, &c).unwrap());
    assert_eq!(read(&repository, &report, &c).unwrap(), b"shared content");
    assert_eq!(report.statistics.errors, 0);
    clean(&repository);
}

/// Panics at the first entry.
struct Broken;

impl Observer for Broken {
    fn event(&self, event: &Event<'_>) {
        if matches!(event, Event::Entry { .. }) {
            // Meanwhile the producer runs ahead and waits for the fold.
            std::thread::sleep(std::time::Duration::from_millis(500));
            panic!("an observer that is broken");
        }
    }
}

/// Panics when it is asked, which the producer does.
struct BrokenAnswer;

impl Observer for BrokenAnswer {
    fn event(&self, _: &Event<'_>) {}
    fn interrupted(&self) -> bool {
        panic!("an observer that is broken");
    }
}

#[test]
fn a_producer_that_panics_ends_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise("file", 3 << 20)).unwrap();
    let path = dir.path().to_path_buf();
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (repository, _) = in_memory();
        let result = backup::run(&repository, source(&path), &options(), &BrokenAnswer);
        let _ = done.send((result.is_err(), repository.snapshots().unwrap().len()));
    });
    let ended = wait.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(ended.expect("the backup hangs"), (true, 0));
}

#[test]
fn a_stage_that_panics_ends_the_backup() {
    let dir = tempfile::tempdir().unwrap();
    // Many units, so that the producer waits for the fold.
    for f in 0..120 {
        std::fs::write(dir.path().join(format!("{f}")), noise(&f.to_string(), (1 << 20) + 1)).unwrap();
    }
    let path = dir.path().to_path_buf();
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let (repository, _) = in_memory();
        let result = backup::run(&repository, source(&path), &options(), &Broken);
        let _ = done.send((result.is_err(), repository.snapshots().unwrap().len()));
    });
    let ended = wait.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(ended.expect("the backup hangs"), (true, 0));
}

#[test]
fn a_stream_whose_name_no_tree_can_hold_is_refused() {
    use bulla_engine::source::{Sources, StreamSource};
    let (repository, _) = in_memory();
    let stream = |name: &str| {
        let reader = Box::new(std::io::Cursor::new(b"bytes".to_vec()));
        let source =
            Sources::Stream(StreamSource { name: name.into(), reader, commit: None, holes: Vec::new() });
        backup::run(&repository, source, &options(), &Silent)
    };
    for name in ["", "/", ".", "..", "../x", "a/../b", "a/..", "a\0b", &"n".repeat(5000)] {
        assert!(stream(name).is_err(), "{name:?}");
    }
    assert_eq!(repository.snapshots().unwrap(), []);
    let report = stream("/a/./b/").unwrap();
    assert_eq!(read(&repository, &report, Path::new("/a/b")).unwrap(), b"bytes");
    clean(&repository);
}
