//! What there is to tell: how a job stands now, beside what was told of it before. Pure.
//!
//! Kept true: a problem is told when it begins and when it becomes graver, about once a day while it lasts, and once when
//! it is over; and none is called over because it could not be looked at.

use crate::config::Kind;
use crate::outcome::Outcome;
use crate::status::Finding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What lasts is told again after so many seconds: less than a day, so that a daily run that ends earlier than the day
/// before still tells it.
pub const AGAIN: i64 = 20 * 3600;

/// The rule of what went wrong in a run and is on no record: only a run shows whether it is over.
pub const OF_A_RUN: &str = "run";

/// The rule of destinations that cannot be read.
const UNREADABLE: &str = "unreadable";

/// A problem that was told and was not over when it was looked at last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Its rule.
    pub rule: String,
    /// The destination that it is about.
    pub place: Option<String>,
    /// The exit code that it stands for.
    pub exit: u8,
    /// In a sentence.
    pub what: String,
    /// When it was first seen, in seconds.
    pub first_seen: i64,
    /// When it was told last.
    pub told: i64,
    /// How often it was told.
    pub count: u64,
}

/// Problems of a job, by rule and destination.
pub type Known = BTreeMap<String, Problem>;

/// Something to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is about; also when it is over.
    pub kind: Kind,
    /// Rule and destination: the same for all that is told of one problem.
    pub key: String,
    /// The problem.
    pub problem: Problem,
    /// What is wrong; nothing if it is over.
    pub findings: Vec<Finding>,
}

impl Event {
    /// False if it is over.
    pub fn is_open(&self) -> bool {
        !self.findings.is_empty()
    }

    /// True if it was told before and goes on.
    pub fn goes_on(&self) -> bool {
        self.is_open() && self.problem.count > 1
    }
}

/// What somebody who wants to know of it says.
pub const fn kind_of(outcome: Outcome) -> Kind {
    match outcome {
        Outcome::Missed => Kind::Missed,
        Outcome::Held => Kind::Anomaly,
        Outcome::Refused => Kind::Refused,
        Outcome::Capacity => Kind::Capacity,
        Outcome::Unproven => Kind::Unproven,
        Outcome::Drill => Kind::Drill,
        Outcome::Done
        | Outcome::Failed
        | Outcome::Partial
        | Outcome::Damage
        | Outcome::NoRepository
        | Outcome::Busy
        | Outcome::NoSecret
        | Outcome::Interrupted => Kind::Failure,
    }
}

/// What to tell, and what is known from then on. With `ran` the findings are those after a run.
pub fn derive(before: &Known, findings: &[Finding], now: i64, ran: bool) -> (Vec<Event>, Known) {
    let mut groups: BTreeMap<String, Vec<&Finding>> = BTreeMap::new();
    for finding in findings.iter().filter(|f| f.outcome != Outcome::Done) {
        groups.entry(key(finding)).or_default().push(finding);
    }
    let (mut events, mut after) = (Vec::new(), Known::new());
    for (key, group) in &groups {
        let Some(gravest) = group.iter().min_by_key(|f| f.outcome.rank()) else { continue };
        let known = before.get(key);
        let mut problem = Problem {
            rule: gravest.rule.to_owned(),
            place: gravest.place.clone(),
            exit: gravest.outcome.code(),
            what: gravest.what.clone(),
            first_seen: known.map_or(now, |p| p.first_seen),
            told: known.map_or(now, |p| p.told),
            count: known.map_or(0, |p| p.count),
        };
        if known.is_none_or(|known| is_due(known, gravest.outcome, now)) {
            (problem.told, problem.count) = (now, problem.count.saturating_add(1));
            events.push(Event {
                kind: kind_of(gravest.outcome),
                key: key.clone(),
                problem: problem.clone(),
                findings: group.iter().map(|f| (*f).clone()).collect(),
            });
        }
        after.insert(key.clone(), problem);
    }
    let hidden: Vec<Option<&str>> =
        findings.iter().filter(|f| f.rule == UNREADABLE).map(|f| f.place.as_deref()).collect();
    for (key, problem) in before.iter().filter(|(key, _)| !groups.contains_key(*key)) {
        if is_over(problem, &hidden, ran) {
            let kind = kind_of(Outcome::of(problem.exit.into()));
            events.push(Event { kind, key: key.clone(), problem: problem.clone(), findings: Vec::new() });
        } else {
            after.insert(key.clone(), problem.clone());
        }
    }
    (events, after)
}

fn key(finding: &Finding) -> String {
    finding
        .place
        .as_ref()
        .map_or_else(|| finding.rule.to_owned(), |place| format!("{}:{place}", finding.rule))
}

/// Graver than it was, or another thing, or told long ago. A clock that was set back by as much keeps nothing untold.
fn is_due(known: &Problem, outcome: Outcome, now: i64) -> bool {
    let was = Outcome::of(known.exit.into());
    outcome.rank() < was.rank()
        || kind_of(outcome) != kind_of(was)
        || now.saturating_sub(known.told).saturating_abs() >= AGAIN
}

/// What is wrong with a destination that cannot be read is wrong until it can; what is wrong with the job itself may be on
/// record there alone.
fn is_over(problem: &Problem, hidden: &[Option<&str>], ran: bool) -> bool {
    if problem.rule == OF_A_RUN && !ran {
        return false;
    }
    match &problem.place {
        Some(_) if problem.rule == UNREADABLE => true,
        Some(place) => !hidden.contains(&Some(place)),
        None => hidden.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn finding(rule: &'static str, place: Option<&str>, outcome: Outcome) -> Finding {
        Finding {
            rule,
            place: place.map(str::to_owned),
            outcome,
            what: format!("{rule}!"),
            fix: "f".into(),
            evidence: None,
        }
    }

    fn told(events: &[Event]) -> Vec<(&str, Kind, bool, u64)> {
        events.iter().map(|e| (e.key.as_str(), e.kind, e.is_open(), e.problem.count)).collect()
    }

    #[test]
    fn a_problem_is_told_at_its_beginning_once_a_day_and_at_its_end() {
        let failed = [finding("last-run", None, Outcome::Failed)];
        let (events, known) = derive(&Known::new(), &failed, 1000, true);
        assert_eq!(told(&events), [("last-run", Kind::Failure, true, 1)]);
        let (events, known) = derive(&known, &failed, 1000 + 3600, true);
        assert_eq!(told(&events), []);
        let (events, known) = derive(&known, &failed, 1000 + 86_000, true);
        assert_eq!(told(&events), [("last-run", Kind::Failure, true, 2)]);
        assert!(events[0].goes_on() && events[0].problem.first_seen == 1000);
        // It becomes another thing: at once.
        let full = [finding("last-run", None, Outcome::Capacity)];
        let (events, known) = derive(&known, &full, 1000 + 86_001, true);
        assert_eq!(told(&events), [("last-run", Kind::Capacity, true, 3)]);
        let (events, known) = derive(&known, &[], 1000 + 86_002, false);
        assert_eq!(told(&events), [("last-run", Kind::Capacity, false, 3)]);
        assert!(known.is_empty());
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_over() {
        let all = [
            finding("damaged-packs", Some("nas"), Outcome::Damage),
            finding("missed", None, Outcome::Missed),
            finding("ledger", Some("vault"), Outcome::Damage),
        ];
        let (_, known) = derive(&Known::new(), &all, 0, true);
        let away = [finding("unreadable", Some("nas"), Outcome::Failed)];
        let (events, known) = derive(&known, &away, 10, false);
        // The one of the other destination is over.
        assert_eq!(
            told(&events),
            [("unreadable:nas", Kind::Failure, true, 1), ("ledger:vault", Kind::Failure, false, 1)]
        );
        let (events, _) = derive(&known, &all[..1], 20, false);
        assert_eq!(
            told(&events),
            [("missed", Kind::Missed, false, 1), ("unreadable:nas", Kind::Failure, false, 1)]
        );
    }

    #[test]
    fn only_a_run_ends_what_only_a_run_shows() {
        let refused = [finding(OF_A_RUN, Some("nas"), Outcome::Refused)];
        let (_, known) = derive(&Known::new(), &refused, 0, true);
        let (events, known) = derive(&known, &[], 10, false);
        assert_eq!((told(&events).len(), known.len()), (0, 1));
        let (events, known) = derive(&known, &[], 20, true);
        assert_eq!((told(&events).len(), known.len()), (1, 0));
    }

    #[test]
    fn findings_of_one_rule_are_one_message() {
        let two = [finding("anomaly", None, Outcome::Held), finding("anomaly", None, Outcome::Held)];
        let (events, _) = derive(&Known::new(), &two, 0, true);
        assert_eq!((events.len(), events[0].findings.len()), (1, 2));
    }

    const RULES: [(&str, Option<&str>, Outcome); 6] = [
        ("last-run", None, Outcome::Failed),
        ("missed", None, Outcome::Missed),
        ("unreadable", Some("a"), Outcome::Failed),
        ("ledger", Some("a"), Outcome::Damage),
        ("ledger", Some("b"), Outcome::Damage),
        (OF_A_RUN, Some("b"), Outcome::Refused),
    ];

    proptest! {
        /// Whatever happens: each problem is told at its beginning, never twice within AGAIN, its end once and only after
        /// a beginning; and once all is well and can be looked at, nothing is left open.
        #[test]
        fn beginnings_and_ends_alternate(days in prop::collection::vec((0u8..64, 1i64..200_000, any::<bool>()), 1..40)) {
            let (mut known, mut now) = (Known::new(), 0);
            let mut open: BTreeMap<String, i64> = BTreeMap::new();
            for (mask, wait, ran) in days.into_iter().chain([(0, 1, true)]) {
                now += wait;
                let findings: Vec<Finding> = RULES
                    .iter()
                    .enumerate()
                    .filter(|(n, _)| mask & (1 << n) != 0)
                    .map(|(_, (rule, place, outcome))| finding(rule, *place, *outcome))
                    .collect();
                let (events, after) = derive(&known, &findings, now, ran);
                for event in &events {
                    if event.is_open() {
                        let before = open.insert(event.key.clone(), now);
                        prop_assert_eq!(before.is_some(), event.goes_on());
                        prop_assert!(before.is_none_or(|before| now - before >= AGAIN));
                    } else {
                        prop_assert!(open.remove(&event.key).is_some(), "{} ended twice", event.key);
                    }
                }
                let keys: Vec<&String> = after.keys().collect();
                prop_assert_eq!(&keys, &open.keys().collect::<Vec<_>>());
                for finding in &findings {
                    prop_assert!(after.contains_key(&key(finding)));
                    let last = open.get(&key(finding)).copied();
                    prop_assert!(last.is_some_and(|last| now - last < AGAIN));
                }
                known = after;
            }
            prop_assert!(known.is_empty());
        }
    }
}
