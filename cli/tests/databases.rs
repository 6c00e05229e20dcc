//! The README's recipes for SQLite, with a real sqlite3: backed up, restored, asked; and a database that is damaged or not there.

use crate::home::{BULLA, Home, Ran};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// What sqlite3 says; `None` where it is not installed.
fn ask(home: &Home, words: &[&str]) -> Option<String> {
    let ran = Command::new("sqlite3").args(words).current_dir(home.path("")).output();
    match ran {
        Ok(ran) => {
            assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
            Some(String::from_utf8(ran.stdout).unwrap())
        }
        Err(e) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "sqlite3 is not installed: {e}");
            println!("sqlite3 is not installed: passed over");
            None
        }
    }
}

/// The lines of a job in the README.
fn recipe(job: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let head = format!("[job.{job}]");
    let lines = readme.lines().skip_while(|line| !line.starts_with(&head)).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[') && !line.starts_with("```"));
    lines.map(|line| format!("{line}\n")).collect()
}

const ROWS: &str = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) \
    INSERT INTO t(what) SELECT hex(randomblob(50)) || char(10) FROM c";
const SUM: &str = "SELECT count(*), min(what), max(what), sum(length(what)) FROM t";

#[test]
fn the_recipe_for_sqlite_brings_back_what_was_there_and_takes_no_half() {
    let home = Home::empty();
    let made = ask(&home, &["app.db", "CREATE TABLE t(id INTEGER PRIMARY KEY, what TEXT)", ROWS]);
    if made.is_none() {
        return;
    }
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out rk").ok();
    let source = recipe("app");
    assert!(source.contains("/srv/app.db") && source.contains("sqlite3"), "{source}");
    let jobs = format!(
        "[destination.disk]\nurl = \"{0}\"\nkey = {{ file = \"{0}.key\" }}\n[job.app]\nto = [\"disk\"]\n{1}",
        home.shown("disk"),
        source.replace("/srv/app.db", &home.shown("app.db"))
    );
    home.write("jobs.toml", jobs.as_bytes());
    home.bulla("run app --config jobs.toml").ok();
    home.bulla("drill app --app --config jobs.toml").ends(0).prints("PASS\n");
    home.bulla("restore -r disk --key-file disk.key latest --target back").ok();
    ask(&home, &["new.db", ".read back/app.sql"]).unwrap();
    assert_eq!(ask(&home, &["new.db", SUM]), ask(&home, &["app.db", SUM]));
    // sqlite3 itself ends with 0 for a dump that breaks off, and for a file that is not there.
    let mut bytes = home.read("app.db");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xff);
    home.write("app.db", &bytes);
    let plain = ask(&home, &["-readonly", "app.db", ".dump"]).unwrap();
    assert!(plain.ends_with("ROLLBACK; -- due to errors\n"), "the test damages nothing that is read");
    home.bulla("run app --config jobs.toml").ends(1).says("awk failed").says("nothing was committed");
    std::fs::remove_file(home.path("app.db")).unwrap();
    home.bulla("run app --config jobs.toml").ends(1).says("nothing was committed");
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("1 snapshot\n");
}

/// A process that has the database open and is in the middle of writing to it.
struct Writer(std::process::Child);

impl Writer {
    fn start(home: &Home) -> Self {
        let mut child = Command::new("sqlite3");
        child.arg("app.db").current_dir(home.path("")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let script = format!("BEGIN;\n{ROWS};\nSELECT 'begun';\n");
        child.stdin.as_mut().unwrap().write_all(script.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "begun\n");
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

#[test]
fn the_recipe_for_sqlite_by_pages_is_of_one_moment_and_takes_no_half() {
    let home = Home::empty();
    let wal = "PRAGMA journal_mode = WAL";
    let made = ask(&home, &["app.db", wal, "CREATE TABLE t(id INTEGER PRIMARY KEY, what TEXT)", ROWS]);
    if made.is_none() {
        return;
    }
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out rk").ok();
    let lines = recipe("pages");
    assert!(lines.contains(".backup") && lines.contains("/srv/app.db"), "{lines}");
    let lines = lines.replace("/srv/app.db", &home.shown("app.db"));
    let lines = lines.replace("/var/lib/bulla/app.db", &home.shown("copy.db"));
    let jobs = format!(
        "[destination.disk]\nurl = \"{0}\"\nkey = {{ file = \"{0}.key\" }}\n[job.pages]\nto = [\"disk\"]\n{lines}",
        home.shown("disk"),
    );
    home.write("jobs.toml", jobs.as_bytes());
    let before = ask(&home, &["app.db", SUM]);
    // What is being written meanwhile is in it whole or not at all.
    let writer = Writer::start(&home);
    home.bulla("run pages --config jobs.toml").ok();
    home.bulla("drill pages --app --config jobs.toml").ends(0).prints("PASS\n");
    drop(writer);
    home.bulla("restore -r disk --key-file disk.key latest --target back").ok();
    let back = home.shown("back") + &home.shown("copy.db");
    assert_eq!(ask(&home, &[&back, SUM]), before);
    // One row more is a few pages more.
    ask(&home, &["app.db", "INSERT INTO t(what) VALUES ('one more')"]).unwrap();
    home.bulla("run pages --config jobs.toml").ok();
    let snapshots = || home.bulla("snapshots -r disk --key-file disk.key").ok();
    assert!(snapshots().ends_with("2 snapshots\n"));
    // The copy breaks off half-way: no file may grow longer than a part of it.
    let run = format!("ulimit -f 800; exec {BULLA} run pages --config jobs.toml");
    let broken = Ran::of(home.command_of("/bin/sh", &["-c", &run]).output().unwrap()).ends(1);
    assert!(broken.err.contains("sqlite3"), "{}", broken.err);
    let length = std::fs::metadata(home.path("copy.db")).map_or(0, |m| m.len());
    assert!(home.read("app.db").len() > 1_000_000, "the limit would not be met: {length}");
    assert!(snapshots().ends_with("2 snapshots\n"), "nothing half was taken");
    home.bulla("status pages --config jobs.toml").ends(1).prints("the last run ended failed");
    home.bulla("run pages --config jobs.toml").ok();
    // A damaged database is copied as it is, and sqlite3 ends with 0; what looks at the copy does not.
    ask(&home, &["app.db", "PRAGMA wal_checkpoint(TRUNCATE)"]).unwrap();
    let mut bytes = home.read("app.db");
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 8192].fill(0xff);
    home.write("app.db", &bytes);
    ask(&home, &["-readonly", "app.db", ".backup 'plain.db'"]).unwrap();
    home.bulla("run pages --config jobs.toml").ends(1).says("sh");
    assert!(snapshots().ends_with("3 snapshots\n"));
}
