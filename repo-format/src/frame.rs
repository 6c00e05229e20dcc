//! Frames (SPEC 7.3): a piece of a pack's plain stream, compressed alone. Sealed it is
//! `codec u8 ‖ payload` under ChaCha20-Poly1305 with the pack's frame key and nonce LE96(index), AAD empty.

use crate::codec::Write;
use crate::error::{FormatError, Result, ensure, within};
use crate::limits::{FRAME_RAW_MAX, ZSTD_WINDOW_MAX};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zstd::zstd_safe::{self, CParameter};

const WHAT: &str = "frame";
/// Tag bytes of a sealed frame.
pub const TAG_LEN: usize = 16;
/// Stored as it is.
pub const CODEC_RAW: u8 = 0;
/// One zstd frame.
pub const CODEC_ZSTD: u8 = 1;
/// Reserved for zstd with a dictionary; readers refuse it.
pub const CODEC_ZSTD_DICTIONARY: u8 = 2;
/// Padding: zeros, no plain bytes.
pub const CODEC_PADDING: u8 = 0xff;

/// The frame key of one pack. Every index is used once (one pack, one key, one pass).
pub struct FrameKey(LessSafeKey);

impl FrameKey {
    pub(crate) fn new(key: &[u8; 32]) -> Result<Self> {
        let key = UnboundKey::new(&CHACHA20_POLY1305, key);
        Ok(Self(LessSafeKey::new(key.map_err(|_| FormatError::invalid(WHAT, "key of a wrong length"))?)))
    }

    /// Seals `codec ‖ payload ‖ 16 bytes` in place; the tag goes where those bytes were.
    pub fn seal(&self, index: u32, buffer: &mut [u8]) -> Result<()> {
        let (text, place) =
            buffer.split_last_chunk_mut::<TAG_LEN>().ok_or(FormatError::Truncated { what: WHAT })?;
        let tag = self.0.seal_in_place_separate_tag(nonce(index), Aad::empty(), text);
        let tag = tag.map_err(|_| FormatError::invalid(WHAT, "too large to seal"))?;
        place.iter_mut().zip(tag.as_ref()).for_each(|(p, t)| *p = *t);
        Ok(())
    }

    /// Opens a sealed frame in place and returns `codec ‖ payload`.
    pub fn open<'a>(&self, index: u32, buffer: &'a mut [u8]) -> Result<&'a [u8]> {
        let plain = self.0.open_in_place(nonce(index), Aad::empty(), buffer);
        plain.map(|p| &*p).map_err(|_| FormatError::Unauthentic { what: WHAT })
    }
}

fn nonce(index: u32) -> Nonce {
    let mut n = [0; 12];
    n.iter_mut().zip(index.to_le_bytes()).for_each(|(n, i)| *n = i);
    Nonce::assume_unique_for_key(n)
}

/// How hard to compress. Writers choose, readers do not care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// Store.
    Off,
    /// zstd 1.
    Fastest,
    /// zstd 2 with a window over the whole frame.
    #[default]
    Auto,
    /// zstd 6 over the whole frame: a sixth smaller for twice the time.
    Better,
    /// zstd 19.
    Max,
}

/// Compresses frames; keeps its zstd context and its buffer between them.
pub struct Compressor {
    context: Option<zstd_safe::CCtx<'static>>,
    buffer: Vec<u8>,
}

/// A compressed frame, `codec ‖ payload` when written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compressed<'a> {
    /// [`CODEC_RAW`] or [`CODEC_ZSTD`].
    pub codec: u8,
    /// What the codec made of the plain bytes.
    pub payload: &'a [u8],
}

impl Compressed<'_> {
    /// Bytes of `codec ‖ payload ‖ tag`.
    pub const fn sealed_len(&self) -> usize {
        1 + self.payload.len() + TAG_LEN
    }

    /// Appends `codec ‖ payload` and room for the tag, as [`FrameKey::seal`] takes it.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.reserve_exact(self.sealed_len());
        out.put_u8(self.codec);
        out.put(self.payload);
        out.put(&[0; TAG_LEN]);
    }
}

impl Compressor {
    /// A compressor for frames of at most `frame` plain bytes.
    pub fn new(compression: Compression, frame: u32) -> Result<Self> {
        let window = frame.max(1 << 10).next_power_of_two().ilog2().min(23);
        let (level, hash) = match compression {
            Compression::Off => return Ok(Self { context: None, buffer: Vec::new() }),
            Compression::Fastest => (1, Some(16)),
            Compression::Auto => (2, Some(17)),
            Compression::Better => (6, None),
            Compression::Max => (19, None),
        };
        let mut context = zstd_safe::CCtx::create();
        let mut set = |p| context.set_parameter(p).map(|_| ());
        let mut all =
            set(CParameter::CompressionLevel(level)).and_then(|()| set(CParameter::WindowLog(window)));
        if let Some(hash) = hash {
            all = all.and_then(|()| set(CParameter::HashLog(hash.min(window))));
        }
        all = all
            .and_then(|()| set(CParameter::ContentSizeFlag(true)))
            .and_then(|()| set(CParameter::ChecksumFlag(false)));
        all.map_err(|_| FormatError::invalid("compression", "zstd refused its parameters"))?;
        Ok(Self { context: Some(context), buffer: Vec::new() })
    }

    /// Compresses a frame. One that does not shrink by 1/32 is stored.
    pub fn compress<'a>(&'a mut self, raw: &'a [u8]) -> Compressed<'a> {
        let codec = self.compress_inside(raw);
        self.frame(codec, raw)
    }

    /// As [`Compressor::compress`], for whoever needs the plain bytes' place meanwhile: gives the codec, with which
    /// [`Compressor::frame`] gives the frame until the next one is compressed.
    pub fn compress_inside(&mut self, raw: &[u8]) -> u8 {
        let worth = raw.len() - raw.len() / 32;
        self.buffer.clear();
        // No more room than compression is worth: zstd then gives up early where it is not.
        self.buffer.reserve_exact(worth);
        let fits = self.context.as_mut().and_then(|c| c.compress2(&mut self.buffer, raw).ok());
        match fits {
            Some(n) if n <= worth => CODEC_ZSTD,
            _ => CODEC_RAW,
        }
    }

    /// The frame that was compressed last: what [`Compressor::compress_inside`] was given and gave.
    pub fn frame<'a>(&'a self, codec: u8, raw: &'a [u8]) -> Compressed<'a> {
        let payload = if codec == CODEC_ZSTD { &self.buffer } else { raw };
        Compressed { codec, payload }
    }

    /// Its buffer, for whoever needs one of a frame's size between two frames.
    pub fn scratch(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

/// Expands frames; keeps its zstd context between them.
pub struct Expander {
    context: zstd_safe::DCtx<'static>,
}

impl Default for Expander {
    fn default() -> Self {
        Self::new()
    }
}

impl Expander {
    /// A new expander.
    pub fn new() -> Self {
        Self { context: zstd_safe::DCtx::create() }
    }

    /// Replaces `out` by the `raw_len` plain bytes of an opened frame. Nothing is allocated beyond `raw_len`,
    /// which the caller takes from an authenticated table.
    pub fn expand(&mut self, opened: &[u8], raw_len: u32, out: &mut Vec<u8>) -> Result<()> {
        let (codec, payload) = opened.split_first().ok_or(FormatError::Truncated { what: WHAT })?;
        self.decode(Compressed { codec: *codec, payload }, raw_len, out)
    }

    /// As [`Expander::expand`], of a frame that was not written down.
    pub fn decode(&mut self, frame: Compressed<'_>, raw_len: u32, out: &mut Vec<u8>) -> Result<()> {
        let Compressed { codec, payload } = frame;
        within("frame length", raw_len.into(), FRAME_RAW_MAX.into())?;
        out.clear();
        ensure(
            (raw_len == 0) == (codec == CODEC_PADDING),
            WHAT,
            "padding with plain bytes, or none without",
        )?;
        match codec {
            CODEC_RAW => {
                ensure(payload.len() == raw_len as usize, WHAT, "length differs from its table")?;
                out.reserve_exact(payload.len());
                out.put(payload);
            }
            CODEC_ZSTD => {
                check_zstd(payload, raw_len)?;
                out.reserve_exact(raw_len as usize);
                let n = self.context.decompress(out, payload);
                let n = n.map_err(|_| FormatError::invalid(WHAT, "zstd cannot expand it"))?;
                ensure(n == raw_len as usize, WHAT, "length differs from its table")?;
            }
            CODEC_PADDING => {
                ensure(payload.iter().all(|b| *b == 0), WHAT, "padding is not zero")?;
            }
            _ => return Err(FormatError::invalid(WHAT, "unknown codec")),
        }
        Ok(())
    }
}

/// Exactly one zstd frame (RFC 8878) with its content size, no dictionary, a window of at most 8 MiB.
fn check_zstd(payload: &[u8], raw_len: u32) -> Result<()> {
    let mut r = crate::codec::Reader::new(WHAT, payload);
    ensure(r.u32()? == 0xfd2f_b528, WHAT, "not a zstd frame")?;
    let descriptor = r.u8()?;
    ensure(descriptor & 0b1011 == 0, WHAT, "zstd dictionary or reserved bits")?;
    let single = descriptor & 0x20 != 0;
    if !single {
        let w = r.u8()?;
        let base = 1u64 << (10 + (w >> 3));
        within("zstd window", base + base / 8 * u64::from(w & 7), ZSTD_WINDOW_MAX)?;
    }
    let size = match (descriptor >> 6, single) {
        (0, true) => u64::from(r.u8()?),
        (0, false) => return Err(FormatError::invalid(WHAT, "zstd frame without its content size")),
        (1, _) => u64::from(r.u16()?) + 256,
        (2, _) => u64::from(r.u32()?),
        _ => r.u64()?,
    };
    ensure(size == u64::from(raw_len), WHAT, "zstd content size differs from its table")?;
    let whole = zstd_safe::find_frame_compressed_size(payload);
    ensure(whole == Ok(payload.len()), WHAT, "bytes behind the zstd frame")
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20poly1305::aead::{Aead, KeyInit};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn frames_round_trip_at_every_level(seed: u8, len in 1usize..200_000, noisy: bool) {
            let mut raw = vec![seed; len];
            if noisy {
                blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut raw);
            }
            for c in [Compression::Off, Compression::Fastest, Compression::Auto, Compression::Better] {
                let mut back = Vec::new();
                let mut compressor = Compressor::new(c, 4 << 20).unwrap();
                let frame = compressor.compress(&raw);
                Expander::new().decode(frame, len as u32, &mut back).unwrap();
                prop_assert_eq!(&back, &raw);
                let mut out = Vec::new();
                frame.write(&mut out);
                prop_assert_eq!(out.len(), frame.sealed_len());
                out.truncate(out.len() - TAG_LEN);
                prop_assert!(out.len() <= raw.len() + 1);
                Expander::new().expand(&out, len as u32, &mut back).unwrap();
                prop_assert_eq!(&back, &raw);
                prop_assert!(Expander::new().expand(&out, len as u32 - 1, &mut back).is_err());
                out.push(0);
                prop_assert!(Expander::new().expand(&out, len as u32, &mut back).is_err());
            }
        }

        /// The two implementations of the AEAD agree on every frame.
        #[test]
        fn ring_and_rustcrypto_agree(key: [u8; 32], index: u32, text in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut sealed = [&text[..], &[0; TAG_LEN]].concat();
            FrameKey::new(&key).unwrap().seal(index, &mut sealed).unwrap();
            let mut n = [0; 12];
            n[..4].copy_from_slice(&index.to_le_bytes());
            let oracle = chacha20poly1305::ChaCha20Poly1305::new(&key.into());
            prop_assert_eq!(oracle.encrypt(&n.into(), &text[..]).unwrap(), sealed);
        }
    }

    #[test]
    fn a_bomb_is_refused_before_it_expands() {
        let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 19).unwrap();
        let frame: Vec<u8> = [&[CODEC_ZSTD][..], &bomb].concat();
        let mut out = Vec::new();
        assert!(Expander::new().expand(&frame, 1000, &mut out).is_err());
        assert!(out.capacity() < 1 << 20);
    }

    #[test]
    fn a_frame_without_plain_bytes_is_padding_and_nothing_else() {
        let mut out = Vec::new();
        Expander::new().expand(&[CODEC_PADDING, 0, 0], 0, &mut out).unwrap();
        for (frame, raw) in
            [(&[CODEC_RAW][..], 0), (&[CODEC_PADDING, 0][..], 1), (&[CODEC_PADDING, 1][..], 0)]
        {
            assert!(Expander::new().expand(frame, raw, &mut out).is_err());
        }
    }
}
