//! Clones of a machine, down to the state of its random generator: they use run ids that were used before, and whose
//! snapshots may have died meanwhile. Found by simulation.

use crate::support::forget;
use crate::support::{backup, contents, in_memory, noise, on_disk, open, populate};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use std::collections::HashSet;

fn at_once() -> PruneOptions {
    PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

fn packs(memory: &Memory) -> HashSet<ObjectName> {
    [Area::Packs, Area::Meta].into_iter().flat_map(|a| memory.list(a).unwrap()).map(|(n, _)| n).collect()
}

#[test]
fn a_backup_under_the_id_of_a_dead_snapshot_begins_again() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&open(memory.clone(), 5).unwrap(), dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &first.id, true, "test").unwrap();
    for _ in 0..2 {
        prune::run(&repository, &at_once(), &Silent).unwrap();
    }
    let second = backup(&open(memory.clone(), 5).unwrap(), dir.path()).unwrap().snapshot.unwrap();
    assert_ne!(first.id, second.id);
    prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!(contents(&repository, &second).unwrap(), on_disk(dir.path()));
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, []);
}

#[test]
fn a_prune_under_the_id_of_an_earlier_one_condemns_before_it_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    for round in 0..2 {
        std::fs::write(dir.path().join("file"), noise(&format!("{round}"), 30_000)).unwrap();
        let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
        std::fs::write(dir.path().join("file"), noise(&format!("new {round}"), 30_000)).unwrap();
        backup(&repository, dir.path()).unwrap();
        forget(&repository, &old.id, true, "test").unwrap();
        let before = packs(&memory);
        let collector = open(memory.clone(), 7).unwrap();
        assert!(prune::run(&collector, &at_once(), &Silent).unwrap().deleted > 0);
        let marked = repository.marked_packs().unwrap();
        for gone in before.difference(&packs(&memory)) {
            let (ObjectName::Pack(name) | ObjectName::Meta(name)) = gone else { continue };
            assert!(marked.contains(name), "round {round}: {gone} was deleted and no mark names it");
        }
    }
}
