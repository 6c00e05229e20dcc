//! A real sshd, reached by the machine's own ssh.

use super::{SERVER, SSHD, keeps_the_contract, present, reached_by, temporaries};
use bulla_backends::sftp::Sftp;
use bulla_backends::store::{Kind, Store};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

/// An sshd on this machine, with keys of its own.
struct Sshd {
    child: Child,
    dir: tempfile::TempDir,
}

impl Sshd {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for key in ["host", "user", "stranger"] {
            let arguments = ["-q", "-t", "ed25519", "-N", "", "-f", &file(key)];
            assert!(Command::new("ssh-keygen").args(arguments).status().unwrap().success());
        }
        std::fs::copy(file("user.pub"), file("authorized")).unwrap();
        // sshd insists on it; without the right to make it, it says so.
        let _ = std::fs::create_dir_all("/run/sshd");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = [
            format!("HostKey={}", file("host")),
            format!("AuthorizedKeysFile={}", file("authorized")),
            format!("Subsystem=sftp {SERVER}"),
            "ListenAddress=127.0.0.1".into(),
            "PidFile=none".into(),
            "StrictModes=no".into(),
            "UsePAM=no".into(),
            "PermitRootLogin=prohibit-password".into(),
        ];
        let log = std::fs::File::create(file("log")).unwrap();
        let mut command = Command::new(SSHD);
        command.args(["-D", "-e", "-f", "/dev/null", "-p", &port.to_string()]).stderr(log);
        options.iter().for_each(|o| _ = command.args(["-o", o]));
        let child = command.spawn().unwrap();
        let host = std::fs::read_to_string(file("host.pub")).unwrap();
        let stranger = std::fs::read_to_string(file("stranger.pub")).unwrap();
        std::fs::write(file("known"), format!("right {host}\nwrong {stranger}\nkeyless {host}\n")).unwrap();
        let (known, user) = (file("known"), file("user"));
        let config = |name: &str, key: &str| {
            format!(
                "Host {name}\nHostName 127.0.0.1\nPort {port}\nHostKeyAlias {name}\nIdentityFile {key}\n\
                 IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {known}\n\
                 StrictHostKeyChecking yes\nBatchMode yes\n"
            )
        };
        let hosts = config("right", &user) + &config("wrong", &user) + &config("keyless", &file("stranger"));
        std::fs::write(file("config"), hosts).unwrap();
        let sshd = Self { child, dir };
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return sshd;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("sshd does not listen: {}", sshd.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What the default command is, with a configuration of the test's own.
    fn store(&self, host: &str, path: &Path) -> Sftp {
        let config = self.dir.path().join("config");
        let alive = ["-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4"];
        let command = [&["ssh", "-F", config.to_str().unwrap()], &alive[..], &["-s", "--", host, "sftp"]];
        reached_by(path, &command.concat())
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_store_behind_a_real_sshd_keeps_the_contract() {
    if !present(&[SERVER, SSHD, "/usr/bin/ssh", "/usr/bin/ssh-keygen"]) {
        return;
    }
    let (sshd, dir) = (Sshd::start(), tempfile::tempdir().unwrap());
    let root = dir.path().join("new/repository");
    let store = sshd.store("right", &root);
    store.prepare().unwrap_or_else(|f| panic!("{f:?}\n{}", sshd.log()));
    keeps_the_contract(&store);
    assert_eq!(store.exact(), Ok(true));
    drop(store);
    assert_eq!(temporaries(&root), 0);
    let keyless = sshd.store("keyless", &root).exact().unwrap_err();
    assert_eq!(keyless.kind, Kind::Denied);
    assert!(keyless.text.contains("Permission denied (publickey"), "{keyless:?}");
    let wrong = sshd.store("wrong", &root).exact().unwrap_err();
    assert_eq!(wrong.kind, Kind::Denied);
    assert!(wrong.text.contains("Host key verification failed"), "{wrong:?}");
}
