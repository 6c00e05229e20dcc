//! One source, several repositories, some of them at the end of a bad network.

use crate::remote::proxy::{Link, NEAR, Proxy};
use crate::remote::servers::{S3, store, store_with};
use crate::support::{contents, env, noise, options, secret, small};
use bulla_engine::backend::{Backend, Local};
use bulla_engine::backup;
use bulla_engine::copy::several::{self, Taken};
use bulla_engine::copy::{self, CopyOptions};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::source::{Sources, StreamSource};
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A repository as `backup` knows it before it is opened.
struct Place {
    name: &'static str,
    store: Arc<dyn Backend>,
    seed: u64,
    repository: Option<Repository>,
    made: Option<Snapshot>,
    failure: Option<String>,
}

impl Place {
    fn new(name: &'static str, store: Arc<dyn Backend>, seed: u64) -> Self {
        Self { name, store, seed, repository: None, made: None, failure: None }
    }

    fn open(&self) -> bulla_engine::Result<Repository> {
        Repository::open(self.store.clone(), &secret(), env(self.seed))
    }

    fn copy_from(&mut self, from: &Self) {
        let (source, made) = (from.repository.as_ref().unwrap(), from.made.clone().unwrap());
        let copied = self.open().and_then(|to| {
            copy::run(source, &to, &[made], &CopyOptions::default(), &Silent)?;
            Ok(to)
        });
        match copied {
            Ok(to) => self.repository = Some(to),
            Err(e) => self.failure = Some(e.to_string()),
        }
    }
}

/// Counts what is read.
struct Counted<'a>(&'a [u8], Arc<AtomicU64>);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.read(buffer)?;
        self.1.fetch_add(n as u64, Ordering::SeqCst);
        Ok(n)
    }
}

fn local(dir: &Path) -> Arc<dyn Backend> {
    let store = Local::new(dir);
    store.create_layout().unwrap();
    Arc::new(store)
}

/// A bucket behind a proxy, and the way to it without.
fn bucket(server: &S3, proxy: &Proxy, options: &[&str]) -> (Arc<dyn Backend>, Arc<dyn Backend>) {
    let url = server.url();
    let direct = store(&url);
    direct.prepare().unwrap();
    let through = url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    (store_with(&through, options).backend(), direct.backend())
}

fn snapshots(store: &Arc<dyn Backend>, seed: u64) -> Vec<Snapshot> {
    Repository::open(store.clone(), &secret(), env(seed)).and_then(|r| r.snapshots()).unwrap()
}

/// Five repositories: one nearby, one at the end of a slow link, one whose network is away, one whose network never comes back,
/// and a directory that is gone. The source is read once; those that live have their snapshot while the one that is away is still
/// waited for, and that one has it too when its network is back.
#[test]
fn those_that_live_commit_while_others_are_waited_for() {
    let Some(server) = S3::seaweed() else { return };
    let (near, gone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let slow_link = Link { round_trip: Duration::from_millis(40), rate: 4_000_000 };
    let (slow_way, away_way, dead_way) =
        (Proxy::new(server.port, slow_link), Proxy::new(server.port, NEAR), Proxy::new(server.port, NEAR));
    let (slow, slow_direct) = bucket(&server, &slow_way, &[]);
    let (away, away_direct) = bucket(&server, &away_way, &["retry-seconds=900", "retry-first-ms=20"]);
    let (dead, dead_direct) = bucket(&server, &dead_way, &["retry-seconds=1", "retry-first-ms=20"]);
    let near = local(near.path());
    let first = Repository::init(near.clone(), &small(), &secret(), env(1)).unwrap().repository;
    for (n, direct) in [&slow_direct, &away_direct, &dead_direct].into_iter().enumerate() {
        // The last has chunk ids of its own.
        let like = if n == 2 { small() } else { InitOptions::like(&first) };
        Repository::init(direct.clone(), &like, &secret(), env(2 + n as u64)).unwrap();
    }
    away_way.set_down(true);
    dead_way.set_down(true);

    let (data, read) = (noise("source", 3_000_000), Arc::new(AtomicU64::new(0)));
    let data: &'static [u8] = data.leak();
    let mut places = [
        Place::new("away", away, 11),
        Place::new("dead", dead, 12),
        Place::new("slow", slow, 13),
        Place::new("near", near.clone(), 14),
        Place::new("gone", Arc::new(Local::new(gone.path().join("nothing"))), 15),
    ];
    let ended = Mutex::new(Vec::new());
    let back_up = |place: &mut Place| {
        let repository = place.open().unwrap();
        let reader = Box::new(Counted(data, read.clone()));
        let source =
            Sources::Stream(StreamSource { name: b"dump".to_vec(), reader, commit: None, holes: Vec::new() });
        let report = backup::run(&repository, source, &options(), &Silent).unwrap();
        (place.made, place.repository) = (report.snapshot, Some(repository));
        ended.lock().unwrap().push(place.name);
        Taken::Yes
    };
    let copy = |from: &Place, to: &mut Place| {
        to.copy_from(from);
        ended.lock().unwrap().push(to.name);
    };
    let is_near = |place: &Place| place.name == "near";
    let watched = || {
        let begun = Instant::now();
        while ended.lock().unwrap().len() < 4 && begun.elapsed() < Duration::from_secs(240) {
            std::thread::sleep(Duration::from_millis(20));
        }
        let before = ended.lock().unwrap().clone();
        let there = [&near, &slow_direct].map(|store| snapshots(store, 30).len());
        away_way.set_down(false);
        (before, there)
    };
    let (first, (before, there)) = std::thread::scope(|scope| {
        let watcher = scope.spawn(watched);
        (several::store(&mut places, is_near, back_up, copy), watcher.join().unwrap())
    });
    println!("in this order: {before:?}, then away");
    assert_eq!(first, Some(3));
    assert_eq!(read.load(Ordering::SeqCst), data.len() as u64, "the source is read once");
    assert!(before.starts_with(&["near"]) && before.len() == 4 && !before.contains(&"away"), "{before:?}");
    assert_eq!(there, [1, 1], "those that live have committed");

    end(places, [&away_direct, &dead_direct, &slow_direct]);
}

/// What each has in the end, or why not.
fn end(places: [Place; 5], [away_direct, dead_direct, slow_direct]: [&Arc<dyn Backend>; 3]) {
    let [away, dead, slow, near, gone] = places;
    let expected = contents(near.repository.as_ref().unwrap(), near.made.as_ref().unwrap()).unwrap();
    for (place, direct) in [(away, away_direct), (slow, slow_direct)] {
        assert_eq!(place.failure, None, "{}", place.name);
        let copy = snapshots(direct, 40).remove(0);
        assert_eq!(contents(place.repository.as_ref().unwrap(), &copy).unwrap(), expected);
    }
    let told = dead.failure.unwrap();
    assert!(told.contains("attempts") && told.contains("127.0.0.1"), "{told}");
    assert!(snapshots(dead_direct, 41).is_empty());
    assert!(gone.failure.unwrap().contains("nothing"));
}
