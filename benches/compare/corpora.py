"""Data that anyone can get: sources of this workspace's dependencies, what a Linux system has under /usr, random
bytes, a database edited in place. Everything drawn at random is drawn from a fixed seed."""

import os
import random
import shutil
import sqlite3
import stat
import subprocess

SMALL_ROOTS = ["/usr/share", "/usr/include", "/usr/lib/python3"]
FILE_LIMIT = 16 << 20


def walk(root):
    """Regular files and symbolic links below `root`, in name order, without crossing file systems."""
    device = os.lstat(root).st_dev
    for folder, dirs, names in os.walk(root):
        dirs[:] = sorted(d for d in dirs if os.lstat(os.path.join(folder, d)).st_dev == device)
        for name in sorted(names):
            yield os.path.join(folder, name)


def vendor(workspace, into):
    """The dependencies' sources, as Cargo.lock names them."""
    subprocess.run(
        ["cargo", "vendor", "--quiet", "--locked", "--versioned-dirs", into],
        cwd=workspace, check=True, stdout=subprocess.DEVNULL,
    )


# Large packages with real changes between two releases; the first release is backed up first.
RELEASES = {
    "aws-sdk-ec2": ("=1.100.0", "=1.103.0"),
    "windows": ("=0.60.0", "=0.61.1"),
    "openssl-src": ("=300.4.1", "=300.4.2"),
    "librocksdb-sys": ("=0.16.0", "=0.17.1"),
    "web-sys": ("=0.3.76", "=0.3.77"),
}


def releases(work, number, into, packages):
    """One release of each of `packages` with all it depends on, from crates.io, under names without versions."""
    project = os.path.join(work, f"release-{number}")
    os.makedirs(os.path.join(project, "src"))
    with open(os.path.join(project, "src", "lib.rs"), "w"):
        pass
    wanted = "".join(f'{name} = "{RELEASES[name][number]}"\n' for name in packages)
    with open(os.path.join(project, "Cargo.toml"), "w") as f:
        f.write(f'[package]\nname = "release"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n{wanted}')
    subprocess.run(["cargo", "vendor", "--quiet", into], cwd=project, check=True, stdout=subprocess.DEVNULL)
    found = [os.lstat(p) for p in walk(into)]
    return len(found), sum(info.st_size for info in found)


def tiny_files(into, count):
    """Files of some words each, a hundred to a directory."""
    draw = random.Random(5)
    words = [draw.randbytes(3).hex() for _ in range(5000)]
    total = 0
    for number in range(count):
        folder = os.path.join(into, f"{number // 10_000:04d}", f"{number // 100 % 100:02d}")
        if number % 100 == 0:
            os.makedirs(folder)
        text = f"{number} {' '.join(draw.choices(words, k=draw.randint(5, 60)))}\n"
        with open(os.path.join(folder, f"{number:08d}.txt"), "w") as f:
            f.write(text)
        total += len(text)
    return count, total


def copy_files(roots, into, count, size):
    """Copies files of `roots` below `into` until there are `count` of them or `size` bytes. Says how many."""
    files, total = 0, 0
    for root in roots:
        if not os.path.isdir(root):
            continue
        for path in walk(root):
            info = os.lstat(path)
            if not (stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)) or info.st_size > FILE_LIMIT:
                continue
            if files >= count or total + info.st_size > size:
                return files, total
            target = os.path.join(into, os.path.basename(root), os.path.relpath(path, root))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            files, total = files + 1, total + (info.st_size if stat.S_ISREG(info.st_mode) else 0)
    return files, total


def tar_of(root, into, size):
    """An uncompressed tar of `root`, cut at `size` bytes: one large compressible file."""
    with open(into, "wb") as out:
        tar = subprocess.Popen(
            ["tar", "c", "--sort=name", "-C", "/", os.path.relpath(root, "/")],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        left = size
        while left and (block := tar.stdout.read(min(left, 1 << 20))):
            out.write(block)
            left -= len(block)
        tar.stdout.close()
        tar.wait()
    return 1, size - left


def random_file(into, size):
    """Bytes that no compressor shrinks."""
    draw = random.Random(1)
    with open(into, "wb") as out:
        for _ in range(size >> 20):
            out.write(draw.randbytes(1 << 20))
    return 1, size


def database(into, rows):
    """A SQLite file of text rows."""
    draw = random.Random(2)
    words = [draw.randbytes(3).hex() for _ in range(5000)]
    base = sqlite3.connect(into)
    base.execute("create table entry (id integer primary key, at integer, what text)")
    text = (" ".join(draw.choices(words, k=draw.randint(10, 60))) for _ in range(rows))
    base.executemany("insert into entry (at, what) values (?, ?)", ((i * 37, t) for i, t in enumerate(text)))
    base.commit()
    base.close()
    return 1, os.path.getsize(into)


def edit_database(path, rows):
    """Rewrites 2 % of the rows, in 40 runs of neighbours."""
    draw = random.Random(3)
    base = sqlite3.connect(path)
    for _ in range(40):
        start, run = draw.randrange(rows), rows // 2000
        base.execute("update entry set at = at + 1, what = substr(what, 9) || ' edited' where id between ? and ?",
                     (start, start + run))
    base.commit()
    base.close()


class Change:
    """Changes about 2 % of the files of a tree, and takes it back so that the next round starts from the same state."""

    def __init__(self, root, stash):
        self.root, self.stash = root, stash
        self.edited, self.added, self.moved = [], [], []

    def apply(self):
        draw = random.Random(4)
        files = [p for p in walk(self.root) if not os.path.islink(p)]
        chosen = draw.sample(files, len(files) // 50)
        os.makedirs(self.stash, exist_ok=True)
        bytes_changed = 0
        for number, path in enumerate(chosen):
            kept = os.path.join(self.stash, str(number))
            shutil.copy2(path, kept)
            self.edited.append((path, kept))
            kind = number % 10
            if kind == 0:
                os.unlink(path)
                continue
            with open(path, "r+b") as f:
                data = f.read()
                at = draw.randrange(len(data) + 1)
                f.seek(0)
                f.truncate()
                f.write(data[:at] + draw.randbytes(40).hex().encode() + data[at:])
                bytes_changed += len(data) + 80
            if kind == 1:
                os.rename(path, path + ".renamed")
                self.moved.append(path + ".renamed")
            if kind == 2:
                shutil.copy2(path, path + ".new")
                self.added.append(path + ".new")
        return len(chosen), bytes_changed

    def undo(self):
        for path in self.added + self.moved:
            os.unlink(path)
        for path, kept in self.edited:
            if os.path.exists(path):
                os.unlink(path)
            shutil.copy2(kept, path)
        shutil.rmtree(self.stash, ignore_errors=True)
        self.edited, self.added, self.moved = [], [], []


class NextRelease:
    """Puts the next release where the first one was, as an update does."""

    def __init__(self, source, following):
        self.source, self.following = source, following

    def apply(self):
        os.rename(self.source, self.source + ".before")
        os.rename(self.following, self.source)
        return 0, 0

    def undo(self):
        os.rename(self.source, self.following)
        os.rename(self.source + ".before", self.source)


class EditDatabase:
    """The same for the database."""

    def __init__(self, path, rows, stash):
        self.path, self.rows, self.stash = path, rows, stash

    def apply(self):
        shutil.copy2(self.path, self.stash)
        edit_database(self.path, self.rows)
        return 1, os.path.getsize(self.path)

    def undo(self):
        shutil.copy2(self.stash, self.path)
        os.unlink(self.stash)
