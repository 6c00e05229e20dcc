//! What a search over many snapshots costs.

use crate::support::{backup, in_memory, noise};
use bulla_engine::find::Search;
use bulla_engine::format::tree::Entry;
use bulla_engine::observer::Silent;

#[test]
fn ten_snapshots_cost_hardly_more_than_one() {
    let ((repository, _), dir) = (in_memory(), tempfile::tempdir().unwrap());
    for n in 0..12_000 {
        let sub = dir.path().join(format!("directory-{}", n % 40));
        std::fs::create_dir_all(&sub).unwrap();
        std::fs::write(sub.join(format!("a-file-with-a-name-of-some-length-{n}")), n.to_string()).unwrap();
    }
    for round in 0..10 {
        std::fs::write(dir.path().join("directory-3/changing"), noise(&round.to_string(), 100)).unwrap();
        backup(&repository, dir.path()).unwrap();
    }
    let snapshots = repository.snapshots().unwrap();
    let search = |wanted: &dyn Fn(&Entry) -> bool| {
        let (mut search, mut hits, mut first) = (Search::new(&repository).unwrap(), 0, 0);
        for snapshot in &snapshots {
            let mut count = |_: &Entry| {
                hits += 1;
                Ok(())
            };
            search.search(snapshot, wanted, &Silent, &mut count).unwrap();
            first = if first == 0 { search.nodes_read() } else { first };
        }
        (hits, first, search.nodes_read())
    };
    let (hits, one, all) = search(&|e| e.name == b"changing");
    assert_eq!(hits, 10);
    assert!(one > 10, "{one} nodes are no test");
    // For each further snapshot what changed, and the nodes above the leaves.
    assert!(all < one * 3, "{one} nodes for one snapshot, {all} for ten");
    let (hits, _, _) = search(&|e| e.name.ends_with(b"-77"));
    assert_eq!(hits, 10, "what is found is found in each");
}
