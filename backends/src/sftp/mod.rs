//! A repository in a directory that an SFTP server gives access to, through the user's own `ssh`: keys, agents, jump
//! hosts and known hosts are ssh's matter, and no credential passes through here.
//!
//! # What it keeps true
//! - An object is written as `tmp/<random>`, synced, and then linked to its name with OpenSSH's `hardlink` extension,
//!   which fails if the name exists: of several writers exactly one is told [`Put::Created`]. A server without that
//!   extension gets a rename after a look, and [`Store::exact`] is false.
//! - With OpenSSH's `fsync` extension a put or delete that was answered is durable: the bytes are synced before the
//!   name is given, and the directory (where the server does not open directories, the file) after it.
//! - A connection that is lost costs an attempt: the next one runs a new ssh. The temporary file that it leaves is
//!   removed by the first put of a process a day later, by the server's clock.

mod files;
mod session;
mod wire;

use crate::store::{Attempt, Failure, Kind, Mode, Page, Part, Put, Stat, Store};
use bulla_engine::format::Area;
use files::{Open, attributes, attributes_if_there, ok};
use session::Session;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wire::{Attributes, Entry};

const TMP: &str = "tmp";
/// Temporary files older than this belong to nobody: no put takes a day. If one did, its writer would get an error when
/// it links, and fail cleanly.
const TMP_AGE: u32 = 24 * 3600;
/// A server that says nothing for so long is not there any more.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Multiples of it are added to points in time, which must not overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);
/// Threads that are worth having: they share one session, which is full of requests even with one.
const CONNECTIONS: usize = 4;

/// Where a repository is, and how to get there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SftpConfig {
    /// Whom to log in as, if not whom ssh's configuration says.
    pub user: Option<String>,
    /// A host, or a name for one in ssh's configuration.
    pub host: String,
    /// The port, if not the one that ssh's configuration says.
    pub port: Option<u16>,
    /// The repository's directory: absolute, or below the one where the server starts, which is the user's home.
    pub path: String,
    /// Program and arguments that speak SFTP on standard input and output, instead of ssh.
    pub command: Option<Vec<String>>,
}

impl SftpConfig {
    /// The command that reaches the server.
    fn argv(&self) -> Attempt<Vec<String>> {
        if let Some(command) = &self.command {
            return Ok(command.clone());
        }
        // ssh would take it for an option, and options of ssh run programs.
        if self.host.is_empty() || self.host.starts_with('-') {
            return Err(Failure::last(format!("\"{}\" is no name of a host", self.host)));
        }
        // ssh ends itself when the server is gone: within a minute, like our own time limit.
        let mut argv =
            ["ssh", "-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"].map(String::from).to_vec();
        if let Some(port) = self.port {
            argv.extend(["-p".into(), port.to_string()]);
        }
        if let Some(user) = &self.user {
            if user.starts_with('-') {
                return Err(Failure::last(format!("\"{user}\" is no name of a user")));
            }
            argv.extend(["-l".into(), user.clone()]);
        }
        argv.extend(["-s".into(), "--".into(), self.host.clone(), "sftp".into()]);
        Ok(argv)
    }

    /// As people write it: with a port it is a URL, whose path is absolute unless it begins with `~`.
    fn place(&self) -> String {
        let user = self.user.as_ref().map(|u| format!("{u}@")).unwrap_or_default();
        let Some(port) = self.port else { return format!("sftp:{user}{}:{}", self.host, self.path) };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        format!("sftp://{user}{host}:{port}/{}", self.path)
    }
}

/// A repository behind an SFTP server.
pub struct Sftp {
    config: SftpConfig,
    timeout: Duration,
    link: Mutex<Link>,
    connected: Condvar,
    swept: AtomicBool,
}

/// The connection, if there is one. It is made by one thread, without the lock, while the others wait for what it finds.
#[derive(Default)]
struct Link {
    session: Option<Arc<Session>>,
    connecting: bool,
    /// Connections that were tried.
    tried: u64,
    /// Why the last one failed.
    failed: Option<Failure>,
    /// There was a session before.
    known: bool,
}

impl Sftp {
    /// The store at `config`. Nothing is connected before the first operation.
    pub fn new(config: SftpConfig) -> Self {
        let (link, connected) = Default::default();
        Self { config, timeout: TIMEOUT, link, connected, swept: AtomicBool::new(false) }
    }

    /// As it is, but a server that is silent for `timeout`, at most a day, is given up.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout.min(TIMEOUT_MAX);
        self
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session, a new one if there is none that lives. Threads that come while one connects get what it finds: four
    /// of them do not ask for a password four times.
    fn session(&self) -> Attempt<Arc<Session>> {
        let mut link = self.link();
        loop {
            if let Some(session) = link.session.as_ref().filter(|s| s.alive()) {
                return Ok(session.clone());
            }
            if !link.connecting {
                break;
            }
            let tried = link.tried;
            link = self.connected.wait(link).unwrap_or_else(PoisonError::into_inner);
            if let Some(failure) = link.failed.as_ref().filter(|_| link.tried != tried) {
                return Err(failure.clone());
            }
        }
        link.connecting = true;
        let (dead, first) = (link.session.take(), !link.known);
        drop(link);
        drop(dead);
        let made =
            self.config.argv().and_then(|argv| Session::connect(&argv, self.timeout, first)).map(Arc::new);
        let mut link = self.link();
        link.connecting = false;
        link.tried += 1;
        link.known |= made.is_ok();
        link.failed = made.as_ref().err().cloned();
        link.session = made.as_ref().ok().cloned();
        drop(link);
        self.connected.notify_all();
        made
    }

    /// The path of the repository, as the server shall see it.
    fn root(&self) -> &str {
        match self.config.path.trim_end_matches('/') {
            "" if self.config.path.starts_with('/') => "/",
            "" => ".",
            root => root,
        }
    }

    fn path(&self, below: &str) -> String {
        format!("{}/{below}", self.root().trim_end_matches('/'))
    }

    /// The directory of `path`, which is `area/name`.
    fn dir(&self, path: &str) -> String {
        self.path(path.split('/').next().unwrap_or_default())
    }

    /// Makes an empty temporary file.
    fn temporary<'a>(&self, session: &'a Session) -> Attempt<Temporary<'a>> {
        let mut tag = [0; 16];
        getrandom::fill(&mut tag).map_err(|e| Failure::last(format!("no randomness: {e}")))?;
        let path = self.path(&format!("{TMP}/{:032x}", u128::from_be_bytes(tag)));
        let file = Open::create(session, &path)?;
        if !self.swept.swap(true, Ordering::Relaxed) {
            // Failing costs space, nothing else.
            let _ = self.sweep(session, &file);
        }
        Ok(Temporary { session, path, file: Some(file) })
    }

    /// Removes what interrupted writers left behind, once for each [`Sftp`]. What is old is told by the server's clock,
    /// that is by the time of a file that was just made.
    fn sweep(&self, session: &Session, new: &Open<'_>) -> Attempt<()> {
        let Some(now) = attributes(new.attributes())?.modified else { return Ok(()) };
        let dir = self.path(TMP);
        let old = |e: &Entry| {
            let Attributes { modified: Some(then), .. } = e.attributes else { return false };
            e.attributes.is_file() && !e.name.contains(&b'/') && now.saturating_sub(then) > TMP_AGE
        };
        for entry in session.read_dir(&dir)?.into_iter().filter(old) {
            let path = [dir.as_bytes(), b"/", entry.name.as_slice()].concat();
            ok(session.remove(&path), "remove")?;
        }
        Ok(())
    }

    fn put_new(&self, temporary: &mut Temporary<'_>, path: &str, parts: &[&[u8]]) -> Attempt<Put> {
        let (session, target, dir) = (temporary.session, self.path(path), self.dir(path));
        temporary.write(parts)?;
        let named = if session.offers().link {
            ok(session.link(&temporary.path, &target), "link")
        } else {
            temporary.close_unless_synced()?;
            // Not every server keeps to the draft, by which a rename does not replace: looked once more, right before.
            if attributes_if_there(session.lstat(target.as_bytes()))?.is_some() {
                return settled(session, &dir).map(|()| Put::Exists);
            }
            let renamed = ok(session.rename(&temporary.path, &target), "rename");
            renamed.inspect(|()| temporary.path.clear())
        };
        match named {
            Ok(()) => temporary.settle(&dir).map(|()| Put::Created),
            // How OpenSSH says that the name exists: it has no status for that.
            Err(failure) if failure.kind == Kind::Final => {
                match attributes_if_there(session.lstat(target.as_bytes()))? {
                    Some(_) => settled(session, &dir).map(|()| Put::Exists),
                    None => Err(failure),
                }
            }
            Err(failure) => Err(failure),
        }
    }

    fn put_over(&self, temporary: &mut Temporary<'_>, path: &str, parts: &[&[u8]]) -> Attempt<Put> {
        temporary.write(parts)?;
        temporary.close_unless_synced()?;
        ok(temporary.session.replace(&temporary.path, &self.path(path)), "rename")?;
        temporary.path.clear();
        temporary.settle(&self.dir(path)).map(|()| Put::Created)
    }

    /// Tells a full file system from other failures to write: the protocol has no status for it.
    fn write_failure(&self, session: &Session, failure: Failure, parts: &[&[u8]]) -> Failure {
        let len: u64 = parts.iter().map(|p| p.len() as u64).sum();
        match failure.kind {
            Kind::Final if session.space(&self.path(TMP)).is_some_and(|left| left == 0 || left < len) => {
                Failure::new(Kind::Full, failure.text)
            }
            // It is a directory that is not there: what is written is not missing.
            Kind::Missing => {
                Failure::last(format!("a directory of the repository is missing: {}", failure.text))
            }
            _ => failure,
        }
    }

    /// True if the directory `root` holds nothing that is in the way of a new repository.
    fn is_free(&self, session: &Session) -> Attempt<bool> {
        for entry in session.read_dir(self.root())? {
            let area = Area::ALL.into_iter().find(|a| entry.name == a.dir().as_bytes());
            let free = match area {
                // Keys of a repository that never was.
                Some(Area::Keys) => true,
                Some(area) => {
                    entry.attributes.is_dir() && session.read_dir(&self.path(area.dir()))?.is_empty()
                }
                None => entry.name == TMP.as_bytes() || entry.name == b"lost+found",
            };
            if !free {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A file in `tmp/`, removed when dropped.
struct Temporary<'a> {
    session: &'a Session,
    /// Empty once it has no such name any more.
    path: String,
    /// `None` once it is closed.
    file: Option<Open<'a>>,
}

impl Temporary<'_> {
    fn write(&self, parts: &[&[u8]]) -> Attempt<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.write(parts))
    }

    /// Some servers tell only when a file is closed that it was not written: that must be known before it has a name.
    /// What was synced is written.
    fn close_unless_synced(&mut self) -> Attempt<()> {
        match self.file.take_if(|_| !self.session.offers().sync) {
            Some(file) => ok(file.close(), "close"),
            None => Ok(()),
        }
    }

    /// Makes the name durable that the file now has in `dir`, and takes the temporary one away: one round trip.
    fn settle(&mut self, dir: &str) -> Attempt<()> {
        let (session, file) = (self.session, self.file.take());
        let synced = match (session.sync_dir(dir)?, &file) {
            (Some(synced), _) => Some(synced),
            // A file whose names changed has changed: on the usual file systems of Linux its sync writes them too.
            (None, Some(file)) if session.offers().sync => Some(file.sync()),
            (None, _) => None,
        };
        let closed = file.map(Open::close);
        let temporary = std::mem::take(&mut self.path);
        let removed = (!temporary.is_empty()).then(|| session.remove(temporary.as_bytes()));
        synced.map_or(Ok(()), |synced| ok(synced, "sync"))?;
        // The object is there and durable: what goes wrong with these leaves garbage for the next sweep.
        closed.into_iter().chain(removed).for_each(|pending| drop(pending.wait()));
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        drop(self.file.take());
        if !self.path.is_empty() {
            drop(self.session.remove(self.path.as_bytes()));
        }
    }
}

/// Makes durable what another put into `dir`: who is told that it exists relies on it.
fn settled(session: &Session, dir: &str) -> Attempt<()> {
    session.sync_dir(dir)?.map_or(Ok(()), |synced| ok(synced, "sync"))
}

/// Makes a directory unless there is one. True if it was made.
fn make_dir(session: &Session, path: &str) -> Attempt<bool> {
    let Err(failure) = ok(session.make_dir(path), "make a directory") else { return Ok(true) };
    if matches!(failure.kind, Kind::Passing { .. }) {
        return Err(failure);
    }
    match attributes_if_there(session.stat(path))? {
        Some(there) if there.is_dir() => Ok(false),
        Some(_) => Err(Failure::last(format!("{path} is there and no directory"))),
        None => Err(failure),
    }
}

/// Makes the directory and those above it, each durable in the one above.
fn make_dirs(session: &Session, path: &str) -> Attempt<()> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for prefix in ends.filter_map(|end| path.get(..end)).filter(|p| !p.is_empty()) {
        if make_dir(session, prefix)? {
            let above = match prefix.rsplit_once('/') {
                None => ".",
                Some(("", _)) => "/",
                Some((above, _)) => above,
            };
            settled(session, above)?;
        }
    }
    Ok(())
}

/// A file's size, which every server tells.
fn size_of(attributes: &Attributes) -> Attempt<u64> {
    attributes.size.ok_or_else(|| Failure::last("the server does not tell the size of a file"))
}

impl Store for Sftp {
    fn place(&self) -> String {
        self.config.place()
    }

    fn prepare(&self) -> Attempt<()> {
        let session = self.session()?;
        match attributes_if_there(session.stat(self.root()))? {
            None => make_dirs(&session, self.root())?,
            Some(there) if !there.is_dir() => return Err(Failure::last("it is not a directory")),
            Some(_) if self.is_free(&session)? => {}
            Some(_) => return Err(Failure::last("the directory is not empty")),
        }
        for dir in Area::ALL.into_iter().map(Area::dir).chain([TMP]) {
            make_dir(&session, &self.path(dir))?;
        }
        settled(&session, self.root())
    }

    fn put(&self, path: &str, parts: &[&[u8]], mode: Mode) -> Attempt<Put> {
        let session = self.session()?;
        if mode == Mode::Replace && !session.offers().replace {
            let text = "the server cannot replace a file safely (it lacks posix-rename@openssh.com)";
            return Err(Failure::last(text));
        }
        // What is there already, as after an answer that was lost, is not sent again.
        let there = (mode == Mode::New).then(|| session.lstat(self.path(path).as_bytes()));
        let failed = |failure| self.write_failure(&session, failure, parts);
        let mut temporary = self.temporary(&session).map_err(failed)?;
        if there.map_or(Ok(None), attributes_if_there)?.is_some() {
            return settled(&session, &self.dir(path)).map(|()| Put::Exists);
        }
        let put = match mode {
            Mode::New => self.put_new(&mut temporary, path, parts),
            Mode::Replace => self.put_over(&mut temporary, path, parts),
        };
        // Asked before the temporary file gives its space back.
        put.map_err(failed)
    }

    fn get(&self, path: &str, part: Part) -> Attempt<Vec<u8>> {
        let session = self.session()?;
        let file = Open::read(&session, &self.path(path))?;
        let (offset, len) = match part {
            Part::Range { offset, len } => (offset, len),
            Part::Whole { limit } => return whole(&session, &file, limit),
        };
        match file.read_exactly(offset, len)? {
            Some(bytes) => Ok(bytes),
            None => {
                let size = size_of(&attributes(file.attributes())?)?;
                Err(Failure::new(Kind::Short { size: Some(size) }, format!("it has {size} bytes")))
            }
        }
    }

    fn list(&self, dir: &str, _from: Option<&str>) -> Attempt<Page> {
        let session = self.session()?;
        let path = self.path(dir);
        let found = match session.read_dir(&path) {
            Err(Failure { kind: Kind::Missing, .. }) => return Ok(Page::default()),
            found => found?,
        };
        let mut entries = Vec::with_capacity(found.len());
        for Entry { name, mut attributes } in found {
            let Ok(name) = String::from_utf8(name) else { continue };
            if name.contains('/') {
                continue;
            }
            // A server may leave out what most say with the name.
            if attributes.permissions.is_none() || attributes.size.is_none() {
                let there = attributes_if_there(session.lstat(format!("{path}/{name}").as_bytes()))?;
                let Some(there) = there else { continue };
                attributes = there;
            }
            if attributes.is_file() {
                entries.push((name, size_of(&attributes)?));
            }
        }
        Ok(Page { entries, next: None })
    }

    fn stat(&self, path: &str) -> Attempt<Option<Stat>> {
        let session = self.session()?;
        let there = attributes_if_there(session.lstat(self.path(path).as_bytes()))?;
        let stat = |a: Attributes| Ok(Stat { size: size_of(&a)?, modified: a.modified.unwrap_or(0).into() });
        there.map(stat).transpose()
    }

    fn delete(&self, path: &str) -> Attempt<()> {
        let session = self.session()?;
        match ok(session.remove(self.path(path).as_bytes()), "remove") {
            Ok(()) | Err(Failure { kind: Kind::Missing, .. }) => settled(&session, &self.dir(path)),
            Err(failure) => Err(failure),
        }
    }

    fn exact(&self) -> Attempt<bool> {
        Ok(self.session()?.offers().link)
    }

    fn connections(&self) -> usize {
        CONNECTIONS
    }
}

/// Reads all of a file. The first piece is asked for together with the size: most objects need no more.
fn whole(session: &Session, file: &Open<'_>, limit: u64) -> Attempt<Vec<u8>> {
    let first = session.offers().read.min(usize::try_from(limit).unwrap_or(usize::MAX)).max(1);
    let (size, piece) = (file.attributes(), file.piece(0, first));
    let size = size_of(&attributes(size)?)?;
    if size > limit {
        return Err(Failure::new(Kind::TooLong { size }, format!("it has {size} bytes")));
    }
    let mut out = file.data(piece, first)?.unwrap_or_default();
    let len = usize::try_from(size).map_err(|_| Failure::last("it does not fit into memory"))?;
    if let Some(left @ 1..) = len.checked_sub(out.len()) {
        let rest = file.read_exactly(out.len() as u64, left)?;
        out.extend(rest.ok_or_else(|| Failure::passing("it ends before its size"))?);
    }
    out.truncate(len);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(user: Option<&str>, host: &str, port: Option<u16>, path: &str) -> SftpConfig {
        SftpConfig { user: user.map(String::from), host: host.into(), port, path: path.into(), command: None }
    }

    #[test]
    fn places_are_as_people_write_them() {
        assert_eq!(config(Some("me"), "nas", None, "/srv/b").place(), "sftp:me@nas:/srv/b");
        assert_eq!(config(None, "nas", None, "b").place(), "sftp:nas:b");
        assert_eq!(config(Some("me"), "nas", Some(22), "/srv/b").place(), "sftp://me@nas:22//srv/b");
        assert_eq!(config(None, "::1", Some(22), "b").place(), "sftp://[::1]:22/b");
    }

    #[test]
    fn nothing_of_an_address_becomes_an_option_of_ssh() {
        let argv = config(Some("me"), "nas", Some(2222), "b").argv().unwrap().join(" ");
        let expected = "ssh -o ServerAliveInterval=15 -o ServerAliveCountMax=4 -p 2222 -l me -s -- nas sftp";
        assert_eq!(argv, expected);
        for bad in [config(None, "-oProxyCommand=x", None, "b"), config(None, "", None, "b")] {
            assert_eq!(bad.argv().unwrap_err().kind, Kind::Final);
            assert_eq!(Sftp::new(bad).stat("packs/x").unwrap_err().kind, Kind::Final);
        }
        assert!(config(Some("-x"), "nas", None, "b").argv().is_err());
    }

    #[test]
    fn paths_are_below_the_repository() {
        for (path, below) in
            [("/", "/packs/x"), ("", "./packs/x"), ("a//", "a/packs/x"), ("/a/b", "/a/b/packs/x")]
        {
            let store = Sftp::new(config(None, "nas", None, path));
            assert_eq!(store.path("packs/x"), below);
            assert_eq!(format!("{}/x", store.dir("packs/x")), below);
        }
    }
}
