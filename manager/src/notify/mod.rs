//! Who is told how jobs stand: what there is to tell ([`event`], pure), how it is said ([`message`], pure), what keeps it
//! until somebody took it ([`outbox`]), and how it gets there ([`send`]).
//!
//! Kept true: a message is durable before anything counts as told, and stays until its channel took it; a channel that is
//! broken keeps none of the others from theirs, and changes nothing about a backup.

pub mod event;
pub mod message;
pub mod outbox;
pub mod send;

use crate::config::{Channel, Config, Job, Kind, Means};
use crate::outcome::Outcome;
use crate::run::Report;
use crate::status::{Finding, JobStatus};
use event::Event;
use message::{About, Body, Message};
use outbox::Outbox;
use std::collections::BTreeMap;
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
    // Once each, however often a job names them.
    let named = told.job.notify.iter().map(|at| &at.value);
    let channels: BTreeMap<&String, &Channel> =
        named.filter_map(|name| Some((name, &config.channels.get(name)?.value))).collect();
    let held = outbox.hold()?;
    let mut made = 0;
    if let Some(report) = told.run {
        for (name, _) in channels.iter().filter(|(_, channel)| is_ping(channel)) {
            held.put(name, now, message::ping(told.name, report))?;
            made += 1;
        }
    }
    let mut status = told.status.clone();
    status.findings.extend(told.run.into_iter().flat_map(|report| unseen(told.status, report)));
    status.findings.extend(dead(outbox, channels.keys().copied(), now)?);
    let before = held.known(told.name);
    let (events, after) = event::derive(&before, &status.findings, now, told.run.is_some());
    let about = About { host, now, told: &told, status: &status };
    for event in &events {
        // A channel is not told of itself.
        let itself = |name: &String| event.problem.rule == DEAD && event.problem.place.as_ref() == Some(name);
        for (name, _) in channels.iter().filter(|(name, channel)| takes(channel, event) && !itself(name)) {
            held.put(name, now, Body::Message(Box::new(Message::new(event, &about))))?;
            made += 1;
        }
    }
    if after != before {
        held.remember(told.name, &after)?;
    }
    Ok(made)
}

fn is_ping(channel: &Channel) -> bool {
    matches!(channel.means, Means::Ping { .. })
}

/// Whoever wants to know of a problem, and of ends, is told of its end.
fn takes(channel: &Channel, event: &Event) -> bool {
    let ends = event.is_open() || channel.on.contains(&Kind::Recovered);
    !is_ping(channel) && channel.on.contains(&event.kind) && ends
}

/// The rule of channels that take nothing; the others are told.
const DEAD: &str = "channel";
/// For so many seconds.
const DEAD_AFTER: i64 = 3600;

fn dead<'n>(
    outbox: &Outbox,
    channels: impl Iterator<Item = &'n String>,
    now: i64,
) -> io::Result<impl Iterator<Item = Finding>> {
    let lines = outbox.lines(channels)?.into_iter();
    Ok(lines
        .filter(move |line| line.since.is_some_and(|since| now.saturating_sub(since) >= DEAD_AFTER))
        .filter_map(|line| {
            let (what, fix) = (line.complaint()?, format!("bulla notify --test {}", line.channel));
            let place = Some(line.channel);
            Some(Finding { rule: DEAD, place, outcome: Outcome::Failed, what, fix, evidence: None })
        }))
}

/// What went wrong in a run and is on no record, since it came after: that something was refused, or found no room.
fn unseen(status: &JobStatus, report: &Report) -> Vec<Finding> {
    let seen = |outcome: Outcome| status.findings.iter().any(|f| f.outcome == outcome);
    let new = report.troubles.iter().filter(|(_, t)| !seen(t.outcome) && !seen(t.outcome.of_one()));
    new.map(|(place, trouble)| Finding {
        rule: event::OF_A_RUN,
        place: place.clone(),
        outcome: trouble.outcome,
        what: trouble.why.clone(),
        fix: format!("bulla run {}", status.job),
        evidence: None,
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;
    use crate::status::{Facts, judge};

    const TEXT: &str = "[destination.disk]\nurl = \"/b\"\nkey = { file = \"/k\" }\n\
        [job.home]\nsource = { paths = [\"/srv\"] }\nto = [\"disk\"]\nnotify = [\"a\", \"b\", \"c\"]\n\
        [notify.a]\nwebhook = { url = \"https://h/\", hmac = { file = \"/h\" } }\n\
        [notify.b]\nwebhook = { url = \"https://h/\", hmac = { file = \"/h\" } }\n\
        [notify.c]\nwebhook = { url = \"https://h/\", hmac = { file = \"/h\" } }\non = [\"drill\"]\n";

    /// Tells of a job that has never run; what its channels then take, where `broken` takes nothing.
    fn told(outbox: &Outbox, now: i64, broken: &str) -> Vec<String> {
        let config = Config::read(&[File { path: "c.toml".into(), text: TEXT.into() }]).config;
        let job = &config.jobs["home"].value;
        let status = judge(&config, "home", job, "h", &Facts::default(), now);
        tell(outbox, &config, "h", now, Told { name: "home", job, status: &status, run: None }).unwrap();
        let mut out = Vec::new();
        let held = outbox.hold().unwrap();
        held.flush(now, true, |channel, body| {
            if channel == broken {
                return Some(Err("no route".to_owned()));
            }
            if let Body::Message(m) = body {
                out.push(format!("{channel} {} {}", m.event, m.rule));
            }
            Some(Ok(()))
        })
        .unwrap();
        out
    }

    #[test]
    fn channels_get_what_they_want_and_the_others_hear_of_a_dead_one() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path().join("outbox"));
        let begun = ["b unproven drill-never", "b unproven never-run", "b unproven unproven"];
        assert_eq!(told(&outbox, 1000, "a"), begun);
        assert_eq!(told(&outbox, 2000, "a"), [""; 0]);
        assert_eq!(told(&outbox, 1000 + DEAD_AFTER, "a"), ["b failure channel"]);
        assert_eq!(told(&outbox, 6000, "a"), [""; 0]);
        // It works again: what waited comes, and its end is told.
        assert_eq!(told(&outbox, 7000, ""), begun.map(|text| text.replace("b ", "a ")));
        assert_eq!(told(&outbox, 8000, ""), ["b recovered channel"]);
    }
}
