//! Dumps of a real PostgreSQL that truly end half-way: the server ends the session, or a reader goes away. Neither is a backup.

use super::postgres::{Postgres, toml};
use super::world::Machine;
use bulla_engine::backend::Memory;
use bulla_manager::outcome::Outcome;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn config(pipeline: &str) -> String {
    format!(
        r#"
        [destination.disk]
        url = "/mnt/disk"
        key = {{ file = "/k" }}
        [job.billing]
        source = {{ pipeline = [{pipeline}], as = "billing.sql", magic = "--", min_size = "1KiB" }}
        to = ["disk"]
        schedule = "30 1 * * *"
        "#
    )
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(120);
    while !done() {
        assert!(Instant::now() < until, "{what} did not come");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reads a little, then waits for a sign before it reads on: the dump stands in the middle of its output meanwhile.
fn slow(dir: &Path) -> String {
    let (begun, go) = (dir.join("begun"), dir.join("go"));
    let script = format!(
        "head -c 65536; touch {}; n=0; until test -e {} || test $n -gt 1200; do sleep 0.1; n=$((n+1)); done; cat",
        begun.display(),
        go.display()
    );
    toml(&["sh".into(), "-c".into(), script])
}

#[test]
fn a_dump_that_dies_half_way_leaves_no_snapshot() {
    let Some(server) = Postgres::start() else { return };
    server.sql("billing", "CREATE TABLE invoices (id int, what text)");
    let rows = "SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 100000) n";
    server.sql("billing", &format!("INSERT INTO invoices {rows}"));
    let dir = tempfile::tempdir().unwrap();
    let dump = toml(&[server.words("pg_dump"), ["-d", "billing"].map(str::to_owned).to_vec()].concat());
    let text = config(&format!("{dump}, {}", slow(dir.path())));
    let mut m = Machine::new(&text, 1_900_000_000, vec![("disk", Arc::new(Memory::new()))]);
    let report = std::thread::scope(|scope| {
        let run = scope.spawn(|| m.run("billing"));
        wait_for("the dump", || dir.path().join("begun").exists());
        let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'pg_dump'";
        assert_eq!(server.sql("billing", end), "1", "it is in the middle of its output");
        let left = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pg_dump'";
        wait_for("the end of the session", || server.sql("billing", left) == "0");
        std::fs::write(dir.path().join("go"), b"").unwrap();
        run.join().unwrap()
    });
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(report.troubles[0].1.why.contains("pg_dump failed"), "{report:?}");
    let snapshots = |m: &Machine| m.repository("disk").snapshots().unwrap().len();
    assert_eq!(snapshots(&m), 0, "not of what came before it died either");
    // The same with a reader that goes away in the middle, and ends well itself.
    m.configure(&config(&format!("{dump}, [\"head\", \"-c\", \"100000\"]")));
    let report = m.run("billing");
    assert_eq!((report.outcome, snapshots(&m)), (Outcome::Failed, 0), "{report:?}");
    // Nobody disturbs it: then it is one.
    m.configure(&text);
    let report = m.run("billing");
    assert_eq!((report.outcome, snapshots(&m)), (Outcome::Done, 1), "{report:?}");
    assert!(report.run.bytes > 20 << 20, "{report:?}");
}
