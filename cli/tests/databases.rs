//! The README's recipe for SQLite, with a real sqlite3: backed up, restored, asked; and a database that is damaged or not there.

use crate::home::Home;
use std::process::Command;

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
