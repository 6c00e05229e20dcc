//! Packets of the SSH file transfer protocol, version 3 (draft-ietf-secsh-filexfer-02), and the extensions of OpenSSH.
//!
//! Pure: bytes in, values out. What a server sends is read as if an enemy had sent it: every length is compared with
//! what is there before anything is taken or allocated, and whatever does not fit is [`Malformed`].

use bulla_engine::observer::escape;
use std::fmt;

/// The longest packet that is taken, without its length: OpenSSH sends 256 KiB at most, headers included.
pub(super) const PACKET_MAX: u32 = (256 << 10) + (1 << 10);
/// The draft's limit of a handle.
const HANDLE_MAX: usize = 256;
/// More of a server's message tells nobody anything.
const MESSAGE_MAX: usize = 300;

/// Kinds of packets that are sent.
pub(super) mod kind {
    pub(in super::super) const INIT: u8 = 1;
    pub(in super::super) const OPEN: u8 = 3;
    pub(in super::super) const CLOSE: u8 = 4;
    pub(in super::super) const READ: u8 = 5;
    pub(in super::super) const WRITE: u8 = 6;
    pub(in super::super) const LSTAT: u8 = 7;
    pub(in super::super) const FSTAT: u8 = 8;
    pub(in super::super) const OPENDIR: u8 = 11;
    pub(in super::super) const READDIR: u8 = 12;
    pub(in super::super) const REMOVE: u8 = 13;
    pub(in super::super) const MKDIR: u8 = 14;
    pub(in super::super) const STAT: u8 = 17;
    pub(in super::super) const RENAME: u8 = 18;
    pub(in super::super) const EXTENDED: u8 = 200;
}

/// Status codes that make a difference.
pub(super) mod code {
    pub(in super::super) const OK: u32 = 0;
    pub(in super::super) const EOF: u32 = 1;
    pub(in super::super) const NO_SUCH_FILE: u32 = 2;
    pub(in super::super) const PERMISSION_DENIED: u32 = 3;
    pub(in super::super) const FAILURE: u32 = 4;
    pub(in super::super) const NO_CONNECTION: u32 = 6;
    pub(in super::super) const CONNECTION_LOST: u32 = 7;
    pub(in super::super) const UNSUPPORTED: u32 = 8;
}

/// How a file is opened.
pub(super) mod flag {
    pub(in super::super) const READ: u32 = 1;
    pub(in super::super) const WRITE: u32 = 2;
    pub(in super::super) const CREATE: u32 = 8;
    pub(in super::super) const EXCLUSIVE: u32 = 0x20;
}

const ATTR_SIZE: u32 = 1;
const ATTR_OWNER: u32 = 2;
const ATTR_PERMISSIONS: u32 = 4;
const ATTR_TIMES: u32 = 8;
const ATTR_EXTENDED: u32 = 0x8000_0000;

/// Bytes that are no packet of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server does not speak SFTP: {}", self.0)
    }
}

type Read<T> = Result<T, Malformed>;

/// A packet to be sent, built field by field.
pub(super) struct Packet(Vec<u8>);

impl Packet {
    /// A packet of a kind. For `INIT` the number is the version, for all others the request's.
    pub(super) fn new(kind: u8, number: u32) -> Self {
        let mut bytes = vec![0; 4];
        bytes.push(kind);
        bytes.extend(number.to_be_bytes());
        Self(bytes)
    }

    pub(super) fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    pub(super) fn string(mut self, bytes: &[u8]) -> Self {
        self.length(bytes.len());
        self.0.extend(bytes);
        self
    }

    /// A string of `len` bytes that `fill` appends.
    pub(super) fn filled(mut self, len: usize, fill: impl FnOnce(&mut Vec<u8>)) -> Self {
        self.length(len);
        self.0.reserve_exact(len);
        fill(&mut self.0);
        self
    }

    /// Attributes that say nothing but the permissions.
    pub(super) fn permissions(self, mode: u32) -> Self {
        self.u32(ATTR_PERMISSIONS).u32(mode)
    }

    /// No string that is sent comes near 4 GiB; a length that is wrong would only make the server refuse.
    fn length(&mut self, len: usize) {
        self.0.extend(u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    }

    /// As it goes over the wire.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let len = u32::try_from(self.0.len().saturating_sub(4)).unwrap_or(u32::MAX).to_be_bytes();
        for (to, from) in self.0.iter_mut().zip(len) {
            *to = from;
        }
        self.0
    }
}

/// What a server says of a file; what it does not say is `None`.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) size: Option<u64>,
    pub(super) permissions: Option<u32>,
    /// Seconds since 1970 by the server's clock.
    pub(super) modified: Option<u32>,
}

impl Attributes {
    /// True if it is a regular file, as far as is known.
    pub(super) fn is_file(&self) -> bool {
        self.permissions.is_some_and(|p| p & 0o170_000 == 0o100_000)
    }

    /// True if it is a directory, as far as is known.
    pub(super) fn is_dir(&self) -> bool {
        self.permissions.is_some_and(|p| p & 0o170_000 == 0o040_000)
    }
}

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) attributes: Attributes,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// Not OK as a rule, with the server's words.
    Status {
        code: u32,
        message: String,
    },
    Handle(Vec<u8>),
    Data(Vec<u8>),
    Names(Vec<Entry>),
    Attributes(Attributes),
    /// Of an extension.
    Extended(Vec<u8>),
}

/// The answer to `INIT`: the version and the extensions with theirs.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) version: u32,
    pub(super) extensions: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Version {
    /// Reads the first packet, without its length.
    pub(super) fn decode(packet: &[u8]) -> Read<Self> {
        let mut fields = Fields(packet);
        if fields.u8()? != 2 {
            return Err(Malformed("its first packet is not its version"));
        }
        let version = fields.u32()?;
        let mut extensions = Vec::new();
        while !fields.0.is_empty() {
            extensions.push((fields.string()?.to_vec(), fields.string()?.to_vec()));
        }
        Ok(Self { version, extensions })
    }

    /// True if the extension is offered in the version that is known here.
    pub(super) fn offers(&self, name: &str, version: &str) -> bool {
        self.extensions.iter().any(|(n, v)| n == name.as_bytes() && v == version.as_bytes())
    }
}

/// Reads an answer, without its length: the request's number and what is answered.
pub(super) fn decode(packet: &[u8]) -> Read<(u32, Reply)> {
    let mut fields = Fields(packet);
    let (kind, number) = (fields.u8()?, fields.u32()?);
    let reply = match kind {
        101 => Reply::Status { code: fields.u32()?, message: message(&mut fields) },
        102 => match fields.string()? {
            handle if handle.len() <= HANDLE_MAX => Reply::Handle(handle.to_vec()),
            _ => return Err(Malformed("a handle of more than 256 bytes")),
        },
        103 => Reply::Data(fields.string()?.to_vec()),
        104 => Reply::Names(names(&mut fields)?),
        105 => Reply::Attributes(attributes(&mut fields)?),
        201 => Reply::Extended(fields.0.to_vec()),
        _ => return Err(Malformed("a packet of an unknown kind")),
    };
    Ok((number, reply))
}

/// Servers of older drafts leave it out.
fn message(fields: &mut Fields<'_>) -> String {
    let text = fields.string().unwrap_or_default();
    escape(text.get(..MESSAGE_MAX).unwrap_or(text))
}

/// The count is believed only as far as there are entries.
fn names(fields: &mut Fields<'_>) -> Read<Vec<Entry>> {
    let count = fields.u32()?;
    let mut out = Vec::new();
    for _ in 0..count {
        let name = fields.string()?.to_vec();
        let _long = fields.string()?;
        out.push(Entry { name, attributes: attributes(fields)? });
    }
    Ok(out)
}

fn attributes(fields: &mut Fields<'_>) -> Read<Attributes> {
    let flags = fields.u32()?;
    let mut out = Attributes::default();
    if flags & ATTR_SIZE != 0 {
        out.size = Some(fields.u64()?);
    }
    if flags & ATTR_OWNER != 0 {
        fields.u64()?;
    }
    if flags & ATTR_PERMISSIONS != 0 {
        out.permissions = Some(fields.u32()?);
    }
    if flags & ATTR_TIMES != 0 {
        fields.u32()?;
        out.modified = Some(fields.u32()?);
    }
    if flags & ATTR_EXTENDED != 0 {
        for _ in 0..fields.u32()? {
            fields.string()?;
            fields.string()?;
        }
    }
    Ok(out)
}

/// What `limits@openssh.com` says of the longest read and the longest write; 0 if it has no limit.
pub(super) fn limits(reply: &[u8]) -> Read<(u64, u64)> {
    let mut fields = Fields(reply);
    fields.u64()?;
    Ok((fields.u64()?, fields.u64()?))
}

/// What `statvfs@openssh.com` says that a user has left, in bytes: 0 also if no file can be made. File systems that do
/// not count their files say that they have none.
pub(super) fn space(reply: &[u8]) -> Read<u64> {
    let mut fields = Fields(reply);
    let mut numbers = [0; 8];
    for number in &mut numbers {
        *number = fields.u64()?;
    }
    let [_, unit, _, _, blocks, files, _, files_left] = numbers;
    Ok(if files > 0 && files_left == 0 { 0 } else { blocks.saturating_mul(unit) })
}

/// Fields from the front of what is left.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("a packet ends within a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Malformed("a packet ends within a field"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u8(&mut self) -> Read<u8> {
        self.array::<1>().map(u8::from_be_bytes)
    }

    fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn string(&mut self) -> Read<&'a [u8]> {
        let len = self.u32()?;
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The body of a packet that is built like those that are sent.
    fn body(packet: Packet) -> Vec<u8> {
        let bytes = packet.finish();
        let (len, body) = bytes.split_first_chunk::<4>().unwrap();
        assert_eq!(u32::from_be_bytes(*len) as usize, body.len());
        body.to_vec()
    }

    #[test]
    fn answers_are_read_back() {
        let status = body(Packet::new(101, 7).u32(4).string(b"Fail\x1b[2Jure").string(b"en"));
        let message = "Fail\\x1b[2Jure".to_owned();
        assert_eq!(decode(&status), Ok((7, Reply::Status { code: 4, message })));
        assert_eq!(
            decode(&body(Packet::new(101, 7).u32(0))),
            Ok((7, Reply::Status { code: 0, message: String::new() }))
        );
        assert_eq!(decode(&body(Packet::new(102, 8).string(b"h"))), Ok((8, Reply::Handle(b"h".to_vec()))));
        assert!(decode(&body(Packet::new(102, 8).string(&[0; 257]))).is_err());
        let names = Packet::new(104, 9).u32(1).string(b"a").string(b"-rw a");
        let names = names.u32(0x8000_000f).u64(5).u64(0).u32(0o100_400).u32(1).u32(2);
        let names = names.u32(1).string(b"x").string(b"y");
        let attributes = Attributes { size: Some(5), permissions: Some(0o100_400), modified: Some(2) };
        assert!(attributes.is_file() && !attributes.is_dir());
        let entries = vec![Entry { name: b"a".to_vec(), attributes }];
        assert_eq!(decode(&body(names)), Ok((9, Reply::Names(entries))));
        let version = body(Packet::new(2, 3).string(b"fsync@openssh.com").string(b"1"));
        let version = Version::decode(&version).unwrap();
        assert!(version.offers("fsync@openssh.com", "1") && !version.offers("fsync@openssh.com", "2"));
    }

    #[test]
    fn a_count_of_names_that_are_not_there_costs_nothing() {
        assert!(decode(&body(Packet::new(104, 1).u32(u32::MAX))).is_err());
        assert!(decode(&body(Packet::new(105, 1).u32(ATTR_EXTENDED).u32(u32::MAX))).is_err());
        assert!(decode(&body(Packet::new(103, 1).u32(u32::MAX))).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 101u8..106) {
            let _ = decode(&bytes);
            let _ = Version::decode(&bytes);
            let _ = limits(&bytes);
            let _ = space(&bytes);
            let mut known = vec![kind];
            known.extend(&bytes);
            let _ = decode(&known);
            let mut version = vec![2];
            version.extend(&bytes);
            let _ = Version::decode(&version);
        }

        /// Small numbers in the fields reach deeper than random ones.
        #[test]
        fn no_packet_of_small_numbers_makes_it_panic(words in proptest::collection::vec(0u32..12, 0..60), kind in 101u8..106) {
            let packet = words.iter().fold(Packet::new(kind, 1), |p, w| p.u32(*w));
            let whole = body(packet);
            for cut in 0..whole.len() {
                let _ = decode(&whole[..cut]);
            }
        }

        #[test]
        fn a_packet_that_is_cut_off_is_malformed(name in "[a-z]{0,20}", size: u64) {
            let whole = body(Packet::new(104, 3).u32(1).string(name.as_bytes()).string(b"").u32(ATTR_SIZE).u64(size));
            prop_assert!(decode(&whole).is_ok());
            for cut in 0..whole.len() {
                prop_assert!(decode(&whole[..cut]).is_err());
            }
        }
    }
}
