//! Restores from a small repository in memory: fidelity, existing targets, damage, and attempts to get out.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]

mod damage;
mod existing;
mod fidelity;
mod hostile;
mod support;
