//! Servers: found, started on free ports of the loopback interface, and ended with the test, however it ends.
//!
//! `backends/install-servers` puts those that are no Debian packages where they are found here. A server that is not there
//! fails the test where `CI=true` is set, and is said and passed over elsewhere.

use bulla_backends::http::{Ask, Http, Timeouts};
use bulla_backends::location::Location;
use bulla_backends::open::{Opened, Settings, open};
use bulla_backends::settings::{Options, Variables};
use rusty_s3::actions::S3Action;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use std::ffi::OsStr;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Ends what it started when its input does: when the test ends, or is killed.
const KEEPER: &str = r#""$@" </dev/null & read _; kill -9 $!; wait $!"#;
const BUCKET: &str = "backups";
const LOCKED: &str = "locked";
/// What makes [`LOCKED`] keep every version for a day, and its MD5.
const LOCK_RULE: &str = "<ObjectLockConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
    <ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days>\
    </DefaultRetention></Rule></ObjectLockConfiguration>";
const LOCK_RULE_MD5: &str = "Ms0qM6MDXP5BYyCiloSlng==";
pub(crate) const KEY: &str = "test-key";
pub(crate) const SECRET: &str = "test-secret-that-shows-nowhere";

/// A running program.
pub(crate) struct Running {
    shell: Child,
    dir: TempDir,
}

impl Running {
    /// Starts `program` with its output in a file.
    pub(crate) fn start(program: &Path, dir: TempDir, arguments: &[&str]) -> Self {
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let shell = Command::new("/bin/sh")
            .args(["-c", KEEPER, "sh"])
            .arg(program)
            .args(arguments)
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { shell, dir }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until `ready` says so.
    pub(crate) fn until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !ready() {
            assert!(begun.elapsed() < Duration::from_secs(60), "{what} does not serve:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
    }
}

/// Where a program is; `None`, with a word about it, where it may be missing.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut dirs = vec![root.join("target/servers")];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    dirs.extend(["/usr/sbin", "/usr/lib/openssh"].map(PathBuf::from));
    let found = dirs.into_iter().map(|d| d.join(program)).find(|p| p.is_file());
    if found.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{program} is not installed");
        println!("passed over: {program} is not installed (backends/install-servers)");
    }
    found
}

/// Ports that are free, each for this process alone: below those that the system gives out, and beginning at other ones
/// than tests that run beside this one, which would meet this one's server and take it for theirs.
pub(crate) fn ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id() % 650 * 32;
    std::array::from_fn(|_| {
        loop {
            let port = 10_240 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_800;
            let port = u16::try_from(port).unwrap();
            if TcpListener::bind(("127.0.0.1", port)).is_ok() {
                return port;
            }
        }
    })
}

/// An S3 server.
pub(crate) struct S3 {
    _running: Running,
    pub(crate) port: u16,
    prefixes: AtomicU32,
}

impl S3 {
    /// SeaweedFS: conditional puts, object lock.
    pub(crate) fn seaweed() -> Option<Self> {
        Self::seaweed_with(&[])
    }

    /// The same, where for each of `policies` there is one more key, of this name, that may do what the policy says.
    pub(crate) fn seaweed_with(policies: &[(&str, &str)]) -> Option<Self> {
        Self::seaweed_in(tempfile::tempdir().unwrap(), policies, "")
    }

    /// The same behind TLS, with a certificate of an authority that nobody knows: its file, and the port.
    pub(crate) fn seaweed_with_tls() -> Option<(Self, PathBuf, u16)> {
        let openssl = find("openssl")?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("names"), "subjectAltName=IP:127.0.0.1").unwrap();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout";
        for line in [
            format!("req -x509 {key} ca.key -out ca.pem -subj /CN=authority -days 2"),
            format!("req {key} s3.key -out s3.csr -subj /CN=server"),
            "x509 -req -in s3.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s3.pem -days 2 -extfile names".into(),
        ] {
            let made = Command::new(&openssl).args(line.split(' ')).current_dir(dir.path()).output().unwrap();
            assert!(made.status.success(), "{line}: {}", String::from_utf8_lossy(&made.stderr));
        }
        let authority = dir.path().join("ca.pem");
        let [port] = ports();
        let more = format!(" -s3.port.https={port} -s3.cert.file=s3.pem -s3.key.file=s3.key");
        Some((Self::seaweed_in(dir, &[], &more)?, authority, port))
    }

    fn seaweed_in(dir: TempDir, policies: &[(&str, &str)], more: &str) -> Option<Self> {
        let program = find("weed")?;
        let who = |name: &str, may: &str| {
            format!(
                r#"{{"name":"{name}","credentials":[{{"accessKey":"{name}","secretKey":"{SECRET}"}}],{may}}}"#
            )
        };
        let mut identities = vec![who(KEY, r#""actions":["Admin","Read","Write","List","Tagging"]"#)];
        identities.extend(policies.iter().map(|(n, _)| who(n, &format!(r#""policyNames":["{n}"]"#))));
        let quoted = |text: &str| text.replace('"', "\\\"").replace('\n', " ");
        let policies: Vec<String> = policies
            .iter()
            .map(|(name, text)| format!(r#"{{"name":"{name}","content":"{}"}}"#, quoted(text)))
            .collect();
        let config =
            format!(r#"{{"identities":[{}],"policies":[{}]}}"#, identities.join(","), policies.join(","));
        std::fs::write(dir.path().join("s3.json"), config).unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let [port, s3_grpc, filer, filer_grpc, master, master_grpc, volume, volume_grpc] = ports();
        let options = [
            "server -dir=data -ip=127.0.0.1 -ip.bind=127.0.0.1 -s3 -s3.config=s3.json -volume.max=64"
                .to_owned(),
            "-master.volumeSizeLimitMB=64 -master.telemetry=false -s3.port.iceberg=0 -s3.port.lance=0"
                .to_owned(),
            format!(
                "-s3.port={port} -s3.port.grpc={s3_grpc} -filer.port={filer} -filer.port.grpc={filer_grpc}"
            ),
            format!("-master.port={master} -master.port.grpc={master_grpc}"),
            format!("-volume.port={volume} -volume.port.grpc={volume_grpc}{more}"),
        ]
        .join(" ");
        let arguments: Vec<&str> = options.split(' ').collect();
        Some(Self::ready("SeaweedFS", Running::start(&program, dir, &arguments), port))
    }

    /// rclone's S3 server, which replaces whatever a put names.
    pub(crate) fn rclone() -> Option<Self> {
        let program = find("rclone-s3")?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let [port] = ports();
        let (address, key) = (format!("127.0.0.1:{port}"), format!("{KEY},{SECRET}"));
        let arguments = [
            "serve",
            "s3",
            "--config",
            "/dev/null",
            "--addr",
            &address,
            "--auth-key",
            &key,
            // With its cache it tells, for a while after a put, of an object that is not whole.
            "--vfs-cache-mode",
            "off",
            "data",
        ];
        Some(Self::ready("rclone serve s3", Running::start(&program, dir, &arguments), port))
    }

    fn ready(what: &str, mut running: Running, port: u16) -> Self {
        let probe = bucket_at(port, BUCKET);
        running.until(what, || make_bucket(&probe));
        Self { _running: running, port, prefixes: AtomicU32::new(0) }
    }

    /// The URL of a new bucket in which each version of an object stays for a day, whoever asks to delete it.
    pub(crate) fn locked(&self) -> String {
        let bucket = bucket_at(self.port, LOCKED);
        let credentials = Credentials::new(KEY, SECRET);
        let lock = [("x-amz-bucket-object-lock-enabled", "true")];
        let made = ask("PUT", bucket.create_bucket(&credentials), &[], &lock, Some(b""));
        assert_eq!(made.0, 200, "{}", made.1);
        let headers = [("content-md5", LOCK_RULE_MD5)];
        let action = bucket.create_bucket(&credentials);
        let ruled = ask("PUT", action, &[("object-lock", "")], &headers, Some(LOCK_RULE.as_bytes()));
        assert_eq!(ruled.0, 200, "{}", ruled.1);
        format!("s3:http://127.0.0.1:{}/{LOCKED}/a", self.port)
    }

    /// All versions of the objects in the locked bucket, delete markers among them.
    pub(crate) fn versions(&self) -> Vec<Version> {
        let bucket = bucket_at(self.port, LOCKED);
        let credentials = Credentials::new(KEY, SECRET);
        let (status, text) =
            ask("GET", bucket.get_object(Some(&credentials), ""), &[("versions", "")], &[], None);
        assert_eq!(status, 200, "{text}");
        assert!(text.contains("<IsTruncated>false<"), "more than a page");
        let mut out = Vec::new();
        for (tag, marker) in [("<Version>", false), ("<DeleteMarker>", true)] {
            for part in text.split(tag).skip(1) {
                let within = |tag: &str| {
                    let (_, rest) = part.split_once(&format!("<{tag}>")).unwrap();
                    rest.split_once('<').unwrap().0.to_owned()
                };
                out.push(Version { key: within("Key"), id: within("VersionId"), marker });
            }
        }
        out
    }

    /// Until when an object in the locked bucket is retained, and who is bound.
    pub(crate) fn retention(&self, key: &str) -> Option<(i64, String)> {
        let (bucket, credentials) = (bucket_at(self.port, LOCKED), Credentials::new(KEY, SECRET));
        let action = bucket.get_object(Some(&credentials), key);
        let (status, text) = ask("GET", action, &[("retention", "")], &[], None);
        let within = |tag: &str| Some(text.split_once(&format!("<{tag}>"))?.1.split_once('<')?.0.to_owned());
        assert!(matches!(status, 200 | 404), "{status} {text}");
        let until: jiff::Timestamp = within("RetainUntilDate")?.parse().unwrap();
        Some((until.as_second(), within("Mode")?))
    }

    /// Asks, as who may do everything, for one version to be deleted.
    pub(crate) fn delete_version(&self, version: &Version) -> u16 {
        let (bucket, credentials) = (bucket_at(self.port, LOCKED), Credentials::new(KEY, SECRET));
        let action = bucket.delete_object(Some(&credentials), &version.key);
        ask("DELETE", action, &[("versionId", &version.id)], &[], None).0
    }

    /// The URL of a new prefix in a bucket.
    pub(crate) fn url(&self) -> String {
        let number = self.prefixes.fetch_add(1, Ordering::Relaxed);
        format!("s3:http://127.0.0.1:{}/{BUCKET}/a/{number}", self.port)
    }
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version {
    pub(crate) key: String,
    pub(crate) id: String,
    /// It says that the object was deleted.
    pub(crate) marker: bool,
}

/// Signs and sends what rusty-s3 has no action for; status and body.
fn ask<'a, A: S3Action<'a>>(
    method: &'static str,
    mut action: A,
    query: &[(&'a str, &'a str)],
    headers: &[(&'a str, &'a str)],
    body: Option<&[u8]>,
) -> (u16, String) {
    query.iter().for_each(|(name, value)| action.query_mut().insert(*name, *value));
    headers.iter().for_each(|(name, value)| action.headers_mut().insert(*name, *value));
    let (url, parts) = (action.sign(Duration::from_secs(60)), body.map(|b| [b]));
    let body = parts.as_ref().map(|p| p.as_slice());
    let answer = Http::new(None, 1, Timeouts::default())
        .unwrap()
        .send(&Ask { method, url: url.as_str(), headers, body })
        .unwrap();
    (answer.status(), String::from_utf8(answer.body(1 << 20).unwrap()).unwrap())
}

fn bucket_at(port: u16, name: &str) -> Bucket {
    let endpoint = format!("http://127.0.0.1:{port}").parse().unwrap();
    Bucket::new(endpoint, UrlStyle::Path, name.to_owned(), "us-east-1").unwrap()
}

fn make_bucket(bucket: &Bucket) -> bool {
    let credentials = Credentials::new(KEY, SECRET);
    let url = bucket.create_bucket(&credentials).sign(Duration::from_secs(60));
    let http = Http::new(None, 1, Timeouts::default()).unwrap();
    let ask = Ask { method: "PUT", url: url.as_str(), headers: &[], body: Some(&[]) };
    http.send(&ask).is_ok_and(|answer| answer.status() == 200)
}

/// `rclone serve restic`, as a server of its own.
pub(crate) struct RestServer {
    _running: Running,
    pub(crate) port: u16,
}

impl RestServer {
    /// One that lets all be done, or only additions.
    pub(crate) fn start(append_only: bool) -> Option<Self> {
        let program = find("rclone")?;
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        let [port] = ports();
        let address = format!("127.0.0.1:{port}");
        let mut arguments = vec![
            "serve",
            "restic",
            "--config",
            "/dev/null",
            "--addr",
            &address,
            "--user",
            KEY,
            "--pass",
            SECRET,
        ];
        arguments.extend(append_only.then_some("--append-only"));
        arguments.push("data");
        let mut running = Running::start(&program, dir, &arguments);
        running.until("rclone serve restic", || TcpStream::connect(&address).is_ok());
        Some(Self { _running: running, port })
    }

    pub(crate) fn url(&self) -> String {
        format!("rest:http://{KEY}:{SECRET}@127.0.0.1:{}/", self.port)
    }
}

/// The store at `url`, with the keys that these servers know, and little patience.
pub(crate) fn store(url: &str) -> Opened {
    store_with(url, &[])
}

/// The same with options.
pub(crate) fn store_with(url: &str, options: &[&str]) -> Opened {
    store_as(KEY, url, options)
}

/// The same as who has another key.
pub(crate) fn store_as(key: &str, url: &str, options: &[&str]) -> Opened {
    opened(key, url, options, None)
}

/// The store at `url`, where this authority is trusted and no other.
pub(crate) fn store_trusting(url: &str, authority: &Path) -> Opened {
    opened(KEY, url, &[], Some(authority))
}

fn opened(key: &str, url: &str, options: &[&str], authorities: Option<&Path>) -> Opened {
    let variable = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some(key.to_owned()),
        "AWS_SECRET_ACCESS_KEY" => Some(SECRET.to_owned()),
        _ => None,
    };
    let mut words = options.to_vec();
    if !words.iter().any(|w| w.starts_with("retry-seconds")) {
        words.push("retry-seconds=20");
    }
    let settings = Settings {
        options: Options::parse(words).unwrap(),
        variables: Variables::new(&variable),
        authorities: authorities.map(Path::to_owned),
        // Shown if the test fails.
        notice: Some(Box::new(|text| println!("{text}"))),
    };
    open(&Location::parse(OsStr::new(url)).unwrap(), settings).unwrap()
}

/// No text of an error may hold this.
pub(crate) fn shows_a_secret(text: &str) -> bool {
    text.contains(SECRET) || text.contains("X-Amz-Signature")
}
