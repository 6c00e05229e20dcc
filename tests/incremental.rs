//! What a second backup reads and writes, by counted calls and bytes.

use crate::support::{backup, contents, in_memory, init, noise, on_disk, open, populate};
use bulla_engine::backend::Memory;
use bulla_engine::backend::testing::Recorder;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::observer::Silent;
use std::sync::Arc;

#[test]
fn a_backup_gives_back_what_is_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let report = backup(&repository, dir.path()).unwrap();
    let snapshot = report.snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
    let again = open(memory, 9).unwrap();
    assert_eq!(again.snapshots().unwrap(), [snapshot]);
    let all = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
    let clean = check::run(&again, &all, &Silent).unwrap();
    assert_eq!((clean.findings, clean.notices), (vec![], vec![]));
}

#[test]
fn an_unchanged_tree_is_not_read_and_costs_a_few_kilobytes_and_calls() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let recorder = Arc::new(Recorder::new(Arc::new(Memory::new())));
    let repository = init(recorder.clone());
    backup(&repository, dir.path()).unwrap();
    recorder.take();
    let second = backup(&repository, dir.path()).unwrap();
    let calls = recorder.take();
    assert_eq!(second.statistics.read_bytes, 0);
    assert_eq!(second.statistics.data_chunks_new, 0);
    assert_eq!(second.statistics.stored_bytes, 0, "{:?}", second.statistics);
    assert_eq!((second.statistics.files_new, second.statistics.files_changed), (0, 0));
    let puts: u64 = calls.iter().filter(|(k, _)| k.starts_with("put")).map(|(_, n)| n).sum();
    assert_eq!(puts, 2, "an announcement and the snapshot: {calls:?}");
    assert!(calls.values().sum::<u64>() < 30, "{calls:?}");
}

#[test]
fn a_changed_file_is_found_and_only_its_change_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, _) = in_memory();
    backup(&repository, dir.path()).unwrap();
    let mut large = noise("large", 400_000);
    large[200_000..200_004].copy_from_slice(b"edit");
    std::fs::write(dir.path().join("d2/noise"), noise("changed", 100)).unwrap();
    std::fs::write(dir.path().join("large"), large).unwrap();
    let report = backup(&repository, dir.path()).unwrap();
    assert_eq!(report.statistics.files_changed, 3, "the file, and both names of the large one");
    assert!(report.statistics.data_bytes_new < 40_000, "{:?}", report.statistics);
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
}

#[test]
fn moved_and_copied_files_store_no_new_data() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, _) = in_memory();
    backup(&repository, dir.path()).unwrap();
    std::fs::rename(dir.path().join("d3"), dir.path().join("moved")).unwrap();
    std::fs::copy(dir.path().join("large"), dir.path().join("copy")).unwrap();
    let report = backup(&repository, dir.path()).unwrap();
    assert_eq!(report.statistics.data_chunks_new, 0);
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
}

#[test]
fn a_vanished_tree_leaves_the_old_snapshot_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, _) = in_memory();
    let before = on_disk(dir.path());
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    std::fs::remove_dir_all(dir.path().join("d1")).unwrap();
    std::fs::write(dir.path().join("d2"), b"").unwrap_err();
    let second = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &first).unwrap(), before);
    assert_eq!(contents(&repository, &second).unwrap(), on_disk(dir.path()));
    assert_eq!((second.parent, second.seq, second.prev[0].id), (Some(first.id), first.seq + 1, first.id));
}
