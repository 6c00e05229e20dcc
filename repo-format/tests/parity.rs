//! Parity: whatever is damaged within its share comes back bit for bit, whatever is beyond is refused, and the code
//! is the one SPEC 18.2 defines, computed here a second time from its equations.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed assumption must stop a test")]

use bulla_repo_format::parity::{HEAD_LEN, Head, Repaired, Sidecar, create, create_as};
use bulla_repo_format::{FormatError, PackName};
use proptest::prelude::*;
use proptest::sample::subsequence;

const SHARD: usize = 64 << 10;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut out);
    out
}

fn name(pack: &[u8]) -> PackName {
    PackName::new(*blake3::hash(pack).as_bytes())
}

fn sidecar(pack: &[u8], percent: u8) -> Vec<u8> {
    create(name(pack), &[pack], percent).unwrap().parts().concat()
}

/// With small shards, so that many cases are fast.
fn small(pack: &[u8], shard: u32, recovery: u32) -> (Head, Vec<u8>) {
    let head = Head { name: name(pack), size: pack.len() as u64, shard, recovery };
    (head, create_as(&head, &[pack]).unwrap().parts().concat())
}

fn repair(side: &[u8], name: &PackName, pack: &[u8]) -> Result<Repaired, FormatError> {
    Sidecar::parse(side, name)?.repair(pack)
}

/// Turns every byte of a shard over.
fn spoil(pack: &mut [u8], shard: usize, number: usize) {
    let end = (number + 1) * shard;
    let end = end.min(pack.len());
    pack[number * shard..end].iter_mut().for_each(|b| *b ^= 0xff);
}

#[test]
fn a_full_pack_survives_any_burst_of_its_share_header_and_trailer_included() {
    let pack = noise(1, (12 << 20) + (256 << 10));
    let (shards, side) = (pack.len() / SHARD, sidecar(&pack, 3));
    let head = *Sidecar::parse(&side, &name(&pack)).unwrap().head();
    assert_eq!((head.data(), head.recovery, shards), (196, 6, 196));
    assert_eq!(side.len() as u64, head.object_len());
    assert!(side.len() * 100 < pack.len() * 4, "{} of {}", side.len(), pack.len());
    // Aligned bursts of 6 shards, and bursts of any place that touch no more: 5 shards and a byte.
    let aligned = [0, 1, 95, shards - 6].map(|first| (first * SHARD, 6 * SHARD));
    let loose = [1, 84, SHARD - 1, pack.len() / 2 + 77, pack.len() - 5 * SHARD - 1];
    for (at, len) in aligned.into_iter().chain(loose.map(|at| (at, 5 * SHARD + 1))) {
        let mut bad = pack.clone();
        bad[at..at + len].fill(0xaa);
        let repaired = repair(&side, &head.name, &bad).unwrap();
        assert!(repaired.bytes == pack && repaired.shards == 6, "{at} {len}");
    }
    let mut bad = pack.clone();
    bad[SHARD / 2..SHARD / 2 + 6 * SHARD].fill(0xaa);
    let e = repair(&side, &head.name, &bad).unwrap_err();
    assert_eq!(e, FormatError::BeyondParity { damaged: 7, left: 6 });
}

#[test]
fn shares_are_rounded_up_and_small_packs_have_one_shard() {
    for (size, percent, recovery) in [
        (1u64, 3, 1),
        (64 << 10, 3, 1),
        ((64 << 10) + 1, 3, 1),
        (33 * (64 << 10), 3, 1),
        (34 * (64 << 10), 3, 2),
        (12 << 20, 3, 6),
        (12 << 20, 1, 2),
        (12 << 20, 100, 192),
        (1 << 30, 100, 16384),
    ] {
        let head = Head::new(PackName::new([0; 32]), size, percent).unwrap();
        assert_eq!(head.recovery, recovery, "{size} {percent}");
        assert_eq!(Head::of_length(head.name, size, head.object_len()), Some(head));
        assert_eq!(Head::of_length(head.name, size, head.object_len() - 1), None);
    }
    assert!(Head::new(PackName::new([0; 32]), 1, 0).is_err());
    assert!(Head::new(PackName::new([0; 32]), 1, 101).is_err());
    assert!(Head::new(PackName::new([0; 32]), 0, 3).is_err());
}

#[test]
fn cut_and_grown_packs_come_back() {
    let pack = noise(2, 40 * SHARD + 4321);
    let side = sidecar(&pack, 5);
    let id = name(&pack);
    for len in [pack.len() - 1, pack.len() - 4321, pack.len() - 4321 - 2 * SHARD] {
        assert_eq!(repair(&side, &id, &pack[..len]).unwrap().bytes, pack, "{len}");
    }
    for more in [1, SHARD, 5 * SHARD] {
        let longer = [&pack[..], &vec![7; more]].concat();
        assert_eq!(repair(&side, &id, &longer).unwrap(), Repaired { bytes: pack.clone(), shards: 0 });
    }
    assert!(repair(&side, &id, &[]).is_err());
    assert!(repair(&side, &id, &pack[..30 * SHARD]).is_err());
    // A byte that was slipped in moves everything behind it.
    let moved = [&pack[..10], b"x", &pack[10..]].concat();
    assert!(matches!(repair(&side, &id, &moved), Err(FormatError::BeyondParity { .. })));
}

#[test]
fn a_sidecar_bears_damage_at_one_end_and_part_of_its_share() {
    let pack = noise(3, 12 << 20);
    let (id, side) = (name(&pack), sidecar(&pack, 3));
    let ends = HEAD_LEN + 198 * 32;
    let mut bad = pack.clone();
    (0..5).for_each(|i| spoil(&mut bad, SHARD, i * 31));
    let back = |side: &[u8]| repair(side, &id, &bad).map(|r| r.bytes == pack);
    let with = |range: std::ops::Range<usize>| {
        let mut side = side.clone();
        side[range].fill(0);
        assert!(!Sidecar::parse(&side, &id).is_ok_and(|s| s.intact()));
        back(&side)
    };
    let len = side.len();
    assert!(Sidecar::parse(&side, &id).unwrap().intact());
    assert_eq!(with(0..ends), Ok(true), "the whole front");
    assert_eq!(with(len - ends..len), Ok(true), "the whole back");
    assert_eq!(with(0..ends + SHARD), Ok(true), "front and one recovery shard");
    assert_eq!(with(0..ends + 2 * SHARD), Err(FormatError::BeyondParity { damaged: 5, left: 4 }));
    assert_eq!(with(HEAD_LEN..ends), Ok(true), "one list");
    assert_eq!(back(&side[..len - 1000]), Ok(true), "cut short");
    assert_eq!(back(&side[..len - ends - SHARD]), Ok(true), "cut short by a shard");
    assert_eq!(back(&[&side[..], b"more"].concat()), Ok(true), "longer");
    assert!(back(&side[..HEAD_LEN - 1]).is_err() && back(&[]).is_err());
    // Different entries of both lists: each still stands once.
    let mut both = side.clone();
    both[HEAD_LEN..HEAD_LEN + 100 * 32].fill(0);
    let second = len - ends + 100 * 32;
    both[second..len - HEAD_LEN].fill(0);
    assert_eq!(back(&both), Ok(true), "half of each list");
    // The same entry of both: its shard counts as damaged.
    let mut same = side.clone();
    same[HEAD_LEN + 32] ^= 1;
    same[len - ends + 32] ^= 1;
    assert_eq!(back(&same), Ok(true), "one shard more");
    same[HEAD_LEN + 64] ^= 1;
    same[len - ends + 64] ^= 1;
    assert_eq!(back(&same), Err(FormatError::BeyondParity { damaged: 7, left: 6 }));
}

#[test]
fn a_sidecar_that_lies_repairs_nothing() {
    let pack = noise(4, 10 * SHARD);
    let id = name(&pack);
    let other = noise(5, 10 * SHARD);
    let head = Head { name: id, size: pack.len() as u64, shard: SHARD as u32, recovery: 2 };
    let lie = create_as(&head, &[&other]).unwrap().parts().concat();
    let e = repair(&lie, &id, &other).unwrap_err();
    assert!(e.to_string().contains("do not hash"), "{e}");
    assert!(Sidecar::parse(&sidecar(&other, 3), &id).is_err(), "another pack's sidecar");
    // A claim of 2 GiB is not believed before the bytes are there.
    let claim = Head { size: 2 << 30, shard: 1 << 20, ..head }.encode();
    assert!(matches!(repair(&claim, &id, &pack), Err(FormatError::BeyondParity { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_set_of_damage_within_the_share_comes_back_and_one_more_does_not(
        seed: u64,
        size in 1usize..40_000,
        shard in 1u32..9,
        share in 1u32..101,
        dice: u64,
        cuts in proptest::collection::vec(0usize..40_000, 0..5),
    ) {
        let (pack, shard) = (noise(seed, size), shard * 64);
        let data = size.div_ceil(shard as usize);
        let recovery = (data as u32 * share).div_ceil(100);
        let (head, side) = small(&pack, shard, recovery);
        // However the pack is divided into parts, its sidecar is the same.
        let mut at: Vec<usize> = cuts.iter().map(|c| c % size).collect();
        at.extend([0, size]);
        at.sort_unstable();
        let parts: Vec<&[u8]> = at.windows(2).map(|w| &pack[w[0]..w[1]]).collect();
        prop_assert!(create_as(&head, &parts).unwrap().parts().concat() == side);
        // Some of both kinds, `recovery` in all.
        let order = blake3::Hasher::new().update(&dice.to_le_bytes()).finalize_xof();
        let picked = pick(order, data, recovery as usize);
        let (mut bad, mut bad_side) = (pack.clone(), side.clone());
        let first = HEAD_LEN + (data + recovery as usize) * 32;
        for &n in &picked[..recovery as usize] {
            if n < data {
                spoil(&mut bad, shard as usize, n);
            } else {
                spoil(&mut bad_side[first..], shard as usize, n - data);
            }
        }
        let repaired = repair(&bad_side, &head.name, &bad).unwrap();
        prop_assert!(repaired.bytes == pack);
        let n = picked[recovery as usize];
        if n < data {
            spoil(&mut bad, shard as usize, n);
        } else {
            spoil(&mut bad_side[first..], shard as usize, n - data);
        }
        if bad != pack {
            let beyond = matches!(repair(&bad_side, &head.name, &bad), Err(FormatError::BeyondParity { .. }));
            prop_assert!(beyond);
        }
    }

    #[test]
    fn any_scattered_damage_of_a_full_pack_within_three_per_cent_comes_back(
        seed in 0u64..4,
        picked in subsequence((0..192usize).collect::<Vec<_>>(), 1..=6),
        offset in 0usize..SHARD,
    ) {
        let pack = noise(seed, 12 << 20);
        let side = sidecar(&pack, 3);
        let mut bad = pack.clone();
        picked.iter().for_each(|n| bad[n * SHARD + offset] ^= 0x40);
        let repaired = repair(&side, &name(&pack), &bad).unwrap();
        prop_assert!(repaired.bytes == pack && repaired.shards as usize == picked.len());
    }

    #[test]
    fn the_code_is_the_one_of_the_equations(
        seed: u64,
        data in 1usize..40,
        recovery in 1u32..20,
    ) {
        let recovery = recovery.min(data as u32);
        let pack = noise(seed, data * 64);
        let (_, side) = small(&pack, 64, recovery);
        let first = HEAD_LEN + (data + recovery as usize) * 32;
        let stored: Vec<&[u8]> = side[first..first + 64 * recovery as usize].chunks(64).collect();
        let shards: Vec<&[u8]> = pack.chunks(64).collect();
        for symbol in [0, 17, 31] {
            let at = |s: &[u8]| u16::from_le_bytes([s[symbol], s[symbol + 32]]);
            let expected = equations::recovery(&shards.iter().map(|s| at(s)).collect::<Vec<_>>(), recovery as usize);
            prop_assert_eq!(stored.iter().map(|s| at(s)).collect::<Vec<_>>(), expected);
        }
    }
}

/// `count` + 1 different numbers below `data + count`.
fn pick(mut order: blake3::OutputReader, data: usize, count: usize) -> Vec<usize> {
    let mut all: Vec<usize> = (0..data + count).collect();
    for i in 0..=count.min(all.len() - 1) {
        let mut b = [0; 8];
        order.fill(&mut b);
        let j = i + (u64::from_le_bytes(b) % (all.len() - i) as u64) as usize;
        all.swap(i, j);
    }
    all.truncate(count + 1);
    all
}

/// SPEC 18.2, without a fast transform: the equations, solved.
mod equations {
    const BASIS: [u16; 16] = [
        0x0001, 0xacca, 0x3c0e, 0x163e, 0xc582, 0xed2e, 0x914c, 0x4012, 0x6c98, 0x10d8, 0x6a72, 0xb900,
        0xfdb8, 0xfb34, 0xff38, 0x991e,
    ];

    /// The field element a number stands for.
    fn element(n: u16) -> u16 {
        (0..16).filter(|i| n >> i & 1 == 1).fold(0, |e, i| e ^ BASIS[i])
    }

    /// Back.
    fn number(e: u16) -> u16 {
        (0..=u16::MAX).find(|n| element(*n) == e).unwrap()
    }

    fn mul(a: u16, b: u16) -> u16 {
        let mut out = 0u32;
        for i in 0..16 {
            out ^= if b >> i & 1 == 1 { u32::from(a) << i } else { 0 };
        }
        for i in (16..32).rev() {
            out ^= if out >> i & 1 == 1 { 0x1_002d << (i - 16) } else { 0 };
        }
        out as u16
    }

    fn power(a: u16, n: u32) -> u16 {
        (0..n).fold(1, |p, _| mul(p, a))
    }

    fn inverse(a: u16) -> u16 {
        let (mut out, mut square, mut n) = (1, a, 65534u32);
        while n > 0 {
            out = if n & 1 == 1 { mul(out, square) } else { out };
            square = mul(square, square);
            n >>= 1;
        }
        out
    }

    /// The M unknowns at the points 0..M from the equations of the power sums 0..M.
    pub(super) fn recovery(data: &[u16], count: usize) -> Vec<u16> {
        let m = count.next_power_of_two();
        let point = |j: usize| element(u16::try_from(j).unwrap());
        let mut rows: Vec<Vec<u16>> = (0..m)
            .map(|t| {
                let mut row: Vec<u16> = (0..m).map(|j| power(point(j), t as u32)).collect();
                let known = data.iter().enumerate();
                row.push(known.fold(0, |s, (i, c)| s ^ mul(element(*c), power(point(m + i), t as u32))));
                row
            })
            .collect();
        for i in 0..m {
            let pivot = (i..m).find(|r| rows[*r][i] != 0).unwrap();
            rows.swap(i, pivot);
            let scale = inverse(rows[i][i]);
            rows[i].iter_mut().for_each(|v| *v = mul(*v, scale));
            for r in (0..m).filter(|r| *r != i) {
                let (factor, base) = (rows[r][i], rows[i].clone());
                rows[r].iter_mut().zip(base).for_each(|(v, b)| *v ^= mul(factor, b));
            }
        }
        (0..count).map(|i| number(rows[i][m])).collect()
    }
}
