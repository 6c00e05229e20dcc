//! Values that are written as text: lengths of time, schedules.

use croner::Cron;
use jiff::{Span, SpanRelativeTo, Timestamp, Unit, Zoned};
use std::fmt;
use std::str::FromStr;

/// A length of time, such as `1h15m` or `1d2h`: d, h, m (minutes) and s; a day is 24 hours. Other than retention's periods
/// it is no time of the calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Length {
    seconds: i64,
}

impl Length {
    /// So many seconds.
    pub const fn of_seconds(seconds: i64) -> Self {
        Self { seconds }
    }
    /// In seconds.
    pub fn seconds(self) -> i64 {
        self.seconds
    }
}

impl FromStr for Length {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no length of time like 45m, 1h15m or 1d2h (m: minutes)");
        if !text.starts_with(|c: char| c.is_ascii_digit()) || text.contains(['y', 'o']) {
            return Err(wrong());
        }
        let span: Span = text.parse().map_err(|_| wrong())?;
        let seconds = span.total((Unit::Second, SpanRelativeTo::days_are_24_hours())).map_err(|_| wrong())?;
        if seconds < 1.0 { Err(wrong()) } else { Ok(Self { seconds: seconds as i64 }) }
    }
}

impl fmt::Display for Length {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.seconds;
        for (unit, letter) in [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')] {
            if rest >= unit {
                write!(f, "{}{letter}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

/// When a job is due: five fields of cron. Day of month and day of week are alternatives where both are given, as in
/// every cron.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// Gaps that are looked at: more than a year of days,
const GAPS: usize = 400;
/// and, where they are short, more than a month, so that nights, weekends and holidays of the expression are among them.
const SECONDS: i64 = 40 * 86_400;

impl Schedule {
    /// The first time it is due after a moment; none if it never is again.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(after, false).ok()
    }

    /// The shortest and the longest time from one run to the next, among those of 40 days and at least 400.
    pub fn gaps(&self, after: &Zoned) -> Option<(Length, Length)> {
        let (mut found, mut last, mut seen) = (None, self.next(after)?, 0);
        while seen < GAPS || seconds(&last) - seconds(after) < SECONDS {
            let Some(next) = self.next(&last) else { break };
            seen += 1;
            let gap = Length { seconds: seconds(&next) - seconds(&last) };
            found = Some(
                found.map_or((gap, gap), |(least, most): (Length, Length)| (least.min(gap), most.max(gap))),
            );
            last = next;
        }
        found
    }
}

fn seconds(at: &Zoned) -> i64 {
    Timestamp::as_second(at.timestamp())
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = text.split_whitespace().count();
        let hint =
            "write five fields of cron: minute, hour, day of month, month, day of week, as in \"30 1 * * *\"";
        if text.starts_with("OnCalendar") {
            return Err(format!("OnCalendar expressions are not read yet; {hint}"));
        }
        if fields != 5 {
            return Err(format!("{text:?} has {fields} fields; {hint}"));
        }
        let cron = Cron::from_str(text).map_err(|e| format!("{text:?} is no schedule ({e}); {hint}"))?;
        let start = Timestamp::UNIX_EPOCH.to_zoned(jiff::tz::TimeZone::UTC);
        let schedule = Self { text: text.to_owned(), cron };
        if schedule.next(&start).is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_read_and_written() {
        for (text, seconds) in
            [("45m", 2700), ("1h15m", 4500), ("1d2h", 93_600), ("90s", 90), ("26h", 93_600)]
        {
            let length: Length = text.parse().unwrap();
            assert_eq!(length.seconds(), seconds, "{text}");
            assert_eq!(length.to_string().parse(), Ok(length));
        }
        for text in ["", "1", "0m", "-1h", "1y", "1mo", "soon", "m"] {
            assert!(text.parse::<Length>().unwrap_err().contains("no length of time"), "{text}");
        }
    }

    #[test]
    fn schedules_know_their_gaps() {
        let at: Zoned = "2026-01-01T00:00[Europe/Berlin]".parse().unwrap();
        let gaps = |text: &str| text.parse::<Schedule>().unwrap().gaps(&at).unwrap();
        let hours = |h: i64| Length::of_seconds(h * 3600);
        assert_eq!(gaps("5 * * * *"), (hours(1), hours(1)));
        // A day has 23 or 25 hours twice a year.
        assert_eq!(gaps("30 1 * * *"), (hours(23), hours(25)));
        assert_eq!(gaps("0 3 * * 1"), (hours(167), hours(169)));
        // Friday 17:59 to Monday 9:00.
        assert_eq!(gaps("* 9-17 * * 1-5"), (Length::of_seconds(60), Length::of_seconds(63 * 3600 + 60)));
        for (text, why) in [
            ("* * * *", "4 fields"),
            ("61 * * * *", "no schedule"),
            ("0 0 30 2 *", "never due"),
            ("OnCalendar=daily", "not read yet"),
        ] {
            assert!(text.parse::<Schedule>().unwrap_err().contains(why), "{text}");
        }
    }

    /// A time that a change of the clock skips is due once, as soon as there is one; one that comes twice is due once.
    #[test]
    fn a_change_of_the_clock_is_neither_missed_nor_doubled() {
        let schedule: Schedule = "30 2 * * *".parse().unwrap();
        let due = |from: &str, until: &str| {
            let (mut at, until): (Zoned, Zoned) = (from.parse().unwrap(), until.parse().unwrap());
            let mut out = Vec::new();
            while let Some(next) = schedule.next(&at).filter(|n| *n < until) {
                out.push(next.strftime("%F %H:%M").to_string());
                at = next;
            }
            out
        };
        let spring = due("2026-03-28T12:00[Europe/Berlin]", "2026-03-30T12:00[Europe/Berlin]");
        assert_eq!(spring.len(), 2, "{spring:?}");
        assert!(spring[0].starts_with("2026-03-29 03:"), "{spring:?}");
        let autumn = due("2026-10-24T12:00[Europe/Berlin]", "2026-10-26T12:00[Europe/Berlin]");
        assert_eq!(autumn, ["2026-10-25 02:30", "2026-10-26 02:30"]);
    }
}
