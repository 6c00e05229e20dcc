//! The quick start of the manual, with a real password.

use crate::home::{Home, Ran};

#[test]
fn from_nothing_to_a_file_read_back() {
    let mut home = Home::empty();
    home.write("password", b"correct horse\n");
    home.write("docs/letter.txt", b"Dear Sumer,\n");
    home.set("BULLA_REPOSITORY", "repo");
    home.set("BULLA_PASSWORD_FILE", "password");
    std::process::Command::new("chmod").arg("600").arg(home.path("password")).status().unwrap();

    let init = home.bulla("init").ends(0);
    assert_eq!(init.err, "", "no warning, no prompt");
    let key =
        init.out.split_whitespace().find(|w| w.starts_with("BULLA1-")).expect("a recovery key").to_owned();

    home.bulla("backup docs").ends(0).prints("1 new,").prints("snapshot ");
    home.bulla("backup docs").ends(0).prints("0 new,").prints("compared with snapshot ");
    let list = home.bulla("snapshots").ok();
    assert!(list.contains(&home.shown("docs")) && list.ends_with("2 snapshots\n"), "{list}");
    let letter = home.shown("docs/letter.txt");
    assert!(home.bulla("ls latest").ok().lines().any(|l| l == letter));
    assert_eq!(home.bulla(&format!("cat latest:{letter}")).ok(), "Dear Sumer,\n");
    home.bulla("restore latest -t back").ends(0).prints("restored 1 file (12 B)");
    assert_eq!(home.read(&format!("back{letter}")), b"Dear Sumer,\n");
    assert!(home.bulla("check --read-data").ok().contains("no damage found"));

    // The password is lost; the printed key opens everything.
    home.unset("BULLA_PASSWORD_FILE");
    home.write("recovery", key.to_lowercase().as_bytes());
    home.bulla("snapshots --key-file recovery").ends(0).prints("2 snapshots");
    home.write("new", b"battery staple\r\n");
    home.bulla("key add --new-password-file new --key-file recovery").ends(0).prints("added a password");
    home.set("BULLA_PASSWORD", "battery staple");
    home.bulla("snapshots").ends(0).prints("2 snapshots");
}

#[test]
fn a_backup_makes_its_repository_when_told_to() {
    let home = Home::empty();
    home.write("pw", b"x\n");
    home.write("d/f", b"1");
    let made = home.bulla("backup --init -r new/repo -p pw --recovery-key-out rk d").ends(0);
    assert!(!made.out.contains("BULLA1-") && made.out.contains("snapshot "), "{}", made.out);
    home.bulla("snapshots -r new/repo --key-file rk").ends(0).prints("1 snapshot\n");
    home.bulla("backup --init -r new/repo --key-file rk d").ends(0).prints("compared with");
    home.bulla("init -r new/repo -p pw").ends(1).says("there is a repository").says("hint:");
}

/// The lines of the README's section on what will be kept, each as it stands there, with the exit code it says.
#[test]
fn the_readme_on_what_will_be_kept() {
    let home = Home::empty();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split("### What will be kept").nth(1).and_then(|s| s.split("```").nth(1)).unwrap();
    let lines: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("bulla ")).collect();
    assert_eq!(lines.len(), 7, "{lines:?}");
    for line in lines {
        let (command, comment) = line.split_once('#').unwrap_or((line, ""));
        let ran = home.bulla(command).ends(if comment.contains("exit 2") { 2 } else { 0 });
        if comment.contains("304 days") {
            assert!(ran.out.contains("SHORT") && ran.out.contains(" 304 d"), "{}", ran.out);
        }
    }
}

/// The README's section on jobs, typed into a shell as it stands there.
#[test]
fn the_readme_on_jobs() {
    let home = Home::empty();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let section = readme.split("### Jobs that prove themselves").nth(1).unwrap();
    let script = section.split("```sh").nth(1).and_then(|s| s.split("```").next()).unwrap();
    // Each line has the exit code it says.
    let typed: Vec<String> = script
        .lines()
        .map(|line| match line.contains("# exit 6") {
            true => format!("{line}\n[ $? = 6 ] || exit 99"),
            false if line.starts_with("bulla ") => format!("{line}\n[ $? = 0 ] || exit 98"),
            false => line.to_owned(),
        })
        .collect();
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_bulla")).parent().unwrap().display().to_string();
    let mut shell = home.command_of("/bin/sh", &["-c", &typed.join("\n")]);
    let ran = Ran::of(shell.env("PATH", format!("{path}:/usr/bin:/bin")).output().unwrap());
    let out = ran.ok();
    assert!(out.contains("sound\n") && out.contains("letters: ok") && out.contains("PASS\n"), "{out}");
}

/// The README's section on who is told, typed after the one on jobs, to a server that takes everything.
#[test]
fn the_readme_on_who_is_told() {
    let home = Home::empty();
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let block = |heading: &str| {
        let section = readme.split(&format!("### {heading}\n")).nth(1).unwrap();
        section.split("```sh").nth(1).and_then(|s| s.split("```").next()).unwrap().to_owned()
    };
    let web = crate::notify::Web::start(&[]);
    let made = block("Jobs that prove themselves");
    let made = made.split("bulla config check").next().unwrap();
    let path = std::path::Path::new(env!("CARGO_BIN_EXE_bulla")).parent().unwrap().display().to_string();
    let script = format!("{made}\n{}", block("Who is told"));
    let mut shell = home.command_of("/bin/sh", &["-e", "-c", &script]);
    shell.env("PATH", format!("{path}:/usr/bin:/bin")).env("PORT", web.port.to_string());
    let out = Ran::of(shell.output().unwrap()).ok();
    assert!(out.contains("sound\n") && out.contains("channel ops took the sample"), "{out}");
    assert!(out.contains("letters: ok") && out.contains("0 messages sent, 0 wait"), "{out}");
    let lines: Vec<String> = (0..4).map(|_| web.next().line).collect();
    for (line, path) in lines.iter().zip(["/bulla", "/ab12/start", "/ab12/0", "/bulla"]) {
        assert_eq!(*line, format!("POST {path} HTTP/1.1"));
    }
    assert!(home.path("demo/bulla.prom").exists() && home.path("demo/rules/bulla.rules.yml").exists());
}
