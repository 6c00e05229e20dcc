//! `bulla repair snapshots`: new editions of damaged snapshots, with what is lost named.

use super::super::FilterArgs;
use super::{WORDS, stopped};
use crate::context::Context;
use crate::exit::{Code, Outcome, keep};
use crate::ui::format::count;
use crate::ui::json::{SCHEMA, lossless};
use crate::ui::progress::watch;
use bulla_engine::observer::escape;
use bulla_engine::repair::snapshots::{self, Damaged, Fate, SnapshotsOptions, SnapshotsReport};
use serde::Serialize;

/// What `repair snapshots` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
An edition has everything that can be restored of the old snapshot: where only content is lost,
path and metadata stay and the content is marked as lost. The old snapshot stays too; with
--forget it can be undeleted until its grace is over. Without --read-data only packs that are
missing, cut or condemned by bulla repair packs are doubted.")]
pub(crate) struct Args {
    /// Only these: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,
    /// Forget a damaged snapshot once its edition was committed and read back
    #[arg(long)]
    forget: bool,
    /// Read and verify every pack first
    #[arg(long)]
    read_data: bool,
    /// Say what is lost, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

/// Repairs snapshots.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    let chosen = args.filter.chosen(&repository, &args.ids)?;
    let options = SnapshotsOptions {
        snapshots: chosen.map(|all| all.iter().map(|s| s.id).collect()),
        read_data: args.read_data,
        forget: args.forget,
        dry_run: args.dry_run,
    };
    let report = watch(context.ui, WORDS, |observer| snapshots::run(&repository, &options, observer));
    let report = report.map_err(stopped)?;
    let open = |d: &Damaged| matches!(d.fate, Fate::Found | Fate::Left(_));
    let damage = !report.unreadable.is_empty() || report.damaged.iter().any(open);
    let code = if damage { Code::Damage } else { Code::Done };
    keep(code, if context.ui.json { tell_json(context, args, &report) } else { tell(context, &report) })
}

#[derive(Serialize)]
struct DamagedDocument {
    message_type: &'static str,
    schema_version: u32,
    snapshot: String,
    entries_lost: u64,
    ranges_lost: u64,
    losses: Vec<Loss>,
    edition: Option<String>,
    left: Option<String>,
    forgotten: bool,
}

#[derive(Serialize)]
struct Loss {
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    reason: String,
}

#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    snapshots: u64,
    damaged: usize,
    unreadable: &'a [String],
}

fn tell_json(context: &Context<'_>, args: &Args, report: &SnapshotsReport) -> Outcome<()> {
    let mut out = context.ui.results();
    for d in &report.damaged {
        let loss = |(path, reason): &(Vec<u8>, String)| {
            let (path, path_bytes) = lossless(path);
            Loss { path, path_bytes, reason: reason.clone() }
        };
        let (edition, left) = match &d.fate {
            Fate::Edition(id) | Fate::HadEdition(id) => (Some(id.to_string()), None),
            Fate::Left(reason) => (None, Some(reason.clone())),
            Fate::Found => (None, None),
        };
        out.document(&DamagedDocument {
            message_type: "damaged_snapshot",
            schema_version: SCHEMA,
            snapshot: d.id.to_string(),
            entries_lost: d.entries,
            ranges_lost: d.gaps,
            losses: d.losses.iter().map(loss).collect(),
            edition,
            left,
            forgotten: d.forgotten,
        })?;
    }
    out.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run: args.dry_run,
        snapshots: report.checked,
        damaged: report.damaged.len(),
        unreadable: &report.unreadable,
    })?;
    out.finish()
}

fn tell(context: &Context<'_>, report: &SnapshotsReport) -> Outcome<()> {
    /// So many losses are named for one snapshot.
    const NAMED: usize = 10;
    let mut out = context.ui.results();
    for reason in &report.unreadable {
        out.line(format_args!("cannot be read: {reason}"))?;
    }
    for d in &report.damaged {
        let id = d.id.short();
        let (hurt, gaps) = (count(d.entries, "path"), count(d.gaps, "range"));
        out.line(format_args!("damaged: snapshot {id}: {hurt} hurt, {gaps} of paths lost"))?;
        for (path, what) in d.losses.iter().take(NAMED) {
            out.line(format_args!("  {}: {what}", escape(path)))?;
        }
        if d.losses.len() > NAMED {
            out.line("  and more (--json lists a thousand)")?;
        }
        match &d.fate {
            Fate::Found => {}
            Fate::Edition(new) => out.line(format_args!("  its new edition is snapshot {}", new.short()))?,
            Fate::HadEdition(new) => {
                out.line(format_args!("  it has an edition already: snapshot {}", new.short()))?;
            }
            Fate::Left(reason) => out.line(format_args!("  it stays as it is: {reason}"))?,
        }
        if d.forgotten {
            out.line(format_args!("  forgot snapshot {id}"))?;
        }
    }
    let (checked, damaged) = (count(report.checked, "snapshot"), report.damaged.len());
    out.line(format_args!("{checked} looked at, {damaged} damaged"))?;
    out.finish()
}
