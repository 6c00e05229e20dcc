#!/usr/bin/env python3
"""Compares bulla with other backup programs on the same work, in one run, on one machine.

usage: compare.py --bulla target/release/bulla [--runs 3] [--quick] [--work DIR] [--files DIR] [--tools DIR]

Every program backs up the same corpora with encryption on, in turn, `--runs` times; what each restores is compared with
the source. Times are of whole processes (wall, user + system, peak memory), medians with minimum and maximum. Only
ratios within one run mean anything. Rivals are external commands found on PATH or in --tools; those that are missing are
left out and named: restic (Debian), rustic (crates.io: rustic-rs), borg (PyPI: borgbackup).
"""
import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

PASSWORD = "benchmark"


def run(argv, env, cwd=None, shell=False):
    """Runs one command; wall seconds, CPU seconds, peak MiB. A failure ends the comparison."""
    log = open("/dev/null", "wb")
    start = time.monotonic()
    child = subprocess.Popen(argv, env=env, cwd=cwd, stdout=log, stderr=subprocess.PIPE, shell=shell)
    error = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - start
    if status != 0:
        sys.exit(f"{argv} failed: {error.decode(errors='replace')[-2000:]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss / 1024}


class Program:
    """One program: how it makes a repository, backs up, restores and verifies."""

    def __init__(self, name, binary, repo, **commands):
        self.name, self.binary, self.repo = name, binary, pathlib.Path(repo)
        self.commands = commands
        self.env = dict(os.environ, RESTIC_PASSWORD=PASSWORD, RUSTIC_PASSWORD=PASSWORD, BORG_PASSPHRASE=PASSWORD,
                        RESTIC_CACHE_DIR=f"{repo}-cache", XDG_CACHE_HOME=f"{repo}-cache", BULLA_CACHE_DIR=f"{repo}-cache",
                        BORG_CACHE_DIR=f"{repo}-cache", BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK="yes", TZ="UTC")

    def do(self, word, **fields):
        argv = [a.format(binary=self.binary, repo=self.repo, **fields) for a in self.commands[word].split()]
        return run(argv, self.env, cwd=fields.get("target"))

    def fresh(self):
        for path in (self.repo, pathlib.Path(f"{self.repo}-cache"), pathlib.Path(f"{self.repo}.key")):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        self.do("init")

    def size(self):
        return sum(f.stat().st_size for f in self.repo.rglob("*") if f.is_file())


def programs(args, work):
    found, missing = [], []
    path = os.pathsep.join([args.tools or "", os.environ["PATH"]])
    for name, commands in {
        "bulla": dict(
            init="{binary} -r {repo} init --key-file-out {repo}.key",
            backup="{binary} -q -r {repo} --key-file {repo}.key backup {source}",
            restore="{binary} -q -r {repo} --key-file {repo}.key restore latest --target {target}",
            verify="{binary} -q -r {repo} --key-file {repo}.key check --read-data"),
        "restic": dict(
            init="{binary} -q -r {repo} init --repository-version 2",
            backup="{binary} -q -r {repo} backup {source}",
            restore="{binary} -q -r {repo} restore latest --target {target}",
            verify="{binary} -q -r {repo} check --read-data"),
        "rustic": dict(
            init="{binary} -r {repo} init",
            backup="{binary} --no-progress -r {repo} backup {source}",
            restore="{binary} --no-progress -r {repo} restore latest {target}",
            verify="{binary} --no-progress -r {repo} check --read-data"),
        "borg": dict(
            init="{binary} init -e repokey-blake2 {repo}",
            backup="{binary} create -C zstd,3 {repo}::{{now:%H%M%S%f}} {source}",
            restore="",
            verify="{binary} check --verify-data {repo}"),
    }.items():
        binary = args.bulla if name == "bulla" else shutil.which(name, path=path)
        if not binary:
            missing.append(name)
            continue
        found.append(Program(name, os.path.abspath(binary), work / f"repo-{name}", **commands))
    return found, missing


def borg_restore(program, target):
    """borg extracts into the working directory, and wants the archive's name."""
    last = subprocess.run([program.binary, "list", "--last", "1", "--short", str(program.repo)], env=program.env,
                          capture_output=True, text=True, check=True).stdout.strip()
    return run([program.binary, "extract", f"{program.repo}::{last}"], program.env, cwd=target)


def corpora(args, work):
    """Directories to back up: many files (and the same with some changed), one large file, random bytes."""
    scale = 20 if args.quick else 1
    files = work / "files"
    if not files.exists():
        shutil.copytree(args.files, files, symlinks=True, ignore_dangling_symlinks=True)
        if args.quick:
            for extra in sorted(files.iterdir())[10:]:
                shutil.rmtree(extra) if extra.is_dir() and not extra.is_symlink() else extra.unlink()
    large, random = work / "large", work / "random"
    if not large.exists():
        large.mkdir()
        limit = (1 << 30) // scale
        subprocess.run(f"tar c /usr/lib 2>/dev/null | head -c {limit} > {large}/image", shell=True, check=True)
    if not random.exists():
        random.mkdir()
        subprocess.run(f"head -c {(512 << 20) // scale} /dev/urandom > {random}/noise", shell=True, check=True)
    return {"many files": files, "one large file": large, "random": random}


def change(source, run_number):
    """Edits about two files in a hundred, as a day's work does."""
    for number, path in enumerate(sorted(p for p in source.rglob("*") if p.is_file() and not p.is_symlink())):
        if number % 50 == run_number % 50:
            path.chmod(path.stat().st_mode | 0o200)
            with path.open("a") as f:
                f.write(f"\nchanged in run {run_number}\n")


def restore(program, target, source):
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    taken = borg_restore(program, target) if program.name == "borg" else program.do("restore", target=str(target))
    differ = subprocess.run(["diff", "-rq", "--no-dereference", str(source), f"{target}{source}"], capture_output=True, text=True)
    if differ.returncode != 0:
        sys.exit(f"{program.name} restored something else:\n{differ.stdout[:2000]}")
    return taken


def references(source, work):
    env = dict(os.environ)
    tar = run(f"tar c {source} 2>/dev/null | zstd -2 -T2 -q > {work}/reference.zst", env, shell=True)
    find = run(["find", str(source), "-printf", "%s %T@ %C@ %i"], env)
    shutil.rmtree(work / "copy", ignore_errors=True)
    copy = run(["cp", "-a", str(source), str(work / "copy")], env)
    return {"tar | zstd -2 -T2": tar, "find -printf": find, "cp -a": copy}


def summary(values, key):
    data = [v[key] for v in values]
    return statistics.median(data), min(data), max(data)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bulla", default="target/release/bulla")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small corpora: shows that it works, measures nothing")
    parser.add_argument("--work", default="/tmp/bulla-compare")
    parser.add_argument("--files", default=str(pathlib.Path.home() / ".cargo/registry/src"), help="a directory of many files")
    parser.add_argument("--tools", help="a directory with further programs")
    parser.add_argument("--out", help="where the raw results go")
    args = parser.parse_args()
    work = pathlib.Path(args.work)
    work.mkdir(parents=True, exist_ok=True)
    ours, missing = programs(args, work)
    results = {}

    def note(corpus, step, who, taken):
        results.setdefault(f"{corpus}: {step}", {}).setdefault(who, []).append(taken)

    sizes = {}
    for number in range(args.runs):
        for corpus, source in corpora(args, work).items():
            for who, taken in references(source, work).items():
                note(corpus, "reference", who, taken)
            for p in ours:
                p.fresh()
                note(corpus, "first backup", p.name, p.do("backup", source=str(source)))
                sizes.setdefault(corpus, {})[p.name] = p.size()
                note(corpus, "no change", p.name, p.do("backup", source=str(source)))
                note(corpus, "restore", p.name, restore(p, work / "target", source))
                note(corpus, "verify", p.name, p.do("verify"))
            if corpus == "many files":
                change(source, number)
                for p in ours:
                    note(corpus, "2 % changed", p.name, p.do("backup", source=str(source)))
            for p in ours:
                shutil.rmtree(p.repo, ignore_errors=True)
    report(args, ours, missing, results, sizes, work)


def report(args, ours, missing, results, sizes, work):
    print(f"{time.strftime('%Y-%m-%d')} · {os.cpu_count()} cores · {platform.system()} {platform.release()} · runs: {args.runs}")
    if missing:
        print(f"not found, so not compared: {', '.join(missing)}")
    names = [p.name for p in ours]
    print("\n| wall s [min–max] (CPU s, peak MiB) | " + " | ".join(names) + " | bulla / fastest other |")
    print("|---" * (len(names) + 2) + "|")
    for step, by in results.items():
        if step.endswith("reference"):
            continue
        cells = []
        for n in names:
            wall, low, high = summary(by[n], "wall")
            cells.append(f"{wall:.2f} [{low:.2f}–{high:.2f}] ({summary(by[n], 'cpu')[0]:.2f}, {summary(by[n], 'rss')[0]:.0f})")
        others = [summary(by[n], "wall")[0] for n in names if n != "bulla"]
        ratio = f"{summary(by['bulla'], 'wall')[0] / min(others):.2f}" if others else "–"
        print(f"| {step} | " + " | ".join(cells) + f" | {ratio} |")
    for corpus, by in sizes.items():
        others = [v for k, v in by.items() if k != "bulla"]
        ratio = f"{by['bulla'] / min(others):.2f}" if others else "–"
        print(f"| {corpus}: repository MB | " + " | ".join(f"{by[n] / 1e6:.1f}" for n in names) + f" | {ratio} |")
    print("\n| reference | wall s (CPU s) | bulla's first backup: wall, CPU ratio |\n|---|---|---|")
    for step, by in results.items():
        corpus = step.removesuffix(": reference")
        if corpus == step:
            continue
        for who, taken in by.items():
            wall, cpu = summary(taken, "wall")[0], summary(taken, "cpu")[0]
            mine = results[f"{corpus}: first backup"]["bulla"]
            if who.startswith("find"):
                mine = results[f"{corpus}: no change"]["bulla"]
            if who.startswith("cp"):
                mine = results[f"{corpus}: restore"]["bulla"]
            ratio = f"{summary(mine, 'wall')[0] / wall:.2f}, {summary(mine, 'cpu')[0] / cpu:.2f}" if wall and cpu else "–"
            print(f"| {corpus}: {who} | {wall:.2f} ({cpu:.2f}) | {ratio} |")
    raw = {"date": time.strftime("%Y-%m-%d"), "cpus": os.cpu_count(), "kernel": platform.release(), "results": results,
           "sizes": sizes, "missing": missing}
    if args.out:
        pathlib.Path(args.out).write_text(json.dumps(raw, indent=1) + "\n")
    shutil.rmtree(work / "copy", ignore_errors=True)


if __name__ == "__main__":
    main()
