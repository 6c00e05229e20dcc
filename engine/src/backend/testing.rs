//! Backends that record calls and fail on purpose. Only with the feature `testing`.

pub use super::disk::{Journal, Step};
use super::{Backend, BackendError, Capabilities, Put, Result, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts calls by method and area, so that tests assert cost.
pub struct Recorder<B> {
    inner: Arc<B>,
    calls: Mutex<BTreeMap<String, u64>>,
}

impl<B: Backend> Recorder<B> {
    /// Records calls to `inner`.
    pub fn new(inner: Arc<B>) -> Self {
        Self { inner, calls: Mutex::default() }
    }
    /// Calls since the last time this was asked, as `method area` → count.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn note(&self, method: &str, area: Area) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(format!("{method} {}", area.dir())).or_default() += 1;
    }
}

impl<B: Backend> Backend for Recorder<B> {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.note("put", name.area());
        self.inner.put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.note("get", name.area());
        self.inner.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.note("get_range", name.area());
        self.inner.get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.note("list", area);
        self.inner.list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.note("stat", name.area());
        self.inner.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.note("delete", name.area());
        self.inner.delete(name)
    }
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.note("get", name.area());
        self.inner.get_stored(name, limit)
    }
    fn settle(&self) -> Result<()> {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry("settle".to_owned()).or_default() += 1;
        drop(calls);
        self.inner.settle()
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.note("heal", name.area());
        self.inner.heal(name, parts)
    }
    fn reserve(&self, keep: bool) -> Result<()> {
        self.inner.reserve(keep)
    }
}

/// How operation `n` goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect; everything later works.
    Once,
    /// It fails and so does everything later: the process was killed, or the disk is gone.
    Forever,
    /// It takes effect, then fails, and everything later fails: a lost acknowledgement.
    AfterEffect,
    /// No space from here on; reads and deletes still work.
    NoSpace,
    /// It takes effect, its acknowledgement is lost, and it is sent again: the caller gets the second answer.
    Twice,
    /// It takes effect and reports failure; everything later works.
    Ambiguous,
}

/// Counts operations and makes the `n`-th go wrong.
pub struct Faulty<B> {
    inner: Arc<B>,
    fault: Fault,
    at: u64,
    count: AtomicU64,
    hit: Mutex<Option<String>>,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Once, Self::Forever, Self::AfterEffect, Self::NoSpace, Self::Twice, Self::Ambiguous];
}

impl<B: Backend> Faulty<B> {
    /// Fails operation `at` (from 0) of `inner`.
    pub fn new(inner: Arc<B>, at: u64, fault: Fault) -> Self {
        Self { inner, fault, at, count: AtomicU64::new(0), hit: Mutex::default() }
    }
    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }
    /// True once the fault has struck.
    pub fn struck(&self) -> bool {
        self.operations() > self.at
    }

    /// The operation it struck first, in words.
    pub fn hit(&self) -> String {
        self.hit.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_default()
    }

    fn run<T>(
        &self,
        verb: &str,
        name: impl ToString,
        writes: bool,
        call: impl Fn() -> Result<T>,
    ) -> Result<T> {
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        let hit = match self.fault {
            Fault::Once | Fault::Twice | Fault::Ambiguous => n == self.at,
            Fault::Forever | Fault::AfterEffect => n >= self.at,
            Fault::NoSpace => n >= self.at && writes,
        };
        if !hit {
            return call();
        }
        let text = format!("{verb} {}", name.to_string());
        self.hit.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        if matches!(self.fault, Fault::AfterEffect | Fault::Ambiguous | Fault::Twice) && n == self.at {
            call()?;
        }
        if self.fault == Fault::Twice {
            return call();
        }
        let (object, place) = (name.to_string(), "a faulty store".to_owned());
        if self.fault == Fault::NoSpace {
            return Err(BackendError::NoSpace { object, place });
        }
        let source = std::io::Error::other(format!("injected fault at operation {n}"));
        Err(BackendError::Io { verb: "reach", object, place, source })
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.run("put", name, true, || self.inner.put(name, parts))
    }
    fn flush(&self) -> Result<()> {
        self.run("flush", "directories", true, || self.inner.flush())
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.run("get", name, false, || self.inner.get(name, limit))
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.run("get_range", name, false, || self.inner.get_range(name, offset, len))
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.run("list", area.dir(), false, || self.inner.list(area))
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.run("stat", name, false, || self.inner.stat(name))
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        // A full store can still delete.
        self.run("delete", name, false, || self.inner.delete(name))
    }
    fn settle(&self) -> Result<()> {
        self.run("settle", "what was seen", false, || self.inner.settle())
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.run("heal", name, true, || self.inner.heal(name, parts))
    }
    fn reserve(&self, keep: bool) -> Result<()> {
        self.run("reserve", "the reserve", keep, || self.inner.reserve(keep))
    }
}
