//! Day by day over years: a backup, then forget. What windows promise holds after every day; counts fall short on
//! every day; and how many snapshots the usual policies keep.

use super::tests::{berlin, snapshot};
use super::*;
use bulla_repo_format::tree::Timestamp;
use jiff::civil::Date;
use jiff::{Span, Zoned};
use std::collections::HashSet;

/// A repository of one host.
struct House {
    policy: Policy,
    /// When each backup ever was made.
    made: Vec<i64>,
    left: Vec<Candidate>,
    random: u64,
}

impl House {
    fn new(policy: Policy) -> Self {
        Self { policy, made: Vec::new(), left: Vec::new(), random: 7 }
    }

    /// Pseudo-random, the same in every run.
    fn below(&mut self, n: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n
    }

    fn back_up(&mut self, time: i64) {
        self.made.push(time);
        let n = u32::try_from(self.made.len()).unwrap();
        self.left.push(snapshot(n, Timestamp { seconds: time, nanos: 0 }));
    }

    /// Forgets at the end of a day.
    fn forget(&mut self, now: i64) {
        let now = Timestamp { seconds: now, nanos: 0 };
        let plan = plan(&self.left, &HashSet::new(), &self.policy, now, &berlin()).unwrap();
        let gone: HashSet<_> = plan.groups.iter().flat_map(|g| &g.remove).copied().collect();
        self.left.retain(|s| !gone.contains(&s.id));
    }

    /// A night's backup with some jitter, unless it is missed, and forget; gives the end of the day.
    fn live(&mut self, day: Date, missed_percent: u64) -> Zoned {
        let jitter = self.below(3600);
        if self.below(100) >= missed_percent {
            let night = day.at(2, 15, 0, 0).to_zoned(berlin()).unwrap().timestamp().as_second();
            self.back_up(night + i64::try_from(jitter).unwrap());
        }
        let end = day.at(23, 0, 0, 0).to_zoned(berlin()).unwrap();
        self.forget(end.timestamp().as_second());
        end
    }
}

fn days(first: &str, n: i32) -> impl Iterator<Item = Date> {
    let first: Date = first.parse().unwrap();
    (0..n).map(move |n| first.checked_add(Span::new().days(n)).unwrap())
}

fn zoned(t: i64) -> Zoned {
    jiff::Timestamp::from_second(t).unwrap().to_zoned(berlin())
}

/// The promise of a window that begins at `start`: for every point since, and since the first backup, there is a kept
/// snapshot at or before it, of its slot or of the last slot before it in which anything was backed up.
fn is_covered(
    house: &House,
    slots: &[(i64, String)],
    format: &str,
    start: i64,
    end: i64,
) -> Result<(), String> {
    let Some((first, _)) = slots.first() else { return Ok(()) };
    let mut point = start.max(*first);
    while point <= end {
        let slot = zoned(point).strftime(format).to_string();
        let best = house.left.iter().map(|s| s.time.seconds).filter(|t| *t <= point).max();
        let best = best.ok_or_else(|| format!("nothing for {}", zoned(point)))?;
        let until = slots.partition_point(|(t, _)| *t <= point);
        let needed = slots[..until].iter().rev().find(|(_, s)| *s != slot);
        let best_slot = zoned(best).strftime(format).to_string();
        if needed.is_some_and(|(_, needed)| best_slot < *needed) {
            return Err(format!("for {} there is only {}", zoned(point), zoned(best)));
        }
        point += 5 * 86_400 + 3600;
    }
    Ok(())
}

fn simulate(
    policy: Policy,
    format: &str,
    window: &str,
    years: i32,
    missed_percent: u64,
) -> Result<(), String> {
    let period: Period = window.parse().unwrap();
    let (mut house, mut slots) = (House::new(policy), Vec::new());
    for day in days("2019-01-05", years * 365) {
        let end = house.live(day, missed_percent);
        slots.extend(house.made[slots.len()..].iter().map(|t| (*t, zoned(*t).strftime(format).to_string())));
        let start = period.before(&end).as_second();
        is_covered(&house, &slots, format, start, end.timestamp().as_second())?;
        // The reach: nothing younger than the window is the oldest, once there was something older.
        let oldest = house.left.iter().map(|s| s.time.seconds).min();
        if house.made.first().is_some_and(|first| *first <= start) && oldest.is_none_or(|t| t > start) {
            return Err(format!("{end}: the reach is short"));
        }
    }
    Ok(())
}

fn rule(unit: Unit, keep: &str) -> Policy {
    let (mut policy, keep) = (Policy::default(), Some(keep.parse().unwrap()));
    match unit {
        Unit::Last => policy.keep_last = keep,
        Unit::Hourly => policy.keep_hourly = keep,
        Unit::Daily => policy.keep_daily = keep,
        Unit::Weekly => policy.keep_weekly = keep,
        Unit::Monthly => policy.keep_monthly = keep,
        Unit::Yearly => policy.keep_yearly = keep,
    }
    policy
}

#[test]
fn windows_hold_on_every_day_whatever_runs_are_missed() {
    for (unit, format, window, years) in [
        (Unit::Daily, "%Y-%m-%d", "7d", 2),
        (Unit::Weekly, "%G-%V", "4w", 2),
        (Unit::Monthly, "%Y-%m", "12m", 4),
        (Unit::Monthly, "%Y-%m", "3m", 2),
        (Unit::Yearly, "%Y", "3y", 6),
        // Shorter than a slot.
        (Unit::Monthly, "%Y-%m", "7d", 2),
        (Unit::Yearly, "%Y", "40d", 3),
    ] {
        for missed in [0, 20, 95] {
            let result = simulate(rule(unit, window), format, window, years, missed);
            assert_eq!(result, Ok(()), "{unit} {window}, {missed} % missed");
        }
    }
}

#[test]
fn windows_hold_beside_other_rules() {
    let policy = Policy {
        keep_last: Some(Keep::Count(3)),
        keep_weekly: Some(Keep::Count(5)),
        keep_within_daily: "9d".parse().ok(),
        keep_yearly: Some(Keep::Unlimited),
        ..rule(Unit::Monthly, "12m")
    };
    assert_eq!(simulate(policy, "%Y-%m", "12m", 4, 20), Ok(()));
}

/// The least and the largest reach in days, over two years after two years.
fn reach(policy: Policy) -> (i64, i64) {
    let mut house = House::new(policy);
    let mut reach = Vec::new();
    for (n, day) in days("2019-01-05", 4 * 365).enumerate() {
        let end = house.live(day, 0).timestamp().as_second();
        let oldest = house.left.iter().map(|s| s.time.seconds).min().unwrap();
        if n > 2 * 365 {
            reach.push((end - oldest) / 86_400);
        }
    }
    (*reach.iter().min().unwrap(), *reach.iter().max().unwrap())
}

#[test]
fn counts_fall_short_on_every_day() {
    assert_eq!(reach(rule(Unit::Monthly, "12")), (304, 337));
    assert_eq!(reach(rule(Unit::Monthly, "3")), (29, 62));
    assert_eq!(reach(rule(Unit::Monthly, "12m")), (365, 397));
}

/// The least and the largest number kept in 2026, after eight years and more of backups. `hourly` from the autumn of
/// 2025 on. Forgets at noon.
fn golden(policy: Policy, hourly: bool) -> (usize, usize) {
    let mut house = House::new(policy);
    let mut sizes = Vec::new();
    let (autumn, new_year) = (jiff::civil::date(2025, 10, 1), jiff::civil::date(2026, 1, 1));
    for day in days("2017-06-01", 3501) {
        let noon = day.at(12, 0, 0, 0).to_zoned(berlin()).unwrap();
        let end = noon.checked_add(Span::new().days(1)).unwrap().timestamp().as_second();
        let first = noon.timestamp().as_second() + 300;
        let last = if hourly && day >= autumn { end } else { first + 1 };
        (first..last).step_by(3600).for_each(|at| house.back_up(at));
        house.forget(end);
        if day >= new_year {
            sizes.push(house.left.len());
        }
    }
    (*sizes.iter().min().unwrap(), *sizes.iter().max().unwrap())
}

#[test]
fn the_usual_policies_keep_so_many() {
    let policy = |hourly: &str, daily: &str, weekly: &str, monthly: &str, yearly: &str| {
        let keep = |text: &str| (!text.is_empty()).then(|| text.parse::<Keep>().unwrap());
        Policy {
            keep_hourly: keep(hourly),
            keep_daily: keep(daily),
            keep_weekly: keep(weekly),
            keep_monthly: keep(monthly),
            keep_yearly: keep(yearly),
            ..Policy::default()
        }
    };
    assert_eq!(golden(policy("24h", "7d", "4w", "12m", "7y"), true), (53, 56), "databases");
    assert_eq!(golden(policy("", "7d", "4w", "6m", ""), false), (17, 19), "machines");
    assert_eq!(golden(policy("", "30d", "", "12m", ""), false), (42, 43), "configuration");
    assert_eq!(golden(policy("", "7d", "4w", "3m", ""), false), (14, 16), "logs");
    assert_eq!(golden(policy("", "14d", "8w", "12m", "7y"), false), (38, 42), "user data");
}
