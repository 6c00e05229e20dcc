//! Heal: every pack is hashed, a damaged one is put right from its sidecar, and a sidecar that is not what its pack
//! makes it is made again.

use super::read::{self, Left};
use super::{Listed, each, packs, sidecars};
use crate::backend::Backend;
use crate::error::{Error, Result};
use crate::observer::Observer;
use bulla_repo_format::limits::{PACK_SIZE_MAX, PARITY_MAX};
use bulla_repo_format::parity::{self, Head, PERCENT, Sidecar};
use bulla_repo_format::{ObjectName, PackName};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// How to heal.
#[derive(Debug, Clone, Copy, Default)]
pub struct HealOptions {
    /// Find out what could be done, write nothing.
    pub dry_run: bool,
    /// Delete the sidecars of packs that are not there.
    pub drop_orphans: bool,
    /// Threads; 0 counts as 1.
    pub width: usize,
}

/// Something that is wrong and stays so.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flaw {
    /// The object.
    pub object: String,
    /// What is wrong with it.
    pub reason: String,
}

/// An object that was put right.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mended {
    /// The object.
    pub object: String,
    /// Shards of it that were damaged; 0 if it only had bytes behind its end.
    pub shards: u32,
}

/// What a heal found and did; in a dry run, what it would have done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HealReport {
    /// Packs that were looked at.
    pub packs: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// Packs whose bytes hash to their name.
    pub healthy: u64,
    /// Healthy packs without a sidecar.
    pub unprotected: u64,
    /// Packs that were damaged and are whole again.
    pub repaired: Vec<Mended>,
    /// Packs that are damaged and stay so.
    pub unrepairable: Vec<Flaw>,
    /// Sidecars of whole packs that were damaged and were made again.
    pub remade: Vec<String>,
    /// Sidecars of packs that are not there: deleted by a prune, or lost, which a sidecar cannot make good.
    pub orphans: Vec<String>,
    /// True if the orphans were deleted.
    pub orphans_dropped: bool,
}

/// Puts right what can be put right. Needs no key, and writes only bytes that hash to the name they are put under, or
/// that follow from such.
pub fn heal(backend: &dyn Backend, options: &HealOptions, observer: &dyn Observer) -> Result<HealReport> {
    let sidecars = sidecars(backend)?;
    let packs = packs(backend)?;
    let report = Mutex::new(HealReport::default());
    let healer = Healer { backend, dry_run: options.dry_run, sidecars: &sidecars, report: &report };
    each(&packs, options.width, observer, |pack| healer.pack(pack))?;
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    let there: BTreeSet<PackName> = packs.iter().map(|p| p.name).collect();
    for orphan in sidecars.difference(&there) {
        if is_orphan(backend, orphan)? {
            let object = ObjectName::Parity(*orphan);
            report.orphans.push(object.to_string());
            if options.drop_orphans && !options.dry_run {
                backend.delete(&object)?;
            }
        }
    }
    report.orphans_dropped = options.drop_orphans && !options.dry_run;
    if !options.dry_run {
        backend.flush()?;
    }
    report.repaired.sort();
    report.unrepairable.sort();
    report.remade.sort();
    Ok(report)
}

/// The pack is really not there, of either kind: a listing alone does not decide.
fn is_orphan(backend: &dyn Backend, pack: &PackName) -> Result<bool> {
    let absent = |object| Ok::<_, Error>(backend.stat(&object)?.is_none());
    Ok(absent(ObjectName::Pack(*pack))? && absent(ObjectName::Meta(*pack))?)
}

struct Healer<'h> {
    backend: &'h dyn Backend,
    dry_run: bool,
    sidecars: &'h BTreeSet<PackName>,
    report: &'h Mutex<HealReport>,
}

impl Healer<'_> {
    fn note(&self, note: impl FnOnce(&mut HealReport)) {
        note(&mut self.report.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn pack(&self, pack: &Listed) -> Result<()> {
        let Some(left) = read::left(self.backend, &pack.object, PACK_SIZE_MAX)? else {
            // A prune was here.
            return Ok(());
        };
        self.note(|r| (r.packs, r.bytes) = (r.packs + 1, r.bytes + left.bytes.len() as u64));
        let object = ObjectName::Parity(pack.name);
        let sidecar = match self.sidecars.contains(&pack.name) {
            true => read::left(self.backend, &object, PARITY_MAX)?,
            false => None,
        };
        let healthy = blake3::hash(&left.bytes).as_bytes() == pack.name.as_bytes();
        match sidecar {
            _ if healthy && sidecar.is_none() => self.note(|r| {
                r.healthy += 1;
                r.unprotected += 1;
            }),
            Some(sidecar) if healthy => {
                self.note(|r| r.healthy += 1);
                self.renew(pack, &left.bytes, &sidecar)?;
            }
            Some(sidecar) => match repair(pack, &left, &sidecar) {
                Ok((bytes, shards)) => {
                    // Gone meanwhile: a prune has deleted it, and it must not come back.
                    if self.backend.stat(&pack.object)?.is_none() {
                        return Ok(());
                    }
                    if !self.dry_run {
                        self.backend.heal(&pack.object, &[&bytes])?;
                    }
                    self.note(|r| r.repaired.push(Mended { object: pack.object.to_string(), shards }));
                    self.renew(pack, &bytes, &sidecar)?;
                }
                Err(reason) => self.give_up(pack, &left, &reason),
            },
            None => self.give_up(pack, &left, "it has no parity"),
        }
        Ok(())
    }

    fn give_up(&self, pack: &Listed, left: &Left, reason: &str) {
        let mut reason = format!("its bytes do not hash to its name, and {reason}");
        if let Some(error) = &left.error {
            reason.push_str(&format!(" ({error})"));
        }
        self.note(|r| r.unrepairable.push(Flaw { object: pack.object.to_string(), reason }));
    }

    /// Makes the sidecar of a whole pack again if it is not, byte for byte, what the pack makes it.
    fn renew(&self, pack: &Listed, bytes: &[u8], sidecar: &Left) -> Result<()> {
        let (size, len) = (bytes.len() as u64, sidecar.bytes.len() as u64);
        let shape = Sidecar::parse(&sidecar.bytes, &pack.name).map(|s| *s.head()).ok();
        let shape = shape.filter(|head| head.size == size).or_else(|| Head::of_length(pack.name, size, len));
        let shape = shape.map_or_else(|| Head::new(pack.name, size, PERCENT), Ok)?;
        let right = parity::create_as(&shape, &[bytes])?;
        let mut rest = sidecar.bytes.as_slice();
        let same = right.parts().iter().all(|part| {
            let found = rest.strip_prefix(*part);
            rest = found.unwrap_or_default();
            found.is_some()
        });
        if sidecar.error.is_none() && same && rest.is_empty() {
            return Ok(());
        }
        let object = ObjectName::Parity(pack.name);
        if !self.dry_run {
            self.backend.heal(&object, &right.parts())?;
        }
        self.note(|r| r.remade.push(object.to_string()));
        Ok(())
    }
}

/// The pack's bytes and how many shards of it were damaged, or why not.
fn repair(pack: &Listed, left: &Left, sidecar: &Left) -> std::result::Result<(Vec<u8>, u32), String> {
    let read = Sidecar::parse(&sidecar.bytes, &pack.name);
    let read = read.map_err(|e| format!("its parity cannot be used: {e}"))?;
    let repaired = read.repair(&left.bytes).map_err(|e| e.to_string())?;
    Ok((repaired.bytes, repaired.shards))
}
