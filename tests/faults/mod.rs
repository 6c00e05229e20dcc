//! The fault harness, tier 1 (`backend::testing::Faulty`): every verb, with every backend operation going wrong in
//! every way, until the verb runs clean; then every verb that comes after, with every operation of it going wrong, on
//! every store the first has left (`strike`). What holds of each is in `judge`.
//!
//! A state is one run of a verb in which a fault struck. CI runs all states of one fault, and one in some of those of two
//! and three; `BULLA_FAULTS=all` runs all of two. Any other text runs the verbs whose name contains it.

mod judge;
mod strike;
mod verbs;
mod world;

use crate::support::copy_of;
use bulla_engine::Error;
use bulla_engine::backend::testing::{Fault, Faulty};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use strike::{Depth, Tally};

/// States that CI must reach.
const FLOOR: u64 = 20_000;

#[test]
fn every_verb_meets_every_fault_and_so_does_what_comes_after() {
    let wish = std::env::var("BULLA_FAULTS").unwrap_or_default();
    let depth = if wish == "all" { Depth::ALL } else { Depth::CI };
    let mut scenarios = verbs::all();
    let only = !wish.is_empty() && wish != "all";
    scenarios.retain(|s| !only || s.name.contains(&wish));
    let faults: Vec<Fault> = Fault::ALL.into_iter().chain(Fault::LIES).collect();
    let tallies: Vec<Tally> = scenarios.iter().map(|_| Tally::default()).collect();
    // One fault of all verbs, then the next: what is long is spread.
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(fault) = faults.get(at / scenarios.len()) else { return };
                    let verb = at % scenarios.len();
                    // The others go on: one run shows all that fails.
                    let begun = std::time::Instant::now();
                    let sweep = || strike::sweep(&scenarios[verb], *fault, depth, &tallies[verb]);
                    if let Err(panic) = std::panic::catch_unwind(AssertUnwindSafe(sweep)) {
                        let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
                        failures.lock().unwrap().push(text);
                    }
                    println!("TIME {} {fault:?} {:?}", scenarios[verb].name, begun.elapsed());
                }
            });
        }
    });
    let (mut total, mut stores) = (0, 0);
    for (scenario, tally) in scenarios.iter().zip(&tallies) {
        let [one, two, three] = tally.states();
        println!(
            "{}: {one} states, {two} with a second fault, {three} with a third; {} stores",
            scenario.name,
            tally.stores()
        );
        (total, stores) = (total + one + two + three, stores + tally.stores());
    }
    println!(
        "{total} fault states of {} verbs, {stores} different stores judged, nothing lost",
        scenarios.len()
    );
    assert!(only || total >= FLOOR, "{total} states");
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
