//! Content: each frame is fetched and expanded once, every chunk in it identified, and every file that needs it written
//! while the bytes are hot.
//!
//! Kept true: no byte is written before its chunk's id was checked under its key; a chunk that lies across frames is
//! put together from the workers that hold its parts; what one place cannot give is tried elsewhere before a file is
//! called damaged.

use super::super::Context;
use super::super::plan::{Action, Comparison, Fact};
use super::super::report::add;
use super::super::safe_dir::{Identity, SafeDir};
use super::super::schedule::{Job, Piece, Schedule, group_end, spans};
use super::super::wave::{Item, Wave};
use super::write::Writer;
use crate::error::Result;
use crate::repository::chunks::ChunkReader;
use crate::repository::index::{PackRef, Place};
use crate::repository::pack::{PackReader, SPAN};
use bulla_repo_format::PackName;
use bulla_repo_format::frame::Expander;
use bulla_repo_format::keys::{ChunkKind, IdKey};
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::tree::{ChunkRef, EntryKind};
use rustix::fd::OwnedFd;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A file written in pieces.
struct Progress {
    left: u64,
    identity: Option<Identity>,
    failed: bool,
}

/// A chunk that lies across frames, while its parts come in.
struct Straddler {
    bytes: Vec<u8>,
    left: usize,
    failed: bool,
}

/// A pack of the wave.
struct Source<'r> {
    reader: PackReader<'r>,
    key: IdKey,
}

/// What the workers of a wave share.
struct Fetch<'c, 'r> {
    context: &'c Context<'r>,
    items: &'c [Item],
    refs: &'c [ChunkRef],
    sources: Vec<Source<'r>>,
    schedule: Schedule,
    straddlers: Mutex<HashMap<usize, Straddler>>,
    progress: HashMap<u32, Mutex<Progress>>,
    /// What a first attempt did not give: pieces of large files, and whole files.
    lost: Mutex<(Vec<Piece>, Vec<u32>)>,
}

/// A worker.
struct Worker<'c, 'r> {
    writer: Writer<'c, 'r>,
    expander: Expander,
    plain: Vec<u8>,
    /// Pieces of whole files in the frame at hand: file, place in it, place in the frame, length, good.
    whole: Vec<(u32, u64, usize, usize, bool)>,
    /// The large file written to last.
    open: Option<(u32, OwnedFd)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Restores the content of a wave's files.
pub(super) fn content(context: &Context<'_>, root: &SafeDir, wave: &Wave) -> Result<()> {
    let (sources, schedule, lost) = plan(context, wave)?;
    let mut progress: HashMap<u32, Mutex<Progress>> = HashMap::new();
    for piece in schedule.pieces.iter().chain(&lost) {
        if !schedule.whole.get(piece.file as usize).copied().unwrap_or(false) {
            let new = || Mutex::new(Progress { left: 0, identity: None, failed: false });
            let p = progress.entry(piece.file).or_insert_with(new);
            p.get_mut().unwrap_or_else(PoisonError::into_inner).left += 1;
        }
    }
    let fetch = Fetch {
        context,
        items: &wave.items,
        refs: &wave.refs,
        sources,
        schedule,
        straddlers: Mutex::default(),
        progress,
        lost: Mutex::new((lost, Vec::new())),
    };
    let start = || fetch.worker(root);
    let spans = spans(&fetch.schedule.jobs, span_limit(context), |job| fetch.sealed_len(job));
    let jobs = super::each(context, spans.len(), start, |worker, number| {
        context.tally.check_interrupt()?;
        spans.get(number).map_or(Ok(()), |span| fetch.span(worker, span.clone()))
    });
    let done = jobs.and_then(|()| fetch.rescue(root));
    if done.is_err() {
        fetch.discard_incomplete(root);
    }
    done
}

/// Packs, the order in which they are fetched, and what no pack has.
fn plan<'r>(context: &Context<'r>, wave: &Wave) -> Result<(Vec<Source<'r>>, Schedule, Vec<Piece>)> {
    let (sources, pieces, lost) = locate(context, wave)?;
    let mut apart: Vec<bool> = wave.items.iter().map(|i| i.action == Action::Rewrite).collect();
    for piece in &lost {
        if let Some(a) = apart.get_mut(piece.file as usize) {
            *a = true;
        }
    }
    let frames =
        |pack: u32, range: Range<u64>| sources.get(pack as usize).map_or(0..0, |s| s.reader.frames_of(range));
    let schedule = Schedule::new(pieces, &wave.refs, apart, frames);
    Ok((sources, schedule, lost))
}

fn sealed_len(sources: &[Source<'_>], job: &Job) -> u64 {
    let frames = sources.get(job.pack as usize).map_or(&[][..], |s| s.reader.frames());
    frames.get(job.frame as usize).map_or(0, |f| f.sealed.into())
}

/// Nearby each frame is a request of its own, and so the work of one worker; at a distance a request carries more.
fn span_limit(context: &Context<'_>) -> u64 {
    if context.repository.backend().describe().local { 0 } else { SPAN }
}

/// Adds what the content of a wave's files would have to be fetched for; of files too long for a wave, their lengths.
pub(in super::super) fn estimate(context: &Context<'_>, wave: &Wave, out: &mut Estimate) -> Result<()> {
    let (sources, schedule, _) = plan(context, wave)?;
    let job = |job: &Job| sealed_len(&sources, job);
    out.requests += spans(&schedule.jobs, span_limit(context), job).len() as u64;
    out.bytes += schedule.jobs.iter().map(job).sum::<u64>();
    let used = schedule.jobs.iter().filter_map(|job| sources.get(job.pack as usize));
    out.packs.extend(used.map(|s| s.reader.pack().name));
    let long = wave.items.iter().filter(|i| matches!(i.action, Action::Create | Action::Replace));
    out.bytes += long.filter(|i| i.long().is_some()).map(|i| i.entry.size()).sum::<u64>();
    Ok(())
}

/// What a restore would fetch.
#[derive(Default)]
pub(in super::super) struct Estimate {
    pub(in super::super) packs: HashSet<PackName>,
    pub(in super::super) bytes: u64,
    pub(in super::super) requests: u64,
}

/// A first place for every reference wanted; places in packs already needed come first.
type Located<'r> = (Vec<Source<'r>>, Vec<Piece>, Vec<Piece>);

fn locate<'r>(context: &Context<'r>, wave: &Wave) -> Result<Located<'r>> {
    let mut sources: Vec<Source<'r>> = Vec::new();
    let mut numbers: HashMap<PackRef, Option<u32>> = HashMap::new();
    let (mut pieces, mut lost, mut places) = (Vec::new(), Vec::new(), Vec::<Place>::new());
    for (file, item) in (0u32..).zip(&wave.items) {
        let mut at = 0u64;
        for (nth, number) in (0u32..).zip(item.refs.clone()) {
            let Some(chunk) = wave.refs.get(number) else { continue };
            let reference = u32::try_from(number).unwrap_or(u32::MAX);
            let mut piece = Piece { pack: 0, offset: 0, reference, file, at };
            at += u64::from(chunk.len);
            if !wanted(item, nth) {
                continue;
            }
            context.index.places(&chunk.id, &mut places)?;
            places.retain(|p| p.len == chunk.len);
            places.sort_by_key(|p| !numbers.contains_key(&p.pack));
            let mut found = None;
            for place in &places {
                let pack = match numbers.get(&place.pack) {
                    Some(known) => *known,
                    None => {
                        let opened = open(context, place.pack, &mut sources)?;
                        numbers.insert(place.pack, opened);
                        opened
                    }
                };
                if let Some(pack) = pack {
                    found = Some((pack, place.offset));
                    break;
                }
            }
            match found {
                Some((pack, offset)) => {
                    (piece.pack, piece.offset) = (pack, offset);
                    pieces.push(piece);
                }
                None => lost.push(piece),
            }
        }
    }
    Ok((sources, pieces, lost))
}

/// True if the `nth` chunk of a file must be written.
fn wanted(item: &Item, nth: u32) -> bool {
    if !matches!(item.entry.kind, EntryKind::File { .. }) {
        return false;
    }
    match (item.action, &item.fact) {
        (Action::Create | Action::Replace, _) => true,
        (Action::Rewrite, Fact::Present(found)) => match &found.content {
            Comparison::Differs(which) => which.binary_search(&nth).is_ok(),
            _ => true,
        },
        _ => false,
    }
}

/// A reader for a data pack, or `None` if it cannot be used.
fn open<'r>(context: &Context<'r>, pack: PackRef, sources: &mut Vec<Source<'r>>) -> Result<Option<u32>> {
    let pack = context.index.pack(pack)?;
    if pack.header.kind != PackKind::Data {
        return Ok(None);
    }
    let Ok(key) = context.repository.keyring().id_key(pack.header.domain, ChunkKind::Data) else {
        return Ok(None);
    };
    match PackReader::new(context.repository, pack) {
        Ok(reader) => {
            sources.push(Source { reader, key });
            Ok(u32::try_from(sources.len() - 1).ok())
        }
        Err(e) if e.is_damage() => {
            context.tally.warn(&e.to_string());
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

impl<'c, 'r> Fetch<'c, 'r> {
    fn worker(&self, root: &SafeDir) -> Worker<'c, 'r> {
        Worker {
            writer: Writer::new(self.context, root.handle()),
            expander: Expander::new(),
            plain: Vec::new(),
            whole: Vec::new(),
            open: None,
        }
    }

    fn item(&self, file: u32) -> Option<&'c Item> {
        self.items.get(file as usize)
    }

    fn len(&self, piece: &Piece) -> u64 {
        self.refs.get(piece.reference as usize).map_or(0, |r| r.len.into())
    }

    fn is_whole(&self, file: u32) -> bool {
        self.schedule.whole.get(file as usize).copied().unwrap_or(false)
    }

    fn sealed_len(&self, job: &Job) -> u64 {
        sealed_len(&self.sources, job)
    }

    /// Fetches consecutive frames of a pack in one request, then decodes each and writes what it holds.
    fn span(&self, worker: &mut Worker<'c, 'r>, mut span: Range<usize>) -> Result<()> {
        let jobs = self.schedule.jobs.get(span.clone()).unwrap_or_default();
        let (Some(first), Some(last)) = (jobs.first(), jobs.last()) else { return Ok(()) };
        let Some(source) = self.sources.get(first.pack as usize) else { return Ok(()) };
        let mut bytes = match source.reader.fetch(first.frame as usize..last.frame as usize + 1) {
            Ok(bytes) => bytes,
            // A pack that is too short may still hold some of them.
            Err(e) if e.is_damage() && jobs.len() > 1 => {
                return span.try_for_each(|n| self.span(worker, n..n + 1));
            }
            Err(e) => return self.run(worker, source, first, Err(e)),
        };
        let mut rest = bytes.as_mut_slice();
        for job in jobs {
            let len = usize::try_from(self.sealed_len(job)).unwrap_or(usize::MAX);
            let (sealed, behind) = rest.split_at_mut(len.min(rest.len()));
            self.run(worker, source, job, Ok(sealed))?;
            rest = behind;
        }
        Ok(())
    }

    /// Decodes one frame and writes what it holds.
    fn run(
        &self,
        worker: &mut Worker<'c, 'r>,
        source: &Source<'r>,
        job: &Job,
        sealed: Result<&mut [u8]>,
    ) -> Result<()> {
        let frame = job.frame as usize;
        let mut plain = std::mem::take(&mut worker.plain);
        let decoded =
            sealed.and_then(|sealed| source.reader.open(frame, sealed, &mut worker.expander, &mut plain));
        let whole = match decoded {
            Ok(()) => {
                add(&self.context.tally.counts.frames_decoded, 1);
                true
            }
            Err(e) if e.is_damage() => {
                self.context.tally.warn(&e.to_string());
                false
            }
            Err(e) => return Err(e),
        };
        let start = source.reader.raw_start(frame);
        let end = source.reader.raw_start(frame + 1);
        worker.whole.clear();
        let mut at = job.pieces.start;
        while at < job.pieces.end {
            let next = group_end(&self.schedule.pieces, self.refs, at);
            self.group(worker, source, at..next, (start..end, whole.then_some(&plain)))?;
            at = next;
        }
        let (files, bytes) = self.whole_files(worker, &plain)?;
        self.context.tally.progress(files, bytes);
        worker.plain = plain;
        Ok(())
    }

    /// One chunk, as far as it lies in the frame `range`, whose bytes are `plain` if it could be decoded.
    fn group(
        &self,
        worker: &mut Worker<'c, 'r>,
        source: &Source<'r>,
        group: Range<usize>,
        (range, plain): (Range<u64>, Option<&Vec<u8>>),
    ) -> Result<()> {
        let pieces = self.schedule.pieces.get(group.clone()).unwrap_or_default();
        let Some(first) = pieces.first() else { return Ok(()) };
        let (start, len) = (u64::from(first.offset), self.len(first));
        let (from, to) = (start.max(range.start), (start + len).min(range.end));
        if from >= to {
            return Ok(());
        }
        let local = |n: u64| usize::try_from(n.saturating_sub(range.start)).unwrap_or(usize::MAX);
        let bytes = plain.and_then(|p| p.get(local(from)..local(to)));
        if to - from < len {
            let done = self.straddle(group.start, bytes, from - start, to - from, len);
            return match done {
                None => Ok(()),
                Some(bytes) => {
                    let good = bytes.filter(|b| self.is_right(source, first, b));
                    self.pieces(worker, pieces, good.as_deref())
                }
            };
        }
        let good = bytes.filter(|b| self.is_right(source, first, b));
        for p in pieces.iter().filter(|p| self.is_whole(p.file)) {
            let place = (local(from), usize::try_from(len).unwrap_or(0));
            worker.whole.push((p.file, p.at, place.0, place.1, good.is_some()));
        }
        self.pieces(worker, pieces, good)
    }

    fn is_right(&self, source: &Source<'_>, piece: &Piece, bytes: &[u8]) -> bool {
        self.refs.get(piece.reference as usize).is_some_and(|r| source.key.identify(bytes) == r.id)
    }

    /// Adds a part of a chunk; returns the chunk with its last part: its bytes, or `None` if one is missing.
    fn straddle(
        &self,
        group: usize,
        part: Option<&[u8]>,
        at: u64,
        part_len: u64,
        len: u64,
    ) -> Option<Option<Vec<u8>>> {
        let size = |n: u64| usize::try_from(n).unwrap_or(0);
        let mut all = lock(&self.straddlers);
        let entry = all.entry(group).or_insert_with(|| Straddler {
            bytes: vec![0; size(len)],
            left: size(len),
            failed: false,
        });
        let room = entry.bytes.get_mut(size(at)..size(at) + size(part_len));
        match (room, part) {
            (Some(room), Some(part)) if room.len() == part.len() => room.copy_from_slice(part),
            _ => entry.failed = true,
        }
        entry.left = entry.left.saturating_sub(size(part_len));
        if entry.left > 0 {
            return None;
        }
        let done = all.remove(&group)?;
        Some((!done.failed).then_some(done.bytes))
    }

    /// Writes a chunk to the large files that want it, or notes that it is lost here.
    fn pieces(&self, worker: &mut Worker<'c, 'r>, pieces: &[Piece], good: Option<&[u8]>) -> Result<()> {
        for piece in pieces.iter().filter(|p| !self.is_whole(p.file)) {
            match good {
                Some(bytes) => self.piece(worker, piece, Some(bytes))?,
                None => lock(&self.lost).0.push(*piece),
            }
        }
        Ok(())
    }

    /// Writes one piece of a large file; the last one completes it. `None`: there is no such chunk any more.
    fn piece(&self, worker: &mut Worker<'c, 'r>, piece: &Piece, bytes: Option<&[u8]>) -> Result<()> {
        let (Some(item), Some(progress)) = (self.item(piece.file), self.progress.get(&piece.file)) else {
            return Ok(());
        };
        let written = match bytes {
            Some(bytes) => self.write(worker, item, progress, piece, bytes),
            None => {
                lock(progress).failed = true;
                Ok(())
            }
        };
        if let Err(e) = written {
            let first = !std::mem::replace(&mut lock(progress).failed, true);
            if first {
                self.context.tally.target_error(e)?;
            }
        }
        let (left, failed, identity) = {
            let mut p = lock(progress);
            p.left = p.left.saturating_sub(1);
            (p.left, p.failed, p.identity)
        };
        if left > 0 {
            return Ok(());
        }
        let done = match worker.open.take() {
            _ if failed && identity.is_none() => Ok(()),
            _ if failed => worker.writer.discard(item),
            Some((file, fd)) if file == piece.file => worker.writer.complete(item, &fd, false),
            _ => Ok(()),
        };
        self.context.tally.progress(1, item.entry.size());
        done.or_else(|e| self.context.tally.target_error(e))
    }

    fn write(
        &self,
        worker: &mut Worker<'c, 'r>,
        item: &Item,
        progress: &Mutex<Progress>,
        piece: &Piece,
        bytes: &[u8],
    ) -> Result<()> {
        if worker.open.as_ref().is_none_or(|(file, _)| *file != piece.file) {
            worker.open = None;
            let mut p = lock(progress);
            if p.failed {
                return Ok(());
            }
            let fd = match p.identity {
                Some(identity) => worker.writer.resume(item, identity)?,
                None => {
                    let (fd, identity) = worker.writer.begin(item)?;
                    p.identity = Some(identity);
                    fd
                }
            };
            drop(p);
            worker.open = Some((piece.file, fd));
        }
        worker.open.as_ref().map_or(Ok(()), |(_, fd)| worker.writer.put(item, fd, piece.at, bytes))
    }

    /// Writes the files whose content lies in this frame alone.
    fn whole_files(&self, worker: &mut Worker<'c, 'r>, plain: &[u8]) -> Result<(u64, u64)> {
        let mut whole = std::mem::take(&mut worker.whole);
        whole.sort_unstable();
        let (mut files, mut bytes) = (0, 0);
        for run in whole.chunk_by(|a, b| a.0 == b.0) {
            let Some((item, file)) = run.first().and_then(|r| Some((self.item(r.0)?, r.0))) else { continue };
            if run.iter().any(|r| !r.4) {
                lock(&self.lost).1.push(file);
                continue;
            }
            let done = worker.writer.make_room(item).and_then(|()| {
                worker.writer.whole(item, &mut |fd, writer| {
                    for (_, at, from, len, _) in run {
                        let data = plain.get(*from..from + len).unwrap_or_default();
                        writer.put(item, fd, *at, data)?;
                    }
                    Ok(true)
                })
            });
            done.or_else(|e| self.context.tally.target_error(e))?;
            (files, bytes) = (files + 1, bytes + item.entry.size());
        }
        worker.whole = whole;
        Ok((files, bytes))
    }

    /// Before the run ends with an error: new files that are not complete go. One that was there before and is being
    /// rewritten stays, with a modification time that tells.
    fn discard_incomplete(&self, root: &SafeDir) {
        let mut writer = Writer::new(self.context, root.handle());
        for (file, progress) in &self.progress {
            let (Some(item), progress) = (self.item(*file), lock(progress)) else { continue };
            if progress.left > 0 && progress.identity.is_some() && item.action != Action::Rewrite {
                // The error that ends the run is the one to tell.
                let _ = writer.discard(item);
            }
        }
    }

    /// Tries every other place for what was lost, and reports what is nowhere.
    fn rescue(&self, root: &SafeDir) -> Result<()> {
        let (pieces, files) = std::mem::take(&mut *lock(&self.lost));
        if pieces.is_empty() && files.is_empty() {
            return Ok(());
        }
        let mut worker = self.worker(root);
        let mut reader = ChunkReader::new(self.context.repository, self.context.index);
        let mut bytes = Vec::new();
        for piece in &pieces {
            let (Some(item), Some(chunk)) = (self.item(piece.file), self.refs.get(piece.reference as usize))
            else {
                continue;
            };
            self.context.tally.check_interrupt()?;
            if self.progress.get(&piece.file).is_some_and(|p| lock(p).failed) {
                self.piece(&mut worker, piece, None)?;
                continue;
            }
            match reader.read_exactly(ChunkKind::Data, chunk, &mut bytes) {
                Ok(()) => self.piece(&mut worker, piece, Some(&bytes))?,
                Err(e) if e.is_damage() => {
                    self.context.tally.damage(item.entry.path(), e.to_string());
                    self.piece(&mut worker, piece, None)?;
                }
                Err(e) => return Err(e),
            }
        }
        for file in files {
            let Some(item) = self.item(file) else { continue };
            let refs = self.refs.get(item.refs.clone()).unwrap_or_default();
            let done = worker.writer.make_room(item).and_then(|()| {
                worker.writer.whole(item, &mut |fd, writer| {
                    let mut at = 0;
                    for chunk in refs {
                        match reader.read_exactly(ChunkKind::Data, chunk, &mut bytes) {
                            Ok(()) => writer.put(item, fd, at, &bytes)?,
                            Err(e) if e.is_damage() => {
                                self.context.tally.damage(item.entry.path(), e.to_string());
                                return Ok(false);
                            }
                            Err(e) => return Err(e),
                        }
                        at += u64::from(chunk.len);
                    }
                    Ok(true)
                })
            });
            done.or_else(|e| self.context.tally.target_error(e))?;
        }
        Ok(())
    }
}
