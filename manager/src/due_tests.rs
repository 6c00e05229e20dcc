//! When things are due, from records made by hand.

use super::*;
use crate::config::File;
use crate::outcome::Outcome;
use crate::status::Holding;
use crate::world::Trouble;
use bulla_engine::evidence::Evidence;
use bulla_engine::format::ledger::{Fact, JobCopy, Level, Record};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{ClientId, RunId};
use bulla_engine::repository::Ledger;

fn at(text: &str) -> i64 {
    text.parse::<jiff::Timestamp>().unwrap().as_second()
}

fn config(job: &str) -> Config {
    let text = format!(
        "[destination.disk]\nurl = \"/b\"\nkey = {{ file = \"/k\" }}\n[job.home]\nsource = {{ paths = [\"/srv\"] }}\n\
         to = [\"disk\"]\nschedule = \"30 1 * * *\"\n{job}\n"
    );
    let read = Config::read(&[File { path: "c.toml".into(), text }]);
    assert!(read.is_sound(), "{:?}", read.mistakes);
    read.config
}

fn time(seconds: i64) -> Timestamp {
    Timestamp { seconds, nanos: 0 }
}

fn ran(start: &str) -> Fact {
    Fact::Run(JobRun {
        run: RunId::new([u8::try_from(at(start) % 251).unwrap(); 16]),
        job: "home".into(),
        host: "db01".into(),
        start: time(at(start)),
        outcome: 0,
        next_due: None,
        config: [0; 32],
        files: 1,
        bytes: 1,
        copies: vec![JobCopy {
            destination: "disk".into(),
            outcome: 0,
            snapshot: Some(RunId::new([1; 16])),
            level: Level::Data,
            reason: String::new(),
        }],
        findings: Vec::new(),
    })
}

fn tried(start: &str, kind: DrillKind, outcome: u64) -> Fact {
    Fact::Drill(Drill {
        job: "home".into(),
        host: "db01".into(),
        destination: "disk".into(),
        snapshot: RunId::new([1; 16]),
        kind,
        seed: [0; 32],
        start: time(at(start)),
        outcome,
        files: 1,
        files_all: 1,
        bytes: 1,
        bytes_all: 1,
        wrong: Vec::new(),
        phases: [0; 4],
        rto: 1,
        rpo: 1,
        config: [0; 32],
        key: None,
        diverged: Vec::new(),
        late: Vec::new(),
        numbers: Vec::new(),
    })
}

fn facts(of: &[Fact]) -> Facts {
    let record = |(n, fact): (usize, &Fact)| {
        let start = match fact {
            Fact::Run(run) => run.start,
            Fact::Drill(drill) => drill.start,
            other => panic!("{other:?}"),
        };
        let client = ClientId::new([7; 16]);
        Record { client, sequence: n as u64, previous: None, time: start, fact: fact.clone() }
    };
    let records: Vec<Record> = of.iter().enumerate().map(record).collect();
    let evidence = Evidence::of(&records);
    let ledger = Ledger { records, ..Ledger::default() };
    let holding =
        Holding { snapshots: Vec::new(), ledger, evidence, unrepaired: 0, explained: Default::default() };
    Facts { holdings: [("disk".to_owned(), Ok(holding))].into(), foreign: false }
}

fn out_of_reach() -> Facts {
    let trouble = Trouble::new(Outcome::Failed, "no route to host");
    Facts { holdings: [("disk".to_owned(), Err(trouble))].into(), foreign: false }
}

fn due(config: &Config, facts: &Facts, now: &str, tried: Option<&str>) -> Option<i64> {
    let job = &config.jobs["home"].value;
    let question = Question { config, name: "home", job, host: "db01", facts, now: at(now) };
    question.run(tried.map(at))
}

#[test]
fn a_run_is_due_once_for_however_many_were_missed_or_not_at_all() {
    let (once, skip) = (config(""), config("missed = \"skip\""));
    let known = facts(&[ran("2026-11-10T01:30:04Z")]);
    for (now, with_once, with_skip) in [
        ("2026-11-10T12:00:00Z", "2026-11-11T01:30:00Z", "2026-11-11T01:30:00Z"),
        // Late, and still awaited.
        ("2026-11-11T02:00:00Z", "2026-11-11T01:30:00Z", "2026-11-11T01:30:00Z"),
        ("2026-11-11T12:00:00Z", "2026-11-11T12:00:00Z", "2026-11-12T01:30:00Z"),
        ("2026-11-20T12:00:00Z", "2026-11-20T12:00:00Z", "2026-11-21T01:30:00Z"),
    ] {
        assert_eq!(due(&once, &known, now, None), Some(at(with_once)), "{now}");
        assert_eq!(due(&skip, &known, now, None), Some(at(with_skip)), "{now}");
    }
    let never = "2026-11-10T12:00:00Z";
    assert_eq!(due(&once, &facts(&[]), never, None), Some(at(never)));
    assert_eq!(due(&config("").clone(), &facts(&[]), never, None), Some(at(never)));
}

#[test]
fn a_run_of_the_future_is_not_the_last_one() {
    let wrong = facts(&[ran("2026-11-10T01:30:04Z"), ran("2031-01-01T00:00:00Z")]);
    let now = "2026-11-11T12:00:00Z";
    assert_eq!(due(&config(""), &wrong, now, None), Some(at(now)));
    let runs = wrong.runs("home", "db01");
    assert_eq!(last(&runs, at(now)).unwrap().start.seconds, at("2026-11-10T01:30:04Z"));
    // Clocks of two machines that differ by a little are no wrong clocks.
    assert_eq!(
        last(&runs, at("2031-01-01T00:00:00Z") - 500).unwrap().start.seconds,
        at("2031-01-01T00:00:00Z")
    );
}

#[test]
fn what_cannot_be_read_is_not_never_and_what_failed_is_not_tried_at_every_call() {
    let config = config("");
    let begun = "2026-11-11T01:30:02Z";
    let (dark, known) = (out_of_reach(), facts(&[ran("2026-11-10T01:30:04Z")]));
    // Nothing is known: once in each slot.
    assert_eq!(due(&config, &dark, "2026-11-11T01:30:00Z", None), Some(at("2026-11-11T01:30:00Z")));
    for now in ["2026-11-11T01:35:00Z", "2026-11-11T23:00:00Z"] {
        assert_eq!(due(&config, &dark, now, Some(begun)), Some(at("2026-11-12T01:30:00Z")), "{now}");
    }
    // It could not be put on record: an hour later, and at once where the next slot comes before.
    assert_eq!(due(&config, &known, "2026-11-11T01:40:00Z", Some(begun)), Some(at("2026-11-11T02:30:02Z")));
    assert_eq!(due(&config, &known, "2026-11-11T09:40:00Z", Some(begun)), Some(at("2026-11-11T09:40:00Z")));
    // An attempt of a clock that was wrong holds nothing up.
    let now = "2026-11-11T09:40:00Z";
    assert_eq!(due(&config, &known, now, Some("2031-01-01T00:00:00Z")), Some(at(now)));
}

#[test]
fn drills_are_due_by_their_timetable_and_the_greater_stands_for_the_less() {
    use DrillKind::{Application, Full, Sample};
    let config = config(
        "drill = { sample = \"weekly\", full = \"quarterly\", app = \"OnCalendar=*-*-01 04:00\", command = [\"true\"] }",
    );
    let job = &config.jobs["home"].value;
    let ask = |facts: &Facts, now: &str, tried: Option<&str>| {
        let question = Question { config: &config, name: "home", job, host: "db01", facts, now: at(now) };
        (question.drill(tried.map(at)), question.overdue())
    };
    let run = ran("2026-11-10T01:30:04Z");
    let now = "2026-11-10T12:00:00Z";
    assert_eq!(ask(&facts(&[]), now, None).0, None, "there is nothing to restore");
    let (due, late) = ask(&facts(std::slice::from_ref(&run)), now, None);
    assert_eq!((due, late.len()), (Some((Application, at(now))), 3));
    assert_eq!(
        ask(&facts(std::slice::from_ref(&run)), now, Some(now)).0,
        Some((Application, at(now) + 3600))
    );
    // It stands for all three; the next sample is due on Monday.
    let app = tried("2026-11-10T13:00:00Z", Application, 0);
    let known = facts(&[run.clone(), app.clone()]);
    assert_eq!(
        ask(&known, "2026-11-10T14:00:00Z", None),
        (Some((Sample, at("2026-11-16T00:00:00Z"))), vec![])
    );
    let now = "2026-11-16T20:00:00Z";
    let (due, late) = ask(&known, now, None);
    assert_eq!((due, late.len()), (Some((Sample, at("2026-11-16T00:00:00Z"))), 1), "{late:?}");
    // A failed one is not made again by itself, and has not passed.
    let failed = facts(&[run.clone(), app, tried("2026-11-16T01:00:00Z", Sample, 8)]);
    let (due, late) = ask(&failed, now, None);
    assert_eq!(due, Some((Sample, at("2026-11-23T00:00:00Z"))));
    assert_eq!(late, [(Sample, Some(at("2026-11-10T13:00:00Z")))]);
    // A restore of everything stands for a sample, and not for a judgement.
    let full = facts(&[run, tried("2026-11-10T13:00:00Z", Full, 0)]);
    let now = "2026-11-10T14:00:00Z";
    assert_eq!(ask(&full, now, None), (Some((Application, at(now))), vec![(Application, None)]));
}
