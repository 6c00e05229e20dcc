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

impl Repository {
    /// Opens the repository in `backend` with a passphrase or key.
    pub fn open(backend: Arc<dyn Backend>, secret: &SlotSecret, env: Env) -> Result<Self> {
        let mut configs = config_generations(&*backend)?;
        let (newest, bytes) = configs.next_object()?.ok_or_else(|| configs.missing())?;
        let (repo, _) =
            config::identify(&bytes).map_err(|e| Error::object(&ObjectName::Config(newest), e))?;
        let backend = with_copies(backend.clone(), &env, &repo);
        let (slot, opened) = open_slot(&*backend, &repo, secret)?;
        let config = open_config(&mut configs, (newest, bytes), &opened)?;
        let client = config.keyring.client_key(&config.keyring.client_id(&env.machine));
        let env = if env.fresh && !backend.describe().local { Env { cache: None, ..env } } else { env };
        let (label, ring_key, records) = (opened.label, opened.key, Mutex::default());
        Ok(Self { backend, config, client, slot, label, ring_key, env, records })
    }
}

impl Repository {
    /// Which repository is in `backend`, by its newest config; that this is true is proven only by opening it.
    pub fn identify(backend: &dyn Backend) -> Result<RepoId> {
        let mut configs = config_generations(backend)?;
        let (newest, bytes) = configs.next_object()?.ok_or_else(|| configs.missing())?;
        config::identify(&bytes).map(|(id, _)| id).map_err(|e| Error::object(&ObjectName::Config(newest), e))
    }
}

/// A store at a distance gets copies of its metadata on this machine.
pub(super) fn with_copies(backend: Arc<dyn Backend>, env: &Env, repo: &RepoId) -> Arc<dyn Backend> {
    match &env.cache {
        Some(cache) if !backend.describe().local => {
            let dir = cache.join(repo.to_string()).join("objects");
            Arc::new(if env.fresh { Nearby::of_ledger(backend, dir) } else { Nearby::new(backend, dir) })
        }
        _ => backend,
    }
}

/// Config generations, newest first.
struct Generations<'b> {
    backend: &'b dyn Backend,
    left: Vec<u32>,
}

fn config_generations(backend: &dyn Backend) -> Result<Generations<'_>> {
    let listed = backend.list(Area::Config).or_else(|e| match e {
        crate::backend::BackendError::NotFound { .. } => Ok(Vec::new()),
        e => Err(e),
    })?;
    let generation = |(name, _)| if let ObjectName::Config(g) = name { Some(g) } else { None };
    let mut left: Vec<u32> = listed.into_iter().filter_map(generation).collect();
    left.sort_unstable();
    Ok(Generations { backend, left })
}

impl Generations<'_> {
    fn next_object(&mut self) -> Result<Option<(u32, Vec<u8>)>> {
        let Some(g) = self.left.pop() else { return Ok(None) };
        Ok(Some((g, self.backend.get(&ObjectName::Config(g), OBJECT_MAX)?)))
    }
    fn missing(&self) -> Error {
        Error::NoRepository { place: self.backend.describe().place }
    }
}

/// The newest generation that opens with this ring key. A stale slot opens the generation it knows.
fn open_config(generations: &mut Generations<'_>, first: (u32, Vec<u8>), opened: &Opened) -> Result<Config> {
    let mut next = Some(first);
    let mut failure = None;
    while let Some((generation, bytes)) = next {
        match Config::open(&bytes, generation, &opened.key) {
            Ok(config) => return Ok(config),
            Err(e @ FormatError::UnknownFeature { .. }) => return Err(e.into()),
            Err(e) => failure = failure.or(Some(Error::object(&ObjectName::Config(generation), e))),
        }
        next = generations.next_object()?;
    }
    Err(failure.unwrap_or_else(|| generations.missing()))
}

/// The first slot that opens with `secret`.
fn open_slot(backend: &dyn Backend, repo: &RepoId, secret: &SlotSecret) -> Result<(SlotId, Opened)> {
    let passphrase = keys::kind_of(secret) == SlotKind::Passphrase;
    let (mut tried, mut failure) = (0, None);
    let mut names: Vec<_> = backend.list(Area::Keys)?.into_iter().map(|(name, _)| name).collect();
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
