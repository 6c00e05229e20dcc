"""Runs one command and says what it cost: wall time, processor time and peak memory of the whole process tree.

The command is started by a bare interpreter of its own (this file as a program), because what the kernel calls peak
memory of a child starts with its parent's: about 9 MiB here, below which nothing can be measured."""

import os
import sys
import time


class Failed(Exception):
    """A command that had to succeed did not."""


def run(argv, env, cwd=None):
    """Runs `argv` to its end. Memory is that of the largest single process, as wait4 counts it."""
    import json
    import subprocess

    log = os.path.join(env["HOME"], "stderr")
    words = [sys.executable, "-I", "-S", os.path.abspath(__file__), log, *argv]
    done = subprocess.run(words, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True)
    cost = json.loads(done.stdout)
    if cost.pop("code") != 0:
        with open(log, errors="replace") as f:
            raise Failed(f"{' '.join(argv)} failed\n{f.read()[-2000:]}")
    return cost


def tree_bytes(path):
    """Bytes of all files below `path`."""
    total = 0
    for folder, _, names in os.walk(path):
        total += sum(os.lstat(os.path.join(folder, n)).st_size for n in names)
    return total


def main(log, argv):
    null, err = os.open(os.devnull, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, err, 2)]
    begin = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - begin
    print(f'{{"wall": {wall:.4f}, "cpu": {usage.ru_utime + usage.ru_stime:.4f},'
          f' "rss_mib": {usage.ru_maxrss / 1024:.1f}, "code": {os.waitstatus_to_exitcode(status)}}}')


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
