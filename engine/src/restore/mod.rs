//! Restore.

pub mod safe_dir;
