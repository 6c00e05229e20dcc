"""What bulla is meant to reach, as ratios within one run, and whether it did."""

import statistics
from dataclasses import dataclass


@dataclass
class Target:
    words: str
    corpus: str
    step: str
    measure: str      # "wall", "cpu", "rss_mib" or "size"
    against: str      # "rivals", a reference's name, or "" for an absolute bound
    limit: float


TARGETS = [
    Target("first backup, many files: wall", "files", "first", "wall", "tar | zstd -2 -T2", 1.1),
    Target("first backup, many files: CPU", "files", "first", "cpu", "tar | zstd -2 -T2", 1.1),
    Target("first backup, many files: wall", "files", "first", "wall", "rivals", 0.5),
    Target("repository, many files", "files", "first", "size", "rivals", 0.85),
    Target("no change: wall", "files", "no change", "wall", "find -printf", 1.2),
    Target("no change: wall", "files", "no change", "wall", "rivals", 0.5),
    Target("restore, many files, tmpfs: wall", "files", "restore", "wall", "cp -a", 0.6),
    Target("restore, many files, tmpfs: wall", "files", "restore", "wall", "rivals", 0.5),
    Target("verify all data: wall", "files", "verify", "wall", "rivals", 0.6),
    Target("first backup, large file: wall", "large", "first", "wall", "zstd -2 -T2", 1.45),
    Target("first backup, large file: CPU", "large", "first", "cpu", "zstd -2 -T2", 1.45),
    Target("first backup, large file: wall", "large", "first", "wall", "rivals", 0.6),
    Target("repository, large file", "large", "first", "size", "rivals", 1.0),
    Target("restore, large file: wall", "large", "restore", "wall", "rivals", 0.8),
    Target("incompressible: wall", "random", "first", "wall", "rivals", 0.65),
    Target("incompressible: CPU", "random", "first", "cpu", "rivals", 0.95),
    Target("incompressible: wall", "random", "first", "wall", "dd fdatasync", 1.3),
    Target("peak memory, backup of files, MiB", "files", "first", "rss_mib", "", 69.0),
    Target("peak memory, backup of the large file, MiB", "large", "first", "rss_mib", "", 69.0),
    Target("peak memory, restore of files, MiB", "files", "restore", "rss_mib", "", 69.0),
    Target("peak memory, restore of the large file, MiB", "large", "restore", "rss_mib", "", 69.0),
]


def values(results, corpus, step, who, measure):
    """What `who` took in each round."""
    return [sample[measure] for sample in results.get(corpus, {}).get(step, {}).get(who, []) if measure in sample]


def verdicts(results):
    """(target, rival or reference, median ratio, lowest, highest) for each target this run can judge.

    Ratios are taken round by round, so that a slow minute of the machine touches both sides. The rival is the one with
    the best median."""
    for target in TARGETS:
        ours = values(results, target.corpus, target.step, "bulla", target.measure)
        if not ours:
            continue
        if target.against == "":
            yield target, "", statistics.median(ours), min(ours), max(ours)
            continue
        if target.against == "rivals":
            step = results[target.corpus][target.step]
            medians = {w: statistics.median(v) for w in step
                       if w != "bulla" and (v := values(results, target.corpus, target.step, w, target.measure))}
            if not medians:
                continue
            against = min(medians, key=medians.get)
            theirs = values(results, target.corpus, target.step, against, target.measure)
        else:
            against = target.against
            theirs = values(results, target.corpus, "reference", against, target.measure)
        if theirs:
            ratios = [a / b for a, b in zip(ours, theirs)]
            yield target, against, statistics.median(ratios), min(ratios), max(ratios)
