//! Decodes a vector with the crate, as SPEC.md demands it, and says what it found.

use crate::file::Vector;
use crate::keys::{REPO, keyring, ring_key};
use bulla_repo_format::cbor::Value;
use bulla_repo_format::chunker::{ChunkerParams, Gear, cut_reference};
use bulla_repo_format::codec::Reader;
use bulla_repo_format::config::Config;
use bulla_repo_format::envelope::{self, ObjectType};
use bulla_repo_format::frame::Expander;
use bulla_repo_format::id::{from_hex, to_hex};
use bulla_repo_format::index::IndexRun;
use bulla_repo_format::keys::{ChunkKind, Secret, verify};
use bulla_repo_format::ledger::Record;
use bulla_repo_format::record::{Announcement, Certificate, Death, Forget, Hold, Mark};
use bulla_repo_format::slot::{self, Slot, SlotSecret};
use bulla_repo_format::snapshot::Verdict;
use bulla_repo_format::tree::{ListNode, Node, decode_block, decode_holes, decode_xattrs};
use bulla_repo_format::*;
use std::fmt::Debug;

pub(crate) type Facts = Vec<(String, String)>;

fn fact(key: &str, value: impl ToString) -> (String, String) {
    (key.into(), value.to_string().replace('\n', "\\n"))
}

pub(crate) fn bad(reason: &'static str) -> FormatError {
    FormatError::Invalid { what: "vector", reason }
}

fn number(v: &Vector, key: &str) -> u64 {
    v.given(key).parse().unwrap()
}

pub(crate) fn decode(v: &Vector) -> Result<Facts> {
    let repeated =
        v.with.iter().find(|(k, _)| k == "repeat").map(|(_, n)| v.bytes.repeat(n.parse().unwrap()));
    let bytes = &repeated.as_ref().unwrap_or(&v.bytes)[..];
    Ok(match v.object.as_str() {
        "varint" => {
            let mut r = Reader::new("varint", bytes);
            let facts = match v.given("type") {
                "varint32" => vec![fact("value", r.varint32()?)],
                "zigzag" => vec![fact("value", r.zigzag()?)],
                _ => vec![fact("value", r.varint()?)],
            };
            r.finish()?;
            facts
        }
        "cbor" => vec![fact("value", diagnostic(&Value::decode("cbor", bytes)?))],
        "path" => {
            let name = ObjectName::parse(v.given("path")).ok_or(bad("no object has this path"))?;
            vec![fact("area", name.area().dir())]
        }
        "signature" => signature(v)?,
        "chunk" => chunk(v)?,
        "printed-key" => vec![fact("key", to_hex(slot::parse_key(v.given("text"))?.expose()))],
        "slot" => slot_facts(v)?,
        "config" => config(v)?,
        "frame" => {
            let mut out = Vec::new();
            Expander::new().expand(bytes, u32::try_from(number(v, "length")).unwrap(), &mut out)?;
            vec![fact("hash", blake3::hash(&out).to_hex())]
        }
        "pack" => crate::pack::decode(v)?,
        "parity" => crate::parity::decode(v)?,
        "index" => index(v)?,
        "tree-node" => vec![fact("node", debug(&Node::decode(bytes)?))],
        "list-node" => vec![fact("node", debug(&ListNode::decode(bytes)?))],
        "xattrs" => vec![fact("xattrs", debug(&decode_xattrs(bytes)?))],
        "holes" => vec![fact("holes", debug(&decode_holes(bytes, number(v, "size"))?))],
        "block" => vec![fact("block", to_hex(decode_block(bytes)?))],
        "chunker" => chunker(v)?,
        _ => small(v)?,
    })
}

/// `Debug`, which spells out every field; byte strings as lists of numbers.
fn debug(value: &impl Debug) -> String {
    format!("{value:?}")
}

/// RFC 8949 section 8.
fn diagnostic(v: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match v {
        Value::Uint(n) => n.to_string(),
        Value::Nint(n) => (-1 - i128::from(*n)).to_string(),
        Value::Bytes(b) => format!("h'{}'", to_hex(b)),
        Value::Text(s) => format!("{s:?}"),
        Value::Array(a) => format!("[{}]", join(a.iter().map(diagnostic).collect())),
        Value::Map(m) => {
            format!("{{{}}}", join(m.iter().map(|(k, v)| format!("{k}: {}", diagnostic(v))).collect()))
        }
        Value::Bool(b) => b.to_string(),
        Value::Null => "null".into(),
    }
}

fn signature(v: &Vector) -> Result<Facts> {
    let (body, sig) = v.bytes.split_last_chunk().ok_or(bad("shorter than a signature"))?;
    verify(&from_hex(v.given("public")).unwrap(), "mark", &REPO, body, sig)?;
    Ok(vec![fact("body", to_hex(body))])
}

fn chunk(v: &Vector) -> Result<Facts> {
    let kind = if v.given("kind") == "data" { ChunkKind::Data } else { ChunkKind::Meta };
    let id = keyring().id_key(u16::try_from(number(v, "domain")).unwrap(), kind)?.identify(&v.bytes);
    (id.to_string() == v.given("id")).then(Vec::new).ok_or(bad("another id"))
}

fn slot_facts(v: &Vector) -> Result<Facts> {
    let slot = Slot::decode(&v.bytes, limits::ARGON2_MEMORY_MAX_KIB)?;
    let secret = match slot.kind {
        slot::SlotKind::Passphrase => {
            SlotSecret::Passphrase(v.given("passphrase").as_bytes().to_vec().into())
        }
        _ => SlotSecret::Key(Secret::new(from_hex(v.given("key")).unwrap())),
    };
    let opened = slot.open(&REPO, &secret)?.ok_or(bad("the secret does not fit"))?;
    let facts = [
        fact("kind", slot.kind.word()),
        fact("ring", opened.ring),
        fact("ring-key", to_hex(opened.key.expose())),
        fact("label", opened.label),
        fact("created", opened.created),
    ];
    Ok(facts.into())
}

fn config(v: &Vector) -> Result<Facts> {
    let ObjectName::Config(generation) = v.given("name").parse_name() else { panic!("{}", v.name) };
    let c = Config::open(&v.bytes, generation, &ring_key())?;
    let facts = [
        fact("repository", c.repo),
        fact("ring", c.ring),
        fact("previous", c.previous.map(|h| to_hex(&h)).unwrap_or("none".into())),
        fact("epochs", c.keyring.roots().len()),
        fact("domains", c.keyring.domains().len()),
        fact("writable", c.writable()),
        fact("chunker", format!("{} {} {}", c.chunker.min, c.chunker.avg, c.chunker.max)),
        fact("frames", format!("{} {}", c.data_frame, c.meta_frame)),
        fact("packs", format!("{} {}", c.data_pack, c.meta_pack)),
        fact("created", c.created),
        fact("parity", c.parity.map_or("none".into(), |p| p.to_string())),
        fact("unknown", c.unknown.len()),
    ];
    Ok(facts.into())
}

trait ParseName {
    fn parse_name(&self) -> ObjectName;
}

impl ParseName for str {
    fn parse_name(&self) -> ObjectName {
        ObjectName::parse(self).unwrap_or_else(|| panic!("{self}"))
    }
}

/// Opens an envelope of any signed kind and checks the signature of whoever the body names.
fn open(ty: ObjectType, bytes: &[u8]) -> Result<(Vec<u8>, [u8; 64])> {
    let (_, content) = envelope::open(ty, &REPO, |h| keyring().envelope_key(h.epoch, ty), bytes)?;
    let (body, sig) = envelope::split_signature(ty, &content)?;
    Ok((body.to_vec(), *sig))
}

fn index(v: &Vector) -> Result<Facts> {
    let ObjectName::Index(name) = v.given("name").parse_name() else { panic!("{}", v.name) };
    if *blake3::hash(&v.bytes).as_bytes() != name.hash {
        return Err(bad("another name"));
    }
    let (body, sig) = open(ObjectType::Index, &v.bytes)?;
    let run = IndexRun::decode(&body)?;
    keyring().client_key(&run.signer).verify("index run", &REPO, &body, &sig)?;
    let facts = [
        fact("signer", run.signer),
        fact("inputs", debug(&run.inputs)),
        fact("graves", debug(&run.graves)),
        fact("packs", debug(&run.packs)),
        fact("records", debug(&run.records)),
    ];
    Ok(facts.into())
}

fn small(v: &Vector) -> Result<Facts> {
    let ty = match v.object.as_str() {
        "announcement" => ObjectType::Announcement,
        "verdict" => ObjectType::Verdict,
        "death" => ObjectType::Death,
        "mark" => ObjectType::Mark,
        "hold" => ObjectType::Hold,
        "forget" => ObjectType::Forget,
        "record" => ObjectType::Record,
        "certificate" => ObjectType::Client,
        other => panic!("{}: unknown object {other}", v.name),
    };
    let (body, sig) = open(ty, &v.bytes)?;
    let ring = keyring();
    let (signer, found) = match (ty, v.given("name").parse_name()) {
        (ObjectType::Announcement, ObjectName::Announcement(run, k)) => {
            let a = Announcement::decode(&body, &run, k)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Verdict, ObjectName::Verdict(run)) => {
            let a = Verdict::decode(&body, &run)?;
            (ring.client_key(&a.client()), format!("{a:?} body hash {}", ring.body_hash(&body)))
        }
        (ObjectType::Death, ObjectName::Death(id)) => {
            let a = Death::decode(&body, &id)?;
            a.check_hash(&ring)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Mark, ObjectName::Mark(run)) => {
            let a = Mark::decode(&body, &run)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Hold, ObjectName::Hold(id)) => {
            let a = Hold::decode(&body, &id)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Forget, ObjectName::Forget(id)) => {
            let a = Forget::decode(&body, &id)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Record, ObjectName::Record(client, sequence)) => {
            let a = Record::decode(&body, &client, sequence)?;
            (ring.client_key(&a.client), debug(&a))
        }
        (ObjectType::Client, ObjectName::Client(id)) => {
            (ring.admin_key(), debug(&Certificate::decode(&body, &id)?))
        }
        _ => panic!("{}: name and object disagree", v.name),
    };
    signer.verify(ty.context(), &REPO, &body, &sig)?;
    Ok(vec![fact("body", diagnostic(&Value::decode("body", &body)?)), fact("value", found)])
}

/// Cuts the XOF of `seed`; the digest covers table and masks.
fn chunker(v: &Vector) -> Result<Facts> {
    let size = |key: &str| u32::try_from(number(v, key)).unwrap();
    let params = ChunkerParams { min: size("min"), avg: size("avg"), max: size("max") };
    params.validate()?;
    let gear = Gear::derive(&keyring().chunker_key(0)?, &params);
    let mut digest = blake3::Hasher::new();
    gear.table.iter().chain([&gear.mask_small, &gear.mask_large]).for_each(|w| {
        digest.update(&w.to_le_bytes());
    });
    let mut data = vec![0; size("length") as usize];
    blake3::Hasher::new().update(v.given("seed").as_bytes()).finalize_xof().fill(&mut data);
    let (mut at, mut cuts) = (0, Vec::new());
    while at < data.len() {
        let n = cut_reference(&data[at..], &params, &gear);
        cuts.push(n.to_string());
        at += n;
    }
    Ok(vec![fact("gear-digest", digest.finalize().to_hex()), fact("lengths", cuts.join(" "))])
}
