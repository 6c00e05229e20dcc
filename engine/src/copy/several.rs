//! One reading of the source, many places: it is backed up to the first place that takes it, and copied from there to all the
//! others at once.
//!
//! Kept true: the source is read again only for a place that did not take it whole; each place ends by itself, so one that
//! is slow or dead keeps none of the others from its snapshot.

/// What became of a backup to one place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It has the snapshot.
    Yes,
    /// Not by this place; another may.
    No,
    /// By no place: the source is to blame, or somebody asked to stop.
    ByNone,
}

/// The numbers of `places`, those that are `near` before the others, so that what is copied need not be fetched from afar.
pub fn nearest_first<P>(places: &[P], near: impl Fn(&P) -> bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by_key(|n| places.get(*n).is_none_or(|place| !near(place)));
    order
}

/// Backs up to the first of `places` that takes it, the nearest first, and then copies to all the others at once. Which place
/// it was; `None` if none has it.
pub fn store<P: Send + Sync>(
    places: &mut [P],
    near: impl Fn(&P) -> bool,
    mut back_up: impl FnMut(&mut P) -> Taken,
    copy: impl Fn(&P, &mut P) + Sync,
) -> Option<usize> {
    for n in nearest_first(places, near) {
        match places.get_mut(n).map(&mut back_up) {
            Some(Taken::Yes) => {
                to_others(places, n, copy);
                return Some(n);
            }
            Some(Taken::No) | None => {}
            Some(Taken::ByNone) => return None,
        }
    }
    None
}

/// Copies from place number `first` to all the others, each in a thread of its own.
pub fn to_others<P: Send + Sync>(places: &mut [P], first: usize, copy: impl Fn(&P, &mut P) + Sync) {
    let Some((before, rest)) = places.split_at_mut_checked(first) else { return };
    let Some((from, after)) = rest.split_first_mut() else { return };
    let (from, copy) = (&*from, &copy);
    std::thread::scope(|scope| {
        for to in before.iter_mut().chain(after) {
            scope.spawn(move || copy(from, to));
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    /// What happened at a place, in letters.
    type Place = (&'static str, String);

    fn run(places: &[&'static str], verdict: impl Fn(&str) -> Taken) -> (Option<usize>, Vec<String>) {
        let mut places: Vec<Place> = places.iter().map(|name| (*name, String::new())).collect();
        // Copies that are not made at once never get past it.
        let meet = Barrier::new(places.len() - 1);
        let first = store(
            &mut places,
            |place| place.0.starts_with("near"),
            |place| {
                place.1.push('b');
                verdict(place.0)
            },
            |from, to| {
                meet.wait();
                to.1.push_str(&format!("<{}", from.0));
            },
        );
        (first, places.into_iter().map(|place| place.1).collect())
    }

    #[test]
    fn the_nearest_that_takes_it_is_copied_to_all_the_others_at_once() {
        let (first, done) = run(&["far", "near", "near too"], |_| Taken::Yes);
        assert_eq!((first, done), (Some(1), vec!["<near".into(), "b".into(), "<near".into()]));
        let refusing = |place: &str| if place == "near" { Taken::No } else { Taken::Yes };
        let (first, done) = run(&["far", "near", "far too"], refusing);
        assert_eq!((first, done), (Some(0), vec!["b".into(), "b<far".into(), "<far".into()]));
    }

    #[test]
    fn a_source_that_fails_is_read_once_and_places_that_fail_each_in_turn() {
        assert_eq!(run(&["a", "near"], |_| Taken::ByNone), (None, vec![String::new(), "b".into()]));
        assert_eq!(run(&["a", "b"], |_| Taken::No), (None, vec!["b".into(), "b".into()]));
    }
}
