//! Index runs made again from the packs.

use super::*;
use crate::faults::world::at_once;

#[test]
fn lost_and_forged_index_runs_are_made_good_from_the_packs() {
    let (repository, memory, _dir, history) = histories();
    let forged = forge(&memory);
    for name in names(&memory, &[Area::Index]) {
        if name != forged {
            memory.overwrite(name, None);
        }
    }
    let before = memory.snapshot();
    let dry = index::run(&repository, &IndexOptions { dry_run: true, ..IndexOptions::default() }, &Silent);
    assert_eq!(memory.snapshot(), before, "a dry run writes nothing");
    let report = repair_index(&repository);
    assert_eq!(report.listed.len() as u64, report.packs);
    assert_eq!(report.listed, dry.unwrap().listed);
    assert_eq!(report.removed, [forged.to_string()]);
    assert!(report.left.is_empty(), "{report:?}");
    history.verify(&repository, "after the index was made again");
    assert_eq!(findings(&repository), []);
    let again = repair_index(&repository);
    assert!(again.listed.is_empty() && again.removed.is_empty(), "{again:?}");
}

#[test]
fn condemned_packs_are_not_listed_again_and_a_run_stays_while_a_pack_cannot_be_listed() {
    let (repository, memory, _dir, _) = histories();
    let all = names(&memory, &[Area::Packs, Area::Meta]);
    mark(&repository, &[pack_of(&all[0])], false);
    change(&memory, &all[1], |bytes| bytes.truncate(bytes.len() - 1));
    let forged = forge(&memory);
    for name in names(&memory, &[Area::Index]).into_iter().filter(|n| *n != forged) {
        memory.overwrite(name, None);
    }
    let report = repair_index(&repository);
    assert!(!report.listed.contains(&all[0].to_string()), "{report:?}");
    assert!(report.left.iter().any(|(object, _)| *object == all[1].to_string()), "{report:?}");
    assert!(report.left.iter().any(|(object, _)| *object == forged.to_string()), "{report:?}");
    assert!(report.removed.is_empty() && memory.snapshot().contains_key(&forged), "{report:?}");
    memory.overwrite(all[1], None);
    assert_eq!(repair_index(&repository).removed, [forged.to_string()], "now all packs are listed");
}

#[test]
fn a_run_of_a_newer_format_is_not_removed() {
    let (repository, memory, _dir, _) = histories();
    // Whole by its name, with a magic of a version that is to come.
    let mut bytes = noise("newer", 32 << 10);
    let real = names(&memory, &[Area::Index])[0];
    bytes[..16].copy_from_slice(&memory.snapshot()[&real][..16]);
    bytes[5] += 1;
    let hash = *blake3::hash(&bytes).as_bytes();
    let newer = ObjectName::Index(IndexName { generation: 0, hash });
    memory.overwrite(newer, Some(bytes));
    let report = repair_index(&repository);
    assert!(report.removed.is_empty() && memory.snapshot().contains_key(&newer), "{report:?}");
    assert!(report.left.iter().any(|(object, why)| *object == newer.to_string() && why.contains("newer")));
}

/// After restic #21820: an index made anew lost entries of a pack that two index files listed in part.
#[test]
fn a_pack_that_two_runs_list_in_part_keeps_all_its_chunks() {
    let (repository, memory, _dir, history) = histories();
    let whole = memory.snapshot();
    rewrite_index(&repository, &memory, |run| {
        let mut at = 0;
        run.records.retain(|_| {
            at += 1;
            at % 2 == 0
        });
    });
    let half = memory.snapshot();
    // Both halves, in two runs: what the first has and what the other has.
    for (name, bytes) in &whole {
        memory.overwrite(*name, Some(bytes.clone()));
    }
    rewrite_index(&repository, &memory, |run| {
        let mut at = 0;
        run.records.retain(|_| {
            at += 1;
            at % 2 == 1
        });
    });
    let other = names(&memory, &[Area::Index]);
    for (name, bytes) in half.iter().filter(|(n, _)| n.area() == Area::Index) {
        memory.overwrite(*name, Some(bytes.clone()));
    }
    history.verify(&open(memory.clone(), 11).unwrap(), "two halves");
    let pruned = copy_of(&memory);
    prune::run(&open(pruned.clone(), 12).unwrap(), &at_once(), &Silent).unwrap();
    history.verify(&open(pruned, 13).unwrap(), "two halves, pruned and merged");
    // One half is lost: every pack is listed still, and not with all it has.
    for name in other {
        memory.overwrite(name, None);
    }
    let repository = open(memory.clone(), 14).unwrap();
    assert!(!findings(&repository).is_empty());
    let options = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    index::run(&repository, &options, &Silent).unwrap();
    history.verify(&open(memory, 15).unwrap(), "one half, repaired");
    assert_eq!(findings(&repository), []);
}

/// After borg's CVE-2016-10100: of two things with one name a rebuild kept the first it met.
#[test]
fn a_chunk_that_lies_in_two_packs_is_listed_at_both() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("file"), noise("file", 40_000)).unwrap();
    let (_, empty) = in_memory();
    let memory = copy_of(&empty);
    // Two backups that knew nothing of each other: every chunk lies in two packs.
    let mut taken = Vec::new();
    for seed in [11, 12] {
        let alone = copy_of(&empty);
        let snapshot = backup(&open(alone.clone(), seed).unwrap(), dir.path()).unwrap().snapshot.unwrap();
        taken.push((snapshot, names(&alone, &[Area::Packs, Area::Meta])));
        for (name, bytes) in alone.snapshot() {
            memory.overwrite(name, Some(bytes));
        }
    }
    for name in names(&memory, &[Area::Index]) {
        memory.overwrite(name, None);
    }
    repair_index(&open(memory.clone(), 13).unwrap());
    for (_, packs) in &taken {
        let memory = copy_of(&memory);
        for name in packs {
            memory.overwrite(*name, None);
        }
        let repository = open(memory, 14).unwrap();
        for (snapshot, _) in &taken {
            assert_eq!(contents(&repository, snapshot).unwrap(), on_disk(dir.path()), "from the other packs");
        }
    }
}

#[test]
fn an_index_that_points_elsewhere_is_corrected() {
    let (repository, memory, _dir, history) = histories();
    rewrite_index(&repository, &memory, |run| {
        for record in run.records.iter_mut().filter(|r| r.len > 1) {
            record.len -= 1;
        }
    });
    assert!(!findings(&repository).is_empty());
    assert!(repair_index(&repository).listed.is_empty(), "every pack is listed");
    let options = IndexOptions { read_all_packs: true, ..IndexOptions::default() };
    let report = index::run(&repository, &options, &Silent).unwrap();
    assert_eq!(report.listed.len() as u64, report.packs);
    history.verify(&repository, "after the index was corrected");
    assert_eq!(findings(&repository), []);
}
