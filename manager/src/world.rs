//! What the manager asks of whoever calls it: repositories by name, and the little of this machine it has to know. Clock and
//! entropy come with the repositories' environment.

use crate::outcome::Outcome;
use bulla_engine::Error;
use bulla_engine::env::Env;
use bulla_engine::observer::Observer;
use bulla_engine::repository::Repository;
use std::path::Path;

/// Why something could not be had, as people are told and as it ends.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// How it ends.
    pub outcome: Outcome,
    /// Why, in words that show no secret.
    pub why: String,
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

    /// How an error of the engine ends, and its text.
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

    /// A step is done: its name and what came of it.
    fn step(&self, name: &str, what: &str);
}

/// Now, in seconds.
pub fn now(world: &dyn World) -> i64 {
    world.env().clock.now().seconds
}
