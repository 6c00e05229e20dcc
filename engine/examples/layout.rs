//! Measures how frame size, chunk size and compression trade size for time, on any directory: the table behind the
//! defaults in SPEC.md's rationale. Everything stays in memory.
//!
//! `cargo run --release --example layout -- DIRECTORY [SECOND-STATE]`
//!
//! With a second state of the same data (a later version), the bytes it adds are shown as well.

use bulla_engine::backend::Memory;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::Env;
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::frame::Compression;
use bulla_engine::format::keys::Secret;
use bulla_engine::observer::Silent;
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

fn sources(path: &str) -> Sources {
    Sources::Paths(PathSources {
        paths: vec![path.as_bytes().to_vec()],
        base: b"/".to_vec(),
        filter: Filter::default(),
        one_file_system: false,
        with_atime: false,
        skip: Vec::new(),
    })
}

/// Stored bytes of the first state, seconds it took, and stored bytes of the second.
fn measure(
    states: &[String],
    frame: u32,
    avg: u32,
    compression: Compression,
) -> Result<(u64, f64, Option<u64>), Box<dyn Error>> {
    let options = InitOptions {
        chunker: ChunkerParams { min: avg / 4, avg, max: avg * 4 },
        data_frame: frame,
        ..InitOptions::default()
    };
    let env = Env::system("measure", "measure");
    let secret = SlotSecret::Key(Secret::new(env.random()));
    let repository = Repository::init(Arc::new(Memory::new()), &options, &secret, env)?.repository;
    let how = BackupOptions { compression, ..BackupOptions::default() };
    let (mut stored, mut seconds) = (Vec::new(), 0.0);
    for state in states {
        let start = Instant::now();
        let report = backup::run(&repository, sources(state), &how, &Silent)?;
        if stored.is_empty() {
            seconds = start.elapsed().as_secs_f64();
        }
        stored.push(report.statistics.stored_bytes);
    }
    Ok((stored.first().copied().unwrap_or(0), seconds, stored.get(1).copied()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let states: Vec<String> = std::env::args().skip(1).collect();
    if states.is_empty() {
        return Err("usage: DIRECTORY [SECOND-STATE]".into());
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "| frame KiB | average chunk KiB | compression | stored MB | s | second state adds MB |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    let mut row = |frame: u32, avg: u32, compression: Compression| -> Result<(), Box<dyn Error>> {
        let (first, seconds, second) = measure(&states, frame << 10, avg << 10, compression)?;
        let second = second.map_or("–".to_owned(), |b| format!("{:.1}", b as f64 / 1e6));
        let first = first as f64 / 1e6;
        writeln!(out, "| {frame} | {avg} | {compression:?} | {first:.1} | {seconds:.2} | {second} |")?;
        Ok(())
    };
    for frame in [512, 1024, 2048, 4096, 8192] {
        row(frame, 128, Compression::Auto)?;
    }
    for avg in [32, 64, 256, 512] {
        row(4096, avg, Compression::Auto)?;
    }
    for compression in [Compression::Off, Compression::Fastest, Compression::Better] {
        row(4096, 128, compression)?;
    }
    Ok(())
}
