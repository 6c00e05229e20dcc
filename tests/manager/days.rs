//! Sixty days of three jobs, one of them a PostgreSQL database, in three stores: a directory, SFTP and S3, each a real one.
//! The clock is ours, what goes wrong is not: a host that is off, dumps that break off, a full disk, an off-site copy that
//! somebody deletes, a pack that rots. What `status`, `compliance` and `assess` say at noon of each day is in `days.txt`, with
//! their exit codes, wherever it differs from the day before, and so is all that somebody is told; `BULLA_BLESS=1` writes it
//! anew, and who does that reads it.

use super::postgres::{Postgres, toml};
use super::world::Machine;
use crate::remote::servers::{S3, find, store, store_with};
use crate::support::noise;
use bulla_engine::backend::{Backend, Local};
use bulla_engine::forget::job_of;
use bulla_engine::format::{Area, ObjectName};
use bulla_manager::assess::{Assessment, Impact, assess};
use bulla_manager::compliance::{self, Compliance, Domain};
use bulla_manager::drill::{self, Options};
use bulla_manager::notify::message::Body;
use bulla_manager::notify::outbox::Outbox;
use bulla_manager::notify::{Told, tell};
use bulla_manager::outcome::Outcome;
use bulla_manager::run::Report;
use bulla_manager::status::{Facts, JobStatus, judge};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

const DAY: i64 = 24 * 3600;
const DAYS: i64 = 60;
/// When a pack is rotten. Which run reads it first depends on its name, which nobody knows before.
const ROT: std::ops::Range<i64> = 14..16;
const JOBS: [&str; 3] = ["logs", "home", "billing"];

fn config(home: &Path, logs: &Path, dump: &str, check: &str) -> String {
    format!(
        r#"
        [host]
        site = "ber1"
        timezone = "Europe/Berlin"
        [destination.disk]
        url = "/mnt/disk"
        media = "ssd"
        key = {{ file = "/etc/bulla/disk.key" }}
        site = "ber1"
        [destination.vault]
        url = "sftp:bulla@vault:/srv/bulla"
        media = "hdd"
        key = {{ file = "/etc/bulla/vault.key" }}
        site = "muc1"
        [destination.cloud]
        url = "s3:https://s3.example.net/backups"
        media = "cloud"
        key = {{ file = "/etc/bulla/cloud.key" }}
        site = "eu"
        [notify.ops]
        email = {{ to = ["ops@example.net"], smtp = "smtps://mail.example.net" }}
        [notify.watchdog]
        ping = {{ url = "https://hc.example.net/ab" }}
        [retention.short]
        daily = "7d"
        weekly = "4w"
        [job.home]
        class = "important"
        owner = "it"
        rto = "1d"
        rpo = "1d2h"
        source = {{ paths = ["{}"] }}
        to = ["disk", "vault", "cloud"]
        notify = ["ops"]
        schedule = "30 1 * * *"
        retention = "short"
        [job.logs]
        source = {{ paths = ["{}"] }}
        to = ["disk", "vault"]
        notify = ["ops"]
        schedule = "20 0 * * *"
        retention = "short"
        [job.billing]
        class = "critical"
        owner = "dba"
        rto = "2h"
        rpo = "1d2h"
        source = {{ pipeline = [{dump}, ["sh", "-c", "cat; test ! -e {}/broken"]], as = "billing.dump", magic = "PGDMP", min_size = "1KiB" }}
        to = ["disk", "cloud"]
        notify = ["ops", "watchdog"]
        schedule = "5 2 * * *"
        retention = "short"
        drill = {{ command = {check} }}
        "#,
        home.display(),
        logs.display(),
        home.display()
    )
}

/// What the day brings, before its runs.
fn events(
    day: i64,
    m: &Machine,
    home: &Path,
    kept: &mut Option<(ObjectName, Vec<u8>)>,
) -> Option<&'static str> {
    let set = |flag: &std::sync::atomic::AtomicBool, to| flag.store(to, Ordering::SeqCst);
    Some(match day {
        10 => "the host is off",
        12 => "the host is on again",
        14 => {
            let inner = m.stores["vault"].inner();
            // The one whose turn it is to be read next; any other is found within 35 days.
            let evidence = m.repository("vault").evidence().unwrap();
            let turn = |name: &ObjectName| match name {
                ObjectName::Pack(pack) => (evidence.read_at(pack), *name),
                other => panic!("{other}"),
            };
            let packs = inner.list(Area::Packs).unwrap();
            let (name, size) = packs.into_iter().min_by_key(|(name, _)| turn(name)).unwrap();
            let good = inner.get(&name, size).unwrap();
            let mut bad = good.clone();
            bad[size as usize / 2] ^= 1;
            inner.heal(&name, &[&bad]).unwrap();
            *kept = Some((name, good));
            "a pack rots in the vault"
        }
        20 => {
            std::fs::write(home.join("broken"), b"").unwrap();
            "dumps break off half-way"
        }
        22 => {
            std::fs::remove_file(home.join("broken")).unwrap();
            "dumps are whole again"
        }
        27 => {
            set(&m.stores["disk"].full, true);
            "the disk is full"
        }
        29 => {
            set(&m.stores["disk"].full, false);
            "the disk has room again"
        }
        33 => {
            set(&m.stores["vault"].gone, true);
            "the vault cannot be reached"
        }
        35 => {
            set(&m.stores["vault"].gone, false);
            "the vault can be reached again"
        }
        40 => {
            let repository = m.repository("cloud");
            let newest = repository.snapshots().unwrap().into_iter().rfind(|s| job_of(s) == Some("home"));
            m.stores["cloud"].inner().delete(&ObjectName::Verdict(newest.unwrap().id)).unwrap();
            "somebody deletes the newest snapshot of home in the cloud"
        }
        43 => {
            // The next run copied back what the cloud lacked; that it was lost is still to be accepted.
            m.repository("cloud").accept_history().unwrap();
            "the loss is looked into and accepted"
        }
        16 => {
            let (name, good) = kept.take().unwrap();
            m.stores["vault"].inner().heal(&name, &[&good]).unwrap();
            "the pack is put back from a copy"
        }
        _ => return None,
    })
}

/// What can be said of a job.
struct Judged {
    status: JobStatus,
    compliance: Compliance,
    assessment: Assessment,
}

fn judged(m: &Machine) -> Vec<Judged> {
    let (config, now, host) = (&m.config, m.clock.read(), "db01");
    let facts = Facts::gather(m, config, &JOBS.map(str::to_owned));
    let place = |name: &str| match name {
        "disk" => vec![Domain::Disk(2)],
        other => vec![Domain::Host(other.to_owned())],
    };
    let of = |name: &&str| {
        let whole = (config, *name, m.job(name));
        let status = judge(config, name, m.job(name), host, &facts, now);
        let compliance = compliance::judge(whole, &facts, &status, host, &[Domain::Disk(1)], &place, now);
        let assessment = assess(whole, &facts, (&status, &compliance), host, now);
        Judged { status, compliance, assessment }
    };
    JOBS.iter().map(of).collect()
}

/// Ids differ from run to run of a server; what they are of does not.
fn without_ids(text: &str) -> String {
    let (mut out, mut word) = (String::new(), String::new());
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() {
            word.push(c);
            continue;
        }
        let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        let id = word.len() >= 8 && word.chars().all(hex);
        out.push_str(if id { "ID" } else { &word });
        out.push(c);
        word.clear();
    }
    out.trim_end().to_owned()
}

fn line(judged: &Judged) -> String {
    let (s, c, a) = (&judged.status, &judged.compliance, &judged.assessment);
    let findings: Vec<String> =
        s.findings.iter().map(|f| format!("{}: {}", f.outcome.word(), without_ids(&f.what))).collect();
    let lacks: Vec<&str> = c.all().filter(|mark| !mark.met).map(|mark| mark.rule.as_str()).collect();
    let gaps = |impact| a.gaps.iter().filter(|gap| gap.impact == impact).count();
    format!(
        "{} (exit {}) · V{} · {} copies · 3-2-1-1-0 {} without {} · backup: {}, gaps: {} high, {} medium, {} low (exit {}) · {}",
        s.outcome().word(),
        s.outcome().code(),
        s.level as u8,
        s.copies,
        c.verdict.word(),
        lacks.join(", "),
        a.current.word(),
        gaps(Impact::High),
        gaps(Impact::Medium),
        gaps(Impact::Low),
        a.outcome().code(),
        findings.join(" | ")
    )
}

/// A drill, told if it did not go well.
fn drill(
    (m, told, day): (&Machine, &mut String, i64),
    job: &str,
    (sample, application): (Option<usize>, bool),
    scratch: &Path,
) {
    let scratch = scratch.to_owned();
    let options = Options { sample, application, from: None, seed: None, scratch, keep: false, key: None };
    let report = drill::drill(m, &m.config, job, m.job(job), &options).map_err(|t| t.why).unwrap();
    if report.outcome != Outcome::Done {
        let d = &report.drill;
        let (from, wrong) = (&d.destination, [&d.wrong[..], &d.diverged, &d.late].concat().join(" | "));
        let _ = writeln!(told, "day {day:02} drill  {job} from {from}: {}", without_ids(&wrong));
    }
}

/// What the stores, the server and the sources are.
struct Stage {
    m: Machine,
    server: Postgres,
    dir: tempfile::TempDir,
    outbox: Outbox,
    /// Runs as long as it is here.
    _s3: S3,
}

/// 15 February 2027, midnight in Berlin; summer time begins on day 41.
const BEGIN: i64 = 1_802_646_000;

impl Stage {
    /// `None` where a server is not there.
    fn set() -> Option<Self> {
        let (server, s3, sftp) = (Postgres::start()?, S3::seaweed()?, find("sftp-server")?);
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        ["home", "logs", "disk", "scratch"].iter().for_each(|d| std::fs::create_dir(at(d)).unwrap());
        let dump =
            [server.words("pg_dump"), ["-Fc", "-Z0", "-d", "billing"].map(str::to_owned).to_vec()].concat();
        let [create, drop, restore, ask] =
            ["createdb", "dropdb", "pg_restore", "psql"].map(|program| server.words(program).join(" "));
        let check = format!(
            "{drop} --if-exists proof && {create} proof && {restore} -d proof billing.dump && \
             test $({ask} -d proof -tAc 'SELECT count(*) FROM invoices') -ge 10"
        );
        let text = config(&at("home"), &at("logs"), &toml(&dump), &toml(&["sh".into(), "-c".into(), check]));
        let command = format!("sftp.command={}", sftp.display());
        let far = store_with(&format!("sftp:host:{}", at("vault").display()), &[&command]);
        far.prepare().unwrap();
        let cloud = store(&s3.url());
        cloud.prepare().unwrap();
        let local = Arc::new(Local::new(at("disk")));
        local.create_layout().unwrap();
        let stores: Vec<(&str, Arc<dyn Backend>)> =
            vec![("disk", local), ("vault", far.backend()), ("cloud", cloud.backend())];
        let m = Machine::new(&text, BEGIN, stores);
        server.sql("billing", "CREATE TABLE invoices (id serial, what text)");
        let outbox = Outbox::new(at("outbox"));
        Some(Self { m, server, dir, outbox, _s3: s3 })
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The sources change every day.
    fn change(&self, day: i64) {
        let write =
            |name: String, seed: String, len| std::fs::write(self.at(&name), noise(&seed, len)).unwrap();
        write(format!("home/letter{}", day % 20), format!("h{day}"), 9000);
        write(format!("logs/log.{}", day % 5), format!("l{day}"), 5000);
        let rows = format!("SELECT md5('{day}-' || n) FROM generate_series(1, 20) n");
        self.server.sql("billing", &format!("INSERT INTO invoices (what) {rows}"));
    }

    /// Runs a job when it is due on this day.
    fn run(&self, day: i64, job: &str, told: &mut String) -> Report {
        let zone = self.m.config.host.zone.as_ref().unwrap().value.clone();
        let from = jiff::Timestamp::from_second(BEGIN + day * DAY - 3600).unwrap().to_zoned(zone);
        let due = self.m.job(job).schedule.as_ref().unwrap().value.next(&from).unwrap();
        self.m.clock.set(due.timestamp().as_second() + 3);
        let report = self.m.run(job);
        if report.outcome != Outcome::Done && !ROT.contains(&day) {
            let place = |at: &Option<String>| at.as_ref().map_or(String::new(), |a| format!("{a}: "));
            let why: Vec<String> = report
                .troubles
                .iter()
                .map(|(at, t)| without_ids(&format!("{}{}", place(at), t.why)))
                .collect();
            let _ =
                writeln!(told, "day {day:02} run    {job} {}: {}", report.outcome.word(), why.join(" | "));
        }
        report
    }

    /// Tells whoever wants to know, of the runs of a day and of what did not happen. What depends on the name of a pack is not
    /// looked at.
    fn tell(&self, day: i64, judged: &[Judged], runs: &[Report], told: &mut String) {
        let now = self.m.clock.read();
        for (name, judged) in JOBS.iter().zip(judged) {
            let run = runs.iter().find(|report| report.run.job == *name);
            let of = Told { name, job: self.m.job(name), status: &judged.status, run };
            tell(&self.outbox, &self.m.config, "db01", now, of).unwrap();
        }
        let said = |channel: &str, body: &Body| match body {
            Body::Ping { exit, .. } => format!("{channel} is pinged with {exit}"),
            Body::Message(m) => {
                let place = m.destination.as_ref().map_or_else(String::new, |d| format!(" of {d}"));
                format!("{channel} hears of {}: {} {}{place}, time {}", m.job, m.event, m.rule, m.count)
            }
        };
        let flushed = self.outbox.hold().unwrap().flush(now, false, |channel, body| {
            let said = said(channel, body);
            if !(ROT.start..=ROT.end).contains(&day) && said != "watchdog is pinged with 0" {
                let _ = writeln!(told, "day {day:02} told   {said}");
            }
            Some(Ok(()))
        });
        assert_eq!(flushed.unwrap().waiting, 0);
    }

    /// Drills: every week, and every four.
    fn drill(&self, day: i64, told: &mut String) {
        let scratch = self.at("scratch");
        if day % 7 == 6 {
            drill((&self.m, told, day), "home", (Some(8), false), &scratch);
        }
        if day % 28 == 1 {
            drill((&self.m, told, day), "billing", (None, true), &scratch);
            drill((&self.m, told, day), "logs", (None, false), &scratch);
        }
        let left = std::fs::read_dir(&scratch).unwrap().next();
        assert!(left.is_none(), "a drill left something behind");
    }
}

#[test]
fn sixty_days_are_told_as_they_were() {
    let Some(stage) = Stage::set() else { return };
    let (mut told, mut before, mut kept) = (String::new(), Vec::new(), None);
    for day in 0..DAYS {
        stage.change(day);
        if let Some(event) = events(day, &stage.m, &stage.at("home"), &mut kept) {
            let _ = writeln!(told, "day {day:02}        {event}");
        }
        let off = (10..12).contains(&day);
        let due = JOBS.iter().filter(|_| !off);
        let runs: Vec<Report> = due.map(|job| stage.run(day, job, &mut told)).collect();
        stage.m.clock.set(BEGIN + day * DAY + 12 * 3600);
        stage.drill(day, &mut told);
        let judged = judged(&stage.m);
        stage.tell(day, &judged, &runs, &mut told);
        let now: Vec<String> = judged.iter().map(line).collect();
        for (job, (n, line)) in JOBS.iter().zip(now.iter().enumerate()) {
            if before.get(n) != Some(line) && !ROT.contains(&day) {
                let _ = writeln!(told, "day {day:02} status {job} {line}");
            }
        }
        if day + 1 == ROT.end {
            let worst = judged.iter().fold(Outcome::Done, |all, j| all.and(j.status.outcome()));
            let _ = writeln!(told, "day {day:02} status of all is {}", worst.word());
        }
        before = now;
    }
    for name in stage.m.stores.keys() {
        let repository = stage.m.repository(name);
        for job in JOBS {
            let n = repository.snapshots().unwrap().iter().filter(|s| job_of(s) == Some(job)).count();
            let _ = writeln!(told, "in the end {name} holds {n} snapshots of {job}");
        }
    }
    let place = Path::new(env!("CARGO_MANIFEST_DIR")).join("manager/days.txt");
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&place, &told).unwrap();
    }
    let expected = std::fs::read_to_string(&place).unwrap_or_default();
    assert!(told == expected, "what was told is not what days.txt says:\n{told}");
}
