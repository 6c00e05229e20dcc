//! restic's REST protocol: `rclone serve restic`, which reaches every cloud rclone knows, and restic's rest-server.
//!
//! The protocol has five kinds of objects; ours are sorted into them under names that begin with their area:
//! `data/packs-…`. Announcements lie in `locks`, the one kind that an append-only server lets be deleted; everything else
//! is out of reach of who may only add.
//!
//! A server may write uploads in place, and take away what lies under the name of one that broke off: see `names`.
//!
//! The protocol has no exact put-if-absent, so runs never expire by themselves on such a store. rest-server must be told
//! not to check that names are SHA-256 sums (`--no-verify-upload`): ours are not.

mod names;

pub(crate) use names::Names;

use crate::http::{Answer, Ask, Http, date, range};
use crate::store::{Attempt, Failure, Kind, Mode, Page, Part, Put, Stat, Store, contested};
use base64::Engine as _;
use serde::Deserialize;
use std::sync::Arc;
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
    names: Arc<Names>,
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
        Self { http, base, authorization, place, connections, names: Arc::default() }
    }

    /// The same, which goes on from what another one knew of the names of the same store.
    pub(crate) fn knowing(self, names: Arc<Names>) -> Self {
        Self { names, ..self }
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

    /// All names of a kind with sizes, and what they tell of where objects lie. It is also what makes rclone look: what it
    /// was asked for before it answers out of its memory, also when that is gone.
    fn listed(&self, kind: &str) -> Attempt<Vec<(String, u64)>> {
        let answer = self.send("GET", &format!("{kind}/"), &[("accept", VERSION_2)], None)?;
        match answer.status() {
            404 => Ok(Vec::new()),
            200 => {
                let body = answer.body(LIST_MAX)?;
                let listed: Vec<Listed> = serde_json::from_slice(&body)
                    .map_err(|e| Failure::passing(format!("the listing makes no sense: {e}")))?;
                Ok(listed.into_iter().map(|l| (l.name, l.size)).collect())
            }
            _ => Err(answer.complaint()),
        }
    }

    /// The objects of a kind, by path.
    fn objects(&self, kind: &str) -> Attempt<Vec<(String, u64)>> {
        let listed = self.listed(kind)?;
        Ok(self.names.seen(|path| kind_of(area_of(path)) == kind, &listed))
    }

    /// Does something with the object under the name it has, and again if it has another one by now: its writer may have
    /// put it again since the last listing.
    fn read<T>(&self, path: &str, act: impl Fn(&str) -> Attempt<T>) -> Attempt<T> {
        let name = self.names.best(path);
        let first = act(&address(path, &name));
        let Err(Failure { kind: kind @ (Kind::Missing | Kind::Short { .. }), .. }) = &first else {
            return first;
        };
        if *kind == Kind::Missing {
            self.names.removed(path, &name);
        }
        self.objects(kind_of(area_of(path)))?;
        let now = self.names.best(path);
        if now == name { first } else { act(&address(path, &now)) }
    }

    /// One attempt to put under a name. If it fails so that the server may still be at it, the name is not used again.
    fn put_as(&self, path: &str, name: &str, parts: &[&[u8]]) -> Attempt<Answer> {
        let answer = self.send("POST", &address(path, name), &[], Some(parts));
        match answer {
            Ok(answer) if matches!(answer.status(), 200 | 201 | 204) => {
                self.names.stored(path, name, parts.iter().map(|p| p.len() as u64).sum());
                Ok(answer)
            }
            Ok(answer) if matches!(answer.status(), 401 | 403) => Ok(answer),
            failed => {
                self.names.breaks(path, name);
                failed
            }
        }
    }

    /// True if another writer's object is there. What is left of our own puts that broke off is a beginning of our bytes,
    /// and no two writers' bytes begin alike: each is sealed with a nonce of its own.
    fn taken(&self, path: &str, parts: &[&[u8]]) -> Attempt<bool> {
        let kind = kind_of(area_of(path));
        let bytes = parts.concat();
        for (name, _) in
            self.listed(kind)?.iter().filter(|(name, _)| names::path_of(name).as_deref() == Some(path))
        {
            if !self.names.broke(path, name) || !self.ours(path, name, &bytes)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// True if under that name there is nothing but what a put of these bytes may have left.
    fn ours(&self, path: &str, name: &str, bytes: &[u8]) -> Attempt<bool> {
        let whole = Part::Whole { limit: bytes.len() as u64 };
        match self.send("GET", &address(path, name), &[], None)?.part(whole) {
            Ok(there) => Ok(bytes.starts_with(&there)),
            Err(Failure { kind: Kind::TooLong { .. }, .. }) => Ok(false),
            // It has been taken away meanwhile.
            Err(Failure { kind: Kind::Missing, .. }) => Ok(true),
            Err(failure) => Err(failure),
        }
    }

    fn remove(&self, path: &str, name: &str) -> Attempt<()> {
        let answer = self.send("DELETE", &address(path, name), &[], None)?;
        match answer.status() {
            200 | 204 | 404 => {}
            // An append-only server says so whether or not anything is there.
            401 | 403 => return Err(answer.complaint()),
            // Some servers answer so to what is absent.
            _ if self.listed(kind_of(area_of(path)))?.iter().any(|(there, _)| there == name) => {
                return Err(answer.complaint());
            }
            _ => {}
        }
        self.names.removed(path, name);
        Ok(())
    }
}

fn area_of(path: &str) -> &str {
    path.split_once('/').map_or(path, |(area, _)| area)
}

/// True in areas in which several processes may put the same statement, a death above all. There each put has a name of its
/// own, so that none that breaks off takes away what another one was told is there.
fn shared(path: &str) -> bool {
    matches!(area_of(path), "gone" | "forget" | "locks")
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

/// Where an object lies under a name: `data/packs-0a…`.
fn address(path: &str, name: &str) -> String {
    format!("{}/{name}", kind_of(area_of(path)))
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
                let text = format!("it is not empty ({kind}/{} is there): choose another path", found.0);
                return Err(Failure::last(text));
            }
        }
        Ok(())
    }

    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        // Two writers at the same moment would both be told that they were first: the protocol knows no better.
        if mode == Mode::New && contested(path) && self.taken(path, parts)? {
            return Ok(Put::Exists);
        }
        // What is replaced is not written over: a server that does so in place shows, and may be left with, a part.
        let name = match mode == Mode::New && !self.names.unsure(path) && !shared(path) {
            true => names::own_name(path),
            false => Names::fresh(path)?,
        };
        let answer = self.put_as(path, &name, parts)?;
        match answer.status() {
            200 | 201 | 204 => {}
            // An append-only server says the same of what is there and of what may not be.
            403 if mode == Mode::New && self.stat(path)?.is_some() => return Ok(Put::Exists),
            _ => return Err(answer.complaint()),
        }
        if mode == Mode::Replace {
            self.objects(kind_of(area_of(path)))?;
            for old in self.names.all(path).iter().filter(|old| **old != name) {
                self.remove(path, old)?;
            }
            return Ok(Put::Created);
        }
        for left in self.names.left(path) {
            // Who reads goes by the listing, in which the whole object is longer: it only takes up room.
            if !contested(path) || self.ours(path, &left, &parts.concat()).is_ok_and(|ours| ours) {
                let _ = self.remove(path, &left);
            }
        }
        Ok(Put::Created)
    }

    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>> {
        let range = range(part);
        let headers: Vec<(&str, &str)> = range.iter().map(|r| ("range", r.as_str())).collect();
        if shared(path) {
            // A part of a death that somebody else puts anew meanwhile would read as no death.
            self.objects(kind_of(area_of(path)))?;
        }
        self.read(path, |address| self.send("GET", address, &headers, None)?.part(part))
    }

    fn list(&self, dir: &str, _: Option<&str>) -> Attempt<Page> {
        let objects = self.objects(kind_of(dir))?.into_iter();
        let within =
            |(path, size): (String, u64)| Some((path.strip_prefix(dir)?.strip_prefix('/')?.to_owned(), size));
        Ok(Page { entries: objects.filter_map(within).collect(), next: None })
    }

    fn stat(&self, path: &str) -> Attempt<Option<Stat>> {
        let found = self.read(path, |address| {
            let answer = self.send("HEAD", address, &[], None)?;
            if answer.status() != 200 {
                return Err(answer.complaint());
            }
            let size = answer.length().ok_or_else(|| Failure::last("the store does not say a size"))?;
            let time = answer.header("last-modified").or(answer.header("date")).and_then(date);
            let modified = time.ok_or_else(|| Failure::last("the store does not say a time"))?;
            Ok(Stat { size, modified })
        });
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(Failure { kind: Kind::Missing, .. }) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn delete(&self, path: &str) -> Attempt<()> {
        if shared(path) {
            // None of its names is the usual one.
            self.objects(kind_of(area_of(path)))?;
        }
        self.names.all(path).iter().try_for_each(|name| self.remove(path, name))
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
        assert_eq!(address("packs/0a", &names::own_name("packs/0a")), "data/packs-0a");
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
