"""Runs the rescue reader over repo-format/vectors: `python test_vectors.py`. A reject must fail for the rule it names."""

import pathlib
import sys

from blake3 import blake3

import bulla_format as f
import bulla_tree as t

REPO = b"\x41" * 32
KEYRING = f.Keyring([b"\x11" * 32, b"\x12" * 32], [b"\x21" * 32])
RING_KEY = b"\x31" * 32
# What a reader of files never meets.
SKIPPED = {"announcement", "chunker", "hold", "path"}
SIGNED = {"verdict": 6, "death": 7, "mark": 8, "certificate": 10}


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


def read_signed(kind, data, given):
    content = f.open_envelope(data, kind, REPO, lambda e: KEYRING.envelope_key(e, kind))
    f.need(len(content) >= 64, "SIG-1", "too short")
    body = f.cbor(content[:-64])
    name = bytes.fromhex(given["name"].split("/")[-1])
    if kind == 6:
        import bulla_rescue

        bulla_rescue.check_verdict(body, name)
        client = f.field(body, 3, bytes, 16)
    else:
        tag = {7: "GONE-1", 8: "MARK-1", 10: "CERT-1"}[kind]
        f.need(f.field(body, 1, bytes, 16) == name, tag, "another name")
        client = body[2]
    if kind == 7:
        f.need(KEYRING.body_hash(body[4]) == body[3], "GONE-2", "another body")
    if kind == 10:
        f.need(f.uint(body, 3) < 16, "CERT-2", "unknown capability")
    public = KEYRING.admin_public() if kind == 10 else KEYRING.client_public(client)
    f.verify(public, f.CONTEXTS[kind], REPO, content)
    return {}


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
    if header["object"] in SKIPPED:
        return "skipped"
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


# libsodium does not say which of two things is wrong with a signature; a certificate signs itself wrongly in one way.
EQUAL = {("SIG-1", "R-SIG-2"), ("SIG-1", "R-TRUST-2")}


def main():
    folder = pathlib.Path(__file__).parent.parent / "repo-format" / "vectors"
    results = {p.name: run(p) for p in sorted(folder.glob("*.txt"))}
    failed = {n: r for n, r in results.items() if r not in ("", "skipped")}
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    skipped = sum(r == "skipped" for r in results.values())
    print(f"{len(results) - len(failed) - skipped} vectors as they say, {skipped} skipped, {len(failed)} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
