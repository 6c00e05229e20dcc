//! A hermetic home: an empty environment, a directory of its own, no terminal.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A home with nothing in it, or with a repository that opens with a key file (which costs no Argon2).
pub struct Home {
    dir: TempDir,
    env: Vec<(&'static str, String)>,
    /// Each command runs as on a machine that has never seen the repository: for tests that set it back themselves.
    amnesia: std::sync::atomic::AtomicBool,
    commands: std::sync::atomic::AtomicU64,
}

/// The program under test.
pub const BULLA: &str = env!("CARGO_BIN_EXE_bulla");

/// How a command ended. Every use ends in [`Ran::ok`] or [`Ran::ends`].
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Home {
    pub fn empty() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            env: Vec::new(),
            amnesia: std::sync::atomic::AtomicBool::new(false),
            commands: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// As [`Home::with_repository`], in memory where the machine has room for it: for tests of thousands of commands.
    pub fn fast() -> Self {
        Self::fast_and_empty().furnished()
    }

    /// As [`Home::empty`], in memory.
    pub fn fast_and_empty() -> Self {
        let memory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: memory.unwrap(), ..Self::empty() }
    }

    /// With the repository `repo`, the key file `key` and some files in `src`.
    pub fn with_repository() -> Self {
        Self::empty().furnished()
    }

    fn furnished(mut self) -> Self {
        self.bulla("init -r repo --key-file-out key").ok();
        self.set("BULLA_REPOSITORY", "repo");
        self.set("BULLA_KEY_FILE", "key");
        self.write("src/hello", b"hello\n");
        self.write("src/sub/more.log", &[7; 100_000]);
        self
    }

    /// From now on no command remembers what the repository has shown before.
    pub fn forgets(&self) {
        self.amnesia.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn set(&mut self, name: &'static str, value: &str) {
        self.unset(name);
        self.env.push((name, value.to_owned()));
    }

    pub fn unset(&mut self, name: &str) {
        self.env.retain(|(n, _)| *n != name);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The absolute path of `name`, as snapshots show it.
    pub fn shown(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `bulla` with the words of `line`.
    #[must_use = "look at how it ended"]
    pub fn bulla(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>(), b"")
    }

    /// Runs `bulla` with `args` and `input` on its standard input.
    #[must_use = "look at how it ended"]
    pub fn run(&self, args: &[&str], input: &[u8]) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // Who does not read its input closes it, and that is no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::of(child.wait_with_output().unwrap())
    }

    /// The command, for tests that drive it themselves.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_of(BULLA, args)
    }

    /// Another program in the same surroundings.
    pub fn command_of(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(args).env_clear().env("HOME", self.dir.path()).env("PATH", "/usr/bin:/bin");
        // Root's own place is not the test's.
        command.env("XDG_STATE_HOME", self.path(".local/state"));
        command.current_dir(self.dir.path()).envs(self.env.iter().map(|(n, v)| (n, v)));
        if self.amnesia.load(std::sync::atomic::Ordering::Relaxed) {
            let n = self.commands.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            command.env("XDG_STATE_HOME", self.path(&format!("state-{n}")));
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// All objects of one area of `repo`.
    pub fn objects(&self, area: &str) -> Vec<PathBuf> {
        fn walk(dir: &Path, out: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, out) } else { out.push(path) }
            }
        }
        let mut out = Vec::new();
        walk(&self.path("repo").join(area), &mut out);
        out.sort();
        out
    }
}

impl Ran {
    /// From what the process left; the code of one that was killed is -1.
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
            err: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
        }
    }

    /// Succeeded; gives what it printed.
    #[track_caller]
    pub fn ok(self) -> String {
        self.ends(0).out
    }

    /// Ended with `code`.
    #[track_caller]
    pub fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.out, self.err);
        self
    }

    /// Says `text` on stderr.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.err.contains(text), "no {text:?} in stderr:\n{}", self.err);
        self
    }

    /// Prints `text` on stdout.
    #[track_caller]
    pub fn prints(self, text: &str) -> Self {
        assert!(self.out.contains(text), "no {text:?} in stdout:\n{}", self.out);
        self
    }
}
