//! What a path or a repository stands on: the disks below a file system, the server behind a mount, the host behind a name.
//!
//! Kept true: what cannot be found out is [`Domain::Unknown`], never a guess; a name that leads back to this machine is
//! [`Domain::Here`]; of what stands on several disks all are named.

use crate::context::{machine, variable};
use bulla_backends::location::Location;
use bulla_manager::compliance::Domain;
use std::ffi::OsStr;
use std::net::{IpAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Device mapper on RAID on partitions, and a loop device on that, is not deeper than this.
const DEPTH: usize = 16;

/// Something that is asked of the system.
type Question<Of, Answer> = Box<dyn Fn(&Of) -> Answer>;

/// What is asked about; tests give other answers than this machine.
pub(crate) struct Surroundings {
    /// `/proc/self/mountinfo`.
    mounts: Vec<u8>,
    /// Where `/sys` is.
    sys: PathBuf,
    /// rclone's configuration.
    rclone: String,
    /// Names of this machine.
    names: Vec<String>,
    /// The device number that a path lies on.
    device: Question<Path, Option<u64>>,
    /// The host that ssh would connect to for a name.
    ssh: Question<str, String>,
    /// The addresses of a name; none if nobody knows it.
    addresses: Question<str, Vec<IpAddr>>,
    /// True for an address of this machine.
    own: Box<dyn Fn(IpAddr) -> bool>,
}

/// One line of mountinfo: where, what kind, and of what.
struct Mount {
    at: PathBuf,
    kind: String,
    source: String,
}

impl Surroundings {
    /// This machine.
    pub(crate) fn of_this_machine() -> Self {
        let config = variable("RCLONE_CONFIG").map(PathBuf::from).or_else(|| {
            let home = variable("XDG_CONFIG_HOME").map(PathBuf::from);
            let home = home.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
            Some(home.join("rclone/rclone.conf"))
        });
        Self {
            mounts: std::fs::read("/proc/self/mountinfo").unwrap_or_default(),
            sys: "/sys".into(),
            rclone: config.and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default(),
            names: vec![machine(), "localhost".into()],
            device: Box::new(|path| std::fs::metadata(path).ok().map(|m| m.dev())),
            ssh: Box::new(ssh_name),
            addresses: Box::new(|name| {
                (name, 0).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect()).unwrap_or_default()
            }),
            // Only an address of this machine can be bound.
            own: Box::new(|address| address.is_loopback() || UdpSocket::bind((address, 0)).is_ok()),
        }
    }

    /// What a repository stands on.
    pub(crate) fn of_location(&self, location: &Location) -> Vec<Domain> {
        match location {
            Location::Local(path) => self.of_path(path),
            Location::Sftp { host, .. } => self.of_host(&(self.ssh)(host)),
            Location::S3 { endpoint, .. } => endpoint.host_str().map_or_else(unknown, |h| self.of_host(h)),
            Location::Rest(url) => url.host_str().map_or_else(unknown, |host| self.of_host(host)),
            Location::Rclone(remote) => self.of_remote(remote, DEPTH),
        }
    }

    /// What a path stands on.
    pub(crate) fn of_path(&self, path: &Path) -> Vec<Domain> {
        self.of_path_within(path, DEPTH)
    }

    /// What a block device stands on, or the file that holds an image of one.
    pub(crate) fn of_device(&self, path: &Path) -> Vec<Domain> {
        match std::fs::metadata(path) {
            Ok(m) if m.file_type().is_block_device() => {
                let (major, minor) = (rustix::fs::major(m.rdev()), rustix::fs::minor(m.rdev()));
                self.below(&self.sys.join(format!("dev/block/{major}:{minor}")), DEPTH)
            }
            _ => self.of_path(path),
        }
    }

    fn of_path_within(&self, path: &Path, depth: usize) -> Vec<Domain> {
        let Some(device) = (self.device)(path) else { return unknown() };
        if depth == 0 {
            return unknown();
        }
        let number = (rustix::fs::major(device), rustix::fs::minor(device));
        let dir = self.sys.join(format!("dev/block/{}:{}", number.0, number.1));
        if dir.exists() {
            return self.below(&dir, depth);
        }
        // A network, a subvolume, memory: what there is of it is in the table of mounts. Two paths of one such device fail
        // together in any case.
        let mut on = vec![Domain::Disk(device)];
        on.extend(self.mount(path).map_or_else(unknown, |mount| self.of_mount(&mount, depth)));
        on
    }

    /// The disks below a block device, which is a directory of `/sys`.
    fn below(&self, dir: &Path, depth: usize) -> Vec<Domain> {
        let Ok(dir) = dir.canonicalize() else { return unknown() };
        if depth == 0 {
            return unknown();
        }
        if let Ok(file) = std::fs::read(dir.join("loop/backing_file")) {
            let file = PathBuf::from(std::ffi::OsString::from_vec(file.trim_ascii_end().to_vec()));
            return self.of_path_within(&file, depth - 1);
        }
        let slaves = std::fs::read_dir(dir.join("slaves")).into_iter().flatten().flatten();
        let slaves: Vec<PathBuf> = slaves.map(|slave| slave.path()).collect();
        if !slaves.is_empty() {
            return slaves.iter().flat_map(|slave| self.below(slave, depth - 1)).collect();
        }
        if dir.join("partition").exists() {
            return dir.parent().map_or_else(unknown, |whole| self.below(whole, depth - 1));
        }
        let number = std::fs::read_to_string(dir.join("dev")).unwrap_or_default();
        let parsed =
            number.trim().split_once(':').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        parsed.map_or_else(unknown, |(major, minor)| vec![Domain::Disk(rustix::fs::makedev(major, minor))])
    }

    /// The mount that a path lies in: of two at one place the later one is on top.
    fn mount(&self, path: &Path) -> Option<Mount> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let lines = self.mounts.split(|b| *b == b'\n').filter_map(mount_of);
        lines.filter(|mount| path.starts_with(&mount.at)).max_by_key(|mount| mount.at.as_os_str().len())
    }

    fn of_mount(&self, mount: &Mount, depth: usize) -> Vec<Domain> {
        let host = |text: Option<&str>| text.map_or_else(unknown, |host| self.of_host(host));
        match mount.kind.as_str() {
            "nfs" | "nfs4" => host(mount.source.rsplit_once(":/").map(|(server, _)| server)),
            "cifs" | "smb3" => host(mount.source.trim_start_matches('/').split('/').next()),
            "fuse.sshfs" => {
                let place = mount.source.rsplit_once(':').map_or(mount.source.as_str(), |(place, _)| place);
                let name = place.rsplit_once('@').map_or(place, |(_, name)| name);
                self.of_host(&(self.ssh)(name))
            }
            "btrfs" => self.of_btrfs(&mount.source, depth),
            _ => unknown(),
        }
    }

    /// All devices of a btrfs of which one is named.
    fn of_btrfs(&self, source: &str, depth: usize) -> Vec<Domain> {
        let named = Path::new(source).canonicalize().unwrap_or_else(|_| source.into());
        let Some(name) = named.file_name() else { return unknown() };
        let systems = std::fs::read_dir(self.sys.join("fs/btrfs")).into_iter().flatten().flatten();
        let mut all = vec![self.sys.join("class/block").join(name)];
        for devices in systems.map(|system| system.path().join("devices")) {
            if devices.join(name).exists() {
                all = std::fs::read_dir(&devices).into_iter().flatten().flatten().map(|d| d.path()).collect();
            }
        }
        all.iter().flat_map(|dir| self.below(dir, depth - 1)).collect()
    }

    /// What another host is, by its name or an address.
    pub(crate) fn of_host(&self, host: &str) -> Vec<Domain> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || self.names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
            return vec![Domain::Here];
        }
        let addresses = host.parse().map_or_else(|_| (self.addresses)(host), |address| vec![address]);
        if addresses.iter().any(|address| (self.own)(*address)) {
            return vec![Domain::Here];
        }
        // By its addresses too: a host has many names.
        let all = addresses.iter().map(|address| Domain::Host(address.to_string()));
        let all: Vec<Domain> = all.chain([Domain::Host(host.to_ascii_lowercase())]).collect();
        if addresses.is_empty() { unknown() } else { all }
    }

    /// What one of rclone's remotes leads to, as far as its configuration says.
    fn of_remote(&self, remote: &str, depth: usize) -> Vec<Domain> {
        let Some((name, path)) = remote.split_once(':').filter(|_| depth > 0) else {
            // A path, where a remote is one that stands on another.
            return if remote.starts_with('/') { self.of_path(Path::new(remote)) } else { unknown() };
        };
        if name.is_empty() || name == "local" {
            // `:local:/path`, or a connection string of another kind.
            let rest = if name.is_empty() { path.strip_prefix("local:") } else { Some(path) };
            return rest.map_or_else(unknown, |path| match path.starts_with('/') {
                true => self.of_path(Path::new(path)),
                false => vec![Domain::Here],
            });
        }
        let section = self.rclone.split('\n').skip_while(|line| line.trim() != format!("[{name}]")).skip(1);
        let section: Vec<&str> = section.take_while(|line| !line.trim_start().starts_with('[')).collect();
        let value = |key: &str| {
            let pair = |line: &&str| {
                line.split_once('=').filter(|(k, _)| k.trim() == key).map(|(_, v)| v.trim().to_owned())
            };
            section.iter().find_map(pair)
        };
        let inner = |key: &str| value(key).map_or_else(unknown, |r| self.of_remote(&r, depth - 1));
        match value("type").as_deref() {
            None => unknown(),
            Some("local") => vec![Domain::Here],
            Some("alias" | "crypt" | "chunker" | "compress" | "cache" | "hasher") => inner("remote"),
            Some("sftp") => value("host").map_or_else(unknown, |host| self.of_host(&(self.ssh)(&host))),
            Some("smb" | "ftp" | "hdfs") => value("host").map_or_else(unknown, |host| self.of_host(&host)),
            Some("s3" | "webdav" | "http" | "swift") => {
                let url = value("endpoint").or_else(|| value("url"));
                let host = |url: String| {
                    let rest = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).to_owned();
                    rest.split(['/', ':']).next().map(str::to_owned)
                };
                url.and_then(host).map_or_else(unknown, |host| self.of_host(&host))
            }
            Some("union" | "combine") => unknown(),
            Some(service) => vec![Domain::Host(format!("rclone {service}"))],
        }
    }
}

fn unknown() -> Vec<Domain> {
    vec![Domain::Unknown]
}

/// What the user's ssh makes of a name.
fn ssh_name(host: &str) -> String {
    let said = std::process::Command::new("ssh")
        .args(["-G", "--", host])
        .stdin(std::process::Stdio::null())
        .output();
    let said = said.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let name = said.lines().find_map(|line| line.strip_prefix("hostname ")).map(str::to_owned);
    name.unwrap_or_else(|| host.to_owned())
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw` (proc(5)).
fn mount_of(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let at = fields.nth(4)?;
    let mut rest = fields.skip_while(|f| *f != b"-").skip(1);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (kind, source) = (text(rest.next()?), text(&unescape(rest.next()?)));
    Some(Mount { at: PathBuf::from(OsStr::from_bytes(&unescape(at))), kind, source })
}

/// Octal escapes of mountinfo (`\040` is a space).
fn unescape(path: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), path);
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\');
        let octal = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(octal.unwrap_or(*first));
        rest = if octal.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use Domain::{Disk, Here, Host, Unknown};
    use rustix::fs::makedev;
    use std::os::unix::fs::symlink;

    /// A `/sys` with two disks with a partition each, RAID and a volume on both, a volume on one, a loop device, and a btrfs
    /// of both partitions.
    fn sys() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for d in ["dev/block", "class/block", "fs/btrfs/1234/devices"] {
            std::fs::create_dir_all(at(d)).unwrap();
        }
        let make = |name: &str, path: &str, number: &str| {
            std::fs::create_dir_all(at(&format!("devices/{path}/slaves"))).unwrap();
            std::fs::write(at(&format!("devices/{path}/dev")), format!("{number}\n")).unwrap();
            for link in [format!("dev/block/{number}"), format!("class/block/{name}")] {
                symlink(at(&format!("devices/{path}")), at(&link)).unwrap();
            }
        };
        for (name, path, number) in [
            ("sda", "sda", "8:0"),
            ("sda1", "sda/sda1", "8:1"),
            ("sdb", "sdb", "8:16"),
            ("sdb1", "sdb/sdb1", "8:17"),
            ("md0", "md0", "9:0"),
            ("dm-0", "dm-0", "253:0"),
            ("dm-1", "dm-1", "253:1"),
            ("loop0", "loop0", "7:0"),
        ] {
            make(name, path, number);
        }
        for part in ["sda/sda1", "sdb/sdb1"] {
            std::fs::write(at(&format!("devices/{part}/partition")), "1\n").unwrap();
        }
        for (upper, lower) in
            [("md0", "sda/sda1"), ("md0", "sdb/sdb1"), ("dm-0", "md0"), ("dm-1", "sdb/sdb1")]
        {
            let name = lower.rsplit('/').next().unwrap();
            symlink(at(&format!("devices/{lower}")), at(&format!("devices/{upper}/slaves/{name}"))).unwrap();
        }
        std::fs::create_dir(at("devices/loop0/loop")).unwrap();
        std::fs::write(at("devices/loop0/loop/backing_file"), "/on-sdb/image\n").unwrap();
        for name in ["sda1", "sdb1"] {
            symlink(at(&format!("class/block/{name}")), at(&format!("fs/btrfs/1234/devices/{name}")))
                .unwrap();
        }
        dir
    }

    const MOUNTS: &[u8] = b"1 0 8:1 / / rw - ext4 /dev/sda1 rw\n\
        2 1 0:40 / /nfs rw shared:1 - nfs4 nas.example.net:/export rw\n\
        3 1 0:41 / /own rw - nfs 192.0.2.1:/export rw\n\
        4 1 0:42 / /with\\040space rw - cifs //fileserver/share rw\n\
        5 1 0:43 /sub /btrfs rw - btrfs /dev/sdb1 rw\n\
        6 1 0:44 / /pool rw - zfs tank/data rw\n\
        7 1 0:45 / /sshfs rw - fuse.sshfs me@backup:/srv rw\n";

    fn surroundings(sys: &Path) -> Surroundings {
        let device = |path: &Path| {
            let first = path.components().nth(1)?.as_os_str().to_str()?.to_owned();
            Some(match first.as_str() {
                "on-sda" => makedev(8, 1),
                "on-sdb" => makedev(8, 17),
                "raid" => makedev(253, 0),
                "volume" => makedev(253, 1),
                "loop" => makedev(7, 0),
                "nfs" => makedev(0, 40),
                "own" => makedev(0, 41),
                "with space" => makedev(0, 42),
                "btrfs" => makedev(0, 99),
                "pool" => makedev(0, 44),
                "sshfs" => makedev(0, 45),
                _ => return None,
            })
        };
        let addresses = |name: &str| -> Vec<IpAddr> {
            match name {
                "nas.example.net" | "nas" => vec!["198.51.100.7".parse().unwrap()],
                "fileserver" | "backup.lan" => vec!["198.51.100.8".parse().unwrap()],
                "alias-of-this" => vec!["192.0.2.1".parse().unwrap()],
                _ => Vec::new(),
            }
        };
        Surroundings {
            mounts: MOUNTS.to_vec(),
            sys: sys.to_owned(),
            rclone: "[disk]\ntype = local\n[safe]\ntype = crypt\nremote = disk:/x\n[drive]\ntype = drive\n\
                     [nas]\ntype = sftp\nhost = nas\n[minio]\ntype = s3\nendpoint = http://alias-of-this:9000\n"
                .into(),
            names: vec!["this".into(), "localhost".into()],
            device: Box::new(device),
            ssh: Box::new(|name| if name == "backup" { "backup.lan".into() } else { name.to_owned() }),
            addresses: Box::new(addresses),
            own: Box::new(|address| address.to_string() == "192.0.2.1" || address.is_loopback()),
        }
    }

    #[test]
    fn a_path_stands_on_all_the_disks_below_it() {
        let sys = sys();
        let here = surroundings(sys.path());
        let (a, b) = (Disk(makedev(8, 0)), Disk(makedev(8, 16)));
        let on = |path: &str| {
            let mut on = here.of_path(Path::new(path));
            on.sort_by_key(|d| format!("{d:?}"));
            on
        };
        assert_eq!(on("/on-sda/x"), std::slice::from_ref(&a));
        assert_eq!(on("/volume"), std::slice::from_ref(&b));
        assert_eq!(on("/loop"), std::slice::from_ref(&b), "the disk of its file");
        let mut both = vec![b.clone(), a.clone()];
        both.sort_by_key(|d| format!("{d:?}"));
        assert_eq!(on("/raid"), both);
        let subvolume = on("/btrfs/nested");
        assert!(
            subvolume.contains(&a) && subvolume.contains(&b) && !subvolume.contains(&Unknown),
            "{subvolume:?}"
        );
        assert!(on("/pool").contains(&Unknown) && on("/nowhere").contains(&Unknown));
    }

    #[test]
    fn a_mount_is_its_server_and_this_machine_is_no_other_host() {
        let sys = sys();
        let here = surroundings(sys.path());
        let nas = Host("198.51.100.7".into());
        let on = |path: &str| here.of_path(Path::new(path));
        assert!(on("/nfs/x").contains(&nas));
        assert!(on("/own").contains(&Here));
        assert!(on("/with space").contains(&Host("198.51.100.8".into())));
        assert!(on("/sshfs").contains(&Host("backup.lan".into())));
        let at = |url: &str| here.of_location(&Location::parse(OsStr::new(url)).unwrap());
        assert!(at("sftp:nas:/srv").contains(&nas) && at("sftp:root@nas.example.net:/srv").contains(&nas));
        for url in [
            "sftp:alias-of-this:/srv",
            "sftp:THIS:/srv",
            "sftp:127.0.0.1:/srv",
            "rest:http://[::1]:8000/",
            "s3:http://alias-of-this:9000/bucket",
            "rclone:disk:/x",
            "rclone:safe:",
            "rclone:minio:bucket",
        ] {
            assert_eq!(at(url), [Here], "{url}");
        }
        assert_eq!(at("rclone::local:/on-sdb/x"), [Disk(makedev(8, 16))]);
        assert_eq!(at("rclone:local:/on-sda/x"), [Disk(makedev(8, 0))]);
        assert!(at("rclone:nas:x").contains(&nas));
        assert_eq!(at("rclone:drive:x"), [Host("rclone drive".into())]);
        for url in ["rclone:nobody:x", "sftp:nobody-knows-it:/srv"] {
            assert_eq!(at(url), [Unknown], "{url}");
        }
    }
}
