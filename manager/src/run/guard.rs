//! What looks wrong with a backup by itself, or beside the one before it. No statistics: each rule says what it means, and
//! a false alarm costs a look. What looks wrong proves nothing and lets nothing go ([`bulla_engine::evidence`]).

use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::escape;

/// A source may shrink by this much, in per cent, from one backup to the next.
const SHRINK: u64 = 30;

/// How much a source has to hold before its shrinking says anything, in bytes.
const SMALL: u64 = 1 << 20;

/// What is wrong, each in a sentence.
pub fn findings(new: &Snapshot, before: Option<&Snapshot>) -> Vec<String> {
    let mut out = Vec::new();
    let (files, bytes) = (files(new), new.statistics.total_bytes);
    if files == 0 {
        out.push("there is no file in the source".to_owned());
    }
    if let Some(before) = before {
        let (had, lost) =
            (before.statistics.total_bytes, before.statistics.total_bytes.saturating_sub(bytes));
        if had >= SMALL && lost.saturating_mul(100) >= had.saturating_mul(SHRINK) {
            let share = lost.saturating_mul(100) / had.max(1);
            out.push(format!("the source is {share} % smaller than in snapshot {}", before.id.short()));
        }
        for path in before.paths.iter().filter(|p| !new.paths.contains(p)) {
            out.push(format!("{} was backed up before and is not there any more", escape(path)));
        }
    }
    out
}

/// Files in a snapshot.
pub fn files(s: &Snapshot) -> u64 {
    s.statistics.files_new + s.statistics.files_changed + s.statistics.files_unmodified
}
