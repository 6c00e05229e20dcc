//! Attempts to get out of the root, each with a canary outside that must not change.

use super::*;
use bulla_repo_format::tree::Timestamp;
use std::fs as stdfs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

struct Place {
    all: tempfile::TempDir,
    dir: SafeDir,
}

impl Place {
    fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        stdfs::create_dir(all.path().join("target")).unwrap();
        stdfs::create_dir(all.path().join("outside")).unwrap();
        stdfs::write(all.path().join("outside/canary"), "alive").unwrap();
        stdfs::set_permissions(all.path().join("outside/canary"), stdfs::Permissions::from_mode(0o640))
            .unwrap();
        let dir = SafeDir::open(&all.path().join("target")).unwrap();
        Self { all, dir }
    }
    fn target(&self, path: &str) -> PathBuf {
        self.all.path().join("target").join(path)
    }
    fn outside(&self) -> PathBuf {
        self.all.path().join("outside")
    }
    fn assert_canary(&self) {
        let names: Vec<_> =
            stdfs::read_dir(self.outside()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["canary"], "something appeared outside");
        let canary = self.outside().join("canary");
        assert_eq!(stdfs::read(&canary).unwrap(), b"alive");
        let meta = stdfs::metadata(&canary).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o640);
        assert_eq!(meta.nlink(), 1);
    }
}

/// With `openat2` and without it.
fn both(test: impl Fn(Place)) {
    test(Place::new());
    let mut place = Place::new();
    place.dir = place.dir.without_openat2();
    test(place);
}

fn everything_fails(p: &mut Place, parent: &[u8], name: &[u8]) {
    assert!(p.dir.make_dir(parent, name).is_err());
    assert!(p.dir.create_file(parent, name).is_err());
    assert!(p.dir.open_file(parent, name, true).is_err());
    assert!(p.dir.symlink(parent, name, b"x").is_err());
    assert!(p.dir.make_special(parent, name, Special::Fifo).is_err());
    assert!(p.dir.apply_node(parent, name, &Metadata::default(), None).is_err());
}

#[test]
fn names_that_are_not_one_component_are_refused() {
    both(|mut p| {
        for name in [&b".."[..], b".", b"a/b", b"/", b"/etc", b"../x", b"a\0b"] {
            everything_fails(&mut p, b"", name);
            assert!(p.dir.remove_all(b"", name, &|_, _| true).is_err());
        }
        for parent in [&b".."[..], b"/", b"/etc", b"a/../..", b"./a", b"a//b", b"../outside"] {
            everything_fails(&mut p, parent, b"x");
            assert!(p.dir.list(parent).is_err());
        }
        p.assert_canary();
    });
}

#[test]
fn a_symlinked_parent_is_not_followed() {
    both(|mut p| {
        symlink(p.outside(), p.target("link")).unwrap();
        stdfs::create_dir(p.target("d")).unwrap();
        symlink("../../outside", p.target("d/deep")).unwrap();
        for parent in [&b"link"[..], b"d/deep"] {
            everything_fails(&mut p, parent, b"canary");
            everything_fails(&mut p, parent, b"new");
            assert!(p.dir.remove_all(parent, b"canary", &|_, _| true).is_err());
            assert!(p.dir.list(parent).is_err());
            assert!(p.dir.open_dir(parent).is_err());
        }
        p.assert_canary();
    });
}

#[test]
fn a_symlink_in_place_of_a_file_is_not_written_through() {
    both(|mut p| {
        symlink(p.outside().join("canary"), p.target("f")).unwrap();
        assert!(p.dir.create_file(b"", b"f").is_err());
        assert!(p.dir.open_file(b"", b"f", true).is_err());
        let meta =
            Metadata { mode: 0o777, mtime: Some(Timestamp { seconds: 5, nanos: 0 }), ..Metadata::default() };
        p.dir.apply_node(b"", b"f", &meta, None).unwrap();
        assert_eq!(stdfs::symlink_metadata(p.target("f")).unwrap().mtime(), 5, "the link itself");
        assert_ne!(stdfs::metadata(p.outside().join("canary")).unwrap().mtime(), 5);
        assert_eq!(p.dir.remove_all(b"", b"f", &|_, _| true).unwrap(), 1);
        p.assert_canary();
    });
}

#[test]
fn a_tree_with_links_is_removed_without_what_they_point_at() {
    both(|mut p| {
        stdfs::create_dir_all(p.target("t/a/b")).unwrap();
        symlink(p.outside(), p.target("t/a/out")).unwrap();
        stdfs::write(p.target("t/a/b/f"), "x").unwrap();
        assert_eq!(p.dir.remove_all(b"", b"t", &|_, _| true).unwrap(), 5);
        assert!(!p.target("t").exists());
        p.assert_canary();
    });
}

#[test]
fn what_a_filter_protects_stays_with_its_directories() {
    let mut p = Place::new();
    stdfs::create_dir_all(p.target("t/a")).unwrap();
    stdfs::write(p.target("t/a/keep"), "x").unwrap();
    stdfs::write(p.target("t/a/go"), "x").unwrap();
    assert_eq!(p.dir.remove_all(b"", b"t", &|path, _| !path.ends_with(b"keep")).unwrap(), 1);
    assert!(p.target("t/a/keep").exists());
}

#[test]
fn a_directory_swapped_for_a_link_is_noticed_or_still_the_old_one() {
    both(|mut p| {
        p.dir.make_dir(b"", b"d").unwrap();
        drop(p.dir.create_file(b"d", b"first").unwrap());
        stdfs::rename(p.target("d"), p.target("moved")).unwrap();
        symlink(p.outside(), p.target("d")).unwrap();
        // The descriptor kept is the directory of before.
        drop(p.dir.create_file(b"d", b"second").unwrap());
        assert!(p.target("moved/second").exists());
        // A fresh lookup meets the link.
        assert!(p.dir.handle().create_file(b"d", b"third").is_err());
        p.assert_canary();
    });
}

#[test]
fn hard_links_only_to_the_very_file() {
    both(|mut p| {
        drop(p.dir.create_file(b"", b"a").unwrap());
        let identity = Identity::of(&p.dir.stat(b"", b"a").unwrap().unwrap());
        p.dir.hard_link((b"", b"a"), identity, b"", b"b").unwrap();
        assert_eq!(stdfs::metadata(p.target("b")).unwrap().nlink(), 2);
        // Replaced by a link to the canary, and by another file.
        stdfs::remove_file(p.target("a")).unwrap();
        symlink(p.outside().join("canary"), p.target("a")).unwrap();
        assert!(p.dir.hard_link((b"", b"a"), identity, b"", b"c").is_err());
        stdfs::remove_file(p.target("a")).unwrap();
        stdfs::write(p.target("a"), "other").unwrap();
        assert!(p.dir.hard_link((b"", b"a"), identity, b"", b"c").is_err());
        assert!(!p.target("c").exists());
        p.assert_canary();
    });
}

#[test]
fn depth_beyond_path_max() {
    both(|mut p| {
        let mut path = Vec::new();
        // Without openat2 a lookup costs a call per component: there, longer names make up for fewer levels.
        let (levels, name) = if p.dir.resolves { (3000, &b"dd"[..]) } else { (300, &[b'd'; 20][..]) };
        for _ in 0..levels {
            p.dir.make_dir(&path, name).unwrap();
            path = join_path(&path, name);
        }
        drop(p.dir.create_file(&path, b"f").unwrap());
        assert!(p.dir.handle().open_file(&path, b"f", false).is_ok(), "reached anew from the root");
        assert_eq!(p.dir.remove_all(b"", name, &|_, _| true).unwrap(), levels + 1);
        p.assert_canary();
    });
}

#[test]
fn metadata_of_links_and_nodes_is_their_own() {
    let mut p = Place::new();
    let meta =
        Metadata { mode: 0o4751, mtime: Some(Timestamp { seconds: -7, nanos: 9 }), ..Metadata::default() };
    for (name, special) in [(&b"fifo"[..], Special::Fifo), (b"sock", Special::Socket)] {
        p.dir.make_special(b"", name, special).unwrap();
        let applied = p.dir.apply_node(b"", name, &meta, None).unwrap();
        assert!(applied.failed.is_empty(), "{:?}", applied.failed);
        let stat = p.dir.stat(b"", name).unwrap().unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime, stat.st_mtime_nsec), (0o4751, -7, 9));
    }
}
