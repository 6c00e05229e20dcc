//! What a retention policy promises, and the play that shows whether it keeps its word.

use crate::home::Home;

#[test]
fn windows_keep_their_word_and_counts_do_not() {
    let home = Home::empty();
    let play = |rule: &str| {
        let line = format!(
            "policy simulate --keep-monthly {rule} --years 3 --from 2026-01-01 --timezone UTC --json"
        );
        let out = home.bulla(&line).ok();
        let lines: Vec<serde_json::Value> = out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.iter().filter(|l| l["message_type"] == "day").count(), 1096);
        lines.into_iter().find(|l| l["message_type"] == "rule").unwrap()
    };
    let (count, window) = (play("12"), play("12m"));
    assert_eq!(count["days_short"], count["days_judged"], "{count}");
    assert_eq!(
        (count["shortest_reach_hours"].as_u64().unwrap() / 24, &window["days_short"]),
        (304, &0.into())
    );
    assert!(window["days_judged"].as_u64().unwrap() > 700, "{window}");
}

#[test]
fn a_preset_shorter_than_the_law_names_the_smallest_change() {
    let home = Home::empty();
    let wrong = "--preset logs --compliance pci-dss";
    let fix = "pci-dss wants 12m, and this keeps 3m; the smallest change: monthly = \"12m\"";
    home.bulla(&format!("policy show {wrong}")).ends(2).says(fix).prints("pci-dss: 12m, 3m at hand: NOT MET");
    let years = "--years 2 --from 2026-01-01 --timezone UTC";
    home.bulla(&format!("policy simulate {wrong} {years}")).ends(2).says(fix).prints("SHORT");
    let mended = format!("{wrong} --keep-monthly 12m");
    let shown = home.bulla(&format!("policy show {mended}")).ok();
    assert!(shown.contains("one can always go back: 12m") && shown.contains(": met ("), "{shown}");
    let played = home.bulla(&format!("policy simulate {mended} {years} --size 10G --change 1")).ok();
    assert!(
        !played.contains("SHORT") && played.contains("all, for pci-dss") && played.contains("GiB"),
        "{played}"
    );
    home.bulla("policy show --preset logs --compliance sox,hipaa")
        .ends(2)
        .says("sox wants 7y")
        .says("; hipaa wants 6y");
    home.bulla("policy show --preset log").ends(2).says("databases, vms, config, logs, user-data");
    home.bulla("policy show").ends(2).says("nothing says what to keep");
}

/// The list of a day is that of the same day in the play of all days.
#[test]
fn a_day_can_be_looked_at() {
    let home = Home::empty();
    let line = "policy simulate --preset config --from 2026-01-01 --years 1 --timezone UTC --day 2026-08-20";
    let shown = home.bulla(line).ok();
    let json: serde_json::Value =
        serde_json::from_str(home.bulla(&format!("{line} --json")).ok().lines().next().unwrap()).unwrap();
    let snapshots = json["snapshots"].as_array().unwrap();
    assert!(shown.contains(&format!("{} snapshots at the end of 2026-08-20", snapshots.len())), "{shown}");
    assert_eq!(snapshots.last().unwrap(), "2026-08-20T00:00:00Z");
    home.bulla("policy simulate --preset config --from 2026-01-01 --day 2036-01-01")
        .ends(2)
        .says("not among the days");
}

/// What would take hours is refused before it does.
#[test]
fn a_play_without_end_is_refused() {
    let home = Home::empty();
    let line = "policy simulate --keep-hourly unlimited --runs-a-day 24 --years 100 --from 2026-01-01 --timezone UTC";
    home.bulla(line).ends(2).says("more than 5000 snapshots would be kept on 2026-07-28");
    // Where the calendar ends, so does the play.
    home.bulla("policy simulate --preset logs --from 9999-12-01 --years 100 --timezone UTC").ok();
}
