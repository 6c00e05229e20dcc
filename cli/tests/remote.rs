//! Repositories that are elsewhere, as somebody types them who has read the README.

#[path = "../../tests/remote/servers.rs"]
#[allow(dead_code, reason = "shared with the scenarios, which use all of it")]
pub(crate) mod servers;

use crate::home::{BULLA, Home};
use crate::ssh::Ssh;
use servers::{S3, find, shows_a_secret};
use std::path::Path;
use std::process::{Command, Output};

/// The first code block behind a heading of the README.
fn block(heading: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let (_, rest) = text.split_once(&format!("### {heading}\n")).expect("the heading");
    let (_, rest) = rest.split_once("```sh\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// Types commands, stopping at the first that fails.
fn typed(home: &Path, path: &[&Path], script: &str) -> Output {
    let bulla = Path::new(BULLA).parent().unwrap();
    let mut dirs = path.to_vec();
    dirs.extend([bulla, Path::new("/usr/bin"), Path::new("/bin"), Path::new("/usr/sbin")]);
    let path = std::env::join_paths(dirs).unwrap();
    let mut command = Command::new("/bin/sh");
    command.args(["-e", "-c", script]).current_dir(home).env_clear().env("PATH", path).env("HOME", home);
    command.output().unwrap()
}

fn succeeds(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn with_documents() -> Home {
    let home = Home::empty();
    home.write("Documents/letter", b"Dear Sumer,\n");
    home.write("Documents/more/numbers", &[7; 300_000]);
    home
}

fn is_restored(home: &Home) {
    let shown = home.shown("Documents/letter");
    assert_eq!(home.read(&format!("restored{shown}")), b"Dear Sumer,\n");
}

#[test]
fn the_quick_start_in_a_bucket_runs_as_it_stands() {
    let Some(server) = S3::seaweed() else { return };
    let home = with_documents();
    let url = server.url();
    let script = block("In a bucket")
        .replace("s3:https://s3.example.com/backups/host1", &url)
        .replace("AKIAEXAMPLE", servers::KEY)
        .replace("example-secret", servers::SECRET);
    let said = succeeds(&typed(&home.path(""), &[], &script));
    assert!(said.contains("1 snapshot\n") && said.contains("no damage found"), "{said}");
    assert!(!shows_a_secret(&said), "{said}");
    is_restored(&home);

    // Nothing that goes wrong shows a secret either.
    let keys = format!("export AWS_ACCESS_KEY_ID={} AWS_SECRET_ACCESS_KEY=", servers::KEY);
    for (secret, url, code) in [
        ("wrong", url.clone(), 1),
        (servers::SECRET, url.replace("/backups", "/none"), 10),
        (servers::SECRET, "s3:http://127.0.0.1:1/bucket".into(), 1),
    ] {
        let script =
            format!("{keys}{secret}\nbulla -r {url} --key-file host1.key -o retry-seconds=1 snapshots");
        let output = typed(&home.path(""), &[], &script);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(!shows_a_secret(&said) && said.contains("error:"), "{said}");
    }
}

#[test]
fn the_quick_start_on_a_host_with_ssh_runs_as_it_stands() {
    let Some(server) = Ssh::start() else { return };
    let home = with_documents();
    let there = home.path("there").display().to_string();
    let script = block("On a host with ssh").replace("/srv/backup", &there);
    let said = succeeds(&typed(&home.path(""), &[&server.bin()], &script));
    assert!(said.contains("no damage found"), "{said}");
    is_restored(&home);
    // What lies there is a repository like any other.
    let local = format!("bulla -r {there}/host1 --key-file host1.key check --read-data");
    assert!(succeeds(&typed(&home.path(""), &[], &local)).contains("no damage found"));
    // Trees are in the cache of this machine, but a check asks what the store has.
    let pack = std::fs::read_dir(home.path("there/host1/meta")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[150] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    let script = "bulla -r sftp:backup@nas:DIR/host1 --key-file host1.key ".replace("DIR", &there);
    let run = |word: &str| typed(&home.path(""), &[&server.bin()], &format!("{script}{word}"));
    succeeds(&run("ls latest"));
    assert_eq!(run("check").status.code(), Some(4));
    assert_eq!(run("ls latest --no-cache").status.code(), Some(4));
}

/// Where there is no server for SSH the second repository is another directory: what is typed is the same.
#[test]
fn several_repositories_at_once_as_the_readme_has_them() {
    let (server, home) = (Ssh::start(), with_documents());
    let there = home.path("there").display().to_string();
    let mut script = block("Several repositories at once").replace("/srv/backup", &there);
    if server.is_none() {
        script = script.replace("sftp:backup@nas:", "");
    }
    let bin = server.as_ref().map(Ssh::bin);
    let bin: Vec<&Path> = bin.iter().map(|bin| &**bin).collect();
    let runs = |script: &str| succeeds(&typed(&home.path(""), &bin, script));
    let said = runs(&script);
    assert!(
        said.contains("copied 1 snapshot to ") && said.contains("0 snapshots, 1 there already"),
        "{said}"
    );
    // Later another is copied, and what was told of that is what it is.
    let later = "bulla backup -r disk --key-file disk.key --tag later --force Documents README";
    home.write("README", &[9; 200_000]);
    let copy = script.lines().last().unwrap();
    let (told, done) = (runs(&format!("{later}\n{copy}")), runs(&copy.replace(" --dry-run", "")));
    let fetched = |said: &str| {
        let (_, rest) = said.split_once("): ").unwrap();
        rest.split_once(" request").unwrap().0.to_owned()
    };
    assert!(told.contains("would move") && fetched(&told) == fetched(&done), "{told}\n{done}");
}

/// RECOVERY.txt of a repository that rclone put elsewhere says how it becomes a directory again.
#[test]
fn a_rescue_kit_says_how_to_bring_a_repository_that_is_elsewhere() {
    if find("rclone").is_none() {
        return;
    }
    let home = with_documents();
    let remote = format!(":local:{}", home.path("there").display());
    let script = format!(
        "export BULLA_REPOSITORY=rclone:{remote}\nbulla init --key-file-out key\nexport BULLA_KEY_FILE=key\n\
         bulla backup Documents\nbulla rescue-kit kit"
    );
    succeeds(&typed(&home.path(""), &[], &script));
    let page = String::from_utf8(home.read("kit/RECOVERY.txt")).unwrap();
    let (_, rest) = page.split_once("0. The repository").expect("a step for it");
    let (commands, _) = rest.split_once("1. Once").unwrap();
    let commands: Vec<&str> = commands.lines().filter_map(|l| l.strip_prefix("    ")).collect();
    assert_eq!(commands.len(), 2, "{page}");
    succeeds(&typed(&home.path("kit"), &[], &commands.join("\n")));
    let script = "bulla -r kit/repository --key-file key restore latest --target restored";
    succeeds(&typed(&home.path(""), &[], script));
    is_restored(&home);
}
