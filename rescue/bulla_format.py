"""Bytes to values of bulla repository format 1, from SPEC.md alone. Section numbers in comments are SPEC.md's."""

import hmac
import struct
import unicodedata
from collections import namedtuple

import nacl.bindings as nacl
import zstandard
from argon2.low_level import Type, hash_secret_raw
from blake3 import blake3

MAGIC = b"bulla\x01"
MIB = 1 << 20
DATA, META = 1, 2
TYPES = {"config": 1, "slot": 2, "pack": 3, "index": 4, "snapshot": 6, "death": 7, "mark": 8, "client": 10}
CONTEXTS = {1: "config", 4: "index run", 6: "snapshot", 7: "death", 8: "mark", 10: "client certificate"}


class Reject(Exception):
    """Bytes that a reader must reject; the tag of the rule comes first."""

    def __init__(self, tag, text):
        super().__init__(f"{text} [R-{tag}]")
        self.tag = tag


def need(holds, tag, text):
    if not holds:
        raise Reject(tag, text)


# 1 Conventions -----------------------------------------------------------------------------------------------------


class Reader:
    """Reads from bytes and never past their end."""

    def __init__(self, data, at=0):
        self.data, self.at = memoryview(data), at

    def left(self):
        return len(self.data) - self.at

    def take(self, n):
        need(n <= self.left(), "INT-3", "truncated")
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def u8(self):
        return self.take(1)[0]

    def u16(self):
        return int.from_bytes(self.take(2), "little")

    def u32(self):
        return int.from_bytes(self.take(4), "little")

    def u64(self):
        return int.from_bytes(self.take(8), "little")

    def varint(self):
        value = 0
        for i in range(10):
            byte = self.u8()
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                need(byte or i == 0, "INT-2", "varint not in its shortest form")
                need(value < 1 << 64, "INT-1", "varint above 2^64")
                return value
        raise Reject("INT-1", "varint longer than ten bytes")

    def varint32(self):
        value = self.varint()
        need(value < 1 << 32, "INT-5", "number above 2^32")
        return value

    def zigzag(self):
        value = self.varint()
        return (value >> 1) ^ -(value & 1)

    def prefixed(self, limit, tag):
        size = self.varint()
        need(size <= limit, tag, "a byte string is too long")
        return self.take(size)

    def finish(self):
        need(self.left() == 0, "INT-4", "trailing bytes")


def cbor(data):
    """The one value in `data`."""
    r = Reader(data)
    try:
        value = cbor_value(r, 0, [0])
    except Reject as e:
        raise Reject("CBOR-7", "truncated") if e.tag == "INT-3" else e
    need(r.left() == 0, "CBOR-5", "bytes behind the value")
    return value


def cbor_value(r, depth, met):
    need(depth <= 8, "CBOR-6", "nested too deep")
    met[0] += 1
    need(met[0] <= 2 << 20, "CBOR-9", "too many values")
    first = r.u8()
    major, info = first >> 5, first & 31
    if major == 7:
        need(info in (20, 21, 22), "CBOR-1", "float or simple value")
        return {20: False, 21: True, 22: None}[info]
    need(info < 28 and major != 6, "CBOR-1", "indefinite length or tag")
    n = info
    if info >= 24:
        size = 1 << (info - 24)
        n = int.from_bytes(r.take(size), "big")
        need(n >= (24 if size == 1 else 1 << (4 * size)), "CBOR-2", "not in its shortest form")
    if major == 0:
        return n
    if major == 1:
        return -1 - n
    need(n <= r.left(), "CBOR-7", "longer than its object")
    if major == 2:
        return r.take(n)
    if major == 3:
        try:
            return r.take(n).decode("utf-8")
        except UnicodeDecodeError:
            raise Reject("CBOR-4", "text is not UTF-8") from None
    if major == 4:
        return [cbor_value(r, depth + 1, met) for _ in range(n)]
    out, last = {}, -1
    for _ in range(n):
        key = cbor_value(r, depth + 1, met)
        good = isinstance(key, int) and not isinstance(key, bool) and key > last
        need(good, "CBOR-3", "map keys are not ascending unsigned integers")
        out[key], last = cbor_value(r, depth + 1, met), key
    return out


def field(body, key, kind, size=None, tag="CBOR-8"):
    """A required field: kind is int, bytes, str, bool or list; size the exact length of bytes."""
    value = body.get(key) if isinstance(body, dict) else None
    good = type(value) is kind and (size is None or len(value) == size)
    need(good, tag, f"field {key} is missing or of a wrong type")
    return value


def uint(body, key, bits=64, tag="CBOR-8"):
    value = field(body, key, int, tag=tag)
    need(0 <= value < 1 << bits, tag, f"field {key} is out of range")
    return value


# 2, 4 Primitives and keys ------------------------------------------------------------------------------------------


def derive(context, *parts, size=32):
    return blake3(b"".join(parts), derive_key_context=context).digest(length=size)


def keyed(key, data, size=32):
    return blake3(data, key=key).digest(length=size)


def xopen(key, nonce, aad, sealed, tag, text="does not authenticate"):
    try:
        return nacl.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, nonce, key)
    except Exception:
        raise Reject(tag, text) from None


def unpad(plain, tag):
    r = Reader(plain)
    need(r.left() >= 4, tag, "too short")
    size = r.u32()
    need(size <= r.left(), tag, "a length beyond the plaintext")
    body = r.take(size)
    need(not any(r.take(r.left())), tag, "padding is not zero")
    return body


def verify(public, context, repo, content):
    """Splits body and signature, and checks it (4.5). libsodium refuses small orders and large scalars itself."""
    need(len(content) >= 64, "SIG-1", "shorter than a signature")
    body, signature = content[:-64], content[-64:]
    context = context.encode()
    message = struct.pack("<Q", len(context)) + context + repo + blake3(body).digest()
    try:
        nacl.crypto_sign_open(signature + message, public)
    except Exception:
        raise Reject("SIG-1", f"the signature of a {context.decode()} does not verify") from None
    return body


class Keyring:
    def __init__(self, roots, domains):
        need(0 < len(roots) <= 65535 and 0 < len(domains) <= 65535, "CONFIG-7", "no secrets")
        self.roots, self.domains = roots, domains

    def root(self, epoch):
        need(epoch < len(self.roots), "KEY-1", "an epoch this config does not have")
        return self.roots[epoch]

    def domain(self, number):
        need(number < len(self.domains), "KEY-1", "a domain this config does not have")
        return self.domains[number]

    def envelope_key(self, epoch, kind):
        return derive("bulla 1 envelope key", self.root(epoch), bytes([kind]))

    def directory_key(self, epoch):
        return derive("bulla 1 pack directory key", self.root(epoch))

    def public(self, context, *parts):
        return nacl.crypto_sign_seed_keypair(derive(context, self.roots[0], *parts))[0]

    def client_public(self, client):
        return self.public("bulla 1 client sign", client)

    def admin_public(self):
        return self.public("bulla 1 admin sign")

    def chunk_id(self, domain, kind, plain):
        name = "data" if kind == DATA else "meta"
        return keyed(derive(f"bulla 1 chunk id {name}", self.domain(domain)), plain)

    def body_hash(self, body):
        return keyed(derive("bulla 1 body hash", self.roots[0]), body)


# 5 Config and slots ------------------------------------------------------------------------------------------------

Config = namedtuple("Config", "generation previous repo ring keyring")


def config_stanza(data):
    """Repository and ring id; not authenticated."""
    _, stanza, _ = envelope_header(data, 1)
    return stanza[:32], stanza[32:]


def open_config(data, generation, ring_key):
    repo, ring = config_stanza(data)
    body = open_envelope(data, 1, repo, lambda _: ring_key)
    need(len(body) >= 64, "SIG-1", "shorter than a signature")
    fields = cbor(body[:-64])
    secrets = []
    for key in (5, 6):
        for secret in field(fields, key, list):
            need(type(secret) is bytes and len(secret) == 32, "CONFIG-7", "a secret is not 32 bytes")
        secrets.append(fields[key])
    keyring = Keyring(*secrets)
    verify(keyring.admin_public(), "config", repo, body)
    inside = (field(fields, 3, bytes, 32), field(fields, 4, bytes, 16))
    need(inside == (repo, ring), "CONFIG-1", "names another repository or ring inside")
    need(uint(fields, 1, 32) == generation, "CONFIG-2", "lies under another generation's name")
    previous = field(fields, 2, bytes, 32) if 2 in fields else None
    need((previous is None) == (generation == 0), "CONFIG-3", "does not name its predecessor")
    flags = [uint(fields, key) for key in (7, 8, 9)]
    need(flags[0] == 0, "CONFIG-4", "uses features this reader does not know")
    check_chunker(field(fields, 10, dict))
    for key in (11, 12):
        need(4096 <= uint(fields, key, 32) <= 8 * MIB, "CONFIG-6", "frame size out of range")
    for key in (13, 14):
        need(64 << 10 <= uint(fields, key) <= 1 << 30, "CONFIG-6", "pack size out of range")
    field(fields, 15, int)
    need(16 not in fields or 1 <= uint(fields, 16) <= 100, "CBOR-8", "parity is no share in per cent")
    return Config(generation, previous, repo, ring, keyring)


def check_chunker(fields):
    kind, low, avg, high = (uint(fields, k, 32) for k in (1, 2, 3, 4))
    shape = low % 2 == high % 2 == 0 and avg & (avg - 1) == 0 and 256 <= avg <= 4 * MIB
    need(kind == 1 and 64 <= low < avg < high <= 8 * MIB and shape, "CONFIG-5", "unknown chunker or sizes")


def normalise(passphrase):
    try:
        return unicodedata.normalize("NFC", passphrase.decode("utf-8")).encode()
    except UnicodeDecodeError:
        return passphrase


def open_slot(data, repo, passphrase=None, key=None):
    """Ring id and ring key; None if the slot wants a secret of another kind."""
    need(len(data) == 414, "SLOT-1", "a key slot of another length")
    need(data[:8] == MAGIC + b"\x02\x01", "SLOT-2", "not a key slot of format 1")
    kind, zero, memory, passes, lanes = struct.unpack("<BBIII", data[8:22])
    need(kind in (1, 2, 3) and zero == 0, "SLOT-3", "unknown kind of slot")
    salt, commitment, nonce = data[22:54], data[54:86], data[86:110]
    checksum = blake3(data[:382]).digest() == data[382:]
    if kind == 1:
        good = memory <= 1 << 20 and 0 < passes <= 64 and 0 < lanes <= 16
        need(good, "SLOT-4", "Argon2 parameters out of bounds")
        need(checksum, "SLOT-9", "a damaged slot")
        if passphrase is None:
            return None
        secret = normalise(passphrase)
        out = hash_secret_raw(secret, salt, passes, memory, lanes, 64, Type.ID, 0x13)
    else:
        need((memory, passes, lanes) == (0, 0, 0), "SLOT-4", "Argon2 parameters in a slot without Argon2")
        need(checksum, "SLOT-9", "a damaged slot")
        if key is None:
            return None
        out = derive("bulla 1 slot key", bytes([kind]), salt, key, size=64)
    need(hmac.compare_digest(out[32:], commitment), "SLOT-5", "the secret does not fit")
    plain = xopen(out[:32], nonce, data[:86] + repo, data[110:382], "SLOT-6", "a slot was altered")
    try:
        fields = cbor(unpad(plain, "SLOT-7"))
        field(fields, 3, str), field(fields, 4, int)
        return field(fields, 1, bytes, 16), field(fields, 2, bytes, 32)
    except Reject as e:
        raise Reject("SLOT-7", str(e)) from None


def parse_printed_key(text):
    clean = "".join(text.split()).replace("-", "").upper()
    need(clean.startswith("BULLA1"), "PRINT-1", "a printed key starts with BULLA1")
    digits = clean[6:].translate(str.maketrans("OIL", "011"))
    alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    need(all(c in alphabet for c in digits), "PRINT-2", "a character that no key has")
    need(len(digits) == 56, "PRINT-3", "a printed key has 8 groups of 7 characters")
    number = 0
    for c in digits:
        number = number << 5 | alphabet.index(c)
    data = number.to_bytes(35, "big")
    checksum = derive("bulla 1 printed key checksum", data[:32])[:3]
    need(checksum == data[32:], "PRINT-4", "its checksum does not fit: a character is mistyped")
    return data[:32]


# 6 Envelope --------------------------------------------------------------------------------------------------------


def envelope_header(data, kind):
    """Epoch, stanza, length of the header."""
    r = Reader(data)
    need(r.take(6) == MAGIC, "ENV-1", "not an object of bulla format 1")
    need(r.u8() == kind, "NAME-3", "an object of another type lies under this name")
    need(r.u8() == 1, "ENV-1", "another suite")
    epoch, stanza_type, size = r.u16(), r.u16(), r.u16()
    ring = kind == 1
    good = (stanza_type, size) == ((2, 48) if ring else (0, 0)) and not (ring and epoch)
    need(good, "ENV-2", "unknown key stanza")
    return epoch, r.take(size), r.at


def open_envelope(data, kind, repo, key):
    limit = 192 * MIB if kind == 4 else 64 * MIB
    need(len(data) <= limit, "ENV-5", "too long")
    epoch, _, size = envelope_header(data, kind)
    aad = data[:size] + repo
    plain = xopen(key(epoch), data[size : size + 24], aad, data[size + 24 :], "ENV-3")
    return unpad(plain, "ENV-4")


# 7 Packs -----------------------------------------------------------------------------------------------------------

PackHeader = namedtuple("PackHeader", "kind epoch domain salt commitment raw")
Directory = namedtuple("Directory", "header run signer frames chunks hash end")


def pack_header(raw):
    r = Reader(raw)
    need(r.take(6) == MAGIC, "PACK-1", "not an object of bulla format 1")
    need(r.u8() == 3, "NAME-3", "not a pack")
    need(r.u8() == 1, "PACK-1", "another suite")
    kind, zero, epoch, domain, zeros = r.u8(), r.u8(), r.u16(), r.u16(), r.u16()
    salt, commitment, stanza = r.take(32), r.take(32), r.u32()
    need(kind in (DATA, META) and (zero, zeros, stanza) == (0, 0, 0), "PACK-2", "unknown kind or reserved bytes")
    return PackHeader(kind, epoch, domain, salt, commitment, bytes(raw[:84]))


def frame_key(header, keyring, repo):
    name = "data" if header.kind == DATA else "meta"
    secret = derive(f"bulla 1 pack {name}", keyring.root(header.epoch), header.salt)
    zeroed = header.raw[:48] + bytes(32) + header.raw[80:]
    out = keyed(secret, b"frames" + repo + zeroed, 64)
    need(hmac.compare_digest(out[32:], header.commitment), "PACK-3", "a pack's commitment differs")
    return out[:32]


def open_frame(key, index, sealed, size):
    nonce = struct.pack("<I", index) + bytes(8)
    try:
        opened = nacl.crypto_aead_chacha20poly1305_ietf_decrypt(sealed, b"", nonce, key)
    except Exception:
        raise Reject("FRAME-1", "a frame does not authenticate") from None
    return expand(opened, size)


def expand(opened, size):
    need(opened, "INT-3", "an empty frame")
    codec, payload = opened[0], opened[1:]
    need(codec in (0, 1, 0xFF), "FRAME-2", "unknown codec")
    need((codec == 0xFF) == (size == 0), "FRAME-4", "padding with plain bytes, or none without")
    if codec == 0xFF:
        need(not any(payload), "FRAME-4", "padding is not zero")
        return b""
    if codec == 0:
        need(len(payload) == size, "FRAME-3", "length differs from its table")
        return payload
    need(payload[:4] == b"\x28\xb5\x2f\xfd" and len(payload) > 6, "FRAME-5", "not a zstd frame")
    need(payload[4] & 0b1011 == 0 and payload[4] & 0xE0, "FRAME-5", "dictionary, reserved bits or no content size")
    try:
        found = zstandard.get_frame_parameters(payload)
        need(found.window_size <= 8 * MIB, "FRAME-5", "a window above 8 MiB")
        need(found.content_size == size, "FRAME-3", "content size differs from its table")
        stream = zstandard.ZstdDecompressor().decompressobj()
        plain = stream.decompress(payload)
    except zstandard.ZstdError:
        raise Reject("FRAME-5", "zstd cannot expand it") from None
    need(stream.eof and not stream.unused_data, "FRAME-5", "not exactly one zstd frame")
    need(len(plain) == size, "FRAME-3", "length differs from its table")
    return plain


def check_frames(frames, end):
    """Frames tile the object from byte 84 to `end`; returns the length of the plain stream."""
    for i, (sealed, raw) in enumerate(frames):
        good = 17 <= sealed <= 8 * MIB + 17 and raw <= 8 * MIB and (raw or i + 1 == len(frames))
        need(good, "DIR-3", "a frame's lengths are out of bounds")
    plain, total = sum(f[1] for f in frames), 84 + sum(f[0] for f in frames)
    need(plain <= (2 << 30) + 8 * MIB and total <= (2 << 30) + 64 * MIB, "DIR-3", "a pack is too large")
    need(total == end, "DIR-3", "frames do not end where the directory starts")
    return plain


def open_directory(read, size, keyring, repo, signer_public):
    """The directory of a pack of `size` bytes, whose bytes from a to b are `read(a, b)`."""
    need(size >= 84 + 136, "PACK-4", "shorter than header and trailer")
    tail = read(size - 136, size)
    header = pack_header(tail)
    key, aad = keyring.directory_key(header.epoch), header.raw + repo
    locator = Reader(xopen(key, tail[84:108], aad + b"trailer", tail[108:], "PACK-4"))
    end, length = locator.u64(), locator.u32()
    locator.finish()
    good = end >= 84 and length <= 192 * MIB and end + length + 136 == size
    need(good, "PACK-5", "the trailer does not point at the directory")
    sealed = read(end, end + length)
    plain = xopen(key, sealed[:24], aad, sealed[24:], "DIR-1")
    need(len(plain) % 4096 == 0, "DIR-1", "not padded to 4 KiB")
    content = unpad(plain, "DIR-1")
    need(len(content) >= 64, "SIG-1", "shorter than a signature")
    r = Reader(content[:-64])
    need(r.left() >= 40, "DIR-2", "too short")
    run, signer, f, c = r.take(16), r.take(16), r.u32(), r.u32()
    good = f <= 1 << 16 and c <= 1 << 22 and r.left() == 8 * f + 36 * c + 32
    need(good, "DIR-2", "counts do not fit its length")
    frames = [(r.u32(), r.u32()) for _ in range(f)]
    chunks = [(r.take(32), r.u32()) for _ in range(c)]
    digest = r.take(32)
    verify(signer_public(signer), "pack directory", repo, content)
    plain = check_frames(frames, end)
    good = all(0 < n <= 8 * MIB for _, n in chunks) and sum(n for _, n in chunks) == plain
    need(good, "DIR-4", "chunks do not tile the frames")
    return Directory(header, run, signer, frames, chunks, digest, end)


# 10 Index runs -----------------------------------------------------------------------------------------------------

IndexPack = namedtuple("IndexPack", "name size header frames")
IndexRun = namedtuple("IndexRun", "signer packs records")


def open_index(data, keyring, repo, signer_public):
    content = open_envelope(data, 4, repo, lambda epoch: keyring.envelope_key(epoch, 4))
    need(len(content) >= 64, "SIG-1", "shorter than a signature")
    r = Reader(content[:-64])
    signer, inputs, graves, packs, records = r.take(16), r.u32(), r.u32(), r.u32(), r.u32()
    good = max(inputs, graves, packs) <= 1 << 20 and records <= 1 << 19
    need(good, "INDEX-1", "too many of something")
    r.take(36 * inputs + 32 * graves)
    table = [index_pack(r) for _ in range(packs)]
    need(r.left() == 32 * records, "INDEX-1", "counts do not fit its length")
    rows, last = r.take(32 * records), None
    plain = [sum(f[1] for f in p.frames) for p in table]
    for at in range(0, len(rows), 32):
        pack, offset, length = struct.unpack_from("<III", rows, at + 20)
        good = pack < packs and 0 < length <= 8 * MIB and offset + length <= plain[pack]
        need(good, "INDEX-3", "a record points outside its pack")
        row = (rows[at : at + 20], pack, offset, length)
        need(last is None or last < row, "INDEX-4", "records are not ascending")
        last = row
    verify(signer_public(signer), "index run", repo, content)
    return IndexRun(signer, table, rows)


def index_pack(r):
    name, size = r.take(32), r.u64()
    r.take(32)
    try:
        header = pack_header(r.take(84))
        count = r.u32()
        need(count <= 1 << 16, "INDEX-2", "too many frames")
        frames = [(r.u32(), r.u32()) for _ in range(count)]
        end = 84 + sum(f[0] for f in frames)
        check_frames(frames, end)
    except Reject as e:
        raise Reject("INDEX-2", str(e)) from None
    need(end < size <= (2 << 30) + 64 * MIB, "INDEX-2", "frames reach beyond their pack")
    return IndexPack(name, size, header, frames)
