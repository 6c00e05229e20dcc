//! This machine as the manager sees it: destinations of the configuration opened with their own secrets, commands run
//! without ours, jobs kept from running twice at a time.

use crate::context::Context;
use crate::domains::Surroundings;
use crate::exit::{Failure, Outcome, Said};
use bulla_backends::location::Location;
use bulla_engine::env::Env;
use bulla_engine::observer::{Observer, escape};
use bulla_engine::repository::Repository;
use bulla_manager::compliance::Domain;
use bulla_manager::config::{Config, Destination, Job, JobSource};
use bulla_manager::outcome;
use bulla_manager::world::{Trouble, World};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The world of one command.
pub(crate) struct Site<'a> {
    context: &'a Context<'a>,
    config: &'a Config,
    observer: &'a dyn Observer,
    env: Env,
    /// Steps are told as they are done.
    tell: bool,
}

impl<'a> Site<'a> {
    /// With `tell` each step is a line of the results.
    pub(crate) fn new(
        context: &'a Context<'a>,
        config: &'a Config,
        observer: &'a dyn Observer,
        tell: bool,
    ) -> Self {
        Self { context, config, observer, env: context.env(), tell }
    }

    fn destination(&self, name: &str) -> Outcome<&Destination> {
        let found = self.config.destinations.get(name).map(|at| &at.value);
        found.ok_or_else(|| Failure::Usage(format!("no destination is named {name:?}")))
    }

    /// What a destination fails with.
    pub(crate) fn domain_of(&self, name: &str) -> Vec<Domain> {
        let Ok(location) = self.destination(name).and_then(location) else { return vec![Domain::Unknown] };
        Surroundings::of_this_machine().of_location(&location)
    }

    /// What the source of a job lies on; where what a command prints comes from nobody can say.
    pub(crate) fn domains_of_source(&self, job: &Job) -> Vec<Domain> {
        let here = Surroundings::of_this_machine();
        match &job.source.value {
            JobSource::Paths { paths, .. } => {
                paths.iter().flat_map(|path| here.of_path(Path::new(&path.value))).collect()
            }
            JobSource::Block { path, .. } => here.of_device(Path::new(&path.value)),
            JobSource::Command { .. } => vec![Domain::Here],
        }
    }

    /// What another host stands on: nobody can say more than that it is that host.
    pub(crate) fn domains_of_host(&self, host: &str) -> Vec<Domain> {
        let mut all = Surroundings::of_this_machine().of_host(host);
        all.push(Domain::Host(host.to_ascii_lowercase()));
        all
    }

    /// Opened with its own secret, or with the key in a file.
    fn open_one(&self, name: &str, fresh: bool, key: Option<&Path>) -> Outcome<Repository> {
        let destination = self.destination(name)?;
        let location = location(destination)?;
        let named = self.config.destinations.values().flat_map(|at| self::location(&at.value));
        let named: Vec<Location> = named.collect();
        let store = self.context.store_at(&location, &destination.options, &named)?.backend();
        let found = Repository::find(self.context.limited_to(destination.limits, store))?;
        let secret = match key {
            Some(file) => crate::secret::of_file(self.context, file)?,
            None => crate::secret::of_destination(self.context, destination)?,
        };
        let mut env = self.env.clone();
        env.cache = self.context.cache_dir();
        // Copies of a distant store's metadata prove nothing of the store.
        env.fresh = fresh;
        Ok(found.open(&secret, env)?)
    }
}

fn location(destination: &Destination) -> Outcome<Location> {
    Location::parse(&OsString::from(&destination.url.value)).map_err(Failure::Usage)
}

fn trouble(said: Option<Said>, passing: bool) -> Trouble {
    let Some(said) = said else {
        return Trouble::new(outcome::Outcome::Failed, "nobody reads the output");
    };
    let hint = said.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    let (outcome, why) = (outcome::Outcome::of(said.code as u64), format!("{}{hint}", said.message));
    Trouble { outcome, why, passing }
}

fn not_opened(failure: Failure) -> Trouble {
    let passing = matches!(&failure, Failure::Engine(e) if e.may_pass());
    trouble(failure.said(), passing)
}

impl World for Site<'_> {
    fn open(&self, destination: &str, fresh: bool) -> Result<Repository, Trouble> {
        self.open_one(destination, fresh, None).map_err(not_opened)
    }

    fn open_with(&self, destination: &str, key: &Path) -> Result<Repository, Trouble> {
        self.open_one(destination, true, Some(key)).map_err(not_opened)
    }

    fn judge(&self, error: &bulla_engine::Error) -> Trouble {
        trouble(Said::of(error), error.may_pass())
    }

    fn env(&self) -> &Env {
        &self.env
    }

    fn host(&self) -> String {
        self.context.host()
    }

    fn own_directories(&self) -> Vec<(u64, u64)> {
        let local = self.config.destinations.values().filter_map(|d| match location(&d.value) {
            Ok(Location::Local(path)) => Some(path),
            _ => None,
        });
        let id = |d: std::path::PathBuf| std::fs::metadata(d).ok().map(|m| (m.dev(), m.ino()));
        local.chain(self.context.cache_dir()).filter_map(id).collect()
    }

    fn secret_variables(&self) -> Vec<&'static str> {
        crate::secret::PASSWORD_VARIABLES.to_vec()
    }

    fn observer(&self) -> &dyn Observer {
        self.observer
    }

    fn step(&self, name: &str, what: &str) {
        if self.tell {
            let _ = self.context.ui.line(format_args!("{name:<8} {}", escape(what.as_bytes())));
        }
    }
}

/// Holds a job's place: one process at a time runs it. Released when it is dropped, or the process dies. When it was taken
/// last stays behind: what is due is not tried again at once because it left nothing on record.
pub(crate) struct Turn(#[allow(dead_code, reason = "the lock is held as long as the file is open")] File);

/// What its place is called by which the drills of a job are kept apart.
pub(crate) fn drills_of(job: &str) -> String {
    format!("{job}\0drill")
}

impl Turn {
    /// Takes it; `None` if another process has it.
    pub(crate) fn take(context: &Context<'_>, job: &str) -> Outcome<Option<Self>> {
        let path = Self::path(context, job);
        if let Some(dir) = path.parent() {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.map_err(|e| bulla_engine::Error::io("create", dir, e))?;
            // In a directory that all may write to, somebody may have been here before.
            let own =
                std::fs::symlink_metadata(dir).is_ok_and(|m| m.uid() == nix::unistd::geteuid().as_raw());
            if !own {
                let why = format!("{} belongs to somebody else; set XDG_STATE_HOME", dir.display());
                return Err(bulla_engine::Error::Refused(why).into());
            }
        }
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let mut file = file.map_err(|e| bulla_engine::Error::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(bulla_engine::Error::io("lock", &path, e).into()),
        }
        let now = context.env().clock.now().seconds;
        let written = file.set_len(0).and_then(|()| file.write_all(now.to_string().as_bytes()));
        written.map_err(|e| bulla_engine::Error::io("write", &path, e))?;
        Ok(Some(Self(file)))
    }

    /// When it was taken last on this machine, in seconds.
    pub(crate) fn tried(context: &Context<'_>, job: &str) -> Option<i64> {
        std::fs::read_to_string(Self::path(context, job)).ok()?.parse().ok()
    }

    fn path(context: &Context<'_>, job: &str) -> PathBuf {
        let name = bulla_engine::format::id::to_hex(job.as_bytes());
        context.meeting_place().join("jobs").join(format!("{name}.lock"))
    }
}
