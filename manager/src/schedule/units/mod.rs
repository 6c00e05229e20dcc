//! The units of systemd that run jobs when they are due: a service and a timer for each job with a schedule, and for each
//! whose drills have one, pure texts.
//!
//! A service may read everything, and write only where its job needs to; it reaches the network only if its job does. What
//! is hidden from it would be missing in its backups, so nothing is hidden that a source covers. What a unit cannot say is
//! refused, and everything else quoted.

use super::Schedule;
use crate::config::{Config, Destination, Job, JobSource, SecretRef, local};
use std::path::{Path, PathBuf};

/// A unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// The job's name.
    pub job: String,
    /// The file's name.
    pub name: String,
    /// What is in the file.
    pub text: String,
}

/// The first line of every unit made from a configuration; nothing else begins with it.
pub fn marker(config: &Path) -> Result<String, String> {
    let config = quoted(config)?;
    Ok(format!("# Written by \"bulla schedule install\" from {config}; changes here are lost.\n"))
}

/// The units of all jobs with a schedule, made for a program and a configuration, both with their whole paths. Else all
/// that cannot be said in a unit.
pub fn units(config: &Config, program: &Path, file: &Path) -> Result<Vec<Unit>, Vec<String>> {
    let (mut out, mut wrong) = (Vec::new(), Vec::new());
    for (name, job) in &config.jobs {
        match of_job(config, name, &job.value, program, file) {
            Ok(units) => out.extend(units),
            Err(why) => wrong.push(format!("{}: job {name}: {why}", job.place)),
        }
    }
    match of_watch(config, program, file) {
        Ok(units) => out.extend(units),
        Err(why) => wrong.push(format!("{}: {why}", file.display())),
    }
    if wrong.is_empty() { Ok(out) } else { Err(wrong) }
}

/// What stands for a job's name in the units that tell what did not happen, which no job can tell itself.
const WATCH: &str = "notify";

/// The units that run `bulla notify` every quarter of an hour, if anybody is told anything.
fn of_watch(config: &Config, program: &Path, file: &Path) -> Result<Vec<Unit>, String> {
    let tells = |job: &&Job| !job.notify.is_empty();
    if !config.jobs.values().map(|at| &at.value).any(|job| tells(&job)) {
        return Ok(Vec::new());
    }
    if let Some(job) = config.jobs.get(WATCH).filter(|job| job.value.schedule.is_some()) {
        return Err(format!("{}: job {WATCH} has the name of the units that tell; rename it", job.place));
    }
    let mut needs = Needs::none();
    let mut touched = vec![program.to_owned(), file.to_owned()];
    let measures = config.host.metrics.is_some();
    for job in config.jobs.values().map(|at| &at.value).filter(|job| measures || tells(job)) {
        needs.store(config, job, &mut touched)?;
    }
    // It looks, and writes nothing there.
    needs.writes.clear();
    for job in config.jobs.values() {
        needs.tell(config, &job.value, &mut touched)?;
    }
    needs.settle(&touched);
    let service = format!(
        "{}[Unit]\nDescription=Tell what becomes of backup jobs\n{}\n[Service]\nType=oneshot\n\
         ExecStart=:{} notify --config {}\n{COURTESY}{}",
        marker(file)?,
        needs.order(),
        quoted(program)?,
        quoted(file)?,
        needs.sandbox()?,
    );
    let timer = format!(
        "{}[Unit]\nDescription=When it is told what becomes of backup jobs\n\n[Timer]\nOnCalendar=*:00/15\n\
         RandomizedDelaySec=1min\n\n[Install]\nWantedBy=timers.target\n",
        marker(file)?,
    );
    let unit = |kind: &str, text| Unit { job: WATCH.to_owned(), name: format!("bulla-{WATCH}.{kind}"), text };
    Ok(vec![unit("service", service), unit("timer", timer)])
}

/// Longer names of files than 255 bytes there are not.
const NAME_MAX: usize = 200;

fn of_job(config: &Config, name: &str, job: &Job, program: &Path, file: &Path) -> Result<Vec<Unit>, String> {
    let drill = &job.drill;
    let drills: Vec<&Schedule> =
        [&drill.sample, &drill.full, &drill.app].into_iter().flatten().map(|at| &at.value.0).collect();
    if job.schedule.is_none() && drills.is_empty() {
        return Ok(Vec::new());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !name.chars().all(plain)
        || name.len() > NAME_MAX
    {
        return Err(
            "its name cannot be a unit's: use letters, digits, . _ and -, and begin with a letter or digit"
                .to_owned(),
        );
    }
    let mut out = Vec::new();
    if let Some(schedule) = &job.schedule {
        let verb = format!("run {name}");
        let about = format!("Backup job {name}");
        let needs = Needs::of(config, job, program, file)?;
        let texts = pair(config, program, file, (&about, &verb), &needs, &[&schedule.value], "2min")?;
        out.extend(units_of(name, name, texts));
    }
    if !drills.is_empty() {
        let as_unit = format!("{name}-drill");
        if config.jobs.contains_key(&as_unit) {
            return Err(format!("its drills' units would be those of job {as_unit}; rename one of the two"));
        }
        let verb = format!("drill {name} --due");
        let about = format!("Restore drills of backup job {name}");
        let needs = Needs::of(config, job, program, file)?.for_drills(job)?;
        let texts = pair(config, program, file, (&about, &verb), &needs, &drills, "1h")?;
        out.extend(units_of(name, &as_unit, texts));
    }
    Ok(out)
}

fn units_of(job: &str, unit: &str, [service, timer]: [String; 2]) -> [Unit; 2] {
    let of = |kind: &str, text| Unit { job: job.to_owned(), name: format!("bulla-{unit}.{kind}"), text };
    [of("service", service), of("timer", timer)]
}

/// A service and its timer.
fn pair(
    config: &Config,
    program: &Path,
    file: &Path,
    (about, verb): (&str, &str),
    needs: &Needs,
    schedules: &[&Schedule],
    spread: &str,
) -> Result<[String; 2], String> {
    let head = marker(file)?;
    let service = format!(
        "{head}[Unit]\nDescription={about}\n{}\n[Service]\nType=oneshot\n\
         ExecStart=:{} {verb} --config {}\n{COURTESY}{}",
        needs.order(),
        quoted(program)?,
        quoted(file)?,
        needs.sandbox()?,
    );
    let mut lines = String::new();
    for schedule in schedules {
        let zone = schedule.zone().or(config.host.zone.as_ref().map(|at| &at.value));
        let zone = match zone {
            Some(zone) => zone.iana_name().ok_or("its time zone has no name")?,
            None => "UTC",
        };
        lines.extend(schedule.on_calendar().into_iter().map(|line| format!("OnCalendar={line} {zone}\n")));
    }
    let timer = format!(
        "{head}[Unit]\nDescription=When {about} is due\n\n[Timer]\n{lines}Persistent=true\n\
         RandomizedDelaySec={spread}\nAccuracySec=1m\n\n[Install]\nWantedBy=timers.target\n",
    );
    Ok([service, timer])
}

/// It stands back behind everything else, may take its time (a first backup over a thin line takes days), and is asked to
/// stop as by Ctrl-C, alone: its ssh has to live until the last pack is there.
const COURTESY: &str = "\
User=root
Nice=19
IOSchedulingClass=idle
TimeoutStartSec=7d
TimeoutStopSec=5min
KillSignal=SIGINT
KillMode=mixed
StateDirectory=bulla
StateDirectoryMode=0700
CacheDirectory=bulla
CacheDirectoryMode=0700
UMask=0077
";

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

/// What a job must be left.
struct Needs {
    /// Local repositories, and where metrics go.
    writes: Vec<PathBuf>,
    /// Names of systemd's credentials.
    credentials: Vec<String>,
    network: bool,
    /// Programs that somebody else wrote.
    commands: bool,
    /// One of them becomes another user.
    other_user: bool,
    /// Other processes' temporary files, and the kernel's modules, which systemd could hide.
    temporary: bool,
    modules: bool,
    /// The device that it reads.
    device: Option<PathBuf>,
    /// Files are restored as they were, with owners and modes.
    restores: bool,
}

impl Needs {
    fn none() -> Self {
        Self {
            writes: Vec::new(),
            credentials: Vec::new(),
            network: false,
            commands: false,
            other_user: false,
            temporary: false,
            modules: false,
            device: None,
            restores: false,
        }
    }

    fn of(config: &Config, job: &Job, program: &Path, file: &Path) -> Result<Self, String> {
        let mut needs = Self::none();
        let mut touched = vec![program.to_owned(), file.to_owned()];
        match &job.source.value {
            JobSource::Paths { paths, .. } => {
                touched.extend(paths.iter().filter_map(|path| local(&path.value)));
            }
            JobSource::Block { .. } => {}
            JobSource::Command { pipeline, .. } => {
                for command in pipeline {
                    needs.runs(command.iter().map(|at| at.value.as_str()));
                    touched.extend(command.iter().filter_map(|at| local(&at.value)));
                }
            }
        }
        if let JobSource::Block { path, .. } = &job.source.value {
            let path = PathBuf::from(&path.value);
            touched.push(path.clone());
            needs.device = Some(path).filter(|path| path.starts_with("/dev"));
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
    fn store(&mut self, config: &Config, job: &Job, touched: &mut Vec<PathBuf>) -> Result<(), String> {
        let mut named = job.to.iter().filter_map(|name| config.destinations.get(&name.value));
        named.try_for_each(|destination| self.reach(&destination.value, touched))
    }

    /// Who is told of a job, and where metrics go.
    fn tell(&mut self, config: &Config, job: &Job, touched: &mut Vec<PathBuf>) -> Result<(), String> {
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
    fn settle(&mut self, touched: &[PathBuf]) {
        self.network |= self.commands;
        let overlaps =
            |place: &str| touched.iter().any(|p| p.starts_with(place) || Path::new(place).starts_with(p));
        self.temporary = overlaps("/tmp") || overlaps("/var/tmp");
        self.modules = overlaps("/usr/lib/modules") || overlaps("/lib/modules");
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
    fn for_drills(mut self, job: &Job) -> Result<Self, String> {
        self.restores = matches!(job.source.value, JobSource::Paths { .. });
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

    fn runs<'w>(&mut self, mut words: impl Iterator<Item = &'w str>) {
        self.commands = true;
        let program = words.next().map(Path::new).and_then(Path::file_name);
        self.other_user |=
            ["runuser", "setpriv", "su"].iter().any(|p| program.is_some_and(|name| name == *p));
    }

    fn order(&self) -> &'static str {
        if self.network {
            "Wants=network-online.target\nAfter=network-online.target remote-fs.target\n"
        } else {
            "After=remote-fs.target\n"
        }
    }

    fn sandbox(&self) -> Result<String, String> {
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
        let mut rights = "CapabilityBoundingSet=CAP_DAC_READ_SEARCH".to_owned();
        if !self.writes.is_empty() || self.restores {
            // Repositories of other users.
            rights += " CAP_DAC_OVERRIDE";
        }
        if self.restores {
            rights += " CAP_CHOWN CAP_FOWNER CAP_FSETID";
        } else {
            say("RestrictSUIDSGID=yes");
        }
        if self.other_user {
            rights += " CAP_SETUID CAP_SETGID";
        } else {
            say("SystemCallFilter=~@resources @privileged");
            if self.restores {
                say("SystemCallFilter=@chown");
            }
        }
        say(&rights);
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

/// A path as one word of a unit.
fn quoted(path: &Path) -> Result<String, String> {
    let text = path.to_str().filter(|text| !text.chars().any(char::is_control));
    let text =
        text.ok_or_else(|| format!("a unit cannot name {path:?}: it holds control characters or no text"))?;
    if !path.is_absolute() {
        return Err(format!("a unit needs a whole path, from /, and not {text:?}"));
    }
    Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%")))
}

/// A path where a unit takes no quotes.
fn plain_word(path: &Path) -> Result<String, String> {
    let odd = |c: char| c.is_whitespace() || "\"'\\%".contains(c);
    let text = path.to_str().filter(|text| !text.chars().any(|c| odd(c) || c.is_control()));
    text.map(str::to_owned).ok_or_else(|| format!("a unit cannot name the device {path:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::File;

    const JOBS: &str = r#"
[host]
timezone = "Europe/Berlin"
[destination.disk]
url = "/mnt/my 50% \"disk\""
key = { systemd = "disk-key" }
[destination.far]
url = "sftp:backup@vault:/srv"
password = { command = ["pass", "show", "far"] }
[job.files]
source = { paths = ["/srv"], exclude = ["/mnt"] }
to = ["disk"]
schedule = "0 3 1 * 1"
[job.dump]
source = { command = ["runuser", "-u", "postgres", "pg_dump"], as = "dump" }
to = ["disk", "far"]
schedule = "OnCalendar=daily UTC"
[job.never]
source = { paths = ["/var"] }
to = ["disk"]
"#;

    fn made(text: &str) -> Result<Vec<Unit>, Vec<String>> {
        let read = Config::read(&[File { path: "c.toml".into(), text: text.to_owned() }]);
        assert!(read.is_sound(), "{:?}", read.mistakes);
        units(&read.config, Path::new("/usr/bin/bulla"), Path::new("/etc/bulla/config.toml"))
    }

    fn text(of: &str, units: &[Unit]) -> String {
        units.iter().find(|unit| unit.name == of).unwrap().text.clone()
    }

    #[test]
    fn a_job_has_a_service_and_a_timer_and_is_left_what_it_needs() {
        let units = made(JOBS).unwrap();
        let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
        assert_eq!(
            names,
            ["bulla-dump.service", "bulla-dump.timer", "bulla-files.service", "bulla-files.timer"]
        );
        let service = text("bulla-files.service", &units);
        for line in [
            "ExecStart=:\"/usr/bin/bulla\" run files --config \"/etc/bulla/config.toml\"\n",
            "ReadWritePaths=-\"/mnt/my 50%% \\\"disk\\\"\"\n",
            "LoadCredential=disk-key\n",
            "PrivateNetwork=yes\n",
            "PrivateTmp=yes\n",
            "ProtectKernelModules=yes\n",
            "CapabilityBoundingSet=CAP_DAC_READ_SEARCH CAP_DAC_OVERRIDE\n",
        ] {
            assert!(service.contains(line), "{line}{service}");
        }
        assert!(!service.contains("AF_INET"), "{service}");
        let timer = text("bulla-files.timer", &units);
        let due = "OnCalendar=*-*-01 03:00:00 Europe/Berlin\nOnCalendar=Mon *-*-* 03:00:00 Europe/Berlin\n";
        assert!(timer.contains(due) && timer.contains("Persistent=true\n"), "{timer}");
        let service = text("bulla-dump.service", &units);
        for line in ["AF_INET AF_INET6\n", "CAP_SETUID CAP_SETGID\n", "Wants=network-online.target\n"] {
            assert!(service.contains(line), "{line}{service}");
        }
        assert!(!service.contains("PrivateNetwork") && !service.contains("@privileged"), "{service}");
        assert!(text("bulla-dump.timer", &units).contains("OnCalendar=*-*-* 00:00:00 UTC\n"));
    }

    #[test]
    fn a_job_whose_drills_have_a_timetable_has_a_second_pair() {
        let drills = "drill = { sample = \"weekly\", full = \"30 4 1 * *\", target = \"/srv2/scratch\" }\nschedule = \"0 3 1 * 1\"";
        let units = made(&JOBS.replace("schedule = \"0 3 1 * 1\"", drills)).unwrap();
        let names: Vec<&str> = units.iter().filter(|u| u.job == "files").map(|u| u.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "bulla-files.service",
                "bulla-files.timer",
                "bulla-files-drill.service",
                "bulla-files-drill.timer"
            ]
        );
        let service = text("bulla-files-drill.service", &units);
        for line in [
            "ExecStart=:\"/usr/bin/bulla\" drill files --due --config \"/etc/bulla/config.toml\"\n",
            "ReadWritePaths=-\"/srv2/scratch\"\n",
            "CAP_CHOWN CAP_FOWNER CAP_FSETID\n",
            "SystemCallFilter=@chown\n",
        ] {
            assert!(service.contains(line), "{line}{service}");
        }
        let timer = text("bulla-files-drill.timer", &units);
        for line in
            ["OnCalendar=Mon *-*-* 00:00:00 Europe/Berlin\n", "OnCalendar=*-*-01 04:30:00 Europe/Berlin\n"]
        {
            assert!(timer.contains(line), "{line}{timer}");
        }
        assert!(!text("bulla-files.service", &units).contains("CAP_CHOWN"));
        let clash =
            JOBS.replace("[job.dump]", "[job.files-drill]").replace("schedule = \"0 3 1 * 1\"", drills);
        assert!(made(&clash).unwrap_err()[0].contains("rename one of the two"));
    }

    #[test]
    fn a_device_is_left_to_its_job_and_no_other() {
        let job =
            "source = { block = \"/dev/vg/lv\" }\nhooks = [{ at = \"before\", command = [\"/tmp/freeze\"] }]";
        let service = text(
            "bulla-files.service",
            &made(&JOBS.replace("source = { paths = [\"/srv\"], exclude = [\"/mnt\"] }", job)).unwrap(),
        );
        assert!(service.contains("DevicePolicy=closed\nDeviceAllow=/dev/vg/lv r\n"), "{service}");
        assert!(!service.contains("PrivateDevices") && !service.contains("PrivateTmp"), "{service}");
        assert!(service.contains("AF_INET"), "nobody knows what a hook needs: {service}");
        let fd = JOBS.replace("systemd = \"disk-key\"", "fd = 3");
        assert!(made(&fd).unwrap_err()[0].contains("systemd leaves none open"));
    }

    /// Who tells somebody needs the network and a secret, also with all repositories on a disk.
    #[test]
    fn a_job_that_tells_somebody_reaches_them() {
        let text = JOBS.replace("[job.files]\n", "[job.files]\nnotify = [\"ops\"]\n").replace(
            "[destination.disk]",
            "metrics = \"/var/lib/node_exporter/textfile/bulla.prom\"\n[notify.ops]\n\
             webhook = { url = \"https://h/\", hmac = { systemd = \"hook\" } }\n[destination.disk]",
        );
        let service = super::tests::text("bulla-files.service", &made(&text).unwrap());
        for line in [
            "AF_INET AF_INET6\n",
            "LoadCredential=disk-key\nLoadCredential=hook\n",
            "ReadWritePaths=-\"/var/lib/node_exporter/textfile\"\n",
            "StateDirectory=bulla\n",
            "Wants=network-online.target\n",
        ] {
            assert!(service.contains(line), "{line}{service}");
        }
        assert!(!service.contains("PrivateNetwork"), "{service}");
        // What did not happen no job tells: a unit of its own does, and reaches all that it has to look at.
        let watch = super::tests::text("bulla-notify.service", &made(&text).unwrap());
        for line in [
            "ExecStart=:\"/usr/bin/bulla\" notify --config \"/etc/bulla/config.toml\"\n",
            "LoadCredential=disk-key\nLoadCredential=hook\n",
            "ReadWritePaths=-\"/var/lib/node_exporter/textfile\"\n",
        ] {
            assert!(watch.contains(line), "{line}{watch}");
        }
        assert!(!watch.contains("/mnt/my") && !made(JOBS).unwrap().iter().any(|u| u.job == "notify"));
        let wrong = made(&text.replace("[job.files]", "[job.notify]")).unwrap_err().join("\n");
        assert!(wrong.contains("rename it"), "{wrong}");
    }

    /// What systemd hides from a service would be missing in its backup.
    #[test]
    fn nothing_is_hidden_that_is_backed_up() {
        for (source, temporary, modules) in [
            ("/", true, true),
            ("/usr", false, true),
            ("/var", true, false),
            ("/srv/../tmp/x", true, false),
            ("/home", false, false),
        ] {
            let service = text(
                "bulla-files.service",
                &made(&JOBS.replace("/srv\"]", &format!("{source}\"]"))).unwrap(),
            );
            assert_eq!(!service.contains("PrivateTmp"), temporary, "{source}");
            assert_eq!(!service.contains("ProtectKernelModules"), modules, "{source}");
        }
    }

    #[test]
    fn what_a_unit_cannot_say_is_refused_and_all_of_it_told() {
        let wrong = |from: &str, to: &str| made(&JOBS.replace(from, to)).unwrap_err().join("\n");
        for name in [
            "\"a/b\"",
            "\"\"",
            "\"a b\"",
            "\"../x\"",
            "\"a%i\"",
            "\"-x\"",
            "\"a@b\"",
            "\"a\\nb\"",
            "\"\u{fc}\"",
        ] {
            assert!(wrong("[job.files]", &format!("[job.{name}]")).contains("cannot be a unit's"), "{name}");
        }
        assert!(wrong("50%", "\\n").contains("control characters"));
        assert!(wrong("/mnt/", "mnt/").contains("write the whole path"));
        assert!(wrong("disk-key", "a:/etc/shadow").contains("no credential of systemd"));
        assert_eq!(wrong("/mnt/", "mnt/").lines().count(), 2);
    }
}
