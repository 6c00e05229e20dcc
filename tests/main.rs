//! Scenario tests: whole verbs against memory, faulty and real stores. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]

mod crash;
mod damage;
mod features;
mod gaps;
mod incremental;
mod moving;
mod parity;
mod protocol;
mod support;
mod tidy;
