//! Repositories in several places in one command, each with its own credentials and options.

use crate::home::Home;
use crate::remote::servers::{KEY, RestServer, S3, SECRET, ports, shows_a_secret};
use crate::ssh::Ssh;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

/// All of a bucket.
const ALL: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":["arn:aws:s3:::*"]}]}"#;

/// Two servers that know one key each besides the tests' own, and a home that has both keys and a repository at the first.
fn two_servers() -> Option<(S3, S3, Home, String, String)> {
    let (first, second) = (S3::seaweed_with(&[("alice", ALL)])?, S3::seaweed_with(&[("bob", ALL)])?);
    let mut home = Home::empty();
    let profile = |section: &str, key: &str| {
        format!("[{section}]\naws_access_key_id = {key}\naws_secret_access_key = {SECRET}\n")
    };
    home.write(".aws/credentials", (profile("default", "alice") + &profile("b2", "bob")).as_bytes());
    home.write("src/letter", b"Dear Sumer,\n");
    home.write("src/numbers", &[7; 300_000]);
    let (one, two) = (first.url(), second.url());
    home.set("BULLA_REPOSITORY", &one);
    home.bulla("init --key-file-out key").ok();
    home.set("BULLA_KEY_FILE", "key");
    home.set("BULLA_FROM_KEY_FILE", "key");
    home.bulla("backup src").ok();
    Some((first, second, home, one, two))
}

fn is_there(home: &Home, words: &str) {
    home.bulla(&format!("{words} snapshots")).ends(0).prints("1 snapshot\n");
    home.bulla(&format!("{words} restore latest --target back")).ok();
    assert_eq!(home.read(&format!("back{}", home.shown("src/letter"))), b"Dear Sumer,\n");
    std::fs::remove_dir_all(home.path("back")).unwrap();
    home.bulla(&format!("{words} check --read-data")).ok();
}

#[test]
fn a_copy_between_two_stores_asks_each_with_its_own_credentials() {
    let Some((_first, _second, home, one, two)) = two_servers() else { return };
    let second = format!("-r {two} -o s3.profile=b2");

    home.bulla(&format!("init {second} --copy-chunker-from {one}")).ok();
    // The second store does not know the first one's key, and the first not the second's.
    home.bulla(&format!("copy -r {two} --from-repo {one}")).ends(1).says("InvalidAccessKeyId");
    let all = "-o s3.profile=b2";
    home.bulla(&format!("copy -r {two} {all} -o {one}#{} --from-repo {one}", &all[3..]))
        .ends(1)
        .says("InvalidAccessKeyId");
    home.bulla(&format!("copy {second} --from-repo {one}")).ends(0).prints("1 snapshot, 0 there already");
    home.bulla(&format!("copy {second} --from-repo {one}")).ends(0).prints("0 snapshots, 1 there already");
    is_there(&home, &second);
    // From the second back into a new one at the first: now it is the source that has an option of its own.
    let third = format!("{one}-back");
    home.bulla(&format!("init -r {third} -o {two}#s3.profile=b2 --copy-chunker-from {two}")).ok();
    home.bulla(&format!("copy -r {third} --from-repo {two} -o {two}#s3.profile=b2"))
        .ends(0)
        .prints("1 snapshot, 0 there already");
    is_there(&home, &format!("-r {third}"));
    // What is said of a place that the command does not open was for nothing.
    home.bulla(&format!("snapshots -o {two}#s3.profile=b2"))
        .ends(0)
        .says("is for no repository of this command");
    home.bulla("snapshots -o s3.profile=none").ends(2).says("no keys for the profile \"none\"");
}

#[test]
fn a_copy_from_a_store_goes_to_a_host_with_ssh() {
    let Some((_first, _second, home, one, _)) = two_servers() else { return };
    let Some(server) = Ssh::start() else { return };
    let to = format!("sftp:backup@nas:{}", home.shown("there"));
    let command = format!("sftp.command={} -s nas sftp", server.bin().join("ssh").display());
    let run = |words: &[&str]| {
        home.run(&[words, &["-r", &to, "-o", &command, "--key-file", "other"]].concat(), b"")
    };
    let made = ["init", "-r", &to, "-o", &command, "--key-file-out", "other", "--copy-chunker-from", &one];
    home.run(&made, b"").ok();
    run(&["copy", "--from-repo", &one, "--from-key-file", "key"])
        .ends(0)
        .prints("1 snapshot, 0 there already");
    run(&["check", "--read-data"]).ok();
    is_there(&home, &format!("-r {} --key-file other", home.shown("there")));
}

#[test]
fn a_backup_and_a_job_reach_each_of_their_destinations() {
    let Some((_first, _second, home, one, two)) = two_servers() else { return };
    home.bulla(&format!("init -r {two} -o s3.profile=b2 --copy-chunker-from {one}")).ok();
    home.bulla(&format!("backup src -r {one} -r {two}")).ends(3).says("InvalidAccessKeyId");
    home.bulla(&format!("backup src -r {one} -r {two} -o {two}#s3.profile=b2"))
        .ends(0)
        .says("copied 3 snapshots to");
    let job = format!(
        "[destination.first]\nurl = \"{one}\"\nkey = {{ file = \"{key}\" }}\n\
         [destination.second]\nurl = \"{two}\"\nkey = {{ file = \"{key}\" }}\noptions = [\"s3.profile=b2\"]\n\
         [job.letters]\nsource = {{ paths = [\"{}\"] }}\nto = [\"first\", \"second\"]\n",
        home.shown("src"),
        key = home.shown("key"),
    );
    home.write("jobs.toml", job.as_bytes());
    home.bulla("run letters --config jobs.toml").ends(0).prints("letters: ok");
    home.write("jobs.toml", job.replace("options = [\"s3.profile=b2\"]\n", "").as_bytes());
    let run = home.bulla("run letters --config jobs.toml");
    assert!(run.code != 0 && run.err.contains("InvalidAccessKeyId"), "{}{}", run.out, run.err);
}

/// How long is tried again is said once, and of both ends.
#[test]
fn patience_reaches_every_end() {
    let mut home = Home::with_repository();
    home.bulla("backup src").ok();
    home.set("AWS_ACCESS_KEY_ID", "nobody");
    home.set("AWS_SECRET_ACCESS_KEY", SECRET);
    let gone = "s3:http://127.0.0.1:1/bucket";
    let began = std::time::Instant::now();
    let copy = format!("copy --from-repo {gone} --from-key-file key -o retry-seconds=1");
    home.bulla(&copy).ends(1).says("attempts)");
    home.bulla(&format!("backup src -r repo -r {gone} -o retry-seconds=1")).ends(3).says("attempts)");
    home.bulla(&format!("backup src -r repo -r {gone} -o {gone}#retry-seconds=1")).ends(3).says("attempts)");
    // Without the option it is a quarter of an hour.
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    home.bulla("snapshots -o s3.profile=x").ends(2).says("none of its own");
    home.bulla("snapshots -o http://x#retry-seconds=1").ends(2).says("no http: backend");
    home.bulla("snapshots -o retry-seconds=1 -o retry-seconds=2").ends(2).says("given twice");
}

/// In a bucket with object lock: what a prune says, `retain`, and a job that locks anew what it has stored.
#[test]
fn a_locked_bucket_is_told_of_and_locked_anew() {
    let Some(server) = S3::seaweed() else { return };
    let mut home = Home::empty();
    home.set("AWS_ACCESS_KEY_ID", KEY);
    home.set("AWS_SECRET_ACCESS_KEY", SECRET);
    let url = server.locked();
    home.set("BULLA_REPOSITORY", &url);
    home.bulla("init --key-file-out key").ok();
    home.set("BULLA_KEY_FILE", "key");
    for n in 0..2 {
        home.write("src/file", format!("{n}").repeat(100_000).as_bytes());
        home.bulla("backup src").ok();
    }
    home.bulla("retain --for 35d -n").ends(0).prints("would be retained until 20").prints("for 2 snapshots");
    let kept = |json: &str| {
        let said: serde_json::Value = serde_json::from_str(json).unwrap();
        (said["objects"].as_u64().unwrap(), said["packs"].as_u64().unwrap())
    };
    let two = kept(&home.bulla("retain --for 35d --mode compliance --json").ok());
    home.bulla("forget latest~1 --now --yes").ok();
    home.bulla("prune").ends(0).prints("hidden by delete markers").prints("not freed until");
    let one = kept(&home.bulla("retain --for 35d --mode compliance --json").ok());
    assert!(0 < one.1 && one.1 < two.1 && one.0 < two.0, "{one:?} {two:?}");
    home.bulla("retain").ends(2).says("--for");
    home.bulla("retain --for 35").ends(2).says("not a time");
    home.bulla("init -r here --key-file-out here.key").ok();
    home.bulla("retain -r here --key-file here.key --for 1d").ends(5).says("has no object lock");

    let job = |worm: &str| {
        format!(
            "[destination.vault]\nurl = \"{url}\"\nkey = {{ file = \"{}\" }}\n{worm}\n\
             [job.files]\nsource = {{ paths = [\"{}\"] }}\nto = [\"vault\"]\n",
            home.shown("key"),
            home.shown("src"),
        )
    };
    home.write("jobs.toml", job("worm = { mode = \"compliance\", keep = \"40d\" }").as_bytes());
    home.bulla("run files --config jobs.toml").ends(0).prints("lock     ").prints("objects in vault for 40d");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let config = server.retention("a/config/00000000").unwrap().0;
    assert!((now + 39 * 86_400..now + 41 * 86_400).contains(&config), "{config}");
    home.write("jobs.toml", job("worm = { mode = \"always\", keep = \"40d\" }").as_bytes());
    home.bulla("config check --config jobs.toml").ends(2).prints("governance");
    let local = job("worm = { mode = \"compliance\", keep = \"40d\" }").replace(&url, &home.shown("here"));
    home.write("jobs.toml", local.as_bytes());
    home.bulla("config check --config jobs.toml").ends(2).prints("E-DST-03").prints("leave worm out");
    home.bulla("run files --config jobs.toml").ends(2).says("no object lock");
}

/// A certificate that nobody knows is trusted if it is named, as a word, in the environment, or in that of AWS's tools.
#[test]
fn a_store_behind_tls_is_reached_with_the_authority_that_is_named() {
    let Some((server, authority, port)) = S3::seaweed_with_tls() else { return };
    let url = server.url().replace("s3:http:", "s3:https:");
    let url = url.replace(&format!(":{}/", server.port), &format!(":{port}/"));
    let mut home = Home::empty();
    home.set("AWS_ACCESS_KEY_ID", KEY);
    home.set("AWS_SECRET_ACCESS_KEY", SECRET);
    home.set("BULLA_REPOSITORY", &url);
    home.bulla("init --key-file-out key").ends(1).says("--cacert");
    let authority = authority.to_str().unwrap();
    std::fs::remove_file(home.path("key")).ok();
    home.bulla(&format!("init --key-file-out key --cacert {authority}")).ok();
    home.set("BULLA_KEY_FILE", "key");
    home.bulla("snapshots").ends(1).says("TLS");
    home.bulla(&format!("snapshots --cacert {authority}")).ends(0).prints("0 snapshots");
    for name in ["BULLA_CACERT", "AWS_CA_BUNDLE"] {
        home.set(name, authority);
        home.bulla("snapshots").ends(0).prints("0 snapshots");
        home.unset(name);
    }
    home.bulla("snapshots --cacert key").ends(2).says("--cacert");
}

/// What a `rest:` URL holds is a secret: whatever is done with it, and whatever goes wrong.
#[test]
fn the_password_of_a_rest_url_shows_nowhere() {
    let Some(server) = RestServer::start(false) else { return };
    let url = server.url();
    let mut home = Home::empty();
    home.write("src/letter", b"Dear Sumer,\n");
    home.set("BULLA_REPOSITORY", &url);
    let said = |line: &str, code: i32| {
        let ran = home.bulla(line).ends(code);
        assert!(!shows_a_secret(&ran.out) && !shows_a_secret(&ran.err), "{line}\n{}\n{}", ran.out, ran.err);
        (ran.out, ran.err)
    };
    let init = said("init --key-file-out key", 0);
    assert!(init.1.contains("not exact") && init.1.contains("--assume-dead"), "{init:?}");
    let config = format!(
        "[destination.far]\nurl = \"{url}\"\nkey = {{ file = \"{}\" }}\n\
         [job.letters]\nsource = {{ paths = [\"{}\"] }}\nto = [\"far\"]\n",
        home.shown("key"),
        home.shown("src"),
    );
    home.write("jobs.toml", config.as_bytes());
    let key = "--key-file key";
    for line in [
        "backup src -vv",
        "backup src --json",
        "snapshots",
        "snapshots --json",
        "ls latest",
        "find letter",
        "check --read-data",
        "restore latest -t back -vv",
        "forget latest~1 --now --yes",
        "prune",
        "key list",
        "key list --json",
        "rescue-kit kit",
        "repair parity",
        "config check --config jobs.toml",
        "config show --config jobs.toml",
        "config show --origin --config jobs.toml",
        "run letters --config jobs.toml",
    ] {
        said(&format!("{line} {key}"), 0);
    }
    for line in
        ["status --config jobs.toml", "compliance --config jobs.toml", "drill letters --config jobs.toml"]
    {
        let ran = home.bulla(line);
        assert!(!shows_a_secret(&ran.out) && !shows_a_secret(&ran.err), "{line}\n{}\n{}", ran.out, ran.err);
    }
    for entry in std::fs::read_dir(home.path("kit")).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.is_dir() || !shows_a_secret(&String::from_utf8_lossy(&std::fs::read(&path).unwrap())));
    }
    said(&format!("init {key}"), 1);
    said(&format!("restore latest -t back --option rest.x=1 {key}"), 2);
    said(&format!("snapshots -r {url}?x=1 {key}"), 2);
    said(&format!("snapshots -r {} {key}", url.replace("rest:http:", "rest:ftp:")), 2);
    said(&format!("snapshots -r {} {key}", url.replace("rest:", "")), 2);
    said(&format!("snapshots -r {} {key}", url.replace(SECRET, &format!("{SECRET}-not"))), 1);
    let [nobody] = ports();
    let gone = format!("rest:http://{KEY}:{SECRET}@127.0.0.1:{nobody}/");
    said(&format!("snapshots -r {gone} -o retry-seconds=1 {key}"), 1);
    said(&format!("backup src -r {url} -r {gone} -o retry-seconds=1 {key}"), 3);
    said(&format!("copy --from-repo {gone} --from-key-file key -o retry-seconds=1 {key}"), 1);
    said(&format!("snapshots -o {gone}#retry-seconds=1 {key}"), 0);
}

#[test]
fn packs_have_the_size_that_init_was_told() {
    let mut home = Home::empty();
    home.write("src/file", &crate::content::noise(1, 40 << 20));
    // A pack closes with the frame, of 4 MiB, that fills it.
    let sizes = [("small", "--pack-size 4M", 7..12), ("usual", "", 4..7), ("large", "--pack-size 64M", 1..2)];
    for (name, size, packs) in sizes {
        home.set("BULLA_REPOSITORY", name);
        home.bulla(&format!("init --key-file-out {name}.key {size}")).ok();
        home.bulla(&format!("backup src --key-file {name}.key")).ok();
        let sizes: Vec<u64> = std::fs::read_dir(home.path(&format!("{name}/packs")))
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .collect();
        assert!(packs.contains(&sizes.len()), "{name}: {sizes:?}");
    }
    home.bulla("init -r none --key-file-out none.key --pack-size 1K").ends(2).says("is not from");
    home.bulla("init -r none --key-file-out none.key --pack-size 1G").ends(2).says("is not from");
}

/// The URL of a REST server that has nothing, and the heads of what it was asked.
fn nothing_there() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("rest:http://{}/", listener.local_addr().unwrap());
    let heads = Arc::new(Mutex::new(Vec::new()));
    let log = heads.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read_exact(&mut byte).is_ok() {
                head.extend(byte);
            }
            log.lock().unwrap().push(String::from_utf8_lossy(&head).to_lowercase());
            let nothing = "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            let _ = stream.write_all(nothing.as_bytes());
        }
    });
    (url, heads)
}

/// Whoever runs another server of the command is not told the password.
#[test]
fn a_login_of_the_environment_is_shown_to_one_server() {
    let ((own, own_heads), (other, other_heads)) = (nothing_there(), nothing_there());
    let mut home = Home::empty();
    home.set("BULLA_REST_USERNAME", "bulla");
    home.set("BULLA_REST_PASSWORD", SECRET);
    // Of each request, whether it came with a login.
    let shown = |heads: &Mutex<Vec<String>>| -> Vec<bool> {
        heads.lock().unwrap().drain(..).map(|head| head.contains("authorization: basic")).collect()
    };
    home.bulla(&format!("copy -r {own} --from-repo {other}")).says("is not shown to http://127.0.0.1:");
    let asked = shown(&other_heads);
    assert!(!asked.is_empty() && !asked.contains(&true), "{asked:?}");
    for words in [format!("snapshots -r {own}"), format!("copy -r elsewhere --from-repo {own}")] {
        assert_ne!(home.bulla(&words).code, 0, "{words}: there is no repository");
        let asked = shown(&own_heads);
        assert!(!asked.is_empty() && !asked.contains(&false), "{words}: {asked:?}");
    }
}
