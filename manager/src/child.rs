//! A command that is run to its end beside the data: a hook, or one that prints a secret.
//!
//! Kept true: it is ended when its time is over or somebody stops it, with the whole process group that it leads; nobody
//! waits for what it leaves running in the background, also if that holds its output or goes on to fill it.

use bulla_engine::source::{end_group, reap};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// How it ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself.
    Said(ExitStatus),
    /// Not in time.
    Late,
    /// Somebody stopped it.
    Stopped,
}

/// How often is looked at whether it has ended, or is to be stopped.
const TICK: Duration = Duration::from_millis(20);
/// How long is read what one that has ended has left in the pipe.
const REST: Duration = Duration::from_secs(10);

/// Whose process group a command is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// One of its own, which is ended whole when it is ended.
    Own,
    /// The same, also when it ends by itself.
    Whole,
    /// Ours: one that asks on the terminal has to be in the group that may. It is ended alone.
    Ours,
}

/// Runs a command without input. `take` reads once from what it prints and says how many bytes that were; with `errors`
/// what it says to its standard error is part of that.
///
/// # Errors
/// Where it cannot be started, or `take` refuses; it is ended then.
pub fn run(
    mut command: Command,
    timeout: Duration,
    (group, errors): (Group, bool),
    stop: &dyn Fn() -> bool,
    take: &mut dyn FnMut(&mut PipeReader) -> io::Result<usize>,
) -> io::Result<Ended> {
    let (mut output, writer) = io::pipe()?;
    if errors {
        command.stderr(writer.try_clone()?);
    }
    if group != Group::Ours {
        command.process_group(0);
    }
    let mut child = command.stdin(Stdio::null()).stdout(writer).spawn()?;
    // What is left of it holds the other end of the pipe.
    drop(command);
    let mut until = Instant::now() + timeout;
    let ended = (|| {
        let (mut open, mut over) = (true, None);
        loop {
            if over.is_none() {
                over = child.try_wait()?;
                until = if over.is_some() { until.min(Instant::now() + REST) } else { until };
            }
            let wait = if over.is_some() { Duration::ZERO } else { TICK };
            let ready = open && readable(&output, wait)?;
            if ready {
                open = take(&mut output)? > 0;
            } else if let Some(status) = over {
                return Ok(Ended::Said(status));
            } else if !open {
                std::thread::sleep(TICK);
            }
            if Instant::now() >= until {
                return Ok(over.map_or(Ended::Late, Ended::Said));
            }
            if stop() {
                return Ok(over.map_or(Ended::Stopped, Ended::Said));
            }
        }
    })();
    if !matches!(ended, Ok(Ended::Said(_))) {
        match group {
            Group::Own | Group::Whole => end_group(&mut child),
            Group::Ours => _ = child.kill(),
        }
        reap(&mut child);
    } else if group == Group::Whole {
        end_group(&mut child);
    }
    ended
}

fn readable(output: &PipeReader, wait: Duration) -> io::Result<bool> {
    let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(wait.subsec_nanos()) };
    match poll(&mut [PollFd::new(output, PollFlags::IN)], Some(&wait)) {
        Ok(n) => Ok(n > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn sh(script: &str, timeout: Duration, stop: &dyn Fn() -> bool) -> (Ended, String) {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let mut said = Vec::new();
        let ended = run(command, timeout, (Group::Own, true), stop, &mut |output| {
            let mut buffer = [0; 100];
            let n = output.read(&mut buffer)?;
            said.extend_from_slice(&buffer[..n]);
            Ok(n)
        });
        (ended.unwrap(), String::from_utf8(said).unwrap())
    }

    #[test]
    fn what_was_started_is_ended_with_it_if_that_is_asked_for() {
        let begun = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 600 & echo $!"]);
        let mut pid = String::new();
        let ended = run(command, LONG, (Group::Whole, false), &|| false, &mut |output| {
            let mut buffer = [0; 100];
            let n = output.read(&mut buffer)?;
            pid.push_str(std::str::from_utf8(&buffer[..n]).unwrap());
            Ok(n)
        });
        assert!(matches!(ended.unwrap(), Ended::Said(status) if status.success()));
        while lives(&pid) {
            assert!(begun.elapsed() < Duration::from_secs(120), "{pid}");
            std::thread::sleep(TICK);
        }
    }

    fn lives(pid: &str) -> bool {
        // One that is dead and that nobody has asked about lives no more.
        let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        status.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
    }

    const LONG: Duration = Duration::from_secs(300);

    #[test]
    fn what_it_prints_is_taken_and_how_it_ends_is_told() {
        let (ended, said) = sh("echo out; echo err >&2; exit 3", LONG, &|| false);
        assert!(matches!(ended, Ended::Said(status) if status.code() == Some(3)));
        assert_eq!(said, "out\nerr\n");
        let (ended, said) = sh("head -c 300000 /dev/zero | tr '\\0' x", LONG, &|| false);
        assert!(matches!(ended, Ended::Said(status) if status.success()));
        assert_eq!(said.len(), 300_000);
    }

    #[test]
    fn one_that_takes_too_long_is_ended_with_all_it_started() {
        for (timeout, stopped) in [(Duration::from_secs(2), false), (LONG, true)] {
            let begun = Instant::now();
            let stop = || stopped && begun.elapsed() > Duration::from_secs(2);
            let (ended, pids) = sh("sleep 600 & echo $!; echo $$; wait", timeout, &stop);
            assert_eq!(matches!(ended, Ended::Stopped), stopped, "{ended:?}");
            let pids: Vec<&str> = pids.lines().collect();
            assert_eq!(pids.len(), 2);
            // The kernel ends them as soon as it comes to it.
            while pids.iter().any(|pid| lives(pid)) {
                assert!(begun.elapsed() < Duration::from_secs(120), "{pids:?}");
                std::thread::sleep(TICK);
            }
        }
    }

    /// As a server that a hook starts, which keeps the pipe open.
    #[test]
    fn what_it_leaves_in_the_background_is_not_waited_for() {
        let begun = Instant::now();
        let (ended, said) = sh("setsid sleep 600 & echo $!", LONG, &|| false);
        assert!(matches!(ended, Ended::Said(status) if status.success()));
        assert!(begun.elapsed() < LONG && lives(&said), "{said}");
        Command::new("kill").arg(said.trim()).status().unwrap();
    }

    #[test]
    fn what_it_leaves_in_the_background_may_print_for_ever() {
        let begun = Instant::now();
        // It prints before the command ends; once nobody reads any more, `yes` ends by itself.
        let script = "setsid sh -c 'trap \"\" PIPE; yes; exec sleep 600' & echo $!; sleep 1";
        let (ended, said) = sh(script, LONG, &|| false);
        let pid = said.lines().find(|line| *line != "y").unwrap_or_default();
        let lived = lives(pid);
        Command::new("kill").arg(pid).status().unwrap();
        assert!(matches!(ended, Ended::Said(status) if status.success()));
        assert!(begun.elapsed() < LONG && lived, "{pid}");
        assert!(said.len() > 1 << 16, "{} bytes", said.len());
    }
}
