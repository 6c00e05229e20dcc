//! Backends that record calls and fail on purpose. Only with the feature `testing`.

pub use super::disk::{Journal, Step};
use super::{Backend, BackendError, Capabilities, Put, Result, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Counts calls by method, and area where there is one, so that tests assert cost.
pub struct Recorder<B> {
    inner: Arc<B>,
    calls: Mutex<BTreeMap<String, u64>>,
    far: bool,
}

impl<B: Backend> Recorder<B> {
    /// Records calls to `inner`.
    pub fn new(inner: Arc<B>) -> Self {
        Self { inner, calls: Mutex::default(), far: false }
    }
    /// Records calls to `inner`, which says that it is at a distance and takes several at once.
    pub fn far(inner: Arc<B>) -> Self {
        Self { far: true, ..Self::new(inner) }
    }
    /// Calls since the last time this was asked, as `method area` → count.
    pub fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
    fn note(&self, method: &str, area: Area) {
        self.count(&format!("{method} {}", area.dir()));
    }
    fn count(&self, call: &str) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        *calls.entry(call.to_owned()).or_default() += 1;
    }
}

impl<B: Backend> Backend for Recorder<B> {
    fn describe(&self) -> Capabilities {
        let near = self.inner.describe();
        if self.far { Capabilities { local: false, connections: 4, ..near } } else { near }
    }
    fn conditional_put(&self) -> Result<bool> {
        self.inner.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.note("put", name.area());
        self.inner.put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.count("flush");
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
        self.count("settle");
        self.inner.settle()
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.note("heal", name.area());
        self.inner.heal(name, parts)
    }
    fn reserve(&self, bytes: u64) -> Result<()> {
        self.count("reserve");
        self.inner.reserve(bytes)
    }
}

/// How an operation goes wrong. Only operations that it [can strike](Fault::strikes) are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It fails and has no effect; everything later works.
    Once,
    /// It fails and so does everything later: the process was killed, or the disk is gone.
    Forever,
    /// It takes effect, then fails, and everything later fails: killed before the acknowledgement.
    AfterEffect,
    /// No space from here on; reads and deletes still work.
    NoSpace,
    /// It takes effect, its acknowledgement is lost, and it is sent again: the caller gets the second answer.
    Twice,
    /// It takes effect and reports failure; everything later works.
    Ambiguous,
    /// Half of the bytes are stored, and everything later fails.
    Torn,
    /// It lists nothing; everything later works.
    Empty,
    /// It lists every other object only; everything later works.
    Half,
    /// What it asks for is said not to be there; everything later works.
    Absent,
    /// One bit of what it reads is wrong; everything later works.
    Flip,
}

impl Fault {
    /// Those a store may have that keeps the contract of [`Backend`].
    pub const ALL: [Self; 6] =
        [Self::Once, Self::Forever, Self::AfterEffect, Self::NoSpace, Self::Twice, Self::Ambiguous];
    /// Those that break the contract: nothing may be lost by them, though a human may have to help.
    pub const LIES: [Self; 5] = [Self::Torn, Self::Empty, Self::Half, Self::Absent, Self::Flip];

    /// True if an operation of this name can go wrong in this way, and differently than in another.
    pub fn strikes(self, operation: &str) -> bool {
        let stores = matches!(operation, "put" | "heal");
        match self {
            Self::Once | Self::Forever => true,
            Self::AfterEffect | Self::Ambiguous => {
                stores || matches!(operation, "delete" | "flush" | "settle" | "reserve")
            }
            // Deleting takes no room, nor does giving back the reserve.
            Self::NoSpace => stores || matches!(operation, "flush" | "reserve"),
            Self::Twice => stores || operation == "delete",
            Self::Torn => stores,
            Self::Empty | Self::Half => operation == "list",
            Self::Absent => matches!(operation, "get" | "get_range" | "stat"),
            Self::Flip => matches!(operation, "get" | "get_range"),
        }
    }

    /// True if everything after the operation fails too.
    fn lasts(self) -> bool {
        matches!(self, Self::Forever | Self::AfterEffect | Self::Torn)
    }
}

/// Counts operations and makes one go wrong.
pub struct Faulty<B> {
    inner: Arc<B>,
    fault: Fault,
    at: u64,
    count: AtomicU64,
    hit: Mutex<Option<String>>,
}

impl<B: Backend> Faulty<B> {
    /// Makes operation `at` of `inner` go wrong, counted from 0 among those that `fault` can strike.
    pub fn new(inner: Arc<B>, at: u64, fault: Fault) -> Self {
        Self { inner, fault, at, count: AtomicU64::new(0), hit: Mutex::default() }
    }
    /// Operations so far that the fault can strike.
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

    /// True if this call is the one; an error if it cannot be made at all.
    fn struck_by(&self, operation: &str, name: &str) -> Result<bool> {
        if !self.fault.strikes(operation) {
            let dead = self.fault.lasts() && self.struck();
            return if dead { Err(self.failure(name)) } else { Ok(false) };
        }
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        if n == self.at {
            let text = format!("{operation} {name}");
            *self.hit.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
            return Ok(true);
        }
        match self.fault {
            Fault::NoSpace if n > self.at => Err(self.failure(name)),
            fault if fault.lasts() && n > self.at => Err(self.failure(name)),
            _ => Ok(false),
        }
    }

    fn failure(&self, name: &str) -> BackendError {
        let (object, place) = (name.to_owned(), "a faulty store".to_owned());
        if self.fault == Fault::NoSpace {
            return BackendError::NoSpace { object, place };
        }
        let source = std::io::Error::other(format!("injected fault at operation {}", self.at));
        BackendError::Io { verb: "reach", object, place, source }
    }

    /// A call that changes the store.
    fn change<T>(&self, operation: &str, name: &str, call: impl Fn() -> Result<T>) -> Result<T> {
        if !self.struck_by(operation, name)? {
            return call();
        }
        if matches!(self.fault, Fault::AfterEffect | Fault::Ambiguous | Fault::Twice) {
            let first = call();
            return if self.fault == Fault::Twice {
                first.and_then(|_| call())
            } else {
                Err(self.failure(name))
            };
        }
        Err(self.failure(name))
    }

    /// A call that stores bytes.
    fn store<T>(
        &self,
        operation: &str,
        name: &ObjectName,
        parts: &[&[u8]],
        call: impl Fn(&[&[u8]]) -> Result<T>,
    ) -> Result<T> {
        if self.fault != Fault::Torn {
            return self.change(operation, &name.to_string(), || call(parts));
        }
        if !self.struck_by(operation, &name.to_string())? {
            return call(parts);
        }
        let mut bytes = parts.concat();
        bytes.truncate(bytes.len() / 2);
        call(&[&bytes])?;
        Err(self.failure(&name.to_string()))
    }

    /// A call that reads bytes.
    fn read(
        &self,
        operation: &str,
        name: &ObjectName,
        call: impl Fn() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let object = name.to_string();
        if !self.struck_by(operation, &object)? {
            return call();
        }
        match self.fault {
            Fault::Absent => Err(BackendError::NotFound { object, place: "a faulty store".into() }),
            Fault::Flip => call().map(|mut bytes| {
                let middle = bytes.len() / 2;
                bytes.get_mut(middle).into_iter().for_each(|b| *b ^= 4);
                bytes
            }),
            _ => Err(self.failure(&object)),
        }
    }
}

impl<B: Backend> Backend for Faulty<B> {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.inner.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.store("put", name, parts, |parts| self.inner.put(name, parts))
    }
    fn flush(&self) -> Result<()> {
        self.change("flush", "directories", || self.inner.flush())
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.read("get", name, || self.inner.get(name, limit))
    }
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.read("get", name, || self.inner.get_stored(name, limit))
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.read("get_range", name, || self.inner.get_range(name, offset, len))
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        if !self.struck_by("list", area.dir())? {
            return self.inner.list(area);
        }
        match self.fault {
            Fault::Empty => Ok(Vec::new()),
            Fault::Half => Ok(self.inner.list(area)?.into_iter().step_by(2).collect()),
            _ => Err(self.failure(area.dir())),
        }
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        if !self.struck_by("stat", &name.to_string())? {
            return self.inner.stat(name);
        }
        if self.fault == Fault::Absent { Ok(None) } else { Err(self.failure(&name.to_string())) }
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.change("delete", &name.to_string(), || self.inner.delete(name))
    }
    fn settle(&self) -> Result<()> {
        self.change("settle", "what was seen", || self.inner.settle())
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.store("heal", name, parts, |parts| self.inner.heal(name, parts))
    }
    fn reserve(&self, bytes: u64) -> Result<()> {
        let room = self.fault == Fault::NoSpace && bytes == 0;
        if room {
            self.inner.reserve(bytes)
        } else {
            self.change("reserve", "the reserve", || self.inner.reserve(bytes))
        }
    }
}
