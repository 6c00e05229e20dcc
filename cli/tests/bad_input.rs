//! A world that refuses: full disks, read-only ones, files that may not be read, repositories with a part missing. Each
//! through the real binary; what was backed up before is whole afterwards, and nothing ever panics.

use crate::home::{Home, Ran};
use bulla_engine::backend::Local;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::env::{Entropy, Env};
use bulla_engine::format::config::{self, Config};
use bulla_engine::format::slot::{Slot, SlotSecret, parse_key};
use bulla_engine::observer::Silent;
use bulla_engine::repository::Repository;
use bulla_engine::source::{Sources, StreamSource};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Says why a test could not do its work; in CI it must.
#[allow(clippy::print_stderr, reason = "who runs tests should know which did not run")]
fn skipped(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "in CI this has to run, but {why}");
    eprintln!("skipped: {why}");
}

/// A file system of its own, gone with the test.
struct Mount(PathBuf);

impl Mount {
    /// `mount` with the words of `how` at `at`, or `None` for a user who may not.
    fn new(how: &str, at: PathBuf) -> Option<Self> {
        fs::create_dir_all(&at).unwrap();
        if rustix::process::geteuid().is_root() && mount(how, &at) {
            return Some(Self(at));
        }
        skipped("this user may not mount");
        None
    }

    fn remount(&self, options: &str) {
        assert!(mount(&format!("-o remount,{options}"), &self.0), "remount {options}");
    }

    /// KiB in use.
    fn used(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(how: &str, at: &Path) -> bool {
    Command::new("mount").args(how.split(' ')).arg(at).stderr(Stdio::null()).status().unwrap().success()
}

/// Bytes that do not compress, other ones for each `seed`.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed * 2 + 1;
    let step = || {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (x >> 56) as u8
    };
    std::iter::repeat_with(step).take(len).collect()
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

impl Ran {
    /// Ended in words, not in a panic.
    #[track_caller]
    fn sound(self) -> Self {
        assert!(!self.err.contains("panicked") && self.code < 100, "{}: {}", self.code, self.err);
        self
    }
}

/// The first snapshot of `repo` restores as it was and the repository has no damage.
#[track_caller]
fn first_is_intact(home: &Home, of: usize) {
    let _ = fs::remove_dir_all(home.path("first"));
    let plural = if of == 1 { "" } else { "s" };
    home.bulla("snapshots").ends(0).prints(&format!("{of} snapshot{plural}\n"));
    let first = format!("restore latest~{}:{} -t first", of - 1, home.shown("src"));
    home.bulla(&first).ok();
    assert_eq!(home.read("first/hello"), b"hello\n");
    assert_eq!(home.read("first/sub/more.log"), [7; 100_000]);
    assert!(!home.path("first/new").exists());
    home.bulla("check --read-data").ends(0).prints("no damage found");
}

#[test]
fn a_disk_that_fills_up_costs_the_backup_and_nothing_else() {
    let mut home = Home::with_repository();
    let Some(disk) = Mount::new("-t tmpfs -o size=8m none", home.path("disk")) else { return };
    copy(&home.path("repo"), &home.path("disk/repo"));
    home.set("BULLA_REPOSITORY", "disk/repo");
    home.bulla("backup src").ok();
    home.write("src/new", &noise(1, 600_000));
    disk.remount(&format!("size={}k", disk.used() + 200));
    for _ in 0..3 {
        let ran = home.bulla("backup src").ends(13).says("no space left in disk/repo").says("make room");
        assert!(!ran.out.contains("snapshot "), "{}", ran.out);
        first_is_intact(&home, 1);
    }
    disk.remount(&format!("size={}k", disk.used()));
    home.bulla("backup src").ends(13);
    home.bulla("key add --key-file-out other").ends(13);
    assert!(!home.path("other").exists(), "a key file that opens nothing");
    first_is_intact(&home, 1);
    disk.remount("size=8m");
    home.bulla("backup src").ok();
    first_is_intact(&home, 2);
    home.bulla(&format!("restore latest:{} -t second", home.shown("src"))).ok();
    assert_eq!(home.read("second/new"), home.read("src/new"));
}

/// Wherever in a backup the last free page goes.
#[test]
fn a_disk_of_any_size_gives_a_snapshot_or_no_space() {
    let mut home = Home::with_repository();
    home.forgets();
    home.bulla("backup src").ok();
    let Some(disk) = Mount::new("-t tmpfs -o size=8m none", home.path("disk")) else { return };
    copy(&home.path("repo"), &home.path("disk/repo"));
    let used = disk.used();
    drop(disk);
    home.set("BULLA_REPOSITORY", "disk/repo");
    home.write("src/new", &noise(2, 30_000));
    let mut ended = [0; 2];
    for pages in 0..56 {
        let size = used + pages * 4;
        let disk = Mount::new(&format!("-t tmpfs -o size={size}k none"), home.path("disk")).unwrap();
        copy(&home.path("repo"), &home.path("disk/repo"));
        let ran = home.bulla("backup src").sound();
        assert!(matches!(ran.code, 0 | 13), "{size} KiB: {} {}", ran.code, ran.err);
        first_is_intact(&home, if ran.code == 0 { 2 } else { 1 });
        ended[usize::from(ran.code == 13)] += 1;
        drop(disk);
    }
    println!("{} sizes had room, {} had not", ended[0], ended[1]);
    assert!(ended[0] > 0 && ended[1] >= 40, "{ended:?}: the range must span the need");
}

#[test]
fn a_full_target_is_named_and_what_fits_is_right() {
    let home = Home::with_repository();
    (0..8).for_each(|i| home.write(&format!("src/part{i}"), &noise(i, 90_000)));
    home.write("src/zlarge", &noise(99, 900_000));
    home.bulla("backup src").ok();
    let Some(disk) = Mount::new("-t tmpfs -o size=600k none", home.path("disk")) else { return };
    let part = format!("restore latest:{} -t disk/out", home.shown("src"));
    let full = || {
        let ran = home.bulla(&part).sound().ends(13).says("disk/out/").says("No space left on device");
        ran.says("make room in the target");
        let mut right = 0;
        for entry in fs::read_dir(home.path("disk/out")).unwrap().map(Result::unwrap) {
            let name = entry.file_name().into_string().unwrap();
            if entry.file_type().unwrap().is_file() {
                assert_eq!(fs::read(entry.path()).unwrap(), home.read(&format!("src/{name}")), "{name}");
                right += 1;
            }
        }
        right
    };
    let right = full();
    assert!(right >= 4, "{right} files fitted");
    assert!(full() >= right, "a second try undid the first");
    disk.remount("size=8m");
    home.bulla(&part).ends(0).prints("had the right content already");
    assert_eq!(home.read("disk/out/zlarge"), home.read("src/zlarge"));
}

#[test]
fn a_cache_and_an_output_without_room() {
    let mut home = Home::with_repository();
    home.bulla("backup src").ok();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let ended = home.command(&["snapshots"]).stdout(full).output().unwrap();
    let err = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{err}");
    assert!(err.contains("cannot write results: No space left on device"), "{err}");
    let Some(disk) = Mount::new("-t tmpfs -o size=4k none", home.path("disk")) else { return };
    home.set("BULLA_CACHE_DIR", "disk");
    home.write("src/new", &noise(3, 50_000));
    home.bulla("backup src").ok();
    first_is_intact(&home, 2);
    disk.remount("ro");
    home.bulla("backup src").ok();
    first_is_intact(&home, 3);
}

#[test]
fn a_read_only_repository_reads() {
    let mut home = Home::with_repository();
    home.bulla("backup src").ok();
    let Some(disk) = Mount::new(&format!("--bind {}", home.shown("repo")), home.path("disk")) else { return };
    disk.remount("bind,ro");
    home.set("BULLA_REPOSITORY", "disk");
    first_is_intact(&home, 1);
    home.bulla("ls latest").ends(0).prints("/hello\n");
    let hello = home.shown("src/hello");
    home.bulla(&format!("cat latest:{hello}")).ends(0).prints("hello\n");
    home.bulla("key list").ok();
    home.bulla("backup -n src").ends(0).prints("nothing was stored");
    for line in ["backup src", "key add --key-file-out other"] {
        home.bulla(line).ends(1).says("in disk: Read-only file system").says("mounted read-only");
    }
    assert!(!home.path("other").exists());
    home.bulla("init -r disk/new --key-file-out other").ends(1).says("Read-only file system");
    first_is_intact(&home, 1);
}

/// As root the binary runs as nobody; anyone else just runs it.
fn unprivileged(home: &Home, args: &[&str]) -> Option<Ran> {
    const NOBODY: u32 = 65534;
    let mut command = home.command(args);
    if rustix::process::geteuid().is_root() {
        let program = home.path("bulla-copy");
        fs::copy(env!("CARGO_BIN_EXE_bulla"), &program).unwrap();
        fs::set_permissions(home.path(""), Permissions::from_mode(0o755)).unwrap();
        let mine = Command::new("chown").args(["-R", "65534:65534"]).arg(home.path("")).status().unwrap();
        assert!(mine.success());
        chown(&program, Some(NOBODY), Some(NOBODY)).unwrap();
        let id = NOBODY.to_string();
        let mut with = Command::new("setpriv");
        with.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(program).args(args);
        with.env_clear().envs(command.get_envs().filter_map(|(n, v)| Some((n, v?))));
        with.current_dir(home.path("")).stdout(Stdio::piped()).stderr(Stdio::piped());
        if Command::new("setpriv").arg("--version").output().is_err() {
            skipped("there is no setpriv to become nobody with");
            return None;
        }
        command = with;
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = |b| String::from_utf8(b).unwrap();
    Some(Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) })
}

#[test]
fn what_may_not_be_read_is_named_and_its_siblings_are_kept() {
    let home = Home::with_repository();
    home.write("src/secret", b"s");
    home.write("src/closed/inside", b"i");
    home.write("src/open/sibling", b"sibling");
    for shut in ["src/secret", "src/closed"] {
        fs::set_permissions(home.path(shut), Permissions::from_mode(0o000)).unwrap();
    }
    let Some(ran) = unprivileged(&home, &["backup", "src"]) else { return };
    let open = || fs::set_permissions(home.path("src/closed"), Permissions::from_mode(0o700)).unwrap();
    let ran = ran.sound().ends(3).prints("2 items could not be read whole").prints("snapshot ");
    for shut in ["src/secret", "src/closed"] {
        let line = ran.err.lines().find(|l| l.contains(&home.shown(shut))).unwrap_or_default();
        assert!(line.starts_with("error: cannot") && line.contains("Permission denied"), "{}", ran.err);
    }
    let sibling = home.shown("src/open/sibling");
    assert_eq!(home.bulla(&format!("cat latest:{sibling}")).ok(), "sibling");
    let list = home.bulla("ls -l latest").ok();
    for (name, there) in [("src/secret", true), ("src/closed", true), ("src/closed/inside", false)] {
        let shown = home.shown(name);
        let line =
            list.lines().find(|l| l.contains(&format!(" {shown}")) && !l.contains(&format!("{shown}/")));
        assert_eq!(line.is_some(), there, "{name} in {list}");
        assert!(!there || line.unwrap().ends_with("(could not be read)"), "{line:?}");
    }
    home.bulla(&format!("restore latest:{} -t out", home.shown("src")))
        .ends(3)
        .prints("unreadable at backup")
        .says("could not be listed when it was backed up");
    assert_eq!(home.read("out/open/sibling"), b"sibling");
    // Nobody knows what was in a directory that could not be listed: nothing in it is extra.
    home.write("out/closed/of-later", b"kept");
    home.write("out/open/extra", b"extra");
    home.bulla(&format!("restore latest:{} -t out --delete", home.shown("src"))).ends(3);
    assert_eq!(home.read("out/closed/of-later"), b"kept");
    assert!(!home.path("out/open/extra").exists());
    open();
}

/// What the key file of `home` holds.
fn secret(home: &Home) -> SlotSecret {
    let text = String::from_utf8(home.read("key")).unwrap();
    let key = text.lines().find(|l| !l.starts_with('#')).unwrap();
    SlotSecret::Key(parse_key(key).unwrap())
}

/// Rewrites the config as a version of this program that does not exist yet would have made it.
fn from_the_future(home: &Home, change: impl FnOnce(&mut Config)) {
    let path = home.path("repo/config/00000000");
    let bytes = fs::read(&path).unwrap();
    let (repo, _) = config::identify(&bytes).unwrap();
    let secret = secret(home);
    let slots =
        home.objects("keys").into_iter().map(|p| Slot::decode(&fs::read(p).unwrap(), u32::MAX).unwrap());
    let opened = slots.filter_map(|s| s.open(&repo, &secret).unwrap()).next().unwrap();
    let mut config = Config::open(&bytes, 0, &opened.key).unwrap();
    change(&mut config);
    overwrite(&path, &config.seal(&opened.key, &[9; 32]));
}

fn overwrite(path: &Path, bytes: &[u8]) {
    let _ = fs::remove_file(path);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_repository_of_a_newer_version_is_refused_or_only_read() {
    let home = Home::with_repository();
    home.bulla("backup src").ok();
    copy(&home.path("repo"), &home.path("kept"));
    from_the_future(&home, |c| c.incompat |= 1 << 9);
    for line in ["snapshots", "backup src", "check", "key list"] {
        home.bulla(line).ends(1).says("0x200").says("newer bulla");
    }
    fs::remove_dir_all(home.path("repo")).unwrap();
    copy(&home.path("kept"), &home.path("repo"));
    from_the_future(&home, |c| c.ro_compat |= 2);
    home.bulla("backup src").ends(1).says("may only be read").says("newer bulla");
    home.bulla("key add --recovery").ends(1).says("may only be read");
    first_is_intact(&home, 1);
}

/// What a bad disk makes of an object.
type Damage = fn(&[u8]) -> Option<Vec<u8>>;

const DAMAGE: [(&str, Damage); 4] = [
    ("missing", |_| None),
    ("empty", |_| Some(Vec::new())),
    ("cut", |b| Some(b[..b.len() / 2].to_vec())),
    ("flipped", |b| {
        let mut bytes = b.to_vec();
        bytes[b.len() / 2] ^= 0x10;
        Some(bytes)
    }),
];

/// Whatever is wrong with whichever object: `check` names it, restores are right or say what is not, nothing panics.
#[test]
fn every_object_missing_or_altered_is_met_with_words() {
    let home = Home::with_repository();
    home.forgets();
    home.bulla("backup src").ok();
    home.write("src/new", &noise(4, 40_000));
    home.bulla("backup src").ok();
    let areas = ["config", "keys", "clients", "index", "meta", "packs", "snap"];
    let all: Vec<PathBuf> = areas.iter().flat_map(|a| home.objects(a)).collect();
    assert!(all.len() >= 12, "{all:?}");
    for (path, (how, damage)) in all.iter().flat_map(|p| DAMAGE.iter().map(move |d| (p, d))) {
        let name = path.strip_prefix(home.path("repo")).unwrap().display().to_string();
        let area = name.split('/').next().unwrap();
        let good = fs::read(path).unwrap();
        let _ = fs::remove_file(path);
        damage(&good).into_iter().for_each(|bad| overwrite(path, &bad));
        let ran = home.bulla("check --read-data").sound();
        let told = format!("{how} {name}: {}\n{}{}", ran.code, ran.out, ran.err);
        match (area, *how) {
            // The other slot and a certificate leave no gap when they are gone.
            ("keys" | "clients", "missing") => assert!(matches!(ran.code, 0 | 4 | 12), "{told}"),
            // A snapshot that another one saw does, on any machine; the last one only where it was seen.
            ("snap", "missing") => assert!(matches!(ran.code, 0 | 9), "{told}"),
            ("config", "missing") => assert_eq!(ran.code, 10, "{told}"),
            ("config", _) => assert!(matches!(ran.code, 1 | 4), "{told}"),
            ("keys", _) => assert!(matches!(ran.code, 4 | 12), "{told}"),
            // It stands under names of its own content alone: what it listed is what is missed.
            ("index", "missing") => {
                assert!(ran.code == 4 && told.contains("no index run lists it"), "{told}")
            }
            _ => {
                assert!(ran.code == 4 && told.matches(name.rsplit('/').next().unwrap()).count() > 1, "{told}")
            }
        }
        let _ = fs::remove_dir_all(home.path("out"));
        home.bulla("snapshots").sound();
        let restored = home.bulla(&format!("restore latest:{} -t out", home.shown("src"))).sound();
        for file in ["hello", "sub/more.log", "new"] {
            let there = fs::read(home.path(&format!("out/{file}"))).ok();
            assert!(
                there.is_some() || restored.code != 0 || file == "new",
                "{how} {name}: {file} is not there"
            );
            assert!(
                there.is_none_or(|b| b == home.read(&format!("src/{file}"))),
                "{how} {name}: {file} is wrong"
            );
        }
        overwrite(path, &good);
    }
    first_is_intact(&home, 2);
}

/// A generator whose ids all begin with `abcd`.
struct Alike(AtomicU64);

impl Entropy for Alike {
    fn fill(&self, out: &mut [u8]) {
        let n = self.0.fetch_add(1, Ordering::Relaxed) + 1;
        out.iter_mut().zip(noise(n, 64)).for_each(|(o, b)| *o = b);
        out.iter_mut().zip([0xab, 0xcd]).for_each(|(o, b)| *o = b);
    }
}

#[test]
fn a_prefix_of_several_snapshots_names_none_of_them() {
    let home = Home::with_repository();
    let store = Arc::new(Local::new(home.path("repo")));
    let mut env = Env::system("machine", "user");
    env.entropy = Arc::new(Alike(AtomicU64::default()));
    let repository = Repository::open(store, &secret(&home), env).unwrap();
    let ids = [(); 2].map(|()| {
        let stream = StreamSource::new(*b"f", &b"text"[..]);
        let report = backup::run(&repository, Sources::Stream(stream), &BackupOptions::default(), &Silent);
        report.unwrap().snapshot.unwrap().id
    });
    for line in ["ls abcd", "restore abcd -t out", "cat abcd:f", "backup src --parent abcd", "snapshots abcd"]
    {
        let ran = home.bulla(line).ends(1).says("\"abcd\" is ambiguous: it matches ").says("more digits");
        assert!(ids.iter().all(|id| ran.err.contains(&id.short())), "{}", ran.err);
    }
    assert!(!home.path("out").exists());
    home.bulla("ls abc").ends(1).says("no snapshot matches");
    home.bulla(&format!("cat {}:f", ids[0])).ends(0).prints("text");
}
