//! Runs a verb with one fault at each operation, and on each store that leaves, what comes after it with another.

use super::judge::{digest, judge, judge_torn};
use super::verbs::{Scenario, committed};
use super::world::{backup, env_of, open, pruned};
use crate::support::{copy_of, secret};
use bulla_engine::backend::testing::{Fault, Faulty, Recorder};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::repository::Repository;
use bulla_engine::{Error, Result};
use std::collections::{BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// How many sweeps with a second fault, and with a third, are done.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    /// All with a second, a few with a third.
    All,
    /// The verb's share of those with a second, a few with a third.
    Ci,
}

/// Of the sweeps with a third fault that a verb's share would be, one in so many.
const THIRD: u64 = 12;

impl Depth {
    /// The same ones in each run.
    fn takes(self, scenario: &Scenario, faults: usize, what: &str) -> bool {
        let one_in = match (self, faults) {
            (Self::All, 1) => 1,
            (Self::Ci, 1) => scenario.share,
            (_, 2) => scenario.share * THIRD,
            _ => return false,
        };
        let hash = blake3::hash(format!("{}: {what}", scenario.name).as_bytes());
        hash.as_bytes().iter().take(6).fold(0, |n, byte| n << 8 | u64::from(*byte)) % one_in == 0
    }
}

/// What a verb has been through.
#[derive(Default)]
pub(super) struct Tally {
    states: [AtomicU64; 3],
    /// Stores that were judged.
    seen: Mutex<HashSet<[u8; 32]>>,
    /// What was struck by the first fault: `method area`.
    struck: Mutex<BTreeSet<(Fault, String)>>,
}

impl Tally {
    /// By the number of faults.
    pub(super) fn states(&self) -> [u64; 3] {
        self.states.each_ref().map(|n| n.load(Ordering::Relaxed))
    }

    pub(super) fn stores(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn is_new(&self, memory: &Memory) -> bool {
        self.seen.lock().unwrap().insert(digest(memory))
    }

    /// Every call of a clean run was struck in each way it can be.
    pub(super) fn assert_covered(&self, scenario: &Scenario) {
        let recorder = Arc::new(Recorder::new(copy_of(&scenario.world.base)));
        (scenario.verb)(&scenario.world, recorder.clone(), 3).unwrap();
        let struck = self.struck.lock().unwrap();
        for call in recorder.take().into_keys() {
            let method = call.split(' ').next().unwrap();
            for fault in Fault::ALL.into_iter().chain(Fault::LIES).filter(|f| f.strikes(method)) {
                assert!(
                    struck.contains(&(fault, call.clone())),
                    "{}: {call} never met {fault:?}",
                    scenario.name
                );
            }
        }
    }
}

/// What was hit, as a [`Recorder`] calls it.
fn call(hit: &str) -> String {
    let (method, object) = hit.split_once(' ').unwrap();
    match method {
        "flush" | "settle" | "reserve" => method.to_owned(),
        _ => format!("{method} {}", object.split('/').next().unwrap()),
    }
}

/// A run in which a fault struck.
struct Met {
    memory: Arc<Memory>,
    outcome: Result<()>,
    hit: String,
}

/// Runs `work` on a copy of `base` with a fault at operation `at`; `None` if there is no such operation.
fn meet(
    base: &Memory,
    fault: Fault,
    at: u64,
    clean: &str,
    work: &dyn Fn(Arc<dyn Backend>) -> Result<()>,
) -> Option<Met> {
    let memory = copy_of(base);
    let faulty = Arc::new(Faulty::new(memory.clone(), at, fault));
    let outcome = work(faulty.clone());
    if !faulty.struck() {
        match outcome {
            Ok(()) | Err(Error::Refused(_) | Error::RepositoryExists { .. } | Error::WrongSecret { .. }) => {
                return None;
            }
            Err(e) => panic!("{clean}, clean: {e}"),
        }
    }
    Some(Met { memory, outcome, hit: faulty.hit() })
}

/// A verb that meets one fault at every operation, and what comes after it others.
pub(super) struct Sweep<'s> {
    pub(super) scenario: &'s Scenario,
    pub(super) depth: Depth,
    pub(super) tally: &'s Tally,
}

impl Sweep<'_> {
    /// With `fault` first.
    pub(super) fn run(&self, fault: Fault) {
        let (scenario, tally) = (self.scenario, self.tally);
        let Scenario { name, world, .. } = scenario;
        for at in 0.. {
            let verb = |backend| (scenario.verb)(world, backend, 3);
            let Some(met) = meet(&world.base, fault, at, name, &verb) else { return };
            tally.states[0].fetch_add(1, Ordering::Relaxed);
            tally.struck.lock().unwrap().insert((fault, call(&met.hit)));
            let path = format!("{fault:?} at {at}");
            let context = format!("{name}: {path}, {}", met.hit);
            // Who believes a listing cannot do what it hides.
            let lied = matches!(fault, Fault::Empty | Fault::Half | Fault::Absent);
            look(scenario, &met, &context, !(lied && scenario.believes));
            if scenario.reads {
                assert!(met.memory.snapshot() == world.base.snapshot(), "{context}: it wrote");
            } else if fault == Fault::Torn {
                judge_torn(world, &met.memory, &met.hit, &context);
            } else if tally.is_new(&met.memory) {
                judge(world, &met.memory, &context);
                if Fault::ALL.contains(&fault) {
                    again(self, &met.memory, 1, &path);
                }
            }
        }
    }
}

/// What a success promised, and what holds whatever happened.
fn look(scenario: &Scenario, met: &Met, context: &str, promised: bool) {
    match &met.outcome {
        Ok(()) if promised => (scenario.done)(&scenario.world, &met.memory, context),
        Err(Error::Format(e)) => panic!("{context}: a fault is no format error: {e}"),
        _ => {}
    }
    (scenario.always)(&scenario.world, &met.memory, context);
}

/// What may come after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum After {
    Again,
    Prune,
    Backup,
}

/// What comes after a fault meets one of its own. `path` is how `base` came to be.
fn again(sweep: &Sweep<'_>, base: &Arc<Memory>, faults: usize, path: &str) {
    let (scenario, seed) = (sweep.scenario, 3 + faults as u64);
    let made = !scenario.world.unmade || Repository::open(base.clone(), &secret(), env_of(500)).is_ok();
    for after in [After::Again, After::Prune, After::Backup] {
        // A repository that was never made can only be made, and a damaged one is put right first.
        if after != After::Again && (!made || scenario.world.mend.is_some()) {
            continue;
        }
        let work = |backend: Arc<dyn Backend>| match after {
            After::Again => (scenario.verb)(&scenario.world, backend, seed),
            After::Prune => open(backend, seed).and_then(|r| pruned(&r)),
            After::Backup => open(backend, seed).and_then(|r| backup(&r, scenario.world.path()).map(drop)),
        };
        for fault in Fault::ALL {
            let path = format!("{path}, then {after:?} {fault:?}");
            if !sweep.depth.takes(scenario, faults, &path) {
                continue;
            }
            for at in 0.. {
                let path = format!("{path} at {at}");
                let Some(met) = meet(base, fault, at, &path, &work) else { break };
                sweep.tally.states[faults].fetch_add(1, Ordering::Relaxed);
                let context = format!("{}: {path}, {}", scenario.name, met.hit);
                look(scenario, &met, &context, after == After::Again);
                if after == After::Backup && met.outcome.is_ok() {
                    committed(&scenario.world, &met.memory, &context);
                }
                if sweep.tally.is_new(&met.memory) {
                    judge(&scenario.world, &met.memory, &context);
                    again(sweep, &met.memory, faults + 1, &path);
                }
            }
        }
    }
}
