//! Under which names objects lie at a REST server, and which of them is the object.
//!
//! A server that writes uploads in place (rclone's local backend) empties and, when it notices that an upload broke off,
//! removes whatever lies under its name: at any time, so also what a later upload has put there and was acknowledged. No
//! waiting and no looking again is sure to be longer than that. So a name under which a put broke off is never put to
//! again: the next attempt goes to `NAME-again` with a random number, which no earlier one can touch.
//!
//! Kept true: an object that was acknowledged lies whole under at least one of its names; all others hold a beginning of
//! it, an older state that a [`super::Mode::Replace`] is about to remove, or the same bytes. So the longest is the object.

use crate::store::{Attempt, Failure};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

const AGAIN: &str = "-again";
/// Hexadecimal digits behind it.
const DIGITS: usize = 8;

/// What this process knows of names beyond that an object usually lies under its own.
#[derive(Debug, Default)]
pub(crate) struct Names(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// By path, the names under which a put of this process broke off: of what is under them nothing is sure.
    broken: HashMap<String, Vec<String>>,
    /// Those of them that may still hold something.
    left: HashMap<String, Vec<String>>,
    /// By path, the names with sizes of what does not lie under its own name alone.
    others: HashMap<String, Vec<(String, u64)>>,
}

/// The path an object has whose name at the server, without its kind, is `name`.
pub(super) fn path_of(name: &str) -> Option<String> {
    let (area, rest) = name.split_once('-')?;
    let own = match rest.rsplit_once(AGAIN) {
        Some((own, digits)) if digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit()) => own,
        _ => rest,
    };
    Some(format!("{area}/{own}"))
}

/// The name that an object usually has at the server.
pub(super) fn own_name(path: &str) -> String {
    path.replacen('/', "-", 1)
}

impl Names {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name to read.
    pub(super) fn best(&self, path: &str) -> String {
        let known = self.known();
        let own = own_name(path);
        let longest = known.others.get(path).and_then(|others| {
            // Of two that are as long the one that was put later is not under the usual name.
            others.iter().max_by_key(|(name, size)| (*size, *name != own)).map(|(name, _)| name.clone())
        });
        longest.unwrap_or(own)
    }

    /// All names under which something of the object may lie.
    pub(super) fn all(&self, path: &str) -> Vec<String> {
        let known = self.known();
        let mut all = vec![own_name(path)];
        all.extend(known.left.get(path).into_iter().flatten().cloned());
        all.extend(known.others.get(path).into_iter().flatten().map(|(name, _)| name.clone()));
        all.sort();
        all.dedup();
        all
    }

    /// True if a put of this process to that name broke off.
    pub(super) fn broke(&self, path: &str, name: &str) -> bool {
        self.known().broken.get(path).is_some_and(|broken| broken.iter().any(|b| b == name))
    }

    /// True if puts of this process broke off, so that the usual name is not to be used.
    pub(super) fn unsure(&self, path: &str) -> bool {
        self.known().broken.contains_key(path)
    }

    /// The names under which something may be left of puts that broke off; it is for the caller to remove it.
    pub(super) fn left(&self, path: &str) -> Vec<String> {
        self.known().left.remove(path).unwrap_or_default()
    }

    /// A put to that name failed in a way that leaves open what it has done, and when it will have done it.
    pub(super) fn breaks(&self, path: &str, name: &str) {
        let Known { broken, left, .. } = &mut *self.known();
        for names in [broken, left] {
            names.entry(path.to_owned()).or_default().push(name.to_owned());
        }
    }

    /// A name that no put was ever made to.
    pub(super) fn fresh(path: &str) -> Attempt<String> {
        let mut bytes = [0; DIGITS / 2];
        getrandom::fill(&mut bytes)
            .map_err(|e| Failure::last(format!("no random number for a new name: {e}")))?;
        Ok(format!("{}{AGAIN}{:08x}", own_name(path), u32::from_le_bytes(bytes)))
    }

    /// A put to that name was acknowledged.
    pub(super) fn stored(&self, path: &str, name: &str, size: u64) {
        if name != own_name(path) {
            let mut known = self.known();
            let others = known.others.entry(path.to_owned()).or_default();
            others.retain(|(other, _)| other != name);
            others.push((name.to_owned(), size));
        }
    }

    /// The object is gone under that name.
    pub(super) fn removed(&self, path: &str, name: &str) {
        let Known { others, left, .. } = &mut *self.known();
        if let Some(others) = others.get_mut(path) {
            others.retain(|(other, _)| other != name);
        }
        if let Some(left) = left.get_mut(path) {
            left.retain(|other| other != name);
        }
    }

    /// A listing of all names of the kind whose areas `within` knows: the objects it shows, each once, by its path.
    pub(super) fn seen(&self, within: impl Fn(&str) -> bool, listed: &[(String, u64)]) -> Vec<(String, u64)> {
        let mut by_path: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for (name, size) in listed {
            if let Some(path) = path_of(name).filter(|path| within(path)) {
                by_path.entry(path).or_default().push((name.clone(), *size));
            }
        }
        let longest = |names: &[(String, u64)]| names.iter().map(|(_, size)| *size).max();
        let objects =
            by_path.iter().filter_map(|(path, names)| Some((path.clone(), longest(names)?))).collect();
        let Known { broken, others, .. } = &mut *self.known();
        // What this process has put beside this listing may not be in it.
        others.retain(|path, _| !within(path) || broken.contains_key(path));
        for (path, mut names) in by_path {
            let own = own_name(&path);
            if names.len() > 1 || names.iter().any(|(name, _)| *name != own) {
                let before = others.remove(&path).unwrap_or_default();
                names.extend(before.into_iter().filter(|(b, _)| !listed.iter().any(|(name, _)| name == b)));
                others.insert(path, names);
            }
        }
        objects
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "index-00000001-0a";

    fn listed(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, size)| ((*name).to_owned(), *size)).collect()
    }

    #[test]
    fn the_longest_of_an_objects_names_is_the_object() {
        let (names, path) = (Names::default(), "index/00000001-0a");
        assert_eq!(names.best(path), OWN);
        let again = format!("{OWN}-again0000000f");
        let both = listed(&[(OWN, 3), (&again, 9), ("index-00000001-0b", 5), ("other", 1)]);
        let objects = names.seen(|path| path.starts_with("index/"), &both);
        assert_eq!(objects, listed(&[(path, 9), ("index/00000001-0b", 5)]));
        assert_eq!((names.best(path), names.all(path)), (again.clone(), vec![OWN.to_owned(), again.clone()]));
        // As long: what was put later.
        names.seen(|_| true, &listed(&[(&again, 9), (OWN, 9)]));
        assert_eq!(names.best(path), again);
        // A listing of another kind says nothing of it; one of its own without it says that it is gone.
        names.seen(|path| path.starts_with("packs/"), &[]);
        assert_eq!(names.best(path), again);
        names.seen(|path| path.starts_with("index/"), &listed(&[(OWN, 9)]));
        assert_eq!((names.best(path), names.all(path)), (OWN.to_owned(), vec![OWN.to_owned()]));
    }

    #[test]
    fn a_listing_that_began_before_a_put_does_not_hide_it() {
        let (names, path) = (Names::default(), "packs/0a");
        names.breaks(path, "packs-0a");
        let again = Names::fresh(path).unwrap();
        assert_eq!(path_of(&again).as_deref(), Some(path));
        names.stored(path, &again, 9);
        names.seen(|_| true, &listed(&[("packs-0a", 4)]));
        names.seen(|_| true, &[]);
        assert_eq!(names.best(path), again);
        names.removed(path, &again);
        assert_eq!(names.best(path), "packs-0a");
    }

    #[test]
    fn only_what_is_written_so_is_another_name() {
        for (name, path) in [
            ("packs-0a", Some("packs/0a")),
            ("packs-0a-again0000000f", Some("packs/0a")),
            ("packs-0a-again0000000", Some("packs/0a-again0000000")),
            ("packs-0a-again0000000g", Some("packs/0a-again0000000g")),
            ("packs", None),
        ] {
            assert_eq!(path_of(name).as_deref(), path, "{name}");
        }
    }
}
