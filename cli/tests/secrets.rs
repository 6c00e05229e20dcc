//! Where secrets come from, which one wins, and that none is ever printed.

use crate::home::{BULLA, Home, Ran};
use bulla_engine::format::slot::parse_key;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

#[test]
fn passwords_are_never_printed_and_children_do_not_get_them() {
    let mut home = Home::empty();
    home.write("src/f", b"x");
    home.set("BULLA_REPOSITORY", "repo");
    home.set("BULLA_PASSWORD", "hunter2-is-secret");
    let mut all = String::new();
    let mut keep = |ran: crate::home::Ran| {
        all.push_str(&ran.out);
        all.push_str(&ran.err);
    };
    keep(home.bulla("init --key-file-out key --label first").ends(0));
    keep(home.bulla("backup -vv src").ends(0));
    keep(home.bulla("backup --stdin-from-command --stdin-filename env -- env").ends(0));
    let env = home.bulla("cat latest:env --key-file key").ends(0);
    assert!(env.out.contains("HOME=") && !env.out.contains("PASSWORD"), "{}", env.out);
    keep(env);
    home.unset("BULLA_PASSWORD");
    keep(home.run(&["snapshots", "--password-command", "sh -c 'echo hunter2-is-secret'"], b"").ends(0));
    keep(home.run(&["snapshots", "--password-command", "echo hunter2-is-secret-not"], b"").ends(12));
    assert!(!all.contains("hunter2"), "{all}");
}

#[test]
fn key_files_cost_nothing_and_come_from_everywhere() {
    let mut home = Home::with_repository();
    let (repo, key) = (home.shown("repo"), home.shown("key"));
    home.write("where", format!("{repo}\n").as_bytes());
    home.unset("BULLA_REPOSITORY");
    home.unset("BULLA_KEY_FILE");
    home.bulla(&format!("snapshots --repository-file where --key-file {key}")).ok();
    home.bulla(&format!("snapshots -r file:{repo} --key-file {key}")).ok();
    home.set("BULLA_REPOSITORY_FILE", "where");
    home.set("BULLA_KEY_FILE", "key");
    home.bulla("snapshots").ok();
    // An option wins over the environment, two variables of one meaning are a mistake.
    home.bulla("snapshots -r nowhere").ends(10);
    home.write("wrong", &[9; 32]);
    home.bulla("snapshots --key-file wrong").ends(12);
    home.set("BULLA_PASSWORD", "x");
    home.bulla("snapshots").ends(2).says("BULLA_PASSWORD and BULLA_KEY_FILE are both set");
    home.bulla("snapshots --key-file key").ok();
    // systemd's credentials come last.
    home.unset("BULLA_PASSWORD");
    home.unset("BULLA_KEY_FILE");
    home.write("credentials/bulla.key", &home.read("key"));
    home.set("CREDENTIALS_DIRECTORY", "credentials");
    home.bulla("snapshots").ok();
}

#[test]
fn files_with_secrets_are_private() {
    let home = Home::with_repository();
    let mode = |name: &str| home.path(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("key"), 0o600);
    std::fs::set_permissions(home.path("key"), PermissionsExt::from_mode(0o644)).unwrap();
    home.bulla("snapshots").ends(0).says("can be read by others (mode 0644)");
    home.bulla("key add --key-file-out key").ends(1).says("cannot create key");
    home.bulla("key add --key-file-out key2").ends(0);
    home.bulla("snapshots --key-file key2").ok();
    let ran = home.bulla("key add --recovery").ends(0);
    assert!(ran.out.contains("BULLA1-"));
    home.bulla("init -r repo --key-file-out never").ends(1);
    assert!(!home.path("never").exists(), "a key file is not left behind");
    home.bulla("init -r src --key-file-out never").ends(1).says("not empty");
    assert!(!home.path("never").exists(), "nor when the repository could not be made");
    let cached = home.path(".cache/bulla");
    home.bulla("backup src --no-cache").ok();
    assert!(!cached.exists(), "--no-cache keeps nothing");
}

/// Secrets in every form in which they could be found again.
struct Canaries(Vec<(String, Vec<u8>)>);

impl Canaries {
    fn password(&mut self, text: &str) {
        self.0.push((format!("the password {text}"), text.as_bytes().to_vec()));
    }

    /// A printed key: as it stands, in small letters, without its marks, raw, and in hexadecimal.
    fn key(&mut self, what: &str, printed: &str) {
        let raw = parse_key(printed).unwrap();
        let bare: String = printed.chars().filter(char::is_ascii_alphanumeric).collect();
        let hex: String = raw.expose().iter().map(|b| format!("{b:02x}")).collect();
        for form in [printed.to_owned(), printed.to_lowercase(), bare, hex] {
            self.0.push((what.to_owned(), form.into_bytes()));
        }
        self.0.push((what.to_owned(), raw.expose().to_vec()));
    }

    #[track_caller]
    fn silent(&self, place: &str, bytes: &[u8]) {
        for (what, form) in &self.0 {
            assert!(!bytes.windows(form.len()).any(|w| w == form), "{what} is in {place}");
        }
    }

    /// In what a command said.
    #[track_caller]
    fn unsaid(&self, line: &str, ran: &Ran) {
        self.silent(&format!("what {line:?} prints"), ran.out.as_bytes());
        self.silent(&format!("what {line:?} says"), ran.err.as_bytes());
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            out.extend(files_below(&path));
        }
        out.push(path);
    }
    out
}

/// The last line of a file with a printed key.
fn printed(home: &Home, name: &str) -> String {
    String::from_utf8(home.read(name)).unwrap().lines().last().unwrap().to_owned()
}

fn private(home: &Home, name: &str, text: &str) {
    home.write(name, text.as_bytes());
    std::fs::set_permissions(home.path(name), PermissionsExt::from_mode(0o600)).unwrap();
}

/// Every command, at the highest verbosity and as JSON, when it works and when it does not; then every file that is left.
#[test]
fn no_secret_is_said_or_left_anywhere() {
    let mut home = Home::empty();
    home.write("src/hello", b"hello\n");
    std::fs::create_dir(home.path("tmp")).unwrap();
    let tmp = home.shown("tmp");
    home.set("TMPDIR", &tmp);
    home.set("BULLA_REPOSITORY", "repo");
    private(&home, "secret-pw", "canary-first-9141\n");
    private(&home, "secret-pw2", "canary-second-9142\n");
    private(&home, "secret-not", "canary-wrong-9143\n");
    let mut canaries = Canaries(Vec::new());
    for password in ["canary-first-9141", "canary-second-9142", "canary-wrong-9143"] {
        canaries.password(password);
    }
    let init =
        "init -vv -p secret-pw --key-file-out secret-key --recovery-key-out secret-recovery --parity 3%";
    let ran = home.bulla(init).ends(0);
    canaries.key("the key file's key", &printed(&home, "secret-key"));
    canaries.key("the recovery key", &printed(&home, "secret-recovery"));
    canaries.unsaid(init, &ran);
    // One letter off, and a password where a key should be: what is wrong is said, not what was there.
    let key = printed(&home, "secret-key");
    let (start, last) = key.split_at(key.len() - 1);
    let off = format!("{start}{}", if last == "A" { 'B' } else { 'A' });
    private(&home, "secret-off", &off);
    canaries.0.push(("a key with a mistake".into(), off.into_bytes()));
    let opens = ["-p secret-pw", "--key-file secret-key", "--key-file secret-recovery"];
    let fails = ["-p secret-not", "--key-file secret-off", "--key-file secret-pw2", "-p missing"];
    for (secrets, code) in [(&opens[..], 0), (&fails[..], 12)] {
        for secret in secrets {
            for line in [format!("backup -vv src {secret}"), format!("snapshots --json {secret}")] {
                canaries.unsaid(&line, &home.bulla(&line).ends(code));
            }
        }
    }
    for line in [
        "ls -vv --json latest",
        "cat config",
        "cat --json snapshot latest",
        "restore -vv latest -t out --verify",
        "restore --json -vv latest -t out",
        "check -vv --read-data --json",
        "repair parity -vv",
        "key add -vv --new-password-file secret-pw2",
        "key add --json --key-file-out secret-key2",
        "key list -vv --json",
        "forget -vv --keep-last 1 --now --yes",
        "prune -vv --json",
        "rescue-kit kit -vv --json",
        "version --json",
    ] {
        let line = format!("{line} --key-file secret-key");
        let ran = home.bulla(&line).ends(0);
        canaries.unsaid(&line, &ran);
    }
    canaries.key("the second key file's key", &printed(&home, "secret-key2"));
    let mut seen = 0;
    for path in files_below(&home.path("")).iter().filter(|p| p.is_file()) {
        if !path.file_name().unwrap().to_str().unwrap().starts_with("secret-") {
            canaries.silent(&path.display().to_string(), &std::fs::read(path).unwrap());
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} files is no repository, cache, state and kit");
}

/// What children are given, and what their parent shows the world beside them.
#[test]
fn children_are_told_no_secret() {
    let mut home = Home::with_repository();
    home.unset("BULLA_KEY_FILE");
    home.set("BULLA_PASSWORD", "canary-env-9144");
    let show = "cat /proc/self/environ /proc/self/cmdline /proc/$PPID/cmdline";
    private(&home, "give", &format!("#!/bin/sh\n{{ {show}; }} >shown\ncat key\n"));
    home.bulla("key add --key-file key --new-password-file give").ends(0);
    let mut canaries = Canaries(Vec::new());
    canaries.password("canary-env-9144");
    canaries.key("the key file's key", &printed(&home, "key"));
    let command = ["backup", "--key-file", "key", "--stdin-filename", "f", "--stdin-from-command", "--"];
    home.run(&[&command[..], &["sh", "-c", show]].concat(), b"").ends(0);
    let seen = home.bulla("cat latest:f --key-file key").ok();
    assert!(seen.contains("HOME=") && seen.contains("stdin-from-command"), "{seen}");
    canaries.silent("the environment or arguments of a command", seen.as_bytes());
    home.unset("BULLA_KEY_FILE");
    let ran = home.run(&["snapshots", "--password-command", "sh give"], b"");
    ran.ends(12);
    let shown = home.read("shown");
    assert!(shown.windows(5).any(|w| w == b"HOME="), "the password command ran");
    canaries.silent("the environment or arguments of a password command", &shown);
}

/// Kills a process when the test is over, however it is.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// As any user: other processes of the same user can neither read its memory nor make it leave a core.
#[test]
fn memory_is_closed_to_other_processes_of_the_user() {
    let home = Home::with_repository();
    let root = nix::unistd::geteuid().is_root();
    std::fs::copy(BULLA, home.path("program")).unwrap();
    if root {
        // Files of root would say nothing: /proc of whoever is root belongs to root.
        let home = home.path("");
        let status = Command::new("chown").args(["-R", "65534:65534"]).arg(&home).status().unwrap();
        assert!(status.success());
    }
    let start = |program: &str, args: &[&str]| {
        let drop_root = ["--reuid=65534", "--regid=65534", "--clear-groups", program];
        let mut command = match root {
            true => home.command_of("setpriv", &[&drop_root, args].concat()),
            false => home.command_of(program, args),
        };
        Running(command.stdin(Stdio::piped()).spawn().unwrap())
    };
    // The owner of what /proc tells about it, once it is the program and waits for its input.
    let owner = |run: &Running, name: &str| {
        let proc = PathBuf::from(format!("/proc/{}", run.0.id()));
        for _ in 0..1000 {
            let is = |file: &str| std::fs::read_to_string(proc.join(file)).unwrap_or_default();
            if is("comm").trim() == name && is("wchan").contains("pipe") {
                let limits = is("limits");
                let core = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().to_owned();
                return (proc.join("mem").metadata().unwrap().uid(), core);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("{name} does not read its input");
    };
    let plain = start("cat", &[]);
    let (uid, _) = owner(&plain, "cat");
    assert_ne!(uid, 0, "the test can tell");
    let path = home.shown("program");
    let args = ["backup", "--stdin", "--stdin-filename", "f"];
    let mut run = start(&path, &args);
    run.0.stdin.as_mut().unwrap().write_all(b"some").unwrap();
    let (uid, core) = owner(&run, "program");
    assert_eq!(uid, 0, "/proc/PID/mem can be opened by the user");
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
}

/// Files are private from the moment they are made, whatever the umask allows.
#[test]
fn the_umask_opens_nothing() {
    for umask in ["0", "077"] {
        let mut home = Home::empty();
        home.write("src/hello", b"hello\n");
        home.set("BULLA_REPOSITORY", "repo");
        let run = |line: &str| {
            let script = format!("umask {umask}; exec {BULLA} {line}");
            Ran::of(home.command_of("sh", &["-c", &script]).output().unwrap()).ok()
        };
        run("init --parity 3% --key-file-out key --recovery-key-out recovery");
        run("key add --key-file key --key-file-out key2");
        for line in
            ["backup src", "snapshots", "ls latest", "check --read-data", "forget --keep-last 1", "prune"]
        {
            run(&format!("{line} --key-file key"));
        }
        let mode = |p: &Path| p.metadata().unwrap().mode() & 0o7777;
        for key in ["key", "key2", "recovery"] {
            assert_eq!(mode(&home.path(key)), 0o600, "{key}, umask {umask}");
        }
        let mut files = 0;
        for (top, file_mode) in [("repo", 0o400), (".cache/bulla", 0o600), (".local/state/bulla", 0o600)] {
            for path in files_below(&home.path(top)) {
                // The reserve is no object: a prune takes it away and puts it back.
                let wanted = match path.is_dir() {
                    true => 0o700,
                    false => file_mode,
                };
                assert_eq!(mode(&path), wanted, "{}, umask {umask}", path.display());
                files += usize::from(path.is_file());
            }
            assert_eq!(mode(&home.path(top)), 0o700, "{top}, umask {umask}");
        }
        assert!(files > 10, "{files}");
    }
}
