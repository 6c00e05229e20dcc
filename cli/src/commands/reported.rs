//! What reports on jobs share: which jobs of which hosts are meant, and what is on record of them. Any machine with the keys
//! reports on the jobs of all hosts.

use super::config::ConfigArgs;
use crate::context::Context;
use crate::exit::Outcome;
use crate::site::Site;
use bulla_manager::compliance::{self, Compliance};
use bulla_manager::config::{Config, Job};
use bulla_manager::outcome::Outcome as Ended;
use bulla_manager::status::{self, Facts, JobStatus};
use bulla_manager::world;
use serde::Serialize;

/// What reports take.
#[derive(Debug, clap::Args)]
pub(crate) struct ReportArgs {
    /// Only these jobs
    #[arg(value_name = "JOB")]
    jobs: Vec<String>,
    /// Those that this host runs [BULLA_HOST, default: this machine]
    #[arg(long, value_name = "NAME", conflicts_with = "all_hosts")]
    host: Option<String>,
    /// Those of all hosts that are on record in the destinations
    #[arg(long)]
    all_hosts: bool,
    #[command(flatten)]
    config: ConfigArgs,
}

/// Which hosts are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hosts<'a> {
    /// The one that this machine is.
    Own,
    /// This one.
    One(&'a str),
    /// All that are on record.
    All,
}

/// A job of a host.
pub(crate) struct Subject<'a> {
    /// Its name.
    pub(crate) name: &'a String,
    /// What is written of it here.
    pub(crate) job: &'a Job,
    /// The host.
    pub(crate) host: String,
}

impl ReportArgs {
    /// The configuration, and the jobs by name: those that were typed, or all.
    pub(crate) fn read(&self) -> Outcome<(Config, Vec<String>)> {
        let (config, _) = self.config.read()?.sound()?;
        let names =
            if self.jobs.is_empty() { config.jobs.keys().cloned().collect() } else { self.jobs.clone() };
        for name in &names {
            super::config::job(&config, name)?;
        }
        Ok((config, names))
    }

    /// Whose jobs.
    pub(crate) fn hosts(&self) -> Hosts<'_> {
        match &self.host {
            _ if self.all_hosts => Hosts::All,
            Some(host) => Hosts::One(host),
            None => Hosts::Own,
        }
    }

    /// What is judged of nothing, where everything is meant.
    pub(crate) fn unjudged(&self, facts: &Facts, config: &Config) -> Unjudged {
        if self.jobs.is_empty() && self.hosts() == Hosts::All {
            Unjudged::of(facts, config)
        } else {
            Unjudged::default()
        }
    }

    /// True if all jobs of this machine are meant, and nothing else.
    pub(crate) fn is_whole(&self) -> bool {
        self.jobs.is_empty() && self.hosts() == Hosts::Own
    }
}

/// What nothing can be said of when everything is asked for. It is not well: what is not known is not good.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Unjudged {
    /// Jobs on record that the configuration does not know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unknown: Vec<Unknown>,
    /// Destinations that no job here goes to and that cannot be read: nobody knows which jobs do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    unreadable: Vec<Unreadable>,
    #[serde(skip)]
    outcome: Ended,
}

#[derive(Debug, Serialize)]
struct Unknown {
    destination: String,
    host: String,
    job: String,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    destination: String,
    reason: String,
}

impl Unjudged {
    fn of(facts: &Facts, config: &Config) -> Self {
        let others = facts.others(config).into_iter();
        let unknown: Vec<_> =
            others.map(|(destination, host, job)| Unknown { destination, host, job }).collect();
        let mut outcome = if unknown.is_empty() { Ended::Done } else { Ended::Unproven };
        let goes =
            |place: &str| config.jobs.values().any(|job| job.value.to.iter().any(|to| to.value == place));
        let mut unreadable = Vec::new();
        for (place, holding) in facts.holdings.iter().filter(|(place, _)| !goes(place)) {
            if let Err(trouble) = holding {
                outcome = outcome.and(trouble.outcome.of_one());
                unreadable.push(Unreadable { destination: place.clone(), reason: trouble.why.clone() });
            }
        }
        Self { unknown, unreadable, outcome }
    }

    /// How that counts for the exit code.
    pub(crate) fn outcome(&self) -> Ended {
        self.outcome
    }

    /// In words, a line each.
    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        let unknown = self.unknown.iter().map(|Unknown { destination, host, job }| {
            format!("{job} of {host} is on record in {destination} and goes there by no job here: nothing is judged of it")
        });
        let unreadable = self.unreadable.iter().map(|Unreadable { destination, reason }| {
            format!("{destination} cannot be read, and what goes there is not known: {reason}")
        });
        unknown.chain(unreadable)
    }
}

/// Whose job is reported on, where there is one.
#[derive(Debug, clap::Args)]
pub(crate) struct HostArgs {
    /// That of this host [BULLA_HOST, default: this machine]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

impl HostArgs {
    /// Which.
    pub(crate) fn hosts(&self) -> Hosts<'_> {
        self.host.as_deref().map_or(Hosts::Own, Hosts::One)
    }
}

/// What is on record, and the time by which it is judged.
pub(crate) struct Looked {
    pub(crate) facts: Facts,
    pub(crate) now: i64,
    own: String,
}

impl Looked {
    /// Reads the destinations of these jobs; with all hosts, all there are.
    pub(crate) fn at(
        context: &Context<'_>,
        site: &Site<'_>,
        config: &Config,
        names: &[String],
        hosts: Hosts<'_>,
    ) -> Self {
        let facts = match hosts {
            Hosts::All => Facts::gather_from(site, config.destinations.keys()),
            Hosts::Own | Hosts::One(_) => Facts::gather(site, config, names),
        };
        Self { facts, now: world::now(site), own: context.host() }
    }

    /// The jobs that are meant, each with its host.
    pub(crate) fn subjects<'c>(
        &self,
        config: &'c Config,
        names: &'c [String],
        hosts: Hosts<'_>,
    ) -> Vec<Subject<'c>> {
        let mut out = Vec::new();
        for (name, job) in names.iter().filter_map(|name| Some((name, &config.jobs.get(name)?.value))) {
            let of = match hosts {
                Hosts::Own => vec![self.own.clone()],
                Hosts::One(host) => vec![host.to_owned()],
                Hosts::All => self.facts.hosts(name, job),
            };
            // What never ran anywhere has no host but this one.
            let of = if of.is_empty() { vec![self.own.clone()] } else { of };
            out.extend(of.into_iter().map(|host| Subject { name, job, host }));
        }
        out
    }

    /// Judges each of them, by what is written here only where it is this machine's.
    pub(crate) fn each<T>(
        &mut self,
        subjects: &[Subject<'_>],
        mut judge: impl FnMut(&Facts, &Subject<'_>) -> T,
    ) -> Vec<T> {
        let mut out = Vec::new();
        for subject in subjects {
            self.facts.foreign = subject.host != self.own;
            out.push(judge(&self.facts, subject));
        }
        out
    }

    /// The same with how each stands and complies. What the source of another host lies on nobody can say here, only that it
    /// is that host.
    pub(crate) fn each_judged<T>(
        &mut self,
        site: &Site<'_>,
        config: &Config,
        subjects: &[Subject<'_>],
        mut then: impl FnMut(&Facts, &Subject<'_>, (&JobStatus, &Compliance)) -> T,
    ) -> Vec<T> {
        let (now, own) = (self.now, self.own.clone());
        self.each(subjects, |facts, s| {
            let of = (config, s.name.as_str(), s.job);
            let status = status::judge(config, s.name, s.job, &s.host, facts, now);
            let here = s.host == own;
            let source = if here { site.domains_of_source(s.job) } else { site.domains_of_host(&s.host) };
            let place = |to: &str| site.domain_of(to);
            let rules = compliance::judge(of, facts, &status, &s.host, &source, &place, now);
            then(facts, s, (&status, &rules))
        })
    }
}

/// A job as people are told of it; with its host where several hosts are reported on, or another one.
pub(crate) fn named(job: &str, host: &str, hosts: Hosts<'_>) -> String {
    if hosts == Hosts::Own { job.to_owned() } else { format!("{job} of {host}") }
}
