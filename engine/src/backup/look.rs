//! What a backup looks at once it is announced: the index, what is condemned, what the store lost, and what an interrupted
//! backup has left. All listings are begun after the announcement (SPEC 14), in one request where the store can.

use super::{Job, gaps, resume, scan_of};
use crate::backup::Parent;
use crate::error::Result;
use crate::observer::Event;
use crate::repository::index::{Index, index_names_in};
use crate::repository::snapshots::runs_in;
use bulla_repo_format::record::Checkpoint;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::{Area, ObjectName, PackName, RunId};
use std::collections::HashSet;

/// What was found.
pub(super) struct Looked {
    /// All index runs.
    pub(super) index: Index,
    /// Packs nothing may be taken from.
    pub(super) excluded: HashSet<PackName>,
    /// Where index and listing disagree.
    pub(super) gaps: gaps::Gaps,
    /// How far an interrupted backup of the same paths had come.
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Job<'_> {
    /// Looks around. `run` is this run, unless nothing will be written.
    pub(super) fn look(
        &self,
        run: Option<RunId>,
        paths: &[Vec<u8>],
        parent: Option<&Snapshot>,
    ) -> Result<Looked> {
        let repository = self.repository;
        // Packs come after the runs that list them: the other way round those put in between would look lost.
        let areas = [Area::Index, Area::Marks, Area::Announcements, Area::Packs, Area::Meta];
        let mut listed = repository.backend().list_many(&areas)?.into_iter();
        let mut next = || listed.next().unwrap_or_default();
        let index = repository.open_index_of(index_names_in(next()))?;
        for (_, e) in index.failed() {
            let text = format!("an index run cannot be used, its chunks will be stored again: {e}");
            self.observer.event(&Event::Warning(&text));
        }
        let marks = repository.read_marks(&runs_in(next()))?;
        let damaged = marks.iter().filter(|m| m.damaged).flat_map(|m| m.victims.iter().copied()).collect();
        let mut excluded: HashSet<PackName> = marks.into_iter().flat_map(|m| m.victims).collect();
        excluded.extend(self.excluded);
        let announced = next().into_iter().filter_map(|(name, _)| match name {
            ObjectName::Announcement(other, number) if Some(other) != run => Some((other, number)),
            _ => None,
        });
        let announced: Vec<_> = announced.collect();
        let mut checkpoint = None;
        if run.is_some() && self.options.parent != Parent::None {
            let host = &self.options.host;
            let found = resume::find(repository, &index, announced, host, paths, self.observer)?;
            // What the parent has of the same files is older than it, or was committed after all.
            checkpoint = found.filter(|c| parent.is_none_or(|p| scan_of(p) < c.start));
        }
        let mut gaps = gaps::find([next(), next()].concat(), &index, &damaged)?;
        if !gaps.lost.is_empty() {
            // Opening the index listed it once more: a pack that came with a newer run is no loss.
            let listed = repository.backend().list_many(&[Area::Packs, Area::Meta])?;
            gaps = gaps::find(listed.concat(), &index, &damaged)?;
        }
        self.tell_lost(&gaps);
        Ok(Looked { index, excluded, gaps, checkpoint })
    }

    fn tell_lost(&self, gaps: &gaps::Gaps) {
        if !gaps.lost.is_empty() {
            let text = format!(
                "{} packs are missing or damaged, their chunks will be stored again; run `bulla check`",
                gaps.lost.len()
            );
            self.observer.event(&Event::Warning(&text));
        }
    }
}
