//! `bulla drill`: tries a restore of a job. What a drill is is the manager's ([`bulla_manager::drill`]).

use super::config::ConfigArgs;
use crate::context::{Context, variable};
use crate::exit::{Code, Failure, Outcome, keep};
use crate::notices;
use crate::site::Site;
use crate::ui::format::{count, size, utc_time};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use crate::ui::table::Table;
use bulla_engine::format::id::from_hex;
use bulla_engine::format::ledger::{Drill, DrillKind};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::config::{Config, Length};
use bulla_manager::drill::{self, Options, Report, bound95, seed_text};
use bulla_manager::outcome::Outcome as Ended;
use bulla_manager::status::Facts;
use serde::Serialize;
use std::path::PathBuf;

/// What `drill` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Files are restored into a new directory, let go from memory, read back and compared with the snapshot chunk by chunk,
metadata included, and with the source where that has not changed since. Nothing is taken from copies on this machine. The
directory is removed in any case, unless --keep. The exit code is 8 if anything is wrong, or took longer than was promised.")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    job: String,
    /// Restore so many files, half drawn with equal chances, half by their bytes
    #[arg(long, value_name = "N", default_value_t = 300, conflicts_with = "full")]
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
    /// List the drills that are on record, try nothing
    #[arg(long)]
    history: bool,
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
    let job = super::config::job(&config, &args.job)?;
    if args.history {
        return history(context, &config, &args.job);
    }
    if args.app && job.drill.command.is_none() {
        let text = format!("job {} has no drill command: write drill = {{ command = [\"…\"] }}", args.job);
        return Err(Failure::Usage(text));
    }
    let temporary = || variable("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let options = Options {
        sample: (!args.full && !args.app).then_some(args.sample as usize),
        application: args.app,
        from: args.from.clone(),
        seed: args.seed.map(|s| s.0),
        scratch: args.scratch.clone().unwrap_or_else(temporary),
        keep: args.keep,
    };
    let job = match &args.scratch {
        // What was typed comes before what is written.
        Some(_) => &{
            let mut job = job.clone();
            job.drill.target = None;
            job
        },
        None => job,
    };
    let done = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, &config, observer, false);
        drill::drill(&site, &args.job, job, &options)
    });
    let report = match done {
        Ok(report) => report,
        Err(trouble) => {
            context.ui.error(&format!("job {}: no drill was made: {}", args.job, trouble.why), None, "drill");
            return Ok(trouble.outcome.into());
        }
    };
    let told = if context.ui.json { document(context, &report) } else { tell(context, &report) };
    notices::follow(context, &config, &args.job, None);
    keep(report.outcome.into(), told)
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
    live_same: u64,
    live_diverged: &'a [String],
    wrong: &'a [String],
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
        live_same: report.live.0,
        live_diverged: &report.live.1,
        wrong: &d.wrong,
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
        d.job,
        d.destination,
        d.snapshot.short(),
        d.files,
        count(d.files_all, "file"),
        size(d.bytes),
        size(d.bytes_all)
    ))?;
    if d.files < d.files_all {
        out.line(format_args!("drawn with {}", seed_text(&d.seed)))?;
    }
    for wrong in &d.wrong {
        out.line(format_args!("WRONG {}", escape(wrong.as_bytes())))?;
    }
    for diverged in &report.live.1 {
        let text = "the source holds something else under the same times: one of the two is bad";
        out.line(format_args!("DIVERGED {diverged}: {text}"))?;
    }
    if report.live.0 > 0 {
        out.line(format_args!(
            "{} as in the source, where that has not changed",
            count(report.live.0, "file")
        ))?;
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
                vec![kind(d).to_owned()],
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
