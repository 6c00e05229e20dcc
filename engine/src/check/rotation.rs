//! Which packs to read today so that each is read within a number of days: the longest unread first, as many as the
//! time since the last reading asks for, and all that would be overdue before the next. Pure, and proved by playing it.

use std::cmp::Ordering;

pub(super) const DAY: i64 = 24 * 3600;

/// A pack, as far as its turn is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<K> {
    pub(super) key: K,
    pub(super) size: u64,
    /// When it was last read whole, or else when it was put.
    pub(super) since: i64,
}

/// Those whose turn it is, the longest unread first. `last` is when anything was last read. Times in the future count
/// as never: a clock that was wrong must not excuse a pack for ever.
pub(super) fn due<K: Ord + Copy>(
    mut packs: Vec<Turn<K>>,
    now: i64,
    last: Option<i64>,
    days: u32,
) -> Vec<Turn<K>> {
    let period = i64::from(days.max(1)) * DAY;
    let elapsed = last.map_or(DAY, |l| now.saturating_sub(l)).clamp(DAY / 24, period);
    let total: u128 = packs.iter().map(|p| u128::from(p.size)).sum();
    let quota = (total * elapsed.unsigned_abs() as u128).div_ceil(period.unsigned_abs().into());
    for pack in &mut packs {
        if pack.since > now {
            pack.since = i64::MIN;
        }
    }
    packs.sort_by(|a, b| a.since.cmp(&b.since).then(a.key.cmp(&b.key)));
    // Read by now, or it is too old when the next reading comes after as long a pause as this one.
    let overdue = now.saturating_sub(period).saturating_add(elapsed);
    let mut sum = 0u128;
    packs.retain(|p| {
        let take = sum < quota || p.since.cmp(&overdue) != Ordering::Greater;
        sum += if take { u128::from(p.size) } else { 0 };
        take
    });
    packs
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn every_pack_is_read_within_the_days_whatever_comes_and_goes(
            days in 2u32..40,
            arrivals in prop::collection::vec(prop::collection::vec(1u64..100, 0..6), 30..120),
        ) {
            let (mut packs, mut last): (BTreeMap<usize, (u64, i64)>, Option<i64>) = (BTreeMap::new(), None);
            let mut next = 0;
            for (day, new) in arrivals.iter().enumerate() {
                let now = 1_000_000 + day as i64 * DAY;
                for size in new {
                    packs.insert(next, (*size, now));
                    next += 1;
                }
                let turns = packs.iter().map(|(key, (size, since))| Turn { key: *key, size: *size, since: *since });
                for turn in due(turns.collect(), now, last, days) {
                    packs.insert(turn.key, (turn.size, now));
                }
                last = Some(now);
                for (size, since) in packs.values() {
                    prop_assert!(now - since <= i64::from(days) * DAY, "{size} bytes unread since {since} at {now}");
                }
            }
        }
    }

    #[test]
    fn a_day_reads_its_share_and_the_future_is_no_excuse() {
        let turn = |key, since| Turn { key, size: 10, since };
        let packs: Vec<_> = (0..30).map(|n| turn(n, 1000 + i64::from(n))).collect();
        let read = due(packs.clone(), 30 * DAY, Some(29 * DAY), 60);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].key, 0);
        let mut wrong = packs;
        wrong[7].since = 99 * DAY;
        assert_eq!(due(wrong, 30 * DAY, Some(29 * DAY), 60)[0].key, 7);
        assert!(due(Vec::<Turn<u8>>::new(), 0, None, 30).is_empty());
    }
}
