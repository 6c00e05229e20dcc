//! Somebody works against the restore while it runs. A canary outside must not change, and nothing may join it.

use super::place::Place;
use crate::support::populate;
use bulla_engine::observer::{Event, Observer, Silent};
use bulla_engine::restore::{self, RestoreOptions};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// `BULLA_SWAPS` is how many swaps there must be; CI is content with some thousands.
#[test]
fn swapping_directories_for_links_puts_nothing_outside() {
    let wanted = std::env::var("BULLA_SWAPS").map_or(3_000, |n| n.parse().unwrap());
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
        for round in 0.. {
            if round >= 150 && swaps.load(Ordering::Relaxed) >= wanted {
                break;
            }
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
    println!("{} swaps beside restores, nothing outside was touched", swaps.load(Ordering::Relaxed));
    assert_eq!(super::place::describe(&outside), before);
}

/// Puts something else at each path of the target, by turns; all of it leads outside or is in the way.
fn traps(out: &Path, outside: &Path) -> usize {
    let (mut stack, mut paths) = (vec![out.to_path_buf()], Vec::new());
    while let Some(dir) = stack.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                stack.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    // What lies below goes first, so that each is still there when its turn comes.
    paths.sort_by(|a, b| b.cmp(a));
    let mut set = 0;
    for (n, path) in paths.iter().enumerate() {
        let directory = path.symlink_metadata().unwrap().is_dir();
        match (directory, n % 6) {
            (true, 0 | 3) => fs::remove_dir_all(path).unwrap(),
            (true, _) => {
                fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
                continue;
            }
            (false, _) => fs::remove_file(path).unwrap(),
        }
        match n % 6 {
            0 => symlink(outside.join("deep"), path).unwrap(),
            1 => symlink(outside.join("canary"), path).unwrap(),
            2 => mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            3 => fs::create_dir_all(path.join("in the/way")).unwrap(),
            4 => fs::hard_link(outside.join("canary"), path).unwrap(),
            _ => fs::write(path, "wrong".repeat(20_000)).unwrap(),
        }
        set += 1;
    }
    set
}

#[test]
fn what_lies_in_the_way_is_replaced_and_leads_nowhere() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    let outside = p.all.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::write(outside.join("canary"), "alive".repeat(3_000)).unwrap();
    for round in 0..2 {
        p.restore(&snapshot, &RestoreOptions::default());
        assert!(traps(&p.out(), &outside) > 20);
        // The links that a trap has made count; everything else of it is as it was.
        let before = fs::read(outside.join("canary")).unwrap();
        let mode = outside.join("canary").metadata().unwrap().mode();
        p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
        super::place::assert_same_below(&p.src(), &p.out());
        assert_eq!(fs::read(outside.join("canary")).unwrap(), before, "round {round}");
        let after = outside.join("canary").metadata().unwrap();
        assert_eq!((after.mode(), after.nlink()), (mode, 1));
        assert_eq!(fs::read_dir(outside.join("deep")).unwrap().count(), 0);
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 2);
    }
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
