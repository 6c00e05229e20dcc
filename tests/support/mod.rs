//! What scenarios share: a small repository in memory with cheap keys, source trees, and a reader of everything.

use bulla_engine::backend::{Backend, Memory};
use bulla_engine::backup::{self, BackupOptions, BackupReport};
use bulla_engine::env::{Clock, Entropy, Env};
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::keys::{ChunkKind, Secret};
use bulla_engine::format::record::{Announcement, Mark, RunKind};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{EntryKind, Timestamp};
use bulla_engine::format::{ObjectName, PackName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::repository::chunks::ChunkReader;
use bulla_engine::repository::index::Index;
use bulla_engine::repository::tree::TreeReader;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use bulla_engine::{Result, browse};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// A clock that moves when told. It starts in the future of every file a test writes, so that nothing is racy.
pub(crate) struct Manual(pub(crate) AtomicI64);

impl Clock for Manual {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0.fetch_add(1, Ordering::Relaxed), nanos: 0 }
    }
}

/// Reproducible bytes: a counter through BLAKE3.
pub(crate) struct Counted(AtomicU64);

impl Counted {
    /// Other bytes for each seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed << 32))
    }
}

impl Entropy for Counted {
    fn fill(&self, out: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed);
        blake3::Hasher::new().update(&n.to_le_bytes()).finalize_xof().fill(out);
    }
}

/// An environment with its own clock and entropy.
pub(crate) fn env(seed: u64) -> Env {
    let mut env = Env::system("test-machine", "tester");
    let future = env.clock.now().seconds + 1000;
    env.clock = Arc::new(Manual(AtomicI64::new(future)));
    env.entropy = Arc::new(Counted::new(seed));
    env.width = 2;
    env
}

/// The secret of every test repository.
pub(crate) fn secret() -> SlotSecret {
    SlotSecret::Key(Secret::new([7; 32]))
}

/// Small chunks, frames and packs, so that little data has the structure of much.
pub(crate) fn small() -> InitOptions {
    InitOptions {
        chunker: ChunkerParams { min: 1 << 10, avg: 1 << 12, max: 1 << 14 },
        data_frame: 16 << 10,
        meta_frame: 4 << 10,
        data_pack: 64 << 10,
        meta_pack: 64 << 10,
        ..InitOptions::default()
    }
}

/// As [`in_memory`], with packs large enough that their padding does not count.
pub(crate) fn with_large_packs() -> (Repository, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    let options = InitOptions { data_pack: 512 << 10, ..small() };
    let made = Repository::init(memory.clone(), &options, &secret(), env(1)).unwrap();
    (made.repository, memory)
}

/// A new repository in `backend`.
pub(crate) fn init(backend: Arc<dyn Backend>) -> Repository {
    Repository::init(backend, &small(), &secret(), env(1)).unwrap().repository
}

/// A new repository in memory, and the memory.
pub(crate) fn in_memory() -> (Repository, Arc<Memory>) {
    let memory = Arc::new(Memory::new());
    (init(memory.clone()), memory)
}

/// Opens what [`init`] made.
pub(crate) fn open(backend: Arc<dyn Backend>, seed: u64) -> Result<Repository> {
    Repository::open(backend, &secret(), env(seed))
}

/// `path` as a source.
pub(crate) fn source(path: &Path) -> Sources {
    Sources::Paths(PathSources {
        paths: vec![path.to_str().unwrap().as_bytes().to_vec()],
        base: b"/".to_vec(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    })
}

/// Options of the usual backup.
pub(crate) fn options() -> BackupOptions {
    BackupOptions { host: "test-machine".into(), ..BackupOptions::default() }
}

/// Backs up `path`.
pub(crate) fn backup(repository: &Repository, path: &Path) -> Result<BackupReport> {
    backup::run(repository, source(path), &options(), &Silent)
}

/// Incompressible bytes that depend on `seed`.
pub(crate) fn noise(seed: &str, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(seed.as_bytes()).finalize_xof().fill(&mut out);
    out
}

/// A tree of text and noise, small and large files, in `dir`.
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

/// Every path of a snapshot with its kind, mode and bytes: two snapshots are the same if these are.
pub(crate) fn contents(repository: &Repository, snapshot: &Snapshot) -> Result<BTreeMap<String, String>> {
    let mut entries = Vec::new();
    browse::list(repository, snapshot, b"", true, &mut |e| {
        entries.push(e.clone());
        Ok(())
    })?;
    let mut out = BTreeMap::new();
    for entry in entries {
        let mut bytes = format!("{:o} ", entry.mode).into_bytes();
        match &entry.kind {
            EntryKind::File { .. } => {
                _ = browse::write_file(repository, snapshot, &entry.path(), &mut bytes)?
            }
            EntryKind::Symlink { target } => bytes.extend(target),
            other => bytes.extend(format!("{other:?}").into_bytes()),
        }
        out.insert(name(&entry.path()), digest(&bytes));
    }
    Ok(out)
}

/// As [`contents`], with an index opened once: for a thousand states. Files without holes only.
pub(crate) fn contents_through(
    repository: &Repository,
    index: &Index,
    snapshot: &Snapshot,
) -> Result<BTreeMap<String, String>> {
    let (mut out, mut buffer) = (BTreeMap::new(), Vec::new());
    let mut reader = TreeReader::new(repository, index, snapshot.tree);
    let mut chunks = ChunkReader::new(repository, index);
    while let Some(entry) = reader.next()? {
        let mut bytes = format!("{:o} ", entry.mode).into_bytes();
        match &entry.kind {
            EntryKind::File { content, .. } => {
                for chunk in reader.content(content)? {
                    chunks.read(ChunkKind::Data, &chunk.id, &mut buffer)?;
                    bytes.extend_from_slice(&buffer);
                }
            }
            EntryKind::Symlink { target } => bytes.extend(target),
            other => bytes.extend(format!("{other:?}").into_bytes()),
        }
        out.insert(name(&entry.path()), digest(&bytes));
    }
    Ok(out)
}

fn name(path: &[u8]) -> String {
    bulla_engine::observer::escape(path)
}

/// Short, so that a failed comparison can be read.
fn digest(bytes: &[u8]) -> String {
    format!("{} {}", bytes.len(), &blake3::hash(bytes).to_hex()[..12])
}

/// What [`contents`] must give for a backup of `dir`, from the disk itself.
pub(crate) fn on_disk(dir: &Path) -> BTreeMap<String, String> {
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::MetadataExt;
    let mut out = BTreeMap::new();
    let mut ancestors: Vec<_> = dir.ancestors().map(Path::to_path_buf).collect();
    ancestors.retain(|a| a.parent().is_some());
    let mut stack = vec![dir.to_path_buf()];
    while let Some(path) = stack.pop() {
        if path.is_dir() && !path.is_symlink() {
            stack.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        ancestors.push(path);
    }
    for path in ancestors {
        let meta = path.symlink_metadata().unwrap();
        let mut bytes = format!("{:o} ", meta.mode() & 0o7777).into_bytes();
        if meta.is_symlink() {
            bytes.extend(std::fs::read_link(&path).unwrap().as_os_str().as_bytes());
        } else if meta.is_file() {
            bytes.extend(std::fs::read(&path).unwrap());
        } else {
            bytes.extend(b"Directory");
        }
        out.insert(name(&path.as_os_str().as_bytes()[1..]), digest(&bytes));
    }
    out
}

/// A store that is a copy of another.
pub(crate) fn copy_of(memory: &Memory) -> Arc<Memory> {
    let copy = Memory::new();
    for (name, bytes) in memory.snapshot() {
        copy.overwrite(name, Some(bytes));
    }
    Arc::new(copy)
}

/// Condemns packs, as a collector does that stops right after.
pub(crate) fn mark(repository: &Repository, victims: &[PackName], damaged: bool) {
    let run = RunId::new(repository.env().random());
    let mark = Mark { run, client: repository.client().id(), victims: victims.to_vec(), damaged };
    repository.put_object(&ObjectName::Mark(run), ObjectType::Mark, mark.encode()).unwrap();
}

/// A backup that was killed right before its verdict; the number of packs it left.
pub(crate) fn interrupted(repository: &Repository, memory: &Arc<Memory>, path: &Path) -> usize {
    let kept = memory.snapshot();
    let done = backup(repository, path).unwrap().snapshot.unwrap();
    let after = memory.snapshot();
    let packs = |n: &ObjectName| matches!(n, ObjectName::Pack(_) | ObjectName::Meta(_));
    let left = after.keys().filter(|n| packs(n) && !kept.contains_key(n)).count();
    memory.overwrite(ObjectName::Verdict(done.id), None);
    let client = repository.client().id();
    let open = Announcement {
        run: done.id,
        number: 0,
        client,
        kind: RunKind::Writer,
        pins: Vec::new(),
        verified: false,
        packs: Vec::new(),
        checkpoint: None,
    };
    let name = ObjectName::Announcement(done.id, 0);
    repository.put_object(&name, ObjectType::Announcement, open.encode()).unwrap();
    left
}

/// Lets one snapshot go; false if it was forgotten before.
pub(crate) fn forget(repository: &Repository, id: &RunId, now: bool, reason: &str) -> Result<bool> {
    let permit = bulla_engine::forget::Permit::ask(repository, &[*id], reason)?;
    Ok(bulla_engine::forget::forget(repository, &permit, now)? == 1)
}

/// Snapshots of a tree that changes, with what each must restore to: some alive, one forgotten.
pub(crate) struct Histories {
    /// Alive, with their contents.
    pub(crate) alive: Vec<(Snapshot, BTreeMap<String, String>)>,
}

impl Histories {
    /// Three backups of `dir`, the middle one forgotten. Every pack is partly needed, some not at all.
    pub(crate) fn make(repository: &Repository, dir: &Path) -> Self {
        populate(dir);
        let mut taken = Vec::new();
        for round in 0..3 {
            std::fs::write(dir.join("changing"), noise(&format!("round {round}"), 120_000)).unwrap();
            std::fs::write(dir.join(format!("d{round}/noise")), noise(&format!("new {round}"), 9_000))
                .unwrap();
            let snapshot = backup(repository, dir).unwrap().snapshot.unwrap();
            taken.push((snapshot, on_disk(dir)));
        }
        let forgotten = taken.remove(1).0.id;
        forget(repository, &forgotten, true, "test").unwrap();
        Self { alive: taken }
    }

    /// Every snapshot that is to be alive restores as it was.
    pub(crate) fn verify(&self, repository: &Repository, context: &str) {
        for (snapshot, expected) in &self.alive {
            assert_eq!(&contents(repository, snapshot).unwrap(), expected, "{context}");
        }
    }
}
