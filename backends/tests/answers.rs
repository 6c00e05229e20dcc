//! Answers that servers give when they have troubles, from a server that reads a script: what is tried again, when, and what
//! the caller is told in the end.

use bulla_backends::http::{Ask, Http, Timeouts};
use bulla_backends::location::Location;
use bulla_backends::open::{Settings, open};
use bulla_backends::settings::{Options, Variables};
use bulla_backends::store::Kind;
use bulla_engine::backend::{Backend, BackendError, LockMode, Put, Retention};
use bulla_engine::format::{Area, ObjectName, PackName, RunId};
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub(super) const SECRET: &str = "a-secret-that-shows-nowhere";

/// What the server does with a request.
#[derive(Clone)]
enum Act {
    /// Answers this, whole.
    Say(String),
    /// Answers this and hangs up.
    Break(String),
    /// Takes the request and hangs up: whether it took effect nobody knows.
    HangUp,
}

fn say(status: &str, more: &str, body: &str) -> Act {
    Act::Say(format!("HTTP/1.1 {status}\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len()))
}

fn ok(body: &str) -> Act {
    say("200 OK", "", body)
}

/// A server that answers from a script, and what it was asked.
struct Scripted {
    port: u16,
    asked: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Scripted {
    fn new(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (script, asked) = (Arc::new(Mutex::new(script.into_iter())), Arc::new(Mutex::new(Vec::new())));
        let log = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (script, log) = (script.clone(), log.clone());
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while let Some(request) = request(&mut reader) {
                        log.lock().unwrap().push((Instant::now(), request));
                        let act = script.lock().unwrap().next();
                        if !perform(&stream, act) {
                            return;
                        }
                    }
                });
            }
        });
        Self { port, asked }
    }

    fn store(&self) -> Arc<dyn Backend> {
        self.store_with(&["retry-first-ms=1", "retry-seconds=5"])
    }

    fn store_with(&self, options: &[&str]) -> Arc<dyn Backend> {
        let variable = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("key".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some(SECRET.to_owned()),
            _ => None,
        };
        let url = format!("s3:http://127.0.0.1:{}/bucket/prefix", self.port);
        let settings = Settings {
            options: Options::parse(options).unwrap(),
            variables: Variables::new(&variable),
            authorities: None,
            notice: None,
        };
        open(&Location::parse(OsStr::new(&url)).unwrap(), settings).unwrap().backend()
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, a)| a.clone()).collect()
    }
}

/// One request: its first line as far as the query, and its body.
pub(super) fn request(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse().unwrap();
        }
        if first.is_empty() {
            first = line.split('?').next().unwrap().to_owned();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(format!("{first} {}", String::from_utf8_lossy(&body)))
}

/// False when the connection is over.
fn perform(mut stream: &TcpStream, act: Option<Act>) -> bool {
    match act {
        Some(Act::Say(text)) => stream.write_all(text.as_bytes()).is_ok(),
        Some(Act::Break(text)) => {
            let _ = stream.write_all(text.as_bytes());
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
        Some(Act::HangUp) | None => {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            false
        }
    }
}

fn pack() -> ObjectName {
    ObjectName::Pack(PackName::new([7; 32]))
}

fn hold() -> ObjectName {
    ObjectName::Hold(RunId::new([7; 16]))
}

#[test]
fn what_may_pass_is_tried_again_until_it_has() {
    let slow = "<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>";
    for trouble in [
        say("500 Internal Server Error", "", ""),
        say("502 Bad Gateway", "", "<html>"),
        say("503 Slow Down", "", slow),
        say("504 Gateway Timeout", "", ""),
        say("429 Too Many Requests", "Retry-After: 0\r\n", ""),
        say("400 Bad Request", "", "<Error><Code>RequestTimeout</Code></Error>"),
        say("409 Conflict", "", "<Error><Code>ConditionalRequestConflict</Code></Error>"),
        Act::HangUp,
        Act::Break("HTTP/1.1 200 OK\r\nContent-Le".into()),
        Act::Break("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel".into()),
        Act::Break("this is no HTTP\r\n\r\n".into()),
    ] {
        let server = Scripted::new(vec![trouble.clone(), trouble, ok("hello")]);
        assert_eq!(server.store().get(&pack(), 5).unwrap(), b"hello");
        assert_eq!(server.asked().len(), 3, "{:?}", server.asked());
    }
}

#[test]
fn what_will_not_pass_is_told_at_once() {
    let code = |status: &str, code: &str| {
        say(status, "", &format!("<Error><Code>{code}</Code><Message>as it says</Message></Error>"))
    };
    for (answer, words) in [
        (code("403 Forbidden", "AccessDenied"), "AccessDenied: as it says"),
        (code("403 Forbidden", "SignatureDoesNotMatch"), "check AWS_ACCESS_KEY_ID"),
        (code("403 Forbidden", "RequestTimeTooSkewed"), "set this machine's clock"),
        (code("404 Not Found", "NoSuchBucket"), "make the bucket first"),
        (
            say("301 Moved Permanently", "Location: http://elsewhere/\r\n", "<Code>PermanentRedirect</Code>"),
            "AWS_REGION",
        ),
        (say("200 OK", "", "longer than allowed"), "more than the 5"),
    ] {
        let server = Scripted::new(vec![answer]);
        let text = server.store().get(&pack(), 5).unwrap_err().to_string();
        assert!(text.contains(words), "{text}");
        assert!(
            text.contains("packs/0707") && text.contains(&format!("127.0.0.1:{}", server.port)),
            "{text}"
        );
        assert!(!text.contains(SECRET) && !text.contains("Signature="), "{text}");
        assert_eq!(server.asked().len(), 1);
    }
}

#[test]
fn a_store_that_asks_for_patience_gets_it() {
    let server = Scripted::new(vec![say("503 Slow Down", "Retry-After: 1\r\n", ""), ok("hello")]);
    server.store().get(&pack(), 5).unwrap();
    let asked = server.asked.lock().unwrap();
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1));
}

/// As a date it counts from when the answer was sent, by the store's own clock.
#[test]
fn a_store_that_says_until_when_it_wants_patience_gets_it() {
    let until = "Date: Sun, 06 Nov 1994 08:49:36 GMT\r\nRetry-After: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let server = Scripted::new(vec![say("503 Slow Down", until, ""), ok("hello")]);
    server.store().get(&pack(), 5).unwrap();
    let asked = server.asked.lock().unwrap();
    assert!(asked[1].0 - asked[0].0 >= Duration::from_secs(1));
}

/// A server that takes a connection and then says this and no more. What is sent to it is read, or not.
fn silent(says: &'static str, reads: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if reads {
                request(&mut BufReader::new(stream.try_clone().unwrap()));
            }
            let _ = stream.write_all(says.as_bytes());
            kept.push(stream);
        }
    });
    format!("http://127.0.0.1:{port}/")
}

/// In whatever phase a server falls silent, an attempt ends, and another may be made.
#[test]
fn a_server_that_falls_silent_is_waited_for_so_long_and_no_longer() {
    let silence = Duration::from_millis(300);
    let http = Http::new(None, 1, Timeouts { connect: silence, silence }).unwrap();
    let large = vec![0; 64 << 20];
    let cases = [
        ("accepted and silent", "", true, None),
        ("in the head", "HTTP/1.1 200 OK\r\nContent-Le", true, None),
        ("after the head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, None),
        ("in the body", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", true, None),
        ("takes no bytes", "", false, Some(&large)),
    ];
    for (what, says, reads, body) in cases {
        let (url, begun) = (silent(says, reads), Instant::now());
        let parts = body.map(|b: &Vec<u8>| [b.as_slice()]);
        let method = if parts.is_some() { "PUT" } else { "GET" };
        let ask = Ask { method, url: &url, headers: &[], body: parts.as_ref().map(|p| p.as_slice()) };
        let failure = http.send(&ask).and_then(|answer| answer.body(99)).unwrap_err();
        assert!(matches!(failure.kind, Kind::Passing { after: None }), "{what}: {failure:?}");
        let took = begun.elapsed();
        assert!(took >= silence && took < Duration::from_secs(20), "{what}: {took:?}");
    }
}

#[test]
fn patience_ends_and_says_how_often_it_was_tried() {
    let server = Scripted::new(Vec::new());
    let begun = Instant::now();
    let store = server.store_with(&["retry-first-ms=1", "retry-seconds=1"]);
    let text = store.get(&pack(), 5).unwrap_err().to_string();
    assert!(text.contains("attempts)"), "{text}");
    assert!((1..10).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}

/// The answer to a put is lost. The next attempt is told that the object exists.
#[test]
fn a_put_whose_answer_was_lost_is_ours_if_its_bytes_are() {
    let exists = || say("412 Precondition Failed", "", "");
    // Somebody else's bytes, our bytes, and none any more.
    for (there, put) in [
        (ok("other"), Put::Exists),
        (ok("bytes"), Put::Created),
        (ok("longer than ours"), Put::Exists),
        (say("404 Not Found", "", ""), Put::Exists),
    ] {
        let server = Scripted::new(vec![Act::HangUp, exists(), there]);
        assert_eq!(server.store().put(&hold(), &[b"by", b"tes"]).unwrap(), put);
        let asked = server.asked();
        assert_eq!(asked.iter().map(|a| &a[..4]).collect::<Vec<_>>(), ["PUT ", "PUT ", "GET "]);
    }
    // A pack's name is its content: its size is enough.
    let head = |size: u32| {
        Act::Say(format!(
            "HTTP/1.1 200 OK\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Length: {size}\r\n\r\n"
        ))
    };
    for (size, put) in [(5, Put::Created), (4, Put::Exists)] {
        let server = Scripted::new(vec![Act::HangUp, exists(), head(size)]);
        assert_eq!(server.store().put(&pack(), &[b"bytes"]).unwrap(), put);
    }
    // Without a lost answer there is nothing to ask.
    let server = Scripted::new(vec![exists()]);
    assert_eq!(server.store().put(&hold(), &[b"bytes"]).unwrap(), Put::Exists);
}

#[test]
fn listings_that_are_cut_or_go_in_circles_are_no_listings() {
    let list = |keys: &[&str], next: Option<&str>| {
        let contents: String = keys
            .iter()
            .map(|k| format!("<Contents><Key>prefix/packs/{k}</Key><Size>3</Size></Contents>"))
            .collect();
        let next = next.map(|n| format!("<NextContinuationToken>{n}</NextContinuationToken>"));
        let more = next.is_some();
        let body = format!(
            "<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>{more}</IsTruncated>{contents}{}\
             </ListBucketResult>",
            next.unwrap_or_default()
        );
        ok(&body)
    };
    let (a, b) = ("0a".repeat(32), "0b".repeat(32));
    let whole = list(&[&a], None);
    // An answer that is cut, and one that stops in the middle of a page and says that it is whole HTTP.
    let Act::Say(text) = &whole else { unreachable!() };
    let cut = Act::Break(text[..text.len() - 20].to_owned());
    let half = ok("<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Contents>");
    let server = Scripted::new(vec![cut, half, whole.clone()]);
    assert_eq!(server.store().list(Area::Packs).unwrap().len(), 1);
    assert_eq!(server.asked().len(), 3);
    // Pages, the second one with a failure before it; strangers among the names.
    let server = Scripted::new(vec![
        list(&[&a, "stranger", "deeper/name"], Some("2")),
        say("500 Internal Server Error", "", ""),
        list(&[&b], None),
    ]);
    assert_eq!(server.store().list(Area::Packs).unwrap().len(), 2);
    // A page that leads to itself.
    let server = Scripted::new(vec![list(&[&a], Some("x")), list(&[&b], Some("x"))]);
    let text = server.store().list(Area::Packs).unwrap_err().to_string();
    assert!(text.contains("does not go on"), "{text}");
}

/// Other bytes than were asked for are an error and never an answer.
#[test]
fn a_range_is_the_range_that_was_asked_for() {
    let part =
        |range: &str, body: &str| say("206 Partial Content", &format!("Content-Range: {range}\r\n"), body);
    let read = |act: Act| Scripted::new(vec![act]).store().get_range(&pack(), 2, 3);
    assert_eq!(read(part("bytes 2-4/9", "cde")).unwrap(), b"cde");
    for wrong in [part("bytes 0-2/9", "abc"), ok("abcdefghi"), say("206 Partial Content", "", "cde")] {
        let text = read(wrong).unwrap_err().to_string();
        assert!(text.contains("other bytes"), "{text}");
    }
    assert!(matches!(read(part("bytes 2-3/4", "cd")), Err(BackendError::Short { size: 4, wanted: 5, .. })));
    let past = say("416 Range Not Satisfiable", "Content-Range: bytes */1\r\n", "");
    assert!(matches!(read(past), Err(BackendError::Short { size: 1, .. })));
}

/// A bucket's own lock may bind fewer for longer than what is wanted. A store refuses to shorten it.
#[test]
fn a_retention_that_ends_later_counts_only_if_it_binds_as_much() {
    let refused = || say("403 Forbidden", "", "<Error><Code>AccessDenied</Code></Error>");
    let there = |mode: &str, until: &str| {
        ok(&format!("<Retention><Mode>{mode}</Mode><RetainUntilDate>{until}</RetainUntilDate></Retention>"))
    };
    let retain = |mode, script: Vec<Act>| {
        let server = Scripted::new(script);
        let done = server.store().retain(&pack(), Retention { mode, until: 2_000_000_000 });
        (done.is_ok(), server.asked())
    };
    let (later, earlier) = ("2034-01-01T00:00:00.5Z", "2033-01-01T00:00:00Z");
    for (wanted, mode) in [
        (LockMode::Governance, "GOVERNANCE"),
        (LockMode::Governance, "COMPLIANCE"),
        (LockMode::Compliance, "COMPLIANCE"),
    ] {
        let (done, asked) = retain(wanted, vec![refused(), there(mode, later)]);
        assert!(done && asked.len() == 2, "{wanted:?} {mode}: {asked:?}");
        let (done, asked) = retain(wanted, vec![refused(), there(mode, earlier)]);
        assert!(!done && asked.len() == 2, "{wanted:?} {mode}: {asked:?}");
    }
    for (second, good) in [(ok(""), true), (refused(), false)] {
        let script = vec![refused(), there("GOVERNANCE", later), second];
        let (done, asked) = retain(LockMode::Compliance, script);
        assert!(asked[2].contains("<Mode>COMPLIANCE</Mode>") && asked[2].contains(later), "{asked:?}");
        assert_eq!((done, asked.len()), (good, 3));
    }
}
