//! The key hierarchy (SPEC 4): two kinds of long-lived secrets and everything derived from them.
//!
//! Root secrets (one per epoch) lead to confidentiality and signatures, domain secrets to chunk ids,
//! cut points and tree splits. Each use has a BLAKE3 `derive_key` context of its own.

use crate::envelope::ObjectType;
use crate::error::{FormatError, Result};
use crate::id::{BodyHash, ChunkId, ClientId, RepoId};
use crate::pack::PackKind;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// 32 secret bytes. No `Debug`, `Clone` or comparison: secrets are moved, used and wiped.
#[derive(Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes over the bytes; the caller wipes its own copy.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
    /// The bytes, for a primitive.
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
    /// A second owner of the same secret, written out so that every copy is visible in review.
    pub fn duplicate(&self) -> Self {
        Self(self.0)
    }
}

fn derive(context: &str, parts: &[&[u8]]) -> Secret {
    let mut h = blake3::Hasher::new_derive_key(context);
    for p in parts {
        h.update(p);
    }
    Secret(*h.finalize().as_bytes())
}

/// The secrets of a repository, as they stand in the sealed config.
pub struct Keyring {
    roots: Vec<Secret>,
    domains: Vec<Secret>,
}

/// What a chunk holds; part of its id's key, so no file content can pass as metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkKind {
    /// A piece of a file.
    Data,
    /// A tree node, list node or metadata block.
    Meta,
}

impl Keyring {
    /// A keyring of the given epochs and domains; both must hold at least one secret.
    pub fn new(roots: Vec<Secret>, domains: Vec<Secret>) -> Result<Self> {
        if roots.is_empty() || domains.is_empty() || roots.len() > 0xffff || domains.len() > 0xffff {
            return Err(FormatError::invalid("keyring", "needs 1 to 65535 root and domain secrets"));
        }
        Ok(Self { roots, domains })
    }
    /// The root secrets by epoch.
    pub fn roots(&self) -> &[Secret] {
        &self.roots
    }
    /// The domain secrets by number.
    pub fn domains(&self) -> &[Secret] {
        &self.domains
    }
    /// The epoch new objects are sealed under.
    pub fn epoch(&self) -> u16 {
        u16::try_from(self.roots.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }
    /// The domain new chunks are identified under.
    pub fn domain(&self) -> u16 {
        u16::try_from(self.domains.len().saturating_sub(1)).unwrap_or(u16::MAX)
    }
    fn root(&self, epoch: u16) -> Result<&Secret> {
        self.roots
            .get(usize::from(epoch))
            .ok_or(FormatError::invalid("object", "sealed under an epoch this config does not have"))
    }
    fn domain_secret(&self, domain: u16) -> Result<&Secret> {
        self.domains
            .get(usize::from(domain))
            .ok_or(FormatError::invalid("object", "made under a domain this config does not have"))
    }

    /// The key of small sealed objects of one type.
    pub fn envelope_key(&self, epoch: u16, ty: ObjectType) -> Result<Secret> {
        Ok(derive("bulla 1 envelope key", &[self.root(epoch)?.expose(), &[ty as u8]]))
    }
    /// The secret of one pack, from which its frame keys and commitment come.
    pub fn pack_secret(&self, epoch: u16, kind: PackKind, salt: &[u8; 32]) -> Result<Secret> {
        let context = match kind {
            PackKind::Data => "bulla 1 pack data",
            PackKind::Meta => "bulla 1 pack meta",
        };
        Ok(derive(context, &[self.root(epoch)?.expose(), salt]))
    }
    /// The key of pack directories and trailers.
    pub fn directory_key(&self, epoch: u16) -> Result<Secret> {
        Ok(derive("bulla 1 pack directory key", &[self.root(epoch)?.expose()]))
    }
    /// The signing key of a client that holds this keyring.
    pub fn client_key(&self, client: &ClientId) -> ClientKey {
        let seed = match self.roots.first() {
            Some(root) => derive("bulla 1 client sign", &[root.expose(), client.as_bytes()]),
            None => Secret([0; 32]),
        };
        ClientKey { id: *client, key: SigningKey::from_bytes(seed.expose()) }
    }
    /// The admin key, which signs config generations and certificates. Its client id is all zeros.
    pub fn admin_key(&self) -> ClientKey {
        let seed = match self.roots.first() {
            Some(root) => derive("bulla 1 admin sign", &[root.expose()]),
            None => Secret([0; 32]),
        };
        ClientKey { id: ClientId::new([0; 16]), key: SigningKey::from_bytes(seed.expose()) }
    }
    /// The id of a client whose machine is called `name`: stable without local state.
    pub fn client_id(&self, name: &str) -> ClientId {
        let root = self.roots.first().map_or(&[0u8; 32], Secret::expose);
        let s = derive("bulla 1 client id", &[root, name.as_bytes()]);
        let mut id = [0; 16];
        id.iter_mut().zip(s.expose()).for_each(|(o, b)| *o = *b);
        ClientId::new(id)
    }
    /// The key by which chunks of one kind are identified.
    pub fn id_key(&self, domain: u16, kind: ChunkKind) -> Result<IdKey> {
        let context = match kind {
            ChunkKind::Data => "bulla 1 chunk id data",
            ChunkKind::Meta => "bulla 1 chunk id meta",
        };
        Ok(IdKey(derive(context, &[self.domain_secret(domain)?.expose()])))
    }
    /// The key of the gear table.
    pub fn chunker_key(&self, domain: u16) -> Result<Secret> {
        Ok(derive("bulla 1 chunker", &[self.domain_secret(domain)?.expose()]))
    }
    /// The key of the tree's split rule.
    pub fn split_key(&self, domain: u16) -> Result<Secret> {
        Ok(derive("bulla 1 tree split", &[self.domain_secret(domain)?.expose()]))
    }
    /// The keyed hash by which lineages name a snapshot's body (the CBOR that was signed, without signature).
    pub fn body_hash(&self, body: &[u8]) -> BodyHash {
        let root = self.roots.first().map_or(&[0u8; 32], Secret::expose);
        BodyHash::new(*blake3::keyed_hash(derive("bulla 1 body hash", &[root]).expose(), body).as_bytes())
    }
    /// The key of a client's local cache pages, so that a cache is trusted no more than the store.
    pub fn cache_key(&self) -> Secret {
        let root = self.roots.first().map_or(&[0u8; 32], Secret::expose);
        derive("bulla 1 local cache", &[root])
    }
}

/// Identifies chunks of one kind and domain.
#[derive(ZeroizeOnDrop)]
pub struct IdKey(Secret);

impl IdKey {
    /// The id of a plaintext.
    pub fn identify(&self, plaintext: &[u8]) -> ChunkId {
        ChunkId::new(*blake3::keyed_hash(self.0.expose(), plaintext).as_bytes())
    }
}

/// Length of an Ed25519 signature.
pub const SIGNATURE_LEN: usize = 64;

/// A client's signing key.
pub struct ClientKey {
    id: ClientId,
    key: SigningKey,
}

impl ClientKey {
    /// Who signs.
    pub fn id(&self) -> ClientId {
        self.id
    }
    /// The public half, for a certificate.
    pub fn public(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }
    /// Signs `body` for one context and repository.
    pub fn sign(&self, context: &str, repo: &RepoId, body: &[u8]) -> [u8; SIGNATURE_LEN] {
        self.key.sign(&message(context, repo, body)).to_bytes()
    }
    /// Checks a signature made by [`ClientKey::sign`].
    pub fn verify(
        &self,
        context: &'static str,
        repo: &RepoId,
        body: &[u8],
        signature: &[u8; 64],
    ) -> Result<()> {
        verify(&self.public(), context, repo, body, signature)
    }
}

/// Checks a signature under a public key; weak keys and non-canonical signatures are refused.
pub fn verify(
    public: &[u8; 32],
    context: &'static str,
    repo: &RepoId,
    body: &[u8],
    signature: &[u8; SIGNATURE_LEN],
) -> Result<()> {
    let bad = FormatError::Unauthentic { what: context };
    let key = VerifyingKey::from_bytes(public).map_err(|_| bad.clone())?;
    key.verify_strict(&message(context, repo, body), &Signature::from_bytes(signature)).map_err(|_| bad)
}

/// What is signed: context length and context, repository, and the hash of the exact bytes. The hash keeps
/// the message small for directories of a hundred megabytes.
fn message(context: &str, repo: &RepoId, body: &[u8]) -> Vec<u8> {
    let mut m = Vec::with_capacity(context.len() + 72);
    m.extend_from_slice(&(context.len() as u64).to_le_bytes());
    m.extend_from_slice(context.as_bytes());
    m.extend_from_slice(repo.as_bytes());
    m.extend_from_slice(blake3::hash(body).as_bytes());
    m
}
