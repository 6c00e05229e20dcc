//! What a job must be left: where its service writes, what it reaches, which rights and system calls it has. All else is taken
//! from it.
//!
//! Kept true: what a source covers is not hidden; a right that is taken from one kind of job is one that it has no use for.

use super::{plain_word, quoted};
use crate::config::{At, Config, Destination, Job, JobSource, SecretRef, local};
use std::path::{Path, PathBuf};

/// What every job can do without. Landlock's calls are those by which bulla itself gives up rights.
const HARDENED: &str = "\
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateMounts=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictNamespaces=yes
RestrictRealtime=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service landlock_create_ruleset landlock_add_rule landlock_restrict_self
SystemCallErrorNumber=EPERM
";

/// What systemd can hide: other processes' temporary files, and the kernel's modules.
const HIDDEN: [&str; 4] = ["/tmp", "/var/tmp", "/usr/lib/modules", "/lib/modules"];

/// True if a place is a part of sources which patterns leave out as a whole. Patterns that take something back may bring it in
/// again; what is backed up by its own name is no part.
fn leaves_out(sources: &[PathBuf], exclude: &[At<String>], place: &str) -> bool {
    let literal = |text: &str| !text.contains(['*', '?', '[', '\\']);
    let covers = |e: &At<String>| {
        literal(&e.value) && local(&e.value).is_some_and(|e| Path::new(place).starts_with(e))
    };
    !sources.iter().any(|source| source.starts_with(place))
        && !exclude.iter().any(|e| e.value.starts_with('!'))
        && exclude.iter().any(covers)
}

/// What a job must be left.
pub(super) struct Needs {
    /// Local repositories, and where metrics go.
    pub(super) writes: Vec<PathBuf>,
    /// Names of systemd's credentials.
    credentials: Vec<String>,
    network: bool,
    /// Programs that somebody else wrote.
    commands: bool,
    /// One of them becomes another user.
    other_user: bool,
    /// It opens a session for that, in which PAM sets its priority: without the call there is none.
    session: bool,
    /// What belongs to other users is read: files, devices, whatever a command of root's wants.
    reads: bool,
    /// Other processes' temporary files, and the kernel's modules, which systemd could hide.
    temporary: bool,
    modules: bool,
    /// The device that it reads.
    device: Option<PathBuf>,
    /// Files are restored as they were, with owners and modes.
    restores: bool,
}

impl Needs {
    pub(super) fn none() -> Self {
        Self {
            writes: Vec::new(),
            credentials: Vec::new(),
            network: false,
            commands: false,
            other_user: false,
            session: false,
            reads: true,
            temporary: false,
            modules: false,
            device: None,
            restores: false,
        }
    }

    pub(super) fn of(config: &Config, job: &Job, program: &Path, file: &Path) -> Result<Self, String> {
        let mut needs = Self::none();
        // Until something is found that does.
        needs.reads = false;
        let mut touched = vec![program.to_owned(), file.to_owned()];
        match &job.source.value {
            JobSource::Paths { paths, exclude, .. } => {
                let sources: Vec<PathBuf> = paths.iter().filter_map(|path| local(&path.value)).collect();
                // A part of a source that is left out may be hidden.
                let shows = |place: &&str| !leaves_out(&sources, exclude, place);
                needs.show(HIDDEN.into_iter().filter(shows), &sources);
                needs.reads = true;
            }
            JobSource::Block { path, .. } => {
                let path = PathBuf::from(&path.value);
                touched.push(path.clone());
                needs.device = Some(path).filter(|path| path.starts_with("/dev"));
                needs.reads = true;
            }
            JobSource::Command { pipeline, .. } => {
                for command in pipeline {
                    needs.runs(command.iter().map(|at| at.value.as_str()));
                    touched.extend(command.iter().filter_map(|at| local(&at.value)));
                }
            }
        }
        for hook in &job.hooks {
            needs.runs(hook.value.command.iter().map(String::as_str));
            touched.extend(hook.value.command.iter().filter_map(|word| local(word)));
        }
        needs.store(config, job, &mut touched)?;
        needs.tell(config, job, &mut touched)?;
        needs.settle(&touched);
        Ok(needs)
    }

    /// The destinations of a job.
    pub(super) fn store(
        &mut self,
        config: &Config,
        job: &Job,
        touched: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        let mut named = job.to.iter().filter_map(|name| config.destinations.get(&name.value));
        named.try_for_each(|destination| self.reach(&destination.value, touched))
    }

    /// Who is told of a job, and where metrics go.
    pub(super) fn tell(
        &mut self,
        config: &Config,
        job: &Job,
        touched: &mut Vec<PathBuf>,
    ) -> Result<(), String> {
        for channel in job.notify.iter().filter_map(|name| config.channels.get(&name.value)) {
            self.network = true;
            if let Some(secret) = channel.value.secret() {
                self.know(&secret.value, touched)?;
            }
        }
        let metrics = config.host.metrics.as_ref().and_then(|at| local(&at.value));
        if let Some(dir) = metrics.as_deref().and_then(Path::parent).map(Path::to_owned) {
            if !self.writes.contains(&dir) {
                self.writes.push(dir.clone());
            }
            touched.push(dir);
        }
        Ok(())
    }

    /// What follows from all that is touched.
    pub(super) fn settle(&mut self, touched: &[PathBuf]) {
        self.network |= self.commands;
        self.reads |= !self.writes.is_empty();
        self.show(HIDDEN.into_iter(), touched);
    }

    /// Leaves in sight what of some places is touched.
    fn show<'p>(&mut self, places: impl Iterator<Item = &'p str>, touched: &[PathBuf]) {
        let overlaps =
            |place: &str| touched.iter().any(|p| p.starts_with(place) || Path::new(place).starts_with(p));
        for place in places.filter(|place| overlaps(place)) {
            let seen = if place.ends_with("tmp") { &mut self.temporary } else { &mut self.modules };
            *seen = true;
        }
    }

    fn reach(&mut self, destination: &Destination, touched: &mut Vec<PathBuf>) -> Result<(), String> {
        let url = &destination.url.value;
        if ["s3:", "sftp:", "rest:", "rclone:"].iter().any(|scheme| url.starts_with(scheme)) {
            self.network = true;
        } else {
            let path = local(url).ok_or_else(|| {
                format!(
                    "its destination {url:?} depends on where it is started; write the whole path, from /"
                )
            })?;
            touched.push(path.clone());
            self.writes.push(path);
        }
        for secret in [&destination.key, &destination.password].into_iter().flatten() {
            self.know(&secret.value, touched)?;
        }
        Ok(())
    }

    /// A secret of a destination or a channel.
    fn know(&mut self, secret: &SecretRef, touched: &mut Vec<PathBuf>) -> Result<(), String> {
        match secret {
            SecretRef::File(path) => touched.push(path.clone()),
            SecretRef::Command(words) => self.runs(words.iter().map(String::as_str)),
            SecretRef::Fd(_) => {
                let why = "its secret is behind a descriptor, and systemd leaves none open; write { systemd = \"…\" }";
                return Err(why.to_owned());
            }
            SecretRef::Systemd(name) => {
                let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
                    return Err(format!(
                        "no credential of systemd can be named {name:?}: use letters, digits, . _ and -"
                    ));
                }
                self.credentials.push(name.clone());
            }
        }
        Ok(())
    }

    /// What its drills need instead: no source, but a place for what is restored, and whoever judges it.
    pub(super) fn for_drills(mut self, job: &Job) -> Result<Self, String> {
        self.restores = matches!(job.source.value, JobSource::Paths { .. });
        self.reads = true;
        self.device = None;
        if let Some(command) = job.drill.command.as_ref().filter(|_| job.drill.app.is_some()) {
            self.runs(command.iter().map(|at| at.value.as_str()));
            self.network = true;
        }
        match &job.drill.target {
            Some(target) => {
                let path = local(&target.value).ok_or("the target of its drills is no whole path, from /")?;
                self.temporary |= path.starts_with("/tmp") || path.starts_with("/var/tmp");
                self.writes.push(path);
            }
            // Without one of its own.
            None if self.temporary => self.writes.push(PathBuf::from("/var/tmp")),
            None => {}
        }
        Ok(self)
    }

    fn runs<'w>(&mut self, words: impl Iterator<Item = &'w str>) {
        self.commands = true;
        let words: Vec<&str> = words.collect();
        let program =
            words.first().and_then(|word| Path::new(word).file_name()?.to_str()).unwrap_or_default();
        self.session |= ["runuser", "su"].contains(&program);
        self.other_user |= self.session || program == "setpriv";
        // All others may keep the rights of root for what they start.
        let becomes = words.iter().any(|word| word.starts_with("--reuid"));
        self.reads |= !(program == "runuser" || program == "setpriv" && becomes);
    }

    pub(super) fn order(&self) -> &'static str {
        if self.network {
            "Wants=network-online.target\nAfter=network-online.target remote-fs.target\n"
        } else {
            "After=remote-fs.target\n"
        }
    }

    pub(super) fn sandbox(&self) -> Result<String, String> {
        let mut out = HARDENED.to_owned();
        let mut say = |line: &str| out.extend([line, "\n"]);
        let mut credentials: Vec<&String> = self.credentials.iter().collect();
        credentials.sort();
        credentials.dedup();
        for name in credentials {
            say(&format!("LoadCredential={name}"));
        }
        for path in &self.writes {
            // One that is not there is bulla's to complain about.
            say(&format!("ReadWritePaths=-{}", quoted(path)?));
        }
        match &self.device {
            Some(device) => {
                say(&format!("DevicePolicy=closed\nDeviceAllow={} r", plain_word(device)?));
            }
            None => say("PrivateDevices=yes"),
        }
        let mut rights = Vec::new();
        say("SystemCallFilter=~@resources @privileged");
        if self.reads {
            rights.push("CAP_DAC_READ_SEARCH");
        }
        if !self.writes.is_empty() || self.restores {
            // Repositories of other users.
            rights.push("CAP_DAC_OVERRIDE");
        }
        if self.restores {
            rights.extend(["CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID"]);
            say("SystemCallFilter=@chown");
        } else {
            say("RestrictSUIDSGID=yes");
        }
        if self.other_user {
            rights.extend(["CAP_SETUID", "CAP_SETGID"]);
            say("SystemCallFilter=@setuid capset");
            if self.session {
                say("SystemCallFilter=setpriority");
            }
        }
        say(&format!("CapabilityBoundingSet={}", rights.join(" ")));
        if self.network {
            say("RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6");
        } else {
            say("RestrictAddressFamilies=AF_UNIX\nPrivateNetwork=yes\nIPAddressDeny=any");
        }
        if !self.commands {
            say("MemoryDenyWriteExecute=yes\nProcSubset=pid");
        }
        if !self.temporary {
            say("PrivateTmp=yes");
        }
        if !self.modules {
            say("ProtectKernelModules=yes");
        }
        Ok(out)
    }
}
