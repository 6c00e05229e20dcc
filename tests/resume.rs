//! An interrupted backup is continued: nothing is put twice, and what its checkpoint covers is not read again.

use crate::support::{contents, copy_of, env, in_memory, noise, on_disk, open, options, source};
use bulla_engine::backend::testing::{Fault, Faulty};
use bulla_engine::backend::{Backend, Memory};
use bulla_engine::backup::{self, BackupOptions, BackupReport};
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const FILES: usize = 42;
const SIZE: usize = 300_000;
const TOTAL: u64 = (FILES * SIZE) as u64;

/// Enough for several batches, and for more than a dozen packs.
fn populate(dir: &Path) {
    for n in 0..FILES {
        std::fs::create_dir_all(dir.join(format!("d{}", n % 6))).unwrap();
        std::fs::write(dir.join(format!("d{}/f{n}", n % 6)), noise(&n.to_string(), SIZE)).unwrap();
    }
}

fn eager() -> BackupOptions {
    BackupOptions { checkpoint: Duration::ZERO, ..options() }
}

fn run(repository: &Repository, dir: &Path) -> bulla_engine::Result<BackupReport> {
    backup::run(repository, source(dir), &eager(), &Silent)
}

fn announced(memory: &Memory) -> usize {
    memory.list(Area::Announcements).unwrap().len()
}

/// Killed at operation `at`: nothing after it happens, announcements included.
fn killed(base: &Arc<Memory>, dir: &Path, at: u64) -> Option<Arc<Memory>> {
    let memory = copy_of(base);
    let faulty = Arc::new(Faulty::new(memory.clone(), at, Fault::Forever));
    let outcome = open(faulty.clone(), 3).and_then(|r| run(&r, dir));
    assert!(faulty.struck() || outcome.is_ok());
    faulty.struck().then_some(memory)
}

/// Killed when most of it was announced, and nothing was committed.
fn half_done(base: &Arc<Memory>, dir: &Path) -> Arc<Memory> {
    let states = (0..).step_by(5).map_while(|at| killed(base, dir, at));
    let open = states.filter(|m| m.list(Area::Verdicts).unwrap().is_empty());
    open.max_by_key(|m| announced(m)).unwrap()
}

#[test]
fn wherever_it_was_killed_the_next_run_goes_on_and_puts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (_, base) = in_memory();
    let expected = on_disk(dir.path());
    let (mut states, mut read_less) = (0, 0);
    for at in (0..).step_by(3) {
        let Some(memory) = killed(&base, dir.path(), at) else { break };
        states += 1;
        let context = format!("killed at {at}");
        let repository = open(memory.clone(), 4).unwrap();
        let report = run(&repository, dir.path()).unwrap();
        let snapshot = report.snapshot.unwrap();
        assert_eq!(contents(&repository, &snapshot).unwrap(), expected, "{context}");
        read_less += u64::from(report.statistics.read_bytes < TOTAL);
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        assert_eq!(check::run(&repository, &options, &Silent).unwrap().findings, [], "{context}");
        // Every data chunk was put once: a prune finds no data pack to delete, and none that is partly unneeded.
        let prune_all = PruneOptions {
            run_expiry: 0,
            max_unused: MaxUnused::Bytes(0),
            dry_run: true,
            ..PruneOptions::default()
        };
        memory.list(Area::Announcements).unwrap().iter().for_each(|(n, _)| memory.delete(n).unwrap());
        let plan = prune::run(&repository, &prune_all, &Silent).unwrap().plan;
        let data = plan
            .delete
            .iter()
            .chain(&plan.repack)
            .filter(|p| p.kind == bulla_engine::format::pack::PackKind::Data);
        assert_eq!(data.count(), 0, "{context}: {plan:?}");
    }
    println!("{states} states, {read_less} of them read less");
    assert!(states > 15 && read_less > states / 2, "{states} states, {read_less} read less");
}

#[test]
fn a_file_that_changed_since_the_checkpoint_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (_, base) = in_memory();
    let memory = half_done(&base, dir.path());
    assert!(announced(&memory) > 3, "there are checkpoints");
    std::fs::write(dir.path().join("d0/f0"), noise("other", SIZE)).unwrap();
    std::fs::remove_file(dir.path().join("d0/f6")).unwrap();
    std::fs::write(dir.path().join("d0/new"), b"new").unwrap();
    let repository = open(memory, 4).unwrap();
    let report = run(&repository, dir.path()).unwrap();
    assert_eq!(contents(&repository, &report.snapshot.unwrap()).unwrap(), on_disk(dir.path()));
    assert!(report.statistics.read_bytes < TOTAL * 3 / 4, "{:?}", report.statistics);
}

#[test]
fn a_checkpoint_that_leads_nowhere_costs_reading_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (_, base) = in_memory();
    let memory = half_done(&base, dir.path());
    for area in [Area::Packs, Area::Meta] {
        for (at, (name, _)) in memory.list(area).unwrap().into_iter().enumerate() {
            if at % 2 == 0 {
                memory.overwrite(name, None);
            }
        }
    }
    let repository = open(memory, 4).unwrap();
    let snapshot = run(&repository, dir.path()).unwrap().snapshot.unwrap();
    assert_eq!(contents(&repository, &snapshot).unwrap(), on_disk(dir.path()));
}

#[test]
fn another_client_takes_no_checkpoint_and_adopts_no_pack() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (_, base) = in_memory();
    let memory = half_done(&base, dir.path());
    let mut other = env(9);
    other.machine = "another".into();
    let repository = Repository::open(memory.clone(), &crate::support::secret(), other).unwrap();
    let report = run(&repository, dir.path()).unwrap();
    assert_eq!(report.statistics.read_bytes, TOTAL);
    assert!(memory.stat(&ObjectName::Verdict(report.snapshot.unwrap().id)).unwrap().is_some());
}
