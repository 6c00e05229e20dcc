//! SFTP against OpenSSH: its server run directly for most, and once behind a real sshd (`sshd`).

mod sessions;
mod sshd;

use bulla_backends::remote::Remote;
use bulla_backends::retry::Patience;
use bulla_backends::sftp::{Sftp, SftpConfig};
use bulla_backends::store::{Kind, Mode, Part, Put, Store};
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::{ObjectName, PackName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const SERVER: &str = "/usr/lib/openssh/sftp-server";
const SSHD: &str = "/usr/sbin/sshd";

/// True if all the programs are here. On a machine that must have them their absence is a failure.
fn present(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|p| !Path::new(p).exists()).collect();
    assert!(missing.is_empty() || std::env::var("CI").as_deref() != Ok("true"), "{missing:?} is missing");
    if !missing.is_empty() {
        println!("skipped: {missing:?} is missing");
    }
    missing.is_empty()
}

/// A store in `path` that is reached by `command`.
fn reached_by<C: AsRef<str>>(path: &Path, command: &[C]) -> Sftp {
    Sftp::new(SftpConfig {
        user: None,
        host: "test".into(),
        port: None,
        path: path.to_str().unwrap().into(),
        command: Some(command.iter().map(|c| c.as_ref().to_owned()).collect()),
    })
}

fn direct(path: &Path) -> Sftp {
    reached_by(path, &[SERVER])
}

/// A shell runs `script`, which may use `$SERVER` and `$DIR`, a directory of the test's own.
fn shell(path: &Path, dir: &Path, script: &str) -> Sftp {
    let script = format!("SERVER={SERVER}; DIR={}; {script}", dir.display());
    reached_by(path, &["sh", "-c", &script])
}

/// A directory for a test and the path of a repository in it, prepared.
fn prepared() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("a/b/repository");
    direct(&root).prepare().unwrap();
    (dir, root)
}

fn noise(len: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(len).collect()
}

fn pack(n: u8) -> ObjectName {
    ObjectName::Pack(PackName::new([n; 32]))
}

fn temporaries(root: &Path) -> usize {
    std::fs::read_dir(root.join("tmp")).unwrap().count()
}

/// Everything the contract of a store says of one that works.
fn keeps_the_contract(store: &Sftp) {
    assert_eq!(store.put("packs/x", &[b"one", b"", b"two"], Mode::New), Ok(Put::Created));
    assert_eq!(store.put("packs/x", &[b"other"], Mode::New), Ok(Put::Exists));
    assert_eq!(store.put("packs/empty", &[], Mode::New), Ok(Put::Created));
    assert_eq!(store.get("packs/empty", Part::Whole { limit: 0 }), Ok(Vec::new()));
    assert_eq!(store.get("packs/x", Part::Whole { limit: 6 }).unwrap(), b"onetwo");
    let too_long = store.get("packs/x", Part::Whole { limit: 5 }).unwrap_err();
    assert_eq!(too_long.kind, Kind::TooLong { size: 6 });
    assert_eq!(store.get("packs/x", Part::Range { offset: 2, len: 3 }).unwrap(), b"etw");
    for (offset, len) in [(3, 4), (6, 1), (1 << 40, 1)] {
        let short = store.get("packs/x", Part::Range { offset, len }).unwrap_err();
        assert_eq!(short.kind, Kind::Short { size: Some(6) });
    }
    let mut entries = store.list("packs", None).unwrap().entries;
    entries.sort();
    assert_eq!(entries, [("empty".to_owned(), 0), ("x".to_owned(), 6)]);
    assert!(store.list("keys", None).unwrap().entries.is_empty());
    assert!(store.list("absent", None).unwrap().entries.is_empty());
    let stat = store.stat("packs/x").unwrap().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!(stat.size == 6 && now.abs_diff(stat.modified.try_into().unwrap()) < 60, "{stat:?}");
    assert_eq!(store.stat("packs/absent"), Ok(None));
    for part in [Part::Whole { limit: 9 }, Part::Range { offset: 0, len: 1 }] {
        assert_eq!(store.get("packs/absent", part).unwrap_err().kind, Kind::Missing);
    }
    store.delete("packs/empty").unwrap();
    store.delete("packs/empty").unwrap();
    assert_eq!(store.stat("packs/empty"), Ok(None));
    let large = noise(20 << 20);
    let (front, back) = large.split_at(1_234_567);
    assert_eq!(store.put("packs/large", &[front, back], Mode::New), Ok(Put::Created));
    assert!(store.get("packs/large", Part::Whole { limit: 1 << 30 }).unwrap() == large);
    let range = store.get("packs/large", Part::Range { offset: 777, len: 5 << 20 }).unwrap();
    assert!(range == large[777..777 + (5 << 20)]);
    let past = store.get("packs/large", Part::Range { offset: 777, len: 20 << 20 }).unwrap_err();
    assert_eq!(past.kind, Kind::Short { size: Some(20 << 20) });
}

#[test]
fn a_store_over_sftp_keeps_the_contract() {
    if !present(&[SERVER]) {
        return;
    }
    let (_dir, root) = prepared();
    let store = direct(&root);
    keeps_the_contract(&store);
    assert_eq!(store.exact(), Ok(true));
    assert_eq!(store.put("packs/x", &[b"healed"], Mode::Replace), Ok(Put::Created));
    assert_eq!(store.put("packs/new", &[b"healed"], Mode::Replace), Ok(Put::Created));
    assert_eq!(store.get("packs/x", Part::Whole { limit: 9 }).unwrap(), b"healed");
    // What is no file is no object.
    std::fs::create_dir(root.join("meta/directory")).unwrap();
    std::os::unix::fs::symlink("../packs/x", root.join("meta/link")).unwrap();
    assert!(store.list("meta", None).unwrap().entries.is_empty());
    drop(store);
    assert_eq!(temporaries(&root), 0);
    let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(&root.join("packs/x")), mode(&root.join("packs")), mode(&root)], [0o400, 0o700, 0o700]);
}

/// What other servers lack.
#[test]
fn a_server_without_extensions_is_enough_but_not_exact_and_does_not_replace() {
    if !present(&[SERVER]) {
        return;
    }
    let (_dir, root) = prepared();
    let store = reached_by(&root, &[SERVER, "-P", "hardlink,fsync,posix-rename,limits,statvfs"]);
    keeps_the_contract(&store);
    assert_eq!(store.exact(), Ok(false));
    assert_eq!(store.put("packs/x", &[b"healed"], Mode::Replace).unwrap_err().kind, Kind::Final);
    assert_eq!(store.get("packs/x", Part::Whole { limit: 9 }).unwrap(), b"onetwo");
    drop(store);
    assert_eq!(temporaries(&root), 0);
    let unsynced = reached_by(&root, &[SERVER, "-P", "fsync"]);
    assert_eq!(unsynced.put("meta/x", &[b"x"], Mode::New), Ok(Put::Created));
    assert_eq!(unsynced.put("meta/x", &[b"y"], Mode::Replace), Ok(Put::Created));
    assert_eq!(unsynced.get("meta/x", Part::Whole { limit: 9 }).unwrap(), b"y");
}

#[test]
fn of_eight_writers_of_one_name_exactly_one_creates_it() {
    if !present(&[SERVER]) {
        return;
    }
    let (_dir, root) = prepared();
    // Two sessions, four threads each.
    let stores = [direct(&root), direct(&root)];
    for round in 0..20 {
        let name = format!("snap/{round}");
        let put = |n: u8| (stores[usize::from(n % 2)].put(&name, &[&[n; 1000]], Mode::New).unwrap(), n);
        let won = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..8u8).map(|n| scope.spawn(move || put(n))).collect();
            let done = writers.into_iter().map(|w| w.join().unwrap());
            done.filter(|(put, _)| *put == Put::Created).map(|(_, n)| n).collect::<Vec<_>>()
        });
        let [winner] = won[..] else { panic!("{won:?}") };
        assert_eq!(stores[0].get(&name, Part::Whole { limit: 1000 }).unwrap(), [winner; 1000]);
    }
}

#[test]
fn many_threads_share_a_session() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let store = shell(&root, dir.path(), "echo x >> $DIR/sessions; exec $SERVER");
    std::thread::scope(|scope| {
        for n in 0..8u8 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let (name, bytes) = (format!("packs/{n}-{round}"), vec![n; 100_000 * (round + 1)]);
                    assert_eq!(store.put(&name, &[&bytes], Mode::New), Ok(Put::Created));
                    assert!(store.get(&name, Part::Whole { limit: 1 << 30 }).unwrap() == bytes);
                }
            });
        }
    });
    assert_eq!(store.list("packs", None).unwrap().entries.len(), 80);
    assert_eq!(std::fs::read_to_string(dir.path().join("sessions")).unwrap(), "x\n");
}

#[test]
fn a_layout_is_made_over_what_an_init_that_was_cut_off_has_left_and_over_nothing_else() {
    if !present(&[SERVER]) {
        return;
    }
    let (_dir, root) = prepared();
    let store = direct(&root);
    store.prepare().unwrap();
    assert_eq!(store.put("keys/a", &[b"x"], Mode::New), Ok(Put::Created));
    std::fs::write(root.join("tmp/left"), b"x").unwrap();
    std::fs::remove_dir(root.join("packs")).unwrap();
    store.prepare().unwrap();
    for name in ["notes", "config/00000000", "packs/notes"] {
        std::fs::write(root.join(name), b"x").unwrap();
        let failure = store.prepare().unwrap_err();
        assert!(failure.kind == Kind::Final && failure.text.contains("not empty"), "{failure:?}");
        std::fs::remove_file(root.join(name)).unwrap();
    }
    store.prepare().unwrap();
    std::fs::write(root.join("file"), b"x").unwrap();
    assert_eq!(direct(&root.join("file")).prepare().unwrap_err().kind, Kind::Final);
    assert_eq!(direct(&root.join("file/below")).prepare().unwrap_err().kind, Kind::Final);
    // Relative to where the server starts.
    let dir = tempfile::tempdir().unwrap();
    let relative = reached_by(Path::new("x/y"), &[SERVER, "-d", dir.path().to_str().unwrap()]);
    relative.prepare().unwrap();
    assert_eq!(relative.put("packs/a", &[b"x"], Mode::New), Ok(Put::Created));
    assert!(dir.path().join("x/y/packs/a").exists());
}

#[test]
fn old_temporaries_go_with_the_first_put_and_young_ones_stay() {
    if !present(&[SERVER]) {
        return;
    }
    let (_dir, root) = prepared();
    for (name, hours) in [("old", 25), ("young", 23)] {
        let file = std::fs::File::create(root.join("tmp").join(name)).unwrap();
        let then = SystemTime::now() - Duration::from_secs(hours * 3600);
        file.set_times(std::fs::FileTimes::new().set_modified(then)).unwrap();
    }
    assert_eq!(direct(&root).put("snap/a", &[b"x"], Mode::New), Ok(Put::Created));
    assert!(!root.join("tmp/old").exists() && root.join("tmp/young").exists());
}

#[test]
fn what_may_not_be_done_is_denied() {
    if !present(&[SERVER, "/usr/bin/setpriv"]) {
        return;
    }
    let (dir, root) = prepared();
    assert_eq!(direct(&root).put("packs/x", &[b"x"], Mode::New), Ok(Put::Created));
    let open = |mode| {
        for path in [dir.path(), &dir.path().join("a"), &dir.path().join("a/b"), &root, &root.join("packs")] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    open(0o755);
    let me = std::fs::metadata(&root).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap();
    if me != 0 {
        println!("skipped: only root can become somebody else");
        return;
    }
    let other = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", SERVER];
    let store = reached_by(&root, &other);
    assert_eq!(store.stat("packs/x").unwrap().unwrap().size, 1);
    assert_eq!(store.get("packs/x", Part::Whole { limit: 9 }).unwrap_err().kind, Kind::Denied);
    assert_eq!(store.put("packs/y", &[b"y"], Mode::New).unwrap_err().kind, Kind::Denied);
    assert_eq!(store.delete("packs/x").unwrap_err().kind, Kind::Denied);
    assert_eq!(store.list("keys", None).unwrap_err().kind, Kind::Denied);
    let read_only = reached_by(&root, &[SERVER, "-R"]);
    assert_eq!(read_only.get("packs/x", Part::Whole { limit: 9 }).unwrap(), b"x");
    assert_eq!(read_only.put("packs/y", &[b"y"], Mode::New).unwrap_err().kind, Kind::Denied);
    assert_eq!(reached_by(&dir.path().join("new"), &other).prepare().unwrap_err().kind, Kind::Denied);
}

#[test]
fn a_file_system_that_is_full_is_told_from_other_failures() {
    if !present(&[SERVER]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).arg(dir.path()).stderr(Stdio::null()).status();
        done.is_ok_and(|s| s.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=1m", "none"]) {
        println!("skipped: a small file system cannot be mounted here");
        return;
    }
    let store = direct(&dir.path().join("repository"));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.prepare().unwrap();
        assert_eq!(store.put("packs/a", &[&noise(700_000)], Mode::New), Ok(Put::Created));
        let full = store.put("packs/b", &[&noise(600_000)], Mode::New).unwrap_err();
        assert_eq!(full.kind, Kind::Full, "{full:?}");
        assert_eq!(store.put("packs/c", &[b"small"], Mode::New), Ok(Put::Created), "what failed was removed");
        let other = store.put("packs", &[b"over a directory"], Mode::Replace).unwrap_err();
        assert_eq!(other.kind, Kind::Final, "{other:?}");
    }));
    drop(store);
    assert!(mount("umount", &[]));
    outcome.unwrap();
}

/// By the server's own log: the bytes are synced before they get their name, and the directory after.
#[test]
fn bytes_are_durable_before_their_name_and_the_name_before_the_answer() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let store = shell(&root, dir.path(), "exec $SERVER -e -l DEBUG3 2>$DIR/log");
    let steps = |from: usize| {
        let log = std::fs::read_to_string(dir.path().join("log")).unwrap();
        let kinds = ["fsync", "hardlink", "posix-rename", "close", "remove"];
        let kind = |l: &str| kinds.into_iter().find(|k| l.contains(&format!(": {k}")));
        let found: Vec<_> = log.get(from..).unwrap().lines().filter_map(kind).collect();
        (found.join(" "), log.len())
    };
    // The first one of a session opens the directory, and sweeps.
    assert_eq!(store.put("packs/a", &[b"x"], Mode::New), Ok(Put::Created));
    let (_, from) = steps(0);
    assert_eq!(store.put("packs/b", &[b"x"], Mode::New), Ok(Put::Created));
    let (put, from) = steps(from);
    assert_eq!(put, "fsync hardlink fsync close remove");
    store.delete("packs/b").unwrap();
    let (delete, from) = steps(from);
    assert_eq!(delete, "remove fsync");
    assert_eq!(store.put("packs/a", &[b"y"], Mode::Replace), Ok(Put::Created));
    assert_eq!(steps(from).0, "fsync posix-rename fsync close");
}

/// A run of a whole engine over it.
#[test]
fn a_repository_is_made_filled_and_read() {
    if !present(&[SERVER]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repository");
    let source = dir.path().join("source");
    std::fs::create_dir(&source).unwrap();
    let files = [("large", noise(6 << 20)), ("small", b"small".to_vec()), ("empty", Vec::new())];
    for (name, bytes) in &files {
        std::fs::write(source.join(name), bytes).unwrap();
    }
    let remote = Remote::new(direct(&root), Patience::default(), None);
    remote.prepare().unwrap();
    let (backend, secret) = (Arc::new(remote), SlotSecret::Key(Secret::new([7; 32])));
    let env = || Env::system("test-machine", "tester");
    let made = Repository::init(backend, &InitOptions::default(), &secret, env()).unwrap();
    let sources = Sources::Paths(PathSources {
        paths: vec![source.to_str().unwrap().as_bytes().to_vec()],
        base: b"/".to_vec(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    });
    let options = BackupOptions { host: "test-machine".into(), ..BackupOptions::default() };
    let snapshot = backup::run(&made.repository, sources, &options, &Silent).unwrap().snapshot.unwrap();
    drop(made);
    let backend = Arc::new(Remote::new(direct(&root), Patience::default(), None));
    let repository = Repository::open(backend, &secret, env()).unwrap();
    for (name, bytes) in &files {
        let (mut out, path) = (Vec::new(), source.join(name));
        let path = path.to_str().unwrap().trim_start_matches('/').as_bytes();
        bulla_engine::browse::write_file(&repository, &snapshot, path, &mut out).unwrap();
        assert!(out == *bytes, "{name}");
    }
}
