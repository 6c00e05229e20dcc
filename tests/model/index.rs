//! Index runs (SPEC 10): a writer, a sweeper, two mergers and a reader that pages through names in order.
//!
//! Chunk c lies in pack P, later in its copy R; chunk x in X. Writer: PUT X, PUT run(X), commit. Sweeper: PUT R, PUT
//! run(R), PUT run(grave of P), DELETE P. Mergers: LIST and GET all, PUT the union, DELETE the inputs. The reader must
//! have seen c somewhere.

use crate::explore::{Found, explore};

const P: u8 = 1;
const R: u8 = 2;
const X: u8 = 4;
/// Runs 1 and 2, one of the writer, two of the sweeper, one of each merger.
const RUNS: usize = 7;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Nothing,
    /// An input that could not be read is deleted all the same.
    SkipBad,
    /// A merger drops records of packs that were absent from a LIST.
    PacksFirst,
    /// A merger drops graves.
    DropGraves,
    /// A merged run may sort before its inputs.
    LowNames,
    /// DELETE before the copy's and the grave's run.
    SweepFirst,
}

/// A run: its name (negative: sorts first), the packs it lists, and whether it holds the grave of P.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Run {
    name: i8,
    listed: u8,
    grave: bool,
}

/// Runs by number, which is the name's absolute value.
type Runs = [Option<Run>; RUNS];

/// The present ones, by name.
fn sorted(runs: &Runs) -> Vec<Run> {
    let mut out: Vec<Run> = runs.iter().flatten().copied().collect();
    out.sort_by_key(|r| r.name);
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Merger {
    Idle,
    Listed(u8),
    Read(Runs),
    Deleting([i8; RUNS]),
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    packs: u8,
    runs: Runs,
    next: i8,
    writer: u8,
    sweeper: u8,
    mergers: [Merger; 2],
    /// The last name it got, 0 at first; at the end none.
    reader: Option<i8>,
    got: u8,
}

impl State {
    fn start() -> State {
        let mut runs = [None; RUNS];
        runs[0] = Some(Run { name: 1, listed: 0, grave: false });
        runs[1] = Some(Run { name: 2, listed: P, grave: false });
        let mergers = [Merger::Idle; 2];
        State { packs: P, runs, next: 3, writer: 0, sweeper: 0, mergers, reader: Some(0), got: 0 }
    }

    /// With one more run.
    fn put(mut self, listed: u8, grave: bool, low: bool) -> State {
        let name = if low { -self.next } else { self.next };
        self.runs[self.next as usize - 1] = Some(Run { name, listed, grave });
        self.next += 1;
        self
    }

    fn lost(&self) -> Option<&'static str> {
        let all = self.runs.iter().flatten().fold(0, |sum, r| sum | r.listed);
        let listed = all & self.packs;
        if listed & (P | R) == 0 {
            return Some("c is in no index run");
        }
        if self.writer == 3 && listed & X == 0 {
            return Some("committed x is in no index run");
        }
        if self.reader.is_none() && self.got & (P | R) == 0 {
            return Some("one ordered LIST saw no run with c");
        }
        let quiet = self.sweeper == 5 && self.mergers.iter().all(|m| *m == Merger::Done);
        let graves = self.runs.iter().flatten().any(|r| r.grave);
        (quiet && all & P != 0 && !graves).then_some("a deleted pack is listed again, without a grave")
    }
}

type Put<'a> = dyn FnMut(&'static str, State) + 'a;

fn writer_and_sweeper(s: &State, broken: Broken, put: &mut Put<'_>) {
    match s.writer {
        0 => put("W PUT X", State { packs: s.packs | X, writer: 1, ..*s }),
        1 => put("W PUT run(X)", State { writer: 2, ..s.put(X, false, false) }),
        2 => put("W commits", State { writer: 3, ..*s }),
        _ => {}
    }
    match s.sweeper {
        0 => put("S PUT R", State { packs: s.packs | R, sweeper: 1, ..*s }),
        1 if broken == Broken::SweepFirst => {
            put("S DELETE P", State { packs: s.packs & !P, sweeper: 4, ..*s })
        }
        1 => put("S PUT run(R)", State { sweeper: 2, ..s.put(R, false, false) }),
        2 => put("S PUT run(grave P)", State { sweeper: 3, ..s.put(0, true, false) }),
        3 => put("S DELETE P", State { packs: s.packs & !P, sweeper: 5, ..*s }),
        _ => {}
    }
}

fn merger(k: usize, s: &State, broken: Broken, put: &mut Put<'_>) {
    let with = |s: &State, m: Merger| {
        let mut t = *s;
        t.mergers[k] = m;
        t
    };
    match s.mergers[k] {
        Merger::Idle if s.runs.iter().flatten().count() < 2 => {}
        Merger::Idle if broken == Broken::PacksFirst => put("M LIST packs", with(s, Merger::Listed(s.packs))),
        Merger::Idle => put("M LIST+GET runs", with(s, Merger::Read(s.runs))),
        Merger::Listed(packs) => {
            let runs = s.runs.map(|r| r.map(|r| Run { listed: r.listed & packs, ..r }));
            put("M LIST+GET runs", with(s, Merger::Read(runs)));
        }
        Merger::Read(runs) => {
            let inputs = sorted(&runs);
            let grave = inputs.iter().any(|r| r.grave);
            let all = inputs.iter().fold(0, |sum, r| sum | r.listed);
            let mut listed = if grave { all & !P } else { all };
            if broken == Broken::SkipBad {
                listed &= !inputs[1].listed;
            }
            let mut names = [0; RUNS];
            names.iter_mut().zip(&inputs).for_each(|(n, r)| *n = r.name);
            let grave = grave && broken != Broken::DropGraves;
            let merged = s.put(listed, grave, broken == Broken::LowNames);
            put("M PUT merged", with(&merged, Merger::Deleting(names)));
        }
        Merger::Deleting(mut names) if names[0] != 0 => {
            let mut t = *s;
            t.runs[usize::from(names[0].unsigned_abs()) - 1] = None;
            names.rotate_left(1);
            names[RUNS - 1] = 0;
            put("M DELETE input", with(&t, Merger::Deleting(names)));
        }
        Merger::Deleting(_) => put("M done", with(s, Merger::Done)),
        Merger::Done => {}
    }
}

fn reader(s: &State, put: &mut Put<'_>) {
    let Some(last) = s.reader else { return };
    if let Some(run) = sorted(&s.runs).into_iter().find(|r| last == 0 || r.name > last) {
        put("reader GETs a run", State { reader: Some(run.name), got: s.got | run.listed, ..*s });
    } else if last != 0 {
        put("reader reaches the end", State { reader: None, ..*s });
    }
}

fn search(broken: Broken) -> Found {
    let steps = |s: &State, put: &mut dyn FnMut(&'static str, State)| {
        writer_and_sweeper(s, broken, put);
        (0..2).for_each(|k| merger(k, s, broken, put));
        reader(s, put);
    };
    explore(State::start(), steps, State::lost)
}

#[test]
fn no_chunk_leaves_the_index() {
    let found = search(Broken::Nothing);
    println!("index: {} states", found.states);
    assert!(found.loss.is_none(), "{:?}", found.loss);
    assert_eq!(found.states, 932_942);
}

fn loses(broken: Broken, steps: usize) {
    let found = search(broken);
    let loss = found.loss.unwrap_or_else(|| panic!("{broken:?}: nothing lost in {} states", found.states));
    let (why, trace) = (loss.why, loss.trace);
    println!(
        "index {broken:?}: {why} in {} steps, {} states: {}",
        trace.len(),
        found.states,
        trace.join(" | ")
    );
    assert_eq!(trace.len(), steps);
}

#[test]
fn skipbad() {
    loses(Broken::SkipBad, 4);
}

#[test]
fn packsfirst() {
    loses(Broken::PacksFirst, 9);
}

#[test]
fn dropgraves() {
    loses(Broken::DropGraves, 16);
}

#[test]
fn lownames() {
    loses(Broken::LowNames, 6);
}

#[test]
fn sweepfirst() {
    loses(Broken::SweepFirst, 2);
}
