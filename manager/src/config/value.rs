//! Values that are written as text: lengths of time, and how long is waited.

use jiff::{Span, SpanRelativeTo, Unit};
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

/// How long is waited before something is tried again: `2m..20m`, from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    least: Length,
    most: Length,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { least: Length::of_seconds(120), most: Length::of_seconds(1200) }
    }
}

impl Backoff {
    /// How many seconds to wait after so many attempts. The bound grows threefold each time; below it chance decides, from 0
    /// (the least) to `u64::MAX`, so that machines that failed together do not come back together.
    pub fn seconds(self, attempts: u32, chance: u64) -> u64 {
        let [least, most] = [self.least, self.most].map(|length| length.seconds().unsigned_abs());
        let bound = least.saturating_mul(3u64.saturating_pow(attempts)).min(most);
        least + chance % (bound - least + 1)
    }
}

impl FromStr for Backoff {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let (least, most): (Length, Length) = (least.trim().parse()?, most.trim().parse()?);
        if most < least || most.seconds() > 86_400 {
            return Err(format!("{text:?} is no range like 2m..20m, of a day at most"));
        }
        Ok(Self { least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_grows_and_stays_within_its_range() {
        let backoff: Backoff = "2m..20m".parse().unwrap();
        assert_eq!(backoff, Backoff::default());
        for (attempts, most) in [(1, 360), (2, 1080), (3, 1200), (40, 1200)] {
            let waits: Vec<u64> = (0..2000).map(|n| backoff.seconds(attempts, n)).collect();
            assert_eq!((waits.iter().min(), waits.iter().max()), (Some(&120), Some(&most)), "{attempts}");
        }
        assert_eq!("30s".parse::<Backoff>().unwrap().seconds(5, u64::MAX), 30);
        for text in ["", "..", "2m..", "20m..2m", "1h..2d", "soon"] {
            assert!(text.parse::<Backoff>().is_err(), "{text}");
        }
    }

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
}
