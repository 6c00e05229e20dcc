//! Jobs as an administrator types them: run, status, drill, waive, and what they end with.

use crate::home::Home;
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Two repositories and a configuration of two jobs.
pub(crate) fn furnished() -> Home {
    let home = Home::empty();
    for name in ["disk", "vault"] {
        let line = format!("init -r {name} --key-file-out {name}.key --recovery-key-out {name}.recovery");
        home.bulla(&line).ok();
    }
    for n in 0..40 {
        home.write(&format!("letters/{n}"), format!("letter {n}\n").repeat(50 * n).as_bytes());
    }
    let at = |name: &str| home.shown(name);
    let place = |name: &str| {
        format!(
            "[destination.{name}]\nurl = \"{}\"\nkey = {{ file = \"{}\" }}\n",
            at(name),
            at(&format!("{name}.key"))
        )
    };
    let jobs = format!(
        r#"
        [retention.few]
        last = 3
        [job.letters]
        class = "important"
        owner = "Sumer"
        rto = "1h"
        rpo = "1d2h"
        source = {{ paths = ["{}"], must_exist = ["{}"] }}
        to = ["disk", "vault"]
        schedule = "30 1 * * *"
        retention = "few"
        drill = {{ command = ["sh", "-c", "grep -rq 'letter 39' . && test ! -e broken"], target = "{}" }}
        [job.dump]
        source = {{ pipeline = [["printf", "PGDMP %s", "rows"], ["sh", "-c", "cat; test ! -e {}"]], as = "db.dump", magic = "PGDMP", min_size = "8B" }}
        to = ["disk"]
        "#,
        at("letters"),
        at("letters/0"),
        at("scratch"),
        at("broken")
    );
    home.write("jobs.toml", format!("{}{}{jobs}", place("disk"), place("vault")).as_bytes());
    home
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let found = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    found.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

pub(crate) fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn a_job_runs_is_proven_and_says_so() {
    let home = furnished();
    home.bulla("config check --config jobs.toml").ok();
    home.bulla("status --config jobs.toml").ends(6).prints("letters has never run");
    let run = home.bulla("run letters --config jobs.toml").ends(0);
    for line in [
        "backup   snapshot ",
        "copy     snapshot ",
        "read back from vault, none bad",
        "letters: ok, next due ",
    ] {
        assert!(run.out.contains(line), "{}", run.out);
    }
    let status = home.bulla("status letters --config jobs.toml --json").ends(6);
    let status = &json(&status.out)["jobs"][0];
    assert_eq!(
        (&status["level"], &status["copies"], &status["state"]),
        (&2.into(), &2.into(), &"unproven".into())
    );
    assert_eq!(status["findings"][0]["fix"], "bulla drill letters --app");
    let sample = home.bulla("drill letters --config jobs.toml --sample 10 --json").ends(0);
    let sample = json(&sample.out);
    let n = sample["files"].as_u64().unwrap();
    // Two halves, and one of each kind.
    assert!((5..=16).contains(&n) && sample["files_all"] == 40, "{sample}");
    assert!(sample["bound95"].as_f64().unwrap() > 0.2, "{sample}");
    // The same seed draws the same files; the copy that was not tried yet is.
    let seed = sample["seed"].as_str().unwrap();
    let again =
        home.bulla(&format!("drill letters --config jobs.toml --sample 10 --seed {seed} --json")).ends(0);
    let again = json(&again.out);
    assert_eq!((&again["files"], &again["bytes"]), (&sample["files"], &sample["bytes"]));
    assert_ne!(again["destination"], sample["destination"]);
    let app = home.bulla("drill letters --config jobs.toml --app").ends(0);
    assert!(
        app.out.contains("0 of 40 wrong: all were compared") && app.out.ends_with("PASS\n"),
        "{}",
        app.out
    );
    assert_eq!(std::fs::read_dir(home.path("scratch")).unwrap().count(), 0, "nothing stays");
    home.bulla("status letters --config jobs.toml").ends(0).prints(" 4  ").prints("ok");
    let history = home.bulla("drill letters --history --config jobs.toml").ok();
    assert_eq!(history.matches("pass").count(), 3, "{history}");
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("job:letters");
}

#[test]
fn a_drill_finds_what_is_wrong_and_status_keeps_saying_so() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --config jobs.toml --full --from vault").ok();
    for pack in files(&home.path("vault/packs")) {
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[1000..20_000].fill(7);
        std::fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&pack, bytes).unwrap();
    }
    let drill = home.bulla("drill letters --config jobs.toml --full --from vault").ends(8);
    assert!(drill.out.contains("WRONG ") && drill.out.ends_with("FAIL\n"), "{}", drill.out);
    home.bulla("status letters --config jobs.toml").ends(8).prints("the last drill from vault failed");
    home.bulla("drill letters --config jobs.toml --full --from disk").ends(0);
    home.bulla("drill nothing --config jobs.toml").ends(2).says("no job is named \"nothing\"");
    home.bulla("drill dump --config jobs.toml --app").ends(2).says("has no drill command");
    home.bulla("drill dump --config jobs.toml").ends(6).says("no snapshot of job dump");
}

#[test]
fn a_dump_that_breaks_off_is_no_backup() {
    let home = furnished();
    home.bulla("run dump --config jobs.toml").ends(0);
    home.write("broken", b"");
    home.bulla("run dump --config jobs.toml").ends(1).says("sh failed").says("nothing was committed");
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("1 snapshot\n");
    home.bulla("status dump --config jobs.toml").ends(1).prints("the last run ended failed");
    std::fs::remove_file(home.path("broken")).unwrap();
    home.bulla("drill dump --config jobs.toml --full").ends(0).prints("0 of 1 wrong");
    let mended = String::from_utf8(home.read("jobs.toml")).unwrap().replace("\"8B\"", "\"1KiB\"");
    home.write("jobs.toml", mended.as_bytes());
    home.bulla("run dump --config jobs.toml").ends(1).says("has to have 1024 at least");
    home.write("jobs.toml", mended.replace("magic = \"PGDMP\"", "magic = \"SQLite\"").as_bytes());
    home.bulla("run dump --config jobs.toml").ends(1).says("begins with \"PGDMP \" instead of \"SQLite\"");
}

#[test]
fn snapshots_of_a_job_go_on_evidence_alone_or_on_a_waiver_that_shows() {
    let home = furnished();
    for n in 0..5 {
        home.write("letters/1", format!("{n}").as_bytes());
        home.bulla("run letters --config jobs.toml").ok();
    }
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("3 snapshots");
    let forget = "forget -r disk --key-file disk.key --keep-last 1";
    home.bulla(forget).ends(5).says("only 1 whole snapshots would stay, and 3 always do");
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("3 snapshots");
    home.bulla("waive letters --config jobs.toml --reason moving").ends(2).says("confirm with --yes");
    home.bulla("waive letters --config jobs.toml --reason moving --for 31d --yes").ends(2);
    home.bulla("waive letters --config jobs.toml --reason moving --for 2d --yes")
        .ends(0)
        .prints("lifted in vault");
    home.bulla("status letters --config jobs.toml").ends(6).prints("rules about letting go are lifted until");
    home.bulla(forget).ok();
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("1 snapshot\n");
    home.bulla("status letters --config jobs.toml --json").ends(6);
}

#[test]
fn what_is_missing_or_in_the_way_is_told_with_its_code() {
    let home = furnished();
    home.bulla("run letters nothing --config jobs.toml").ends(2).says("no job is named \"nothing\"");
    home.bulla("run --config jobs.toml").ends(2);
    std::fs::rename(home.path("vault"), home.path("away")).unwrap();
    home.bulla("run letters --config jobs.toml").ends(3).says("vault");
    home.bulla("status letters --config jobs.toml").ends(6).prints("vault cannot be read");
    std::fs::rename(home.path("away"), home.path("vault")).unwrap();
    let again = home.bulla("run letters --config jobs.toml").ends(0);
    assert!(again.out.contains("copy "), "{}", again.out);
    std::fs::remove_file(home.path("letters/0")).unwrap();
    home.bulla("run letters --config jobs.toml")
        .ends(1)
        .says("is not there: the source is not what it should be");
    for n in 1..40 {
        std::fs::remove_file(home.path(&format!("letters/{n}"))).unwrap();
    }
    home.write("letters/0", b"x");
    // Less than a mebibyte says nothing by its size; none at all does.
    home.bulla("run letters --config jobs.toml").ends(0);
    home.bulla("run --due --config jobs.toml").ends(0).prints("no job is due");
}

#[test]
fn state_that_is_lost_changes_no_report() {
    let home = furnished();
    home.bulla("run --all --config jobs.toml").ok();
    home.bulla("drill letters --config jobs.toml --full").ok();
    let told = || {
        let mut status = json(&home.bulla("status --config jobs.toml --json").ends(6).out);
        status["generated_at"] = Value::Null;
        for job in status["jobs"].as_array_mut().unwrap() {
            job["rpo_seconds"] = Value::Null;
        }
        (status.to_string(), home.bulla("drill letters --history --config jobs.toml --json").ok())
    };
    let before = told();
    for dir in [".cache", ".local"] {
        let _ = std::fs::remove_dir_all(home.path(dir));
    }
    assert_eq!(told(), before);
}

#[test]
fn copies_count_where_they_are_proven_and_fail_apart() {
    let home = furnished();
    home.bulla("compliance --config jobs.toml").ends(6).prints("letters: non-compliant");
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --config jobs.toml --app").ok();
    // All of it is on one disk here, whatever the configuration says.
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    let text = text.replacen(
        "[destination.vault]",
        "[destination.vault]\nsite = \"far\"\nmedia = \"tape\"\nappend_only = true",
        1,
    );
    home.write("jobs.toml", format!("[host]\nsite = \"here\"\n{text}").as_bytes());
    // By this configuration nobody has restored anything yet.
    let changed = home.bulla("compliance letters --config jobs.toml").ends(6);
    assert!(changed.out.contains("NO  0 errors: the configuration has changed"), "{}", changed.out);
    home.bulla("drill letters --config jobs.toml --app").ok();
    let told = home.bulla("compliance letters --config jobs.toml --json").ends(6);
    let told = json(&told.out);
    let marks = told["jobs"][0]["marks"].as_array().unwrap();
    let met: Vec<bool> = marks.iter().map(|m| m["met"].as_bool().unwrap()).collect();
    assert_eq!(met, [false, false, false, false, true], "{told}");
    assert!(
        marks[0]["evidence"].as_str().unwrap().contains("vault fails together with another copy"),
        "{told}"
    );
}
