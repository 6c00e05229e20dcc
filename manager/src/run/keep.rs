//! What a policy lets go of a job's snapshots, pure.
//!
//! Kept true: nothing newer than the newest proven snapshot is looked at, so windows end there and a job that stands still
//! ages nothing out; a backup of an incomplete or suspicious source never stands for a slot that a sound one could have.

use bulla_engine::evidence::Evidence;
use bulla_engine::format::RunId;
use bulla_engine::format::tree::Timestamp;
use bulla_engine::retention::{Candidate, GroupBy, Plan, Policy, Refusal, plan};
use jiff::tz::TimeZone;
use std::collections::HashSet;

/// A snapshot as it is judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// For the planner.
    pub candidate: Candidate,
    /// Nothing of its source was missing.
    pub whole: bool,
}

/// Which of a job's snapshots go. None, if nothing is proven.
///
/// # Errors
/// As [`plan`]: the policy keeps nothing.
pub fn to_drop(
    snapshots: &[Judged],
    evidence: &Evidence,
    held: &HashSet<RunId>,
    policy: &Policy,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Vec<RunId>, Refusal> {
    let sound = |s: &&Judged| s.whole && evidence.is_sound(&s.candidate.id);
    let proven = |s: &&Judged| sound(s) && evidence.is_proven(&s.candidate.id, now.seconds);
    let Some(newest) = snapshots.iter().filter(proven).map(|s| s.candidate.time).max() else {
        return Ok(Vec::new());
    };
    // One group of all: what a job backs up may change its paths and its tags.
    let policy = Policy { group_by: GroupBy { host: false, paths: false, tags: false }, ..policy.clone() };
    let mut out = Vec::new();
    for wanted in [true, false] {
        let own = snapshots.iter().filter(|s| s.candidate.time <= newest && sound(s) == wanted);
        let candidates: Vec<Candidate> = own.map(|s| s.candidate.clone()).collect();
        let Plan { groups, .. } = plan(&candidates, held, &policy, now, zone)?;
        out.extend(groups.into_iter().flat_map(|g| g.remove));
    }
    Ok(out)
}
