//! What is in units, line by line, and what cannot be said in one.

use super::*;
use crate::config::File;

const JOBS: &str = r#"
[host]
timezone = "Europe/Berlin"
[destination.disk]
url = "/mnt/my 50% \"disk\""
key = { systemd = "disk-key" }
[destination.far]
url = "sftp:backup@vault:/srv"
password = { command = ["pass", "show", "far"] }
[job.files]
source = { paths = ["/srv"], exclude = ["/mnt"] }
to = ["disk"]
schedule = "0 3 1 * 1"
[job.dump]
source = { command = ["runuser", "-u", "postgres", "pg_dump"], as = "dump" }
to = ["disk", "far"]
schedule = "OnCalendar=daily UTC"
[job.never]
source = { paths = ["/var"] }
to = ["disk"]
"#;

fn made(text: &str) -> Result<Vec<Unit>, Vec<String>> {
    let read = Config::read(&[File { path: "c.toml".into(), text: text.to_owned() }]);
    assert!(read.is_sound(), "{:?}", read.mistakes);
    units(&read.config, Path::new("/usr/bin/bulla"), Path::new("/etc/bulla/config.toml"))
}

fn text(of: &str, units: &[Unit]) -> String {
    units.iter().find(|unit| unit.name == of).unwrap().text.clone()
}

#[test]
fn a_job_has_a_service_and_a_timer_and_is_left_what_it_needs() {
    let units = made(JOBS).unwrap();
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    assert_eq!(names, ["bulla-dump.service", "bulla-dump.timer", "bulla-files.service", "bulla-files.timer"]);
    let service = text("bulla-files.service", &units);
    for line in [
        "ExecStart=:\"/usr/bin/bulla\" run files --config \"/etc/bulla/config.toml\"\n",
        "ReadWritePaths=-\"/mnt/my 50%% \\\"disk\\\"\"\n",
        "LoadCredential=disk-key\n",
        "PrivateNetwork=yes\n",
        "PrivateTmp=yes\n",
        "ProtectKernelModules=yes\n",
        "CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE\n",
    ] {
        assert!(service.contains(line), "{line}{service}");
    }
    assert!(!service.contains("AF_INET"), "{service}");
    let timer = text("bulla-files.timer", &units);
    let due = "OnCalendar=*-*-01 03:00:00 Europe/Berlin\nOnCalendar=Mon *-*-* 03:00:00 Europe/Berlin\n";
    assert!(timer.contains(due) && timer.contains("Persistent=true\n"), "{timer}");
    let service = text("bulla-dump.service", &units);
    for line in ["AF_INET AF_INET6\n", "CAP_SETUID CAP_SETGID\n", "Wants=network-online.target\n"] {
        assert!(service.contains(line), "{line}{service}");
    }
    assert!(!service.contains("PrivateNetwork"), "{service}");
    assert!(text("bulla-dump.timer", &units).contains("OnCalendar=*-*-* 00:00:00 UTC\n"));
}

#[test]
fn a_job_whose_drills_have_a_timetable_has_a_second_pair() {
    let drills = "drill = { sample = \"weekly\", full = \"30 4 1 * *\", target = \"/srv2/scratch\" }\nschedule = \"0 3 1 * 1\"";
    let units = made(&JOBS.replace("schedule = \"0 3 1 * 1\"", drills)).unwrap();
    let names: Vec<&str> = units.iter().filter(|u| u.job == "files").map(|u| u.name.as_str()).collect();
    assert_eq!(
        names,
        ["bulla-files.service", "bulla-files.timer", "bulla-files-drill.service", "bulla-files-drill.timer"]
    );
    let service = text("bulla-files-drill.service", &units);
    for line in [
        "ExecStart=:\"/usr/bin/bulla\" drill files --due --config \"/etc/bulla/config.toml\"\n",
        "ReadWritePaths=-\"/srv2/scratch\"\n",
        "CAP_CHOWN CAP_FOWNER CAP_FSETID\n",
        "SystemCallFilter=@chown\n",
    ] {
        assert!(service.contains(line), "{line}{service}");
    }
    let timer = text("bulla-files-drill.timer", &units);
    for line in
        ["OnCalendar=Mon *-*-* 00:00:00 Europe/Berlin\n", "OnCalendar=*-*-01 04:30:00 Europe/Berlin\n"]
    {
        assert!(timer.contains(line), "{line}{timer}");
    }
    assert!(!text("bulla-files.service", &units).contains("CAP_CHOWN"));
    let clash = JOBS.replace("[job.dump]", "[job.files-drill]").replace("schedule = \"0 3 1 * 1\"", drills);
    assert!(made(&clash).unwrap_err()[0].contains("rename one of the two"));
}

#[test]
fn a_device_is_left_to_its_job_and_no_other() {
    let job =
        "source = { block = \"/dev/vg/lv\" }\nhooks = [{ at = \"before\", command = [\"/tmp/freeze\"] }]";
    let service = text(
        "bulla-files.service",
        &made(&JOBS.replace("source = { paths = [\"/srv\"], exclude = [\"/mnt\"] }", job)).unwrap(),
    );
    assert!(service.contains("DevicePolicy=closed\nDeviceAllow=/dev/vg/lv r\n"), "{service}");
    assert!(!service.contains("PrivateDevices") && !service.contains("PrivateTmp"), "{service}");
    assert!(service.contains("AF_INET"), "nobody knows what a hook needs: {service}");
    let fd = JOBS.replace("systemd = \"disk-key\"", "fd = 3");
    assert!(made(&fd).unwrap_err()[0].contains("systemd leaves none open"));
}

/// Who tells somebody needs the network and a secret, also with all repositories on a disk.
#[test]
fn a_job_that_tells_somebody_reaches_them() {
    let text = JOBS.replace("[job.files]\n", "[job.files]\nnotify = [\"ops\"]\n").replace(
        "[destination.disk]",
        "metrics = \"/var/lib/node_exporter/textfile/bulla.prom\"\n[notify.ops]\n\
         webhook = { url = \"https://h/\", hmac = { systemd = \"hook\" } }\n[destination.disk]",
    );
    let service = super::tests::text("bulla-files.service", &made(&text).unwrap());
    for line in [
        "AF_INET AF_INET6\n",
        "LoadCredential=disk-key\nLoadCredential=hook\n",
        "ReadWritePaths=-\"/var/lib/node_exporter/textfile\"\n",
        "StateDirectory=bulla\n",
        "Wants=network-online.target\n",
    ] {
        assert!(service.contains(line), "{line}{service}");
    }
    assert!(!service.contains("PrivateNetwork"), "{service}");
    // What did not happen no job tells: a unit of its own does, and reaches all that it has to look at.
    let watch = super::tests::text("bulla-notify.service", &made(&text).unwrap());
    for line in [
        "ExecStart=:\"/usr/bin/bulla\" notify --config \"/etc/bulla/config.toml\"\n",
        "LoadCredential=disk-key\nLoadCredential=hook\n",
        "ReadWritePaths=-\"/var/lib/node_exporter/textfile\"\n",
    ] {
        assert!(watch.contains(line), "{line}{watch}");
    }
    assert!(!watch.contains("/mnt/my") && !made(JOBS).unwrap().iter().any(|u| u.job == "notify"));
    let wrong = made(&text.replace("[job.files]", "[job.notify]")).unwrap_err().join("\n");
    assert!(wrong.contains("rename it"), "{wrong}");
}

/// What systemd hides from a service would be missing in its backup.
#[test]
fn nothing_is_hidden_that_is_backed_up() {
    for (source, temporary, modules) in [
        ("/", true, true),
        ("/usr", false, true),
        ("/var", true, false),
        ("/srv/../tmp/x", true, false),
        ("/home", false, false),
    ] {
        let service =
            text("bulla-files.service", &made(&JOBS.replace("/srv\"]", &format!("{source}\"]"))).unwrap());
        assert_eq!(!service.contains("PrivateTmp"), temporary, "{source}");
        assert_eq!(!service.contains("ProtectKernelModules"), modules, "{source}");
    }
    // What is left out of the source anyway may be hidden; not if a pattern may take it back, or only a part is left out.
    for (exclude, temporary, modules) in [
        (r#"["/mnt", "/tmp", "/var/tmp"]"#, false, true),
        (r#"["/mnt", "/tmp", "/var", "/usr/lib", "/lib"]"#, false, false),
        (r#"["/mnt", "/tmp"]"#, true, true),
        (r#"["/mnt", "/tmp/*", "/var/tmp"]"#, true, true),
        (r#"["/mnt", "/tmp", "/var/tmp", "!/tmp/keep"]"#, true, true),
    ] {
        let source =
            JOBS.replace(r#"["/srv"], exclude = ["/mnt"]"#, &format!(r#"["/"], exclude = {exclude}"#));
        let service = text("bulla-files.service", &made(&source).unwrap());
        assert_eq!(!service.contains("PrivateTmp"), temporary, "{exclude}");
        assert_eq!(!service.contains("ProtectKernelModules"), modules, "{exclude}");
    }
}

/// Who becomes another user and stores afar has no use for the right to read what is not root's.
#[test]
fn a_dump_of_another_user_is_left_little() {
    let far = JOBS.replace("[\"disk\", \"far\"]", "[\"far\"]");
    let far =
        far.replace("password = { command = [\"pass\", \"show\", \"far\"] }", "key = { systemd = \"far\" }");
    let rights = |text: &str| {
        let service = super::tests::text("bulla-dump.service", &made(text).unwrap());
        let filters = "SystemCallFilter=~@resources @privileged\n";
        assert!(
            service.contains(filters) && service.contains("SystemCallFilter=@setuid capset\n"),
            "{service}"
        );
        service.lines().find_map(|l| l.strip_prefix("CapabilityBoundingSet=")).unwrap().to_owned()
    };
    assert_eq!(rights(&far), "CAP_SETUID CAP_SETGID");
    let read = "CAP_DAC_READ_SEARCH CAP_SETUID CAP_SETGID";
    let hook = "as = \"dump\" }\nhooks = [{ at = \"before\", command = [\"cp\", \"/a\", \"/b\"] }]";
    for (from, to) in [
        ("\"runuser\", \"-u\"", "\"su\", \"-\""),
        ("\"runuser\", \"-u\"", "\"setpriv\", \"--no-new-privs\""),
        ("key = { systemd = \"far\" }", "key = { command = [\"pass\", \"show\"] }"),
        ("as = \"dump\" }", hook),
    ] {
        assert!(far.contains(from), "{from}");
        assert_eq!(rights(&far.replace(from, to)), read, "{to}");
    }
    let reuid = far.replace("\"runuser\", \"-u\"", "\"setpriv\", \"--reuid\"");
    assert_eq!(rights(&reuid), "CAP_SETUID CAP_SETGID");
    // PAM sets the priority of a session; who opens none does without.
    let filter = |text: &str| {
        super::tests::text("bulla-dump.service", &made(text).unwrap()).contains("=setpriority\n")
    };
    assert_eq!([filter(&far), filter(&reuid)], [true, false]);
    // A local repository may be somebody else's.
    assert!(rights(&far.replace("[\"far\"]", "[\"far\", \"disk\"]")).contains("CAP_DAC_OVERRIDE"));
}

#[test]
fn what_a_unit_cannot_say_is_refused_and_all_of_it_told() {
    let wrong = |from: &str, to: &str| made(&JOBS.replace(from, to)).unwrap_err().join("\n");
    for name in
        ["\"a/b\"", "\"\"", "\"a b\"", "\"../x\"", "\"a%i\"", "\"-x\"", "\"a@b\"", "\"a\\nb\"", "\"\u{fc}\""]
    {
        assert!(wrong("[job.files]", &format!("[job.{name}]")).contains("cannot be a unit's"), "{name}");
    }
    assert!(wrong("50%", "\\n").contains("control characters"));
    assert!(wrong("/mnt/", "mnt/").contains("write the whole path"));
    assert!(wrong("disk-key", "a:/etc/shadow").contains("no credential of systemd"));
    assert_eq!(wrong("/mnt/", "mnt/").lines().count(), 2);
}
