//! Numbers and times as people read and type them: `1.3 GiB`, `6m12s`.

use bulla_engine::format::tree::Timestamp;
use bulla_manager::config::Size;
use jiff::tz::TimeZone;
use std::time::Duration;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size: three digits, binary units.
#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    // 1023.95 would be shown as 1024.0
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let unit_name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {unit_name}") }
}

/// A size as typed: `4096`, `10M`, `1.5 GiB` (powers of 1024), `10MB` (powers of 1000).
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    text.parse().map(Size::bytes)
}

/// A share in whole per cent as typed: `3` or `3%`.
pub(crate) fn parse_percent(text: &str) -> Result<u8, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<u8>().ok();
    number.filter(|p| (1..=100).contains(p)).ok_or_else(|| format!("{text:?} is not a share from 1% to 100%"))
}

/// A duration: `0.4s`, `12s`, `6m12s`, `1h03m`, `2d05h`.
pub(crate) fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0..=9 => format!("{}.{}s", s, d.subsec_millis() / 100),
        10..=59 => format!("{s}s"),
        60..=3599 => format!("{}m{:02}s", s / 60, s % 60),
        3600..=86_399 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// The span between two times; zero when the clock went back.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> Duration {
    let nanos = |t: Timestamp| i128::from(t.seconds) * 1_000_000_000 + i128::from(t.nanos);
    let span = u64::try_from((nanos(end) - nanos(start)).max(0)).unwrap_or(u64::MAX);
    Duration::from_nanos(span)
}

/// Local time for people.
pub(crate) fn local_time(t: Timestamp) -> String {
    instant(t).map_or_else(
        || format!("@{}", t.seconds),
        |i| i.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// RFC 3339 in UTC for programs.
pub(crate) fn utc_time(t: Timestamp) -> String {
    instant(t).map_or_else(|| format!("@{}", t.seconds), |i| i.to_string())
}

fn instant(t: Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(t.seconds, i32::try_from(t.nanos).ok()?).ok()
}

/// A time as typed: RFC 3339, or `2006-01-02 15:04:05` in local time; `now` is the caller's.
pub(crate) fn parse_time(text: &str) -> Result<Timestamp, String> {
    let instant = text.parse::<jiff::Timestamp>().or_else(|_| {
        let civil = text.replacen(' ', "T", 1).parse::<jiff::civil::DateTime>()?;
        civil.to_zoned(TimeZone::system()).map(|z| z.timestamp())
    });
    let t =
        instant.map_err(|_| format!("{text:?} is not a time like \"2026-01-31 04:00:00\" or RFC 3339"))?;
    let nanos = i64::from(t.subsec_nanosecond());
    let seconds = t.as_second() + nanos.div_euclid(1_000_000_000);
    Ok(Timestamp { seconds, nanos: u32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0) })
}

/// `1 file`, `2 files`.
pub(crate) fn count(n: u64, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// Type letter and permission bits as `ls -l` has them.
pub(crate) fn permissions(letter: char, mode: u16) -> String {
    let mut out = String::from(letter);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')]
    {
        let bits = mode >> shift;
        out.push(if bits & 4 != 0 { 'r' } else { '-' });
        out.push(if bits & 2 != 0 { 'w' } else { '-' });
        out.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1_395_864_371, "1.3 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(size((1 << 20) - 1), "1.0 MiB");
    }

    #[test]
    fn times_and_modes() {
        assert_eq!(duration(Duration::from_millis(450)), "0.4s");
        assert_eq!(duration(Duration::from_secs(372)), "6m12s");
        assert_eq!(duration(Duration::from_secs(3780)), "1h03m");
        let t = parse_time("2026-01-31T04:00:00.5Z").unwrap();
        assert_eq!(utc_time(t), "2026-01-31T04:00:00.5Z");
        let old = parse_time("1969-12-31T23:59:59.25Z").unwrap();
        assert_eq!(old, Timestamp { seconds: -1, nanos: 250_000_000 });
        assert!(parse_time("2026-01-31 04:00:00").is_ok() && parse_time("yesterday").is_err());
        assert_eq!(permissions('d', 0o1777), "drwxrwxrwt");
        assert_eq!(permissions('-', 0o4644), "-rwSr--r--");
    }
}
