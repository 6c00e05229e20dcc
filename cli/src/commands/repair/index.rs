//! `bulla repair index`: the index made whole again from the packs' own directories.

use super::{About, WORDS, about, stopped};
use crate::context::Context;
use crate::exit::{Code, Outcome, keep};
use crate::ui::format::count;
use crate::ui::json::SCHEMA;
use crate::ui::progress::watch;
use bulla_engine::repair::index::{self, IndexOptions, IndexReport};
use serde::Serialize;

/// What `repair index` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs beside backups and prunes. Packs that are condemned or deleted are never listed again, and an
index run that cannot be read is removed only when all packs are listed elsewhere.")]
pub(crate) struct Args {
    /// Say what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Also compare the packs that are listed with what the index has of them
    #[arg(long)]
    read_all_packs: bool,
}

/// Repairs the index.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    let options = IndexOptions { dry_run: args.dry_run, read_all_packs: args.read_all_packs };
    let report = watch(context.ui, WORDS, |observer| index::run(&repository, &options, observer));
    let report = report.map_err(stopped)?;
    let found = !report.listed.is_empty() || !report.removed.is_empty();
    let code = if !report.left.is_empty() || (args.dry_run && found) { Code::Damage } else { Code::Done };
    keep(code, if context.ui.json { tell_json(context, args, report) } else { tell(context, args, &report) })
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    packs: u64,
    packs_listed: Vec<String>,
    runs_removed: Vec<String>,
    left: Vec<About>,
}

fn tell_json(context: &Context<'_>, args: &Args, report: IndexReport) -> Outcome<()> {
    context.ui.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        packs: report.packs,
        packs_listed: report.listed,
        runs_removed: report.removed,
        left: about(&report.left),
    })
}

fn tell(context: &Context<'_>, args: &Args, report: &IndexReport) -> Outcome<()> {
    let mut out = context.ui.results();
    let (listed, removed) = match args.dry_run {
        true => ("would be listed again", "would be removed"),
        false => ("listed again", "removed"),
    };
    for object in &report.removed {
        out.line(format_args!("{removed}: {object}, which cannot be read"))?;
    }
    for (object, reason) in &report.left {
        out.line(format_args!("left: {object}: {reason}"))?;
    }
    let (n, runs) = (report.listed.len() as u64, report.removed.len() as u64);
    out.line(format_args!(
        "{}: {n} {listed}; {} {removed}",
        count(report.packs, "pack"),
        count(runs, "index run")
    ))?;
    out.finish()
}
