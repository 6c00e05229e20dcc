//! A prune of a full store. It lives on the reserve, so it goes in steps, each of which puts little before it frees something.
//!
//! Kept true: nothing is copied; a step that finds no room for all of its mark or graves takes half of them, and half again; it
//! goes on as long as a step ends a snapshot or deletes a pack, and leaves as much of a reserve as there is room for.

use super::sweep::Sweep;
use super::{PruneReport, Victim};
use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use bulla_repo_format::limits::INDEX_PACKS_MAX;

/// How much a prune of a full store puts before it frees anything, as far as there is room: at least one of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtOnce {
    /// Bytes of deaths. One names all snapshots that were alive when its own was made.
    pub(super) deaths: u64,
    /// Packs: 34 bytes of mark for each, and 32 of grave.
    pub(super) packs: usize,
}

/// A quarter of the reserve for deaths, and less than that for mark and graves.
const WHEN_FULL: AtOnce = AtOnce { deaths: 256 << 10, packs: 2048 };

/// What a file system takes for a small object beside its bytes, at most.
pub(super) const BLOCK: u64 = 4096;

/// True if an error is that there is no room.
pub(super) fn is_full(e: &Error) -> bool {
    matches!(e, Error::Backend(BackendError::NoSpace { .. }))
}

/// Collects; where there is no room, in steps.
pub(super) fn in_steps(
    repository: &Repository,
    observer: &dyn Observer,
    mut collect: impl FnMut(Option<AtOnce>) -> Result<PruneReport>,
) -> Result<PruneReport> {
    let mut done = PruneReport::default();
    loop {
        // A store without its reserve counts as full: copies would eat what the objects that free space need.
        let report = match repository.keep_reserve().and_then(|()| collect(None)) {
            Err(e) if is_full(&e) => {
                let text = "the store is full; using its reserve to delete what needs no copy";
                observer.event(&Event::Notice(text));
                repository.give_back_reserve()?;
                let step = collect(Some(WHEN_FULL));
                // For the next step, or the next prune. Whether there is room is asked there.
                let _ = repository.keep_some_reserve();
                match step {
                    // Others took the room. What is done is done.
                    Err(e) if is_full(&e) && done.without_copies => return Ok(done),
                    step => step?,
                }
            }
            other => other?,
        };
        let goes_on = report.without_copies && (report.deleted > 0 || !report.died.is_empty());
        done = report.after(done);
        if !goes_on {
            return Ok(done);
        }
    }
}

/// Digs graves and deletes; gives of how many, the first ones. Without room for all that is no error unless it is none.
pub(super) fn bury_all(sweep: &Sweep<'_>, victims: &[Victim], full: Option<AtOnce>) -> Result<usize> {
    let most = full.map_or(INDEX_PACKS_MAX as usize, |full| full.packs);
    let (mut left, mut at_once) = (victims, most);
    while !left.is_empty() {
        let (part, later) = left.split_at(at_once.min(left.len()));
        match sweep.bury(part) {
            Err(e) if full.is_some() && is_full(&e) && part.len() > 1 => at_once = part.len() / 2,
            Err(e) if full.is_some() && is_full(&e) && left.len() < victims.len() => break,
            other => {
                other?;
                left = later;
                at_once = most.min(at_once * 2);
            }
        }
    }
    Ok(victims.len() - left.len())
}

impl PruneReport {
    /// Both together; what is said of the state is this one's, which came later.
    pub fn after(self, earlier: Self) -> Self {
        Self {
            died: [earlier.died, self.died].concat(),
            voided: [earlier.voided, self.voided].concat(),
            deleted: earlier.deleted + self.deleted,
            deleted_bytes: earlier.deleted_bytes + self.deleted_bytes,
            copied: earlier.copied + self.copied,
            stored_bytes: earlier.stored_bytes + self.stored_bytes,
            ..self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Collector, PruneOptions, mark};
    use super::*;
    use crate::backend::Memory;
    use crate::backup::{self, BackupOptions};
    use crate::env::Env;
    use crate::forget::{Permit, forget};
    use crate::observer::Silent;
    use crate::repository::{InitOptions, SlotSecret};
    use crate::source::{Sources, StreamSource};
    use bulla_repo_format::RunId;
    use bulla_repo_format::keys::Secret;
    use std::sync::Arc;

    /// A repository whose five snapshots are forgotten, each of which has packs of its own.
    fn forgotten() -> Repository {
        let secret = SlotSecret::Key(Secret::new([1; 32]));
        let env = Env::system("host", "user");
        let made = Repository::init(Arc::new(Memory::new()), &InitOptions::default(), &secret, env);
        let repository = made.unwrap().repository;
        for n in 0..5 {
            let stream = StreamSource::new(format!("file {n}"), std::io::Cursor::new(format!("content {n}")));
            let done = backup::run(&repository, Sources::Stream(stream), &BackupOptions::default(), &Silent);
            let id = done.unwrap().snapshot.unwrap().id;
            let permit = Permit::ask(&repository, &[id], "test").unwrap();
            forget(&repository, &permit, true).unwrap();
        }
        repository
    }

    #[test]
    fn steps_go_on_while_they_free_something_and_end_where_there_is_room_or_nothing_to_free() {
        let no_space = || {
            let (object, place) = ("packs/x".into(), "here".into());
            Err(Error::Backend(BackendError::NoSpace { object, place }))
        };
        let step = |deleted, died: usize, without_copies| {
            let died = vec![RunId::new([1; 16]); died];
            Ok(PruneReport {
                deleted,
                deleted_bytes: deleted,
                died,
                without_copies,
                ..PruneReport::default()
            })
        };
        let repository = forgotten();
        let run = |mut turns: Vec<Result<PruneReport>>| {
            let mut asked = Vec::new();
            turns.reverse();
            let done = in_steps(&repository, &Silent, |full| {
                asked.push(full.is_some());
                turns.pop().unwrap()
            });
            done.map(|d| (d.deleted, d.deleted_bytes, d.died.len(), d.without_copies, asked))
        };
        assert_eq!(run(vec![step(3, 0, false)]).unwrap(), (3, 3, 0, false, vec![false]));
        let room = run(vec![no_space(), step(0, 2, true), no_space(), step(5, 0, true), step(7, 1, false)]);
        assert_eq!(room.unwrap(), (12, 12, 3, false, vec![false, true, false, true, false]));
        let full = run(vec![no_space(), step(5, 0, true), no_space(), step(0, 0, true)]);
        assert_eq!(full.unwrap(), (5, 5, 0, true, vec![false, true, false, true]));
        assert!(is_full(&run(vec![no_space(), no_space()]).unwrap_err()));
        let taken = run(vec![no_space(), step(5, 0, true), no_space(), no_space()]);
        assert_eq!(taken.unwrap(), (5, 5, 0, true, vec![false, true, false, true]));
    }

    #[test]
    fn on_a_full_store_so_much_goes_at_once_and_the_rest_with_the_next_prunes() {
        let repository = forgotten();
        let packs = repository.present_packs().unwrap();
        let full = AtOnce { deaths: 2 * BLOCK, packs: 3 };
        let collect = || {
            let (options, observer) = (&PruneOptions::default(), &Silent);
            Collector { repository: &repository, options, observer, full: Some(full) }
                .collect(&mut PruneReport::default())
                .unwrap()
        };
        let first = collect();
        assert_eq!((first.died.len(), first.deleted), (2, 3));
        assert_eq!(repository.present_packs().unwrap().len(), packs.len() - 3);
        // A prune that had room for no more than its mark: the graves of all that it condemned are dug in parts.
        let condemned = packs.keys().map(|(name, _)| *name).collect();
        mark(&repository, &RunId::new([9; 16]), &condemned, false).unwrap();
        assert_eq!((collect().died.len(), collect().died.len()), (2, 1));
        assert_eq!(repository.present_packs().unwrap().len(), 0);
        for run in repository.index_names().unwrap() {
            assert!(repository.fetch_index_run(&run).unwrap().graves.len() <= full.packs);
        }
    }
}
