//! What the store lost: where index and listing disagree. Nothing may be taken from a pack that is not whole, and a
//! parent whose chunks may be gone vouches for an unchanged file only as far as the index can find them.

use crate::error::Result;
use crate::repository::index::Index;
use crate::repository::pack::packs_in;
use bulla_repo_format::{ObjectName, PackName};
use std::collections::{HashMap, HashSet};

/// Differences between the index and the listing of packs.
#[derive(Default)]
pub struct Gaps {
    /// Packs the index lists that are missing or of another size, or that a mark calls damaged.
    pub lost: HashSet<PackName>,
    /// False if there is no difference at all.
    pub any: bool,
}

/// Compares listing and index. Packs of a backup that runs beside this one count as a difference: that costs this
/// backup look-ups, nothing else.
pub fn find(packs: Vec<(ObjectName, u64)>, index: &Index, damaged: &HashSet<PackName>) -> Result<Gaps> {
    let mut present: HashMap<PackName, (u64, bool)> =
        packs_in(packs).map(|((name, _), size)| (name, (size, false))).collect();
    let mut lost = HashSet::new();
    for pack in index.packs() {
        let pack = pack?;
        let deleted = index.is_deleted(&pack.name);
        match present.get_mut(&pack.name).filter(|(size, _)| *size == pack.size) {
            Some((_, listed)) if deleted || !damaged.contains(&pack.name) => *listed = true,
            _ if deleted => {}
            _ => drop(lost.insert(pack.name)),
        }
    }
    let orphans = present.values().any(|(_, listed)| !listed);
    let any = orphans || !lost.is_empty() || !index.failed().is_empty();
    Ok(Gaps { lost, any })
}
