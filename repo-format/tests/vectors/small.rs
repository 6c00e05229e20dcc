//! Cases of envelopes and of the small signed objects in them.

use crate::file::Vector;
use crate::keys::*;
use bulla_repo_format::cbor::{Value, map};
use bulla_repo_format::chunker::ChunkerParams;
use bulla_repo_format::config::Config;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::index::{IndexPack, IndexRecord, IndexRun};
use bulla_repo_format::keys::Secret;
use bulla_repo_format::pack::{FrameEntry, HEADER_LEN, PackHeader, PackKind};
use bulla_repo_format::record::*;
use bulla_repo_format::snapshot::*;
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::*;

const RUN: RunId = RunId::new([0x61; 16]);
const OTHER: RunId = RunId::new([0x62; 16]);

pub(crate) fn cases() -> Vec<Vector> {
    [
        configs(),
        config_seals(),
        envelopes(),
        indexes(),
        verdicts(),
        announcements(),
        records(),
        certificates(),
    ]
    .concat()
}

pub(crate) fn no(
    object_word: &str,
    rule: &str,
    case: &str,
    note: &str,
    name: impl ToString,
    bytes: Vec<u8>,
) -> Vector {
    Vector::reject(object_word, rule, case, note, bytes).with("name", name)
}

/// The fields of a valid config body, to be changed.
fn config_fields(generation: u64) -> Vec<(u64, Option<Value>)> {
    let uint = |v: u64| Some(Value::Uint(v));
    let secrets =
        |list: &[Secret]| Some(Value::Array(list.iter().map(|s| Value::bytes(s.expose())).collect()));
    let chunker = map([(1, uint(1)), (2, uint(32 << 10)), (3, uint(128 << 10)), (4, uint(512 << 10))], &[]);
    vec![
        (1, uint(generation)),
        (2, (generation > 0).then(|| Value::bytes([0xcc; 32]))),
        (3, Some(Value::bytes(REPO.as_bytes()))),
        (4, Some(Value::bytes(RING.as_bytes()))),
        (5, secrets(keyring().roots())),
        (6, secrets(keyring().domains())),
        (7, uint(0)),
        (8, uint(0)),
        (9, uint(5)),
        (10, Some(chunker)),
        (11, uint(4 << 20)),
        (12, uint(256 << 10)),
        (13, uint(32 << 20)),
        (14, uint(8 << 20)),
        (15, Some(Value::int(-1))),
    ]
}

fn config(change: &[(u64, Option<Value>)]) -> Vec<u8> {
    let mut fields = config_fields(2);
    for (key, value) in change {
        fields.retain(|(k, _)| k != key);
        fields.push((*key, value.clone()));
    }
    object(ObjectType::Config, &map(fields, &[]).encode())
}

/// Generation 0 as the crate seals it.
fn first_config() -> Vec<u8> {
    let first = Config {
        generation: 0,
        previous: None,
        repo: REPO,
        ring: RING,
        keyring: keyring(),
        incompat: 0,
        ro_compat: 0,
        compat: 0,
        chunker: ChunkerParams::DEFAULT,
        data_frame: 4 << 20,
        meta_frame: 256 << 10,
        data_pack: 32 << 20,
        meta_pack: 8 << 20,
        created: 1_700_000_000,
        parity: None,
        unknown: vec![],
    };
    first.seal(&ring_key(), &[0xaa; 32])
}

fn configs() -> Vec<Vector> {
    let name = ObjectName::Config(2);
    let uint = |v: u64| Some(Value::Uint(v));
    let bad = |rule: &str, case: &str, note: &str, change: &[(u64, Option<Value>)]| {
        no("config", rule, case, note, name, config(change))
    };
    let chunker = |kind, min| {
        Some(map([(1, uint(kind)), (2, uint(min)), (3, uint(128 << 10)), (4, uint(512 << 10))], &[]))
    };
    let first = first_config();
    vec![
        Vector::ok("config", "first", "generation 0 as the crate seals it", first)
            .with("name", ObjectName::Config(0)),
        Vector::ok(
            "config",
            "second",
            "generation 2 with an unknown field and compatible flags",
            config(&[(99, uint(7))]),
        )
        .with("name", name),
        Vector::ok("config", "read-only", "an unknown read-only-compatible flag", config(&[(8, uint(1))]))
            .with("name", name),
        Vector::ok("config", "parity", "new packs get 3 per cent of parity", config(&[(16, uint(3))]))
            .with("name", name),
        bad("R-CONFIG-1", "repository", "another repository inside", &[(3, Some(Value::bytes([1; 32])))]),
        bad("R-CONFIG-1", "ring", "another ring inside", &[(4, Some(Value::bytes([1; 16])))]),
        no(
            "config",
            "R-CONFIG-2",
            "name",
            "generation 2 under another name",
            ObjectName::Config(3),
            config(&[]),
        ),
        bad("R-CONFIG-3", "none", "generation 2 without a predecessor", &[(2, None)]),
        no(
            "config",
            "R-CONFIG-3",
            "first",
            "generation 0 with a predecessor",
            ObjectName::Config(0),
            config(&[(1, uint(0))]),
        ),
        bad("R-CONFIG-4", "incompat", "incompatible flag 1", &[(7, uint(1))]),
        bad("R-CONFIG-5", "kind", "chunker kind 2", &[(10, chunker(2, 32 << 10))]),
        bad("R-CONFIG-5", "odd", "an odd minimum", &[(10, chunker(1, 32_769))]),
        bad("R-CONFIG-5", "order", "min above avg", &[(10, chunker(1, 256 << 10))]),
        bad("R-CONFIG-6", "frame", "frames of 16 MiB", &[(11, uint(16 << 20))]),
        bad("R-CONFIG-6", "pack", "packs of 4 KiB", &[(14, uint(4 << 10))]),
        bad("R-CONFIG-7", "none", "no domain", &[(6, Some(Value::Array(vec![])))]),
        bad(
            "R-CONFIG-7",
            "short",
            "a root of 31 bytes",
            &[(5, Some(Value::Array(vec![Value::bytes([1; 31])])))],
        ),
        bad("R-CBOR-8", "missing", "no creation time", &[(15, None)]),
        bad("R-CBOR-8", "parity", "parity of 101 per cent", &[(16, uint(101))]),
        bad("R-CBOR-8", "null", "null is not absence", &[(2, Some(Value::Null))]),
    ]
}

/// Configs that somebody without the right key made.
fn config_seals() -> Vec<Vector> {
    let name = ObjectName::Config(2);
    let other_admin = signed(ObjectType::Config, &map(config_fields(2), &[]).encode(), &client());
    vec![
        no(
            "config",
            "R-SIG-1",
            "signer",
            "signed by a client that is not the admin",
            name,
            Seal::config().seal(ObjectType::Config, &other_admin),
        ),
        no(
            "config",
            "R-ENV-2",
            "stanza",
            "a config without a ring stanza",
            name,
            Seal::derived(ObjectType::Config).seal(ObjectType::Config, &other_admin),
        ),
    ]
}

/// The rules every envelope shares, shown on marks.
fn envelopes() -> Vec<Vector> {
    let ty = ObjectType::Mark;
    let name = ObjectName::Mark(RUN);
    let body = Mark { run: RUN, client: client_id(), victims: vec![], damaged: false }.encode();
    let content = signed(ty, &body, &client());
    let with = |rule: &str, case: &str, note: &str, change: &dyn Fn(&mut Seal)| {
        let mut seal = Seal::derived(ty);
        change(&mut seal);
        no("mark", rule, case, note, name, seal.seal(ty, &content))
    };
    let mut flipped = object(ty, &body);
    *flipped.last_mut().unwrap() ^= 1;
    let mut nonce = object(ty, &body);
    nonce[20] ^= 1;
    let short = Seal::derived(ty).seal(ty, &content[..63]);
    let wrong_signer = Seal::derived(ty).seal(ty, &signed(ty, &body, &keyring().admin_key()));
    vec![
        with("R-ENV-1", "magic", "another magic", &|s| s.magic[0] = b'B'),
        with("R-ENV-1", "version", "format version 2", &|s| s.magic[5] = 2),
        with("R-ENV-1", "suite", "suite 2", &|s| s.suite = 2),
        with("R-NAME-3", "type", "a hold's type byte", &|s| s.ty = ObjectType::Hold as u8),
        with("R-ENV-2", "unknown", "stanza type 1", &|s| s.stanza_type = 1),
        with("R-ENV-2", "bytes", "stanza bytes where there are none", &|s| s.stanza = vec![0]),
        with("R-ENV-2", "ring", "the stanza of a config", &|s| {
            s.stanza_type = 2;
            s.stanza = vec![0; 48];
        }),
        with("R-KEY-1", "epoch", "an epoch the config does not have", &|s| s.epoch = 2),
        with("R-ENV-3", "repository", "sealed for another repository", &|s| s.repo = RepoId::new([1; 32])),
        no("mark", "R-ENV-3", "tag", "the last bit flipped", name, flipped),
        no("mark", "R-ENV-3", "nonce", "a bit of the nonce flipped", name, nonce),
        with("R-ENV-4", "padding", "padding that is not zero", &|s| s.padding = vec![0, 0, 1]),
        with("R-ENV-4", "length", "a length beyond the plaintext", &|s| s.length_off = 6),
        no("mark", "R-SIG-1", "short", "a content shorter than a signature", name, short),
        no("mark", "R-SIG-1", "signer", "signed by another client than it names", name, wrong_signer),
    ]
}

fn index_run() -> IndexRun {
    let pack = |kind, name, frames| IndexPack {
        name: PackName::new([name; 32]),
        size: 9000,
        run: RUN,
        signer: client_id(),
        header: PackHeader::create(kind, &keyring(), &REPO, [name; 32]).unwrap().0,
        frames,
    };
    let frame = |sealed, raw| FrameEntry { sealed, raw };
    let record = |key, pack, offset, len| IndexRecord { key: [key; 20], pack, offset, len };
    let mut run = IndexRun::new(client_id());
    run.inputs = vec![IndexName { generation: 0, hash: [0xd1; 32] }];
    run.graves = vec![PackName::new([0xd2; 32])];
    run.packs = vec![
        pack(PackKind::Data, 0xd3, vec![frame(100, 1000), frame(200, 500), frame(50, 0)]),
        pack(PackKind::Meta, 0xd4, vec![frame(90, 70)]),
    ];
    run.records = vec![record(9, 0, 0, 400), record(9, 0, 400, 1100), record(3, 1, 0, 70)];
    run
}

fn index(body: &[u8]) -> (ObjectName, Vec<u8>) {
    let bytes = object(ObjectType::Index, body);
    (ObjectName::Index(IndexName { generation: 1, hash: *blake3::hash(&bytes).as_bytes() }), bytes)
}

fn indexes() -> Vec<Vector> {
    let good = index_run().encode();
    // Offsets: signer 16, counts 16, one input 36, one grave 32, then the first pack.
    let pack = 100;
    let header = pack + 32 + 8 + 32;
    let records = good.len() - 96;
    let bad = |rule: &str, case: &str, note: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut body = good.clone();
        change(&mut body);
        let (name, bytes) = index(&body);
        no("index", rule, case, note, name, bytes)
    };
    let set = |at: usize, v: u32| move |b: &mut Vec<u8>| b[at..at + 4].copy_from_slice(&v.to_le_bytes());
    let (name, bytes) = index(&good);
    let empty = index(&IndexRun::new(client_id()).encode());
    let wrong = Seal::derived(ObjectType::Index)
        .seal(ObjectType::Index, &signed(ObjectType::Index, &good, &keyring().admin_key()));
    let wrong_name = IndexName { generation: 1, hash: *blake3::hash(&wrong).as_bytes() };
    vec![
        Vector::ok("index", "run", "two packs, three records, an input, a grave", bytes.clone())
            .with("name", name),
        Vector::ok("index", "empty", "nothing at all", empty.1).with("name", empty.0),
        no(
            "index",
            "R-NAME-2",
            "name",
            "bytes under another hash",
            ObjectName::Index(IndexName { generation: 1, hash: [1; 32] }),
            bytes,
        ),
        bad("R-INDEX-1", "records", "2^19 + 1 records", &set(28, (1 << 19) + 1)),
        bad("R-INDEX-1", "count", "one record more than there is", &set(28, 4)),
        bad("R-INDEX-1", "packs", "2^20 + 1 packs", &set(24, (1 << 20) + 1)),
        bad("R-INDEX-2", "header", "a pack of kind 3", &|b| b[header + 8] = 3),
        bad("R-INDEX-2", "size", "frames beyond the pack's size", &set(pack + 32, 200)),
        bad("R-INDEX-2", "frame", "a frame of 16 sealed bytes", &set(header + HEADER_LEN + 4, 16)),
        bad("R-INDEX-2", "frames", "2^16 + 1 frames", &set(header + HEADER_LEN, (1 << 16) + 1)),
        bad("R-INDEX-3", "outside", "a record beyond its stream", &set(records + 32 + 24, 1400)),
        bad("R-INDEX-3", "pack", "a record of an unknown pack", &set(records + 20, 2)),
        bad("R-INDEX-3", "empty", "a record of length 0", &set(records + 28, 0)),
        bad("R-INDEX-4", "order", "records descending", &|b| b[records] = 10),
        bad("R-INDEX-4", "twice", "a record twice", &|b| {
            b.copy_within(records + 32..records + 64, records + 64)
        }),
        no(
            "index",
            "R-SIG-1",
            "signer",
            "signed by another client than it names",
            ObjectName::Index(wrong_name),
            wrong,
        ),
    ]
}

fn snapshot() -> Snapshot {
    Snapshot {
        id: RUN,
        client: client_id(),
        seq: 3,
        prev: vec![Head { id: OTHER, hash: BodyHash::new([0xe1; 32]) }],
        seen: vec![OTHER, RunId::new([0x63; 16])],
        config_generation: 2,
        start: Timestamp { seconds: 1_700_000_000, nanos: 999_999_999 },
        end: Timestamp { seconds: -1, nanos: 0 },
        tree: ChunkId::new([0xe2; 32]),
        host: "vector".into(),
        user: "müller".into(),
        os: "linux".into(),
        program: "bulla 0".into(),
        paths: vec![b"/home".to_vec(), vec![b'/', 0xff]],
        tags: vec!["t".into()],
        excludes: vec!["*.o".into()],
        mounts: vec![Mount { device: 7, fs_type: "ext4".into(), path: b"/".to_vec() }],
        users: vec![(0, b"root".to_vec())],
        groups: vec![(100, b"users".to_vec())],
        parent: Some(OTHER),
        origin: None,
        statistics: Statistics { files_new: 1, errors: 2, ..Statistics::default() },
        errors: vec![(b"a".to_vec(), "permission denied".into())],
    }
}

fn verdicts() -> Vec<Vector> {
    let name = ObjectName::Verdict(RUN);
    let seal = |body: &[u8]| object(ObjectType::Verdict, body);
    let good = Verdict::Snapshot(Box::new(snapshot())).encode();
    let void = Verdict::Void { run: RUN, client: client_id() }.encode();
    let changed = |key: u64, value: Value| {
        let Value::Map(mut pairs) = Value::decode("t", &good).unwrap() else { panic!() };
        pairs.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, v)| *v = value.clone());
        seal(&Value::Map(pairs).encode())
    };
    let time = Value::Array(vec![Value::Uint(1), Value::Uint(1_000_000_000)]);
    let bad = |rule: &str, case: &str, note: &str, bytes| no("verdict", rule, case, note, name, bytes);
    vec![
        Vector::ok("verdict", "snapshot", "all fields", seal(&good)).with("name", name),
        Vector::ok("verdict", "void", "VOID", seal(&void)).with("name", name),
        bad("R-SNAP-1", "unknown", "verdict 2", changed(1, Value::Uint(2))),
        no(
            "verdict",
            "R-SNAP-2",
            "name",
            "under another run's name",
            ObjectName::Verdict(OTHER),
            seal(&good),
        ),
        no(
            "verdict",
            "R-SNAP-2",
            "void",
            "VOID under another run's name",
            ObjectName::Verdict(OTHER),
            seal(&void),
        ),
        bad("R-SNAP-3", "time", "10^9 nanoseconds", changed(8, time)),
        bad("R-SNAP-3", "tree", "a tree id of 31 bytes", changed(10, Value::bytes([1; 31]))),
        bad(
            "R-SNAP-3",
            "head",
            "a head without a hash",
            changed(5, Value::Array(vec![Value::bytes([1; 16])])),
        ),
    ]
}

fn announcements() -> Vec<Vector> {
    let good = Announcement {
        run: RUN,
        number: 1,
        client: client_id(),
        kind: RunKind::Writer,
        pins: vec![Pin { snapshot: OTHER, tree: ChunkId::new([0xe2; 32]) }],
        verified: true,
        packs: vec![PackName::new([0xe3; 32])],
        checkpoint: Some(Checkpoint {
            start: Timestamp { seconds: 1_700_000_000, nanos: 7 },
            host: "host".into(),
            paths: vec![b"/srv".to_vec()],
            tree: ChunkId::new([0xe5; 32]),
        }),
    }
    .encode();
    let seal = |body: &[u8]| object(ObjectType::Announcement, body);
    let changed = |key: u64, value: Option<Value>| {
        let Value::Map(mut pairs) = Value::decode("t", &good).unwrap() else { panic!() };
        pairs.retain(|(k, _)| *k != key);
        seal(&map([(key, value)], &pairs).encode())
    };
    let name = ObjectName::Announcement(RUN, 1);
    let bad = |rule: &str, case: &str, note: &str, bytes| no("announcement", rule, case, note, name, bytes);
    let pin = Value::Array(vec![Value::Array(vec![Value::bytes([1; 16])])]);
    vec![
        Vector::ok("announcement", "writer", "a pin, a pack and a checkpoint", seal(&good))
            .with("name", name),
        Vector::ok("announcement", "plain", "no checkpoint", changed(8, None)).with("name", name),
        bad("R-PEND-2", "checkpoint", "a checkpoint that is a number", changed(8, Some(Value::Uint(1)))),
        no(
            "announcement",
            "R-PEND-1",
            "number",
            "number 1 under 2",
            ObjectName::Announcement(RUN, 2),
            seal(&good),
        ),
        no("announcement", "R-PEND-1", "run", "another run", ObjectName::Announcement(OTHER, 1), seal(&good)),
        bad("R-PEND-2", "kind", "kind 4", changed(4, Some(Value::Uint(4)))),
        bad("R-PEND-2", "pin", "a pin without a tree", changed(5, Some(pin))),
        bad("R-CBOR-8", "verified", "does not say whether its pins are verified", changed(6, None)),
    ]
}

fn records() -> Vec<Vector> {
    let body = Verdict::Snapshot(Box::new(snapshot())).encode();
    let death = |hash| {
        let d = Death { snapshot: RUN, client: client_id(), hash, body: body.clone() };
        object(ObjectType::Death, &d.encode())
    };
    let good = death(keyring().body_hash(&body));
    let mark =
        Mark { run: RUN, client: client_id(), victims: vec![PackName::new([0xe4; 32])], damaged: true };
    let mark = object(ObjectType::Mark, &mark.encode());
    let hold = Hold { snapshot: RUN, client: client_id(), reason: "audit".into() };
    let hold = object(ObjectType::Hold, &hold.encode());
    let forget = Forget { snapshot: RUN, client: client_id(), now: true, reason: "policy".into() };
    let forget = object(ObjectType::Forget, &forget.encode());
    vec![
        Vector::ok("death", "snapshot", "a death and the body it keeps", good.clone())
            .with("name", ObjectName::Death(RUN)),
        no("death", "R-GONE-1", "name", "under another snapshot's name", ObjectName::Death(OTHER), good),
        no(
            "death",
            "R-GONE-2",
            "hash",
            "another body than its hash names",
            ObjectName::Death(RUN),
            death(BodyHash::new([0; 32])),
        ),
        Vector::ok("mark", "one", "one victim", mark.clone()).with("name", ObjectName::Mark(RUN)),
        no("mark", "R-MARK-1", "name", "under another run's name", ObjectName::Mark(OTHER), mark),
        Vector::ok("hold", "one", "held for an audit", hold.clone()).with("name", ObjectName::Hold(RUN)),
        no("hold", "R-HOLD-1", "name", "under another snapshot's name", ObjectName::Hold(OTHER), hold),
        Vector::ok("forget", "one", "forgotten without grace", forget.clone())
            .with("name", ObjectName::Forget(RUN)),
        no(
            "forget",
            "R-FORGET-1",
            "name",
            "under another snapshot's name",
            ObjectName::Forget(OTHER),
            forget,
        ),
    ]
}

fn certificates() -> Vec<Vector> {
    let id = client_id();
    let capabilities = Capabilities { write: true, attest: true, ..Capabilities::default() };
    let good =
        Certificate { client: id, public: client().public(), capabilities, group: 4, name: "host".into() };
    let body = good.encode();
    let Value::Map(mut pairs) = Value::decode("t", &body).unwrap() else { panic!() };
    pairs.iter_mut().filter(|(k, _)| *k == 3).for_each(|(_, v)| *v = Value::Uint(16));
    let seal = |body: &[u8]| object(ObjectType::Client, body);
    let (name, other) = (ObjectName::Client(id), ObjectName::Client(ClientId::new([1; 16])));
    let unknown = seal(&Value::Map(pairs).encode());
    let own = Seal::derived(ObjectType::Client)
        .seal(ObjectType::Client, &signed(ObjectType::Client, &body, &client()));
    vec![
        Vector::ok("certificate", "host", "may write and attest", seal(&body)).with("name", name),
        no("certificate", "R-CERT-1", "name", "under another client's name", other, seal(&body)),
        no("certificate", "R-CERT-2", "capability", "capability 16", name, unknown),
        no("certificate", "R-TRUST-2", "self", "signed by the client itself", name, own),
    ]
}
