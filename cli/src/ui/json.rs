//! The JSON that programs read. Names and meanings are restic's where there is one; they change only together
//! with [`SCHEMA`]. Bytes are integers, times RFC 3339 in UTC. Text that is not UTF-8 is given with replacement
//! characters, and whole as hexadecimal in a field beside it that ends in `_bytes`.

use super::format::utc_time;
use bulla_engine::format::id::to_hex;
use bulla_engine::format::snapshot::{Snapshot, Statistics};
use bulla_engine::format::tree::{Entry, EntryKind};
use bulla_engine::observer::EntryOutcome;
use serde::Serialize;

/// The version of everything in this file.
pub(crate) const SCHEMA: u32 = 1;

/// One line of JSON. What terminals obey beyond ASCII's control characters, which JSON escapes itself, is escaped too.
pub(crate) fn text(value: &impl Serialize) -> String {
    // Only maps with other than text keys can fail, and there are none.
    let plain = serde_json::to_string(value).unwrap_or_default();
    if !plain.chars().any(char::is_control) {
        return plain;
    }
    // Such characters stand in strings only.
    let mut out = String::with_capacity(plain.len() + 16);
    for c in plain.chars() {
        match c.is_control() {
            true => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => out.push(c),
        }
    }
    out
}

/// Raw bytes as text, and as hexadecimal when text loses something.
pub(crate) fn lossless(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(s) => (s.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(to_hex(bytes))),
    }
}

/// A notice or warning, on stderr.
#[derive(Serialize)]
pub(crate) struct Said<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) schema_version: u32,
    pub(crate) message: &'a str,
}

/// The last words of a command that failed, on stderr.
#[derive(Serialize)]
pub(crate) struct ExitError<'a> {
    pub(crate) message_type: &'static str,
    pub(crate) schema_version: u32,
    pub(crate) code: u8,
    pub(crate) message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<&'a str>,
}

/// One item that failed while the rest goes on, on stderr.
#[derive(Serialize)]
pub(crate) struct ItemError<'a> {
    message_type: &'static str,
    schema_version: u32,
    error: Message<'a>,
    during: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<String>,
}

#[derive(Serialize)]
struct Message<'a> {
    message: &'a str,
}

impl<'a> ItemError<'a> {
    /// An error about `item`.
    pub(crate) fn new(message: &'a str, item: Option<&[u8]>, during: &'static str) -> Self {
        let (item, item_bytes) = item.map(lossless).map_or((None, None), |(t, b)| (Some(t), b));
        Self {
            message_type: "error",
            schema_version: SCHEMA,
            error: Message { message },
            during,
            item,
            item_bytes,
        }
    }
}

/// How far a long run is.
#[derive(Serialize)]
pub(crate) struct Status {
    pub(crate) message_type: &'static str,
    pub(crate) schema_version: u32,
    pub(crate) seconds_elapsed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) seconds_remaining: Option<u64>,
    pub(crate) percent_done: f64,
    pub(crate) total_files: u64,
    pub(crate) files_done: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_done: u64,
    pub(crate) error_count: u64,
}

/// What became of one entry.
#[derive(Serialize)]
pub(crate) struct VerboseStatus {
    message_type: &'static str,
    schema_version: u32,
    action: &'static str,
    item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<String>,
    data_size: u64,
}

impl VerboseStatus {
    /// Of a path.
    pub(crate) fn new(path: &[u8], outcome: EntryOutcome, bytes: u64) -> Self {
        let (item, item_bytes) = lossless(path);
        let action = match outcome {
            EntryOutcome::New => "new",
            EntryOutcome::Changed => "changed",
            EntryOutcome::Unmodified => "unchanged",
        };
        Self {
            message_type: "verbose_status",
            schema_version: SCHEMA,
            action,
            item,
            item_bytes,
            data_size: bytes,
        }
    }
}

/// The counts of a run.
#[derive(Serialize)]
pub(crate) struct Counts {
    files_new: u64,
    files_changed: u64,
    files_unmodified: u64,
    dirs_new: u64,
    dirs_changed: u64,
    dirs_unmodified: u64,
    others: u64,
    data_blobs: u64,
    data_added: u64,
    data_added_packed: u64,
    data_read: u64,
    total_files_processed: u64,
    total_bytes_processed: u64,
    error_count: u64,
}

impl From<&Statistics> for Counts {
    fn from(s: &Statistics) -> Self {
        Self {
            files_new: s.files_new,
            files_changed: s.files_changed,
            files_unmodified: s.files_unmodified,
            dirs_new: s.dirs_new,
            dirs_changed: s.dirs_changed,
            dirs_unmodified: s.dirs_unmodified,
            others: s.others,
            data_blobs: s.data_chunks_new,
            data_added: s.data_bytes_new.saturating_add(s.meta_bytes_new),
            data_added_packed: s.stored_bytes,
            data_read: s.read_bytes,
            total_files_processed: s
                .files_new
                .saturating_add(s.files_changed)
                .saturating_add(s.files_unmodified),
            total_bytes_processed: s.total_bytes,
            error_count: s.errors,
        }
    }
}

/// What a run found and stored, inside a snapshot.
#[derive(Serialize)]
pub(crate) struct SnapshotSummary {
    backup_start: String,
    backup_end: String,
    #[serde(flatten)]
    counts: Counts,
}

/// A snapshot in lists.
#[derive(Serialize)]
pub(crate) struct SnapshotDocument {
    pub(crate) id: String,
    pub(crate) short_id: String,
    pub(crate) time: String,
    pub(crate) tree: String,
    pub(crate) hostname: String,
    pub(crate) username: String,
    pub(crate) paths: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) paths_bytes: Option<Vec<String>>,
    pub(crate) tags: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) excludes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) original: Option<String>,
    pub(crate) program_version: String,
    /// How far it is proven, in lists that say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) level: Option<u8>,
    pub(crate) summary: SnapshotSummary,
}

impl From<&Snapshot> for SnapshotDocument {
    fn from(s: &Snapshot) -> Self {
        let odd = s.paths.iter().any(|p| std::str::from_utf8(p).is_err());
        Self {
            id: s.id.to_string(),
            short_id: s.id.short(),
            time: utc_time(s.start),
            tree: s.tree.to_string(),
            hostname: s.host.clone(),
            username: s.user.clone(),
            paths: s.paths.iter().map(|p| lossless(p).0).collect(),
            paths_bytes: odd.then(|| s.paths.iter().map(|p| to_hex(p)).collect()),
            tags: s.tags.clone(),
            excludes: s.excludes.clone(),
            parent: s.parent.map(|p| p.to_string()),
            original: s.origin.map(|o| o.to_string()),
            program_version: s.program.clone(),
            level: None,
            summary: SnapshotSummary {
                backup_start: utc_time(s.start),
                backup_end: utc_time(s.end),
                counts: Counts::from(&s.statistics),
            },
        }
    }
}

/// The end of a backup.
#[derive(Serialize)]
pub(crate) struct BackupSummary {
    pub(crate) message_type: &'static str,
    pub(crate) schema_version: u32,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(crate) total_duration: f64,
    pub(crate) dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) snapshot_id: Option<String>,
    pub(crate) skipped_unchanged: bool,
}

/// The end of a restore.
#[derive(Serialize)]
pub(crate) struct RestoreSummary {
    pub(crate) message_type: &'static str,
    pub(crate) schema_version: u32,
    pub(crate) seconds_elapsed: u64,
    pub(crate) total_files: u64,
    pub(crate) files_restored: u64,
    pub(crate) files_unchanged: u64,
    pub(crate) files_skipped: u64,
    pub(crate) files_deleted: u64,
    pub(crate) files_verified: u64,
    pub(crate) total_bytes: u64,
    pub(crate) bytes_restored: u64,
    pub(crate) bytes_skipped: u64,
    pub(crate) error_count: u64,
    pub(crate) damaged_count: u64,
    pub(crate) dry_run: bool,
    /// A dry run: what content would be fetched for.
    pub(crate) packs_to_fetch: u64,
    pub(crate) bytes_to_fetch: u64,
    pub(crate) requests_to_make: u64,
}

/// A line of a restore's plan.
#[derive(Serialize)]
pub(crate) struct Planned {
    message_type: &'static str,
    schema_version: u32,
    action: String,
    item: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_bytes: Option<String>,
    size: u64,
}

impl Planned {
    /// What would be done to `path`.
    pub(crate) fn new(path: &[u8], action: String, size: u64) -> Self {
        let (item, item_bytes) = lossless(path);
        Self { message_type: "verbose_status", schema_version: SCHEMA, action, item, item_bytes, size }
    }
}

/// A node of `ls`.
#[derive(Serialize)]
pub(crate) struct NodeDocument {
    message_type: &'static str,
    struct_type: &'static str,
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    uid: u32,
    gid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    mode: u16,
    permissions: String,
    mtime: String,
    ctime: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    atime: Option<String>,
    inode: u64,
    links: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    linktarget_bytes: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_error: bool,
}

/// restic's word and `ls`'s letter for a kind of entry.
pub(crate) const fn kind_of(kind: &EntryKind) -> (&'static str, char) {
    match kind {
        EntryKind::File { .. } => ("file", '-'),
        EntryKind::Directory => ("dir", 'd'),
        EntryKind::Symlink { .. } => ("symlink", 'l'),
        EntryKind::Fifo => ("fifo", 'p'),
        EntryKind::Socket => ("socket", 's'),
        EntryKind::CharDevice { .. } => ("chardev", 'c'),
        EntryKind::BlockDevice { .. } => ("dev", 'b'),
    }
}

impl From<&Entry> for NodeDocument {
    fn from(e: &Entry) -> Self {
        let (kind, letter) = kind_of(&e.kind);
        let (path, path_bytes) = lossless(&[b"/", e.path().as_slice()].concat());
        let target = if let EntryKind::Symlink { target } = &e.kind { Some(lossless(target)) } else { None };
        let (linktarget, linktarget_bytes) = target.map_or((None, None), |(t, b)| (Some(t), b));
        Self {
            message_type: "node",
            struct_type: "node",
            name: lossless(&e.name).0,
            kind,
            path,
            path_bytes,
            uid: e.uid,
            gid: e.gid,
            size: matches!(e.kind, EntryKind::File { .. }).then(|| e.size()),
            mode: e.mode,
            permissions: super::format::permissions(letter, e.mode),
            mtime: utc_time(e.mtime),
            ctime: utc_time(e.ctime),
            atime: e.atime.map(utc_time),
            inode: e.inode,
            links: e.links,
            linktarget,
            linktarget_bytes,
            read_error: e.flags.read_error,
        }
    }
}
