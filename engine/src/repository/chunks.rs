//! Reads single chunks, verified, with the last frames kept: for trees, lists and browsing. Bulk reads are planned by
//! pack instead (restore, check).

use super::Repository;
use super::index::{Index, Location};
use super::pack::PackReader;
use crate::error::{Error, Result};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::{ChunkId, PackName};
use std::collections::VecDeque;

const KEPT_BYTES: usize = 16 << 20;

/// Reads chunks through an index.
pub struct ChunkReader<'r> {
    repository: &'r Repository,
    index: &'r Index,
    expander: Expander,
    readers: VecDeque<PackReader<'r>>,
    frames: VecDeque<((PackName, usize), Vec<u8>)>,
    keys: Vec<(u16, ChunkKind, IdKey)>,
    decoded: u64,
}

impl<'r> ChunkReader<'r> {
    /// A reader with nothing kept yet.
    pub fn new(repository: &'r Repository, index: &'r Index) -> Self {
        Self {
            repository,
            index,
            expander: Expander::new(),
            readers: VecDeque::new(),
            frames: VecDeque::new(),
            keys: Vec::new(),
            decoded: 0,
        }
    }

    /// Frames decoded so far.
    pub fn frames_decoded(&self) -> u64 {
        self.decoded
    }

    /// Replaces `out` by a chunk's plaintext. Every location is tried; the id is always checked. A chunk that cannot
    /// be had may have been moved by a prune: then the index has something new, and that is tried as well.
    pub fn read(&mut self, kind: ChunkKind, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        loop {
            match self.read_known(kind, id, out) {
                Err(e) if e.is_damage() && self.index.refresh(self.repository)? => {}
                other => return other,
            }
        }
    }

    fn read_known(&mut self, kind: ChunkKind, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        let wanted = match kind {
            ChunkKind::Data => PackKind::Data,
            ChunkKind::Meta => PackKind::Meta,
        };
        let mut failure = None;
        for location in self.index.locate(id)? {
            if location.pack.header.kind != wanted {
                continue;
            }
            match self.read_at(kind, id, &location, out) {
                Ok(()) => return Ok(()),
                Err(e) if e.is_damage() => failure = Some(e),
                Err(e) => return Err(e),
            }
        }
        let reason = failure.map_or_else(|| "no index run lists it".to_owned(), |e| e.to_string());
        Err(Error::Damaged { what: format!("chunk {id}"), reason })
    }

    /// As [`ChunkReader::read`], from this one place.
    pub fn read_at(
        &mut self,
        kind: ChunkKind,
        id: &ChunkId,
        location: &Location,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if self.identify_at(kind, location, out)? == *id {
            return Ok(());
        }
        let reason = format!("it is not at its place in pack {}", location.pack.name);
        Err(Error::Damaged { what: format!("chunk {id}"), reason })
    }

    /// Replaces `out` by the bytes at a place, and says which chunk that is.
    pub(crate) fn identify_at(
        &mut self,
        kind: ChunkKind,
        location: &Location,
        out: &mut Vec<u8>,
    ) -> Result<ChunkId> {
        out.clear();
        let (start, end) = (u64::from(location.offset), u64::from(location.offset) + u64::from(location.len));
        let reader = self.reader(location)?;
        let frames = self.readers.get(reader).map(|r| r.frames_of(start..end)).unwrap_or_default();
        for frame in frames {
            let raw_start = self.readers.get(reader).map_or(0, |r| r.raw_start(frame));
            let plain = self.frame(reader, frame)?;
            let from = usize::try_from(start.saturating_sub(raw_start)).unwrap_or(usize::MAX);
            let to = usize::try_from(end.saturating_sub(raw_start)).unwrap_or(usize::MAX).min(plain.len());
            out.extend_from_slice(plain.get(from..to).unwrap_or_default());
        }
        let domain = location.pack.header.domain;
        Ok(self.id_key(domain, kind)?.identify(out))
    }

    fn id_key(&mut self, domain: u16, kind: ChunkKind) -> Result<&IdKey> {
        let at = match self.keys.iter().position(|(d, k, _)| *d == domain && *k == kind) {
            Some(at) => at,
            None => {
                self.keys.push((domain, kind, self.repository.keyring().id_key(domain, kind)?));
                self.keys.len() - 1
            }
        };
        self.keys.get(at).map(|(.., key)| key).ok_or(Error::Interrupted)
    }

    /// The position of the pack's reader among those kept.
    fn reader(&mut self, location: &Location) -> Result<usize> {
        if let Some(at) = self.readers.iter().position(|r| r.pack().name == location.pack.name) {
            return Ok(at);
        }
        self.readers.push_front(PackReader::new(self.repository, location.pack.clone())?);
        self.readers.truncate(8);
        Ok(0)
    }

    fn frame(&mut self, reader: usize, frame: usize) -> Result<&[u8]> {
        let gone = || Error::Damaged { what: "a pack".into(), reason: "its reader is gone".into() };
        let reader = self.readers.get(reader).ok_or_else(gone)?;
        let name = (reader.pack().name, frame);
        match self.frames.iter().position(|(n, _)| *n == name) {
            Some(0) => {}
            Some(at) => {
                if let Some(hit) = self.frames.remove(at) {
                    self.frames.push_front(hit);
                }
            }
            None => {
                let mut plain = Vec::new();
                reader.frame(frame, &mut self.expander, &mut plain)?;
                self.decoded += 1;
                self.frames.push_front((name, plain));
                let mut kept = 0;
                self.frames.retain(|(n, f)| {
                    kept += f.len();
                    *n == name || kept <= KEPT_BYTES
                });
            }
        }
        self.frames.front().map(|(_, f)| f.as_slice()).ok_or_else(gone)
    }
}
