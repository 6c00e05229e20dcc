//! How long each kind of data is usually kept, as cover windows.

use super::place;
use bulla_engine::retention::{Keep, Policy, Unit};
use std::fmt;
use std::str::FromStr;

/// A kind of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Preset {
    /// 24 hours, 7 days, 4 weeks, 12 months, 7 years.
    Databases,
    /// Virtual machines and containers: 7 days, 4 weeks, 6 months.
    Vms,
    /// Configuration files: 30 days, 12 months.
    Config,
    /// 7 days, 4 weeks, 3 months.
    Logs,
    /// 14 days, 8 weeks, 12 months, 7 years.
    UserData,
}

impl Preset {
    /// All.
    pub const ALL: [Self; 5] = [Self::Databases, Self::Vms, Self::Config, Self::Logs, Self::UserData];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Databases => "databases",
            Self::Vms => "vms",
            Self::Config => "config",
            Self::Logs => "logs",
            Self::UserData => "user-data",
        }
    }

    /// What is kept of each hour, day and so on.
    fn windows(self) -> &'static [(Unit, &'static str)] {
        match self {
            Self::Databases => &[
                (Unit::Hourly, "24h"),
                (Unit::Daily, "7d"),
                (Unit::Weekly, "4w"),
                (Unit::Monthly, "12m"),
                (Unit::Yearly, "7y"),
            ],
            Self::Vms => &[(Unit::Daily, "7d"), (Unit::Weekly, "4w"), (Unit::Monthly, "6m")],
            Self::Config => &[(Unit::Daily, "30d"), (Unit::Monthly, "12m")],
            Self::Logs => &[(Unit::Daily, "7d"), (Unit::Weekly, "4w"), (Unit::Monthly, "3m")],
            Self::UserData => {
                &[(Unit::Daily, "14d"), (Unit::Weekly, "8w"), (Unit::Monthly, "12m"), (Unit::Yearly, "7y")]
            }
        }
    }

    /// As a policy of the engine.
    pub fn policy(self) -> Policy {
        let mut policy = Policy::default();
        for (unit, window) in self.windows() {
            *place(&mut policy, *unit) = window.parse::<Keep>().ok();
        }
        policy
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or_else(|| {
            format!("{text:?} is no preset; there are {}", Self::ALL.map(Self::name).join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules;
    use super::*;

    #[test]
    fn every_window_is_in_the_policy() {
        for preset in Preset::ALL {
            let kept: Vec<_> = rules(&preset.policy()).iter().map(|(u, k)| (*u, k.to_string())).collect();
            let meant: Vec<_> = preset.windows().iter().map(|(u, w)| (*u, (*w).to_owned())).collect();
            assert_eq!(kept, meant, "{preset}");
            assert_eq!(preset.name().parse(), Ok(preset));
        }
        assert!(
            "database".parse::<Preset>().unwrap_err().contains("databases, vms, config, logs, user-data")
        );
    }
}
