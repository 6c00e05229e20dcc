//! Writes repositories that no writer would: every object is sealed and signed with the real keys, its content is
//! whatever a case wants. The encoders of the format are used where they can say it, raw bytes where not.

use crate::home::Home;
use crate::spell::{self, Entry, Item, Ref};
use bulla_engine::backend::Local;
use bulla_engine::env::Env;
use bulla_engine::format::envelope::{self, Header, ObjectType};
use bulla_engine::format::frame;
use bulla_engine::format::index::{IndexPack, IndexRecord, IndexRun, record_key};
use bulla_engine::format::keys::ChunkKind;
use bulla_engine::format::pack::{ChunkEntry, Directory, FrameEntry, PackHeader, PackKind};
use bulla_engine::format::slot::parse_key;
use bulla_engine::format::snapshot::{Snapshot, Statistics, Verdict};
use bulla_engine::format::tree::Timestamp;
use bulla_engine::format::{ChunkId, IndexName, ObjectName, PackName, RunId};
use bulla_engine::repository::pack::object_name;
use bulla_engine::repository::{Repository, SlotSecret};
use std::path::PathBuf;
use std::sync::Arc;

/// A frame before it is sealed: `codec ‖ payload`, and the plain length its table claims.
pub type Frame = (Vec<u8>, u32);

/// What a pack is made of, and what it says of itself.
pub struct Pack {
    pub kind: PackKind,
    pub frames: Vec<Frame>,
    pub chunks: Vec<ChunkEntry>,
    /// The area it is put into, if not its own.
    pub area: Option<PackKind>,
    pub trailing: Vec<u8>,
}

/// A repository in a home of its own, while it is forged.
pub struct Forge {
    pub home: Home,
    pub repository: Repository,
    pub run: RunId,
    data: Vec<(ChunkId, Vec<u8>)>,
    meta: Vec<(ChunkId, Vec<u8>)>,
    /// Packs and records that the next index run will list.
    pub packs: Vec<IndexPack>,
    pub records: Vec<IndexRecord>,
    seeds: u8,
}

/// The bytes of a frame stored as it is.
pub fn stored(plain: &[u8]) -> Frame {
    ([&[0], plain].concat(), plain.len() as u32)
}

/// Opens the repository `name` of a home by its key file.
pub fn open(home: &Home, name: &str) -> Repository {
    let text = String::from_utf8(home.read(&format!("{name}.key"))).unwrap();
    let line = text.lines().find(|l| !l.starts_with('#')).unwrap();
    let secret = SlotSecret::Key(parse_key(line).unwrap());
    let backend = Arc::new(Local::new(home.path(name)));
    Repository::open(backend, &secret, Env::system("forge", "forger")).unwrap()
}

impl Forge {
    pub fn new() -> Self {
        let mut home = Home::fast_and_empty();
        home.bulla("init -r repo --key-file-out repo.key").ok();
        home.set("BULLA_REPOSITORY", "repo");
        home.set("BULLA_KEY_FILE", "repo.key");
        let repository = open(&home, "repo");
        let run = RunId::new([0x51; 16]);
        let (packs, records) = (Vec::new(), Vec::new());
        Self { home, repository, run, data: Vec::new(), meta: Vec::new(), packs, records, seeds: 0 }
    }

    /// The canary's directory, for links that point at it.
    pub fn outside(&self) -> PathBuf {
        self.home.path("outside")
    }

    fn entropy<const N: usize>(&mut self) -> [u8; N] {
        self.seeds += 1;
        [self.seeds; N]
    }

    fn identify(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        self.repository.keyring().id_key(0, kind).unwrap().identify(bytes)
    }

    /// A piece of a file.
    pub fn data(&mut self, bytes: &[u8]) -> Ref {
        let id = self.identify(ChunkKind::Data, bytes);
        self.data.push((id, bytes.to_vec()));
        (id, bytes.len() as u64)
    }

    /// A node, list or block.
    pub fn meta(&mut self, bytes: &[u8]) -> ChunkId {
        let id = self.identify(ChunkKind::Meta, bytes);
        self.meta.push((id, bytes.to_vec()));
        id
    }

    /// An id that nothing has.
    pub fn nothing(&self) -> ChunkId {
        ChunkId::new([0xee; 32])
    }

    /// Puts an object's bytes.
    pub fn put(&self, name: &ObjectName, bytes: &[u8]) {
        self.repository.backend().put(name, &[bytes]).unwrap();
    }

    /// Puts a signed and sealed small object.
    pub fn object(&self, name: &ObjectName, ty: ObjectType, body: Vec<u8>) {
        self.repository.put_object(name, ty, body).unwrap();
    }

    /// A pack with what [`Forge::data`] and [`Forge::meta`] collected, a frame per chunk.
    pub fn flush(&mut self) {
        for (kind, chunks) in [
            (PackKind::Data, std::mem::take(&mut self.data)),
            (PackKind::Meta, std::mem::take(&mut self.meta)),
        ] {
            if chunks.is_empty() {
                continue;
            }
            let frames = chunks.iter().map(|(_, bytes)| stored(bytes)).collect();
            let chunks = chunks.iter().map(|(id, b)| ChunkEntry { id: *id, len: b.len() as u32 }).collect();
            self.pack(Pack { kind, frames, chunks, area: None, trailing: Vec::new() }, |_| {});
        }
    }

    /// Seals and puts a pack, its directory as `twist` leaves it, and notes it for the index.
    pub fn pack(&mut self, pack: Pack, twist: impl FnOnce(&mut Directory)) -> IndexPack {
        let (listed, bytes) = self.sealed(&pack, twist);
        self.put(&object_name(pack.area.unwrap_or(pack.kind), listed.name), &bytes);
        let (at, mut offset) = (self.packs.len() as u32, 0u32);
        for c in &pack.chunks {
            self.records.push(IndexRecord { key: record_key(&c.id), pack: at, offset, len: c.len });
            offset += c.len;
        }
        self.packs.push(listed.clone());
        listed
    }

    /// The bytes of a pack, and how an index run lists it.
    pub fn sealed(&mut self, pack: &Pack, twist: impl FnOnce(&mut Directory)) -> (IndexPack, Vec<u8>) {
        let salt = self.entropy();
        let tail: [u8; 64] = self.entropy();
        let (ring, repo) = (self.repository.keyring(), self.repository.id());
        let signer = self.repository.client();
        let (header, key) = PackHeader::create(pack.kind, ring, &repo, salt).unwrap();
        let mut bytes = header.encode().to_vec();
        let mut table = Vec::new();
        for (number, (payload, raw)) in (0..).zip(&pack.frames) {
            let mut sealed = payload.clone();
            sealed.resize(payload.len() + frame::TAG_LEN, 0);
            key.seal(number, &mut sealed).unwrap();
            table.push(FrameEntry { sealed: sealed.len() as u32, raw: *raw });
            bytes.extend(sealed);
        }
        let mut directory =
            Directory { run: self.run, signer: signer.id(), frames: table, chunks: pack.chunks.clone() };
        twist(&mut directory);
        let hash = *blake3::hash(&bytes).as_bytes();
        let end = directory.seal(&header, &hash, bytes.len() as u64, ring, &repo, signer, &tail).unwrap();
        bytes.extend(end);
        bytes.extend(&pack.trailing);
        let name = PackName::new(*blake3::hash(&bytes).as_bytes());
        let (run, signer, frames) = (self.run, signer.id(), directory.frames);
        (IndexPack { name, size: bytes.len() as u64, run, signer, header, frames }, bytes)
    }

    /// Lists all packs so far in an index run, as `twist` leaves it.
    pub fn index(&mut self, twist: impl FnOnce(&mut IndexRun)) {
        let mut run = IndexRun::new(self.repository.client().id());
        (run.packs, run.records) = (std::mem::take(&mut self.packs), std::mem::take(&mut self.records));
        twist(&mut run);
        let body = run.encode();
        self.index_body(0, body);
    }

    /// An index run of any body.
    pub fn index_body(&mut self, generation: u32, body: Vec<u8>) {
        let entropy = self.entropy();
        let (repo, ring) = (self.repository.id(), self.repository.keyring());
        let signed = envelope::signed(body, ObjectType::Index, &repo, self.repository.client());
        let key = ring.envelope_key(0, ObjectType::Index).unwrap();
        let header = Header::derived(ObjectType::Index, 0);
        let bytes = envelope::seal(&header, &repo, &key, &entropy, &signed);
        let name = IndexName { generation, hash: *blake3::hash(&bytes).as_bytes() };
        self.put(&ObjectName::Index(name), &bytes);
    }

    /// A snapshot of a tree, as `twist` leaves it.
    pub fn snapshot(&self, tree: ChunkId, twist: impl FnOnce(&mut Snapshot)) {
        let at = Timestamp { seconds: 1_700_000_000, nanos: 0 };
        let text = str::to_owned;
        let mut snapshot = Snapshot {
            id: self.run,
            client: self.repository.client().id(),
            seq: 1,
            prev: Vec::new(),
            seen: Vec::new(),
            config_generation: 0,
            start: at,
            end: at,
            tree,
            host: text("forge"),
            user: text("forger"),
            os: text("linux"),
            program: text("forge 1"),
            paths: vec![b"/".to_vec()],
            tags: Vec::new(),
            excludes: Vec::new(),
            mounts: Vec::new(),
            users: Vec::new(),
            groups: Vec::new(),
            parent: None,
            origin: None,
            statistics: Statistics::default(),
            errors: Vec::new(),
        };
        twist(&mut snapshot);
        let (id, body) = (self.run, Verdict::Snapshot(Box::new(snapshot)).encode());
        self.object(&ObjectName::Verdict(id), ObjectType::Verdict, body);
    }

    /// All that was collected, and a snapshot of the tree below `root`.
    pub fn commit(&mut self, root: ChunkId) {
        self.flush();
        self.index(|_| {});
        self.snapshot(root, |_| {});
    }

    /// A snapshot whose root is this node.
    pub fn root(&mut self, node: &[u8]) {
        let id = self.meta(node);
        self.commit(id);
    }

    /// A snapshot of one leaf.
    pub fn leaf(&mut self, items: &[Item<'_>]) {
        self.root(&spell::leaf(items));
    }

    /// A snapshot of one entry at the top, called `f`.
    pub fn one(&mut self, entry: Entry) {
        self.leaf(&[(b"", b"f", entry)]);
    }

    /// A file of these bytes.
    pub fn file(&mut self, bytes: &[u8]) -> Entry {
        let chunk = self.data(bytes);
        spell::file(chunk.1, &[chunk])
    }
}
