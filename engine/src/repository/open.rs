//! Opens a repository: the newest config that authenticates, under a ring key from one of the slots.

use super::{Repository, SlotSecret, keys};
use crate::backend::{Backend, Nearby};
use crate::env::Env;
use crate::error::{Error, Result};
use bulla_repo_format::config::{self, Config};
use bulla_repo_format::limits::{ARGON2_MEMORY_MAX_KIB, OBJECT_MAX, PASSPHRASE_SLOTS_TRIED, SLOTS_MAX};
use bulla_repo_format::slot::{Opened, SLOT_LEN, Slot, SlotKind};
use bulla_repo_format::{Area, FormatError, ObjectName, RepoId, SlotId};
use std::sync::{Arc, Mutex};

/// A repository that was found: its generations of the config and its slots are listed, and no object was read.
pub struct Found {
    backend: Arc<dyn Backend>,
    generations: Vec<u32>,
    slots: Vec<(ObjectName, u64)>,
}

impl Repository {
    /// Looks whether there is a repository in `backend`, before anybody is asked for a secret.
    ///
    /// # Errors
    /// [`Error::NoRepository`] if there is none.
    pub fn find(backend: Arc<dyn Backend>) -> Result<Found> {
        let listed = backend.list_many(&[Area::Config, Area::Keys]).or_else(|e| match e {
            crate::backend::BackendError::NotFound { .. } => Ok(Vec::new()),
            e => Err(e),
        })?;
        let mut listed = listed.into_iter();
        let generation = |(name, _)| if let ObjectName::Config(g) = name { Some(g) } else { None };
        let mut generations: Vec<u32> =
            listed.next().unwrap_or_default().into_iter().filter_map(generation).collect();
        generations.sort_unstable();
        if generations.is_empty() {
            return Err(Error::NoRepository { place: backend.describe().place });
        }
        Ok(Found { backend, generations, slots: listed.next().unwrap_or_default() })
    }

    /// Opens the repository in `backend` with a passphrase or key.
    ///
    /// # Errors
    /// As of [`Repository::find`] and [`Found::open`].
    pub fn open(backend: Arc<dyn Backend>, secret: &SlotSecret, env: Env) -> Result<Self> {
        Self::find(backend)?.open(secret, env)
    }
}

impl Found {
    /// Opens it with a passphrase or key.
    ///
    /// # Errors
    /// [`Error::WrongSecret`] if no slot opens; damage; whatever the store fails with.
    pub fn open(mut self, secret: &SlotSecret, env: Env) -> Result<Repository> {
        let first = self.next_config()?;
        let repo = identity(&first)?;
        let backend = with_copies(self.backend.clone(), &env, &repo, &self.slots);
        let slots = std::mem::take(&mut self.slots);
        let (slot, opened) = open_slot(&*backend, slots, &repo, secret)?;
        let config = self.open_config(first, &opened)?;
        let client = config.keyring.client_key(&config.keyring.client_id(&env.machine));
        let env = if env.fresh && !backend.describe().local { Env { cache: None, ..env } } else { env };
        let (label, ring_key, records) = (opened.label, opened.key, Mutex::default());
        Ok(Repository { backend, config, client, slot, label, ring_key, env, records })
    }

    /// Which repository it is, by its newest config; that this is true is proven only by opening it.
    ///
    /// # Errors
    /// Damage, and whatever the store fails with.
    pub fn identify(mut self) -> Result<RepoId> {
        identity(&self.next_config()?)
    }

    /// The next config, newest first.
    fn next_config(&mut self) -> Result<(u32, Vec<u8>)> {
        let missing = || Error::NoRepository { place: self.backend.describe().place };
        let generation = self.generations.pop().ok_or_else(missing)?;
        Ok((generation, self.backend.get(&ObjectName::Config(generation), OBJECT_MAX)?))
    }

    /// The newest generation that opens with this ring key. A stale slot opens the generation it knows.
    fn open_config(&mut self, first: (u32, Vec<u8>), opened: &Opened) -> Result<Config> {
        let (mut next, mut failure) = (first, None);
        loop {
            let (generation, bytes) = next;
            match Config::open(&bytes, generation, &opened.key) {
                Ok(config) => return Ok(config),
                Err(e @ FormatError::UnknownFeature { .. }) => return Err(e.into()),
                Err(e) => failure = failure.or(Some(Error::object(&ObjectName::Config(generation), e))),
            }
            next = match (self.next_config(), failure) {
                (Ok(older), kept) => {
                    failure = kept;
                    older
                }
                (Err(Error::NoRepository { .. }), Some(failure)) => return Err(failure),
                (Err(e), _) => return Err(e),
            };
        }
    }
}

fn identity((generation, bytes): &(u32, Vec<u8>)) -> Result<RepoId> {
    let identified = config::identify(bytes);
    identified.map(|(id, _)| id).map_err(|e| Error::object(&ObjectName::Config(*generation), e))
}

/// A store at a distance gets copies of its metadata on this machine; those of slots that are not among `slots` go.
pub(super) fn with_copies(
    backend: Arc<dyn Backend>,
    env: &Env,
    repo: &RepoId,
    slots: &[(ObjectName, u64)],
) -> Arc<dyn Backend> {
    match &env.cache {
        Some(cache) if !backend.describe().local => {
            let dir = cache.join(repo.to_string()).join("objects");
            let nearby = if env.fresh { Nearby::of_ledger(backend, dir) } else { Nearby::new(backend, dir) };
            nearby.sweep(Area::Keys, slots);
            Arc::new(nearby)
        }
        _ => backend,
    }
}

/// The first slot that opens with `secret`.
fn open_slot(
    backend: &dyn Backend,
    slots: Vec<(ObjectName, u64)>,
    repo: &RepoId,
    secret: &SlotSecret,
) -> Result<(SlotId, Opened)> {
    let passphrase = keys::kind_of(secret) == SlotKind::Passphrase;
    let (mut tried, mut failure) = (0, None);
    let mut names: Vec<_> = slots.into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in names.into_iter().take(SLOTS_MAX) {
        let ObjectName::Slot(id) = name else { continue };
        let slot = match backend.get_listed(&name, SLOT_LEN as u64).map_err(Error::from).and_then(|bytes| {
            Slot::decode(&bytes, ARGON2_MEMORY_MAX_KIB).map_err(|e| Error::object(&name, e))
        }) {
            Ok(slot) => slot,
            Err(e) => {
                failure = Some(e);
                continue;
            }
        };
        if (slot.kind == SlotKind::Passphrase) != passphrase {
            continue;
        }
        tried += 1;
        if passphrase && tried > PASSPHRASE_SLOTS_TRIED {
            break;
        }
        match slot.open(repo, secret) {
            Ok(Some(opened)) => return Ok((id, opened)),
            Ok(None) => {}
            Err(e) => failure = Some(Error::object(&name, e)),
        }
    }
    match failure {
        // A damaged slot is worth naming only if no sound one could have been meant.
        Some(e) if tried == 0 => Err(e),
        _ => Err(Error::WrongSecret { slots: tried.min(PASSPHRASE_SLOTS_TRIED.max(tried)) }),
    }
}
