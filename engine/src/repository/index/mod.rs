//! The index as a reader and a writer see it: where a chunk lies, and whether it is stored.
//!
//! Runs are looked up, never loaded: each is a memory-mapped cache file ([`segment`]) searched by interpolation.
//! An unreadable run is skipped with its error kept; its packs can be found again from their tails. Kept true: an
//! opened index only grows ([`Index::refresh`]), so whatever was found in it keeps its meaning while other processes
//! merge runs and move chunks.

mod mapped;
mod merge;
pub mod segment;
mod write;

pub use merge::Merged;
pub(crate) use merge::put as put_run;
pub use write::IndexWriter;

use super::Repository;
use super::pack::tail::Record;
use crate::backend::BackendError;
use crate::error::{Error, Result};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun, KEY_LEN, record_key};
use bulla_repo_format::{Area, ChunkId, IndexName, ObjectName, PackName};
use mapped::Window;
use segment::{Found, Segment};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock};

/// Where a chunk lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Location {
    /// The pack.
    pub pack: Arc<IndexPack>,
    /// Offset in the pack's plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
}

/// Names a pack within one opened index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackRef {
    segment: u32,
    pack: u32,
}

/// Names a record within one opened index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordRef {
    /// The segment's position.
    pub segment: u32,
    /// The record's position in it.
    pub record: u32,
}

/// A record without its pack's details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The pack.
    pub pack: PackRef,
    /// Offset in its plain stream.
    pub offset: u32,
    /// Plain length.
    pub len: u32,
    /// The record that says so.
    pub record: RecordRef,
}

impl Place {
    fn new(segment: u32, found: Found) -> Self {
        let Found { record, pack, offset, len } = found;
        Self { pack: PackRef { segment, pack }, offset, len, record: RecordRef { segment, record } }
    }
}

/// Runs that could not be read, and why.
type Failed = Vec<(IndexName, Error)>;

/// A pack's details and its chunks.
pub(crate) type Contents = (Arc<IndexPack>, Vec<Record>);

/// All index runs of a repository, as they were when it was opened or last refreshed.
pub struct Index {
    runs: RwLock<Runs>,
    window: Arc<Window>,
    failed: Failed,
}

/// Chunks of many that tell which segments have them.
const SAMPLE: usize = 16;
/// The generation of segments that are in no store.
const UNLISTED: u32 = u32::MAX;

#[derive(Default, Clone)]
struct Runs {
    segments: Vec<Arc<Segment>>,
    graves: Arc<HashSet<PackName>>,
}

impl Runs {
    /// True if a pack of one of them is not known to be deleted; where some are, one whose name cannot be read does not count.
    fn counts(&self, segment: &Segment, pack: u32) -> bool {
        self.graves.is_empty() || segment.pack_name(pack).is_ok_and(|name| !self.graves.contains(&name))
    }
}

/// The index runs in a listing.
pub(crate) fn index_names_in(listed: Vec<(ObjectName, u64)>) -> Vec<IndexName> {
    let run = |(name, _)| if let ObjectName::Index(n) = name { Some(n) } else { None };
    let mut names: Vec<_> = listed.into_iter().filter_map(run).collect();
    names.sort_unstable();
    names
}

impl Repository {
    /// Opens the index: fetches runs that are not cached, maps the rest.
    pub fn open_index(&self) -> Result<Index> {
        self.open_index_of(self.index_names()?, None)
    }

    /// The same, of runs that a listing has just shown, and another one had shown before that.
    pub(crate) fn open_index_of(
        &self,
        names: Vec<IndexName>,
        before: Option<&HashSet<IndexName>>,
    ) -> Result<Index> {
        let mut index = Index { runs: RwLock::default(), window: Arc::default(), failed: Vec::new() };
        let (names, failed) = index.load(self, names, before)?;
        index.failed = failed;
        segment::remove_stale(self, &names);
        Ok(index)
    }

    /// The runs that are there.
    pub(crate) fn index_names(&self) -> Result<Vec<IndexName>> {
        Ok(index_names_in(self.backend().list(Area::Index)?))
    }

    /// Fetches one run from the store and checks everything about it.
    pub(crate) fn fetch_index_run(&self, name: &IndexName) -> Result<IndexRun> {
        let object = ObjectName::Index(*name);
        let bytes = self.backend().get(&object, bulla_repo_format::limits::INDEX_MAX)?;
        self.open_index_run(name, &bytes)
    }

    /// Opens the bytes of one run and checks everything about it.
    pub(crate) fn open_index_run(&self, name: &IndexName, bytes: &[u8]) -> Result<IndexRun> {
        let object = ObjectName::Index(*name);
        if *blake3::hash(bytes).as_bytes() != name.hash {
            let reason = "its bytes do not hash to its name".to_owned();
            return Err(Error::Damaged { what: object.to_string(), reason });
        }
        let fail = |e| Error::object(&object, e);
        let (body, signature) = self.open_object(ObjectType::Index, bytes).map_err(fail)?;
        let run = IndexRun::decode(&body).map_err(fail)?;
        self.verify(ObjectType::Index, &run.signer, &body, &signature).map_err(fail)?;
        Ok(run)
    }
}

impl Index {
    fn runs(&self) -> Runs {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds the runs that are listed and not here yet, until two listings agree: a run that was merged away
    /// meanwhile is in the one it was merged into (SPEC 14). One that ended before this one began counts, if it showed
    /// the same runs and those that must be fetched are still there: nothing was merged from one to the other.
    fn load(
        &self,
        repository: &Repository,
        mut names: Vec<IndexName>,
        before: Option<&HashSet<IndexName>>,
    ) -> Result<(Vec<IndexName>, Failed)> {
        let mut agreed = before.is_some_and(|before| *before == names.iter().copied().collect());
        loop {
            let mut failed = Vec::new();
            let mut have: HashSet<IndexName> = self.runs().segments.iter().map(|s| *s.name()).collect();
            for name in &names {
                if !have.insert(*name) {
                    continue;
                }
                match segment::open(repository, name, &self.window) {
                    Ok(segment) => self.push(segment),
                    Err(Error::Backend(BackendError::NotFound { .. })) => agreed = false,
                    Err(e) if e.is_damage() => failed.push((*name, e)),
                    Err(e) => return Err(e),
                }
            }
            if std::mem::take(&mut agreed) {
                return Ok((names, failed));
            }
            let again = repository.index_names()?;
            if again.iter().all(|n| have.contains(n)) {
                return Ok((again, failed));
            }
            names = again;
        }
    }

    fn push(&self, segment: Segment) {
        let mut runs = self.runs.write().unwrap_or_else(PoisonError::into_inner);
        if !segment.graves().is_empty() {
            Arc::make_mut(&mut runs.graves).extend(segment.graves().iter().copied());
        }
        runs.segments.push(Arc::new(segment));
    }

    /// Takes in what other processes have put since; true if there was anything.
    pub fn refresh(&self, repository: &Repository) -> Result<bool> {
        let before = self.segments();
        self.load(repository, repository.index_names()?, None)?;
        Ok(self.segments() > before)
    }

    /// Takes in packs that no run in the store lists, for this process only.
    pub(crate) fn add_unlisted(&self, repository: &Repository, run: &mut IndexRun) -> Result<()> {
        self.push(segment::in_memory(repository, run)?);
        Ok(())
    }

    /// A run that this process has put, by itself: `None` where it is not cached, and would lie in memory.
    pub(crate) fn own(&self, repository: &Repository, name: &IndexName) -> Option<Segment> {
        segment::cached(repository, name, &self.window)
    }

    /// True if the record is in a run that the store has, so that others find the chunk too.
    pub(crate) fn is_listed(&self, record: RecordRef) -> Result<bool> {
        Ok(self.segment(record.segment)?.name().generation != UNLISTED)
    }

    /// Runs that could not be read; their packs are found by `check`.
    pub fn failed(&self) -> &[(IndexName, Error)] {
        &self.failed
    }

    /// What the index has of some packs, the details and the records of each: for those whose own directory is lost.
    pub(crate) fn listed(&self, packs: &HashSet<PackName>) -> Result<HashMap<PackName, Contents>> {
        let (mut refs, mut out) = (HashMap::new(), HashMap::new());
        for (at, pack) in self.pack_refs() {
            let pack = pack?;
            if packs.contains(&pack.name) {
                refs.insert(at, pack.name);
                out.entry(pack.name).or_insert((pack, Vec::new()));
            }
        }
        if refs.is_empty() {
            return Ok(out);
        }
        self.each_record(|_, at, r| {
            if let Some((_, records)) = refs.get(&at).and_then(|name| out.get_mut(name)) {
                records.push((r.key, r.offset, r.len));
            }
        })?;
        for (_, records) in out.values_mut() {
            records.sort_unstable_by_key(|(key, offset, len)| (*offset, *len, *key));
            records.dedup();
        }
        Ok(out)
    }

    /// How many segments there are; [`RecordRef::segment`] is below it.
    pub fn segments(&self) -> usize {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).segments.len()
    }

    /// Records in all runs, several of one chunk counted each.
    pub fn records(&self) -> u64 {
        self.runs().segments.iter().map(|s| u64::from(s.records())).sum()
    }

    /// Records of each segment.
    pub(crate) fn segment_records(&self) -> Vec<u32> {
        self.runs().segments.iter().map(|s| s.records()).collect()
    }

    /// Every record of every segment with its pack, in order.
    pub(crate) fn each_record(&self, mut each: impl FnMut(RecordRef, PackRef, &IndexRecord)) -> Result<()> {
        for (segment, run) in (0u32..).zip(&self.runs().segments) {
            let mut record = 0;
            run.each_record(|r| {
                each(RecordRef { segment, record }, PackRef { segment, pack: r.pack }, &r);
                record += 1;
            })?;
        }
        Ok(())
    }

    /// Packs that runs known so far say were deleted.
    pub(crate) fn graves(&self) -> Arc<HashSet<PackName>> {
        self.runs().graves
    }

    /// As [`Index::places_of`], places in deleted packs included.
    pub(crate) fn all_places(&self, key: &[u8; KEY_LEN], out: &mut Vec<Place>) -> Result<()> {
        self.look_up(&self.runs.read().unwrap_or_else(PoisonError::into_inner), key, out)
    }

    /// The same of many keys, in ascending order, each with the number of its key: in one pass over the index instead of one
    /// look-up a key and segment.
    pub(crate) fn all_places_of(&self, keys: &[[u8; KEY_LEN]]) -> Result<Vec<(usize, Place)>> {
        let mut out = Vec::with_capacity(keys.len());
        for (segment, run) in (0u32..).zip(&self.runs().segments) {
            run.find_each(keys, |key| key, |key, found| out.push((key, Place::new(segment, found))))?;
        }
        out.sort_unstable_by_key(|(key, place)| (*key, place.record));
        Ok(out)
    }

    /// Leaves of `wanted`, in ascending order of its keys, what has no place that `suits`; places in deleted packs are none. For who
    /// asks for many chunks of one source: nearly all of them lie in a few segments, which a sample of them tells.
    pub(crate) fn take_placed<T>(
        &self,
        wanted: &mut Vec<([u8; KEY_LEN], T)>,
        mut suits: impl FnMut(&T, &Place) -> Result<bool>,
    ) -> Result<()> {
        let runs = self.runs();
        let mut left: Vec<(u32, &Arc<Segment>)> = (0u32..).zip(&runs.segments).collect();
        while !wanted.is_empty() && !left.is_empty() {
            let step = (wanted.len() / SAMPLE).max(1);
            let mut hits = vec![0usize; left.len()];
            for (hits, (_, run)) in hits.iter_mut().zip(&left) {
                for (key, _) in wanted.iter().step_by(step) {
                    run.find(key, |_| *hits += 1)?;
                }
            }
            if step == 1 && hits.iter().all(|hits| *hits == 0) {
                // The sample was all there is.
                break;
            }
            let next = hits.iter().enumerate().max_by_key(|(_, hits)| **hits).map_or(0, |(at, _)| at);
            let (segment, run) = left.swap_remove(next);
            let (mut placed, mut failed) = (vec![false; wanted.len()], Ok(()));
            run.find_each(
                wanted,
                |(key, _)| key,
                |number, found| {
                    if !runs.counts(run, found.pack) {
                        return;
                    }
                    let (Some((_, of)), Some(placed)) = (wanted.get(number), placed.get_mut(number)) else {
                        return;
                    };
                    match suits(of, &Place::new(segment, found)) {
                        Ok(good) => *placed |= good,
                        Err(e) => failed = Err(e),
                    }
                },
            )?;
            failed?;
            let mut placed = placed.into_iter();
            wanted.retain(|_| !placed.next().unwrap_or(false));
        }
        Ok(())
    }

    /// Every place of a chunk, cheapest form. Places in packs known to be deleted are left out.
    pub fn places(&self, id: &ChunkId, out: &mut Vec<Place>) -> Result<()> {
        self.places_of(&record_key(id), out)
    }

    /// As [`Index::places`], for who has no more of the id than records do.
    pub(crate) fn places_of(&self, key: &[u8; KEY_LEN], out: &mut Vec<Place>) -> Result<()> {
        self.all_places(key, out)?;
        self.drop_deleted(out);
        Ok(())
    }

    /// Leaves out places in packs known to be deleted.
    pub(crate) fn drop_deleted(&self, places: &mut Vec<Place>) {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        if !runs.graves.is_empty() {
            let segment = |p: &Place| runs.segments.get(p.pack.segment as usize);
            places.retain(|p| segment(p).is_some_and(|s| runs.counts(s, p.pack.pack)));
        }
    }

    /// Some place of a chunk that [`Index::places`] would give, of those in one segment the first; `near` is the segment of the last one found, where its
    /// neighbours of the same source are listed too. For who asks for chunk after chunk, each of one look-up instead of one
    /// for each segment.
    pub(crate) fn place_near(&self, id: &ChunkId, near: &mut u32) -> Result<Option<Place>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let key = record_key(id);
        let count = u32::try_from(runs.segments.len()).unwrap_or(u32::MAX);
        for segment in (0..count).map(|n| (*near + n) % count) {
            let Some(run) = runs.segments.get(segment as usize) else { continue };
            let mut place = None;
            run.find(&key, |found| {
                if place.is_none() && runs.counts(run, found.pack) {
                    place = Some(Place::new(segment, found));
                }
            })?;
            if place.is_some() {
                *near = segment;
                return Ok(place);
            }
        }
        Ok(None)
    }

    fn look_up(&self, runs: &Runs, key: &[u8; KEY_LEN], out: &mut Vec<Place>) -> Result<()> {
        out.clear();
        for (number, segment) in (0u32..).zip(&runs.segments) {
            segment.find(key, |found| out.push(Place::new(number, found)))?;
        }
        Ok(())
    }

    /// Every place of a chunk, with its pack.
    pub fn locate(&self, id: &ChunkId) -> Result<Vec<Location>> {
        let mut places = Vec::new();
        self.places(id, &mut places)?;
        places.iter().map(|p| self.location(p)).collect()
    }

    /// A place with its pack.
    pub(crate) fn location(&self, place: &Place) -> Result<Location> {
        Ok(Location { pack: self.pack(place.pack)?, offset: place.offset, len: place.len })
    }

    fn segment(&self, number: u32) -> Result<Arc<Segment>> {
        let runs = self.runs.read().unwrap_or_else(PoisonError::into_inner);
        let segment = runs.segments.get(number as usize).cloned();
        segment.ok_or_else(|| Error::Refused("a pack of another index".into()))
    }

    /// The details of a pack.
    pub fn pack(&self, pack: PackRef) -> Result<Arc<IndexPack>> {
        self.segment(pack.segment)?.pack(pack.pack).map(Arc::new)
    }

    /// The name of a pack.
    pub fn pack_name(&self, pack: PackRef) -> Result<PackName> {
        self.segment(pack.segment)?.pack_name(pack.pack)
    }

    /// True if a run says that the pack was deleted.
    pub fn is_deleted(&self, pack: &PackName) -> bool {
        self.runs.read().unwrap_or_else(PoisonError::into_inner).graves.contains(pack)
    }

    /// All packs with their names in this index; one listed by several runs comes several times.
    pub fn pack_refs(&self) -> impl Iterator<Item = (PackRef, Result<Arc<IndexPack>>)> + use<> {
        let segments = (0u32..).zip(self.runs().segments);
        segments.flat_map(|(segment, s)| {
            (0..s.packs()).map(move |pack| (PackRef { segment, pack }, s.pack(pack).map(Arc::new)))
        })
    }

    /// All packs; one listed by several runs comes several times.
    pub fn packs(&self) -> impl Iterator<Item = Result<Arc<IndexPack>>> + use<> {
        self.pack_refs().map(|(_, pack)| pack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::Recorder;
    use crate::backend::{Backend, Memory};
    use crate::env::Env;
    use crate::repository::{InitOptions, SlotSecret};
    use bulla_repo_format::RunId;
    use bulla_repo_format::keys::Secret;
    use bulla_repo_format::pack::{FrameEntry, PackHeader, PackKind};

    /// Lists a pack of two chunks, in a run of its own.
    fn list(repository: &Repository, number: u8) {
        let (header, _) =
            PackHeader::create(PackKind::Data, repository.keyring(), &repository.id(), [number; 32]).unwrap();
        let frames = vec![FrameEntry { sealed: 300, raw: 200 }];
        let (name, run) = (PackName::new([number; 32]), RunId::new([number; 16]));
        let pack = IndexPack { name, size: 4096, run, signer: repository.client().id(), header, frames };
        let record = |n: u8| (record_key(&ChunkId::new([number * 10 + n; 32])), u32::from(n) * 100, 100);
        let mut writer = IndexWriter::new(repository);
        writer.add(pack, vec![record(0), record(1)]).unwrap();
        writer.flush().unwrap();
    }

    #[test]
    fn near_is_a_place_among_all_and_is_kept_for_the_neighbours() {
        let (secret, env) = (SlotSecret::Key(Secret::new([7; 32])), Env::system("test", "test"));
        let made = Repository::init(Arc::new(Memory::new()), &InitOptions::default(), &secret, env).unwrap();
        (1..=3).for_each(|number| list(&made.repository, number));
        let index = made.repository.open_index().unwrap();
        assert_eq!(index.segments(), 3);
        let mut all = Vec::new();
        for start in [0, 1, 2, 7] {
            for id in [10, 11, 20, 21, 30, 31].map(|n| ChunkId::new([n; 32])) {
                let mut near = start;
                let place = index.place_near(&id, &mut near).unwrap().unwrap();
                index.places(&id, &mut all).unwrap();
                assert_eq!((&all[..], near), (&[place][..], place.record.segment));
            }
            let mut near = start;
            assert_eq!(index.place_near(&ChunkId::new([99; 32]), &mut near).unwrap(), None);
        }
    }

    #[test]
    fn near_goes_on_where_packs_were_deleted() {
        let (secret, env) = (SlotSecret::Key(Secret::new([7; 32])), Env::system("test", "test"));
        let made = Repository::init(Arc::new(Memory::new()), &InitOptions::default(), &secret, env).unwrap();
        (1..=2).for_each(|number| list(&made.repository, number));
        let index = made.repository.open_index().unwrap();
        let mut deleted = IndexRun::new(made.repository.client().id());
        deleted.graves = vec![PackName::new([1; 32])];
        index.add_unlisted(&made.repository, &mut deleted).unwrap();
        let near = |id: u8| index.place_near(&ChunkId::new([id; 32]), &mut 0).unwrap();
        assert_eq!(near(10), None, "in a grave");
        assert_eq!(index.pack_name(near(20).unwrap().pack).unwrap(), PackName::new([2; 32]));
    }
    /// A run that is merged away while its listing is read is in neither if the listing has passed the union's name. Two
    /// listings that agree tell; the one before the announcement is one of them if it showed the same.
    #[test]
    fn a_listing_is_made_again_unless_the_one_before_showed_the_same_and_all_of_it_is_there() {
        let (secret, env) = (SlotSecret::Key(Secret::new([7; 32])), Env::system("test", "test"));
        let store = Arc::new(Recorder::new(Arc::new(Memory::new())));
        let repository =
            Repository::init(store.clone(), &InitOptions::default(), &secret, env).unwrap().repository;
        (1..=2).for_each(|number| list(&repository, number));
        let names = repository.index_names().unwrap();
        let opened = |names: &[IndexName], before: Option<&[IndexName]>| {
            store.take();
            let before = before.map(|b| b.iter().copied().collect());
            let index = repository.open_index_of(names.to_vec(), before.as_ref()).unwrap();
            (index.segments(), store.take().get("list index").copied().unwrap_or(0))
        };
        assert_eq!(opened(&names, Some(&names)), (2, 0));
        assert_eq!(opened(&names, None), (2, 1));
        // Both were merged into another one, which this listing has not met: the one before had the second, or the union.
        assert_eq!(opened(&names[..1], Some(&names)), (2, 2));
        assert_eq!(opened(&names, Some(&names[..1])), (2, 1));
        // They agree, but what they showed has been merged since.
        list(&repository, 3);
        store.delete(&ObjectName::Index(names[0])).unwrap();
        assert_eq!(opened(&names, Some(&names)), (2, 2));
    }

    /// Of many chunks in runs of any size, some listed twice, with another length, in a grave or nowhere.
    #[test]
    fn what_is_taken_is_what_has_a_place_that_suits() {
        let (secret, env) = (SlotSecret::Key(Secret::new([7; 32])), Env::system("test", "test"));
        let made = Repository::init(Arc::new(Memory::new()), &InitOptions::default(), &secret, env).unwrap();
        let index = made.repository.open_index().unwrap();
        let id = |n: u32| ChunkId::new(*blake3::hash(&n.to_le_bytes()).as_bytes());
        let (header, _) =
            PackHeader::create(PackKind::Data, made.repository.keyring(), &made.repository.id(), [1; 32])
                .unwrap();
        for (number, records) in [(0u8, 0u32..0), (1, 0..40), (2, 0..3000), (3, 2900..9000), (4, 8000..8100)]
        {
            let mut run = IndexRun::new(made.repository.client().id());
            for pack in 0..2u8 {
                let (name, frames) = (PackName::new([number * 2 + pack; 32]), Vec::new());
                let (run_id, signer) = (RunId::new([number; 16]), made.repository.client().id());
                run.packs.push(IndexPack { name, size: 4096, run: run_id, signer, header, frames });
            }
            run.graves = if number == 4 { vec![PackName::new([4; 32])] } else { Vec::new() };
            let record = |n: u32| {
                let len = 7 + u32::from(n % 11 == u32::from(number));
                IndexRecord { key: record_key(&id(n)), pack: n / 2 % 2, offset: n, len }
            };
            let elsewhere = |r: IndexRecord| IndexRecord { pack: 1 - r.pack, ..r };
            let twice = records.clone().step_by(5).map(record).map(elsewhere);
            run.records = records.map(record).chain(twice).collect();
            index.add_unlisted(&made.repository, &mut run).unwrap();
        }
        for step in [1, 13, 500] {
            let ids: Vec<_> = (0..9100).step_by(step).map(id).collect();
            let (mut none, mut places) = (Vec::new(), Vec::new());
            for id in &ids {
                index.places(id, &mut places).unwrap();
                let mut near = 2;
                let first = index.place_near(id, &mut near).unwrap();
                assert_eq!(first, places.iter().find(|p| p.record.segment == near).copied());
                if places.iter().all(|p| p.len != 7) {
                    none.push((record_key(id), 7));
                }
            }
            let mut wanted: Vec<_> = ids.iter().map(|id| (record_key(id), 7)).collect();
            none.sort_unstable();
            wanted.sort_unstable();
            let before = wanted.len();
            index.take_placed(&mut wanted, |len, place| Ok(place.len == *len)).unwrap();
            assert_eq!(wanted, none, "every {step}");
            assert!(!none.is_empty() && none.len() < before, "every {step}");
            let refused = index
                .take_placed(&mut ids.iter().map(|id| (record_key(id), ())).collect(), |(), _| {
                    Err(Error::Interrupted)
                });
            assert!(matches!(refused, Err(Error::Interrupted)));
        }
    }
}
