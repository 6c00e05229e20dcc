//! Packs that no index run lists: of interrupted backups and prunes, or whose run was lost. They are planned like any
//! other, from their own tails, and those that hold something needed are listed again (SPEC 14).

use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::index::{Index, IndexWriter};
use crate::repository::pack::tail::Record;
use crate::repository::pack::{object_name, tail};
use bulla_repo_format::PackName;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun};
use bulla_repo_format::limits::INDEX_RECORDS_MAX;
use bulla_repo_format::pack::PackKind;
use std::collections::BTreeMap;

/// The packs that are there, by name and kind, with their sizes.
pub(crate) type Present = BTreeMap<(PackName, PackKind), u64>;

/// The packs that are there and that no index run lists.
pub(crate) fn unlisted(index: &Index, present: &Present) -> Result<Present> {
    let mut missing = present.clone();
    for pack in index.packs() {
        let pack = pack?;
        missing.remove(&(pack.name, pack.header.kind));
    }
    Ok(missing)
}

/// Packs and their records.
#[derive(Default)]
pub(crate) struct Unlisted(Vec<(IndexPack, Vec<Record>)>);

impl Unlisted {
    /// Reads the tails of all packs the index does not list. One that cannot be read is reported and left alone.
    pub(crate) fn find(
        repository: &Repository,
        index: &Index,
        present: &Present,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let mut found = Vec::new();
        for ((name, kind), size) in unlisted(index, present)? {
            let tail = match tail::read_again(repository, kind, name, size) {
                Ok(tail) => tail,
                Err(e) if e.is_missing() => continue,
                Err(e) if e.is_damage() => {
                    let text =
                        format!("{} is in no index run and cannot be read: {e}", object_name(kind, name));
                    observer.event(&Event::Warning(&text));
                    continue;
                }
                Err(e) => return Err(e),
            };
            let records = tail.records();
            found.push((tail.pack, records));
        }
        Ok(Self(found))
    }

    /// Reads the tails of all packs the index does list, and keeps those of which it has a chunk at a wrong place, or
    /// none of it.
    pub(crate) fn misplaced(
        repository: &Repository,
        index: &Index,
        present: &Present,
        observer: &dyn Observer,
    ) -> Result<Self> {
        let (missing, mut found, mut places) = (unlisted(index, present)?, Vec::new(), Vec::new());
        for (&(name, kind), &size) in present.iter().filter(|(key, _)| !missing.contains_key(key)) {
            if observer.interrupted() {
                return Err(Error::Interrupted);
            }
            let tail = match tail::read(repository, kind, name, size) {
                Err(e) if e.is_damage() => continue,
                other => other?,
            };
            let records = tail.records();
            let mut wrong = false;
            for (key, offset, len) in &records {
                index.places_of(key, &mut places)?;
                let mut right = false;
                for place in places.iter().filter(|p| (p.offset, p.len) == (*offset, *len)) {
                    right |= index.pack_name(place.pack)? == name;
                }
                wrong |= !right;
            }
            if wrong {
                found.push((tail.pack, records));
            }
        }
        Ok(Self(found))
    }

    /// The packs.
    pub(crate) fn packs(&self) -> impl Iterator<Item = &IndexPack> {
        self.0.iter().map(|(pack, _)| pack)
    }

    /// True if there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Lets this process's index know them.
    pub(crate) fn teach(&self, repository: &Repository, index: &Index) -> Result<()> {
        let mut run = IndexRun::new(repository.client().id());
        for (pack, records) in &self.0 {
            if run.records.len() + records.len() > INDEX_RECORDS_MAX as usize {
                index.add_unlisted(repository, &mut run)?;
                run = IndexRun::new(repository.client().id());
            }
            let number = u32::try_from(run.packs.len()).unwrap_or(u32::MAX);
            let record = |&(key, offset, len): &_| IndexRecord { key, pack: number, offset, len };
            run.records.extend(records.iter().map(record));
            run.packs.push(pack.clone());
        }
        if run.packs.is_empty() { Ok(()) } else { index.add_unlisted(repository, &mut run) }
    }

    /// Puts index runs that list those of them that `wanted` picks; how many.
    pub(crate) fn adopt(self, repository: &Repository, wanted: impl Fn(&IndexPack) -> bool) -> Result<u64> {
        let mut writer = IndexWriter::new(repository);
        let mut adopted = 0;
        for (pack, records) in self.0.into_iter().filter(|(p, _)| wanted(p)) {
            writer.add(pack, records)?;
            adopted += 1;
        }
        writer.flush()?;
        Ok(adopted)
    }
}
