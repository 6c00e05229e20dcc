//! A source tree, a repository in memory, a target, and a description of trees down to the last attribute.

use crate::support::{backup, env, secret, small};
use bulla_engine::backend::Memory;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::{Event, Observer, Silent};
use bulla_engine::repository::Repository;
use bulla_engine::restore::{self, Planned, RestoreOptions, RestoreReport};
use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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
        let mut env = env(1);
        env.width = 3;
        let repository = Repository::init(memory.clone(), &small(), &secret(), env).unwrap().repository;
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
        backup(&self.repository, &self.src()).unwrap().snapshot.unwrap()
    }

    /// Restores the contents of the source straight into `out`.
    pub(crate) fn restore(&self, snapshot: &Snapshot, options: &RestoreOptions) -> RestoreReport {
        restore::run(&self.repository, snapshot, &self.sub(), &self.out(), options, &Silent).unwrap()
    }

    /// What a dry run says.
    pub(crate) fn plan(&self, snapshot: &Snapshot, options: &RestoreOptions) -> Vec<Planned> {
        struct Lines(Mutex<Vec<Planned>>);
        impl Observer for Lines {
            fn event(&self, event: &Event<'_>) {
                if let Event::Planned(line) = event {
                    self.0.lock().unwrap().push((*line).clone());
                }
            }
        }
        let lines = Lines(Mutex::default());
        restore::run(&self.repository, snapshot, &self.sub(), &self.out(), options, &lines).unwrap();
        lines.0.into_inner().unwrap()
    }
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
