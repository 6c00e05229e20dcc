//! Whole packs: read as a third-party reader would, from the tail, and the cases that spoil each part.

use crate::decode::{Facts, bad};
use crate::file::Vector;
use crate::keys::{REPO, client, client_id, keyring, signed, xseal};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::frame::Expander;
use bulla_repo_format::keys::ChunkKind;
use bulla_repo_format::pack::*;
use bulla_repo_format::*;

pub(crate) fn decode(v: &Vector) -> Result<Facts> {
    let (ring, bytes) = (keyring(), &v.bytes[..]);
    if let Some((_, name)) = v.with.iter().find(|(k, _)| k == "name") {
        let Some(ObjectName::Pack(name)) = ObjectName::parse(name) else { panic!("{}", v.name) };
        if blake3::hash(bytes).as_bytes() != name.as_bytes() {
            return Err(bad("another name"));
        }
    }
    let at = bytes.len().checked_sub(TRAILER_LEN).ok_or(bad("shorter than a trailer"))?;
    let header = PackHeader::decode(bytes)?;
    let trailer = Trailer::open(&bytes[at..], bytes.len() as u64, &ring, &REPO)?;
    if header != trailer.header {
        return Err(bad("header and trailer differ"));
    }
    let key = header.open(&ring, &REPO)?;
    let verify = |id: &ClientId, body: &[u8], sig: &[u8; 64]| {
        ring.client_key(id).verify("pack directory", &REPO, body, sig)
    };
    let end = trailer.offset as usize;
    let (directory, hash) = Directory::open(&header, &bytes[end..at], trailer.offset, &ring, &REPO, verify)?;
    if *blake3::hash(&bytes[..end]).as_bytes() != hash {
        return Err(bad("bytes before the directory differ"));
    }
    let (mut at, mut stream, mut raw) = (HEADER_LEN, Vec::new(), Vec::new());
    for (i, f) in directory.frames.iter().enumerate() {
        let mut sealed = bytes[at..at + f.sealed as usize].to_vec();
        Expander::new().expand(key.open(i as u32, &mut sealed)?, f.raw, &mut raw)?;
        stream.extend(&raw);
        at += sealed.len();
    }
    let kind = if header.kind == PackKind::Data { ChunkKind::Data } else { ChunkKind::Meta };
    let (ids, mut at) = (ring.id_key(header.domain, kind)?, 0);
    for c in &directory.chunks {
        let end = at + c.len as usize;
        if ids.identify(&stream[at..end]) != c.id {
            return Err(bad("a chunk has another id"));
        }
        at = end;
    }
    let facts = [("header", format!("{header:?}")), ("directory", format!("{directory:?}"))];
    let stream = [("stream", id::to_hex(&stream))];
    Ok(facts.into_iter().chain(stream).map(|(k, v)| (k.to_owned(), v)).collect())
}

/// A pack under construction; cases change it before it is sealed.
struct Pack {
    kind: PackKind,
    /// `codec ‖ payload`, before sealing.
    frames: Vec<Vec<u8>>,
    directory: Directory,
    nonce_shift: u32,
    /// Content hash and directory offset as the directory tells them, if not the true ones.
    lie_hash: Option<[u8; 32]>,
    signer: keys::ClientKey,
}

impl Pack {
    fn new(kind: PackKind, chunks: &[&[u8]]) -> Self {
        let stream = chunks.concat();
        let half = stream.len() / 2;
        let raw = [&[0][..], &stream[..half]].concat();
        let zstd = [&[1][..], &zstd::bulk::compress(&stream[half..], 3).unwrap()].concat();
        let frames = vec![raw, zstd, vec![0xff; 1].into_iter().chain([0; 20]).collect()];
        let lens = [half as u32, (stream.len() - half) as u32, 0];
        let table = frames.iter().zip(lens);
        let table = table.map(|(f, raw)| FrameEntry { sealed: f.len() as u32 + 16, raw }).collect();
        let id_kind = if kind == PackKind::Data { ChunkKind::Data } else { ChunkKind::Meta };
        let ids = keyring().id_key(0, id_kind).unwrap();
        let chunks = chunks.iter().map(|c| ChunkEntry { id: ids.identify(c), len: c.len() as u32 });
        let directory = Directory {
            run: RunId::new([0x61; 16]),
            signer: client_id(),
            frames: table,
            chunks: chunks.collect(),
        };
        Self { kind, frames, directory, nonce_shift: 0, lie_hash: None, signer: client() }
    }

    fn data() -> Self {
        Self::new(PackKind::Data, &[b"the first chunk", &[7; 200], b"x"])
    }

    fn seal(self) -> Vec<u8> {
        let ring = keyring();
        let salt = self.directory.salt(&[0x71; 32]);
        let (header, key) = PackHeader::create(self.kind, &ring, &REPO, salt).unwrap();
        let mut out = header.encode().to_vec();
        for (i, frame) in self.frames.into_iter().enumerate() {
            let mut frame = frame;
            frame.resize(frame.len() + 16, 0);
            key.seal(i as u32 ^ self.nonce_shift, &mut frame).unwrap();
            out.extend(frame);
        }
        let hash = self.lie_hash.unwrap_or(*blake3::hash(&out).as_bytes());
        let at = out.len() as u64;
        out.extend(self.directory.seal(&header, &hash, at, &ring, &REPO, &self.signer, &[0x72; 64]).unwrap());
        out
    }
}

fn made(rule: &str, case: &str, note: &str, change: impl FnOnce(&mut Pack)) -> Vector {
    let mut pack = Pack::data();
    change(&mut pack);
    Vector::reject("pack", rule, case, note, pack.seal())
}

fn spoiled(rule: &str, case: &str, note: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
    let mut bytes = Pack::data().seal();
    change(&mut bytes);
    Vector::reject("pack", rule, case, note, bytes)
}

/// Changes both copies of the header.
fn header_byte(at: usize, value: u8) -> impl FnOnce(&mut Vec<u8>) {
    move |b| {
        let end = b.len() - TRAILER_LEN;
        b[at] = value;
        b[end + at] = value;
    }
}

pub(crate) fn cases() -> Vec<Vector> {
    let data = Pack::data().seal();
    let name = ObjectName::Pack(PackName::new(*blake3::hash(&data).as_bytes()));
    let other = ObjectName::Pack(PackName::new([0xab; 32]));
    let mut all = vec![
        Vector::ok("pack", "data", "three chunks, a raw frame, a zstd frame, padding", data.clone())
            .with("name", name),
        Vector::ok("pack", "meta", "the empty tree", Pack::new(PackKind::Meta, &[b"\x01\x00"]).seal()),
        Vector::reject("pack", "R-NAME-2", "name", "bytes under another name", data).with("name", other),
    ];
    all.push(raw_directory("", "by-hand", "directory and trailer sealed by hand", |_| ()));
    all.push(raw_directory("R-DIR-2", "short", "a byte missing at the end of the body", |b| {
        drop(b.split_off(b.len() - 1))
    }));
    all.push(raw_directory("R-DIR-2", "frames", "2^16 + 1 frames", |b| {
        b[32..36].copy_from_slice(&[1, 0, 1, 0])
    }));
    all.push(raw_directory("R-DIR-2", "chunks", "one chunk more than there is", |b| b[36] += 1));
    all.extend(outside());
    all.extend(inside());
    all
}

fn outside() -> Vec<Vector> {
    vec![
        spoiled("R-PACK-1", "version", "format version 2", header_byte(5, 2)),
        spoiled("R-PACK-1", "suite", "suite 2", header_byte(7, 2)),
        spoiled("R-NAME-3", "type", "an index run's type byte", header_byte(6, 4)),
        spoiled("R-PACK-2", "kind", "kind 3", header_byte(8, 3)),
        spoiled("R-PACK-2", "reserved", "byte 9 is one", header_byte(9, 1)),
        spoiled("R-PACK-2", "stanza", "stanza type 1", header_byte(80, 1)),
        spoiled("R-KEY-1", "epoch", "an epoch the config does not have", header_byte(10, 9)),
        made("R-KEY-1", "domain", "sealed right, but the header names domain 1", |_| ()).domain(),
        made("R-PACK-3", "commitment", "everything sealed over a header with another commitment", |_| ())
            .commitment(),
        spoiled("R-PACK-4", "trailer", "the last bit flipped", |b| *b.last_mut().unwrap() ^= 1),
        spoiled("R-PACK-4", "short", "only the last 135 bytes", |b| drop(b.drain(..b.len() - 135))),
        spoiled("R-PACK-5", "longer", "a byte between header and trailer more", |b| b.insert(100, 0)),
        spoiled("R-PACK-6", "header", "the salt differs at the start only", |b| b[16] ^= 1),
        spoiled("R-DIR-1", "seal", "a bit of the directory flipped", |b| {
            let at = b.len() - 2000;
            b[at] ^= 1;
        }),
        spoiled("R-DIR-5", "frame-bytes", "a bit of a frame flipped: content hash", |b| b[90] ^= 1),
        made("R-DIR-5", "hash", "the directory tells another hash", |p| p.lie_hash = Some([9; 32])),
    ]
}

fn inside() -> Vec<Vector> {
    vec![
        made("R-SIG-1", "signer", "signed by another client than it names", |p| {
            p.directory.signer = ClientId::new([3; 16]);
        }),
        made("R-DIR-3", "end", "frames end after the directory's offset", |p| {
            p.directory.frames[0].sealed += 1
        }),
        made("R-DIR-3", "short-frame", "a sealed length of 16", |p| {
            p.directory.frames[2].sealed -= 1;
            p.directory.frames.insert(0, FrameEntry { sealed: 16, raw: 1 });
        }),
        made("R-DIR-3", "long-frame", "a plain length above 8 MiB", |p| {
            p.directory.frames[0].raw = (8 << 20) + 1;
        }),
        made("R-DIR-3", "padding-first", "padding is not the last frame", |p| {
            p.frames.rotate_right(1);
            p.directory.frames.rotate_right(1);
        }),
        made("R-DIR-4", "tile", "chunks one byte longer than the stream", |p| p.directory.chunks[0].len += 1),
        made("R-DIR-4", "empty", "a chunk of length 0", |p| {
            let id = p.directory.chunks[0].id;
            p.directory.chunks.push(ChunkEntry { id, len: 0 });
        }),
        made("R-FRAME-1", "order", "frames sealed with each other's index", |p| p.nonce_shift = 1),
        made("R-FRAME-3", "table", "two frames whose plain lengths are swapped in the table", |p| {
            p.directory.frames[0].raw += 1;
            p.directory.frames[1].raw -= 1;
        }),
        made("R-CHUNK-1", "id", "a chunk under another id", |p| {
            p.directory.chunks[0].id = ChunkId::new([1; 32])
        }),
    ]
}

/// A pack whose directory body was changed before it was signed and sealed, by hand from SPEC 7.4.
fn raw_directory(rule: &str, case: &str, note: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vector {
    let (ring, pack) = (keyring(), Pack::data());
    let end: usize = HEADER_LEN + pack.directory.frames.iter().map(|f| f.sealed as usize).sum::<usize>();
    let mut body = pack.directory.body();
    let mut out = pack.seal();
    out.truncate(end);
    body.extend(blake3::hash(&out).as_bytes());
    change(&mut body);
    let content = signed(ObjectType::Pack, &body, &client());
    let mut text = [&(content.len() as u32).to_le_bytes()[..], &content].concat();
    text.resize(text.len().next_multiple_of(4096), 0);
    let aad = [&out[..HEADER_LEN], REPO.as_bytes()].concat();
    let key = ring.directory_key(1).unwrap();
    let sealed = xseal(key.expose(), &[0x74; 24], &aad, &text);
    let locator = [&(end as u64).to_le_bytes()[..], &(24 + sealed.len() as u32).to_le_bytes()].concat();
    let trailer = xseal(key.expose(), &[0x75; 24], &[&aad[..], b"trailer"].concat(), &locator);
    let header = out[..HEADER_LEN].to_vec();
    let bytes = [&out[..], &[0x74; 24], &sealed, &header, &[0x75; 24], &trailer].concat();
    match rule {
        "" => Vector::ok("pack", case, note, bytes),
        rule => Vector::reject("pack", rule, case, note, bytes),
    }
}

impl Vector {
    /// Seals the pack again with a header that names domain 1, in both places and in every key.
    fn domain(self) -> Self {
        let roots = keyring().roots().iter().map(keys::Secret::duplicate).collect();
        let domains = vec![keys::Secret::new([0x21; 32]), keys::Secret::new([0x22; 32])];
        let two = keys::Keyring::new(roots, domains).unwrap();
        let (header, key) = PackHeader::create(PackKind::Data, &two, &REPO, [0x76; 32]).unwrap();
        let mut frames = Pack::data().frames;
        for (frame, i) in frames.iter_mut().zip(0..) {
            frame.resize(frame.len() + 16, 0);
            key.seal(i, frame).unwrap();
        }
        self.with_header(&header, &frames.concat())
    }

    fn commitment(self) -> Self {
        let mut header = PackHeader::decode(&self.bytes).unwrap();
        header.commitment[0] ^= 1;
        let frames = Pack::data().directory.frames.iter().map(|f| f.sealed as usize).sum::<usize>();
        let frames = self.bytes[HEADER_LEN..][..frames].to_vec();
        self.with_header(&header, &frames)
    }

    /// Replaces header and frames, and seals directory and trailer to fit.
    fn with_header(mut self, header: &PackHeader, frames: &[u8]) -> Self {
        let mut out = [&header.encode()[..], frames].concat();
        let (hash, at) = (*blake3::hash(&out).as_bytes(), out.len() as u64);
        let directory = Pack::data().directory;
        out.extend(directory.seal(header, &hash, at, &keyring(), &REPO, &client(), &[0x73; 64]).unwrap());
        self.bytes = out;
        self
    }
}
