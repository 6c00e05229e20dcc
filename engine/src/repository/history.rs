//! What this machine has seen of a repository, and whether the store still shows it (SPEC 11).
//!
//! The state file pins the config generation and the heads of all living snapshots with their body hashes. A store that
//! shows an older config, lacks a pinned snapshot without an authentic death, shows other bytes under its id, or lacks
//! what a living snapshot has seen, has lost something or was set back: that is never taken in silence. The file is
//! authenticated with a key of the repository, written whole or not at all; without one (a new machine) the lineages
//! alone speak.

use super::Repository;
use super::snapshots::Listed;
use crate::error::{Error, Result};
use bulla_repo_format::id::from_hex;
use bulla_repo_format::snapshot::Head;
use bulla_repo_format::{BodyHash, RunId};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

const MAGIC: &str = "bulla state 1";

/// What is pinned.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Pins {
    generation: u32,
    heads: BTreeMap<RunId, BodyHash>,
    /// Snapshots that are missing, knowingly.
    accepted: BTreeSet<RunId>,
}

impl Pins {
    /// One fact a line, and a MAC.
    fn encode(&self, key: &[u8; 32]) -> String {
        let mut text = format!("{MAGIC}\nconfig {}\n", self.generation);
        for (id, hash) in &self.heads {
            let _ = writeln!(text, "head {id} {hash}");
        }
        for id in &self.accepted {
            let _ = writeln!(text, "accepted {id}");
        }
        let mac = blake3::keyed_hash(key, text.as_bytes()).to_hex();
        let _ = writeln!(text, "mac {mac}");
        text
    }

    fn decode(text: &str, key: &[u8; 32]) -> Option<Self> {
        let (body, mac) = text.split_at_checked(text.rfind("mac ")?)?;
        let mac: [u8; 32] = from_hex(mac.strip_prefix("mac ")?.trim_end())?;
        if blake3::keyed_hash(key, body.as_bytes()) != blake3::Hash::from(mac) {
            return None;
        }
        let mut pins = Self::default();
        for line in body.strip_prefix(MAGIC)?.lines().filter(|l| !l.is_empty()) {
            let words: Vec<&str> = line.split(' ').collect();
            match *words.as_slice() {
                ["config", n] => pins.generation = n.parse().ok()?,
                ["head", id, hash] => {
                    pins.heads.insert(id.parse().ok()?, BodyHash::new(from_hex(hash)?));
                }
                ["accepted", id] => _ = pins.accepted.insert(id.parse().ok()?),
                _ => return None,
            }
        }
        Some(pins)
    }
}

impl Repository {
    fn state_file(&self) -> Option<PathBuf> {
        Some(self.env().state.as_ref()?.join(self.id().to_string()))
    }

    /// What is pinned. Taken before the store is listed, so that a snapshot pinned meanwhile is not missed in a listing
    /// older than itself.
    pub(crate) fn load_pins(&self) -> Result<Pins> {
        let Some(file) = self.state_file() else { return Ok(Pins::default()) };
        let text = match std::fs::read_to_string(&file) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Pins::default()),
            other => other.map_err(|e| Error::io("read", &file, e))?,
        };
        Pins::decode(&text, self.keyring().cache_key().expose()).ok_or_else(|| {
            let reason = format!("{} is not what this program wrote", file.display());
            Error::RolledBack { reason }
        })
    }

    fn store_pins(&self, pins: &Pins) -> Result<()> {
        let Some(file) = self.state_file() else { return Ok(()) };
        let dir = file.parent().unwrap_or(&file).to_path_buf();
        let temporary = file.with_extension(format!("tmp{}", std::process::id()));
        let write = || {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            let mut out = std::fs::File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&temporary)?;
            out.write_all(pins.encode(self.keyring().cache_key().expose()).as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&temporary, &file)
        };
        write().map_err(|e| Error::io("write", &file, e))
    }

    /// Compares what the store shows with what it showed before, and remembers it.
    pub(crate) fn witness(&self, old: &Pins, listed: &Listed) -> Result<()> {
        let mut missing = self.unexplained(listed)?;
        missing.retain(|id, _| !old.accepted.contains(id));
        if let Some((id, why)) = missing.into_iter().next() {
            return Err(Error::RolledBack { reason: format!("snapshot {id} {why}") });
        }
        let generation = self.config().generation;
        if generation < old.generation {
            let reason =
                format!("its config is generation {generation}, this machine saw {}", old.generation);
            return Err(Error::RolledBack { reason });
        }
        let new = Pins { generation, heads: heads(listed), accepted: old.accepted.clone() };
        for (id, hash) in &old.heads {
            match new.heads.get(id) {
                Some(now) if now == hash => {}
                Some(_) => {
                    let reason = format!("snapshot {id} has other bytes than this machine saw under its id");
                    return Err(Error::RolledBack { reason });
                }
                None if old.accepted.contains(id) || self.died(id, hash)? => {}
                // It is there and cannot be read: damage, which is reported as such.
                None if listed.verdicts.contains(id) => {}
                None => {
                    let reason = format!(
                        "snapshot {id}, which this machine saw, is missing without a record of its death"
                    );
                    return Err(Error::RolledBack { reason });
                }
            }
        }
        if new != *old {
            let mut new = new;
            let meanwhile = self.load_pins()?.heads;
            new.heads.extend(meanwhile.into_iter().filter(|(id, _)| !old.heads.contains_key(id)));
            // A machine that cannot remember is no reason for having no backup.
            let _ = self.store_pins(&new);
        }
        Ok(())
    }

    /// Fails if the store shows an older state than this machine saw, or lacks what is on record; remembers what it
    /// shows otherwise.
    pub fn verify_history(&self) -> Result<()> {
        let pins = self.load_pins()?;
        self.witness(&pins, &self.read_snapshots()?)
    }

    /// Takes what the store shows now for the truth, whatever this machine saw before.
    pub fn accept_history(&self) -> Result<()> {
        let listed = self.read_snapshots()?;
        let mut accepted: BTreeSet<RunId> = self.unexplained(&listed)?.into_keys().collect();
        if let Ok(old) = self.load_pins() {
            accepted.extend(old.accepted);
        }
        let pins = Pins { generation: self.config().generation, heads: heads(&listed), accepted };
        self.store_pins(&pins)
    }

    /// Snapshots that are missing, knowingly.
    pub(crate) fn accepted_losses(&self) -> Result<BTreeSet<RunId>> {
        Ok(self.load_pins()?.accepted)
    }

    /// Remembers a snapshot of one's own that was just committed.
    pub(crate) fn remember(&self, head: Head) -> Result<()> {
        let mut pins = self.load_pins()?;
        pins.heads.insert(head.id, head.hash);
        pins.generation = pins.generation.max(self.config().generation);
        self.store_pins(&pins)
    }

    /// Snapshots that living ones have seen and that are neither there nor dead, or not the ones that were seen.
    fn unexplained(&self, listed: &Listed) -> Result<BTreeMap<RunId, String>> {
        let bodies: HashMap<RunId, BodyHash> = listed.alive.iter().map(|(_, h)| (h.id, h.hash)).collect();
        let mut out = BTreeMap::new();
        for (snapshot, _) in &listed.alive {
            let by = snapshot.id.short();
            for head in &snapshot.prev {
                if bodies.get(&head.id).is_some_and(|hash| *hash != head.hash) {
                    out.insert(head.id, format!("is not the one that snapshot {by} follows"));
                }
            }
            for id in snapshot.prev.iter().map(|h| h.id).chain(snapshot.seen.iter().copied()) {
                // It may have died, and been removed, between the two listings.
                let explained = listed.verdicts.contains(&id) || listed.gone.contains(&id);
                if !explained && !out.contains_key(&id) && !matches!(self.is_dead(&id), Ok(true)) {
                    let why =
                        format!("is missing without a record of its death, though snapshot {by} saw it");
                    out.entry(id).or_insert(why);
                }
            }
        }
        Ok(out)
    }

    /// True if there is an authentic death of exactly this snapshot.
    fn died(&self, id: &RunId, hash: &BodyHash) -> Result<bool> {
        match self.read_death(id) {
            Ok(death) => Ok(death.is_some_and(|d| d.hash == *hash)),
            Err(e) if e.is_damage() => Ok(false),
            Err(e) => Err(e),
        }
    }
}

fn heads(listed: &Listed) -> BTreeMap<RunId, BodyHash> {
    listed.alive.iter().map(|(_, h)| (h.id, h.hash)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_read_back_and_nothing_else_does() {
        let key = [5; 32];
        let pins = Pins {
            generation: 3,
            heads: [(RunId::new([1; 16]), BodyHash::new([2; 32]))].into(),
            accepted: [RunId::new([4; 16])].into(),
        };
        let text = pins.encode(&key);
        assert_eq!(Pins::decode(&text, &key), Some(pins));
        assert_eq!(Pins::decode(&text, &[6; 32]), None);
        assert_eq!(Pins::decode(&text.replace("config 3", "config 2"), &key), None);
        for cut in 0..text.len() - 1 {
            assert_eq!(Pins::decode(&text[..cut], &key), None, "{cut}");
        }
    }
}
