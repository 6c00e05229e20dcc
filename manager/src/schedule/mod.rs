//! When jobs are due: five fields of cron, or a calendar expression of systemd, told apart by `OnCalendar=`. Whatever is
//! accepted is due some day and goes on being so; every search for the next time ends.

mod calendar;
pub mod units;

pub use calendar::Calendar;

use crate::config::Length;
use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::fmt;
use std::str::FromStr;

/// When a job is due.
///
/// `30 1 * * *` are five fields of cron: minute, hour, day of month, month, day of week. Day of month and day of week are
/// alternatives where both are given, as in every cron.
/// `OnCalendar=Mon..Fri *-*-* 01:30` is read as by systemd.time(7).
///
/// The two differ when clocks are changed. What cron says at a time that is skipped is due as soon as there is one again;
/// what a calendar expression says is not due that day, as in systemd. Of a time that comes twice both take the first; only
/// what cron repeats all through the hours (`*` or a step) goes on in the second hour, too.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Cron(Box<Cron>),
    Calendar(Box<Calendar>),
}

/// What a calendar expression begins with.
const PREFIX: &str = "OnCalendar=";
/// Gaps that are looked at: more than a year of days,
const GAPS: usize = 400;
/// and, where they are short, more than a month, so that nights, weekends and holidays of the expression are among them.
const SECONDS: i64 = 40 * 86_400;

impl Schedule {
    /// The first time it is due after a moment; none if it never is again.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        match &self.kind {
            Kind::Cron(cron) => cron.find_next_occurrence(after, false).ok(),
            Kind::Calendar(calendar) => calendar.next(after),
        }
    }

    /// The shortest and the longest time from one run to the next, among those of 40 days and at least 400.
    pub fn gaps(&self, after: &Zoned) -> Option<(Length, Length)> {
        let (mut found, mut last, mut seen) = (None, self.next(after)?, 0);
        while seen < GAPS || seconds(&last) - seconds(after) < SECONDS {
            let Some(next) = self.next(&last) else { break };
            seen += 1;
            let gap = Length::of_seconds(seconds(&next) - seconds(&last));
            found = Some(
                found.map_or((gap, gap), |(least, most): (Length, Length)| (least.min(gap), most.max(gap))),
            );
            last = next;
        }
        found
    }

    /// The zone that it names itself; without one it speaks of the clocks of whoever asks.
    pub fn zone(&self) -> Option<&TimeZone> {
        match &self.kind {
            Kind::Cron(_) => None,
            Kind::Calendar(calendar) => calendar.zone(),
        }
    }

    /// Calendar expressions that together are due when it is, but for changes of the clock (see [`Schedule`]): in full,
    /// without `OnCalendar=` and without a zone.
    pub fn on_calendar(&self) -> Vec<String> {
        match &self.kind {
            Kind::Cron(cron) => {
                let mut lines = on_calendar(cron);
                // "31st of February, or Mondays": only the second is ever due.
                lines.retain(|line| {
                    line.parse().is_ok_and(|line: Calendar| line.next(&beginning()).is_some())
                });
                lines
            }
            Kind::Calendar(calendar) => calendar.lines(),
        }
    }
}

fn seconds(at: &Zoned) -> i64 {
    Timestamp::as_second(at.timestamp())
}

fn beginning() -> Zoned {
    Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC)
}

/// What stands after the prefix.
fn expression(text: &str) -> Option<&str> {
    text.trim().strip_prefix(PREFIX).map(str::trim)
}

/// Cron's "day of month or day of week" is two expressions.
fn on_calendar(cron: &Cron) -> Vec<String> {
    let pattern = &cron.pattern;
    let list = |values: Vec<u16>, all: usize| match values.len() {
        n if n == all => "*".to_owned(),
        _ => values.iter().map(|v| format!("{v:02}")).collect::<Vec<_>>().join(","),
    };
    let months = list(pattern.months.values(), 12);
    let days = list(pattern.days.values(), 31);
    let time = format!("{}:{}:00", list(pattern.hours.values(), 24), list(pattern.minutes.values(), 60));
    const NAMES: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let names =
        pattern.days_of_week.values().into_iter().filter_map(|day| NAMES.get(usize::from(day)).copied());
    let weekdays = names.collect::<Vec<_>>().join(",");
    let by_day = format!("*-{months}-{days} {time}");
    let by_weekday = format!("{weekdays} *-{months}-* {time}");
    match (pattern.is_dom_wildcard(), pattern.is_dow_wildcard()) {
        (_, true) => vec![by_day],
        (true, false) => vec![by_weekday],
        (false, false) if pattern.matches_dom_and_dow() => vec![format!("{weekdays} {by_day}")],
        (false, false) => vec![by_day, by_weekday],
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, hint) = match expression(text) {
            Some(expression) => {
                let hint = "systemd-analyze calendar explains expressions like \"Mon..Fri *-*-* 01:30\"";
                let wrong = |why: String| format!("{text:?} is no schedule ({why}); {hint}");
                let calendar: Calendar = expression.parse().map_err(wrong)?;
                if calendar.within_a_minute() {
                    return Err(wrong("it is due more than once a minute".to_owned()));
                }
                if let Some(year) = calendar.ends() {
                    return Err(wrong(format!("it ends in {year}, and backups should not")));
                }
                (Kind::Calendar(Box::new(calendar)), hint)
            }
            None => {
                let hint = "write five fields of cron: minute, hour, day of month, month, day of week, as in \
                            \"30 1 * * *\", or OnCalendar= and an expression as for systemd";
                let fields = text.split_whitespace().count();
                if fields != 5 {
                    return Err(format!("{text:?} has {fields} fields; {hint}"));
                }
                let cron =
                    Cron::from_str(text).map_err(|e| format!("{text:?} is no schedule ({e}); {hint}"))?;
                if cron.pattern.days.has_modifiers() || cron.pattern.days_of_week.has_modifiers() {
                    return Err(format!(
                        "{text:?} is no schedule (L, W and # are not cron's); the last day of a month is \
                         OnCalendar=*-*~01, its first Monday OnCalendar=Mon *-*-01..07"
                    ));
                }
                (Kind::Cron(Box::new(cron)), hint)
            }
        };
        let schedule = Self { text: text.to_owned(), kind };
        if schedule.next(&beginning()).is_none() {
            return Err(format!("{text:?} is never due; {hint}"));
        }
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// When something is due that comes seldom: a [`Schedule`], or a word for one.
#[derive(Debug, Clone)]
pub struct Every(pub Schedule);

impl FromStr for Every {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = ["hourly", "daily", "weekly", "monthly", "quarterly", "yearly"];
        if words.contains(&text) {
            return format!("{PREFIX}{text}").parse().map(Self);
        }
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphabetic());
        if plain {
            return Err(format!("{text:?} is none of {}", words.join(", ")));
        }
        text.parse().map(Self)
    }
}

#[cfg(test)]
mod tests;
