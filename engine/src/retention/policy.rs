//! What is to be kept: the rules, as values.

use super::{GroupBy, Period};
use std::fmt;
use std::str::FromStr;

/// How much of a rule's slots is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The newest so many slots. 0 keeps nothing, as if the rule were not given.
    Count(u64),
    /// All of them.
    Unlimited,
    /// A cover window: every slot until the next newer one is itself this old, so that there is always one at least
    /// this old (once there was).
    Within(Period),
}

impl FromStr for Keep {
    type Err = String;

    /// `7`, `unlimited`, or a duration such as `12m`.
    fn from_str(text: &str) -> Result<Self, String> {
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Count)
                .map_err(|_| format!("{text:?} is more than anyone can count; say unlimited"));
        }
        text.parse().map(Self::Within).map_err(|_| {
            format!(
                "{text:?} is no number, not \"unlimited\", and no duration like 12m or 1y5m7d2h (m: months)"
            )
        })
    }
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Unlimited => f.write_str("unlimited"),
            Self::Within(period) => period.fmt(f),
        }
    }
}

/// What one slot is. Of the snapshots in a slot, the newest stands for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unit {
    /// Each snapshot is its own.
    Last,
    /// An hour of the clock; the two that a change of the clock gives the same name are two.
    Hourly,
    /// A day of the calendar.
    Daily,
    /// A week as ISO 8601 counts them, from Monday.
    Weekly,
    /// A month of the calendar.
    Monthly,
    /// A year of the calendar.
    Yearly,
}

impl Unit {
    /// All, the shortest first.
    pub const ALL: [Self; 6] =
        [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        })
    }
}

/// What is kept. The rules are alternatives: a snapshot that any of them keeps is kept.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// The newest snapshots.
    pub keep_last: Option<Keep>,
    /// The newest of each hour.
    pub keep_hourly: Option<Keep>,
    /// The newest of each day.
    pub keep_daily: Option<Keep>,
    /// The newest of each week.
    pub keep_weekly: Option<Keep>,
    /// The newest of each month.
    pub keep_monthly: Option<Keep>,
    /// The newest of each year.
    pub keep_yearly: Option<Keep>,
    /// All that are not this much older than the newest.
    pub keep_within: Option<Period>,
    /// Of those not this much older than the newest: the newest of each hour.
    pub keep_within_hourly: Option<Period>,
    /// The newest of each day.
    pub keep_within_daily: Option<Period>,
    /// The newest of each week.
    pub keep_within_weekly: Option<Period>,
    /// The newest of each month.
    pub keep_within_monthly: Option<Period>,
    /// The newest of each year.
    pub keep_within_yearly: Option<Period>,
    /// All that have every tag of one of these sets. The empty set is on every snapshot.
    pub keep_tags: Vec<Vec<String>>,
    /// What makes a group; each is ranked alone.
    pub group_by: GroupBy,
    /// Allow that the rules keep nothing of a group.
    pub allow_remove_all: bool,
    /// Believe the dates and the signers that clients claim, whatever the storage says: snapshots rank by the client's
    /// date, those of all signers of a group together, as in restic. Needed where the storage times are worthless (a
    /// repository that was copied file by file); whoever may write can then crowd out what others wrote.
    pub trust_client_times: bool,
}

/// A rule about times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// The newest slots, so many of them (`None`: all).
    Slots(Unit, Option<u64>),
    /// The slots of a window, and the newest one before it.
    Cover(Unit, Period),
    /// The slots of a window.
    Within(Unit, Period),
}

impl Rule {
    pub(super) fn unit(&self) -> Unit {
        match self {
            Self::Slots(unit, _) | Self::Cover(unit, _) | Self::Within(unit, _) => *unit,
        }
    }
}

impl Policy {
    fn keep(&self, unit: Unit) -> (Option<Keep>, Option<Period>) {
        match unit {
            Unit::Last => (self.keep_last, self.keep_within),
            Unit::Hourly => (self.keep_hourly, self.keep_within_hourly),
            Unit::Daily => (self.keep_daily, self.keep_within_daily),
            Unit::Weekly => (self.keep_weekly, self.keep_within_weekly),
            Unit::Monthly => (self.keep_monthly, self.keep_within_monthly),
            Unit::Yearly => (self.keep_yearly, self.keep_within_yearly),
        }
    }

    /// The rules that look at times: all but those about tags.
    pub(super) fn rules(&self) -> Vec<Rule> {
        let mut rules = Vec::new();
        for unit in Unit::ALL {
            let (keep, within) = self.keep(unit);
            rules.extend(match keep {
                None | Some(Keep::Count(0)) => None,
                Some(Keep::Count(n)) => Some(Rule::Slots(unit, Some(n))),
                Some(Keep::Unlimited) => Some(Rule::Slots(unit, None)),
                Some(Keep::Within(period)) => Some(Rule::Cover(unit, period)),
            });
            rules.extend(within.map(|period| Rule::Within(unit, period)));
        }
        rules
    }

    /// True if no rule keeps anything.
    pub fn is_empty(&self) -> bool {
        self.keep_tags.is_empty() && self.rules().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_words_and_durations_are_told_apart() {
        for (text, keep) in [
            ("7", Keep::Count(7)),
            ("0", Keep::Count(0)),
            ("unlimited", Keep::Unlimited),
            ("12m", Keep::Within("12m".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Keep>().unwrap(), keep);
            assert_eq!(keep.to_string(), text);
        }
        for text in ["", "-1", "many", "99999999999999999999", "7days", "0d"] {
            assert!(text.parse::<Keep>().unwrap_err().contains(&format!("{text:?}")), "{text}");
        }
    }

    #[test]
    fn a_rule_that_keeps_nothing_is_none() {
        assert!(Policy::default().is_empty());
        assert!(Policy { keep_daily: Some(Keep::Count(0)), ..Policy::default() }.is_empty());
        for unit in [Keep::Count(1), Keep::Unlimited, Keep::Within("1d".parse().unwrap())] {
            assert!(!Policy { keep_yearly: Some(unit), ..Policy::default() }.is_empty());
        }
        assert!(!Policy { keep_tags: vec![vec!["a".into()]], ..Policy::default() }.is_empty());
        assert!(!Policy { keep_within_weekly: "1d".parse().ok(), ..Policy::default() }.is_empty());
    }
}
