//! Key commitment. ChaCha20-Poly1305 has none: one ciphertext can be made to open under two keys (Len, Grubbs, Ristenpart,
//! "Partitioning Oracle Attacks", 2021; Albertini and others, "How to Abuse and Fix Authenticated Encryption Without Key
//! Commitment", 2022). Here that is done to a slot, whose own commitment must stop it.

use bulla_repo_format::keys::Secret;
use bulla_repo_format::slot::{self, Argon2Params, Opened, Slot, SlotKind, SlotSecret};
use bulla_repo_format::{RepoId, RingId};
use chacha20::XChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use num_bigint::BigInt;

/// The header and the commitment, which are authenticated; then the nonce (SPEC 5.1).
const FIXED: usize = 86;
const SEALED: std::ops::Range<usize> = FIXED + 24..FIXED + 24 + 256;
/// Of the plaintext: inside the ring key, where any bytes decode.
const FREE: std::ops::Range<usize> = 32..48;

/// SPEC 5.1: the key-encryption key of a key file's key, and the commitment.
fn stretched(secret: &[u8; 32], salt: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut out = [0; 64];
    let mut hasher = blake3::Hasher::new_derive_key("bulla 1 slot key");
    hasher.update(&[3]).update(salt).update(secret).finalize_xof().fill(&mut out);
    (out[..32].try_into().unwrap(), out[32..].try_into().unwrap())
}

fn prime() -> BigInt {
    (BigInt::from(1) << 130) - 5
}

fn modulo(n: BigInt, p: &BigInt) -> BigInt {
    ((n % p) + p) % p
}

fn number(bytes: &[u8]) -> BigInt {
    BigInt::from_bytes_le(num_bigint::Sign::Plus, bytes)
}

/// One key's Poly1305 of a message that lacks one block: what the others add, the factor of that one, and what is added
/// at the end.
struct Tagger {
    others: BigInt,
    factor: BigInt,
    end: BigInt,
}

impl Tagger {
    fn new(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], text: &[u8]) -> Self {
        let mut once = [0; 32];
        XChaCha20::new(key.into(), nonce.into()).apply_keystream(&mut once);
        let clamp = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff_u128;
        let r = BigInt::from(u128::from_le_bytes(once[..16].try_into().unwrap()) & clamp);
        let mut message = aad.to_vec();
        message.resize(message.len().next_multiple_of(16), 0);
        let free = (message.len() + FREE.start) / 16;
        message.extend_from_slice(text);
        message.extend_from_slice(&(aad.len() as u64).to_le_bytes());
        message.extend_from_slice(&(text.len() as u64).to_le_bytes());
        let (p, blocks) = (prime(), message.chunks(16).count());
        let (mut others, mut factor) = (BigInt::ZERO, BigInt::ZERO);
        for (at, block) in message.chunks(16).enumerate() {
            let power = r.modpow(&BigInt::from(blocks - at), &p);
            match at == free {
                true => factor = power,
                false => others += (number(block) + (BigInt::from(1) << 128)) * power,
            }
        }
        Self { others: modulo(others, &p), factor, end: number(&once[16..]) }
    }
}

/// The block that gives both the same tag, if there is one for this nonce.
fn colliding(a: &Tagger, b: &Tagger) -> Option<[u8; 16]> {
    let (p, word) = (prime(), BigInt::from(1) << 128);
    let slope = modulo(&a.factor - &b.factor, &p).modpow(&(prime() - 2), &p);
    for carry in -3..=3 {
        let difference = &b.end - &a.end + BigInt::from(carry) * &word;
        let x = modulo((difference - &a.others + &b.others) * &slope, &p);
        let tag = |t: &Tagger| (modulo(&t.others + &x * &t.factor, &p) + &t.end) % &word;
        // The block itself, without the bit that Poly1305 puts on top of it.
        let block: BigInt = &x - &word;
        if block >= BigInt::ZERO && block < word && tag(a) == tag(b) {
            let mut out = block.to_bytes_le().1;
            out.resize(16, 0);
            return out.try_into().ok();
        }
    }
    None
}

#[test]
fn a_slot_made_to_open_under_two_keys_opens_under_the_one_it_commits_to() {
    let (first, second, repo) = ([7u8; 32], [8u8; 32], RepoId::new([0x41; 32]));
    let content =
        Opened { ring: RingId::new([1; 16]), key: Secret::new([2; 32]), label: "crafted".into(), created: 0 };
    let secret = |key: [u8; 32]| SlotSecret::Key(Secret::new(key));
    let made =
        slot::seal(&repo, SlotKind::KeyFile, Argon2Params::DEFAULT, &secret(first), &content, &[9; 64])
            .unwrap();
    let (one, other) = (stretched(&first, &made[22..54]).0, stretched(&second, &made[22..54]).0);
    let aad = [&made[..FIXED], repo.as_bytes()].concat();
    let nonce: [u8; 24] = made[FIXED..FIXED + 24].try_into().unwrap();
    let sealed = [&made[SEALED], &made[SEALED.end..SEALED.end + 16]].concat();
    let open = |key: &[u8; 32], nonce: &[u8; 24], sealed: &[u8]| {
        XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad })
    };
    let plain = open(&one, &nonce, &sealed).unwrap();

    let crafted = (0u64..).find_map(|n| {
        let mut nonce = nonce;
        nonce[16..].copy_from_slice(&n.to_le_bytes());
        let cipher = XChaCha20Poly1305::new(&one.into());
        let mut text = cipher.encrypt(&XNonce::from(nonce), &plain[..]).unwrap();
        text.truncate(256);
        let [a, b] = [&one, &other].map(|key| Tagger::new(key, &nonce, &aad, &text));
        text[FREE].copy_from_slice(&colliding(&a, &b)?);
        let free = number(&text[FREE]) + (BigInt::from(1) << 128);
        let tag: BigInt =
            (modulo(&a.others + free * &a.factor, &prime()) + &a.end) % (BigInt::from(1) << 128);
        let mut tag = tag.to_bytes_le().1;
        tag.resize(16, 0);
        Some((nonce, [text, tag].concat()))
    });
    let (nonce, sealed): ([u8; 24], Vec<u8>) = crafted.unwrap();
    assert!(
        open(&one, &nonce, &sealed).is_ok() && open(&other, &nonce, &sealed).is_ok(),
        "two keys, one text"
    );

    let mut slot = [&made[..FIXED], &nonce, &sealed].concat();
    slot.extend_from_slice(blake3::hash(&slot).as_bytes());
    let parsed = Slot::decode(&slot, 1 << 20).unwrap();
    let opened = parsed.open(&repo, &secret(first)).unwrap().unwrap();
    assert_eq!(opened.label, "crafted");
    assert!(parsed.open(&repo, &secret(second)).unwrap().is_none(), "the commitment is to the other key");

    // With the other's commitment the text no longer opens: the commitment is authenticated.
    let mut swapped = slot[..slot.len() - 32].to_vec();
    swapped[54..86].copy_from_slice(&stretched(&second, &made[22..54]).1);
    swapped.extend_from_slice(blake3::hash(&swapped).as_bytes());
    let parsed = Slot::decode(&swapped, 1 << 20).unwrap();
    assert!(parsed.open(&repo, &secret(first)).unwrap().is_none());
    assert!(parsed.open(&repo, &secret(second)).is_err());
}

/// SPEC 2, hedged nonces: a generator that repeats itself, as that of a machine that was set back, repeats a nonce for the
/// same plaintext only.
#[test]
fn a_generator_that_repeats_itself_gives_other_nonces_for_other_bodies() {
    let nonce = |label: &str, key: u8| {
        let (ring, key) = (RingId::new([1; 16]), Secret::new([key; 32]));
        let content = Opened { ring, key, label: label.into(), created: 0 };
        let secret = SlotSecret::Key(Secret::new([7; 32]));
        let repo = RepoId::new([0x41; 32]);
        let slot =
            slot::seal(&repo, SlotKind::KeyFile, Argon2Params::DEFAULT, &secret, &content, &[9; 64]).unwrap();
        slot[FIXED..FIXED + 24].to_vec()
    };
    assert_eq!(nonce("one", 2), nonce("one", 2));
    assert_ne!(nonce("one", 2), nonce("other", 2));
    assert_ne!(nonce("one", 2), nonce("one", 3));
}
