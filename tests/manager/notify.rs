//! What is told over days whose clock is ours: what was missed, what lasts, what cannot be looked at, what is over.

use super::world::Machine;
use crate::support::noise;
use bulla_engine::backend::Memory;
use bulla_manager::notify::message::Body;
use bulla_manager::notify::outbox::Outbox;
use bulla_manager::notify::{Told, tell};
use bulla_manager::run::Report;
use bulla_manager::status::{Facts, judge};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// Midnight, in the future of every file that a test writes.
const BEGIN: i64 = 1_900_022_400;

fn text(source: &Path) -> String {
    format!(
        r#"
        [destination.disk]
        url = "/mnt/disk"
        key = {{ file = "/k" }}
        [destination.vault]
        url = "/mnt/vault"
        key = {{ file = "/k" }}
        [retention.few]
        last = 3
        [notify.ops]
        email = {{ to = ["ops@example.net"], smtp = "smtps://mail.example.net" }}
        on = ["failure", "missed", "refused", "recovered"]
        [notify.check]
        ping = {{ url = "https://hc.example.net/ab" }}
        [job.home]
        source = {{ paths = ["{}"] }}
        to = ["disk", "vault"]
        schedule = "30 1 * * *"
        retention = "few"
        notify = ["ops", "check"]
        "#,
        source.display()
    )
}

struct Days {
    m: Machine,
    outbox: Outbox,
    source: tempfile::TempDir,
    _state: tempfile::TempDir,
}

impl Days {
    fn begin() -> Self {
        let (source, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(source.path().join("letters"), noise("letters", 100_000)).unwrap();
        let stores: Vec<(&str, Arc<dyn bulla_engine::backend::Backend>)> =
            vec![("disk", Arc::new(Memory::new())), ("vault", Arc::new(Memory::new()))];
        let m = Machine::new(&text(source.path()), BEGIN, stores);
        Self { m, outbox: Outbox::new(state.path().join("outbox")), source, _state: state }
    }

    /// Runs at half past one of a day, and tells.
    fn run(&self, day: i64) -> Vec<String> {
        self.m.clock.set(BEGIN + day * DAY + HOUR + HOUR / 2);
        std::fs::write(self.source.path().join("diary"), day.to_string()).unwrap();
        let report = self.m.run("home");
        self.told(Some(&report))
    }

    /// Looks at noon of a day without a run, as `bulla notify` does.
    fn look(&self, day: i64) -> Vec<String> {
        self.m.clock.set(BEGIN + day * DAY + 12 * HOUR);
        self.told(None)
    }

    /// What arrives, from an outbox that is opened anew.
    fn told(&self, run: Option<&Report>) -> Vec<String> {
        let (config, now) = (&self.m.config, self.m.clock.read());
        let facts = Facts::gather(&self.m, config, &["home".into()]);
        let job = self.m.job("home");
        let status = judge(config, "home", job, "db01", &facts, now);
        let told = Told { name: "home", job, status: &status, run };
        tell(&self.outbox, config, "db01", now, told).unwrap();
        let mut out = Vec::new();
        let flushed = self.outbox.hold().unwrap().flush(now, false, |channel, body| {
            out.push(match body {
                Body::Ping { exit, .. } => format!("{channel} {exit}"),
                Body::Message(m) => {
                    let place = m.destination.as_ref().map_or_else(String::new, |d| format!(":{d}"));
                    format!("{channel} {} {}{place} {}", m.event, m.rule, m.count)
                }
            });
            Some(Ok(()))
        });
        assert_eq!(flushed.unwrap().waiting, 0);
        out
    }
}

#[test]
fn what_is_missed_lasts_or_is_over_is_told_as_it_is() {
    let days = Days::begin();
    assert_eq!(days.run(0), ["check 0"]);
    assert_eq!(days.look(0), [""; 0]);
    // Nobody runs it: told when it was due and did not happen, and once a day from then on.
    assert_eq!(days.look(1), ["ops missed missed 1"]);
    assert_eq!(days.look(1), [""; 0]);
    assert_eq!(days.look(2), ["ops missed missed 2"]);
    assert_eq!(days.run(3), ["check 0", "ops recovered missed 2"]);
    // A store that is out of reach: the run is partial, and both are told.
    let gone = |is: bool| days.m.stores["vault"].gone.store(is, Ordering::SeqCst);
    gone(true);
    assert_eq!(days.run(4), ["check 3", "ops failure last-run 1", "ops failure unreadable:vault 1"]);
    assert_eq!(days.run(5), ["check 3", "ops failure last-run 2", "ops failure unreadable:vault 2"]);
    gone(false);
    assert_eq!(days.run(6), ["check 0", "ops recovered last-run 2", "ops recovered unreadable:vault 2"]);
}

/// Letting go is refused, which is after the run's record and has one of its own: it is told until a run may.
#[test]
fn what_stayed_is_told_until_it_may_go() {
    let days = Days::begin();
    (0..3).for_each(|day| assert_eq!(days.run(day), ["check 0"]));
    let wrong = |by: i64| days.m.stores.values().for_each(|s| s.wrong.store(by, Ordering::SeqCst));
    wrong(-HOUR);
    let refused = ["check 5", "ops refused stayed:disk 1", "ops refused stayed:vault 1"];
    assert_eq!(days.run(3), refused);
    assert_eq!(days.look(3), [""; 0]);
    wrong(0);
    assert_eq!(days.run(4), ["check 0", "ops recovered stayed:disk 1", "ops recovered stayed:vault 1"]);
}

/// What a store that cannot be read would show is not over.
#[test]
fn nothing_is_over_that_cannot_be_looked_at() {
    let days = Days::begin();
    days.run(0);
    assert_eq!(days.look(1), ["ops missed missed 1"]);
    let gone = |is: bool| days.m.stores.values().for_each(|s| s.gone.store(is, Ordering::SeqCst));
    gone(true);
    let told = days.look(1);
    assert!(told.iter().all(|t| t.starts_with("ops failure unreadable:")) && told.len() == 2, "{told:?}");
    gone(false);
    let told = days.look(1);
    assert!(told.iter().all(|t| t.starts_with("ops recovered unreadable:")) && told.len() == 2, "{told:?}");
    let told = days.run(2);
    assert_eq!(told, ["check 0", "ops recovered missed 1"]);
}
