//! Editions: what is lost is named, the rest restores.

use super::*;
use crate::support::forget;
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::limits::NODE_SPLIT_MAX;
use bulla_engine::format::pack::HEADER_LEN;

/// Commits a snapshot with a chunk for its tree, whatever that is.
fn commit_tree(repository: &Repository, like: &Snapshot, plain: &[u8]) -> Snapshot {
    let ring = repository.keyring();
    let tree = ring.id_key(ring.domain(), ChunkKind::Meta).unwrap().identify(plain);
    commit_pack(repository, PackKind::Meta, tree, plain);
    let (run, _) = Run::open(repository, RunKind::Writer, &[]).unwrap();
    let id = run.id();
    run.commit(Snapshot { id, tree, ..like.clone() }).unwrap()
}

/// After borg #3444 and #1837: a repair threw away what its validator did not know.
#[test]
fn what_cannot_be_understood_is_not_taken_for_lost() {
    let (repository, memory, _dir, history) = histories();
    // A leaf with an entry of a kind that is to come.
    let strange = commit_tree(&repository, &history.alive[0].0, &[1, 1, 0, 0, 1, b'a', 99]);
    let before = names(&memory, &[Area::Verdicts]).len();
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    let report = snapshots::run(&repository, &options, &Silent).unwrap();
    let [damaged] = &report.damaged[..] else { panic!("{report:?}") };
    assert_eq!(damaged.id, strange.id);
    let Fate::Left(reason) = &damaged.fate else { panic!("{damaged:?}") };
    assert!(reason.contains("does not understand"), "{reason}");
    assert_eq!(names(&memory, &[Area::Verdicts]).len(), before);
}

/// After borg #1920: files rewritten empty, and every check passed; here what was restorable is compared byte by byte.
#[test]
fn an_edition_names_what_is_lost_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("lost"), noise("lost", 60_000)).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let victims = names(&memory, &[Area::Packs]);
    std::fs::write(dir.path().join("kept"), noise("kept", 60_000)).unwrap();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    for victim in victims {
        memory.overwrite(victim, None);
    }
    let before = restorable(&repository, &old);
    let dry = SnapshotsOptions { dry_run: true, ..SnapshotsOptions::default() };
    let objects = memory.snapshot();
    let report = snapshots::run(&repository, &dry, &Silent).unwrap();
    assert!(report.damaged.iter().all(|d| d.fate == Fate::Found) && memory.snapshot() == objects);
    let report = repair_snapshots(&repository);
    assert_eq!((report.checked, report.damaged.len()), (2, 2), "{report:?}");
    let fate = &report.damaged.iter().find(|d| d.id == old.id).unwrap().fate;
    let Fate::Edition(id) = fate else { panic!("{report:?}") };
    let all = alive(&repository);
    let edition = all.iter().find(|s| s.id == *id).unwrap();
    assert!(all.iter().any(|s| s.id == old.id), "the old one stays");
    assert_eq!((edition.origin, edition.start), (Some(old.id), old.start));
    assert_eq!((edition.host.clone(), edition.paths.clone()), (old.host.clone(), old.paths.clone()));
    let [(path, why)] = &edition.errors[..] else { panic!("{:?}", edition.errors) };
    assert!(path.ends_with(b"/lost") && why.contains("its content is lost"), "{why}");
    assert_eq!(restorable(&repository, edition), before);
    let lost = bulla_engine::repository::tree::TreeReader::find(
        &repository,
        &repository.open_index().unwrap(),
        edition.tree,
        &path[1..],
    );
    let lost = lost.unwrap().unwrap();
    assert!(lost.flags.read_error && lost.size() == 60_000, "path, size and metadata stay: {lost:?}");
    let again = repair_snapshots(&repository);
    assert!(again.damaged.iter().all(|d| matches!(d.fate, Fate::HadEdition(_))), "{again:?}");
    // The next backup reads the file again, whatever it compares with.
    let next = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &next).unwrap(), on_disk(dir.path()));
}

/// The frames of nodes, with their middles in their packs.
fn node_frames(repository: &Repository) -> Vec<(ObjectName, usize)> {
    let mut frames = Vec::new();
    for pack in repository.open_index().unwrap().packs().map(Result::unwrap) {
        if pack.header.kind != PackKind::Meta {
            continue;
        }
        let mut at = HEADER_LEN;
        for frame in &pack.frames {
            if frame.raw > 0 {
                frames.push((ObjectName::Meta(pack.name), at + frame.sealed as usize / 2));
            }
            at += frame.sealed as usize;
        }
    }
    frames
}

#[test]
fn a_lost_node_is_a_gap_and_what_lies_behind_it_has_directories_again() {
    let dir = tempfile::tempdir().unwrap();
    // Targets longer than one node takes, so that there are nodes beside the root wherever the splits fall.
    for d in 0..100 {
        let sub = dir.path().join(format!("directory number {d:03}/below"));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join("file"), format!("{d}")).unwrap();
        std::os::unix::fs::symlink("x".repeat(4000), sub.join("link")).unwrap();
    }
    const { assert!(100 * 4000 > NODE_SPLIT_MAX) };
    let (repository, memory) = in_memory();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let mut hit = 0;
    for (meta, at) in node_frames(&repository) {
        let memory = copy_of(&memory);
        flip(&memory, &meta, at);
        let repository = open(memory.clone(), 77).unwrap();
        let before = restorable(&repository, &old);
        let report = repair_snapshots(&repository);
        let [damaged] = &report.damaged[..] else { panic!("{report:?}") };
        if before.is_empty() {
            assert!(matches!(damaged.fate, Fate::Left(_)), "{damaged:?}");
            continue;
        }
        let Fate::Edition(id) = damaged.fate else { panic!("{damaged:?}") };
        assert!(damaged.gaps > 0);
        let edition = alive(&repository).into_iter().find(|s| s.id == id).unwrap();
        let after = restorable(&repository, &edition);
        assert!(before.iter().all(|(path, c)| after.get(path) == Some(c)));
        for path in after.keys() {
            let parent = path.iter().rposition(|b| *b == b'/').map_or(&b""[..], |at| &path[..at]);
            assert!(parent.is_empty() || after.contains_key(parent), "{}", String::from_utf8_lossy(path));
        }
        assert!(edition.errors.iter().any(|(p, _)| p.ends_with(b" and following")), "{damaged:?}");
        hit += 1;
    }
    assert!(hit >= 2, "the root and at least two leaves lie in frames of their own: {hit}");
}

/// Both the snapshot and its edition would die.
#[test]
fn an_edition_that_was_forgotten_is_no_edition() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = crate::support::in_memory();
    let old = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    memory.overwrite(names(&memory, &[Area::Packs])[0], None);
    let before = all_restorable(&repository);
    let report = snapshots::run(&repository, &SnapshotsOptions::default(), &Silent).unwrap();
    let Fate::Edition(edition) = report.damaged[0].fate else { panic!("{report:?}") };
    forget(&repository, &edition, true, "test").unwrap();
    let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
    let report = snapshots::run(&repository, &options, &Silent).unwrap();
    assert!(matches!(report.damaged[0].fate, Fate::Edition(_)), "{report:?}");
    prunes(&memory);
    assert!(alive(&repository).iter().all(|s| s.id != old.id && s.id != edition));
    assert_no_less(&before, &all_restorable(&repository), "after a new edition");
}
