"""Runs the rescue reader over repo-format/vectors: `python test_vectors.py`. A reject must fail for the rule it names."""

import pathlib
import re
import struct
import sys

from blake3 import blake3

import bulla_format as f
import bulla_parity
import bulla_tree as t
from bulla_rescue import check_verdict, fits

REPO = b"\x41" * 32
KEYRING = f.Keyring([b"\x11" * 32, b"\x12" * 32], [b"\x21" * 32])
RING_KEY = b"\x31" * 32
SIGNED = {"announcement": 5, "verdict": 6, "death": 7, "mark": 8, "hold": 9, "certificate": 10, "forget": 13, "record": 11}
CONTEXTS = f.CONTEXTS | {5: "announcement", 9: "hold", 13: "forget", 11: "record"}
# libsodium does not say which of two things is wrong with a signature; a certificate signs itself wrongly in one way.
EQUAL = {("SIG-1", "R-SIG-2"), ("SIG-1", "R-TRUST-2")}
SHAPES = [
    "config/[0-9a-f]{8}",
    "(keys|snap|gone|marks|locks|forget|clients)/[0-9a-f]{32}",
    "(packs|meta|parity)/[0-9a-f]{64}",
    "index/[0-9a-f]{8}-[0-9a-f]{64}",
    "pend/[0-9a-f]{32}\\.[0-9a-f]{8}",
    "records/[0-9a-f]{32}\\.[0-9a-f]{16}",
]


def read_pack(data, given):
    if "name" in given:
        f.need(blake3(data).hexdigest() == given["name"].split("/")[-1], "NAME-2", "another name")
    header = f.pack_header(data) if len(data) >= 220 else None
    directory = f.open_directory(lambda a, b: data[a:b], len(data), KEYRING, REPO, KEYRING.client_public)
    f.need(header == directory.header, "PACK-6", "header and trailer differ")
    key = f.frame_key(header, KEYRING, REPO)
    f.need(blake3(data[: directory.end]).digest() == directory.hash, "DIR-5", "other bytes")
    at, stream = 84, b""
    for i, (sealed, raw) in enumerate(directory.frames):
        stream += f.open_frame(key, i, data[at : at + sealed], raw)
        at += sealed
    at = 0
    for chunk, length in directory.chunks:
        found = KEYRING.chunk_id(header.domain, header.kind, stream[at : at + length])
        f.need(found == chunk, "CHUNK-1", "another id")
        at += length
    return {"stream": stream.hex()}


def read_parity(data, given):
    name = bytes.fromhex(given["name"].split("/")[-1])
    head = bulla_parity.read_head(data, name)
    pack, count = bulla_parity.repair(data, name, bytes.fromhex(given["pack"]))
    shape = {"shard-size": str(head.shard), "shards": f"{head.data} {head.recovery}"}
    return shape | {"repaired": str(count), "pack": pack.hex()}


def read_signed(kind, data, given):
    content = f.open_envelope(data, kind, REPO, lambda e: KEYRING.envelope_key(e, kind))
    f.need(len(content) >= 64, "SIG-1", "too short")
    body = f.cbor(content[:-64])
    name, _, number = given["name"].split("/")[-1].partition(".")
    name = bytes.fromhex(name)
    if kind == 6:
        check_verdict(body, name)
        client = f.field(body, 3, bytes, 16)
    elif kind == 5:
        client = check_announcement(body, name, int(number, 16))
    elif kind == 11:
        client = name
        good = f.field(body, 1, bytes, 16) == client and f.uint(body, 2) == int(number, 16)
        f.need(good, "RECORD-1", "another name")
        f.need((3 in body) == (f.uint(body, 2) > 0), "RECORD-2", "a chain that is torn")
        check_fact(f.uint(body, 5), f.field(body, 6, dict))
    else:
        tag = {7: "GONE-1", 8: "MARK-1", 9: "HOLD-1", 10: "CERT-1", 13: "FORGET-1"}[kind]
        f.need(f.field(body, 1, bytes, 16) == name, tag, "another name")
        client = body[2]
    if kind == 7:
        f.need(KEYRING.body_hash(body[4]) == body[3], "GONE-2", "another body")
    if kind == 10:
        f.need(f.uint(body, 3) < 16, "CERT-2", "unknown capability")
    public = KEYRING.admin_public() if kind == 10 else KEYRING.client_public(client)
    f.verify(public, CONTEXTS[kind], REPO, content)
    return {}


def check_fact(kind, fact):
    """12.7: what a record says."""
    if kind == 2:
        levels = [f.uint(copy, 4) for copy in f.field(fact, 10, list)]
        f.need(all(level <= 4 for level in levels), "RECORD-3", "an unknown level")
    if kind == 4:
        f.need(f.uint(fact, 5) <= 2, "RECORD-3", "an unknown kind of drill")
        f.need(len(f.field(fact, 14, list)) == 4, "RECORD-3", "other phases")
        f.field(fact, 6, bytes, 32)
        f.field(fact, 17, bytes, 32)
        named = [type(n) is list and [type(part) for part in n] == [str, str] for n in f.field(fact, 20, list)]
        f.need(all(named), "RECORD-3", "a number without a name")


def check_announcement(body, run, number):
    good = f.field(body, 1, bytes, 16) == run and f.uint(body, 2, 32) == number
    f.need(good, "PEND-1", "another run or number")
    f.need(f.uint(body, 4) in (1, 2, 3), "PEND-2", "unknown kind of run")
    for pin in f.field(body, 5, list):
        shape = type(pin) is list and len(pin) == 2 and fits(pin[0], 16) and fits(pin[1], 32)
        f.need(shape, "PEND-2", "a pin of another shape")
    f.field(body, 6, bool)
    f.need(all(fits(p, 32) for p in f.field(body, 7, list)), "CBOR-8", "a pack name of another length")
    f.need(type(body.get(8, {})) is dict, "PEND-2", "a checkpoint of another shape")
    return f.field(body, 3, bytes, 16)


def gear(avg):
    """8.1: table and masks."""
    stream = blake3(b"gear", key=f.derive("bulla 1 chunker", KEYRING.domain(0))).digest(length=8 * (256 + 46))
    words = struct.unpack("<302Q", stream)
    bits = list(range(16, 63))
    for i, word in zip(range(46, 0, -1), words[256:]):
        j = word % (i + 1)
        bits[i], bits[j] = bits[j], bits[i]
    log = avg.bit_length() - 1
    return words[:256], sum(1 << b for b in bits[: log + 2]), sum(1 << b for b in bits[: log - 2])


def cut(data, low, avg, high, table, small, large):
    """8.2: the length of the first chunk."""
    if len(data) <= low:
        return len(data)
    h = 0
    for i in range(low, min(len(data), high) & ~1):
        h = (h << 1) + table[data[i]] & 0xFFFFFFFFFFFFFFFF
        if not h & (small if i < avg else large):
            return i
    return min(len(data), high)


def read_chunker(given):
    low, avg, high, length = (int(given[k]) for k in ("min", "avg", "max", "length"))
    table, small, large = gear(avg)
    digest = blake3(struct.pack("<258Q", *table, small, large)).hexdigest()
    data, lengths = memoryview(blake3(given["seed"].encode()).digest(length=length)), []
    while data:
        lengths.append(cut(data, low, avg, high, table, small, large))
        data = data[lengths[-1] :]
    return {"gear-digest": digest, "lengths": " ".join(map(str, lengths))}


def integer(data, kind):
    r = f.Reader(data)
    value = {"varint": r.varint, "varint32": r.varint32, "zigzag": r.zigzag}[kind]()
    r.finish()
    return {"value": str(value)}


def read(kind, data, given):
    if kind in SIGNED:
        return read_signed(SIGNED[kind], data, given)
    if kind == "varint":
        return integer(data, given["type"])
    if kind == "cbor":
        return f.cbor(data) and {}
    if kind == "path":
        good = any(re.fullmatch(shape, given["path"]) for shape in SHAPES)
        return f.need(good, "NAME-1", "no object's path") or {}
    if kind == "chunker":
        return read_chunker(given)
    if kind == "signature":
        return {"body": f.verify(bytes.fromhex(given["public"]), "mark", REPO, data).hex()}
    if kind == "chunk":
        found = KEYRING.chunk_id(0, f.DATA if given["kind"] == "data" else f.META, data)
        return f.need(found.hex() == given["id"], "CHUNK-1", "another id") or {}
    if kind == "printed-key":
        return {"key": f.parse_printed_key(given["text"]).hex()}
    if kind == "slot":
        secret = {"passphrase": given.get("passphrase", "").encode()}
        if "key" in given:
            secret = {"key": bytes.fromhex(given["key"])}
        ring, key = f.open_slot(data, REPO, **secret)
        return {"ring": ring.hex(), "ring-key": key.hex()}
    if kind == "config":
        config = f.open_config(data, int(given["name"].split("/")[1], 16), RING_KEY)
        return {"repository": config.repo.hex(), "epochs": str(len(config.keyring.roots))}
    if kind == "frame":
        return {"hash": blake3(f.expand(data, int(given["length"]))).hexdigest()}
    if kind == "pack":
        return read_pack(data, given)
    if kind == "parity":
        return read_parity(data, given)
    if kind == "index":
        digest = given["name"].split("-")[-1]
        f.need(blake3(data).hexdigest() == digest, "NAME-2", "another name")
        return f.open_index(data, KEYRING, REPO, KEYRING.client_public) and {}
    plain = {"tree-node": t.decode_node, "list-node": t.decode_list, "xattrs": t.decode_xattrs}
    if kind in plain:
        return plain[kind](data) and {}
    if kind == "block":
        return {"block": t.decode_block(data).hex()}
    return t.decode_holes(data, int(given["size"])) and {}


def run(path):
    head, _, digits = path.read_text("utf-8").partition("\n\n")
    lines = [line.partition(": ") for line in head.split("\n")]
    header = {key: value for key, _, value in lines}
    given = {k[5:]: v for k, v in header.items() if k.startswith("with-")}
    data = bytes.fromhex("".join(digits.split())) * int(given.get("repeat", 1))
    try:
        found = read(header["object"], data, given)
    except f.Reject as e:
        found = e
    if header["expect"] == "reject":
        if not isinstance(found, f.Reject):
            return f"accepted against {header['rule']}"
        same = f"R-{found.tag}" == header["rule"] or (found.tag, header["rule"]) in EQUAL
        return "" if same else f"rejected, but for: {found}; not for {header['rule']}"
    if isinstance(found, f.Reject):
        return f"rejected: {found}"
    wrong = {k for k, v in found.items() if header[f"fact-{k}"] != v}
    return f"other facts: {wrong}" if wrong else ""


def main():
    folder = pathlib.Path(__file__).parent.parent / "repo-format" / "vectors"
    results = {p.name: run(p) for p in sorted(folder.glob("*.txt"))}
    failed = {n: r for n, r in results.items() if r}
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    print(f"{len(results) - len(failed)} vectors as they say, {len(failed)} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
