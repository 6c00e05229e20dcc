//! `bulla status`: how jobs stand, from what is on record in their destinations. The judgement is the manager's
//! ([`bulla_manager::status`]).

use super::reported::{Hosts, ReportArgs, Unjudged, named};
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
    #[command(flatten)]
    of: ReportArgs,
    /// Write metrics for Prometheus into this file [default: what the configuration says]
    #[arg(long, value_name = "FILE", conflicts_with = "all_hosts")]
    metrics: Option<PathBuf>,
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
    #[serde(flatten)]
    unjudged: &'a Unjudged,
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
    host: &'a str,
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
    let (config, names) = args.of.read()?;
    let hosts = args.of.hosts();
    let judged = Judged::of_hosts(context, &config, &names, hosts);
    // A part of the jobs, or another host's, would take the others' place.
    let whole =
        config.host.metrics.as_ref().map(|at| PathBuf::from(&at.value)).filter(|_| args.of.is_whole());
    if let Some(path) = args.metrics.clone().or(whole) {
        judged.measure(context, &config, &path);
    }
    let unjudged = args.of.unjudged(&judged.facts, &config);
    let (all, now) = (&judged.jobs, judged.now);
    let ended = all.iter().fold(unjudged.outcome(), |ended, job| ended.and(job.outcome()));
    let mut channels = notices::lines(context, &config);
    channels.retain(|line| line.complaint().is_some());
    let told = if context.ui.json {
        document(context, (all, &unjudged), &channels, ended, now)
    } else {
        table(context, (all, &unjudged, hosts), &channels, now)
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
        host: &s.host,
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
    (all, unjudged): (&[JobStatus], &Unjudged),
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
        unjudged,
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

fn table(
    context: &Context<'_>,
    (all, unjudged, hosts): (&[JobStatus], &Unjudged, Hosts<'_>),
    channels: &[notices::Line],
    now: i64,
) -> Outcome<()> {
    let mut out = context.ui.results();
    let (named, others) = (|s: &JobStatus| named(&s.job, &s.host, hosts), hosts != Hosts::Own);
    let worst = |s: &&JobStatus| s.findings.first().map(|f| f.outcome.rank());
    if let Some((s, f)) = all
        .iter()
        .filter(|s| worst(s).is_some())
        .min_by_key(|s| (worst(s), s.proven))
        .and_then(|s| Some((s, s.findings.first()?)))
    {
        out.line(escape(format!("FIRST: {}: {}  → {}", named(s), f.what, f.fix).as_bytes()))?;
    }
    let mut heads = vec!["Job", "Last OK", "V", "RPO now / may", "RTO / may", "Drill", "Copies", "State"];
    heads.extend(others.then_some("Host"));
    let mut table = Table::new(&heads);
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
        let mut row = vec![
            vec![escape(s.job.as_bytes())],
            vec![s.last_ok.map_or_else(|| "never".to_owned(), time)],
            vec![(s.level as u8).to_string()],
            vec![of(s.rpo.map(short), s.rpo_objective)],
            vec![of(rto, s.rto_objective)],
            vec![s.drill.map_or_else(|| "never".to_owned(), |at| format!("{} ago", short(now - at)))],
            vec![s.copies.to_string()],
            vec![state],
        ];
        row.extend(others.then(|| vec![escape(s.host.as_bytes())]));
        table.row(row);
    }
    table.lines().iter().try_for_each(|line| out.line(line))?;
    for s in all {
        for f in &s.findings {
            let line = format!("{}: {}: {}  → {}", named(s), f.outcome.word(), f.what, f.fix);
            out.line(escape(line.as_bytes()))?;
        }
        if let Some((until, why)) = &s.waived {
            let (job, until) = (named(s), time(*until));
            let line = format!("{job}: the rules about letting go are lifted until {until}: {why}");
            out.line(escape(line.as_bytes()))?;
        }
    }
    for line in unjudged.lines() {
        out.line(escape(line.as_bytes()))?;
    }
    for complaint in channels.iter().filter_map(notices::Line::complaint) {
        out.line(escape(complaint.as_bytes()))?;
    }
    out.finish()
}
