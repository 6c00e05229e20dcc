//! A first backup of more chunks than one index run takes: what was put in a run is forgotten in memory, and known all the
//! same.

use crate::support::{backup, contents, env, noise, on_disk, options, secret, source};
use bulla_engine::backend::Memory;
use bulla_engine::backup::{self, BackupReport};
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository};
use std::path::Path;
use std::sync::Arc;

/// Chunks of 256 bytes on average.
fn repository(cache: Option<&Path>) -> Repository {
    let chunker = ChunkerParams { min: 64, avg: 256, max: 1 << 10 };
    let options = InitOptions { chunker, ..InitOptions::default() };
    let mut env = env(1);
    env.cache = cache.map(Path::to_path_buf);
    Repository::init(Arc::new(Memory::new()), &options, &secret(), env).unwrap().repository
}

fn chunks(report: &BackupReport) -> (u64, u64) {
    (report.statistics.data_chunks_new, report.statistics.data_chunks_known)
}

#[test]
fn chunks_of_runs_that_were_put_are_not_stored_again() {
    let (dir, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bytes = noise("large", 40 << 20);
    std::fs::write(dir.path().join("1"), &bytes).unwrap();
    std::fs::write(dir.path().join("2"), &bytes).unwrap();
    // Other beginnings, the same rest: found in the runs of before, and in memory what is in none yet.
    std::fs::write(dir.path().join("3"), [noise("other", 1 << 20).as_slice(), &bytes[5000..]].concat())
        .unwrap();
    let cached = repository(Some(cache.path()));
    let report = backup(&cached, dir.path()).unwrap();
    let (new, known) = chunks(&report);
    let runs = cached.open_index().unwrap();
    // Two that were put meanwhile, and the last.
    assert!(runs.segments() >= 3, "{} index runs", runs.segments());
    assert!(new > 130_000 && known > 2 * (new - 5000), "{new} new, {known} known");
    // A node of the tree lists some forty chunks; were chunks stored twice, there would be as many records again.
    assert!((new..new + new / 20).contains(&runs.records()), "{} records of {new} chunks", runs.records());
    let same = repository(None);
    assert_eq!(chunks(&backup(&same, dir.path()).unwrap()), (new, known), "as if all were kept in memory");
    assert_eq!(contents(&cached, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
    // And nothing is new to the next one, be its parent there or not.
    let again = backup::Parent::None;
    let options = backup::BackupOptions { parent: again, ..options() };
    let report = backup::run(&cached, source(dir.path()), &options, &Silent).unwrap();
    assert_eq!(chunks(&report), (0, new + known));
}
