//! The pipeline: one walk in tree order (`ahead`), N workers, one fold, one uploader, joined by bounded channels.
//!
//! ```text
//!                   ┌─ batch of small files ─┐             ┌─ sealed packs ─► uploader (put, fsync, index)
//! walk ─► producer ─┼─ segment of large file ┼─► workers ──┤
//!         (merge,   └────────────────────────┘             └─ done, by number ─► fold (order, tree, lists)
//!          decide)  ───── unchanged, directories, links: done at once ─────────►
//! ```
//! Memory is bounded by bytes in flight: half as many units as there are workers wait, each of at most a frame's size.
//! Width 1 is the same pipeline. The first error of any stage stops all of them and is the one reported.

use super::fold::{Done, Fold, Folded};
use super::store::{Shared, Storer};
use super::work::{Unit, Work};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::pack::PackStream;
use bulla_repo_format::tree::{BuiltTree, TreeBuilder};
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The first error, and the signal to stop.
#[derive(Default)]
pub struct Abort {
    stop: AtomicBool,
    error: Mutex<Option<Error>>,
}

impl Abort {
    /// True when some stage has failed.
    pub fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
    /// Keeps the first error that is not just the echo of another stage's.
    fn fail(&self, error: Error) {
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        let echo = matches!(error, Error::Interrupted);
        if kept.is_none() || (!echo && matches!(*kept, Some(Error::Interrupted))) {
            *kept = Some(error);
        }
        self.stop.store(true, Ordering::Relaxed);
    }
    fn check<T>(&self, result: Result<T>) -> Option<T> {
        result.map_err(|e| self.fail(e)).ok()
    }
    /// Stops everyone when the stage that holds it panics: nobody waits for a unit that will not come.
    fn guard<'a>(&'a self, who: &'static str) -> Guard<'a> {
        Guard { abort: self, who }
    }
    fn into_error(self) -> Option<Error> {
        self.error.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Guard<'a> {
    abort: &'a Abort,
    who: &'static str,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.abort.fail(panicked(self.who));
        }
    }
}

/// How the producer gives out units.
pub struct Feed<'a> {
    work: Sender<(u64, Work)>,
    done: Sender<(u64, Done)>,
    next: u64,
    /// Units folded so far; the producer stays within a window of it, which bounds the reorder buffer.
    folded: &'a AtomicU64,
    window: u64,
    abort: &'a Abort,
    observer: &'a dyn Observer,
}

impl Feed<'_> {
    /// Says something to the caller.
    pub fn warn(&self, text: &str) {
        self.observer.event(&Event::Warning(text));
    }

    /// Gives out one unit; `Err(Interrupted)` when there is no point in going on.
    pub fn give(&mut self, unit: Unit) -> Result<()> {
        while self.next.saturating_sub(self.folded.load(Ordering::Acquire)) > self.window
            && !self.abort.stopped()
        {
            std::thread::park_timeout(std::time::Duration::from_millis(2));
        }
        if self.abort.stopped() || self.observer.interrupted() {
            return Err(Error::Interrupted);
        }
        let number = self.next;
        self.next += 1;
        let sent = match unit {
            Unit::Work(work) => self.work.send((number, work)).is_ok(),
            Unit::Done(done) => self.done.send((number, done)).is_ok(),
        };
        if sent { Ok(()) } else { Err(Error::Interrupted) }
    }
}

/// Runs the pipeline. `produce` gives out units in tree order; `upload` stores packs until the streams end.
#[allow(clippy::too_many_arguments, reason = "the stages it joins")]
pub fn run<'r, U: Send>(
    shared: &Shared<'r>,
    meta: &PackStream<'r>,
    builder: TreeBuilder,
    width: usize,
    observer: &dyn Observer,
    produce: impl FnOnce(&mut Feed<'_>) -> Result<()>,
    hang_up: impl FnOnce() + Send,
    upload: impl FnOnce() -> Result<U> + Send,
) -> Result<(BuiltTree, Folded, U)> {
    let (abort, folded) = (Abort::default(), AtomicU64::new(0));
    let width = width.max(1);
    let (work_in, work_out) = bounded::<(u64, Work)>(waiting(width));
    let (done_in, done_out) = bounded::<(u64, Done)>(width * 8 + 64);
    let result = std::thread::scope(|scope| {
        let uploader = scope.spawn(|| {
            let _guard = abort.guard("the uploader");
            abort.check(upload())
        });
        let folder = {
            let (abort, folded) = (&abort, &folded);
            scope.spawn(move || {
                let _guard = abort.guard("the fold");
                abort.check(fold(shared, meta, builder, &done_out, observer, folded))
            })
        };
        let workers: Vec<_> = (0..width)
            .map(|_| {
                let (work, done, abort) = (work_out.clone(), done_in.clone(), &abort);
                scope.spawn(move || {
                    let _guard = abort.guard("a worker");
                    abort.check(worker(shared, &work, &done, abort))
                })
            })
            .collect();
        drop(work_out);
        // A worker that seals a pack holds the fold up for as long as another takes for some of its units: what is done meanwhile waits in
        // memory.
        let window = width as u64 * 4 + 8;
        let mut feed =
            Feed { work: work_in, done: done_in, next: 0, folded: &folded, window, abort: &abort, observer };
        // It runs on the caller's thread, above the others: were it to unwind through them, they would wait for ever.
        let produced = catch_unwind(AssertUnwindSafe(|| produce(&mut feed)));
        abort.check(produced.unwrap_or_else(|_| Err(panicked("the producer"))));
        drop(feed);
        for worker in workers {
            let _ = worker.join();
        }
        let built = folder.join().unwrap_or_default();
        // The data stream's last pack: workers are done, and the fold too, which reads a hard link's content itself where its
        // first name has vanished, so nothing is in flight.
        if !abort.stopped() {
            abort.check(Storer::new(shared).and_then(|mut s| s.finish()));
        }
        hang_up();
        let stored = uploader.join().unwrap_or_default();
        built.zip(stored)
    });
    match (abort.into_error(), result) {
        (None, Some(((tree, folded), stored))) => Ok((tree, folded, stored)),
        (error, _) => Err(error.unwrap_or(Error::Interrupted)),
    }
}

/// Units that wait for a worker. Whoever cuts is several times faster than who compresses: half as many as there are workers
/// keep all of them at work.
pub fn waiting(width: usize) -> usize {
    width.div_ceil(2)
}

/// What is said of a stage that panicked.
pub fn panicked(who: &str) -> Error {
    Error::Refused(format!("{who} stopped on a bug in bulla; nothing was committed"))
}

fn worker(
    shared: &Shared<'_>,
    work: &Receiver<(u64, Work)>,
    done: &Sender<(u64, Done)>,
    abort: &Abort,
) -> Result<()> {
    let mut storer = Storer::new(shared)?;
    while let Ok((number, unit)) = work.recv() {
        if abort.stopped() {
            break;
        }
        let finished = unit.execute(&mut storer)?;
        if done.send((number, finished)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Puts units back in order. Ends when everyone has hung up; a gap then means another stage failed.
fn fold(
    shared: &Shared<'_>,
    meta: &PackStream<'_>,
    builder: TreeBuilder,
    done: &Receiver<(u64, Done)>,
    observer: &dyn Observer,
    folded: &AtomicU64,
) -> Result<(BuiltTree, Folded)> {
    let mut fold = Fold::new(shared, meta, builder, observer)?;
    let mut waiting: BTreeMap<u64, Done> = BTreeMap::new();
    let mut next = 0;
    while let Ok((number, unit)) = done.recv() {
        waiting.insert(number, unit);
        while let Some(unit) = waiting.remove(&next) {
            fold.take(unit)?;
            next += 1;
            folded.store(next, Ordering::Release);
        }
    }
    if !waiting.is_empty() {
        return Err(Error::Interrupted);
    }
    fold.finish()
}
