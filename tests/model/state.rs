//! A state: what the store holds and where everyone is. Packed into 32 bytes, and the same for writers that only
//! swapped names, collectors likewise.
//!
//! Packs are interchangeable (a sorted list of rows, one bit set each), so are writers, so are collectors: an action
//! of one is an action of the other after swapping, and the start and the violations do not tell them apart.
//! [`Model::canonical`] picks one state of each class and says how many states the class has, so that a reduced run
//! still counts the states of the whole space.

use crate::rules::{Bounds, Broken, Rules};
use bulla_engine::protocol::Outcome;

pub const ROWS: usize = 6;
pub const ACTORS: usize = 3;

/// Where a writer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum At {
    Start,
    PinLate,
    SeeDonor,
    Choose,
    Announce,
    AnnounceOwn,
    AnnounceOnly,
    Marks,
    Exists,
    ExistsFirst,
    MarksLast,
    Commit,
    Post,
    Done,
    Closed,
    Failed,
}

const ATS: [At; 16] = {
    use At::*;
    [
        Start,
        PinLate,
        SeeDonor,
        Choose,
        Announce,
        AnnounceOwn,
        AnnounceOnly,
        Marks,
        Exists,
        ExistsFirst,
        MarksLast,
        Commit,
        Post,
        Done,
        Closed,
        Failed,
    ]
};

const OUTCOMES: [Outcome; 3] = [Outcome::Open, Outcome::Committed, Outcome::Void];

/// A writer, and what the store holds of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub at: At,
    /// Its announcement is there.
    pub announced: bool,
    /// 0: none, 1: the old snapshot, 2 + i: the run of writer i.
    pub pin: u8,
    /// The pin is announced as verified.
    pub verified: bool,
    pub outcome: Outcome,
    /// 1: forgotten, 2: and removed from `snap/`.
    pub gone: u8,
    pub uploads: u8,
    pub restarts: u8,
}

impl Writer {
    pub const NEW: Writer = Writer {
        at: At::Start,
        announced: false,
        pin: 0,
        verified: false,
        outcome: Outcome::Open,
        gone: 0,
        uploads: 0,
        restarts: 0,
    };

    fn pack(&self) -> u64 {
        self.at as u64
            | u64::from(self.announced) << 4
            | u64::from(self.pin) << 5
            | u64::from(self.verified) << 8
            | (self.outcome as u64) << 9
            | u64::from(self.gone) << 11
            | u64::from(self.uploads) << 13
            | u64::from(self.restarts) << 15
    }

    fn unpack(bits: u64) -> Writer {
        Writer {
            at: ATS[(bits & 15) as usize],
            announced: bits >> 4 & 1 == 1,
            pin: (bits >> 5 & 7) as u8,
            verified: bits >> 8 & 1 == 1,
            outcome: OUTCOMES[(bits >> 9 & 3) as usize],
            gone: (bits >> 11 & 3) as u8,
            uploads: (bits >> 13 & 3) as u8,
            restarts: (bits >> 15 & 3) as u8,
        }
    }

    /// What of it does not depend on the numbers of writers and collectors.
    fn key(&self) -> u64 {
        Writer { pin: self.pin.min(2), ..*self }.pack()
    }
}

/// Where a collector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Doing {
    Idle,
    Verdicts,
    Mark,
    Marks,
    Packs,
    Pend,
    Shielded,
    Snap,
    Gone,
    Delete,
}

const DOINGS: [Doing; 10] = {
    use Doing::*;
    [Idle, Verdicts, Mark, Marks, Packs, Pend, Shielded, Snap, Gone, Delete]
};

/// A collector and what it remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collector {
    pub doing: Doing,
    /// The mark it carries out: author × cycles + cycle. 0 before it chose one.
    pub mark: u8,
    /// Deaths and VOIDs read at g1: the old snapshot, snapshots, void runs.
    pub deaths: u8,
    /// What it saw: snapshots, then runs that had committed (or were announced: a mutant) at g1.
    pub seen: u8,
    /// A pin that counts needs the chunk, or a shielded pack was read and holds it.
    pub needed: bool,
    pub cycle: u8,
    pub copies: u8,
}

impl Collector {
    pub const NEW: Collector =
        Collector { doing: Doing::Idle, mark: 0, deaths: 0, seen: 0, needed: false, cycle: 0, copies: 0 };

    fn pack(&self) -> u64 {
        self.doing as u64
            | u64::from(self.mark) << 4
            | u64::from(self.deaths) << 7
            | u64::from(self.seen) << 14
            | u64::from(self.needed) << 21
            | u64::from(self.cycle) << 22
            | u64::from(self.copies) << 24
    }

    fn unpack(bits: u64) -> Collector {
        Collector {
            doing: DOINGS[(bits & 15) as usize],
            mark: (bits >> 4 & 7) as u8,
            deaths: (bits >> 7 & 127) as u8,
            seen: (bits >> 14 & 127) as u8,
            needed: bits >> 21 & 1 == 1,
            cycle: (bits >> 22 & 3) as u8,
            copies: (bits >> 24 & 3) as u8,
        }
    }

    /// What of it does not depend on the numbers of writers and collectors.
    fn key(&self) -> u64 {
        Collector { mark: 0, deaths: self.deaths & 1, seen: self.seen & 1, ..*self }.pack()
    }

    /// From g2 on `mark` is the number of a mark.
    fn has_mark(&self) -> bool {
        self.doing > Doing::Mark
    }
}

/// The packs that hold the chunk, one row of bits each, sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    len: u8,
    rows: [u16; ROWS],
}

impl Rows {
    pub const NONE: Rows = Rows { len: 0, rows: [0; ROWS] };

    pub fn as_slice(&self) -> &[u16] {
        &self.rows[..usize::from(self.len)]
    }

    pub fn push(&mut self, row: u16) {
        self.rows[usize::from(self.len)] = row;
        self.len += 1;
    }

    pub fn any(&self, mut test: impl FnMut(u16) -> bool) -> bool {
        self.as_slice().iter().any(|r| test(*r))
    }

    pub fn map(&self, mut f: impl FnMut(u16) -> u16) -> Rows {
        let mut out = *self;
        out.rows[..usize::from(self.len)].iter_mut().for_each(|r| *r = f(*r));
        out
    }

    /// With row `k` replaced.
    pub fn with(&self, k: usize, row: u16) -> Rows {
        let mut out = *self;
        out.rows[k] = row;
        out
    }

    pub fn plus(&self, row: u16) -> Rows {
        let mut out = *self;
        out.push(row);
        out
    }

    /// True if an equal row precedes row `k`: what can be done to it was done to that one.
    pub fn repeated(&self, k: usize) -> bool {
        k > 0 && self.rows[k] == self.rows[k - 1]
    }

    fn sort(&mut self) {
        let rows = &mut self.rows[..usize::from(self.len)];
        for i in 1..rows.len() {
            let mut j = i;
            while j > 0 && rows[j - 1] > rows[j] {
                rows.swap(j - 1, j);
                j -= 1;
            }
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    pub rows: Rows,
    /// The old snapshot: 0 alive, 1 forgotten, 2 and removed from `snap/`.
    pub old: u8,
    pub writers: [Writer; ACTORS],
    pub collectors: [Collector; ACTORS],
}

/// A state in 32 bytes.
pub type Packed = [u64; 4];

impl State {
    pub fn pack(&self) -> Packed {
        let (w, c, r) = (&self.writers, &self.collectors, &self.rows.rows);
        let row = |k: usize| u64::from(r[k]);
        [
            w[0].pack()
                | w[1].pack() << 17
                | w[2].pack() << 34
                | u64::from(self.old) << 51
                | u64::from(self.rows.len) << 53,
            c[0].pack() | c[1].pack() << 32,
            c[2].pack() | row(0) << 32 | row(1) << 48,
            row(2) | row(3) << 16 | row(4) << 32 | row(5) << 48,
        ]
    }

    pub fn unpack(p: &Packed) -> State {
        let writer = |shift: u32| Writer::unpack(p[0] >> shift & 0x1_ffff);
        let collector = |bits: u64| Collector::unpack(bits & 0xffff_ffff);
        let row = |bits: u64, shift: u32| (bits >> shift & 0xffff) as u16;
        State {
            rows: Rows {
                len: (p[0] >> 53 & 7) as u8,
                rows: [
                    row(p[2], 32),
                    row(p[2], 48),
                    row(p[3], 0),
                    row(p[3], 16),
                    row(p[3], 32),
                    row(p[3], 48),
                ],
            },
            old: (p[0] >> 51 & 3) as u8,
            writers: [writer(0), writer(17), writer(34)],
            collectors: [collector(p[1]), collector(p[1] >> 32), collector(p[2])],
        }
    }

    /// True if the old snapshot is neither forgotten nor removed.
    pub fn old_is_alive(&self) -> bool {
        self.old == 0
    }
}

/// A permutation of the actors: `0[old] = new`.
type Swap = [u8; ACTORS];

/// Those of the first `n`, the others stay.
fn swaps(n: u8) -> Vec<Swap> {
    let all = [[0, 1, 2], [1, 0, 2], [0, 2, 1], [2, 1, 0], [1, 2, 0], [2, 0, 1]];
    all.into_iter().filter(|s| (usize::from(n)..ACTORS).all(|k| usize::from(s[k]) == k)).collect()
}

/// The model: bounds, rules, and what each bit of a row means.
pub struct Model {
    pub bounds: Bounds,
    pub rules: Rules,
    /// Present.
    pub there: u16,
    /// A grave names it (duplicates only, as the next two).
    pub grave: u16,
    pub late_put: u16,
    pub late_delete: u16,
    /// Per writer: its directory carries the run, an announcement names it, the tree relies on it.
    pub stamp: [u16; ACTORS],
    pub named: [u16; ACTORS],
    pub relied: [u16; ACTORS],
    /// Per collector: doomed, or (before the decision) counted as a copy; shielded.
    pub doomed: [u16; ACTORS],
    pub shielded: [u16; ACTORS],
    /// Per collector and cycle.
    pub marks: Vec<u16>,
    pub any_mark: u16,
    /// Bits that keep a row without its pack in mind, and the bits such a row keeps.
    keep_absent: u16,
    absent_bits: u16,
    swaps: [Vec<Swap>; 2],
}

impl Model {
    pub fn new(bounds: Bounds, rules: Rules) -> Model {
        let (w, c) = (usize::from(bounds.writers), usize::from(bounds.collectors));
        assert!((1..=ACTORS).contains(&w) && (1..=ACTORS).contains(&c), "actors");
        assert!(
            bounds.packs + bounds.writers * bounds.uploads + bounds.collectors * bounds.copies <= ROWS as u8,
            "rows"
        );
        let mut next = 1_u32;
        let mut take = |n: usize| -> Vec<u16> {
            let bits = (0..n).map(|k| u16::try_from(next << k).expect("16 bits a row")).collect();
            next <<= n;
            bits
        };
        let actors =
            |bits: Vec<u16>| -> [u16; ACTORS] { std::array::from_fn(|k| bits.get(k).copied().unwrap_or(0)) };
        let there = take(1)[0];
        let [grave, late_put, late_delete] = actors(take(if rules.duplicates { 3 } else { 0 }));
        let (stamp, named, relied) = (actors(take(w)), actors(take(w)), actors(take(w)));
        let (doomed, shielded) = (actors(take(c)), actors(take(c)));
        let marks = take(c * usize::from(bounds.cycles));
        let any_mark = marks.iter().sum();
        let keep_absent = relied.iter().chain(&doomed).sum::<u16>() | late_put | late_delete;
        Model {
            swaps: [swaps(bounds.writers), swaps(bounds.collectors)],
            absent_bits: keep_absent | any_mark | grave,
            bounds,
            rules,
            there,
            grave,
            late_put,
            late_delete,
            stamp,
            named,
            relied,
            doomed,
            shielded,
            marks,
            any_mark,
            keep_absent,
        }
    }

    pub fn broken(&self, broken: Broken) -> bool {
        self.rules.broken == broken
    }

    pub fn start(&self) -> State {
        let mut rows = Rows::NONE;
        (0..self.bounds.packs).for_each(|_| rows.push(self.there));
        State { rows, old: 0, writers: [Writer::NEW; ACTORS], collectors: [Collector::NEW; ACTORS] }
    }

    /// The bit of a snapshot in `deaths` and `seen`; 0 is the old one.
    pub fn snapshot(writer: usize) -> u8 {
        1 << (1 + writer)
    }

    /// The bit of a run: VOID in `deaths`, committed (or announced) in `seen`.
    pub fn run(&self, writer: usize) -> u8 {
        1 << (1 + usize::from(self.bounds.writers) + writer)
    }

    pub fn writers(&self) -> std::ops::Range<usize> {
        0..usize::from(self.bounds.writers)
    }

    /// Rows that matter, sorted.
    pub fn tidy(&self, rows: &Rows) -> Rows {
        let mut out = Rows::NONE;
        for r in rows.as_slice() {
            if r & self.there != 0 {
                out.push(*r);
            } else if r & self.keep_absent != 0 {
                out.push(r & self.absent_bits);
            }
        }
        out.sort();
        out
    }

    /// The state after renaming writers and collectors.
    fn renamed(&self, s: &State, ws: &Swap, cs: &Swap) -> State {
        let (cycles, count) = (self.bounds.cycles, self.bounds.writers);
        let mut out = *s;
        let actors = |bits: &[u16; ACTORS], swap: &Swap, row: u16| -> u16 {
            (0..ACTORS).filter(|k| row & bits[*k] != 0).map(|k| bits[usize::from(swap[k])]).sum()
        };
        let mark = |m: u8| cs[usize::from(m / cycles)] * cycles + m % cycles;
        let facts = |bits: u8| -> u8 {
            (0..usize::from(count)).fold(bits & 1, |sum, k| {
                let to = usize::from(ws[k]);
                sum | (bits >> (1 + k) & 1) << (1 + to) | (bits >> (1 + count) >> k & 1) << (1 + count) << to
            })
        };
        let fixed = self.there | self.grave | self.late_put | self.late_delete;
        out.rows = s.rows.map(|r| {
            let marks: u16 = (0..self.marks.len())
                .filter(|m| r & self.marks[*m] != 0)
                .map(|m| self.marks[usize::from(mark(m as u8))])
                .sum();
            let writers =
                [&self.stamp, &self.named, &self.relied].map(|b| actors(b, ws, r)).iter().sum::<u16>();
            let collectors = [&self.doomed, &self.shielded].map(|b| actors(b, cs, r)).iter().sum::<u16>();
            r & fixed | writers | collectors | marks
        });
        out.rows.sort();
        for k in 0..ACTORS {
            let w = &s.writers[k];
            let pin = if w.pin < 2 { w.pin } else { 2 + ws[usize::from(w.pin - 2)] };
            out.writers[usize::from(ws[k])] = Writer { pin, ..*w };
            let c = &s.collectors[k];
            out.collectors[usize::from(cs[k])] = Collector {
                mark: if c.has_mark() { mark(c.mark) } else { 0 },
                deaths: facts(c.deaths),
                seen: facts(c.seen),
                ..*c
            };
        }
        out
    }

    /// One state for all that differ by names only, and how many those are.
    pub fn canonical(&self, s: &State) -> (Packed, u64) {
        let [ws, cs] = &self.swaps;
        if ws.len() * cs.len() == 1 {
            return (s.pack(), 1);
        }
        let sorted = |keys: [u64; ACTORS], swap: &Swap| {
            let mut to = [0; ACTORS];
            (0..ACTORS).for_each(|k| to[usize::from(swap[k])] = keys[k]);
            to
        };
        // Swaps that do not sort the keys cannot give the least state, nor an image equal to it.
        let best = |all: &[Swap], keys: [u64; ACTORS]| -> ([Swap; 6], usize) {
            let (mut out, mut n) = ([[0; ACTORS]; 6], 0);
            let least = all.iter().map(|w| sorted(keys, w)).min().unwrap_or(keys);
            for w in all.iter().filter(|w| sorted(keys, w) == least) {
                out[n] = *w;
                n += 1;
            }
            (out, n)
        };
        let (wb, wn) = best(ws, s.writers.map(|w| w.key()));
        let (cb, cn) = best(cs, s.collectors.map(|c| c.key()));
        let (mut least, mut equal) = ([u64::MAX; 4], 0);
        for w in &wb[..wn] {
            for c in &cb[..cn] {
                let image = self.renamed(s, w, c).pack();
                match image.cmp(&least) {
                    std::cmp::Ordering::Less => (least, equal) = (image, 1),
                    std::cmp::Ordering::Equal => equal += 1,
                    std::cmp::Ordering::Greater => {}
                }
            }
        }
        (least, (ws.len() * cs.len()) as u64 / equal)
    }
}
