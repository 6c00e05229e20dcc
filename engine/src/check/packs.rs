//! Packs: those the index lists are there with the right size; those chosen are read whole, every frame opened and
//! every chunk identified again.

use super::rotation::{Turn, due};
use super::{Bad, CheckReport, ReadData};
use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::pack::{PackReader, object_name, tail};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::ledger::Fact;
use bulla_repo_format::limits::PACK_SIZE_MAX;
use bulla_repo_format::pack::{ChunkEntry, HEADER_LEN, PackKind};
use bulla_repo_format::{ChunkId, PackName};
use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

type Key = (PackName, PackKind);

/// Which packs are meant.
pub(super) struct Scope {
    /// Packs to read whole.
    pub(super) read_data: ReadData,
    /// Nothing is said of others; `None` is all.
    pub(super) needed: Option<HashSet<PackName>>,
    /// What was read goes on record.
    pub(super) record: bool,
    /// No pack is begun after this.
    pub(super) until: Option<Instant>,
}

impl Scope {
    fn has(&self, name: &PackName) -> bool {
        self.needed.as_ref().is_none_or(|n| n.contains(name))
    }
}

/// Compares listing and index, then reads the chosen packs with all cores.
pub(super) fn check(
    repository: &Repository,
    index: &Index,
    scope: &Scope,
    observer: &dyn Observer,
    report: &mut CheckReport,
    bad: &mut Bad,
) -> Result<()> {
    let mut present = repository.present_packs()?;
    present.retain(|(name, _), _| scope.has(name));
    report.packs = present.len() as u64;
    let (mut listed, mut missing) = (HashSet::<Key>::new(), Vec::new());
    for pack in index.packs() {
        let pack = pack?;
        let key = (pack.name, pack.header.kind);
        if index.is_deleted(&pack.name) || !scope.has(&pack.name) || !listed.insert(key) {
            continue;
        }
        let reason = match present.get(&key) {
            None => {
                missing.push(key);
                continue;
            }
            Some(size) if *size != pack.size => format!("it has {size} bytes, the index says {}", pack.size),
            Some(_) => continue,
        };
        report.add(object_name(pack.header.kind, pack.name).to_string(), reason);
        bad.packs.insert(pack.name);
    }
    for (name, kind) in missing {
        if !buried_since(repository, index, &name)? {
            report.add(object_name(kind, name).to_string(), "it is missing");
            bad.packs.insert(name);
        }
    }
    let orphans = present.keys().filter(|k| !listed.contains(k)).count();
    if orphans > 0 {
        report.notices.push(format!(
            "{orphans} packs are in no index run (of an interrupted backup, or not indexed yet)"
        ));
    }
    let mut chosen: Vec<(Key, u64)> = choose(repository, scope.read_data, &present)?;
    // A prune is deleting them, or was when it stopped.
    chosen.retain(|((name, _), _)| !index.is_deleted(name));
    let (read, interrupted) = read_all(repository, index, &chosen, scope.until, observer, report, bad)?;
    if scope.record && !read.is_empty() {
        put_on_record(repository, read, bad, report)?;
    }
    if interrupted { Err(Error::Interrupted) } else { Ok(()) }
}

/// What was read counts, also of a check that is stopped: the next one goes on behind it.
fn put_on_record(
    repository: &Repository,
    read: Vec<PackName>,
    bad: &Bad,
    report: &mut CheckReport,
) -> Result<()> {
    // A repository that may only be read can be checked all the same.
    let (bad, good) = read.into_iter().partition(|name| bad.holds(name));
    match repository.record(&Fact::Verified { good, bad }) {
        Err(Error::Backend(BackendError::Denied { .. } | BackendError::NoSpace { .. })) => {
            report
                .notices
                .push("what was read could not be put on record: the repository takes no writes".into());
            Ok(())
        }
        other => other,
    }
}

/// True if a prune has deleted the pack: graves are there before packs go.
fn buried_since(repository: &Repository, index: &Index, name: &PackName) -> Result<bool> {
    if !index.is_deleted(name) {
        index.refresh(repository)?;
    }
    Ok(index.is_deleted(name))
}

fn choose(repository: &Repository, which: ReadData, present: &BTreeMap<Key, u64>) -> Result<Vec<(Key, u64)>> {
    let number = |name: &PackName, seed: &[u8; 32]| {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(seed, name.as_bytes()).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    };
    let all = present.iter().map(|(k, s)| (*k, *s));
    Ok(match which {
        ReadData::Within { days } => turns(repository, present, days)?,
        ReadData::No => Vec::new(),
        ReadData::All => all.collect(),
        ReadData::Part { n, of } => {
            all.filter(|((name, _), _)| number(name, &[0; 32]) % of == n - 1).collect()
        }
        ReadData::Percent(p) => {
            let mut drawn: Vec<_> = all.collect();
            let seed = repository.env().random();
            drawn.sort_by_key(|((name, _), _)| number(name, &seed));
            // At least one: a check that reads nothing must not look like one that read something.
            let n = (drawn.len() as f64 * p / 100.0).ceil().max(1.0);
            drawn.truncate(n as usize);
            drawn
        }
        ReadData::Bytes(limit) => {
            let mut drawn: Vec<_> = all.collect();
            let seed = repository.env().random();
            drawn.sort_by_key(|((name, _), _)| number(name, &seed));
            let mut sum = 0u64;
            drawn.retain(|(_, size)| {
                let take = sum == 0 || sum + size <= limit;
                sum += if take { *size } else { 0 };
                take
            });
            drawn
        }
    })
}

/// Those whose turn it is.
fn turns(repository: &Repository, present: &BTreeMap<Key, u64>, days: u32) -> Result<Vec<(Key, u64)>> {
    let (stamps, last) = repository.verifications()?;
    let mut packs = Vec::with_capacity(present.len());
    for (key, size) in present {
        let since = match stamps.get(&key.0) {
            Some(stamp) => *stamp,
            None => {
                let stat = repository.backend().stat(&object_name(key.1, key.0))?;
                stat.map_or(i64::MIN, |s| s.modified)
            }
        };
        packs.push(Turn { key: *key, size: *size, since });
    }
    let now = repository.env().clock.now().seconds;
    Ok(due(packs, now, last, days).into_iter().map(|t| (t.key, t.size)).collect())
}

/// What reading one pack found.
enum Read {
    Good,
    /// Some chunks are bad, for this reason.
    Chunks(Vec<ChunkId>, String),
    /// Nothing of it can be trusted.
    Whole(String),
}

fn read_all(
    repository: &Repository,
    index: &Index,
    chosen: &[(Key, u64)],
    until: Option<Instant>,
    observer: &dyn Observer,
    report: &mut CheckReport,
    bad: &mut Bad,
) -> Result<(Vec<PackName>, bool)> {
    let late = || until.is_some_and(|until| Instant::now() >= until);
    let done: Mutex<Vec<PackName>> = Mutex::default();
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let results: Mutex<Vec<(Key, Read)>> = Mutex::default();
    let failure: Mutex<Option<Error>> = Mutex::default();
    let total: u64 = chosen.iter().map(|(_, s)| s).sum();
    std::thread::scope(|scope| {
        for _ in 0..repository.env().width.clamp(1, chosen.len().max(1)) {
            scope.spawn(|| {
                let mut worker = Worker::new(repository, index);
                while let Some((key, size)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if observer.interrupted() || late() {
                        return;
                    }
                    match worker.read(*key) {
                        Ok(Read::Good) => {}
                        Ok(found) => results.lock().unwrap_or_else(|e| e.into_inner()).push((*key, found)),
                        Err(e) => {
                            *failure.lock().unwrap_or_else(|e| e.into_inner()) = Some(e);
                            return;
                        }
                    }
                    done.lock().unwrap_or_else(|e| e.into_inner()).push(key.0);
                    let done = bytes.fetch_add(*size, Ordering::Relaxed) + size;
                    let (files, total_files) = (next.load(Ordering::Relaxed) as u64, chosen.len() as u64);
                    observer.event(&Event::Progress { files, bytes: done, total_files, total_bytes: total });
                }
            });
        }
    });
    if let Some(e) = failure.into_inner().unwrap_or_else(|e| e.into_inner()) {
        return Err(e);
    }
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    report.packs_read = done.len() as u64;
    report.packs_left = (chosen.len() - done.len()) as u64;
    report.bytes_read = bytes.into_inner();
    for ((name, kind), read) in results.into_inner().unwrap_or_else(|e| e.into_inner()) {
        let object = object_name(kind, name).to_string();
        match read {
            Read::Good => {}
            Read::Whole(reason) => {
                if bad.packs.insert(name) {
                    report.add(object, reason);
                }
            }
            Read::Chunks(chunks, reason) => {
                report.add(object, reason);
                for id in chunks {
                    bad.chunks.entry(id).or_default().insert(name);
                }
            }
        }
    }
    Ok((done, observer.interrupted()))
}

struct Worker<'r> {
    repository: &'r Repository,
    index: &'r Index,
    places: Vec<Place>,
    expander: Expander,
    plain: Vec<u8>,
    chunk: Vec<u8>,
    key: Option<(u16, ChunkKind, IdKey)>,
}

impl<'r> Worker<'r> {
    fn new(repository: &'r Repository, index: &'r Index) -> Self {
        Self {
            repository,
            index,
            places: Vec::new(),
            expander: Expander::new(),
            plain: Vec::new(),
            chunk: Vec::new(),
            key: None,
        }
    }

    /// Reads one pack whole. Damage is a finding; a store that cannot be reached is an error.
    fn read(&mut self, (name, kind): Key) -> Result<Read> {
        let object = object_name(kind, name);
        let mut bytes = match self.repository.backend().get_stored(&object, PACK_SIZE_MAX) {
            Ok(bytes) => bytes,
            Err(BackendError::NotFound { .. }) if buried_since(self.repository, self.index, &name)? => {
                return Ok(Read::Good);
            }
            Err(e @ (BackendError::Io { .. } | BackendError::NotFound { .. })) => {
                return Ok(Read::Whole(e.to_string()));
            }
            Err(e) => return Err(e.into()),
        };
        let whole = tail::read_whole(self.repository, kind, name, &bytes);
        let (tail, flaw) = match whole {
            Ok(tail) => (tail, None),
            // The bytes are not those that were put. Its frames may still be good: find out which.
            Err(e) => match tail::read(self.repository, kind, name, bytes.len() as u64) {
                Ok(tail) => (tail, Some(e.to_string())),
                Err(_) => return Ok(Read::Whole(e.to_string())),
            },
        };
        let reader = match PackReader::new(self.repository, std::sync::Arc::new(tail.pack)) {
            Ok(reader) => reader,
            Err(e) => return Ok(Read::Whole(e.to_string())),
        };
        let kind = if kind == PackKind::Data { ChunkKind::Data } else { ChunkKind::Meta };
        let (chunks, reason) = self.chunks(&reader, &tail.directory.chunks, kind, &mut bytes)?;
        let (lost, misplaced) = self.misplaced(name, &tail.directory.chunks)?;
        let chunks = [chunks, lost].concat();
        match flaw.or(reason).or(misplaced) {
            None if chunks.is_empty() => Ok(Read::Good),
            reason => {
                Ok(Read::Chunks(chunks, reason.unwrap_or_else(|| "chunks are not what they say".into())))
            }
        }
    }

    /// Chunks of a pack that the index lists, but nowhere in it where they are.
    fn misplaced(&mut self, name: PackName, table: &[ChunkEntry]) -> Result<(Vec<ChunkId>, Option<String>)> {
        let (mut bad, mut reason, mut offset) = (Vec::new(), None, 0u64);
        for entry in table {
            self.index.places(&entry.id, &mut self.places)?;
            let (mut listed, mut right) = (false, false);
            for place in &self.places {
                if self.index.pack_name(place.pack)? == name {
                    listed = true;
                    right |= u64::from(place.offset) == offset && place.len == entry.len;
                }
            }
            // The same chunk may be in a pack twice; one place that is right will do.
            if listed && !right && table.iter().filter(|e| e.id == entry.id).nth(1).is_none() {
                bad.push(entry.id);
                reason =
                    reason.or_else(|| Some(format!("the index has chunk {} at a wrong place", entry.id)));
            }
            offset += u64::from(entry.len);
        }
        Ok((bad, reason))
    }

    /// Opens all frames in order and identifies all chunks; those that are bad, and the first reason.
    fn chunks(
        &mut self,
        reader: &PackReader<'_>,
        table: &[ChunkEntry],
        kind: ChunkKind,
        bytes: &mut [u8],
    ) -> Result<(Vec<ChunkId>, Option<String>)> {
        let domain = reader.pack().header.domain;
        if !matches!(&self.key, Some((d, k, _)) if *d == domain && *k == kind) {
            self.key = Some((domain, kind, self.repository.keyring().id_key(domain, kind)?));
        }
        let Some((.., key)) = &self.key else { return Err(Error::Interrupted) };
        let (mut bad, mut reason) = (Vec::new(), None);
        let mut entries = table.iter();
        let mut entry = entries.next();
        let mut at = HEADER_LEN;
        self.chunk.clear();
        for (number, frame) in reader.frames().iter().enumerate() {
            let sealed = bytes.get_mut(at..at + frame.sealed as usize).unwrap_or_default();
            at += frame.sealed as usize;
            if let Err(e) = reader.open(number, sealed, &mut self.expander, &mut self.plain) {
                reason = reason.or(Some(e.to_string()));
                // Chunks that lie in it will not identify; the stream goes on behind it.
                self.plain.clear();
                self.plain.resize(frame.raw as usize, 0);
            }
            let mut rest = self.plain.as_slice();
            while let Some(e) = entry {
                let missing = e.len as usize - self.chunk.len();
                let (now, later) = rest.split_at(missing.min(rest.len()));
                self.chunk.extend_from_slice(now);
                rest = later;
                if self.chunk.len() < e.len as usize {
                    break;
                }
                if key.identify(&self.chunk) != e.id {
                    bad.push(e.id);
                    reason = reason.or_else(|| Some(format!("chunk {} is not what its id says", e.id)));
                }
                self.chunk.clear();
                entry = entries.next();
            }
        }
        Ok((bad, reason))
    }
}
