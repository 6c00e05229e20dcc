//! Back up a directory and restore it, in thirty lines.
//!
//! `cargo run --example backup_and_restore -- REPOSITORY SOURCE TARGET`
//!
//! The key is made up on the spot and lost at the end: a real program keeps it, and the recovery key as well.

use bulla_engine::backend::Local;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::keys::Secret;
use bulla_engine::observer::Collector;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::restore::{self, RestoreOptions};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [place, source, target] = args.as_slice() else {
        return Err("usage: REPOSITORY SOURCE TARGET".into());
    };

    let store = Local::new(place);
    store.create_layout()?;
    let env = Env::system("example-host", "example-user");
    let secret = SlotSecret::Key(Secret::new(env.random()));
    let made = Repository::init(Arc::new(store), &InitOptions::default(), &secret, env)?;

    let sources = Sources::Paths(PathSources {
        paths: vec![source.as_os_str().as_encoded_bytes().to_vec()],
        base: std::env::current_dir()?.into_os_string().into_encoded_bytes(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    });
    let events = Collector::default();
    let report = backup::run(&made.repository, sources, &BackupOptions::default(), &events)?;
    let snapshot = report.snapshot.ok_or("nothing was committed")?;
    let restored =
        restore::run(&made.repository, &snapshot, b"", target, &RestoreOptions::default(), &events)?;

    let mut out = std::io::stdout().lock();
    writeln!(out, "snapshot {}: {:#?}", snapshot.id.short(), report.statistics)?;
    writeln!(out, "{restored:#?}")?;
    events.messages().iter().try_for_each(|m| writeln!(out, "{m}"))?;
    Ok(())
}
