//! What a loss of power may leave: the steps a store made, replayed under a model of what a file system keeps of those
//! that were not synced.

use bulla_engine::backend::testing::Step;
use bulla_engine::format::ObjectName;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file system loses what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Model {
    /// Nothing is ever lost.
    Strict,
    /// ext4 with ordered data: names persist in their order, data before its name; any fsync commits all names.
    Ordered,
    /// Delayed allocation: as before, but a name may persist before the data that was not synced.
    Delayed,
    /// The least that POSIX promises: any subset of the names that were not synced in their own directory; of a file
    /// that was not synced, nothing.
    Weakest,
}

impl Model {
    pub(crate) const ALL: [Self; 4] = [Self::Strict, Self::Ordered, Self::Delayed, Self::Weakest];
}

/// A file, whatever its names.
struct Inode {
    bytes: Arc<[u8]>,
    synced: bool,
}

/// What a name stands for: a directory, or a file by number.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Node {
    Directory,
    File(usize),
}

/// A name that came or went and is not durable yet.
#[derive(Clone)]
struct Change {
    path: PathBuf,
    to: Option<Node>,
}

/// The objects that are left, with their bytes.
pub(crate) type Left = BTreeMap<ObjectName, Arc<[u8]>>;

/// A file system under one model.
pub(crate) struct Disk {
    model: Model,
    root: PathBuf,
    inodes: Vec<Inode>,
    /// What processes see.
    seen: HashMap<PathBuf, Node>,
    /// What is durable for sure.
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
}

impl Disk {
    /// The repository at `root` holds `base`, durably.
    pub(crate) fn new(model: Model, root: &Path, base: &BTreeMap<ObjectName, Vec<u8>>) -> Self {
        let mut new = Self {
            model,
            root: root.to_owned(),
            inodes: Vec::new(),
            seen: HashMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
        };
        for (name, bytes) in base {
            new.inodes.push(Inode { bytes: bytes.as_slice().into(), synced: true });
            let (path, node) = (root.join(name.to_string()), Node::File(new.inodes.len() - 1));
            new.seen.insert(path.clone(), node);
            new.durable.insert(path, node);
        }
        new
    }

    /// The object a path is, if it is one: temporary files and the reserve are not looked at.
    fn object(&self, path: &Path) -> Option<ObjectName> {
        ObjectName::parse(path.strip_prefix(&self.root).ok()?.to_str()?)
    }

    fn change(&mut self, path: &Path, to: Option<Node>) {
        match to {
            Some(node) => drop(self.seen.insert(path.to_owned(), node)),
            None => drop(self.seen.remove(path)),
        }
        if to == Some(Node::Directory) || self.object(path).is_some() {
            self.pending.push(Change { path: path.to_owned(), to });
        }
    }

    /// Takes one step; true if it changed what a loss of power may leave.
    pub(crate) fn step(&mut self, step: &Step) -> bool {
        let before = (self.pending.len(), self.durable.len());
        match step {
            Step::Write(path, bytes) => {
                self.inodes.push(Inode { bytes: bytes.as_slice().into(), synced: false });
                self.change(path, Some(Node::File(self.inodes.len() - 1)));
            }
            Step::SyncFile(path) => {
                if let Some(Node::File(n)) = self.seen.get(path) {
                    self.inodes[*n].synced = true;
                }
                if self.model != Model::Weakest {
                    self.commit(|_| true);
                }
            }
            Step::Link(from, to) => {
                let node = self.seen.get(from).copied();
                self.change(to, node);
            }
            Step::Unlink(path) => self.change(path, None),
            Step::Rename(from, to) => {
                let node = self.seen.get(from).copied();
                self.change(to, node);
                self.change(from, None);
            }
            Step::MakeDir(path) => {
                if !self.seen.contains_key(path) {
                    self.change(path, Some(Node::Directory));
                }
            }
            Step::SyncDir(dir) => {
                let all = self.model != Model::Weakest;
                self.commit(|c| all || c.path.parent() == Some(dir));
            }
            Step::SyncAll => {
                self.commit(|_| true);
                self.inodes.iter_mut().for_each(|i| i.synced = true);
            }
        }
        if self.model == Model::Strict {
            self.commit(|_| true);
        }
        before != (self.pending.len(), self.durable.len())
    }

    /// Makes the changes durable that `which` picks, in their order.
    fn commit(&mut self, which: impl Fn(&Change) -> bool) {
        let pending = std::mem::take(&mut self.pending);
        for change in pending {
            if !which(&change) {
                self.pending.push(change);
                continue;
            }
            match change.to {
                Some(node) => drop(self.durable.insert(change.path, node)),
                None => drop(self.durable.remove(&change.path)),
            }
        }
    }

    /// Changes that may be lost.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Directories that are not durable yet.
    pub(crate) fn loose_directories(&self) -> Vec<&Path> {
        let loose = self.pending.iter().filter(|c| c.to == Some(Node::Directory));
        loose.map(|c| c.path.as_path()).collect()
    }

    /// Which subsets of the changes may persist: bit n of a mask is change n.
    pub(crate) fn subsets(&self, exhaustive: usize, mut sample: impl FnMut() -> u128) -> Vec<u128> {
        let n = self.pending.len().min(127);
        let all = (1u128 << n) - 1;
        if self.model != Model::Weakest {
            return (0..=n).map(|k| (1u128 << k) - 1).collect();
        }
        if n <= exhaustive {
            return (0..=all).collect();
        }
        let mut masks: Vec<u128> = (0..=n).map(|k| (1u128 << k) - 1).collect();
        masks.extend((0..n).flat_map(|k| [1u128 << k, all & !(1u128 << k)]));
        masks.extend((0..1u32 << exhaustive).map(|_| sample() & all));
        masks
    }

    /// A number that is the same for the same objects left, whatever led to them.
    pub(crate) fn key(&self, mask: u128) -> u128 {
        let mut last: BTreeMap<&Path, Option<Node>> = BTreeMap::new();
        for (n, change) in self.pending.iter().enumerate() {
            if n >= 127 || mask >> n & 1 != 0 {
                last.insert(&change.path, change.to);
            }
        }
        let kept = self.durable.iter().filter(|(path, _)| !last.contains_key(path.as_path()));
        let kept = kept.map(|(path, node)| (path.as_path(), *node));
        let new = last.iter().filter_map(|(path, to)| to.map(|node| (*path, node)));
        kept.chain(new).fold(0, |key, (path, node)| key ^ self.number(path, node))
    }

    fn number(&self, path: &Path, node: Node) -> u128 {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let whole = match node {
            Node::Directory => return 0,
            Node::File(n) => (n, self.is_whole(n)),
        };
        let half = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            (salt, path, whole).hash(&mut hasher);
            u128::from(hasher.finish())
        };
        half(1) << 64 | half(2)
    }

    fn is_whole(&self, inode: usize) -> bool {
        self.inodes[inode].synced || matches!(self.model, Model::Strict | Model::Ordered)
    }

    /// The objects that are left if exactly the changes of `mask` persisted.
    pub(crate) fn left(&self, mask: u128) -> Left {
        let mut names = self.durable.clone();
        for (n, change) in self.pending.iter().enumerate() {
            if n >= 127 || mask >> n & 1 != 0 {
                match change.to {
                    Some(node) => drop(names.insert(change.path.clone(), node)),
                    None => drop(names.remove(&change.path)),
                }
            }
        }
        let made = |path: &Path| !self.seen_made(path) || names.contains_key(path);
        let mut out = Left::new();
        for (path, node) in &names {
            let (Some(name), Node::File(n)) = (self.object(path), node) else { continue };
            if path.ancestors().skip(1).all(made) {
                let bytes = if self.is_whole(*n) { self.inodes[*n].bytes.clone() } else { [].into() };
                out.insert(name, bytes);
            }
        }
        out
    }

    /// True for a directory that was made while we watched.
    fn seen_made(&self, path: &Path) -> bool {
        self.seen.get(path) == Some(&Node::Directory)
    }
}
