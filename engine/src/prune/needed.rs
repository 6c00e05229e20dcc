//! The packs that snapshots are kept in: of each chunk the place where a prune would keep it.

use super::reach::Reach;
use super::reach_roots;
use crate::error::Result;
use crate::observer::Observer;
use crate::repository::Repository;
use bulla_repo_format::PackName;
use bulla_repo_format::snapshot::Snapshot;
use std::collections::HashSet;

/// What snapshots need.
pub(crate) struct Needed {
    /// Packs that hold it, also those that are not there if nothing else holds it.
    pub(crate) packs: HashSet<PackName>,
    /// Chunks that no pack is known to hold.
    pub(crate) lost: u64,
    /// Trees could not be read, so that more may be needed.
    pub(crate) blind: bool,
}

/// What `snapshots` need. Nothing is counted on that a collector has condemned or that is not there, if it also lies elsewhere.
/// Trees that cannot be read are an error, or noted if `lenient`.
pub(crate) fn packs_needed(
    repository: &Repository,
    snapshots: &[Snapshot],
    lenient: bool,
    observer: &dyn Observer,
) -> Result<Needed> {
    let mut avoid = repository.marked_packs()?;
    let index = repository.open_index()?;
    let there: HashSet<PackName> = repository.present_packs()?.into_keys().map(|(name, _)| name).collect();
    for pack in index.packs() {
        let name = pack?.name;
        if !there.contains(&name) {
            avoid.insert(name);
        }
    }
    let mut reach = Reach::new(repository, &index, avoid);
    if lenient {
        reach = reach.lenient();
    }
    reach_roots(repository, &mut reach, snapshots.iter(), observer)?;
    let packs = reach.live()?.live_bytes()?.into_keys().collect();
    Ok(Needed { packs, lost: reach.live()?.lost() as u64, blind: reach.is_blind() })
}
