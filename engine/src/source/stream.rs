//! A stream as a source: what a dump command writes, or standard input. Half a stream is no backup, so whoever opened
//! it has the last word on whether it was whole.

use crate::error::Error;
use crate::observer::escape;
use crate::repository::snapshots::clean_path;
use bulla_repo_format::limits::PATH_MAX;
use bulla_repo_format::tree::{Hole, validate_name};
use std::io::Read;

/// Decides at the end of a stream whether it was whole.
pub type Commit = Box<dyn FnOnce() -> Result<(), String> + Send>;

/// A stream, for instance what a dump command writes.
pub struct StreamSource {
    /// Its path in the snapshot.
    pub name: Vec<u8>,
    /// The bytes.
    pub reader: Box<dyn Read + Send>,
    /// Asked once the stream has ended: an error means that there is no snapshot.
    pub commit: Option<Commit>,
    /// Where the file has nothing, between the bytes that are read: ascending, apart.
    pub holes: Vec<Hole>,
}

impl StreamSource {
    /// A stream whose end is as good as any other.
    pub fn new(name: impl Into<Vec<u8>>, reader: impl Read + Send + 'static) -> Self {
        Self { name: name.into(), reader: Box::new(reader), commit: None, holes: Vec::new() }
    }

    /// Refuses a name that no tree can hold, before a byte is read.
    pub(crate) fn check_name(&self) -> crate::error::Result<()> {
        let path = clean_path(&self.name);
        let good = |name: &[u8]| validate_name(name).is_ok();
        if path.len() <= PATH_MAX && path.split(|b| *b == b'/').all(good) {
            return Ok(());
        }
        let shown = escape(&self.name);
        Err(Error::Refused(format!("a stream cannot be stored as \"{shown}\": it is no path of a file")))
    }

    /// Asks whether the stream was whole.
    pub(crate) fn commit(&mut self) -> Result<(), String> {
        self.commit.take().map_or(Ok(()), |commit| commit())
    }
}
