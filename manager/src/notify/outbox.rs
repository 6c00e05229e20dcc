//! What keeps messages until somebody took them: one file for each message and channel, in a directory of this machine.
//!
//! Kept true: a file is there whole or not at all, and goes only when its channel took it, or when there are too many, which
//! is said; each channel gets its messages in their order; what cannot be read, or is somebody else's, is in nobody's way.
//! One process at a time changes anything.

use super::event::Known;
use super::message::Body;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// So many messages are kept; of more the oldest go.
pub const MOST: usize = 1000;
/// Longer than any message is.
const FILE_MAX: u64 = 1 << 20;
/// Longer than what is said in any.
const BODY_MAX: usize = 1 << 19;
/// How long is sent at a time; what is left waits for the next.
const BUDGET: Duration = Duration::from_secs(120);
/// The first pause after a failure, in seconds; each is twice the one before.
const PAUSE: i64 = 60;
/// The longest one.
const PAUSE_MAX: i64 = 3600;
/// How long another process is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory of messages.
#[derive(Debug, Clone)]
pub struct Outbox {
    dir: PathBuf,
    most: usize,
    budget: Duration,
}

/// An outbox that this process alone changes.
#[derive(Debug)]
pub struct Held<'a> {
    outbox: &'a Outbox,
    _lock: File,
}

/// A message that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Waiting {
    channel: String,
    /// When it was put here, in seconds.
    since: i64,
    attempts: u32,
    /// When it is tried next.
    next: i64,
    body: Body,
}

/// What is known of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub channel: String,
    /// When it took something last, in seconds.
    pub delivered: Option<i64>,
    /// Why it did not, if it did not lately.
    pub why: Option<String>,
    /// Messages that went undelivered because there were too many.
    pub dropped: u64,
    /// Messages that wait for it.
    #[serde(skip)]
    pub waiting: u64,
    /// Since when the oldest of them does.
    #[serde(skip)]
    pub since: Option<i64>,
}

impl Line {
    /// What people have to know of it, if there is something.
    pub fn complaint(&self) -> Option<String> {
        let mut said = Vec::new();
        if let (Some(since), Some(why)) = (self.since, &self.why) {
            let since = jiff::Timestamp::from_second(since).unwrap_or_default();
            said.push(format!("has not delivered since {since} ({} wait): {why}", self.waiting));
        }
        if self.dropped > 0 {
            said.push(format!("never got {} messages that were too many to keep", self.dropped));
        }
        (!said.is_empty()).then(|| format!("channel {} {}", self.channel, said.join(", and ")))
    }
}

/// What came of sending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Messages that were taken.
    pub sent: usize,
    /// Messages that still wait.
    pub waiting: usize,
    /// Channels that took nothing, each with the reason.
    pub failed: BTreeMap<String, String>,
    /// Files that held no message and were set aside.
    pub strange: Vec<PathBuf>,
}

impl Outbox {
    /// The one in this directory, which need not be there yet.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, most: MOST, budget: BUDGET }
    }

    fn messages(&self) -> PathBuf {
        self.dir.join("messages")
    }

    /// Names may be anything, names of files may not.
    fn file_of(&self, kind: &str, name: &str) -> PathBuf {
        let hash = blake3::hash(name.as_bytes()).to_hex();
        self.dir.join(kind).join(format!("{}.json", hash.get(..32).unwrap_or_default()))
    }

    /// Keeps all other processes out until it is dropped.
    ///
    /// # Errors
    /// The directory cannot be made, or another process has it for too long.
    pub fn hold(&self) -> io::Result<Held<'_>> {
        for dir in ["messages", "jobs", "channels"] {
            DirBuilder::new().recursive(true).mode(0o700).create(self.dir.join(dir))?;
        }
        let lock = File::options().create(true).truncate(false).write(true).open(self.dir.join("lock"))?;
        let begun = Instant::now();
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(Held { outbox: self, _lock: lock }),
                Err(TryLockError::Error(e)) => return Err(e),
                Err(TryLockError::WouldBlock) if begun.elapsed() > PATIENCE => {
                    return Err(io::Error::other("another process has been sending for a minute"));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    /// Files of messages, the oldest first. A missing directory holds none.
    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut out = Vec::new();
        let entries = match fs::read_dir(self.messages()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(out),
            entries => entries?,
        };
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".json"));
            let number = name.filter(|n| n.len() == NAME_DIGITS).and_then(|n| n.parse().ok());
            if let Some(number) = number.filter(|_| path.symlink_metadata().is_ok_and(|m| m.is_file())) {
                out.push((number, path));
            }
        }
        out.sort();
        Ok(out)
    }

    /// How the named channels do, without changing anything.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn lines<'n>(&self, channels: impl Iterator<Item = &'n String>) -> io::Result<Vec<Line>> {
        let mut lines: BTreeMap<String, Line> = BTreeMap::new();
        for name in channels {
            let line: Line = read(&self.file_of("channels", name)).unwrap_or_default();
            lines.insert(name.clone(), Line { channel: name.clone(), ..line });
        }
        for (_, path) in self.list()? {
            let Some(waiting) = read::<Waiting>(&path) else { continue };
            if let Some(line) = lines.get_mut(&waiting.channel) {
                line.waiting += 1;
                line.since = Some(line.since.map_or(waiting.since, |since| since.min(waiting.since)));
            }
        }
        Ok(lines.into_values().collect())
    }
}

/// Numbers in names of files, so that they sort.
const NAME_DIGITS: usize = 20;

impl Held<'_> {
    /// Puts a message there for a channel. Too many: the oldest goes, and its channel's line says so. Too long: it is cut.
    ///
    /// # Errors
    /// It is not there.
    pub fn put(&self, channel: &str, now: i64, mut body: Body) -> io::Result<()> {
        body.fit(BODY_MAX);
        let mut files = self.outbox.list()?;
        while files.len() >= self.outbox.most.max(1) {
            let (_, oldest) = files.remove(0);
            let lost = read::<Waiting>(&oldest);
            fs::remove_file(&oldest)?;
            if let Some(lost) = lost {
                self.note(&lost.channel, |line| line.dropped = line.dropped.saturating_add(1))?;
            }
        }
        // Numbers are times where clocks go on, and always go on.
        let last = files.last().map_or(0, |(number, _)| *number);
        let number = last.saturating_add(1).max(u64::try_from(now).unwrap_or(0));
        let name = format!("{number:0width$}.json", width = NAME_DIGITS);
        let waiting = Waiting { channel: channel.to_owned(), since: now, attempts: 0, next: now, body };
        write(&self.outbox.messages().join(name), &waiting)
    }

    /// What was told of a job and is not over; nothing if that was lost, and then it is told again.
    pub fn known(&self, job: &str) -> Known {
        read(&self.outbox.file_of("jobs", job)).unwrap_or_default()
    }

    /// Remembers it.
    ///
    /// # Errors
    /// It is not remembered, and will be told again.
    pub fn remember(&self, job: &str, known: &Known) -> io::Result<()> {
        write(&self.outbox.file_of("jobs", job), known)
    }

    fn note(&self, channel: &str, change: impl FnOnce(&mut Line)) -> io::Result<()> {
        let path = self.outbox.file_of("channels", channel);
        let mut line: Line = read(&path).unwrap_or_default();
        let before = line.clone();
        channel.clone_into(&mut line.channel);
        change(&mut line);
        if line == before { Ok(()) } else { write(&path, &line) }
    }

    /// Sends what is due, or with `all` whatever waits: each channel's messages in their order, until one is not taken. What
    /// is for channels that `send` does not know (it gives `None`) stays, and what is not begun after two minutes.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn flush(
        &self,
        now: i64,
        all: bool,
        mut send: impl FnMut(&str, &Body) -> Option<Result<(), String>>,
    ) -> io::Result<Flushed> {
        let (mut out, mut stuck, begun) = (Flushed::default(), BTreeSet::new(), Instant::now());
        for (_, path) in self.outbox.list()? {
            let Some(mut waiting) = read::<Waiting>(&path) else {
                let aside = path.with_extension("strange");
                if fs::rename(&path, &aside).is_ok() {
                    out.strange.push(aside);
                }
                continue;
            };
            out.waiting += 1;
            if stuck.contains(&waiting.channel) || begun.elapsed() >= self.outbox.budget {
                continue;
            }
            // A pause that is longer than any was set by a clock that was wrong.
            let early = waiting.next > now && waiting.next.saturating_sub(now) <= PAUSE_MAX;
            if early && !all {
                stuck.insert(waiting.channel);
                continue;
            }
            let channel = waiting.channel.clone();
            let kept = match send(&channel, &waiting.body) {
                None => {
                    stuck.insert(channel);
                    continue;
                }
                Some(Ok(())) => fs::remove_file(&path).and_then(|()| {
                    (out.waiting, out.sent) = (out.waiting - 1, out.sent + 1);
                    self.note(&channel, |line| (line.delivered, line.why) = (Some(now), None))
                }),
                Some(Err(why)) => {
                    let pause = PAUSE.saturating_mul(1 << waiting.attempts.min(10)).min(PAUSE_MAX);
                    waiting.next = now.saturating_add(pause);
                    waiting.attempts = waiting.attempts.saturating_add(1);
                    stuck.insert(channel.clone());
                    out.failed.insert(channel.clone(), why.clone());
                    write(&path, &waiting).and_then(|()| self.note(&channel, |line| line.why = Some(why)))
                }
            };
            // A disk that is full stops this channel, and none of the others.
            if let Err(e) = kept {
                stuck.insert(channel.clone());
                out.failed
                    .entry(channel)
                    .or_insert_with(|| format!("what waits for it cannot be changed: {e}"));
            }
        }
        Ok(out)
    }
}

/// What a file holds, if that can be read and is what it should be.
fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let file = File::open(path).ok()?;
    let mut text = Vec::new();
    file.take(FILE_MAX).read_to_end(&mut text).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Whole and durable, or not at all.
fn write(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
    file.write_all(&serde_json::to_vec(value)?)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|e| e.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::message::{self, Message};
    use proptest::prelude::*;

    fn body(n: usize) -> Body {
        Body::Ping { exit: 0, text: n.to_string() }
    }

    fn text(body: &Body) -> &str {
        match body {
            Body::Ping { text, .. } => text,
            Body::Message(m) => &m.summary,
        }
    }

    fn outbox() -> (tempfile::TempDir, Outbox) {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path().join("outbox"));
        (dir, outbox)
    }

    /// Sends with channels of which some are broken; what was taken, in order.
    fn flush(outbox: &Outbox, now: i64, all: bool, broken: &[&str]) -> (Flushed, Vec<(String, String)>) {
        let mut taken = Vec::new();
        let held = outbox.hold().unwrap();
        let flushed = held.flush(now, all, |channel, body| {
            if broken.contains(&channel) {
                return Some(Err("no route".to_owned()));
            }
            taken.push((channel.to_owned(), text(body).to_owned()));
            Some(Ok(()))
        });
        (flushed.unwrap(), taken)
    }

    #[test]
    fn a_broken_channel_waits_longer_each_time_and_stops_no_other() {
        let (_dir, outbox) = outbox();
        for (n, channel) in ["a", "b", "a"].into_iter().enumerate() {
            outbox.hold().unwrap().put(channel, 100, body(n)).unwrap();
        }
        let (flushed, taken) = flush(&outbox, 100, false, &["a"]);
        assert_eq!((flushed.sent, flushed.waiting, taken), (1, 2, vec![("b".into(), "1".into())]));
        assert_eq!(flushed.failed["a"], "no route");
        let names = ["a".to_owned(), "b".to_owned()];
        let lines = outbox.lines(names.iter()).unwrap();
        assert_eq!(
            lines[0].complaint().unwrap(),
            "channel a has not delivered since 1970-01-01T00:01:40Z (2 wait): no route"
        );
        assert_eq!((lines[1].complaint(), lines[1].delivered), (None, Some(100)));
        let mut tried = Vec::new();
        for now in (100..20_000).step_by(10) {
            let held = outbox.hold().unwrap();
            let failing = |_: &str, _: &Body| {
                tried.push(now);
                Some(Err("no route".to_owned()))
            };
            held.flush(now, false, failing).unwrap();
        }
        let pauses: Vec<i64> = tried.windows(2).map(|w| w[1] - w[0]).collect();
        assert_eq!(pauses, [120, 240, 480, 960, 1920, 3600, 3600, 3600, 3600]);
        // The next process, once the channel works: all of it, in order, and it is as new.
        let (flushed, taken) = flush(&Outbox::new(outbox.dir.clone()), 20_000, true, &[]);
        assert_eq!((flushed.sent, flushed.waiting), (2, 0));
        assert_eq!(taken, [("a".into(), "0".into()), ("a".into(), "2".into())]);
        assert_eq!(outbox.lines(names.iter()).unwrap()[0].complaint(), None);
    }

    #[test]
    fn what_is_no_message_is_set_aside_and_in_nobodys_way() {
        let (_dir, outbox) = outbox();
        outbox.hold().unwrap().put("a", 5, body(0)).unwrap();
        let dir = outbox.messages();
        for (name, bytes) in [
            ("00000000000000000001.json", &b"{\"channel\":"[..]),
            ("00000000000000000002.json", b"\xff\xfe"),
            ("00000000000000000003.json", b"{\"channel\":\"a\",\"since\":1}"),
            ("note.txt", b"mine"),
            ("x.json", b"{}"),
            (".new-1234", b"half"),
        ] {
            fs::write(dir.join(name), bytes).unwrap();
        }
        fs::create_dir(dir.join("00000000000000000004.json")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("00000000000000000000.json"), rustix::fs::Mode::RWXU)
            .unwrap();
        let (flushed, taken) = flush(&outbox, 10, false, &[]);
        assert_eq!((flushed.sent, flushed.waiting, flushed.strange.len()), (1, 0, 3));
        assert_eq!(taken.len(), 1);
        assert_eq!(flush(&outbox, 10, false, &[]).0, Flushed::default());
        assert_eq!(fs::read(dir.join("note.txt")).unwrap(), b"mine");
        // Also what is remembered may be lost or broken.
        fs::write(outbox.file_of("jobs", "j"), b"[").unwrap();
        assert!(outbox.hold().unwrap().known("j").is_empty());
    }

    #[test]
    fn too_many_lose_the_oldest_and_that_is_said() {
        let (_dir, mut outbox) = outbox();
        outbox.most = 3;
        for n in 0..5 {
            outbox.hold().unwrap().put("a", 50, body(n)).unwrap();
        }
        let line = &outbox.lines(["a".to_owned()].iter()).unwrap()[0];
        assert_eq!((line.waiting, line.dropped), (3, 2));
        assert!(line.complaint().unwrap().contains("never got 2 messages"), "{line:?}");
        let (_, taken) = flush(&outbox, 60, false, &[]);
        assert_eq!(taken.into_iter().map(|t| t.1).collect::<Vec<_>>(), ["2", "3", "4"]);
    }

    #[test]
    fn a_clock_that_was_wrong_delays_nothing_for_long_and_changes_no_order() {
        let (_dir, outbox) = outbox();
        outbox.hold().unwrap().put("a", 4_000_000_000, body(0)).unwrap();
        flush(&outbox, 4_000_000_000, false, &["a"]);
        outbox.hold().unwrap().put("a", 1000, body(1)).unwrap();
        let (flushed, taken) = flush(&outbox, 1000, false, &[]);
        assert_eq!((flushed.sent, taken[0].1.as_str()), (2, "0"));
    }

    #[test]
    fn what_there_is_no_time_for_waits_for_the_next_time() {
        let (_dir, mut outbox) = outbox();
        (0..3).for_each(|n| outbox.hold().unwrap().put("a", 1, body(n)).unwrap());
        outbox.budget = Duration::ZERO;
        let (flushed, taken) = flush(&outbox, 2, true, &[]);
        assert_eq!((flushed, taken.len()), (Flushed { waiting: 3, ..Flushed::default() }, 0));
        outbox.budget = BUDGET;
        let (flushed, taken) = flush(&outbox, 2, false, &[]);
        assert_eq!((flushed.sent, flushed.waiting, taken[0].1.as_str()), (3, 0, "0"));
    }

    #[test]
    fn a_message_of_any_length_arrives() {
        let (_dir, outbox) = outbox();
        let long = "\u{1d11e}\\".repeat(2000);
        let mut message = Message::sample("h", "a", 1);
        message.findings = vec![
            message::Line {
                exit: 1,
                rule: "r".into(),
                destination: None,
                message: long.clone(),
                fix: long.clone()
            };
            50
        ];
        (message.errors, message.commands) = (vec![long.clone(); 50], vec![long.clone(); 50]);
        let body = Body::Message(Box::new(message));
        assert!(serde_json::to_vec(&body).unwrap().len() as u64 > FILE_MAX);
        outbox.hold().unwrap().put("a", 1, body).unwrap();
        outbox.hold().unwrap().put("a", 1, Body::Ping { exit: 0, text: long.repeat(200) }).unwrap();
        let mut said = Vec::new();
        let flushed = outbox.hold().unwrap().flush(2, false, |_, body| {
            said.push(body.clone());
            Some(Ok(()))
        });
        assert_eq!((flushed.unwrap().sent, said.len()), (2, 2));
        let Body::Message(m) = &said[0] else { panic!("{said:?}") };
        assert!(m.findings.len() > 5 && m.errors.last().unwrap().contains("too long to be sent"));
        assert!(matches!(&said[1], Body::Ping { text, .. } if text.len() > 100_000 && text.ends_with('…')));
    }

    #[test]
    fn a_channel_that_nobody_knows_keeps_its_messages() {
        let (_dir, outbox) = outbox();
        outbox.hold().unwrap().put("gone", 1, body(0)).unwrap();
        let flushed = outbox.hold().unwrap().flush(2, true, |_, _| None).unwrap();
        assert_eq!((flushed.sent, flushed.waiting, flushed.failed.len()), (0, 1, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// However messages, failures, deaths between sending and forgetting, and rubbish are mixed: at last every channel
        /// has got all that was put there for it, in order, whatever came twice.
        #[test]
        fn all_arrive_in_order(steps in prop::collection::vec((0u8..5, 0usize..3, any::<u8>()), 1..40)) {
            const CHANNELS: [&str; 3] = ["a", "b", "c"];
            let (_dir, outbox) = outbox();
            let (mut put, mut got) = (vec![Vec::new(); 3], vec![Vec::<String>::new(); 3]);
            let mut now = 1000;
            for (n, (kind, channel, mask)) in steps.into_iter().enumerate() {
                now += i64::from(mask) * 20;
                let held = outbox.hold().unwrap();
                match kind {
                    0 | 1 => {
                        held.put(CHANNELS[channel], now, body(n)).unwrap();
                        put[channel].push(n.to_string());
                    }
                    2 => fs::write(outbox.messages().join(format!("{n:020}.json")), [mask]).unwrap(),
                    _ => {
                        let mut calls = 0;
                        // Dead after so many messages: what it sent then is not forgotten.
                        let dies = (kind == 3).then_some(usize::from(mask >> 6));
                        let mut died = false;
                        let saved: Vec<(PathBuf, Vec<u8>)> =
                            outbox.list().unwrap().into_iter().map(|(_, p)| (p.clone(), fs::read(p).unwrap())).collect();
                        held.flush(now, false, |name, body| {
                            let at = CHANNELS.iter().position(|c| *c == name).unwrap();
                            if died || mask & (1 << at) != 0 { return Some(Err("x".into())); }
                            got[at].push(text(body).to_owned());
                            died = dies == Some(calls);
                            calls += 1;
                            Some(Ok(()))
                        }).unwrap();
                        if let (true, Some((path, bytes))) = (died, saved.first()) {
                            fs::write(path, bytes).unwrap();
                        }
                    }
                }
            }
            let held = outbox.hold().unwrap();
            let last = held.flush(now, true, |name, body| {
                let at = CHANNELS.iter().position(|c| *c == name).unwrap();
                got[at].push(text(body).to_owned());
                Some(Ok(()))
            }).unwrap();
            prop_assert_eq!(last.waiting, 0);
            for (put, got) in put.iter().zip(got) {
                let mut once: Vec<String> = Vec::new();
                for text in got { if !once.contains(&text) { once.push(text); } }
                prop_assert_eq!(&once, put);
            }
        }
    }
}
