//! Connections that are cut: at every byte of each request and answer about one small object, and at random bytes all
//! through whole verbs. No snapshot that was acknowledged may be lost, and none may be half there.
//!
//! `BULLA_CUTS` is the number of random cuts; figures are in `LEDGER.md`.

use super::proxy::{NEAR, Proxy, Way};
use super::servers::{RestServer, S3, store, store_with};
use crate::support::{contents, env, noise, on_disk, options, secret, small, source};
use bulla_engine::backend::{Backend, Put};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::copy::{self, CopyOptions};
use bulla_engine::format::{Area, ObjectName, RunId};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::{Result, backup};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Random cuts of a usual run.
const CUTS: usize = 7_000;
/// The same at a REST server, where most of what differs is in puts.
const REST_CUTS: usize = 2_000;

fn wanted(usual: usize) -> usize {
    std::env::var("BULLA_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// The store at `url`, whose server listens at `port`, through a proxy. As little waiting as may be: what is tested is what
/// follows a cut, not how long it takes.
fn through(proxy: &Proxy, port: u16, url: &str) -> Arc<dyn Backend> {
    let url = url.replace(&format!(":{port}/"), &format!(":{}/", proxy.port));
    store_with(&url, &["retry-first-ms=0", "retry-seconds=60"]).backend()
}

/// What is done to a small object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Act {
    Put,
    Get,
    List,
    Delete,
}

const BYTES: &[u8] = b"a small object";

impl Act {
    /// Does it through the network, from the state it needs to the one it must leave, which the server itself is asked for.
    fn perform(self, far: &dyn Backend, near: &dyn Backend, name: &ObjectName, context: &str) {
        match self {
            Self::Put => {
                near.delete(name).unwrap();
                assert_eq!(far.put(name, &[BYTES]).unwrap(), Put::Created, "{context}");
            }
            Self::Get => assert_eq!(far.get(name, 99).unwrap(), BYTES, "{context}"),
            Self::List => assert_eq!(far.list(name.area()).unwrap(), [(*name, 14)], "{context}"),
            Self::Delete => {
                near.put(name, &[BYTES]).unwrap();
                far.delete(name).unwrap();
                assert_eq!(near.stat(name).unwrap(), None, "{context}");
                return;
            }
        }
        // As who reads does: what a server still has of an attempt that broke off is shorter, and not what is listed.
        assert_eq!(near.list(name.area()).unwrap(), [(*name, 14)], "{context}");
        assert_eq!(near.get(name, 99).unwrap(), BYTES, "{context}");
    }
}

/// Cuts once after each number of bytes that pass one way. Gives how many cuts there were.
fn at_every_byte(act: Act, way: Way, name: &ObjectName, url: &str, port: u16) -> u64 {
    let (proxy, near) = (Proxy::new(port, NEAR), store(url).backend());
    let far = through(&proxy, port, url);
    near.put(name, &[BYTES]).unwrap();
    // The first time it may ask more than later, and it connects.
    let mut length = 0;
    for _ in 0..2 {
        proxy.passed(way);
        act.perform(&*far, &*near, name, "uncut");
        length = proxy.passed(way);
    }
    // A server may use a byte more or less from one answer to the next: the end is where nothing is left to cut.
    for at in 0.. {
        proxy.cut_once(way, at);
        act.perform(&*far, &*near, name, &format!("{act:?} {way:?} cut after {at} bytes"));
        if proxy.cuts(way).is_empty() {
            assert!(at.abs_diff(length) < 16, "{act:?} {way:?}: {at} cuts in {length} bytes");
            return at;
        }
    }
    0
}

/// Acts, both ways, side by side, each in a repository of its own: what a listing shows is what was put for it.
fn every_byte(what: &str, acts: &[Act], url: &dyn Fn(u8) -> String, port: u16) {
    let name = ObjectName::Verdict(RunId::new([7; 16]));
    let mut cuts = 0;
    for (first, way) in [(0, Way::There), (4, Way::Back)] {
        let urls: Vec<String> = (first..first + 4).map(url).collect();
        urls.iter().for_each(|url| store(url).prepare().unwrap());
        cuts += std::thread::scope(|scope| {
            let name = &name;
            let threads: Vec<_> = (acts.iter().zip(&urls))
                .map(|(act, url)| scope.spawn(move || at_every_byte(*act, way, name, url, port)))
                .collect();
            threads.into_iter().map(|t| t.join().unwrap()).sum::<u64>()
        });
    }
    println!("{what}: cut at each of {cuts} bytes of {acts:?} of one object");
}

#[test]
fn a_connection_cut_at_every_byte_of_a_request_or_answer_to_s3_changes_nothing() {
    let Some(server) = S3::seaweed() else { return };
    let acts = [Act::Put, Act::Get, Act::List, Act::Delete];
    every_byte("S3", &acts, &|_| server.url(), server.port);
}

/// rclone removes what is under the name of an upload that breaks off whenever it notices, on a busy machine long after
/// the next attempt was acknowledged: so that is put under another name.
#[test]
fn a_connection_cut_at_every_byte_of_a_request_or_answer_to_rest_changes_nothing() {
    let Some(server) = RestServer::start(false) else { return };
    let acts = [Act::Put, Act::Get, Act::List, Act::Delete];
    every_byte("REST", &acts, &|n| format!("{}{n}/", server.url()), server.port);
}

fn change(dir: &Path, round: u64) {
    std::fs::write(dir.join("changing"), noise(&format!("round {round}"), 1_000)).unwrap();
    std::fs::write(dir.join(format!("new-{}", round % 7)), round.to_string()).unwrap();
}

/// Backups of one repository; with more the listings grow beyond what passes between two cuts.
const ROUNDS: u64 = 12;

/// Where cuts were made: in which verb, which way, after how many bytes of it.
type Points = BTreeSet<(&'static str, bool, u64)>;

/// A server behind a network that is cut all the time, each time at other bytes.
struct Cut {
    port: u16,
    cuts: usize,
    points: Points,
    seed: u64,
}

impl Cut {
    /// Does something in the repositories at `urls`, opened through the network.
    fn verb<T>(
        &mut self,
        what: &'static str,
        urls: &[&str],
        act: impl FnOnce(&[Repository]) -> Result<T>,
    ) -> T {
        self.seed += 1;
        let way = if self.seed.is_multiple_of(2) { Way::There } else { Way::Back };
        let proxy = Proxy::new(self.port, NEAR);
        proxy.cut(way, self.seed, 5_000);
        let open =
            |url: &&str| Repository::open(through(&proxy, self.port, url), &secret(), env(self.seed + 10));
        let opened: Result<Vec<Repository>> = urls.iter().map(open).collect();
        let done = opened.and_then(|opened| act(&opened));
        let made = proxy.cuts(way);
        self.cuts += made.len();
        self.points.extend(made.into_iter().map(|at| (what, way == Way::There, at)));
        done.unwrap_or_else(|e| panic!("{what} with seed {}: {e}", self.seed))
    }
}

type Taken = Vec<(RunId, BTreeMap<String, String>)>;

#[test]
fn verbs_through_a_network_that_is_cut_at_random_bytes_lose_nothing() {
    let Some(server) = S3::seaweed() else { return };
    lose_nothing("S3", server.port, &|_| server.url(), wanted(CUTS));
}

#[test]
fn verbs_at_a_rest_server_through_a_network_that_is_cut_at_random_bytes_lose_nothing() {
    let Some(server) = RestServer::start(false) else { return };
    lose_nothing("REST", server.port, &|n| format!("{}{n}/", server.url()), wanted(REST_CUTS));
}

/// Backups, restores, copies and prunes through such a network. Each is acknowledged, since the network always comes back, and
/// what is alive restores.
fn lose_nothing(what: &str, port: u16, place: &dyn Fn(u64) -> String, wanted: usize) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("first"), noise("first", 9_000)).unwrap();
    let mut cut = Cut { port, cuts: 0, points: Points::new(), seed: 0 };
    let mut verbs = [0; 4];
    while cut.cuts < wanted {
        let (url, copies) = (place(2 * cut.seed), place(2 * cut.seed + 1));
        let (direct, other) = (store(&url), store(&copies));
        direct.prepare().unwrap();
        other.prepare().unwrap();
        let made = Repository::init(direct.backend(), &small(), &secret(), env(cut.seed)).unwrap().repository;
        Repository::init(other.backend(), &InitOptions::like(&made), &secret(), env(cut.seed + 1)).unwrap();
        let mut taken: Taken = Vec::new();
        for round in 1..=ROUNDS {
            change(dir.path(), cut.seed);
            let report =
                cut.verb("backup", &[&url], |r| backup::run(&r[0], source(dir.path()), &options(), &Silent));
            let snapshot = report.snapshot.unwrap();
            taken.push((snapshot.id, on_disk(dir.path())));
            verbs[0] += 1;
            if round % 3 == 0 {
                let target = tempfile::tempdir().unwrap();
                let whole = RestoreOptions::default();
                cut.verb("restore", &[&url], |r| {
                    restore::run(&r[0], &snapshot, b"", &target.path().join("t"), &whole, &Silent)
                });
                let shown = target.path().join("t").join(dir.path().strip_prefix("/").unwrap());
                for name in ["first", "changing"] {
                    let (here, there) =
                        (std::fs::read(dir.path().join(name)), std::fs::read(shown.join(name)));
                    assert!(here.unwrap() == there.unwrap(), "{name}");
                }
                verbs[1] += 1;
            }
            if round % 4 == 0 {
                cut.verb("copy", &[&url, &copies], |r| {
                    copy::run(&r[0], &r[1], &r[0].snapshots()?, &CopyOptions::default(), &Silent)
                });
                copied(&other.backend(), &taken);
                verbs[2] += 1;
            }
            if round % 6 == 0 {
                let gone = taken.remove(0).0;
                let repository = Repository::open(direct.backend(), &secret(), env(6)).unwrap();
                crate::support::forget(&repository, &gone, true, "test").unwrap();
                let all = PruneOptions { max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
                let report = cut.verb("prune", &[&url], |r| prune::run(&r[0], &all, &Silent));
                assert!(report.died.len() <= 1);
                verbs[3] += 1;
            }
        }
        verify(&direct.backend(), &taken);
    }
    let [backups, restores, copies, prunes] = verbs;
    println!(
        "{what}: {} cuts at {} different points in {backups} backups, {restores} restores, {copies} copies, {prunes} prunes",
        cut.cuts,
        cut.points.len()
    );
}

/// A copy of each is there and restores.
fn copied(store: &Arc<dyn Backend>, taken: &Taken) {
    let repository = Repository::open(store.clone(), &secret(), env(4)).unwrap();
    let snapshots = repository.snapshots().unwrap();
    for (id, expected) in taken {
        let mut copies = snapshots.iter().filter(|s| s.origin == Some(*id));
        let copy = copies.next().expect("a copy");
        assert_eq!(&contents(&repository, copy).unwrap(), expected);
        assert!(copies.next().is_none(), "each is one snapshot");
    }
}

/// All that were acknowledged and not let go are there, restore, and the repository is sound.
fn verify(store: &Arc<dyn Backend>, taken: &Taken) {
    let repository = Repository::open(store.clone(), &secret(), env(5)).unwrap();
    let snapshots = repository.snapshots().unwrap();
    assert_eq!(snapshots.len(), taken.len(), "each backup is one snapshot");
    for (id, expected) in taken {
        let snapshot = snapshots.iter().find(|s| s.id == *id).expect("an acknowledged snapshot");
        assert_eq!(&contents(&repository, snapshot).unwrap(), expected);
    }
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let report = check::run(&repository, &options, &Silent).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(store.list(Area::Packs).unwrap().len() > 1);
}
