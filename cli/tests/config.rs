//! The configuration of jobs: begun, checked, shown; and policies that it names.

use crate::home::Home;
use std::os::unix::fs::PermissionsExt;

const FILE: &str = "etc/config.toml";

/// A configuration of two files that is sound.
fn furnished() -> Home {
    let home = Home::empty();
    home.write("key", b"#\n");
    std::fs::set_permissions(home.path("key"), PermissionsExt::from_mode(0o600)).unwrap();
    let key = home.shown("key");
    home.write(
        FILE,
        format!("[destination.disk]\nurl = \"/mnt/b\"\nkey = {{ file = \"{key}\" }}\n").as_bytes(),
    );
    home.write(
        "etc/conf.d/logs.toml",
        b"[job.logs]\nsource = { paths = [\"/var/log\"] }\nto = [\"disk\"]\nschedule = \"5 0 * * *\"\nretention = \"logs\"\n",
    );
    home
}

#[test]
fn a_configuration_is_begun_checked_and_shown() {
    let home = Home::empty();
    home.bulla("config check --config etc/c.toml").ends(2).says("begin one with: bulla config init");
    assert!(home.bulla("config init --config etc/c.toml").ok().contains("bulla config check"));
    home.bulla("config init --config etc/c.toml").ends(1).says("exists");
    let checked = home.bulla("config check --config etc/c.toml").ok();
    assert!(checked.ends_with("1 job, 1 destination: sound\n") && checked.contains("W-SEC-04"), "{checked}");
    let shown = home.bulla("config show --origin --config etc/c.toml").ok();
    let line = String::from_utf8(home.read("etc/c.toml")).unwrap();
    let line = 1 + line.lines().position(|l| l.starts_with("retention = ")).unwrap();
    assert!(shown.contains(&format!("job.home.retention = \"files\"  # etc/c.toml:{line}\n")), "{shown}");
    // Without --config it is the user's.
    home.write(".config/bulla/config.toml", &home.read("etc/c.toml"));
    home.bulla("config check").ok();
    let schema: serde_json::Value = serde_json::from_str(&home.bulla("config schema").ok()).unwrap();
    assert!(schema["properties"]["job"].is_object());
}

#[test]
fn files_beside_it_belong_to_it_and_all_mistakes_are_told() {
    let home = furnished();
    let check = format!("config check --config {FILE}");
    assert_eq!(home.bulla(&check).ok(), "1 job, 1 destination: sound\n");
    home.write("etc/conf.d/notes.txt", b"no TOML");
    home.write(
        "etc/conf.d/b.toml",
        b"[job.more]\nsource = { paths = [\"/mnt\"] }\nto = [\"disc\", \"disk\"]\n[jop.x]\n",
    );
    let told = home.bulla(&check).ends(2).out;
    for code in ["E-SRC-06", "E-REF-01", "E-KEY-01", "W-SCH-01"] {
        assert!(told.contains(code), "{code}: {told}");
    }
    assert!(told.contains("etc/conf.d/b.toml:3: E-REF-01:") && told.ends_with("3 mistakes\n"), "{told}");
    let json = home.run(&["config", "check", "--json", "--config", FILE], b"").ends(2);
    let json: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((json["sound"].as_bool(), json["mistakes"].as_array().map(Vec::len)), (Some(false), Some(4)));
    home.bulla(&format!("config show --config {FILE}")).ends(2).says("not sound").says("E-REF-01");
}

#[test]
fn secrets_do_not_stand_in_it_nor_lie_open() {
    let home = furnished();
    std::fs::set_permissions(home.path("key"), PermissionsExt::from_mode(0o640)).unwrap();
    home.bulla(&format!("config check --config {FILE}")).ends(2).prints("E-SEC-02").prints("chmod 600");
    home.write("etc/conf.d/c.toml", b"[destination.x]\nurl = \"/x\"\npassword = \"hunter2\"\n");
    for command in ["check", "show"] {
        let ran = home.bulla(&format!("config {command} --config {FILE}")).ends(2);
        assert!(ran.out.contains("E-SEC-01") || ran.err.contains("E-SEC-01"), "{}{}", ran.out, ran.err);
        assert!(!ran.out.contains("hunter2") && !ran.err.contains("hunter2"), "{}{}", ran.out, ran.err);
    }
}

#[test]
fn a_password_in_a_url_is_not_shown_and_what_is_no_text_is_told() {
    let home = furnished();
    let key = home.shown("key");
    let file =
        format!("[destination.r]\nurl = \"rest:https://u:hunter2@h/\"\nkey = {{ file = \"{key}\" }}\n");
    home.write("etc/conf.d/c.toml", file.as_bytes());
    for json in ["", " --json"] {
        let shown = home.bulla(&format!("config show --origin --config {FILE}{json}")).ok();
        assert!(shown.contains("rest:https://u:…@h/") && !shown.contains("hunter2"), "{shown}");
    }
    home.write("etc/conf.d/c.toml", b"\xff");
    home.bulla(&format!("config check --config {FILE}"))
        .ends(2)
        .says("etc/conf.d/c.toml: stream did not contain valid UTF-8");
}

#[test]
fn the_policy_of_a_job_can_be_shown_and_played() {
    let home = furnished();
    let shown = home.bulla(&format!("policy show --job logs --config {FILE}")).ok();
    assert!(shown.contains("one can always go back: 3m"), "{shown}");
    let years = "--years 1 --from 2026-01-01 --timezone UTC";
    home.bulla(&format!("policy simulate --job logs --compliance pci-dss --config {FILE} {years}"))
        .ends(2)
        .says("12m");
    // With a job it is known what is at hand, and where.
    let tape = |media: &str| {
        let text = String::from_utf8(home.read(FILE)).unwrap();
        home.write("tape.toml", format!("{text}media = \"{media}\"\n").as_bytes());
        home.write("conf.d/logs.toml", &home.read("etc/conf.d/logs.toml"));
        format!(
            "policy show --job logs --compliance pci-dss --keep-monthly 12m --config {}",
            home.shown("tape.toml")
        )
    };
    home.bulla(&tape("hdd")).ends(0).prints("pci-dss: 12m, 3m at hand in disk: met");
    home.bulla(&tape("tape")).ends(2).prints("3m at hand: NOT MET").says("name another one in to");
    home.bulla(&format!("policy show --job log --config {FILE}")).ends(2).says("there are logs");
}
