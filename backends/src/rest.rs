//! restic's REST protocol: `rclone serve restic`, which reaches every cloud rclone knows, and restic's rest-server.
//!
//! The protocol has five kinds of objects; ours are sorted into them under names that begin with their area:
//! `data/packs-…`. Announcements lie in `locks`, the one kind that an append-only server lets be deleted; everything else
//! is out of reach of who may only add.
//!
//! The protocol has no exact put-if-absent, so runs never expire by themselves on such a store. rest-server must be told
//! not to check that names are SHA-256 sums (`--no-verify-upload`): ours are not.

use crate::http::{Answer, Ask, Http, date, range};
use crate::store::{Attempt, Failure, Mode, Page, Part, Put, Stat, Store, contested};
use base64::Engine as _;
use serde::Deserialize;
use url::Url;

/// Asks for names with sizes.
const VERSION_2: &str = "application/vnd.x.restic.rest.v2";
/// A name and its size are some 100 bytes: room for two and a half million packs.
const LIST_MAX: u64 = 256 << 20;

/// A server that speaks the protocol.
pub struct Rest {
    http: Http,
    base: Url,
    authorization: Option<String>,
    place: String,
    connections: usize,
}

/// One object in a listing.
#[derive(Deserialize)]
struct Listed {
    name: String,
    size: u64,
}

impl Rest {
    /// The server at `base`, which may hold a user and a password; `place` is how messages call it.
    pub fn new(http: Http, mut base: Url, place: Option<String>, connections: usize) -> Self {
        let decoded = |text: &str| percent_decode(text);
        let authorization = base.password().map(|password| {
            let pair = [&decoded(base.username())[..], b":", &decoded(password)].concat();
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        });
        // Neither can fail for http and https, which Location lets through.
        let _ = base.set_password(None);
        let user = base.username().to_owned();
        let _ = base.set_username("");
        let shown = match user.as_str() {
            "" => base.to_string(),
            user => base.to_string().replacen("://", &format!("://{user}@"), 1),
        };
        let place = place.unwrap_or_else(|| format!("rest:{shown}"));
        Self { http, base, authorization, place, connections }
    }

    fn send(
        &self,
        method: &'static str,
        path: &str,
        more: &[(&str, &str)],
        body: Option<&[&[u8]]>,
    ) -> Attempt<Answer> {
        let url = format!("{}{path}", self.base);
        let mut headers = more.to_vec();
        headers.extend(self.authorization.as_deref().map(|a| ("authorization", a)));
        self.http.send(&Ask { method, url: &url, headers: &headers, body })
    }

    fn listed(&self, kind: &str) -> Attempt<Vec<Listed>> {
        let answer = self.send("GET", &format!("{kind}/"), &[("accept", VERSION_2)], None)?;
        match answer.status() {
            404 => Ok(Vec::new()),
            200 => {
                let body = answer.body(LIST_MAX)?;
                serde_json::from_slice(&body)
                    .map_err(|e| Failure::passing(format!("the listing makes no sense: {e}")))
            }
            _ => Err(answer.complaint()),
        }
    }
}

/// The kind of the protocol in which an area lies.
fn kind_of(area: &str) -> &'static str {
    match area {
        "packs" | "meta" | "parity" => "data",
        "index" => "index",
        "keys" => "keys",
        "pend" => "locks",
        _ => "snapshots",
    }
}

/// `packs/0a…` as the protocol has it: `data/packs-0a…`.
fn address(path: &str) -> String {
    let (area, name) = path.split_once('/').unwrap_or((path, ""));
    format!("{}/{area}-{name}", kind_of(area))
}

fn percent_decode(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, others)) = rest.split_first() {
        let coded = others.get(..2).and_then(|h| u8::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok());
        match coded.filter(|_| *first == b'%') {
            Some(byte) => {
                out.push(byte);
                rest = others.get(2..).unwrap_or_default();
            }
            None => {
                out.push(*first);
                rest = others;
            }
        }
    }
    out
}

impl Store for Rest {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn prepare(&self) -> Attempt<()> {
        let answer = self.send("POST", "?create=true", &[], Some(&[]))?;
        if !matches!(answer.status(), 200 | 201 | 204) {
            return Err(answer.complaint());
        }
        for kind in ["data", "index", "snapshots", "locks"] {
            if let Some(found) = self.listed(kind)?.first() {
                let text = format!("it is not empty ({kind}/{} is there): choose another path", found.name);
                return Err(Failure::last(text));
            }
        }
        Ok(())
    }

    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        // Two writers at the same moment would both be told that they were first: the protocol knows no better.
        if mode == Mode::New && contested(path) && self.stat(path)?.is_some() {
            return Ok(Put::Exists);
        }
        let answer = self.send("POST", &address(path), &[], Some(parts))?;
        match answer.status() {
            200 | 201 | 204 => Ok(Put::Created),
            // An append-only server says the same of what is there and of what may not be.
            403 if mode == Mode::New && self.stat(path)?.is_some() => Ok(Put::Exists),
            _ => Err(answer.complaint()),
        }
    }

    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>> {
        let range = range(part);
        let headers: Vec<(&str, &str)> = range.iter().map(|r| ("range", r.as_str())).collect();
        self.send("GET", &address(path), &headers, None)?.part(part)
    }

    fn list(&self, dir: &str, _: Option<&str>) -> Attempt<Page> {
        let listed = self.listed(kind_of(dir))?;
        let name = |name: &str| Some(name.strip_prefix(dir)?.strip_prefix('-')?.to_owned());
        let entries = listed.iter().filter_map(|l| Some((name(&l.name)?, l.size))).collect();
        Ok(Page { entries, next: None })
    }

    fn stat(&self, path: &str) -> Attempt<Option<Stat>> {
        let answer = self.send("HEAD", &address(path), &[], None)?;
        match answer.status() {
            404 => Ok(None),
            200 => {
                let size = answer.length().ok_or_else(|| Failure::last("the store does not say a size"))?;
                let time = answer.header("last-modified").or(answer.header("date")).and_then(date);
                let modified = time.ok_or_else(|| Failure::last("the store does not say a time"))?;
                Ok(Some(Stat { size, modified }))
            }
            _ => Err(answer.complaint()),
        }
    }

    fn delete(&self, path: &str) -> Attempt<()> {
        let answer = self.send("DELETE", &address(path), &[], None)?;
        match answer.status() {
            200 | 204 | 404 => Ok(()),
            // An append-only server says so whether or not anything is there.
            401 | 403 => Err(answer.complaint()),
            // Some servers answer so to what is absent.
            _ => match self.stat(path) {
                Ok(None) => Ok(()),
                _ => Err(answer.complaint()),
            },
        }
    }

    /// rclone removes what is under the name of an upload that fails, in some of its backends.
    fn takes_back(&self) -> bool {
        true
    }

    fn exact(&self) -> Attempt<bool> {
        Ok(false)
    }

    fn connections(&self) -> usize {
        self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Timeouts;
    use bulla_engine::format::Area;

    #[test]
    fn only_announcements_can_be_deleted_on_a_server_that_appends() {
        for area in Area::ALL {
            assert_eq!(kind_of(area.dir()) == "locks", area == Area::Announcements, "{area:?}");
        }
        assert_eq!(address("packs/0a"), "data/packs-0a");
    }

    #[test]
    fn passwords_are_sent_and_not_shown() {
        let http = Http::new(None, 1, Timeouts::default()).unwrap();
        let rest = Rest::new(http, "http://me:p%40ss@h:8000/x/".parse().unwrap(), None, 1);
        assert_eq!(rest.place(), "rest:http://me@h:8000/x/");
        assert_eq!(rest.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert_eq!(rest.base.as_str(), "http://h:8000/x/");
    }
}
