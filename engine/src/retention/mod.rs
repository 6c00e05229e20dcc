//! Retention: which snapshots a policy keeps, why, and which it lets go. Pure: the snapshots, the time, the time zone
//! and the holds are given; nothing is read, nothing is removed.
//!
//! # What the rules mean
//!
//! The words are restic's. The snapshots of a *group* (same host and paths, unless told otherwise) are ranked newest
//! first; a *slot* is an hour, day, ISO week, month or year in a time zone, and the newest snapshot in it stands for it.
//! `Count(n)` keeps the newest n slots that have a snapshot, and while there are fewer, the oldest snapshot too (as
//! newer restics do).
//! `keep_within…` keeps what is not older than a duration, or one of each slot. All ages are measured from the newest
//! snapshot, not from now: where no backups are made, nothing ages.
//!
//! `Within(p)` for a slot is a *cover window*: all slots of the last p, and the newest slot before them. A slot goes
//! only when the next newer one is itself p old, so there is always one at least that old to go back to. Counts cannot
//! promise that: on any day "monthly 12" is this month and eleven others, and falls short of twelve months. Why windows
//! hold: a slot is dropped when a newer slot stands at or before the window's start. That one is not the slot of the
//! newest snapshot, so it gets no other representative, and is itself dropped only for one still nearer. Hence the
//! newest kept snapshot at or before any point of the window is of that point's slot, or of the last slot before it in
//! which anything was ever backed up. `simulation_tests` plays it day by day, with missed runs.
//!
//! # Whom a date is believed
//!
//! A snapshot's date is a claim of the client that signed it. A host that is stolen can add ten thousand snapshots with
//! any dates, hosts, paths and tags; they must not crowd out the good ones. But dates far from the day of arrival are
//! also quite usual (`--time`, copies from another repository) and must rank as restic's users expect. Hence:
//!
//! **A claimed date can keep a snapshot; what removes another is only when it arrived.**
//!
//! - *Lineages are ranked apart.* Within a group, the snapshots of each signer compete among themselves, so a stolen
//!   host cannot touch what others wrote, whatever host it claims.
//! - *A date is believed if the store received the snapshot at about that time*: within an hour for hourly rules, within
//!   a day for all others. The rest are *backdated*.
//! - *Views.* There is one ranking in which all that are backdated stand at the time they arrived; and for each storage
//!   day on which some arrived, one in which those that had come by then stand where they claim, and later ones where
//!   they arrived. What any view keeps is kept. So junk can displace older snapshots only as honest backups at the time
//!   of its arrival would: one slot, one day. An imported history is thinned by its own dates, and later honest
//!   backups displace it in the end. Where nothing is backdated there is one view, and the result is restic's.
//! - *`keep_last`* has no slots that could hold back a burst. It keeps the n newest, and besides the newest of each of
//!   the last n storage days on which any arrived. With one backup a day these are the same n.
//! - *The future.* What is dated, or was received, after now is kept, flagged, and uses up nothing. So are held ones,
//!   without the flag.
//! - *Contradictions.* A snapshot that names another as its predecessor was committed after it. If the store claims to
//!   have received them the other way round, its times are worthless (a repository copied file by file): rules about
//!   times then keep all of that lineage, until told to trust the clients ([`Policy::trust_client_times`]), which ranks
//!   everything exactly as restic does.
//!
//! Limits, knowingly: who holds a host for many days can add a snapshot on each, as honest backups would, and ages
//! counts accordingly (windows hold out by the calendar); the good backups of the day of a burst may lose their slots
//! to it; `keep_tags` believes tags; without storage times, or in what was copied in one go, all that came together is
//! believed alike. Who signs each snapshot with another client (a container whose machine name is random) has as many
//! lineages as snapshots, of which rules about times keep each newest: give it a fixed name, or trust client times.

mod group;
mod period;
mod plan;
mod policy;
#[cfg(test)]
mod property_tests;
mod rank;
mod reason;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod tests;

pub use group::{GroupBy, GroupKey};
pub use period::Period;
pub use plan::{Candidate, Contradiction, GroupPlan, Kept, Plan, Refusal, plan};
pub use policy::{Keep, Policy, Unit};
pub use reason::{Edge, Reason};
