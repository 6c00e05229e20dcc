//! Transcripts a user could have typed, each in a home of its own.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod bad_input;
mod codes;
mod fidelity;
mod help;
mod home;
mod json;
mod kill;
mod names;
mod options;
mod parity;
mod quick_start;
mod repair;
mod restore;
mod retention;
mod rollback;
mod secrets;
mod sources;
