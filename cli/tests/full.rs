//! Full disks, real ones (tmpfs): every verb with a little more room each time, 4 KiB at a time. Nothing is lost, it
//! is said (exit 13), and a prune frees space at zero bytes free.

use crate::content::{Tree, noise, tree};
use crate::home::Home;
use crate::repair::flip;
use crate::upkeep::{backup, cleaned, identical, listed, sound};
use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

const PAGE: u64 = 4096;

/// A small file system at `disk`, with room for a repository.
struct Disk {
    home: Home,
    at: PathBuf,
    alive: Vec<(String, Tree)>,
    forgotten: String,
    /// The largest data pack of the last backup, whose content is in the source still; below the repository.
    newest: PathBuf,
    /// What puts right, with room, what a test has damaged.
    mend: Vec<&'static str>,
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

impl Disk {
    /// `None` where nothing may be mounted, which in CI is a failure.
    fn new() -> Option<Self> {
        let home = Home::fast();
        home.forgets();
        let at = home.path("disk");
        std::fs::create_dir(&at).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&at).output();
        if !mount.as_ref().is_ok_and(|o| o.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "no tmpfs: {mount:?}");
            println!("skipped: mounting a tmpfs takes root");
            return None;
        }
        let (mut taken, mut packs) = (Vec::new(), Vec::new());
        for round in 0..3u64 {
            packs = home.objects("packs");
            home.write("src/changes", &noise(round, 200_000));
            home.write(&format!("src/stays-{round}"), &noise(10 + round, 40_000));
            taken.push((backup(&home, "src"), tree(&home.path("src"))));
        }
        let new = home.objects("packs").into_iter().filter(|p| !packs.contains(p));
        let newest = new.max_by_key(|p| std::fs::metadata(p).unwrap().len()).unwrap();
        let newest = newest.strip_prefix(home.path("repo")).unwrap().to_path_buf();
        let forgotten = taken.remove(1).0;
        home.bulla(&format!("-q forget --now --yes {forgotten}")).ok();
        home.write("src/new", &noise(20, 60_000));
        // A pack that nobody needs, for which no copy is needed.
        home.write("other/alone", &noise(30, 300_000));
        let lonely = backup(&home, "other");
        home.bulla(&format!("-q forget --now --yes {lonely}")).ok();
        std::fs::rename(home.path("repo"), home.path("base")).unwrap();
        std::os::unix::fs::symlink("disk/repo", home.path("repo")).unwrap();
        Some(Self { home, at, alive: taken, forgotten, newest, mend: Vec::new() })
    }

    /// The repository as it was, and nothing else but `free` bytes.
    fn reset(&self, free: u64) {
        for name in ["repo", "filler"] {
            let path = self.at.join(name);
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        let copied =
            Command::new("cp").arg("-a").arg(self.home.path("base")).arg(self.at.join("repo")).status();
        assert!(copied.unwrap().success());
        self.fill(free);
    }

    /// Fills the rest with bytes nothing compresses, but for `free`.
    fn fill(&self, free: u64) {
        let block = noise(99, 1 << 20);
        let mut file =
            std::fs::OpenOptions::new().append(true).create(true).open(self.at.join("filler")).unwrap();
        for len in [1 << 20, 4096] {
            while file.write_all(&block[..len]).is_ok() {}
        }
        let len = file.metadata().unwrap().len();
        file.set_len(len.saturating_sub(free)).unwrap();
        assert_eq!(self.free(), free, "of the disk");
    }

    fn free(&self) -> u64 {
        let fs = rustix::fs::statvfs(&self.at).unwrap();
        fs.f_bavail * fs.f_frsize
    }

    fn packs(&self) -> usize {
        self.home.objects("packs").len() + self.home.objects("meta").len()
    }

    fn whole(&self, context: &str) {
        for (id, expected) in &self.alive {
            identical(&self.home, id, "src", expected, context);
        }
    }

    /// After the administrator made room.
    fn recovers(&self, context: &str) {
        if self.mend.is_empty() {
            self.whole(context);
        }
        std::fs::remove_file(self.at.join("filler")).unwrap();
        for line in &self.mend {
            let ran = self.home.bulla(line);
            assert!(matches!(ran.code, 0 | 4), "{context}, then {line}: {}", ran.err);
        }
        self.whole(context);
        sound(&self.home, context);
        let id = backup(&self.home, "src");
        identical(&self.home, &id, "src", &tree(&self.home.path("src")), context);
        cleaned(&self.home, context);
        self.whole(context);
        assert!(self.at.join("repo/reserve").exists(), "{context}: no reserve");
    }

    /// `line` with 0, 4, 8, … KiB free, until it has succeeded a few times in a row: how many were refused. Only a
    /// prune, whose copies wait for room, succeeds without doing all it could.
    fn sweep(&self, line: &str) -> u64 {
        self.sweep_and(line, |_, _| {})
    }

    /// As [`Disk::sweep`]; `after` looks at what each ended with.
    fn sweep_and(&self, line: &str, after: impl Fn(i32, &str)) -> u64 {
        let (mut refused, mut done, mut free) = (0, 0, 0);
        while done < 3 {
            self.reset(free);
            let ran = self.home.bulla(line);
            let context = format!("{line} with {free} bytes free: exit {}: {}", ran.code, ran.err);
            match ran.code {
                0 => done += 1,
                13 => (refused, done) = (refused + 1, 0),
                _ => panic!("{context}"),
            }
            after(ran.code, &context);
            self.recovers(&context);
            free += PAGE;
            assert!(free < 4 << 20, "{context}");
        }
        println!("{line}: refused {refused} times, done from {} bytes free on", free - 3 * PAGE);
        refused
    }
}

const AT_ONCE: &str = "prune --grace 0 --run-expiry 0 --max-unused 0";

#[test]
fn a_backup_on_an_ever_less_full_disk() {
    let Some(disk) = Disk::new() else { return };
    assert!(disk.sweep("-q backup src") > 30);
}

#[test]
fn a_backup_with_its_cache_on_the_same_disk() {
    let Some(disk) = Disk::new() else { return };
    assert!(disk.sweep("-q --cache-dir disk/cache backup src") > 30);
}

#[test]
fn verbs_that_put_one_object_on_an_ever_less_full_disk() {
    let Some(disk) = Disk::new() else { return };
    let (forgotten, held) = (disk.forgotten.clone(), disk.alive[0].0.clone());
    assert!(disk.sweep(&format!("-q undelete {forgotten}")) > 0);
    assert!(disk.sweep(&format!("-q protect {held}")) > 0);
    let added = disk.sweep_and("-q key add --key-file-out added", |code, context| {
        if code == 0 {
            assert_eq!(disk.home.bulla("-q --key-file added snapshots").code, 0, "{context}");
        }
        assert_eq!(disk.home.path("added").exists(), code == 0, "{context}: a key to nothing");
        let _ = std::fs::remove_file(disk.home.path("added"));
    });
    assert!(added > 0);
}

#[test]
fn parity_added_on_an_ever_less_full_disk() {
    let Some(disk) = Disk::new() else { return };
    assert!(disk.sweep("-q repair parity --add 10") > 30);
}

/// All files below `dir`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let below = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path) } else { vec![path] }
    };
    std::fs::read_dir(dir).unwrap().flat_map(below).collect()
}

#[test]
fn repairs_on_an_ever_less_full_disk() {
    let Some(mut disk) = Disk::new() else { return };
    let base = disk.home.path("base");
    let copy = disk.home.path("copy");
    assert!(Command::new("cp").arg("-a").arg(&base).arg(&copy).status().unwrap().success());
    let restore = || {
        std::fs::remove_dir_all(&base).unwrap();
        assert!(Command::new("cp").arg("-a").arg(&copy).arg(&base).status().unwrap().success());
    };
    let pack = base.join(&disk.newest);
    let len = std::fs::metadata(&pack).unwrap().len() as usize;

    files(&base.join("index")).iter().for_each(|run| std::fs::remove_file(run).unwrap());
    disk.mend = vec!["-q repair index"];
    assert!(disk.sweep("-q repair index") > 0);

    restore();
    flip(&pack, len - 10);
    disk.mend = vec!["-q repair packs --read-data"];
    assert!(disk.sweep("-q repair packs --read-data") > 30);

    restore();
    std::fs::remove_file(&pack).unwrap();
    disk.mend = vec!["-q repair packs --from copy --read-data"];
    assert!(disk.sweep("-q repair packs --from copy --read-data") > 30);

    restore();
    flip(&pack, len / 2);
    disk.mend = vec!["-q repair packs --read-data", "-q backup src"];
    assert!(disk.sweep("-q repair snapshots --read-data") > 0);
}

#[test]
fn verbs_that_need_no_room() {
    let Some(mut disk) = Disk::new() else { return };
    for line in [AT_ONCE, "--cache-dir disk/cache prune --max-unused 0", "check --read-data"] {
        assert_eq!(disk.sweep(&format!("-q {line}")), 0);
    }
    assert_eq!(disk.sweep("-q --cache-dir disk/cache check --read-data"), 0);
    let (held, expected) = disk.alive[0].clone();
    assert_eq!(disk.sweep(&format!("-q unprotect {held}")), 0);
    let restored = disk.sweep_and(&format!("-q restore {held} --target out"), |_, context| {
        assert!(tree(&disk.home.path(&format!("out{}", disk.home.shown("src")))) == expected, "{context}");
        std::fs::remove_dir_all(disk.home.path("out")).unwrap();
    });
    assert_eq!(restored, 0);
    disk.alive.remove(0);
    assert_eq!(disk.sweep(&format!("-q forget --now --yes {held}")), 0);
}

#[test]
fn a_restore_to_an_ever_less_full_disk() {
    let Some(disk) = Disk::new() else { return };
    let (id, expected) = disk.alive[1].clone();
    let line = format!("-q restore {id} --target disk/out");
    let refused = disk.sweep_and(&line, |_, context| {
        let filler = disk.at.join("filler");
        let len = std::fs::metadata(&filler).unwrap().len();
        std::fs::File::options().write(true).open(&filler).unwrap().set_len(len - (1 << 20)).unwrap();
        assert_eq!(disk.home.bulla(&line).code, 0, "{context}: again, with room");
        assert!(
            tree(&disk.home.path(&format!("disk/out{}", disk.home.shown("src")))) == expected,
            "{context}"
        );
        std::fs::remove_dir_all(disk.at.join("out")).unwrap();
    });
    assert!(refused > 30);
}

/// The reserve is one write: in its middle one step in so many is enough.
const COARSE: u64 = 64 * PAGE;

#[test]
fn an_init_on_an_ever_less_full_disk() {
    let Some(disk) = Disk::new() else { return };
    let line = "-q init -r disk/new --key-file-out new-key";
    let (mut refused, mut done, mut free) = (0, 0, 0);
    while done < 3 {
        std::fs::remove_dir_all(disk.at.join("repo")).unwrap_or_default();
        std::fs::remove_file(disk.at.join("filler")).unwrap_or_default();
        disk.fill(free);
        let ran = disk.home.bulla(line);
        let context = format!("{line} with {free} bytes free: exit {}: {}", ran.code, ran.err);
        std::fs::remove_file(disk.at.join("filler")).unwrap();
        match ran.code {
            0 => done += 1,
            13 => {
                (refused, done) = (refused + 1, 0);
                assert!(!disk.home.path("new-key").exists(), "{context}: a key to nothing");
                let again = disk.home.bulla(line);
                assert_eq!(again.code, 0, "{context}: again, with room: {}", again.err);
            }
            _ => panic!("{context}"),
        }
        let new = "-q -r disk/new --key-file new-key";
        disk.home.bulla(&format!("{new} backup src")).ok();
        disk.home.bulla(&format!("{new} check --read-data")).ok();
        std::fs::remove_dir_all(disk.at.join("new")).unwrap();
        std::fs::remove_file(disk.home.path("new-key")).unwrap();
        let middle = 16 * PAGE < free && free + COARSE + 16 * PAGE < 1 << 20;
        free += if middle && !full() { COARSE } else { PAGE };
        assert!(free < 2 << 20, "{context}");
    }
    println!("{line}: refused {refused} times, done from {} bytes free on", free - 3 * PAGE);
    assert!(refused > 30);
}

fn full() -> bool {
    std::env::var("BULLA_INJECT").is_ok_and(|v| v == "full")
}

#[test]
fn a_forget_at_zero_bytes_free_and_the_prune_after_it() {
    let Some(mut disk) = Disk::new() else { return };
    disk.reset(0);
    let (gone, _) = disk.alive.remove(0);
    disk.home.bulla(&format!("-q forget --now --yes {gone}")).ok();
    assert!(!listed(&disk.home).contains(&gone));
    // The reserve was given for that: no backup may eat it, however much it would have left.
    disk.home.bulla("-q backup src").ends(13);
    let before = disk.free();
    disk.home.bulla("-q prune --max-unused unlimited").ok();
    assert!(disk.at.join("repo/reserve").exists(), "{before} free before, {} after", disk.free());
    disk.recovers("forget at zero");
}

#[test]
fn a_prune_at_zero_bytes_free_frees_space_and_no_backup_eats_the_reserve() {
    let Some(disk) = Disk::new() else { return };
    disk.reset(0);
    disk.home.bulla("-q backup src").ends(13);
    assert_eq!(disk.free(), 0, "a refused backup leaves nothing");
    let packs = disk.packs();
    disk.home.bulla("-q prune").ok();
    println!("freed {} bytes of {} packs at zero bytes free", disk.free(), packs - disk.packs());
    assert!(disk.free() > 200_000 && disk.packs() < packs);
    disk.whole("pruned at zero");
    // What was freed is enough for a backup; then the disk fills again, and the reserve stays.
    disk.home.bulla("-q backup src").ok();
    disk.fill(0);
    disk.home.bulla("-q backup src").ends(13);
    std::fs::remove_file(disk.at.join("repo/reserve")).unwrap();
    disk.fill(0);
    // Somebody took the reserve: a backup says so, and a prune says so too rather than harm anything.
    disk.home.bulla("-q backup src").ends(13);
    disk.home.bulla("-q prune --grace 0").ends(13);
    disk.recovers("no reserve");
}

/// Hundreds of snapshots are let go of at zero bytes free: as many as there is room for beside what a prune needs, so that one is
/// possible, and gives room for more.
#[test]
fn hundreds_of_forgets_at_zero_bytes_free_leave_room_for_the_prune() {
    let Some(disk) = Disk::new() else { return };
    let (home, base) = (&disk.home, disk.home.path("base"));
    disk.reset(0);
    std::fs::remove_file(disk.at.join("filler")).unwrap();
    let larger = Command::new("mount").args(["-o", "remount,size=96m"]).arg(&disk.at).status();
    assert!(larger.unwrap().success());
    // So many that a death, which names all that were alive, takes more than a block.
    for round in 0..300 {
        home.write("other/alone", &noise(100 + round, 10_000));
        home.bulla("-q backup other").ok();
    }
    std::fs::remove_dir_all(&base).unwrap();
    assert!(Command::new("cp").arg("-a").arg(disk.at.join("repo")).arg(&base).status().unwrap().success());
    disk.reset(0);
    let forget = format!("-q forget --now --yes --path {} --keep-last 1", home.shown("other"));
    let mut rounds = 0;
    loop {
        let ran = home.bulla(&forget);
        let reserve = std::fs::metadata(disk.at.join("repo/reserve")).map_or(0, |m| m.len());
        println!(
            "round {rounds}: exit {}, {} left, {reserve} bytes in reserve, {} free",
            ran.code,
            listed(home).len(),
            disk.free()
        );
        assert!(matches!(ran.code, 0 | 13) && reserve >= 1 << 17, "{}", ran.err);
        home.bulla("-q prune").ok();
        rounds += 1;
        if ran.code == 0 {
            break;
        }
        assert!(rounds < 5);
    }
    assert!(rounds > 1, "there was room for all");
    let left = listed(home);
    disk.recovers("hundreds of forgets");
    disk.reset(0);
    let before = listed(home).len();
    let told = home.bulla(&format!("--json {forget} --prune")).ok();
    assert_eq!(listed(home), left, "in one go");
    let documents = told.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let summaries: Vec<_> = documents.filter(|d| d["message_type"] == "summary").collect();
    let [summary] = &summaries[..] else { panic!("{} summaries", summaries.len()) };
    // And the two that were let go of before.
    let ended: HashSet<_> =
        summary["snapshots_ended"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    assert_eq!(ended.len(), before - left.len() + 2);
    assert_eq!(summary["snapshots_ended"].as_array().unwrap().len(), ended.len(), "each once");
    assert!(summary["packs_deleted"].as_u64().unwrap() > 500);
    assert!(disk.free() > 4 << 20, "{}", disk.free());
    disk.recovers("hundreds of forgets and a prune");
}
