//! Stores whose answers are late: a LIST or HEAD sent at t may show any moment of [t - D, t]. Writers never wait; how
//! long must a collector? Every choice of times is tried (SPEC 15, assumption 2).

/// What a collector waits: between mark and LIST pend; LIST pend and LIST snap; the last DELETE and the mark's removal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Waits {
    settle: i32,
    snap: i32,
    unmark: i32,
}

/// A foreign pack: announced at `a`, marks listed at `v`, existence looked at at `x`; marked at `m`.
fn foreign_pack(d: i32, w: Waits, m: i32) -> Option<String> {
    let pend = m + w.settle;
    let snap = pend + w.snap;
    let delete = snap;
    let unmark = delete + w.unmark;
    for a in 0..4 * d + 3 {
        for v in a..unmark + d + 2 {
            // The listing of marks may show a moment without the mark.
            if !(v - d..=v).any(|t| t < m || t >= unmark) {
                continue;
            }
            for x in (v..=delete + d).filter(|x| x - d < delete) {
                let what =
                    format!("mark {m}, DELETE {delete}, unmark {unmark}; announced {a}, marks {v}, HEAD {x}");
                if pend - d < a && snap - d < unmark + x + d {
                    return Some(what);
                }
                // Committed and closed at once: gone from a fresh LIST pend, not yet in a stale LIST snap.
                if let Some(k) = (x..=pend).find(|k| snap - d < *k) {
                    return Some(format!("{what}, commit+close {k}"));
                }
            }
        }
    }
    None
}

/// A donor forgotten at `f`, deaths read right after that, pinned at `a`.
fn donor(d: i32, w: Waits) -> Option<String> {
    let times = 0..4 * d + 3;
    let found = times.clone().flat_map(|f| times.clone().map(move |a| (f, a)));
    let found = found.into_iter().find(|(f, a)| a - d < *f && f + w.settle - d < *a);
    found.map(|(f, a)| format!("forgotten {f}, LIST pend {}, pin {a}", f + w.settle))
}

fn loses(d: i32, w: Waits) -> Option<String> {
    (0..4 * d + 3).find_map(|m| foreign_pack(d, w, m)).or_else(|| donor(d, w))
}

#[test]
fn smallest_safe_waits() {
    for (d, least) in [(0, [0, 0, 0]), (1, [1, 1, 1]), (2, [3, 2, 2]), (3, [5, 3, 3])] {
        let span = 0..2 * d + 2;
        let safe = |[settle, snap, unmark]: [i32; 3]| loses(d, Waits { settle, snap, unmark }).is_none();
        for settle in span.clone() {
            for snap in span.clone() {
                for unmark in span.clone() {
                    let enough = [settle, snap, unmark].iter().zip(&least).all(|(have, need)| have >= need);
                    assert!(!safe([settle, snap, unmark]) || enough, "D = {d}: less than {least:?} is safe");
                }
            }
        }
        assert!(safe(least), "D = {d}");
        println!("stale D = {d}: settle, snap, unmark {least:?}");
        // What the specification asks for: 2D, D, D.
        assert!(safe([2 * d, d, d]) && least[0] <= 2 * d && least[1] <= d && least[2] <= d);
        for k in (0..3).filter(|k| least[*k] > 0) {
            let mut less = least;
            less[k] -= 1;
            let [settle, snap, unmark] = less;
            println!("  {less:?} loses: {}", loses(d, Waits { settle, snap, unmark }).unwrap());
        }
    }
}
