//! The help of every command, compared with a file that people review. `BULLA_BLESS=1 cargo test` writes it anew.

use crate::home::Home;

const COMMANDS: &[&str] = &[
    "",
    "init",
    "backup",
    "snapshots",
    "ls",
    "cat",
    "restore",
    "check",
    "repair",
    "repair index",
    "repair packs",
    "repair snapshots",
    "repair parity",
    "key",
    "key list",
    "key add",
    "key passwd",
    "key remove",
    "rescue-kit",
    "forget",
    "prune",
    "undelete",
    "protect",
    "unprotect",
    "schedule",
    "schedule show",
    "schedule install",
    "schedule remove",
    "notify",
    "version",
    "generate",
    "generate completions",
    "generate man",
    "generate alerts",
    "help",
];

#[test]
fn help_is_what_was_reviewed() {
    let home = Home::empty();
    let mut all = String::new();
    for command in COMMANDS {
        let text = home.bulla(&format!("{command} --help")).ok();
        // The common options are shown once.
        let text = match text.split_once("\nOptions of all commands:") {
            Some((own, rest)) if !command.is_empty() => match rest.split_once("\n\n") {
                Some((_, after)) => format!("{own}\n{after}"),
                None => own.to_owned(),
            },
            _ => text,
        };
        all.push_str(&format!("$ bulla {command} --help\n{}\n\n", text.trim_end()));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(reviewed == all, "help changed; look at it with BULLA_BLESS=1 and git diff");
}

#[test]
fn words_of_other_programs_completions_and_manual_pages() {
    let home = Home::empty();
    home.bulla("help --from restic").ends(0).prints("bulla cat SNAP:FILE");
    home.bulla("help --from borg").ends(0).prints("bulla backup PATH");
    home.bulla("help --from pbs").ends(0).prints("bulla key add --recovery");
    assert_eq!(home.bulla("help key add").ok().trim_end(), home.bulla("key add --help").ok().trim_end());
    home.bulla("help nonsense").ends(2).says("no command");
    for shell in ["bash", "zsh", "fish"] {
        home.bulla(&format!("generate completions {shell}")).ends(0).prints("bulla");
    }
    home.bulla("generate man man").ok();
    assert!(home.path("man/bulla-backup.1").exists());
    let manual = String::from_utf8(home.read("man/bulla.1")).unwrap();
    for code in [
        "0: done",
        "3: done, but",
        "4: damage",
        "10: no repository",
        "12: wrong",
        "13: no space",
        "130: interrupted",
    ] {
        assert!(manual.contains(code), "{code} in {manual}");
    }
}
