//! The ledger: what clients did and found, as signed records in the repository (SPEC 12.7).

use super::Repository;
use crate::backend::Put;
use crate::error::{Error, Result};
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::ledger::{Fact, Record};
use bulla_repo_format::{Area, BodyHash, ClientId, ObjectName, PackName};
use std::collections::HashMap;

/// Attempts to find a free sequence number beside other processes of the same client.
const ATTEMPTS: usize = 16;

impl Repository {
    /// Reads one record, signature checked, and the hash that its successor names.
    pub fn read_record(&self, client: &ClientId, sequence: u64) -> Result<(Record, BodyHash)> {
        let name = ObjectName::Record(*client, sequence);
        let (body, signature) = self.get_object(&name, ObjectType::Record)?;
        let record = Record::decode(&body, client, sequence).map_err(|e| Error::object(&name, e))?;
        self.verify(ObjectType::Record, client, &body, &signature).map_err(|e| Error::object(&name, e))?;
        Ok((record, self.keyring().body_hash(&body)))
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

    /// Appends a record to this client's chain, durably.
    pub fn record(&self, fact: &Fact) -> Result<()> {
        let client = self.client().id();
        for _ in 0..ATTEMPTS {
            let last = self.record_names()?.into_iter().rfind(|(c, _)| *c == client).map(|(_, n)| n);
            let (sequence, previous) = match last {
                None => (0, None),
                Some(n) => (n.saturating_add(1), Some(self.read_record(&client, n)?.1)),
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

    /// When each pack was last read whole and found good, by the clock of who did; and when anything last was.
    /// Records that cannot be read say nothing.
    pub(crate) fn verifications(&self) -> Result<(HashMap<PackName, i64>, Option<i64>)> {
        let (mut stamps, mut last): (HashMap<PackName, i64>, Option<i64>) = (HashMap::new(), None);
        for (client, sequence) in self.record_names()? {
            let record = match self.read_record(&client, sequence) {
                Ok((record, _)) => record,
                Err(e) if e.is_damage() => continue,
                Err(e) => return Err(e),
            };
            let Fact::Verified { good, bad } = record.fact else { continue };
            let at = record.time.seconds;
            last = Some(last.map_or(at, |l| l.max(at)));
            for pack in good {
                stamps.entry(pack).and_modify(|t| *t = (*t).max(at)).or_insert(at);
            }
            // What was bad once is read again next time.
            bad.iter().for_each(|pack| _ = stamps.remove(pack));
        }
        Ok((stamps, last))
    }
}
