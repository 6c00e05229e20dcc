//! A whole repository against a naive copy: the input is a list of changes to files and of commands; what the repository
//! must hold is kept beside it as plain maps, and looked at after every check and at the end.

use bulla_engine::backend::Memory;
use bulla_engine::backup::{self, BackupOptions};
use bulla_engine::browse;
use bulla_engine::check::{self, CheckOptions, ReadData};
use bulla_engine::env::Env;
use bulla_engine::forget::{Permit, forget, undelete};
use bulla_engine::format::chunker::ChunkerParams;
use bulla_engine::format::keys::Secret;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::{InitOptions, Repository, SlotSecret};
use bulla_engine::source::{Filter, PathSources, Sources};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

type Files = BTreeMap<String, Vec<u8>>;

struct Model {
    dir: tempfile::TempDir,
    memory: Arc<Memory>,
    /// What the source holds.
    files: Files,
    alive: Vec<(Snapshot, Files)>,
    /// Forgotten, and not pruned since.
    forgotten: Vec<(Snapshot, Files)>,
}

fn secret() -> SlotSecret {
    SlotSecret::Key(Secret::new([7; 32]))
}

/// Two bytes a step: what, and with what. True if a backup was made.
pub fn repository(b: &[u8]) -> bool {
    let base = std::path::Path::new("/dev/shm");
    let dir = if base.is_dir() { tempfile::tempdir_in(base) } else { tempfile::tempdir() };
    let memory = Arc::new(Memory::new());
    let options = InitOptions {
        chunker: ChunkerParams { min: 256, avg: 1024, max: 4096 },
        data_frame: 16 << 10,
        meta_frame: 4 << 10,
        data_pack: 64 << 10,
        meta_pack: 64 << 10,
        ..InitOptions::default()
    };
    Repository::init(memory.clone(), &options, &secret(), env()).expect("an empty memory takes a repository");
    let dir = dir.expect("a directory");
    let mut model = Model { dir, memory, files: Files::new(), alive: Vec::new(), forgotten: Vec::new() };
    for step in b.chunks_exact(2).take(40) {
        model.step(step[0], step[1]);
    }
    let made = !model.alive.is_empty();
    model.backup();
    model.look();
    made
}

fn env() -> Env {
    let mut env = Env::system("fuzz", "fuzz");
    env.width = 2;
    env
}

/// Bytes of many kinds: none, one chunk, many; that compress and that do not; parts of which occur elsewhere.
fn content(n: u8) -> Vec<u8> {
    let len = [0, 1, 300, 5_000, 20_000][usize::from(n) % 5];
    let mut out = vec![0; len];
    match n / 5 % 4 {
        0 => {}
        1 => out.iter_mut().enumerate().for_each(|(i, b)| *b = (i / 7) as u8),
        _ => blake3::Hasher::new().update(&[n % 3]).finalize_xof().fill(&mut out),
    }
    out
}

impl Model {
    fn path(&self, n: u8) -> (String, PathBuf) {
        let name = ["a", "b", "d/a", "d/b", "d/e/a", "z"][usize::from(n) % 6].to_owned();
        let path = self.dir.path().join(&name);
        (name, path)
    }

    fn step(&mut self, what: u8, with: u8) {
        let (name, path) = self.path(what / 16);
        match what % 12 {
            0 | 1 => {
                std::fs::create_dir_all(path.parent().expect("below the directory")).expect("made");
                std::fs::write(&path, content(with)).expect("written");
                self.files.insert(name, content(with));
            }
            2 => {
                if let Some(bytes) = self.files.get_mut(&name).filter(|b| !b.is_empty()) {
                    // In place, of the same length.
                    let at = usize::from(with) * 79 % bytes.len();
                    bytes[at] ^= 1;
                    std::fs::write(&path, bytes).expect("written");
                }
            }
            3 => {
                if self.files.remove(&name).is_some() {
                    std::fs::remove_file(&path).expect("removed");
                }
            }
            4 => {
                let (other, to) = self.path(with);
                if other != name && self.files.contains_key(&name) {
                    std::fs::create_dir_all(to.parent().expect("below the directory")).expect("made");
                    std::fs::rename(&path, to).expect("renamed");
                    let bytes = self.files.remove(&name).expect("it is there");
                    self.files.insert(other, bytes);
                }
            }
            5 | 6 => self.backup(),
            7 if !self.alive.is_empty() => {
                let (snapshot, files) = self.alive.remove(usize::from(with) % self.alive.len());
                let permit = Permit::ask(&self.open(), &[snapshot.id], "fuzz").expect("nothing is of a job");
                assert_eq!(forget(&self.open(), &permit, with % 2 == 0).expect("forgotten"), 1);
                self.forgotten.push((snapshot, files));
            }
            8 if !self.forgotten.is_empty() => {
                let (snapshot, files) = self.forgotten.remove(usize::from(with) % self.forgotten.len());
                let back = undelete(&self.open(), &snapshot.id).expect("nothing was pruned since");
                self.alive.push((back, files));
            }
            9 => {
                let max_unused = if with % 2 == 0 { MaxUnused::Bytes(0) } else { MaxUnused::Unlimited };
                let options = PruneOptions { grace: 0, run_expiry: 0, max_unused, ..PruneOptions::default() };
                prune::run(&self.open(), &options, &Silent).expect("pruned");
                self.forgotten.clear();
            }
            10 => self.look(),
            _ => {}
        }
    }

    fn open(&self) -> Repository {
        Repository::open(self.memory.clone(), &secret(), env()).expect("it opens")
    }

    fn backup(&mut self) {
        let sources = Sources::Paths(PathSources {
            paths: vec![self.dir.path().to_str().expect("a plain name").as_bytes().to_vec()],
            base: b"/".to_vec(),
            filter: Filter::default(),
            one_file_system: false,
            with_atime: false,
            skip: Vec::new(),
        });
        let options = BackupOptions { host: "fuzz".into(), ..BackupOptions::default() };
        let report = backup::run(&self.open(), sources, &options, &Silent).expect("backed up");
        self.alive.push((report.snapshot.expect("a snapshot"), self.files.clone()));
    }

    /// The repository is sound, and holds what it must.
    fn look(&self) {
        let repository = self.open();
        let options = CheckOptions { read_data: ReadData::All, ..CheckOptions::default() };
        assert_eq!(check::run(&repository, &options, &Silent).expect("checked").findings, []);
        let prefix = self.dir.path().to_str().expect("a plain name").trim_start_matches('/');
        for (snapshot, files) in &self.alive {
            let mut paths = Vec::new();
            let list = browse::list(&repository, snapshot, prefix.as_bytes(), true, &mut |e| {
                let file = matches!(e.kind, bulla_engine::format::tree::EntryKind::File { .. });
                paths.extend(file.then(|| e.path()));
                Ok(())
            });
            list.unwrap_or_else(|e| panic!("{e}, which held {:?}", files.keys()));
            let mut held = Files::new();
            for path in paths {
                let mut bytes = Vec::new();
                browse::write_file(&repository, snapshot, &path, &mut bytes).expect("read");
                let name = String::from_utf8(path).expect("a plain name");
                let name = name.strip_prefix(prefix).unwrap_or(&name).trim_start_matches('/').to_owned();
                held.insert(name, bytes);
            }
            assert!(held == *files, "{}: {:?} for {:?}", snapshot.id, held.keys(), files.keys());
        }
    }
}
