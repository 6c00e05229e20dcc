//! `bulla schedule`: units of systemd for the jobs of a configuration, shown, installed and taken away. What is in them is
//! the manager's ([`bulla_manager::schedule::units`]); here they meet a directory, in which only files that begin with our
//! first line are ever changed.

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::json::SCHEMA;
use bulla_engine::Error;
use bulla_manager::schedule::units::{Unit, marker, units};
use clap::Subcommand;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What `schedule` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the units of all jobs that have a schedule
    Show {
        /// Only of this job
        job: Option<String>,
        #[command(flatten)]
        files: ConfigArgs,
    },
    /// Write the units, and take away those of jobs that are gone
    Install(Target),
    /// Take away all units that were installed from this configuration
    Remove(Target),
}

#[derive(Debug, clap::Args)]
struct Target {
    #[command(flatten)]
    files: ConfigArgs,
    /// Where units are; systemd is told of them only where it looks for them
    #[arg(long, value_name = "DIR", default_value = SYSTEM)]
    dir: PathBuf,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const SYSTEM: &str = "/etc/systemd/system";

/// Does it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.what {
        What::Show { job, files } => show(context, job.as_deref(), files),
        What::Install(target) => change(context, target, made(&target.files)?),
        // The configuration may be gone: its name suffices.
        What::Remove(target) => change(context, target, Vec::new()),
    }
}

fn main_file(files: &ConfigArgs) -> Outcome<PathBuf> {
    let file = files.main();
    std::path::absolute(&file).map_err(|e| Error::io("find", &file, e).into())
}

fn made(files: &ConfigArgs) -> Outcome<Vec<Unit>> {
    let (config, _) = files.read()?.sound()?;
    let program =
        std::env::current_exe().map_err(|e| Failure::Failed(format!("cannot find this program: {e}")))?;
    units(&config, &program, &main_file(files)?).map_err(|wrong| Failure::Usage(wrong.join("\n")))
}

#[derive(Serialize)]
struct Shown {
    message_type: &'static str,
    schema_version: u32,
    units: Vec<UnitText>,
}

#[derive(Serialize)]
struct UnitText {
    job: String,
    name: String,
    text: String,
}

fn show(context: &Context<'_>, job: Option<&str>, files: &ConfigArgs) -> Outcome {
    let mut all = made(files)?;
    if let Some(job) = job {
        let names: BTreeSet<String> = all.iter().map(|unit| unit.job.clone()).collect();
        all.retain(|unit| unit.job == job);
        if all.is_empty() {
            let names: Vec<String> = names.into_iter().collect();
            let there = if names.is_empty() { "none has".to_owned() } else { names.join(", ") + " have" };
            return Err(Failure::Usage(format!("no job with a schedule is named {job:?}; {there} one")));
        }
    }
    if context.ui.json {
        let text = |unit: Unit| UnitText { job: unit.job, name: unit.name, text: unit.text };
        let units = all.into_iter().map(text).collect();
        context.ui.document(&Shown { message_type: "units", schema_version: SCHEMA, units })?;
        return Ok(Code::Done);
    }
    let mut out = context.ui.results();
    for (at, unit) in all.iter().enumerate() {
        let space = if at == 0 { "" } else { "\n" };
        out.line(format!("{space}# {}\n{}", unit.name, unit.text.trim_end()))?;
    }
    out.finish()?;
    Ok(Code::Done)
}

/// What becomes of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Fate {
    New,
    Changed,
    Unchanged,
    Gone,
}

#[derive(Serialize)]
struct Change {
    unit: String,
    change: Fate,
}

#[derive(Serialize)]
struct Changed {
    message_type: &'static str,
    schema_version: u32,
    dir: String,
    dry_run: bool,
    units: Vec<Change>,
    /// Commands that make systemd follow.
    next: Vec<String>,
    /// They were run.
    followed: bool,
}

/// Makes the directory hold these units of ours and no others. Nothing is done if one of them is somebody else's.
fn change(context: &Context<'_>, target: &Target, units: Vec<Unit>) -> Outcome {
    let dir = &target.dir;
    let ours = marker(&main_file(&target.files)?).map_err(Failure::Usage)?;
    let changes = compare(dir, &ours, &units)?;
    let next = next(&changes);
    if !target.dry_run {
        for change in changes.iter().filter(|change| change.change == Fate::Gone) {
            take_away(dir, &change.unit)?;
        }
        for change in changes.iter().filter(|c| matches!(c.change, Fate::New | Fate::Changed)) {
            if let Some(unit) = units.iter().find(|unit| unit.name == change.unit) {
                write(dir, unit)?;
            }
        }
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io("write", dir, e))?;
    }
    // Started by systemd, and where it looks.
    let followed = !target.dry_run && dir == Path::new(SYSTEM) && Path::new("/run/systemd/system").is_dir();
    say(context, target, changes, &next, followed)?;
    if followed {
        next.iter().try_for_each(|words| systemctl(words))?;
    }
    Ok(Code::Done)
}

/// What would become of each unit. What is there already and does not begin with our line is not ours.
fn compare(dir: &Path, ours: &str, units: &[Unit]) -> Outcome<Vec<Change>> {
    let (mut out, mut foreign) = (Vec::new(), Vec::new());
    for unit in units {
        let path = dir.join(&unit.name);
        let change = match fs::symlink_metadata(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => Fate::New,
            Err(e) => return Err(Error::io("look at", &path, e).into()),
            Ok(_) => match our_text(&path, ours)? {
                Some(text) if text == unit.text.as_bytes() => Fate::Unchanged,
                Some(_) => Fate::Changed,
                None => {
                    foreign.push(path.display().to_string());
                    continue;
                }
            },
        };
        out.push(Change { unit: unit.name.clone(), change });
    }
    if !foreign.is_empty() {
        return Err(Error::Refused(format!(
            "not installed from this configuration, and left alone: {}; rename the job, or take them away (for another \
             configuration: bulla schedule remove --config THAT)",
            foreign.join(", ")
        ))
        .into());
    }
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_unit = name.starts_with("bulla-") && (name.ends_with(".service") || name.ends_with(".timer"));
        let wanted = units.iter().any(|unit| unit.name == name);
        if is_unit && !wanted && our_text(&entry.path(), ours)?.is_some() {
            out.push(Change { unit: name, change: Fate::Gone });
        }
    }
    out.sort_by(|a, b| a.unit.cmp(&b.unit));
    Ok(out)
}

/// What is in a file that begins with our line.
fn our_text(path: &Path, ours: &str) -> Outcome<Option<Vec<u8>>> {
    if !fs::symlink_metadata(path).is_ok_and(|m| m.is_file()) {
        return Ok(None);
    }
    let text = fs::read(path).map_err(|e| Error::io("read", path, e))?;
    Ok(text.starts_with(ours.as_bytes()).then_some(text))
}

/// A unit is there whole or not at all.
fn write(dir: &Path, unit: &Unit) -> Outcome<()> {
    let (path, temporary) = (dir.join(&unit.name), dir.join(format!(".{}.new", unit.name)));
    let written = || {
        // Left by one that was cut off.
        match fs::remove_file(&temporary) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&temporary)?;
        file.write_all(unit.text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    written().map_err(|e| Error::io("write", &path, e).into())
}

/// Also the link by which a timer was enabled, which would name nothing.
fn take_away(dir: &Path, name: &str) -> Outcome<()> {
    let path = dir.join(name);
    fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
    let link = dir.join("timers.target.wants").join(name);
    if fs::symlink_metadata(&link).is_ok_and(|m| m.is_symlink()) {
        fs::remove_file(&link).map_err(|e| Error::io("remove", &link, e))?;
    }
    Ok(())
}

/// Words for systemctl. A timer that somebody disabled stays so.
fn next(changes: &[Change]) -> Vec<Vec<String>> {
    let timers = |fate: Fate| {
        let of = changes.iter().filter(move |c| c.change == fate && c.unit.ends_with(".timer"));
        of.map(|c| c.unit.clone()).collect::<Vec<_>>()
    };
    let command = |words: &[&str], units: Vec<String>| -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).chain(units).collect()
    };
    let mut out = Vec::new();
    if !timers(Fate::Gone).is_empty() {
        out.push(command(&["stop"], timers(Fate::Gone)));
    }
    if changes.iter().any(|c| c.change != Fate::Unchanged) {
        out.push(command(&["daemon-reload"], Vec::new()));
    }
    if !timers(Fate::New).is_empty() {
        out.push(command(&["enable", "--now"], timers(Fate::New)));
    }
    out
}

fn say(
    context: &Context<'_>,
    target: &Target,
    units: Vec<Change>,
    next: &[Vec<String>],
    followed: bool,
) -> Outcome<()> {
    let next: Vec<String> = next.iter().map(|words| format!("systemctl {}", words.join(" "))).collect();
    let dir = target.dir.display().to_string();
    let mut out = context.ui.results();
    if context.ui.json {
        let (message_type, dry_run) = ("schedule", target.dry_run);
        out.document(&Changed { message_type, schema_version: SCHEMA, dir, dry_run, units, next, followed })?;
        return out.finish();
    }
    for change in &units {
        let fate = match change.change {
            Fate::New => "new",
            Fate::Changed => "changed",
            Fate::Unchanged => "unchanged",
            Fate::Gone => "gone",
        };
        out.line(format!("{fate:<9}  {}", change.unit))?;
    }
    match (target.dry_run, units.is_empty()) {
        (_, true) => {
            out.line(format!("no units of this configuration are in {dir}, and none belong there"))?
        }
        (true, _) => out.line("nothing was changed (dry run)")?,
        _ if next.is_empty() => {}
        _ if followed => out.line(format!("running: {}", next.join("; ")))?,
        _ => out.line(format!("next: {}", next.join("; ")))?,
    }
    out.finish()
}

fn systemctl(words: &[String]) -> Outcome<()> {
    let shown = words.join(" ");
    let ran = std::process::Command::new("systemctl").args(words).status();
    match ran {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => {
            Err(Failure::Failed(format!("systemctl {shown} ended with {status}; the units are written")))
        }
        Err(e) => Err(Failure::Failed(format!("cannot run systemctl {shown}: {e}; the units are written"))),
    }
}
