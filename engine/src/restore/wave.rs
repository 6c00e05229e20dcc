//! A bounded part of a restore: entries with all that is needed to restore them, handed from stage to stage.

use super::plan::{Action, Fact};
use super::report::Planned;
use super::safe_dir::Identity;
use bulla_repo_format::tree::{Block, ChunkRef, Content, Entry, EntryKind, Hole, join_path};
use std::ops::Range;
use std::sync::Arc;

/// Bounds of a wave: an item takes about 800 bytes. A frame at a border between waves is decoded for both.
const WAVE_ITEMS: usize = 16 << 10;
const WAVE_REFS: usize = 256 << 10;
const WAVE_BYTES: usize = 8 << 20;
/// A file of more references is written one chunk after another (`execute/long.rs`).
pub(super) const HELD_REFS: u64 = 1 << 20;

/// An entry to restore.
pub(super) struct Item {
    /// Without content, holes and attributes, which stand below, unless it is [`Item::long`].
    pub(super) entry: Entry,
    /// Its directory, below the target.
    pub(super) parent: Arc<[u8]>,
    pub(super) refs: Range<usize>,
    pub(super) holes: Vec<Hole>,
    pub(super) xattrs: Option<Vec<u8>>,
    /// Its directory was made by this run.
    pub(super) fresh_parent: bool,
    /// A directory that was not asked for and only leads to what was: one that is there is left as it is.
    pub(super) leads: bool,
    pub(super) fact: Fact,
    pub(super) action: Action,
}

/// A bounded part of the work.
#[derive(Default)]
pub(super) struct Wave {
    pub(super) items: Vec<Item>,
    pub(super) refs: Vec<ChunkRef>,
    /// What the target has and the snapshot has not: directory and name.
    pub(super) extras: Vec<(Arc<[u8]>, Vec<u8>)>,
    /// Bytes of metadata it holds besides.
    pub(super) bytes: usize,
}

/// The first restored member of a hard-link group.
pub(super) struct Leader {
    pub(super) parent: Arc<[u8]>,
    pub(super) name: Vec<u8>,
    pub(super) size: u64,
    pub(super) mode: u16,
    pub(super) content: Content,
    pub(super) holes: Block,
    /// Known once it was restored.
    pub(super) identity: Option<Identity>,
}

impl Item {
    /// The list of a file whose references are not in the wave: they are too many to be held at once.
    pub(super) fn long(&self) -> Option<&Content> {
        match &self.entry.kind {
            EntryKind::File { content: content @ Content::List(_), .. } => Some(content),
            _ => None,
        }
    }
}

impl Wave {
    /// True when the next entry belongs to the next wave.
    pub(super) fn full(&self) -> bool {
        self.items.len() >= WAVE_ITEMS || self.refs.len() >= WAVE_REFS || self.bytes >= WAVE_BYTES
    }

    /// The plan, a line at a time, for a dry run.
    pub(super) fn planned(&mut self, tell: &mut dyn FnMut(&Planned)) {
        for i in &self.items {
            let bytes = match i.action {
                Action::Create | Action::Replace => i.entry.size(),
                _ => 0,
            };
            tell(&Planned { path: join_path(&i.parent, &i.entry.name), action: i.action, bytes });
        }
        for (parent, name) in self.extras.drain(..) {
            tell(&Planned { path: join_path(&parent, &name), action: Action::Delete, bytes: 0 });
        }
    }
}
