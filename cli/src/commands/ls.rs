//! `bulla ls`: the entries of a snapshot.

use super::FilterArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::Results;
use crate::ui::format::{local_time, permissions, size};
use crate::ui::json::{NodeDocument, SCHEMA, SnapshotDocument, kind_of};
use crate::ui::ncdu::Export;
use bulla_engine::Error;
use bulla_engine::browse;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{Entry, EntryKind};
use bulla_engine::observer::escape;
use bulla_engine::repository::Repository;
use bulla_engine::repository::snapshots::clean_path;
use clap::ValueEnum;
use serde::Serialize;
use std::cmp::Reverse;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What `ls` takes.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a directory everything is listed; with one its own entries, with -R all below it."
)]
pub(crate) struct Args {
    /// Snapshot: id, prefix, latest, latest~N, each with :/PATH for a directory in it
    #[arg(value_name = "SNAPSHOT[:/PATH]")]
    snapshot: OsString,
    /// Directories in the snapshot
    #[arg(value_name = "DIR")]
    dirs: Vec<PathBuf>,
    /// With permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// All that is below the directories
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Sizes with units, as 1.3 GiB
    #[arg(long)]
    human_readable: bool,
    /// Order: by name as stored, size, time or extension (largest and newest first)
    #[arg(long, value_name = "KEY", value_enum, default_value_t = Sort::Name)]
    sort: Sort,
    /// For ncdu: bulla ls --ncdu latest | ncdu -f -
    #[arg(long, conflicts_with_all = ["long", "recursive", "human_readable", "sort", "json"])]
    ncdu: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Size,
    #[value(alias = "mtime")]
    Time,
    Extension,
}

#[derive(Serialize)]
struct Head {
    message_type: &'static str,
    struct_type: &'static str,
    schema_version: u32,
    #[serde(flatten)]
    snapshot: SnapshotDocument,
}

/// Lists entries.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    let (snapshot, sub) = repository.resolve(super::selector(&args.snapshot)?, &args.filter.filter())?;
    let mut dirs: Vec<Vec<u8>> = args.dirs.iter().map(|d| clean_path(d.as_os_str().as_bytes())).collect();
    if !sub.is_empty() {
        if !dirs.is_empty() {
            return Err(Failure::Usage(
                "name directories after the snapshot or after the colon, not both".into(),
            ));
        }
        dirs.push(sub);
    }
    let everything = dirs.is_empty();
    if everything {
        dirs.push(Vec::new());
    }
    let mut out = context.ui.results();
    if args.ncdu {
        ncdu(&repository, &snapshot, &dirs, &mut out)?;
        out.finish()?;
        return Ok(Code::Done);
    }
    if context.ui.json {
        let snapshot = SnapshotDocument::from(&snapshot);
        out.document(&Head {
            message_type: "snapshot",
            struct_type: "snapshot",
            schema_version: SCHEMA,
            snapshot,
        })?;
    }
    for dir in &dirs {
        list(context, args, (&repository, &snapshot), dir, everything, &mut out)?;
    }
    out.finish()?;
    Ok(Code::Done)
}

/// Exports one directory and all below it.
fn ncdu(repository: &Repository, snapshot: &Snapshot, dirs: &[Vec<u8>], out: &mut Results) -> Outcome<()> {
    let [dir] = dirs else {
        return Err(Failure::Usage("--ncdu exports one directory; name one, or none for all".into()));
    };
    // Asked first, so that nothing is printed of what cannot be exported.
    browse::list(repository, snapshot, dir, false, &mut |entry| {
        if dir.is_empty() || entry.path() != *dir || entry.is_dir() {
            return Ok(());
        }
        Err(Error::Refused(format!("/{} is not a directory", escape(dir))))
    })?;
    let (mut export, mut told) = (Export::begin(out, dir, snapshot.start)?, Ok(()));
    let listed = browse::list(repository, snapshot, dir, true, &mut |entry| {
        told = export.entry(entry);
        if told.is_ok() { Ok(()) } else { Err(Error::Interrupted) }
    });
    told?;
    listed?;
    export.end()
}

fn list(
    context: &Context<'_>,
    args: &Args,
    (repository, snapshot): (&Repository, &Snapshot),
    dir: &[u8],
    everything: bool,
    out: &mut Results,
) -> Outcome<()> {
    let recursive = everything || args.recursive;
    let (mut sorted, mut told) = (Vec::new(), Ok(()));
    let tell = |e: &Entry, out: &mut Results| {
        if context.ui.json {
            out.document(&NodeDocument::from(e))
        } else {
            out.line(line(e, args.long, args.human_readable))
        }
    };
    let listed = browse::list(repository, snapshot, dir, recursive, &mut |entry| {
        if entry.is_dir() && !dir.is_empty() && entry.path() == dir {
            return Ok(());
        }
        if args.sort != Sort::Name {
            sorted.push(entry.clone());
        } else if told.is_ok() {
            told = tell(entry, out);
        }
        if told.is_ok() { Ok(()) } else { Err(Error::Interrupted) }
    });
    told?;
    listed?;
    sort(&mut sorted, args.sort);
    sorted.iter().try_for_each(|e| tell(e, out))
}

fn sort(entries: &mut [Entry], by: Sort) {
    let extension = |e: &Entry| {
        let dot = e.name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0);
        dot.map(|at| e.name[at + 1..].to_vec()).unwrap_or_default()
    };
    match by {
        Sort::Name => {}
        Sort::Size => entries.sort_by_key(|e| Reverse(e.size())),
        Sort::Time => entries.sort_by_key(|e| Reverse(e.mtime)),
        Sort::Extension => entries.sort_by_cached_key(extension),
    }
}

/// An entry as `ls` prints it.
pub(super) fn line(e: &Entry, long: bool, human_readable: bool) -> String {
    let mut path = format!("/{}", escape(&e.path()));
    if !long {
        return path;
    }
    if let EntryKind::Symlink { target } = &e.kind {
        path.push_str(&format!(" -> {}", escape(target)));
    }
    if e.flags.read_error {
        path.push_str(" (could not be read)");
    }
    let bytes = if human_readable { size(e.size()) } else { e.size().to_string() };
    let letter = kind_of(&e.kind).1;
    format!(
        "{} {:>5} {:>5} {bytes:>12} {} {path}",
        permissions(letter, e.mode),
        e.uid,
        e.gid,
        local_time(e.mtime)
    )
}
