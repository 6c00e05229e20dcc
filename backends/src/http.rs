//! One HTTP request with what all stores over HTTP share: timeouts in each phase, bodies of several parts, answers read
//! no further than they may be, and failures sorted by whether another attempt can help.
//!
//! Kept true: no text that leaves here holds a URL, since a signed one is a credential.

use crate::store::{Attempt, Failure, Kind, Part};
use std::io::{self, Read};
use std::time::Duration;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, SendBody};

/// How long a server may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// To find the server, to reach it, and to agree on keys; each.
    pub connect: Duration,
    /// Without a byte in either direction a connection is dead after this.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(30), silence: Duration::from_secs(60) }
    }
}

/// Memory that is taken before a byte has come.
const ROOM: u64 = 16 << 20;
/// The most that is read of an answer that says what went wrong.
const COMPLAINT: u64 = 64 << 10;

/// An HTTP client; connections are kept and shared.
pub struct Http {
    agent: Agent,
}

/// A request.
pub struct Ask<'a> {
    /// `GET`, `PUT`, …
    pub method: &'static str,
    /// Where to.
    pub url: &'a str,
    /// What else.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body, in parts; `None` sends none.
    pub body: Option<&'a [&'a [u8]]>,
}

/// An answer whose head was read.
pub struct Answer {
    response: Response<Body>,
}

impl Http {
    /// A client that trusts the certificates in `authorities` (PEM) instead of the usual ones, if given.
    pub fn new(authorities: Option<&[u8]>, connections: usize, timeouts: Timeouts) -> Result<Self, String> {
        let roots = match authorities {
            None => RootCerts::WebPki,
            Some(pem) => RootCerts::new_with_certs(&certificates(pem)?),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .max_idle_connections_per_host(connections)
            .max_idle_connections(connections)
            // Servers close what was idle for long just when it is used again.
            .max_idle_age(Duration::from_secs(10))
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_per_read(Some(timeouts.silence))
            .timeout_per_write(Some(timeouts.silence))
            .input_buffer_size(256 << 10)
            .output_buffer_size(256 << 10)
            .user_agent(concat!("bulla/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(Self { agent: config.new_agent() })
    }

    /// Sends, and waits for the head of the answer.
    pub fn send(&self, ask: &Ask<'_>) -> Attempt<Answer> {
        let mut request = Request::builder().method(ask.method).uri(ask.url);
        for (name, value) in ask.headers {
            request = request.header(*name, *value);
        }
        let impossible = |_| Failure::last("this cannot be said in HTTP: check the repository's URL");
        let sent = match ask.body {
            None => self.agent.run(request.body(()).map_err(impossible)?),
            Some(parts) => {
                let len: usize = parts.iter().map(|p| p.len()).sum();
                let mut reader = Parts { parts, at: 0 };
                let request = request.header("content-length", len.to_string());
                self.agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(impossible)?)
            }
        };
        sent.map(|response| Answer { response }).map_err(|e| failure(&e))
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut out = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => out.push(certificate),
            Ok(_) => {}
            Err(_) => return Err("it is not PEM".into()),
        }
    }
    if out.is_empty() { Err("no certificate is in it".into()) } else { Ok(out) }
}

/// Byte strings, one after another.
struct Parts<'a> {
    parts: &'a [&'a [u8]],
    at: usize,
}

impl Read for Parts<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        while let Some((first, others)) = self.parts.split_first() {
            let mut rest = first.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                (self.parts, self.at) = (others, 0);
                continue;
            }
            let n = rest.read(buf)?;
            self.at += n;
            return Ok(n);
        }
        Ok(0)
    }
}

/// What went wrong on the way. Whatever could be the network's is tried again.
fn failure(e: &ureq::Error) -> Failure {
    use ureq::Error as E;
    match e {
        // rustls tells so through I/O, and no other attempt will meet another certificate.
        E::Io(e) if e.to_string().contains("certificate") => {
            Failure::last(format!("TLS: {e}; --cacert names the authority to trust"))
        }
        E::Io(e) => Failure::passing(format!("the connection failed: {e}")),
        E::Timeout(phase) => Failure::passing(format!("no answer in time ({phase})")),
        E::HostNotFound => Failure::passing("the host was not found"),
        E::ConnectionFailed => Failure::passing("no connection"),
        E::Protocol(e) => Failure::passing(format!("the answer is not HTTP: {e}")),
        E::Rustls(e) => Failure::last(format!("TLS: {e}")),
        E::Tls(e) => Failure::last(format!("TLS: {e}")),
        E::BodyExceedsLimit(_) => Failure::last("the answer is too long"),
        E::InvalidProxyUrl => Failure::last("the proxy's URL makes no sense"),
        _ => Failure::last("the request failed"),
    }
}

impl Answer {
    /// The status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// A header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// How long the body will be, if the store says so.
    pub fn length(&self) -> Option<u64> {
        self.header("content-length")?.parse().ok()
    }

    /// The body, if it has at most `limit` bytes.
    pub fn body(self, limit: u64) -> Attempt<Vec<u8>> {
        let length = self.length();
        if let Some(size) = length.filter(|l| *l > limit) {
            return Err(Failure::new(Kind::TooLong { size }, format!("it has {size} bytes")));
        }
        // What a server says of a length is no reason to take the memory at once.
        let room = usize::try_from(length.unwrap_or(0).min(ROOM)).unwrap_or(0);
        let mut out = Vec::with_capacity(room);
        let mut reader = self.response.into_body().into_reader().take(limit.saturating_add(1));
        reader.read_to_end(&mut out).map_err(|e| Failure::passing(format!("the answer broke off: {e}")))?;
        let read = out.len() as u64;
        if read > limit {
            return Err(Failure::new(Kind::TooLong { size: read }, "it goes on and on"));
        }
        if length.is_some_and(|l| l != read) {
            return Err(Failure::passing(format!("the answer broke off after {read} bytes")));
        }
        Ok(out)
    }

    /// The bytes that were asked for with [`range`]. Status 200 is a whole object, 206 a part of it.
    pub fn part(self, part: Part) -> Attempt<Vec<u8>> {
        match (part, self.status()) {
            (Part::Whole { limit }, 200) => self.body(limit),
            // Some servers say 200 to a part, too: what it is a part of tells.
            (Part::Range { offset, len }, 200 | 206) => {
                let range = self.header("content-range").and_then(range_in);
                let Some((_, size)) = range.filter(|(first, _)| *first == offset) else {
                    return Err(Failure::last("the store sends other bytes than the range asked for"));
                };
                let bytes = self.body(len as u64)?;
                if bytes.len() == len {
                    return Ok(bytes);
                }
                Err(Failure::new(Kind::Short { size }, "it is too short"))
            }
            (Part::Range { .. }, 416) => {
                let size = self.header("content-range").and_then(size_of);
                Err(Failure::new(Kind::Short { size }, "it is too short"))
            }
            _ => Err(self.complaint()),
        }
    }

    /// The failure that the status stands for, with what the body says of it.
    pub fn complaint(self) -> Failure {
        let status = self.status();
        let sent = self.header("date").and_then(date);
        let after = self.header("retry-after").and_then(|s| wait(s, sent));
        let reason = self.response.status().canonical_reason().unwrap_or_default();
        let mut text = format!("{status} {reason}").trim_end().to_owned();
        let mut body = Vec::new();
        let _ = self.response.into_body().into_reader().take(COMPLAINT).read_to_end(&mut body);
        let body = String::from_utf8_lossy(&body);
        let code = element(&body, "Code").unwrap_or_default();
        for said in [code, element(&body, "Message").unwrap_or_default()] {
            let said: String = said.chars().filter(|c| !c.is_control()).take(200).collect();
            if !said.is_empty() {
                text = format!("{text}: {said}");
            }
        }
        Failure::new(kind(status, code, after), text)
    }
}

/// Which kind of failure an answer is. Codes are those of S3; other stores send none.
fn kind(status: u16, code: &str, after: Option<Duration>) -> Kind {
    match (status, code) {
        // No such repository can ever hold the object that was asked for: to say "missing" would look like damage.
        (404, "NoSuchBucket") => Kind::Final,
        (404 | 410, _) => Kind::Missing,
        (_, "RequestTimeout" | "SlowDown" | "InternalError" | "OperationAborted") => Kind::Passing { after },
        (_, "QuotaExceeded" | "XMinioStorageFull" | "EntityTooLarge") | (507, _) => Kind::Full,
        (401 | 403, _) => Kind::Denied,
        (408 | 409 | 425 | 429 | 500..=599, _) => Kind::Passing { after },
        _ => Kind::Final,
    }
}

/// The `Range` header of a part; `None` for all of it.
pub fn range(part: Part) -> Option<String> {
    match part {
        Part::Whole { .. } => None,
        Part::Range { offset, len } => {
            Some(format!("bytes={offset}-{}", offset.saturating_add(len as u64).saturating_sub(1)))
        }
    }
}

/// The first byte and the size, if it is known, in `bytes FIRST-LAST/SIZE`.
fn range_in(content_range: &str) -> Option<(u64, Option<u64>)> {
    let (range, _) = content_range.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.trim().parse().ok()?, size_of(content_range)))
}

/// The size in `bytes 0-1/SIZE` or `bytes */SIZE`.
fn size_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.trim().parse().ok()
}

/// The text of the first element of that name. Complaints are for people: a parser would refuse what they can read.
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once("</")?.0)
}

/// How long a `Retry-After` says to wait: seconds, or a date (RFC 9110, 10.2.3), which counts from when the answer was sent.
fn wait(text: &str, sent: Option<i64>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let sent = sent.unwrap_or_else(|| jiff::Timestamp::now().as_second());
    u64::try_from(date(text.trim())?.saturating_sub(sent)).ok().map(Duration::from_secs)
}

/// Seconds since 1970 of an HTTP date (RFC 9110, 5.6.7).
pub fn date(text: &str) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text).ok()?.timestamp().as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_read_as_one() {
        let parts: [&[u8]; 5] = [b"", b"one", b"", b"two", b""];
        let mut out = Vec::new();
        Parts { parts: &parts, at: 0 }.read_to_end(&mut out).unwrap();
        assert_eq!(out, b"onetwo");
        assert_eq!(Parts { parts: &[], at: 0 }.read(&mut [0; 4]).unwrap(), 0);
    }

    #[test]
    fn failures_are_sorted_by_what_can_be_done() {
        let after = Some(Duration::from_secs(7));
        for (status, code, want) in [
            (404, "NoSuchKey", Kind::Missing),
            (404, "NoSuchBucket", Kind::Final),
            (404, "", Kind::Missing),
            (403, "AccessDenied", Kind::Denied),
            (400, "RequestTimeout", Kind::Passing { after }),
            (503, "SlowDown", Kind::Passing { after }),
            (429, "", Kind::Passing { after }),
            (507, "", Kind::Full),
            (301, "PermanentRedirect", Kind::Final),
            (400, "", Kind::Final),
        ] {
            assert_eq!(kind(status, code, after), want, "{status} {code}");
        }
    }

    #[test]
    fn small_things_in_headers() {
        assert_eq!(range(Part::Range { offset: 3, len: 4 }).unwrap(), "bytes=3-6");
        assert_eq!(range(Part::Whole { limit: 9 }), None);
        assert_eq!(
            (size_of("bytes 0-1/77"), size_of("bytes */5"), size_of("bytes 0-1/*")),
            (Some(77), Some(5), None)
        );
        assert_eq!(range_in("bytes 3-4/77"), Some((3, Some(77))));
        assert_eq!((range_in("bytes 3-4/*"), range_in("bytes */5")), (Some((3, None)), None));
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date("yesterday"), None);
        let at = |text: &str| wait(text, date("Sun, 06 Nov 1994 08:49:30 GMT")).map(|d| d.as_secs());
        assert_eq!([at("7"), at("Sun, 06 Nov 1994 08:49:37 GMT"), at("soon")], [Some(7), Some(7), None]);
        assert_eq!(at("Sun, 06 Nov 1994 08:49:00 GMT"), None, "that is over");
        assert!(wait("Tue, 31 Dec 2999 23:59:59 GMT", None) > Some(Duration::from_secs(1 << 30)));
        assert_eq!(element("<E><Code>NoSuchKey</Code></E>", "Code"), Some("NoSuchKey"));
    }
}
