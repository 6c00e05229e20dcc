//! g4 and g5: copies what is needed out of condemned packs, reads the copies back, digs the graves, deletes.
//!
//! Kept true: nothing is deleted before every needed chunk of it is durable elsewhere and was read there; what cannot
//! be read, or is shielded by a run that is still open, stays; a grave is durable before its pack is deleted.

use super::reach::Live;
use super::survey::{After, ended_or};
use crate::error::{Error, Result};
use crate::observer::Observer;
use crate::protocol::{Fate, copy_counts, fate, is_needed, may_delete};
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{Contents, Index, Location, Place, put_run};
use crate::repository::pack::{PackSink, PackStream, Packer, SealedPack, object_name, tail};
use crate::repository::{Repository, upload};
use bulla_repo_format::frame::Compression;
use bulla_repo_format::index::{IndexRun, KEY_LEN, record_key};
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::{Area, ChunkId, ObjectName, PackName, RunId};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Chunks by what index records have of their ids: also where a pack's own directory is lost.
type Key = [u8; KEY_LEN];

/// A condemned pack that is there, or one that is missing and was given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Victim {
    pub(super) name: PackName,
    pub(super) kind: PackKind,
    pub(super) size: u64,
    /// It was found damaged, or is missing: what the index has of it stands in for a directory that cannot be read.
    pub(super) damaged: bool,
}

/// What the index has of damaged victims.
pub(super) type InIndex = HashMap<PackName, Contents>;

/// What became of the victims.
#[derive(Default)]
pub(super) struct Swept {
    /// May be deleted once its grave is durable.
    pub(super) delete: Vec<Victim>,
    /// Stay for now, and why.
    pub(super) left: Vec<(ObjectName, String)>,
    /// Bytes of new packs and index runs.
    pub(super) stored: u64,
    /// Chunks that were copied.
    pub(super) copied: u64,
}

/// What a sweep works with.
pub(super) struct Sweep<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) live: &'a Live<'a>,
    pub(super) after: &'a After,
    pub(super) run: RunId,
    /// Of the damaged victims.
    pub(super) in_index: InIndex,
    /// Not all that roots need is known: then everything that can be read counts as needed.
    pub(super) blind: bool,
    /// False on a full store: then only what needs no copy goes.
    pub(super) copies: bool,
    pub(super) observer: &'a dyn Observer,
}

/// What one victim needs before it may go.
struct Examined {
    victim: Victim,
    fate: Fate,
    reason: String,
    /// Chunks of it that were, or are being, copied in this sweep, by whichever worker.
    relies: Vec<Key>,
}

/// Chunks of this sweep: who copies, and what is in the stream.
#[derive(Default)]
struct Copied {
    claimed: HashSet<Key>,
    done: HashSet<Key>,
}

/// Remembers what was handed to the uploader, for reading it back.
struct Remember<'a> {
    inner: &'a dyn PackSink,
    packs: Mutex<Vec<(ObjectName, u64)>>,
}

impl PackSink for Remember<'_> {
    fn store(&self, pack: SealedPack) -> Result<()> {
        lock(&self.packs).push((pack.object, pack.len()));
        self.inner.store(pack)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Sweep<'_> {
    /// Copies what is needed of all victims; decides which may go.
    pub(super) fn run(&self, victims: &[Victim]) -> Result<Swept> {
        let (uploads, uploader) = upload::channel(self.repository, Box::new(|_| Ok(())));
        let sink = Remember { inner: &uploads, packs: Mutex::default() };
        let stream = |kind| PackStream::new(self.repository, kind, self.run, Compression::Auto, true, &sink);
        let streams = [stream(PackKind::Data), stream(PackKind::Meta)];
        let (next, copied) = (AtomicUsize::new(0), Mutex::<Copied>::default());
        let width = self.repository.env().width.max(1);
        let (examined, stored) = std::thread::scope(|scope| {
            let upload = scope.spawn(|| uploader.run(&|_| {}));
            let work = || Worker::new(self, &streams, &copied)?.run(victims, &next);
            let workers: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
            let mut examined = Ok(Vec::new());
            for worker in workers {
                let part = worker.join().unwrap_or_else(|_| Err(bug()));
                // The uploader's error is the one that counts; workers then only know that it hung up.
                examined = match (examined, part) {
                    (Ok(mut all), Ok(part)) => {
                        all.extend(part);
                        Ok(all)
                    }
                    (Err(Error::Interrupted), Err(e)) | (Err(e), _) | (Ok(_), Err(e)) => Err(e),
                };
            }
            let finished = examined.and_then(|all: Vec<Examined>| {
                for stream in &streams {
                    stream.finish(&mut stream.packer()?)?;
                }
                Ok(all)
            });
            uploads.hang_up();
            let stored = upload.join().unwrap_or_else(|_| Err(bug()))?;
            Ok::<_, Error>((finished?, stored))
        })?;
        self.read_back(&lock(&sink.packs))?;
        let copied = copied.into_inner().unwrap_or_else(PoisonError::into_inner);
        Ok(self.decide(examined, &copied, stored.bytes))
    }

    /// Every new pack has, in the store, the bytes that were verified when it was sealed.
    fn read_back(&self, packs: &[(ObjectName, u64)]) -> Result<()> {
        for (object, size) in packs {
            let bytes = match self.repository.backend().get(object, *size).map_err(Error::from) {
                // Only who took this run for dead may have moved on from what it copied.
                Err(e) if e.is_missing() => return Err(ended_or(self.repository, &self.run, e)),
                other => other?,
            };
            let (ObjectName::Pack(name) | ObjectName::Meta(name)) = object else { continue };
            if blake3::hash(&bytes).as_bytes() != name.as_bytes() {
                let reason = "it reads back other bytes than were written; nothing was deleted".to_owned();
                return Err(Error::Damaged { what: object.to_string(), reason });
            }
        }
        Ok(())
    }

    fn decide(&self, examined: Vec<Examined>, copied: &Copied, stored: u64) -> Swept {
        let mut swept = Swept { stored, copied: copied.done.len() as u64, ..Swept::default() };
        for e in examined {
            let durable = e.relies.iter().all(|id| copied.done.contains(id));
            // The grave is dug by `bury`, which deletes nothing before it is durable.
            if may_delete(e.fate, durable, true) && durable {
                swept.delete.push(e.victim);
            } else {
                let reason =
                    if e.reason.is_empty() { "a chunk of it could not be copied" } else { &e.reason };
                swept.left.push((object_name(e.victim.kind, e.victim.name), reason.to_owned()));
            }
        }
        swept.delete.sort_by_key(|v| v.name);
        swept
    }

    /// Graves, durable; then deletes, durable. As many as one index run has graves, at most.
    pub(super) fn bury(&self, victims: &[Victim]) -> Result<()> {
        let backend = self.repository.backend();
        let mut run = IndexRun::new(self.repository.client().id());
        run.graves = victims.iter().map(|v| v.name).collect();
        put_run(self.repository, &mut run)?;
        let sidecars = !backend.list(Area::Parity)?.is_empty();
        for victim in victims {
            backend.delete(&object_name(victim.kind, victim.name))?;
            if sidecars {
                crate::parity::drop_of(&**backend, &victim.name)?;
            }
        }
        Ok(backend.flush()?)
    }
}

fn bug() -> Error {
    Error::Refused("a worker stopped on a bug in bulla; nothing was deleted".into())
}

/// One thread of a sweep.
struct Worker<'a> {
    sweep: &'a Sweep<'a>,
    streams: &'a [PackStream<'a>; 2],
    copied: &'a Mutex<Copied>,
    packers: [Packer; 2],
    chunks: ChunkReader<'a>,
    places: Vec<Place>,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(
        sweep: &'a Sweep<'a>,
        streams: &'a [PackStream<'a>; 2],
        copied: &'a Mutex<Copied>,
    ) -> Result<Self> {
        let [data, meta] = streams;
        Ok(Self {
            sweep,
            streams,
            copied,
            packers: [data.packer()?, meta.packer()?],
            chunks: ChunkReader::new(sweep.repository, sweep.index),
            places: Vec::new(),
            buffer: Vec::new(),
        })
    }

    fn run(mut self, victims: &[Victim], next: &AtomicUsize) -> Result<Vec<Examined>> {
        let mut out = Vec::new();
        while let Some(victim) = victims.get(next.fetch_add(1, Ordering::Relaxed)) {
            if self.sweep.observer.interrupted() {
                return Err(Error::Interrupted);
            }
            out.push(self.examine(*victim)?);
        }
        Ok(out)
    }

    /// Reads the victim's own directory and copies what is needed of it.
    fn examine(&mut self, victim: Victim) -> Result<Examined> {
        let after = self.sweep.after;
        let left = |reason: String| Examined { victim, fate: Fate::Leave, reason, relies: Vec::new() };
        let (pack, records) = match self.contents(&victim)? {
            Ok(contents) => contents,
            Err(reason) => return Ok(left(format!("its directory cannot be read: {reason}"))),
        };
        if after.shielded.contains(&victim.name) || after.open.contains(&pack.run) {
            return Ok(left("a run that is not finished relies on it".into()));
        }
        let (mut relies, mut unread, mut why) = (Vec::new(), Vec::new(), String::new());
        for (key, offset, len) in records {
            let location = Location { pack: pack.clone(), offset, len };
            if !self.needed(&victim, &key)? {
                continue;
            }
            relies.push(key);
            if !lock(self.copied).claimed.insert(key) {
                continue;
            }
            if !self.sweep.copies {
                unread.push(key);
                why = "there is no space for a copy of what it holds".into();
                break;
            }
            match self.read(&victim, &key, &location)? {
                Ok(id) => {
                    self.copy(victim.kind, id)?;
                    lock(self.copied).done.insert(key);
                }
                Err(reason) => {
                    lock(self.copied).claimed.remove(&key);
                    unread.push(key);
                    why = reason;
                }
            }
        }
        let readable = {
            let copied = lock(self.copied);
            unread.iter().all(|key| copied.done.contains(key))
        };
        Ok(Examined { victim, fate: fate(false, !relies.is_empty(), readable), reason: why, relies })
    }

    /// What the victim holds: by its own directory. Where that is lost, by the index, if the index has all that roots
    /// need: nobody could find what else was in it.
    fn contents(&self, victim: &Victim) -> Result<std::result::Result<Contents, String>> {
        let sweep = self.sweep;
        let e = match tail::read(sweep.repository, victim.kind, victim.name, victim.size) {
            Ok(tail) => {
                let records = tail.records();
                return Ok(Ok((Arc::new(tail.pack), records)));
            }
            Err(e) if e.is_damage() || (victim.damaged && e.is_io()) => e,
            Err(e) => return Err(e),
        };
        let all_known = !sweep.blind && sweep.live.lost() == 0;
        let known = sweep.in_index.get(&victim.name).filter(|_| victim.damaged && all_known);
        Ok(known.cloned().ok_or_else(|| e.to_string()))
    }

    /// Reads a chunk of a victim, or says why it cannot be had.
    fn read(
        &mut self,
        victim: &Victim,
        key: &Key,
        location: &Location,
    ) -> Result<std::result::Result<ChunkId, String>> {
        match self.chunks.identify_at(chunk_kind(victim.kind), location, &mut self.buffer) {
            Ok(id) if record_key(&id) == *key => Ok(Ok(id)),
            Ok(_) => Ok(Err("a chunk of it is not what its id says".into())),
            Err(e) if e.is_damage() || (victim.damaged && e.is_io()) => Ok(Err(e.to_string())),
            Err(e) => Err(e),
        }
    }

    /// True if a root, or a run that is not finished, needs the chunk and no copy elsewhere counts.
    fn needed(&mut self, victim: &Victim, id: &Key) -> Result<bool> {
        let (sweep, after) = (self.sweep, self.sweep.after);
        let mut shielded = after.shielded_chunks.contains(id);
        if !after.shielded.is_empty() {
            // Packs buried since the shield was drawn count too.
            sweep.index.all_places(id, &mut self.places)?;
            for place in &self.places {
                shielded |= after.shielded.contains(&sweep.index.pack_name(place.pack)?);
            }
        }
        let root = sweep.live.needs(id, &mut self.places)? || sweep.blind;
        let needed = is_needed(root, false, shielded);
        let places = std::mem::take(&mut self.places);
        let mut elsewhere = Vec::new();
        for place in &places {
            let name = sweep.index.pack_name(place.pack)?;
            if name != victim.name && sweep.index.is_listed(place.record)? {
                elsewhere.push((name, *place));
            }
        }
        self.places = places;
        if !needed {
            return Ok(false);
        }
        for (name, place) in elsewhere {
            let (marked, listed) = (after.marked.contains(&name), after.present.contains(&name));
            // Reading costs; it is asked for only where the answer may count.
            let verified = copy_counts(marked, listed, true) && self.readable(victim.kind, id, &place)?;
            if copy_counts(marked, listed, verified) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn readable(&mut self, kind: PackKind, key: &Key, place: &Place) -> Result<bool> {
        let pack = self.sweep.index.pack(place.pack)?;
        let location = Location { pack, offset: place.offset, len: place.len };
        if location.pack.header.kind != kind {
            return Ok(false);
        }
        match self.chunks.identify_at(chunk_kind(kind), &location, &mut self.buffer) {
            Ok(id) => Ok(record_key(&id) == *key),
            Err(e) if e.is_damage() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Stores what was read again.
    fn copy(&mut self, kind: PackKind, id: ChunkId) -> Result<()> {
        let [data, meta] = self.streams;
        let [data_packer, meta_packer] = &mut self.packers;
        let (stream, packer) = match kind {
            PackKind::Data => (data, data_packer),
            PackKind::Meta => (meta, meta_packer),
        };
        stream.append(packer, [(id, self.buffer.as_slice())])
    }
}

fn chunk_kind(kind: PackKind) -> ChunkKind {
    match kind {
        PackKind::Data => ChunkKind::Data,
        PackKind::Meta => ChunkKind::Meta,
    }
}
