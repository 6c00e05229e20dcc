"""The tree of a snapshot (SPEC.md, section 9): nodes, entries, lists, blocks."""

from collections import namedtuple
from dataclasses import dataclass, field

from bulla_format import MIB, Reader, Reject, need

FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK = range(1, 8)
Ref = namedtuple("Ref", "id length")
Child = namedtuple("Child", "key id entries bytes")
Inner = namedtuple("Inner", "level children")
Leaf = namedtuple("Leaf", "entries")
ListChild = namedtuple("ListChild", "id bytes refs")


@dataclass
class Entry:
    parent: bytes
    name: bytes
    type: int
    flags: int
    mode: int
    uid: int
    gid: int
    mtime: tuple
    ctime: tuple
    btime: tuple | None
    atime: tuple | None
    mount: int
    inode: int
    links: int
    xattrs: object
    size: int = 0
    holes: object = None
    refs: list = field(default_factory=list)
    list: bytes | None = None
    target: bytes = b""
    device: tuple = (0, 0)

    @property
    def path(self):
        return self.parent + b"/" + self.name if self.parent else self.name

    @property
    def key(self):
        return order(self.parent), self.name

    @property
    def unreadable(self):
        return bool(self.flags & 2)


def order(path):
    """Component order (9.1)."""
    return tuple(path.split(b"/")) if path else ()


def check_name(name):
    good = 0 < len(name) <= 4096 and name not in (b".", b"..") and b"/" not in name and b"\0" not in name
    need(good, "TREE-4", "a name is not one path component")


def read_key(r, previous):
    shared = r.varint()
    need(shared <= len(previous), "TREE-3", "shares more of the path than there is")
    rest = r.prefixed(128 << 10, "TREE-4")
    longer = rest[:1] == previous[shared : shared + 1] and rest
    need(not longer, "TREE-3", "path prefix is not the longest")
    parent = previous[:shared] + rest
    need(len(parent) <= 128 << 10, "TREE-4", "a path is too long")
    if parent:
        for part in parent.split(b"/"):
            check_name(part)
    name = r.prefixed(4096, "TREE-4")
    check_name(name)
    return parent, name


def read_ref(r, limit=8 * MIB):
    ref = Ref(r.take(32), r.varint32())
    need(0 < ref.length <= limit, "ENTRY-10", "a reference is empty or too long")
    return ref


def read_time(r, base):
    seconds = (r.zigzag() + base + (1 << 63)) % (1 << 64) - (1 << 63)
    nanos = r.varint32()
    need(nanos < 10**9, "ENTRY-4", "nanoseconds above 10^9")
    return seconds, nanos


def read_block(r, inside, outside):
    """None, bytes, or a reference to a metadata block."""
    need(not (inside and outside), "ENTRY-2", "a block both inside and outside")
    if inside:
        return r.prefixed(4096, "ENTRY-6")
    return read_ref(r, MIB) if outside else None


def read_entry(r, parent, name):
    start = r.at
    kind, flags = r.u8(), r.varint()
    need(1 <= kind <= 7, "ENTRY-1", "unknown type")
    good = flags < 2048 and (not flags & 0x700 or kind == FILE) and (not flags & 3 or kind <= DIRECTORY)
    need(good, "ENTRY-2", "unknown flags, or flags of another type")
    mode, uid, gid = r.varint(), r.varint32(), r.varint32()
    need(mode <= 0o7777, "ENTRY-3", "mode above 07777")
    mtime = read_time(r, 0)
    ctime = read_time(r, mtime[0])
    btime = read_time(r, ctime[0]) if flags & 16 else None
    atime = read_time(r, ctime[0]) if flags & 32 else None
    mount, inode = r.varint32(), r.varint()
    links = r.varint() if flags & 8 else 1
    need(links > 1 or not flags & 8, "ENTRY-5", "link count not above 1")
    xattrs = read_block(r, flags & 64, flags & 128)
    if isinstance(xattrs, bytes):
        decode_xattrs(xattrs)
    e = Entry(parent, name, kind, flags, mode, uid, gid, mtime, ctime, btime, atime, mount, inode, links, xattrs)
    if kind == FILE:
        read_content(r, e)
    elif kind == SYMLINK:
        e.target = r.prefixed(16 << 10, "ENTRY-7")
        need(b"\0" not in e.target, "ENTRY-7", "NUL in a link target")
    elif kind in (CHARACTER, BLOCK):
        e.device = r.varint32(), r.varint32()
    need(r.at - start <= 32 << 10, "ENTRY-6", "an entry is too long")
    return e


def read_content(r, e):
    e.size = r.varint()
    e.holes = read_block(r, e.flags & 256, e.flags & 512)
    holes = decode_holes(e.holes, e.size) if isinstance(e.holes, bytes) else []
    if e.flags & 1024:
        e.list = r.take(32)
    else:
        n = r.varint()
        need(n <= 16, "ENTRY-6", "too many references")
        e.refs = [read_ref(r) for _ in range(n)]
    if e.unreadable:
        need(not e.refs and e.list is None, "ENTRY-9", "content in spite of a read error")
    elif e.list is None and not isinstance(e.holes, Ref):
        total = sum(c.length for c in e.refs) + sum(n for _, n in holes)
        need(total == e.size, "ENTRY-8", "chunk lengths do not add up to its size")


def decode_node(data):
    need(len(data) <= MIB, "TREE-1", "too long")
    r = Reader(data)
    first = r.u8()
    need(first in (1, 2), "TREE-1", "not a leaf or inner node")
    level = r.u8() if first == 2 else 0
    count = r.varint()
    if first == 2:
        need(1 <= level <= 16 and count > 1, "TREE-5", "level or count out of range")
    need(count <= r.left(), "TREE-6", "counts do not fit its length")
    items, parent, last, paths = [], b"", None, 0
    for _ in range(count):
        if r.left() == 0:
            raise Reject("TREE-6", "counts do not fit its length")
        before = parent
        parent, name = read_key(r, parent)
        paths += len(parent) if parent != before else 0
        need(paths <= (4 << 20) + (128 << 10), "TREE-8", "paths that are too long in all")
        key = order(parent), name
        need(last is None or last < key, "TREE-2", "keys do not ascend")
        last = key
        if first == 1:
            items.append(read_entry(r, parent, name))
        else:
            child = Child(key, r.take(32), r.varint(), r.varint())
            need(child.entries > 0, "TREE-5", "a child of no entries")
            items.append(child)
    r.finish()
    return Leaf(items) if first == 1 else Inner(level, items)


def decode_list(data):
    """A list of references, or an Inner of children."""
    need(len(data) <= MIB, "LIST-1", "too long")
    r = Reader(data)
    first = r.u8()
    need(first in (3, 4), "LIST-1", "not a list node")
    level = r.u8() if first == 4 else 0
    need(first == 3 or 1 <= level <= 8, "LIST-1", "level out of range")
    count = r.varint()
    need((1 if first == 3 else 2) <= count <= 1024 and count <= r.left() // 33, "LIST-2", "count out of range")
    if first == 3:
        out = [read_ref(r) for _ in range(count)]
    else:
        out = Inner(level, [ListChild(r.take(32), r.varint(), r.varint()) for _ in range(count)])
        need(all(0 < c.refs <= c.bytes for c in out.children), "LIST-3", "an empty child")
    r.finish()
    return out


def decode_block(data):
    need(0 < len(data) <= MIB and data[0] == 5, "BLOCK-1", "not a metadata block")
    return data[1:]


def decode_xattrs(data):
    r, out = Reader(data), []
    count = r.varint()
    need(0 < count <= r.left() // 2, "XATTR-1", "count out of range")
    for _ in range(count):
        name, value = r.prefixed(255, "XATTR-1"), r.prefixed(MIB, "XATTR-1")
        good = name and b"\0" not in name and (not out or out[-1][0] < name)
        need(good, "XATTR-1", "names are not ascending, or against the rule")
        out.append((name, value))
    r.finish()
    return out


def decode_holes(data, size):
    r, out, end = Reader(data), [], 0
    count = r.varint()
    need(0 < count <= r.left() // 2, "HOLE-1", "count out of range")
    for i in range(count):
        gap, length = r.varint(), r.varint()
        need((gap or i == 0) and length, "HOLE-1", "two holes touch, or one is empty")
        out.append((end + gap, length))
        end += gap + length
        need(end <= size, "HOLE-1", "a hole beyond the file")
    r.finish()
    return out


def data_ranges(size, holes):
    """The ranges of a file that are not holes."""
    at = 0
    for offset, length in holes:
        if offset > at:
            yield at, offset
        at = offset + length
    if at < size:
        yield at, size
