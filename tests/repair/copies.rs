//! Healing from a copy of the repository, which may be older, younger, damaged or gone its own way.

use super::*;
use crate::beside::Interposed;
use crate::support::{env, interrupted, options, secret, small, source};
use bulla_engine::backup::{self, BackupOptions, Parent};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::prune::{MaxUnused, PruneOptions};
use bulla_engine::repository::InitOptions;

#[test]
fn a_copy_heals_packs_index_runs_and_snapshots() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    let last = history.alive.last().unwrap().0.id;
    for (n, name) in names(&memory, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 3 {
            0 => memory.overwrite(*name, None),
            1 => flip(&memory, name, 500),
            _ => {}
        }
    }
    memory.overwrite(ObjectName::Verdict(last), None);
    let report = heal(&repository, &copy);
    assert!(report.left.is_empty(), "{report:?}");
    assert!(report.put_back.contains(&ObjectName::Verdict(last).to_string()), "{report:?}");
    history.verify(&repository, "after healing from a copy");
    assert_eq!(findings(&repository), []);
    assert!(names(&memory, &[Area::Announcements]).is_empty());
    let again = heal(&repository, &copy);
    assert!(again.healed.is_empty() && again.put_back.is_empty(), "{again:?}");
}

#[test]
fn a_copy_brings_back_nothing_that_was_deleted_or_condemned() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    prune::run(&repository, &at_once(), &Silent).unwrap();
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let pruned = memory.snapshot();
    let report = heal(&repository, &copy);
    assert_eq!(memory.snapshot(), pruned, "an older copy has nothing for a healthy repository: {report:?}");
    let victim = names(&memory, &[Area::Packs])[0];
    let copy = copy_of(&memory);
    memory.overwrite(victim, None);
    mark(&repository, &[pack_of(&victim)], true);
    let report = heal(&repository, &copy);
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(!memory.snapshot().contains_key(&victim));
    drop(history);
}

#[test]
fn a_copy_that_was_pruned_for_itself_buries_nothing_here() {
    let (repository, memory, dir, history) = histories();
    let copy = copy_of(&memory);
    prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    let copied = backup(&open(copy.clone(), 41).unwrap(), dir.path()).unwrap().snapshot.unwrap();
    let report = heal(&repository, &copy);
    assert_eq!(findings(&repository), [], "{report:?}");
    history.verify(&repository, "after a copy with a history of its own");
    let came = alive(&repository).iter().any(|s| s.id == copied.id);
    assert!(!came || contents(&repository, &copied).is_ok(), "{report:?}");
}

#[test]
fn a_snapshot_whose_nodes_are_not_here_is_not_put_back() {
    let (repository, memory, _dir, history) = histories();
    let copy = copy_of(&memory);
    // The newest is lost, and a prune that does not know of it deletes what only it needed.
    let lost = history.alive[1].0.id;
    memory.overwrite(ObjectName::Verdict(lost), None);
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let report = heal(&repository, &copy);
    let object = ObjectName::Verdict(lost);
    assert!(report.left.iter().any(|(o, _)| *o == object.to_string()), "{report:?}");
    assert!(!memory.snapshot().contains_key(&object));
    prune::run(&repository, &at_once(), &Silent).unwrap();
    assert_eq!(contents(&repository, &history.alive[0].0).unwrap(), history.alive[0].1);
}

#[test]
fn only_a_copy_of_the_same_repository_heals() {
    let (repository, _memory, _dir, _) = histories();
    let other = Memory::new();
    let options = ReplicaOptions::default();
    assert!(replica::run(&repository, &other, &options, &Silent).is_err());
    let stranger = Arc::new(Memory::new());
    let made = Repository::init(
        stranger.clone(),
        &crate::support::small(),
        &crate::support::secret(),
        crate::support::env(4242),
    );
    made.unwrap();
    let error = replica::run(&repository, &*stranger, &options, &Silent).unwrap_err().to_string();
    assert!(error.contains("another repository") && error.contains("bulla copy"), "{error}");
}

/// The name proves that the bytes are those that were put, not that those were right.
#[test]
fn what_a_copy_has_is_verified_by_the_ids_of_its_chunks() {
    let (repository, memory, _dir, history) = histories();
    let wrong = repository.keyring();
    let wrong = wrong.id_key(wrong.domain(), ChunkKind::Data).unwrap().identify(b"what it should be");
    let packs = commit_pack(&repository, PackKind::Data, wrong, b"what it is");
    let name = ObjectName::Pack(packs[0]);
    let copy = copy_of(&memory);
    for damage in [None, Some(90)] {
        let memory = copy_of(&memory);
        if let Some(at) = damage {
            flip(&memory, &name, at);
        }
        let repository = open(memory.clone(), 9).unwrap();
        let report = heal(&repository, &copy);
        assert!(report.healed.is_empty() && report.put_back.is_empty(), "{report:?}");
        assert!(report.left.iter().any(|(object, _)| *object == name.to_string()), "{report:?}");
    }
    memory.overwrite(name, None);
    let report = heal(&repository, &copy);
    assert!(report.put_back.is_empty() && !memory.snapshot().contains_key(&name), "{report:?}");
    drop(history);
}

/// Every object of the copy is damaged in turn, and once all of them: nothing of that comes here.
#[test]
fn a_damaged_copy_brings_no_damage() {
    let world = World::history(None);
    let base = copy_of(&world.base);
    for (n, name) in names(&base, &[Area::Packs, Area::Meta, Area::Index]).iter().enumerate() {
        match n % 3 {
            0 => base.overwrite(*name, None),
            1 => flip(&base, name, 500),
            _ => {}
        }
    }
    base.overwrite(ObjectName::Verdict(world.alive[1].0.id), None);
    let before = all_restorable(&open(base.clone(), 6).unwrap());
    let objects: Vec<ObjectName> = names(&world.base, &Area::ALL);
    let truth = world.base.snapshot();
    assert!(objects.len() > 12);
    for bad in objects.iter().map(|n| vec![*n]).chain([objects.clone()]) {
        for kind in 0..3 {
            let (memory, copy) = (copy_of(&base), copy_of(&world.base));
            for name in &bad {
                // Authentic bytes under another name of the same kind, after borg's CVE-2016-10099 and CVE-2023-36811.
                let like = |n: &&ObjectName| n.area() == name.area() && *n != name;
                let other = objects.iter().find(like).map(|n| truth[n].clone());
                change(&copy, name, |bytes| match kind {
                    0 => {
                        let at = bytes.len() / 2;
                        bytes[at] ^= 1;
                    }
                    1 => bytes.truncate(bytes.len() / 2),
                    _ => *bytes = other.unwrap_or_default(),
                });
            }
            let context = format!("{} of the copy damaged, {}", bad.len(), bad[0]);
            let options = ReplicaOptions { read_data: true, dry_run: false };
            let _ = replica::run(&open(memory.clone(), 9).unwrap(), &*copy, &options, &Silent);
            assert_no_less(&before, &all_restorable(&open(memory.clone(), 6).unwrap()), &context);
            for (name, bytes) in memory.snapshot() {
                let old = base.snapshot().get(&name) == Some(&bytes);
                assert!(
                    old || truth.get(&name) == Some(&bytes),
                    "{context}: {name} is neither old nor right"
                );
            }
        }
    }
}

/// A copy that finished what was condemned here, for itself: its graves are none of this one.
#[test]
fn graves_of_a_copy_bury_nothing_here() {
    let (repository, memory, _dir, history) = histories();
    let packs: Vec<_> = names(&memory, &[Area::Packs, Area::Meta]).iter().map(pack_of).collect();
    for condemned in [false, true] {
        let memory = copy_of(&memory);
        let repository = open(memory.clone(), 30).unwrap();
        if condemned {
            mark(&repository, &packs, false);
        }
        let copy = copy_of(&memory);
        let before = names(&copy, &[Area::Packs, Area::Meta]);
        for _ in 0..2 {
            prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
        }
        // Its next merge puts graves and packs into one run. What it moved its chunks to is lost there.
        let graves = packs.clone();
        rewrite_index(&open(copy.clone(), 41).unwrap(), &copy, |run| run.graves.clone_from(&graves));
        for name in names(&copy, &[Area::Packs, Area::Meta]).into_iter().filter(|n| !before.contains(n)) {
            copy.overwrite(name, None);
        }
        let restorable = all_restorable(&repository);
        let report = heal(&repository, &copy);
        let context = format!("condemned: {condemned}, {report:?}");
        assert_no_less(&restorable, &all_restorable(&open(memory.clone(), 31).unwrap()), &context);
        history.verify(&open(memory.clone(), 32).unwrap(), &context);
    }
    drop(repository);
}

/// An older copy with a pack that was lost both here and there: what the index says of it must outlive the healing.
#[test]
fn a_pack_that_is_missing_here_is_not_buried_by_a_copy() {
    let (repository, memory, _dir, history) = histories();
    let older = copy_of(&memory);
    let copy = copy_of(&memory);
    for _ in 0..2 {
        prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    }
    for name in names(&memory, &[Area::Packs]) {
        memory.overwrite(name, None);
        copy.overwrite(name, None);
    }
    for name in names(&copy, &[Area::Packs]) {
        copy.overwrite(name, None);
    }
    heal(&repository, &copy);
    let report = heal(&repository, &older);
    history.verify(&open(memory, 33).unwrap(), &format!("after an older copy healed: {report:?}"));
}

/// A VOID ends a run, and whose run is alive only its own store's collectors may say.
#[test]
fn a_copy_does_not_end_runs_here() {
    let (repository, memory, dir, _) = histories();
    std::fs::write(dir.path().join("more"), noise("more", 20_000)).unwrap();
    interrupted(&repository, &memory, dir.path());
    let open_runs = names(&memory, &[Area::Announcements]);
    let copy = copy_of(&memory);
    prune::run(&open(copy.clone(), 40).unwrap(), &at_once(), &Silent).unwrap();
    let voids = names(&copy, &[Area::Verdicts]);
    heal(&repository, &copy);
    for name in &open_runs {
        let ObjectName::Announcement(run, _) = name else { continue };
        assert!(voids.contains(&ObjectName::Verdict(*run)), "the copy expired it");
        assert!(!memory.snapshot().contains_key(&ObjectName::Verdict(*run)), "{run} may still commit here");
    }
    // A VOID that was here and is lost comes back: a run that slept through it must not commit.
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let copy = copy_of(&memory);
    for name in &open_runs {
        let ObjectName::Announcement(run, _) = name else { continue };
        memory.overwrite(ObjectName::Verdict(*run), None);
        heal(&repository, &copy);
        assert!(memory.snapshot().contains_key(&ObjectName::Verdict(*run)));
    }
}

/// Later backups take for granted that a living snapshot has what it refers to.
#[test]
fn a_snapshot_whose_content_was_deleted_is_not_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let name = |d: usize| format!("directory number {d:04}");
    for d in 0..1500 {
        let sub = dir.path().join(name(d));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join("x".repeat(200)), b"").unwrap();
    }
    std::fs::create_dir_all(dir.path().join("zz")).unwrap();
    std::fs::write(dir.path().join("zz/only"), noise("only", 200_000)).unwrap();
    // One pack for all nodes, so that those of the lost snapshot outlive it.
    let memory = Arc::new(Memory::new());
    let large = InitOptions { meta_pack: 4 << 20, ..small() };
    let repository = Repository::init(memory.clone(), &large, &secret(), env(1)).unwrap().repository;
    let lost = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let copy = copy_of(&memory);
    let verdict = ObjectName::Verdict(lost.id);
    memory.overwrite(verdict, None);
    // Shares nodes with the one that is lost, but not its content.
    let mut without = source(dir.path());
    let bulla_engine::source::Sources::Paths(paths) = &mut without else { panic!() };
    paths.paths = (0..1500).map(|d| dir.path().join(name(d)).to_str().unwrap().as_bytes().to_vec()).collect();
    backup::run(&repository, without, &options(), &Silent).unwrap();
    let unlimited = PruneOptions { max_unused: MaxUnused::Unlimited, ..at_once() };
    prune::run(&repository, &unlimited, &Silent).unwrap();
    let report = heal(&repository, &copy);
    println!("{report:?} {:?}", memory.snapshot().keys().map(ToString::to_string).collect::<Vec<_>>());
    let parent = if memory.snapshot().contains_key(&verdict) { Parent::Id(lost.id) } else { Parent::Auto };
    let with_parent = BackupOptions { parent, ..options() };
    let next = backup::run(&repository, source(dir.path()), &with_parent, &Silent).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &next).unwrap(), on_disk(dir.path()), "{report:?}");
    assert_eq!(findings(&repository), [], "{report:?}");
}

/// A snapshot that a copy brings back is not the run's that keeps it meanwhile: a prune that takes the run for dead must
/// not leave a root without its data.
#[test]
fn a_prune_beside_a_snapshot_that_comes_back() {
    let world = World::history(None);
    let (newest, expected) = world.alive[1].clone();
    let base = copy_of(&world.base);
    let verdict = ObjectName::Verdict(newest.id);
    base.overwrite(verdict, None);
    let whole = ReplicaOptions::default();
    let (mut back, mut left) = (0, 0);
    for at in 0.. {
        let (memory, copy) = (copy_of(&base), copy_of(&world.base));
        let other = memory.clone();
        let store = Interposed::new(memory.clone(), at, move || prunes(&other));
        let context = format!("prunes before request {at} of healing a snapshot");
        let report = open(store.clone(), 70).and_then(|r| replica::run(&r, &*copy, &whole, &Silent));
        let report = report.unwrap_or_else(|e| panic!("{context}: {e}"));
        let repository = open(memory.clone(), 71).unwrap();
        if memory.snapshot().contains_key(&verdict) {
            assert_eq!(contents(&repository, &newest).unwrap(), expected, "{context}: {report:?}");
            back += 1;
        } else {
            assert!(!report.left.is_empty(), "{context}: {report:?}");
            left += 1;
        }
        prune::run(&repository, &at_once(), &Silent).unwrap_or_else(|e| panic!("I5: {context}: {e}"));
        let next = backup(&repository, world.path()).unwrap().snapshot.unwrap();
        assert_eq!(contents(&repository, &next).unwrap(), on_disk(world.path()), "{context}");
        if !store.struck() {
            break;
        }
    }
    println!("{back} came back, {left} did not");
    assert!(back > 2 && left > 2);
}
