//! Deterministic simulation (tier T5): two to four hosts with clocks that are years apart, stand still or jump, type
//! random verbs against one store. The order of their requests, the faults they meet and the jumps of the store's
//! clock follow from a seed. `BULLA_SEEDS=N` runs more of them, `BULLA_SEED=n` replays one and prints its trace.
//!
//! Promised after any seed: what was acknowledged and not forgotten restores; so does what a hold keeps and what
//! undelete brought back; no check finds damage; no verb fails unless a fault, or the protocol, says so; two quiet
//! prunes leave no garbage.
//!
//! What is deterministic: only the host that holds the baton runs, from one request to the next. A verb has threads
//! of its own even at width 1, but in repositories this small one of them works at a time: the producer reads the
//! parent before anything is put, and packs are put only when everything was read, because no run fills a pack
//! (`tests::the_same_seed_is_the_same_run` holds this). Were packs smaller, the uploader's requests and the readers'
//! would race for the baton: still one at a time, but in an order of their own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]
#![allow(clippy::print_stdout, reason = "counts of states and seeds are results")]

mod baton;
mod host;
mod model;
mod random;
#[path = "../support/mod.rs"]
#[allow(dead_code, reason = "shared with the scenarios, which use more of it")]
mod support;

use baton::Stage;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::{InitOptions, Repository};
use host::Host;
use model::{Model, read};
use random::Random;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Seeds of a run without `BULLA_SEEDS`.
const SEEDS: u64 = 1500;

/// A working directory of this process alone: see [`model::Source`].
fn enter() {
    static DIRECTORY: OnceLock<tempfile::TempDir> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        std::env::set_current_dir(dir.path()).unwrap();
        bulla_engine::source::REPEATABLE.store(true, Ordering::SeqCst);
        dir
    });
}

/// An empty repository; every seed begins with a copy.
fn empty() -> Arc<Memory> {
    static BASE: OnceLock<Arc<Memory>> = OnceLock::new();
    let base = BASE.get_or_init(|| {
        let memory = Arc::new(Memory::new());
        let options = InitOptions { data_pack: 1 << 20, meta_pack: 1 << 20, ..support::small() };
        Repository::init(memory.clone(), &options, &support::secret(), support::env(1)).unwrap();
        memory
    });
    support::copy_of(base)
}

/// What one seed came to.
struct Outcome {
    failure: Option<String>,
    trace: String,
    steps: u64,
    counts: BTreeMap<String, u64>,
}

fn simulate(seed: u64, want_trace: bool) -> Outcome {
    enter();
    let mut random = Random::new(seed, 0);
    let hosts = 2 + random.below(3) as usize;
    let stage = Stage::new(empty(), hosts, Random::new(seed, 1));
    let model = Arc::new(Mutex::new(Model::default()));
    let directory = PathBuf::from(format!("seed-{seed}"));
    // Two machines of one name; or one that is a clone of another, down to its entropy.
    let (twins, clones) = (random.one_in(8), random.one_in(16));
    std::thread::scope(|scope| {
        for number in 0..hosts {
            let machine = if (twins || clones) && number == 1 { 0 } else { number };
            let entropy = if clones && number == 1 { 0 } else { number };
            let host = Host::new(number, seed, machine, entropy, stage.clone(), model.clone(), &directory);
            let verbs = 2 + random.below(5);
            scope.spawn(move || host.run(verbs));
        }
    });
    let model = model.lock().unwrap_or_else(PoisonError::into_inner);
    let mut failure = stage.failure();
    if failure.is_none() {
        let quiet = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| settle(&stage, &model)));
        failure = quiet.unwrap_or_else(|_| Err("a panic at the end".into())).err();
    }
    std::fs::remove_dir_all(&directory).unwrap();
    let trace = if want_trace || failure.is_some() { stage.trace() } else { String::new() };
    Outcome { failure, trace, steps: stage.steps(), counts: model.counts.clone() }
}

/// All hosts are gone. Everything promised is there, two quiet prunes leave no garbage, and still is.
fn settle(stage: &Stage, model: &Model) -> Result<(), String> {
    let memory = &stage.memory;
    let repository = support::open(memory.clone(), 9_000).map_err(|e| format!("it does not open: {e}"))?;
    kept(&repository, model, "before the last prunes")?;
    // A clock that was set back keeps things longer, until it has caught up.
    memory.advance(1 << 32);
    let quiet =
        PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
    let prune = || prune::run(&repository, &quiet, &Silent).map_err(|e| format!("a quiet prune fails: {e}"));
    let (first, second) = (prune()?, prune()?);
    let third = prune()?;
    if third.deleted > 0 || third.plan.unused() > 0 || !third.left.is_empty() || third.lost_chunks > 0 {
        return Err(format!(
            "garbage after two quiet prunes: {third:#?}\n after {first:#?}\n and {second:#?}"
        ));
    }
    if !memory.list(Area::Announcements).map_err(|e| e.to_string())?.is_empty() {
        return Err("announcements after two quiet prunes".into());
    }
    let listed: u64 = third.plan.keep.len() as u64;
    let there =
        memory.snapshot().keys().filter(|n| matches!(n, ObjectName::Pack(_) | ObjectName::Meta(_))).count();
    if listed != there as u64 {
        return Err(format!("{there} packs, of which {listed} are accounted for"));
    }
    kept(&repository, model, "after the last prunes")
}

/// Every promise that binds restores, and `check` finds nothing.
fn kept(repository: &Repository, model: &Model, when: &str) -> Result<(), String> {
    let listed = repository.snapshots().map_err(|e| format!("{when}: {e}"))?;
    let index = repository.open_index().map_err(|e| format!("{when}: {e}"))?;
    for (id, promise) in &model.promises {
        if promise.forgotten && listed.iter().any(|s| s.id == *id) {
            return Err(format!("{when}: {} was forgotten and is listed", id.short()));
        }
        if !promise.binds() {
            continue;
        }
        if !promise.doomed && !listed.iter().any(|s| s.id == *id) {
            return Err(format!("{when}: {} is not listed", id.short()));
        }
        match read(repository, &index, promise.tree) {
            Ok(contents) if contents == promise.contents => {}
            Ok(_) => return Err(format!("{when}: {} restores other bytes", id.short())),
            Err(e) => return Err(format!("{when}: {} does not restore: {e}", id.short())),
        }
    }
    let report = check::run(
        repository,
        &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() },
        &Silent,
    )
    .map_err(|e| format!("{when}: check fails: {e}"))?;
    if report.findings.is_empty() { Ok(()) } else { Err(format!("{when}: {:?}", report.findings)) }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn seeds() {
    if let Some(seed) = number("BULLA_SEED") {
        let outcome = simulate(seed, true);
        println!("{}", outcome.trace);
        assert_eq!(outcome.failure, None, "seed {seed}");
        return;
    }
    let (seeds, started) = (number("BULLA_SEEDS").unwrap_or(SEEDS), std::time::Instant::now());
    let (next, steps) = (AtomicU64::new(0), AtomicU64::new(0));
    let counts: Mutex<BTreeMap<String, u64>> = Mutex::default();
    let failures: Mutex<Vec<String>> = Mutex::default();
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= seeds || failures.lock().unwrap().len() >= 5 {
                return;
            }
            let outcome = simulate(seed, false);
            steps.fetch_add(outcome.steps, Ordering::SeqCst);
            let mut counts = counts.lock().unwrap();
            outcome.counts.into_iter().for_each(|(what, n)| *counts.entry(what).or_default() += n);
            if let Some(failure) = outcome.failure {
                println!("{}seed {seed}: {failure}\n(BULLA_SEED={seed} replays it)", outcome.trace);
                failures.lock().unwrap().push(format!("seed {seed}: {failure}"));
            }
        }
    };
    let width = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| (0..width).for_each(|_| drop(scope.spawn(work))));
    for (what, n) in counts.into_inner().unwrap() {
        println!("{n:8} {what}");
    }
    let failures = failures.into_inner().unwrap();
    let seconds = started.elapsed().as_secs();
    println!("{seeds} seeds, {} requests, {} failures, {seconds} s", steps.into_inner(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 1_000_000..1_000_040 {
        let (one, two) = (simulate(seed, true), simulate(seed, true));
        if one.trace != two.trace {
            let differ = one.trace.lines().zip(two.trace.lines()).position(|(a, b)| a != b).unwrap_or(0);
            let around =
                |t: &str| t.lines().skip(differ.saturating_sub(8)).take(12).collect::<Vec<_>>().join("\n");
            panic!("seed {seed}, line {differ}:\n{}\n--\n{}", around(&one.trace), around(&two.trace));
        }
    }
}
