//! Schedules and what they say of themselves; cron against its calendar expressions. `tests/systemd.rs` asks systemd.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::Config;

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
    assert_eq!(gaps("OnCalendar=Mon..Fri 9..17:*"), gaps("* 9-17 * * 1-5"));
    // Not due on the day on which it is skipped.
    assert_eq!(gaps("OnCalendar=02:30"), (hours(24), hours(47)));
    assert_eq!(gaps("OnCalendar=02:30 UTC"), (hours(24), hours(24)));
}

#[test]
fn what_is_no_schedule_says_why() {
    for (text, why) in [
        ("* * * *", "4 fields"),
        ("61 * * * *", "no schedule"),
        ("0 0 30 2 *", "never due"),
        ("0 0 L * *", "OnCalendar=*-*~01"),
        ("0 0 15W * *", "W and # are not cron's"),
        ("0 0 * * 1#1", "first Monday"),
        ("daily", "1 fields"),
        ("OnCalendar=", "an expression is wanted"),
        ("OnCalendar=*-02-30", "never due"),
        ("OnCalendar=*-13-01", "no month is 13: there are 1 to 12"),
        ("OnCalendar=*:*:0/10", "more than once a minute"),
        ("OnCalendar=2027-01-01", "ends in 2027"),
        ("OnCalendar=Sat..Mon 12:00", "from Mon to Sun"),
        ("OnCalendar=12:00 CET", "no time zone is named \"CET\""),
        ("OnCalendar=12:00 europe/berlin", "no time zone"),
        ("OnCalendar=@1800000000", "a number is wanted"),
        ("OnCalendar=12:00:00.5", "the end is wanted at \".5\""),
        ("OnCalendar=12", "a colon"),
    ] {
        let said = text.parse::<Schedule>().unwrap_err();
        assert!(said.contains(why), "{text}: {said}");
    }
}

#[test]
fn cron_is_written_for_systemd_with_what_is_ever_due() {
    let lines = |text: &str| text.parse::<Schedule>().unwrap().on_calendar();
    assert_eq!(lines("*/20 1-2 1 * 5"), ["*-*-01 01,02:00,20,40:00", "Fri *-*-* 01,02:00,20,40:00"]);
    assert_eq!(lines("* * 31 6 0"), ["Sun *-06-* *:*:00"]);
    assert_eq!(lines("OnCalendar=weekly UTC"), ["Mon *-*-* 00:00:00"]);
}

fn due(text: &str, from: &str, until: &str) -> Vec<String> {
    let schedule: Schedule = text.parse().unwrap();
    let (mut at, until): (Zoned, Zoned) = (from.parse().unwrap(), until.parse().unwrap());
    let mut out = Vec::new();
    while let Some(next) = schedule.next(&at).filter(|n| *n < until) {
        out.push(next.strftime("%F %H:%M").to_string());
        at = next;
    }
    out
}

/// With cron a time that a change of the clock skips is due once, as soon as there is one; in systemd it is not due that
/// day. One that comes twice is due once for both.
#[test]
fn a_change_of_the_clock_doubles_nothing_and_skips_only_what_systemd_skips() {
    let spring = ("2026-03-28T12:00[Europe/Berlin]", "2026-03-30T12:00[Europe/Berlin]");
    let autumn = ("2026-10-24T12:00[Europe/Berlin]", "2026-10-26T12:00[Europe/Berlin]");
    let found = due("30 2 * * *", spring.0, spring.1);
    assert_eq!((found.len(), found[0].starts_with("2026-03-29 03:")), (2, true), "{found:?}");
    assert_eq!(due("OnCalendar=02:30", spring.0, spring.1), ["2026-03-30 02:30"]);
    for text in ["30 2 * * *", "OnCalendar=02:30"] {
        assert_eq!(due(text, autumn.0, autumn.1), ["2026-10-25 02:30", "2026-10-26 02:30"]);
    }
}

/// From within the hour that comes a second time systemd may give a time that is over (what it finds is a time of the
/// clock, which it takes for the first of the two); here the next is always later.
#[test]
fn the_next_time_is_later_than_the_last() {
    let twice: Zoned = "2026-10-25T02:15+01:00[Europe/Berlin]".parse().unwrap();
    let next = "OnCalendar=*:30".parse::<Schedule>().unwrap().next(&twice).unwrap();
    assert_eq!(next.to_string(), "2026-10-25T03:30:00+01:00[Europe/Berlin]");
}

fn cron() -> impl Strategy<Value = String> {
    fn field(least: u8, most: u8) -> impl Strategy<Value = String> {
        let one = (least..=most).prop_map(|v| v.to_string());
        let range = (least..most)
            .prop_flat_map(move |a| (Just(a), a + 1..=most))
            .prop_map(|(a, b)| format!("{a}-{b}"));
        let step = (1..=most).prop_map(|s| format!("*/{s}"));
        let item = prop_oneof![2 => one, 1 => range, 1 => step];
        prop_oneof![Just("*".to_owned()), prop::collection::vec(item, 1..4).prop_map(|l| l.join(","))]
    }
    (field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 7))
        .prop_map(|(m, h, d, mo, w)| format!("{m} {h} {d} {mo} {w}"))
}

/// The next times from a moment, without those of the nights in which clocks are changed: there cron and systemd differ.
fn ten(next: impl Fn(&Zoned) -> Option<Zoned>, from: &Zoned) -> Vec<Zoned> {
    let all = std::iter::successors(next(from), |at| next(at));
    let changed = |at: &Zoned| {
        let day = at.start_of_day().unwrap();
        day.hour() != 0 || at.hour() < 4 && day.tomorrow().unwrap().duration_since(&day).as_hours() != 24
    };
    all.filter(|at| !changed(at)).take(10).collect()
}

proptest! {
    #![proptest_config(Config::with_cases(300))]
    #[test]
    fn cron_is_due_when_its_calendar_expressions_are(
        text in cron(),
        start in prop::sample::select(vec!["2026-03-28T22:00", "2026-10-24T22:00", "2027-12-31T23:58"]),
    ) {
        let Ok(schedule) = text.parse::<Schedule>() else { return Ok(()) };
        let from: Zoned = format!("{start}[Europe/Berlin]").parse().unwrap();
        let lines: Vec<Schedule> =
            schedule.on_calendar().iter().map(|l| format!("OnCalendar={l}").parse().unwrap()).collect();
        let by_lines = |at: &Zoned| lines.iter().filter_map(|l| l.next(at)).min();
        prop_assert_eq!(ten(|at| schedule.next(at), &from), ten(by_lines, &from), "{:?}", schedule.on_calendar());
    }

    /// Whatever is written, reading it ends, and what is accepted is due.
    #[test]
    fn no_text_does_harm(text in "(OnCalendar=)?[-0-9*~./,: MonSuTCdaily]{0,40}") {
        if let Ok(schedule) = text.parse::<Schedule>() {
            let from: Zoned = "2026-01-01T00:00[Europe/Berlin]".parse().unwrap();
            prop_assert!(schedule.next(&from).is_some_and(|next| next > from));
            prop_assert_eq!(schedule.to_string(), text);
        }
    }
}
