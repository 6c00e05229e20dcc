//! What a copy would cost: the requests to both ends and their bytes, without moving any content.
//!
//! Metadata is read, as the copy itself will do, and packed to be counted. What content will be fetched is planned like the
//! copy itself plans it; what it will be stored as is told from the frames that it lies in at the source.

use super::gather::{Gather, How, Moved};
use super::resplit;
use super::{CopyOptions, CopyReport, share_chunks};
use crate::backup::look::Looked;
use crate::error::Result;
use crate::observer::Observer;
use crate::repository::Repository;
use crate::repository::pack::PackStream;
use crate::repository::upload::{Discard, Stored};
use bulla_repo_format::index::KEY_LEN;
use bulla_repo_format::pack::PackKind;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::{RunId, padding};
use std::collections::HashSet;

/// Records after which an index run is put, and the bytes of one.
const RUN: (u64, u64) = (64 << 10, KEY_LEN as u64 + 12);
/// Half of the noise in a run's last pack.
const NOISE: u16 = u16::MAX / 2;

/// Adds to `report` what copying `snapshots` would be.
pub(super) fn plan(
    mut gather: Gather<'_>,
    to: &Repository,
    snapshots: &[&Snapshot],
    options: &CopyOptions,
    mut report: CopyReport,
    observer: &dyn Observer,
) -> Result<CopyReport> {
    let shared = share_chunks(gather.source().0, to);
    let mut looked = Looked::around(to, None, &HashSet::new(), None, observer)?;
    // One for all: what one snapshot would bring, the next would find.
    let known = looked.known(to, observer)?;
    let mut seen = resplit::Seen::new();
    for snapshot in snapshots {
        let discard = Discard::new(to.config().parity);
        let stream =
            |kind| PackStream::new(to, kind, RunId::new([0; 16]), options.compression, false, &discard);
        let moved = if shared {
            let how = How { dry_run: true, checkpoint: options.checkpoint };
            let streams = (stream(PackKind::Data), stream(PackKind::Meta));
            let (moved, entered) =
                gather.tree(snapshot.tree, &known, (&streams.0, &streams.1), how, observer)?;
            gather.committed(snapshot.tree, entered);
            moved
        } else {
            let (moved, meta) = resplit::plan(gather.source(), snapshot.tree, &mut seen, observer)?;
            packs(meta, to.config().meta_pack, to.config().meta_frame.into(), &discard);
            moved
        };
        let (config, (plain, sealed)) = (to.config(), moved.content);
        let frame = u64::from(config.data_frame).saturating_mul(sealed).checked_div(plain).unwrap_or(0);
        packs(sealed, config.data_pack, frame, &discard);
        report.add(moved, with_index(&moved, discard.stored()));
        report.copied.push(((*snapshot).clone(), None));
    }
    Ok(report)
}

/// Counts the packs that `sealed` bytes come to. A pack closes when its frames, of `frame` bytes each, reach `full`.
fn packs(sealed: u64, full: u64, frame: u64, discard: &Discard) {
    let frame = frame.max(1);
    let one = full.div_ceil(frame).saturating_mul(frame);
    for _ in 0..sealed / one.max(1) {
        discard.pack(padding::full_pack_size(one));
    }
    match sealed % one {
        0 => {}
        rest => discard.pack(padding::tail_pack_size(rest, NOISE)),
    }
}

/// The same with the index runs that list it.
fn with_index(moved: &Moved, stored: Stored) -> Stored {
    let runs = moved.chunks.div_ceil(RUN.0);
    let bytes = runs.saturating_mul(padding::index_size(moved.chunks.min(RUN.0) * RUN.1));
    Stored { bytes: stored.bytes + bytes, objects: stored.objects + runs }
}
