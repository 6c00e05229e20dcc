//! Every state, breadth first and exactly, each with the step that led to it: the first loss found is a shortest one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Display;
use std::hash::Hash;

/// What a search found.
#[derive(Debug)]
pub struct Found {
    /// States seen; with a loss, until then.
    pub states: usize,
    pub loss: Option<Loss>,
}

/// A broken promise and the shortest way to it.
#[derive(Debug)]
pub struct Loss {
    pub why: &'static str,
    pub trace: Vec<String>,
}

/// Searches from `start`; `steps` gives the successors of a state, `lost` what is wrong with it.
pub fn explore<S: Copy + Eq + Hash, L: Copy + Display>(
    start: S,
    mut steps: impl FnMut(&S, &mut dyn FnMut(L, S)),
    lost: impl Fn(&S) -> Option<&'static str>,
) -> Found {
    let mut states: Vec<(S, Option<(u32, L)>)> = vec![(start, None)];
    let mut seen = HashMap::from([(start, ())]);
    let mut next = 0;
    while let Some((state, _)) = states.get(next).copied() {
        if let Some(why) = lost(&state) {
            let loss = Some(Loss { why, trace: trace(&states, next) });
            return Found { states: next + 1, loss };
        }
        steps(&state, &mut |label, s| {
            if let Entry::Vacant(place) = seen.entry(s) {
                place.insert(());
                states.push((s, Some((next as u32, label))));
            }
        });
        next += 1;
    }
    Found { states: states.len(), loss: None }
}

fn trace<S, L: Display>(states: &[(S, Option<(u32, L)>)], mut at: usize) -> Vec<String> {
    let mut out = Vec::new();
    while let Some((before, label)) = &states[at].1 {
        out.push(label.to_string());
        at = *before as usize;
    }
    out.reverse();
    out
}

/// A small system to see that the search sees: a counter that may add 1 or double, and must not reach `bad`.
#[test]
fn a_shortest_trace_is_found() {
    let search = |bad: u32| {
        let steps = |s: &u32, put: &mut dyn FnMut(&'static str, u32)| {
            for (label, n) in [("add", s + 1), ("double", s * 2)] {
                if n <= 20 {
                    put(label, n);
                }
            }
        };
        explore(1_u32, steps, |s| (*s == bad).then_some("bad"))
    };
    let found = search(10).loss.unwrap();
    assert_eq!((found.why, found.trace.join(" ").as_str()), ("bad", "add double add double"));
    assert!(search(21).loss.is_none());
    assert_eq!(search(21).states, 20);
}
