//! `bulla daemon`: runs jobs and drills when they are due, one at a time, for containers and whoever has no systemd. What
//! is due is what it is for `run --due` and `drill --due` ([`bulla_manager::due`]).

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::{Code, Failure, Outcome, keep};
use crate::site::{Turn, drills_of};
use crate::ui::format::utc_time;
use crate::ui::signals::{self, Wake};
use bulla_engine::format::ledger::DrillKind;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::escape;
use bulla_manager::config::Config;
use bulla_manager::due::Question;
use bulla_manager::outcome::Outcome as Ended;
use std::collections::BTreeMap;
use std::time::Duration;

/// What `daemon` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Backups come before drills. SIGHUP reads the configuration again, and keeps the old one if the new is not sound. SIGTERM and
SIGINT end it: at once while it waits; a run that goes on stops at its next safe point, and the exit code is then 130.")]
pub(crate) struct Args {
    #[command(flatten)]
    config: ConfigArgs,
}

/// The clock is looked at this often: it may be set, or the machine have slept.
const LOOK: u64 = 60;

/// What is on record is read anew this often, though nothing is due: others with the same jobs write there, too.
const READ: i64 = 3600;

/// Something to do.
struct Task {
    job: String,
    /// A drill of this kind, or a run.
    drill: Option<DrillKind>,
    /// When, in seconds.
    at: i64,
}

impl Task {
    fn place(&self) -> String {
        if self.drill.is_some() { drills_of(&self.job) } else { self.job.clone() }
    }
}

/// Serves until it is told to stop.
pub(crate) fn run(context: &Context<'_>, args: &Args) -> Outcome {
    let mut daemon = Daemon {
        context,
        config: args.config.read()?.sound()?.0,
        tried: BTreeMap::new(),
        unread: Vec::new(),
        told: Ok(()),
    };
    let mut wake = Wake::new().map_err(|e| Failure::Failed(format!("cannot wait for signals: {e}")))?;
    while !signals::stop_asked() {
        if signals::hung_up() {
            daemon.take(args.config.read().and_then(super::config::Found::sound).map(|(config, _)| config));
        }
        let next = daemon.next();
        match next {
            Some(task) if task.at <= daemon.now() => {
                if daemon.work(&task) == Ended::Interrupted {
                    return keep(Code::Interrupted, daemon.told);
                }
            }
            next => daemon.wait(&mut wake, next),
        }
        if daemon.told.is_err() {
            break;
        }
    }
    keep(Code::Done, daemon.told)
}

struct Daemon<'a> {
    context: &'a Context<'a>,
    config: Config,
    /// When each place was last taken, or could not be.
    tried: BTreeMap<String, i64>,
    /// What was said about destinations that cannot be read, so that it is said once.
    unread: Vec<String>,
    told: Outcome<()>,
}

impl Daemon<'_> {
    fn now(&self) -> i64 {
        self.context.env().clock.now().seconds
    }

    /// Takes another configuration, if there is one.
    fn take(&mut self, found: Outcome<Config>) {
        match found {
            Ok(config) => {
                self.config = config;
                self.context.ui.note("the configuration was read again");
            }
            Err(failure) => {
                let why = failure.said().map(|said| said.message).unwrap_or_default();
                self.context.ui.warn(&format!("the old configuration stays in force: {why}"));
            }
        }
    }

    /// What is to be done next: of what is due already runs before drills, else what is due first.
    fn next(&mut self) -> Option<Task> {
        let (facts, now) = super::run::known(self.context, &self.config);
        self.say_unread(
            super::run::unread(&facts).map(|(p, t)| format!("{p} cannot be read: {}", t.why)).collect(),
        );
        let host = self.context.host();
        let mut tasks = Vec::new();
        for (name, job) in &self.config.jobs {
            let question =
                Question { config: &self.config, name, job: &job.value, host: &host, facts: &facts, now };
            let run = question.run(self.tried(name)).map(|at| (None, at));
            let drill = question.drill(self.tried(&drills_of(name))).map(|(kind, at)| (Some(kind), at));
            let task = |(drill, at)| Task { job: name.clone(), drill, at };
            tasks.extend(run.into_iter().chain(drill).map(task));
        }
        tasks.into_iter().min_by_key(|task| (task.at > now, task.at > now || task.drill.is_some(), task.at))
    }

    fn tried(&self, place: &str) -> Option<i64> {
        self.tried.get(place).copied().max(Turn::tried(self.context, place))
    }

    fn say_unread(&mut self, all: Vec<String>) {
        for text in all.iter().filter(|text| !self.unread.contains(text)) {
            self.context.ui.warn(&escape(text.as_bytes()));
        }
        self.unread = all;
    }

    fn work(&mut self, task: &Task) -> Ended {
        self.tried.insert(task.place(), self.now());
        let done = match task.drill {
            None => super::run::one(self.context, &self.config, &task.job, &mut self.told),
            Some(kind) => super::drill::one(self.context, &self.config, (&task.job, kind), &mut self.told),
        };
        done.unwrap_or_else(|failure| {
            let why = failure.said().map(|said| said.message).unwrap_or_default();
            let text = format!("job {}: {why}", task.job);
            self.context.ui.error(&escape(text.as_bytes()), None, "run");
            Ended::Failed
        })
    }

    fn wait(&self, wake: &mut Wake, next: Option<Task>) {
        let from = self.now();
        let until = next.as_ref().map_or(i64::MAX, |task| task.at).min(from.saturating_add(READ));
        let what = next.map_or_else(
            || "nothing will be due".to_owned(),
            |task| {
                let what = if task.drill.is_some() { "drill" } else { "run" };
                let at = utc_time(Timestamp { seconds: task.at, nanos: 0 });
                format!("next: {what} of {} at {at}", escape(task.job.as_bytes()))
            },
        );
        self.context.ui.note(&what);
        while !signals::stop_asked() {
            let left = until.saturating_sub(self.now());
            // A clock that was set back is looked at anew, too.
            if left <= 0 || left > READ {
                return;
            }
            wake.wait(Duration::from_secs(left.unsigned_abs().min(LOOK)));
            if signals::hung_up_lately() {
                return;
            }
        }
    }
}
