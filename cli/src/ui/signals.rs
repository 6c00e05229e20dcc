//! Signals as flags. SIGUSR1 asks for a line of progress; the first SIGINT or SIGTERM during a long run asks it to
//! stop at the next safe point, the second ends the process at once, which a repository survives like a power cut.
//! SIGHUP asks whoever serves ([`Wake`]) to look at its configuration again.

use crate::exit::Code;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;
use signal_hook::low_level::pipe;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Once};
use std::time::Duration;

static STOP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static POKE: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static HANGUP: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);
static CAUGHT: Once = Once::new();

/// Before anything else: SIGUSR1 must never kill, whichever command runs.
pub(crate) fn tame() {
    let _ = flag::register(SIGUSR1, POKE.clone());
}

/// From here on the first signal is a request. Caught twice, one signal would be a request and, at once, the second.
pub(crate) fn catch() {
    CAUGHT.call_once(|| {
        for signal in [SIGINT, SIGTERM] {
            // In this order the second signal finds the flag set and exits, the first only sets it.
            let _ =
                flag::register_conditional_shutdown(signal, i32::from(Code::Interrupted as u8), STOP.clone());
            let _ = flag::register(signal, STOP.clone());
        }
    });
}

/// True once for each SIGHUP, from the first [`Wake`] on.
pub(crate) fn hung_up() -> bool {
    HANGUP.swap(false, Ordering::Relaxed)
}

/// True if there was one that nobody has asked about.
pub(crate) fn hung_up_lately() -> bool {
    HANGUP.load(Ordering::Relaxed)
}

/// Waits, and wakes on signals.
pub(crate) struct Wake(UnixStream);

impl Wake {
    /// From here on SIGHUP ends nothing, and signals are requests.
    pub(crate) fn new() -> io::Result<Self> {
        let (read, write) = UnixStream::pair()?;
        read.set_nonblocking(true)?;
        catch();
        flag::register(SIGHUP, HANGUP.clone())?;
        for signal in [SIGHUP, SIGINT, SIGTERM] {
            pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Returns after so long, or at the first signal since it returned last.
    pub(crate) fn wait(&mut self, time: Duration) {
        let time = Timespec { tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
        let _ = poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&time));
        let mut passed = [0; 64];
        while self.0.read(&mut passed).is_ok_and(|n| n > 0) {}
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
