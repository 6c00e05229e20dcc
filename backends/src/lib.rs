//! Stores at a distance, as the engine's `Backend`: chosen by URL, blocking, without a runtime.
//!
//! Each protocol is a [`store::Store`]: one attempt at one operation on a path. [`remote::Remote`] makes a backend of it:
//! it tries again, settles answers that were lost, and names host, object and attempt in every error.
//!
//! Nothing here reads the environment: what it says is passed in ([`settings`]).

pub mod http;
pub mod location;
pub mod open;
pub mod rclone;
pub mod remote;
pub mod rest;
pub mod retry;
pub mod s3;
pub mod settings;
pub mod sftp;
pub mod store;

pub use location::Location;
pub use open::{Opened, open};
