//! The backup manager: what is promised about backups, and whether the promise is kept.
//!
//! Pure so far: nothing here reads a clock, the environment or a repository; texts of files are given.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed"))]

pub mod config;
pub mod policy;
pub mod schedule;
