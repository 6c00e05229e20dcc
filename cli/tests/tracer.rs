//! Runs the binary under ptrace and lets one exact system call strike: its N-th call that changes storage, counted
//! over all its threads in the order they happen.
//!
//! strace can inject too, but counts for each thread by itself: with an uploader beside the main thread, no N would
//! ever reach the uploader's first call, or the commit after its last.

use crate::home::{BULLA, Home, Ran};
use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::process::Stdio;

/// What happens instead of the call, or before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Strike {
    /// The process dies.
    Kill,
    /// The call fails, once.
    Once(Errno),
    /// It and all later ones fail, but deletes: a full disk.
    From(Errno),
    /// The process stands still until the caller's work is done.
    Hold,
}

/// How it went.
pub struct Traced {
    /// The code is -1 for a process that was killed.
    pub ran: Ran,
    /// Calls that were counted.
    pub calls: u64,
    /// The call that was struck, with its path where that is known.
    pub hit: Option<String>,
}

/// Runs `bulla` with the words of `line`; its `at`-th call (from 1) is struck. `meanwhile` is called while it is held.
pub fn run(home: &Home, line: &str, at: u64, strike: Strike, meanwhile: &(dyn Fn() + Sync)) -> Traced {
    // ptrace belongs to a thread, and so do the children that this waits for.
    let traced =
        || Tracer { home, at, strike, meanwhile, calls: 0, hit: None, failing: BTreeSet::new() }.run(line);
    std::thread::scope(|scope| scope.spawn(traced).join().unwrap())
}

struct Tracer<'a> {
    home: &'a Home,
    at: u64,
    strike: Strike,
    meanwhile: &'a (dyn Fn() + Sync),
    calls: u64,
    hit: Option<String>,
    /// Threads whose call was refused and has yet to say so.
    failing: BTreeSet<Pid>,
}

impl Tracer<'_> {
    #[allow(clippy::zombie_processes, reason = "follow() waits for it")]
    fn run(mut self, line: &str) -> Traced {
        let script = ["-c", "read go; exec \"$0\" \"$@\"", BULLA];
        let args: Vec<&str> = script.into_iter().chain(line.split_whitespace()).collect();
        let mut child = self.home.command_of("/bin/sh", &args).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let options = Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEEXEC
            | Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(pid, options).unwrap();
        ptrace::interrupt(pid).unwrap();
        waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap();
        ptrace::syscall(pid, None).unwrap();
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        let code = self.follow(pid);
        let (mut out, mut err) = (String::new(), String::new());
        child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        Traced { ran: Ran { code, out, err }, calls: self.calls, hit: self.hit }
    }

    fn follow(&mut self, main: Pid) -> i32 {
        let mut counting = false;
        loop {
            // A thread that was killed meanwhile is reported by the next wait.
            let go_on = |pid, signal: Option<Signal>| {
                let _ = ptrace::syscall(pid, signal);
            };
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
                WaitStatus::Exited(pid, code) if pid == main => return code,
                WaitStatus::Signaled(pid, _, _) if pid == main => return -1,
                WaitStatus::PtraceSyscall(pid) => {
                    if counting {
                        self.look(main, pid);
                    }
                    go_on(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    counting |= event == libc::PTRACE_EVENT_EXEC;
                    go_on(pid, None);
                }
                WaitStatus::Stopped(pid, signal) => go_on(pid, Some(signal)),
                _ => {}
            }
        }
    }

    /// A thread enters or leaves a call.
    fn look(&mut self, main: Pid, pid: Pid) {
        let Ok(mut regs) = ptrace::getregs(pid) else { return };
        if self.failing.remove(&pid) {
            let (Strike::Once(errno) | Strike::From(errno)) = self.strike else { return };
            regs.rax = i64::from(-(errno as i32)).cast_unsigned();
            let _ = ptrace::setregs(pid, regs);
            return;
        }
        // The kernel's mark of an entry.
        let entered = regs.rax.cast_signed() == i64::from(-libc::ENOSYS);
        let Some(call) = entered.then(|| storage_call(pid, &regs)).flatten() else { return };
        self.calls += 1;
        let from =
            matches!(self.strike, Strike::From(_)) && self.calls > self.at && !call.starts_with("unlink");
        if self.calls != self.at && !from {
            return;
        }
        self.hit.get_or_insert(call);
        match self.strike {
            Strike::Kill => kill(main, Signal::SIGKILL).unwrap(),
            Strike::Hold => (self.meanwhile)(),
            Strike::Once(_) | Strike::From(_) => {
                // No such call: the kernel does nothing, and what it answers is replaced when the thread leaves.
                regs.orig_rax = u64::MAX;
                if ptrace::setregs(pid, regs).is_ok() {
                    self.failing.insert(pid);
                }
            }
        }
    }
}

/// The call's name if it changes what is stored: files, not pipes or the terminal.
fn storage_call(pid: Pid, regs: &libc::user_regs_struct) -> Option<String> {
    let number = c_long::try_from(regs.orig_rax).ok()?;
    let on_file = |name: &str| {
        let path = std::fs::read_link(format!("/proc/{pid}/fd/{}", regs.rdi)).ok()?;
        let path = path.to_str()?;
        (path.starts_with('/') && !path.starts_with("/dev/") || path.starts_with("/dev/shm/"))
            .then(|| format!("{name} {path}"))
    };
    let named = match number {
        libc::SYS_write => return on_file("write"),
        libc::SYS_pwrite64 => return on_file("pwrite64"),
        libc::SYS_writev => return on_file("writev"),
        libc::SYS_fsync => return on_file("fsync"),
        libc::SYS_fdatasync => return on_file("fdatasync"),
        libc::SYS_syncfs => return on_file("syncfs"),
        libc::SYS_ftruncate => return on_file("ftruncate"),
        libc::SYS_openat if regs.rdx & libc::O_CREAT as u64 != 0 => "openat",
        libc::SYS_link | libc::SYS_linkat => "link",
        libc::SYS_rename | libc::SYS_renameat | libc::SYS_renameat2 => "rename",
        libc::SYS_unlink | libc::SYS_unlinkat => "unlink",
        libc::SYS_mkdir | libc::SYS_mkdirat => "mkdir",
        _ => return None,
    };
    Some(named.to_owned())
}
