//! A store with holes: what the parent has is not what the store has any more. A new backup is whole all the same.

use crate::support::{backup, contents, in_memory, noise, on_disk, options, populate, source};
use bulla_engine::backend::Memory;
use bulla_engine::backup;
use bulla_engine::format::ObjectName;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::observer::Silent;

fn each(memory: &Memory, of: impl Fn(&ObjectName) -> bool, how: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    let hit: Vec<_> = memory.snapshot().into_iter().filter(|(n, _)| of(n)).collect();
    assert!(!hit.is_empty());
    for (name, bytes) in hit {
        memory.overwrite(name, how(bytes));
    }
}

/// A backup, harm to the store, another backup of the unchanged source: it must restore whole.
fn heals(of: impl Fn(&ObjectName) -> bool, how: impl Fn(Vec<u8>) -> Option<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    each(&memory, of, how);
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

fn cut(mut bytes: Vec<u8>) -> Option<Vec<u8>> {
    bytes.truncate(bytes.len() / 2);
    Some(bytes)
}

#[test]
fn lost_or_damaged_index_runs() {
    heals(|n| matches!(n, ObjectName::Index(_)), |_| None);
    heals(|n| matches!(n, ObjectName::Index(_)), cut);
}

#[test]
fn lost_or_cut_data_packs() {
    heals(|n| matches!(n, ObjectName::Pack(_)), |_| None);
    heals(|n| matches!(n, ObjectName::Pack(_)), cut);
}

#[test]
fn lost_or_cut_or_damaged_metadata_packs() {
    heals(|n| matches!(n, ObjectName::Meta(_)), |_| None);
    heals(|n| matches!(n, ObjectName::Meta(_)), cut);
    let flip = |mut b: Vec<u8>| {
        b[200] ^= 1;
        Some(b)
    };
    heals(|n| matches!(n, ObjectName::Meta(_)), flip);
}

#[test]
fn only_the_index_run_of_the_data_packs_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old"), noise("old", 50_000)).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let first: Vec<_> = memory.snapshot().into_keys().collect();
    // Every node of the second tree is in the second run, and so readable; the old file's chunks are not.
    std::fs::write(dir.path().join("new"), b"new").unwrap();
    backup(&repository, dir.path()).unwrap();
    each(&memory, |n| matches!(n, ObjectName::Index(_)) && first.contains(n), |_| None);
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_cut_pack_is_no_deduplication_target() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    each(&memory, |n| matches!(n, ObjectName::Pack(_)), cut);
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("large"), copy.path().join("large")).unwrap();
    let snapshot = backup(&repository, copy.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(copy.path()));
}

#[test]
fn a_chosen_time_does_not_hide_racy_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut env, _) = (crate::support::env(1), ());
    env.clock = bulla_engine::env::Env::system("m", "u").clock;
    let memory = std::sync::Arc::new(Memory::new());
    let made = bulla_engine::repository::Repository::init(
        memory,
        &crate::support::small(),
        &crate::support::secret(),
        env,
    );
    let repository = made.unwrap().repository;
    std::fs::write(dir.path().join("fresh"), b"fresh").unwrap();
    let later = Timestamp { seconds: repository.env().clock.now().seconds + 86_400, nanos: 0 };
    let chosen = backup::BackupOptions { time: Some(later), ..options() };
    backup::run(&repository, source(dir.path()), &chosen, &Silent).unwrap();
    let again = backup(&repository, dir.path()).unwrap();
    assert_eq!(
        again.statistics.read_bytes, 5,
        "written as the first backup began: it may have changed since"
    );
}

#[test]
fn a_damaged_cache_heals() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    // Enough chunks for an index of several pages: the first is looked at when the file is opened.
    std::fs::write(dir.path().join("many"), noise("many", 16 << 20)).unwrap();
    let memory = std::sync::Arc::new(Memory::new());
    crate::support::init(memory.clone());
    let open = |seed| {
        let mut env = crate::support::env(seed);
        env.cache = Some(cache.path().to_path_buf());
        let secret = crate::support::secret();
        bulla_engine::repository::Repository::open(memory.clone(), &secret, env).unwrap()
    };
    backup(&open(20), dir.path()).unwrap();
    open(21).open_index().unwrap();
    let index = cache.path().join(open(22).id().to_string()).join("index");
    let file = std::fs::read_dir(index).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[70_000..90_000].iter_mut().for_each(|b| *b ^= 1);
    std::fs::write(&file, bytes).unwrap();
    std::fs::write(dir.path().join("new"), noise("new", 900_000)).unwrap();
    // The first to meet it may fail; it says why, and the next must not.
    drop(backup(&open(23), dir.path()));
    let snapshot = backup(&open(24), dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&open(25), &snapshot).unwrap(), on_disk(dir.path()));
}
