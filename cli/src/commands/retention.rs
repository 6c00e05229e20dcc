//! The arguments of retention, for `forget` and whatever else asks what to keep. The rules are the engine's
//! ([`bulla_engine::retention`]).

use super::comma_list;
use crate::exit::{Failure, Outcome};
use bulla_engine::retention::{GroupBy, Keep, Period, Policy};
use clap::Args;
use jiff::tz::TimeZone;

/// What to keep, in which groups. A command that flattens this beside [`super::FilterArgs`] has to take the short
/// `-H` from `--host`, since restic's `forget -H` is `--keep-hourly`: `#[command(mut_arg("host", |a| a.short(None)))]`.
#[derive(Debug, Args)]
#[command(next_help_heading = "What to keep (any rule that applies)")]
pub(crate) struct RetentionArgs {
    /// Keep the newest N, and the newest of each of the last N days on which any arrived. N may be unlimited, or a
    /// DURATION like 12m (months), here and below: all of that time, and one from before it to cover it whole
    #[arg(short = 'l', long, value_name = "N")]
    keep_last: Option<Keep>,
    /// Keep the newest of each of the last N hours that have one
    #[arg(short = 'H', long, value_name = "N")]
    keep_hourly: Option<Keep>,
    /// Keep the newest of each of the last N days that have one
    #[arg(short = 'd', long, value_name = "N")]
    keep_daily: Option<Keep>,
    /// Keep the newest of each of the last N weeks that have one
    #[arg(short = 'w', long, value_name = "N")]
    keep_weekly: Option<Keep>,
    /// Keep the newest of each of the last N months that have one
    #[arg(short = 'm', long, value_name = "N")]
    keep_monthly: Option<Keep>,
    /// Keep the newest of each of the last N years that have one
    #[arg(short = 'y', long, value_name = "N")]
    keep_yearly: Option<Keep>,
    /// Keep all that are less than this older than the newest, like 1y5m7d2h
    #[arg(long, value_name = "DURATION")]
    keep_within: Option<Period>,
    /// Of those less than this older than the newest, keep one of each hour
    #[arg(long, value_name = "DURATION")]
    keep_within_hourly: Option<Period>,
    /// … one of each day
    #[arg(long, value_name = "DURATION")]
    keep_within_daily: Option<Period>,
    /// … one of each week
    #[arg(long, value_name = "DURATION")]
    keep_within_weekly: Option<Period>,
    /// … one of each month
    #[arg(long, value_name = "DURATION")]
    keep_within_monthly: Option<Period>,
    /// … one of each year
    #[arg(long, value_name = "DURATION")]
    keep_within_yearly: Option<Period>,
    /// Keep all that have every tag of this comma list (several: any of the lists)
    #[arg(long, value_name = "TAG[,TAG…]", value_parser = tags_of)]
    keep_tag: Vec<TagSet>,
    /// Apply the rules to each group of the same host, paths, tags: a comma list of them
    #[arg(short, long, value_name = "KEYS", default_value = "host,paths")]
    group_by: GroupBy,
    /// Whose hours and days, like Europe/Berlin [default: this machine's]
    #[arg(long, value_name = "ZONE", value_parser = zone_of)]
    timezone: Option<TimeZone>,
    /// Allow that the rules keep nothing of a group
    #[arg(long)]
    unsafe_allow_remove_all: bool,
    /// Rank by the dates that clients claim, though the storage contradicts them (a repository that was copied file
    /// by file); whoever may write can then crowd out the snapshots of others
    #[arg(long)]
    unsafe_trust_client_times: bool,
}

/// The tags of one `--keep-tag`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TagSet(Vec<String>);

/// An empty list would be on every snapshot, and is more likely an unset variable.
fn tags_of(text: &str) -> Result<TagSet, String> {
    let tags = comma_list(text);
    if tags.is_empty() {
        return Err("there is no tag in it".to_owned());
    }
    Ok(TagSet(tags))
}

fn zone_of(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text)
        .map_err(|_| format!("no time zone is named {text:?}; say UTC, or one like Europe/Berlin"))
}

impl RetentionArgs {
    /// For the engine. An empty policy is a mistake in the command line.
    pub(crate) fn policy(&self) -> Outcome<Policy> {
        let policy = self.over(Policy::default());
        if policy.is_empty() {
            return Err(Failure::Usage(
                "nothing says what to keep: give at least one --keep-… rule, as in --keep-daily 7 --keep-monthly 12m"
                    .to_owned(),
            ));
        }
        Ok(policy)
    }

    /// Another policy with the rules that were given in place of its own.
    pub(crate) fn over(&self, base: Policy) -> Policy {
        let mut keep_tags = base.keep_tags;
        keep_tags.extend(self.keep_tag.iter().map(|set| set.0.clone()));
        Policy {
            keep_last: self.keep_last.or(base.keep_last),
            keep_hourly: self.keep_hourly.or(base.keep_hourly),
            keep_daily: self.keep_daily.or(base.keep_daily),
            keep_weekly: self.keep_weekly.or(base.keep_weekly),
            keep_monthly: self.keep_monthly.or(base.keep_monthly),
            keep_yearly: self.keep_yearly.or(base.keep_yearly),
            keep_within: self.keep_within.or(base.keep_within),
            keep_within_hourly: self.keep_within_hourly.or(base.keep_within_hourly),
            keep_within_daily: self.keep_within_daily.or(base.keep_within_daily),
            keep_within_weekly: self.keep_within_weekly.or(base.keep_within_weekly),
            keep_within_monthly: self.keep_within_monthly.or(base.keep_within_monthly),
            keep_within_yearly: self.keep_within_yearly.or(base.keep_within_yearly),
            keep_tags,
            group_by: self.group_by,
            allow_remove_all: self.unsafe_allow_remove_all,
            trust_client_times: self.unsafe_trust_client_times,
        }
    }

    /// True if any rule is given: then the policy is meant, and not only snapshots that are named.
    pub(crate) fn is_given(&self) -> bool {
        self.policy().is_ok()
    }

    /// The time zone whose hours, days and so on are the slots.
    pub(crate) fn time_zone(&self) -> TimeZone {
        self.timezone.clone().unwrap_or_else(TimeZone::system)
    }
}

#[cfg(test)]
mod tests {
    use super::super::FilterArgs;
    use super::*;
    use clap::{CommandFactory, Parser};

    /// As `forget` will take them.
    #[derive(Debug, Parser)]
    #[command(mut_arg("host", |a| a.short(None)))]
    struct Forget {
        #[command(flatten)]
        filter: FilterArgs,
        #[command(flatten)]
        retention: RetentionArgs,
    }

    fn parse(line: &str) -> Result<RetentionArgs, String> {
        let words = std::iter::once("forget").chain(line.split_whitespace());
        Forget::try_parse_from(words).map(|f| f.retention).map_err(|e| {
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        })
    }

    fn keep(text: &str) -> Option<Keep> {
        text.parse().ok()
    }

    #[test]
    fn the_grammar_holds_beside_the_filter() {
        Forget::command().debug_assert();
        let f = Forget::try_parse_from(["forget", "--host", "web", "-H", "24", "--tag", "a"]).unwrap();
        assert_eq!(f.retention.policy().unwrap().keep_hourly, keep("24"));
        assert_eq!(f.filter.filter().hosts, ["web"]);
    }

    #[test]
    fn every_rule_arrives_where_it_belongs() {
        let p = parse(
            "--keep-last 1 --keep-hourly 2 --keep-daily unlimited --keep-weekly 4w --keep-monthly 12m --keep-yearly 7y \
             --keep-within 1y5m7d2h --keep-within-hourly 1h --keep-within-daily 2d --keep-within-weekly 3w \
             --keep-within-monthly 4m --keep-within-yearly 5y --keep-tag a,b --keep-tag c --group-by tags \
             --unsafe-allow-remove-all --unsafe-trust-client-times",
        )
        .unwrap()
        .policy()
        .unwrap();
        let keeps = [p.keep_last, p.keep_hourly, p.keep_daily, p.keep_weekly, p.keep_monthly, p.keep_yearly];
        assert_eq!(keeps, ["1", "2", "unlimited", "4w", "12m", "7y"].map(keep));
        let within = [
            p.keep_within,
            p.keep_within_hourly,
            p.keep_within_daily,
            p.keep_within_weekly,
            p.keep_within_monthly,
            p.keep_within_yearly,
        ];
        assert_eq!(within, ["1y5m7d2h", "1h", "2d", "3w", "4m", "5y"].map(|t| t.parse().ok()));
        assert_eq!(p.keep_tags, [vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]]);
        assert_eq!(p.group_by, "tags".parse().unwrap());
        assert!(p.allow_remove_all && p.trust_client_times);
        let short = parse("-l 1 -H 2 -d 3 -w 4 -m 5 -y 6 -g host").unwrap().policy().unwrap();
        let keeps = [short.keep_last, short.keep_hourly, short.keep_daily, short.keep_weekly];
        assert_eq!(keeps, ["1", "2", "3", "4"].map(keep));
        assert_eq!([short.keep_monthly, short.keep_yearly], ["5", "6"].map(keep));
        assert!(!short.allow_remove_all && !short.trust_client_times);
        assert_eq!(parse("-l 1").unwrap().policy().unwrap().group_by, GroupBy::default());
    }

    #[test]
    fn mistakes_say_what_and_what_instead() {
        for (line, said) in [
            ("--keep-daily many", "\"many\" is no number, not \"unlimited\", and no duration like 12m"),
            ("--keep-daily=-1", "\"-1\" is no number"),
            (
                "--keep-within 7",
                "\"7\" is not a duration like 1y5m7d2h: the letters are y, m (months), w, d, h",
            ),
            ("--keep-within-daily 30min", "a number is expected"),
            ("--keep-tag ,", "there is no tag in it"),
            ("--keep-last 1 --group-by hots", "\"hots\" is none of host, paths, tags"),
            ("--keep-last 1 --timezone Europe/Berlyn", "no time zone is named \"Europe/Berlyn\""),
        ] {
            let message = parse(line).unwrap_err();
            assert!(message.contains(said), "{line}: {message}");
        }
        for line in ["", "--keep-daily 0", "--unsafe-allow-remove-all"] {
            let args = parse(line).unwrap();
            assert!(!args.is_given());
            assert!(
                matches!(args.policy(), Err(Failure::Usage(m)) if m.contains("--keep-daily 7")),
                "{line}"
            );
        }
    }

    #[test]
    fn days_are_those_of_the_zone_named_or_of_this_machine() {
        let zone = parse("-l 1 --timezone Europe/Berlin").unwrap().time_zone();
        assert_eq!(zone.iana_name(), Some("Europe/Berlin"));
        assert_eq!(parse("-l 1").unwrap().time_zone(), TimeZone::system());
    }
}
