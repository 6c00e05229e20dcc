"""Puts a damaged pack right from its parity sidecar, without any key (SPEC.md 18): solves the equations of 18.2.

usage: bulla_parity.py DAMAGED_PACK SIDECAR NEW_FILE
The sidecar of packs/ab/ab… or meta/ab/ab… is parity/ab/ab…; nothing but NEW_FILE is written. A pack of 12 MiB takes about a minute.
"""

import pathlib
import sys
from collections import namedtuple

from blake3 import blake3

from bulla_format import MAGIC, Reader, Reject, need

HEAD = 88
PACK_MAX = (2 << 30) + (64 << 20)
BASIS = [0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012]
BASIS += [0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E]

Head = namedtuple("Head", "shard recovery size data")


# 18.2 The field: numbers in, numbers out ---------------------------------------------------------------------------


def tables():
    """Powers of x and their logarithms, both spelled as the numbers that stand for elements."""
    number = [0] * (1 << 16)
    element = [0] * (1 << 16)
    for n in range(1, 1 << 16):
        low = n & -n
        element[n] = element[n ^ low] ^ BASIS[low.bit_length() - 1]
        number[element[n]] = n
    exp, log, state = [0] * (2 * 65535), [0] * (1 << 16), 1
    for i in range(65535):
        exp[i] = exp[i + 65535] = number[state]
        log[number[state]] = i
        state <<= 1
        state ^= 0x1002D if state >> 16 else 0
    return exp, log


EXP, LOG = tables()


def mul(a, b):
    return EXP[LOG[a] + LOG[b]] if a and b else 0


def power(a, n):
    if n == 0:
        return 1
    return EXP[LOG[a] * n % 65535] if a else 0


def inverse(matrix):
    """Of a square matrix, by Gauss and Jordan."""
    size = len(matrix)
    rows = [row + [int(i == j) for j in range(size)] for i, row in enumerate(matrix)]
    for i in range(size):
        pivot = next(r for r in range(i, size) if rows[r][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        scale = EXP[65535 - LOG[rows[i][i]]]
        rows[i] = [mul(v, scale) for v in rows[i]]
        for r in range(size):
            if r != i and rows[r][i]:
                factor = rows[r][i]
                rows[r] = [v ^ mul(factor, w) for v, w in zip(rows[r], rows[i])]
    return [row[size:] for row in rows]


def symbols(shard):
    blocks = (shard[at : at + 64] for at in range(0, len(shard), 64))
    return [low | high << 8 for block in blocks for low, high in zip(block[:32], block[32:])]


def from_symbols(row):
    out = bytearray()
    for at in range(0, len(row), 32):
        block = row[at : at + 32]
        out += bytes(s & 0xFF for s in block) + bytes(s >> 8 for s in block)
    return bytes(out)


def add_times(row, other, factor):
    """row + factor · other, symbol by symbol."""
    if not factor:
        return row
    log, exp, table = LOG[factor], EXP, LOG
    return [v ^ exp[table[w] + log] if w else v for v, w in zip(row, other)]


def solve(known, unknown, m):
    """The rows at the points `unknown` from those at the points of `known`: M equations, M unknowns."""
    length = len(next(iter(known.values())))
    sums = []
    for t in range(m):
        row = [0] * length
        for point, other in known.items():
            row = add_times(row, other, power(point, t))
        sums.append(row)
    out = {}
    solution = inverse([[power(point, t) for point in unknown] for t in range(m)])
    for point, factors in zip(unknown, solution):
        row = [0] * length
        for factor, other in zip(factors, sums):
            row = add_times(row, other, factor)
        out[point] = row
    return out


# 18.1 and 18.3 -----------------------------------------------------------------------------------------------------


def decode_head(data, name):
    need(len(data) >= HEAD, "PARITY-1", "no room for a head")
    r = Reader(data[:HEAD])
    good = r.take(6) == MAGIC and r.u8() == 12 and r.u8() == 1
    need(good and blake3(data[:56]).digest() == data[56:88], "PARITY-1", "no head of a parity sidecar")
    shard, recovery, size = r.u32(), r.u32(), r.u64()
    good = 0 < shard <= 1 << 20 and shard % 64 == 0 and 0 < size <= PACK_MAX
    need(good, "PARITY-2", "an impossible size")
    data_shards = -(-size // shard)
    need(0 < recovery <= data_shards, "PARITY-2", "an impossible number of recovery shards")
    need(data_shards + next_power(recovery) <= 1 << 16, "PARITY-2", "more shards than the code can hold")
    need(r.take(32) == name, "PARITY-3", "another pack's")
    return Head(shard, recovery, size, data_shards)


def next_power(n):
    return 1 << (n - 1).bit_length()


def read_head(sidecar, name):
    try:
        return decode_head(sidecar[:HEAD], name)
    except Reject as first:
        try:
            return decode_head(sidecar[max(len(sidecar) - HEAD, 0) :], name)
        except Reject:
            raise first from None


def repair(sidecar, name, pack):
    """The pack of that name, from what is left of it and its sidecar; with the number of shards put right."""
    head = read_head(sidecar, name)
    size, list_size = head.shard, 32 * (head.data + head.recovery)
    end = len(sidecar) - HEAD
    lists = [sidecar[HEAD : HEAD + list_size], sidecar[max(end - list_size, 0) : max(end, 0)]]

    def listed(number, shard):
        digest = blake3(shard).digest()
        return any(each[32 * number : 32 * number + 32] == digest for each in lists)

    rest = pack[: head.size]
    bad, m, known = [], next_power(head.recovery), {}
    for i in range(head.data):
        shard = rest[i * size : (i + 1) * size].ljust(size, b"\0")
        if listed(i, shard):
            known[m + i] = shard
        else:
            bad.append(m + i)
    first, good = HEAD + list_size, []
    for i in range(head.recovery):
        shard = sidecar[first + i * size : first + (i + 1) * size]
        if len(shard) == size and listed(head.data + i, shard):
            good.append(i)
            known[i] = shard
    need(len(bad) <= len(good), "PARITY-4", f"{len(bad)} shards damaged, parity left for {len(good)}")
    found = {}
    if bad:
        # As many unknowns as equations: the damaged, the never stored, and recovery shards that are not needed.
        spare = good[len(bad) :]
        unknown = bad + [i for i in range(m) if i not in known] + spare
        rows = {point: symbols(shard) for point, shard in known.items() if point not in spare}
        found = solve(rows, unknown, m)
    pieces = [known[m + i] if m + i in known else from_symbols(found[m + i]) for i in range(head.data)]
    out = b"".join(pieces)[: head.size]
    need(blake3(out).digest() == name, "PARITY-5", "the repaired bytes do not hash to the pack's name")
    return out, len(bad)


def main():
    if len(sys.argv) != 4:
        print(__doc__.strip(), file=sys.stderr)
        return 2
    damaged, sidecar, new = map(pathlib.Path, sys.argv[1:])
    try:
        out, count = repair(sidecar.read_bytes(), bytes.fromhex(sidecar.name), damaged.read_bytes())
        with new.open("xb") as file:
            file.write(out)
    except (Reject, OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    print(f"{count} shards put right; the bytes hash to the pack's name")
    return 0


if __name__ == "__main__":
    sys.exit(main())
