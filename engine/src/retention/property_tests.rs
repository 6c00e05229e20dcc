//! What holds of any snapshots and any policy.

use super::tests::{berlin, id, snapshot};
use super::*;
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::{ClientId, RunId};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

const NOW: i64 = 1_790_000_000;

fn keeps() -> impl Strategy<Value = Option<Keep>> {
    let windows = ["3h", "2d", "10d", "3w", "2m", "1y"].map(|w| Keep::Within(w.parse().unwrap()));
    prop_oneof![
        4 => Just(None),
        3 => (0u64..9).prop_map(|n| Some(Keep::Count(n))),
        1 => Just(Some(Keep::Unlimited)),
        3 => proptest::sample::select(windows.to_vec()).prop_map(Some),
    ]
}

fn periods() -> impl Strategy<Value = Option<Period>> {
    let periods = ["5h", "1d", "9d", "3m"].map(|p| p.parse::<Period>().unwrap());
    prop_oneof![3 => Just(None), 1 => proptest::sample::select(periods.to_vec()).prop_map(Some)]
}

prop_compose! {
    fn policies()(
        keep in proptest::array::uniform6(keeps()),
        within in proptest::array::uniform6(periods()),
        keep_tags in proptest::collection::vec(Just(vec!["t".to_owned()]), 0..2),
        trust_client_times in proptest::bool::weighted(0.2),
    ) -> Policy {
        let [keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly] = keep;
        let [keep_within, keep_within_hourly, keep_within_daily, keep_within_weekly, keep_within_monthly,
            keep_within_yearly] = within;
        Policy {
            keep_last, keep_hourly, keep_daily, keep_weekly, keep_monthly, keep_yearly,
            keep_within, keep_within_hourly, keep_within_daily, keep_within_weekly, keep_within_monthly,
            keep_within_yearly, keep_tags, trust_client_times,
            allow_remove_all: true, group_by: GroupBy::default(),
        }
    }
}

/// Age in hours and seconds, lag of the arrival, client, host, tagged.
type Drawn = (i64, i64, Option<i64>, u8, u8, bool);

/// Ages in hours with some density at every scale; arrivals soon after, much later, or unknown.
fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let age = prop_oneof![0i64..48, 0i64..1500, 0i64..30_000, -20i64..0];
    let lag =
        prop_oneof![4 => 1i64..3600, 1 => 3600i64..200_000, 1 => 200_000i64..60_000_000, 1 => -90_000i64..0];
    let one = (
        age,
        0i64..3600,
        proptest::option::weighted(0.9, lag),
        0u8..2,
        0u8..2,
        proptest::bool::weighted(0.1),
    );
    proptest::collection::vec(one, 0..60).prop_map(|list| {
        let make = |(n, drawn): (u32, Drawn)| {
            let (age, second, lag, client, host, tag) = drawn;
            let time = NOW - age * 3600 - second;
            let received = lag.map(|lag| (time + lag).min(NOW));
            let prev = if n % 5 == 1 && client == 0 { vec![id(n - 1)] } else { Vec::new() };
            Candidate {
                received,
                prev,
                client: ClientId::new([client; 16]),
                host: format!("h{host}"),
                tags: if tag { vec!["t".to_owned()] } else { Vec::new() },
                ..snapshot(n, Timestamp { seconds: time, nanos: 0 })
            }
        };
        (0u32..).zip(list).map(make).collect()
    })
}

fn planned(list: &[Candidate], policy: &Policy) -> Plan {
    let held: HashSet<RunId> = [id(3), id(17)].into();
    plan(list, &held, policy, Timestamp { seconds: NOW, nanos: 0 }, &berlin()).unwrap()
}

fn kept(plan: &Plan) -> BTreeSet<RunId> {
    plan.groups.iter().flat_map(|g| &g.keep).map(|k| k.id).collect()
}

/// More of the same rule.
fn more(keep: Option<Keep>, choice: u64) -> Option<Keep> {
    let longer = ["1d", "5w", "7m", "9y"];
    match keep {
        None => [None, Some(Keep::Count(choice))][(choice % 2) as usize],
        Some(Keep::Count(n)) => Some([Keep::Count(n + choice), Keep::Unlimited][(choice % 2) as usize]),
        Some(Keep::Unlimited) => keep,
        Some(Keep::Within(p)) => {
            let end = jiff::Timestamp::from_second(NOW).unwrap().to_zoned(berlin());
            let more: Period = longer[(choice % 4) as usize].parse().unwrap();
            Some(Keep::Within(if more.before(&end) < p.before(&end) { more } else { p }))
        }
    }
}

fn is_ordinary(keep: &Kept) -> bool {
    !keep.reasons.iter().any(|r| matches!(r, Reason::Held | Reason::Future | Reason::Contradiction))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn each_snapshot_is_kept_for_a_reason_or_removed(list in candidates(), policy in policies()) {
        prop_assume!(!policy.is_empty());
        let plan = planned(&list, &policy);
        let mut seen: Vec<RunId> = Vec::new();
        for group in &plan.groups {
            seen.extend(&group.remove);
            seen.extend(group.keep.iter().map(|k| k.id));
            for k in &group.keep {
                prop_assert!(!k.reasons.is_empty());
                let words: BTreeSet<String> = k.reasons.iter().map(ToString::to_string).collect();
                prop_assert_eq!(words.len(), k.reasons.len(), "{:?}", &k.reasons);
            }
        }
        seen.sort();
        let mut all: Vec<RunId> = list.iter().map(|s| s.id).collect();
        all.sort();
        prop_assert_eq!(seen, all);
    }

    #[test]
    fn forgetting_twice_is_forgetting_once(list in candidates(), policy in policies()) {
        prop_assume!(!policy.is_empty());
        let first = planned(&list, &policy);
        let keep = kept(&first);
        let left: Vec<Candidate> = list.into_iter().filter(|s| keep.contains(&s.id)).collect();
        // A lineage may be freed of its contradiction only by a removal, and those do not touch it.
        prop_assert_eq!(kept(&planned(&left, &policy)), keep);
    }

    #[test]
    fn a_policy_that_asks_for_more_keeps_more(
        list in candidates(), policy in policies(), choice in proptest::array::uniform6(0u64..9), within in periods(),
    ) {
        prop_assume!(!policy.is_empty());
        let [a, b, c, d, e, f] = choice;
        let superset = Policy {
            keep_last: more(policy.keep_last, a),
            keep_hourly: more(policy.keep_hourly, b),
            keep_daily: more(policy.keep_daily, c),
            keep_weekly: more(policy.keep_weekly, d),
            keep_monthly: more(policy.keep_monthly, e),
            keep_yearly: more(policy.keep_yearly, f),
            keep_within_weekly: policy.keep_within_weekly.or(within),
            ..policy.clone()
        };
        prop_assert!(kept(&planned(&list, &policy)).is_subset(&kept(&planned(&list, &superset))));
    }

    #[test]
    fn keep_last_keeps_as_many(list in candidates(), n in 1u64..9, trust in any::<bool>()) {
        let policy = Policy { keep_last: Some(Keep::Count(n)), trust_client_times: trust, ..Policy::default() };
        for group in planned(&list, &policy).groups {
            let ranked = group.keep.iter().filter(|k| is_ordinary(k)).count() as u64;
            let there = ranked + group.remove.len() as u64;
            prop_assert!(ranked >= n.min(there));
            if trust {
                prop_assert_eq!(ranked, n.min(there));
            }
        }
    }

    /// A newer snapshot takes the place of those in its own slot; any other slot stays until the next newer one is as
    /// old as the window.
    #[test]
    fn a_newer_snapshot_ends_no_window_before_its_time(list in candidates(), gap in 1i64..2_000_000) {
        let period: Period = "2m".parse().unwrap();
        let policy = Policy { keep_weekly: Some(Keep::Within(period)), trust_client_times: true, ..Policy::default() };
        let mut list: Vec<Candidate> = list.into_iter().filter(|s| s.time.seconds < NOW - gap).collect();
        list.iter_mut().for_each(|s| s.host.clear());
        let before = planned(&list, &policy);
        let new = Candidate { host: String::new(), ..snapshot(5000, Timestamp { seconds: NOW, nanos: 0 }) };
        list.push(new);
        let after = kept(&planned(&list, &policy));
        let zoned = |s: &Candidate| jiff::Timestamp::from_second(s.time.seconds).unwrap().to_zoned(berlin());
        let week = |s: &Candidate| zoned(s).strftime("%G-%V").to_string();
        let newest = list.last().unwrap();
        let start = period.before(&zoned(newest));
        for k in before.groups.iter().flat_map(|g| &g.keep) {
            let old = list.iter().find(|s| s.id == k.id).unwrap();
            let newer_slot_is_old = list.iter().any(|s| week(s) > week(old) && zoned(s).timestamp() <= start);
            let replaced = week(old) == week(newest);
            let ranks_as_slot = k.reasons.iter().any(|r| matches!(r, Reason::Window { edge: Edge::Inside | Edge::Covers, .. }));
            if ranks_as_slot && !newer_slot_is_old && !replaced {
                prop_assert!(after.contains(&k.id), "{} {:?}", zoned(old), k);
            }
        }
    }

    /// Whatever arrives in one burst, dated as it may be, displaces no more than honest backups of now, an hour ago
    /// and a day ago would.
    #[test]
    fn junk_displaces_no_more_than_honest_backups_would(
        list in candidates(), mut policy in policies(), ages in proptest::collection::vec(0i64..50_000, 1..80),
    ) {
        policy.trust_client_times = false;
        policy.keep_last = Some(Keep::Count(3));
        // All else came well before, so that those shorter than a year share no slot with it.
        let before = NOW - 45 * 86_400;
        let mut list: Vec<Candidate> = list.into_iter().filter(|s| s.time.seconds < before).collect();
        list.iter_mut().for_each(|s| s.received = s.received.map(|t| t.min(before)));
        let one = |n: u32, time: i64, received: i64| Candidate {
            received: Some(received),
            host: format!("h{}", n % 2),
            client: ClientId::new([(n / 2 % 2) as u8; 16]),
            ..snapshot(7000 + n, Timestamp { seconds: time, nanos: 0 })
        };
        let mut honest = list.clone();
        for (n, time) in (0..4).flat_map(|n| [(n, NOW - 60), (4 + n, NOW - 3660), (8 + n, NOW - 86_460)]) {
            honest.push(one(n, time, time));
        }
        list.extend((0..).zip(ages).map(|(n, age)| one(n, NOW - 60 - age * 3600, NOW - 60)));
        let old = |plan: &Plan| kept(plan).into_iter().filter(|i| *i < id(7000)).collect::<BTreeSet<_>>();
        let (stays, now) = (old(&planned(&honest, &policy)), old(&planned(&list, &policy)));
        prop_assert!(stays.is_subset(&now), "{:?}", stays.difference(&now).collect::<Vec<_>>());
    }
}
