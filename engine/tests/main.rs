//! The source against real trees: what the walk gives, and how files are read. Needs no repository; whole verbs are
//! tested in `tests/`. One binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]

mod read;
mod walk;
