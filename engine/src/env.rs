//! The world outside, passed in: time, randomness, who we are. Tests and embedders bring their own.

use bulla_repo_format::tree::Timestamp;
use std::path::PathBuf;
use std::sync::Arc;

/// Tells the time, for labels only: no decision about data depends on it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// Gives random bytes fit for keys.
pub trait Entropy: Send + Sync {
    /// Fills `out`. There is no error: a system without entropy cannot back up and must abort.
    fn fill(&self, out: &mut [u8]);
}

/// The operating system's clock.
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let t = jiff::Timestamp::now();
        let (mut seconds, mut nanos) = (t.as_second(), t.subsec_nanosecond());
        if nanos < 0 {
            (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
        }
        Timestamp { seconds, nanos: nanos.unsigned_abs() }
    }
}

/// The operating system's generator.
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[allow(clippy::panic, reason = "keys without entropy would be worse than no backup")]
    fn fill(&self, out: &mut [u8]) {
        if let Err(e) = getrandom::fill(out) {
            panic!("the operating system gives no random bytes: {e}");
        }
    }
}

/// What a verb needs to know of the world.
#[derive(Clone)]
pub struct Env {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// The name of this machine: from it the client's id follows (SPEC 13).
    pub machine: String,
    /// The user running this.
    pub user: String,
    /// Where index runs and trees may be cached; `None` keeps everything in memory.
    pub cache: Option<PathBuf>,
    /// Of a cache only copies of the ledger are used: for who proves what a distant store holds, and not what this machine
    /// remembers of it.
    pub fresh: bool,
    /// Where to remember what the store has shown, so that an older state of it is noticed; `None` remembers nothing.
    pub state: Option<PathBuf>,
    /// Worker threads; 1 is the sequential case of the same pipeline.
    pub width: usize,
}

impl Env {
    /// The real world, without a cache.
    pub fn system(machine: impl Into<String>, user: impl Into<String>) -> Self {
        let width = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            clock: Arc::new(SystemClock),
            entropy: Arc::new(SystemEntropy),
            machine: machine.into(),
            user: user.into(),
            cache: None,
            fresh: false,
            state: None,
            width,
        }
    }

    /// `N` random bytes.
    pub fn random<const N: usize>(&self) -> [u8; N] {
        let mut out = [0; N];
        self.entropy.fill(&mut out);
        out
    }
}
