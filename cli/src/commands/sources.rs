//! Where a backup's bytes come from: paths from the command line and from files, patterns that leave things out,
//! standard input, or a command that counts only if it succeeds.

use super::backup::Args;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::secret::PASSWORD_VARIABLES;
use bulla_engine::Error;
use bulla_engine::observer::escape;
use bulla_engine::source::filter::{Marker, parse_exclude_file};
use bulla_engine::source::{Filter, FilterSpec, PathSources, PatternSet, Sources, StreamSource};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// One stream instead of paths.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Back up a stream")]
pub(super) struct StreamArgs {
    /// Back up standard input as one file
    #[arg(long, conflicts_with_all = ["paths", "stdin_from_command"])]
    stdin: bool,
    /// The file's name in the snapshot
    #[arg(long, value_name = "NAME", default_value = "stdin")]
    stdin_filename: PathBuf,
    /// Run the command after -- and back up its output; no snapshot unless it succeeds
    #[arg(long)]
    stdin_from_command: bool,
}

/// Sources and what to ask about them afterwards.
pub(super) struct Opened {
    pub(super) sources: Sources,
    pub(super) stream: Option<Running>,
    /// Paths that were asked for and are not there.
    pub(super) missing: usize,
}

/// Mistakes that are worth finding before a password is asked for.
pub(super) fn check(args: &Args) -> Outcome<()> {
    let s = &args.select;
    let from = [&s.files_from, &s.files_from_verbatim, &s.files_from_raw];
    let lists = from.iter().any(|f| !f.is_empty());
    let stream = args.stream.stdin || args.stream.stdin_from_command;
    let stdin_lists = from.iter().flat_map(|f| f.iter()).filter(|f| f.as_os_str() == "-").count();
    let wrong = if stream && lists {
        "a stream and --files-from exclude each other"
    } else if args.stream.stdin_from_command && args.paths.is_empty() {
        "--stdin-from-command needs a command: bulla backup --stdin-from-command -- COMMAND"
    } else if !stream && !lists && args.paths.is_empty() {
        "nothing to back up: name paths, or give --files-from or --stdin"
    } else if stdin_lists > 1 {
        "standard input can be read only once"
    } else {
        return Ok(());
    };
    Err(Failure::Usage(wrong.into()))
}

/// What is left out, all files read.
pub(super) fn filter_spec(args: &Args) -> Outcome<FilterSpec> {
    let s = &args.select;
    let (mut excludes, mut iexcludes) = (s.exclude.clone(), s.iexclude.clone());
    for (files, list) in [(&s.exclude_file, &mut excludes), (&s.iexclude_file, &mut iexcludes)] {
        for file in files {
            list.extend(parse_exclude_file(&read_named(file)?));
        }
    }
    let if_present = s.exclude_if_present.iter().map(|text| {
        let (name, header) = text.split_once(':').map_or((text.as_str(), None), |(n, h)| (n, Some(h)));
        Marker { name: name.into(), header: header.map(|h| h.as_bytes().to_vec()) }
    });
    let (if_present, caches) = (if_present.collect(), s.exclude_caches);
    Ok(FilterSpec { excludes, iexcludes, if_present, larger_than: s.exclude_larger_than, caches })
}

/// Opens what is to be read.
pub(super) fn open(context: &Context<'_>, args: &Args, spec: &FilterSpec) -> Outcome<Opened> {
    if args.stream.stdin || args.stream.stdin_from_command {
        return stream(args);
    }
    let filter = Filter::new(spec).map_err(|e| Failure::Usage(e.to_string()))?;
    let base = std::env::current_dir().map_err(|e| Error::io("find", ".", e))?;
    let (paths, missing) = present(context, paths(context, args)?)?;
    let bytes = |p: PathBuf| p.into_os_string().as_bytes().to_vec();
    let sources = PathSources {
        paths: paths.into_iter().map(bytes).collect(),
        base: bytes(base),
        filter,
        one_file_system: args.select.one_file_system,
        with_atime: args.select.with_atime,
        skip: own_directories(context)?,
    };
    Ok(Opened { sources: Sources::Paths(sources), stream: None, missing })
}

/// The repository and the cache: backing them up into themselves would never end well.
fn own_directories(context: &Context<'_>) -> Outcome<Vec<(u64, u64)>> {
    let dirs = [Some(context.place()?), context.cache_dir()];
    let id = |d: PathBuf| std::fs::metadata(d).ok().map(|m| (m.dev(), m.ino()));
    Ok(dirs.into_iter().flatten().filter_map(id).collect())
}

/// All paths that were asked for.
fn paths(context: &Context<'_>, args: &Args) -> Outcome<Vec<PathBuf>> {
    let s = &args.select;
    let mut out = args.paths.clone();
    for file in &s.files_from_raw {
        let list = read_named(file)?;
        let names = list.strip_suffix(b"\0").unwrap_or(&list).split(|b| *b == 0);
        for name in names.filter(|_| !list.is_empty()) {
            if name.is_empty() {
                let text =
                    format!("{} holds an empty name; names in it end with a zero byte", file.display());
                return Err(Failure::Usage(text));
            }
            out.push(path(name));
        }
    }
    for file in &s.files_from_verbatim {
        out.extend(read_named(file)?.split(|b| *b == b'\n').filter(|l| !l.is_empty()).map(path));
    }
    for file in &s.files_from {
        for line in read_named(file)?.split(|b| *b == b'\n').map(<[u8]>::trim_ascii) {
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let found = expand(line)?;
            if found.is_empty() {
                context.ui.warn(&format!("no path matches {}", escape(line)));
            }
            out.extend(found);
        }
    }
    if out.is_empty() {
        return Err(Failure::Usage("nothing to back up: the lists are empty".into()));
    }
    Ok(out)
}

/// Drops paths that are not there, each with an error; none left is a failure.
fn present(context: &Context<'_>, all: Vec<PathBuf>) -> Outcome<(Vec<PathBuf>, usize)> {
    let before = all.len();
    let there = |p: &PathBuf| match p.symlink_metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let name = p.as_os_str().as_bytes();
            context.ui.error(&format!("{} does not exist", escape(name)), Some(name), "scan");
            false
        }
        _ => true,
    };
    let kept: Vec<PathBuf> = all.into_iter().filter(there).collect();
    if kept.is_empty() {
        return Err(Failure::Failed("none of the paths to back up exists".into()));
    }
    let missing = before - kept.len();
    Ok((kept, missing))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A file named on the command line; `-` is standard input.
pub(super) fn read_named(file: &Path) -> Outcome<Vec<u8>> {
    let read = if file.as_os_str() == "-" {
        let mut all = Vec::new();
        io::stdin().lock().read_to_end(&mut all).map(|_| all)
    } else {
        std::fs::read(file)
    };
    read.map_err(|e| Failure::Usage(format!("cannot read {}: {e}", file.display())))
}

/// The paths a pattern of `--files-from` stands for, component by component, sorted.
fn expand(pattern: &[u8]) -> Outcome<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from(if pattern.starts_with(b"/") { "/" } else { "" })];
    for part in pattern.split(|b| *b == b'/').filter(|p| !p.is_empty()) {
        if !part.iter().any(|b| b"*?[\\".contains(b)) {
            found.iter_mut().for_each(|p| p.push(path(part)));
            continue;
        }
        let mut set = PatternSet::default();
        // A pattern that begins with ! means a name that does.
        let text = String::from_utf8_lossy(part);
        let text = if text.starts_with('!') { format!("\\{text}") } else { text.into_owned() };
        set.add(&text, false).map_err(|e| Failure::Usage(e.to_string()))?;
        let hidden = part.starts_with(b".");
        let mut next = Vec::new();
        for dir in &found {
            let place = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
            let Ok(entries) = std::fs::read_dir(place) else { continue };
            let names = entries.flatten().map(|e| e.file_name());
            let fits =
                |n: &OsString| (hidden || !n.as_bytes().starts_with(b".")) && set.matches(n.as_bytes());
            next.extend(names.filter(fits).map(|n| dir.join(n)));
        }
        next.sort();
        found = next;
    }
    found.retain(|p| p.symlink_metadata().is_ok());
    Ok(found)
}

/// A command whose output is backed up, and how it ended.
#[derive(Clone)]
pub(super) struct Running(Arc<Mutex<State>>);

struct State {
    name: String,
    child: Option<Child>,
    failure: Option<String>,
}

impl Running {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why the command failed, once it did.
    pub(super) fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Ends the command, so that whoever reads its output need not wait for more.
    pub(super) fn stop(&self) {
        if let Some(child) = self.lock().child.as_mut() {
            let _ = child.kill();
        }
    }

    /// Waits for the command; asked by the engine before it commits. Never holds the lock while waiting.
    fn succeed(&self) -> Result<(), String> {
        loop {
            let mut state = self.lock();
            let ended = match state.child.as_mut() {
                Some(child) => child.try_wait(),
                None => return Err("the command was ended".into()),
            };
            let why = match ended {
                Ok(None) => {
                    drop(state);
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Ok(Some(status)) if status.success() => {
                    state.child = None;
                    return Ok(());
                }
                Ok(Some(status)) => format!("the command {} failed: {status}", state.name),
                Err(e) => format!("cannot wait for the command {}: {e}", state.name),
            };
            state.failure = Some(why.clone());
            return Err(why);
        }
    }
}

/// A command that is still there when nobody reads it any more is ended.
impl Drop for State {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn stream(args: &Args) -> Outcome<Opened> {
    let name = args.stream.stdin_filename.as_os_str().as_bytes().to_vec();
    if !args.stream.stdin_from_command {
        let source = StreamSource { name, reader: Box::new(io::stdin()), commit: None };
        return Ok(Opened { sources: Sources::Stream(source), stream: None, missing: 0 });
    }
    let (program, rest) = args.paths.split_first().ok_or_else(|| Failure::Usage("no command".into()))?;
    let mut command = Command::new(program);
    command.args(rest).stdin(Stdio::null()).stdout(Stdio::piped());
    PASSWORD_VARIABLES.iter().for_each(|v| {
        command.env_remove(v);
    });
    let shown = escape(program.as_os_str().as_bytes());
    let fail = |e: io::Error| Failure::Failed(format!("cannot run {shown}: {e}"));
    let mut child = command.spawn().map_err(fail)?;
    let reader = child.stdout.take().ok_or_else(|| Failure::Failed(format!("{shown} has no output")))?;
    let state = State { name: shown, child: Some(child), failure: None };
    let running = Running(Arc::new(Mutex::new(state)));
    let asked = running.clone();
    let source =
        StreamSource { name, reader: Box::new(reader), commit: Some(Box::new(move || asked.succeed())) };
    Ok(Opened { sources: Sources::Stream(source), stream: Some(running), missing: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_expand_like_a_shells() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a1/x.txt", "a2/x.txt", "a2/y.log", ".hidden/x.txt", "b/x.txt"] {
            let file = dir.path().join(name);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        }
        let all = |pattern: &str| -> Vec<String> {
            let whole = format!("{}/{pattern}", dir.path().display());
            let strip = |p: PathBuf| p.strip_prefix(dir.path()).unwrap().display().to_string();
            expand(whole.as_bytes()).unwrap().into_iter().map(strip).collect()
        };
        assert_eq!(all("a*/x.txt"), ["a1/x.txt", "a2/x.txt"]);
        assert_eq!(all("*/?.log"), ["a2/y.log"]);
        assert_eq!(all("[ab]?"), ["a1", "a2"]);
        assert_eq!(all("b"), ["b"]);
        assert!(all("none/*").is_empty() && all("none").is_empty());
    }
}
