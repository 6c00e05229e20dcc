//! 3-2-1-1-0 of a job, from what is on record: three copies in places that fail apart, on two kinds of media, one off-site, one
//! that this machine cannot delete, no errors. Pure.
//!
//! Kept true: what is unknown is not met. A copy counts only where the newest backup is proven to read back, and only once
//! for each place that fails as a whole.

use crate::config::{Config, Job, Length, Media};
use crate::policy::Compliance as Term;
use crate::run::lock::{finest, promise};
use crate::status::{Facts, Holding, JobStatus};
use bulla_engine::backend::LockMode;
use bulla_engine::forget::job_of;
use bulla_engine::format::ledger::Lock;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::retention::{Period, Unit};
use std::collections::BTreeSet;

/// What fails as a whole. A place may stand on several of them, and two places that share one fail together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// A disk of this machine, by its device number.
    Disk(u64),
    /// Another host or service, by its name or an address of it.
    Host(String),
    /// This machine, not known where.
    Here,
    /// Nobody can say.
    Unknown,
}

/// Whether a rule is met, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The rule.
    pub rule: String,
    /// It is met.
    pub met: bool,
    /// What there is, or what is missing.
    pub evidence: String,
}

impl Compliance {
    /// All rules that are asked for.
    pub fn all(&self) -> impl Iterator<Item = &Mark> {
        self.marks.iter().chain(&self.at_hand)
    }
}

/// How a job complies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All five are met, and what has to be at hand is.
    Full,
    /// Three copies and one of them off-site, but not all of the rest.
    Partial,
    /// Not even that.
    Not,
}

/// The rules in order, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compliance {
    /// Copies, media, off-site, locked, errors.
    pub marks: [Mark; 5],
    /// What has to be at hand by what the data is under.
    pub at_hand: Vec<Mark>,
    /// What follows.
    pub verdict: Verdict,
}

impl Verdict {
    /// Of five marks in order.
    pub fn of(met: [bool; 5]) -> Self {
        match met {
            [true, true, true, true, true] => Self::Full,
            [true, _, true, _, _] => Self::Partial,
            _ => Self::Not,
        }
    }

    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Partial => "partial",
            Self::Not => "non-compliant",
        }
    }
}

/// A copy that counts.
struct Counted<'a> {
    name: &'a str,
    media: Option<Media>,
    site: Option<&'a String>,
    append_only: bool,
    age: i64,
}

/// Judges a job at a time; `source` is where what is backed up lies, `place` where a destination does.
pub fn judge(
    (config, name, job): (&Config, &str, &Job),
    facts: &Facts,
    status: &JobStatus,
    host: &str,
    source: &[Domain],
    place: &dyn Fn(&str) -> Vec<Domain>,
    now: i64,
) -> Compliance {
    let mut taken = source.to_vec();
    let unclear = |d: &Domain| matches!(d, Domain::Here | Domain::Unknown);
    let hidden = source.is_empty() || source.iter().any(unclear);
    let (mut counted, mut not) = (Vec::new(), Vec::new());
    for to in &job.to {
        let Some(destination) = config.destinations.get(&to.value).map(|at| &at.value) else { continue };
        let Some(Ok(holding)) = facts.holdings.get(&to.value) else {
            not.push(format!("{} cannot be read", to.value));
            continue;
        };
        let newest = |s: &&Snapshot| {
            s.host == host && job_of(s) == Some(name) && Some(s.start.seconds) == status.proven
        };
        let proof = holding.snapshots.iter().filter(newest).filter_map(|s| proof(holding, s, now)).max();
        let on = place(&to.value);
        let here = !on.iter().any(|d| matches!(d, Domain::Host(_)));
        match proof {
            None if holding.unrepaired > 0 => {
                not.push(format!("{} has packs that were bad when they were last read", to.value));
            }
            None => not.push(format!("{} has not the newest backup, proven", to.value)),
            Some(_) if on.iter().any(|d| !unclear(d) && taken.contains(d)) => {
                not.push(format!("{} fails together with another copy", to.value));
            }
            Some(_) if on.is_empty() || on.iter().any(unclear) => {
                not.push(format!("{}: not known what it fails with", to.value));
            }
            Some(_) if here && hidden => not
                .push(format!("{} lies on this machine, and nobody can say where the source does", to.value)),
            // Under other names it may be the very host that is backed up.
            Some(_) if facts.foreign && hidden => {
                not.push(format!("{}: nobody can say here whether it is {host}", to.value));
            }
            Some(at) => {
                taken.extend(on);
                counted.push(Counted {
                    name: &to.value,
                    media: destination.media.as_ref().map(|at| at.value),
                    site: destination.site.as_ref().map(|at| &at.value),
                    // What is locked for everybody can be deleted from nowhere; what another host may do, its own
                    // configuration says.
                    append_only: destination.append_only && !facts.foreign
                        || destination.worm.as_ref().is_some_and(|w| w.value.mode == LockMode::Compliance),
                    age: now.saturating_sub(at),
                });
            }
        }
    }
    let last = facts.holdings.values().filter_map(|h| h.as_ref().ok()?.evidence.last()).max();
    let told =
        last.map_or_else(String::new, |at| format!(" (newest record {} old)", age(now.saturating_sub(at))));
    // Where another host stands is in its own configuration.
    let home = config.host.site.as_ref().map(|at| &at.value).filter(|_| !facts.foreign);
    let marks = marks(home, status, &counted, &not, &told);
    let met = [0, 1, 2, 3, 4].map(|n: usize| marks.get(n).is_some_and(|m| m.met));
    let at_hand = at_hand((config, name, job), facts, host, now);
    let verdict = match Verdict::of(met) {
        Verdict::Full if at_hand.iter().any(|mark| !mark.met) => Verdict::Partial,
        other => other,
    };
    Compliance { marks, at_hand, verdict }
}

/// What has to be readable at once, and whether it is there: where no tape is and it could be read just now.
fn at_hand((config, name, job): (&Config, &str, &Job), facts: &Facts, host: &str, now: i64) -> Vec<Mark> {
    let policy = config.retention_of(job).map(|(_, retention)| retention.policy);
    let mark = |(term, hot): (Term, Period)| {
        let unit = policy.as_ref().map_or(Some(Unit::Daily), |policy| finest(policy, &hot));
        // A rule that is too short is another mistake.
        let promise = promise((name, host), term.to_string(), &hot, unit.unwrap_or(Unit::Daily));
        let (mut has, mut not) = (Vec::new(), Vec::new());
        for (place, holding) in facts.holdings_of(job) {
            let tape = config.destinations.get(place).is_none_or(|d| !d.value.is_at_hand());
            match holding.map(|holding| lack(&promise, holding, (facts, job), now)) {
                _ if tape => not.push(format!("{place} is a tape")),
                None => not.push(format!("{place} cannot be read")),
                Some(Some(lack)) => not.push(format!("{place} has {lack}")),
                Some(None) => has.push(place),
            }
        }
        let evidence = if has.is_empty() { not.join(", ") } else { format!("in {}", has.join(", ")) };
        Mark { rule: format!("{hot} at hand, for {term}"), met: !has.is_empty(), evidence }
    };
    config.terms_of(job).into_iter().filter_map(|term| Some(mark((term, term.hot()?)))).collect()
}

/// What a destination lacks of what is promised: each backup on record that is young enough, or one that began at most a slot
/// later; and one that is old enough, or the first that there ever was, or one at most a slot after that.
fn lack(promise: &Lock, holding: &Holding, (facts, job): (&Facts, &Job), now: i64) -> Option<String> {
    let good = |s: &&Snapshot| s.statistics.errors == 0 && holding.evidence.is_sound(&s.id);
    let own = holding.snapshots.iter().filter(|s| s.host == promise.host && job_of(s) == Some(&promise.job));
    let own = own.filter(good);
    let stay: BTreeSet<i64> = own.map(|s| s.start.seconds).collect();
    let Some(oldest) = stay.first().copied().filter(|_| holding.unrepaired == 0) else {
        let bad = holding.unrepaired > 0;
        return Some(
            if bad { "packs that were bad when they were last read" } else { "no backup" }.to_owned(),
        );
    };
    let read: Vec<&Holding> = facts.holdings_of(job).filter_map(|(_, holding)| holding).collect();
    let runs = facts.runs(&promise.job, &promise.host);
    let began: BTreeSet<i64> = runs.iter().map(|(_, run)| run.start.seconds).collect();
    let gone = |h: &&Holding| h.evidence.unlocked(promise, now, (&began, &stay));
    if let Some(start) = read.iter().filter_map(gone).min() {
        let age = age(now.saturating_sub(start));
        return Some(format!("nothing of the backup of {age} ago, or of the time after it"));
    }
    let apart = |from: i64, to: i64| u64::try_from(to.saturating_sub(from)).unwrap_or(0);
    let (old, blind) = (apart(oldest, now) >= promise.min, read.len() < job.to.len());
    if blind {
        // What it does not know of may be on record where nobody can look.
        let next = stay.iter().copied().skip(1).chain([now]);
        let mut pairs = stay.iter().zip(next).filter(|(_, next)| apart(*next, now) < promise.min);
        if !old || pairs.any(|(from, next)| apart(*from, next) > promise.unit) {
            let lack = if old { "gaps" } else { "nothing so old" };
            return Some(format!("{lack}, and other destinations cannot be read"));
        }
    }
    if old {
        return None;
    }
    let made = runs.iter().find(|(_, run)| run.copies.iter().any(|copy| copy.snapshot.is_some()));
    let late = made.is_some_and(|(_, run)| apart(run.start.seconds, oldest) > promise.unit);
    late.then(|| format!("nothing older than {}", age(now.saturating_sub(oldest))))
}

/// When a copy was last known to read back: nothing unless it is whole, accounted for, read lately, and lies where nothing is
/// known to be bad.
fn proof(holding: &Holding, s: &Snapshot, now: i64) -> Option<i64> {
    let evidence = &holding.evidence;
    let good = s.statistics.errors == 0
        && holding.unrepaired == 0
        && evidence.is_sound(&s.id)
        && evidence.is_proven(&s.id, now);
    evidence.proven_at(&s.id).filter(|_| good)
}

fn age(seconds: i64) -> String {
    Length::of_seconds(seconds.max(1)).to_string()
}

fn marks(
    home: Option<&String>,
    status: &JobStatus,
    counted: &[Counted<'_>],
    not: &[String],
    told: &str,
) -> [Mark; 5] {
    let names = |list: Vec<&Counted<'_>>| -> String {
        let each: Vec<String> =
            list.iter().map(|c| format!("{} (read back {} ago)", c.name, age(c.age))).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    };
    let but = if not.is_empty() { String::new() } else { format!("; not counted: {}", not.join(", ")) };
    let mut media: Vec<(Media, &Counted<'_>)> = Vec::new();
    for (kind, copy) in counted.iter().filter_map(|c| Some((c.media?, c))) {
        if media.iter().all(|(known, _)| *known != kind) {
            media.push((kind, copy));
        }
    }
    let away = |c: &&Counted<'_>| home.is_some() && c.site.is_some() && c.site != home;
    let (offsite, locked): (Vec<_>, Vec<_>) =
        (counted.iter().filter(away).collect(), counted.iter().filter(|c| c.append_only).collect());
    let kind =
        |(m, c): &(Media, &Counted<'_>)| format!("{} ({})", format!("{m:?}").to_lowercase(), names(vec![*c]));
    let kinds: Vec<String> = media.iter().map(kind).collect();
    let worst = status.findings.first().map_or_else(|| "none".to_owned(), |f| f.what.clone());
    [
        Mark {
            rule: "3 copies".to_owned(),
            met: counted.len() >= 2,
            evidence: format!("the source, {}{but}", names(counted.iter().collect())),
        },
        Mark {
            rule: "2 media".to_owned(),
            met: media.len() >= 2,
            evidence: if kinds.is_empty() {
                "none of a copy that counts".to_owned()
            } else {
                kinds.join(", ")
            },
        },
        Mark { rule: "1 off-site".to_owned(), met: !offsite.is_empty(), evidence: names(offsite) },
        Mark {
            rule: "1 that cannot be deleted from here".to_owned(),
            met: !locked.is_empty(),
            evidence: names(locked),
        },
        Mark {
            rule: "0 errors".to_owned(),
            met: status.findings.is_empty(),
            evidence: format!("{worst}{told}"),
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn every_row_of_the_table() {
        for bits in 0..32u8 {
            let met = [0, 1, 2, 3, 4].map(|n| bits >> n & 1 == 1);
            let expected = match met {
                _ if bits == 31 => Verdict::Full,
                [copies, _, offsite, _, _] if copies && offsite => Verdict::Partial,
                _ => Verdict::Not,
            };
            assert_eq!(Verdict::of(met), expected, "{met:?}");
        }
    }
}
