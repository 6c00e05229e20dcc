//! Sizes and rates as they are written, in the configuration and on the command line alike: `2GiB`, `500 KB`, `1.5G`, `4096`.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    /// A number with K, M, G, T, P, E or KiB, MiB … (powers of 1024), or KB, MB … (of 1000); without a unit: bytes.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    #[allow(clippy::cast_precision_loss, reason = "fractions are rounded")]
    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a size like 512K, 10M or 1.5GiB");
        let clean = text.trim();
        let end = clean.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(clean.len());
        let (number, unit) = clean.split_at(end);
        let unit = unit.trim().to_ascii_lowercase();
        let power = match unit.chars().next() {
            None | Some('b') => 0,
            Some(c) => 1 + "kmgtpe".find(c).ok_or_else(bad)?,
        };
        let base: u64 = match unit.get(1..).unwrap_or_default() {
            "" | "ib" => 1024,
            "b" => 1000,
            _ => return Err(bad()),
        };
        let factor = base.pow(power as u32);
        if let Ok(whole) = number.parse::<u64>() {
            return whole.checked_mul(factor).map(Self).ok_or_else(bad);
        }
        let value = number.parse::<f64>().map_err(|_| bad())? * factor as f64;
        if (0.0..1.8e19).contains(&value) { Ok(Self(value as u64)) } else { Err(bad()) }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", self.0)
    }
}

/// Bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(NonZeroU64);

impl Rate {
    /// So many bytes a second.
    pub const fn bytes(self) -> NonZeroU64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = String;

    /// A size, with `/s` or without; a bare number counts KiB, as restic's does.
    fn from_str(text: &str) -> Result<Self, String> {
        let size = text.trim().strip_suffix("/s").unwrap_or(text);
        let factor = if size.trim().bytes().all(|b| b.is_ascii_digit()) { 1024 } else { 1 };
        let bytes = size.parse::<Size>()?.bytes().checked_mul(factor).and_then(NonZeroU64::new);
        bytes.map(Self).ok_or_else(|| format!("{text:?} is no rate; leave it out for no limit"))
    }
}

/// How fast a store may be written to and read from, each without a limit if there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// What is written.
    pub upload: Option<Rate>,
    /// What is read.
    pub download: Option<Rate>,
}

impl Limits {
    /// What keeps both: of two limits the lower. Neither place where one is said can lift what the other one asks for.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let lower = |a: Option<Rate>, b: Option<Rate>| a.into_iter().chain(b).min();
        Self { upload: lower(self.upload, other.upload), download: lower(self.download, other.download) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("2GiB", 2 << 30),
            ("500 KB", 500_000),
            ("1B", 1),
            ("5b", 5),
            ("10M", 10 << 20),
            ("1.5 GiB", 3 << 29),
            ("10MB", 10_000_000),
        ] {
            assert_eq!(text.parse::<Size>().map(Size::bytes), Ok(bytes), "{text}");
        }
        for text in ["", "M", "GiB", "1x", "1MMM", "-1", "99999999E", "99999999TiB", "1.2.3", "é"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_a_second_and_bare_numbers_kib() {
        for (text, bytes) in [("200", 200 << 10), ("10MiB", 10 << 20), ("20MiB/s", 20 << 20), ("1B", 1)] {
            assert_eq!(text.parse::<Rate>().map(|r| r.bytes().get()), Ok(bytes), "{text}");
        }
        for text in ["", "0", "0/s", "/s", "fast", "10MiB/h", "18446744073709551615"] {
            assert!(text.parse::<Rate>().is_err(), "{text}");
        }
    }

    #[test]
    fn of_two_limits_the_lower_one_holds() {
        let limits = |up: &str, down: &str| Limits { upload: up.parse().ok(), download: down.parse().ok() };
        assert_eq!(limits("10M", "").and(limits("9M", "7M")), limits("9M", "7M"));
        assert_eq!(limits("10M", "1M").and(limits("", "7M")), limits("10M", "1M"));
        assert_eq!(Limits::default().and(Limits::default()), Limits::default());
    }
}
