//! From the tree to waves: selected entries with their chunk references, and the directories they need.
//!
//! Kept true: a wave is bounded, so memory does not grow with the snapshot; a directory stands before what is in it;
//! it is finished (its metadata applied) after everything below it, deepest first. Directories that were not asked for
//! are made when something in them is.

use super::execute::finish;
use super::held;
use super::plan::{self, Action, Fact, Found};
use super::report::add;
use super::safe_dir::SafeDir;
use super::select::Selection;
use super::wave::{Item, Leader, Wave};
use super::{Context, Snapshot, unknown_path};
use crate::error::{Error, Result};
use crate::observer::escape;
use crate::repository::tree::TreeReader;
use bulla_repo_format::tree::{Block, Content, Entry, EntryKind, compare_paths, is_within};
use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, MutexGuard, PoisonError};

/// Bytes of the long paths of directories that are open at once: 10,000 nested ones have 96 MiB.
const OPEN_PATHS_MAX: usize = 100 << 20;
/// A path of this length is long: no kernel takes it at once. Shorter ones are not counted, because a million of them
/// wait their turn in one wide directory.
const LONG_PATH: usize = 4096;

/// A path that sorts as the tree does: parents before children, component by component.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PathKey(Arc<[u8]>);

impl PartialOrd for PathKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for PathKey {
    fn cmp(&self, other: &Self) -> Ordering {
        compare_paths(&self.0, &other.0)
    }
}

/// What is known of a directory's place in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Not looked at yet.
    Unknown,
    /// Made by this run: nothing is in it but what this run puts there.
    Fresh,
    /// There already.
    Existing,
    /// Something else is there and stays: nothing can be restored below.
    Blocked,
}

/// A directory whose subtree the walk has not left yet.
struct Dir {
    /// `None` for the top of the snapshot, which is the target itself.
    entry: Option<Box<Entry>>,
    taken: bool,
    pruned: bool,
    place: Place,
    /// Its metadata is to be applied though it was there before.
    update: bool,
    /// Names in the snapshot, while they are collected for `delete`.
    names: Option<Vec<Vec<u8>>>,
}

/// What was asked for.
pub(super) struct Scope {
    path: Vec<u8>,
    /// The directory at `path`, or `None` if everything or a single file is wanted.
    directory: Option<Entry>,
    single: bool,
}

impl Scope {
    pub(super) fn find(context: &Context<'_>, snapshot: &Snapshot, sub: &[u8]) -> Result<Self> {
        if sub.is_empty() {
            return Ok(Self { path: Vec::new(), directory: None, single: false });
        }
        let found = TreeReader::find(context.repository, context.index, snapshot.tree, sub)?;
        let entry = found.ok_or_else(|| unknown_path(snapshot, sub))?;
        let single = !entry.is_dir();
        Ok(Self { path: sub.to_vec(), directory: (!single).then_some(entry), single })
    }
}

/// Makes waves.
pub(super) struct Gather<'r> {
    context: &'r Context<'r>,
    tree: TreeReader<'r>,
    scope: Scope,
    target: Option<SafeDir>,
    dirs: BTreeMap<PathKey, Dir>,
    /// Bytes in front of a path that are not part of it in the target.
    above: usize,
    /// The listing the walk is in; `None` before the first.
    current: Option<Arc<[u8]>>,
    /// Its directory, and where it stands once something in it is taken.
    here: Option<(Arc<[u8]>, Option<Place>)>,
    /// The name before, which the next must follow.
    last: Vec<u8>,
    /// Bytes of the long paths in `dirs`.
    open_paths: usize,
    /// The directory below which nothing is restored, because too much is open already.
    abandoned: Option<Arc<[u8]>>,
    /// Entries to restore once more, as files of their own.
    carried: Vec<Entry>,
    ended: bool,
}

impl<'r> Gather<'r> {
    pub(super) fn new(
        context: &'r Context<'r>,
        snapshot: &Snapshot,
        mut scope: Scope,
        target: Option<SafeDir>,
        fresh: bool,
    ) -> Self {
        let tree = TreeReader::within(context.repository, context.index, snapshot.tree, &scope.path);
        let directory = scope.directory.take();
        let taken = directory.is_some();
        let top: &[u8] = if scope.single { parent_of(&scope.path) } else { &scope.path };
        let root = Dir {
            entry: directory.map(Box::new),
            taken,
            pruned: false,
            place: if fresh { Place::Fresh } else { Place::Existing },
            update: false,
            names: (context.options.delete && taken && !fresh).then(Vec::new),
        };
        let above = if top.is_empty() { 0 } else { top.len() + 1 };
        let dirs = BTreeMap::from([(PathKey(top.into()), root)]);
        Self {
            context,
            tree,
            scope,
            target,
            dirs,
            above,
            current: None,
            here: None,
            last: Vec::new(),
            open_paths: 0,
            abandoned: None,
            carried: Vec::new(),
            ended: false,
        }
    }

    /// A path of the snapshot as it is below the target.
    fn rel<'p>(&self, path: &'p [u8]) -> &'p [u8] {
        path.get(self.above..).unwrap_or_default()
    }

    /// True when everything was gathered and nothing was carried over.
    pub(super) fn finished(&self) -> bool {
        self.ended && self.carried.is_empty() && self.dirs.is_empty()
    }

    /// Entries that could not be linked, to be restored as files of their own in the next wave.
    pub(super) fn carry(&mut self, entries: Vec<Entry>) {
        self.carried.extend(entries);
    }

    /// The next wave.
    pub(super) fn wave(&mut self) -> Result<Wave> {
        let mut wave = Wave::default();
        for entry in std::mem::take(&mut self.carried) {
            self.push(&mut wave, entry, false)?;
        }
        while !self.ended && !wave.full() {
            match self.tree.next() {
                Ok(Some(entry)) => self.entry(&mut wave, entry)?,
                Ok(None) => {
                    self.leave_listing(&mut wave)?;
                    self.ended = true;
                }
                // The reader goes on behind the damaged node.
                Err(e) if e.is_damage() => {
                    self.context.tally.damage(self.scope.path.clone(), e.to_string());
                }
                Err(e) => return Err(e),
            }
            if wave.items.len() % 1024 == 1023 {
                self.context.tally.check_interrupt()?;
            }
        }
        Ok(wave)
    }

    fn select(&self, path: &[u8], entry: &Entry) -> Selection {
        let asked = self.context.options.select.as_ref();
        let selection = asked.map_or(Selection::Take, |s| s.select(path, entry.is_dir()));
        if entry.flags.implied && selection == Selection::Take { Selection::Pass } else { selection }
    }

    fn entry(&mut self, wave: &mut Wave, entry: Entry) -> Result<()> {
        let path = entry.path();
        if path == self.scope.path && !self.scope.single {
            return Ok(());
        }
        if self
            .abandoned
            .as_ref()
            .is_some_and(|a| entry.parent.len() > a.len() && is_within(&entry.parent, a))
        {
            add(&self.context.tally.counts.failed, 1);
            return Ok(());
        }
        if self.current.as_deref() == Some(&entry.parent[..]) {
            self.ascends(entry.name > self.last)?;
        } else {
            self.enter_listing(wave, &entry)?;
        }
        self.last.clone_from(&entry.name);
        if self.here.is_none() {
            return Ok(());
        }
        if self.context.options.delete
            && let Some(dir) = self.dirs.get_mut(&PathKey(entry.parent.clone()))
            && let Some(names) = &mut dir.names
        {
            names.push(entry.name.clone());
        }
        let selection = self.select(&path, &entry);
        if !entry.is_dir() {
            return if selection == Selection::Take { self.push(wave, entry, true) } else { Ok(()) };
        }
        let path: Arc<[u8]> = path.into();
        if self.open_paths + counted(&path) > OPEN_PATHS_MAX {
            self.abandon(&entry);
            return Ok(());
        }
        self.open_paths += counted(&path);
        let taken = selection == Selection::Take;
        if !taken {
            // A wave ends in time also where nothing is taken, so that what the walk has left is forgotten.
            wave.bytes += path.len();
        }
        // One copy of each path, however deep.
        let mut entry = entry;
        self.current.as_ref().inspect(|c| entry.parent = Arc::clone(c));
        let dir = Dir {
            entry: Some(Box::new(entry)),
            taken,
            pruned: selection == Selection::Prune,
            place: Place::Unknown,
            update: false,
            names: (self.context.options.delete && taken).then(Vec::new),
        };
        self.dirs.insert(PathKey(path.clone()), dir);
        if taken { self.make(wave, &path).map(drop) } else { Ok(()) }
    }

    /// The walk comes to another directory's listing.
    fn enter_listing(&mut self, wave: &mut Wave, entry: &Entry) -> Result<()> {
        let behind =
            self.current.as_deref().is_none_or(|c| compare_paths(&entry.parent, c) == Ordering::Greater);
        self.ascends(behind)?;
        self.leave_listing(wave)?;
        self.current = Some(entry.parent.clone());
        self.here = match self.dirs.get_key_value(&PathKey(entry.parent.clone())) {
            Some((_, dir)) if dir.pruned => None,
            Some((key, _)) => {
                self.current = Some(key.0.clone());
                Some((self.rel(&entry.parent).into(), None))
            }
            None => {
                self.orphan(entry);
                None
            }
        };
        Ok(())
    }

    /// Directories are remembered until the walk has left them, and a path is as long as it is deep: a tree can be
    /// nested so deeply that no memory holds that. What is above is restored, the rest is counted.
    fn abandon(&mut self, entry: &Entry) {
        add(&self.context.tally.counts.failed, 1);
        if self.abandoned.as_deref() != Some(&entry.parent[..]) {
            let depth = entry.parent.split(|b| *b == b'/').count();
            let text = format!(
                "directories are nested {depth} deep: what is in them is not restored; restore a part of the snapshot"
            );
            self.context.tally.warn(&text);
            self.abandoned = Some(entry.parent.clone());
        }
    }

    /// Nodes that repeat or go back are a forgery, and could go on for ever.
    fn ascends(&self, yes: bool) -> Result<()> {
        let damaged = || Error::Damaged {
            what: "the snapshot's tree".to_owned(),
            reason: "its entries are not in order".to_owned(),
        };
        if yes { Ok(()) } else { Err(damaged()) }
    }

    /// Where the listing's directory stands, once it is in the plan.
    fn stand(&mut self, wave: &mut Wave, entry: &Entry) -> Result<(Place, Arc<[u8]>)> {
        if self.current.as_deref() == Some(&entry.parent[..])
            && let Some((rel, Some(place))) = &self.here
        {
            return Ok((*place, rel.clone()));
        }
        let place = self.make(wave, &entry.parent)?;
        let rel = Arc::from(self.rel(&entry.parent));
        if self.current.as_deref() == Some(&entry.parent[..])
            && let Some((_, known)) = &mut self.here
        {
            *known = Some(place);
        }
        Ok((place, rel))
    }

    /// Entries whose directory is not a directory of the snapshot: below something pruned, or a lie.
    fn orphan(&self, entry: &Entry) {
        let mut path = &entry.parent[..];
        while !path.is_empty() {
            path = parent_of(path);
            if let Some(dir) = self.dirs.get(&PathKey(path.into())) {
                if !dir.pruned {
                    add(&self.context.tally.counts.failed, 1);
                    let text = format!("{} lies in no directory of the snapshot", escape(&entry.path()));
                    self.context.tally.warn(&text);
                }
                return;
            }
        }
    }

    /// Sees to it that the directory at `path` and those above it are in the plan; tells where it stands.
    fn make(&mut self, wave: &mut Wave, path: &[u8]) -> Result<Place> {
        let mut missing: Vec<Arc<[u8]>> = Vec::new();
        let mut at: Arc<[u8]> = path.into();
        let mut above = loop {
            match self.dirs.get(&PathKey(at.clone())).map(|d| d.place) {
                Some(Place::Unknown) => missing.push(at.clone()),
                Some(place) => break place,
                None => break Place::Blocked,
            }
            at = parent_of(&at).into();
        };
        while let Some(path) = missing.pop() {
            above = self.make_one(wave, path, above)?;
        }
        Ok(above)
    }

    fn make_one(&mut self, wave: &mut Wave, path: Arc<[u8]>, above: Place) -> Result<Place> {
        let rel_parent: Arc<[u8]> = parent_of(self.rel(&path)).into();
        let Some(dir) = self.dirs.get_mut(&PathKey(path)) else { return Ok(Place::Blocked) };
        let Some(entry) = dir.entry.as_deref() else { return Ok(dir.place) };
        let mut fact = Fact::Missing;
        if above == Place::Existing
            && let Some(target) = &mut self.target
        {
            match target.stat(&rel_parent, &entry.name) {
                Ok(None) => {}
                Ok(Some(stat)) => {
                    fact = Fact::Present(Box::new(Found { stat, content: plan::Comparison::Unknown }));
                }
                Err(e) => {
                    self.context.tally.target_error(e)?;
                    dir.place = Place::Blocked;
                    return Ok(Place::Blocked);
                }
            }
        }
        let intended = self.context.policy.intended(entry);
        let action = plan::decide(entry, &fact, intended, self.context.options);
        let is_dir = |f: &Found| rustix::fs::FileType::from_raw_mode(f.stat.st_mode).is_dir();
        dir.place = match (&fact, above) {
            (_, Place::Blocked) => Place::Blocked,
            (Fact::Present(found), _) if is_dir(found) => Place::Existing,
            _ if action == Action::Keep => Place::Blocked,
            _ => Place::Fresh,
        };
        dir.update = dir.taken && action != Action::Keep;
        if dir.taken && entry.flags.read_error {
            add(&self.context.tally.counts.unreadable, 1);
            let path = escape(&entry.path());
            let text = format!(
                "/{path} could not be listed when it was backed up, or lost entries since: what it lacks is not here"
            );
            self.context.tally.warn(&text);
        }
        // Nobody knows what was in a directory that was not listed whole: nothing there is extra.
        if dir.place != Place::Existing || entry.flags.read_error {
            dir.names = None;
        }
        let place = dir.place;
        if place == Place::Blocked {
            add(&self.context.tally.counts.skipped, 1);
            return Ok(place);
        }
        let action = match action {
            Action::Update if !dir.taken => Action::Keep,
            other => other,
        };
        let item = Item {
            entry: entry.clone(),
            parent: rel_parent,
            refs: 0..0,
            holes: Vec::new(),
            xattrs: None,
            fresh_parent: above == Place::Fresh,
            leads: !dir.taken,
            fact,
            action,
        };
        wave.bytes += item.parent.len();
        wave.items.push(item);
        Ok(place)
    }

    /// Adds anything but a directory. `link`: it may become a hard link.
    fn push(&mut self, wave: &mut Wave, entry: Entry, link: bool) -> Result<()> {
        let (place, parent) = self.stand(wave, &entry)?;
        if place == Place::Blocked {
            add(&self.context.tally.counts.skipped, 1);
            return Ok(());
        }
        add(&self.context.tally.known.0, 1);
        add(&self.context.tally.known.1, entry.size());
        let mut item = Item {
            parent,
            refs: 0..0,
            holes: Vec::new(),
            xattrs: None,
            fresh_parent: place == Place::Fresh,
            leads: false,
            fact: Fact::Missing,
            action: if link && self.follows(&entry) { Action::Link } else { Action::Create },
            entry: entry.clone(),
        };
        if item.action != Action::Link {
            item.xattrs = held::attributes(self.context, &mut self.tree, &entry)?;
            let held = match held::content(&mut self.tree, wave, &entry) {
                Ok(held) => held,
                Err(e) if e.is_damage() => {
                    self.context.tally.damage(entry.path(), e.to_string());
                    return Ok(());
                }
                Err(e) => return Err(e),
            };
            (item.refs, item.holes) = (held.refs, held.holes);
            if link {
                self.lead(&item);
            }
            if let EntryKind::File { content, holes, .. } = &mut item.entry.kind {
                *holes = Block::None;
                if !held.long {
                    *content = Content::default();
                }
            }
            item.entry.xattrs = Block::None;
        }
        wave.bytes += item.xattrs.as_ref().map_or(0, Vec::len) + size_of_val(item.holes.as_slice());
        wave.items.push(item);
        Ok(())
    }

    fn leaders(&self) -> MutexGuard<'r, HashMap<(u32, u64), Leader>> {
        self.context.leaders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True if the entry becomes a link to one restored before: same group, size, mode and content.
    fn follows(&self, entry: &Entry) -> bool {
        let EntryKind::File { size, content, holes } = &entry.kind else { return false };
        let key = (entry.mount, entry.inode);
        entry.links > 1
            && !entry.flags.read_error
            && self.leaders().get(&key).is_some_and(|l| {
                let shape = (l.size, l.mode, &l.holes) == (*size, entry.mode, holes);
                shape && l.content == *content
            })
    }

    /// Makes a file the one that later members of its group are linked to.
    fn lead(&self, item: &Item) {
        let EntryKind::File { size, content, holes } = &item.entry.kind else { return };
        if item.entry.links > 1 && !item.entry.flags.read_error {
            let leader = Leader {
                parent: item.parent.clone(),
                name: item.entry.name.clone(),
                size: *size,
                mode: item.entry.mode,
                content: content.clone(),
                holes: holes.clone(),
                identity: None,
            };
            self.leaders().entry((item.entry.mount, item.entry.inode)).or_insert(leader);
        }
    }

    /// The walk leaves a listing: what the target has beyond it is extra.
    fn leave_listing(&mut self, wave: &mut Wave) -> Result<()> {
        let Some(path) = self.current.take() else { return Ok(()) };
        let names = self.dirs.get_mut(&PathKey(path.clone())).and_then(|d| d.names.take());
        let Some(names) = names else { return Ok(()) };
        self.find_extras(wave, self.rel(&path).into(), &names)
    }

    fn find_extras(&mut self, wave: &mut Wave, rel: Arc<[u8]>, names: &[Vec<u8>]) -> Result<()> {
        let Some(target) = &mut self.target else { return Ok(()) };
        let mut there = match target.list(&rel) {
            Ok(there) => there,
            Err(e) => return self.context.tally.target_error(e),
        };
        there.sort_unstable();
        // Names ascend within a listing, so both sides are sorted.
        there.retain(|name| names.binary_search(name).is_err());
        wave.extras.extend(there.into_iter().map(|name| (rel.clone(), name)));
        Ok(())
    }

    /// Finishes the directories whose subtree the walk has left: extras that nothing in the snapshot shadows, then
    /// metadata, deepest first.
    pub(super) fn finish_directories(&mut self, wave: &mut Wave) -> Result<()> {
        if !self.carried.is_empty() {
            return Ok(());
        }
        let current = self.current.clone();
        let open = |path: &[u8]| {
            let here = current.as_deref().unwrap_or_default();
            is_within(here, path) || compare_paths(path, here) == Ordering::Greater
        };
        let done: Vec<PathKey> = self.dirs.keys().filter(|k| self.ended || !open(&k.0)).cloned().collect();
        self.open_paths -= done.iter().map(|key| counted(&key.0)).sum::<usize>().min(self.open_paths);
        let mut done: Vec<(PathKey, Dir)> =
            done.into_iter().rev().filter_map(|key| self.dirs.remove(&key).map(|dir| (key, dir))).collect();
        for (path, dir) in &mut done {
            if let Some(names) = dir.names.take() {
                self.find_extras(wave, self.rel(&path.0).into(), &names)?;
            }
        }
        if self.context.options.dry_run {
            return Ok(());
        }
        if let Some(target) = &mut self.target {
            finish::delete(self.context, target, &self.scope.path, &mut wave.extras)?;
        }
        done.into_iter().try_for_each(|(path, dir)| self.finish_directory(&path.0, dir))
    }

    fn finish_directory(&mut self, path: &[u8], dir: Dir) -> Result<()> {
        let rel = path.get(self.above..).unwrap_or_default();
        let (Some(target), Some(entry)) = (&mut self.target, dir.entry) else { return Ok(()) };
        let fresh = dir.place == Place::Fresh;
        let update = dir.update && dir.place == Place::Existing;
        if !fresh && !update {
            return Ok(());
        }
        let xattrs = held::attributes(self.context, &mut self.tree, &entry)?;
        finish::directory(self.context, target, rel, &entry, xattrs.as_deref(), fresh)
    }
}

/// What a path counts for in `open_paths`.
fn counted(path: &[u8]) -> usize {
    if path.len() > LONG_PATH { path.len() } else { 0 }
}

fn parent_of(path: &[u8]) -> &[u8] {
    path.iter().rposition(|b| *b == b'/').and_then(|at| path.get(..at)).unwrap_or_default()
}
