//! The job's command, asked about what was restored: it has to exit with 0 in time, and the numbers it prints have to be what
//! is expected of them.
//!
//! Kept true: nothing that it started is left behind, however it ends; it gets none of our secrets.

use crate::config::Job;
use crate::world::World;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::escape;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// A command prints a few numbers; what is longer is something else.
const OUTPUT_MAX: u64 = 1 << 20;

pub(super) struct Judge<'a> {
    pub(super) world: &'a dyn World,
    pub(super) name: &'a str,
    pub(super) job: &'a Job,
    pub(super) snapshot: &'a Snapshot,
}

/// Numbers by name, as they are on record.
type Numbers = Vec<(String, String)>;

/// A command that runs in a process group of its own, which ends with it.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Judge<'_> {
    /// The numbers that it gave, and what is wrong, each in a sentence.
    pub(super) fn ask(
        &self,
        dir: &Path,
        before: &[(String, String)],
    ) -> bulla_engine::Result<(Numbers, Vec<String>)> {
        let expect = &self.job.drill.expect;
        let (status, output) = match self.run(dir, !expect.is_empty())? {
            Ok(ended) => ended,
            Err(why) => return Ok((Vec::new(), vec![why])),
        };
        if !status.success() {
            return Ok((Vec::new(), vec![format!("{} says no: {status}", self.program())]));
        }
        if expect.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let given = match serde_json::from_slice(&output) {
            Ok(serde_json::Value::Object(given)) => given,
            _ => {
                let why =
                    format!("{} has to print one JSON object, and printed something else", self.program());
                return Ok((Vec::new(), vec![why]));
            }
        };
        let number = |name: &str| given.get(name).and_then(|v| v.as_number().map(ToString::to_string));
        let (mut numbers, mut wrong) = (Vec::new(), Vec::new());
        for (name, expectation) in expect {
            let Some(is) = number(name) else {
                wrong.push(format!("{} gave no number {}", self.program(), escape(name.as_bytes())));
                continue;
            };
            let was = before.iter().find(|(n, _)| n == name).map(|(_, number)| number.as_str());
            wrong.extend(
                expectation.value.miss(&is, was).map(|why| format!("{}: {why}", escape(name.as_bytes()))),
            );
            numbers.push((name.clone(), is));
        }
        Ok((numbers, wrong))
    }

    fn program(&self) -> String {
        let first = self.job.drill.command.as_ref().and_then(|words| words.first());
        first.map_or_else(String::new, |at| escape(at.value.as_bytes()))
    }

    /// How it ended and what it printed, if that is ours; or why it did not.
    fn run(&self, dir: &Path, ours: bool) -> bulla_engine::Result<Result<(ExitStatus, Vec<u8>), String>> {
        let Some((program, args)) = self.job.drill.command.as_ref().and_then(|words| words.split_first())
        else {
            return Ok(Err("the job has no drill command".to_owned()));
        };
        let mut command = Command::new(&program.value);
        command.args(args.iter().map(|at| &at.value)).current_dir(dir).process_group(0);
        command.stdin(Stdio::null()).env("BULLA_DRILL_DIR", dir);
        command.env("BULLA_JOB", self.name).env("BULLA_SNAPSHOT", self.snapshot.id.to_string());
        self.world.secret_variables().iter().for_each(|v| _ = command.env_remove(v));
        // What it prints is its numbers or words for people; results are ours.
        if ours {
            command.stdout(Stdio::piped())
        } else {
            command.stdout(std::io::stderr())
        };
        let child = command.spawn().map_err(|e| format!("cannot run {}: {e}", self.program()));
        let mut group = match child {
            Ok(child) => Group(child),
            Err(why) => return Ok(Err(why)),
        };
        // Read beside waiting: who fills a pipe that nobody reads never ends.
        let output = group.0.stdout.take().map(|pipe| {
            std::thread::spawn(move || {
                let mut out = Vec::new();
                let _ = pipe.take(OUTPUT_MAX).read_to_end(&mut out);
                out
            })
        });
        let ended = self.wait(&mut group)?;
        // Whoever still holds the pipe would keep its reader waiting.
        drop(group);
        let output = output.and_then(|thread| thread.join().ok()).unwrap_or_default();
        Ok(ended.map(|status| (status, output)))
    }

    fn wait(&self, group: &mut Group) -> bulla_engine::Result<Result<ExitStatus, String>> {
        let timeout = self.job.drill.timeout.as_ref().map(|at| at.value);
        let until = timeout.map(|t| Instant::now() + Duration::from_secs(t.seconds().unsigned_abs()));
        loop {
            match group.0.try_wait() {
                Ok(Some(status)) => return Ok(Ok(status)),
                Err(e) => return Ok(Err(format!("cannot wait for {}: {e}", self.program()))),
                Ok(None) => {}
            }
            if self.world.observer().interrupted() {
                return Err(bulla_engine::Error::Interrupted);
            }
            if let Some(timeout) = timeout.filter(|_| until.is_some_and(|until| Instant::now() >= until)) {
                return Ok(Err(format!("{} did not end within {timeout}", self.program())));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
