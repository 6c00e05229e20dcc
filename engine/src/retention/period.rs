//! A length of calendar time, `1y5m7d2h`: the one place where such words are read.

use jiff::{Span, Timestamp, Zoned};
use std::fmt;
use std::str::FromStr;

/// Years, months, weeks, days and hours. Longer than nothing, and never so long that the calendar ends.
///
/// Years to days are calendar arithmetic in a time zone: a month before 31 March is the last day of February, a day
/// before noon is noon, also where the clock was changed in between (a day of 23 or 25 hours). Hours are hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Period {
    years: i32,
    months: i32,
    weeks: i32,
    days: i32,
    hours: i32,
}

/// Enough for everyone, and far within what the calendar can count.
const LARGEST: i32 = 99_999;

impl Period {
    const NOTHING: Self = Self { years: 0, months: 0, weeks: 0, days: 0, hours: 0 };

    /// True if on no day this period reaches back less far than `other`: 12m is as long as 1y, 365d is shorter.
    pub fn covers(&self, other: &Self) -> bool {
        let first = jiff::civil::date(2023, 1, 1);
        // Four years have every length that a month or a year can have, but for 2100.
        (0..1461).filter_map(|day| first.checked_add(Span::new().days(day)).ok()).all(|day| {
            let noon = day.at(12, 0, 0, 0).to_zoned(jiff::tz::TimeZone::UTC);
            noon.is_ok_and(|noon| self.before(&noon) <= other.before(&noon))
        })
    }

    /// How long it is at least, in seconds, whichever months and years it spans.
    pub fn shortest(&self) -> i64 {
        let first = jiff::civil::date(2023, 1, 1);
        let lengths = (0..1461).filter_map(|day| {
            let noon = first.checked_add(Span::new().days(day)).ok()?.at(12, 0, 0, 0);
            let noon = noon.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
            Some(noon.timestamp().as_second() - self.before(&noon).as_second())
        });
        lengths.min().unwrap_or(0)
    }

    /// The instant this long before `end`; the beginning of time if there is none.
    pub fn before(&self, end: &Zoned) -> Timestamp {
        let span = || -> Result<Span, jiff::Error> {
            let span = Span::new().try_years(self.years)?.try_months(self.months)?;
            span.try_weeks(self.weeks)?.try_days(self.days)?.try_hours(self.hours)
        };
        span().and_then(|span| end.checked_sub(span)).map_or(Timestamp::MIN, |z| z.timestamp())
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mistake = |what: &str| format!("{text:?} is not a duration like 1y5m7d2h: {what}");
        let (mut period, mut rest) = (Self::NOTHING, text);
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (number, tail) = rest.split_at(digits);
            let mut letters = tail.chars();
            let place = match letters.next() {
                Some('y') => &mut period.years,
                Some('m') => &mut period.months,
                Some('w') => &mut period.weeks,
                Some('d') => &mut period.days,
                Some('h') => &mut period.hours,
                Some(_) if number.is_empty() => return Err(mistake("a number is expected")),
                _ => return Err(mistake("the letters are y, m (months), w, d, h")),
            };
            if number.is_empty() {
                return Err(mistake("a number is missing"));
            }
            if *place != 0 {
                return Err(mistake("a letter occurs twice"));
            }
            let value = number.parse().ok().filter(|n| *n <= LARGEST);
            *place = value.ok_or_else(|| mistake("it is too long; \"unlimited\" keeps all"))?;
            rest = letters.as_str();
        }
        if period == Self::NOTHING {
            return Err(mistake("it has no length"));
        }
        Ok(period)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(self.years, 'y'), (self.months, 'm'), (self.weeks, 'w'), (self.days, 'd'), (self.hours, 'h')];
        for (n, letter) in parts.into_iter().filter(|(n, _)| *n != 0) {
            write!(f, "{n}{letter}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn before(period: &str, end: &str) -> String {
        let end: Zoned = end.parse().unwrap();
        let at = period.parse::<Period>().unwrap().before(&end);
        at.to_zoned(end.time_zone().clone()).strftime("%Y-%m-%dT%H:%M%:z").to_string()
    }

    #[test]
    fn durations_are_read_and_written() {
        for text in ["1y5m7d2h", "12m", "4w", "36h", "99999d"] {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), text);
        }
        assert_eq!("2h1y".parse::<Period>().unwrap().to_string(), "1y2h");
        for (text, why) in [
            ("", "no length"),
            ("0d", "no length"),
            ("12", "letters are"),
            ("d", "number is missing"),
            ("1d1d", "twice"),
            ("-1d", "number is expected"),
            ("1.5y", "letters are"),
            ("7 d", "letters are"),
            ("30min", "number is expected"),
            ("100000d", "too long"),
            ("99999999999999999999y", "too long"),
            ("1é", "letters are"),
        ] {
            let said = text.parse::<Period>().unwrap_err();
            assert!(said.contains(why) && said.contains(&format!("{text:?}")), "{text}: {said}");
        }
    }

    #[test]
    fn months_are_months_of_the_calendar() {
        assert_eq!(before("1m", "2026-03-31T12:00[Europe/Berlin]"), "2026-02-28T12:00+01:00");
        assert_eq!(before("1y", "2024-02-29T12:00[UTC]"), "2023-02-28T12:00+00:00");
        assert_eq!(before("12m", "2026-03-10T12:00[UTC]"), "2025-03-10T12:00+00:00");
        assert_eq!(before("1m", "2026-04-28T12:00[Europe/Berlin]"), "2026-03-28T12:00+01:00");
    }

    #[test]
    fn days_have_23_or_25_hours_where_the_clock_is_changed() {
        // 29 March 2026 has 23 hours in Berlin, 25 October has 25.
        assert_eq!(before("1d", "2026-03-29T12:00[Europe/Berlin]"), "2026-03-28T12:00+01:00");
        assert_eq!(before("24h", "2026-03-29T12:00[Europe/Berlin]"), "2026-03-28T11:00+01:00");
        assert_eq!(before("1d", "2026-10-25T12:00[Europe/Berlin]"), "2026-10-24T12:00+02:00");
        assert_eq!(before("24h", "2026-10-25T12:00[Europe/Berlin]"), "2026-10-24T13:00+02:00");
        // A day before a time is a time that does not exist: the one after the gap.
        assert_eq!(before("1d", "2026-03-30T02:30[Europe/Berlin]"), "2026-03-29T03:30+02:00");
    }

    #[test]
    fn a_period_covers_what_is_never_longer() {
        let covers = |a: &str, b: &str| a.parse::<Period>().unwrap().covers(&b.parse().unwrap());
        for (long, short) in
            [("12m", "1y"), ("1y", "12m"), ("366d", "1y"), ("1y", "365d"), ("4w", "28d"), ("3m", "89d")]
        {
            assert!(covers(long, short), "{long} {short}");
        }
        for (short, long) in [("365d", "1y"), ("3m", "12m"), ("89d", "3m"), ("27d", "4w"), ("6m", "6y")] {
            assert!(!covers(short, long), "{short} {long}");
        }
    }

    #[test]
    fn before_the_beginning_of_time_is_its_beginning() {
        let end: Zoned = "2026-01-01T00:00[UTC]".parse().unwrap();
        assert_eq!("99999y".parse::<Period>().unwrap().before(&end), Timestamp::MIN);
    }
}
