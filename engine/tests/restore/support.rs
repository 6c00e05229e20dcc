//! A repository in memory, a source tree, a target, and a description of trees down to the last attribute.

use bulla_engine::backend::Memory;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::restore::{self, RestoreOptions, RestoreReport};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) struct Place {
    pub(crate) all: tempfile::TempDir,
    pub(crate) repository: Repository,
    pub(crate) memory: Arc<Memory>,
}

impl Place {
    pub(crate) fn new() -> Self {
        let all = tempfile::tempdir().unwrap();
        std::fs::create_dir(all.path().join("src")).unwrap();
        let memory = Arc::new(Memory::new());
        let options = InitOptions {
            chunker: ChunkerParams { min: 1 << 10, avg: 1 << 12, max: 1 << 14 },
            data_frame: 16 << 10,
            meta_frame: 4 << 10,
            data_pack: 64 << 10,
            meta_pack: 64 << 10,
            ..InitOptions::default()
        };
        let secret = SlotSecret::Key(Secret::new([7; 32]));
        let mut env = Env::system("test-machine", "tester");
        env.width = 3;
        let repository = Repository::init(memory.clone(), &options, &secret, env).unwrap().repository;
        Self { all, repository, memory }
    }

    pub(crate) fn src(&self) -> PathBuf {
        self.all.path().join("src")
    }
    pub(crate) fn out(&self) -> PathBuf {
        self.all.path().join("out")
    }
    /// The source's path in a snapshot.
    pub(crate) fn sub(&self) -> Vec<u8> {
        self.src().as_os_str().as_bytes()[1..].to_vec()
    }

    pub(crate) fn backup(&self) -> Snapshot {
        let sources = Sources::Paths(PathSources {
            paths: vec![self.src().as_os_str().as_bytes().to_vec()],
            base: b"/".to_vec(),
            filter: Filter::default(),
            one_file_system: false,
            with_atime: false,
            skip: Vec::new(),
        });
        let options = BackupOptions { host: "test-machine".into(), ..BackupOptions::default() };
        backup::run(&self.repository, sources, &options, &Silent).unwrap().snapshot.unwrap()
    }

    /// Restores the contents of the source straight into `out`.
    pub(crate) fn restore(&self, snapshot: &Snapshot, options: &RestoreOptions) -> RestoreReport {
        restore::run(&self.repository, snapshot, &self.sub(), &self.out(), options, &Silent).unwrap()
    }
}

/// Incompressible bytes that depend on `seed`.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// Everything about a tree that a restore must bring back, one line per path. `""` is the directory itself.
pub(crate) fn describe(dir: &Path) -> BTreeMap<String, String> {
    let mut out = BTreeMap::new();
    let mut groups: HashMap<(u64, u64), Vec<String>> = HashMap::new();
    let mut stack = vec![dir.to_path_buf()];
    while let Some(path) = stack.pop() {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
        let mut line = format!(
            "{:o} {}:{} {}.{:09} ",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        if meta.is_dir() {
            stack.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.is_symlink() {
            line += &format!("-> {}", std::fs::read_link(&path).unwrap().display());
        } else if meta.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            line += &format!("{} {}", bytes.len(), &blake3::hash(&bytes).to_hex()[..16]);
        } else {
            line += &format!("rdev {}", meta.rdev());
        }
        if !meta.is_symlink() {
            line += &xattrs(&path);
        }
        if meta.nlink() > 1 && !meta.is_dir() {
            groups.entry((meta.dev(), meta.ino())).or_default().push(name.clone());
        }
        out.insert(name, line);
    }
    for mut names in groups.into_values() {
        names.sort();
        for name in &names {
            out.entry(name.clone()).and_modify(|l| *l += &format!(" = {}", names.join(",")));
        }
    }
    out
}

fn xattrs(path: &Path) -> String {
    let mut list = vec![0; 64 << 10];
    let len = rustix::fs::llistxattr(path, &mut list[..]).unwrap_or(0);
    let mut lines: Vec<String> = Vec::new();
    for name in list[..len].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0; 64 << 10];
        let len = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap_or(0);
        lines.push(format!(" {}={}", String::from_utf8_lossy(name), blake3::hash(&value[..len])));
    }
    lines.sort();
    lines.concat()
}

/// Compares two trees and says what differs.
#[track_caller]
pub(crate) fn assert_same(a: &Path, b: &Path) {
    assert_equal(&describe(a), &describe(b));
}

/// The same but for the directories themselves: a target that was there before keeps its metadata.
#[track_caller]
pub(crate) fn assert_same_below(a: &Path, b: &Path) {
    let (mut a, mut b) = (describe(a), describe(b));
    assert_eq!((a.remove("").is_some(), b.remove("").is_some()), (true, true));
    assert_equal(&a, &b);
}

#[track_caller]
fn assert_equal(a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) {
    let mut bad = Vec::new();
    for name in a.keys().chain(b.keys()) {
        if a.get(name) != b.get(name) {
            bad.push(format!("{name}:\n  {:?}\n  {:?}", a.get(name), b.get(name)));
        }
    }
    bad.dedup();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// A tree with text and noise, small and large files.
pub(crate) fn populate(dir: &Path) {
    for d in 0..4 {
        let sub = dir.join(format!("d{d}/deep"));
        std::fs::create_dir_all(&sub).unwrap();
        for f in 0..8 {
            let text = format!("file {f} of directory {d}\n").repeat(f * 40);
            std::fs::write(sub.join(format!("f{f}.txt")), text).unwrap();
        }
        std::fs::write(dir.join(format!("d{d}/noise")), noise(&d.to_string(), 30_000 * d)).unwrap();
    }
    std::fs::write(dir.join("large"), noise("large", 400_000)).unwrap();
    std::fs::write(dir.join("empty"), b"").unwrap();
    std::os::unix::fs::symlink("d0/noise", dir.join("link")).unwrap();
    std::fs::hard_link(dir.join("large"), dir.join("d1/other-name")).unwrap();
}
