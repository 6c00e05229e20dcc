//! What is due: runs of jobs and their drills, from what is on record. Pure; `run --due`, `drill --due` and the daemon ask
//! here, so that they agree.
//!
//! Kept true: what is not known is not "never"; what is dated in the future (a clock was wrong) is not the last; what was
//! tried and left no record is not tried again at once.

use crate::config::{Config, Job, Missed};
use crate::schedule::Schedule;
use crate::status::{Facts, missed};
use bulla_engine::format::ledger::{Drill, DrillKind, JobRun};
use jiff::tz::TimeZone;

/// Clocks of machines that report on each other may differ by so many seconds.
pub const SKEW: i64 = 600;

/// What was tried without a word on record is tried again after so many seconds.
const AGAIN: i64 = 3600;

/// Who asks, and when.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The job's name.
    pub name: &'a str,
    /// The job.
    pub job: &'a Job,
    /// The host it is about.
    pub host: &'a str,
    /// What is on record.
    pub facts: &'a Facts,
    /// Now, in seconds.
    pub now: i64,
}

/// The newest run that can be: one that began after now is of a clock that was wrong.
pub fn last<'r>(runs: &[(i64, &'r JobRun)], now: i64) -> Option<&'r JobRun> {
    runs.iter().rfind(|(_, run)| has_begun(run, now)).map(|(_, run)| *run)
}

/// True but for a run of a clock that was wrong.
pub fn has_begun(run: &JobRun, now: i64) -> bool {
    run.start.seconds <= now.saturating_add(SKEW)
}

impl Question<'_> {
    fn zone(&self) -> TimeZone {
        self.config.host.zone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.clone())
    }

    fn next(&self, schedule: &Schedule, after: i64) -> Option<i64> {
        let after = jiff::Timestamp::from_second(after).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        schedule.next(&after.to_zoned(self.zone())).map(|next| next.timestamp().as_second())
    }

    /// Something of the job's destinations is not known.
    fn blind(&self) -> bool {
        let read = |to: &str| matches!(self.facts.holdings.get(to), Some(Ok(_)));
        !self.job.to.iter().all(|to| read(&to.value))
    }

    /// When the next run is due, in seconds: now or earlier if it is due now; none without a schedule. `tried` is when one was
    /// last begun here, whether or not it left a word.
    pub fn run(&self, tried: Option<i64>) -> Option<i64> {
        let schedule = &self.job.schedule.as_ref()?.value;
        let tried = tried.filter(|at| *at <= self.now.saturating_add(SKEW));
        let runs = self.facts.runs(self.name, self.host);
        let recorded = last(&runs, self.now).map(|run| run.start.seconds);
        // Where not all can be read, the newest run may be on record where it cannot be seen.
        let last = if self.blind() { recorded.max(tried) } else { recorded };
        let Some(last) = last else { return Some(self.later(self.now, schedule, tried)) };
        let (count, next) = missed(schedule, last, self.now, &self.zone());
        let at = if count > 0 && self.job.missed == Missed::RunOnce { self.now } else { next? };
        Some(if tried.is_some_and(|tried| tried > last) { self.later(at, schedule, tried) } else { at })
    }

    /// Not at once again, and not later than it is due the next time.
    fn later(&self, at: i64, schedule: &Schedule, tried: Option<i64>) -> i64 {
        let Some(tried) = tried else { return at };
        let again = tried.saturating_add(AGAIN);
        at.max(self.next(schedule, tried).map_or(again, |next| next.min(again)))
    }

    /// Which drill is due next, and when: of several that are due now the one that proves most, since it stands for the
    /// others. `tried` as for [`Question::run`], of any drill of the job.
    pub fn drill(&self, tried: Option<i64>) -> Option<(DrillKind, i64)> {
        let runs = self.facts.runs(self.name, self.host);
        if !runs.iter().any(|(_, run)| run.copies.iter().any(|copy| copy.snapshot.is_some())) {
            return None;
        }
        let tried = tried.filter(|at| *at <= self.now.saturating_add(SKEW));
        let drills = self.facts.drills(self.name, self.host);
        let mut first: Option<(DrillKind, i64)> = None;
        for (kind, schedule) in timetable(self.job) {
            let last = self.newest(&drills, kind, false);
            let mut at = last.map_or(Some(self.now), |last| self.next(schedule, last))?;
            if let Some(tried) = tried.filter(|tried| Some(*tried) > last) {
                at = at.max(tried.saturating_add(AGAIN));
            }
            let sooner = first.is_none_or(|(_, first)| at < first && first > self.now);
            if sooner {
                first = Some((kind, at));
            }
        }
        first
    }

    /// When the newest drill began that stands for one of this kind.
    fn newest(&self, drills: &[(i64, &Drill)], kind: DrillKind, passed: bool) -> Option<i64> {
        let of = |d: &&Drill| {
            covers(d.kind, kind)
                && (!passed || d.outcome == 0)
                && d.start.seconds <= self.now.saturating_add(SKEW)
        };
        drills.iter().map(|(_, drill)| *drill).filter(of).map(|d| d.start.seconds).max()
    }

    /// Drills that the timetable wants and that have not passed in time: which, and when the last one passed.
    pub fn overdue(&self) -> Vec<(DrillKind, Option<i64>)> {
        let drills = self.facts.drills(self.name, self.host);
        let late = |schedule: &Schedule, last: i64| {
            let due = self.next(schedule, last)?;
            let gap = self.next(schedule, due).map_or(0, |after| after - due);
            (due + (gap / 10).max(2 * 3600) < self.now).then_some(())
        };
        let wanted = timetable(self.job).into_iter().map(|(kind, schedule)| {
            let last = self.newest(&drills, kind, true);
            (kind, last, last.is_none_or(|last| late(schedule, last).is_some()))
        });
        wanted.filter(|(_, _, late)| *late).map(|(kind, last, _)| (kind, last)).collect()
    }
}

/// The drills that have a schedule, the one that proves most first.
fn timetable(job: &Job) -> Vec<(DrillKind, &Schedule)> {
    let drill = &job.drill;
    let all = [
        (DrillKind::Application, &drill.app),
        (DrillKind::Full, &drill.full),
        (DrillKind::Sample, &drill.sample),
    ];
    all.into_iter().filter_map(|(kind, at)| Some((kind, &at.as_ref()?.value.0))).collect()
}

/// A drill that was made stands for another kind: a judgement of everything for a restore of everything, and that for one of
/// a sample.
fn covers(made: DrillKind, wanted: DrillKind) -> bool {
    let rank = |kind| matches!(kind, DrillKind::Full | DrillKind::Application);
    made == wanted
        || made == DrillKind::Application && wanted == DrillKind::Full
        || rank(made) && wanted == DrillKind::Sample
}

#[cfg(test)]
#[path = "due_tests.rs"]
mod tests;
