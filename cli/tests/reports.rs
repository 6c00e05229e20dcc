//! Reports on jobs as an administrator reads them: the assessment, and the recovery procedure, whose commands are typed.

use crate::home::{Home, Ran};
use crate::manager::{furnished, json};
use serde_json::Value;
use std::path::Path;

/// What differs from one time to the next, out of a report.
fn plain(home: &Home, text: &str) -> String {
    let text = text.replace(&home.shown("").trim_end_matches('/').to_owned(), "HOME");
    let word = |word: &str| {
        let core = word.trim_end_matches([',', ')', ';']);
        let tail = &word[core.len()..];
        let (open, core) = core.strip_prefix('(').map_or(("", core), |rest| ("(", rest));
        let is = |c: char| c.is_ascii_digit();
        let shown = match core {
            time if time.len() >= 20 && time.ends_with('Z') && time.contains('T') => "TIME".to_owned(),
            age if age.ends_with('s') && age.len() > 1 && age[..age.len() - 1].chars().all(is) => {
                "Ns".to_owned()
            }
            record if record.contains('#') => {
                let (place, rest) = record.split_once('#').unwrap();
                format!("{place}#ID.{}", rest.split_once('.').unwrap().1)
            }
            other => other.to_owned(),
        };
        format!("{open}{shown}{tail}")
    };
    let line = |line: &str| match line.strip_prefix("Current RPO: ") {
        Some(age) if !age.starts_with("no ") => "Current RPO: AGE".to_owned(),
        _ => line.split(' ').map(word).collect::<Vec<_>>().join(" "),
    };
    text.lines().map(line).map(|line| line + "\n").collect()
}

#[test]
fn an_assessment_is_told_as_it_stands_in_the_transcript() {
    let home = furnished();
    let mut told = String::new();
    let mut assess = |title: &str, line: &str, code: i32| {
        let said = home.bulla(&format!("{line} --config jobs.toml")).ends(code);
        told.push_str(&format!("# {title}\n$ bulla {line}\n{}exit {code}\n\n", plain(&home, &said.out)));
    };
    assess("before anything ran", "assess letters", 6);
    home.bulla("run --all --config jobs.toml").ok();
    assess("after a run", "assess letters", 6);
    home.bulla("drill letters --app --from disk --config jobs.toml").ok();
    home.bulla("drill letters --app --from vault --config jobs.toml").ok();
    assess("after drills", "assess letters dump", 6);
    std::fs::rename(home.path("vault"), home.path("away")).unwrap();
    home.bulla("run letters --config jobs.toml").ends(3).says("vault");
    assess("while the vault is away", "assess letters", 3);
    std::fs::rename(home.path("away"), home.path("vault")).unwrap();
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    let text = text.replace("rpo = \"1d2h\"", "rpo = \"1s\"").replace("schedule = \"30 1 * * *\"", "");
    home.write("jobs.toml", text.as_bytes());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let late = home.bulla("assess letters --json --config jobs.toml").ends(7);
    let late = &json(&late.out)["jobs"][0];
    assert_eq!((&late["current_backup"], &late["exit"]), (&"No".into(), &7.into()), "{late}");
    let risks: Vec<&str> =
        late["gaps"].as_array().unwrap().iter().map(|g| g["risk"].as_str().unwrap()).collect();
    assert!(risks.iter().any(|r| r.contains("the configuration has changed since")), "{risks:?}");
    let held = late["rpo_history"]["held_percent"].as_f64().unwrap();
    assert!(held < 100.0 && late["rpo_history"]["worst_seconds"].as_i64().unwrap() >= 2, "{late}");
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/assess.txt");
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&place, &told).unwrap();
    }
    let expected = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(told == expected, "what was told is not what assess.txt says:\n{told}");
}

#[test]
fn state_that_is_lost_changes_no_assessment_and_no_procedure() {
    let home = furnished();
    home.bulla("run --all --config jobs.toml").ok();
    home.bulla("drill letters --app --config jobs.toml").ok();
    let told = || {
        let mut all = json(&home.bulla("assess --config jobs.toml --json").ends(6).out);
        all["generated_at"] = Value::Null;
        for job in all["jobs"].as_array_mut().unwrap() {
            // Nothing else depends on when one asks.
            for name in ["rpo_seconds", "rpo_history"] {
                job[name] = Value::Null;
            }
            for gap in job["gaps"].as_array_mut().unwrap() {
                gap["risk"] = plain(&home, gap["risk"].as_str().unwrap()).into();
            }
        }
        (all.to_string(), home.bulla("runbook letters --config jobs.toml").ok())
    };
    let before = told();
    for dir in [".cache", ".local"] {
        let _ = std::fs::remove_dir_all(home.path(dir));
    }
    assert_eq!(told(), before);
}

/// A job whose names need quoting, and its procedure.
fn odd() -> Home {
    let home = Home::empty();
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out disk.recovery").ok();
    for n in 0..30 {
        home.write(&format!("it's src/$deep/{n}"), format!("letter {n}\n").repeat(40 * n).as_bytes());
    }
    std::fs::hard_link(home.path("it's src/$deep/7"), home.path("it's src/seven")).unwrap();
    std::os::unix::fs::symlink("$deep/7", home.path("it's src/link")).unwrap();
    let jobs = format!(
        r#"
        [destination.disk]
        url = "{0}/disk"
        key = {{ file = "{0}/disk.key" }}
        [job.letters]
        system = "Letters of the house"
        owner = "Sumer"
        source = {{ paths = ["{0}/it's src"] }}
        to = ["disk"]
        schedule = "30 1 * * *"
        drill = {{ command = ["sh", "-c", "test -e \"$BULLA_DRILL_DIR{0}/it's src/$1\"", "sh", "seven"] }}
        "#,
        home.shown("").trim_end_matches('/')
    );
    home.write("jobs.toml", jobs.as_bytes());
    home
}

/// Types the commands of a part of a procedure on a machine that has never seen the backup.
fn typed(home: &Home, part: &str) {
    let lines: Vec<&str> = part.lines().collect();
    let program = Path::new(env!("CARGO_BIN_EXE_bulla")).parent().unwrap().display().to_string();
    for pair in lines.windows(2) {
        let (Some(command), Some(expected)) =
            (pair[0].strip_prefix("      "), pair[1].strip_prefix("   Expected result: "))
        else {
            continue;
        };
        let mut shell = home.command_of("/bin/sh", &["-c", command]);
        shell.env("PATH", format!("{program}:/usr/bin:/bin")).env("HOME", home.path("fresh"));
        let out = Ran::of(shell.output().unwrap()).ok();
        let expected = match command.ends_with("id -u") {
            true => rustix::process::geteuid().as_raw().to_string(),
            false => expected.to_owned(),
        };
        for word in expected.split("; ").filter(|w| !w.starts_with("exit code 0")) {
            match word.split_once(" from snapshot ") {
                // Sizes are shown in units for people, and one file here has two names.
                Some((files, id)) => {
                    assert!(files.starts_with("restored 31 files ("), "{files}");
                    assert!(out.contains("restored 30 files (") && out.contains(id), "{command}: {out}");
                }
                None if word.starts_with("1 snapshot: ") => {
                    for word in word["1 snapshot: ".len()..].split(", ") {
                        assert!(out.contains(word.trim_start_matches("host ")), "{command}: {out}");
                    }
                    assert!(out.ends_with("1 snapshot\n"), "{out}");
                }
                None if word.starts_with("bulla ") => assert!(out.starts_with(word), "{command}: {out}"),
                None => assert_eq!(out.trim_end(), word, "{command}"),
            }
        }
    }
}

fn tree(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            let content = match entry.symlink_metadata().unwrap() {
                m if m.is_dir() => Vec::new(),
                m if m.is_symlink() => {
                    std::fs::read_link(&entry).unwrap().into_os_string().into_encoded_bytes()
                }
                _ => std::fs::read(&entry).unwrap(),
            };
            if entry.is_dir() {
                left.push(entry.clone());
            }
            out.push((entry.display().to_string(), content));
        }
    }
    out.sort();
    out
}

#[test]
fn the_commands_of_a_procedure_bring_the_tree_back_and_undo_it() {
    let home = odd();
    home.bulla("runbook letters --config jobs.toml").ends(6).says("no snapshot of job letters");
    home.bulla("run letters --config jobs.toml").ok();
    let target = home.shown("back here");
    let write = || home.run(&["runbook", "letters", "--config", "jobs.toml", "--target", &target], b"").ok();
    let page = write();
    assert!(
        page.contains("\nLast Tested: never\n") && page.contains("RECOVERY PROCEDURE: Letters of the house")
    );
    assert!(page.contains("Whom to ask: Sumer") && page.contains("proven to read back"), "{page}");
    let before = tree(&home.path("it's src"));
    // A check that finds nothing is none: it is shown a file that has changed.
    let check = page.lines().find(|line| line.contains("--dry-run")).unwrap().trim();
    home.run(&["restore", "-r", "disk", "--key-file", "disk.key", "latest", "--target", &target], b"").ok();
    let file = format!("{target}{}/$deep/9", home.shown("it's src"));
    std::fs::write(&file, std::fs::read(&file).unwrap().to_ascii_uppercase()).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_bulla")).parent().unwrap().display().to_string();
    let mut shell = home.command_of("/bin/sh", &["-c", check]);
    let said = Ran::of(shell.env("PATH", format!("{program}:/usr/bin:/bin")).output().unwrap()).ok();
    assert!(said.lines().count() == 2 && said.contains("$deep/9"), "{said}");
    std::fs::remove_dir_all(&target).unwrap();
    // The server is dead: its files and all it remembered are gone; somebody has put another directory in the place.
    std::fs::remove_dir_all(home.path("it's src")).unwrap();
    home.write("it's src/stranger", b"stranger");
    let (doing, undoing) = page.split_once("Rollback").unwrap();
    assert_eq!(doing.matches("\n      ").count(), 10, "{page}");
    typed(&home, doing);
    assert_eq!(tree(&home.path("it's src")), before);
    typed(&home, undoing);
    assert_eq!(home.read("it's src/stranger"), b"stranger");
    assert!(!home.path("back here").exists() && !home.path("it's src.before-restore").exists());
    // A drill tests it, a change of the configuration makes it another one.
    home.bulla("drill letters --app --config jobs.toml").ok();
    let tested = write();
    assert!(!tested.contains("Last Tested: never"), "{tested}");
    let told = home.bulla("runbook letters --config jobs.toml --json").ok();
    let told = json(&told);
    assert_eq!(told["proven"], true);
    assert!(
        told["steps"][1]["command"].as_str().unwrap().contains("restore") && told["last_tested"].is_string()
    );
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    home.write("jobs.toml", text.replace("owner = \"Sumer\"", "owner = \"Nabu\"").as_bytes());
    let changed = write();
    assert!(changed.contains("Last Tested: never") && changed.contains("Last Updated: since the last run"));
    home.bulla("runbook letters --from nowhere --config jobs.toml").ends(2);
}

#[test]
fn a_list_says_how_far_each_snapshot_is_proven() {
    let home = furnished();
    home.bulla("backup -r disk --key-file disk.key letters").ok();
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --from disk --app --config jobs.toml").ok();
    let levels = |line: &str| -> Vec<u64> {
        let told = json(&home.bulla(line).ok());
        told.as_array().unwrap().iter().map(|s| s["level"].as_u64().unwrap()).collect()
    };
    assert_eq!(levels("snapshots -r disk --key-file disk.key --json"), [0, 2, 4]);
    let list = home.bulla("snapshots -r disk --key-file disk.key").ok();
    assert!(list.lines().next().unwrap().contains("  V  "), "{list}");
    // Without a ledger nothing is proven.
    std::fs::remove_dir_all(home.path("disk/records")).unwrap();
    std::fs::create_dir(home.path("disk/records")).unwrap();
    assert_eq!(levels("snapshots -r disk --key-file disk.key --json"), [0, 0, 0]);
}
