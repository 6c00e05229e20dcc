//! `bulla policy`: what a retention policy promises, and whether it keeps its word, day by day, before it is used.

use super::config::ConfigArgs;
use super::retention::RetentionArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome};
use crate::ui::Results;
use crate::ui::format::{count, parse_size, size};
use crate::ui::json::SCHEMA;
use crate::ui::table::Table;
use bulla_engine::retention::Policy;
use bulla_manager::policy::simulate::{Day, Kept, Play, Stopped, stored};
use bulla_manager::policy::{Compliance, Preset, Reach, rules};
use clap::Subcommand;
use jiff::civil::Date;
use jiff::{Span, Zoned};
use serde::Serialize;

/// What `policy` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Print the rules of a policy and how far back they reach
    Show(Which),
    /// Play a policy day by day: which snapshots there will be, and how far back each rule really reaches
    Simulate(Simulate),
}

/// Which policy is meant.
#[derive(Debug, clap::Args)]
struct Which {
    /// The rules for a kind of data: databases, vms, config, logs, user-data; --keep-… change single ones
    #[arg(long, value_name = "NAME")]
    preset: Option<Preset>,
    /// What the data is under: gdpr, hipaa, sox, pci-dss (several: all of them); not legal advice
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    compliance: Vec<Compliance>,
    /// The policy of this job, and what its data is under
    #[arg(long, value_name = "NAME", conflicts_with = "preset")]
    job: Option<String>,
    #[command(flatten)]
    files: ConfigArgs,
    #[command(flatten)]
    retention: RetentionArgs,
}

/// A policy and what it has to hold against.
struct Meant {
    policy: Policy,
    compliance: Vec<Compliance>,
    /// Where a job's backups are at hand.
    at_hand: Option<Vec<String>>,
}

#[derive(Debug, clap::Args)]
struct Simulate {
    #[command(flatten)]
    which: Which,
    /// How many years to play
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    years: u32,
    /// Backups a day, at even times
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=96))]
    runs_a_day: u32,
    /// The first day [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    from: Option<Date>,
    /// Print the snapshots that there will be at the end of this day
    #[arg(long, value_name = "YYYY-MM-DD")]
    day: Option<Date>,
    /// How much is backed up: then what all snapshots take together is estimated
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: Option<u64>,
    /// Per cent of it that are written anew each day
    #[arg(long, value_name = "PERCENT", default_value_t = 2.0, requires = "size", value_parser = percent)]
    change: f64,
}

fn percent(text: &str) -> Result<f64, String> {
    let value = text.trim_end_matches('%').parse().ok().filter(|v| (0.0..=100.0).contains(v));
    value.ok_or_else(|| format!("{text:?} is no share between 0 and 100 per cent"))
}

/// Prints it.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    match &args.what {
        What::Show(which) => show(context, which),
        What::Simulate(simulate) => play(context, simulate),
    }
}

impl Which {
    fn meant(&self) -> Outcome<Meant> {
        let (mut compliance, mut at_hand) = (self.compliance.clone(), None);
        let policy = match (self.preset, &self.job) {
            (Some(preset), _) => self.retention.over(preset.policy()),
            (None, Some(name)) => {
                let (config, _) = self.files.read()?.sound()?;
                let job = super::config::job(&config, name)?;
                let (_, retention) = config.retention_of(job).ok_or_else(|| {
                    Failure::Usage(format!("job {name} keeps everything: it has no retention"))
                })?;
                let terms = config.terms_of(job).into_iter();
                compliance.extend(terms.filter(|c| !self.compliance.contains(c)));
                at_hand = Some(config.at_hand(job).into_iter().map(str::to_owned).collect());
                self.retention.over(retention.policy)
            }
            (None, None) => self.retention.policy()?,
        };
        Ok(Meant { policy, compliance, at_hand })
    }
}

impl Meant {
    /// What a term wants at hand and is nowhere but on tape.
    fn far(&self, term: Compliance) -> Option<String> {
        let nowhere = self.at_hand.as_ref().is_some_and(Vec::is_empty);
        let hot = term.hot().filter(|_| nowhere)?;
        Some(format!(
            "{term} wants the newest {hot} at hand, and all destinations of the job are tapes; name another one in to"
        ))
    }

    /// A contradiction is told where the results are, too: they are about it.
    fn verdict(&self) -> Outcome {
        let short = |c: &Compliance| c.shortfall(&self.policy).map(|short| short.to_string());
        let all: Vec<String> =
            self.compliance.iter().flat_map(|c| short(c).into_iter().chain(self.far(*c))).collect();
        if all.is_empty() {
            return Ok(Code::Done);
        }
        Err(Failure::Usage(format!("the policy contradicts what the data is under: {}", all.join("; "))))
    }
}

#[derive(Serialize)]
struct Term {
    name: &'static str,
    min: Option<String>,
    hot: Option<String>,
    /// Of a job: where that is, by its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    at_hand: Option<Vec<String>>,
    note: &'static str,
    met: bool,
    fix: Option<String>,
}

#[derive(Serialize)]
struct Shown {
    message_type: &'static str,
    schema_version: u32,
    rules: Vec<(String, String)>,
    reach: String,
    compliance: Vec<Term>,
}

fn show(context: &Context<'_>, which: &Which) -> Outcome {
    let meant = which.meant()?;
    let policy = &meant.policy;
    let term = |c: &Compliance| {
        let short = c.shortfall(policy);
        Term {
            name: c.name(),
            min: c.min().map(|p| p.to_string()),
            hot: c.hot().map(|p| p.to_string()),
            at_hand: meant.at_hand.clone().filter(|_| c.hot().is_some()),
            note: c.note(),
            met: short.is_none() && meant.far(*c).is_none(),
            fix: short.map(|s| format!("{} = \"{}\"", s.fix.0, s.fix.1)),
        }
    };
    let shown = Shown {
        message_type: "policy",
        schema_version: SCHEMA,
        rules: rules(policy).iter().map(|(unit, keep)| (unit.to_string(), keep.to_string())).collect(),
        reach: Reach::of(policy).to_string(),
        compliance: meant.compliance.iter().map(term).collect(),
    };
    if context.ui.json {
        context.ui.document(&shown)?;
        return meant.verdict();
    }
    let mut out = context.ui.results();
    let mut table = Table::new(&["Rule", "Keeps", "Promises"]);
    for (unit, keep) in rules(policy) {
        let promises = match keep {
            bulla_engine::retention::Keep::Count(_) => "no time: counts slots, whenever they were",
            _ => "always one from before it, once there was one",
        };
        table.row(vec![vec![unit.to_string()], vec![keep.to_string()], vec![promises.to_owned()]]);
    }
    table.lines().iter().try_for_each(|line| out.line(line))?;
    out.line(format!("one can always go back: {}", shown.reach))?;
    for term in &shown.compliance {
        let min = term.min.as_deref().unwrap_or("no minimum");
        let places = term.at_hand.as_ref().filter(|places| !places.is_empty());
        let places = places.map(|places| format!(" in {}", places.join(", "))).unwrap_or_default();
        let hot = term.hot.as_ref().map(|h| format!(", {h} at hand{places}")).unwrap_or_default();
        let met = if term.met { "met" } else { "NOT MET" };
        out.line(format!("{}: {min}{hot}: {met} ({})", term.name, term.note))?;
    }
    out.finish()?;
    meant.verdict()
}

/// One day of the JSON lines.
#[derive(Serialize)]
struct DayLine {
    message_type: &'static str,
    schema_version: u32,
    date: String,
    snapshots: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

#[derive(Serialize)]
struct RuleLine {
    message_type: &'static str,
    schema_version: u32,
    rule: String,
    promise: String,
    shortest_reach_hours: Option<i64>,
    shortest_on: Option<String>,
    days_short: u32,
    days_judged: u32,
}

fn play(context: &Context<'_>, args: &Simulate) -> Outcome {
    let meant = args.which.meant()?;
    let zone = args.which.retention.time_zone();
    let from = args.from.unwrap_or_else(|| Zoned::now().with_time_zone(zone.clone()).date());
    let end = from.saturating_add(Span::new().years(args.years));
    let days = from.until(end).map_or(0, |span| span.get_days().unsigned_abs());
    let play = Play { policy: meant.policy.clone(), from, days, runs_a_day: args.runs_a_day, zone };
    let bytes_of = |day: &Day| args.size.map(|size| stored(&day.kept, size, args.change / 100.0));
    // Of many days only those that are shown stay in memory.
    let last = from.saturating_add(Span::new().days(i64::from(days) - 1));
    if let Some(day) = args.day.filter(|day| !(from..=last).contains(day)) {
        return Err(Failure::Usage(format!("{day} is not among the days that are played, {from} to {last}")));
    }
    let wanted = |date: Date| match args.day {
        Some(day) => date == day,
        None => date == last || date.month() == 12 && date.day() == 31,
    };
    let (mut shown, mut said) = (Vec::new(), Ok(()));
    let mut out = context.ui.json.then(|| context.ui.results());
    play.run(|day| {
        let date = day.end.date();
        match &mut out {
            Some(out) if args.day.is_none_or(|d| d == date) && said.is_ok() => {
                said = out.document(&line_of(day, bytes_of(day)));
            }
            None if wanted(date) => shown.push(day.clone()),
            _ => {}
        }
    })
    .map_err(stopped)?;
    said?;
    let mut judged: Vec<(String, Kept)> = Vec::new();
    for kept in play.each_rule().map_err(stopped)? {
        let name = |(unit, keep)| format!("{unit} {keep}");
        judged.push((kept.unit.zip(kept.keep).map(name).unwrap_or_default(), kept));
    }
    for compliance in &meant.compliance {
        if let Some(min) = compliance.min() {
            judged.push((format!("all, for {compliance}"), play.against(min).map_err(stopped)?));
        }
    }
    if let Some(out) = out {
        print_rules(out, &judged)?;
    } else if args.day.is_some() {
        shown.iter().try_for_each(|day| print_day(context, day))?;
    } else {
        print_years(context, args, &play, &shown, &judged, bytes_of)?;
    }
    meant.verdict()
}

/// The moments of a day's snapshots, in the zone of its end.
fn moments(day: &Day) -> Vec<Zoned> {
    let zoned =
        |s: &i64| jiff::Timestamp::from_second(*s).ok().map(|t| t.to_zoned(day.end.time_zone().clone()));
    day.kept.iter().filter_map(zoned).collect()
}

fn line_of(day: &Day, bytes: Option<u64>) -> DayLine {
    DayLine {
        message_type: "day",
        schema_version: SCHEMA,
        date: day.end.date().to_string(),
        snapshots: moments(day).iter().map(|m| m.timestamp().to_string()).collect(),
        bytes,
    }
}

fn stopped(why: Stopped) -> Failure {
    match why {
        Stopped::Refused(refusal) => Failure::from(bulla_engine::Error::from(refusal)),
        too_many => Failure::Usage(too_many.to_string()),
    }
}

fn print_rules(mut out: Results, judged: &[(String, Kept)]) -> Outcome<()> {
    for (rule, kept) in judged {
        out.document(&RuleLine {
            message_type: "rule",
            schema_version: SCHEMA,
            rule: rule.clone(),
            promise: kept.promise.to_string(),
            shortest_reach_hours: kept.shortest.map(|(hours, _)| hours),
            shortest_on: kept.shortest.map(|(_, date)| date.to_string()),
            days_short: kept.short,
            days_judged: kept.judged,
        })?;
    }
    out.finish()
}

fn print_day(context: &Context<'_>, day: &Day) -> Outcome<()> {
    let mut out = context.ui.results();
    for moment in moments(day) {
        out.line(moment.strftime("%Y-%m-%d %H:%M"))?;
    }
    let kept = count(day.kept.len() as u64, "snapshot");
    out.line(format!("{kept} at the end of {}", day.end.date()))?;
    out.finish()
}

fn print_years(
    context: &Context<'_>,
    args: &Simulate,
    play: &Play,
    shown: &[Day],
    judged: &[(String, Kept)],
    bytes_of: impl Fn(&Day) -> Option<u64>,
) -> Outcome<()> {
    let mut out = context.ui.results();
    out.line(format!(
        "{} a day from {}, {} days; each rule alone, judged from the day on which there is so much history:",
        args.runs_a_day, play.from, play.days
    ))?;
    let mut table = Table::new(&["Rule", ">Says", ">Shortest reach", "On", ">Days short", ">Of", "Verdict"]);
    for (rule, kept) in judged {
        let (reach, on) = kept.shortest.map_or_else(Default::default, |(hours, date)| {
            (if hours < 48 { format!("{hours} h") } else { format!("{} d", hours / 24) }, date.to_string())
        });
        let verdict = match (kept.judged, kept.short) {
            (0, _) => "play more years",
            (_, 0) => "kept",
            _ => "SHORT",
        };
        let cells = [
            rule.clone(),
            kept.promise.to_string(),
            reach,
            on,
            kept.short.to_string(),
            kept.judged.to_string(),
            verdict.to_owned(),
        ];
        table.row(cells.map(|c| vec![c]).to_vec());
    }
    table.lines().iter().try_for_each(|line| out.line(line))?;
    out.line("")?;
    let mut heads = vec!["At the end of", ">Snapshots", "Oldest"];
    heads.extend(args.size.map(|_| ">Together, estimated"));
    let mut table = Table::new(&heads);
    for day in shown {
        let oldest = moments(day).first().map(|m| m.date().to_string()).unwrap_or_default();
        let mut cells = vec![day.end.date().to_string(), day.kept.len().to_string(), oldest];
        cells.extend(bytes_of(day).map(size));
        table.row(cells.into_iter().map(|c| vec![c]).collect());
    }
    table.lines().iter().try_for_each(|line| out.line(line))?;
    out.finish()
}
