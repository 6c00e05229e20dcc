//! bulla's engine: verbs on a repository. It never prints, never reads environment, home directory or arguments;
//! clock and entropy are passed in ([`env::Env`]), facts come out through an [`observer::Observer`].
#![deny(missing_docs)]

pub mod backend;
pub mod backup;
pub mod browse;
pub mod check;
pub mod chunker;
pub mod copy;
pub mod env;
mod error;
pub mod evidence;
pub mod find;
#[cfg(test)]
mod fixture;
pub mod forget;
pub mod observer;
pub mod parity;
pub mod protocol;
pub mod prune;
pub mod repair;
pub mod repository;
pub mod restore;
pub mod retain;
pub mod retention;
pub mod source;

pub use bulla_repo_format as format;
pub use error::{Error, Result, SourceError};
