//! `bulla waive`: lifts the rules about letting go for a job, in all its destinations, with a reason and an end.

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::site::Site;
use crate::ui::prompt;
use bulla_engine::evidence::WAIVER_MAX;
use bulla_engine::format::ledger::{Fact, Waiver};
use bulla_engine::observer::Silent;
use bulla_manager::config::Length;
use bulla_manager::world::{World, now};

/// What `waive` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
While it lasts, snapshots of the job may be forgotten without proof of a newer one, although packs are damaged, clocks
differ, fewer than three would stay, or the job is locked; and a source that has shrunk is taken as it is. It is on record in every
destination and in every status until it ends.")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    job: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// For how long, at most 30d
    #[arg(long = "for", value_name = "TIME", default_value = "1d")]
    length: Length,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Lifts them.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let job = super::config::job(&config, &args.job)?;
    if args.length.seconds() > WAIVER_MAX {
        return Err(Failure::Usage("rules are lifted for 30 days at most".into()));
    }
    if args.reason.trim().is_empty() {
        return Err(Failure::Usage("say why: --reason TEXT".into()));
    }
    if !args.yes {
        let question = format!("Let snapshots of job {} go without proof for {}?", args.job, args.length);
        match prompt::confirm(&question) {
            Some(true) => {}
            Some(false) => return Err(Failure::Failed("nothing was lifted".into())),
            None => return Err(Failure::Usage("there is no terminal to ask on: confirm with --yes".into())),
        }
    }
    let site = Site::new(context, &config, &Silent, false);
    let until = now(&site).saturating_add(args.length.seconds());
    let (job_name, host, reason) = (args.job.clone(), context.host(), args.reason.clone());
    let waiver = Waiver { job: job_name, host, reason, until };
    let mut behind = false;
    for to in &job.to {
        let done = site.open(&to.value, false).and_then(|repository| {
            repository.record(&Fact::Waiver(waiver.clone())).map_err(|e| site.judge(&e))
        });
        match done {
            Ok(()) => context.ui.line(format_args!("lifted in {} for {}", to.value, args.length))?,
            Err(trouble) => {
                behind = true;
                context.ui.error(&format!("{}: {}", to.value, trouble.why), None, "waive");
            }
        }
    }
    Ok(if behind { Code::Partial } else { Code::Done })
}
