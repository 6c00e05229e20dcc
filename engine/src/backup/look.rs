//! What a writer looks at once it is announced: the index, what is condemned, and what the store lost. All listings are
//! begun after the announcement (SPEC 14), in one request where the store can.

use super::gaps::{self, Gaps};
use super::known::Known;
use crate::error::Result;
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::index::{Index, index_names_in};
use crate::repository::snapshots::runs_in;
use bulla_repo_format::{Area, IndexName, ObjectName, PackName, RunId};
use std::collections::HashSet;

/// What was found.
pub(crate) struct Looked {
    /// All index runs.
    pub(crate) index: Index,
    /// Announcements of others.
    pub(crate) announced: Vec<(RunId, u32)>,
    /// Packs nothing may be taken from.
    excluded: HashSet<PackName>,
    damaged: HashSet<PackName>,
    packs: Vec<(ObjectName, u64)>,
}

impl Looked {
    /// Looks around. `own` is this run, unless nothing will be written; `excluded` are packs it met before and must not use;
    /// `before` are the index runs of a listing that was whole before this run was announced, if there was one.
    pub(crate) fn around(
        repository: &Repository,
        own: Option<RunId>,
        excluded: &HashSet<PackName>,
        before: Option<&HashSet<IndexName>>,
        observer: &dyn Observer,
    ) -> Result<Self> {
        // Packs come after the runs that list them: the other way round those put in between would look lost.
        let areas = [Area::Index, Area::Marks, Area::Meta, Area::Packs, Area::Announcements];
        let mut listed = repository.backend().list_many(&areas)?.into_iter();
        let mut next = || listed.next().unwrap_or_default();
        let index = repository.open_index_of(index_names_in(next()), before)?;
        for (_, e) in index.failed() {
            let text = format!("an index run cannot be used, its chunks will be stored again: {e}");
            observer.event(&Event::Warning(&text));
        }
        let marks = repository.read_marks(&runs_in(next()))?;
        let damaged = marks.iter().filter(|m| m.damaged).flat_map(|m| m.victims.iter().copied()).collect();
        let mut all: HashSet<PackName> = marks.into_iter().flat_map(|m| m.victims).collect();
        all.extend(excluded);
        let packs = [next(), next()].concat();
        let announced = next().into_iter().filter_map(|(name, _)| match name {
            ObjectName::Announcement(other, number) if Some(other) != own => Some((other, number)),
            _ => None,
        });
        let announced = announced.collect();
        Ok(Self { index, announced, excluded: all, damaged, packs })
    }

    /// Where index and listing disagree. A pack that came with a run newer than the listing is no loss.
    fn gaps(&mut self, repository: &Repository) -> Result<Gaps> {
        let gaps = gaps::find(std::mem::take(&mut self.packs), &self.index, &self.damaged)?;
        if gaps.lost.is_empty() {
            return Ok(gaps);
        }
        let listed = repository.backend().list_many(&[Area::Meta, Area::Packs])?;
        gaps::find(listed.concat(), &self.index, &self.damaged)
    }

    /// What need not be stored. Says what the store has lost.
    pub(crate) fn known(&mut self, repository: &Repository, observer: &dyn Observer) -> Result<Known<'_>> {
        let gaps = self.gaps(repository)?;
        if !gaps.lost.is_empty() {
            let text = format!(
                "{} packs are missing or damaged, their chunks will be stored again; run `bulla check`",
                gaps.lost.len()
            );
            observer.event(&Event::Warning(&text));
        }
        Ok(Known::new(&self.index, std::mem::take(&mut self.excluded), gaps))
    }
}
