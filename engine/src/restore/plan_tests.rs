//! The decision table, without a disk: made-up entries against made-up facts.

use super::*;
use crate::restore::RestoreOptions;
use bulla_repo_format::tree::{Block, Content, EntryFlags};
use std::sync::Arc;

const ROOT: Intended = Intended { mode: 0o644, owner: Some((1, 2)), devices: true };
const NOBODY: Intended = Intended { mode: 0o644, owner: None, devices: false };

fn entry(kind: EntryKind) -> Entry {
    Entry {
        parent: Arc::from([]),
        name: b"x".to_vec(),
        kind,
        mode: 0o644,
        uid: 1,
        gid: 2,
        mtime: Timestamp { seconds: 1000, nanos: 5 },
        ctime: Timestamp::default(),
        btime: None,
        atime: None,
        mount: 0,
        inode: 7,
        links: 1,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    }
}

fn file(size: u64) -> Entry {
    entry(EntryKind::File { size, holes: Block::None, content: Content::default() })
}

/// The facts of a real file, changed at will.
fn found(change: impl FnOnce(&mut Stat), content: Comparison) -> Fact {
    let mut stat = rustix::fs::stat("/proc/self/exe").unwrap();
    stat.st_mode = 0o100_644;
    (stat.st_uid, stat.st_gid, stat.st_nlink, stat.st_size) = (1, 2, 1, 10);
    (stat.st_mtime, stat.st_mtime_nsec) = (1000, 5);
    change(&mut stat);
    Fact::Present(Box::new(Found { stat, content }))
}

fn options(overwrite: Overwrite) -> RestoreOptions {
    RestoreOptions { overwrite, ..RestoreOptions::default() }
}

#[test]
fn nothing_there() {
    for overwrite in [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never] {
        let o = options(overwrite);
        for e in [file(10), entry(EntryKind::Directory), entry(EntryKind::Fifo)] {
            assert_eq!(decide(&e, &Fact::Missing, ROOT, &o), Action::Create);
        }
        let device = entry(EntryKind::CharDevice { major: 1, minor: 3 });
        assert_eq!(decide(&device, &Fact::Missing, ROOT, &o), Action::Create);
        assert_eq!(decide(&device, &Fact::Missing, NOBODY, &o), Action::Forbidden);
        let mut unread = file(10);
        unread.flags.read_error = true;
        assert_eq!(decide(&unread, &Fact::Missing, ROOT, &o), Action::Unreadable);
        assert_eq!(decide(&unread, &found(|_| {}, Comparison::Unknown), ROOT, &o), Action::Unreadable);
    }
}

#[test]
fn a_file_is_there() {
    let always = options(Overwrite::Always);
    let differs = || Comparison::Differs(vec![3]);
    let case = |change: fn(&mut Stat), content| decide(&file(10), &found(change, content), ROOT, &always);
    assert_eq!(case(|_| {}, Comparison::Same), Action::Update);
    assert_eq!(case(|_| {}, differs()), Action::Rewrite);
    assert_eq!(case(|s| s.st_size = 11, Comparison::Unknown), Action::Replace);
    assert_eq!(case(|s| s.st_mode = 0o120_777, Comparison::Unknown), Action::Replace);
    assert_eq!(case(|s| s.st_mode = 0o040_755, Comparison::Unknown), Action::Replace);
    // An inode with other names is never changed: it is right as it is, or replaced.
    assert_eq!(case(|s| s.st_nlink = 2, Comparison::Same), Action::Unchanged);
    assert_eq!(case(|s| s.st_nlink = 2, differs()), Action::Replace);
    for change in [
        |s: &mut Stat| (s.st_nlink, s.st_uid) = (2, 0),
        |s: &mut Stat| (s.st_nlink, s.st_mode) = (2, 0o100_666),
        |s: &mut Stat| (s.st_nlink, s.st_mtime) = (2, 1),
    ] {
        assert_eq!(case(change, Comparison::Same), Action::Replace);
    }
}

#[test]
fn overwrite_rules() {
    let same = || found(|_| {}, Comparison::Unknown);
    let older = || found(|s| s.st_mtime = 999, Comparison::Differs(vec![0]));
    let newer = || found(|s| s.st_mtime = 1001, Comparison::Differs(vec![0]));
    let act = |fact: Fact, overwrite| decide(&file(10), &fact, ROOT, &options(overwrite));
    assert_eq!(act(same(), Overwrite::IfChanged), Action::Update);
    assert_eq!(act(newer(), Overwrite::IfChanged), Action::Rewrite);
    assert_eq!(act(older(), Overwrite::IfNewer), Action::Rewrite);
    assert_eq!(act(same(), Overwrite::IfNewer), Action::Keep);
    assert_eq!(act(newer(), Overwrite::IfNewer), Action::Keep);
    for fact in [same(), older(), newer()] {
        assert_eq!(act(fact, Overwrite::Never), Action::Keep);
    }
    let wrong = found(|s| s.st_mode = 0o040_755, Comparison::Unknown);
    assert_eq!(act(wrong, Overwrite::Never), Action::Keep);
}

#[test]
fn what_must_be_read_to_decide() {
    let asks = |fact: Fact, overwrite| match &fact {
        Fact::Present(f) => needs_comparison(&file(10), &f.stat, &options(overwrite)),
        Fact::Missing => false,
    };
    let same = || found(|_| {}, Comparison::Unknown);
    assert!(asks(same(), Overwrite::Always));
    assert!(!asks(same(), Overwrite::IfChanged));
    assert!(asks(found(|s| s.st_mtime = 3, Comparison::Unknown), Overwrite::IfChanged));
    assert!(!asks(same(), Overwrite::Never));
    assert!(!asks(found(|s| s.st_size = 9, Comparison::Unknown), Overwrite::Always));
    assert!(!asks(found(|s| s.st_mode = 0o120_777, Comparison::Unknown), Overwrite::Always));
}
