//! Commands around a backup: when they run, what they know, and what becomes of the run when they fail.

use super::world::Machine;
use crate::support::noise;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::format::Area;
use bulla_manager::outcome::Outcome;
use bulla_manager::run::Report;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const BEGIN: i64 = 1_900_000_000;

/// A job whose hooks write down that they ran, and what they knew.
struct Hooked {
    m: Machine,
    dir: tempfile::TempDir,
    store: Arc<Memory>,
}

/// Writes a line into the log.
const SAYS: &str = "echo $BULLA_HOOK $BULLA_JOB $BULLA_HOST ${BULLA_EXIT-none} ${BULLA_SNAPSHOT-none} >> log";

impl Hooked {
    /// `hooks` are moments, scripts (after writing the line) and other keys.
    fn new(hooks: &[(&str, &str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("src")).unwrap();
        std::fs::write(dir.path().join("src/letters"), noise("letters", 100_000)).unwrap();
        let hook = |(at, script, keys): &(&str, &str, &str)| {
            let script = format!("cd {}; {SAYS}; {script}", dir.path().display());
            format!("{{ at = \"{at}\", command = [\"sh\", \"-c\", {script:?}]{keys} }}")
        };
        let hooks: Vec<String> = hooks.iter().map(hook).collect();
        let text = format!(
            "[destination.disk]\nurl = \"/mnt/disk\"\nkey = {{ file = \"/k\" }}\n[job.home]\nsource = {{ paths = [\"{}/src\"] }}\n\
             to = [\"disk\"]\nhooks = [{}]\n",
            dir.path().display(),
            hooks.join(", ")
        );
        let store = Arc::new(Memory::new());
        let m = Machine::new(&text, BEGIN, vec![("disk", store.clone() as Arc<dyn Backend>)]);
        Self { m, dir, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Runs it; what the hooks wrote down.
    fn run(&self) -> (Report, Vec<String>) {
        let _ = std::fs::remove_file(self.path("log"));
        let report = self.m.run("home");
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        (report, log.lines().map(str::to_owned).collect())
    }

    /// The run is on record with this outcome, and something is said of each copy.
    fn recorded(&self, outcome: Outcome, said: &str) {
        let records = self.m.repository("disk").ledger().unwrap().records;
        let run = records.iter().rev().find_map(|r| match &r.fact {
            bulla_engine::format::ledger::Fact::Run(run) => Some(run),
            _ => None,
        });
        let run = run.expect("the run is on record");
        assert_eq!(Outcome::of(run.outcome), outcome, "{run:?}");
        assert!(run.copies[0].reason.contains(said), "{run:?}");
    }
}

const ALL: [(&str, &str, &str); 4] =
    [("before", "", ""), ("after", "", ""), ("on_fail", "", ""), ("finally", "", "")];

#[test]
fn hooks_run_in_their_turn_and_know_what_they_have_to() {
    let job = Hooked::new(&ALL);
    let (report, log) = job.run();
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    let id = report.run.copies[0].snapshot.unwrap();
    assert_eq!(
        log,
        [
            "before home db01 none none".to_owned(),
            format!("after home db01 0 {id}"),
            format!("finally home db01 0 {id}")
        ]
    );
    // The source is not there: nothing was backed up, and what before did is undone.
    std::fs::remove_dir_all(job.path("src")).unwrap();
    let (report, log) = job.run();
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(log, ["before home db01 none none", "on_fail home db01 1 none", "finally home db01 1 none"]);
    job.recorded(Outcome::Failed, "nothing of the source is there");
}

#[test]
fn a_hook_that_must_not_fail_keeps_the_source_from_being_read() {
    let mut hooks = ALL.to_vec();
    hooks[0].1 = "printf 'no\\033 room' >&2; exit 3";
    let job = Hooked::new(&hooks);
    let (report, log) = job.run();
    assert_eq!(report.outcome, Outcome::Failed);
    assert_eq!(log, ["before home db01 none none", "on_fail home db01 1 none", "finally home db01 1 none"]);
    let said = "the hook before (sh) failed: exit status: 3; it says: no\\x1b room";
    assert!(report.troubles.iter().any(|(_, t)| t.why == said), "{report:?}");
    assert!(job.store.list(Area::Packs).unwrap().is_empty(), "nothing was read");
    assert!(job.m.repository("disk").snapshots().unwrap().is_empty());
    job.recorded(Outcome::Failed, said);
}

#[test]
fn a_hook_that_may_fail_is_told_of_and_one_after_the_backup_fails_the_run_if_it_says_so() {
    let warn = ", on_fail = \"warn\"";
    let job = Hooked::new(&[("before", "exit 1", warn), ("after", "exit 2", ""), ("finally", "", "")]);
    let (report, log) = job.run();
    assert_eq!((report.outcome, log.len()), (Outcome::Done, 3), "{report:?}");
    let told: Vec<&str> = report.troubles.iter().map(|(_, t)| t.why.as_str()).collect();
    assert!(told[0].contains("before (sh) failed") && told[1].contains("after (sh) failed"), "{told:?}");
    job.recorded(Outcome::Done, "after (sh) failed: exit status: 2");
    let job = Hooked::new(&[("after", "exit 2", ", on_fail = \"abort\""), ("finally", "", "")]);
    let (report, log) = job.run();
    assert_eq!((report.outcome, log.len()), (Outcome::Failed, 2), "{report:?}");
    assert!(report.run.copies[0].snapshot.is_some(), "the backup is there all the same");
    job.recorded(Outcome::Failed, "after (sh) failed");
}

#[test]
fn a_hook_that_hangs_is_ended_with_all_it_started() {
    let hangs = "echo $$ > pid; sleep 600 & wait";
    let job = Hooked::new(&[("before", hangs, ", timeout = \"1s\""), ("finally", "", "")]);
    let begun = Instant::now();
    let (report, log) = job.run();
    assert!(begun.elapsed() < Duration::from_secs(300));
    assert_eq!((report.outcome, log.len()), (Outcome::Failed, 2));
    assert!(report.troubles[0].1.why.contains("did not end within 1s"), "{report:?}");
    let group = std::fs::read_to_string(job.path("pid")).unwrap();
    let left =
        std::process::Command::new("pgrep").args(["-r", "S,R,D", "-g", group.trim()]).output().unwrap();
    assert!(left.stdout.is_empty(), "{}", String::from_utf8_lossy(&left.stdout));
}

/// Whoever stops a run wants the database thawed.
#[test]
fn what_is_undone_is_undone_also_when_somebody_stops_the_run() {
    let mut hooks = ALL.to_vec();
    hooks[0].1 = "sleep 600";
    let job = Hooked::new(&hooks);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !job.path("log").exists() {
                std::thread::sleep(Duration::from_millis(5));
            }
            job.m.stop.0.store(true, Ordering::SeqCst);
        });
        let report = job.m.run("home");
        assert_eq!(report.outcome, Outcome::Interrupted, "{report:?}");
    });
    let log = std::fs::read_to_string(job.path("log")).unwrap();
    assert_eq!(log, "before home db01 none none\non_fail home db01 130 none\nfinally home db01 130 none\n");
    job.m.stop.0.store(false, Ordering::SeqCst);
    job.recorded(Outcome::Interrupted, "interrupted");
}
