//! The rules about times, applied to one lineage of one group.

use super::policy::Rule;
use super::{Edge, Reason, Unit};
use bulla_repo_format::RunId;
use jiff::civil::Date;
use jiff::tz::Offset;
use jiff::{SignedDuration, Zoned};
use std::collections::BTreeSet;

/// A snapshot as it is ranked.
#[derive(Debug)]
pub(super) struct Ranked {
    /// Its place in the caller's list.
    pub(super) index: usize,
    /// The client's date.
    pub(super) claimed: Zoned,
    /// The storage's; the client's where the storage knows none.
    pub(super) arrived: Zoned,
    /// Its number in the lineage. Claimed, so it only breaks ties.
    pub(super) seq: u64,
    /// Its id, which breaks the last ones.
    pub(super) id: RunId,
}

impl Ranked {
    /// The store received it about when the client says it was made.
    fn is_confirmed(&self, tolerance: SignedDuration) -> bool {
        self.arrived.timestamp().duration_since(self.claimed.timestamp()).abs() <= tolerance
    }
}

/// A snapshot in a view: where it stands there.
#[derive(Clone, Copy)]
struct Seen<'a> {
    at: &'a Zoned,
    snapshot: &'a Ranked,
}

/// What `rules` keep, by index, each with its reason. A snapshot may occur several times, also for the same rule.
/// `arrivals_count`: the times of arrival are the storage's, so no burst may use up `keep_last`.
pub(super) fn rank(list: &[Ranked], rules: &[Rule], arrivals_count: bool) -> Vec<(usize, Reason)> {
    let (hourly, longer): (Vec<Rule>, Vec<Rule>) = rules.iter().partition(|r| r.unit() == Unit::Hourly);
    let mut kept = Vec::new();
    for (tolerance, rules) in [(1, hourly), (24, longer)] {
        if rules.is_empty() {
            continue;
        }
        for view in views(list, SignedDuration::from_hours(tolerance)) {
            for rule in &rules {
                match *rule {
                    Rule::Slots(unit, of) => slots(&view, unit, of, &mut kept),
                    Rule::Cover(unit, _) | Rule::Within(unit, _) => window(&view, unit, rule, &mut kept),
                }
            }
        }
    }
    for rule in rules {
        if let (Rule::Slots(Unit::Last, Some(of)), true) = (*rule, arrivals_count) {
            arrivals(list, of, &mut kept);
        }
    }
    kept
}

/// The views, each newest first: believing all, and then ever fewer. See the module's text.
fn views(list: &[Ranked], tolerance: SignedDuration) -> Vec<Vec<Seen<'_>>> {
    let backdated = list.iter().filter(|s| !s.is_confirmed(tolerance));
    let days: BTreeSet<Date> = backdated.map(|s| s.arrived.date()).collect();
    let view = |believed: Option<Date>| {
        let mut view: Vec<Seen<'_>> = list
            .iter()
            .map(|snapshot| {
                let believe = snapshot.is_confirmed(tolerance)
                    || believed.is_some_and(|day| snapshot.arrived.date() <= day);
                Seen { at: if believe { &snapshot.claimed } else { &snapshot.arrived }, snapshot }
            })
            .collect();
        view.sort_by_key(|s| {
            let place = (s.at.timestamp(), s.snapshot.arrived.timestamp(), s.snapshot.seq, s.snapshot.id);
            std::cmp::Reverse(place)
        });
        view
    };
    days.iter().rev().map(|day| view(Some(*day))).chain([view(None)]).collect()
}

/// A slot's name.
#[derive(PartialEq)]
enum Slot {
    Each(usize),
    Hour(Date, i8, Offset),
    Day(Date),
    Week(i16, i8),
    Month(i16, i8),
    Year(i16),
}

impl Slot {
    fn of(seen: &Seen<'_>, unit: Unit) -> Self {
        let at = seen.at;
        match unit {
            Unit::Last => Self::Each(seen.snapshot.index),
            Unit::Hourly => Self::Hour(at.date(), at.hour(), at.offset()),
            Unit::Daily => Self::Day(at.date()),
            Unit::Weekly => {
                let week = at.date().iso_week_date();
                Self::Week(week.year(), week.week())
            }
            Unit::Monthly => Self::Month(at.year(), at.month()),
            Unit::Yearly => Self::Year(at.year()),
        }
    }
}

/// The snapshots that stand for slots, newest first; and whether each is one only for being the oldest of all.
fn representatives<'v>(view: &'v [Seen<'v>], unit: Unit) -> impl Iterator<Item = (Seen<'v>, bool)> {
    let mut last = None;
    view.iter().enumerate().filter_map(move |(i, seen)| {
        let slot = Some(Slot::of(seen, unit));
        let new = slot != last;
        last = slot;
        (new || i + 1 == view.len()).then_some((*seen, !new))
    })
}

/// The newest `of` slots; while there are fewer, the oldest snapshot too.
fn slots(view: &[Seen<'_>], unit: Unit, of: Option<u64>, kept: &mut Vec<(usize, Reason)>) {
    for (nth, (seen, oldest)) in (1..=of.unwrap_or(u64::MAX)).zip(representatives(view, unit)) {
        kept.push((seen.snapshot.index, Reason::Slot { unit, nth, of, oldest }));
    }
}

/// The slots of a window that ends at the newest snapshot; and, to cover it, the newest slot before it.
fn window(view: &[Seen<'_>], unit: Unit, rule: &Rule, kept: &mut Vec<(usize, Reason)>) {
    let (period, covers) = match *rule {
        Rule::Cover(_, period) => (period, true),
        Rule::Within(_, period) => (period, false),
        Rule::Slots(..) => return,
    };
    let Some(start) = view.first().map(|newest| period.before(newest.at)) else { return };
    for (seen, oldest) in representatives(view, unit) {
        let inside = seen.at.timestamp() > start;
        let edge = match (inside, oldest) {
            (true, false) => Edge::Inside,
            (true, true) => Edge::Oldest,
            (false, _) if covers => Edge::Covers,
            (false, _) => return,
        };
        kept.push((seen.snapshot.index, Reason::Window { unit, period, edge }));
        if !inside {
            return;
        }
    }
}

/// The newest of each of the last `of` storage days.
fn arrivals(list: &[Ranked], of: u64, kept: &mut Vec<(usize, Reason)>) {
    let mut order: Vec<&Ranked> = list.iter().collect();
    order.sort_by_key(|s| std::cmp::Reverse((s.arrived.timestamp(), s.seq, s.claimed.timestamp(), s.id)));
    order.dedup_by_key(|s| s.arrived.date());
    for (nth, s) in (1..=of).zip(order) {
        kept.push((s.index, Reason::Arrival { nth, of }));
    }
}
