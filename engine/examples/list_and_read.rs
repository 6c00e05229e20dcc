//! List a snapshot and read one file of it, without restoring anything.
//!
//! `cargo run --example list_and_read -- REPOSITORY KEY-FILE [PATH]`

use bulla_engine::backend::Local;
use bulla_engine::browse;
use bulla_engine::env::Env;
use bulla_engine::format::slot::parse_key;
use bulla_engine::observer::escape;
use bulla_engine::repository::{Repository, SlotSecret, SnapshotFilter};
use std::error::Error;
use std::io::Write;
use std::sync::Arc;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [place, key_file, rest @ ..] = args.as_slice() else {
        return Err("usage: REPOSITORY KEY-FILE [PATH]".into());
    };
    let text = std::fs::read_to_string(key_file)?;
    let key = parse_key(text.lines().find(|l| l.starts_with("BULLA1")).ok_or("no printed key in the file")?)?;
    let env = Env::system("example-host", "example-user");
    let repository = Repository::open(Arc::new(Local::new(place)), &SlotSecret::Key(key), env)?;
    let (snapshot, _) = repository.resolve("latest", &SnapshotFilter::default())?;

    let mut out = std::io::stdout().lock();
    match rest.first() {
        Some(path) => {
            browse::write_file(&repository, &snapshot, path.trim_start_matches('/').as_bytes(), &mut out)?;
        }
        None => browse::list(&repository, &snapshot, b"", true, &mut |entry| {
            let line = writeln!(out, "{:>12} /{}", entry.size(), escape(&entry.path()));
            line.map_err(|e| bulla_engine::Error::io("write", "stdout", e))
        })?,
    }
    Ok(())
}
