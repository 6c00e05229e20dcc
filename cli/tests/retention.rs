//! Forget, undelete, protect and prune as typed.

use crate::home::Home;

/// Three snapshots of a directory that changes; their ids, oldest first.
fn history(home: &Home) -> Vec<String> {
    for round in 0..3 {
        home.write("data/file", format!("content {round} ").repeat(5000).as_bytes());
        home.write(&format!("data/own-{round}"), format!("{round} only here ").repeat(9000).as_bytes());
        home.bulla("backup data").ok();
    }
    let list: serde_json::Value = serde_json::from_str(&home.bulla("snapshots --json").ok()).unwrap();
    list.as_array().unwrap().iter().map(|s| s["short_id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_policy_says_what_goes_and_why_the_rest_stays() {
    let home = Home::with_repository();
    let ids = history(&home);
    let shown = home.bulla("forget --keep-last 1 --dry-run").ok();
    assert!(
        shown.contains("last 1") && shown.contains("would forget") && shown.contains("2 snapshots would"),
        "{shown}"
    );
    home.bulla("forget").ends(2); // no rule
    home.bulla(&format!("forget {} --keep-last 1", ids[0])).ends(2); // both
    home.bulla("forget --keep-tag TYPO").ends(5); // a group would be empty
    let said = home.bulla("forget --keep-last 1").ok();
    assert!(said.contains("2 snapshots forgotten"), "{said}");
    assert!(home.bulla("snapshots").ok().contains("1 snapshot\n"));
    assert!(home.bulla("snapshots --forgotten").ok().contains("2 snapshots\n"));
    // Until a prune ends it, a forgotten snapshot restores by its id, and comes back.
    home.bulla(&format!("restore {} --target old", ids[0])).ok();
    assert!(home.bulla(&format!("undelete {}", ids[0])).ok().contains("is back as"));
    assert!(home.bulla("snapshots").ok().contains("2 snapshots\n"));
}

#[test]
fn prune_frees_and_the_rest_restores() {
    let home = Home::with_repository();
    let ids = history(&home);
    home.bulla(&format!("protect {} --reason audit", ids[0])).ok();
    home.bulla(&format!("forget {}", ids[0])).ends(5);
    home.bulla(&format!("unprotect {}", ids[0])).ok();
    home.bulla(&format!("forget --now {}", ids[0])).ends(2); // nobody to ask
    home.bulla(&format!("forget --now --yes {}", ids[0])).ok();
    let would = home.bulla("prune --dry-run").ok();
    assert!(would.contains(&format!("would end snapshot {}", ids[0])), "{would}");
    let said = home.bulla("prune").ok();
    assert!(said.contains(&format!("ended snapshot {}", ids[0])), "{said}");
    home.bulla(&format!("undelete {}", ids[0])).ends(1); // nothing of that name any more
    assert!(home.bulla("prune --json").ok().contains("\"packs_deleted\":0"));
    home.bulla("check --read-data").ok();
    home.bulla(&format!("restore {} --target second --verify", ids[1])).ok();
    home.bulla("forget --keep-last 1 --prune --grace 0 --json").ok();
    home.bulla("check --read-data").ok();
    home.bulla("restore latest --target third --verify").ok();
}

#[test]
fn a_dry_run_of_prune_says_what_a_store_will_charge_for() {
    let home = Home::with_repository();
    let ids = history(&home);
    home.bulla(&format!("forget --now --yes {}", ids[0])).ok();
    let said = |line: &str| -> serde_json::Value { serde_json::from_str(&home.bulla(line).ok()).unwrap() };
    let would = said("prune --dry-run --json --grace 0 --max-unused 0");
    let shown = home.bulla("prune --dry-run --grace 0 --max-unused 0").ok();
    let done = said("prune --json --grace 0 --max-unused 0");
    let number = |of: &serde_json::Value, key: &str| of[key].as_u64().unwrap();
    let [unneeded, partly] = ["packs_unneeded", "packs_partly_needed"].map(|key| number(&would, key));
    assert!(partly > 0, "{would}");
    assert_eq!(number(&done, "packs_deleted"), unneeded + partly, "{done}");
    let [fetch, copy] = ["bytes_to_fetch", "bytes_to_copy"].map(|key| number(&would, key));
    assert!(0 < copy && copy < fetch && fetch <= number(&done, "bytes_deleted"), "{would} {done}");
    assert!(number(&done, "chunks_copied") > 0, "{done}");
    assert!(shown.contains(&format!("{} packs would be deleted", unneeded + partly)), "{shown}");
}
