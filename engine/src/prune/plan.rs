//! What to do with each pack, decided from what is in it: pure, so that it can be tested by the thousand.
//!
//! Nothing here is needed for safety: a plan that condemned every pack would cost copies and lose nothing (SPEC 14).

use bulla_repo_format::PackName;
use bulla_repo_format::pack::PackKind;

/// A pack and how much of it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackUse {
    /// The pack.
    pub name: PackName,
    /// Data or metadata.
    pub kind: PackKind,
    /// Bytes of the object.
    pub size: u64,
    /// Plain bytes in it.
    pub plain: u64,
    /// Plain bytes of it that roots need and that are kept here.
    pub live: u64,
}

impl PackUse {
    /// Bytes of the object that serve nothing, by share of plain bytes.
    pub fn unused(&self) -> u64 {
        let live = self.live.min(self.plain);
        let share = u128::from(self.size) * u128::from(live) / u128::from(self.plain.max(1));
        self.size - u64::try_from(share).unwrap_or(self.size)
    }
}

/// How much unused space may stay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MaxUnused {
    /// Per cent of what the repository then holds.
    Percent(f64),
    /// Bytes.
    Bytes(u64),
    /// All: only packs without any use are deleted.
    Unlimited,
}

/// What to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Packs nothing needs.
    pub delete: Vec<PackUse>,
    /// Packs whose needed part is copied to new packs first.
    pub repack: Vec<PackUse>,
    /// Packs that stay.
    pub keep: Vec<PackUse>,
}

impl Plan {
    /// Bytes the repository gets smaller, estimated.
    pub fn freed(&self) -> u64 {
        self.delete.iter().map(|p| p.size).sum::<u64>() + self.repack.iter().map(PackUse::unused).sum::<u64>()
    }
    /// Bytes of the packs that are read for copying; what is fetched is at most that.
    pub fn fetched(&self) -> u64 {
        self.repack.iter().map(|p| p.size).sum()
    }
    /// Bytes that are stored again before packs are deleted, estimated.
    pub fn copied(&self) -> u64 {
        self.repack.iter().map(|p| p.size - p.unused()).sum()
    }
    /// Unused bytes that stay.
    pub fn unused(&self) -> u64 {
        self.keep.iter().map(PackUse::unused).sum()
    }
}

/// Packs below this share of a full one count as small.
const SMALL: u64 = 4;
/// Small packs of one kind at which they are put together.
const MANY: usize = 16;

/// Decides. `full` is the size at which a data and a metadata pack close; `max_repack` bounds the bytes read for
/// copying.
pub fn plan(packs: &[PackUse], full: (u64, u64), max_unused: MaxUnused, max_repack: Option<u64>) -> Plan {
    let mut plan = Plan::default();
    let mut partly = Vec::new();
    for pack in packs {
        match pack {
            p if p.live == 0 => plan.delete.push(*p),
            p if p.live >= p.plain => plan.keep.push(*p),
            p => partly.push(*p),
        }
    }
    let used: u64 = packs.iter().map(|p| p.size - p.unused()).sum();
    let mut unused: u64 = partly.iter().map(PackUse::unused).sum();
    let limit = match max_unused {
        MaxUnused::Bytes(bytes) => bytes,
        MaxUnused::Unlimited => u64::MAX,
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share, clamped")]
        MaxUnused::Percent(share) => {
            let share = share.clamp(0.0, 99.0) / 100.0;
            (used as f64 * share / (1.0 - share)) as u64
        }
    };
    let mut budget = max_repack.unwrap_or(u64::MAX);
    // The emptiest first: most space for the least copying.
    partly.sort_by_key(|p| (p.live * 1000 / p.plain.max(1), p.name));
    for pack in partly {
        if unused > limit && pack.size <= budget {
            unused -= pack.unused();
            budget -= pack.size;
            plan.repack.push(pack);
        } else {
            plan.keep.push(pack);
        }
    }
    if max_unused != MaxUnused::Unlimited {
        gather_small(&mut plan, full, budget);
    }
    plan
}

/// Many small packs of one kind become few: every backup ends with one, and listings are paid by the object.
fn gather_small(plan: &mut Plan, full: (u64, u64), mut budget: u64) {
    for (kind, full) in [(PackKind::Data, full.0), (PackKind::Meta, full.1)] {
        let small = |p: &PackUse| p.kind == kind && p.size < full / SMALL;
        if plan.keep.iter().filter(|p| small(p)).count() < MANY {
            continue;
        }
        let (gather, keep) = std::mem::take(&mut plan.keep).into_iter().partition(|p| {
            let take = small(p) && p.size <= budget;
            budget -= if take { p.size } else { 0 };
            take
        });
        plan.keep = keep;
        plan.repack.extend::<Vec<_>>(gather);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(n: u8, size: u64, live: u64) -> PackUse {
        PackUse { name: PackName::new([n; 32]), kind: PackKind::Data, size, plain: 1000, live }
    }

    const FULL: (u64, u64) = (400, 400);

    #[test]
    fn the_emptiest_packs_are_repacked_until_little_enough_is_unused() {
        let packs = [pack(1, 1000, 0), pack(2, 1000, 100), pack(3, 1000, 950), pack(4, 1000, 1000)];
        let plan = plan(&packs, FULL, MaxUnused::Percent(5.0), None);
        let names = |p: &[PackUse]| p.iter().map(|p| p.name.as_bytes()[0]).collect::<Vec<_>>();
        assert_eq!((names(&plan.delete), names(&plan.repack)), (vec![1], vec![2]));
        assert_eq!((plan.freed(), plan.unused()), (1900, 50));
    }

    #[test]
    fn many_small_packs_are_put_together() {
        let packs: Vec<_> = (0..16).map(|n| pack(n, 50, 1000)).collect();
        assert_eq!(plan(&packs, FULL, MaxUnused::Percent(5.0), None).repack.len(), 16);
        assert!(plan(&packs[1..], FULL, MaxUnused::Percent(5.0), None).repack.is_empty());
        assert!(plan(&packs, FULL, MaxUnused::Unlimited, None).repack.is_empty());
    }

    proptest! {
        #[test]
        fn every_pack_has_one_fate_and_the_limits_hold(
            packs in prop::collection::vec((1u64..5000, 0u64..=1000), 0..60),
            unused in 0u64..20_000,
            budget in prop::option::of(0u64..20_000),
        ) {
            let packs: Vec<_> = (0u8..).zip(&packs).map(|(n, (size, live))| pack(n, *size, *live)).collect();
            let plan = plan(&packs, FULL, MaxUnused::Bytes(unused), budget);
            let mut all: Vec<_> = [&plan.delete[..], &plan.repack, &plan.keep].concat();
            all.sort_by_key(|p| p.name);
            prop_assert_eq!(&all, &packs);
            prop_assert!(plan.delete.iter().all(|p| p.live == 0));
            prop_assert!(plan.repack.iter().all(|p| p.live > 0));
            prop_assert!(plan.keep.iter().all(|p| p.live > 0));
            let read: u64 = plan.repack.iter().map(|p| p.size).sum();
            prop_assert!(read <= budget.unwrap_or(u64::MAX));
            if budget.is_none() {
                prop_assert!(plan.unused() <= unused);
            }
        }
    }
}
