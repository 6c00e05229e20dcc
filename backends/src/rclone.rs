//! Whatever rclone reaches, through a server that it is made to be: `rclone serve restic` on the loopback interface, with
//! a password of this process's own. (restic talks to it over pipes, in HTTP/2; a port needs no second HTTP library.)

use crate::http::{Http, Timeouts};
use crate::rest::{Names, Rest};
use crate::store::{Attempt, Failure, Mode, Page, Part, Put, Stat, Store};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// Until it serves; some clouds are asked things before that.
const START: Duration = Duration::from_secs(60);
const USER: &str = "bulla";

/// How rclone is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Its name for the place: `remote:path`.
    pub remote: String,
    /// The program.
    pub program: String,
    /// Arguments between `serve restic` and the remote.
    pub arguments: Vec<String>,
    /// Operations under way at once.
    pub connections: usize,
}

/// A server of our own, started when first needed and again when it died.
pub struct Rclone {
    config: Config,
    running: Mutex<Option<Running>>,
    /// Kept beyond the end of a server, which may have left what an upload had put.
    names: Arc<Names>,
}

struct Running {
    /// The shell; what it reads from is kept open here.
    shell: Child,
    rest: Arc<Rest>,
    ended: Arc<AtomicBool>,
}

/// Starts a program and ends it when standard input does: also when this process is killed and can do nothing more.
const KEEPER: &str = r#""$@" </dev/null & exec 2>/dev/null; read _; kill $!; wait $!"#;

impl Drop for Running {
    fn drop(&mut self) {
        end(&mut self.shell);
    }
}

fn end(shell: &mut Child) {
    drop(shell.stdin.take());
    let _ = shell.wait();
}

impl Rclone {
    /// The store, without starting anything.
    pub fn new(config: Config) -> Self {
        Self { config, running: Mutex::new(None), names: Arc::default() }
    }

    /// The server, started if it is not there.
    fn server(&self) -> Attempt<Arc<Rest>> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(alive) = running.as_ref().filter(|r| !r.ended.load(Ordering::SeqCst)) {
            return Ok(alive.rest.clone());
        }
        let started = self.start()?;
        let rest = started.rest.clone();
        *running = Some(started);
        Ok(rest)
    }

    fn start(&self) -> Attempt<Running> {
        let mut secret = [0; 24];
        getrandom::fill(&mut secret).map_err(|e| Failure::last(format!("no random password: {e}")))?;
        let password: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let mut shell = Command::new("/bin/sh")
            .args(["-c", KEEPER, "sh", &self.config.program])
            .args(["serve", "restic", "--addr", "127.0.0.1:0"])
            .args(&self.config.arguments)
            .arg(&self.config.remote)
            // In the environment, which others cannot see, and not on the command line, which they can.
            .env("RCLONE_USER", USER)
            .env("RCLONE_PASS", &password)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Failure::last(format!("cannot start {}: {e}", self.config.program)))?;
        let ended = Arc::new(AtomicBool::new(false));
        let ready = listen(&mut shell, ended.clone()).and_then(|port| {
            let url = format!("http://{USER}:{password}@127.0.0.1:{port}/");
            let url: Url = url.parse().map_err(|_| Failure::last("rclone's address makes no sense"))?;
            let http =
                Http::new(None, self.config.connections, Timeouts::default()).map_err(Failure::last)?;
            let rest = Rest::new(http, url, Some(self.place()), self.config.connections);
            Ok(Arc::new(rest.knowing(self.names.clone())))
        });
        match ready {
            Ok(rest) => Ok(Running { shell, rest, ended }),
            Err(failure) => {
                end(&mut shell);
                Err(failure)
            }
        }
    }
}

/// Reads what rclone says until it serves, and on until it ends so that it never waits for us. The port it serves on.
fn listen(shell: &mut Child, ended: Arc<AtomicBool>) -> Attempt<u16> {
    let Some(stderr) = shell.stderr.take() else { return Err(Failure::last("rclone says nothing")) };
    let (say, said) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let _ = say.send(String::from_utf8_lossy(&line).into_owned());
        }
        ended.store(true, Ordering::SeqCst);
    });
    let mut last = String::new();
    loop {
        match said.recv_timeout(START) {
            Ok(line) => match port_in(&line) {
                Some(port) => return Ok(port),
                None => last = line,
            },
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(Failure::passing(format!("rclone does not serve after {START:?}: {last}")));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::last(format!("rclone ended: {last}")));
            }
        }
    }
}

/// The port in `… Serving restic REST API on [http://127.0.0.1:43211/]`, in the words of several versions.
fn port_in(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("http://127.0.0.1:")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

impl Store for Rclone {
    fn place(&self) -> String {
        format!("rclone:{}", self.config.remote)
    }
    fn prepare(&self) -> Attempt<()> {
        self.server()?.prepare()
    }
    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        self.server()?.put(path, parts, mode)
    }
    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>> {
        self.server()?.get(path, part)
    }
    fn list(&self, dir: &str, from: Option<&str>) -> Attempt<Page> {
        self.server()?.list(dir, from)
    }
    fn stat(&self, path: &str) -> Attempt<Option<Stat>> {
        self.server()?.stat(path)
    }
    fn delete(&self, path: &str) -> Attempt<()> {
        self.server()?.delete(path)
    }
    fn exact(&self) -> Attempt<bool> {
        Ok(false)
    }
    fn connections(&self) -> usize {
        self.config.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_in_what_versions_print() {
        let old =
            "2026/01/01 NOTICE: Local file system at /x: Serving restic REST API on http://127.0.0.1:40241/";
        let new =
            "2026/01/01 NOTICE: Local file system at /x: Serving restic REST API on [http://127.0.0.1:7/]";
        assert_eq!((port_in(old), port_in(new), port_in("else")), (Some(40241), Some(7), None));
    }
}
