//! A real PostgreSQL server, and a database of it backed up, restored and asked.

use crate::remote::servers::Running;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The server, on a socket of its own.
pub(crate) struct Postgres {
    bin: PathBuf,
    socket: PathBuf,
    _running: Running,
}

/// Where Debian puts the programs, or the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|v| v.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path));
    let there = found.into_iter().rfind(|bin| bin.join("initdb").exists() && bin.join("pg_dump").exists());
    if there.is_none() {
        let text = "postgresql is not installed";
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{text}");
        println!("{text}: passed over");
    }
    there
}

impl Postgres {
    /// Starts one with a database `billing`.
    pub(crate) fn start() -> Option<Self> {
        let bin = programs()?;
        let dir = tempfile::Builder::new().prefix("pg").tempdir_in("/tmp").unwrap();
        let root = rustix::process::geteuid().is_root();
        // PostgreSQL does not run as root.
        let user: &[&str] = if root {
            &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        } else {
            &["env"]
        };
        if root {
            let done = Command::new("chown").arg("postgres").arg(dir.path()).status().unwrap();
            assert!(done.success());
        }
        let data = dir.path().join("data");
        let initdb = bin.join("initdb");
        let made = Command::new(user[0])
            .args(&user[1..])
            .arg(&initdb)
            .args(["--auth=trust", "--username=bulla", "--no-sync", "--pgdata"])
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let socket = dir.path().to_owned();
        let (postgres, at) = (bin.join("postgres").display().to_string(), socket.display().to_string());
        let data = data.display().to_string();
        let mut words: Vec<&str> = user[1..].to_vec();
        words.extend([&postgres, "-D", &data, "-k", &at, "-c", "listen_addresses=", "-c", "fsync=off"]);
        let program = ["/usr/bin", "/bin"].iter().map(|d| Path::new(d).join(user[0])).find(|p| p.exists());
        let mut running = Running::start(&program.unwrap(), dir, &words);
        let ready = bin.join("pg_isready");
        running.until("PostgreSQL", || {
            Command::new(&ready).args(["-q", "-h"]).arg(&socket).status().is_ok_and(|s| s.success())
        });
        let server = Self { bin, socket, _running: running };
        server.sql("postgres", "CREATE DATABASE billing");
        Some(server)
    }

    /// A program with the server's address.
    pub(crate) fn words(&self, program: &str) -> Vec<String> {
        let at = self.socket.display().to_string();
        vec![self.bin.join(program).display().to_string(), "-h".into(), at, "-U".into(), "bulla".into()]
    }

    /// Runs SQL; what it prints.
    pub(crate) fn sql(&self, database: &str, text: &str) -> String {
        let words = self.words("psql");
        let Output { status, stdout, stderr } = Command::new(&words[0])
            .args(&words[1..])
            .args(["-d", database, "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-c", text])
            .output()
            .unwrap();
        assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_owned()
    }
}

/// As a list of TOML.
pub(crate) fn toml(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    format!("[{}]", quoted.join(", "))
}
