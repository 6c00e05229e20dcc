//! What a restore did, in counts that add up, and the tally the workers keep while it runs.

use super::plan::Action;
use super::safe_dir::{Applied, Aspect};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer, escape};
use bulla_repo_format::tree::join_path;
use rustix::io::Errno;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Warnings of one kind that are told one by one; the rest are counted.
const TOLD: u64 = 20;

/// A file or a part of the tree that could not be restored because the repository is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Its path in the snapshot, without a leading slash.
    pub path: Vec<u8>,
    /// The chunk or object, and what is wrong with it.
    pub reason: String,
}

/// One line of the plan, for a dry run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Where, below the target.
    pub path: Vec<u8>,
    /// What.
    pub action: Action,
    /// Bytes of content that would be written.
    pub bytes: u64,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, escape(&self.path))
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What a restore did.
        #[derive(Debug, Clone, Default)]
        pub struct RestoreReport {
            $($(#[$doc])* pub $name: u64,)*
            /// A dry run: packs that content would be fetched from.
            pub packs_to_fetch: u64,
            /// A dry run: bytes that would be fetched of them.
            pub bytes_to_fetch: u64,
            /// A dry run: requests that would take. Metadata was read already.
            pub requests_to_make: u64,
            /// What the repository could not give; not empty means that the restore is incomplete.
            pub damaged: Vec<Damage>,
        }

        /// The same, as the workers count.
        #[derive(Default)]
        pub(super) struct Counts {
            $(pub(super) $name: AtomicU64,)*
        }

        impl Counts {
            fn report(&self) -> RestoreReport {
                RestoreReport {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    ..RestoreReport::default()
                }
            }
        }
    };
}

counts! {
    /// Regular files whose content was written, whole or in part.
    files_restored,
    /// Regular files that had the right content already.
    files_unchanged,
    /// Entries left alone because of the overwrite rule.
    skipped,
    /// Directories created.
    directories_created,
    /// Symbolic links created.
    symlinks,
    /// Pipes, sockets and devices created.
    specials,
    /// Hard links made.
    hard_links,
    /// Things removed from the target by `delete`.
    deleted,
    /// Bytes of content written.
    bytes_written,
    /// Bytes of content that were there already.
    bytes_unchanged,
    /// Frames decoded for content.
    frames_decoded,
    /// Files read again and found right (`verify`).
    files_verified,
    /// Entries whose owner was not restored because only the superuser can.
    owners_not_restored,
    /// Entries whose setuid, setgid, device, capability or label was left out.
    privileges_left_out,
    /// Owners, attributes, modes or times that could not be applied.
    metadata_failed,
    /// Entries whose content could not be read when they were backed up; not created.
    unreadable,
    /// Entries that could not be written to the target.
    failed,
}

impl RestoreReport {
    /// True when everything asked for is there, as far as the snapshot has it.
    pub fn complete(&self) -> bool {
        self.damaged.is_empty() && self.failed == 0
    }
}

/// Counters and messages of a run, shared by its workers.
pub(super) struct Tally<'o> {
    pub(super) counts: Counts,
    observer: &'o dyn Observer,
    damaged: Mutex<Vec<Damage>>,
    told: AtomicU64,
    /// Entries and bytes met so far.
    pub(super) known: (AtomicU64, AtomicU64),
    done: (AtomicU64, AtomicU64),
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl<'o> Tally<'o> {
    pub(super) fn new(observer: &'o dyn Observer) -> Self {
        Self {
            counts: Counts::default(),
            observer,
            damaged: Mutex::default(),
            told: AtomicU64::new(0),
            known: Default::default(),
            done: Default::default(),
        }
    }

    pub(super) fn check_interrupt(&self) -> Result<()> {
        if self.observer.interrupted() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// A message; after some of them, only counters go on.
    pub(super) fn warn(&self, text: &str) {
        match self.told.fetch_add(1, Ordering::Relaxed) {
            n if n < TOLD => self.observer.event(&Event::Warning(text)),
            TOLD => self.observer.event(&Event::Warning("more warnings follow; they are counted, not shown")),
            _ => {}
        }
    }

    /// Damage is always told: each is a file that is not there.
    pub(super) fn damage(&self, path: Vec<u8>, reason: String) {
        self.observer.event(&Event::Warning(&format!("/{} could not be restored: {reason}", escape(&path))));
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner).push(Damage { path, reason });
    }

    pub(super) fn any_damage(&self) -> bool {
        !self.damaged.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// An entry that the target refused. What will refuse every further entry ends the run.
    pub(super) fn target_error(&self, e: Error) -> Result<()> {
        const FATAL: [Errno; 7] =
            [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::MFILE, Errno::NFILE, Errno::NOMEM];
        let Error::Io { source, .. } = &e else { return Err(e) };
        if FATAL.iter().any(|f| source.raw_os_error() == Some(f.raw_os_error())) {
            return Err(e);
        }
        add(&self.counts.failed, 1);
        self.warn(&e.to_string());
        Ok(())
    }

    /// Notes what of an entry's metadata could not be applied.
    pub(super) fn applied(&self, parent: &[u8], name: &[u8], applied: &Applied) {
        for (aspect, e) in &applied.failed {
            add(&self.counts.metadata_failed, 1);
            let what = match aspect {
                Aspect::Owner => "owner".to_owned(),
                Aspect::Xattr(name) => format!("extended attribute {}", escape(name)),
                Aspect::Mode => "mode".to_owned(),
                Aspect::Times => "times".to_owned(),
            };
            self.warn(&format!("cannot set {what} of {}: {e}", escape(&join_path(parent, name))));
        }
    }

    /// Says how far the run is.
    pub(super) fn progress(&self, files: u64, bytes: u64) {
        let add = |c: &AtomicU64, n| c.fetch_add(n, Ordering::Relaxed) + n;
        let event = Event::Progress {
            files: add(&self.done.0, files),
            bytes: add(&self.done.1, bytes),
            total_files: self.known.0.load(Ordering::Relaxed),
            total_bytes: self.known.1.load(Ordering::Relaxed),
        };
        self.observer.event(&event);
    }

    pub(super) fn report(self) -> RestoreReport {
        let mut report = self.counts.report();
        report.damaged = self.damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.damaged.sort_by(|a, b| a.path.cmp(&b.path));
        report.damaged.dedup_by(|a, b| a.path == b.path);
        report
    }
}
