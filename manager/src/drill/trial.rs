//! One trial: files are drawn, restored, let go from memory, read back, compared, and shown to the job's command.
//!
//! Kept true: the engine identifies every chunk of what was restored (a dry restore into it would have nothing to write);
//! metadata is compared entry by entry, with what the file system of the target can hold.

use super::command::Judge;
use super::sample::{Lot, Passing};
use super::scratch::Scratch;
use super::{NAMED, Options, millis, scratch};
use crate::config::{Job, JobSource};
use crate::world::World;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{Content, Entry, EntryKind, Xattr, decode_xattrs};
use bulla_engine::observer::{Event, Observer, escape};
use bulla_engine::repository::Repository;
use bulla_engine::repository::index::Index;
use bulla_engine::repository::tree::TreeReader;
use bulla_engine::restore::{self, Action, RestoreOptions, Selection};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// What a trial gave.
pub(super) struct Measured {
    /// Files that were compared, of so many, and bytes.
    pub(super) files: u64,
    pub(super) files_all: u64,
    pub(super) bytes: u64,
    pub(super) bytes_all: u64,
    pub(super) wrong: Vec<String>,
    /// Files of the source that hold something else, with both hashes.
    pub(super) diverged: Vec<String>,
    /// Milliseconds until open and drawn, restored, compared, judged.
    pub(super) phases: [u64; 4],
    pub(super) numbers: Vec<(String, String)>,
}

/// The paths that are restored; all without them.
type Wanted = Option<Arc<BTreeSet<Vec<u8>>>>;

pub(super) struct Trial<'a> {
    pub(super) world: &'a dyn World,
    pub(super) name: &'a str,
    pub(super) job: &'a Job,
    pub(super) options: &'a Options,
    pub(super) repository: &'a Repository,
    pub(super) snapshot: &'a Snapshot,
}

impl Trial<'_> {
    /// All of it; how many files were drawn with equal chances, and how many hold the same as the source.
    pub(super) fn run(
        &self,
        scratch: &Scratch<'_>,
        seed: [u8; 32],
        begun: Instant,
        before: &[(String, String)],
    ) -> bulla_engine::Result<(Measured, u64, u64)> {
        let lot = self.draw(seed)?;
        let (files_all, bytes_all) = (lot.files, lot.bytes);
        let opened = millis(begun);
        let all = self.options.sample.is_none();
        let (paths, equal, bytes) = lot.drawn();
        let files = if all { files_all } else { paths.len() as u64 };
        let (equal, bytes) = if all { (files_all, bytes_all) } else { (equal, bytes) };
        let wanted: Wanted = (!all).then(|| Arc::new(paths));
        let begun = Instant::now();
        let mut wrong = self.restore(scratch, wanted.clone())?;
        let restored = millis(begun);
        let begun = Instant::now();
        let (right, differ) = self.compare(scratch, wanted.clone())?;
        wrong.extend(differ);
        if right < files && wrong.is_empty() {
            wrong.push(format!("of {files} files only {right} could be compared"));
        }
        let looked = self.look(scratch, wanted.as_deref())?;
        wrong.extend(looked.wrong);
        let compared = millis(begun);
        let begun = Instant::now();
        let mut numbers = Vec::new();
        if self.options.application {
            let judge = Judge { world: self.world, name: self.name, job: self.job, snapshot: self.snapshot };
            let (given, no) = judge.ask(scratch.path(), before)?;
            numbers = given;
            wrong.extend(no);
        }
        let judged = if self.options.application { millis(begun) } else { 0 };
        let phases = [opened, restored, compared, judged];
        let diverged = looked.diverged;
        let measured = Measured { files, files_all, bytes, bytes_all, wrong, diverged, phases, numbers };
        Ok((measured, equal, looked.same))
    }

    /// Stops where somebody wants it: what walks a whole tree asks at every entry.
    fn goes_on(&self) -> bulla_engine::Result<()> {
        if self.world.observer().interrupted() { Err(bulla_engine::Error::Interrupted) } else { Ok(()) }
    }

    fn draw(&self, seed: [u8; 32]) -> bulla_engine::Result<Lot> {
        let mut lot = Lot::new(seed, self.options.sample.map_or(0, |n| n.max(1)));
        let index = self.repository.open_index()?;
        let evidence = self.repository.evidence()?;
        let mut tree = TreeReader::new(self.repository, &index, self.snapshot.tree);
        while let Some(entry) = tree.next()? {
            self.goes_on()?;
            let EntryKind::File { size, content, .. } = &entry.kind else { continue };
            if entry.flags.read_error {
                continue;
            }
            let read = self.options.sample.and_then(|_| first_pack(&index, content));
            let read = read.map(|pack| evidence.read_at(&pack).unwrap_or(i64::MIN));
            let links = entry.links;
            lot.pass(&Passing { path: &entry.path(), size: *size, mtime: entry.mtime, links, read });
        }
        Ok(lot)
    }

    /// Restores; what could not be.
    fn restore(&self, scratch: &Scratch<'_>, wanted: Wanted) -> bulla_engine::Result<Vec<String>> {
        let (options, observer) = (options(wanted, false), self.world.observer());
        let report = restore::run(self.repository, self.snapshot, b"", scratch.path(), &options, observer)?;
        scratch.forget_cached(&|| self.goes_on())?;
        let mut wrong: Vec<String> =
            report.damaged.iter().map(|d| format!("/{}: {}", escape(&d.path), d.reason)).collect();
        if report.failed > 0 {
            wrong.push(format!("{} entries could not be written", report.failed));
        }
        Ok(wrong)
    }

    /// Reads what was restored and compares it with the snapshot by the identity of every chunk: how many files are right,
    /// and what is not.
    fn compare(&self, scratch: &Scratch<'_>, wanted: Wanted) -> bulla_engine::Result<(u64, Vec<String>)> {
        let differences =
            Differences { inner: self.world.observer(), wanted: wanted.clone(), right: Mutex::default() };
        let options = options(wanted, true);
        restore::run(self.repository, self.snapshot, b"", scratch.path(), &options, &differences)?;
        Ok(differences.right.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Compares metadata with the snapshot, and files with the source where that is as it was backed up.
    fn look(
        &self,
        scratch: &Scratch<'_>,
        wanted: Option<&BTreeSet<Vec<u8>>>,
    ) -> bulla_engine::Result<Looked> {
        let mut looked = Looked::default();
        let paths = matches!(self.job.source.value, JobSource::Paths { .. });
        let here = paths && self.snapshot.host == self.world.host();
        let index = self.repository.open_index()?;
        let mut tree = TreeReader::new(self.repository, &index, self.snapshot.tree);
        while let Some(entry) = tree.next()? {
            self.goes_on()?;
            let path = entry.path();
            if entry.flags.read_error || !wanted.is_none_or(|w| w.contains(&path)) {
                continue;
            }
            let xattrs = attributes(&mut tree, &entry)?;
            if let Some(why) = scratch.differs(&path, &entry, &xattrs)
                && looked.wrong.len() < NAMED
            {
                looked.wrong.push(format!("/{}: {why}", escape(&path)));
            }
            if here && scratch::is_as_it_was(&path, &entry) {
                match scratch.unlike(&path) {
                    None => looked.same += 1,
                    // It may have been written to meanwhile: then its times tell.
                    Some(_) if !scratch::is_as_it_was(&path, &entry) => {}
                    Some(why) if looked.diverged.len() < NAMED => {
                        looked.diverged.push(format!("/{}: {why}", escape(&path)));
                    }
                    Some(_) => {}
                }
            }
        }
        Ok(looked)
    }
}

/// What a look at every entry gave.
#[derive(Default)]
struct Looked {
    wrong: Vec<String>,
    same: u64,
    diverged: Vec<String>,
}

/// The pack of a file's first chunk, where that is known without fetching anything.
fn first_pack(index: &Index, content: &Content) -> Option<bulla_engine::format::PackName> {
    let Content::Inline(chunks) = content else { return None };
    let mut places = Vec::new();
    index.places(&chunks.first()?.id, &mut places).ok()?;
    index.pack_name(places.first()?.pack).ok()
}

fn attributes(tree: &mut TreeReader<'_>, entry: &Entry) -> bulla_engine::Result<Vec<Xattr>> {
    let block = tree.block(&entry.xattrs)?;
    Ok(block.and_then(|block| decode_xattrs(&block).ok()).unwrap_or_default())
}

/// Takes the paths that are wanted and the directories that lead there.
fn select(wanted: Arc<BTreeSet<Vec<u8>>>) -> impl Fn(&[u8], bool) -> Selection {
    move |path: &[u8], is_dir: bool| {
        if wanted.contains(path) {
            return Selection::Take;
        }
        let mut below = path.to_vec();
        below.push(b'/');
        let leads = is_dir && wanted.range(below.clone()..).next().is_some_and(|p| p.starts_with(&below));
        if leads || !is_dir { Selection::Pass } else { Selection::Prune }
    }
}

/// Counts what a plan would change.
struct Differences<'a> {
    inner: &'a dyn Observer,
    wanted: Option<Arc<BTreeSet<Vec<u8>>>>,
    right: Mutex<(u64, Vec<String>)>,
}

impl Observer for Differences<'_> {
    fn event(&self, event: &Event<'_>) {
        let Event::Planned(planned) = event else { return self.inner.event(event) };
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        match planned.action {
            // The content is right; metadata is looked at apart.
            Action::Unchanged | Action::Update | Action::Link => {
                right.0 += u64::from(self.wanted.as_ref().is_none_or(|w| w.contains(&planned.path)));
            }
            // Directories, and what nobody can restore.
            Action::Keep | Action::Unreadable | Action::Forbidden => {}
            other => right.1.push(format!("/{}: a restore would {other} it", escape(&planned.path))),
        }
    }
    fn interrupted(&self) -> bool {
        self.inner.interrupted()
    }
}

fn options(wanted: Option<Arc<BTreeSet<Vec<u8>>>>, dry_run: bool) -> RestoreOptions {
    let select = wanted.map(|wanted| Arc::new(select(wanted)) as Arc<dyn restore::Select + Send + Sync>);
    RestoreOptions { select, dry_run, ..RestoreOptions::default() }
}
