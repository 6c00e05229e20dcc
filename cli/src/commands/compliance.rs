//! `bulla compliance`: 3-2-1-1-0 of each job, with what shows it. The judgement is the manager's
//! ([`bulla_manager::compliance`]).

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Code, Outcome, keep};
use crate::site::Site;
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::observer::escape;
use bulla_manager::compliance::{Compliance, Verdict, judge};
use bulla_manager::status::{self, Facts};
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
    /// Only these jobs
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    #[command(flatten)]
    config: ConfigArgs,
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
    compliance: &'static str,
    marks: Vec<MarkLine<'a>>,
}

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    jobs: Vec<Line<'a>>,
}

/// Says it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let names: Vec<String> =
        if args.jobs.is_empty() { config.jobs.keys().cloned().collect() } else { args.jobs.clone() };
    for name in &names {
        super::config::job(&config, name)?;
    }
    let all: Vec<(&String, Compliance)> = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, &config, observer, false);
        let facts = Facts::gather(&site, &config, &names);
        let (now, host) = (bulla_manager::world::now(&site), context.host());
        let mut all = Vec::new();
        for name in &names {
            let Some(job) = config.jobs.get(name).map(|at| &at.value) else { continue };
            let status = status::judge(&config, name, job, &host, &facts, now);
            let (place, source) = (|to: &str| site.domain_of(to), site.domains_of_source(job));
            all.push((name, judge((&config, name, job), &facts, &status, &host, &source, &place, now)));
        }
        all
    });
    let full = all.iter().all(|(_, c)| c.verdict == Verdict::Full);
    let told = if context.ui.json { document(context, &all) } else { tell(context, &all) };
    keep(if full { Code::Done } else { Code::Unproven }, told)
}

fn document(context: &Context<'_>, all: &[(&String, Compliance)]) -> Outcome<()> {
    let jobs = all.iter().map(|(job, c)| Line {
        job,
        compliance: c.verdict.word(),
        marks: c.all().map(|m| MarkLine { rule: &m.rule, met: m.met, evidence: &m.evidence }).collect(),
    });
    let (message_type, jobs) = ("compliance", jobs.collect());
    context.ui.document(&Document { message_type, schema_version: SCHEMA, jobs })
}

fn tell(context: &Context<'_>, all: &[(&String, Compliance)]) -> Outcome<()> {
    let mut out = context.ui.results();
    for (job, compliance) in all {
        out.line(format_args!("{}: {}", escape(job.as_bytes()), compliance.verdict.word()))?;
        for mark in compliance.all() {
            let sign = if mark.met { "yes" } else { "NO " };
            out.line(format_args!("  {sign} {}: {}", mark.rule, escape(mark.evidence.as_bytes())))?;
        }
    }
    out.finish()
}
