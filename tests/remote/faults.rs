//! A network that breaks: connections cut at bytes all over whole verbs, and a network that is gone for a while. No
//! snapshot that was acknowledged may be lost, and none may be half there.
//!
//! `BULLA_CUTS` is the number of cuts; the long run's figure is in `LEDGER.md`.

use super::proxy::{NEAR, Proxy, Way};
use super::servers::{S3, shows_a_secret, store_with};
use crate::support::{contents, env, noise, on_disk, options, secret, small, source};
use bulla_engine::backend::Backend;
use bulla_engine::backup;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Cuts of a usual run.
const CUTS: u64 = 600;

fn wanted() -> u64 {
    std::env::var("BULLA_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(CUTS)
}

/// The same bucket and prefix through a proxy.
fn through(proxy: &Proxy, server: &S3, url: &str) -> Arc<dyn Backend> {
    let url = url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    // As little waiting as may be: what is tested is what follows a cut, not how long it takes.
    store_with(&url, &["retry-first-ms=0", "retry-seconds=60"]).backend()
}

fn change(dir: &Path, round: u64) {
    std::fs::write(dir.join("changing"), noise(&format!("round {round}"), 1_000)).unwrap();
    std::fs::write(dir.join(format!("new-{}", round % 7)), round.to_string()).unwrap();
}

/// Backups of one repository; with more the listings grow beyond what passes between two cuts.
const ROUNDS: u64 = 12;

/// Backups through a network that is cut all the time, each time at other bytes. Every one of them is acknowledged, since
/// the network always comes back, and every one restores.
#[test]
fn connections_cut_at_every_byte_lose_nothing() {
    let Some(server) = S3::seaweed() else { return };
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("first"), noise("first", 9_000)).unwrap();
    let (mut cuts, mut round) = (0, 0);
    while cuts < wanted() {
        let url = server.url();
        let direct = super::servers::store(&url);
        direct.prepare().unwrap();
        Repository::init(direct.backend(), &small(), &secret(), env(round)).unwrap();
        let mut taken = Vec::new();
        for _ in 0..ROUNDS {
            round += 1;
            change(dir.path(), round);
            let way = if round.is_multiple_of(2) { Way::There } else { Way::Back };
            let proxy = Proxy::new(server.port, NEAR);
            proxy.cut(way, round, 5_000);
            let store = through(&proxy, &server, &url);
            let done = Repository::open(store, &secret(), env(round + 10))
                .and_then(|r| backup::run(&r, source(dir.path()), &options(), &Silent));
            let report = done.unwrap_or_else(|e| panic!("round {round}: {e}"));
            cuts += proxy.cuts();
            taken.push((report.snapshot.unwrap().id, on_disk(dir.path())));
        }
        verify(&direct.backend(), &taken);
    }
    println!("{cuts} cuts in {round} backups");
}

/// All that were acknowledged are there, restore, and the repository is sound.
fn verify(store: &Arc<dyn Backend>, taken: &[(bulla_engine::format::RunId, BTreeMap<String, String>)]) {
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
}

/// The network goes away in the middle of a backup and comes back: the backup goes on.
#[test]
fn a_backup_outlives_a_network_that_is_gone() {
    let Some(server) = S3::seaweed() else { return };
    let url = server.url();
    let direct = super::servers::store(&url);
    direct.prepare().unwrap();
    let proxy = Proxy::new(server.port, NEAR);
    let store = through(&proxy, &server, &url);
    let repository = Repository::init(store, &small(), &secret(), env(1)).unwrap().repository;
    let dir = tempfile::tempdir().unwrap();
    for n in 0..40 {
        std::fs::write(dir.path().join(n.to_string()), noise(&n.to_string(), 50_000)).unwrap();
    }
    // The 300,000th byte is some packs into it.
    proxy.cut_once(Way::There, 300_000);
    let report = std::thread::scope(|scope| {
        let backup = scope.spawn(|| backup::run(&repository, source(dir.path()), &options(), &Silent));
        while proxy.requests().len() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        proxy.set_down(true);
        std::thread::sleep(Duration::from_secs(4));
        assert!(!backup.is_finished(), "it did not wait");
        proxy.set_down(false);
        backup.join().unwrap().unwrap()
    });
    let fresh = Repository::open(direct.backend(), &secret(), env(7)).unwrap();
    assert_eq!(contents(&fresh, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
}

/// A network that does not come back ends the verb, with an error that says where, what and how often.
#[test]
fn a_network_that_stays_away_is_an_error_with_host_object_and_attempt() {
    let Some(server) = S3::seaweed() else { return };
    let proxy = Proxy::new(server.port, NEAR);
    proxy.set_down(true);
    let url = server.url().replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    let store = store_with(&url, &["retry-first-ms=2", "retry-seconds=1"]).backend();
    let error = Repository::exists(&*store).unwrap_err().to_string();
    let host = format!("127.0.0.1:{}", proxy.port);
    assert!(
        error.contains("config/00000000") && error.contains(&host) && error.contains("attempts)"),
        "{error}"
    );
    assert!(!shows_a_secret(&error), "{error}");
}
