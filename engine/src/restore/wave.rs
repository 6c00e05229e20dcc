//! A bounded part of a restore: entries with all that is needed to restore them, handed from stage to stage.

use super::plan::{Action, Fact};
use super::report::Planned;
use super::safe_dir::Identity;
use bulla_repo_format::tree::{Block, ChunkRef, Content, Entry, Hole, join_path};
use std::ops::Range;
use std::sync::Arc;

/// Bounds of a wave.
const WAVE_ITEMS: usize = 64 << 10;
const WAVE_REFS: usize = 256 << 10;
const WAVE_BYTES: usize = 8 << 20;

/// An entry to restore.
pub(super) struct Item {
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

impl Wave {
    /// True when the next entry belongs to the next wave.
    pub(super) fn full(&self) -> bool {
        self.items.len() >= WAVE_ITEMS || self.refs.len() >= WAVE_REFS || self.bytes >= WAVE_BYTES
    }

    /// The plan as lines, for a dry run.
    pub(super) fn planned(&mut self) -> Vec<Planned> {
        let line = |i: &Item| {
            let bytes = match i.action {
                Action::Create | Action::Replace => i.entry.size(),
                _ => 0,
            };
            Planned { path: join_path(&i.parent, &i.entry.name), action: i.action, bytes }
        };
        let mut lines: Vec<Planned> = self.items.iter().map(line).collect();
        let extras = self.extras.drain(..);
        lines.extend(extras.map(|(parent, name)| Planned {
            path: join_path(&parent, &name),
            action: Action::Delete,
            bytes: 0,
        }));
        lines
    }
}
