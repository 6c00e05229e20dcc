//! What a command prints, as a stream that counts only if the command succeeds and the bytes are what they have to be.
//!
//! Kept true: nothing is committed unless every command of a pipeline exited with 0; nobody waits for one that is not read
//! any more; none is left behind.

use super::StreamSource;
use crate::observer::escape;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Commands, each reading what the one before it prints, without a shell.
#[derive(Debug, Clone, Default)]
pub struct Pipeline {
    /// Program and arguments of each.
    pub commands: Vec<Vec<OsString>>,
    /// Variables of the environment that they do not get: those with secrets.
    pub without: Vec<&'static str>,
    /// How the output has to begin; empty for anything.
    pub magic: Vec<u8>,
    /// How long it has to be at least.
    pub min_size: u64,
    /// After how long the commands are ended; the stream is then none.
    pub timeout: Option<Duration>,
}

/// How long is waited for a command that was told to end at once.
const REAPED: Duration = Duration::from_secs(5);

/// How often a reader that waits for a command looks whether that was stopped.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Commands that run, and how they ended.
#[derive(Clone)]
pub struct Running(Arc<Mutex<State>>);

struct State {
    children: Vec<(String, Child)>,
    failure: Option<String>,
    until: Option<Instant>,
    /// The first bytes that were read, as many as are asked for, and how many there were.
    head: Vec<u8>,
    size: u64,
}

/// Commands that are still there when nobody reads them any more are ended.
impl Drop for State {
    fn drop(&mut self) {
        self.end();
    }
}

impl State {
    fn end(&mut self) {
        for (_, mut child) in self.children.drain(..) {
            end_group(&mut child);
            reap(&mut child);
        }
    }
}

/// Ends a command that leads a process group, and what it has started: whoever holds the end of a pipe keeps its reader
/// waiting.
pub fn end_group(child: &mut Child) {
    let group = rustix::process::Pid::from_child(child);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = child.kill();
}

/// Waits until a command is gone that was told to end at once: some seconds at most, since one that has become another user may be
/// out of reach of who lacks the right to end it (`CAP_KILL`). What is left is for whoever started this process, as systemd does.
pub fn reap(child: &mut Child) {
    let until = Instant::now() + REAPED;
    while let Ok(None) = child.try_wait()
        && Instant::now() < until
    {
        std::thread::sleep(Duration::from_millis(2));
    }
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why there is no stream, once there is none.
    pub fn failure(&self) -> Option<String> {
        self.lock().failure.clone()
    }

    /// Ends the commands, so that whoever reads their output need not wait for more, also of one that is out of reach.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.failure.get_or_insert_with(|| "the command was stopped".to_owned());
        state.children.iter_mut().for_each(|(_, child)| end_group(child));
    }

    fn fail(&self, why: String) -> String {
        self.lock().failure.get_or_insert(why).clone()
    }

    /// Waits for the commands; asked by the engine before it commits. Never holds the lock while waiting.
    fn succeed(&self, wanted: &Pipeline) -> Result<(), String> {
        loop {
            let mut state = self.lock();
            if let Some(why) = &state.failure {
                return Err(why.clone());
            }
            let late = state.until.is_some_and(|until| Instant::now() >= until);
            let Some((name, child)) = state.children.first_mut() else { break };
            let why = match child.try_wait() {
                Ok(None) if late => format!("the command {name} did not end in time"),
                Ok(None) => {
                    drop(state);
                    std::thread::sleep(Duration::from_millis(5));
                    continue;
                }
                Ok(Some(status)) if status.success() => {
                    state.children.remove(0);
                    continue;
                }
                Ok(Some(status)) => format!("the command {name} failed: {status}"),
                Err(e) => format!("cannot wait for the command {name}: {e}"),
            };
            drop(state);
            return Err(self.fail(why));
        }
        let (head, size) = {
            let state = self.lock();
            (state.head.clone(), state.size)
        };
        if !head.starts_with(&wanted.magic) {
            let (found, begin) = (escape(&head), escape(&wanted.magic));
            return Err(self.fail(format!("the output begins with \"{found}\" instead of \"{begin}\"")));
        }
        if size < wanted.min_size {
            let least = wanted.min_size;
            return Err(self.fail(format!("the output has {size} bytes, and has to have {least} at least")));
        }
        Ok(())
    }
}

/// Reads, counts, and stops waiting when it is late.
struct Reader {
    output: std::process::ChildStdout,
    running: Running,
    magic: usize,
}

impl Read for Reader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One that holds its output open and cannot be ended would be waited for as long as it likes.
        let mut ready = [PollFd::new(&self.output, PollFlags::IN)];
        while poll(&mut ready, Some(&LOOK)).is_ok_and(|n| n == 0) {
            if self.running.failure().is_some() {
                return Ok(0);
            }
        }
        let n = self.output.read(buffer)?;
        let mut state = self.running.lock();
        let missing = self.magic.saturating_sub(state.head.len()).min(n);
        state.head.extend_from_slice(buffer.get(..missing).unwrap_or_default());
        state.size += n as u64;
        Ok(n)
    }
}

impl Pipeline {
    /// One command.
    pub fn of(words: impl IntoIterator<Item = OsString>) -> Self {
        Self { commands: vec![words.into_iter().collect()], ..Self::default() }
    }

    /// Starts the commands; `name` is the path of the file in the snapshot.
    ///
    /// # Errors
    /// In words, if one cannot be run.
    pub fn start(self, name: Vec<u8>) -> Result<(StreamSource, Running), String> {
        let until = self.timeout.map(|t| Instant::now() + t);
        let state = State { children: Vec::new(), failure: None, until, head: Vec::new(), size: 0 };
        let running = Running(Arc::new(Mutex::new(state)));
        let mut output = None;
        for words in &self.commands {
            let (program, rest) = words.split_first().ok_or("a command of the pipeline is empty")?;
            let shown = escape(program.as_bytes());
            let mut command = Command::new(program);
            let input = output.take().map_or_else(Stdio::null, Stdio::from);
            command.args(rest).stdin(input).stdout(Stdio::piped()).process_group(0);
            self.without.iter().for_each(|v| _ = command.env_remove(v));
            let mut child = command.spawn().map_err(|e| format!("cannot run {shown}: {e}"))?;
            output = Some(child.stdout.take().ok_or_else(|| format!("{shown} has no output"))?);
            running.lock().children.push((shown, child));
        }
        let output = output.ok_or("there is no command")?;
        if let Some(timeout) = self.timeout {
            watch(&running, timeout);
        }
        let reader = Reader { output, running: running.clone(), magic: self.magic.len() };
        let asked = running.clone();
        let commit: super::Commit = Box::new(move || asked.succeed(&self));
        Ok((
            StreamSource { name, reader: Box::new(reader), commit: Some(commit), holes: Vec::new() },
            running,
        ))
    }
}

/// Ends the commands when their time is over. Holds nothing: when all is done it finds nobody.
fn watch(running: &Running, timeout: Duration) {
    let state = Arc::downgrade(&running.0);
    std::thread::spawn(move || {
        std::thread::sleep(timeout);
        if let Some(state) = state.upgrade() {
            let running = Running(state);
            let names: Vec<String> = running.lock().children.iter().map(|(name, _)| name.clone()).collect();
            if let Some(name) = names.first() {
                running.fail(format!("the command {name} did not end in time"));
                running.stop();
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipeline(commands: &[&[&str]]) -> Pipeline {
        let commands = commands.iter().map(|c| c.iter().map(OsString::from).collect()).collect();
        Pipeline { commands, ..Pipeline::default() }
    }

    fn read(pipeline: Pipeline) -> (Vec<u8>, Result<(), String>) {
        let (mut source, _running) = pipeline.start(b"dump".to_vec()).unwrap();
        let mut out = Vec::new();
        source.reader.read_to_end(&mut out).unwrap();
        (out, source.commit())
    }

    #[test]
    fn a_pipeline_counts_if_every_command_succeeds() {
        let (out, end) = read(pipeline(&[&["printf", "b\\na\\n"], &["sort"]]));
        assert_eq!((out.as_slice(), end), (&b"a\nb\n"[..], Ok(())));
        let (_, end) = read(pipeline(&[&["sh", "-c", "echo half; exit 3"], &["cat"]]));
        assert!(end.unwrap_err().contains("sh failed"));
        let (_, end) = read(pipeline(&[&["echo", "all"], &["sh", "-c", "cat; exit 1"]]));
        assert!(end.unwrap_err().contains("sh failed"));
        assert!(
            pipeline(&[&["/no/such/program"]]).start(b"x".to_vec()).err().unwrap().contains("cannot run")
        );
    }

    #[test]
    fn the_output_has_to_be_what_was_said() {
        let with = |magic: &[u8], min_size| Pipeline {
            magic: magic.to_vec(),
            min_size,
            ..pipeline(&[&["printf", "PGDMP data"]])
        };
        assert_eq!(read(with(b"PGDMP", 10)).1, Ok(()));
        assert!(read(with(b"SQLite", 0)).1.unwrap_err().contains("begins with \"PGDMP \""));
        assert!(read(with(b"PGDMP", 11)).1.unwrap_err().contains("10 bytes"));
    }

    #[test]
    fn a_command_that_takes_too_long_is_ended() {
        let slow = Pipeline {
            timeout: Some(Duration::from_millis(200)),
            ..pipeline(&[&["sh", "-c", "sleep 600; true"]])
        };
        let begun = Instant::now();
        assert!(read(slow).1.unwrap_err().contains("did not end in time"));
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}
