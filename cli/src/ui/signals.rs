//! Signals as flags. SIGUSR1 asks for a line of progress; the first SIGINT or SIGTERM during a long run asks it to
//! stop at the next safe point, the second ends the process at once, which a repository survives like a power cut.

use crate::exit::Code;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static POKE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Before anything else: SIGUSR1 must never kill, whichever command runs.
pub(crate) fn tame() {
    let _ = flag::register(SIGUSR1, POKE.clone());
}

/// From here on the first signal is a request.
pub(crate) fn catch() {
    for signal in [SIGINT, SIGTERM] {
        // In this order the second signal finds the flag set and exits, the first only sets it.
        let _ = flag::register_conditional_shutdown(signal, i32::from(Code::Interrupted as u8), STOP.clone());
        let _ = flag::register(signal, STOP.clone());
    }
}

/// True after the first SIGINT or SIGTERM.
pub(crate) fn stop_asked() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// True once for each SIGUSR1.
pub(crate) fn poked() -> bool {
    POKE.swap(false, Ordering::Relaxed)
}
