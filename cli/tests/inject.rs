//! The real binary dies, or is refused by the kernel, at every single call that changes storage: in a backup, a
//! forget, an undelete and a prune. After each: what was acknowledged restores, an exit of 0 was the truth, the next
//! commands need no help, and two prunes leave no garbage.
//!
//! A sample by default, `BULLA_INJECT=full` for every call.

use crate::content::{Tree, noise, tree};
use crate::home::Home;
use crate::tracer::{Strike, Traced, run};
use crate::upkeep::{backup, cleaned, identical, json, listed, sound};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

const AT_ONCE: &str = "-q --json prune --grace 0 --run-expiry 0 --max-unused 0";

/// A repository with two living snapshots and one forgotten, of a tree whose chunks share packs, and a copy of it.
struct World {
    home: Home,
    alive: Vec<(String, Tree)>,
    forgotten: (String, Tree),
}

impl World {
    fn new() -> Self {
        let home = Home::fast();
        home.forgets();
        let mut taken = Vec::new();
        for round in 0..3u64 {
            for file in 0..4 {
                home.write(&format!("src/stays-{round}-{file}"), &noise(round * 10 + file, 30_000));
            }
            home.write("src/changes", &noise(100 + round, 50_000));
            taken.push((backup(&home, "src"), tree(&home.path("src"))));
        }
        let forgotten = taken.remove(1);
        home.bulla(&format!("-q forget {}", forgotten.0)).ok();
        // Partly needed packs, a pack nobody needs, and something new to back up.
        std::fs::remove_file(home.path("src/stays-1-2")).unwrap();
        home.write("src/new", &noise(200, 80_000));
        let world = Self { home, alive: taken, forgotten };
        world.copy("repo", "base");
        world
    }

    fn copy(&self, from: &str, to: &str) {
        let _ = std::fs::remove_dir_all(self.home.path(to));
        let copied = Command::new("cp").arg("-a").arg(self.home.path(from)).arg(self.home.path(to)).status();
        assert!(copied.unwrap().success());
    }

    /// As it was, with a cold cache.
    fn reset(&self) {
        self.copy("base", "repo");
        let _ = std::fs::remove_dir_all(self.home.path(".cache"));
    }

    /// What holds whatever happened, then what the next commands must do without help.
    fn survives(&self, context: &str) {
        let older = || self.alive.iter().for_each(|(id, t)| identical(&self.home, id, "src", t, context));
        sound(&self.home, context);
        older();
        let next = self.home.bulla("-q --json backup src");
        assert_eq!(next.code, 0, "{context}: the next backup: {}", next.err);
        let id = json(&next.out)["snapshot_id"].as_str().unwrap().to_owned();
        identical(&self.home, &id, "src", &tree(&self.home.path("src")), context);
        cleaned(&self.home, context);
        older();
        sound(&self.home, context);
    }
}

/// What a success promised.
type Promise<'a> = dyn Fn(&World, &Traced, &str) + Sync + 'a;

/// Strikes `line` at every call, or at a sample of them.
fn every_call(name: &str, world: &World, line: &str, promise: &Promise<'_>) {
    let full = std::env::var("BULLA_INJECT").is_ok_and(|v| v == "full");
    world.reset();
    let clean = run(&world.home, line, u64::MAX, Strike::Kill, &|| {});
    assert_eq!(clean.ran.code, 0, "{name}: {}", clean.ran.err);
    promise(world, &clean, &format!("{name}, clean"));
    println!("{name}: {} calls", clean.calls);
    let strikes =
        [Strike::Kill, Strike::Once(Errno::EIO), Strike::Once(Errno::ENOSPC), Strike::From(Errno::ENOSPC)];
    for (n, strike) in (0u64..).zip(strikes) {
        let (states, mut endings) = (AtomicU64::new(0), BTreeMap::<String, u64>::new());
        let step = if full { 1 } else { clean.calls / 4 + 1 };
        // Threads make the count vary a little; the last calls are met all the same.
        let mut at = if full { 1 } else { n % step + 1 };
        loop {
            world.reset();
            let traced = run(&world.home, line, at, strike, &|| {});
            let Some(hit) = &traced.hit else { break };
            let context = format!("{name}: {strike:?} at {at}, {hit}: exit {}", traced.ran.code);
            *endings.entry(format!("{} ", traced.ran.code)).or_default() += 1;
            match (strike, traced.ran.code) {
                (_, 0) => promise(world, &traced, &context),
                (Strike::Kill, -1) | (Strike::Once(_), 1) | (_, 13) => {}
                // What is said about a store that is full is in its warnings too.
                _ => panic!("{context}: {}{}", traced.ran.out, traced.ran.err),
            }
            states.fetch_add(1, Ordering::Relaxed);
            world.survives(&context);
            at += step;
        }
        println!("{name}: {strike:?}: {} states, by exit code {endings:?}", states.into_inner());
    }
}

#[test]
fn backup_struck_at_every_call() {
    let world = World::new();
    let now = tree(&world.home.path("src"));
    let promise = |world: &World, traced: &Traced, context: &str| {
        let id = json(&traced.ran.out)["snapshot_id"].as_str().unwrap().to_owned();
        identical(&world.home, &id, "src", &now, context);
    };
    every_call("backup", &world, "-q --json backup src", &promise);
}

#[test]
fn forget_struck_at_every_call() {
    let world = World::new();
    let id = world.alive[0].0.clone();
    // What forgets it promises nothing about it: it is not one of the living.
    let world = World { alive: world.alive[1..].to_vec(), ..world };
    let promise = |world: &World, _: &Traced, context: &str| {
        assert!(!listed(&world.home).contains(&id), "{context}: {id} is listed");
    };
    every_call("forget", &world, &format!("-q forget --now --yes {id}"), &promise);
}

#[test]
fn undelete_struck_at_every_call() {
    let world = World::new();
    let promise = |world: &World, traced: &Traced, context: &str| {
        let id = json(&traced.ran.out)[0]["id"].as_str().unwrap().to_owned();
        identical(&world.home, &id, "src", &world.forgotten.1, context);
    };
    every_call("undelete", &world, &format!("-q --json undelete {}", world.forgotten.0), &promise);
}

#[test]
fn prune_struck_at_every_call() {
    let world = World::new();
    let promise = |world: &World, traced: &Traced, context: &str| {
        let said = json(&traced.ran.out);
        assert!(!listed(&world.home).contains(&world.forgotten.0), "{context}");
        let again = json(&world.home.bulla(AT_ONCE).ok());
        let nothing = again["snapshots_ended"].as_array().unwrap().is_empty();
        assert!(
            nothing && !said["snapshots_ended"].as_array().unwrap().is_empty(),
            "{context}: {said:#} {again:#}"
        );
    };
    every_call("prune", &world, AT_ONCE, &promise);
}
