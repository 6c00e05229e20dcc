//! A policy played day by day: which snapshots there will be, how far back each rule reaches, and what they will take.
//!
//! Runs come at even times, each day ends with a forget, as a job would do it. Each rule is also played alone, because a
//! longer one hides what a shorter one does not keep. A rule is judged from the day on which the history is as long as
//! what it says; before that nothing could reach so far.

use super::{place, rules};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{ClientId, RunId};
use bulla_engine::retention::{Candidate, Keep, Period, Policy, Refusal, Unit, plan};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Zoned};
use std::collections::HashSet;
use std::fmt;

/// What is played.
#[derive(Debug, Clone)]
pub struct Play {
    /// The rules.
    pub policy: Policy,
    /// The first day.
    pub from: Date,
    /// How many days.
    pub days: u32,
    /// Runs on each day, at even times from midnight; at least 1.
    pub runs_a_day: u32,
    /// Whose days.
    pub zone: TimeZone,
}

/// More snapshots than this are not played: each day looks at all of them.
const SNAPSHOTS_MAX: usize = 5_000;

/// Why a play ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The engine does not accept the policy.
    Refused(Refusal),
    /// On this day more than five thousand snapshots were kept.
    TooMany(Date),
}

impl From<Refusal> for Stopped {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::TooMany(day) => {
                write!(
                    f,
                    "more than {SNAPSHOTS_MAX} snapshots would be kept on {day}; play fewer years, or runs a day"
                )
            }
        }
    }
}

/// The end of one day, after the forget.
#[derive(Debug, Clone)]
pub struct Day {
    /// The last moment of the day.
    pub end: Zoned,
    /// When each snapshot that is left was made, in seconds since 1970, oldest first.
    pub kept: Vec<i64>,
}

/// How a rule kept its word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// What its slots are; `None` for all rules together against a term they are under.
    pub unit: Option<Unit>,
    /// The rule.
    pub keep: Option<Keep>,
    /// How far back it should reach, as its words sound.
    pub promise: Period,
    /// The shortest reach of all days that were judged, in hours, and on which day.
    pub shortest: Option<(i64, Date)>,
    /// Days on which it was shorter than promised.
    pub short: u32,
    /// Days that were judged.
    pub judged: u32,
}

impl Kept {
    fn new(unit: Option<Unit>, keep: Option<Keep>, promise: Period) -> Self {
        Self { unit, keep, promise, shortest: None, short: 0, judged: 0 }
    }

    /// Takes a day into account.
    fn see(&mut self, day: &Day, first: i64) {
        let start = self.promise.before(&day.end).as_second();
        if first > start {
            return;
        }
        let oldest = day.kept.first().copied().unwrap_or(i64::MAX);
        let hours = (day.end.timestamp().as_second() - oldest).max(0) / 3600;
        self.judged += 1;
        self.short += u32::from(oldest > start);
        if self.shortest.is_none_or(|(least, _)| hours < least) {
            self.shortest = Some((hours, day.end.date()));
        }
    }
}

impl Play {
    /// Plays it, and shows each day.
    pub fn run(&self, mut see: impl FnMut(&Day)) -> Result<(), Stopped> {
        let mut left: Vec<Candidate> = Vec::new();
        let mut made = 0_u64;
        for n in 0..self.days {
            let Some((times, end)) = self.day(n) else { break };
            for time in times {
                left.push(candidate(made, time));
                made += 1;
            }
            let now = Timestamp { seconds: end.timestamp().as_second(), nanos: 0 };
            let plan = plan(&left, &HashSet::new(), &self.policy, now, &self.zone)?;
            let gone: HashSet<RunId> = plan.groups.iter().flat_map(|g| &g.remove).copied().collect();
            left.retain(|c| !gone.contains(&c.id));
            if left.len() > SNAPSHOTS_MAX {
                return Err(Stopped::TooMany(end.date()));
            }
            see(&Day { end, kept: left.iter().map(|c| c.time.seconds).collect() });
        }
        Ok(())
    }

    /// When the runs of a day are, and its last second.
    fn day(&self, n: u32) -> Option<(Vec<i64>, Zoned)> {
        let date = self.from.checked_add(Span::new().try_days(n).ok()?).ok()?;
        let begin = date.to_zoned(self.zone.clone()).ok()?.timestamp().as_second();
        let next = date.tomorrow().ok()?.to_zoned(self.zone.clone()).ok()?.timestamp().as_second();
        let runs = i64::from(self.runs_a_day.max(1));
        let times = (0..runs).map(|run| begin + (next - begin) * run / runs).collect();
        let end = jiff::Timestamp::from_second(next - 1).ok()?.to_zoned(self.zone.clone());
        Some((times, end))
    }

    /// The first run.
    fn first(&self) -> i64 {
        self.day(0).and_then(|(times, _)| times.first().copied()).unwrap_or_default()
    }

    /// Plays each rule alone.
    pub fn each_rule(&self) -> Result<Vec<Kept>, Stopped> {
        let mut out = Vec::new();
        for (unit, keep) in rules(&self.policy) {
            let Some(promise) = promise(unit, keep) else { continue };
            let mut policy = Policy { group_by: self.policy.group_by, ..Policy::default() };
            *place(&mut policy, unit) = Some(keep);
            out.push(Self { policy, ..self.clone() }.judge(Kept::new(Some(unit), Some(keep), promise))?);
        }
        Ok(out)
    }

    /// Plays all rules together against a term.
    pub fn against(&self, term: Period) -> Result<Kept, Stopped> {
        self.judge(Kept::new(None, None, term))
    }

    fn judge(&self, mut kept: Kept) -> Result<Kept, Stopped> {
        let first = self.first();
        self.run(|day| kept.see(day, first))?;
        Ok(kept)
    }
}

/// How far back a rule reaches as its words sound: "monthly 12" sounds like twelve months.
fn promise(unit: Unit, keep: Keep) -> Option<Period> {
    let letter = match unit {
        Unit::Last => return None,
        Unit::Hourly => 'h',
        Unit::Daily => 'd',
        Unit::Weekly => 'w',
        Unit::Monthly => 'm',
        Unit::Yearly => 'y',
    };
    match keep {
        Keep::Count(n) => format!("{n}{letter}").parse().ok(),
        Keep::Within(period) => Some(period),
        Keep::Unlimited => None,
    }
}

fn candidate(n: u64, time: i64) -> Candidate {
    let mut id = [0; 16];
    if let Some(tail) = id.get_mut(8..) {
        tail.copy_from_slice(&n.to_be_bytes());
    }
    Candidate {
        id: RunId::new(id),
        time: Timestamp { seconds: time, nanos: 0 },
        received: Some(time),
        client: ClientId::new([0; 16]),
        seq: n,
        prev: Vec::new(),
        host: String::new(),
        paths: Vec::new(),
        tags: Vec::new(),
    }
}

/// An estimate of what snapshots take together, where `size` bytes are backed up and each day the share `change` of them
/// (0 to 1) is written anew, anywhere: one whole snapshot, and of each other what was written since the one before.
/// Compression and overhead are left out.
pub fn stored(kept: &[i64], size: u64, change: f64) -> u64 {
    let gaps = kept.windows(2).map(|w| match w {
        [a, b] => (b - a) as f64 / 86_400.0,
        _ => 0.0,
    });
    let whole = if kept.is_empty() { 0.0 } else { 1.0 };
    let parts: f64 = gaps.map(|days| 1.0 - (1.0 - change.clamp(0.0, 1.0)).powf(days)).sum();
    (size as f64 * (whole + parts)) as u64
}

#[cfg(test)]
mod tests {
    use super::super::{Compliance, Preset};
    use super::*;

    fn play(policy: Policy, years: u32, runs_a_day: u32) -> Play {
        let from = "2026-01-01".parse().unwrap();
        Play { policy, from, days: 365 * years + years / 4, runs_a_day, zone: TimeZone::UTC }
    }

    #[test]
    fn no_preset_falls_short_on_any_day() {
        for preset in Preset::ALL {
            let hourly = if preset == Preset::Databases { 24 } else { 1 };
            for kept in play(preset.policy(), 9, hourly).each_rule().unwrap() {
                assert!(kept.judged > 365 && kept.short == 0, "{preset}: {kept:?}");
            }
        }
    }

    /// The figures with which counts fall short, as the design has them from another program: 304 to 337 days for twelve
    /// months.
    #[test]
    fn counts_fall_short_on_every_day() {
        let policy = Policy { keep_monthly: Some(Keep::Count(12)), ..Policy::default() };
        let kept = play(policy, 4, 1).each_rule().unwrap().remove(0);
        assert_eq!(kept.short, kept.judged, "{kept:?}");
        let days = kept.shortest.unwrap().0 / 24;
        assert!((304..=307).contains(&days), "{kept:?}");
    }

    #[test]
    fn a_preset_under_a_longer_term_is_short_until_it_is_mended() {
        let policy = Preset::Logs.policy();
        let short = Compliance::PciDss.shortfall(&policy).unwrap();
        let kept = play(policy.clone(), 3, 1).against(short.min).unwrap();
        assert!(kept.judged > 700 && kept.short == kept.judged, "{kept:?}");
        let kept = play(short.mended(&policy), 3, 1).against(short.min).unwrap();
        assert!(kept.judged > 700 && kept.short == 0, "{kept:?}");
    }

    /// Once they are as old as they get.
    #[test]
    fn presets_keep_about_so_many() {
        for (preset, runs, range) in [
            (Preset::Databases, 24, 52..=55),
            (Preset::Vms, 1, 17..=19),
            (Preset::Config, 1, 42..=43),
            (Preset::Logs, 1, 14..=16),
            (Preset::UserData, 1, 38..=42),
        ] {
            let (mut least, mut most, mut day) = (usize::MAX, 0, 0);
            play(preset.policy(), 10, runs)
                .run(|d| {
                    day += 1;
                    if day > 9 * 365 {
                        (least, most) = (least.min(d.kept.len()), most.max(d.kept.len()));
                    }
                })
                .unwrap();
            assert!(range.contains(&least) && range.contains(&most), "{preset}: {least} to {most}");
        }
    }

    #[test]
    fn what_is_stored_grows_with_what_is_written() {
        const DAY: i64 = 86_400;
        assert_eq!(stored(&[], 1000, 0.5), 0);
        assert_eq!(stored(&[0, DAY, 2 * DAY], 1000, 0.0), 1000);
        assert_eq!(stored(&[0, DAY], 1000, 0.1), 1100);
        assert_eq!(stored(&[0, DAY, 3 * DAY], 1000, 0.5), 1000 + 500 + 750);
    }

    #[test]
    fn runs_are_even_also_on_a_day_of_23_hours() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let from = "2026-03-29".parse().unwrap();
        let play = Play { policy: Preset::Databases.policy(), from, days: 1, runs_a_day: 23, zone };
        let (times, end) = play.day(0).unwrap();
        assert!(times.windows(2).all(|w| w[1] - w[0] == 3600), "{times:?}");
        assert_eq!(end.strftime("%F %T").to_string(), "2026-03-29 23:59:59");
    }
}
