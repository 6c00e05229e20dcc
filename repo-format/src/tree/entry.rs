//! One entry of the tree: a name, its metadata, and where its content is.

use crate::codec::{Reader, Write};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::ChunkId;
use crate::limits::{
    BLOCK_INLINE_MAX, BLOCK_MAX, CHUNK_MAX, ENTRY_MAX, INLINE_REFS_MAX, LINK_TARGET_MAX, NAME_MAX, PATH_MAX,
};
use std::cmp::Ordering;
use std::sync::Arc;

const WHAT: &str = "tree entry";

/// A point in time: seconds since 1970 (UTC, may be negative) and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp {
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds below 10^9.
    pub nanos: u32,
}

/// A reference to a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChunkRef {
    /// The chunk.
    pub id: ChunkId,
    /// Its plain length.
    pub len: u32,
}

/// Where a file's bytes are; holes are not part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// At most 16 chunks, in order; none for an empty file.
    Inline(Vec<ChunkRef>),
    /// The root of a list tree ([`super::ListNode`]).
    List(ChunkId),
}

impl Default for Content {
    fn default() -> Self {
        Self::Inline(Vec::new())
    }
}

/// A metadata block (extended attributes, holes): nothing, inside the entry, or a chunk of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Block {
    /// Empty.
    #[default]
    None,
    /// The encoded block.
    Inline(Vec<u8>),
    /// A metadata chunk that holds the block ([`super::decode_block`]).
    Chunk(ChunkRef),
}

/// What kind of thing an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File {
        /// Its length, holes included.
        size: u64,
        /// Its holes.
        holes: Block,
        /// Its bytes.
        content: Content,
    },
    /// A directory.
    Directory,
    /// A symbolic link and its target's raw bytes.
    Symlink {
        /// The target, any bytes but NUL.
        target: Vec<u8>,
    },
    /// A named pipe.
    Fifo,
    /// A socket; noted, restored as a socket node.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

/// Facts about how the entry was captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryFlags {
    /// The file changed while it was read: its content is a mixture of moments.
    pub changed_during_read: bool,
    /// The content could not be read; there is none, and a restore must not pretend there is.
    pub read_error: bool,
    /// An ancestor of a source path, not asked for itself.
    pub implied: bool,
}

/// An entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path of the directory it lies in: components joined by `/`, no leading slash; empty for the top.
    pub parent: Arc<[u8]>,
    /// Its name: one component, raw bytes.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits incl. setuid, setgid, sticky (07777).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time.
    pub mtime: Timestamp,
    /// Change time, for change detection.
    pub ctime: Timestamp,
    /// Birth time, where the file system knows it.
    pub btime: Option<Timestamp>,
    /// Access time, only when asked for.
    pub atime: Option<Timestamp>,
    /// Position in the snapshot's mount table.
    pub mount: u32,
    /// Inode number, for change detection and hard links.
    pub inode: u64,
    /// Link count; members of one hard-link group share mount, inode and a count above 1.
    pub links: u64,
    /// Extended attributes, ACLs and capabilities among them.
    pub xattrs: Block,
    /// How it was captured.
    pub flags: EntryFlags,
}

/// One extended attribute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Xattr {
    /// Its name with namespace, e.g. `user.comment`.
    pub name: Vec<u8>,
    /// Its raw value.
    pub value: Vec<u8>,
}

/// A hole: `len` bytes at `offset` that read as zeros and take no space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hole {
    /// Where.
    pub offset: u64,
    /// How long.
    pub len: u64,
}

/// Orders two paths component by component; a parent comes before its children.
pub fn compare_paths(a: &[u8], b: &[u8]) -> Ordering {
    // `/` sorts below every other byte (names have no NUL), which is component order.
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |c: Option<&u8>| c.map(|c| if *c == b'/' { 0u8 } else { *c });
    rank(a.get(same)).cmp(&rank(b.get(same)))
}

/// True when `path` is `ancestor` or lies below it. The empty path is everybody's ancestor.
pub fn is_within(path: &[u8], ancestor: &[u8]) -> bool {
    path.strip_prefix(ancestor)
        .is_some_and(|rest| ancestor.is_empty() || rest.is_empty() || rest.starts_with(b"/"))
}

/// `parent/name`, without a slash at the top.
pub fn join_path(parent: &[u8], name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parent.len() + name.len() + 1);
    out.put(parent);
    if !parent.is_empty() {
        out.put_u8(b'/');
    }
    out.put(name);
    out
}

/// A name is one component: not empty, not `.` or `..`, no `/` or NUL, at most 4 KiB.
pub fn validate_name(name: &[u8]) -> Result<()> {
    let good = !name.is_empty() && name.len() <= NAME_MAX && name != b"." && name != b"..";
    ensure(good && !name.iter().any(|b| matches!(b, 0 | b'/')), WHAT, "its name is not one path component")
}

/// A parent path is empty or names joined by `/`.
pub(super) fn validate_parent(parent: &[u8]) -> Result<()> {
    within("path length", parent.len() as u64, PATH_MAX as u64)?;
    if parent.is_empty() { Ok(()) } else { parent.split(|b| *b == b'/').try_for_each(validate_name) }
}

impl Entry {
    /// The whole path.
    pub fn path(&self) -> Vec<u8> {
        join_path(&self.parent, &self.name)
    }
    /// Order within the tree.
    pub fn compare(&self, other: &Self) -> Ordering {
        compare_key((&self.parent, &self.name), (&other.parent, &other.name))
    }
    /// A file's length; 0 for everything else.
    pub fn size(&self) -> u64 {
        if let EntryKind::File { size, .. } = &self.kind { *size } else { 0 }
    }
    /// True for directories.
    pub fn is_dir(&self) -> bool {
        self.kind == EntryKind::Directory
    }
}

/// Compares (parent, name) keys.
pub(super) fn compare_key(a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> Ordering {
    // Neighbours mostly lie in one directory, and whether paths are equal is told many bytes at a time.
    if a.0 == b.0 { a.1.cmp(b.1) } else { compare_paths(a.0, b.0).then_with(|| a.1.cmp(b.1)) }
}

/// Writes a key, the parent prefix-compressed against the previous one.
pub(super) fn put_key(out: &mut Vec<u8>, previous: &[u8], parent: &[u8], name: &[u8]) {
    let shared = common_prefix(previous, parent);
    out.put_varint(shared as u64);
    out.put_prefixed(parent.get(shared..).unwrap_or_default());
    out.put_prefixed(name);
}

fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    // Nearly always; and equality is told many bytes at a time.
    if a == b {
        return a.len();
    }
    a.iter().zip(b).take_while(|(x, y)| x == y).count()
}

/// Reads a key written by [`put_key`].
pub(super) fn read_key(r: &mut Reader<'_>, previous: &Arc<[u8]>) -> Result<(Arc<[u8]>, Vec<u8>)> {
    let shared = r.varint()?;
    let suffix = r.prefixed(PATH_MAX)?;
    let kept = usize::try_from(shared).ok().and_then(|n| previous.get(..n));
    let kept = kept.ok_or(FormatError::invalid(WHAT, "shares more of the path than there is"))?;
    let parent: Arc<[u8]> = if suffix.is_empty() && kept.len() == previous.len() {
        previous.clone()
    } else {
        let parent: Arc<[u8]> = kept.iter().chain(suffix).copied().collect();
        ensure(common_prefix(previous, &parent) == kept.len(), WHAT, "path prefix is not the longest")?;
        validate_parent(&parent)?;
        parent
    };
    let name = r.prefixed(NAME_MAX)?;
    validate_name(name)?;
    Ok((parent, name.to_vec()))
}

mod bit {
    pub(super) const CHANGED: u64 = 1;
    pub(super) const READ_ERROR: u64 = 1 << 1;
    pub(super) const IMPLIED: u64 = 1 << 2;
    pub(super) const LINKS: u64 = 1 << 3;
    pub(super) const BTIME: u64 = 1 << 4;
    pub(super) const ATIME: u64 = 1 << 5;
    pub(super) const XATTRS: u64 = 1 << 6;
    pub(super) const XATTRS_CHUNK: u64 = 1 << 7;
    pub(super) const HOLES: u64 = 1 << 8;
    pub(super) const HOLES_CHUNK: u64 = 1 << 9;
    pub(super) const LIST: u64 = 1 << 10;
    pub(super) const ALL: u64 = (1 << 11) - 1;
}

const fn type_byte(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File { .. } => 1,
        EntryKind::Directory => 2,
        EntryKind::Symlink { .. } => 3,
        EntryKind::Fifo => 4,
        EntryKind::Socket => 5,
        EntryKind::CharDevice { .. } => 6,
        EntryKind::BlockDevice { .. } => 7,
    }
}

fn block_bits(block: &Block, inline: u64, chunk: u64) -> u64 {
    match block {
        Block::None => 0,
        Block::Inline(_) => inline,
        Block::Chunk(_) => chunk,
    }
}

fn put_block(out: &mut Vec<u8>, block: &Block) {
    match block {
        Block::None => {}
        Block::Inline(b) => out.put_prefixed(b),
        Block::Chunk(c) => put_ref(out, c),
    }
}

pub(super) fn put_ref(out: &mut Vec<u8>, c: &ChunkRef) {
    out.put(c.id.as_bytes());
    out.put_varint(c.len.into());
}

pub(super) fn read_ref(r: &mut Reader<'_>, max: u32) -> Result<ChunkRef> {
    let c = ChunkRef { id: ChunkId::new(r.array()?), len: r.varint32()? };
    ensure(c.len > 0 && c.len <= max, WHAT, "a chunk reference is empty or too long")?;
    Ok(c)
}

fn put_time(out: &mut Vec<u8>, t: Timestamp, base: i64) {
    out.put_zigzag(t.seconds.wrapping_sub(base));
    out.put_varint(t.nanos.into());
}

fn read_time(r: &mut Reader<'_>, base: i64) -> Result<Timestamp> {
    let t = Timestamp { seconds: r.zigzag()?.wrapping_add(base), nanos: r.varint32()? };
    ensure(t.nanos < 1_000_000_000, WHAT, "nanoseconds above 10^9")?;
    Ok(t)
}

impl Entry {
    /// Appends the entry without its key.
    pub(super) fn put_body(&self, out: &mut Vec<u8>) {
        let (mut bits, f) = (0u64, &self.flags);
        for (on, b) in [
            (f.changed_during_read, bit::CHANGED),
            (f.read_error, bit::READ_ERROR),
            (f.implied, bit::IMPLIED),
            (self.links > 1, bit::LINKS),
            (self.btime.is_some(), bit::BTIME),
            (self.atime.is_some(), bit::ATIME),
        ] {
            bits |= if on { b } else { 0 };
        }
        bits |= block_bits(&self.xattrs, bit::XATTRS, bit::XATTRS_CHUNK);
        if let EntryKind::File { holes, content, .. } = &self.kind {
            bits |= block_bits(holes, bit::HOLES, bit::HOLES_CHUNK);
            bits |= if matches!(content, Content::List(_)) { bit::LIST } else { 0 };
        }
        out.put_u8(type_byte(&self.kind));
        out.put_varint(bits);
        out.put_varint(self.mode.into());
        out.put_varint(self.uid.into());
        out.put_varint(self.gid.into());
        put_time(out, self.mtime, 0);
        put_time(out, self.ctime, self.mtime.seconds);
        for t in [self.btime, self.atime].into_iter().flatten() {
            put_time(out, t, self.ctime.seconds);
        }
        out.put_varint(self.mount.into());
        out.put_varint(self.inode);
        if self.links > 1 {
            out.put_varint(self.links);
        }
        put_block(out, &self.xattrs);
        match &self.kind {
            EntryKind::File { size, holes, content } => {
                out.put_varint(*size);
                put_block(out, holes);
                match content {
                    Content::Inline(refs) => {
                        out.put_varint(refs.len() as u64);
                        refs.iter().for_each(|c| put_ref(out, c));
                    }
                    Content::List(id) => out.put(id.as_bytes()),
                }
            }
            EntryKind::Symlink { target } => out.put_prefixed(target),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                out.put_varint((*major).into());
                out.put_varint((*minor).into());
            }
            EntryKind::Directory | EntryKind::Fifo | EntryKind::Socket => {}
        }
    }

    /// Reads what [`Entry::put_body`] wrote and checks every rule of SPEC 9.2.
    pub(super) fn read_body(r: &mut Reader<'_>, parent: Arc<[u8]>, name: Vec<u8>) -> Result<Self> {
        let before = r.remaining();
        let (ty, bits) = (r.u8()?, r.varint()?);
        ensure(bits & !bit::ALL == 0, WHAT, "unknown flags")?;
        let has = |b: u64| bits & b != 0;
        let mode = u16::try_from(r.varint()?).ok().filter(|m| *m <= 0o7777);
        let mode = mode.ok_or(FormatError::invalid(WHAT, "mode above 07777"))?;
        let (uid, gid) = (r.varint32()?, r.varint32()?);
        let mtime = read_time(r, 0)?;
        let ctime = read_time(r, mtime.seconds)?;
        let btime = if has(bit::BTIME) { Some(read_time(r, ctime.seconds)?) } else { None };
        let atime = if has(bit::ATIME) { Some(read_time(r, ctime.seconds)?) } else { None };
        let (mount, inode) = (r.varint32()?, r.varint()?);
        let links = if has(bit::LINKS) { r.varint()? } else { 1 };
        ensure(!has(bit::LINKS) || links > 1, WHAT, "link count not above 1")?;
        let xattrs = read_block(r, has(bit::XATTRS), has(bit::XATTRS_CHUNK))?;
        if let Block::Inline(b) = &xattrs {
            decode_xattrs(b)?;
        }
        let flags = EntryFlags {
            changed_during_read: has(bit::CHANGED),
            read_error: has(bit::READ_ERROR),
            implied: has(bit::IMPLIED),
        };
        let kind = read_kind(r, ty, bits, flags.read_error)?;
        within("tree entry", (before - r.remaining()) as u64, ENTRY_MAX as u64)?;
        let e = Self {
            parent,
            name,
            kind,
            mode,
            uid,
            gid,
            mtime,
            ctime,
            btime,
            atime,
            mount,
            inode,
            links,
            xattrs,
            flags,
        };
        let content = bit::HOLES | bit::HOLES_CHUNK | bit::LIST;
        let readable = bit::CHANGED | bit::READ_ERROR;
        let good = (bits & content == 0 || ty == 1) && (bits & readable == 0 || ty <= 2);
        ensure(good, WHAT, "flags of a file on something else")?;
        Ok(e)
    }
}

fn read_block(r: &mut Reader<'_>, inline: bool, chunk: bool) -> Result<Block> {
    match (inline, chunk) {
        (false, false) => Ok(Block::None),
        (true, false) => Ok(Block::Inline(r.prefixed(BLOCK_INLINE_MAX)?.to_vec())),
        (false, true) => Ok(Block::Chunk(read_ref(r, BLOCK_MAX)?)),
        (true, true) => Err(FormatError::invalid(WHAT, "a block both inside and outside")),
    }
}

fn read_kind(r: &mut Reader<'_>, ty: u8, bits: u64, read_error: bool) -> Result<EntryKind> {
    Ok(match ty {
        1 => {
            let size = r.varint()?;
            let holes = read_block(r, bits & bit::HOLES != 0, bits & bit::HOLES_CHUNK != 0)?;
            let content = if bits & bit::LIST != 0 {
                Content::List(ChunkId::new(r.array()?))
            } else {
                let n = r.varint()?;
                within("chunk references", n, INLINE_REFS_MAX as u64)?;
                let mut refs = Vec::with_capacity(usize::try_from(n).unwrap_or(0).min(INLINE_REFS_MAX));
                for _ in 0..n {
                    refs.push(read_ref(r, CHUNK_MAX)?);
                }
                Content::Inline(refs)
            };
            check_file(size, &holes, &content, read_error)?;
            EntryKind::File { size, holes, content }
        }
        2 => EntryKind::Directory,
        3 => {
            let target = r.prefixed(LINK_TARGET_MAX)?.to_vec();
            ensure(!target.contains(&0), WHAT, "NUL in a link target")?;
            EntryKind::Symlink { target }
        }
        4 => EntryKind::Fifo,
        5 => EntryKind::Socket,
        6 => EntryKind::CharDevice { major: r.varint32()?, minor: r.varint32()? },
        7 => EntryKind::BlockDevice { major: r.varint32()?, minor: r.varint32()? },
        _ => return Err(FormatError::invalid(WHAT, "unknown type")),
    })
}

/// Lengths must add up as far as the entry alone can tell.
fn check_file(size: u64, holes: &Block, content: &Content, read_error: bool) -> Result<()> {
    let hole_bytes = hole_bytes(holes, size)?;
    if read_error {
        return ensure(*content == Content::default(), WHAT, "content in spite of a read error");
    }
    let (Content::Inline(refs), Some(hole_bytes)) = (content, hole_bytes) else { return Ok(()) };
    let sum: u64 = refs.iter().map(|c| u64::from(c.len)).sum();
    ensure(sum.checked_add(hole_bytes) == Some(size), WHAT, "chunk lengths do not add up to its size")
}

/// Bytes in holes, when the block stands inside the entry.
fn hole_bytes(holes: &Block, size: u64) -> Result<Option<u64>> {
    match holes {
        Block::None => Ok(Some(0)),
        Block::Inline(b) => Ok(Some(decode_holes(b, size)?.iter().map(|h| h.len).sum())),
        Block::Chunk(_) => Ok(None),
    }
}

/// Encodes extended attributes, sorted by name.
pub fn encode_xattrs(xattrs: &mut [Xattr]) -> Vec<u8> {
    xattrs.sort();
    let mut out = Vec::new();
    out.put_varint(xattrs.len() as u64);
    for x in xattrs.iter() {
        out.put_prefixed(&x.name);
        out.put_prefixed(&x.value);
    }
    out
}

/// Decodes extended attributes: names ascending, each at most 255 bytes without NUL.
pub fn decode_xattrs(bytes: &[u8]) -> Result<Vec<Xattr>> {
    const WHAT: &str = "extended attributes";
    let mut r = Reader::new(WHAT, bytes);
    let n = r.varint()?;
    ensure(n > 0 && n <= r.remaining() as u64 / 2, WHAT, "counts do not fit its length")?;
    let mut out: Vec<Xattr> = Vec::new();
    for _ in 0..n {
        let x = Xattr { name: r.prefixed(255)?.to_vec(), value: r.prefixed(BLOCK_MAX as usize)?.to_vec() };
        ensure(!x.name.is_empty() && !x.name.contains(&0), WHAT, "a name is empty or has a NUL")?;
        ensure(out.last().is_none_or(|p| p.name < x.name), WHAT, "names are not ascending")?;
        out.push(x);
    }
    r.finish()?;
    Ok(out)
}

/// Encodes holes, which must be ascending and apart.
pub fn encode_holes(holes: &[Hole]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(holes.len() as u64);
    let mut end = 0u64;
    for h in holes {
        out.put_varint(h.offset.saturating_sub(end));
        out.put_varint(h.len);
        end = h.offset.saturating_add(h.len);
    }
    out
}

/// Decodes holes of a file of `size` bytes.
pub fn decode_holes(bytes: &[u8], size: u64) -> Result<Vec<Hole>> {
    const WHAT: &str = "holes";
    let mut r = Reader::new(WHAT, bytes);
    let n = r.varint()?;
    ensure(n > 0 && n <= r.remaining() as u64 / 2, WHAT, "counts do not fit its length")?;
    let (mut out, mut end): (Vec<Hole>, u64) = (Vec::new(), 0);
    for i in 0..n {
        let (gap, len) = (r.varint()?, r.varint()?);
        ensure((gap > 0 || i == 0) && len > 0, WHAT, "two holes touch, or one is empty")?;
        let offset = end.checked_add(gap);
        let stop = offset.and_then(|o| o.checked_add(len)).filter(|s| *s <= size);
        let (Some(offset), Some(stop)) = (offset, stop) else {
            return Err(FormatError::invalid(WHAT, "reach beyond the file"));
        };
        out.push(Hole { offset, len });
        end = stop;
    }
    r.finish()?;
    Ok(out)
}
