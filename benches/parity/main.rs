//! What parity costs: megabytes of pack per second of one core, for making sidecars and for repairs.
//!
//! `cargo run --release -p bulla-benches --bin parity [-- PERCENT]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for developers: it prints, and a failed assumption stops it"
)]

use bulla_repo_format::PackName;
use bulla_repo_format::parity::{Sidecar, create};
use std::hint::black_box;
use std::time::Instant;

const SIZE: usize = 12 << 20;
const SHARD: usize = 64 << 10;

/// The best of many turns, in MB of pack per second.
fn rate(what: &str, mut work: impl FnMut()) {
    work();
    let mut best = f64::MAX;
    for _ in 0..20 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{what}: {:.0} MB/s", SIZE as f64 / best / 1e6);
}

fn main() {
    let percent = std::env::args().nth(1).map_or(3, |p| p.parse().unwrap());
    let mut pack = vec![0; SIZE];
    blake3::Hasher::new().update(b"pack").finalize_xof().fill(&mut pack);
    let name = PackName::new(*blake3::hash(&pack).as_bytes());
    rate("hash of the pack", || _ = black_box(blake3::hash(&pack)));
    rate("sidecar made, hashes and all", || _ = black_box(create(name, &[&pack], percent).unwrap()));
    let side = create(name, &[&pack], percent).unwrap().parts().concat();
    let sidecar = Sidecar::parse(&side, &name).unwrap();
    let share = sidecar.head().recovery as usize;
    for damaged in [1, share] {
        let mut bad = pack.clone();
        (0..damaged).for_each(|i| bad[i * (SIZE / SHARD / share) * SHARD] ^= 1);
        rate(&format!("repair of {damaged} of 192 shards, hashes and all"), || {
            assert!(black_box(sidecar.repair(&bad).unwrap()).shards as usize == damaged);
        });
    }
}
