//! Who is told how jobs stand, on this machine: the outbox in its directory of state, channels with their own secrets, the
//! file for Prometheus. What there is to tell is the manager's ([`bulla_manager::notify`]).
//!
//! Kept true: whatever goes wrong here is a warning; how a backup ended is another matter.

use crate::commands::reported::{Hosts, Looked};
use crate::context::Context;
use crate::exit::Failure;
use crate::site::Site;
use crate::ui::progress::{Words, watch};
use bulla_engine::observer::escape;
use bulla_manager::config::{Channel, Config, Job, Means};
use bulla_manager::metrics::{self, Measured};
pub(crate) use bulla_manager::notify::outbox::Line;
use bulla_manager::notify::outbox::{Flushed, Outbox};
use bulla_manager::notify::send::Sender;
use bulla_manager::notify::{self, Told};
use bulla_manager::run::Report;
use bulla_manager::status::{Facts, JobStatus, judge};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const WORDS: Words = Words { during: "check", list_is_result: false };

/// How jobs stand, and what that was judged by.
pub(crate) struct Judged {
    pub(crate) facts: Facts,
    /// In the order in which they were asked for.
    pub(crate) jobs: Vec<JobStatus>,
    /// When, in seconds.
    pub(crate) now: i64,
    host: String,
}

impl Judged {
    /// Reads what is on record and judges it.
    pub(crate) fn of(context: &Context<'_>, config: &Config, names: &[String]) -> Self {
        Self::of_hosts(context, config, names, Hosts::Own)
    }

    /// The same of the jobs of other hosts.
    pub(crate) fn of_hosts(
        context: &Context<'_>,
        config: &Config,
        names: &[String],
        hosts: Hosts<'_>,
    ) -> Self {
        watch(context.ui, WORDS, |observer| {
            let site = Site::new(context, config, observer, false);
            let mut looked = Looked::at(context, &site, config, names, hosts);
            let (now, subjects) = (looked.now, looked.subjects(config, names, hosts));
            let jobs = looked.each(&subjects, |facts, s| judge(config, s.name, s.job, &s.host, facts, now));
            let host = if let Hosts::One(host) = hosts { host.to_owned() } else { context.host() };
            Self { facts: looked.facts, jobs, now, host }
        })
    }

    /// The same of all jobs where there is a file for Prometheus, which is of all.
    pub(crate) fn for_all(context: &Context<'_>, config: &Config, names: &[String]) -> Self {
        if config.host.metrics.is_none() {
            return Self::of(context, config, names);
        }
        let all: Vec<String> = config.jobs.keys().cloned().collect();
        Self::of(context, config, &all)
    }

    /// Writes the file for Prometheus.
    pub(crate) fn measure(&self, context: &Context<'_>, config: &Config, path: &Path) {
        let channels = lines(context, config);
        let (facts, jobs, host, now) = (&self.facts, &self.jobs, &self.host, self.now);
        let text = metrics::text(&Measured { config, facts, jobs, channels: &channels, host, now });
        if let Err(e) = metrics::write(path, &text) {
            context.ui.warn(&format!("the metrics cannot be written to {}: {e}", path.display()));
        }
    }

    /// Writes it where the configuration says, if it does.
    pub(crate) fn measure_all(&self, context: &Context<'_>, config: &Config) {
        if let Some(path) = &config.host.metrics {
            self.measure(context, config, Path::new(&path.value));
        }
    }

    /// Puts into the outbox what there is to tell of some of them.
    pub(crate) fn tell(
        &self,
        context: &Context<'_>,
        config: &Config,
        names: &[String],
        run: Option<&Report>,
    ) -> usize {
        let Some(outbox) = outbox(context) else {
            context.ui.warn("nobody is told: there is no directory for state (--no-cache, or no HOME)");
            return 0;
        };
        let mut made = 0;
        for status in self.jobs.iter().filter(|status| names.contains(&status.job)) {
            let Some(job) = config.jobs.get(&status.job).filter(|job| !job.value.notify.is_empty()) else {
                continue;
            };
            let told = Told { name: &status.job, job: &job.value, status, run };
            match notify::tell(&outbox, config, &self.host, self.now, told) {
                Ok(n) => made += n,
                Err(e) => context.ui.warn(&shown(&format!("job {}: nobody could be told: {e}", status.job))),
            }
        }
        made
    }
}

fn shown(text: &str) -> String {
    escape(text.as_bytes())
}

fn outbox(context: &Context<'_>) -> Option<Outbox> {
    context.state_dir().map(|dir| Outbox::new(dir.join("notify")))
}

/// How channels do.
pub(crate) fn lines(context: &Context<'_>, config: &Config) -> Vec<Line> {
    let Some(outbox) = outbox(context) else { return Vec::new() };
    outbox.lines(config.channels.keys()).unwrap_or_else(|e| {
        context.ui.warn(&format!("what waits to be told cannot be read: {e}"));
        Vec::new()
    })
}

/// Tells dead man's switches that a run begins.
pub(crate) fn begin(context: &Context<'_>, config: &Config, job: &Job) {
    let named = job.notify.iter().filter_map(|at| Some((&at.value, &config.channels.get(&at.value)?.value)));
    for (name, channel) in named.filter(|(_, channel)| matches!(channel.means, Means::Ping { .. })) {
        if let Err(why) = post(context).and_then(|post| post.sender().begin(channel)) {
            context.ui.warn(&shown(&format!("channel {name} was not told that the run begins: {why}")));
        }
    }
}

/// After a run of a job, or something else that changed how it stands: tells what there is to tell of it, sends what waits,
/// and writes the file for Prometheus, which is of all jobs.
pub(crate) fn follow(context: &Context<'_>, config: &Config, name: &str, run: Option<&Report>) {
    let tells = config.jobs.get(name).is_some_and(|job| !job.value.notify.is_empty());
    if !tells && config.host.metrics.is_none() {
        return;
    }
    let one = [name.to_owned()];
    let judged = Judged::for_all(context, config, &one);
    if tells {
        judged.tell(context, config, &one, run);
        flush(context, config, false);
    }
    judged.measure_all(context, config);
}

/// What sending takes.
struct Post {
    host: String,
    now: i64,
    authorities: Option<Vec<u8>>,
}

fn post(context: &Context<'_>) -> Result<Post, String> {
    let read = |path: PathBuf| std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()));
    let authorities = context.authorities().map(read).transpose()?;
    Ok(Post { host: context.host(), now: context.env().clock.now().seconds, authorities })
}

impl Post {
    fn sender(&self) -> Sender<'_> {
        Sender { host: &self.host, now: self.now, authorities: self.authorities.as_deref() }
    }
}

/// A channel's secret, if it has one.
fn secret(context: &Context<'_>, channel: &Channel) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
    let read = |place| crate::secret::of_channel(context, place);
    channel
        .secret()
        .map(|at| read(&at.value))
        .transpose()
        .map_err(|failure: Failure| failure.said().map_or_else(String::new, |said| said.message))
}

/// Sends what waits and is due, or with `all` everything; what could not be sent is a warning.
pub(crate) fn flush(context: &Context<'_>, config: &Config, all: bool) -> Flushed {
    let Some(outbox) = outbox(context) else { return Flushed::default() };
    let sent = post(context).and_then(|post| {
        let mut secrets = BTreeMap::new();
        let held = outbox.hold().map_err(|e| e.to_string())?;
        let flushed = held.flush(post.now, all, |name, body| {
            let channel = &config.channels.get(name)?.value;
            let secret = secrets.entry(name.to_owned()).or_insert_with(|| secret(context, channel));
            Some(match secret {
                Ok(secret) => post.sender().send(channel, body, secret.as_ref().map(|s| s.as_slice())),
                Err(why) => Err(why.clone()),
            })
        });
        flushed.map_err(|e| e.to_string())
    });
    let flushed = sent.unwrap_or_else(|why| {
        context.ui.warn(&shown(&format!("what there is to tell could not be sent: {why}")));
        Flushed::default()
    });
    for (channel, why) in &flushed.failed {
        context.ui.warn(&shown(&format!("channel {channel}: {why}; it is tried again later")));
    }
    for path in &flushed.strange {
        context.ui.warn(&format!("{} holds no message", path.display()));
    }
    flushed
}

/// Tries a channel now, whatever waits.
pub(crate) fn test(context: &Context<'_>, name: &str, channel: &Channel) -> Result<(), String> {
    let secret = secret(context, channel)?;
    post(context)?.sender().test(name, channel, secret.as_ref().map(|s| s.as_slice()))
}
