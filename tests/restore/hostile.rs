//! Somebody works against the restore while it runs. A canary outside must not change, and nothing may join it.

use super::place::Place;
use crate::support::populate;
use bulla_engine::observer::{Event, Observer, Silent};
use bulla_engine::restore::{self, RestoreOptions};
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[test]
fn swapping_directories_for_links_puts_nothing_outside() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let outside = p.all.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("canary"), "alive").unwrap();
    let before = super::place::describe(&outside);
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for dir in ["d0", "d1", "d2", "d3", "d1/deep", "d2/deep"] {
                    let (at, aside) = (p.out().join(dir), p.out().join(format!("{dir}.aside")));
                    if fs::rename(&at, &aside).is_ok() {
                        swaps.fetch_add(u64::from(symlink(&outside, &at).is_ok()), Ordering::Relaxed);
                        std::thread::yield_now();
                        let _ = fs::remove_file(&at);
                        let _ = fs::rename(&aside, &at);
                    }
                }
            }
        });
        for round in 0..150 {
            let delete = round % 3 == 0;
            let options = RestoreOptions { delete, ..RestoreOptions::default() };
            let _ = restore::run(&p.repository, &snapshot, &p.sub(), &p.out(), &options, &Silent);
            let _ = fs::remove_file(p.out().join("d1/noise"));
            if round % 10 == 9 {
                let _ = fs::remove_dir_all(p.out());
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(swaps.load(Ordering::Relaxed) > 100, "the race was run");
    assert_eq!(super::place::describe(&outside), before);
}

#[test]
fn files_with_names_elsewhere_are_not_written_through() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    p.restore(&snapshot, &RestoreOptions::default());
    let canary = p.all.path().join("canary");
    fs::write(&canary, "x".repeat(30_000)).unwrap();
    fs::remove_file(p.out().join("d1/noise")).unwrap();
    fs::hard_link(&canary, p.out().join("d1/noise")).unwrap();
    p.restore(&snapshot, &RestoreOptions::default());
    super::place::assert_same_below(&p.src(), &p.out());
    assert_eq!(fs::read(&canary).unwrap(), "x".repeat(30_000).as_bytes());
}

struct StopAfter(AtomicU64);

impl Observer for StopAfter {
    fn event(&self, _: &Event<'_>) {}
    fn interrupted(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_err()
    }
}

#[test]
fn an_interrupted_restore_can_be_finished() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let mut n = 0;
    loop {
        let observer = StopAfter(AtomicU64::new(n));
        let options = RestoreOptions::default();
        match restore::run(&p.repository, &snapshot, &p.sub(), &p.out(), &options, &observer) {
            Err(bulla_engine::Error::Interrupted) => n += 1,
            other => break assert!(other.unwrap().complete()),
        }
    }
    assert!(n > 10);
    super::place::assert_same_below(&p.src(), &p.out());
}

#[test]
fn a_directory_on_the_way_has_its_mode_though_the_restore_that_made_it_was_interrupted() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let p = Place::new();
    populate(&p.src());
    fs::set_permissions(p.all.path(), fs::Permissions::from_mode(0o750)).unwrap();
    let snapshot = p.backup();
    let (options, name) = (RestoreOptions::default(), p.all.path().strip_prefix("/").unwrap().to_owned());
    for n in 0.. {
        let target = p.all.path().join(format!("out{n}"));
        let observer = StopAfter(AtomicU64::new(n));
        let done = restore::run(&p.repository, &snapshot, b"", &target, &options, &observer).is_ok();
        restore::run(&p.repository, &snapshot, b"", &target, &options, &Silent).unwrap();
        assert_eq!(target.join(&name).metadata().unwrap().mode() & 0o7777, 0o750, "stopped after {n}");
        if done {
            break;
        }
    }
}
