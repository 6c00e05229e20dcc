//! How many closed packs are in memory: those whose last frames are still compressed, those that are sealed, and those that
//! wait for the store.
//!
//! A pack takes a [`Ticket`] when it is closed and gives it back when it is dropped, whatever became of it, so a stage that
//! fails keeps nobody waiting. Kept true: only who holds no frame waits, and nobody waits for a ticket, so packs that are too
//! small for the limit go over it instead of stopping the run.

use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Room for some closed packs.
pub(super) struct Room {
    limit: usize,
    closed: Mutex<usize>,
    left: Condvar,
}

/// A closed pack's place.
pub(super) struct Ticket(Arc<Room>);

impl Room {
    /// Room for `limit` packs.
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit, closed: Mutex::new(0), left: Condvar::new() })
    }

    /// Waits until fewer packs than the limit are closed.
    pub(super) fn wait(&self) {
        let closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |closed: &mut usize| *closed >= self.limit;
        drop(self.left.wait_while(closed, full).unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts one more, without waiting.
    pub(super) fn enter(self: &Arc<Self>) -> Ticket {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        Ticket(self.clone())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        *self.0.closed.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.left.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn who_waits_goes_on_when_a_pack_is_dropped_and_no_sooner() {
        let (room, gone) = (Room::new(2), AtomicBool::new(false));
        room.wait();
        let (one, two) = (room.enter(), room.enter());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                room.wait();
                assert!(gone.load(Ordering::SeqCst), "went on beside two closed packs");
            });
            std::thread::sleep(std::time::Duration::from_millis(20));
            gone.store(true, Ordering::SeqCst);
            drop(one);
        });
        drop(two);
        assert_eq!(*room.closed.lock().unwrap(), 0);
    }

    #[test]
    fn more_packs_than_there_is_room_for_are_counted_and_not_stopped() {
        let room = Room::new(1);
        let tickets: Vec<_> = (0..5).map(|_| room.enter()).collect();
        drop(tickets);
        room.wait();
    }
}
