//! Every rule broken once: each must lose data, or the rule (or this model) is idle. Each test prints a shortest way.
//!
//! The first list is that of the design's Python model, with traces of the same lengths. The second negates each fact
//! the engine's decisions look at; a fact whose neglect only keeps more (a death, an unreadable victim) is not there.

use crate::holds::search;
use crate::rules::{Bounds, Broken, Decisions, Rules};
use bulla_engine::protocol::{self, Fate, Outcome};

const REAL: Decisions = Decisions::REAL;
const ONE: Bounds = Bounds::ONE;
/// Two collectors, nothing else.
const PAIR: Bounds = Bounds::of(1, 2, [1, 0, 0, 0, 1, 1]);
/// Two collectors with an upload.
const PAIR_UPLOAD: Bounds = Bounds { uploads: 1, ..PAIR };
/// And with copies.
const PAIR_COPIES: Bounds = Bounds { copies: 1, ..PAIR_UPLOAD };
/// Two writers, nothing else.
const WRITERS: Bounds = Bounds::of(2, 1, [1, 0, 0, 0, 1, 1]);
/// One writer that only relies.
const BARE: Bounds = Bounds { uploads: 0, restarts: 0, copies: 0, ..ONE };

const fn broken(broken: Broken) -> Rules {
    Rules::DESIGN.breaking(broken)
}

const fn deciding(decide: Decisions) -> Rules {
    Rules { decide, ..Rules::DESIGN }
}

const fn counting(decide: Decisions) -> Rules {
    Rules { count_copies: true, ..deciding(decide) }
}

fn loses(name: &str, what: &str, steps: usize, rules: Rules, bounds: Bounds) {
    let found = search(bounds, rules);
    let loss =
        found.loss.unwrap_or_else(|| panic!("{name}: {what}: nothing lost in {} states", found.states));
    let trace = loss.trace;
    println!(
        "{name}: {what}\n  {} in {} steps, {} states: {}",
        loss.why,
        trace.len(),
        found.states,
        trace.join(" | ")
    );
    assert_eq!(trace.len(), steps, "{name}: length of the shortest trace");
}

macro_rules! mutants {
    ($($name:ident: $what:literal, $steps:literal, $rules:expr, $bounds:expr;)*) => {
        $(#[test]
        fn $name() {
            loses(stringify!($name), $what, $steps, $rules, $bounds);
        })*
    };
}

mutants! {
    noann: "uploads and relies before any announcement", 10, broken(Broken::NoAnnouncement).no_donors(), ONE;
    ownlate: "run opened only after its packs were put, own packs not verified", 11,
        broken(Broken::OpenedLate).no_donors(), ONE;
    nomarks: "writer does not LIST marks after announcing", 10, broken(Broken::NoMarks).no_donors(), ONE;
    noexist: "writer does not check that the pack exists", 12, broken(Broken::NoExistence).no_donors(), ONE;
    swapverify: "writer checks existence before marks", 13, broken(Broken::ExistenceFirst).no_donors(), ONE;
    verifyfirst: "writer verifies, then announces", 12, broken(Broken::VerifyFirst).no_donors(), ONE;
    norever: "void run reopened without verifying again", 13, broken(Broken::NoSecondVerify).no_donors(), ONE;
    norescan: "collector does not list roots again after marking", 9, broken(Broken::NoRescan).no_donors(), ONE;
    snapfirst: "collector lists snap/ before pend/", 11, broken(Broken::SnapFirst).no_donors(), ONE;
    diffnames: "collector skips announcements whose name it saw at g1", 10,
        broken(Broken::KnownNames).no_donors(), ONE;
    reuse: "announcement expired by DELETE, name put again, commit = rename", 12,
        broken(Broken::NamesReused).no_donors(), ONE;
    cancel: "author may cancel a mark that others may carry out", 16, broken(Broken::Cancel).no_donors(), PAIR;
    resame: "rescue puts the same pack name again", 21, broken(Broken::SamePackName).no_donors(), PAIR;
    dup: "late duplicate PUT and DELETE of a pack; may_delete without a grave", 15,
        Rules {
            duplicates: true,
            ..deciding(Decisions { may_delete: |f, copies, _| protocol::may_delete(f, copies, true), ..REAL })
        }.no_donors(), ONE;
    twoobj: "commit by PUT snap, HEAD pend: dangling snapshot becomes a parent", 14, broken(Broken::TwoObjects), WRITERS;
    nodonor: "parent reused without looking at it again: may_donate, however it looks", 8,
        deciding(Decisions { may_donate: |announced, _| announced, ..REAL }), ONE;
    donorbefore: "parent seen alive before the pin was put: may_donate, announced or not", 8,
        Rules { broken: Broken::DonorFirst, ..deciding(Decisions { may_donate: |_, alive| alive, ..REAL }) }, ONE;
    supersede: "pin deleted when a later checkpoint lands", 9, broken(Broken::PinSuperseded), ONE;
    inherit: "pin taken over from a run that had not verified it: may_inherit, verified or not", 9,
        deciding(Decisions { may_inherit: |run, _| run == Outcome::Open, ..REAL }), WRITERS;
    gonefirst: "g3 lists gone/ before snap/ while forgotten snap/ objects are being removed", 10,
        Rules { split: true, ..broken(Broken::GoneFirst) }, BARE;
    lostmark: "mark not durable: storage server crashes under living clients", 13,
        broken(Broken::MarkLost).no_donors(), ONE;
    lostpend: "announcement not durable: storage server crashes under living clients", 11,
        broken(Broken::AnnouncementLost).no_donors(), ONE;
    latedeath: "snapshot forgotten after g1 is not a root at g3", 8,
        deciding(Decisions { is_root: |seen, dead_now| protocol::is_root(seen) && !dead_now, ..REAL }), BARE;
    nocopy: "copies are counted, live runs protected by pack name only: is_needed without shielded packs", 19,
        counting(Decisions { is_needed: |root, pin, _| root || pin, ..REAL }).no_donors(), PAIR_UPLOAD;
}

/// Beyond the design's list.
mod decisions {
    use super::*;

    mutants! {
        rely_on_marked: "may_rely, marked or not", 12,
            deciding(Decisions { may_rely: |_, there| there, ..REAL }).no_donors(), ONE;
        rely_on_missing: "may_rely, there or not", 13,
            deciding(Decisions { may_rely: |marked, _| !marked, ..REAL }).no_donors(), ONE;
        dead_is_alive: "alive, gone or not", 8,
            deciding(Decisions { alive: |outcome, _| outcome == Outcome::Committed, ..REAL }), BARE;
        inherit_from_void: "may_inherit, with any verdict", 11,
            deciding(Decisions { may_inherit: |_, verified| verified, ..REAL }), WRITERS;
        roots_before_only: "is_root only what was seen before the mark", 11,
            Rules {
                remember: true,
                ..deciding(Decisions { is_root: |s, _| s.before_mark && !s.dead_before_mark, ..REAL })
            }.no_donors(), ONE;
        announcements_ignored: "announcement_counts never", 10,
            deciding(Decisions { announcement_counts: |_| false, ..REAL }).no_donors(), ONE;
        roots_unneeded: "is_needed without roots", 5,
            deciding(Decisions { is_needed: |_, pin, shielded| pin || shielded, ..REAL }).no_donors(), ONE;
        pins_unneeded: "is_needed without pins", 8,
            deciding(Decisions { is_needed: |root, _, shielded| root || shielded, ..REAL }), BARE;
        shield_ignored: "fate, shielded or not", 10,
            deciding(Decisions { fate: |_, needed, readable| protocol::fate(false, needed, readable), ..REAL })
                .no_donors(), ONE;
        need_ignored: "fate, needed or not", 5,
            deciding(Decisions { fate: |shielded, _, readable| protocol::fate(shielded, false, readable), ..REAL }), BARE;
        unreadable_swept: "fate, unreadable but needed", 5,
            deciding(Decisions {
                fate: |shielded, needed, readable| protocol::fate(shielded, needed && readable, readable),
                ..REAL
            }), BARE;
        marked_copy: "copy_counts, marked or not", 7,
            counting(Decisions { copy_counts: |_, listed, verified| listed && verified, ..REAL }).no_donors(),
            PAIR_COPIES;
        missing_copy: "copy_counts, there or not", 17,
            counting(Decisions { copy_counts: |marked, _, _| !marked, ..REAL }).no_donors(), PAIR_COPIES;
        deleted_before_copied: "may_delete, copied or not", 5,
            deciding(Decisions { may_delete: |f, _, grave| f != Fate::Leave && grave, ..REAL }), ONE;
        void_on_weak_store: "may_void without an exact put-if-absent", 11,
            Rules {
                exact_puts: false,
                ..deciding(Decisions { may_void: |outcome, _, _| outcome == Outcome::Open, ..REAL })
            }.no_donors(), ONE;
        shielded_read_late: "copies counted, shielded packs read after snap/ was listed", 21,
            Rules { split: true, ..counting(REAL) }.no_donors(), PAIR_UPLOAD;
    }
}
