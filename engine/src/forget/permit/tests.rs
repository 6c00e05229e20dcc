//! The judgement against histories: days on which a job runs or fails, is proven or not, lets go by a policy that knows no
//! mercy, and is cut off anywhere. What must hold of every state is said once, in [`World::holds`], in other words than the
//! judgement's.

use super::*;
use bulla_repo_format::ledger::{
    Drill, DrillKind, Fact, JobCopy, JobRun, Level, Lock, Record, Verified, Waiver,
};
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::{ClientId, PackName};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;
use std::collections::HashMap;

const DAY: i64 = 24 * 3600;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// Time passes.
    Wait(i64),
    /// A backup is made, of this job; of an incomplete source, or one that looks wrong.
    Backup { job: u8, whole: bool, suspicious: bool },
    /// The same, and the run dies before it can say what it found.
    Died { job: u8 },
    /// The so manyth newest snapshot is read back; true: it was good.
    Read(usize, bool),
    /// What was bad is good again.
    Repair,
    /// These are to go, if that is allowed: bits over all that are alive. Cut off after so many of them.
    Forget { bits: u64, cut: usize },
    /// The clock of this machine is set.
    Clock(i64),
    /// A rule is lifted for so many days.
    Waive(u8, i64),
    /// A job is locked for so many days, one backup of each so many to stay.
    Lock(u8, i64, i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..40i64).prop_map(|h| Step::Wait(h * 3600)),
        1 => (20..60i64).prop_map(|d| Step::Wait(d * DAY)),
        6 => (0..2u8, prop::bool::weighted(0.85), prop::bool::weighted(0.15))
            .prop_map(|(job, whole, suspicious)| Step::Backup { job, whole, suspicious }),
        1 => (0..2u8).prop_map(|job| Step::Died { job }),
        5 => (0..4usize, prop::bool::weighted(0.9)).prop_map(|(n, good)| Step::Read(n, good)),
        1 => Just(Step::Repair),
        5 => (any::<u64>(), 0..6usize).prop_map(|(bits, cut)| Step::Forget { bits, cut }),
        1 => prop_oneof![Just(0i64), Just(3600), Just(400 * DAY), Just(-DAY)].prop_map(Step::Clock),
        1 => (0..2u8, 1..60i64).prop_map(|(job, days)| Step::Waive(job, days)),
        1 => (0..2u8, 1..200i64, 0..40i64).prop_map(|(job, min, unit)| Step::Lock(job, min, unit)),
    ]
}

#[derive(Default)]
struct World {
    /// The time outside.
    time: i64,
    /// What this machine's clock is wrong by.
    wrong: i64,
    alive: Vec<(Facts, bool)>,
    records: Vec<Record>,
    /// When the store received each record.
    received: Vec<i64>,
    /// Snapshots that read back at a time outside, and whether they still would.
    read: Vec<(RunId, i64)>,
    bad: bool,
    waived: Vec<(String, i64, i64)>,
    /// Job, days, days of a unit, and since when.
    locks: Vec<(String, i64, i64, i64)>,
    /// When runs that went well began.
    done: Vec<(String, i64)>,
    /// Whether the newest backup of a job looks wrong.
    held: HashMap<String, bool>,
    made: u8,
    forgotten: usize,
    refused: usize,
}

impl World {
    fn now(&self) -> i64 {
        self.time + self.wrong
    }

    fn record(&mut self, fact: Fact) {
        let time = Timestamp { seconds: self.now(), nanos: 0 };
        let sequence = self.records.len() as u64;
        self.records.push(Record { client: ClientId::new([1; 16]), sequence, previous: None, time, fact });
        self.received.push(self.time);
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Wait(seconds) => self.time += seconds,
            Step::Clock(wrong) => self.wrong = *wrong,
            Step::Backup { job, whole, suspicious } => self.back_up(*job, *whole, *suspicious),
            Step::Died { job } => _ = self.commit(*job, true, true),
            Step::Read(n, good) => self.read(*n, *good),
            Step::Repair => {
                self.bad = false;
                self.record(Fact::Verified(Verified { good: vec![PACK], ..Verified::default() }));
            }
            Step::Waive(job, days) => {
                let (job, until) = (format!("job{job}"), self.now() + days * DAY);
                self.waived.push((job.clone(), self.now(), until));
                let host = "host".to_owned();
                self.record(Fact::Waiver(Waiver { job, host, reason: "test".into(), until }));
            }
            Step::Lock(job, min, unit) => self.lock(format!("job{job}"), *min, *unit),
            Step::Forget { bits, cut } => self.forget(*bits, *cut),
        }
    }

    fn lock(&mut self, job: String, min: i64, unit: i64) {
        let since = self.now() - 10 * DAY;
        self.locks.push((job.clone(), min, unit, since));
        let (min, unit) = ((min * DAY) as u64, (unit * DAY) as u64);
        self.record(Fact::Lock(Lock { job, host: "host".into(), term: "law".into(), min, unit, since }));
    }

    fn commit(&mut self, job: u8, whole: bool, suspicious: bool) -> (RunId, Timestamp) {
        self.made += 1;
        let id = RunId::new([self.made; 16]);
        let group = Some(("host".to_owned(), format!("job{job}")));
        let start = Timestamp { seconds: self.now(), nanos: 0 };
        self.alive.push((Facts { id, group, start, whole }, suspicious));
        (id, start)
    }

    fn back_up(&mut self, job: u8, whole: bool, suspicious: bool) {
        let (id, start) = self.commit(job, whole, suspicious);
        self.held.insert(format!("job{job}"), suspicious);
        if whole && !suspicious {
            self.done.push((format!("job{job}"), start.seconds));
        }
        let copy = JobCopy {
            destination: "disk".into(),
            outcome: 0,
            snapshot: Some(id),
            // A run may claim what it likes: data counts only when it was read.
            level: Level::Data,
            reason: String::new(),
        };
        self.record(Fact::Run(JobRun {
            run: id,
            job: format!("job{job}"),
            host: "host".into(),
            start,
            outcome: if whole { 0 } else { 3 },
            next_due: None,
            config: [0; 32],
            files: 1,
            bytes: 1,
            copies: vec![copy],
            findings: if suspicious { vec!["it shrank".into()] } else { vec![] },
        }));
    }

    fn read(&mut self, n: usize, good: bool) {
        let Some((facts, _)) = self.alive.iter().rev().nth(n) else { return };
        let id = facts.id;
        if good && !self.bad {
            self.read.push((id, self.now()));
            self.record(Fact::Verified(Verified {
                proven: vec![id],
                within_days: 35,
                ..Verified::default()
            }));
        } else {
            self.bad = true;
            self.record(Fact::Verified(Verified { bad: vec![PACK], ..Verified::default() }));
        }
    }

    /// Lets go what is allowed, and looks whether that was right.
    fn forget(&mut self, bits: u64, cut: usize) {
        let chosen = |(n, _): &(usize, &(Facts, bool))| bits >> (n % 64) & 1 == 1;
        let drop: HashSet<RunId> =
            self.alive.iter().enumerate().filter(chosen).map(|(_, s)| s.0.id).collect();
        let snapshots: Vec<Facts> = self.alive.iter().map(|(facts, _)| facts.clone()).collect();
        let records = &self.records;
        let last = records.iter().max_by_key(|r| (r.time, r.sequence));
        let written = last.map_or(0, |r| self.received[r.sequence as usize].abs_diff(r.time.seconds));
        let clocks = self.wrong.unsigned_abs().max(written);
        let evidence = Evidence::of(records);
        let damaged = evidence.damaged().len();
        let case = Case {
            snapshots: &snapshots,
            drop: &drop,
            evidence: &evidence,
            damaged,
            now: self.now(),
            clocks,
        };
        let Ok(allowed) = judge(&case) else {
            self.refused += 1;
            return;
        };
        self.holds(&drop, &allowed);
        // Cut off between any two of them, it has let go some; the rest is asked for anew.
        let gone: Vec<RunId> = drop.into_iter().take(cut.max(1)).collect();
        self.forgotten += gone.len();
        self.alive.retain(|(facts, _)| !gone.contains(&facts.id));
    }

    /// What must be true whenever something is let go.
    fn holds(&self, drop: &HashSet<RunId>, allowed: &[RunId]) {
        for job in ["job0", "job1"] {
            let of = |facts: &Facts| facts.group.as_ref().is_some_and(|(_, j)| j == job);
            let going: Vec<&Facts> =
                self.alive.iter().map(|(f, _)| f).filter(|f| of(f) && drop.contains(&f.id)).collect();
            let waived = self.waived.iter().any(|(j, from, until)| {
                j == job && *from <= self.now() && self.now() < *until && until - from <= 30 * DAY
            });
            if going.is_empty() || waived {
                continue;
            }
            assert!(!self.bad, "something was bad");
            assert!(self.records.iter().all(|r| r.time.seconds <= self.now()), "the clock was set back");
            let staying: Vec<&(Facts, bool)> =
                self.alive.iter().filter(|(f, _)| of(f) && !drop.contains(&f.id)).collect();
            assert!(staying.iter().filter(|(f, _)| f.whole).count() >= 3, "too few stay");
            let good = |(facts, suspicious): &&&(Facts, bool)| {
                let read = self.read.iter().any(|(id, at)| *id == facts.id && self.now() - at <= 35 * DAY);
                facts.whole && !suspicious && read && going.iter().all(|d| d.start < facts.start)
            };
            let proof = staying.iter().find(good);
            assert!(proof.is_some(), "nothing newer is proven");
            assert!(!self.held.get(job).is_some_and(|held| *held), "the newest looks wrong");
            self.locks_hold(job, &staying);
            assert!(staying.iter().any(|(f, _)| allowed.contains(&f.id)), "no evidence was named");
        }
    }
}

impl World {
    fn drill(&mut self, snapshot: RunId, wrong: &[&str], late: &[&str]) {
        let start = Timestamp { seconds: self.now(), nanos: 0 };
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        self.record(Fact::Drill(Drill {
            job: "job0".into(),
            host: "host".into(),
            destination: "disk".into(),
            snapshot,
            kind: DrillKind::Full,
            seed: [0; 32],
            start,
            outcome: if wrong.is_empty() && late.is_empty() { 0 } else { 8 },
            // One that came too late broke off.
            files: u64::from(late.is_empty()),
            files_all: 1,
            bytes: 1,
            bytes_all: 1,
            wrong: owned(wrong),
            phases: [0; 4],
            rto: 1,
            rpo: 1,
            config: [0; 32],
            key: None,
            diverged: Vec::new(),
            late: owned(late),
            numbers: Vec::new(),
        }));
    }

    /// Every day that a lock speaks of can still be gone back to, or one soon after it.
    fn locks_hold(&self, job: &str, staying: &[&(Facts, bool)]) {
        for (_, min, unit, since) in self.locks.iter().filter(|(j, ..)| j == job) {
            for (_, made) in self.done.iter().filter(|(j, _)| j == job) {
                let asked = *made >= *since && (0..min * DAY).contains(&(self.now() - made));
                let stands = |(f, wrong): &(Facts, bool)| {
                    let own = f.group.as_ref().is_some_and(|(_, j)| j == job);
                    own && f.whole && !wrong && (0..=unit * DAY).contains(&(f.start.seconds - made))
                };
                let (had, stays) = (self.alive.iter().any(stands), staying.iter().any(|s| stands(s)));
                assert!(!asked || !had || stays, "a lock was broken");
            }
        }
    }
}

const PACK: PackName = PackName::new([9; 32]);

#[test]
fn nothing_of_a_job_goes_without_newer_proof() {
    let (forgotten, refused) = (Cell::new(0), Cell::new(0));
    let config = Config { cases: HISTORIES, ..Config::default() };
    let played = TestRunner::new(config).run(&prop::collection::vec(step(), 10..60), |steps| {
        let mut world = World { time: 1_000_000_000, ..World::default() };
        steps.iter().for_each(|step| world.step(step));
        forgotten.set(forgotten.get() + world.forgotten);
        refused.set(refused.get() + world.refused);
        Ok(())
    });
    if let Err(e) = played {
        panic!("{e}");
    }
    let (forgotten, refused) = (forgotten.get(), refused.get());
    let enough = HISTORIES as usize / 10;
    assert!(
        forgotten > enough && refused > enough,
        "{forgotten} went, {refused} refused: the test tests too little"
    );
}

/// So many histories.
const HISTORIES: u32 = 100_000;

/// Five days, all proven.
fn usual() -> World {
    let mut world = World { time: 1_000_000_000, ..World::default() };
    for _ in 0..5 {
        world.step(&Step::Wait(DAY));
        world.step(&Step::Backup { job: 0, whole: true, suspicious: false });
    }
    world.step(&Step::Read(0, true));
    world
}

/// The same, and what came then.
fn with(steps: &[Step]) -> World {
    let mut world = usual();
    steps.iter().for_each(|s| world.step(s));
    world
}

/// How many of those go.
fn ask(mut world: World, bits: u64) -> usize {
    let before = world.alive.len();
    world.step(&Step::Forget { bits, cut: 6 });
    before - world.alive.len()
}

const fn backup(whole: bool, suspicious: bool) -> Step {
    Step::Backup { job: 0, whole, suspicious }
}

/// A case that any rule refuses, and the same without what it refuses.
#[test]
fn each_rule_refuses_and_says_why() {
    assert_eq!(ask(usual(), 0b11), 2, "two old ones go");
    assert_eq!(ask(usual(), 0b111), 0, "three always stay");
    assert_eq!(ask(usual(), 0b1_0000), 0, "not the proof itself");
    assert_eq!(ask(with(&[Step::Wait(36 * DAY)]), 1), 0, "old proof is none");
    assert_eq!(ask(with(&[Step::Read(2, false)]), 1), 0, "a bad pack stops all");
    assert_eq!(ask(with(&[Step::Read(2, false), Step::Repair]), 1), 1, "until it is repaired");
    let back = [Step::Clock(3600), Step::Repair, Step::Clock(0), Step::Read(2, false), Step::Wait(7200)];
    assert_eq!(ask(with(&back), 1), 0, "also if the clock was set back before it was found");
    assert_eq!(ask(with(&[Step::Clock(3600), backup(true, false)]), 1), 0, "clocks are an hour apart");
    assert_eq!(ask(with(&[Step::Clock(-DAY)]), 1), 0, "the clock was set back");
    assert_eq!(ask(with(&[Step::Clock(20 * DAY)]), 1), 0, "it runs ahead since the last record");
    let mut world = usual();
    world.alive.iter_mut().for_each(|(f, _)| f.whole = false);
    assert_eq!(ask(world, 1), 0, "incomplete backups prove nothing");
    assert_eq!(ask(with(&[Step::Wait(36 * DAY), Step::Waive(0, 7)]), 1), 1, "a waiver");
    assert_eq!(ask(with(&[Step::Wait(36 * DAY), Step::Waive(1, 7)]), 1), 0, "of another job");
    assert_eq!(ask(with(&[Step::Wait(36 * DAY), Step::Waive(0, 31)]), 1), 0, "for too long");
    assert_eq!(
        ask(with(&[Step::Wait(36 * DAY), Step::Waive(0, 7), Step::Wait(8 * DAY)]), 1),
        0,
        "that is over"
    );
    let mut world = with(&[Step::Wait(36 * DAY)]);
    world.step(&backup(true, true));
    world.step(&Step::Read(0, true));
    assert_eq!(ask(world, 1), 0, "what looks wrong proves nothing");
    let mut world = with(&[Step::Wait(36 * DAY)]);
    world.step(&Step::Died { job: 0 });
    world.step(&Step::Read(0, true));
    assert_eq!(ask(world, 1), 0, "nor what nobody accounts for");
}

#[test]
fn what_was_not_restored_looks_wrong_or_is_locked_stays() {
    let mut world = usual();
    let proof = world.alive[4].0.id;
    world.drill(proof, &["differs"], &[]);
    assert_eq!(ask(world, 1), 0, "nor what could not be restored");
    for (broke_off, differs, mended, goes, why) in [
        (false, true, true, 1, "until it was"),
        (true, false, false, 1, "a restore that broke off says nothing of it"),
        (true, true, false, 0, "and mends nothing"),
    ] {
        let mut world = usual();
        let proof = world.alive[4].0.id;
        if differs {
            world.drill(proof, &["differs"], &[]);
        }
        if broke_off {
            world.drill(proof, &[], &["the restore broke off"]);
        }
        if mended {
            world.drill(proof, &[], &[]);
        }
        assert_eq!(ask(world, 1), goes, "{why}");
    }
    let held = [backup(true, true), Step::Read(1, true)];
    assert_eq!(ask(with(&held), 1), 0, "nothing goes while the newest looks wrong");
    let looked = [backup(true, true), Step::Wait(DAY), backup(true, false), Step::Read(0, true)];
    assert_eq!(ask(with(&looked), 1), 1, "until one does not");
    assert_eq!(ask(with(&[Step::Lock(0, 30, 0)]), 1), 0, "a lock wants each of them");
    assert_eq!(ask(with(&[Step::Lock(0, 30, 1)]), 0b1), 1, "or the one of the next day");
    assert_eq!(ask(with(&[Step::Lock(0, 30, 1)]), 0b11), 0, "not of the day after it");
    assert_eq!(ask(with(&[Step::Lock(1, 30, 0)]), 1), 1, "of another job");
    assert_eq!(ask(with(&[Step::Lock(0, 3, 0)]), 1), 1, "what is older than it says may go");
    assert_eq!(ask(with(&[Step::Lock(0, 30, 0), Step::Waive(0, 7)]), 1), 1, "a waiver lifts it");
    let mut little = with(&[Step::Lock(0, 30, 1)]);
    little.step(&Step::Forget { bits: 1, cut: 1 });
    assert_eq!(ask(little, 1), 0, "nor does it give way little by little");
}
