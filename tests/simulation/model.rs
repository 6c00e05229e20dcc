//! What was promised: the snapshots that verbs have acknowledged, what each must restore to, and whether it may go.

use crate::random::Random;
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::EntryKind;
use bulla_engine::format::{ChunkId, RunId};
use bulla_engine::repository::Repository;
use bulla_engine::repository::chunks::ChunkReader;
use bulla_engine::repository::index::Index;
use bulla_engine::repository::tree::TreeReader;
use bulla_engine::{Error, Result};
use std::collections::BTreeMap;
use std::fs::{File, FileTimes};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Every path with its bytes, or `None` for a directory.
pub(crate) type Contents = BTreeMap<String, Option<Vec<u8>>>;

/// One acknowledged snapshot.
pub(crate) struct Promise {
    pub(crate) tree: ChunkId,
    pub(crate) contents: Contents,
    /// Somebody began to forget it: without a hold nothing is promised any more.
    pub(crate) doomed: bool,
    /// A forget of it was acknowledged.
    pub(crate) forgotten: bool,
    /// A hold was acknowledged, and nobody has begun to end it.
    pub(crate) held: bool,
}

impl Promise {
    /// It must restore.
    pub(crate) fn binds(&self) -> bool {
        self.held || !self.doomed
    }
}

/// All acknowledged snapshots.
#[derive(Default)]
pub(crate) struct Model {
    pub(crate) promises: BTreeMap<RunId, Promise>,
    /// Verbs by outcome.
    pub(crate) counts: BTreeMap<String, u64>,
}

impl Model {
    /// A verb returned this snapshot.
    pub(crate) fn acknowledge(&mut self, snapshot: &Snapshot, contents: Contents) {
        let promise = Promise { tree: snapshot.tree, contents, doomed: false, forgotten: false, held: false };
        self.promises.insert(snapshot.id, promise);
    }

    /// Some acknowledged snapshot.
    pub(crate) fn any(&self, random: &mut Random, fits: impl Fn(&Promise) -> bool) -> Option<RunId> {
        let ids: Vec<RunId> = self.promises.iter().filter(|(_, p)| fits(p)).map(|(id, _)| *id).collect();
        if ids.is_empty() { None } else { Some(random.pick(&ids)) }
    }

    pub(crate) fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// Reads all of a tree.
pub(crate) fn read(repository: &Repository, index: &Index, tree: ChunkId) -> Result<Contents> {
    let mut out = Contents::new();
    let mut reader = TreeReader::new(repository, index, tree);
    let mut chunks = ChunkReader::new(repository, index);
    let mut buffer = Vec::new();
    while let Some(entry) = reader.next()? {
        if entry.flags.implied {
            continue;
        }
        let bytes = match &entry.kind {
            EntryKind::File { content, size, .. } => {
                let mut bytes = Vec::new();
                for chunk in reader.content(content)? {
                    chunks.read(ChunkKind::Data, &chunk.id, &mut buffer)?;
                    bytes.extend_from_slice(&buffer);
                }
                if bytes.len() as u64 != *size || entry.flags.read_error {
                    return Err(Error::Refused(format!("an entry is not whole: {entry:?}")));
                }
                Some(bytes)
            }
            _ => None,
        };
        out.insert(String::from_utf8_lossy(&entry.path()).into_owned(), bytes);
    }
    Ok(out)
}

/// A host's little source tree.
pub(crate) struct Source {
    /// Below the working directory, which `/proc/self/cwd` makes the same path on every machine.
    relative: PathBuf,
    files: BTreeMap<&'static str, (u64, usize)>,
    /// Change times: each change has a new one, so that none is missed whatever a host's clock says.
    tick: u64,
}

const FILES: [&str; 7] = ["a", "b", "c", "d/e", "d/f", "d/g", "d/h"];
/// Sizes: of one chunk, of several, of none. All of a tree fits one pack, see the module of the tests.
const SIZES: [usize; 5] = [0, 40, 700, 3000, 9000];
/// Different contents: few, so that hosts have much in common and old contents come back.
const CONTENTS: u64 = 9;

impl Source {
    pub(crate) fn new(relative: PathBuf) -> Self {
        std::fs::create_dir_all(relative.join("d")).unwrap();
        Self { relative, files: BTreeMap::new(), tick: 0 }
    }

    /// What to back up.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from("/proc/self/cwd").join(&self.relative)
    }

    /// Some files come, change or go.
    pub(crate) fn change(&mut self, random: &mut Random) {
        for _ in 0..random.below(5) {
            let name = random.pick(&FILES);
            let path = self.relative.join(name);
            if random.one_in(5) {
                let _ = std::fs::remove_file(&path);
                self.files.remove(name);
            } else {
                let (seed, len) = (random.below(CONTENTS), random.pick(&SIZES));
                std::fs::write(&path, bytes(seed, len)).unwrap();
                self.files.insert(name, (seed, len));
                self.stamp(&path);
            }
        }
        self.stamp(&self.relative.clone());
        self.stamp(&self.relative.join("d"));
    }

    fn stamp(&mut self, path: &std::path::Path) {
        self.tick += 1;
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(self.tick);
        File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
    }

    /// What a snapshot of it must give.
    pub(crate) fn contents(&self) -> Contents {
        let root = format!("proc/self/cwd/{}", self.relative.display());
        let mut out = Contents::from([(root.clone(), None), (format!("{root}/d"), None)]);
        let file = |(name, (seed, len)): (&&str, &(u64, usize))| {
            (format!("{root}/{name}"), Some(bytes(*seed, *len)))
        };
        out.extend(self.files.iter().map(file));
        out
    }
}

/// Content number `seed`, cut at `len`: shorter ones are beginnings of longer ones.
fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}
