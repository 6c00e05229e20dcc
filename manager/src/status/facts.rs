//! What is on record about jobs, gathered from every repository that can be read. No local state is asked: any machine with
//! the keys sees the same.

use crate::config::{Config, Job};
use crate::world::{Trouble, World};
use bulla_engine::evidence::Evidence;
use bulla_engine::forget::job_of;
use bulla_engine::format::ledger::{Drill, Fact, JobRun, Record};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::format::{ClientId, RunId};
use bulla_engine::repository::Ledger;
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What one destination holds.
#[derive(Debug, Clone)]
pub struct Holding {
    /// Its snapshots, alive and not forgotten.
    pub snapshots: Vec<Snapshot>,
    /// Its ledger.
    pub ledger: Ledger,
    /// What that proves.
    pub evidence: Evidence,
    /// How many packs were bad or missing when they were last looked at, and are needed still.
    pub unrepaired: usize,
    /// Snapshots whose absence is explained: somebody let them go, and signed that.
    pub explained: HashSet<RunId>,
}

/// All that is known.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// By destination; or why nothing is known of it.
    pub holdings: BTreeMap<String, Result<Holding, Trouble>>,
    /// Who looks is not the machine that the jobs are of: its configuration is not the one that they run by.
    pub foreign: bool,
}

impl Facts {
    /// Reads what there is, of the destinations of these jobs.
    pub fn gather(world: &dyn World, config: &Config, jobs: &[String]) -> Self {
        let named = config.jobs.iter().filter(|(name, _)| jobs.contains(name));
        Self::gather_from(world, named.flat_map(|(_, job)| &job.value.to).map(|to| &to.value))
    }

    /// The same of these destinations.
    pub fn gather_from<'n>(world: &dyn World, places: impl Iterator<Item = &'n String>) -> Self {
        let mut holdings = BTreeMap::new();
        for place in places {
            if !holdings.contains_key(place) {
                holdings.insert(place.clone(), hold(world, place));
            }
        }
        Self { holdings, foreign: false }
    }

    /// The hosts that have run a job of this name, as its destinations say.
    pub fn hosts(&self, name: &str, job: &Job) -> Vec<String> {
        let holdings = self.holdings_of(job).filter_map(|(_, holding)| holding);
        let all: BTreeSet<&str> =
            holdings.flat_map(owners).filter(|(_, job)| *job == name).map(|(host, _)| host).collect();
        all.into_iter().map(str::to_owned).collect()
    }

    /// Jobs on record that are not in the configuration: destination, host and job. Nothing can be judged of them, because
    /// nobody says here what was promised.
    pub fn others(&self, config: &Config) -> BTreeSet<(String, String, String)> {
        let mut out = BTreeSet::new();
        for (place, holding) in self.holdings.iter().filter_map(|(place, h)| Some((place, h.as_ref().ok()?)))
        {
            let goes = |job: &str| {
                config.jobs.get(job).is_some_and(|job| job.value.to.iter().any(|to| to.value == *place))
            };
            let unknown = owners(holding).filter(|(_, job)| !goes(job));
            out.extend(unknown.map(|(host, job)| (place.clone(), host.to_owned(), job.to_owned())));
        }
        out
    }

    /// What is known of each destination of a job.
    pub fn holdings_of<'j>(&self, job: &'j Job) -> impl Iterator<Item = (&'j str, Option<&Holding>)> {
        let of = |to: &'j crate::config::At<String>| {
            let holding = self.holdings.get(&to.value).and_then(|h| h.as_ref().ok());
            (to.value.as_str(), holding)
        };
        job.to.iter().map(of)
    }

    /// All that was put on record anywhere by jobs of this name and host, once each, oldest first, with when it ended.
    pub fn runs(&self, job: &str, host: &str) -> Vec<(i64, &JobRun)> {
        let mut runs: BTreeMap<RunId, (i64, &JobRun)> = BTreeMap::new();
        for holding in self.readable() {
            for record in &holding.ledger.records {
                if let Fact::Run(run) = &record.fact
                    && run.job == job
                    && run.host == host
                {
                    runs.entry(run.run).or_insert((record.time.seconds, run));
                }
            }
        }
        let mut runs: Vec<_> = runs.into_values().collect();
        runs.sort_by_key(|(ended, run)| (run.start, *ended));
        runs
    }

    /// The same of drills.
    pub fn drills(&self, job: &str, host: &str) -> Vec<(i64, &Drill)> {
        let mut drills: Vec<(i64, &Drill)> = Vec::new();
        for holding in self.readable() {
            for record in &holding.ledger.records {
                if let Fact::Drill(drill) = &record.fact
                    && drill.job == job
                    && drill.host == host
                    && !drills.iter().any(|(_, known)| *known == drill)
                {
                    drills.push((record.time.seconds, drill));
                }
            }
        }
        drills.sort_by_key(|(ended, drill)| (drill.start, *ended));
        drills
    }

    /// True if what a job goes by is another thing than it was when a drill restored it: what is written of it here, or, of
    /// another host, what its newest run says. The drill may have been one of another machine, with a configuration of its own:
    /// what the run before it says was in force then counts as well.
    pub fn changed_since(&self, (job, host): (&str, &str), drill: &Drill, digest: [u8; 32]) -> bool {
        let runs = self.runs(job, host);
        let before = runs.iter().rfind(|(_, run)| run.start <= drill.start).map(|(_, run)| *run);
        let by = self.client_of(|fact| matches!(fact, Fact::Drill(d) if d == drill));
        let another = |run: &&JobRun| self.client_of(|f| matches!(f, Fact::Run(r) if r.run == run.run)) != by;
        let before = before.filter(another).map(|run| run.config);
        let same = |config: [u8; 32]| config == drill.config || Some(config) == before;
        match (self.foreign, runs.last()) {
            (false, _) => !same(digest),
            (true, newest) => newest.is_some_and(|(_, run)| run.start > drill.start && !same(run.config)),
        }
    }

    /// Who put on record what says something.
    fn client_of(&self, says: impl Fn(&Fact) -> bool) -> Option<ClientId> {
        self.readable().flat_map(|h| &h.ledger.records).find(|r| says(&r.fact)).map(|r| r.client)
    }

    /// The name of the first record that says something: its destination, client and number.
    pub fn cite(&self, says: impl Fn(&Fact) -> bool) -> Option<String> {
        let mut all = self.holdings.iter().filter_map(|(place, h)| Some((place, h.as_ref().ok()?)));
        all.find_map(|(place, holding)| {
            let record = holding.ledger.records.iter().find(|r| says(&r.fact))?;
            Some(name_of(place, record))
        })
    }

    /// The name of a drill's record.
    pub fn cite_drill(&self, drill: &Drill) -> String {
        self.cite(|fact| matches!(fact, Fact::Drill(d) if d == drill)).unwrap_or_default()
    }

    /// The newest record of each of a job's destinations: what they say together is what is known.
    pub fn heads(&self, job: &Job) -> String {
        let head = |to: &crate::config::At<String>| {
            let holding = self.holdings.get(&to.value)?.as_ref().ok()?;
            let newest = holding.ledger.records.iter().max_by_key(|r| (r.time, r.client, r.sequence))?;
            Some(name_of(&to.value, newest))
        };
        let all: Vec<String> = job.to.iter().filter_map(head).collect();
        if all.is_empty() { "no record".to_owned() } else { all.join(", ") }
    }

    fn readable(&self) -> impl Iterator<Item = &Holding> {
        self.holdings.values().filter_map(|h| h.as_ref().ok())
    }
}

/// `disk#0a1b2c3d.17`: the destination, the client that wrote it, its number in that client's chain.
fn name_of(place: &str, record: &Record) -> String {
    format!("{place}#{}.{}", record.client.short(), record.sequence)
}

/// Hosts and jobs of which there is a run on record, or a snapshot.
fn owners(holding: &Holding) -> impl Iterator<Item = (&str, &str)> {
    let ran = holding.ledger.records.iter().filter_map(|record| match &record.fact {
        Fact::Run(run) => Some((run.host.as_str(), run.job.as_str())),
        _ => None,
    });
    ran.chain(holding.snapshots.iter().filter_map(|s| Some((s.host.as_str(), job_of(s)?))))
}

fn hold(world: &dyn World, destination: &str) -> Result<Holding, Trouble> {
    let repository = world.open(destination, false)?;
    let read = || -> bulla_engine::Result<Holding> {
        let ledger = repository.ledger()?;
        let evidence = Evidence::of(&ledger.records);
        let mut explained: HashSet<RunId> = repository.forgotten()?.into_keys().collect();
        for record in &ledger.records {
            if let Fact::Forgotten(forgotten) = &record.fact {
                explained.extend(&forgotten.snapshots);
            }
        }
        let unrepaired = repository.unrepaired(&evidence)?.len();
        Ok(Holding { snapshots: repository.snapshots()?, ledger, evidence, unrepaired, explained })
    };
    read().map_err(|e| world.judge(&e))
}
