//! What the manager asks of whoever calls it: repositories by name, and the little of this machine it has to know. Clock and
//! entropy come with the repositories' environment.

use crate::outcome::Outcome;
use bulla_engine::Error;
use bulla_engine::env::Env;
use bulla_engine::observer::Observer;
use bulla_engine::repository::Repository;
use std::path::Path;
use std::time::{Duration, Instant};

/// Why something could not be had, as people are told and as it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How it ends.
    pub outcome: Outcome,
    /// Why, in words that show no secret.
    pub why: String,
    /// It may pass by itself: a store out of reach, or one that somebody else is at.
    pub passing: bool,
}

impl Trouble {
    /// One that stays until somebody does something.
    pub fn new(outcome: Outcome, why: impl Into<String>) -> Self {
        Self { outcome, why: why.into(), passing: false }
    }
}

/// What is around the manager.
pub trait World: Sync {
    /// The repository of a destination. With `fresh` nothing is taken from copies on this machine: what is proved is proved
    /// of the store.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open(&self, destination: &str, fresh: bool) -> Result<Repository, Trouble>;

    /// The same, of the store itself and with the key in a file instead of the destination's own secret.
    ///
    /// # Errors
    /// Why it cannot be opened.
    fn open_with(&self, destination: &str, key: &Path) -> Result<Repository, Trouble>;

    /// How an error of the engine ends, its text, and whether it [may pass](Error::may_pass).
    fn judge(&self, error: &Error) -> Trouble;

    /// Clock, entropy and names.
    fn env(&self) -> &Env;

    /// The host that backups are about.
    fn host(&self) -> String;

    /// Directories, as device and inode, that are never backed up: local repositories and caches.
    fn own_directories(&self) -> Vec<(u64, u64)>;

    /// Variables that commands do not get.
    fn secret_variables(&self) -> Vec<&'static str>;

    /// Who is told what happens.
    fn observer(&self) -> &dyn Observer;

    /// Waits, and not for longer than until somebody asks to stop.
    fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while Instant::now() < until && !self.observer().interrupted() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A step is done: its name and what came of it.
    fn step(&self, name: &str, what: &str);
}

/// Now, in seconds.
pub fn now(world: &dyn World) -> i64 {
    world.env().clock.now().seconds
}
