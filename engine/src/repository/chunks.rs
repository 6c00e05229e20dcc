//! Reads single chunks, verified, with the last frames kept: for trees, lists and browsing. Bulk reads are planned by
//! pack instead (restore, check).

use super::Repository;
use super::index::{Index, Location};
use super::pack::PackReader;
use crate::error::{Error, Result};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::index::IndexPack;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::ChunkRef;
use bulla_repo_format::{ChunkId, PackName};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

const KEPT_BYTES: usize = 16 << 20;

/// Requests for frames, and the sealed bytes that came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Requests.
    pub requests: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Fetched {
    /// One more request.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.requests += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl std::ops::AddAssign for Fetched {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// Frames of a pack, as one index run lists it, that came in one request.
struct Span {
    pack: Arc<IndexPack>,
    frames: Range<usize>,
    sealed: Vec<u8>,
}

/// Reads chunks through an index.
pub struct ChunkReader<'r> {
    repository: &'r Repository,
    index: &'r Index,
    expander: Expander,
    readers: VecDeque<PackReader<'r>>,
    frames: VecDeque<((PackName, usize), Vec<u8>)>,
    keys: Vec<(u16, ChunkKind, IdKey)>,
    /// What is to be fetched at once of the pack that is read in order, and what was so fetched last.
    ahead: Option<(Arc<IndexPack>, Vec<Range<usize>>)>,
    span: Option<Span>,
    fetched: Fetched,
    /// The segment of the index that the last chunk was in.
    near: u32,
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
            ahead: None,
            span: None,
            fetched: Fetched::default(),
            near: 0,
        }
    }

    /// What was asked of the store so far.
    pub fn fetched(&self) -> Fetched {
        self.fetched
    }

    /// From now on frames of `pack` that are in one of `spans` are fetched together.
    pub(crate) fn read_ahead(&mut self, pack: Arc<IndexPack>, spans: Vec<Range<usize>>) {
        (self.ahead, self.span) = (Some((pack, spans)), None);
    }

    /// Counts what [`ChunkReader::read_exactly`] would fetch, without doing it, and says how many sealed bytes the chunk
    /// makes up of its frames. A reader that has pretended is of no use for reading.
    pub(crate) fn pretend(&mut self, kind: ChunkKind, chunk: &ChunkRef) -> Result<u64> {
        let fits = |l: &Location| l.pack.header.kind == pack_kind(kind) && l.len == chunk.len;
        let location = match self.nearest(&chunk.id)?.filter(fits) {
            Some(location) => location,
            None => match self.index.locate(&chunk.id)?.into_iter().find(fits) {
                Some(location) => location,
                None => return Ok(0),
            },
        };
        let (start, end) = (u64::from(location.offset), u64::from(location.offset) + u64::from(location.len));
        let at = self.reader(&location)?;
        let frames = self.readers.get(at).map(|r| r.frames_of(start..end)).unwrap_or_default();
        let (mut raw, mut sealed) = (0, 0);
        for number in frames {
            let Some(frame) = location.pack.frames.get(number) else { continue };
            (raw, sealed) = (raw + u64::from(frame.raw), sealed + u64::from(frame.sealed));
            let name = (location.pack.name, number);
            if !self.is_kept(&name) {
                self.fetched.add(u64::from(frame.sealed));
                // Memory that nobody touches is none.
                self.keep(name, vec![0; frame.raw as usize]);
            }
        }
        Ok((u64::from(chunk.len) * sealed).checked_div(raw).unwrap_or(0))
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

    /// As [`ChunkReader::read`], of the length that a reference says: one that lies about it gives nothing.
    pub fn read_exactly(&mut self, kind: ChunkKind, chunk: &ChunkRef, out: &mut Vec<u8>) -> Result<()> {
        self.read(kind, &chunk.id, out)?;
        if out.len() == chunk.len as usize {
            return Ok(());
        }
        let reason = format!("it has {} bytes, what refers to it says {}", out.len(), chunk.len);
        Err(Error::Damaged { what: format!("chunk {}", chunk.id), reason })
    }

    fn read_known(&mut self, kind: ChunkKind, id: &ChunkId, out: &mut Vec<u8>) -> Result<()> {
        let mut failure = None;
        // Nearly every chunk lies where its neighbours do, and can be read there: one look-up instead of one for each run.
        let near = self.nearest(id)?;
        if let Some(location) = &near
            && self.had_at(kind, id, location, out, &mut failure)?
        {
            return Ok(());
        }
        for location in self.index.locate(id)? {
            // What lists a pack may lie about it, and another run tell the truth.
            let tried = near.as_ref().is_some_and(|n| *n == location);
            if !tried && self.had_at(kind, id, &location, out, &mut failure)? {
                return Ok(());
            }
        }
        let reason = failure.map_or_else(|| "no index run lists it".to_owned(), |e| e.to_string());
        Err(Error::Damaged { what: format!("chunk {id}"), reason })
    }

    /// Where a chunk is looked for first.
    fn nearest(&mut self, id: &ChunkId) -> Result<Option<Location>> {
        let place = self.index.place_near(id, &mut self.near)?;
        place.map(|place| self.index.location(&place)).transpose()
    }

    /// True if the chunk was read from a place; what is damaged there is noted.
    fn had_at(
        &mut self,
        kind: ChunkKind,
        id: &ChunkId,
        location: &Location,
        out: &mut Vec<u8>,
        failure: &mut Option<Error>,
    ) -> Result<bool> {
        if location.pack.header.kind != pack_kind(kind) {
            return Ok(false);
        }
        match self.read_at(kind, id, location, out) {
            Err(e) if e.is_damage() => *failure = Some(e),
            other => return other.map(|()| true),
        }
        Ok(false)
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
        // What another run says of the pack may be a lie, or this be one.
        if let Some(at) = self.readers.iter().position(|r| *r.pack() == location.pack) {
            return Ok(at);
        }
        self.readers.push_front(PackReader::new(self.repository, location.pack.clone())?);
        self.readers.truncate(8);
        Ok(0)
    }

    fn frame(&mut self, reader: usize, frame: usize) -> Result<&[u8]> {
        let gone = || Error::Damaged { what: "a pack".into(), reason: "its reader is gone".into() };
        let pack = self.readers.get(reader).ok_or_else(gone)?.pack().name;
        if !self.is_kept(&(pack, frame)) {
            let plain = self.open_frame(reader, frame)?;
            self.keep((pack, frame), plain);
        }
        self.frames.front().map(|(_, f)| f.as_slice()).ok_or_else(gone)
    }

    /// Fetches a frame, alone or with those that are read with it, and opens it.
    fn open_frame(&mut self, reader: usize, frame: usize) -> Result<Vec<u8>> {
        let gone = || Error::Damaged { what: "a pack".into(), reason: "its reader is gone".into() };
        let reader = self.readers.get(reader).ok_or_else(gone)?;
        let pack = reader.pack();
        let mut plain = Vec::new();
        let spans = self.ahead.iter().filter(|(of, _)| of == pack).flat_map(|(_, spans)| spans);
        let Some(frames) = spans.into_iter().find(|span| span.contains(&frame)) else {
            reader.frame(frame, &mut self.expander, &mut plain)?;
            self.fetched.add(reader.frames().get(frame).map_or(0, |f| u64::from(f.sealed)));
            return Ok(plain);
        };
        if self.span.as_ref().is_none_or(|s| (&s.pack, &s.frames) != (pack, frames)) {
            let sealed = reader.fetch(frames.clone())?;
            self.fetched.add(sealed.len() as u64);
            self.span = Some(Span { pack: pack.clone(), frames: frames.clone(), sealed });
        }
        let span = self.span.as_ref().ok_or_else(gone)?;
        let mut sealed = reader.of_span(&span.frames, frame, &span.sealed)?.to_vec();
        reader.open(frame, &mut sealed, &mut self.expander, &mut plain)?;
        Ok(plain)
    }

    /// True if a frame is kept; it comes first then.
    fn is_kept(&mut self, name: &(PackName, usize)) -> bool {
        match self.frames.iter().position(|(n, _)| n == name) {
            Some(0) => true,
            Some(at) => {
                if let Some(hit) = self.frames.remove(at) {
                    self.frames.push_front(hit);
                }
                true
            }
            None => false,
        }
    }

    /// Keeps a frame, and lets the oldest go.
    fn keep(&mut self, name: (PackName, usize), plain: Vec<u8>) {
        self.frames.push_front((name, plain));
        let mut kept = 0;
        self.frames.retain(|(n, f)| {
            kept += f.len();
            *n == name || kept <= KEPT_BYTES
        });
    }
}

fn pack_kind(kind: ChunkKind) -> PackKind {
    match kind {
        ChunkKind::Data => PackKind::Data,
        ChunkKind::Meta => PackKind::Meta,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::Recorder;
    use crate::backend::{Backend, Memory};
    use crate::env::Env;
    use crate::fixture;
    use crate::repository::InitOptions;
    use crate::repository::pack::object_name;
    use bulla_repo_format::ObjectName;

    /// Each chunk lies in two packs; whichever of them is damaged, and wherever its neighbours lie.
    #[test]
    fn a_chunk_is_read_wherever_it_can_be_and_each_place_is_asked_once() {
        let store = Arc::new(Recorder::new(Arc::new(Memory::new())));
        let repository =
            fixture::repository(store.clone(), &InitOptions::default(), Env::system("host", "user"));
        let back_up = || fixture::back_up(&repository, vec![5; 1000]);
        back_up();
        // What the first has listed is out of sight of the second.
        let [listed] = repository.index_names().unwrap()[..] else { panic!() };
        let hidden = ObjectName::Index(listed);
        let run = store.get(&hidden, u64::MAX).unwrap();
        store.delete(&hidden).unwrap();
        back_up();
        store.put(&hidden, &[&run]).unwrap();
        let index = repository.open_index().unwrap();
        let mut records = Vec::new();
        index.each_record(|_, pack, record| records.push((record.key, pack))).unwrap();
        let is_data = |pack| index.pack(pack).unwrap().header.kind == PackKind::Data;
        records.retain(|(_, pack)| is_data(*pack));
        assert_eq!((records.len(), records[0].0), (2, records[1].0), "one chunk, twice");
        let id = repository.keyring().id_key(0, ChunkKind::Data).unwrap().identify(&[5; 1000]);
        let names = [0, 1].map(|n| object_name(PackKind::Data, index.pack_name(records[n].1).unwrap()));
        let of_listed = repository.fetch_index_run(&listed).unwrap().packs;
        let lied_about = of_listed.iter().find(|p| p.header.kind == PackKind::Data).unwrap().name;
        let lied_about = object_name(PackKind::Data, lied_about);
        let read = |near| {
            let mut reader = ChunkReader { near, ..ChunkReader::new(&repository, &index) };
            let mut out = Vec::new();
            store.take();
            let done = reader.read(ChunkKind::Data, &id, &mut out);
            let asked = store
                .take()
                .iter()
                .filter(|(call, _)| call.starts_with("get_range"))
                .map(|(_, n)| n)
                .sum::<u64>();
            done.map(|()| (out == [5; 1000], asked)).map_err(|e| (e.is_damage(), asked))
        };
        assert_eq!([read(0), read(1)], [Ok((true, 1)); 2]);
        for (lost, name) in (0..).zip(&names) {
            let pack = store.get(name, u64::MAX).unwrap();
            store.delete(name).unwrap();
            assert_eq!([read(lost), read(1 - lost)], [Ok((true, 2)), Ok((true, 1))]);
            store.put(name, &[&pack]).unwrap();
        }
        // A run that lies about a pack hides nothing of what another one says.
        let forge = |lie: fn(&mut IndexPack)| {
            let mut forged = repository.fetch_index_run(&listed).unwrap();
            forged.packs.iter_mut().for_each(lie);
            index.add_unlisted(&repository, &mut forged).unwrap();
        };
        forge(|pack| pack.header.kind = PackKind::Meta);
        forge(|pack| pack.frames.iter_mut().for_each(|frame| frame.sealed -= 1));
        let only = names.iter().position(|name| *name != lied_about).unwrap();
        store.delete(&names[only]).unwrap();
        assert!(read(2).unwrap().0 && read(3).unwrap().0);
        store.delete(&lied_about).unwrap();
        assert_eq!([read(0), read(1), read(2)], [Err((true, 3)); 3]);
    }
}
