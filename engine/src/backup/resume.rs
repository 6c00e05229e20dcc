//! Resume: what an interrupted backup of the same source has done already.
//!
//! A backup announces, every few minutes, the tree of all it has done ([`Checkpoint`]). The next one reads that tree
//! beside the walk: a file that is as it was then is not read again, if every chunk of it lies in a pack of the index;
//! those packs become foreign packs of this run and are verified before its commit like any other (SPEC 14). So nothing
//! is taken on trust from a run that never committed, and the checkpoint may be as stale or broken as it likes.

use super::decide::{Comparison, is_unchanged};
use super::known::Known;
use crate::error::Result;
use crate::observer::Observer;
use crate::prune::unlisted::Unlisted;
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::tree::TreeReader;
use bulla_repo_format::RunId;
use bulla_repo_format::record::{Checkpoint, RunKind};
use bulla_repo_format::tree::{ChunkRef, Entry, EntryKind, Hole, decode_holes};
use std::cmp::Ordering;

/// The newest checkpoint of a run among `announced` of this client that never committed, for this host and these paths. Packs such runs
/// left without an index run are listed first, so that nothing is put twice.
pub fn find(
    repository: &Repository,
    index: &Index,
    announced: Vec<(RunId, u32)>,
    host: &str,
    paths: &[Vec<u8>],
    observer: &dyn Observer,
) -> Result<Option<Checkpoint>> {
    let client = repository.client().id();
    let (mut newest, mut interrupted): (Option<Checkpoint>, bool) = (None, false);
    for announced in repository.read_announcements(announced)?.into_values() {
        let ours = announced.read.iter().any(|a| a.client == client && a.kind == RunKind::Writer);
        if !ours {
            continue;
        }
        interrupted = true;
        let fitting = announced.read.into_iter().filter_map(|a| Some((a.number, a.checkpoint?)));
        let fitting = fitting.filter(|(_, c)| c.host == host && c.paths == paths);
        if let Some((_, checkpoint)) = fitting.max_by_key(|(number, _)| *number)
            && newest.as_ref().is_none_or(|n| n.start < checkpoint.start)
        {
            newest = Some(checkpoint);
        }
    }
    if interrupted {
        adopt(repository, index, observer)?;
    }
    Ok(newest)
}

fn adopt(repository: &Repository, index: &Index, observer: &dyn Observer) -> Result<()> {
    let present = repository.present_packs()?;
    let unlisted = Unlisted::find(repository, index, &present, observer)?;
    if unlisted.is_empty() {
        return Ok(());
    }
    // What another process put is relied on only once it is durable.
    repository.backend().settle()?;
    let (marked, client) = (repository.marked_packs()?, repository.client().id());
    unlisted.adopt(repository, |pack| pack.signer == client && !marked.contains(&pack.name))?;
    index.refresh(repository)?;
    Ok(())
}

/// The interrupted run's tree beside the walk.
pub struct Resumed<'r> {
    reader: TreeReader<'r>,
    next: Option<Entry>,
    checkpoint: Checkpoint,
    comparison: Comparison,
    places: Vec<Place>,
}

impl<'r> Resumed<'r> {
    /// Starts at the first entry.
    pub fn new(
        repository: &'r Repository,
        index: &'r Index,
        checkpoint: Checkpoint,
        comparison: Comparison,
    ) -> Result<Self> {
        let reader = TreeReader::new(repository, index, checkpoint.tree);
        let mut new = Self { reader, next: None, checkpoint, comparison, places: Vec::new() };
        new.advance()?;
        Ok(new)
    }

    /// Goes to the next entry that can be read; what cannot was not done.
    fn advance(&mut self) -> Result<()> {
        loop {
            match self.reader.next() {
                Err(e) if e.is_damage() => {}
                next => {
                    self.next = next?;
                    return Ok(());
                }
            }
        }
    }

    /// The content of a file that is as it was when the interrupted run read it, and that is stored whole.
    pub fn content(&mut self, now: &Entry, known: &Known<'_>) -> Result<Option<(Vec<ChunkRef>, Vec<Hole>)>> {
        while self.next.as_ref().is_some_and(|b| b.compare(now) == Ordering::Less) {
            self.advance()?;
        }
        let Some(before) = self.next.take_if(|b| b.compare(now) == Ordering::Equal) else { return Ok(None) };
        self.advance()?;
        if !is_unchanged(now, &before, self.checkpoint.start, self.comparison) {
            return Ok(None);
        }
        match self.stored(&before, known) {
            Err(e) if e.is_damage() => Ok(None),
            other => other,
        }
    }

    fn stored(&mut self, before: &Entry, known: &Known<'_>) -> Result<Option<(Vec<ChunkRef>, Vec<Hole>)>> {
        let EntryKind::File { size, holes, content } = &before.kind else { return Ok(None) };
        let holes = match self.reader.block(holes)? {
            Some(block) => decode_holes(&block, *size)?,
            None => Vec::new(),
        };
        let refs = self.reader.content(content)?;
        let bytes = refs.iter().map(|r| u64::from(r.len)).chain(holes.iter().map(|h| h.len));
        if bytes.fold(0u64, u64::saturating_add) != *size {
            return Ok(None);
        }
        Ok(known.rely(&refs, &mut self.places)?.then_some((refs, holes)))
    }
}
