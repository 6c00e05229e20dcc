//! Cases of ledger records: one of each kind, and what must not be believed.

use crate::file::Vector;
use crate::keys::*;
use crate::small::no;
use bulla_repo_format::cbor::Value;
use bulla_repo_format::envelope::ObjectType;
use bulla_repo_format::ledger::*;
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::*;

const SNAPSHOT: RunId = RunId::new([0x61; 16]);
const START: Timestamp = Timestamp { seconds: 1_699_999_000, nanos: 7 };

fn body(previous: Option<BodyHash>, fact: Fact) -> Vec<u8> {
    let time = Timestamp { seconds: 1_700_000_000, nanos: 5 };
    Record { client: client_id(), sequence: 3, previous, time, fact }.encode()
}

fn chained(fact: Fact) -> Vec<u8> {
    body(Some(BodyHash::new([0xe7; 32])), fact)
}

fn job_run() -> JobRun {
    let copy = |destination: &str, snapshot: Option<RunId>, reason: &str| JobCopy {
        destination: destination.into(),
        outcome: u64::from(snapshot.is_none()) * 3,
        snapshot,
        level: if snapshot.is_none() { Level::Committed } else { Level::Data },
        reason: reason.into(),
    };
    JobRun {
        run: RunId::new([0x63; 16]),
        job: "home".into(),
        host: "alpha".into(),
        start: START,
        outcome: 3,
        next_due: Some(1_700_086_400),
        config: [0x64; 32],
        files: 12,
        bytes: 3456,
        copies: vec![copy("disk", Some(SNAPSHOT), ""), copy("vault", None, "no route to host")],
        findings: vec!["the source shrank by 40 %".into()],
    }
}

fn drill() -> Drill {
    Drill {
        job: "home".into(),
        host: "alpha".into(),
        destination: "disk".into(),
        snapshot: SNAPSHOT,
        kind: DrillKind::Sample,
        seed: [0x65; 32],
        start: START,
        outcome: 8,
        files: 300,
        files_all: 1204,
        bytes: 1 << 20,
        bytes_all: 1 << 24,
        wrong: vec!["/srv/a: differs".into()],
        phases: [120, 3400, 800, 0],
        rto: 17,
        rpo: 3600,
        config: [0x64; 32],
        key: Some("recovery key".into()),
        late: vec!["the restore takes 2h, and may take 1h".into()],
        diverged: vec!["/srv/b: BLAKE3 00 in the source, 01 in the snapshot".into()],
        numbers: vec![("rows".into(), "18402113".into())],
    }
}

fn reject(rule: &str, name: &str, note: &str, body: &[u8]) -> Vector {
    no("record", rule, name, note, ObjectName::Record(client_id(), 3), object(ObjectType::Record, body))
}

/// A drill's record with one field of the drill set to another value.
fn twisted(key: u64, value: Value) -> Vec<u8> {
    let Value::Map(mut record) = Value::decode("t", &chained(Fact::Drill(drill()))).unwrap() else {
        panic!()
    };
    let Some((_, Value::Map(fact))) = record.iter_mut().find(|(k, _)| *k == 6) else { panic!() };
    fact.iter_mut().filter(|(k, _)| *k == key).for_each(|(_, v)| *v = value.clone());
    Value::Map(record).encode()
}

fn refused() -> Refused {
    Refused {
        job: "home".into(),
        host: "alpha".into(),
        run: RunId::new([0x63; 16]),
        outcome: 5,
        reason: "clocks differ".into(),
    }
}

fn lock() -> Lock {
    Lock {
        job: "home".into(),
        host: "alpha".into(),
        term: "sox".into(),
        min: 7 * 365 * 86_400,
        unit: 366 * 86_400,
        since: 1_690_000_000,
    }
}

pub(crate) fn cases() -> Vec<Vector> {
    let place = ObjectName::Record(client_id(), 3);
    let read = Verified { good: vec![PackName::new([0xe6; 32])], ..Verified::default() };
    let proven = Verified { proven: vec![SNAPSHOT], within_days: 35, ..read.clone() };
    let forgotten = Forgotten {
        snapshots: vec![RunId::new([0x66; 16])],
        reason: "policy".into(),
        evidence: vec![SNAPSHOT],
    };
    let waiver = Waiver {
        job: "home".into(),
        host: "alpha".into(),
        reason: "the vault moves".into(),
        until: 1_700_600_000,
    };
    let pruned = Pruned { ended: vec![RunId::new([0x67; 16])], packs: 2, bytes: 4096 };
    let ok = |name: &str, note: &str, fact| {
        Vector::ok("record", name, note, object(ObjectType::Record, &chained(fact))).with("name", place)
    };
    let level = {
        let bytes = chained(Fact::Run(job_run()));
        let Value::Map(mut record) = Value::decode("t", &bytes).unwrap() else { panic!() };
        let Some((_, Value::Map(fact))) = record.iter_mut().find(|(k, _)| *k == 6) else { panic!() };
        let Some((_, Value::Array(copies))) = fact.iter_mut().find(|(k, _)| *k == 10) else { panic!() };
        let Value::Map(copy) = &mut copies[0] else { panic!() };
        copy.iter_mut().filter(|(k, _)| *k == 4).for_each(|(_, v)| *v = Value::Uint(5));
        Value::Map(record).encode()
    };
    let verified = object(ObjectType::Record, &chained(Fact::Verified(read.clone())));
    vec![
        ok("verified", "a pack was read", Fact::Verified(read.clone())),
        ok("proven", "and with it all that a snapshot needs", Fact::Verified(proven)),
        ok("run", "a run that one destination lacks", Fact::Run(job_run())),
        ok("forgotten", "one let go on another's evidence", Fact::Forgotten(forgotten)),
        ok("drill", "a sample with one file that is wrong", Fact::Drill(drill())),
        ok("waiver", "a rule lifted for a week", Fact::Waiver(waiver)),
        ok("pruned", "one snapshot ended, two packs went", Fact::Pruned(pruned)),
        ok("refused", "what should have gone stayed", Fact::Refused(refused())),
        ok("lock", "seven years, one a year", Fact::Lock(lock())),
        ok("other", "a kind of a later version", Fact::Other(99)),
        no(
            "record",
            "R-RECORD-1",
            "name",
            "under another number",
            ObjectName::Record(client_id(), 4),
            verified,
        ),
        reject("R-RECORD-2", "chain", "record 3 without a predecessor", &body(None, Fact::Verified(read))),
        reject("R-RECORD-3", "level", "level 5", &level),
        reject("R-RECORD-3", "kind", "a drill of kind 3", &twisted(5, Value::Uint(3))),
        reject(
            "R-RECORD-3",
            "phases",
            "a drill with three phases",
            &twisted(14, Value::Array(vec![Value::Uint(1); 3])),
        ),
        reject(
            "R-RECORD-3",
            "number",
            "a drill with a number that has no name",
            &twisted(20, Value::Array(vec![Value::Array(vec![Value::text("7")])])),
        ),
        reject("R-CBOR-8", "seed", "a seed of another length", &twisted(6, Value::bytes([1; 16]))),
    ]
}
