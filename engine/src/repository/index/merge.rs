//! Merges index runs, so that the number of runs does not grow with the number of backups (SPEC 10).
//!
//! Kept true: a run is deleted only after a run that holds all it held is durable. A record is left out only if its
//! pack has a grave; graves are kept.

use super::super::Repository;
use super::{Index, Runs, Segment, UNLISTED};
use crate::backend::Put;
use crate::error::{Error, Result};
use crate::repository::upload;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun};
use bulla_repo_format::limits::{INDEX_PACKS_MAX, INDEX_RECORDS_MAX};
use bulla_repo_format::{IndexName, ObjectName, PackName};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Runs of one size class at which they become one: with a factor of eight, a record is rewritten once per class.
const CLASS: usize = 8;

/// What a merge did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Merged {
    /// Runs that were replaced.
    pub inputs: u64,
    /// Runs that replaced them.
    pub outputs: u64,
}

/// Groups of runs to merge, by records and graves of each; positions in the list given. Pure.
fn groups(sizes: &[usize], dead: &[bool]) -> Vec<Vec<usize>> {
    let limit = INDEX_RECORDS_MAX as usize;
    let mut classes: HashMap<u32, Vec<usize>> = HashMap::new();
    for (at, size) in sizes.iter().enumerate() {
        classes.entry(size.max(&CLASS).ilog(CLASS)).or_default().push(at);
    }
    let mut classes: Vec<_> = classes.into_iter().collect();
    classes.sort_unstable_by_key(|(class, _)| *class);
    let mut out = Vec::new();
    for (_, members) in classes {
        let stale = members.iter().any(|m| dead.get(*m) == Some(&true));
        if members.len() < CLASS && !stale {
            continue;
        }
        let (mut group, mut sum) = (Vec::new(), 0);
        for member in members {
            let size = sizes.get(member).copied().unwrap_or(limit);
            if sum + size > limit && !group.is_empty() {
                out.push(std::mem::take(&mut group));
                sum = 0;
            }
            group.push(member);
            sum += size;
        }
        out.push(group);
    }
    out.retain(|g| g.len() > 1 || g.iter().any(|m| dead.get(*m) == Some(&true)));
    out
}

impl Index {
    /// Merges runs of like size, and rewrites those that still hold records of deleted packs.
    pub fn merge(&self, repository: &Repository) -> Result<Merged> {
        let runs = self.runs();
        let segments: Vec<&Arc<Segment>> =
            runs.segments.iter().filter(|s| s.name().generation != UNLISTED).collect();
        let sizes: Vec<usize> = segments.iter().map(|s| s.records() as usize + s.graves().len()).collect();
        let mut dead = Vec::with_capacity(segments.len());
        for s in &segments {
            dead.push(holds_deleted(s, &runs)?);
        }
        let mut merged = Merged::default();
        for group in groups(&sizes, &dead) {
            let inputs: Vec<_> = group.iter().filter_map(|at| segments.get(*at).copied()).collect();
            self.merge_group(repository, &inputs, &runs.graves, &mut merged)?;
        }
        Ok(merged)
    }

    fn merge_group(
        &self,
        repository: &Repository,
        inputs: &[&Arc<Segment>],
        graves: &HashSet<PackName>,
        merged: &mut Merged,
    ) -> Result<()> {
        let mut run = IndexRun::new(repository.client().id());
        let mut numbers: HashMap<PackName, u32> = HashMap::new();
        let mut packs: Vec<IndexPack> = Vec::new();
        for segment in inputs {
            run.inputs.push(*segment.name());
            run.graves.extend_from_slice(segment.graves());
            let mut local: Vec<Option<u32>> = Vec::new();
            for at in 0..segment.packs() {
                let pack = segment.pack(at)?;
                let number = (!graves.contains(&pack.name)).then(|| {
                    *numbers.entry(pack.name).or_insert_with(|| {
                        packs.push(pack);
                        u32::try_from(packs.len() - 1).unwrap_or(u32::MAX)
                    })
                });
                local.push(number);
            }
            segment.each_record(|r| {
                if let Some(Some(pack)) = local.get(r.pack as usize) {
                    run.records.push(IndexRecord { pack: *pack, ..r });
                }
            })?;
        }
        if packs.len() > INDEX_PACKS_MAX as usize {
            return Ok(());
        }
        run.packs = packs;
        run.graves.sort_unstable();
        run.graves.dedup();
        run.records.sort_unstable();
        run.records.dedup();
        let name = if run.packs.is_empty() && run.graves.is_empty() {
            None
        } else {
            merged.outputs += 1;
            let (name, _) = put(repository, &mut run)?;
            match repository.fetch_index_run(&name) {
                // Another merge has taken it in already. The inputs stay, for the next one to judge.
                Err(e) if e.is_missing() => return Ok(()),
                read => drop(read?),
            }
            Some(name)
        };
        for segment in inputs.iter().filter(|s| Some(s.name()) != name.as_ref()) {
            repository.backend().delete(&ObjectName::Index(*segment.name()))?;
            merged.inputs += 1;
        }
        Ok(())
    }
}

fn holds_deleted(segment: &Segment, runs: &Runs) -> Result<bool> {
    if runs.graves.is_empty() {
        return Ok(false);
    }
    for pack in 0..segment.packs() {
        if runs.graves.contains(&segment.pack_name(pack)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Puts a run, durably, under the generation that follows from its inputs; its name and size.
pub(crate) fn put(repository: &Repository, run: &mut IndexRun) -> Result<(IndexName, u64)> {
    let above =
        |g: u32| g.checked_add(1).ok_or_else(|| Error::Refused("an index run of the last generation".into()));
    let generation = run.inputs.iter().map(|i| i.generation).max().map_or(Ok(0), above)?;
    let sealed = repository.seal_object(repository.client(), ObjectType::Index, run.encode())?;
    let name = IndexName { generation, hash: *blake3::hash(&sealed).as_bytes() };
    let object = ObjectName::Index(name);
    if repository.backend().put(&object, &[&sealed])? == Put::Exists {
        // Sealed with a nonce of its own: it comes of an earlier attempt of this very put.
        upload::whole(&**repository.backend(), &object, sealed.len() as u64)?;
    }
    repository.backend().flush()?;
    super::segment::keep(repository, &name, run);
    Ok((name, sealed.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_hold_each_run_once_and_fit_one_run(
            sizes in prop::collection::vec((0usize..400_000, any::<bool>()), 0..60),
        ) {
            let (sizes, dead): (Vec<_>, Vec<_>) = sizes.into_iter().unzip();
            let mut seen = HashSet::new();
            for group in groups(&sizes, &dead) {
                prop_assert!(group.len() > 1 || dead[group[0]]);
                let sum: usize = group.iter().map(|m| sizes[*m]).sum();
                prop_assert!(sum <= INDEX_RECORDS_MAX as usize);
                prop_assert!(group.iter().all(|m| seen.insert(*m)));
            }
        }
    }

    #[test]
    fn small_runs_merge_eight_by_eight_and_large_ones_rest() {
        assert!(groups(&[10; 7], &[false; 7]).is_empty());
        assert_eq!(groups(&[10; 8], &[false; 8]).len(), 1);
        assert!(groups(&[400_000, 10], &[false; 2]).is_empty());
    }
}
