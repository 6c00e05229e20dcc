//! Runs as they are started and stopped: by a schedule, by a daemon, by signals, and with secrets from odd places.

use crate::home::{Home, Ran};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A repository and a configuration with these jobs.
fn furnished(jobs: &str) -> Home {
    let home = Home::empty();
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out disk.recovery").ok();
    home.write("src/letter", b"hello");
    configure(&home, jobs);
    home
}

fn configure(home: &Home, jobs: &str) {
    let text = format!(
        "[destination.disk]\nurl = \"{}\"\nkey = {{ file = \"{}\" }}\n{}",
        home.shown("disk"),
        home.shown("disk.key"),
        jobs.replace("DIR", &home.shown("."))
    );
    home.write("jobs.toml", text.as_bytes());
}

fn files(name: &str, keys: &str) -> String {
    format!("[job.{name}]\nsource = {{ paths = [\"DIR/src\"] }}\nto = [\"disk\"]\n{keys}\n")
}

/// Long, for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(300);

fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// True if any process has this word among its arguments.
fn runs(word: &str) -> bool {
    let all = std::fs::read_dir("/proc").unwrap().flatten().map(|e| e.path().join("cmdline"));
    all.filter_map(|path| std::fs::read(path).ok())
        .any(|c| c.split(|b| *b == 0).any(|w| w == word.as_bytes()))
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

/// A dump that hangs, in a shell that started it: one Ctrl-C ends all of it, and the run is on record.
#[test]
fn one_signal_ends_a_run_whose_command_hangs() {
    let mark = "31536007";
    let dump = format!(
        "[job.dump]\nsource = {{ command = [\"sh\", \"-c\", \"echo begin; touch DIR/begun; sleep {mark}; true\"], as = \"d\" }}\nto = [\"disk\"]\n"
    );
    let home = furnished(&(dump + &files("files", "")));
    // The second of two jobs: a signal counts once however many jobs were watched before.
    let child = home.command(&["run", "files", "dump", "--config", "jobs.toml"]).spawn().unwrap();
    until("the dump to begin", || home.path("begun").exists() && runs(mark));
    signal(&child, Signal::SIGINT);
    let ran = Ran::of(child.wait_with_output().unwrap()).ends(130);
    assert!(ran.out.contains("dump: interrupted"), "{}", ran.out);
    until("nothing to be left behind", || !runs(mark));
    home.bulla("status dump --config jobs.toml").ends(130).prints("the last run ended interrupted");
    home.bulla("snapshots -r disk --key-file disk.key").ends(0).prints("1 snapshot\n");
}

#[test]
fn a_run_that_finds_its_job_running_says_so() {
    let hook = "hooks = [{ at = \"before\", command = [\"sh\", \"-c\", \"touch DIR/begun; while test ! -e DIR/go; do sleep 0.05; done\"] }]";
    let home = furnished(&(files("slow", hook) + &files("other", "schedule = \"30 1 * * *\"")));
    let child = home.command(&["run", "slow", "--config", "jobs.toml"]).spawn().unwrap();
    until("the hook to run", || home.path("begun").exists());
    home.bulla("run slow --config jobs.toml")
        .ends(11)
        .says("job slow is running already; this run was not begun");
    // Also one that keeps nothing on this machine.
    home.bulla("run slow --no-cache --config jobs.toml").ends(11).says("is running already");
    home.bulla("run --due --config jobs.toml").ends(0).prints("other: ok");
    home.write("go", b"");
    Ran::of(child.wait_with_output().unwrap()).ok();
}

#[test]
fn a_store_that_is_away_does_not_make_a_job_due_at_every_call() {
    let home = furnished(&files("files", "schedule = \"30 1 1 1 *\""));
    home.bulla("run --due --config jobs.toml").ends(0).prints("files: ok");
    std::fs::rename(home.path("disk"), home.path("away")).unwrap();
    for _ in 0..2 {
        home.bulla("run --due --config jobs.toml")
            .ends(0)
            .prints("no job is due")
            .says("disk cannot be read");
    }
    home.bulla("status --config jobs.toml").ends(6).prints("whether files has ever run is not known");
    std::fs::rename(home.path("away"), home.path("disk")).unwrap();
    home.bulla("run --due --config jobs.toml").ends(0).prints("no job is due");
}

#[test]
fn nothing_needs_a_home() {
    let mut home = furnished(&files("files", ""));
    home.bulla("run files --no-cache --config jobs.toml").ok();
    home.set("XDG_STATE_HOME", "");
    home.set("HOME", "");
    home.set("XDG_RUNTIME_DIR", &home.shown("runtime"));
    if !nix::unistd::geteuid().is_root() {
        home.bulla("run files --config jobs.toml").ok();
        assert!(home.path("runtime/bulla/jobs").is_dir());
    }
}

/// Names come from a file that somebody else may have written.
#[test]
fn names_are_escaped_wherever_they_are_printed() {
    let home = furnished("");
    configure(
        &home,
        &files(
            "\"a\\u001b[31m\"",
            "hooks = [{ at = \"before\", command = [\"/no/\\u001b\"] }]\ndrill = { sample = \"daily\" }",
        ),
    );
    let name = "a\u{1b}[31m";
    for args in [&["run", name][..], &["run", "--all"], &["drill", name], &["drill", "--due"], &["status"]] {
        let ran = home.run(&[args, &["--config", "jobs.toml"]].concat(), b"");
        assert!(
            !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
            "{args:?}: {} {}",
            ran.out,
            ran.err
        );
    }
}

#[test]
fn a_secret_may_be_behind_a_descriptor() {
    let home = furnished(&files("files", "drill = { sample = \"daily\" }"));
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    let key = format!("{{ file = \"{}\" }}", home.shown("disk.key"));
    assert!(text.contains(&key));
    home.write("jobs.toml", text.replace(&key, "{ fd = 7 }").as_bytes());
    let sh = |script: &str| {
        let script = format!("exec {script}").replace("BULLA", crate::home::BULLA);
        Ran::of(home.command_of("bash", &["-c", &script]).output().unwrap())
    };
    // A pipe gives it once, and a run opens the repository several times.
    sh("BULLA run files --config jobs.toml 7< <(cat disk.key)").ok();
    sh("BULLA drill files --config jobs.toml 7<disk.key").ok();
    sh("BULLA run files --config jobs.toml 7<&-").ends(12).says("cannot read the secret behind descriptor 7");
}

#[test]
fn a_device_or_an_image_of_one_is_backed_up_whole() {
    let home = furnished(
        "[job.image]\nsource = { block = \"DIR/image\", as = \"machine.img\" }\nto = [\"disk\"]\n[job.wrong]\nsource = { block = \"DIR/src\" }\nto = [\"disk\"]\n",
    );
    let mut image = vec![0; 9 << 20];
    image[5 << 20..6 << 20].copy_from_slice(&crate::content::noise(1, 1 << 20));
    let file = std::fs::File::create(home.path("image")).unwrap();
    file.set_len(image.len() as u64).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &image[5 << 20..6 << 20], 5 << 20).unwrap();
    home.bulla("run image --config jobs.toml").ends(0);
    home.bulla("drill image --full --config jobs.toml").ends(0).prints("all were compared");
    home.bulla("restore latest -r disk --key-file disk.key -t out").ok();
    assert!(home.read("out/machine.img") == image);
    home.bulla("run wrong --config jobs.toml").ends(1).says("neither a block device nor a regular file");
    loop_device(&home, &image);
}

/// The same through the kernel, where that is allowed.
fn loop_device(home: &Home, image: &[u8]) {
    let passed_over = |why: &str| println!("loop devices: passed over: {why}");
    if !nix::unistd::geteuid().is_root() {
        return passed_over("not root");
    }
    let made = home.command_of("losetup", &["--find", "--show", &home.shown("image")]).output();
    let Some(made) = made.ok().filter(|made| made.status.success()) else {
        return passed_over("losetup does not work here");
    };
    let device = String::from_utf8(made.stdout).unwrap().trim().to_owned();
    configure(home, &format!("[job.loop]\nsource = {{ block = \"{device}\" }}\nto = [\"disk\"]\n"));
    let ran = home.bulla("run loop --config jobs.toml");
    home.command_of("losetup", &["--detach", &device]).output().unwrap();
    ran.ok();
    home.bulla("restore latest -r disk --key-file disk.key -t out2").ok();
    assert!(home.read(&format!("out2{device}")) == image);
}

/// A daemon, and the lines that it has printed so far.
struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

/// Whatever a test does.
impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    fn start(home: &Home) -> Self {
        let mut child =
            home.command(&["daemon", "--config", "jobs.toml"]).stdin(Stdio::null()).spawn().unwrap();
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let read = |from: Box<dyn std::io::Read + Send>| {
            let lines = lines.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    lines.lock().unwrap().push(line);
                }
            });
        };
        read(Box::new(out));
        read(Box::new(err));
        Self { child, lines }
    }

    fn all(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// Waits until it has said this so often.
    fn says(&self, text: &str, times: usize) {
        let begun = Instant::now();
        while self.all().matches(text).count() < times {
            assert!(begun.elapsed() < PATIENCE, "no {text:?} {times} times in:\n{}", self.all());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ends(mut self, with: Signal) -> i32 {
        signal(&self.child, with);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

#[test]
fn a_daemon_runs_what_is_due_and_keeps_what_is_sound() {
    let yearly = "schedule = \"30 1 1 1 *\"\ndrill = { full = \"yearly\", target = \"DIR/scratch\" }";
    let home = furnished(&files("one", yearly));
    let daemon = Daemon::start(&home);
    daemon.says("one: ok", 1);
    // Drills come after, when there is something to restore.
    daemon.says("full drill of one from disk", 1);
    daemon.says("PASS", 1);
    daemon.says("next: ", 1);
    let sound = files("one", yearly) + &files("two", "schedule = \"0 5 2 1 *\"");
    configure(&home, &sound.replace("[job.two]", "[job.two]\ncolour = \"red\""));
    signal(&daemon.child, Signal::SIGHUP);
    daemon.says("the old configuration stays in force", 1);
    daemon.says("no key is named job.two.colour", 1);
    daemon.says("next: ", 2);
    assert!(!daemon.all().contains("two: ok"), "{}", daemon.all());
    configure(&home, &sound);
    signal(&daemon.child, Signal::SIGHUP);
    daemon.says("the configuration was read again", 1);
    daemon.says("two: ok", 1);
    daemon.says("next: ", 3);
    assert_eq!(daemon.all().matches("one: ok").count(), 1, "{}", daemon.all());
    assert_eq!(daemon.ends(Signal::SIGTERM), 0);
    home.bulla("drill one --history --config jobs.toml").ends(0).prints("pass");
    home.bulla("run --due --config jobs.toml").ends(0).prints("no job is due");
    home.bulla("drill --due --config jobs.toml").ends(0).prints("no drill is due");
}

#[test]
fn a_daemon_runs_on_time_and_stops_a_run_as_run_does() {
    let hangs = "hooks = [{ at = \"before\", command = [\"sh\", \"-c\", \"test ! -e DIR/hang || sleep 31536008\"] }, { at = \"finally\", command = [\"sh\", \"-c\", \"echo x >> DIR/thawed\"] }]";
    let home = furnished(&files("often", &format!("schedule = \"* * * * *\"\n{hangs}")));
    let daemon = Daemon::start(&home);
    daemon.says("often: ok", 1);
    // The next minute, for real.
    daemon.says("next: run of often at ", 1);
    daemon.says("often: ok", 2);
    home.write("hang", b"");
    until("a run to hang", || runs("31536008"));
    assert_eq!(daemon.ends(Signal::SIGTERM), 130);
    until("nothing to be left behind", || !runs("31536008"));
    let thawed = home.read("thawed").len();
    let told = home.bulla("status --config jobs.toml").ends(130);
    assert!(thawed >= 6 && told.out.contains("the last run ended interrupted"), "{}", told.out);
}

/// A place that is out of reach, and a job that fails, are tried again when that makes sense, and not without end.
#[test]
fn a_daemon_does_not_hammer_what_fails() {
    let home = furnished(&files("one", "schedule = \"30 1 1 1 *\""));
    std::fs::rename(home.path("disk"), home.path("away")).unwrap();
    let daemon = Daemon::start(&home);
    daemon.says("one: ", 1);
    daemon.says("next: run of one at ", 1);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(daemon.all().matches("one: failed").count(), 1, "{}", daemon.all());
    assert_eq!(daemon.all().matches("disk cannot be read").count(), 1, "{}", daemon.all());
    assert_eq!(daemon.ends(Signal::SIGINT), 0);
}
