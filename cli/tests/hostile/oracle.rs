//! What must hold of every command on a hostile repository, whatever it says: it ends in time and in words, takes little
//! memory, prints nothing a terminal obeys, writes nothing outside its target, and its exit code tells.

use crate::forge::Forge;
use crate::home::{Home, Ran};
use bulla_engine::restore::safe_dir::SafeDir;
use nix::sys::resource::{UsageWho, getrusage};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Peak resident memory of a command, without Argon2.
pub const MEMORY_MAX: u64 = 256 << 20;
/// A command ends within this, on a machine that does other work besides.
const TIME_MAX: Duration = Duration::from_secs(60);
/// Output that is kept; the rest is read and dropped.
const OUTPUT_MAX: usize = 4 << 20;

/// The exit codes that are right: of a check, of one that reads all packs, of listing, of restoring.
#[derive(Clone, Copy)]
pub struct Codes {
    pub check: &'static [i32],
    pub read: &'static [i32],
    pub list: &'static [i32],
    pub restore: &'static [i32],
}

/// A repository by hand.
pub struct Case {
    /// What it does.
    pub name: &'static str,
    pub build: fn(&mut Forge),
    pub codes: Codes,
    /// Beyond [`MEMORY_MAX`], what the user allowed.
    pub argon2: u64,
    /// Only where it is asked for.
    pub long: bool,
    /// What must be in the target afterwards.
    pub after: fn(&Home),
}

/// The tree is a forgery: everybody says so.
pub const fn damaged(name: &'static str, build: fn(&mut Forge)) -> Case {
    let codes = Codes { check: &[4], read: &[4], list: &[4], restore: &[4] };
    Case { name, build, codes, argon2: 0, long: false, after: |_| {} }
}

/// Odd, and harmless: it restores.
pub const fn harmless(name: &'static str, build: fn(&mut Forge)) -> Case {
    let codes = Codes { check: &[0], read: &[0], list: &[0], restore: &[0] };
    Case { name, build, codes, argon2: 0, long: false, after: |_| {} }
}

impl Case {
    pub const fn checks(mut self, codes: &'static [i32]) -> Self {
        (self.codes.check, self.codes.read) = (codes, codes);
        self
    }
    /// A check that reads all packs.
    pub const fn reads(mut self, codes: &'static [i32]) -> Self {
        self.codes.read = codes;
        self
    }
    pub const fn lists(mut self, codes: &'static [i32]) -> Self {
        self.codes.list = codes;
        self
    }
    pub const fn restores(mut self, codes: &'static [i32]) -> Self {
        self.codes.restore = codes;
        self
    }
    pub const fn after(mut self, after: fn(&Home)) -> Self {
        self.after = after;
        self
    }
    /// Whatever is said is right, as long as all else holds.
    pub const fn codes_any(mut self) -> Self {
        self.codes = Codes { check: ANY, read: ANY, list: ANY, restore: ANY };
        self
    }
    /// Takes more than a minute: only where it is asked for.
    pub const fn long(mut self) -> Self {
        self.long = true;
        self
    }
    pub const fn argon2(mut self, bytes: u64) -> Self {
        self.argon2 = bytes;
        self
    }
}

/// What all cases took.
#[derive(Default)]
pub struct Figures {
    pub commands: u64,
    pub slowest: (Duration, String),
    pub peak: u64,
    pub failures: Vec<String>,
}

/// The most memory that any child of this process took.
pub fn peak() -> u64 {
    getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss() as u64 * 1024
}

/// A place outside the target with everything that could be harmed.
pub fn plant(home: &Home) {
    fs::create_dir_all(home.path("outside/deep")).unwrap();
    home.write("outside/canary", b"alive");
    home.write("outside/deep/canary", b"alive too");
    fs::set_permissions(home.path("outside/canary"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("canary", home.path("outside/link")).unwrap();
}

/// Everything below a home that a command on a repository may not touch: mode, owner, times, content.
pub fn describe(home: &Home) -> BTreeMap<String, String> {
    let top = home.path("");
    let (mut out, mut stack) = (BTreeMap::new(), vec![top.clone()]);
    while let Some(path) = stack.pop() {
        let name = path.strip_prefix(&top).unwrap().to_string_lossy().into_owned();
        // Ours: the target, what this machine remembers, and the ledger of checks.
        if matches!(name.as_str(), "out" | ".cache" | ".local" | "repo/records") {
            continue;
        }
        let meta = path.symlink_metadata().unwrap();
        let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
        let mut line = format!("{:o} {}:{} {} {times:?}", meta.mode(), meta.uid(), meta.gid(), meta.nlink());
        if meta.is_dir() {
            // New entries beside ours change these of the top and of the repository.
            line = format!("{:o} {}:{}", meta.mode(), meta.uid(), meta.gid());
            stack.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        } else if meta.len() > 1 << 30 {
            // Without content; its times tell whether it was written to.
            line += &meta.len().to_string();
        } else if meta.is_file() {
            line += &blake3::hash(&fs::read(&path).unwrap()).to_hex();
        }
        out.insert(name, line);
    }
    out
}

/// Runs a command to its end, or to [`TIME_MAX`].
fn run(home: &Home, args: &[&str]) -> Result<(Ran, Duration), String> {
    let began = Instant::now();
    let mut child = home.command(args).stdin(Stdio::null()).spawn().unwrap();
    let keep = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                if kept.len() < OUTPUT_MAX {
                    kept.extend_from_slice(&buffer[..n]);
                }
            }
            kept
        })
    };
    let out = keep(Box::new(child.stdout.take().unwrap()));
    let err = keep(Box::new(child.stderr.take().unwrap()));
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if began.elapsed() > TIME_MAX {
            child.kill().unwrap();
            child.wait().unwrap();
            return Err(format!("`{}` did not end in {TIME_MAX:?}", args.join(" ")));
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let text = |t: std::thread::JoinHandle<Vec<u8>>| String::from_utf8_lossy(&t.join().unwrap()).into_owned();
    Ok((Ran { code: status.code().unwrap_or(-1), out: text(out), err: text(err) }, began.elapsed()))
}

/// What is wrong with how a command ended.
fn judge(args: &[&str], ran: &Ran, codes: &[i32]) -> Option<String> {
    let line = args.join(" ");
    // The bytes of a file are its own.
    let raw = line.starts_with("cat latest:");
    let control = |s: &str| s.chars().any(|c| c != '\n' && c.is_control());
    if ran.err.contains("panicked") || !(0..100).contains(&ran.code) {
        Some(format!("`{line}` died ({}): {}", ran.code, ran.err))
    } else if (!raw && control(&ran.out)) || control(&ran.err) {
        Some(format!("`{line}` prints control characters"))
    } else if args.contains(&"--json") && !is_json(&ran.out) {
        Some(format!("`{line}` prints something else than JSON"))
    } else if !codes.contains(&ran.code) {
        Some(format!(
            "`{line}` ended with {} and not {codes:?}: {}{}",
            ran.code,
            ran.err,
            &ran.out[..ran.out.len().min(600)]
        ))
    } else if ran.code != 0 && ran.err.is_empty() && ran.out.is_empty() {
        Some(format!("`{line}` failed without a word"))
    } else {
        None
    }
}

fn is_json(text: &str) -> bool {
    text.len() >= OUTPUT_MAX
        || serde_json::Deserializer::from_str(text).into_iter::<serde_json::Value>().all(|v| v.is_ok())
}

/// Any code that is no crash: a dry prune deletes nothing, and a file may not be there.
const ANY: &[i32] = &[0, 1, 2, 3, 4, 5, 9, 12];

/// Builds a case and runs every command that reads a repository on it.
pub fn try_case(case: &Case, figures: &mut Figures) {
    let mut forge = Forge::new();
    plant(&forge.home);
    (case.build)(&mut forge);
    let home = &forge.home;
    let before = describe(home);
    let Codes { check, read, list, restore } = case.codes;
    let commands: [(&str, &[i32]); 13] = [
        ("snapshots", ANY),
        ("snapshots --json", ANY),
        ("ls -l latest", list),
        ("ls --json latest", list),
        ("cat tree latest", list),
        ("cat latest:/f", ANY),
        ("check", check),
        ("check --read-data --json", read),
        ("restore latest -t out", restore),
        ("restore latest -t out --verify --sparse", restore),
        ("restore latest:/d -t out/sub", ANY),
        ("restore latest -t out --delete --dry-run", ANY),
        ("prune --dry-run", ANY),
    ];
    // All of them open a slot first, and that is all that counts there.
    let commands = commands.into_iter().take(if case.argon2 > 0 { 2 } else { usize::MAX });
    for (line, codes) in commands {
        let args: Vec<&str> = line.split(' ').collect();
        figures.commands += 1;
        let fault = match run(home, &args) {
            Err(fault) => Some(fault),
            Ok((ran, took)) => {
                if took > figures.slowest.0 {
                    figures.slowest = (took, format!("{}: {line}", case.name));
                }
                judge(&args, &ran, codes)
            }
        };
        let mut note = |fault: String| figures.failures.push(format!("{}: {fault}", case.name));
        fault.into_iter().for_each(&mut note);
        // The most of all so far: who raises it beyond the bound is named once.
        if peak() > figures.peak {
            figures.peak = peak();
            if figures.peak > MEMORY_MAX + case.argon2 {
                note(format!("`{line}` took {} MiB", figures.peak >> 20));
            }
        }
    }
    if describe(home) != before || !outside_is_alone(&home.path("outside")) {
        figures.failures.push(format!("{}: something outside the target changed", case.name));
    }
    if std::panic::catch_unwind(AssertUnwindSafe(|| (case.after)(home))).is_err() {
        figures.failures.push(format!("{}: the target is not what it should be", case.name));
    }
    // Deeper than the library that removes the home can go.
    if let Ok(mut dir) = SafeDir::open(&home.path("")) {
        dir.remove_all(b"", b"out", &|_, _| true).unwrap();
    }
}

/// Nothing joined the canaries.
fn outside_is_alone(dir: &Path) -> bool {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    names == ["canary", "deep", "link"]
}
