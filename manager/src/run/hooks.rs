//! Commands around a backup: what freezes a database before it is read, and what lets it go again.
//!
//! Kept true: what has to be undone is undone: `finally` is run whatever happened, also when somebody stops the run. A
//! hook gets no secret, and what it prints is shown bounded and escaped.

use crate::child::{self, Ended, Group};
use crate::config::{Hook, HookAt, Job};
use crate::outcome::Outcome;
use crate::world::{Trouble, World};
use bulla_engine::format::RunId;
use bulla_engine::observer::escape;
use std::io::Read;
use std::process::Command;
use std::time::Duration;

/// So much of what a failing hook printed last is told, in bytes.
const TOLD: usize = 1000;

/// The hooks of a run.
pub(super) struct Hooks<'a> {
    pub(super) world: &'a dyn World,
    pub(super) name: &'a str,
    pub(super) job: &'a Job,
}

/// What hooks are told of a backup that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    pub(super) outcome: Outcome,
    pub(super) snapshot: Option<RunId>,
}

impl Hooks<'_> {
    /// Runs those before the backup, up to one that fails and must not.
    pub(super) fn before(&self, troubles: &mut Vec<Trouble>) -> Result<(), Trouble> {
        for hook in self.at(HookAt::Before) {
            match self.one(hook, None) {
                Err(trouble) if trouble.outcome == Outcome::Done => troubles.push(trouble),
                done => done?,
            }
        }
        Ok(())
    }

    /// Runs all those after it; what went wrong.
    pub(super) fn over(&self, over: Over) -> Vec<Trouble> {
        let then = if over.snapshot.is_some() { HookAt::After } else { HookAt::OnFail };
        let hooks = self.at(then).chain(self.at(HookAt::Finally));
        hooks.filter_map(|hook| self.one(hook, Some(over)).err()).collect()
    }

    fn at(&self, at: HookAt) -> impl Iterator<Item = &Hook> {
        self.job.hooks.iter().map(|hook| &hook.value).filter(move |hook| hook.at == at)
    }

    fn one(&self, hook: &Hook, over: Option<Over>) -> Result<(), Trouble> {
        let Some((program, args)) = hook.command.split_first() else { return Ok(()) };
        let mut command = Command::new(program);
        command.args(args).env("BULLA_JOB", self.name).env("BULLA_HOST", self.world.host());
        command.env("BULLA_HOOK", word(hook.at));
        if let Some(over) = over {
            command.env("BULLA_EXIT", over.outcome.code().to_string());
            over.snapshot.iter().for_each(|id| _ = command.env("BULLA_SNAPSHOT", id.to_string()));
        }
        self.world.secret_variables().iter().for_each(|v| _ = command.env_remove(v));
        let timeout = Duration::from_secs(hook.timeout.seconds().unsigned_abs());
        // What comes after the backup undoes something: that somebody stops the run is no reason to leave it.
        let stop = || over.is_none() && self.world.observer().interrupted();
        let mut printed = Vec::new();
        let ended = child::run(command, timeout, (Group::Own, true), &stop, &mut |output| {
            let mut buffer = [0; 4096];
            let n = output.read(&mut buffer)?;
            printed.extend_from_slice(buffer.get(..n).unwrap_or_default());
            let more = printed.len().saturating_sub(TOLD);
            printed.drain(..more);
            Ok(n)
        });
        let how = match ended {
            Ok(Ended::Said(status)) if status.success() => {
                self.world.step(word(hook.at), &format!("{program}: ok"));
                return Ok(());
            }
            Ok(Ended::Said(status)) => format!("failed: {status}"),
            Ok(Ended::Late) => format!("did not end within {}", hook.timeout),
            Ok(Ended::Stopped) => return Err(Trouble::new(Outcome::Interrupted, "interrupted")),
            Err(e) => format!("cannot be run: {e}"),
        };
        let printed = escape(printed.trim_ascii());
        let printed = if printed.is_empty() { printed } else { format!("; it says: {printed}") };
        let why = format!("the hook {} ({}) {how}{printed}", word(hook.at), escape(program.as_bytes()));
        Err(Trouble::new(if hook.abort { Outcome::Failed } else { Outcome::Done }, why))
    }
}

const fn word(at: HookAt) -> &'static str {
    match at {
        HookAt::Before => "before",
        HookAt::After => "after",
        HookAt::OnFail => "on_fail",
        HookAt::Finally => "finally",
    }
}
