//! Many hosts, one bucket: eight machines back up into one repository at the same time, twice and more, beside a prune in a
//! loop.
//!
//! Each has a name, a home, a cache and a state of its own. Every backup that was acknowledged restores as its source was,
//! and what the machines have in common is stored about once.

use crate::content::{Dice, Tree, noise, tree};
use crate::home::{BULLA, Ran};
use crate::remote::servers::{KEY, S3, SECRET, store};
use crate::upkeep::json;
use bulla_engine::format::Area;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tempfile::TempDir;

const HOSTS: usize = 8;
/// Files that every machine has.
const COMMON: u64 = 40;
const COMMON_SIZE: usize = 120_000;
/// At least so many prunes end while the hosts back up, or so many rounds are over.
const PRUNES: u64 = 4;
const ROUNDS: usize = 8;
/// Files that only one has.
const OWN: u64 = 4;
const OWN_SIZE: usize = 60_000;

/// A place with machines and a repository elsewhere.
struct Scene {
    dir: TempDir,
    url: String,
    /// Each host has a name of its own, and so is a client of its own.
    named: bool,
}

/// A snapshot, whose it is, and what it must restore to.
type Taken = (String, usize, Tree);

impl Scene {
    fn home(&self, host: usize) -> PathBuf {
        self.dir.path().join(format!("host{host}"))
    }

    fn source(&self, host: usize) -> PathBuf {
        self.home(host).join("src")
    }

    /// One command on a host.
    fn on(&self, host: usize, line: &str) -> Ran {
        let (home, name) = (self.home(host), format!("host{host}"));
        let mut command = if self.named {
            let mut command = Command::new("unshare");
            let script = r#"hostname "$0" && exec "$@""#;
            command.args(["--uts", "/bin/sh", "-c", script, &name, BULLA]);
            command
        } else {
            Command::new(BULLA)
        };
        command.args(line.split_whitespace()).current_dir(&home).env_clear().stdin(Stdio::null());
        command.env("HOME", &home).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("BULLA_HOST", &name);
        command.env("BULLA_REPOSITORY", &self.url);
        let key = self.dir.path().join("key");
        command.envs(key.exists().then_some(("BULLA_KEY_FILE", key)));
        command.env("AWS_ACCESS_KEY_ID", KEY).env("AWS_SECRET_ACCESS_KEY", SECRET);
        Ran::of(command.output().unwrap())
    }

    /// Backs up a host's tree.
    fn backup(&self, host: usize) -> (Taken, Value) {
        let summary = json(&self.on(host, "-q --json backup src").ok());
        let id = summary["snapshot_id"].as_str().unwrap().to_owned();
        ((id, host, tree(&self.source(host))), summary)
    }

    /// All hosts at once.
    fn round(&self) -> Vec<(Taken, Value)> {
        std::thread::scope(|scope| {
            let hosts: Vec<_> = (0..HOSTS).map(|host| scope.spawn(move || self.backup(host))).collect();
            hosts.into_iter().map(|h| h.join().unwrap()).collect()
        })
    }

    /// Restores a snapshot on another host than its own, and compares.
    fn restores(&self, (id, host, expected): &Taken) {
        let by = (host + 3) % HOSTS;
        let target = self.home(by).join(format!("restored-{id}"));
        self.on(by, &format!("-q restore {id} --target restored-{id}")).ok();
        let got = tree(&target.join(self.source(*host).strip_prefix("/").unwrap()));
        assert!(&got == expected, "{id} of host {host} restores to\n{got:?}\nand not to\n{expected:?}");
        std::fs::remove_dir_all(&target).unwrap();
    }

    /// Bytes in the bucket.
    fn stored(&self) -> u64 {
        let backend = store(&self.url).backend();
        Area::ALL.iter().flat_map(|area| backend.list(*area).unwrap()).map(|(_, size)| size).sum()
    }
}

/// True if a process may have a machine name of its own here.
fn may_name() -> bool {
    let name = Command::new("unshare").args(["--uts", "/bin/sh", "-c", "hostname own && hostname"]).output();
    let may = name.is_ok_and(|o| o.stdout == b"own\n");
    if !may {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "unshare is missing or may not name a host");
        println!("all hosts are one client: unshare cannot give them names here");
    }
    may
}

fn populate(dir: &Path, host: usize) {
    std::fs::create_dir_all(dir.join("common")).unwrap();
    for n in 0..COMMON {
        std::fs::write(dir.join(format!("common/{n}")), noise(n, COMMON_SIZE)).unwrap();
    }
    for n in 0..OWN {
        std::fs::write(dir.join(format!("own-{n}")), noise(1000 + host as u64 * 100 + n, OWN_SIZE)).unwrap();
    }
}

/// Some files of its own, one that another host may have as well, and one less.
fn change(dir: &Path, host: usize, round: usize) {
    let mut dice = Dice((round * 100 + host) as u64);
    std::fs::write(dir.join("own-0"), noise(dice.roll(), OWN_SIZE)).unwrap();
    let shared = 9000 + (round * 10 + dice.below(3)) as u64;
    std::fs::write(dir.join("common/new"), noise(shared, COMMON_SIZE)).unwrap();
    let _ = std::fs::remove_file(dir.join(format!("common/{}", dice.below(40))));
}

/// What the pruner has done so far.
#[derive(Default)]
struct Pruned {
    prunes: AtomicU64,
    packs: AtomicU64,
    /// No more of it.
    stop: AtomicBool,
}

impl Pruned {
    /// Prunes from a machine of its own until told to stop.
    fn run(&self, scene: &Scene) {
        while !self.stop.load(Ordering::SeqCst) {
            let report = json(&scene.on(HOSTS, "-q --json prune --grace 0 --max-unused 0").ok());
            assert_eq!(report["lost_chunks"], 0, "{report:#}");
            self.packs.fetch_add(report["packs_deleted"].as_u64().unwrap(), Ordering::SeqCst);
            self.prunes.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// Rounds with changes between them. Two snapshots of each but the last are forgotten while others are made.
fn rounds(scene: &Scene, pruned: &Pruned) -> Vec<(Taken, Value)> {
    let mut living = Vec::new();
    for round in 1..=ROUNDS {
        let mut taken = scene.round();
        if round > 1 && pruned.prunes.load(Ordering::SeqCst) >= PRUNES || round == ROUNDS {
            living.extend(taken);
            break;
        }
        for _ in 0..2 {
            let ((id, host, _), _) = taken.remove(round % taken.len());
            scene.on(host, &format!("-q forget {id}")).ok();
        }
        living.extend(taken);
        (0..HOSTS).for_each(|host| change(&scene.source(host), host, round));
    }
    living
}

fn scene(url: String) -> Scene {
    let scene = Scene { dir: tempfile::tempdir().unwrap(), url, named: may_name() };
    for host in 0..=HOSTS {
        populate(&scene.source(host), host);
    }
    scene.on(HOSTS, "init --key-file-out ../key").ok();
    scene
}

#[test]
fn eight_hosts_back_up_into_one_bucket_beside_a_prune() {
    let Some(server) = S3::seaweed() else { return };
    let began = Instant::now();
    let scene = scene(server.url());
    // What the first snapshots hold is what all hosts will have; they are forgotten before the others begin, so that each
    // pack that backups find is condemned under their hands.
    let early: Vec<String> = (0..2).map(|_| scene.backup(HOSTS).0.0).collect();
    for id in &early {
        scene.on(HOSTS, &format!("-q forget {id}")).ok();
    }
    let pruned = Pruned::default();
    let taken = std::thread::scope(|scope| {
        scope.spawn(|| pruned.run(&scene));
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rounds(&scene, &pruned)));
        // Also after a panic, which would wait for the pruner.
        pruned.stop.store(true, Ordering::SeqCst);
        ended.unwrap_or_else(|e| std::panic::resume_unwind(e))
    });
    judge(&scene, &early, &taken);
    let sum = |field: &str| -> u64 { taken.iter().map(|(_, s)| s[field].as_u64().unwrap()).sum() };
    let (logical, stored) = (sum("total_bytes_processed"), scene.stored());
    let (prunes, packs) = (pruned.prunes.into_inner(), pruned.packs.into_inner());
    println!(
        "{HOSTS} hosts: {} living snapshots of {logical} bytes, {stored} are stored; {prunes} prunes deleted {packs} packs; {:.1} s",
        taken.len(),
        began.elapsed().as_secs_f32()
    );
    assert!(logical >= (HOSTS as u64 + 4) * COMMON / 2 * COMMON_SIZE as u64, "{logical}");
    assert!(prunes > 1 && packs > 0, "{prunes} prunes deleted {packs} packs: none was beside a backup");
    assert!(stored * 3 < logical, "{stored} bytes are stored of {logical}");
}

/// All that were acknowledged are there and restore, nothing else is, and every byte is sound.
fn judge(scene: &Scene, early: &[String], taken: &[(Taken, Value)]) {
    let listed = json(&scene.on(0, "-q --json snapshots").ok());
    let mut listed: Vec<&str> =
        listed.as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    let mut expected: Vec<&str> = taken.iter().map(|((id, ..), _)| id.as_str()).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected, "forgotten first were {early:?}");
    std::thread::scope(|scope| {
        for half in taken.chunks(taken.len() / 2) {
            scope.spawn(move || half.iter().for_each(|(t, _)| scene.restores(t)));
        }
    });
    let checked = scene.on(1, "check --read-data").ends(0).prints("no damage found");
    assert!(!checked.err.contains("warning"), "{}", checked.err);
    if scene.named {
        // Each backed up as a client of its own, and so did the one that had the repository first.
        assert_eq!(store(&scene.url).backend().list(Area::Clients).unwrap().len(), HOSTS + 1);
    }
}
