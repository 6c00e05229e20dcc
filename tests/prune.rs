//! Forget and prune: what nothing needs goes, everything else restores, also when the prune dies at any operation.

use crate::support::forget;
use crate::support::{Histories, backup, contents, in_memory, noise, on_disk, open, populate};
use bulla_engine::backend::testing::{Fault, Faulty, Recorder};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::forget::{protect, undelete, unprotect};
use bulla_engine::format::{Area, ObjectName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions, PruneReport};
use bulla_engine::repository::Repository;
use std::sync::Arc;

const DAY: i64 = 24 * 3600;

fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn prune(repository: &Repository, options: &PruneOptions) -> PruneReport {
    prune::run(repository, options, &Silent).unwrap()
}

fn findings(repository: &Repository) -> Vec<check::Finding> {
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    check::run(repository, &options, &Silent).unwrap().findings
}

fn packs(memory: &Memory) -> usize {
    memory.list(Area::Packs).unwrap().len() + memory.list(Area::Meta).unwrap().len()
}

#[test]
fn what_only_a_forgotten_snapshot_held_goes_and_the_rest_restores() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    std::fs::write(dir.path().join("old"), noise("old", 500_000)).unwrap();
    let (repository, memory) = crate::support::with_large_packs();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    std::fs::remove_file(dir.path().join("old")).unwrap();
    let second = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let before = memory.snapshot().values().map(Vec::len).sum::<usize>();

    assert_eq!(prune(&repository, &at_once()).deleted, 0, "nothing was forgotten");
    assert!(forget(&repository, &first.id, false, "test").unwrap());
    assert!(!forget(&repository, &first.id, false, "test").unwrap(), "once is enough");
    assert_eq!(repository.snapshots().unwrap().len(), 1);
    let report = prune(&repository, &at_once());
    assert_eq!(report.died, [first.id]);
    assert!(report.deleted > 0 && report.copied > 0, "{report:?}");
    assert!(report.left.is_empty(), "{report:?}");

    assert_eq!(contents(&repository, &second).unwrap(), on_disk(dir.path()));
    assert_eq!(findings(&repository), []);
    let after = memory.snapshot().values().map(Vec::len).sum::<usize>();
    assert!(after + 200_000 < before, "{before} -> {after}");
    let again = prune(&repository, &at_once());
    assert_eq!((again.deleted, again.copied), (0, 0), "a second prune has nothing to do: {again:?}");
    assert!(!memory.snapshot().contains_key(&ObjectName::Verdict(first.id)), "the body is in the death");
    let third = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &third).unwrap(), on_disk(dir.path()));
}

#[test]
fn grace_is_counted_by_the_store_and_undelete_works_inside_it() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &first.id, false, "mistake").unwrap();
    memory.advance(6 * DAY);
    assert!(prune(&repository, &PruneOptions::default()).died.is_empty());
    let back = undelete(&repository, &first.id).unwrap();
    assert_eq!((back.origin, back.tree, back.start), (Some(first.id), first.tree, first.start));
    memory.advance(2 * DAY);
    assert_eq!(prune(&repository, &PruneOptions::default()).died, [first.id]);
    assert_eq!(contents(&repository, &back).unwrap(), on_disk(dir.path()));
    assert!(undelete(&repository, &first.id).is_err_and(|e| e.to_string().contains("gone")));
    assert_eq!(findings(&repository), []);
}

#[test]
fn forget_now_skips_the_grace() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &first.id, true, "no grace").unwrap();
    let report = prune(&repository, &PruneOptions::default());
    assert_eq!(report.died, [first.id]);
    assert_eq!(packs(&memory), 0, "{report:?}");
    assert!(report.plan.keep.is_empty(), "{report:?}");
}

#[test]
fn a_protected_snapshot_cannot_be_forgotten_and_a_forgotten_one_not_protected() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, _) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    protect(&repository, &first.id, "audit").unwrap();
    assert!(forget(&repository, &first.id, true, "policy").is_err());
    assert!(prune(&repository, &at_once()).died.is_empty());
    assert!(unprotect(&repository, &first.id).unwrap());
    assert!(forget(&repository, &first.id, true, "policy").unwrap());
    assert!(protect(&repository, &first.id, "too late").is_err());
    assert_eq!(prune(&repository, &at_once()).died, [first.id]);
}

#[test]
fn a_hold_that_came_too_late_keeps_nothing_and_costs_no_copies() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    protect(&repository, &first.id, "audit").unwrap();
    let hold = memory.snapshot().remove(&ObjectName::Hold(first.id));
    unprotect(&repository, &first.id).unwrap();
    forget(&repository, &first.id, true, "policy").unwrap();
    // A `protect` that was cut off before it looked whether the snapshot is forgotten.
    memory.overwrite(ObjectName::Hold(first.id), hold.clone());
    assert!(prune(&repository, &at_once()).died.is_empty(), "until then it is held");
    memory.overwrite(ObjectName::Hold(first.id), None);
    // Its death is written, and the collector stops before it deletes anything.
    let dead = stopped_after_the_death(&memory, first.id);
    dead.overwrite(ObjectName::Hold(first.id), hold);
    let repository = open(dead.clone(), 8).unwrap();
    for _ in 0..2 {
        prune(&repository, &at_once());
    }
    let third = prune(&repository, &at_once());
    assert_eq!((third.deleted, third.copied), (0, 0), "{third:?}");
    assert_eq!(packs(&dead), 0, "what only the dead snapshot held is gone: {third:?}");
}

/// The store right after a prune has written the death, with nothing condemned yet.
fn stopped_after_the_death(memory: &Arc<Memory>, id: RunId) -> Arc<Memory> {
    let states = (0..).map(|at| {
        let copy = crate::support::copy_of(memory);
        let faulty = Arc::new(Faulty::new(copy.clone(), at, Fault::Forever));
        let _ = open(faulty, 7).and_then(|r| prune::run(&r, &at_once(), &Silent));
        copy
    });
    states.into_iter().find(|m| m.snapshot().contains_key(&ObjectName::Death(id))).unwrap()
}

#[test]
fn an_open_run_keeps_its_packs_until_it_expires() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let lost = crate::support::interrupted(&repository, &memory, dir.path());
    assert!(lost > 0);
    let patient = PruneOptions { run_expiry: DAY, ..at_once() };
    assert_eq!(prune(&repository, &patient).deleted, 0);
    memory.advance(2 * DAY);
    let report = prune(&repository, &patient);
    assert_eq!((report.voided.len(), report.deleted as usize), (1, lost), "{report:?}");
    assert_eq!(packs(&memory), 0);
}

#[test]
fn a_condemned_pack_is_finished_by_the_next_prune() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    let history = Histories::make(&repository, dir.path());
    let victims: Vec<_> = memory
        .list(Area::Packs)
        .unwrap()
        .into_iter()
        .filter_map(|(n, _)| if let ObjectName::Pack(p) = n { Some(p) } else { None })
        .collect();
    crate::support::mark(&repository, &victims, false);
    let report = prune(&repository, &PruneOptions::default());
    assert!(report.deleted as usize >= victims.len(), "{report:?}");
    assert!(report.copied > 0);
    history.verify(&repository, "after finishing another collector's mark");
    assert_eq!(findings(&repository), []);
}

#[test]
fn a_listing_that_hides_a_snapshot_stops_everything() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    let history = Histories::make(&repository, dir.path());
    let hidden = history.alive[0].0.id;
    let bytes = memory.snapshot().remove(&ObjectName::Verdict(hidden)).unwrap();
    memory.overwrite(ObjectName::Verdict(hidden), None);
    let before = packs(&memory);
    let error = prune::run(&repository, &at_once(), &Silent).unwrap_err();
    assert!(matches!(error, bulla_engine::Error::RolledBack { .. }), "{error}");
    // An empty file in the place of a death explains nothing.
    memory.overwrite(ObjectName::Death(hidden), Some(Vec::new()));
    assert!(prune::run(&repository, &at_once(), &Silent).is_err());
    assert_eq!(packs(&memory), before);
    memory.overwrite(ObjectName::Death(hidden), None);
    memory.overwrite(ObjectName::Verdict(hidden), Some(bytes));
    history.verify(&repository, "after the refusals");
}

#[test]
fn a_missing_tree_node_stops_the_prune_and_a_missing_chunk_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    Histories::make(&repository, dir.path());
    let meta = memory.list(Area::Meta).unwrap();
    let kept = memory.snapshot();
    for (name, _) in &meta {
        memory.overwrite(*name, None);
    }
    let before = packs(&memory);
    assert!(prune::run(&repository, &at_once(), &Silent).is_err_and(|e| e.is_damage()));
    assert_eq!(packs(&memory), before);
    for (name, _) in meta {
        memory.overwrite(name, kept.get(&name).cloned());
    }
    let (name, _) = memory.list(Area::Packs).unwrap()[0];
    memory.overwrite(name, None);
    prune(&repository, &at_once());
    assert!(!findings(&repository).is_empty(), "the damage is still reported");
}

#[test]
fn a_prune_without_work_asks_little() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    Histories::make(&repository, dir.path());
    prune(&repository, &at_once());
    prune(&repository, &at_once());
    let recorder = Arc::new(Recorder::new(memory.clone()));
    let repository = open(recorder.clone(), 9).unwrap();
    recorder.take();
    prune(&repository, &at_once());
    let calls = recorder.take();
    let of = |what: &str| calls.get(what).copied().unwrap_or(0);
    assert_eq!(of("get_range packs"), 0, "no data is read: {calls:?}");
    // The one delete is of a name that nobody has: it asks whether deletes are allowed.
    assert_eq!(
        (of("put marks"), of("put packs"), of("put index"), of("delete packs")),
        (0, 0, 0, 1),
        "{calls:?}"
    );
    assert_eq!((of("put pend"), of("delete pend")), (1, 1), "{calls:?}");
}
