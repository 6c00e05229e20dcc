//! How long the law wants backups kept. A policy that reaches less far contradicts it, and is refused with the smallest
//! change that ends the contradiction; nothing is averaged. The notes say what the rules are really about; none of this
//! is legal advice.

use super::{Reach, place, rules};
use bulla_engine::retention::{Keep, Period, Policy, Unit};
use std::fmt;
use std::str::FromStr;

/// A set of rules that data can be under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compliance {
    /// General Data Protection Regulation: no minimum, but a right to erasure.
    Gdpr,
    /// Health Insurance Portability and Accountability Act: 6 years.
    Hipaa,
    /// Sarbanes-Oxley Act: 7 years.
    Sox,
    /// Payment Card Industry Data Security Standard: 12 months, 3 of them at hand.
    PciDss,
}

/// From here on the smallest change is a rule for years: one for months would keep twelve times as many.
const YEARS_FROM: &str = "2y";

/// A policy that reaches less far than it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// What it is under.
    pub compliance: Compliance,
    /// How far it would have to reach.
    pub min: Period,
    /// How far it does.
    pub reach: Reach,
    /// The rule that has to be set, and to what, in place of what it says or for the first time.
    pub fix: (Unit, Period),
}

impl Compliance {
    /// All.
    pub const ALL: [Self; 4] = [Self::Gdpr, Self::Hipaa, Self::Sox, Self::PciDss];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gdpr => "gdpr",
            Self::Hipaa => "hipaa",
            Self::Sox => "sox",
            Self::PciDss => "pci-dss",
        }
    }

    /// How long something has to be kept.
    pub fn min(self) -> Option<Period> {
        let text = match self {
            Self::Gdpr => return None,
            Self::Hipaa => "6y",
            Self::Sox => "7y",
            Self::PciDss => "12m",
        };
        text.parse().ok()
    }

    /// How much of that has to be at hand at once, without waiting for an archive.
    pub fn hot(self) -> Option<Period> {
        if self == Self::PciDss { "3m".parse().ok() } else { None }
    }

    /// What it is about.
    pub fn note(self) -> &'static str {
        match self {
            Self::Gdpr => {
                "Art. 17 gives a right to erasure, Art. 5(1)(e) limits storage: no minimum; what is erased must not come \
                 back with a restore"
            }
            Self::Hipaa => "45 CFR 164.316(b)(2)(i): documentation, 6 years from its last effective date",
            Self::Sox => "17 CFR 210.2-06: audit work papers, 7 years after the audit",
            Self::PciDss => "requirement 10.5.1: audit logs, 12 months, the last 3 at hand for analysis",
        }
    }

    /// What a policy lacks to be long enough.
    pub fn shortfall(self, policy: &Policy) -> Option<Short> {
        let (min, reach) = (self.min()?, Reach::of(policy));
        // Any rule: of two periods neither need be the longer on every day.
        if rules(policy).into_iter().any(|(_, keep)| Reach::of_rule(keep).covers(&min)) {
            return None;
        }
        let years = YEARS_FROM.parse().is_ok_and(|from: Period| min.covers(&from));
        let fix = (if years { Unit::Yearly } else { Unit::Monthly }, min);
        Some(Short { compliance: self, min, reach, fix })
    }
}

impl Short {
    /// The policy with the smallest change made.
    pub fn mended(&self, policy: &Policy) -> Policy {
        let mut policy = policy.clone();
        *place(&mut policy, self.fix.0) = Some(Keep::Within(self.fix.1));
        policy
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, period) = &self.fix;
        write!(
            f,
            "{} wants {}, and this keeps {}; the smallest change: {unit} = \"{period}\"",
            self.compliance, self.min, self.reach
        )
    }
}

impl fmt::Display for Compliance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Compliance {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|c| c.name() == text).ok_or_else(|| {
            format!(
                "{text:?} is no set of rules known here; there are {}",
                Self::ALL.map(Self::name).join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Preset;
    use super::*;

    /// Every preset against every lock: which contradict, and that the change named ends it.
    #[test]
    fn contradictions_are_found_and_the_change_named_ends_them() {
        let mut short = Vec::new();
        for preset in Preset::ALL {
            for compliance in Compliance::ALL {
                let Some(s) = compliance.shortfall(&preset.policy()) else { continue };
                assert_eq!(compliance.shortfall(&s.mended(&preset.policy())), None, "{s}");
                short.push(format!("{preset} {compliance} {} {}", s.fix.0, s.fix.1));
            }
        }
        let expected = [
            "vms hipaa yearly 6y",
            "vms sox yearly 7y",
            "vms pci-dss monthly 12m",
            "config hipaa yearly 6y",
            "config sox yearly 7y",
            "logs hipaa yearly 6y",
            "logs sox yearly 7y",
            "logs pci-dss monthly 12m",
        ];
        assert_eq!(short, expected);
    }

    #[test]
    fn one_rule_that_is_long_enough_suffices() {
        let keep = |text: &str| text.parse().ok();
        // Neither of the two is longer than the other on all days.
        let policy = Policy { keep_weekly: keep("12m"), keep_monthly: keep("11m30d"), ..Policy::default() };
        assert_eq!(Compliance::PciDss.shortfall(&policy), None);
    }

    #[test]
    fn counts_are_never_long_enough() {
        let policy = Policy { keep_yearly: Some(Keep::Count(100)), ..Policy::default() };
        let said = Compliance::Sox.shortfall(&policy).unwrap().to_string();
        assert_eq!(said, "sox wants 7y, and this keeps no time at all; the smallest change: yearly = \"7y\"");
    }
}
