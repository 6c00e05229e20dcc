//! Reads frames of one pack: fetch, open, expand. The commitment is checked once, a frame's tag each time.

use super::super::Repository;
use super::object_name;
use crate::error::{Error, Result};
use bulla_repo_format::frame::{Expander, FrameKey};
use bulla_repo_format::index::IndexPack;
use bulla_repo_format::pack::{FrameEntry, HEADER_LEN};
use bulla_repo_format::{FormatError, ObjectName};
use std::ops::Range;
use std::sync::Arc;

/// Sealed bytes that one request to a distant store carries: what 20 ms take at 100 MB/s, twice.
pub(crate) const SPAN: u64 = 4 << 20;

/// Frames of one pack.
pub struct PackReader<'r> {
    repository: &'r Repository,
    pack: Arc<IndexPack>,
    key: FrameKey,
    object: ObjectName,
    /// Where each frame starts: in the object, and in the plain stream. One more than there are frames.
    starts: Vec<(u64, u64)>,
}

impl<'r> PackReader<'r> {
    /// A reader; fails when the header does not commit to this repository's key.
    pub fn new(repository: &'r Repository, pack: Arc<IndexPack>) -> Result<Self> {
        let object = object_name(pack.header.kind, pack.name);
        let key = pack
            .header
            .open(repository.keyring(), &repository.id())
            .map_err(|e| Error::object(&object, e))?;
        let mut at = (HEADER_LEN as u64, 0u64);
        let mut starts = Vec::with_capacity(pack.frames.len() + 1);
        starts.push(at);
        for f in &pack.frames {
            at = (at.0 + u64::from(f.sealed), at.1 + u64::from(f.raw));
            starts.push(at);
        }
        Ok(Self { repository, pack, key, object, starts })
    }

    /// The pack.
    pub fn pack(&self) -> &Arc<IndexPack> {
        &self.pack
    }

    /// Its frames.
    pub fn frames(&self) -> &[FrameEntry] {
        &self.pack.frames
    }

    /// Offset of a frame in the plain stream.
    pub fn raw_start(&self, frame: usize) -> u64 {
        self.starts.get(frame).map_or(u64::MAX, |s| s.1)
    }

    /// The frames that hold plain bytes `range`.
    pub fn frames_of(&self, range: Range<u64>) -> Range<usize> {
        let first = self.starts.partition_point(|s| s.1 <= range.start).saturating_sub(1);
        let last = self.starts.partition_point(|s| s.1 < range.end);
        first..last.min(self.pack.frames.len())
    }

    /// Fetches the sealed bytes of frames `range` in one request.
    pub fn fetch(&self, range: Range<usize>) -> Result<Vec<u8>> {
        let at = |i: usize| self.starts.get(i).map(|s| s.0);
        let (Some(start), Some(end)) = (at(range.start), at(range.end)) else { return Err(self.outside()) };
        let len = usize::try_from(end.saturating_sub(start)).map_err(|_| self.outside())?;
        Ok(self.repository.backend().get_range(&self.object, start, len)?)
    }

    /// The sealed bytes of one frame among those that [`PackReader::fetch`] gave for `span`.
    pub fn of_span<'s>(&self, span: &Range<usize>, frame: usize, sealed: &'s [u8]) -> Result<&'s [u8]> {
        let at = |i: usize| self.starts.get(i).map(|s| s.0);
        let place = || {
            let base = at(span.start)?;
            let place = |n: u64| usize::try_from(n.checked_sub(base)?).ok();
            sealed.get(place(at(frame)?)?..place(at(frame + 1)?)?)
        };
        place().ok_or_else(|| self.outside())
    }

    /// Opens and expands one frame in place from bytes that [`PackReader::fetch`] gave.
    pub fn open(
        &self,
        frame: usize,
        sealed: &mut [u8],
        expander: &mut Expander,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let entry = self.pack.frames.get(frame).ok_or_else(|| self.outside())?;
        let number = u32::try_from(frame).map_err(|_| self.outside())?;
        let fail = |e: FormatError| Error::Damaged {
            what: format!("{} frame {frame}", self.object),
            reason: e.to_string(),
        };
        let opened = self.key.open(number, sealed).map_err(fail)?;
        expander.expand(opened, entry.raw, out).map_err(fail)
    }

    /// Fetches, opens and expands one frame.
    pub fn frame(&self, frame: usize, expander: &mut Expander, out: &mut Vec<u8>) -> Result<()> {
        let mut sealed = self.fetch(frame..frame + 1)?;
        self.open(frame, &mut sealed, expander, out)
    }

    fn outside(&self) -> Error {
        Error::Damaged { what: self.object.to_string(), reason: "the index points outside its frames".into() }
    }
}
