//! The repositories of a backup. The first that opens takes it; the others get copies of it at once, with what they missed of the
//! same host and paths: one that could not be reached for a week has everything after the next backup.
//!
//! Kept true: mistakes in what was typed are told before anything is read; a repository that fails is named, with the reason,
//! and keeps no other from its snapshot.

use crate::context::{Context, apart};
use crate::exit::{Failure, Outcome};
use crate::ui::Ui;
use crate::ui::format::{count, size};
use crate::ui::signals;
use bulla_backends::location::Location;
use bulla_backends::settings::shown;
use bulla_engine::backend::Backend;
use bulla_engine::backup::BackupReport;
use bulla_engine::copy::{self, CopyOptions};
use bulla_engine::format::snapshot::Snapshot;
use bulla_engine::observer::{Event, Observer};
use bulla_engine::repository::{Repository, SlotSecret};
use std::sync::{Arc, Mutex, PoisonError};

/// Where there are others, a distant store is waited for no longer than this without an answer, unless `-o retry-seconds=`
/// says otherwise.
const PATIENCE: &str = "retry-seconds=60";

/// A repository of a backup.
pub(super) struct Place<'s> {
    near: bool,
    store: Arc<dyn Backend>,
    secret: &'s Secret,
    number: usize,
    repository: Option<Repository>,
    /// What was backed up to it, or found unchanged; or why that cannot be copied. Nothing after a dry run.
    made: Option<Result<Snapshot, String>>,
    /// Why it is behind.
    pub(super) failure: Option<Failure>,
}

/// A secret that is read, or asked for, when it is first needed.
pub(super) type Secret = Mutex<Option<Arc<SlotSecret>>>;

/// Room for the secrets of the repositories that were typed: one for all, or one for each.
pub(super) fn secrets(context: &Context<'_>) -> Outcome<Vec<Secret>> {
    let n = context.locations()?.len();
    let each = crate::secret::one_for_each(context.global, n)?;
    Ok((0..if each { n } else { 1 }).map(|_| Secret::default()).collect())
}

/// The repositories that were typed. Nothing is asked of them yet.
pub(super) fn all<'s>(context: &Context<'_>, secrets: &'s [Secret]) -> Outcome<Vec<Place<'s>>> {
    let locations = context.locations()?;
    let options = options(&context.global.option, &locations)?;
    let mut out = Vec::new();
    for (number, (location, options)) in locations.iter().zip(options).enumerate() {
        let Some(secret) = secrets.get(number).or(secrets.first()) else { continue };
        let opened = if locations.len() == 1 {
            context.store()
        } else {
            context.store_at(location, &options, &locations)
        };
        let store = opened?.backend();
        let near = matches!(location, Location::Local(_));
        out.push(Place { near, store, secret, number, repository: None, made: None, failure: None });
    }
    Ok(out)
}

/// The options for each of several locations, but for those that name one: each gets those of its kind of store.
fn options(typed: &[String], locations: &[Location]) -> Outcome<Vec<Vec<String>>> {
    let typed: Vec<&String> = typed.iter().filter(|word| apart(word).is_none()).collect();
    let fits = |option: &String, location: &Location| {
        let kind = match location {
            Location::Local(_) => return false,
            Location::S3 { .. } => "s3.",
            Location::Sftp { .. } => "sftp.",
            Location::Rest(_) => "rest.",
            Location::Rclone(_) => "rclone.",
        };
        option.starts_with(kind) || option.starts_with("retry-")
    };
    if let (2.., Some(option)) =
        (locations.len(), typed.iter().find(|option| !locations.iter().any(|at| fits(option, at))))
    {
        let text = format!("-o {}: none of the repositories has such an option", shown(option));
        return Err(Failure::Usage(text));
    }
    let of = |location: &Location| {
        let mut own: Vec<String> =
            typed.iter().filter(|option| fits(option, location)).map(|option| (*option).clone()).collect();
        let patient = own.iter().any(|option| option.starts_with("retry-seconds="));
        if !patient && !matches!(location, Location::Local(_)) {
            own.push(PATIENCE.into());
        }
        own
    };
    Ok(locations.iter().map(of).collect())
}

impl Place<'_> {
    /// True if reading it costs nothing.
    pub(super) fn is_near(&self) -> bool {
        self.near
    }

    /// What it is called; shows no secret.
    pub(super) fn name(&self) -> String {
        self.store.describe().place
    }

    /// Opens it.
    pub(super) fn open(&self, context: &Context<'_>) -> Outcome<Repository> {
        context.open_in(self.store.clone(), |_| {
            // Whoever else needs the same one waits: nobody is asked twice.
            let mut read = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(secret) = &*read {
                return Ok(secret.clone());
            }
            let secret = Arc::new(crate::secret::numbered(context, self.number)?);
            *read = Some(secret.clone());
            Ok(secret)
        })
    }

    /// It has the backup; copies are made of it.
    pub(super) fn has(&mut self, repository: Repository, report: &BackupReport) {
        self.made = report.snapshot.clone().map(Ok);
        if let (true, Some(parent)) = (report.unchanged, report.parent) {
            // Others may lack it still. One that is damaged beside it is in its way no more than one that is forgotten.
            let found =
                repository.readable_snapshots().map(|(all, _)| all.into_iter().find(|s| s.id == parent));
            let text = || format!("snapshot {parent}, since which nothing has changed, is gone");
            self.made = Some(found.map_err(|e| e.to_string()).and_then(|s| s.ok_or_else(text)));
        }
        self.repository = Some(repository);
    }

    /// It has failed: that is told, with what to do about it, where others go on.
    pub(super) fn fails(&mut self, told: Option<(&Ui, &str)>, failure: Failure) {
        if let Some((ui, remedy)) = told {
            let said = failure.said().map_or_else(String::new, |said| format!(": {}", said.message));
            ui.error(&format!("{} is behind{said}; {remedy}", self.name()), None, "copy");
        }
        self.failure = Some(failure);
    }

    /// Copies from another what this one lacks.
    pub(super) fn copy_from(&mut self, context: &Context<'_>, from: &Self) {
        // It has failed to take the backup itself.
        if self.failure.is_some() {
            return;
        }
        let (Some(source), Some(made)) = (&from.repository, &from.made) else { return };
        let copied = match made {
            Ok(made) => self.copy(context, source, made),
            Err(why) => Err(Failure::Failed(why.clone())),
        };
        if let Err(failure) = copied {
            self.fails(Some((context.ui, "the next backup brings it what it lacks")), failure);
        }
    }

    fn copy(&self, context: &Context<'_>, from: &Repository, made: &Snapshot) -> Outcome<()> {
        let to = self.open(context)?;
        context.warn_of_rollback(&to);
        let same = |s: &Snapshot| s.host == made.host && s.paths == made.paths;
        let newest = to.snapshots()?.into_iter().filter(same).map(|s| s.start).max();
        let ((mut wanted, _), forgotten) = (from.readable_snapshots()?, from.forgotten()?);
        // What it let go by itself does not come back.
        let missed = |s: &Snapshot| same(s) && newest.is_none_or(|newest| s.start > newest);
        wanted.retain(|s| s.id == made.id || (missed(s) && !forgotten.contains_key(&s.id)));
        let observer = Told { ui: context.ui, place: self.name() };
        let report = copy::run(from, &to, &wanted, &CopyOptions::default(), &observer)?;
        let (copied, stored) = (count(report.copied.len() as u64, "snapshot"), size(report.stored.bytes));
        context.ui.note(&format!("copied {copied} to {}, {stored} stored", self.name()));
        Ok(())
    }
}

/// Says what a copy meets, and where.
struct Told<'a> {
    ui: &'a Ui,
    place: String,
}

impl Observer for Told<'_> {
    fn event(&self, event: &Event<'_>) {
        match event {
            Event::Notice(text) => self.ui.note(&format!("{}: {text}", self.place)),
            Event::Warning(text) => self.ui.warn(&format!("{}: {text}", self.place)),
            _ => {}
        }
    }

    fn interrupted(&self) -> bool {
        signals::stop_asked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_each_gets_the_options_of_its_kind() {
        let at = |urls: &[&str]| -> Vec<Location> {
            urls.iter().map(|url| Location::parse(&std::ffi::OsString::from(url)).unwrap()).collect()
        };
        let typed = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        let three = at(&["/srv/repo", "s3:https://host/bucket", "rest:https://host/path"]);
        let given = options(&typed(&["s3.region=eu"]), &three).unwrap();
        assert_eq!(given, [vec![], typed(&["s3.region=eu", PATIENCE]), typed(&[PATIENCE])]);
        let given = options(&typed(&["retry-seconds=5"]), &three).unwrap();
        assert_eq!(given, [vec![], typed(&["retry-seconds=5"]), typed(&["retry-seconds=5"])]);
        assert!(matches!(options(&typed(&["sftp.command=x"]), &three), Err(Failure::Usage(_))));
        // What names one of them is for that one, and not looked at here.
        let named = ["sftp:host:/r#sftp.command=x", "rest:https://u:pa=ss@h/#rest.connections=3"];
        let given = options(&typed(&named), &three).unwrap();
        assert!(given.iter().flatten().all(|option| option == PATIENCE), "{given:?}");
        // What names none may hold a password nevertheless.
        let Err(Failure::Usage(text)) = options(&typed(&["rest:https://u:pa=ss@h/"]), &three) else {
            panic!()
        };
        assert_eq!(text, "-o with a URL: none of the repositories has such an option");
    }
}
