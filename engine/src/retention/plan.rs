//! The plan: what is kept and why, what goes, and what is refused.

use super::policy::Rule;
use super::rank::{Ranked, rank};
use super::{GroupKey, Policy, Reason};
use crate::error::Error;
use bulla_repo_format::snapshot::Snapshot;
use bulla_repo_format::tree::Timestamp;
use bulla_repo_format::{ClientId, RunId};
use jiff::tz::TimeZone;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What retention has to know of a snapshot.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// Its id.
    pub id: RunId,
    /// When the client says that it began.
    pub time: Timestamp,
    /// When the store received it, by the store's clock, in seconds since 1970; `None` if the store does not say.
    pub received: Option<i64>,
    /// Who signed it.
    pub client: ClientId,
    /// Its number in the client's lineage.
    pub seq: u64,
    /// The snapshots it follows.
    pub prev: Vec<RunId>,
    /// The host it claims to be of.
    pub host: String,
    /// Its paths.
    pub paths: Vec<Vec<u8>>,
    /// Its tags.
    pub tags: Vec<String>,
}

impl Candidate {
    /// A snapshot, with the time at which the store received its verdict.
    pub fn new(s: &Snapshot, received: Option<i64>) -> Self {
        Self {
            id: s.id,
            time: s.start,
            received,
            client: s.client,
            seq: s.seq,
            prev: s.prev.iter().map(|head| head.id).collect(),
            host: s.host.clone(),
            paths: s.paths.clone(),
            tags: s.tags.clone(),
        }
    }

    fn has_tags(&self, set: &[String]) -> bool {
        set.iter().all(|tag| self.tags.contains(tag))
    }
}

/// A snapshot that stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Which.
    pub id: RunId,
    /// All reasons, at least one.
    pub reasons: Vec<Reason>,
}

/// What becomes of a group. Both lists are in the order of the clients' dates, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupPlan {
    /// The group.
    pub key: GroupKey,
    /// What stays.
    pub keep: Vec<Kept>,
    /// What goes.
    pub remove: Vec<RunId>,
    /// How many lineages were ranked apart.
    pub lineages: usize,
}

/// What becomes of all snapshots: each is in exactly one list of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The groups, in the order of their names.
    pub groups: Vec<GroupPlan>,
    /// Lineages that the storage times contradict, one example each. Rules about times keep all of them, unless
    /// [`Policy::trust_client_times`]: the caller should say so.
    pub contradictions: Vec<Contradiction>,
}

/// A lineage whose order the storage times contradict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    /// Whose lineage.
    pub client: ClientId,
    /// A snapshot,
    pub predecessor: RunId,
    /// and one that names it as its predecessor,
    pub successor: RunId,
    /// which the store claims to have received this many seconds before it.
    pub seconds: u64,
}

impl fmt::Display for Contradiction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "snapshot {} follows {}, but the storage says that it arrived {} minutes before it: the times of \
             this repository are not those of its backups (was it copied file by file?)",
            self.successor.short(),
            self.predecessor.short(),
            self.seconds / 60
        )
    }
}

/// Why there is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No rule keeps anything.
    #[error("the policy is empty: no rule says what to keep")]
    EmptyPolicy,
    /// The rules keep nothing of a group; what is held or in the future does not count.
    #[error("the policy would keep none of the {snapshots} snapshots of the group: {group}")]
    RemovesAll {
        /// The group.
        group: GroupKey,
        /// How many would go.
        snapshots: usize,
    },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal.to_string())
    }
}

/// How much later a predecessor may seem to have arrived: clocks of stores are set now and then.
const CLOCK_SLACK: u64 = 3600;

/// What `policy` keeps of `snapshots`, those in `held` in any case. Slots are those of the calendar in `zone`.
pub fn plan(
    snapshots: &[Candidate],
    held: &HashSet<RunId>,
    policy: &Policy,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<Plan, Refusal> {
    if policy.is_empty() {
        return Err(Refusal::EmptyPolicy);
    }
    let contradictions = contradictions(snapshots);
    let rules = policy.rules();
    let doubted = match policy.trust_client_times || rules.is_empty() {
        true => HashSet::new(),
        false => contradictions.iter().map(|c| c.client).collect(),
    };
    let mut groups: BTreeMap<GroupKey, Vec<(usize, &Candidate)>> = BTreeMap::new();
    for (index, s) in snapshots.iter().enumerate() {
        let key = GroupKey::new(policy.group_by, &s.host, &s.paths, &s.tags);
        groups.entry(key).or_default().push((index, s));
    }
    let planner = Planner { held, doubted, policy, rules, now: instant(now), zone };
    let groups: Result<Vec<_>, _> = groups.into_iter().map(|(key, list)| planner.group(key, list)).collect();
    Ok(Plan { groups: groups?, contradictions })
}

struct Planner<'a> {
    held: &'a HashSet<RunId>,
    doubted: HashSet<ClientId>,
    policy: &'a Policy,
    rules: Vec<Rule>,
    now: jiff::Timestamp,
    zone: &'a TimeZone,
}

impl Planner<'_> {
    fn group(&self, key: GroupKey, mut list: Vec<(usize, &Candidate)>) -> Result<GroupPlan, Refusal> {
        let mut reasons: HashMap<usize, Vec<Reason>> = HashMap::new();
        let mut lineages: BTreeMap<Option<ClientId>, Vec<Ranked>> = BTreeMap::new();
        // Held and future ones may be all that is left, and are no proof that the policy is meant.
        let mut extraordinary = HashSet::new();
        for (index, s) in &list {
            let ranked = self.ranked(*index, s);
            let mut why: Vec<Reason> = self.special(s, &ranked).into_iter().collect();
            if why.iter().any(|reason| matches!(reason, Reason::Held | Reason::Future)) {
                extraordinary.insert(*index);
            }
            let lineage = lineages.entry((!self.policy.trust_client_times).then_some(s.client)).or_default();
            if why.is_empty() {
                lineage.push(ranked);
            }
            let tags = self.policy.keep_tags.iter().filter(|set| s.has_tags(set));
            why.extend(tags.map(|set| Reason::Tags(set.clone())));
            reasons.insert(*index, why);
        }
        let arrivals_count = !self.policy.trust_client_times;
        for (index, reason) in lineages.values().flat_map(|list| rank(list, &self.rules, arrivals_count)) {
            let why = reasons.entry(index).or_default();
            if !why.iter().any(|known| known.says(&reason)) {
                why.push(reason);
            }
        }
        list.sort_by_key(|(index, s)| (s.time, s.id, *index));
        let mut plan = GroupPlan { key, keep: Vec::new(), remove: Vec::new(), lineages: lineages.len() };
        let mut kept_by_rule = false;
        for (index, s) in list {
            let reasons = reasons.remove(&index).unwrap_or_default();
            if reasons.is_empty() {
                plan.remove.push(s.id);
            } else {
                kept_by_rule |= !extraordinary.contains(&index);
                plan.keep.push(Kept { id: s.id, reasons });
            }
        }
        if !plan.remove.is_empty() && !kept_by_rule && !self.policy.allow_remove_all {
            return Err(Refusal::RemovesAll { group: plan.key, snapshots: plan.remove.len() });
        }
        Ok(plan)
    }

    fn ranked(&self, index: usize, s: &Candidate) -> Ranked {
        let zoned = |t: jiff::Timestamp| t.to_zoned(self.zone.clone());
        let claimed = instant(s.time);
        let received = s.received.filter(|_| !self.policy.trust_client_times);
        let arrived = received.map_or(claimed, |seconds| instant(Timestamp { seconds, nanos: 0 }));
        Ranked { index, claimed: zoned(claimed), arrived: zoned(arrived), seq: s.seq, id: s.id }
    }

    /// Why a snapshot is kept whatever the rules say, and not ranked.
    fn special(&self, s: &Candidate, ranked: &Ranked) -> Option<Reason> {
        if self.held.contains(&s.id) {
            return Some(Reason::Held);
        }
        if ranked.claimed.timestamp() > self.now || ranked.arrived.timestamp() > self.now {
            return Some(Reason::Future);
        }
        self.doubted.contains(&s.client).then_some(Reason::Contradiction)
    }
}

/// One example of each lineage that has any.
fn contradictions(snapshots: &[Candidate]) -> Vec<Contradiction> {
    let known: HashMap<RunId, &Candidate> = snapshots.iter().map(|s| (s.id, s)).collect();
    let mut found: BTreeMap<ClientId, Contradiction> = BTreeMap::new();
    for s in snapshots {
        for p in s.prev.iter().filter_map(|id| known.get(id)) {
            let (Some(before), Some(after)) = (p.received, s.received) else { continue };
            let seconds = before.abs_diff(after);
            if p.client == s.client && before > after && seconds > CLOCK_SLACK {
                let found = found.entry(s.client);
                found.or_insert(Contradiction {
                    client: s.client,
                    predecessor: p.id,
                    successor: s.id,
                    seconds,
                });
            }
        }
    }
    found.into_values().collect()
}

/// A time of the format as a point of the calendar; one beyond the calendar is its nearest end.
fn instant(t: Timestamp) -> jiff::Timestamp {
    let end = if t.seconds < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
    jiff::Timestamp::new(t.seconds, i32::try_from(t.nanos).unwrap_or(0)).unwrap_or(end)
}
