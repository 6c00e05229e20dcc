//! Reads what is left of an object: where the medium gives an error, piece by piece, with zeros for what is lost.

use crate::backend::{Backend, BackendError, Result};
use bulla_repo_format::ObjectName;
use bulla_repo_format::parity::SHARD_LEN;

/// What is left of an object.
pub(super) struct Left {
    pub(super) bytes: Vec<u8>,
    /// The first error, if some pieces could not be read.
    pub(super) error: Option<String>,
}

/// Reads an object of at most `limit` bytes; a longer one is cut there. `None` if it is not there.
pub(super) fn left(backend: &dyn Backend, object: &ObjectName, limit: u64) -> Result<Option<Left>> {
    match backend.get(object, limit) {
        Ok(bytes) => return Ok(Some(Left { bytes, error: None })),
        Err(BackendError::NotFound { .. }) => return Ok(None),
        Err(BackendError::Io { .. } | BackendError::Short { .. }) => {}
        Err(e) => return Err(e),
    }
    let Some(stat) = backend.stat(object)? else { return Ok(None) };
    let size = stat.size.min(limit);
    let mut left = Left { bytes: Vec::new(), error: None };
    let mut at = 0;
    while at < size {
        let len = usize::try_from((size - at).min(SHARD_LEN.into())).unwrap_or(0);
        match backend.get_range(object, at, len) {
            Ok(piece) => left.bytes.extend_from_slice(&piece),
            Err(BackendError::NotFound { .. }) => return Ok(None),
            Err(e @ (BackendError::Io { .. } | BackendError::Short { .. })) => {
                left.bytes.resize(left.bytes.len() + len, 0);
                left.error.get_or_insert(e.to_string());
            }
            Err(e) => return Err(e),
        }
        at += len as u64;
    }
    Ok(Some(left))
}
