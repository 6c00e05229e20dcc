//! Scenario tests: whole verbs against memory, faulty and real stores. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]
#![allow(clippy::print_stdout, reason = "figures of what was covered")]

mod beside;
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
