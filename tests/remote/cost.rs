//! What verbs cost in requests, counted on the wire to a real server, and how much of a slow link they use.
//!
//! The table in `backends/README.md` is what this prints.

use super::proxy::{Link, NEAR, Proxy};
use super::servers::{S3, store, store_with};
use crate::support::{env, noise, options, secret, small, source};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::env::Env;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName, PackName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, PruneOptions};
use bulla_engine::repository::{InitOptions, Repository};
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::{backup, browse};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A machine with a cache.
fn machine(cache: &Path, seed: u64) -> Env {
    let mut env = env(seed);
    env.cache = Some(cache.to_owned());
    env
}

fn through(proxy: &Proxy, server: &S3, url: &str) -> Arc<dyn Backend> {
    store_with(&url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port)), &[]).backend()
}

fn open(store: &Arc<dyn Backend>, env: Env) -> Repository {
    Repository::open(store.clone(), &secret(), env).unwrap()
}

/// 2,000 files of 20 KiB in 20 directories: five packs.
fn tree(dir: &Path) {
    for n in 0..2000 {
        let sub = dir.join(format!("d{}", n % 20));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(n.to_string()), noise(&n.to_string(), 20 << 10)).unwrap();
    }
}

fn assert_at_most(proxy: &Proxy, what: &str, most: usize) -> Vec<String> {
    let requests = proxy.requests();
    println!("{what:<42} {:>3} requests", requests.len());
    assert!(
        requests.len() <= most,
        "{what}: {} requests, not {most}:\n{}",
        requests.len(),
        requests.join("\n")
    );
    requests
}

#[test]
fn verbs_cost_requests_by_the_pack_and_not_by_the_file() {
    let Some(server) = S3::seaweed() else { return };
    let url = server.url();
    store(&url).prepare().unwrap();
    let (proxy, dir, cache) =
        (Proxy::new(server.port, NEAR), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let target = tempfile::tempdir().unwrap();
    tree(dir.path());
    let far = || through(&proxy, &server, &url);
    let here = |seed| machine(cache.path(), seed);
    Repository::init(far(), &InitOptions::default(), &secret(), here(1)).unwrap();
    assert_at_most(&proxy, "init", 24);

    let back_up = |seed| {
        let repository = open(&far(), here(seed));
        backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap().snapshot.unwrap()
    };
    let first = back_up(2);
    assert_at_most(&proxy, "first backup, 39 MiB in 5 packs", 21);
    back_up(3);
    assert_at_most(&proxy, "backup without a change", 10);
    std::fs::write(dir.path().join("d3/3"), b"changed").unwrap();
    let last = back_up(4);
    assert_at_most(&proxy, "backup with one file changed", 15);

    let repository = open(&far(), here(5));
    let mut entries = 0;
    browse::list(&repository, &last, b"", true, &mut |_| {
        entries += 1;
        Ok(())
    })
    .unwrap();
    assert!(entries > 2000);
    assert_at_most(&proxy, "ls of 2,000 files, trees cached", 4);

    let stranger = tempfile::tempdir().unwrap();
    let path = [dir.path().to_str().unwrap().trim_start_matches('/'), "/d7/7"].concat();
    let repository = open(&far(), machine(stranger.path(), 6));
    restore::run(&repository, &last, path.as_bytes(), target.path(), &RestoreOptions::default(), &Silent)
        .unwrap();
    assert_eq!(std::fs::read(target.path().join("7")).unwrap(), noise("7", 20 << 10));
    assert_at_most(&proxy, "restore of one file, nothing cached", 12);

    let whole = target.path().join("whole");
    let repository = open(&far(), here(7));
    let rehearsal = RestoreOptions { dry_run: true, ..RestoreOptions::default() };
    let would = restore::run(&repository, &last, b"", &whole, &rehearsal, &Silent).unwrap();
    let of_packs = |requests: &[String]| requests.iter().filter(|r| r.contains("/packs/")).count() as u64;
    assert_eq!(of_packs(&proxy.requests()), 0, "a dry run fetches no content");
    let repository = open(&far(), here(7));
    let report = restore::run(&repository, &last, b"", &whole, &RestoreOptions::default(), &Silent).unwrap();
    assert_eq!(report.files_restored, 2000);
    let requests = assert_at_most(&proxy, "restore of 2,000 files", 24);
    assert_eq!(of_packs(&requests), would.requests_to_make, "what the dry run said");
    // How many a backup closes depends on how far its workers were: five or so for 39 MiB, and one for the change.
    let packs = repository.backend().list(Area::Packs).unwrap().len() as u64;
    assert_eq!(would.packs_to_fetch, packs);
    assert!((5..=7).contains(&packs), "{packs}");
    assert!((40_900_000..41_500_000).contains(&would.bytes_to_fetch), "{}", would.bytes_to_fetch);

    let repository = open(&far(), here(8));
    crate::support::forget(&repository, &first.id, true, "test").unwrap();
    proxy.requests();
    let repository = open(&far(), here(9));
    prune::run(&repository, &PruneOptions::default(), &Silent).unwrap();
    assert_at_most(&proxy, "prune after one forget", 48);
}

/// A listing has a thousand names a page. What a backup wants of them is of few areas, between which most packs lie.
#[test]
fn a_backup_without_a_change_over_thousands_of_packs_takes_fewer_than_15_requests() {
    let Some(server) = S3::seaweed() else { return };
    let url = server.url();
    let near = store(&url);
    near.prepare().unwrap();
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for n in 0..32 {
        std::fs::write(dir.path().join(n.to_string()), noise(&n.to_string(), 4 << 20)).unwrap();
    }
    let here = |seed| machine(cache.path(), seed);
    Repository::init(near.backend(), &small(), &secret(), here(1)).unwrap();
    let proxy = Proxy::new(server.port, NEAR);
    let back_up = |store: &Arc<dyn Backend>, seed| {
        let repository = open(store, here(seed));
        backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap()
    };
    back_up(&near.backend(), 2);
    let objects: usize = Area::ALL.iter().map(|area| near.backend().list(*area).unwrap().len()).sum();
    assert!((1400..2000).contains(&objects), "{objects} objects");
    let report = back_up(&through(&proxy, &server, &url), 3);
    assert_eq!(report.statistics.data_chunks_new, 0);
    assert_at_most(&proxy, &format!("backup without a change, {objects} objects"), 12);
    // More packs: nobody's, but listed as all are.
    for n in 0..2_000_u32 {
        let name = ObjectName::Pack(PackName::new(*blake3::hash(&n.to_le_bytes()).as_bytes()));
        near.backend().put(&name, &[b"pack"]).unwrap();
    }
    let report = back_up(&through(&proxy, &server, &url), 4);
    assert_eq!(report.statistics.data_chunks_new, 0);
    let packs = near.backend().list(Area::Packs).unwrap().len();
    assert!((3_000..4_000).contains(&packs), "{packs} packs");
    assert_at_most(&proxy, &format!("backup without a change, {packs} packs"), 14);
}

/// As many connections are open at once as were asked for, and no more.
#[test]
fn connections_are_as_many_as_the_option_says() {
    let Some(server) = S3::seaweed() else { return };
    let (url, dir) = (server.url(), tempfile::tempdir().unwrap());
    store(&url).prepare().unwrap();
    Repository::init(store(&url).backend(), &small(), &secret(), env(1)).unwrap();
    for n in 0..20 {
        std::fs::write(dir.path().join(n.to_string()), noise(&n.to_string(), 300_000)).unwrap();
    }
    let link = Link { round_trip: Duration::from_millis(20), rate: 0 };
    let most = |connections: u64, seed| {
        let proxy = Proxy::new(server.port, link);
        let far = url.replace(&format!(":{}/", server.port), &format!(":{}/", proxy.port));
        let far = store_with(&far, &[&format!("s3.connections={connections}")]).backend();
        let repository = Repository::open(far.clone(), &secret(), env(seed)).unwrap();
        std::fs::write(dir.path().join("new"), noise(&seed.to_string(), 1_000_000)).unwrap();
        let report = backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap();
        let target = tempfile::tempdir().unwrap();
        let whole = RestoreOptions::default();
        restore::run(&repository, &report.snapshot.unwrap(), b"", &target.path().join("t"), &whole, &Silent)
            .unwrap();
        proxy.at_once()
    };
    assert_eq!(most(1, 2), 1);
    let five = most(5, 3);
    assert!((2..=5).contains(&five), "{five}");
}

/// The link of the test, or `BULLA_LINK=MILLISECONDS,MEGABYTES` (a second): round trip and rate.
fn link() -> Link {
    let text = std::env::var("BULLA_LINK").unwrap_or_else(|_| "150,10".into());
    let numbers: Vec<u64> = text.split(',').map(|n| n.parse().unwrap()).collect();
    Link { round_trip: Duration::from_millis(numbers[0]), rate: numbers[1] * 1_000_000 }
}

/// Twelve seconds' worth of new data over a link on which each request costs 150 ms and a second carries 10 MB.
#[test]
fn backup_and_restore_use_four_fifths_of_a_slow_link() {
    let Some(server) = S3::seaweed() else { return };
    let (url, link) = (server.url(), link());
    store(&url).prepare().unwrap();
    let (proxy, dir, cache) =
        (Proxy::new(server.port, link), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = (12 * link.rate) >> 20;
    for n in 0..files {
        std::fs::write(dir.path().join(n.to_string()), noise(&n.to_string(), 1 << 20)).unwrap();
    }
    Repository::init(store(&url).backend(), &InitOptions::default(), &secret(), machine(cache.path(), 1))
        .unwrap();
    let share = |began: Instant| (files << 20) as f64 / link.rate as f64 / began.elapsed().as_secs_f64();
    let began = Instant::now();
    let repository = open(&through(&proxy, &server, &url), machine(cache.path(), 2));
    let snapshot =
        backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap().snapshot.unwrap();
    let up = share(began);
    let target = tempfile::tempdir().unwrap();
    let began = Instant::now();
    let repository = open(&through(&proxy, &server, &url), machine(cache.path(), 3));
    restore::run(&repository, &snapshot, b"", target.path(), &RestoreOptions::default(), &Silent).unwrap();
    let down = share(began);
    println!("backup used {:.0} % of the link, restore {:.0} %", up * 100.0, down * 100.0);
    // On a link that is faster than this machine with server and network in it, who does nothing but put is no faster.
    let plain =
        if up >= 0.8 { 1.0 } else { plain(&through(&proxy, &server, &server.url()), link, files << 20) };
    assert!(up >= 0.8 * plain && down >= 0.8, "backup {up:.2}, plain puts {plain:.2}, restore {down:.2}");
}

/// A tree of new data, backed up by one machine to a distance and by another to memory.
struct Twice<'a> {
    proxy: &'a Proxy,
    server: &'a S3,
    dir: tempfile::TempDir,
    _caches: [tempfile::TempDir; 2],
    far: Repository,
    memory: Repository,
}

impl<'a> Twice<'a> {
    fn new(proxy: &'a Proxy, server: &'a S3, seed: u64) -> Self {
        let (dir, caches) = (tempfile::tempdir().unwrap(), [0; 2].map(|_| tempfile::tempdir().unwrap()));
        for n in 0..FAST_BYTES >> 20 {
            std::fs::write(dir.path().join(n.to_string()), noise(&format!("{seed} {n}"), 1 << 20)).unwrap();
        }
        let url = server.url();
        store(&url).prepare().unwrap();
        let made = |backend, cache: &tempfile::TempDir| {
            let env = machine(cache.path(), 1);
            Repository::init(backend, &InitOptions::default(), &secret(), env).unwrap().repository
        };
        let far = made(through(proxy, server, &url), &caches[0]);
        let memory = made(Arc::new(Memory::new()), &caches[1]);
        Self { proxy, server, dir, _caches: caches, far, memory }
    }

    fn backup(&self, to: &Repository) -> Snapshot {
        backup::run(to, source(self.dir.path()), &options(), &Silent).unwrap().snapshot.unwrap()
    }

    /// How long a backup takes over the link, and to memory with as many plain puts over the link beside it.
    fn backups(&self, far_first: bool) -> [Duration; 2] {
        let timed = |act: &dyn Fn()| {
            let began = Instant::now();
            act();
            began.elapsed()
        };
        let far = || timed(&|| drop(self.backup(&self.far)));
        let beside = || {
            let puts = through(self.proxy, self.server, &self.server.url());
            timed(&|| {
                std::thread::scope(|scope| {
                    scope.spawn(|| plain(&puts, FAST, FAST_BYTES));
                    self.backup(&self.memory);
                });
            })
        };
        if far_first {
            let far = far();
            [far, beside()]
        } else {
            let beside = beside();
            [far(), beside]
        }
    }
}

const FAST: Link = Link { round_trip: Duration::from_millis(20), rate: 100_000_000 };
const FAST_BYTES: u64 = 384 << 20;

/// `BULLA_FAST` asks for what wants the machine for itself: beside much else more threads get more of it, and side by side
/// there are more (backends/README.md has the figures).
fn alone() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    if std::env::var_os("BULLA_FAST").is_none() {
        println!("passed over: BULLA_FAST=1 runs it, on a machine that does nothing else");
        return None;
    }
    Some(ONE.lock().unwrap_or_else(PoisonError::into_inner))
}

/// At 100 MB/s this machine is as short as the link: SeaweedFS takes a core for every 100 MB/s, proxy and client a quarter of
/// one, the backup's own work half a one. So the measure is the same work side by side with nothing to wait for: plain
/// puts through the link, and beside them a backup to memory. What a backup loses by doing one after the other shows.
#[test]
fn a_backup_over_a_fast_link_uses_four_fifths_of_it_or_of_what_puts_and_work_use_side_by_side() {
    let Some(_alone) = alone() else { return };
    let Some(server) = S3::seaweed() else { return };
    let proxy = Proxy::new(server.port, FAST);
    let mut spent = [Duration::ZERO; 2];
    for round in 0..4_u64 {
        // Who is first in a round is second in the next.
        let took = Twice::new(&proxy, &server, round).backups(round.is_multiple_of(2));
        (spent[0], spent[1]) = (spent[0] + took[0], spent[1] + took[1]);
    }
    let [far, beside] = spent.map(|t| 4.0 * FAST_BYTES as f64 / FAST.rate as f64 / t.as_secs_f64());
    println!("backup used {:.0} % of the link, side by side {:.0} %", far * 100.0, beside * 100.0);
    assert!(far >= 0.8 * beside.min(1.0), "backup {far:.2}, side by side {beside:.2}");
}

/// A restore is bound by the link also there.
#[test]
fn a_restore_over_a_fast_link_uses_four_fifths_of_it_or_of_what_gets_and_work_use_side_by_side() {
    let Some(_alone) = alone() else { return };
    let Some(server) = S3::seaweed() else { return };
    let proxy = Proxy::new(server.port, FAST);
    let twice = Twice::new(&proxy, &server, 9);
    let (far, near) = (twice.backup(&twice.far), twice.backup(&twice.memory));
    let restored = |repository: &Repository, snapshot: &Snapshot| {
        let (target, began) = (tempfile::tempdir().unwrap(), Instant::now());
        restore::run(repository, snapshot, b"", target.path(), &RestoreOptions::default(), &Silent).unwrap();
        began.elapsed()
    };
    let share = |time: Duration| FAST_BYTES as f64 / FAST.rate as f64 / time.as_secs_f64();
    let alone = share(restored(&twice.far, &far));
    let beside =
        if alone >= 0.8 { 1.0 } else { share(gets_beside(&twice, || restored(&twice.memory, &near))) };
    println!("restore used {:.0} % of the link", alone * 100.0);
    assert!(alone >= 0.8 * beside.min(1.0), "restore {alone:.2}, side by side {beside:.2}");
}

/// How long it takes to get all packs over the link, as many at once as a restore does, with other work beside.
fn gets_beside(twice: &Twice<'_>, work: impl FnOnce() -> Duration) -> Duration {
    let (store, began) = (twice.far.backend(), Instant::now());
    let (packs, next) = (store.list(Area::Packs).unwrap(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..store.describe().connections {
            scope.spawn(|| {
                while let Some((name, size)) = packs.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    assert_eq!(store.get(name, *size).unwrap().len() as u64, *size);
                }
            });
        }
        work();
    });
    began.elapsed()
}

/// The share of the link that puts of packs' size use, as many at once as a backup makes, and nothing else.
fn plain(store: &Arc<dyn Backend>, link: Link, bytes: u64) -> f64 {
    let (pack, next) = (noise("plain", 8 << 20), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..store.describe().connections {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n * (8 << 20) >= bytes {
                        return;
                    }
                    let name = ObjectName::Pack(PackName::new(*blake3::hash(&n.to_le_bytes()).as_bytes()));
                    store.put(&name, &[&pack]).unwrap();
                }
            });
        }
    });
    let share = bytes as f64 / link.rate as f64 / began.elapsed().as_secs_f64();
    println!("plain puts used {:.0} % of the link", share * 100.0);
    share
}
