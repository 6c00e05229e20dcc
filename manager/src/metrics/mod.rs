//! How jobs stand, as text for Prometheus, and rules that alert on it. Pure, but for [`write()`].
//!
//! Kept true: what is not known has no sample; times are times and no ages, wherever an alert needs them, so that it fires
//! also when nobody writes the file any more. The label is `backup_job`, since `job` is what Prometheus calls its targets.

use crate::config::Config;
use crate::notify::outbox::Line;
use crate::status::{Facts, JobStatus, drill_days};
use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Rules for Prometheus; promtool finds them sound.
pub const ALERTS: &str = include_str!("alerts.yml");

const DAY: i64 = 24 * 3600;

/// What the samples are made of.
#[derive(Debug, Clone, Copy)]
pub struct Measured<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// What is on record.
    pub facts: &'a Facts,
    /// How jobs stand.
    pub jobs: &'a [JobStatus],
    /// How channels do.
    pub channels: &'a [Line],
    /// The host that is backed up.
    pub host: &'a str,
    /// Now, in seconds.
    pub now: i64,
}

struct Text<'a> {
    out: String,
    host: &'a str,
}

impl Text<'_> {
    /// A family with its samples, each with one label besides the host; none without samples. All are gauges: what is on
    /// record may also become less.
    fn gauge(&mut self, name: &str, help: &str, label: &str, samples: Vec<(String, i64)>) {
        if samples.is_empty() {
            return;
        }
        self.out.push_str(&format!("# HELP bulla_{name} {help}\n# TYPE bulla_{name} gauge\n"));
        let host = escaped(self.host);
        for (value_of, value) in samples {
            let label =
                if label.is_empty() { String::new() } else { format!("{label}=\"{}\",", escaped(&value_of)) };
            self.out.push_str(&format!("bulla_{name}{{{label}host=\"{host}\"}} {value}\n"));
        }
    }
}

/// As the text format wants it: no line ends where one is in a name.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The whole file.
pub fn text(measured: &Measured<'_>) -> String {
    let mut text = Text { out: String::new(), host: measured.host };
    jobs(&mut text, measured);
    runs(&mut text, measured);
    destinations(&mut text, measured);
    let of = |value: fn(&Line) -> Option<i64>| -> Vec<(String, i64)> {
        measured.channels.iter().filter_map(|line| Some((line.channel.clone(), value(line)?))).collect()
    };
    let count = |n: u64| i64::try_from(n).ok();
    let waiting: Vec<(String, i64)> =
        measured.channels.iter().filter_map(|l| Some((l.channel.clone(), count(l.waiting)?))).collect();
    text.gauge("notify_waiting_messages", "Messages that wait for a channel.", "channel", waiting);
    let since = of(|line| line.since);
    text.gauge(
        "notify_undelivered_timestamp_seconds",
        "Since when the oldest of them waits.",
        "channel",
        since,
    );
    let delivered = of(|line| line.delivered);
    text.gauge(
        "notify_last_delivery_timestamp_seconds",
        "When a channel took a message last.",
        "channel",
        delivered,
    );
    let dropped = of(|line| i64::try_from(line.dropped).ok());
    text.gauge("notify_dropped_messages", "Messages that were too many to keep.", "channel", dropped);
    text.gauge(
        "metrics_timestamp_seconds",
        "When these metrics were written.",
        "",
        vec![(String::new(), measured.now)],
    );
    text.out
}

/// What a sample says of a job, if it is known.
type Value<'v> = &'v dyn Fn(&JobStatus) -> Option<i64>;

/// What is judged of jobs.
fn jobs(text: &mut Text<'_>, measured: &Measured<'_>) {
    let of = |value: Value<'_>| -> Vec<(String, i64)> {
        measured.jobs.iter().filter_map(|s| Some((s.job.clone(), value(s)?))).collect()
    };
    let seconds = |n: u64| i64::try_from(n).ok();
    let valid = |s: &JobStatus| Some(drill_days(measured.config.jobs.get(&s.job)?.value.class) * DAY);
    let hold = |s: &JobStatus| Some(i64::from(s.findings.iter().any(|f| f.rule == "anomaly")));
    let measured_rto =
        |measured: bool| move |s: &JobStatus| s.rto.filter(|r| r.1 == measured).and_then(|r| seconds(r.0));
    let families: [(&str, &str, Value<'_>); 15] = [
        ("job_state_code", "How a job stands: the exit code of bulla status for it.", &|s| {
            Some(s.outcome().code().into())
        }),
        ("job_last_success_timestamp_seconds", "When the newest run that went well ended.", &|s| s.last_ok),
        ("job_next_due_timestamp_seconds", "When the next run is due.", &|s| s.next_due),
        ("job_missed", "Runs that were due and did not happen.", &|s| seconds(s.missed)),
        ("job_proven_timestamp_seconds", "When the newest backup began that is proven to read back.", &|s| {
            s.proven
        }),
        ("rpo_actual_seconds", "How much work would be lost now.", &|s| s.rpo),
        ("rpo_objective_seconds", "How much work may be lost.", &|s| s.rpo_objective),
        ("rto_actual_seconds", "How long a restore takes, measured.", &measured_rto(true)),
        (
            "rto_extrapolated_seconds",
            "How long a restore takes, reckoned from a sample.",
            &measured_rto(false),
        ),
        ("rto_objective_seconds", "How long a restore may take.", &|s| s.rto_objective),
        ("verification_level", "How far the newest backup is proven, from 0 to 4.", &|s| {
            Some(s.level as i64)
        }),
        ("drill_last_success_timestamp_seconds", "When a restore was tried last and went well.", &|s| {
            s.drill
        }),
        ("drill_valid_seconds", "How long that counts.", &valid),
        ("hold_active", "1 if something looks wrong and nothing is let go.", &hold),
        ("waiver_until_timestamp_seconds", "Until when the rules about letting go are lifted.", &|s| {
            s.waived.as_ref().map(|(until, _)| *until)
        }),
    ];
    for (name, help, value) in families {
        text.gauge(name, help, "backup_job", of(value));
    }
    let copies = of(&|s| i64::try_from(s.copies).ok());
    text.gauge("copies", "Destinations that have the newest backup, proven.", "backup_job", copies);
}

/// What the last run of each job did.
fn runs(text: &mut Text<'_>, measured: &Measured<'_>) {
    let mut of: [Vec<(String, i64)>; 5] = Default::default();
    for status in measured.jobs {
        let runs = measured.facts.runs(&status.job, measured.host);
        let Some((ended, run)) = runs.last() else { continue };
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let duration = ended.saturating_sub(run.start.seconds);
        let values = [number(run.outcome), *ended, duration, number(run.bytes), number(run.files)];
        for (samples, value) in of.iter_mut().zip(values) {
            samples.push((status.job.clone(), value));
        }
    }
    let [exit, ended, duration, bytes, files] = of;
    text.gauge("job_last_exit_code", "How the last run ended.", "backup_job", exit);
    text.gauge("job_last_run_timestamp_seconds", "When the last run ended.", "backup_job", ended);
    text.gauge("run_duration_seconds", "How long the last run took.", "backup_job", duration);
    text.gauge("snapshot_source_bytes", "What the source held in the last run.", "backup_job", bytes);
    text.gauge("snapshot_files", "Files in the last run.", "backup_job", files);
}

/// What can be seen of destinations.
fn destinations(text: &mut Text<'_>, measured: &Measured<'_>) {
    let used: BTreeSet<&String> = measured.facts.holdings.keys().collect();
    let holdings = || used.iter().filter_map(|name| Some((*name, measured.facts.holdings.get(*name)?)));
    let readable = holdings().map(|(name, h)| (name.clone(), i64::from(h.is_ok()))).collect();
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let seen = || holdings().filter_map(|(name, h)| Some((name.clone(), h.as_ref().ok()?)));
    let whole = seen().map(|(name, h)| (name, i64::from(h.ledger.flaws.is_empty()))).collect();
    let records = seen().map(|(name, h)| (name, number(h.ledger.records.len()))).collect();
    let damaged = seen().map(|(name, h)| (name, number(h.unrepaired))).collect();
    text.gauge("destination_readable", "1 if a destination can be read.", "dest", readable);
    text.gauge("ledger_chain_ok", "1 if all records can be believed and none is missing.", "dest", whole);
    text.gauge("ledger_records", "Records in the ledger.", "dest", records);
    text.gauge(
        "damaged_packs",
        "Packs that were bad or missing when they were looked at last, and are needed still.",
        "dest",
        damaged,
    );
}

/// Puts a text where Prometheus' node exporter looks for it: there whole or not at all, readable by all.
///
/// # Errors
/// It cannot be written there.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".bulla-").suffix(".new").tempfile_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.as_file().set_permissions(PermissionsExt::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map(drop).map_err(|e| e.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_no_line() {
        let mut text = Text { out: String::new(), host: "a\"b" };
        text.gauge("x", "h", "backup_job", vec![("c\\d\n".to_owned(), 7)]);
        text.gauge("y", "h", "backup_job", Vec::new());
        let lines =
            "# HELP bulla_x h\n# TYPE bulla_x gauge\nbulla_x{backup_job=\"c\\\\d\\n\",host=\"a\\\"b\"} 7\n";
        assert_eq!(text.out, lines);
    }
}
