//! `bulla protect`, `bulla unprotect`, `bulla undelete`: keep a snapshot whatever any policy says; end that; bring a
//! forgotten one back.

use super::FilterArgs;
use crate::context::Context;
use crate::exit::{Code, Outcome};
use crate::ui::format::count;
use crate::ui::json::{SCHEMA, SnapshotDocument};
use bulla_engine::forget;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::repository::Repository;
use serde::Serialize;

/// What `protect` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Protect {
    /// Snapshots: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT", required = true)]
    ids: Vec<String>,
    /// Why, for those who find it later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What `unprotect` and `undelete` take.
#[derive(Debug, clap::Args)]
pub(crate) struct Which {
    /// Snapshots: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT", required = true)]
    ids: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    snapshots: Vec<String>,
}

fn named(repository: &Repository, ids: &[String], filter: &FilterArgs) -> Outcome<Vec<Snapshot>> {
    let filter = filter.filter();
    ids.iter().map(|id| Ok(repository.resolve(id, &filter)?.0)).collect()
}

fn tell(context: &Context<'_>, done: &[Snapshot], verb: &str) -> Outcome {
    if context.ui.json {
        let snapshots = done.iter().map(|s| s.id.to_string()).collect();
        context.ui.document(&Summary { message_type: "summary", schema_version: SCHEMA, snapshots })?;
    } else {
        context.ui.line(format_args!("{} {verb}", count(done.len() as u64, "snapshot")))?;
    }
    Ok(Code::Done)
}

/// Protects.
pub(crate) fn protect(context: &Context<'_>, args: &Protect) -> Outcome {
    let repository = context.open()?;
    let list = named(&repository, &args.ids, &args.filter)?;
    for s in &list {
        forget::protect(&repository, &s.id, &args.reason)?;
    }
    tell(context, &list, "protected")
}

/// Ends a protection.
pub(crate) fn unprotect(context: &Context<'_>, args: &Which) -> Outcome {
    let repository = context.open()?;
    let mut done = Vec::new();
    for s in named(&repository, &args.ids, &args.filter)? {
        if forget::unprotect(&repository, &s.id)? {
            done.push(s);
        } else {
            context.ui.note(&format!("snapshot {} was not protected", s.id.short()));
        }
    }
    tell(context, &done, "no longer protected")
}

/// Brings forgotten snapshots back.
pub(crate) fn undelete(context: &Context<'_>, args: &Which) -> Outcome {
    let repository = context.open()?;
    let forgotten = repository.forgotten()?;
    let mut back = Vec::new();
    for s in named(&repository, &args.ids, &args.filter)? {
        if forgotten.contains_key(&s.id) {
            back.push((s.id, forget::undelete(&repository, &s.id)?));
        } else {
            context.ui.note(&format!("snapshot {} is not forgotten", s.id.short()));
        }
    }
    if context.ui.json {
        let list: Vec<SnapshotDocument> = back.iter().map(|(_, s)| SnapshotDocument::from(s)).collect();
        context.ui.document(&list)?;
    } else {
        for (old, new) in &back {
            context.ui.line(format_args!("snapshot {} is back as {}", old.short(), new.id.short()))?;
        }
    }
    Ok(Code::Done)
}
