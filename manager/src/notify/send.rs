//! How a message gets to a channel: mail by SMTP, and HTTP. Nothing is kept here; what is not taken is tried again by the
//! outbox.
//!
//! Kept true: every wait ends; no text that leaves here holds a URL or a secret; headers are made by the crates that know
//! how, so nothing that is said can become one.

use super::message::{Body, Message};
use crate::config::{Address, Channel, Email, Means, Security};
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, CertificateStore, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use ring::hmac;
use std::io::{self, Read};
use std::time::{Duration, UNIX_EPOCH};
use ureq::Agent;
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use url::Url;

/// For one step of a conversation by mail.
const STEP: Duration = Duration::from_secs(30);
/// For one request with its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// For what is said before a run, which has to begin.
const BRIEF: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const ANSWER_MAX: u64 = 4096;
/// The most that is told of what a server says, in characters.
const SAID_MAX: usize = 300;

/// What a sender knows besides the channel.
#[derive(Debug, Clone, Copy)]
pub struct Sender<'a> {
    /// This host, in whose name mail is sent.
    pub host: &'a str,
    /// Now, in seconds.
    pub now: i64,
    /// Certificates to trust instead of the usual ones (PEM).
    pub authorities: Option<&'a [u8]>,
}

impl Sender<'_> {
    /// Sends; `secret` is what the channel's secret holds.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn send(&self, channel: &Channel, body: &Body, secret: Option<&[u8]>) -> Result<(), String> {
        match (&channel.means, body) {
            (Means::Email(email), Body::Message(message)) => self.mail(email, message, secret),
            (Means::Webhook { url, .. }, Body::Message(message)) => {
                self.hook(&url.value, message, secret.unwrap_or_default())
            }
            (Means::Ping { url }, Body::Ping { exit, text }) => {
                self.ping(&url.value, &exit.to_string(), text)
            }
            // Made when this name meant another kind of channel.
            (Means::Ping { .. }, _) | (_, Body::Ping { .. }) => Ok(()),
        }
    }

    /// Tells a dead man's switch that a run begins. One that cannot be told now is not told later.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn begin(&self, channel: &Channel) -> Result<(), String> {
        match &channel.means {
            Means::Ping { url } => self.post(&below(&url.value, "start"), BRIEF, &[], b""),
            _ => Ok(()),
        }
    }

    /// Tries a channel; a dead man's switch is told that all is well.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn test(&self, name: &str, channel: &Channel, secret: Option<&[u8]>) -> Result<(), String> {
        let body = match channel.means {
            Means::Ping { .. } => Body::Ping { exit: 0, text: "a test of bulla".to_owned() },
            _ => Body::Message(Box::new(Message::sample(self.host, name, self.now))),
        };
        self.send(channel, &body, secret)
    }

    fn mail(&self, email: &Email, message: &Message, secret: Option<&[u8]>) -> Result<(), String> {
        let mail = mail(email, message, self.host)?;
        let server = &email.server;
        let tls = || -> Result<TlsParameters, String> {
            let bad = |e| format!("TLS cannot begin: {e}");
            let mut builder = TlsParameters::builder(server.host.clone());
            if let Some(pem) = self.authorities {
                builder = builder.certificate_store(CertificateStore::None);
                for one in certificates(pem)? {
                    builder = builder.add_root_certificate(Certificate::from_der(one).map_err(bad)?);
                }
            }
            builder.build().map_err(bad)
        };
        let security = match server.security {
            Security::Tls => Tls::Wrapper(tls()?),
            Security::StartTls => Tls::Required(tls()?),
            Security::Plain => Tls::None,
        };
        let mut transport = SmtpTransport::builder_dangerous(&server.host)
            .port(server.port)
            .tls(security)
            .timeout(Some(STEP));
        if let (Some(user), Some(secret)) = (&email.user, secret) {
            let password = std::str::from_utf8(secret).map_err(|_| "its password is no text".to_owned())?;
            transport = transport.credentials(Credentials::new(user.clone(), password.to_owned()));
        }
        transport
            .build()
            .send(&mail)
            .map(drop)
            .map_err(|e| format!("the mail was not taken: {}", refusal(&e)))
    }

    fn hook(&self, url: &Address, message: &Message, secret: &[u8]) -> Result<(), String> {
        let body = serde_json::to_vec(message).map_err(|e| e.to_string())?;
        let stamp = self.now.to_string();
        let signature = signature(secret, &stamp, &body);
        let headers = [
            ("content-type", "application/json"),
            ("x-bulla-timestamp", stamp.as_str()),
            ("x-bulla-signature", signature.as_str()),
        ];
        self.post(url.url(), REQUEST, &headers, &body)
    }

    fn ping(&self, url: &Address, word: &str, text: &str) -> Result<(), String> {
        let headers = [("content-type", "text/plain; charset=utf-8")];
        self.post(&below(url, word), REQUEST, &headers, text.as_bytes())
    }

    fn post(&self, url: &Url, within: Duration, headers: &[(&str, &str)], body: &[u8]) -> Result<(), String> {
        let roots = match self.authorities {
            None => RootCerts::WebPki,
            Some(pem) => {
                let trusted = certificates(pem)?;
                let trusted: Vec<_> =
                    trusted.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect();
                RootCerts::new_with_certs(&trusted)
            }
        };
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .timeout_global(Some(within))
            .user_agent(concat!("bulla/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let mut request = agent.post(url.as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send(body).map_err(|e| failure(&e))?;
        let status = answer.status();
        // To the end, or the server sees a line that breaks off.
        let _ = answer.into_body().into_reader().take(ANSWER_MAX).read_to_end(&mut Vec::new());
        let reason = status.canonical_reason().unwrap_or_default();
        if status.is_success() { Ok(()) } else { Err(format!("the answer was {} {reason}", status.as_u16())) }
    }
}

/// `sha256=` and the HMAC over time, a point and the body.
fn signature(secret: &[u8], stamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret));
    context.update(stamp.as_bytes());
    context.update(b".");
    context.update(body);
    let hex: String = context.sign().as_ref().iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256={hex}")
}

/// A URL with one more part in its path.
fn below(url: &Address, word: &str) -> Url {
    let mut url = url.url().clone();
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().push(word);
    }
    url
}

/// What went wrong on the way, without the URL.
fn failure(e: &ureq::Error) -> String {
    use ureq::Error as E;
    match e {
        E::Io(e) => format!("the connection failed: {e}"),
        E::Timeout(phase) => format!("no answer in time ({phase})"),
        E::HostNotFound => "the host was not found".to_owned(),
        E::ConnectionFailed => "no connection".to_owned(),
        E::Protocol(e) => format!("the answer is not HTTP: {e}"),
        E::Rustls(e) => format!("TLS: {e}"),
        _ => "the request failed".to_owned(),
    }
}

/// What a server of mail said, or why it did not.
fn refusal(error: &lettre::transport::smtp::Error) -> String {
    let source = std::error::Error::source(error).and_then(|e| e.downcast_ref::<io::Error>());
    // Which of the two a wait without an answer is depends on the system.
    if source.is_some_and(|e| [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&e.kind())) {
        return "no answer in time".to_owned();
    }
    let said = bulla_engine::observer::escape(error.to_string().as_bytes());
    said.chars().take(SAID_MAX).collect()
}

fn certificates(pem: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut out = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => out.push(certificate.der().to_vec()),
            Ok(_) => {}
            Err(_) => return Err("the file of trusted certificates is not PEM".to_owned()),
        }
    }
    if out.is_empty() { Err("the file of trusted certificates holds none".to_owned()) } else { Ok(out) }
}

/// A message as mail: the text for people, the same as JSON for programs. What is sent twice has the same id.
fn mail(email: &Email, message: &Message, host: &str) -> Result<lettre::Message, String> {
    let own = || format!("bulla@{host}").parse::<Mailbox>();
    let from = match &email.from {
        Some(from) => from.clone(),
        None => own().or_else(|_| "bulla@localhost".parse()).map_err(|_| "no sender".to_owned())?,
    };
    let seconds = message.time.parse::<jiff::Timestamp>().map_or(0, |t| t.as_second());
    let date = UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(message.subject())
        .date(date)
        .message_id(Some(format!("<{}@bulla>", message.id)));
    for to in &email.to {
        builder = builder.to(to.clone());
    }
    let json = serde_json::to_string_pretty(message).map_err(|e| e.to_string())?;
    let kind = ContentType::parse("application/json").map_err(|e| e.to_string())?;
    let parts = MultiPart::mixed()
        .singlepart(SinglePart::plain(message.text()))
        .singlepart(Attachment::new("bulla.json".to_owned()).body(json, kind));
    builder.multipart(parts).map_err(|e| format!("the mail cannot be written: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Server;

    /// As Python's hmac has it.
    #[test]
    fn signatures_are_hmac_sha256() {
        let expected = "sha256=bd99635732284660511c87d0719be6865abfda44a64564cf7d2b74e0f48525a1";
        assert_eq!(signature(b"k", "17", b"{}"), expected);
    }

    #[test]
    fn pings_go_below_the_url_whatever_follows_its_path() {
        let at = |text: &str| below(&text.parse().unwrap(), "start").to_string();
        assert_eq!(at("https://hc.example.net/ab-cd"), "https://hc.example.net/ab-cd/start");
        assert_eq!(at("https://hc.example.net/ab-cd/?rid=1"), "https://hc.example.net/ab-cd/start?rid=1");
    }

    #[test]
    fn nothing_that_is_said_becomes_a_header() {
        let email = Email {
            to: vec!["Ops <ops@example.net>".parse().unwrap()],
            from: None,
            server: Server { host: "h".into(), port: 1, security: Security::Plain },
            user: None,
            password: None,
        };
        let mut message = Message::sample("db01", "ops", 1_760_000_000);
        // Even if somebody forgot to escape it.
        message.summary = "x\r\nBcc: everybody@example.net\r\n\r\nü".repeat(9);
        message.job = "a\nb".to_owned();
        let sent = mail(&email, &message, "no host\r\nBcc: y@z").unwrap();
        assert_eq!(sent.envelope().to().len(), 1);
        let text = String::from_utf8(sent.formatted()).unwrap();
        let (headers, _) = text.split_once("\r\n\r\n").unwrap();
        let names: Vec<&str> = headers
            .lines()
            .filter(|l| !l.starts_with([' ', '\t']))
            .map(|l| l.split_once(':').unwrap().0)
            .collect();
        let known = ["From", "Subject", "Date", "Message-ID", "To", "MIME-Version", "Content-Type"];
        assert_eq!(names.iter().filter(|n| !known.contains(n)).collect::<Vec<_>>(), [&""; 0], "{headers}");
        assert_eq!(names.len(), known.len(), "{headers}");
        assert!(headers.contains("From: bulla@localhost"), "{headers}");
        let again = mail(&email, &message, "db01").unwrap().formatted();
        assert!(String::from_utf8(again).unwrap().contains(&format!("<{}@bulla>", message.id)));
    }
}
