//! Transcripts a user could have typed, each in a home of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod codes;
mod fidelity;
mod help;
mod home;
mod json;
mod kill;
mod names;
mod parity;
mod quick_start;
mod restore;
mod secrets;
mod sources;
