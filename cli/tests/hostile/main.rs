//! Repositories made by hand to do harm, with valid keys: each is read by every command that reads, in a process of its
//! own. What must hold of all of them is in `oracle`; what a case expects beyond that stands with the case.
//!
//! One test runs them one after another, because the memory of a child shows only as the most that any child took.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures for the ledger")]

mod content;
mod forge;
#[path = "../home.rs"]
#[allow(dead_code, reason = "shared with the transcripts, which use all of it")]
mod home;
mod indexes;
mod links;
mod names;
mod objects;
mod oracle;
mod packs;
mod spell;
mod trees;

use oracle::{Case, Figures, MEMORY_MAX, try_case};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Cases that must be there at least.
const LEAST: usize = 300;
/// Cases that take longer are named.
const SLOW: Duration = Duration::from_secs(5);

fn cases() -> Vec<Case> {
    [
        names::cases(),
        links::cases(),
        trees::cases(),
        content::cases(),
        packs::cases(),
        indexes::cases(),
        objects::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `BULLA_HOSTILE=all` runs also those that take long, any other word those with it in their name.
#[test]
fn hostile_repositories_do_no_harm() {
    let all = cases();
    let names: BTreeSet<&str> = all.iter().map(|c| c.name).collect();
    assert_eq!(names.len(), all.len(), "two cases of one name");
    assert!(all.len() >= LEAST, "{} cases", all.len());
    let only = std::env::var("BULLA_HOSTILE").unwrap_or_default();
    let (mut figures, mut run) = (Figures::default(), 0);
    // Those that may take more come last: the peak of the others is theirs alone.
    let chosen = |c: &&Case| match only.as_str() {
        "" => !c.long,
        "all" => true,
        word => c.name.contains(word),
    };
    let (plain, costly): (Vec<_>, Vec<_>) = all.iter().filter(chosen).partition(|c| c.argon2 == 0);
    for case in plain {
        let (began, failed) = (Instant::now(), figures.failures.len());
        try_case(case, &mut figures);
        run += 1;
        if began.elapsed() > SLOW || figures.failures.len() > failed {
            println!("{}: {:?}, {:?}", case.name, began.elapsed(), &figures.failures[failed..]);
        }
    }
    let peak = figures.peak;
    for case in costly {
        try_case(case, &mut figures);
        run += 1;
    }
    println!(
        "{run} hostile repositories, {} commands; the most memory {} MiB (with Argon2 as the slot asks {} MiB), the slowest {:?} ({})",
        figures.commands,
        peak >> 20,
        figures.peak >> 20,
        figures.slowest.0,
        figures.slowest.1,
    );
    assert!(figures.failures.is_empty(), "\n{}", figures.failures.join("\n"));
    assert!(peak < MEMORY_MAX);
}
