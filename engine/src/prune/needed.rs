//! The packs that snapshots are kept in: of each chunk the place where a prune would keep it.

use super::reach::Reach;
use super::reach_roots;
use crate::error::Result;
use crate::observer::Observer;
use crate::repository::Repository;
use bulla_repo_format::PackName;
use bulla_repo_format::snapshot::Snapshot;
use std::collections::HashSet;

/// The packs that hold what `snapshots` need, and how many of their chunks no pack is known to hold. Nothing is counted on
/// that a collector has condemned, if it also lies elsewhere.
pub(crate) fn packs_needed(
    repository: &Repository,
    snapshots: &[Snapshot],
    observer: &dyn Observer,
) -> Result<(HashSet<PackName>, u64)> {
    let condemned = repository.marked_packs()?;
    let index = repository.open_index()?;
    let mut reach = Reach::new(repository, &index, condemned);
    reach_roots(repository, &mut reach, snapshots.iter(), observer)?;
    let packs = reach.live().live_bytes()?.into_keys().collect();
    Ok((packs, reach.live().lost() as u64))
}
