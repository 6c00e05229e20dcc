//! Stores against real servers.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]
#![allow(clippy::print_stdout, reason = "tests say what they skipped")]

mod answers;
mod rest;
mod sftp;
