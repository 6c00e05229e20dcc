//! `backup --copy-to`: one reading of the source, many repositories. What was backed up is copied to each, with all that it
//! lacks of the same host and paths: one that could not be reached for a week has everything after the next backup.

use crate::context::Context;
use crate::exit::{Failure, Outcome};
use crate::ui::format::{count, size};
use crate::ui::progress::{Words, watch};
use bulla_backends::location::Location;
use bulla_engine::copy::{self, CopyOptions};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::repository::Repository;
use std::ffi::OsString;

const WORDS: Words = Words { during: "copy", list_is_result: false };

/// The places as they are meant: a mistake in one is told before anything is read.
pub(crate) fn parse(urls: &[OsString]) -> Outcome<Vec<Location>> {
    urls.iter().map(|url| Location::parse(url).map_err(Failure::Usage)).collect()
}

/// Copies to each; those that stay behind are named, and counted.
pub(crate) fn to_each(
    context: &Context<'_>,
    from: &Repository,
    made: &Snapshot,
    targets: &[Location],
) -> usize {
    let mut behind = 0;
    for target in targets {
        if let Err(failure) = to_one(context, from, made, target) {
            behind += 1;
            let said = failure.said().map_or_else(String::new, |said| format!(": {}", said.message));
            let text = format!("a copy is behind{said}; the next backup brings it what it lacks");
            context.ui.error(&text, None, "copy");
        }
    }
    behind
}

fn to_one(context: &Context<'_>, from: &Repository, made: &Snapshot, target: &Location) -> Outcome<()> {
    let to = context.open_at(target)?;
    let same = |s: &Snapshot| s.host == made.host && s.paths == made.paths;
    let wanted: Vec<Snapshot> = from.snapshots()?.into_iter().filter(same).collect();
    let options = CopyOptions::default();
    let report = watch(context.ui, WORDS, |observer| copy::run(from, &to, &wanted, &options, observer))?;
    let place = to.backend().describe().place;
    let copied = count(report.copied.len() as u64, "snapshot");
    context.ui.note(&format!("copied {copied} to {place}, {} stored", size(report.stored)));
    Ok(())
}
