//! Metrics and alerts, judged by promtool.

use crate::home::Home;
use crate::remote::servers::find;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

/// What promtool says, if it is there.
fn promtool(home: &Home, args: &[&str], input: &[u8]) -> Option<(bool, String)> {
    let mut command = Command::new(find("promtool")?);
    command.args(args).current_dir(home.path("")).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
    Some((out.status.success(), text))
}

fn furnished() -> Home {
    let mut home = Home::empty();
    home.set("BULLA_HOST", "db01");
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out disk.recovery").ok();
    home.write("letters/1", b"Dear Sumer,\n");
    let (disk, key, letters, prom) =
        (home.shown("disk"), home.shown("disk.key"), home.shown("letters"), home.shown("bulla.prom"));
    let text = format!(
        r#"
        host = {{ metrics = "{prom}" }}
        [destination.disk]
        url = "{disk}"
        key = {{ file = "{key}" }}
        [destination.away]
        url = "{disk}-away"
        key = {{ file = "{key}" }}
        [job.letters]
        source = {{ paths = ["{letters}"] }}
        to = ["disk"]
        schedule = "30 1 * * *"
        rpo = "1d2h"
        notify = ["check"]
        [job."o\"dd\\ \u00fc"]
        source = {{ paths = ["{letters}"] }}
        to = ["away"]
        [notify.check]
        ping = {{ url = "http://127.0.0.1:1/" }}
        "#
    );
    home.write("jobs.toml", text.as_bytes());
    home
}

/// The value of a sample.
fn sample<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

#[test]
fn metrics_are_written_after_runs_and_drills_and_are_sound() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ends(0);
    let read = || String::from_utf8(home.read("bulla.prom")).unwrap();
    let text = read();
    let of = |name: &str| format!("{name}{{backup_job=\"letters\",host=\"db01\"}}");
    for (name, value) in [
        ("bulla_job_last_exit_code", "0"),
        ("bulla_job_missed", "0"),
        ("bulla_verification_level", "2"),
        ("bulla_copies", "1"),
        ("bulla_hold_active", "0"),
        ("bulla_rpo_objective_seconds", "93600"),
        ("bulla_snapshot_files", "1"),
        ("bulla_snapshot_source_bytes", "12"),
        ("bulla_job_state_code", "6"),
    ] {
        assert_eq!(sample(&text, &of(name)), Some(value), "{name}\n{text}");
    }
    for name in ["bulla_job_last_success_timestamp_seconds", "bulla_job_next_due_timestamp_seconds"] {
        let seconds: i64 = sample(&text, &of(name)).unwrap().parse().unwrap();
        assert!(seconds > 1_700_000_000, "{name} {seconds}");
    }
    assert_eq!(sample(&text, "bulla_destination_readable{dest=\"away\",host=\"db01\"}"), Some("0"));
    assert_eq!(sample(&text, "bulla_notify_waiting_messages{channel=\"check\",host=\"db01\"}"), Some("1"));
    assert_eq!(sample(&text, &of("bulla_drill_last_success_timestamp_seconds")), None, "what is not known");
    assert_eq!(std::fs::metadata(home.path("bulla.prom")).unwrap().permissions().mode() & 0o777, 0o644);
    home.bulla("drill letters --full --config jobs.toml").ends(0);
    assert!(sample(&read(), &of("bulla_drill_last_success_timestamp_seconds")).is_some());
    // A status of some jobs takes no other's place, but for who asks.
    std::fs::remove_file(home.path("bulla.prom")).unwrap();
    home.bulla("status letters --config jobs.toml").ends(0);
    assert!(!home.path("bulla.prom").exists());
    home.bulla("status letters --metrics one.prom --config jobs.toml").ends(0);
    assert!(!String::from_utf8(home.read("one.prom")).unwrap().contains("o\\\"dd"));
    home.bulla("status --config jobs.toml").ends(6);
    assert!(
        read().contains("bulla_job_state_code{backup_job=\"o\\\"dd\\\\ \u{fc}\",host=\"db01\"} 6"),
        "{}",
        read()
    );
    let warned = home.bulla("status letters --metrics no/where.prom --config jobs.toml").ends(0);
    assert!(warned.err.contains("the metrics cannot be written to no/where.prom"), "{}", warned.err);
    let left = std::fs::read_dir(home.path("")).unwrap().map(|e| e.unwrap().file_name());
    assert!(!left.into_iter().any(|n| n.to_string_lossy().starts_with(".bulla-")));
    for name in ["bulla.prom", "one.prom"] {
        let Some((sound, said)) = promtool(&home, &["check", "metrics"], &home.read(name)) else { return };
        assert!(sound && said.is_empty(), "{said}");
    }
}

/// A backup that fails, and a host whose timer is off: the second one has nobody but the clock to say so.
const CASES: &str = r#"
rule_files: [rules/bulla.rules.yml]
evaluation_interval: 1m
tests:
  - interval: 1h
    input_series:
      - series: 'bulla_job_last_exit_code{backup_job="letters",host="db01"}'
        values: '0 0 1 1 0 0'
      - series: 'bulla_job_next_due_timestamp_seconds{backup_job="home",host="db02"}'
        values: '3600+0x10'
      - series: 'bulla_job_missed{backup_job="home",host="db02"}'
        values: '0+0x10'
    alert_rule_test:
      - eval_time: 1h
        alertname: BullaRunFailed
      - eval_time: 3h
        alertname: BullaRunFailed
        exp_alerts:
          - exp_labels: {backup_job: letters, host: db01, severity: critical}
            exp_annotations:
              summary: 'Backup letters of db01 ended with exit code 1'
              description: 'Look at: bulla status letters'
      - eval_time: 5h
        alertname: BullaRunFailed
      - eval_time: 2h
        alertname: BullaRunOverdue
      - eval_time: 4h
        alertname: BullaRunOverdue
        exp_alerts:
          - exp_labels: {backup_job: home, host: db02, severity: critical}
            exp_annotations:
              summary: 'Backup home of db02 did not run when it was due'
              description: 'Is its timer on? systemctl list-timers "bulla-*"; then: bulla run home'
"#;

#[test]
fn alerts_are_sound_and_fire() {
    let home = Home::empty();
    home.bulla("generate alerts rules").ends(0).prints("rules/bulla.rules.yml is written");
    home.write("cases.yml", CASES.as_bytes());
    let Some((sound, said)) = promtool(&home, &["check", "rules", "rules/bulla.rules.yml"], b"") else {
        return;
    };
    assert!(sound && said.contains("SUCCESS: 10 rules found"), "{said}");
    let (passed, said) = promtool(&home, &["test", "rules", "cases.yml"], b"").unwrap();
    assert!(passed, "{said}");
}
