//! Small objects: every one that is there must authenticate and stand under its own name.

use super::CheckReport;
use crate::error::{Error, Result};
use crate::repository::Repository;
use bulla_repo_format::config::{self, Config};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::limits::OBJECT_MAX;
use bulla_repo_format::record::{Announcement, Certificate, Death, Forget, Hold, Mark};
use bulla_repo_format::slot::{SLOT_LEN, Slot};
use bulla_repo_format::{Area, ClientId, FormatError, ObjectName};

type Format<T> = std::result::Result<T, FormatError>;

/// Opens everything but packs, index runs and snapshots, which have phases of their own.
pub(super) fn check(repository: &Repository, report: &mut CheckReport) -> Result<()> {
    use Area::{Announcements, Clients, Config, Deaths, Forgets, Holds, Keys, Marks};
    for area in [Config, Keys, Announcements, Deaths, Marks, Holds, Forgets, Clients] {
        for (name, _) in repository.backend().list(area)? {
            match object(repository, &name) {
                Ok(()) => {}
                // These come and go while others work.
                Err(e) if e.is_missing() && matches!(area, Announcements | Forgets | Holds | Keys) => {}
                Err(e) if e.is_damage() => drop(report.add(name.to_string(), e)),
                Err(e) => return Err(e),
            }
        }
    }
    for (name, reason) in repository.ledger_anew()?.flaws {
        report.add(name.to_string(), reason);
    }
    let runs = repository.list_runs(Area::Announcements)?;
    if !runs.is_empty() {
        report
            .notices
            .push(format!("{} announcements of runs without verdict (running, or interrupted)", runs.len()));
    }
    Ok(())
}

/// Opens one such object: it authenticates and stands under its own name. Other objects are accepted.
pub fn object(repository: &Repository, name: &ObjectName) -> Result<()> {
    let fail = |e| Error::object(name, e);
    match name {
        ObjectName::Config(generation) => {
            let bytes = repository.backend().get(name, OBJECT_MAX)?;
            let (repo, ring) = config::identify(&bytes).map_err(fail)?;
            // A generation of another ring is sealed under a key this process does not have; the one in force is not.
            let (ours, force) = (repository.id(), repository.config());
            if repo != ours || ring == force.ring || *generation == force.generation {
                Config::open(&bytes, *generation, repository.ring_key()).map_err(fail)?;
            }
            Ok(())
        }
        ObjectName::Slot(_) => {
            let bytes = repository.backend().get(name, SLOT_LEN as u64)?;
            Slot::decode(&bytes, u32::MAX).map(drop).map_err(fail)
        }
        ObjectName::Announcement(run, number) => signed(repository, name, ObjectType::Announcement, |body| {
            Announcement::decode(body, run, *number).map(|a| a.client)
        }),
        ObjectName::Death(id) => signed(repository, name, ObjectType::Death, |body| {
            let death = Death::decode(body, id)?;
            death.check_hash(repository.keyring()).map(|()| death.client)
        }),
        ObjectName::Mark(run) => {
            signed(repository, name, ObjectType::Mark, |body| Mark::decode(body, run).map(|m| m.client))
        }
        ObjectName::Hold(id) => {
            signed(repository, name, ObjectType::Hold, |body| Hold::decode(body, id).map(|h| h.client))
        }
        ObjectName::Forget(id) => {
            signed(repository, name, ObjectType::Forget, |body| Forget::decode(body, id).map(|f| f.client))
        }
        ObjectName::Record(client, sequence) => repository.read_record(client, *sequence).map(drop),
        ObjectName::Client(id) => {
            let (body, signature) = repository.get_object(name, ObjectType::Client)?;
            Certificate::decode(&body, id).map_err(fail)?;
            let admin = repository.keyring().admin_key();
            admin.verify(ObjectType::Client.context(), &repository.id(), &body, &signature).map_err(fail)
        }
        _ => Ok(()),
    }
}

fn signed(
    repository: &Repository,
    name: &ObjectName,
    ty: ObjectType,
    decode: impl FnOnce(&[u8]) -> Format<ClientId>,
) -> Result<()> {
    let fail = |e| Error::object(name, e);
    let (body, signature) = repository.get_object(name, ty)?;
    let client = decode(&body).map_err(fail)?;
    repository.verify(ty, &client, &body, &signature).map_err(fail)
}
