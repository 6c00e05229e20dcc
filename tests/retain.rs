//! Object lock as the engine sees it: what is missing keeps nothing else from being retained, and no finished prune fails
//! because the store does not say whether it has a lock. With a real store: `remote/append_only.rs`.

use crate::passing::passes_on;
use crate::support::{backup, forget, init, noise, open, populate};
use bulla_engine::backend::{Backend, BackendError, Memory, Result};
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::retain::{self, LockMode, Retention};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// Memory with an object lock, or one that cannot be asked for it.
struct Locked {
    inner: Memory,
    says: bool,
    retained: Mutex<BTreeSet<ObjectName>>,
}

impl Backend for Locked {
    passes_on!(describe conditional_put put flush get get_range list stat delete heal);
    fn locks_objects(&self) -> Result<bool> {
        let (object, place) = ("object lock".to_owned(), "memory".to_owned());
        let source = std::io::Error::other("the connection is gone");
        if self.says { Ok(true) } else { Err(BackendError::Io { verb: "ask of", object, place, source }) }
    }
    fn retain(&self, name: &ObjectName, _: Retention) -> Result<()> {
        self.retained.lock().unwrap().insert(*name);
        Ok(())
    }
}

fn locked(says: bool) -> Arc<Locked> {
    Arc::new(Locked { inner: Memory::new(), says, retained: Mutex::default() })
}

fn everything(store: &Locked) -> BTreeSet<ObjectName> {
    let all = Area::ALL.iter().flat_map(|area| store.list(*area).unwrap());
    all.map(|(name, _)| name).filter(|n| n.area() != Area::Announcements).collect()
}

/// A data pack, the one with trees, and both.
#[test]
fn what_is_missing_keeps_nothing_else_from_being_retained() {
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    for (gone, blind) in
        [(&[Area::Packs][..], false), (&[Area::Meta], true), (&[Area::Packs, Area::Meta], true)]
    {
        let store = locked(true);
        let repository = init(store.clone());
        backup(&repository, dir.path()).unwrap();
        let retention = Retention { mode: LockMode::Compliance, until: i64::MAX };
        let whole = retain::run(&repository, retention, false, &Silent).unwrap();
        assert_eq!((whole.damage(), whole.missing_packs, whole.blind), (None, 0, false));
        assert_eq!(std::mem::take(&mut *store.retained.lock().unwrap()), everything(&store));
        for area in gone {
            let (pack, _) = store.list(*area).unwrap().remove(0);
            store.delete(&pack).unwrap();
        }
        // Nothing of it is remembered.
        let repository = open(store.clone(), 5).unwrap();
        let report = retain::run(&repository, retention, false, &Silent).unwrap();
        assert_eq!(*store.retained.lock().unwrap(), everything(&store), "{gone:?}");
        assert!(report.damage().is_some() && report.missing_packs > 0, "{gone:?}: {report:?}");
        assert_eq!((report.blind, report.packs), (blind, whole.packs - gone.len() as u64), "{gone:?}");
    }
}

#[test]
fn a_prune_that_is_done_does_not_fail_because_of_a_question() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("old"), noise("old", 100_000)).unwrap();
    let store = locked(false);
    let repository = init(store.clone());
    let first = backup(&repository, dir.path()).unwrap().snapshot.unwrap();
    forget(&repository, &first.id, true, "test").unwrap();
    let options = PruneOptions { grace: 0, max_unused: MaxUnused::Bytes(0), ..PruneOptions::default() };
    let report = prune::run(&repository, &options, &Silent).unwrap();
    assert!(report.deleted > 0 && !report.hidden, "{report:?}");
}
