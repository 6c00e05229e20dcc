//! A store of one's own: here one that counts what passes through it to another store. A real one would talk to a
//! database or a cloud; the contract it must keep stands at [`bulla_engine::backend`].
//!
//! `cargo run --example custom_backend -- SOURCE`

use bulla_engine::backend::{Backend, Capabilities, Memory, Put, Result, Stat};
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::{Area, ObjectName};
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counts bytes and calls.
#[derive(Default)]
struct Counting {
    inner: Memory,
    bytes: AtomicU64,
    calls: AtomicU64,
}

impl Counting {
    fn call(&self) -> &Memory {
        self.calls.fetch_add(1, Ordering::Relaxed);
        &self.inner
    }
}

impl Backend for Counting {
    fn describe(&self) -> Capabilities {
        self.inner.describe()
    }
    fn conditional_put(&self) -> Result<bool> {
        self.inner.conditional_put()
    }
    fn put(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<Put> {
        self.bytes.fetch_add(parts.iter().map(|p| p.len() as u64).sum(), Ordering::Relaxed);
        self.call().put(name, parts)
    }
    fn flush(&self) -> Result<()> {
        self.call().flush()
    }
    fn get(&self, name: &ObjectName, limit: u64) -> Result<Vec<u8>> {
        self.call().get(name, limit)
    }
    fn get_range(&self, name: &ObjectName, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.call().get_range(name, offset, len)
    }
    fn list(&self, area: Area) -> Result<Vec<(ObjectName, u64)>> {
        self.call().list(area)
    }
    fn stat(&self, name: &ObjectName) -> Result<Option<Stat>> {
        self.call().stat(name)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.call().delete(name)
    }
    fn heal(&self, name: &ObjectName, parts: &[&[u8]]) -> Result<()> {
        self.call().heal(name, parts)
    }
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let source = std::env::args().nth(1).ok_or("usage: SOURCE")?;
    let store = Arc::new(Counting::default());
    let env = Env::system("example-host", "example-user");
    let secret = SlotSecret::Key(Secret::new(env.random()));
    let repository = Repository::init(store.clone(), &InitOptions::default(), &secret, env)?.repository;
    let sources = Sources::Paths(PathSources {
        paths: vec![source.into_bytes()],
        base: std::env::current_dir()?.into_os_string().into_encoded_bytes(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    });
    backup::run(&repository, sources, &BackupOptions::default(), &Silent)?;
    let (bytes, calls) = (store.bytes.load(Ordering::Relaxed), store.calls.load(Ordering::Relaxed));
    writeln!(std::io::stdout(), "{bytes} bytes stored in {calls} calls")?;
    Ok(())
}
