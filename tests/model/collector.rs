//! Collectors: read deaths, mark or adopt, list, decide, copy, delete, finish (g1 to g6).

use crate::rules::Broken;
use crate::state::{Collector, Doing, Model, Rows, State};
use crate::world::{Label, Put};
use bulla_engine::protocol::{Fate, Outcome, Sighting};

/// What a collector looks at to decide: snapshots seen at g1, and since it listed announcements.
struct Seen {
    before: u8,
    after: u8,
}

/// One collector's turn.
struct Turn<'a, 'p> {
    m: &'a Model,
    s: &'a State,
    g: usize,
    c: Collector,
    put: &'a mut Put<'p>,
}

impl Model {
    pub fn collector(&self, g: usize, s: &State, put: &mut Put<'_>) {
        let c = s.collectors[g];
        let mut turn = Turn { m: self, s, g, c, put };
        match c.doing {
            Doing::Idle if c.cycle < self.bounds.cycles => turn.deaths(),
            Doing::Idle => {}
            Doing::Verdicts => turn.verdicts(),
            Doing::Mark => turn.mark(),
            Doing::Marks => turn.marks(),
            Doing::Packs => turn.packs(),
            Doing::Pend => turn.pend(),
            Doing::Shielded => turn.shielded(),
            Doing::Snap => turn.snap(),
            Doing::Gone => turn.gone(),
            Doing::Delete => turn.delete(),
        }
    }

    /// One bit for each snapshot (0: the old one) of which this is true.
    fn snapshots(&self, s: &State, old: bool, of: impl Fn(u8) -> bool) -> u8 {
        let committed =
            self.writers().filter(|i| s.writers[*i].outcome == Outcome::Committed && of(s.writers[*i].gone));
        committed.fold(u8::from(old), |sum, i| sum | Model::snapshot(i))
    }

    /// Ever committed: a forgotten one can still be read from `gone/`.
    fn ever(&self, s: &State) -> u8 {
        self.snapshots(s, true, |_| true)
    }

    /// What LIST snap shows.
    fn in_snap(&self, s: &State) -> u8 {
        self.snapshots(s, s.old < 2, |gone| gone < 2)
    }

    /// What LIST gone shows.
    fn in_gone(&self, s: &State) -> u8 {
        self.snapshots(s, s.old > 0, |gone| gone > 0)
    }

    fn runs(&self, s: &State, outcome: Outcome) -> u8 {
        self.writers().filter(|i| s.writers[*i].outcome == outcome).fold(0, |sum, i| sum | self.run(i))
    }

    /// The snapshots among the bits of `deaths` and `seen`.
    fn roots(&self) -> u8 {
        (1 << (1 + self.bounds.writers)) - 1
    }
}

impl Turn<'_, '_> {
    fn emit(&mut self, what: &'static str, number: u8, c: Collector, rows: Option<Rows>) {
        let mut t = *self.s;
        t.collectors[self.g] = c;
        if let Some(rows) = rows {
            t.rows = self.m.tidy(&rows);
        }
        (self.put)(Label { who: self.g as u8 + 11, what, number }, &t);
    }

    fn go(&mut self, what: &'static str, c: Collector) {
        self.emit(what, 255, c, None);
    }

    fn set(&mut self, what: &'static str, c: Collector, rows: Rows) {
        self.emit(what, 255, c, Some(rows));
    }

    /// The cycle ends.
    fn end(&mut self, what: &'static str, rows: Rows) {
        let c = Collector { cycle: self.c.cycle + 1, copies: self.c.copies, ..Collector::NEW };
        self.set(what, c, rows);
    }

    /// g1.
    fn deaths(&mut self) {
        let (m, s) = (self.m, self.s);
        let deaths = m.in_gone(s);
        if m.rules.split_before {
            return self.go("g1 LIST gone", Collector { doing: Doing::Verdicts, deaths, ..self.c });
        }
        let deaths = deaths | m.runs(s, Outcome::Void);
        let seen = if m.broken(Broken::NoRescan) {
            m.ever(s) & !deaths
        } else if m.broken(Broken::KnownNames) {
            m.writers().filter(|i| s.writers[*i].announced).fold(0, |sum, i| sum | m.run(i))
        } else {
            self.seen_at_g1()
        };
        self.go("g1 reads deaths", Collector { doing: Doing::Mark, deaths, seen, ..self.c });
    }

    fn seen_at_g1(&self) -> u8 {
        let (rules, s) = (&self.m.rules, self.s);
        let snapshots = if rules.remember { self.m.in_snap(s) } else { 0 };
        let commits = if rules.see_commits { self.m.runs(s, Outcome::Committed) } else { 0 };
        snapshots | commits
    }

    /// g1, its second request.
    fn verdicts(&mut self) {
        let deaths = self.c.deaths | self.m.runs(self.s, Outcome::Void);
        let seen = self.seen_at_g1();
        self.go("g1 LIST snap", Collector { doing: Doing::Mark, deaths, seen, ..self.c });
    }

    /// g2: condemn any present packs, or adopt any mark.
    fn mark(&mut self) {
        let (m, rows, c) = (self.m, self.s.rows, self.c);
        let there = |k: usize| rows.as_slice()[k] & m.there != 0;
        if m.rules.count_copies && c.copies < m.bounds.copies && rows.any(|r| r & m.there != 0) {
            self.set("repacks ahead", Collector { copies: c.copies + 1, ..c }, rows.plus(m.there));
        }
        let doing = if m.rules.count_copies { Doing::Marks } else { Doing::Pend };
        let mark = self.g as u8 * m.bounds.cycles + c.cycle;
        let bit = m.marks[usize::from(mark)];
        let n = rows.as_slice().len();
        for pick in 1_u32..1 << n {
            let picked = |k: usize| pick >> k & 1 == 1;
            let first_of_equals = (0..n).all(|k| !picked(k) || !rows.repeated(k) || picked(k - 1));
            if pick.count_ones() <= u32::from(m.bounds.victims)
                && first_of_equals
                && (0..n).all(|k| !picked(k) || there(k))
            {
                let mut k = 0;
                let marked = rows.map(|r| {
                    k += 1;
                    if picked(k - 1) { r | bit } else { r }
                });
                self.emit("g2 marks", pick.count_ones() as u8, Collector { doing, mark, ..c }, Some(marked));
            }
        }
        for (k, bit) in m.marks.iter().enumerate() {
            if rows.any(|r| r & bit != 0 && r & m.there != 0) {
                self.emit("g2 adopts mark", k as u8, Collector { doing, mark: k as u8, ..c }, None);
            }
        }
    }

    /// g3 of a collector that counts copies: which packs no mark names …
    fn marks(&mut self) {
        let (m, doomed) = (self.m, self.m.doomed[self.g]);
        // Whether it is there is looked at later, so taken as true here.
        let rows = self.s.rows.map(|r| {
            if (m.rules.decide.copy_counts)(r & m.any_mark != 0, true, true) { r | doomed } else { r }
        });
        self.set("g3 LIST marks", Collector { doing: Doing::Packs, ..self.c }, rows);
    }

    /// … and are there after that. They are read at once, the earliest moment being the worst.
    fn packs(&mut self) {
        let (m, doomed) = (self.m, self.m.doomed[self.g]);
        let rows = self.s.rows.map(|r| {
            let there = r & m.there != 0;
            let counts = (m.rules.decide.copy_counts)(r & doomed == 0, there, there);
            if counts { r | doomed } else { r & !doomed }
        });
        self.set("g3 LIST packs", Collector { doing: Doing::Pend, ..self.c }, rows);
    }

    /// Announcements that count: the rows they shield, and whether one of them pins.
    fn list_pend(&self) -> (Rows, bool) {
        let (m, c) = (self.m, &self.c);
        let (mut names, mut needed) = (0, c.needed);
        for (i, w) in self.s.writers[..m.writers().end].iter().enumerate() {
            let outcome_before = if c.deaths & m.run(i) != 0 {
                Outcome::Void
            } else if m.rules.see_commits && c.seen & m.run(i) != 0 {
                Outcome::Committed
            } else {
                Outcome::Open
            };
            let known = m.broken(Broken::KnownNames) && c.seen & m.run(i) != 0;
            if w.announced && (m.rules.decide.announcement_counts)(outcome_before) && !known {
                names |= m.named[i] | m.stamp[i];
                needed |= w.pin > 0;
            }
        }
        let shielded = m.shielded[self.g];
        (self.s.rows.map(|r| if r & names != 0 { r | shielded } else { r }), needed)
    }

    fn pend(&mut self) {
        let (m, c) = (self.m, self.c);
        if m.broken(Broken::NoRescan) {
            return self.decide(&self.s.rows, &Seen { before: c.seen, after: 0 }, c.needed);
        }
        if m.broken(Broken::SnapFirst) {
            return self.go("g3 LIST snap", Collector { doing: Doing::Snap, seen: m.ever(self.s), ..c });
        }
        let (rows, needed) = self.list_pend();
        let doing = if m.rules.read_shielded_first { Doing::Shielded } else { Doing::Snap };
        // What was seen of runs has done its duty.
        let seen = if m.rules.remember { c.seen & m.roots() } else { c.seen };
        self.set("g3 LIST pend", Collector { doing, needed, seen, ..c }, rows);
    }

    /// Between `pend/` and `snap/`: a shielded pack that is gone by now belongs to a run whose verdict LIST snap will
    /// show, so only those that are there need be read.
    fn shielded(&mut self) {
        let (m, shielded) = (self.m, self.m.shielded[self.g]);
        let holds = self.s.rows.any(|r| r & shielded != 0);
        let needed = (m.rules.decide.is_needed)(false, self.c.needed, holds);
        self.go("g3 reads shielded packs", Collector { doing: Doing::Snap, needed, ..self.c });
    }

    fn snap(&mut self) {
        let (m, c, s) = (self.m, self.c, self.s);
        if m.broken(Broken::SnapFirst) {
            let (rows, needed) = self.list_pend();
            self.decide(&rows, &Seen { before: 0, after: c.seen }, needed);
        } else if m.rules.split {
            let gone_first = m.broken(Broken::GoneFirst);
            let (what, listed) =
                if gone_first { ("g3 LIST gone", m.in_gone(s)) } else { ("g3 LIST snap", m.in_snap(s)) };
            // A snapshot seen at g1 and one seen now are equal before `is_root`: one bit for both.
            let seen = if m.rules.remember { c.seen | listed } else { listed };
            self.go(what, Collector { doing: Doing::Gone, seen, ..c });
        } else {
            let before = if m.rules.remember { c.seen } else { 0 };
            self.decide(&s.rows, &Seen { before, after: m.ever(s) }, c.needed);
        }
    }

    fn gone(&mut self) {
        let (m, s) = (self.m, self.s);
        let listed = if m.broken(Broken::GoneFirst) { m.in_snap(s) } else { m.in_gone(s) };
        self.decide(&s.rows, &Seen { before: 0, after: self.c.seen | listed }, self.c.needed);
    }

    /// g3: whether a root needs the chunk.
    fn needed_by_root(&self, seen: &Seen) -> bool {
        let (m, deaths) = (self.m, self.c.deaths);
        let dead_now = m.in_gone(self.s);
        (0..=m.bounds.writers).any(|k| {
            let bit = |bits: u8| bits >> k & 1 == 1;
            let sighting = Sighting {
                before_mark: bit(seen.before),
                after_pend: bit(seen.after),
                dead_before_mark: bit(deaths),
            };
            (m.rules.decide.is_root)(sighting, bit(dead_now))
        })
    }

    /// g4: keep, copy or sweep each victim.
    fn decide(&mut self, rows: &Rows, seen: &Seen, needed: bool) {
        let (m, c) = (self.m, self.c);
        let (decide, mark) = (&m.rules.decide, m.marks[usize::from(c.mark)]);
        let (doomed, shielded) = (m.doomed[self.g], m.shielded[self.g]);
        let counting = m.rules.count_copies;
        let late_read = counting && !m.rules.read_shielded_first && rows.any(|r| r & shielded != 0);
        let has_copy = counting && rows.any(|r| r & doomed != 0);
        let needed = (decide.is_needed)(self.needed_by_root(seen), needed, late_read) && !has_copy;
        for readable in [true, false] {
            let fate_of = |r: u16| {
                let victim = r & mark != 0 && r & m.there != 0;
                victim.then(|| (decide.fate)(r & shielded != 0, needed, readable))
            };
            let copying = rows.any(|r| fate_of(r) == Some(Fate::CopyThenDelete));
            if copying && c.copies == m.bounds.copies {
                continue;
            }
            if rows.any(|r| r & shielded == 0 && fate_of(r) == Some(Fate::Leave)) {
                self.end("c is live: leaves its victims", rows.map(|r| r & !doomed & !shielded));
                break;
            }
            // Asked before the copies are made, the decision must refuse; then they are made.
            for copied in if copying { [false, true].as_slice() } else { &[true] } {
                let sweep = |r: u16| fate_of(r).is_some_and(|f| (decide.may_delete)(f, *copied, true));
                let mut after = rows.map(|r| r & !doomed & !shielded | if sweep(r) { doomed } else { 0 });
                if !copied && !after.any(|r| r & doomed != 0) {
                    continue;
                }
                let made = copying && *copied;
                if made {
                    after.push(m.there);
                }
                let what = if made { "c is live: copies it" } else { "decides to sweep" };
                let copies = c.copies + u8::from(made);
                let next = Collector { doing: Doing::Delete, deaths: 0, seen: 0, needed: false, copies, ..c };
                self.set(what, next, after);
            }
            if !copying {
                break;
            }
        }
        if m.broken(Broken::Cancel) && usize::from(c.mark / m.bounds.cycles) == self.g {
            self.end("cancels its own mark", rows.map(|r| r & !mark & !doomed & !shielded));
        }
    }

    /// g5, pack by pack, and g6.
    fn delete(&mut self) {
        let (m, rows) = (self.m, self.s.rows);
        let doomed = m.doomed[self.g];
        // A grave precedes the delete if the decision insists on one.
        let grave = if (m.rules.decide.may_delete)(Fate::Delete, true, false) { 0 } else { m.grave };
        let todo = |r: u16| r & doomed != 0 && (r & m.there != 0 || m.broken(Broken::SamePackName));
        for (k, r) in rows.as_slice().iter().copied().enumerate() {
            if todo(r) && !rows.repeated(k) {
                let late = if r & m.there != 0 { grave | m.late_put | m.late_delete } else { 0 };
                self.set("g5 DELETE", self.c, rows.with(k, r & !doomed & !m.there | late));
            }
        }
        if rows.any(todo) {
            return;
        }
        let mark = m.marks[usize::from(self.c.mark)];
        let clean = rows.map(|r| r & !doomed);
        if clean.any(|r| r & mark != 0 && r & m.there != 0) {
            self.end("ends, mark stays", clean);
        } else {
            self.end("g6 removes mark", clean.map(|r| r & !mark));
        }
    }
}
