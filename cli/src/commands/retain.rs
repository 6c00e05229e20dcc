//! `bulla retain`: what snapshots need stays locked in a store with object lock.

use super::prune::patience;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::format::{count, size};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::Error;
use bulla_engine::retain::{self, LockMode, RetainReport, Retention};
use clap::ValueEnum;
use serde::Serialize;

/// What `retain` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Only for buckets with object lock. An object is locked from its put for as long as the bucket says; what an old pack holds of
today's snapshots outlives that. Run this more often than what it asks for lasts. A lock that lasts longer stays; in
compliance mode nobody can end one, you neither.")]
pub(crate) struct Args {
    /// For how long from now: 35d, 12h
    #[arg(long = "for", value_name = "TIME", value_parser = patience)]
    length: i64,
    /// Who is bound: governance all but those who may bypass it, compliance everybody
    #[arg(long, value_enum, default_value_t = Mode::Governance)]
    mode: Mode,
    /// Say what would be retained, with bytes and requests; change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Who is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// All but those who may bypass it.
    Governance,
    /// Everybody.
    Compliance,
}

impl From<Mode> for LockMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Governance => Self::Governance,
            Mode::Compliance => Self::Compliance,
        }
    }
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    until: String,
    snapshots: u64,
    objects: u64,
    packs: u64,
    bytes: u64,
    lost_chunks: u64,
    missing_packs: u64,
}

/// Retains.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    let now = repository.env().clock.now().seconds;
    let retention = Retention { mode: args.mode.into(), until: now.saturating_add(args.length) };
    let words = Words { during: "retain", list_is_result: false };
    let ended =
        watch(context.ui, words, |observer| retain::run(&repository, retention, args.dry_run, observer));
    let report = ended.map_err(|e| match e {
        Error::Interrupted => {
            Failure::Stopped("interrupted: some objects are retained; run it again for all")
        }
        e => e.into(),
    })?;
    let damage = report.damage();
    if let Some(damage) = &damage {
        context.ui.warn(&format!("{damage}; run `bulla check`"));
    }
    let code = if damage.is_some() { Code::Damage } else { Code::Done };
    keep(code, tell(context, args, retention, &report))
}

fn tell(context: &Context<'_>, args: &Args, retention: Retention, report: &RetainReport) -> Outcome<()> {
    let until = jiff::Timestamp::from_second(retention.until).map(|t| t.to_string()).unwrap_or_default();
    if context.ui.json {
        return context.ui.document(&Summary {
            message_type: "summary",
            schema_version: SCHEMA,
            dry_run: args.dry_run,
            until,
            snapshots: report.snapshots,
            objects: report.objects,
            packs: report.packs,
            bytes: report.bytes,
            lost_chunks: report.lost_chunks,
            missing_packs: report.missing_packs,
        });
    }
    let verb = if args.dry_run { "would be retained" } else { "are retained" };
    context.ui.line(format_args!(
        "{} ({}), of them {}, {verb} until {until} for {}; one request each",
        count(report.objects, "object"),
        size(report.bytes),
        count(report.packs, "pack"),
        count(report.snapshots, "snapshot"),
    ))
}
