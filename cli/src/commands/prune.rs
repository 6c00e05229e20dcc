//! `bulla prune`: lets forgotten snapshots die when their grace is over, and deletes what nothing needs.

use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::format::{count, parse_size, size};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::Error;
use bulla_engine::format::RunId;
use bulla_engine::prune::{self, MaxUnused, PruneOptions, PruneReport};
use bulla_engine::repository::Repository;
use serde::Serialize;

/// What `prune` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Runs beside backups, restores, checks and other prunes, and may be stopped at any time: the next prune goes on.
A forgotten snapshot can be brought back with `bulla undelete` until its grace is over.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) how: How,
    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// What `prune` and `forget --prune` share.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct How {
    /// Unused space that may stay: a share, a size, or unlimited
    #[arg(long, value_name = "X%|SIZE", default_value = "5%", value_parser = max_unused)]
    max_unused: Unused,
    /// Read at most so much of packs that are partly used, to copy what is needed
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    max_repack_size: Option<u64>,
    /// How long a forgotten snapshot can be undeleted, as 7d or 12h; 0 is as safe for all others
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = patience)]
    grace: i64,
    /// After how long without a sign of life an unfinished backup counts as dead; 0 is safe too, it then begins again
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = patience)]
    run_expiry: i64,
    /// This unfinished run is dead, I know it (only stores without put-if-absent need this)
    #[arg(long, value_name = "RUN", value_parser = run_id)]
    assume_dead: Vec<RunId>,
}

#[derive(Debug, Clone, Copy)]
struct Unused(MaxUnused);

fn max_unused(text: &str) -> Result<Unused, String> {
    if text == "unlimited" {
        return Ok(Unused(MaxUnused::Unlimited));
    }
    let Some(share) = text.strip_suffix('%') else {
        return parse_size(text).map(|n| Unused(MaxUnused::Bytes(n)));
    };
    match share.trim().parse::<f64>() {
        Ok(share) if (0.0..100.0).contains(&share) => Ok(Unused(MaxUnused::Percent(share))),
        _ => Err(format!("{text} is not a share from 0% to below 100%")),
    }
}

/// Seconds of a time such as `7d`, `12h` or `0`.
pub(super) fn patience(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a time like 7d, 12h or 0");
    let (number, unit) = match text.strip_suffix('d') {
        Some(n) => (n, 24 * 3600),
        None => (text.strip_suffix('h').unwrap_or(text), 3600),
    };
    let number = number.parse::<u32>().map_err(|_| bad())?;
    if number != 0 && number.to_string() == text {
        return Err(bad());
    }
    Ok(i64::from(number) * unit)
}

fn run_id(text: &str) -> Result<RunId, String> {
    text.parse().map_err(|_| format!("{text:?} is not a run id of 32 hexadecimal digits"))
}

impl How {
    fn options(&self, dry_run: bool) -> PruneOptions {
        PruneOptions {
            grace: self.grace,
            run_expiry: self.run_expiry,
            max_unused: self.max_unused.0,
            max_repack: self.max_repack_size,
            assume_dead: self.assume_dead.clone(),
            dry_run,
        }
    }
}

/// Prunes.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.open()?;
    told(context, &prune(context, &repository, &args.how, args.dry_run)?, args.dry_run)
}

/// Prunes an open repository.
pub(super) fn prune(
    context: &Context<'_>,
    repository: &Repository,
    how: &How,
    dry_run: bool,
) -> Outcome<PruneReport> {
    let options = how.options(dry_run);
    let words = Words { during: "prune", list_is_result: false };
    let ended = watch(context.ui, words, |observer| prune::run(repository, &options, observer));
    ended.map_err(|e| match e {
        Error::Interrupted => {
            Failure::Stopped("interrupted: nothing that is needed was deleted; the next prune goes on")
        }
        e => e.into(),
    })
}

/// Tells about it.
pub(super) fn told(context: &Context<'_>, report: &PruneReport, dry_run: bool) -> Outcome {
    for (object, why) in &report.left {
        context.ui.note(&format!("{object} stays for now: {why}"));
    }
    if report.lost_chunks > 0 {
        let n = count(report.lost_chunks, "chunk");
        context.ui.warn(&format!("{n} that snapshots refer to cannot be found; run `bulla check`"));
    }
    let code = if report.lost_chunks > 0 { Code::Damage } else { Code::Done };
    keep(
        code,
        if context.ui.json { tell_json(context, report, dry_run) } else { tell(context, report, dry_run) },
    )
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    dry_run: bool,
    snapshots: u64,
    snapshots_ended: Vec<String>,
    runs_expired: Vec<String>,
    packs_kept: usize,
    packs_unneeded: usize,
    packs_partly_needed: usize,
    packs_deleted: u64,
    bytes_deleted: u64,
    /// Deleted and not freed: object lock keeps it.
    hidden: bool,
    chunks_copied: u64,
    bytes_stored: u64,
    bytes_unused: u64,
    bytes_to_free: u64,
    bytes_to_fetch: u64,
    bytes_to_copy: u64,
    packs_left: Vec<String>,
    lost_chunks: u64,
}

fn tell_json(context: &Context<'_>, report: &PruneReport, dry_run: bool) -> Outcome<()> {
    context.ui.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        dry_run,
        snapshots: report.snapshots,
        snapshots_ended: report.died.iter().map(ToString::to_string).collect(),
        runs_expired: report.voided.iter().map(ToString::to_string).collect(),
        packs_kept: report.plan.keep.len(),
        packs_unneeded: report.plan.delete.len(),
        packs_partly_needed: report.plan.repack.len(),
        packs_deleted: report.deleted,
        bytes_deleted: report.deleted_bytes,
        hidden: report.hidden,
        chunks_copied: report.copied,
        bytes_stored: report.stored_bytes,
        bytes_unused: report.plan.unused(),
        bytes_to_free: report.plan.freed(),
        bytes_to_fetch: report.plan.fetched(),
        bytes_to_copy: report.plan.copied(),
        packs_left: report.left.iter().map(|(object, _)| object.clone()).collect(),
        lost_chunks: report.lost_chunks,
    })
}

fn tell(context: &Context<'_>, report: &PruneReport, dry_run: bool) -> Outcome<()> {
    let mut out = context.ui.results();
    let (did, would) = if dry_run { ("would end", "would be") } else { ("ended", "were") };
    for id in &report.died {
        out.line(format_args!("{did} snapshot {}", id.short()))?;
    }
    for run in &report.voided {
        out.line(format_args!("expired the unfinished run {}", run.short()))?;
    }
    let plan = &report.plan;
    out.line(format_args!(
        "{} needed whole, {} partly, {} not at all",
        count(plan.keep.len() as u64, "pack"),
        plan.repack.len(),
        plan.delete.len()
    ))?;
    if dry_run {
        out.line(format_args!(
            "about {} {would} freed, {} unused would stay",
            size(plan.freed()),
            size(plan.unused())
        ))?;
        // What a store that charges for requests and traffic will charge for.
        out.line(format_args!(
            "at most {} {would} fetched from {} and about {} stored again; {} {would} deleted",
            size(plan.fetched()),
            count(plan.repack.len() as u64, "pack"),
            size(plan.copied()),
            count((plan.delete.len() + plan.repack.len()) as u64, "pack"),
        ))?;
        return out.finish();
    }
    if report.deleted > 0 {
        let copied = match report.copied {
            0 => String::new(),
            n => format!("; {} copied first ({})", count(n, "chunk"), size(report.stored_bytes)),
        };
        let (n, bytes) = (count(report.deleted, "pack"), size(report.deleted_bytes));
        if report.hidden {
            out.line(format_args!(
                "{n} {would} hidden by delete markers{copied}: object lock keeps their {bytes}, not freed until their \
                 retention ends and a rule of the bucket removes old versions"
            ))?;
        } else {
            out.line(format_args!("{n} {would} deleted ({bytes}){copied}"))?;
        }
    } else {
        out.line("nothing to delete")?;
    }
    if report.without_copies {
        out.line("the store is full: only what needed no copy was deleted; make room, then prune again")?;
    }
    out.line(format_args!("{} unused stay; {}", size(plan.unused()), count(report.snapshots, "snapshot")))?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(patience("7d"), Ok(7 * 24 * 3600));
        assert_eq!(patience("12h"), Ok(12 * 3600));
        assert_eq!(patience("0"), Ok(0));
        for bad in ["", "7", "d", "-1d", "1w", "1.5h"] {
            assert!(patience(bad).is_err(), "{bad}");
        }
    }
}
