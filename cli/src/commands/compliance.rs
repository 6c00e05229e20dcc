//! `bulla compliance`: 3-2-1-1-0 of each job, with what shows it. The judgement is the manager's
//! ([`bulla_manager::compliance`]).

use super::reported::{Hosts, Looked, ReportArgs, Unjudged, named};
use crate::context::Context;
use crate::exit::{Code, Outcome, keep};
use crate::site::Site;
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::observer::escape;
use bulla_manager::compliance::{Compliance, Verdict};
use bulla_manager::outcome::Outcome as Ended;
use serde::Serialize;

/// What `compliance` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Three copies, on two kinds of media, one off-site, one that this machine cannot delete, no errors. A copy counts only where
the newest backup is proven to read back, and where it does not fail together with another: on another disk than the source, or
on another host. What data is under may want its newest months at hand (pci-dss: 3): then they have to be, each backup on
record or one at most a slot later, where no tape is and it could be read just now. Media, site and append_only are what the configuration says; what it does not say is not met. The exit
code is 6 unless all jobs comply in full.")]
pub(crate) struct Args {
    #[command(flatten)]
    of: ReportArgs,
}

const WORDS: Words = Words { during: "check", list_is_result: false };

#[derive(Serialize)]
struct MarkLine<'a> {
    rule: &'a str,
    met: bool,
    evidence: &'a str,
}

#[derive(Serialize)]
struct Line<'a> {
    job: &'a str,
    host: &'a str,
    compliance: &'static str,
    marks: Vec<MarkLine<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    jobs: Vec<Line<'a>>,
    #[serde(flatten)]
    unjudged: &'a Unjudged,
}

/// Says it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, names) = args.of.read()?;
    let hosts = args.of.hosts();
    let (all, unjudged): (Vec<(String, String, Compliance)>, Unjudged) =
        watch(context.ui, WORDS, |observer| {
            let site = Site::new(context, &config, observer, false);
            let mut looked = Looked::at(context, &site, &config, &names, hosts);
            let subjects = looked.subjects(&config, &names, hosts);
            let all = looked.each_judged(&site, &config, &subjects, |_, s, (_, rules)| {
                (s.name.clone(), s.host.clone(), rules.clone())
            });
            (all, args.of.unjudged(&looked.facts, &config))
        });
    let known = unjudged.outcome() == Ended::Done;
    let full = known && all.iter().all(|(.., c)| c.verdict == Verdict::Full);
    let told = if context.ui.json {
        document(context, &all, &unjudged)
    } else {
        tell(context, (&all, &unjudged), hosts)
    };
    keep(if full { Code::Done } else { Code::Unproven }, told)
}

fn document(context: &Context<'_>, all: &[(String, String, Compliance)], unjudged: &Unjudged) -> Outcome<()> {
    let jobs = all.iter().map(|(job, host, c)| Line {
        job,
        host,
        compliance: c.verdict.word(),
        marks: c.all().map(|m| MarkLine { rule: &m.rule, met: m.met, evidence: &m.evidence }).collect(),
    });
    let (message_type, jobs) = ("compliance", jobs.collect());
    context.ui.document(&Document { message_type, schema_version: SCHEMA, jobs, unjudged })
}

fn tell(
    context: &Context<'_>,
    (all, unjudged): (&[(String, String, Compliance)], &Unjudged),
    hosts: Hosts<'_>,
) -> Outcome<()> {
    let mut out = context.ui.results();
    for (job, host, compliance) in all {
        let job = named(job, host, hosts);
        out.line(format_args!("{}: {}", escape(job.as_bytes()), compliance.verdict.word()))?;
        for mark in compliance.all() {
            let sign = if mark.met { "yes" } else { "NO " };
            out.line(format_args!("  {sign} {}: {}", mark.rule, escape(mark.evidence.as_bytes())))?;
        }
    }
    for line in unjudged.lines() {
        out.line(escape(line.as_bytes()))?;
    }
    out.finish()
}
