//! The export format of ncdu (1.x and 2.x, its JSON version 1.2): `bulla ls --ncdu latest | ncdu -f -`.
//!
//! A tree comes directory by directory: all entries of one, then what is below each of its sub-directories. In the
//! export a directory opens where its own content begins, so sub-directories wait for theirs.

use super::Results;
use super::json::{self, lossless};
use crate::exit::Outcome;
use bulla_engine::format::tree::{Entry, EntryKind, Timestamp, is_within};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write;

#[derive(Serialize)]
struct Head {
    progname: &'static str,
    progver: &'static str,
    timestamp: i64,
}

#[derive(Serialize)]
struct Node {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    asize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dsize: Option<u64>,
    dev: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ino: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nlink: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    notreg: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_error: bool,
    #[serde(flatten)]
    extended: Option<Extended>,
}

#[derive(Serialize)]
struct Extended {
    uid: u32,
    gid: u32,
    mode: u32,
    mtime: i64,
}

/// A directory whose content is being written.
struct Level {
    path: Vec<u8>,
    waiting: BTreeMap<Vec<u8>, Node>,
}

/// An export that is being written.
pub(crate) struct Export<'o> {
    out: &'o mut Results,
    levels: Vec<Level>,
}

impl<'o> Export<'o> {
    /// Begins with the directory at `root`, as it was at `time`.
    pub(crate) fn begin(out: &'o mut Results, root: &[u8], time: Timestamp) -> Outcome<Self> {
        let head = Head { progname: "bulla", progver: env!("CARGO_PKG_VERSION"), timestamp: time.seconds };
        let mut export = Self { out, levels: Vec::new() };
        export.write(&format!("[1,2,{},\n", json::text(&head)))?;
        export.open(root.to_vec(), &Node::bare(&[b"/", root].concat()))?;
        Ok(export)
    }

    /// Adds an entry; what is not below the root is left out.
    pub(crate) fn entry(&mut self, e: &Entry) -> Outcome<()> {
        while let Some(level) = self.levels.last_mut() {
            if *level.path == *e.parent {
                if e.is_dir() {
                    level.waiting.insert(e.name.clone(), Node::of(e));
                    return Ok(());
                }
                return self.write(&format!(",\n{}", json::text(&Node::of(e))));
            }
            if is_within(&e.parent, &level.path) {
                let skip = if level.path.is_empty() { 0 } else { level.path.len() + 1 };
                let rest = e.parent.get(skip..).unwrap_or_default();
                let name = rest.split(|b| *b == b'/').next().unwrap_or_default().to_vec();
                let node = level.waiting.remove(&name).unwrap_or_else(|| Node::bare(&name));
                let path = e.parent.get(..skip + name.len()).unwrap_or_default().to_vec();
                self.write(",\n")?;
                self.open(path, &node)?;
            } else if self.levels.len() > 1 {
                self.close()?;
            } else {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes what is open.
    pub(crate) fn end(mut self) -> Outcome<()> {
        while !self.levels.is_empty() {
            self.close()?;
        }
        self.write("]\n")
    }

    fn open(&mut self, path: Vec<u8>, node: &Node) -> Outcome<()> {
        self.levels.push(Level { path, waiting: BTreeMap::new() });
        self.write(&format!("[{}", json::text(node)))
    }

    /// Ends the deepest directory; of those that still wait nothing came, so they are empty.
    fn close(&mut self) -> Outcome<()> {
        for node in self.levels.pop().into_iter().flat_map(|l| l.waiting.into_values()) {
            self.write(&format!(",\n[{}]", json::text(&node)))?;
        }
        self.write("]")
    }

    fn write(&mut self, text: &str) -> Outcome<()> {
        self.out.writer().write_all(text.as_bytes()).map_err(crate::exit::Failure::Output)
    }
}

impl Node {
    fn bare(name: &[u8]) -> Self {
        Self {
            name: lossless(name).0,
            asize: None,
            dsize: None,
            dev: 0,
            ino: None,
            nlink: None,
            notreg: false,
            read_error: false,
            extended: None,
        }
    }

    fn of(e: &Entry) -> Self {
        let file = matches!(e.kind, EntryKind::File { .. });
        let linked = e.links > 1 && !e.is_dir();
        let size = file.then(|| e.size());
        Self {
            asize: size,
            dsize: size,
            dev: e.mount,
            ino: Some(e.inode),
            nlink: linked.then_some(e.links),
            notreg: !file && !e.is_dir(),
            read_error: e.flags.read_error,
            extended: Some(Extended {
                uid: e.uid,
                gid: e.gid,
                mode: file_type(&e.kind) | u32::from(e.mode),
                mtime: e.mtime.seconds,
            }),
            ..Self::bare(&e.name)
        }
    }
}

/// The type bits of a mode, as `lstat` gives them.
const fn file_type(kind: &EntryKind) -> u32 {
    match kind {
        EntryKind::File { .. } => 0o100_000,
        EntryKind::Directory => 0o040_000,
        EntryKind::Symlink { .. } => 0o120_000,
        EntryKind::Fifo => 0o010_000,
        EntryKind::Socket => 0o140_000,
        EntryKind::CharDevice { .. } => 0o020_000,
        EntryKind::BlockDevice { .. } => 0o060_000,
    }
}
