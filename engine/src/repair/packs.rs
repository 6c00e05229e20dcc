//! Damaged packs: found, condemned, and emptied of what still opens in them (SPEC 12.3, 14).
//!
//! A condemned pack counts as lost to everybody, so the next backup stores again what its source still has; the prune
//! after it deletes the pack. Packs that are missing are condemned only by name: an unmarked one may come back
//! ([`super::replica`]).

use crate::check::packs::damaged;
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::prune::condemn;
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::pack::object_name;
use bulla_repo_format::PackName;
use bulla_repo_format::pack::PackKind;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Which packs to condemn.
#[derive(Debug, Clone, Default)]
pub struct PacksOptions {
    /// Only these, if they are damaged or missing; empty: all that are damaged.
    pub packs: Vec<PackName>,
    /// Read and verify every pack; otherwise only those that have not the size the index says.
    pub read_data: bool,
    /// Say what would be condemned, write nothing.
    pub dry_run: bool,
}

/// What a repair of packs did, or would do.
#[derive(Debug, Clone, Default)]
pub struct PacksReport {
    /// Packs that are there.
    pub packs: u64,
    /// Packs that were read.
    pub packs_read: u64,
    /// Packs found damaged or given up, and why.
    pub damaged: Vec<(String, String)>,
    /// Packs that are missing and were not asked for by name.
    pub missing: Vec<String>,
    /// Packs asked for that are whole.
    pub whole: Vec<String>,
    /// Packs that were deleted: all that is needed of them is elsewhere.
    pub deleted: Vec<(String, u64)>,
    /// Packs that stay, and why.
    pub left: Vec<(String, String)>,
    /// Chunks saved from them.
    pub copied: u64,
    /// Bytes stored for that.
    pub stored_bytes: u64,
}

type Key = (PackName, PackKind);

/// Packs that are not as they should be.
#[derive(Default)]
pub(super) struct Found {
    /// There and damaged, and why.
    pub(super) damaged: BTreeMap<Key, String>,
    /// Listed by the index and not there, without a grave.
    pub(super) missing: BTreeSet<Key>,
    /// Packs that were read.
    pub(super) read: u64,
    pub(super) present: BTreeMap<Key, u64>,
}

/// Looks for damaged and missing packs: those whose size is wrong, those that `choose` picks, and all with `read_data`.
pub(super) fn find(
    repository: &Repository,
    index: &Index,
    read_data: bool,
    choose: impl Fn(&PackName) -> bool,
    observer: &dyn Observer,
) -> Result<Found> {
    let present = repository.present_packs()?;
    index.refresh(repository)?;
    let mut found = Found { present, ..Found::default() };
    let mut suspects: BTreeMap<Key, u64> = BTreeMap::new();
    for pack in index.packs() {
        let pack = pack?;
        let key = (pack.name, pack.header.kind);
        match found.present.get(&key) {
            _ if index.is_deleted(&pack.name) => {}
            None => drop(found.missing.insert(key)),
            Some(size) if *size != pack.size => drop(suspects.insert(key, *size)),
            Some(_) => {}
        }
    }
    let chosen = |(name, _): &Key| !index.is_deleted(name) && (read_data || choose(name));
    suspects.extend(found.present.iter().filter(|(key, _)| chosen(key)).map(|(k, s)| (*k, *s)));
    let suspects: Vec<(Key, u64)> = suspects.into_iter().collect();
    found.read = suspects.len() as u64;
    found.damaged = damaged(repository, index, &suspects, observer)?.into_iter().collect();
    Ok(found)
}

/// Finds damaged packs, condemns them, saves what opens in them and in those condemned so before.
pub fn run(repository: &Repository, options: &PacksOptions, observer: &dyn Observer) -> Result<PacksReport> {
    repository.require_writable()?;
    let index = repository.open_index()?;
    let asked: HashSet<PackName> = options.packs.iter().copied().collect();
    let mut found = find(repository, &index, options.read_data, |name| asked.contains(name), observer)?;
    let known = |name: &PackName| {
        let here = |key: &Key| key.0 == *name;
        found.present.keys().any(here) || found.missing.iter().any(here)
    };
    if let Some(name) = asked.iter().find(|name| !known(name)) {
        return Err(Error::Refused(format!("there is no pack {name}, and no index run lists one")));
    }
    let before = repository.damaged_packs()?;
    if !asked.is_empty() {
        found.damaged.retain(|(name, _), _| asked.contains(name));
    }
    let object = |(name, kind): &Key| object_name(*kind, *name).to_string();
    let given_up = |key: &&Key| asked.contains(&key.0);
    let mut report = PacksReport {
        packs: found.present.len() as u64,
        packs_read: found.read,
        missing: found
            .missing
            .iter()
            .filter(|k| !given_up(k) && !before.contains(&k.0))
            .map(object)
            .collect(),
        ..PacksReport::default()
    };
    let whole = |key: &&Key| asked.contains(&key.0) && !found.damaged.contains_key(*key);
    report.whole = found.present.keys().filter(whole).map(object).collect();
    let missing: Vec<Key> = found.missing.iter().filter(given_up).copied().collect();
    found.damaged.extend(missing.into_iter().map(|key| (key, "it is missing, and is given up".to_owned())));
    report.damaged = found.damaged.iter().map(|(key, reason)| (object(key), reason.clone())).collect();
    let victims: HashSet<PackName> = found.damaged.keys().map(|(name, _)| *name).collect();
    if options.dry_run || (victims.is_empty() && before.iter().all(|name| index.is_deleted(name))) {
        return Ok(report);
    }
    let done = condemn(repository, &victims, observer)?;
    report.deleted = done.deleted;
    report.left = done.left;
    report.copied = done.copied;
    report.stored_bytes = done.stored_bytes;
    Ok(report)
}
