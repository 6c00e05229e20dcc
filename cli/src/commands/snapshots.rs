//! `bulla snapshots`: the list, whole, filtered or grouped.

use super::FilterArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::format::{count, local_time, size};
use crate::ui::json::SnapshotDocument;
use crate::ui::table::Table;
use bulla_engine::evidence::Evidence;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::escape;
use bulla_engine::retention::{GroupBy, GroupKey};
use serde::Serialize;
use std::collections::BTreeMap;

/// What `snapshots` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
V: how far a snapshot is proven, by what is on record: 0 committed, 1 all is there, 2 read back, 3 restored and compared,
4 an application worked with what was restored.")]
pub(crate) struct Args {
    /// Only these: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,
    /// Only the newest N of each group (without --group-by: of each host and set of paths)
    #[arg(long, value_name = "N")]
    latest: Option<usize>,
    /// Group by host, paths, tags: a comma list of them
    #[arg(short, long, value_name = "KEYS")]
    group_by: Option<GroupBy>,
    /// Only those that are forgotten and can still be undeleted
    #[arg(long)]
    forgotten: bool,
    /// Leave out paths: a line each
    #[arg(short, long)]
    compact: bool,
    #[command(flatten)]
    filter: FilterArgs,
}

#[derive(Serialize)]
struct GroupDocument {
    group_key: GroupKeyDocument,
    snapshots: Vec<SnapshotDocument>,
}

#[derive(Serialize)]
struct GroupKeyDocument {
    hostname: String,
    paths: Option<Vec<String>>,
    tags: Option<Vec<String>>,
}

/// Lists snapshots.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    if args.latest == Some(0) {
        return Err(Failure::Usage("--latest 0 would list nothing".into()));
    }
    let repository = context.open()?;
    context.warn_of_rollback(&repository);
    let filter = args.filter.filter();
    let (mut list, failed) = if args.ids.is_empty() {
        let (all, failed) = repository.readable_snapshots()?;
        let forgotten = repository.forgotten()?;
        let wanted = |s: &Snapshot| filter.matches(s) && forgotten.contains_key(&s.id) == args.forgotten;
        (all.into_iter().filter(wanted).collect::<Vec<_>>(), failed)
    } else {
        (args.filter.named(&repository, &args.ids)?, Vec::new())
    };
    for e in &failed {
        context.ui.error(&format!("a snapshot cannot be read: {e}"), None, "snapshots");
    }
    if let Some(n) = args.latest {
        let by = args.group_by.unwrap_or_default();
        list = newest(list, by, n);
    }
    // Who may not read the ledger, or has none, has no proof.
    let evidence = repository.evidence().unwrap_or_default();
    match (context.ui.json, args.group_by) {
        (true, None) => context.ui.document(&documents(&list, &evidence))?,
        (true, Some(by)) => {
            let groups = grouped(list, by).into_iter().map(|(g, list)| document(g, &list, &evidence));
            context.ui.document(&groups.collect::<Vec<_>>())?;
        }
        (false, None) => print(context, &list, &evidence, args.compact)?,
        (false, Some(by)) => {
            for (i, (group, list)) in grouped(list, by).into_iter().enumerate() {
                let gap = if i == 0 { "" } else { "\n" };
                context.ui.line(format!("{gap}{group}"))?;
                print(context, &list, &evidence, args.compact)?;
            }
        }
    }
    if failed.iter().any(bulla_engine::Error::is_damage) {
        return Ok(Code::Damage);
    }
    Ok(if failed.is_empty() { Code::Done } else { Code::Failed })
}

fn grouped(list: Vec<Snapshot>, by: GroupBy) -> BTreeMap<GroupKey, Vec<Snapshot>> {
    let mut groups: BTreeMap<GroupKey, Vec<Snapshot>> = BTreeMap::new();
    for s in list {
        groups.entry(GroupKey::of(by, &s)).or_default().push(s);
    }
    groups
}

/// The last `n` of each group, in the old order.
fn newest(list: Vec<Snapshot>, by: GroupBy, n: usize) -> Vec<Snapshot> {
    let mut left: BTreeMap<GroupKey, usize> = BTreeMap::new();
    let mut kept: Vec<Snapshot> = list
        .into_iter()
        .rev()
        .filter(|s| {
            let seen = left.entry(GroupKey::of(by, s)).or_default();
            *seen += 1;
            *seen <= n
        })
        .collect();
    kept.reverse();
    kept
}

fn documents(list: &[Snapshot], evidence: &Evidence) -> Vec<SnapshotDocument> {
    let one = |s: &Snapshot| SnapshotDocument {
        level: Some(evidence.level(&s.id) as u8),
        ..SnapshotDocument::from(s)
    };
    list.iter().map(one).collect()
}

fn document(group: GroupKey, list: &[Snapshot], evidence: &Evidence) -> GroupDocument {
    let lossy = |p: Vec<u8>| String::from_utf8_lossy(&p).into_owned();
    GroupDocument {
        group_key: GroupKeyDocument {
            hostname: group.host.unwrap_or_default(),
            paths: group.paths.map(|paths| paths.into_iter().map(lossy).collect()),
            tags: group.tags,
        },
        snapshots: documents(list, evidence),
    }
}

fn print(context: &Context<'_>, list: &[Snapshot], evidence: &Evidence, compact: bool) -> Outcome<()> {
    let mut out = context.ui.results();
    if !list.is_empty() {
        let heads: &[&'static str] = &["ID", "Time", "V", "Host", "Tags", ">Size", "Paths"];
        let mut table = Table::new(if compact { heads.get(..6).unwrap_or(heads) } else { heads });
        for s in list {
            table.row(row(s, evidence, compact));
        }
        for line in table.lines() {
            out.line(line)?;
        }
    }
    out.line(count(list.len() as u64, "snapshot"))?;
    out.finish()
}

fn row(s: &Snapshot, evidence: &Evidence, compact: bool) -> Vec<Vec<String>> {
    let tags: Vec<String> = s.tags.iter().map(|t| escape(t.as_bytes())).collect();
    let mut row = vec![
        vec![s.id.short()],
        vec![local_time(s.start)],
        vec![(evidence.level(&s.id) as u8).to_string()],
        vec![escape(s.host.as_bytes())],
        if compact { vec![tags.join(",")] } else { tags },
        vec![size(s.statistics.total_bytes)],
    ];
    if !compact {
        row.push(s.paths.iter().map(|p| escape(p)).collect());
    }
    row
}
