//! Project Wycheproof's cases, made from attacks on implementations, and two implementations of one cipher side by side.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};
use ed25519_dalek::{Signature, VerifyingKey};
use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wycheproof::TestResult;
use wycheproof::aead::{self, Test};
use wycheproof::eddsa;

fn ring_seal(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut out = text.to_vec();
    key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut out).unwrap();
    out
}

fn ring_open(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut text = sealed.to_vec();
    let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut text);
    opened.ok().map(|t| t.to_vec())
}

type Open = fn(&[u8; 32], &[u8], &[u8], &[u8]) -> Option<Vec<u8>>;

/// By the implementation of frames, and by the other.
fn chacha(key: &[u8; 32], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; 12] = nonce.try_into().ok()?;
    let other = ChaCha20Poly1305::new(key.into());
    let opened = other.decrypt(&nonce.into(), Payload { msg: sealed, aad }).ok();
    assert_eq!(opened, ring_open(key, nonce, aad, sealed));
    opened
}

fn xchacha(key: &[u8; 32], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce: [u8; 24] = nonce.try_into().ok()?;
    XChaCha20Poly1305::new(key.into()).decrypt(&nonce.into(), Payload { msg: sealed, aad }).ok()
}

fn case(open: Open, test: &Test) {
    let key: &[u8; 32] = test.key[..].try_into().unwrap();
    let sealed = [&test.ct[..], &test.tag[..]].concat();
    let opened = open(key, &test.nonce, &test.aad, &sealed);
    let expected = (test.result != TestResult::Invalid).then(|| test.pt.to_vec());
    assert_eq!(opened, expected, "case {}: {}", test.tc_id, test.comment);
}

#[test]
fn ciphers_open_what_they_should_and_nothing_else() {
    for (name, open, least) in [
        (aead::TestName::ChaCha20Poly1305, chacha as Open, 300),
        (aead::TestName::XChaCha20Poly1305, xchacha, 280),
    ] {
        let mut cases = 0;
        for group in aead::TestSet::load(name).unwrap().test_groups {
            group.tests.iter().for_each(|test| case(open, test));
            cases += group.tests.len();
        }
        assert!(cases >= least, "{cases} cases of {name:?}");
    }
}

/// As `repo-format` verifies: strictly.
#[test]
fn signatures_are_taken_for_what_they_are() {
    let mut cases = 0;
    for group in eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap().test_groups {
        let key = VerifyingKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
        for test in &group.tests {
            let bytes: Result<[u8; 64], _> = test.sig[..].try_into();
            let held = bytes.is_ok_and(|b| key.verify_strict(&test.msg, &Signature::from_bytes(&b)).is_ok());
            assert_eq!(held, test.result == TestResult::Valid, "case {}: {}", test.tc_id, test.comment);
            cases += 1;
        }
    }
    assert!(cases >= 140, "{cases} cases");
}

proptest! {
    #[test]
    fn two_implementations_agree(
        key: [u8; 32],
        nonce: [u8; 12],
        aad in prop::collection::vec(any::<u8>(), 0..100),
        text in prop::collection::vec(any::<u8>(), 0..2000),
        flip: prop::sample::Index,
    ) {
        let other = ChaCha20Poly1305::new(&key.into());
        let mut sealed = other.encrypt(&nonce.into(), Payload { msg: &text, aad: &aad }).unwrap();
        prop_assert_eq!(&sealed, &ring_seal(&key, nonce, &aad, &text));
        prop_assert_eq!(chacha(&key, &nonce, &aad, &sealed), Some(text));
        let at = flip.index(sealed.len() * 8);
        sealed[at / 8] ^= 1 << (at % 8);
        prop_assert_eq!(chacha(&key, &nonce, &aad, &sealed), None);
    }
}
