//! Confinement: a command that reads hostile bytes gives up, before the first of them, every right it does not need.
//!
//! The system's Landlock does it, so it holds even where a parser or the containment of a restore should be wrong. It is
//! taken on by the main thread after secrets are read and before any other thread exists, and every thread inherits it.
//! It is a second wall: where the kernel has none, the command says so and goes on behind the first.

use crate::ui::Ui;
use bulla_backends::location::Location;
use bulla_engine::env::Env;
use bulla_engine::format::Area;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The newest rules this code knows; a kernel with fewer enforces those it has.
const KNOWN: ABI = ABI::V6;

/// What users and groups are looked up in, by the C library and whatever it is told to ask.
const NAME_SERVICE: [&str; 6] = ["/etc", "/usr", "/lib", "/lib64", "/run", "/var/lib/sss"];

/// What a command may still touch. Everything else below `/` is out of reach, and so are new connections and programs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounds {
    read: Vec<PathBuf>,
    write: Vec<PathBuf>,
    reach: Reach,
}

/// What else than files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Reach {
    /// Nothing.
    #[default]
    Files,
    /// Connections to this port, and to name servers.
    Port(u16),
    /// Connections to wherever: a proxy stands in between.
    Anywhere,
    /// Programs, to which the rest of the bounds applies, and whatever they connect to: an `ssh` or rclone that has to be
    /// started again when the network was gone.
    Programs,
}

/// Name servers that answer at length do so by TCP.
const DOMAIN: u16 = 53;

/// How much of the bounds the kernel enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enforced {
    Fully,
    Partly,
    Not,
}

impl Enforced {
    /// What is said of it: nothing of what is as it should be, and of what is nearly so only to who wants to know.
    fn notice(self, verbosity: u8) -> Option<&'static str> {
        match self {
            Self::Partly if verbosity > 0 => {
                Some("this kernel's Landlock is older than this program's rules: some of them do not hold")
            }
            Self::Fully | Self::Partly => None,
            Self::Not => Some(
                "this kernel does not confine the command (it has no Landlock, or too old a one); \
                 bulla's own checks hold all the same",
            ),
        }
    }
}

impl Bounds {
    /// For a command that reads a repository: the repository read-only, cache and state writable.
    pub(crate) fn reader(location: &Location, env: &Env) -> Self {
        let port = |url: &url::Url| match proxied() {
            true => Reach::Anywhere,
            false => Reach::Port(url.port_or_known_default().unwrap_or(443)),
        };
        let mut bounds = match location {
            // An area may be a link to another disk, and a rule holds for what is below its directory.
            Location::Local(root) => {
                Area::ALL.iter().fold(Self::default().reading(root), |b, a| b.reading(root.join(a.dir())))
            }
            Location::S3 { endpoint, .. } => {
                Self { reach: port(endpoint), ..Self::default() }.reading_names()
            }
            Location::Rest(url) => Self { reach: port(url), ..Self::default() }.reading_names(),
            Location::Sftp { .. } | Location::Rclone(_) => {
                Self { reach: Reach::Programs, ..Self::default() }.reading("/")
            }
        };
        for dir in env.cache.iter().chain(&env.state) {
            // A rule needs a directory that is there. What cannot be made now could not be made later.
            let _ = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            bounds = bounds.writing(dir);
        }
        bounds
    }

    /// Also this, and what is below it, for reading.
    pub(crate) fn reading(mut self, path: impl Into<PathBuf>) -> Self {
        self.read.push(path.into());
        self
    }

    /// Also this, and what is below it, for everything.
    pub(crate) fn writing(mut self, path: impl Into<PathBuf>) -> Self {
        self.write.push(path.into());
        self
    }

    /// Also the names of users and groups.
    pub(crate) fn reading_names(mut self) -> Self {
        self.read.extend(NAME_SERVICE.map(PathBuf::from));
        self
    }

    /// Confines this thread and all it will start, for good, and says so where that falls short. True if it does at all.
    pub(crate) fn enforce(&self, ui: &Ui) -> bool {
        let enforced = self.restrict().unwrap_or(Enforced::Not);
        if let Some(text) = enforced.notice(ui.verbosity) {
            ui.note(text);
        }
        enforced != Enforced::Not
    }

    /// The same a second time, closer: what there is to say has been said.
    pub(crate) fn tighten(&self) {
        let _ = self.restrict();
    }

    fn restrict(&self) -> Result<Enforced, RulesetError> {
        // Without `Refer` a kernel refuses all links between directories, which a restore makes: then rather nothing.
        let mut all = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::Refer)?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(KNOWN))?;
        let mut read = AccessFs::ReadFile | AccessFs::ReadDir;
        match self.reach {
            Reach::Programs => read |= AccessFs::Execute,
            Reach::Anywhere => all = all.scope(Scope::from_all(KNOWN))?,
            Reach::Files | Reach::Port(_) => {
                all = all.handle_access(AccessNet::from_all(KNOWN))?.scope(Scope::from_all(KNOWN))?;
            }
        }
        let write = AccessFs::from_all(KNOWN) & !AccessFs::Execute;
        let mut rules = all.create()?;
        if let Reach::Port(port) = self.reach {
            for port in [port, DOMAIN] {
                rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp))?;
            }
        }
        for (paths, access) in [(&self.read, read), (&self.write, write)] {
            for path in paths {
                if let Some(rule) = beneath(path, access) {
                    rules = rules.add_rule(rule)?;
                }
            }
        }
        Ok(match rules.restrict_self()?.ruleset {
            RulesetStatus::FullyEnforced => Enforced::Fully,
            RulesetStatus::PartiallyEnforced => Enforced::Partly,
            RulesetStatus::NotEnforced => Enforced::Not,
        })
    }
}

/// True if one of the usual variables names a proxy.
fn proxied() -> bool {
    let names = ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"];
    names.iter().any(|name| crate::context::variable(name).is_some())
}

/// A rule for what is there; what is not there needs none. A file takes only the rights that files have.
fn beneath(path: &Path, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    let fd = PathFd::new(path).ok()?;
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(KNOWN) };
    Some(PathBeneath::new(fd, access))
}

/// The nearest directory above `path`, or `path` itself, that is there.
pub(crate) fn nearest(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.into());
    whole.ancestors().find(|p| p.exists()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::ErrorKind::PermissionDenied;

    /// Runs `work` on a thread of its own: what it gives up is given up by no other test.
    fn confined(bounds: Bounds, work: impl FnOnce() + Send + 'static) {
        let run = std::thread::spawn(move || match bounds.restrict() {
            Ok(Enforced::Not) | Err(_) => assert!(std::env::var_os("CI").is_none(), "no Landlock here"),
            Ok(_) => work(),
        });
        run.join().unwrap();
    }

    #[test]
    fn only_what_was_asked_for_is_within_reach() {
        let dir = tempfile::tempdir().unwrap();
        let [repo, target, outside] = ["repo", "target", "outside"].map(|n| dir.path().join(n));
        for d in [&repo, &target, &outside] {
            fs::create_dir(d).unwrap();
            fs::write(d.join("there"), b"x").unwrap();
        }
        confined(Bounds::default().reading(&repo).writing(&target), move || {
            let denied = |r: std::io::Result<()>| assert_eq!(r.unwrap_err().kind(), PermissionDenied);
            fs::read(repo.join("there")).unwrap();
            fs::read_dir(&repo).unwrap();
            denied(fs::write(repo.join("there"), b"y"));
            denied(fs::write(repo.join("new"), b"y"));
            denied(fs::remove_file(repo.join("there")));
            fs::create_dir(target.join("d")).unwrap();
            fs::write(target.join("d/f"), b"y").unwrap();
            // Links and renames between directories of the target, devices and pipes: all that a restore makes.
            fs::hard_link(target.join("d/f"), target.join("linked")).unwrap();
            fs::rename(target.join("linked"), target.join("d/moved")).unwrap();
            std::os::unix::fs::symlink("/", target.join("to-root")).unwrap();
            denied(fs::read(outside.join("there")).map(drop));
            denied(fs::read_dir(&outside).map(drop));
            denied(fs::write(outside.join("new"), b"y"));
            denied(fs::write(
                target.join("to-root").join(outside.strip_prefix("/").unwrap()).join("n"),
                b"y",
            ));
            denied(fs::remove_file(outside.join("there")));
            denied(fs::create_dir(outside.join("d")));
            denied(std::process::Command::new("/bin/true").status().map(drop));
            denied(std::net::TcpStream::connect("127.0.0.1:9").map(drop));
            // Who comes later is no freer.
            let there = outside.join("there");
            std::thread::spawn(move || denied(fs::read(there).map(drop))).join().unwrap();
        });
    }

    #[test]
    fn of_the_network_only_the_port_of_the_store_is_within_reach() {
        let listen = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (store, other) = (listen(), listen());
        let bounds = Bounds { reach: Reach::Port(store.local_addr().unwrap().port()), ..Bounds::default() };
        confined(bounds, move || {
            std::net::TcpStream::connect(store.local_addr().unwrap()).unwrap();
            let denied = std::net::TcpStream::connect(other.local_addr().unwrap());
            assert_eq!(denied.unwrap_err().kind(), PermissionDenied);
            assert_eq!(
                std::process::Command::new("/bin/true").status().unwrap_err().kind(),
                PermissionDenied
            );
        });
        let dir = tempfile::tempdir().unwrap();
        confined(Bounds { reach: Reach::Programs, ..Bounds::default() }.reading("/"), move || {
            assert!(std::process::Command::new("/bin/true").status().unwrap().success());
            assert_eq!(fs::write(dir.path().join("new"), b"x").unwrap_err().kind(), PermissionDenied);
        });
    }

    #[test]
    fn names_of_users_are_found_where_they_are_asked_for() {
        confined(Bounds::default().reading_names(), || {
            let root = nix::unistd::User::from_name("root").unwrap().unwrap();
            assert!(root.uid.is_root());
        });
    }

    #[test]
    fn a_kernel_that_does_not_confine_is_told_of() {
        assert_eq!(Enforced::Fully.notice(2), None);
        assert_eq!(Enforced::Partly.notice(0), None);
        assert!(Enforced::Partly.notice(1).is_some_and(|t| t.contains("older")));
        assert!(Enforced::Not.notice(0).is_some_and(|t| t.contains("no Landlock")));
    }

    #[test]
    fn the_nearest_directory_is_found_above_what_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(dir.path()), dir.path());
        assert_eq!(nearest(&dir.path().join("a/b")), dir.path());
        assert_eq!(nearest(&dir.path().join("a/../b")), dir.path());
    }
}
