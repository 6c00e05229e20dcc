//! Calendar expressions as in systemd.time(7), read and played like systemd 252 does: the tests ask `systemd-analyze`.
//!
//! They speak of what clocks show. A time that a change of the clock skips is not due on that day; one that comes twice is
//! due the first time (systemd may take the second where days are counted from the end of the month). Left out on purpose, and refused: fractions of seconds, `@SECONDS` (once is no schedule), and
//! zones by abbreviation, which mean something else on each machine. Time goes up to the year 2199, also as in systemd,
//! so a date that never comes (`*-02-30`) ends the search.
//!
//! One thing is as the manual says and not as systemd does: of a step without an end (`*:0/7`, `*-*-1/10`) systemd 252
//! passes over the first one after midnight or New Year, if the step does not divide the hour or the month. [`Calendar`]
//! does not, and is written for systemd with lists instead of steps, which it plays as it should.

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{ToSpan, Zoned};
use std::collections::BTreeSet;
use std::str::FromStr;

/// Values of one part that are due.
type Values = BTreeSet<i16>;

const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const YEARS: (i16, i16) = (1970, 2199);
/// Parts of one list; more is no schedule but a load.
const LIST_MAX: usize = 240;

/// What is due, as a calendar expression says it.
#[derive(Debug, Clone)]
pub struct Calendar {
    /// From Monday, 0.
    weekdays: [bool; 7],
    years: Values,
    months: Values,
    days: Days,
    hours: Values,
    minutes: Values,
    seconds: Values,
    /// Whose clocks, if it says so.
    zone: Option<TimeZone>,
}

#[derive(Debug, Clone)]
enum Days {
    FromStart(Values),
    /// 1 is the last.
    FromEnd(Values),
}

impl Calendar {
    /// The zone it names.
    pub fn zone(&self) -> Option<&TimeZone> {
        self.zone.as_ref()
    }

    /// True if it is due more than once in a minute.
    pub(super) fn within_a_minute(&self) -> bool {
        self.seconds.len() > 1
    }

    /// The last year in which it can be due, if years are named and they end before all do.
    pub(super) fn ends(&self) -> Option<i16> {
        self.years.last().copied().filter(|year| *year < YEARS.1 - 100)
    }

    /// The first moment after `after` at which it is due, in the zone that it names or else in that of `after`.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        let zone = self.zone.as_ref().unwrap_or_else(|| after.time_zone());
        let local = after.with_time_zone(zone.clone()).datetime();
        let due = |at: DateTime| {
            let at = zone.to_ambiguous_zoned(at);
            let skipped = matches!(at.offset(), AmbiguousOffset::Gap { .. });
            at.earlier().ok().filter(|at| !skipped && at > after)
        };
        self.dates(local.date()).find_map(|day| {
            let from = if day == local.date() { local.time() } else { Time::midnight() };
            self.times(from).find_map(|time| due(day.to_datetime(time)))
        })
    }

    /// Expressions that together say the same: with lists instead of ranges, steps and shorthands, without the zone.
    pub fn lines(&self) -> Vec<String> {
        let list = |values: &Values, count: usize| match values.len() {
            n if n == count => "*".to_owned(),
            _ => values.iter().map(|v| format!("{v:02}")).collect::<Vec<_>>().join(","),
        };
        let mut before = String::new();
        if self.weekdays != [true; 7] {
            let names =
                DAYS.iter().zip(self.weekdays).filter(|(_, due)| *due).filter_map(|(name, _)| name.get(..3));
            before = names.collect::<Vec<_>>().join(",") + " ";
        }
        let years = list(&self.years, all(YEARS.0, YEARS.1).len());
        let months = list(&self.months, 12);
        let time =
            format!("{}:{}:{}", list(&self.hours, 24), list(&self.minutes, 60), list(&self.seconds, 60));
        let line = |days: String| format!("{before}{years}-{months}{days} {time}");
        match &self.days {
            Days::FromStart(days) => vec![line(format!("-{}", list(days, 31)))],
            // systemd 252 refuses most lists here.
            Days::FromEnd(days) => days.iter().map(|day| line(format!("~{day:02}"))).collect(),
        }
    }

    /// Days from one on.
    fn dates(&self, from: Date) -> impl Iterator<Item = Date> {
        let months =
            self.years.range(from.year()..).flat_map(|year| self.months.iter().map(move |m| (*year, *m)));
        let months = months.filter_map(|(year, month)| Date::new(year, month as i8, 1).ok());
        let months = months.filter(move |first| first.last_of_month() >= from);
        let days = months.flat_map(|first| {
            let last = i16::from(first.days_in_month());
            let mut days: Vec<i16> = match &self.days {
                Days::FromStart(days) => days.iter().copied().collect(),
                Days::FromEnd(days) => days.iter().rev().map(|day| last - day + 1).collect(),
            };
            days.retain(|day| (1..=last).contains(day));
            days.into_iter().filter_map(move |day| first.checked_add((day - 1).days()).ok())
        });
        days.filter(move |day| *day >= from && self.weekdays[index(day.weekday())])
    }

    /// Times of a day from one on.
    fn times(&self, from: Time) -> impl Iterator<Item = Time> {
        let (hour, minute, second) =
            (i16::from(from.hour()), i16::from(from.minute()), i16::from(from.second()));
        self.hours.range(hour..).flat_map(move |h| {
            let first = if *h == hour { minute } else { 0 };
            self.minutes.range(first..).flat_map(move |m| {
                let first = if (*h, *m) == (hour, minute) { second } else { 0 };
                let seconds = self.seconds.range(first..);
                seconds.filter_map(move |s| Time::new(*h as i8, *m as i8, *s as i8, 0).ok())
            })
        })
    }
}

fn index(day: Weekday) -> usize {
    day.to_monday_zero_offset() as usize
}

impl FromStr for Calendar {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, zone) = split_zone(text)?;
        let text = match spelled_out(text) {
            Some(long) => long,
            None => text,
        };
        if text.is_empty() {
            return Err("an expression is wanted".to_owned());
        }
        let mut reader = Reader { rest: text };
        let weekdays = reader.weekdays()?;
        let (mut years, mut months, mut days) = (Part::Any, Part::Any, Part::Any);
        let mut from_end = false;
        if let Some((list, end)) = reader.date()? {
            from_end = end;
            let mut list = list.into_iter().rev();
            days = list.next().unwrap_or(Part::Any);
            months = list.next().unwrap_or(Part::Any);
            years = list.next().unwrap_or(Part::Any);
        }
        let [hours, minutes, seconds] = reader.time()?;
        let days = match days {
            Part::Any => Days::FromStart(all(1, 31)),
            _ if from_end => Days::FromEnd(days.values("day of month", 1, 28, true)?),
            _ => Days::FromStart(days.values("day of month", 1, 31, false)?),
        };
        Ok(Self {
            weekdays,
            years: years.in_full().values("year", YEARS.0, YEARS.1, false)?,
            months: months.values("month", 1, 12, false)?,
            days,
            hours: hours.values("hour", 0, 23, false)?,
            minutes: minutes.values("minute", 0, 59, false)?,
            seconds: seconds.values("second", 0, 59, false)?,
            zone,
        })
    }
}

fn all(least: i16, most: i16) -> Values {
    (least..=most).collect()
}

/// The shorthands of systemd.time(7).
fn spelled_out(text: &str) -> Option<&'static str> {
    Some(match text.to_ascii_lowercase().as_str() {
        "minutely" => "*-*-* *:*:00",
        "hourly" => "*-*-* *:00:00",
        "daily" => "*-*-* 00:00:00",
        "weekly" => "Mon *-*-* 00:00:00",
        "monthly" => "*-*-01 00:00:00",
        "quarterly" => "*-01,04,07,10-01 00:00:00",
        "semiannually" | "semi-annually" | "biannually" | "bi-annually" => "*-01,07-01 00:00:00",
        "yearly" | "annually" | "anually" => "*-01-01 00:00:00",
        _ => return None,
    })
}

/// Takes a zone off the end.
fn split_zone(text: &str) -> Result<(&str, Option<TimeZone>), String> {
    let Some((rest, last)) = text.rsplit_once(' ') else { return Ok((text, None)) };
    if last.eq_ignore_ascii_case("UTC") {
        return Ok((rest, Some(TimeZone::UTC)));
    }
    if !last.starts_with(|c: char| c.is_ascii_alphabetic()) || weekday(last).is_some() {
        return Ok((text, None));
    }
    // Where files are names, as for systemd, case counts.
    let zone = TimeZone::get(last).ok().filter(|zone| last.contains('/') && zone.iana_name() == Some(last));
    zone.map(|zone| (rest, Some(zone)))
        .ok_or_else(|| format!("no time zone is named {last:?}; say UTC, or one like Europe/Berlin"))
}

/// A day at the beginning of a text, and how long its name is.
fn weekday(text: &str) -> Option<(usize, usize)> {
    let starts = |name: &str| text.get(..name.len()).is_some_and(|t| t.eq_ignore_ascii_case(name));
    DAYS.iter().enumerate().find_map(|(day, name)| {
        let length = [name.len(), 3].into_iter().find(|n| name.get(..*n).is_some_and(starts))?;
        let ends = text.get(length..)?;
        (ends.is_empty() || ends.starts_with(['-', '.', ',', ' '])).then_some((day, length))
    })
}

/// One part between separators.
enum Part {
    /// `*`
    Any,
    /// A list.
    List(Vec<Item>),
}

/// `first`, `first/step`, `first..last` or `first..last/step`.
struct Item {
    first: i16,
    last: Option<i16>,
    step: i16,
    /// The step was written.
    stepped: bool,
}

impl Part {
    fn zero() -> Self {
        Self::List(vec![Item { first: 0, last: None, step: 0, stepped: false }])
    }

    /// Years of two digits: 12 is 2012, 89 is 1989.
    fn in_full(self) -> Self {
        let full = |year: i16| match year {
            0..70 => year + 2000,
            70..100 => year + 1900,
            _ => year,
        };
        match self {
            Self::Any => Self::Any,
            Self::List(items) => Self::List(
                items
                    .into_iter()
                    .map(|i| Item { first: full(i.first), last: i.last.map(full), ..i })
                    .collect(),
            ),
        }
    }

    /// The values; steps without an end go down from the first where days are counted from the end of a month.
    fn values(self, name: &str, least: i16, most: i16, down: bool) -> Result<Values, String> {
        let Self::List(items) = self else { return Ok(all(least, most)) };
        let mut out = Values::new();
        for Item { first, last, step, .. } in items {
            let wrong = |value: i16| format!("no {name} is {value}: there are {least} to {most}");
            let stop = match last {
                Some(last) if last < first => {
                    return Err(format!("the {name}s {first}..{last} go backwards"));
                }
                Some(last) => last,
                None if step == 0 => first,
                None if down => least,
                None => most,
            };
            if let Some(value) = [first, stop].into_iter().find(|v| !(least..=most).contains(v)) {
                return Err(wrong(value));
            }
            if last.is_none() && step > first.abs_diff(stop) as i16 {
                return Err(format!(
                    "{name}s {first}/{step} are never repeated: there are {least} to {most}"
                ));
            }
            let (low, high) = (first.min(stop), first.max(stop));
            let step = usize::try_from(step.max(1)).unwrap_or(1);
            if down && last.is_none() {
                out.extend((low..=high).rev().step_by(step));
            } else {
                out.extend((low..=high).step_by(step));
            }
        }
        Ok(out)
    }
}

/// What is not read yet.
struct Reader<'t> {
    rest: &'t str,
}

impl Reader<'_> {
    fn wrong(&self, wanted: &str) -> String {
        let found = self.rest.chars().take(20).collect::<String>();
        format!("{wanted} is wanted at {found:?}")
    }

    fn eat(&mut self, word: &str) -> bool {
        let rest = self.rest.strip_prefix(word);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// Any day, if none is named. As in systemd a comma may end the list, and `-` stands for `..`.
    fn weekdays(&mut self) -> Result<[bool; 7], String> {
        let mut out = [false; 7];
        let mut from: Option<usize> = None;
        loop {
            let Some((day, length)) = weekday(self.rest) else {
                return if out == [false; 7] { Ok([true; 7]) } else { Err(self.wrong("a day of the week")) };
            };
            self.rest = self.rest.get(length..).unwrap_or_default();
            let first = from.take();
            let start = first.unwrap_or(day);
            if start > day {
                return Err("a range of days of the week goes from Mon to Sun".to_owned());
            }
            out.iter_mut().take(day + 1).skip(start).for_each(|due| *due = true);
            if self.eat("..") || self.eat("-") {
                if first.is_some() {
                    return Err(self.wrong("a comma"));
                }
                from = Some(day);
            } else if !self.eat(",") && !self.rest.is_empty() && !self.rest.starts_with(' ') {
                return Err(self.wrong("a comma, .. or a space"));
            }
            if self.rest.is_empty() || self.rest.starts_with(' ') {
                self.spaces();
                return if from.is_some() { Err(self.wrong("a day of the week")) } else { Ok(out) };
            }
        }
    }

    /// Two or three parts, and whether days are counted from the end of the month; nothing where a time stands.
    fn date(&mut self) -> Result<Option<(Vec<Part>, bool)>, String> {
        let all = self.rest;
        if all.is_empty() {
            return Ok(None);
        }
        let mut parts = vec![self.part()?];
        if self.rest.is_empty() || self.rest.starts_with(':') {
            self.rest = all;
            return Ok(None);
        }
        let mut from_end = false;
        while !self.rest.is_empty() && !self.rest.starts_with(' ') {
            let tilde = self.eat("~");
            // Nothing comes after what is counted from the end.
            if from_end || parts.len() == 3 || (!tilde && !self.eat("-")) {
                return Err(self.wrong("a time"));
            }
            from_end = tilde;
            parts.push(self.part()?);
        }
        if parts.len() < 2 {
            return Err(self.wrong("the rest of a date"));
        }
        self.spaces();
        Ok(Some((parts, from_end)))
    }

    /// Hours, minutes, seconds.
    fn time(&mut self) -> Result<[Part; 3], String> {
        if self.rest.is_empty() {
            return Ok([Part::zero(), Part::zero(), Part::zero()]);
        }
        let hours = self.part()?;
        if !self.eat(":") {
            return Err(self.wrong("a colon"));
        }
        let minutes = self.part()?;
        let seconds = if self.eat(":") { self.part()? } else { Part::zero() };
        let empty = |item: &Item| item.last == Some(item.first) && !item.stepped;
        if matches!(&seconds, Part::List(items) if items.iter().any(empty)) {
            return Err("a range of seconds has more than one".to_owned());
        }
        if self.rest.is_empty() { Ok([hours, minutes, seconds]) } else { Err(self.wrong("the end")) }
    }

    fn part(&mut self) -> Result<Part, String> {
        if self.eat("*") {
            return Ok(Part::Any);
        }
        let mut items = Vec::new();
        loop {
            let first = self.number()?;
            let last = if self.eat("..") { Some(self.number()?) } else { None };
            let step = if self.eat("/") { Some(self.number()?) } else { None };
            if step == Some(0) || items.len() == LIST_MAX {
                return Err(self.wrong("a step of at least one, or a shorter list,"));
            }
            let (stepped, step) = (step.is_some(), step.unwrap_or(i16::from(last.is_some())));
            items.push(Item { first, last, step, stepped });
            if !self.eat(",") {
                return Ok(Part::List(items));
            }
        }
    }

    fn number(&mut self) -> Result<i16, String> {
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at_checked(end).unwrap_or_default();
        let value = digits.parse().map_err(|_| self.wrong("a number"))?;
        self.rest = rest;
        Ok(value)
    }
}
