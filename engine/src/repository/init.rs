//! Makes a repository: secrets, the first slots, and last the config, which is the commit of `init`.

use super::{Repository, SlotSecret, keys};
use crate::backend::{Backend, Put};
use crate::env::Env;
use crate::error::{Error, Result};
use bulla_repo_format::chunker::ChunkerParams;
use bulla_repo_format::config::Config;
use bulla_repo_format::keys::{Keyring, Secret};
use bulla_repo_format::limits::OBJECT_MAX;
use bulla_repo_format::slot::{Argon2Params, SlotKind, print_key};
use bulla_repo_format::{Area, ObjectName, RepoId, RingId, SlotId};
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

/// What a repository is made with; the defaults are measured (SPEC 7 and 8, rationale).
pub struct InitOptions {
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
    /// Cost of a passphrase.
    pub argon2: Argon2Params,
    /// What the first slot is called.
    pub label: String,
    /// Per cent of parity that writers add to new packs (SPEC 18), 1 to 100.
    pub parity: Option<u8>,
    /// Domain secrets of another repository: chunks then have the same ids in both, and can be copied as they are. Who
    /// has either secret can tell which chunks the other repository has.
    pub domains: Vec<Secret>,
}

impl InitOptions {
    /// Cut and identified as in `other`.
    pub fn like(other: &Repository) -> Self {
        let domains = other.keyring().domains().iter().map(Secret::duplicate).collect();
        Self { chunker: other.config().chunker, domains, ..Self::default() }
    }
}

impl Default for InitOptions {
    fn default() -> Self {
        Self {
            chunker: ChunkerParams::DEFAULT,
            data_frame: 4 << 20,
            meta_frame: 256 << 10,
            data_pack: 8 << 20,
            meta_pack: 4 << 20,
            argon2: Argon2Params::DEFAULT,
            label: String::new(),
            parity: None,
            domains: Vec::new(),
        }
    }
}

/// A new repository and the one copy of its recovery key.
pub struct Initialised {
    /// The repository, unlocked.
    pub repository: Repository,
    /// The printed recovery key. It is stored nowhere: whoever loses all other keys needs it.
    pub recovery_key: Zeroizing<String>,
}

impl Repository {
    /// True when a config is there.
    pub fn exists(backend: &dyn Backend) -> Result<bool> {
        Ok(backend.stat(&ObjectName::Config(0))?.is_some())
    }

    /// Makes a repository in an empty store (for [`crate::backend::Local`], after `create_layout`).
    pub fn init(
        backend: Arc<dyn Backend>,
        options: &InitOptions,
        secret: &SlotSecret,
        env: Env,
    ) -> Result<Initialised> {
        Self::init_with(backend, options, &[secret], env)
    }

    /// As [`Repository::init`]; each of `secrets` opens it.
    pub fn init_with(
        backend: Arc<dyn Backend>,
        options: &InitOptions,
        secrets: &[&SlotSecret],
        env: Env,
    ) -> Result<Initialised> {
        let place = backend.describe().place;
        if Self::exists(&*backend)? {
            return Err(Error::RepositoryExists { place });
        }
        nothing_but_keys(&*backend)?;
        let config = first_config(options, &env)?;
        let ring_key = Secret::new(env.random());
        let sealed = config.seal(&ring_key, &env.random());
        // Sizes out of bounds, or a fault of this machine: nobody could open it.
        Config::open(&sealed, 0, &ring_key)?;
        let client = config.keyring.client_key(&config.keyring.client_id(&env.machine));
        let (slot, label) = (SlotId::new([0; 16]), options.label.clone());
        let backend = super::open::with_copies(backend, &env, &config.repo, &[]);
        let mut repository =
            Self { backend, config, client, slot, label, ring_key, env, records: Mutex::default() };

        // Before anything can fill the store: without it a prune could not free space at zero bytes.
        repository.keep_reserve()?;
        // Of an init that was cut off: nobody knows a repository that they open.
        let strangers = repository.backend.list(Area::Keys)?;
        for secret in secrets.iter().rev() {
            let kind = keys::kind_of(secret);
            repository.slot = keys::add(&repository, kind, secret, &options.label, options.argon2)?;
        }
        let recovery = Secret::new(repository.env.random());
        let recovery_key = print_key(&recovery);
        let key = SlotSecret::Key(recovery);
        keys::add(&repository, SlotKind::Recovery, &key, "recovery key", options.argon2)?;
        let name = ObjectName::Config(0);
        let taken = repository.backend.put(&name, &[&sealed])? == Put::Exists;
        if taken && repository.backend.get(&name, OBJECT_MAX)? != sealed {
            return Err(Error::RepositoryExists { place });
        }
        repository.backend.flush()?;
        // Who put them cannot have made the config any more. Each would be tried whenever the repository is opened.
        for (slot, _) in strangers {
            let _ = repository.backend.delete(&slot);
        }
        Ok(Initialised { repository, recovery_key })
    }
}

/// Fails if the store holds more than an init that was cut off can have left: a repository that has lost its config looks
/// like none, and its keys open it again once the config is put back.
fn nothing_but_keys(backend: &dyn Backend) -> Result<()> {
    for area in Area::ALL.into_iter().filter(|area| !matches!(area, Area::Keys | Area::Config)) {
        if let Some((object, _)) = backend.list(area)?.first() {
            let place = backend.describe().place;
            return Err(Error::Refused(format!(
                "{place} holds {object}, so there is a repository that has lost its config; nothing was changed. Put \
                 its config back from a copy, or make the new repository in another place"
            )));
        }
    }
    Ok(())
}

/// New secrets, and everything as asked for.
fn first_config(options: &InitOptions, env: &Env) -> Result<Config> {
    options.parity.map_or(Ok(()), crate::parity::check_percent)?;
    let mut domains: Vec<Secret> = options.domains.iter().map(Secret::duplicate).collect();
    if domains.is_empty() {
        domains.push(Secret::new(env.random()));
    }
    Ok(Config {
        generation: 0,
        previous: None,
        repo: RepoId::new(env.random()),
        ring: RingId::new(env.random()),
        keyring: Keyring::new(vec![Secret::new(env.random())], domains)?,
        incompat: 0,
        ro_compat: 0,
        compat: 0,
        chunker: options.chunker,
        data_frame: options.data_frame,
        meta_frame: options.meta_frame,
        data_pack: options.data_pack,
        meta_pack: options.meta_pack,
        created: env.clock.now().seconds,
        parity: options.parity,
        unknown: Vec::new(),
    })
}
