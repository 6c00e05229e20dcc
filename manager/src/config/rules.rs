//! What a configuration as a whole must not say. Each rule has its code; what it needs beyond the text (files, stores) is
//! judged elsewhere.

use super::mistake::{Mistake, meant};
use super::section::At;
use super::{Class, Config, Destination, Job, JobSource, Length, Means, Retention};
use crate::policy::{Compliance, Preset, rules, slot_hours};
use bulla_engine::retention::{Keep, Policy, Unit};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Display;
use std::path::{Component, Path, PathBuf};

/// Adds what is wrong.
pub(super) fn judge(config: &Config, mistakes: &mut Vec<Mistake>) {
    let mut judge = Judge { config, mistakes };
    for (name, retention) in &config.retentions {
        judge.terms(
            &format!("retention {name}"),
            retention,
            &retention.value.policy,
            &retention.value.compliance,
        );
    }
    for (name, destination) in &config.destinations {
        judge.lock(name, &destination.value);
    }
    for (name, job) in &config.jobs {
        judge.names(name, job);
        judge.copies(name, job);
        judge.channels(name, job);
        judge.at_hand(name, job);
        judge.source(name, job);
        if let Some((at, retention)) = config.retention_of(&job.value) {
            judge.terms(&format!("job {name}"), at, &retention.policy, &job.value.compliance);
            judge.pace(name, job, Some((at, &retention)));
        } else {
            judge.pace(name, job, None);
        }
    }
}

impl Config {
    /// The retention of a job: one that is described, or a preset; with the place where the job names it.
    pub fn retention_of<'j>(&self, job: &'j Job) -> Option<(&'j At<String>, Retention)> {
        let name = job.retention.as_ref()?;
        let preset = || {
            name.value.parse::<Preset>().ok().map(|p| Retention { policy: p.policy(), compliance: vec![] })
        };
        self.retentions.get(&name.value).map(|at| at.value.clone()).or_else(preset).map(|found| (name, found))
    }
}

impl Config {
    /// What a job's data is under, by itself and by its retention, each once.
    pub fn terms_of(&self, job: &Job) -> Vec<Compliance> {
        let retention = self.retention_of(job).map(|(_, retention)| retention.compliance);
        let mut terms: Vec<Compliance> = Vec::new();
        for at in retention.iter().flatten().chain(&job.compliance) {
            if !terms.contains(&at.value) {
                terms.push(at.value);
            }
        }
        terms
    }

    /// The destinations of a job that can be read at once.
    pub fn at_hand<'j>(&self, job: &'j Job) -> Vec<&'j str> {
        let here = |to: &&At<String>| self.destinations.get(&to.value).is_some_and(|d| d.value.is_at_hand());
        job.to.iter().filter(here).map(|to| to.value.as_str()).collect()
    }
}

struct Judge<'a> {
    config: &'a Config,
    mistakes: &'a mut Vec<Mistake>,
}

impl Judge<'_> {
    fn say<T>(&mut self, at: &At<T>, code: &'static str, what: impl Display, fix: impl Display) {
        let mistake = Mistake { place: at.place.clone(), code, what: what.to_string(), fix: fix.to_string() };
        // A retention of many jobs is wrong once.
        if !self.mistakes.contains(&mistake) {
            self.mistakes.push(mistake);
        }
    }

    /// Names that are used exist.
    fn names(&mut self, name: &str, job: &At<Job>) {
        let (config, job) = (self.config, &job.value);
        let known: Vec<&str> = config.destinations.keys().map(String::as_str).collect();
        let missing =
            |to: &&At<String>| !known.contains(&to.value.as_str()) && !config.unread.contains(&to.value);
        for to in job.to.iter().filter(missing) {
            let what = format!("job {name} goes to {:?}, and no destination is named so", to.value);
            self.say(to, "E-REF-01", what, meant(&to.value, known.clone()));
        }
        let unknown =
            |at: &&At<String>| config.retention_of(job).is_none() && !config.unread.contains(&at.value);
        if let Some(at) = job.retention.as_ref().filter(unknown) {
            let presets = Preset::ALL.map(Preset::name);
            let names: Vec<&str> = config.retentions.keys().map(String::as_str).chain(presets).collect();
            let what =
                format!("job {name} is kept by {:?}, and no retention or preset is named so", at.value);
            self.say(at, "E-REF-01", what, meant(&at.value, names));
        }
    }

    /// Only buckets have object lock; whether one has is for the first run to see, since it has to ask.
    fn lock(&mut self, name: &str, destination: &Destination) {
        if let Some(worm) = destination.worm.as_ref().filter(|_| !destination.url.value.starts_with("s3:")) {
            let what =
                format!("destination {name} has worm, and no object lock: only buckets behind s3: have");
            self.say(worm, "E-DST-03", what, "leave worm out, or let url name a bucket with object lock");
        }
    }

    /// Who is told exists; of what matters most two are told, since one may have failed for long; and nobody is told by one
    /// job that another one is well.
    fn channels(&mut self, name: &str, job: &At<Job>) {
        let config = self.config;
        let known: Vec<&str> = config.channels.keys().map(String::as_str).collect();
        for at in &job.value.notify {
            if !known.contains(&at.value.as_str()) && !config.unread.contains(&at.value) {
                let what = format!("job {name} tells {:?}, and no notify is named so", at.value);
                self.say(at, "E-REF-01", what, meant(&at.value, known.clone()));
                continue;
            }
            let is_ping = |c: &At<_>| matches!(c.value, super::Channel { means: Means::Ping { .. }, .. });
            let other = config.jobs.iter().find(|(other, job)| {
                other.as_str() < name && job.value.notify.iter().any(|named| named.value == at.value)
            });
            if let Some((other, _)) = other.filter(|_| config.channels.get(&at.value).is_some_and(is_ping)) {
                let what =
                    format!("jobs {other} and {name} ping {}: one hides that the other is dead", at.value);
                self.say(at, "W-NOT-02", what, "let each have a check of its own");
            }
        }
        let mut named: Vec<&String> = job.value.notify.iter().map(|at| &at.value).collect();
        named.sort();
        named.dedup();
        if job.value.class == Class::Critical && named.len() < 2 {
            let told = if named.is_empty() { "nobody is told" } else { "only one channel tells" };
            let what = format!("job {name} is critical and {told} how it stands");
            self.say(
                job,
                "W-NOT-01",
                what,
                "name two in notify = [\"…\", \"…\"]: one may be broken for long",
            );
        }
    }

    /// Copies on one site are lost together.
    fn copies(&mut self, name: &str, job: &At<Job>) {
        let found = job.value.to.iter().filter_map(|to| self.config.destinations.get(&to.value));
        let sites: Vec<_> = found.map(|d| d.value.site.as_ref().map(|at| &at.value)).collect();
        let home = self.config.host.site.as_ref().map(|at| &at.value);
        let elsewhere = sites.iter().any(|site| site.is_some() && *site != home) && home.is_some();
        if job.value.class == Class::Critical && !sites.is_empty() && !elsewhere {
            let what = format!(
                "job {name} is critical and no destination is known to be on another site than this machine"
            );
            self.say(
                job,
                "E-DST-02",
                what,
                "add a destination elsewhere, and say site = \"…\" of the host and of it",
            );
        }
    }

    /// What has to be at hand is nowhere but on tape. That it is kept long enough is another rule ([`Self::terms`]): what is
    /// at hand is kept as long as the rest.
    fn at_hand(&mut self, name: &str, job: &At<Job>) {
        let config = self.config;
        let hot = |c: Compliance| c.hot().map(|hot| (c, hot));
        let known = job.value.to.iter().all(|to| config.destinations.contains_key(&to.value));
        let (Some((term, hot)), Some(first)) =
            (config.terms_of(&job.value).into_iter().find_map(hot), job.value.to.first())
        else {
            return;
        };
        if !known || !config.at_hand(&job.value).is_empty() {
            return;
        }
        let names = job.value.to.iter().map(|to| to.value.as_str());
        let other = config.destinations.iter().find(|(_, d)| d.value.is_at_hand());
        let all: Vec<String> =
            names.chain(other.map(|(name, _)| name.as_str())).map(|n| format!("{n:?}")).collect();
        let fix = match other {
            Some(_) => format!("the smallest change: to = [{}]", all.join(", ")),
            None => format!(
                "describe a destination on other media, like media = \"hdd\", and name it: to = [{}, \"…\"]",
                all.join(", ")
            ),
        };
        let what =
            format!("job {name}: {term} wants the newest {hot} at hand, and all its destinations are tapes");
        self.say(first, "E-CMP-02", what, fix);
    }

    /// A source that holds its own backup grows for ever; a compressed one is stored whole each time.
    fn source(&mut self, name: &str, job: &At<Job>) {
        match &job.value.source.value {
            JobSource::Paths { paths, exclude, .. } => {
                for to in job.value.to.iter().filter_map(|to| self.config.destinations.get(&to.value)) {
                    let Some(place) = local(&to.value.url.value) else { continue };
                    let inside = |path: &&At<String>| {
                        plain(Path::new(&path.value)).is_some_and(|p| place.starts_with(p))
                    };
                    let left_out = exclude
                        .iter()
                        .any(|e| plain(Path::new(&e.value)).is_some_and(|e| place.starts_with(e)));
                    if let Some(path) = paths.iter().find(inside).filter(|_| !left_out) {
                        let what = format!(
                            "job {name} backs up {}, and its destination {} lies in it",
                            path.value,
                            place.display()
                        );
                        self.say(
                            path,
                            "E-SRC-06",
                            what,
                            format!("write exclude = [\"{}\"], or move it", place.display()),
                        );
                    }
                }
                for path in paths.iter().filter(|p| !Path::new(&p.value).is_absolute()) {
                    let what =
                        format!("job {name} backs up {:?}, which depends on where it is started", path.value);
                    self.say(path, "E-SRC-02", what, "write the whole path, from /");
                }
            }
            JobSource::Block { path, .. } if !Path::new(&path.value).is_absolute() => {
                let what =
                    format!("job {name} backs up {:?}, which depends on where it is started", path.value);
                self.say(path, "E-SRC-02", what, "write the whole path, from /");
            }
            JobSource::Block { .. } => {}
            JobSource::Command { pipeline, .. } => {
                for command in pipeline {
                    let words: Vec<&str> = command.iter().map(|at| at.value.as_str()).collect();
                    if let Some((at, fix)) = command.first().zip(compressed(&words)) {
                        let what =
                            format!("job {name} backs up compressed data, in which nothing is found again");
                        self.say(at, "W-SRC-02", what, fix);
                    }
                }
            }
        }
    }

    /// A policy shorter than what the data is under.
    fn terms<T>(&mut self, whose: &str, at: &At<T>, policy: &Policy, under: &[At<Compliance>]) {
        for compliance in under {
            if let Some(short) = compliance.value.shortfall(policy) {
                let what = format!(
                    "{whose}: {} wants {}, and this keeps {}",
                    compliance.value, short.min, short.reach
                );
                self.say(
                    at,
                    "E-CMP-01",
                    what,
                    format!("the smallest change: {} = \"{}\"", short.fix.0, short.fix.1),
                );
            }
        }
    }

    /// Runs come often enough for what is promised and kept.
    fn pace(&mut self, name: &str, job: &At<Job>, kept: Option<(&At<String>, &Retention)>) {
        let Some(schedule) = &job.value.schedule else { return };
        let zone = self.config.host.zone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.clone());
        // A year with both changes of the clock; any other has the same gaps.
        let from = Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(zone);
        let Some((_, longest)) = schedule.value.gaps(&from) else { return };
        if let Some(rpo) = job.value.rpo.as_ref().filter(|rpo| rpo.value < longest) {
            let what = format!(
                "job {name} promises to lose no more than {}, and {longest} may pass between runs",
                rpo.value
            );
            self.say(rpo, "E-RET-05", what, "let it run more often, or promise less");
        }
        let Some((at, retention)) = kept else { return };
        let finest = rules(&retention.policy)
            .into_iter()
            .find(|(unit, keep)| *unit != Unit::Last && !matches!(keep, Keep::Count(0)));
        let short = |unit| slot_hours(unit).is_some_and(|hours| Length::of_seconds(hours * 3600) < longest);
        if let Some((unit, _)) = finest.filter(|(unit, _)| short(*unit)) {
            let what = format!("job {name} keeps {unit} backups, and {longest} may pass between runs");
            self.say(at, "E-RET-03", what, "let it run more often, or take that rule away");
        }
    }
}

/// The directory of a local repository; nothing if it depends on where the program is started, or is a URL.
pub(crate) fn local(url: &str) -> Option<PathBuf> {
    let path = url.strip_prefix("file:").map_or(url, |p| p.strip_prefix("//").unwrap_or(p));
    plain(Path::new(path))
}

/// An absolute path without dots.
fn plain(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = out.pop(),
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    Some(out)
}

/// What to change in a command that is known to compress.
fn compressed(words: &[&str]) -> Option<&'static str> {
    let program = Path::new(words.first()?).file_name()?.to_str()?;
    let has = |word: &str| words.contains(&word);
    let custom = has("-Fc") || has("-Fd") || has("--format=custom") || has("--format=c");
    let off = has("-Z0") || has("--compress=0") || has("--compress=none");
    match program {
        "pg_dump" if custom && !off => Some("add \"-Z0\": bulla compresses"),
        "gzip" | "pigz" | "xz" | "bzip2" | "zstd" => Some("leave the compressor out: bulla compresses"),
        "tar" if has("-z") || has("-J") || has("-czf") || has("--gzip") || has("--zstd") => {
            Some("leave the compression out: bulla compresses")
        }
        _ => None,
    }
}
