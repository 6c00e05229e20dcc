//! The assessment of a job, as the seed's report has it: what there is, what was promised, and each gap between the two with
//! its impact, what to type, and the records that show it. Pure, of the same facts as `status` and `compliance`.
//!
//! Kept true: what is not on record is not claimed; a time in which no proven backup was young enough counts as one in which
//! the objective did not hold, whatever the reason.

use crate::compliance::Compliance;
use crate::config::{Class, Config, Job, Length};
use crate::outcome::Outcome;
use crate::status::{Facts, JobStatus};
use bulla_engine::forget::job_of;
use bulla_engine::format::ledger::{JobRun, Level};
use bulla_engine::format::tree::Timestamp;

/// So many days back it is looked how often the objective held.
const DAYS: i64 = 90;
const DAY: i64 = 24 * 3600;

/// Whether there is a backup as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Current {
    /// A whole one, proven, young enough, in every destination.
    Yes,
    /// One that lacks a part of the source or is not in every destination.
    Partial,
    /// None that is young enough.
    No,
}

impl Current {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Yes => "Yes",
            Self::Partial => "Partial",
            Self::No => "No",
        }
    }
}

/// How much a gap may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Impact {
    /// A promise is weaker than it looks.
    Low,
    /// One more failure, and something is lost.
    Medium,
    /// A restore that is needed now may fail.
    High,
}

impl Impact {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Low => "Low",
            Self::Medium => "Medium",
            Self::High => "High",
        }
    }

    /// Of what is wrong with a job; more depends on a critical one.
    fn of(outcome: Outcome, class: Class) -> Self {
        let impact = match outcome {
            Outcome::Done | Outcome::Partial | Outcome::Busy | Outcome::Interrupted => Self::Low,
            Outcome::Unproven | Outcome::Missed | Outcome::Refused => Self::Medium,
            _ => Self::High,
        };
        match (impact, class) {
            (Self::Low, Class::Critical) => Self::Medium,
            (_, Class::Critical) => Self::High,
            (impact, _) => impact,
        }
    }
}

/// Something that is not as it was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// How it counts for the exit code.
    pub outcome: Outcome,
    /// What may happen, or has.
    pub risk: String,
    /// How much that may cost.
    pub impact: Impact,
    /// What to type or to write.
    pub recommendation: String,
    /// The records that show it.
    pub evidence: String,
}

/// How far the newest backup that was read back is proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// When it was last known to read back, in seconds.
    pub at: i64,
    /// How far it is proven.
    pub level: Level,
    /// Where.
    pub places: Vec<String>,
}

/// How old the newest proven backup was, as time went by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct History {
    /// So long is looked back, in seconds: less than 90 days where the first record is younger.
    pub seconds: i64,
    /// The oldest that the newest proven backup ever was, in seconds.
    pub worst: i64,
    /// For so many seconds it was no older than it may be; `None` without an objective.
    pub held: Option<i64>,
}

/// How a restore is known to take so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rto {
    /// In seconds.
    pub seconds: u64,
    /// Files that were restored,
    pub files: u64,
    /// of so many: it was measured if these are all, else reckoned.
    pub files_all: u64,
}

/// How a job stands against what was promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// The job.
    pub job: String,
    /// What people call it.
    pub system: String,
    /// How much depends on it.
    pub class: Class,
    /// Whether there is a backup.
    pub current: Current,
    /// When the newest run that went well ended, in seconds.
    pub last_successful: Option<i64>,
    /// How far the newest backup is proven that was read back.
    pub last_verified: Option<Verified>,
    /// How long a restore may take, in seconds.
    pub rto_requirement: Option<i64>,
    /// How old the newest backup may be, in seconds.
    pub rpo_requirement: Option<i64>,
    /// How long a restore takes by the last drill that went well.
    pub rto: Option<Rto>,
    /// How old the newest proven backup is, in seconds.
    pub rpo: Option<i64>,
    /// How old it was before; none without a run.
    pub history: Option<History>,
    /// What is missing, the gravest first.
    pub gaps: Vec<Gap>,
}

impl Assessment {
    /// The gravest of what is missing.
    pub fn outcome(&self) -> Outcome {
        self.gaps.iter().fold(Outcome::Done, |all, gap| all.and(gap.outcome))
    }
}

/// Assesses a job at a time, in seconds.
pub fn assess(
    (config, name, job): (&Config, &str, &Job),
    facts: &Facts,
    (status, compliance): (&JobStatus, &Compliance),
    host: &str,
    now: i64,
) -> Assessment {
    let runs = facts.runs(name, host);
    let drill = facts.drills(name, host).into_iter().rfind(|(_, d)| d.outcome == 0).map(|(_, d)| d);
    let rto = drill.map(|d| Rto { seconds: d.rto, files: d.files, files_all: d.files_all });
    let mut gaps = found(status, job.class, facts, job);
    gaps.extend(rules(compliance, config, name, job, facts));
    gaps.extend(promises(status, job, name, facts));
    // Of what is important it is a finding.
    let changed = drill.filter(|d| facts.changed_since((name, host), d, config.digest(name)));
    if let Some(drill) = changed.filter(|_| job.class < Class::Important) {
        gaps.push(Gap {
            outcome: Outcome::Done,
            risk: crate::status::PROCEDURE.to_owned(),
            impact: Impact::of(Outcome::Partial, job.class),
            recommendation: format!("bulla drill {name}"),
            evidence: facts.cite_drill(drill),
        });
    }
    gaps.sort_by_key(|gap| (gap.outcome.rank(), std::cmp::Reverse(gap.impact)));
    Assessment {
        job: name.to_owned(),
        system: job.system.as_ref().map_or_else(|| name.to_owned(), |at| at.value.clone()),
        class: job.class,
        current: current(status, &runs, job, now),
        last_successful: status.last_ok,
        last_verified: last_verified(facts, name, job, host),
        rto_requirement: status.rto_objective,
        rpo_requirement: status.rpo_objective,
        rto,
        rpo: status.rpo,
        history: history(&runs, |run| was_proven(run, facts), status.rpo_objective, now),
        gaps,
    }
}

/// Yes: the newest proven backup is young enough and in every destination. Partial: it is not in every one, or what is
/// young enough lacks a part of the source.
fn current(status: &JobStatus, runs: &[(i64, &JobRun)], job: &Job, now: i64) -> Current {
    let young = |age: i64| status.rpo_objective.is_none_or(|most| age <= most);
    let whole = status.rpo.is_some_and(young) && (status.rpo_objective.is_some() || status.missed == 0);
    let last = runs.last().map(|(_, run)| *run);
    let incomplete = last.is_some_and(|run| {
        let made = run.copies.iter().any(|copy| copy.outcome == 0 && copy.snapshot.is_some());
        Outcome::of(run.outcome) == Outcome::Partial && made && young(now.saturating_sub(run.start.seconds))
    });
    match (whole, incomplete) {
        (true, false) if status.copies == job.to.len() => Current::Yes,
        (true, _) | (_, true) => Current::Partial,
        _ => Current::No,
    }
}

/// The newest snapshot that was read back, and where; packs that are known to be bad prove nothing of a destination.
fn last_verified(facts: &Facts, name: &str, job: &Job, host: &str) -> Option<Verified> {
    let mut best: Option<(Timestamp, Verified)> = None;
    for to in &job.to {
        let Some(Ok(holding)) = facts.holdings.get(&to.value) else { continue };
        if holding.unrepaired > 0 {
            continue;
        }
        for s in holding.snapshots.iter().filter(|s| s.host == host && job_of(s) == Some(name)) {
            let level = holding.evidence.level(&s.id);
            let Some(at) = holding.evidence.proven_at(&s.id).filter(|_| level >= Level::Data) else {
                continue;
            };
            match &mut best {
                Some((start, known)) if *start == s.start => {
                    known.at = known.at.max(at);
                    known.level = known.level.max(level);
                    known.places.push(to.value.clone());
                }
                Some((start, _)) if *start > s.start => {}
                _ => best = Some((s.start, Verified { at, level, places: vec![to.value.clone()] })),
            }
        }
    }
    best.map(|(_, verified)| verified)
}

/// True if a run made a whole backup that was read back in a destination at least. Whether it was the source or a
/// destination that made a run partial is not on record; a snapshot that is still there says.
fn was_proven(run: &JobRun, facts: &Facts) -> bool {
    let outcome = Outcome::of(run.outcome);
    let mut read = run.copies.iter().filter(|copy| copy.level >= Level::Data && copy.snapshot.is_some());
    let behind = run.copies.iter().any(|copy| copy.outcome != 0);
    let errors = |id| {
        let all = facts.holdings.values().filter_map(|h| h.as_ref().ok());
        let found = all.flat_map(|h| &h.snapshots).find(|s| Some(s.id) == id);
        found.is_some_and(|s| s.statistics.errors > 0)
    };
    let incomplete = outcome == Outcome::Partial && !behind;
    run.findings.is_empty()
        && !incomplete
        && outcome != Outcome::Failed
        && read.any(|copy| !errors(copy.snapshot))
}

/// Plays back how old the newest proven backup was. Runs are in the order of their starts, with when they ended.
fn history(
    runs: &[(i64, &JobRun)],
    proven: impl Fn(&JobRun) -> bool,
    objective: Option<i64>,
    now: i64,
) -> Option<History> {
    let begin = runs.first()?.1.start.seconds.max(now.saturating_sub(DAYS * DAY));
    if begin >= now {
        return None;
    }
    let good = runs.iter().filter(|(ended, run)| *ended <= now && proven(run));
    let mut good: Vec<(i64, i64)> = good.map(|(ended, run)| (*ended, run.start.seconds)).collect();
    good.sort_unstable();
    let (mut worst, mut held, mut newest) = (0, 0, None);
    let mut at = begin;
    for (until, start) in good.into_iter().chain([(now, i64::MIN)]) {
        if until > at {
            // Before the first one there was nothing, from the beginning on.
            let since: i64 = newest.unwrap_or(begin);
            worst = worst.max(until - since);
            if let (Some(newest), Some(most)) = (newest, objective) {
                held += (until.min(newest + most) - at).max(0);
            }
            at = until;
        }
        newest = newest.max(Some(start).filter(|start| *start > i64::MIN));
    }
    Some(History { seconds: now - begin, worst, held: objective.map(|_| held) })
}

fn found(status: &JobStatus, class: Class, facts: &Facts, job: &Job) -> Vec<Gap> {
    let gap = |f: &crate::status::Finding| Gap {
        outcome: f.outcome,
        risk: f.what.clone(),
        // With nothing that is proven, any failure may be the one too many.
        impact: if status.proven.is_none() { Impact::High } else { Impact::of(f.outcome, class) },
        recommendation: f.fix.clone(),
        evidence: f.evidence.clone().unwrap_or_else(|| facts.heads(job)),
    };
    let mut gaps: Vec<Gap> = status.findings.iter().map(gap).collect();
    gaps.extend(status.waived.as_ref().map(|(_, why)| Gap {
        outcome: Outcome::Done,
        risk: format!(
            "the rules about letting go are lifted ({why}): old backups may go before new ones are proven"
        ),
        impact: Impact::of(Outcome::Unproven, class),
        recommendation: "bulla status; it ends by itself".to_owned(),
        evidence: facts.heads(job),
    }));
    gaps
}

/// What the rules of 3-2-1-1-0 lack; errors are findings by themselves. Only what is critical has to meet them; what a law
/// wants at hand is for everybody.
fn rules(compliance: &Compliance, config: &Config, name: &str, job: &Job, facts: &Facts) -> Vec<Gap> {
    let outcome = if job.class == Class::Critical { Outcome::Unproven } else { Outcome::Done };
    let first = job.to.first().and_then(|to| config.destinations.get(&to.value));
    let like = first.map_or_else(|| "URL".to_owned(), |at| at.value.url.value.clone());
    let [copies, media, offsite, locked, _] = &compliance.marks;
    let another = format!(
        "bulla init -r URL --copy-chunker-from {like} --key-file-out FILE; name it in job.{name}.to; bulla run {name}"
    );
    let fixes = [
        (copies, another),
        (
            media,
            "write media = \"ssd\", \"hdd\", \"tape\" or \"cloud\" for each destination; use two kinds"
                .to_owned(),
        ),
        (
            offsite,
            "write site = \"…\" under [host] and for each destination; use one at another site".to_owned(),
        ),
        (locked, "take from this machine the right to delete there, and write append_only = true".to_owned()),
    ];
    let at_hand = compliance.at_hand.iter().map(|mark| {
        let fix =
            format!("name a destination that is no tape in job.{name}.to; bulla copy to it what it lacks");
        (mark, Outcome::Unproven, fix)
    });
    let all = fixes.into_iter().map(|(mark, fix)| (mark, outcome, fix)).chain(at_hand);
    let lacking = all.filter(|(mark, ..)| !mark.met);
    let gap = |(mark, outcome, recommendation): (&crate::compliance::Mark, Outcome, String)| Gap {
        outcome,
        risk: format!("not met: {}; there is: {}", mark.rule, mark.evidence),
        impact: match job.class {
            Class::Critical => Impact::High,
            Class::Important => Impact::Medium,
            Class::Standard => Impact::Low,
        },
        recommendation,
        evidence: facts.heads(job),
    };
    lacking.map(gap).collect()
}

/// What was never promised, and what is not kept by what a sample makes one expect.
fn promises(status: &JobStatus, job: &Job, name: &str, facts: &Facts) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut say = |outcome, risk, recommendation| {
        let (impact, evidence) = (Impact::of(outcome, job.class), facts.heads(job));
        gaps.push(Gap { outcome: Outcome::Done, risk, impact, recommendation, evidence });
    };
    for (key, objective) in [("rto", status.rto_objective), ("rpo", status.rpo_objective)] {
        if objective.is_none() {
            let risk = format!("nobody has said what {} may be", key.to_uppercase());
            say(Outcome::Partial, risk, format!("write job.{name}.{key} = \"…\", what is needed"));
        }
    }
    if let (Some((rto, false)), Some(most)) = (status.rto, status.rto_objective)
        && i64::try_from(rto).is_ok_and(|rto| rto > most)
    {
        let (is, may) = (i64::try_from(rto).unwrap_or(i64::MAX), Length::of_seconds(most));
        let risk =
            format!("a restore takes {}, reckoned from a sample, and may take {may}", Length::of_seconds(is));
        say(Outcome::Unproven, risk, format!("bulla drill {name} --full"));
    }
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_engine::format::RunId;
    use bulla_engine::format::tree::Timestamp;

    fn run(start: i64) -> JobRun {
        JobRun {
            run: RunId::new([1; 16]),
            job: "home".into(),
            host: "a".into(),
            start: Timestamp { seconds: start, nanos: 0 },
            outcome: 0,
            next_due: None,
            config: [0; 32],
            files: 1,
            bytes: 1,
            copies: Vec::new(),
            findings: Vec::new(),
        }
    }

    /// Asks every second, which is slow and cannot be wrong in the way that sums of intervals can.
    fn second_by_second(runs: &[(i64, &JobRun)], objective: i64, now: i64) -> History {
        let begin = runs[0].1.start.seconds.max(now - DAYS * DAY);
        let (mut worst, mut held) = (0, 0);
        for t in begin..now {
            let newest = runs.iter().filter(|(ended, _)| *ended <= t).map(|(_, r)| r.start.seconds).max();
            worst = worst.max(t + 1 - newest.unwrap_or(begin));
            held += i64::from(newest.is_some_and(|newest| t < newest + objective));
        }
        History { seconds: now - begin, worst, held: Some(held) }
    }

    #[test]
    fn the_past_is_as_asking_every_second_says() {
        let all: Vec<JobRun> = [1000, 1100, 1250, 1260, 1600].map(run).into();
        for ends in [[1010, 1120, 1300, 1290, 1650], [1001, 1101, 1251, 1261, 1601]] {
            let runs: Vec<(i64, &JobRun)> = ends.into_iter().zip(&all).collect();
            for objective in [1, 50, 100, 150, 1000] {
                for now in [1001, 1005, 1200, 1700, 3000] {
                    let known: Vec<_> = runs.iter().filter(|(ended, _)| *ended <= now).copied().collect();
                    let first: Vec<_> = if known.is_empty() { runs[..1].to_vec() } else { known };
                    let expected = second_by_second(&first, objective, now);
                    assert_eq!(history(&runs, |_| true, Some(objective), now), Some(expected), "{now}");
                }
            }
        }
        let runs: Vec<(i64, &JobRun)> = vec![(1010, &all[0])];
        let none = history(&runs, |_| false, Some(50), 1500).unwrap();
        assert_eq!((none.held, none.worst, none.seconds), (Some(0), 500, 500), "nothing proven");
        let now = 1000 + 200 * DAY;
        let long = history(&runs, |_| true, Some(DAY), now).unwrap();
        assert_eq!(
            (long.seconds, long.held, long.worst),
            (90 * DAY, Some(0), 200 * DAY),
            "90 days, not more"
        );
        assert_eq!(history(&[], |_| true, None, now), None);
    }

    #[test]
    fn impact_follows_what_is_wrong_and_what_depends_on_it() {
        for (outcome, class, impact) in [
            (Outcome::Damage, Class::Standard, Impact::High),
            (Outcome::Unproven, Class::Standard, Impact::Medium),
            (Outcome::Unproven, Class::Critical, Impact::High),
            (Outcome::Partial, Class::Important, Impact::Low),
            (Outcome::Partial, Class::Critical, Impact::Medium),
        ] {
            assert_eq!(Impact::of(outcome, class), impact, "{outcome:?} {class:?}");
        }
    }
}
