//! Buffers that are used again: what travels between threads is given back when it is dropped, whatever became of it,
//! instead of being freed in pieces that the allocator keeps. So a backup's memory is what it holds at once.
//!
//! Nobody waits for a buffer: workers that each hold frames of several packs would wait for each other, for ever, when the
//! packs are small enough for one append to span more of them than the limit. Who waits, waits in [`super::room`].

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the spare buffers of one size lie.
pub(crate) struct Pool {
    capacity: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

/// A buffer on loan. It comes with whatever bytes it was given back with, so that nobody zeroes what is overwritten.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    pool: Arc<Pool>,
}

impl Pool {
    /// Without buffers; each is made with room for `capacity` bytes, of which only those that are used take memory.
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { capacity, spare: Mutex::default() })
    }

    /// The one that was given back last: its pages are the warmest.
    pub(crate) fn take(self: &Arc<Self>) -> Buffer {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let bytes = spare.unwrap_or_else(|| Vec::with_capacity(self.capacity));
        Buffer { bytes, pool: self.clone() }
    }

    /// As [`Pool::take`], without bytes.
    pub(crate) fn take_empty(self: &Arc<Self>) -> Buffer {
        let mut buffer = self.take();
        buffer.clear();
        buffer
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.spare.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
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
        let pool = Pool::new(100);
        let (mut one, two) = (pool.take(), pool.take());
        one.extend_from_slice(b"bytes");
        let at = one.as_ptr();
        drop(two);
        drop(one);
        assert_eq!(pool.take().as_ptr(), at);
        assert_eq!(pool.spare.lock().unwrap().len(), 2);
    }
}
