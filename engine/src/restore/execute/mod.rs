//! Carries a wave out, in an order that a crash or an interruption leaves in a sane state: directories, what has no
//! content, content by frame, links, verification. Directory metadata and deletion come when a subtree is complete.
//!
//! Kept true: a worker holds one frame and what it expanded to; nothing here grows with the snapshot.

mod fetch;
pub(super) mod finish;
pub(super) mod long;
mod write;

pub(super) use fetch::{Estimate, estimate};
pub(super) use write::extents;

use super::Context;
use super::plan::Action;
use super::report::add;
use super::safe_dir::{Metadata, SafeDir, apply, strip_inherited};
use super::wave::{Item, Wave};
use crate::error::Result;
use bulla_repo_format::tree::{Entry, EntryKind, join_path};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use write::Writer;

/// Items a worker takes at a time.
const BATCH: usize = 64;

/// Runs `step` on every item, by as many workers as are worth it; the first error stops all.
pub(super) fn each_mut<T: Send, S>(
    context: &Context<'_>,
    items: &mut [T],
    start: impl Fn() -> S + Sync,
    step: impl Fn(&mut S, &mut T) -> Result<()> + Sync,
) -> Result<()> {
    let count = items.len().div_ceil(BATCH);
    let batches = Mutex::new(items.chunks_mut(BATCH));
    let next = || batches.lock().unwrap_or_else(PoisonError::into_inner).next();
    each(context, count, start, |state, _| {
        context.tally.check_interrupt()?;
        next().into_iter().flatten().try_for_each(|item| step(state, item))
    })
}

/// Runs `step` on every number below `count`, in order, by as many workers as are worth it.
fn each<S>(
    context: &Context<'_>,
    count: usize,
    start: impl Fn() -> S + Sync,
    step: impl Fn(&mut S, usize) -> Result<()> + Sync,
) -> Result<()> {
    let width = context.width.min(count);
    let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let work = || {
        let mut state = start();
        while !stop.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            if let Err(e) = step(&mut state, number) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
            }
        }
    };
    if width <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..width {
                scope.spawn(work);
            }
        });
    }
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

/// Carries out a wave. Returns entries that could not be linked and must be restored as files of their own.
pub(super) fn execute(context: &Context<'_>, root: &SafeDir, wave: &mut Wave) -> Result<Vec<Entry>> {
    directories(context, &mut root.handle(), &wave.items)?;
    let plain: Vec<&Item> = wave.items.iter().filter(|i| without_content(i)).collect();
    let batches: Vec<&[&Item]> = plain.chunks(BATCH).collect();
    let start = || Writer::new(context, root.handle());
    each(context, batches.len(), start, |writer, number| {
        context.tally.check_interrupt()?;
        let batch = batches.get(number).copied().unwrap_or_default();
        batch.iter().try_for_each(|item| writer.plain(item))?;
        context.tally.progress(batch.len() as u64, 0);
        Ok(())
    })?;
    fetch::content(context, root, wave)?;
    long::content(context, root, &wave.items)?;
    let carried = finish::links(context, &mut root.handle(), &wave.items)?;
    if context.options.verify {
        finish::verify(context, root, wave)?;
    }
    Ok(carried)
}

/// True for what is restored without fetching anything.
fn without_content(item: &Item) -> bool {
    match (&item.entry.kind, item.action) {
        (EntryKind::Directory, _) | (_, Action::Link) => false,
        (EntryKind::File { .. }, Action::Create | Action::Replace) => {
            item.refs.is_empty() && item.long().is_none()
        }
        (EntryKind::File { .. }, Action::Rewrite) => false,
        _ => true,
    }
}

/// Makes directories, parents first, each for the owner alone until it is finished.
fn directories(context: &Context<'_>, root: &mut SafeDir, items: &[Item]) -> Result<()> {
    for item in items.iter().filter(|i| i.entry.is_dir()) {
        if let Err(e) = directory(root, item, context) {
            context.tally.target_error(e)?;
        }
    }
    Ok(())
}

fn directory(root: &mut SafeDir, item: &Item, context: &Context<'_>) -> Result<()> {
    let (parent, name) = (&item.parent[..], &item.entry.name[..]);
    match item.action {
        Action::Create => {}
        Action::Replace => root.remove_node(parent, name)?,
        Action::Update => {
            // It must let us in while we work in it; its recorded mode comes last.
            if let super::plan::Fact::Present(found) = &item.fact
                && found.stat.st_mode & 0o700 != 0o700
            {
                root.unlock(parent, name, found.stat.st_mode)?;
            }
            return Ok(());
        }
        _ => return Ok(()),
    }
    root.make_dir(parent, name)?;
    add(&context.tally.counts.directories_created, 1);
    let path = join_path(parent, name);
    if !item.fresh_parent {
        strip_inherited(&root.open_dir(&path)?);
    }
    let intended = context.policy.intended(&item.entry);
    if item.leads && intended.mode & 0o700 == 0o700 {
        // If this run is cut off, the next one leaves it as it is. What fails here is told at the end.
        let early = Metadata { owner: intended.owner, mode: intended.mode, ..Metadata::default() };
        let _ = apply(&root.open_dir(&path)?, &early, None);
    }
    Ok(())
}
