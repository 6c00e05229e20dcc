//! Where secrets come from, which one wins, and that none is ever printed.

use crate::home::Home;
use std::os::unix::fs::PermissionsExt;

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
