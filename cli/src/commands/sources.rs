//! Where a backup's bytes come from: paths from the command line and from files, patterns that leave things out,
//! standard input, or a command that counts only if it succeeds.

use super::backup::Args;
use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::secret::PASSWORD_VARIABLES;
use bulla_engine::Error;
use bulla_engine::observer::escape;
use bulla_engine::source::{FilesFrom, Marker, expand_pattern, parse_exclude_file, parse_files_from};
use bulla_engine::source::{Filter, FilterSpec, PathSources, Pipeline, Running, Sources, StreamSource};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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

/// True if standard input is a part of what is backed up, or lists it: it cannot be read again.
pub(super) fn reads_stdin(args: &Args) -> bool {
    let s = &args.select;
    let mut lists = [&s.files_from, &s.files_from_verbatim, &s.files_from_raw].into_iter().flatten();
    args.stream.stdin || lists.any(|f| f.as_os_str() == "-")
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
    let bytes = |words: &[String]| words.iter().map(|w| w.clone().into_bytes()).collect::<Vec<_>>();
    let (mut excludes, mut iexcludes) = (bytes(&s.exclude), bytes(&s.iexclude));
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
    let base = here()?;
    let (paths, missing) = present(context, paths(context, args)?)?;
    let bytes = |p: PathBuf| p.into_os_string().as_bytes().to_vec();
    let sources = PathSources {
        paths: paths.into_iter().map(bytes).collect(),
        base,
        filter,
        one_file_system: args.select.one_file_system,
        with_atime: args.select.with_atime,
        skip: own_directories(context)?,
    };
    Ok(Opened { sources: Sources::Paths(sources), stream: None, missing })
}

/// The repositories and the cache: backing them up into themselves would never end well.
fn own_directories(context: &Context<'_>) -> Outcome<Vec<(u64, u64)>> {
    let id = |d: PathBuf| std::fs::metadata(d).ok().map(|m| (m.dev(), m.ino()));
    Ok(context.directories()?.into_iter().chain(context.cache_dir()).filter_map(id).collect())
}

/// The working directory.
fn here() -> Outcome<Vec<u8>> {
    let here = std::env::current_dir().map_err(|e| Error::io("find", ".", e))?;
    Ok(here.into_os_string().into_encoded_bytes())
}

/// All paths that were asked for.
fn paths(context: &Context<'_>, args: &Args) -> Outcome<Vec<PathBuf>> {
    let s = &args.select;
    let mut out = args.paths.clone();
    let lists = [
        (&s.files_from_raw, FilesFrom::Raw),
        (&s.files_from_verbatim, FilesFrom::Verbatim),
        (&s.files_from, FilesFrom::Patterns),
    ];
    for (file, how) in lists.into_iter().flat_map(|(files, how)| files.iter().map(move |f| (f, how))) {
        let usage = |e: bulla_engine::Error| Failure::Usage(format!("{}: {e}", file.display()));
        for line in parse_files_from(&read_named(file)?, how).map_err(usage)? {
            if how != FilesFrom::Patterns {
                out.push(path(&line));
                continue;
            }
            let found = expand_pattern(&here()?, &line).map_err(usage)?;
            if found.is_empty() {
                context.ui.warn(&format!("no path matches {}", escape(&line)));
            }
            out.extend(found.iter().map(|p| path(p)));
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

fn stream(args: &Args) -> Outcome<Opened> {
    let name = args.stream.stdin_filename.as_os_str().as_bytes().to_vec();
    if !args.stream.stdin_from_command {
        let source = StreamSource::new(name, io::stdin());
        return Ok(Opened { sources: Sources::Stream(source), stream: None, missing: 0 });
    }
    let words = args.paths.iter().map(|p| p.clone().into_os_string());
    let pipeline = Pipeline { without: PASSWORD_VARIABLES.to_vec(), ..Pipeline::of(words) };
    let (source, running) = pipeline.start(name).map_err(Failure::Failed)?;
    Ok(Opened { sources: Sources::Stream(source), stream: Some(running), missing: 0 })
}
