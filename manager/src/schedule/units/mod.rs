//! The units of systemd that run jobs when they are due: a service and a timer for each job with a schedule, and for each
//! whose drills have one, pure texts.
//!
//! A service may read everything, and write only where its job needs to; it reaches the network only if its job does. What
//! is hidden from it would be missing in its backups, so nothing is hidden that a source covers. What a unit cannot say is
//! refused, and everything else quoted.

mod needs;

use super::Schedule;
use crate::config::{Config, Job};
use needs::Needs;
use std::path::Path;

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The job's name.
    pub job: String,
    /// The file's name.
    pub name: String,
    /// What is in the file.
    pub text: String,
}

/// The first line of every unit made from a configuration; nothing else begins with it.
pub fn marker(config: &Path) -> Result<String, String> {
    let config = quoted(config)?;
    Ok(format!("# Written by \"bulla schedule install\" from {config}; changes here are lost.\n"))
}

/// The units of all jobs with a schedule, made for a program and a configuration, both with their whole paths. Else all
/// that cannot be said in a unit.
pub fn units(config: &Config, program: &Path, file: &Path) -> Result<Vec<Unit>, Vec<String>> {
    let (mut out, mut wrong) = (Vec::new(), Vec::new());
    for (name, job) in &config.jobs {
        match of_job(config, name, &job.value, program, file) {
            Ok(units) => out.extend(units),
            Err(why) => wrong.push(format!("{}: job {name}: {why}", job.place)),
        }
    }
    match of_watch(config, program, file) {
        Ok(units) => out.extend(units),
        Err(why) => wrong.push(format!("{}: {why}", file.display())),
    }
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

/// What stands for a job's name in the units that tell what did not happen, which no job can tell itself.
const WATCH: &str = "notify";

/// The units that run `bulla notify` every quarter of an hour, if anybody is told anything.
fn of_watch(config: &Config, program: &Path, file: &Path) -> Result<Vec<Unit>, String> {
    let tells = |job: &&Job| !job.notify.is_empty();
    if !config.jobs.values().map(|at| &at.value).any(|job| tells(&job)) {
        return Ok(Vec::new());
    }
    if let Some(job) = config.jobs.get(WATCH).filter(|job| job.value.schedule.is_some()) {
        return Err(format!("{}: job {WATCH} has the name of the units that tell; rename it", job.place));
    }
    let mut needs = Needs::none();
    let mut touched = vec![program.to_owned(), file.to_owned()];
    let measures = config.host.metrics.is_some();
    for job in config.jobs.values().map(|at| &at.value).filter(|job| measures || tells(job)) {
        needs.store(config, job, &mut touched)?;
    }
    // It looks, and writes nothing there.
    needs.writes.clear();
    for job in config.jobs.values() {
        needs.tell(config, &job.value, &mut touched)?;
    }
    needs.settle(&touched);
    let service = format!(
        "{}[Unit]\nDescription=Tell what becomes of backup jobs\n{}\n[Service]\nType=oneshot\n\
         ExecStart=:{} notify --config {}\n{COURTESY}{}",
        marker(file)?,
        needs.order(),
        quoted(program)?,
        quoted(file)?,
        needs.sandbox()?,
    );
    let timer = format!(
        "{}[Unit]\nDescription=When it is told what becomes of backup jobs\n\n[Timer]\nOnCalendar=*:00/15\n\
         RandomizedDelaySec=1min\n\n[Install]\nWantedBy=timers.target\n",
        marker(file)?,
    );
    let unit = |kind: &str, text| Unit { job: WATCH.to_owned(), name: format!("bulla-{WATCH}.{kind}"), text };
    Ok(vec![unit("service", service), unit("timer", timer)])
}

/// Longer names of files than 255 bytes there are not.
const NAME_MAX: usize = 200;

fn of_job(config: &Config, name: &str, job: &Job, program: &Path, file: &Path) -> Result<Vec<Unit>, String> {
    let drill = &job.drill;
    let drills: Vec<&Schedule> =
        [&drill.sample, &drill.full, &drill.app].into_iter().flatten().map(|at| &at.value.0).collect();
    if job.schedule.is_none() && drills.is_empty() {
        return Ok(Vec::new());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(plain)
        || name.len() > NAME_MAX
    {
        return Err(
            "its name cannot be a unit's: use letters, digits, . _ and -, and begin with a letter or digit"
                .to_owned(),
        );
    }
    let mut out = Vec::new();
    if let Some(schedule) = &job.schedule {
        let verb = format!("run {name}");
        let about = format!("Backup job {name}");
        let needs = Needs::of(config, job, program, file)?;
        let texts = pair(config, program, file, (&about, &verb), &needs, &[&schedule.value], "2min")?;
        out.extend(units_of(name, name, texts));
    }
    if !drills.is_empty() {
        let as_unit = format!("{name}-drill");
        if config.jobs.contains_key(&as_unit) {
            return Err(format!("its drills' units would be those of job {as_unit}; rename one of the two"));
        }
        let verb = format!("drill {name} --due");
        let about = format!("Restore drills of backup job {name}");
        let needs = Needs::of(config, job, program, file)?.for_drills(job)?;
        let texts = pair(config, program, file, (&about, &verb), &needs, &drills, "1h")?;
        out.extend(units_of(name, &as_unit, texts));
    }
    Ok(out)
}

fn units_of(job: &str, unit: &str, [service, timer]: [String; 2]) -> [Unit; 2] {
    let of = |kind: &str, text| Unit { job: job.to_owned(), name: format!("bulla-{unit}.{kind}"), text };
    [of("service", service), of("timer", timer)]
}

/// A service and its timer.
fn pair(
    config: &Config,
    program: &Path,
    file: &Path,
    (about, verb): (&str, &str),
    needs: &Needs,
    schedules: &[&Schedule],
    spread: &str,
) -> Result<[String; 2], String> {
    let head = marker(file)?;
    let service = format!(
        "{head}[Unit]\nDescription={about}\n{}\n[Service]\nType=oneshot\n\
         ExecStart=:{} {verb} --config {}\n{COURTESY}{}",
        needs.order(),
        quoted(program)?,
        quoted(file)?,
        needs.sandbox()?,
    );
    let mut lines = String::new();
    for schedule in schedules {
        let zone = schedule.zone().or(config.host.zone.as_ref().map(|at| &at.value));
        let zone = match zone {
            Some(zone) => zone.iana_name().ok_or("its time zone has no name")?,
            None => "UTC",
        };
        lines.extend(schedule.on_calendar().into_iter().map(|line| format!("OnCalendar={line} {zone}\n")));
    }
    let timer = format!(
        "{head}[Unit]\nDescription=When {about} is due\n\n[Timer]\n{lines}Persistent=true\n\
         RandomizedDelaySec={spread}\nAccuracySec=1m\n\n[Install]\nWantedBy=timers.target\n",
    );
    Ok([service, timer])
}

/// It stands back behind everything else, may take its time (a first backup over a thin line takes days), and is asked to
/// stop as by Ctrl-C, alone: its ssh has to live until the last pack is there.
const COURTESY: &str = "\
User=root
Nice=19
IOSchedulingClass=idle
TimeoutStartSec=7d
TimeoutStopSec=5min
KillSignal=SIGINT
KillMode=mixed
StateDirectory=bulla
StateDirectoryMode=0700
CacheDirectory=bulla
CacheDirectoryMode=0700
UMask=0077
";

/// A path as one word of a unit.
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    let text =
        text.ok_or_else(|| format!("a unit cannot name {path:?}: it holds control characters or no text"))?;
    if !path.is_absolute() {
        return Err(format!("a unit needs a whole path, from /, and not {text:?}"));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

/// A path where a unit takes no quotes.
fn plain_word(path: &Path) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || "\"'\\%".contains(c);
    let text = path.to_str().filter(|text| !text.chars().any(|c| odd(c) || c.is_control()));
    text.map(str::to_owned).ok_or_else(|| format!("a unit cannot name the device {path:?}"))
}

#[cfg(test)]
mod tests;
