//! One small function per parser: true when it accepted its input.

use crate::{model, text};
use bulla_repo_format::cbor::Value;
use bulla_repo_format::codec::Reader;
use bulla_repo_format::config::{self, Config};
use bulla_repo_format::envelope::{self, Header, ObjectType, STANZA_RING};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::index::IndexRun;
use bulla_repo_format::keys::{Keyring, Secret};
use bulla_repo_format::pack::{Directory, PackHeader, TRAILER_LEN, Trailer};
use bulla_repo_format::parity::{HEAD_LEN, Head, Sidecar, create_as};
use bulla_repo_format::record::{Announcement, Certificate, Death, Forget, Hold, Mark};
use bulla_repo_format::slot::{self, Slot};
use bulla_repo_format::snapshot::Verdict;
use bulla_repo_format::tree::{
    ListNode, Node, decode_block, decode_holes, decode_xattrs, encode_holes, encode_xattrs,
};
use bulla_repo_format::{ClientId, ObjectName, RepoId, RunId};

/// Name, kind of seeds, function.
pub type Target = (&'static str, &'static str, fn(&[u8]) -> bool);

/// All targets.
pub const ALL: &[Target] = &[
    ("cbor", "cbor", cbor),
    ("varint", "varint", varint),
    ("object-name", "slot", object_name),
    ("printed-key", "printed-key", printed_key),
    ("slot", "slot", slot),
    ("config", "config", config),
    ("config-body", "config-body", config_body),
    ("envelope", "mark", open_envelope),
    ("pack-header", "pack", pack_header),
    ("pack-trailer", "pack", pack_trailer),
    ("pack-directory", "pack", pack_directory),
    ("parity", "parity", parity),
    ("frame", "frame", frame),
    ("index-run", "index-body", index_run),
    ("tree-node", "tree-node", tree_node),
    ("list-node", "list-node", list_node),
    ("block", "block", block),
    ("xattrs", "xattrs", xattrs),
    ("holes", "holes", holes),
    ("verdict", "verdict-body", verdict),
    ("announcement", "announcement-body", announcement),
    ("mark", "mark-body", records),
    ("death", "death-body", records),
    ("hold", "hold-body", records),
    ("certificate", "certificate-body", records),
    ("chunker", "chunker", text::chunker),
    ("patterns", "patterns", text::patterns),
    ("lists", "patterns", text::lists),
    ("policy", "policy", text::policy),
    ("jobs", "jobs", text::jobs),
    ("repository", "commands", model::repository),
];

pub fn keyring() -> Option<Keyring> {
    Keyring::new(vec![Secret::new([0x11; 32]), Secret::new([0x12; 32])], vec![Secret::new([0x21; 32])]).ok()
}

pub const REPO: RepoId = RepoId::new([0x41; 32]);

/// The first 16-byte string of a body: the id that stands in its name.
fn named(b: &[u8]) -> RunId {
    let at = b.iter().position(|x| *x == 0x50).map_or(0, |at| at + 1);
    b.get(at..at + 16).and_then(|r| RunId::from_slice(r).ok()).unwrap_or(RunId::new([0; 16]))
}

fn cbor(b: &[u8]) -> bool {
    let value = Value::decode("fuzz", b);
    value.is_ok_and(|v| {
        assert_eq!(v.encode(), b);
        true
    })
}

fn varint(b: &[u8]) -> bool {
    let mut r = Reader::new("fuzz", b);
    r.varint().is_ok() && r.zigzag().is_ok() && r.prefixed(1 << 20).is_ok()
}

fn object_name(b: &[u8]) -> bool {
    // Seeds are sealed objects of any kind; the name is made of their first bytes.
    let text = match b.split_first() {
        Some((first, rest)) if rest.len() >= 32 => {
            let dirs =
                ["keys", "snap", "gone", "marks", "locks", "clients", "packs/ab", "config", "pend", "index"];
            format!("{}/{}", dirs[usize::from(*first) % dirs.len()], String::from_utf8_lossy(&hex(rest)))
        }
        _ => String::from_utf8_lossy(b).into_owned(),
    };
    ObjectName::parse(&text).is_some_and(|n| {
        assert_eq!(n.to_string(), text);
        true
    })
}

fn hex(b: &[u8]) -> Vec<u8> {
    b.iter().take(16).flat_map(|x| [x >> 4, x & 15]).map(|d| b"0123456789abcdef"[usize::from(d)]).collect()
}

fn printed_key(b: &[u8]) -> bool {
    slot::parse_key(&String::from_utf8_lossy(b)).is_ok_and(|k| slot::parse_key(&slot::print_key(&k)).is_ok())
}

fn slot(b: &[u8]) -> bool {
    Slot::decode(b, 1 << 20).is_ok()
}

fn config(b: &[u8]) -> bool {
    config::identify(b).is_ok() && Config::open(b, 0, &Secret::new([0x31; 32])).is_ok()
}

/// What a body's map says under `key`.
fn field(b: &[u8], key: u64) -> Option<Value> {
    let Ok(Value::Map(fields)) = Value::decode("fuzz", b) else { return None };
    fields.into_iter().find(|(k, _)| *k == key).map(|(_, value)| value)
}

/// A body behind the seal, the signature and the name that it asks for.
fn config_body(b: &[u8]) -> bool {
    let number = |key| match field(b, key) {
        Some(Value::Uint(n)) => u32::try_from(n).unwrap_or_default(),
        _ => 0,
    };
    let bytes = |key| match field(b, key) {
        Some(Value::Bytes(bytes)) => bytes,
        _ => Vec::new(),
    };
    let secrets = |key| match field(b, key) {
        Some(Value::Array(list)) => list,
        _ => Vec::new(),
    };
    let secret = |value: Value| match value {
        Value::Bytes(bytes) => <[u8; 32]>::try_from(bytes).ok().map(Secret::new),
        _ => None,
    };
    let all = |key| secrets(key).into_iter().map_while(secret).collect();
    let (Some(ring), Ok(repo)) =
        (Keyring::new(all(5), all(6)).ok().or_else(keyring), RepoId::from_slice(&bytes(3)))
    else {
        return false;
    };
    let stanza = [&bytes(3)[..], &bytes(4)].concat();
    let header = Header { object_type: ObjectType::Config, epoch: 0, stanza_type: STANZA_RING, stanza };
    let signed = envelope::signed(b.to_vec(), ObjectType::Config, &repo, &ring.admin_key());
    let sealed = envelope::seal(&header, &repo, &Secret::new([0x31; 32]), &[9; 32], &signed);
    Config::open(&sealed, number(1), &Secret::new([0x31; 32])).is_ok()
}

fn open_envelope(b: &[u8]) -> bool {
    let Some(ring) = keyring() else { return false };
    envelope::open(ObjectType::Mark, &REPO, |h| ring.envelope_key(h.epoch, ObjectType::Mark), b).is_ok()
}

fn pack_header(b: &[u8]) -> bool {
    PackHeader::decode(b).is_ok_and(|h| {
        assert_eq!(h.encode(), b[..h.encode().len()]);
        keyring().is_some_and(|k| h.open(&k, &REPO).is_ok())
    })
}

fn pack_trailer(b: &[u8]) -> bool {
    let at = b.len().saturating_sub(TRAILER_LEN);
    keyring().is_some_and(|k| Trailer::open(&b[at..], b.len() as u64, &k, &REPO).is_ok())
}

fn pack_directory(b: &[u8]) -> bool {
    let (Some(k), Ok(header)) = (keyring(), PackHeader::decode(b)) else { return false };
    let at = b.len().saturating_sub(TRAILER_LEN);
    // Where the trailer says, or behind the header when it says nothing.
    let offset = Trailer::open(&b[at..], b.len() as u64, &k, &REPO).map_or(84, |t| t.offset);
    let sealed = b.get(offset as usize..at).unwrap_or_default();
    Directory::open(&header, sealed, offset, &k, &REPO, |_, _, _| Ok(())).is_ok()
}

fn parity(b: &[u8]) -> bool {
    // A checksum that always fits, so that what is behind it is met; and as the pack, what follows the sidecar's front.
    let mut b = b.to_vec();
    if let Some(front) = b.get_mut(..HEAD_LEN) {
        let checksum = blake3::hash(&front[..HEAD_LEN - 32]);
        front[HEAD_LEN - 32..].copy_from_slice(checksum.as_bytes());
    }
    let Ok(head) = Head::decode(&b) else { return false };
    assert_eq!(head.encode(), b[..HEAD_LEN]);
    let Ok(sidecar) = Sidecar::parse(&b, &head.name) else { return false };
    let _ = sidecar.intact();
    let pack = &b[HEAD_LEN..];
    if let Ok(repaired) = sidecar.repair(pack) {
        assert_eq!(blake3::hash(&repaired.bytes).as_bytes(), head.name.as_bytes());
    }
    let Ok(other) = create_as(&Head { size: pack.len() as u64, ..head }, &[pack]) else { return false };
    let other = other.parts().concat();
    Sidecar::parse(&other, &head.name).is_ok_and(|s| s.intact() && s.damaged(pack).is_empty())
}

fn frame(b: &[u8]) -> bool {
    let mut out = Vec::new();
    // What an authenticated table would say: the length a raw frame has, or a zstd frame claims.
    let claimed = match b {
        [1, _, _, _, _, descriptor, size, rest @ ..] => match descriptor >> 6 {
            0 => u32::from(*size),
            1 => u32::from(*size) + 256 * (1 + rest.first().map_or(0, |h| u32::from(*h))),
            _ => 1 << 16,
        },
        _ => b.len() as u32,
    };
    let len = if b.first() == Some(&1) { claimed } else { claimed.saturating_sub(1) };
    let took = Expander::new().expand(b, len, &mut out).is_ok();
    assert!(out.capacity() <= (len as usize).max(b.len()) + 4096);
    took
}

fn index_run(b: &[u8]) -> bool {
    IndexRun::decode(b).is_ok_and(|mut run| {
        assert_eq!(run.encode(), b);
        true
    })
}

fn tree_node(b: &[u8]) -> bool {
    Node::decode(b).is_ok()
}

fn list_node(b: &[u8]) -> bool {
    ListNode::decode(b).is_ok()
}

fn block(b: &[u8]) -> bool {
    decode_block(b).is_ok()
}

fn xattrs(b: &[u8]) -> bool {
    decode_xattrs(b).is_ok_and(|mut x| {
        assert_eq!(encode_xattrs(&mut x), b);
        true
    })
}

fn holes(b: &[u8]) -> bool {
    decode_holes(b, 1 << 40).is_ok_and(|h| {
        assert_eq!(encode_holes(&h), b);
        true
    })
}

fn verdict(b: &[u8]) -> bool {
    let run = named(b);
    Verdict::decode(b, &run).is_ok_and(|v| Verdict::decode(&v.encode(), &run).is_ok_and(|again| again == v))
}

fn announcement(b: &[u8]) -> bool {
    let run = named(b);
    let number = match field(b, 2) {
        Some(Value::Uint(n)) => u32::try_from(n).unwrap_or_default(),
        _ => 0,
    };
    Announcement::decode(b, &run, number).is_ok_and(|a| {
        Announcement::decode(&a.encode(), &run, number).is_ok_and(|again| again.encode() == a.encode())
    })
}

fn records(b: &[u8]) -> bool {
    let id = named(b);
    let client = ClientId::new(*id.as_bytes());
    let all = [
        Mark::decode(b, &id).is_ok(),
        Forget::decode(b, &id).is_ok(),
        Death::decode(b, &id).is_ok(),
        Hold::decode(b, &id).is_ok(),
        Certificate::decode(b, &client).is_ok(),
    ];
    all.contains(&true)
}
