//! Reads a pack's own table of contents from its end: what the index is checked against and rebuilt from.

use super::super::Repository;
use super::object_name;
use crate::error::{Error, Result};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::index::{IndexPack, KEY_LEN, record_key};
use bulla_repo_format::pack::{
    ChunkEntry, Directory, HEADER_LEN, PackHeader, PackKind, TRAILER_LEN, Trailer,
};
use bulla_repo_format::{FormatError, ObjectName, PackName};

/// A pack's directory, authenticated, and the hash it has of the bytes before it.
pub struct Tail {
    /// The pack in the form the index lists it.
    pub pack: IndexPack,
    /// The table of contents.
    pub directory: Directory,
    /// BLAKE3 of header and frames, as signed.
    pub content_hash: [u8; 32],
}

/// A chunk in its pack, as an index record has it: key, offset in the plain stream, length.
pub type Record = ([u8; KEY_LEN], u32, u32);

impl Tail {
    /// The index records of its chunks.
    pub fn records(&self) -> Vec<Record> {
        let mut at = 0u32;
        let record = |c: &ChunkEntry| {
            let offset = at;
            at = at.saturating_add(c.len);
            (record_key(&c.id), offset, c.len)
        };
        self.directory.chunks.iter().map(record).collect()
    }
}

/// Reads the tail of a pack of `size` bytes with two ranged reads.
pub fn read(repository: &Repository, kind: PackKind, name: PackName, size: u64) -> Result<Tail> {
    let object = object_name(kind, name);
    let tail_start = size.checked_sub(TRAILER_LEN as u64).ok_or_else(|| short(&object))?;
    let bytes = repository.backend().get_range(&object, tail_start, TRAILER_LEN)?;
    let fail = |e: FormatError| Error::object(&object, e);
    let trailer = Trailer::open(&bytes, size, repository.keyring(), &repository.id()).map_err(fail)?;
    if trailer.header.kind != kind {
        return Err(Error::Damaged {
            what: object.to_string(),
            reason: "it holds another kind of chunks".into(),
        });
    }
    let sealed = repository.backend().get_range(&object, trailer.offset, trailer.length as usize)?;
    open(repository, &object, name, size, &trailer, &sealed)
}

/// As [`read`]; an input/output error that stays is damage like any other: a bad sector, and no cable.
pub fn read_again(repository: &Repository, kind: PackKind, name: PackName, size: u64) -> Result<Tail> {
    let damaged =
        |e: Error| Error::Damaged { what: object_name(kind, name).to_string(), reason: e.to_string() };
    match read(repository, kind, name, size) {
        Err(e) if e.is_io() => {
            read(repository, kind, name, size).map_err(|e| if e.is_io() { damaged(e) } else { e })
        }
        other => other,
    }
}

/// Reads the tail from the whole bytes of a pack, and checks header, content hash and name as well.
pub fn read_whole(repository: &Repository, kind: PackKind, name: PackName, bytes: &[u8]) -> Result<Tail> {
    let object = object_name(kind, name);
    let damaged = |reason: &str| Error::Damaged { what: object.to_string(), reason: reason.to_owned() };
    if blake3::hash(bytes).as_bytes() != name.as_bytes() {
        return Err(damaged("its bytes do not hash to its name"));
    }
    let at = bytes.len().checked_sub(TRAILER_LEN).ok_or_else(|| short(&object))?;
    let fail = |e: FormatError| Error::object(&object, e);
    let (body, trailer) = bytes.split_at(at);
    let trailer =
        Trailer::open(trailer, bytes.len() as u64, repository.keyring(), &repository.id()).map_err(fail)?;
    if trailer.header.kind != kind || PackHeader::decode(bytes).map_err(fail)? != trailer.header {
        return Err(damaged("its header and trailer differ"));
    }
    let offset = usize::try_from(trailer.offset).unwrap_or(usize::MAX);
    let (content, sealed) = body.split_at_checked(offset).ok_or_else(|| short(&object))?;
    let tail = open(repository, &object, name, bytes.len() as u64, &trailer, sealed)?;
    if blake3::hash(content) != tail.content_hash {
        return Err(damaged("its frames are not those its directory was signed over"));
    }
    Ok(tail)
}

fn open(
    repository: &Repository,
    object: &ObjectName,
    name: PackName,
    size: u64,
    trailer: &Trailer,
    sealed: &[u8],
) -> Result<Tail> {
    let verify =
        |client: &_, body: &[u8], signature: &_| repository.verify(ObjectType::Pack, client, body, signature);
    let (ring, repo) = (repository.keyring(), repository.id());
    let (directory, content_hash) =
        Directory::open(&trailer.header, sealed, trailer.offset, ring, &repo, verify)
            .map_err(|e| Error::object(object, e))?;
    let pack = IndexPack {
        name,
        size,
        run: directory.run,
        signer: directory.signer,
        header: trailer.header,
        frames: directory.frames.clone(),
    };
    Ok(Tail { pack, directory, content_hash })
}

fn short(object: &ObjectName) -> Error {
    Error::Damaged {
        what: object.to_string(),
        reason: format!("it is shorter than {} bytes", HEADER_LEN + TRAILER_LEN),
    }
}
