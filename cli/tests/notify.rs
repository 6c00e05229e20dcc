//! Who is told how jobs stand, with peers that are real: a mail server, and HTTP servers that sometimes say no.

use crate::home::Home;
use crate::remote::servers::{Running, find, ports};
use serde_json::Value;
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A repository and a job that fails while `broken` is there, with these channels.
fn furnished(notify: &str, channels: &str) -> Home {
    let mut home = Home::empty();
    home.set("BULLA_HOST", "db01");
    home.bulla("init -r disk --key-file-out disk.key --recovery-key-out disk.recovery").ok();
    home.write("secret", b"open sesame\n");
    let file = std::fs::File::open(home.path("secret")).unwrap();
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let (disk, key, broken) = (home.shown("disk"), home.shown("disk.key"), home.shown("broken"));
    let text = format!(
        r#"
        [destination.disk]
        url = "{disk}"
        key = {{ file = "{key}" }}
        [job.dump]
        system = "Billing"
        source = {{ pipeline = [["printf", "rows"], ["sh", "-c", "cat; test ! -e {broken}"]], as = "db.dump" }}
        to = ["disk"]
        notify = [{notify}]
        {channels}
        "#
    );
    home.write("jobs.toml", text.as_bytes());
    home
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A mail server.
struct Mail {
    _running: Running,
    port: u16,
    dir: PathBuf,
}

impl Mail {
    /// `tls`: a certificate and its key, in PEM.
    fn start(mode: &str, tls: Option<(&Path, &Path)>) -> Option<Self> {
        find("aiosmtpd")?;
        let python = find("venv/bin/python")?;
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        let [port] = ports();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mail_sink.py");
        let (number, place) = (port.to_string(), taken.display().to_string());
        let mut args = vec![script, &number, &place, mode];
        let pair = tls.map(|(cert, key)| [cert, key].map(|p| p.display().to_string()));
        args.extend(pair.iter().flatten().map(String::as_str));
        let mut running = Running::start(&python, dir, &args);
        running.until("aiosmtpd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { _running: running, port, dir: taken })
    }

    /// What it took, in order.
    fn taken(&self) -> Vec<Value> {
        let found = std::fs::read_dir(&self.dir).unwrap().map(|e| e.unwrap().path());
        let mut found: Vec<PathBuf> = found.filter(|p| p.extension().is_some_and(|e| e == "json")).collect();
        found.sort();
        found.iter().map(|p| json(&std::fs::read_to_string(p).unwrap())).collect()
    }
}

/// A request as it came.
pub(crate) struct Asked {
    pub(crate) line: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

/// An HTTP server that answers with the statuses it is told, then with 200.
pub(crate) struct Web {
    pub(crate) port: u16,
    asked: Receiver<Asked>,
    answers: Arc<Mutex<Vec<u16>>>,
}

impl Web {
    pub(crate) fn start(answers: &[u16]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, (tell, asked)) = (listener.local_addr().unwrap().port(), channel());
        let answers = Arc::new(Mutex::new(answers.to_vec()));
        let script = answers.clone();
        // It lives as long as the test's process, and nothing waits for it.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Some(request) = stream.ok().and_then(|stream| answer(stream, &script)) else { continue };
                if tell.send(request).is_err() {
                    return;
                }
            }
        });
        Self { port, asked, answers }
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn next(&self) -> Asked {
        self.asked.recv_timeout(Duration::from_secs(30)).expect("a request")
    }

    fn is_quiet(&self) -> bool {
        self.asked.try_recv().is_err()
    }
}

fn answer(stream: TcpStream, script: &Mutex<Vec<u16>>) -> Option<Asked> {
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut headers = HashMap::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |l| l.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut script = script.lock().unwrap();
    let status = if script.is_empty() { 200 } else { script.remove(0) };
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    reader.into_inner().write_all(text.as_bytes()).ok()?;
    Some(Asked { line: line.trim_end().to_owned(), headers, body })
}

fn subject_of(mail: &serde_json::Value) -> String {
    mail["subject"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_failing_run_and_its_recovery_arrive_by_mail_once_each() {
    let Some(mail) = Mail::start("plain", None) else { return };
    let channel = format!(
        "[notify.ops]\nemail = {{ to = [\"Ops <ops@example.net>\"], smtp = \"smtp://127.0.0.1:{}\" }}\non = [\"failure\", \"recovered\"]",
        mail.port
    );
    let home = furnished("\"ops\"", &channel);
    home.bulla("config check --config jobs.toml").ends(0).prints("sound");
    home.bulla("run dump --config jobs.toml").ends(0);
    assert_eq!(mail.taken().len(), 0, "that no restore was tried is not what this channel wants to know");
    home.write("broken", b"");
    home.bulla("run dump --config jobs.toml").ends(1);
    home.bulla("run dump --config jobs.toml").ends(1);
    let taken = mail.taken();
    assert_eq!(taken.len(), 1, "{taken:?}");
    assert_eq!((&taken[0]["from"], &taken[0]["to"][0]), (&"bulla@db01".into(), &"ops@example.net".into()));
    let subject = |n: usize| subject_of(&mail.taken()[n]);
    let why = "the last run ended failed: the command sh failed: exit status: 1; nothing was committed";
    assert_eq!(subject(0), format!("[bulla] dump on db01: failure: {why}"));
    let text = taken[0]["text"].as_str().unwrap();
    assert!(text.contains("dump (Billing, standard) on db01: failure"), "{text}");
    assert!(text.contains("→ bulla run dump") && text.contains("sh failed"), "{text}");
    let attached = &taken[0]["attached"][0];
    assert_eq!((&attached["event"], &attached["rule"]), (&"failure".into(), &"last-run".into()));
    std::fs::remove_file(home.path("broken")).unwrap();
    home.bulla("run dump --config jobs.toml").ends(0);
    home.bulla("run dump --config jobs.toml").ends(0);
    let taken = mail.taken();
    assert_eq!(taken.len(), 2, "{taken:?}");
    assert_eq!(subject(1), format!("[bulla] dump on db01: recovered: {why}"));
    assert_eq!(taken[1]["attached"][0]["dedup_key"], attached["dedup_key"]);
    assert_ne!(taken[1]["attached"][0]["id"], attached["id"]);
}

/// A certificate of an authority that nobody knows, for addresses of this machine: the authority, the certificate, the key.
fn certificate(home: &Home) -> Option<[PathBuf; 3]> {
    let openssl = find("openssl")?;
    home.write("names", b"subjectAltName=IP:127.0.0.1,IP:0.0.0.0");
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout";
    for line in [
        format!("req -x509 {key} ca.key -out ca.pem -subj /CN=authority -days 2"),
        format!("req {key} mail.key -out mail.csr -subj /CN=mail"),
        "x509 -req -in mail.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out mail.pem -days 2 -extfile names"
            .into(),
    ] {
        let made = Command::new(&openssl).args(line.split(' ')).current_dir(home.path("")).output().unwrap();
        assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
    }
    Some(["ca.pem", "mail.pem", "mail.key"].map(|name| home.path(name)))
}

#[test]
fn mail_goes_over_tls_to_who_is_trusted_with_a_password_that_shows_nowhere() {
    let keys = Home::empty();
    let Some([authority, cert, key]) = certificate(&keys) else { return };
    // Where 0.0.0.0 leads is this machine, and unlike 127.0.0.1 nobody takes it for a line that needs no TLS.
    for (mode, server) in [("smtps", "smtps://127.0.0.1"), ("starttls", "smtp://0.0.0.0")] {
        let Some(mail) = Mail::start(mode, Some((&cert, &key))) else { return };
        let home = furnished("", &of_bulla(server, mail.port));
        let text = String::from_utf8(home.read("jobs.toml")).unwrap();
        home.write("jobs.toml", text.replace("SECRET", &home.shown("secret")).as_bytes());
        let test = "notify --test ops --config jobs.toml";
        let trusting = format!("{test} --cacert {}", authority.display());
        home.bulla(&trusting).ends(0).prints("channel ops took the sample");
        let taken = mail.taken();
        assert_eq!((taken.len(), &taken[0]["attached"][0]["event"]), (1, &"test".into()));
        let untrusting = home.bulla(test).ends(1);
        assert!(untrusting.out.contains("did not take the sample: "), "{}", untrusting.out);
        home.write("secret", b"another word");
        let refused = home.bulla(&format!("{trusting} --json")).ends(1);
        let said = json(&refused.out);
        assert_eq!((&said["taken"], &said["channel"]), (&false.into(), &"ops".into()));
        assert!(said["reason"].as_str().unwrap().contains("(535)"), "{said}");
        for text in [&refused.out, &refused.err, &untrusting.out, &untrusting.err] {
            assert!(!text.contains("another word") && !text.contains("sesame"), "{text}");
        }
        assert_eq!(mail.taken().len(), 1, "{mode}");
    }
    // A server that knows no TLS gets neither the password nor the message.
    let Some(mail) = Mail::start("plain", None) else { return };
    let home = furnished("", &of_bulla("smtp://0.0.0.0", mail.port));
    let text = String::from_utf8(home.read("jobs.toml")).unwrap();
    home.write("jobs.toml", text.replace("SECRET", &home.shown("secret")).as_bytes());
    home.bulla("notify --test ops --config jobs.toml").ends(1).prints("did not take the sample");
    assert_eq!(mail.taken().len(), 0);
}

/// A channel by mail, for which somebody has to say who he is.
fn of_bulla(server: &str, port: u16) -> String {
    format!(
        "[notify.ops]\nemail = {{ to = [\"ops@example.net\"], smtp = \"{server}:{port}\", user = \"bulla\", password = {{ file = \"SECRET\" }} }}"
    )
}

/// What openssl says the signature is.
fn signature(secret: &str, stamp: &str, body: &[u8]) -> String {
    let openssl = find("openssl").expect("openssl");
    let mut child = Command::new(openssl)
        .args(["dgst", "-sha256", "-hmac", secret, "-r"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&[stamp.as_bytes(), b".", body].concat()).unwrap();
    let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
    format!("sha256={}", out.split(' ').next().unwrap())
}

#[test]
fn a_message_that_is_not_taken_waits_for_the_next_process_and_shows_in_status() {
    let web = Web::start(&[]);
    let channel = format!(
        "[notify.hook]\nwebhook = {{ url = \"{}\", hmac = {{ command = [\"cat\", \"secret\"] }} }}\non = [\"failure\", \"recovered\"]",
        web.url("/bulla?team=db")
    );
    let home = furnished("\"hook\"", &channel);
    home.bulla("run dump --config jobs.toml").ends(0);
    assert!(web.is_quiet());
    home.write("broken", b"");
    web.answers.lock().unwrap().push(500);
    let run = home.bulla("run dump --config jobs.toml").ends(1);
    assert!(run.err.contains("channel hook: the answer was 500") && !run.err.contains("team"), "{}", run.err);
    let first = web.next();
    home.bulla("status --config jobs.toml").ends(1).prints("channel hook has not delivered since ");
    let status = json(&home.bulla("status --config jobs.toml --json").ends(1).out);
    assert_eq!(
        (&status["channels"][0]["channel"], &status["channels"][0]["waiting"]),
        (&"hook".into(), &1.into())
    );
    // It is not its time yet; then it is.
    home.bulla("notify --config jobs.toml").ends(0).prints("0 messages sent, 1 waits");
    web.answers.lock().unwrap().push(503);
    home.bulla("notify --now --config jobs.toml").ends(1).prints("0 messages sent, 1 waits");
    let sent = json(&home.bulla("notify --now --json --config jobs.toml").ends(0).out);
    assert_eq!((&sent["made"], &sent["sent"], &sent["waiting"]), (&0.into(), &1.into(), &0.into()));
    let (second, third) = (web.next(), web.next());
    assert_eq!(third.line, "POST /bulla?team=db HTTP/1.1");
    assert_eq!((&first.body, &second.body), (&third.body, &third.body), "the same message each time");
    let (stamp, signed) = (&third.headers["x-bulla-timestamp"], &third.headers["x-bulla-signature"]);
    assert_eq!(*signed, signature("open sesame", stamp, &third.body));
    let said = json(std::str::from_utf8(&third.body).unwrap());
    assert_eq!((&said["job"], &said["host"], &said["exit"]), (&"dump".into(), &"db01".into(), &1.into()));
    assert_eq!(said["commands"], serde_json::json!(["bulla run dump"]));
    assert!(said["errors"][0].as_str().unwrap().contains("sh failed"), "{said}");
    assert!(!home.bulla("status --config jobs.toml").ends(1).out.contains("channel"));
    // Nothing but the message was in the way of the next one.
    std::fs::remove_file(home.path("broken")).unwrap();
    home.bulla("run dump --config jobs.toml").ends(0);
    let over = json(std::str::from_utf8(&web.next().body).unwrap());
    assert_eq!((&over["event"], &over["dedup_key"]), (&"recovered".into(), &said["dedup_key"]));
    assert!(web.is_quiet());
}

#[test]
fn a_dead_mans_switch_hears_of_every_beginning_and_end() {
    let web = Web::start(&[]);
    let home =
        furnished("\"check\"", &format!("[notify.check]\nping = {{ url = \"{}\" }}", web.url("/ab-cd")));
    home.bulla("run dump --config jobs.toml").ends(0);
    home.write("broken", b"");
    home.bulla("run dump --config jobs.toml").ends(1);
    let asked: Vec<Asked> = (0..4).map(|_| web.next()).collect();
    let lines: Vec<&str> = asked.iter().map(|a| a.line.as_str()).collect();
    let path = |end: &str| format!("POST /ab-cd/{end} HTTP/1.1");
    assert_eq!(lines, [path("start"), path("0"), path("start"), path("1")]);
    assert_eq!(asked[1].body, b"dump: ok");
    let body = String::from_utf8_lossy(&asked[3].body);
    assert!(body.starts_with("dump: failed\n") && body.contains("sh failed"), "{body}");
    home.bulla("notify --test check --config jobs.toml").ends(0);
    assert_eq!(web.next().line, path("0"));
    home.bulla("notify --test chek --config jobs.toml").ends(2).says("no channel is named \"chek\"");
}

/// A channel that nobody answers changes neither how a run ends nor what others are told.
#[test]
fn a_channel_that_is_dead_is_in_nobodys_way() {
    let web = Web::start(&[]);
    let [dead] = ports();
    let hook = |name: &str, port: u16| {
        format!(
            "[notify.{name}]\nwebhook = {{ url = \"http://127.0.0.1:{port}/\", hmac = {{ command = [\"cat\", \"secret\"] }} }}\n"
        )
    };
    let home = furnished("\"dead\", \"well\"", &format!("{}{}", hook("dead", dead), hook("well", web.port)));
    let run = home.bulla("run dump --config jobs.toml").ends(0);
    assert!(run.err.contains("channel dead: "), "{}", run.err);
    let told = json(std::str::from_utf8(&web.next().body).unwrap());
    assert_eq!((&told["event"], &told["rule"]), (&"unproven".into(), &"drill-never".into()));
    // Rubbish in the outbox neither.
    let outbox = home.path(".local/state/bulla/notify/messages");
    std::fs::write(outbox.join("00000000000000000001.json"), b"rubbish").unwrap();
    home.bulla("drill dump --full --config jobs.toml").ends(0);
    let told = json(std::str::from_utf8(&web.next().body).unwrap());
    assert_eq!((&told["event"], &told["rule"]), (&"recovered".into(), &"drill-never".into()));
    assert!(outbox.join("00000000000000000001.strange").exists());
    home.bulla("status --config jobs.toml")
        .ends(0)
        .prints("channel dead has not delivered since ")
        .prints("(2 wait)");
}
