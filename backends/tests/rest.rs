//! A REST server of the worst kind that is possible: it writes uploads in place, and of one that broke off it empties and
//! removes what is under the name, whenever it likes. What was acknowledged stays.

use super::answers::{SECRET, request};
use bulla_backends::location::Location;
use bulla_backends::open::{Settings, open};
use bulla_backends::settings::{Options, Variables};
use bulla_engine::backend::{Backend, Put};
use bulla_engine::format::{Area, ObjectName, PackName, RunId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::{BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of an upload that is to break off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Breaks {
    /// Nothing of it is there yet.
    Early,
    /// A part of it is.
    Midway,
    /// All of it is, but for the answer.
    Late,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, String>,
    /// The next uploads break off so.
    breaks: Vec<Breaks>,
    /// Names of uploads that broke off, which the server has not noticed yet.
    open: Vec<String>,
    requests: Vec<String>,
}

/// The server, on a port of its own.
struct Spiteful {
    port: u16,
    state: Arc<Mutex<State>>,
}

impl Spiteful {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, state) = (listener.local_addr().unwrap().port(), Arc::<Mutex<State>>::default());
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = shared.clone();
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Self { port, state }
    }

    /// A store that knows nothing yet of what lies where.
    fn store(&self) -> Arc<dyn Backend> {
        let settings = Settings {
            options: Options::parse(["retry-first-ms=1", "retry-seconds=5"]).unwrap(),
            variables: Variables::new(&|_| None),
            authorities: None,
            notice: None,
        };
        let url = format!("rest:http://user:{SECRET}@127.0.0.1:{}/", self.port);
        open(&Location::parse(OsStr::new(&url)).unwrap(), settings).unwrap().backend()
    }

    fn breaks(&self, how: &[Breaks]) {
        self.state.lock().unwrap().breaks = how.to_vec();
    }

    /// Comes to what broke off: first it empties what is under the name, and writes what had come.
    fn resume(&self) {
        let State { objects, open, .. } = &mut *self.state.lock().unwrap();
        open.iter().for_each(|name| drop(objects.insert(name.clone(), "by".into())));
    }

    /// Notices what broke off.
    fn notice(&self) {
        let mut state = self.state.lock().unwrap();
        for name in std::mem::take(&mut state.open) {
            state.objects.remove(&name);
        }
    }

    fn names(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }

    fn requests(&self) -> usize {
        std::mem::take(&mut self.state.lock().unwrap().requests).len()
    }

    /// Where uploads went to.
    fn uploads(&self) -> Vec<String> {
        let state = self.state.lock().unwrap();
        state.requests.iter().filter_map(|r| r.strip_prefix("POST ").map(str::to_owned)).collect()
    }

    fn set(&self, name: &str, bytes: &str) {
        self.state.lock().unwrap().objects.insert(name.to_owned(), bytes.to_owned());
    }
}

fn serve(state: &Mutex<State>, mut stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(text) = request(&mut reader) {
        let mut words = text.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (method, path, _, body) = (word(), word(), word(), word().trim_start_matches("HTTP/1.1\r\n"));
        let Some(answer) = answer(&mut state.lock().unwrap(), method, path.trim_start_matches('/'), body)
        else {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, method: &str, path: &str, body: &str) -> Option<String> {
    state.requests.push(format!("{method} {path}"));
    let say = |status: &str, body: &str| {
        let date = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        Some(format!("HTTP/1.1 {status}\r\n{date}Content-Length: {}\r\n\r\n{body}", body.len()))
    };
    let absent = || say("404 Not Found", "");
    match method {
        "POST" => {
            let breaks = if state.breaks.is_empty() { None } else { Some(state.breaks.remove(0)) };
            match breaks {
                Some(Breaks::Early) => {}
                Some(Breaks::Midway) => drop(state.objects.insert(path.to_owned(), body[..2].to_owned())),
                _ => drop(state.objects.insert(path.to_owned(), body.to_owned())),
            }
            if breaks.is_some() {
                state.open.push(path.to_owned());
                return None;
            }
            say("200 OK", "")
        }
        "DELETE" => state.objects.remove(path).map_or_else(absent, |_| say("200 OK", "")),
        _ if path.ends_with('/') => {
            let within =
                state.objects.iter().filter_map(|(name, bytes)| Some((name.strip_prefix(path)?, bytes)));
            let listed: Vec<String> =
                within.map(|(n, b)| format!("{{\"name\":\"{n}\",\"size\":{}}}", b.len())).collect();
            say("200 OK", &format!("[{}]", listed.join(",")))
        }
        "HEAD" => state.objects.get(path).map_or_else(absent, |bytes| {
            say("200 OK", bytes).map(|all| all[..all.len() - bytes.len()].to_owned())
        }),
        _ => state.objects.get(path).map_or_else(absent, |bytes| say("200 OK", bytes)),
    }
}

/// One in whose area writers may meet, one named by its content, one that belongs to its writer.
fn all() -> [ObjectName; 3] {
    let run = RunId::new([7; 16]);
    [ObjectName::Verdict(run), ObjectName::Pack(PackName::new([7; 32])), ObjectName::Announcement(run, 1)]
}

const WAYS: [&[Breaks]; 5] = [
    &[Breaks::Early],
    &[Breaks::Midway],
    &[Breaks::Late],
    &[Breaks::Midway, Breaks::Late, Breaks::Early],
    &[Breaks::Late, Breaks::Late, Breaks::Midway],
];

/// Whoever reads, before and after the server has noticed, and whatever was left.
#[test]
fn what_was_acknowledged_after_a_put_that_broke_off_is_never_taken_away() {
    for (name, ways) in all().into_iter().flat_map(|name| WAYS.map(|ways| (name, ways))) {
        let server = Spiteful::new();
        let (writer, reader) = (server.store(), server.store());
        assert_eq!(reader.stat(&name).unwrap(), None);
        server.breaks(ways);
        assert_eq!(writer.put(&name, &[b"by", b"tes"]).unwrap(), Put::Created, "{name} {ways:?}");
        for later in [|_: &Spiteful| {}, Spiteful::resume, Spiteful::notice] {
            later(&server);
            let context = format!("{name} {ways:?}: {:?}", server.names());
            for store in [&writer, &reader, &server.store()] {
                assert_eq!(store.list(name.area()).unwrap(), [(name, 5)], "{context}");
                assert_eq!(store.get(&name, 9).unwrap(), b"bytes", "{context}");
                assert_eq!(store.stat(&name).unwrap().unwrap().size, 5, "{context}");
            }
        }
        if name.area() == Area::Verdicts {
            assert_eq!(writer.put(&name, &[b"other"]).unwrap(), Put::Exists);
            assert_eq!(reader.put(&name, &[b"other"]).unwrap(), Put::Exists);
        }
        reader.delete(&name).unwrap();
        assert_eq!(server.names(), [""; 0], "{name} {ways:?}");
        assert_eq!(writer.stat(&name).unwrap(), None);
    }
}

/// What our own put left is no other writer's object, and what another writer left is none of ours.
#[test]
fn of_two_writers_the_second_is_told_so_also_after_a_put_that_broke_off() {
    let [name, ..] = all();
    let server = Spiteful::new();
    let (one, two) = (server.store(), server.store());
    one.put(&name, &[b"first"]).unwrap();
    server.breaks(&[Breaks::Early]);
    assert_eq!(two.put(&name, &[b"other"]).unwrap(), Put::Exists, "before anything broke off");
    server.breaks(&[]);
    assert_eq!(two.get(&name, 9).unwrap(), b"first");
}

/// Two prunes may let one snapshot die, and what breaks off of one must not take away what the other was told is there.
#[test]
fn what_two_say_alike_has_a_name_of_each() {
    let run = RunId::new([7; 16]);
    for name in [ObjectName::Death(run), ObjectName::Forget(run), ObjectName::Hold(run)] {
        for ways in WAYS {
            let server = Spiteful::new();
            let (one, two, reader) = (server.store(), server.store(), server.store());
            assert!(reader.list(name.area()).unwrap().is_empty());
            server.breaks(ways);
            assert_eq!(one.put(&name, &[b"bytes"]).unwrap(), Put::Created, "{name} {ways:?}");
            assert_eq!(two.put(&name, &[b"bytes"]).unwrap(), Put::Created, "{name} {ways:?}");
            let uploads = server.uploads();
            let names: BTreeSet<_> = uploads.iter().collect();
            assert_eq!(names.len(), ways.len() + 2, "no name twice: {uploads:?}");
            for later in [|_: &Spiteful| {}, Spiteful::resume, Spiteful::notice] {
                later(&server);
                for store in [&one, &two, &reader, &server.store()] {
                    assert_eq!(store.get(&name, 9).unwrap(), b"bytes", "{name} {ways:?}");
                    assert_eq!(store.list(name.area()).unwrap(), [(name, 5)], "{name} {ways:?}");
                }
            }
            // Also by who has seen no listing: what is taken back is taken back.
            server.store().delete(&name).unwrap();
            assert_eq!(server.names(), [""; 0], "{name} {ways:?}");
        }
    }
}

/// A part of a death reads as no death: who has seen one looks again whether the whole is there by now.
#[test]
fn a_death_is_read_as_it_is_now() {
    let name = ObjectName::Death(RunId::new([7; 16]));
    let server = Spiteful::new();
    let reader = server.store();
    server.store().put(&name, &[b"bytes"]).unwrap();
    let [whole] = &server.names()[..] else { panic!("{:?}", server.names()) };
    let part =
        [&whole[..whole.len() - 1], "x"].concat().replace('x', if whole.ends_with('0') { "1" } else { "0" });
    server.state.lock().unwrap().objects.clear();
    server.set(&part, "by");
    assert_eq!(reader.list(Area::Deaths).unwrap(), [(name, 2)]);
    server.set(whole, "bytes");
    assert_eq!(reader.get(&name, 9).unwrap(), b"bytes");
}

/// What is put right is whole at each moment, and the old bytes go only when the new ones are there.
#[test]
fn what_is_replaced_is_never_written_over_in_place() {
    let [_, name, _] = all();
    for ways in WAYS {
        let server = Spiteful::new();
        let (writer, reader) = (server.store(), server.store());
        writer.put(&name, &[b"dirty"]).unwrap();
        reader.list(Area::Packs).unwrap();
        server.breaks(ways);
        writer.heal(&name, &[b"clean"]).unwrap();
        for store in [&writer, &reader, &server.store()] {
            assert_eq!(store.get(&name, 9).unwrap(), b"clean", "{ways:?}");
        }
        server.notice();
        assert_eq!(reader.get(&name, 9).unwrap(), b"clean", "{ways:?}");
        assert_eq!(server.names().len(), 1, "{:?}", server.names());
    }
}

/// Where nothing breaks off, an object is one request, and one more where writers may meet.
#[test]
fn who_is_not_cut_off_pays_nothing() {
    let server = Spiteful::new();
    let store = server.store();
    let [verdict, pack, announcement] = all();
    for (name, requests) in [(verdict, 2), (pack, 1), (announcement, 1)] {
        store.put(&name, &[b"bytes"]).unwrap();
        assert_eq!(server.requests(), requests, "{name}");
        store.get(&name, 9).unwrap();
        store.stat(&name).unwrap();
        store.delete(&name).unwrap();
        assert_eq!(server.requests(), 3, "{name}");
    }
}
