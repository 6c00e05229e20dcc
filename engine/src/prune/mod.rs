//! Prune: the verb in one screen. Let forgotten snapshots die, find what nothing needs, say so, look again, copy what
//! is still needed, delete.
//!
//! Runs beside backups, restores, checks and other prunes; any step may be the last one, and any later prune finishes
//! what this one began (SPEC 14). No decision compares clocks of different machines: grace and expiry compare times of
//! the store with a time of the store, and only decide *when* something may go, never whether it is needed.

mod condemn;
mod full;
mod needed;
mod plan;
mod reach;
mod survey;
mod sweep;
pub(crate) mod unlisted;

pub(crate) use condemn::condemn;
pub(crate) use needed::{Needed, packs_needed};
pub use plan::{MaxUnused, PackUse, Plan};

use crate::backend::{BackendError, Put};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::protocol::{Outcome, may_void};
use crate::repository::Repository;
use crate::repository::index::{Index, Merged};
use crate::repository::run::Run;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::record::{Death, Mark, RunKind};
use bulla_repo_format::snapshot::{Snapshot, Verdict};
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use full::{AtOnce, BLOCK, is_full};
use reach::Reach;
use std::collections::{HashMap, HashSet};
use survey::Before;
use sweep::{Sweep, Swept, Victim};
use unlisted::{Present, Unlisted};

/// How to prune.
#[derive(Debug, Clone)]
pub struct PruneOptions {
    /// Seconds a forgotten snapshot can still be brought back. 0 is as safe for everything else.
    pub grace: i64,
    /// Seconds without a new announcement after which a run without verdict is declared void. 0 is as safe: a run that
    /// lives begins again.
    pub run_expiry: i64,
    /// How much unused space may stay.
    pub max_unused: MaxUnused,
    /// At most so many bytes of packs are read for copying.
    pub max_repack: Option<u64>,
    /// Runs a human knows to be dead: on stores without exact put-if-absent nothing else ends a run.
    pub assume_dead: Vec<RunId>,
    /// Say what would be done, write nothing.
    pub dry_run: bool,
}

impl Default for PruneOptions {
    fn default() -> Self {
        Self {
            grace: 7 * 24 * 3600,
            run_expiry: 24 * 3600,
            max_unused: MaxUnused::Percent(5.0),
            max_repack: None,
            assume_dead: Vec::new(),
            dry_run: false,
        }
    }
}

/// What a prune did, or would do.
#[derive(Debug, Clone, Default)]
pub struct PruneReport {
    /// Snapshots whose grace was over.
    pub died: Vec<RunId>,
    /// Runs declared void.
    pub voided: Vec<RunId>,
    /// Snapshots that are alive.
    pub snapshots: u64,
    /// What is in the packs, and what to do with them.
    pub plan: Plan,
    /// Packs that were deleted, those that earlier prunes had condemned included.
    pub deleted: u64,
    /// Bytes of those.
    pub deleted_bytes: u64,
    /// Chunks copied before.
    pub copied: u64,
    /// Bytes of new packs and index runs.
    pub stored_bytes: u64,
    /// Condemned packs that stay for now, and why.
    pub left: Vec<(String, String)>,
    /// Chunks that snapshots refer to and no pack is known to hold: damage that was there before.
    pub lost_chunks: u64,
    /// Index runs merged.
    pub merged: Merged,
    /// The store was full: only what needed no copy was deleted.
    pub without_copies: bool,
    /// The store keeps what is deleted until its retention ends: it is hidden, and nothing is freed before.
    pub hidden: bool,
}

/// Attempts before a prune gives up against others that prune meanwhile.
const ATTEMPTS: usize = 3;

/// Prunes a repository.
pub fn run(repository: &Repository, options: &PruneOptions, observer: &dyn Observer) -> Result<PruneReport> {
    repository.require_writable()?;
    repository.verify_history()?;
    if options.dry_run {
        return Collector { repository, options, observer, full: None }.rehearse();
    }
    require_deletes(repository)?;
    // What attempts that failed have let die or expired is done all the same.
    let mut done = PruneReport::default();
    let collect = |full| {
        let collector = Collector { repository, options, observer, full };
        attempts(observer, || collector.collect(&mut done))
    };
    let mut report = full::in_steps(repository, observer, collect)?;
    // It is done; whether it freed anything is a word more.
    report.hidden = report.deleted > 0 && repository.backend().locks_objects().unwrap_or(false);
    if let Err(e) = repository.keep_some_reserve() {
        observer.event(&Event::Warning(&format!("the reserve for a full store could not be kept: {e}")));
    }
    Ok(report)
}

/// Fails where only additions are allowed: a prune there would end snapshots and copy chunks, and then free nothing. Asked
/// with the name of a pack that nobody has ever made, so that a yes costs nothing. A store may still refuse later; what is
/// done until then is what an interrupted prune leaves.
fn require_deletes(repository: &Repository) -> Result<()> {
    let nobodys = ObjectName::Pack(PackName::new(repository.env().random()));
    match repository.backend().delete(&nobodys) {
        // Of a medium that is mounted read-only the error itself says more.
        Err(BackendError::Denied { place, source, .. })
            if source.kind() != std::io::ErrorKind::ReadOnlyFilesystem =>
        {
            Err(Error::Refused(format!(
                "a prune has to delete, and {place} does not let it ({source}); nothing was changed. Prune as somebody who \
                 may delete there"
            )))
        }
        other => Ok(other?),
    }
}

/// Begins again when another collector has ended this one's run, or has changed what it had looked at.
fn attempts<T>(observer: &dyn Observer, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(Error::Voided { .. }) => observer.event(&Event::Notice(
                "another prune took this one for dead and expired it; beginning again",
            )),
            Err(e @ Error::Overtaken { .. }) => {
                observer.event(&Event::Notice(&format!("{e}: beginning again")));
            }
            other => return other,
        }
    }
    attempt()
}

struct Collector<'a> {
    repository: &'a Repository,
    options: &'a PruneOptions,
    observer: &'a dyn Observer,
    /// Set on a full store: nothing is copied, and no more than that is done at once.
    full: Option<AtOnce>,
}

impl Collector<'_> {
    fn collect(&self, done: &mut PruneReport) -> Result<PruneReport> {
        let repository = self.repository;
        repository.backend().settle()?;
        if self.full.is_some() {
            // It may be all the space there is for an announcement.
            self.clear_dead()?;
        }
        let (run, _) = Run::open(repository, RunKind::Collector, &[])?;
        let now = self.store_time(&run.id())?;
        let mut report = PruneReport { without_copies: self.full.is_some(), ..PruneReport::default() };
        self.clear_dead()?;
        self.let_die(now, true, &mut done.died)?;
        done.voided.extend(self.expire(&run.id(), now)?);
        if self.full.is_some() {
            // After the announcements of those are gone: so deaths take no space for long.
            self.clear_dead()?;
        }
        let adopted: HashSet<PackName> = repository.marked_packs()?;

        let before = survey::before(repository)?;
        let index = repository.open_index()?;
        let present = repository.present_packs()?;
        index.refresh(repository)?;
        let unlisted = Unlisted::find(repository, &index, &present, self.observer)?;
        unlisted.teach(repository, &index)?;
        let mut reach = Reach::new(repository, &index, adopted.clone());
        reach_roots(repository, &mut reach, before.roots(), self.observer)?;
        report.snapshots = before.roots().count() as u64;
        report.lost_chunks = reach.live()?.lost() as u64;
        report.plan = self.plan(&index, &mut reach, &present, &adopted)?;
        let kept: HashSet<PackName> =
            report.plan.keep.iter().filter(|p| p.live > 0).map(|p| p.name).collect();
        match unlisted.adopt(repository, |pack| kept.contains(&pack.name)) {
            // What no index run lists counts as no copy: it is only for later.
            Err(e) if self.full.is_some() && is_full(&e) => {}
            other => _ = other?,
        }
        let others = present.keys().any(|(name, _)| adopted.contains(name));
        let mut victims = self.condemn(&run.id(), &report.plan, others)?;
        let marked = !victims.is_empty();
        victims.extend(adopted);
        let damaged = if victims.is_empty() { HashSet::new() } else { repository.damaged_packs()? };
        let victims = there(&victims, &damaged, &present, &index)?;
        if !victims.is_empty() {
            let own = run.id();
            let carried_out =
                CarryOut { repository, index: &index, before: &before, run: &own, marked, full: self.full };
            report.add(carried_out.sweep(&mut reach, &victims, self.observer)?);
        }
        index.refresh(repository)?;
        if self.full.is_none() {
            report.merged = index.merge(repository)?;
        }
        (report.died, report.voided) = (std::mem::take(&mut done.died), std::mem::take(&mut done.voided));
        Ok(report)
    }

    /// Marks what the plan condemns; on a full store as much as there is room to mark, or nothing where `others` are marked.
    fn condemn(&self, run: &RunId, plan: &Plan, others: bool) -> Result<HashSet<PackName>> {
        let all: Vec<PackName> = match self.full {
            None => plan.delete.iter().chain(&plan.repack).map(|p| p.name).collect(),
            Some(at_once) => plan.delete.iter().take(at_once.packs).map(|p| p.name).collect(),
        };
        let mut n = all.len();
        while n > 0 {
            let victims = all.iter().take(n).copied().collect();
            match mark(self.repository, run, &victims, false) {
                Err(e) if self.full.is_some() && is_full(&e) && (n > 1 || others) => n /= 2,
                other => return other.map(|()| victims),
            }
        }
        Ok(HashSet::new())
    }

    /// The same survey and plan, with nothing written.
    fn rehearse(&self) -> Result<PruneReport> {
        let repository = self.repository;
        let mut died = Vec::new();
        self.let_die(repository.env().clock.now().seconds, false, &mut died)?;
        let marked = repository.marked_packs()?;
        let mut before = survey::before(repository)?;
        before.dead.extend(&died);
        let index = repository.open_index()?;
        let present = repository.present_packs()?;
        Unlisted::find(repository, &index, &present, self.observer)?.teach(repository, &index)?;
        let mut reach = Reach::new(repository, &index, marked.clone());
        reach_roots(repository, &mut reach, before.roots(), self.observer)?;
        let plan = self.plan(&index, &mut reach, &present, &marked)?;
        let snapshots = before.roots().count() as u64;
        let lost_chunks = reach.live()?.lost() as u64;
        Ok(PruneReport { died, snapshots, plan, lost_chunks, ..PruneReport::default() })
    }

    /// Now, by the store's clock: the time it gave this run's own announcement.
    fn store_time(&self, own: &RunId) -> Result<i64> {
        let announced = self.repository.announced_at(own)?;
        announced.ok_or_else(|| survey::unseen(self.repository, own, "announcements"))
    }

    /// Snapshots that an earlier collector let die: the body is in the death, so the object may go.
    fn clear_dead(&self) -> Result<()> {
        let repository = self.repository;
        let gone: HashSet<RunId> = repository.list_runs(Area::Deaths)?.into_iter().collect();
        let mut dead = Vec::new();
        for run in repository.list_runs(Area::Verdicts)? {
            if gone.contains(&run) && survey::is_dead(repository, &run)? {
                dead.push(run);
            }
        }
        if !dead.is_empty() {
            // Deaths of others that were put since this collector began may not be durable yet.
            repository.backend().settle()?;
        }
        dead.iter().try_for_each(|run| Ok(repository.backend().delete(&ObjectName::Verdict(*run))?))
    }

    /// Forgotten snapshots whose grace is over die, unless they are held; with `write`, durably.
    fn let_die(&self, now: i64, write: bool, died: &mut Vec<RunId>) -> Result<()> {
        let repository = self.repository;
        let there: HashSet<RunId> = repository.list_runs(Area::Verdicts)?.into_iter().collect();
        let gone: HashSet<RunId> = repository.list_runs(Area::Deaths)?.into_iter().collect();
        // Forgets before holds: a hold that came before its snapshot was forgotten is seen (engine::forget).
        let forgets = repository.list_runs(Area::Forgets)?;
        let held: HashSet<RunId> = repository.list_runs(Area::Holds)?.into_iter().collect();
        let mut bytes = 0;
        for id in forgets {
            if self.full.is_some_and(|at_once| bytes >= at_once.deaths) {
                break;
            }
            if held.contains(&id) || !there.contains(&id) || gone.contains(&id) {
                continue;
            }
            let forget = match repository.read_forget(&id) {
                Ok(Some(forget)) => forget,
                Ok(None) => continue,
                Err(e) if e.is_damage() => {
                    self.observer.event(&Event::Warning(&format!("a forget is ignored: {e}")));
                    continue;
                }
                Err(e) => return Err(e),
            };
            let name = ObjectName::Forget(id);
            let Some(stat) = repository.backend().stat(&name)? else { continue };
            if !forget.now && now.saturating_sub(stat.modified) < self.options.grace {
                continue;
            }
            match if write { self.write_death(&id) } else { Ok(Some(0)) } {
                Ok(Some(len)) => {
                    died.push(id);
                    bytes += len + BLOCK;
                }
                Ok(None) => {}
                Err(e) if self.full.is_some() && is_full(&e) && !died.is_empty() => break,
                Err(e) => return Err(e),
            }
        }
        if !died.is_empty() && write {
            repository.backend().flush()?;
        }
        Ok(())
    }

    /// The bytes it takes; `None` if another collector let it die meanwhile and has removed it.
    fn write_death(&self, id: &RunId) -> Result<Option<u64>> {
        let repository = self.repository;
        let name = ObjectName::Verdict(*id);
        let (body, signature) = match repository.get_object(&name, ObjectType::Verdict) {
            Err(e) if e.is_missing() && survey::is_dead(repository, id)? => return Ok(None),
            other => other?,
        };
        let fail = |e| Error::object(&name, e);
        let verdict = Verdict::decode(&body, id).map_err(fail)?;
        repository.verify(ObjectType::Verdict, &verdict.client(), &body, &signature).map_err(fail)?;
        let hash = repository.keyring().body_hash(&body);
        let death = Death { snapshot: *id, client: repository.client().id(), hash, body }.encode();
        let len = death.len() as u64;
        repository.put_object(&ObjectName::Death(*id), ObjectType::Death, death)?;
        Ok(Some(len))
    }

    /// Runs that were silent for long get a VOID; announcements of runs with a verdict, and of silent readers, go.
    fn expire(&self, own: &RunId, now: i64) -> Result<Vec<RunId>> {
        let repository = self.repository;
        let exact = repository.backend().conditional_put()?;
        let mut voided = Vec::new();
        for (run, announced) in repository.announcements()? {
            let dead = self.options.assume_dead.contains(&run);
            let silent = now.saturating_sub(announced.newest) >= self.options.run_expiry;
            if run == *own {
                continue;
            }
            let mut outcome = repository.outcome(&run)?;
            let reader = announced.is_reader();
            if !reader && (silent || dead) && may_void(outcome, exact, dead) {
                let void = Verdict::Void { run, client: repository.client().id() };
                repository.put_object(&ObjectName::Verdict(run), ObjectType::Verdict, void.encode())?;
                repository.backend().flush()?;
                outcome = repository.outcome(&run)?;
                if outcome == Outcome::Void {
                    voided.push(run);
                }
            }
            if outcome != Outcome::Open || (reader && silent) {
                for number in announced.numbers {
                    repository.backend().delete(&ObjectName::Announcement(run, number))?;
                }
            }
        }
        Ok(voided)
    }

    /// Packs that are there and that nobody has condemned yet, and what to do with them. Those of runs that are not
    /// finished are left out: their mark would only wait.
    fn plan(
        &self,
        index: &Index,
        reach: &mut Reach<'_>,
        present: &Present,
        marked: &HashSet<PackName>,
    ) -> Result<Plan> {
        let announced = self.repository.announcements()?;
        let named: HashSet<PackName> =
            announced.values().flat_map(|a| a.read.iter().flat_map(|r| r.packs.iter().copied())).collect();
        let live = reach.live()?.live_bytes()?;
        let mut uses: HashMap<PackName, PackUse> = HashMap::new();
        for pack in index.packs() {
            let pack = pack?;
            let (name, kind) = (pack.name, pack.header.kind);
            let Some(size) = present.get(&(name, kind)) else { continue };
            if marked.contains(&name) || named.contains(&name) || announced.contains_key(&pack.run) {
                continue;
            }
            let live = live.get(&name).copied().unwrap_or(0);
            uses.insert(name, PackUse { name, kind, size: *size, plain: pack.raw_len(), live });
        }
        let mut uses: Vec<PackUse> = uses.into_values().collect();
        uses.sort_by_key(|u| u.name);
        let config = self.repository.config();
        let full = (config.data_pack, config.meta_pack);
        Ok(plan::plan(&uses, full, self.options.max_unused, self.options.max_repack))
    }
}

/// g2: condemns packs, durably.
fn mark(repository: &Repository, run: &RunId, victims: &HashSet<PackName>, damaged: bool) -> Result<()> {
    let mut victims: Vec<PackName> = victims.iter().copied().collect();
    victims.sort_unstable();
    let mark = Mark { run: *run, client: repository.client().id(), victims, damaged };
    let put = repository.put_object(&ObjectName::Mark(*run), ObjectType::Mark, mark.encode())?;
    if put == Put::Exists && repository.read_mark(run)? != Some(mark) {
        // Of a clone of this machine, long ago: it does not condemn these packs, so nobody would know.
        return Err(Error::Voided { run: run.to_string() });
    }
    Ok(repository.backend().flush()?)
}

/// Marks what snapshots need. One that has died since it was listed may have been swept by another collector, and a
/// traversal that broke off must not hide what others need: then all begins again.
fn reach_roots<'s>(
    repository: &Repository,
    reach: &mut Reach<'_>,
    roots: impl Iterator<Item = &'s Snapshot> + Clone,
    observer: &dyn Observer,
) -> Result<()> {
    let total_files = roots.clone().count() as u64;
    let overtaken = |id: &RunId| Error::Overtaken { what: format!("snapshot {} died", id.short()) };
    for (files, snapshot) in (1..).zip(roots.clone()) {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        match reach.root(&snapshot.tree) {
            Err(e) if e.is_damage() && survey::is_dead(repository, &snapshot.id)? => {
                return Err(overtaken(&snapshot.id));
            }
            other => other?,
        }
        observer.event(&Event::Progress { files, bytes: 0, total_files, total_bytes: 0 });
    }
    if reach.live()?.lost() > 0 || reach.is_blind() {
        let gone: HashSet<RunId> = repository.list_runs(Area::Deaths)?.into_iter().collect();
        for snapshot in roots.filter(|s| gone.contains(&s.id)) {
            if survey::is_dead(repository, &snapshot.id)? {
                return Err(overtaken(&snapshot.id));
            }
        }
    }
    Ok(())
}

/// What carries a sentence out: marks that stand, seen by one collector.
struct CarryOut<'a> {
    repository: &'a Repository,
    index: &'a Index,
    before: &'a Before,
    run: &'a RunId,
    /// This run has put a mark of its own.
    marked: bool,
    full: Option<AtOnce>,
}

impl CarryOut<'_> {
    /// g3 to g5.
    fn sweep(&self, reach: &mut Reach<'_>, victims: &[Victim], observer: &dyn Observer) -> Result<Swept> {
        let (repository, index) = (self.repository, self.index);
        repository.backend().settle()?;
        let after = survey::after(repository, index, self.before, self.run, self.marked)?;
        index.refresh(repository)?;
        reach_roots(repository, reach, after.roots.iter(), observer)?;
        // After all roots: what a pin lacks must not hide what a root has.
        for pin in &after.pins {
            reach.pin(&pin.tree)?;
        }
        let damaged: HashSet<PackName> = victims.iter().filter(|v| v.damaged).map(|v| v.name).collect();
        let in_index = if damaged.is_empty() { HashMap::new() } else { index.listed(&damaged)? };
        let sweep = Sweep {
            repository,
            index,
            blind: reach.is_blind(),
            live: reach.live()?,
            after: &after,
            run: *self.run,
            in_index,
            copies: self.full.is_none(),
            observer,
        };
        let mut swept = sweep.run(victims)?;
        let buried = full::bury_all(&sweep, &swept.delete, self.full)?;
        swept.delete.truncate(buried);
        Ok(swept)
    }
}

impl PruneReport {
    fn add(&mut self, swept: Swept) {
        self.deleted = swept.delete.len() as u64;
        self.deleted_bytes = swept.delete.iter().map(|v| v.size).sum();
        self.copied = swept.copied;
        self.stored_bytes = swept.stored;
        self.left = swept.left.into_iter().map(|(object, why)| (object.to_string(), why)).collect();
    }
}

/// The condemned packs that are there, and those that were found damaged and are missing by now: an end to waiting.
fn there(
    condemned: &HashSet<PackName>,
    damaged: &HashSet<PackName>,
    present: &Present,
    index: &Index,
) -> Result<Vec<Victim>> {
    let fits = |((name, _), _): &(&(PackName, _), &u64)| condemned.contains(name);
    let victim = |(&(name, kind), &size)| Victim { name, kind, size, damaged: damaged.contains(&name) };
    let mut victims: Vec<Victim> = present.iter().filter(fits).map(victim).collect();
    let mut seen: HashSet<PackName> = present.keys().map(|(name, _)| *name).collect();
    if damaged.iter().all(|name| seen.contains(name)) {
        return Ok(victims);
    }
    for pack in index.packs() {
        let pack = pack?;
        let (name, kind, size) = (pack.name, pack.header.kind, pack.size);
        if damaged.contains(&name) && !index.is_deleted(&name) && seen.insert(name) {
            victims.push(Victim { name, kind, size, damaged: true });
        }
    }
    Ok(victims)
}
