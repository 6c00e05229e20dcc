//! The secrets of the vectors, and sealing written a second time from SPEC.md: what the generator seals, the
//! crate must open.

use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::keys::{ClientKey, Keyring, Secret};
use bulla_repo_format::{ClientId, RepoId, RingId};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

pub(crate) const REPO: RepoId = RepoId::new([0x41; 32]);
pub(crate) const RING: RingId = RingId::new([0x51; 16]);

pub(crate) fn ring_key() -> Secret {
    Secret::new([0x31; 32])
}

pub(crate) fn keyring() -> Keyring {
    let roots = vec![Secret::new([0x11; 32]), Secret::new([0x12; 32])];
    Keyring::new(roots, vec![Secret::new([0x21; 32])]).unwrap()
}

pub(crate) fn client() -> ClientKey {
    let ring = keyring();
    ring.client_key(&ring.client_id("vector"))
}

pub(crate) fn client_id() -> ClientId {
    client().id()
}

pub(crate) fn xseal(key: &[u8; 32], nonce: &[u8; 24], aad: &[u8], text: &[u8]) -> Vec<u8> {
    let payload = Payload { msg: text, aad };
    XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(*nonce), payload).unwrap()
}

/// An envelope in all its parts, so that a case can spoil one of them.
pub(crate) struct Seal {
    pub(crate) ty: u8,
    pub(crate) magic: [u8; 6],
    pub(crate) suite: u8,
    pub(crate) epoch: u16,
    pub(crate) stanza_type: u16,
    pub(crate) stanza: Vec<u8>,
    pub(crate) repo: RepoId,
    /// Bytes behind the content.
    pub(crate) padding: Vec<u8>,
    /// Added to the length in front of the content.
    pub(crate) length_off: u32,
}

impl Seal {
    pub(crate) fn derived(ty: ObjectType) -> Self {
        Self {
            ty: ty as u8,
            magic: bulla_repo_format::MAGIC,
            suite: 1,
            epoch: 1,
            stanza_type: 0,
            stanza: Vec::new(),
            repo: REPO,
            padding: vec![0; 5],
            length_off: 0,
        }
    }

    pub(crate) fn config() -> Self {
        let stanza = [&REPO.as_bytes()[..], RING.as_bytes()].concat();
        Self { epoch: 0, stanza_type: 2, stanza, ..Self::derived(ObjectType::Config) }
    }

    /// Seals a content under the key its type and epoch ask for.
    pub(crate) fn seal(&self, ty: ObjectType, content: &[u8]) -> Vec<u8> {
        let key = match ty {
            ObjectType::Config => ring_key(),
            _ => keyring().envelope_key(self.epoch.min(1), ty).unwrap(),
        };
        let mut out = [&self.magic[..], &[self.ty, self.suite]].concat();
        for n in [self.epoch, self.stanza_type, self.stanza.len() as u16] {
            out.extend(n.to_le_bytes());
        }
        out.extend(&self.stanza);
        let aad = [&out[..], self.repo.as_bytes()].concat();
        let nonce: [u8; 24] = *blake3::hash(content).as_bytes().first_chunk().unwrap();
        let length = (content.len() as u32 + self.length_off).to_le_bytes();
        let text = [&length[..], content, &self.padding].concat();
        out.extend(nonce);
        out.extend(xseal(key.expose(), &nonce, &aad, &text));
        out
    }
}

/// Signs a body and seals it as an object of one type.
pub(crate) fn object(ty: ObjectType, body: &[u8]) -> Vec<u8> {
    let admin = keyring().admin_key();
    let (seal, key) = match ty {
        ObjectType::Config => (Seal::config(), admin),
        ObjectType::Client => (Seal::derived(ty), admin),
        _ => (Seal::derived(ty), client()),
    };
    seal.seal(ty, &signed(ty, body, &key))
}

pub(crate) fn signed(ty: ObjectType, body: &[u8], key: &ClientKey) -> Vec<u8> {
    [body, &key.sign(ty.context(), &REPO, body)].concat()
}
