//! The decisions of the prune protocol (SPEC 14), apart from every request: what may be relied on, what is a root,
//! what may be swept, deleted, voided.
//!
//! Pure, so that the engine and the exhaustive model (`tests/model`) decide with the same lines. Arguments are facts
//! together with *when* they were seen; the orders behind them are the protocol's, and the callers'.

/// What `snap/<run>` said when it was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing is there: the run may still commit.
    Open,
    /// A snapshot.
    Committed,
    /// VOID: the run can never commit.
    Void,
}

/// True if a snapshot is alive: it was committed and, looked at after that, no death is there.
pub fn alive(outcome: Outcome, gone: bool) -> bool {
    outcome == Outcome::Committed && !gone
}

/// w0: a pin donates its chunks without any look at packs if it was announced, durably, *before* its snapshot was
/// seen alive.
pub fn may_donate(announced: bool, alive_after_that: bool) -> bool {
    announced && alive_after_that
}

/// w0: what a run pins is inherited from a run without verdict only if that run announced the pin as verified.
pub fn may_inherit(run: Outcome, announced_as_verified: bool) -> bool {
    run == Outcome::Open && announced_as_verified
}

/// w3: a pack of another run may be relied on if, after it was announced, no mark names it, and after *that* it is
/// there whole.
pub fn may_rely(marked_after_announcing: bool, present_after_marks: bool) -> bool {
    !marked_after_announcing && present_after_marks
}

/// When a snapshot was seen by a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// In the listing before the mark (g1).
    pub before_mark: bool,
    /// In the listing after the announcements, which is after the mark (g3).
    pub after_pend: bool,
    /// Its death was read before the mark (g1). A later death counts in the next cycle.
    pub dead_before_mark: bool,
}

/// g3: what a collector must keep.
pub fn is_root(seen: Sighting) -> bool {
    (seen.before_mark || seen.after_pend) && !seen.dead_before_mark
}

/// g3: an announcement that stands after the mark protects its pins, the packs it names and those stamped with its
/// run, unless its run had a verdict before the mark.
pub fn announcement_counts(outcome_before_mark: Outcome) -> bool {
    outcome_before_mark == Outcome::Open
}

/// g4: whether a chunk must outlive its pack: a root needs it, or a pin that counts, or it lies (also) in a pack that
/// is shielded. The last matters to collectors that count copies ([`copy_counts`]): what a run without verdict relies
/// on may be the copy that another collector counted, and then swept.
///
/// What shielded packs hold must be read *after* `pend/` and *before* `snap/` is listed (`tests/model`,
/// `shielded_read_late`). A pack that is missing then belongs to a run whose verdict that listing will show. Read
/// later, it may be missing because its run committed meanwhile, unseen, and another collector swept it for the sake
/// of the very copy that this one is about to delete.
pub fn is_needed(from_root: bool, from_pin: bool, in_shielded_pack: bool) -> bool {
    from_root || from_pin || in_shielded_pack
}

/// g4: what becomes of a victim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fate {
    /// Its mark stays, its bytes stay: the next cycle looks again.
    Leave,
    /// Nothing in it is needed.
    Delete,
    /// What is needed must be copied first, durably, and read back.
    CopyThenDelete,
}

/// g4: the fate of a marked pack. `shielded`: named by, or stamped with, a run whose announcement counts. `needed`: it
/// holds a chunk that a root needs and that has no copy [`copy_counts`] accepts. `readable`: all of those can be read.
pub fn fate(shielded: bool, needed: bool, readable: bool) -> Fate {
    match (shielded, needed, readable) {
        (true, _, _) | (false, true, false) => Fate::Leave,
        (false, false, _) => Fate::Delete,
        (false, true, true) => Fate::CopyThenDelete,
    }
}

/// g4: a chunk in another pack counts as a copy if the pack was in a listing made *after* a listing of marks that does
/// not name it, both after the own mark and before the announcements were listed, and if the chunk was read and
/// verified. Chunks of packs that counting announcements name are needed then, whoever refers to them.
pub fn copy_counts(marked: bool, listed_after_marks: bool, verified: bool) -> bool {
    !marked && listed_after_marks && verified
}

/// g5: a victim may be deleted once its copies and its grave are durable.
pub fn may_delete(fate: Fate, copies_durable: bool, grave_durable: bool) -> bool {
    let safe = match fate {
        Fate::Leave => false,
        Fate::Delete => true,
        Fate::CopyThenDelete => copies_durable,
    };
    safe && grave_durable
}

/// g0: a run may be declared void by a put-if-absent of its verdict, on a store where exactly one put wins, or by a
/// human who knows that it is dead.
pub fn may_void(outcome: Outcome, exact_put_if_absent: bool, assumed_dead: bool) -> bool {
    outcome == Outcome::Open && (exact_put_if_absent || assumed_dead)
}
