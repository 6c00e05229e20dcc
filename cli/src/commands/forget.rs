//! `bulla forget`: says which snapshots may go, by name or by a policy, and shows the reason for each that stays.

use super::FilterArgs;
use super::prune::{How, prune, told};
use super::retention::RetentionArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::format::{count, local_time};
use crate::ui::json::{SCHEMA, SnapshotDocument};
use crate::ui::prompt;
use crate::ui::table::Table;
use bulla_engine::Error;
use bulla_engine::backend::BackendError;
use bulla_engine::forget::{Permit, forget};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{ObjectName, RunId};
use bulla_engine::observer::escape;
use bulla_engine::prune::PruneReport;
use bulla_engine::repository::Repository;
use bulla_engine::retention::{Candidate, Plan, plan};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// What `forget` takes.
#[derive(Debug, clap::Args)]
#[command(mut_arg("host", |a| a.short(None)))]
#[command(after_help = "\
A forgotten snapshot is not listed any more and can be brought back with `bulla undelete` until a prune ends it, seven
days later unless told otherwise. Rules are ORed: a snapshot that any rule keeps stays. A number keeps so many hours,
days and so on that have a snapshot; a duration like 12m keeps them for all of that time and never falls short of it.")]
pub(crate) struct Args {
    /// These, whatever any rule says: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,
    /// Prune afterwards
    #[arg(long)]
    prune: bool,
    /// Without grace: the next prune ends them
    #[arg(long)]
    now: bool,
    /// Do not ask before --now
    #[arg(long)]
    yes: bool,
    /// Only say what would be forgotten
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    retention: RetentionArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten, next_help_heading = "With --prune")]
    how: How,
}

/// Forgets.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    if args.ids.is_empty() {
        // Says what is missing when there is no rule either.
        args.retention.policy()?;
    } else if args.retention.is_given() {
        let text = "give snapshots or rules, not both: snapshots that are named go whatever any rule says";
        return Err(Failure::Usage(text.into()));
    }
    let repository = context.open()?;
    repository.verify_history()?;
    let (remove, reason) = match args.ids.is_empty() {
        true => by_policy(context, args, &repository)?,
        false => by_name(context, args, &repository)?,
    };
    let mut pruned = None;
    if !args.dry_run && !remove.is_empty() {
        if args.now && !args.yes {
            let n = count(remove.len() as u64, "snapshot");
            match prompt::confirm(&format!("Forget {n} without grace?")) {
                Some(true) => {}
                Some(false) => return Err(Failure::Failed("nothing was forgotten".into())),
                None => {
                    return Err(Failure::Usage(
                        "there is no terminal to ask on: confirm --now with --yes".into(),
                    ));
                }
            }
        }
        pruned = let_go(context, args, &repository, &remove, &reason)?;
        if !context.ui.json {
            context.ui.line(format_args!("{} forgotten", count(remove.len() as u64, "snapshot")))?;
        }
    }
    if !args.prune {
        return Ok(Code::Done);
    }
    let mut report = or_told(prune(context, &repository, &args.how, args.dry_run), || {
        pruned.as_ref().map(|pruned| told(context, pruned, false));
    })?;
    if let Some(pruned) = pruned {
        report = report.after(pruned);
    }
    told(context, &report, args.dry_run)
}

/// Lets go of `ids`: of as many as there is room for, and where a prune is wanted that one makes room for the others. Gives what
/// it did.
fn let_go(
    context: &Context<'_>,
    args: &Args,
    repository: &Repository,
    ids: &[RunId],
    reason: &str,
) -> Outcome<Option<PruneReport>> {
    let let_go = |ids: &[RunId]| forget(repository, &Permit::ask(repository, ids, reason)?, args.now);
    match let_go(ids) {
        Err(Error::Backend(BackendError::NoSpace { .. })) if args.prune => {}
        other => return Ok(other.map(|_| None)?),
    }
    let pruned = prune(context, repository, &args.how, false)?;
    let others = || {
        let alive: HashSet<RunId> = repository.snapshots()?.iter().map(|s| s.id).collect();
        let left: Vec<RunId> = ids.iter().filter(|id| alive.contains(id)).copied().collect();
        if left.is_empty() { Ok(()) } else { Ok(let_go(&left).map(|_| ())?) }
    };
    or_told(others(), || _ = told(context, &pruned, false))?;
    Ok(Some(pruned))
}

/// Where something failed, first tells what was done before it, and stays done.
fn or_told<T>(outcome: Outcome<T>, tell: impl FnOnce()) -> Outcome<T> {
    if outcome.is_err() {
        tell();
    }
    outcome
}

fn by_name(context: &Context<'_>, args: &Args, repository: &Repository) -> Outcome<(Vec<RunId>, String)> {
    let filter = args.filter.filter();
    let mut remove = Vec::new();
    for id in &args.ids {
        remove.push(repository.resolve(id, &filter)?.0.id);
    }
    if args.dry_run {
        for id in &remove {
            context.ui.line(format_args!("would forget snapshot {}", id.short()))?;
        }
    }
    Ok((remove, args.reason.clone().unwrap_or_else(|| "named on the command line".into())))
}

/// All alive snapshots that the filters pick; one that cannot be read would shift what the rules keep.
fn by_policy(context: &Context<'_>, args: &Args, repository: &Repository) -> Outcome<(Vec<RunId>, String)> {
    let (policy, filter) = (args.retention.policy()?, args.filter.filter());
    let mut snapshots = repository.snapshots()?;
    snapshots.retain(|s| filter.matches(s));
    let mut candidates = Vec::with_capacity(snapshots.len());
    for s in &snapshots {
        let received = repository.backend().stat(&ObjectName::Verdict(s.id))?.map(|stat| stat.modified);
        candidates.push(Candidate::new(s, received));
    }
    let now = repository.env().clock.now();
    let plan = plan(&candidates, &repository.held()?, &policy, now, &args.retention.time_zone());
    let plan = plan.map_err(bulla_engine::Error::from)?;
    for contradiction in &plan.contradictions {
        let text = format!("{contradiction}; its times keep all of it, unless --unsafe-trust-client-times");
        context.ui.warn(&text);
    }
    tell(context, &plan, &snapshots, args.dry_run)?;
    let remove = plan.groups.into_iter().flat_map(|g| g.remove).collect();
    Ok((remove, args.reason.clone().unwrap_or_else(|| "no rule keeps it".into())))
}

#[derive(Serialize)]
struct GroupDocument {
    message_type: &'static str,
    schema_version: u32,
    host: Option<String>,
    paths: Option<Vec<String>>,
    tags: Option<Vec<String>>,
    keep: Vec<SnapshotDocument>,
    remove: Vec<SnapshotDocument>,
    reasons: Vec<Why>,
}

#[derive(Serialize)]
struct Why {
    snapshot: String,
    matches: Vec<String>,
}

fn tell(context: &Context<'_>, plan: &Plan, snapshots: &[Snapshot], dry_run: bool) -> Outcome<()> {
    let by_id: HashMap<RunId, &Snapshot> = snapshots.iter().map(|s| (s.id, s)).collect();
    if context.ui.json {
        let of = |id: &RunId| by_id.get(id).map(|s| SnapshotDocument::from(*s));
        let groups = plan.groups.iter().map(|g| {
            let lossy = |p: &Vec<u8>| String::from_utf8_lossy(p).into_owned();
            GroupDocument {
                message_type: "forget",
                schema_version: SCHEMA,
                host: g.key.host.clone(),
                paths: g.key.paths.as_ref().map(|paths| paths.iter().map(lossy).collect()),
                tags: g.key.tags.clone(),
                keep: g.keep.iter().filter_map(|k| of(&k.id)).collect(),
                remove: g.remove.iter().filter_map(of).collect(),
                reasons: g
                    .keep
                    .iter()
                    .map(|k| Why {
                        snapshot: k.id.to_string(),
                        matches: k.reasons.iter().map(ToString::to_string).collect(),
                    })
                    .collect(),
            }
        });
        return context.ui.document(&groups.collect::<Vec<_>>());
    }
    let mut out = context.ui.results();
    for group in &plan.groups {
        out.line(&group.key)?;
        let mut table = Table::new(&["", "ID", "Time", "Tags", "Why"]);
        let row = |word: &str, s: &Snapshot, why: Vec<String>| {
            let tags = s.tags.iter().map(|t| escape(t.as_bytes())).collect::<Vec<_>>().join(",");
            vec![vec![word.to_owned()], vec![s.id.short()], vec![local_time(s.start)], vec![tags], why]
        };
        for kept in &group.keep {
            if let Some(s) = by_id.get(&kept.id) {
                table.row(row("keep", s, kept.reasons.iter().map(ToString::to_string).collect()));
            }
        }
        let word = if dry_run { "would forget" } else { "forget" };
        for id in &group.remove {
            if let Some(s) = by_id.get(id) {
                table.row(row(word, s, vec!["no rule keeps it".into()]));
            }
        }
        for line in table.lines() {
            out.line(line)?;
        }
        out.line("")?;
    }
    let removed: usize = plan.groups.iter().map(|g| g.remove.len()).sum();
    let kept: usize = plan.groups.iter().map(|g| g.keep.len()).sum();
    if dry_run {
        out.line(format_args!("{} would be forgotten, {kept} stay", count(removed as u64, "snapshot")))?;
    }
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_told_before_what_failed() {
        let mut told = 0;
        assert!(or_told(Ok(()), || told += 1).is_ok());
        assert_eq!(told, 0);
        let failed = or_told(Err::<(), _>(Failure::Stopped("interrupted")), || told += 1);
        assert!(matches!(failed, Err(Failure::Stopped("interrupted"))));
        assert_eq!(told, 1);
    }
}
