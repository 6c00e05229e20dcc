//! Reports on jobs of other hosts: any machine with a key gives them, by whatever configuration of its own.

use crate::home::Home;
use crate::manager::{furnished, json};
use serde_json::Value;

/// Jobs that two hosts have run, one of which was drilled, and a machine that looks: it has another configuration, with the key
/// elsewhere and without one of the jobs.
fn run_by_two() -> Home {
    let mut home = furnished();
    home.set("BULLA_HOST", "web1");
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --app --config jobs.toml").ok();
    home.set("BULLA_HOST", "web2");
    home.bulla("run letters dump --config jobs.toml").ok();
    home.set("BULLA_HOST", "auditor");
    home.write("safe/disk.key", &home.read("disk.key"));
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(home.path("safe/disk.key"), private).unwrap();
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    let (letters, _) = text.split_once("[job.dump]").unwrap();
    home.write(
        "audit.toml",
        letters.replace(&home.shown("disk.key"), &home.shown("safe/disk.key")).as_bytes(),
    );
    home
}

#[test]
fn any_machine_with_a_key_reports_on_the_jobs_of_all_hosts() {
    let home = run_by_two();
    home.bulla("status letters --config audit.toml").ends(6).prints("letters has never run");
    // Another configuration than the host's says nothing against what was drilled there.
    home.bulla("status --host web1 --config audit.toml").ends(0).prints("web1\n");
    home.bulla("status --host web2 --config audit.toml")
        .ends(6)
        .prints("letters of web2: unproven: no restore of it was ever tried");
    let all = home.bulla("status --all-hosts --config audit.toml").ends(6);
    for line in [
        "dump of web2 is on record in disk and goes there by no job here: nothing is judged of it",
        "FIRST: letters of web2: ",
    ] {
        assert!(all.out.contains(line), "{line}\n{}", all.out);
    }
    // What is to be typed is to be typed there.
    assert!(all.out.contains("→ on web2: bulla drill letters"), "{}", all.out);
    assert!(!all.out.contains("auditor"), "what is not on record is no host: {}", all.out);
    let told = json(&home.bulla("status --all-hosts --json --config audit.toml").ends(6).out);
    let of = |told: &Value, name: &str| -> Vec<(String, String)> {
        let text = |job: &Value, key: &str| job[key].as_str().unwrap().to_owned();
        told["jobs"].as_array().unwrap().iter().map(|job| (text(job, "host"), text(job, name))).collect()
    };
    let expect =
        |list: [(&str, &str); 2]| list.map(|(host, state)| (host.to_owned(), state.to_owned())).to_vec();
    assert_eq!(of(&told, "state"), expect([("web1", "ok"), ("web2", "unproven")]));
    let (host, job) = (&told["unknown"][0]["host"], &told["unknown"][0]["job"]);
    assert_eq!((host, job), (&"web2".into(), &"dump".into()), "{told}");
    // So do the other reports.
    let told = json(&home.bulla("assess --all-hosts --json --config audit.toml").ends(6).out);
    assert_eq!(of(&told, "current_backup"), expect([("web1", "Yes"), ("web2", "Yes")]));
    home.bulla("assess --host web2 --config audit.toml").ends(6).prints("System: letters of web2\n");
    let told = json(&home.bulla("compliance --all-hosts --json --config audit.toml").ends(6).out);
    assert_eq!(of(&told, "compliance"), expect([("web1", "non-compliant"), ("web2", "non-compliant")]));
    let errors = |n: usize| told["jobs"][n]["marks"][4]["met"].as_bool();
    assert_eq!((errors(0), errors(1)), (Some(true), Some(false)), "{told}");
    let page = home.bulla("runbook letters --host web1 --config audit.toml").ok();
    assert!(page.contains("host web1, job:letters"), "{page}");
    home.bulla("runbook letters --host web3 --config audit.toml").ends(6).says("no snapshot of job letters");
}

#[test]
fn a_host_that_nobody_knows_has_never_run_anything() {
    let home = run_by_two();
    home.bulla("status --host web3 --config audit.toml").ends(6).prints("letters has never run");
    home.bulla("status --host web1 --all-hosts --config audit.toml").ends(2);
    // A file for Prometheus is of one host.
    home.bulla("status --all-hosts --metrics m.prom --config audit.toml").ends(2);
    home.bulla("status --host web1 --metrics m.prom --config audit.toml").ends(0);
    assert!(String::from_utf8(home.read("m.prom")).unwrap().contains("host=\"web1\""));
    // What the host itself says is in force is another matter: a changed configuration is told of there at once, and here when
    // it was run by.
    let text = String::from_utf8(home.read("jobs.toml")).unwrap().replace("rto = \"1h\"", "rto = \"2h\"");
    home.write("jobs.toml", text.as_bytes());
    let mut home = home;
    home.set("BULLA_HOST", "web1");
    home.bulla("status letters --config jobs.toml").ends(6).prints("its procedure is not tested");
    home.set("BULLA_HOST", "auditor");
    home.bulla("status --host web1 --config audit.toml").ends(0);
    home.set("BULLA_HOST", "web1");
    home.bulla("run letters --config jobs.toml").ok();
    home.set("BULLA_HOST", "auditor");
    home.bulla("status --host web1 --config audit.toml").ends(6).prints("its procedure is not tested");
}

#[test]
fn what_cannot_be_judged_is_not_well() {
    let mut home = run_by_two();
    home.set("BULLA_HOST", "web2");
    home.bulla("drill letters --app --config jobs.toml").ok();
    home.set("BULLA_HOST", "auditor");
    // All that is known is well; of the dump nothing is.
    home.bulla("status letters --all-hosts --config audit.toml").ends(0);
    for report in ["status", "assess", "compliance"] {
        let told = home.bulla(&format!("{report} --all-hosts --config audit.toml")).ends(6);
        assert!(
            told.out.contains("dump of web2 is on record in disk and goes there by no job here"),
            "{}",
            told.out
        );
        let told = json(&home.bulla(&format!("{report} --all-hosts --json --config audit.toml")).ends(6).out);
        assert_eq!(told["unknown"][0]["job"], "dump", "{told}");
    }
    // Nor of what a destination holds that cannot be read and that no job here goes to.
    let text = String::from_utf8(home.read("audit.toml")).unwrap();
    let [disk, gone] = ["[destination.disk]", "[destination.gone]"];
    let start = text.find(disk).unwrap();
    let len = text[start + 1..].find("\n[").map_or(text.len() - start, |at| at + 2);
    let other = text[start..start + len].replace(disk, gone).replace("/disk\"", "/nowhere\"");
    home.write("wide.toml", format!("{text}\n{other}").as_bytes());
    let told = home.bulla("status --all-hosts --config wide.toml");
    assert!(told.out.contains("gone cannot be read, and what goes there is not known: "), "{}", told.out);
    assert_ne!(told.code, 0);
}

/// What was tried is what is written, whatever was in force in between.
#[test]
fn a_procedure_is_tested_as_it_is_written_now() {
    let home = furnished();
    let written = String::from_utf8(home.read("jobs.toml")).unwrap();
    let other = written.replace("rto = \"1h\"", "rto = \"2h\"");
    let status = |code| home.bulla("status letters --config jobs.toml").ends(code);
    home.bulla("run letters --config jobs.toml").ok();
    home.bulla("drill letters --app --config jobs.toml").ok();
    // A run by another configuration, and back.
    home.write("jobs.toml", other.as_bytes());
    home.bulla("run letters --config jobs.toml").ok();
    status(6).prints("its procedure is not tested");
    home.write("jobs.toml", written.as_bytes());
    status(0);
    // A drill by another configuration, and back.
    home.write("jobs.toml", other.as_bytes());
    home.bulla("drill letters --app --config jobs.toml").ok();
    status(0);
    home.write("jobs.toml", written.as_bytes());
    status(6).prints("its procedure is not tested");
}
