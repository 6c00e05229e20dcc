//! What programs read: parsed, with the fields scripts for restic rely on.

use crate::home::Home;
use serde_json::Value;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(parse).collect()
}

#[track_caller]
fn has(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "no {field} in {value:#}");
    }
}

#[test]
fn a_backup_ends_with_a_summary_and_snapshots_are_an_array() {
    let home = Home::with_repository();
    let out = lines(&home.bulla("backup src --json --tag a,b --host web --time 2026-01-31T04:00:00Z").ok());
    let summary = out.last().unwrap();
    assert_eq!(summary["message_type"], "summary");
    let counts = "files_new files_changed files_unmodified dirs_new dirs_changed dirs_unmodified data_blobs \
        data_added data_added_packed total_files_processed total_bytes_processed";
    has(summary, &counts.split_whitespace().collect::<Vec<_>>());
    has(summary, &["total_duration", "snapshot_id", "schema_version"]);
    assert_eq!(summary["files_new"], 2);
    assert_eq!(summary["total_bytes_processed"], 100_006);

    let list = parse(&home.bulla("snapshots --json").ok());
    let snapshot = &list.as_array().unwrap()[0];
    has(
        snapshot,
        &["id", "short_id", "time", "hostname", "username", "paths", "tags", "program_version", "summary"],
    );
    assert_eq!(snapshot["id"], summary["snapshot_id"]);
    assert_eq!(snapshot["time"], "2026-01-31T04:00:00Z");
    assert_eq!((&snapshot["hostname"], &snapshot["tags"][1]), (&"web".into(), &"b".into()));
    has(&snapshot["summary"], &counts.split_whitespace().collect::<Vec<_>>());

    let groups = parse(&home.bulla("snapshots --json -g host,tags").ok());
    assert_eq!(groups[0]["group_key"]["hostname"], "web");
    assert_eq!(groups[0]["snapshots"].as_array().unwrap().len(), 1);
    for filter in ["--host other", "--tag a,c", "--path /elsewhere"] {
        assert_eq!(home.bulla(&format!("snapshots --json {filter}")).ok(), "[]\n", "{filter}");
    }
    assert!(home.bulla("snapshots --tag x --tag a,b").ok().contains("1 snapshot\n"));
}

#[test]
fn ls_and_cat_give_documents() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    let out = lines(&home.bulla("ls latest --json").ok());
    assert_eq!((&out[0]["message_type"], &out[0]["struct_type"]), (&"snapshot".into(), &"snapshot".into()));
    let hello = out.iter().find(|n| n["name"] == "hello").unwrap();
    has(hello, &["type", "path", "uid", "gid", "size", "mode", "permissions", "mtime", "inode"]);
    assert_eq!((&hello["type"], &hello["size"]), (&"file".into(), &6.into()));
    assert_eq!(hello["path"], home.shown("src/hello"));

    let config = parse(&home.bulla("cat config").ok());
    has(&config, &["id", "version", "chunker"]);
    has(&parse(&home.bulla("cat snapshot latest").ok()), &["id", "tree", "mounts", "client"]);
    let packs = lines(&home.bulla("cat index").ok());
    assert!(!packs.is_empty());
    let pack = parse(&home.bulla(&format!("cat pack {}", packs[0]["name"].as_str().unwrap())).ok());
    has(&pack, &["frames", "kind", "size"]);
    let tree = lines(&home.bulla("cat tree latest").ok());
    assert!(tree.iter().any(|n| n["content"].is_array()));
}

#[test]
fn other_commands_and_failures_are_json_too() {
    let home = Home::with_repository();
    has(&parse(&home.bulla("version --json").ok()), &["version", "repository_format", "os", "arch"]);
    let keys = parse(&home.bulla("key list --json").ok());
    assert_eq!(keys.as_array().unwrap().len(), 2);
    let check = lines(&home.bulla("check --json").ok());
    assert_eq!(check.last().unwrap()["num_errors"], 0);
    let init = parse(&home.bulla("init -r two --json --key-file-out k2").ok());
    has(&init, &["id", "repository", "recovery_key"]);

    let ran = home.bulla("snapshots -r nowhere --json").ends(10);
    let said = parse(&ran.err);
    assert_eq!((&said["message_type"], &said["code"]), (&"exit_error".into(), &10.into()));
    assert!(ran.out.is_empty() && said["message"].as_str().unwrap().contains("nowhere"));
    let usage = parse(&home.bulla("backup --json --colour").ends(2).err);
    assert_eq!((&usage["message_type"], &usage["code"]), (&"exit_error".into(), &2.into()));

    let partial = home.bulla("backup src gone --json -v").ends(3);
    let error = &lines(&partial.err)[0];
    assert_eq!((&error["message_type"], &error["item"]), (&"error".into(), &"gone".into()));
    assert!(
        lines(&partial.out).iter().any(|l| l["message_type"] == "verbose_status" && l["action"] == "new")
    );
}
