//! The order in which content is fetched: by pack, offset and frame, each frame once. Pure but for the frame table.

use bulla_repo_format::tree::ChunkRef;
use std::ops::Range;

/// A chunk's way from a pack into a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Position of the pack among the wave's.
    pub(super) pack: u32,
    /// Where in its plain stream.
    pub(super) offset: u32,
    /// Position of the reference among the wave's.
    pub(super) reference: u32,
    /// Position of the file among the wave's items.
    pub(super) file: u32,
    /// Where in the file's data (holes left out).
    pub(super) at: u64,
}

/// One frame to decode, and the pieces that touch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) pack: u32,
    pub(super) frame: u32,
    pub(super) pieces: Range<usize>,
}

/// What a wave fetches.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Sorted by pack and offset; pieces of one chunk stand together.
    pub(super) pieces: Vec<Piece>,
    /// In the same order.
    pub(super) jobs: Vec<Job>,
    /// Per item: all its content comes out of one frame, so whoever decodes it writes the whole file.
    pub(super) whole: Vec<bool>,
}

/// Pieces from `start` on that carry the same chunk from the same place.
pub(super) fn group_end(pieces: &[Piece], refs: &[ChunkRef], start: usize) -> usize {
    let key = |p: &Piece| (p.pack, p.offset, refs.get(p.reference as usize));
    let first = pieces.get(start).map(key);
    let same = |p: &&Piece| Some(key(p)) == first;
    start + pieces.get(start..).unwrap_or_default().iter().take_while(same).count()
}

impl Schedule {
    /// Orders `pieces`. `frames` gives the frames that hold bytes of a pack's stream; `apart` marks items that can
    /// not be written in one go for other reasons.
    pub(super) fn new(
        mut pieces: Vec<Piece>,
        refs: &[ChunkRef],
        apart: Vec<bool>,
        frames: impl Fn(u32, Range<u64>) -> Range<usize>,
    ) -> Self {
        let id = |p: &Piece| refs.get(p.reference as usize).map(|r| (r.len, *r.id.as_bytes()));
        pieces.sort_unstable_by(|a, b| {
            (a.pack, a.offset)
                .cmp(&(b.pack, b.offset))
                .then_with(|| id(a).cmp(&id(b)))
                .then_with(|| (a.file, a.at).cmp(&(b.file, b.at)))
        });
        let mut jobs: Vec<Job> = Vec::new();
        let mut whole: Vec<bool> = apart.iter().map(|a| !a).collect();
        let mut home: Vec<Option<(u32, u32)>> = vec![None; whole.len()];
        let mut start = 0;
        while let Some(first) = pieces.get(start) {
            let end = group_end(&pieces, refs, start);
            let len = refs.get(first.reference as usize).map_or(0, |r| r.len);
            let stream = u64::from(first.offset)..u64::from(first.offset) + u64::from(len);
            let touched = frames(first.pack, stream);
            for frame in touched.clone() {
                note(&mut jobs, first.pack, u32::try_from(frame).unwrap_or(u32::MAX), start..end);
            }
            let here = (first.pack, u32::try_from(touched.start).unwrap_or(u32::MAX));
            for p in pieces.get(start..end).unwrap_or_default() {
                let (Some(w), Some(h)) = (whole.get_mut(p.file as usize), home.get_mut(p.file as usize))
                else {
                    continue;
                };
                *w &= touched.len() == 1 && h.is_none_or(|h| h == here);
                *h = Some(here);
            }
            start = end;
        }
        Self { pieces, jobs, whole }
    }
}

/// Adds pieces to a frame's job. Offsets ascend, so the job is among the last ones of its pack, or new.
fn note(jobs: &mut Vec<Job>, pack: u32, frame: u32, pieces: Range<usize>) {
    let at = jobs.partition_point(|j| (j.pack, j.frame) < (pack, frame));
    match jobs.get_mut(at) {
        Some(job) if (job.pack, job.frame) == (pack, frame) => job.pieces.end = pieces.end,
        _ => jobs.insert(at, Job { pack, frame, pieces }),
    }
}

/// Jobs that one request can carry: frames of one pack that follow each other, of `limit` bytes in all, or one.
pub(super) fn spans(jobs: &[Job], limit: u64, sealed_len: impl Fn(&Job) -> u64) -> Vec<Range<usize>> {
    let (mut out, mut bytes): (Vec<Range<usize>>, u64) = (Vec::new(), 0);
    for (number, job) in jobs.iter().enumerate() {
        let len = sealed_len(job);
        let follows = number
            .checked_sub(1)
            .and_then(|n| jobs.get(n))
            .is_some_and(|before| (before.pack, before.frame.checked_add(1)) == (job.pack, Some(job.frame)));
        match out.last_mut() {
            Some(span) if follows && bytes.saturating_add(len) <= limit => {
                span.end = number + 1;
                bytes += len;
            }
            _ => {
                out.push(number..number + 1);
                bytes = len;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use bulla_repo_format::ChunkId;
    use proptest::prelude::*;

    const FRAME: u64 = 100;

    #[test]
    fn a_request_carries_frames_that_follow_each_other() {
        let job = |(pack, frame)| Job { pack, frame, pieces: 0..0 };
        let jobs: Vec<Job> = [(0, 0), (0, 1), (0, 2), (0, 4), (1, 5), (1, 6)].map(job).into();
        let of = |limit| spans(&jobs, limit, |_| 10);
        assert_eq!(of(20), [0..2, 2..3, 3..4, 4..6]);
        assert_eq!(of(1000), [0..3, 3..4, 4..6]);
        assert_eq!(of(0).len(), 6);
    }

    fn frames(_: u32, r: Range<u64>) -> Range<usize> {
        (r.start / FRAME) as usize..r.end.div_ceil(FRAME) as usize
    }

    proptest! {
        /// Every frame that holds a wanted byte has exactly one job, whose pieces are those that touch it; a file is
        /// whole exactly if one frame holds all of it.
        #[test]
        fn each_frame_once(
            wanted in proptest::collection::vec((0u32..3, 0u32..2000, 1u32..250, 0u32..12), 0..80)
        ) {
            let refs: Vec<ChunkRef> = wanted
                .iter()
                .map(|w| ChunkRef { id: ChunkId::new([(w.1 % 251) as u8; 32]), len: w.2 })
                .collect();
            let pieces: Vec<Piece> = (0u32..)
                .zip(&wanted)
                .map(|(i, w)| Piece { pack: w.0, offset: w.1, reference: i, file: w.3, at: i.into() })
                .collect();
            let touched = |p: &Piece| {
                let len = refs[p.reference as usize].len;
                let (pack, start) = (p.pack, u64::from(p.offset));
                frames(0, start..start + u64::from(len)).map(move |f| (pack, f as u32))
            };
            let s = Schedule::new(pieces.clone(), &refs, vec![false; 12], frames);
            let mut expected: Vec<(u32, u32)> = pieces.iter().flat_map(&touched).collect();
            expected.sort();
            expected.dedup();
            let jobs: Vec<(u32, u32)> = s.jobs.iter().map(|j| (j.pack, j.frame)).collect();
            prop_assert_eq!(jobs, expected);
            for (i, p) in s.pieces.iter().enumerate() {
                for t in touched(p) {
                    let job = s.jobs.iter().find(|j| (j.pack, j.frame) == t).unwrap();
                    prop_assert!(job.pieces.contains(&i));
                }
            }
            for file in 0..12 {
                let mut homes: Vec<_> = pieces.iter().filter(|p| p.file == file).flat_map(&touched).collect();
                homes.sort();
                homes.dedup();
                prop_assert_eq!(s.whole[file as usize], homes.len() <= 1);
            }
        }
    }
}
