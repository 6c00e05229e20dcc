//! What must not be done, and is not: one test for each line of "What You Should NOT Do".

use super::world::Machine;
use crate::support::noise;
use bulla_engine::Error;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::forget::{Permit, job_of};
use bulla_engine::format::{Area, ObjectName, RunId};
use bulla_manager::assess::{Assessment, Current, assess};
use bulla_manager::compliance::{self, Domain};
use bulla_manager::config::{Config, File};
use bulla_manager::drill::{self, Options};
use bulla_manager::outcome::Outcome;
use bulla_manager::run::Report;
use bulla_manager::status::{Facts, JobStatus, judge};
use bulla_manager::world::Trouble;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DAY: i64 = 24 * 3600;
/// In the future of every file that a test writes.
const BEGIN: i64 = 1_900_000_000;

/// A job that goes to one store, in memory.
struct One {
    m: Machine,
    dir: tempfile::TempDir,
    store: Arc<Memory>,
}

fn text(dir: &Path, job: &str) -> String {
    format!(
        r#"
        [destination.disk]
        url = "/mnt/disk"
        key = {{ file = "/k" }}
        [retention.few]
        last = 3
        [job.home]
        source = {{ paths = ["{}"] }}
        to = ["disk"]
        schedule = "30 1 * * *"
        retention = "few"
        {job}
        "#,
        dir.display()
    )
}

impl One {
    fn new(job: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("letters"), noise("letters", 2 << 20)).unwrap();
        let store = Arc::new(Memory::new());
        let m = Machine::new(&text(dir.path(), job), BEGIN, vec![("disk", store.clone())]);
        Self { m, dir, store }
    }

    /// A run on the next day, of a source that has changed a little.
    fn run(&self) -> Report {
        self.m.clock.set(self.m.clock.read() + DAY);
        std::fs::write(self.dir.path().join("diary"), self.m.clock.read().to_string()).unwrap();
        self.m.run("home")
    }

    fn ids(&self) -> Vec<RunId> {
        self.m.repository("disk").snapshots().unwrap().iter().map(|s| s.id).collect()
    }

    fn status(&self) -> JobStatus {
        let facts = Facts::gather(&self.m, &self.m.config, &["home".into()]);
        judge(&self.m.config, "home", self.m.job("home"), "db01", &facts, self.m.clock.read())
    }

    fn drill(&self) -> Outcome {
        self.try_drill().map_err(|t| t.why).unwrap().outcome
    }

    /// A drill, which leaves nothing behind.
    fn try_drill(&self) -> Result<drill::Report, Trouble> {
        let scratch = tempfile::tempdir().unwrap();
        let at = scratch.path().to_owned();
        let options = Options {
            sample: None,
            application: false,
            from: None,
            seed: None,
            scratch: at,
            keep: false,
            key: None,
        };
        let done = drill::drill(&self.m, &self.m.config, "home", self.m.job("home"), &options);
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
        done
    }

    /// The rules are those of one disk, which stands apart from the source.
    fn assessment(&self) -> Assessment {
        let facts = Facts::gather(&self.m, &self.m.config, &["home".into()]);
        let (job, now) = (self.m.job("home"), self.m.clock.read());
        let of = (&self.m.config, "home", job);
        let status = judge(&self.m.config, "home", job, "db01", &facts, now);
        let place = |_: &str| vec![Domain::Disk(2)];
        let rules = compliance::judge(of, &facts, &status, "db01", &[Domain::Disk(1)], &place, now);
        assess(of, &facts, (&status, &rules), "db01", now)
    }
}

fn mistakes(text: &str) -> Vec<&'static str> {
    let read = Config::read(&[File { path: "c".into(), text: text.to_owned() }]);
    read.mistakes.iter().map(|m| m.code).collect()
}

/// 1: never delete old backups before new ones are verified.
#[test]
fn nothing_is_deleted_before_newer_is_verified() {
    let job = One::new("verify = \"off\"");
    let reports: Vec<Report> = (0..5).map(|_| job.run()).collect();
    assert!(reports.iter().all(|r| r.outcome == Outcome::Done));
    assert_eq!(job.ids().len(), 5, "none is proven, so none goes, though the policy keeps three");
    let repository = job.m.repository("disk");
    let refused = Permit::ask(&repository, &job.ids()[..1], "by hand").unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("proven to read back")), "{refused}");
    let proving = One::new("");
    let reports: Vec<Report> = (0..5).map(|_| proving.run()).collect();
    assert!(reports.iter().all(|r| r.outcome == Outcome::Done), "{reports:?}");
    assert_eq!(proving.ids().len(), 3, "the same with proof");
    let repository = proving.m.repository("disk");
    let refused = Permit::ask(&repository, &proving.ids()[..1], "by hand").unwrap_err();
    assert!(refused.to_string().contains("only 2 whole snapshots would stay"), "{refused}");
    // Each letting go is on record with what allowed it.
    let absent: Vec<_> = repository.ledger().unwrap().records;
    assert_eq!(absent.iter().filter(|r| format!("{r:?}").contains("Forgotten")).count(), 2);
}

/// 2: never skip restore tests.
#[test]
fn a_job_whose_restore_was_never_tried_is_not_ok() {
    let job = One::new("");
    assert_eq!(job.run().outcome, Outcome::Done);
    let status = job.status();
    assert_eq!(status.outcome(), Outcome::Unproven);
    assert!(status.findings[0].what.contains("no restore of it was ever tried"), "{status:?}");
    assert_eq!(job.drill(), Outcome::Done);
    assert_eq!(job.status().outcome(), Outcome::Done);
    job.m.clock.set(job.m.clock.read() + 366 * DAY);
    job.run();
    assert!(job.status().findings.iter().any(|f| f.what.contains("the last restore was tried 367 days ago")));
}

#[test]
fn a_drill_whose_store_goes_away_says_nothing_of_the_snapshot() {
    let job = One::new("");
    job.run();
    assert_eq!(job.drill(), Outcome::Done);
    job.m.forget_everything();
    job.m.stores["disk"].torn.store(true, Ordering::SeqCst);
    let report = job.try_drill().map_err(|t| t.why).unwrap();
    assert_eq!((report.outcome, report.drill.wrong.len()), (Outcome::Drill, 0), "{report:?}");
    assert!(
        report.drill.late[0].contains("broke off") && report.drill.late[0].contains("no route"),
        "{report:?}"
    );
    job.m.stores["disk"].torn.store(false, Ordering::SeqCst);
    let evidence = job.m.repository("disk").evidence().unwrap();
    assert!(evidence.is_sound(&report.drill.snapshot));
    assert_eq!(job.status().outcome(), Outcome::Drill);
    assert_eq!(job.drill(), Outcome::Done);
    // Damage is another matter.
    job.m.forget_everything();
    let packs = job.store.list(Area::Packs).unwrap();
    packs.iter().for_each(|(name, _)| job.store.delete(name).unwrap());
    let report = job.try_drill().map_err(|t| t.why).unwrap();
    assert!(report.outcome == Outcome::Drill && !report.drill.wrong.is_empty(), "{report:?}");
    assert!(!job.m.repository("disk").evidence().unwrap().is_sound(&report.drill.snapshot));
}

/// Whoever asks a drill to stop waits for no more than a file.
#[test]
fn a_drill_stops_at_any_file_and_leaves_nothing() {
    const FILES: u64 = 30;
    let job = One::new("");
    (0..FILES).for_each(|n| std::fs::write(job.dir.path().join(format!("f{n}")), b"x").unwrap());
    job.run();
    let mut asked = 0;
    loop {
        asked += 1;
        job.m.stop.0.store(false, Ordering::SeqCst);
        job.m.stop.1.store(asked, Ordering::SeqCst);
        let ended = job.try_drill();
        // One that is asked for the last time is done.
        if job.m.stop.1.swap(0, Ordering::SeqCst) > 0 {
            assert_eq!(ended.unwrap().outcome, Outcome::Done);
            break;
        }
        assert!(ended.is_err(), "asked {asked} times: {ended:?}");
    }
    println!("a drill asks {asked} times");
    // When they are drawn, let go from memory, and looked at.
    assert!(asked > 3 * FILES, "{asked}");
}

/// 3: never store backups in one location only.
#[test]
fn a_critical_job_on_one_site_is_a_mistake() {
    let dir = Path::new("/srv");
    let critical =
        "class = \"critical\"\n        owner = \"ops\"\n        rto = \"1h\"\n        rpo = \"2d\"";
    assert!(mistakes(&text(dir, critical)).contains(&"E-DST-02"));
    let inside = text(Path::new("/mnt"), "");
    assert!(mistakes(&inside).contains(&"E-SRC-06"), "a backup in its own source");
}

/// 4: never ignore failures.
#[test]
fn a_failure_is_told_until_it_is_mended() {
    let job = One::new("");
    job.run();
    job.drill();
    job.m.stores["disk"].full.store(true, Ordering::SeqCst);
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Capacity, "{report:?}");
    job.m.clock.set(job.m.clock.read() + DAY);
    assert_eq!(job.status().outcome(), Outcome::Missed, "it could not be put on record, and is missed");
    job.m.stores["disk"].full.store(false, Ordering::SeqCst);
    assert_eq!(job.run().outcome, Outcome::Done);
    assert_eq!(job.status().outcome(), Outcome::Done);
    // A source that shrinks is held, proves nothing and lets nothing go.
    std::fs::write(job.dir.path().join("letters"), b"").unwrap();
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert!(report.run.findings[0].contains("99 % smaller"), "{report:?}");
    assert_eq!(job.status().outcome(), Outcome::Held);
    assert_eq!(job.run().outcome, Outcome::Held, "until somebody has looked");
    // Who has looked lifts the rules, and what is there now is the measure from then on.
    job.m.waive("home", 2 * DAY);
    assert_eq!(job.run().outcome, Outcome::Done);
    job.m.clock.set(job.m.clock.read() + 2 * DAY);
    assert_eq!(job.run().outcome, Outcome::Done);
    std::fs::remove_dir_all(job.dir.path()).unwrap();
    let report = job.m.run("home");
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.troubles[0].1.why.contains("nothing of the source is there"), "{report:?}");
}

/// 5: never store unencrypted.
#[test]
fn no_byte_of_a_source_is_in_the_store() {
    let job = One::new("");
    let canary = "the-canary-that-nobody-may-hear-0123456789".repeat(50);
    std::fs::write(job.dir.path().join("secret-name-of-a-file"), &canary).unwrap();
    job.run();
    for (name, bytes) in job.store.snapshot() {
        for word in ["the-canary-that", "secret-name-of", "job:home", "db01"] {
            assert!(!bytes.windows(word.len()).any(|w| w == word.as_bytes()), "{word} in {name}");
        }
    }
    let literal = text(Path::new("/srv"), "").replace("key = { file = \"/k\" }", "password = \"hunter2\"");
    assert!(mistakes(&literal).contains(&"E-SEC-01"), "nor is a secret in the configuration");
}

/// 6: never assume that it works.
#[test]
fn what_was_stored_is_read_back_and_damage_is_found() {
    let job = One::new("");
    job.run();
    let pack = job.store.list(Area::Packs).unwrap()[0].0;
    let mut bytes = job.store.get(&pack, 1 << 30).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    job.store.overwrite(pack, Some(bytes));
    assert_eq!(job.drill(), Outcome::Drill);
    // Its turn to be read again comes within the 35 days of the promise.
    let found = (0..36).map(|_| job.run()).position(|report| report.outcome == Outcome::Damage);
    assert!(found.is_some());
    assert_eq!(job.status().outcome(), Outcome::Damage);
    let repository = job.m.repository("disk");
    let refused = Permit::ask(&repository, &job.ids()[..1], "by hand").unwrap_err();
    assert!(refused.to_string().contains("bad when they were last read: 1"), "{refused}");
    // A snapshot that somebody deletes behind our back is missed.
    let other = One::new("");
    other.run();
    other.run();
    other.store.overwrite(ObjectName::Verdict(other.ids()[0]), None);
    let status = other.status();
    assert!(
        status.findings.iter().any(|f| f.what.contains("has lost snapshots that nobody let go")),
        "{status:?}"
    );
}

/// 7: never skip documentation: who reads the record years later finds everything in the store, and nothing outside of it.
#[test]
fn all_that_is_reported_is_in_the_stores() {
    let job = One::new("");
    (0..4).for_each(|_| drop(job.run()));
    job.drill();
    let told = |m: &Machine| {
        let facts = Facts::gather(m, &m.config, &["home".into()]);
        let drills = format!("{:?}", facts.drills("home", "db01"));
        let status = judge(&m.config, "home", m.job("home"), "db01", &facts, job.m.clock.read());
        format!("{status:?} {:?} {drills} {:?}", facts.runs("home", "db01"), job.assessment())
    };
    let before = told(&job.m);
    job.m.forget_everything();
    assert_eq!(
        told(&job.m),
        before,
        "with everything but the keys lost, any report is the same, byte for byte"
    );
    // A record that is lost or changed is a finding, and not an absence.
    let records: Vec<ObjectName> = job.store.list(Area::Records).unwrap().into_iter().map(|r| r.0).collect();
    job.store.overwrite(records[2], None);
    assert!(
        job.status()
            .findings
            .iter()
            .any(|f| f.outcome == Outcome::Damage && f.what.contains("missing from the ledger"))
    );
}

/// 7 as well: who is asked is written down or the configuration is refused, and a procedure that was changed since it was tried
/// is one that nobody has tried, for whoever looks.
#[test]
fn a_procedure_is_documented_and_tried_or_the_job_fails() {
    let important = "class = \"important\"\n        rto = \"1h\"\n        rpo = \"2d\"";
    assert!(mistakes(&text(Path::new("/srv"), important)).contains(&"E-JOB-04"), "nobody is named to ask");
    let documented = format!("{important}\n        owner = \"ops\"");
    let mut job = One::new(&documented);
    let ends = |job: &One| (job.status().outcome(), job.assessment().outcome());
    let untested = |job: &One| job.status().findings.iter().any(|f| f.rule == "procedure");
    job.run();
    job.drill();
    assert_eq!(ends(&job), (Outcome::Done, Outcome::Done));
    let changed = format!("{documented}\n        hooks = [{{ at = \"before\", command = [\"true\"] }}]");
    job.m.configure(&text(job.dir.path(), &changed));
    assert!(untested(&job));
    assert_eq!(ends(&job), (Outcome::Unproven, Outcome::Unproven));
    let facts = Facts::gather(&job.m, &job.m.config, &["home".into()]);
    let of = (&job.m.config, "home", job.m.job("home"));
    let rules =
        compliance::judge(of, &facts, &job.status(), "db01", &[], &|_| Vec::new(), job.m.clock.read());
    assert!(!rules.marks[4].met && rules.marks[4].evidence.contains("procedure is not tested"), "{rules:?}");
    // Whoever looks from elsewhere, with a configuration of its own, is told so as soon as a run went by it.
    let foreign = |m: &Machine| {
        let facts = Facts { foreign: true, ..Facts::gather(m, &m.config, &["home".into()]) };
        judge(&m.config, "home", m.job("home"), "db01", &facts, m.clock.read()).outcome()
    };
    assert_eq!(foreign(&job.m), Outcome::Done);
    job.run();
    assert_eq!(foreign(&job.m), Outcome::Unproven);
    job.drill();
    assert_eq!((ends(&job), foreign(&job.m)), ((Outcome::Done, Outcome::Done), Outcome::Done));
    // A job that nobody depends on is told of it, and does not fail.
    let standard = "rto = \"1h\"\n        rpo = \"2d\"";
    let mut job = One::new(standard);
    job.run();
    job.drill();
    job.m.configure(&text(job.dir.path(), &format!("{standard}\n        owner = \"ops\"")));
    assert_eq!(ends(&job), (Outcome::Done, Outcome::Done));
    assert!(job.assessment().gaps.iter().any(|gap| gap.risk.contains("procedure is not tested")));
}

/// 8: never ignore capacity.
#[test]
fn a_full_store_ends_with_its_own_code_and_loses_nothing() {
    let job = One::new("");
    (0..3).for_each(|_| drop(job.run()));
    let before = job.ids();
    job.m.stores["disk"].full.store(true, Ordering::SeqCst);
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Capacity);
    assert!(
        report
            .troubles
            .iter()
            .any(|(place, t)| place.as_deref() == Some("disk") && t.why.contains("no space"))
    );
    assert_eq!(job.ids(), before);
    let repository = job.m.repository("disk");
    assert!(repository.snapshots().unwrap().iter().all(|s| job_of(s) == Some("home")));
}

/// A store that lost something is told of, and nothing more goes there until somebody has looked.
#[test]
fn nothing_goes_from_a_store_that_lost_something() {
    let job = One::new("");
    (0..3).for_each(|_| drop(job.run()));
    job.store.overwrite(ObjectName::Verdict(job.ids()[0]), None);
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert!(report.troubles.iter().any(|(_, t)| t.why.contains("missing without a record")), "{report:?}");
    job.run();
    assert_eq!(job.ids().len(), 4, "the policy keeps three");
    let repository = job.m.repository("disk");
    let refused = Permit::ask(&repository, &job.ids()[..1], "by hand").unwrap_err();
    assert!(matches!(refused, Error::RolledBack { .. }), "{refused}");
}

/// A pack that is not there any more is on record as damage without being read, until it is back.
#[test]
fn a_lost_pack_is_damage_until_it_is_back() {
    let job = One::new("");
    (0..4).for_each(|_| drop(job.run()));
    let pack = job.store.list(Area::Packs).unwrap()[0].0;
    let bytes = job.store.get(&pack, 1 << 30).unwrap();
    job.store.overwrite(pack, None);
    assert_eq!(job.run().outcome, Outcome::Damage);
    let (status, ids) = (job.status(), job.ids());
    assert_eq!(status.outcome(), Outcome::Damage, "{status:?}");
    let repository = job.m.repository("disk");
    let refused = Permit::ask(&repository, &ids[..1], "by hand").unwrap_err();
    assert!(refused.to_string().contains("bad when they were last read: 1"), "{refused}");
    job.store.overwrite(pack, Some(bytes));
    job.run();
    assert!(job.status().findings.iter().all(|f| f.outcome != Outcome::Damage), "{:?}", job.status());
}

/// What the law asks for stays, whoever edits the configuration.
#[test]
fn a_lock_outlives_the_configuration_that_made_it() {
    let mut job = One::new("");
    let dir = job.dir.path().to_owned();
    let locked = text(&dir, "compliance = [\"pci-dss\"]").replace("last = 3", "daily = \"12m\"");
    job.m.configure(&locked);
    let reports: Vec<Report> = (0..5).map(|_| job.run()).collect();
    assert!(reports.iter().all(|r| r.outcome == Outcome::Done), "{reports:?}");
    assert_eq!(job.ids().len(), 5);
    // Somebody takes the law out of the configuration.
    job.m.configure(&text(&dir, ""));
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Refused, "{report:?}");
    assert!(
        report.troubles[0].1.why.contains("is locked (pci-dss): what was backed up on 2030-03-"),
        "{report:?}"
    );
    assert_eq!(job.ids().len(), 6);
    job.drill();
    let status = job.status();
    assert!(status.findings[0].what.contains("old snapshots stay: "), "{status:?}");
    job.m.waive("home", DAY * 2);
    job.run();
    assert_eq!(job.ids().len(), 3, "a waiver lifts it, in every report");
    assert_eq!(job.status().waived.map(|(_, why)| why), Some("test".into()));
}

/// The end of a ledger that was taken off is missed, because the other stores have it.
#[test]
fn a_ledger_that_was_cut_off_is_missed() {
    let job = One::new("");
    let vault = r#"[destination.vault]
        url = "/mnt/vault"
        key = { file = "/k" }
        [retention.few]"#;
    let two = text(job.dir.path(), "").replace("[retention.few]", vault);
    let two = two.replace(r#"to = ["disk"]"#, r#"to = ["disk", "vault"]"#);
    let stores: Vec<(&str, Arc<dyn Backend>)> =
        vec![("disk", Arc::new(Memory::new())), ("vault", Arc::new(Memory::new()))];
    let m = Machine::new(&two, BEGIN, stores);
    let judged = || {
        let facts = Facts::gather(&m, &m.config, &["home".into()]);
        judge(&m.config, "home", m.job("home"), "db01", &facts, m.clock.read())
    };
    for _ in 0..2 {
        m.clock.set(m.clock.read() + DAY);
        assert_eq!(m.run("home").outcome, Outcome::Done);
    }
    assert!(judged().findings.iter().all(|f| f.outcome != Outcome::Damage));
    let newest =
        m.stores["vault"].inner().list(Area::Records).unwrap().into_iter().map(|r| r.0).max().unwrap();
    m.stores["vault"].inner().delete(&newest).unwrap();
    m.forget_everything();
    assert!(
        judged().findings.iter().any(|f| f.what.contains("vault had the record of run")),
        "{:?}",
        judged()
    );
}

/// A destination that is new remembers nothing; the others do.
#[test]
fn a_new_destination_does_not_end_a_hold() {
    let job = One::new("");
    let new = r#"[destination.new]
        url = "/mnt/new"
        key = { file = "/k" }
        [retention.few]"#;
    let both = |to: &str| {
        let text = text(job.dir.path(), "").replace("[retention.few]", new);
        text.replace(r#"to = ["disk"]"#, &format!("to = {to}"))
    };
    let stores: Vec<(&str, Arc<dyn Backend>)> =
        vec![("disk", Arc::new(Memory::new())), ("new", Arc::new(Memory::new()))];
    let mut m = Machine::new(&both(r#"["disk"]"#), BEGIN, stores);
    let run = |m: &Machine| {
        m.clock.set(m.clock.read() + DAY);
        m.run("home").outcome
    };
    assert_eq!(run(&m), Outcome::Done);
    std::fs::write(job.dir.path().join("letters"), b"").unwrap();
    assert_eq!(run(&m), Outcome::Held);
    m.configure(&both(r#"["new", "disk"]"#));
    assert_eq!(run(&m), Outcome::Held, "the disk remembers what was there");
}

/// Clocks that differ let nothing go, and a waiver says in every report that it lifts the rules.
#[test]
fn clocks_have_to_agree_and_a_waiver_shows() {
    let job = One::new("");
    (0..3).for_each(|_| drop(job.run()));
    job.m.stores["disk"].wrong.store(-3 * 3600, Ordering::SeqCst);
    let report = job.run();
    assert_eq!(report.outcome, Outcome::Refused, "{report:?}");
    assert!(
        report.troubles[0].1.why.contains("clocks of this machine and of the store are 10800 seconds apart")
    );
    assert_eq!(job.ids().len(), 4);
    job.m.waive("home", 7 * DAY);
    assert!(job.status().waived.is_some());
    job.run();
    assert_eq!(job.ids().len(), 3);
}

/// The newest record was right when it was written, and the clock of this machine has run ahead since: by it everything is
/// older than it is.
#[test]
fn the_store_is_asked_what_time_it_is_before_anything_goes() {
    let mut job = One::new("");
    job.m.configure(&text(job.dir.path(), "").replace("last = 3", "last = 9"));
    (0..5).for_each(|_| drop(job.run()));
    assert_eq!(job.ids().len(), 5);
    let store = job.m.stores["disk"].clone();
    let (then, ahead) = (job.m.clock.read(), 20 * DAY);
    job.m.clock.set(then + ahead);
    store.wrong.store(-ahead, Ordering::SeqCst);
    let repository = job.m.repository("disk");
    let ask = || Permit::ask(&repository, &job.ids()[..1], "by hand");
    let refused = ask().unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("1728000 seconds apart")), "{refused}");
    store.wrong.store(-500, Ordering::SeqCst);
    assert!(ask().is_ok(), "twenty days later by both clocks");
    assert_eq!(store.list(Area::Announcements).unwrap(), [], "asking leaves nothing behind");
    // Out of reach, it says nothing, and nothing goes.
    store.full.store(true, Ordering::SeqCst);
    assert!(ask().is_err());
}

/// What is proven where packs are known to be bad, or a source looks wrong, is no copy that counts.
#[test]
fn a_copy_beside_bad_packs_does_not_count() {
    let job = One::new("rpo = \"2d\"\n        rto = \"1h\"");
    job.run();
    job.drill();
    let evidence = |a: &Assessment| {
        let rule = |g: &&bulla_manager::assess::Gap| g.risk.starts_with("not met: 3 copies");
        a.gaps.iter().find(rule).unwrap().risk.clone()
    };
    let good = job.assessment();
    assert_eq!(good.current, Current::Yes);
    assert!(evidence(&good).contains("disk (read back"), "one more is missing: {good:?}");
    assert_eq!(good.last_verified.unwrap().places, ["disk"]);
    let pack = job.store.list(Area::Packs).unwrap()[0].0;
    let mut bytes = job.store.get(&pack, 1 << 30).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    job.store.overwrite(pack, Some(bytes));
    let found = (0..36).map(|_| job.run()).position(|report| report.outcome == Outcome::Damage);
    assert!(found.is_some());
    let bad = job.assessment();
    assert_eq!(bad.outcome(), Outcome::Damage);
    assert!(evidence(&bad).contains("disk has packs that were bad"), "{bad:?}");
    assert_eq!(bad.last_verified, None, "{bad:?}");
    // A day without a proven backup is one in which the objective did not hold.
    let young = One::new("rpo = \"2d\"\n        rto = \"1h\"");
    young.run();
    young.m.clock.set(young.m.clock.read() + 8 * DAY);
    let late = young.assessment();
    let history = late.history.unwrap();
    assert_eq!((late.current, late.rpo, history.worst), (Current::No, Some(8 * DAY), 8 * DAY));
    assert_eq!((history.seconds, history.held), (8 * DAY, Some(2 * DAY)));
}
