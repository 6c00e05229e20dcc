//! Key slots: list, add, remove. A slot seals only the ring key, so passphrases come and go without touching data.

use super::{Repository, SlotSecret};
use crate::backend::{Backend, Put};
use crate::error::{Error, Result};
use bulla_repo_format::limits::SLOTS_MAX;
use bulla_repo_format::slot::{self, Argon2Params, Opened, SLOT_LEN, Slot, SlotKind};
use bulla_repo_format::{Area, ObjectName, SlotId};

/// What can be known of a slot without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotInfo {
    /// The slot.
    pub id: SlotId,
    /// What opens it; `None` when its bytes are damaged.
    pub kind: Option<SlotKind>,
}

/// The natural slot of a secret.
pub fn kind_of(secret: &SlotSecret) -> SlotKind {
    match secret {
        SlotSecret::Passphrase(_) => SlotKind::Passphrase,
        SlotSecret::Key(_) => SlotKind::KeyFile,
    }
}

/// All slots.
pub fn list(repository: &Repository) -> Result<Vec<SlotInfo>> {
    list_in(&**repository.backend())
}

/// All slots, without opening the repository: kinds are no secret.
pub fn list_in(backend: &dyn Backend) -> Result<Vec<SlotInfo>> {
    let mut out = Vec::new();
    for (name, _) in backend.list(Area::Keys)? {
        let ObjectName::Slot(id) = name else { continue };
        let bytes = backend.get(&name, SLOT_LEN as u64)?;
        out.push(SlotInfo { id, kind: Slot::decode(&bytes, u32::MAX).ok().map(|s| s.kind) });
    }
    out.sort_by_key(|s| s.id);
    Ok(out)
}

/// Adds a slot that opens with `secret`. It is opened again before this returns.
pub fn add(
    repository: &Repository,
    kind: SlotKind,
    secret: &SlotSecret,
    label: &str,
    cost: Argon2Params,
) -> Result<SlotId> {
    repository.require_writable()?;
    if repository.backend().list(Area::Keys)?.len() >= SLOTS_MAX {
        return Err(Error::Refused(format!("there are {SLOTS_MAX} key slots already; remove one first")));
    }
    if matches!(secret, SlotSecret::Passphrase(p) if p.is_empty()) {
        return Err(Error::Refused("an empty passphrase protects nothing".into()));
    }
    let env = repository.env();
    let content = Opened {
        ring: repository.config().ring,
        key: repository.ring_key.duplicate(),
        label: label.to_owned(),
        created: env.clock.now().seconds,
    };
    let bytes = slot::seal(&repository.id(), kind, cost, secret, &content, &env.random())?;
    let again = Slot::decode(&bytes, u32::MAX)?.open(&repository.id(), secret)?;
    if again.is_none_or(|o| o.key.expose() != repository.ring_key.expose()) {
        return Err(Error::Damaged {
            what: "a new key slot".into(),
            reason: "it does not open again".into(),
        });
    }
    let id = SlotId::new(env.random());
    if repository.backend().put(&ObjectName::Slot(id), &[&bytes])? == Put::Exists {
        return Err(Error::Refused("a slot of that id exists".into()));
    }
    repository.backend().flush()?;
    Ok(id)
}

/// Removes a slot; the last one, and the one this process opened the repository with, stay.
pub fn remove(repository: &Repository, id: &SlotId) -> Result<()> {
    repository.require_writable()?;
    let slots = list(repository)?;
    if !slots.iter().any(|s| s.id == *id) {
        return Err(Error::Refused(format!("there is no key slot {id}")));
    }
    if slots.iter().filter(|s| s.kind.is_some()).count() < 2 {
        return Err(Error::Refused(
            "this is the last key slot: without it nobody can open the repository".into(),
        ));
    }
    if *id == repository.opened_by() {
        return Err(Error::Refused(
            "this slot is in use; open the repository with another key to remove it".into(),
        ));
    }
    repository.backend().delete(&ObjectName::Slot(*id))?;
    Ok(repository.backend().flush()?)
}

/// Replaces the passphrase this repository was opened with: adds the new slot, then removes the old one.
pub fn replace(
    repository: &Repository,
    secret: &SlotSecret,
    label: &str,
    cost: Argon2Params,
) -> Result<SlotId> {
    let new = add(repository, kind_of(secret), secret, label, cost)?;
    repository.backend().delete(&ObjectName::Slot(repository.opened_by()))?;
    repository.backend().flush()?;
    Ok(new)
}
