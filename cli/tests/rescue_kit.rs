//! The rescue kit: what RECOVERY.txt says is done, word for word, with the interpreter of `.ci/run`, and the tree that
//! comes back is compared.

use crate::home::Home;
use std::path::{Path, PathBuf};

/// The environment that RECOVERY.txt would make. Without it there is nothing to run; in CI it has to be there.
pub(crate) fn environment() -> Option<PathBuf> {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/ci-venv");
    let there = venv.join("bin/python").exists();
    assert!(there || std::env::var_os("CI").is_none(), "CI needs target/ci-venv, which .ci/run makes");
    there.then(|| venv.canonicalize().unwrap())
}

#[test]
fn what_recovery_txt_says_restores_the_tree() {
    let Some(venv) = environment() else { return };
    let mut home = Home::empty();
    home.write("pw", b"correct horse\n");
    home.write("it's src/deep/hello", b"hello\n");
    home.write(
        "it's src/large",
        &(0..2_000_000u32).map(|i| (i.wrapping_mul(i) >> 7) as u8).collect::<Vec<_>>(),
    );
    std::os::unix::fs::symlink("deep/hello", home.path("it's src/link")).unwrap();
    std::process::Command::new("chmod").arg("600").arg(home.path("pw")).status().unwrap();
    home.set("BULLA_REPOSITORY", "it's a repo");
    home.set("BULLA_PASSWORD_FILE", "pw");
    home.bulla("init --key-file-out key --recovery-key-out recovery").ok();
    home.run(&["backup", "it's src"], b"").ok();
    home.unset("BULLA_PASSWORD_FILE");
    home.bulla("rescue-kit").ends(0).prints("wrote 7 files");
    home.bulla("rescue-kit").ends(0).prints("wrote 7 files");
    let kit = "it's a repo-rescue";
    let page = String::from_utf8(home.read(&format!("{kit}/RECOVERY.txt"))).unwrap();
    for word in ["1 (a password), 1 (a recovery key), 1 (a key file)", "repository format 1"] {
        assert!(page.contains(word), "{word}: {page}");
    }
    let id = home.read("recovery");
    let id =
        std::str::from_utf8(&id).unwrap().split_whitespace().nth(6).unwrap().trim_end_matches(':').to_owned();
    assert!(id.len() == 64 && page.contains(&id), "{id}: {page}");

    // The first two commands fetch packages from the network; what they make is there already.
    let commands: Vec<&str> = page.lines().filter_map(|l| l.strip_prefix("    ")).collect();
    let [make, fill, rest @ ..] = &commands[..] else { panic!("{page}") };
    assert_eq!(*make, "python3 -m venv rescue-env");
    assert_eq!(*fill, "rescue-env/bin/pip install -r requirements.txt");
    assert_eq!(rest.len(), 5, "{page}");
    std::os::unix::fs::symlink(venv, home.path(&format!("{kit}/rescue-env"))).unwrap();
    std::fs::copy(home.path("key"), home.path(&format!("{kit}/KEYFILE"))).unwrap();
    let recovery = String::from_utf8(home.read("recovery")).unwrap();
    let recovery = recovery.lines().last().unwrap().to_owned();
    for command in rest {
        let typed = if command.contains("--recovery-key") { recovery.as_str() } else { "correct horse" };
        let out = typed_to(&home, kit, command, typed);
        if command.contains(" restore ") {
            let back = home.path(&format!("{kit}/restored"));
            same(&home, &back.join(home.shown("it's src").trim_start_matches('/')));
            std::fs::remove_dir_all(back).unwrap();
        } else {
            assert!(out.contains("it's src"), "{command}: {out}");
        }
    }
}

/// Runs `command` as a shell does in the kit, without a terminal: what is asked for is read from the input.
fn typed_to(home: &Home, kit: &str, command: &str, typed: &str) -> String {
    use std::io::Write;
    let mut run = home.command_of("setsid", &["-w", "sh", "-c", command]);
    run.current_dir(home.path(kit)).env("PYTHONDONTWRITEBYTECODE", "1").stdin(std::process::Stdio::piped());
    let mut child = run.spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(format!("{typed}\n").as_bytes());
    crate::home::Ran::of(child.wait_with_output().unwrap()).ok()
}

fn same(home: &Home, back: &Path) {
    for name in ["deep/hello", "large"] {
        assert!(std::fs::read(back.join(name)).unwrap() == home.read(&format!("it's src/{name}")), "{name}");
    }
    assert_eq!(std::fs::read_link(back.join("link")).unwrap(), Path::new("deep/hello"));
    assert_eq!(std::fs::read_dir(back).unwrap().count(), 3);
}

#[test]
fn a_kit_needs_a_repository_and_does_not_lie_in_it() {
    let home = Home::with_repository();
    home.bulla("rescue-kit repo/kit").ends(2).says("lies in the repository");
    home.bulla("rescue-kit -r nowhere kit").ends(10);
    assert!(!home.path("kit").exists());
    let told = home.bulla("rescue-kit kit --json").ok();
    assert!(told.contains("\"message_type\":\"rescue_kit\""), "{told}");
    let key = String::from_utf8(home.read("key")).unwrap();
    let key = key.lines().last().unwrap();
    for entry in std::fs::read_dir(home.path("kit")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(key), "a kit holds no secret");
    }
}
