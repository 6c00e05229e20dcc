//! Values that are written as text: lengths of time.

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
}
