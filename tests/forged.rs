//! Trees that somebody with a key made to mislead those who clean up: what they say of honest chunks harms no honest
//! snapshot.

use crate::repair::commit_pack;
use crate::support::{Histories, in_memory, open};
use bulla_engine::format::ChunkId;
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::record::RunKind;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{
    Block, ChunkRef, Content, Entry, EntryFlags, EntryKind, Timestamp, TreeBuilder,
};
use bulla_engine::observer::Silent;
use bulla_engine::prune::{self, MaxUnused, PruneOptions};
use bulla_engine::repository::Repository;
use bulla_engine::repository::run::Run;
use bulla_engine::restore::{self, Patterns, RestoreOptions};
use bulla_engine::source::PatternSet;
use std::sync::Arc;

/// A file that names `id` in the way `twist` says.
fn file(name: usize, twist: impl FnOnce(&mut Entry)) -> Entry {
    let mut entry = Entry {
        parent: Arc::from(&b""[..]),
        name: format!("file {name:03}").into_bytes(),
        kind: EntryKind::File { size: 0, holes: Block::None, content: Content::Inline(Vec::new()) },
        mode: 0o600,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        ctime: Timestamp::default(),
        btime: None,
        atime: None,
        mount: 0,
        inode: 1,
        links: 1,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    };
    twist(&mut entry);
    entry
}

/// Commits a snapshot with these entries, whatever they refer to.
fn commit(repository: &Repository, like: &Snapshot, entries: &[Entry]) -> Snapshot {
    let ring = repository.keyring();
    let (split, id) = (ring.split_key(ring.domain()), ring.id_key(ring.domain(), ChunkKind::Meta));
    let mut builder = TreeBuilder::new(split.unwrap(), id.unwrap());
    let mut store = |id: ChunkId, plain: Vec<u8>| -> bulla_engine::Result<()> {
        commit_pack(repository, PackKind::Meta, id, &plain);
        Ok(())
    };
    entries.iter().for_each(|e| builder.push(e, &mut store).unwrap());
    let tree = builder.finish(&mut store).unwrap().root;
    let (run, _) = Run::open(repository, RunKind::Writer, &[]).unwrap();
    let id = run.id();
    run.commit(Snapshot { id, tree, ..like.clone() }).unwrap()
}

/// A chunk that was met as an attribute block, as content or as a list is still entered where it is a node.
#[test]
fn an_honest_node_that_a_forgery_names_as_something_else_keeps_what_lies_below_it() {
    for way in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let (repository, memory) = in_memory();
        let history = Histories::make(&repository, dir.path());
        let nodes: Vec<ChunkId> = history.alive.iter().map(|(s, _)| s.tree).collect();
        let like = &history.alive[0].0;
        // Some of them are met before the honest ones, whatever the order.
        for _ in 0..8 {
            let entries = nodes.iter().enumerate().map(|(n, id)| {
                file(n, |entry| {
                    let chunk = ChunkRef { id: *id, len: 100 };
                    let EntryKind::File { size, holes, content } = &mut entry.kind else { return };
                    match way {
                        0 => entry.xattrs = Block::Chunk(chunk),
                        1 => *holes = Block::Chunk(chunk),
                        2 => (*size, *content) = (100, Content::Inline(vec![chunk])),
                        _ => (*size, *content) = (100, Content::List(*id)),
                    }
                })
            });
            commit(&repository, like, &entries.collect::<Vec<_>>());
        }
        let now = PruneOptions {
            grace: 0,
            run_expiry: 0,
            max_unused: MaxUnused::Bytes(0),
            ..PruneOptions::default()
        };
        for seed in [20, 21] {
            // It may refuse what it does not understand.
            let pruned = prune::run(&open(memory.clone(), seed).unwrap(), &now, &Silent);
            println!("way {way}: {:?}", pruned.map(|r| r.deleted));
            history.verify(&open(memory.clone(), 30).unwrap(), &format!("way {way}"));
        }
    }
}

/// Not a forgery, only too much to make on a disk: more bytes of directory paths than nested ones may have, and none of
/// them inside another. What is wanted of it is nearly nothing.
#[test]
fn a_file_out_of_many_directories_with_long_paths_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    let (repository, _) = in_memory();
    let history = Histories::make(&repository, dir.path());
    let directory = |parent: &[u8], name: String| Entry {
        parent: Arc::from(parent),
        name: name.into_bytes(),
        kind: EntryKind::Directory,
        mode: 0o700,
        ..file(0, |_| ())
    };
    let (mut entries, mut path) = (Vec::new(), Vec::new());
    for _ in 0..15 {
        let name = "n".repeat(250);
        entries.push(directory(&path, name.clone()));
        path = bulla_engine::format::tree::join_path(&path, name.as_bytes());
    }
    let names = (0..30_000).map(|n| format!("directory {n:05}"));
    entries.extend(names.map(|name| directory(&path, name)));
    let last = bulla_engine::format::tree::join_path(&path, b"directory 29999");
    entries.push(Entry { parent: Arc::from(last), ..file(7, |_| ()) });
    let snapshot = commit(&repository, &history.alive[0].0, &entries);
    let wanted = Patterns { include: PatternSet::new(["file 007"], false).unwrap(), ..Patterns::default() };
    let options = RestoreOptions { select: Some(Arc::new(wanted)), ..RestoreOptions::default() };
    let report =
        restore::run(&repository, &snapshot, b"", &dir.path().join("out"), &options, &Silent).unwrap();
    assert_eq!((report.files_restored, report.failed), (1, 0), "{report:?}");
}
