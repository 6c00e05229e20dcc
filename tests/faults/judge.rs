//! What must hold of a store after any fault. Equal stores of one world are judged once.
//!
//! I1 what was acknowledged restores identical · I2 no success on loss · I3 nothing older is harmed · I4 success means
//! durable · I5 the next command needs no help · I6 two quiet prunes leave no garbage.

use super::world::{World, at_once, backup, open, pruned};
use crate::support::{contents_through, copy_of};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::Area;
use bulla_engine::observer::Silent;
use bulla_engine::prune;
use bulla_engine::repository::Repository;
use std::sync::Arc;

/// Names and bytes of all objects.
pub(super) fn digest(memory: &Memory) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for (name, bytes) in memory.snapshot() {
        hasher.update(name.to_string().as_bytes()).update(&bytes.len().to_le_bytes()).update(&bytes);
    }
    *hasher.finalize().as_bytes()
}

fn read_all() -> CheckOptions {
    CheckOptions { read_data: ReadData::All, ..CheckOptions::default() }
}

/// Every snapshot that must be there is, and every one that is there is what it should be.
fn restores(world: &World, repository: &Repository, context: &str) {
    let listed = repository.snapshots().unwrap_or_else(|e| panic!("I1 I5: {context}: {e}"));
    for (snapshot, _) in &world.alive {
        assert!(listed.contains(snapshot), "I1 I3: {context}: {} is lost", snapshot.id);
    }
    let index = repository.open_index().unwrap_or_else(|e| panic!("I1 I5: {context}: {e}"));
    for snapshot in &listed {
        let restored = contents_through(repository, &index, snapshot);
        let restored = restored.unwrap_or_else(|e| panic!("I1 I3: {context}: {e}"));
        assert_eq!(&restored, world.expected(snapshot), "I1 I2 I3: {context}");
    }
}

fn sound(repository: &Repository, context: &str) {
    assert_eq!(check::run(repository, &read_all(), &Silent).unwrap().findings, [], "I3: {context}");
}

/// All that must hold of what a fault has left behind, and of what the next commands make of it.
pub(super) fn judge(world: &World, memory: &Arc<Memory>, context: &str) {
    let memory = &copy_of(memory);
    if let Some(mend) = &world.mend {
        mend(world, memory).unwrap_or_else(|e| panic!("I5: mend: {context}: {e}"));
    }
    let repository = world.opened(memory, 1000, context);
    restores(world, &repository, context);
    sound(&repository, context);
    // The next commands work without help, and two prunes leave what one clean history would.
    let repository = open(memory.clone(), 2000).unwrap();
    let next = backup(&repository, world.path()).unwrap_or_else(|e| panic!("I5: backup: {context}: {e}"));
    for _ in 0..2 {
        pruned(&repository).unwrap_or_else(|e| panic!("I5: prune: {context}: {e}"));
    }
    let third = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!((third.deleted, third.plan.unused()), (0, 0), "I6: {context}");
    assert!(third.left.is_empty(), "I6: {context}: {:?}", third.left);
    assert!(memory.list(Area::Announcements).unwrap().is_empty(), "I6: {context}");
    assert!(repository.snapshots().unwrap().contains(&next), "I1 I4: {context}");
    restores(world, &repository, context);
    sound(&repository, context);
}

/// A store that broke its contract has half of an object and is used all the same: nothing is lost, and nothing is made of
/// what cannot be read. Without it, everything is as ever.
pub(super) fn judge_torn(world: &World, memory: &Arc<Memory>, hit: &str, context: &str) {
    let (method, torn) = hit.split_once(' ').unwrap();
    // What was healed by halves is healed again.
    if method == "heal" {
        return judge(world, memory, context);
    }
    let found = memory.snapshot().into_keys().find(|n| n.to_string() == torn);
    let name = found.unwrap_or_else(|| panic!("{context}: {torn} is not there"));
    let copy = copy_of(memory);
    if !world.unmade && world.mend.is_none() {
        let repository = open(copy.clone(), 1000).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        let index = repository.open_index().unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        for (snapshot, expected) in &world.alive {
            let restored = contents_through(&repository, &index, snapshot);
            let restored = restored.unwrap_or_else(|e| panic!("I1 I3: {context}: {e}"));
            assert_eq!(&restored, expected, "I1 I3: {context}");
        }
        let report = check::run(&repository, &read_all(), &Silent);
        let told = report.map_or(true, |r| !r.findings.is_empty() || !r.notices.is_empty());
        // Sidecars are looked at by who heals.
        assert!(told || name.area() == Area::Parity, "I4: {context}: check says nothing");
        // They may refuse; they must not make it worse.
        let _ = backup(&repository, world.path());
        let _ = pruned(&repository);
    }
    copy.overwrite(name, None);
    judge(world, &copy, &format!("{context}, then deleted"));
}
