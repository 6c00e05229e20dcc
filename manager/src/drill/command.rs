//! The job's command, asked about what was restored: it has to exit with 0 in time, and the numbers it prints have to be what
//! is expected of them.
//!
//! Kept true: nothing that it started is left behind, however it ends; it gets none of our secrets.

use crate::child::{self, Ended, Group};
use crate::config::Job;
use crate::world::World;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::escape;
use std::io::{PipeReader, Read, Write};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::Duration;

/// A command prints a few numbers; what is longer is something else.
const OUTPUT_MAX: usize = 1 << 20;
/// The time of one that has no timeout.
const UNLIMITED: Duration = Duration::from_secs(1 << 32);

pub(super) struct Judge<'a> {
    pub(super) world: &'a dyn World,
    pub(super) name: &'a str,
    pub(super) job: &'a Job,
    pub(super) snapshot: &'a Snapshot,
}

/// Numbers by name, as they are on record.
type Numbers = Vec<(String, String)>;

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
        command.args(args.iter().map(|at| &at.value)).current_dir(dir).env("BULLA_DRILL_DIR", dir);
        command.env("BULLA_JOB", self.name).env("BULLA_SNAPSHOT", self.snapshot.id.to_string());
        self.world.secret_variables().iter().for_each(|v| _ = command.env_remove(v));
        let timeout = self.job.drill.timeout.as_ref().map(|at| at.value);
        let most = timeout.map_or(UNLIMITED, |t| Duration::from_secs(t.seconds().unsigned_abs()));
        let (mut output, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        // What it prints is its numbers or words for people; results are ours.
        let mut take = |pipe: &mut PipeReader| {
            let n = pipe.read(&mut buffer)?;
            let said = buffer.get(..n).unwrap_or_default();
            match ours {
                false => _ = std::io::stderr().write_all(said),
                true if output.len() <= OUTPUT_MAX => output.extend_from_slice(said),
                true => {}
            }
            Ok(n)
        };
        let stop = || self.world.observer().interrupted();
        let ended = match child::run(command, most, (Group::Whole, false), &stop, &mut take) {
            Ok(Ended::Said(status)) => Ok((status, output)),
            Ok(Ended::Stopped) => return Err(bulla_engine::Error::Interrupted),
            Ok(Ended::Late) => {
                let timeout = timeout.map_or_else(String::new, |timeout| format!(" within {timeout}"));
                Err(format!("{} did not end{timeout}", self.program()))
            }
            Err(e) => Err(format!("cannot run {}: {e}", self.program())),
        };
        Ok(ended)
    }
}
