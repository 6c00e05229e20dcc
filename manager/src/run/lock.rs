//! Which locks a job's terms ask for, pure.
//!
//! Kept true: a lock never asks for more than the policy keeps that it was made for, so a job whose configuration is sound
//! is never refused by its own lock.

use crate::config::{Config, Job};
use crate::policy::{Reach, rules, slot_hours};
use bulla_engine::format::ledger::Lock;
use bulla_engine::retention::{Period, Policy, Unit};

/// A snapshot may begin so many hours after its run: hooks and attempts come first.
const SLACK: i64 = 12;

/// The locks of a job; since when they hold is for the caller to say.
pub(super) fn wanted(config: &Config, name: &str, job: &Job, host: &str) -> Vec<Lock> {
    let Some((_, retention)) = config.retention_of(job) else { return Vec::new() };
    let lock = |compliance: crate::policy::Compliance| {
        let min = compliance.min()?;
        // The finest rule that is long enough is what the term is met by.
        let unit = finest(&retention.policy, &min)?;
        Some(promise((name, host), compliance.to_string(), &min, unit))
    };
    let mut locks: Vec<Lock> = config.terms_of(job).into_iter().filter_map(lock).collect();
    locks.sort_by(|a, b| a.term.cmp(&b.term));
    locks
}

/// The finest rule of a policy that reaches so far.
pub(crate) fn finest(policy: &Policy, min: &Period) -> Option<Unit> {
    let long = |keep| Reach::of_rule(keep).covers(min);
    rules(policy).into_iter().find(|(_, keep)| long(*keep)).map(|(unit, _)| unit)
}

/// That of the backups of a job each one younger than `min` stays, or one that began at most a slot later.
pub(crate) fn promise((job, host): (&str, &str), term: String, min: &Period, unit: Unit) -> Lock {
    Lock {
        job: job.to_owned(),
        host: host.to_owned(),
        term,
        min: min.shortest().unsigned_abs(),
        unit: (slot_hours(unit).unwrap_or(0) + SLACK).unsigned_abs() * 3600,
        since: 0,
    }
}

/// True if what is on record asks for less.
pub(super) fn is_new(lock: &Lock, known: &[Lock]) -> bool {
    !known.iter().any(|k| k.term == lock.term && k.min >= lock.min && k.unit <= lock.unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;
    use crate::run::keep::{Judged, to_drop};
    use bulla_engine::evidence::Evidence;
    use bulla_engine::format::ledger::{Fact, JobCopy, JobRun, Level, Record, Verified};
    use bulla_engine::format::tree::Timestamp;
    use bulla_engine::format::{ClientId, RunId};
    use bulla_engine::retention::Candidate;
    use std::collections::{BTreeSet, HashSet};

    const DAY: i64 = 24 * 3600;

    fn config(compliance: &str, retention: &str) -> Config {
        let text = format!(
            r#"
            [host]
            timezone = "Europe/Berlin"
            [destination.disk]
            url = "/mnt/disk"
            key = {{ file = "/k" }}
            [retention.kept]
            {retention}
            [job.home]
            source = {{ paths = ["/srv"] }}
            to = ["disk"]
            retention = "kept"
            compliance = ["{compliance}"]
            "#
        );
        let read = Config::read(&[File { path: "c".into(), text }]);
        assert!(read.is_sound(), "{:?}", read.mistakes);
        read.config
    }

    fn locks(config: &Config) -> Vec<Lock> {
        wanted(config, "home", &config.jobs["home"].value, "alpha")
    }

    fn record(time: Timestamp, sequence: u64, fact: Fact) -> Record {
        Record { client: ClientId::new([1; 16]), sequence, previous: None, time, fact }
    }

    fn run(id: RunId, start: Timestamp) -> JobRun {
        let copy = JobCopy {
            destination: "disk".into(),
            outcome: 0,
            snapshot: Some(id),
            level: Level::Data,
            reason: String::new(),
        };
        JobRun {
            run: id,
            job: "home".into(),
            host: "alpha".into(),
            start,
            outcome: 0,
            next_due: None,
            config: [0; 32],
            files: 1,
            bytes: 1,
            copies: vec![copy],
            findings: Vec::new(),
        }
    }

    fn candidate(id: RunId, time: Timestamp) -> Candidate {
        Candidate {
            id,
            time,
            received: Some(time.seconds),
            client: ClientId::new([1; 16]),
            seq: time.seconds.unsigned_abs(),
            prev: Vec::new(),
            host: "alpha".into(),
            paths: Vec::new(),
            tags: Vec::new(),
        }
    }

    #[test]
    fn the_finest_rule_that_is_long_enough_is_locked() {
        let only =
            |c: &Config| locks(c).into_iter().map(|l| (l.min / 86_400, l.unit / 3600)).collect::<Vec<_>>();
        assert_eq!(only(&config("pci-dss", "daily = \"7d\"\nmonthly = \"12m\"")), [(365, 757)]);
        assert_eq!(only(&config("sox", "monthly = \"12m\"\nyearly = \"7y\"")), [(2556, 8797)]);
        assert_eq!(only(&config("gdpr", "daily = \"7d\"")), []);
    }

    /// A policy that is long enough is never refused by the lock that was made for it, over two years with days left out.
    #[test]
    fn a_policy_keeps_what_its_own_lock_asks_for() {
        for (compliance, retention) in [
            ("pci-dss", "daily = \"7d\"\nweekly = \"4w\"\nmonthly = \"12m\""),
            ("pci-dss", "weekly = \"12m\""),
        ] {
            let config = config(compliance, retention);
            let lock = locks(&config).remove(0);
            let zone = config.host.zone.as_ref().unwrap().value.clone();
            let (_, kept) = config.retention_of(&config.jobs["home"].value).unwrap();
            let (mut alive, mut records) = (Vec::<(RunId, Timestamp)>::new(), Vec::new());
            let mut went = 0;
            for day in (0..760i64).filter(|day| day % 13 != 5 && !(200..240).contains(day)) {
                let start = Timestamp { seconds: 1_770_000_000 + day * DAY + day % 5 * 3000, nanos: 0 };
                let id = RunId::new(blake3::hash(&day.to_le_bytes()).as_bytes()[..16].try_into().unwrap());
                alive.push((id, start));
                let proven = Verified { proven: vec![id], within_days: 35, ..Verified::default() };
                records.push(record(start, records.len() as u64, Fact::Verified(proven)));
                records.push(record(start, records.len() as u64, Fact::Run(run(id, start))));
                let evidence = Evidence::of(&records);
                let judged: Vec<Judged> = alive
                    .iter()
                    .map(|(id, time)| Judged { candidate: candidate(*id, *time), whole: true })
                    .collect();
                let drop = to_drop(&judged, &evidence, &HashSet::new(), &kept.policy, start, &zone).unwrap();
                went += drop.len();
                let had: BTreeSet<i64> = alive.iter().map(|(_, t)| t.seconds).collect();
                alive.retain(|(id, _)| !drop.contains(id));
                let stay: BTreeSet<i64> = alive.iter().map(|(_, t)| t.seconds).collect();
                let lacks = evidence.unlocked(&lock, start.seconds, (&had, &stay));
                assert_eq!(lacks, None, "{retention}, day {day}");
            }
            assert!(went > 600, "{went}");
        }
    }
}
