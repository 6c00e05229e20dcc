//! Each mistake by its code, and that all of them are told at once.

use super::*;

fn read(text: &str) -> Read {
    Config::read(&[File { path: "c.toml".into(), text: text.to_owned() }])
}

/// `code line`, and the text of each.
fn told(text: &str) -> Vec<(String, String)> {
    read(text).mistakes.iter().map(|m| (format!("{} {}", m.code, m.place.line), m.to_string())).collect()
}

const DISK: &str = "[destination.disk]\nurl = \"/mnt/b\"\nkey = { file = \"/k\" }\nsite = \"here\"\n";

/// A job as it should be, with lines put in place of its own by their keys.
fn with_job(lines: &[&str]) -> String {
    let sound = [
        "source = { paths = [\"/srv\"] }",
        "to = [\"disk\"]",
        "schedule = \"30 1 * * *\"",
        "retention = \"user-data\"",
        "rpo = \"1d2h\"",
    ];
    let key = |line: &str| line.split(" =").next().unwrap().to_owned();
    let mut all: Vec<&str> = sound.into_iter().filter(|s| !lines.iter().any(|l| key(l) == key(s))).collect();
    all.extend(lines.iter().filter(|l| !l.ends_with("= none")));
    format!("{DISK}[job.home]\n{}\n", all.join("\n"))
}

#[test]
fn the_starter_is_sound() {
    assert_eq!(told(STARTER), []);
    let config = read(STARTER).config;
    assert_eq!((config.jobs.len(), config.destinations.len()), (1, 1));
    assert_eq!(told(&with_job(&[])), []);
}

#[test]
fn each_mistake_has_its_code_and_its_fix() {
    let high = ["class = \"critical\"", "rto = \"1h\"", "owner = \"ops\""];
    for (lines, code, said) in [
        (&["scedule = \"30 1 * * *\""][..], "E-KEY-01", "did you mean schedule?"),
        (&["owner = 7"], "E-KEY-02", "of type integer; write text, in quotes"),
        (&["source = none"], "E-KEY-03", "has no source; write source ="),
        (&["source = { paths = [] }"], "E-SRC-01", "either paths, command (or pipeline) or block"),
        (&["source = { command = [\"pg_dump\"] }"], "E-SRC-01", "write as ="),
        (&["source = { block = \"sda\" }"], "E-SRC-02", "write the whole path"),
        (
            &["source = { block = \"/dev/sda\", magic = \"x\" }"],
            "E-SRC-01",
            "leave magic, min_size and timeout out",
        ),
        (&["source = { block = \"/dev/sda\", paths = [\"/srv\"] }"], "E-SRC-01", "one thing to back up"),
        (&["hooks = { at = \"before\" }"], "E-KEY-02", "a list of tables"),
        (&["hooks = [\"freeze\"]"], "E-KEY-02", "only tables in it"),
        (&["hooks = [{ command = [\"freeze\"] }]"], "E-KEY-03", "job.home.hooks has no at"),
        (&["hooks = [{ at = \"befor\", command = [\"freeze\"] }]"], "E-VAL-01", "did you mean before?"),
        (&["hooks = [{ at = \"before\", comand = [\"freeze\"] }]"], "E-KEY-01", "did you mean command?"),
        (&["hooks = [{ at = \"before\", command = [] }]"], "E-HOK-01", "name a program"),
        (
            &["hooks = [{ at = \"after\", command = [\"a\"], on_fail = \"ignore\" }]"],
            "E-VAL-01",
            "there are abort, warn",
        ),
        (&["retry = { attempts = 0 }"], "E-VAL-01", "write 1 or more"),
        (&["retry = { attempts = \"3\" }"], "E-KEY-02", "a whole number"),
        (&["retry = { backoff = \"20m..2m\" }"], "E-VAL-01", "no range like 2m..20m"),
        (&["missed = \"run-all\""], "E-VAL-01", "there are run-once, skip"),
        (&["drill = { sample = \"weekley\" }"], "E-VAL-01", "none of hourly, daily, weekly"),
        (&["drill = { full = \"30 1 * *\" }"], "E-VAL-01", "4 fields"),
        (&["drill = { app = \"monthly\" }"], "E-DRL-02", "leave app out"),
        (&["class = \"importent\""], "E-VAL-01", "did you mean important?"),
        (&["rto = \"2 fortnights\""], "E-VAL-01", "no length of time"),
        (&["schedule = \"30 1 * *\""], "E-VAL-01", "4 fields"),
        (&["schedule = \"OnCalendar=25:00\""], "E-VAL-01", "no hour is 25: there are 0 to 23"),
        (&["to = [\"disc\"]"], "E-REF-01", "did you mean disk?"),
        (&["to = []"], "E-DST-01", "goes nowhere"),
        (&["retention = \"user-date\""], "E-REF-01", "did you mean user-data?"),
        (&["class = \"important\""], "E-JOB-04", "has no rto"),
        (&["class = \"important\"", "rto = \"1h\"", "rpo = none"], "E-JOB-04", "has no rpo"),
        (&["class = \"important\"", "rto = \"1h\""], "E-JOB-04", "has no owner; write owner ="),
        (&high, "E-DST-02", "no destination is known to be on another site"),
        (&["class = \"critical\"", "rto = \"1h\"", "verify = \"off\""], "E-VER-01", "write verify = \"new\""),
        (&["schedule = \"OnCalendar=Mon..Fri 01:30\""], "E-RET-05", "3d may pass between runs"),
        (&["rpo = \"23h\""], "E-RET-05", "1d may pass between runs"),
        (&["rpo = \"23h\"", "retention = none"], "E-RET-05", "1d may pass between runs"),
        (&["retention = \"databases\""], "E-RET-03", "keeps hourly backups"),
        (
            &["retention = \"logs\"", "compliance = [\"pci-dss\"]"],
            "E-CMP-01",
            "the smallest change: monthly = \"12m\"",
        ),
        (&["compliance = [\"hippa\"]"], "E-VAL-01", "gdpr, hipaa, sox, pci-dss"),
        (&["source = { paths = [\"/mnt\"] }"], "E-SRC-06", "its destination /mnt/b lies in it"),
        (&["source = { paths = [\"srv\"] }"], "E-SRC-02", "write the whole path"),
        (&["source = { command = [\"pg_dump\", \"-Fc\"], as = \"d\" }"], "W-SRC-02", "-Z0"),
        (&["schedule = none"], "W-SCH-01", "has no schedule"),
    ] {
        let text = with_job(lines);
        let found = told(&text);
        let hit = found.iter().any(|(c, text)| c.starts_with(code) && text.contains(said));
        assert!(hit, "{code} {said}\n{text}\n{found:#?}");
        assert_eq!(read(&text).is_sound(), code.starts_with('W'), "{found:?}");
    }
}

/// What no store of that kind can do is told before a run has backed up to it.
#[test]
fn only_buckets_are_asked_to_lock() {
    for (url, sound) in [
        ("s3:https://s3.example.org/b/p", true),
        ("/mnt/b", false),
        ("file:/mnt/b", false),
        ("sftp:u@h:b", false),
        ("rest:https://u:secret@h/b/", false),
        ("rclone:r:b", false),
    ] {
        let key = "key = { file = \"/k\" }\nworm = { mode = \"compliance\", keep = \"35d\" }";
        let text = format!("[destination.vault]\nurl = \"{url}\"\n{key}\n");
        let found = told(&text);
        let hit = found
            .iter()
            .any(|(c, t)| c.starts_with("E-DST-03") && t.contains("vault") && !t.contains("secret"));
        assert_eq!((hit, read(&text).is_sound()), (!sound, sound), "{url}: {found:?}");
    }
}

/// Once a year a day has 25 hours, where clocks are changed.
#[test]
fn days_are_those_of_the_host() {
    let text = with_job(&["rpo = \"1d\""]);
    assert_eq!(told(&text), []);
    let found = told(&format!("[host]\ntimezone = \"Europe/Berlin\"\n{text}"));
    assert!(found.iter().any(|(c, t)| c.starts_with("E-RET-05") && t.contains("1d1h may pass")), "{found:?}");
}

#[test]
fn entries_are_what_is_written_and_where() {
    let file = File { path: "c.toml".into(), text: with_job(&[]) };
    let found: Vec<String> =
        entries(&[file]).iter().map(|e| format!("{} {} {}", e.key, e.value, e.place)).collect();
    assert!(found.contains(&"destination.disk.key.file \"/k\" c.toml:3".to_owned()), "{found:?}");
    assert!(found.contains(&"job.home.to [\"disk\"] c.toml:7".to_owned()), "{found:?}");
}

#[test]
fn what_is_right_is_not_called_wrong() {
    for lines in [
        &["source = { paths = [\"/mnt\"], exclude = [\"/mnt/b\"] }"][..],
        &["source = { paths = [\"/mnt/bb\"] }"],
        &["source = { command = [\"pg_dump\", \"-Fc\", \"-Z0\"], as = \"d\" }"],
        &["retention = \"databases\"", "schedule = \"5 * * * *\""],
        &["retention = \"databases\"", "schedule = \"OnCalendar=*:05\""],
        &["schedule = \"OnCalendar=Mon..Sun 01:30:00 Europe/Berlin\""],
        &["source = { block = \"/dev/vg/lv\", as = \"lv.img\" }"],
        &["retry = { attempts = 5, backoff = \"10s..1m\" }", "missed = \"skip\""],
        &[
            "drill = { sample = \"weekly\", full = \"OnCalendar=*-*-01\", app = \"0 4 1 * *\", command = [\"true\"] }",
        ],
        &[
            "retention = \"databases\"",
            "schedule = \"5 * * * *\"",
            "compliance = [\"sox\", \"hipaa\", \"gdpr\"]",
        ],
    ] {
        assert_eq!(told(&with_job(lines)), [], "{lines:?}");
    }
}

/// What is wrong once is told once: a value that cannot be read is not missing, nor is what it stands in.
#[test]
fn a_mistake_draws_no_others_after_it() {
    let codes = |text: &str| told(text).into_iter().map(|(code, _)| code).collect::<Vec<_>>().join(", ");
    let important = ["class = \"important\"", "rto = \"soon\"", "owner = \"ops\""];
    assert_eq!(codes(&with_job(&important)), "E-VAL-01 12");
    assert_eq!(codes(&with_job(&["schedule = \"daily\""])), "E-VAL-01 10");
    assert_eq!(codes(&with_job(&["to = [\"disk\", 3]"])), "E-KEY-02 10");
    let bad_place = with_job(&[]).replace("url = \"/mnt/b\"\n", "");
    assert_eq!(codes(&bad_place), "E-KEY-03 1");
    let bad_rules = with_job(&["retention = \"own\""]) + "[retention.own]\ncompliance = []\n";
    assert_eq!(codes(&bad_rules), "E-RET-01 11");
    // And one does not hide another.
    let both = ["class = \"critical\"", "rpo = none", "verify = \"off\"", "source = {}"];
    let found = codes(&with_job(&both));
    assert!(["E-SRC-01", "E-JOB-04", "E-VER-01"].iter().all(|code| found.contains(code)), "{found}");
}

#[test]
fn secrets_are_places_and_nothing_else() {
    let told_of = |key: &str| told(&format!("[destination.disk]\nurl = \"/b\"\n{key}\n"));
    let literal = told_of("password = \"hunter2\"");
    assert_eq!(literal.len(), 1, "{literal:?}");
    assert!(literal[0].0 == "E-SEC-01 3" && !literal[0].1.contains("hunter2"), "{literal:?}");
    for key in [
        "",
        "key = {}",
        "key = { file = \"/a\", systemd = \"b\" }",
        "key = { file = \"/a\" }\npassword = { file = \"/b\" }",
    ] {
        assert!(told_of(key).iter().any(|(code, _)| code.starts_with("E-SEC-03")), "{key}");
    }
    assert!(told_of("key = { fd = -1 }").iter().any(|(code, _)| code.starts_with("E-VAL-01")));
    for key in ["fd = 3", "file = \"/a\"", "systemd = \"a\"", "command = [\"pass\", \"show\"]"] {
        assert_eq!(told_of(&format!("key = {{ {key} }}")), []);
    }
}

/// The law wants the newest months where they can be read at once.
#[test]
fn what_has_to_be_at_hand_is_not_on_tapes_alone() {
    let kept = "retention = \"own\"";
    let text = |to: &str, compliance: &str, more: &str| {
        let tape = DISK.replace("destination.disk", "destination.vault") + "media = \"tape\"\n";
        let own = format!("[retention.own]\ndaily = \"7d\"\nmonthly = \"12m\"\n{compliance}\n");
        let job = with_job(&[kept, &format!("to = {to}")]).replace(DISK, "");
        format!("{own}{tape}{more}{job}")
    };
    let pci = "compliance = [\"pci-dss\"]";
    let alone = told(&text("[\"vault\"]", pci, ""));
    assert_eq!(alone.len(), 1, "{alone:?}");
    assert!(
        alone[0].0.starts_with("E-CMP-02") && alone[0].1.contains("wants the newest 3m at hand"),
        "{alone:?}"
    );
    assert!(alone[0].1.contains("to = [\"vault\", \"…\"]"), "{alone:?}");
    // The fix that is named is one.
    let beside = told(&text("[\"vault\"]", pci, DISK));
    let fix = beside[0].1.split("the smallest change: to = ").nth(1).unwrap();
    assert_eq!(fix, "[\"vault\", \"disk\"]");
    assert_eq!(told(&text(fix, pci, DISK)), []);
    assert_eq!(told(&text("[\"vault\"]", "compliance = [\"gdpr\"]", "")), []);
    // The job's own word counts as well; and of a destination that nobody knows nothing is said.
    let own = text("[\"vault\"]", "", "") + pci + "\n";
    assert!(told(&own)[0].0.starts_with("E-CMP-02"), "{:?}", told(&own));
    let unknown = told(&text("[\"vault\", \"nas\"]", pci, ""));
    assert!(unknown.len() == 1 && unknown[0].0.starts_with("E-REF-01"), "{unknown:?}");
}

#[test]
fn a_destination_has_limits_of_its_own() {
    let of = |line: &str| format!("{DISK}{line}\n");
    let limits = |line: &str| read(&of(line)).config.destinations["disk"].value.limits;
    let written = limits("limits = { upload = \"10MiB\", download = \"200\" }");
    assert_eq!(written, Limits { upload: "10M/s".parse().ok(), download: "200KiB".parse().ok() });
    assert_eq!(limits(""), Limits::default());
    for (line, code, said) in [
        ("limits = { upload = \"0\" }", "E-VAL-01 5", "leave it out for no limit"),
        ("limits = { download = \"fast\" }", "E-VAL-01 5", "not a size like 512K, 10M"),
        ("limits = { upload = 10 }", "E-KEY-02 5", "write text"),
        ("limits = { uplaod = \"1M\" }", "E-KEY-01 5", "did you mean upload?"),
        ("limits = \"10MiB\"", "E-KEY-02 5", "write a table"),
    ] {
        let found = told(&of(line));
        assert!(found.len() == 1 && found[0].0 == code && found[0].1.contains(said), "{line}\n{found:?}");
    }
    let schema = Config::schema();
    let place = &schema["properties"]["destination"]["additionalProperties"]["properties"]["limits"];
    assert_eq!(place["properties"]["upload"]["type"], "string");
}

#[test]
fn all_mistakes_are_told_in_order_with_their_lines() {
    let text = "[host]\ntimezone = \"Europe/Berlyn\"\n[destination.a]\nkey = { file = \"/k\" }\nmedia = \"hd\"\n[job.x]\nto = [\"b\"]\n[jobs.y]\n";
    let codes: Vec<String> = told(text).into_iter().map(|(code, _)| code).collect();
    assert_eq!(codes, ["E-VAL-01 2", "E-KEY-03 3", "E-VAL-01 5", "E-KEY-03 6", "W-SCH-01 6", "E-KEY-01 8"]);
    let broken = told("[host\nsite = 1\n= 3\n[job.x]\ncolour = 1\n");
    assert!(broken.iter().filter(|(c, _)| c.starts_with("E-TOML-01")).count() >= 2, "{broken:?}");
}

#[test]
fn files_are_one_configuration_and_a_name_is_given_once() {
    let file = |path: &str, text: &str| File { path: path.into(), text: text.to_owned() };
    let job = with_job(&[]).replace(DISK, "");
    let read = Config::read(&[file("a.toml", DISK), file("b.toml", &job)]);
    assert_eq!(read.mistakes, []);
    let read = Config::read(&[file("a.toml", DISK), file("b.toml", &job), file("c.toml", DISK)]);
    assert_eq!(read.mistakes.len(), 1);
    assert_eq!(
        read.mistakes[0].to_string(),
        "c.toml:1: E-KEY-04: destination disk is described a second time, first at a.toml:1; give one of them another name"
    );
}

#[test]
fn what_is_around_a_backup_is_read_as_it_is_written() {
    let hooks = [
        "hooks = [{ at = \"before\", command = [\"freeze\", \"-q\"], timeout = \"30s\" }, { at = \"finally\", command = [\"thaw\"] }]",
        "retry = { attempts = 5 }",
    ];
    let config = read(&with_job(&hooks)).config;
    let job = &config.jobs["home"].value;
    let told: Vec<String> = job
        .hooks
        .iter()
        .map(|h| format!("{:?} {:?} {} {}", h.value.at, h.value.command, h.value.abort, h.value.timeout))
        .collect();
    assert_eq!(told, ["Before [\"freeze\", \"-q\"] true 30s", "Finally [\"thaw\"] false 10m"]);
    assert_eq!((job.retry.attempts, job.retry.backoff, job.missed), (5, Backoff::default(), Missed::RunOnce));
    // The other way to write a list of tables.
    let text = with_job(&[]) + "[[job.home.hooks]]\nat = \"before\"\ncommand = [\"freeze\"]\n";
    assert_eq!(told_codes(&text), "");
    assert_eq!(read(&text).config.jobs["home"].value.hooks.len(), 1);
    let schema = Config::schema();
    let hook = &schema["properties"]["job"]["additionalProperties"]["properties"]["hooks"];
    assert_eq!(hook["type"], "array");
    assert_eq!(hook["items"]["required"], serde_json::json!(["at", "command"]));
    assert_eq!(hook["items"]["additionalProperties"], serde_json::json!(false));
}

fn told_codes(text: &str) -> String {
    told(text).into_iter().map(|(code, _)| code).collect::<Vec<_>>().join(", ")
}

/// A record of a run names the configuration by what is written of its job, whatever the names in it look like.
#[test]
fn whatever_is_written_of_a_job_is_in_its_digest() {
    let digest = |text: &str, job: &str| {
        let read = read(text);
        assert!(read.is_sound(), "{text}\n{:?}", read.mistakes);
        read.config.digest(job)
    };
    for (job, disk) in [("home", "disk"), ("my job", "disk"), ("home", "a disk"), ("\u{fc}", "my.disk")] {
        let name = |kind: &str, name: &str| format!("[{kind}.{name:?}]");
        let text =
            with_job(&["retention = \"own\""]) + "[[job.home.hooks]]\nat = \"after\"\ncommand = [\"thaw\"]\n";
        let text = text + "[retention.own]\npreset = \"user-data\"\n";
        let text = text.replace("[\"disk\"]", &format!("[{disk:?}]"));
        let text = text.replace("[destination.disk]", &name("destination", disk));
        let text =
            text.replace("[job.home]", &name("job", job)).replace("job.home.", &format!("job.{job:?}."));
        let before = digest(&text, job);
        for (from, to) in [
            ("/srv", "/opt"),
            ("\"/mnt/b\"", "\"/mnt/c\""),
            ("thaw", "melt"),
            ("preset = \"user-data\"", "preset = \"vms\""),
        ] {
            assert!(text.contains(from));
            assert_ne!(digest(&text.replace(from, to), job), before, "{job} {disk} {from}");
        }
        assert_eq!(digest(&format!("# a comment\n{text}"), job), before);
    }
}

/// The schema is what the reader asks for: it knows all keys of the starter, and no others.
#[test]
fn the_schema_has_the_keys_that_are_read() {
    let schema = Config::schema();
    let job = &schema["properties"]["job"]["additionalProperties"];
    assert_eq!(job["required"], serde_json::json!(["source", "to"]));
    assert_eq!(job["properties"]["class"]["enum"], serde_json::json!(["standard", "important", "critical"]));
    assert_eq!(job["additionalProperties"], serde_json::json!(false));
    assert_eq!(job["properties"]["source"]["properties"]["paths"]["type"], "array");
    let key = &schema["properties"]["destination"]["additionalProperties"]["properties"]["key"];
    assert_eq!(key["properties"]["file"]["type"], "string");
}

/// A channel, and a job that names it.
fn with_channel(lines: &str) -> String {
    format!("{}[notify.ops]\n{lines}\n", with_job(&["notify = [\"ops\"]"]))
}

const MAIL: &str = "email = { to = [\"ops@example.net\"], smtp = \"smtps://mail.example.net\" }";

#[test]
fn channels_say_one_way_and_keep_their_secrets() {
    for lines in [
        MAIL,
        "email = { to = [\"Ops <ops@example.net>\"], from = \"bulla@example.net\", smtp = \"smtp://m:587\", user = \"u\", password = { file = \"/p\" } }",
        "email = { to = [\"ops@example.net\"], smtp = \"smtp://mail\", plain = true }",
        "webhook = { url = \"https://h/x\", hmac = { systemd = \"hook\" } }\non = [\"failure\", \"recovered\"]",
        "webhook = { url = \"http://127.0.0.1:8000/\", hmac = { file = \"/h\" } }\non = [\"*\"]",
        "ping = { url = \"https://hc.example.net/abc\" }",
    ] {
        assert_eq!(told(&with_channel(lines)), [], "{lines}");
    }
    for (lines, code, said) in [
        ("", "E-NOT-01", "write one of email, webhook, ping"),
        (&format!("{MAIL}\nping = {{ url = \"https://h/\" }}"), "E-NOT-01", "one way"),
        ("email = { to = [], smtp = \"smtps://m\" }", "E-NOT-01", "goes to nobody"),
        ("ping = { url = \"https://h/\" }\non = [\"failure\"]", "E-NOT-02", "leave on out"),
        ("ping = { url = \"http://h/\" }", "E-NOT-03", "plain = true"),
        (
            "email = { to = [\"a@b\"], smtp = \"smtp://m\", plain = true, user = \"u\", password = { file = \"/p\" } }",
            "E-NOT-03",
            "a password over a line",
        ),
        ("email = { to = [\"a@b\"], smtp = \"smtp://m\", user = \"u\" }", "E-NOT-04", "write both, or none"),
        ("email = { to = [\"nobody\"], smtp = \"smtp://m\" }", "E-VAL-01", "no address of mail"),
        ("email = { to = [\"a@b\\r\\nBcc: c@d\"], smtp = \"smtp://m\" }", "E-VAL-01", "no address of mail"),
        ("email = { to = [\"a@b\"], smtp = \"mail\" }", "E-VAL-01", "is no server"),
        ("email = { to = [\"a@b\"] }", "E-KEY-03", "has no smtp"),
        ("webhook = { url = \"https://h/\" }", "E-KEY-03", "has no hmac"),
        ("webhook = { url = \"https://h/\", hmac = \"hunter2\" }", "E-SEC-01", "never stands"),
        (
            "webhook = { url = \"https://u:p@h/\", hmac = { file = \"/h\" } }",
            "E-VAL-01",
            "secrets never stand",
        ),
        (&format!("{MAIL}\non = [\"failures\"]"), "E-VAL-01", "did you mean failure?"),
        (&format!("{MAIL}\nowner = \"x\""), "E-KEY-01", "no key is named notify.ops.owner"),
    ] {
        let found = told(&with_channel(lines));
        let hit = found.iter().any(|(c, text)| c.starts_with(code) && text.contains(said));
        assert!(hit && found.len() == 1, "{code} {said}\n{lines}\n{found:#?}");
        assert!(!found.iter().any(|(_, text)| text.contains("hunter2")), "{found:?}");
    }
    let read = read(&with_channel("webhook = { url = \"https://h/\", hmac = { file = \"/h\" } }"));
    assert!(read.config.secret_files().iter().any(|(path, _)| path.ends_with("h")));
}

#[test]
fn who_is_told_exists_and_critical_jobs_have_two() {
    let codes = |text: &str| told(text).into_iter().map(|(code, _)| code).collect::<Vec<_>>().join(", ");
    let text = with_channel(MAIL).replace("[\"ops\"]", "[\"opps\"]");
    let found = told(&text);
    assert!(found[0].0.starts_with("E-REF-01") && found[0].1.contains("did you mean ops?"), "{found:?}");
    // One that cannot be read is no unknown name.
    assert_eq!(codes(&with_channel("email = 3")), "E-KEY-02 13");
    let far = "site = \"far\"\n";
    let critical = with_channel(MAIL)
        .replace("site = \"here\"\n", far)
        .replace("notify =", "class = \"critical\"\nrto = \"1h\"\nowner = \"ops\"\nnotify =");
    let critical = format!("[host]\nsite = \"here\"\nmetrics = \"/m/bulla.prom\"\n{critical}");
    assert!(codes(&critical).starts_with("W-NOT-01 "), "{}", codes(&critical));
    let two = format!("{critical}[notify.two]\n{MAIL}\n").replace("[\"ops\"]", "[\"ops\", \"two\"]");
    assert_eq!(codes(&two), "");
    assert_eq!(codes(&two.replace("/m/bulla", "m/bulla")), "E-VAL-01 3");
    // A check that two jobs ping says nothing of either.
    let ping = with_channel("ping = { url = \"https://h/\" }");
    let second = ping.split_once("[job.home]").unwrap().1.split_once("[notify").unwrap().0.to_owned();
    let shared = codes(&format!("{ping}[job.work]{second}"));
    assert!(shared.starts_with("W-NOT-02 ") && !shared.contains(','), "{shared}");
}
