//! SFTP against OpenSSH: its server run directly for most, and once behind a real sshd.

use bulla_backends::remote::Remote;
use bulla_backends::retry::Patience;
use bulla_backends::sftp::{Sftp, SftpConfig};
use bulla_backends::store::{Kind, Mode, Part, Put, Store};
use bulla_engine::backend::Backend;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::{ObjectName, PackName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

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

/// The first server gets some three megabytes and dies; those after it live.
#[test]
fn a_session_that_dies_within_a_put_fails_it_as_passing_and_the_next_one_works() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let script = "if mkdir $DIR/once 2>/dev/null; \
         then dd bs=64k count=50 status=none | $SERVER; echo the power went >&2; else exec $SERVER; fi";
    let large = noise(20 << 20);
    let store = shell(&root, dir.path(), script);
    let failure = store.put("packs/large", &[&large], Mode::New).unwrap_err();
    assert!(matches!(failure.kind, Kind::Passing { .. }), "{failure:?}");
    assert!(failure.text.contains("the power went"), "{failure:?}");
    assert_eq!(temporaries(&root), 1, "garbage for the sweep of tomorrow");
    assert_eq!(store.put("packs/large", &[&large], Mode::New), Ok(Put::Created));
    assert!(store.get("packs/large", Part::Whole { limit: 1 << 30 }).unwrap() == large);

    std::fs::remove_dir(dir.path().join("once")).unwrap();
    let remote = Remote::new(shell(&root, dir.path(), script), Patience::default(), None);
    assert_eq!(remote.put(&pack(1), &[&large]).unwrap(), bulla_engine::backend::Put::Created);
    assert_eq!(remote.attempts(), 2);
    assert!(remote.get(&pack(1), 1 << 30).unwrap() == large);
}

/// The answers of the first server end after any number of bytes: whatever was lost, the put is ours and whole.
#[test]
fn an_answer_that_is_lost_costs_an_attempt_and_nothing_else() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let mut second = 0;
    for cut in (0..1400).step_by(61) {
        let once = dir.path().join(format!("once-{cut}"));
        let script = "if mkdir $DIR 2>/dev/null; then mkfifo $DIR/f; exec 3<&0; \
             $SERVER <&3 >$DIR/f 2>/dev/null & exec dd bs=1 count=$COUNT status=none <$DIR/f 3<&-; \
             else exec $SERVER; fi";
        let store = shell(&root, &once, &format!("COUNT={cut}; {script}"));
        let remote = Remote::new(store, Patience::default(), None);
        let mut id = [0; 16];
        id[..8].copy_from_slice(&u64::to_be_bytes(cut));
        let name = ObjectName::Verdict(RunId::new(id));
        let text = format!("object {cut}");
        let put = remote.put(&name, &[text.as_bytes()]).unwrap();
        assert_eq!(put, bulla_engine::backend::Put::Created, "{cut}");
        assert_eq!(remote.get(&name, 100).unwrap(), text.as_bytes(), "{cut}");
        remote.delete(&name).unwrap();
        assert_eq!(remote.stat(&name).unwrap(), None, "{cut}");
        second += u64::from(remote.attempts() > 4);
    }
    assert!(second > 15, "{second}");
}

#[test]
fn servers_that_are_killed_again_and_again_lose_nothing() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let store = shell(&root, dir.path(), "echo $$ > $DIR/new; mv $DIR/new $DIR/pid; exec $SERVER");
    let remote = Remote::new(store, Patience::default(), None);
    let (done, bytes) = (AtomicBool::new(false), noise(3 << 20));
    let kills = std::thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut killed = Vec::new();
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(70));
                let pid = std::fs::read_to_string(dir.path().join("pid")).unwrap_or_default();
                if !pid.is_empty() && killed.last() != Some(&pid) && killed.len() < 12 {
                    Command::new("kill").args(["-9", pid.trim()]).stderr(Stdio::null()).status().unwrap();
                    killed.push(pid);
                }
            }
            killed.len()
        });
        let (remote, bytes) = (&remote, &bytes);
        let put = |w: u8| {
            for n in 0..12 {
                let put = remote.put(&pack(w * 16 + n), &[bytes]).unwrap();
                assert_eq!(put, bulla_engine::backend::Put::Created);
            }
        };
        let writers: Vec<_> = (0..4u8).map(|w| scope.spawn(move || put(w))).collect();
        let ended: Vec<_> = writers.into_iter().map(|w| w.join()).collect();
        done.store(true, Ordering::Relaxed);
        assert!(ended.iter().all(Result::is_ok));
        killer.join().unwrap()
    });
    assert!(kills > 2 && remote.attempts() > 48, "{kills} kills, {} attempts", remote.attempts());
    for w in 0..4 {
        for n in 0..12 {
            assert!(remote.get(&pack(w * 16 + n), 1 << 30).unwrap() == bytes);
        }
    }
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

/// Version 3 without extensions.
const HELLO: &str = "printf '\\0\\0\\0\\5\\2\\0\\0\\0\\3'";

#[test]
fn whoever_does_not_speak_the_protocol_is_left_and_nobody_waits_for_ever() {
    if !present(&[SERVER]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let ask = |script: &str| {
        let store = shell(dir.path(), dir.path(), script).with_timeout(Duration::from_millis(500));
        let begun = Instant::now();
        let failure = store.stat("packs/x").unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(10), "{script}: {:?}", begun.elapsed());
        failure
    };
    let passing = |script: &str| {
        let failure = ask(script);
        assert!(matches!(failure.kind, Kind::Passing { .. }), "{script}: {failure:?}");
        failure.text
    };
    let babble = ask("echo Welcome, stranger; cat > /dev/null");
    assert!(babble.kind == Kind::Final && babble.text.contains("print something"), "{babble:?}");
    let old = ask("printf '\\0\\0\\0\\5\\2\\0\\0\\0\\2'; cat > /dev/null");
    assert!(old.kind == Kind::Final && old.text.contains("version 2"), "{old:?}");
    assert_eq!(reached_by(dir.path(), &["/no/such/program"]).exact().unwrap_err().kind, Kind::Final);
    assert_eq!(reached_by::<&str>(dir.path(), &[]).exact().unwrap_err().kind, Kind::Final);
    let denied = ask("echo 'me@nas: Permission denied (publickey).' >&2; exit 255");
    assert_eq!(denied.kind, Kind::Denied);
    assert!(passing("echo 'ssh: connect to host nas: No route to host' >&2; exit 255").contains("No route"));
    assert!(passing("sleep 30").contains("no answer"));
    assert!(passing(&format!("{HELLO}; exec sleep 30")).contains("no answer"));
    // Who keeps the pipes open beyond its death.
    assert!(passing(&format!("{HELLO}; sleep 30 & exec sleep 30")).contains("no answer"));
    passing(&format!("{HELLO}; exit"));
    // Data of 4 bytes for the first question, which was for attributes.
    passing(&format!("{HELLO}; printf '\\0\\0\\0\\015\\147\\0\\0\\0\\0\\0\\0\\0\\4abcd'; exec sleep 30"));
    // An answer to a question that nobody asked, one of an unknown kind, one of 4 GiB, one of nothing.
    passing(&format!("{HELLO}; printf '\\0\\0\\0\\11\\145\\0\\0\\1\\0\\0\\0\\0\\0'; exec sleep 30"));
    passing(&format!("{HELLO}; printf '\\0\\0\\0\\5\\1\\0\\0\\0\\0'; exec sleep 30"));
    passing(&format!("{HELLO}; printf '\\377\\377\\377\\377'; exec sleep 30"));
    passing(&format!("{HELLO}; printf '\\0\\0\\0\\0'; exec sleep 30"));
    for _ in 0..10 {
        passing(&format!("{HELLO}; head -c 100000 /dev/urandom; exec sleep 30"));
    }
}

/// Nothing takes what is written: neither the writer nor who waits behind it stays for ever.
#[test]
fn a_full_pipe_ends_with_the_time_limit() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    // The server reads the beginning of the put, and then nobody does, with all pipes open.
    let script = "mkfifo $DIR/fifo; $SERVER < $DIR/fifo & exec 9> $DIR/fifo; \
         dd bs=64k count=20 status=none >&9; exec sleep 30";
    let store = shell(&root, dir.path(), script).with_timeout(Duration::from_millis(500));
    let (begun, large) = (Instant::now(), noise(20 << 20));
    std::thread::scope(|scope| {
        for n in 0..4 {
            let (store, large) = (&store, &large);
            scope.spawn(move || {
                let failure = store.put(&format!("packs/{n}"), &[large], Mode::New).unwrap_err();
                assert!(matches!(failure.kind, Kind::Passing { .. }), "{failure:?}");
            });
        }
    });
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// Every request waits longer than the time limit, behind others that move.
#[test]
fn what_is_slow_but_moves_is_left_alone() {
    if !present(&[SERVER]) {
        return;
    }
    let (dir, root) = prepared();
    let slowly = "for i in $(seq 150); do dd bs=64k count=1 status=none; sleep 0.05; done | $SERVER";
    let store = shell(&root, dir.path(), slowly).with_timeout(Duration::from_secs(1));
    let (begun, bytes) = (Instant::now(), noise(4 << 20));
    assert_eq!(store.put("packs/x", &[&bytes], Mode::New), Ok(Put::Created));
    assert!(begun.elapsed() > Duration::from_secs(3), "{:?}", begun.elapsed());
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

/// An sshd on this machine, with keys of its own.
struct Sshd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for key in ["host", "user", "stranger"] {
            let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", &file(key)];
            assert!(Command::new("ssh-keygen").args(arguments).status().unwrap().success());
        }
        std::fs::copy(file("user.pub"), file("authorized")).unwrap();
        // sshd insists on it; without the right to make it, it says so.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = [
            format!("HostKey={}", file("host")),
            format!("AuthorizedKeysFile={}", file("authorized")),
            format!("Subsystem=sftp {SERVER}"),
            "ListenAddress=127.0.0.1".into(),
            "PidFile=none".into(),
            "StrictModes=no".into(),
            "UsePAM=no".into(),
            "PermitRootLogin=prohibit-password".into(),
        ];
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string()]).stderr(log);
        options.iter().for_each(|o| _ = command.args(["-o", o]));
        let child = command.spawn().unwrap();
        let host = std::fs::read_to_string(file("host.pub")).unwrap();
        let stranger = std::fs::read_to_string(file("stranger.pub")).unwrap();
        std::fs::write(file("known"), format!("right {host}\nwrong {stranger}\nkeyless {host}\n")).unwrap();
        let (known, user) = (file("known"), file("user"));
        let config = |name: &str, key: &str| {
            format!(
                "Host {name}\nHostName 127.0.0.1\nPort {port}\nHostKeyAlias {name}\nIdentityFile {key}\n\
                 IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {known}\n\
                 StrictHostKeyChecking yes\nBatchMode yes\n"
            )
        };
        let hosts = config("right", &user) + &config("wrong", &user) + &config("keyless", &file("stranger"));
        std::fs::write(file("config"), hosts).unwrap();
        let sshd = Self { child, dir };
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("sshd does not listen: {}", sshd.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What the default command is, with a configuration of the test's own.
    fn store(&self, host: &str, path: &Path) -> Sftp {
        let config = self.dir.path().join("config");
        let alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"];
        let command = [&["ssh", "-F", config.to_str().unwrap()], &alive[..], &["-s", "--", host, "sftp"]];
        reached_by(path, &command.concat())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_store_behind_a_real_sshd_keeps_the_contract() {
    if !present(&[SERVER, SSHD, "/usr/bin/ssh", "/usr/bin/ssh-keygen"]) {
        return;
    }
    let (sshd, dir) = (Sshd::start(), tempfile::tempdir().unwrap());
    let root = dir.path().join("new/repository");
    let store = sshd.store("right", &root);
    store.prepare().unwrap_or_else(|f| panic!("{f:?}\n{}", sshd.log()));
    keeps_the_contract(&store);
    assert_eq!(store.exact(), Ok(true));
    drop(store);
    assert_eq!(temporaries(&root), 0);
    let keyless = sshd.store("keyless", &root).exact().unwrap_err();
    assert_eq!(keyless.kind, Kind::Denied);
    assert!(keyless.text.contains("Permission denied (publickey"), "{keyless:?}");
    let wrong = sshd.store("wrong", &root).exact().unwrap_err();
    assert_eq!(wrong.kind, Kind::Denied);
    assert!(wrong.text.contains("Host key verification failed"), "{wrong:?}");
}
