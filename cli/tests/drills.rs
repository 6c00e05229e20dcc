//! Drills of what goes wrong: keys that do not open, commands that say too little or too late, stores that break off, files
//! that rot, places where nothing may be restored, and what is left behind.

use crate::home::{BULLA, Home, Ran};
use crate::manager::{furnished, json};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

fn edit(home: &Home, from: &str, to: &str) {
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    assert!(text.contains(from), "{from:?} is not in {text}");
    home.write("jobs.toml", text.replace(from, to).as_bytes());
}

#[test]
fn the_key_in_the_safe_is_tried_and_what_does_not_open_is_on_record() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    let key =
        |file: &str| home.bulla(&format!("drill letters --from disk --key {file} --full --config jobs.toml"));
    let good = key("disk.recovery").ends(0);
    assert!(good.out.contains("opened with another key: recovery key"), "{}", good.out);
    key("vault.recovery").ends(8).prints("WRONG ").prints("FAIL\n");
    let status = home.bulla("status letters --config jobs.toml").ends(8);
    assert!(status.out.contains("the last drill from disk with vault.recovery failed"), "{}", status.out);
    // With its own secret it restores; that says nothing of the other key.
    home.bulla("drill letters --from disk --app --config jobs.toml").ok();
    home.bulla("status letters --config jobs.toml").ends(8);
    key("disk.recovery").ends(0);
    home.bulla("status letters --config jobs.toml").ends(0);
    let history = home.bulla("drill letters --history --config jobs.toml").ok();
    assert_eq!(history.matches("full, key").count(), 3, "{history}");
    key("nothing").ends(8);
}

#[test]
fn a_command_has_to_say_what_is_expected_and_in_time() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    let begin = home.shown("letters");
    let count = format!("echo \\\"{{ \\\\\\\"letters\\\\\\\": $(ls .{begin} | wc -l) }}\\\"");
    let old = "command = [\"sh\", \"-c\", \"grep -rq 'letter 39' . && test ! -e broken\"]";
    edit(&home, old, &format!("command = [\"sh\", \"-c\", \"{count}\"], expect = {{ letters = \">= 40\" }}"));
    // Progress may stand before the result.
    let drill = |code: i32| {
        let ran = home.bulla("drill letters --from disk --app --json --config jobs.toml").ends(code);
        json(ran.out.lines().last().unwrap())
    };
    assert_eq!(drill(0)["numbers"]["letters"], 40);
    edit(&home, ">= 40", "> previous*1.5");
    let miss = drill(8);
    assert_eq!(miss["wrong"][0], "letters: is 40, and has to be > previous*1.5 (it was 40)", "{miss}");
    edit(&home, "letters = \"> previous*1.5\"", "rows = \">= 1\"");
    assert_eq!(drill(8)["wrong"][0], "sh gave no number rows");
    // What does not end is ended, with all that it has started.
    edit(&home, "expect = { rows", "timeout = \"1s\", expect = { rows");
    let hang = format!("sleep 600 & echo $! > {}; wait", home.shown("child"));
    edit(&home, &count, &hang);
    assert_eq!(drill(8)["wrong"][0], "sh did not end within 1s");
    let child = String::from_utf8(home.read("child")).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
    edit(&home, "timeout = \"1s\", expect = { rows = \">= 1\" }", "expect = { rows = \"lots\" }");
    home.bulla("config check --config jobs.toml").ends(2).prints("is no expectation like");
    edit(&home, "command = [\"sh\", \"-c\",", "commands = [\"sh\", \"-c\",");
    home.bulla("config check --config jobs.toml").ends(2).prints("E-DRL-03");
}

/// As a server that the command starts, out of its group, which keeps its output open.
#[test]
fn what_a_command_leaves_running_is_not_waited_for() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    let old = "command = [\"sh\", \"-c\", \"grep -rq 'letter 39' . && test ! -e broken\"]";
    let child = home.shown("child");
    let new = format!("'setsid sleep 600 2>/dev/null & echo $! > {child}; echo {{\\\"n\\\":1}}'");
    edit(&home, old, &format!("command = [\"sh\", \"-c\", {new}], expect = {{ n = \">= 1\" }}"));
    let begun = std::time::Instant::now();
    home.bulla("drill letters --from disk --app --config jobs.toml").ends(0);
    let child = String::from_utf8(home.read("child")).unwrap();
    Command::new("kill").arg(child.trim()).status().unwrap();
    assert!(begun.elapsed().as_secs() < 300, "{:?}", begun.elapsed());
}

/// The index and the trees go; what was proved of them before stays on record, and is no longer what counts.
#[test]
fn a_restore_that_breaks_off_is_a_drill_that_failed() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --app --from vault --config jobs.toml").ok();
    home.bulla("drill letters --app --from disk --config jobs.toml").ok();
    home.bulla("status letters --config jobs.toml").ends(0);
    for area in ["index", "meta"] {
        for entry in std::fs::read_dir(home.path("vault").join(area)).into_iter().flatten() {
            std::fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    let _ = std::fs::remove_dir_all(home.path(".cache"));
    let drill = home.bulla("drill letters --full --from vault --config jobs.toml").ends(8);
    assert!(
        drill.out.contains("WRONG the restore broke off: ") && drill.out.ends_with("FAIL\n"),
        "{}",
        drill.out
    );
    let failed = "the last drill from vault failed: the restore broke off";
    home.bulla("status letters --config jobs.toml").ends(8).prints(failed);
    // That the other one restores mends nothing.
    home.bulla("drill letters --app --from disk --config jobs.toml").ok();
    home.bulla("status letters --config jobs.toml").ends(8).prints(failed);
    assert_eq!(std::fs::read_dir(home.path("scratch")).unwrap().count(), 0);
}

#[test]
fn a_sample_is_no_proof_that_an_application_can_work_with_it() {
    let home = furnished();
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --sample 1 --config jobs.toml").ok();
    let status = home.bulla("status letters --config jobs.toml").ends(6);
    assert!(status.out.contains("its drill command never judged a restore that went well"), "{}", status.out);
    assert!(status.out.contains("bulla drill letters --app"), "{}", status.out);
    home.bulla("drill letters --app --config jobs.toml").ok();
    home.bulla("status letters --config jobs.toml").ends(0);
}

/// Every directory is below `/`: a drill of all of it goes where runs leave it out.
#[test]
fn all_of_a_machine_can_be_drilled_and_its_trials_are_not_backed_up() {
    let home = furnished();
    let root = home.path("").canonicalize().unwrap();
    let mut exclude = Vec::new();
    for above in root.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
        exclude.push(format!("\"{}/*\"", above.display().to_string().trim_end_matches('/')));
        let down = root.strip_prefix(above).unwrap().components().next().unwrap();
        exclude.push(format!("\"!{}\"", above.join(down).display()));
    }
    let disk = home.shown("disk");
    exclude.push(format!("{disk:?}"));
    let job = format!(
        "[job.all]\nsource = {{ paths = [\"/\"], exclude = [{}] }}\nto = [\"disk\"]\n\
         drill = {{ target = \"{}\" }}\n",
        exclude.join(", "),
        home.shown("scratch")
    );
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    home.write("jobs.toml", format!("{text}{job}").as_bytes());
    home.bulla("run all --config jobs.toml").ok();
    home.bulla("drill all --full --keep --config jobs.toml").ends(0).prints("what was restored is in ");
    home.bulla("run all --config jobs.toml").ok();
    let list = home.bulla("ls -r disk --key-file disk.key latest").ok();
    assert!(list.contains(&home.shown("letters/39")) && list.contains("BULLA-DRILL.TAG"), "{list}");
    assert!(!list.contains("/restored/"), "{list}");
    home.bulla("run letters --config jobs.toml").ok();
    // In an ordinary source nothing is restored, unless that leaves it out.
    let into = format!("drill letters --full --config jobs.toml --scratch {}", home.shown("letters/tmp"));
    home.bulla(&into).ends(5).says("lies in what is backed up");
    edit(
        &home,
        &format!("must_exist = [\"{}\"]", home.shown("letters/0")),
        "exclude = [\"/**/letters/tmp\"]",
    );
    home.bulla(&into).ends(0);
}

/// Without the superuser's right to ignore modes, as an ordinary user has none.
#[test]
fn directories_that_may_not_be_written_to_are_removed_all_the_same() {
    let home = furnished();
    home.write("letters/shut/inside", b"plaintext");
    std::fs::set_permissions(home.path("letters/shut"), PermissionsExt::from_mode(0o555)).unwrap();
    home.bulla("run letters --config jobs.toml").ok();
    let args = ["drill", "letters", "--full", "--config", "jobs.toml"];
    let mut command = match rustix::process::geteuid().is_root() {
        false => home.command(&args),
        true => {
            let caps = "--bounding-set=-dac_override,-dac_read_search";
            home.command_of("setpriv", &[&[caps, BULLA], &args[..]].concat())
        }
    };
    Ran::of(command.output().unwrap()).ends(0);
    assert_eq!(std::fs::read_dir(home.path("scratch")).unwrap().count(), 0, "nothing stays");
    std::fs::set_permissions(home.path("letters/shut"), PermissionsExt::from_mode(0o755)).unwrap();
}

/// A file whose bytes change while its times do not: its disk is written to below the file system.
#[test]
fn a_file_that_rots_is_told_of_and_held() {
    let home = furnished();
    let (image, mount) = (home.path("image"), home.path("mount"));
    std::fs::create_dir(&mount).unwrap();
    std::fs::write(&image, vec![0; 8 << 20]).unwrap();
    let done = |program: &str, args: &[&str]| {
        Command::new(program).args(args).output().is_ok_and(|o| o.status.success())
    };
    let (image_at, mount_at) = (image.display().to_string(), mount.display().to_string());
    if !done("mkfs.ext4", &["-q", &image_at]) || !done("mount", &["-o", "loop", &image_at, &mount_at]) {
        println!("a file system cannot be mounted here: passed over");
        return;
    }
    struct Mounted<'a>(&'a str);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            let _ = Command::new("umount").arg(self.0).status();
        }
    }
    let mounted = Mounted(&mount_at);
    let word = "what the clay tablet says".repeat(300);
    home.write("mount/tablet", word.as_bytes());
    edit(&home, &format!("paths = [\"{}\"]", home.shown("letters")), &format!("paths = [\"{mount_at}\"]"));
    edit(&home, &format!("must_exist = [\"{}\"]", home.shown("letters/0")), "exclude = []");
    home.bulla("run letters --config jobs.toml").ok();
    assert!(done("umount", &[&mount_at]));
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(word.len()).position(|w| w == word.as_bytes()).unwrap();
    bytes[at] = b'W';
    std::fs::write(&image, bytes).unwrap();
    assert!(done("mount", &["-o", "loop", &image_at, &mount_at]));
    let drill = home.bulla("drill letters --full --from disk --config jobs.toml").ends(9);
    let line = drill.out.lines().find(|l| l.starts_with("DIVERGED ")).unwrap_or_default();
    for content in [word.replacen('w', "W", 1), word] {
        assert!(line.contains(&blake3::hash(content.as_bytes()).to_string()), "{}", drill.out);
    }
    home.bulla("status letters --config jobs.toml").ends(9).prints("in the source, ");
    drop(mounted);
}
