//! What unit tests begin with: a repository in any store, and a backup of bytes that lie nowhere else.

use crate::backend::Backend;
use crate::backup::{self, BackupOptions, BackupReport};
use crate::env::Env;
use crate::observer::Silent;
use crate::repository::{InitOptions, Repository, SlotSecret};
use crate::source::{Sources, StreamSource};
use bulla_repo_format::keys::Secret;
use std::sync::Arc;

/// A new repository, opened by the key it was made with.
pub(crate) fn repository(store: Arc<dyn Backend>, options: &InitOptions, env: Env) -> Repository {
    let secret = SlotSecret::Key(Secret::new([1; 32]));
    Repository::init(store, options, &secret, env).unwrap().repository
}

/// Backs up `content` as the only file.
pub(crate) fn back_up(repository: &Repository, content: Vec<u8>) -> BackupReport {
    let stream = StreamSource::new("file", std::io::Cursor::new(content));
    backup::run(repository, Sources::Stream(stream), &BackupOptions::default(), &Silent).unwrap()
}

/// Bytes that neither repeat nor compress, the same every time.
pub(crate) fn noise(len: u32) -> Vec<u8> {
    (0..len.div_ceil(32)).flat_map(|n| *blake3::hash(&n.to_le_bytes()).as_bytes()).collect()
}
