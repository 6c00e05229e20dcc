//! What was typed, as it is meant on this machine: where the repository is, where the cache, who we are. The only
//! reader of the environment besides [`crate::secret`]. Order: option, then environment, then the usual place.

use crate::args::{FromSecret, Global};
use crate::exit::{Failure, Outcome};
use crate::ui::Ui;
use bulla_backends::location::Location;
use bulla_backends::open::{Opened, Settings};
use bulla_backends::settings::{Options, Variables, is_key};
use bulla_engine::backend::{Backend, Throttle};
use bulla_engine::env::Env;
use bulla_engine::repository::{Repository, SlotSecret};
use bulla_manager::config::{Limits, Rate};
use std::borrow::Borrow;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The login for a REST server.
const LOGIN: &str = "BULLA_REST_USERNAME";
const LOGIN_PASSWORD: &str = "BULLA_REST_PASSWORD";

/// Everything a command is given besides its own arguments.
pub(crate) struct Context<'a> {
    /// Where to speak.
    pub(crate) ui: &'a Ui,
    /// The global options.
    pub(crate) global: &'a Global,
    width: Option<u16>,
    /// Copies of a distant store's metadata may be used.
    copies: bool,
    /// Which of the options that name a place were for a repository that was opened: bit by bit.
    heeded: &'a AtomicU64,
}

/// An environment variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|v| !v.is_empty())
}

impl<'a> Context<'a> {
    /// The context of one run.
    pub(crate) fn new(ui: &'a Ui, global: &'a Global, heeded: &'a AtomicU64) -> Self {
        Self { ui, global, width: None, copies: true, heeded }
    }

    /// The same with another number of worker threads.
    pub(crate) fn with_width(&self, width: Option<u16>) -> Self {
        Self { width, ..*self }
    }

    /// The same for who wants to know what a distant store has: nothing is taken from copies on this machine.
    pub(crate) fn without_copies(&self) -> Self {
        Self { copies: false, ..*self }
    }

    /// Where the repository is; there is one.
    pub(crate) fn location(&self) -> Outcome<Location> {
        match <[Location; 1]>::try_from(self.locations()?) {
            Ok([location]) => Ok(location),
            Err(many) => {
                let n = many.len();
                let only = "backup alone takes several repositories";
                Err(Failure::Usage(format!("-r is given {n} times: {only}, and that without --init")))
            }
        }
    }

    /// Where the repositories are, in the order in which they were named; one at least, and secrets for them.
    pub(crate) fn locations(&self) -> Outcome<Vec<Location>> {
        let places = match (self.global.repo.as_slice(), &self.global.repository_file) {
            (&[], Some(file)) => vec![first_line(file)?],
            (&[], None) => vec![self.place_of_environment()?],
            (typed, _) => typed.to_vec(),
        };
        crate::secret::one_for_each(self.global, places.len())?;
        places.iter().map(|place| Location::parse(place).map_err(Failure::Usage)).collect()
    }

    fn place_of_environment(&self) -> Outcome<OsString> {
        match (variable("BULLA_REPOSITORY"), variable("BULLA_REPOSITORY_FILE")) {
            (Some(_), Some(_)) => {
                let both = "BULLA_REPOSITORY and BULLA_REPOSITORY_FILE are both set; keep one";
                Err(Failure::Usage(both.into()))
            }
            (Some(url), _) => Ok(url),
            (_, Some(file)) => first_line(Path::new(&file)),
            _ => {
                let none = "no repository was named: give -r URL or set BULLA_REPOSITORY";
                Err(Failure::Usage(none.into()))
            }
        }
    }

    /// The directories of the repositories that are of this machine.
    pub(crate) fn directories(&self) -> Outcome<Vec<PathBuf>> {
        let local = |location| if let Location::Local(path) = location { Some(path) } else { None };
        Ok(self.locations()?.into_iter().filter_map(local).collect())
    }

    /// The directory of the repository, if it is one of this machine.
    pub(crate) fn directory(&self) -> Outcome<Option<PathBuf>> {
        self.location()?;
        Ok(self.directories()?.pop())
    }

    /// The store, which is asked nothing yet.
    pub(crate) fn store(&self) -> Outcome<Opened> {
        self.store_with(&self.location()?, true, &[], &[])
    }

    /// Another store than that of `-r`, with options of its own. `named` are those that the login of the environment may be for.
    pub(crate) fn store_at(
        &self,
        location: &Location,
        own: &[String],
        named: &[Location],
    ) -> Outcome<Opened> {
        self.store_with(location, false, own, named)
    }

    /// `-o KEY=VALUE` is for the store of `-r` (`first`), and for all stores if it belongs to no kind of them; what is said
    /// where a store is described comes after that, and `-o URL#KEY=VALUE` last.
    fn store_with(
        &self,
        location: &Location,
        first: bool,
        own: &[String],
        sharing: &[Location],
    ) -> Outcome<Opened> {
        let (mut general, mut named) = (Vec::new(), Vec::new());
        for (at, word) in self.global.option.iter().enumerate() {
            match place_of(word)? {
                (Some(place), option) if place.is_at(location) => {
                    self.heeded.fetch_or(bit(at), Ordering::Relaxed);
                    named.push(option);
                }
                (Some(_), _) => {}
                (None, option) => {
                    let key = option.split('=').next().unwrap_or_default();
                    general.extend((first || !key.contains('.')).then_some(option));
                }
            }
        }
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let mut options = Options::default();
        for words in [general, own, named] {
            options.replace(Options::parse(words).map_err(Failure::Usage)?);
        }
        let login = location.takes_login(sharing);
        if let (false, Some(_), Location::Rest(url)) = (login, variable(LOGIN), location) {
            let server = url.origin().ascii_serialization();
            self.ui.warn(&format!(
                "{LOGIN} is not shown to {server}: it is for one REST server, and there are several; write each login into its URL"
            ));
        }
        let get = |name: &str| {
            let shown = login || !matches!(name, LOGIN | LOGIN_PASSWORD);
            variable(name).filter(|_| shown).and_then(|v| v.into_string().ok())
        };
        let settings = Settings {
            options,
            variables: Variables::new(&get),
            authorities: self.authorities(),
            notice: Some(self.ui.notice()),
        };
        bulla_backends::open(location, settings).map_err(Failure::Usage)
    }

    /// The file of certificates to trust instead of the usual ones: option, then `BULLA_CACERT`.
    pub(crate) fn authorities(&self) -> Option<PathBuf> {
        self.global.cacert.clone().or_else(|| variable("BULLA_CACERT").map(PathBuf::from))
    }

    /// Options that name the URL of no store that was opened, without that URL, which may hold a password: nobody heeded them.
    pub(crate) fn idle_options(&self) -> impl Iterator<Item = &str> {
        let heeded = self.heeded.load(Ordering::Relaxed);
        let idle = move |(at, word): (usize, &'a String)| match place_of(word) {
            Ok((Some(_), option)) if heeded & bit(at) == 0 => Some(option),
            _ => None,
        };
        self.global.option.iter().enumerate().filter_map(idle)
    }

    /// The same store, no faster than asked for.
    pub(crate) fn limited(&self, store: Arc<dyn Backend>) -> Arc<dyn Backend> {
        self.limited_to(Limits::default(), store)
    }

    /// The same store, no faster than asked for, nor than its own limits.
    pub(crate) fn limited_to(&self, own: Limits, store: Arc<dyn Backend>) -> Arc<dyn Backend> {
        let typed = Limits { upload: self.global.limit_upload, download: self.global.limit_download };
        match typed.and(own) {
            Limits { upload: None, download: None } => store,
            Limits { upload, download } => {
                Arc::new(Throttle::new(store, upload.map(Rate::bytes), download.map(Rate::bytes)))
            }
        }
    }

    /// Opens the repository. That there is one is checked before a password is asked for.
    pub(crate) fn open(&self) -> Outcome<Repository> {
        self.open_after(|_, _| ())
    }

    /// The same; `ready` is called when the secret is read and no object of the repository is.
    pub(crate) fn open_after(&self, ready: impl FnOnce(&Location, &Env)) -> Outcome<Repository> {
        let location = self.location()?;
        let store = self.store_with(&location, true, &[], &[])?.backend();
        let secret = |env: &Env| {
            let secret = crate::secret::current(self)?;
            ready(&location, env);
            Ok(secret)
        };
        self.open_in(store, secret)
    }

    /// Opens the repository in a store. That there is one is checked before a secret is asked for.
    pub(crate) fn open_in<S: Borrow<SlotSecret>>(
        &self,
        store: Arc<dyn Backend>,
        secret: impl FnOnce(&Env) -> Outcome<S>,
    ) -> Outcome<Repository> {
        let found = Repository::find(self.limited(store))?;
        // Before the secret is: then this process may be confined.
        let env = self.env();
        let secret = secret(&env)?;
        Ok(found.open(secret.borrow(), env)?)
    }

    /// Opens the repository that another one is made or filled from.
    pub(crate) fn open_source(&self, url: &OsString, secret: &FromSecret) -> Outcome<Repository> {
        let location = Location::parse(url).map_err(Failure::Usage)?;
        let store = self.store_at(&location, &[], &self.locations()?)?.backend();
        self.open_in(store, |_| crate::secret::of_source(self, secret))
    }

    /// The world for the engine.
    pub(crate) fn env(&self) -> Env {
        let mut env = Env::system(machine(), user());
        env.cache = self.cache_dir().filter(|_| self.copies || matches!(self.directory(), Ok(Some(_))));
        env.state = self.state_dir();
        env.width = self.width.map_or(env.width, usize::from);
        env
    }

    /// Where the cache is: option, `BULLA_CACHE_DIR`, systemd's `CACHE_DIRECTORY`, XDG, home; none without all.
    pub(crate) fn cache_dir(&self) -> Option<PathBuf> {
        if self.global.no_cache {
            return None;
        }
        let under = |name: &str, below: &str| Some(PathBuf::from(variable(name)?).join(below));
        self.global
            .cache_dir
            .clone()
            .or_else(|| variable("BULLA_CACHE_DIR").map(PathBuf::from))
            .or_else(|| variable("CACHE_DIRECTORY").map(first_of_list))
            .or_else(|| under("XDG_CACHE_HOME", "bulla"))
            .or_else(|| under("HOME", ".cache/bulla"))
    }

    /// Where it is remembered what repositories have shown; nowhere with `--no-cache`.
    pub(crate) fn state_dir(&self) -> Option<PathBuf> {
        if self.global.no_cache { None } else { state_place(&variable, nix::unistd::geteuid().is_root()) }
    }

    /// Where processes meet that run the same job, also those that keep nothing on this machine.
    pub(crate) fn meeting_place(&self) -> PathBuf {
        let user = nix::unistd::geteuid();
        let runtime = || Some(PathBuf::from(variable("XDG_RUNTIME_DIR")?).join("bulla"));
        let place = state_place(&variable, user.is_root()).or_else(runtime);
        place.unwrap_or_else(|| std::env::temp_dir().join(format!("bulla-{user}")))
    }

    /// Says so if the repository shows an older state than this machine saw; reading goes on.
    pub(crate) fn warn_of_rollback(&self, repository: &Repository) {
        if let Err(e @ bulla_engine::Error::RolledBack { .. }) = repository.verify_history() {
            self.ui.warn(&format!("{e}; {}", crate::exit::HINT_ROLLBACK));
        }
    }

    /// The host a snapshot is about: `BULLA_HOST`, else this machine.
    pub(crate) fn host(&self) -> String {
        variable("BULLA_HOST").map_or_else(machine, |h| h.to_string_lossy().into_owned())
    }
}

/// What root's units are given by systemd; a shell of root finds the same.
const STATE_OF_ROOT: &str = "/var/lib/bulla";

/// The directory for state: systemd's `STATE_DIRECTORY`, XDG, root's, home.
fn state_place(variable: &dyn Fn(&str) -> Option<OsString>, root: bool) -> Option<PathBuf> {
    variable("STATE_DIRECTORY")
        .map(first_of_list)
        .or_else(|| Some(PathBuf::from(variable("XDG_STATE_HOME")?).join("bulla")))
        .or_else(|| root.then(|| PathBuf::from(STATE_OF_ROOT)))
        .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state/bulla")))
}

/// The bit of an option; those past the 64th share one.
fn bit(at: usize) -> u64 {
    1 << at.min(63)
}

/// The URL and the option of `URL#KEY=VALUE`; nothing for `KEY=VALUE`. A password may have both signs in it: the last # that
/// an option follows is the one.
pub(crate) fn apart(word: &str) -> Option<(&str, &str)> {
    let is_option = |text: &str| text.split_once('=').is_some_and(|(key, _)| is_key(key.trim()));
    let parts = |(at, _)| Some((word.get(..at)?, word.get(at + 1..)?));
    let mut all = word.rmatch_indices('#').filter_map(parts);
    if is_option(word) { None } else { all.find(|(_, option)| is_option(option)) }
}

/// The store that `URL#KEY=VALUE` names, and the option.
fn place_of(word: &str) -> Outcome<(Option<Location>, &str)> {
    let Some((place, option)) = apart(word) else { return Ok((None, word)) };
    let location = Location::parse(place.as_ref()).map_err(|e| Failure::Usage(format!("-o: {e}")))?;
    Ok((Some(location), option))
}

/// systemd lists several directories with colons; the first is ours.
fn first_of_list(list: OsString) -> PathBuf {
    let head = list.as_bytes().split(|b| *b == b':').next().unwrap_or_default().to_vec();
    PathBuf::from(OsString::from_vec(head))
}

/// A path without links and dots, as far as it exists.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    for ancestor in whole.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            return real.join(whole.strip_prefix(ancestor).unwrap_or(Path::new("")));
        }
    }
    whole
}

/// The name of this machine.
pub(crate) fn machine() -> String {
    nix::unistd::gethostname().map_or_else(|_| "localhost".into(), |n| n.to_string_lossy().into_owned())
}

/// The user we run as; the number when it has no name.
fn user() -> String {
    let uid = nix::unistd::geteuid();
    match nix::unistd::User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

fn first_line(file: &Path) -> Outcome<OsString> {
    let text = std::fs::read(file)
        .map_err(|e| Failure::Usage(format!("cannot read the repository file {}: {e}", file.display())))?;
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default().trim_ascii();
    if line.is_empty() {
        return Err(Failure::Usage(format!("the repository file {} is empty", file.display())));
    }
    Ok(OsString::from_vec(line.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_for_one_store_is_cut_from_its_url_where_the_url_ends() {
        for (word, parts) in [
            ("s3.region=eu", None),
            ("sftp.command=ssh -i a#b=c", None),
            ("rest:https://u:pa=ss@h/", None),
            ("rest:https://h/#rest.connections", None),
            (
                "rest:https://u:pa=ss@h/#rest.connections=3",
                Some(("rest:https://u:pa=ss@h/", "rest.connections=3")),
            ),
            ("rest:https://u:p#a=s@h/#k-1=v", Some(("rest:https://u:p#a=s@h/", "k-1=v"))),
            ("sftp:u@h:/r#sftp.command=ssh -p=1 #", Some(("sftp:u@h:/r", "sftp.command=ssh -p=1 #"))),
        ] {
            assert_eq!(apart(word), parts, "{word}");
        }
    }

    /// Two places would be two locks of a job, and `check --accept-rollback` in a shell would not reach the timers.
    #[test]
    fn a_unit_and_a_shell_of_root_remember_in_one_place() {
        let place = |set: &[(&str, &str)], root| {
            let get = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
            state_place(&get, root).map(|path| path.display().to_string())
        };
        let unit = place(&[("STATE_DIRECTORY", "/var/lib/bulla:/var/lib/other")], true);
        assert_eq!(unit.as_deref(), Some("/var/lib/bulla"));
        for shell in [&[("HOME", "/root")][..], &[("HOME", "/home/somebody")], &[]] {
            assert_eq!(place(shell, true), unit);
        }
        assert_eq!(place(&[("HOME", "/home/u")], false).as_deref(), Some("/home/u/.local/state/bulla"));
        let own = [("HOME", "/root"), ("XDG_STATE_HOME", "/s")];
        assert_eq!(place(&own, true).as_deref(), Some("/s/bulla"));
        assert_eq!(place(&[], false), None);
    }
}
