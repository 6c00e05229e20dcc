//! Whatever was harmed, no repair makes less restorable than there was.

use super::*;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Harm {
    Lose,
    Cut(prop::sample::Index),
    Flip(prop::sample::Index),
}

fn harm() -> impl Strategy<Value = (prop::sample::Index, Harm)> {
    let how = prop_oneof![
        Just(Harm::Lose),
        any::<prop::sample::Index>().prop_map(Harm::Cut),
        any::<prop::sample::Index>().prop_map(Harm::Flip),
        any::<prop::sample::Index>().prop_map(Harm::Flip),
    ];
    (any::<prop::sample::Index>(), how)
}

fn apply(memory: &Memory, harms: &[(prop::sample::Index, Harm)]) {
    let objects = names(memory, &[Area::Packs, Area::Meta, Area::Index]);
    for (which, how) in harms {
        let name = objects[which.index(objects.len())];
        let Some(len) = memory.snapshot().get(&name).map(Vec::len).filter(|len| *len > 0) else { continue };
        match how {
            Harm::Lose => memory.overwrite(name, None),
            Harm::Cut(at) => change(memory, &name, |bytes| bytes.truncate(at.index(len))),
            Harm::Flip(at) => flip(memory, &name, at.index(len)),
        }
    }
}

/// After borg #3444, #1837: a repair discarded files that were there.
#[test]
fn no_repair_shrinks_what_can_be_restored() {
    let (_, base, _dir, _) = histories();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let run = runner.run(&prop::collection::vec(harm(), 1..6), |harms| {
        let memory = copy_of(&base);
        apply(&memory, &harms);
        let repository = open(memory.clone(), 99).unwrap();
        let mut before = all_restorable(&repository);
        repair_index(&repository);
        let after = all_restorable(&repository);
        assert_no_less(&before, &after, "index");
        before = after;
        repair_packs(&repository);
        assert_no_less(&before, &all_restorable(&repository), "packs");
        let options = SnapshotsOptions { forget: true, ..SnapshotsOptions::default() };
        let report = snapshots::run(&repository, &options, &Silent).unwrap();
        for damaged in &report.damaged {
            let Fate::Edition(id) = damaged.fate else { continue };
            let edition = alive(&repository).into_iter().find(|s| s.id == id).unwrap();
            let (old, new) = (&before[&damaged.id], restorable(&repository, &edition));
            prop_assert!(old.iter().all(|(path, c)| new.get(path) == Some(c)), "{:?}", damaged);
        }
        assert_no_less(&before, &all_restorable(&repository), "snapshots");
        let again = repair_snapshots(&repository);
        prop_assert!(again.damaged.iter().all(|d| matches!(d.fate, Fate::Left(_))), "{:?}", again);
        // The old ones die; what is left of them lives in their editions. Trees that are lost whole stop a prune.
        let forgotten = repository.forgotten().unwrap();
        before.retain(|id, _| {
            !forgotten.contains_key(id) || alive(&repository).iter().any(|s| s.origin == Some(*id))
        });
        match prune::run(&repository, &at_once(), &Silent) {
            Ok(_) => {}
            Err(e) => prop_assert!(e.is_damage(), "{}", e),
        }
        assert_no_less(&before, &all_restorable(&repository), "prune");
        Ok(())
    });
    run.unwrap();
}
