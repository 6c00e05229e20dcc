//! One `ssh` process and what is asked of it: requests with numbers go in, answers come out in any order, and each
//! reaches the caller that asked. Several threads use a session at once.
//!
//! # What it keeps true
//! - Nobody writes to ssh while holding a lock, and nobody but the writing thread writes: a full pipe stops that thread
//!   only. The reading thread waits for nothing but ssh, so answers flow while requests do not.
//! - Every wait ends: with an answer, with the death of the session, or because nothing went in or out for so long that
//!   the session is killed. What is slow but moves is left alone.
//! - When a session dies, by itself or killed, everybody who waits gets a failure that may pass, at once.

use super::wire::{self, Malformed, PACKET_MAX, Packet, Reply, Version, kind};
use crate::store::{Attempt, Failure, Kind};
use bulla_engine::observer::escape;
use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What every server takes and gives in one packet.
const LEAST_TRANSFER: u64 = 32 << 10;
/// OpenSSH's own limit; more would not fit into [`PACKET_MAX`].
const MOST_TRANSFER: u64 = 255 << 10;
/// Of what ssh says, the end.
const WORDS_MAX: usize = 1 << 10;
/// How long the last words of an ssh that died are waited for: a connection that it left to others in the background
/// may keep the pipe open for ever.
const WORDS_WAIT: Duration = Duration::from_millis(500);
/// What a person needs to type a password or to compare a fingerprint, in time limits of a request.
const CONNECT: u32 = 5;
/// A request that is not answered while others are, in time limits of a request.
const OVERTAKEN: u32 = 30;
/// How long ssh may take to end by itself.
const GOODBYE: Duration = Duration::from_secs(2);

/// The extensions that a server has, and how much it moves at once.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Offers {
    pub(super) link: bool,
    pub(super) sync: bool,
    pub(super) replace: bool,
    pub(super) space: bool,
    /// Bytes of a read, at most.
    pub(super) read: usize,
    /// Bytes of a write, at most.
    pub(super) write: usize,
}

/// A running ssh with a server behind it.
pub(super) struct Session {
    shared: Arc<Shared>,
    /// To the writing thread; `None` once the session is being dropped.
    queue: Option<Sender<Vec<u8>>>,
    number: AtomicU32,
    timeout: Duration,
    offers: Offers,
    /// Directories that are open to be synced, by path; `None` where the server cannot.
    pub(super) directories: Mutex<HashMap<String, Option<Arc<[u8]>>>>,
}

/// What the threads of a session share.
struct Shared {
    state: Mutex<State>,
    died: Condvar,
    child: Mutex<Child>,
    start: Instant,
    /// Milliseconds from the start until bytes went in or out last.
    moved: AtomicU64,
}

#[derive(Default)]
struct State {
    waiting: HashMap<u32, Sender<Attempt<Reply>>>,
    dead: Option<Failure>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.fetch_max(now, Ordering::Relaxed);
    }

    fn last_moved(&self) -> Instant {
        self.start + Duration::from_millis(self.moved.load(Ordering::Relaxed))
    }

    /// Ends the session: everybody who waits is told first, since killing may take a moment.
    fn end(&self, failure: Failure) {
        let (waiting, failure) = {
            let mut state = lock(&self.state);
            let failure = state.dead.get_or_insert(failure).clone();
            (std::mem::take(&mut state.waiting), failure)
        };
        self.died.notify_all();
        for caller in waiting.into_values() {
            let _ = caller.send(Err(failure.clone()));
        }
        let mut child = lock(&self.child);
        let _ = child.kill();
        let _ = child.wait();
    }

    fn deliver(&self, number: u32, reply: Reply) -> Result<(), Malformed> {
        let caller = lock(&self.state).waiting.remove(&number);
        // Who gave up meanwhile does not take it; that is no fault of the server's.
        let _ = caller.ok_or(Malformed("an answer to a question that was not asked"))?.send(Ok(reply));
        Ok(())
    }
}

impl Session {
    /// Runs `command` and greets the server. `first` if there was no session before: then a refusal by ssh is final
    /// and not a passing state of a server that has let us in already.
    pub(super) fn connect(command: &[String], timeout: Duration, first: bool) -> Attempt<Self> {
        let (child, stdin, stdout, stderr) = spawn(command)?;
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            died: Condvar::new(),
            child: Mutex::new(child),
            start: Instant::now(),
            moved: AtomicU64::new(0),
        });
        let words = Words::default();
        let (queue, packets) = mpsc::channel();
        let (greeting, greeted) = mpsc::channel();
        let spawned = words.listen(stderr).and_then(|heard| {
            let (writing, reading, words) = (shared.clone(), shared.clone(), words.clone());
            thread::Builder::new()
                .name("sftp-write".into())
                .spawn(move || write_all(&writing, stdin, &packets))?;
            thread::Builder::new().name("sftp-read".into()).spawn(move || {
                let why = read_all(&reading, stdout, &greeting);
                let _ = heard.recv_timeout(WORDS_WAIT);
                reading.end(words.failure(why, first));
            })
        });
        let offers = Offers::default();
        let (number, directories) = (AtomicU32::new(0), Mutex::default());
        let mut session = Self { shared, queue: Some(queue), number, timeout, offers, directories };
        if let Err(e) = spawned {
            let failure = Failure::passing(format!("cannot start a thread: {e}"));
            session.shared.end(failure.clone());
            return Err(failure);
        }
        session.greet(&greeted)?;
        Ok(session)
    }

    fn greet(&mut self, greeted: &Receiver<Version>) -> Attempt<()> {
        self.send(Packet::new(kind::INIT, 3).finish());
        let wait = self.timeout.saturating_mul(CONNECT);
        let version = match greeted.recv_timeout(wait) {
            Ok(version) => version,
            Err(RecvTimeoutError::Timeout) => return Err(self.kill_silent(wait)),
            Err(RecvTimeoutError::Disconnected) => return Err(self.epitaph()),
        };
        if version.version != 3 {
            let text = format!("the server speaks version {} of SFTP only, not 3", version.version);
            self.shared.end(Failure::last(text.clone()));
            return Err(Failure::last(text));
        }
        self.offers = Offers {
            link: version.offers("hardlink@openssh.com", "1"),
            sync: version.offers("fsync@openssh.com", "1"),
            replace: version.offers("posix-rename@openssh.com", "1"),
            space: version.offers("statvfs@openssh.com", "2"),
            read: usize_of(LEAST_TRANSFER),
            write: usize_of(LEAST_TRANSFER),
        };
        if version.offers("limits@openssh.com", "1")
            && let Reply::Extended(body) =
                self.ask(kind::EXTENDED, |p| p.string(b"limits@openssh.com")).wait()?
        {
            let (read, write) = wire::limits(&body).map_err(|e| self.malformed(e))?;
            let sane = |limit: u64| usize_of(limit.clamp(LEAST_TRANSFER, MOST_TRANSFER));
            (self.offers.read, self.offers.write) = (sane(read), sane(write));
        }
        Ok(())
    }

    /// What the server can do.
    pub(super) fn offers(&self) -> Offers {
        self.offers
    }

    /// False once it is of no use any more.
    pub(super) fn alive(&self) -> bool {
        lock(&self.shared.state).dead.is_none()
    }

    /// Sends a request; its answer is waited for with [`Pending::wait`], or not at all.
    pub(super) fn ask(&self, kind: u8, fields: impl FnOnce(Packet) -> Packet) -> Pending<'_> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let (caller, answer) = mpsc::channel();
        {
            let mut state = lock(&self.shared.state);
            match &state.dead {
                Some(failure) => _ = caller.send(Err(failure.clone())),
                None => _ = state.waiting.insert(number, caller),
            }
        }
        self.send(fields(Packet::new(kind, number)).finish());
        Pending { session: self, answer, asked: Instant::now() }
    }

    /// An answer that does not belong to its question: nothing this server says can be relied on.
    pub(super) fn malformed(&self, what: Malformed) -> Failure {
        let failure = Failure::passing(what.to_string());
        self.shared.end(failure.clone());
        failure
    }

    /// If the writing thread has ended the session is dying, which the reading thread finds out, or silence does.
    fn send(&self, packet: Vec<u8>) {
        if let Some(queue) = &self.queue {
            let _ = queue.send(packet);
        }
    }

    fn kill_silent(&self, wait: Duration) -> Failure {
        self.shared.end(Failure::passing(format!("no answer for {} s", wait.as_secs_f32().ceil())));
        self.epitaph()
    }

    /// Why it died. The reading thread says so a moment after it has let go of everything else.
    fn epitaph(&self) -> Failure {
        let state = self.wait_for_death(WORDS_WAIT * 2);
        state.dead.clone().unwrap_or_else(|| Failure::passing("the connection ended"))
    }

    fn wait_for_death(&self, wait: Duration) -> MutexGuard<'_, State> {
        let state = lock(&self.shared.state);
        let waited = self.shared.died.wait_timeout_while(state, wait, |s| s.dead.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Drop for Session {
    /// Lets the writing thread send what is queued and close ssh's input, on which server and ssh end by themselves.
    fn drop(&mut self) {
        self.queue = None;
        drop(self.wait_for_death(GOODBYE));
        self.shared.end(Failure::passing("the connection was closed"));
    }
}

/// A request whose answer is on its way.
pub(super) struct Pending<'a> {
    session: &'a Session,
    answer: Receiver<Attempt<Reply>>,
    asked: Instant,
}

impl<'a> Pending<'a> {
    /// Waits for the answer. A session that is silent for its time limit is killed.
    pub(super) fn wait(self) -> Attempt<Reply> {
        let Self { session, answer, asked } = self;
        loop {
            let silent = session.shared.last_moved().max(asked) + session.timeout;
            let until = silent.min(asked + session.timeout.saturating_mul(OVERTAKEN));
            let now = Instant::now();
            match answer.recv_timeout(until.saturating_duration_since(now)) {
                Ok(reply) => return reply,
                Err(RecvTimeoutError::Disconnected) => return Err(session.epitaph()),
                // Something may have moved while this waited: then `until` is later now.
                Err(RecvTimeoutError::Timeout) if until > now => {}
                Err(RecvTimeoutError::Timeout) => return Err(session.kill_silent(now - asked)),
            }
        }
    }

    /// The session that was asked.
    pub(super) fn session(&self) -> &'a Session {
        self.session
    }
}

type Pipes = (Child, ChildStdin, ChildStdout, ChildStderr);

/// The process stays in our process group: ssh could not ask for a password on the terminal from another.
fn spawn(command: &[String]) -> Attempt<Pipes> {
    let (program, arguments) =
        command.split_first().ok_or_else(|| Failure::last("the command that reaches the server is empty"))?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| {
            let text = format!("cannot run {program}: {e}");
            match e.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Failure::last(text),
                _ => Failure::passing(text),
            }
        })?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok((child, stdin, stdout, stderr)),
        _ => Err(Failure::last("a process without its pipes")),
    }
}

/// The writing thread. An error means that ssh is gone; the reading thread tells why.
fn write_all(shared: &Shared, mut stdin: ChildStdin, packets: &Receiver<Vec<u8>>) {
    for packet in packets {
        let mut rest = packet.as_slice();
        while !rest.is_empty() {
            match stdin.write(rest) {
                Ok(0) => return,
                Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
            shared.touch();
        }
    }
}

/// Why the reading thread stopped.
enum Stop {
    /// Before the server's first packet.
    Closed,
    Ended,
    /// The first packet was none.
    Babble(Malformed),
    Malformed(Malformed),
}

/// The reading thread: until ssh closes its output or something comes that is not the protocol.
fn read_all(shared: &Shared, stdout: ChildStdout, greeting: &Sender<Version>) -> Stop {
    let mut from = BufReader::with_capacity(64 << 10, Watched { stdout, shared });
    match read_packet(&mut from).and_then(|p| p.map(|p| Version::decode(&p)).transpose()) {
        Ok(None) => return Stop::Closed,
        Ok(Some(version)) => _ = greeting.send(version),
        Err(e) => return Stop::Babble(e),
    }
    loop {
        match read_packet(&mut from) {
            Ok(None) => return Stop::Ended,
            Ok(Some(packet)) => {
                let delivered = wire::decode(&packet).and_then(|(n, reply)| shared.deliver(n, reply));
                if let Err(e) = delivered {
                    return Stop::Malformed(e);
                }
            }
            Err(e) => return Stop::Malformed(e),
        }
    }
}

/// One packet without its length; `None` if there is no more, or not all of it.
fn read_packet(from: &mut impl Read) -> Result<Option<Vec<u8>>, Malformed> {
    let mut len = [0; 4];
    if from.read_exact(&mut len).is_err() {
        return Ok(None);
    }
    let len = u32::from_be_bytes(len);
    if len > PACKET_MAX {
        return Err(Malformed("a packet is too long (does the account's shell print something at login?)"));
    }
    let mut packet = vec![0; usize_of(u64::from(len))];
    Ok(from.read_exact(&mut packet).is_ok().then_some(packet))
}

/// ssh's output, noting that something came.
struct Watched<'a> {
    stdout: ChildStdout,
    shared: &'a Shared,
}

impl Read for Watched<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.stdout.read(into)?;
        self.shared.touch();
        Ok(n)
    }
}

/// The end of what ssh says.
#[derive(Default, Clone)]
struct Words(Arc<Mutex<Vec<u8>>>);

impl Words {
    /// Listens in a thread; what is returned is closed when there is nothing more to hear.
    fn listen(&self, mut stderr: ChildStderr) -> io::Result<Receiver<()>> {
        let (words, (hearing, heard)) = (self.clone(), mpsc::channel());
        thread::Builder::new().name("sftp-words".into()).spawn(move || {
            let (_open_until_the_end, mut piece): (Sender<()>, _) = (hearing, [0; WORDS_MAX]);
            while let Ok(n @ 1..) = stderr.read(&mut piece) {
                let mut kept = lock(&words.0);
                kept.extend(piece.get(..n).unwrap_or_default());
                let old = kept.len().saturating_sub(WORDS_MAX);
                kept.drain(..old);
            }
        })?;
        Ok(heard)
    }

    /// What a session's end means to those who wait for it.
    fn failure(&self, why: Stop, first: bool) -> Failure {
        let said = lock(&self.0);
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().map(str::trim).rfind(|l| !l.is_empty()).map(|l| escape(l.as_bytes()));
        let refused =
            ["Permission denied (", "Host key verification failed"].iter().any(|w| said.contains(w));
        let with = |text: String| match &last {
            Some(last) => format!("{text}: {last}"),
            None => text,
        };
        match why {
            Stop::Closed if first && refused => Failure::new(Kind::Denied, with("cannot connect".into())),
            Stop::Closed => Failure::passing(with("cannot connect".into())),
            Stop::Babble(e) => Failure::last(with(e.to_string())),
            Stop::Malformed(e) => Failure::passing(with(e.to_string())),
            Stop::Ended => Failure::passing(with("the connection ended".into())),
        }
    }
}

fn usize_of(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
