//! `bulla backup`: paths, a stream or a command's output into a snapshot, of one repository or of several.

use super::places::{self, Place};
use super::sources::{self, StreamArgs};
use super::{comma_list, init};
use crate::context::{Context, variable};
use crate::exit::{Code, Failure, HINT_ROLLBACK, Outcome, keep};
use crate::ui::format::{between, count, duration, parse_size, parse_time, size};
use crate::ui::json::{BackupSummary, Counts, SCHEMA};
use crate::ui::progress::{Words, watch_until};
use crate::ui::signals;
use bulla_engine::Error;
use bulla_engine::backup::decide::Comparison;
use bulla_engine::backup::{self, BackupOptions, BackupReport, Parent};
use bulla_engine::copy::several::{self, Taken};
use bulla_engine::format::frame::Compression;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::repository::{Repository, SnapshotFilter};
use bulla_engine::source::{FilterSpec, Running};
use clap::ValueEnum;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What `backup` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
With several -r the source is read once: the first that opens takes the backup, one on this
machine before others, and each of the rest gets a copy, with what it missed of the same host and
paths. One that fails, or does not answer for a minute (-o retry-seconds=N), is behind until the
next backup; the others have their snapshot, and the exit code is 3. --key-file, --password-file or
--password-command is given once for all, or once for each -r, in
their order. -r behind the word backup replaces what stands before it.")]
pub(crate) struct Args {
    /// Files and directories
    #[arg(value_name = "PATH")]
    pub(super) paths: Vec<PathBuf>,
    /// Compression [BULLA_COMPRESSION]
    #[arg(long, value_name = "HOW", value_enum)]
    compression: Option<Level>,
    /// Files read at the same time [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    read_concurrency: Option<u16>,
    /// Do everything but store
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Make no snapshot if nothing changed
    #[arg(long)]
    skip_if_unchanged: bool,
    /// Make the repository first if there is none
    #[arg(long)]
    init: bool,
    /// With --init: write the recovery key to this new file instead of printing it
    #[arg(long, value_name = "FILE", requires = "init")]
    recovery_key_out: Option<PathBuf>,
    #[arg(long, hide = true)]
    no_verify: bool,
    #[command(flatten)]
    pub(super) select: Select,
    #[command(flatten)]
    pub(super) stream: StreamArgs,
    #[command(flatten)]
    compare: Compare,
    #[command(flatten)]
    label: Label,
}

/// What is left out, and how paths are given.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to back up")]
pub(super) struct Select {
    /// Leave out what matches this pattern; !PATTERN takes back
    #[arg(short, long, value_name = "PATTERN")]
    pub(super) exclude: Vec<String>,
    /// Same, whatever the case
    #[arg(long, value_name = "PATTERN")]
    pub(super) iexclude: Vec<String>,
    /// Leave out what matches a pattern of this file: one a line, # comments
    #[arg(long, value_name = "FILE")]
    pub(super) exclude_file: Vec<PathBuf>,
    /// Same, whatever the case
    #[arg(long, value_name = "FILE")]
    pub(super) iexclude_file: Vec<PathBuf>,
    /// Leave out what is in directories with a valid CACHEDIR.TAG
    #[arg(long)]
    pub(super) exclude_caches: bool,
    /// Leave out what is in directories with this file (that begins with HEADER)
    #[arg(long, value_name = "FILE[:HEADER]")]
    pub(super) exclude_if_present: Vec<String>,
    /// Leave out files larger than this, as 100M
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(super) exclude_larger_than: Option<u64>,
    /// Stay on the file systems of the paths
    #[arg(short = 'x', long)]
    pub(super) one_file_system: bool,
    /// Paths from this file: patterns, one a line, # comments (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub(super) files_from: Vec<PathBuf>,
    /// Paths from this file: one a line, as they are (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub(super) files_from_verbatim: Vec<PathBuf>,
    /// Paths from this file: each ends with a zero byte (- is stdin)
    #[arg(long, value_name = "FILE")]
    pub(super) files_from_raw: Vec<PathBuf>,
    /// Store access times
    #[arg(long)]
    pub(super) with_atime: bool,
}

/// How changes are found.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "How to find changes")]
struct Compare {
    /// Compare with this snapshot [default: the newest of the same host and paths]
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "force")]
    parent: Option<String>,
    /// Compare with nothing: read every file
    #[arg(short, long)]
    force: bool,
    /// Do not compare inode numbers
    #[arg(long)]
    ignore_inode: bool,
    /// Do not compare change times
    #[arg(long)]
    ignore_ctime: bool,
}

/// What the snapshot is called.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What the snapshot says")]
struct Label {
    /// Tags: a comma list, or the option again
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// The host it is about [BULLA_HOST, default: this machine]
    #[arg(short = 'H', long, value_name = "NAME")]
    host: Option<String>,
    /// The time it shows, as "2026-01-31 04:00:00" or RFC 3339 [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    time: Option<Timestamp>,
}

/// How hard to compress.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    /// Fast; what does not shrink is stored
    Auto,
    /// Not at all
    Off,
    /// Least effort
    Fastest,
    /// Smaller and slower
    Better,
    /// Smallest and very slow
    Max,
}

impl From<Level> for Compression {
    fn from(level: Level) -> Self {
        match level {
            Level::Auto => Self::Auto,
            Level::Off => Self::Off,
            Level::Fastest => Self::Fastest,
            Level::Better => Self::Better,
            Level::Max => Self::Max,
        }
    }
}

/// Backs up.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let compression = compression(args)?;
    sources::check(args)?;
    let context = &context.with_width(args.read_concurrency);
    if args.init {
        context.location()?;
    }
    let secrets = places::secrets(context)?;
    let mut places = places::all(context, &secrets)?;
    let job = Job { context, args, spec: sources::filter_spec(args)?, compression, started: Instant::now() };
    let (several, mut done) = (places.len() > 1, None);
    several::store(
        &mut places,
        Place::is_near,
        |place| match job.take(place) {
            Ok(taken) => {
                done = Some(taken);
                Taken::Yes
            }
            Err((last, failure)) => {
                place.fails((several && !last).then_some((context.ui, REMEDY)), failure);
                if last { Taken::ByNone } else { Taken::No }
            }
        },
        |from, to| to.copy_from(context, from),
    );
    let Some((report, missing, told)) = done else {
        // Where the source is to blame there is one failure, else the first repository's counts.
        let failure = places.into_iter().find_map(|place| place.failure);
        return Err(failure.unwrap_or_else(|| Failure::Failed("there is no repository to back up to".into())));
    };
    let behind = places.iter().any(|place| place.failure.is_some());
    let partial = report.statistics.errors > 0 || missing > 0 || behind;
    let code = match (&report.alarm, partial) {
        (Some(_), _) => Code::Anomaly,
        (None, true) => Code::Partial,
        (None, false) => Code::Done,
    };
    keep(code, told)
}

/// What to do for a repository that did not take a backup that another has.
const REMEDY: &str = "bulla copy brings it this snapshot, the next backup one of its own";

/// A backup, whatever repository takes it.
struct Job<'a> {
    context: &'a Context<'a>,
    args: &'a Args,
    spec: FilterSpec,
    compression: Compression,
    started: Instant,
}

/// What was backed up, paths that were not there, and whether it could be told.
type Report = (BackupReport, usize, Outcome<()>);

impl Job<'_> {
    /// Backs up to a place; on failure whether no other place is to be tried, and why.
    fn take(&self, place: &mut Place<'_>) -> Result<Report, (bool, Failure)> {
        let (context, args) = (self.context, self.args);
        let opened = if args.init { repository(context, args) } else { place.open(context) };
        let repository = opened.map_err(|failure| (false, failure))?;
        let last = |failure: &Failure| {
            let source = !matches!(failure, Failure::Engine(_)) || sources::reads_stdin(args);
            source || matches!(failure, Failure::Engine(Error::Interrupted))
        };
        let (report, missing) = self.back_up(&repository).map_err(|failure| (last(&failure), failure))?;
        if let Some(alarm) = &report.alarm {
            context.ui.warn(&format!("{alarm}; {HINT_ROLLBACK}"));
        }
        let told = tell(context, args, &report, self.started.elapsed());
        place.has(repository, &report);
        Ok((report, missing, told))
    }

    fn back_up(&self, repository: &Repository) -> Outcome<(BackupReport, usize)> {
        let (context, args, spec) = (self.context, self.args, &self.spec);
        let excludes = spec.excludes.iter().chain(&spec.iexcludes);
        let options = BackupOptions {
            host: args.label.host.clone().unwrap_or_else(|| context.host()),
            tags: args.label.tag.iter().flat_map(|list| comma_list(list)).collect(),
            time: args.label.time,
            parent: parent(repository, args)?,
            comparison: Comparison {
                ignore_inode: args.compare.ignore_inode,
                ignore_ctime: args.compare.ignore_ctime,
            },
            dry_run: args.dry_run,
            skip_if_unchanged: args.skip_if_unchanged,
            compression: self.compression,
            verify_packs: !args.no_verify,
            excludes: excludes.map(|p| String::from_utf8_lossy(p).into_owned()).collect(),
            ..BackupOptions::default()
        };
        let opened = sources::open(context, args, spec)?;
        let words = Words { during: "archival", list_is_result: args.dry_run };
        let stream = opened.stream.clone();
        let stop = || stream.iter().for_each(Running::stop);
        let ended = watch_until(context.ui, words, &stop, |observer| {
            backup::run(repository, opened.sources, &options, observer)
        });
        let report = ended.map_err(|e| match stream.as_ref().and_then(Running::failure) {
            Some(_) if signals::stop_asked() => Error::Interrupted.into(),
            // The command's own failure is the reason, whatever the engine made of it.
            Some(why) if matches!(e, Error::Refused(_)) => {
                Failure::Failed(format!("{why}; nothing was committed"))
            }
            _ => e.into(),
        })?;
        Ok((report, opened.missing))
    }
}

fn compression(args: &Args) -> Outcome<Compression> {
    if let Some(level) = args.compression {
        return Ok(level.into());
    }
    let Some(word) = variable("BULLA_COMPRESSION") else { return Ok(Compression::Auto) };
    let word = word.to_string_lossy();
    let level = Level::from_str(&word, true);
    let bad =
        |_| Failure::Usage(format!("BULLA_COMPRESSION is {word:?}, none of auto, off, fastest, better, max"));
    level.map(Into::into).map_err(bad)
}

/// The repository; made first when `--init` says so and there is none.
fn repository(context: &Context<'_>, args: &Args) -> Outcome<Repository> {
    if args.init {
        let store = context.store()?;
        if !Repository::exists(&*store.backend())? {
            if args.dry_run {
                return Err(Failure::Usage("--dry-run makes no repository, and there is none".into()));
            }
            let wanted =
                init::Args { recovery_key_out: args.recovery_key_out.clone(), ..init::Args::default() };
            let made = init::create(context, store, &wanted)?;
            made.tell(context, false)?;
            return Ok(made.repository);
        }
    }
    context.open()
}

fn parent(repository: &Repository, args: &Args) -> Outcome<Parent> {
    match &args.compare.parent {
        _ if args.compare.force => Ok(Parent::None),
        None => Ok(Parent::Auto),
        Some(selector) => {
            let (snapshot, sub) = repository.resolve(selector, &SnapshotFilter::default())?;
            if !sub.is_empty() {
                return Err(Failure::Usage("--parent takes a snapshot, not a path in one".into()));
            }
            Ok(Parent::Id(snapshot.id))
        }
    }
}

fn tell(context: &Context<'_>, args: &Args, report: &BackupReport, took: Duration) -> Outcome<()> {
    if context.ui.json {
        return context.ui.document(&BackupSummary {
            message_type: "summary",
            schema_version: SCHEMA,
            counts: Counts::from(&report.statistics),
            total_duration: took.as_secs_f64(),
            dry_run: args.dry_run,
            parent: report.parent.map(|p| p.to_string()),
            snapshot_id: report.snapshot.as_ref().map(|s| s.id.to_string()),
            skipped_unchanged: report.unchanged,
        });
    }
    if !context.ui.quiet {
        context.ui.line(summary(args, report, took))?;
    }
    match &report.snapshot {
        Some(s) => context.ui.line(format!("snapshot {} saved", s.id.short())),
        None if report.unchanged => context.ui.line("nothing changed: no snapshot was made"),
        None => context.ui.line("dry run: nothing was stored"),
    }
}

/// The counts, in the lines restic's users know.
fn summary(args: &Args, report: &BackupReport, took: Duration) -> String {
    let s = &report.statistics;
    let took = report
        .snapshot
        .as_ref()
        .filter(|_| args.label.time.is_none())
        .map_or(took, |s| between(s.start, s.end));
    let compared = match &report.parent {
        Some(p) => format!("compared with snapshot {}", p.short()),
        None => "compared with nothing: every file was read".to_owned(),
    };
    let added = s.data_bytes_new + s.meta_bytes_new;
    let verb = if args.dry_run { "Would add:" } else { "Added:" };
    let mut lines = vec![
        compared,
        format!(
            "Files:       {:>7} new, {:>7} changed, {:>7} unmodified",
            s.files_new, s.files_changed, s.files_unmodified
        ),
        format!(
            "Directories: {:>7} new, {:>7} changed, {:>7} unmodified",
            s.dirs_new, s.dirs_changed, s.dirs_unmodified
        ),
    ];
    if s.others > 0 {
        lines.push(format!("Other:       {:>7} links, devices, sockets and pipes", s.others));
    }
    lines.push(format!("{verb:<12} {} ({} stored)", size(added), size(s.stored_bytes)));
    let files = s.files_new + s.files_changed + s.files_unmodified;
    lines.push(format!(
        "Processed:   {}, {} in {}",
        count(files, "file"),
        size(s.total_bytes),
        duration(took)
    ));
    if s.errors > 0 {
        lines.push(format!("Warning:     {} could not be read whole", count(s.errors, "item")));
    }
    lines.join("\n")
}
