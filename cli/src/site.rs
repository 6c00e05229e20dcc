//! This machine as the manager sees it: destinations of the configuration opened with their own secrets, commands run
//! without ours, jobs kept from running twice at a time.

use crate::context::Context;
use crate::exit::{Failure, Outcome, Said};
use bulla_backends::location::Location;
use bulla_engine::env::Env;
use bulla_engine::observer::Observer;
use bulla_engine::repository::Repository;
use bulla_manager::compliance::Domain;
use bulla_manager::config::{Config, Destination, Job, JobSource};
use bulla_manager::outcome;
use bulla_manager::world::{Trouble, World};
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;

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
    pub(crate) fn domain_of(&self, name: &str) -> Domain {
        let Ok(location) = self.destination(name).and_then(location) else { return Domain::Unknown };
        let host = match location {
            Location::Local(path) => return disk_of(&path),
            Location::Sftp { host, .. } => Some(host),
            Location::S3 { endpoint, .. } => endpoint.host_str().map(str::to_owned),
            Location::Rest(url) => url.host_str().map(str::to_owned),
            Location::Rclone(remote) => remote.split_once(':').map(|(name, _)| name.to_owned()),
        };
        let own = [crate::context::machine(), "localhost".into(), "127.0.0.1".into(), "[::1]".into()];
        match host {
            Some(host) if own.contains(&host) || host.is_empty() => Domain::Here,
            Some(host) => Domain::Host(host),
            None => Domain::Unknown,
        }
    }

    /// What the source of a job lies on; where what a command prints comes from nobody can say.
    pub(crate) fn domains_of_source(&self, job: &Job) -> Vec<Domain> {
        match &job.source.value {
            JobSource::Paths { paths, .. } => {
                paths.iter().map(|path| disk_of(std::path::Path::new(&path.value))).collect()
            }
            JobSource::Command { .. } => vec![Domain::Here],
        }
    }

    fn open_one(&self, name: &str, fresh: bool) -> Outcome<Repository> {
        let destination = self.destination(name)?;
        let location = location(destination)?;
        let store = self.context.store_at(&location, &destination.options)?.backend();
        let found = Repository::find(self.context.limited(store))?;
        let secret = crate::secret::of_destination(self.context, destination)?;
        let mut env = self.env.clone();
        env.cache = self.context.cache_dir();
        // Copies of a distant store's metadata prove nothing of the store.
        env.fresh = fresh;
        Ok(found.open(&secret, env)?)
    }
}

/// The disk that a path lies on: a partition's is the whole one, and what is mapped onto one disk lies on that. What has no
/// device of its own (a network, several disks) is a domain by its number.
fn disk_of(path: &std::path::Path) -> Domain {
    let Ok(m) = std::fs::metadata(path) else { return Domain::Unknown };
    let mut device = m.dev();
    for _ in 0..8 {
        let at = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let Ok(dir) = std::fs::canonicalize(at) else { break };
        let below = match std::fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten().next() {
            Some(slave) => slave.path(),
            None if dir.join("partition").exists() => dir.join(".."),
            None => break,
        };
        let number = std::fs::read_to_string(below.join("dev")).unwrap_or_default();
        let parsed =
            number.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        let Some((major, minor)) = parsed else { break };
        device = rustix::fs::makedev(major, minor);
    }
    Domain::Disk(device)
}

fn location(destination: &Destination) -> Outcome<Location> {
    Location::parse(&OsString::from(&destination.url.value)).map_err(Failure::Usage)
}

fn trouble(said: Option<Said>) -> Trouble {
    let Some(said) = said else {
        return Trouble { outcome: outcome::Outcome::Failed, why: "nobody reads the output".to_owned() };
    };
    let hint = said.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
    Trouble { outcome: outcome::Outcome::of(said.code as u64), why: format!("{}{hint}", said.message) }
}

impl World for Site<'_> {
    fn open(&self, destination: &str, fresh: bool) -> Result<Repository, Trouble> {
        self.open_one(destination, fresh).map_err(|failure| trouble(failure.said()))
    }

    fn judge(&self, error: &bulla_engine::Error) -> Trouble {
        trouble(Said::of(error))
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
            let _ = self.context.ui.line(format_args!("{name:<8} {what}"));
        }
    }
}

/// Holds a job's place: one process at a time runs it. Released when it is dropped, or the process dies.
pub(crate) struct Turn(#[allow(dead_code, reason = "the lock is held as long as the file is open")] File);

impl Turn {
    /// Takes it; `None` if another process has it.
    pub(crate) fn take(context: &Context<'_>, job: &str) -> Outcome<Option<Self>> {
        let Some(dir) = context.state_dir() else {
            return Err(Failure::Usage("there is no directory for state: set HOME or XDG_STATE_HOME".into()));
        };
        let dir = dir.join("jobs");
        std::fs::create_dir_all(&dir).map_err(|e| bulla_engine::Error::io("create", &dir, e))?;
        let path = dir.join(format!("{}.lock", bulla_engine::format::id::to_hex(job.as_bytes())));
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| bulla_engine::Error::io("open", &path, e))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(bulla_engine::Error::io("lock", &path, e).into()),
        }
    }
}
