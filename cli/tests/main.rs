//! Transcripts a user could have typed, each in a home of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, reason = "figures for the ledger")]

mod bad_input;
mod beside;
mod codes;
mod config;
mod content;
mod copy;
mod databases;
mod destinations;
mod drills;
mod fidelity;
mod find;
mod full;
mod help;
mod home;
mod hosts;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod inject;
mod jobs;
mod json;
mod kill;
mod manager;
mod metrics;
mod names;
mod notify;
mod options;
mod others;
mod parity;
mod policy;
mod quick_start;
mod remote;
mod repair;
mod reports;
mod rescue_kit;
mod restore;
mod retention;
mod rollback;
mod schedule;
mod secrets;
mod sources;
mod ssh;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod stopped;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tracer;
mod upkeep;
