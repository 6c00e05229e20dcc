//! The baton: of all hosts one runs at a time, from one request to the store to the next. Who gets it, which requests
//! go wrong and what the store's clock does follow from the seed.

use crate::random::Random;
use bulla_engine::backend::{Backend, BackendError, Capabilities, Memory, Put, Result, Stat};
use bulla_engine::format::{Area, ObjectName};
use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a request goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It fails and has no effect.
    Once,
    /// It takes effect; the answer is lost.
    LostAnswer,
    /// The host dies before it.
    CrashBefore,
    /// The host dies after it took effect.
    CrashAfter,
    /// No space, this time.
    NoSpace,
}

/// What a request is about.
#[derive(Debug, Clone, Copy)]
enum Target {
    Name(ObjectName),
    Area(Area),
    Store,
}

/// A line of the trace.
enum Line {
    Request(u8, &'static str, Target, Option<Fault>),
    Note(u8, String),
    Clock(i64),
}

/// One host as the scheduler sees it.
#[derive(Default)]
struct Seat {
    finished: bool,
    crashed: bool,
    /// Stalled until this step.
    asleep: u64,
    /// Faults it has met.
    faults: u64,
}

struct State {
    random: Random,
    current: usize,
    steps: u64,
    seats: Vec<Seat>,
    /// The baton is passed on at one request in so many.
    pass: u64,
    /// One request in so many goes wrong; 0 for none.
    fault: u64,
    trace: Vec<Line>,
    failure: Option<String>,
}

/// The store that all hosts share, and whose turn it is.
pub(crate) struct Stage {
    pub(crate) memory: Arc<Memory>,
    state: Mutex<State>,
    turns: Vec<Condvar>,
}

/// No computation between two requests takes this long; a host that holds the baton longer hangs.
const HANG: Duration = Duration::from_secs(60);

impl Stage {
    pub(crate) fn new(memory: Arc<Memory>, hosts: usize, mut random: Random) -> Arc<Self> {
        let pass = [2, 6, 20, 60][random.below(4) as usize];
        let fault = [0, 0, 600, 150, 40][random.below(5) as usize];
        let current = random.below(hosts as u64) as usize;
        let state = State {
            random,
            current,
            steps: 0,
            seats: (0..hosts).map(|_| Seat::default()).collect(),
            pass,
            fault,
            trace: Vec::new(),
            failure: None,
        };
        let turns = (0..hosts).map(|_| Condvar::new()).collect();
        Arc::new(Self { memory, state: Mutex::new(state), turns })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `host` holds the baton.
    fn wait<'a>(&self, host: usize, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        while state.current != host {
            let (again, timeout) =
                self.turns[host].wait_timeout(state, HANG).unwrap_or_else(PoisonError::into_inner);
            state = again;
            if timeout.timed_out() && state.current != host {
                state.failure.get_or_insert_with(|| "the host that holds the baton hangs".into());
                state.current = host;
            }
        }
        state
    }

    /// Called once by each host, before it does anything.
    pub(crate) fn begin(&self, host: usize) {
        drop(self.wait(host, self.lock()));
    }

    /// The host is done for good.
    pub(crate) fn finish(&self, host: usize) {
        let mut state = self.wait(host, self.lock());
        state.seats[host].finished = true;
        state.pass_on(true);
        self.turns[state.current].notify_all();
    }

    /// Something worth a line in the trace.
    pub(crate) fn note(&self, host: usize, text: String) {
        self.lock().trace.push(Line::Note(host as u8, text));
    }

    /// An invariant is broken: everyone stops.
    pub(crate) fn fail(&self, host: usize, text: String) {
        let mut state = self.lock();
        state.trace.push(Line::Note(host as u8, text.clone()));
        state.failure.get_or_insert(text);
    }

    /// Faults that `host` has met so far.
    pub(crate) fn faults(&self, host: usize) -> u64 {
        self.lock().seats[host].faults
    }

    /// True if the host's process died; it may start another.
    pub(crate) fn crashed(&self, host: usize) -> bool {
        self.lock().seats[host].crashed
    }

    pub(crate) fn restart(&self, host: usize) {
        self.lock().seats[host].crashed = false;
    }

    pub(crate) fn failed(&self) -> bool {
        self.lock().failure.is_some()
    }

    /// Requests so far.
    pub(crate) fn steps(&self) -> u64 {
        self.lock().steps
    }

    /// The first broken invariant.
    pub(crate) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Every request and event, in order.
    pub(crate) fn trace(&self) -> String {
        let (state, mut out) = (self.lock(), String::new());
        for (at, line) in state.trace.iter().enumerate() {
            let written = match line {
                Line::Request(host, verb, target, fault) => {
                    let target = match target {
                        Target::Name(name) => name.to_string(),
                        Target::Area(area) => area.dir().to_owned(),
                        Target::Store => String::new(),
                    };
                    let fault = fault.map_or(String::new(), |f| format!(" !! {f:?}"));
                    writeln!(out, "{at:6} host {host}: {verb} {target}{fault}")
                }
                Line::Note(host, text) => writeln!(out, "{at:6} host {host} -- {text}"),
                Line::Clock(seconds) => writeln!(out, "{at:6} the store's clock moves by {seconds} s"),
            };
            written.unwrap();
        }
        out
    }

    /// A request's turn: who goes on, what the clock does, and what goes wrong with it.
    fn turn(
        &self,
        host: usize,
        verb: &'static str,
        target: Target,
        writes: bool,
    ) -> (MutexGuard<'_, State>, Option<Fault>) {
        // Another thread of this host may have given the baton away.
        let mut state = self.wait(host, self.lock());
        if state.pass_on(false) {
            self.turns[state.current].notify_all();
            state = self.wait(host, state);
        }
        state.steps += 1;
        if let Some(seconds) = state.clock() {
            self.memory.advance(seconds);
            state.trace.push(Line::Clock(seconds));
        }
        let fault = state.fault(host, writes);
        state.trace.push(Line::Request(host as u8, verb, target, fault));
        (state, fault)
    }
}

impl State {
    /// Maybe gives the baton to another host; true if it did.
    fn pass_on(&mut self, must: bool) -> bool {
        let before = self.current;
        if !must && !self.random.one_in(self.pass) {
            return false;
        }
        if !must && self.random.one_in(40) {
            let long = self.random.below(2000);
            self.seats[before].asleep = self.steps + long;
        }
        let steps = self.steps;
        let ready = |awake: bool| -> Vec<usize> {
            let fits = |s: &Seat| !s.finished && (!awake || s.asleep <= steps);
            self.seats.iter().enumerate().filter(|(_, s)| fits(s)).map(|(n, _)| n).collect()
        };
        let mut hosts = ready(true);
        if hosts.is_empty() {
            hosts = ready(false);
        }
        if !hosts.is_empty() {
            self.current = hosts[self.random.below(hosts.len() as u64) as usize];
        }
        self.current != before
    }

    /// How far the store's clock jumps now, mostly not at all.
    fn clock(&mut self) -> Option<i64> {
        if !self.random.one_in(50) {
            return None;
        }
        const JUMPS: [i64; 8] =
            [1, 60, 3600, 24 * 3600, 8 * 24 * 3600, 400 * 24 * 3600, -3600, -8 * 24 * 3600];
        Some(JUMPS[self.random.below(8) as usize])
    }

    fn fault(&mut self, host: usize, writes: bool) -> Option<Fault> {
        if self.fault == 0 || self.seats[host].crashed || !self.random.one_in(self.fault) {
            return None;
        }
        const FAULTS: [Fault; 5] =
            [Fault::Once, Fault::LostAnswer, Fault::CrashBefore, Fault::CrashAfter, Fault::NoSpace];
        let fault = match FAULTS[self.random.below(5) as usize] {
            Fault::NoSpace if !writes => Fault::Once,
            other => other,
        };
        self.seats[host].faults += 1;
        self.seats[host].crashed |= matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
        Some(fault)
    }
}

/// The store as one host reaches it.
pub(crate) struct Reach {
    pub(crate) stage: Arc<Stage>,
    pub(crate) host: usize,
}

impl Reach {
    fn run<T>(
        &self,
        verb: &'static str,
        target: Target,
        writes: bool,
        call: impl FnOnce(&Memory) -> Result<T>,
    ) -> Result<T> {
        if self.stage.crashed(self.host) || self.stage.failed() {
            return Err(self.error(false, "this host is dead"));
        }
        let (guard, fault) = self.stage.turn(self.host, verb, target, writes);
        let answer = match fault {
            None => return call(&self.stage.memory),
            Some(Fault::LostAnswer | Fault::CrashAfter) => call(&self.stage.memory).map(drop),
            Some(_) => Ok(()),
        };
        drop((guard, answer));
        Err(self.error(fault == Some(Fault::NoSpace), "injected"))
    }

    fn error(&self, full: bool, why: &'static str) -> BackendError {
        let (object, place) = ("an object".to_owned(), "the shared store".to_owned());
        if full {
            return BackendError::NoSpace { object, place };
        }
        BackendError::Io { verb: "reach", object, place, source: std::io::Error::other(why) }
    }
}

impl Backend for Reach {
    fn describe(&self) -> Capabilities {
        self.stage.memory.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.stage.memory.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.run("put", Target::Name(*name), true, |m| m.put(name, parts))
    }
    fn flush(&self) -> Result<()> {
        self.run("flush", Target::Store, true, Memory::flush)
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.run("get", Target::Name(*name), false, |m| m.get(name, limit))
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.run("get_range", Target::Name(*name), false, |m| m.get_range(name, offset, len))
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.run("list", Target::Area(area), false, |m| m.list(area))
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.run("stat", Target::Name(*name), false, |m| m.stat(name))
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.run("delete", Target::Name(*name), false, |m| m.delete(name))
    }
    fn settle(&self) -> Result<()> {
        self.run("settle", Target::Store, false, Memory::settle)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.run("heal", Target::Name(*name), true, |m| m.heal(name, parts))
    }
    fn reserve(&self, bytes: u64) -> Result<()> {
        self.run("reserve", Target::Store, bytes > 0, |m| m.reserve(bytes))
    }
}
