//! One file per word: its `Args` (what was typed) and `run` (what it does). What several words share is here.

mod assess;
mod backup;
mod cat;
mod check;
mod compliance;
mod config;
mod copy;
mod daemon;
mod drill;
mod find;
mod forget;
mod generate;
mod help;
mod init;
mod key;
mod ls;
mod notify;
mod places;
mod policy;
mod protect;
mod prune;
mod repair;
pub(crate) mod reported;
mod rescue_kit;
mod restore;
mod retain;
mod retention;
mod run;
mod runbook;
mod schedule;
mod snapshots;
mod sources;
mod status;
mod version;
mod waive;

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::repository::{Repository, SnapshotFilter};
use clap::{Args, Subcommand};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The words, in the groups of `bulla --help`.
pub(crate) const GROUPS: &[(&str, &[&str])] = &[
    ("Back up and restore", &["init", "backup", "snapshots", "ls", "find", "cat", "restore", "copy"]),
    ("Keep it safe", &["check", "repair", "retain", "key", "rescue-kit"]),
    ("Let go of the old", &["forget", "prune", "undelete", "protect", "unprotect"]),
    (
        "Keep promises",
        &[
            "config",
            "policy",
            "schedule",
            "daemon",
            "run",
            "status",
            "notify",
            "drill",
            "compliance",
            "assess",
            "runbook",
            "waive",
        ],
    ),
    ("About this program", &["version", "generate", "help"]),
];

/// A word with what was typed after it.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a repository and print its recovery key
    Init(init::Args),
    /// Back up files, directories or a command's output
    Backup(Box<backup::Args>),
    /// List snapshots
    Snapshots(snapshots::Args),
    /// List the files of a snapshot
    Ls(ls::Args),
    /// Find files by name in all snapshots
    Find(find::Args),
    /// Print a file of a snapshot, or an internal object as JSON
    Cat(cat::Args),
    /// Write a snapshot, or a part of it, into a directory
    Restore(Box<restore::Args>),
    /// Copy snapshots of another repository into this one
    Copy(Box<copy::Args>),
    /// Look for damage, and say which snapshots and files it hurts
    Check(check::Args),
    /// Let snapshots go, by name or by a policy
    Forget(Box<forget::Args>),
    /// Delete what no snapshot needs, beside whatever else runs
    Prune(prune::Args),
    /// Bring a forgotten snapshot back before its grace is over
    Undelete(protect::Which),
    /// Keep a snapshot whatever any policy says
    Protect(protect::Protect),
    /// End a snapshot's protection
    Unprotect(protect::Which),
    /// Check the configuration of jobs, show it, begin one
    Config(config::Args),
    /// Say what a retention policy promises, and play it day by day
    Policy(Box<policy::Args>),
    /// Run jobs of the configuration: back up, read back, put on record, let go of the old
    Run(run::Args),
    /// Say how jobs stand, what is wrong first
    Status(status::Args),
    /// Tell who wants to know what is wrong with jobs, and send what waits
    Notify(notify::Args),
    /// Try a restore of a job, compare and time it, and put that on record
    Drill(drill::Args),
    /// Say whether jobs have three copies, two media, one off-site, one locked and no errors
    Compliance(compliance::Args),
    /// Write the assessment report of jobs: what there is, what was promised, each gap with its remedy
    Assess(assess::Args),
    /// Write the recovery procedure of a job, with ids, commands and what they give
    Runbook(runbook::Args),
    /// Lift the rules about letting go for a job, for a while and with a reason
    Waive(waive::Args),
    /// Let systemd run jobs when they are due
    Schedule(schedule::Args),
    /// Run jobs and drills when they are due, where no systemd does
    Daemon(daemon::Args),
    /// Put right what is damaged
    Repair(repair::Args),
    /// Keep what snapshots need locked, in a bucket with object lock
    Retain(retain::Args),
    /// List, add, change and remove the keys of a repository
    Key(key::Args),
    /// Write what it takes to restore without bulla
    RescueKit(rescue_kit::Args),
    /// Print the version of the program and of the formats it knows
    Version(version::Args),
    /// Write shell completions, manual pages, or alerts for Prometheus
    Generate(generate::Args),
    /// Explain a command, or map the words of another program
    Help(help::Args),
}

/// Runs the word.
pub(crate) fn run(context: &Context<'_>, command: &Command) -> Outcome {
    match command {
        Command::Init(args) => init::run(context, args),
        Command::Backup(args) => backup::run(context, args),
        Command::Snapshots(args) => snapshots::run(context, args),
        Command::Ls(args) => ls::run(context, args),
        Command::Cat(args) => cat::run(context, args),
        Command::Restore(args) => restore::run(context, args),
        Command::Find(args) => find::run(context, args),
        Command::Copy(args) => copy::run(context, args),
        Command::Check(args) => check::run(context, args),
        Command::Forget(args) => forget::run(context, args),
        Command::Prune(args) => prune::run(context, args),
        Command::Undelete(args) => protect::undelete(context, args),
        Command::Protect(args) => protect::protect(context, args),
        Command::Unprotect(args) => protect::unprotect(context, args),
        Command::Config(args) => config::run(context, args),
        Command::Policy(args) => policy::run(context, args),
        Command::Run(args) => run::run(context, args),
        Command::Status(args) => status::run(context, args),
        Command::Notify(args) => notify::run(context, args),
        Command::Drill(args) => drill::run(context, args),
        Command::Compliance(args) => compliance::run(context, args),
        Command::Assess(args) => assess::run(context, args),
        Command::Runbook(args) => runbook::run(context, args),
        Command::Waive(args) => waive::run(context, args),
        Command::Schedule(args) => schedule::run(context, args),
        Command::Daemon(args) => daemon::run(context, args),
        Command::Repair(args) => repair::run(context, args),
        Command::Retain(args) => retain::run(context, args),
        Command::Key(args) => key::run(context, args),
        Command::RescueKit(args) => rescue_kit::run(context, args),
        Command::Version(args) => version::run(context, args),
        Command::Generate(args) => generate::run(context, args),
        Command::Help(args) => help::run(context, args),
    }
}

/// Which snapshots are meant.
#[derive(Debug, Args)]
#[command(next_help_heading = "Which snapshots")]
pub(crate) struct FilterArgs {
    /// Only of this host (several: any of them)
    #[arg(short = 'H', long, value_name = "HOST")]
    host: Vec<String>,
    /// Only with all tags of this comma list (several: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]")]
    tag: Vec<String>,
    /// Only with this absolute path in it (several: all of them)
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,
}

impl FilterArgs {
    /// For the engine.
    pub(crate) fn filter(&self) -> SnapshotFilter {
        SnapshotFilter {
            hosts: self.host.clone(),
            tags: self.tag.iter().map(|list| comma_list(list)).collect(),
            paths: self.path.iter().map(|p| p.as_os_str().as_bytes().to_vec()).collect(),
        }
    }

    /// The snapshots that `ids` name among those that fit.
    pub(crate) fn named(&self, repository: &Repository, ids: &[String]) -> Outcome<Vec<Snapshot>> {
        let one = |id: &String| match repository.resolve(id, &self.filter())? {
            (snapshot, sub) if sub.is_empty() => Ok(snapshot),
            _ => Err(Failure::Usage(format!("{id:?} names a path; only whole snapshots are meant here"))),
        };
        ids.iter().map(one).collect()
    }

    /// Those that `ids` name or, without ids, those that fit; `None` if neither ids nor filters were given. That
    /// none fits is a mistake.
    pub(crate) fn chosen(&self, repository: &Repository, ids: &[String]) -> Outcome<Option<Vec<Snapshot>>> {
        if !ids.is_empty() {
            return Ok(Some(self.named(repository, ids)?));
        }
        if self.host.is_empty() && self.tag.is_empty() && self.path.is_empty() {
            return Ok(None);
        }
        let filter = self.filter();
        let mut all = repository.readable_snapshots()?.0;
        all.retain(|s| filter.matches(s));
        if all.is_empty() {
            return Err(Failure::Failed("no snapshot fits the filters".into()));
        }
        Ok(Some(all))
    }
}

/// The words of a comma list, empty ones left out.
pub(crate) fn comma_list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect()
}

/// A selector has to be text.
pub(crate) fn selector(text: &std::ffi::OsStr) -> Outcome<&str> {
    text.to_str().ok_or_else(|| Failure::Usage("a snapshot selector must be UTF-8".into()))
}
