//! Who is told how jobs stand: what there is to tell ([`event`], pure), how it is said ([`message`], pure), what keeps it
//! until somebody took it ([`outbox`]), and how it gets there ([`send`]).
//!
//! Kept true: a message is durable before anything counts as told, and stays until its channel took it; a channel that is
//! broken keeps none of the others from theirs, and changes nothing about a backup.

pub mod event;
pub mod message;
pub mod outbox;
pub mod send;

use crate::config::{Config, Job, Kind, Means};
use crate::outcome::Outcome;
use crate::run::Report;
use crate::status::{Finding, JobStatus};
use message::{About, Body, Message};
use outbox::Outbox;
use std::io;

/// What is told of one job.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// Its name.
    pub name: &'a str,
    /// What is written of it.
    pub job: &'a Job,
    /// How it stands.
    pub status: &'a JobStatus,
    /// The run after which that is told, if one was.
    pub run: Option<&'a Report>,
}

/// Puts into the outbox what there is to tell of a job, for each of its channels. Gives how many messages that are.
///
/// # Errors
/// The outbox cannot be written; what was not put there is told next time.
pub fn tell(outbox: &Outbox, config: &Config, host: &str, now: i64, told: Told<'_>) -> io::Result<usize> {
    let channels =
        || told.job.notify.iter().filter_map(|at| Some((&at.value, config.channels.get(&at.value)?)));
    let held = outbox.hold()?;
    let mut made = 0;
    if let Some(report) = told.run {
        for (name, _) in channels().filter(|(_, c)| matches!(c.value.means, Means::Ping { .. })) {
            held.put(name, now, message::ping(told.name, report))?;
            made += 1;
        }
    }
    let mut status = told.status.clone();
    status.findings.extend(told.run.map(unseen(&status)).unwrap_or_default());
    let before = held.known(told.name);
    let (events, after) = event::derive(&before, &status.findings, now, told.run.is_some());
    let about = About { host, now, told: &told, status: &status };
    for event in &events {
        let takes = |c: &crate::config::Channel| {
            !matches!(c.means, Means::Ping { .. })
                && c.on.contains(&event.kind)
                && (event.is_open() || c.on.contains(&Kind::Recovered))
        };
        for (name, _) in channels().filter(|(_, channel)| takes(&channel.value)) {
            held.put(name, now, Body::Message(Box::new(Message::new(event, &about))))?;
            made += 1;
        }
    }
    if after != before {
        held.remember(told.name, &after)?;
    }
    Ok(made)
}

/// What went wrong in a run and is on no record, since it came after: that something was refused, or found no room.
fn unseen(status: &JobStatus) -> impl Fn(&Report) -> Vec<Finding> + '_ {
    |report| {
        let seen = |outcome: Outcome| status.findings.iter().any(|f| f.outcome == outcome);
        let mut out: Vec<Finding> = Vec::new();
        for (place, trouble) in &report.troubles {
            if seen(trouble.outcome) || seen(trouble.outcome.of_one()) {
                continue;
            }
            out.push(Finding {
                rule: event::OF_A_RUN,
                place: place.clone(),
                outcome: trouble.outcome,
                what: trouble.why.clone(),
                fix: format!("bulla run {}", status.job),
            });
        }
        out
    }
}
