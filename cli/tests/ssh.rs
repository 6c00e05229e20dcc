//! An sshd, for those who type `sftp:`.

use crate::remote::servers::{Running, find, ports};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// An sshd of our own, and a program that calls `ssh` as somebody would whose config names the host `nas`.
pub(crate) struct Ssh {
    _running: Running,
    keys: TempDir,
}

impl Ssh {
    pub(crate) fn start() -> Option<Self> {
        let (sshd, keygen, ssh) = (find("sshd")?, find("ssh-keygen")?, find("ssh")?);
        let keys = tempfile::tempdir().unwrap();
        let file = |name: &str| keys.path().join(name).display().to_string();
        for key in ["host", "user"] {
            let made =
                Command::new(&keygen).args(["-q", "-t", "ed25519", "-N", "", "-f", &file(key)]).status();
            assert!(made.unwrap().success());
        }
        // It insists on it where it runs as root.
        let _ = std::fs::create_dir_all("/run/sshd");
        let [port] = ports();
        let config = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n",
            file("host"),
            file("user.pub")
        );
        std::fs::write(file("sshd_config"), config).unwrap();
        let host = std::fs::read_to_string(file("host.pub")).unwrap();
        std::fs::write(file("known"), format!("[127.0.0.1]:{port} {host}")).unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
        let config = format!(
            "Host nas\nHostName 127.0.0.1\nPort {port}\nIdentityFile {}\nUserKnownHostsFile {}\nBatchMode yes\n",
            file("user"),
            file("known")
        );
        std::fs::write(file("config"), config).unwrap();
        // The name in the URL is one that this machine does not have.
        let script = format!(
            "#!/bin/sh\nexec {} -F {} -o User={} \"$@\"\n",
            ssh.display(),
            file("config"),
            user.trim()
        );
        std::fs::create_dir(keys.path().join("bin")).unwrap();
        std::fs::write(file("bin/ssh"), script).unwrap();
        std::fs::set_permissions(file("bin/ssh"), std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .unwrap();
        let arguments = ["-D", "-e", "-f", &file("sshd_config")];
        let mut running = Running::start(&sshd, tempfile::tempdir().unwrap(), &arguments);
        running.until("sshd", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(Self { _running: running, keys })
    }

    /// Where that `ssh` is.
    pub(crate) fn bin(&self) -> PathBuf {
        self.keys.path().join("bin")
    }
}
