//! `bulla repair parity`: heals packs from their sidecars with nothing but the store; adds and drops sidecars.

use super::{WORDS, stopped};
use crate::context::Context;
use crate::exit::{Code, Outcome, keep};
use crate::ui::format::{count, parse_percent, size};
use crate::ui::json::SCHEMA;
use crate::ui::progress::watch;
use bulla_engine::Error;
use bulla_engine::parity::{self, Dropped, Flaw, HealOptions, HealReport, ProtectReport};
use bulla_engine::repository::Repository;
use serde::Serialize;

/// What `repair parity` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without options every pack is read, and a damaged one repaired if its parity covers the damage.
No key is needed: the name of a pack proves its bytes. The exit code is 4 if damage is left.
--add and --drop also decide for later backups, and need the key. 3% repairs any burst of 320 KiB
and any 6 blocks of 64 KiB of a full pack; packs that have parity keep the share they have.")]
pub(crate) struct Args {
    /// Say what could be repaired, write nothing
    #[arg(short = 'n', long, conflicts_with_all = ["add", "drop"])]
    dry_run: bool,
    /// Store this share of parity with all packs that have none, and with all new ones
    #[arg(long, value_name = "PERCENT", num_args = 0..=1, default_missing_value = "3", value_parser = parse_percent, conflicts_with = "drop")]
    add: Option<u8>,
    /// Delete all parity, and store none with new packs
    #[arg(long)]
    drop: bool,
    /// Also delete the parity of packs that are not there
    #[arg(long, conflicts_with_all = ["add", "drop", "dry_run"])]
    drop_orphans: bool,
}

/// Heals, adds or drops.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    if let Some(percent) = args.add {
        return add(context, percent);
    }
    if args.drop {
        return drop_all(context);
    }
    let store = context.store()?.backend();
    if !Repository::exists(&*store)? {
        return Err(Error::NoRepository { place: store.describe().place }.into());
    }
    let width = context.env().width;
    let options = HealOptions { dry_run: args.dry_run, drop_orphans: args.drop_orphans, width };
    let report = watch(context.ui, WORDS, |observer| parity::heal(&*store, &options, observer));
    let report = report.map_err(stopped)?;
    let left = !report.unrepairable.is_empty() || (args.dry_run && !report.repaired.is_empty());
    let code = if left { Code::Damage } else { Code::Done };
    remarks(context, &report);
    keep(code, if context.ui.json { tell_json(context, args, &report) } else { tell(context, args, &report) })
}

/// What harms nothing but should be known.
fn remarks(context: &Context<'_>, report: &HealReport) {
    let packs = |n: u64| count(n, "healthy pack");
    match report.unprotected {
        0 => {}
        n if n == report.packs => context.ui.note("there is no parity; bulla repair parity --add makes it"),
        n => context.ui.note(&format!("{} without parity; bulla repair parity --add makes it", packs(n))),
    }
    let n = report.orphans.len() as u64;
    if n > 0 {
        let n = count(n, "pack");
        context.ui.note(&match report.orphans_dropped {
            true => format!("deleted the parity of {n} that are not there"),
            false => format!(
                "there is parity of {n} that are not there: deleted by a prune, or lost, which parity cannot make good \
                 (bulla check tells); --drop-orphans deletes it"
            ),
        });
    }
}

#[derive(Serialize)]
struct FlawDocument<'a> {
    message_type: &'static str,
    schema_version: u32,
    object: &'a str,
    reason: &'a str,
}

impl<'a> FlawDocument<'a> {
    fn new(flaw: &'a Flaw) -> Self {
        Self { message_type: "damaged", schema_version: SCHEMA, object: &flaw.object, reason: &flaw.reason }
    }
}

#[derive(Serialize)]
struct RepairedDocument<'a> {
    message_type: &'static str,
    schema_version: u32,
    object: &'a str,
    damaged_shards: u32,
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    packs: u64,
    bytes: u64,
    healthy: u64,
    without_parity: u64,
    repaired: usize,
    damaged: usize,
    parity_remade: usize,
    parity_orphans: usize,
    parity_orphans_deleted: bool,
}

fn tell_json(context: &Context<'_>, args: &Args, report: &HealReport) -> Outcome<()> {
    let mut out = context.ui.results();
    let message_type = if args.dry_run { "repairable" } else { "repaired" };
    for r in &report.repaired {
        let (object, damaged_shards) = (r.object.as_str(), r.shards);
        out.document(&RepairedDocument { message_type, schema_version: SCHEMA, object, damaged_shards })?;
    }
    report.unrepairable.iter().try_for_each(|flaw| out.document(&FlawDocument::new(flaw)))?;
    out.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        packs: report.packs,
        bytes: report.bytes,
        healthy: report.healthy,
        without_parity: report.unprotected,
        repaired: report.repaired.len(),
        damaged: report.unrepairable.len(),
        parity_remade: report.remade.len(),
        parity_orphans: report.orphans.len(),
        parity_orphans_deleted: report.orphans_dropped,
    })?;
    out.finish()
}

fn tell(context: &Context<'_>, args: &Args, report: &HealReport) -> Outcome<()> {
    let mut out = context.ui.results();
    let (repaired, remade) = match args.dry_run {
        true => ("can be repaired", "parity is damaged and can be made again"),
        false => ("repaired", "made its parity again"),
    };
    for r in &report.repaired {
        out.line(format_args!("{repaired}: {}: {}", r.object, count(r.shards.into(), "damaged shard")))?;
    }
    for flaw in &report.unrepairable {
        out.line(format_args!("damaged, not repaired: {}: {}", flaw.object, flaw.reason))?;
    }
    for object in &report.remade {
        out.line(format_args!("{remade}: {object}"))?;
    }
    let left = report.unrepairable.len();
    out.line(format_args!(
        "{} read ({}): {} healthy, {} {repaired}, {left} damaged beyond parity",
        count(report.packs, "pack"),
        size(report.bytes),
        report.healthy,
        report.repaired.len(),
    ))?;
    if left > 0 {
        out.line("bulla check --read-data tells which snapshots and files that hurts")?;
    }
    out.finish()
}

#[derive(Serialize)]
struct Changed {
    message_type: &'static str,
    schema_version: u32,
    percent: Option<u8>,
    parity_made: u64,
    parity_deleted: u64,
    bytes: u64,
    damaged: usize,
}

/// Later backups first, so that no pack is missed between the two.
fn add(context: &Context<'_>, percent: u8) -> Outcome {
    let mut repository = context.open()?;
    repository.set_parity(Some(percent))?;
    let (backend, width) = (repository.backend(), repository.env().width);
    let made = watch(context.ui, WORDS, |observer| parity::protect(&**backend, percent, width, observer));
    let ProtectReport { made, bytes, had, damaged } = made.map_err(stopped)?;
    let mut out = context.ui.results();
    if context.ui.json {
        damaged.iter().try_for_each(|flaw| out.document(&FlawDocument::new(flaw)))?;
        out.document(&changed("parity_added", Some(percent), (made, 0), bytes, damaged.len()))?;
    } else {
        for flaw in &damaged {
            out.line(format_args!("damaged, not protected: {}: {}", flaw.object, flaw.reason))?;
        }
        let made = count(made, "pack");
        out.line(format_args!("made parity of {percent}% for {made} ({}); {had} had some", size(bytes)))?;
    }
    keep(if damaged.is_empty() { Code::Done } else { Code::Damage }, out.finish())
}

fn drop_all(context: &Context<'_>) -> Outcome {
    let mut repository = context.open()?;
    repository.set_parity(None)?;
    let dropped = watch(context.ui, WORDS, |observer| parity::drop_all(&**repository.backend(), observer));
    let Dropped { sidecars, bytes } = dropped.map_err(stopped)?;
    if context.ui.json {
        let document = changed("parity_dropped", None, (0, sidecars), bytes, 0);
        return keep(Code::Done, context.ui.document(&document));
    }
    let text = format!("deleted the parity of {} ({})", count(sidecars, "pack"), size(bytes));
    keep(Code::Done, context.ui.line(text))
}

fn changed(
    message_type: &'static str,
    percent: Option<u8>,
    (parity_made, parity_deleted): (u64, u64),
    bytes: u64,
    damaged: usize,
) -> Changed {
    Changed { message_type, schema_version: SCHEMA, percent, parity_made, parity_deleted, bytes, damaged }
}
