//! Everything a file system can hold, through the real binary and back; `rsync -aHAXn --checksum --delete` judges.

use crate::home::Home;
use std::ffi::OsStr;
use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

/// True when `tool` is there; in CI it must be.
fn have(tool: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {tool}")]).output().unwrap().status.success();
    assert!(found || std::env::var_os("CI").is_none(), "CI needs {tool}");
    found
}

fn sh(dir: &Path, script: &str) {
    let done = Command::new("sh").arg("-ec").arg(script).current_dir(dir).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

fn noise(len: usize) -> Vec<u8> {
    let mut x = len as u64 | 1;
    let step = move || {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x >> 32) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn sizes(dir: &Path) {
    for base in [32 << 10, 512 << 10, 1 << 20, 4 << 20] {
        for len in [base - 1, base, base + 1] {
            fs::write(dir.join(format!("size-{len}")), noise(len)).unwrap();
        }
    }
    fs::write(dir.join("size-9m"), noise(9 << 20)).unwrap();
    fs::write(dir.join("empty"), b"").unwrap();
    fs::write(dir.join("one"), b"1").unwrap();
}

fn sparse(dir: &Path) {
    let holes = |name: &str, len: u64, data: &[u64]| {
        let file = File::create(dir.join(name)).unwrap();
        file.set_len(len).unwrap();
        data.iter().for_each(|at| file.write_all_at(&noise(5000), *at).unwrap());
    };
    holes("hole-front", 20 << 20, &[19 << 20]);
    holes("hole-middle", 20 << 20, &[0, 15 << 20]);
    holes("hole-end", 20 << 20, &[0]);
    holes("hole-all", 20 << 20, &[]);
}

fn names(dir: &Path) {
    let long = "n".repeat(255);
    let all: [&[u8]; 9] = [
        b"\xff\xfe not utf-8",
        b"new\nline",
        b"\x1b[31mred",
        b"-rf",
        b" ",
        b"\\x41",
        b".dot",
        b"a-b",
        long.as_bytes(),
    ];
    for name in all {
        fs::write(dir.join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::create_dir(dir.join("a")).unwrap();
    fs::write(dir.join("a/b"), "sorts between a-b and a").unwrap();
}

fn links(dir: &Path) {
    fs::create_dir(dir.join("other")).unwrap();
    fs::write(dir.join("hard-1"), noise(70_000)).unwrap();
    fs::hard_link(dir.join("hard-1"), dir.join("hard-2")).unwrap();
    fs::hard_link(dir.join("hard-1"), dir.join("other/hard-3")).unwrap();
    symlink("does/not/exist", dir.join("dangling")).unwrap();
    symlink("/etc/passwd", dir.join("absolute")).unwrap();
    symlink("x/".repeat(1990), dir.join("long-link")).unwrap();
}

fn modes_and_times(dir: &Path) {
    for mode in [0o4755, 0o2755, 0o1644, 0o000, 0o777] {
        let file = dir.join(format!("mode-{mode:o}"));
        fs::write(&file, "m").unwrap();
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(dir.join("sticky")).unwrap();
    fs::set_permissions(dir.join("sticky"), Permissions::from_mode(0o3777)).unwrap();
    let epoch = SystemTime::UNIX_EPOCH;
    let times = [
        ("before-1970", epoch - Duration::new(1_000_000_000, 5)),
        ("nanoseconds", epoch + Duration::new(1_234_567_890, 123_456_789)),
        ("far-future", epoch + Duration::from_secs(4_000_000_000)),
    ];
    for (name, time) in times {
        let file = File::create(dir.join(name)).unwrap();
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
    }
}

/// Devices, owners, attributes: what needs tools or the superuser.
fn special(dir: &Path) {
    sh(dir, "mkfifo pipe");
    std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap();
    if rustix::process::geteuid().is_root() {
        sh(
            dir,
            "mknod char c 1 3; mknod block b 7 99; echo o > owned; chown 54321:12345 owned pipe; chown -h 7:8 dangling",
        );
    }
    if have("setfattr") {
        sh(
            dir,
            "echo x > attr; setfattr -n user.comment -v 'a value' attr; setfattr -n user.big -v $(head -c 3000 /dev/zero | tr '\\0' b) attr; setfattr -n user.dir -v 1 other",
        );
    }
    if have("setfacl") {
        sh(
            dir,
            "echo x > acl; setfacl -m u:12345:rw,g:54321:r acl; mkdir acl-dir; setfacl -d -m u:12345:rwx acl-dir",
        );
    }
    if have("setcap") && rustix::process::geteuid().is_root() {
        sh(dir, "cp one capable; setcap cap_net_raw+ep capable");
    }
}

/// A directory of 20,000 entries here and 100,000 in CI; paths longer than the kernel takes at once.
fn many_and_deep(dir: &Path) {
    let many = dir.join("many");
    fs::create_dir(&many).unwrap();
    let n = if std::env::var_os("CI").is_some() { 100_000 } else { 20_000 };
    (0..n).for_each(|i| drop(File::create(many.join(format!("entry-{i:06}"))).unwrap()));
}

fn build(dir: &Path) {
    sizes(dir);
    sparse(dir);
    names(dir);
    links(dir);
    modes_and_times(dir);
    special(dir);
    many_and_deep(dir);
}

/// What rsync would change to make `restored` like `tree`.
fn differences(home: &Home, restored: &str) -> String {
    let args = ["-aHAXn", "--numeric-ids", "--checksum", "--delete", "--itemize-changes", "tree/", restored];
    let ran = Command::new("rsync").args(args).current_dir(home.path("")).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr)
}

/// By the second reader, which was written from SPEC.md alone.
fn rescued(home: &Home) {
    let Some(venv) = crate::rescue_kit::environment() else { return };
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rescue/bulla_rescue.py");
    let args = ["-r", "repo", "--key-file", "key", "restore", "latest", "rescued"];
    let mut run = Command::new(venv.join("bin/python"));
    let ran = run.arg(reader).args(args).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(home.path(""));
    let ran = ran.output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(
        differences(home, &format!("rescued{}/", home.path("tree").display())),
        "",
        "the second reader"
    );
}

#[test]
fn every_kind_of_entry_comes_back_identical() {
    if !have("rsync") {
        return;
    }
    let home = Home::with_repository();
    let src = home.path("tree");
    fs::create_dir(&src).unwrap();
    build(&src);
    home.bulla("backup tree").ok();
    let before = size(&home.path("repo"));
    home.bulla("backup tree").ok();
    let grown = size(&home.path("repo")) - before;
    assert!(grown < 100 << 10, "an unchanged backup added {grown} bytes");
    home.bulla("check --read-data").ok();
    let restored = format!("out{}/", src.display());
    for round in 0..2 {
        // The second round finds everything there already.
        home.bulla("restore latest --target out").ok();
        assert_eq!(differences(&home, &restored), "", "round {round}");
    }
    for name in ["hole-front", "hole-middle", "hole-end", "hole-all"] {
        let blocks = |p: &Path| fs::metadata(p.join(name)).unwrap().blocks();
        assert!(blocks(&home.path(&restored)) <= blocks(&src) + 16, "{name} was filled in");
    }
    rescued(&home);
}

#[test]
fn a_terabyte_of_nothing_takes_seconds() {
    let home = Home::with_repository();
    fs::create_dir(home.path("huge")).unwrap();
    let file = File::create(home.path("huge/file")).unwrap();
    // ext4 ends a file at 16 TiB, tmpfs where memory does; one terabyte goes everywhere but on FAT.
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"something", 1 << 39).unwrap();
    home.bulla("backup huge").ok();
    home.bulla("restore latest --target out").ok();
    let out = home.path(&format!("out{}/file", home.shown("huge")));
    let meta = fs::metadata(&out).unwrap();
    assert_eq!(meta.len(), 1 << 40);
    assert!(meta.blocks() < 4096);
    let mut back = [0; 9];
    File::open(out).unwrap().read_exact_at(&mut back, 1 << 39).unwrap();
    assert_eq!(&back, b"something");
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).unwrap().map(Result::unwrap);
    entries.map(|e| if e.path().is_dir() { size(&e.path()) } else { e.metadata().unwrap().len() }).sum()
}
