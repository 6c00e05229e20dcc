//! Scenario tests: whole verbs against memory, faulty and real stores. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]
#![allow(clippy::print_stdout, reason = "tests say how much they covered")]

mod beside;
mod bits;
mod catalogue;
mod clones;
mod collectors;
mod copy;
mod crash;
mod damage;
mod distant;
mod faults;
mod features;
mod find;
mod forged;
mod gaps;
mod incremental;
mod large;
mod manager;
mod moving;
mod nonces;
mod parity;
mod passing;
mod protocol;
mod prune;
mod remote;
mod repair;
mod restore;
mod resume;
mod retain;
mod rotation;
mod several;
mod support;
mod tidy;
mod unsynced;
mod width;
