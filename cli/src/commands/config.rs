//! `bulla config`: the files that describe jobs, found, judged and shown. What they mean is the manager's
//! ([`bulla_manager::config`]).

use crate::context::{Context, variable};
use crate::exit::{Code, Failure, Outcome};
use crate::ui::format::count;
use crate::ui::json::SCHEMA;
use bulla_engine::Error;
use bulla_engine::observer::escape;
use bulla_manager::config::{Config, File, Job, Mistake, Place, Read, STARTER, entries};
use clap::Subcommand;
use serde::Serialize;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What `config` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

/// Where the configuration is.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct ConfigArgs {
    /// The configuration: a file, with all *.toml in the directory conf.d beside it
    /// [default: $XDG_CONFIG_HOME/bulla/config.toml, else /etc/bulla/config.toml]
    #[arg(long = "config", value_name = "FILE")]
    file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say all that is wrong with the configuration
    Check(ConfigArgs),
    /// Print what the configuration says
    Show {
        #[command(flatten)]
        files: ConfigArgs,
        /// With file and line of each value
        #[arg(long)]
        origin: bool,
    },
    /// Write a configuration to begin with, with comments
    Init(ConfigArgs),
    /// Print the JSON Schema of a configuration, for editors
    Schema,
}

/// Does it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.what {
        What::Check(files) => check(context, files),
        What::Show { files, origin } => show(context, files, *origin),
        What::Init(files) => init(context, files),
        What::Schema => {
            context.ui.document(&Config::schema())?;
            Ok(Code::Done)
        }
    }
}

/// Files and what they say.
pub(crate) struct Found {
    files: Vec<File>,
    read: Read,
}

impl Found {
    /// The configuration, if nothing is wrong with it; else all that is.
    pub(crate) fn sound(self) -> Outcome<(Config, Vec<File>)> {
        if self.read.is_sound() {
            return Ok((self.read.config, self.files));
        }
        let wrong = self.read.mistakes.iter().filter(|m| !m.is_warning());
        let lines: Vec<String> = wrong.map(|m| escape(m.to_string().as_bytes())).collect();
        Err(Failure::Usage(format!("the configuration is not sound:\n{}", lines.join("\n"))))
    }
}

/// A job by its name.
pub(crate) fn job<'c>(config: &'c Config, name: &str) -> Outcome<&'c Job> {
    config.jobs.get(name).map(|job| &job.value).ok_or_else(|| {
        let names: Vec<&str> = config.jobs.keys().map(String::as_str).collect();
        Failure::Usage(format!("no job is named {name:?}; there are {}", names.join(", ")))
    })
}

fn of_machine() -> PathBuf {
    PathBuf::from("/etc/bulla/config.toml")
}

fn of_user() -> Option<PathBuf> {
    let dir = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let dir = dir.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")));
    dir.map(|dir| dir.join("bulla/config.toml"))
}

impl ConfigArgs {
    /// The main file: what was typed, else the user's, else the machine's.
    pub(crate) fn main(&self) -> PathBuf {
        self.file.clone().or_else(|| of_user().filter(|f| f.exists())).unwrap_or_else(of_machine)
    }

    /// Where a new one goes: root's is the machine's.
    fn main_to_be(&self) -> PathBuf {
        let root = nix::unistd::geteuid().is_root();
        self.file.clone().or_else(|| of_user().filter(|_| !root)).unwrap_or_else(of_machine)
    }

    /// Finds and reads it.
    pub(crate) fn read(&self) -> Outcome<Found> {
        let main = self.main();
        let mut files = vec![text_of(&main)?];
        let parts = main.parent().unwrap_or(Path::new("")).join("conf.d");
        let mut paths: Vec<PathBuf> = match fs::read_dir(&parts) {
            Ok(list) => list.filter_map(|e| Some(e.ok()?.path())).collect(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(Error::io("list", &parts, e).into()),
        };
        paths.retain(|p| p.extension().is_some_and(|e| e == "toml"));
        paths.sort();
        for path in paths {
            files.push(text_of(&path)?);
        }
        let mut read = Config::read(&files);
        read.mistakes.extend(secrets(&read.config));
        read.mistakes.sort();
        Ok(Found { files, read })
    }
}

fn text_of(path: &Path) -> Outcome<File> {
    let text = fs::read_to_string(path).map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let hint = if missing { "; begin one with: bulla config init" } else { "" };
        Failure::Usage(format!("cannot read the configuration {}: {e}{hint}", path.display()))
    })?;
    Ok(File { path: path.to_owned(), text })
}

/// Files with secrets that others can read, or that are not there.
fn secrets(config: &Config) -> Vec<Mistake> {
    let judge = |(path, place): (PathBuf, Place)| {
        let shown = path.display();
        let (code, what, fix) = match fs::metadata(&path) {
            Ok(m) if m.mode() & 0o077 != 0 => {
                let what = format!("{shown} can be read by others (mode {:04o})", m.mode() & 0o7777);
                ("E-SEC-02", what, format!("chmod 600 {shown}"))
            }
            Ok(_) => return None,
            Err(e) => {
                ("W-SEC-04", format!("{shown}: {e}"), "put the secret there before the first run".to_owned())
            }
        };
        Some(Mistake { place, code, what, fix })
    };
    config.secret_files().into_iter().filter_map(judge).collect()
}

#[derive(Serialize)]
struct MistakeLine<'a> {
    code: &'a str,
    file: String,
    line: usize,
    message: &'a str,
    fix: &'a str,
}

#[derive(Serialize)]
struct Checked<'a> {
    message_type: &'static str,
    schema_version: u32,
    sound: bool,
    mistakes: Vec<MistakeLine<'a>>,
}

fn check(context: &Context<'_>, files: &ConfigArgs) -> Outcome {
    let found = files.read()?;
    let sound = found.read.is_sound();
    let mut out = context.ui.results();
    if context.ui.json {
        let mistakes = found.read.mistakes.iter().map(|m| MistakeLine {
            code: m.code,
            file: m.place.file.display().to_string(),
            line: m.place.line,
            message: &m.what,
            fix: &m.fix,
        });
        let (message_type, mistakes) = ("config", mistakes.collect());
        out.document(&Checked { message_type, schema_version: SCHEMA, sound, mistakes })?;
    } else {
        for mistake in &found.read.mistakes {
            out.line(escape(mistake.to_string().as_bytes()))?;
        }
        let config = &found.read.config;
        let (jobs, places) = (config.jobs.len() as u64, config.destinations.len() as u64);
        let wrong = found.read.mistakes.iter().filter(|m| !m.is_warning()).count() as u64;
        let what = if sound { "sound".to_owned() } else { count(wrong, "mistake") };
        out.line(format!("{}, {}: {what}", count(jobs, "job"), count(places, "destination")))?;
    }
    out.finish()?;
    Ok(if sound { Code::Done } else { Code::Usage })
}

#[derive(Serialize)]
struct EntryLine {
    key: String,
    value: String,
    file: String,
    line: usize,
}

fn show(context: &Context<'_>, files: &ConfigArgs, origin: bool) -> Outcome {
    let (_, files) = files.read()?.sound()?;
    let mut out = context.ui.results();
    let all = entries(&files);
    if context.ui.json {
        let line = |e: bulla_manager::config::Entry| {
            let file = e.place.file.display().to_string();
            EntryLine { key: e.key, value: e.value, file, line: e.place.line }
        };
        out.document(&all.into_iter().map(line).collect::<Vec<_>>())?;
    } else {
        for entry in all {
            let place = if origin { format!("  # {}", entry.place) } else { String::new() };
            let lines: Vec<String> = entry.value.lines().map(|l| escape(l.as_bytes())).collect();
            out.line(format!(
                "{} = {}{}",
                escape(entry.key.as_bytes()),
                lines.join("\n"),
                escape(place.as_bytes())
            ))?;
        }
    }
    out.finish()?;
    Ok(Code::Done)
}

fn init(context: &Context<'_>, files: &ConfigArgs) -> Outcome {
    let path = files.main_to_be();
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        fs::create_dir_all(dir).map_err(|e| Error::io("create", dir, e))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&path)
        .map_err(|e| Error::io("create", &path, e))?;
    file.write_all(STARTER.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(|e| Error::io("write", &path, e))?;
    context.ui.line(format!("{} is written; change it, then: bulla config check", path.display()))?;
    Ok(Code::Done)
}
