//! The speed guard: each piece of the hot path against the plainest program that does the same, in this very run.
//!
//! `cargo run --release -p bulla-benches --bin guard [-- --prove] [NAME…]`
//!
//! What is compared is processor time, the smallest of several interleaved turns, so that a busy machine disturbs both
//! sides and neither. No absolute time decides anything. A limit is the ratio an idle machine shows and 5 per cent; a piece
//! above it is measured again, a few times, because noise goes away and slowness does not. `--prove` spends a tenth more
//! processor time in each turn of ours and demands that every limit notices.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for developers: it prints, and a failed assumption stops it"
)]

mod data;
mod format;
mod verbs;

use rustix::time::{ClockId, clock_gettime};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// One piece of the hot path and its reference.
pub(crate) struct Case {
    /// What it is called.
    pub(crate) name: &'static str,
    /// What it is compared with.
    pub(crate) reference: &'static str,
    /// The largest allowed ratio of processor times.
    pub(crate) at_most: f64,
    /// Our way, once.
    pub(crate) ours: Box<dyn FnMut()>,
    /// The plain way, once.
    pub(crate) plain: Box<dyn FnMut()>,
}

/// Turns of a case: at least this many, and more while they are cheap.
const TURNS_MIN: usize = 5;
const TURNS_MAX: usize = 40;
const CASE_TIME: Duration = Duration::from_millis(2500);
/// How often a piece that looks slow is measured again.
const ATTEMPTS: usize = 5;

/// Processor time of the whole process, all threads, user and system.
fn processor_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap())
}

fn timed(work: &mut dyn FnMut()) -> Duration {
    let before = processor_time();
    work();
    processor_time() - before
}

/// As [`timed`], and a tenth more, really spent.
fn timed_and_a_tenth(work: &mut dyn FnMut()) -> Duration {
    let before = processor_time();
    work();
    let enough = (processor_time() - before) * 11 / 10;
    while processor_time() - before < enough {
        std::hint::spin_loop();
    }
    processor_time() - before
}

/// The smallest processor times of ours and the reference, in interleaved turns.
fn measure(case: &mut Case, ours_timed: fn(&mut dyn FnMut()) -> Duration) -> (Duration, Duration) {
    timed(&mut case.plain);
    timed(&mut case.ours);
    let (start, mut ours, mut plain) = (Instant::now(), Duration::MAX, Duration::MAX);
    for turn in 0..TURNS_MAX {
        if turn >= TURNS_MIN && start.elapsed() > CASE_TIME {
            break;
        }
        plain = plain.min(timed(&mut case.plain));
        ours = ours.min(ours_timed(&mut case.ours));
    }
    (ours, plain)
}

fn ratio((ours, plain): (Duration, Duration)) -> f64 {
    ours.as_secs_f64() / plain.as_secs_f64()
}

/// The times of the attempt with the best ratio; more attempts only while the piece looks slow. Each makes its data anew,
/// because where they come to lie decides some per cent.
fn judge(
    make: &fn() -> Case,
    mut case: Case,
    ours_timed: fn(&mut dyn FnMut()) -> Duration,
) -> (Duration, Duration) {
    let mut best = measure(&mut case, ours_timed);
    for _ in 1..ATTEMPTS {
        if ratio(best) <= case.at_most {
            break;
        }
        case = make();
        let again = measure(&mut case, ours_timed);
        if ratio(again) < ratio(best) {
            best = again;
        }
    }
    best
}

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let prove = flags.iter().any(|f| f == "--prove");
    let mut failed = 0;
    println!("{:<22} {:>9} {:>9} {:>6} {:>6}", "piece", "ours ms", "plain ms", "ratio", "limit");
    for make in format::CASES.iter().chain(verbs::CASES) {
        let case = make();
        if !names.is_empty() && !names.iter().any(|n| n == case.name) {
            continue;
        }
        let (name, reference, at_most) = (case.name, case.reference, case.at_most);
        let (ours, plain) = judge(make, case, if prove { timed_and_a_tenth } else { timed });
        let ratio = ratio((ours, plain));
        let slow = ratio > at_most;
        let verdict = if slow { "  SLOW" } else { "" };
        let (ours, plain) = (ours.as_secs_f64() * 1e3, plain.as_secs_f64() * 1e3);
        println!("{name:<22} {ours:>9.2} {plain:>9.2} {ratio:>6.2} {at_most:>6.2}  vs {reference}{verdict}");
        failed += usize::from(slow != prove);
    }
    match (failed, prove) {
        (0, _) => ExitCode::SUCCESS,
        (n, false) => {
            println!("{n} slower than allowed");
            ExitCode::FAILURE
        }
        (n, true) => {
            println!("{n} limits would not notice a tenth more work");
            ExitCode::FAILURE
        }
    }
}
