//! Any store that speaks S3: `ListObjectsV2`, `GetObject` with ranges, `PutObject` with `If-None-Match`, `HeadObject` and
//! `DeleteObject`, signed with version 4 in the query (rusty-s3). One put is one request: packs are far below the 5 GiB
//! that would need several.
//!
//! A put carries the MD5 of its bytes, which the store compares: a bit that flips on the way, or a body that is cut,
//! is refused there. (MD5 is against faults, not against people; of those the repository's own seals take care.)

pub mod credentials;
mod lock;

use crate::http::{Answer, Ask, Http, date, range};
use crate::store::{Attempt, Failure, Kind, Mode, Page, Part, Put, Retention, Stat, Store, contested};
use base64::Engine as _;
use md5::{Digest, Md5};
use rusty_s3::actions::{ListObjectsV2, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::sync::OnceLock;
use std::time::Duration;
use url::Url;

/// How long a signature is good: as long as clocks may differ.
const SIGNED_FOR: Duration = Duration::from_secs(900);
/// A page of 1,000 names has some 400 KiB.
const LIST_MAX: u64 = 16 << 20;
/// What is put to see whether a second put is refused.
const PROBE: &str = "tmp/probe";
const PROBE_TEXT: &[u8] = b"bulla puts this to see whether the store refuses to replace it\n";

/// How a bucket is named in a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Lookup {
    /// In the host for AWS, in the path for everyone else.
    #[default]
    Auto,
    /// `https://host/bucket/key`.
    Path,
    /// `https://bucket.host/key`.
    Dns,
}

/// Where a repository is and who asks.
pub struct Config {
    /// `https://host[:port]`.
    pub endpoint: Url,
    /// The bucket.
    pub bucket: String,
    /// What all names in it begin with, without slashes at the ends; may be empty.
    pub prefix: String,
    /// The region that signatures name.
    pub region: String,
    /// How the bucket is named.
    pub lookup: Lookup,
    /// The storage class of packs, if not the bucket's own.
    pub storage_class: Option<String>,
    /// Who asks; `None` asks as nobody.
    pub credentials: Option<Credentials>,
    /// Operations under way at once.
    pub connections: usize,
}

/// A prefix of a bucket.
pub struct S3 {
    http: Http,
    bucket: Bucket,
    config: Config,
    exact: OnceLock<bool>,
}

impl S3 {
    /// The store, without asking it anything.
    pub fn new(http: Http, config: Config) -> Result<Self, String> {
        let aws = config.endpoint.host_str().is_some_and(|h| h.ends_with(".amazonaws.com"));
        let style = match config.lookup {
            Lookup::Path => UrlStyle::Path,
            Lookup::Dns => UrlStyle::VirtualHost,
            Lookup::Auto if aws && !config.bucket.contains('.') => UrlStyle::VirtualHost,
            Lookup::Auto => UrlStyle::Path,
        };
        let bucket =
            Bucket::new(config.endpoint.clone(), style, config.bucket.clone(), config.region.clone())
                .map_err(|e| e.to_string())?;
        Ok(Self { http, bucket, config, exact: OnceLock::new() })
    }

    fn key(&self, path: &str) -> String {
        if self.config.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.config.prefix) }
    }

    /// The URL that reads an object.
    #[cfg(test)]
    pub(crate) fn signed(&self, path: &str) -> Url {
        self.bucket.get_object(self.credentials(), &self.key(path)).sign(SIGNED_FOR)
    }

    fn credentials(&self) -> Option<&Credentials> {
        self.config.credentials.as_ref()
    }

    /// Signs the headers with the action and sends both.
    fn send<'a, A: S3Action<'a>>(
        &self,
        method: &'static str,
        action: A,
        headers: &'a [(&'a str, &'a str)],
        body: Option<&[&[u8]]>,
    ) -> Attempt<Answer> {
        self.send_with(method, action, None, headers, body)
    }

    /// The same of one of an object's or bucket's properties.
    fn send_with<'a, A: S3Action<'a>>(
        &self,
        method: &'static str,
        mut action: A,
        property: Option<&'static str>,
        headers: &'a [(&'a str, &'a str)],
        body: Option<&[&[u8]]>,
    ) -> Attempt<Answer> {
        if let Some(property) = property {
            action.query_mut().insert(property, "");
        }
        for (name, value) in headers {
            action.headers_mut().insert(*name, *value);
        }
        let url = action.sign(SIGNED_FOR);
        self.http.send(&Ask { method, url: url.as_str(), headers, body })
    }

    fn put_as(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        let (key, md5) = (self.key(path), digest(parts));
        let class = self.config.storage_class.as_deref().filter(|_| path.starts_with("packs/"));
        let mut headers = vec![("content-md5", md5.as_str())];
        headers.extend(class.map(|class| ("x-amz-storage-class", class)));
        if mode == Mode::New {
            headers.push(("if-none-match", "*"));
        }
        let answer =
            self.send("PUT", self.bucket.put_object(self.credentials(), &key), &headers, Some(parts))?;
        match answer.status() {
            200 | 201 | 204 => Ok(Put::Created),
            412 => Ok(Put::Exists),
            _ => Err(explain(answer.complaint())),
        }
    }

    fn list_from(&self, prefix: &str, from: Begin<'_>) -> Attempt<Page> {
        let mut action = ListObjectsV2::new(&self.bucket, self.credentials());
        action.with_prefix(prefix);
        match from {
            Begin::First => {}
            Begin::Token(token) => action.with_continuation_token(token),
            Begin::Behind(key) => action.with_start_after(key),
        }
        let answer = self.send("GET", action, &[], None)?;
        if answer.status() != 200 {
            return Err(explain(answer.complaint()));
        }
        let text = String::from_utf8(answer.body(LIST_MAX)?)
            .map_err(|_| Failure::passing("the listing is not text"))?;
        let listed = ListObjectsV2::parse_response(&text)
            .map_err(|e| Failure::passing(format!("the listing makes no sense: {e}")))?;
        let name = |key: &str| key.strip_prefix(prefix).map(str::to_owned);
        let entries = listed.contents.iter().filter_map(|o| Some((name(&o.key)?, o.size?))).collect();
        Ok(Page { entries, next: listed.next_continuation_token })
    }

    /// Whether a second put of one name is refused: asked of the store once, with an object that stays.
    fn probe(&self) -> Attempt<bool> {
        if self.put_as(PROBE, &[PROBE_TEXT], Mode::New)? == Put::Exists {
            return Ok(true);
        }
        Ok(self.put_as(PROBE, &[PROBE_TEXT], Mode::New)? == Put::Exists)
    }
}

/// In a bucket that is not there nothing is listed, as in a directory that is not there.
fn no_bucket(mut failure: Failure) -> Failure {
    if failure.text.contains("NoSuchBucket") {
        failure.kind = Kind::Missing;
    }
    failure
}

/// Where a piece of a listing begins.
enum Begin<'a> {
    First,
    /// Where the piece before it said that it goes on.
    Token(&'a str),
    /// After a key, wherever the piece before it ended.
    Behind(&'a str),
}

fn digest(parts: &[&[u8]]) -> String {
    let mut md5 = Md5::new();
    parts.iter().for_each(|p| md5.update(p));
    base64::engine::general_purpose::STANDARD.encode(md5.finalize())
}

/// Adds what to do next where the store's own words do not say it.
fn explain(mut failure: Failure) -> Failure {
    let says = |word: &str| failure.text.contains(word);
    let hint = if says("NoSuchBucket") {
        "; make the bucket first, bulla makes none"
    } else if says("SignatureDoesNotMatch") || says("InvalidAccessKeyId") {
        "; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    } else if says("RequestTimeTooSkewed") {
        "; set this machine's clock"
    } else if says("PermanentRedirect") || says("AuthorizationHeaderMalformed") {
        "; name the bucket's region: -o s3.region=… or AWS_REGION"
    } else {
        ""
    };
    failure.text.push_str(hint);
    failure
}

impl Store for S3 {
    fn place(&self) -> String {
        let base = format!("s3:{}{}", self.config.endpoint, self.config.bucket);
        if self.config.prefix.is_empty() { base } else { format!("{base}/{}", self.config.prefix) }
    }

    fn prepare(&self) -> Attempt<()> {
        let page = self.list_from(&self.key(""), Begin::First)?;
        let free = |name: &str| name.starts_with("keys/") || name.starts_with("tmp/");
        match page.entries.iter().find(|(name, _)| !free(name)) {
            None => Ok(()),
            Some((name, _)) => {
                Err(Failure::last(format!("it is not empty ({name} is there): choose another prefix")))
            }
        }
    }

    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        // A store that replaces is asked first. Two writers at the same moment would both be told that they were first.
        if mode == Mode::New && contested(path) && !self.exact()? && self.stat(path)?.is_some() {
            return Ok(Put::Exists);
        }
        self.put_as(path, parts, mode)
    }

    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>> {
        let (key, range) = (self.key(path), range(part));
        let headers: Vec<(&str, &str)> = range.iter().map(|r| ("range", r.as_str())).collect();
        let answer = self.send("GET", self.bucket.get_object(self.credentials(), &key), &headers, None)?;
        answer.part(part).map_err(explain)
    }

    fn list(&self, dir: &str, from: Option<&str>) -> Attempt<Page> {
        self.list_from(&self.key(&format!("{dir}/")), from.map_or(Begin::First, Begin::Token))
            .map_err(no_bucket)
    }

    fn list_behind(&self, path: &str) -> Option<Attempt<Page>> {
        let key = self.key(path);
        let begin = if path.is_empty() { Begin::First } else { Begin::Behind(&key) };
        Some(self.list_from(&self.key(""), begin).map_err(no_bucket))
    }

    fn stat(&self, path: &str) -> Attempt<Option<Stat>> {
        let key = self.key(path);
        let answer = self.send("HEAD", self.bucket.head_object(self.credentials(), &key), &[], None)?;
        match answer.status() {
            404 => Ok(None),
            200 => {
                let size = answer.length().ok_or_else(|| Failure::last("the store does not say a size"))?;
                let modified = answer.header("last-modified").and_then(date);
                let modified = modified.ok_or_else(|| Failure::last("the store does not say a time"))?;
                Ok(Some(Stat { size, modified }))
            }
            _ => Err(explain(answer.complaint())),
        }
    }

    fn delete(&self, path: &str) -> Attempt<()> {
        let key = self.key(path);
        let answer = self.send("DELETE", self.bucket.delete_object(self.credentials(), &key), &[], None)?;
        match answer.status() {
            200 | 202 | 204 | 404 => Ok(()),
            _ => Err(explain(answer.complaint())),
        }
    }

    fn locks_objects(&self) -> Attempt<bool> {
        self.bucket_locks()
    }

    fn retain(&self, path: &str, retention: Retention) -> Attempt<()> {
        self.put_retention(path, retention)
    }

    fn exact(&self) -> Attempt<bool> {
        if let Some(exact) = self.exact.get() {
            return Ok(*exact);
        }
        let exact = match self.probe() {
            // Who may not put has no use for the answer.
            Err(Failure { kind: Kind::Denied, .. }) => false,
            other => other?,
        };
        Ok(*self.exact.get_or_init(|| exact))
    }

    fn connections(&self) -> usize {
        self.config.connections
    }
}
