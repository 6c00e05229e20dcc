//! Reading files that are sparse, lie about their size, change, or are swapped for something else.

use bulla_engine::SourceError;
use bulla_engine::format::tree::Entry;
use bulla_engine::observer::Silent;
use bulla_engine::source::{Found, PathSources, Walk, Walked};
use rustix::fs::{CWD, Dev, FileType, Mode};
use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

fn walk<P: AsRef<Path>>(paths: &[P]) -> Vec<Found> {
    let paths = paths.iter().map(|p| p.as_ref().as_os_str().as_bytes().to_vec()).collect();
    let sources = PathSources { paths, base: b"/".to_vec(), ..PathSources::default() };
    let (mut walk, mut found) = (Walk::new(&sources, &Silent).unwrap(), Vec::new());
    while let Some(w) = walk.next() {
        match w {
            Walked::Entry(f) => found.push(f),
            Walked::Error(e) => panic!("{e}"),
        }
    }
    found
}

fn entry<'f>(found: &'f mut [Found], name: &str) -> &'f mut Found {
    found.iter_mut().find(|f| f.entry.name == name.as_bytes()).unwrap()
}

/// Reads to the end; gives the data with holes filled in, the entry afterwards, and whether it changed.
fn read(found: &Found, chunk: usize) -> Result<(Vec<u8>, Entry, bool), SourceError> {
    let mut file = found.open()?;
    let (mut data, mut buffer) = (Vec::new(), vec![0; chunk]);
    loop {
        let n = file.read(&mut buffer)?;
        data.extend_from_slice(&buffer[..n]);
        if n < chunk {
            break;
        }
    }
    for h in file.holes() {
        let at = h.offset as usize;
        data.splice(at..at, std::iter::repeat_n(0, h.len as usize));
    }
    let mut entry = found.entry.clone();
    let changed = file.finish(&mut entry);
    assert_eq!(entry.size(), data.len() as u64);
    assert_eq!(entry.flags.changed_during_read, changed);
    Ok((data, entry, changed))
}

#[test]
fn sparse_files_are_read_without_their_holes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let mut f = fs::File::create(&path).unwrap();
    for (at, data) in [(1u64 << 20, b"one".as_slice()), (5 << 20, b"two")] {
        f.seek(SeekFrom::Start(at)).unwrap();
        f.write_all(data).unwrap();
    }
    f.set_len(9 << 20).unwrap();
    fs::write(dir.path().join("dense"), vec![1; 100_000]).unwrap();
    let mut found = walk(&[dir.path()]);
    for chunk in [1000, 65_536, 100 << 20] {
        let (data, entry, changed) = read(entry(&mut found, "s"), chunk).unwrap();
        assert!(data == fs::read(&path).unwrap() && !changed && entry.size() == 9 << 20);
    }
    assert!(entry(&mut found, "s").open().unwrap().holes().len() >= 2);
    assert_eq!(read(entry(&mut found, "dense"), 777).unwrap().0, vec![1; 100_000]);
}

#[test]
fn a_terabyte_of_nothing_takes_no_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut f = fs::File::create(dir.path().join("s")).unwrap();
    f.seek(SeekFrom::Start(1 << 39)).unwrap();
    f.write_all(b"middle").unwrap();
    f.set_len(1 << 40).unwrap();
    let begin = Instant::now();
    let mut found = walk(&[dir.path()]);
    let mut file = entry(&mut found, "s").open().unwrap();
    let n = file.read(&mut vec![0; 1 << 20]).unwrap();
    let mut e = entry(&mut found, "s").entry.clone();
    assert!(n < 1 << 20 && !file.finish(&mut e) && e.size() == 1 << 40);
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[test]
fn files_of_proc_are_read_whatever_size_they_claim() {
    let found = walk(&["/proc/self/status", "/proc/self/limits"]);
    for f in found.iter().filter(|f| !f.entry.is_dir()) {
        let (data, e, changed) = read(f, 100).unwrap();
        assert!(f.entry.size() == 0 && e.size() > 100 && data.len() > 100 && !changed);
    }
}

#[test]
fn a_change_while_reading_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let p = |n: &str| dir.path().join(n);
    for name in ["grow", "rewrite", "still"] {
        fs::write(p(name), name).unwrap();
    }
    fs::write(p("cut"), vec![3; 300_000]).unwrap();
    // File systems count time in ticks: a change within one would go unseen only by its time.
    std::thread::sleep(Duration::from_millis(20));
    let mut found = walk(&[dir.path()]);
    let mut run = |name: &str, act: &dyn Fn()| {
        let f = entry(&mut found, name);
        let mut file = f.open().unwrap();
        assert_eq!(file.read(&mut [0; 3]).unwrap(), 3);
        act();
        let n = 3 + file.read(&mut vec![0; 1 << 20]).unwrap();
        let mut e = f.entry.clone();
        (file.finish(&mut e), n as u64 == e.size(), e.size())
    };
    let append = |n: &str| fs::File::options().append(true).open(p(n)).unwrap().write_all(b"more").unwrap();
    assert_eq!(run("grow", &|| append("grow")), (true, true, 8));
    assert_eq!(run("cut", &|| fs::File::create(p("cut")).unwrap().set_len(10).unwrap()), (true, true, 10));
    assert_eq!(run("rewrite", &|| fs::write(p("rewrite"), "REWRITE").unwrap()), (true, true, 7));
    assert_eq!(run("still", &|| ()), (false, true, 5));
}

#[test]
fn a_sparse_file_cut_while_reading_keeps_only_the_holes_it_passed() {
    let dir = tempfile::tempdir().unwrap();
    let mut f = fs::File::create(dir.path().join("s")).unwrap();
    for at in [0u64, 1 << 20, 3 << 20] {
        f.seek(SeekFrom::Start(at)).unwrap();
        f.write_all(&[2; 8192]).unwrap();
    }
    let mut found = walk(&[dir.path()]);
    let found = entry(&mut found, "s");
    let mut file = found.open().unwrap();
    assert_eq!(file.read(&mut [0; 8292]).unwrap(), 8292);
    f.set_len((1 << 20) + 200).unwrap();
    let n = 8292 + file.read(&mut vec![0; 1 << 20]).unwrap() as u64;
    let holes: u64 = file.holes().iter().map(|h| h.len).sum();
    let mut e = found.entry.clone();
    assert!(file.finish(&mut e) && e.size() == n + holes && e.size() == (1 << 20) + 200);
}

#[test]
fn what_takes_a_files_place_is_not_followed_and_does_not_block() {
    let dir = tempfile::tempdir().unwrap();
    let p = |n: &str| dir.path().join(n);
    let names = ["fifo", "link", "gone", "dir", "other", "touched"];
    names.iter().for_each(|n| fs::write(p(n), n).unwrap());
    symlink("x", p("was-link")).unwrap();
    let mut found = walk(&[dir.path()]);
    for n in ["fifo", "link", "gone", "dir", "was-link"] {
        fs::remove_file(p(n)).unwrap();
    }
    rustix::fs::mknodat(CWD, p("fifo"), FileType::Fifo, Mode::RWXU, Dev::default()).unwrap();
    symlink("other", p("link")).unwrap();
    fs::create_dir(p("dir")).unwrap();
    let why = |f: &Found| f.open().err().unwrap().to_string();
    assert!(why(entry(&mut found, "fifo")).contains("not a regular file"));
    assert!(why(entry(&mut found, "link")).contains("symbolic link"));
    assert!(why(entry(&mut found, "gone")).contains("vanished"));
    assert!(why(entry(&mut found, "dir")).contains("not a regular file"));
    fs::write(p("was-link"), "").unwrap();
    let e = entry(&mut found, "was-link").capture_details().unwrap_err();
    assert!(e.to_string().contains("not a symbolic link"));
    // Another regular file: what is there now is what is stored, and it is said.
    fs::write(p("new"), "newer content").unwrap();
    fs::rename(p("new"), p("other")).unwrap();
    let (data, e, changed) = read(entry(&mut found, "other"), 100).unwrap();
    assert!(data == b"newer content" && changed && e.inode == fs::metadata(p("other")).unwrap().ino());
    // Changed between walk and open only: the fresh facts win.
    fs::write(p("touched"), "longer than before").unwrap();
    let (data, e, changed) = read(entry(&mut found, "touched"), 100).unwrap();
    assert!(data.len() == 18 && !changed && e.mtime.seconds == fs::metadata(p("touched")).unwrap().mtime());
}
