//! The recovery procedure of a job, as the seed's template has it: what is needed and how to see that it is there, commands
//! that work as typed on a machine that has never seen the backup, what they give, how to judge that, and the way back. Pure.
//!
//! Kept true: every id and every number is that of a snapshot that is there; every command is one line for a shell, whatever
//! is in a name; no secret is in it, only where one is.

use crate::config::{Config, Destination, Job, JobSource, SecretRef, local};
use crate::status::{Facts, Holding};
use bulla_engine::forget::job_of;
use bulla_engine::format::RunId;
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::escape;
use std::path::Path;

/// Something to do or to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What, in words.
    pub what: String,
    /// What to type; none where that depends on things that are not on record.
    pub command: Option<String>,
    /// What that gives.
    pub expected: String,
}

/// When a procedure became what it is, and when it was last tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// A hash of what is written of the job: the procedure follows from that and from the newest snapshot.
    pub digest: [u8; 32],
    /// When the first run began for which it was so, in seconds; none if none ran since it was changed.
    pub updated: Option<i64>,
    /// When the last drill ended that restored from this destination, went well, and after which it did not change.
    pub tested: Option<i64>,
}

/// A recovery procedure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runbook {
    /// The job.
    pub job: String,
    /// What people call it.
    pub system: String,
    /// Whom to ask.
    pub owner: Option<String>,
    /// The destination that is restored from.
    pub destination: String,
    /// The snapshot.
    pub snapshot: RunId,
    /// When that began, in seconds.
    pub time: i64,
    /// It is whole, accounted for and proven to read back.
    pub proven: bool,
    /// How it stands.
    pub standing: Standing,
    /// How long a restore takes by the last drill, in seconds, and whether that was measured.
    pub rto: Option<(u64, bool)>,
    /// What is needed.
    pub prerequisites: Vec<Item>,
    /// What to do, in this order.
    pub steps: Vec<Item>,
    /// How to see that it is right.
    pub verification: Vec<Item>,
    /// How it gets to where it is needed, once it is right.
    pub placement: Vec<Item>,
    /// The way back.
    pub rollback: Vec<Item>,
    /// The same snapshot in other destinations: name, what stands behind `bulla`, and its id there.
    pub others: Vec<(String, String, RunId)>,
}

/// One word for a shell, whatever is in it.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%:,=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// What is restored where and judged when.
struct Writer<'a> {
    config: &'a Config,
    name: &'a str,
    job: &'a Job,
    facts: &'a Facts,
    host: &'a str,
    target: &'a str,
    now: i64,
}

/// Writes the procedure of a job: from the destination that is named, else from the first one that has the newest proven
/// backup, those that `away` says are not on this machine before others. Nothing if there is no snapshot.
pub fn write(
    (config, name, job): (&Config, &str, &Job),
    facts: &Facts,
    host: &str,
    (from, target): (Option<&str>, &str),
    away: &dyn Fn(&str) -> bool,
    now: i64,
) -> Option<Runbook> {
    let writer = Writer { config, name, job, facts, host, target, now };
    let mut all = writer.held();
    // The newest proven one wherever it is; then what is away; then the order of the configuration.
    all.sort_by_key(|(place, s, good)| std::cmp::Reverse((*good, s.start, away(place))));
    let named = |(place, ..): &&(&str, &Snapshot, bool)| from.is_none_or(|from| from == *place);
    let (place, snapshot, proven) = all.iter().find(named).copied()?;
    let others = all.iter().filter(|(other, s, good)| *other != place && *good && s.start == snapshot.start);
    let others = others.filter_map(|(other, s, _)| Some(((*other).to_owned(), writer.program(other)?, s.id)));
    let status = crate::status::judge(config, name, job, host, facts, now);
    Some(Runbook {
        job: name.to_owned(),
        system: job.system.as_ref().map_or_else(|| name.to_owned(), |at| at.value.clone()),
        owner: job.owner.as_ref().map(|at| at.value.clone()),
        destination: place.to_owned(),
        snapshot: snapshot.id,
        time: snapshot.start.seconds,
        proven,
        standing: writer.standing(place),
        rto: status.rto,
        prerequisites: writer.prerequisites(place, snapshot)?,
        steps: writer.steps(place, snapshot)?,
        verification: writer.verification(place, snapshot)?,
        placement: writer.placement(snapshot),
        rollback: writer.rollback(),
        others: others.collect(),
    })
}

impl<'a> Writer<'a> {
    /// Of each destination the newest snapshot that is proven, else the newest.
    fn held(&self) -> Vec<(&'a str, &'a Snapshot, bool)> {
        let newest = |place: &'a str, holding: &'a Holding| {
            let own =
                holding.snapshots.iter().filter(|s| s.host == self.host && job_of(s) == Some(self.name));
            let judged = own.map(|s| (self.is_good(holding, s), s));
            let (good, s) = judged.max_by_key(|(good, s)| (*good, s.start, s.id))?;
            Some((place, s, good))
        };
        let of = |to: &'a crate::config::At<String>| {
            newest(to.value.as_str(), self.facts.holdings.get(&to.value)?.as_ref().ok()?)
        };
        self.job.to.iter().filter_map(of).collect()
    }

    fn is_good(&self, holding: &Holding, s: &Snapshot) -> bool {
        s.statistics.errors == 0
            && holding.unrepaired == 0
            && holding.evidence.is_sound(&s.id)
            && holding.evidence.is_proven(&s.id, self.now)
    }

    fn destination(&self, place: &str) -> Option<&'a Destination> {
        self.config.destinations.get(place).map(|at| &at.value)
    }

    /// `bulla` with what opens a destination.
    fn program(&self, place: &str) -> Option<String> {
        let destination = self.destination(place)?;
        let (option, file, _) = secret(destination);
        Some(format!("bulla -r {} {option} {}", quoted(&destination.url.value), quoted(&file)))
    }

    fn standing(&self, place: &str) -> Standing {
        let digest = self.config.digest(self.name);
        let runs = self.facts.runs(self.name, self.host);
        let same = runs.iter().rev().take_while(|(_, run)| run.config == digest);
        let updated = same.last().map(|(_, run)| run.start.seconds);
        let drills = self.facts.drills(self.name, self.host);
        let changed = runs.iter().filter(|(_, run)| run.config != digest).map(|(_, run)| run.start);
        let changed = changed.chain(drills.iter().filter(|(_, d)| d.config != digest).map(|(_, d)| d.start));
        let changed = changed.max();
        let good = |(_, d): &&(i64, &bulla_engine::format::ledger::Drill)| {
            d.outcome == 0
                && d.destination == place
                && d.config == digest
                && changed.is_none_or(|c| c < d.start)
        };
        Standing { digest, updated, tested: drills.iter().rfind(good).map(|(at, _)| *at) }
    }

    fn prerequisites(&self, place: &str, s: &Snapshot) -> Option<Vec<Item>> {
        let destination = self.destination(place)?;
        let url = &destination.url.value;
        let (_, file, whence) = secret(destination);
        let item =
            |what: String, command: String, expected: String| Item { what, command: Some(command), expected };
        let above =
            Path::new(self.target).parent().map_or_else(|| "/".to_owned(), |p| p.display().to_string());
        let bytes = s.statistics.total_bytes;
        let program = self.program(place)?;
        let mut out = vec![
            item(
                format!("{bytes} bytes free below {}", escape(above.as_bytes())),
                format!(
                    "test $(df -B1 --output=avail {} | tail -n 1) -ge {bytes} && echo enough",
                    quoted(&above)
                ),
                "enough".to_owned(),
            ),
            item(
                "the program, of this version or newer".to_owned(),
                "bulla version".to_owned(),
                format!("bulla {}", env!("CARGO_PKG_VERSION")),
            ),
            item(
                format!("the key: {whence}"),
                format!("test -s {} && echo there", quoted(&file)),
                "there".to_owned(),
            ),
        ];
        if let Some(what) = credentials(url) {
            out.push(Item { what, command: None, expected: String::new() });
        }
        out.push(item(
            format!("the repository {} within reach, and the key opens it", escape(url.as_bytes())),
            format!("{program} snapshots {}", s.id),
            format!("1 snapshot: {}, host {}, job:{}", s.id.short(), self.host, self.name),
        ));
        Some(out)
    }

    fn steps(&self, place: &str, s: &Snapshot) -> Option<Vec<Item>> {
        let program = self.program(place)?;
        let target = quoted(self.target);
        let statistics = &s.statistics;
        Some(vec![
            Item {
                what: "Be root, so that owners, devices and attributes come back; the target has to be new"
                    .to_owned(),
                command: Some(format!("test ! -e {target} && id -u")),
                expected: "0".to_owned(),
            },
            Item {
                what: "Restore, and read back what was written".to_owned(),
                command: Some(format!("{program} restore {} --target {target} --verify", s.id)),
                expected: format!(
                    "exit code 0; restored {} files ({} bytes), those with several names once, from snapshot {}",
                    crate::run::guard::files(s),
                    statistics.total_bytes,
                    s.id.short()
                ),
            },
        ])
    }

    /// Puts files where they were; what becomes of a command's output only the user knows.
    fn placement(&self, s: &Snapshot) -> Vec<Item> {
        match &self.job.source.value {
            JobSource::Paths { .. } => self.places(s).iter().map(|path| self.put(path)).collect(),
            JobSource::Block { path, .. } => {
                self.places(s).iter().map(|name| self.write(name, &path.value)).collect()
            }
            JobSource::Command { pipeline, name, .. } => {
                let words = |c: &Vec<crate::config::At<String>>| {
                    c.iter().map(|at| quoted(&at.value)).collect::<Vec<_>>().join(" ")
                };
                let made = pipeline.iter().map(words).collect::<Vec<_>>().join(" | ");
                let file = quoted(&format!("{}/{}", self.target, name.value));
                vec![Item {
                    what: format!("Load {file} with the program that reads what this wrote: {made}"),
                    command: None,
                    expected: "that program ends with exit code 0".to_owned(),
                }]
            }
        }
    }

    /// The sources that the snapshot holds, without the slash they begin with.
    fn places(&self, s: &Snapshot) -> Vec<String> {
        let text = |path: &Vec<u8>| String::from_utf8(path.clone()).ok();
        s.paths.iter().filter_map(text).map(|path| path.trim_matches('/').to_owned()).collect()
    }

    /// Writes an image back to a device, which somebody has to look at before.
    fn write(&self, name: &str, device: &str) -> Item {
        let (image, device) = (quoted(&format!("{}/{name}", self.target)), quoted(device));
        Item {
            what: format!(
                "Write {image} to {device}, or to one of the same size, if nothing that is needed is on it: dd if={image} \
                 of={device} bs=4M conv=fsync status=progress"
            ),
            command: None,
            expected: "exit code 0".to_owned(),
        }
    }

    /// Puts a source into its place, what is there aside. What a running system stands on is put there by hand.
    fn put(&self, path: &str) -> Item {
        let (from, to) = (quoted(&format!("{}/{path}", self.target)), quoted(&format!("/{path}")));
        let aside = quoted(&format!("/{path}.before-restore"));
        if !path.contains('/') {
            return Item {
                what: format!(
                    "Copy what is needed from {from} to {to}: a running system may stand on what is there"
                ),
                command: None,
                expected: String::new(),
            };
        }
        let above = quoted(&format!("/{}", path.rsplit_once('/').map_or("", |(above, _)| above)));
        Item {
            what: format!("Put it where it was, and what is there aside, as {aside}"),
            command: Some(format!(
                "mkdir -p {above} && if test -e {to}; then mv -T {to} {aside}; fi && mv -T {from} {to}"
            )),
            expected: "exit code 0".to_owned(),
        }
    }

    fn verification(&self, place: &str, s: &Snapshot) -> Option<Vec<Item>> {
        let target = quoted(self.target);
        let mut out = vec![
            Item {
                what: "Every file is as in the snapshot, by the identity of its content: no line names one"
                    .to_owned(),
                command: Some(format!(
                    "{} restore {} --target {target} --dry-run | grep -v -e '^update ' -e '^link '",
                    self.program(place)?,
                    s.id
                )),
                expected: "dry run: nothing was written, 0 B would be fetched from 0 packs in 0 requests"
                    .to_owned(),
            },
            Item {
                what: "All files are there".to_owned(),
                command: Some(format!("find {target} -type f | wc -l")),
                expected: crate::run::guard::files(s).to_string(),
            },
        ];
        if let Some(words) = &self.job.drill.command {
            let words: Vec<String> = words.iter().map(|at| quoted(&at.value)).collect();
            let numbers: Vec<String> = self
                .job
                .drill
                .expect
                .iter()
                .map(|(name, e)| format!("{} {}", escape(name.as_bytes()), e.value))
                .collect();
            let numbers =
                if numbers.is_empty() { String::new() } else { format!("; {}", numbers.join(", ")) };
            out.push(Item {
                what: "The application can work with it".to_owned(),
                command: Some(format!(
                    "(cd {target} && BULLA_DRILL_DIR={target} BULLA_JOB={} BULLA_SNAPSHOT={} {})",
                    quoted(self.name),
                    s.id,
                    words.join(" ")
                )),
                expected: format!("exit code 0{numbers}"),
            });
        }
        Some(out)
    }

    fn rollback(&self) -> Vec<Item> {
        let target = quoted(self.target);
        let mut out = Vec::new();
        if let JobSource::Paths { paths, .. } = &self.job.source.value {
            for path in paths.iter().map(|at| at.value.trim_matches('/')).filter(|p| p.contains('/')) {
                let (to, aside) = (quoted(&format!("/{path}")), quoted(&format!("/{path}.before-restore")));
                out.push(Item {
                    what: format!("Put back what was in the place of {to}"),
                    command: Some(format!("if test -e {aside}; then rm -rf {to} && mv -T {aside} {to}; fi")),
                    expected: "exit code 0".to_owned(),
                });
            }
        }
        out.push(Item {
            what: "Remove what was restored; the repository was only read".to_owned(),
            command: Some(format!("rm -rf {target}")),
            expected: "exit code 0".to_owned(),
        });
        out
    }
}

/// The option that names a secret, the file it is to be in, and whence it comes.
fn secret(destination: &Destination) -> (&'static str, String, String) {
    let is_key = destination.key.is_some();
    let place = destination.key.as_ref().or(destination.password.as_ref()).map(|at| &at.value);
    let (option, what, file) = match is_key {
        true => ("--key-file", "key file", "bulla.key"),
        false => ("--password-file", "password", "bulla.password"),
    };
    let instead = if is_key { ", or the recovery key in its place" } else { "" };
    match place {
        Some(SecretRef::File(path)) => {
            let path = path.display().to_string();
            let whence =
                format!("a copy of the {what} that was in {}, there again{instead}", escape(path.as_bytes()));
            (option, path, whence)
        }
        Some(SecretRef::Systemd(name)) => {
            let name = escape(name.as_bytes());
            (
                option,
                file.to_owned(),
                format!("the {what} that was systemd's credential {name}, as ./{file}{instead}"),
            )
        }
        Some(SecretRef::Fd(n)) => {
            let whence = format!("the {what} that came over descriptor {n}, as ./{file}{instead}");
            (option, file.to_owned(), whence)
        }
        Some(SecretRef::Command(words)) => {
            let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
            let whence = format!("the {what} that this prints, as ./{file}{instead}: {}", words.join(" "));
            (option, file.to_owned(), whence)
        }
        None => (option, file.to_owned(), format!("a {what}, as ./{file}")),
    }
}

/// What a store asks for besides.
fn credentials(url: &str) -> Option<String> {
    if local(url).is_some() {
        return Some("the disk that holds the repository, mounted where it was".to_owned());
    }
    let what = match url.split_once(':')?.0 {
        "s3" => "the store's credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials",
        "sftp" => "an ssh key that the host takes, and the host in known_hosts",
        "rest" => "the server's user and password in the URL, if it wants them",
        "rclone" => "rclone, and the remote in its configuration",
        _ => return None,
    };
    Some(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        assert_eq!(quoted("/srv/a-b_1"), "/srv/a-b_1");
        assert_eq!(quoted("/srv/it's $HOME"), r"'/srv/it'\''s $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
