//! Feature flags (SPEC 5): an unknown incompatible one refuses, an unknown read-only one reads, an unknown compatible
//! one is nobody's business. And a config of nobody's making opens nothing.

use crate::support::{backup, contents, in_memory, open, populate, secret};
use bulla_engine::Error;
use bulla_engine::backend::Memory;
use bulla_engine::format::config::{self, Config};
use bulla_engine::format::slot::{SLOT_LEN, Slot};
use bulla_engine::format::{FormatError, ObjectName};
use std::sync::Arc;

/// The same repository with another generation 0, as a newer version might have made it.
fn rewritten(memory: &Memory, change: impl FnOnce(&mut Config)) -> Arc<Memory> {
    let copy = Memory::new();
    let all = memory.snapshot();
    let bytes = &all[&ObjectName::Config(0)];
    let (repo, _) = config::identify(bytes).unwrap();
    let opened = all
        .iter()
        .filter(|(n, b)| matches!(n, ObjectName::Slot(_)) && b.len() == SLOT_LEN)
        .find_map(|(_, b)| Slot::decode(b, u32::MAX).unwrap().open(&repo, &secret()).unwrap())
        .unwrap();
    let mut config = Config::open(bytes, 0, &opened.key).unwrap();
    change(&mut config);
    let sealed = config.seal(&opened.key, &[9; 32]);
    for (name, bytes) in all {
        copy.overwrite(name, Some(if name == ObjectName::Config(0) { sealed.clone() } else { bytes }));
    }
    Arc::new(copy)
}

#[test]
fn unknown_features_are_met_as_their_class_says() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    let (repository, memory) = in_memory();
    let snapshot = backup(&repository, dir.path()).unwrap().snapshot.unwrap();

    let newer = rewritten(&memory, |c| c.incompat |= 1 << 9);
    let refused = open(newer, 2).map(drop);
    assert!(matches!(refused, Err(Error::Format(FormatError::UnknownFeature { flags: 512 }))), "{refused:?}");

    let newer = rewritten(&memory, |c| c.ro_compat |= 2);
    let readable = open(newer, 2).unwrap();
    assert_eq!(contents(&readable, &snapshot).unwrap(), contents(&repository, &snapshot).unwrap());
    assert!(matches!(backup(&readable, dir.path()), Err(Error::ReadOnlyFeature { flags: 2 })));

    let newer = rewritten(&memory, |c| c.compat |= 4);
    assert!(backup(&open(newer, 2).unwrap(), dir.path()).is_ok());
}
