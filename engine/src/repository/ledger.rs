//! The ledger: what clients did and found, as signed records in the repository (SPEC 12.7).
//!
//! Kept true: records are only ever added. What cannot be read, is not there, or is not chained to the one before it is
//! told, and says nothing.

use super::Repository;
use crate::backend::Put;
use crate::error::{Error, Result};
use crate::evidence::Evidence;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::ledger::{Fact, Record};
use bulla_repo_format::limits::OBJECT_MAX;
use bulla_repo_format::{Area, BodyHash, ClientId, ObjectName, PackName};
use std::collections::HashSet;
use std::sync::PoisonError;

/// Attempts to find a free sequence number beside other processes of the same client.
const ATTEMPTS: usize = 16;

type ReadRecord = dyn Fn(&Repository, &ClientId, u64) -> Result<(Record, BodyHash)>;

/// All records that are there.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Those that are authentic, each client's in the order of its chain.
    pub records: Vec<Record>,
    /// Names of records that cannot be believed or are missing, with the reason.
    pub flaws: Vec<(ObjectName, String)>,
}

impl Repository {
    /// Reads one record, signature checked, and the hash that its successor names.
    pub fn read_record(&self, client: &ClientId, sequence: u64) -> Result<(Record, BodyHash)> {
        let name = ObjectName::Record(*client, sequence);
        let bytes = self.backend().get_listed(&name, OBJECT_MAX)?;
        let (body, signature) =
            self.open_object(ObjectType::Record, &bytes).map_err(|e| Error::object(&name, e))?;
        let record = Record::decode(&body, client, sequence).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Record, client, &body, &signature).map_err(|e| Error::object(&name, e))?;
        Ok((record, self.keyring().body_hash(&body)))
    }

    /// The same, from memory if it was read before.
    fn known_record(&self, client: &ClientId, sequence: u64) -> Result<(Record, BodyHash)> {
        let known = || self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = known().get(&(*client, sequence)) {
            return Ok(found.clone());
        }
        let found = self.read_record(client, sequence)?;
        known().insert((*client, sequence), found.clone());
        Ok(found)
    }

    fn record_names(&self) -> Result<Vec<(ClientId, u64)>> {
        let record = |(name, _)| match name {
            ObjectName::Record(client, sequence) => Some((client, sequence)),
            _ => None,
        };
        let mut names: Vec<_> = self.backend().list(Area::Records)?.into_iter().filter_map(record).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// Reads the whole ledger, each chain from its beginning; what was read before, from memory.
    pub fn ledger(&self) -> Result<Ledger> {
        self.read_ledger(&Self::known_record)
    }

    /// The same, all of it from the store: what `check` judges.
    pub(crate) fn ledger_anew(&self) -> Result<Ledger> {
        self.read_ledger(&Self::read_record)
    }

    fn read_ledger(&self, read: &ReadRecord) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        // Of the chain that is being read: whose, the number that comes next, the hash that it has to name if the one
        // before it could be read.
        let mut chain: Option<(ClientId, u64, Option<BodyHash>)> = None;
        for (client, sequence) in self.record_names()? {
            let (next, before) = match chain {
                Some((whose, next, before)) if whose == client => (next, before),
                _ => (0, None),
            };
            if next < sequence {
                let which = if next + 1 == sequence {
                    "it is".to_owned()
                } else {
                    format!("it and all up to number {} are", sequence - 1)
                };
                ledger
                    .flaws
                    .push((ObjectName::Record(client, next), format!("{which} missing from the ledger")));
            }
            let before = before.filter(|_| next == sequence);
            let name = ObjectName::Record(client, sequence);
            let hash = match read(self, &client, sequence) {
                Ok((record, _)) if before.is_some() && record.previous != before => {
                    ledger.flaws.push((name, "it does not follow the record before it".into()));
                    None
                }
                Ok((record, hash)) => {
                    ledger.records.push(record);
                    Some(hash)
                }
                Err(e) if e.is_damage() => {
                    ledger.flaws.push((name, e.to_string()));
                    None
                }
                Err(e) => return Err(e),
            };
            chain = Some((client, sequence.saturating_add(1), hash));
        }
        Ok(ledger)
    }

    /// Appends a record to this client's chain, durably.
    pub fn record(&self, fact: &Fact) -> Result<()> {
        let client = self.client().id();
        for _ in 0..ATTEMPTS {
            let last = self.record_names()?.into_iter().rfind(|(c, _)| *c == client).map(|(_, n)| n);
            let (sequence, previous) = match last {
                None => (0, None),
                Some(n) => (n.saturating_add(1), Some(self.link(&client, n)?)),
            };
            let time = self.env().clock.now();
            let record = Record { client, sequence, previous, time, fact: fact.clone() };
            let name = ObjectName::Record(client, sequence);
            if self.put_object(&name, ObjectType::Record, record.encode())? == Put::Created {
                return Ok(self.backend().flush()?);
            }
        }
        Err(Error::Refused("no free place in this client's ledger; others write to it all the time".into()))
    }

    /// What the record after this one names. One that cannot be read must not keep all later ones from being written: then
    /// that is its name, which fits nothing, and readers tell the break as they do the damage.
    fn link(&self, client: &ClientId, sequence: u64) -> Result<BodyHash> {
        match self.known_record(client, sequence) {
            Err(e) if e.is_damage() => {
                let name = ObjectName::Record(*client, sequence).to_string();
                Ok(self.keyring().body_hash(name.as_bytes()))
            }
            other => other.map(|(_, hash)| hash),
        }
    }

    /// What the ledger proves.
    pub fn evidence(&self) -> Result<Evidence> {
        Ok(Evidence::of(&self.ledger()?.records))
    }

    /// Packs that were bad or missing when they were last looked at, and are needed still: they are there or listed, and
    /// no repair or prune has given them up.
    pub fn unrepaired(&self, evidence: &Evidence) -> Result<Vec<PackName>> {
        if evidence.damaged().is_empty() {
            return Ok(Vec::new());
        }
        let mut given_up = HashSet::new();
        for run in self.list_runs(Area::Marks)? {
            if let Some(mark) = self.read_mark(&run)? {
                given_up.extend(mark.victims);
            }
        }
        let index = self.open_index()?;
        let mut listed = HashSet::new();
        for pack in index.packs() {
            listed.insert(pack?.name);
        }
        let mut out = Vec::new();
        for pack in evidence.damaged().iter().filter(|p| !given_up.contains(*p) && !index.is_deleted(p)) {
            let there = |name| Ok::<_, Error>(self.backend().stat(&name)?.is_some());
            if listed.contains(pack) || there(ObjectName::Pack(*pack))? || there(ObjectName::Meta(*pack))? {
                out.push(*pack);
            }
        }
        out.sort_unstable();
        Ok(out)
    }
}
