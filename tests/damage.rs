//! Damage × place: whatever byte of whatever object changes, `check` says so, and nothing panics.

use crate::support::{backup, contents, in_memory, noise, open};
use bulla_engine::backend::Memory;
use bulla_engine::check::{self, CheckOptions, CheckReport, ReadData};
use bulla_engine::format::envelope::ObjectType;
use bulla_engine::format::index::{IndexRecord, IndexRun};
use bulla_engine::format::{ClientId, IndexName, ObjectName};
use bulla_engine::observer::Silent;
use std::collections::BTreeMap;
use std::sync::Arc;

fn mini() -> (tempfile::TempDir, Arc<Memory>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("a"), b"hello hello hello").unwrap();
    std::fs::write(dir.path().join("b"), noise("b", 3000)).unwrap();
    let (repository, memory) = in_memory();
    backup(&repository, dir.path()).unwrap();
    (dir, memory)
}

fn read_all(memory: &Arc<Memory>) -> bulla_engine::Result<CheckReport> {
    let repository = open(memory.clone(), 5)?;
    check::run(&repository, &CheckOptions { read_data: ReadData::All, ..CheckOptions::default() }, &Silent)
}

fn noticed(memory: &Arc<Memory>) -> bool {
    read_all(memory).map_or(true, |report| !report.findings.is_empty())
}

/// Every bit of one byte in so many, phase-shifted per object so that over all objects every offset class is met; the
/// headers and tails, where structure is densest, bit by bit.
fn positions(len: usize) -> Vec<usize> {
    let dense = 0..len.min(160);
    let tail = len.saturating_sub(200).max(160)..len;
    let step = if std::env::var_os("BULLA_EXHAUSTIVE").is_some() { 1 } else { 97 };
    let mut all: Vec<usize> = dense.step_by(if step == 1 { 1 } else { 3 }).collect();
    all.extend((160..tail.start).step_by(step));
    all.extend(tail.step_by(if step == 1 { 1 } else { 5 }));
    all
}

#[test]
fn sampled_flips_are_noticed() {
    let (_dir, memory) = mini();
    assert!(!noticed(&memory));
    let mut flips = 0;
    for (name, bytes) in memory.snapshot() {
        for at in positions(bytes.len()) {
            let bit = if at % 2 == 0 { 1 } else { 0x80 };
            let mut bad = bytes.clone();
            bad[at] ^= bit;
            memory.overwrite(name, Some(bad));
            assert!(noticed(&memory), "{name} byte {at}");
            flips += 1;
        }
        memory.overwrite(name, Some(bytes));
    }
    assert!(flips > 1000, "{flips}");
    assert!(!noticed(&memory));
}

#[test]
fn every_missing_cut_or_swapped_object_is_noticed() {
    let (_dir, memory) = mini();
    let all = memory.snapshot();
    for (name, bytes) in &all {
        // Without announcements a repository is complete, and nobody can miss a certificate or a spare slot.
        let vital =
            !matches!(name, ObjectName::Announcement(..) | ObjectName::Client(_) | ObjectName::Slot(_));
        if vital && !matches!(name, ObjectName::Verdict(_)) {
            memory.overwrite(*name, None);
            assert!(noticed(&memory), "{name} missing");
        }
        for len in [0, 1, 13, bytes.len() / 2, bytes.len() - 1] {
            memory.overwrite(*name, Some(bytes[..len].to_vec()));
            assert!(noticed(&memory), "{name} cut to {len}");
        }
        for (other, strange) in all.iter().filter(|(o, _)| *o != name) {
            // A slot under another slot's name is a slot that was copied: it opens as it did.
            if matches!((name, other), (ObjectName::Slot(_), ObjectName::Slot(_))) {
                continue;
            }
            memory.overwrite(*name, Some(strange.clone()));
            assert!(noticed(&memory), "{name} replaced by {other}");
        }
        memory.overwrite(*name, Some(bytes.clone()));
    }
}

#[test]
fn a_lost_snapshot_is_missed_by_its_successors() {
    let (dir, memory) = mini();
    let repository = open(memory.clone(), 6).unwrap();
    let first = repository.snapshots().unwrap()[0].id;
    backup(&repository, dir.path()).unwrap();
    memory.overwrite(ObjectName::Verdict(first), None);
    let report = read_all(&memory).unwrap();
    assert!(report.findings.iter().any(|f| f.object.contains(&first.to_string())), "{:?}", report.findings);
}

#[test]
fn a_damaged_pack_is_named_with_the_paths_it_hurts_and_the_rest_reads() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, memory) = in_memory();
    let mut last = None;
    for f in 0..6 {
        std::fs::write(dir.path().join(format!("f{f}")), noise(&f.to_string(), 60_000)).unwrap();
        last = backup(&repository, dir.path()).unwrap().snapshot;
    }
    let snapshot = last.unwrap();
    let packs: Vec<_> =
        memory.snapshot().into_iter().filter(|(n, _)| matches!(n, ObjectName::Pack(_))).collect();
    assert!(packs.len() > 2);
    let (name, mut bytes) = packs[0].clone();
    // Within the first frame, not in the padding.
    bytes[1000] ^= 1;
    memory.overwrite(name, Some(bytes));
    let structure = check::run(&repository, &CheckOptions::default(), &Silent).unwrap();
    assert_eq!(structure.findings, [], "structure alone cannot see it");
    let report = read_all(&memory).unwrap();
    let finding = report.findings.iter().find(|f| f.object == name.to_string()).unwrap();
    assert!(!finding.hurts.is_empty());
    let hurt: Vec<_> = finding.hurts.iter().map(|(_, p)| p.clone()).collect();
    let mut good = BTreeMap::new();
    for f in 0..6 {
        let path = dir.path().join(format!("f{f}"));
        let path = path.to_str().unwrap().as_bytes();
        let mut out = Vec::new();
        let read = bulla_engine::browse::write_file(&repository, &snapshot, &path[1..], &mut out);
        assert_eq!(read.is_err(), hurt.contains(&path.to_vec()), "f{f}");
        good.insert(f, read.is_ok());
    }
    assert!(good.values().any(|g| *g) && good.values().any(|g| !*g));
    assert!(contents(&repository, &snapshot).is_err());
}

/// Puts one index run in place of all, in which something is changed.
fn relist(memory: &Arc<Memory>, change: impl FnOnce(&mut Vec<IndexRecord>)) {
    let repository = open(memory.clone(), 8).unwrap();
    let names: Vec<_> = memory.snapshot().into_keys().filter(|n| matches!(n, ObjectName::Index(_))).collect();
    let mut wrong = IndexRun::new(ClientId::new(*repository.client().id().as_bytes()));
    for name in names {
        let run = IndexRun::decode(&repository.get_object(&name, ObjectType::Index).unwrap().0).unwrap();
        wrong.packs = run.packs;
        wrong.records = run.records;
        memory.overwrite(name, None);
    }
    change(&mut wrong.records);
    let strange = ObjectName::Index(IndexName { generation: 0, hash: [1; 32] });
    repository.put_object(&strange, ObjectType::Index, wrong.encode()).unwrap();
    let bytes = memory.snapshot().remove(&strange).unwrap();
    memory.overwrite(strange, None);
    let hash = *blake3::hash(&bytes).as_bytes();
    memory.overwrite(ObjectName::Index(IndexName { generation: 0, hash }), Some(bytes));
}

/// The chunk of `a` has 17 bytes, and no other has.
fn is_of_a(record: &IndexRecord) -> bool {
    record.len == 17
}

#[test]
fn an_index_run_that_points_elsewhere_is_noticed() {
    let (_dir, memory) = mini();
    relist(&memory, |records| records.iter_mut().filter(|r| is_of_a(r)).for_each(|r| r.offset += 1));
    let report = read_all(&memory).unwrap();
    assert!(report.findings.iter().any(|f| f.reason.contains("wrong place")), "{:?}", report.findings);
    assert!(report.findings.iter().any(|f| !f.hurts.is_empty()), "{:?}", report.findings);
}

/// Chunks are looked up many at once; of one that is not where it should be the file is told all the same, and no other.
#[test]
fn without_reading_data_a_chunk_that_is_not_listed_as_it_should_be_is_named_with_its_file() {
    let (dir, memory) = mini();
    let path = dir.path().join("a").to_str().unwrap().as_bytes().to_vec();
    let sound = memory.snapshot();
    let structure = || {
        let repository = open(memory.clone(), 9).unwrap();
        check::run(&repository, &CheckOptions::default(), &Silent).unwrap().findings
    };
    type Change = fn(&mut Vec<IndexRecord>);
    let changes: [(&str, Change); 2] = [
        ("no index run lists it", |records| records.retain(|r| !is_of_a(r))),
        ("holds chunk", |records| records.iter_mut().filter(|r| is_of_a(r)).for_each(|r| r.len -= 1)),
    ];
    for (reason, change) in changes {
        assert_eq!(structure(), []);
        relist(&memory, change);
        let findings = structure();
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert!(finding.reason.contains(reason), "{finding:?}");
        let hurt: Vec<_> = finding.hurts.iter().map(|(_, path)| path.clone()).collect();
        assert_eq!(hurt, [&path[..]]);
        memory.snapshot().into_keys().for_each(|name| memory.overwrite(name, sound.get(&name).cloned()));
        sound.iter().for_each(|(name, bytes)| memory.overwrite(*name, Some(bytes.clone())));
    }
}
