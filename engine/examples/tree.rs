//! Makes a snapshot of files that do not exist, for measuring what many files cost: its tree, nothing else.
//!
//! `cargo run --release --example tree -- REPOSITORY KEY-FILE COUNT`
//!
//! The repository must hold a snapshot already, whose facts the new one borrows. Files are empty, a hundred to a
//! directory, and named as cameras do.

use bulla_engine::Result;
use bulla_engine::backend::Local;
use bulla_engine::env::Env;
use bulla_engine::format::frame::Compression;
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::PackKind;
use bulla_engine::format::record::RunKind;
use bulla_engine::format::slot::parse_key;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::tree::{Block, Content, Entry, EntryFlags, EntryKind, Timestamp, TreeBuilder};
use bulla_engine::repository::index::IndexWriter;
use bulla_engine::repository::pack::{PackSink, PackStream, Packer, SealedPack};
use bulla_engine::repository::run::Run;
use bulla_engine::repository::{Repository, SlotSecret, SnapshotFilter};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Puts packs and lists them.
struct Store<'r> {
    repository: &'r Repository,
    index: Mutex<IndexWriter<'r>>,
}

impl PackSink for Store<'_> {
    fn store(&self, mut pack: SealedPack) -> Result<()> {
        self.repository.backend().put(&pack.object, &pack.parts())?;
        let records = std::mem::take(&mut pack.records);
        self.index.lock().unwrap_or_else(PoisonError::into_inner).add(pack.pack.clone(), records)
    }
}

fn file(number: u64) -> Entry {
    let time = Timestamp { seconds: 1_700_000_000 + number.cast_signed(), nanos: 0 };
    Entry {
        parent: format!("photos/{:04}/{:02}", number / 10_000, number / 100 % 100).into_bytes().into(),
        name: format!("IMG_{number:08}.JPG").into_bytes(),
        kind: EntryKind::File { size: 0, holes: Block::None, content: Content::default() },
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        mtime: time,
        ctime: time,
        btime: Some(time),
        atime: None,
        mount: 0,
        inode: 1_000_000 + number,
        links: 1,
        xattrs: Block::None,
        flags: EntryFlags::default(),
    }
}

/// Directories come before what is in them.
fn directory(path: &str) -> Entry {
    let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
    let (parent, name) = (parent.as_bytes().into(), name.as_bytes().to_vec());
    Entry { parent, name, kind: EntryKind::Directory, mode: 0o755, ..file(0) }
}

fn push_all(builder: &mut Builder<'_, '_>, count: u64) -> Result<()> {
    builder.push(&directory("photos"))?;
    // Paths come in the order of the tree: all of a directory before what lies below it.
    for top in 0..count.div_ceil(10_000) {
        builder.push(&directory(&format!("photos/{top:04}")))?;
    }
    for top in 0..count.div_ceil(10_000) {
        let last = (top * 10_000 + 10_000).min(count);
        for hundred in 0..(last - top * 10_000).div_ceil(100) {
            builder.push(&directory(&format!("photos/{top:04}/{hundred:02}")))?;
        }
        (top * 10_000..last).try_for_each(|number| builder.push(&file(number)))?;
    }
    Ok(())
}

/// The tree on its way into packs.
struct Builder<'s, 'r> {
    tree: TreeBuilder,
    stream: &'s PackStream<'r>,
    packer: Packer,
}

impl Builder<'_, '_> {
    fn push(&mut self, entry: &Entry) -> Result<()> {
        let (stream, packer) = (self.stream, &mut self.packer);
        self.tree.push(entry, &mut |id, node| stream.append(packer, [(id, &node[..])]))
    }
}

fn snapshot(repository: &Repository, like: &Snapshot, count: u64) -> Result<Snapshot> {
    let ring = repository.keyring();
    let (split, id) = (ring.split_key(ring.domain())?, ring.id_key(ring.domain(), ChunkKind::Meta)?);
    let (run, _) = Run::open(repository, RunKind::Writer, &[])?;
    let store = Store { repository, index: Mutex::new(IndexWriter::new(repository)) };
    let stream = PackStream::new(repository, PackKind::Meta, run.id(), Compression::Auto, true, &store);
    let mut builder =
        Builder { tree: TreeBuilder::new(split, id), stream: &stream, packer: stream.packer()? };
    push_all(&mut builder, count)?;
    let Builder { tree, mut packer, .. } = builder;
    let built = tree.finish(&mut |id, node| stream.append(&mut packer, [(id, &node[..])]))?;
    stream.finish(&mut packer)?;
    drop(stream);
    store.index.into_inner().unwrap_or_else(PoisonError::into_inner).flush()?;
    let id = run.id();
    // Another client than the one that made the snapshot it is like: it begins a lineage.
    let (client, seq, prev) = (repository.client().id(), 1, Vec::new());
    run.commit(Snapshot { id, client, seq, prev, tree: built.root, parent: None, ..like.clone() })
}

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [place, key_file, count] = &arguments[..] else {
        return Err("usage: REPOSITORY KEY-FILE COUNT".into());
    };
    let text = std::fs::read_to_string(key_file)?;
    let key = parse_key(text.lines().find(|l| l.starts_with("BULLA1")).ok_or("no printed key in the file")?)?;
    let env = Env::system("example-host", "example-user");
    let repository = Repository::open(Arc::new(Local::new(place)), &SlotSecret::Key(key), env)?;
    let (like, _) = repository.resolve("latest", &SnapshotFilter::default())?;
    let made = snapshot(&repository, &like, count.parse()?)?;
    writeln!(std::io::stdout(), "{}", made.id)?;
    Ok(())
}
