//! The configuration of the manager: what is backed up, where to, how long it is kept, and what is promised about it.
//!
//! It is read from texts that the caller has found. All mistakes are told at once; only what a job says together with
//! others is judged when its source and its destinations can be read. A key that nobody heeds is a mistake,
//! and so is a contradiction: nothing is guessed, nothing averaged. No secret stands in it, only where one is.

mod channel;
mod entries;
mod expect;
mod mistake;
mod read;
mod rules;
mod section;
mod size;
mod value;

pub use channel::{Address, Channel, Email, Kind, Means, Security, Server};
pub use entries::{Entry, entries};
pub use expect::Expectation;
pub use mistake::{Mistake, Place};
pub(crate) use rules::local;
pub use section::At;
pub use size::{Limits, Rate, Size};
pub use value::{Backoff, Length};

use crate::policy::Compliance;
use crate::schedule::{Every, Schedule};
use bulla_engine::backend::LockMode;
use bulla_engine::retention::Policy;
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A text with the file it is from.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path, for messages.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// This machine.
    pub host: Host,
    /// Where repositories are, by name.
    pub destinations: BTreeMap<String, At<Destination>>,
    /// What is kept how long, by name.
    pub retentions: BTreeMap<String, At<Retention>>,
    /// What is backed up, by name.
    pub jobs: BTreeMap<String, At<Job>>,
    /// Who is told, by name.
    pub channels: BTreeMap<String, At<Channel>>,
    /// Destinations, retentions and channels that are described and could not be read: whoever names one makes no mistake.
    unread: BTreeSet<String>,
    /// What is written of each job, with its retention and destinations, as one hash.
    digests: BTreeMap<String, [u8; 32]>,
}

/// This machine.
#[derive(Debug, Clone, Default)]
pub struct Host {
    /// Where it stands.
    pub site: Option<At<String>>,
    /// Whose hours and days its schedules and slots are; UTC without it.
    pub zone: Option<At<TimeZone>>,
    /// The file for Prometheus that is written after every run.
    pub metrics: Option<At<String>>,
}

/// Where a secret is; never what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// In a file.
    File(PathBuf),
    /// In a credential that systemd lays down for the unit.
    Systemd(String),
    /// Printed by a command.
    Command(Vec<String>),
    /// Behind a descriptor that whoever started the program left open.
    Fd(u32),
}

/// What kind of medium a repository lies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// Flash.
    Ssd,
    /// Magnetic disks.
    Hdd,
    /// Tape.
    Tape,
    /// Somebody's object store.
    Cloud,
}

/// A repository.
#[derive(Debug, Clone)]
pub struct Destination {
    /// Its URL, as for `--repo`.
    pub url: At<String>,
    /// Options of its kind of store, as for `-o`.
    pub options: Vec<String>,
    /// What opens it: a key file.
    pub key: Option<At<SecretRef>>,
    /// Or a password.
    pub password: Option<At<SecretRef>>,
    /// What it lies on.
    pub media: Option<At<Media>>,
    /// Where that stands.
    pub site: Option<At<String>>,
    /// True if what this machine may do there cannot delete.
    pub append_only: bool,
    /// What each run locks there anew.
    pub worm: Option<At<Worm>>,
    /// How fast it may be written to and read from.
    pub limits: Limits,
}

impl Destination {
    /// True if it can be read at once, without somebody fetching a tape first.
    pub fn is_at_hand(&self) -> bool {
        self.media.as_ref().is_none_or(|at| at.value != Media::Tape)
    }
}

/// What a store with object lock keeps against everybody, from each run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worm {
    /// Who is bound.
    pub mode: LockMode,
    /// For how long.
    pub keep: Length,
}

/// What is kept how long.
#[derive(Debug, Clone)]
pub struct Retention {
    /// The rules.
    pub policy: Policy,
    /// What the data is under.
    pub compliance: Vec<At<Compliance>>,
}

/// How much depends on a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It would be a pity.
    Standard,
    /// It would cost.
    Important,
    /// The business would end.
    Critical,
}

/// What is backed up.
#[derive(Debug, Clone)]
pub enum JobSource {
    /// Files and directories.
    Paths {
        /// Which.
        paths: Vec<At<String>>,
        /// Patterns of what is left out.
        exclude: Vec<At<String>>,
        /// Stay on the file systems of the paths.
        one_file_system: bool,
        /// Paths without which the source is not there.
        must_exist: Vec<At<String>>,
    },
    /// What a command prints.
    Command {
        /// Program and arguments of each, the output of one the input of the next; no shell. At least one.
        pipeline: Vec<Vec<At<String>>>,
        /// The name of the file that it becomes.
        name: At<String>,
        /// How the output has to begin.
        magic: Option<At<String>>,
        /// How long it has to be at least.
        min_size: Option<At<Size>>,
        /// How long it may take.
        timeout: Option<At<Length>>,
    },
    /// A block device, or a file that holds an image of one.
    Block {
        /// Which.
        path: At<String>,
        /// The name of the file that it becomes; its path without one.
        name: Option<At<String>>,
    },
}

/// How much is proved after a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verify {
    /// Nothing.
    Off,
    /// That all that is referred to is there.
    Structure,
    /// And that what was written reads back.
    New,
}

/// When a hook is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookAt {
    /// Before the source is read.
    Before,
    /// When it was read and there is a backup.
    After,
    /// When there is none.
    OnFail,
    /// Whatever happened, as the last.
    Finally,
}

/// A command that is run around a backup.
#[derive(Debug, Clone)]
pub struct Hook {
    /// When.
    pub at: HookAt,
    /// Program and arguments; no shell. At least the program.
    pub command: Vec<String>,
    /// The run fails if it does; else that is only told.
    pub abort: bool,
    /// How long it may take.
    pub timeout: Length,
}

/// How often is tried again what may pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often it is tried in all.
    pub attempts: u32,
    /// How long is waited in between.
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 3, backoff: Backoff::default() }
    }
}

/// What becomes of a run that was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// It is made up for, once for however many.
    RunOnce,
    /// Nothing: the next is waited for.
    Skip,
}

/// A thing that is backed up, and what is promised about it.
#[derive(Debug, Clone)]
pub struct Job {
    /// What people call it.
    pub system: Option<At<String>>,
    /// How much depends on it.
    pub class: Class,
    /// How long a restore may take.
    pub rto: Option<At<Length>>,
    /// How much work may be lost: how old the newest proven backup may be.
    pub rpo: Option<At<Length>>,
    /// Whom to ask.
    pub owner: Option<At<String>>,
    /// What is backed up.
    pub source: At<JobSource>,
    /// Where to: names of destinations.
    pub to: Vec<At<String>>,
    /// When.
    pub schedule: Option<At<Schedule>>,
    /// The name of a retention, or of a preset.
    pub retention: Option<At<String>>,
    /// What the data is under, besides what its retention says.
    pub compliance: Vec<At<Compliance>>,
    /// What is proved after each run.
    pub verify: Verify,
    /// How a restore of it is tried.
    pub drill: Drill,
    /// Commands around its backup, in the order they are run in.
    pub hooks: Vec<At<Hook>>,
    /// How often is tried again.
    pub retry: Retry,
    /// What becomes of runs that were missed.
    pub missed: Missed,
    /// Who is told how it stands: names of channels.
    pub notify: Vec<At<String>>,
}

/// How a restore of a job is tried.
#[derive(Debug, Clone, Default)]
pub struct Drill {
    /// Program and arguments that judge what was restored, by their exit code; they are run in the directory that holds it.
    pub command: Option<Vec<At<String>>>,
    /// How long it may take.
    pub timeout: Option<At<Length>>,
    /// What is expected of the numbers in the JSON object that it prints, by their names.
    pub expect: Vec<(String, At<Expectation>)>,
    /// Below which directory it is restored; a temporary one without it.
    pub target: Option<At<String>>,
    /// When a sample is due,
    pub sample: Option<At<Every>>,
    /// everything,
    pub full: Option<At<Every>>,
    /// and everything with the command's judgement.
    pub app: Option<At<Every>>,
}

/// What [`Config::read`] found.
#[derive(Debug, Clone, Default)]
pub struct Read {
    /// What could be read.
    pub config: Config,
    /// All that is wrong, in the order of files and lines; warnings as well.
    pub mistakes: Vec<Mistake>,
}

impl Read {
    /// True if it may be used.
    pub fn is_sound(&self) -> bool {
        self.mistakes.iter().all(Mistake::is_warning)
    }
}

/// A commented configuration to begin with; as it stands it is sound.
pub const STARTER: &str = include_str!("starter.toml");

#[cfg(test)]
mod tests;
