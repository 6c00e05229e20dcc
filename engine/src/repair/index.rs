//! The index made whole again from the packs' own directories (SPEC 7.4, 10).
//!
//! Kept true: packs that are condemned or have a grave are never listed again; a run that cannot be read goes only when
//! every pack it could have listed is in another run; a run of a newer format is not damaged.

use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::prune::unlisted::{Unlisted, unlisted};
use crate::repository::Repository;
use crate::repository::index::Index;
use crate::repository::pack::object_name;
use bulla_repo_format::index::IndexPack;
use bulla_repo_format::{FormatError, IndexName, ObjectName};

/// How to repair the index.
#[derive(Debug, Clone, Copy, Default)]
pub struct IndexOptions {
    /// Say what would be done, write nothing.
    pub dry_run: bool,
    /// Compare every pack with what the index has of it, also packs that it lists.
    pub read_all_packs: bool,
}

/// What a repair of the index did, or would do.
#[derive(Debug, Clone, Default)]
pub struct IndexReport {
    /// Packs that are there.
    pub packs: u64,
    /// Packs that were listed again.
    pub listed: Vec<String>,
    /// Index runs that could not be read and were removed.
    pub removed: Vec<String>,
    /// Packs that cannot be listed and runs that stay, and why.
    pub left: Vec<(String, String)>,
}

/// Lists what no index run lists; removes runs that cannot be read.
pub fn run(repository: &Repository, options: &IndexOptions, observer: &dyn Observer) -> Result<IndexReport> {
    repository.require_writable()?;
    if !options.dry_run {
        // What others put is relied on only once it is durable.
        repository.backend().settle()?;
    }
    let index = repository.open_index()?;
    let present = repository.present_packs()?;
    index.refresh(repository)?;
    let mut report = IndexReport { packs: present.len() as u64, ..IndexReport::default() };
    let mut found = vec![Unlisted::find(repository, &index, &present, observer)?];
    if options.read_all_packs {
        found.push(Unlisted::misplaced(repository, &index, &present, observer)?);
    }
    super::check_interrupt(observer)?;
    let marked = repository.marked_packs()?;
    let wanted = |pack: &IndexPack| !marked.contains(&pack.name) && !index.is_deleted(&pack.name);
    for unlisted in found {
        let object = |pack: &IndexPack| object_name(pack.header.kind, pack.name).to_string();
        report.listed.extend(unlisted.packs().filter(|p| wanted(p)).map(object));
        if !options.dry_run {
            unlisted.adopt(repository, wanted)?;
        }
    }
    if !options.dry_run {
        index.refresh(repository)?;
    }
    let mut open = unlisted(&index, &present)?;
    open.retain(|(name, kind), _| {
        let object = object_name(*kind, *name).to_string();
        !marked.contains(name) && !index.is_deleted(name) && !report.listed.contains(&object)
    });
    for (name, kind) in open.keys() {
        let reason = "its directory cannot be read, and no index run lists it".to_owned();
        report.left.push((object_name(*kind, *name).to_string(), reason));
    }
    runs(repository, &index, options, open.is_empty(), observer, &mut report)?;
    Ok(report)
}

/// Runs that could not be read, when all packs are listed.
fn runs(
    repository: &Repository,
    index: &Index,
    options: &IndexOptions,
    all_listed: bool,
    observer: &dyn Observer,
    report: &mut IndexReport,
) -> Result<()> {
    for (name, e) in index.failed() {
        let object = ObjectName::Index(*name);
        if is_newer(e) {
            report.left.push((object.to_string(), format!("{e}; a newer bulla may have written it")));
        } else if !all_listed {
            let reason = format!("{e}; it may have listed packs that cannot be listed again");
            report.left.push((object.to_string(), reason));
        } else if still_bad(repository, name)? {
            if !options.dry_run {
                repository.backend().delete(&object)?;
            }
            report.removed.push(object.to_string());
        } else {
            observer.event(&Event::Notice(&format!("{object} can be read after all")));
        }
    }
    if !report.removed.is_empty() && !options.dry_run {
        repository.backend().flush()?;
    }
    Ok(())
}

/// A run may have been misread once.
fn still_bad(repository: &Repository, name: &IndexName) -> Result<bool> {
    match repository.fetch_index_run(name) {
        Ok(_) => Ok(false),
        Err(e) if e.is_damage() => Ok(!e.is_missing()),
        Err(e) => Err(e),
    }
}

/// Bytes that are not for this version.
fn is_newer(e: &Error) -> bool {
    matches!(
        e,
        Error::Object { source: FormatError::Foreign { .. } | FormatError::UnknownFeature { .. }, .. }
    )
}
