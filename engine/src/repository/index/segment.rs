//! One index run in searchable form: the run's body as it is, a table of pack offsets, and a MAC per page.
//!
//! ```text
//! body ‖ pack offsets u32… ‖ page MACs [16]… ‖ footer[72]
//! footer = body length u64, packs u32, records u32, graves u32, 0 u32, magic[16], MAC[32] over name ‖ footer ‖ page MACs
//! ```
//! Cache files are local and not part of the format. They are trusted no more than the store: the footer's MAC is
//! checked when a file is mapped, a page's MAC when it is first touched.

use super::Repository;
use super::mapped::{self, Mapped, PAGE, Window};
use crate::error::{Error, Result};
use bulla_repo_format::codec::{Reader, Write};
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun, KEY_LEN, RECORD_LEN};
use bulla_repo_format::pack::{FrameEntry, HEADER_LEN, PackHeader};
use bulla_repo_format::{ClientId, FormatError, IndexName, ObjectName, PackName, RunId};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MAC: usize = 16;
/// Records for each key that is looked for, from which on a look-up of each is cheaper than reading them all.
const SPARSE: usize = 16;
const FOOTER: usize = 72;
const MAGIC: &[u8; 16] = b"bulla index v1\0\0";

/// A record that was found by its key: its number, and what it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its number in the run.
    pub record: u32,
    /// The pack's number in the run.
    pub pack: u32,
    /// Offset in the pack's plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
}

impl Found {
    /// What follows the key in a record.
    fn read(record: usize, bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new("index cache", bytes);
        let record = u32::try_from(record).unwrap_or(u32::MAX);
        Ok(Self { record, pack: r.u32()?, offset: r.u32()?, len: r.u32()? })
    }
}

/// A run that can be searched.
pub struct Segment {
    name: IndexName,
    bytes: Arc<Mapped>,
    /// The cache file, which goes when it is found damaged: the next one who opens the index fetches the run again.
    file: Option<PathBuf>,
    body_len: usize,
    packs: u32,
    records: u32,
    /// How far from its place in proportion a key is looked for first.
    reach: usize,
    graves: Vec<PackName>,
    key: [u8; 32],
    /// One bit per page: its MAC was checked.
    verified: Vec<AtomicU64>,
}

/// Opens a run from the cache, or from the store (and caches it).
pub(super) fn open(repository: &Repository, name: &IndexName, window: &Arc<Window>) -> Result<Segment> {
    let key = *repository.keyring().cache_key().expose();
    let file = directory(repository).map(|d| d.join(name.to_string()));
    if let Some(segment) = file.as_deref().and_then(|f| map(f, name, key, window)) {
        return Ok(segment);
    }
    let mut run = repository.fetch_index_run(name)?;
    let bytes = encode(name, &mut run, &key);
    // A cache that cannot be written costs time, never correctness.
    if let Some(file) = file
        && store(&file, &bytes).is_ok()
        && let Some(segment) = map(&file, name, key, window)
    {
        return Ok(segment);
    }
    parse(Mapped::owned(bytes), name, key).ok_or_else(|| damaged(name, "its local form does not read back"))
}

/// Caches a run that this process has put: the next one who opens the index need not fetch it.
pub(super) fn keep(repository: &Repository, name: &IndexName, run: &mut IndexRun) {
    if let Some(dir) = directory(repository) {
        let bytes = encode(name, run, repository.keyring().cache_key().expose());
        // A cache that cannot be written costs time, never correctness.
        let _ = store(&dir.join(name.to_string()), &bytes);
    }
}

/// A run that is in no store yet: what a collector knows of packs without an index run.
pub(super) fn in_memory(repository: &Repository, run: &mut IndexRun) -> Result<Segment> {
    let key = *repository.keyring().cache_key().expose();
    let name = IndexName { generation: super::UNLISTED, hash: repository.env().random() };
    let bytes = encode(&name, run, &key);
    parse(Mapped::owned(bytes), &name, key).ok_or_else(|| damaged(&name, "its local form does not read back"))
}

fn directory(repository: &Repository) -> Option<PathBuf> {
    Some(repository.env().cache.as_ref()?.join(repository.id().to_string()).join("index"))
}

/// Removes cached runs that are in the store no more.
pub(super) fn remove_stale(repository: &Repository, names: &[IndexName]) {
    let Some(entries) = directory(repository).and_then(|d| std::fs::read_dir(d).ok()) else { return };
    for entry in entries.flatten() {
        let known =
            entry.file_name().to_str().and_then(|n| n.parse().ok()).is_some_and(|n| names.contains(&n));
        if !known {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

fn encode(name: &IndexName, run: &mut IndexRun, key: &[u8; 32]) -> Vec<u8> {
    let mut out = run.encode();
    let body_len = out.len();
    let mut offset = 32 + run.inputs.len() * 36 + run.graves.len() * 32;
    for p in &run.packs {
        out.put_u32(u32::try_from(offset).unwrap_or(u32::MAX));
        offset += 160 + p.frames.len() * 8;
    }
    let macs: Vec<u8> = out.chunks(PAGE).enumerate().flat_map(|(i, page)| mac(key, i, page)).collect();
    let mut footer = Vec::with_capacity(FOOTER);
    footer.put_u64(body_len as u64);
    for n in [run.packs.len(), run.records.len(), run.graves.len(), 0] {
        footer.put_u32(u32::try_from(n).unwrap_or(u32::MAX));
    }
    footer.put(MAGIC);
    let seal = footer_mac(key, name, &footer, &macs);
    out.put(&macs);
    out.put(&footer);
    out.put(&seal);
    out
}

/// A key as a number: in the same order, and compared without a call.
fn ordinal(key: &[u8; KEY_LEN]) -> (u128, u32) {
    let [lead @ .., a, b, c, d] = *key;
    (u128::from_be_bytes(lead), u32::from_be_bytes([a, b, c, d]))
}

fn mac(key: &[u8; 32], page: usize, bytes: &[u8]) -> [u8; MAC] {
    let mut h = blake3::Hasher::new_keyed(key);
    h.update(b"page").update(&(page as u64).to_le_bytes()).update(bytes);
    let mut out = [0; MAC];
    h.finalize_xof().fill(&mut out);
    out
}

fn footer_mac(key: &[u8; 32], name: &IndexName, footer: &[u8], macs: &[u8]) -> [u8; 32] {
    let mut h = blake3::Hasher::new_keyed(key);
    h.update(b"footer").update(&name.generation.to_le_bytes()).update(&name.hash).update(footer).update(macs);
    *h.finalize().as_bytes()
}

fn store(file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let dir = file.parent().unwrap_or(Path::new("."));
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(builder.recursive(true), 0o700);
    builder.create(dir)?;
    let temporary = file.with_extension(format!("tmp{}", std::process::id()));
    let mut f = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    mapped::write(&mut f, bytes)?;
    drop(f);
    std::fs::rename(&temporary, file)
}

/// A run that lies in the cache; `None` where there is no cache, or not what this process would have written.
pub(super) fn cached(repository: &Repository, name: &IndexName, window: &Arc<Window>) -> Option<Segment> {
    let key = *repository.keyring().cache_key().expose();
    map(&directory(repository)?.join(name.to_string()), name, key, window)
}

/// Maps a cache file; `None` if it is absent, or not what this process would have written.
fn map(file: &Path, name: &IndexName, key: [u8; 32], window: &Arc<Window>) -> Option<Segment> {
    let mut segment = parse(Mapped::map(&File::open(file).ok()?, window)?, name, key)?;
    segment.file = Some(file.to_path_buf());
    Some(segment)
}

fn parse(bytes: Arc<Mapped>, name: &IndexName, key: [u8; 32]) -> Option<Segment> {
    let all = bytes.get();
    let (head, seal) = all.split_last_chunk::<32>()?;
    let (head, footer) = head.split_at_checked(head.len().checked_sub(FOOTER - 32)?)?;
    let mut r = Reader::new("index cache", footer);
    let body_len = usize::try_from(r.u64().ok()?).ok()?;
    let (packs, records, graves) = (r.u32().ok()?, r.u32().ok()?, r.u32().ok()?);
    r.u32().ok()?;
    let covered = body_len.checked_add((packs as usize).checked_mul(4)?)?;
    let (_, macs) = head.split_at_checked(covered)?;
    let pages = covered.div_ceil(PAGE);
    let sound = r.array::<16>().ok()? == *MAGIC
        && macs.len() == pages * MAC
        && blake3::Hash::from(footer_mac(&key, name, footer, macs)) == blake3::Hash::from(*seal);
    if !sound {
        return None;
    }
    let verified = (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    let mut segment = Segment {
        name: *name,
        bytes,
        file: None,
        body_len,
        packs,
        records,
        reach: records.isqrt() as usize * 3 / 2 + 8,
        graves: Vec::new(),
        key,
        verified,
    };
    segment.graves = segment.read_graves(graves).ok()?;
    Some(segment)
}

fn damaged(name: &IndexName, reason: &str) -> Error {
    Error::Damaged { what: ObjectName::Index(*name).to_string(), reason: reason.to_owned() }
}

impl Segment {
    /// The run it is of.
    pub fn name(&self) -> &IndexName {
        &self.name
    }
    /// Records in the run.
    pub fn records(&self) -> u32 {
        self.records
    }
    /// Packs in the run.
    pub fn packs(&self) -> u32 {
        self.packs
    }
    /// Packs the run knows to be deleted.
    pub fn graves(&self) -> &[PackName] {
        &self.graves
    }

    /// Bytes of the covered part, every page they lie in verified.
    fn slice(&self, start: usize, len: usize) -> Result<&[u8]> {
        let bad = || self.damaged_here();
        let end = start.checked_add(len).ok_or_else(bad)?;
        let covered = self.body_len + self.packs as usize * 4;
        if end > covered {
            return Err(bad());
        }
        for page in start / PAGE..end.div_ceil(PAGE) {
            if self.bytes.is_ready(page) {
                continue;
            }
            let (word, bit) = (self.verified.get(page / 64).ok_or_else(bad)?, 1u64 << (page % 64));
            if word.load(Ordering::Relaxed) & bit == 0 {
                let bytes =
                    self.bytes.get().get(page * PAGE..covered.min((page + 1) * PAGE)).ok_or_else(bad)?;
                let stored = self.bytes.get().get(covered + page * MAC..covered + (page + 1) * MAC);
                if stored != Some(&mac(&self.key, page, bytes)[..]) {
                    return Err(bad());
                }
                word.fetch_or(bit, Ordering::Relaxed);
            }
            self.bytes.touched(page);
        }
        self.bytes.get().get(start..end).ok_or_else(bad)
    }

    /// The error of a page that is not what was cached. The file goes, so that the next run fetches it anew; of several look-ups that
    /// meet the page each says so, whichever of them removed it.
    fn damaged_here(&self) -> Error {
        let gone = |file: &PathBuf| match std::fs::remove_file(file) {
            Ok(()) => true,
            Err(e) => e.kind() == std::io::ErrorKind::NotFound,
        };
        let next = if self.file.as_ref().is_some_and(gone) { " and was removed: run this again" } else { "" };
        damaged(&self.name, &format!("its cached form on this machine is damaged{next}"))
    }

    fn read_graves(&self, n: u32) -> Result<Vec<PackName>> {
        let inputs = u32::from_le_bytes(self.slice(16, 4)?.try_into().unwrap_or_default());
        let bytes = self.slice(32 + inputs as usize * 36, n as usize * 32)?;
        Ok(bytes.chunks_exact(32).filter_map(|c| PackName::from_slice(c).ok()).collect())
    }

    /// Calls `found` with every record under `key`.
    pub fn find(&self, key: &[u8; KEY_LEN], mut found: impl FnMut(Found)) -> Result<()> {
        let n = self.records as usize;
        let mut at = self.lower_bound(key)?;
        while at < n {
            let record = self.slice(self.body_len - (n - at) * RECORD_LEN, RECORD_LEN)?;
            let Some(rest) = record.strip_prefix(key) else { break };
            found(Found::read(at, rest)?);
            at += 1;
        }
        Ok(())
    }

    /// As [`Segment::find`], of many things in ascending order of their keys, each of its own; `found` also gets the thing's number.
    /// Where they are many they are merged with the records, so that each page is looked at once.
    pub fn find_each<T>(
        &self,
        wanted: &[T],
        key: impl Fn(&T) -> &[u8; KEY_LEN],
        mut found: impl FnMut(usize, Found),
    ) -> Result<()> {
        let n = self.records as usize;
        if wanted.len() < n / SPARSE {
            for (number, one) in wanted.iter().enumerate() {
                self.find(key(one), |record| found(number, record))?;
            }
            return Ok(());
        }
        let (mut number, mut at) = (0, 0);
        while at < n {
            let step = (n - at).min(PAGE / RECORD_LEN);
            let bytes = self.slice(self.body_len - (n - at) * RECORD_LEN, step * RECORD_LEN)?;
            for (record, bytes) in (at..).zip(bytes.as_chunks::<RECORD_LEN>().0) {
                let Some((own, rest)) = bytes.split_first_chunk::<KEY_LEN>() else { continue };
                let own = ordinal(own);
                let ahead = wanted.get(number..).unwrap_or_default().iter();
                number += ahead.take_while(|one| ordinal(key(one)) < own).count();
                match wanted.get(number) {
                    None => return Ok(()),
                    Some(one) if ordinal(key(one)) == own => found(number, Found::read(record, rest)?),
                    Some(_) => {}
                }
            }
            at += step;
        }
        Ok(())
    }

    /// The records in order, from first to last: what merging and accounting read.
    pub fn each_record(&self, mut each: impl FnMut(IndexRecord)) -> Result<()> {
        let start = self.body_len - self.records as usize * RECORD_LEN;
        for at in 0..self.records as usize {
            let mut r = Reader::new("index cache", self.slice(start + at * RECORD_LEN, RECORD_LEN)?);
            each(IndexRecord { key: r.array()?, pack: r.u32()?, offset: r.u32()?, len: r.u32()? });
        }
        Ok(())
    }

    /// The first record not below `key`. Keys are uniform, so a guess in proportion is off by at most half the root of n
    /// (one standard deviation): three of them on each side nearly always hold the answer, in one or two pages.
    fn lower_bound(&self, key: &[u8; KEY_LEN]) -> Result<usize> {
        let n = self.records as usize;
        let [a, b, c, d, e, f, g, h, ..] = *key;
        let lead = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        let guess = usize::try_from((u128::from(lead) * n as u128) >> 64).unwrap_or(0);
        let mut reach = self.reach;
        let (mut low, mut high) = (guess.saturating_sub(reach), (guess + reach).min(n));
        loop {
            let at = low + self.below(low, high, key)?;
            reach *= 2;
            if at == low && low > 0 {
                low = low.saturating_sub(reach);
            } else if at == high && high < n {
                high = (high + reach).min(n);
            } else {
                return Ok(at);
            }
        }
    }

    /// How many of the records from `low` to `high` have a key below `key`.
    fn below(&self, low: usize, high: usize, key: &[u8; KEY_LEN]) -> Result<usize> {
        let start = self.body_len - (self.records as usize - low) * RECORD_LEN;
        let (records, _) = self.slice(start, (high - low) * RECORD_LEN)?.as_chunks::<RECORD_LEN>();
        Ok(records.partition_point(|r| r.first_chunk::<KEY_LEN>() < Some(key)))
    }

    fn pack_start(&self, pack: u32) -> Result<usize> {
        if pack >= self.packs {
            return Err(damaged(&self.name, "it names a pack it does not list"));
        }
        let bytes = self.slice(self.body_len + pack as usize * 4, 4)?;
        Ok(u32::from_le_bytes(bytes.try_into().unwrap_or_default()) as usize)
    }

    /// The name of a pack.
    pub fn pack_name(&self, pack: u32) -> Result<PackName> {
        Ok(PackName::from_slice(self.slice(self.pack_start(pack)?, 32)?)?)
    }

    /// A pack's details.
    pub fn pack(&self, pack: u32) -> Result<IndexPack> {
        let start = self.pack_start(pack)?;
        let mut r = Reader::new("index cache", self.slice(start, 160)?);
        let (name, size) = (PackName::new(r.array()?), r.u64()?);
        let (run, signer) = (RunId::new(r.array()?), ClientId::new(r.array()?));
        let header = PackHeader::decode(r.bytes(HEADER_LEN)?)?;
        let count = r.u32()? as usize;
        let table = self.slice(start + 160, count * 8)?;
        let mut r = Reader::new("index cache", table);
        let entry = |r: &mut Reader<'_>| Ok(FrameEntry { sealed: r.u32()?, raw: r.u32()? });
        let frames = (0..count).map(|_| entry(&mut r)).collect::<Result<_, FormatError>>()?;
        Ok(IndexPack { name, size, run, signer, header, frames })
    }

    /// All records, for merges and checks.
    pub fn all_records(&self) -> impl Iterator<Item = Result<IndexRecord>> + '_ {
        (0..self.records as usize).map(|at| {
            let start = self.body_len - (self.records as usize - at) * RECORD_LEN;
            let mut r = Reader::new("index cache", self.slice(start, RECORD_LEN)?);
            Ok(IndexRecord { key: r.array()?, pack: r.u32()?, offset: r.u32()?, len: r.u32()? })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::keys::{Keyring, Secret};
    use bulla_repo_format::pack::PackKind;
    use bulla_repo_format::{ChunkId, RepoId};

    fn run(n: u32) -> IndexRun {
        let ring = Keyring::new(vec![Secret::new([1; 32])], vec![Secret::new([2; 32])]).unwrap();
        let header = PackHeader::create(PackKind::Data, &ring, &RepoId::new([3; 32]), [4; 32]).unwrap().0;
        let mut out = IndexRun::new(ClientId::new([5; 16]));
        for p in 0..3u8 {
            let frames = vec![FrameEntry { sealed: 100, raw: 1 << 20 }; usize::from(p) + 1];
            let (name, run) = (PackName::new([p; 32]), RunId::new([7; 16]));
            out.packs.push(IndexPack {
                name,
                size: 9000,
                run,
                signer: ClientId::new([6; 16]),
                header,
                frames,
            });
        }
        for i in 0..n {
            let id = ChunkId::new(*blake3::hash(&i.to_le_bytes()).as_bytes());
            let key = bulla_repo_format::index::record_key(&id);
            out.records.push(IndexRecord { key, pack: i % 3, offset: i, len: 7 });
            if i % 10 == 0 {
                out.records.push(IndexRecord { key, pack: 2, offset: i, len: 7 });
            }
        }
        out
    }

    #[test]
    fn every_record_is_found_and_nothing_else() {
        for n in [0, 1, 2, 5000, 60_000] {
            let (name, mut r) = (IndexName { generation: 0, hash: [9; 32] }, run(n));
            let bytes = encode(&name, &mut r, &[8; 32]);
            let s = parse(Mapped::owned(bytes), &name, [8; 32]).unwrap();
            assert_eq!(s.records() as usize, r.records.len());
            for i in 0..n + 100 {
                let id = ChunkId::new(*blake3::hash(&i.to_le_bytes()).as_bytes());
                let mut hits = Vec::new();
                s.find(&bulla_repo_format::index::record_key(&id), |f| hits.push((f.pack, f.offset, f.len)))
                    .unwrap();
                let mut want = if i < n { vec![(i % 3, i, 7)] } else { vec![] };
                if i < n && i % 10 == 0 && i % 3 != 2 {
                    want.push((2, i, 7));
                }
                assert_eq!(hits, want);
            }
            for p in 0..3 {
                assert_eq!(s.pack(p).unwrap(), r.packs[p as usize]);
            }
        }
    }

    /// Keys that are not spread evenly lie far from their place in proportion, and are found all the same.
    #[test]
    fn keys_in_a_heap_are_found() {
        for lead in [0x00, 0x42, 0xff] {
            let (name, mut r) = (IndexName { generation: 0, hash: [9; 32] }, run(20_000));
            r.records.iter_mut().for_each(|r| r.key[..3].fill(lead));
            let bytes = encode(&name, &mut r, &[8; 32]);
            let s = parse(Mapped::owned(bytes), &name, [8; 32]).unwrap();
            for record in &r.records {
                let mut hits = Vec::new();
                s.find(&record.key, |f| hits.push(f.offset)).unwrap();
                assert!(hits.contains(&record.offset));
            }
            for other in [[0; KEY_LEN], [0x42; KEY_LEN], [0xff; KEY_LEN]] {
                s.find(&other, |_| panic!("found what is not there")).unwrap();
            }
        }
    }

    #[test]
    fn many_keys_give_what_each_gives() {
        for n in [1, 40, 3000, 20_000] {
            let (name, mut r) = (IndexName { generation: 0, hash: [9; 32] }, run(n));
            let s = parse(Mapped::owned(encode(&name, &mut r, &[8; 32])), &name, [8; 32]).unwrap();
            // Every so many that are there and as many that are not: few, which are looked up, and many, which are merged.
            for step in [1, 7, 1000] {
                let key = |i: u32| {
                    bulla_repo_format::index::record_key(&ChunkId::new(
                        *blake3::hash(&i.to_le_bytes()).as_bytes(),
                    ))
                };
                let mut keys: Vec<_> = (0..2 * n).step_by(step).map(key).collect();
                keys.sort_unstable();
                let (mut each, mut many) = (Vec::new(), Vec::new());
                for (number, key) in keys.iter().enumerate() {
                    s.find(key, |f| each.push((number, f))).unwrap();
                }
                s.find_each(&keys, |key| key, |number, f| many.push((number, f))).unwrap();
                assert_eq!(many, each, "{n} records, every {step}");
                assert!(step > 1 || !each.is_empty());
            }
        }
    }

    #[test]
    fn a_changed_cache_file_is_never_believed() {
        let (name, mut r) = (IndexName { generation: 0, hash: [9; 32] }, run(3000));
        let good = encode(&name, &mut r, &[8; 32]);
        for at in (0..good.len()).step_by(97) {
            let mut bad = good.clone();
            bad[at] ^= 4;
            if let Some(s) = parse(Mapped::owned(bad), &name, [8; 32]) {
                let all: Result<Vec<_>> = s.all_records().collect();
                let packs: Result<Vec<_>> = (0..3).map(|p| s.pack(p)).collect();
                assert!(all.is_err() || packs.is_err() || s.read_graves(0).is_err(), "byte {at}");
            }
        }
        let other = IndexName { generation: 1, hash: [9; 32] };
        assert!(parse(Mapped::owned(good), &other, [8; 32]).is_none());
    }

    /// Who sees only the second of two errors is told as much.
    #[test]
    fn every_look_up_of_a_damaged_page_says_what_to_do_and_the_file_goes() {
        let (name, mut r) = (IndexName { generation: 0, hash: [9; 32] }, run(3000));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("run");
        let mut bytes = encode(&name, &mut r, &[8; 32]);
        // Not in the first page, which is read when it is mapped.
        let harmed = PAGE + 1;
        bytes[harmed] ^= 1;
        store(&file, &bytes).unwrap();
        let segment = map(&file, &name, [8; 32], &Arc::default()).unwrap();
        for _ in 0..2 {
            let said = segment.slice(harmed, 1).unwrap_err().to_string();
            assert!(said.ends_with("is damaged and was removed: run this again"), "{said}");
            assert!(!file.exists());
        }
        let nowhere = parse(Mapped::owned(bytes), &name, [8; 32]).unwrap();
        let said = nowhere.slice(harmed, 1).unwrap_err().to_string();
        assert!(said.ends_with("is damaged"), "{said}");
    }
}
