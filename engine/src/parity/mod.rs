//! Parity sidecars of packs (SPEC 18): made, used and dropped with nothing but the store, so that a server without
//! keys can heal what it keeps.
//!
//! Kept true: only bytes that hash to a pack's name are ever protected or written under it, no pack is ever made or
//! deleted here, and nothing else in a repository depends on a sidecar. One pack per thread is in memory.

mod heal;
mod read;

pub use heal::{Flaw, HealOptions, HealReport, Mended, heal};

use crate::backend::{Backend, BackendError, Put};
use crate::error::{Error, Result};
use crate::observer::{Event, Observer};
use bulla_repo_format::limits::PACK_SIZE_MAX;
use bulla_repo_format::{Area, ObjectName, PackName, parity};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Per cent of parity where the user names none.
pub const PERCENT: u8 = parity::PERCENT;

/// Refuses a share that is not 1 to 100 per cent.
pub fn check_percent(percent: u8) -> Result<()> {
    let good = (1..=100).contains(&percent);
    let bad = || Error::Refused(format!("{percent} % is no share of parity; 1 to 100 are"));
    if good { Ok(()) } else { Err(bad()) }
}

/// Puts the sidecar of a pack, after the pack. Returns the bytes stored.
pub fn put(backend: &dyn Backend, percent: u8, name: PackName, pack: &[&[u8]]) -> Result<u64> {
    let sidecar = parity::create(name, pack, percent)?;
    let parts = sidecar.parts();
    let len = parts.iter().map(|p| p.len() as u64).sum();
    let put = backend.put(&ObjectName::Parity(name), &parts)?;
    Ok(if put == Put::Created { len } else { 0 })
}

/// Bytes of the sidecar that [`put`] makes for a pack of `size` bytes.
pub fn len_for(percent: u8, size: u64) -> u64 {
    parity::Head::new(PackName::new([0; 32]), size, percent).map_or(0, |head| head.object_len())
}

/// Deletes the sidecar of a pack that was deleted: for whoever deletes packs, afterwards.
pub fn drop_of(backend: &dyn Backend, pack: &PackName) -> Result<()> {
    Ok(backend.delete(&ObjectName::Parity(*pack))?)
}

/// What [`drop_all`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Sidecars.
    pub sidecars: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Deletes all sidecars; no pack is touched.
pub fn drop_all(backend: &dyn Backend, observer: &dyn Observer) -> Result<Dropped> {
    let mut dropped = Dropped::default();
    for (name, size) in backend.list(Area::Parity)? {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        backend.delete(&name)?;
        dropped.sidecars += 1;
        dropped.bytes += size;
    }
    backend.flush()?;
    Ok(dropped)
}

/// What [`protect`] did.
#[derive(Debug, Clone, Default)]
pub struct ProtectReport {
    /// Sidecars that were made.
    pub made: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Packs that had one.
    pub had: u64,
    /// Packs without one that are damaged: it is too late for them.
    pub damaged: Vec<Flaw>,
}

/// Makes a sidecar for each pack that has none. Packs whose bytes do not hash to their name are left and reported.
pub fn protect(
    backend: &dyn Backend,
    percent: u8,
    width: usize,
    observer: &dyn Observer,
) -> Result<ProtectReport> {
    check_percent(percent)?;
    let had = sidecars(backend)?;
    let mut packs = packs(backend)?;
    let all = packs.len();
    packs.retain(|pack| !had.contains(&pack.name));
    let report = Mutex::new(ProtectReport { had: (all - packs.len()) as u64, ..ProtectReport::default() });
    each(&packs, width, observer, |pack| {
        let bytes = match backend.get(&pack.object, PACK_SIZE_MAX) {
            // A prune was here.
            Err(BackendError::NotFound { .. }) => return Ok(()),
            Err(BackendError::Io { source, .. }) => Err(source.to_string()),
            Err(e) => return Err(e.into()),
            Ok(bytes) if blake3::hash(&bytes).as_bytes() == pack.name.as_bytes() => Ok(bytes),
            Ok(_) => Err("its bytes do not hash to its name".to_owned()),
        };
        let made = match &bytes {
            Ok(bytes) => put(backend, percent, pack.name, &[bytes])?,
            Err(_) => 0,
        };
        if made > 0 && backend.stat(&pack.object)?.is_none() {
            return drop_of(backend, &pack.name);
        }
        let mut report = report.lock().unwrap_or_else(PoisonError::into_inner);
        report.made += u64::from(made > 0);
        report.bytes += made;
        if let Err(reason) = bytes {
            report.damaged.push(Flaw { object: pack.object.to_string(), reason });
        }
        Ok(())
    })?;
    backend.flush()?;
    let mut report = report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.damaged.sort();
    Ok(report)
}

/// A pack as it is listed.
#[derive(Debug, Clone, Copy)]
struct Listed {
    object: ObjectName,
    name: PackName,
    size: u64,
}

/// All packs of both kinds.
fn packs(backend: &dyn Backend) -> Result<Vec<Listed>> {
    let mut out = Vec::new();
    for area in [Area::Packs, Area::Meta] {
        for (object, size) in backend.list(area)? {
            if let ObjectName::Pack(name) | ObjectName::Meta(name) = object {
                out.push(Listed { object, name, size });
            }
        }
    }
    out.sort_by_key(|pack| pack.object);
    Ok(out)
}

/// The packs that sidecars are there for. To be listed before the packs: a pack is put before its sidecar.
fn sidecars(backend: &dyn Backend) -> Result<BTreeSet<PackName>> {
    let pack = |(name, _)| if let ObjectName::Parity(pack) = name { Some(pack) } else { None };
    Ok(backend.list(Area::Parity)?.into_iter().filter_map(pack).collect())
}

/// Does `work` for each pack with `width` threads. The first error stops all.
fn each(
    packs: &[Listed],
    width: usize,
    observer: &dyn Observer,
    work: impl Fn(&Listed) -> Result<()> + Sync,
) -> Result<()> {
    let (next, bytes) = (AtomicUsize::new(0), AtomicU64::new(0));
    let failure: Mutex<Option<Error>> = Mutex::default();
    let total: u64 = packs.iter().map(|p| p.size).sum();
    std::thread::scope(|scope| {
        for _ in 0..width.clamp(1, packs.len().max(1)) {
            scope.spawn(|| {
                while let Some(pack) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let done = if observer.interrupted() { Err(Error::Interrupted) } else { work(pack) };
                    if let Err(e) = done {
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(e);
                        next.store(packs.len(), Ordering::Relaxed);
                        return;
                    }
                    let bytes = bytes.fetch_add(pack.size, Ordering::Relaxed) + pack.size;
                    let files = next.load(Ordering::Relaxed).min(packs.len()) as u64;
                    let total_files = packs.len() as u64;
                    observer.event(&Event::Progress { files, bytes, total_files, total_bytes: total });
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
