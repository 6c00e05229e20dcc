//! A repository that was unlocked: everything a verb may touch. The verbs themselves live in their own folders.
//!
//! Kept true: nothing sealed leaves this folder unauthenticated, and every small object read was signed by the
//! client it names.

pub mod chunks;
mod history;
pub mod index;
mod init;
pub mod keys;
mod ledger;
mod open;
pub mod pack;
pub mod run;
mod setting;
pub mod snapshots;
pub mod tree;
pub(crate) mod upload;

pub use bulla_repo_format::slot::SlotSecret;
pub use init::{InitOptions, Initialised};
pub use ledger::Ledger;
pub use open::Found;
pub use snapshots::SnapshotFilter;

use crate::backend::{Backend, BackendError, Put};
use crate::env::Env;
use crate::error::{Error, Result};
use bulla_repo_format::config::Config;
use bulla_repo_format::envelope::{self, Header, ObjectType};
use bulla_repo_format::keys::{ClientKey, Keyring, SIGNATURE_LEN};
use bulla_repo_format::ledger::Record;
use bulla_repo_format::limits::{INDEX_MAX, OBJECT_MAX};
use bulla_repo_format::{BodyHash, ClientId, FormatError, ObjectName, RepoId, SlotId};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// Bytes kept aside for a full store. Half of them is what a prune needs there ([`crate::prune`]); forgets may take the rest, each a
/// block of the file system.
const RESERVE: u64 = 1 << 20;
const RESERVE_LEAST: u64 = RESERVE / 16;

/// An unlocked repository.
pub struct Repository {
    backend: Arc<dyn Backend>,
    config: Config,
    client: ClientKey,
    slot: SlotId,
    label: String,
    ring_key: bulla_repo_format::keys::Secret,
    env: Env,
    /// Records that were read: each is written once, and the ledger is asked for again and again.
    records: Mutex<HashMap<(ClientId, u64), (Record, BodyHash)>>,
}

impl Repository {
    /// Who it is.
    pub fn id(&self) -> RepoId {
        self.config.repo
    }
    /// The world as the caller described it.
    pub fn env(&self) -> &Env {
        &self.env
    }
    /// The store.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }
    /// The config generation in force.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// The secrets.
    pub fn keyring(&self) -> &Keyring {
        &self.config.keyring
    }
    /// The client this process signs as.
    pub fn client(&self) -> &ClientKey {
        &self.client
    }
    /// The slot that opened it.
    pub fn opened_by(&self) -> SlotId {
        self.slot
    }

    /// What that slot is called. The labels of others are sealed with their own secrets.
    pub fn opened_by_label(&self) -> &str {
        &self.label
    }

    pub(crate) fn ring_key(&self) -> &bulla_repo_format::keys::Secret {
        &self.ring_key
    }

    /// Keeps aside what forgets and a prune live on when the store is full.
    pub(crate) fn keep_reserve(&self) -> Result<()> {
        Ok(self.backend.reserve(RESERVE)?)
    }

    /// As much of it as there is room for, down to what a prune takes its smallest step with: an announcement, and a mark or a grave.
    pub(crate) fn keep_some_reserve(&self) -> Result<()> {
        let mut bytes = RESERVE;
        loop {
            match self.backend.reserve(bytes) {
                Err(BackendError::NoSpace { .. }) if bytes > RESERVE_LEAST => bytes /= 2,
                kept => return Ok(kept?),
            }
        }
    }

    /// Keeps what a prune lives on, and no more: the rest is for forgets.
    pub(crate) fn halve_reserve(&self) -> Result<()> {
        Ok(self.backend.reserve(RESERVE / 2)?)
    }

    /// Keeps nothing: this is the prune.
    pub(crate) fn give_back_reserve(&self) -> Result<()> {
        Ok(self.backend.reserve(0)?)
    }

    /// Refuses to write when the config has features this version cannot keep up.
    pub fn require_writable(&self) -> Result<()> {
        if self.config.writable() {
            Ok(())
        } else {
            Err(Error::ReadOnlyFeature { flags: self.config.ro_compat })
        }
    }

    /// Signs, seals and puts a small object.
    pub fn put_object(&self, name: &ObjectName, ty: ObjectType, body: Vec<u8>) -> Result<Put> {
        self.put_object_as(&self.client, name, ty, body)
    }

    pub(crate) fn put_object_as(
        &self,
        signer: &ClientKey,
        name: &ObjectName,
        ty: ObjectType,
        body: Vec<u8>,
    ) -> Result<Put> {
        let sealed = self.seal_object(signer, ty, body)?;
        Ok(self.backend.put(name, &[&sealed])?)
    }

    /// The bytes of a small object.
    pub(crate) fn seal_object(&self, signer: &ClientKey, ty: ObjectType, body: Vec<u8>) -> Result<Vec<u8>> {
        let epoch = self.keyring().epoch();
        let body = envelope::signed(body, ty, &self.id(), signer);
        let key = self.keyring().envelope_key(epoch, ty)?;
        Ok(envelope::seal(&Header::derived(ty, epoch), &self.id(), &key, &self.env.random(), &body))
    }

    /// Fetches and opens a small object: its body, and its signature for [`Repository::verify`].
    pub fn get_object(&self, name: &ObjectName, ty: ObjectType) -> Result<(Vec<u8>, [u8; SIGNATURE_LEN])> {
        let limit = if ty == ObjectType::Index { INDEX_MAX } else { OBJECT_MAX };
        let bytes = self.backend.get(name, limit)?;
        self.open_object(ty, &bytes).map_err(|e| Error::object(name, e))
    }

    /// Opens the bytes of a small object.
    pub(crate) fn open_object(
        &self,
        ty: ObjectType,
        bytes: &[u8],
    ) -> std::result::Result<(Vec<u8>, [u8; SIGNATURE_LEN]), FormatError> {
        let key = |h: &Header| self.keyring().envelope_key(h.epoch, ty);
        let (_, mut body) = envelope::open(ty, &self.id(), key, bytes)?;
        let (text, signature) = envelope::split_signature(ty, &body)?;
        let (len, signature) = (text.len(), *signature);
        body.truncate(len);
        Ok((body, signature))
    }

    /// Checks that `client` signed `body`. Format 1 derives every client's key from the keyring (SPEC 13).
    pub fn verify(
        &self,
        ty: ObjectType,
        client: &ClientId,
        body: &[u8],
        signature: &[u8; SIGNATURE_LEN],
    ) -> std::result::Result<(), FormatError> {
        if *client == self.client.id() {
            return self.client.verify(ty.context(), &self.id(), body, signature);
        }
        self.keyring().client_key(client).verify(ty.context(), &self.id(), body, signature)
    }
}
