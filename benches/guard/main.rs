//! The speed guard: each piece of the hot path against the plainest program that does the same, in this very run.
//!
//! `cargo run --release -p bulla-benches --bin guard [-- --prove] [NAME…]`
//!
//! What is compared is processor time, the smallest of several interleaved turns, so that a busy machine disturbs both
//! sides and neither. No absolute time decides anything. `--prove` does each piece of ours twice and demands that every
//! threshold is tight enough to notice.

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
const TURNS_MAX: usize = 25;
const CASE_TIME: Duration = Duration::from_millis(2500);

/// Processor time of the whole process, all threads, user and system.
fn processor_time() -> Duration {
    let t = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap())
}

fn timed(work: &mut dyn FnMut(), times: usize) -> Duration {
    let before = processor_time();
    (0..times).for_each(|_| work());
    processor_time() - before
}

/// The smallest processor times of ours (`times` in a row) and the reference, in interleaved turns.
fn measure(case: &mut Case, times: usize) -> (Duration, Duration) {
    timed(&mut case.plain, 1);
    timed(&mut case.ours, 1);
    let (start, mut ours, mut plain) = (Instant::now(), Duration::MAX, Duration::MAX);
    for turn in 0..TURNS_MAX {
        if turn >= TURNS_MIN && start.elapsed() > CASE_TIME {
            break;
        }
        plain = plain.min(timed(&mut case.plain, 1));
        ours = ours.min(timed(&mut case.ours, times));
    }
    (ours, plain)
}

fn main() -> ExitCode {
    let (flags, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|a| a.starts_with("--"));
    let prove = flags.iter().any(|f| f == "--prove");
    let mut failed = 0;
    println!("{:<22} {:>9} {:>9} {:>6} {:>6}", "piece", "ours ms", "plain ms", "ratio", "limit");
    for make in format::CASES.iter().chain(verbs::CASES) {
        let mut case = make();
        if !names.is_empty() && !names.iter().any(|n| n == case.name) {
            continue;
        }
        let (ours, plain) = measure(&mut case, if prove { 2 } else { 1 });
        let ratio = ours.as_secs_f64() / plain.as_secs_f64();
        let slow = ratio > case.at_most;
        let verdict = if slow { "  SLOW" } else { "" };
        let (ours, plain) = (ours.as_secs_f64() * 1e3, plain.as_secs_f64() * 1e3);
        println!(
            "{:<22} {ours:>9.2} {plain:>9.2} {ratio:>6.2} {:>6.2}  vs {}{verdict}",
            case.name, case.at_most, case.reference
        );
        failed += usize::from(slow != prove);
    }
    match (failed, prove) {
        (0, _) => ExitCode::SUCCESS,
        (n, false) => {
            println!("{n} slower than allowed");
            ExitCode::FAILURE
        }
        (n, true) => {
            println!("{n} thresholds would not notice twice the work");
            ExitCode::FAILURE
        }
    }
}
