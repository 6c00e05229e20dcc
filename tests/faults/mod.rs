//! The fault harness, tier 1 (`backend::testing::Faulty`): every verb, with every backend operation going wrong in
//! every way, until the verb runs clean; then every verb that comes after, with every operation of it going wrong, on
//! every store the first has left (`strike`). What holds of each is in `judge`.
//!
//! A state is one run of a verb in which a fault struck. CI runs all states of one fault, and one in some of those of two
//! and three; `BULLA_FAULTS=all` runs all of two. Any other text runs the verbs whose name contains it.

mod judge;
mod repairs;
mod strike;
mod verbs;
pub(crate) mod world;

use crate::support::copy_of;
use bulla_engine::Error;
use bulla_engine::backend::testing::{Fault, Faulty};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use strike::{Depth, Sweep, Tally};
use verbs::Scenario;

/// States that CI must reach.
const FLOOR: u64 = 20_000;

#[test]
fn every_verb_meets_every_fault_and_so_does_what_comes_after() {
    let wish = std::env::var("BULLA_FAULTS").unwrap_or_default();
    let depth = if wish == "all" { Depth::All } else { Depth::Ci };
    let only = !wish.is_empty() && wish != "all";
    let mut scenarios = verbs::all();
    scenarios.retain(|s| !only || s.name.contains(&wish));
    let tallies: Vec<Tally> = scenarios.iter().map(|_| Tally::default()).collect();
    let failures = sweep_all(&scenarios, &tallies, depth);
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    let (mut all, mut stores) = ([0; 3], 0);
    for (scenario, tally) in scenarios.iter().zip(&tallies) {
        tally.assert_covered(scenario);
        let states = tally.states();
        let [one, two, three] = states;
        println!("{}: {one} with one fault, {two} with two, {three} with three", scenario.name);
        all.iter_mut().zip(states).for_each(|(sum, n)| *sum += n);
        stores += tally.stores();
    }
    let ([one, two, three], total) = (all, all.iter().sum::<u64>());
    println!(
        "{total} fault states of {} verbs ({one} with one fault, {two} with two, {three} with three), {stores} \
         different stores judged, nothing lost",
        scenarios.len()
    );
    assert!(only || total >= FLOOR, "{total} states");
}

/// Sweeps all of them with all cores; what failed. One failure does not hide the others.
fn sweep_all(scenarios: &[Scenario], tallies: &[Tally], depth: Depth) -> Vec<String> {
    let faults: Vec<Fault> = Fault::ALL.into_iter().chain(Fault::LIES).collect();
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(fault) = faults.get(at / scenarios.len()) else { return };
            let (scenario, tally) = (&scenarios[at % scenarios.len()], &tallies[at % scenarios.len()]);
            let sweep = Sweep { scenario, depth, tally };
            let sweep = || sweep.run(*fault);
            if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(sweep)) {
                let text = panic.downcast_ref::<String>().map_or("a panic", String::as_str);
                failures.lock().unwrap().push(format!("{}, {fault:?}: {text}", scenario.name));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    failures.into_inner().unwrap()
}

#[test]
fn a_backup_on_a_store_that_cannot_keep_its_reserve_puts_nothing() {
    let world = world::World::history(None);
    let memory = copy_of(&world.base);
    let before = memory.snapshot();
    let full = Arc::new(Faulty::new(memory.clone(), 0, Fault::NoSpace));
    let error = world::open(full.clone(), 3).and_then(|r| world::backup(&r, world.path())).unwrap_err();
    assert!(matches!(error, Error::Backend(bulla_engine::backend::BackendError::NoSpace { .. })), "{error}");
    assert_eq!(full.hit(), "reserve the reserve");
    assert_eq!(memory.snapshot(), before);
}
