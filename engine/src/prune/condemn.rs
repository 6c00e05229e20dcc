//! Condemning packs that were found damaged: the mark that makes everybody treat them as lost, and then what any
//! collector does with condemned packs, so that what still opens in them is saved to new packs (SPEC 14).
//!
//! Kept true: the mark is durable before anything else is done; where a tree cannot be read, nobody knows what is needed,
//! and everything that opens is saved; a pack with a needed chunk that does not open stays.

use super::reach::Reach;
use super::sweep::Swept;
use super::unlisted::Unlisted;
use super::{CarryOut, attempts, mark, reach_roots, survey, there};
use crate::error::Result;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::pack::object_name;
use crate::repository::run::Run;
use bulla_repo_format::PackName;
use bulla_repo_format::record::RunKind;
use std::collections::HashSet;

/// What became of condemned packs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Condemned {
    /// Packs that were deleted, with their bytes; all that is needed of them is elsewhere.
    pub(crate) deleted: Vec<(String, u64)>,
    /// Packs that stay for now, and why.
    pub(crate) left: Vec<(String, String)>,
    /// Chunks saved to new packs.
    pub(crate) copied: u64,
    /// Bytes of those packs and their index.
    pub(crate) stored_bytes: u64,
}

/// Marks `found` as damaged and saves what opens in them, and in all packs that were marked so before.
pub(crate) fn condemn(
    repository: &Repository,
    found: &HashSet<PackName>,
    observer: &dyn Observer,
) -> Result<Condemned> {
    repository.verify_history()?;
    attempts(observer, || attempt(repository, found, observer))
}

fn attempt(repository: &Repository, found: &HashSet<PackName>, observer: &dyn Observer) -> Result<Condemned> {
    repository.backend().settle()?;
    let (run, _) = Run::open(repository, RunKind::Collector, &[])?;
    let own = run.id();
    let mut damaged = repository.damaged_packs()?;
    let new: HashSet<PackName> = found.difference(&damaged).copied().collect();
    let marked = !new.is_empty();
    let before = survey::before(repository);
    if marked {
        mark(repository, &own, &new, true)?;
        damaged.extend(new);
    }
    let index = repository.open_index()?;
    let present = repository.present_packs()?;
    index.refresh(repository)?;
    let victims = there(&damaged, &damaged, &present, &index)?;
    let before = match before {
        Ok(before) => before,
        // A snapshot that cannot be read may need anything: the mark stands, the rest must wait.
        Err(e) if e.is_damage() => {
            let left = |v: &super::Victim| (object_name(v.kind, v.name).to_string(), e.to_string());
            return Ok(Condemned { left: victims.iter().map(left).collect(), ..Condemned::default() });
        }
        Err(e) => return Err(e),
    };
    if victims.is_empty() {
        return Ok(Condemned::default());
    }
    Unlisted::find(repository, &index, &present, observer)?.teach(repository, &index)?;
    let mut reach = Reach::new(repository, &index, repository.marked_packs()?).lenient();
    reach_roots(repository, &mut reach, before.roots(), observer)?;
    let carry_out = CarryOut { repository, index: &index, before: &before, run: &own, marked, full: None };
    let swept = carry_out.sweep(&mut reach, &victims, observer)?;
    index.refresh(repository)?;
    Ok(Condemned::new(swept))
}

impl Condemned {
    fn new(swept: Swept) -> Self {
        Self {
            deleted: swept.delete.iter().map(|v| (object_name(v.kind, v.name).to_string(), v.size)).collect(),
            left: swept.left.into_iter().map(|(object, why)| (object.to_string(), why)).collect(),
            copied: swept.copied,
            stored_bytes: swept.stored,
        }
    }
}
