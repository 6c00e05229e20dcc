//! Damaged packs: condemned, emptied of what opens, and stored again by the next backup.

use super::*;

#[test]
fn a_pack_that_only_its_lost_directory_could_explain_stays() {
    let (repository, memory, _dir, _) = histories();
    let victim = names(&memory, &[Area::Packs])[0];
    change(&memory, &victim, |bytes| {
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
    });
    let name = pack_of(&victim);
    // The index lost a chunk of it: nobody can say that nothing else is in it.
    rewrite_index(&repository, &memory, |run| {
        let of = |r: &bulla_engine::format::index::IndexRecord| run.packs[r.pack as usize].name == name;
        if let Some(at) = run.records.iter().position(of) {
            run.records.remove(at);
        }
    });
    let report = repair_packs(&repository);
    assert!(report.deleted.is_empty(), "{report:?}");
    assert_eq!(report.left.len(), 1, "{report:?}");
    assert!(memory.snapshot().contains_key(&victim));
}

/// Damage to packs, found, condemned; a backup of the unchanged source; then all is as it was, and a prune tidies up.
fn story(area: Area, harm: impl Fn(&Memory, &ObjectName)) {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    let victims = names(&memory, &[area]);
    let victim = victims[victims.len() / 2];
    harm(&memory, &victim);
    assert!(findings(&repository).iter().any(|f| f.object == victim.to_string()));
    let report = repair_packs(&repository);
    assert_eq!(report.damaged.len(), 1, "{report:?}");
    let second = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(findings(&repository), [], "{report:?}");
    for snapshot in [&first, &second] {
        assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()));
    }
    let pruned = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert!(pruned.left.is_empty(), "{pruned:?}");
    assert!(!names(&memory, &[area]).contains(&victim), "{pruned:?}");
    assert_eq!(findings(&repository), []);
    for snapshot in [&first, &second] {
        assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()));
    }
    let again = repair_packs(&repository);
    assert!(again.damaged.is_empty() && again.left.is_empty() && again.missing.is_empty(), "{again:?}");
}

#[test]
fn the_next_backup_heals_flipped_and_cut_packs() {
    for area in [Area::Packs, Area::Meta] {
        story(area, |memory, name| flip(memory, name, 1000));
        story(area, |memory, name| change(memory, name, |bytes| bytes.truncate(bytes.len() / 2)));
        // The header: nothing in it opens.
        story(area, |memory, name| flip(memory, name, 20));
    }
}

#[test]
fn nothing_new_relies_on_a_pack_marked_as_damaged() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    std::fs::File::options().append(true).open(dir.path().join("d1/noise")).unwrap().set_len(90_000).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let all = names(&memory, &[Area::Packs, Area::Meta]);
    // The repair was stopped right after the mark; all packs can be read still.
    mark(&repository, &all.iter().map(pack_of).collect::<Vec<_>>(), true);
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    for name in all {
        memory.overwrite(name, None);
    }
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_pack_without_a_directory_gives_what_it_has_by_the_index_and_goes() {
    let (repository, memory, _dir, history) = histories();
    for victim in names(&memory, &[Area::Packs, Area::Meta]) {
        change(&memory, &victim, |bytes| {
            let at = bytes.len() - 10;
            bytes[at] ^= 1;
        });
    }
    let report = repair_packs(&repository);
    assert_eq!(report.damaged.len() as u64, report.packs);
    assert_eq!(report.deleted.len() as u64, report.packs, "{report:?}");
    assert!(report.copied > 0 && report.left.is_empty(), "{report:?}");
    history.verify(&repository, "after all directories were lost");
    assert_eq!(findings(&repository), []);
}

#[test]
fn a_missing_pack_is_reported_and_given_up_only_by_name() {
    let (repository, memory, dir, history) = histories();
    let victim = names(&memory, &[Area::Packs])[0];
    memory.overwrite(victim, None);
    let before = names(&memory, &[Area::Marks]).len();
    let report = repair_packs(&repository);
    assert_eq!((report.missing, report.damaged), (vec![victim.to_string()], Vec::new()));
    assert_eq!(names(&memory, &[Area::Marks]).len(), before, "nothing was condemned");
    let options = PacksOptions { packs: vec![pack_of(&victim)], ..PacksOptions::default() };
    let report = packs::run(&repository, &options, &Silent).unwrap();
    assert_eq!(report.left.len(), 1, "its chunks are needed and nowhere else: {report:?}");
    assert!(findings(&repository).iter().all(|f| !f.hurts.is_empty()));
    // What the source still has comes back; the rest is named in editions of what lost it.
    backup(&repository, dir.path()).unwrap();
    let report = snapshots::run(
        &repository,
        &SnapshotsOptions { forget: true, ..SnapshotsOptions::default() },
        &Silent,
    );
    assert!(report.unwrap().damaged.iter().all(|d| d.forgotten));
    prune::run(&repository, &at_once(), &Silent).unwrap();
    let last = prune::run(&repository, &at_once(), &Silent).unwrap();
    assert!(last.left.is_empty(), "{last:?}");
    assert_eq!(findings(&repository), [], "a grave ends the search for it");
    assert!(packs::run(&repository, &options, &Silent).is_err(), "and nobody knows it any more");
    drop(history);
}

#[test]
fn a_whole_pack_is_not_condemned() {
    let (repository, memory, _dir, _) = histories();
    let name = names(&memory, &[Area::Packs])[0];
    let options = PacksOptions { packs: vec![pack_of(&name)], ..PacksOptions::default() };
    let report = packs::run(&repository, &options, &Silent).unwrap();
    assert_eq!((report.whole, report.damaged), (vec![name.to_string()], Vec::new()));
    assert!(names(&memory, &[Area::Marks]).is_empty());
}
