//! Packs: those the index lists are there with the right size; those chosen are read whole, every frame opened and
//! every chunk identified again.

use super::rotation::{DAY, Turn, due};
use super::{Bad, CheckReport, ReadData};
use crate::backend::BackendError;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::index::{Index, Place};
use crate::repository::pack::{PackReader, object_name, tail};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::limits::PACK_SIZE_MAX;
use bulla_repo_format::pack::{ChunkEntry, HEADER_LEN, PackKind};
use bulla_repo_format::{Area, ChunkId, ObjectName, PackName};
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
    /// No pack is begun after this.
    pub(super) until: Option<Instant>,
}

impl Scope {
    /// True if it is asked about.
    pub(super) fn has(&self, name: &PackName) -> bool {
        self.needed.as_ref().is_none_or(|n| n.contains(name))
    }
}

/// What was read whole.
pub(super) struct Done {
    /// Those packs, good and bad.
    pub(super) packs: Vec<PackName>,
    /// Those that are not what was put, although perhaps all chunks in them are.
    pub(super) bad: HashSet<PackName>,
    /// Packs that are listed and are not there, or not in their length: that is known without reading.
    pub(super) gone: HashSet<PackName>,
    /// Somebody stopped it before all were.
    pub(super) interrupted: bool,
}

/// Compares listing and index, then reads the chosen packs with all cores.
pub(super) fn check(
    repository: &Repository,
    index: &Index,
    scope: &Scope,
    observer: &dyn Observer,
    report: &mut CheckReport,
    bad: &mut Bad,
) -> Result<Done> {
    let all = repository.present_packs()?;
    let some: BTreeMap<Key, u64>;
    let present = if scope.needed.is_some() {
        some = all.iter().filter(|((name, _), _)| scope.has(name)).map(|(k, s)| (*k, *s)).collect();
        &some
    } else {
        &all
    };
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
    let gone = bad.packs.clone();
    let orphans = present.keys().filter(|k| !listed.contains(k)).count();
    if orphans > 0 {
        report.notices.push(format!(
            "{orphans} packs are in no index run (of an interrupted backup, or not indexed yet)"
        ));
    }
    let mut chosen: Vec<(Key, u64)> = choose(repository, scope.read_data, present, &all)?;
    // A prune is deleting them, or was when it stopped.
    chosen.retain(|((name, _), _)| !index.is_deleted(name));
    let read = read_all(repository, index, &chosen, scope.until, &Worker::read, observer)?;
    report.packs_read = read.done.len() as u64;
    report.packs_left = (chosen.len() - read.done.len()) as u64;
    report.bytes_read = read.bytes;
    let found = read.found.iter().map(|((name, _), _)| *name).collect();
    note(read.found, report, bad);
    condemned(repository, index, present, &read.done, report, bad)?;
    Ok(Done { packs: read.done, bad: found, gone, interrupted: read.interrupted })
}

/// Packs that were found damaged before are no news; what is still needed of them is, and the tree phase says so.
fn condemned(
    repository: &Repository,
    index: &Index,
    present: &BTreeMap<Key, u64>,
    read: &[PackName],
    report: &mut CheckReport,
    bad: &mut Bad,
) -> Result<()> {
    let mut damaged = HashSet::new();
    for run in repository.list_runs(Area::Marks)? {
        match repository.read_mark(&run) {
            Ok(mark) => damaged.extend(mark.filter(|m| m.damaged).into_iter().flat_map(|m| m.victims)),
            // A finding already, and no reason to look at nothing else.
            Err(e) if e.is_damage() => {}
            Err(e) => return Err(e),
        }
    }
    damaged.retain(|name| !index.is_deleted(name));
    if damaged.is_empty() {
        return Ok(());
    }
    report.findings.retain(|f| match ObjectName::parse(&f.object) {
        Some(ObjectName::Pack(name) | ObjectName::Meta(name)) => !damaged.contains(&name),
        _ => true,
    });
    let there = present.keys().filter(|(name, _)| damaged.contains(name)).count();
    if there > 0 {
        report.notices.push(format!(
            "{there} packs were found damaged before; a prune deletes them when nothing needs them any more"
        ));
    }
    let read: HashSet<&PackName> = read.iter().collect();
    bad.packs.extend(damaged.into_iter().filter(|name| !read.contains(name)));
    Ok(())
}

/// Reads packs whole, and again those that were bad, so that what a cable did is not taken for damage; what is damaged,
/// and why.
pub(crate) fn damaged(
    repository: &Repository,
    index: &Index,
    packs: &[(Key, u64)],
    observer: &dyn Observer,
) -> Result<Vec<(Key, String)>> {
    let verify = |worker: &mut Worker<'_>, key: Key| Ok(worker.verify(key)?.0);
    let mut out = Vec::new();
    let read = read_all(repository, index, packs, None, &verify, observer)?;
    if read.interrupted {
        return Err(Error::Interrupted);
    }
    for (key, _) in read.found {
        let reason = match Worker::new(repository, index).verify(key)?.0 {
            Read::Good => continue,
            Read::Chunks(_, reason) | Read::Whole(reason) => reason,
        };
        // Deleted meanwhile is not damaged.
        if repository.backend().stat(&object_name(key.1, key.0))?.is_some() {
            out.push((key, reason));
        }
    }
    out.sort();
    Ok(out)
}

/// Why bytes that somebody has for a pack are not it, if they are not.
pub(crate) fn flaw(repository: &Repository, index: &Index, key: Key, bytes: &[u8]) -> Result<Option<String>> {
    if let Err(e) = tail::read_whole(repository, key.1, key.0, bytes) {
        return if e.is_damage() { Ok(Some(e.to_string())) } else { Err(e) };
    }
    Ok(match Worker::new(repository, index).judge(key, &mut bytes.to_vec())?.0 {
        Read::Good => None,
        Read::Chunks(_, reason) | Read::Whole(reason) => Some(reason),
    })
}

/// True if a prune has deleted the pack: graves are there before packs go.
fn buried_since(repository: &Repository, index: &Index, name: &PackName) -> Result<bool> {
    if !index.is_deleted(name) {
        index.refresh(repository)?;
    }
    Ok(index.is_deleted(name))
}

fn choose(
    repository: &Repository,
    which: ReadData,
    present: &BTreeMap<Key, u64>,
    everything: &BTreeMap<Key, u64>,
) -> Result<Vec<(Key, u64)>> {
    let number = |name: &PackName, seed: &[u8; 32]| {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::keyed_hash(seed, name.as_bytes()).as_bytes();
        u64::from_le_bytes([a, b, c, d, e, f, g, h])
    };
    let all = present.iter().map(|(k, s)| (*k, *s));
    Ok(match which {
        ReadData::Within { days } => turns(repository, present, days)?,
        ReadData::Proven { days } => {
            let evidence = repository.evidence()?;
            let now = repository.env().clock.now().seconds;
            let age = |name| evidence.read_at(name).map(|at| now.saturating_sub(at));
            let fresh = |name| age(name).is_some_and(|age| (0..=i64::from(days) * DAY).contains(&age));
            // Whatever is not asked about has its turn, too: nobody else may ever read it.
            let mut chosen: BTreeMap<Key, u64> = turns(repository, everything, days)?.into_iter().collect();
            chosen.extend(present.iter().filter(|((name, _), _)| !fresh(name)).map(|(k, s)| (*k, *s)));
            chosen.into_iter().collect()
        }
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
    let evidence = repository.evidence()?;
    let mut packs = Vec::with_capacity(present.len());
    for (key, size) in present {
        let since = match evidence.read_at(&key.0) {
            Some(at) => at,
            None => {
                let stat = repository.backend().stat(&object_name(key.1, key.0))?;
                stat.map_or(i64::MIN, |s| s.modified)
            }
        };
        packs.push(Turn { key: *key, size: *size, since });
    }
    let now = repository.env().clock.now().seconds;
    Ok(due(packs, now, evidence.last_read(), days).into_iter().map(|t| (t.key, t.size)).collect())
}

/// What reading one pack found.
enum Read {
    Good,
    /// Some chunks are bad, for this reason.
    Chunks(Vec<ChunkId>, String),
    /// Nothing of it can be trusted.
    Whole(String),
}

/// What was read.
struct ReadPacks {
    /// Packs that were read to the end.
    done: Vec<PackName>,
    /// Those of them that are not good.
    found: Vec<(Key, Read)>,
    bytes: u64,
    interrupted: bool,
}

/// Reads packs with all cores, until it is too late or somebody stops it.
fn read_all<'r>(
    repository: &'r Repository,
    index: &'r Index,
    chosen: &[(Key, u64)],
    until: Option<Instant>,
    read: &(dyn Fn(&mut Worker<'r>, Key) -> Result<Read> + Sync),
    observer: &dyn Observer,
) -> Result<ReadPacks> {
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
                    match read(&mut worker, *key) {
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
    Ok(ReadPacks {
        done: done.into_inner().unwrap_or_else(|e| e.into_inner()),
        found: results.into_inner().unwrap_or_else(|e| e.into_inner()),
        bytes: bytes.into_inner(),
        interrupted: observer.interrupted(),
    })
}

fn note(found: Vec<(Key, Read)>, report: &mut CheckReport, bad: &mut Bad) {
    for ((name, kind), read) in found {
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

    /// Reads one pack whole, and looks whether the index has it right.
    fn read(&mut self, key: Key) -> Result<Read> {
        let (read, table) = self.verify(key)?;
        let (lost, misplaced) = self.misplaced(key.0, &table)?;
        Ok(match (read, misplaced) {
            (Read::Chunks(bad, reason), _) => Read::Chunks([bad, lost].concat(), reason),
            (Read::Good, Some(reason)) => Read::Chunks(lost, reason),
            (read, _) => read,
        })
    }

    /// Reads one pack whole; its table, as far as there is one. Damage is a finding; a store that cannot be reached is
    /// an error.
    fn verify(&mut self, (name, kind): Key) -> Result<(Read, Vec<ChunkEntry>)> {
        let whole = |reason: String| Ok((Read::Whole(reason), Vec::new()));
        let object = object_name(kind, name);
        let mut bytes = match self.repository.backend().get_stored(&object, PACK_SIZE_MAX) {
            Ok(bytes) => bytes,
            Err(BackendError::NotFound { .. }) if buried_since(self.repository, self.index, &name)? => {
                return Ok((Read::Good, Vec::new()));
            }
            Err(e @ (BackendError::Io { .. } | BackendError::NotFound { .. })) => {
                return whole(e.to_string());
            }
            Err(e) => return Err(e.into()),
        };
        self.judge((name, kind), &mut bytes)
    }

    /// Whether bytes are the pack's, every frame opens and every chunk is what its id says.
    fn judge(&mut self, (name, kind): Key, bytes: &mut [u8]) -> Result<(Read, Vec<ChunkEntry>)> {
        let whole = |reason: String| Ok((Read::Whole(reason), Vec::new()));
        let (tail, flaw) = match tail::read_whole(self.repository, kind, name, bytes) {
            Ok(tail) => (tail, None),
            // The bytes are not those that were put. Its frames may still be good: find out which.
            Err(e) => match tail::read(self.repository, kind, name, bytes.len() as u64) {
                Ok(tail) => (tail, Some(e.to_string())),
                Err(_) => return whole(e.to_string()),
            },
        };
        let reader = match PackReader::new(self.repository, std::sync::Arc::new(tail.pack)) {
            Ok(reader) => reader,
            Err(e) => return whole(e.to_string()),
        };
        let kind = if kind == PackKind::Data { ChunkKind::Data } else { ChunkKind::Meta };
        let (chunks, reason) = self.chunks(&reader, &tail.directory.chunks, kind, bytes)?;
        let read = match flaw.or(reason) {
            None if chunks.is_empty() => Read::Good,
            reason => Read::Chunks(chunks, reason.unwrap_or_else(|| "chunks are not what they say".into())),
        };
        Ok((read, tail.directory.chunks))
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
