//! What happens by itself: snapshots are forgotten, runs are declared void, faulty stores lose or repeat requests;
//! and what must never be the case.

use crate::rules::Broken;
use crate::state::{At, Model, State, Writer};
use bulla_engine::protocol::Outcome;
use std::fmt;

/// A step, for traces: who (0 the world, 1.. writers, 11.. collectors), what, and a number (255: none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub who: u8,
    pub what: &'static str,
    pub number: u8,
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.who {
            0 => {}
            w @ 1..=10 => write!(f, "W{w} ")?,
            c => write!(f, "G{} ", char::from(b'A' + c - 11))?,
        }
        f.write_str(self.what)?;
        if self.number == 255 { Ok(()) } else { write!(f, " {}", self.number) }
    }
}

/// Takes each successor of a state.
pub type Put<'a> = dyn FnMut(Label, &State) + 'a;

/// Takes each change that may happen by itself.
type Change<'a> = dyn FnMut(&'static str, usize, &dyn Fn(&mut State)) + 'a;

impl Model {
    /// All that can happen next.
    pub fn steps(&self, s: &State, put: &mut Put<'_>) {
        self.world(s, put);
        self.writers().for_each(|i| self.writer(i, s, put));
        (0..usize::from(self.bounds.collectors)).for_each(|g| self.collector(g, s, put));
    }

    /// A promise that is broken: a snapshot nobody forgot, or a verified pin of a run that is not void, without data.
    pub fn lost(&self, s: &State) -> Option<&'static str> {
        if s.rows.any(|r| r & self.there != 0) {
            return None;
        }
        if s.old_is_alive() {
            return Some("a kept snapshot lost its data");
        }
        let pins = !self.broken(Broken::NamesReused) && !self.broken(Broken::TwoObjects);
        for w in &s.writers[..self.writers().end] {
            if w.outcome == Outcome::Committed && w.gone == 0 && matches!(w.at, At::Done | At::Closed) {
                return Some("success was reported, the data is gone");
            }
            if pins && w.outcome == Outcome::Open && w.announced && w.pin > 0 && w.verified {
                return Some("a pin was verified, the data is gone");
            }
        }
        None
    }

    /// Whether what `pin` names may be built upon now: an alive snapshot, or a verified pin of a run without verdict.
    pub fn donates(&self, pin: u8, s: &State) -> bool {
        let decide = &self.rules.decide;
        if pin == 1 {
            return (decide.alive)(Outcome::Committed, !s.old_is_alive());
        }
        let w = &s.writers[usize::from(pin) - 2];
        let pinned = w.announced && w.pin > 0;
        (decide.alive)(w.outcome, w.gone > 0) || pinned && (decide.may_inherit)(w.outcome, w.verified)
    }

    fn world(&self, s: &State, put: &mut Put<'_>) {
        let mut step = |what: &'static str, number: usize, change: &dyn Fn(&mut State)| {
            let mut t = *s;
            change(&mut t);
            put(Label { who: 0, what, number: number as u8 }, &t);
        };
        if s.old == 0 {
            step("forget O", 255, &|t| t.old = 1);
        }
        if s.old == 1 && self.rules.split {
            step("DELETE snap/O", 255, &|t| t.old = 2);
        }
        if self.broken(Broken::MarkLost) {
            for bit in self.marks.iter().filter(|b| s.rows.any(|r| r & **b != 0)) {
                step("server crash drops a mark", 255, &|t| t.rows = self.tidy(&t.rows.map(|r| r & !bit)));
            }
        }
        for i in self.writers() {
            self.done_to(i, &s.writers[i], &mut step);
        }
        if self.rules.duplicates {
            for (k, r) in s.rows.as_slice().iter().copied().enumerate() {
                if r & self.late_put != 0 && r & self.there == 0 {
                    let row = (r | self.there) & !self.late_put;
                    step("late PUT of a deleted pack", 255, &|t| t.rows = self.tidy(&t.rows.with(k, row)));
                }
                if r & self.late_delete != 0 && r & self.there != 0 {
                    let row = r & !self.there & !self.late_delete;
                    step("late DELETE", 255, &|t| t.rows = self.tidy(&t.rows.with(k, row)));
                }
            }
        }
    }

    /// What others do to a run.
    fn done_to(&self, i: usize, w: &Writer, step: &mut Change<'_>) {
        let n = i + 1;
        if w.outcome == Outcome::Committed && w.gone == 0 && matches!(w.at, At::Done | At::Closed) {
            step("forget the snapshot of run", n, &|t| t.writers[i].gone = 1);
        }
        if w.gone == 1 && self.rules.split {
            step("DELETE snap/ of run", n, &|t| t.writers[i].gone = 2);
        }
        let drop_announcement = |t: &mut State| {
            t.writers[i].announced = false;
            t.rows = self.tidy(&t.rows.map(|r| r & !(self.named[i] | self.stamp[i])));
        };
        let open = w.announced && w.outcome == Outcome::Open;
        if open && self.broken(Broken::AnnouncementLost) {
            step("server crash drops pend/ of run", n, &drop_announcement);
        }
        if self.broken(Broken::NamesReused) || self.broken(Broken::TwoObjects) {
            if open {
                step("DELETE expires run", n, &drop_announcement);
            }
        } else if w.announced && (self.rules.decide.may_void)(w.outcome, self.rules.exact_puts, false) {
            step("VOID for run", n, &|t| t.writers[i].outcome = Outcome::Void);
        }
        let busy = matches!(w.at, At::Marks | At::Exists | At::Commit);
        if self.broken(Broken::NamesReused) && !w.announced && w.outcome == Outcome::Open && busy {
            step("a second process puts pend/ again of run", n, &|t| {
                t.writers[i].announced = true;
                t.rows =
                    self.tidy(&t.rows.map(|r| if r & self.relied[i] != 0 { r | self.named[i] } else { r }));
            });
        }
    }
}
