//! What came before: the parent to compare with, and the heads of this client's lineage (SPEC 11).

use super::BackupOptions;
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use crate::repository::Repository;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::record::{Capabilities, Certificate};
use bulla_repo_format::snapshot::{Head, Snapshot};
use bulla_repo_format::{ObjectName, RunId};
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
    /// This client's snapshots that no other of its snapshots follows.
    pub heads: Vec<Head>,
    /// The next sequence number.
    pub seq: u64,
    /// All snapshots seen.
    pub seen: Vec<RunId>,
}

impl Lineage {
    /// Reads the snapshots that are alive. Unreadable ones are reported and stand in nobody's way.
    pub fn gather(
        repository: &Repository,
        options: &BackupOptions,
        paths: &[Vec<u8>],
        observer: &dyn Observer,
    ) -> Result<Self> {
        let (alive, failed) = repository.read_snapshots()?;
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
                let fits = |s: &Snapshot| s.host == options.host && s.paths == paths;
                alive.iter().map(|(s, _)| s).rfind(|s| fits(s)).cloned()
            }
        };
        let own: Vec<_> = alive.iter().filter(|(s, _)| s.client == repository.client().id()).collect();
        let followed: HashSet<RunId> = own.iter().flat_map(|(s, _)| s.prev.iter().map(|h| h.id)).collect();
        let heads = own.iter().filter(|(s, _)| !followed.contains(&s.id)).map(|(_, h)| *h).collect();
        let seq = own.iter().map(|(s, _)| s.seq).max().unwrap_or(0).saturating_add(1);
        let seen = alive.iter().map(|(s, _)| s.id).collect();
        Ok(Self { parent, heads, seq, seen })
    }

    /// Puts this client's certificate unless it is there (SPEC 13).
    pub fn certify(&self, repository: &Repository) -> Result<()> {
        let client = repository.client();
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
