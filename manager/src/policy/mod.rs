//! Retention as promises: presets by kind of data, minimum terms of the law, and what a policy reaches.
//!
//! A *reach* is how far back one can always go. Only a window promises one: it keeps a slot until the next newer one is
//! itself as old as the window ([`bulla_engine::retention`]). "The newest 12 months" are this month and eleven others, and
//! fall short of twelve months on every day; [`simulate`] shows by how much.

mod compliance;
mod preset;
pub mod simulate;

pub use compliance::{Compliance, Short};
pub use preset::Preset;

use bulla_engine::retention::{Keep, Period, Policy, Unit};
use std::fmt;

/// How far back a policy promises that one can go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// No rule promises a time.
    Nothing,
    /// This far, on every day.
    Window(Period),
    /// To the first backup.
    Unlimited,
}

impl Reach {
    /// Of a policy: that of its longest window.
    pub fn of(policy: &Policy) -> Self {
        let longer = |longest, own| match (longest, own) {
            (Self::Unlimited, _) | (_, Self::Nothing) => longest,
            (Self::Window(a), Self::Window(b)) if a.covers(&b) => longest,
            _ => own,
        };
        rules(policy).into_iter().map(|(_, keep)| Self::of_rule(keep)).fold(Self::Nothing, longer)
    }

    /// Of one rule.
    pub fn of_rule(keep: Keep) -> Self {
        match keep {
            Keep::Count(_) => Self::Nothing,
            Keep::Within(period) => Self::Window(period),
            Keep::Unlimited => Self::Unlimited,
        }
    }

    /// True if it is at least this long on every day.
    pub fn covers(&self, period: &Period) -> bool {
        match self {
            Self::Nothing => false,
            Self::Window(own) => own.covers(period),
            Self::Unlimited => true,
        }
    }
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("no time at all"),
            Self::Window(period) => period.fmt(f),
            Self::Unlimited => f.write_str("unlimited"),
        }
    }
}

/// The rules of a policy that count slots or cover a window, the shortest slots first. `keep_within…` and tags promise no
/// reach and are left out.
pub fn rules(policy: &Policy) -> Vec<(Unit, Keep)> {
    let mut policy = policy.clone();
    let keep = |unit| place(&mut policy, unit).filter(|k| *k != Keep::Count(0)).map(|k| (unit, k));
    Unit::ALL.into_iter().filter_map(keep).collect()
}

/// Where a policy has the rule of a unit.
pub fn place(policy: &mut Policy, unit: Unit) -> &mut Option<Keep> {
    match unit {
        Unit::Last => &mut policy.keep_last,
        Unit::Hourly => &mut policy.keep_hourly,
        Unit::Daily => &mut policy.keep_daily,
        Unit::Weekly => &mut policy.keep_weekly,
        Unit::Monthly => &mut policy.keep_monthly,
        Unit::Yearly => &mut policy.keep_yearly,
    }
}

/// The longest that a slot of a rule can be, in hours, and so the gaps between two: days of 25 hours, months of 31 days.
pub(crate) fn slot_hours(unit: Unit) -> Option<i64> {
    Some(match unit {
        Unit::Last => return None,
        Unit::Hourly => 1,
        Unit::Daily => 25,
        Unit::Weekly => 7 * 24 + 1,
        Unit::Monthly => 31 * 24 + 1,
        Unit::Yearly => 366 * 24 + 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_window_is_the_reach_and_counts_have_none() {
        let reach = |rules: &[(Unit, &str)]| {
            let mut policy = Policy::default();
            rules.iter().for_each(|(unit, keep)| *place(&mut policy, *unit) = keep.parse().ok());
            Reach::of(&policy).to_string()
        };
        assert_eq!(reach(&[]), "no time at all");
        assert_eq!(reach(&[(Unit::Daily, "7"), (Unit::Monthly, "12")]), "no time at all");
        assert_eq!(reach(&[(Unit::Daily, "30d"), (Unit::Weekly, "4w"), (Unit::Monthly, "12")]), "30d");
        assert_eq!(
            reach(&[(Unit::Daily, "7d"), (Unit::Monthly, "unlimited"), (Unit::Yearly, "7y")]),
            "unlimited"
        );
    }
}
