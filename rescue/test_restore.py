"""What a hostile tree must not achieve, and what hard links and holes become: `python test_restore.py`."""

import os
import pathlib
import tempfile

import bulla_tree as t
from bulla_rescue import Restore

REF = t.Ref(b"\1" * 32, 5)


class Repository:
    """Gives one chunk for everything."""

    def chunk(self, _id, _kind, length):
        return b"x" * length

    def block(self, block):
        return block


def entry(path, kind, **more):
    parent, _, name = path.rpartition(b"/")
    plain = dict(flags=0, mode=0o644, uid=os.getuid(), gid=os.getgid(), mtime=(1, 2), ctime=(0, 0), btime=None)
    plain |= dict(atime=None, mount=0, inode=7, links=1, xattrs=None)
    return t.Entry(parent, name, kind, **(plain | more))


def restore(*entries):
    target = pathlib.Path(tempfile.mkdtemp()) / "target"
    run = Restore(Repository(), str(target))
    run.run(entries)
    return target, run


def test_nothing_is_written_through_a_link():
    outside = tempfile.mkdtemp()
    link = entry(b"a", t.SYMLINK, target=os.fsencode(outside))
    target, run = restore(link, entry(b"a/evil", t.FILE, size=5, refs=[REF]), entry(b"b/c", t.DIRECTORY))
    assert run.problems == 2 and not os.listdir(outside) and not (target / "b").exists()


def test_an_entry_does_not_replace_another():
    target, run = restore(entry(b"a", t.FILE, size=5, refs=[REF]), entry(b"a", t.SYMLINK, target=b"/"))
    assert run.problems == 1 and (target / "a").read_bytes() == b"xxxxx"


def test_hard_links_must_agree():
    same = dict(links=3, size=5, refs=[REF])
    other = dict(links=3, size=5, refs=[t.Ref(b"\2" * 32, 5)])
    target, _ = restore(*(entry(n, t.FILE, **m) for n, m in ((b"a", same), (b"b", same), (b"c", other))))
    inodes = [os.lstat(target / n).st_ino for n in "abc"]
    assert inodes[0] == inodes[1] != inodes[2]


def test_holes_stay_holes():
    # A hole of 4096 bytes at 2, then three bytes.
    target, run = restore(entry(b"a", t.FILE, size=4101, holes=b"\1\2\x80\x20", refs=[REF]))
    assert (target / "a").read_bytes() == b"xx" + bytes(4096) + b"xxx" and not run.problems


def test_content_that_does_not_fit_is_no_file():
    target, run = restore(entry(b"a", t.FILE, size=9, refs=[REF]), entry(b"b", t.FILE, size=3, refs=[REF]))
    assert run.problems == 2 and not os.listdir(target)


if __name__ == "__main__":
    tests = [run for name, run in sorted(globals().items()) if name.startswith("test_")]
    for run in tests:
        run()
    print(f"{len(tests)} tests pass")
