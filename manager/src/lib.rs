//! The backup manager: what is promised about backups, and whether the promise is kept.
//!
//! `config` and `policy` are pure. `run` and `drill` act, on repositories that the caller opens ([`world::World`]); `status`,
//! `compliance` and `assess` judge what is on record. Nothing here reads the environment, and a clock only through the repositories' own.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed"))]

pub mod assess;
pub mod child;
pub mod compliance;
pub mod config;
pub mod drill;
pub mod due;
pub mod metrics;
pub mod notify;
pub mod outcome;
pub mod policy;
pub mod run;
pub mod runbook;
pub mod schedule;
pub mod status;
pub mod world;
