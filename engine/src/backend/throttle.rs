//! A store at a limited rate: each transfer waits until the bytes so far, its own among them, fit the rate. Transfers are
//! whole objects or ranges, so the rate holds over a few of them, not within one.

use super::{Backend, Capabilities, Put, Result, Retention, Stat};
use bulla_repo_format::{Area, ObjectName};
use std::num::NonZeroU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// One direction: when it is free again.
struct Lane {
    rate: NonZeroU64,
    free: Mutex<Instant>,
}

impl Lane {
    fn new(rate: NonZeroU64) -> Self {
        Self { rate, free: Mutex::new(Instant::now()) }
    }

    /// How long a transfer of `bytes` that begins `now` has to wait; the lane is taken for as long.
    fn take(&self, bytes: u64, now: Instant) -> Duration {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let long = u128::from(bytes) * 1_000_000 / u128::from(self.rate.get());
        *free = (*free).max(now) + Duration::from_micros(u64::try_from(long).unwrap_or(u64::MAX >> 20));
        free.duration_since(now)
    }
}

/// `inner`, with limits in bytes a second; `None` is none.
pub struct Throttle {
    inner: Arc<dyn Backend>,
    up: Option<Lane>,
    down: Option<Lane>,
}

impl Throttle {
    /// Limits what is written (`up`) and what is read (`down`).
    pub fn new(inner: Arc<dyn Backend>, up: Option<NonZeroU64>, down: Option<NonZeroU64>) -> Self {
        Self { inner, up: up.map(Lane::new), down: down.map(Lane::new) }
    }

    fn wait(lane: Option<&Lane>, bytes: u64) {
        if let Some(lane) = lane {
            std::thread::sleep(lane.take(bytes, Instant::now()));
        }
    }
}

fn sum(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|p| p.len() as u64).sum()
}

impl Backend for Throttle {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.inner.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        Self::wait(self.up.as_ref(), sum(parts));
        self.inner.put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.inner.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        // How long it is, is known only then: the next one waits for it.
        let bytes = self.inner.get(name, limit)?;
        Self::wait(self.down.as_ref(), bytes.len() as u64);
        Ok(bytes)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        Self::wait(self.down.as_ref(), len as u64);
        self.inner.get_range(name, offset, len)
    }
    fn get_listed(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.inner.get_listed(name, limit)?;
        Self::wait(self.down.as_ref(), bytes.len() as u64);
        Ok(bytes)
    }
    fn get_stored(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        let bytes = self.inner.get_stored(name, limit)?;
        Self::wait(self.down.as_ref(), bytes.len() as u64);
        Ok(bytes)
    }
    fn list_many(&self, areas: &[Area]) -> Result<Vec<Vec<(ObjectName, u64)>>> {
        self.inner.list_many(areas)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.inner.list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.inner.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)
    }
    fn settle(&self) -> Result<()> {
        self.inner.settle()
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        Self::wait(self.up.as_ref(), sum(parts));
        self.inner.heal(name, parts)
    }
    fn locks_objects(&self) -> Result<bool> {
        self.inner.locks_objects()
    }
    fn retain(&self, name: &ObjectName, retention: Retention) -> Result<()> {
        self.inner.retain(name, retention)
    }
    fn reserve(&self, bytes: u64) -> Result<()> {
        self.inner.reserve(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_free_when_its_bytes_fitted_and_saves_nothing_up() {
        let lane = Lane::new(NonZeroU64::new(1000).unwrap());
        let begun = *lane.free.lock().unwrap();
        let second = Duration::from_secs(1);
        assert_eq!(lane.take(500, begun), second / 2);
        assert_eq!(lane.take(1000, begun), second * 3 / 2, "whoever comes meanwhile waits for both");
        assert_eq!(lane.take(1000, begun + second * 100), second, "idle time is no credit");
        assert_eq!(lane.take(0, begun + second * 200), Duration::ZERO);
    }
}
