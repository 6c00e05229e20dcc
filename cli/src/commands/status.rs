//! `bulla status`: how jobs stand, from what is on record in their destinations. The judgement is the manager's
//! ([`bulla_manager::status`]).

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Outcome, keep};
use crate::notices::{self, Judged};
use crate::ui::format::utc_time;
use crate::ui::json::SCHEMA;
use crate::ui::table::Table;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::config::Length;
use bulla_manager::outcome::Outcome as Ended;
use bulla_manager::status::JobStatus;
use serde::Serialize;
use std::path::PathBuf;

/// What `status` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
V: how far the newest backup is proven: 0 committed, 1 all is there, 2 it was read back, 3 it was restored and compared,
4 an application worked with what was restored. RPO: how much work would be lost now, and how much may be. RTO: how long a
restore takes by the last drill (m: measured, x: reckoned from a sample), and how long it may.")]
pub(crate) struct Args {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Write metrics for Prometheus into this file [default: what the configuration says]
    #[arg(long, value_name = "FILE")]
    metrics: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    generated_at: String,
    exit: u8,
    jobs: Vec<Line<'a>>,
    /// Channels with something undelivered.
    channels: Vec<ChannelLine<'a>>,
}

#[derive(Serialize)]
struct ChannelLine<'a> {
    channel: &'a str,
    waiting: u64,
    since: Option<String>,
    reason: Option<&'a str>,
    dropped: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    job: &'a str,
    state: &'static str,
    exit: u8,
    level: u8,
    last_ok: Option<String>,
    newest_proven: Option<String>,
    rpo_seconds: Option<i64>,
    rpo_objective_seconds: Option<i64>,
    rto_seconds: Option<u64>,
    rto_measured: Option<bool>,
    rto_objective_seconds: Option<i64>,
    last_drill: Option<String>,
    next_due: Option<String>,
    missed: u64,
    copies: usize,
    waived_until: Option<String>,
    waived_because: Option<&'a str>,
    findings: Vec<FindingLine<'a>>,
}

#[derive(Serialize)]
struct FindingLine<'a> {
    rule: &'a str,
    destination: Option<&'a str>,
    exit: u8,
    message: &'a str,
    fix: &'a str,
    evidence: Option<&'a str>,
}

/// Says it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let names: Vec<String> =
        if args.jobs.is_empty() { config.jobs.keys().cloned().collect() } else { args.jobs.clone() };
    for name in &names {
        super::config::job(&config, name)?;
    }
    let judged = Judged::of(context, &config, &names);
    // A part of the jobs would take the others' place.
    let whole =
        config.host.metrics.as_ref().map(|at| PathBuf::from(&at.value)).filter(|_| args.jobs.is_empty());
    if let Some(path) = args.metrics.clone().or(whole) {
        judged.measure(context, &config, &path);
    }
    let (all, now) = (&judged.jobs, judged.now);
    let ended = all.iter().fold(Ended::Done, |ended, job| ended.and(job.outcome()));
    let mut channels = notices::lines(context, &config);
    channels.retain(|line| line.complaint().is_some());
    let told = if context.ui.json {
        document(context, all, &channels, ended, now)
    } else {
        table(context, all, &channels, now)
    };
    keep(ended.into(), told)
}

fn time(seconds: i64) -> String {
    utc_time(Timestamp { seconds, nanos: 0 })
}

fn line(s: &JobStatus) -> Line<'_> {
    let findings = s.findings.iter();
    let findings = findings.map(|f| FindingLine {
        rule: f.rule,
        destination: f.place.as_deref(),
        exit: f.outcome.code(),
        message: &f.what,
        fix: &f.fix,
        evidence: f.evidence.as_deref(),
    });
    Line {
        job: &s.job,
        state: s.outcome().word(),
        exit: s.outcome().code(),
        level: s.level as u8,
        last_ok: s.last_ok.map(time),
        newest_proven: s.proven.map(time),
        rpo_seconds: s.rpo,
        rpo_objective_seconds: s.rpo_objective,
        rto_seconds: s.rto.map(|(seconds, _)| seconds),
        rto_measured: s.rto.map(|(_, measured)| measured),
        rto_objective_seconds: s.rto_objective,
        last_drill: s.drill.map(time),
        next_due: s.next_due.map(time),
        missed: s.missed,
        copies: s.copies,
        waived_until: s.waived.as_ref().map(|(until, _)| time(*until)),
        waived_because: s.waived.as_ref().map(|(_, why)| why.as_str()),
        findings: findings.collect(),
    }
}

fn channel_line(line: &notices::Line) -> ChannelLine<'_> {
    ChannelLine {
        channel: &line.channel,
        waiting: line.waiting,
        since: line.since.map(time),
        reason: line.why.as_deref(),
        dropped: line.dropped,
    }
}

fn document(
    context: &Context<'_>,
    all: &[JobStatus],
    channels: &[notices::Line],
    ended: Ended,
    now: i64,
) -> Outcome<()> {
    context.ui.document(&Document {
        message_type: "status",
        schema_version: SCHEMA,
        generated_at: time(now),
        exit: ended.code(),
        jobs: all.iter().map(line).collect(),
        channels: channels.iter().map(channel_line).collect(),
    })
}

/// `19h`, `1d2h`: two units say enough.
pub(super) fn short(seconds: i64) -> String {
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')];
    let first = units.iter().position(|(n, _)| seconds >= *n).unwrap_or(units.len() - 1);
    let round = units.get(first + 1).map_or(1, |(n, _)| *n);
    let rounded = seconds / round * round;
    if rounded == 0 { "0s".to_owned() } else { Length::of_seconds(rounded).to_string() }
}

fn of(is: Option<String>, may: Option<i64>) -> String {
    let is = is.unwrap_or_else(|| "-".to_owned());
    may.map_or_else(|| is.clone(), |may| format!("{is} / {}", short(may)))
}

fn table(context: &Context<'_>, all: &[JobStatus], channels: &[notices::Line], now: i64) -> Outcome<()> {
    let mut out = context.ui.results();
    let worst = |s: &&JobStatus| s.findings.first().map(|f| f.outcome.rank());
    if let Some((s, f)) = all
        .iter()
        .filter(|s| worst(s).is_some())
        .min_by_key(|s| (worst(s), s.proven))
        .and_then(|s| Some((s, s.findings.first()?)))
    {
        out.line(escape(format!("FIRST: {}: {}  → {}", s.job, f.what, f.fix).as_bytes()))?;
    }
    let mut table =
        Table::new(&["Job", "Last OK", "V", "RPO now / may", "RTO / may", "Drill", "Copies", "State"]);
    for s in all {
        let rto = s.rto.map(|(seconds, measured)| {
            format!(
                "{} {}",
                short(i64::try_from(seconds).unwrap_or(i64::MAX)),
                if measured { "m" } else { "x" }
            )
        });
        let mut state = s.outcome().word().to_owned();
        if s.missed > 0 && s.outcome() == Ended::Missed {
            state.push_str(&format!(" ×{}", s.missed));
        }
        if s.waived.is_some() {
            state.push_str(", rules lifted");
        }
        table.row(vec![
            vec![escape(s.job.as_bytes())],
            vec![s.last_ok.map_or_else(|| "never".to_owned(), time)],
            vec![(s.level as u8).to_string()],
            vec![of(s.rpo.map(short), s.rpo_objective)],
            vec![of(rto, s.rto_objective)],
            vec![s.drill.map_or_else(|| "never".to_owned(), |at| format!("{} ago", short(now - at)))],
            vec![s.copies.to_string()],
            vec![state],
        ]);
    }
    for line in table.lines() {
        out.line(line)?;
    }
    for s in all {
        for f in &s.findings {
            let line = format!("{}: {}: {}  → {}", s.job, f.outcome.word(), f.what, f.fix);
            out.line(escape(line.as_bytes()))?;
        }
        if let Some((until, why)) = &s.waived {
            let until = time(*until);
            let line = format!("{}: the rules about letting go are lifted until {until}: {why}", s.job);
            out.line(escape(line.as_bytes()))?;
        }
    }
    for complaint in channels.iter().filter_map(notices::Line::complaint) {
        out.line(escape(complaint.as_bytes()))?;
    }
    out.finish()
}
