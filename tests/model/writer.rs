//! Writers: open a run, rely on own, foreign or donated chunks, announce, verify, commit (w0 to w5).

use crate::rules::Broken;
use crate::state::{At, Model, Rows, State, Writer};
use crate::world::{Label, Put};
use bulla_engine::protocol::Outcome;

/// Where a verification that went well leads.
fn after_look(m: &Model, w: &Writer) -> At {
    let next = match w.at {
        At::Marks => At::Exists,
        At::ExistsFirst => At::MarksLast,
        _ => At::Commit,
    };
    let next = if next == At::Exists && m.broken(Broken::NoExistence) { At::Commit } else { next };
    match next {
        At::Commit if m.broken(Broken::VerifyFirst) => At::Announce,
        At::Commit if m.broken(Broken::TwoObjects) && w.outcome == Outcome::Committed => At::Done,
        other => other,
    }
}

fn label(i: usize, what: &'static str, number: u8) -> Label {
    Label { who: i as u8 + 1, what, number }
}

/// One writer's turn.
struct Turn<'a, 'p> {
    m: &'a Model,
    s: &'a State,
    i: usize,
    put: &'a mut Put<'p>,
}

impl Model {
    pub fn writer(&self, i: usize, s: &State, put: &mut Put<'_>) {
        let mut turn = Turn { m: self, s, i, put };
        let w = s.writers[i];
        match w.at {
            At::Start => turn.start(w),
            At::PinLate => {
                // Announced only now: what was seen before counts for nothing.
                let verified = (self.rules.decide.may_donate)(false, true);
                let at = if verified { At::Commit } else { At::Choose };
                turn.go("opens run with pin", Writer { at, announced: true, verified, ..w });
            }
            At::SeeDonor => turn.see_donor(w),
            At::Choose => turn.choose(w),
            At::Announce | At::AnnounceOwn | At::AnnounceOnly => turn.announce(w),
            At::Marks | At::Exists | At::ExistsFirst | At::MarksLast => turn.look(w),
            At::Commit => turn.commit(w),
            At::Post => turn.post(w),
            At::Done => {
                let bits = self.named[i] | self.stamp[i] | self.relied[i];
                let closed = Writer { at: At::Closed, announced: false, ..w };
                turn.set("closes run", closed, s.rows.map(|r| r & !bits));
            }
            At::Closed | At::Failed => {}
        }
    }
}

impl Turn<'_, '_> {
    fn go(&mut self, what: &'static str, w: Writer) {
        self.go_with(what, 255, w);
    }

    fn go_with(&mut self, what: &'static str, number: u8, w: Writer) {
        let mut t = *self.s;
        t.writers[self.i] = w;
        (self.put)(label(self.i, what, number), &t);
    }

    fn set(&mut self, what: &'static str, w: Writer, rows: Rows) {
        let mut t = *self.s;
        t.writers[self.i] = w;
        t.rows = self.m.tidy(&rows);
        (self.put)(label(self.i, what, 255), &t);
    }

    fn relied(&self) -> u16 {
        self.m.relied[self.i]
    }

    /// No pack is relied on any more.
    fn unrelied(&self) -> Rows {
        let bit = self.relied();
        self.s.rows.map(|r| r & !bit)
    }

    /// w0: the announcement, with or without a pin.
    fn start(&mut self, w: Writer) {
        let announced = !self.m.broken(Broken::OpenedLate);
        self.go("opens run", Writer { at: At::Choose, announced, ..w });
        if !self.m.rules.donors {
            return;
        }
        let own = self.i;
        for pin in (1..2 + self.m.bounds.writers).filter(|p| usize::from(*p) != 2 + own) {
            if !self.m.broken(Broken::DonorFirst) {
                let w = Writer { at: At::SeeDonor, announced: true, pin, ..w };
                self.go_with("opens run, pins snapshot", pin - 1, w);
            } else if self.m.donates(pin, self.s) {
                self.go_with("sees snapshot alive:", pin - 1, Writer { at: At::PinLate, pin, ..w });
            }
        }
    }

    /// w0: after the announcement, the look at the donor.
    fn see_donor(&mut self, w: Writer) {
        if !(self.m.rules.decide.may_donate)(w.announced, self.m.donates(w.pin, self.s)) {
            self.go("donor dead", Writer { at: At::Choose, pin: 0, ..w });
        } else if self.m.broken(Broken::PinSuperseded) {
            self.go(
                "donor alive; a later announcement replaces the pin",
                Writer { at: At::Commit, pin: 0, ..w },
            );
        } else {
            self.go("donor alive", Writer { at: At::Commit, verified: true, ..w });
        }
    }

    /// w1: an own pack, or any other, even one that is condemned or gone.
    fn choose(&mut self, w: Writer) {
        let (m, i) = (self.m, self.i);
        let unannounced = m.broken(Broken::NoAnnouncement);
        if w.uploads < m.bounds.uploads {
            let at = if m.broken(Broken::OpenedLate) { At::AnnounceOwn } else { At::Commit };
            let stamp = if unannounced { 0 } else { m.stamp[i] };
            let rows = self.s.rows.plus(m.there | m.relied[i] | stamp);
            self.set("uploads own pack", Writer { at, uploads: w.uploads + 1, ..w }, rows);
        }
        let at = if unannounced || m.broken(Broken::VerifyFirst) { At::Marks } else { At::Announce };
        for (k, r) in self.s.rows.as_slice().iter().enumerate() {
            if !self.s.rows.repeated(k) {
                self.set(
                    "relies on a foreign pack",
                    Writer { at, ..w },
                    self.s.rows.with(k, r | m.relied[i]),
                );
            }
        }
    }

    /// w2: names what it relies on.
    fn announce(&mut self, w: Writer) {
        let m = self.m;
        let at = if w.at != At::Announce || m.broken(Broken::NoMarks) || m.broken(Broken::VerifyFirst) {
            At::Commit
        } else if m.broken(Broken::ExistenceFirst) {
            At::ExistsFirst
        } else {
            At::Marks
        };
        let (relied, named) = (self.relied(), m.named[self.i]);
        let rows = self.s.rows.map(|r| if r & relied != 0 { r | named } else { r });
        self.set("announces", Writer { at, announced: true, ..w }, rows);
    }

    /// w3: one of the two looks at the pack relied on. What the other look saw, or will see, is taken as good.
    fn look(&mut self, w: Writer) {
        let (m, relied) = (self.m, self.relied());
        let Some(row) = self.s.rows.as_slice().iter().find(|r| **r & relied != 0).copied() else { return };
        let marks = matches!(w.at, At::Marks | At::MarksLast);
        let marked = row & m.grave != 0 || marks && row & m.any_mark != 0;
        let there = marks || row & m.there != 0;
        let fine = (m.rules.decide.may_rely)(marked, there);
        let what = match (marks, fine) {
            (true, true) => "LIST marks: fine",
            (true, false) => "LIST marks: bad",
            (false, true) => "HEAD pack: fine",
            (false, false) => "HEAD pack: bad",
        };
        if fine {
            self.go(what, Writer { at: after_look(m, &w), ..w });
        } else if m.broken(Broken::SamePackName) {
            let rows = self.s.rows.map(|r| if r & relied != 0 { r | m.there } else { r });
            self.set("pack bad, puts its name again", Writer { at: At::Announce, ..w }, rows);
        } else if w.uploads < m.bounds.uploads {
            let two = m.broken(Broken::TwoObjects);
            let stamped = w.announced && !two;
            let at = match (two, stamped) {
                (true, _) => At::Marks,
                (false, true) => At::Commit,
                (false, false) => At::Announce,
            };
            let stamp = if stamped { m.stamp[self.i] } else { 0 };
            let rows = self.unrelied().plus(m.there | relied | stamp);
            self.set("pack bad, uploads a new one", Writer { at, uploads: w.uploads + 1, ..w }, rows);
        } else {
            self.set("pack bad, gives up", Writer { at: At::Failed, ..w }, self.unrelied());
        }
    }

    /// w4: the verdict.
    fn commit(&mut self, w: Writer) {
        let m = self.m;
        let committed = Writer { at: At::Done, outcome: Outcome::Committed, ..w };
        if m.broken(Broken::TwoObjects) {
            self.go("PUT snap", Writer { at: At::Post, ..committed });
        } else if m.broken(Broken::NamesReused) {
            if w.announced {
                self.set("renames pend to snap", committed, self.unrelied());
            }
        } else if w.outcome == Outcome::Open || !m.rules.exact_puts {
            self.set("commits", committed, self.unrelied());
        } else if w.restarts < m.bounds.restarts {
            self.restart(w);
        } else {
            self.set("finds its run void, gives up", Writer { at: At::Failed, ..w }, self.unrelied());
        }
    }

    /// A new run under a new name: nobody has seen anything of it; what the old one relied on is foreign now.
    fn restart(&mut self, w: Writer) {
        let (m, i) = (self.m, self.i);
        let relied = self.relied();
        let at = match self.s.rows.any(|r| r & relied != 0) {
            true if m.broken(Broken::NoSecondVerify) => At::AnnounceOnly,
            true => At::Announce,
            false => At::Start,
        };
        let mut t = *self.s;
        t.writers[i] = Writer { at, uploads: w.uploads, restarts: w.restarts + 1, ..Writer::NEW };
        t.collectors.iter_mut().for_each(|c| c.deaths &= !(Model::snapshot(i) | m.run(i)));
        t.rows = m.tidy(&self.s.rows.map(|r| r & !(m.named[i] | m.stamp[i])));
        (self.put)(label(i, "finds its run void, starts a new one", 255), &t);
    }

    /// Without put-if-absent: is the announcement still there?
    fn post(&mut self, w: Writer) {
        let relied = self.relied();
        if w.announced {
            self.set("HEAD pend: there, success", Writer { at: At::Done, ..w }, self.unrelied());
        } else if self.s.rows.any(|r| r & relied != 0) {
            self.go("HEAD pend: gone, verifies again", Writer { at: At::Marks, ..w });
        } else {
            // No donor at all cannot come here: every other way relies on a pack.
            let alive = w.pin > 0 && self.m.donates(w.pin, self.s);
            let at = if alive { At::Done } else { At::Failed };
            self.go("HEAD pend: gone, sees the donor again", Writer { at, ..w });
        }
    }
}
