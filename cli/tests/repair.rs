//! Repairs as a user types them: found by check, condemned, healed by a backup or a copy, named in editions.

use crate::home::Home;
use std::path::Path;

/// Turns a bit.
pub(crate) fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// A repository with two snapshots and one damaged data pack, the first's.
fn damaged() -> Home {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    flip(&home.objects("packs")[0], 95);
    home
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

#[test]
fn a_damaged_pack_is_condemned_and_the_next_backup_heals() {
    let home = damaged();
    home.bulla("check").ends(0);
    home.bulla("check --read-data").ends(4).prints("damaged: packs/");
    home.bulla("repair packs").ends(0).prints("0 read: 0 condemned");
    home.bulla("repair packs --read-data -n").ends(4).prints("damaged: packs/");
    let summary = json(&home.bulla("repair packs --read-data --json").ends(4).out);
    assert_eq!(summary["packs_condemned"].as_array().unwrap().len(), 1, "{summary}");
    assert_eq!(summary["packs_left"].as_array().unwrap().len(), 1, "{summary}");
    home.bulla("check").ends(4).says("found damaged before");
    home.bulla("backup src").ends(0).says("1 packs are missing or damaged");
    home.bulla("check --read-data").ends(0).prints("no damage found");
    home.bulla("prune").ends(0).prints("1 pack were deleted");
    home.bulla("check --read-data").ends(0);
    home.bulla("restore latest~1 -t back --verify").ends(0);
    assert!(home.bulla("restore latest -t back2").ok().contains("restored"));
}

#[test]
fn an_edition_names_what_is_lost() {
    let home = damaged();
    std::fs::remove_dir_all(home.path("src")).unwrap();
    home.bulla("repair snapshots").ends(0).prints("1 snapshot looked at, 0 damaged");
    home.bulla("repair snapshots --read-data -n").ends(4).prints("its content is lost");
    home.bulla("repair packs --read-data").ends(4).prints("stays for now: packs/");
    let out = home.bulla("repair snapshots --forget").ends(0).out;
    assert!(out.contains("its new edition is snapshot") && out.contains("forgot snapshot"), "{out}");
    assert_eq!(home.bulla("snapshots --json").ok().matches("\"short_id\"").count(), 1);
    home.bulla("repair snapshots").ends(0).prints("1 snapshot looked at, 0 damaged");
    home.bulla("prune --grace 0").ends(0).prints("deleted");
    home.bulla("check --read-data").ends(0).prints("no damage found");
}

#[test]
fn a_copy_of_the_repository_heals() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let cp =
        std::process::Command::new("cp").args(["-a", "repo", "copy"]).current_dir(home.path("")).status();
    assert!(cp.unwrap().success());
    std::fs::remove_file(&home.objects("packs")[0]).unwrap();
    flip(&home.objects("meta")[0], 200);
    std::fs::remove_file(&home.objects("index")[0]).unwrap();
    std::fs::remove_file(&home.objects("snap")[0]).unwrap();
    home.bulla("repair packs --from copy --read-data -n").ends(4);
    home.bulla("repair packs --from copy --read-data")
        .ends(0)
        .prints("put back: snap/")
        .prints("healed: meta/");
    home.bulla("check --read-data").ends(0).prints("no damage found");
    home.bulla("repair packs --from nowhere").ends(10);
    home.bulla("init -r other --key-file-out key2").ok();
    home.bulla("repair packs --from other").ends(5).says("another repository");
}

#[test]
fn a_lost_index_is_made_again() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    for run in home.objects("index") {
        std::fs::remove_file(run).unwrap();
    }
    home.bulla("check").ends(4);
    home.bulla("repair index -n").ends(4).prints("2 would be listed again");
    home.bulla("repair index").ends(0).prints("2 listed again");
    home.bulla("check --read-data").ends(0);
    let summary = json(&home.bulla("repair index --json --read-all-packs").ok());
    assert_eq!(summary["packs_listed"], serde_json::json!([]));
    home.bulla("repair packs nonsense").ends(2).says("not the name of a pack");
    home.bulla(&format!("repair packs {}", "ab".repeat(32))).ends(5).says("there is no pack");
}
