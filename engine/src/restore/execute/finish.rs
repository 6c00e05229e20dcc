//! What comes after content: hard links, reading everything back, removing what the snapshot does not have, and at last
//! the metadata of directories.

use super::super::Context;
use super::super::examine::{compare_item, id_keys};
use super::super::plan::{Action, Comparison, Fact};
use super::super::report::add;
use super::super::safe_dir::{self, Identity, SafeDir};
use super::super::select::Selection;
use super::super::wave::{Item, Wave};
use crate::error::Result;
use bulla_repo_format::tree::{Entry, EntryKind, join_path};
use std::sync::PoisonError;

/// Links the later members of hard-link groups. Returns those that could not be.
pub(super) fn links(context: &Context<'_>, root: &mut SafeDir, items: &[Item]) -> Result<Vec<Entry>> {
    let mut carried = Vec::new();
    for item in items.iter().filter(|i| i.action == Action::Link) {
        context.tally.check_interrupt()?;
        if !link(context, root, item) {
            carried.push(item.entry.clone());
        }
    }
    Ok(carried)
}

fn link(context: &Context<'_>, root: &mut SafeDir, item: &Item) -> bool {
    let leaders = context.leaders.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(leader) = leaders.get(&(item.entry.mount, item.entry.inode)) else { return false };
    let Some(identity) = leader.identity else { return false };
    if let Fact::Present(found) = &item.fact {
        if Identity::of(&found.stat) == identity {
            add(&context.tally.counts.files_unchanged, 1);
            return true;
        }
        if root.remove_all(&item.parent, &item.entry.name, &|_, _| true).is_err() {
            return false;
        }
    }
    let linked = root.hard_link((&leader.parent, &leader.name), identity, &item.parent, &item.entry.name);
    if linked.is_ok() {
        add(&context.tally.counts.hard_links, 1);
        context.tally.progress(1, item.entry.size());
    }
    linked.is_ok()
}

/// Reads back every file the wave wrote and identifies each chunk. What is wrong is removed and reported.
pub(super) fn verify(context: &Context<'_>, root: &SafeDir, wave: &mut Wave) -> Result<()> {
    let keys = id_keys(context)?;
    let refs = &wave.refs;
    let start = || (root.handle(), Vec::new());
    super::each_mut(context, &mut wave.items, start, |(root, buffer), item: &mut Item| {
        let written = matches!(item.action, Action::Create | Action::Replace | Action::Rewrite);
        let EntryKind::File { size, .. } = item.entry.kind else { return Ok(()) };
        if !written {
            return Ok(());
        }
        // Absent: reported already.
        let Ok((fd, _)) = root.open_file(&item.parent, &item.entry.name, false) else { return Ok(()) };
        let refs = refs.get(item.refs.clone()).unwrap_or_default();
        let reason = match compare_item(context, root, item, &fd, (size, refs), &keys, buffer) {
            Ok(Comparison::Same) => {
                add(&context.tally.counts.files_verified, 1);
                return Ok(());
            }
            Ok(Comparison::Unknown) => "read back: its length or its holes are not right".to_owned(),
            Ok(Comparison::Differs(which)) => {
                let chunk = which.first().and_then(|n| refs.get(*n as usize));
                let id = chunk.map_or_else(String::new, |c| c.id.to_string());
                format!("read back: chunk {id} is not what was written")
            }
            Err(crate::Error::Interrupted) => return Err(crate::Error::Interrupted),
            Err(e) => format!("cannot be read back: {e}"),
        };
        context.tally.damage(item.entry.path(), reason);
        root.remove_node(&item.parent, &item.entry.name)
    })
}

/// Removes extras, as far as they were selected. Nothing is removed when part of the snapshot could not be read: what
/// looks extra may be in that part.
pub(in super::super) fn delete(
    context: &Context<'_>,
    root: &mut SafeDir,
    scope: &[u8],
    extras: &mut Vec<(std::sync::Arc<[u8]>, Vec<u8>)>,
) -> Result<()> {
    if extras.is_empty() {
        return Ok(());
    }
    if context.tally.any_damage() {
        extras.clear();
        context.tally.warn("nothing was deleted, because the snapshot could not be read whole");
        return Ok(());
    }
    let selected = |path: &[u8], is_dir: bool| {
        let Some(select) = &context.options.select else { return true };
        let path = if scope.is_empty() { path.to_vec() } else { join_path(scope, path) };
        select.select(&path, is_dir) == Selection::Take
    };
    for (parent, name) in extras.drain(..) {
        context.tally.check_interrupt()?;
        match root.remove_all(&parent, &name, &selected) {
            Ok(n) => add(&context.tally.counts.deleted, n),
            Err(e) => context.tally.target_error(e)?,
        }
    }
    Ok(())
}

/// Gives a directory its metadata, after everything in it is as it should be.
pub(in super::super) fn directory(
    context: &Context<'_>,
    root: &mut SafeDir,
    rel: &[u8],
    entry: &Entry,
    xattrs: Option<&[u8]>,
    fresh: bool,
) -> Result<()> {
    let done = root.open_dir(rel).and_then(|fd| {
        let before = if fresh { None } else { root.stat(rel, b"")? };
        let metadata = context.policy.metadata(entry, xattrs, &context.tally);
        let applied = safe_dir::apply(&fd, &metadata, before.as_ref());
        context.tally.applied(rel, b"", &applied);
        Ok(())
    });
    done.or_else(|e| context.tally.target_error(e))
}
