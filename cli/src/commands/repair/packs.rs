//! `bulla repair packs`: condemns damaged packs and saves what opens in them; or heals them from a copy.

use super::{About, WORDS, about, stopped};
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::format::{count, size};
use crate::ui::json::SCHEMA;
use crate::ui::progress::watch;
use bulla_backends::location::Location;
use bulla_engine::format::PackName;
use bulla_engine::repair::packs::{self, PacksOptions, PacksReport};
use bulla_engine::repair::replica::{self, ReplicaOptions, ReplicaReport};
use bulla_engine::repository::Repository;
use serde::Serialize;
use std::ffi::OsString;

/// What `repair packs` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Try first what brings bytes back: bulla repair parity, then --from a copy of the repository. What
is left is condemned: nothing relies on such a pack any more, what opens in it is saved to new
packs, the next backup stores again what its source still has, and the next prune deletes it. A
pack stays while something is needed that lies only in it and does not open. Packs that are
missing are given up only by name.")]
pub(crate) struct Args {
    /// Only these packs: names, or objects as check prints them
    #[arg(value_name = "PACK", value_parser = pack_name)]
    packs: Vec<PackName>,
    /// Read and verify every pack; otherwise only packs with a wrong size are found
    #[arg(long, conflicts_with = "packs")]
    read_data: bool,
    /// Heal from this copy of the repository: packs, index runs and snapshots, of which nothing is condemned
    #[arg(long, value_name = "URL", conflicts_with = "packs")]
    from: Option<OsString>,
    /// Say what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

fn pack_name(text: &str) -> Result<PackName, String> {
    let name = text.rsplit('/').next().unwrap_or(text);
    name.parse().map_err(|_| format!("{text:?} is not the name of a pack (64 hexadecimal digits)"))
}

/// Condemns or heals.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    if let Some(from) = &args.from {
        return heal(context, &repository, from, args);
    }
    let options =
        PacksOptions { packs: args.packs.clone(), read_data: args.read_data, dry_run: args.dry_run };
    let report = watch(context.ui, WORDS, |observer| packs::run(&repository, &options, observer));
    let report = report.map_err(stopped)?;
    let open = !report.left.is_empty() || !report.missing.is_empty();
    let code = if open || (args.dry_run && !report.damaged.is_empty()) { Code::Damage } else { Code::Done };
    keep(code, if context.ui.json { tell_json(context, args, report) } else { tell(context, args, &report) })
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    packs: u64,
    packs_read: u64,
    packs_condemned: Vec<About>,
    packs_missing: Vec<String>,
    packs_whole: Vec<String>,
    packs_deleted: Vec<String>,
    bytes_deleted: u64,
    packs_left: Vec<About>,
    chunks_copied: u64,
    bytes_stored: u64,
}

fn tell_json(context: &Context<'_>, args: &Args, report: PacksReport) -> Outcome<()> {
    context.ui.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        packs: report.packs,
        packs_read: report.packs_read,
        packs_condemned: about(&report.damaged),
        packs_missing: report.missing,
        packs_whole: report.whole,
        bytes_deleted: report.deleted.iter().map(|(_, bytes)| bytes).sum(),
        packs_deleted: report.deleted.into_iter().map(|(object, _)| object).collect(),
        packs_left: about(&report.left),
        chunks_copied: report.copied,
        bytes_stored: report.stored_bytes,
    })
}

fn tell(context: &Context<'_>, args: &Args, report: &PacksReport) -> Outcome<()> {
    let mut out = context.ui.results();
    let condemned = if args.dry_run { "damaged" } else { "condemned" };
    for (object, reason) in &report.damaged {
        out.line(format_args!("{condemned}: {object}: {reason}"))?;
    }
    for object in &report.whole {
        out.line(format_args!("whole: {object}"))?;
    }
    for object in &report.missing {
        out.line(format_args!("missing: {object}"))?;
    }
    for (object, _) in &report.deleted {
        out.line(format_args!("deleted: {object}: nothing needs it any more"))?;
    }
    for (object, reason) in &report.left {
        out.line(format_args!("stays for now: {object}: {reason}"))?;
    }
    let saved = match report.copied {
        0 => String::new(),
        n => format!("; {} saved ({})", count(n, "chunk"), size(report.stored_bytes)),
    };
    let n = report.damaged.len();
    out.line(format_args!(
        "{}, {} read: {n} {condemned}, {} deleted{saved}",
        count(report.packs, "pack"),
        report.packs_read,
        report.deleted.len()
    ))?;
    if !report.missing.is_empty() {
        out.line(
            "a copy of the repository brings missing packs back (--from); naming them here gives them up",
        )?;
    }
    if !report.left.is_empty() {
        out.line("next: bulla backup stores again what its source still has; then bulla repair snapshots, and bulla prune")?;
    }
    out.finish()
}

fn heal(context: &Context<'_>, repository: &Repository, from: &OsString, args: &Args) -> Outcome {
    let other = context
        .store_at(&Location::parse(from).map_err(Failure::Usage)?, &[], &context.locations()?)?
        .backend();
    let options = ReplicaOptions { read_data: args.read_data, dry_run: args.dry_run };
    let report = watch(context.ui, WORDS, |observer| replica::run(repository, &*other, &options, observer));
    let report = report.map_err(stopped)?;
    let found = !report.healed.is_empty() || !report.put_back.is_empty();
    let code = if !report.left.is_empty() || (args.dry_run && found) { Code::Damage } else { Code::Done };
    keep(
        code,
        if context.ui.json { heal_json(context, args, report) } else { healed(context, args, &report) },
    )
}

#[derive(Serialize)]
struct Healed {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    healed: Vec<String>,
    put_back: Vec<String>,
    left: Vec<About>,
}

fn heal_json(context: &Context<'_>, args: &Args, report: ReplicaReport) -> Outcome<()> {
    context.ui.document(&Healed {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        left: about(&report.left),
        healed: report.healed,
        put_back: report.put_back,
    })
}

fn healed(context: &Context<'_>, args: &Args, report: &ReplicaReport) -> Outcome<()> {
    let mut out = context.ui.results();
    let would = if args.dry_run { "would be " } else { "" };
    for object in &report.healed {
        out.line(format_args!("{would}healed: {object}"))?;
    }
    for object in &report.put_back {
        out.line(format_args!("{would}put back: {object}"))?;
    }
    for (object, reason) in &report.left {
        out.line(format_args!("left: {object}: {reason}"))?;
    }
    let (healed, back, left) = (report.healed.len(), report.put_back.len(), report.left.len());
    out.line(format_args!("{healed} {would}healed, {back} {would}put back, {left} left"))?;
    out.finish()
}
