//! Whether an entry is as it was: pure, so that the rules of change detection are a table test.

use bulla_repo_format::tree::{Entry, EntryKind, Timestamp};

/// What may be left out of the comparison.
#[derive(Debug, Clone, Copy, Default)]
pub struct Comparison {
    /// File systems that invent inode numbers.
    pub ignore_inode: bool,
    /// File systems, or tools, that touch change times.
    pub ignore_ctime: bool,
}

/// Seconds within which a change after the last scan may carry the old time stamp (ext4 and NFS count in jiffies
/// or seconds): an entry that changed this shortly before the scan is read again.
const RACY_SECONDS: i64 = 2;

/// True when `now` is what `before` was, so that its content needs no reading. `scan` is when the run that captured
/// `before` began.
pub fn is_unchanged(now: &Entry, before: &Entry, scan: Timestamp, how: Comparison) -> bool {
    let kind = match (&now.kind, &before.kind) {
        (EntryKind::File { size: a, .. }, EntryKind::File { size: b, .. }) => a == b,
        (EntryKind::Symlink { .. }, EntryKind::Symlink { .. }) => true,
        (a, b) => a == b,
    };
    let sound = !before.flags.changed_during_read && !before.flags.read_error;
    let times = now.mtime == before.mtime && (how.ignore_ctime || now.ctime == before.ctime);
    let inode = how.ignore_inode || now.inode == before.inode;
    let newest = if how.ignore_ctime { before.mtime } else { before.ctime };
    let settled = newest.seconds < scan.seconds.saturating_sub(RACY_SECONDS);
    // Implied ancestors carry no times to compare; there are few of them.
    let timed = !now.flags.implied;
    kind && sound && times && inode && settled && timed
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::tree::{Block, ChunkRef, Content, EntryFlags};
    use std::sync::Arc;

    fn file() -> Entry {
        let at = Timestamp { seconds: 1000, nanos: 5 };
        let content =
            Content::Inline(vec![ChunkRef { id: bulla_repo_format::ChunkId::new([1; 32]), len: 9 }]);
        Entry {
            parent: Arc::from(&b"a"[..]),
            name: b"b".to_vec(),
            kind: EntryKind::File { size: 9, holes: Block::None, content },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: at,
            ctime: at,
            btime: None,
            atime: None,
            mount: 0,
            inode: 7,
            links: 1,
            xattrs: Block::None,
            flags: EntryFlags::default(),
        }
    }

    #[test]
    fn the_rules_one_by_one() {
        let scan = Timestamp { seconds: 1003, nanos: 0 };
        let strict = Comparison::default();
        let same = |change: fn(&mut Entry), how| {
            let (mut now, before) = (file(), file());
            change(&mut now);
            is_unchanged(&now, &before, scan, how)
        };
        assert!(same(|_| {}, strict));
        assert!(!same(|e| e.mtime.nanos += 1, strict));
        assert!(!same(|e| e.ctime.nanos += 1, strict));
        assert!(!same(|e| e.inode += 1, strict));
        assert!(!same(
            |e| e.kind = EntryKind::File { size: 8, holes: Block::None, content: Content::default() },
            strict
        ));
        assert!(!same(|e| e.kind = EntryKind::Fifo, strict));
        assert!(same(|e| e.ctime.nanos += 1, Comparison { ignore_ctime: true, ..strict }));
        assert!(same(|e| e.inode += 1, Comparison { ignore_inode: true, ..strict }));
        assert!(same(|e| e.mode = 0o600, strict), "a new mode comes with a new ctime");
    }

    #[test]
    fn a_racy_or_unsound_predecessor_is_read_again() {
        let (now, mut before) = (file(), file());
        let racy = Timestamp { seconds: 1002, nanos: 999 };
        assert!(!is_unchanged(&now, &before, racy, Comparison::default()));
        let later = Timestamp { seconds: 2000, nanos: 0 };
        before.flags.changed_during_read = true;
        assert!(!is_unchanged(&now, &before, later, Comparison::default()));
    }
}
