//! Cases of key slots, made by hand from SPEC 5.1: cheap Argon2, and one slot whose seal opens under two passwords.

use crate::file::Vector;
use crate::keys::{REPO, RING, xseal};
use argon2::{Algorithm, Argon2, Params, Version};
use bulla_repo_format::cbor::{Value, map};
use bulla_repo_format::id::{from_hex, to_hex};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

/// The bytes of the key that opens the recovery and key-file slots.
const KEY: [u8; 32] = [0x81; 32];

struct Parts {
    kind: u8,
    params: [u32; 3],
    secret: Vec<u8>,
    salt: [u8; 32],
    nonce: [u8; 24],
    repo: [u8; 32],
    body: Vec<u8>,
    padding: u8,
}

fn body(ring_key: [u8; 32], label: &str) -> Vec<u8> {
    let fields = [
        (1, Some(Value::bytes(RING.as_bytes()))),
        (2, Some(Value::bytes(ring_key))),
        (3, Some(Value::text(label))),
        (4, Some(Value::Uint(0))),
    ];
    map(fields, &[]).encode()
}

/// Makes the checksum fit again.
fn checksum(slot: &mut [u8]) {
    if let Some((rest, sum)) = slot.split_last_chunk_mut::<32>() {
        *sum = *blake3::hash(rest).as_bytes();
    }
}

impl Parts {
    fn passphrase(text: &str) -> Self {
        Self {
            kind: 1,
            params: [64, 1, 1],
            secret: text.as_bytes().to_vec(),
            salt: [0x91; 32],
            nonce: [0x92; 24],
            repo: *REPO.as_bytes(),
            body: body([0x31; 32], "laptop"),
            padding: 0,
        }
    }

    fn key(kind: u8) -> Self {
        Self { kind, params: [0; 3], secret: KEY.to_vec(), ..Self::passphrase("") }
    }

    fn stretch(&self) -> ([u8; 32], [u8; 32]) {
        let mut out = [0; 64];
        if self.kind == 1 {
            let [m, t, p] = self.params;
            let params = Params::new(m, t, p, Some(64)).unwrap();
            let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            argon2.hash_password_into(&self.secret, &self.salt, &mut out).unwrap();
        } else {
            let mut h = blake3::Hasher::new_derive_key("bulla 1 slot key");
            h.update(&[self.kind]).update(&self.salt).update(&self.secret);
            h.finalize_xof().fill(&mut out);
        }
        (*out.first_chunk().unwrap(), *out.last_chunk().unwrap())
    }

    fn seal(&self) -> Vec<u8> {
        let (kek, commitment) = self.stretch();
        let mut out = [b"bulla\x01".as_slice(), &[2, 1, self.kind, 0]].concat();
        self.params.iter().for_each(|p| out.extend(p.to_le_bytes()));
        out.extend(self.salt);
        out.extend(commitment);
        let aad = [&out[..], &self.repo].concat();
        let mut text = [&(self.body.len() as u32).to_le_bytes()[..], &self.body].concat();
        text.resize(255, 0);
        text.push(self.padding);
        out.extend(self.nonce);
        out.extend(xseal(&kek, &self.nonce, &aad, &text));
        out.extend([0; 32]);
        checksum(&mut out);
        out
    }
}

/// The ciphertext opens under the keys of both `first` and `second`. Sixteen bytes of the ring key are free; the
/// Poly1305 tags under both keys are linear in that block modulo 2^130 - 5, so equating them gives it.
fn two_passwords() -> (Vec<u8>, String) {
    let free: [u8; 16] = from_hex("c6c33540d9c61b84b9503be8c92087c8").unwrap();
    let mut ring_key = [0x31; 32];
    ring_key[6..22].copy_from_slice(&free);
    let first = Parts { body: body(ring_key, "two"), nonce: [0; 24], ..Parts::passphrase("first") };
    let bytes = first.seal();
    let second = Parts { secret: b"second".to_vec(), ..first };
    let aad = [&bytes[..86], REPO.as_bytes()].concat();
    let payload = Payload { msg: &bytes[110..382], aad: &aad };
    let opened =
        XChaCha20Poly1305::new(&second.stretch().0.into()).decrypt(&XNonce::from(second.nonce), payload);
    assert!(opened.is_ok(), "the seal alone opens under the second password too");
    (bytes, to_hex(&ring_key))
}

pub(crate) fn cases() -> Vec<Vector> {
    let umlaut = Parts::passphrase("gr\u{fc}n").seal();
    let pass = |v: Vector, text: &str| v.with("passphrase", text);
    let key = |v: Vector| v.with("key", to_hex(&KEY));
    let (two, _) = two_passwords();
    let mut all = vec![
        pass(
            Vector::ok("slot", "composed", "a passphrase with a composed umlaut", umlaut.clone()),
            "gr\u{fc}n",
        ),
        pass(
            Vector::ok("slot", "decomposed", "the same slot, the umlaut decomposed", umlaut.clone()),
            "gru\u{308}n",
        ),
        key(Vector::ok("slot", "recovery", "a recovery key", Parts::key(2).seal())),
        key(Vector::ok("slot", "key-file", "a key file", Parts::key(3).seal())),
        pass(Vector::ok("slot", "two-passwords", "its first password", two.clone()), "first"),
        pass(
            Vector::reject(
                "slot",
                "R-SLOT-5",
                "two-passwords",
                "its seal opens under this password too; only the commitment does not",
                two,
            ),
            "second",
        ),
        pass(Vector::reject("slot", "R-SLOT-5", "wrong", "another passphrase", umlaut.clone()), "blau"),
        pass(Vector::reject("slot", "R-SLOT-5", "trimmed", "a blank is part of it", umlaut), "gr\u{fc}n "),
    ];
    all.extend(spoiled());
    all
}

fn spoiled() -> Vec<Vector> {
    let base = |kind| if kind == 1 { Parts::passphrase("x") } else { Parts::key(kind) };
    let given =
        |v: Vector, kind| if kind == 1 { v.with("passphrase", "x") } else { v.with("key", to_hex(&KEY)) };
    let no = |rule: &str, case: &str, note: &str, kind: u8, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = base(kind).seal();
        change(&mut bytes);
        if rule != "R-SLOT-9" {
            checksum(&mut bytes);
        }
        given(Vector::reject("slot", rule, case, note, bytes), kind)
    };
    let made = |rule: &str, case: &str, note: &str, change: &dyn Fn(&mut Parts)| {
        let mut parts = base(3);
        change(&mut parts);
        given(Vector::reject("slot", rule, case, note, parts.seal()), 3)
    };
    let number = |at: usize, v: u32| move |b: &mut Vec<u8>| b[at..at + 4].copy_from_slice(&v.to_le_bytes());
    vec![
        no("R-SLOT-1", "short", "413 bytes", 3, &|b| assert!(b.pop().is_some())),
        no("R-SLOT-1", "long", "415 bytes", 3, &|b| b.push(0)),
        no("R-SLOT-2", "version", "format version 2", 3, &|b| b[5] = 2),
        no("R-SLOT-2", "type", "a pack's type byte", 3, &|b| b[6] = 3),
        no("R-SLOT-2", "suite", "suite 2", 3, &|b| b[7] = 2),
        no("R-SLOT-3", "kind", "kind 4", 3, &|b| b[8] = 4),
        no("R-SLOT-3", "reserved", "byte 9 is one", 3, &|b| b[9] = 1),
        no("R-SLOT-4", "memory", "1 GiB and 1 KiB of memory", 1, &number(10, (1 << 20) + 1)),
        no("R-SLOT-4", "passes", "65 passes", 1, &number(14, 65)),
        no("R-SLOT-4", "lanes", "17 lanes", 1, &number(18, 17)),
        no("R-SLOT-4", "zero", "no passes", 1, &number(14, 0)),
        no("R-SLOT-4", "needless", "Argon2 parameters in a key-file slot", 3, &number(10, 64)),
        no("R-SLOT-5", "swapped-kind", "a recovery slot that calls itself a key file's", 2, &|b| b[8] = 3),
        no("R-SLOT-6", "tag", "the last bit of the tag flipped", 3, &|b| b[381] ^= 1),
        no("R-SLOT-9", "checksum", "a bit of the checksum flipped", 3, &|b| b[413] ^= 1),
        no("R-SLOT-9", "damage", "a bit of the salt flipped", 3, &|b| b[30] ^= 1),
        made("R-SLOT-6", "repository", "made for another repository", &|p| p.repo = [1; 32]),
        made("R-SLOT-7", "padding", "the last plain byte is one", &|p| p.padding = 1),
        made("R-SLOT-7", "body", "a body without a ring key", &|p| p.body = vec![0xa0]),
    ]
}
