//! Healing from another copy of the same repository: what is missing or damaged here and whole there is put back.
//!
//! Kept true: nothing is taken that does not hash to its name, open with this repository's key and, of packs, have every
//! chunk its id says; a pack that was condemned or deleted here is not put back, nor a snapshot that died; what the copy
//! deleted or ended is not deleted or ended here; a snapshot comes last, pinned while it is put, and only if all of it is
//! in packs nobody has condemned (SPEC 14).

use super::lack::Lack;
use super::packs::{Found, find};
use crate::backend::{Backend, BackendError};
use crate::check::packs::flaw;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::protocol::Outcome;
use crate::repository::Repository;
use crate::repository::index::{Index, IndexWriter};
use crate::repository::pack::object_name;
use crate::repository::run::Run;
use bulla_repo_format::config;
use bulla_repo_format::index::IndexRun;
use bulla_repo_format::limits::{INDEX_MAX, OBJECT_MAX, PACK_SIZE_MAX};
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::record::{Pin, RunKind};
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::{Area, IndexName, ObjectName, PackName, RunId};
use std::collections::HashSet;

/// How to heal.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplicaOptions {
    /// Read and verify every pack here; otherwise only those whose size is wrong or that are condemned as damaged.
    pub read_data: bool,
    /// Say what would be done, write nothing.
    pub dry_run: bool,
}

/// What was healed, or would be.
#[derive(Debug, Clone, Default)]
pub struct ReplicaReport {
    /// Damaged objects that have the right bytes again.
    pub healed: Vec<String>,
    /// Missing objects that are back.
    pub put_back: Vec<String>,
    /// What is missing or damaged still, and why.
    pub left: Vec<(String, String)>,
}

/// Attempts before a snapshot is left to the next run.
const ATTEMPTS: usize = 3;

/// Heals `repository` from `other`, a copy of the same repository.
pub fn run(
    repository: &Repository,
    other: &dyn Backend,
    options: &ReplicaOptions,
    observer: &dyn Observer,
) -> Result<ReplicaReport> {
    repository.require_writable()?;
    same_repository(repository, other)?;
    let mut job = Job { repository, other, options, observer, report: ReplicaReport::default() };
    job.index_runs()?;
    let index = repository.open_index()?;
    job.packs(&index)?;
    job.snapshots(&index)?;
    if !options.dry_run {
        // What a repair that died put back counts as back only now.
        repository.backend().settle()?;
    }
    Ok(job.report)
}

fn same_repository(repository: &Repository, other: &dyn Backend) -> Result<()> {
    let place = other.describe().place;
    let list = match other.list(Area::Config) {
        Err(BackendError::NotFound { .. }) => Vec::new(),
        list => list?,
    };
    let newest = list.into_iter().map(|(name, _)| name).max();
    let Some(newest) = newest else { return Err(Error::NoRepository { place }) };
    let (id, _) =
        config::identify(&other.get(&newest, OBJECT_MAX)?).map_err(|e| Error::object(&newest, e))?;
    if id == repository.id() {
        return Ok(());
    }
    let text = format!(
        "{place} is another repository ({id}), not a copy of this one ({}): objects of one do not open in the other. \
         Healing between repositories that share chunks comes with `bulla copy`",
        repository.id()
    );
    Err(Error::Refused(text))
}

struct Job<'a> {
    repository: &'a Repository,
    other: &'a dyn Backend,
    options: &'a ReplicaOptions,
    observer: &'a dyn Observer,
    report: ReplicaReport,
}

impl Job<'_> {
    fn left(&mut self, object: impl ToString, reason: impl ToString) {
        self.report.left.push((object.to_string(), reason.to_string()));
    }

    /// The bytes there; `None`, with the reason noted, if they cannot be had.
    fn fetch(&mut self, object: &ObjectName, limit: u64) -> Result<Option<Vec<u8>>> {
        super::check_interrupt(self.observer)?;
        match self.other.get(object, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(BackendError::NotFound { .. }) => {
                self.left(object, "it is not there either");
                Ok(None)
            }
            Err(e) => {
                self.left(object, e);
                Ok(None)
            }
        }
    }

    fn heal(&mut self, object: &ObjectName, bytes: &[u8]) -> Result<()> {
        if !self.options.dry_run {
            self.repository.backend().heal(object, &[bytes])?;
        }
        self.report.healed.push(object.to_string());
        Ok(())
    }

    fn put_back(&mut self, object: &ObjectName, bytes: &[u8]) -> Result<()> {
        if !self.options.dry_run {
            self.repository.backend().put(object, &[bytes])?;
            self.repository.backend().flush()?;
        }
        self.report.put_back.push(object.to_string());
        Ok(())
    }

    /// Runs that cannot be read here, and those that list packs no run here lists.
    fn index_runs(&mut self) -> Result<()> {
        let repository = self.repository;
        let index = repository.open_index()?;
        let failed: HashSet<IndexName> = index.failed().iter().map(|(name, _)| *name).collect();
        let here: HashSet<IndexName> = repository.index_names()?.into_iter().collect();
        let marked = repository.marked_packs()?;
        let mut listed: HashSet<PackName> = HashSet::new();
        for pack in index.packs() {
            listed.insert(pack?.name);
        }
        let mut there = self.other.list(Area::Index)?;
        // Merged runs last: what they list is then known already.
        there.sort_unstable();
        for (object, _) in there {
            let ObjectName::Index(name) = object else { continue };
            let bad = failed.contains(&name);
            if here.contains(&name) && !bad {
                continue;
            }
            let Some(bytes) = self.fetch(&object, INDEX_MAX)? else { continue };
            let run = match repository.open_index_run(&name, &bytes) {
                Ok(run) => run,
                Err(e) => {
                    self.left(object, format!("it cannot be read there either: {e}"));
                    continue;
                }
            };
            if bad {
                self.heal(&object, &bytes)?;
                continue;
            }
            let is_news = |p: &PackName| !listed.contains(p) && !index.is_deleted(p) && !marked.contains(p);
            let news: HashSet<PackName> = run.packs.iter().map(|p| p.name).filter(is_news).collect();
            if news.is_empty() {
                continue;
            }
            listed.extend(&news);
            if self.buries(&run, &index, &marked)? {
                self.list(run, &news, &object)?;
            } else {
                self.put_back(&object, &bytes)?;
            }
        }
        Ok(())
    }

    /// True if the run says of packs that they were deleted, and that is not known here. A copy that was pruned for itself
    /// must not bury what this one has, or what another copy could bring back.
    fn buries(&self, run: &IndexRun, index: &Index, marked: &HashSet<PackName>) -> Result<bool> {
        for name in &run.graves {
            if index.is_deleted(name) {
                continue;
            }
            let mut gone = marked.contains(name);
            for kind in [PackKind::Data, PackKind::Meta] {
                gone = gone && self.repository.backend().stat(&object_name(kind, *name))?.is_none();
            }
            if !gone {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Puts what a run says of packs nobody lists here, in a run of this client's and without the graves.
    fn list(&mut self, run: IndexRun, news: &HashSet<PackName>, object: &ObjectName) -> Result<()> {
        if !self.options.dry_run {
            let mut writer = IndexWriter::new(self.repository);
            for (number, pack) in (0u32..).zip(run.packs).filter(|(_, p)| news.contains(&p.name)) {
                let records = run.records.iter().filter(|r| r.pack == number);
                writer.add(pack, records.map(|r| (r.key, r.offset, r.len)).collect())?;
            }
            writer.flush()?;
        }
        self.report.put_back.push(object.to_string());
        Ok(())
    }

    fn packs(&mut self, index: &Index) -> Result<()> {
        let repository = self.repository;
        let damaged = repository.damaged_packs()?;
        let read_data = self.options.read_data;
        let Found { damaged, missing, .. } =
            find(repository, index, read_data, |name| damaged.contains(name), self.observer)?;
        for &(name, kind) in damaged.keys() {
            let object = object_name(kind, name);
            if let Some(bytes) = self.pack(index, name, kind)? {
                self.heal(&object, &bytes)?;
            }
        }
        // Marks are read when everything that could have been put is: a name that is condemned is never put again.
        let marked = repository.marked_packs()?;
        for (name, kind) in missing {
            let object = object_name(kind, name);
            if marked.contains(&name) || index.is_deleted(&name) {
                self.left(object, "it was condemned here, and a condemned pack is not put back");
            } else if let Some(bytes) = self.pack(index, name, kind)? {
                self.put_back(&object, &bytes)?;
            }
        }
        Ok(())
    }

    /// The bytes of a pack there, if they are the right ones.
    fn pack(&mut self, index: &Index, name: PackName, kind: PackKind) -> Result<Option<Vec<u8>>> {
        let object = object_name(kind, name);
        let Some(bytes) = self.fetch(&object, PACK_SIZE_MAX)? else { return Ok(None) };
        // The name proves that these are the bytes that were put; the chunks, that those were right.
        match flaw(self.repository, index, (name, kind), &bytes)? {
            None => Ok(Some(bytes)),
            Some(reason) => {
                self.left(object, format!("it is damaged there too: {reason}"));
                Ok(None)
            }
        }
    }

    /// Verdicts that are missing here without a death.
    fn snapshots(&mut self, index: &Index) -> Result<()> {
        let repository = self.repository;
        let there = self.other.list(Area::Verdicts)?;
        let announced = repository.announcements()?;
        let here: HashSet<RunId> = repository.list_runs(Area::Verdicts)?.into_iter().collect();
        for (object, _) in there {
            let ObjectName::Verdict(id) = object else { continue };
            if here.contains(&id) {
                continue;
            }
            match repository.read_death(&id) {
                Ok(Some(_)) => continue,
                Ok(None) => {}
                Err(e) if e.is_damage() => {
                    self.left(object, e);
                    continue;
                }
                Err(e) => return Err(e),
            }
            let Some(bytes) = self.fetch(&object, OBJECT_MAX)? else { continue };
            match repository.open_verdict(&id, &bytes).map(|read| read.verdict) {
                Err(e) => self.left(object, format!("it cannot be read there either: {e}")),
                // Without it a run that slept through its end could commit. One that is announced here may be awake, and
                // the copy's collectors have no say in that.
                Ok(Verdict::Void { .. }) if announced.contains_key(&id) => {}
                Ok(Verdict::Void { .. }) => self.put_back(&object, &bytes)?,
                Ok(Verdict::Snapshot(s)) => self.snapshot(index, &s, &object, &bytes)?,
            }
        }
        Ok(())
    }

    /// Puts a snapshot back if all of it is here, while a run of its own keeps the tree. The verdict is not that run's,
    /// so a collector that takes the run for dead is not stopped by it: then all is looked at again.
    fn snapshot(&mut self, index: &Index, s: &Snapshot, object: &ObjectName, bytes: &[u8]) -> Result<()> {
        let repository = self.repository;
        if self.options.dry_run {
            return self.put_back(object, bytes);
        }
        for _ in 0..ATTEMPTS {
            // From here on every collector that has not looked yet keeps the tree; what others have condemned is seen below.
            let pin = Pin { snapshot: s.id, tree: s.tree };
            let (run, _) = Run::open(repository, RunKind::Writer, &[pin])?;
            if let Some(lack) = Lack::new(repository, index, s.tree)?.find(self.observer)? {
                self.left(object, format!("not all of it is here: {lack}"));
                return Ok(());
            }
            if repository.outcome(&run.id())? != Outcome::Open {
                continue;
            }
            // What others put is relied on only once it is durable.
            repository.backend().settle()?;
            self.put_back(object, bytes)?;
            if repository.outcome(&run.id())? == Outcome::Open {
                return Ok(());
            }
            let Some(lack) = Lack::new(repository, index, s.tree)?.find(self.observer)? else {
                return Ok(());
            };
            // Better missing, as it was, than a root that has not all it needs.
            repository.backend().delete(object)?;
            repository.backend().flush()?;
            self.report.put_back.pop();
            self.left(object, format!("a prune took part of it while it was put back: {lack}"));
            return Ok(());
        }
        self.left(object, "prunes ended this run again and again; run it again when none is running");
        Ok(())
    }
}
