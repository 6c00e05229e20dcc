//! Cases of the alphabet: integers, CBOR, paths, signatures, chunks, printed keys, cut points, frames.

use crate::file::Vector;
use crate::keys::{REPO, client, keyring};
use bulla_repo_format::id::to_hex;
use bulla_repo_format::keys::{ChunkKind, Secret};
use bulla_repo_format::slot::print_key;

pub(crate) fn cases() -> Vec<Vector> {
    [integers(), cbor(), paths(), signatures(), chunks(), printed(), cuts(), frames()].concat()
}

fn integers() -> Vec<Vector> {
    let ok = |ty: &str, case: &str, bytes: &[u8]| {
        Vector::ok("varint", case, "its value is the fact", bytes).with("type", ty)
    };
    let no = |rule: &str, ty: &str, case: &str, note: &str, bytes: &[u8]| {
        Vector::reject("varint", rule, case, note, bytes).with("type", ty)
    };
    let max = [&[0xff; 9][..], &[1]].concat();
    vec![
        ok("varint", "zero", &[0]),
        ok("varint", "300", &[0xac, 2]),
        ok("varint", "max", &max),
        ok("varint32", "max32", &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ok("zigzag", "minus-one", &[1]),
        ok("zigzag", "min", &max),
        no("R-INT-1", "varint", "too-large", "2^64", &[&[0x80; 9][..], &[2]].concat()),
        no("R-INT-1", "varint", "too-long", "eleven bytes", &[&[0x80; 10][..], &[1]].concat()),
        no("R-INT-2", "varint", "padded", "0 in two bytes", &[0x80, 0]),
        no("R-INT-3", "varint", "truncated", "the second byte is missing", &[0x80]),
        no("R-INT-4", "varint", "trailing", "a byte behind it", &[1, 0]),
        no("R-INT-5", "varint32", "above-32", "2^32", &[0x80, 0x80, 0x80, 0x80, 0x10]),
    ]
}

fn cbor() -> Vec<Vector> {
    let ok = |case: &str, bytes: &[u8]| Vector::ok("cbor", case, "diagnostic notation in the fact", bytes);
    let no =
        |rule: &str, case: &str, note: &str, bytes: &[u8]| Vector::reject("cbor", rule, case, note, bytes);
    let deep = |n: usize| [&vec![0x81; n][..], &[0]].concat();
    vec![
        ok("map", &[0xa3, 0x01, 0x18, 0x18, 0x02, 0x42, 0xab, 0xcd, 0x18, 0x20, 0x82, 0xf5, 0xf6]),
        ok("negative", &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        ok("text", &[0x64, b'g', 0xc3, 0xbc, b'n']),
        ok("deep", &deep(8)),
        no("R-CBOR-1", "indefinite", "an indefinite array", &[0x9f, 0xff]),
        no("R-CBOR-1", "tag", "tag 0", &[0xc0, 0x00]),
        no("R-CBOR-1", "float", "a half float", &[0xf9, 0x00, 0x00]),
        no("R-CBOR-1", "undefined", "the simple value undefined", &[0xf7]),
        no("R-CBOR-2", "number", "23 in two bytes", &[0x18, 0x17]),
        no("R-CBOR-2", "length", "a length of 1 in three bytes", &[0x59, 0x00, 0x01, 0x61]),
        no("R-CBOR-3", "twice", "key 1 twice", &[0xa2, 0x01, 0x00, 0x01, 0x00]),
        no("R-CBOR-3", "order", "keys descending", &[0xa2, 0x02, 0x00, 0x01, 0x00]),
        no("R-CBOR-3", "text-key", "a key that is text", &[0xa1, 0x61, 0x61, 0x00]),
        no("R-CBOR-4", "utf8", "not UTF-8", &[0x61, 0xff]),
        no("R-CBOR-5", "trailing", "a byte behind the value", &[0x00, 0x00]),
        no("R-CBOR-6", "deep", "nine arrays", &deep(9)),
        no("R-CBOR-7", "count", "2^64 - 1 elements", &[&[0x9b][..], &[0xff; 8]].concat()),
        no("R-CBOR-7", "bytes", "5 bytes, 1 there", &[0x45, 0x00]),
    ]
}

fn paths() -> Vec<Vector> {
    let (id, hash) = ("0a".repeat(16), "0b".repeat(32));
    let good = [
        ("config", "config/0000000f".to_owned()),
        ("slot", format!("keys/{id}")),
        ("pack", format!("packs/{hash}")),
        ("meta", format!("meta/{hash}")),
        ("parity", format!("parity/{hash}")),
        ("index", format!("index/00000001-{hash}")),
        ("announcement", format!("pend/{id}.00000002")),
        ("record", format!("records/{id}.0000000000000003")),
    ];
    let bad = [
        ("upper-case", format!("keys/{}", id.to_uppercase())),
        ("deeper", format!("packs/0b/{hash}")),
        ("generation", "config/1".to_owned()),
        ("short", format!("snap/{}", &id[1..])),
        ("area", format!("tmp/{id}")),
    ];
    let ok = good.map(|(case, path)| Vector::ok("path", case, "an object's name", []).with("path", path));
    let no = bad.map(|(case, path)| {
        Vector::reject("path", "R-NAME-1", case, "no object's name", []).with("path", path)
    });
    ok.into_iter().chain(no).collect()
}

fn signatures() -> Vec<Vector> {
    let key = client();
    let good = [b"body".as_slice(), &key.sign("mark", &REPO, b"body")].concat();
    let other = [b"body".as_slice(), &key.sign("hold", &REPO, b"body")].concat();
    // The neutral element as key and as R, S = 0: the equation holds for every message.
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let small = [b"body".as_slice(), &neutral, &[0; 32]].concat();
    // S + l, the group order, little-endian: the same scalar in another spelling.
    let order = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10u8,
    ];
    let mut large = good.clone();
    large[36..].iter_mut().zip(order).fold(0u16, |carry, (s, l)| {
        let sum = u16::from(*s) + u16::from(l) + carry;
        *s = sum as u8;
        sum >> 8
    });
    let public = to_hex(&key.public());
    let no = |rule: &str, case: &str, note: &str, bytes: Vec<u8>, public: &str| {
        Vector::reject("signature", rule, case, note, bytes).with("context", "mark").with("public", public)
    };
    vec![
        Vector::ok("signature", "mark", "body and signature", good)
            .with("context", "mark")
            .with("public", &public),
        no("R-SIG-1", "context", "made for another context", other, &public),
        no("R-SIG-1", "short", "shorter than a signature", vec![0; 63], &public),
        no("R-SIG-2", "small-order", "a key of small order", small, &to_hex(&neutral)),
        no("R-SIG-2", "scalar", "S not below the group order", large, &public),
    ]
}

fn chunks() -> Vec<Vector> {
    let id = |kind| keyring().id_key(0, kind).unwrap().identify(b"chunk");
    let (data, meta) = (id(ChunkKind::Data), id(ChunkKind::Meta));
    let as_data = |v: Vector| v.with("domain", 0).with("kind", "data");
    vec![
        as_data(Vector::ok("chunk", "data", "a data chunk and its id", b"chunk")).with("id", data),
        Vector::ok("chunk", "meta", "a metadata chunk and its id", b"chunk")
            .with("domain", 0)
            .with("kind", "meta")
            .with("id", meta),
        as_data(Vector::reject("chunk", "R-CHUNK-1", "kind", "a metadata id asked for as data", b"chunk"))
            .with("id", meta),
        as_data(Vector::reject("chunk", "R-CHUNK-1", "bytes", "other bytes", b"chunks")).with("id", data),
    ]
}

fn printed() -> Vec<Vector> {
    let key = Secret::new(*blake3::hash(b"printed").as_bytes());
    let text = print_key(&key).to_string();
    let sloppy = text.to_lowercase().replace('-', " ").replacen('0', "o", 1);
    let sloppy = sloppy[..7].to_owned() + &sloppy[7..].replace('1', "l");
    let last = if text.ends_with('0') { "1" } else { "0" };
    let slip = text[..text.len() - 1].to_owned() + last;
    let ok = |case: &str, text: &str| {
        Vector::ok("printed-key", case, "its bytes are the fact", []).with("text", text)
    };
    let no = |rule: &str, case: &str, note: &str, text: &str| {
        Vector::reject("printed-key", rule, case, note, []).with("text", text)
    };
    vec![
        ok("plain", &text),
        ok("sloppy", &sloppy),
        no("R-PRINT-1", "prefix", "no BULLA1", &text[7..]),
        no("R-PRINT-2", "digit", "U is no digit", &format!("{}U{}", &text[..8], &text[9..])),
        no("R-PRINT-3", "long", "57 digits", &format!("{text}0")),
        no("R-PRINT-3", "short", "55 digits", &text[..text.len() - 1]),
        no("R-PRINT-4", "slip", "the last digit differs", &slip),
    ]
}

fn cuts() -> Vec<Vector> {
    let make = |case: &str, seed: &str, length: u32, [min, avg, max]: [u32; 3]| {
        Vector::ok("chunker", case, "chunk lengths of hash(seed)'s XOF, table and masks: frozen", [])
            .with("seed", seed)
            .with("length", length)
            .with("min", min)
            .with("avg", avg)
            .with("max", max)
    };
    vec![
        make("default", "bulla", 5_000_000, [32 << 10, 128 << 10, 512 << 10]),
        make("small", "bulla", 20_001, [64, 256, 1024]),
        make("odd-end", "odd", 63, [64, 256, 1024]),
    ]
}

fn frames() -> Vec<Vector> {
    let text = b"frame ".repeat(50);
    let zstd = [&[1][..], &zstd::bulk::compress(&text, 3).unwrap()].concat();
    // Descriptor without a content size, a window of 1 KiB, one last raw block.
    let block = (300u32 << 3 | 1).to_le_bytes();
    let sizeless = [&[1, 0x28, 0xb5, 0x2f, 0xfd, 0, 0][..], &block[..3], &text].concat();
    let two = [&zstd[..], &zstd::bulk::compress(b"", 3).unwrap()].concat();
    // Descriptor with a one-byte dictionary id; and a window of 16 MiB with a content size of four bytes.
    let dictionary = [&[1, 0x28, 0xb5, 0x2f, 0xfd, 0x21, 7][..], &[44, 1, 0, 0]].concat();
    let window =
        [&[1, 0x28, 0xb5, 0x2f, 0xfd, 0x80, 14 << 3][..], &300u32.to_le_bytes(), &[1, 0, 0]].concat();
    let ok = |case: &str, len: u32, bytes: &[u8]| {
        Vector::ok("frame", case, "an opened frame; hash of its plain bytes", bytes).with("length", len)
    };
    let no = |rule: &str, case: &str, note: &str, len: u32, bytes: &[u8]| {
        Vector::reject("frame", rule, case, note, bytes).with("length", len)
    };
    vec![
        ok("raw", 5, b"\0plain"),
        ok("zstd", 300, &zstd),
        ok("padding", 0, &[0xff, 0, 0, 0]),
        no("R-FRAME-2", "dictionary-codec", "codec 2", 5, b"\x02plain"),
        no("R-FRAME-2", "unknown", "codec 3", 5, b"\x03plain"),
        no("R-FRAME-3", "raw", "one byte more than the table says", 4, b"\0plain"),
        no("R-FRAME-3", "zstd", "one byte less than the table says", 301, &zstd),
        no("R-FRAME-4", "plain", "padding with a plain length", 3, &[0xff, 0, 0, 0]),
        no("R-FRAME-4", "nonzero", "padding that is not zero", 0, &[0xff, 0, 1, 0]),
        no("R-FRAME-4", "empty", "no plain bytes, codec 0", 0, &[0]),
        no("R-FRAME-5", "no-size", "no content size", 300, &sizeless),
        no("R-FRAME-5", "two", "a second zstd frame", 300, &two),
        no("R-FRAME-5", "dictionary-id", "a dictionary id", 300, &dictionary),
        no("R-FRAME-5", "window", "a window of 16 MiB", 300, &window),
        no("R-FRAME-5", "not-zstd", "no zstd frame", 5, b"\x01plain"),
    ]
}
