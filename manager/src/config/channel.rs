//! Channels by which people and programs are told how jobs stand: their values, and how they are read.
//!
//! Kept true: a secret goes over no line that others can read, and no address is taken that a message could not be sent to.

use super::SecretRef;
use super::read::secret;
use super::section::{At, Section};
use lettre::message::Mailbox;
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use url::Url;

/// Somebody who is told.
#[derive(Debug, Clone)]
pub struct Channel {
    /// How.
    pub means: Means,
    /// Of what.
    pub on: BTreeSet<Kind>,
}

/// How somebody is told.
#[derive(Debug, Clone)]
pub enum Means {
    /// By mail.
    Email(Email),
    /// By a signed HTTP request.
    Webhook {
        /// Where to.
        url: At<Address>,
        /// What it is signed with.
        hmac: At<SecretRef>,
    },
    /// By HTTP requests at the beginning and the end of every run, as healthchecks takes them: somebody else then sees also
    /// a machine that is dead.
    Ping {
        /// Where to; `/start` and `/CODE` are added.
        url: At<Address>,
    },
}

/// Mail.
#[derive(Debug, Clone)]
pub struct Email {
    /// To whom.
    pub to: Vec<Mailbox>,
    /// From whom; bulla at this host without it.
    pub from: Option<Mailbox>,
    /// The server that takes it.
    pub server: Server,
    /// The name that server knows us by.
    pub user: Option<String>,
    /// What proves that.
    pub password: Option<At<SecretRef>>,
}

/// A server of mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the line is kept from others.
    pub security: Security,
}

/// How a line is kept from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// TLS from the first byte.
    Tls,
    /// TLS before anything is said that matters; not sent without.
    StartTls,
    /// Not at all.
    Plain,
}

/// What somebody can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A run failed, or damage was found.
    Failure,
    /// A run was due and did not happen, or the newest proven backup is too old.
    Missed,
    /// A source or a repository looks wrong.
    Anomaly,
    /// A rule refused something.
    Refused,
    /// A destination is full.
    Capacity,
    /// Something is not proven.
    Unproven,
    /// A restore that was tried went wrong.
    Drill,
    /// What was told before is over.
    Recovered,
}

impl Kind {
    /// All.
    pub const ALL: [Self; 8] = [
        Self::Failure,
        Self::Missed,
        Self::Anomaly,
        Self::Refused,
        Self::Capacity,
        Self::Unproven,
        Self::Drill,
        Self::Recovered,
    ];

    /// As it is written.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Failure => "failure",
            Self::Missed => "missed",
            Self::Anomaly => "anomaly",
            Self::Refused => "refused",
            Self::Capacity => "capacity",
            Self::Unproven => "unproven",
            Self::Drill => "drill",
            Self::Recovered => "recovered",
        }
    }
}

/// A URL of HTTP that can be shown: its path may be all that keeps others from using it.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(Url);

impl Address {
    /// The URL.
    pub fn url(&self) -> &Url {
        &self.0
    }

    fn is_open(&self) -> bool {
        self.0.scheme() == "http" && !self.0.host_str().is_some_and(is_here)
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|e| format!("it is no URL: {e}"))?;
        if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none_or(str::is_empty) {
            return Err("it is no URL that begins with https:// and a host".to_owned());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("there is a user or a password in the URL, and secrets never stand here".to_owned());
        }
        Ok(Self(url))
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("{text:?} is no server like smtps://mail.example.net or smtp://mail.example.net:587");
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
        let (security, usual) = match scheme {
            "smtps" => (Security::Tls, 465),
            "smtp" => (Security::StartTls, 587),
            _ => return Err(wrong()),
        };
        // Only the authority is said; the URL's own reader knows hosts and ports.
        let url = Url::parse(&format!("http://{rest}")).map_err(|_| wrong())?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(wrong)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
        if !plain || !url.username().is_empty() || url.password().is_some() {
            return Err(format!("{}; user and password are keys of their own", wrong()));
        }
        let named = rest.trim_end_matches('/').rsplit_once(':').filter(|(before, _)| !before.is_empty());
        let port = named.and_then(|(_, port)| port.parse().ok()).or(url.port()).unwrap_or(usual);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let security =
            if security == Security::StartTls && is_here(&host) { Security::Plain } else { security };
        Ok(Self { host, port, security })
    }
}

/// True for names of this machine alone.
fn is_here(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

const PLAIN: &str = "Send it over a line that others can read";

/// Reads a channel.
pub(super) fn channel(s: &mut Section<'_>) -> Option<Channel> {
    let email = s.table("email", "Tell by mail", email);
    let webhook = s.table("webhook", "Tell by a signed POST with JSON", |s| {
        let url = http(s, "Where to");
        let hmac = secret(s, "hmac", "Where the secret is that requests are signed with");
        let hmac = s.require("hmac", hmac, "{ file = \"/etc/bulla/hook\" }");
        Some(Means::Webhook { url: url?, hmac: hmac? })
    });
    let ping = s.table("ping", "Tell a dead man's switch of every run, as healthchecks takes it", |s| {
        Some(Means::Ping { url: http(s, "The check's URL; /start and /CODE are added")? })
    });
    let said = ["email", "webhook", "ping"].into_iter().filter(|key| s.has(key)).count();
    if said != 1 {
        s.lacks("E-NOT-01", "has to say one way to tell somebody", "write one of email, webhook, ping");
    }
    let on = on(s);
    if s.has("ping") && s.has("on") {
        s.lacks("E-NOT-02", "is pinged at every run, and says on what", "leave on out");
    }
    let means = email.or(webhook).or(ping)?.value;
    (said == 1).then_some(Channel { means, on })
}

fn on(s: &mut Section<'_>) -> BTreeSet<Kind> {
    let words = Kind::ALL.map(|kind| (kind.word(), Some(kind)));
    let all: Vec<_> = words.into_iter().chain([("*", None)]).collect();
    let Some(said) = s.words("on", "Of what: all of it without this", &all) else {
        return Kind::ALL.into();
    };
    if said.contains(&None) { Kind::ALL.into() } else { said.into_iter().flatten().collect() }
}

fn http(s: &mut Section<'_>, doc: &str) -> Option<At<Address>> {
    let url = s.parsed::<Address>("url", doc);
    let url = s.require("url", url, "\"https://example.net/…\"");
    let plain = s.flag("plain", PLAIN).is_some_and(|at| at.value);
    if url.as_ref().is_some_and(|url| url.value.is_open()) && !plain {
        s.lacks("E-NOT-03", "goes over a line that others can read", "write https://, or plain = true");
    }
    url
}

fn email(s: &mut Section<'_>) -> Option<Means> {
    let to = s.texts("to", "To whom: addresses");
    let to = s.require("to", to, "[\"ops@example.net\"]");
    if to.as_ref().is_some_and(Vec::is_empty) {
        s.lacks("E-NOT-01", "goes to nobody", "write to = [\"ops@example.net\"]");
    }
    let from = s.text("from", "From whom; bulla at this host without it");
    let server = s.parsed::<Server>("smtp", "The server: smtps:// (TLS) or smtp:// (STARTTLS), host, port");
    let server = s.require("smtp", server, "\"smtps://mail.example.net\"");
    let user = s.text("user", "The name that the server knows us by");
    let password = secret(s, "password", "Where the password for the server is");
    let plain = s.flag("plain", PLAIN).is_some_and(|at| at.value);
    if s.has("user") != s.has("password") {
        s.lacks("E-NOT-04", "has a user or a password and not the other", "write both, or none");
    }
    let server = server.map(|at| match at.value.security {
        Security::StartTls if plain => Server { security: Security::Plain, ..at.value },
        _ => at.value,
    });
    let open = server.as_ref().is_some_and(|s| s.security == Security::Plain && !is_here(&s.host));
    if open && s.has("password") {
        s.lacks(
            "E-NOT-03",
            "sends a password over a line that others can read",
            "leave plain out: smtp:// then begins TLS before it says anything",
        );
    }
    let mut mailbox = |at: At<String>| match at.value.parse::<Mailbox>() {
        Ok(mailbox) => Some(mailbox),
        Err(_) => {
            let what = format!("{:?} is no address of mail", at.value);
            s.wrong(at.place, "E-VAL-01", what, "write one like ops@example.net");
            None
        }
    };
    let to = to.map(|to| to.into_iter().map(&mut mailbox).collect::<Vec<_>>());
    let from = from.map(&mut mailbox);
    // What could not be read is told already.
    let to: Vec<Mailbox> = to?.into_iter().collect::<Option<_>>()?;
    let from = match from {
        Some(from) => Some(from?),
        None => None,
    };
    let user = user.map(|at| at.value);
    (!to.is_empty()).then_some(Means::Email(Email { to, from, server: server?, user, password }))
}

impl Channel {
    /// The secret it needs.
    pub fn secret(&self) -> Option<&At<SecretRef>> {
        match &self.means {
            Means::Email(email) => email.password.as_ref(),
            Means::Webhook { hmac, .. } => Some(hmac),
            Means::Ping { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_their_usual_ports() {
        for (text, host, port, security) in [
            ("smtps://mail.example.net", "mail.example.net", 465, Security::Tls),
            ("smtp://mail.example.net", "mail.example.net", 587, Security::StartTls),
            ("smtp://mail.example.net:25", "mail.example.net", 25, Security::StartTls),
            ("smtp://mail.example.net:80", "mail.example.net", 80, Security::StartTls),
            ("smtp://localhost:25", "localhost", 25, Security::Plain),
            ("smtp://[::1]:2525/", "::1", 2525, Security::Plain),
            ("smtps://127.0.0.1", "127.0.0.1", 465, Security::Tls),
        ] {
            assert_eq!(text.parse(), Ok(Server { host: host.into(), port, security }), "{text}");
        }
        for text in [
            "",
            "mail",
            "http://mail",
            "smtp://",
            "smtp://u:p@mail",
            "smtp://mail/x",
            "smtp://a b",
            "smtp://m:99999",
        ] {
            assert!(text.parse::<Server>().unwrap_err().contains("is no server"), "{text}");
        }
    }

    #[test]
    fn addresses_show_no_path() {
        let address: Address = "https://hooks.example.net/services/T0/secret".parse().unwrap();
        assert_eq!(format!("{address:?}"), "https://hooks.example.net/…");
        for text in ["ftp://x/", "https://", "x", "https://u:p@h/", "https://u@h/", "file:///etc"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
