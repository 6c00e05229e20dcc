//! Config generations (SPEC 5): who the repository is, its secrets and its defaults.
//!
//! Write-once: generation n+1 names the hash of generation n, and the put-if-absent of `config/<n+1>` is the
//! compare-and-swap. Readers take the highest generation that authenticates.

use crate::cbor::{Fields, Value, map};
use crate::chunker::ChunkerParams;
use crate::codec::Write;
use crate::envelope::{self, Header, ObjectType, STANZA_RING};
use crate::error::{FormatError, Result, ensure, within};
use crate::id::{RepoId, RingId};
use crate::keys::{Keyring, Secret};
use crate::limits;

const WHAT: &str = "config";

/// Incompatible features this version knows: none yet.
pub const INCOMPAT_KNOWN: u64 = 0;
/// Read-only-compatible features this version knows: none yet.
pub const RO_COMPAT_KNOWN: u64 = 0;

/// A config generation.
pub struct Config {
    /// 0 for the first.
    pub generation: u32,
    /// BLAKE3 of the previous generation's object; `None` in generation 0.
    pub previous: Option<[u8; 32]>,
    /// The repository.
    pub repo: RepoId,
    /// The ring key this generation is sealed under.
    pub ring: RingId,
    /// The secrets.
    pub keyring: Keyring,
    /// Features a reader must know (ext4's three classes).
    pub incompat: u64,
    /// Features a writer must know.
    pub ro_compat: u64,
    /// Features anyone may ignore and must preserve.
    pub compat: u64,
    /// How files are cut.
    pub chunker: ChunkerParams,
    /// Plain bytes of a data frame.
    pub data_frame: u32,
    /// Plain bytes of a metadata frame.
    pub meta_frame: u32,
    /// Sealed bytes at which a data pack closes.
    pub data_pack: u64,
    /// Sealed bytes at which a metadata pack closes.
    pub meta_pack: u64,
    /// Seconds since 1970 of `init`.
    pub created: i64,
    /// Per cent of parity that writers add to new packs (SPEC 18); `None` adds none.
    pub parity: Option<u8>,
    /// Fields of a newer writer, preserved.
    pub unknown: Vec<(u64, Value)>,
}

fn percent(value: u64) -> Result<u8> {
    let given = u8::try_from(value).ok().filter(|p| (1..=100).contains(p));
    given.ok_or(FormatError::invalid(WHAT, "its share of parity is not 1 to 100 per cent"))
}

/// Who a config belongs to, readable without a key.
pub fn identify(bytes: &[u8]) -> Result<(RepoId, RingId)> {
    let (header, _) = Header::decode(ObjectType::Config, bytes)?;
    let (repo, ring) = header.stanza.split_at_checked(32).ok_or(FormatError::Truncated { what: WHAT })?;
    Ok((RepoId::from_slice(repo)?, RingId::from_slice(ring)?))
}

impl Config {
    /// Seals this generation under the ring key.
    pub fn seal(&self, ring_key: &Secret, entropy: &[u8; 32]) -> Vec<u8> {
        let secrets = |s: &[Secret]| Value::Array(s.iter().map(|s| Value::bytes(s.expose())).collect());
        let fields = [
            (1, Some(Value::Uint(self.generation.into()))),
            (2, self.previous.map(Value::bytes)),
            (3, Some(Value::bytes(self.repo.as_bytes()))),
            (4, Some(Value::bytes(self.ring.as_bytes()))),
            (5, Some(secrets(self.keyring.roots()))),
            (6, Some(secrets(self.keyring.domains()))),
            (7, Some(Value::Uint(self.incompat))),
            (8, Some(Value::Uint(self.ro_compat))),
            (9, Some(Value::Uint(self.compat))),
            (10, Some(self.chunker.to_value())),
            (11, Some(Value::Uint(self.data_frame.into()))),
            (12, Some(Value::Uint(self.meta_frame.into()))),
            (13, Some(Value::Uint(self.data_pack))),
            (14, Some(Value::Uint(self.meta_pack))),
            (15, Some(Value::int(self.created))),
            (16, self.parity.map(|p| Value::Uint(p.into()))),
        ];
        let body = map(fields, &self.unknown).encode();
        let signed = envelope::signed(body, ObjectType::Config, &self.repo, &self.keyring.admin_key());
        envelope::seal(&self.header(), &self.repo, ring_key, entropy, &signed)
    }

    fn header(&self) -> Header {
        let mut stanza = Vec::with_capacity(48);
        stanza.put(self.repo.as_bytes());
        stanza.put(self.ring.as_bytes());
        Header { object_type: ObjectType::Config, epoch: 0, stanza_type: STANZA_RING, stanza }
    }

    /// Opens `config/<generation>`. Feature flags are acted on only after everything authenticates.
    pub fn open(bytes: &[u8], generation: u32, ring_key: &Secret) -> Result<Self> {
        let (repo, ring) = identify(bytes)?;
        let (_, body) = envelope::open(ObjectType::Config, &repo, |_| Ok(ring_key.duplicate()), bytes)?;
        let (body, signature) = envelope::split_signature(ObjectType::Config, &body)?;
        let mut f = Fields::decode(WHAT, body)?;
        let secrets = |list: Vec<Vec<u8>>| -> Result<Vec<Secret>> {
            let bad = |_| FormatError::invalid(WHAT, "a secret is not 32 bytes");
            list.into_iter().map(|b| <[u8; 32]>::try_from(b).map(Secret::new).map_err(bad)).collect()
        };
        let config = Self {
            generation: f.uint32(1)?,
            previous: f.optional(2, Fields::array)?,
            repo: RepoId::new(f.array(3)?),
            ring: RingId::new(f.array(4)?),
            keyring: Keyring::new(secrets(f.bytes_list(5)?)?, secrets(f.bytes_list(6)?)?)?,
            incompat: f.uint(7)?,
            ro_compat: f.uint(8)?,
            compat: f.uint(9)?,
            chunker: ChunkerParams::from_value(f.take(10))?,
            data_frame: f.uint32(11)?,
            meta_frame: f.uint32(12)?,
            data_pack: f.uint(13)?,
            meta_pack: f.uint(14)?,
            created: f.int(15)?,
            parity: f.optional(16, Fields::uint)?.map(percent).transpose()?,
            unknown: f.unknown(),
        };
        config.keyring.admin_key().verify(WHAT, &repo, body, signature)?;
        ensure(config.repo == repo && config.ring == ring, WHAT, "names another repository or ring inside")?;
        ensure(config.generation == generation, WHAT, "lies under another generation's name")?;
        ensure(config.previous.is_some() == (generation > 0), WHAT, "does not name its predecessor")?;
        let unknown = config.incompat & !INCOMPAT_KNOWN;
        if unknown != 0 {
            return Err(FormatError::UnknownFeature { flags: unknown });
        }
        config.check_sizes()?;
        Ok(config)
    }

    /// True when this version may write: it knows every read-only-compatible feature.
    pub fn writable(&self) -> bool {
        self.ro_compat & !RO_COMPAT_KNOWN == 0
    }

    fn check_sizes(&self) -> Result<()> {
        for frame in [self.data_frame, self.meta_frame] {
            within("frame size", frame.into(), limits::FRAME_RAW_MAX.into())?;
            ensure(frame >= 4096, WHAT, "frame size below 4 KiB")?;
        }
        for pack in [self.data_pack, self.meta_pack] {
            within("pack size", pack, 1 << 30)?;
            ensure(pack >= 64 << 10, WHAT, "pack size below 64 KiB")?;
        }
        Ok(())
    }
}
