//! No nonce and no salt is used twice: every object that any verb ever stored is looked at, also those that are gone.
//! Frames are sealed under a key of their pack, which depends on the pack's salt, with counters for nonces; so a salt that
//! is new makes all of them new.

use crate::passing::passes_on;
use crate::support::forget;
use crate::support::{backup, noise, options, secret, small, source};
use bulla_engine::backend::{self, Backend, Memory, Put};
use bulla_engine::backup::{self as backups, BackupOptions};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::env::Env;
use bulla_engine::forget::{protect, undelete};
use bulla_engine::format::envelope::Header;
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::pack::{PackHeader, TRAILER_LEN, Trailer};
use bulla_engine::format::slot::{Argon2Params, SlotKind};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repair::index::{self, IndexOptions};
use bulla_engine::repository::{Repository, SlotSecret, keys};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Keeps all that was ever put.
#[derive(Default)]
struct Keeper {
    inner: Memory,
    all: Mutex<BTreeSet<(ObjectName, Vec<u8>)>>,
}

impl Backend for Keeper {
    passes_on!(describe conditional_put flush get get_range list stat delete heal);
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> backend::Result<Put> {
        self.all.lock().unwrap().insert((*name, parts.concat()));
        self.inner.put(name, parts)
    }
}

fn env() -> Env {
    let mut env = Env::system("test-machine", "tester");
    env.width = 2;
    env
}

fn open(store: &Arc<Keeper>) -> Repository {
    Repository::open(store.clone(), &secret(), env()).unwrap()
}

/// Every verb that stores something, some of them often.
fn all_verbs(store: &Arc<Keeper>, path: &Path) {
    let repository = Repository::init(store.clone(), &small(), &secret(), env()).unwrap().repository;
    let prune_now =
        PruneOptions { grace: 0, run_expiry: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
    let often = BackupOptions { checkpoint: Duration::ZERO, ..options() };
    for round in 0..12 {
        std::fs::write(path.join("changes"), noise(&format!("{round}"), 150_000)).unwrap();
        std::fs::write(path.join("text"), "the same words ".repeat(900 * (round + 1))).unwrap();
        let first = backups::run(&open(store), source(path), &often, &Silent).unwrap().snapshot.unwrap();
        // Nothing has changed, and the bodies of all small objects are nearly those of the last time.
        let same = backup(&open(store), path).unwrap().snapshot.unwrap();
        assert!(forget(&open(store), &same.id, round > 0, "test").unwrap());
        if round % 2 == 1 {
            assert!(forget(&open(store), &first.id, true, "test").unwrap());
        }
        if round == 0 {
            let back = undelete(&open(store), &same.id).unwrap();
            protect(&open(store), &back.id, "test").unwrap();
        }
        prune::run(&open(store), &prune_now, &Silent).unwrap();
    }
    let spare = SlotSecret::Key(Secret::new([9; 32]));
    let added = keys::add(&repository, SlotKind::KeyFile, &spare, "spare", Argon2Params::DEFAULT).unwrap();
    keys::remove(&repository, &added).unwrap();
    let record = CheckOptions { read_data: ReadData::All, record: true, ..CheckOptions::default() };
    assert_eq!(check::run(&open(store), &record, &Silent).unwrap().findings, []);
    for (name, _) in store.list(Area::Index).unwrap() {
        store.delete(&name).unwrap();
    }
    index::run(&open(store), &IndexOptions::default(), &Silent).unwrap();
}

/// What a store may show once only, by the key it is used with.
#[derive(Default)]
struct Once(BTreeMap<(&'static str, Vec<u8>), String>);

impl Once {
    fn see(&mut self, key: &'static str, used: &[u8], place: &ObjectName) {
        if let Some(before) = self.0.insert((key, used.to_vec()), place.to_string()) {
            panic!("{key} of {before} is used again in {place}");
        }
    }

    fn count(&self, key: &str) -> usize {
        self.0.keys().filter(|(k, _)| *k == key).count()
    }

    fn pack(&mut self, name: &ObjectName, bytes: &[u8], repository: &Repository) {
        let header = PackHeader::decode(bytes).unwrap();
        self.see("pack salt", &header.salt, name);
        let at = bytes.len() - TRAILER_LEN;
        let trailer = &bytes[at..];
        let (ring, repo) = (repository.keyring(), repository.id());
        let offset = Trailer::open(trailer, bytes.len() as u64, ring, &repo).unwrap().offset as usize;
        // One key for all directories and trailers of an epoch.
        self.see("directory nonce", &bytes[offset..offset + 24], name);
        self.see("directory nonce", &trailer[84..108], name);
    }

    fn object(&mut self, ty: ObjectType, name: &ObjectName, bytes: &[u8]) {
        let (_, nonce) = Header::decode(ty, bytes).unwrap();
        self.see(ty.context(), &bytes[nonce..nonce + 24], name);
    }

    fn slot(&mut self, name: &ObjectName, bytes: &[u8]) {
        self.see("slot salt", &bytes[22..54], name);
        self.see("slot nonce", &bytes[86..110], name);
    }
}

#[test]
fn none_is_used_twice_by_all_verbs_together() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Keeper::default());
    all_verbs(&store, dir.path());
    let repository = open(&store);
    let mut once = Once::default();
    for (name, bytes) in store.all.lock().unwrap().iter() {
        let ty = match name.area() {
            Area::Packs | Area::Meta => {
                once.pack(name, bytes, &repository);
                continue;
            }
            Area::Keys => {
                once.slot(name, bytes);
                continue;
            }
            Area::Config => ObjectType::Config,
            Area::Index => ObjectType::Index,
            Area::Announcements => ObjectType::Announcement,
            Area::Verdicts => ObjectType::Verdict,
            Area::Deaths => ObjectType::Death,
            Area::Marks => ObjectType::Mark,
            Area::Holds => ObjectType::Hold,
            Area::Clients => ObjectType::Client,
            Area::Records => ObjectType::Record,
            Area::Forgets => ObjectType::Forget,
            Area::Parity => continue,
        };
        once.object(ty, name, bytes);
    }
    for (key, least) in [
        ("pack salt", 20),
        ("directory nonce", 40),
        ("slot salt", 2),
        ("config", 1),
        ("index run", 5),
        ("announcement", 10),
        ("snapshot", 6),
        ("death", 3),
        ("mark", 2),
        ("hold", 1),
        ("forget", 3),
        ("record", 1),
    ] {
        assert!(once.count(key) >= least, "{} of {key}", once.count(key));
    }
}
