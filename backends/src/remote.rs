//! A [`Store`] as the engine's [`Backend`]: attempts until one succeeds or patience ends, and answers that were lost.
//!
//! A put whose answer was lost may have taken effect. The next attempt is then told that the object exists. Where the name
//! is the hash of the content there is nothing more to ask; elsewhere it is ours if its bytes are, since whoever writes one
//! name writes different bytes: each is sealed with a nonce of its own.

use crate::retry::Patience;
use crate::store::{Attempt, Failure, Kind, Mode, Page, Part, Store};
use bulla_engine::backend::{Backend, BackendError, Capabilities, Put, Result, Retention, Stat};
use bulla_engine::format::{Area, ObjectName};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Called when an attempt failed and another will be made: what, and in how many seconds.
pub type Notice = Box<dyn Fn(&str) + Send + Sync>;

/// A store at a distance.
pub struct Remote<S> {
    store: S,
    patience: Patience,
    notice: Option<Notice>,
    exact: OnceLock<bool>,
    attempts: AtomicU64,
    /// Attempts that may begin now, so that there are never more at once than the store has connections.
    free: Mutex<usize>,
    freed: Condvar,
}

/// Of several areas, the names and sizes in each.
type Listings = Vec<Vec<(ObjectName, u64)>>;

/// An attempt's place among those under way; given back when it is dropped.
struct Turn<'a>(&'a Mutex<usize>, &'a Condvar);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.1.notify_one();
    }
}

impl<S: Store> Remote<S> {
    /// A backend over `store`.
    pub fn new(store: S, patience: Patience, notice: Option<Notice>) -> Self {
        let (free, freed) = (Mutex::new(store.connections().max(1)), Condvar::new());
        Self { store, patience, notice, exact: OnceLock::new(), attempts: AtomicU64::new(0), free, freed }
    }

    /// Makes what an empty repository needs before its first put.
    pub fn prepare(&self) -> Result<()> {
        self.until_done("prepare", "the repository", |_| self.store.prepare())
    }

    /// Attempts made so far, also those that failed.
    pub fn attempts(&self) -> u64 {
        self.attempts.load(Ordering::Relaxed)
    }

    fn turn(&self) -> Turn<'_> {
        let free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = self.freed.wait_while(free, |free| *free == 0).unwrap_or_else(PoisonError::into_inner);
        *free -= 1;
        Turn(&self.free, &self.freed)
    }

    /// Tries until it is done, it cannot be done, or patience ends. `call` is told how many attempts failed before.
    fn until_done<T>(
        &self,
        verb: &'static str,
        object: &str,
        mut call: impl FnMut(u32) -> Attempt<T>,
    ) -> Result<T> {
        let (mut failures, mut since) = (0, None);
        loop {
            self.attempts.fetch_add(1, Ordering::Relaxed);
            let turn = self.turn();
            let failure = match call(failures) {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            drop(turn);
            failures += 1;
            let Kind::Passing { after } = failure.kind else {
                return Err(self.error(verb, object, failures, failure));
            };
            let spent = since.get_or_insert_with(Instant::now).elapsed();
            let Some(delay) = self.patience.delay(failures, spent, after, random()) else {
                return Err(self.error(verb, object, failures, failure));
            };
            if let Some(notice) = &self.notice {
                let (place, text, wait) = (self.store.place(), failure.text, delay.as_secs_f32());
                notice(&format!(
                    "cannot {verb} {object} in {place}: {text}; attempt {} in {wait:.1} s",
                    failures + 1
                ));
            }
            std::thread::sleep(delay);
        }
    }

    fn error(&self, verb: &'static str, object: &str, failures: u32, failure: Failure) -> BackendError {
        let (object, place) = (object.to_owned(), self.store.place());
        let text =
            if failures > 1 { format!("{} ({failures} attempts)", failure.text) } else { failure.text };
        let io = |kind| io::Error::new(kind, text.clone());
        match failure.kind {
            Kind::Missing => BackendError::NotFound { object, place },
            Kind::Denied => {
                BackendError::Denied { verb, object, place, source: io(io::ErrorKind::PermissionDenied) }
            }
            Kind::Full => BackendError::NoSpace { object, place },
            _ => BackendError::Io { verb, object, place, source: io(io::ErrorKind::Other) },
        }
    }

    fn read(&self, name: &ObjectName, part: Part) -> Result<Vec<u8>> {
        let object = name.to_string();
        let mut odd = None;
        let read = self.until_done("read", &object, |_| {
            self.store.get(&object, part).inspect_err(|f| odd = Some(f.kind))
        });
        let place = || self.store.place();
        match (part, odd) {
            (Part::Whole { limit }, Some(Kind::TooLong { size })) if read.is_err() => {
                Err(BackendError::TooLong { object, place: place(), size, limit })
            }
            (Part::Range { offset, len }, Some(Kind::Short { size })) if read.is_err() => {
                let wanted = offset.saturating_add(len as u64);
                let size = match size {
                    Some(size) => size,
                    None => self.stat(name)?.map_or(0, |s| s.size),
                };
                Err(BackendError::Short { object, place: place(), wanted, size })
            }
            _ => read,
        }
    }

    /// The listings of areas that are in the order of their names, out of the listing of everything. Where that takes more
    /// than one request, what lies between the areas is passed over. `None` from a store that cannot, or that keeps another
    /// order than that of paths.
    fn list_together(&self, areas: &[Area]) -> Result<Option<Listings>> {
        let mut out = vec![Vec::new(); areas.len()];
        let mut behind = String::new();
        loop {
            let page =
                self.until_done("list", "everything", |_| self.store.list_behind(&behind).transpose())?;
            let Some(Page { entries, next }) = page else { return Ok(None) };
            for (path, size) in &entries {
                let Some(name) = ObjectName::parse(path) else { continue };
                let wanted = areas.iter().zip(&mut out).find(|(area, _)| **area == name.area());
                if let Some((_, listed)) = wanted {
                    listed.push((name, *size));
                }
            }
            if next.is_none() {
                return Ok(Some(out));
            }
            let ordered = entries.is_sorted() && entries.first().is_some_and(|(first, _)| *first > behind);
            let Some((last, _)) = entries.last().filter(|_| ordered) else { return Ok(None) };
            // With the slash: `snap-old/…` comes before `snap/…`, and `snap` before both.
            let mut dirs = areas.iter().map(|area| format!("{}/", area.dir()));
            behind = match dirs.find(|dir| dir > last || last.starts_with(dir)) {
                None => return Ok(Some(out)),
                Some(dir) if last.starts_with(&dir) => last.clone(),
                Some(dir) => dir,
            };
        }
    }

    fn write(&self, verb: &'static str, name: &ObjectName, parts: &[&[u8]], mode: Mode) -> Result<Put> {
        let object = name.to_string();
        self.until_done(verb, &object, |failures| {
            let put = self.store.put(&object, parts, mode)?;
            if put == Put::Created || failures == 0 {
                return Ok(put);
            }
            let limit = parts.iter().map(|p| p.len() as u64).sum();
            if matches!(name.area(), Area::Packs | Area::Meta | Area::Index | Area::Parity) {
                let same = self.store.stat(&object)?.is_some_and(|s| s.size == limit);
                return Ok(if same { Put::Created } else { Put::Exists });
            }
            match self.store.get(&object, Part::Whole { limit }) {
                Ok(there) if equals(&there, parts) => Ok(Put::Created),
                Ok(_) | Err(Failure { kind: Kind::TooLong { .. }, .. }) => Ok(Put::Exists),
                // Deleted since: what was there was ours or another's, and is nobody's now.
                Err(Failure { kind: Kind::Missing, .. }) => Ok(Put::Exists),
                Err(failure) => Err(failure),
            }
        })
    }
}

fn equals(bytes: &[u8], parts: &[&[u8]]) -> bool {
    let mut rest = bytes;
    for part in parts {
        let Some(behind) = rest.strip_prefix(*part) else { return false };
        rest = behind;
    }
    rest.is_empty()
}

/// Without randomness the delay is the longest one: later, not wrong.
fn random() -> u32 {
    let mut bytes = [0xff; 4];
    let _ = getrandom::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

impl<S: Store> Backend for Remote<S> {
    fn describe(&self) -> Capabilities {
        Capabilities { place: self.store.place(), local: false, connections: self.store.connections() }
    }

    fn conditional_put(&self) -> Result<bool> {
        if let Some(exact) = self.exact.get() {
            return Ok(*exact);
        }
        let exact = self.until_done("probe", "put-if-absent", |_| self.store.exact())?;
        Ok(*self.exact.get_or_init(|| exact))
    }

    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.write("write", name, parts, Mode::New)
    }

    fn flush(&self) -> Result<()> {
        Ok(())
    }

    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.read(name, Part::Whole { limit })
    }

    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        if len == 0 {
            return Ok(Vec::new());
        }
        self.read(name, Part::Range { offset, len })
    }

    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        let (mut out, mut from) = (Vec::new(), None);
        loop {
            let page =
                self.until_done("list", area.dir(), |_| self.store.list(area.dir(), from.as_deref()))?;
            out.extend(page.entries.into_iter().filter_map(|(name, size)| {
                Some((ObjectName::parse(&format!("{}/{name}", area.dir()))?, size))
            }));
            if page.next.is_none() {
                return Ok(out);
            }
            if page.next == from {
                let failure = Failure::last("the listing does not go on: two pages begin at the same place");
                return Err(self.error("list", area.dir(), 1, failure));
            }
            from = page.next;
        }
    }

    fn list_many(&self, areas: &[Area]) -> Result<Vec<Vec<(ObjectName, u64)>>> {
        if areas.len() > 1
            && areas.is_sorted_by_key(|area| area.dir())
            && let Some(all) = self.list_together(areas)?
        {
            return Ok(all);
        }
        areas.iter().map(|area| self.list(*area)).collect()
    }

    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        let object = name.to_string();
        self.until_done("stat", &object, |_| self.store.stat(&object))
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        let object = name.to_string();
        self.until_done("delete", &object, |_| self.store.delete(&object))
    }

    fn locks_objects(&self) -> Result<bool> {
        self.until_done("ask of", "object lock", |_| self.store.locks_objects())
    }

    fn retain(&self, name: &ObjectName, retention: Retention) -> Result<()> {
        let object = name.to_string();
        self.until_done("retain", &object, |_| self.store.retain(&object, retention))
    }

    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.write("write", name, parts, Mode::Replace).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_engine::format::{PackName, RunId};
    use proptest::prelude::*;
    use std::time::Duration;

    /// A store of names alone, which lists in pages, and answers puts and stats from a script, the last answer first.
    #[derive(Default)]
    struct Pages {
        names: Vec<String>,
        page: usize,
        asked: Mutex<u64>,
        puts: Mutex<Vec<Attempt<Put>>>,
        sizes: Mutex<Vec<Option<u64>>>,
    }

    impl Pages {
        fn piece(&self, mut names: Vec<String>) -> Page {
            *self.asked.lock().unwrap() += 1;
            let more = names.len() > self.page;
            names.truncate(self.page);
            let next = names.last().filter(|_| more).cloned();
            Page { entries: names.into_iter().map(|n| (n, 1)).collect(), next }
        }
    }

    impl Store for Pages {
        fn list(&self, dir: &str, from: Option<&str>) -> Attempt<Page> {
            let within = |n: &&String| n.starts_with(&format!("{dir}/"));
            let short = self.names.iter().filter(within).map(|n| n[dir.len() + 1..].to_owned());
            Ok(self.piece(short.filter(|n| from.is_none_or(|f| n.as_str() > f)).collect()))
        }
        fn list_behind(&self, path: &str) -> Option<Attempt<Page>> {
            Some(Ok(self.piece(self.names.iter().filter(|n| n.as_str() > path).cloned().collect())))
        }
        fn place(&self) -> String {
            "a test".into()
        }
        fn connections(&self) -> usize {
            1
        }
        fn prepare(&self) -> Attempt<()> {
            Err(Failure::last("not asked"))
        }
        fn put(&self, _: &str, _: &[&[u8]], _: Mode) -> Attempt<Put> {
            self.puts.lock().unwrap().pop().unwrap_or_else(|| Err(Failure::last("not asked")))
        }
        fn get(&self, _: &str, _: Part) -> Attempt<Vec<u8>> {
            Err(Failure::last("not asked"))
        }
        fn stat(&self, _: &str) -> Attempt<Option<Stat>> {
            let size = self.sizes.lock().unwrap().pop().ok_or_else(|| Failure::last("not asked"))?;
            Ok(size.map(|size| Stat { size, modified: 0 }))
        }
        fn delete(&self, _: &str) -> Attempt<()> {
            Err(Failure::last("not asked"))
        }
        fn exact(&self) -> Attempt<bool> {
            Ok(true)
        }
    }

    /// So many objects of five areas, a stranger, and so many of them in siblings of each area, of which some come before it.
    fn store(counts: [u8; 5], strangers: usize, page: usize) -> Remote<Pages> {
        let mut names = vec!["readme".to_owned()];
        for dir in [Area::Deaths, Area::Meta, Area::Packs, Area::Verdicts, Area::Forgets].map(Area::dir) {
            for sibling in ["-old", ".bak", "", "0", "s"] {
                names.extend((0..strangers).map(|n| format!("{dir}{sibling}/{n:03}")));
            }
        }
        for (area, count) in counts.into_iter().enumerate() {
            names.extend((0..count).map(|n| {
                let (run, pack) = (RunId::new([n; 16]), PackName::new([n; 32]));
                match area {
                    0 => ObjectName::Death(run),
                    1 => ObjectName::Meta(pack),
                    2 => ObjectName::Pack(pack),
                    3 => ObjectName::Verdict(run),
                    _ => ObjectName::Forget(run),
                }
                .to_string()
            }));
        }
        names.sort();
        Remote::new(Pages { names, page, ..Pages::default() }, Patience::default(), None)
    }

    /// A first put breaks off, and the second finds something of that size there. What comes of it.
    fn put_again(there: u64) -> Put {
        let puts = vec![Ok(Put::Exists), Err(Failure::passing("it broke off"))];
        let store =
            Pages { puts: Mutex::new(puts), sizes: Mutex::new(vec![Some(there)]), ..Pages::default() };
        let patience = Patience { first: Duration::from_millis(1), ..Patience::default() };
        let remote = Remote::new(store, patience, None);
        let put = remote.put(&ObjectName::Pack(PackName::new([7; 32])), &[b"by", b"tes"]).unwrap();
        assert!(
            remote.store.puts.lock().unwrap().is_empty() && remote.store.sizes.lock().unwrap().is_empty()
        );
        put
    }

    /// Under a pack's name is that pack, if it is whole.
    #[test]
    fn an_answer_that_was_lost_is_settled_by_what_is_there() {
        assert_eq!((put_again(5), put_again(3)), (Put::Created, Put::Exists));
    }

    proptest! {
        #[test]
        fn listings_together_are_those_of_each_area(
            counts in any::<[u8; 5]>(),
            strangers in 0usize..60,
            page in 2usize..300,
            wanted in proptest::sample::subsequence(
                vec![Area::Forgets, Area::Deaths, Area::Meta, Area::Packs, Area::Parity, Area::Verdicts], 1..6),
            disorder in any::<bool>(),
        ) {
            let mut remote = store(counts, strangers, page);
            if disorder {
                remote.store.names.reverse();
            }
            let each: Vec<_> = wanted.iter().map(|area| {
                let within = |n: &&String| n.starts_with(&format!("{}/", area.dir()));
                let mut names: Vec<_> =
                    remote.store.names.iter().filter(within).filter_map(|n| Some((ObjectName::parse(n)?, 1))).collect();
                names.sort();
                names
            }).collect();
            if disorder {
                // Such a store lists by area in its own way, which is not what is tested.
                let together = remote.list_together(&wanted).unwrap();
                prop_assert!(together.is_none() || remote.store.names.len() <= page);
            } else {
                prop_assert_eq!(remote.list_many(&wanted).unwrap(), each);
            }
        }
    }

    /// Of 250 packs in pages of 100, a backup's look needs all and the list of snapshots none.
    #[test]
    fn what_lies_between_is_passed_over() {
        let remote = store([3, 0, 250, 3, 3], 0, 100);
        let asked = |areas: &[Area]| {
            *remote.store.asked.lock().unwrap() = 0;
            remote.list_many(areas).unwrap();
            *remote.store.asked.lock().unwrap()
        };
        assert_eq!(asked(&[Area::Forgets, Area::Deaths, Area::Verdicts]), 2);
        assert_eq!(asked(&[Area::Meta, Area::Packs, Area::Verdicts]), 3);
        assert_eq!(asked(&[Area::Forgets, Area::Deaths]), 1);
        assert_eq!(asked(&[Area::Verdicts, Area::Forgets]), 2, "in another order each by itself");
    }
}
