//! Whole verbs against straight-line programs that do only what no backup can avoid: no tree, no index, no announcements,
//! no error paths, one thread.

use crate::Case;
use crate::data::{REPO, directory, files, keyring};
use bulla_engine::backend::Memory;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::chunker::Chunker;
use bulla_engine::env::Env;
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::source::{Filter, PathSources, Sources};
use bulla_repo_format::chunker::ChunkerParams;
use bulla_repo_format::frame::{Compression, Compressor, Expander};
use bulla_repo_format::keys::{ChunkKind, Secret};
use bulla_repo_format::pack::{PackHeader, PackKind};
use std::fs;
use std::hint::black_box;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tempfile::TempDir;

/// All cases.
pub(crate) const CASES: &[fn() -> Case] = &[first_backup, width, no_change, restore_all];

const FILES: u64 = 3000;
const SIZE: u64 = 8 << 10;
const FRAME: usize = 4 << 20;

fn source(count: u64, size: u64) -> TempDir {
    let dir = directory();
    files(dir.path(), count, size);
    dir
}

fn repository(width: usize) -> Repository {
    let env = Env { width, ..Env::system("guard", "guard") };
    let secret = SlotSecret::Key(Secret::new([6; 32]));
    Repository::init(Arc::new(Memory::default()), &InitOptions::default(), &secret, env).unwrap().repository
}

fn back_up(repository: &Repository, source: &Path) -> backup::BackupReport {
    let sources = Sources::Paths(PathSources {
        paths: vec![source.as_os_str().as_bytes().to_vec()],
        base: b"/".to_vec(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    });
    let report = backup::run(repository, sources, &BackupOptions::default(), &Silent).unwrap();
    assert!(report.statistics.errors == 0 && report.snapshot.is_some());
    report
}

/// Paths of all files, directories listed and every entry asked for its metadata.
fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if black_box(fs::symlink_metadata(&path).unwrap()).is_dir() {
            walk(&path, out);
        } else {
            out.push(path);
        }
    }
}

/// Chunks of one frame, and the frame sealed.
struct Straight {
    chunks: Vec<(PathBuf, usize)>,
    sealed: Vec<u8>,
    raw: usize,
}

/// Walk, read, cut, identify, compress, seal, open and expand again to compare.
fn straight_line(source: &Path) -> Vec<Straight> {
    let ring = keyring();
    let chunker = Chunker::new(ChunkerParams::DEFAULT, &ring).unwrap();
    let id = ring.id_key(0, ChunkKind::Data).unwrap();
    let key = PackHeader::create(PackKind::Data, &ring, &REPO, [5; 32]).unwrap().1;
    let mut compressor = Compressor::new(Compression::Auto, u32::try_from(FRAME).unwrap()).unwrap();
    let (mut expander, mut again, mut opened) = (Expander::new(), Vec::new(), Vec::new());
    let (mut paths, mut frames, mut stream, mut chunks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut close = |stream: &mut Vec<u8>, chunks: &mut Vec<(PathBuf, usize)>| {
        let mut sealed = Vec::new();
        compressor.compress(stream).write(&mut sealed);
        key.seal(0, &mut sealed).unwrap();
        opened.clone_from(&sealed);
        expander
            .expand(key.open(0, &mut opened).unwrap(), u32::try_from(stream.len()).unwrap(), &mut again)
            .unwrap();
        assert!(again == *stream);
        frames.push(Straight { chunks: std::mem::take(chunks), sealed, raw: stream.len() });
        stream.clear();
    };
    walk(source, &mut paths);
    for path in paths {
        let bytes = fs::read(&path).unwrap();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let n = chunker.cut(rest);
            black_box(id.identify(&rest[..n]));
            if stream.len() + n > FRAME {
                close(&mut stream, &mut chunks);
            }
            stream.extend_from_slice(&rest[..n]);
            chunks.push((path.clone(), n));
            rest = &rest[n..];
        }
    }
    close(&mut stream, &mut chunks);
    frames
}

fn first_backup() -> Case {
    let dir = Rc::new(source(FILES, SIZE));
    let other = dir.clone();
    let ours = move || drop(back_up(&repository(1), dir.path()));
    let plain = move || drop(black_box(straight_line(other.path())));
    Case {
        name: "first backup",
        reference: "walk, read, cut, hash, compress, seal, verify",
        at_most: 1.14,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// Four workers share one stream: what they spend on waiting for each other shows as processor time.
fn width() -> Case {
    let dir = Rc::new(source(FILES, SIZE));
    let other = dir.clone();
    let ours = move || drop(back_up(&repository(4), dir.path()));
    let plain = move || drop(back_up(&repository(1), other.path()));
    Case {
        name: "first backup, 4 wide",
        reference: "the same, 1 wide",
        at_most: 1.1,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// Many files and little in them: starting a run is no part of the question.
fn no_change() -> Case {
    let dir = Rc::new(source(4 * FILES, 512));
    let other = dir.clone();
    let repository = repository(1);
    // What changed within two whole seconds before a scan is read again; so wait until that is past, and scan once more.
    back_up(&repository, dir.path());
    std::thread::sleep(std::time::Duration::from_secs(4));
    back_up(&repository, dir.path());
    let ours = move || {
        let report = back_up(&repository, dir.path());
        assert_eq!(report.statistics.files_unmodified, 4 * FILES);
    };
    let plain = move || walk(other.path(), &mut Vec::new());
    Case {
        name: "no change",
        reference: "a walk",
        at_most: 1.68,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

fn restore_all() -> Case {
    let dir = source(FILES, SIZE);
    let repository = repository(1);
    let snapshot = back_up(&repository, dir.path()).snapshot.unwrap();
    let frames = straight_line(dir.path());
    let ours = move || {
        let target = directory();
        let report =
            restore::run(&repository, &snapshot, b"", target.path(), &RestoreOptions::default(), &Silent)
                .unwrap();
        assert!(report.damaged.is_empty());
    };
    let plain = move || expand_all(&frames, dir.path());
    Case {
        name: "restore",
        reference: "open, expand, hash, write",
        at_most: 1.08,
        ours: Box::new(ours),
        plain: Box::new(plain),
    }
}

/// The way back: every file made and written; whole files only, so chunks of one path are appended.
fn expand_all(frames: &[Straight], source: &Path) {
    let ring = keyring();
    let id = ring.id_key(0, ChunkKind::Data).unwrap();
    let key = PackHeader::create(PackKind::Data, &ring, &REPO, [5; 32]).unwrap().1;
    let target = directory();
    let (mut expander, mut raw) = (Expander::new(), Vec::new());
    for frame in frames {
        let mut sealed = frame.sealed.clone();
        let opened = key.open(0, &mut sealed).unwrap();
        expander.expand(opened, u32::try_from(frame.raw).unwrap(), &mut raw).unwrap();
        let mut rest = &raw[..];
        for (path, n) in &frame.chunks {
            black_box(id.identify(&rest[..*n]));
            let to = target.path().join(path.strip_prefix(source).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let mut file = fs::OpenOptions::new().create(true).append(true).open(to).unwrap();
            std::io::Write::write_all(&mut file, &rest[..*n]).unwrap();
            rest = &rest[*n..];
        }
    }
}
