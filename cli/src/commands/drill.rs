//! `bulla drill`: tries a restore of a job. What a drill is is the manager's ([`bulla_manager::drill`]).

use super::config::ConfigArgs;
use crate::context::{Context, variable};
use crate::exit::{Code, Failure, Outcome, keep};
use crate::notices;
use crate::site::{Site, Turn, drills_of};
use crate::ui::format::{count, size, utc_time};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use crate::ui::table::Table;
use bulla_engine::format::id::from_hex;
use bulla_engine::format::ledger::{Drill, DrillKind};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::config::{Config, Job, Length};
use bulla_manager::drill::{self, Options, Report, bound95, seed_text};
use bulla_manager::due::Question;
use bulla_manager::outcome::Outcome as Ended;
use bulla_manager::status::Facts;
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What `drill` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are restored into a new directory, let go from memory, read back and compared with the snapshot chunk by chunk,
metadata included, and with the source where that has not changed since. Nothing is taken from copies on this machine. The
directory is removed in any case, unless --keep. What breaks off is on record as failed. The exit code is 8 if anything is wrong,
or took longer than was promised, and 9 if a file of the source holds something else although nothing was done to it: one
of the two is bad, and somebody has to look which.")]
pub(crate) struct Args {
    /// Which job; with --due all without one
    #[arg(value_name = "JOB", required_unless_present = "due")]
    job: Option<String>,
    /// Restore so many files, half drawn with equal chances, half by their bytes
    #[arg(long, value_name = "N", default_value_t = SAMPLE, conflicts_with = "full")]
    sample: u32,
    /// Restore everything
    #[arg(long)]
    full: bool,
    /// Have the job's drill command judge everything that was restored
    #[arg(long)]
    app: bool,
    /// From this destination [default: the one that was longest not tried]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Draw the files that were drawn with this
    #[arg(long, value_name = "HEX", value_parser = seed)]
    seed: Option<Seed>,
    /// Below this directory [default: what the job says, else TMPDIR, else /var/tmp]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// Leave what was restored where it is
    #[arg(long)]
    keep: bool,
    /// Open the repository with the key in this file (the recovery key, the one in the safe) instead of the destination's own
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// List the drills that are on record, try nothing
    #[arg(long)]
    history: bool,
    /// Those whose timetable in the configuration says so, by what is on record
    #[arg(long, conflicts_with_all = ["full", "app", "seed", "history"])]
    due: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// What a sample is drawn with.
#[derive(Debug, Clone, Copy)]
struct Seed([u8; 32]);

fn seed(text: &str) -> Result<Seed, String> {
    from_hex(text).map(Seed).ok_or_else(|| format!("{text:?} is not 64 hexadecimal digits"))
}

const WORDS: Words = Words { during: "restore", list_is_result: false };

/// Tries it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let Some(name) = args.job.as_deref().filter(|_| !args.due) else { return due(context, &config, args) };
    let job = super::config::job(&config, name)?;
    if args.history {
        return history(context, &config, name);
    }
    if args.app && job.drill.command.is_none() {
        let text = format!("job {name} has no drill command: write drill = {{ command = [\"…\"] }}");
        return Err(Failure::Usage(text));
    }
    let wanted = match (args.app, args.full) {
        (true, _) => DrillKind::Application,
        (false, true) => DrillKind::Full,
        (false, false) => DrillKind::Sample,
    };
    let options = Options {
        from: args.from.clone(),
        seed: args.seed.map(|s| s.0),
        keep: args.keep,
        key: args.key.clone(),
        ..options(wanted, args.sample, args.scratch.clone())
    };
    let job = &with_scratch(args, job);
    let mut told = Ok(());
    let ended = attempt(context, &config, name, job, &options, &mut told);
    keep(ended.into(), told)
}

/// What to try where nothing else was typed.
fn options(kind: DrillKind, sample: u32, scratch: Option<PathBuf>) -> Options {
    let temporary = || variable("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    Options {
        sample: (kind == DrillKind::Sample).then_some(sample as usize),
        application: kind == DrillKind::Application,
        from: None,
        seed: None,
        scratch: scratch.unwrap_or_else(temporary),
        keep: false,
        key: None,
    }
}

/// Tries it and says how that went.
fn attempt(
    context: &Context<'_>,
    config: &Config,
    name: &str,
    job: &Job,
    options: &Options,
    told: &mut Outcome<()>,
) -> Ended {
    let done = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, config, observer, false);
        drill::drill(&site, config, name, job, options)
    });
    let ended = match done {
        Ok(report) => {
            let said = if context.ui.json { document(context, &report) } else { tell(context, &report) };
            if told.is_ok() {
                *told = said;
            }
            report.outcome
        }
        Err(trouble) => {
            let text = format!("job {name}: no drill was made: {}", trouble.why);
            context.ui.error(&escape(text.as_bytes()), None, "drill");
            trouble.outcome
        }
    };
    notices::follow(context, config, name, None);
    ended
}

/// Files of a sample that nobody asked for.
const SAMPLE: u32 = 300;

/// Makes the drill of a job that is due, unless one is being made.
pub(super) fn one(
    context: &Context<'_>,
    config: &Config,
    (name, kind): (&str, DrillKind),
    told: &mut Outcome<()>,
) -> Outcome<Ended> {
    let job = super::config::job(config, name)?;
    due_one(context, config, (name, job), &options(kind, SAMPLE, None), told)
}

fn due_one(
    context: &Context<'_>,
    config: &Config,
    (name, job): (&str, &Job),
    options: &Options,
    told: &mut Outcome<()>,
) -> Outcome<Ended> {
    let Some(_turn) = Turn::take(context, &drills_of(name))? else {
        let shown = escape(name.as_bytes());
        context.ui.warn(&format!("a drill of job {shown} is being made already; this one was not begun"));
        return Ok(Ended::Busy);
    };
    Ok(attempt(context, config, name, job, options, told))
}

/// Makes those that are due.
fn due(context: &Context<'_>, config: &Config, args: &Args) -> Outcome {
    if let Some(name) = &args.job {
        super::config::job(config, name)?;
    }
    let (facts, now) = super::run::known(context, config);
    let host = context.host();
    let (mut ended, mut told, mut any) = (Ended::Done, Ok(()), false);
    for (name, job) in config.jobs.iter().filter(|(name, _)| args.job.as_ref().is_none_or(|job| job == *name))
    {
        let job = &job.value;
        let question = Question { config, name, job, host: &host, facts: &facts, now };
        let next = question.drill(Turn::tried(context, &drills_of(name)));
        let Some((kind, _)) = next.filter(|(_, at)| *at <= now) else { continue };
        any = true;
        let options = Options {
            from: args.from.clone(),
            keep: args.keep,
            ..options(kind, args.sample, args.scratch.clone())
        };
        let job = &with_scratch(args, job);
        let outcome = due_one(context, config, (name, job), &options, &mut told)?;
        ended = ended.and(outcome);
        if outcome == Ended::Interrupted {
            break;
        }
    }
    if !any && !context.ui.json {
        context.ui.line("no drill is due")?;
    }
    for (place, trouble) in super::run::unread(&facts) {
        context.ui.warn(&escape(format!("{place} cannot be read: {}", trouble.why).as_bytes()));
    }
    keep(ended.into(), told)
}

/// What was typed comes before what is written.
fn with_scratch(args: &Args, job: &Job) -> Job {
    let mut job = job.clone();
    job.drill.target = job.drill.target.filter(|_| args.scratch.is_none());
    job
}

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    job: &'a str,
    destination: &'a str,
    snapshot_id: String,
    kind: &'static str,
    seed: String,
    exit: u64,
    files: u64,
    files_all: u64,
    bytes: u64,
    bytes_all: u64,
    bound95: f64,
    key: Option<&'a str>,
    numbers: BTreeMap<&'a str, serde_json::Number>,
    live_same: u64,
    live_diverged: &'a [String],
    wrong: &'a [String],
    late: &'a [String],
    milliseconds: [u64; 4],
    rto_seconds: u64,
    rto_measured: bool,
    rpo_seconds: u64,
}

fn kind(drill: &Drill) -> &'static str {
    match drill.kind {
        DrillKind::Sample => "sample",
        DrillKind::Full => "full",
        DrillKind::Application => "app",
    }
}

fn document(context: &Context<'_>, report: &Report) -> Outcome<()> {
    let d = &report.drill;
    context.ui.document(&Document {
        message_type: "drill",
        schema_version: SCHEMA,
        job: &d.job,
        destination: &d.destination,
        snapshot_id: d.snapshot.to_string(),
        kind: kind(d),
        seed: seed_text(&d.seed),
        exit: d.outcome,
        files: d.files,
        files_all: d.files_all,
        bytes: d.bytes,
        bytes_all: d.bytes_all,
        bound95: bound95(report.equal, d.files_all),
        key: d.key.as_deref(),
        numbers: d.numbers.iter().filter_map(|(name, n)| Some((name.as_str(), n.parse().ok()?))).collect(),
        live_same: report.live,
        live_diverged: &d.diverged,
        wrong: &d.wrong,
        late: &d.late,
        milliseconds: d.phases,
        rto_seconds: d.rto,
        rto_measured: d.files == d.files_all,
        rpo_seconds: d.rpo,
    })
}

fn length(seconds: u64) -> String {
    Length::of_seconds(i64::try_from(seconds).unwrap_or(i64::MAX).max(1)).to_string()
}

fn tell(context: &Context<'_>, report: &Report) -> Outcome<()> {
    let d = &report.drill;
    let mut out = context.ui.results();
    out.line(format_args!(
        "{} drill of {} from {}, snapshot {}: {} of {}, {} of {}",
        kind(d),
        escape(d.job.as_bytes()),
        escape(d.destination.as_bytes()),
        d.snapshot.short(),
        d.files,
        count(d.files_all, "file"),
        size(d.bytes),
        size(d.bytes_all)
    ))?;
    if let Some(key) = &d.key {
        out.line(format_args!("opened with another key: {}", escape(key.as_bytes())))?;
    }
    if d.files < d.files_all {
        out.line(format_args!("drawn with {}", seed_text(&d.seed)))?;
    }
    for wrong in &d.wrong {
        out.line(format_args!("WRONG {}", escape(wrong.as_bytes())))?;
    }
    for late in &d.late {
        out.line(format_args!("LATE {}", escape(late.as_bytes())))?;
    }
    for diverged in &d.diverged {
        out.line(format_args!("DIVERGED {diverged}: one of the two is bad"))?;
    }
    if report.live > 0 {
        out.line(format_args!(
            "{} as in the source, where that has not changed",
            count(report.live, "file")
        ))?;
    }
    for (name, number) in &d.numbers {
        out.line(format_args!("{} {}", escape(name.as_bytes()), escape(number.as_bytes())))?;
    }
    if d.wrong.is_empty() {
        let bound = bound95(report.equal, d.files_all) * 100.0;
        let says = match bound {
            0.0 => "all were compared".to_owned(),
            bound => format!("at most {bound:.2} % of all files are bad, at 95 % confidence"),
        };
        out.line(format_args!("0 of {} wrong: {says}", d.files))?;
    }
    let how = if d.files == d.files_all { "measured" } else { "reckoned from the sample" };
    out.line(format_args!("RTO {} ({how})  RPO {}", length(d.rto), length(d.rpo)))?;
    if let Some(kept) = &report.kept {
        out.line(format_args!("what was restored is in {}", kept.display()))?;
    }
    out.line(if report.outcome == Ended::Done { "PASS" } else { "FAIL" })?;
    out.finish()
}

#[derive(Serialize)]
struct PastDrill<'a> {
    time: String,
    job: &'a str,
    destination: &'a str,
    kind: &'static str,
    snapshot_id: String,
    exit: u64,
    files: u64,
    files_all: u64,
    rto_seconds: u64,
    rpo_seconds: u64,
    seed: String,
    key: Option<&'a str>,
}

fn time(seconds: i64) -> String {
    utc_time(Timestamp { seconds, nanos: 0 })
}

fn past(at: i64, d: &Drill) -> PastDrill<'_> {
    PastDrill {
        time: time(at),
        job: &d.job,
        destination: &d.destination,
        kind: kind(d),
        snapshot_id: d.snapshot.to_string(),
        exit: d.outcome,
        files: d.files,
        files_all: d.files_all,
        rto_seconds: d.rto,
        rpo_seconds: d.rpo,
        seed: seed_text(&d.seed),
        key: d.key.as_deref(),
    }
}

fn history(context: &Context<'_>, config: &Config, name: &str) -> Outcome {
    let facts = watch(context.ui, WORDS, |observer| {
        Facts::gather(&Site::new(context, config, observer, false), config, &[name.to_owned()])
    });
    let host = context.host();
    let drills = facts.drills(name, &host);
    let mut out = context.ui.results();
    if context.ui.json {
        out.document(&drills.iter().map(|(at, d)| past(*at, d)).collect::<Vec<_>>())?;
    } else {
        let mut table = Table::new(&["Time", "From", "Kind", "Files", "RTO", "RPO", "Result"]);
        for (at, d) in &drills {
            let result = if d.outcome == 0 { "pass" } else { "fail" };
            table.row(vec![
                vec![time(*at)],
                vec![escape(d.destination.as_bytes())],
                vec![d.key.as_ref().map_or_else(|| kind(d).to_owned(), |_| format!("{}, key", kind(d)))],
                vec![format!("{} of {}", d.files, d.files_all)],
                vec![length(d.rto)],
                vec![length(d.rpo)],
                vec![result.to_owned()],
            ]);
        }
        for line in table.lines() {
            out.line(line)?;
        }
    }
    out.finish()?;
    let unread = facts.holdings.values().any(Result::is_err);
    Ok(if unread { Code::Partial } else { Code::Done })
}
