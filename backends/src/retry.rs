//! When to try again: exponential back-off with jitter, until patience ends. Pure; the sleeping is [`crate::remote`]'s.
//!
//! The delay before attempt n is drawn evenly from the upper half of `first · 2ⁿ`, so that many hosts that lost the same
//! server do not come back at the same moment (the reasoning is that of "Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015; half of the delay is kept so that it does grow).

use std::time::Duration;

/// No delay of our own is longer than this many first ones: half a minute, as a rule.
const LONGEST: u32 = 150;
/// A store that asks for more than this gets a visit earlier.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// How long is tried, and how soon again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The longest first delay; each further one is twice the one before.
    pub first: Duration,
    /// From the first failure of an operation until it is given up.
    pub total: Duration,
}

impl Default for Patience {
    /// A quarter of an hour: a router that restarts, a maintenance window, a laptop that changes networks.
    fn default() -> Self {
        Self { first: Duration::from_millis(200), total: Duration::from_secs(900) }
    }
}

impl Patience {
    /// How long to wait after failure number `failures` (from 1), `spent` after the first, with a random number;
    /// `None` to give up. What the store asked for is the least that is waited.
    pub fn delay(
        self,
        failures: u32,
        spent: Duration,
        asked: Option<Duration>,
        random: u32,
    ) -> Option<Duration> {
        if spent >= self.total {
            return None;
        }
        let most = self
            .first
            .saturating_mul(1 << failures.saturating_sub(1).min(16))
            .min(self.first.saturating_mul(LONGEST));
        let drawn = most / 2 + most.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0);
        let delay = drawn.max(asked.unwrap_or_default().min(LONGEST_ASKED));
        // The last attempt is at the end of patience and not long before it.
        Some(delay.min(self.total - spent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn delays_grow_are_spread_and_end(failures in 1u32..200, spent in 0u64..1000, random in any::<u32>(), asked in 0u64..1000) {
            let patience = Patience::default();
            let (spent, asked) = (Duration::from_secs(spent), Duration::from_secs(asked));
            match patience.delay(failures, spent, Some(asked), random) {
                None => prop_assert!(spent >= patience.total),
                Some(delay) => {
                    prop_assert!(spent + delay <= patience.total);
                    prop_assert!(delay >= asked.min(LONGEST_ASKED).min(patience.total - spent));
                    prop_assert!(delay <= Duration::from_secs(30).max(asked));
                }
            }
        }
    }

    #[test]
    fn the_first_delays() {
        let ms = |n, random| Patience::default().delay(n, Duration::ZERO, None, random).unwrap().as_millis();
        assert_eq!([1, 2, 3, 4].map(|n| ms(n, 0)), [100, 200, 400, 800]);
        assert_eq!([1, 2, 3, 4].map(|n| ms(n, u32::MAX)), [200, 400, 800, 1600]);
        assert_eq!(ms(100, u32::MAX), 30_000);
    }

    /// From the first failure to giving up, without a store's wishes: a few dozen attempts, not thousands.
    #[test]
    fn a_quarter_of_an_hour_is_some_forty_attempts() {
        let (mut spent, mut n) = (Duration::ZERO, 0);
        while let Some(delay) = Patience::default().delay(n + 1, spent, None, u32::MAX / 2) {
            spent += delay;
            n += 1;
        }
        assert!((30..60).contains(&n), "{n}");
    }
}
