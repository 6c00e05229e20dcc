//! `bulla assess`: the assessment report of each job, from what is on record in its destinations. The judgement is the
//! manager's ([`bulla_manager::assess`]).

use super::reported::{Hosts, Looked, ReportArgs, Unjudged, named};
use crate::context::Context;
use crate::exit::{Outcome, keep};
use crate::site::Site;
use crate::ui::format::utc_time;
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::assess::{Assessment, History, assess};
use bulla_manager::config::Class;
use bulla_manager::outcome::Outcome as Ended;
use serde::Serialize;

/// What `assess` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Current Backup: Yes if the newest backup that is proven to read back is whole, no older than was promised, and in every
destination; Partial if a destination lacks it, or it lacks a part of the source. Current RTO is measured by a drill that
restored all, or reckoned from one of a sample. Current RPO is how much work would be lost now; beside it the worst of the
last 90 days, and for how much of them the objective held. Each gap has what to type or to write, and the records that show
it: DESTINATION#CLIENT.NUMBER in the ledger. The exit code is that of the gravest gap.")]
pub(crate) struct Args {
    #[command(flatten)]
    of: ReportArgs,
}

const WORDS: Words = Words { during: "check", list_is_result: false };

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    generated_at: String,
    exit: u8,
    jobs: Vec<Line<'a>>,
    #[serde(flatten)]
    unjudged: &'a Unjudged,
}

#[derive(Serialize)]
struct Line<'a> {
    job: &'a str,
    host: &'a str,
    system: &'a str,
    data_classification: &'static str,
    current_backup: &'static str,
    last_successful: Option<String>,
    last_verified: Option<VerifiedLine<'a>>,
    rto_requirement_seconds: Option<i64>,
    rpo_requirement_seconds: Option<i64>,
    rto_seconds: Option<u64>,
    rto_measured: Option<bool>,
    rpo_seconds: Option<i64>,
    rpo_history: Option<HistoryLine>,
    exit: u8,
    gaps: Vec<GapLine<'a>>,
}

#[derive(Serialize)]
struct VerifiedLine<'a> {
    time: String,
    level: u8,
    destinations: &'a [String],
}

#[derive(Serialize)]
struct HistoryLine {
    seconds: i64,
    worst_seconds: i64,
    held_percent: Option<f64>,
}

#[derive(Serialize)]
struct GapLine<'a> {
    exit: u8,
    risk: &'a str,
    impact: &'static str,
    recommendation: &'a str,
    evidence: &'a str,
}

/// Says it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, names) = args.of.read()?;
    let hosts = args.of.hosts();
    let (all, unjudged, now) = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, &config, observer, false);
        let mut looked = Looked::at(context, &site, &config, &names, hosts);
        let (now, subjects) = (looked.now, looked.subjects(&config, &names, hosts));
        let all = looked.each_judged(&site, &config, &subjects, |facts, s, judged| {
            let assessment = assess((&config, s.name, s.job), facts, judged, &s.host, now);
            (s.host.clone(), assessment)
        });
        (all, args.of.unjudged(&looked.facts, &config), now)
    });
    let ended = all.iter().fold(unjudged.outcome(), |ended, (_, a)| ended.and(a.outcome()));
    let all = (&all[..], &unjudged);
    let told = if context.ui.json { document(context, all, ended, now) } else { tell(context, all, hosts) };
    keep(ended.into(), told)
}

fn time(seconds: i64) -> String {
    utc_time(Timestamp { seconds, nanos: 0 })
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Critical => "Critical",
        Class::Important => "Important",
        Class::Standard => "Standard",
    }
}

/// Of the time in which it can have held, in per cent; rounded down, so that 100 means always.
fn percent(history: &History) -> Option<f64> {
    let held = history.held?;
    let permille = i128::from(held) * 1000 / i128::from(history.seconds.max(1));
    Some(permille as f64 / 10.0)
}

fn document(
    context: &Context<'_>,
    (all, unjudged): (&[(String, Assessment)], &Unjudged),
    ended: Ended,
    now: i64,
) -> Outcome<()> {
    context.ui.document(&Document {
        message_type: "assessment",
        schema_version: SCHEMA,
        generated_at: time(now),
        exit: ended.code(),
        jobs: all.iter().map(of).collect(),
        unjudged,
    })
}

fn of((host, a): &(String, Assessment)) -> Line<'_> {
    let gaps = a.gaps.iter().map(|gap| GapLine {
        exit: gap.outcome.code(),
        risk: &gap.risk,
        impact: gap.impact.word(),
        recommendation: &gap.recommendation,
        evidence: &gap.evidence,
    });
    Line {
        job: &a.job,
        host,
        system: &a.system,
        data_classification: class(a.class),
        current_backup: a.current.word(),
        last_successful: a.last_successful.map(time),
        last_verified: a.last_verified.as_ref().map(|v| VerifiedLine {
            time: time(v.at),
            level: v.level as u8,
            destinations: &v.places,
        }),
        rto_requirement_seconds: a.rto_requirement,
        rpo_requirement_seconds: a.rpo_requirement,
        rto_seconds: a.rto.map(|rto| rto.seconds),
        rto_measured: a.rto.map(|rto| rto.files == rto.files_all),
        rpo_seconds: a.rpo,
        rpo_history: a.history.as_ref().map(|h| HistoryLine {
            seconds: h.seconds,
            worst_seconds: h.worst,
            held_percent: percent(h),
        }),
        exit: a.outcome().code(),
        gaps: gaps.collect(),
    }
}

fn length(seconds: i64) -> String {
    super::status::short(seconds)
}

fn tell(
    context: &Context<'_>,
    (all, unjudged): (&[(String, Assessment)], &Unjudged),
    hosts: Hosts<'_>,
) -> Outcome<()> {
    let mut out = context.ui.results();
    for (n, (host, a)) in all.iter().enumerate() {
        if n > 0 {
            out.line("")?;
        }
        for line in lines(&named(&a.job, host, hosts), a) {
            out.line(escape(line.as_bytes()))?;
        }
    }
    for line in unjudged.lines() {
        out.line(escape(line.as_bytes()))?;
    }
    out.finish()
}

/// The report as the template has it.
fn lines(job: &str, a: &Assessment) -> Vec<String> {
    let none = |what: &str| what.to_owned();
    let system = if a.system == a.job { job.to_owned() } else { format!("{} (job {job})", a.system) };
    let verified = a.last_verified.as_ref().map_or_else(
        || none("never"),
        |v| format!("{} (V{}, {})", time(v.at), v.level as u8, v.places.join(" + ")),
    );
    let rto = a.rto.map_or_else(
        || none("unknown, no restore was tried"),
        |rto| {
            let is = length(i64::try_from(rto.seconds).unwrap_or(i64::MAX));
            match rto.files == rto.files_all {
                true => format!("{is} (measured)"),
                false => format!("{is} (reckoned from {} of {} files)", rto.files, rto.files_all),
            }
        },
    );
    let rpo = a.rpo.map_or_else(|| none("no proven backup"), length);
    let history = a.history.as_ref().map_or_else(String::new, |h| {
        let held = percent(h).map_or_else(String::new, |p| format!(", met {p:.1} %"));
        format!(" (of {}: worst {}{held})", length(h.seconds), length(h.worst))
    });
    let stated = |objective: Option<i64>| objective.map_or_else(|| none("not stated"), length);
    let mut out = vec![
        format!("System: {system}"),
        format!("Data Classification: {}", class(a.class)),
        format!("Current Backup: {}", a.current.word()),
        format!("Last Successful: {}", a.last_successful.map_or_else(|| none("never"), time)),
        format!("Last Verified: {verified}"),
        String::new(),
        format!("RTO Requirement: {}", stated(a.rto_requirement)),
        format!("RPO Requirement: {}", stated(a.rpo_requirement)),
        format!("Current RTO: {rto}"),
        format!("Current RPO: {rpo}{history}"),
        String::new(),
        format!("Gap Analysis: {}", if a.gaps.is_empty() { "no gap" } else { "" }).trim_end().to_owned(),
    ];
    for gap in &a.gaps {
        out.push(format!("┌{}", "─".repeat(60)));
        out.push(format!("│ Risk: {}", gap.risk));
        out.push(format!("│ Impact: {}", gap.impact.word()));
        out.push(format!("│ Recommendation: {}", gap.recommendation));
        out.push(format!("│ Evidence: {}", gap.evidence));
        out.push(format!("└{}", "─".repeat(60)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_rounded_down() {
        let share = |held, seconds| percent(&History { seconds, worst: 0, held: Some(held) });
        assert_eq!(share(9_999, 10_000), Some(99.9));
        assert_eq!((share(10, 10), share(0, 0)), (Some(100.0), Some(0.0)));
    }
}
