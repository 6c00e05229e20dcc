//! Fuzzes every parser of the format, what people write, the chunker and whole repositories, with stable Rust: seeds are the
//! vectors, mutations are seeded and repeatable.
//!
//! usage: bulla-fuzz SECONDS-PER-TARGET [TARGET]
//!        bulla-fuzz EXECUTIONS-PER-TARGETx [TARGET]    (of whole repositories a ten-thousandth)
//!        bulla-fuzz replay TARGET FILE
//!
//! Invariants: no panic (overflow checks on), memory bounded by the input (`allocations`), and whatever is accepted
//! encodes back to the bytes it came from where the format has one spelling. Prints executions per target for LEDGER.md.

mod allocations;
mod model;
mod seeds;
mod targets;
mod text;

use std::io::Write;
use std::time::{Duration, Instant};

/// Xorshift64*: small, seeded, good enough to pick places and bytes.
pub struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// One to six edits: flips, interesting bytes, cuts, repeats, splices with another seed.
fn mutate(dice: &mut Dice, seeds: &[Vec<u8>], out: &mut Vec<u8>) {
    out.clear();
    out.extend_from_slice(&seeds[dice.below(seeds.len())]);
    for _ in 0..=dice.below(6) {
        let at = dice.below(out.len() + 1);
        match dice.below(7) {
            0 if at < out.len() => out[at] ^= 1 << dice.below(8),
            1 if at < out.len() => out[at] = [0, 1, 0x7f, 0x80, 0xff, 0xfe][dice.below(6)],
            2 => out.truncate(at),
            3 => out.insert(at, dice.next() as u8),
            4 if at < out.len() => drop(out.remove(at)),
            5 if at < out.len() => {
                let end = (at + dice.below(64)).min(out.len());
                let piece = out[at..end].to_vec();
                out.splice(at..at, piece);
            }
            6 => {
                let other = &seeds[dice.below(seeds.len())];
                let from = dice.below(other.len() + 1);
                out.truncate(at);
                out.extend_from_slice(&other[from..]);
            }
            _ => {}
        }
    }
}

/// How long a target runs.
enum Limit {
    Time(Duration),
    Executions(u64),
}

impl Limit {
    fn parse(text: &str) -> Self {
        match text.strip_suffix('x') {
            Some(n) => Self::Executions(n.parse().expect("a number of executions")),
            None => Self::Time(Duration::from_secs(text.parse().unwrap_or(5))),
        }
    }

    fn allows(&self, began: Instant, done: u64) -> bool {
        match self {
            Self::Time(time) => began.elapsed() < *time,
            Self::Executions(n) => done < *n,
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [replay, name, file] = &args[..]
        && replay == "replay"
    {
        let input = std::fs::read(file).expect("the file can be read");
        for (_, _, target) in targets::ALL.iter().filter(|(n, ..)| n == name) {
            target(&input);
        }
        return;
    }
    let mut args = args.into_iter();
    let limit = Limit::parse(&args.next().unwrap_or_default());
    let only = args.next();
    let all = seeds::load();
    let mut out = std::io::stdout().lock();
    for (name, kind, target) in targets::ALL {
        if only.as_deref().is_some_and(|o| o != *name) {
            continue;
        }
        let mut seeds = all.get(*kind).cloned().unwrap_or_default();
        seeds.push(Vec::new());
        // What a process loads once, such as time zones, is no input's.
        seeds.iter().take(3).for_each(|seed| _ = target(seed));
        let seed = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |d| d.as_nanos() as u64 | 1);
        let (mut dice, mut input, mut n) = (Dice(seed), Vec::new(), 0u64);
        let began = Instant::now();
        let (mut accepted, mut peak) = (0u64, 0);
        while limit.allows(began, n * if *kind == "commands" { 10_000 } else { 1 }) {
            for _ in 0..if *kind == "commands" { 1 } else { 200 } {
                mutate(&mut dice, &seeds, &mut input);
                let run = std::panic::catch_unwind(|| allocations::peak_of(|| target(&input)));
                match run {
                    Ok((took, bytes)) if bytes <= allocations::bound(kind, input.len()) => {
                        (accepted, peak) = (accepted + u64::from(took), peak.max(bytes));
                    }
                    end => {
                        if let Ok((_, bytes)) = end {
                            let _ =
                                writeln!(out, "{name}: {bytes} bytes allocated for {} given", input.len());
                        }
                        let file = format!("crash-{name}");
                        let _ = std::fs::write(&file, &input);
                        let _ = writeln!(out, "{name}: crashed; the input is in {file}");
                        std::process::exit(1);
                    }
                }
                n += 1;
            }
        }
        let _ = writeln!(
            out,
            "{name}: {n} executions, {accepted} accepted, {} seeds, at most {} KiB allocated",
            seeds.len(),
            peak >> 10
        );
    }
}
