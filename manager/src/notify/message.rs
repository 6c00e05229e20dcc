//! How it is said: one message for programs (JSON) and for people (a subject and a text), the same facts in both. Pure.
//!
//! Kept true: every text from outside is escaped when the message is made, so none can forge a line, wherever it is shown;
//! no secret is in it, since none is in a status.

use super::Told;
use super::event::Event;
use crate::config::{Class, Length};
use crate::run::Report;
use crate::status::JobStatus;
use bulla_engine::observer::escape;
use serde::{Deserialize, Serialize};

/// More than this nobody reads in a subject, in characters.
const SUBJECT_MAX: usize = 160;
/// Nor more findings or errors than these.
const LINES_MAX: usize = 50;
/// Nor longer ones, in characters.
const LINE_MAX: usize = 2000;

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// Something to tell, to people or programs.
    Message(Box<Message>),
    /// A run has ended.
    Ping {
        /// How, as an exit code.
        exit: u8,
        /// In a line.
        text: String,
    },
}

/// What is said in place of what was too long.
const LEFT_OUT: &str = "there is more, which is too long to be sent: see bulla status";

impl Body {
    /// Leaves out of it what makes it longer than so many bytes of JSON: lists lose their ends.
    pub fn fit(&mut self, most: usize) {
        let mut cut = false;
        while serde_json::to_vec(self).is_ok_and(|text| text.len() > most) && self.halve() {
            cut = true;
        }
        match self {
            Self::Message(m) if cut => m.errors.push(LEFT_OUT.to_owned()),
            Self::Ping { text, .. } if cut => text.push('…'),
            _ => {}
        }
    }

    /// True if there was something to leave out.
    fn halve(&mut self) -> bool {
        match self {
            Self::Message(m) => {
                let before = m.findings.len() + m.errors.len() + m.commands.len();
                m.findings.truncate(m.findings.len() / 2);
                m.errors.truncate(m.errors.len() / 2);
                m.commands.truncate(m.commands.len() / 2);
                before > 0
            }
            Self::Ping { text, .. } => {
                let before = text.len();
                text.truncate(text.floor_char_boundary(before / 2));
                before > 0
            }
        }
    }
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The exit code that it stands for.
    pub exit: u8,
    /// Its rule.
    pub rule: String,
    /// The destination that it is about.
    pub destination: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to type.
    pub fix: String,
}

/// A message; its JSON is what a webhook gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// `notification`.
    pub message_type: String,
    /// Of the JSON.
    pub schema_version: u32,
    /// The same each time this message is sent: what came twice can be told from it.
    pub id: String,
    /// `failure`, `missed`, … or `recovered`.
    pub event: String,
    /// What it is about; for `recovered` what is over.
    pub about: String,
    /// `error`, `warning`, `notice`.
    pub severity: String,
    /// It was told before and goes on.
    pub goes_on: bool,
    /// The job.
    pub job: String,
    /// What people call it.
    pub system: Option<String>,
    /// How much depends on it.
    pub class: String,
    /// Whom to ask.
    pub owner: Option<String>,
    /// The host that is backed up.
    pub host: String,
    /// The destination that it is about.
    pub destination: Option<String>,
    /// In a sentence.
    pub summary: String,
    /// The rule that says so.
    pub rule: String,
    /// The exit code that it stands for.
    pub exit: u8,
    /// When this was found, RFC 3339.
    pub time: String,
    /// When the problem was first seen.
    pub first_seen: String,
    /// How often it was told, with this.
    pub count: u64,
    /// The same for all that is told of one problem of one job on one host.
    pub dedup_key: String,
    /// The run after which it was found.
    pub run_id: Option<String>,
    /// How old the newest proven backup is.
    pub rpo_seconds: Option<i64>,
    /// How old it may be.
    pub rpo_objective_seconds: Option<i64>,
    /// How long a restore takes.
    pub rto_seconds: Option<u64>,
    /// How long it may take.
    pub rto_objective_seconds: Option<i64>,
    /// When the next run is due.
    pub next_due: Option<String>,
    /// What is wrong.
    pub findings: Vec<Line>,
    /// What went wrong in the run.
    pub errors: Vec<String>,
    /// What to type.
    pub commands: Vec<String>,
}

/// What a message says besides its event.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The host that is backed up.
    pub host: &'a str,
    /// Now, in seconds.
    pub now: i64,
    /// The job.
    pub told: &'a Told<'a>,
    /// How it stands, with what only its run shows.
    pub status: &'a JobStatus,
}

const fn class(class: Class) -> &'static str {
    match class {
        Class::Standard => "standard",
        Class::Important => "important",
        Class::Critical => "critical",
    }
}

fn shown(text: &str) -> String {
    let escaped = escape(text.as_bytes());
    match escaped.char_indices().nth(LINE_MAX) {
        None => escaped,
        Some((end, _)) => format!("{}…", escaped.get(..end).unwrap_or_default()),
    }
}

fn time(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |t| t.to_string())
}

/// The same for the same parts, and with another one another.
fn hash(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hash.finalize().to_hex().chars().take(32).collect()
}

impl Message {
    /// Says an event.
    pub fn new(event: &Event, about: &About<'_>) -> Self {
        let (told, status, p) = (about.told, about.status, &event.problem);
        let job = &told.job;
        let word = if event.is_open() { event.kind.word() } else { "recovered" };
        let severity = match (event.is_open(), p.exit) {
            (false, _) => "notice",
            (_, 3 | 6 | 7 | 11 | 130) => "warning",
            _ => "error",
        };
        let findings: Vec<Line> = event
            .findings
            .iter()
            .take(LINES_MAX)
            .map(|f| Line {
                exit: f.outcome.code(),
                rule: f.rule.to_owned(),
                destination: f.place.as_deref().map(shown),
                message: shown(&f.what),
                fix: shown(&f.fix),
            })
            .collect();
        let mut commands: Vec<String> = Vec::new();
        for line in &findings {
            if !commands.contains(&line.fix) {
                commands.push(line.fix.clone());
            }
        }
        let errors = told.run.into_iter().filter(|_| event.is_open()).flat_map(|run| &run.troubles);
        let errors = errors.take(LINES_MAX).map(|(place, trouble)| match place {
            Some(place) => shown(&format!("{place}: {}", trouble.why)),
            None => shown(&trouble.why),
        });
        let (count, first) = (p.count.to_string(), p.first_seen.to_string());
        Self {
            message_type: "notification".to_owned(),
            schema_version: 1,
            id: hash(&["id", about.host, told.name, &event.key, word, &first, &count]),
            event: word.to_owned(),
            about: event.kind.word().to_owned(),
            severity: severity.to_owned(),
            goes_on: event.goes_on(),
            job: shown(told.name),
            system: job.system.as_ref().map(|at| shown(&at.value)),
            class: class(job.class).to_owned(),
            owner: job.owner.as_ref().map(|at| shown(&at.value)),
            host: shown(about.host),
            destination: p.place.as_deref().map(shown),
            summary: shown(&p.what),
            rule: p.rule.clone(),
            exit: p.exit,
            time: time(about.now),
            first_seen: time(p.first_seen),
            count: p.count,
            dedup_key: hash(&["key", about.host, told.name, &event.key]),
            run_id: told.run.map(|run| run.run.run.to_string()),
            rpo_seconds: status.rpo,
            rpo_objective_seconds: status.rpo_objective,
            rto_seconds: status.rto.map(|(seconds, _)| seconds),
            rto_objective_seconds: status.rto_objective,
            next_due: status.next_due.map(time),
            findings,
            errors: errors.collect(),
            commands,
        }
    }

    /// What a channel is tried with.
    pub fn sample(host: &str, channel: &str, now: i64) -> Self {
        let text = "this is a test: who reads it would be told if a backup failed";
        Self {
            message_type: "notification".to_owned(),
            schema_version: 1,
            id: hash(&["test", host, channel, &now.to_string()]),
            event: "test".to_owned(),
            about: "test".to_owned(),
            severity: "notice".to_owned(),
            goes_on: false,
            job: "none".to_owned(),
            system: None,
            class: "standard".to_owned(),
            owner: None,
            host: shown(host),
            destination: None,
            summary: text.to_owned(),
            rule: "test".to_owned(),
            exit: 0,
            time: time(now),
            first_seen: time(now),
            count: 1,
            dedup_key: hash(&["test", host, channel]),
            run_id: None,
            rpo_seconds: None,
            rpo_objective_seconds: None,
            rto_seconds: None,
            rto_objective_seconds: None,
            next_due: None,
            findings: Vec::new(),
            errors: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// In a line.
    pub fn subject(&self) -> String {
        let still = if self.goes_on { "still " } else { "" };
        let text = format!("[bulla] {} on {}: {still}{}: {}", self.job, self.host, self.event, self.summary);
        text.chars().take(SUBJECT_MAX).collect()
    }

    /// In lines.
    pub fn text(&self) -> String {
        let system = self.system.as_ref().map_or_else(String::new, |s| format!(" ({s}, {})", self.class));
        let mut out = format!("{}{system} on {}: {}\n\n", self.job, self.host, self.event);
        if self.findings.is_empty() {
            let over = if self.event == "recovered" { "over: " } else { "" };
            out.push_str(&format!("{over}{}\n", self.summary));
        }
        for line in &self.findings {
            out.push_str(&format!("{}\n  → {}\n", line.message, line.fix));
        }
        if !self.errors.is_empty() {
            out.push_str("\nThe run said:\n");
        }
        for error in &self.errors {
            out.push_str(&format!("  {error}\n"));
        }
        out.push('\n');
        let length = |seconds: i64| Length::of_seconds(seconds.max(1)).to_string();
        if let Some(rpo) = self.rpo_seconds {
            let may = self
                .rpo_objective_seconds
                .map_or_else(String::new, |may| format!(", may be {}", length(may)));
            out.push_str(&format!("Newest proven backup: {} old{may}\n", length(rpo)));
        }
        if let Some(due) = &self.next_due {
            out.push_str(&format!("Next run due: {due}\n"));
        }
        if self.event != "test" {
            out.push_str(&format!("First seen: {}; told {}\n", self.first_seen, times(self.count)));
        }
        if let Some(owner) = &self.owner {
            out.push_str(&format!("Owner: {owner}\n"));
        }
        out
    }
}

fn times(count: u64) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// What a dead man's switch is told at the end of a run.
pub fn ping(job: &str, report: &Report) -> Body {
    let mut text = format!("{}: {}", shown(job), report.outcome.word());
    for (place, trouble) in report.troubles.iter().take(LINES_MAX) {
        let place = place.as_ref().map_or_else(String::new, |p| format!("{p}: "));
        text.push_str(&format!("\n{}", shown(&format!("{place}{}", trouble.why))));
    }
    Body::Ping { exit: report.outcome.code(), text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, File};
    use crate::notify::event::{Known, derive};
    use crate::outcome::Outcome;
    use crate::status::{Facts, judge};

    const JOB: &str = "[destination.disk]\nurl = \"/mnt/b\"\nkey = { file = \"/k\" }\n\
        [job.home]\nsystem = \"Homes\\u001b[2J\\r\\nBcc: x@y\"\nrpo = \"1d\"\nsource = { paths = [\"/srv\"] }\nto = [\"disk\"]\n";

    /// A message of a job that has never run, with a finding of this text.
    fn message(what: &str) -> Message {
        let read = Config::read(&[File { path: "c.toml".into(), text: JOB.into() }]);
        let job = &read.config.jobs["home"].value;
        let mut status = judge(&read.config, "home", job, "h", &Facts::default(), 1000);
        status.findings.retain(|f| f.rule == "never-run");
        status.findings[0].what = what.to_owned();
        status.findings[0].outcome = Outcome::Failed;
        let told = Told { name: "home", job, status: &status, run: None };
        let (events, _) = derive(&Known::new(), &status.findings, 1000, false);
        Message::new(&events[0], &About { host: "h\nx", now: 1000, told: &told, status: &status })
    }

    #[test]
    fn a_message_says_what_to_do() {
        let m = message("it broke");
        assert_eq!(m.subject(), "[bulla] home on h\\x0ax: failure: it broke");
        let text = m.text();
        assert!(text.contains("it broke\n  → bulla run home\n") && text.contains("told once\n"), "{text}");
        assert_eq!(
            (m.severity.as_str(), m.commands.as_slice()),
            ("error", &["bulla run home".to_owned()][..])
        );
        assert_eq!((m.time.as_str(), m.id.len()), ("1970-01-01T00:16:40Z", 32));
        let again: Message = serde_json::from_str(&serde_json::to_string(&m).unwrap()).unwrap();
        assert_eq!(again, m);
    }

    #[test]
    fn no_text_from_outside_forges_a_line() {
        let m = message("bad\r\nBcc: everybody@example.net\u{202e}\u{1b}[2J");
        for text in [m.subject(), m.system.clone().unwrap(), m.summary.clone()] {
            assert!(!text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text:?}");
        }
        assert!(m.text().lines().all(|l| !l.starts_with("Bcc")), "{}", m.text());
        let long = message(&"x".repeat(100_000));
        assert!(long.text().len() < 10_000 && long.subject().chars().count() == SUBJECT_MAX);
    }
}
