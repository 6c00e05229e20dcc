//! What data is under and what is there: the newest months at hand, judged from the records and the stores.

use super::world::Machine;
use crate::support::noise;
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::format::Area;
use bulla_manager::assess::assess;
use bulla_manager::compliance::{Compliance, Domain, Mark, judge};
use bulla_manager::outcome::Outcome;
use bulla_manager::status::{self, Facts};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DAY: i64 = 24 * 3600;
const BEGIN: i64 = 1_900_000_000;

fn text(dir: &Path, to: &str, job: &str) -> String {
    format!(
        r#"
        [destination.vault]
        url = "/mnt/vault"
        key = {{ file = "/k" }}
        media = "tape"
        [destination.disk]
        url = "/mnt/disk"
        key = {{ file = "/k" }}
        media = "hdd"
        [retention.audit]
        daily = "7d"
        monthly = "12m"
        [job.audit]
        source = {{ paths = ["{}"] }}
        to = [{to}]
        retention = "audit"
        {job}
        "#,
        dir.display()
    )
}

struct Audit {
    m: Machine,
    dir: tempfile::TempDir,
}

impl Audit {
    fn new(to: &str, job: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("log"), noise("log", 1 << 16)).unwrap();
        let stores: Vec<(&str, Arc<dyn Backend>)> =
            vec![("disk", Arc::new(Memory::new())), ("vault", Arc::new(Memory::new()))];
        Self { m: Machine::new(&text(dir.path(), to, job), BEGIN, stores), dir }
    }

    /// So many runs, days apart.
    fn runs(&self, n: usize, days: i64) {
        for _ in 0..n {
            self.m.clock.set(self.m.clock.read() + days * DAY);
            std::fs::write(self.dir.path().join("new"), self.m.clock.read().to_string()).unwrap();
            let report = self.m.run("audit");
            assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        }
    }

    fn compliance(&self) -> (Compliance, usize) {
        self.seen(false, &[Domain::Disk(1)])
    }

    /// By who is another machine, or this one; `source` is what it knows of where the job's source lies.
    fn seen(&self, foreign: bool, source: &[Domain]) -> (Compliance, usize) {
        let mut facts = Facts::gather(&self.m, &self.m.config, &["audit".into()]);
        facts.foreign = foreign;
        let (job, now) = (self.m.job("audit"), self.m.clock.read());
        let status = status::judge(&self.m.config, "audit", job, "db01", &facts, now);
        let place = |name: &str| vec![Domain::Host(name.to_owned())];
        let of = (&self.m.config, "audit", job);
        let all = judge(of, &facts, &status, "db01", source, &place, now);
        let assessment = assess(of, &facts, (&status, &all), "db01", now);
        let gaps = assessment.gaps.iter().filter(|gap| gap.risk.contains("3m at hand")).count();
        (all, gaps)
    }

    /// The one mark, and that `assess` has a gap where it is not met.
    fn mark(&self) -> Mark {
        let (all, gaps) = self.compliance();
        let [mark] = all.at_hand.as_slice() else { panic!("{all:?}") };
        assert_eq!(gaps, usize::from(!mark.met), "{mark:?}");
        assert_eq!(mark.rule, "3m at hand, for pci-dss");
        mark.clone()
    }
}

const PCI: &str = "compliance = [\"pci-dss\"]";

/// A disk that is new beside a tape has not what is on the tape; three months later it has all that is asked for.
#[test]
fn the_newest_months_are_at_hand_or_it_is_told() {
    let mut audit = Audit::new("\"vault\"", "");
    audit.runs(4, 10);
    assert!(audit.compliance().0.at_hand.is_empty(), "nobody asks for it");
    audit.m.configure(&text(audit.dir.path(), "\"vault\", \"disk\"", PCI));
    audit.runs(1, 10);
    let mark = audit.mark();
    // A run of 30 days ago has its stand-in in the one of today, by the rule for months; the one of 40 days ago has none.
    assert!(!mark.met, "{mark:?}");
    assert_eq!(
        mark.evidence,
        "vault is a tape, disk has nothing of the backup of 40d ago, or of the time after it"
    );
    audit.runs(8, 10);
    assert_eq!(audit.mark().evidence, "vault is a tape, disk has nothing older than 80d");
    audit.runs(1, 10);
    let mark = audit.mark();
    assert_eq!((mark.met, mark.evidence.as_str()), (true, "in disk"));
    // What counts is what can be read, and is there.
    let disk = &audit.m.stores["disk"];
    disk.gone.store(true, Ordering::SeqCst);
    assert_eq!(audit.mark().evidence, "vault is a tape, disk cannot be read");
    disk.gone.store(false, Ordering::SeqCst);
    for (snapshot, _) in disk.inner().list(Area::Verdicts).unwrap() {
        disk.inner().delete(&snapshot).unwrap();
    }
    audit.m.forget_everything();
    assert_eq!(audit.mark().evidence, "vault is a tape, disk has no backup");
}

/// What a tape that nobody has put in may hold is not known.
#[test]
fn a_young_disk_beside_a_tape_that_is_away_proves_nothing() {
    let audit = Audit::new("\"disk\", \"vault\"", PCI);
    assert_eq!(audit.mark().evidence, "disk has no backup, vault is a tape");
    audit.runs(2, 10);
    assert!(audit.mark().met, "all that ever was is there");
    audit.m.stores["vault"].gone.store(true, Ordering::SeqCst);
    assert!(audit.mark().evidence.contains("other destinations cannot be read"), "{:?}", audit.mark());
    audit.m.stores["vault"].gone.store(false, Ordering::SeqCst);
    audit.runs(10, 10);
    audit.m.stores["vault"].gone.store(true, Ordering::SeqCst);
    assert!(audit.mark().met, "{:?}", audit.mark());
}

/// It had been off for months of which only the tape has the backups, and the tape is away.
#[test]
fn gaps_beside_a_tape_that_is_away_prove_nothing() {
    let audit = Audit::new("\"disk\", \"vault\"", PCI);
    audit.runs(10, 10);
    let (disk, vault) = (&audit.m.stores["disk"], &audit.m.stores["vault"]);
    disk.gone.store(true, Ordering::SeqCst);
    for _ in 0..5 {
        audit.m.clock.set(audit.m.clock.read() + 10 * DAY);
        std::fs::write(audit.dir.path().join("new"), audit.m.clock.read().to_string()).unwrap();
        assert_ne!(audit.m.run("audit").outcome, Outcome::Done);
    }
    disk.gone.store(false, Ordering::SeqCst);
    vault.gone.store(true, Ordering::SeqCst);
    let mark = audit.mark();
    assert!(!mark.met && mark.evidence.contains("gaps, and other destinations cannot be read"), "{mark:?}");
}

/// A backup that looks as if most of the source were lost stands for none of before.
#[test]
fn what_looks_wrong_is_no_stand_in() {
    let mut audit = Audit::new("\"vault\"", "");
    std::fs::write(audit.dir.path().join("log"), noise("more", 1 << 21)).unwrap();
    audit.runs(1, 10);
    audit.m.configure(&text(audit.dir.path(), "\"vault\", \"disk\"", PCI));
    std::fs::remove_file(audit.dir.path().join("log")).unwrap();
    audit.m.clock.set(audit.m.clock.read() + 10 * DAY);
    let report = audit.m.run("audit");
    assert_eq!(report.outcome, Outcome::Held, "{report:?}");
    assert_eq!(audit.mark().evidence, "vault is a tape, disk has no backup");
}

/// Where another host stands, what it may delete, and whether a destination is that very host, its own configuration and names
/// would have to say.
#[test]
fn who_looks_from_elsewhere_claims_nothing_of_the_host() {
    let mut audit = Audit::new("\"vault\", \"disk\"", "");
    let written = text(audit.dir.path(), "\"vault\", \"disk\"", "");
    let written = written.replace("media = \"hdd\"", "media = \"hdd\"\nsite = \"far\"\nappend_only = true");
    audit.m.configure(&format!("[host]\nsite = \"hq\"\n{written}"));
    audit.runs(1, 1);
    let met = |foreign: bool, source: &[Domain]| {
        let marks = audit.seen(foreign, source).0.marks;
        (marks[0].met, marks[2].met, marks[3].met)
    };
    let named = [Domain::Host("db01".to_owned())];
    assert_eq!(met(false, &[Domain::Disk(1)]), (true, true, true));
    assert_eq!(met(true, &named), (true, false, false));
    let nameless = [Domain::Unknown, Domain::Host("db01".to_owned())];
    let (all, _) = audit.seen(true, &nameless);
    assert!(!all.marks[0].met, "{:?}", all.marks);
    assert!(
        all.marks[0].evidence.contains("disk: nobody can say here whether it is db01"),
        "{:?}",
        all.marks
    );
}
