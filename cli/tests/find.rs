//! `find`, as somebody types it who knows a name and no place.

use crate::home::Home;

/// Two snapshots; a file is only in the first, another only in the second.
fn filled() -> Home {
    let mut home = Home::with_repository();
    home.write("src/etc/app.conf", b"1");
    home.write("src/etc/App.CONF", b"2");
    home.write("src/www/index.php", b"3");
    home.write("src/www/gone.php", b"4");
    home.write("src/odd\u{1b}[2J.php", b"5");
    home.bulla("backup src --tag old").ends(0);
    std::fs::remove_file(home.path("src/www/gone.php")).unwrap();
    home.write("src/www/deep/er/new.php", b"6");
    home.bulla("backup src").ends(0);
    home.set("TZ", "UTC");
    home
}

#[test]
fn names_are_found_in_every_snapshot_that_has_them() {
    let home = filled();
    let src = home.shown("src");
    let found = |line: &str| home.bulla(&format!("find {line}")).ok();
    let all = found("*.php");
    assert_eq!(all.matches("found in snapshot").count(), 2);
    assert_eq!(all.matches(&format!("{src}/www/index.php\n")).count(), 2);
    assert_eq!(all.matches("gone.php").count(), 1);
    assert_eq!(all.matches("new.php").count(), 1);
    assert!(!all.contains('\u{1b}') && all.contains("odd\\x1b[2J.php"), "{all}");
    assert_eq!(found("app.conf").matches("conf\n").count(), 2);
    assert_eq!(found("-i app.conf --tag old").lines().count(), 3);
    assert_eq!(found(&format!("{src}/www/*.php --tag old")).lines().count(), 3);
    assert_eq!(found("www/**/new.php").lines().count(), 2);
    assert_eq!(found("www -s latest").lines().count(), 2, "the directory, and not what is in it");
    let long = found("-l index.php -s latest");
    assert!(long.contains("-rw-") && long.contains(" 1 ") && long.ends_with("index.php\n"), "{long}");
    assert_eq!(found("nothing"), "");
    assert_eq!(found("*.php --newest 2001-01-01T00:00:00Z"), "");
    assert_eq!(found("*.php --oldest 2001-01-01T00:00:00Z"), all);
    home.bulla("find").ends(2);
    home.bulla("find x[").ends(2).says("not valid");
    home.bulla("find x -s none").ends(1);
}

#[test]
fn programs_get_a_document() {
    let home = filled();
    let found: serde_json::Value =
        serde_json::from_str(&home.bulla("find gone.php index.php --json").ok()).unwrap();
    let found = found.as_array().unwrap();
    assert_eq!(found.len(), 2);
    assert_eq!((&found[0]["hits"], &found[1]["hits"]), (&2.into(), &1.into()));
    let paths: Vec<&str> =
        found[0]["matches"].as_array().unwrap().iter().map(|m| m["path"].as_str().unwrap()).collect();
    assert!(paths[0].ends_with("/www/gone.php") && paths[1].ends_with("/www/index.php"), "{paths:?}");
    assert_eq!(
        (&found[0]["matches"][0]["type"], &found[0]["matches"][0]["size"]),
        (&"file".into(), &1.into())
    );
    assert_eq!(found[0]["snapshot"].as_str().unwrap().len(), 32);
    let none = home.bulla("find nothing --json").ok();
    assert_eq!(none.trim(), "[]");
}
