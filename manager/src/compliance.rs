//! 3-2-1-1-0 of a job, from what is on record: three copies in places that fail apart, on two kinds of media, one off-site, one
//! that this machine cannot delete, no errors. Pure.
//!
//! Kept true: what is unknown is not met. A copy counts only where the newest backup is proven to read back, and only once
//! for each place that fails as a whole.

use crate::config::{Config, Job, Length, Media};
use crate::status::{Facts, Holding, JobStatus};
use bulla_engine::backend::LockMode;
use bulla_engine::forget::job_of;
use bulla_engine::format::snapshot::Snapshot;

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
    pub rule: &'static str,
    /// It is met.
    pub met: bool,
    /// What there is, or what is missing.
    pub evidence: String,
}

/// How a job complies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All five are met.
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
            Some(at) => {
                taken.extend(on);
                counted.push(Counted {
                    name: &to.value,
                    media: destination.media.as_ref().map(|at| at.value),
                    site: destination.site.as_ref().map(|at| &at.value),
                    // What is locked for everybody can be deleted from nowhere.
                    append_only: destination.append_only
                        || destination.worm.as_ref().is_some_and(|w| w.value.mode == LockMode::Compliance),
                    age: now.saturating_sub(at),
                });
            }
        }
    }
    let last = facts.holdings.values().filter_map(|h| h.as_ref().ok()?.evidence.last()).max();
    let told =
        last.map_or_else(String::new, |at| format!(" (newest record {} old)", age(now.saturating_sub(at))));
    let marks = marks(config, status, &counted, &not, &told);
    let met = [0, 1, 2, 3, 4].map(|n: usize| marks.get(n).is_some_and(|m| m.met));
    Compliance { marks, verdict: Verdict::of(met) }
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
    config: &Config,
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
    let home = config.host.site.as_ref().map(|at| &at.value);
    let away = |c: &&Counted<'_>| home.is_some() && c.site.is_some() && c.site != home;
    let (offsite, locked): (Vec<_>, Vec<_>) =
        (counted.iter().filter(away).collect(), counted.iter().filter(|c| c.append_only).collect());
    let kind =
        |(m, c): &(Media, &Counted<'_>)| format!("{} ({})", format!("{m:?}").to_lowercase(), names(vec![*c]));
    let kinds: Vec<String> = media.iter().map(kind).collect();
    let worst = status.findings.first().map_or_else(|| "none".to_owned(), |f| f.what.clone());
    [
        Mark {
            rule: "3 copies",
            met: counted.len() >= 2,
            evidence: format!("the source, {}{but}", names(counted.iter().collect())),
        },
        Mark {
            rule: "2 media",
            met: media.len() >= 2,
            evidence: if kinds.is_empty() {
                "none of a copy that counts".to_owned()
            } else {
                kinds.join(", ")
            },
        },
        Mark { rule: "1 off-site", met: !offsite.is_empty(), evidence: names(offsite) },
        Mark { rule: "1 that cannot be deleted from here", met: !locked.is_empty(), evidence: names(locked) },
        Mark { rule: "0 errors", met: status.findings.is_empty(), evidence: format!("{worst}{told}") },
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
