//! Seeds: the bytes of every vector, by the kind of object its header names; sealed objects also opened, as
//! `<kind>-body`, so that the parsers behind the seal are met as well.

use bulla_repo_format::envelope::{self, ObjectType};
use std::collections::HashMap;
use std::path::Path;

/// Reads `repo-format/vectors`.
pub fn load() -> HashMap<String, Vec<Vec<u8>>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../repo-format/vectors");
    let mut out: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(text) = std::fs::read_to_string(entry.path()) else { continue };
        let Some((header, body)) = text.split_once("\n\n") else { continue };
        let Some(kind) = header.lines().find_map(|l| l.strip_prefix("object: ")) else { continue };
        let digits: Vec<u8> = body.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |p: &[u8]| u8::from_str_radix(std::str::from_utf8(p).ok()?, 16).ok();
        let bytes: Vec<u8> = digits.chunks_exact(2).filter_map(byte).collect();
        if let Some(text) = header.lines().find_map(|l| l.strip_prefix("with-text: ")) {
            out.entry(kind.to_owned()).or_default().push(text.as_bytes().to_vec());
        }
        if let Some(body) = open(kind, &bytes) {
            out.entry(format!("{kind}-body")).or_default().push(body);
        }
        out.entry(kind.to_owned()).or_default().push(bytes);
    }
    out
}

/// The body of a sealed object, its signature cut off.
fn open(kind: &str, bytes: &[u8]) -> Option<Vec<u8>> {
    let ty = match kind {
        "index" => ObjectType::Index,
        "verdict" => ObjectType::Verdict,
        "announcement" => ObjectType::Announcement,
        "mark" => ObjectType::Mark,
        "forget" => ObjectType::Forget,
        "record" => ObjectType::Record,
        "death" => ObjectType::Death,
        "hold" => ObjectType::Hold,
        "certificate" => ObjectType::Client,
        _ => return None,
    };
    let ring = crate::targets::keyring()?;
    let key = |h: &envelope::Header| ring.envelope_key(h.epoch, ty);
    let (_, body) = envelope::open(ty, &crate::targets::REPO, key, bytes).ok()?;
    Some(envelope::split_signature(ty, &body).ok()?.0.to_vec())
}
