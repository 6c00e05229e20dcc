//! What verbs cost in calls to a store at a distance; each is one request, a listing one for a thousand names.

use crate::support::{contents, env, noise, options, populate, secret, source};
use bulla_engine::backend::testing::Recorder;
use bulla_engine::backend::{Backend, Capabilities, Memory, Put, Result, Stat};
use bulla_engine::backup;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A store that says it is far away.
pub(crate) struct Far(pub(crate) Arc<Memory>);

impl Backend for Far {
    fn describe(&self) -> Capabilities {
        Capabilities { place: "far away".into(), local: false, connections: 5 }
    }
    fn conditional_put(&self) -> Result<bool> {
        self.0.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.0.put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.0.flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.0.get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.0.get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.0.list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.0.stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.0.delete(name)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.0.heal(name, parts)
    }
}

fn calls(recorder: &Recorder<Far>) -> BTreeMap<String, u64> {
    let mut calls = recorder.take();
    // Nothing is sent for these.
    calls.retain(|call, _| !matches!(call.as_str(), "flush" | "settle" | "reserve"));
    calls
}

#[test]
fn print_it() {
    let memory = Arc::new(Memory::new());
    let recorder = Arc::new(Recorder::new(Arc::new(Far(memory))));
    let cache = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    populate(dir.path());
    for n in 0..2000 {
        std::fs::write(dir.path().join(format!("d0/{n}")), noise(&n.to_string(), 2000)).unwrap();
    }
    let here = |seed| {
        let mut env = env(seed);
        env.cache = Some(cache.path().to_owned());
        env
    };
    Repository::init(recorder.clone(), &InitOptions::default(), &secret(), here(1)).unwrap();
    println!("init {:#?}", calls(&recorder));
    for round in 0..3 {
        let repository = Repository::open(recorder.clone(), &secret(), here(round + 2)).unwrap();
        println!("open {:#?}", calls(&recorder));
        let report = backup::run(&repository, source(dir.path()), &options(), &Silent).unwrap();
        println!("backup {round} {:#?}", calls(&recorder));
        let _ = contents(&repository, &report.snapshot.unwrap()).unwrap();
        println!("contents {:#?}", calls(&recorder));
    }
}
