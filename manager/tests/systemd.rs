//! Calendar expressions are due when `systemd-analyze` of systemd 252 says, in zones that change their clocks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "figures for the ledger")]

use bulla_manager::schedule::{Calendar, Schedule};
use jiff::Zoned;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use std::process::{Command, Output};

/// What systemd says: for each expression the next ten times in UTC, or none where it is no expression.
fn systemd(zone: &str, base: &str, expressions: &[String]) -> Option<Vec<Vec<String>>> {
    let run = |expressions: &[String]| -> Option<Output> {
        let base = format!("--base-time={base}");
        let ran = Command::new("systemd-analyze")
            .args(["calendar", "--iterations=10", &base, "--"])
            .args(expressions)
            .env("TZ", zone)
            .env("LC_ALL", "C")
            .output();
        assert!(ran.is_ok() || std::env::var("CI").as_deref() != Ok("true"), "CI needs systemd-analyze");
        ran.inspect_err(|e| eprintln!("not compared with systemd-analyze: {e}")).ok()
    };
    let ran = run(expressions)?;
    let out = String::from_utf8(ran.stdout).unwrap();
    let found: Vec<Vec<String>> = out
        .split("Normalized form:")
        .skip(1)
        .map(|one| {
            let utc = one.lines().filter_map(|l| l.trim().strip_prefix("(in UTC): "));
            utc.map(str::to_owned).collect()
        })
        .collect();
    assert_eq!(found.len(), expressions.len(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(found)
}

fn ours(zone: &str, base: &str, expression: &str) -> Vec<String> {
    let calendar: Calendar = expression.parse().unwrap_or_else(|e| panic!("{expression}: {e}"));
    let base: Zoned = format!("{}[{zone}]", base.replace(' ', "T")).parse().unwrap();
    let all = std::iter::successors(calendar.next(&base), |at| calendar.next(at)).take(10);
    all.map(|at| at.with_time_zone(TimeZone::UTC).strftime("%a %F %T UTC").to_string()).collect()
}

const BASES: [(&str, &str); 6] = [
    ("Europe/Berlin", "2026-03-28 12:00:00"),
    ("Europe/Berlin", "2026-03-29 00:00:00"),
    ("Europe/Berlin", "2026-10-24 12:00:00"),
    ("Europe/Berlin", "2026-10-25 01:00:00"),
    ("Europe/Berlin", "2027-12-31 23:59:59"),
    ("America/New_York", "2026-10-31 22:00:00"),
];

/// True for what systemd 252 plays wrong or refuses: a step without an end, a list of days from the end.
fn wrong_there(expression: &str) -> bool {
    expression.split([' ', ',', '-', '~', ':']).any(|item| item.contains('/') && !item.contains(".."))
        || expression.split_once('~').is_some_and(|(_, days)| days.split(' ').next().unwrap().contains(','))
}

/// Compares each as it is written for systemd, and as it stands where systemd plays that right; gives how many were.
fn compare(expressions: &[String]) -> usize {
    let in_full = |text: &String| {
        let calendar: Calendar = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
        let zone = calendar.zone().and_then(TimeZone::iana_name).map(|z| format!(" {z}")).unwrap_or_default();
        (text.clone(), calendar.lines().into_iter().map(|line| line + &zone).collect())
    };
    let mut pairs: Vec<(String, Vec<String>)> = expressions.iter().map(in_full).collect();
    let plain = expressions.iter().filter(|e| !wrong_there(e));
    pairs.extend(plain.map(|e| (e.clone(), vec![e.clone()])));
    for (zone, base) in BASES {
        for part in pairs.chunks(20) {
            let lines: Vec<String> = part.iter().flat_map(|(_, lines)| lines.clone()).collect();
            let Some(theirs) = systemd(zone, base, &lines) else { return 0 };
            let mut theirs = theirs.into_iter();
            for (expression, lines) in part {
                let mut all: Vec<String> = theirs.by_ref().take(lines.len()).flatten().collect();
                // By the time after the name of the day.
                all.sort_by(|a, b| a[4..].cmp(&b[4..]));
                all.dedup();
                all.truncate(10);
                let mut ours = ours(zone, base, expression);
                if expression.contains('~') {
                    // Of an hour that comes twice systemd then takes either.
                    let first = |at: &mut String| {
                        for (second, first) in [("10-25 01:", "10-25 00:"), ("11-01 06:", "11-01 05:")] {
                            *at = at.replace(second, first);
                        }
                    };
                    ours.iter_mut().chain(&mut all).for_each(first);
                }
                assert_eq!(ours, all, "{expression} ({lines:?}) from {base} in {zone}");
            }
        }
    }
    pairs.len() * BASES.len()
}

/// What systemd 252 does with steps that have no end: 00:00 is passed over.
#[test]
fn a_step_that_does_not_divide_the_hour_is_due_at_midnight() {
    let base = "2026-11-23 23:50:00";
    assert_eq!(
        ours("UTC", base, "*:0/7")[..3],
        ["Mon 2026-11-23 23:56:00 UTC", "Tue 2026-11-24 00:00:00 UTC", "Tue 2026-11-24 00:07:00 UTC"]
    );
    let lines = "OnCalendar=*:0/7".parse::<Schedule>().unwrap().on_calendar();
    assert_eq!(lines, ["*-*-* *:00,07,14,21,28,35,42,49,56:00"]);
}

const EXPRESSIONS: [&str; 85] = [
    "minutely",
    "hourly",
    "daily",
    "weekly",
    "monthly",
    "quarterly",
    "semiannually",
    "semi-annually",
    "biannually",
    "bi-annually",
    "yearly",
    "annually",
    "anually",
    "Daily UTC",
    "weekly Europe/Berlin",
    "hourly Asia/Kolkata",
    "*-*-*",
    "*-*-* 02:30:00",
    "02:30",
    "*:30",
    "*:0/15",
    "0/2:00",
    "2:0/20:30",
    "*:*",
    "*:*:*",
    "*:*:0/7",
    "00:00:05..20/5",
    "Mon",
    "Mon,",
    "mOnday 12:30",
    "Mon-Fri 12:00",
    "Mon..Fri,Sun 03:00",
    "Sat,Sun *-*-* 02:15",
    "Sun 02:30",
    "Wed..Wed 1:1",
    "Mon..Sun",
    "Thu,Fri 2012-*-1,5 11:12:13",
    "Thu,Fri *-*-1,5 11:12:13",
    "*-*~01",
    "*-*~1",
    "*-*~07/1",
    "Mon *-*~07/1",
    "*-*~01..03",
    "*-02~03 04:05",
    "*-*~28",
    "*-*~9/3 02:10",
    "*-*~01..10/4",
    "*-*~2,28",
    "*~1",
    "12-3",
    "1-2~5",
    "Mon 1-1",
    "*-31",
    "*-02-29",
    "Mon *-02-29",
    "*-02-30",
    "*-1/3-1",
    "*-1..12/5-15 2..3:0,30",
    "*-*-1/10",
    "*-*-5..20/6",
    "*-*-1..31/31",
    "2026-*-* 02:30",
    "2027..2028-10-31 01:30",
    "26-10-25 *:20",
    "99-1-1",
    "70-1-1",
    "2000/5-7-14",
    "2030,2028-1-1",
    "1..2/5:00",
    "12:1..2/5",
    "2,1,1:0",
    "5..5:10",
    "01:02:03/20",
    "01:02 UTC",
    "02:59:59",
    "03:00",
    "01:59:59",
    "*-3,10-25..31 02,03:00",
    "*-3-29 2:*",
    "*-10-25 2:*",
    "02:30 America/New_York",
    "*:15 UTC",
    "23:59:59",
    "00:00",
    "Tue *-*-8..14 02:00 Europe/Berlin",
];

#[test]
fn expressions_are_due_when_systemd_says() {
    let expressions = EXPRESSIONS.map(str::to_owned);
    println!("{} comparisons of ten times each", compare(&expressions));
}

/// What one refuses the other refuses, but for what is left out on purpose.
#[test]
fn what_systemd_refuses_is_refused() {
    for text in [
        "",
        "*",
        "* *",
        "Mon *",
        "5",
        "*:*/5",
        "*-*-* 24:00",
        "*:60",
        "*:0/60",
        "*:59/1",
        "*:0/0",
        "*:*:5..5",
        "*:5..4",
        "Mon..Wed..Fri",
        "Sat..Mon",
        "Mon.Tue",
        "Mon ,Tue",
        "Mon..",
        "Mon,,Tue",
        "Mond 1:0",
        ",Mon",
        "*-*~29",
        "*-*~5..1",
        "*-*~1/1",
        "*-*~2/2",
        "*-*~1..31",
        "*~1-1",
        "*-13-1",
        "*-0-1",
        "*-0",
        "*-32",
        "2025..2020-1-1",
        "1969-1-1",
        "2200-1-1",
        "1-2-3-4",
        "12:00:",
        "12:00:00:00",
        ":00",
        "*-1..",
        "*-1,",
        "1,:00",
        "4294967296-1-1",
        "32768-1-1",
        "12:00 Europe/Nowhere",
        "12:00 europe/berlin",
        "dailyy",
        "2026-01-01T00:00",
        "*-*-* 1:0 x",
        "\u{e9}:00",
        "-1:00",
        "+1:00",
    ] {
        assert!(text.parse::<Calendar>().is_err(), "{text:?}");
        let ran = Command::new("systemd-analyze")
            .args(["calendar", "--", text])
            .env("TZ", "Europe/Berlin")
            .output();
        assert!(ran.is_ok() || std::env::var("CI").as_deref() != Ok("true"), "CI needs systemd-analyze");
        assert!(ran.is_err() || !ran.unwrap().status.success(), "systemd takes {text:?}");
    }
}

fn list(least: u8, most: u8) -> impl Strategy<Value = String> {
    let one = (least..=most).prop_map(|v| v.to_string());
    let range =
        (least..most).prop_flat_map(move |a| (Just(a), a + 1..=most)).prop_map(|(a, b)| format!("{a}..{b}"));
    let stepped = (least..most)
        .prop_flat_map(move |a| (Just(a), 1..=most - a))
        .prop_map(|(a, step)| format!("{a}/{step}"));
    let both = (least..most)
        .prop_flat_map(move |a| (Just(a), a + 1..=most, 1..=most))
        .prop_map(|(a, b, step)| format!("{a}..{b}/{step}"));
    let item = prop_oneof![3 => one, 1 => range, 1 => stepped, 1 => both];
    prop_oneof![1 => Just("*".to_owned()), 2 => prop::collection::vec(item, 1..4).prop_map(|l| l.join(","))]
}

fn expressions() -> impl Strategy<Value = String> {
    let weekdays = prop_oneof![
        3 => Just(""),
        1 => prop::sample::select(vec!["Mon ", "Mon..Fri ", "Sat,Sun ", "tue,Thursday..Sun "]),
    ];
    let date = prop_oneof![
        2 => Just(String::new()),
        3 => (list(1, 12), list(1, 31)).prop_map(|(m, d)| format!("*-{m}-{d} ")),
        1 => (list(1, 12), 1..=28u8, 1..=10u8).prop_map(|(m, d, n)| format!("*-{m}~{d}..{} ", (d + n).min(28).max(d))),
        1 => (list(26, 40), list(1, 12), list(1, 28)).prop_map(|(y, m, d)| format!("{y}-{m}~{d} ")),
    ];
    let hour = prop_oneof![list(0, 23), list(0, 4)];
    let time = (
        hour,
        list(0, 59),
        prop_oneof![3 => Just(String::new()), 1 => list(0, 59).prop_map(|s| format!(":{s}"))],
    );
    let time = time.prop_map(|(h, m, s)| format!("{h}:{m}{s}"));
    let zone = prop_oneof![6 => Just(""), 1 => Just(" UTC"), 1 => Just(" America/New_York")];
    (weekdays, date, time, zone).prop_map(|(w, d, t, z)| format!("{w}{d}{t}{z}"))
}

#[test]
fn any_expression_is_due_when_systemd_says() {
    let mut runner = TestRunner::deterministic();
    let one = |_| expressions().new_tree(&mut runner).unwrap().current();
    let all: Vec<String> = (0..400).map(one).filter(|e| e.parse::<Calendar>().is_ok()).collect();
    assert!(all.len() > 350, "{}", all.len());
    println!("{} comparisons of ten times each", compare(&all));
}
