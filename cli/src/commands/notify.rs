//! `bulla notify`: tells what there is to tell of jobs, sends what waits, tries a channel. What a message is is the
//! manager's ([`bulla_manager::notify`]).

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::notices::{self, Judged};
use crate::ui::format::count;
use crate::ui::json::SCHEMA;
use bulla_engine::observer::escape;
use serde::Serialize;

/// What `notify` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Jobs tell their channels themselves after every run and drill. This tells the rest, above all that a run did not \
happen: let it be called every quarter of an hour.

A problem is told when it begins, about once a day while it lasts, and when it is over. What a channel does not take \
waits, and is tried again after a minute, two, four, at most an hour. The exit code says whether channels take what \
they are sent, and nothing about jobs.")]
pub(crate) struct Args {
    /// Only of these jobs
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Send a sample through this channel, and say whether it was taken
    #[arg(long, value_name = "NAME", conflicts_with_all = ["jobs", "now"])]
    test: Option<String>,
    /// Also try again what is to wait longer
    #[arg(long)]
    now: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

#[derive(Serialize)]
struct Unsent<'a> {
    channel: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    made: usize,
    sent: usize,
    waiting: usize,
    failed: Vec<Unsent<'a>>,
}

/// Does it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    if let Some(name) = &args.test {
        return test(context, &config, name);
    }
    for name in &args.jobs {
        super::config::job(&config, name)?;
    }
    if context.state_dir().is_none() {
        return Err(Failure::Usage("there is no directory for state: set HOME or XDG_STATE_HOME".into()));
    }
    let tells = |name: &&String| config.jobs.get(*name).is_some_and(|job| !job.value.notify.is_empty());
    let names: Vec<String> = match args.jobs.as_slice() {
        [] => config.jobs.keys().filter(tells).cloned().collect(),
        jobs => jobs.to_vec(),
    };
    let judged = Judged::for_all(context, &config, &names);
    let made = judged.tell(context, &config, &names, None);
    let flushed = notices::flush(context, &config, args.now);
    judged.measure_all(context, &config);
    if context.ui.json {
        let failed = flushed.failed.iter().map(|(channel, reason)| Unsent { channel, reason });
        context.ui.document(&Document {
            message_type: "notify",
            schema_version: SCHEMA,
            made,
            sent: flushed.sent,
            waiting: flushed.waiting,
            failed: failed.collect(),
        })?;
    } else {
        let wait = if flushed.waiting == 1 { "waits" } else { "wait" };
        context.ui.line(format!(
            "{} sent, {} {wait}",
            count(flushed.sent as u64, "message"),
            flushed.waiting
        ))?;
    }
    Ok(if flushed.failed.is_empty() { Code::Done } else { Code::Failed })
}

#[derive(Serialize)]
struct Tested<'a> {
    message_type: &'static str,
    schema_version: u32,
    channel: &'a str,
    taken: bool,
    reason: Option<&'a str>,
}

fn test(context: &Context<'_>, config: &bulla_manager::config::Config, name: &str) -> Outcome {
    let channel = config.channels.get(name).ok_or_else(|| {
        let names: Vec<&str> = config.channels.keys().map(String::as_str).collect();
        Failure::Usage(format!("no channel is named {name:?}; there are {}", names.join(", ")))
    })?;
    let sent = notices::test(context, name, &channel.value);
    let reason = sent.as_ref().err().map(String::as_str);
    if context.ui.json {
        let (message_type, channel, taken) = ("notify-test", name, sent.is_ok());
        context.ui.document(&Tested { message_type, schema_version: SCHEMA, channel, taken, reason })?;
    } else {
        let said = reason.map_or_else(
            || "took the sample; see whether it arrives".to_owned(),
            |why| format!("did not take the sample: {why}"),
        );
        context.ui.line(escape(format!("channel {name} {said}").as_bytes()))?;
    }
    Ok(if sent.is_ok() { Code::Done } else { Code::Failed })
}
