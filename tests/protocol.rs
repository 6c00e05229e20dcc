//! The writer's side of the prune protocol (SPEC 14): pins, marks, foreign packs, verdicts.

use crate::support::{backup, contents, copy_of, env, in_memory, noise, on_disk, open, populate};
use bulla_engine::Error;
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory, Put};
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::record::{Mark, Pin, RunKind};
use bulla_engine::format::snapshot::Verdict;
use bulla_engine::format::{Area, ObjectName, PackName, RunId};
use bulla_engine::repository::Repository;
use bulla_engine::repository::run::{ForeignPack, Run};

fn mark_all(repository: &Repository, memory: &bulla_engine::backend::Memory) -> Vec<PackName> {
    let victims: Vec<PackName> = memory
        .list(Area::Packs)
        .unwrap()
        .into_iter()
        .filter_map(|(n, _)| if let ObjectName::Pack(p) = n { Some(p) } else { None })
        .collect();
    let run = RunId::new([9; 16]);
    let mark = Mark { run, client: repository.client().id(), victims: victims.clone(), damaged: false };
    repository.put_object(&ObjectName::Mark(run), ObjectType::Mark, mark.encode()).unwrap();
    victims
}

#[test]
fn chunks_of_condemned_packs_are_stored_again() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let condemned = mark_all(&repository, &memory);
    // Another host's tree of the same data: nothing in common with the parent but chunks.
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("large"), copy.path().join("large")).unwrap();
    let snapshot = backup(&repository, copy.path()).unwrap().snapshot.unwrap();
    for pack in condemned {
        memory.overwrite(ObjectName::Pack(pack), None);
    }
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(copy.path()));
}

#[test]
fn a_dead_parent_is_no_donor() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, _) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let pin = Pin { snapshot: first.id, tree: first.tree };
    let (_run, dead) = Run::open(&repository, RunKind::Writer, &[pin]).unwrap();
    assert_eq!(dead, []);
    let death = bulla_engine::format::record::Death {
        snapshot: first.id,
        client: repository.client().id(),
        hash: repository.keyring().body_hash(&[]),
        body: vec![],
    };
    repository.put_object(&ObjectName::Death(first.id), ObjectType::Death, death.encode()).unwrap();
    let (_run, dead) = Run::open(&repository, RunKind::Writer, &[pin]).unwrap();
    assert_eq!(dead, [pin]);
    let second = backup(&repository, dir.path()).unwrap();
    assert_eq!(second.parent, None);
    assert!(second.statistics.read_bytes > 0);
}

#[test]
fn a_voided_run_cannot_commit_and_a_committed_one_cannot_be_voided() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("x"), noise("x", 100)).unwrap();
    let (repository, _) = in_memory();
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let void = |run| {
        let verdict = Verdict::Void { run, client: repository.client().id() };
        repository.put_object(&ObjectName::Verdict(run), ObjectType::Verdict, verdict.encode()).unwrap()
    };
    assert_eq!(void(snapshot.id), Put::Exists);
    let (run, _) = Run::open(&repository, RunKind::Writer, &[]).unwrap();
    assert_eq!(void(run.id()), Put::Created);
    let mut mine = snapshot.clone();
    mine.id = run.id();
    assert!(matches!(run.commit(mine), Err(Error::Voided { .. })));
    assert_eq!(repository.snapshots().unwrap(), [snapshot]);
}

#[test]
fn a_failed_run_takes_its_announcements_back_and_a_finished_one_leaves_none() {
    let (repository, memory) = in_memory();
    let dir = tempfile::tempdir().unwrap();
    assert!(backup(&repository, &dir.path().join("absent")).is_err());
    assert_eq!(memory.list(Area::Announcements).unwrap(), []);
    backup(&repository, dir.path()).unwrap();
    assert_eq!(memory.list(Area::Announcements).unwrap(), []);
    assert_eq!(memory.list(Area::Clients).unwrap().len(), 1);
}

#[test]
fn another_machine_continues_the_same_repository_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let mut other = env(8);
    other.machine = "other".into();
    let other = Repository::open(memory, &crate::support::secret(), other).unwrap();
    let second = backup(&other, dir.path()).unwrap();
    let snapshot = second.snapshot.unwrap();
    assert_ne!(snapshot.client, first.client);
    assert_eq!((snapshot.seq, snapshot.prev.len()), (1, 0), "a lineage of its own");
    assert_eq!(snapshot.seen, [first.id]);
    assert_eq!(second.statistics.data_chunks_new, 0);
}

#[test]
fn a_forged_death_kills_nothing() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    memory.overwrite(ObjectName::Death(first.id), Some(Vec::new()));
    assert!(repository.alive(&first.id).unwrap());
    let (alive, failed) = repository.readable_snapshots().unwrap();
    assert_eq!((alive.len(), failed.len()), (1, 1), "alive, and the forgery is reported");
}

#[test]
fn a_foreign_pack_that_was_cut_is_not_relied_on() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let (name, bytes) =
        memory.snapshot().into_iter().find(|(n, _)| matches!(n, ObjectName::Pack(_))).unwrap();
    let ObjectName::Pack(pack) = name else { unreachable!() };
    let foreign = ForeignPack { name: pack, kind: PackKind::Data, size: bytes.len() as u64 };
    let (run, _) = Run::open(&repository, RunKind::Writer, &[]).unwrap();
    assert_eq!(run.unreliable(&[foreign]).unwrap(), []);
    memory.overwrite(name, Some(bytes[..bytes.len() - 1].to_vec()));
    assert_eq!(run.unreliable(&[foreign]).unwrap(), [pack]);
    memory.overwrite(name, None);
    assert_eq!(run.unreliable(&[foreign]).unwrap(), [pack]);
}

/// The operations of a backup of `path`, in words, in order.
fn operations(base: &std::sync::Arc<Memory>, path: &std::path::Path) -> Vec<String> {
    let mut hits = Vec::new();
    for at in 0.. {
        let faulty = std::sync::Arc::new(Faulty::new(copy_of(base), at, Fault::Once));
        let _ = open(faulty.clone(), 3).and_then(|r| backup(&r, path));
        if !faulty.struck() {
            return hits;
        }
        hits.push(faulty.hit());
    }
    hits
}

#[test]
fn what_others_stored_is_made_durable_before_it_is_relied_on() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let settles = |hits: &[String]| hits.iter().position(|h| h.starts_with("settle"));
    assert_eq!(settles(&operations(&memory, dir.path())), None, "the parent vouches for all");
    std::fs::copy(dir.path().join("large"), dir.path().join("copy")).unwrap();
    let hits = operations(&memory, dir.path());
    let announced = hits.iter().rposition(|h| h.starts_with("put pend/"));
    assert!(settles(&hits).is_some() && settles(&hits) < announced, "{hits:?}");
}
