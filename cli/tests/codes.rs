//! Every exit code that can be reached, with its words and its hint.

use crate::home::Home;
use std::os::unix::fs::PermissionsExt;

#[test]
fn usage_is_two() {
    let home = Home::empty();
    home.bulla("").ends(2).says("Usage: bulla");
    home.bulla("frobnicate").ends(2).says("frobnicate");
    home.bulla("snapshots").ends(2).says("no repository was named").says("BULLA_REPOSITORY");
    home.bulla("snapshots -r b2:bucket/x").ends(2).says("there is no b2: backend");
    home.bulla("snapshots -r s3:host/bucket/x").ends(2).says("no S3 credentials");
    home.bulla("snapshots -r sftp:host").ends(2).says("names no directory");
    home.bulla("backup -r x").ends(2).says("nothing to back up");
    home.bulla("backup -r x --stdin-from-command").ends(2).says("needs a command");
    home.bulla("backup -r x -q -v a").ends(2).says("cannot be used with");
    home.bulla("check -r x --read-data-subset 5/3").ends(2).says("no part 5 of 3");
    home.bulla("snapshots -r x -g colour").ends(2).says("none of host, paths, tags");
    home.bulla("--version").ends(0).prints("bulla ");
}

#[test]
fn no_repository_is_ten_and_no_password_twelve() {
    let mut home = Home::with_repository();
    home.bulla("snapshots -r nowhere").ends(10).says("there is no repository at nowhere").says("bulla init");
    home.bulla("snapshots -r src").ends(10);
    home.bulla("snapshots --key-file nofile").ends(12).says("nofile");
    home.write("other", &[1; 32]);
    home.bulla("snapshots --key-file other").ends(12).says("wrong password or key").says("recovery key");
    home.write("notkey", b"BULLA1-nonsense");
    home.bulla("snapshots --key-file notkey").ends(12).says("holds no key");
    home.unset("BULLA_KEY_FILE");
    let ran = home.bulla("snapshots").ends(12);
    for word in ["no terminal", "--password-file", "--key-file", "BULLA_PASSWORD_FILE"] {
        assert!(ran.err.contains(word), "{word} in {}", ran.err);
    }
    home.bulla("init -r second").ends(12).says("needs a password or a key file");
    assert!(!home.path("second").exists(), "nothing is made before the key is known");
}

#[test]
fn which_snapshot_is_said_or_asked_for() {
    let home = Home::with_repository();
    home.bulla("ls latest").ends(1).says("no snapshot matches \"latest\"").says("bulla snapshots");
    home.bulla("backup src").ok();
    home.bulla("ls 00000000").ends(1).says("no snapshot matches");
    home.bulla("ls latest~1").ends(1);
    home.bulla("ls latest:/nothing").ends(1).says("is not in snapshot").says("bulla ls");
    home.bulla("cat latest").ends(2).says("SNAPSHOT:/PATH");
    home.bulla("cat snapshot").ends(2).says("needs an id");
    home.bulla(&format!("cat latest:{}", home.shown("src"))).ends(5).says("is not a file");
}

#[test]
fn a_source_that_is_not_there_is_three_and_none_is_one() {
    let home = Home::with_repository();
    home.bulla("backup src gone").ends(3).says("gone does not exist").prints("snapshot ");
    home.bulla("snapshots").ends(0).prints("1 snapshot\n");
    home.bulla("backup gone").ends(1).says("none of the paths");
    home.bulla("snapshots").ends(0).prints("1 snapshot\n");
}

#[test]
fn a_file_that_cannot_be_read_is_three() {
    let home = Home::with_repository();
    // Readable in name only, even for root.
    let odd = format!("/proc/{}/mem", std::process::id());
    let ran = home.run(&["backup", "src", &odd], b"").ends(3).says("error: cannot").says("mem");
    assert!(
        ran.out.contains("1 item could not be read whole") && ran.out.contains("snapshot "),
        "{}",
        ran.out
    );
}

#[test]
fn damage_is_four_and_names_whom_it_hurts() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let pack = home.objects("packs").pop().expect("a data pack");
    let mut bytes = std::fs::read(&pack).unwrap();
    // The header has 84 bytes; behind it the first frame begins.
    bytes[90] ^= 1;
    std::fs::set_permissions(&pack, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    home.bulla("check").ends(0).prints("no damage found");
    let ran = home.bulla("check --read-data").ends(4);
    for words in ["damaged: packs/", "hurts ", &home.shown("src/hello"), "hurt: "] {
        assert!(ran.out.contains(words), "{words} in {}", ran.out);
    }
    home.bulla(&format!("cat latest:{}", home.shown("src/hello"))).ends(4).says("bulla check");
}

#[test]
fn the_last_key_stays_and_the_one_in_use_too() {
    let home = Home::with_repository();
    let list = home.bulla("key list").ok();
    let id =
        |kind: &str| list.lines().find(|l| l.contains(kind)).unwrap().split(' ').next().unwrap().to_owned();
    home.bulla(&format!("key remove {}", id("recovery"))).ends(2).says("--yes");
    home.bulla(&format!("key remove --yes {}", id("key-file"))).ends(5).says("in use");
    home.bulla(&format!("key remove --yes {}", id("recovery"))).ends(0);
    home.bulla(&format!("key remove --yes {}", id("key-file"))).ends(5).says("last key");
    home.bulla("key remove --yes zz").ends(2).says("no key has an id");
    home.bulla("key passwd --new-password-file key").ends(2).says("opened with a key");
}

#[test]
fn a_closed_stdout_ends_quietly() {
    let home = Home::with_repository();
    for i in 0..3000 {
        home.write(&format!("many/file-with-a-rather-long-name-{i}"), b"");
    }
    home.bulla("backup many").ok();
    let mut child = home.command(&["ls", "latest"]).spawn().unwrap();
    drop(child.stdout.take());
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}

/// Sends a signal, and leaves it time to be noticed.
fn signal(pid: u32, name: &str) {
    std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
}

#[test]
fn an_interrupted_backup_is_130_and_commits_nothing() {
    let home = Home::with_repository();
    let script = "exec 2>/dev/null; echo started; touch on; exec sleep 20";
    let child = home.command(&["backup", "--stdin-from-command", "--", "sh", "-c", script]).spawn().unwrap();
    while !home.path("on").exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    signal(child.id(), "-USR1");
    signal(child.id(), "-TERM");
    let ended = child.wait_with_output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{err}");
    for words in ["interrupted: stopping", "B/s", "nothing was committed"] {
        assert!(err.contains(words), "{words} in {err}");
    }
    home.bulla("snapshots").ends(0).prints("0 snapshots");
}

#[test]
fn a_second_signal_ends_at_once() {
    let home = Home::with_repository();
    let mut child = home.command(&["backup", "--stdin"]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let open = child.stdin.take();
    std::thread::sleep(std::time::Duration::from_millis(1000));
    signal(child.id(), "-INT");
    assert!(child.try_wait().unwrap().is_none(), "it waits for its input");
    signal(child.id(), "-INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    drop(open);
    home.bulla("snapshots").ends(0).prints("0 snapshots");
}
