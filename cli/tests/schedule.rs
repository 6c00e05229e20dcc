//! Units for systemd: installed into a directory, judged by systemd's own tools.

use crate::home::Home;
use std::path::PathBuf;
use std::process::Command;

const FILE: &str = "etc/config.toml";

const JOBS: &str = r#"
[host]
timezone = "Europe/Berlin"
[destination.disk]
url = "/mnt/back 50% \"up"
key = { systemd = "disk-key" }
[destination.far]
url = "sftp:backup@vault.example.net:/srv/bulla"
password = { systemd = "far.password" }
[job.local]
source = { paths = ["/srv", "/etc"] }
to = ["disk"]
schedule = "30 1 * * *"
[job.dump]
source = { command = ["pg_dumpall", "-h", "db"], as = "dump.sql" }
to = ["far"]
schedule = "OnCalendar=Mon..Fri 0/4:05"
[job.both]
source = { paths = ["/home"] }
to = ["disk", "far"]
schedule = "15 3 1 * 0"
[job.by-hand]
source = { paths = ["/opt"] }
to = ["disk"]
"#;

/// Jobs with drills, and one that reads a device.
const DRILLS: &str = r#"
[job.opt]
source = { paths = ["/opt"] }
to = ["disk", "far"]
drill = { sample = "weekly", app = "monthly", command = ["true"] }
[job.device]
source = { block = "/dev/vg/lv" }
to = ["disk"]
drill = { full = "quarterly" }
schedule = "45 1 * * *"
[job.lib]
source = { paths = ["/usr/local/lib"] }
to = ["disk"]
drill = { sample = "0 4 * * 1", target = "/srv/scratch" }
"#;

fn furnished() -> Home {
    let home = Home::empty();
    home.write(FILE, JOBS.as_bytes());
    std::fs::create_dir(home.path("units")).unwrap();
    home
}

fn schedule(home: &Home, verb: &str) -> crate::home::Ran {
    home.bulla(&format!("schedule {verb} --config {FILE} --dir units"))
}

fn units(home: &Home) -> Vec<String> {
    let names = std::fs::read_dir(home.path("units")).unwrap().map(|e| e.unwrap().file_name());
    let mut names: Vec<String> = names.map(|n| n.into_string().unwrap()).collect();
    names.sort();
    names
}

/// Runs systemd-analyze on files; what it printed and whether it was content. Nothing where it is missing.
fn analyze(args: &[&str], files: &[PathBuf]) -> Option<(String, bool)> {
    let ran = Command::new("systemd-analyze").args(args).args(files).env("LC_ALL", "C").output();
    assert!(ran.is_ok() || std::env::var("CI").as_deref() != Ok("true"), "CI needs systemd-analyze");
    let ran = ran.inspect_err(|e| println!("units are not judged: systemd-analyze: {e}")).ok()?;
    let text = [ran.stdout, ran.stderr].concat();
    Some((String::from_utf8_lossy(&text).into_owned(), ran.status.success()))
}

/// A service as it would be if the configuration did not lie in /tmp, as it does in this test: without a /tmp of its own.
fn with_its_own_tmp(home: &Home, job: &str) -> PathBuf {
    let name = format!("bulla-{job}.service");
    let text = home.read(&format!("units/{name}"));
    home.write(&format!("judged/{name}"), &[&text, &b"PrivateTmp=yes\n"[..]].concat());
    home.path("judged").join(name)
}

/// The exposure of a service, from 0 to 10.
fn exposure(path: PathBuf) -> Option<f64> {
    let (said, _) = analyze(&["security", "--offline=true", "--no-pager"], &[path])?;
    let level = said.lines().rev().find_map(|l| l.split_once("Overall exposure level for ")).unwrap().1;
    level.split_once(": ").and_then(|(_, l)| l.split(' ').next()?.parse().ok())
}

#[test]
fn what_is_installed_is_sound_and_hardened() {
    let home = furnished();
    home.write(FILE, format!("{JOBS}{DRILLS}").as_bytes());
    let said = schedule(&home, "install").ok();
    let jobs = ["both", "device-drill", "device", "dump", "lib-drill", "local", "opt-drill"];
    let all: Vec<String> =
        jobs.iter().flat_map(|job| ["service", "timer"].map(|kind| format!("bulla-{job}.{kind}"))).collect();
    let mut sorted = all.clone();
    sorted.sort();
    assert_eq!(units(&home), sorted);
    assert!(said.contains("new        bulla-dump.service\n"), "{said}");
    let timers: Vec<&str> = sorted.iter().filter(|n| n.ends_with(".timer")).map(String::as_str).collect();
    let next = format!("next: systemctl daemon-reload; systemctl enable --now {}\n", timers.join(" "));
    assert!(said.ends_with(&next), "{said}");
    let paths: Vec<PathBuf> = all.iter().map(|name| home.path("units").join(name)).collect();
    let Some((said, content)) = analyze(&["verify"], &paths) else { return };
    assert!(content && said.is_empty(), "{said}");
    for job in jobs {
        let path = with_its_own_tmp(&home, job);
        let level = exposure(path.clone()).unwrap();
        println!("bulla-{job}.service: {level}");
        // Files from a distance, with their owners and modes.
        let most = if job == "opt-drill" { "--threshold=24" } else { "--threshold=20" };
        let judge = ["security", "--offline=true", "--no-pager", most];
        assert!(analyze(&judge, &[path]).unwrap().1, "{job}: {level}");
    }
    // Timers say what they were told, in the zone of the host.
    let timer = String::from_utf8(home.read("units/bulla-dump.timer")).unwrap();
    assert!(
        timer.contains("OnCalendar=Mon,Tue,Wed,Thu,Fri *-*-* 00,04,08,12,16,20:05:00 Europe/Berlin\n"),
        "{timer}"
    );
}

/// Jobs that tell somebody reach them, and a unit of its own tells what did not happen.
#[test]
fn what_did_not_happen_is_told_by_a_unit_of_its_own() {
    let home = furnished();
    let text = JOBS.replace("[job.local]", "[job.local]\nnotify = [\"ops\"]");
    let text = format!(
        "{text}[notify.ops]\nwebhook = {{ url = \"https://alerts.example.net/\", hmac = {{ systemd = \"hook\" }} }}\n"
    );
    home.write(FILE, text.replace("[host]", "[host]\nmetrics = \"/var/lib/node/bulla.prom\"").as_bytes());
    let said = schedule(&home, "install").ok();
    assert!(said.contains("new        bulla-notify.timer\n"), "{said}");
    let paths: Vec<PathBuf> = units(&home).iter().map(|name| home.path("units").join(name)).collect();
    assert_eq!(paths.len(), 8);
    let Some((said, content)) = analyze(&["verify"], &paths) else { return };
    assert!(content && said.is_empty(), "{said}");
    for job in ["local", "notify"] {
        let level = exposure(with_its_own_tmp(&home, job)).unwrap();
        println!("bulla-{job}.service: {level}");
        assert!(level <= 2.0, "{job}: {level}");
    }
    home.bulla(&format!("schedule show notify --config {FILE}")).ends(0).prints(" notify --config ");
}

/// Nothing may be hidden from a backup of everything. Its figure stands here so that it does not grow; of one that leaves other
/// processes' temporary files out, they are hidden.
#[test]
fn services_that_need_more_have_little_more() {
    let home = furnished();
    let level = |from: &str, to: &str, job: &str, own_tmp: bool| {
        assert!(JOBS.contains(from));
        home.write(FILE, JOBS.replace(from, to).as_bytes());
        schedule(&home, "install").ok();
        let path = if own_tmp {
            with_its_own_tmp(&home, job)
        } else {
            home.path(&format!("units/bulla-{job}.service"))
        };
        let level = exposure(path)?;
        println!("{to}: {level}");
        Some(level)
    };
    for (from, to, job, own_tmp, most) in [
        ("[\"/home\"]", "[\"/\"], exclude = [\"/mnt\"]", "both", false, 2.2),
        ("[\"/home\"]", "[\"/\"], exclude = [\"/mnt\", \"/tmp\", \"/var/tmp\"]", "both", true, 2.0),
        ("\"pg_dumpall\"", "\"runuser\", \"-u\", \"postgres\", \"pg_dumpall\"", "dump", true, 2.3),
        ("\"pg_dumpall\"", "\"setpriv\", \"--reuid=postgres\", \"pg_dumpall\"", "dump", true, 2.1),
        ("\"pg_dumpall\"", "\"su\", \"postgres\", \"-c\", \"pg_dumpall\"", "dump", true, 2.4),
    ] {
        let Some(level) = level(from, to, job, own_tmp) else { return };
        assert!(level <= most, "{to}: {level}");
    }
}

/// A command that becomes another user gets along with the rights that its unit leaves it, and those are few.
#[test]
fn a_dump_of_another_user_runs_with_what_its_unit_leaves_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("only root becomes somebody else: passed over");
        return;
    }
    let home = Home::empty();
    home.bulla("init -r disk --key-file-out key --recovery-key-out recovery").ok();
    let jobs = |url: &str| {
        format!(
            "[destination.disk]\nurl = \"{url}\"\nkey = {{ file = \"{}\" }}\n[job.dump]\nto = [\"disk\"]\nschedule = \"30 1 * * *\"\n\
             source = {{ command = [\"/usr/sbin/runuser\", \"-u\", \"nobody\", \"--\", \"sh\", \"-c\", \"id -un; cat {} || echo no\"], as = \"d\" }}\n",
            home.shown("key"),
            home.shown("key"),
        )
    };
    home.write(FILE, jobs("sftp:backup@vault:/srv").as_bytes());
    let unit = home.bulla(&format!("schedule show dump --config {FILE}")).ok();
    let rights = unit.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(rights, "CAP_SETUID CAP_SETGID");
    let bounds = rights.to_lowercase().replace("cap_", "+").replace(' ', ",");
    home.write("jobs.toml", jobs(&home.shown("disk")).as_bytes());
    let words = [&format!("--bounding-set=-all,{bounds}"), "--no-new-privs", crate::home::BULLA];
    let words = [&words[..], &["run", "dump", "--config", "jobs.toml"]].concat();
    let ran = crate::home::Ran::of(home.command_of("setpriv", &words).output().unwrap()).ok();
    assert!(ran.contains("dump: ok"), "{ran}");
    home.bulla("cat latest:/d -r disk --key-file key").ends(0).prints("nobody\nno\n");
    // One that hangs as somebody else is out of reach, and is waited for no longer than it was given; systemd ends it.
    let hangs =
        ["setpriv", "--reuid=nobody", "--clear-groups", "sleep", "77"].map(|w| format!("\"{w}\"")).join(", ");
    let text = jobs(&home.shown("disk"));
    let source = text.lines().find(|l| l.trim().starts_with("source")).unwrap();
    let hanging =
        text.replace(source, &format!("source = {{ command = [{hangs}], as = \"d\", timeout = \"1s\" }}"));
    home.write("jobs.toml", hanging.as_bytes());
    let (began, said) = (std::time::Instant::now(), home.path("said"));
    // Not a pipe: the command holds it open.
    let err = std::fs::File::create(&said).unwrap();
    let ran = home.command_of("setpriv", &words).stdout(std::process::Stdio::null()).stderr(err).status();
    let _ = Command::new("pkill").args(["-f", "sleep 77"]).status();
    let said = std::fs::read_to_string(said).unwrap();
    assert_eq!(ran.unwrap().code(), Some(1), "{said}");
    assert!(began.elapsed() < std::time::Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(said.contains("did not end in time"), "{said}");
}

#[test]
fn only_what_has_changed_is_written_and_only_ours_is_taken_away() {
    let home = furnished();
    home.write("units/bulla-own.service", b"[Unit]\n");
    home.write("units/other.timer", b"[Timer]\n");
    let dry = schedule(&home, "install --dry-run").ok();
    assert!(dry.contains("new        bulla-local.timer\n") && dry.contains("nothing was changed"), "{dry}");
    assert_eq!(units(&home).len(), 2);
    schedule(&home, "install").ok();
    assert_eq!(units(&home).len(), 8);
    let again = schedule(&home, "install").ok();
    assert_eq!(again.matches("unchanged").count(), 6, "{again}");
    assert!(!again.contains("next:"), "{again}");
    // Another time, and a job less.
    home.write(FILE, JOBS.replace("30 1 *", "31 1 *").replace("schedule = \"15 3 1 * 0\"\n", "").as_bytes());
    let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&home.path(name).metadata().unwrap());
    let before = inode("units/bulla-dump.timer");
    std::fs::create_dir(home.path("units/timers.target.wants")).unwrap();
    let link = home.path("units/timers.target.wants/bulla-both.timer");
    std::os::unix::fs::symlink("../bulla-both.timer", &link).unwrap();
    let json = home.run(&["schedule", "install", "--config", FILE, "--dir", "units", "--json"], b"").ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let fates: Vec<String> = json["units"]
        .as_array()
        .unwrap()
        .iter()
        .map(|u| format!("{} {}", u["unit"].as_str().unwrap(), u["change"].as_str().unwrap()))
        .collect();
    assert_eq!(
        fates,
        [
            "bulla-both.service gone",
            "bulla-both.timer gone",
            "bulla-dump.service unchanged",
            "bulla-dump.timer unchanged",
            "bulla-local.service unchanged",
            "bulla-local.timer changed"
        ]
    );
    assert_eq!(
        json["next"],
        serde_json::json!(["systemctl stop bulla-both.timer", "systemctl daemon-reload"])
    );
    assert_eq!((json["followed"].as_bool(), inode("units/bulla-dump.timer")), (Some(false), before));
    assert!(link.symlink_metadata().is_err());
    // The configuration may be gone by then.
    std::fs::remove_file(home.path(FILE)).unwrap();
    assert!(schedule(&home, "remove -n").ok().contains("gone       bulla-dump.service\n"));
    assert_eq!(units(&home).len(), 7);
    schedule(&home, "remove").ok();
    assert_eq!(units(&home), ["bulla-own.service", "other.timer", "timers.target.wants"]);
    assert!(schedule(&home, "remove").ok().contains("no units of this configuration"));
}

#[test]
fn what_is_not_ours_is_left_alone() {
    let home = furnished();
    let foreign = |home: &Home| {
        schedule(home, "install").ends(5).says("left alone").says("bulla-local.timer");
        assert!(units(home).iter().all(|name| name == "bulla-local.timer"), "{:?}", units(home));
    };
    home.write("units/bulla-local.timer", b"[Timer]\nOnCalendar=daily\n");
    foreign(&home);
    assert_eq!(home.read("units/bulla-local.timer"), b"[Timer]\nOnCalendar=daily\n");
    // Masked by the administrator.
    std::fs::remove_file(home.path("units/bulla-local.timer")).unwrap();
    std::os::unix::fs::symlink("/dev/null", home.path("units/bulla-local.timer")).unwrap();
    foreign(&home);
    std::fs::remove_file(home.path("units/bulla-local.timer")).unwrap();
    // Of another configuration.
    schedule(&home, "install").ok();
    home.write("etc/other.toml", JOBS.as_bytes());
    let other = "--config etc/other.toml --dir units";
    home.bulla(&format!("schedule install {other}")).ends(5).says("--config THAT");
    home.bulla(&format!("schedule remove {other}")).ok();
    assert_eq!(units(&home).len(), 6);
    home.bulla(&format!("schedule install --config {FILE} --dir nowhere")).ends(1).says("nowhere");
}

#[test]
fn units_are_shown_and_what_they_cannot_say_is_refused() {
    let home = furnished();
    let shown = home.bulla(&format!("schedule show local --config {FILE}")).ok();
    assert!(
        shown.starts_with("# bulla-local.service\n# Written by") && !shown.contains("bulla-dump"),
        "{shown}"
    );
    let run = format!(" run local --config \"{}\"\n", home.shown(FILE));
    assert!(shown.contains(&run) && shown.contains("ReadWritePaths=-\"/mnt/back 50%% \\\"up\"\n"), "{shown}");
    let json = home.bulla(&format!("schedule show --json --config {FILE}")).ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((json["message_type"].as_str(), json["units"].as_array().unwrap().len()), (Some("units"), 6));
    home.bulla(&format!("schedule show lokal --config {FILE}")).ends(2).says("both, dump, local have one");
    for (from, to, why) in [
        ("[job.local]", "[job.\"../x\"]", "cannot be a unit's"),
        ("[job.local]", "[job.\"a\\n[Service]\"]", "cannot be a unit's"),
        ("50%", "\\n", "control characters"),
        ("/mnt/back", "mnt/back", "write the whole path"),
        ("disk-key", "x:/etc/shadow", "no credential of systemd"),
    ] {
        home.write(FILE, JOBS.replace(from, to).as_bytes());
        schedule(&home, "install").ends(2).says(why);
        assert_eq!(units(&home).len(), 0, "{to}");
    }
    // A name that needs quotes is quoted.
    home.write("etc/a b$c%d'e\\.toml", JOBS.as_bytes());
    home.run(&["schedule", "install", "--dir", "units", "--config", "etc/a b$c%d'e\\.toml"], b"").ok();
    let paths: Vec<PathBuf> = units(&home).iter().map(|name| home.path("units").join(name)).collect();
    let Some((said, content)) = analyze(&["verify"], &paths) else { return };
    assert!(content && said.is_empty(), "{said}");
}

/// The lines of the README's section, each as it stands there.
#[test]
fn the_readme_on_when_jobs_run() {
    let home = Home::empty();
    home.bulla("config init --config bulla.toml").ok();
    std::fs::create_dir(home.path("units")).unwrap();
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
    let section = readme.split("### When jobs run").nth(1).and_then(|s| s.split("```").nth(1)).unwrap();
    let lines: Vec<&str> = section.lines().filter_map(|l| l.strip_prefix("bulla ")).collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    for line in lines {
        home.bulla(line.split('#').next().unwrap()).ok();
    }
    assert_eq!(units(&home).len(), 0);
}
