"""Compares a restored tree with its source: names, kinds, contents, link targets; and, counted apart, mode, owner and
modification time."""

import filecmp
import os
import stat


def entries(root):
    found = {}
    for folder, dirs, names in os.walk(root):
        for name in dirs + names:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, root)] = os.lstat(path)
    return found


def differences(source, restored):
    """(what is wrong with the data, how many entries differ in metadata)."""
    if not os.path.isdir(source):
        same = filecmp.cmp(source, restored, shallow=False)
        return ([] if same else [f"{source}: content"]), 0
    ours, theirs = entries(source), entries(restored)
    wrong = [f"{p}: missing" for p in ours.keys() - theirs.keys()]
    wrong += [f"{p}: not in the source" for p in theirs.keys() - ours.keys()]
    metadata = 0
    for path in ours.keys() & theirs.keys():
        a, b = ours[path], theirs[path]
        here, there = os.path.join(source, path), os.path.join(restored, path)
        if stat.S_IFMT(a.st_mode) != stat.S_IFMT(b.st_mode):
            wrong.append(f"{path}: kind")
        elif stat.S_ISLNK(a.st_mode):
            if os.readlink(here) != os.readlink(there):
                wrong.append(f"{path}: target")
        elif stat.S_ISREG(a.st_mode) and not filecmp.cmp(here, there, shallow=False):
            wrong.append(f"{path}: content")
        facts = lambda s: (s.st_mode, s.st_uid, s.st_gid, s.st_mtime_ns)
        metadata += facts(a) != facts(b)
    filecmp.clear_cache()
    return sorted(wrong), metadata
