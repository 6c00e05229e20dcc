//! What was typed, as it is meant on this machine: where the repository is, where the cache, who we are. The only
//! reader of the environment besides [`crate::secret`]. Order: option, then environment, then the usual place.

use crate::args::Global;
use crate::exit::{Failure, Outcome};
use crate::ui::Ui;
use bulla_engine::backend::{Backend, Local, Throttle};
use bulla_engine::env::Env;
use bulla_engine::repository::Repository;
use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Everything a command is given besides its own arguments.
pub(crate) struct Context<'a> {
    /// Where to speak.
    pub(crate) ui: &'a Ui,
    /// The global options.
    pub(crate) global: &'a Global,
    width: Option<u16>,
}

/// An environment variable that is set and not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|v| !v.is_empty())
}

impl<'a> Context<'a> {
    /// The context of one run.
    pub(crate) fn new(ui: &'a Ui, global: &'a Global) -> Self {
        Self { ui, global, width: None }
    }

    /// The same with another number of worker threads.
    pub(crate) fn with_width(&self, width: Option<u16>) -> Self {
        Self { ui: self.ui, global: self.global, width }
    }

    /// The directory of the repository.
    pub(crate) fn place(&self) -> Outcome<PathBuf> {
        let place = match (&self.global.repo, &self.global.repository_file) {
            (Some(url), _) => url.clone(),
            (_, Some(file)) => first_line(file)?,
            _ => match (variable("BULLA_REPOSITORY"), variable("BULLA_REPOSITORY_FILE")) {
                (Some(_), Some(_)) => {
                    let both = "BULLA_REPOSITORY and BULLA_REPOSITORY_FILE are both set; keep one";
                    return Err(Failure::Usage(both.into()));
                }
                (Some(url), _) => url,
                (_, Some(file)) => first_line(Path::new(&file))?,
                _ => {
                    let none = "no repository was named: give -r DIR or set BULLA_REPOSITORY";
                    return Err(Failure::Usage(none.into()));
                }
            },
        };
        local_path(place)
    }

    /// The store.
    pub(crate) fn store(&self) -> Outcome<Arc<Local>> {
        if let Some(option) = self.global.option.first() {
            let key = option.split_once('=').map_or(option.as_str(), |(key, _)| key);
            let text = format!("there is no option {key:?}: a local directory has none");
            return Err(Failure::Usage(text));
        }
        Ok(Arc::new(Local::new(self.place()?)))
    }

    /// The same store, no faster than asked for.
    pub(crate) fn limited(&self, store: Arc<Local>) -> Arc<dyn Backend> {
        match (self.global.limit_upload, self.global.limit_download) {
            (None, None) => store,
            (up, down) => Arc::new(Throttle::new(store, up, down)),
        }
    }

    /// Opens the repository. That there is one is checked before a password is asked for.
    pub(crate) fn open(&self) -> Outcome<Repository> {
        self.open_after(|_, _| ())
    }

    /// The same; `ready` is called when the secret is read and nothing of the repository is.
    pub(crate) fn open_after(&self, ready: impl FnOnce(&Local, &Env)) -> Outcome<Repository> {
        let store = self.store()?;
        if !Repository::exists(&*store)? {
            let place = store.describe().place;
            return Err(bulla_engine::Error::NoRepository { place }.into());
        }
        let secret = crate::secret::current(self)?;
        let env = self.env();
        ready(&store, &env);
        Ok(Repository::open(self.limited(store), &secret, env)?)
    }

    /// The world for the engine.
    pub(crate) fn env(&self) -> Env {
        let mut env = Env::system(machine(), user());
        env.cache = self.cache_dir();
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

    /// Where it is remembered what repositories have shown: systemd's `STATE_DIRECTORY`, XDG, home.
    fn state_dir(&self) -> Option<PathBuf> {
        if self.global.no_cache {
            return None;
        }
        variable("STATE_DIRECTORY")
            .map(first_of_list)
            .or_else(|| Some(PathBuf::from(variable("XDG_STATE_HOME")?).join("bulla")))
            .or_else(|| Some(PathBuf::from(variable("HOME")?).join(".local/state/bulla")))
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

/// A plain path or `file:` URL; other schemes are refused in words.
pub(crate) fn local_path(place: OsString) -> Outcome<PathBuf> {
    let bytes = place.as_bytes();
    if let Some(path) = bytes.strip_prefix(b"file:") {
        let path = path.strip_prefix(b"//").filter(|p| p.starts_with(b"/")).unwrap_or(path);
        if path.is_empty() {
            return Err(Failure::Usage("file: names no directory".into()));
        }
        return Ok(OsString::from_vec(path.to_vec()).into());
    }
    let scheme = place.to_string_lossy();
    let scheme = scheme.split_once(':').map_or("", |(s, _)| s);
    let known = ["s3", "sftp", "rest", "rclone", "http", "https", "b2", "azure", "gs", "ssh", "swift"];
    if known.contains(&scheme) {
        return Err(Failure::Usage(format!(
            "this build has no {scheme}: backend, only local directories; for a directory of that name write ./{scheme}:"
        )));
    }
    if bytes.is_empty() {
        return Err(Failure::Usage("the repository's name is empty".into()));
    }
    Ok(place.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_paths_or_file_urls() {
        let path = |s: &str| local_path(s.into()).ok();
        assert_eq!(path("/srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:/srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:///srv/b"), Some("/srv/b".into()));
        assert_eq!(path("file:b"), Some("b".into()));
        assert_eq!(path("./s3:x"), Some("./s3:x".into()));
        for bad in ["s3:host/bucket", "sftp:u@h:/b", "file:", ""] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }
}
