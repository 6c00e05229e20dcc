//! Whether jobs keep their promises, judged from what is on record and nothing else. Pure, but for [`Facts::gather`].
//!
//! Kept true: what is not known is not good; a job is OK only with a whole backup that is proven to read back, no older than
//! was promised, and a restore that was tried.

mod facts;

pub use facts::{Facts, Holding};

use crate::config::{At, Class, Config, Job};
use crate::due::{self, Question};
use crate::outcome::Outcome;
use crate::schedule::Schedule;
use bulla_engine::forget::job_of;
use bulla_engine::format::RunId;
use bulla_engine::format::ledger::{Drill, DrillKind, Fact, JobCopy, JobRun, Level};
use bulla_engine::format::snapshot::Snapshot;
use jiff::tz::TimeZone;
use std::collections::HashSet;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// How long a restore that was tried counts, by what depends on the job.
pub(crate) const fn drill_days(class: Class) -> i64 {
    match class {
        Class::Critical => 31,
        Class::Important => 92,
        Class::Standard => 365,
    }
}

/// What is wrong with a recovery procedure of which nobody knows whether it works.
pub(crate) const PROCEDURE: &str =
    "the configuration has changed since a restore was last tried: its procedure is not tested";

/// How a job stands.
#[derive(Debug, Clone)]
pub struct JobStatus {
    /// Its name.
    pub job: String,
    /// The host that runs it.
    pub host: String,
    /// When the newest backup began that is whole and proven to read back, in seconds.
    pub proven: Option<i64>,
    /// When the newest run that went well ended.
    pub last_ok: Option<i64>,
    /// The most that is proved of the newest snapshot.
    pub level: Level,
    /// How old the newest proven backup is, in seconds: how much work would be lost now.
    pub rpo: Option<i64>,
    /// How old it may be.
    pub rpo_objective: Option<i64>,
    /// How long a restore takes by the last drill, in seconds, and whether that was measured.
    pub rto: Option<(u64, bool)>,
    /// How long it may take.
    pub rto_objective: Option<i64>,
    /// When the last drill ended that went well and counts: where the job has a command that judges, it did.
    pub drill: Option<i64>,
    /// When the next run is due.
    pub next_due: Option<i64>,
    /// How many were due and did not happen.
    pub missed: u64,
    /// Destinations that have the newest backup, proven.
    pub copies: usize,
    /// What is wrong, the gravest first.
    pub findings: Vec<Finding>,
    /// Until when the rules about letting go are lifted, and why, if they are.
    pub waived: Option<(i64, String)>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which rule says so: a word that stays, whatever the numbers in the sentence are.
    pub rule: &'static str,
    /// The destination (or channel) it is about, if it is about one.
    pub place: Option<String>,
    /// How grave it is.
    pub outcome: Outcome,
    /// What is wrong.
    pub what: String,
    /// What to type.
    pub fix: String,
    /// The record that shows it, where it is one.
    pub evidence: Option<String>,
}

impl JobStatus {
    /// The gravest of what is wrong.
    pub fn outcome(&self) -> Outcome {
        self.findings.iter().fold(Outcome::Done, |all, f| all.and(f.outcome))
    }
}

/// Judges a job at a time, in seconds.
pub fn judge(config: &Config, name: &str, job: &Job, host: &str, facts: &Facts, now: i64) -> JobStatus {
    let judge = Judge { config, name, job, facts, now, host, found: Vec::new() };
    judge.all(&config.host.zone.as_ref().map_or(TimeZone::UTC, |zone| zone.value.clone()))
}

struct Judge<'a> {
    config: &'a Config,
    name: &'a str,
    job: &'a Job,
    facts: &'a Facts,
    now: i64,
    host: &'a str,
    found: Vec<Finding>,
}

impl Judge<'_> {
    fn say(&mut self, rule: &'static str, outcome: Outcome, what: impl Into<String>, fix: impl Into<String>) {
        let fix = fix.into();
        // Typed here it would be this machine's job.
        let fix = if self.facts.foreign { format!("on {}: {fix}", self.host) } else { fix };
        self.found.push(Finding { rule, place: None, outcome, what: what.into(), fix, evidence: None });
    }

    /// The same of a destination.
    fn say_of(
        &mut self,
        place: &str,
        rule: &'static str,
        outcome: Outcome,
        what: String,
        fix: impl Into<String>,
    ) {
        self.say(rule, outcome, what, fix);
        if let Some(said) = self.found.last_mut() {
            said.place = Some(place.to_owned());
        }
    }

    fn all(mut self, zone: &TimeZone) -> JobStatus {
        let (runs, drills) = (self.facts.runs(self.name, self.host), self.facts.drills(self.name, self.host));
        self.destinations(&runs);
        let last = due::last(&runs, self.now);
        let before = self.found.len();
        self.last(last);
        let cite = |run: &JobRun| self.facts.cite(|f| matches!(f, Fact::Run(r) if r.run == run.run));
        let evidence = last.and_then(cite);
        self.found.iter_mut().skip(before).for_each(|f| f.evidence.clone_from(&evidence));
        let (next_due, missed) = self.schedule(last, zone);
        let proven = self.proven();
        let newest = proven.iter().copied().max();
        let rpo = newest.map(|start| self.now.saturating_sub(start));
        self.age(rpo);
        let drill = self.drill(&drills);
        let tried = drill.or_else(|| drills.iter().rfind(|(_, d)| d.outcome == 0).copied());
        let level = self.level();
        let done = |r: &&(i64, &JobRun)| Outcome::of(r.1.outcome) == Outcome::Done;
        let waived = self.waived();
        self.found.sort_by_key(|f| f.outcome.rank());
        JobStatus {
            job: self.name.to_owned(),
            host: self.host.to_owned(),
            proven: newest,
            last_ok: runs
                .iter()
                .filter(|(_, run)| due::has_begun(run, self.now))
                .filter(done)
                .map(|(ended, _)| *ended)
                .next_back(),
            level,
            rpo,
            rpo_objective: self.job.rpo.as_ref().map(|at| at.value.seconds()),
            rto: tried.map(|(_, d)| (d.rto, d.files == d.files_all)),
            rto_objective: self.job.rto.as_ref().map(|at| at.value.seconds()),
            drill: drill.map(|(at, _)| at),
            next_due,
            missed,
            copies: proven.iter().filter(|start| newest == Some(**start)).count(),
            findings: self.found,
            waived,
        }
    }

    fn own(&self, s: &Snapshot) -> bool {
        s.host == self.host && job_of(s) == Some(self.name)
    }

    /// What can be seen of the destinations, and what is missing there.
    fn destinations(&mut self, runs: &[(i64, &JobRun)]) {
        for to in &self.job.to {
            let place = &to.value;
            let holding = match self.facts.holdings.get(place) {
                Some(Ok(holding)) => holding,
                Some(Err(trouble)) => {
                    let what = format!("{place} cannot be read: {}", trouble.why);
                    let fix = format!("bulla run {}", self.name);
                    self.say_of(place, "unreadable", trouble.outcome.of_one(), what, fix);
                    continue;
                }
                None => continue,
            };
            let flaws: Vec<String> =
                holding.ledger.flaws.iter().map(|(name, why)| format!("{place}: {name}: {why}")).collect();
            let damaged = holding.unrepaired;
            let lost = self.lost(place, holding, runs);
            let cut = self.cut_off(place, holding, runs);
            for flaw in flaws {
                self.say_of(
                    place,
                    "ledger",
                    Outcome::Damage,
                    flaw,
                    "find out who deleted or changed it; bulla check",
                );
            }
            if let Some(run) = cut {
                let what = format!("{place} had the record of run {run} and has lost it, and all after it");
                self.say_of(
                    place,
                    "ledger-cut",
                    Outcome::Damage,
                    what,
                    "find out who deleted it; bulla check",
                );
            }
            if let Some((outcome, what)) = self.stayed(holding, runs) {
                let what = format!("{place}: {what}");
                self.say_of(place, "stayed", outcome, what, format!("bulla run {}", self.name));
            }
            if damaged > 0 {
                let what = format!(
                    "packs of {place} that were bad or missing when they were last looked at: {damaged}"
                );
                let fix = "bulla repair packs, then bulla check --read-data";
                self.say_of(place, "damaged-packs", Outcome::Damage, what, fix);
            }
            if !lost.is_empty() {
                let what = format!("{place} has lost snapshots that nobody let go: {}", lost.join(", "));
                let fix = "find out who deleted them; copy them back with bulla copy";
                self.say_of(place, "lost-snapshots", Outcome::Damage, what, fix);
            }
        }
    }

    /// The newest run that this destination took, as another's record says, if neither it nor anything newer is on record
    /// here: the end of a chain can be taken off without a gap, but not everywhere at once.
    fn cut_off(&self, place: &str, holding: &Holding, runs: &[(i64, &JobRun)]) -> Option<String> {
        let here: HashSet<RunId> = holding
            .ledger
            .records
            .iter()
            .filter_map(|r| match &r.fact {
                Fact::Run(run) => Some(run.run),
                _ => None,
            })
            .collect();
        let (_, last) = runs.last()?;
        let took =
            last.copies.iter().any(|c| c.destination == place && c.outcome == 0 && c.snapshot.is_some());
        (took && !here.contains(&last.run)).then(|| last.run.short())
    }

    /// What should have gone after the last run, and did not.
    fn stayed(&self, holding: &Holding, runs: &[(i64, &JobRun)]) -> Option<(Outcome, String)> {
        let refused = holding.evidence.refused(runs.last()?.1)?;
        Some((Outcome::of(refused.outcome), format!("old snapshots stay: {}", refused.reason)))
    }

    /// Snapshots that a destination had and has not, and that nobody let go. One that was copied back is there again, under
    /// another id: it began when the others did.
    fn lost(&self, place: &str, holding: &Holding, runs: &[(i64, &JobRun)]) -> Vec<String> {
        let there: HashSet<_> = holding.snapshots.iter().map(|s| s.id).collect();
        let starts: HashSet<_> = holding.snapshots.iter().filter(|s| self.own(s)).map(|s| s.start).collect();
        let mut lost = Vec::new();
        for (_, run) in runs {
            let of = |copy: &&JobCopy| copy.destination == place;
            let Some(id) = run.copies.iter().find(of).and_then(|copy| copy.snapshot) else { continue };
            if there.contains(&id) || holding.explained.contains(&id) {
                continue;
            }
            // What was copied back goes under its new id when its time is over, as it does elsewhere; but not from where
            // nothing ever goes.
            let (mut over, mut back) = (false, false);
            for copy in run.copies.iter().filter(|copy| !of(copy)) {
                let Some(Ok(other)) = self.facts.holdings.get(&copy.destination) else { continue };
                over |= copy.snapshot.is_some_and(|id| other.explained.contains(&id));
                let same = other.snapshots.iter().find(|s| Some(s.id) == copy.snapshot);
                back |= same.is_some_and(|s| starts.contains(&s.start));
            }
            let explained = back || over && self.lets_go(place);
            if !explained {
                lost.push(id.short());
            }
        }
        lost
    }

    /// True if old snapshots go from there.
    fn lets_go(&self, place: &str) -> bool {
        self.config.destinations.get(place).is_none_or(|d| !d.value.append_only)
    }

    /// How the last run ended.
    fn last(&mut self, last: Option<&JobRun>) {
        let Some(last) = last else {
            let read = |to: &At<String>| matches!(self.facts.holdings.get(&to.value), Some(Ok(_)));
            let what = match self.job.to.iter().all(read) {
                true => format!("{} has never run", self.name),
                false => format!("whether {} has ever run is not known", self.name),
            };
            self.say("never-run", Outcome::Unproven, what, format!("bulla run {}", self.name));
            return;
        };
        let outcome = Outcome::of(last.outcome);
        for finding in &last.findings {
            self.say(
                "anomaly",
                Outcome::Held,
                finding.clone(),
                format!(
                    "look at the source; if it is right: bulla waive {0} --reason WHY, bulla run {0}",
                    self.name
                ),
            );
        }
        let of = |c: &JobCopy| format!("{}: {}", c.destination, c.reason);
        let mut behind: Vec<String> = last.copies.iter().filter(|c| c.outcome != 0).map(of).collect();
        // The run's own fault is the same everywhere.
        if let [first, rest @ ..] = last.copies.as_slice()
            && first.outcome != 0
            && first.snapshot.is_none()
            && rest.iter().all(|c| c.snapshot.is_none() && c.reason == first.reason)
        {
            behind = vec![first.reason.clone()];
        }
        if outcome != Outcome::Done && last.findings.is_empty() {
            let why = if behind.is_empty() { String::new() } else { format!(": {}", behind.join("; ")) };
            let what = format!("the last run ended {}{why}", outcome.word());
            self.say("last-run", outcome, what, format!("bulla run {}", self.name));
        }
    }

    /// When the next run is due, and how many were missed.
    fn schedule(&mut self, last: Option<&JobRun>, zone: &TimeZone) -> (Option<i64>, u64) {
        let Some(schedule) = self.job.schedule.as_ref().map(|at| &at.value) else { return (None, 0) };
        let Some(last) = last else { return (None, 0) };
        let (missed, next) = missed(schedule, last.start.seconds, self.now, zone);
        if missed > 0 {
            let what = if missed == 1 {
                "a run was missed".to_owned()
            } else {
                format!("{missed} runs were missed")
            };
            self.say("missed", Outcome::Missed, what, format!("bulla run {}; is its timer on?", self.name));
        }
        (next, missed)
    }

    /// When whole, sound and proven snapshots began, all of all destinations.
    fn proven(&self) -> Vec<i64> {
        let mut out = Vec::new();
        for to in &self.job.to {
            let Some(Ok(holding)) = self.facts.holdings.get(&to.value) else { continue };
            let good = |s: &&Snapshot| {
                self.own(s)
                    && s.statistics.errors == 0
                    && holding.evidence.is_sound(&s.id)
                    && holding.evidence.is_proven(&s.id, self.now)
            };
            out.extend(holding.snapshots.iter().filter(good).map(|s| s.start.seconds));
        }
        out
    }

    fn level(&self) -> Level {
        let mut newest: Option<(i64, Level)> = None;
        for to in &self.job.to {
            let Some(Ok(holding)) = self.facts.holdings.get(&to.value) else { continue };
            for s in holding.snapshots.iter().filter(|s| self.own(s)) {
                newest = newest.max(Some((s.start.seconds, holding.evidence.level(&s.id))));
            }
        }
        newest.map_or(Level::Committed, |(_, level)| level)
    }

    /// Whether the newest proven backup is young enough.
    fn age(&mut self, rpo: Option<i64>) {
        let objective = self.job.rpo.as_ref().map(|at| at.value);
        match (rpo, objective) {
            (None, _) => {
                let what = "no backup of it is proven to read back";
                self.say("unproven", Outcome::Unproven, what, format!("bulla run {}", self.name));
            }
            (Some(age), Some(objective)) if age > objective.seconds() => {
                let what = format!(
                    "the newest proven backup is {} old, and may be {objective}",
                    crate::config::Length::of_seconds(age)
                );
                self.say("rpo", Outcome::Missed, what, format!("bulla run {}", self.name));
            }
            _ => {}
        }
    }

    /// Whether a restore was tried lately, by whatever the job has to judge it; gives the newest that counts. That one
    /// destination restores says nothing of the others: the last drill of each has to have gone well, with its own key and
    /// with another.
    fn drill<'d>(&mut self, drills: &[(i64, &'d Drill)]) -> Option<(i64, &'d Drill)> {
        for to in &self.job.to {
            for other in [false, true] {
                let of = |(_, d): &&(i64, &Drill)| d.destination == to.value && d.key.is_some() == other;
                let Some((_, last)) = drills.iter().rfind(of).filter(|(_, d)| d.outcome != 0) else {
                    continue;
                };
                let why = last.wrong.first().or_else(|| last.diverged.first()).or_else(|| last.late.first());
                let why = why.cloned().unwrap_or_else(|| "it took too long".to_owned());
                let key = if other { " --key FILE" } else { "" };
                let with = last.key.as_ref().map_or_else(String::new, |label| format!(" with {label}"));
                let what = format!("the last drill from {}{with} failed: {why}", to.value);
                let fix = format!("bulla drill {} --from {}{key}", self.name, to.value);
                self.say_of(&to.value, "drill-failed", Outcome::of(last.outcome), what, fix);
                let evidence = Some(self.facts.cite_drill(last));
                self.found.iter_mut().rev().take(1).for_each(|f| f.evidence.clone_from(&evidence));
            }
        }
        let judged = self.job.drill.command.is_some();
        let counts = |d: &Drill| d.outcome == 0 && (!judged || d.kind == DrillKind::Application);
        let counted = drills.iter().rfind(|(_, d)| counts(d)).copied();
        let fix = format!("bulla drill {}{}", self.name, if judged { " --app" } else { "" });
        let days = drill_days(self.job.class);
        match counted.map(|(at, _)| self.now.saturating_sub(at) / DAY) {
            None if drills.iter().any(|(_, d)| d.outcome == 0) => {
                let what = "its drill command never judged a restore that went well";
                self.say("drill-unjudged", Outcome::Unproven, what, fix);
            }
            None => self.say("drill-never", Outcome::Unproven, "no restore of it was ever tried", fix),
            Some(age) if age > days => {
                let what = format!("the last restore was tried {age} days ago, and counts for {days}");
                self.say("drill-old", Outcome::Unproven, what, fix);
            }
            Some(_) => self.procedure(counted.map(|(_, drill)| drill), fix),
        }
        let &Self { config, name, job, host, facts, now, .. } = &*self;
        for (kind, last) in (Question { config, name, job, host, facts, now }).overdue() {
            let (word, option) = match kind {
                DrillKind::Sample => ("sample", ""),
                DrillKind::Full => ("full", " --full"),
                DrillKind::Application => ("app", " --app"),
            };
            let what = match last {
                Some(last) => {
                    format!("the {word} drill is overdue: it passed {} days ago", (now - last) / DAY)
                }
                None => format!("the {word} drill has never passed"),
            };
            self.say("drill-due", Outcome::Unproven, what, format!("bulla drill {name}{option}"));
        }
        counted
    }

    /// Whether the procedure that would be followed today was ever tried: it is written from the configuration, so a change of
    /// that makes it another one. Of what is not important that is worth knowing, and no more ([`crate::assess`]).
    fn procedure(&mut self, drill: Option<&Drill>, fix: String) {
        let (of, digest) = ((self.name, self.host), self.config.digest(self.name));
        let changed = drill.is_some_and(|drill| self.facts.changed_since(of, drill, digest));
        if self.job.class >= Class::Important && changed {
            let fix = format!("{fix}; then print it anew: bulla runbook {}", self.name);
            self.say("procedure", Outcome::Unproven, PROCEDURE, fix);
        }
    }

    fn waived(&self) -> Option<(i64, String)> {
        let all = self.job.to.iter().filter_map(|to| self.facts.holdings.get(&to.value)?.as_ref().ok());
        let waived = all.filter_map(|holding| holding.evidence.waived(self.host, self.name, self.now));
        waived.max().map(|(until, why)| (until, why.to_owned()))
    }
}

/// How many times it was due after a run that began at `last` and did not happen, and when it is due next. One that is late
/// by less than a tenth of the time between two is still awaited.
pub fn missed(schedule: &Schedule, last: i64, now: i64, zone: &TimeZone) -> (u64, Option<i64>) {
    let zoned = |s: i64| {
        jiff::Timestamp::from_second(s).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(zone.clone())
    };
    let (mut at, mut count) = (zoned(last), 0);
    loop {
        let Some(next) = schedule.next(&at) else { return (count, None) };
        let seconds = next.timestamp().as_second();
        let gap = schedule.next(&next).map_or(DAY, |after| after.timestamp().as_second() - seconds);
        if seconds + (gap / 10).clamp(5 * 60, 2 * HOUR) >= now {
            return (count, Some(seconds));
        }
        count += 1;
        if count == MISSED_MAX {
            return (count, schedule.next(&zoned(now)).map(|n| n.timestamp().as_second()));
        }
        at = next;
    }
}

/// More than this nobody counts.
const MISSED_MAX: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_due_is_counted_and_the_late_are_awaited() {
        let daily: Schedule = "30 1 * * *".parse().unwrap();
        let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_second();
        let last = at("2026-11-10T01:30:04Z");
        for (now, missed_runs, next) in [
            ("2026-11-10T12:00:00Z", 0, "2026-11-11T01:30:00Z"),
            ("2026-11-11T02:00:00Z", 0, "2026-11-11T01:30:00Z"),
            ("2026-11-11T04:00:00Z", 1, "2026-11-12T01:30:00Z"),
            ("2026-11-14T12:00:00Z", 4, "2026-11-15T01:30:00Z"),
        ] {
            assert_eq!(missed(&daily, last, at(now), &TimeZone::UTC), (missed_runs, Some(at(next))), "{now}");
        }
        let minutely: Schedule = "* * * * *".parse().unwrap();
        let (count, next) = missed(&minutely, at("2020-01-01T00:00:00Z"), last, &TimeZone::UTC);
        assert_eq!((count, next), (10_000, Some(at("2026-11-10T01:31:00Z"))));
    }
}
