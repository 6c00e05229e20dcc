//! Sessions that die, answers that are lost, and servers that say nothing, or what makes no sense: what was asked is done by
//! another one, or fails in time.

use super::{SERVER, noise, pack, prepared, present, reached_by, shell, temporaries};
use bulla_backends::remote::Remote;
use bulla_backends::retry::Patience;
use bulla_backends::store::{Kind, Mode, Part, Put, Store};
use bulla_engine::backend::Backend;
use bulla_engine::format::{ObjectName, RunId};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
