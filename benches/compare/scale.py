#!/usr/bin/env python3
"""What a larger repository costs: the same commands on repositories that grow tenfold, with slopes.

Three kinds: one file cut into many chunks (`--chunks`), many real small files (`--files`), and trees of files that do not
exist, made by the engine's example `tree` (`--entries`). Beside each lie a thousand small files, one of which is changed and
restored. Prints Markdown; raw samples go to --out.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import corpora
from compare import SETTLE_SECONDS, keep, machine
from measure import run, tree_bytes
from tools import Bulla

AVERAGE = 256  # Bytes of a chunk where many are wanted
STEPS = {
    "first": "first backup", "open": "`snapshots`", "no change": "no change", "changed": "one of 1,000 small files changed",
    "ls": "`ls` of one directory", "ls -R": "`ls -R` of all", "find": "`find` of one name", "one file": "`restore` of one file", "check": "`check`, structure",
    "prune": "`prune --dry-run`",
}


def small_files(into):
    for number in range(1000):
        folder = os.path.join(into, f"{number // 100}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{number:03}"), "w") as f:
            f.write(f"small file {number}\n" * 20)


class Place:
    """A source, a repository for it, and what the commands on it took."""

    def __init__(self, args, kind, count, work):
        self.args, self.kind, self.count, self.work = args, kind, count, work
        self.source, self.costs = os.path.join(work, "source"), {}
        self.bulla = Bulla(os.path.abspath(args.bulla))
        self.bulla.place(work)
        self.small = os.path.join(self.source, "small")
        os.makedirs(self.small)
        small_files(self.small)

    def init(self):
        words = self.bulla.init()
        if self.kind == "chunks":
            words += ["--chunker", f"64,{AVERAGE},1K"]
        run(words, self.bulla.env)

    def note(self, step, words, times=1):
        costs = [run(words(), self.bulla.env) for _ in range(times)]
        self.costs[step] = {key: statistics.median(c[key] for c in costs) for key in ("wall", "cpu", "rss_mib")}
        print(f"  {self.kind} {self.count} {step}: {self.costs[step]}", file=sys.stderr, flush=True)

    def fill(self):
        if self.kind == "chunks":
            corpora.random_file(os.path.join(self.source, "large"), self.count * AVERAGE // (1 << 20) << 20)
        if self.kind == "files":
            corpora.tiny_files(os.path.join(self.source, "tiny"), self.count)

    def measure(self):
        self.fill()
        self.init()
        time.sleep(SETTLE_SECONDS)
        backup = lambda: self.bulla.backup(self.source)
        if self.kind == "entries":
            run(backup(), self.bulla.env)
            example = os.path.join(os.path.dirname(self.args.bulla), "examples", "tree")
            made = subprocess.run([example, self.bulla.repo, self.bulla.key, str(self.count)], check=True, text=True,
                                  stdout=subprocess.PIPE, env=self.bulla.env | {"HOME": self.work})
            self.snapshot, below, one = made.stdout.strip(), "/photos/0000", "/photos/0000/07/IMG_00000707.JPG"
        else:
            self.note("first", backup)
            time.sleep(SETTLE_SECONDS)
            run(backup(), self.bulla.env)  # Files as young as the scan are read twice.
            self.note("no change", backup, 3)
            with open(os.path.join(self.small, "3", "333"), "w") as f:
                f.write("changed\n")
            time.sleep(SETTLE_SECONDS)
            self.note("changed", backup)
            self.snapshot, below, one = "latest", self.small, os.path.join(self.small, "7", "707")
        size = tree_bytes(self.bulla.repo), tree_bytes(os.path.join(self.bulla.repo, "index"))
        self.costs["size"] = {"repository": size[0], "index": size[1]}
        words = self.bulla.words
        self.note("open", lambda: words("snapshots"), 3)
        self.note("ls", lambda: words("ls", f"{self.snapshot}:{below}"), 3)
        self.note("ls -R", lambda: words("ls", "-R", self.snapshot))
        self.note("find", lambda: words("find", os.path.basename(one), "-s", self.snapshot))
        self.note("one file", lambda: words("restore", f"{self.snapshot}:{one}", "--target", self.fresh()), 3)
        self.note("check", lambda: words("check"))
        self.note("prune", lambda: words("prune", "--dry-run"))
        return self.costs

    def fresh(self):
        return tempfile.mkdtemp(dir=self.work)


def table(results):
    lines = []
    for kind, by in results.items():
        counts = sorted(by, key=int)
        lines += ["", f"| {kind}: wall s (CPU s, peak MiB) | " + " | ".join(f"{int(c):,}" for c in counts) + " | each further 10⁶ |",
                  "|---" * (len(counts) + 2) + "|"]
        for step, words in STEPS.items():
            costs = [by[c].get(step) for c in counts]
            if None in costs:
                continue
            cells = [f"{c['wall']:.3f} ({c['cpu']:.3f}, {c['rss_mib']:.0f})" for c in costs]
            per = (int(counts[-1]) - int(counts[-2])) / 1e6 if len(counts) > 1 else None
            slope = lambda key: (costs[-1][key] - costs[-2][key]) / per
            last = f"{slope('wall'):.3f} s, {slope('rss_mib'):.1f} MiB" if per else "–"
            lines.append(f"| {words} | " + " | ".join(cells) + f" | {last} |")
        sizes = [by[c]["size"] for c in counts]
        lines.append("| repository, its index, MB | " + " | ".join(f"{s['repository'] / 1e6:.1f}, {s['index'] / 1e6:.2f}" for s in sizes) + " | |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulla", default="target/release/bulla", help="the binary under test, `examples/tree` beside it")
    for kind, counts in (("chunks", [10**5, 10**6, 10**7]), ("files", [10**4, 10**5, 10**6]), ("entries", [10**5, 10**6, 10**7])):
        parser.add_argument(f"--{kind}", nargs="*", type=int, default=counts, metavar="COUNT")
    parser.add_argument("--work", default="/tmp")
    parser.add_argument("--out", help="file for the raw results (JSON)")
    args = parser.parse_args()
    about, results = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine()}, {}
    for kind in ("chunks", "files", "entries"):
        for count in getattr(args, kind):
            work = tempfile.mkdtemp(dir=args.work, prefix="bulla-scale-")
            try:
                results.setdefault(kind, {})[str(count)] = Place(args, kind, count, work).measure()
            finally:
                shutil.rmtree(work)
            keep(args.out, about | {"results": results})
    print("\n".join(f"{key}: {value}" for key, value in about.items()))
    print(table(results))


if __name__ == "__main__":
    main()
