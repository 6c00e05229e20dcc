//! Options that shape a repository, choose among snapshots, or hold a run back.

use crate::home::Home;
use serde_json::Value;
use std::time::{Duration, Instant};

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

#[test]
fn init_takes_the_sizes_of_chunks_and_frames() {
    let home = Home::with_repository();
    home.bulla("init -r a --key-file-out ka --chunker 64K --frame-size 1M").ok();
    home.bulla("init -r b --key-file-out kb --chunker 4K,16K,100K").ok();
    let config = |repo: &str| parse(&home.bulla(&format!("cat config -r {repo} --key-file k{repo}")).ok());
    let sizes = |v: &Value| ["min", "avg", "max"].map(|k| v["chunker"][k].as_u64().unwrap() >> 10);
    assert_eq!((sizes(&config("a")), &config("a")["data_frame"]), ([16, 64, 256], &(1 << 20).into()));
    assert_eq!((sizes(&config("b")), &config("b")["data_frame"]), ([4, 16, 100], &(4 << 20).into()));
    let default = parse(&home.bulla("cat config").ok());
    assert_eq!(sizes(&default), [32, 128, 512]);
    for (wrong, why) in [
        ("--chunker 100K", "power of two"),
        ("--chunker 16K,4K,64K", "min < avg < max"),
        ("--chunker 1K,2K", "an average, or minimum, average and maximum"),
        ("--chunker 64M", "the limit is 8388608"),
        ("--chunker much", "is not a size"),
        ("--frame-size 1K", "is not from 4.0 KiB to 8.0 MiB"),
        ("--frame-size 9M", "is not from 4.0 KiB to 8.0 MiB"),
    ] {
        let ran = home.bulla(&format!("init -r c --key-file-out kc {wrong}")).ends(2);
        assert!(ran.err.contains(why), "{wrong}: {}", ran.err);
        assert!(!home.path("c").exists() && !home.path("kc").exists());
    }
    home.bulla("backup -r b --key-file kb src").ok();
    home.bulla("check -r b --key-file kb --read-data").ends(0).prints("no damage found");
}

/// Three snapshots of different hosts; the pack of `web`'s only file is damaged.
fn with_damage_of_web() -> Home {
    let home = Home::with_repository();
    home.write("web/page", &[1; 50_000]);
    home.write("db/table", &[2; 60_000]);
    home.bulla("backup src --host mail --tag daily").ok();
    let before = home.objects("packs");
    home.bulla("backup web --host web --tag daily,www").ok();
    let pack = home.objects("packs").into_iter().find(|p| !before.contains(p)).unwrap();
    home.bulla("backup db --host db").ok();
    let mut bytes = std::fs::read(&pack).unwrap();
    bytes[90] ^= 1;
    std::fs::remove_file(&pack).unwrap();
    std::fs::write(&pack, bytes).unwrap();
    home
}

#[test]
fn check_looks_at_what_the_chosen_snapshots_need() {
    let home = with_damage_of_web();
    home.bulla("check --read-data").ends(4).prints("3 snapshots").prints("6 packs read whole");
    let hurt = format!(":{}", home.shown("web/page"));
    for chosen in ["--host web", "--tag www", "--tag nothing --tag daily,www", "latest~1"] {
        let ran = home.bulla(&format!("check --read-data {chosen}")).ends(4).prints("checked 1 snapshot,");
        assert!(ran.out.contains("2 packs read whole") && ran.out.contains(&hurt), "{chosen}: {}", ran.out);
    }
    home.bulla(&format!("check --read-data --path {}", home.shown("web"))).ends(4);
    for chosen in ["--host db --host mail", "latest latest~2"] {
        let ran = home.bulla(&format!("check --read-data {chosen}")).ends(0).prints("checked 2 snapshots,");
        assert!(ran.out.contains("4 packs read whole"), "{chosen}: {}", ran.out);
    }
    let report = home.bulla("check --json --host mail").ok();
    assert_eq!(parse(report.lines().last().unwrap())["packs"], 2);
    home.bulla("check --host nobody").ends(1).says("no snapshot fits the filters");
    home.bulla("check 00000000").ends(1).says("no snapshot matches");
    home.bulla("check latest --host nobody").ends(1).says("no snapshot matches");
    home.bulla("check latest:/x").ends(2).says("only whole snapshots");
    home.bulla("snapshots latest:/x").ends(2).says("only whole snapshots");
    // A pack that is gone is missed by those who need it.
    let pack = home.objects("packs").into_iter().find(|p| {
        use std::os::unix::fs::PermissionsExt;
        p.metadata().unwrap().permissions().mode() & 0o777 != 0o400
    });
    std::fs::remove_file(pack.expect("the damaged pack was written by the test")).unwrap();
    home.bulla("check --host db").ends(0);
    home.bulla("check --host web").ends(4).prints("it is missing").prints(&hurt);
}

/// Names and sizes below a node of ncdu's JSON.
fn walk(node: &Value, path: &str, out: &mut Vec<(String, u64)>) {
    match node.as_array() {
        Some(list) => {
            let name = list[0]["name"].as_str().unwrap();
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
            out.push((format!("{}/", path.trim_end_matches('/')), 0));
            list[1..].iter().for_each(|child| walk(child, path.trim_end_matches('/'), out));
        }
        None => out.push((
            format!("{path}/{}", node["name"].as_str().unwrap()),
            node["asize"].as_u64().unwrap_or_default(),
        )),
    }
}

#[test]
fn ls_exports_for_ncdu() {
    let home = Home::with_repository();
    for (name, len) in
        [("src/a/x/1", 10), ("src/a-b", 20), ("src/a/2", 30), ("src/z/y/w/3", 40), ("src/b\u{1b}", 1)]
    {
        home.write(name, &vec![b'n'; len]);
    }
    for dir in ["src/empty", "src/a/empty", "src/zz"] {
        std::fs::create_dir(home.path(dir)).unwrap();
    }
    std::fs::hard_link(home.path("src/a-b"), home.path("src/z/linked")).unwrap();
    std::os::unix::fs::symlink("a", home.path("src/link")).unwrap();
    home.bulla("backup src").ok();
    let src = home.shown("src");
    let part = home.bulla(&format!("ls --ncdu latest:{src}")).ok();
    let part = parse(&part);
    assert_eq!((&part[0], &part[1], &part[2]["progname"]), (&1.into(), &2.into(), &"bulla".into()));
    let mut found = Vec::new();
    walk(&part[3], "", &mut found);
    let mut shown: Vec<(String, u64)> =
        found.iter().map(|(p, n)| (p.strip_prefix(&format!("{src}/")).unwrap().to_owned(), *n)).collect();
    shown.sort();
    let expected = [
        ("", 0),
        ("a-b", 20),
        ("a/", 0),
        ("a/2", 30),
        ("a/empty/", 0),
        ("a/x/", 0),
        ("a/x/1", 10),
        ("b\u{1b}", 1),
        ("empty/", 0),
        ("hello", 6),
        ("link", 0),
        ("sub/", 0),
        ("sub/more.log", 100_000),
        ("z/", 0),
        ("z/linked", 20),
        ("z/y/", 0),
        ("z/y/w/", 0),
        ("z/y/w/3", 40),
        ("zz/", 0),
    ];
    assert_eq!(shown, expected.map(|(p, n)| (p.to_owned(), n)));
    let linked = part[3].as_array().unwrap().iter().find(|n| n["name"] == "a-b").unwrap();
    assert_eq!((&linked["nlink"], &linked["mode"]), (&2.into(), &0o100_644.into()));
    let link = part[3].as_array().unwrap().iter().find(|n| n["name"] == "link").unwrap();
    assert_eq!(link["notreg"], true);
    let whole = parse(&home.bulla("ls --ncdu latest").ok());
    let mut all = Vec::new();
    walk(&whole[3], "", &mut all);
    assert!(all.contains(&(format!("{src}/z/y/w/3")[1..].to_owned(), 40)), "{all:?}");
    home.bulla(&format!("ls --ncdu latest:{src}/hello")).ends(5).says("is not a directory");
    home.bulla("ls --ncdu latest / /x").ends(2).says("one directory");
    home.bulla("ls --ncdu --json latest").ends(2).says("cannot be used with");
}

#[test]
fn key_list_shows_the_label_of_the_key_in_use() {
    let home = Home::with_repository();
    home.bulla("key add --key-file-out other --label the-second").ok();
    let list = home.bulla("key list --key-file other").ok();
    let line = |kind: &str, end: &str| list.lines().any(|l| l.contains(kind) && l.trim_end().ends_with(end));
    assert!(line("now", "the-second") && line("recovery", "(sealed)"), "{list}");
    let keys = parse(&home.bulla("key list --json --key-file other").ok());
    let keys = keys.as_array().unwrap();
    assert_eq!(keys.len(), 3);
    for key in keys {
        let label = if key["current"] == true { Some("the-second") } else { None };
        assert_eq!(key.get("label").and_then(Value::as_str), label, "{key}");
    }
    home.bulla("init -r two --key-file-out k2 --label first").ok();
    home.bulla("key list -r two --key-file k2").ends(0).prints("first");
}

#[test]
fn limits_hold_back_and_unknown_options_are_refused() {
    let home = Home::with_repository();
    let seconds = |line: &str| {
        let begun = Instant::now();
        home.bulla(line).ok();
        begun.elapsed()
    };
    // At least two packs of 64 KiB and an index run of 32 KiB go up.
    assert!(seconds("backup src --limit-upload 200") >= Duration::from_millis(700));
    let restore = "restore latest -t out";
    assert!(seconds(&format!("{restore}1 --limit-download 20000B")) > Duration::from_millis(200));
    assert!(
        seconds(&format!("{restore}2 --limit-download 1G --limit-upload 1G")) < Duration::from_millis(3000)
    );
    // A destination's own limit, and the command's: the lower one holds, whichever that is.
    home.write("data/noise", &crate::content::noise(1, 400_000));
    let config = |limits: &str| {
        let text = format!(
            "[destination.disk]\nurl = \"{}\"\nkey = {{ file = \"{}\" }}\n{limits}\n\
             [job.files]\nsource = {{ paths = [\"{}\"] }}\nto = [\"disk\"]\n",
            home.shown("repo"),
            home.shown("key"),
            home.shown("data"),
        );
        home.write("jobs.toml", text.as_bytes());
    };
    let slow = Duration::from_millis(1700);
    config("limits = { upload = \"200KiB/s\" }");
    assert!(seconds("run files --limit-upload 1G --config jobs.toml") >= slow);
    config("limits = { download = \"200\" }");
    assert!(seconds("drill files --config jobs.toml") >= slow);
    home.write("data/noise", &crate::content::noise(2, 400_000));
    config("limits = { upload = \"1GiB\" }");
    assert!(seconds("run files --limit-upload 200 --config jobs.toml") >= slow);
    for wrong in ["--limit-upload 0", "--limit-download fast"] {
        home.bulla(&format!("snapshots {wrong}")).ends(2);
    }
    home.bulla("snapshots -o s3.storage-class=x").ends(2).says("there is no option \"s3.storage-class\"");
    home.bulla("init -r new --key-file-out nk -o nonsense=1").ends(2).says("there is no option \"nonsense\"");
    home.bulla("init -r new --key-file-out nk -o nonsense").ends(2).says("write key=value");
    home.bulla("init -r new --key-file-out nk --pack-size 1K").ends(2).says("is not from");
    assert!(!home.path("new").exists() && !home.path("nk").exists());
}
