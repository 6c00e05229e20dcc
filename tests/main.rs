//! Scenario tests: whole verbs against memory, faulty and real stores. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]
#![allow(clippy::print_stdout, reason = "counts of states and seeds are results")]

mod beside;
mod clones;
mod crash;
mod damage;
mod faults;
mod features;
mod gaps;
mod incremental;
mod moving;
mod protocol;
mod prune;
mod support;
mod tidy;
mod unsynced;
