//! The source walk against real trees: order, hostile names, depth, roots, filters, mounts. Needs no repository.

use bulla_engine::SourceError;
use bulla_engine::format::tree::{Entry, EntryKind, compare_paths, decode_xattrs};
use bulla_engine::observer::{Collector, Silent};
use bulla_engine::source::{Filter, FilterSpec, Found, Marker, PathSources, Walk, Walked};
use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, OFlags, XattrFlags};
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::Instant;
use tempfile::TempDir;

fn raw(p: impl AsRef<Path>) -> Vec<u8> {
    p.as_ref().as_os_str().as_bytes().to_vec()
}

fn sources<P: AsRef<Path>>(paths: &[P]) -> PathSources {
    PathSources { paths: paths.iter().map(raw).collect(), base: b"/".to_vec(), ..PathSources::default() }
}

/// Everything the walk gives; checks the order and the mount table on the way.
fn walk(sources: &PathSources) -> (Vec<Found>, Vec<SourceError>) {
    let mut walk = Walk::new(sources, &Silent).unwrap();
    let (mut found, mut errors): (Vec<Found>, _) = (Vec::new(), Vec::new());
    while let Some(w) = walk.next() {
        match w {
            Walked::Entry(f) => {
                if let Some(last) = found.last() {
                    assert_eq!(
                        last.entry.compare(&f.entry),
                        Ordering::Less,
                        "{:?} {:?}",
                        last.entry,
                        f.entry
                    );
                }
                assert_eq!(walk.mounts()[f.entry.mount as usize].device, f.dev);
                found.push(f);
            }
            Walked::Error(e) => errors.push(e),
        }
    }
    assert!(walk.next().is_none());
    (found, errors)
}

/// Paths below `dir`, relative to it.
fn names(dir: &Path, found: &[Found]) -> Vec<String> {
    let top = format!("{}/", dir.to_str().unwrap());
    let path = |f: &Found| String::from_utf8_lossy(&f.path()).into_owned();
    found.iter().map(path).filter_map(|p| p.strip_prefix(&top).map(str::to_owned)).collect()
}

fn tree(files: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for f in files {
        let path = dir.path().join(f.trim_end_matches('/'));
        if f.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, f.as_bytes()).unwrap();
        }
    }
    dir
}

fn entry<'f>(found: &'f mut [Found], name: &str) -> &'f mut Found {
    found.iter_mut().find(|f| f.entry.name == name.as_bytes()).unwrap()
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn order_is_tree_order_and_nothing_is_missed(
        paths in prop::collection::btree_set("[a.\\-b]{1,3}x(/[a.\\-b]{1,2}x){0,4}", 1..30),
    ) {
        let dir = tempfile::tempdir().unwrap();
        for p in &paths {
            fs::create_dir_all(dir.path().join(p)).unwrap();
            fs::write(dir.path().join(p).join("file"), p).unwrap();
        }
        let (found, errors) = walk(&sources(&[dir.path()]));
        prop_assert!(errors.is_empty());
        let mut want = BTreeSet::new();
        for p in &paths {
            want.insert(format!("{p}/file"));
            want.extend(p.match_indices('/').map(|(i, _)| p[..i].to_owned()).chain([p.clone()]));
        }
        prop_assert_eq!(names(dir.path(), &found).into_iter().collect::<BTreeSet<_>>(), want);
    }
}

#[test]
fn every_type_with_its_metadata() {
    let dir = tree(&["file", "sub/x"]);
    let at = |n: &str| dir.path().join(n);
    symlink("tar\u{e9}get/nowhere", at("link")).unwrap();
    fs::hard_link(at("file"), at("hard")).unwrap();
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, Dev::default()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let device = rustix::fs::makedev(1, 7);
    let char_device = FileType::CharacterDevice;
    let made = is_root() && rustix::fs::mknodat(CWD, at("char"), char_device, Mode::RUSR, device).is_ok();
    fs::set_permissions(at("file"), fs::Permissions::from_mode(0o4751)).unwrap();
    let s = PathSources { with_atime: true, ..sources(&[dir.path()]) };
    let (mut found, errors) = walk(&s);
    assert!(errors.is_empty());
    let link = entry(&mut found, "link");
    assert_eq!(link.entry.kind, EntryKind::Symlink { target: Vec::new() });
    link.capture_details().unwrap();
    assert_eq!(link.entry.kind, EntryKind::Symlink { target: "tar\u{e9}get/nowhere".into() });
    assert_eq!(entry(&mut found, "fifo").entry.kind, EntryKind::Fifo);
    assert_eq!(entry(&mut found, "socket").entry.kind, EntryKind::Socket);
    if made {
        assert_eq!(entry(&mut found, "char").entry.kind, EntryKind::CharDevice { major: 1, minor: 7 });
        assert!(entry(&mut found, "char").open().is_err());
    }
    assert_eq!((entry(&mut found, "sub").entry.links, entry(&mut found, "hard").entry.links), (1, 2));
    let (file, m) = (&entry(&mut found, "file").entry, fs::metadata(at("file")).unwrap());
    assert_eq!((file.mode, file.uid, file.gid, file.inode), (0o4751, m.uid(), m.gid(), m.ino()));
    assert_eq!((file.mtime.seconds, i64::from(file.mtime.nanos)), (m.mtime(), m.mtime_nsec()));
    assert_eq!((file.ctime.seconds, i64::from(file.ctime.nanos)), (m.ctime(), m.ctime_nsec()));
    assert!(file.atime.is_some() && !file.flags.implied && file.size() == 4);
    let top = dir.path().file_name().unwrap().to_str().unwrap();
    assert!(!entry(&mut found, top).entry.flags.implied && found[0].entry.flags.implied);
}

#[test]
fn extended_attributes_of_files_and_directories() {
    let dir = tree(&["file", "plain"]);
    let set = |p: &Path, n: &str, v: &[u8]| rustix::fs::setxattr(p, n, v, XattrFlags::empty());
    if set(&dir.path().join("file"), "user.b", &[0, 255, 1]).is_err() {
        return; // this file system has none
    }
    set(&dir.path().join("file"), "user.a", b"").unwrap();
    set(&dir.path().join("file"), "user.big", &[7; 3000]).unwrap();
    set(dir.path(), "user.dir", b"x").unwrap();
    let (mut found, _) = walk(&sources(&[dir.path()]));
    let block = entry(&mut found, "file").capture_details().unwrap().unwrap();
    let all = decode_xattrs(&block).unwrap();
    let got: Vec<(&[u8], usize)> = all.iter().map(|x| (x.name.as_slice(), x.value.len())).collect();
    assert_eq!(got, [(b"user.a".as_slice(), 0), (b"user.b", 3), (b"user.big", 3000)]);
    assert_eq!(entry(&mut found, "plain").capture_details().unwrap(), None);
    let top = dir.path().file_name().unwrap().to_str().unwrap();
    assert!(entry(&mut found, top).capture_details().unwrap().is_some());
}

/// As many as the file system takes, one of them as long as it takes.
#[test]
fn a_flood_of_extended_attributes() {
    let dir = tree(&["file"]);
    let path = dir.path().join("file");
    let set = |n: &str, v: &[u8]| rustix::fs::setxattr(&path, n, v, XattrFlags::empty()).is_ok();
    let longest = (0..=16).rev().map(|n| vec![7; 1 << n]).find(|v| set("user.long", v));
    let Some(longest) = longest else { return };
    let mut there = 1 + (0..5_000).take_while(|n| set(&format!("user.{n}"), b"x")).count();
    if there == 1 {
        // No room beside the long one.
        rustix::fs::removexattr(&path, "user.long").unwrap();
        there = (0..5_000).take_while(|n| set(&format!("user.{n}"), b"x")).count();
    }
    let (mut found, errors) = walk(&sources(&[dir.path()]));
    assert!(errors.is_empty());
    let block = entry(&mut found, "file").capture_details().unwrap().unwrap();
    println!("{there} attributes, the longest of at most {} bytes", longest.len());
    assert_eq!(decode_xattrs(&block).unwrap().len(), there);
}

#[test]
fn any_bytes_in_names() {
    let dir = tempfile::tempdir().unwrap();
    let mut all: Vec<Vec<u8>> = (1..=255u8).filter(|b| *b != b'/' && *b != b'.').map(|b| vec![b]).collect();
    all.push(vec![0xff; 255]);
    all.push(b"..\x1b[2J\n".to_vec());
    for n in &all {
        fs::create_dir(dir.path().join(std::ffi::OsStr::from_bytes(n))).unwrap();
    }
    let (found, errors) = walk(&sources(&[dir.path()]));
    assert!(errors.is_empty());
    all.sort();
    let top = &raw(dir.path())[1..];
    let inside = found.iter().filter(|f| &*f.entry.parent == top).map(|f| f.entry.name.clone());
    assert_eq!(inside.collect::<Vec<_>>(), all);
}

/// `BULLA_ENTRIES` makes it more.
#[test]
fn a_hundred_thousand_entries_in_one_directory() {
    let entries = std::env::var("BULLA_ENTRIES").map_or(100_000, |n| n.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let fd = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for i in 0..entries {
        // Links are quicker to make than files; 30,000 each stay below every file system's bound.
        let from = i / 30_000 * 30_000;
        if i == from {
            fs::write(dir.path().join(i.to_string()), "").unwrap();
        } else {
            rustix::fs::linkat(&fd, from.to_string(), &fd, i.to_string(), AtFlags::empty()).unwrap();
        }
    }
    let begin = Instant::now();
    let (found, errors) = walk(&sources(&[dir.path()]));
    assert!(errors.is_empty() && names(dir.path(), &found).len() == entries);
    println!("{entries} entries walked in {:?}", begin.elapsed());
}

/// A chain of directories, each with a sibling `z` behind it and a file in that.
struct Chain(TempDir);

impl Chain {
    fn new(depth: usize, name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let open = |d: &OwnedFd, n: &str| {
            rustix::fs::openat(d, n, OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).unwrap()
        };
        let mut fd: OwnedFd = rustix::fs::open(dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            for n in [name, "z"] {
                rustix::fs::mkdirat(&fd, n, Mode::RWXU).unwrap();
            }
            rustix::fs::openat(open(&fd, "z"), "f", OFlags::CREATE, Mode::RUSR).unwrap();
            fd = open(&fd, name);
        }
        Self(dir)
    }
}

impl Drop for Chain {
    fn drop(&mut self) {
        // The standard library's removal recurses: too deep for a test's stack.
        let done = std::process::Command::new("rm").arg("-rf").arg(self.0.path()).status();
        assert!(done.is_ok_and(|s| s.success()));
    }
}

#[test]
fn depth_beyond_path_max_and_descriptors() {
    let depth = 10_000;
    let chain = Chain::new(depth, "directory");
    let s = sources(&[chain.0.path()]);
    let mut w = Walk::new(&s, &Silent).unwrap();
    let (mut files, mut last): (usize, Option<Entry>) = (0, None);
    while let Some(next) = w.next() {
        let Walked::Entry(f) = next else { panic!("an error after {files} files") };
        assert!(last.as_ref().is_none_or(|l| l.compare(&f.entry) == Ordering::Less));
        files += usize::from(f.entry.name == b"f" && f.open().is_ok());
        last = Some(f.entry);
        if files % 500 == 1 {
            assert!(fs::read_dir("/proc/self/fd").unwrap().count() < 200);
        }
    }
    assert_eq!(files, depth);
}

#[test]
fn paths_beyond_the_format_are_errors_and_siblings_go_on() {
    let chain = Chain::new(700, &"n".repeat(255));
    let s = sources(&[chain.0.path()]);
    let mut w = Walk::new(&s, &Silent).unwrap();
    let (mut files, mut errors) = (0, Vec::new());
    while let Some(next) = w.next() {
        match next {
            Walked::Entry(f) => {
                assert!(f.path().len() <= (128 << 10) + 1);
                files += usize::from(f.entry.name == b"f");
            }
            Walked::Error(e) => errors.push(e.to_string()),
        }
    }
    assert!(files > 500 && files < 700 && !errors.is_empty() && errors.len() <= 3);
    assert!(errors.iter().all(|e| e.contains("128 KiB")));
}

#[test]
fn roots_nested_double_missing_and_implied() {
    let dir = tree(&["a/b/c", "a/d", "q/r", "q/s"]);
    let p = |n: &str| dir.path().join(n);
    let (found, errors) = walk(&sources(&[p("a"), p("a/b"), p("q/r"), p("a"), p("none/x"), p("a/gone")]));
    assert_eq!(names(dir.path(), &found), ["a", "q", "a/b", "a/d", "a/b/c", "q/r"]);
    let implied = |n: &str| found.iter().find(|f| f.path() == raw(p(n))).unwrap().entry.flags.implied;
    assert!(implied("q") && !implied("a") && !implied("a/b") && !implied("q/r"));
    let mut text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    text.sort();
    assert_eq!(text.len(), 2);
    assert!(text[0].contains("/a/gone") && text[1].contains("/none/x: it does not exist"), "{text:?}");
    let e = Walk::new(&sources(&[p("x"), p("y")]), &Silent).err().unwrap().to_string();
    assert!(e.contains("nothing to back up") && e.contains("/x") && e.contains("/y"), "{e}");
    // Relative to a base.
    let s = PathSources { base: raw(dir.path()), ..sources(&["./a/../q//r"]) };
    assert_eq!(names(dir.path(), &walk(&s).0), ["q", "q/r"]);
    assert_eq!(s.absolute(), [raw(p("q/r"))]);
}

#[test]
fn links_are_followed_above_a_root_and_nowhere_else() {
    let dir = tree(&["real/x/y", "real/z"]);
    let p = |n: &str| dir.path().join(n);
    symlink("real", p("link")).unwrap();
    let (found, errors) = walk(&sources(&[p("link/x")]));
    assert!(errors.is_empty());
    assert_eq!(names(dir.path(), &found), ["link", "link/x", "link/x/y"]);
    let link = found.iter().find(|f| f.entry.name == b"link").unwrap();
    assert!(link.entry.is_dir() && link.entry.flags.implied);
    let (found, _) = walk(&sources(&[p("link")]));
    assert_eq!(names(dir.path(), &found), ["link"]);
    assert!(matches!(found.last().unwrap().entry.kind, EntryKind::Symlink { .. }));
    // Both: the link is a link, and what was asked for behind it is not lost silently.
    for top in ["link", ""] {
        let (found, errors) = walk(&sources(&[p(top), p("link/x")]));
        assert!(names(dir.path(), &found).iter().all(|n| !n.starts_with("link/")));
        assert!(errors.len() == 1 && errors[0].to_string().contains("symbolic link"), "{errors:?}");
    }
    let (_, errors) = walk(&sources(&[p("real/z/w"), p("real")]));
    assert!(errors[0].to_string().contains("not a directory"));
}

#[test]
fn errors_keep_the_siblings() {
    let dir = tree(&["a/1", "a/2", "b/1", "c/1", "d"]);
    let p = |n: &str| dir.path().join(n);
    let s = sources(&[dir.path()]);
    let mut w = Walk::new(&s, &Silent).unwrap();
    let (mut seen, mut errors) = (Vec::new(), Vec::new());
    while let Some(next) = w.next() {
        match next {
            Walked::Entry(f) => {
                if f.entry.name == b"c" {
                    // `d` is listed already, not looked at yet; `b` and `c` are about to be entered.
                    fs::remove_file(p("d")).unwrap();
                    fs::remove_dir_all(p("b")).unwrap();
                    fs::rename(p("c"), p("c2")).unwrap();
                    symlink("a", p("c")).unwrap();
                }
                seen.push(String::from_utf8_lossy(&f.entry.path()).into_owned());
            }
            Walked::Error(e) => errors.push(e.to_string()),
        }
    }
    let count = |part: &str| errors.iter().filter(|e| e.contains(part)).count();
    assert_eq!((count("/d: it vanished"), count("/b: it vanished"), errors.len()), (1, 1, 3), "{errors:?}");
    assert_eq!(count("/c: something else") + count("/c: a symbolic link"), 1, "{errors:?}");
    assert!(seen.iter().any(|n| n.ends_with("/a/2")) && !seen.iter().any(|n| n.contains("/c/")));
}

#[test]
fn unreadable_directories_keep_their_own_entry() {
    let dir = tree(&["a/1", "b/1", "c"]);
    let p = |n: &str| dir.path().join(n);
    let mode = |n: &str, m| fs::set_permissions(p(n), fs::Permissions::from_mode(m)).unwrap();
    mode("", 0o755);
    mode("a", 0);
    mode("c", 0);
    let s = sources(&[dir.path()]);
    // Root reads everything: there the walk runs as nobody, in a thread of its own.
    let run = || {
        if is_root() {
            let nobody = rustix::process::Uid::from_raw(65_534);
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        }
        let (mut found, errors) = walk(&s);
        let open = entry(&mut found, "c").open().err().map(|e| e.to_string());
        (names(dir.path(), &found), errors, open)
    };
    let (seen, errors, open) = std::thread::scope(|scope| scope.spawn(run).join().unwrap());
    mode("a", 0o700);
    assert_eq!(seen, ["a", "b", "c", "b/1"]);
    assert!(errors.len() == 1 && errors[0].to_string().contains("/a: Permission denied"), "{errors:?}");
    assert!(open.unwrap().contains("Permission denied"));
}

fn filtered(dir: &TempDir, spec: &FilterSpec) -> Vec<String> {
    let s = PathSources { filter: Filter::new(spec).unwrap(), ..sources(&[dir.path()]) };
    let (found, errors) = walk(&s);
    assert!(errors.is_empty());
    names(dir.path(), &found)
}

#[test]
fn filters_leave_out() {
    let dir = tree(&["a/x.o", "a/Y.O", "a/keep.o", "b/deep/c/f", "b/deep/g", "big"]);
    fs::write(dir.path().join("big"), vec![0; 5000]).unwrap();
    let spec = |excludes: &[&str]| FilterSpec {
        excludes: excludes.iter().map(|e| e.as_bytes().to_vec()).collect(),
        ..FilterSpec::default()
    };
    assert_eq!(filtered(&dir, &spec(&["*.o", "deep"])), ["a", "b", "big", "a/Y.O"]);
    let kept = ["a", "b", "big", "a/Y.O", "a/keep.o", "b/deep", "b/deep/c", "b/deep/g"];
    assert_eq!(filtered(&dir, &spec(&["*.o", "!keep.*", "/deep", "b/**/f"])), kept);
    let top = dir.path().to_str().unwrap();
    let anchored = spec(&[&format!("{top}/b"), "big"]);
    assert_eq!(filtered(&dir, &anchored), ["a", "a/Y.O", "a/keep.o", "a/x.o"]);
    let folded = FilterSpec { iexcludes: vec![b"*.o".to_vec()], larger_than: Some(4999), ..spec(&["b"]) };
    assert_eq!(filtered(&dir, &folded), ["a"]);
    assert_eq!(filtered(&dir, &FilterSpec { larger_than: Some(5000), ..spec(&["a", "b"]) }), ["big"]);
    let big = dir.path().join("big");
    let s = PathSources { filter: Filter::new(&spec(&["big"])).unwrap(), ..sources(&[big]) };
    assert!(Walk::new(&s, &Silent).err().unwrap().to_string().contains("excluded by a pattern"));
}

#[test]
fn marked_directories_keep_themselves_and_the_marker() {
    let files =
        ["cache/CACHEDIR.TAG", "cache/x/y", "fake/CACHEDIR.TAG", "fake/x", "m/.no", "m/x", "h/.no", "h/x"];
    let dir = tree(&files);
    let signature = "Signature: 8a477f597d28d172789f06886806bc55\n# x";
    fs::write(dir.path().join("cache/CACHEDIR.TAG"), signature).unwrap();
    fs::write(dir.path().join("m/.no"), "yes, no").unwrap();
    let caches = FilterSpec { caches: true, ..FilterSpec::default() };
    let all = ["cache", "fake", "h", "m", "cache/CACHEDIR.TAG", "fake/CACHEDIR.TAG", "fake/x"];
    assert_eq!(filtered(&dir, &caches), [&all[..], &["h/.no", "h/x", "m/.no", "m/x"]].concat());
    let present = |m: &str| FilterSpec { if_present: vec![Marker::parse(m.as_bytes())], ..caches.clone() };
    assert_eq!(filtered(&dir, &present(".no")), [&all[..], &["h/.no", "m/.no"]].concat());
    assert_eq!(filtered(&dir, &present(".no:yes")), [&all[..], &["h/.no", "h/x", "m/.no"]].concat());
}

#[test]
fn the_repository_itself_is_skipped_with_a_notice() {
    let dir = tree(&["repo/x", "b/repo/x"]);
    let id = |n: &str| fs::metadata(dir.path().join(n)).map(|m| (m.dev(), m.ino())).unwrap();
    let s = PathSources { skip: vec![id("repo")], ..sources(&[dir.path()]) };
    let (observer, mut seen) = (Collector::default(), Vec::new());
    let mut w = Walk::new(&s, &observer).unwrap();
    while let Some(Walked::Entry(f)) = w.next() {
        seen.push(f);
    }
    assert_eq!(names(dir.path(), &seen), ["b", "b/repo", "b/repo/x"]);
    let told = observer.messages();
    assert!(told.len() == 1 && told[0].contains("/repo"), "{told:?}");
}

/// A tmpfs for one test; `None` where mounting is not allowed.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(at: &Path) -> Option<Self> {
        let mut mount = std::process::Command::new("mount");
        let done = mount.args(["-t", "tmpfs", "bulla-test"]).arg(at).output().ok()?;
        done.status.success().then(|| Self(at.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn one_file_system_and_the_mount_table() {
    let dir = tree(&["a/x", "m/", "z"]);
    let p = |n: &str| dir.path().join(n);
    let Some(_mount) = Mounted::new(&p("m")) else { return };
    fs::create_dir(p("m/sub")).unwrap();
    fs::write(p("m/sub/f"), "").unwrap();
    let (all, own) = (["a", "m", "z", "a/x", "m/sub", "m/sub/f"], ["a", "m", "z", "a/x"]);
    let mut s = sources(&[dir.path()]);
    assert_eq!(names(dir.path(), &walk(&s).0), all);
    let mut w = Walk::new(&s, &Silent).unwrap();
    while w.next().is_some() {}
    let tmpfs = w.mounts().iter().find(|m| m.path == raw(p("m"))).unwrap();
    assert_eq!(tmpfs.fs_type, "tmpfs");
    s.one_file_system = true;
    assert_eq!(names(dir.path(), &walk(&s).0), own);
    // What is named is wanted, wherever it is mounted.
    s.paths.push(raw(p("m/sub/f")));
    assert_eq!(names(dir.path(), &walk(&s).0), all);
    s.paths.push(raw(p("m")));
    assert_eq!(names(dir.path(), &walk(&s).0), all);
}

#[test]
fn the_whole_system_has_no_entry_for_itself() {
    let s = PathSources { one_file_system: true, ..sources(&["/"]) };
    let mut w = Walk::new(&s, &Silent).unwrap();
    let mut top = Vec::new();
    while let Some(next) = w.next() {
        let Walked::Entry(f) = next else { continue };
        if !f.entry.parent.is_empty() {
            break;
        }
        top.push(f.entry.name);
    }
    let mut want: Vec<Vec<u8>> = fs::read_dir("/").unwrap().map(|e| raw(e.unwrap().file_name())).collect();
    want.sort_by(|a, b| compare_paths(a, b));
    assert_eq!(top, want);
}
