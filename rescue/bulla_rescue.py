#!/usr/bin/env python3
"""Lists and restores bulla repositories (format 1) without bulla: a second reader, written from SPEC.md alone."""

import argparse
import bisect
import collections
import datetime
import getpass
import os
import pathlib
import stat
import sys

from blake3 import blake3

import bulla_format as f
import bulla_tree as t
from bulla_format import Reject, need

CACHE_BYTES = 64 * f.MIB
Place = collections.namedtuple("Place", "pack offset length")


def warn(text):
    print(f"warning: {text}", file=sys.stderr)


def show(data):
    """Text for a terminal: what is not printable is escaped, so a name cannot move the cursor."""
    text = data.decode("utf-8", "backslashreplace") if isinstance(data, bytes) else data
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


# The lists of a snapshot: what each item is. A number stands for bytes of that length.
LISTS = {5: (16, 32), 6: 16, 15: bytes, 16: str, 17: str, 18: (int, str, bytes), 19: ("id", bytes), 20: ("id", bytes)}
LISTS |= {23: int, 24: (bytes, str)}


def fits(item, shape):
    if isinstance(shape, type):
        return type(item) is shape and (shape is not int or item >= 0)
    if shape == "id":
        return type(item) is int and 0 <= item < 1 << 32
    return type(item) is bytes and len(item) == shape


def check_verdict(body, run):
    """11: every field against its table; returns True for a snapshot."""
    kind = f.uint(body, 1)
    need(kind in (0, 1), "SNAP-1", "unknown verdict")
    need(f.field(body, 2, bytes, 16) == run, "SNAP-2", "lies under another run's name")
    f.field(body, 3, bytes, 16)
    if kind == 0:
        return False
    tag = "SNAP-3"
    f.uint(body, 4, tag=tag), f.uint(body, 7, 32, tag=tag), f.field(body, 10, bytes, 32, tag=tag)
    for key in (8, 9):
        time = f.field(body, key, list, 2, tag=tag)
        good = all(type(n) is int for n in time) and 0 <= time[1] < 10**9
        need(good, tag, "a time is not [seconds, nanoseconds]")
    for key in (11, 12, 13, 14):
        f.field(body, key, str, tag=tag)
    for key, kinds in LISTS.items():
        for item in f.field(body, key, list, tag=tag):
            items = item if isinstance(kinds, tuple) and type(item) is list else [item]
            shapes = kinds if isinstance(kinds, tuple) else (kinds,)
            good = len(items) == len(shapes) and all(map(fits, items, shapes))
            need(good, tag, f"field {key} holds a wrong type")
    for key in (21, 22):
        need(key not in body or fits(body[key], 16), tag, f"field {key} is no snapshot id")
    return True


class Pack:
    """Where frames and chunks of one pack lie, from an index run or from its own directory."""

    def __init__(self, name, header, frames, path):
        self.name, self.header, self.frames, self.path = name, header, frames, path
        self.sealed, self.plain = [84], [0]
        for sealed, raw in frames:
            self.sealed.append(self.sealed[-1] + sealed)
            self.plain.append(self.plain[-1] + raw)
        self.key = None


class Repository:
    def __init__(self, root, passphrase=None, key=None):
        self.root = pathlib.Path(root)
        self.config = self.unlock(passphrase, key)
        self.repo, self.keyring = self.config.repo, self.config.keyring
        self.certificates = {}
        self.certificates = dict(self.read_certificates())
        self.runs, self.tails, self.scanned = [], {}, False
        self.frames, self.frame_bytes = collections.OrderedDict(), 0
        self.load_index()

    # Opening -------------------------------------------------------------------------------------------------------

    def names(self, area):
        folder = self.root / area
        return sorted(os.listdir(folder)) if folder.is_dir() else []

    def read(self, *path):
        return self.root.joinpath(*path).read_bytes()

    def unlock(self, passphrase, key):
        """The highest config generation that opens under a ring key the secret gives."""
        generations = [n for n in self.names("config") if len(n) == 8]
        if not generations:
            raise Reject("NAME-1", f"{self.root} has no config: not a bulla repository")
        rings, failed = {}, []
        repo = f.config_stanza(self.read("config", generations[-1]))[0]
        tried = 0
        for name in self.names("keys")[:64]:
            data = self.read("keys", name)
            tried += passphrase is not None and data[8:9] == b"\x01"
            if tried > 8:
                break
            try:
                found = f.open_slot(data, repo, passphrase, key)
                rings.update([found] if found else [])
            except Reject as e:
                failed.append(f"keys/{name}: {e}")
        for name in reversed(generations):
            data = self.read("config", name)
            try:
                ring = f.config_stanza(data)[1]
                if ring in rings:
                    config = f.open_config(data, int(name, 16), rings[ring])
                    self.check_previous(config)
                    return config
            except Reject as e:
                failed.append(f"config/{name}: {e}")
        raise Reject("SLOT-5", "no slot opens with this secret:\n  " + "\n  ".join(failed))

    def check_previous(self, config):
        path = self.root / "config" / f"{config.generation - 1:08x}"
        if config.previous and path.exists():
            good = blake3(path.read_bytes()).digest() == config.previous
            need(good, "CONFIG-8", "names another predecessor than there is")

    def signed(self, kind, data):
        content = f.open_envelope(data, kind, self.repo, lambda e: self.keyring.envelope_key(e, kind))
        need(len(content) >= 64, "SIG-1", "shorter than a signature")
        return content, f.cbor(content[:-64])

    def read_certificates(self):
        for name in self.names("clients"):
            try:
                content, body = self.signed(10, self.read("clients", name))
                f.verify(self.keyring.admin_public(), "client certificate", self.repo, content)
                client = f.field(body, 1, bytes, 16)
                need(client.hex() == name, "CERT-1", "another client's name")
                capabilities = f.uint(body, 3)
                need(capabilities < 16, "CERT-2", "unknown capability")
                yield client, (f.field(body, 2, bytes, 32), capabilities)
            except Reject as e:
                warn(f"clients/{name}: {e}")

    def public(self, client):
        found = self.certificates.get(client)
        return found[0] if found else self.keyring.client_public(client)

    # Snapshots -----------------------------------------------------------------------------------------------------

    def is_dead(self, name):
        """Only an authentic death of a signer that may maintain counts (12.2, 13)."""
        path = self.root / "gone" / name
        if not path.exists():
            return False
        try:
            content, body = self.signed(7, path.read_bytes())
            client = f.field(body, 2, bytes, 16)
            f.verify(self.public(client), "death", self.repo, content)
            need(f.field(body, 1, bytes, 16).hex() == name, "GONE-1", "another snapshot's name")
            same = self.keyring.body_hash(f.field(body, 4, bytes)) == f.field(body, 3, bytes, 32)
            need(same, "GONE-2", "keeps another body than its hash names")
            certificate = self.certificates.get(client)
            need(not certificate or certificate[1] & 10, "TRUST-1", "its signer may not maintain")
            return True
        except Reject as e:
            warn(f"gone/{name} does not count: {e}")
            return False

    def snapshots(self):
        """Alive snapshots, oldest first, as (id, body)."""
        out, hashes = [], {}
        for name in self.names("snap"):
            try:
                content, body = self.signed(6, self.read("snap", name))
                snapshot = check_verdict(body, bytes.fromhex(name))
                f.verify(self.public(body[3]), "snapshot", self.repo, content)
                hashes[name] = self.keyring.body_hash(content[:-64])
                if snapshot and not self.is_dead(name):
                    out.append((name, body))
            except (Reject, ValueError) as e:
                warn(f"snap/{name}: {e}")
        self.check_lineage(out, hashes)
        return sorted(out, key=lambda s: s[1][8])

    def check_lineage(self, snapshots, hashes):
        gone = set(self.names("gone"))
        for name, body in snapshots:
            for head, body_hash in body[5]:
                head = head.hex()
                if head in hashes and hashes[head] != body_hash:
                    warn(f"snapshot {head} is not the one snapshot {name} follows [R-SNAP-4]")
                if head not in hashes and head not in gone:
                    warn(f"snapshot {head}, which {name} follows, is missing: the storage may show an old state")

    def find(self, prefix):
        all_of = self.snapshots()
        if prefix == "latest" and all_of:
            return all_of[-1]
        found = [s for s in all_of if s[0].startswith(prefix)]
        if len(found) != 1:
            raise SystemExit(f"{len(found)} snapshots begin with {prefix!r}")
        return found[0]

    # Chunks --------------------------------------------------------------------------------------------------------

    def pack_path(self, kind, name):
        area = "packs" if kind == f.DATA else "meta"
        return self.root / area / name.hex()

    def load_index(self):
        packs = {}
        for name in self.names("index"):
            try:
                data = self.read("index", name)
                need(name[9:] == blake3(data).hexdigest(), "NAME-2", "its bytes have another hash")
                run = f.open_index(data, self.keyring, self.repo, self.public)
            except Reject as e:
                warn(f"index/{name} is skipped: {e}")
                continue
            table = []
            for p in run.packs:
                path = self.pack_path(p.header.kind, p.name)
                key = (p.name, p.header, tuple(p.frames))
                table.append(packs.setdefault(key, Pack(p.name, p.header, p.frames, path)))
            self.runs.append((table, run.records))

    def scan_tails(self):
        """Directories of all packs (7.4), when the index does not know enough."""
        self.scanned = True
        warn("reading the directories of all packs: the index is incomplete")
        for kind, area in ((f.DATA, "packs"), (f.META, "meta")):
            for path in sorted((self.root / area).glob("*")):
                try:
                    self.scan_tail(kind, path)
                except (Reject, OSError) as e:
                    warn(f"{path}: {e}")

    def scan_tail(self, kind, path):
        name = bytes.fromhex(path.name) if len(path.name) == 64 else b""
        with open(path, "rb") as file:
            read = lambda a, b: os.pread(file.fileno(), b - a, a)
            size = os.fstat(file.fileno()).st_size
            d = f.open_directory(read, size, self.keyring, self.repo, self.public)
        need(d.header.kind == kind, "NAME-3", "lies in the other kind's area")
        pack, offset = Pack(name, d.header, d.frames, path), 0
        for chunk, length in d.chunks:
            self.tails.setdefault(chunk, []).append(Place(pack, offset, length))
            offset += length

    def places(self, chunk):
        key = chunk[:20]
        for table, rows in self.runs:
            rank = Rows(rows)
            at = bisect.bisect_left(rank, key)
            while at < len(rank) and rank[at] == key:
                row = rows[at * 32 + 20 : at * 32 + 32]
                pack, offset, length = (int.from_bytes(row[i : i + 4], "little") for i in (0, 4, 8))
                yield Place(table[pack], offset, length)
                at += 1
        if not self.scanned:
            self.scan_tails()
        yield from self.tails.get(chunk, [])

    def chunk(self, chunk, kind, length=None):
        """The plaintext of a chunk, its id verified; every place known for it is tried."""
        failed = []
        for place in self.places(chunk):
            try:
                if place.pack.header.kind != kind or length not in (None, place.length):
                    raise Reject("CHUNK-1", "of another kind or length")
                plain = self.read_place(place)
                found = self.keyring.chunk_id(place.pack.header.domain, kind, plain)
                need(found == chunk, "CHUNK-1", "has another id")
                return plain
            except (Reject, OSError) as e:
                failed.append(f"{place.pack.name.hex()[:16]}: {e}")
        raise Reject("CHUNK-1", f"chunk {chunk.hex()[:16]} is missing ({'; '.join(failed) or 'nowhere known'})")

    def read_place(self, place):
        pack, end = place.pack, place.offset + place.length
        need(end <= pack.plain[-1], "INDEX-3", "points outside its pack")
        index, parts = bisect.bisect_right(pack.plain, place.offset) - 1, []
        while pack.plain[index] < end:
            start = pack.plain[index]
            plain = self.frame(pack, index)
            parts.append(plain[max(place.offset - start, 0) : end - start])
            index += 1
        return b"".join(parts)

    def frame(self, pack, index):
        key = (pack.name, index, pack.header.commitment)
        if key in self.frames:
            self.frames.move_to_end(key)
            return self.frames[key]
        if pack.key is None:
            pack.key = f.frame_key(pack.header, self.keyring, self.repo)
        with open(pack.path, "rb") as file:
            sealed = os.pread(file.fileno(), pack.frames[index][0], pack.sealed[index])
        plain = f.open_frame(pack.key, index, sealed, pack.frames[index][1])
        self.frames[key] = plain
        self.frame_bytes += len(plain)
        while self.frame_bytes > CACHE_BYTES and len(self.frames) > 1:
            self.frame_bytes -= len(self.frames.popitem(last=False)[1])
        return plain

    # The tree ------------------------------------------------------------------------------------------------------

    def entries(self, root):
        """All entries in order; parents' claims about their children are checked (R-TREE-7)."""
        last = None
        for entry in self.walk(root, 17)[0]:
            need(last is None or last < entry.key, "TREE-7", "entries do not ascend across nodes")
            last = entry.key
            yield entry

    def walk(self, node, above):
        node = t.decode_node(self.chunk(node, f.META))
        level = node.level if isinstance(node, t.Inner) else 0
        need(level < above, "TREE-7", "a child's level is not below its parent's")
        return (iter(node.entries) if level == 0 else self.walk_children(node)), node

    def walk_children(self, node):
        for child in node.children:
            count = total = 0
            for entry in self.walk(child.id, node.level)[0]:
                need(count or entry.key == child.key, "TREE-7", "a child begins with another key")
                count, total = count + 1, total + entry.size
                yield entry
            good = (count, total) == (child.entries, child.bytes)
            need(good, "TREE-7", "a child has other sums than its parent says")

    def block(self, block):
        return t.decode_block(self.chunk(block.id, f.META, block.length)) if isinstance(block, t.Ref) else block

    def refs(self, node, above=9):
        """References of a list tree in order, sums checked (R-LIST-4)."""
        found = t.decode_list(self.chunk(node, f.META))
        if not isinstance(found, t.Inner):
            yield from found
            return
        need(found.level < above, "LIST-4", "a child's level is not below its parent's")
        for child in found.children:
            count = total = 0
            for ref in self.refs(child.id, found.level):
                count, total = count + 1, total + ref.length
                yield ref
            need((total, count) == (child.bytes, child.refs), "LIST-4", "a child has other sums")


class Rows:
    """The sorted keys of an index run, without copying them."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows) // 32

    def __getitem__(self, at):
        return self.rows[at * 32 : at * 32 + 20]


class Restore:
    """Writes entries below a fresh directory. Nothing is followed: every directory on the way was made here."""

    def __init__(self, repo, target):
        self.repo, self.target = repo, os.fsencode(target)
        self.made, self.links, self.folders, self.problems, self.count = {b""}, {}, [], 0, 0
        os.makedirs(self.target, exist_ok=True)
        if os.listdir(self.target):
            raise SystemExit(f"{target} is not empty")

    def problem(self, entry, reason):
        self.problems += 1
        warn(f"{show(entry.path)}: {reason}")

    def run(self, entries):
        for entry in entries:
            try:
                need(entry.parent in self.made, "RESTORE-1", "its parent is no directory of this restore")
                self.place(entry, os.path.join(self.target, entry.path))
                self.count += 1
            except (Reject, OSError, OverflowError, ValueError) as e:
                self.problem(entry, e)
        for entry in reversed(self.folders):
            self.metadata(entry, os.path.join(self.target, entry.path))

    def place(self, e, path):
        if e.unreadable:
            self.problem(e, "could not be read when it was backed up")
            if e.type == t.FILE:
                return
        if e.type == t.DIRECTORY:
            os.mkdir(path, 0o700)
            self.made.add(e.path)
            self.folders.append(e)
            return
        group = (e.mount, e.inode) if e.links > 1 else None
        content = (e.type, e.size, tuple(e.refs), e.list, e.target, e.device)
        first = self.links.get(group)
        if first and first[1] == content:
            os.link(first[0], path, follow_symlinks=False)
            return
        if first:
            warn(f"{show(e.path)}: differs from its hard-link group, written as a file of its own [R-RESTORE-2]")
        self.create(e, path)
        if group:
            self.links.setdefault(group, (path, content))
        self.metadata(e, path)

    def create(self, e, path):
        if e.type == t.FILE:
            self.write(e, path)
        elif e.type == t.SYMLINK:
            os.symlink(e.target, path)
        elif e.type == t.FIFO:
            os.mkfifo(path, 0o600)
        else:
            kind = {t.SOCKET: stat.S_IFSOCK, t.CHARACTER: stat.S_IFCHR, t.BLOCK: stat.S_IFBLK}[e.type]
            os.mknod(path, kind | 0o600, os.makedev(*e.device))

    def write(self, e, path):
        holes = t.decode_holes(self.repo.block(e.holes), e.size) if e.holes else []
        ranges = t.data_ranges(e.size, holes)
        refs = self.repo.refs(e.list) if e.list else e.refs
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            at = end = 0
            for ref in refs:
                plain = memoryview(self.repo.chunk(ref.id, f.DATA, ref.length))
                while plain:
                    if at == end:
                        at, end = next(ranges, (None, None))
                        need(at is not None, "ENTRY-8", "more content than its size")
                    n = os.pwrite(fd, plain[: end - at], at)
                    plain, at = plain[n:], at + n
            need(at == end and next(ranges, None) is None, "ENTRY-8", "less content than its size")
            os.ftruncate(fd, e.size)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(fd)

    def metadata(self, e, path):
        """Owner, mode, attributes, times; what cannot be set is reported and does not stop the rest."""
        steps = [lambda: os.utime(path, ns=self.times(e), follow_symlinks=False)]
        if e.xattrs:
            steps.insert(0, lambda: self.xattrs(e, path))
        if e.type != t.SYMLINK:
            steps.insert(0, lambda: os.chmod(path, e.mode))
        if os.geteuid() == 0:
            steps.insert(0, lambda: os.chown(path, e.uid, e.gid, follow_symlinks=False))
        for step in steps:
            try:
                step()
            except (Reject, OSError, OverflowError) as error:
                self.problem(e, error)

    def times(self, e):
        nanos = [s * 10**9 + n for s, n in (e.atime or e.mtime, e.mtime)]
        return tuple(nanos)

    def xattrs(self, e, path):
        for name, value in t.decode_xattrs(self.repo.block(e.xattrs)):
            os.setxattr(path, name, value, follow_symlinks=False)


def within(path, wanted):
    return not wanted or path == wanted or path.startswith(wanted + b"/")


def select(entries, wanted):
    """The entries at or below `wanted`, and the directories on the way to it."""
    for e in entries:
        above = e.type == t.DIRECTORY and wanted.startswith(e.path + b"/")
        if above or within(e.path, wanted):
            yield e


def moment(time):
    try:
        return datetime.datetime.fromtimestamp(time[0], datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return str(time[0])


def command_list(repo, _):
    for name, body in repo.snapshots():
        paths = " ".join(show(p) for p in body[15])
        print(f"{name}  {moment(body[8])}  {show(body[11])}  {paths}  {show(' '.join(body[16]))}".rstrip())
    return 0


def command_ls(repo, args):
    wanted = os.fsencode(args.path).strip(b"/")
    letters = " -dlpscb"
    for e in repo.entries(repo.find(args.snapshot)[1][10]):
        if within(e.path, wanted):
            target = f" -> {show(e.target)}" if e.type == t.SYMLINK else ""
            times = moment(e.mtime)
            print(f"{letters[e.type]}{e.mode:04o} {e.uid:>6} {e.gid:>6} {e.size:>13} {times} {show(e.path)}{target}")
    return 0


def command_restore(repo, args):
    name, body = repo.find(args.snapshot)
    wanted = os.fsencode(args.path).strip(b"/")
    restore = Restore(repo, args.target)
    restore.run(select(repo.entries(body[10]), wanted))
    print(f"{restore.count} entries of snapshot {name} restored, {restore.problems} problems")
    return 3 if restore.problems or not restore.count else 0


def secret(args):
    """(passphrase, key); one of them is None."""
    if args.key_file:
        data = pathlib.Path(args.key_file).read_bytes()
        if len(data) == 32:
            return None, data
        lines = data.decode("utf-8", "replace").splitlines()
        return None, f.parse_printed_key("".join(l for l in lines if not l.startswith("#")))
    if args.recovery_key:
        return None, f.parse_printed_key(getpass.getpass("recovery key: "))
    if args.passphrase_file:
        data = pathlib.Path(args.passphrase_file).read_bytes()
        cut = 2 if data.endswith(b"\r\n") else 1 if data.endswith(b"\n") else 0
        return data[: len(data) - cut], None
    return os.fsencode(getpass.getpass("passphrase: ")), None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-r", "--repository", required=True, help="the repository's directory")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--passphrase-file", help="read the passphrase from a file instead of asking for it")
    how.add_argument("--key-file", help="32 raw bytes, or a printed key")
    how.add_argument("--recovery-key", action="store_true", help="ask for the printed recovery key")
    words = parser.add_subparsers(required=True)
    words.add_parser("list", help="snapshots").set_defaults(run=command_list)
    ls = words.add_parser("ls", help="entries of a snapshot")
    restore = words.add_parser("restore", help="write a snapshot, or a path of it, below an empty directory")
    for word, run in ((ls, command_ls), (restore, command_restore)):
        word.add_argument("snapshot", help="an id, the beginning of one, or `latest`")
        word.set_defaults(run=run)
    restore.add_argument("target")
    for word in (ls, restore):
        word.add_argument("path", nargs="?", default="")
    args = parser.parse_args()
    try:
        return args.run(Repository(args.repository, *secret(args)), args)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Reject, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
