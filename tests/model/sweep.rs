//! Every state, as fast as the machine goes: in levels, on all processors, by 64-bit fingerprints of canonical states.
//!
//! Two states with one fingerprint would hide one of them: at n states the chance is below n² / 2⁶⁵ (3 in 100,000 at
//! 31 million). No traces are kept; where a loss is found, `explore` finds the way to it.

use crate::state::{Model, Packed, State};
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

const SHARDS: usize = 64;
const BATCH: usize = 64;
const BLOCK: usize = 512;

/// What a sweep saw.
#[derive(Debug, Clone, Copy)]
pub struct Swept {
    /// States, one for each class of states that differ by names only.
    pub classes: u64,
    /// States of the whole space.
    pub states: u64,
    pub depth: u32,
    pub seconds: f64,
    pub loss: Option<&'static str>,
}

/// Fingerprints are their own hashes.
#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 are hashed");
    }
    fn write_u64(&mut self, n: u64) {
        self.0 = n;
    }
}

type Shard = Mutex<HashSet<u64, BuildHasherDefault<Identity>>>;

fn fingerprint(p: &Packed) -> u64 {
    let fold = |a: u64, b: u64| {
        let wide = u128::from(a) * u128::from(b);
        wide as u64 ^ (wide >> 64) as u64
    };
    let left = fold(p[0] ^ 0xa076_1d64_78bd_642f, p[1] ^ 0xe703_7ed1_a0b4_28db);
    let right = fold(p[2] ^ 0x8ebc_6af0_9c88_c6e3, p[3] ^ 0x5899_65cc_7537_4cc3);
    fold(left ^ 0x1d8e_4e27_c47d_124f, right.rotate_left(32) ^ 0xeb44_acca_b455_d165)
}

/// One thread's part of a level.
struct Part<'a> {
    shards: &'a [Shard],
    waiting: Vec<Vec<(u64, Packed, u64)>>,
    next: Vec<Packed>,
    states: u64,
    loss: Option<&'static str>,
}

impl Part<'_> {
    fn offer(&mut self, state: Packed, class: u64) {
        let print = fingerprint(&state);
        let shard = (print >> 32) as usize % SHARDS;
        self.waiting[shard].push((print, state, class));
        if self.waiting[shard].len() == BATCH {
            self.flush(shard);
        }
    }

    fn flush(&mut self, shard: usize) {
        let mut seen = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        for (print, state, class) in self.waiting[shard].drain(..) {
            if seen.insert(print) {
                self.states += class;
                self.next.push(state);
            }
        }
    }

    /// Takes blocks of the level until none is left.
    fn work(&mut self, model: &Model, level: &[Packed], taken: &AtomicUsize) {
        loop {
            let from = taken.fetch_add(BLOCK, Ordering::Relaxed).min(level.len());
            let block = &level[from..(from + BLOCK).min(level.len())];
            if block.is_empty() {
                break;
            }
            for packed in block {
                let state = State::unpack(packed);
                self.loss = self.loss.or(model.lost(&state));
                model.steps(&state, &mut |_, s| {
                    let (canonical, class) = model.canonical(s);
                    self.offer(canonical, class);
                });
            }
        }
        (0..SHARDS).for_each(|s| self.flush(s));
    }
}

/// All states of a model.
pub fn sweep(model: &Model) -> Swept {
    // One sweep at a time: each uses all processors, and memory.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let begin = Instant::now();
    let shards: Vec<Shard> = (0..SHARDS).map(|_| Shard::default()).collect();
    let (start, class) = model.canonical(&model.start());
    let mut part = |_| Part {
        shards: &shards,
        waiting: (0..SHARDS).map(|_| Vec::with_capacity(BATCH)).collect(),
        next: Vec::new(),
        states: 0,
        loss: None,
    };
    let mut parts: Vec<Part<'_>> = (0..threads).map(&mut part).collect();
    parts[0].offer(start, class);
    parts[0].work(model, &[], &AtomicUsize::new(0));
    let (mut classes, mut depth) = (0, 0);
    loop {
        let level: Vec<Packed> = parts.iter_mut().flat_map(|p| std::mem::take(&mut p.next)).collect();
        let loss = parts.iter().find_map(|p| p.loss);
        if level.is_empty() || loss.is_some() {
            let states = parts.iter().map(|p| p.states).sum();
            return Swept { classes, states, depth, seconds: begin.elapsed().as_secs_f64(), loss };
        }
        classes += level.len() as u64;
        depth += 1;
        let taken = AtomicUsize::new(0);
        if level.len() < 4 * BLOCK {
            parts[0].work(model, &level, &taken);
            continue;
        }
        std::thread::scope(|scope| {
            for part in &mut parts {
                scope.spawn(|| part.work(model, &level, &taken));
            }
        });
    }
}
