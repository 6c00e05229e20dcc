//! The rules case by case: slots, reasons, groups, and what a stolen host cannot do.

use super::*;
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::{ClientId, RunId};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// The n-th id.
pub(super) fn id(n: u32) -> RunId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    RunId::new(bytes)
}

pub(super) fn berlin() -> TimeZone {
    TimeZone::get("Europe/Berlin").unwrap()
}

/// A time of day in Berlin.
pub(super) fn at(civil: &str) -> Timestamp {
    let civil: jiff::civil::DateTime = civil.parse().unwrap();
    Timestamp { seconds: civil.to_zoned(berlin()).unwrap().timestamp().as_second(), nanos: 0 }
}

/// An honest snapshot: received 10 minutes after it began.
pub(super) fn snapshot(n: u32, time: Timestamp) -> Candidate {
    Candidate {
        id: id(n),
        time,
        received: Some(time.seconds + 600),
        client: ClientId::new([1; 16]),
        seq: n.into(),
        prev: Vec::new(),
        host: "web".to_owned(),
        paths: vec![b"/srv".to_vec()],
        tags: Vec::new(),
    }
}

/// One a day at 02:30, `days` of them up to and including `last`; numbered from 1, oldest first.
pub(super) fn daily(days: u32, last: &str) -> Vec<Candidate> {
    let last: jiff::civil::Date = last.parse().unwrap();
    let day = |n: u32| last.checked_sub(jiff::Span::new().days(i64::from(days - n))).unwrap();
    (1..=days).map(|n| snapshot(n, at(&format!("{}T02:30", day(n))))).collect()
}

const NOW: &str = "2026-11-23T12:00";

fn planned(list: &[Candidate], policy: &Policy) -> Plan {
    plan(list, &HashSet::new(), policy, at(NOW), &berlin()).unwrap()
}

/// What is kept, with the reasons in words.
fn kept(list: &[Candidate], policy: &Policy) -> BTreeMap<RunId, Vec<String>> {
    let keep = planned(list, policy).groups.into_iter().flat_map(|g| g.keep);
    keep.map(|k| (k.id, k.reasons.iter().map(ToString::to_string).collect())).collect()
}

/// The numbers of what is kept.
fn numbers(list: &[Candidate], policy: &Policy) -> Vec<u32> {
    let number = |id: &RunId| u32::from_be_bytes(id.as_bytes()[..4].try_into().unwrap());
    kept(list, policy).keys().map(number).collect()
}

fn keep(text: &str) -> Option<Keep> {
    Some(text.parse().unwrap())
}

fn reasons(list: &[Candidate], policy: &Policy, n: u32) -> String {
    kept(list, policy).get(&id(n)).map_or_else(String::new, |r| r.join("; "))
}

#[test]
fn every_reason_is_said_in_words() {
    let mut list = daily(40, "2026-11-23");
    list[5].tags = vec!["keep".to_owned(), "x".to_owned()];
    list[7].time = at("2027-01-01T00:00");
    let policy = Policy {
        keep_last: keep("3"),
        keep_daily: keep("7"),
        keep_weekly: keep("unlimited"),
        keep_monthly: keep("20d"),
        keep_within: "2d".parse().ok(),
        keep_within_monthly: "60d".parse().ok(),
        keep_tags: vec![vec!["keep".into(), "x".into()], vec!["x".into()], vec!["y".into()]],
        ..Policy::default()
    };
    let held: HashSet<RunId> = [id(3)].into();
    let plan = plan(&list, &held, &policy, at(NOW), &berlin()).unwrap();
    let words = |n: u32| {
        let kept = plan.groups[0].keep.iter().find(|k| k.id == id(n)).unwrap();
        kept.reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(
        words(40),
        "last 1 of 3; within 2d; daily 1 of 7; weekly, unlimited; monthly within 20d; monthly within 60d"
    );
    assert_eq!(words(39), "last 2 of 3; within 2d; daily 2 of 7; weekly, unlimited");
    assert_eq!(words(38), "last 3 of 3; daily 3 of 7");
    // 31 October, the newest slot before 3 November.
    assert_eq!(words(17), "monthly covering 20d; monthly within 60d");
    assert_eq!(words(1), "oldest, weekly, unlimited; oldest, monthly within 60d");
    assert_eq!(words(3), "held");
    assert_eq!(words(6), "tags keep,x; tag x");
    assert_eq!(words(8), "in the future");
    assert_eq!(plan.groups[0].lineages, 1);
}

#[test]
fn counts_keep_the_newest_of_each_slot_as_restic_does() {
    let list = daily(800, "2026-11-23");
    let policy = |f: fn(&mut Policy)| {
        let mut p = Policy::default();
        f(&mut p);
        p
    };
    assert_eq!(numbers(&list, &policy(|p| p.keep_last = keep("3"))), [798, 799, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_daily = keep("2"))), [799, 800]);
    // Mondays to Sundays: 23 November 2026 is a Monday.
    assert_eq!(numbers(&list, &policy(|p| p.keep_weekly = keep("3"))), [792, 799, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_monthly = keep("3"))), [746, 777, 800]);
    // Three years only: the oldest too.
    assert_eq!(numbers(&list, &policy(|p| p.keep_yearly = keep("7"))), [1, 108, 473, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_yearly = keep("2"))), [473, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_within = "3d".parse().ok())), [798, 799, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_within_monthly = "2m".parse().ok())), [746, 777, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_monthly = keep("2m"))), [716, 746, 777, 800]);
    assert_eq!(numbers(&list, &policy(|p| p.keep_last = keep("2d"))), [798, 799, 800]);
    assert_eq!(planned(&list, &policy(|p| p.keep_daily = keep("unlimited"))).groups[0].keep.len(), 800);
}

#[test]
fn weeks_of_iso_8601_do_not_end_with_the_year() {
    // 1 January 2027 is a Friday of week 53 of 2026; 4 January a Monday of week 1.
    let times = ["2026-12-31T10:00", "2027-01-01T10:00", "2027-01-04T10:00"];
    let list: Vec<Candidate> = (1..).zip(times).map(|(n, t)| snapshot(n, at(t))).collect();
    let policy = Policy { keep_weekly: keep("2"), ..Policy::default() };
    let plan = plan(&list, &HashSet::new(), &policy, at("2027-02-01T00:00"), &berlin()).unwrap();
    assert_eq!(plan.groups[0].remove, [id(1)]);
}

#[test]
fn a_slot_is_one_of_the_time_zone() {
    // The two hours from 2 to 3 o'clock of 25 October are two slots; 23:30 UTC is the next day in Berlin.
    let second = |s: i64| Timestamp { seconds: s, nanos: 0 };
    let first: i64 = "2026-10-25T00:30:00Z".parse::<jiff::Timestamp>().unwrap().as_second();
    let list = [snapshot(1, second(first)), snapshot(2, second(first + 3600))];
    let hourly = Policy { keep_hourly: keep("2"), ..Policy::default() };
    assert_eq!(numbers(&list, &hourly), [1, 2]);
    let list = [
        snapshot(1, second(first - 3 * 3600)),
        snapshot(2, second(first - 3600)),
        snapshot(3, second(first)),
    ];
    let daily = Policy { keep_daily: keep("1"), ..Policy::default() };
    assert_eq!(numbers(&list, &daily), [3]);
    let days = |zone: TimeZone| {
        let policy = Policy { keep_daily: keep("1d"), ..Policy::default() };
        plan(&list[..2], &HashSet::new(), &policy, at(NOW), &zone).unwrap().groups[0].remove.len()
    };
    // 21:30 and 23:30 UTC: 23:30 and, the day after, 1:30 in Berlin.
    assert_eq!((days(berlin()), days(TimeZone::UTC)), (0, 0));
    let two = Policy { keep_daily: keep("2"), ..Policy::default() };
    let of =
        |zone: TimeZone| plan(&list, &HashSet::new(), &two, at(NOW), &zone).unwrap().groups[0].keep.len();
    assert_eq!((of(berlin()), of(TimeZone::UTC)), (2, 2));
}

#[test]
fn days_of_23_and_25_hours_are_days() {
    for last in ["2026-03-31", "2026-10-27"] {
        let list = daily(10, last);
        let policy = Policy { keep_daily: keep("4"), ..Policy::default() };
        assert_eq!(numbers(&list, &policy), [7, 8, 9, 10], "{last}");
        let policy = Policy { keep_within: "4d".parse().ok(), ..Policy::default() };
        assert_eq!(numbers(&list, &policy), [7, 8, 9, 10], "{last}");
        let policy = Policy { keep_daily: keep("4d"), ..Policy::default() };
        assert_eq!(numbers(&list, &policy), [6, 7, 8, 9, 10], "{last}");
    }
}

#[test]
fn ages_are_measured_from_the_newest_so_a_stalled_job_loses_nothing() {
    let list = daily(10, "2020-05-10");
    let policy = Policy { keep_within: "10d".parse().ok(), keep_daily: keep("5d"), ..Policy::default() };
    assert_eq!(numbers(&list, &policy).len(), 10);
}

#[test]
fn groups_are_ranked_apart() {
    let mut list = daily(6, "2026-11-23");
    list[1].host = "db".to_owned();
    list[2].paths.push(b"/etc".to_vec());
    list[3].tags.push("t".to_owned());
    let last = |by: &str| Policy { keep_last: keep("1"), group_by: by.parse().unwrap(), ..Policy::default() };
    assert_eq!(numbers(&list, &last("host,paths")), [2, 3, 6]);
    assert_eq!(numbers(&list, &last("host")), [2, 6]);
    assert_eq!(numbers(&list, &last("tags")), [4, 6]);
    assert_eq!(numbers(&list, &last("")), [6]);
    let titles: Vec<String> =
        planned(&list, &last("host,paths")).groups.iter().map(|g| g.key.to_string()).collect();
    assert_eq!(titles, ["host db · paths /srv", "host web · paths /etc, /srv", "host web · paths /srv"]);
}

#[test]
fn an_empty_policy_and_one_that_keeps_nothing_of_a_group_are_refused() {
    let mut list = daily(4, "2026-11-23");
    let refusal = |list: &[Candidate], policy: &Policy| {
        let held: HashSet<RunId> = [id(2)].into();
        plan(list, &held, policy, at(NOW), &berlin()).unwrap_err().to_string()
    };
    assert!(refusal(&list, &Policy::default()).contains("empty"));
    let allowed = Policy { allow_remove_all: true, ..Policy::default() };
    assert!(refusal(&list, &allowed).contains("empty"));
    // A typo. What is held or in the future does not make it right.
    list[3].time = at("2030-01-01T00:00");
    let mut typo = Policy { keep_tags: vec![vec!["kepe".into()]], ..Policy::default() };
    let said = refusal(&list, &typo);
    assert!(said.contains("none of the 2 snapshots") && said.contains("host web · paths /srv"), "{said}");
    typo.allow_remove_all = true;
    assert_eq!(planned(&list, &typo).groups[0].remove, [id(1), id(2), id(3)]);
    // Nothing to remove, nothing to refuse.
    typo.allow_remove_all = false;
    assert_eq!(planned(&list[3..], &typo).groups[0].keep.len(), 1);
    assert!(planned(&[], &typo).groups.is_empty());
}

#[test]
fn what_is_held_or_in_the_future_uses_up_nothing() {
    let mut list = daily(6, "2026-11-23");
    list[4].time = at("2026-11-24T00:00");
    list[3].received = Some(at("2026-12-24T00:00").seconds);
    let policy = Policy { keep_last: keep("2"), keep_daily: keep("2"), ..Policy::default() };
    let held: HashSet<RunId> = [id(6)].into();
    let plan = plan(&list, &held, &policy, at(NOW), &berlin()).unwrap();
    assert_eq!(plan.groups[0].remove, [id(1)]);
    let words: Vec<String> = plan.groups[0].keep.iter().map(|k| k.reasons[0].to_string()).collect();
    assert_eq!(words, ["last 2 of 2", "last 1 of 2", "in the future", "held", "in the future"]);
}

#[test]
fn dates_beyond_the_calendar_do_no_harm() {
    let second = |s: i64| Timestamp { seconds: s, nanos: 0 };
    let mut list = vec![snapshot(1, second(0)), snapshot(2, second(0)), snapshot(3, second(0))];
    list[0].time = second(i64::MIN);
    list[1].time = Timestamp { seconds: i64::MAX, nanos: u32::MAX };
    list[2].received = Some(i64::MIN);
    let all = Policy {
        keep_last: keep("1"),
        keep_hourly: keep("99999h"),
        keep_daily: keep("99999d"),
        keep_weekly: keep("99999w"),
        keep_monthly: keep("99999m"),
        keep_yearly: keep("99999y"),
        ..Policy::default()
    };
    for zone in [TimeZone::UTC, berlin(), TimeZone::get("Pacific/Apia").unwrap()] {
        for now in [i64::MIN, 0, i64::MAX] {
            let plan = plan(&list, &HashSet::new(), &all, second(now), &zone).unwrap();
            assert_eq!(plan.groups[0].keep.len() + plan.groups[0].remove.len(), 3);
        }
    }
}

/// A year of daily backups, the last one yesterday; and a policy of all sorts.
fn good() -> (Vec<Candidate>, Policy) {
    let policy = Policy {
        keep_last: keep("10"),
        keep_hourly: keep("24"),
        keep_daily: keep("14d"),
        keep_weekly: keep("8"),
        keep_monthly: keep("12m"),
        keep_yearly: keep("3"),
        keep_within: "5d".parse().ok(),
        ..Policy::default()
    };
    (daily(365, "2026-11-22"), policy)
}

/// Snapshots that a stolen host adds within an hour of today.
fn junk(dates: impl Iterator<Item = i64>) -> Vec<Candidate> {
    let arrival = at("2026-11-23T10:00").seconds;
    let make = |(n, seconds): (u32, i64)| Candidate {
        received: Some(arrival + i64::from(n % 3600)),
        seq: u64::from(n % 7),
        ..snapshot(10_000 + n, Timestamp { seconds, nanos: 0 })
    };
    (0..).zip(dates).map(make).collect()
}

/// The list, had the host made three honest backups on the day of the junk.
fn honestly(list: &[Candidate]) -> Vec<Candidate> {
    let times = ["2026-11-23T09:05", "2026-11-23T10:05", "2026-11-23T11:05"];
    let today = (501..).zip(times).map(|(n, t)| snapshot(n, at(t)));
    list.iter().cloned().chain(today).collect()
}

#[test]
fn a_burst_of_junk_cannot_use_up_keep_last() {
    let (mut list, _) = good();
    let policy = Policy { keep_last: keep("10"), ..Policy::default() };
    let now = at("2026-11-23T10:30").seconds;
    list.extend(junk((0..10_000).map(|_| now)));
    let kept = numbers(&list, &policy);
    assert!((357..=365).all(|n| kept.contains(&n)), "{kept:?}");
    assert_eq!(kept.len(), 19);
}

#[test]
fn a_burst_of_junk_takes_no_more_than_honest_backups_of_that_day() {
    let (good, policy) = good();
    // What would stay had the host made honest backups in the hours of the burst.
    let stays: BTreeSet<u32> = numbers(&honestly(&good), &policy).into_iter().filter(|n| *n <= 365).collect();
    assert!(stays.len() > 30);
    let today = at("2026-11-23T10:30").seconds;
    let floods: [(&str, Vec<Candidate>); 5] = [
        ("now", junk((0..10_000).map(|_| today))),
        ("each hour of the last year", junk((0..8760).map(|n| today - n * 3600))),
        (
            "each of the last 30 years, days and ends of days",
            junk((0..10_000).map(|n| today - n * 86_400 + 47_000)),
        ),
        ("1970", junk(0..100)),
        ("the future", junk((1..100).map(|n| today + n * 86_400))),
    ];
    for (what, flood) in floods {
        let mut list = good.clone();
        list.extend(flood);
        let now: BTreeSet<u32> = numbers(&list, &policy).into_iter().collect();
        let lost: Vec<&u32> = stays.difference(&now).collect();
        // Yesterday's may lose its day to junk dated yesterday, but it is among the last.
        assert!(lost.is_empty(), "{what}: {lost:?}");
    }
}

#[test]
fn the_junk_of_one_host_does_not_touch_another_and_trust_lifts_that() {
    let (good, policy) = good();
    let stays = numbers(&good, &policy);
    let mut list = good;
    let noon = at("2026-11-23T10:00").seconds;
    list.extend(junk((0..3000).map(|n| noon - n * 86_400 + n)));
    list.iter_mut().skip(365).for_each(|s| s.client = ClientId::new([2; 16]));
    let now = numbers(&list, &policy);
    assert!(stays.iter().all(|n| now.contains(n)));
    assert_eq!(planned(&list, &policy).groups[0].lineages, 2);
    let trusting = Policy { trust_client_times: true, ..policy };
    let now = numbers(&list, &trusting);
    assert!(!stays.iter().all(|n| now.contains(n)));
}

#[test]
fn keep_last_is_the_newest_and_the_newest_of_the_last_days() {
    let times: Vec<String> =
        (20..24).flat_map(|d| (0..5).map(move |h| format!("2026-11-{d}T{:02}:00", 2 * h))).collect();
    let list: Vec<Candidate> = (1..).zip(&times).map(|(n, t)| snapshot(n, at(t))).collect();
    let policy = Policy { keep_last: keep("3"), ..Policy::default() };
    assert_eq!(numbers(&list, &policy), [10, 15, 18, 19, 20]);
    assert_eq!(reasons(&list, &policy, 10), "newest of arrival day 3 of 3");
    let one = Policy { keep_last: keep("1"), ..Policy::default() };
    assert_eq!(numbers(&list, &one), [20]);
    let trusting = Policy { trust_client_times: true, ..policy };
    assert_eq!(numbers(&list, &trusting), [18, 19, 20]);
}

#[test]
fn an_imported_history_ranks_by_its_own_dates_and_keeps_so_when_junk_comes() {
    let (mut list, policy) = good();
    // Copied from another repository in one go, in March; then the host went on until November.
    let import = at("2026-03-01T12:00").seconds;
    for s in list.iter_mut().filter(|s| s.time.seconds < import) {
        s.received = Some(import + i64::try_from(s.seq).unwrap());
    }
    let by_dates = numbers(&good().0, &policy);
    let now = numbers(&list, &policy);
    assert!(by_dates.iter().all(|n| now.contains(n)));
    assert!(now.len() <= by_dates.len() + 25, "{} {}", now.len(), by_dates.len());
    // All of it was imported yesterday, and the junk came today.
    for s in &mut list {
        s.received = Some(at("2026-11-22T12:00").seconds + i64::try_from(s.seq).unwrap());
    }
    let imported = numbers(&list, &policy);
    assert!(by_dates.iter().all(|n| imported.contains(n)));
    let stays: Vec<u32> = numbers(&honestly(&list), &policy).into_iter().filter(|n| *n <= 365).collect();
    let noon = at("2026-11-23T10:00").seconds;
    list.extend(junk((1..5000).map(|n| noon - n * 40_000)));
    let now = numbers(&list, &policy);
    let lost: Vec<&u32> = stays.iter().filter(|n| !now.contains(n)).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_weekly_copy_is_thinned_in_the_end() {
    let mut list = daily(365, "2026-11-22");
    for s in &mut list {
        // On the Sunday after.
        let week = 7 * 86_400;
        let sunday = at("2026-11-22T20:00").seconds;
        s.received = Some(sunday - (sunday - s.time.seconds) / week * week);
    }
    let policy = Policy { keep_daily: keep("7"), ..Policy::default() };
    let kept = numbers(&list, &policy);
    assert!((359..=365).all(|n| kept.contains(&n)), "{kept:?}");
    assert!(kept.len() <= 35 && kept[0] > 365 - 7 * 8, "{kept:?}");
}

#[test]
fn storage_times_that_contradict_a_lineage_stop_rules_about_times_there() {
    let mut list = daily(30, "2026-11-22");
    for n in 1..30 {
        list[n].prev = vec![list[n - 1].id];
    }
    let policy = Policy { keep_last: keep("2"), ..Policy::default() };
    assert!(planned(&list, &policy).contradictions.is_empty());
    // Copied file by file, over some hours, in whatever order.
    for s in &mut list {
        s.received = Some(at("2026-11-23T06:00").seconds + i64::try_from(s.seq * 7 % 30).unwrap() * 600);
    }
    let other = Candidate { client: ClientId::new([2; 16]), ..snapshot(90, at("2026-11-20T00:00")) };
    let mut both = list.clone();
    both.extend([
        other.clone(),
        Candidate { id: id(91), ..other.clone() },
        Candidate { id: id(92), ..other },
    ]);
    let plan = planned(&both, &policy);
    assert_eq!(plan.contradictions.len(), 1);
    assert!(plan.contradictions[0].to_string().contains("copied file by file"));
    assert_eq!(plan.groups[0].remove, [id(90)]);
    assert!(reasons(&both, &policy, 4).contains("contradict"));
    let trusting = Policy { trust_client_times: true, ..policy };
    assert_eq!(numbers(&list, &trusting), [29, 30]);
    let tagged = Policy { keep_tags: vec![vec!["t".into()]], allow_remove_all: true, ..Policy::default() };
    assert!(numbers(&list, &tagged).is_empty());
    // A store whose clock was set back a little contradicts nothing; nor does another client's word.
    let mut two = vec![snapshot(1, at("2026-11-20T00:00")), snapshot(2, at("2026-11-20T01:00"))];
    two[1].prev = vec![id(1)];
    two[0].received = two[1].received.map(|t| t + 3600);
    assert!(planned(&two, &tagged).contradictions.is_empty());
    two[0].received = two[1].received.map(|t| t + 3601);
    assert_eq!(planned(&two, &tagged).contradictions.len(), 1);
    two[0].client = ClientId::new([2; 16]);
    assert!(planned(&two, &tagged).contradictions.is_empty());
}

#[test]
fn without_storage_times_dates_are_all_there_is() {
    let (mut list, policy) = good();
    let with = numbers(&list, &policy);
    list.iter_mut().for_each(|s| s.received = None);
    assert_eq!(numbers(&list, &policy), with);
}
