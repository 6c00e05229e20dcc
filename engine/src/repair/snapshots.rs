//! Snapshots that have lost something: a new edition of each, in which the losses are named.
//!
//! Kept true: whatever could be restored of the old snapshot can be restored of the edition; paths and metadata stay
//! where only content is lost; the old snapshot stays alive, unless it is to be forgotten, and then only after the edition
//! was committed and read back. The tree follows from the entries, so that a repair that was interrupted finds the
//! edition it made.

use super::assess::{Assess, Step};
use crate::error::{Error, Result};
use crate::forget::{Permit, forget};
use crate::observer::{Event, Observer};
use crate::protocol::Outcome;
use crate::repository::pack::PackStream;
use crate::repository::run::Run;
use crate::repository::tree::display_path;
use crate::repository::{Repository, upload};
use bulla_repo_format::frame::Compression;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Pin, RunKind};
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::{
    BuiltTree, Entry, EntryFlags, EntryKind, Node, Timestamp, TreeBuilder, compare_paths, join_path,
};
use bulla_repo_format::{ChunkId, PackName, RunId};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::sync::Arc;

/// How to repair snapshots.
#[derive(Debug, Clone, Default)]
pub struct SnapshotsOptions {
    /// Only these; `None` is all that are not forgotten.
    pub snapshots: Option<HashSet<RunId>>,
    /// Read and verify every pack first; otherwise only packs that are missing, cut or condemned as damaged are doubted.
    pub read_data: bool,
    /// Forget the old snapshot once its edition was read back.
    pub forget: bool,
    /// Say what is lost, write nothing.
    pub dry_run: bool,
}

/// What became of a damaged snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It was only looked at.
    Found,
    /// It has an edition with this id, made now.
    Edition(RunId),
    /// It has an edition with this id, made before.
    HadEdition(RunId),
    /// It stays as it is, for this reason.
    Left(String),
}

/// A snapshot with losses.
#[derive(Debug, Clone)]
pub struct Damaged {
    /// The snapshot.
    pub id: RunId,
    /// Entries whose content or attributes are lost.
    pub entries: u64,
    /// Ranges of entries that are lost.
    pub gaps: u64,
    /// The first of them: path, and what is lost.
    pub losses: Vec<(Vec<u8>, String)>,
    /// What became of it.
    pub fate: Fate,
    /// True if it was forgotten.
    pub forgotten: bool,
}

/// What a repair of snapshots did.
#[derive(Debug, Clone, Default)]
pub struct SnapshotsReport {
    /// Snapshots that were walked.
    pub checked: u64,
    /// Those with losses.
    pub damaged: Vec<Damaged>,
    /// Snapshots that cannot be read at all, and why.
    pub unreadable: Vec<String>,
}

/// Losses that are named in a report.
const NAMED: usize = 1000;
/// Losses that are named in a snapshot.
const KEPT: usize = 100;
/// Readings of a tree before a repair gives up on a store that gives other bytes each time.
const LOOKS: usize = 4;
/// Attempts before a repair gives up against prunes that expire it.
const ATTEMPTS: usize = 3;

/// Makes editions of damaged snapshots.
pub fn run(
    repository: &Repository,
    options: &SnapshotsOptions,
    observer: &dyn Observer,
) -> Result<SnapshotsReport> {
    repository.require_writable()?;
    let index = repository.open_index()?;
    let found = super::packs::find(repository, &index, options.read_data, |_| false, observer)?;
    let mut suspects: HashSet<PackName> = repository.damaged_packs()?;
    suspects.extend(found.damaged.keys().chain(&found.missing).map(|(name, _)| *name));
    let (mut snapshots, failed) = repository.readable_snapshots()?;
    let mut report = SnapshotsReport::default();
    for e in failed {
        if !e.is_damage() {
            return Err(e);
        }
        report.unreadable.push(e.to_string());
    }
    let forgotten = repository.forgotten()?;
    snapshots.retain(|s| match &options.snapshots {
        Some(only) => only.contains(&s.id),
        None => !forgotten.contains_key(&s.id),
    });
    let mut job = Job { repository, options, observer, assess: Assess::new(repository, &index, &suspects) };
    let total = snapshots.len() as u64;
    for (done, snapshot) in (1u64..).zip(&snapshots) {
        let judged = job.snapshot(snapshot)?;
        report.damaged.extend(judged);
        report.checked += 1;
        observer.event(&Event::Progress { files: done, bytes: 0, total_files: total, total_bytes: 0 });
    }
    Ok(report)
}

struct Job<'r> {
    repository: &'r Repository,
    options: &'r SnapshotsOptions,
    observer: &'r dyn Observer,
    assess: Assess<'r>,
}

/// What a tree has lost.
#[derive(Default, PartialEq)]
struct Losses {
    /// Entries that are left.
    left: u64,
    entries: u64,
    named: Vec<(Vec<u8>, String)>,
    /// Where entries are missing: between listings of these directories; an open end is the end of the tree.
    gaps: Vec<Gap>,
    /// Directories that went missing though something in them is left, in order.
    directories: Vec<Entry>,
}

/// The listings between which entries are missing.
type Gap = (Arc<[u8]>, Option<Arc<[u8]>>);

type Nodes = Vec<(ChunkId, Vec<u8>)>;

impl Job<'_> {
    /// `None` if nothing is lost.
    fn snapshot(&mut self, old: &Snapshot) -> Result<Option<Damaged>> {
        let losses = match self.survey(&old.tree) {
            Err(Error::Refused(reason)) => {
                let (losses, fate) = (Vec::new(), Fate::Left(reason));
                return Ok(Some(Damaged { id: old.id, entries: 0, gaps: 0, losses, fate, forgotten: false }));
            }
            other => other?,
        };
        if losses.is_none() {
            return Ok(None);
        }
        let fate = if losses.left == 0 {
            Fate::Left("nothing of it is left; forget it if no replica has it".into())
        } else if self.options.dry_run {
            Fate::Found
        } else {
            self.repair(old, &losses)?
        };
        let mut damaged = Damaged {
            id: old.id,
            entries: losses.entries,
            gaps: losses.gaps.len() as u64,
            losses: losses.named,
            fate,
            forgotten: false,
        };
        if let (Fate::Edition(edition) | Fate::HadEdition(edition), true) =
            (&damaged.fate, self.options.forget)
        {
            let reason = format!("repaired: {edition} is a new edition without what it has lost");
            let permit = Permit::replaced(old, *edition, &reason);
            match forget(self.repository, &permit, false) {
                Ok(_) => damaged.forgotten = true,
                Err(Error::Refused(reason)) => self.observer.event(&Event::Warning(&reason)),
                Err(e) => return Err(e),
            }
        }
        Ok(Some(damaged))
    }

    fn repair(&mut self, old: &Snapshot, losses: &Losses) -> Result<Fate> {
        for _ in 1..ATTEMPTS {
            match self.edition(old, losses) {
                // A prune took this run for dead.
                Err(Error::Voided { .. }) => {}
                other => return other,
            }
        }
        self.edition(old, losses)
    }

    /// Builds the tree that is left, stores what is new of it, commits, reads back.
    fn edition(&mut self, old: &Snapshot, losses: &Losses) -> Result<Fate> {
        let repository = self.repository;
        let (tree, nodes) = match self.build(&old.tree, losses) {
            Err(Error::Format(e)) => return Ok(Fate::Left(format!("its tree cannot be built again: {e}"))),
            other => other?,
        };
        if let Some(made) = self.made_before(old, &tree.root)? {
            self.read_back(&tree)?;
            // A repair that died may have committed it, and the old one is forgotten for its sake.
            repository.backend().settle()?;
            return Ok(Fate::HadEdition(made));
        }
        // Nodes that were read are the old tree's: the pin keeps them, if the snapshot is alive after it.
        let pin = Pin { snapshot: old.id, tree: old.tree };
        let (run, dead) = Run::open(repository, RunKind::Writer, &[pin])?;
        if !dead.is_empty() {
            return Ok(Fate::Left("a prune has ended it meanwhile".into()));
        }
        store(repository, run.id(), &nodes)?;
        if let Err(e) = self.read_back(&tree) {
            // Who takes this run for dead may sweep what it has stored.
            let ended = e.is_damage() && repository.outcome(&run.id())? != Outcome::Open;
            return Err(if ended { Error::Voided { run: run.id().to_string() } } else { e });
        }
        repository.certify()?;
        let mut edition = repository.new_edition(old, run.id())?;
        edition.tree = tree.root;
        edition.statistics.total_bytes = tree.bytes;
        edition.statistics.errors =
            edition.statistics.errors.saturating_add(losses.entries + losses.gaps.len() as u64);
        let earlier = std::mem::take(&mut edition.errors);
        edition.errors = losses.named.iter().cloned().chain(earlier).take(KEPT).collect();
        Ok(Fate::Edition(run.commit(edition)?.id))
    }

    /// An edition with this tree. One that is forgotten dies, and would leave nothing if the old one died as well.
    fn made_before(&self, old: &Snapshot, tree: &ChunkId) -> Result<Option<RunId>> {
        let (alive, failed) = self.repository.readable_snapshots()?;
        // One that a repair has made may be among them.
        if let Some(e) = failed.into_iter().find(|e| !e.is_damage()) {
            return Err(e);
        }
        let forgotten = self.repository.forgotten()?;
        let fits = |s: &&Snapshot| s.origin == Some(old.id) && s.tree == *tree;
        Ok(alive.iter().filter(fits).map(|s| s.id).find(|id| !forgotten.contains_key(id)))
    }

    /// What is lost, whoever looks: what one reading lacks the next may have (a cable, a worn-out memory), and only what
    /// two in a row lack alike is lost.
    fn survey(&mut self, tree: &ChunkId) -> Result<Losses> {
        let mut losses = self.look(tree)?;
        for _ in 1..LOOKS {
            if losses.is_none() {
                return Ok(losses);
            }
            self.assess.doubt_failures();
            let again = self.look(tree)?;
            if again == losses {
                return Ok(losses);
            }
            losses = again;
        }
        if losses.is_none() { Ok(losses) } else { Err(unsteady(tree)) }
    }

    fn look(&mut self, tree: &ChunkId) -> Result<Losses> {
        let (mut losses, mut seen) = (Losses::default(), HashSet::<Vec<u8>>::from([Vec::new()]));
        self.assess.walk(*tree, &mut HashSet::new(), self.observer, &mut |step, _| {
            losses.take(&step, &mut seen);
            Ok(())
        })?;
        Ok(losses.complete())
    }

    /// The edition's tree lacks nothing that is not named, and reads as it was built.
    fn read_back(&mut self, tree: &BuiltTree) -> Result<()> {
        let losses = self.survey(&tree.root)?;
        if losses.is_none() && losses.left == tree.entries {
            return Ok(());
        }
        let what = format!("the new tree {}", tree.root);
        Err(Error::Damaged { what, reason: "it does not read back; nothing was forgotten".into() })
    }

    /// The tree of what is left, and those of its nodes that the old one does not have.
    fn build(&mut self, tree: &ChunkId, losses: &Losses) -> Result<(BuiltTree, Nodes)> {
        let ring = self.repository.keyring();
        let domain = ring.domain();
        let mut builder = TreeBuilder::new(ring.split_key(domain)?, ring.id_key(domain, ChunkKind::Meta)?);
        let (mut nodes, mut visited) = (Nodes::new(), HashSet::new());
        let mut invented = losses.directories.iter().peekable();
        let (mut found, mut seen) = (Losses::default(), HashSet::<Vec<u8>>::from([Vec::new()]));
        self.assess.walk(*tree, &mut visited, self.observer, &mut |step, visited| {
            found.take(&step, &mut seen);
            let Step::Entry(mut entry, _) = step else { return Ok(()) };
            let mut sink = |id, plain| fresh(&mut nodes, visited, id, plain);
            while let Some(directory) = invented.next_if(|d| d.compare(&entry) == Ordering::Less) {
                builder.push(directory, &mut sink)?;
            }
            if entry.is_dir() && losses.touch(&entry.path()) {
                entry.flags.read_error = true;
            }
            builder.push(&entry, &mut sink)
        })?;
        if found.complete() != *losses {
            return Err(unsteady(tree));
        }
        let built = builder.finish(&mut |id, plain| fresh(&mut nodes, &visited, id, plain))?;
        Ok((built, nodes))
    }
}

/// The store gives other bytes each time it is asked.
fn unsteady(tree: &ChunkId) -> Error {
    let reason =
        "each reading of it lacks something else; nothing was changed. Check the disk, the cable, the memory";
    Error::Damaged { what: format!("the tree {tree}"), reason: reason.into() }
}

/// Keeps a node that is to be stored. One that cannot be read again must not be committed.
fn fresh(nodes: &mut Nodes, visited: &HashSet<ChunkId>, id: ChunkId, plain: Vec<u8>) -> Result<()> {
    if !visited.contains(&id) {
        Node::decode(&plain)?;
        nodes.push((id, plain));
    }
    Ok(())
}

/// Packs of the run's own, durable and indexed.
fn store(repository: &Repository, run: RunId, nodes: &Nodes) -> Result<()> {
    if nodes.is_empty() {
        return Ok(());
    }
    let (uploads, uploader) = upload::channel(repository, Box::new(|_| Ok(())));
    let stream = PackStream::new(repository, PackKind::Meta, run, Compression::Auto, true, &uploads);
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| uploader.run(&|_| {}));
        let feed = || {
            let mut packer = stream.packer()?;
            stream.append(&mut packer, nodes.iter().map(|(id, plain)| (*id, plain.as_slice())))?;
            stream.finish(&mut packer)
        };
        let end = uploads.until_dropped();
        let fed = feed();
        drop(end);
        let bug = || Error::Refused("a worker stopped on a bug in bulla; nothing was committed".into());
        // The uploader's error is the one that counts; the feed then only knows that it hung up.
        upload.join().unwrap_or_else(|_| Err(bug()))?;
        fed
    })
}

impl Losses {
    fn is_none(&self) -> bool {
        self.entries == 0 && self.gaps.is_empty()
    }

    /// At the end of the tree.
    fn complete(mut self) -> Self {
        if self.gaps.is_empty() {
            self.directories.clear();
        }
        self.directories.sort_by(Entry::compare);
        self
    }

    fn name(&mut self, path: Vec<u8>, what: String) {
        if self.named.len() < NAMED {
            self.named.push((path, what));
        }
    }

    fn take(&mut self, step: &Step, seen: &mut HashSet<Vec<u8>>) {
        match step {
            Step::Gap(parent, name, reason) => {
                let path = [&display_path(parent, name)[..], b" and following"].concat();
                self.name(path, format!("lost: {reason}"));
                self.gaps.push((parent.clone(), None));
            }
            Step::Entry(entry, lost) => {
                for gap in self.gaps.iter_mut().filter(|(_, end)| end.is_none()) {
                    gap.1 = Some(entry.parent.clone());
                }
                self.invent(entry, seen);
                if entry.is_dir() {
                    seen.insert(entry.path());
                }
                self.left += 1;
                self.entries += u64::from(!lost.is_empty());
                for what in lost {
                    self.name(display_path(&entry.parent, &entry.name), what.clone());
                }
            }
        }
    }

    /// Directories above an entry that were not met are among what is lost: what is left must lie somewhere.
    fn invent(&mut self, entry: &Entry, seen: &mut HashSet<Vec<u8>>) {
        if seen.contains(&entry.parent[..]) {
            return;
        }
        let mut parent: Vec<u8> = Vec::new();
        for name in entry.parent.split(|b| *b == b'/') {
            let path = join_path(&parent, name);
            if seen.insert(path.clone()) {
                let flags = EntryFlags { implied: true, read_error: true, ..EntryFlags::default() };
                self.directories.push(directory(&parent, name, entry, flags));
            }
            parent = path;
        }
    }

    /// True if something may be missing from the directory's listing.
    fn touch(&self, directory: &[u8]) -> bool {
        self.gaps.iter().any(|(from, to)| {
            compare_paths(directory, from) != Ordering::Less
                && to.as_ref().is_none_or(|to| compare_paths(directory, to) != Ordering::Greater)
        })
    }
}

/// A directory nothing is known of: closed to others, and owned as what is in it.
fn directory(parent: &[u8], name: &[u8], inside: &Entry, flags: EntryFlags) -> Entry {
    Entry {
        parent: Arc::from(parent),
        name: name.to_vec(),
        kind: EntryKind::Directory,
        mode: 0o700,
        uid: inside.uid,
        gid: inside.gid,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        atime: None,
        mount: inside.mount,
        inode: 0,
        links: 1,
        xattrs: Default::default(),
        flags,
    }
}
