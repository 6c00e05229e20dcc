//! What a damaged repository gives: the rest, and the names of what is missing.

use super::place::{Place, describe};
use crate::support::{noise, populate};
use bulla_engine::format::ObjectName;
use bulla_engine::restore::RestoreOptions;

fn data_packs(p: &Place) -> Vec<ObjectName> {
    p.memory.snapshot().keys().filter(|n| matches!(n, ObjectName::Pack(_))).copied().collect()
}

/// Each run makes a pack: files whose chunks lie in several come from several runs.
fn in_several_packs(p: &Place) -> bulla_engine::format::snapshot::Snapshot {
    populate(&p.src());
    let mut snapshot = p.backup();
    for i in 0..3 {
        let mut bytes = noise("large", 300_000);
        bytes.splice(i * 70_000..i * 70_000 + 5, noise(&i.to_string(), 20_000));
        std::fs::write(p.src().join(format!("edited{i}")), bytes).unwrap();
        snapshot = p.backup();
    }
    snapshot
}

/// Restores; every file is either right or named as damaged and absent.
fn check(p: &Place, snapshot: &bulla_engine::format::snapshot::Snapshot) -> usize {
    let _ = std::fs::remove_dir_all(p.out());
    let report = p.restore(snapshot, &RestoreOptions::default());
    let (src, out) = (describe(&p.src()), describe(&p.out()));
    let prefix = p.sub().len() + 1;
    let damaged: Vec<String> =
        report.damaged.iter().map(|d| String::from_utf8_lossy(&d.path[prefix..]).into_owned()).collect();
    assert!(report.damaged.iter().all(|d| d.reason.contains("chunk")), "{:?}", report.damaged);
    let strip = |l: &String| l.split(" = ").next().unwrap_or_default().to_owned();
    for (name, line) in &src {
        match out.get(name) {
            Some(restored) => assert_eq!(strip(restored), strip(line), "{name}"),
            None => assert!(damaged.contains(name), "{name} is missing without a word"),
        }
    }
    assert_eq!(report.complete(), damaged.is_empty());
    src.len() - out.len()
}

#[test]
fn every_pack_missing_cut_or_flipped() {
    let p = Place::new();
    let snapshot = in_several_packs(&p);
    assert_eq!(check(&p, &snapshot), 0);
    let packs = data_packs(&p);
    assert!(packs.len() >= 4);
    for pack in packs {
        let bytes = p.memory.snapshot().remove(&pack).unwrap();
        p.memory.overwrite(pack, None);
        assert!(check(&p, &snapshot) > 0);
        p.memory.overwrite(pack, Some(bytes[..bytes.len() / 2].to_vec()));
        check(&p, &snapshot);
        let mut flipped = bytes.clone();
        flipped[100] ^= 1;
        p.memory.overwrite(pack, Some(flipped));
        check(&p, &snapshot);
        p.memory.overwrite(pack, Some(bytes));
    }
    assert_eq!(check(&p, &snapshot), 0);
}

#[test]
fn a_damaged_tree_stops_deletion() {
    let p = Place::new();
    populate(&p.src());
    let snapshot = p.backup();
    p.restore(&snapshot, &RestoreOptions::default());
    std::fs::write(p.out().join("extra"), "x").unwrap();
    // One data pack short: a file is damaged, so what looks extra stays.
    std::fs::remove_file(p.out().join("large")).unwrap();
    for pack in data_packs(&p) {
        p.memory.overwrite(pack, None);
    }
    let report = p.restore(&snapshot, &RestoreOptions { delete: true, ..RestoreOptions::default() });
    assert!(!report.damaged.is_empty());
    assert!(p.out().join("extra").exists());
    assert_eq!(report.deleted, 0);
}
