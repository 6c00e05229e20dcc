//! `bulla restore`: a snapshot, or a part of it, back into a directory.

use super::FilterArgs;
use crate::confine::{Bounds, nearest};
use crate::context::{Context, canonical};
use crate::exit::{Code, Failure, Outcome, keep};
use crate::ui::Ui;
use crate::ui::format::{count, duration, size};
use crate::ui::json::{self, Planned, RestoreSummary, SCHEMA};
use crate::ui::progress::{Words, watch};
use bulla_engine::observer::{Event, Observer, escape};
use bulla_engine::restore::{self, Action, Overwrite, Ownership, Patterns, RestoreOptions, RestoreReport};
use bulla_engine::source::{PatternSet, parse_exclude_file};
use clap::ValueEnum;
use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What `restore` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A backup of /srv/www restores to DIR/srv/www; SNAPSHOT:/srv/www restores its contents straight into DIR.")]
pub(crate) struct Args {
    /// Snapshot: id, prefix, latest, latest~N, each with :/PATH for a part of it
    #[arg(value_name = "SNAPSHOT[:/PATH]")]
    snapshot: OsString,
    /// Where to; made if it is not there
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,
    /// What to do with files that are there: always make them as in the snapshot, believe size and time
    /// (if-changed), only if older (if-newer), never touch them
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = When::Always)]
    overwrite: When,
    /// Remove from restored directories what the snapshot does not have
    #[arg(long)]
    delete: bool,
    /// Leave runs of zeros out as holes (recorded holes are always kept)
    #[arg(long)]
    sparse: bool,
    /// Read every restored file again and compare it with the snapshot
    #[arg(long)]
    verify: bool,
    /// Print what would be done, write nothing
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Owners by name instead of number
    #[arg(long, conflicts_with = "no_ownership")]
    ownership_by_name: bool,
    /// Everything belongs to whoever restores
    #[arg(long)]
    no_ownership: bool,
    /// Leave out extended attributes and ACLs
    #[arg(long)]
    no_xattr: bool,
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    filter: FilterArgs,
}

/// What of the snapshot.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "What to restore")]
struct Select {
    /// Only what matches this pattern
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<String>,
    /// Same, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iinclude: Vec<String>,
    /// Only what matches a pattern of this file
    #[arg(long, value_name = "FILE")]
    include_file: Vec<PathBuf>,
    /// Same, whatever the case
    #[arg(long, value_name = "FILE")]
    iinclude_file: Vec<PathBuf>,
    /// Not what matches this pattern
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<String>,
    /// Same, whatever the case
    #[arg(long, value_name = "PATTERN")]
    iexclude: Vec<String>,
    /// Not what matches a pattern of this file
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
    /// Same, whatever the case
    #[arg(long, value_name = "FILE")]
    iexclude_file: Vec<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Always,
    IfChanged,
    IfNewer,
    Never,
}

impl From<When> for Overwrite {
    fn from(when: When) -> Self {
        match when {
            When::Always => Self::Always,
            When::IfChanged => Self::IfChanged,
            When::IfNewer => Self::IfNewer,
            When::Never => Self::Never,
        }
    }
}

impl Select {
    fn patterns(&self) -> Outcome<Option<Patterns>> {
        let mut patterns = Patterns::default();
        fill(&mut patterns.include, &self.include, &self.include_file, false)?;
        fill(&mut patterns.include, &self.iinclude, &self.iinclude_file, true)?;
        fill(&mut patterns.exclude, &self.exclude, &self.exclude_file, false)?;
        fill(&mut patterns.exclude, &self.iexclude, &self.iexclude_file, true)?;
        let none = patterns.include.is_empty() && patterns.exclude.is_empty();
        Ok((!none).then_some(patterns))
    }
}

fn fill(set: &mut PatternSet, words: &[String], files: &[PathBuf], fold_case: bool) -> Outcome<()> {
    let mut all: Vec<Vec<u8>> = words.iter().map(|w| w.clone().into_bytes()).collect();
    for file in files {
        all.extend(parse_exclude_file(&super::sources::read_named(file)?));
    }
    all.iter().try_for_each(|p| set.add(p, fold_case)).map_err(|e| Failure::Usage(e.to_string()))
}

/// Restores.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let started = Instant::now();
    keep_apart(context, args)?;
    let patterns = args.select.patterns()?;
    let mut closer = None;
    let repository =
        context.open_after(|location, env| closer = confine(context, args, Bounds::reader(location, env)))?;
    context.warn_of_rollback(&repository);
    let (snapshot, sub) = repository.resolve(super::selector(&args.snapshot)?, &args.filter.filter())?;
    let options = RestoreOptions {
        select: patterns.map(|p| Arc::new(p) as _),
        overwrite: args.overwrite.into(),
        delete: args.delete,
        dry_run: args.dry_run,
        verify: args.verify,
        sparse: args.sparse,
        ownership: match args {
            Args { no_ownership: true, .. } => Ownership::None,
            Args { ownership_by_name: true, .. } => Ownership::ByName,
            _ => Ownership::Numeric,
        },
        xattrs: !args.no_xattr,
        ready: closer.map(|bounds| Arc::new(move || bounds.tighten()) as _),
        ..RestoreOptions::default()
    };
    if !nix::unistd::geteuid().is_root() && !args.no_ownership && !args.dry_run {
        context.ui.note("not running as root: everything restored will belong to this user, without devices");
    }
    let words = Words { during: "restore", list_is_result: args.dry_run };
    let ended = watch(context.ui, words, |observer| {
        let plan = PlanLines::new(observer, context.ui, &args.target);
        let ended = restore::run(&repository, &snapshot, &sub, &args.target, &options, &plan);
        plan.finish().map(|()| ended)
    })?;
    let report = ended.map_err(|e| match e {
        bulla_engine::Error::Interrupted => Failure::Stopped(
            "interrupted: the restore is not complete; run it again, what is right already is kept",
        ),
        e => e.into(),
    })?;
    keep(code(&report), tell(context, args, &snapshot.id.short(), &report, started.elapsed()))
}

/// Gives up all rights but those to the target. A target that is still to be made needs the rights to where it will
/// be; what comes back is to be enforced once it is there.
fn confine(context: &Context<'_>, args: &Args, mut bounds: Bounds) -> Option<Bounds> {
    if args.ownership_by_name {
        bounds = bounds.reading_names();
    }
    if args.dry_run {
        bounds.reading(&args.target).enforce(context.ui);
        return None;
    }
    let made = nearest(&args.target);
    let held = bounds.clone().writing(&made).enforce(context.ui);
    (held && !args.target.exists()).then(|| bounds.writing(&args.target))
}

/// Writing into the repository, or deleting around it, would destroy what is being restored from.
fn keep_apart(context: &Context<'_>, args: &Args) -> Outcome<()> {
    let Some(place) = context.directory()? else { return Ok(()) };
    let (place, target) = (canonical(&place), canonical(&args.target));
    if target.starts_with(&place) {
        return Err(Failure::Usage(format!("the target {} lies in the repository", args.target.display())));
    }
    if args.delete && place.starts_with(&target) {
        let text = format!(
            "the repository lies in the target {}: --delete could remove it; restore a part of the snapshot instead",
            args.target.display()
        );
        return Err(Failure::Usage(text));
    }
    Ok(())
}

fn code(report: &RestoreReport) -> Code {
    if !report.damaged.is_empty() {
        Code::Damage
    } else if report.failed > 0 || report.unreadable > 0 || report.metadata_failed > 0 {
        Code::Partial
    } else {
        Code::Done
    }
}

fn tell(context: &Context<'_>, args: &Args, from: &str, r: &RestoreReport, took: Duration) -> Outcome<()> {
    if context.ui.json {
        return context.ui.document(&RestoreSummary {
            message_type: "summary",
            schema_version: SCHEMA,
            seconds_elapsed: took.as_secs(),
            total_files: r.files_restored + r.files_unchanged + r.skipped,
            files_restored: r.files_restored,
            files_unchanged: r.files_unchanged,
            files_skipped: r.skipped,
            files_deleted: r.deleted,
            files_verified: r.files_verified,
            total_bytes: r.bytes_written + r.bytes_unchanged,
            bytes_restored: r.bytes_written,
            bytes_skipped: r.bytes_unchanged,
            error_count: r.failed + r.metadata_failed + r.unreadable,
            damaged_count: r.damaged.len() as u64,
            dry_run: args.dry_run,
            packs_to_fetch: r.packs_to_fetch,
            bytes_to_fetch: r.bytes_to_fetch,
            requests_to_make: r.requests_to_make,
        });
    }
    if args.dry_run {
        // What a store that charges for requests and traffic will charge for.
        return context.ui.line(format_args!(
            "dry run: nothing was written, {} would be fetched from {} in {}",
            size(r.bytes_to_fetch),
            count(r.packs_to_fetch, "pack"),
            count(r.requests_to_make, "request"),
        ));
    }
    context.ui.line(summary(args, from, r, took))
}

/// Prints what a dry run would do as it is planned; what it would leave alone only when asked with `-v`.
struct PlanLines<'a> {
    inner: &'a dyn Observer,
    ui: &'a Ui,
    target: &'a [u8],
    lines: Mutex<Outcome<String>>,
}

impl<'a> PlanLines<'a> {
    /// Lines that are printed at once, in bytes.
    const BATCH: usize = 64 << 10;

    fn new(inner: &'a dyn Observer, ui: &'a Ui, target: &'a Path) -> Self {
        let target = target.as_os_str().as_bytes();
        let target = target.strip_suffix(b"/").unwrap_or(target);
        Self { inner, ui, target, lines: Mutex::new(Ok(String::new())) }
    }

    fn planned(&self, p: &restore::Planned) {
        if self.ui.verbosity == 0 && matches!(p.action, Action::Unchanged | Action::Keep) {
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(text) = &mut *lines else { return };
        if !text.is_empty() {
            text.push('\n');
        }
        let path = [self.target, b"/", &p.path].concat();
        if self.ui.json {
            text.push_str(&json::text(&Planned::new(&path, p.action.to_string(), p.bytes)));
        } else {
            let _ = write!(text, "{:<10} {}", p.action.to_string(), escape(&path));
        }
        if text.len() >= Self::BATCH {
            let printed = self.ui.line(std::mem::take(text));
            *lines = printed.map(|()| String::new());
        }
    }

    fn finish(self) -> Outcome<()> {
        let left = self.lines.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        if left.is_empty() { Ok(()) } else { self.ui.line(left) }
    }
}

impl Observer for PlanLines<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Planned(p) => self.planned(p),
            other => self.inner.event(other),
        }
    }
    fn wants_totals(&self) -> bool {
        self.inner.wants_totals()
    }
    /// Also when nobody reads the lines any more.
    fn interrupted(&self) -> bool {
        self.inner.interrupted() || self.lines.lock().is_ok_and(|lines| lines.is_err())
    }
}

fn summary(args: &Args, from: &str, r: &RestoreReport, took: Duration) -> String {
    let place = shown(&args.target);
    let mut lines = vec![format!(
        "restored {} ({}) from snapshot {from} to {place} in {}",
        count(r.files_restored, "file"),
        size(r.bytes_written),
        duration(took)
    )];
    let mut also = |n: u64, text: String| {
        if n > 0 {
            lines.push(text);
        }
    };
    also(r.files_unchanged, format!("{} had the right content already", count(r.files_unchanged, "file")));
    also(r.skipped, format!("{} left alone (--overwrite)", count(r.skipped, "file")));
    also(r.deleted, format!("{} removed (--delete)", count(r.deleted, "item")));
    also(r.files_verified, format!("{} read again and found right", count(r.files_verified, "file")));
    also(
        r.privileges_left_out,
        format!(
            "{} without devices, capabilities or setuid bits: only root restores them",
            count(r.privileges_left_out, "item")
        ),
    );
    also(
        r.metadata_failed,
        format!("{} could not be set (see the warnings)", count(r.metadata_failed, "attribute")),
    );
    also(
        r.unreadable,
        format!(
            "{} without content in the snapshot (unreadable at backup time): not restored",
            count(r.unreadable, "file")
        ),
    );
    also(r.failed, format!("{} could not be written", count(r.failed, "item")));
    for d in &r.damaged {
        lines.push(format!("damaged, not restored: /{}: {}", escape(&d.path), d.reason));
    }
    lines.join("\n")
}

fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}
