//! `bulla find`: where a file is, and which snapshots have it.

use super::{FilterArgs, ls};
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::format::{local_time, parse_time};
use crate::ui::json::NodeDocument;
use crate::ui::progress::{Words, watch};
use bulla_engine::Error;
use bulla_engine::find::Search;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{Entry, Timestamp};
use bulla_engine::repository::Repository;
use bulla_engine::source::PatternSet;
use serde::Serialize;

/// What `find` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Patterns are those of backup --exclude: a name as *.php is found anywhere, a pattern with a leading slash at the top;
** stands for any number of directories. The directory that matches is printed, and not what is in it.")]
pub(crate) struct Args {
    /// Names or paths to look for; any of them
    #[arg(value_name = "PATTERN", required = true)]
    patterns: Vec<String>,
    /// Ignore case
    #[arg(short, long)]
    ignore_case: bool,
    /// With permissions, owner, size and time
    #[arg(short, long)]
    long: bool,
    /// Sizes with units, as 1.3 GiB
    #[arg(long)]
    human_readable: bool,
    /// Only what was modified at this time or later
    #[arg(short = 'O', long, value_name = "TIME", value_parser = parse_time)]
    oldest: Option<Timestamp>,
    /// Only what was modified at this time or earlier
    #[arg(short = 'N', long, value_name = "TIME", value_parser = parse_time)]
    newest: Option<Timestamp>,
    /// Only in this snapshot (several: any of them) [default: all that are not forgotten]
    #[arg(short, long, value_name = "SNAPSHOT")]
    snapshot: Vec<String>,
    #[command(flatten)]
    filter: FilterArgs,
}

const WORDS: Words = Words { during: "find", list_is_result: true };

#[derive(Serialize)]
struct Hits {
    matches: Vec<NodeDocument>,
    hits: usize,
    snapshot: String,
}

/// Looks.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let patterns =
        PatternSet::new(&args.patterns, args.ignore_case).map_err(|e| Failure::Usage(e.to_string()))?;
    let repository = context.open()?;
    let snapshots = snapshots(&repository, args)?;
    let within =
        |e: &Entry| args.oldest.is_none_or(|t| e.mtime >= t) && args.newest.is_none_or(|t| e.mtime <= t);
    let wanted = |e: &Entry| patterns.matches_itself(&e.path()) && within(e);
    let (mut search, mut damaged, mut all) = (Search::new(&repository)?, false, Vec::new());
    for snapshot in &snapshots {
        let mut hits = Hits { matches: Vec::new(), hits: 0, snapshot: snapshot.id.to_string() };
        let mut told = Ok(());
        let searched = watch(context.ui, WORDS, |observer| {
            search.search(snapshot, &wanted, observer, &mut |entry| {
                hits.hits += 1;
                if context.ui.json {
                    hits.matches.push(NodeDocument::from(entry));
                } else if told.is_ok() {
                    told = tell(context, args, (snapshot, hits.hits == 1), entry);
                }
                if told.is_ok() { Ok(()) } else { Err(Error::Interrupted) }
            })
        });
        told?;
        match searched {
            Err(e) if e.is_damage() => {
                damaged = true;
                context.ui.error(&format!("snapshot {}: {e}", snapshot.id.short()), None, "find");
            }
            other => other?,
        }
        if hits.hits > 0 {
            all.push(hits);
        }
    }
    if context.ui.json {
        context.ui.document(&all)?;
    }
    Ok(if damaged { Code::Damage } else { Code::Done })
}

fn snapshots(repository: &Repository, args: &Args) -> Outcome<Vec<Snapshot>> {
    if !args.snapshot.is_empty() {
        return args.filter.named(repository, &args.snapshot);
    }
    let filter = args.filter.filter();
    Ok(repository.snapshots()?.into_iter().filter(|s| filter.matches(s)).collect())
}

fn tell(
    context: &Context<'_>,
    args: &Args,
    (snapshot, first): (&Snapshot, bool),
    entry: &Entry,
) -> Outcome<()> {
    if first {
        let (id, time) = (snapshot.id.short(), local_time(snapshot.start));
        context.ui.line(format!("found in snapshot {id} of {time}"))?;
    }
    context.ui.line(ls::line(entry, args.long, args.human_readable))
}
