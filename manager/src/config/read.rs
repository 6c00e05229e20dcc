//! From tables to values: which keys there are, and what each means. The schema is what this asks for.

use super::channel::channel;
use super::entries::{entries, quoted};
use super::mistake::{Mistake, Place};
use super::section::{At, Section, Source};
use super::{
    Class, Config, Destination, Drill, File, Hook, HookAt, Host, Job, JobSource, Length, Limits, Media,
    Missed, Read, Retention, Retry, SecretRef, Verify, Worm, rules,
};
use crate::policy::{Compliance, Preset, place};
use bulla_engine::backend::LockMode;
use bulla_engine::retention::Unit;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use toml::de::DeTable;

impl Config {
    /// Reads files that together are one configuration, and judges it as a whole.
    pub fn read(files: &[File]) -> Read {
        let mistakes = RefCell::new(Vec::new());
        let mut config = Self::default();
        for file in files {
            let source = Source { path: &file.path, text: &file.text, mistakes: &mistakes };
            let (table, errors) = DeTable::parse_recoverable(&file.text);
            for e in errors {
                let place = source.place(e.span().unwrap_or(0..0));
                let mistake = Mistake {
                    place,
                    code: "E-TOML-01",
                    what: e.message().to_owned(),
                    fix: "correct the TOML".to_owned(),
                };
                mistakes.borrow_mut().push(mistake);
            }
            let mut section = Section::new(&source, String::new(), Some(table.get_ref()), 0..0);
            config.add(&mut section);
            section.finish();
        }
        let mut mistakes = mistakes.into_inner();
        rules::judge(&config, &mut mistakes);
        config.digest_jobs(files);
        mistakes.sort();
        Read { config, mistakes }
    }

    /// Hashes what is written of each job: keys and values, not where they stand nor what is said beside them.
    fn digest_jobs(&mut self, files: &[File]) {
        let mut written: Vec<(String, String)> =
            entries(files).into_iter().map(|e| (e.key, e.value)).collect();
        written.sort();
        for (name, job) in &self.jobs {
            let named = job.value.to.iter().map(|to| format!("destination.{}.", quoted(&to.value)));
            let retention = job.value.retention.iter().map(|r| format!("retention.{}.", quoted(&r.value)));
            let mut of: Vec<String> = named.chain(retention).collect();
            of.extend([format!("job.{}.", quoted(name)), "host.".to_owned()]);
            let mut hash = blake3::Hasher::new();
            for (key, value) in written.iter().filter(|(key, _)| of.iter().any(|p| key.starts_with(p))) {
                hash.update(format!("{key} = {value}\n").as_bytes());
            }
            self.digests.insert(name.clone(), *hash.finalize().as_bytes());
        }
    }

    /// A hash of what is written of a job.
    pub fn digest(&self, job: &str) -> [u8; 32] {
        self.digests.get(job).copied().unwrap_or_default()
    }

    /// The JSON Schema of a file.
    pub fn schema() -> Value {
        let mistakes = RefCell::new(Vec::new());
        let source = Source { path: Path::new(""), text: "", mistakes: &mistakes };
        let mut section = Section::new(&source, String::new(), None, 0..0);
        Self::default().add(&mut section);
        let mut schema = section.finish();
        if let Some(object) = schema.as_object_mut() {
            object.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
            object.insert("title".to_owned(), json!("bulla's configuration"));
        }
        schema
    }

    fn add(&mut self, section: &mut Section<'_>) {
        let host = section.table("host", "This machine", |s| Some(host(s)));
        if let Some(host) = host {
            let twice = self.host.site.is_some() && host.value.site.is_some()
                || self.host.zone.is_some() && host.value.zone.is_some()
                || self.host.metrics.is_some() && host.value.metrics.is_some();
            if twice {
                section.wrong(
                    host.place.clone(),
                    "E-KEY-04",
                    "the host is described twice",
                    "keep one of them",
                );
            }
            self.host = Host {
                site: host.value.site.or(self.host.site.take()),
                zone: host.value.zone.or(self.host.zone.take()),
                metrics: host.value.metrics.or(self.host.metrics.take()),
            };
        }
        let destinations = section.named("destination", "Where repositories are", destination);
        self.unread.extend(merge(section, &mut self.destinations, destinations, "destination"));
        let retentions = section.named("retention", "What is kept how long", retention);
        self.unread.extend(merge(section, &mut self.retentions, retentions, "retention"));
        let channels = section.named("notify", "Who is told how jobs stand", channel);
        self.unread.extend(merge(section, &mut self.channels, channels, "notify"));
        let jobs = section.named("job", "What is backed up", job);
        merge(section, &mut self.jobs, jobs, "job");
    }
}

/// A name may be given once, in whatever file. Gives the names of what could not be read.
fn merge<T>(
    section: &Section<'_>,
    into: &mut BTreeMap<String, At<T>>,
    found: Vec<(String, At<Option<T>>)>,
    kind: &str,
) -> Vec<String> {
    let mut unread = Vec::new();
    for (name, At { value, place }) in found {
        match (into.get(&name), value) {
            (Some(first), _) => {
                let what = format!("{kind} {name} is described a second time, first at {}", first.place);
                section.wrong(place, "E-KEY-04", what, "give one of them another name");
            }
            (None, Some(value)) => _ = into.insert(name, At { value, place }),
            (None, None) => unread.push(name),
        }
    }
    unread
}

fn host(s: &mut Section<'_>) -> Host {
    let zone = s.parsed::<Zone>("timezone", "Whose hours and days, like Europe/Berlin; UTC without it");
    let metrics = s.text("metrics", "The file for Prometheus that is written after every run");
    if let Some(at) = metrics.as_ref().filter(|at| !Path::new(&at.value).is_absolute()) {
        let what = format!("{:?} depends on where bulla is started", at.value);
        s.wrong(at.place.clone(), "E-VAL-01", what, "write the whole path, from /");
    }
    Host {
        site: s.text("site", "Where the machine stands"),
        zone: zone.map(|at| At { value: at.value.0, place: at.place }),
        metrics,
    }
}

struct Zone(TimeZone);

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let none = |_| format!("no time zone is named {text:?}; say UTC, or one like Europe/Berlin");
        TimeZone::get(text).map(Self).map_err(none)
    }
}

fn destination(s: &mut Section<'_>) -> Option<Destination> {
    let url = s.text("url", "The repository: a path, or an s3:, sftp:, rest: or rclone: URL");
    let url = s.require("url", url, "\"/mnt/backup/bulla\"");
    let options = s.texts("options", "Options of its kind of store, as for -o: [\"s3.profile=b2\"]");
    let options = options.unwrap_or_default().into_iter().map(|at| at.value).collect();
    let key = secret(s, "key", "Where the key file is");
    let password = secret(s, "password", "Where the password is");
    if !s.has("key") && !s.has("password") {
        s.lacks("E-SEC-03", "says of no key and no password where it is", "write key = { file = \"…\" }");
    } else if s.has("key") && s.has("password") {
        s.lacks("E-SEC-03", "has a key and a password", "keep the one that opens the repository");
    }
    let media = [("ssd", Media::Ssd), ("hdd", Media::Hdd), ("tape", Media::Tape), ("cloud", Media::Cloud)];
    let media = s.word("media", "What it lies on", &media);
    let site = s.text("site", "Where that stands");
    let append_only = s.flag("append_only", "This machine cannot delete there").is_some_and(|at| at.value);
    let worm = s.table("worm", "What each run locks there anew, in a bucket with object lock", worm);
    let limits = s.table("limits", "How fast it may be written to and read from", |s| Some(limits(s)));
    let limits = limits.map(|at| at.value).unwrap_or_default();
    Some(Destination { url: url?, options, key, password, media, site, append_only, worm, limits })
}

fn limits(s: &mut Section<'_>) -> Limits {
    let upload =
        s.parsed("upload", "At most this much a second is written, like 10MiB; a bare number is KiB");
    let download = s.parsed("download", "At most this much a second is read, by drills as well");
    Limits { upload: upload.map(|at| at.value), download: download.map(|at| at.value) }
}

fn worm(s: &mut Section<'_>) -> Option<Worm> {
    let modes = [("governance", LockMode::Governance), ("compliance", LockMode::Compliance)];
    let mode =
        s.word("mode", "Who is bound: governance but for who may bypass it, compliance everybody", &modes);
    let keep = s.parsed("keep", "For how long from each run on, like 35d");
    let (mode, keep) = (s.require("mode", mode, "\"governance\""), s.require("keep", keep, "\"35d\""));
    Some(Worm { mode: mode?.value, keep: keep?.value })
}

/// Where a secret is.
pub(super) fn secret(s: &mut Section<'_>, key: &'static str, doc: &str) -> Option<At<SecretRef>> {
    if let Some(place) = s.text_under(key) {
        let what = format!("a {key} never stands in a configuration");
        s.wrong(
            place,
            "E-SEC-01",
            what,
            format!("put it in a file and write {key} = {{ file = \"…\" }}; change the one you wrote here"),
        );
        return None;
    }
    s.table(key, doc, |s| {
        let file = s.text("file", "A file that only its owner can read");
        let systemd = s.text("systemd", "The name of a credential that systemd lays down");
        let command = s.texts("command", "Program and arguments that print it; no shell");
        let fd = s.whole("fd", "A pipe that whoever starts the program leaves open, by its number", 0);
        let words = |list: Vec<At<String>>| SecretRef::Command(list.into_iter().map(|at| at.value).collect());
        let mut found = [
            file.map(|at| SecretRef::File(at.value.into())),
            systemd.map(|at| SecretRef::Systemd(at.value)),
            command.map(words),
            fd.map(|at| SecretRef::Fd(at.value)),
        ]
        .into_iter()
        .flatten();
        let (first, second) = (found.next(), found.next());
        if first.is_none() || second.is_some() {
            s.lacks("E-SEC-03", "has to name one place", "write one of file, systemd, command, fd");
        }
        first
    })
}

fn compliance(s: &mut Section<'_>) -> Vec<At<Compliance>> {
    let mut out = Vec::new();
    for text in s.texts("compliance", "What the data is under: gdpr, hipaa, sox, pci-dss").unwrap_or_default()
    {
        match text.value.parse() {
            Ok(value) => out.push(At { value, place: text.place }),
            Err(why) => s.wrong(text.place, "E-VAL-01", why, "write one of them"),
        }
    }
    out
}

const UNITS: [(Unit, &str, &str); 6] = [
    (Unit::Last, "last", "The newest: how many"),
    (Unit::Hourly, "hourly", "Of each hour the newest: a window like 24h, or how many"),
    (Unit::Daily, "daily", "Of each day the newest: a window like 7d, or how many"),
    (Unit::Weekly, "weekly", "Of each week the newest: a window like 4w, or how many"),
    (Unit::Monthly, "monthly", "Of each month the newest: a window like 12m, or how many"),
    (Unit::Yearly, "yearly", "Of each year the newest: a window like 7y, or how many"),
];

fn retention(s: &mut Section<'_>) -> Option<Retention> {
    let preset = s.parsed::<Preset>("preset", "The rules for a kind of data, changed by those beside it");
    let mut policy = preset.map(|at| at.value.policy()).unwrap_or_default();
    for (unit, key, doc) in UNITS {
        let Some(text) = s.number_or_text(key, doc) else { continue };
        match text.value.parse() {
            Ok(keep) => *place(&mut policy, unit) = Some(keep),
            Err(why) => s.wrong(text.place, "E-VAL-01", format!("{key}: {why}"), "write another value"),
        }
    }
    let compliance = compliance(s);
    if policy.is_empty() {
        s.lacks("E-RET-01", "keeps nothing", "write preset = \"user-data\", or rules such as daily = \"7d\"");
        return None;
    }
    Some(Retention { policy, compliance })
}

fn job(s: &mut Section<'_>) -> Option<Job> {
    let class =
        [("standard", Class::Standard), ("important", Class::Important), ("critical", Class::Critical)];
    let verify = [("off", Verify::Off), ("structure", Verify::Structure), ("new", Verify::New)];
    let system = s.text("system", "What people call it");
    let class = s.word("class", "How much depends on it", &class).map_or(Class::Standard, |at| at.value);
    let rto = s.parsed("rto", "How long a restore may take, like 2h");
    let rpo = s.parsed("rpo", "How old the newest backup may be, like 1d2h");
    let owner = s.text("owner", "Whom to ask");
    let found = s.table("source", "What is backed up", source);
    let found = s.require("source", found, "{ paths = [\"/home\"] }");
    let to = s.texts("to", "Where to: names of destinations");
    let to = s.require("to", to, "[\"disk\"]");
    let schedule =
        s.parsed("schedule", "When: five fields of cron, or OnCalendar= and an expression as for systemd");
    let retention = s.text("retention", "How long it is kept: a retention's name, or a preset's");
    let compliance = compliance(s);
    let verify = s.word(
        "verify",
        "What is proved after each run: off, structure, new (what was written reads back)",
        &verify,
    );
    let verify = verify.map_or(Verify::New, |at| at.value);
    let drill = s.table("drill", "How a restore is tried", |s| Some(drill(s)));
    let drill = drill.map(|at| at.value).unwrap_or_default();
    let hooks = s.tables("hooks", "Commands around the backup", hook);
    let retry = s.table("retry", "How often is tried again what may pass by itself", |s| Some(retry(s)));
    let missed = s.word("missed", "What becomes of a run that was missed", &MISSED);
    let notify = s.texts("notify", "Who is told how it stands: names of notify tables").unwrap_or_default();
    promises(s, class, verify);
    if to.as_ref().is_some_and(Vec::is_empty) {
        s.lacks("E-DST-01", "goes nowhere", "name a destination in to = [\"…\"]");
    }
    let (source, to) = (found?, to?);
    Some(Job {
        system,
        class,
        rto,
        rpo,
        owner,
        source,
        to,
        schedule,
        retention,
        compliance,
        verify,
        drill,
        notify,
        hooks,
        retry: retry.map(|at| at.value).unwrap_or_default(),
        missed: missed.map_or(Missed::RunOnce, |at| at.value),
    })
}

const MISSED: [(&str, Missed); 2] = [("run-once", Missed::RunOnce), ("skip", Missed::Skip)];

/// How long a hook may take that says nothing of it.
const HOOK_TIMEOUT: Length = Length::of_seconds(600);

fn hook(s: &mut Section<'_>) -> Option<Hook> {
    let times = [
        ("before", HookAt::Before),
        ("after", HookAt::After),
        ("on_fail", HookAt::OnFail),
        ("finally", HookAt::Finally),
    ];
    let at = s.word("at", "When: before the source is read, after, on_fail, finally in any case", &times);
    let at = s.require("at", at, "\"before\"");
    let command = s.texts("command", "Program and arguments; no shell");
    let command = s.require("command", command, "[\"/usr/local/bin/freeze\"]");
    let fails = [("abort", true), ("warn", false)];
    let doc =
        "If it fails: abort (the run fails; without it for before), warn (that is told; for the others)";
    let abort = s.word("on_fail", doc, &fails);
    let timeout = s.parsed("timeout", "How long it may take, like 30s; 10m without it");
    if command.as_ref().is_some_and(Vec::is_empty) {
        s.lacks("E-HOK-01", "has an empty command", "name a program");
        return None;
    }
    let (at, command) = (at?.value, command?.into_iter().map(|at| at.value).collect());
    let abort = abort.map_or(at == HookAt::Before, |abort| abort.value);
    Some(Hook { at, command, abort, timeout: timeout.map_or(HOOK_TIMEOUT, |at| at.value) })
}

fn retry(s: &mut Section<'_>) -> Retry {
    let attempts = s.whole("attempts", "How often it is tried in all; 3 without it", 1);
    let backoff = s.parsed("backoff", "How long is waited in between, like 2m..20m");
    let default = Retry::default();
    Retry {
        attempts: attempts.map_or(default.attempts, |at| at.value),
        backoff: backoff.map_or(default.backoff, |at| at.value),
    }
}

/// What has to be said of a job. What is there and cannot be read is another mistake, told already.
fn promises(s: &Section<'_>, class: Class, verify: Verify) {
    let need = "what you need and not what you have";
    let owner = "whom to ask when it has to be restored: the recovery procedure names them";
    for (key, example, why) in
        [("rto", "2h", need), ("rpo", "1d2h", need), ("owner", "ops@example.net", owner)]
    {
        if class >= Class::Important && !s.has(key) {
            let fix = format!("write {key} = \"{example}\", {why}");
            s.lacks("E-JOB-04", format!("is important and has no {key}"), fix);
        }
    }
    if class == Class::Critical && verify < Verify::New {
        s.lacks("E-VER-01", "is critical and what it writes is not read back", "write verify = \"new\"");
    }
    if !s.has("schedule") {
        s.lacks(
            "W-SCH-01",
            "has no schedule",
            "write schedule = \"30 1 * * *\" or \"OnCalendar=01:30\", or run it yourself",
        );
    }
}

fn drill(s: &mut Section<'_>) -> Drill {
    let command =
        s.texts("command", "Program and arguments that judge what was restored, run in its directory");
    let command = command.filter(|c| {
        if c.is_empty() {
            s.lacks("E-DRL-01", "has an empty command", "name a program, or leave command out");
        }
        !c.is_empty()
    });
    let target = s.text("target", "Below which directory it is restored");
    let doc = "hourly, daily, weekly, monthly, quarterly, yearly, or as for schedule";
    let sample = s.parsed("sample", &format!("When a sample is restored: {doc}"));
    let full = s.parsed("full", &format!("When everything is: {doc}"));
    let app = s.parsed("app", &format!("When the command judges everything: {doc}"));
    if app.is_some() && !s.has("command") {
        s.lacks(
            "E-DRL-02",
            "says when its command judges, and has none",
            "write command = [\"…\"], or leave app out",
        );
    }
    let timeout = s.parsed("timeout", "How long the command may take, like 30m");
    let expect = s.parsed_by_name(
        "expect",
        "What is expected of numbers in the JSON object that the command prints, like rows = \">= 10\" or \">= previous*0.98\"",
    );
    if !s.has("command") && (s.has("timeout") || s.has("expect")) {
        let what = "says something about a command, and has none";
        s.lacks("E-DRL-03", what, "write command = [\"…\"], or leave timeout and expect out");
    }
    Drill { command, timeout, expect, target, sample, full, app }
}

fn source(s: &mut Section<'_>) -> Option<JobSource> {
    let paths = s.texts("paths", "Files and directories");
    let exclude = s.texts("exclude", "Patterns of what is left out").unwrap_or_default();
    let one_file_system =
        s.flag("one_file_system", "Stay on the file systems of the paths").is_some_and(|at| at.value);
    let must_exist = s.texts("must_exist", "Paths without which the source is not there").unwrap_or_default();
    let command = s.texts("command", "Program and arguments whose output is backed up; no shell");
    let pipeline = s.text_lists("pipeline", "Several of them, each reading what the one before it prints");
    let block = s.text("block", "A block device, or a file that holds an image of one");
    let name = s.text("as", "The name of the file that a command's output, or a device, becomes");
    let magic = s.text("magic", "How a command's output has to begin");
    let min_size = s.parsed("min_size", "How long a command's output has to be at least, like 2GiB");
    let timeout = s.parsed("timeout", "How long a command may take, like 45m");
    let commands = match (command, pipeline) {
        (Some(command), None) => Some(vec![command]),
        (None, pipeline) => pipeline,
        (Some(_), Some(_)) => Some(Vec::new()),
    };
    match (paths, commands, block) {
        (None, None, Some(path)) => {
            if magic.is_some() || min_size.is_some() || timeout.is_some() {
                let what = "says something about a command's output, and has no command";
                s.lacks("E-SRC-01", what, "leave magic, min_size and timeout out");
            }
            Some(JobSource::Block { path, name })
        }
        (Some(paths), None, None) if !paths.is_empty() => {
            if name.is_some() || magic.is_some() || min_size.is_some() || timeout.is_some() {
                let what = "says something about a command's output, and has no command";
                s.lacks("E-SRC-01", what, "leave as, magic, min_size and timeout out");
            }
            Some(JobSource::Paths { paths, exclude, one_file_system, must_exist })
        }
        (None, Some(pipeline), None) if !pipeline.is_empty() && pipeline.iter().all(|c| !c.is_empty()) => {
            let Some(name) = name else {
                s.lacks("E-SRC-01", "has a command and no name for its output", "write as = \"dump\"");
                return None;
            };
            Some(JobSource::Command { pipeline, name, magic, min_size, timeout })
        }
        _ => {
            s.lacks(
                "E-SRC-01",
                "has to say one thing to back up",
                "write either paths, command (or pipeline) or block, not empty",
            );
            None
        }
    }
}

impl Config {
    /// Files that hold secrets, with where each is named.
    pub fn secret_files(&self) -> Vec<(PathBuf, Place)> {
        let secrets = self.destinations.values().flat_map(|d| [&d.value.key, &d.value.password]);
        let file = |secret: &At<SecretRef>| match &secret.value {
            SecretRef::File(path) => Some((path.clone(), secret.place.clone())),
            _ => None,
        };
        let channels = self.channels.values().filter_map(|channel| channel.value.secret());
        secrets.flatten().chain(channels).filter_map(file).collect()
    }
}
