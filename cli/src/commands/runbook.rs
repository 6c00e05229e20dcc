//! `bulla runbook`: the recovery procedure of a job, to be printed and kept away from the machine. What is in it is the
//! manager's ([`bulla_manager::runbook`]).

use super::config::ConfigArgs;
use super::reported::{HostArgs, Looked};
use super::status::short;
use crate::context::{Context, canonical};
use crate::exit::{Code, Failure, Outcome, keep};
use crate::site::Site;
use crate::ui::format::utc_time;
use crate::ui::json::SCHEMA;
use crate::ui::progress::{Words, watch};
use bulla_engine::format::id::to_hex;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::compliance::Domain;
use bulla_manager::runbook::{Item, Runbook, write};
use serde::Serialize;
use std::path::PathBuf;

/// What `runbook` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Ids, sizes and commands are those of the newest backup that is proven to read back. Print it after each change, and keep it
away from the machine it is about. Last Tested is the last drill from that destination that went well with the configuration
as it is now. The exit code is 6 if there is no proven backup.")]
pub(crate) struct Args {
    /// Which job
    #[arg(value_name = "JOB")]
    job: String,
    /// Restore from this destination [default: one away from this machine, if it has the newest proven backup]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Restore into this new directory
    #[arg(long, value_name = "DIR", default_value = "/mnt/restored")]
    target: PathBuf,
    #[command(flatten)]
    of: HostArgs,
    #[command(flatten)]
    config: ConfigArgs,
}

const WORDS: Words = Words { during: "check", list_is_result: false };

#[derive(Serialize)]
struct Document<'a> {
    message_type: &'static str,
    schema_version: u32,
    job: &'a str,
    system: &'a str,
    owner: Option<&'a str>,
    destination: &'a str,
    snapshot_id: String,
    snapshot_time: String,
    proven: bool,
    digest: String,
    last_updated: Option<String>,
    last_tested: Option<String>,
    rto_seconds: Option<u64>,
    rto_measured: Option<bool>,
    prerequisites: Vec<Line<'a>>,
    steps: Vec<Line<'a>>,
    verification: Vec<Line<'a>>,
    placement: Vec<Line<'a>>,
    rollback: Vec<Line<'a>>,
    others: Vec<Other<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    what: &'a str,
    command: Option<&'a str>,
    expected: &'a str,
}

#[derive(Serialize)]
struct Other<'a> {
    destination: &'a str,
    program: &'a str,
    snapshot_id: String,
}

/// Writes it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let (config, _) = args.config.read()?.sound()?;
    let job = super::config::job(&config, &args.job)?;
    if let Some(from) = args.from.as_ref().filter(|from| !job.to.iter().any(|to| to.value == **from)) {
        return Err(Failure::Usage(format!("job {} does not go to {from}", args.job)));
    }
    let target = canonical(&args.target);
    let target = target.to_str().ok_or_else(|| Failure::Usage("--target has to be UTF-8".into()))?;
    let names = [args.job.clone()];
    let hosts = args.of.hosts();
    let written = watch(context.ui, WORDS, |observer| {
        let site = Site::new(context, &config, observer, false);
        let mut looked = Looked::at(context, &site, &config, &names, hosts);
        let (now, subjects) = (looked.now, looked.subjects(&config, &names, hosts));
        let away = |to: &str| site.domain_of(to).iter().any(|d| matches!(d, Domain::Host(_)));
        let from = (args.from.as_deref(), target);
        let all = looked
            .each(&subjects, |facts, s| write((&config, s.name, s.job), facts, &s.host, from, &away, now));
        all.into_iter().flatten().next()
    });
    let Some(runbook) = written else {
        let text = format!("there is no snapshot of job {} that could be restored", args.job);
        context.ui.error(&text, None, "runbook");
        return Ok(Code::Unproven);
    };
    let told = if context.ui.json { document(context, &runbook) } else { tell(context, &runbook) };
    keep(if runbook.proven { Code::Done } else { Code::Unproven }, told)
}

fn time(seconds: i64) -> String {
    utc_time(Timestamp { seconds, nanos: 0 })
}

fn document(context: &Context<'_>, r: &Runbook) -> Outcome<()> {
    fn lines(items: &[Item]) -> Vec<Line<'_>> {
        items
            .iter()
            .map(|i| Line { what: &i.what, command: i.command.as_deref(), expected: &i.expected })
            .collect()
    }
    context.ui.document(&Document {
        message_type: "runbook",
        schema_version: SCHEMA,
        job: &r.job,
        system: &r.system,
        owner: r.owner.as_deref(),
        destination: &r.destination,
        snapshot_id: r.snapshot.to_string(),
        snapshot_time: time(r.time),
        proven: r.proven,
        digest: to_hex(&r.standing.digest),
        last_updated: r.standing.updated.map(time),
        last_tested: r.standing.tested.map(time),
        rto_seconds: r.rto.map(|(seconds, _)| seconds),
        rto_measured: r.rto.map(|(_, measured)| measured),
        prerequisites: lines(&r.prerequisites),
        steps: lines(&r.steps),
        verification: lines(&r.verification),
        placement: lines(&r.placement),
        rollback: lines(&r.rollback),
        others: r
            .others
            .iter()
            .map(|(destination, program, id)| Other { destination, program, snapshot_id: id.to_string() })
            .collect(),
    })
}

fn tell(context: &Context<'_>, r: &Runbook) -> Outcome<()> {
    let mut out = context.ui.results();
    for line in text(r) {
        out.line(shown(line))?;
    }
    out.finish()
}

/// Backslashes stand in commands, which have to work as they are read; what a terminal would obey does not.
fn shown(line: String) -> String {
    let rest = line.replace('\\', "");
    if escape(rest.as_bytes()) == rest { line } else { escape(line.as_bytes()) }
}

/// The procedure as the template has it. Lines that begin with six blanks are commands, to be typed as they stand.
fn text(r: &Runbook) -> Vec<String> {
    let digest = to_hex(r.standing.digest.get(..4).unwrap_or_default());
    let updated = r.standing.updated.map_or_else(|| "since the last run".to_owned(), time);
    let rto = r.rto.map_or_else(
        || "unknown, no restore was tried".to_owned(),
        |(seconds, measured)| {
            let is = short(i64::try_from(seconds).unwrap_or(i64::MAX));
            format!("{is} ({})", if measured { "measured" } else { "reckoned from a sample" })
        },
    );
    let proven = if r.proven { "proven to read back" } else { "NOT PROVEN to read back" };
    let mut out = vec![
        format!("RECOVERY PROCEDURE: {}", r.system),
        format!("Last Updated: {updated} (configuration {digest})"),
        format!("Last Tested: {}", r.standing.tested.map_or_else(|| "never".to_owned(), time)),
        format!("Estimated RTO: {rto}"),
        format!("Snapshot: {} of {} in {}, {proven}", r.snapshot.short(), time(r.time), r.destination),
    ];
    out.extend(r.owner.as_ref().map(|owner| format!("Whom to ask: {owner}")));
    let mut part = |title: &str, numbered: bool, items: &[Item]| {
        out.push(String::new());
        out.push(format!("{title}:"));
        for (n, item) in items.iter().enumerate() {
            let mark = if numbered { format!("{}.", n + 1) } else { "□".to_owned() };
            out.push(format!("{mark} {}", item.what));
            out.extend(item.command.as_ref().map(|command| format!("      {command}")));
            if !item.expected.is_empty() {
                out.push(format!("   Expected result: {}", item.expected));
            }
        }
    };
    part("Prerequisites", false, &r.prerequisites);
    part("Steps", true, &r.steps);
    part("Verification", false, &r.verification);
    part("Once that is right", true, &r.placement);
    part("Rollback (if recovery fails)", true, &r.rollback);
    if !r.others.is_empty() {
        out.push(String::new());
        out.push(format!("If {} is lost too, the same from:", r.destination));
        out.extend(
            r.others.iter().map(|(place, program, id)| format!("- {place}: {program} restore {id} …")),
        );
    }
    out
}
