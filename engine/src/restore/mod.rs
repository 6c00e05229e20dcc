//! Restore: a snapshot, or a part of it, back into a directory.
//!
//! `gather` streams the tree and makes waves of bounded size; per wave, `examine` looks at what lies in the target,
//! `plan` decides (a pure function), `execute` fetches each frame once and writes every file that needs it, then
//! links, verifies and deletes; directories get their metadata when nothing below them changes any more.
//!
//! Kept true: all writing goes through [`safe_dir`]; a chunk is identified by its key before a byte of it is written;
//! a file whose content the repository cannot give is reported and absent, never present with wrong content.

#![deny(clippy::disallowed_methods)]
#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the traps"))]

mod examine;
mod execute;
mod gather;
mod held;
mod plan;
mod policy;
mod report;
pub mod safe_dir;
mod schedule;
mod select;
mod wave;

pub use plan::Action;
pub use report::{Damage, Planned, RestoreReport};
pub use select::{Patterns, Select, Selection};

use crate::error::{Error, Result};
use crate::observer::{Event, Observer, escape};
use crate::repository::Repository;
use crate::repository::index::Index;
use bulla_repo_format::snapshot::Snapshot;
use gather::Gather;
use policy::Policy;
use report::Tally;
use safe_dir::SafeDir;
use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use wave::Leader;

/// What happens to files that are in the target already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// They become what the snapshot says; their content is compared and only what differs is written.
    #[default]
    Always,
    /// As `Always`, but size and modification time are believed.
    IfChanged,
    /// Only what is newer in the snapshot is restored.
    IfNewer,
    /// They stay as they are.
    Never,
}

/// Who owns what is restored. Only the superuser can give files away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Ownership {
    /// The recorded numbers.
    #[default]
    Numeric,
    /// The recorded names, as this machine numbers them; numbers where it does not know the name.
    ByName,
    /// Whoever restores.
    None,
}

/// How to restore.
#[derive(Clone)]
pub struct RestoreOptions {
    /// What to restore; everything if `None`.
    pub select: Option<Arc<dyn Select + Send + Sync>>,
    /// What happens to existing files.
    pub overwrite: Overwrite,
    /// Remove from restored directories what the snapshot does not have.
    pub delete: bool,
    /// Plan, write nothing.
    pub dry_run: bool,
    /// Read every file written again and identify all its chunks.
    pub verify: bool,
    /// Leave runs of zeros out as holes. Recorded holes always stay holes.
    pub sparse: bool,
    /// Who owns it.
    pub ownership: Ownership,
    /// Restore extended attributes and ACLs.
    pub xattrs: bool,
    /// As the superuser: restore setuid and setgid bits, devices, capabilities and labels.
    pub privileges: bool,
    /// Called when the target is there, before anything is written below it and before any thread is started: for a
    /// caller that gives up its rights to everything else.
    pub ready: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self {
            select: None,
            overwrite: Overwrite::default(),
            delete: false,
            dry_run: false,
            verify: false,
            sparse: false,
            ownership: Ownership::default(),
            xattrs: true,
            privileges: true,
            ready: None,
        }
    }
}

/// Everything a run's stages share.
struct Context<'r> {
    repository: &'r Repository,
    index: &'r Index,
    options: &'r RestoreOptions,
    policy: Policy,
    tally: Tally<'r>,
    width: usize,
    /// The first restored member of each hard-link group that is still incomplete.
    leaders: Mutex<HashMap<(u32, u64), Leader>>,
}

/// Restores `sub` (empty: everything) of `snapshot` into `target`.
///
/// The whole snapshot goes to `target/<recorded path>`; the contents of a directory `sub` go straight into `target`,
/// a file `sub` becomes `target/<name>`. `target` is created if need be. Damage and entries that could not be written
/// are in the report, everything else is restored; an error means that the run could not go on.
pub fn run(
    repository: &Repository,
    snapshot: &Snapshot,
    sub: &[u8],
    target: &Path,
    options: &RestoreOptions,
    observer: &dyn Observer,
) -> Result<RestoreReport> {
    let index = repository.open_index()?;
    let context = Context {
        repository,
        index: &index,
        options,
        policy: Policy::new(snapshot, options),
        tally: Tally::new(observer),
        // Who waits for a distant store needs no processor.
        width: repository.env().width.max(repository.backend().describe().connections),
        leaders: Mutex::default(),
    };
    let scope = gather::Scope::find(&context, snapshot, sub)?;
    let (root, fresh) = open_target(target, options.dry_run)?;
    if let Some(ready) = &options.ready {
        ready();
    }
    let mut estimate = execute::Estimate::default();
    let mut gather = Gather::new(&context, snapshot, scope, root.as_ref().map(SafeDir::handle), fresh);
    loop {
        context.tally.check_interrupt()?;
        let mut wave = gather.wave()?;
        examine::examine(&context, root.as_ref(), &mut wave)?;
        match &root {
            Some(root) if !options.dry_run => {
                gather.carry(execute::execute(&context, root, &mut wave)?);
                gather.finish_directories(&mut wave)?;
            }
            _ => {
                gather.finish_directories(&mut wave)?;
                execute::estimate(&context, &wave, &mut estimate)?;
                wave.planned(&mut |line| observer.event(&Event::Planned(line)));
            }
        }
        if gather.finished() {
            break;
        }
    }
    drop(gather);
    let Context { tally, .. } = context;
    let mut report = tally.report();
    report.packs_to_fetch = estimate.packs.len() as u64;
    (report.bytes_to_fetch, report.requests_to_make) = (estimate.bytes, estimate.requests);
    if report.owners_not_restored > 0 && options.ownership != Ownership::None && !options.dry_run {
        let n = report.owners_not_restored;
        let text = format!("the owners of {n} entries were not restored: only the superuser can do that");
        observer.event(&Event::Notice(&text));
    }
    Ok(report)
}

/// The root to write below, and whether it was made for this run. A dry run makes nothing.
#[allow(
    clippy::disallowed_methods,
    reason = "the target is where the user says, by whatever links lead there"
)]
fn open_target(target: &Path, dry_run: bool) -> Result<(Option<SafeDir>, bool)> {
    let there = target.try_exists().map_err(|e| Error::io("examine", target, e))?;
    if !there && dry_run {
        return Ok((None, true));
    }
    if !there {
        std::fs::create_dir_all(target).map_err(|e| Error::io("create", target, e))?;
    }
    Ok((Some(SafeDir::open(target)?), !there))
}

fn unknown_path(snapshot: &Snapshot, path: &[u8]) -> Error {
    Error::UnknownPath { path: format!("/{}", escape(path)), snapshot: snapshot.id.short() }
}
