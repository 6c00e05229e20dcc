//! What is to be done with one entry: a pure function of the entry, what lies in its place, and the options.

use super::{Overwrite, RestoreOptions};
use bulla_repo_format::tree::{Entry, EntryKind, Timestamp};
use rustix::fs::{FileType, Stat};
use std::fmt;

/// What lies in an entry's place.
#[derive(Debug, Clone, Default)]
pub(super) enum Fact {
    /// Nothing.
    #[default]
    Missing,
    /// Something.
    Present(Box<Found>),
}

/// What was found in an entry's place.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Its inode.
    pub(super) stat: Stat,
    /// How its content, link target or device number compares.
    pub(super) content: Comparison,
}

/// How content that is there compares with the snapshot's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Not compared, or not comparable.
    Unknown,
    /// Identical.
    Same,
    /// Of the right length; these of its chunk references are not what they should be.
    Differs(Vec<u32>),
}

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is there: make it.
    Create,
    /// Something else is there: remove that, make it.
    Replace,
    /// A file of the right length is there: write the chunks that differ.
    Rewrite,
    /// The content is right: set what metadata differs.
    Update,
    /// All is as it should be.
    Unchanged,
    /// The overwrite rule says to leave what is there.
    Keep,
    /// Becomes a hard link to a file restored before.
    Link,
    /// Its content was not readable when it was backed up: nothing to restore.
    Unreadable,
    /// A device, which only the superuser restores, and only if asked to.
    Forbidden,
    /// In the target, not in the snapshot: remove it.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Replace => "replace",
            Self::Rewrite => "rewrite",
            Self::Update => "update",
            Self::Unchanged => "unchanged",
            Self::Keep => "keep",
            Self::Link => "link",
            Self::Unreadable => "unreadable",
            Self::Forbidden => "forbidden",
            Self::Delete => "delete",
        })
    }
}

/// The type of inode an entry becomes.
pub(super) const fn file_type(kind: &EntryKind) -> FileType {
    match kind {
        EntryKind::File { .. } => FileType::RegularFile,
        EntryKind::Directory => FileType::Directory,
        EntryKind::Symlink { .. } => FileType::Symlink,
        EntryKind::Fifo => FileType::Fifo,
        EntryKind::Socket => FileType::Socket,
        EntryKind::CharDevice { .. } => FileType::CharacterDevice,
        EntryKind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

#[allow(clippy::unnecessary_cast, reason = "field types differ between architectures")]
fn mtime(stat: &Stat) -> Timestamp {
    Timestamp { seconds: stat.st_mtime as i64, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) }
}

fn right_type(entry: &Entry, stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == file_type(&entry.kind)
}

/// True when the overwrite rule leaves what is there alone.
pub(super) fn keeps(entry: &Entry, stat: &Stat, overwrite: Overwrite) -> bool {
    match overwrite {
        Overwrite::Always | Overwrite::IfChanged => false,
        Overwrite::IfNewer => entry.mtime <= mtime(stat),
        Overwrite::Never => true,
    }
}

fn looks_the_same(entry: &Entry, stat: &Stat) -> bool {
    u64::try_from(stat.st_size).ok() == Some(entry.size()) && mtime(stat) == entry.mtime
}

/// True when the file that is there must be read to decide.
pub(super) fn needs_comparison(entry: &Entry, stat: &Stat, options: &RestoreOptions) -> bool {
    let file = matches!(entry.kind, EntryKind::File { .. }) && right_type(entry, stat);
    file && !entry.flags.read_error
        && u64::try_from(stat.st_size).ok() == Some(entry.size())
        && !keeps(entry, stat, options.overwrite)
        && !(options.overwrite == Overwrite::IfChanged && looks_the_same(entry, stat))
}

/// What metadata an entry is to have, as far as a stat shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Intended {
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner, if it is restored.
    pub(super) owner: Option<(u32, u32)>,
    /// Devices may be made.
    pub(super) devices: bool,
}

/// Decides about anything but a hard link.
pub(super) fn decide(entry: &Entry, fact: &Fact, intended: Intended, options: &RestoreOptions) -> Action {
    if entry.flags.read_error && !matches!(entry.kind, EntryKind::Directory) {
        return Action::Unreadable;
    }
    let device = matches!(entry.kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. });
    if device && !intended.devices {
        return Action::Forbidden;
    }
    let Fact::Present(found) = fact else { return Action::Create };
    let stat = &found.stat;
    if keeps(entry, stat, options.overwrite) {
        return Action::Keep;
    }
    if !right_type(entry, stat) {
        return Action::Replace;
    }
    if entry.is_dir() {
        return Action::Update;
    }
    let trusted = options.overwrite == Overwrite::IfChanged && looks_the_same(entry, stat);
    let shared = matches!(entry.kind, EntryKind::File { .. }) && stat.st_nlink > 1;
    match &found.content {
        Comparison::Same => {}
        Comparison::Unknown if trusted => {}
        Comparison::Differs(_) if !shared => return Action::Rewrite,
        _ => return Action::Replace,
    }
    if !shared {
        return Action::Update;
    }
    // Another name of this inode may lie anywhere: it is left as it is, or replaced, never changed.
    let mode = stat.st_mode & 0o7777 == intended.mode;
    let owner = intended.owner.is_none_or(|o| o == (stat.st_uid, stat.st_gid));
    if mode && owner && mtime(stat) == entry.mtime { Action::Unchanged } else { Action::Replace }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
