//! Test vectors: every file of `repo-format/vectors` must decode as it says, be what the generator writes, and
//! together they must prove every rule of SPEC.md. `BULLA_BLESS=1` writes the files anew.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says why it fails by panicking")]

mod basic;
mod decode;
mod file;
mod keys;
mod ledger;
mod pack;
mod parity;
mod slots;
mod small;
mod tree;

use file::Vector;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Rules that need more than one object's bytes, and who tests them instead.
const WHOLE_REPOSITORY: [(&str, &str); 12] = [
    ("R-CBOR-9", "would need a file of 4 MiB; a unit test of the decoder"),
    ("R-CHUNK-2", "relates a chunk to what refers to it"),
    ("R-CONFIG-8", "needs the generation before"),
    ("R-SLOT-8", "counts the slots of a repository"),
    ("R-ENV-5", "would need files of 64 and 192 MiB; a bound checked before anything is read"),
    ("R-TREE-7", "relates a node to its children"),
    ("R-LIST-4", "relates a list node to its children"),
    ("R-SNAP-4", "relates two snapshots"),
    ("R-TRUST-1", "relates an object to its signer's certificate"),
    ("R-TRUST-3", "is about what a reader makes of a listing"),
    ("R-RESTORE-1", "is about a restore's target"),
    ("R-RESTORE-2", "relates the entries of a hard-link group"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All cases, with the facts the crate finds in the valid ones.
fn generate() -> Vec<Vector> {
    let objects =
        [slots::cases(), small::cases(), ledger::cases(), pack::cases(), parity::cases(), tree::cases()];
    let mut all = [basic::cases(), objects.concat()].concat();
    for v in &mut all {
        if v.rule.is_none() {
            v.facts = decode::decode(v).unwrap_or_else(|e| panic!("{}: {e}", v.name));
        }
    }
    all
}

fn files() -> BTreeSet<String> {
    let names = std::fs::read_dir(folder()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n != "README.md").collect()
}

#[test]
fn vectors_are_what_the_generator_writes() {
    let all = generate();
    let names: BTreeSet<String> = all.iter().map(|v| v.name.clone()).collect();
    assert_eq!(names.len(), all.len(), "two cases of one name");
    if std::env::var_os("BULLA_BLESS").is_some() {
        files().iter().for_each(|n| std::fs::remove_file(folder().join(n)).unwrap());
        all.iter().for_each(|v| std::fs::write(folder().join(&v.name), v.print()).unwrap());
    }
    assert_eq!(files(), names, "files and cases differ");
    for v in all {
        let text = std::fs::read_to_string(folder().join(&v.name)).unwrap();
        assert!(text == v.print(), "{} is not what the generator writes", v.name);
    }
}

#[test]
fn every_vector_decodes_as_it_says() {
    for name in files() {
        let v = Vector::parse(&name, &std::fs::read_to_string(folder().join(&name)).unwrap());
        match (decode::decode(&v), &v.rule) {
            (Ok(facts), None) => assert_eq!(facts, v.facts, "{name}"),
            (Err(_), Some(_)) => {}
            (Ok(facts), Some(rule)) => panic!("{name}: accepted against {rule}: {facts:?}"),
            (Err(e), None) => panic!("{name}: {e}"),
        }
    }
}

#[test]
fn every_rule_of_the_spec_has_a_vector() {
    let spec = std::fs::read_to_string(folder().join("../../SPEC.md")).unwrap();
    let rules: Vec<&str> =
        spec.lines().filter_map(|l| l.strip_prefix("- **[")?.split_once(']')).map(|(tag, _)| tag).collect();
    let all: BTreeSet<&str> = rules.iter().copied().collect();
    assert_eq!(all.len(), rules.len(), "a tag twice");
    let texts: Vec<_> = files().iter().map(|n| std::fs::read_to_string(folder().join(n)).unwrap()).collect();
    let proved: BTreeSet<&str> = texts
        .iter()
        .flat_map(|t| t.lines().take_while(|l| !l.is_empty()))
        .filter_map(|l| l.strip_prefix("rule: "))
        .collect();
    let excused: BTreeSet<&str> = WHOLE_REPOSITORY.iter().map(|(tag, _)| *tag).collect();
    let unknown: Vec<_> = proved.union(&excused).filter(|t| !all.contains(*t)).collect();
    assert!(unknown.is_empty(), "tags SPEC.md does not have: {unknown:?}");
    assert!(proved.is_disjoint(&excused), "excused, and yet proved");
    let missing: Vec<_> = all.difference(&proved).filter(|t| !excused.contains(*t)).collect();
    assert!(missing.is_empty(), "rules without a vector: {missing:?}");
}
