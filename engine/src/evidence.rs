//! What records prove, pure: when packs were last read, which snapshots are proven how far, what is held against them.
//!
//! Kept true: a record that was lost only ever proves less. A time in the future proves nothing.

use bulla_repo_format::ledger::{Fact, Level, Record};
use bulla_repo_format::{ClientId, PackName, RunId};
use std::collections::{HashMap, HashSet};

/// How many days evidence of read data counts: as long as a pack may go unread.
pub const EVIDENCE_DAYS: i64 = 35;

/// The longest time for which a rule can be lifted, in seconds.
pub const WAIVER_MAX: i64 = 30 * 24 * 3600;

/// Everything that a ledger proves.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    packs: HashMap<PackName, i64>,
    damaged: HashSet<PackName>,
    last_read: Option<i64>,
    data: HashMap<RunId, i64>,
    levels: HashMap<RunId, Level>,
    sound: HashSet<RunId>,
    suspicious: HashSet<RunId>,
    waivers: Vec<(String, i64, i64)>,
    last: Option<i64>,
}

impl Evidence {
    /// Of records, each client's in the order of its chain: a clock that was set back does not undo what was found later.
    pub fn of(records: &[Record]) -> Self {
        let mut all = Self::default();
        all.judge_packs(records);
        for record in records {
            let at = record.time.seconds;
            all.last = all.last.max(Some(at));
            match &record.fact {
                Fact::Verified(read) => {
                    all.last_read = all.last_read.max(Some(at));
                    for id in &read.proven {
                        all.data.entry(*id).and_modify(|t| *t = (*t).max(at)).or_insert(at);
                        all.reach(*id, Level::Data);
                    }
                }
                Fact::Run(run) => {
                    for copy in &run.copies {
                        let Some(id) = copy.snapshot else { continue };
                        // That data was read is proved by who read it, not by who says so.
                        all.reach(id, copy.level.min(Level::Structure));
                        let kind = if run.findings.is_empty() { &mut all.sound } else { &mut all.suspicious };
                        kind.insert(id);
                    }
                }
                Fact::Drill(drill) if drill.outcome == 0 => {
                    use bulla_repo_format::ledger::DrillKind::{Application, Full, Sample};
                    let level = match drill.kind {
                        Sample | Full => Level::Restored,
                        Application => Level::Application,
                    };
                    all.reach(drill.snapshot, level);
                }
                Fact::Waiver(waiver) => all.waivers.push((waiver.job.clone(), at, waiver.until)),
                Fact::Drill(_) | Fact::Forgotten(_) | Fact::Pruned(_) | Fact::Other(_) => {}
            }
        }
        all
    }

    /// A pack is damaged if the last word of a client about it is that it was bad, and no other found it good later. It was
    /// read when it was last found good.
    fn judge_packs(&mut self, records: &[Record]) {
        let reads = || {
            records.iter().filter_map(|r| match &r.fact {
                Fact::Verified(read) => Some((r, read)),
                _ => None,
            })
        };
        let doubted: HashSet<&PackName> = reads().flat_map(|(_, read)| &read.bad).collect();
        let mut words: HashMap<(&PackName, ClientId), (i64, bool)> = HashMap::new();
        for (record, read) in reads() {
            let at = record.time.seconds;
            for (list, good) in [(&read.good, true), (&read.bad, false)] {
                for pack in list {
                    if doubted.contains(pack) {
                        words.insert((pack, record.client), (at, good));
                    } else {
                        self.packs.entry(*pack).and_modify(|t| *t = (*t).max(at)).or_insert(at);
                    }
                }
            }
        }
        for pack in doubted {
            let said = |good| {
                let of = words.iter().filter(move |((p, _), (_, g))| *p == pack && *g == good);
                of.map(|(_, (at, _))| *at).max()
            };
            match (said(true), said(false)) {
                (good, bad) if good <= bad => _ = self.damaged.insert(*pack),
                (Some(good), _) => _ = self.packs.insert(*pack, good),
                (None, _) => {}
            }
        }
    }

    fn reach(&mut self, id: RunId, level: Level) {
        self.levels.entry(id).and_modify(|l| *l = (*l).max(level)).or_insert(level);
    }

    /// When a pack was last read whole and found good.
    pub fn read_at(&self, pack: &PackName) -> Option<i64> {
        self.packs.get(pack).copied()
    }

    /// When anything was last read.
    pub fn last_read(&self) -> Option<i64> {
        self.last_read
    }

    /// When the newest record was written, by the clock of who wrote it.
    pub fn last(&self) -> Option<i64> {
        self.last
    }

    /// Packs that were bad when they were last read.
    pub fn damaged(&self) -> &HashSet<PackName> {
        &self.damaged
    }

    /// The most that was ever proved of a snapshot.
    pub fn level(&self, id: &RunId) -> Level {
        self.levels.get(id).copied().unwrap_or(Level::Committed)
    }

    /// When all that a snapshot needs was last known to read back.
    pub fn proven_at(&self, id: &RunId) -> Option<i64> {
        self.data.get(id).copied()
    }

    /// True if that counts at this time.
    pub fn is_proven(&self, id: &RunId, now: i64) -> bool {
        self.proven_at(id).is_some_and(|at| at <= now && now - at <= EVIDENCE_DAYS * 24 * 3600)
    }

    /// True if the run that made it is on record, and found nothing wrong with its source. A run that died before it could
    /// say so is none.
    pub fn is_sound(&self, id: &RunId) -> bool {
        self.sound.contains(id) && !self.suspicious.contains(id)
    }

    /// Until when the rules are lifted for a job, if they are.
    pub fn waived(&self, job: &str, now: i64) -> Option<i64> {
        let counts = |(name, from, until): &&(String, i64, i64)| {
            name == job && *from <= now && now < *until && *until - *from <= WAIVER_MAX
        };
        self.waivers.iter().filter(counts).map(|(.., until)| *until).max()
    }
}
