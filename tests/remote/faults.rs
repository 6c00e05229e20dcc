//! A network that is gone: for a while, which a backup outlives, and for good, which ends it with an error that helps.
//!
//! `BULLA_GONE` is for how many seconds; the long run is in `LEDGER.md`. Connections that are cut: [`super::cuts`].

use super::proxy::{NEAR, Proxy, Way};
use super::servers::{S3, shows_a_secret, store_with};
use crate::support::{contents, env, noise, on_disk, options, secret, small, source};
use bulla_engine::backup;
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use std::time::Duration;

/// Seconds without a network in a usual run.
const GONE: u64 = 4;

/// The network goes away in the middle of a backup and comes back: the backup goes on.
#[test]
fn a_backup_outlives_a_network_that_is_gone() {
    let Some(server) = S3::seaweed() else { return };
    let url = server.url();
    let direct = super::servers::store(&url);
    direct.prepare().unwrap();
    let proxy = Proxy::new(server.port, NEAR);
    let gone = std::env::var("BULLA_GONE").ok().and_then(|n| n.parse().ok()).unwrap_or(GONE);
    let far = url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
    let store = store_with(&far, &["retry-first-ms=20", &format!("retry-seconds={}", gone + 60)]).backend();
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
        std::thread::sleep(Duration::from_secs(gone));
        assert!(!backup.is_finished(), "it did not wait");
        println!("{gone} seconds without a network");
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
