//! Buffers that are used again: what travels between threads is given back when it is dropped, whatever became of it,
//! instead of being freed in pieces that the allocator keeps. So a backup's memory is what it holds at once, and a pool
//! with a limit says how much that is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Where the spare buffers of one size lie.
pub(crate) struct Pool {
    capacity: usize,
    inner: Mutex<Inner>,
    given_back: Condvar,
}

struct Inner {
    spare: Vec<Vec<u8>>,
    lent: usize,
    limit: usize,
}

/// A buffer on loan. It comes with whatever bytes it was given back with, so that nobody zeroes what is overwritten.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pool {
    /// Without buffers; each is made with room for `capacity` bytes, of which only those that are used take memory.
    /// Who asks for more than `limit` at once waits for one to be given back.
    pub(crate) fn new(capacity: usize, limit: usize) -> Arc<Self> {
        let inner = Mutex::new(Inner { spare: Vec::new(), lent: 0, limit });
        Arc::new(Self { capacity, inner, given_back: Condvar::new() })
    }

    /// The one that was given back last: its pages are the warmest.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let mut inner = self.lock();
        while inner.lent >= inner.limit {
            inner = self.given_back.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.lent += 1;
        let bytes = inner.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.capacity));
        Buffer { bytes, pool: self.clone() }
    }

    /// As [`Pool::take`], without bytes.
    pub(crate) fn take_empty(self: &Arc<Self>) -> Buffer {
        let mut buffer = self.take();
        buffer.clear();
        buffer
    }

    /// From now on nobody waits: for when what is lent may never be given back.
    pub(crate) fn lift_limit(&self) {
        self.lock().limit = usize::MAX;
        self.given_back.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let mut inner = self.pool.lock();
        inner.spare.push(std::mem::take(&mut self.bytes));
        inner.lent -= 1;
        self.pool.given_back.notify_one();
    }
}

impl Deref for Buffer {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_taken_again() {
        let pool = Pool::new(100, usize::MAX);
        let (mut one, two) = (pool.take(), pool.take());
        one.extend_from_slice(b"bytes");
        let at = one.as_ptr();
        drop(two);
        drop(one);
        assert_eq!(pool.take().as_ptr(), at);
        assert_eq!(pool.lock().spare.len(), 2);
    }

    #[test]
    fn who_asks_for_too_many_waits_until_one_is_back_or_the_limit_is_lifted() {
        let pool = Pool::new(1, 1);
        let first = pool.take();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(pool.take()));
            drop(first);
            second.join().unwrap();
        });
        let kept = pool.take();
        std::thread::scope(|scope| {
            let second = scope.spawn(|| drop(pool.take()));
            pool.lift_limit();
            second.join().unwrap();
        });
        drop(kept);
        assert_eq!(pool.lock().spare.len(), 2);
    }
}
