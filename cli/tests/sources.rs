//! What a backup takes in and what it leaves out.

use crate::home::Home;

/// The paths of the newest snapshot below `src`.
fn stored(home: &Home) -> Vec<String> {
    let prefix = home.shown("src/");
    let all = home.bulla("ls latest").ok();
    all.lines().filter_map(|l| l.strip_prefix(&prefix)).map(str::to_owned).collect()
}

#[test]
fn excludes_in_all_forms() {
    let home = Home::with_repository();
    home.write("src/cache/CACHEDIR.TAG", b"Signature: 8a477f597d28d172789f06886806bc55");
    home.write("src/cache/blob", b"x");
    home.write("src/marked/.nobackup", b"");
    home.write("src/marked/file", b"x");
    home.write("src/PICTURE.JPG", b"x");
    home.write("patterns", b"# no logs\n*.log\n");
    home.bulla(
        "backup src --exclude-file patterns --exclude-caches --exclude-if-present .nobackup --iexclude *.jpg",
    )
    .ok();
    let paths = stored(&home);
    for gone in ["sub/more.log", "cache/blob", "marked/file", "PICTURE.JPG"] {
        assert!(!paths.iter().any(|p| p == gone), "{gone} in {paths:?}");
    }
    assert!(paths.iter().any(|p| p == "hello") && paths.iter().any(|p| p == "sub"));
    home.bulla("backup src --exclude-larger-than 10K -e hello").ok();
    let paths = stored(&home);
    assert!(!paths.iter().any(|p| p == "hello" || p == "sub/more.log"), "{paths:?}");
    home.bulla("backup src -e [").ends(2).says("is not valid");
}

#[test]
fn lists_of_files() {
    let home = Home::with_repository();
    home.write("src/a b", b"x");
    home.write("list", b"# comment\nsrc/h*\nsrc/none*\n\n");
    home.bulla("backup --files-from list").ends(0).says("no path matches src/none*");
    assert_eq!(stored(&home), ["hello"]);
    home.write("list", b"src/a b\n");
    home.bulla("backup --files-from-verbatim list").ok();
    assert_eq!(stored(&home), ["a b"]);
    home.run(&["backup", "--files-from-raw", "-"], b"src/a b\0src/hello\0").ok();
    assert_eq!(stored(&home), ["a b", "hello"]);
    home.run(&["backup", "--files-from-raw", "-"], b"").ends(2).says("the lists are empty");
}

#[test]
fn streams() {
    let home = Home::with_repository();
    home.run(&["backup", "--stdin", "--stdin-filename", "db/dump.sql"], b"create table").ok();
    assert_eq!(home.bulla("cat latest:/db/dump.sql").ok(), "create table");
    home.bulla("backup --stdin-from-command --stdin-filename out -- echo hi").ok();
    assert_eq!(home.bulla("cat latest:out").ok(), "hi\n");
    let fail = ["backup", "--stdin-from-command", "--", "sh", "-c", "echo half; exit 3"];
    home.run(&fail, b"").ends(1).says("the command sh failed: exit status: 3").says("nothing was committed");
    home.bulla("backup --stdin-from-command -- /no/such/program").ends(1).says("cannot run /no/such/program");
    home.bulla("snapshots").ends(0).prints("2 snapshots");
}

#[test]
fn the_repository_is_not_backed_up_into_itself() {
    let home = Home::with_repository();
    home.bulla("backup .").ends(0).says("skipping ").says("repo: it belongs to bulla");
    let all = home.bulla("ls latest").ok();
    assert!(!all.contains("/repo/packs") && all.contains("/src/hello"), "{all}");
}

#[test]
fn dry_runs_and_unchanged_sources_make_no_snapshot() {
    let home = Home::with_repository();
    let list = home.bulla("backup -n -v src").ends(0).prints("dry run: nothing was stored");
    assert!(list.out.contains(&format!("new        {}, 6 B", home.shown("src/hello"))), "{}", list.out);
    home.bulla("snapshots").ends(0).prints("0 snapshots");
    home.bulla("backup src").ok();
    // Other tests may touch the directories above the source, which are a part of the snapshot.
    let skipped = || {
        home.bulla("backup --skip-if-unchanged src").ok().contains("nothing changed: no snapshot was made")
    };
    assert!((0..20).any(|_| skipped()));
    home.bulla("backup -q -f src").ends(0).prints("snapshot ");
    home.bulla("backup --parent latest src").ends(0).prints("compared with snapshot");
    home.bulla("snapshots --latest 1 -c").ends(0).prints("1 snapshot\n");
    home.bulla("backup src").ok();
    home.bulla("snapshots latest~1 latest").ends(0).prints("2 snapshots");
}
