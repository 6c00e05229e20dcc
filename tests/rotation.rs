//! Checks that read a share of the packs each day: on record in the repository, and whole within the days promised.

use crate::support::{Histories, in_memory, noise, open};
use bulla_engine::backend::testing::Recorder;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::check::{self, CheckOptions, CheckReport, ReadData};
use bulla_engine::env::{Clock, Env};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use std::sync::Arc;
use std::time::Duration;

struct Day(i64);

impl Clock for Day {
    fn now(&self) -> Timestamp {
        Timestamp { seconds: self.0 * 24 * 3600, nanos: 0 }
    }
}

/// A check on one day, by a process of its own.
fn check_on(memory: &Arc<Memory>, day: i64, options: &CheckOptions) -> CheckReport {
    let env = Env { clock: Arc::new(Day(day)), ..crate::support::env(day.unsigned_abs() + 100) };
    let repository = Repository::open(memory.clone(), &crate::support::secret(), env).unwrap();
    check::run(&repository, options, &Silent).unwrap()
}

fn within(days: u32) -> CheckOptions {
    CheckOptions { read_data: ReadData::Within { days }, record: true, ..CheckOptions::default() }
}

#[test]
fn daily_checks_read_every_pack_within_the_days_and_put_it_on_record() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    Histories::make(&repository, dir.path());
    let first = check_on(&memory, 1, &within(4));
    assert_eq!(first.findings, []);
    assert!(first.packs_read < first.packs, "a share, not all: {first:?}");
    let mut read = first.packs_read;
    for day in 2..=4 {
        read += check_on(&memory, day, &within(4)).packs_read;
    }
    assert!(read >= first.packs, "{read} of {} in four days", first.packs);
    let records = memory.list(Area::Records).unwrap().len();
    assert_eq!(records, 4);
    assert_eq!(check_on(&memory, 5, &CheckOptions::default()).findings, [], "the chain of records is sound");
}

#[test]
fn damage_found_by_turns_is_found_again_and_records_cannot_be_forged() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    Histories::make(&repository, dir.path());
    let (name, _) = memory.list(Area::Packs).unwrap()[0];
    let mut bytes = memory.snapshot().remove(&name).unwrap();
    bytes[200] ^= 1;
    memory.overwrite(name, Some(bytes));
    let found: Vec<bool> =
        (1..=6).map(|day| !check_on(&memory, day, &within(3)).findings.is_empty()).collect();
    assert!(found.iter().filter(|f| **f).count() >= 2, "{found:?}");
    let (record, _) = memory.list(Area::Records).unwrap()[0];
    memory.overwrite(record, Some(noise("forged", 4096)));
    let report = check_on(&memory, 7, &CheckOptions::default());
    assert!(report.findings.iter().any(|f| f.object == record.to_string()), "{report:?}");
}

#[test]
fn a_check_without_time_reads_nothing_and_says_so_and_the_next_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    Histories::make(&repository, dir.path());
    let hurried = CheckOptions {
        record: true,
        read_data: ReadData::All,
        max_duration: Some(Duration::ZERO),
        ..CheckOptions::default()
    };
    let report = check_on(&memory, 1, &hurried);
    assert_eq!((report.packs_read, report.packs_left), (0, report.packs));
    let recorder = Arc::new(Recorder::new(memory.clone()));
    let repository = open(recorder.clone(), 9).unwrap();
    check::run(
        &repository,
        &CheckOptions { read_data: ReadData::All, record: true, ..CheckOptions::default() },
        &Silent,
    )
    .unwrap();
    assert_eq!(recorder.take().get("put records"), Some(&1));
    assert!(memory.snapshot().keys().any(|n| matches!(n, ObjectName::Record(_, 0))));
}
