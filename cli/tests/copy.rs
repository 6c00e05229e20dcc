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
        .prints("would move at most")
        .prints("2 snapshots, 0 there");
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

/// One reading, three repositories, of which one is away for a while.
#[test]
fn a_backup_is_copied_to_others_and_one_that_was_away_catches_up() {
    let mut home = Home::empty();
    home.write("password", b"the same for all\n");
    std::process::Command::new("chmod").arg("600").arg(home.path("password")).status().unwrap();
    home.set("BULLA_PASSWORD_FILE", "password");
    home.write("src/file", b"one");
    home.bulla("init -r first").ends(0);
    for name in ["second", "third"] {
        let init = format!("init -r {name} --copy-chunker-from first --from-password-file password");
        home.bulla(&init).ends(0);
    }
    let backup = "backup -r first --copy-to second --copy-to third src";
    home.bulla(backup).ends(0).prints("snapshot ").says("copied 1 snapshot to second");
    std::fs::rename(home.path("third"), home.path("away")).unwrap();
    home.write("src/file", b"two");
    home.bulla(backup).ends(3).prints("snapshot ").says("a copy is behind").says("no repository at third");
    home.bulla("snapshots -r second").ends(0).prints("2 snapshots");
    std::fs::rename(home.path("away"), home.path("third")).unwrap();
    home.write("src/file", b"three");
    home.bulla(backup).ends(0).says("copied 1 snapshot to second").says("copied 2 snapshots to third");
    for name in ["second", "third"] {
        home.bulla(&format!("snapshots -r {name}")).ends(0).prints("3 snapshots");
        home.bulla(&format!("restore latest -r {name} -t back-{name}")).ends(0);
        assert_eq!(home.read(&format!("back-{name}{}", home.shown("src/file"))), b"three");
        home.bulla(&format!("check -r {name} --read-data")).ends(0);
    }
    home.bulla("backup -r first --copy-to b2:x src").ends(2).says("no b2: backend");
    home.bulla("snapshots -r first").ends(0).prints("3 snapshots");
}
