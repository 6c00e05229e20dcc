//! 3-2-1-1-0 of a job, from what is on record: three copies in places that fail apart, on two kinds of media, one off-site, one
//! that this machine cannot delete, no errors. Pure.
//!
//! Kept true: what is unknown is not met. A copy counts only where the newest backup is proven to read back, and only once
//! for each place that fails as a whole.

use crate::config::{Config, Job, Length, Media};
use crate::status::{Facts, JobStatus};
use bulla_engine::backend::LockMode;
use bulla_engine::forget::job_of;
use bulla_engine::format::snapshot::Snapshot;

/// What fails as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    /// A disk of this machine, by its device number.
    Disk(u64),
    /// Another host or service, by its name.
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
    place: &dyn Fn(&str) -> Domain,
    now: i64,
) -> Compliance {
    let mut taken = source.to_vec();
    let hidden = source.is_empty() || source.iter().any(|d| matches!(d, Domain::Here | Domain::Unknown));
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
        let proof =
            holding.snapshots.iter().filter(newest).filter_map(|s| holding.evidence.proven_at(&s.id)).max();
        let domain = place(&to.value);
        match (proof, &domain) {
            (None, _) => not.push(format!("{} has not the newest backup, proven", to.value)),
            (_, Domain::Unknown | Domain::Here) => {
                not.push(format!("{}: not known what it fails with", to.value))
            }
            (_, Domain::Disk(_)) if hidden => {
                not.push(format!(
                    "{} lies on this machine, and nobody can say where the source does",
                    to.value
                ));
            }
            (_, domain) if taken.contains(domain) => {
                not.push(format!("{} fails together with another copy", to.value));
            }
            (Some(at), _) => {
                taken.push(domain);
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
    let marks = marks(config, status, &counted, &not);
    let met = [0, 1, 2, 3, 4].map(|n: usize| marks.get(n).is_some_and(|m| m.met));
    Compliance { marks, verdict: Verdict::of(met) }
}

fn age(seconds: i64) -> String {
    Length::of_seconds(seconds.max(1)).to_string()
}

fn marks(config: &Config, status: &JobStatus, counted: &[Counted<'_>], not: &[String]) -> [Mark; 5] {
    let names = |list: Vec<&Counted<'_>>| -> String {
        let each: Vec<String> =
            list.iter().map(|c| format!("{} (read back {} ago)", c.name, age(c.age))).collect();
        if each.is_empty() { "none".to_owned() } else { each.join(", ") }
    };
    let but = if not.is_empty() { String::new() } else { format!("; not counted: {}", not.join(", ")) };
    let mut media: Vec<Media> = Vec::new();
    for kind in counted.iter().filter_map(|c| c.media) {
        if !media.contains(&kind) {
            media.push(kind);
        }
    }
    let home = config.host.site.as_ref().map(|at| &at.value);
    let away = |c: &&Counted<'_>| home.is_some() && c.site.is_some() && c.site != home;
    let (offsite, locked): (Vec<_>, Vec<_>) =
        (counted.iter().filter(away).collect(), counted.iter().filter(|c| c.append_only).collect());
    let kinds: Vec<String> = media.iter().map(|m| format!("{m:?}").to_lowercase()).collect();
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
            evidence: if kinds.is_empty() { "none is declared".to_owned() } else { kinds.join(", ") },
        },
        Mark { rule: "1 off-site", met: !offsite.is_empty(), evidence: names(offsite) },
        Mark { rule: "1 that cannot be deleted from here", met: !locked.is_empty(), evidence: names(locked) },
        Mark { rule: "0 errors", met: status.findings.is_empty(), evidence: worst },
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
