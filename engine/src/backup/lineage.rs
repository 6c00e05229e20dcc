//! What came before: the parent to compare with, and the heads of this client's lineage (SPEC 11).

use super::BackupOptions;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use crate::repository::snapshots::{Listed, Position};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::record::{Capabilities, Certificate};
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::{IndexName, ObjectName, RunId};
use std::collections::HashSet;

/// What a backup is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// The newest snapshot of the same host and paths.
    Auto,
    /// Nothing: every file is read.
    None,
    /// This one.
    Id(RunId),
}

/// Facts gathered before a backup starts.
pub struct Lineage {
    /// The snapshot to compare with.
    pub parent: Option<Snapshot>,
    /// Where the new snapshot will stand.
    pub(crate) position: Position,
    /// Set when the store shows an older state than was seen. A backup goes on: it takes nothing away, and one more is
    /// better than one less.
    pub alarm: Option<String>,
    /// The index runs that were there.
    pub(crate) index: HashSet<IndexName>,
}

impl Lineage {
    /// Reads the snapshots that are alive. Unreadable ones are reported and stand in nobody's way.
    pub fn gather(
        repository: &Repository,
        options: &BackupOptions,
        paths: &[Vec<u8>],
        observer: &dyn Observer,
    ) -> Result<Self> {
        let pins = repository.load_pins();
        let (listed, index) = repository.read_snapshots_and_index_names()?;
        let alarm = match pins.and_then(|pins| repository.witness(&pins, &listed)) {
            Err(e @ Error::RolledBack { .. }) => Some(e.to_string()),
            other => other.map(|()| None)?,
        };
        let forgotten = repository.forgotten_among(&listed)?;
        let Listed { alive, failed, .. } = listed;
        for e in failed {
            if !e.is_damage() {
                return Err(e);
            }
            observer.event(&Event::Warning(&format!("a snapshot cannot be read: {e}; run `bulla check`")));
        }
        let parent = match options.parent {
            Parent::None => None,
            Parent::Id(id) => {
                let found = alive.iter().find(|(s, _)| s.id == id).map(|(s, _)| s.clone());
                Some(found.ok_or_else(|| Error::UnknownSnapshot { selector: id.to_string() })?)
            }
            Parent::Auto => {
                let fits = |s: &Snapshot| {
                    s.host == options.host && s.paths == paths && !forgotten.contains_key(&s.id)
                };
                alive.iter().map(|(s, _)| s).rfind(|s| fits(s)).cloned()
            }
        };
        let position = Position::of(repository, &alive);
        Ok(Self { parent, position, alarm, index })
    }
}

impl Repository {
    /// Puts this client's certificate unless it is there (SPEC 13).
    pub(crate) fn certify(&self) -> Result<()> {
        let (repository, client) = (self, self.client());
        let name = ObjectName::Client(client.id());
        if repository.backend().stat(&name)?.is_some() {
            return Ok(());
        }
        let certificate = Certificate {
            client: client.id(),
            public: client.public(),
            capabilities: Capabilities { write: true, maintain: true, attest: true, admin: true },
            group: 0,
            name: repository.env().machine.clone(),
        };
        let admin = repository.keyring().admin_key();
        repository.put_object_as(&admin, &name, ObjectType::Client, certificate.encode())?;
        repository.backend().flush()?;
        Ok(())
    }
}
