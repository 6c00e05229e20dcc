//! What records prove, pure: when packs were last read, which snapshots are proven how far, what is held against them.
//!
//! Kept true: a record that was lost only ever proves less. A time in the future proves nothing.

use bulla_repo_format::ledger::{Drill, DrillKind, Fact, JobRun, Level, Lock, Record, Refused};
use bulla_repo_format::{ClientId, PackName, RunId};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many days evidence of read data counts: as long as a pack may go unread.
pub const EVIDENCE_DAYS: i64 = 35;

/// The longest time for which a rule can be lifted, in seconds.
pub const WAIVER_MAX: i64 = 30 * 24 * 3600;

/// A job of a host.
type Whose = (String, String);

/// A rule that is lifted.
#[derive(Debug, Clone)]
struct Lifted {
    whose: Whose,
    from: i64,
    until: i64,
    reason: String,
}

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
    /// Snapshots of which a restore was tried last and failed.
    unrestored: HashSet<RunId>,
    waivers: Vec<Lifted>,
    /// The last word of a client about a job: when, and whether its source looks wrong.
    held: HashMap<(Whose, ClientId), (i64, bool)>,
    /// When runs began that made a backup with which nothing looks wrong.
    done: HashMap<Whose, Vec<i64>>,
    locks: HashMap<Whose, Vec<Lock>>,
    refused: HashMap<Whose, Refused>,
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
                Fact::Run(run) => all.take_run(run, at, record.client),
                Fact::Drill(drill) => all.take_drill(drill),
                Fact::Waiver(waiver) => all.waivers.push(Lifted {
                    whose: (waiver.host.clone(), waiver.job.clone()),
                    from: at,
                    until: waiver.until,
                    reason: waiver.reason.clone(),
                }),
                Fact::Refused(refused) => {
                    let whose = (refused.host.clone(), refused.job.clone());
                    all.refused.insert(whose, refused.clone());
                }
                Fact::Lock(lock) => {
                    all.locks.entry((lock.host.clone(), lock.job.clone())).or_default().push(lock.clone());
                }
                Fact::Forgotten(_) | Fact::Pruned(_) | Fact::Other(_) => {}
            }
        }
        all
    }

    /// What could not be restored proves nothing, however well its packs read back, until it was restored after all. That a
    /// restore is slow or broke off for want of a store or of room, or the source holds something else now, says nothing of
    /// the snapshot; nor does a key that does not fit.
    fn take_drill(&mut self, drill: &Drill) {
        if drill.outcome == 0 {
            let level = match drill.kind {
                DrillKind::Sample | DrillKind::Full => Level::Restored,
                DrillKind::Application => Level::Application,
            };
            self.reach(drill.snapshot, level);
        }
        // One that broke off before it compared anything mends nothing either.
        let restored = drill.outcome == 0 || drill.files > 0;
        if drill.key.is_none() && !drill.wrong.is_empty() {
            self.unrestored.insert(drill.snapshot);
        } else if drill.key.is_none() && restored {
            self.unrestored.remove(&drill.snapshot);
        }
    }

    fn take_run(&mut self, run: &JobRun, at: i64, client: ClientId) {
        for copy in &run.copies {
            let Some(id) = copy.snapshot else { continue };
            // That data was read is proved by who read it, not by who says so.
            self.reach(id, copy.level.min(Level::Structure));
            let kind = if run.findings.is_empty() { &mut self.sound } else { &mut self.suspicious };
            kind.insert(id);
        }
        let whose = (run.host.clone(), run.job.clone());
        // One that made nothing has seen nothing.
        if run.copies.iter().all(|copy| copy.snapshot.is_none()) {
            return;
        }
        if run.findings.is_empty() {
            self.done.entry(whose.clone()).or_default().push(run.start.seconds);
        }
        self.held.insert((whose, client), (at, !run.findings.is_empty()));
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
        let counts = |at: i64| at <= now && now.saturating_sub(at) <= EVIDENCE_DAYS * 24 * 3600;
        self.proven_at(id).is_some_and(counts)
    }

    /// True if the run that made it is on record and found nothing wrong with its source, and no restore of it has failed
    /// since. A run that died before it could say so is none.
    pub fn is_sound(&self, id: &RunId) -> bool {
        self.sound.contains(id) && !self.suspicious.contains(id) && !self.unrestored.contains(id)
    }

    /// True if the newest backup of a job looks wrong: until somebody has looked, nothing older goes.
    pub fn is_held(&self, host: &str, job: &str) -> bool {
        let words =
            || self.held.iter().filter(|(((h, j), _), _)| h == host && j == job).map(|(_, word)| *word);
        let last = |wrong| words().filter(|(_, held)| *held == wrong).map(|(at, _)| at).max();
        // Of two clients, such as a container and the one that took its place, the later one has the last word.
        last(true).is_some_and(|wrong| last(false).is_none_or(|right| right <= wrong))
    }

    /// Until when the rules are lifted for a job of a host, and why, if they are.
    pub fn waived(&self, host: &str, job: &str, now: i64) -> Option<(i64, &str)> {
        let counts = |l: &&Lifted| {
            let (from, until) = (l.from, l.until);
            l.whose == (host.to_owned(), job.to_owned())
                && from <= now
                && now < until
                && until.saturating_sub(from) <= WAIVER_MAX
        };
        self.waivers.iter().filter(counts).map(|l| (l.until, l.reason.as_str())).max()
    }

    /// What should have gone and did not, if that was after this run.
    pub fn refused(&self, run: &JobRun) -> Option<&Refused> {
        self.refused.get(&(run.host.clone(), run.job.clone())).filter(|refused| refused.run == run.run)
    }

    /// What was promised about a job.
    pub fn locks(&self, host: &str, job: &str) -> &[Lock] {
        self.locks.get(&(host.to_owned(), job.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// The backup, by when it began, that a lock asks for and that has a stand-in among those there are and none among those
    /// that stay. What is gone for other reasons is not asked for.
    pub fn unlocked(
        &self,
        lock: &Lock,
        now: i64,
        (had, stay): (&BTreeSet<i64>, &BTreeSet<i64>),
    ) -> Option<i64> {
        let young = |start: i64| {
            start >= lock.since && start <= now && now.saturating_sub(start).unsigned_abs() < lock.min
        };
        let stands = |of: &BTreeSet<i64>, start: i64| {
            of.range(start..).next().is_some_and(|s| s.saturating_sub(start).unsigned_abs() <= lock.unit)
        };
        let lacks = |start: i64| stands(had, start) && !stands(stay, start);
        let done = self.done.get(&(lock.host.clone(), lock.job.clone()));
        done.into_iter().flatten().copied().filter(|start| young(*start) && lacks(*start)).min()
    }
}
