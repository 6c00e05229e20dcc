//! Stores that only take additions: writers need create, get and list, and nothing of what they put is lost.
//!
//! `backends/APPEND_ONLY.md` says what follows for whoever sets one up; its policies are tested as they stand there.

use super::servers::{KEY, RestServer, S3, Version, store, store_as};
use crate::passing::passes_on;
use crate::support::{
    backup, contents, copy_of, env, in_memory, noise, on_disk, open, options, populate, secret, small, source,
};
use bulla_engine::Error;
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, BackendError, Memory, Result};
use bulla_engine::backup::{self as verb, BackupOptions};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::retain::{self, LockMode, Retention};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A store that denies every delete and every replacement.
struct AddOnly<B: ?Sized> {
    /// It denies only what would take effect, so that a prune learns of it late.
    late: bool,
    denied: AtomicU64,
    inner: Arc<B>,
}

impl<B: Backend + ?Sized> AddOnly<B> {
    fn new(inner: Arc<B>) -> Self {
        Self { late: false, denied: AtomicU64::new(0), inner }
    }

    fn deny<T>(&self, verb: &'static str, name: &ObjectName) -> Result<T> {
        self.denied.fetch_add(1, Ordering::Relaxed);
        let source = std::io::Error::new(std::io::ErrorKind::PermissionDenied, "403 Forbidden");
        Err(BackendError::Denied { verb, object: name.to_string(), place: self.describe().place, source })
    }
}

impl<B: Backend + ?Sized> Backend for AddOnly<B> {
    passes_on!(describe conditional_put put flush get get_range list stat);
    fn delete(&self, name: &ObjectName) -> Result<()> {
        if self.late && self.inner.stat(name)?.is_none() {
            return Ok(());
        }
        self.deny("delete", name)
    }
    fn heal(&self, name: &ObjectName, _: &[&[u8]]) -> Result<()> {
        self.deny("replace", name)
    }
}

/// Snapshots that were acknowledged, with what they must restore to.
type Acknowledged = Vec<(Snapshot, BTreeMap<String, String>)>;

fn prune_all() -> PruneOptions {
    PruneOptions { grace: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() }
}

/// All snapshots are listed and restore, and a check that reads everything finds nothing.
fn sound(store: &Arc<dyn Backend>, acknowledged: &Acknowledged, context: &str) {
    let repository = open(store.clone(), 77).unwrap();
    let listed = repository.snapshots().unwrap();
    for (snapshot, expected) in acknowledged {
        assert!(listed.iter().any(|s| s.id == snapshot.id), "{context}: one is not listed");
        assert_eq!(&contents(&repository, snapshot).unwrap(), expected, "{context}");
    }
    let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, [], "{context}");
}

/// Writes files anew and restores them into a directory.
fn restores(store: &Arc<dyn Backend>, snapshot: &Snapshot, dir: &Path) {
    let (repository, target) = (open(store.clone(), 78).unwrap(), tempfile::tempdir().unwrap());
    let whole = target.path().join("whole");
    restore::run(&repository, snapshot, b"", &whole, &RestoreOptions::default(), &Silent).unwrap();
    let shown = dir.strip_prefix("/").unwrap();
    for file in ["large", "d3/noise", "d2/deep/f7.txt"] {
        let (there, here) = (whole.join(shown).join(file), dir.join(file));
        assert!(std::fs::read(there).unwrap() == std::fs::read(here).unwrap(), "{file}");
    }
}

/// Init, backup, changes, backup: by who may only add.
fn two_backups(store: &Arc<dyn Backend>, dir: &Path) -> Acknowledged {
    populate(dir);
    let repository = Repository::init(store.clone(), &small(), &secret(), env(1)).unwrap().repository;
    let first = (backup(&repository, dir).unwrap().snapshot.unwrap(), on_disk(dir));
    std::fs::write(dir.join("d1/noise"), noise("changed", 200_000)).unwrap();
    let repository = open(store.clone(), 2).unwrap();
    let second = (backup(&repository, dir).unwrap().snapshot.unwrap(), on_disk(dir));
    restores(store, &second.0, dir);
    vec![first, second]
}

/// A prune of a store that takes no deletes: it says so and leaves all as it was.
fn prune_is_refused(store: &Arc<dyn Backend>) {
    let everything = || -> Vec<_> { Area::ALL.iter().flat_map(|area| store.list(*area).unwrap()).collect() };
    let before = everything();
    let repository = open(store.clone(), 5).unwrap();
    match prune::run(&repository, &prune_all(), &Silent) {
        Err(Error::Refused(text)) => {
            let says = |part: &str| assert!(text.contains(part), "{part:?} is not in: {text}");
            ["delete", "403", "nothing was changed"].iter().for_each(|part| says(part));
            says(&store.describe().place);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(), before);
}

#[test]
fn writers_do_without_deletes() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    let add_only = Arc::new(AddOnly::new(memory.clone()));
    let store: Arc<dyn Backend> = add_only.clone();
    let taken = two_backups(&store, dir.path());
    sound(&store, &taken, "two backups");
    assert!(add_only.denied.load(Ordering::Relaxed) >= 2, "announcements were to be deleted");
    assert!(!memory.list(Area::Announcements).unwrap().is_empty());
}

/// Cut off anywhere, and done again: nothing that was put is touched, and nothing that was acknowledged is lost.
#[test]
fn interrupted_backups_are_resumed_without_deletes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, base) = in_memory();
    populate(dir.path());
    let first = backup(&open(base.clone(), 2).unwrap(), dir.path()).unwrap().snapshot.unwrap();
    let first = (first, on_disk(dir.path()));
    for n in 0..30 {
        std::fs::write(dir.path().join(format!("new-{n}")), noise(&format!("new {n}"), 150_000)).unwrap();
    }
    let eager = BackupOptions { checkpoint: Duration::ZERO, ..options() };
    let (mut cuts, mut resumed) = (0, 0);
    for at in (0..).step_by(7) {
        let memory = copy_of(&base);
        let faulty = Arc::new(Faulty::new(memory.clone(), at, Fault::Forever));
        let cut: Arc<dyn Backend> = Arc::new(AddOnly::new(faulty.clone()));
        let ended = open(cut, 3).and_then(|r| verb::run(&r, source(dir.path()), &eager, &Silent));
        if !faulty.struck() {
            assert!(ended.unwrap().snapshot.is_some());
            break;
        }
        cuts += 1;
        let before = memory.snapshot();
        let store: Arc<dyn Backend> = Arc::new(AddOnly::new(memory.clone()));
        let report =
            verb::run(&open(store.clone(), 4).unwrap(), source(dir.path()), &eager, &Silent).unwrap();
        resumed += u64::from(report.statistics.read_bytes < 30 * 150_000);
        let after = memory.snapshot();
        assert!(before.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "cut at {at}");
        let second = (report.snapshot.unwrap(), on_disk(dir.path()));
        sound(&store, &vec![first.clone(), second], &format!("cut at {at}"));
    }
    println!("{cuts} cuts, {resumed} of them read less");
    assert!(cuts > 10 && resumed > 2, "{cuts} cuts, {resumed} read less");
}

#[test]
fn a_prune_without_deletes_is_refused_before_it_changes_anything() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    let store: Arc<dyn Backend> = Arc::new(AddOnly::new(memory.clone()));
    let mut taken = two_backups(&store, dir.path());
    let repository = open(store.clone(), 6).unwrap();
    assert!(crate::support::forget(&repository, &taken[0].0.id, true, "test").unwrap());
    prune_is_refused(&store);
    // To rehearse is allowed, and a forget is undone as long as nothing was pruned.
    let rehearsal = PruneOptions { dry_run: true, ..prune_all() };
    assert_eq!(prune::run(&repository, &rehearsal, &Silent).unwrap().died, [taken[0].0.id]);
    let edition = bulla_engine::forget::undelete(&repository, &taken[0].0.id).unwrap();
    taken[0].0 = edition;
    sound(&store, &taken, "after an undelete");
    // Who may delete prunes the same store, and takes the announcements along.
    let whole: Arc<dyn Backend> = memory.clone();
    prune::run(&open(whole.clone(), 7).unwrap(), &prune_all(), &Silent).unwrap();
    assert!(memory.list(Area::Announcements).unwrap().is_empty());
    sound(&whole, &taken, "after a prune");
}

/// Denied only when a delete would take effect: the prune fails in the middle, and leaves what an interrupted one leaves.
#[test]
fn a_prune_that_is_denied_late_loses_nothing() {
    let (dir, memory) = (tempfile::tempdir().unwrap(), Arc::new(Memory::new()));
    let whole: Arc<dyn Backend> = memory.clone();
    let mut taken = two_backups(&whole, dir.path());
    let gone = taken.remove(0).0;
    crate::support::forget(&open(whole.clone(), 6).unwrap(), &gone.id, true, "test").unwrap();
    let packs = memory.list(Area::Packs).unwrap();
    let late = Arc::new(AddOnly { late: true, ..AddOnly::new(memory.clone()) });
    for seed in 10..13 {
        let error = prune::run(&open(late.clone(), seed).unwrap(), &prune_all(), &Silent).unwrap_err();
        assert!(matches!(error, Error::Backend(BackendError::Denied { verb: "delete", .. })), "{error}");
        let now = memory.list(Area::Packs).unwrap();
        assert!(packs.iter().all(|p| now.contains(p)));
        sound(&whole, &taken, "a prune was denied");
    }
    for seed in 20..22 {
        prune::run(&open(whole.clone(), seed).unwrap(), &prune_all(), &Silent).unwrap();
    }
    assert!(packs.iter().any(|p| !memory.list(Area::Packs).unwrap().contains(p)), "nothing was deleted");
    sound(&whole, &taken, "a prune that was allowed");
}

#[test]
fn an_append_only_rest_server_takes_backups_and_refuses_a_prune() {
    let Some(server) = RestServer::start(true) else { return };
    let (opened, dir) = (store(&server.url()), tempfile::tempdir().unwrap());
    opened.prepare().unwrap();
    let store = opened.backend();
    let taken = two_backups(&store, dir.path());
    sound(&store, &taken, "two backups");
    crate::support::forget(&open(store.clone(), 6).unwrap(), &taken[0].0.id, true, "test").unwrap();
    prune_is_refused(&store);
    let error = store.delete(&store.list(Area::Packs).unwrap()[0].0).unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
    let edition = bulla_engine::forget::undelete(&open(store.clone(), 7).unwrap(), &taken[0].0.id).unwrap();
    let taken = vec![(edition, taken[0].1.clone()), taken[1].clone()];
    sound(&store, &taken, "after the refusal");
}

/// The code block behind a line of the document.
fn policy(behind: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../backends/APPEND_ONLY.md");
    let text = std::fs::read_to_string(path).unwrap();
    let (_, rest) = text.split_once(behind).expect("the line");
    let (_, rest) = rest.split_once("```json\n").unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// A key that may do what the document gives to writers, and one for the host that prunes.
#[test]
fn the_policies_of_the_document_are_enough_and_no_more() {
    let (writer, pruner) = (policy("Hosts that write"), policy("The host that prunes"));
    let Some(server) = S3::seaweed_with(&[("writer", &writer), ("pruner", &pruner)]) else { return };
    let (url, dir) = (server.url(), tempfile::tempdir().unwrap());
    let opened = store_as("writer", &url, &[]);
    opened.prepare().unwrap();
    let store = opened.backend();
    assert!(store.conditional_put().unwrap());
    let mut taken = two_backups(&store, dir.path());
    sound(&store, &taken, "two backups");
    let error = store.delete(&store.list(Area::Packs).unwrap()[0].0).unwrap_err();
    assert!(matches!(error, BackendError::Denied { .. }), "{error}");
    crate::support::forget(&open(store.clone(), 6).unwrap(), &taken[0].0.id, true, "test").unwrap();
    prune_is_refused(&store);
    let left = store.list(Area::Announcements).unwrap().len();
    assert!(left > 0, "a writer has deleted announcements");

    let pruner = store_as("pruner", &url, &[]).backend();
    let report = prune::run(&open(pruner.clone(), 8).unwrap(), &prune_all(), &Silent).unwrap();
    assert_eq!(report.died, [taken.remove(0).0.id]);
    assert!(report.deleted > 0 && pruner.list(Area::Announcements).unwrap().is_empty());
    sound(&store, &taken, "after the other host's prune");
}

/// Each version of an object stays for a day. A delete without a version's id hides the object behind a marker.
#[test]
fn in_a_bucket_with_object_lock_whatever_is_deleted_comes_back() {
    let Some(server) = S3::seaweed() else { return };
    let (url, dir) = (server.locked(), tempfile::tempdir().unwrap());
    let opened = store(&url);
    opened.prepare().unwrap();
    let store = opened.backend();
    assert!(store.conditional_put().unwrap());
    let mut taken = two_backups(&store, dir.path());
    sound(&store, &taken, "two backups");
    let pack = |v: &Version| v.key.contains("/packs/") || v.key.contains("/meta/");
    let before = server.versions();
    let put: Vec<Version> = before.iter().filter(|v| pack(v)).cloned().collect();
    assert!(put.len() > 3 && put.iter().all(|v| !v.marker), "{put:?} of {before:?}");
    for version in &put {
        assert_eq!(server.delete_version(version), 403, "{version:?} as {KEY}, who may do everything");
    }

    // A prune does its work: packs are hidden, what lives restores, and no version is gone.
    let gone = taken.remove(0).0;
    crate::support::forget(&open(store.clone(), 6).unwrap(), &gone.id, true, "test").unwrap();
    let report = prune::run(&open(store.clone(), 7).unwrap(), &prune_all(), &Silent).unwrap();
    assert!(report.deleted > 0 && report.died == [gone.id]);
    sound(&store, &taken, "after a prune");
    let versions = server.versions();
    assert!(before.iter().all(|v| versions.contains(v)), "the server has let go of a version");
    assert!(
        versions.iter().filter(|v| v.marker && v.key.contains("/packs/")).count() as u64 <= report.deleted
    );

    // Somebody deletes everything there is.
    let mut all = Area::ALL.iter().flat_map(|area| store.list(*area).unwrap());
    all.try_for_each(|(name, _)| store.delete(&name)).unwrap();
    assert!(!Repository::exists(&*store).unwrap());
    // Who looks after the bucket takes away the markers that came since, and nothing is lost.
    for marker in server.versions().iter().filter(|v| v.marker && !versions.contains(v)) {
        assert_eq!(server.delete_version(marker), 204, "{marker:?}");
    }
    sound(&store, &taken, "after everything was deleted");
    restores(&store, &taken[0].0, dir.path());
}

/// An object's lock begins with its put. What snapshots need is locked anew, what only a forgotten one needs is not, and
/// nobody can end the lock of either before its time.
#[test]
fn what_living_snapshots_need_is_retained_and_nothing_else() {
    const DAY: i64 = 24 * 3600;
    let Some(server) = S3::seaweed() else { return };
    let opened = store(&server.locked());
    opened.prepare().unwrap();
    let store = opened.backend();
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let taken = two_backups(&store, dir.path());
    let packs = || -> Vec<ObjectName> {
        [Area::Packs, Area::Meta].iter().flat_map(|a| store.list(*a).unwrap()).map(|(n, _)| n).collect()
    };
    let needed = packs();
    std::fs::write(other.path().join("passing"), noise("passing", 300_000)).unwrap();
    let repository = open(store.clone(), 3).unwrap();
    let gone = backup(&repository, other.path()).unwrap().snapshot.unwrap();
    crate::support::forget(&repository, &gone.id, true, "test").unwrap();
    let passing: Vec<ObjectName> = packs().into_iter().filter(|n| !needed.contains(n)).collect();
    assert!(needed.len() > 3 && passing.len() > 1);

    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64;
    let retained = |name: &ObjectName| server.retention(&format!("a/{name}")).unwrap();
    assert!(needed.iter().all(|n| retained(n).0 < now + 2 * DAY), "the bucket's own day");
    let until = now + 35 * DAY;
    let longer = Retention { mode: LockMode::Compliance, until };
    let repository = open(store.clone(), 4).unwrap();
    let would = retain::run(&repository, longer, true, &Silent).unwrap();
    assert!(needed.iter().all(|n| retained(n).0 < now + 2 * DAY), "a dry run changes nothing");
    let report = retain::run(&repository, longer, false, &Silent).unwrap();
    assert_eq!((report.objects, report.bytes, report.packs), (would.objects, would.bytes, would.packs));
    assert_eq!((report.snapshots, report.packs, report.lost_chunks), (2, needed.len() as u64, 0));
    assert!(needed.iter().all(|n| retained(n) == (until, "COMPLIANCE".to_owned())));
    assert!(passing.iter().all(|n| retained(n).0 < now + 2 * DAY), "what nobody needs was locked");
    for area in [Area::Config, Area::Keys, Area::Index, Area::Clients] {
        let listed = store.list(area).unwrap();
        assert!(!listed.is_empty() && listed.iter().all(|(n, _)| retained(n).0 == until), "{area:?}");
    }
    for (name, _) in store.list(Area::Verdicts).unwrap() {
        let alive = taken.iter().any(|(s, _)| name == ObjectName::Verdict(s.id));
        assert_eq!(retained(&name).0 == until, alive, "{name}");
    }
    let is_needed = |v: &&Version| needed.iter().any(|n| v.key == format!("a/{n}"));
    let versions = server.versions();
    assert_eq!(versions.iter().filter(is_needed).count(), needed.len());
    for version in versions.iter().filter(is_needed) {
        assert_eq!(server.delete_version(version), 403, "{version:?}");
    }
    // To ask for less changes nothing and is no failure.
    let shorter = Retention { mode: LockMode::Compliance, until: now + 2 * DAY };
    retain::run(&repository, shorter, false, &Silent).unwrap();
    assert!(needed.iter().all(|n| retained(n).0 == until));

    // A prune hides what only the forgotten one needed, and says that this frees nothing.
    let report = prune::run(&open(store.clone(), 5).unwrap(), &prune_all(), &Silent).unwrap();
    assert!(report.hidden && report.deleted >= passing.len() as u64);
    assert!(needed.iter().all(|n| retained(n).0 == until));
    sound(&store, &taken, "after a prune");
    // Where there is no object lock it is refused, and a prune frees.
    let plain = store_as(KEY, &server.url(), &[]);
    plain.prepare().unwrap();
    let plain = plain.backend();
    let third = tempfile::tempdir().unwrap();
    two_backups(&plain, third.path());
    match retain::run(&open(plain.clone(), 6).unwrap(), longer, false, &Silent) {
        Err(Error::Refused(text)) => assert!(text.contains("object lock"), "{text}"),
        other => panic!("{other:?}"),
    }
    let first = open(plain.clone(), 7).unwrap().snapshots().unwrap().remove(0);
    crate::support::forget(&open(plain.clone(), 7).unwrap(), &first.id, true, "test").unwrap();
    let report = prune::run(&open(plain, 8).unwrap(), &prune_all(), &Silent).unwrap();
    assert!(report.deleted > 0 && !report.hidden);
}
