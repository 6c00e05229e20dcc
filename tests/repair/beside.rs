//! Repair among others, and behind repairs that died: whatever could be restored can be restored after.

use super::*;
use crate::beside::Interposed;
use bulla_engine::backend::testing::{Fault, Faulty};
use std::sync::Mutex;

/// `other` happens before each request of each verb in turn.
fn beside(what: &str, other: fn(&Arc<Memory>, &World), must_succeed: bool) {
    let world = Arc::new(World::history(None));
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    let before = unforgotten(&open(base.clone(), 6).unwrap());
    let mut states = 0;
    for (name, verb) in verbs(&copy) {
        for at in 0.. {
            let memory = copy_of(&base);
            let (store, world) = (memory.clone(), world.clone());
            let store = Interposed::new(memory.clone(), at, move || other(&store, &world));
            let context = format!("{what} before request {at} of repair {name}");
            match open(store.clone(), 70).and_then(|r| verb(&r)) {
                Err(e) if must_succeed => panic!("{context}: {e}"),
                _ => {}
            }
            judge(&memory, &before, &context);
            states += 1;
            if !store.struck() {
                break;
            }
        }
    }
    println!("{what}: {states} states");
}

#[test]
fn a_prune_that_expires_the_repair_it_meets() {
    beside("a prune", |memory, _| prunes(memory), true);
}

#[test]
fn a_backup_inside_a_repair() {
    let other = |memory: &Arc<Memory>, world: &World| {
        backup(&open(memory.clone(), 51).unwrap(), world.path()).unwrap();
    };
    beside("a backup", other, true);
}

#[test]
fn a_repair_inside_a_repair() {
    let other = |memory: &Arc<Memory>, _: &World| {
        let empty = Arc::new(Memory::new());
        for (_, verb) in verbs(&empty) {
            let _ = verb(&open(memory.clone(), 52).unwrap());
        }
    };
    beside("all repairs", other, true);
}

/// A whole repair happens before each request of `outer`; what a backup acknowledged then restores.
fn inside(what: &str, outer: impl Fn(&Repository, &World) -> Result<Option<Snapshot>>) {
    let world = World::history(None);
    // Both packs are marked or found in the middle; what the outer verb meets first is a store that looks sound.
    let (base, copy) = (damaged(&world), copy_of(&world.base));
    let before = unforgotten(&open(base.clone(), 6).unwrap());
    for (name, verb) in verbs(&copy) {
        for at in 0.. {
            let memory = copy_of(&base);
            let done = Arc::new(Mutex::new(None));
            let hook = {
                let (memory, verb, done) = (memory.clone(), verb.clone(), done.clone());
                move || *done.lock().unwrap() = Some(verb(&open(memory.clone(), 71).unwrap()))
            };
            let store = Interposed::new(memory.clone(), at, hook);
            let context = format!("repair {name} before request {at} of {what}");
            let outcome = open(store.clone(), 72).and_then(|r| outer(&r, &world));
            if let Some(Err(e)) = done.lock().unwrap().take() {
                panic!("{context}: {e}");
            }
            let mut before = before.clone();
            match outcome {
                Ok(Some(snapshot)) => {
                    // What it shares with a pack that was damaged before is not its fault; the rest is promised.
                    let now = all_restorable(&open(memory.clone(), 73).unwrap());
                    before.insert(snapshot.id, now.get(&snapshot.id).cloned().unwrap_or_default());
                    if name == "packs --from" && store.struck() {
                        let restored = contents(&open(memory.clone(), 74).unwrap(), &snapshot);
                        assert_eq!(restored.unwrap(), on_disk(world.path()), "{context}");
                    }
                }
                Ok(None) => {}
                Err(e) => assert!(e.is_damage() || matches!(e, Error::Refused(_)), "{context}: {e}"),
            }
            judge(&memory, &before, &context);
            if !store.struck() {
                break;
            }
        }
    }
}

#[test]
fn a_repair_inside_a_prune() {
    inside("a prune", |r, _| prune::run(r, &at_once(), &Silent).map(|_| None));
}

#[test]
fn a_repair_inside_a_backup() {
    inside("a backup", |r, world| backup(r, world.path()).map(|report| report.snapshot));
}

/// Catalogue: borg #5325 (an interrupted repair lost data): a crash in the repair of a crash.
#[test]
fn a_repair_that_was_stopped_and_stopped_again() {
    let world = World::history(None);
    let base = damaged(&world);
    let before = unforgotten(&open(base.clone(), 6).unwrap());
    let empty = Arc::new(Memory::new());
    for (name, verb) in verbs(&empty).into_iter().filter(|(name, _)| *name != "packs --from") {
        let mut first = 0;
        loop {
            let memory = copy_of(&base);
            let faulty = Arc::new(Faulty::new(memory.clone(), first, Fault::Forever));
            let _ = open(faulty.clone(), 3).and_then(|r| verb(&r));
            if !faulty.struck() {
                break;
            }
            for second in (first % 5..).step_by(5) {
                let memory = copy_of(&memory);
                let again = Arc::new(Faulty::new(memory.clone(), second, Fault::AfterEffect));
                let _ = open(again.clone(), 4).and_then(|r| verb(&r));
                let context = format!("repair {name} stopped at {first} and again at {second}");
                assert_no_less(&before, &all_restorable(&open(memory.clone(), 5).unwrap()), &context);
                if !again.struck() {
                    verb(&open(memory.clone(), 8).unwrap()).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
                    judge(&memory, &before, &context);
                    break;
                }
            }
            first += 4;
        }
    }
}
