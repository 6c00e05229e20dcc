//! The network between a store and its server, as bad or as slow as a test wants: counts requests, cuts connections at a
//! byte, goes away and comes back, and takes its time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How fast and how far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// There and back.
    pub(crate) round_trip: Duration,
    /// Bytes a second in each direction, over all connections; 0 is no limit.
    pub(crate) rate: u64,
}

/// A wire that is always free.
pub(crate) const NEAR: Link = Link { round_trip: Duration::ZERO, rate: 0 };

/// Where connections are cut: after so many bytes from now, over all of them, then again after gaps of other lengths.
#[derive(Debug, Default, Clone)]
struct Cuts {
    left: Option<u64>,
    most: u64,
    state: u64,
    /// Bytes that have passed, over all connections.
    passed: u64,
    /// After how many bytes it was cut.
    made: Vec<u64>,
}

impl Cuts {
    /// The next gap, from 1 to the longest, and one in four up to sixteen times that, so that what is large gets through
    /// in the end. (SplitMix64.)
    fn gap(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        1 + (z >> 2) % if z.is_multiple_of(4) { self.most.saturating_mul(16) } else { self.most }
    }
}

/// One direction.
struct Lane {
    free: Mutex<Instant>,
    cuts: Mutex<Cuts>,
}

struct State {
    target: u16,
    link: Link,
    down: AtomicBool,
    up: Lane,
    back: Lane,
    requests: Mutex<Vec<String>>,
    open: AtomicU64,
    most: AtomicU64,
}

/// A listener in front of a server.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    state: Arc<State>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    There,
    /// From the server.
    Back,
}

impl Proxy {
    /// In front of `target`, on the loopback interface.
    pub(crate) fn new(target: u16, link: Link) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let lane = || Lane { free: Mutex::new(Instant::now()), cuts: Mutex::default() };
        let state = Arc::new(State {
            target,
            link,
            down: AtomicBool::new(false),
            up: lane(),
            back: lane(),
            requests: Mutex::default(),
            open: AtomicU64::new(0),
            most: AtomicU64::new(0),
        });
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = shared.clone();
                if !state.down.load(Ordering::SeqCst) {
                    std::thread::spawn(move || serve(&state, client));
                }
            }
        });
        Self { port, state }
    }

    /// Cuts connections after gaps of up to `most` bytes, which follow from `seed`.
    pub(crate) fn cut(&self, way: Way, seed: u64, most: u64) {
        let mut cuts = Cuts { most, state: seed, ..Cuts::default() };
        cuts.left = Some(cuts.gap());
        *self.lane(way).cuts.lock().unwrap() = cuts;
    }

    /// Cuts the connection that carries byte `at` from now on, once.
    pub(crate) fn cut_once(&self, way: Way, at: u64) {
        *self.lane(way).cuts.lock().unwrap() = Cuts { left: Some(at), most: u64::MAX, ..Cuts::default() };
    }

    fn lane(&self, way: Way) -> &Lane {
        if way == Way::There { &self.state.up } else { &self.state.back }
    }

    /// Stops cutting; after how many bytes it was done each time.
    pub(crate) fn cuts(&self, way: Way) -> Vec<u64> {
        std::mem::take(&mut *self.lane(way).cuts.lock().unwrap()).made
    }

    /// Begins to count bytes anew; how many have passed.
    pub(crate) fn passed(&self, way: Way) -> u64 {
        std::mem::take(&mut *self.lane(way).cuts.lock().unwrap()).passed
    }

    /// The most requests that waited for an answer at once.
    pub(crate) fn at_once(&self) -> u64 {
        self.state.most.load(Ordering::SeqCst)
    }

    /// The network is gone, or there again.
    pub(crate) fn set_down(&self, down: bool) {
        self.state.down.store(down, Ordering::SeqCst);
    }

    /// `METHOD /path` of all requests since the last time.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.requests.lock().unwrap())
    }
}

impl State {
    /// A request has begun on a connection.
    fn asked(&self, waits: &AtomicBool) {
        if !waits.swap(true, Ordering::SeqCst) {
            let open = self.open.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(open, Ordering::SeqCst);
        }
    }

    /// Its answer has, or there will be none.
    fn answered(&self, waits: &AtomicBool) {
        if waits.swap(false, Ordering::SeqCst) {
            self.open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn serve(state: &Arc<State>, client: TcpStream) {
    let waits = AtomicBool::new(false).into();
    pass(state, client, &waits);
    state.answered(&waits);
}

fn pass(state: &Arc<State>, client: TcpStream, waits: &Arc<AtomicBool>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", state.target)) else { return };
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
    }
    let pair = |a: &TcpStream, b: &TcpStream| (a.try_clone().unwrap(), b.try_clone().unwrap());
    let (there, back) = (pair(&client, &server), pair(&server, &client));
    let (other, waiting) = (state.clone(), waits.clone());
    let second = std::thread::spawn(move || carry(&other, Way::Back, back, &waiting));
    carry(state, Way::There, there, waits);
    let _ = second.join();
}

/// Carries one direction until it ends, and ends the other with it.
fn carry(state: &Arc<State>, way: Way, (mut from, to): (TcpStream, TcpStream), waits: &AtomicBool) {
    // As much as the wire holds and a little more: who sends has to wait for the rest.
    let (send, receive) = sync_channel(256);
    let ends = (from.try_clone().unwrap(), to.try_clone().unwrap());
    let writer = std::thread::spawn(move || write(&receive, to));
    read((state, waits), way, &mut from, &send, &ends);
    drop(send);
    let _ = writer.join();
    let _ = ends.0.shutdown(Shutdown::Both);
    let _ = ends.1.shutdown(Shutdown::Both);
}

type Parcel = (Instant, Vec<u8>);

fn read(
    (state, waits): (&State, &AtomicBool),
    way: Way,
    from: &mut TcpStream,
    send: &SyncSender<Parcel>,
    ends: &(TcpStream, TcpStream),
) {
    let lane = if way == Way::There { &state.up } else { &state.back };
    let mut heads = Heads::default();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(n) => n,
        };
        let mut bytes = buffer[..n].to_vec();
        if way == Way::There {
            let begun = heads.feed(&bytes);
            if !begun.is_empty() {
                state.asked(waits);
            }
            state.requests.lock().unwrap().extend(begun);
        } else {
            state.answered(waits);
        }
        let cut = lane.cut(n as u64);
        if let Some(keep) = cut {
            bytes.truncate(keep);
        }
        let arrives = lane.take(state.link, bytes.len() as u64);
        if send.send((arrives, bytes)).is_err() {
            return;
        }
        if cut.is_some() || state.down.load(Ordering::SeqCst) {
            // What was carried before still arrives; nothing after it does, in either direction.
            let _ = ends.0.shutdown(Shutdown::Read);
            return;
        }
    }
}

fn write(receive: &Receiver<Parcel>, mut to: TcpStream) {
    while let Ok((arrives, bytes)) = receive.recv() {
        std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            return;
        }
    }
}

impl Lane {
    /// When bytes that are sent now arrive.
    fn take(&self, link: Link, bytes: u64) -> Instant {
        let mut free = self.free.lock().unwrap();
        let now = Instant::now();
        if let Some(micros) = (bytes * 1_000_000).checked_div(link.rate) {
            *free = (*free).max(now) + Duration::from_micros(micros);
        } else {
            *free = now;
        }
        *free + link.round_trip / 2
    }

    /// How many of the next `n` bytes pass before a cut, if one falls among them.
    fn cut(&self, n: u64) -> Option<usize> {
        let mut cuts = self.cuts.lock().unwrap();
        let left = cuts.left.filter(|left| *left < n);
        let Some(left) = left else {
            cuts.left = cuts.left.map(|left| left - n);
            cuts.passed += n;
            return None;
        };
        cuts.left = Some(cuts.gap());
        cuts.passed += left;
        let at = cuts.passed;
        cuts.made.push(at);
        Some(left as usize)
    }
}

/// Finds the first lines of requests in a stream of them.
#[derive(Default)]
struct Heads {
    head: Vec<u8>,
    body: u64,
}

impl Heads {
    fn feed(&mut self, mut bytes: &[u8]) -> Vec<String> {
        let mut out = Vec::new();
        while !bytes.is_empty() {
            let skip = self.body.min(bytes.len() as u64);
            self.body -= skip;
            bytes = &bytes[skip as usize..];
            for (at, byte) in bytes.iter().enumerate() {
                self.head.push(*byte);
                if self.head.ends_with(b"\r\n\r\n") {
                    let head = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
                    let length = head.to_lowercase();
                    let length =
                        length.lines().find_map(|l| l.strip_prefix("content-length:")?.trim().parse().ok());
                    self.body = length.unwrap_or(0);
                    let mut words = head.split(' ');
                    let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
                    out.push(format!("{method} {}", path.split('?').next().unwrap_or("")));
                    bytes = &bytes[at + 1..];
                    break;
                }
            }
            if !self.head.is_empty() {
                break;
            }
        }
        out
    }
}

#[test]
fn heads_are_found_in_pieces_of_any_size() {
    let stream = b"PUT /a?x=1 HTTP/1.1\r\nContent-Length: 5\r\n\r\n\r\n\r\nxGET /b HTTP/1.1\r\n\r\nHEAD /c HTTP/1.1\r\n\r\n";
    for size in 1..stream.len() {
        let mut heads = Heads::default();
        let found: Vec<String> = stream.chunks(size).flat_map(|piece| heads.feed(piece)).collect();
        assert_eq!(found, ["PUT /a", "GET /b", "HEAD /c"], "{size}");
    }
}
