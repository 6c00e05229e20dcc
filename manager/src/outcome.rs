//! How things end: the exit codes of the program, and which of several counts.

/// How something ended. The numbers are the program's exit codes, and those in the ledger.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// As it should.
    #[default]
    Done = 0,
    /// Not at all.
    Failed = 1,
    /// But for a part of the source, or for a destination that is behind.
    Partial = 3,
    /// With damage found.
    Damage = 4,
    /// Refused by a rule.
    Refused = 5,
    /// Something is not proven, or not as was promised.
    Unproven = 6,
    /// Something was due and did not happen.
    Missed = 7,
    /// What was restored was not what it has to be, or came too late.
    Drill = 8,
    /// Something looks wrong: nothing is let go until somebody has looked.
    Held = 9,
    /// There is no repository.
    NoRepository = 10,
    /// Somebody else does it.
    Busy = 11,
    /// The wrong secret, or none.
    NoSecret = 12,
    /// No space.
    Capacity = 13,
    /// Somebody stopped it.
    Interrupted = 130,
}

impl Outcome {
    /// All, the one that counts first: what cannot be read comes before what is damaged, and that before what is missing.
    const RANKED: [Self; 14] = [
        Self::Interrupted,
        Self::NoSecret,
        Self::Damage,
        Self::Capacity,
        Self::Drill,
        Self::Held,
        Self::Refused,
        Self::NoRepository,
        Self::Failed,
        Self::Busy,
        Self::Missed,
        Self::Unproven,
        Self::Partial,
        Self::Done,
    ];

    /// The code.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// Of a code; one that is not known is a failure.
    pub fn of(code: u64) -> Self {
        let known = |outcome: &&Self| u64::from(outcome.code()) == code;
        Self::RANKED.iter().find(known).copied().unwrap_or(Self::Failed)
    }

    /// What it is for a job when it is that of one of its destinations. One that is behind leaves the others; that none has
    /// a backup is told apart.
    pub fn of_one(self) -> Self {
        match self {
            Self::Done | Self::Damage | Self::Capacity | Self::NoSecret | Self::Held | Self::Interrupted => {
                self
            }
            _ => Self::Partial,
        }
    }

    /// How grave it is: 0 is the gravest.
    pub fn rank(self) -> usize {
        Self::RANKED.iter().position(|o| *o == self).unwrap_or(Self::RANKED.len())
    }

    /// The one of two that counts.
    pub fn and(self, other: Self) -> Self {
        if other.rank() < self.rank() { other } else { self }
    }

    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "ok",
            Self::Failed => "failed",
            Self::Partial => "partial",
            Self::Damage => "damaged",
            Self::Refused => "refused",
            Self::Unproven => "unproven",
            Self::Missed => "missed",
            Self::Drill => "drill failed",
            Self::Held => "held",
            Self::NoRepository => "no repository",
            Self::Busy => "busy",
            Self::NoSecret => "no secret",
            Self::Capacity => "full",
            Self::Interrupted => "interrupted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Outcome::{self, *};

    #[test]
    fn the_graver_one_counts_whatever_came_first() {
        for (a, b, counts) in [
            (Done, Partial, Partial),
            (Partial, Damage, Damage),
            (Refused, Missed, Refused),
            (Held, Damage, Damage),
        ] {
            assert_eq!((a.and(b), b.and(a)), (counts, counts));
        }
        for outcome in Outcome::RANKED {
            assert_eq!(Outcome::of(outcome.code().into()), outcome);
            assert_eq!(outcome.and(Done), outcome);
        }
        assert_eq!(Outcome::of(99), Failed);
    }
}
