//! The correct protocol at growing bounds: nothing is lost, and the states are as many as those of the design's model.

use crate::explore::{Found, explore};
use crate::rules::{Bounds, Rules};
use crate::state::{Model, Packed, State};
use crate::sweep::{Swept, sweep};
use crate::world::Label;

/// The search with traces; every state by its own name.
pub fn search(bounds: Bounds, rules: Rules) -> Found {
    let model = Model::new(bounds, rules);
    let steps = |p: &Packed, put: &mut dyn FnMut(Label, Packed)| {
        model.steps(&State::unpack(p), &mut |label, s| put(label, s.pack()));
    };
    explore(model.start().pack(), steps, |p| model.lost(&State::unpack(p)))
}

/// Sweeps, prints, and insists that nothing is lost.
fn holds(name: &str, bounds: Bounds, rules: Rules) -> Swept {
    let swept = sweep(&Model::new(bounds, rules));
    println!(
        "{name}: {} states in {} classes, depth {}, {:.1} s ({bounds:?})",
        swept.states, swept.classes, swept.depth, swept.seconds
    );
    if let Some(why) = swept.loss {
        let trace = search(bounds, rules).loss.map_or_else(Vec::new, |l| l.trace);
        panic!("{name}: {why}: {}", trace.join(" | "));
    }
    swept
}

/// Rules, the bounds, and the states the Python model of the design counts.
fn counted() -> Vec<(&'static str, Rules, Bounds, usize)> {
    let design = Rules::DESIGN;
    let split = Rules { split: true, ..design };
    let commits = Rules { see_commits: true, ..design };
    let copies = Rules { count_copies: true, ..design };
    let weak = Rules { exact_puts: false, ..design };
    let late = Rules { duplicates: true, ..design };
    let once = Bounds { restarts: 0, ..Bounds::ONE };
    let both = Rules { see_commits: true, ..split };
    let two = Bounds::of(1, 2, [1, 1, 0, 1, 1, 1]);
    vec![
        ("design", design, Bounds::ONE, 3_604),
        ("design, two cycles", design, Bounds { cycles: 2, ..Bounds::ONE }, 18_160),
        ("design, no uploads", design, Bounds { uploads: 0, ..two }, 31_442),
        ("design 1 x 2", design, two, 55_827),
        ("design 2 x 1", design, Bounds::of(2, 1, [1, 1, 0, 1, 1, 1]), 108_967),
        ("split, no restart", split, once, 4_528),
        ("split", split, Bounds::ONE, 11_308),
        ("commits seen, no restart", commits, once, 1_598),
        ("commits seen", commits, Bounds::ONE, 4_035),
        ("commits seen, split", both, Bounds::ONE, 12_420),
        ("weak store", weak, Bounds::ONE, 826),
        ("late duplicates, graves", late, Bounds::ONE, 6_244),
        ("copies counted, small", copies, Bounds::ONE, 12_218),
        ("copies counted, split, commits seen", Rules { count_copies: true, ..both }, Bounds::ONE, 43_446),
        ("copies counted 1 x 2", copies, two, 950_110),
    ]
}

#[test]
fn states_are_those_of_the_design() {
    for (name, rules, bounds, states) in counted() {
        let found = search(bounds, rules);
        println!("{name}: {} states", found.states);
        assert!(found.loss.is_none(), "{name}: {:?}", found.loss);
        assert_eq!(found.states, states, "{name}");
        let swept = sweep(&Model::new(bounds, rules));
        assert_eq!(swept.states, states as u64, "{name}: classes do not add up");
    }
}

/// Bounds that take minutes and gigabytes are for `BULLA_MODEL=full`.
fn full() -> bool {
    std::env::var("BULLA_MODEL").is_ok_and(|v| v == "full")
}

macro_rules! holds {
    ($($name:ident: $rules:expr, $bounds:expr, $states:expr, $always:expr;)*) => {
        $(#[test]
        fn $name() {
            if $always || full() {
                let swept = holds(stringify!($name), $bounds, $rules);
                assert_eq!(swept.states, $states);
            } else {
                println!("{}: left out, BULLA_MODEL is not full", stringify!($name));
            }
        })*
    };
}

const COPIES: Rules = Rules { count_copies: true, ..Rules::DESIGN };

// The numbers after 2 x 2 and so on are cycles, uploads, restarts, copies, first packs, victims.
holds! {
    design_1x3: Rules::DESIGN, Bounds::of(1, 3, [1, 1, 0, 1, 1, 1]), 3_676_687, true;
    design_3x1: Rules::DESIGN, Bounds::of(3, 1, [1, 1, 0, 1, 1, 1]), 13_159_853, true;
    design_1x2_two: Rules::DESIGN, Bounds::of(1, 2, [2, 1, 1, 2, 1, 2]), 17_109_063, true;
    design_2x1_two: Rules::DESIGN, Bounds::of(2, 1, [2, 1, 1, 2, 1, 2]), 6_851_933, true;
    design_2x2: Rules::DESIGN, Bounds::of(2, 2, [1, 1, 1, 1, 1, 2]), 122_798_251, false;
    copies_1x3: COPIES, Bounds::of(1, 3, [1, 1, 0, 0, 1, 1]), 9_688_696, true;
    copies_1x3_copy: COPIES, Bounds::of(1, 3, [1, 1, 0, 1, 1, 1]), 713_311_820, false;
    copies_1x2_two: COPIES, Bounds::of(1, 2, [2, 1, 0, 1, 1, 1]), 36_351_218, false;
    copies_2x2: COPIES, Bounds::of(2, 2, [1, 1, 0, 0, 1, 1]), 27_896_486, true;
    copies_2x2_copy: COPIES, Bounds::of(2, 2, [1, 0, 0, 1, 1, 1]), 57_779_175, false;
    copies_2x2_both: COPIES, Bounds::of(2, 2, [1, 1, 0, 1, 1, 1]), 299_955_985, false;
    engine_1x1: Rules::ENGINE, Bounds::ONE, 68_288, true;
    engine_1x1_two: Rules::ENGINE, Bounds::of(1, 1, [2, 1, 1, 2, 1, 2]), 895_313, true;
    engine_2x1: Rules::ENGINE, Bounds::of(2, 1, [1, 1, 0, 1, 1, 1]), 4_012_552, true;
    engine_1x2: Rules::ENGINE, Bounds::of(1, 2, [1, 1, 0, 1, 1, 1]), 21_216_355, true;
    engine_2x2: Rules::ENGINE, Bounds::of(2, 2, [1, 0, 0, 0, 1, 1]), 144_319_078, true;
}
