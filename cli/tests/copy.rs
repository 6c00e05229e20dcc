//! `copy`, as somebody types it who keeps a second repository elsewhere.

use crate::home::Home;

#[test]
fn a_second_repository_is_made_and_filled() {
    let mut home = Home::with_repository();
    home.bulla("backup src --tag keep").ends(0);
    home.write("src/hello", b"changed\n");
    home.bulla("backup src").ends(0);
    home.unset("BULLA_REPOSITORY");
    home.unset("BULLA_KEY_FILE");
    let to = "-r second --key-file second.key";
    home.bulla("init -r second --key-file-out second.key --copy-chunker-from repo --from-key-file key")
        .ends(0);
    let from = "--from-repo repo --from-key-file key";
    home.bulla(&format!("copy {to} {from} -n"))
        .ends(0)
        .prints("2 snapshots, 0 there already; would move ")
        .prints(" fetched in ")
        .prints(", about ");
    home.bulla(&format!("copy {to} {from} --tag keep")).ends(0).prints("1 snapshot, 0 there already");
    home.set("BULLA_FROM_REPOSITORY", "repo");
    home.set("BULLA_FROM_KEY_FILE", "key");
    let json = home.bulla(&format!("copy {to} --json")).ok();
    assert!(json.contains("\"present\":[\"") && json.contains("\"copy\":\""), "{json}");
    home.bulla(&format!("copy {to}")).ends(0).prints("0 snapshots, 2 there already");
    home.bulla("snapshots -r second --key-file second.key").ends(0).prints("2 snapshots");
    home.bulla("restore latest -r second --key-file second.key -t back").ends(0);
    assert_eq!(home.read(&format!("back{}", home.shown("src/hello"))), b"changed\n");
    home.bulla("check -r second --key-file second.key --read-data").ends(0);
}

#[test]
fn what_cannot_be_copied_or_not_as_it_is_is_said() {
    let home = Home::with_repository();
    home.bulla("backup src").ends(0);
    home.bulla("init -r other --key-file-out other.key").ends(0);
    home.bulla("copy -r other --key-file other.key").ends(2).says("--from-repo");
    home.bulla("copy -r other --key-file other.key --from-repo repo --from-key-file key")
        .ends(0)
        .says("--copy-chunker-from")
        .prints("1 snapshot, 0 there already");
    home.bulla("check -r other --key-file other.key --read-data").ends(0);
    home.bulla("copy -r other --key-file other.key --from-repo none --from-key-file key").ends(10);
    home.bulla("copy -r other --key-file other.key --from-repo repo --from-key-file other.key").ends(12);
    home.bulla("copy --from-repo repo --from-key-file key").ends(5).says("same repository");
    home.bulla("copy -r other --key-file other.key --from-repo repo --from-key-file key none").ends(1);
}

/// Three repositories, each with a key of its own.
fn three() -> Home {
    let mut home = Home::with_repository();
    home.unset("BULLA_REPOSITORY");
    home.unset("BULLA_KEY_FILE");
    for name in ["second", "third"] {
        let like = "--copy-chunker-from repo --from-key-file key";
        home.bulla(&format!("init -r {name} --key-file-out {name}.key {like}")).ends(0);
    }
    home
}

const ALL: &str = "-r repo -r second -r third --key-file key --key-file second.key --key-file third.key";

/// One reading, three repositories, of which one is away for a while.
#[test]
fn a_backup_goes_to_several_repositories_and_one_that_was_away_catches_up() {
    let home = three();
    home.write("src/hello", b"one");
    let backup = format!("backup {ALL} src");
    home.bulla(&backup).ends(0).prints("snapshot ").says("copied 1 snapshot to second");
    std::fs::rename(home.path("third"), home.path("away")).unwrap();
    home.write("src/hello", b"two");
    let away = home.bulla(&backup).ends(3).prints("snapshot ").says("copied 1 snapshot to second");
    away.says("third is behind: there is no repository at third; the next backup brings it what it lacks");
    std::fs::rename(home.path("away"), home.path("third")).unwrap();
    home.write("src/hello", b"three");
    home.bulla(&backup).ends(0).says("copied 1 snapshot to second").says("copied 2 snapshots to third");
    for name in ["second", "third"] {
        let own = format!("-r {name} --key-file {name}.key");
        home.bulla(&format!("snapshots {own}")).ends(0).prints("3 snapshots");
        home.bulla(&format!("restore latest {own} -t back-{name}")).ends(0);
        assert_eq!(home.read(&format!("back-{name}{}", home.shown("src/hello"))), b"three");
        home.bulla(&format!("check {own} --read-data")).ends(0);
    }
    // What a repository let go by itself does not come back; what it missed does, also when nothing changed.
    home.bulla("forget -r second --key-file second.key --keep-last 1").ends(0);
    std::fs::rename(home.path("third"), home.path("away")).unwrap();
    home.write("src/hello", b"four");
    home.bulla(&backup).ends(3);
    std::fs::rename(home.path("away"), home.path("third")).unwrap();
    home.bulla(&format!("{backup} --skip-if-unchanged"))
        .ends(0)
        .prints("nothing changed")
        .says("copied 0 snapshots to second")
        .says("copied 1 snapshot to third");
    home.bulla("snapshots -r second --key-file second.key").ends(0).prints("2 snapshots");
    home.bulla("snapshots -r third --key-file third.key").ends(0).prints("4 snapshots");
}

/// One that was away when the last backup was made, and a verdict beside it that nobody can read.
#[test]
fn a_damaged_snapshot_keeps_the_others_from_nothing_that_is_unchanged() {
    let home = three();
    home.write("src/hello", b"one");
    home.bulla("backup -r repo --key-file key src").ok();
    let verdicts = home.path("repo/snap");
    let first = std::fs::read_dir(&verdicts).unwrap().next().unwrap().unwrap().path();
    home.write("src/hello", b"two");
    home.bulla("backup -r repo --key-file key src").ok();
    std::fs::write(first, b"not a verdict").unwrap();
    let ran = home.bulla(&format!("backup {ALL} --skip-if-unchanged src"));
    ran.ends(0)
        .prints("nothing changed")
        .says("copied 1 snapshot to second")
        .says("copied 1 snapshot to third");
    for name in ["second", "third"] {
        home.bulla(&format!("snapshots -r {name} --key-file {name}.key")).ends(0).prints("1 snapshot\n");
    }
}

/// Whatever is wrong with the first, the next takes the backup and the others have it from there.
#[test]
fn a_dead_or_wrong_first_repository_is_behind_and_the_others_commit() {
    let home = three();
    std::fs::create_dir(home.path("empty")).unwrap();
    let rest = "-r second -r third --key-file second.key --key-file third.key";
    for (first, why) in [
        ("-r none --key-file key", "none is behind: there is no repository at none"),
        ("-r empty --key-file key", "empty is behind: there is no repository at empty"),
        ("-r repo --key-file second.key", "repo is behind: wrong password or key"),
        ("-r repo --key-file no-such-file", "repo is behind: cannot read the key file no-such-file"),
        (
            "-o retry-seconds=0 -r rest:http://127.0.0.1:1/x --key-file key",
            "rest:http://127.0.0.1:1/x/ is behind: cannot ",
        ),
        ("-r repo --key-file key -r src --key-file key", "src is behind: there is no repository"),
    ] {
        home.write("src/hello", why.as_bytes());
        let ran = home.bulla(&format!("backup {first} {rest} src")).ends(3).says(why).prints("snapshot ");
        assert_eq!(ran.err.matches(" is behind").count(), 1, "{}", ran.err);
    }
    for name in ["second", "third"] {
        home.bulla(&format!("snapshots -r {name} --key-file {name}.key")).ends(0).prints("6 snapshots");
        home.bulla(&format!("check -r {name} --key-file {name}.key --read-data")).ends(0);
    }
    // One of the six was taken by the first, and that is back: it has the others' snapshots from nobody, but they come by copy.
    home.bulla("snapshots -r repo --key-file key").ends(0).prints("1 snapshot");
    let copy = "copy -r repo --key-file key --from-repo second --from-key-file second.key";
    home.bulla(copy).ends(0).prints("5 snapshots, 1 there already");
    home.bulla("check -r repo --key-file key --read-data").ends(0);
}

#[test]
fn when_no_repository_opens_the_first_one_is_what_failed() {
    let home = three();
    let keys = "--key-file second.key --key-file key";
    home.bulla(&format!("backup -r none -r repo {keys} src")).ends(3).says("none is behind");
    let wrong = "--key-file key --key-file second.key";
    home.bulla(&format!("backup -r none -r repo {wrong} src")).ends(10).says("hint: check the path");
    home.bulla(&format!("backup -r second -r none {wrong} src")).ends(12).says("repository at none");
    // What is wrong with the source is no repository's fault, and is told once.
    let ran = home.bulla(&format!("backup {ALL} nothing")).ends(1).says("none of the paths");
    assert!(!ran.err.contains("behind"), "{}", ran.err);
    let ran = home.bulla(&format!("backup {ALL} --stdin-from-command -- false")).ends(1);
    assert!(!ran.err.contains("behind"), "{}", ran.err);
}

/// What comes through a pipe cannot be read twice: that all have it proves that it was read once.
#[test]
fn a_stream_is_read_once_for_all_repositories() {
    let home = three();
    let text = b"only once\n".repeat(30_000);
    let words: Vec<&str> = ALL.split(' ').collect();
    let backup =
        |more: &[&str], input: &[u8]| home.run(&[&["backup"], &words[..], more].concat(), input).ends(0);
    backup(&["--stdin", "--stdin-filename", "dump"], &text);
    let script = "echo started >> count; cat count";
    backup(&["--stdin-from-command", "--stdin-filename", "made", "--", "sh", "-c", script], b"");
    for name in ["second", "third"] {
        let from = format!("-r {name} --key-file {name}.key --path /dump latest:/dump");
        assert_eq!(home.bulla(&format!("cat {from}")).ok().as_bytes(), text);
        let from = format!("-r {name} --key-file {name}.key --path /made latest:/made");
        assert_eq!(home.bulla(&format!("cat {from}")).ok(), "started\n");
    }
    assert_eq!(home.read("count"), b"started\n");
}

#[test]
fn mistakes_about_several_repositories_are_told_before_anything_is_read() {
    let home = three();
    for (line, word) in [
        (
            "backup -r repo -r second -r third --key-file key --key-file second.key src",
            "--key-file is given 2 times for 3 repositories",
        ),
        ("backup -r repo --key-file key --key-file key src", "--key-file is given 2 times for 1 repository"),
        ("backup -r repo -r b2:x --key-file key src", "no b2: backend"),
        (
            "backup -r repo -r second --key-file key -o s3.region=x src",
            "none of the repositories has such an option",
        ),
        ("backup --init -r repo -r new --key-file key src", "backup alone takes several"),
        ("snapshots -r repo -r second --key-file key", "backup alone takes several repositories"),
        (
            "restore latest -t out -r repo --key-file key --key-file second.key",
            "--key-file is given 2 times for 1 repository",
        ),
        ("init -r new -r newer", "backup alone takes several repositories"),
    ] {
        home.bulla(line).ends(2).says(word);
    }
    home.bulla("snapshots -r repo --key-file key").ends(0).prints("0 snapshots");
    assert!(!home.path("new").exists());
}
