//! `kill -9`, again and again, of backups, forgets, undeletes and prunes that run side by side against one repository.
//!
//! What a command acknowledged holds: its snapshot restores identical until somebody forgets it. `BULLA_KILLS=1000`
//! is the long form; its figures are in `tests/LEDGER.md`.

use crate::content::{Dice, Tree, noise, tree};
use crate::home::{Home, Ran};
use crate::upkeep::{backup, cleaned, identical, json, listed, restored, sound};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const WRITERS: usize = 3;
/// So many of the first snapshots nobody forgets: they are restored all the while.
const KEPT: usize = 4;
/// More than so many, and some are forgotten.
const ENOUGH: usize = 16;

/// What the commands have acknowledged.
#[derive(Default)]
struct Ledger {
    /// Must restore: by id, whose tree it is, and what.
    alive: BTreeMap<String, (usize, Tree)>,
    kept: BTreeSet<String>,
    /// Must not be listed.
    forgotten: BTreeSet<String>,
    /// A forget of them was killed: either is right.
    uncertain: BTreeSet<String>,
    /// Every tree a backup was started of: one that was killed may have committed it, and nothing else.
    begun: Vec<BTreeSet<Tree>>,
    /// Verb and ending, with how often.
    endings: BTreeMap<String, usize>,
    surprises: Vec<String>,
}

struct Scene {
    home: Home,
    ledger: Mutex<Ledger>,
    kills: AtomicUsize,
    wanted: usize,
}

impl Scene {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn goes_on(&self) -> bool {
        self.kills.load(Ordering::SeqCst) < self.wanted && self.ledger().surprises.is_empty()
    }

    fn note(&self, verb: &str, ending: &str) {
        *self.ledger().endings.entry(format!("{verb}: {ending}")).or_default() += 1;
    }

    /// One command, killed at a random time in two of three cases. Its end must be in `allowed`: a code and what
    /// stderr then says. `None` when it was killed; what it printed before counts as said.
    fn play(&self, line: &str, player: &mut Player, allowed: &[(i32, &str)]) -> (Option<i32>, String) {
        let args: Vec<&str> = line.split_whitespace().collect();
        let verb = *args.iter().find(|a| !a.starts_with('-')).unwrap();
        let begun = Instant::now();
        let mut child = self.home.command(&args).spawn().unwrap();
        if player.dice.below(3) > 0 {
            let usual = player.usual.get(verb).copied().unwrap_or(40_000);
            std::thread::sleep(Duration::from_micros(player.dice.below(usual + usual / 4) as u64));
            let _ = child.kill();
        }
        let output = child.wait_with_output().unwrap();
        let killed = output.status.signal() == Some(9);
        let ran = Ran::of(output);
        if killed {
            self.kills.fetch_add(1, Ordering::SeqCst);
            self.note(verb, "killed");
            return (None, ran.out);
        }
        player.usual.insert(verb.to_owned(), usize::try_from(begun.elapsed().as_micros()).unwrap());
        self.note(verb, &format!("exit {}", ran.code));
        if !allowed.iter().any(|(code, says)| *code == ran.code && ran.err.contains(says)) {
            self.ledger().surprises.push(format!("{line}: exit {}: {}{}", ran.code, ran.out, ran.err));
        }
        (Some(ran.code), ran.out)
    }

    /// Changes a tree and backs it up, over and over. Content comes from a small pool, so that what one snapshot
    /// lets go another needs again.
    fn write(&self, writer: usize) {
        let mut player = Player::new(writer as u64);
        let dir = format!("tree{writer}");
        while self.goes_on() {
            for _ in 0..=player.dice.below(2) {
                let (name, seed) = (player.dice.below(6), player.dice.below(14));
                self.home.write(
                    &format!("{dir}/d{}/f{name}", name % 2),
                    &noise(seed as u64, 20_000 + seed * 9_000),
                );
            }
            let now = tree(&self.home.path(&dir));
            self.ledger().begun[writer].insert(now.clone());
            let cache = ["", "", "--no-cache"][player.dice.below(3)];
            let allowed = [(0, ""), (1, "was expired by another client"), (5, "were condemned by a prune")];
            let (code, out) = self.play(&format!("-q --json {cache} backup {dir}"), &mut player, &allowed);
            // Also of a killed one: who has read the id believes it.
            let said = out.ends_with('\n').then(|| json(&out));
            let Some(id) = said.and_then(|s| s["snapshot_id"].as_str().map(str::to_owned)) else {
                assert_ne!(code, Some(0), "no id in {out:?}");
                continue;
            };
            let mut ledger = self.ledger();
            if ledger.kept.len() < KEPT {
                ledger.kept.insert(id.clone());
            }
            ledger.alive.insert(id, (writer, now));
        }
    }

    fn forget(&self) {
        let mut player = Player::new(100);
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(player.dice.below(60) as u64));
            let Some((id, owned)) = self.let_go(&mut player) else { continue };
            let gently = player.dice.below(3) == 0;
            let how = if gently { "" } else { "--now --yes" };
            let (code, _) = self.play(&format!("-q forget {how} {id}"), &mut player, &[(0, "")]);
            let mut ledger = self.ledger();
            match code {
                Some(0) => ledger.forgotten.insert(id.clone()),
                _ => ledger.uncertain.insert(id.clone()),
            };
            drop(ledger);
            if gently {
                // A prune without grace may have ended it.
                let expired = (1, "was expired by another client");
                let allowed = [(0, ""), (5, "a prune has ended it"), (1, "no snapshot matches"), expired];
                let (_, out) = self.play(&format!("-q --json undelete {id}"), &mut player, &allowed);
                let said = out.ends_with('\n').then(|| json(&out));
                if let Some(new) = said.and_then(|s| s[0]["id"].as_str().map(str::to_owned)) {
                    self.ledger().alive.insert(new, owned);
                }
            }
        }
    }

    /// Takes a snapshot off the list of those that must restore, before anything is done to it.
    fn let_go(&self, player: &mut Player) -> Option<(String, (usize, Tree))> {
        let mut ledger = self.ledger();
        if ledger.alive.len() < ENOUGH {
            return None;
        }
        let n = player.dice.below(ledger.alive.len());
        let id = ledger.alive.keys().nth(n).filter(|id| !ledger.kept.contains(*id))?.clone();
        let owned = ledger.alive.remove(&id)?;
        Some((id, owned))
    }

    fn prune(&self, pruner: usize) {
        let mut player = Player::new(200 + pruner as u64);
        let lines = [
            ["--grace 0 --run-expiry 0 --max-unused 0", "--grace 0 --run-expiry 0"],
            ["--grace 0 --max-unused 0", "--max-unused 10%"],
        ];
        while self.goes_on() {
            let line = format!("-q prune {}", lines[pruner][player.dice.below(2)]);
            // Expired as often as it begins again, by others without patience, it says so.
            self.play(&line, &mut player, &[(0, ""), (1, "was expired by another client")]);
            std::thread::sleep(Duration::from_millis(player.dice.below(250) as u64));
        }
    }

    /// Readers see no damage meanwhile, and never a wrong byte.
    fn read(&self) {
        let mut round = 0;
        while self.goes_on() {
            round += 1;
            let ran = self.home.bulla(if round % 2 == 0 { "-q check" } else { "-q check --read-data" });
            self.note("check", &format!("exit {}", ran.code));
            if ran.code != 0 {
                self.ledger().surprises.push(format!("check: exit {}: {}{}", ran.code, ran.out, ran.err));
            }
            let kept = self.ledger().kept.iter().nth(round % KEPT).cloned();
            let Some(id) = kept else { continue };
            let Some((writer, expected)) = self.ledger().alive.get(&id).cloned() else { continue };
            let got = restored(&self.home, &id, &format!("tree{writer}"));
            if got.as_ref() != Ok(&expected) {
                self.ledger().surprises.push(format!("{id} restores to {got:?}"));
            }
            self.note("restore", "identical");
        }
    }

    /// After it all, in quiet.
    fn judge(&self) -> String {
        let ledger = self.ledger();
        assert!(ledger.surprises.is_empty(), "\n{}\n{:#?}", ledger.surprises.join("\n"), ledger.endings);
        let now = listed(&self.home);
        let mut unsaid = 0;
        for id in &now {
            assert!(!ledger.forgotten.contains(id), "{id} was forgotten and is listed");
            if ledger.alive.contains_key(id) || ledger.uncertain.contains(id) {
                continue;
            }
            // Nobody was told of it, and it is whole all the same.
            unsaid += 1;
            let writer = (0..WRITERS).find(|w| {
                let got = restored_if(&self.home, id, &format!("tree{w}"));
                got.is_some_and(|t| ledger.begun[*w].contains(&t))
            });
            assert!(writer.is_some(), "{id} restores to a tree that nobody backed up");
        }
        let all = |context: &str| {
            for (id, (writer, expected)) in &ledger.alive {
                identical(&self.home, id, &format!("tree{writer}"), expected, context);
            }
        };
        for writer in 0..WRITERS {
            backup(&self.home, &format!("tree{writer}"));
        }
        all("right after");
        sound(&self.home, "right after");
        cleaned(&self.home, "afterwards");
        all("after two quiet prunes");
        sound(&self.home, "after two quiet prunes");
        format!(
            "{} kills; {} acknowledged snapshots alive and identical, {} forgotten, {unsaid} committed unsaid; {} objects left in tmp",
            self.kills.load(Ordering::SeqCst),
            ledger.alive.len(),
            ledger.forgotten.len(),
            self.home.objects("tmp").len(),
        )
    }
}

/// The tree `dir` of a snapshot, if it is one of that directory.
fn restored_if(home: &Home, id: &str, dir: &str) -> Option<Tree> {
    let path = home.shown(dir);
    if home.bulla(&format!("-q ls {id}:{path}")).code != 0 {
        return None;
    }
    Some(restored(home, id, dir).unwrap_or_else(|e| panic!("{e}")))
}

/// A thread's own luck, and how long its commands usually take, in microseconds.
struct Player {
    dice: Dice,
    usual: BTreeMap<String, usize>,
}

impl Player {
    fn new(seed: u64) -> Self {
        let round: u64 = std::env::var("BULLA_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
        Self { dice: Dice(round * 1000 + seed), usual: BTreeMap::new() }
    }
}

#[test]
fn commands_killed_side_by_side_harm_nothing_acknowledged() {
    let wanted = std::env::var("BULLA_KILLS").ok().and_then(|k| k.parse().ok()).unwrap_or(60);
    let begun = Instant::now();
    let ledger = Mutex::new(Ledger { begun: vec![BTreeSet::new(); WRITERS], ..Ledger::default() });
    let scene = Scene { home: Home::with_repository(), ledger, kills: AtomicUsize::new(0), wanted };
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let scene = &scene;
            scope.spawn(move || scene.write(writer));
        }
        scope.spawn(|| scene.forget());
        scope.spawn(|| scene.prune(0));
        scope.spawn(|| scene.prune(1));
        scope.spawn(|| scene.read());
    });
    println!("{:#?}", scene.ledger().endings);
    println!("{} in {:?}", scene.judge(), begun.elapsed());
}
