//! `bulla copy`: snapshots of another repository into this one, chunk by chunk as they are.

use super::{FilterArgs, selector};
use crate::args::FromSecret;
use crate::context::{Context, variable};
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::format::{count, size};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::copy::{self, CopyOptions, CopyReport};
use bulla_engine::repository::Repository;
use serde::Serialize;
use std::ffi::OsString;

/// What `copy` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without snapshots, all that the filters let through are copied. What is there already is not fetched; a copy that was cut
off goes on where it was. Into a repository made with bulla init --copy-chunker-from URL chunks are copied as they are;
into others contents are cut again.")]
pub(crate) struct Args {
    /// Snapshots of the other repository: ids, beginnings of ids, latest, latest~N
    #[arg(value_name = "SNAPSHOT")]
    snapshots: Vec<OsString>,
    /// The repository to copy from [BULLA_FROM_REPOSITORY]
    #[arg(long, value_name = "URL")]
    from_repo: Option<OsString>,
    #[command(flatten)]
    from: FromSecret,
    #[command(flatten)]
    filter: FilterArgs,
    /// Say what would be copied, with bytes and requests; write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

const WORDS: Words = Words { during: "copy", list_is_result: false };

/// Copies.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let url = args.from_repo.clone().or_else(|| variable("BULLA_FROM_REPOSITORY"));
    let none = "no repository to copy from was named: give --from-repo URL or set BULLA_FROM_REPOSITORY";
    let url = url.ok_or_else(|| Failure::Usage(none.into()))?;
    let from = context.open_source(&url, &args.from)?;
    let to = context.open()?;
    let snapshots = wanted(&from, args)?;
    let options = CopyOptions { dry_run: args.dry_run, ..CopyOptions::default() };
    let report = watch(context.ui, WORDS, |observer| copy::run(&from, &to, &snapshots, &options, observer));
    let report = report.map_err(|e| match e {
        bulla_engine::Error::Interrupted => {
            Failure::Stopped("interrupted: snapshots that were copied stay; run it again for the rest")
        }
        e => e.into(),
    })?;
    keep(
        Code::Done,
        if context.ui.json { tell_json(context, args, &report) } else { tell(context, args, &report) },
    )
}

fn wanted(from: &Repository, args: &Args) -> Outcome<Vec<bulla_engine::format::snapshot::Snapshot>> {
    let filter = args.filter.filter();
    if args.snapshots.is_empty() {
        return Ok(from.snapshots()?.into_iter().filter(|s| filter.matches(s)).collect());
    }
    args.snapshots.iter().map(|word| Ok(from.resolve(selector(word)?, &filter)?.0)).collect()
}

fn tell(context: &Context<'_>, args: &Args, report: &CopyReport) -> Outcome<()> {
    let mut out = context.ui.results();
    for (snapshot, copy) in &report.copied {
        match copy {
            Some(copy) => out.line(format!("snapshot {} is {} here", snapshot.id.short(), copy.short()))?,
            None => out.line(format!("snapshot {} would be copied", snapshot.id.short()))?,
        }
    }
    let (moved, about) = if args.dry_run { ("would move", "about ") } else { ("moved", "") };
    out.line(format!(
        "{}, {} there already; {moved} {} ({}): {} fetched in {}, {about}{} put in {}",
        count(report.copied.len() as u64, "snapshot"),
        report.present.len(),
        count(report.chunks, "chunk"),
        size(report.bytes),
        size(report.fetched.bytes),
        count(report.fetched.requests, "request"),
        size(report.stored.bytes),
        count(report.stored.objects, "request"),
    ))?;
    out.finish()
}

#[derive(Serialize)]
struct Copied {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    copied: Vec<Copied>,
    present: Vec<String>,
    chunks: u64,
    bytes: u64,
    fetches: u64,
    bytes_fetched: u64,
    puts: u64,
    data_added_packed: u64,
}

fn tell_json(context: &Context<'_>, args: &Args, report: &CopyReport) -> Outcome<()> {
    let copied = report
        .copied
        .iter()
        .map(|(s, copy)| Copied { id: s.id.to_string(), copy: copy.map(|id| id.to_string()) });
    context.ui.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        copied: copied.collect(),
        present: report.present.iter().map(ToString::to_string).collect(),
        chunks: report.chunks,
        bytes: report.bytes,
        fetches: report.fetched.requests,
        bytes_fetched: report.fetched.bytes,
        puts: report.stored.objects,
        data_added_packed: report.stored.bytes,
    })
}
