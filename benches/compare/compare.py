#!/usr/bin/env python3
"""Compares bulla with other backup programs: the same work, encryption on, in turn, on one machine, in one run.

Only ratios within one run mean anything. What every program restores is compared with the source, byte by byte; a
difference ends the run. Restores and copies go to a tmpfs where there is one, because ext4 makes new files slow for
minutes after a large tree was deleted. Each round starts from the same source and from new repositories; the order of
the programs turns with the rounds. Prints Markdown; raw samples and the machine go to --out.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time

import corpora
from identical import differences
from measure import run, tree_bytes
from targets import verdicts
from tools import RIVALS, Bulla, find, install

SIZES = {  # files: count and bytes; large and random: bytes; database: rows; tiny: count; releases are as they are
    "full": {"files": (60_000, 800 << 20), "large": 1 << 30, "random": 1 << 30, "database": 600_000,
             "tiny": 1_000_000, "releases": 0},
    "quick": {"files": (2_000, 24 << 20), "large": 24 << 20, "random": 16 << 20, "database": 20_000,
              "tiny": 5_000, "releases": 0},
}
STEPS = {
    "files": ["first", "no change", "changed", "verify", "restore"],
    "large": ["first", "verify", "restore"],
    "random": ["first", "restore"],
    "database": ["first", "changed", "restore"],
    "tiny": ["first", "no change", "restore"],
    "releases": ["first", "no change", "changed", "restore"],
}
# Corpora that are directories of files.
TREES = ("files", "tiny", "releases")
WORDS = {"first": "first backup", "no change": "no change", "changed": "changed", "verify": "verify all data",
         "restore": "restore all"}
# Change detection distrusts files that changed just before a scan; so must the harness not change them then.
SETTLE_SECONDS = 4


class Round:
    """One round over one corpus: every step by every program, and the references."""

    def __init__(self, args, corpus, source, change, samples, number):
        self.args, self.corpus, self.source, self.change = args, corpus, source, change
        self.samples, self.number = samples, number

    def note(self, step, who, cost, **more):
        self.samples.setdefault(self.corpus, {}).setdefault(step, {}).setdefault(who, []).append(cost | more)
        print(f"  {self.corpus} {step} {who}: {cost['wall']:.2f} s, CPU {cost['cpu']:.2f} s, {cost['rss_mib']:.0f} MiB",
              file=sys.stderr, flush=True)

    def run(self, programs):
        turn = self.number % len(programs)
        order = programs[turn:] + programs[:turn]
        with tempfile.TemporaryDirectory(dir=self.args.work, prefix="round-") as work:
            time.sleep(SETTLE_SECONDS)
            self.references(work)
            for program in order:
                place = os.path.join(work, program.name)
                os.makedirs(place)
                program.place(place)
                run(program.init(), program.env)
            for step in STEPS[self.corpus]:
                self.step(step, order)
        if self.change:
            self.change.undo()

    def step(self, step, order):
        if step == "changed":
            self.changed = self.change.apply()
            time.sleep(SETTLE_SECONDS)
        for program in order:
            if step == "verify":
                if program.verifies:
                    self.note(step, program.name, run(program.verify(), program.env))
            elif step == "restore":
                self.restore(program)
            else:
                cost = run(program.backup(self.source), program.env)
                self.note(step, program.name, cost, size=tree_bytes(program.repo))

    def restore(self, program):
        with tempfile.TemporaryDirectory(dir=self.args.restore_to, prefix="bulla-compare-") as target:
            cost = run(program.restore(self.source, target), program.env)
            wrong, metadata = differences(self.source, program.restored(self.source, target))
            if wrong:
                sys.exit(f"{program.name} restored something else: {len(wrong)} differences, as {wrong[:5]}")
            self.note("restore", program.name, cost, metadata_differs=metadata)

    def references(self, work):
        env = {"PATH": os.environ["PATH"], "HOME": work}
        shell = lambda words, *rest: run(["sh", "-c", words, "sh", self.source, *rest], env)
        note = lambda who, cost: self.note("reference", who, cost)
        if self.corpus in TREES:
            note("tar | zstd -2 -T2", shell('tar c -C "$1" . | zstd -q -2 -T2 > "$2"', work + "/reference"))
            note("find -printf", run(["find", self.source, "-printf", "%s %T@ %C@ %i\n"], env))
        elif self.corpus == "random":
            note("dd fdatasync", shell('dd if="$1" of="$2" bs=4M conv=fdatasync', work + "/reference"))
        else:
            note("zstd -2 -T2", shell('zstd -q -2 -T2 < "$1" > "$2"', work + "/reference"))
        with tempfile.TemporaryDirectory(dir=self.args.restore_to, prefix="bulla-compare-") as target:
            note("cp -a", run(["cp", "-a", self.source, target + "/copy"], env))


def build(args, workspace, sizes):
    """Makes the corpora: name → (source, what changes it, a description)."""
    made = {}
    place = lambda name: os.path.join(args.work, name)
    for corpus in args.corpora:
        print(f"making {corpus}", file=sys.stderr, flush=True)
        source, change = place(corpus), None
        if corpus == "files":
            roots = args.files or [place("vendor"), *corpora.SMALL_ROOTS]
            if not args.files:
                corpora.vendor(workspace, place("vendor"))
            count, size = corpora.copy_files(roots, source, *sizes["files"])
            shutil.rmtree(place("vendor"), ignore_errors=True)
            change = corpora.Change(source, place("stash"))
        elif corpus == "large":
            count, size = corpora.tar_of("/usr/lib", source, sizes["large"])
        elif corpus == "random":
            count, size = corpora.random_file(source, sizes["random"])
        elif corpus == "tiny":
            count, size = corpora.tiny_files(source, sizes["tiny"])
        elif corpus == "releases":
            packages = list(corpora.RELEASES)[-1:] if args.quick else list(corpora.RELEASES)
            count, size = corpora.releases(args.work, 0, source, packages)
            corpora.releases(args.work, 1, place("following"), packages)
            change = corpora.NextRelease(source, place("following"))
        else:
            count, size = corpora.database(source, sizes["database"])
            change = corpora.EditDatabase(source, sizes["database"], place("stash"))
        made[corpus] = (source, change, {"files": count, "bytes": size})
    return made


def cell(samples):
    median = lambda key: statistics.median(s[key] for s in samples)
    walls = [s["wall"] for s in samples]
    return f"**{median('wall'):.2f}** [{min(walls):.2f}–{max(walls):.2f}] ({median('cpu'):.2f}, {median('rss_mib'):.0f})"


def code(words):
    """A name as code in a table."""
    return "`" + words.replace("|", "\\|") + "`" if words else "–"


def to_best(by, rivals):
    """Wall and processor time of bulla as ratios to the best rival in each, by medians."""
    for key in ("wall", "cpu"):
        best = [statistics.median(s[key] for s in by[n]) for n in rivals if n in by]
        if best:
            yield statistics.median(s[key] for s in by["bulla"]) / min(best)


def table(results, names):
    """The whole run as Markdown."""
    rivals = [n for n in names if n != "bulla"]
    lines = ["| wall s [min–max] (CPU s, peak MiB) | " + " | ".join(names) + " | bulla / best rival: wall, CPU |",
             "|---" * (len(names) + 2) + "|"]
    for corpus, steps in results.items():
        for step in (s for s in STEPS[corpus] if s in steps):
            by = steps[step]
            ratio = ", ".join(f"{r:.2f}" for r in to_best(by, rivals)) or "–"
            cells = [cell(by[n]) if n in by else "–" for n in names]
            lines.append(f"| {corpus}: {WORDS[step]} | " + " | ".join(cells) + f" | {ratio} |")
            if step in ("first", "changed"):
                size = {n: statistics.median(s["size"] for s in by[n]) for n in names}
                ratio = f"{size['bulla'] / min(size[n] for n in rivals):.2f}" if rivals else "–"
                cells = [f"{size[n] / 1e6:.1f}" for n in names]
                lines.append(f"| … repository MB | " + " | ".join(cells) + f" | {ratio} |")
    lines += ["", "| reference | wall s [min–max] (CPU s, peak MiB) |", "|---|---|"]
    for corpus, steps in results.items():
        lines += [f"| {corpus}: {code(who)} | {cell(samples)} |" for who, samples in steps["reference"].items()]
    lines += ["", "| target | against | at most | reached [min–max] | |", "|---|---|---|---|---|"]
    for target, against, middle, low, high in verdicts(results):
        verdict = "yes" if middle <= target.limit else "**no**"
        lines.append(f"| {target.words} | {code(against)} | {target.limit} | {middle:.2f} [{low:.2f}–{high:.2f}] | {verdict} |")
    return "\n".join(lines)


def machine():
    model = ""
    with open("/proc/cpuinfo") as f:
        model = next((l.split(":", 1)[1].strip() for l in f if l.startswith("model name")), "")
    with open("/proc/meminfo") as f:
        memory = int(f.readline().split()[1]) // 1024
    return {"cpus": os.cpu_count(), "model": model, "memory_mib": memory, "kernel": ".".join(platform.release().split(".")[:2]),
            "load_average_at_start": os.getloadavg()}


def programs(args):
    found, missing = [Bulla(os.path.abspath(args.bulla))], []
    for name in args.rivals:
        path = find(name, args.tools)
        if not path and args.install:
            install(RIVALS[name], args.install)
            path = find(name, [os.path.join(args.install, "bin")])
        found, missing = (found + [RIVALS[name](path)], missing) if path else (found, missing + [name])
    return found, missing


def sizes(args):
    full = SIZES["quick" if args.quick else "full"]
    scaled = lambda n: tuple(map(scaled, n)) if isinstance(n, tuple) else int(n * args.scale)
    return {corpus: scaled(size) for corpus, size in full.items()}


def keep(out, raw):
    """Writes what is known so far: a run that is cut short is not lost."""
    if out:
        with open(out, "w") as f:
            json.dump(raw, f, indent=1)
            f.write("\n")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulla", default="target/release/bulla", help="the binary under test")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small corpora: proves that it works, measures nothing")
    parser.add_argument("--scale", type=float, default=1.0, help="corpora this much of their full size")
    parser.add_argument("--corpora", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--rivals", nargs="*", default=list(RIVALS), choices=list(RIVALS))
    parser.add_argument("--files", nargs="+", help="directories for the corpus of many files, instead of the default")
    parser.add_argument("--tools", nargs="*", default=[], help="directories looked into for rivals before PATH")
    parser.add_argument("--install", metavar="DIR", help="install rivals that are missing, into DIR")
    parser.add_argument("--work", default="/tmp", help="where corpora and repositories go")
    parser.add_argument("--restore-to", default="/dev/shm" if os.path.ismount("/dev/shm") else "/tmp")
    parser.add_argument("--out", help="file for the raw results (JSON)")
    return parser.parse_args()


def main():
    args = arguments()
    workspace = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    about = {"date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()), "machine": machine(), "runs": args.runs}
    tools, about["missing"] = programs(args)
    about["programs"] = {t.name: t.version() for t in tools}
    results = {}
    with tempfile.TemporaryDirectory(dir=args.work, prefix="bulla-compare-") as args.work:
        made = build(args, workspace, sizes(args))
        about["corpora"] = {name: facts for name, (_, _, facts) in made.items()}
        for number in range(args.runs):
            for corpus, (source, change, _) in made.items():
                print(f"round {number + 1}: {corpus}, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
                Round(args, corpus, source, change, results, number).run(tools)
                about["load_average_at_end"] = os.getloadavg()
                keep(args.out, about | {"results": results})
    print("\n".join(f"{key}: {value}" for key, value in about.items()), end="\n\n")
    print(table(results, [t.name for t in tools]))


if __name__ == "__main__":
    main()
