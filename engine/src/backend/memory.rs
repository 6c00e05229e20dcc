//! Objects in memory: for tests, and for embedders that keep repositories elsewhere.

use super::{Backend, BackendError, Capabilities, Put, Result, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A store in memory.
#[derive(Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<ObjectName, Vec<u8>>>,
    /// The store's clock, and when what was put.
    clock: AtomicI64,
    times: Mutex<BTreeMap<ObjectName, i64>>,
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<ObjectName, Vec<u8>>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the store's clock; it stands still otherwise.
    pub fn advance(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    /// Everything, for tests that damage or compare.
    pub fn snapshot(&self) -> BTreeMap<ObjectName, Vec<u8>> {
        self.objects().clone()
    }

    /// Puts other bytes under a name, against all rules: for tests that damage.
    pub fn overwrite(&self, name: ObjectName, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => self.objects().insert(name, bytes),
            None => self.objects().remove(&name),
        };
    }

    fn missing(&self, name: &ObjectName) -> BackendError {
        BackendError::NotFound { object: name.to_string(), place: "memory".into() }
    }
}

impl Backend for Memory {
    fn describe(&self) -> Capabilities {
        Capabilities { place: "memory".into(), local: true, connections: 1 }
    }
    fn conditional_put(&self) -> Result<bool> {
        Ok(true)
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        let mut objects = self.objects();
        if objects.contains_key(name) {
            return Ok(Put::Exists);
        }
        objects.insert(*name, parts.concat());
        let now = self.clock.load(Ordering::SeqCst);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).insert(*name, now);
        Ok(Put::Created)
    }
    fn flush(&self) -> Result<()> {
        Ok(())
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        let now = self.clock.load(Ordering::SeqCst);
        self.times.lock().unwrap_or_else(PoisonError::into_inner).insert(*name, now);
        self.objects().insert(*name, parts.concat());
        Ok(())
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.objects().get(name).cloned().ok_or_else(|| self.missing(name))?;
        if bytes.len() as u64 > limit {
            let (object, size) = (name.to_string(), bytes.len() as u64);
            return Err(BackendError::TooLong { object, place: "memory".into(), size, limit });
        }
        Ok(bytes)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        let objects = self.objects();
        let bytes = objects.get(name).ok_or_else(|| self.missing(name))?;
        let range = usize::try_from(offset).ok().and_then(|o| bytes.get(o..o.checked_add(len)?));
        range.map(<[u8]>::to_vec).ok_or_else(|| BackendError::Short {
            object: name.to_string(),
            place: "memory".into(),
            wanted: offset.saturating_add(len as u64),
            size: bytes.len() as u64,
        })
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        let objects = self.objects();
        Ok(objects.iter().filter(|(n, _)| n.area() == area).map(|(n, b)| (*n, b.len() as u64)).collect())
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        // Objects before times, as in `put`: two threads must not wait for each other.
        let objects = self.objects();
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = times.get(name).copied().unwrap_or_default();
        Ok(objects.get(name).map(|b| Stat { size: b.len() as u64, modified }))
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.objects().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::PackName;

    #[test]
    fn threads_that_put_and_stat_do_not_wait_for_each_other() {
        let memory = Memory::new();
        std::thread::scope(|scope| {
            for thread in 0..4u8 {
                let memory = &memory;
                scope.spawn(move || {
                    for n in 0..20_000u32 {
                        let mut id = [thread; 32];
                        id[..4].copy_from_slice(&(n % 50).to_le_bytes());
                        let name = ObjectName::Pack(PackName::new(id));
                        memory.put(&name, &[b"x"]).unwrap();
                        assert_eq!(memory.stat(&name).unwrap().unwrap().size, 1);
                        memory.delete(&name).unwrap();
                    }
                });
            }
        });
    }
}
