//! `bulla check`: proves that what snapshots refer to is there and, with `--read-data`, that it is what it says.

use super::FilterArgs;
use crate::confine::Bounds;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::format::{count, parse_size, size};
use crate::ui::json::{SCHEMA, lossless};
use crate::ui::progress::{Words, watch};
use bulla_backends::location::Location;
use bulla_engine::Error;
use bulla_engine::backend::Local;
use bulla_engine::check::{self, CheckOptions, CheckReport, Finding, ReadData};
use bulla_engine::format::Area;
use bulla_engine::observer::escape;
use serde::Serialize;
use std::time::Duration;

/// What `check` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Without --read-data the structure is checked: every object listed, every tree read, every chunk found.
A subset as 2/7 reads the same packs every time, so that seven runs read all; 5% and 10G are drawn at random.
With snapshots or filters only those snapshots are walked, and only packs that they need are looked at.")]
pub(crate) struct Args {
    /// Only these: ids, prefixes, latest, latest~N
    #[arg(value_name = "SNAPSHOT")]
    ids: Vec<String>,
    /// Take what the repository shows now for the truth, though this machine has seen a newer state of it
    #[arg(long)]
    accept_rollback: bool,
    /// Read and verify every pack
    #[arg(long, conflicts_with_all = ["read_data_subset", "read_data_within"])]
    read_data: bool,
    /// Read and verify a part of the packs
    #[arg(long, value_name = "N/T|X%|SIZE", value_parser = subset, conflicts_with = "read_data_within")]
    read_data_subset: Option<Subset>,
    /// Read those whose turn it is, so that daily checks read every pack within so many days, as 30d
    #[arg(long, value_name = "DAYS", value_parser = days)]
    read_data_within: Option<u32>,
    /// Begin no further pack after this long, as 2h or 30min; the next check goes on
    #[arg(long, value_name = "TIME", value_parser = longest)]
    max_duration: Option<Duration>,
    #[command(flatten)]
    filter: FilterArgs,
}

/// A part of the data.
#[derive(Debug, Clone, Copy)]
struct Subset(ReadData);

fn subset(text: &str) -> Result<Subset, String> {
    let bad = || format!("{text:?} is none of a part like 2/7, a share like 5%, a size like 10G");
    if let Some((n, of)) = text.split_once('/') {
        let (n, of) =
            (n.trim().parse::<u64>().map_err(|_| bad())?, of.trim().parse::<u64>().map_err(|_| bad())?);
        if n == 0 || n > of {
            return Err(format!("there is no part {n} of {of}; parts count from 1"));
        }
        return Ok(Subset(ReadData::Part { n, of }));
    }
    if let Some(share) = text.strip_suffix('%') {
        let share = share.trim().parse::<f64>().map_err(|_| bad())?;
        if !(share > 0.0 && share <= 100.0) {
            return Err(format!("{text} is not above 0% and at most 100%"));
        }
        return Ok(Subset(ReadData::Percent(share)));
    }
    parse_size(text).map(|n| Subset(ReadData::Bytes(n))).map_err(|_| bad())
}

fn days(text: &str) -> Result<u32, String> {
    let days = text.strip_suffix('d').and_then(|n| n.parse().ok()).filter(|n| (1..=3650).contains(n));
    days.ok_or_else(|| format!("{text:?} is not a number of days like 30d"))
}

fn longest(text: &str) -> Result<Duration, String> {
    let seconds =
        |suffix: &str, unit: u64| Some(text.strip_suffix(suffix)?.parse::<u32>().ok()? as u64 * unit);
    let found = seconds("min", 60).or_else(|| seconds("h", 3600)).or_else(|| seconds("s", 1));
    found.map(Duration::from_secs).ok_or_else(|| format!("{text:?} is not a time like 2h, 30min or 90s"))
}

/// Checks.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let repository = context.without_copies().open_after(|location, env| {
        let mut bounds = Bounds::reader(location, env);
        if let Location::Local(root) = location {
            bounds = Local::new(root).written_for(Area::Records).into_iter().fold(bounds, Bounds::writing);
        }
        bounds.enforce(context.ui);
    })?;
    if args.accept_rollback {
        repository.accept_history()?;
    }
    let history = repository.verify_history();
    let read_data = match args.read_data_subset {
        _ if args.read_data => ReadData::All,
        Some(Subset(part)) => part,
        None => args.read_data_within.map_or(ReadData::No, |days| ReadData::Within { days }),
    };
    let words = Words { during: "check", list_is_result: false };
    let snapshots = args.filter.chosen(&repository, &args.ids)?;
    let snapshots = snapshots.map(|all| all.iter().map(|s| s.id).collect());
    let options = CheckOptions { read_data, snapshots, record: true, max_duration: args.max_duration };
    let ended = watch(context.ui, words, |observer| check::run(&repository, &options, observer));
    let report = ended.map_err(|e| match e {
        Error::Interrupted => {
            Failure::Stopped("interrupted: the check is not complete, what it found is not shown")
        }
        e => e.into(),
    })?;
    let code = if report.findings.is_empty() { Code::Done } else { Code::Damage };
    let code =
        keep(code, if context.ui.json { tell_json(context, &report) } else { tell(context, &report) })?;
    // Worse than what was found: what should have been found is not there.
    history.map_err(Failure::from).map(|()| code)
}

#[derive(Serialize)]
struct FindingDocument {
    message_type: &'static str,
    schema_version: u32,
    object: String,
    reason: String,
    hurts: Vec<Hurt>,
}

#[derive(Serialize)]
struct Hurt {
    snapshot: String,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    message_type: &'static str,
    schema_version: u32,
    num_errors: usize,
    broken_packs: Vec<String>,
    hurt_snapshots: Vec<String>,
    snapshots: u64,
    tree_nodes: u64,
    packs: u64,
    packs_read: u64,
    bytes_read: u64,
    packs_left: u64,
}

fn tell_json(context: &Context<'_>, report: &CheckReport) -> Outcome<()> {
    report.notices.iter().for_each(|n| context.ui.note(n));
    let mut out = context.ui.results();
    for f in &report.findings {
        let hurts = f.hurts.iter().map(|(snapshot, path)| {
            let (path, path_bytes) = lossless(&shown(path));
            Hurt { snapshot: snapshot.clone(), path, path_bytes }
        });
        out.document(&FindingDocument {
            message_type: "finding",
            schema_version: SCHEMA,
            object: f.object.clone(),
            reason: f.reason.clone(),
            hurts: hurts.collect(),
        })?;
    }
    let is_pack = |f: &&Finding| f.object.starts_with("packs/") || f.object.starts_with("meta/");
    out.document(&Summary {
        message_type: "summary",
        schema_version: SCHEMA,
        num_errors: report.findings.len(),
        broken_packs: report.findings.iter().filter(is_pack).map(|f| f.object.clone()).collect(),
        hurt_snapshots: hurt(report),
        snapshots: report.snapshots,
        tree_nodes: report.nodes,
        packs: report.packs,
        packs_read: report.packs_read,
        bytes_read: report.bytes_read,
        packs_left: report.packs_left,
    })?;
    out.finish()
}

/// Short ids of all snapshots that something hurts, each once.
fn hurt(report: &CheckReport) -> Vec<String> {
    let mut ids: Vec<String> =
        report.findings.iter().flat_map(|f| &f.hurts).map(|(s, _)| s.clone()).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// A path of the tree as users write it.
fn shown(path: &[u8]) -> Vec<u8> {
    [b"/", path.strip_prefix(b"/").unwrap_or(path)].concat()
}

fn tell(context: &Context<'_>, report: &CheckReport) -> Outcome<()> {
    /// So many paths are named for one finding.
    const NAMED: usize = 10;
    report.notices.iter().for_each(|n| context.ui.note(n));
    let mut out = context.ui.results();
    for f in &report.findings {
        out.line(format_args!("damaged: {}: {}", f.object, f.reason))?;
        for (snapshot, path) in f.hurts.iter().take(NAMED) {
            out.line(format_args!("  hurts {snapshot}:{}", escape(&shown(path))))?;
        }
        if let Some(more) = f.hurts.len().checked_sub(NAMED).filter(|n| *n > 0) {
            out.line(format_args!("  and {} more (--json lists a thousand)", count(more as u64, "path")))?;
        }
    }
    let read = match report.packs_read {
        0 => "no data read (--read-data does)".to_owned(),
        n => format!("{} read whole ({})", count(n, "pack"), size(report.bytes_read)),
    };
    let read = match report.packs_left {
        0 => read,
        n => format!("{read}, {n} left for the next check"),
    };
    let seen = format!(
        "{}, {}, {}; {read}",
        count(report.snapshots, "snapshot"),
        count(report.nodes, "tree node"),
        count(report.packs, "pack")
    );
    if !context.ui.quiet {
        out.line(format_args!("checked {seen}"))?;
    }
    if report.findings.is_empty() {
        out.line("no damage found")?;
    } else {
        let n = count(report.findings.len() as u64, "object");
        let hurt = hurt(report);
        let hurt = if hurt.is_empty() { "no snapshot".into() } else { hurt.join(", ") };
        out.line(format_args!("{n} damaged; hurt: {hurt}"))?;
    }
    out.finish()
}
