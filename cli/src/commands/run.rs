//! `bulla run`: jobs of the configuration, one after the other, each step told. What a run is is the manager's
//! ([`bulla_manager::run`]).

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Outcome, keep};
use crate::notices;
use crate::site::{Site, Turn};
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use crate::ui::signals;
use bulla_engine::observer::escape;
use bulla_manager::config::{At, Config, Job};
use bulla_manager::due::Question;
use bulla_manager::outcome::Outcome as Ended;
use bulla_manager::run::Report;
use bulla_manager::status::Facts;
use bulla_manager::world::Trouble;
use serde::Serialize;

/// What `run` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A run backs up to the first destination and copies from there to the others, reads back what was stored, puts that on
record in every destination, and only then lets go of what the job's retention does not keep. With several jobs the
gravest exit code counts.")]
pub(crate) struct Args {
    /// Which jobs
    #[arg(value_name = "JOB", required_unless_present_any = ["all", "due"])]
    jobs: Vec<String>,
    /// All jobs
    #[arg(long, conflicts_with_all = ["jobs", "due"])]
    all: bool,
    /// Those whose schedule says so, by what is on record; also those that were missed, once
    #[arg(long, conflicts_with = "jobs")]
    due: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

const WORDS: Words = Words { during: "archival", list_is_result: false };

#[derive(Serialize)]
struct Copy<'a> {
    destination: &'a str,
    exit: u64,
    snapshot_id: Option<String>,
    level: u8,
    reason: &'a str,
}

#[derive(Serialize)]
struct Summary<'a> {
    message_type: &'static str,
    schema_version: u32,
    job: &'a str,
    run_id: String,
    exit: u8,
    files: u64,
    bytes: u64,
    next_due: Option<String>,
    copies: Vec<Copy<'a>>,
    findings: &'a [String],
    errors: Vec<String>,
}

/// Runs them.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let names = match (args.all, args.due) {
        (true, _) => config.jobs.keys().cloned().collect(),
        (_, true) => due(context, &config)?,
        _ => args.jobs.clone(),
    };
    for name in &names {
        super::config::job(&config, name)?;
    }
    if names.is_empty() && !context.ui.json {
        context.ui.line("no job is due")?;
    }
    let (mut ended, mut told) = (Ended::Done, Ok(()));
    for name in &names {
        let outcome = one(context, &config, name, &mut told)?;
        ended = ended.and(outcome);
        if outcome == Ended::Interrupted || signals::stop_asked() {
            break;
        }
    }
    keep(ended.into(), told)
}

/// Jobs whose time has come.
fn due(context: &Context<'_>, config: &Config) -> Outcome<Vec<String>> {
    let (facts, now) = known(context, config);
    for (place, trouble) in unread(&facts) {
        context.ui.warn(&escape(format!("{place} cannot be read: {}", trouble.why).as_bytes()));
    }
    let host = context.host();
    let is_due = |(name, job): &(&String, &At<Job>)| {
        let question = Question { config, name, job: &job.value, host: &host, facts: &facts, now };
        question.run(Turn::tried(context, name)).is_some_and(|at| at <= now)
    };
    Ok(config.jobs.iter().filter(is_due).map(|(name, _)| name.clone()).collect())
}

/// All that is on record about all jobs, and when it was looked at.
pub(super) fn known(context: &Context<'_>, config: &Config) -> (Facts, i64) {
    let names: Vec<String> = config.jobs.keys().cloned().collect();
    watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, config, observer, false);
        (Facts::gather(&site, config, &names), bulla_manager::world::now(&site))
    })
}

/// Destinations of which nothing is known, and why.
pub(super) fn unread(facts: &Facts) -> impl Iterator<Item = (&String, &Trouble)> {
    facts.holdings.iter().filter_map(|(place, holding)| Some((place, holding.as_ref().err()?)))
}

/// Runs a job, unless it runs already, and says how that went.
pub(super) fn one(
    context: &Context<'_>,
    config: &Config,
    name: &str,
    told: &mut Outcome<()>,
) -> Outcome<Ended> {
    let shown = escape(name.as_bytes());
    let Some(turn) = Turn::take(context, name)? else {
        context.ui.warn(&format!("job {shown} is running already; this run was not begun"));
        return Ok(Ended::Busy);
    };
    let job = super::config::job(config, name)?;
    notices::begin(context, config, job);
    let report = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, config, observer, !context.ui.json && !context.ui.quiet);
        bulla_manager::run::run(&site, config, name, job)
    });
    for (place, trouble) in &report.troubles {
        let place = place.as_ref().map_or_else(|| format!("job {name}"), |p| format!("job {name}, {p}"));
        let text = escape(format!("{place}: {}", trouble.why).as_bytes());
        match trouble.outcome {
            Ended::Done => context.ui.warn(&text),
            _ => context.ui.error(&text, None, "run"),
        }
    }
    let said = tell(context, name, &report);
    if told.is_ok() {
        *told = said;
    }
    // Who is slow to be told keeps nobody from the job's next run.
    drop(turn);
    notices::follow(context, config, name, Some(&report));
    Ok(report.outcome)
}

fn tell(context: &Context<'_>, name: &str, report: &Report) -> Outcome<()> {
    let due = report.run.next_due.and_then(|s| jiff::Timestamp::from_second(s).ok()).map(|t| t.to_string());
    if !context.ui.json {
        let due = due.map_or_else(String::new, |due| format!(", next due {due}"));
        let name = escape(name.as_bytes());
        return context.ui.line(format_args!("{name}: {}{due}", report.outcome.word()));
    }
    let copies = report.run.copies.iter().map(|copy| Copy {
        destination: &copy.destination,
        exit: copy.outcome,
        snapshot_id: copy.snapshot.map(|id| id.to_string()),
        level: copy.level as u8,
        reason: &copy.reason,
    });
    context.ui.document(&Summary {
        message_type: "run",
        schema_version: SCHEMA,
        job: name,
        run_id: report.run.run.to_string(),
        exit: report.outcome.code(),
        files: report.run.files,
        bytes: report.run.bytes,
        next_due: due,
        copies: copies.collect(),
        findings: &report.run.findings,
        errors: report.troubles.iter().map(|(_, t)| t.why.clone()).collect(),
    })
}
